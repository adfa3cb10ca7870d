//! A deserializer that reads owned text and bytes from borrowed input.
//!
//! For a `String`, bincode fills zeroed memory of its own and passes it on, which costs more than everything else
//! of a small value. For borrowed text it passes a slice of the input, which the visitor of `String` copies once.
//! So requests for owned text or bytes become requests for borrowed ones here, at any depth. Types must accept
//! both, as serde requires.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, EnumAccess, MapAccess, SeqAccess, Visitor};

use super::any::Any;
use super::parts::{Elements, Fields, Owner, Parts};
use super::round_trip::{ReadObserver, kind};

/// A seed that is read in this way, and the observer of its requests.
pub(super) struct Borrowing<S, W>(pub(super) S, pub(super) W);

impl<'de, S: DeserializeSeed<'de>, W: ReadObserver> DeserializeSeed<'de> for Borrowing<S, W> {
    type Value = S::Value;

    #[inline]
    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<S::Value, D::Error> {
        self.0.deserialize(Input(input, self.1))
    }
}

/// The deserializer, with its observer.
pub(super) struct Input<D, W>(pub(super) D, pub(super) W);

/// The visitor of a compound value: bincode calls no other methods than those here.
pub(super) struct Taker<V, O>(pub(super) V, pub(super) O);

macro_rules! leaves {
    ($($method:ident => $inner:ident, $kind:ident;)*) => {$(
        #[inline]
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
            self.1.note(kind::$kind);
            self.0.$inner(visitor)
        }
    )*};
}

impl<'de, D: Deserializer<'de>, W: ReadObserver> Deserializer<'de> for Input<D, W> {
    type Error = D::Error;

    leaves! {
        deserialize_bool => deserialize_bool, BOOL;
        deserialize_i8 => deserialize_i8, I8;
        deserialize_i16 => deserialize_i16, I16;
        deserialize_i32 => deserialize_i32, I32;
        deserialize_i64 => deserialize_i64, I64;
        deserialize_i128 => deserialize_i128, I128;
        deserialize_u8 => deserialize_u8, U8;
        deserialize_u16 => deserialize_u16, U16;
        deserialize_u32 => deserialize_u32, U32;
        deserialize_u64 => deserialize_u64, U64;
        deserialize_u128 => deserialize_u128, U128;
        deserialize_f32 => deserialize_f32, F32;
        deserialize_f64 => deserialize_f64, F64;
        deserialize_char => deserialize_char, CHAR;
        deserialize_str => deserialize_str, TEXT;
        deserialize_string => deserialize_str, TEXT;
        deserialize_bytes => deserialize_bytes, BYTES;
        deserialize_byte_buf => deserialize_bytes, BYTES;
        deserialize_unit => deserialize_unit, UNIT;
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_ignored_any(visitor)
    }

    #[inline]
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        if !W::OBSERVES {
            return self.0.deserialize_any(visitor);
        }
        self.1.any(&visitor);
        self.0.deserialize_any(Any(visitor, self.1))
    }

    #[inline]
    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.1.identifier();
        self.0.deserialize_identifier(visitor)
    }

    #[inline]
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.1.note(kind::OPTION);
        self.0.deserialize_option(Taker(visitor, Elements(self.1)))
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.1.note(kind::UNIT);
        self.0.deserialize_unit_struct(name, visitor)
    }

    #[inline]
    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_newtype_struct(name, Taker(visitor, Elements(self.1)))
    }

    #[inline]
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.1.note(kind::SEQUENCE);
        self.0.deserialize_seq(Taker(visitor, Elements(self.1)))
    }

    #[inline]
    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.1.note(kind::TUPLE);
        self.0.deserialize_tuple(len, Taker(visitor, Elements(self.1)))
    }

    #[inline]
    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.1.note(kind::TUPLE);
        self.0.deserialize_tuple_struct(name, len, Taker(visitor, Elements(self.1)))
    }

    #[inline]
    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.1.note(kind::MAP);
        self.0.deserialize_map(Taker(visitor, Elements(self.1)))
    }

    #[inline]
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        let owner = Fields(self.1, self.1.open(fields));
        self.0.deserialize_struct(name, fields, Taker(visitor, owner))
    }

    #[inline]
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.1.note(kind::VARIANT);
        self.0.deserialize_enum(name, variants, Taker(visitor, Elements(self.1)))
    }

    fn is_human_readable(&self) -> bool {
        self.0.is_human_readable()
    }
}

impl<'de, V: Visitor<'de>, O: Owner> Visitor<'de> for Taker<V, O> {
    type Value = V::Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.expecting(formatter)
    }

    #[inline]
    fn visit_none<E: serde::de::Error>(self) -> Result<V::Value, E> {
        self.0.visit_none()
    }

    #[inline]
    fn visit_some<D: Deserializer<'de>>(self, input: D) -> Result<V::Value, D::Error> {
        self.0.visit_some(Input(input, self.1.watch()))
    }

    #[inline]
    fn visit_newtype_struct<D: Deserializer<'de>>(self, input: D) -> Result<V::Value, D::Error> {
        self.0.visit_newtype_struct(Input(input, self.1.watch()))
    }

    #[inline]
    fn visit_seq<A: SeqAccess<'de>>(self, parts: A) -> Result<V::Value, A::Error> {
        self.1.ended(self.0.visit_seq(Parts(parts, self.1)))
    }

    #[inline]
    fn visit_map<A: MapAccess<'de>>(self, parts: A) -> Result<V::Value, A::Error> {
        self.1.ended(self.0.visit_map(Parts(parts, self.1)))
    }

    #[inline]
    fn visit_enum<A: EnumAccess<'de>>(self, parts: A) -> Result<V::Value, A::Error> {
        self.0.visit_enum(Parts(parts, self.1))
    }
}
