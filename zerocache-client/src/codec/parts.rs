//! Access to the parts of compound values, whose owners note what is asked for.

use std::marker::PhantomData;

use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, IgnoredAny, MapAccess, SeqAccess, VariantAccess,
    Visitor,
};

use super::borrowing::{Borrowing, Input, Taker};
use super::copies::NoKey;
use super::round_trip::{ReadObserver, kind};

/// Access to the parts of a compound value.
pub(super) struct Parts<A, O>(pub(super) A, pub(super) O);

/// The seed of the next part, or of the next key.
struct Next<S, O, const IS_KEY: bool>(S, O);

/// A compound value, with its observer.
pub(super) trait Owner: Copy {
    type ReadObserver: ReadObserver;
    fn watch(self) -> Self::ReadObserver;
    /// Notes that the reader asks for the next part.
    fn next(self);
    /// Keys are the names of fields.
    const IS_STRUCT: bool;
    /// Notes that the reader asks for the next key.
    #[inline]
    fn key(self) {
        self.next();
        self.watch().key(Self::IS_STRUCT);
    }
    /// Notes what the reader would ask for, if there was a key.
    fn no_key<'de>(self, seed: impl DeserializeSeed<'de>);
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
pub(super) struct Elements<W>(pub(super) W);

impl<W: ReadObserver> Owner for Elements<W> {
    type ReadObserver = W;
    const IS_STRUCT: bool = false;
    #[inline]
    fn watch(self) -> W {
        self.0
    }
    #[inline]
    fn next(self) {
        self.0.note(kind::NEXT);
    }
    fn no_key<'de>(self, seed: impl DeserializeSeed<'de>) {
        self.0.key(false);
        // It fails in any case.
        let _ = seed.deserialize(NoKey(self.0));
    }
    #[inline]
    fn end(self) {
        self.0.note(kind::END);
    }
}

/// A struct.
#[derive(Clone, Copy)]
pub(super) struct Fields<W: ReadObserver>(pub(super) W, pub(super) W::Fields);

impl<W: ReadObserver> Owner for Fields<W> {
    type ReadObserver = W;
    const IS_STRUCT: bool = true;
    #[inline]
    fn watch(self) -> W {
        self.0
    }
    #[inline]
    fn next(self) {
        self.0.field();
    }
    fn no_key<'de>(self, _seed: impl DeserializeSeed<'de>) {}
    #[inline]
    fn end(self) {
        self.0.close(self.1);
    }
}

impl<'de, S: DeserializeSeed<'de>, O: Owner, const IS_KEY: bool> DeserializeSeed<'de>
    for Next<S, O, IS_KEY>
{
    type Value = S::Value;

    #[inline]
    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<S::Value, D::Error> {
        let Next(seed, owner) = self;
        if IS_KEY {
            owner.key();
        } else {
            owner.next();
        }
        seed.deserialize(Input(input, owner.watch()))
    }
}

impl<'de, A: SeqAccess<'de>, O: Owner> SeqAccess<'de> for Parts<A, O> {
    type Error = A::Error;

    #[inline]
    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, A::Error> {
        self.0.next_element_seed(Next::<_, _, false>(seed, self.1))
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
        if O::ReadObserver::OBSERVES && self.0.size_hint() == Some(0) {
            // A map without entries does not use the seed.
            self.1.no_key(seed);
            return Ok(self.0.next_key_seed(PhantomData::<IgnoredAny>)?.and(None));
        }
        self.0.next_key_seed(Next::<_, _, true>(seed, self.1))
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
