//! One of the 64 parts of the store: what one lock guards.

use super::{
    agenda::Agenda,
    order::{Class, EvictionOrder},
    slot::Slot,
    traces::Traces,
};
use crate::{
    entry::{Applied, Change, Entry, Record},
    key::KeyHash,
    time::{Instant, Now},
    version::Version,
};

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

/// Slots, the order of their expiries, and traces of one part of the key space.
pub struct Part<O> {
    order: O,
    due: Agenda,
    traces: Traces,
    held: Held,
    counts: Counts,
    weight_max: u64,
}

impl<O: EvictionOrder> Part<O> {
    /// An empty part that keeps no value heavier than `weight_max` and at most `traces_max` traces.
    #[must_use]
    pub fn new(weight_max: u64, traces_max: usize) -> Self {
        Self {
            order: O::default(),
            due: Agenda::default(),
            traces: Traces::new(traces_max),
            held: Held::default(),
            counts: Counts::default(),
            weight_max,
        }
    }

    /// Reads `key`; a hit counts as a use at `tick`.
    pub fn get(&mut self, hash: KeyHash, key: &[u8], now: Now, tick: u64) -> Option<Entry> {
        match self.order.peek(hash) {
            Some(slot) if slot.is_expired(now.mono) => self.expire(hash),
            Some(slot) if slot.key() == key => return self.hit(hash, tick),
            _ => {}
        }
        self.counts.misses += 1;
        None
    }

    fn hit(&mut self, hash: KeyHash, tick: u64) -> Option<Entry> {
        let (before, slot) = self.order.touch(hash, tick)?;
        let (entry, weight) = (slot.entry(), slot.weight());
        self.counts.hits += 1;
        if before == Class::Unread {
            self.charge(Class::Unread, weight, false);
            self.charge(Class::Read, weight, true);
        }
        Some(entry)
    }

    /// Looks at `key` without counting a read or a use.
    #[must_use]
    pub fn peek(&self, hash: KeyHash, key: &[u8], now: Instant) -> Option<Entry> {
        let slot = self.order.peek(hash)?;
        (slot.key() == key && !slot.is_expired(now)).then(|| slot.entry())
    }

    /// The version known of a key, be it of a value or of a trace.
    #[must_use]
    pub fn version(&self, hash: KeyHash) -> Option<Version> {
        self.order.peek(hash).map(|slot| slot.version).or_else(|| self.traces.get(hash))
    }

    /// Merges a record: the higher version wins; at equal versions the earlier expiry does.
    pub fn apply(&mut self, hash: KeyHash, record: &Record, now: Now, tick: u64) -> Applied {
        match self.version(hash) {
            Some(known) if known > record.version => {
                self.counts.outdated += 1;
                return Applied::Older(known);
            }
            Some(known) if known == record.version => {
                if let Change::Put { expires, .. } = &record.change {
                    self.shorten(hash, *expires);
                }
                return Applied::Same;
            }
            None if record.version.stamp() <= self.traces.floor() => {
                self.counts.outdated += 1;
                return Applied::TooOld;
            }
            _ => {}
        }
        self.remove(hash);
        match &record.change {
            Change::Put { value, metadata, expires } if *expires > now.mono => {
                let key = record.key.as_bytes();
                let slot = Slot::new(key, metadata, value, record.version, *expires);
                self.insert(hash, slot, tick);
            }
            Change::Put { .. } => {
                self.counts.expired += 1;
                self.traces.leave(hash, record.version);
            }
            Change::Delete => {
                self.counts.deletes += 1;
                self.traces.leave(hash, record.version);
            }
        }
        self.held.traces = self.traces.len() as u64;
        Applied::Newer
    }

    /// Drops one entry that has expired; false when there is none.
    pub fn expire_one(&mut self, now: Instant) -> bool {
        let Some((_, hash)) = self.due.pop_until(now.as_millis()) else { return false };
        self.expire(hash);
        true
    }

    /// Drops the entry of a class that goes first; false when the class is empty.
    pub fn evict_one(&mut self, class: Class) -> bool {
        let Some((hash, slot)) = self.order.evict(class) else {
            return false;
        };
        self.charge(class, slot.weight(), false);
        self.due.remove(slot.expires.as_millis(), hash);
        self.counts.evicted += 1;
        self.leave_trace(hash, slot.version);
        true
    }

    /// Drops traces at or below `floor_ms`; records that old are refused for unknown keys.
    pub fn raise_trace_floor(&mut self, floor_ms: u64) {
        self.traces.raise_floor(floor_ms);
        self.held.traces = self.traces.len() as u64;
    }

    /// At or below this many milliseconds since the Unix epoch, absence means nothing.
    #[must_use]
    pub fn trace_floor_ms(&self) -> u64 {
        self.traces.floor() >> Version::COUNTER_BITS
    }

    /// The tick of the entry of a class that goes first.
    #[must_use]
    pub fn coldest(&self, class: Class) -> Option<u64> {
        self.order.coldest(class)
    }

    /// The moment at which the next entry expires, in milliseconds.
    #[must_use]
    pub fn first_due(&self) -> Option<u64> {
        self.due.first()
    }

    /// What is held.
    #[must_use]
    pub fn held(&self) -> Held {
        self.held
    }

    /// What happened.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    fn insert(&mut self, hash: KeyHash, slot: Slot, tick: u64) {
        if slot.weight() > self.weight_max {
            // A replica that cannot keep a value has still dropped its older one.
            self.counts.unkept += 1;
            self.leave_trace(hash, slot.version);
            return;
        }
        self.traces.forget(hash);
        self.counts.puts += 1;
        self.charge(Class::Unread, slot.weight(), true);
        self.due.add(slot.expires.as_millis(), hash);
        self.order.insert(hash, slot, tick);
    }

    fn remove(&mut self, hash: KeyHash) -> Option<Slot> {
        let (class, slot) = self.order.remove(hash)?;
        self.charge(class, slot.weight(), false);
        self.due.remove(slot.expires.as_millis(), hash);
        Some(slot)
    }

    fn expire(&mut self, hash: KeyHash) {
        if let Some(slot) = self.remove(hash) {
            self.counts.expired += 1;
            self.leave_trace(hash, slot.version);
        }
    }

    fn leave_trace(&mut self, hash: KeyHash, version: Version) {
        self.traces.leave(hash, version);
        self.held.traces = self.traces.len() as u64;
    }

    fn shorten(&mut self, hash: KeyHash, expires: Instant) {
        let Some(slot) = self.order.peek_mut(hash) else {
            return;
        };
        if expires < slot.expires {
            self.due.remove(slot.expires.as_millis(), hash);
            self.due.add(expires.as_millis(), hash);
            slot.expires = expires;
        }
    }

    fn charge(&mut self, class: Class, weight: u64, add: bool) {
        let (entries, bytes) =
            (&mut self.held.entries[class as usize], &mut self.held.bytes[class as usize]);
        if add {
            *entries += 1;
            *bytes += weight;
        } else {
            *entries -= 1;
            *bytes -= weight;
        }
    }
}
