//! The store against a naive oracle, and its rules one by one.

use alloc::{collections::BTreeMap, format, vec, vec::Vec};

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::{entry::Change, version::Incarnation};

type TestStore = Store<SingleThread>;

const WALL_MS: u64 = 1_800_000_000_000;

fn at(ms: u64) -> Now {
    Now::new(ms, WALL_MS + ms)
}

fn key(name: &str) -> Key {
    Key::within(Bytes::copy_from_slice(name.as_bytes()), 1024).unwrap()
}

fn version(stamp_ms: u64, writer: u64) -> Version {
    Version::new((WALL_MS + stamp_ms) << Version::COUNTER_BITS, Incarnation(writer))
}

fn put(name: &str, value: &str, version: Version, expires_ms: u64) -> Record {
    let change = Change::Put {
        value: Bytes::copy_from_slice(value.as_bytes()),
        metadata: Bytes::new(),
        expires: Instant::from_millis(expires_ms),
    };
    Record { key: key(name), version, change }
}

fn delete(name: &str, version: Version) -> Record {
    Record { key: key(name), version, change: Change::Delete }
}

fn store(entries_max: u64, bytes_max: u64) -> TestStore {
    TestStore::new(Capacity { entries_max, bytes_max })
}

fn value(store: &TestStore, name: &str, ms: u64) -> Option<Bytes> {
    match store.get(&key(name), at(ms)) {
        Lookup::Hit(entry) => Some(entry.value),
        Lookup::Miss => None,
    }
}

fn held(store: &TestStore, names: &[&str], ms: u64) -> Vec<bool> {
    names.iter().map(|name| store.peek(&key(name), at(ms)).is_some()).collect()
}

#[test]
fn an_expired_value_is_never_served_and_leaves_a_trace() {
    let store = store(10, 1 << 20);
    store.apply(&put("k", "v2", version(2, 1), 1_000), at(0));
    assert_eq!(value(&store, "k", 999).as_deref(), Some(&b"v2"[..]));
    assert_eq!(value(&store, "k", 1_000), None);
    // Edge case 2: the older write with the longer life arrives after the expiry.
    let late = put("k", "v1", version(1, 1), 3_600_000);
    assert_eq!(store.apply(&late, at(1_001)), Applied::Older(version(2, 1)));
    assert_eq!(value(&store, "k", 1_002), None);
}

#[test]
fn a_delete_of_an_unknown_key_beats_an_older_put() {
    let store = store(10, 1 << 20);
    assert_eq!(store.apply(&delete("k", version(5, 1)), at(0)), Applied::Newer);
    assert_eq!(
        store.apply(&put("k", "old", version(4, 9), 9_000), at(1)),
        Applied::Older(version(5, 1))
    );
    assert_eq!(value(&store, "k", 2), None);
    assert_eq!(store.apply(&put("k", "new", version(6, 1), 9_000), at(3)), Applied::Newer);
    assert_eq!(value(&store, "k", 4).as_deref(), Some(&b"new"[..]));
    assert_eq!(store.stats().traces, 0);
}

#[test]
fn an_evicted_entry_does_not_come_back_in_an_older_or_equal_version() {
    let store = store(1, 1 << 20);
    let first = put("a", "1", version(1, 1), 9_000);
    store.apply(&first, at(0));
    store.apply(&put("b", "2", version(2, 1), 9_000), at(0));
    assert_eq!(held(&store, &["a", "b"], 0), [false, true]);
    assert_eq!(store.apply(&first, at(1)), Applied::Same);
    assert_eq!(held(&store, &["a", "b"], 1), [false, true]);
}

#[test]
fn at_equal_versions_the_earlier_expiry_wins() {
    let store = store(10, 1 << 20);
    store.apply(&put("k", "v", version(1, 1), 5_000), at(0));
    store.apply(&put("k", "v", version(1, 1), 2_000), at(0));
    store.apply(&put("k", "v", version(1, 1), 8_000), at(0));
    assert!(value(&store, "k", 1_999).is_some());
    assert!(value(&store, "k", 2_000).is_none());
}

#[test]
fn space_is_taken_from_expired_then_unread_then_least_recently_used() {
    let store = store(4, 1 << 20);
    for (name, expires) in [("a", 9_000), ("b", 9_000), ("c", 500), ("d", 9_000)] {
        store.apply(&put(name, "v", version(1, 1), expires), at(0));
    }
    for name in ["d", "b"] {
        assert!(value(&store, name, 100).is_some());
    }
    let names = ["a", "b", "c", "d", "e", "f", "g", "h"];
    store.apply(&put("e", "v", version(2, 1), 9_000), at(600));
    assert_eq!(held(&store, &names, 600), [true, true, false, true, true, false, false, false]);
    store.apply(&put("f", "v", version(2, 1), 9_000), at(600));
    assert_eq!(held(&store, &names, 600), [false, true, false, true, true, true, false, false]);
    // All that are held were read, but for the newcomer: the least recently used goes.
    for name in ["e", "f"] {
        assert!(value(&store, name, 700).is_some());
    }
    store.apply(&put("g", "v", version(2, 1), 9_000), at(700));
    assert_eq!(held(&store, &names, 700), [false, true, false, false, true, true, true, false]);
    let counts = store.stats().counts;
    assert_eq!((counts.expired, counts.evicted, counts.hits), (1, 2, 4));
}

#[test]
fn a_value_that_does_not_fit_still_drops_the_older_one() {
    let store = store(10, 2_000);
    store.apply(&put("k", "small", version(1, 1), 9_000), at(0));
    let big = "x".repeat(4_000);
    assert_eq!(store.apply(&put("k", &big, version(2, 1), 9_000), at(0)), Applied::Newer);
    assert_eq!(value(&store, "k", 1), None);
    assert_eq!(store.stats().counts.unkept, 1);
    assert_eq!(
        store.apply(&put("k", "small", version(1, 1), 9_000), at(2)),
        Applied::Older(version(2, 1))
    );
}

#[test]
fn a_record_older_than_the_retention_is_refused_for_an_unknown_key() {
    let store = store(10, 1 << 20);
    let now = at(RETENTION_MS + 10_000);
    let old = put("k", "v", version(5_000, 1), RETENTION_MS * 2);
    assert_eq!(store.apply(&old, now), Applied::TooOld);
    let young = put("k", "v", version(20_000, 1), RETENTION_MS * 2);
    assert_eq!(store.apply(&young, now), Applied::Newer);
}

#[test]
fn traces_are_bounded_and_the_retention_says_so() {
    // 1/16 of 1 MiB is room for 682 traces, 10 in each part.
    let store = store(100, 1 << 20);
    assert_eq!(store.retention_ms(at(0)), RETENTION_MS);
    for n in 0..20_000u64 {
        store.apply(&delete(&format!("k{n}"), version(n, 1)), at(n));
    }
    let stats = store.stats();
    assert!(stats.traces <= 682, "{} traces", stats.traces);
    assert!(stats.bytes <= 1 << 16, "{} bytes", stats.bytes);
    assert!(store.retention_ms(at(20_000)) < 20_000);
    // Every part has lost traces by now, so that none can tell this write from a deleted one.
    for n in 0..1_000 {
        let old = put(&format!("new{n}"), "v", version(1, 1), 90_000);
        assert_eq!(store.apply(&old, at(20_000)), Applied::TooOld);
    }
}

#[test]
fn a_burst_of_deletes_does_not_swallow_the_next_write() {
    let store = store(100, 1 << 20);
    let stamped =
        |counter: u64| Version::new((WALL_MS << Version::COUNTER_BITS) + counter, Incarnation(1));
    for n in 0..5_000u64 {
        store.apply(&delete(&format!("k{n}"), stamped(n)), at(0));
    }
    // In the same millisecond, but after everything that this node saw.
    for n in 5_000..5_200u64 {
        let record = put(&format!("k{n}"), "v", stamped(n), 9_000);
        assert_eq!(store.apply(&record, at(0)), Applied::Newer);
    }
}

#[test]
fn a_sweep_returns_memory_and_traces_without_reads() {
    let store = store(1_000, 1 << 20);
    for n in 0..100u64 {
        store.apply(&put(&format!("k{n}"), "v", version(n, 1), 1_000 + n), at(n));
    }
    assert_eq!(store.sweep(at(1_050), 1_000), 51);
    assert_eq!(store.sweep(at(60_000), 10), 10);
    assert_eq!(store.sweep(at(60_000), 1_000), 39);
    assert_eq!((store.stats().entries, store.stats().traces), (0, 100));
    store.sweep(at(RETENTION_MS + 10_000), 1_000);
    assert_eq!(store.stats(), Stats { counts: store.stats().counts, ..Stats::default() });
}

#[test]
fn a_stored_value_does_not_keep_its_buffer_alive() {
    let store = store(10, 1 << 20);
    let buffer = Bytes::from(vec![7u8; 65_536]);
    let record = Record {
        key: key("k"),
        version: version(1, 1),
        change: Change::Put {
            value: buffer.slice(10..110),
            metadata: Bytes::new(),
            expires: Instant::from_millis(9_000),
        },
    };
    store.apply(&record, at(0));
    drop(record);
    assert!(buffer.is_unique(), "the store holds the read buffer");
}

/// What a store may do, on few keys so that they meet.
#[derive(Clone, Debug)]
enum Op {
    Put { key: u8, stamp: u64, writer: u64, ttl_ms: u64, size: usize },
    Delete { key: u8, stamp: u64, writer: u64 },
    Get { key: u8 },
    Sweep,
    Wait { ms: u64 },
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (0..12u8, 0..40u64, 0..3u64, 1..4_000u64, 0..600usize).prop_map(
            |(key, stamp, writer, ttl_ms, size)| Op::Put { key, stamp, writer, ttl_ms, size }
        ),
        1 => (0..12u8, 0..40u64, 0..3u64)
            .prop_map(|(key, stamp, writer)| Op::Delete { key, stamp, writer }),
        4 => (0..12u8).prop_map(|key| Op::Get { key }),
        1 => Just(Op::Sweep),
        2 => (1..900u64).prop_map(|ms| Op::Wait { ms }),
    ]
}

/// The rules in their plainest form: one list, searched from end to end.
struct Oracle {
    capacity: Capacity,
    slots: Vec<OracleSlot>,
    versions: BTreeMap<u8, Version>,
    tick: u64,
}

#[derive(Clone)]
struct OracleSlot {
    key: u8,
    version: Version,
    expires: u64,
    weight: u64,
    read: bool,
    used: u64,
}

impl Oracle {
    fn write(&mut self, key: u8, version: Version, slot: Option<OracleSlot>, now: u64) {
        self.tick += 1;
        if let Some(known) = self.versions.get(&key).copied() {
            if known == version {
                // Equal versions: the earlier expiry wins.
                let expires = slot.map_or(u64::MAX, |slot| slot.expires);
                let held = self.slots.iter_mut().find(|held| held.key == key);
                if let Some(held) = held {
                    held.expires = held.expires.min(expires);
                }
                return;
            }
            if known > version {
                return;
            }
        }
        self.versions.insert(key, version);
        self.slots.retain(|held| held.key != key);
        if let Some(slot) = slot.filter(|slot| slot.expires > now) {
            self.slots.push(OracleSlot { used: self.tick, ..slot });
        }
        self.make_room(now);
    }

    fn traces(&self) -> u64 {
        (self.versions.len() - self.slots.len()) as u64
    }

    fn over(&self) -> Option<bool> {
        if self.slots.len() as u64 > self.capacity.entries_max {
            return Some(false);
        }
        let bytes: u64 = self.slots.iter().map(|slot| slot.weight).sum();
        let bytes = bytes + self.traces() * TRACE_BYTES;
        (bytes > self.capacity.bytes_max && !self.slots.is_empty()).then_some(true)
    }

    fn make_room(&mut self, now: u64) {
        while let Some(by_bytes) = self.over() {
            if let Some(index) = self.slots.iter().position(|slot| slot.expires <= now) {
                self.slots.remove(index);
                continue;
            }
            let unread: Vec<_> = self.slots.iter().filter(|slot| !slot.read).collect();
            let share_exceeded = if by_bytes {
                unread.iter().map(|slot| slot.weight).sum::<u64>() > self.capacity.bytes_max / 8
            } else {
                unread.len() as u64 > self.capacity.entries_max / 8
            };
            let read_class = !(unread.len() > 1 && share_exceeded);
            let victim = |read: bool| {
                self.slots.iter().filter(|s| s.read == read).min_by_key(|s| s.used).map(|s| s.key)
            };
            let victim = victim(read_class).or_else(|| victim(!read_class)).unwrap();
            self.slots.retain(|slot| slot.key != victim);
        }
    }

    fn get(&mut self, key: u8, now: u64) -> Option<Version> {
        self.tick += 1;
        self.slots.retain(|slot| slot.key != key || slot.expires > now);
        let slot = self.slots.iter_mut().find(|slot| slot.key == key)?;
        (slot.read, slot.used) = (true, self.tick);
        Some(slot.version)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Any sequence of operations gives what the plain list gives, and keeps to the bounds.
    #[test]
    fn behaves_like_the_oracle(
        ops in prop::collection::vec(op(), 1..120),
        entries_max in 1..10u64,
        bytes_max in 2_000..6_000u64,
    ) {
        // Traces are bounded by 1/16 of the budget; here all of them fit.
        let capacity = Capacity { entries_max, bytes_max };
        let store = Store::<SingleThread>::with_traces(capacity, 64);
        let mut oracle = Oracle { capacity, slots: vec![], versions: BTreeMap::new(), tick: 0 };
        let mut now = 0;
        for op in ops {
            match op {
                Op::Put { key, stamp, writer, ttl_ms, size } => {
                    let (name, value) = (format!("{key}"), "x".repeat(size));
                    let version = version(stamp, writer);
                    let record = put(&name, &value, version, now + ttl_ms);
                    let weight = (name.len() + size) as u64 + ENTRY_OVERHEAD_BYTES;
                    let slot = OracleSlot {
                        key, version, expires: now + ttl_ms, weight, read: false, used: 0,
                    };
                    store.apply(&record, at(now));
                    oracle.write(key, version, Some(slot), now);
                }
                Op::Delete { key, stamp, writer } => {
                    store.apply(&delete(&format!("{key}"), version(stamp, writer)), at(now));
                    oracle.write(key, version(stamp, writer), None, now);
                }
                Op::Get { key: name } => {
                    let found = match store.get(&key(&format!("{name}")), at(now)) {
                        Lookup::Hit(entry) => Some(entry.version),
                        Lookup::Miss => None,
                    };
                    prop_assert_eq!(found, oracle.get(name, now));
                }
                Op::Sweep => {
                    store.sweep(at(now), usize::MAX);
                    oracle.slots.retain(|slot| slot.expires > now);
                }
                Op::Wait { ms } => now += ms,
            }
            let stats = store.stats();
            prop_assert!(stats.entries <= entries_max);
            prop_assert!(stats.bytes <= bytes_max || stats.entries == 0);
            for (name, version) in &oracle.versions {
                let key = key(&format!("{name}"));
                prop_assert_eq!(store.version(key.hash()), Some(*version));
                // Which expired entry goes first is left open, which live one is not.
                let live = oracle.slots.iter().any(|s| s.key == *name && s.expires > now);
                prop_assert_eq!(store.peek(&key, at(now)).is_some(), live);
            }
        }
    }

    /// The same records in any order, with repeats, leave the same versions everywhere.
    #[test]
    fn merging_is_commutative_and_idempotent(
        writes in prop::collection::vec((0..4u8, 0..6u64, 0..3u64, any::<bool>()), 1..30),
        seed in any::<u64>(),
    ) {
        let record = |&(key, stamp, writer, is_put): &(u8, u64, u64, bool)| {
            let (name, version) = (format!("{key}"), version(stamp, writer * 2 + u64::from(is_put)));
            // One version names one write: its value and lifetime follow from it.
            if is_put { put(&name, &format!("{stamp}/{writer}"), version, 60_000) } else { delete(&name, version) }
        };
        let (a, b) = (store(100, 1 << 20), store(100, 1 << 20));
        for write in &writes {
            a.apply(&record(write), at(0));
        }
        let mut shuffled = writes.clone();
        shuffled.extend(writes.iter().take(5).copied());
        shuffled.sort_by_key(|write| xxhash_rust::xxh3::xxh3_64_with_seed(format!("{write:?}").as_bytes(), seed));
        for write in &shuffled {
            b.apply(&record(write), at(0));
        }
        for name in 0..4u8 {
            let key = key(&format!("{name}"));
            prop_assert_eq!(a.version(key.hash()), b.version(key.hash()));
            prop_assert_eq!(a.peek(&key, at(1)), b.peek(&key, at(1)));
        }
    }
}
