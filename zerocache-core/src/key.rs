//! What names an entry.

use core::fmt;

use bytes::Bytes;

use crate::limits::Limits;

/// The number of parts into which the key space is split, for locks and for digests alike.
pub const SHARDS: usize = 64;

/// A valid key: a non-empty byte string that is neither `.` nor `..`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Bytes);

/// Why a byte string is no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidKey {
    /// It has no bytes.
    #[error("the key is empty; at least one byte is needed")]
    Empty,
    /// It is `.` or `..`, which URL libraries remove even when percent-encoded.
    #[error("the keys \".\" and \"..\" are not allowed: URL libraries remove them")]
    Dots,
    /// It is longer than the limit.
    #[error("the key has {bytes} bytes; at most {bytes_max} are allowed")]
    TooLong {
        /// The key's length.
        bytes: usize,
        /// The limit in force.
        bytes_max: usize,
    },
}

impl Key {
    /// Checks `bytes` against the rules and `limits`.
    ///
    /// # Errors
    /// [`InvalidKey`] says which rule is broken.
    pub fn new(bytes: Bytes, limits: &Limits) -> Result<Self, InvalidKey> {
        Self::within(bytes, limits.key_bytes_max)
    }

    /// Checks `bytes` against the rules and a limit of `bytes_max`.
    ///
    /// # Errors
    /// [`InvalidKey`] says which rule is broken.
    pub fn within(bytes: Bytes, bytes_max: usize) -> Result<Self, InvalidKey> {
        Self::check(&bytes, bytes_max)?;
        Ok(Self(bytes))
    }

    /// Checks `bytes` against the rules and a limit of `bytes_max`, without taking them.
    ///
    /// # Errors
    /// [`InvalidKey`] says which rule is broken.
    pub fn check(bytes: &[u8], bytes_max: usize) -> Result<(), InvalidKey> {
        match bytes {
            b"" => Err(InvalidKey::Empty),
            b"." | b".." => Err(InvalidKey::Dots),
            long if long.len() > bytes_max => {
                Err(InvalidKey::TooLong { bytes: long.len(), bytes_max })
            }
            _ => Ok(()),
        }
    }

    /// The bytes of the key.
    #[must_use]
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }

    /// The same key in an allocation of its own.
    #[must_use]
    pub fn detached(&self) -> Self {
        Self(Bytes::copy_from_slice(&self.0))
    }

    /// The key's place in the key space.
    #[must_use]
    pub fn hash(&self) -> KeyHash {
        KeyHash::of(&self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key(\"{}\")", self.0.escape_ascii())
    }
}

/// The xxh3-128 of a key: its identity in traces and digests and its place in the store.
///
/// It is the same on every node. It is not keyed, so whoever may write can make two keys collide;
/// the store compares the whole key on every read, and the newer of two colliding entries stays.
// Aligned as a u64: sixteen bytes less in every entry than with the alignment of a u128.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(Rust, packed(8))]
pub struct KeyHash(pub u128);

impl KeyHash {
    /// The hash of a key's bytes.
    #[inline]
    #[must_use]
    pub fn of(key: &[u8]) -> Self {
        Self(xxhash_rust::xxh3::xxh3_128(key))
    }

    /// Its upper half: what a key is called where a mistake costs no more than reading again.
    #[must_use]
    pub const fn short(self) -> u64 {
        (self.0 >> 64) as u64
    }

    /// Which of the [`SHARDS`] parts of the key space holds it.
    #[must_use]
    pub const fn shard(self) -> usize {
        (self.0 >> 122) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules() {
        let limits = Limits { key_bytes_max: 4, ..Limits::default() };
        let key = |text: &'static [u8]| Key::new(Bytes::from_static(text), &limits);
        assert_eq!(key(b""), Err(InvalidKey::Empty));
        assert_eq!(key(b"."), Err(InvalidKey::Dots));
        assert_eq!(key(b".."), Err(InvalidKey::Dots));
        assert!(key(b"...").is_ok());
        assert!(key(b"\0\n/?").is_ok());
        assert_eq!(key(b"12345"), Err(InvalidKey::TooLong { bytes: 5, bytes_max: 4 }));
    }

    #[test]
    fn hash_is_the_same_on_every_node() {
        let foo = KeyHash::of(b"foo").0;
        assert_eq!(foo, 0x79ae_f92e_8345_4121_ab6e_5f64_077e_7d8a);
        assert!((0..10_000u32).all(|n| KeyHash::of(&n.to_le_bytes()).shard() < SHARDS));
    }
}
