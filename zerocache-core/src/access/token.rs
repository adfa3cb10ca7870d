//! Signed tokens: what a client presents instead of the secret.
//!
//! `zc1_` and the base64url form of `fields ‖ MAC`. The fields are encoded as in messages; the MAC is a keyed
//! BLAKE3 of them. The key is derived from the secret, so that nodes need no list of tokens.

use alloc::{
    string::{String, ToString},
    vec::Vec,
};
use core::{fmt, str::FromStr};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::{Bytes, BytesMut};

use super::{Denial, Grant, PREFIXES_MAX, Prefix, Role};
use crate::{
    name,
    wire::{
        DecodeError, Writer,
        field::{Field, Reader},
    },
};

/// The bytes of the number of a token.
pub const TOKEN_ID_BYTES: usize = 8;

/// The first characters of every token.
const INTRODUCTION: &str = "zc1_";

const MAC_BYTES: usize = 32;

/// The longest token, in characters: within the largest head of a request.
const TEXT_BYTES_MAX: usize = 4 << 10;

/// The longest prefix in text: `memo:` and a name, or a text prefix.
const PREFIX_TEXT_MAX: usize = super::PREFIX_BYTES_MAX;

mod tag {
    pub(super) const ID: u32 = 1;
    pub(super) const NAME: u32 = 2;
    pub(super) const ROLE: u32 = 3;
    pub(super) const PREFIX: u32 = 4;
    pub(super) const NOT_AFTER: u32 = 5;
    pub(super) const CLUSTER: u32 = 6;
    pub(super) const CA: u32 = 7;
}

/// The number of a token, by which it is revoked. Sixteen hexadecimal digits in text.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenId(pub [u8; TOKEN_ID_BYTES]);

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", u64::from_be_bytes(self.0))
    }
}

impl fmt::Debug for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for TokenId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_hex =
            text.len() == 2 * TOKEN_ID_BYTES && text.bytes().all(|b| b.is_ascii_hexdigit());
        let number = u64::from_str_radix(text, 16).ok().filter(|_| is_hex);
        let number = number.ok_or_else(|| {
            alloc::format!("{text:?} is no token id; use the 16 hexadecimal digits of it")
        })?;
        Ok(Self(number.to_be_bytes()))
    }
}

/// The key that signs tokens.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenKey([u8; 32]);

impl TokenKey {
    pub(super) const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenKey(..)")
    }
}

/// The content of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenFields {
    /// Its number.
    pub id: TokenId,
    /// The name of the client, for people and logs.
    pub name: String,
    /// The role; never [`Role::Node`].
    pub role: Role,
    /// The keys it is for; all if empty. At most [`PREFIXES_MAX`].
    pub prefixes: Vec<Prefix>,
    /// The end of its validity, in seconds since the Unix epoch.
    pub not_after_s: u64,
    /// The cluster it is for.
    pub cluster: String,
    /// BLAKE3 of the public key of the cluster's CA, as its certificate states it
    /// (`SubjectPublicKeyInfo`): the client verifies the nodes by it before it sends the token.
    pub ca: [u8; 32],
}

impl TokenFields {
    /// Signs the fields and returns the token as text.
    ///
    /// # Errors
    /// A sentence if a name or the number of prefixes breaks a rule, or the role is `none`, `node` or `all`.
    pub fn sign(&self, key: &TokenKey) -> Result<String, String> {
        name::check(&self.name).map_err(|error| error.to_string())?;
        name::check(&self.cluster).map_err(|error| error.to_string())?;
        if matches!(self.role, Role::None | Role::Node | Role::All) {
            return Err(alloc::format!("a token cannot have the role {}", self.role));
        }
        if self.prefixes.len() > PREFIXES_MAX {
            return Err(alloc::format!("a token has at most {PREFIXES_MAX} prefixes"));
        }
        let mut bytes = BytesMut::new();
        self.write(&mut Writer::new(&mut bytes));
        let mac = blake3::keyed_hash(&key.0, &bytes);
        bytes.extend_from_slice(mac.as_bytes());
        let mut text = String::from(INTRODUCTION);
        URL_SAFE_NO_PAD.encode_string(&bytes, &mut text);
        match text.len() {
            0..=TEXT_BYTES_MAX => Ok(text),
            _ => Err("the prefixes are too long together".to_string()),
        }
    }

    fn write(&self, out: &mut Writer<'_>) {
        out.bytes(tag::ID, &self.id.0);
        out.bytes(tag::NAME, self.name.as_bytes());
        out.bytes(tag::ROLE, self.role.as_str().as_bytes());
        for prefix in &self.prefixes {
            out.bytes(tag::PREFIX, prefix.to_string().as_bytes());
        }
        out.number(tag::NOT_AFTER, self.not_after_s);
        out.bytes(tag::CLUSTER, self.cluster.as_bytes());
        out.bytes(tag::CA, &self.ca);
    }

    /// Unknown fields are refused: a later release may restrict a token by them.
    fn read(bytes: &Bytes) -> Result<Self, DecodeError> {
        let (mut id, mut role, mut ca, mut not_after_s) = (None, None, None, None);
        let (mut token_name, mut cluster, mut prefixes) = (None, None, Vec::new());
        let text = |field: &Field<'_>| {
            let text = field.text(name::NAME_BYTES_MAX)?;
            name::check(text).map_err(|_| field.invalid())?;
            Ok::<_, DecodeError>(text.to_string())
        };
        Reader::new(bytes).each(|field| {
            match field.tag {
                tag::ID => id = Some(TokenId(field.array()?)),
                tag::NAME => token_name = Some(text(&field)?),
                tag::ROLE => role = Some(field.text(16)?.parse().map_err(|_| field.invalid())?),
                tag::PREFIX if prefixes.len() < PREFIXES_MAX => {
                    let prefix = field.text(PREFIX_TEXT_MAX)?.parse();
                    prefixes.push(prefix.map_err(|_: String| field.invalid())?);
                }
                tag::NOT_AFTER => not_after_s = Some(field.number()?),
                tag::CLUSTER => cluster = Some(text(&field)?),
                tag::CA => ca = Some(field.array()?),
                _ => return Err(field.invalid()),
            }
            Ok(())
        })?;
        let missing = DecodeError::Missing;
        Ok(Self {
            id: id.ok_or(missing(tag::ID))?,
            name: token_name.ok_or(missing(tag::NAME))?,
            role: role.filter(|role| *role != Role::Node).ok_or(missing(tag::ROLE))?,
            prefixes,
            not_after_s: not_after_s.ok_or(missing(tag::NOT_AFTER))?,
            cluster: cluster.ok_or(missing(tag::CLUSTER))?,
            ca: ca.ok_or(missing(tag::CA))?,
        })
    }
}

/// A text that is not a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "this is not a token; use one that `zerocache token create` printed, which begins with {INTRODUCTION}"
)]
pub struct InvalidToken;

/// A token as a client holds it, or as a caller presented it. Its signature is not verified.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    fields: TokenFields,
    text: String,
    signed: Bytes,
    mac: blake3::Hash,
}

impl Token {
    /// Returns the fields. They are only a claim, until [`verify`](Self::verify) accepts them.
    #[must_use]
    pub const fn fields(&self) -> &TokenFields {
        &self.fields
    }

    /// Returns the token as text, to be presented to a node. Not for logs.
    #[must_use]
    pub fn as_text(&self) -> &str {
        &self.text
    }

    /// Returns what the token grants in `cluster` at `now_s`, in seconds since the Unix epoch. One of `keys`
    /// must have signed it.
    ///
    /// # Errors
    /// [`Denial::Wrong`] or [`Denial::Expired`].
    pub fn verify(&self, keys: &[TokenKey], cluster: &str, now_s: u64) -> Result<Grant, Denial> {
        // Comparing two hashes takes the same time wherever they differ.
        let is_signed = keys.iter().any(|key| blake3::keyed_hash(&key.0, &self.signed) == self.mac);
        if !is_signed || self.fields.cluster != cluster {
            return Err(Denial::Wrong);
        }
        if now_s > self.fields.not_after_s {
            return Err(Denial::Expired);
        }
        Ok(Grant::scoped(self.fields.role, self.fields.prefixes.clone()))
    }
}

impl FromStr for Token {
    type Err = InvalidToken;

    fn from_str(text: &str) -> Result<Self, InvalidToken> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(InvalidToken);
        }
        let encoded = text.strip_prefix(INTRODUCTION).ok_or(InvalidToken)?;
        let bytes = Bytes::from(URL_SAFE_NO_PAD.decode(encoded).map_err(|_| InvalidToken)?);
        let (_, mac) = bytes.split_last_chunk::<MAC_BYTES>().ok_or(InvalidToken)?;
        let mac = blake3::Hash::from_bytes(*mac);
        let signed = bytes.slice(..bytes.len() - MAC_BYTES);
        let fields = TokenFields::read(&signed).map_err(|_| InvalidToken)?;
        Ok(Self { fields, text: text.to_string(), signed, mac })
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({}, ..)", self.fields.id)
    }
}
