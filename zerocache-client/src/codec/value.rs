//! Values for `put`: raw bytes as they are, typed values through [`Value`].

use std::borrow::Cow;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Codec, CodecError, encode_as, encode_compared};

/// A value for `put`: text and bytes are stored as they are, `Value(&x)` through the codec.
///
/// Implemented for `&str`, `String`, `&[u8]`, `b"…"`, `Vec<u8>`, `Box<[u8]>`, `Bytes`, `Cow` of
/// text and bytes, [`Value`] and [`Compared`]; sealed.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is neither bytes nor text",
    note = "to store a typed value, write `Value(&value)`"
)]
pub trait IntoValue: sealed::Sealed {
    /// Returns the bytes to store; of a [`Value`] in the codec [`Codec::Auto`].
    ///
    /// # Errors
    ///
    /// As [`into_value_as`](Self::into_value_as).
    fn into_value(self) -> Result<Bytes, CodecError>
    where
        Self: Sized,
    {
        self.into_value_as(Codec::Auto)
    }

    /// Returns the bytes to store; of a [`Value`] in the given codec.
    ///
    /// # Errors
    ///
    /// Only for [`Value`] and [`Compared`], if the value cannot be encoded.
    fn into_value_as(self, codec: Codec) -> Result<Bytes, CodecError>;
}

/// A typed value, to be stored through the codec: `put("user", Value(&user), 42)`.
///
/// The type must be `DeserializeOwned` too, because its shape is stored with it. Each value is read back before it
/// is stored; a value that would decode as another one, or not at all, is an error. So is, with [`Codec::Auto`], one
/// that serde reads from a copy of its input (`flatten`, `untagged`, `tag`): see [`Compared`].
#[derive(Clone, Copy, Debug)]
pub struct Value<'a, T>(pub &'a T);

/// A typed value as [`Value`], which is compared with what is read back before it is stored. So values that serde
/// reads from a copy of its input can be stored with [`Codec::Auto`]: those with `flatten`, `untagged` or `tag`.
#[derive(Clone, Copy, Debug)]
pub struct Compared<'a, T>(pub &'a T);

mod sealed {
    pub trait Sealed {}
}

macro_rules! raw {
    ($($ty:ty: $value:ident => $bytes:expr;)*) => {$(
        impl sealed::Sealed for $ty {}
        impl IntoValue for $ty {
            fn into_value_as(self, _codec: Codec) -> Result<Bytes, CodecError> {
                let $value = self;
                Ok($bytes)
            }
        }
    )*};
}

raw! {
    &str: value => Bytes::copy_from_slice(value.as_bytes());
    String: value => Bytes::from(value);
    &String: value => Bytes::copy_from_slice(value.as_bytes());
    &[u8]: value => Bytes::copy_from_slice(value);
    Vec<u8>: value => Bytes::from(value);
    &Vec<u8>: value => Bytes::copy_from_slice(value);
    Box<[u8]>: value => Bytes::from(value);
    Bytes: value => value;
    &Bytes: value => value.clone();
    Cow<'_, str>: value => Bytes::from(value.into_owned());
    Cow<'_, [u8]>: value => Bytes::from(value.into_owned());
}

impl<const N: usize> sealed::Sealed for [u8; N] {}
impl<const N: usize> IntoValue for [u8; N] {
    fn into_value_as(self, _codec: Codec) -> Result<Bytes, CodecError> {
        Ok(Bytes::copy_from_slice(&self))
    }
}

impl<const N: usize> sealed::Sealed for &[u8; N] {}
impl<const N: usize> IntoValue for &[u8; N] {
    fn into_value_as(self, _codec: Codec) -> Result<Bytes, CodecError> {
        Ok(Bytes::copy_from_slice(self))
    }
}

impl<T> sealed::Sealed for Value<'_, T> {}
impl<T: Serialize + DeserializeOwned> IntoValue for Value<'_, T> {
    fn into_value_as(self, codec: Codec) -> Result<Bytes, CodecError> {
        encode_as(self.0, codec)
    }
}

impl<T> sealed::Sealed for Compared<'_, T> {}
impl<T: Serialize + DeserializeOwned + PartialEq> IntoValue for Compared<'_, T> {
    fn into_value_as(self, codec: Codec) -> Result<Bytes, CodecError> {
        encode_compared(self.0, codec)
    }
}
