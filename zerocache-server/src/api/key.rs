//! Keys in URLs: percent-encoded bytes.

use bytes::Bytes;
use zerocache_core::{key::Key, limits::Limits};

use super::error::ApiError;
use crate::hex;

/// Returns the key in the rest of a path.
///
/// `%XX` is a byte, and every other character is itself, `/` and `+` included. A `%` that is not
/// followed by two hexadecimal digits is an error.
pub(super) fn from_path(raw: &str, bytes_max: usize) -> Result<Key, ApiError> {
    let bytes = percent_decode(raw).ok_or_else(|| {
        ApiError::bad_key("the key has a '%' that is not followed by two hexadecimal digits")
    })?;
    let limits = Limits { key_bytes_max: bytes_max, ..Limits::default() };
    Ok(Key::new(Bytes::from(bytes), &limits)?)
}

/// Decodes percent-encoded text.
pub(super) fn percent_decode(raw: &str) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(raw.len());
    let mut rest = raw.bytes();
    while let Some(byte) = rest.next() {
        decoded.push(match byte {
            b'%' => hex::byte([rest.next()?, rest.next()?])?,
            plain => plain,
        });
    }
    Some(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_decoded() {
        let all: Vec<u8> = (0..=255).collect();
        let encoded: String = all.iter().map(|byte| format!("%{byte:02X}")).collect();
        assert_eq!(percent_decode(&encoded), Some(all.clone()));
        assert_eq!(percent_decode(&encoded.to_lowercase()), Some(all));
        assert_eq!(percent_decode("a+b/c").as_deref(), Some(&b"a+b/c"[..]));
        for bad in ["%", "%4", "%zz", "%+1", "a%2"] {
            assert_eq!(percent_decode(bad), None, "{bad}");
        }
    }
}
