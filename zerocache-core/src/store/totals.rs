//! Figures over all shards, by which eviction decides without taking locks.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use super::{
    backend::Pages,
    ghosts::GENERATIONS,
    shard::Shard,
    slot::{Class, TICK_BITS},
    stats::Usage,
    tombstones::TOMBSTONE_BYTES,
};
use crate::{key::SHARDS, time::Instant};

/// Marks a class without entries in `oldest`.
const NONE: u64 = u64::MAX;

/// The sizes of all shards together, and for each shard the ages of its eviction candidates.
///
/// On cache lines of its own: a read touches none of it.
#[derive(Debug)]
#[repr(align(128))]
pub struct Totals {
    entries: [AtomicU64; Class::COUNT],
    bytes: [AtomicU64; Class::COUNT],
    tombstones: AtomicU64,
    leaving: AtomicU64,
    tick: AtomicU64,
    cold_tick: AtomicU64,
    generation: AtomicU32,
    /// The progress of the generation: it is complete at the number of entries.
    progress: AtomicU64,
    oldest: [[AtomicU64; SHARDS]; Class::COUNT],
    first_expiry: [AtomicU64; SHARDS],
}

impl Default for Totals {
    fn default() -> Self {
        let none = || core::array::from_fn(|_| AtomicU64::new(NONE));
        Self {
            entries: Default::default(),
            bytes: Default::default(),
            tombstones: AtomicU64::new(0),
            leaving: AtomicU64::new(0),
            tick: AtomicU64::new(0),
            cold_tick: AtomicU64::new(u64::MAX),
            generation: AtomicU32::new(0),
            progress: AtomicU64::new(0),
            oldest: core::array::from_fn(|_| none()),
            first_expiry: none(),
        }
    }
}

impl Totals {
    /// Returns a number above all earlier ones, apart from wrapping around.
    pub fn next_tick(&self) -> u64 {
        self.tick.fetch_add(1, Relaxed)
    }

    /// Returns a number below all earlier ones, for an entry that is evicted before all others.
    pub fn next_cold_tick(&self) -> u64 {
        self.cold_tick.fetch_sub(1, Relaxed)
    }

    /// Returns the current tick.
    pub fn tick(&self) -> u64 {
        self.tick.load(Relaxed)
    }

    /// Returns the generation of [ghosts](super::ghosts::Ghosts).
    pub fn generation(&self) -> u32 {
        self.generation.load(Relaxed)
    }

    /// Counts an entry that is evicted unread, and returns its generation: so many make one that as many as there
    /// are entries make [`GENERATIONS`].
    pub fn count_ghost(&self) -> u32 {
        let entries = self.entry_count().max(GENERATIONS);
        let after = |before: u64| before + GENERATIONS;
        let next = |before| Some(after(before).checked_sub(entries).unwrap_or(after(before)));
        let (Ok(before) | Err(before)) = self.progress.fetch_update(Relaxed, Relaxed, next);
        if after(before) >= entries {
            self.generation.fetch_add(1, Relaxed);
        }
        self.generation()
    }

    /// Applies the changes of a shard since `before`.
    pub fn update<P: Pages>(&self, index: usize, before: Usage, shard: &Shard<P>) {
        let after = shard.usage();
        for class in Class::IN_MEMORY {
            self.update_class(index, class, (before, after), shard);
        }
        if shard.has_disk() {
            self.update_class(index, Class::Disk, (before, after), shard);
            shift(&self.leaving, before.leaving, after.leaving);
        }
        shift(&self.tombstones, before.tombstones, after.tombstones);
        set(&self.first_expiry[index], shard.first_expiry());
    }

    #[inline]
    fn update_class<P: Pages>(
        &self,
        index: usize,
        class: Class,
        (before, after): (Usage, Usage),
        shard: &Shard<P>,
    ) {
        let at = class as usize;
        shift(&self.entries[at], before.entries[at], after.entries[at]);
        shift(&self.bytes[at], before.bytes[at], after.bytes[at]);
        set(&self.oldest[at][index], shard.oldest_tick(class).unwrap_or(NONE));
    }

    /// Returns the shard whose oldest entry of a class has been in its queue for the longest time.
    pub fn oldest(&self, class: Class) -> Option<usize> {
        let now = self.tick.load(Relaxed);
        let mut best = (0, None);
        for (index, oldest) in self.oldest[class as usize].iter().enumerate() {
            let tick = oldest.load(Relaxed);
            let age = age(now, tick);
            if tick != NONE && (best.1.is_none() || age > best.0) {
                best = (age, Some(index));
            }
        }
        best.1
    }

    /// Iterates over the shards that may have entries that are expired at `now`.
    pub fn shards_expired_by(&self, now: Instant) -> impl Iterator<Item = usize> {
        let is_due = move |(index, first): (usize, &AtomicU64)| {
            (first.load(Relaxed) <= now.as_millis()).then_some(index)
        };
        self.first_expiry.iter().enumerate().filter_map(is_due)
    }

    /// Returns the weight of the entries that leave for the disk, in bytes.
    pub fn leaving(&self) -> u64 {
        self.leaving.load(Relaxed)
    }

    /// Returns the number of entries with values in memory, without the reserved ones and those that leave for the
    /// disk.
    pub fn entry_count(&self) -> u64 {
        self.entries_of(Class::Unread) + self.entries_of(Class::Read)
    }

    /// Returns the number of entries of a class in all shards.
    pub fn entries_of(&self, class: Class) -> u64 {
        self.entries[class as usize].load(Relaxed)
    }

    /// Returns the weight of the entries of a class in all shards, in bytes.
    pub fn bytes_of(&self, class: Class) -> u64 {
        self.bytes[class as usize].load(Relaxed)
    }

    /// Returns the bytes charged for entries and tombstones in all shards.
    pub fn bytes(&self) -> u64 {
        let entries: u64 = self.bytes.iter().map(|of_class| of_class.load(Relaxed)).sum();
        entries + self.tombstones.load(Relaxed) * TOMBSTONE_BYTES
    }

    /// Panics unless the figures of a shard equal its own, and adds its usage to `all`.
    #[cfg(test)]
    pub fn check_shard<P: Pages>(&self, index: usize, shard: &Shard<P>, all: &mut Usage) {
        let usage = shard.usage();
        for class in Class::ALL {
            let at = class as usize;
            all.entries[at] += usage.entries[at];
            all.bytes[at] += usage.bytes[at];
            let oldest = self.oldest[at][index].load(Relaxed);
            assert_eq!(oldest, shard.oldest_tick(class).unwrap_or(NONE));
        }
        all.tombstones += usage.tombstones;
        all.leaving += usage.leaving;
        assert_eq!(self.first_expiry[index].load(Relaxed), shard.first_expiry());
    }

    /// Panics unless the totals equal `all`.
    #[cfg(test)]
    pub fn check(&self, all: &Usage) {
        let load = |all: &[AtomicU64; Class::COUNT]| all.each_ref().map(|one| one.load(Relaxed));
        let tombstones = self.tombstones.load(Relaxed);
        let leaving = self.leaving();
        let (entries, bytes) = (load(&self.entries), load(&self.bytes));
        let totals = Usage { entries, bytes, tombstones, leaving };
        assert_eq!(totals, *all);
    }
}

/// Returns how many ticks ago a tick was drawn, given [`TICK_BITS`] of it. Cold ticks count as drawn long ago.
pub const fn age(now: u64, tick: u64) -> u64 {
    now.wrapping_sub(tick) & ((1 << TICK_BITS) - 1)
}

fn shift(total: &AtomicU64, before: u64, after: u64) {
    match after.cmp(&before) {
        core::cmp::Ordering::Greater => drop(total.fetch_add(after - before, Relaxed)),
        core::cmp::Ordering::Less => drop(total.fetch_sub(before - after, Relaxed)),
        core::cmp::Ordering::Equal => {}
    }
}

/// Writes a figure only if it changes, so that an unchanged cache line stays shared. The caller holds the
/// lock of the shard that the figure belongs to.
fn set(figure: &AtomicU64, value: u64) {
    if figure.load(Relaxed) != value {
        figure.store(value, Relaxed);
    }
}
