//! A fingerprint of a type's structure, taken by letting its `Deserialize` read from a recorder.
//!
//! The recorder hands out sample values and writes down what was asked for: kinds, names of types,
//! fields and variants, in order. An enum shows one variant per run, so that the type is read
//! again until every variant has been seen. Types that contain themselves are followed once.
//!
//! A type that refuses the samples (a date parsed from text) ends its run there: what was written
//! down before still counts. Two types whose difference lies only behind such a point have one
//! fingerprint. The same type always has the same one, on every platform and in every process;
//! the golden tests pin that.

mod access;
mod recorder;

use std::any::type_name;
use std::cell::Cell;
use std::collections::HashMap;
use std::sync::OnceLock;

use parking_lot::RwLock;
use serde::de::DeserializeOwned;
use xxhash_rust::xxh3::xxh3_64;

use recorder::Recorder;

/// How often one type is read at most, to see the variants of its enums.
const RUNS_MAX: usize = 64;

/// What is known of a type's encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    /// The fingerprint of its structure.
    pub(crate) fingerprint: u64,
    /// Whether it has a sequence or map of elements that take no bytes (`Vec<()>`): a forged number
    /// of them would be counted out, whatever the number of bytes.
    pub(crate) weightless: bool,
}

/// Shapes that a thread has at hand.
const AT_HAND: usize = 32;

/// What stands for a type: the address of its function below, and the place of its name.
type Place = (usize, usize, usize);

thread_local! {
    static RECENT: [Cell<Option<(Place, Shape)>>; AT_HAND] =
        const { [const { Cell::new(None) }; AT_HAND] };
}

/// The type's shape; recorded once per type and process.
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
    known.write().insert(id, shape);
    shape
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
    Shape { fingerprint: xxh3_64(recorder.trace()), weightless: recorder.has_weightless() }
}
