//! The encoding of typed values.
//!
//! ```text
//! codec tag (1) ‖ shape of the type (8) ‖ the codec's bytes
//! ```
//!
//! The tag identifies the codec. The shape is a fingerprint of the type's structure: without it, bincode would
//! decode `Old { width, height }` as `New { height, width }` without an error. Bytes with another tag or shape
//! are refused.
//!
//! Each value is read back when it is encoded, and compared. A field that is only written or only read
//! (`skip_serializing`), or a skipped variant, shifts the bytes after it, which may then decode as a wrong value.
//! A type that inspects its input (`untagged`) never decodes. This depends on the value and everything inside of
//! it, so each value is checked. Decoding checks nothing more.

mod binary;
mod borrowing;
mod complete;
mod round_trip;
mod shape;
mod value;

#[cfg(test)]
mod tests;

use std::io::sink;
use std::marker::PhantomData;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

pub(crate) use binary::TAG;
pub use value::{IntoValue, Value};

use borrowing::Borrowing;
use complete::CompleteValue;
use round_trip::{ReadTranscript, WriteTranscript};

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

/// Encodes a value with its tag and shape, and reads it back.
///
/// # Errors
///
/// [`CodecError::Encode`], also if the bytes do not decode as the same value, and for a type with a sequence or
/// map whose elements take no bytes, such as `Vec<()>`.
pub fn encode<T: Serialize + DeserializeOwned>(value: &T) -> Result<Bytes, CodecError> {
    let shape = shape::of::<T>();
    if shape.weightless {
        return Err(CodecError::Encode(WEIGHTLESS.to_owned()));
    }
    let mut out = Vec::with_capacity(HEADER_LEN + size_of::<T>());
    out.push(TAG);
    out.extend_from_slice(&shape.fingerprint.to_be_bytes());
    let transcript = WriteTranscript::default();
    binary::encode(&CompleteValue { value, transcript: &transcript }, &mut out)?;
    if !is_plain::<T>() {
        reads_back::<T>(&out[HEADER_LEN..], &transcript)?;
    }
    Ok(out.into())
}

/// Returns the shape that [`encode`] writes for this type.
pub(crate) fn shape_of<T: DeserializeOwned>() -> u64 {
    shape::of::<T>().fingerprint
}

/// Returns true for types of the standard library whose values always read back as themselves: they may be large,
/// and need no check.
fn is_plain<T>() -> bool {
    macro_rules! is_any {
        ($($of:ty),*) => {{
            let this = typeid::of::<T>();
            false $(|| this == typeid::of::<$of>() || this == typeid::of::<Vec<$of>>())*
        }};
    }
    is_any!(
        bool, u8, u16, u32, u64, u128, usize, i8, i16, i32, i64, i128, isize, f32, f64, char,
        String
    )
}

/// Checks that the bytes decode as the value: reading asks for the parts that were written, in their order, and
/// the decoded value has the same contents when it is encoded again.
fn reads_back<T>(payload: &[u8], written: &WriteTranscript) -> Result<(), CodecError>
where
    T: Serialize + DeserializeOwned,
{
    let reading = ReadTranscript::of(written);
    let again = binary::decode(Borrowing(PhantomData::<T>, &reading), payload);
    let again =
        again.map_err(|error| CodecError::Encode(format!("it would not decode: {error}")))?;
    let transcript = WriteTranscript::default();
    let is_same = reading.agrees()
        && binary::encode(&CompleteValue { value: &again, transcript: &transcript }, &mut sink())
            .is_ok()
        && transcript.has_contents_of(written);
    if is_same {
        return Ok(());
    }
    Err(CodecError::Encode("it would decode as another value".to_owned()))
}

/// Decodes bytes that [`encode`] wrote from a value of the same shape.
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
        return Err(CodecError::Untyped);
    }
    let shape = shape::of::<T>();
    if header[1..] != shape.fingerprint.to_be_bytes() {
        return Err(CodecError::Shape);
    }
    if shape.weightless {
        return Err(CodecError::Decode(WEIGHTLESS.to_owned()));
    }
    binary::decode(Borrowing(PhantomData::<T>, ()), payload)
}
