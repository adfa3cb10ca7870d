//! Observers of what a reader asks for.

use serde::de::Visitor;

/// An observer of a reader's requests.
pub trait ReadObserver: Copy {
    /// False if it observes nothing.
    const OBSERVES: bool;
    /// The names of a struct's fields, if the observer needs them.
    type Fields: Copy;
    /// The reader makes a request.
    fn note(self, what: u64);
    /// The reader begins a struct.
    fn open(self, fields: &'static [&'static str]) -> Self::Fields;
    /// The reader asks for the struct's next field.
    fn field(self);
    /// The reader is done with the struct.
    fn close(self, fields: Self::Fields);
    /// The reader asks for a key: of a struct that it has begun, or of a map.
    fn key(self, is_of_struct: bool);
    /// The reader asks for the name of a field.
    fn identifier(self);
    /// The reader asks for whatever comes.
    fn any<'de, V: Visitor<'de>>(self, visitor: &V);
}

/// No observer.
impl ReadObserver for () {
    const OBSERVES: bool = false;
    type Fields = ();
    #[inline]
    fn note(self, _what: u64) {}
    #[inline]
    fn open(self, _fields: &'static [&'static str]) {}
    #[inline]
    fn field(self) {}
    #[inline]
    fn close(self, _fields: ()) {}
    #[inline]
    fn key(self, _is_of_struct: bool) {}
    #[inline]
    fn identifier(self) {}
    #[inline]
    fn any<'de, V: Visitor<'de>>(self, _visitor: &V) {}
}
