//! Unit tests of the store.

use alloc::{format, vec, vec::Vec};

use bytes::Bytes;

use super::*;
use crate::{entry::Change, time::Instant, version::Incarnation};

pub(super) type TestStore = Store<SingleThread>;

const WALL_MS: u64 = 1_800_000_000_000;

pub(super) fn at(ms: u64) -> Now {
    Now::new(ms, WALL_MS + ms)
}

pub(super) fn key(name: &str) -> Key {
    Key::within(Bytes::copy_from_slice(name.as_bytes()), 1024).unwrap()
}

pub(super) fn version(stamp_ms: u64, writer: u64) -> Version {
    Version::new((WALL_MS + stamp_ms) << Version::COUNTER_BITS, Incarnation(writer))
}

pub(super) fn put(name: &str, value: &str, version: Version, expires_ms: u64) -> Record {
    let change = Change::Put {
        value: Bytes::copy_from_slice(value.as_bytes()),
        metadata: Bytes::new(),
        expires: Instant::from_millis(expires_ms),
    };
    Record { key: key(name), version, change }
}

pub(super) fn delete(name: &str, version: Version) -> Record {
    Record { key: key(name), version, change: Change::Delete }
}

pub(super) fn store(entries_max: u64, bytes_max: u64) -> TestStore {
    TestStore::new(Capacity { entries_max, bytes_max })
}

fn value(store: &TestStore, name: &str, ms: u64) -> Option<Bytes> {
    store.get(&key(name), at(ms)).hit().map(|entry| entry.value)
}

fn held(store: &TestStore, names: &[&str], ms: u64) -> Vec<bool> {
    names.iter().map(|name| store.peek(&key(name), at(ms)).is_hit()).collect()
}

#[test]
fn expired_value_is_not_served_and_leaves_a_tombstone() {
    let store = store(10, 1 << 20);
    store.apply(&put("k", "v2", version(2, 1), 1_000), at(0));
    assert_eq!(value(&store, "k", 999).as_deref(), Some(&b"v2"[..]));
    assert_eq!(value(&store, "k", 1_000), None);
    // Contract, edge case 2: an older write with a longer lifetime arrives after the expiry.
    let late = put("k", "v1", version(1, 1), 3_600_000);
    assert_eq!(store.apply(&late, at(1_001)), ApplyOutcome::Superseded(version(2, 1)));
    assert_eq!(value(&store, "k", 1_002), None);
}

#[test]
fn delete_of_an_unknown_key_supersedes_an_older_put() {
    let store = store(10, 1 << 20);
    assert_eq!(store.apply(&delete("k", version(5, 1)), at(0)), ApplyOutcome::Applied);
    assert_eq!(
        store.apply(&put("k", "old", version(4, 9), 9_000), at(1)),
        ApplyOutcome::Superseded(version(5, 1))
    );
    assert_eq!(value(&store, "k", 2), None);
    assert_eq!(store.apply(&put("k", "new", version(6, 1), 9_000), at(3)), ApplyOutcome::Applied);
    assert_eq!(value(&store, "k", 4).as_deref(), Some(&b"new"[..]));
    assert_eq!(store.stats().tombstones, 0);
}

#[test]
fn evicted_entry_does_not_return_in_an_older_or_equal_version() {
    let store = store(1, 1 << 20);
    let first = put("a", "1", version(1, 1), 9_000);
    store.apply(&first, at(0));
    store.apply(&put("b", "2", version(2, 1), 9_000), at(0));
    assert_eq!(held(&store, &["a", "b"], 0), [false, true]);
    assert_eq!(store.apply(&first, at(1)), ApplyOutcome::Duplicate);
    assert_eq!(held(&store, &["a", "b"], 1), [false, true]);
}

#[test]
fn earlier_expiry_wins_at_equal_versions() {
    let store = store(10, 1 << 20);
    store.apply(&put("k", "v", version(1, 1), 5_000), at(0));
    store.apply(&put("k", "v", version(1, 1), 2_000), at(0));
    store.apply(&put("k", "v", version(1, 1), 8_000), at(0));
    assert!(value(&store, "k", 1_999).is_some());
    assert!(value(&store, "k", 2_000).is_none());
}

#[test]
fn eviction_order_is_expired_then_unread_then_least_recently_used() {
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
    // All entries but the new one were read: the least recently used one is evicted.
    for name in ["e", "f"] {
        assert!(value(&store, name, 700).is_some());
    }
    store.apply(&put("g", "v", version(2, 1), 9_000), at(700));
    assert_eq!(held(&store, &names, 700), [false, true, false, false, true, true, true, false]);
    let counts = store.stats().counts;
    assert_eq!((counts.expired, counts.evicted, counts.hits), (1, 2, 4));
}

#[test]
fn value_too_large_still_drops_the_older_one() {
    let store = store(10, 2_000);
    store.apply(&put("k", "small", version(1, 1), 9_000), at(0));
    let big = "x".repeat(4_000);
    assert_eq!(store.apply(&put("k", &big, version(2, 1), 9_000), at(0)), ApplyOutcome::Applied);
    assert_eq!(value(&store, "k", 1), None);
    assert_eq!(store.stats().counts.rejected_too_large, 1);
    assert_eq!(
        store.apply(&put("k", "small", version(1, 1), 9_000), at(2)),
        ApplyOutcome::Superseded(version(2, 1))
    );
}

#[test]
fn record_older_than_the_retention_is_rejected_for_an_unknown_key() {
    let store = store(10, 1 << 20);
    let now = at(RETENTION_MS + 10_000);
    let old = put("k", "v", version(5_000, 1), RETENTION_MS * 2);
    assert_eq!(store.apply(&old, now), ApplyOutcome::TooOld);
    let young = put("k", "v", version(20_000, 1), RETENTION_MS * 2);
    assert_eq!(store.apply(&young, now), ApplyOutcome::Applied);
}

#[test]
fn tombstones_are_bounded_and_shorten_the_retention() {
    // 1/16 of 1 MiB is room for 1,424 tombstones, 22 in each shard.
    let store = store(100, 1 << 20);
    assert_eq!(store.retention_ms(at(0)), RETENTION_MS);
    for n in 0..20_000u64 {
        store.apply(&delete(&format!("k{n}"), version(n, 1)), at(n));
    }
    let stats = store.stats();
    assert!(stats.tombstones <= 1_424, "{} tombstones", stats.tombstones);
    assert!(stats.bytes <= 1 << 16, "{} bytes", stats.bytes);
    assert!(store.retention_ms(at(20_000)) < 20_000);
    // Every shard has dropped tombstones, so that none can tell this write from a deleted one.
    for n in 0..1_000 {
        let old = put(&format!("new{n}"), "v", version(1, 1), 90_000);
        assert_eq!(store.apply(&old, at(20_000)), ApplyOutcome::TooOld);
    }
}

#[test]
fn writes_after_a_burst_of_deletes_are_applied() {
    let store = store(100, 1 << 20);
    let stamped =
        |counter: u64| Version::new((WALL_MS << Version::COUNTER_BITS) + counter, Incarnation(1));
    for n in 0..5_000u64 {
        store.apply(&delete(&format!("k{n}"), stamped(n)), at(0));
    }
    // In the same millisecond, but stamped after everything that this node saw.
    for n in 5_000..5_200u64 {
        let record = put(&format!("k{n}"), "v", stamped(n), 9_000);
        assert_eq!(store.apply(&record, at(0)), ApplyOutcome::Applied);
    }
}

#[test]
fn sweep_drops_entries_and_tombstones_without_reads() {
    let store = store(1_000, 1 << 20);
    for n in 0..100u64 {
        store.apply(&put(&format!("k{n}"), "v", version(n, 1), 1_000 + n), at(n));
    }
    assert_eq!(store.sweep(at(1_050), 1_000), 51);
    assert_eq!(store.sweep(at(60_000), 10), 10);
    assert_eq!(store.sweep(at(60_000), 1_000), 39);
    assert_eq!((store.stats().entries, store.stats().tombstones), (0, 100));
    let much_later = at(RETENTION_MS + 10_000);
    assert_eq!(store.sweep(much_later, 30), 30);
    // Tombstones past the retention count as absent before they are dropped.
    assert_eq!(store.version(key("k0").hash()), None);
    assert_eq!(
        store.apply(&put("k0", "v", version(50, 1), RETENTION_MS + 90_000), much_later),
        ApplyOutcome::TooOld
    );
    store.check();
    store.sweep(much_later, 1_000);
    assert_eq!(store.stats(), Stats { counts: store.stats().counts, ..Stats::default() });
}

#[test]
fn stored_value_does_not_keep_its_buffer_alive() {
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

#[test]
fn keys_with_equal_table_bits_are_distinguished() {
    // In one shard, and equal in the 32 bits that a slot stores.
    let (one, other) = ("key666471", "key884943");
    let bits = |name| TableHasher::default().bits(key(name).hash());
    assert_eq!(key(one).hash().shard(), key(other).hash().shard());
    assert_eq!(bits(one), bits(other));
    let store = store(10, 1 << 20);
    store.apply(&put(one, "1", version(1, 1), 9_000), at(0));
    assert_eq!((value(&store, other, 1), store.version(key(other).hash())), (None, None));
    store.apply(&put(other, "2", version(2, 1), 9_000), at(0));
    assert_eq!(value(&store, one, 1).as_deref(), Some(&b"1"[..]));
    store.apply(&delete(one, version(3, 1)), at(2));
    assert_eq!(value(&store, one, 3), None);
    assert_eq!(value(&store, other, 3).as_deref(), Some(&b"2"[..]));
    store.check();
}

#[test]
fn readers_copy_small_values_and_share_large_ones() {
    let store = store(10, 1 << 20);
    let large = "x".repeat(10_000);
    store.apply(&put("small", "v", version(1, 1), 9_000), at(0));
    store.apply(&put("large", &large, version(2, 1), 9_000), at(0));
    let seen = store.read(b"small", at(1), |entry| {
        assert_eq!((entry.version, entry.metadata), (version(1, 1), &b""[..]));
        (entry.value.to_vec(), entry.expires)
    });
    assert_eq!(seen, Lookup::Hit((b"v".to_vec(), Instant::from_millis(9_000))));
    let keep = || store.read(b"large", at(1), |entry| entry.to_value()).hit().unwrap();
    let (first, second) = (keep(), keep());
    assert_eq!((&first[..], first.as_ptr()), (large.as_bytes(), second.as_ptr()));
    assert_eq!(store.read(b"none", at(1), |_| ()), Lookup::Miss { known: 0 });
    let expired = store.read(b"small", at(9_000), |_| ());
    assert!(matches!(expired, Lookup::Miss { known: 1.. }), "{expired:?}");
    assert_eq!(store.read(b"small", at(9_000), |_| ()), expired, "its tombstone");
    let counts = store.stats().counts;
    assert_eq!((counts.hits, counts.misses, counts.expired), (3, 3, 1));
    // A shared value outlives its entry.
    store.apply(&delete("large", version(3, 1)), at(2));
    assert_eq!(&first[..], large.as_bytes());
}

#[test]
fn log_gaps_are_bounded_under_churn() {
    // One shard only, so that its segments are full.
    let mut names = (0..).map(|n| format!("k{n}")).filter(|name| key(name).hash().shard() == 0);
    let store = store(u64::MAX, 4 << 20);
    let mut random = 1_u64;
    let mut next = move |below: u64| {
        random =
            random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    let mut names = names.by_ref().take(60_000).collect::<Vec<_>>().into_iter();
    for (round, size) in [20u64, 7_000, 200, 3_000, 20, 8_000].into_iter().enumerate() {
        for n in 0..4_000u64 {
            let Some(name) = names.next() else { break };
            let value = "x".repeat((size / 2 + next(size)) as usize);
            store
                .apply(&put(&name, &value, version(round as u64 * 10_000 + n, 1), u64::MAX), at(0));
            // Some are read, so that others around them are evicted first.
            if next(3) == 0 {
                assert_eq!(self::value(&store, &name, 1).as_deref(), Some(value.as_bytes()));
            }
        }
        let (held, live) = store.shard(0).with(|shard| shard.log_bytes());
        assert!(held <= live + live / 3 + (4 << 16), "{held} for {live} after {size}");
        store.check();
    }
}

#[test]
fn colliding_keys_do_not_form_chains() {
    let keys = super::table_hasher::tests::agreeing_keys(5_000);
    let store = TestStore::keyed(
        Capacity { entries_max: 2_500, bytes_max: 1 << 30 },
        [0x0ddc_0ffe_e0dd_f00d, 0xfeed_5eed],
    );
    for (n, key) in keys.iter().enumerate() {
        let key = Key::within(Bytes::copy_from_slice(key), 1024).unwrap();
        let change = Change::Put {
            value: Bytes::from_static(b"v"),
            metadata: Bytes::new(),
            expires: at(60_000).mono,
        };
        store.apply(&Record { key, version: version(n as u64, 1), change }, at(0));
    }
    // Half of the keys are entries, and half are tombstones of evicted ones.
    let [entries, tombstones] = store.shard(0).with(|shard| shard.longest_chains());
    assert!(
        entries <= 3 && tombstones <= 3,
        "{entries} entries and {tombstones} tombstones in one chain"
    );
    store.check();
}

#[test]
fn one_write_drops_few_old_tombstones() {
    let store = TestStore::with_tombstones(
        Capacity { entries_max: 100, bytes_max: 1 << 30 },
        100_000,
        TableHasher::default(),
    );
    for n in 0..20_000u64 {
        store.apply(&delete(&format!("k{n}"), version(0, n)), at(0));
    }
    let later = at(RETENTION_MS + 1);
    let before = store.stats().tombstones;
    assert_eq!(
        store.apply(&put("new", "v", version(RETENTION_MS, 1), u64::MAX), later),
        ApplyOutcome::Applied
    );
    let dropped = before - store.stats().tombstones;
    assert!(dropped <= DROPPED_MAX as u64, "one write dropped {dropped} tombstones");
    let _ = (store.first_complete_second(later), store.forget_before(later.wall_ms / 1_000));
    assert!(before - store.stats().tombstones <= DROPPED_MAX as u64);
    store.check();
}

/// Writes new keys until the store has evicted as many entries.
fn scan(store: &TestStore, from: u64, count: u64) {
    for n in from..from + count {
        store.apply(&put(&format!("scan{n}"), "v", version(n, 1), 9_000), at(0));
    }
}

#[test]
fn key_stored_again_soon_after_its_eviction_outlives_a_scan() {
    // Few enough entries that the twelfth of them is none.
    let stored_again = |deleted: bool, evictions_between: u64| {
        let store = store(200, 1 << 20);
        store.apply(&put("k", "v", version(1, 1), 9_000), at(0));
        scan(&store, 10, 200);
        assert_eq!(held(&store, &["k"], 0), [false], "a scan displaces what was not read");
        if deleted {
            store.apply(&delete("k", version(2, 1)), at(0));
        }
        scan(&store, 1_000, evictions_between);
        store.apply(&put("k", "v", version(3, 1), 9_000), at(0));
        scan(&store, 10_000, 1_000);
        held(&store, &["k"], 0)[0]
    };
    assert!(stored_again(false, 10));
    assert!(stored_again(false, 120));
    assert!(!stored_again(false, 150), "longer ago than two thirds of the entries");
    assert!(!stored_again(true, 10), "a deleted key is not missed");
}

#[test]
fn expired_key_is_not_missed() {
    let store = store(200, 1 << 20);
    store.apply(&put("k", "v", version(1, 1), 100), at(0));
    store.sweep(at(100), 10);
    scan(&store, 10, 200);
    store.apply(&put("k", "v", version(3, 1), 9_000), at(100));
    scan(&store, 1_000, 300);
    assert_eq!(held(&store, &["k"], 100), [false]);
}

#[test]
fn entry_is_spared_once_for_each_use_up_to_three() {
    // The writes of entries that are read once, until the first entry is evicted.
    let survived = |reads: usize| {
        let store = store(10, 1 << 20);
        store.apply(&put("k", "v", version(1, 1), 9_000), at(0));
        (0..reads).for_each(|_| assert!(value(&store, "k", 0).is_some()));
        let survives = |n: &u64| {
            let name = format!("other{n}");
            store.apply(&put(&name, "v", version(*n, 1), 9_000), at(0));
            assert!(value(&store, &name, 0).is_some());
            held(&store, &["k"], 0)[0]
        };
        (2..1_000).take_while(survives).count()
    };
    // The first read moves it to the read entries, and nine stand before it each time.
    assert_eq!([1, 2, 3, 4, 5, 50].map(survived), [9, 18, 27, 36, 36, 36]);
}

#[test]
fn lru_evicts_the_entry_whose_last_access_is_longest_ago() {
    let store = store(4, 1 << 20).with_policy(EvictionPolicy::Lru);
    let names = ["a", "b", "c", "d", "e", "f"];
    let write = |name, n| store.apply(&put(name, "v", version(n, 1), 9_000), at(0));
    let read =
        |names: &[&str]| names.iter().for_each(|name| assert!(value(&store, name, 0).is_some()));
    for name in ["a", "b", "c", "d"] {
        write(name, 1);
    }
    read(&["a", "b", "c", "d"]);
    write("e", 1);
    assert_eq!(held(&store, &names, 0), [false, true, true, true, true, false]);
    read(&["b", "c", "d", "e"]);
    write("f", 1);
    assert_eq!(held(&store, &names, 0), [false, false, true, true, true, true]);
    // A write is an access, too.
    write("c", 2);
    write("a", 2);
    assert_eq!(held(&store, &names, 0), [true, false, true, false, true, true]);
    store.check();
}
