//! How typed values become bytes.
//!
//! ```text
//! codec tag (1) ‖ shape of the type (8) ‖ the codec's bytes
//! ```
//!
//! The tag says which codec wrote the rest. The shape is a fingerprint of the type's structure:
//! bincode would decode `Old { width, height }` as `New { height, width }` without an error.
//! Bytes whose tag or shape differ are refused.
//!
//! Each value that is written is read back at once, and compared. A field that is only written or only read
//! (`skip_serializing`), or a variant that is skipped, shifts what follows, which may still be read, as a
//! wrong value; a type that asks what comes next (`untagged`) is never read. Whether it is so depends on the
//! value and on all inside of it, so that no value says anything of the next one. Reading checks nothing.

mod binary;
mod borrowing;
mod shape;
mod trace;
mod value;
mod whole;

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
use trace::{Reading, Trace};
use whole::Whole;

/// Bytes before the codec's own: its tag and the shape.
pub(crate) const HEADER_LEN: usize = 1 + 8;

/// Why a type such as `Vec<()>` is neither written nor read.
const WEIGHTLESS: &str = "the type has a sequence or map whose elements take no bytes";

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

/// Writes a value with its tag and shape, and reads it back.
///
/// # Errors
///
/// [`CodecError::Encode`], also when what was written gives no such value again, and for a type with a
/// sequence or map whose elements take no bytes, such as `Vec<()>`.
pub fn encode<T: Serialize + DeserializeOwned>(value: &T) -> Result<Bytes, CodecError> {
    let shape = shape::of::<T>();
    if shape.weightless {
        return Err(CodecError::Encode(WEIGHTLESS.to_owned()));
    }
    let mut out = Vec::with_capacity(HEADER_LEN + size_of::<T>());
    out.push(TAG);
    out.extend_from_slice(&shape.fingerprint.to_be_bytes());
    let trace = Trace::default();
    binary::encode(&Whole { value, trace: &trace }, &mut out)?;
    if !is_plain::<T>() {
        reads_back::<T>(&out[HEADER_LEN..], &trace)?;
    }
    Ok(out.into())
}

/// What [`encode`] writes as the shape of values of this type.
pub(crate) fn shape_of<T: DeserializeOwned>() -> u64 {
    shape::of::<T>().fingerprint
}

/// Whether it is a type of the standard library of which every value is read as it was written: these may
/// be large, and there is nothing to find out.
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

/// Whether what was written gives the value again: what is asked for when it is read is what was written, and
/// what comes of it has the same contents when it is written once more.
fn reads_back<T>(payload: &[u8], written: &Trace) -> Result<(), CodecError>
where
    T: Serialize + DeserializeOwned,
{
    let reading = Reading::of(written);
    let again = binary::decode(Borrowing(PhantomData::<T>, &reading), payload);
    let again = again
        .map_err(|error| CodecError::Encode(format!("it would not be read again: {error}")))?;
    let trace = Trace::default();
    let is_same = reading.agrees()
        && binary::encode(&Whole { value: &again, trace: &trace }, &mut sink()).is_ok()
        && trace.has_contents_of(written);
    if is_same {
        return Ok(());
    }
    Err(CodecError::Encode("it would be read as another value".to_owned()))
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
