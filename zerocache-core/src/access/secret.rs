//! Secrets: the one string that the nodes of a cluster share.

use alloc::string::String;
use core::{fmt, str::FromStr};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use super::token::TokenKey;

/// The random bytes of a secret.
pub const SECRET_BYTES: usize = 32;

/// The bytes of the check sum of a secret.
const CHECK_BYTES: usize = 4;

/// The first characters of every secret.
const INTRODUCTION: &str = "zcs1_";

/// A secret: whoever has it can be a node of the cluster, and make tokens.
///
/// In text it is `zcs1_` and the base64url form of 256 random bits and a check sum. A passphrase is none: it
/// could be guessed from any token.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret([u8; SECRET_BYTES]);

/// A text that is not a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "this is not a secret; use one that `zerocache secret` printed, which begins with {INTRODUCTION}"
)]
pub struct InvalidSecret;

impl Secret {
    /// Makes a secret of bytes that nobody can guess.
    #[must_use]
    pub const fn from_random(bytes: [u8; SECRET_BYTES]) -> Self {
        Self(bytes)
    }

    /// Returns the secret as text.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut bytes = [0; SECRET_BYTES + CHECK_BYTES];
        bytes[..SECRET_BYTES].copy_from_slice(&self.0);
        bytes[SECRET_BYTES..].copy_from_slice(&check(&self.0));
        let mut text = String::from(INTRODUCTION);
        URL_SAFE_NO_PAD.encode_string(bytes, &mut text);
        text
    }

    /// Returns the key that signs tokens.
    #[must_use]
    pub fn token_key(&self) -> TokenKey {
        TokenKey::new(self.derive("zerocache 2026 key of signed tokens"))
    }

    /// Derives 32 bytes for the purpose that `context` names; the same in every process.
    #[must_use]
    pub fn derive(&self, context: &str) -> [u8; 32] {
        blake3::derive_key(context, &self.0)
    }
}

/// Detects typing errors.
fn check(bytes: &[u8; SECRET_BYTES]) -> [u8; CHECK_BYTES] {
    let sum = blake3::derive_key("zerocache 2026 check sum of a secret", bytes);
    [sum[0], sum[1], sum[2], sum[3]]
}

impl FromStr for Secret {
    type Err = InvalidSecret;

    fn from_str(text: &str) -> Result<Self, InvalidSecret> {
        let encoded = text.strip_prefix(INTRODUCTION).ok_or(InvalidSecret)?;
        let mut bytes = [0; SECRET_BYTES + CHECK_BYTES];
        let length = URL_SAFE_NO_PAD.decode_slice(encoded, &mut bytes);
        if length != Ok(bytes.len()) {
            return Err(InvalidSecret);
        }
        let (secret, sum) = bytes.split_at(SECRET_BYTES);
        let secret = secret.try_into().map_err(|_| InvalidSecret)?;
        if check(&secret) == sum { Ok(Self(secret)) } else { Err(InvalidSecret) }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}
