//! What a store knows, as repair, the copy at the start and snapshots ask for it.

use alloc::vec::Vec;

use bytes::Bytes;

use super::{
    Broken, Store,
    lock::{Lock, LockFamily, Pages},
    slot::{Class, Seen, Slot},
    sums::second_of,
    traces::DROPPED_MAX,
};
use crate::{
    entry::{Applied, Change, Record},
    key::{Key, KeyHash, PARTS},
    time::Now,
    version::Version,
};

/// A key, by its hash, and the version that is known of it.
pub type Row = (KeyHash, Version);

/// What is known of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known {
    /// A value.
    Value(Record),
    /// Only that there was this version.
    Trace(KeyHash, Version),
}

/// A place in the order in which a part would lose its unread entries, then its read ones, seen from
/// the end: the hottest entry is first. Places are of one store and one of its lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Whether the entry was read since it was stored.
    pub is_read: bool,
    /// When it was put at the end of its queue: the store's counter.
    pub tick: u32,
}

impl Place {
    fn of(slot: &Slot) -> Self {
        Self { is_read: slot.class == Class::Read, tick: slot.tick }
    }

    /// How cold it is when the counter stands at `tick`.
    fn coldness(self, tick: u32) -> (bool, u32) {
        (!self.is_read, tick.wrapping_sub(self.tick))
    }
}

/// Which entries of a part a copy asks for; by default all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stretch {
    /// Only those colder than this place.
    pub colder_than: Option<Place>,
    /// Only those that were put at the end of a queue since the counter stood there.
    pub since: Option<u32>,
}

/// Part of a copy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Entries, hottest first.
    pub records: Vec<Record>,
    /// The place of the last one, if there are more.
    pub more: Option<Place>,
    /// Where the counter stands.
    pub tick: u32,
    /// How many entries were looked at for it.
    pub searched: usize,
}

/// What a search for rows has not looked at yet: the places before these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowsLeft {
    entries: usize,
    traces: usize,
}

impl RowsLeft {
    /// Everything.
    pub const ALL: Self = Self { entries: usize::MAX, traces: usize::MAX };
    /// Nothing.
    pub const NONE: Self = Self { entries: 0, traces: 0 };

    /// The next places of `len`, at most `most`: how many, and the first of them.
    fn next(
        &mut self,
        len: usize,
        most: usize,
        of: impl FnOnce(&mut Self) -> &mut usize,
    ) -> (usize, usize) {
        let left = of(self);
        let end = (*left).min(len);
        let count = end.min(most);
        *left = end - count;
        (count, *left)
    }
}

/// Most entries of one page: few enough that choosing them takes little beside sending them.
const PAGE_RECORDS_MAX: usize = 4_096;

impl<L: LockFamily> Store<L> {
    /// The first second of version of which everything is known here: no trace of it was forgotten.
    pub fn first_second(&self, now: Now) -> u64 {
        let floor_ms = self.floor_ms(now);
        let first = |index| {
            self.change(index, |part| {
                part.raise_trace_floor(floor_ms, 0);
                part.first_second()
            })
        };
        (0..PARTS).map(first).max().unwrap_or(0)
    }

    /// The sums of the seconds `from` to `to`, over all parts.
    #[must_use]
    pub fn sums_by_second(&self, from: u64, to: u64) -> Vec<u64> {
        let seconds = to.checked_sub(from).map_or(0, |more| more + 1);
        let mut sums = alloc::vec![0; usize::try_from(seconds).unwrap_or(0)];
        for index in 0..PARTS {
            self.part(index).with(|part| part.sums().add_to(from, &mut sums));
        }
        sums
    }

    /// The sums of each part in each of these seconds: those of the first second, of the next one, and
    /// so on.
    #[must_use]
    pub fn sums_by_part(&self, seconds: &[u64]) -> Vec<u64> {
        let mut sums = alloc::vec![0; seconds.len() * PARTS];
        for index in 0..PARTS {
            self.part(index).with(|part| {
                for (sums, second) in sums.chunks_exact_mut(PARTS).zip(seconds) {
                    sums[index] = part.sums().get(*second);
                }
            });
        }
        sums
    }

    /// What is known of keys in a part with versions of `seconds`, which are in ascending order. Looks at
    /// no more than `most` of what is `left`, and returns at how many.
    ///
    /// Nothing that is known throughout is left out, whatever changes between the calls: the last one
    /// takes the place of one that goes, and what is looked at first stands last. What becomes a trace
    /// meanwhile may come twice.
    pub fn rows(
        &self,
        index: usize,
        seconds: &[u64],
        left: &mut RowsLeft,
        most: usize,
        into: &mut Vec<Row>,
    ) -> usize {
        let wanted = |version: Version| seconds.binary_search(&second_of(version)).is_ok();
        self.part(index).with(|part| {
            let (entries, end) = left.next(part.len(), most, |left| &mut left.entries);
            let slots = (end..end + entries).map(|place| part.slot(place as u32));
            let rows = slots.filter(|slot| wanted(slot.version));
            into.extend(rows.map(|slot| (slot.hash(), slot.version)));
            if left.entries > 0 {
                return entries;
            }
            let most = most - entries;
            let (traces, end) = left.next(part.trace_count(), most, |left| &mut left.traces);
            let rows = (end..end + traces).filter_map(|place| part.trace(place as u32));
            into.extend(rows.filter(|(_, version)| wanted(*version)));
            entries + traces
        })
    }

    /// The values of a part with versions before `second`.
    #[must_use]
    pub fn values_before(&self, index: usize, second: u64) -> Vec<Row> {
        let second = if self.is_broken(Broken::NewerErased) { u64::MAX } else { second };
        self.part(index).with(|part| {
            let old = part.slots().filter(|slot| second_of(slot.version) < second);
            old.map(|slot| (slot.hash(), slot.version)).collect()
        })
    }

    /// What is known of a key. A value that has expired is a trace.
    #[must_use]
    pub fn known(&self, hash: KeyHash, now: Now) -> Option<Known> {
        self.part(hash.part()).with(|part| match part.entry(hash) {
            Some(slot) if !slot.is_expired(now.mono) => Some(Known::Value(record(slot)?)),
            Some(slot) => Some(Known::Trace(hash, slot.version)),
            None => part.version(hash).map(|version| Known::Trace(hash, version)),
        })
    }

    /// Merges the version of a key of which a peer has no value.
    pub fn apply_trace(&self, hash: KeyHash, version: Version, now: Now) -> Applied {
        let floor_ms = self.floor_ms(now);
        let applied = self.change(hash.part(), |part| {
            part.raise_trace_floor(floor_ms, DROPPED_MAX);
            part.apply_trace(hash, version)
        });
        self.make_room(now.mono);
        applied
    }

    /// Takes over an entry of a peer that has held it for a while: it goes before all that are here,
    /// whatever its age. Where there is no room it leaves a trace.
    pub fn adopt(&self, record: &Record, now: Now) -> Applied {
        let (hash, tick) = (record.key.hash(), self.totals.next_cold_tick());
        let floor_ms = self.floor_ms(now);
        let applied = self.change(hash.part(), |part| {
            part.raise_trace_floor(floor_ms, DROPPED_MAX);
            part.adopt(hash, record, now, tick)
        });
        self.make_room(now.mono);
        applied
    }

    /// From now on nothing is known of seconds of version before `second`.
    pub fn forget_before(&self, second: u64) {
        let floor_ms = second.saturating_mul(1_000).saturating_sub(1);
        for index in 0..PARTS {
            self.change(index, |part| part.raise_trace_floor(floor_ms, 0));
        }
    }

    /// The highest version that may have been forgotten of a key of which nothing is known.
    pub fn forgotten(&self, hash: KeyHash) -> Version {
        self.part(hash.part()).with(|part| part.forgotten())
    }

    /// Forgets a value that has no newer version than `version`; whether there was one. It leaves no
    /// trace.
    pub fn erase(&self, hash: KeyHash, version: Version) -> bool {
        let whatever = self.is_broken(Broken::NewerErased);
        self.change(hash.part(), |part| {
            let held = part.entry(hash).is_some_and(|slot| slot.version <= version || whatever);
            held && part.erase(hash)
        })
    }

    /// A clock was wrong: everything stamped at `from_ms` or later gets the version that a clock `by_ms`
    /// ahead of it would have given. Returns how many entries that were.
    pub fn redate(&self, from_ms: u64, by_ms: i64) -> usize {
        let from = from_ms << Version::COUNTER_BITS;
        (0..PARTS).map(|index| self.change(index, |part| part.redate(from, by_ms))).sum()
    }

    /// Entries of a part that have not expired, hottest first, up to `bytes_max` of key, metadata and
    /// value, but at least one if there is one.
    #[must_use]
    pub fn page(&self, index: usize, stretch: Stretch, bytes_max: usize, now: Now) -> Page {
        let tick = self.totals.tick();
        self.part(index).with(|part| {
            let wanted = |slot: &Seen<'_, L::Pages>| {
                let place = Place::of(slot);
                let colder = |than: Place| place.coldness(tick) > than.coldness(tick);
                !slot.is_expired(now.mono)
                    && stretch.colder_than.is_none_or(colder)
                    && stretch
                        .since
                        .is_none_or(|since| place.coldness(tick).1 <= tick.wrapping_sub(since))
            };
            let mut slots: Vec<_> = part.slots().filter(wanted).collect();
            let coldness = |slot: &Seen<'_, L::Pages>| Place::of(slot).coldness(tick);
            // What is certainly too much for a page need not be put in order.
            let all = slots.len();
            if all > PAGE_RECORDS_MAX {
                slots.select_nth_unstable_by_key(PAGE_RECORDS_MAX, coldness);
                slots.truncate(PAGE_RECORDS_MAX);
            }
            slots.sort_unstable_by_key(coldness);
            let searched = part.len();
            let (mut page, mut bytes) = (Page { tick, searched, ..Page::default() }, 0);
            for slot in slots {
                let Some(record) = record(slot) else { continue };
                bytes += record.payload_bytes();
                if bytes > bytes_max && !page.records.is_empty() {
                    break;
                }
                page.records.push(record);
                page.more = Some(Place::of(&slot));
            }
            if page.records.len() == all {
                page.more = None;
            }
            page
        })
    }

    /// Everything that a part knows: its values, hottest first, as [`Store::adopt`] wants them, and its
    /// traces.
    #[must_use]
    pub fn export(&self, index: usize, now: Now) -> Vec<Known> {
        let tick = self.totals.tick();
        self.part(index).with(|part| {
            let mut slots: Vec<_> = part.slots().collect();
            slots.sort_unstable_by_key(|slot| Place::of(slot).coldness(tick));
            let known = |slot: &Seen<'_, L::Pages>| match record(*slot)
                .filter(|_| !slot.is_expired(now.mono))
            {
                Some(record) => Known::Value(record),
                None => Known::Trace(slot.hash(), slot.version),
            };
            let traces = part.traces().map(|(hash, version)| Known::Trace(hash, version));
            slots.iter().map(known).chain(traces).collect()
        })
    }
}

/// The entry of a slot as a record.
fn record<P: Pages>(slot: Seen<'_, P>) -> Option<Record> {
    let entry = slot.entry().to_entry();
    let key = Key::within(Bytes::copy_from_slice(slot.key()), usize::MAX).ok()?;
    let change =
        Change::Put { value: entry.value, metadata: entry.metadata, expires: entry.expires };
    Some(Record { key, version: entry.version, change })
}
