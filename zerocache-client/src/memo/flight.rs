//! One computation per key at a time.
//!
//! The first caller of a key leads: it computes inside its own future, so that nothing has to be
//! `'static`. The others wait for what it publishes. A leader that is cancelled or panics drops
//! its [`Lead`], and one of those who wait leads next. A leader that has published stays in the
//! table until its value is stored, so that nobody computes in between. A leader that computes anew
//! what may still be served shows that to the others, who then do not wait.
//!
//! Some compute aside: after a wait that was too long, on a blocked thread, by request. Nobody joins
//! them, but they are known here too, so that a delete reaches them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;
use xxhash_rust::xxh3::xxh3_64;

use super::rule::Shared;
use super::stored::{Form, Stored};

/// Parts of the table, so that hits of different keys do not meet at one lock.
const PARTS: usize = 16;

type Place = (u64, Bytes);

/// The computations of some of the keys.
#[derive(Default)]
struct Part {
    led: HashMap<Place, Flight>,
    /// Those aside, with how many of a key share the flag.
    aside: HashMap<Place, (Void, usize)>,
}

static TABLE: LazyLock<[Mutex<Part>; PARTS]> = LazyLock::new(Default::default);
static NEXT: AtomicU64 = AtomicU64::new(0);

/// What a leader has to say to the others.
#[derive(Clone)]
pub(crate) enum Progress {
    /// It looks into the cache.
    Looking,
    /// It computes. Until it is done the others may serve this, as far as its age permits.
    Computing(Stored),
    /// The stored form of the value.
    Value(Form),
    /// The stored form of a value past its time: computing it failed.
    Old(Form),
    /// An error that can be cloned.
    Failed(Shared),
    /// Nothing that can be shared; everyone computes at once.
    Nothing,
}

/// Whether a key was deleted or replaced since a computation of it began.
#[derive(Clone, Debug, Default)]
pub(crate) struct Void(Arc<AtomicBool>);

impl Void {
    fn set(&self) {
        self.0.store(true, Ordering::Release);
    }

    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// A computation under way.
struct Flight {
    number: u64,
    blocking: bool,
    progress: watch::Receiver<Progress>,
    void: Void,
}

/// What a caller is to do.
pub(crate) enum Joined {
    Lead(Lead),
    Wait(watch::Receiver<Progress>),
    /// Computes without asking anyone: a blocking caller must not wait for a leader that may need
    /// this very thread to go on.
    Alone,
}

/// The right and duty to publish.
pub(crate) struct Lead {
    group: u64,
    key: Bytes,
    number: u64,
    sender: watch::Sender<Progress>,
    void: Void,
}

/// A computation that nobody joins.
pub(crate) struct Aside {
    group: u64,
    key: Bytes,
    void: Void,
}

fn part(key: &Bytes) -> &'static Mutex<Part> {
    // The modulus keeps the index below PARTS.
    &TABLE[(xxh3_64(key) % PARTS as u64) as usize]
}

/// Joins the computation of a key, or starts one. `group` tells clusters apart.
pub(crate) fn join(group: u64, key: &Bytes, blocking: bool) -> Joined {
    let mut part = part(key).lock();
    let entry = (group, key.clone());
    if let Some(flight) = part.led.get(&entry) {
        if blocking && !flight.blocking {
            return Joined::Alone;
        }
        return Joined::Wait(flight.progress.clone());
    }
    let (sender, progress) = watch::channel(Progress::Looking);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let void = Void::default();
    part.led.insert(entry, Flight { number, blocking, progress, void: void.clone() });
    Joined::Lead(Lead { group, key: key.clone(), number, sender, void })
}

/// Begins a computation aside.
pub(crate) fn aside(group: u64, key: &Bytes) -> Aside {
    let mut part = part(key).lock();
    let (void, count) = part.aside.entry((group, key.clone())).or_default();
    *count += 1;
    Aside { group, key: key.clone(), void: void.clone() }
}

/// Makes the computations under way ones that are not stored and that no new caller joins; for a key
/// that is being deleted or replaced.
pub(crate) fn void(group: u64, key: &Bytes) {
    let entry = (group, key.clone());
    let (flight, aside) = {
        let mut part = part(key).lock();
        (part.led.remove(&entry), part.aside.remove(&entry))
    };
    if let Some(flight) = flight {
        flight.void.set();
    }
    if let Some((void, _)) = aside {
        void.set();
    }
}

impl Aside {
    pub(crate) fn void(&self) -> &Void {
        &self.void
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        let entry = (self.group, self.key.clone());
        let mut part = part(&self.key).lock();
        // Voided, and perhaps followed by others, it is not there any more.
        if let Some((void, count)) = part.aside.get_mut(&entry)
            && Arc::ptr_eq(&void.0, &self.void.0)
        {
            *count -= 1;
            if *count == 0 {
                part.aside.remove(&entry);
            }
        }
    }
}

impl Lead {
    pub(crate) fn publish(&self, progress: Progress) {
        self.sender.send_replace(progress);
    }

    pub(crate) fn void(&self) -> &Void {
        &self.void
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        let entry = (self.group, self.key.clone());
        let mut part = part(&self.key).lock();
        let removed = match part.led.get(&entry) {
            Some(flight) if flight.number == self.number => part.led.remove(&entry),
            // Voided, and perhaps replaced by another one.
            _ => None,
        };
        drop(part);
        // The sender goes after the entry: who wakes up finds the place free.
        drop(removed);
    }
}
