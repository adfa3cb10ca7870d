//! Collections whose order says nothing.
//!
//! serde shows a `HashSet` as a sequence in the order of its random hash. Its static type is all
//! that tells it from a `Vec`, and a generic serializer sees that type wherever it is handed a value.
//! A type that writes itself as such a collection without handing it on (`#[serde(transparent)]`
//! around a `HashSet`) is not seen: its keys then vary, which costs hits and nothing else.

use std::any::type_name;

/// Whether a value of type `T`, behind any references, is a set or heap without an order.
pub(crate) fn is_unordered<T: ?Sized>() -> bool {
    const WRAPPERS: &[&str] = &[
        "&mut ",
        "&",
        "alloc::boxed::Box<",
        "alloc::rc::Rc<",
        "alloc::sync::Arc<",
        "alloc::borrow::Cow<",
    ];
    const UNORDERED: &[&str] = &[
        "std::collections::hash::set::HashSet<",
        "hashbrown::set::HashSet<",
        "alloc::collections::binary_heap::BinaryHeap<",
    ];
    let mut name = type_name::<T>();
    while let Some(inner) = WRAPPERS.iter().find_map(|wrapper| name.strip_prefix(wrapper)) {
        name = inner;
    }
    UNORDERED.iter().any(|prefix| name.starts_with(prefix))
}
