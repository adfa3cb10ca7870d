//! The TLRU store: time-aware, bounded by entries and by bytes, in 64 parts.
//!
//! Invariants: what is held never exceeds the capacity once a call returns (single-threaded; with
//! concurrent writers, by at most what they are adding); an expired value is never returned; the
//! version known of a key never goes back while its trace is kept.
//!
//! When space is needed, expired entries go first, then the least recently used one among those
//! never read here, and only when those hold no more than an eighth of the budget the least
//! recently used one overall. The eighth lets new entries live long enough to be read.

mod agenda;
mod lock;
mod order;
mod part;
mod slot;
#[cfg(test)]
mod tests;
mod traces;

use alloc::boxed::Box;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use self::part::Part;
pub use self::{
    lock::{Lock, LockFamily, SingleThread},
    order::{Class, EvictionOrder, LruOrder},
    part::{Counts, Held},
    slot::{ENTRY_OVERHEAD_BYTES, Slot},
    traces::TRACE_BYTES,
};
use crate::{
    entry::{Applied, Entry, Lookup, Record},
    key::{Key, KeyHash, PARTS},
    time::{Instant, Now},
    version::Version,
};

/// How long a trace is kept when there is room: one hour, in milliseconds.
pub const RETENTION_MS: u64 = 3_600_000;

/// Traces may take at most this fraction of the byte budget (1/16).
const TRACE_BUDGET_FRACTION: u64 = 16;

/// The unread entries keep at least this fraction of the budget (1/8).
const UNREAD_FRACTION: u64 = 8;

/// Marks a class without entries in the table of victims.
const NONE: u64 = u64::MAX;

/// The bounds of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Most entries; `u64::MAX` for no bound.
    pub entries_max: u64,
    /// Most bytes, entries (with their overhead) and traces together.
    pub bytes_max: u64,
}

/// What a store holds and what happened in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Entries held, some of which may have expired since the last sweep.
    pub entries: u64,
    /// Bytes charged for entries and traces.
    pub bytes: u64,
    /// Traces held.
    pub traces: u64,
    /// What happened since the store was made.
    pub counts: Counts,
}

/// The store of a node, shared by reference.
pub struct Store<L: LockFamily, O: EvictionOrder = LruOrder> {
    parts: Box<[PartCell<L, O>]>,
    capacity: Capacity,
    tick: AtomicU64,
    entries: [AtomicU64; 2],
    bytes: [AtomicU64; 2],
    traces: AtomicU64,
}

/// A part with what others may look at without its lock.
struct PartCell<L: LockFamily, O> {
    part: L::Lock<Part<O>>,
    coldest: [AtomicU64; 2],
    first_due: AtomicU64,
}

impl<L: LockFamily, O: EvictionOrder> Store<L, O> {
    /// An empty store.
    #[must_use]
    pub fn new(capacity: Capacity) -> Self {
        let traces_max = capacity.bytes_max / TRACE_BUDGET_FRACTION / TRACE_BYTES / PARTS as u64;
        Self::with_traces(capacity, usize::try_from(traces_max).unwrap_or(usize::MAX))
    }

    /// An empty store with room for `traces_max` traces in each part.
    fn with_traces(capacity: Capacity, traces_max: usize) -> Self {
        let cell = || PartCell {
            part: L::Lock::new(Part::new(capacity.bytes_max, traces_max)),
            coldest: [AtomicU64::new(NONE), AtomicU64::new(NONE)],
            first_due: AtomicU64::new(NONE),
        };
        Self {
            parts: (0..PARTS).map(|_| cell()).collect(),
            capacity,
            tick: AtomicU64::new(0),
            entries: Default::default(),
            bytes: Default::default(),
            traces: AtomicU64::new(0),
        }
    }

    /// Reads a key; a hit counts as a use.
    pub fn get(&self, key: &Key, now: Now) -> Lookup {
        let (hash, tick) = (key.hash(), self.next_tick());
        self.in_part(hash, |part| part.get(hash, key.as_bytes(), now, tick))
            .map_or(Lookup::Miss, Lookup::Hit)
    }

    /// Looks at a key without counting a read or a use.
    pub fn peek(&self, key: &Key, now: Now) -> Option<Entry> {
        let hash = key.hash();
        self.cell(hash).part.with(|part| part.peek(hash, key.as_bytes(), now.mono))
    }

    /// The version known of a key, be it of a value or of a trace.
    pub fn version(&self, hash: KeyHash) -> Option<Version> {
        self.cell(hash).part.with(|part| part.version(hash))
    }

    /// Merges a record, then makes room.
    ///
    /// Merging is idempotent and commutative: the same records in any order leave the same versions.
    pub fn apply(&self, record: &Record, now: Now) -> Applied {
        let (hash, tick) = (record.key.hash(), self.next_tick());
        let applied = self.in_part(hash, |part| {
            part.raise_trace_floor(now.wall_ms.saturating_sub(RETENTION_MS));
            part.apply(hash, record, now, tick)
        });
        self.make_room(now.mono);
        applied
    }

    /// Drops at most `most` expired entries, and traces past the retention; returns how many
    /// entries went. For a timer, so that memory is returned without reads.
    pub fn sweep(&self, now: Now, most: usize) -> usize {
        let floor_ms = now.wall_ms.saturating_sub(RETENTION_MS);
        let mut dropped = 0;
        for index in 0..PARTS {
            self.in_cell(index, |part| part.raise_trace_floor(floor_ms));
            while dropped < most && self.expire_in(index, now.mono) {
                dropped += 1;
            }
        }
        dropped
    }

    /// The bounds.
    #[must_use]
    pub fn capacity(&self) -> Capacity {
        self.capacity
    }

    /// Whether an entry with this much key, value and metadata can be kept at all.
    #[must_use]
    pub fn can_keep(&self, payload_bytes: usize) -> bool {
        Slot::weight_of(payload_bytes) <= self.capacity.bytes_max && self.capacity.entries_max > 0
    }

    /// What is held and what happened. Takes every lock once, one after the other.
    pub fn stats(&self) -> Stats {
        let mut stats = Stats::default();
        for cell in &self.parts {
            let (held, counts) = cell.part.with(|part| (part.held(), *part.counts()));
            stats.entries += held.entries.iter().sum::<u64>();
            stats.bytes += held.bytes.iter().sum::<u64>() + held.traces * TRACE_BYTES;
            stats.traces += held.traces;
            stats.counts.add(&counts);
        }
        stats
    }

    /// How long traces are kept at the moment, in milliseconds: [`RETENTION_MS`], or less when
    /// they fill their share of the budget. The smallest of all parts.
    pub fn retention_ms(&self, now: Now) -> u64 {
        let floors = self.parts.iter().map(|cell| cell.part.with(|part| part.trace_floor_ms()));
        now.wall_ms.saturating_sub(floors.max().unwrap_or(0)).min(RETENTION_MS)
    }

    fn cell(&self, hash: KeyHash) -> &PartCell<L, O> {
        &self.parts[hash.part()]
    }

    fn next_tick(&self) -> u64 {
        self.tick.fetch_add(1, Relaxed)
    }

    fn in_part<R>(&self, hash: KeyHash, f: impl FnOnce(&mut Part<O>) -> R) -> R {
        self.in_cell(hash.part(), f)
    }

    /// Runs `f` under a part's lock and brings the figures outside of it up to date.
    fn in_cell<R>(&self, index: usize, f: impl FnOnce(&mut Part<O>) -> R) -> R {
        let cell = &self.parts[index];
        cell.part.with(|part| {
            let before = part.held();
            let result = f(part);
            let after = part.held();
            for class in Class::ALL {
                let class_index = class as usize;
                shift(
                    &self.entries[class_index],
                    before.entries[class_index],
                    after.entries[class_index],
                );
                shift(
                    &self.bytes[class_index],
                    before.bytes[class_index],
                    after.bytes[class_index],
                );
                cell.coldest[class_index].store(part.coldest(class).unwrap_or(NONE), Relaxed);
            }
            shift(&self.traces, before.traces, after.traces);
            cell.first_due.store(part.first_due().unwrap_or(NONE), Relaxed);
            result
        })
    }

    fn make_room(&self, now: Instant) {
        while let Some(over) = self.over() {
            if !self.expire_any(now) && !self.evict_any(over) {
                return;
            }
        }
    }

    /// Which bound is exceeded, if any.
    fn over(&self) -> Option<Over> {
        let sum = |both: &[AtomicU64; 2]| both[0].load(Relaxed) + both[1].load(Relaxed);
        if sum(&self.entries) > self.capacity.entries_max {
            return Some(Over::Entries);
        }
        let bytes = sum(&self.bytes) + self.traces.load(Relaxed) * TRACE_BYTES;
        // Traces alone cannot be evicted for entries' sake; they have a bound of their own.
        (bytes > self.capacity.bytes_max && sum(&self.entries) > 0).then_some(Over::Bytes)
    }

    fn expire_any(&self, now: Instant) -> bool {
        let due = |index: &usize| self.parts[*index].first_due.load(Relaxed) <= now.as_millis();
        (0..PARTS).filter(due).any(|index| self.expire_in(index, now))
    }

    fn expire_in(&self, index: usize, now: Instant) -> bool {
        self.in_cell(index, |part| part.expire_one(now))
    }

    fn evict_any(&self, over: Over) -> bool {
        let first = self.class_to_evict(over);
        let second = match first {
            Class::Unread => Class::Read,
            Class::Read => Class::Unread,
        };
        self.evict_from(first) || self.evict_from(second)
    }

    fn class_to_evict(&self, over: Over) -> Class {
        let unread_entries = self.entries[Class::Unread as usize].load(Relaxed);
        let (unread, budget) = match over {
            Over::Entries => (unread_entries, self.capacity.entries_max),
            Over::Bytes => {
                (self.bytes[Class::Unread as usize].load(Relaxed), self.capacity.bytes_max)
            }
        };
        // The one entry that was just stored is not the victim.
        if unread_entries > 1 && unread > budget / UNREAD_FRACTION {
            Class::Unread
        } else {
            Class::Read
        }
    }

    /// Evicts the coldest entry of a class over all parts.
    fn evict_from(&self, class: Class) -> bool {
        let coldest = |index: &usize| self.parts[*index].coldest[class as usize].load(Relaxed);
        let Some(index) = (0..PARTS).min_by_key(coldest) else {
            return false;
        };
        coldest(&index) != NONE && self.in_cell(index, |part| part.evict_one(class))
    }
}

/// The bound that is exceeded.
#[derive(Clone, Copy, Debug)]
enum Over {
    Entries,
    Bytes,
}

fn shift(total: &AtomicU64, before: u64, after: u64) {
    match after.cmp(&before) {
        core::cmp::Ordering::Greater => drop(total.fetch_add(after - before, Relaxed)),
        core::cmp::Ordering::Less => drop(total.fetch_sub(before - after, Relaxed)),
        core::cmp::Ordering::Equal => {}
    }
}
