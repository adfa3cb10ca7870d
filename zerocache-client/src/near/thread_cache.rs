//! The entries that a thread used recently: a further lookup needs neither a lock nor a reference count.
//!
//! A slot has an entry, and the mark that its key had before the entry was looked up. Removing or replacing an
//! entry changes the mark of its key, so that no thread uses its slot any more. Clearing the near cache begins
//! an epoch that no slot has. So a slot with the current mark and epoch has the entry of the storage.

use std::{
    cell::{Cell, RefCell},
    sync::{
        Arc,
        atomic::Ordering::{Acquire, Release},
    },
};

use super::{
    entry::NearEntry,
    sync::{AtomicU32, thread_local},
};

/// Marks of a near cache; keys share them. At 100,000 writes per second each changes 24 times per second.
const MARKS: usize = 4_096;

/// Sets of slots of a thread: 32 KiB.
const SETS: usize = 512;

/// Slots of a set, in one cache line.
const WAYS: usize = 4;

/// The uses of a slot after which the storage is read again, so that it sees the entry in use.
const USES_MAX: u16 = 64;

/// Without a free slot, one of this many entries replaces another one. Entries in use get a slot soon, and a
/// thread that uses more entries than it has slots does not pay for a replacement each time.
const REPLACE_ONE_OF: usize = 8;

/// The maximum size of an entry. With all slots in use, a thread keeps at most 1 MiB of entries that the storage
/// has evicted.
const ENTRY_BYTES_MAX: u64 = 512;

/// Numbers that change with the entries of their keys.
pub(super) struct Marks(Box<[AtomicU32]>);

impl Default for Marks {
    fn default() -> Self {
        Self((0..MARKS).map(|_| AtomicU32::new(0)).collect())
    }
}

impl Marks {
    /// Returns the mark of the key with this hash. It is read before the entry is looked up.
    #[inline]
    pub(super) fn of(&self, hash: u64) -> u32 {
        self.0[mark_of(hash)].load(Acquire)
    }

    /// Changes the mark, after the entry of the key has changed.
    pub(super) fn change(&self, hash: u64) {
        self.0[mark_of(hash)].fetch_add(1, Release);
    }

    /// Changes all marks, after entries of any keys have changed.
    pub(super) fn change_all(&self) {
        for mark in &self.0 {
            mark.fetch_add(1, Release);
        }
    }
}

#[inline]
fn mark_of(hash: u64) -> usize {
    // The modulus is below MARKS.
    (hash >> 32) as usize % MARKS
}

#[derive(Default)]
struct Slot {
    entry: Option<Arc<NearEntry>>,
    mark: u32,
    tag: u16,
    /// Uses since the storage was read.
    uses: Cell<u16>,
}

#[derive(Default)]
#[repr(align(64))]
struct Set([Slot; WAYS]);

impl Set {
    /// Returns the way with this tag. All ways are compared, because a branch would not be predictable.
    #[inline]
    fn way(&self, tag: u16) -> Option<usize> {
        let same = self.0.iter().enumerate().map(|(way, slot)| usize::from(slot.tag == tag) << way);
        let ways: usize = same.sum();
        (ways != 0).then_some(ways.trailing_zeros() as usize)
    }
}

/// The slots of a thread, which are allocated with the first entry.
#[derive(Default)]
struct ThreadCache {
    sets: Vec<Set>,
    /// Entries so far that found no free slot.
    without_slot: usize,
}

thread_local! {
    static THREAD_CACHE: RefCell<ThreadCache> = const { RefCell::new(ThreadCache { sets: Vec::new(), without_slot: 0 }) };
}

/// Returns the tag that distinguishes most keys of a set; never that of an empty slot.
#[inline]
fn tag(hash: u64) -> u16 {
    (hash >> 48) as u16 | 1
}

#[inline]
fn set(hash: u64) -> usize {
    // The modulus is below SETS.
    hash as usize % SETS
}

/// Runs `use_entry` with the thread's entry of this hash and mark. `use_entry` may itself use the near cache.
#[inline]
pub(super) fn with<R>(
    hash: u64,
    mark: u32,
    use_entry: impl FnOnce(&NearEntry) -> Option<R>,
) -> Option<R> {
    let find = |cache: &RefCell<ThreadCache>| {
        let cache = cache.try_borrow().ok()?;
        let set = cache.sets.get(set(hash))?;
        let slot = set.0.get(set.way(tag(hash))?)?;
        let uses = slot.uses.get();
        if slot.mark != mark || uses >= USES_MAX {
            return None;
        }
        slot.uses.set(uses + 1);
        use_entry(slot.entry.as_deref()?)
    };
    // A thread that is being torn down has none.
    THREAD_CACHE.try_with(find).ok().flatten()
}

/// Puts `entry`, which was looked up after the mark was read, into the thread's cache.
pub(super) fn insert(hash: u64, mark: u32, entry: &Arc<NearEntry>) {
    if entry.weight() > ENTRY_BYTES_MAX {
        return;
    }
    let _ = THREAD_CACHE.try_with(|cache| {
        // A lookup inside of `use_entry` finds the cache borrowed.
        let Ok(mut cache) = cache.try_borrow_mut() else { return };
        if cache.sets.is_empty() {
            cache.sets.resize_with(SETS, Set::default);
        }
        let ThreadCache { sets, without_slot } = &mut *cache;
        let Some(set) = sets.get_mut(set(hash)) else { return };
        let free = || set.0.iter().position(|slot| slot.entry.is_none());
        let way = set.way(tag(hash)).or_else(free).or_else(|| {
            *without_slot = without_slot.wrapping_add(1);
            without_slot
                .is_multiple_of(REPLACE_ONE_OF)
                .then_some(*without_slot / REPLACE_ONE_OF % WAYS)
        });
        let Some(slot) = way.and_then(|way| set.0.get_mut(way)) else { return };
        let entry = Some(Arc::clone(entry));
        *slot = Slot { entry, mark, tag: tag(hash), uses: Cell::new(0) };
    });
}
