//! The variants of the enums that were recorded, in the order in which they are read.
//!
//! bincode writes a variant as its place in the enum. serde counts the places of all variants when it writes,
//! and only of those that can be read when it reads: after one with `#[serde(skip)]` each is read as the
//! next one.

use std::collections::HashMap;
use std::sync::LazyLock;

use parking_lot::RwLock;

/// Lists of variants by the name of their enum; several enums may have one name. As many as a program has.
static KNOWN: LazyLock<RwLock<HashMap<&'static str, Vec<Variants>>>> =
    LazyLock::new(RwLock::default);

/// Names of variants.
pub(super) type Variants = &'static [&'static str];

/// Takes in the variants of an enum.
pub(super) fn learn(name: &'static str, variants: Variants) {
    let mut known = KNOWN.write();
    let lists = known.entry(name).or_default();
    if !lists.contains(&variants) {
        lists.push(variants);
    }
}

/// Whether the variant at a place is read as itself, as far as is known.
pub(in crate::codec) fn is_read_at(name: &str, place: u32, variant: &str) -> bool {
    let known = KNOWN.read();
    let Some(lists) = known.get(name) else {
        return true;
    };
    let place = usize::try_from(place).unwrap_or(usize::MAX);
    lists.iter().any(|variants| variants.get(place).is_some_and(|at| *at == variant))
}
