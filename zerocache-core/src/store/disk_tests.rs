//! Tests of a store whose evicted values go to disk: a list of records stands for the disk.

use alloc::{collections::BTreeMap, format, string::String, vec, vec::Vec};

use bytes::Bytes;
use proptest::prelude::*;

use super::{
    tests::{TestStore, at, delete, key, version},
    *,
};
use crate::{
    entry::Change,
    purge::{PurgeMode, PurgeTarget, PurgeValue},
    time::Instant,
};

/// A record of the list.
#[derive(Clone, Debug)]
enum OnList {
    Value(Record),
    Erase(KeyHash, Version),
    Forget(KeyHash, Version),
}

/// A store and its list. A job is done when [`Tier::work`] comes to it.
struct Tier {
    store: TestStore,
    list: Vec<Option<OnList>>,
    /// The number of the last job whose record is on the list.
    written: u64,
}

fn place(index: usize) -> DiskPlace {
    let mut place = [0; 12];
    place[..8].copy_from_slice(&(index as u64).to_le_bytes());
    place
}

fn index(place: DiskPlace) -> usize {
    let (index, _) = place.split_first_chunk::<8>().expect("8 bytes");
    u64::from_le_bytes(*index) as usize
}

fn store_with_disk(bytes_max: u64, admits_unread: bool) -> TestStore {
    let terms = DiskTerms { value_bytes_min: 100, admits_unread };
    TestStore::new(Capacity { entries_max: u64::MAX, bytes_max }).with_disk(terms)
}

impl Tier {
    fn new(bytes_max: u64, admits_unread: bool) -> Self {
        let store = store_with_disk(bytes_max, admits_unread);
        store.open_disk();
        Self { store, list: Vec::new(), written: 0 }
    }

    fn append(&mut self, record: OnList) -> DiskPlace {
        self.list.push(Some(record));
        place(self.list.len() - 1)
    }

    /// Does up to `most` jobs.
    fn work(&mut self, most: usize) {
        let (jobs, last) = self.store.take_disk_jobs(most);
        for job in jobs {
            match job {
                DiskJob::Write(hash, version) => {
                    let Some(leaving) = self.store.leaving(hash, version) else { continue };
                    let place = self.append(OnList::Value(leaving.record));
                    if !self.store.written(hash, version, Some(place)) {
                        self.append(OnList::Forget(hash, version));
                    }
                }
                DiskJob::Erase(hash, version, _) => {
                    self.append(OnList::Erase(hash, version));
                }
                DiskJob::Forget(hash, version, _) => {
                    self.append(OnList::Forget(hash, version));
                }
                DiskJob::Keep(record) => {
                    self.append(OnList::Value(record));
                }
            }
        }
        self.written = last;
    }

    /// Whether all changes up to now may be acknowledged.
    fn is_safe(&self) -> bool {
        self.written >= self.store.disk_mark()
    }

    fn load(&self, entry: EntryOnDisk, ms: u64) {
        let Some(Some(OnList::Value(record))) = self.list.get(index(entry.place)) else {
            self.store.lost_on_disk(entry);
            return;
        };
        assert_eq!((record.key.hash(), record.version), (entry.key, entry.version));
        let Change::Put { value, metadata, .. } = &record.change else { panic!("a value") };
        assert_eq!(value.len(), entry.value_bytes as usize);
        self.store.restore(entry, (metadata, value), at(ms));
    }

    /// Reads a key, from the list if need be.
    fn read(&self, name: &str, ms: u64) -> Option<Entry> {
        for _ in 0..3 {
            match self.store.get(&key(name), at(ms)) {
                Lookup::Hit(entry) => return Some(entry),
                Lookup::Miss { .. } => return None,
                Lookup::OnDisk => {
                    let entry = self.store.find_on_disk(key(name).hash(), at(ms));
                    self.load(entry.expect("it is on disk"), ms);
                }
            }
        }
        None
    }

    /// Gives up the first record of the list.
    fn give_up_first(&mut self) {
        let Some(first) = self.list.iter().position(Option::is_some) else { return };
        let Some(OnList::Value(record)) = self.list[first].take() else { return };
        let (hash, version) = (record.key.hash(), record.version);
        let to = match self.store.disk_verdict(hash, version, place(first)) {
            DiskVerdict::Keep | DiskVerdict::KeepDurably => {
                Some(self.append(OnList::Value(record)))
            }
            DiskVerdict::Drop | DiskVerdict::Duplicate => None,
        };
        self.store.moved_on_disk((hash, version), place(first), to);
    }

    /// The tier as a later process finds it.
    fn restarted(&self, ms: u64, admits_unread: bool) -> Self {
        self.restarted_as(store_with_disk(self.store.capacity().bytes_max, admits_unread), ms)
    }

    /// The same for a process that has been told something before.
    fn restarted_as(&self, store: TestStore, ms: u64) -> Self {
        store.open_disk();
        for (index, record) in self.list.iter().enumerate() {
            match record {
                Some(OnList::Value(record)) if crate::purge::is_reserved(record.key.as_bytes()) => {
                    store.import(record, at(ms));
                }
                Some(OnList::Value(record)) => {
                    let Change::Put { value, metadata, expires } = &record.change else {
                        panic!("a value")
                    };
                    let value_bytes = value.len() as u32;
                    let copy = DiskCopy { place: place(index), value_bytes, is_used: false };
                    let (value, metadata) = (Bytes::new(), metadata.clone());
                    let change = Change::Put { value, metadata, expires: *expires };
                    store.recover(&Record { change, ..record.clone() }, copy, at(ms));
                }
                Some(OnList::Erase(hash, version)) => {
                    store.recover_erase((*hash, *version), true, at(ms));
                }
                Some(OnList::Forget(hash, version)) => {
                    store.recover_erase((*hash, *version), false, at(ms));
                }
                None => {}
            }
        }
        Self { store, list: self.list.clone(), written: 0 }
    }
}

fn put_bytes(name: &str, fill: u8, bytes: usize, version: Version) -> Record {
    let (value, metadata) = (Bytes::from(vec![fill; bytes]), Bytes::from(vec![fill]));
    let change = Change::Put { value, metadata, expires: Instant::from_millis(1_000_000) };
    Record { key: key(name), version, change }
}

fn name(n: u64) -> String {
    format!("key-{n}")
}

/// A tier of 256 KiB with entries of 1,000 bytes under the names of `0..count`.
fn filled(count: u64) -> Tier {
    let mut tier = Tier::new(256 << 10, true);
    for n in 0..count {
        tier.store.apply(&put_bytes(&name(n), n as u8, 1_000, version(1 + n, 1)), at(0));
        tier.work(usize::MAX);
    }
    tier.store.check();
    tier
}

#[test]
fn evicted_values_are_read_from_disk_and_come_back() {
    let mut tier = filled(800);
    let counts = tier.store.disk_counts();
    assert!(counts.entries > 500 && counts.leaving_bytes == 0 && counts.skipped == 0, "{counts:?}");
    assert_eq!((tier.store.stats().entries, tier.store.stats().tombstones), (800, 0));
    for n in 0..800 {
        let entry = tier.read(&name(n), 5).expect("it is in memory or on disk");
        assert_eq!(entry.value, vec![n as u8; 1_000]);
        assert_eq!((&entry.metadata[..], entry.version), (&[n as u8][..], version(1 + n, 1)));
        tier.work(usize::MAX);
    }
    tier.store.check();
    assert!(tier.store.stats().bytes <= 256 << 10);
}

#[test]
fn value_that_came_back_leaves_again_without_being_written() {
    let mut tier = filled(800);
    let written = tier.list.len();
    for n in 0..400 {
        assert!(tier.read(&name(n), 5).is_some());
        tier.work(usize::MAX);
    }
    let again = tier.list.len() - written;
    assert!(again <= 200, "{again} records for what had never been written");
}

#[test]
fn scan_of_the_disk_displaces_no_value_that_is_read_often() {
    let tier = filled(800);
    let hot: Vec<_> = (700..720).map(name).collect();
    for hot in &hot {
        assert!(tier.read(hot, 5).is_some() && tier.read(hot, 5).is_some());
    }
    for n in 0..500 {
        tier.read(&name(n), 5);
    }
    let in_memory = |hot: &&String| tier.store.peek(&key(hot), at(5)).is_hit();
    assert_eq!(hot.iter().filter(in_memory).count(), 20);
}

#[test]
fn values_read_from_disk_again_and_again_displace_no_value_that_is_read_often() {
    let mut tier = filled(800);
    let often = |n: u64| format!("often-{n}");
    for n in 0..100 {
        // Too small for the disk: lost when evicted.
        tier.store.apply(&put_bytes(&often(n), 1, 50, version(1_000 + n, 1)), at(1));
        tier.work(usize::MAX);
    }
    for round in 0..4 {
        for n in 0..800 {
            for hot in 0..100 {
                assert!(tier.read(&often(hot), 2).is_some(), "{hot} in round {round}, at {n}");
            }
            assert!(tier.read(&name(n), 2).is_some(), "{n} in round {round}");
            tier.work(usize::MAX);
        }
    }
    tier.store.check();
}

#[test]
fn deleted_replaced_and_purged_values_do_not_come_back() {
    let mut tier = filled(800);
    let on_disk = |n: &u64| tier.store.find_on_disk(key(&name(*n)).hash(), at(5)).is_some();
    let found: Vec<u64> = (0..800).filter(on_disk).take(3).collect();
    let &[deleted, replaced, purged] = &found[..] else { panic!("three are on disk") };
    tier.store.apply(&delete(&name(deleted), version(5_000, 1)), at(5));
    tier.store.apply(&put_bytes(&name(replaced), 1, 10, version(5_001, 1)), at(5));
    assert!(!tier.is_safe(), "the erases are not written yet");
    tier.work(usize::MAX);
    assert!(tier.is_safe());
    let later = tier.restarted(10, true);
    assert_eq!(later.read(&name(deleted), 10), None);
    assert_eq!(later.store.version(key(&name(deleted)).hash()), Some(version(5_000, 1)));
    assert_eq!(later.read(&name(replaced), 10), None, "its new value was in memory alone");
    assert!(later.read(&name(purged), 10).is_some());

    tier.store.apply(&purge(version(6_000, 1)), at(6));
    assert!(!tier.is_safe(), "the purge is not written yet");
    tier.work(usize::MAX);
    let later = tier.restarted(10, true);
    assert_eq!(later.read(&name(purged), 10), None);
    let old = put_bytes(&name(1), 1, 500, version(5_999, 1));
    assert_eq!(later.store.apply(&old, at(10)), ApplyOutcome::Purged, "the purge is known");
}

/// A purge of everything.
fn purge(version: Version) -> Record {
    let value = PurgeValue { hold_ms: 0, life_ms: 100_000 }.encode();
    let expires = Instant::from_millis(100_000);
    let change = Change::Put { value, metadata: Bytes::new(), expires };
    Record { key: PurgeTarget::Everything.key(PurgeMode::Hard), version, change }
}

#[test]
fn purge_that_came_before_the_disk_was_open_comes_back() {
    let store = store_with_disk(100_000, true);
    store.apply(&purge(version(6_000, 1)), at(6));
    store.open_disk();
    let mut tier = Tier { store, list: Vec::new(), written: 0 };
    assert!(!tier.is_safe(), "the purge is not written yet");
    tier.work(usize::MAX);
    let later = tier.restarted(10, true);
    let old = put_bytes(&name(1), 1, 500, version(5_999, 1));
    assert_eq!(later.store.apply(&old, at(10)), ApplyOutcome::Purged, "the purge is known");
}

#[test]
fn what_a_process_was_told_before_is_known_after_it_has_read_the_disk() {
    let told = put_bytes("told", 1, 500, version(2_000, 1));
    let (hash, known) = (told.key.hash(), told.version);
    let store = store_with_disk(100_000, true);
    store.apply(&told, at(3));
    let mut tier = Tier::new(100_000, true);
    tier.append(OnList::Value(told));
    tier.append(OnList::Forget(hash, known));
    assert_eq!(tier.restarted_as(store, 10).store.version(hash), Some(known));
    assert_eq!(tier.restarted(10, true).store.version(hash), None);
}

#[test]
fn value_deleted_while_it_is_written_does_not_come_back() {
    let mut tier = filled(800);
    tier.store.apply(&put_bytes("last", 1, 1_000, version(4_000, 1)), at(5));
    let (jobs, _) = tier.store.take_disk_jobs(usize::MAX);
    let Some(DiskJob::Write(hash, written)) = jobs.last().cloned() else { panic!("{jobs:?}") };
    let leaving = tier.store.leaving(hash, written).expect("it is in memory");
    let deleted = Record { change: Change::Delete, ..leaving.record.clone() };
    tier.store.apply(&Record { version: version(5_000, 1), ..deleted }, at(5));
    let place = tier.append(OnList::Value(leaving.record.clone()));
    assert!(!tier.store.written(hash, written, Some(place)));
    tier.work(usize::MAX);
    assert!(tier.restarted(6, true).store.find_on_disk(hash, at(6)).is_none());
    tier.store.check();
}

#[test]
fn value_whose_record_is_lost_leaves_no_trace() {
    let mut tier = filled(800);
    let n = (0..800)
        .find(|n| tier.store.find_on_disk(key(&name(*n)).hash(), at(5)).is_some())
        .expect("one is on disk");
    let hash = key(&name(n)).hash();
    let entry = tier.store.find_on_disk(hash, at(5)).expect("it is on disk");
    tier.list[index(entry.place)] = None;
    assert_eq!(tier.read(&name(n), 5), None);
    assert_eq!(tier.store.version(hash), None, "repair fetches it");
    tier.store.check();
}

#[test]
fn clock_that_was_wrong_gives_up_what_is_on_disk() {
    let mut tier = filled(800);
    tier.store.restamp(|_| true, -1_000);
    tier.store.check();
    tier.work(usize::MAX);
    assert_eq!(tier.store.disk_counts().entries, 0);
    assert_eq!(tier.restarted(6, true).store.disk_counts().entries, 0);
}

#[test]
fn small_short_lived_and_unread_values_stay_off_the_disk() {
    let tier = Tier::new(256 << 10, false);
    for n in 0..2_000 {
        tier.store.apply(&put_bytes(&name(n), 1, 1_000, version(1 + n, 1)), at(0));
    }
    assert_eq!(tier.store.disk_counts().entries, 0, "they were never read");
    let tier = Tier::new(256 << 10, true);
    for n in 0..2_000 {
        tier.store.apply(&put_bytes(&name(n), 1, 99, version(1 + n, 1)), at(945_000));
        tier.store.apply(&put_bytes(&name(n), 1, 1_000, version(1 + n, 1)), at(945_000));
    }
    assert_eq!(tier.store.disk_counts().entries, 0, "they are small or live for 55 seconds");
}

#[derive(Clone, Debug)]
enum Step {
    Put { key: u64, bytes: usize },
    Delete { key: u64 },
    Read { key: u64 },
    Work { jobs: usize },
    GiveUp { records: usize },
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..120u64, 50..3_000usize).prop_map(|(key, bytes)| Step::Put { key, bytes }),
        2 => (0..120u64).prop_map(|key| Step::Delete { key }),
        6 => (0..120u64).prop_map(|key| Step::Read { key }),
        4 => (1..20usize).prop_map(|jobs| Step::Work { jobs }),
        1 => (1..30usize).prop_map(|records| Step::GiveUp { records }),
        1 => Just(Step::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// A read gives the last value of its key or none, and after a restart nothing that was replaced or deleted
    /// and acknowledged.
    #[test]
    fn reads_are_right_whatever_goes_to_disk(
        steps in prop::collection::vec(step(), 1..400),
        admits_unread: bool,
    ) {
        let mut tier = Tier::new(64 << 10, admits_unread);
        // The last value of each key, and the highest version whose value must not be served any more after a
        // restart.
        let mut last: BTreeMap<u64, (Version, usize, bool)> = BTreeMap::new();
        let mut acknowledged: BTreeMap<u64, Version> = BTreeMap::new();
        for (n, step) in steps.into_iter().enumerate() {
            let now = n as u64;
            let stamp = version(1 + now, 1);
            match step {
                Step::Put { key, bytes } => {
                    tier.store.apply(&put_bytes(&name(key), key as u8, bytes, stamp), at(now));
                    last.insert(key, (stamp, bytes, true));
                }
                Step::Delete { key } => {
                    tier.store.apply(&delete(&name(key), stamp), at(now));
                    last.insert(key, (stamp, 0, false));
                }
                Step::Read { key } => {
                    if let Some(entry) = tier.read(&name(key), now) {
                        let (version, bytes, is_value) = last[&key];
                        prop_assert!(is_value);
                        prop_assert_eq!((entry.version, entry.value.len()), (version, bytes));
                        prop_assert!(entry.value.iter().all(|byte| *byte == key as u8));
                    }
                }
                Step::Work { jobs } => tier.work(jobs),
                Step::GiveUp { records } => (0..records).for_each(|_| tier.give_up_first()),
                Step::Restart => {
                    tier = tier.restarted(now, admits_unread);
                    for key in 0..120 {
                        let Some(entry) = tier.read(&name(key), now) else { continue };
                        let least = acknowledged.get(&key).copied();
                        prop_assert!(Some(entry.version) >= least, "{key} went back");
                        prop_assert!(entry.value.iter().all(|byte| *byte == key as u8));
                        let is_value = last.get(&key).is_none_or(|last| last.2 || least < Some(last.0));
                        prop_assert!(is_value, "{} was deleted", key);
                        last.insert(key, (entry.version, entry.value.len(), true));
                    }
                }
            }
            if tier.is_safe() {
                for (key, (version, _, is_value)) in &last {
                    acknowledged.insert(*key, *version);
                    if !is_value {
                        // A version above the deleted one.
                        let above = Version::new(version.stamp() + 1, version.incarnation());
                        acknowledged.insert(*key, above);
                    }
                }
            }
            tier.store.check();
        }
    }
}
