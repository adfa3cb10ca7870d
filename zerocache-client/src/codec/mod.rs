//! How typed values become bytes.
//!
//! ```text
//! codec tag (1) ‖ shape of the type (8) ‖ the codec's bytes
//! ```
//!
//! The tag says which codec wrote the rest. The shape is a fingerprint of the type's structure:
//! bincode would decode `Old { width, height }` as `New { height, width }` without an error.
//! Bytes whose tag or shape differ are refused.

mod binary;
mod borrowing;
mod readable;
mod shape;
mod value;
mod whole;

#[cfg(test)]
mod tests;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::Error;

pub use binary::Bincode;
pub(crate) use readable::encode_readable;
pub use value::{IntoValue, Value};

/// Bytes before the codec's own: its tag and the shape.
pub(crate) const HEADER_LEN: usize = 1 + 8;

/// Why a type such as `Vec<()>` is neither written nor read.
const WEIGHTLESS: &str = "the type has a sequence or map whose elements take no bytes";

/// A way to write values as bytes and to read them back.
pub trait Codec {
    /// The first byte of everything that this codec wrote.
    const TAG: u8;

    /// Appends the value's bytes.
    ///
    /// # Errors
    ///
    /// When the value's own `Serialize` refuses, or the codec cannot express it.
    fn encode<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) -> Result<(), CodecError>;

    /// Reads a value, which must take up all bytes.
    ///
    /// # Errors
    ///
    /// When the bytes are not exactly one value of type `T`.
    fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError>;
}

/// A value that could not be written, or bytes that are not a value of the type asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// The value could not be written.
    #[error("cannot encode the value: {0}")]
    Encode(String),
    /// The bytes do not begin with the tag of a known codec; they were stored as raw bytes.
    #[error("the stored bytes were not written as a typed value")]
    Untyped,
    /// The bytes were written from a type of another structure.
    #[error("the stored value has another shape than the type asked for")]
    Shape,
    /// The bytes are damaged, or not a value of the type.
    #[error("cannot decode the stored value: {0}")]
    Decode(String),
}

impl From<CodecError> for Error {
    fn from(error: CodecError) -> Self {
        match error {
            CodecError::Encode(_) => Error::Encode(error),
            CodecError::Untyped | CodecError::Shape | CodecError::Decode(_) => Error::Decode(error),
        }
    }
}

/// Writes a value with its tag and shape.
///
/// # Errors
///
/// [`CodecError::Encode`], also for a type with a sequence or map whose elements take no bytes, such
/// as `Vec<()>`.
pub fn encode<T: Serialize + DeserializeOwned>(value: &T) -> Result<Bytes, CodecError> {
    let shape = shape::of::<T>();
    if shape.weightless {
        return Err(CodecError::Encode(WEIGHTLESS.to_owned()));
    }
    let mut out = Vec::with_capacity(HEADER_LEN + size_of::<T>());
    out.push(Bincode::TAG);
    out.extend_from_slice(&shape.fingerprint.to_be_bytes());
    shape::writing(shape.enums, || Bincode::encode(value, &mut out))?;
    Ok(out.into())
}

/// What [`encode`] writes as the shape of values of this type.
pub(crate) fn shape_of<T: DeserializeOwned>() -> u64 {
    shape::of::<T>().fingerprint
}

/// Reads what [`encode`] wrote from a value of the same shape.
///
/// # Errors
///
/// [`CodecError::Untyped`] for raw bytes, [`CodecError::Shape`] for a value of another type,
/// [`CodecError::Decode`] for damaged ones.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    let Some((header, payload)) = bytes.split_at_checked(HEADER_LEN) else {
        return Err(CodecError::Untyped);
    };
    if header[0] != Bincode::TAG {
        return Err(CodecError::Untyped);
    }
    let shape = shape::of::<T>();
    if header[1..] != shape.fingerprint.to_be_bytes() {
        return Err(CodecError::Shape);
    }
    if shape.weightless {
        return Err(CodecError::Decode(WEIGHTLESS.to_owned()));
    }
    Bincode::decode(payload)
}
