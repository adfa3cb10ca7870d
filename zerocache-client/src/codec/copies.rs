//! Readers that look at their input first, and read the value from a copy of it.
//!
//! serde reads `untagged`, `flatten` and internally tagged types in this way: it asks for any value, keeps what
//! comes, and lets the type read that. Nobody sees what is asked for there, so a field that was never written
//! would come back as its default unnoticed, and an `untagged` value as another variant that fits.
//!
//! Types such as `serde_json::Value` ask for any value, too, but are that value. The two are told apart by their
//! visitors. Those of serde's own copy are private, so a type of each kind is made to show them here. Copies of
//! other crates are known by their `expecting`, which serde's form of it makes `any value`.

use std::any::TypeId;
use std::cell::RefCell;
use std::fmt::{self, Display, Write};
use std::sync::OnceLock;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, Visitor};
use serde::{Deserialize, forward_to_deserialize_any};

use super::round_trip::ReadObserver;

/// What copies of other crates expect, which are made after serde's: of a value, and of a key.
const ANY_VALUE: &str = "any value";
const ANY_KEY: &str = "a type tag `";

/// Returns true if the visitor of any value makes a copy. A visitor is taken for one if that is not known.
pub(super) fn is_copy<'de, V: Visitor<'de>>(visitor: &V) -> bool {
    static OWN: OnceLock<Option<[TypeId; 2]>> = OnceLock::new();
    OWN.get_or_init(visitors_of_serde).is_none_or(|own| own.contains(&typeid::of::<V>()))
        || expects_any(visitor)
}

/// Returns the visitors with which serde copies a value, and the key of an entry; `None` if it uses others than are
/// known here.
fn visitors_of_serde() -> Option<[TypeId; 2]> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Untagged {
        _Variant,
    }

    #[derive(Deserialize)]
    #[serde(tag = "tag")]
    enum Tagged {
        _Variant,
    }

    let value = RefCell::default();
    let _ = Untagged::deserialize(Witness { seen: &value, shows_map: false });
    let key = RefCell::default();
    let _ = Tagged::deserialize(Witness { seen: &key, shows_map: true });
    let (value, key) = (value.into_inner(), key.into_inner());
    // The second one is that of the tagged type itself, and of no other type.
    match (&value[..], &key[..]) {
        ([value], [_, key]) => Some([*value, *key]),
        _ => None,
    }
}

/// A deserializer that takes down the visitors of any value.
struct Witness<'a> {
    seen: &'a RefCell<Vec<TypeId>>,
    /// The first visitor is shown a map, of which it asks for a key.
    shows_map: bool,
}

/// The end of a reading; it is not visible to anyone.
#[derive(Debug)]
pub(super) struct Seen;

impl Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("seen")
    }
}

impl std::error::Error for Seen {}

impl serde::de::Error for Seen {
    fn custom<T: Display>(_message: T) -> Self {
        Seen
    }
}

impl<'de> Deserializer<'de> for Witness<'_> {
    type Error = Seen;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Seen> {
        self.seen.borrow_mut().push(typeid::of::<V>());
        match self.shows_map {
            true => visitor.visit_map(Witness { shows_map: false, ..self }),
            false => Err(Seen),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

impl<'de> MapAccess<'de> for Witness<'_> {
    type Error = Seen;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Seen> {
        seed.deserialize(Witness { seen: self.seen, shows_map: false }).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, _seed: S) -> Result<S::Value, Seen> {
        Err(Seen)
    }
}

/// What is shown to the seed of a key when a map has no more of them, so that it shows what it would ask for.
pub(super) struct NoKey<W>(pub(super) W);

impl<'de, W: ReadObserver> Deserializer<'de> for NoKey<W> {
    type Error = Seen;

    fn deserialize_any<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, Seen> {
        Err(Seen)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, Seen> {
        self.0.identifier();
        Err(Seen)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map struct enum ignored_any
    }
}

/// Returns true if the visitor says that it expects anything, as that of a copy does.
fn expects_any<'de, V: Visitor<'de>>(visitor: &V) -> bool {
    struct Expecting<'a, V>(&'a V);
    impl<'de, V: Visitor<'de>> Display for Expecting<'_, V> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            self.0.expecting(f)
        }
    }
    let mut text = String::new();
    // A text that cannot be written says nothing.
    let _ = write!(text, "{}", Expecting(visitor));
    text == ANY_VALUE || text.starts_with(ANY_KEY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn visitors_of_serde_are_found() {
        let visitors = visitors_of_serde().expect("serde copies as it is known here");
        assert_ne!(visitors[0], visitors[1]);
    }
}
