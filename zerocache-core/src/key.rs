//! Keys, and their hashes.

use core::fmt;

use bytes::Bytes;

use crate::{limits::Limits, purge::is_reserved};

/// The number of shards of the key space, for locks and for digests.
pub const SHARDS: usize = 64;

/// A valid key: a non-empty byte string that is neither `.` nor `..`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Bytes);

/// The reason why a byte string is not a valid key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidKey {
    /// The key is empty.
    #[error("the key is empty; at least one byte is needed")]
    Empty,
    /// The key is `.` or `..`, which URL libraries remove even if percent-encoded.
    #[error("the keys \".\" and \"..\" are not allowed: URL libraries remove them")]
    Dots,
    /// The key begins with the bytes of keys that only nodes write.
    #[error("keys that begin with \"\\0zerocache\\0\" are reserved for nodes")]
    Reserved,
    /// The key is longer than the limit.
    #[error("the key has {bytes} bytes; at most {bytes_max} are allowed")]
    TooLong {
        /// The length of the key.
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
        if is_reserved(&bytes) {
            return Err(InvalidKey::Reserved);
        }
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

    /// Wraps a key that only nodes write, as [`is_reserved`](crate::purge::is_reserved).
    pub(crate) const fn reserved(bytes: Bytes) -> Self {
        Self(bytes)
    }

    /// Returns the bytes of the key.
    #[must_use]
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }

    /// Copies the key into an allocation of its own.
    #[must_use]
    pub fn detached(&self) -> Self {
        Self(Bytes::copy_from_slice(&self.0))
    }

    /// Returns the hash of the key.
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

/// The xxh3-128 of a key: its identity in tombstones and digests, and its position in the store.
///
/// The hash is the same on every node. It is not keyed, so a writer can make two keys collide. The store
/// compares the whole key on every read, and keeps the newer of two colliding entries.
// Aligned like a u64, which saves sixteen bytes per entry compared with the alignment of a u128.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(Rust, packed(8))]
pub struct KeyHash(pub u128);

impl KeyHash {
    /// Hashes a key.
    #[inline]
    #[must_use]
    pub fn of(key: &[u8]) -> Self {
        Self(xxhash_rust::xxh3::xxh3_128(key))
    }

    /// Returns the upper half: a short name of the key, for uses in which a collision only costs a read.
    #[must_use]
    pub const fn short(self) -> u64 {
        (self.0 >> 64) as u64
    }

    /// Returns the shard of the key, below [`SHARDS`].
    #[must_use]
    pub const fn shard(self) -> usize {
        (self.0 >> 122) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_keys_are_rejected() {
        let limits = Limits { key_bytes_max: 4, ..Limits::default() };
        let key = |text: &'static [u8]| Key::new(Bytes::from_static(text), &limits);
        assert_eq!(key(b""), Err(InvalidKey::Empty));
        assert_eq!(key(b"."), Err(InvalidKey::Dots));
        assert_eq!(key(b".."), Err(InvalidKey::Dots));
        assert!(key(b"...").is_ok());
        assert!(key(b"\0\n/?").is_ok());
        assert_eq!(key(b"\0zerocache\0purge"), Err(InvalidKey::Reserved));
        assert_eq!(key(b"12345"), Err(InvalidKey::TooLong { bytes: 5, bytes_max: 4 }));
    }

    #[test]
    fn hash_is_the_same_on_every_node() {
        let foo = KeyHash::of(b"foo").0;
        assert_eq!(foo, 0x79ae_f92e_8345_4121_ab6e_5f64_077e_7d8a);
        assert!((0..10_000u32).all(|n| KeyHash::of(&n.to_le_bytes()).shard() < SHARDS));
    }
}
