//! The key of a memoized call.
//!
//! ```text
//! scheme (1) ‖ length of namespace ‖ namespace ‖ function id (16) ‖ arguments
//! ```
//!
//! Lengths are LEB128. Arguments of up to [`ARGUMENTS_INLINE_MAX`] encoded bytes are part of the key as they
//! are; longer ones are replaced by [`HASHED`] and their BLAKE3-256. Arguments may come from an attacker, so a
//! fast unkeyed hash is not enough. No encoding of an argument begins with [`HASHED`].
//!
//! A change of these bytes needs a new [`SCHEME`]; golden tests pin them.

mod compound;
mod encode;
mod identity;
mod order;
mod path;

#[cfg(test)]
mod tests;

use bytes::Bytes;
use zerocache_core::purge::FUNCTION_ID_BYTES;

use super::buffer::Buffer;
use super::rule::SHAPE_LEN;

pub(crate) use encode::{add_variant, encode};
pub(crate) use identity::{FunctionId, Identity};

/// The first byte of every memoized key. A raw key that begins with it is still a different key, because the
/// rest would have to agree too.
pub(crate) const SCHEME: u8 = 0x02;

/// The maximum of encoded arguments that are part of the key as they are, in bytes. The key stays far below
/// the 1 KiB that nodes accept, and short keys stay readable.
pub(crate) const ARGUMENTS_INLINE_MAX: usize = 200;

/// The mark of a BLAKE3-256 that replaces the arguments.
const HASHED: u8 = 0xff;

/// The first byte of the key of a shape entry; it is never a [`SCHEME`].
const SHAPE_ENTRY: u8 = 0xfe;

/// The offset of the arguments in the key of a client without a namespace.
const HEAD: usize = 2 + FUNCTION_ID_BYTES;

/// The key of a call without the client's namespace: the whole key of a client that has none, so that most
/// clients look it up as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CallKey(Buffer);

impl CallKey {
    /// Creates the key of `function`, without arguments.
    #[inline]
    pub(crate) fn new(function: &FunctionId) -> Self {
        let mut buffer = Buffer::new();
        // In one piece, long before it is read: bytes that were written in parts a moment ago are slow to
        // read as a whole.
        buffer.vec().extend_from_slice(function.head());
        CallKey(buffer)
    }

    /// Returns the buffer to which arguments are appended.
    #[inline]
    pub(crate) fn arguments(&mut self) -> &mut Vec<u8> {
        self.0.vec()
    }

    /// Completes the key after the last argument. Idempotent.
    #[inline]
    pub(crate) fn complete(&mut self) {
        if self.0.len() > HEAD + ARGUMENTS_INLINE_MAX {
            hash_arguments(self.0.vec());
        }
    }

    /// Returns the id of the function.
    pub(crate) fn function(&self) -> [u8; FUNCTION_ID_BYTES] {
        let mut id = [0; FUNCTION_ID_BYTES];
        // A key has a head, whatever its arguments are.
        id.copy_from_slice(&self.0[2..HEAD]);
        id
    }

    /// Returns the key as owned bytes.
    pub(crate) fn to_bytes(&self, namespace: &str) -> Bytes {
        self.with(namespace, Bytes::copy_from_slice)
    }

    /// Runs `use_it` with the key.
    #[inline]
    pub(crate) fn with<R>(&self, namespace: &str, use_it: impl FnOnce(&[u8]) -> R) -> R {
        if namespace.is_empty() {
            return use_it(&self.0);
        }
        let mut buffer = Buffer::new();
        let key = buffer.vec();
        key.push(SCHEME);
        put_length(namespace.len() as u64, |byte| key.push(byte));
        key.extend_from_slice(namespace.as_bytes());
        key.extend_from_slice(&self.0[2..]);
        use_it(&buffer)
    }
}

/// Returns the key of the shape entry that belongs to the entry of `base`, the key of a memoized call, which
/// has another shape.
///
/// ```text
/// 0xfe ‖ length of namespace ‖ namespace ‖ shape (17) ‖ BLAKE3-256 of the base's key
/// ```
///
/// Whoever may use the keys of a namespace may use these too. The length of a key does not depend on the
/// arguments of the call, so that it is within the limits of nodes.
pub(crate) fn shape_entry(base: &[u8], shape: [u8; SHAPE_LEN]) -> Bytes {
    let hash = blake3::hash(base);
    [&[SHAPE_ENTRY], namespace(base), &shape[..], hash.as_bytes()].concat().into()
}

/// Returns the length and the bytes of the namespace in the key of a memoized call.
fn namespace(key: &[u8]) -> &[u8] {
    let length = key.get(1).copied().unwrap_or_default();
    key.get(1..2 + usize::from(length)).unwrap_or(&[0])
}

#[cold]
fn hash_arguments(key: &mut Vec<u8>) {
    let hash = blake3::hash(&key[HEAD..]);
    key.truncate(HEAD);
    key.push(HASHED);
    key.extend_from_slice(hash.as_bytes());
}

/// Writes a length in LEB128, in its shortest form.
#[inline]
fn put_length(mut length: u64, mut put: impl FnMut(u8)) {
    loop {
        // The mask keeps seven bits.
        let low = (length & 0x7f) as u8;
        length >>= 7;
        if length == 0 {
            put(low);
            return;
        }
        put(low | 0x80);
    }
}
