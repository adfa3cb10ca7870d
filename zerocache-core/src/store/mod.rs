//! The TLRU store: time-aware, bounded by entries and by bytes, in 64 parts.
//!
//! Invariants: what is held never exceeds the capacity once a call returns (single-threaded; with
//! concurrent writers, by at most what they are adding); an expired value is never returned; the
//! version known of a key never goes back while its trace is kept.
//!
//! When space is needed, expired entries go first, then the oldest one among those never read here,
//! and only when those hold no more than an eighth of the budget one of those that were read,
//! approximately the least recently used: they stand in the order of their first reading, and whoever
//! was read again when its turn comes goes to the end instead. The eighth lets new entries live long
//! enough to be read.
//!
//! A hit takes one lock and writes nothing that other parts see; only the first hit of an entry moves
//! it between the two queues. Shared counters are written when entries come, move or go.

mod agenda;
mod chunks;
mod entries;
mod held;
mod known;
#[cfg(test)]
mod known_tests;
mod lock;
mod log;
#[cfg(test)]
mod model;
mod part;
mod room;
mod slot;
mod sums;
mod table_key;
#[cfg(test)]
mod tests;
mod traces;
mod variant;

use alloc::boxed::Box;

#[cfg(feature = "variants")]
pub use self::variant::StoreVariant;
pub(crate) use self::variant::StoreVariant as Broken;
pub use self::{
    held::{Counts, Stats},
    known::{Known, Page, Place, Row, RowsLeft, Stretch},
    lock::{Lock, LockFamily, Pages, SingleThread},
    slot::{ENTRY_OVERHEAD_BYTES, EntryRef},
    traces::TRACE_BYTES,
};
use self::{
    part::{Found, Part},
    room::Totals,
    slot::Sizes,
    table_key::TableKey,
    traces::DROPPED_MAX,
    variant::Breakage,
};
use crate::{
    entry::{Applied, Entry, Lookup, Record},
    key::{Key, KeyHash, PARTS},
    time::Now,
    version::Version,
};

/// How long a trace is kept when there is room: one hour, in milliseconds.
pub const RETENTION_MS: u64 = 3_600_000;

/// Traces may take at most this fraction of the byte budget (1/16).
const TRACE_BUDGET_FRACTION: u64 = 16;

/// The bounds of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Most entries; `u64::MAX` for no bound.
    pub entries_max: u64,
    /// Most bytes, entries (with their overhead) and traces together.
    pub bytes_max: u64,
}

/// The store of a node, shared by reference.
pub struct Store<L: LockFamily> {
    parts: Box<[PartCell<L>]>,
    capacity: Capacity,
    retention_ms: u64,
    totals: Totals,
    breakage: Breakage,
}

/// A part on cache lines of its own, so that neighbours do not slow each other down.
#[repr(align(128))]
struct PartCell<L: LockFamily>(L::Lock<Part<L::Pages>>);

impl<L: LockFamily> Store<L> {
    /// An empty store whose tables anybody can reckon: where all that write are trusted.
    #[must_use]
    pub fn new(capacity: Capacity) -> Self {
        Self::with_table_key(capacity, TableKey::default())
    }

    /// An empty store whose tables place keys by `secrets`, random numbers of this process. They change
    /// nothing that others see.
    #[must_use]
    pub fn keyed(capacity: Capacity, secrets: [u64; 2]) -> Self {
        Self::with_table_key(capacity, TableKey::new(secrets))
    }

    fn with_table_key(capacity: Capacity, table_key: TableKey) -> Self {
        let traces_max = capacity.bytes_max / TRACE_BUDGET_FRACTION / TRACE_BYTES / PARTS as u64;
        let traces_max = usize::try_from(traces_max).unwrap_or(usize::MAX);
        Self::with_traces(capacity, traces_max, table_key)
    }

    /// An empty store with room for `traces_max` traces in each part.
    fn with_traces(capacity: Capacity, traces_max: usize, table_key: TableKey) -> Self {
        let cell = || PartCell(L::Lock::new(Part::new(capacity.bytes_max, traces_max, table_key)));
        Self {
            parts: (0..PARTS).map(|_| cell()).collect(),
            capacity,
            retention_ms: RETENTION_MS,
            totals: Totals::default(),
            breakage: Breakage::default(),
        }
    }

    /// The same store, broken on purpose.
    #[cfg(feature = "variants")]
    #[must_use]
    pub fn broken(mut self, variant: Option<StoreVariant>) -> Self {
        self.breakage = Breakage::new(variant);
        for index in 0..PARTS {
            self.part(index).with(|part| part.break_on_purpose(self.breakage));
        }
        self
    }

    /// Whether its node finds out that it has missed too much.
    pub(crate) fn is_ever_outdated(&self) -> bool {
        !self.is_broken(Broken::NeverOutdated)
    }

    /// Whether this is broken on purpose.
    #[inline]
    pub(crate) fn is_broken(&self, what: Broken) -> bool {
        self.breakage.is(what)
    }

    /// The same store with another longest time for traces, in milliseconds, instead of
    /// [`RETENTION_MS`].
    #[must_use]
    pub fn with_retention(mut self, retention_ms: u64) -> Self {
        self.retention_ms = retention_ms;
        self
    }

    /// Reads a key where its entry lies: `hit` runs under the lock of a part and must not use the
    /// store. A hit counts as a use.
    pub fn read<R>(&self, key: &[u8], now: Now, hit: impl FnOnce(EntryRef<'_>) -> R) -> Option<R> {
        let hash = KeyHash::of(key);
        self.part(hash.part()).with(|part| match part.find(hash, key, now.mono) {
            Found::Read(place) => Some(hit(part.serve(place).entry())),
            Found::Unread(place) => {
                let tick = self.totals.next_tick();
                self.settled(hash.part(), part, |part| part.serve_first(place, tick));
                Some(hit(part.slot(place).entry()))
            }
            Found::Expired(place) => {
                self.settled(hash.part(), part, |part| part.miss(Some(place)));
                None
            }
            Found::Nothing => {
                part.miss(None);
                None
            }
        })
    }

    /// Reads a key; a hit counts as a use.
    pub fn get(&self, key: &Key, now: Now) -> Lookup {
        self.read(key.as_bytes(), now, |entry| entry.to_entry()).map_or(Lookup::Miss, Lookup::Hit)
    }

    /// Looks at a key without counting a read or a use.
    pub fn peek(&self, key: &Key, now: Now) -> Option<Entry> {
        let hash = key.hash();
        self.part(hash.part()).with(|part| {
            part.peek(hash, key.as_bytes(), now.mono).map(|slot| slot.entry().to_entry())
        })
    }

    /// The version known of a key, be it of a value or of a trace.
    pub fn version(&self, hash: KeyHash) -> Option<Version> {
        self.part(hash.part()).with(|part| part.version(hash))
    }

    /// Merges a record, then makes room.
    ///
    /// Merging is idempotent and commutative: the same records in any order leave the same versions.
    pub fn apply(&self, record: &Record, now: Now) -> Applied {
        let (hash, tick) = (record.key.hash(), self.totals.next_tick());
        let applied = self.change(hash.part(), |part| {
            part.raise_trace_floor(self.floor_ms(now), DROPPED_MAX);
            part.apply(hash, record, now, tick)
        });
        self.make_room(now.mono);
        applied
    }

    /// Drops at most `most` expired entries and traces past the retention; returns how many went. Fewer
    /// than `most` are all. For a timer, so that memory is returned without reads.
    pub fn sweep(&self, now: Now, most: usize) -> usize {
        let floor_ms = self.floor_ms(now);
        let mut dropped = 0;
        for index in 0..PARTS {
            let left = most - dropped;
            dropped += self.change(index, |part| part.raise_trace_floor(floor_ms, left));
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
        Sizes::of(self.capacity.bytes_max).weight_of(payload_bytes) <= self.capacity.bytes_max
            && self.capacity.entries_max > 0
    }

    /// About how many entries are held; takes no lock.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.totals.count()
    }

    /// What is held and what happened. Takes every lock once, one after the other.
    pub fn stats(&self) -> Stats {
        let mut stats = Stats::default();
        for index in 0..PARTS {
            let (held, counts) = self.part(index).with(|part| (part.held(), *part.counts()));
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
        let floors =
            (0..PARTS).map(|index| self.part(index).with(|part| part.forgotten().wall_ms()));
        now.wall_ms.saturating_sub(floors.max().unwrap_or(0)).min(self.retention_ms)
    }

    /// Traces up to here have been kept for long enough.
    fn floor_ms(&self, now: Now) -> u64 {
        now.wall_ms.saturating_sub(self.retention_ms)
    }

    fn part(&self, index: usize) -> &L::Lock<Part<L::Pages>> {
        &self.parts[index].0
    }

    /// Runs `f` under a part's lock and brings the figures outside of it up to date.
    fn change<R>(&self, index: usize, f: impl FnOnce(&mut Part<L::Pages>) -> R) -> R {
        self.part(index).with(|part| self.settled(index, part, f))
    }

    /// Runs `f` on a part that is locked and brings the figures outside of it up to date.
    fn settled<R>(
        &self,
        index: usize,
        part: &mut Part<L::Pages>,
        f: impl FnOnce(&mut Part<L::Pages>) -> R,
    ) -> R {
        let before = part.held();
        let result = f(part);
        self.totals.settle(index, before, part);
        result
    }
}
