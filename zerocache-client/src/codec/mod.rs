//! The encoding of typed values.
//!
//! ```text
//! codec tag (1) ‖ shape of the type (8) ‖ the codec's bytes
//! ```
//!
//! The tag identifies the codec: bincode, or MessagePack (feature `messagepack`). Every reader reads both,
//! whatever it writes. The shape is a fingerprint of the type's structure: without it, bincode would decode
//! `Old { width, height }` as `New { height, width }` without an error. Bytes with another tag or shape are
//! refused.
//!
//! Each value is read back when it is encoded, and compared. In bincode a field that is only written or only read
//! (`skip_serializing`), or a skipped variant, shifts the bytes after it, which may then decode as a wrong value;
//! a type that inspects its input (`untagged`) never decodes. MessagePack has names, and reads these back; what
//! it is asked for and was never written, or decodes with other contents, it refuses too. This depends on the value
//! and everything inside of it, so each value is checked. Decoding checks nothing more.
//!
//! This sees what passes between serde and the type, and serde reads some types from a copy of its own. So a value
//! is also compared with what was read back, if its type implements `PartialEq` where that can be known: in a
//! memoized function that is not generic, and on request. A value that is read from a copy and cannot be compared is
//! not written, unless its codec was named.

mod any;
mod binary;
mod borrowing;
mod choice;
mod complete;
mod copies;
#[cfg(feature = "messagepack")]
mod messagepack;
mod parts;
#[cfg(feature = "messagepack")]
mod preference;
mod round_trip;
mod shape;
mod value;
mod writing;

#[cfg(all(test, feature = "messagepack"))]
mod copied_tests;
#[cfg(all(test, feature = "messagepack"))]
mod named_tests;
#[cfg(test)]
mod tests;

use std::marker::PhantomData;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use choice::Codec;
pub use value::{Compared, IntoValue, Value};

use binary::Bincode;
use borrowing::Borrowing;
#[cfg(feature = "messagepack")]
use messagepack::MessagePack;
use writing::Format;

/// The tag of bincode. It stands in the keys of shape entries too, whatever the codec of their values is.
pub(crate) const TAG: u8 = 0x81;

/// The length of the header: the tag and the shape.
pub(crate) const HEADER_LEN: usize = 1 + 8;

/// The error for a type such as `Vec<()>`, which is neither encoded nor decoded.
const WEIGHTLESS: &str = "the type has a sequence or map whose elements take no bytes";

/// A value that cannot be encoded, or bytes that do not decode as the requested type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// The value cannot be encoded.
    #[error("cannot encode the value: {0}")]
    Encode(String),
    /// serde reads the value from a copy of its input, where it does not show if something is lost, and the value
    /// cannot be compared.
    #[error(
        "cannot encode the value: serde would read it from a copy of its own (`flatten`, `untagged`, `tag`), in \
         which a lost field or another variant goes unnoticed; let its type implement `PartialEq`, so that it is \
         compared (a generic function needs the bound, `put` takes `Compared`, `get_or_compute` has \
         `compared()`), or set the codec to `messagepack` to store it unchecked"
    )]
    Unproven,
    /// The bytes do not begin with the tag of a known codec, so they were stored as raw bytes.
    #[error("the stored bytes were not written as a typed value")]
    Untyped,
    /// The bytes are of a type with another structure.
    #[error("the stored value has another shape than the type asked for")]
    Shape,
    /// The bytes are damaged, or no value of the type.
    #[error("cannot decode the stored value: {0}")]
    Decode(String),
}

/// Encodes a value with its tag and shape, and reads it back; with the codec [`Codec::Auto`].
///
/// # Errors
///
/// As [`encode_as`].
pub fn encode<T: Serialize + DeserializeOwned>(value: &T) -> Result<Bytes, CodecError> {
    encode_as(value, Codec::Auto)
}

/// Encodes a value with its tag and shape in a given codec, and reads it back.
///
/// # Errors
///
/// [`CodecError::Encode`], also if the bytes do not decode as the same value; in bincode also for a type with a
/// sequence or map whose elements take no bytes, such as `Vec<()>`. [`CodecError::Unproven`] with [`Codec::Auto`]
/// for a value that serde reads from a copy of its input: see [`encode_compared`].
pub fn encode_as<T: Serialize + DeserializeOwned>(
    value: &T,
    codec: Codec,
) -> Result<Bytes, CodecError> {
    encode_for(value, Destination { codec, is_stored: true }, None)
}

/// Encodes a value as [`encode_as`] does, and compares it with what is read back.
///
/// # Errors
///
/// As [`encode_as`]. [`CodecError::Unproven`] only for a value that is not equal to itself, such as a NaN.
pub fn encode_compared<T: Serialize + DeserializeOwned + PartialEq>(
    value: &T,
    codec: Codec,
) -> Result<Bytes, CodecError> {
    encode_for(value, Destination { codec, is_stored: true }, Some(T::eq))
}

/// What becomes of an encoded value.
#[derive(Clone, Copy)]
pub(crate) struct Destination {
    /// The codec of the function, or of the client.
    pub(crate) codec: Codec,
    /// False for a client that can store nothing. Then nothing is said of the codec.
    pub(crate) is_stored: bool,
}

/// Encodes a value for its destination, reads it back, and compares it with `equality`, if its type has one.
pub(crate) fn encode_for<T: Serialize + DeserializeOwned>(
    value: &T,
    destination: Destination,
    equality: Option<fn(&T, &T) -> bool>,
) -> Result<Bytes, CodecError> {
    choice::encode(value, destination, equality)
}

/// Returns the shape that [`encode`] writes for this type.
pub(crate) fn shape_of<T: DeserializeOwned>() -> u64 {
    shape::of::<T>().fingerprint
}

/// Decodes bytes that [`encode`] or [`encode_as`] wrote, in any codec, from a value of the same shape.
///
/// # Errors
///
/// [`CodecError::Untyped`] for raw bytes, [`CodecError::Shape`] for a value of another type,
/// [`CodecError::Decode`] for damaged ones.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    let Some((header, payload)) = bytes.split_at_checked(HEADER_LEN) else {
        return Err(CodecError::Untyped);
    };
    if header[0] != TAG {
        return decode_named(header, payload);
    }
    let shape = shape::of::<T>();
    if header[1..] != shape.fingerprint.to_be_bytes() {
        return Err(CodecError::Shape);
    }
    if shape.weightless {
        return Err(CodecError::Decode(WEIGHTLESS.to_owned()));
    }
    Bincode::decode(Borrowing(PhantomData::<T>, ()), payload)
}

/// Decodes a value in another codec than bincode.
#[cfg(feature = "messagepack")]
fn decode_named<T: DeserializeOwned>(header: &[u8], payload: &[u8]) -> Result<T, CodecError> {
    if header[0] != MessagePack::TAG {
        return Err(CodecError::Untyped);
    }
    if header[1..] != shape::of::<T>().fingerprint.to_be_bytes() {
        return Err(CodecError::Shape);
    }
    MessagePack::decode(PhantomData::<T>, payload)
}

/// Decodes a value in another codec than bincode: this build has none.
#[cfg(not(feature = "messagepack"))]
fn decode_named<T>(_header: &[u8], _payload: &[u8]) -> Result<T, CodecError> {
    Err(CodecError::Untyped)
}
