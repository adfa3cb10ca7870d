//! What a value is, as it is written and as it is read.
//!
//! bincode writes no names and no kinds, so that bytes of one value may be read as another one of the type.
//! Therefore what serde says while a value is written is kept as two numbers. The first stands for all that
//! a reader must ask for, in this order: kinds, parts, names of fields. Reading the bytes gives such a
//! number too. The second stands for the contents, whatever order collections have: it is the same for the
//! value that was read when that is written once more.

#[cfg(test)]
mod tests;

use std::cell::{Cell, RefCell};

use xxhash_rust::xxh3::xxh3_64;

/// What is asked for. Texts, and bytes, are the same whether owned or borrowed; a newtype is what it holds;
/// a struct without fields is a unit.
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
    /// There are no more.
    pub(crate) const END: u64 = 26;
}

/// What is noted while a value is written.
#[derive(Default)]
pub struct Trace {
    order: Cell<u64>,
    contents: Cell<u64>,
    /// The fields of the structs that are being written, the innermost last.
    fields: RefCell<Vec<&'static str>>,
    /// The fields of each struct that was written, once.
    structs: RefCell<Vec<(u64, Vec<&'static str>)>>,
}

impl Trace {
    /// A value without parts.
    #[inline]
    pub(super) fn leaf(&self, kind: u64, value: u64) {
        self.note(kind);
        self.add(mix(kind, value));
    }

    /// Something that the reader must ask for now.
    #[inline]
    pub(super) fn note(&self, what: u64) {
        self.order.set(mix(self.order.get(), what));
    }

    #[inline]
    pub(super) fn add(&self, content: u64) {
        self.contents.set(self.contents.get().wrapping_add(content));
    }

    /// The contents of what `write` writes, apart from all else.
    #[inline]
    pub(super) fn apart<E>(&self, write: impl FnOnce() -> Result<(), E>) -> Result<u64, E> {
        let around = self.contents.replace(0);
        write()?;
        Ok(self.contents.replace(around))
    }

    /// A field of the struct that is being written; its name as a number.
    pub(super) fn field(&self, name: &'static str) -> u64 {
        self.fields.borrow_mut().push(name);
        number(name)
    }

    /// The struct whose last `count` fields were written has no more.
    pub(super) fn close(&self, count: usize) {
        let mut fields = self.fields.borrow_mut();
        let first = fields.len().saturating_sub(count);
        let names = all(&fields[first..]);
        let mut structs = self.structs.borrow_mut();
        if structs.iter().all(|(known, _)| *known != names) {
            structs.push((names, fields[first..].to_vec()));
        }
        fields.truncate(first);
        self.note(kind::END);
        self.note(names);
    }

    /// Whether this is of the same value as `other`, but for the order of collections.
    pub(super) fn has_contents_of(&self, other: &Trace) -> bool {
        self.contents == other.contents
    }
}

/// Who is told what a reader asks for.
pub trait Watch: Copy {
    /// The names of a struct's fields, where somebody wants to know.
    type Fields: Copy;
    /// The reader asks for this.
    fn note(self, what: u64);
    /// It begins with a struct.
    fn open(self, fields: &'static [&'static str]) -> Self::Fields;
    /// It asks for the struct's next field.
    fn field(self);
    /// It has all that it wants of the struct.
    fn close(self, fields: Self::Fields);
}

/// Nobody.
impl Watch for () {
    type Fields = ();
    #[inline]
    fn note(self, _what: u64) {}
    #[inline]
    fn open(self, _fields: &'static [&'static str]) {}
    #[inline]
    fn field(self) {}
    #[inline]
    fn close(self, _fields: ()) {}
}

/// What is noted while the bytes of `written` are read.
pub(super) struct Reading<'a> {
    written: &'a Trace,
    order: Cell<u64>,
    /// How many fields were asked for of each struct that is being read, the innermost last.
    asked: RefCell<Vec<usize>>,
}

impl<'a> Reading<'a> {
    pub(super) fn of(written: &'a Trace) -> Self {
        Reading { written, order: Cell::new(0), asked: RefCell::default() }
    }

    /// Whether all was asked for as it was written.
    pub(super) fn agrees(&self) -> bool {
        self.order == self.written.order
    }
}

impl Watch for &Reading<'_> {
    type Fields = &'static [&'static str];

    #[inline]
    fn note(self, what: u64) {
        self.order.set(mix(self.order.get(), what));
    }

    fn open(self, fields: &'static [&'static str]) -> Self::Fields {
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
        // Names by which fields are read as well (`alias`) stand among the others.
        let names = if asked == fields.len() {
            all(fields)
        } else {
            let structs = self.written.structs.borrow();
            let fitting = structs.iter().find(|(_, written)| {
                let mut known = fields.iter();
                written.len() == asked && written.iter().all(|name| known.any(|at| at == name))
            });
            fitting.map_or(0, |(names, _)| *names)
        };
        self.note(kind::END);
        self.note(names);
    }
}

/// One number for two, in this order.
#[inline]
pub(super) fn mix(one: u64, two: u64) -> u64 {
    // Odd numbers of random bits. The product of two of 64 bits has 128: the cast takes its halves.
    const ONE: u64 = 0x9e37_79b9_7f4a_7c15;
    const TWO: u64 = 0xd6e8_feb8_6659_fd93;
    let product = u128::from(one ^ ONE) * u128::from(two.wrapping_add(TWO));
    (product as u64) ^ ((product >> 64) as u64)
}

/// A name as a number.
#[inline]
pub(super) fn number(name: &str) -> u64 {
    xxh3_64(name.as_bytes())
}

fn all(names: &[&str]) -> u64 {
    names.iter().fold(0, |before, name| mix(before, number(name)))
}
