//! What a thread looked up lately: the next look needs neither a lock nor a count of references.
//!
//! A slot has an entry and the mark that its key had before the entry was looked up. Whoever removes or
//! replaces an entry changes the mark of its key, so that no thread uses its slot any more; whoever
//! empties the near cache begins an epoch, which no slot has. So a slot that agrees has what the
//! storage would give.

use std::{
    cell::{Cell, RefCell},
    sync::{
        Arc,
        atomic::{
            AtomicU32,
            Ordering::{Acquire, Release},
        },
    },
};

use super::held::Held;

/// Marks of a near cache; keys share them. At 100,000 writes in a second each changes 24 times.
const MARKS: usize = 4_096;

/// Sets of a thread's slots: 32 KiB.
const SETS: usize = 512;

/// Slots of a set, in one cache line.
const WAYS: usize = 4;

/// After so many looks the storage is asked once more, so that it takes the entry for one in use.
const LOOKS: u16 = 64;

/// Where no slot is free one of so many entries takes one. What is in use gets one soon, and a thread that
/// goes through more entries than it has slots for does not pay for an exchange each time.
const EXCHANGED: usize = 8;

/// Entries that take more than this many bytes stay out. With all slots in use, a thread keeps at most
/// 1 MiB of entries that the storage has let go.
const ENTRY_BYTES_MAX: u64 = 512;

/// What changes with what is held.
pub(super) struct Marks(Box<[AtomicU32]>);

impl Default for Marks {
    fn default() -> Self {
        Self((0..MARKS).map(|_| AtomicU32::new(0)).collect())
    }
}

impl Marks {
    /// The mark of the key with this hash; read before the entry is looked up.
    #[inline]
    pub(super) fn of(&self, hash: u64) -> u32 {
        self.0[place(hash)].load(Acquire)
    }

    /// What is held of this key has changed; said after it has.
    pub(super) fn change(&self, hash: u64) {
        self.0[place(hash)].fetch_add(1, Release);
    }
}

#[inline]
fn place(hash: u64) -> usize {
    // The modulus is below MARKS.
    (hash >> 32) as usize % MARKS
}

#[derive(Default)]
struct Slot {
    held: Option<Arc<Held>>,
    mark: u32,
    tag: u16,
    /// Looks since the storage was asked.
    looks: Cell<u16>,
}

#[derive(Default)]
#[repr(align(64))]
struct Set([Slot; WAYS]);

impl Set {
    /// The way with this tag. All are compared: which one it is cannot be predicted.
    #[inline]
    fn way(&self, tag: u16) -> Option<usize> {
        let same = self.0.iter().enumerate().map(|(way, slot)| usize::from(slot.tag == tag) << way);
        let ways: usize = same.sum();
        (ways != 0).then_some(ways.trailing_zeros() as usize)
    }
}

/// The slots of a thread, which come with the first entry.
#[derive(Default)]
struct Front {
    sets: Vec<Set>,
    /// Entries so far that found no slot free.
    crowded: usize,
}

thread_local! {
    static FRONT: RefCell<Front> = const { RefCell::new(Front { sets: Vec::new(), crowded: 0 }) };
}

/// What tells the keys of a set apart, mostly; never that of an empty slot.
#[inline]
fn tag(hash: u64) -> u16 {
    (hash >> 48) as u16 | 1
}

#[inline]
fn set(hash: u64) -> usize {
    // The modulus is below SETS.
    hash as usize % SETS
}

/// Runs `use_it` with the entry that this thread has for this hash and mark. It may run what uses
/// the front itself.
#[inline]
pub(super) fn with<R>(hash: u64, mark: u32, use_it: impl FnOnce(&Held) -> Option<R>) -> Option<R> {
    let look = |front: &RefCell<Front>| {
        let front = front.try_borrow().ok()?;
        let set = front.sets.get(set(hash))?;
        let slot = set.0.get(set.way(tag(hash))?)?;
        let looks = slot.looks.get();
        if slot.mark != mark || looks >= LOOKS {
            return None;
        }
        slot.looks.set(looks + 1);
        use_it(slot.held.as_deref()?)
    };
    // A thread that is being torn down has none.
    FRONT.try_with(look).ok().flatten()
}

/// Has this thread find `held`, which was looked up after the mark was read.
pub(super) fn keep(hash: u64, mark: u32, held: &Arc<Held>) {
    if held.weight() > ENTRY_BYTES_MAX {
        return;
    }
    let _ = FRONT.try_with(|front| {
        // Who looks now is in the midst of another look.
        let Ok(mut front) = front.try_borrow_mut() else { return };
        if front.sets.is_empty() {
            front.sets.resize_with(SETS, Set::default);
        }
        let Front { sets, crowded } = &mut *front;
        let Some(set) = sets.get_mut(set(hash)) else { return };
        let free = || set.0.iter().position(|slot| slot.held.is_none());
        let way = set.way(tag(hash)).or_else(free).or_else(|| {
            *crowded = crowded.wrapping_add(1);
            crowded.is_multiple_of(EXCHANGED).then_some(*crowded / EXCHANGED % WAYS)
        });
        let Some(slot) = way.and_then(|way| set.0.get_mut(way)) else { return };
        let held = Some(Arc::clone(held));
        *slot = Slot { held, mark, tag: tag(hash), looks: Cell::new(0) };
    });
}
