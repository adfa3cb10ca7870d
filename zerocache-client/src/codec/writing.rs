//! Writing of values, each of which is read back.

use std::io::{Write, sink};
use std::marker::PhantomData;

use bytes::Bytes;
use serde::Serialize;
use serde::de::{DeserializeOwned, DeserializeSeed};

use super::borrowing::Borrowing;
use super::complete::CompleteValue;
use super::round_trip::{ReadTranscript, WriteTranscript};
use super::{CodecError, HEADER_LEN, WEIGHTLESS, shape};

/// A serde format, and its tag.
pub(super) trait Format {
    /// The first byte of its values. It is above ASCII and no lead byte of UTF-8, so that text is never taken for
    /// a typed value.
    const TAG: u8;
    /// Fields have names, so that some may be left out, and elements take at least a byte.
    const IS_NAMED: bool;

    /// Appends the bytes of `value` to `out`.
    fn encode<T: Serialize + ?Sized>(value: &T, out: &mut impl Write) -> Result<(), CodecError>;

    /// Reads the value that `seed` describes, which must take up all of `bytes`.
    fn decode<'de, S: DeserializeSeed<'de>>(
        seed: S,
        bytes: &'de [u8],
    ) -> Result<S::Value, CodecError>;
}

/// What is to be known of a value that was read back.
pub(super) struct Proof<T> {
    /// The comparison of two values, if the type has one.
    pub(super) equality: Option<fn(&T, &T) -> bool>,
    /// A value that cannot be compared may be read from a copy, where it cannot be observed.
    pub(super) trusts_copies: bool,
}

impl<T> Clone for Proof<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Proof<T> {}

impl<T> Proof<T> {
    /// Compares what was read back; `None` if that says nothing. A value that is not equal to itself contains a NaN.
    fn is_equal(&self, value: &T, again: &T) -> Option<bool> {
        let equal = self.equality?;
        match equal(value, again) {
            true => Some(true),
            false => equal(value, value).then_some(false),
        }
    }
}

/// Writes a value with its tag and shape, and reads it back.
pub(super) fn write<F: Format, T>(value: &T, proof: Proof<T>) -> Result<Bytes, CodecError>
where
    T: Serialize + DeserializeOwned,
{
    let shape = shape::of::<T>();
    if shape.weightless && !F::IS_NAMED {
        return Err(CodecError::Encode(WEIGHTLESS.to_owned()));
    }
    let mut out = Vec::with_capacity(HEADER_LEN + size_of::<T>());
    out.push(F::TAG);
    out.extend_from_slice(&shape.fingerprint.to_be_bytes());
    let transcript = WriteTranscript::new(F::IS_NAMED);
    F::encode(&CompleteValue { value, transcript: &transcript }, &mut out)?;
    if !is_plain::<T>() {
        reads_back::<F, T>(value, &out[HEADER_LEN..], &transcript, proof)?;
    }
    Ok(out.into())
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

/// Checks that the bytes decode as the value: what reading asks for agrees with what was written (without names: in
/// the same order), and the decoded value has the same contents when it is encoded again. Neither sees what the
/// type does not write, nor what it reads from a copy of its input. So the values are compared, if they can be.
fn reads_back<F: Format, T>(
    value: &T,
    payload: &[u8],
    written: &WriteTranscript,
    proof: Proof<T>,
) -> Result<(), CodecError>
where
    T: Serialize + DeserializeOwned,
{
    let reading = ReadTranscript::of(written);
    let again = F::decode(Borrowing(PhantomData::<T>, &reading), payload);
    let again =
        again.map_err(|error| CodecError::Encode(format!("it would not decode: {error}")))?;
    let is_equal = proof.is_equal(value, &again);
    if is_equal.is_none() && reading.has_copies() && !proof.trusts_copies {
        return Err(CodecError::Unproven);
    }
    if is_equal == Some(false) {
        let error = "it would decode as another value, which is not equal to it";
        return Err(CodecError::Encode(error.to_owned()));
    }
    let transcript = WriteTranscript::new(F::IS_NAMED);
    let is_same = reading.agrees()
        && F::encode(&CompleteValue { value: &again, transcript: &transcript }, &mut sink())
            .is_ok()
        && transcript.has_contents_of(written);
    if is_same {
        return Ok(());
    }
    Err(CodecError::Encode("it would decode as another value".to_owned()))
}
