//! Static tokens: random texts that an access file lists by their hashes.

use alloc::string::String;
use core::{fmt, str::FromStr};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

/// The random bytes of a static token.
pub const STATIC_TOKEN_BYTES: usize = 32;

/// The first characters of every static token.
const INTRODUCTION: &str = "zct1_";

/// What introduces a hash in text.
const HASH: &str = "b3:";

/// A token that says nothing by itself: `zct1_` and the base64url form of 256 random bits.
///
/// It is for clusters without a secret. Nodes know its hash, from their access file.
#[derive(Clone, PartialEq, Eq)]
pub struct StaticToken(String);

/// A text that is not a static token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "this is not a static token; use one that `zerocache token create --static` printed, which begins with \
     {INTRODUCTION}"
)]
pub struct InvalidStaticToken;

impl StaticToken {
    /// Makes a token of bytes that nobody can guess.
    #[must_use]
    pub fn from_random(bytes: [u8; STATIC_TOKEN_BYTES]) -> Self {
        let mut text = String::from(INTRODUCTION);
        URL_SAFE_NO_PAD.encode_string(bytes, &mut text);
        Self(text)
    }

    /// Returns the token as text, to be presented to a node. Not for logs.
    #[must_use]
    pub fn as_text(&self) -> &str {
        &self.0
    }

    /// Returns the hash of the token.
    #[must_use]
    pub fn hash(&self) -> TokenHash {
        TokenHash::of(&self.0)
    }
}

impl FromStr for StaticToken {
    type Err = InvalidStaticToken;

    fn from_str(text: &str) -> Result<Self, InvalidStaticToken> {
        let encoded = text.strip_prefix(INTRODUCTION).ok_or(InvalidStaticToken)?;
        let mut bytes = [0; STATIC_TOKEN_BYTES];
        match URL_SAFE_NO_PAD.decode_slice(encoded, &mut bytes) {
            Ok(STATIC_TOKEN_BYTES) => Ok(Self(text.into())),
            _ => Err(InvalidStaticToken),
        }
    }
}

impl fmt::Debug for StaticToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StaticToken(..)")
    }
}

/// The BLAKE3 of a presented token's text: `b3:` and 64 hexadecimal digits in an access file.
///
/// Comparing two takes the same time wherever they differ.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenHash(blake3::Hash);

impl TokenHash {
    /// Returns the hash of the text that a caller presented.
    #[must_use]
    pub fn of(text: &str) -> Self {
        Self(blake3::hash(text.as_bytes()))
    }
}

impl fmt::Display for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{HASH}{}", self.0.to_hex())
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for TokenHash {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let hash = text.strip_prefix(HASH).and_then(|hex| blake3::Hash::from_hex(hex).ok());
        hash.map(Self).ok_or_else(|| {
            alloc::format!(
                "{text:?} is no hash of a token; use the one that `zerocache token create --static` printed, \
                 {HASH} and 64 hexadecimal digits"
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    #[test]
    fn static_token_goes_through_text_and_says_nothing_of_itself() {
        let token = StaticToken::from_random([7; 32]);
        let text = token.as_text();
        assert!(text.starts_with("zct1_") && text.len() == 48);
        assert_eq!(text.parse(), Ok(token.clone()));
        assert_eq!(alloc::format!("{token:?}"), "StaticToken(..)");
        let long = alloc::format!("{text}A");
        for wrong in ["", "zct1_", "zc1_AAAA", &text[..47], &long] {
            assert_eq!(wrong.parse::<StaticToken>(), Err(InvalidStaticToken), "{wrong}");
        }
    }

    #[test]
    fn hash_is_that_of_the_presented_text() {
        let token = StaticToken::from_random([7; 32]);
        let text = token.hash().to_string();
        assert_eq!(text, alloc::format!("b3:{}", blake3::hash(token.as_text().as_bytes())));
        assert_eq!(text.parse(), Ok(token.hash()));
        assert_eq!(TokenHash::of(token.as_text()), token.hash());
        for wrong in ["", "b3:", "b3:9f", &text[3..], token.as_text()] {
            assert!(wrong.parse::<TokenHash>().is_err(), "{wrong}");
        }
    }
}
