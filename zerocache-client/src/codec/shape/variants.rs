//! The variants of a type's enums, in the order in which they are read.
//!
//! bincode writes a variant as its place in the enum. serde counts the places of all variants when it writes,
//! and only of those that can be read when it reads: after one with `#[serde(skip)]` each is read as the
//! next one.

use std::cell::Cell;

/// The enums that a type was seen to hold: their names, and those of their variants. Some may have one name.
pub(in crate::codec) type Enums = Vec<(&'static str, &'static [&'static str])>;

/// Those of a type without any.
static NONE: Enums = Vec::new();

thread_local! {
    /// Those of the type that is being written.
    static WRITTEN: Cell<&'static Enums> = const { Cell::new(&NONE) };
}

/// Keeps what was seen of a type; called once for each.
pub(super) fn keep(enums: Enums) -> &'static Enums {
    if enums.is_empty() { &NONE } else { Box::leak(Box::new(enums)) }
}

/// Runs `write`, which writes a value of the type with these enums.
pub(in crate::codec) fn writing<R>(enums: &'static Enums, write: impl FnOnce() -> R) -> R {
    struct Before(&'static Enums);
    impl Drop for Before {
        fn drop(&mut self) {
            let _ = WRITTEN.try_with(|written| written.set(self.0));
        }
    }
    let before = WRITTEN.try_with(|written| written.replace(enums));
    let _before = Before(before.unwrap_or(&NONE));
    write()
}

/// Whether the variant at a place of an enum is read as itself, as far as was seen of the type that is being
/// written.
///
/// A list has one name for each variant before it, or more (`#[serde(alias)]`): where it has fewer, one of them
/// is not read. One that is skipped behind one with an alias is not found so.
pub(in crate::codec) fn is_read_at(name: &str, place: u32, variant: &str) -> bool {
    let Ok(enums) = WRITTEN.try_with(Cell::get) else {
        return true;
    };
    let place = usize::try_from(place).unwrap_or(usize::MAX);
    let mut lists = enums.iter().filter(|(known, _)| *known == name).peekable();
    lists.peek().is_none()
        || lists.any(|(_, variants)| {
            variants.iter().position(|at| *at == variant).is_some_and(|at| at >= place)
        })
}
