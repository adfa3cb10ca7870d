//! The deserializer that records requests.

use std::collections::BTreeMap;
use std::fmt::Display;

use serde::de::{Deserializer, Visitor};
use serde::forward_to_deserialize_any;

use super::access::{Elements, Entries, Variant};

/// The maximum of steps in one run; a larger type (an array of 100,000 elements) is cut off there.
const STEPS_MAX: usize = 4_096;

/// The maximum depth of a recursive type, at which a run ends.
const RECURSION_MAX: usize = 2;

/// Records one type, in several runs.
#[derive(Default)]
pub(super) struct Recorder {
    transcript: Vec<u8>,
    steps: usize,
    run: usize,
    /// Named types that are being read, outermost first.
    open: Vec<&'static str>,
    /// The number of variants of each enum, and the number shown.
    enums: BTreeMap<(&'static str, &'static [&'static str]), usize>,
    recursive: bool,
    /// Parts that take bytes in the encoding.
    occupied: usize,
    /// True if a sequence or map has elements that take no bytes.
    weightless: bool,
    /// True if this run was asked for any value.
    showed_any: bool,
}

/// Kinds that take no bytes themselves: units, and compound kinds.
const WEIGHTLESS: &[u8] = b"uUNtTS";

/// The error that ends a run early; it is not visible to anyone.
#[derive(Debug)]
pub(super) struct Stop;

impl Display for Stop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("recording ended")
    }
}

impl std::error::Error for Stop {}

impl serde::de::Error for Stop {
    fn custom<T: Display>(_message: T) -> Self {
        Stop
    }
}

impl Recorder {
    pub(super) fn start(&mut self) {
        self.steps = 0;
        self.open.clear();
        self.showed_any = false;
        self.transcript.push(b'!');
    }

    pub(super) fn finish(&mut self, complete: bool) {
        self.run += 1;
        // Of any value only a sample was shown, whether it was taken or not.
        let is_whole = complete && !self.showed_any;
        self.transcript.push(if is_whole { b'.' } else { b'?' });
    }

    pub(super) fn needs_another_run(&self) -> bool {
        let unseen = self.enums.iter().any(|((_, variants), shown)| *shown < variants.len());
        // In a recursive enum every variant is shown as the inner one.
        let turns = self.enums.keys().map(|(_, variants)| variants.len()).max().unwrap_or(0);
        unseen || self.recursive && self.run < turns
    }

    pub(super) fn transcript(&self) -> &[u8] {
        &self.transcript
    }

    pub(super) fn note(&mut self, kind: u8) -> Result<(), Stop> {
        self.steps += 1;
        if self.steps > STEPS_MAX {
            return Err(Stop);
        }
        self.occupied += usize::from(!WEIGHTLESS.contains(&kind));
        self.transcript.push(kind);
        Ok(())
    }

    /// Parts so far that take bytes in the encoding.
    pub(super) fn occupied(&self) -> usize {
        self.occupied
    }

    /// Records that an element of a sequence or map takes no bytes, so that only a number gives their count.
    pub(super) fn note_weightless(&mut self) {
        self.weightless = true;
    }

    /// True if a sequence or map has elements that take no bytes.
    pub(super) fn has_weightless(&self) -> bool {
        self.weightless
    }

    pub(super) fn note_names(&mut self, names: &[&str]) {
        self.transcript.extend_from_slice(&(names.len() as u64).to_be_bytes());
        for name in names {
            self.transcript.extend_from_slice(&(name.len() as u64).to_be_bytes());
            self.transcript.extend_from_slice(name.as_bytes());
        }
    }

    /// Returns true inside of a recursive type: then options and sequences are empty.
    pub(super) fn inside_itself(&self) -> bool {
        self.open.iter().any(|name| self.times_open(name) > 1)
    }

    fn times_open(&self, name: &str) -> usize {
        self.open.iter().filter(|open| **open == name).count()
    }

    fn enter(&mut self, name: &'static str) -> Result<(), Stop> {
        if self.times_open(name) >= RECURSION_MAX {
            self.recursive = true;
            return Err(Stop);
        }
        self.open.push(name);
        Ok(())
    }

    /// Returns the variant that this run shows.
    fn choose(&mut self, name: &'static str, variants: &'static [&'static str]) -> usize {
        let run = self.run;
        let recursive = self.times_open(name) > 1;
        let shown = self.enums.entry((name, variants)).or_insert(0);
        if recursive {
            self.recursive = true;
            return run % variants.len();
        }
        if *shown < variants.len() {
            *shown += 1;
            return *shown - 1;
        }
        run % variants.len()
    }
}

macro_rules! samples {
    ($($method:ident => $kind:literal, $visit:ident($($sample:expr)?);)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
            self.note($kind)?;
            visitor.$visit($($sample)?)
        }
    )*};
}

impl<'de> Deserializer<'de> for &mut Recorder {
    type Error = Stop;

    // One is a value of every number type, `NonZero` too.
    samples! {
        deserialize_bool => b'b', visit_bool(false);
        deserialize_i8 => b'1', visit_i8(1);
        deserialize_i16 => b'2', visit_i16(1);
        deserialize_i32 => b'3', visit_i32(1);
        deserialize_i64 => b'4', visit_i64(1);
        deserialize_i128 => b'5', visit_i128(1);
        deserialize_u8 => b'6', visit_u8(1);
        deserialize_u16 => b'7', visit_u16(1);
        deserialize_u32 => b'8', visit_u32(1);
        deserialize_u64 => b'9', visit_u64(1);
        deserialize_u128 => b'0', visit_u128(1);
        deserialize_f32 => b'f', visit_f32(1.0);
        deserialize_f64 => b'F', visit_f64(1.0);
        deserialize_char => b'c', visit_char('1');
        // Owned and borrowed text and bytes are the same in the encoding.
        deserialize_str => b's', visit_borrowed_str("1");
        deserialize_string => b's', visit_borrowed_str("1");
        deserialize_bytes => b'y', visit_borrowed_bytes(b"1");
        deserialize_byte_buf => b'y', visit_borrowed_bytes(b"1");
        deserialize_unit => b'u', visit_unit();
    }

    fn is_human_readable(&self) -> bool {
        false
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        self.note(b'*')?;
        self.showed_any = true;
        // A number is among the values of most types that take any. Others end the run.
        visitor.visit_u64(1)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, Stop> {
        // The key of a struct with a `flatten` field: its names are not known.
        self.note(b'*')?;
        Err(Stop)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        self.note(b'o')?;
        if self.inside_itself() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Stop> {
        self.note(b'U')?;
        self.note_names(&[name]);
        visitor.visit_unit()
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Stop> {
        self.note(b'N')?;
        self.note_names(&[name]);
        self.enter(name)?;
        let value = visitor.visit_newtype_struct(&mut *self);
        self.open.pop();
        value
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        self.note(b'q')?;
        let count = usize::from(!self.inside_itself());
        visitor.visit_seq(Elements::counted(self, count))
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Stop> {
        self.note(b't')?;
        self.transcript.extend_from_slice(&(len as u64).to_be_bytes());
        visitor.visit_seq(Elements::new(self, len))
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, Stop> {
        self.note(b'T')?;
        self.note_names(&[name]);
        self.transcript.extend_from_slice(&(len as u64).to_be_bytes());
        self.enter(name)?;
        let value = visitor.visit_seq(Elements::new(self, len));
        self.open.pop();
        value
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        self.note(b'm')?;
        let count = usize::from(!self.inside_itself());
        visitor.visit_map(Entries::new(self, count))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Stop> {
        self.note(b'S')?;
        self.note_names(&[name]);
        self.note_names(fields);
        self.enter(name)?;
        let value = visitor.visit_seq(Elements::new(self, fields.len()));
        self.open.pop();
        value
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Stop> {
        self.note(b'E')?;
        self.note_names(&[name]);
        self.note_names(variants);
        if variants.is_empty() {
            return Err(Stop);
        }
        self.enter(name)?;
        let index = self.choose(name, variants);
        self.transcript.extend_from_slice(&(index as u64).to_be_bytes());
        let value = visitor.visit_enum(Variant::new(self, index));
        self.open.pop();
        value
    }

    forward_to_deserialize_any!(ignored_any);
}
