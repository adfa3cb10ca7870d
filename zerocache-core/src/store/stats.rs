//! Sizes and counters of a shard and of a store.

use super::slot::Class;

/// Event counters since the store was created.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Reads that found an unexpired value.
    pub hits: u64,
    /// Reads that found none.
    pub misses: u64,
    /// Entries dropped because they expired.
    pub expired: u64,
    /// Entries evicted for space.
    pub evicted: u64,
    /// Entries dropped because a purge ended them, and records that arrived after one.
    pub purged: u64,
    /// Records that stored a value.
    pub puts: u64,
    /// Records that deleted a key.
    pub deletes: u64,
    /// Records rejected because a newer version is known, or because they are older than the retention.
    pub rejected_old: u64,
    /// Values rejected because they exceed the byte budget.
    pub rejected_too_large: u64,
}

impl Counts {
    /// Adds the counters of another shard.
    pub fn add(&mut self, other: &Self) {
        self.hits += other.hits;
        self.misses += other.misses;
        self.expired += other.expired;
        self.evicted += other.evicted;
        self.purged += other.purged;
        self.puts += other.puts;
        self.deletes += other.deletes;
        self.rejected_old += other.rejected_old;
        self.rejected_too_large += other.rejected_too_large;
    }
}

/// Sizes and counters of a store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Entries held, without those of purges. Some may have expired since the last sweep.
    pub entries: u64,
    /// Bytes charged for entries and tombstones.
    pub bytes: u64,
    /// Tombstones held.
    pub tombstones: u64,
    /// Targets with purges, such as tags.
    pub purges: u64,
    /// Event counters.
    pub counts: Counts,
}

/// The sizes of a shard, by class. The bounds of the store apply to their sums.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Entries, by class.
    pub entries: [u64; Class::COUNT],
    /// Weights of the entries in bytes, by class.
    pub bytes: [u64; Class::COUNT],
    /// Tombstones.
    pub tombstones: u64,
    /// Weights of the entries that leave for the disk, in bytes.
    pub leaving: u64,
}

impl Usage {
    /// Adds an entry.
    pub fn add(&mut self, class: Class, weight: u64) {
        self.entries[class as usize] += 1;
        self.bytes[class as usize] += weight;
    }

    /// Removes an entry.
    pub fn remove(&mut self, class: Class, weight: u64) {
        self.entries[class as usize] -= 1;
        self.bytes[class as usize] -= weight;
    }
}
