//! The key of a memoized call.
//!
//! ```text
//! scheme (1) ‖ length of namespace ‖ namespace ‖ function id (16) ‖ arguments
//! ```
//!
//! Lengths are LEB128. Arguments of up to [`ARGUMENTS_INLINE_MAX`] encoded bytes stand in the key
//! as they are; longer ones as [`HASHED`] and their BLAKE3-256. Arguments may come from an
//! attacker, so no fast unkeyed hash may stand in for them. No encoding of an argument begins with
//! [`HASHED`].
//!
//! Every change of these bytes is a new [`SCHEME`]; the golden tests pin them.

mod compound;
mod encode;
mod identity;
mod order;
mod path;

#[cfg(test)]
mod tests;

use bytes::Bytes;

use super::buffer::Buffer;
use super::rule::SHAPE_LEN;

pub(crate) use encode::{add_variant, encode};
pub(crate) use identity::{FunctionId, Identity};

/// First byte of every memoized key; a raw key that begins with it is still another key, because
/// what follows would have to agree too.
pub(crate) const SCHEME: u8 = 0x02;

/// Encoded arguments up to this many bytes stand in the key. With the rest they stay far below the
/// 1 KiB that nodes accept, and short keys stay readable.
pub(crate) const ARGUMENTS_INLINE_MAX: usize = 200;

/// Says that a BLAKE3-256 follows.
const HASHED: u8 = 0xff;

/// First byte of the key of a value that is stored beside one of another shape; no [`SCHEME`] is ever
/// this.
const BESIDE: u8 = 0xfe;

/// Bytes before the arguments in the key of a client without namespace.
const HEAD: usize = 2 + 16;

/// The key of a call, but for the client's namespace.
///
/// It is held as the key of a client without one, so that most clients look it up as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CallKey(Buffer);

impl CallKey {
    /// Of `function`, without arguments.
    #[inline]
    pub(crate) fn new(function: &FunctionId) -> Self {
        let mut buffer = Buffer::new();
        // Long before it is read, and in one piece: what was written in parts a moment ago is slow to
        // read as a whole.
        buffer.vec().extend_from_slice(function.head());
        CallKey(buffer)
    }

    /// Where arguments are added, one after the other.
    #[inline]
    pub(crate) fn arguments(&mut self) -> &mut Vec<u8> {
        self.0.vec()
    }

    /// All arguments have been added. Once more changes nothing.
    #[inline]
    pub(crate) fn complete(&mut self) {
        if self.0.len() > HEAD + ARGUMENTS_INLINE_MAX {
            hash_arguments(self.0.vec());
        }
    }

    /// The key, to be kept.
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

/// The key of what values of one shape have beside the value of `base`, which has another one.
///
/// ```text
/// 0xfe ‖ shape (17) ‖ BLAKE3-256 of the base's key
/// ```
///
/// It is as long for every base, so that it is within the limits of nodes.
pub(crate) fn beside(base: &[u8], shape: [u8; SHAPE_LEN]) -> Bytes {
    let hash = blake3::hash(base);
    [&[BESIDE], &shape[..], hash.as_bytes()].concat().into()
}

#[cold]
fn hash_arguments(key: &mut Vec<u8>) {
    let hash = blake3::hash(&key[HEAD..]);
    key.truncate(HEAD);
    key.push(HASHED);
    key.extend_from_slice(hash.as_bytes());
}

/// Writes a length in LEB128, the shortest form only.
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
