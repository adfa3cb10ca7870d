//! A serializer that records what is written. Without names it refuses values that omit a field
//! (`skip_serializing_if`).
//!
//! bincode writes no names: the bytes after an omitted field would be read in its place, and may decode as another
//! value of the type without an error.

use std::fmt::{Display, Write};

use serde::ser::{
    Error, Serialize, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant,
    SerializeTuple, SerializeTupleStruct, SerializeTupleVariant, Serializer,
};

use xxhash_rust::xxh3::xxh3_64;

use super::round_trip::{WriteTranscript, kind, mix, number};

/// A value that is serialized with all of its fields, or not at all.
pub(super) struct CompleteValue<'a, T: ?Sized> {
    pub(super) value: &'a T,
    pub(super) transcript: &'a WriteTranscript,
}

impl<T: Serialize + ?Sized> Serialize for CompleteValue<'_, T> {
    #[inline]
    fn serialize<S: Serializer>(&self, inner: S) -> Result<S::Ok, S::Error> {
        self.value.serialize(Output { inner, transcript: self.transcript })
    }
}

/// The serializer.
struct Output<'a, S> {
    inner: S,
    transcript: &'a WriteTranscript,
}

/// The parts of a compound value.
struct Parts<'a, P> {
    inner: P,
    transcript: &'a WriteTranscript,
    count: usize,
    /// The contents of the key of the current map entry.
    key: u64,
}

impl<'a, S> Output<'a, S> {
    fn parts<P, E>(
        self,
        kind: u64,
        begin: impl FnOnce(S) -> Result<P, E>,
    ) -> Result<Parts<'a, P>, E> {
        self.transcript.note(kind);
        Ok(Parts { inner: begin(self.inner)?, transcript: self.transcript, count: 0, key: 0 })
    }

    fn variant(&self, index: u32, name: &'static str) {
        self.transcript.note(kind::VARIANT);
        self.transcript.add(mix(u64::from(index), number(name)));
    }
}

macro_rules! leaves {
    ($($method:ident($($value:ident: $type:ty)?) => $kind:ident, $contents:expr;)*) => {$(
        #[inline]
        fn $method(self, $($value: $type)?) -> Result<S::Ok, S::Error> {
            self.transcript.leaf(kind::$kind, $contents);
            self.inner.$method($($value)?)
        }
    )*};
}

impl<'a, S: Serializer> Serializer for Output<'a, S> {
    type Ok = S::Ok;
    type Error = S::Error;
    type SerializeSeq = Parts<'a, S::SerializeSeq>;
    type SerializeTuple = Parts<'a, S::SerializeTuple>;
    type SerializeTupleStruct = Parts<'a, S::SerializeTupleStruct>;
    type SerializeTupleVariant = Parts<'a, S::SerializeTupleVariant>;
    type SerializeMap = Parts<'a, S::SerializeMap>;
    type SerializeStruct = Parts<'a, S::SerializeStruct>;
    type SerializeStructVariant = Parts<'a, S::SerializeStructVariant>;

    // Signed numbers are recorded by their bits: the casts widen.
    leaves! {
        serialize_bool(value: bool) => BOOL, u64::from(value);
        serialize_i8(value: i8) => I8, value as u64;
        serialize_i16(value: i16) => I16, value as u64;
        serialize_i32(value: i32) => I32, value as u64;
        serialize_i64(value: i64) => I64, value as u64;
        serialize_u8(value: u8) => U8, u64::from(value);
        serialize_u16(value: u16) => U16, u64::from(value);
        serialize_u32(value: u32) => U32, u64::from(value);
        serialize_u64(value: u64) => U64, value;
        serialize_f32(value: f32) => F32, u64::from(value.to_bits());
        serialize_f64(value: f64) => F64, value.to_bits();
        serialize_char(value: char) => CHAR, u64::from(value);
        serialize_none() => OPTION, 0;
        serialize_unit() => UNIT, 0;
        serialize_unit_struct(name: &'static str) => UNIT, 0;
        serialize_i128(value: i128) => I128, xxh3_64(&value.to_ne_bytes());
        serialize_u128(value: u128) => U128, xxh3_64(&value.to_ne_bytes());
        serialize_str(value: &str) => TEXT, xxh3_64(value.as_bytes());
        serialize_bytes(value: &[u8]) => BYTES, xxh3_64(value);
    }

    #[inline]
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        self.transcript.leaf(kind::OPTION, 1);
        self.inner.serialize_some(&CompleteValue { value, transcript: self.transcript })
    }

    #[inline]
    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        self.inner
            .serialize_newtype_struct(name, &CompleteValue { value, transcript: self.transcript })
    }

    #[inline]
    fn serialize_unit_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
    ) -> Result<S::Ok, S::Error> {
        self.variant(index, variant);
        self.transcript.note(kind::UNIT);
        self.inner.serialize_unit_variant(name, index, variant)
    }

    #[inline]
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        self.variant(index, variant);
        self.transcript.note(kind::NEWTYPE_VARIANT);
        let value = CompleteValue { value, transcript: self.transcript };
        self.inner.serialize_newtype_variant(name, index, variant, &value)
    }

    fn serialize_seq(self, len: Option<usize>) -> Result<Self::SerializeSeq, S::Error> {
        self.parts(kind::SEQUENCE, |inner| inner.serialize_seq(len))
    }

    fn serialize_tuple(self, len: usize) -> Result<Self::SerializeTuple, S::Error> {
        self.parts(kind::TUPLE, |inner| inner.serialize_tuple(len))
    }

    fn serialize_tuple_struct(
        self,
        name: &'static str,
        len: usize,
    ) -> Result<Self::SerializeTupleStruct, S::Error> {
        self.parts(kind::TUPLE, |inner| inner.serialize_tuple_struct(name, len))
    }

    fn serialize_tuple_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Self::SerializeTupleVariant, S::Error> {
        self.variant(index, variant);
        self.parts(kind::TUPLE, |inner| inner.serialize_tuple_variant(name, index, variant, len))
    }

    fn serialize_map(self, len: Option<usize>) -> Result<Self::SerializeMap, S::Error> {
        self.parts(kind::MAP, |inner| inner.serialize_map(len))
    }

    #[inline]
    fn serialize_struct(
        self,
        name: &'static str,
        len: usize,
    ) -> Result<Self::SerializeStruct, S::Error> {
        self.parts(kind::STRUCT, |inner| inner.serialize_struct(name, len))
    }

    fn serialize_struct_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Self::SerializeStructVariant, S::Error> {
        self.variant(index, variant);
        self.parts(kind::STRUCT, |inner| inner.serialize_struct_variant(name, index, variant, len))
    }

    fn collect_str<T: Display + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        let mut text = String::new();
        // Unlike `to_string`, this does not panic when a `Display` reports an error.
        write!(text, "{value}").map_err(|_| S::Error::custom("its Display reported an error"))?;
        self.serialize_str(&text)
    }

    #[inline]
    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

impl<P> Parts<'_, P> {
    /// Adds a part, which `write` writes.
    #[inline]
    fn part<E>(
        &mut self,
        place: u64,
        write: impl FnOnce(&mut P, &WriteTranscript) -> Result<(), E>,
    ) -> Result<(), E> {
        let Parts { inner, transcript, count, .. } = self;
        *count += 1;
        transcript.note(kind::NEXT);
        let contents = transcript.apart(|| write(inner, transcript))?;
        transcript.add(mix(place, contents));
        Ok(())
    }

    fn close(self) -> P {
        self.transcript.note(kind::END);
        self.inner
    }
}

macro_rules! elements {
    ($($of:ident: $method:ident, $place:expr;)*) => {$(
        impl<P: $of> $of for Parts<'_, P> {
            type Ok = P::Ok;
            type Error = P::Error;

            #[inline]
            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), P::Error> {
                let place: fn(usize) -> usize = $place;
                self.part(place(self.count) as u64, |parts, transcript| {
                    parts.$method(&CompleteValue { value, transcript })
                })
            }

            #[inline]
            fn end(self) -> Result<P::Ok, P::Error> {
                self.close().end()
            }
        }
    )*};
}

elements! {
    // The sequence may be a set, whose order can differ when it is encoded again.
    SerializeSeq: serialize_element, |_| 0;
    SerializeTuple: serialize_element, |place| place;
    SerializeTupleStruct: serialize_field, |place| place;
    SerializeTupleVariant: serialize_field, |place| place;
}

impl<P: SerializeMap> SerializeMap for Parts<'_, P> {
    type Ok = P::Ok;
    type Error = P::Error;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), P::Error> {
        let Parts { inner, transcript, key, .. } = self;
        transcript.note(kind::NEXT);
        *key = transcript.apart(|| inner.serialize_key(&CompleteValue { value, transcript }))?;
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), P::Error> {
        let Parts { inner, transcript, key, .. } = self;
        let contents =
            transcript.apart(|| inner.serialize_value(&CompleteValue { value, transcript }))?;
        transcript.add(mix(*key, contents));
        Ok(())
    }

    fn end(self) -> Result<P::Ok, P::Error> {
        self.close().end()
    }
}

macro_rules! fields {
    ($($of:ident,)*) => {$(
        impl<P: $of> $of for Parts<'_, P> {
            type Ok = P::Ok;
            type Error = P::Error;

            #[inline]
            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                key: &'static str,
                value: &T,
            ) -> Result<(), P::Error> {
                let place = self.transcript.field(key);
                self.part(place, |parts, transcript| parts.serialize_field(key, &CompleteValue { value, transcript }))
            }

            fn skip_field(&mut self, key: &'static str) -> Result<(), P::Error> {
                if self.transcript.is_named() {
                    self.transcript.field(key);
                    self.count += 1;
                    return self.inner.skip_field(key);
                }
                Err(P::Error::custom(format_args!("the field `{key}` is left out of it")))
            }

            #[inline]
            fn end(self) -> Result<P::Ok, P::Error> {
                self.transcript.close(self.count);
                self.inner.end()
            }
        }
    )*};
}

fields! { SerializeStruct, SerializeStructVariant, }
