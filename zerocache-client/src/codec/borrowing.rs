//! A deserializer that reads owned text and bytes from borrowed input.
//!
//! For a `String`, bincode fills zeroed memory of its own and passes it on, which costs more than everything else
//! of a small value. For borrowed text it passes a slice of the input, which the visitor of `String` copies once.
//! So requests for owned text or bytes become requests for borrowed ones here, at any depth. Types must accept
//! both, as serde requires.

use std::fmt;

use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, MapAccess, SeqAccess, VariantAccess, Visitor,
};

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
struct Input<D, W>(D, W);

/// Access to the parts of a compound value.
struct Parts<A, O>(A, O);

/// The visitor of a compound value: bincode calls no other methods than those here.
struct Taker<V, O>(V, O);

/// The seed of the next part.
struct Next<S, O>(S, O);

/// A compound value, with its observer.
trait Owner: Copy {
    type ReadObserver: ReadObserver;
    fn watch(self) -> Self::ReadObserver;
    /// Notes that the reader asks for the next part.
    fn next(self);
    /// Notes that the reader is done.
    fn end(self);
    /// Notes that the reader is done, and returns its value unchanged: it may be large.
    #[inline]
    fn ended<T, E>(self, value: Result<T, E>) -> Result<T, E> {
        if value.is_ok() {
            self.end();
        }
        value
    }
}

/// A sequence, a map, or a single part.
#[derive(Clone, Copy)]
struct Elements<W>(W);

impl<W: ReadObserver> Owner for Elements<W> {
    type ReadObserver = W;
    #[inline]
    fn watch(self) -> W {
        self.0
    }
    #[inline]
    fn next(self) {
        self.0.note(kind::NEXT);
    }
    #[inline]
    fn end(self) {
        self.0.note(kind::END);
    }
}

/// A struct.
#[derive(Clone, Copy)]
struct Fields<W: ReadObserver>(W, W::Fields);

impl<W: ReadObserver> Owner for Fields<W> {
    type ReadObserver = W;
    #[inline]
    fn watch(self) -> W {
        self.0
    }
    #[inline]
    fn next(self) {
        self.0.field();
    }
    #[inline]
    fn end(self) {
        self.0.close(self.1);
    }
}

macro_rules! leaves {
    ($($method:ident => $inner:ident, $kind:ident;)*) => {$(
        #[inline]
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
            self.1.note(kind::$kind);
            self.0.$inner(visitor)
        }
    )*};
}

macro_rules! forward {
    ($($method:ident,)*) => {$(
        #[inline]
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
            self.0.$method(visitor)
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

    forward! { deserialize_any, deserialize_identifier, deserialize_ignored_any, }

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

impl<'de, S: DeserializeSeed<'de>, O: Owner> DeserializeSeed<'de> for Next<S, O> {
    type Value = S::Value;

    #[inline]
    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<S::Value, D::Error> {
        self.1.next();
        self.0.deserialize(Input(input, self.1.watch()))
    }
}

impl<'de, A: SeqAccess<'de>, O: Owner> SeqAccess<'de> for Parts<A, O> {
    type Error = A::Error;

    #[inline]
    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, A::Error> {
        self.0.next_element_seed(Next(seed, self.1))
    }

    fn size_hint(&self) -> Option<usize> {
        self.0.size_hint()
    }
}

impl<'de, A: MapAccess<'de>, O: Owner> MapAccess<'de> for Parts<A, O> {
    type Error = A::Error;

    #[inline]
    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, A::Error> {
        self.0.next_key_seed(Next(seed, self.1))
    }

    #[inline]
    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        self.0.next_value_seed(Borrowing(seed, self.1.watch()))
    }

    fn size_hint(&self) -> Option<usize> {
        self.0.size_hint()
    }
}

impl<'de, A: EnumAccess<'de>, O: Owner> EnumAccess<'de> for Parts<A, O> {
    type Error = A::Error;
    type Variant = Parts<A::Variant, O>;

    #[inline]
    fn variant_seed<S: DeserializeSeed<'de>>(
        self,
        seed: S,
    ) -> Result<(S::Value, Self::Variant), A::Error> {
        // The place of the variant is no value of its own.
        let (value, variant) = self.0.variant_seed(Borrowing(seed, ()))?;
        Ok((value, Parts(variant, self.1)))
    }
}

impl<'de, A: VariantAccess<'de>, O: Owner> VariantAccess<'de> for Parts<A, O> {
    type Error = A::Error;

    #[inline]
    fn unit_variant(self) -> Result<(), A::Error> {
        self.1.watch().note(kind::UNIT);
        self.0.unit_variant()
    }

    #[inline]
    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, A::Error> {
        self.1.watch().note(kind::NEWTYPE_VARIANT);
        self.0.newtype_variant_seed(Borrowing(seed, self.1.watch()))
    }

    #[inline]
    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, A::Error> {
        self.1.watch().note(kind::TUPLE);
        self.0.tuple_variant(len, Taker(visitor, Elements(self.1.watch())))
    }

    #[inline]
    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        let watch = self.1.watch();
        self.0.struct_variant(fields, Taker(visitor, Fields(watch, watch.open(fields))))
    }
}
