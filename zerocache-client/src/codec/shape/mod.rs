//! A fingerprint of a type's structure, taken by letting its `Deserialize` read from a recorder.
//!
//! The recorder presents sample values and records the requests: kinds, names of types, fields and variants, in
//! order. An enum shows one variant per run, so the type is read until every variant has been seen. Recursive
//! types are followed once.
//!
//! A type that refuses a sample (a date parsed from text) ends its run; what was recorded before still counts. So
//! does a struct with a `flatten` field, whose other fields are not asked for by their names. Two types that differ
//! only after such a point have the same fingerprint. A type has the same fingerprint on every
//! platform and in every process; golden tests pin that.

mod access;
mod recorder;

use std::any::type_name;
use std::cell::Cell;
use std::collections::HashMap;
use std::sync::OnceLock;

use parking_lot::RwLock;
use serde::de::DeserializeOwned;
use xxhash_rust::xxh3::xxh3_64;

#[cfg(feature = "messagepack")]
use super::preference::Preference;
use recorder::Recorder;

/// The maximum of runs of one type, to see the variants of its enums.
const RUNS_MAX: usize = 64;

/// The shape of a type.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// The fingerprint of its structure.
    pub(crate) fingerprint: u64,
    /// True if it has a sequence or map of elements that take no bytes (`Vec<()>`): decoding a forged length
    /// would take unbounded time.
    pub(crate) weightless: bool,
    /// The codec that is tried first. The types of a process are few: this is never freed.
    #[cfg(feature = "messagepack")]
    pub(super) preference: &'static Preference,
}

/// The number of shapes that a thread caches.
const AT_HAND: usize = 32;

/// The identity of a type: the address of its function below, and that of its name.
type Place = (usize, usize, usize);

thread_local! {
    static RECENT: [Cell<Option<(Place, Shape)>>; AT_HAND] =
        const { [const { Cell::new(None) }; AT_HAND] };
}

/// Returns the type's shape, which is recorded once per type and process.
#[inline]
pub(crate) fn of<T: DeserializeOwned>() -> Shape {
    let name = type_name::<T>();
    let place = (record::<T> as fn() -> Shape as usize, name.as_ptr() as usize, name.len());
    // Functions and texts are often 16 bytes apart. The modulus is below AT_HAND.
    let at = ((place.0 >> 4) ^ (place.1 >> 3) ^ place.2) % AT_HAND;
    let known = RECENT.try_with(|recent| recent[at].get()).ok().flatten();
    if let Some((known, shape)) = known
        && known == place
    {
        return shape;
    }
    let shape = of_any::<T>();
    // A thread that is being torn down keeps nothing.
    let _ = RECENT.try_with(|recent| recent[at].set(Some((place, shape))));
    shape
}

#[cold]
fn of_any<T: DeserializeOwned>() -> Shape {
    // A type without `'static` has no `TypeId`. The address of this function stands for the type:
    // functions that were merged into one have the same code, and so the same result. The name
    // keeps types apart whose code is the same but for constants outside of it.
    let id = (record::<T> as fn() -> Shape as usize, type_name::<T>());
    static KNOWN: OnceLock<RwLock<HashMap<(usize, &'static str), Shape>>> = OnceLock::new();
    let known = KNOWN.get_or_init(RwLock::default);
    if let Some(shape) = known.read().get(&id) {
        return *shape;
    }
    // Recorded outside of the lock: `Deserialize` is the user's code.
    let shape = record::<T>();
    *known.write().entry(id).or_insert(shape)
}

fn record<T: DeserializeOwned>() -> Shape {
    let mut recorder = Recorder::default();
    for _ in 0..RUNS_MAX {
        recorder.start();
        let outcome = T::deserialize(&mut recorder);
        recorder.finish(outcome.is_ok());
        if !recorder.needs_another_run() {
            break;
        }
    }
    Shape {
        fingerprint: xxh3_64(recorder.transcript()),
        weightless: recorder.has_weightless(),
        #[cfg(feature = "messagepack")]
        preference: Box::leak(Box::default()),
    }
}
