//! One of the 64 parts of the store: what one lock guards.

#[cfg(test)]
mod checks;

use super::{
    entries::Entries,
    held::{Counts, Held},
    lock::Pages,
    slot::{Class, Fresh, Seen, Sizes},
    sums::{Sums, second_of},
    table_key::TableKey,
    traces::Traces,
    variant::{Breakage, StoreVariant},
};
use crate::{
    entry::{Applied, Change, Record},
    key::KeyHash,
    time::{Instant, Now},
    version::{Incarnation, Version},
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
pub struct Part<P> {
    entries: Entries<P>,
    traces: Traces,
    sums: Sums,
    held: Held,
    counts: Counts,
    sizes: Sizes,
    weight_max: u64,
    breakage: Breakage,
}

impl<P: Pages> Part<P> {
    /// An empty part that keeps no value heavier than `weight_max` and at most `traces_max` traces, and
    /// whose tables place keys by this secret.
    #[must_use]
    pub fn new(weight_max: u64, traces_max: usize, table_key: TableKey) -> Self {
        let sizes = Sizes::of(weight_max);
        Self {
            entries: Entries::new(table_key, sizes),
            sizes,
            traces: Traces::new(traces_max, table_key),
            sums: Sums::default(),
            held: Held::default(),
            counts: Counts::default(),
            weight_max,
            breakage: Breakage::default(),
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
                slot if slot.class == Class::Read => Found::Read(place),
                _ => Found::Unread(place),
            },
            None => Found::Nothing,
        }
    }

    /// Counts a hit and a use of an entry that was read before.
    #[inline]
    pub fn serve(&mut self, place: u32) -> Seen<'_, P> {
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
    pub fn slot(&self, place: u32) -> Seen<'_, P> {
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
    pub fn peek(&self, hash: KeyHash, key: &[u8], now: Instant) -> Option<Seen<'_, P>> {
        let slot = self.entries.slot(self.entries.find(hash, key)?);
        (!slot.is_expired(now)).then_some(slot)
    }

    /// The version known of a key, be it of a value or of a trace.
    #[must_use]
    pub fn version(&self, hash: KeyHash) -> Option<Version> {
        self.known_at(self.entries.find_hash(hash, b""), hash)
    }

    /// Merges a record: the higher version wins; at equal versions the earlier expiry does.
    pub fn apply(&mut self, hash: KeyHash, record: &Record, now: Now, tick: u32) -> Applied {
        let place = self.entries.find_hash(hash, record.key.as_bytes());
        let known = self.known_at(place, hash);
        if let Some(judged) = self.judge(known, record.version) {
            if let (Applied::Same, Some(place), Change::Put { expires, .. }) =
                (judged, place, &record.change)
            {
                self.entries.shorten(place, *expires);
            }
            return judged;
        }
        // Of a hundred milliseconds about three.
        if self.breakage.is(StoreVariant::WritesDropped)
            && record.version.wall_ms().is_multiple_of(32)
        {
            return Applied::Newer;
        }
        self.know(hash, known, record.version);
        match &record.change {
            Change::Put { value, metadata, expires } if *expires > now.mono => {
                let key = record.key.as_bytes();
                if self.sizes.weight_of(record.payload_bytes()) > self.weight_max {
                    // A replica that cannot keep a value has still dropped its older one.
                    self.counts.unkept += 1;
                    self.drop_for(hash, place, record.version);
                } else {
                    let (version, expires) = (record.version, *expires);
                    self.put(hash, place, &Fresh { key, metadata, value, version, expires }, tick);
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

    /// Merges what a peer knows of a key of which it has no value: a version and no more.
    pub fn apply_trace(&mut self, hash: KeyHash, version: Version) -> Applied {
        let place = self.entries.find_hash(hash, b"");
        let known = self.known_at(place, hash);
        if let Some(judged) = self.judge(known, version) {
            return judged;
        }
        self.know(hash, known, version);
        self.counts.deletes += 1;
        self.drop_for(hash, place, version);
        Applied::Newer
    }

    /// Takes over an entry that a peer has held for a while, at the cold end of the unread ones: it goes
    /// before everything that is here. Its age is no reason to refuse it.
    pub fn adopt(&mut self, hash: KeyHash, record: &Record, now: Now, tick: u32) -> Applied {
        let Change::Put { value, metadata, expires } = &record.change else {
            return self.apply_trace(hash, record.version);
        };
        let place = self.entries.find_hash(hash, record.key.as_bytes());
        match self.known_at(place, hash) {
            Some(known) if known > record.version => return Applied::Older(known),
            Some(known) if known == record.version => return Applied::Same,
            known => self.know(hash, known, record.version),
        }
        let weight = self.sizes.weight_of(record.payload_bytes());
        if *expires <= now.mono || weight > self.weight_max {
            self.drop_for(hash, place, record.version);
            return Applied::Newer;
        }
        if let Some(place) = place {
            self.remove(place);
        }
        let key = record.key.as_bytes();
        let (version, expires) = (record.version, *expires);
        let fresh = Fresh { key, metadata, value, version, expires };
        self.counts.puts += 1;
        self.traces.forget(hash);
        self.held.traces = self.traces.len() as u64;
        self.entries.insert_cold(hash, &fresh, tick);
        self.charge(Class::Unread, weight, true);
        Applied::Newer
    }

    /// What a record comes to if it changes nothing.
    fn judge(&mut self, known: Option<Version>, version: Version) -> Option<Applied> {
        match known {
            Some(known) if known > version => {
                self.counts.outdated += 1;
                Some(Applied::Older(known))
            }
            Some(known) if known == version => Some(Applied::Same),
            None if version.stamp() <= self.traces.floor() => {
                self.counts.outdated += 1;
                Some(Applied::TooOld)
            }
            _ => None,
        }
    }

    /// From now on this version is what is known of a key.
    fn know(&mut self, hash: KeyHash, before: Option<Version>, version: Version) {
        if let Some(before) = before {
            self.sums.subtract(hash, before);
        }
        self.sums.add(hash, version);
    }

    fn known_at(&self, place: Option<u32>, hash: KeyHash) -> Option<Version> {
        match place {
            Some(place) => Some(self.entries.slot(place).version),
            None => self.traces.get(hash),
        }
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
        let (hash, version) = self.row(place);
        self.remove(place);
        if self.breakage.is(StoreVariant::EvictionsForgotten) {
            self.sums.subtract(hash, version);
            return Visit::Evicted;
        }
        self.leave_trace(hash, version);
        Visit::Evicted
    }

    /// Breaks the part on purpose.
    #[cfg(feature = "variants")]
    pub fn break_on_purpose(&mut self, breakage: Breakage) {
        self.breakage = breakage;
    }

    /// From now on traces at or below `floor_ms` count as gone, and records that old are refused for
    /// unknown keys. Drops at most `most` of these traces, and returns how many.
    pub fn raise_trace_floor(&mut self, floor_ms: u64, most: usize) -> usize {
        self.traces.raise_floor(floor_ms);
        let dropped = self.traces.drop_old(most);
        self.held.traces = self.traces.len() as u64;
        self.sums.forget_before(self.first_second());
        dropped
    }

    /// The highest version that may have been forgotten: at or below it absence means nothing.
    #[must_use]
    pub fn forgotten(&self) -> Version {
        Version::new(self.traces.floor(), Incarnation(u64::MAX))
    }

    /// The first second of which everything is known: no trace of it was forgotten.
    #[must_use]
    pub fn first_second(&self) -> u64 {
        match self.traces.floor() {
            0 => 0,
            floor => second_of(Version::new(floor, Incarnation(0))) + 1,
        }
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

    /// The sums by which two nodes find out where they differ.
    #[must_use]
    pub fn sums(&self) -> &Sums {
        &self.sums
    }

    /// How many entries there are; their places are those before.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// How many traces take memory; their places are those before.
    #[must_use]
    pub fn trace_count(&self) -> usize {
        self.traces.len()
    }

    /// The trace at a place, if it counts.
    #[must_use]
    pub fn trace(&self, place: u32) -> Option<(KeyHash, Version)> {
        self.traces.at(place)
    }

    /// All entries, in no order.
    pub fn slots(&self) -> impl Iterator<Item = Seen<'_, P>> {
        self.entries.slots()
    }

    /// All traces, in no order.
    pub fn traces(&self) -> impl Iterator<Item = (KeyHash, Version)> {
        self.traces.iter()
    }

    /// The entry with a key of this hash, which may have expired.
    #[must_use]
    pub fn entry(&self, hash: KeyHash) -> Option<Seen<'_, P>> {
        self.entries.find_hash(hash, b"").map(|place| self.entries.slot(place))
    }

    /// Forgets an entry or trace without leaving anything; whether there was one.
    pub fn erase(&mut self, hash: KeyHash) -> bool {
        let place = self.entries.find_hash(hash, b"");
        let Some(known) = self.known_at(place, hash) else { return false };
        self.sums.subtract(hash, known);
        match place {
            Some(place) => self.remove(place),
            None => {
                self.traces.forget(hash);
                self.held.traces = self.traces.len() as u64;
            }
        }
        true
    }

    /// Gives everything with a stamp of `from` or later the version that a clock `by_ms` ahead would have
    /// given; what is known reaches as far back as before. Returns how many entries that were.
    pub fn redate(&mut self, from: u64, by_ms: i64) -> usize {
        let redated = |version: Version| match version.stamp() >= from {
            true => version.redated(by_ms),
            false => version,
        };
        let mut entries = 0;
        self.entries.redate(|version| {
            entries += usize::from(version.stamp() >= from);
            redated(version)
        });
        self.traces.redate(redated, by_ms);
        self.held.traces = self.traces.len() as u64;
        self.sums = Sums::default();
        self.sums.forget_before(self.first_second());
        let known = self.entries.slots().map(|slot| (slot.hash(), slot.version));
        for (hash, version) in known.chain(self.traces.iter()) {
            self.sums.add(hash, version);
        }
        entries
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

    /// Puts an entry in, in the place of another one if there is one.
    fn put(&mut self, hash: KeyHash, place: Option<u32>, fresh: &Fresh<'_>, tick: u32) {
        self.counts.puts += 1;
        match place {
            Some(place) => {
                let (class, weight) = (self.slot(place).class, self.slot(place).weight());
                self.charge(class, weight, false);
                self.entries.replace(place, fresh, tick);
            }
            None => {
                self.traces.forget(hash);
                self.held.traces = self.traces.len() as u64;
                self.entries.insert(hash, fresh, tick);
            }
        }
        self.charge(Class::Unread, self.sizes.weight_of(fresh.payload_bytes()), true);
    }

    /// Leaves nothing of a key but a trace of `version`.
    fn drop_for(&mut self, hash: KeyHash, place: Option<u32>, version: Version) {
        if let Some(place) = place {
            self.remove(place);
        }
        self.leave_trace(hash, version);
    }

    fn remove(&mut self, place: u32) {
        let (class, weight) = self.entries.remove(place);
        self.charge(class, weight, false);
    }

    fn expire(&mut self, place: u32) {
        self.counts.expired += 1;
        let (hash, version) = self.row(place);
        self.remove(place);
        self.leave_trace(hash, version);
    }

    fn row(&self, place: u32) -> (KeyHash, Version) {
        let slot = self.slot(place);
        (slot.hash(), slot.version)
    }

    fn leave_trace(&mut self, hash: KeyHash, version: Version) {
        if self.breakage.is(StoreVariant::NoTraces) {
            return self.sums.subtract(hash, version);
        }
        self.traces.leave(hash, version);
        self.held.traces = self.traces.len() as u64;
        // Room for it may have been made by forgetting others.
        self.sums.forget_before(self.first_second());
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
