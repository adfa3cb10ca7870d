//! One of the 64 parts of the store: what one lock guards.

use super::{
    entries::Entries,
    held::{Counts, Held},
    slot::{Class, Slot},
    traces::Traces,
};
use crate::{
    entry::{Applied, Change, Record},
    key::KeyHash,
    time::{Instant, Now},
    version::Version,
};

/// What the look-up of a reader found.
#[derive(Clone, Copy, Debug)]
pub enum Found {
    /// An entry to serve, that was read before.
    Read(u32),
    /// An entry to serve, for the first time.
    Unread(u32),
    /// An entry whose time has come.
    Expired(u32),
    /// Nothing.
    Nothing,
}

/// What the visit of the eviction did to a class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Visit {
    /// The entry that goes first is gone.
    Evicted,
    /// It was used since it was put at the end of its queue, and stands there again.
    Spared,
    /// The class is empty.
    Empty,
}

/// Entries and traces of one part of the key space.
#[derive(Debug)]
pub struct Part {
    entries: Entries,
    traces: Traces,
    held: Held,
    counts: Counts,
    weight_max: u64,
}

impl Part {
    /// An empty part that keeps no value heavier than `weight_max` and at most `traces_max` traces.
    #[must_use]
    pub fn new(weight_max: u64, traces_max: usize) -> Self {
        Self {
            entries: Entries::default(),
            traces: Traces::new(traces_max),
            held: Held::default(),
            counts: Counts::default(),
            weight_max,
        }
    }

    /// Looks for what a reader of `key` gets. Whoever asks says what follows from it, by
    /// [`Part::serve`], [`Part::serve_first`] or [`Part::miss`].
    #[inline]
    #[must_use]
    pub fn find(&self, hash: KeyHash, key: &[u8], now: Instant) -> Found {
        match self.entries.find(hash, key) {
            Some(place) => match self.entries.slot(place) {
                slot if slot.is_expired(now) => Found::Expired(place),
                Slot { class: Class::Read, .. } => Found::Read(place),
                _ => Found::Unread(place),
            },
            None => Found::Nothing,
        }
    }

    /// Counts a hit and a use of an entry that was read before.
    #[inline]
    pub fn serve(&mut self, place: u32) -> &Slot {
        self.counts.hits += 1;
        self.entries.note_use(place);
        self.entries.slot(place)
    }

    /// Counts the first hit of an entry, which moves it to the read ones.
    pub fn serve_first(&mut self, place: u32, tick: u32) {
        self.counts.hits += 1;
        let weight = self.entries.slot(place).weight();
        self.entries.promote(place, tick);
        self.charge(Class::Unread, weight, false);
        self.charge(Class::Read, weight, true);
    }

    /// The entry at a place.
    #[inline]
    #[must_use]
    pub fn slot(&self, place: u32) -> &Slot {
        self.entries.slot(place)
    }

    /// Counts a miss, and drops what has expired.
    #[inline]
    pub fn miss(&mut self, expired: Option<u32>) {
        self.counts.misses += 1;
        if let Some(place) = expired {
            self.expire(place);
        }
    }

    /// Looks at `key` without counting a read or a use.
    #[must_use]
    pub fn peek(&self, hash: KeyHash, key: &[u8], now: Instant) -> Option<&Slot> {
        let slot = self.entries.slot(self.entries.find(hash, key)?);
        (!slot.is_expired(now)).then_some(slot)
    }

    /// The version known of a key, be it of a value or of a trace.
    #[must_use]
    pub fn version(&self, hash: KeyHash) -> Option<Version> {
        match self.entries.find_hash(hash, b"") {
            Some(place) => Some(self.entries.slot(place).version),
            None => self.traces.get(hash),
        }
    }

    /// Merges a record: the higher version wins; at equal versions the earlier expiry does.
    pub fn apply(&mut self, hash: KeyHash, record: &Record, now: Now, tick: u32) -> Applied {
        let place = self.entries.find_hash(hash, record.key.as_bytes());
        let known = match place {
            Some(place) => Some(self.entries.slot(place).version),
            None => self.traces.get(hash),
        };
        match known {
            Some(known) if known > record.version => {
                self.counts.outdated += 1;
                return Applied::Older(known);
            }
            Some(known) if known == record.version => {
                if let (Some(place), Change::Put { expires, .. }) = (place, &record.change) {
                    self.entries.shorten(place, *expires);
                }
                return Applied::Same;
            }
            None if record.version.stamp() <= self.traces.floor() => {
                self.counts.outdated += 1;
                return Applied::TooOld;
            }
            _ => {}
        }
        match &record.change {
            Change::Put { value, metadata, expires } if *expires > now.mono => {
                let key = record.key.as_bytes();
                if Slot::weight_of(record.payload_bytes()) > self.weight_max {
                    // A replica that cannot keep a value has still dropped its older one.
                    self.counts.unkept += 1;
                    self.drop_for(hash, place, record.version);
                } else {
                    let replaced = place.map(|place| self.entries.give_way(place));
                    let (old, spare) = replaced.unzip();
                    let stamps = (record.version, *expires);
                    let slot = Slot::new((hash, key), metadata, value, stamps, spare.flatten());
                    self.put(hash, place.zip(old), slot, tick);
                }
            }
            Change::Put { .. } => {
                self.counts.expired += 1;
                self.drop_for(hash, place, record.version);
            }
            Change::Delete => {
                self.counts.deletes += 1;
                self.drop_for(hash, place, record.version);
            }
        }
        Applied::Newer
    }

    /// Drops one entry that has expired; false when there is none.
    pub fn expire_one(&mut self, now: Instant) -> bool {
        match self.entries.find_due(now) {
            Some(place) => {
                self.expire(place);
                true
            }
            None => false,
        }
    }

    /// Visits the entry of a class that goes first: evicts it, unless it was used and `spare` says
    /// that it may then stay. One that stays is as if first read at `tick`.
    pub fn evict(&mut self, class: Class, spare: bool, tick: impl FnOnce() -> u32) -> Visit {
        let Some(place) = self.entries.oldest(class) else { return Visit::Empty };
        if spare && class == Class::Read && self.entries.slot(place).is_used {
            self.entries.promote(place, tick());
            return Visit::Spared;
        }
        self.counts.evicted += 1;
        let slot = self.remove(place);
        self.leave_trace(slot.hash(), slot.version);
        Visit::Evicted
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
    pub fn oldest_tick(&self, class: Class) -> Option<u32> {
        self.entries.oldest(class).map(|place| self.entries.slot(place).tick)
    }

    /// The moment before which no entry expires, in milliseconds.
    #[must_use]
    pub fn first_due(&self) -> u64 {
        self.entries.first_due()
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

    /// Puts a slot in, in the place of one of a class and weight if one is given.
    fn put(&mut self, hash: KeyHash, replaced: Option<(u32, (Class, u64))>, slot: Slot, tick: u32) {
        self.counts.puts += 1;
        let weight = slot.weight();
        match replaced {
            Some((place, (class, old_weight))) => {
                self.charge(class, old_weight, false);
                self.entries.replace(place, slot, tick);
            }
            None => {
                self.traces.forget(hash);
                self.held.traces = self.traces.len() as u64;
                self.entries.insert(slot, tick);
            }
        }
        self.charge(Class::Unread, weight, true);
    }

    /// Leaves nothing of a key but a trace of `version`.
    fn drop_for(&mut self, hash: KeyHash, place: Option<u32>, version: Version) {
        if let Some(place) = place {
            self.remove(place);
        }
        self.leave_trace(hash, version);
    }

    fn remove(&mut self, place: u32) -> Slot {
        let slot = self.entries.remove(place);
        self.charge(slot.class, slot.weight(), false);
        slot
    }

    fn expire(&mut self, place: u32) {
        self.counts.expired += 1;
        let slot = self.remove(place);
        self.leave_trace(slot.hash(), slot.version);
    }

    fn leave_trace(&mut self, hash: KeyHash, version: Version) {
        self.traces.leave(hash, version);
        self.held.traces = self.traces.len() as u64;
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

    /// Panics unless everything in here agrees.
    #[cfg(test)]
    pub fn check(&self) {
        assert_eq!(self.entries.check(), (self.held.entries, self.held.bytes));
        self.traces.check();
        assert_eq!(self.traces.len() as u64, self.held.traces);
    }
}
