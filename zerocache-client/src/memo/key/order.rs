//! The order of sequences, by the name of their static type.
//!
//! serde shows a `HashSet` as a sequence in the order of its random hash. Only its static type distinguishes it
//! from a `Vec`, and a generic serializer sees that type wherever it gets a value. A type that serializes itself
//! as such a collection without passing it on (`#[serde(transparent)]` around a `HashSet`) is not recognized:
//! its keys then vary, which costs hits and nothing else.

use std::any::type_name;

/// The meaning of a sequence's order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Another order is another value.
    Significant,
    /// The order has no meaning.
    Random,
    /// Equal sets may have different orders.
    Unknown,
}

/// Returns the order of a value of type `T`, behind any references.
pub(super) fn of<T: ?Sized>() -> Order {
    /// Collections in the order of a random hash, or of a heap's history.
    const RANDOM: &[&str] = &[
        "std::collections::hash::set::HashSet<",
        "hashbrown::set::HashSet<",
        "ahash::hash_set::AHashSet<",
        "alloc::collections::binary_heap::BinaryHeap<",
    ];
    /// Prefixes of sets in the order of their elements.
    const SORTED: &[&str] = &["BTree", "Ord", "Sorted"];
    let name = behind_references(type_name::<T>());
    if name.starts_with('[') || name.starts_with("alloc::vec::Vec<") {
        return Order::Significant;
    }
    if RANDOM.iter().any(|prefix| name.starts_with(prefix)) {
        return Order::Random;
    }
    let path = name.split('<').next().unwrap_or(name);
    let own = path.rsplit("::").next().unwrap_or(path);
    let is_set = ["Set", "Heap", "Bag"].iter().any(|kind| own.ends_with(kind));
    if is_set && !SORTED.iter().any(|prefix| own.starts_with(prefix)) {
        return Order::Unknown;
    }
    Order::Significant
}

/// Returns the name without wrappers that the encoding does not show.
fn behind_references(mut name: &str) -> &str {
    const WRAPPERS: &[&str] = &[
        "&mut ",
        "&",
        "'_ ",
        "'_, ",
        "alloc::boxed::Box<",
        "alloc::rc::Rc<",
        "alloc::sync::Arc<",
        "alloc::borrow::Cow<",
        "core::cell::RefCell<",
        "core::cmp::Reverse<",
    ];
    while let Some(inner) = WRAPPERS.iter().find_map(|wrapper| name.strip_prefix(wrapper)) {
        name = inner;
    }
    name
}

/// Returns true if `T` is the wrapper that serde's derive creates for a field with `serialize_with` or `with`.
/// The encoding may then not contain the whole field.
#[inline]
pub(super) fn is_written_by_a_function<T: ?Sized>() -> bool {
    const NAME: &str = "::__SerializeWith";
    let name = type_name::<T>();
    // For most types this is decided at compile time.
    if name.starts_with("alloc::") || name.starts_with("core::") || name.starts_with("std::") {
        return false;
    }
    name.ends_with(NAME) || name.ends_with('>') && has_arguments(name, NAME)
}

/// Returns true if a name is `path<…>`.
#[cold]
fn has_arguments(name: &str, path: &str) -> bool {
    let mut depth = 0_usize;
    for (at, byte) in name.bytes().enumerate().rev() {
        match byte {
            b'>' if at == 0 || name.as_bytes()[at - 1] != b'-' => depth += 1,
            b'<' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            return name[..at].ends_with(path);
        }
    }
    false
}
