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
mod unordered;

#[cfg(test)]
mod tests;

use bytes::Bytes;

use super::buffer::Buffer;

pub(crate) use encode::{KeyError, encode};
pub(crate) use identity::{FunctionId, Identity};

/// First byte of every memoized key; a raw key that begins with it is still another key, because
/// what follows would have to agree too.
pub(crate) const SCHEME: u8 = 0x01;

/// Encoded arguments up to this many bytes stand in the key. With the rest they stay far below the
/// 1 KiB that nodes accept, and short keys stay readable.
pub(crate) const ARGUMENTS_INLINE_MAX: usize = 200;

/// Says that a BLAKE3-256 follows.
const HASHED: u8 = 0xff;

/// Encoded arguments, or their hash: what of a key does not depend on the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Arguments {
    Inline(Buffer),
    Hashed([u8; 32]),
}

impl Arguments {
    pub(crate) fn new(encoded: Buffer) -> Self {
        if encoded.len() <= ARGUMENTS_INLINE_MAX {
            Arguments::Inline(encoded)
        } else {
            Arguments::Hashed(*blake3::hash(&encoded).as_bytes())
        }
    }
}

/// Puts a key together, to be kept.
pub(crate) fn compose(namespace: &str, function: FunctionId, arguments: &Arguments) -> Bytes {
    Bytes::copy_from_slice(&composed(namespace, function, arguments))
}

/// Puts a key together, to be looked up.
#[inline]
pub(crate) fn composed(namespace: &str, function: FunctionId, arguments: &Arguments) -> Buffer {
    let mut buffer = Buffer::new();
    let key = buffer.vec();
    key.push(SCHEME);
    put_length(namespace.len() as u64, |byte| key.push(byte));
    key.extend_from_slice(namespace.as_bytes());
    key.extend_from_slice(&function.0);
    match arguments {
        Arguments::Inline(encoded) => key.extend_from_slice(encoded),
        Arguments::Hashed(hash) => {
            key.push(HASHED);
            key.extend_from_slice(hash);
        }
    }
    buffer
}

/// Writes a length in LEB128, the shortest form only.
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
