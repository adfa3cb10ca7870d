//! A canonical encoding of values: equal values have equal bytes in every process and on every platform, and
//! different values of one type have different bytes.
//!
//! Every value begins with a tag and is self-delimiting, so that a sequence of values has one interpretation
//! only. Numbers are big-endian with fixed width, floats are encoded by their bits, names of types, fields and
//! variants are included, maps and sets are sorted. References, `Box` and `Arc` do not show. Fields that serde
//! skips (`#[serde(skip)]`) are not included.

use std::fmt::Display;

use serde::Serialize;
use serde::ser::{Error as _, Serializer};

use super::compound::{Elements, Fields, Pairs};
use super::order::{self, Order};
use super::put_length;

/// The first byte of every value. New tags are added at the end; changing a tag needs a new scheme.
pub(super) mod tag {
    pub(crate) const END: u8 = 0x00;
    pub(crate) const FALSE: u8 = 0x01;
    pub(crate) const TRUE: u8 = 0x02;
    pub(crate) const I8: u8 = 0x03;
    pub(crate) const I16: u8 = 0x04;
    pub(crate) const I32: u8 = 0x05;
    pub(crate) const I64: u8 = 0x06;
    pub(crate) const I128: u8 = 0x07;
    pub(crate) const U8: u8 = 0x08;
    pub(crate) const U16: u8 = 0x09;
    pub(crate) const U32: u8 = 0x0a;
    pub(crate) const U64: u8 = 0x0b;
    pub(crate) const U128: u8 = 0x0c;
    pub(crate) const F32: u8 = 0x0d;
    pub(crate) const F64: u8 = 0x0e;
    pub(crate) const CHAR: u8 = 0x0f;
    pub(crate) const STR: u8 = 0x10;
    pub(crate) const BYTES: u8 = 0x11;
    pub(crate) const NONE: u8 = 0x12;
    pub(crate) const SOME: u8 = 0x13;
    pub(crate) const UNIT: u8 = 0x14;
    pub(crate) const UNIT_STRUCT: u8 = 0x15;
    pub(crate) const UNIT_VARIANT: u8 = 0x16;
    pub(crate) const NEWTYPE_STRUCT: u8 = 0x17;
    pub(crate) const NEWTYPE_VARIANT: u8 = 0x18;
    pub(crate) const SEQ: u8 = 0x19;
    pub(crate) const UNORDERED: u8 = 0x1a;
    pub(crate) const TUPLE: u8 = 0x1b;
    pub(crate) const TUPLE_STRUCT: u8 = 0x1c;
    pub(crate) const TUPLE_VARIANT: u8 = 0x1d;
    pub(crate) const MAP: u8 = 0x1e;
    pub(crate) const STRUCT: u8 = 0x1f;
    pub(crate) const STRUCT_VARIANT: u8 = 0x20;
    pub(crate) const FIELD: u8 = 0x21;
    pub(crate) const VARIANT: u8 = 0x22;
}

/// A value that cannot be part of a key, because its `Serialize` failed.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct KeyError(String);

impl serde::ser::Error for KeyError {
    fn custom<T: Display>(message: T) -> Self {
        KeyError(message.to_string())
    }
}

/// The error for a set of an unknown type: its keys would vary, or lose a significant order.
const UNKNOWN_ORDER: &str = "it is a set whose order may or may not be significant: pass it as a `HashSet`, a \
                             `BTreeSet` or a `Vec`, or say what identifies the call with `key = (…)`";

/// The error for a field that is serialized by a function of its own.
const OWN_FUNCTION: &str = "it has a field with `serialize_with` or `with`, which may write the same text for several \
                            values: say what identifies the call with `key = (…)`";

/// Appends the encoding of a field's or variant's value.
#[inline]
pub(super) fn encode_field<T: Serialize + ?Sized>(
    value: &T,
    out: &mut Vec<u8>,
) -> Result<(), KeyError> {
    if order::is_written_by_a_function::<T>() {
        return Err(KeyError::custom(OWN_FUNCTION));
    }
    encode(value, out)
}

/// Appends a value's encoding. After an error the buffer is unusable.
#[inline]
pub(crate) fn encode<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) -> Result<(), KeyError> {
    value.serialize(Encoder { out, order: order::of::<T> })
}

/// Appends the variant of the value that begins at `first`, unless its encoding contains it.
#[cold]
pub(crate) fn add_variant(out: &mut Vec<u8>, first: usize, number: i128) {
    let has_variant = matches!(
        out.get(first),
        Some(
            &(tag::NONE
                | tag::SOME
                | tag::UNIT_VARIANT
                | tag::NEWTYPE_VARIANT
                | tag::TUPLE_VARIANT
                | tag::STRUCT_VARIANT)
        )
    );
    if !has_variant {
        out.push(tag::VARIANT);
        out.extend_from_slice(&number.to_be_bytes());
    }
}

/// The serializer of one value.
pub(super) struct Encoder<'a> {
    out: &'a mut Vec<u8>,
    /// Returns the order of the value's static type; called for sequences only.
    order: fn() -> Order,
}

impl<'a> Encoder<'a> {
    #[inline]
    fn fixed(self, tag: u8, bytes: &[u8]) -> Result<(), KeyError> {
        self.out.push(tag);
        self.out.extend_from_slice(bytes);
        Ok(())
    }

    fn named(self, tag: u8, names: &[&str]) -> &'a mut Vec<u8> {
        self.out.push(tag);
        for name in names {
            put_text(self.out, name.as_bytes());
        }
        self.out
    }
}

/// Appends the length and the bytes.
#[inline]
pub(super) fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    put_length(text.len() as u64, |byte| out.push(byte));
    out.extend_from_slice(text);
}

impl<'a> Serializer for Encoder<'a> {
    type Ok = ();
    type Error = KeyError;
    type SerializeSeq = Elements<'a>;
    type SerializeTuple = Elements<'a>;
    type SerializeTupleStruct = Elements<'a>;
    type SerializeTupleVariant = Elements<'a>;
    type SerializeMap = Pairs<'a>;
    type SerializeStruct = Fields<'a>;
    type SerializeStructVariant = Fields<'a>;

    fn is_human_readable(&self) -> bool {
        false
    }

    #[inline]
    fn serialize_bool(self, v: bool) -> Result<(), KeyError> {
        self.fixed(if v { tag::TRUE } else { tag::FALSE }, &[])
    }
    #[inline]
    fn serialize_i8(self, v: i8) -> Result<(), KeyError> {
        self.fixed(tag::I8, &v.to_be_bytes())
    }
    #[inline]
    fn serialize_i16(self, v: i16) -> Result<(), KeyError> {
        self.fixed(tag::I16, &v.to_be_bytes())
    }
    #[inline]
    fn serialize_i32(self, v: i32) -> Result<(), KeyError> {
        self.fixed(tag::I32, &v.to_be_bytes())
    }
    #[inline]
    fn serialize_i64(self, v: i64) -> Result<(), KeyError> {
        self.fixed(tag::I64, &v.to_be_bytes())
    }
    #[inline]
    fn serialize_i128(self, v: i128) -> Result<(), KeyError> {
        self.fixed(tag::I128, &v.to_be_bytes())
    }
    #[inline]
    fn serialize_u8(self, v: u8) -> Result<(), KeyError> {
        self.fixed(tag::U8, &v.to_be_bytes())
    }
    #[inline]
    fn serialize_u16(self, v: u16) -> Result<(), KeyError> {
        self.fixed(tag::U16, &v.to_be_bytes())
    }
    #[inline]
    fn serialize_u32(self, v: u32) -> Result<(), KeyError> {
        self.fixed(tag::U32, &v.to_be_bytes())
    }
    #[inline]
    fn serialize_u64(self, v: u64) -> Result<(), KeyError> {
        self.fixed(tag::U64, &v.to_be_bytes())
    }
    #[inline]
    fn serialize_u128(self, v: u128) -> Result<(), KeyError> {
        self.fixed(tag::U128, &v.to_be_bytes())
    }
    fn serialize_f32(self, v: f32) -> Result<(), KeyError> {
        self.fixed(tag::F32, &v.to_bits().to_be_bytes())
    }
    fn serialize_f64(self, v: f64) -> Result<(), KeyError> {
        self.fixed(tag::F64, &v.to_bits().to_be_bytes())
    }
    #[inline]
    fn serialize_char(self, v: char) -> Result<(), KeyError> {
        self.fixed(tag::CHAR, &u32::from(v).to_be_bytes())
    }
    #[inline]
    fn serialize_str(self, v: &str) -> Result<(), KeyError> {
        self.out.push(tag::STR);
        put_text(self.out, v.as_bytes());
        Ok(())
    }
    #[inline]
    fn serialize_bytes(self, v: &[u8]) -> Result<(), KeyError> {
        self.out.push(tag::BYTES);
        put_text(self.out, v);
        Ok(())
    }
    #[inline]
    fn serialize_none(self) -> Result<(), KeyError> {
        self.fixed(tag::NONE, &[])
    }
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), KeyError> {
        self.out.push(tag::SOME);
        encode(value, self.out)
    }
    fn serialize_unit(self) -> Result<(), KeyError> {
        self.fixed(tag::UNIT, &[])
    }
    fn serialize_unit_struct(self, name: &'static str) -> Result<(), KeyError> {
        self.named(tag::UNIT_STRUCT, &[name]);
        Ok(())
    }
    fn serialize_unit_variant(
        self,
        name: &'static str,
        _index: u32,
        variant: &'static str,
    ) -> Result<(), KeyError> {
        self.named(tag::UNIT_VARIANT, &[name, variant]);
        Ok(())
    }
    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &T,
    ) -> Result<(), KeyError> {
        encode_field(value, self.named(tag::NEWTYPE_STRUCT, &[name]))
    }
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        _index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), KeyError> {
        encode_field(value, self.named(tag::NEWTYPE_VARIANT, &[name, variant]))
    }
    fn serialize_seq(self, _len: Option<usize>) -> Result<Elements<'a>, KeyError> {
        match (self.order)() {
            Order::Significant => Ok(Elements::ordered(self.named(tag::SEQ, &[]))),
            Order::Random => Ok(Elements::sorted(self.named(tag::UNORDERED, &[]))),
            Order::Unknown => Err(KeyError::custom(UNKNOWN_ORDER)),
        }
    }
    fn serialize_tuple(self, _len: usize) -> Result<Elements<'a>, KeyError> {
        Ok(Elements::ordered(self.named(tag::TUPLE, &[])))
    }
    fn serialize_tuple_struct(
        self,
        name: &'static str,
        _len: usize,
    ) -> Result<Elements<'a>, KeyError> {
        Ok(Elements::ordered(self.named(tag::TUPLE_STRUCT, &[name])))
    }
    fn serialize_tuple_variant(
        self,
        name: &'static str,
        _index: u32,
        variant: &'static str,
        _len: usize,
    ) -> Result<Elements<'a>, KeyError> {
        Ok(Elements::ordered(self.named(tag::TUPLE_VARIANT, &[name, variant])))
    }
    fn serialize_map(self, _len: Option<usize>) -> Result<Pairs<'a>, KeyError> {
        Ok(Pairs::new(self.named(tag::MAP, &[])))
    }
    fn serialize_struct(self, name: &'static str, _len: usize) -> Result<Fields<'a>, KeyError> {
        Ok(Fields::new(self.named(tag::STRUCT, &[name])))
    }
    fn serialize_struct_variant(
        self,
        name: &'static str,
        _index: u32,
        variant: &'static str,
        _len: usize,
    ) -> Result<Fields<'a>, KeyError> {
        Ok(Fields::new(self.named(tag::STRUCT_VARIANT, &[name, variant])))
    }
    fn collect_str<T: Display + ?Sized>(self, value: &T) -> Result<(), KeyError> {
        use std::fmt::Write;
        let mut text = String::new();
        // Unlike `to_string`, this does not panic when a `Display` reports an error.
        write!(text, "{value}").map_err(|_| KeyError::custom("its Display reported an error"))?;
        self.serialize_str(&text)
    }
}
