//! Figures: what a part or a store holds, and what happened in it.

/// What happened in a part since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Reads that found an unexpired value.
    pub hits: u64,
    /// Reads that found none.
    pub misses: u64,
    /// Entries dropped because their time had come.
    pub expired: u64,
    /// Entries dropped for space.
    pub evicted: u64,
    /// Records that put a value in force.
    pub puts: u64,
    /// Records that put a delete in force.
    pub deletes: u64,
    /// Records that lost to a newer version, or were too old for an unknown key.
    pub outdated: u64,
    /// Values that a replica could not keep because they exceed its budget.
    pub unkept: u64,
}

impl Counts {
    /// Adds the counts of another part.
    pub fn add(&mut self, other: &Self) {
        self.hits += other.hits;
        self.misses += other.misses;
        self.expired += other.expired;
        self.evicted += other.evicted;
        self.puts += other.puts;
        self.deletes += other.deletes;
        self.outdated += other.outdated;
        self.unkept += other.unkept;
    }
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

/// What a part holds, by class: the figures that the store's bounds are about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Entries, unread and read.
    pub entries: [u64; 2],
    /// Their weights, unread and read.
    pub bytes: [u64; 2],
    /// Traces.
    pub traces: u64,
}
