//! Transcripts of writing and of reading a value, which show if it decodes as itself.
//!
//! bincode writes no names and no kinds, so that the bytes of one value may decode as another one of the type. So
//! serde's calls while a value is written are hashed to two numbers. The first covers the requests that a reader
//! must make, in order: kinds, parts, names of fields. Reading the bytes gives such a number too. The second
//! covers the contents, regardless of the order of collections: it is the same for the decoded value when that is
//! encoded again.
//!
//! A format with names needs no order, and may leave fields out (`skip_serializing_if`). There reading must not
//! know a field that was neither written nor left out in this way: its value would be lost without a trace. Where a
//! type reads from a copy of its input (`flatten`, `untagged`), this cannot be seen; that it does is noted.

mod observer;
#[cfg(test)]
mod tests;

use std::any::TypeId;
use std::cell::{Cell, RefCell};

use serde::de::Visitor;
use xxhash_rust::xxh3::xxh3_64;

use super::copies;
pub(super) use observer::ReadObserver;

/// The kinds of requests. Owned and borrowed text, or bytes, are the same; a newtype is its content; a struct
/// without fields is a unit.
pub(super) mod kind {
    pub(crate) const BOOL: u64 = 1;
    pub(crate) const I8: u64 = 2;
    pub(crate) const I16: u64 = 3;
    pub(crate) const I32: u64 = 4;
    pub(crate) const I64: u64 = 5;
    pub(crate) const I128: u64 = 6;
    pub(crate) const U8: u64 = 7;
    pub(crate) const U16: u64 = 8;
    pub(crate) const U32: u64 = 9;
    pub(crate) const U64: u64 = 10;
    pub(crate) const U128: u64 = 11;
    pub(crate) const F32: u64 = 12;
    pub(crate) const F64: u64 = 13;
    pub(crate) const CHAR: u64 = 14;
    pub(crate) const TEXT: u64 = 15;
    pub(crate) const BYTES: u64 = 16;
    pub(crate) const OPTION: u64 = 17;
    pub(crate) const UNIT: u64 = 18;
    pub(crate) const SEQUENCE: u64 = 19;
    pub(crate) const TUPLE: u64 = 20;
    pub(crate) const MAP: u64 = 21;
    pub(crate) const STRUCT: u64 = 22;
    pub(crate) const VARIANT: u64 = 23;
    pub(crate) const NEWTYPE_VARIANT: u64 = 24;
    /// Another element, entry or field.
    pub(crate) const NEXT: u64 = 25;
    /// The end of a compound value.
    pub(crate) const END: u64 = 26;
}

/// The transcript of writing a value.
#[derive(Default)]
pub struct WriteTranscript {
    /// The format writes names.
    is_named: bool,
    order: Cell<u64>,
    contents: Cell<u64>,
    /// The fields of the structs being written, the innermost last.
    fields: RefCell<Vec<&'static str>>,
    /// The fields of the written structs; with names also those that they left out.
    structs: RefCell<Vec<WrittenStructs>>,
}

/// The structs that were written with the same fields.
struct WrittenStructs {
    /// The hash of the names.
    names: u64,
    fields: Vec<&'static str>,
    count: usize,
}

impl WriteTranscript {
    pub(super) fn new(is_named: bool) -> Self {
        WriteTranscript { is_named, ..WriteTranscript::default() }
    }

    /// Returns true if fields may be left out.
    pub(super) fn is_named(&self) -> bool {
        self.is_named
    }

    /// Returns the number of structs that were written with all of these fields.
    fn structs_with(&self, fields: &[&str]) -> usize {
        let has_all =
            |structs: &&WrittenStructs| fields.iter().all(|name| structs.fields.contains(name));
        self.structs.borrow().iter().filter(has_all).map(|structs| structs.count).sum()
    }

    /// Records a value without parts.
    #[inline]
    pub(super) fn leaf(&self, kind: u64, value: u64) {
        self.note(kind);
        self.add(mix(kind, value));
    }

    /// Records a request that the reader must make next.
    #[inline]
    pub(super) fn note(&self, what: u64) {
        self.order.set(mix(self.order.get(), what));
    }

    #[inline]
    pub(super) fn add(&self, content: u64) {
        self.contents.set(self.contents.get().wrapping_add(content));
    }

    /// Returns the contents of what `write` writes, separate from the rest.
    #[inline]
    pub(super) fn apart<E>(&self, write: impl FnOnce() -> Result<(), E>) -> Result<u64, E> {
        let around = self.contents.replace(0);
        write()?;
        Ok(self.contents.replace(around))
    }

    /// Records a field of the current struct. Returns its name as a number.
    pub(super) fn field(&self, name: &'static str) -> u64 {
        self.fields.borrow_mut().push(name);
        number(name)
    }

    /// Completes the struct whose last `count` fields were written.
    pub(super) fn close(&self, count: usize) {
        let mut fields = self.fields.borrow_mut();
        let first = fields.len().saturating_sub(count);
        let names = all(&fields[first..]);
        let mut structs = self.structs.borrow_mut();
        match structs.iter_mut().find(|known| known.names == names) {
            Some(known) => known.count += 1,
            None => {
                let fields = fields[first..].to_vec();
                structs.push(WrittenStructs { names, fields, count: 1 });
            }
        }
        fields.truncate(first);
        self.note(kind::END);
        self.note(names);
    }

    /// Returns true if both are of the same value, except for the order of collections.
    pub(super) fn has_contents_of(&self, other: &WriteTranscript) -> bool {
        self.contents == other.contents
    }
}

/// The transcript of reading the bytes of `written`.
pub(super) struct ReadTranscript<'a> {
    written: &'a WriteTranscript,
    order: Cell<u64>,
    /// The number of fields requested of each struct being read, the innermost last.
    asked: RefCell<Vec<usize>>,
    /// How many structs with these fields are read, in a format with names.
    read: RefCell<Vec<(&'static [&'static str], usize)>>,
    /// The last key that was asked for is one of a struct.
    is_field: Cell<bool>,
    /// Something was read from a copy, so that not every request was seen.
    has_copies: Cell<bool>,
    /// The last visitor of any value that makes no copy.
    known: Cell<Option<TypeId>>,
}

impl<'a> ReadTranscript<'a> {
    pub(super) fn of(written: &'a WriteTranscript) -> Self {
        ReadTranscript {
            written,
            order: Cell::new(0),
            asked: RefCell::default(),
            read: RefCell::default(),
            is_field: Cell::new(false),
            has_copies: Cell::new(false),
            known: Cell::new(None),
        }
    }

    /// Returns true if a part of the value was read from a copy, where requests are not seen.
    pub(super) fn has_copies(&self) -> bool {
        self.has_copies.get()
    }

    /// Returns true if the requests agree with what was written.
    pub(super) fn agrees(&self) -> bool {
        match self.written.is_named {
            // Of as many structs as are read with some fields, each was written with all of them. Structs that serde
            // reads from a copy are not among those read.
            true => {
                let read = self.read.borrow();
                // A struct with more fields is written with these, too, and stands for itself alone.
                let read_with = |fields: &[&str]| -> usize {
                    let has_all = |(known, _): &&(&[&str], usize)| {
                        fields.iter().all(|name| known.contains(name))
                    };
                    read.iter().filter(has_all).map(|(_, count)| count).sum()
                };
                let is_whole = |(fields, _): &(&[&str], usize)| {
                    fields.is_empty() || read_with(fields) <= self.written.structs_with(fields)
                };
                read.iter().all(is_whole)
            }
            false => self.order == self.written.order,
        }
    }
}

impl ReadObserver for &ReadTranscript<'_> {
    const OBSERVES: bool = true;
    type Fields = &'static [&'static str];

    #[inline]
    fn note(self, what: u64) {
        self.order.set(mix(self.order.get(), what));
    }

    fn open(self, fields: &'static [&'static str]) -> Self::Fields {
        if self.written.is_named {
            let mut read = self.read.borrow_mut();
            match read.iter_mut().find(|(known, _)| *known == fields) {
                Some((_, count)) => *count += 1,
                None => read.push((fields, 1)),
            }
        }
        self.note(kind::STRUCT);
        self.asked.borrow_mut().push(0);
        fields
    }

    fn field(self) {
        self.note(kind::NEXT);
        if let Some(asked) = self.asked.borrow_mut().last_mut() {
            *asked += 1;
        }
    }

    fn close(self, fields: Self::Fields) {
        let asked = self.asked.borrow_mut().pop().unwrap_or_default();
        // Additional names of fields (`alias`) are among the names too.
        let names = if asked == fields.len() {
            all(fields)
        } else {
            let structs = self.written.structs.borrow();
            let fitting = structs.iter().find(|structs| {
                let (written, mut known) = (&structs.fields, fields.iter());
                written.len() == asked && written.iter().all(|name| known.any(|at| at == name))
            });
            fitting.map_or(0, |structs| structs.names)
        };
        self.note(kind::END);
        self.note(names);
    }

    #[inline]
    fn key(self, is_of_struct: bool) {
        self.is_field.set(is_of_struct);
    }

    #[inline]
    fn identifier(self) {
        // Names of fields are asked for in a struct that was not begun as one: it has a `flatten` field, or
        // was begun as any value. Which ones it knows is not visible.
        if !self.is_field.get() {
            self.has_copies.set(true);
        }
    }

    fn any<'de, V: Visitor<'de>>(self, visitor: &V) {
        let this = typeid::of::<V>();
        if self.has_copies.get() || self.known.get() == Some(this) {
            return;
        }
        if copies::is_copy(visitor) {
            self.has_copies.set(true);
        } else {
            self.known.set(Some(this));
        }
    }
}

/// Mixes two numbers; the order matters.
#[inline]
pub(super) fn mix(one: u64, two: u64) -> u64 {
    // Odd numbers of random bits. The product has 128 bits: the casts take its halves.
    const ONE: u64 = 0x9e37_79b9_7f4a_7c15;
    const TWO: u64 = 0xd6e8_feb8_6659_fd93;
    let product = u128::from(one ^ ONE) * u128::from(two.wrapping_add(TWO));
    (product as u64) ^ ((product >> 64) as u64)
}

/// Returns the hash of a name.
#[inline]
pub(super) fn number(name: &str) -> u64 {
    xxh3_64(name.as_bytes())
}

fn all(names: &[&str]) -> u64 {
    names.iter().fold(0, |before, name| mix(before, number(name)))
}
