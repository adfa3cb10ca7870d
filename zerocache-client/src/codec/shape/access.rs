//! The parts of compound types, as the recorder presents them.

use serde::de::value::U32Deserializer;
use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, MapAccess, SeqAccess,
    VariantAccess, Visitor,
};

use super::recorder::{Recorder, Stop};

/// The elements of a sequence.
pub(super) struct Elements<'a> {
    recorder: &'a mut Recorder,
    left: usize,
    /// True if their number is part of the encoding, not of the type.
    counted: bool,
}

impl<'a> Elements<'a> {
    pub(super) fn new(recorder: &'a mut Recorder, count: usize) -> Self {
        Elements { recorder, left: count, counted: false }
    }

    pub(super) fn counted(recorder: &'a mut Recorder, count: usize) -> Self {
        Elements { recorder, left: count, counted: true }
    }
}

impl<'de> SeqAccess<'de> for Elements<'_> {
    type Error = Stop;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Stop> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        let before = self.recorder.occupied();
        let element = seed.deserialize(&mut *self.recorder)?;
        if self.counted && self.recorder.occupied() == before {
            self.recorder.note_weightless();
        }
        Ok(Some(element))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.left)
    }
}

/// The entries of a map.
pub(super) struct Entries<'a> {
    recorder: &'a mut Recorder,
    left: usize,
    /// The number of parts with bytes before the entry.
    before: usize,
}

impl<'a> Entries<'a> {
    pub(super) fn new(recorder: &'a mut Recorder, count: usize) -> Self {
        let before = recorder.occupied();
        Entries { recorder, left: count, before }
    }
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = Stop;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Stop> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        self.before = self.recorder.occupied();
        seed.deserialize(&mut *self.recorder).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Stop> {
        let value = seed.deserialize(&mut *self.recorder)?;
        if self.recorder.occupied() == self.before {
            self.recorder.note_weightless();
        }
        Ok(value)
    }
}

/// One variant of an enum.
pub(super) struct Variant<'a> {
    recorder: &'a mut Recorder,
    index: usize,
}

impl<'a> Variant<'a> {
    pub(super) fn new(recorder: &'a mut Recorder, index: usize) -> Self {
        Variant { recorder, index }
    }
}

impl<'de> EnumAccess<'de> for Variant<'_> {
    type Error = Stop;
    type Variant = Self;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self), Stop> {
        let index = u32::try_from(self.index).map_err(|_| Stop)?;
        let index: U32Deserializer<Stop> = index.into_deserializer();
        Ok((seed.deserialize(index)?, self))
    }
}

impl<'de> VariantAccess<'de> for Variant<'_> {
    type Error = Stop;

    fn unit_variant(self) -> Result<(), Stop> {
        self.recorder.note(b'u')
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Stop> {
        self.recorder.note(b'n')?;
        seed.deserialize(&mut *self.recorder)
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Stop> {
        self.recorder.deserialize_tuple(len, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Stop> {
        self.recorder.note(b'v')?;
        self.recorder.note_names(fields);
        visitor.visit_seq(Elements::new(self.recorder, fields.len()))
    }
}
