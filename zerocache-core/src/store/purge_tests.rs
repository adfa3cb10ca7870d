//! Tests of purges in the store.

use alloc::{format, string::ToString, vec::Vec};

use bytes::Bytes;

use super::{
    tests::{TestStore, at, key, put, store, version},
    *,
};
use crate::{
    entry::{Change, Record},
    metadata::Metadata,
    purge::{PurgeMode, PurgeTarget, PurgeValue},
    time::Instant,
};

const LIFE_MS: u64 = RETENTION_MS + 60_000;

fn tag(name: &str) -> PurgeTarget {
    PurgeTarget::tag(name).unwrap()
}

fn purge(target: &PurgeTarget, mode: PurgeMode, stamp_ms: u64, hold_ms: u64) -> Record {
    let value = PurgeValue { hold_ms, life_ms: LIFE_MS }.encode();
    let expires = Instant::from_millis(stamp_ms + LIFE_MS);
    let change = Change::Put { value, metadata: Bytes::new(), expires };
    Record { key: target.key(mode), version: version(stamp_ms, 5), change }
}

fn hard(name: &str, stamp_ms: u64) -> Record {
    purge(&tag(name), PurgeMode::Hard, stamp_ms, 0)
}

fn tagged(name: &str, tags: &[&str], stamp_ms: u64) -> Record {
    with_stale(name, tags, stamp_ms, 0)
}

fn with_stale(name: &str, tags: &[&str], stamp_ms: u64, stale_ms: u64) -> Record {
    let mut metadata = Metadata::default();
    metadata.stale_while_ms = stale_ms;
    tags.iter().for_each(|tag| metadata.add_tag(*tag).unwrap());
    let mut record = put(name, "v", version(stamp_ms, 1), 9_000_000);
    let Change::Put { metadata: encoded, .. } = &mut record.change else { unreachable!() };
    *encoded = metadata.encode();
    record
}

fn is_hit(store: &TestStore, name: &str, ms: u64) -> bool {
    let found = store.get(&key(name), at(ms)).is_hit();
    assert!(store.peek(&key(name), at(ms)).is_hit() == found || !found);
    found
}

fn sweep(store: &TestStore, ms: u64) -> usize {
    (0..).take_while(|_| store.sweep_purged(at(ms), 16)).count()
}

#[test]
fn purged_entries_give_way_before_all_others() {
    let store = store(100, 1 << 20);
    let kept: Vec<_> = (0..60).map(|n| format!("kept{n}")).collect();
    for name in &kept {
        store.apply(&tagged(name, &[], 10), at(10));
    }
    for n in 0..40 {
        let name = format!("ended{n}");
        store.apply(&tagged(&name, &["a"], 10), at(10));
        (0..5).for_each(|_| assert!(is_hit(&store, &name, 10)));
    }
    store.apply(&hard("a", 20), at(20));
    for n in 0..40 {
        store.apply(&tagged(&format!("new{n}"), &[], 30), at(30));
    }
    assert!(kept.iter().all(|name| store.peek(&key(name), at(30)).is_hit()), "unread, and kept");
    let counts = store.stats().counts;
    assert_eq!((counts.purged, counts.evicted), (40, 0));
    store.check();
}

#[test]
fn purge_ends_what_is_here_and_what_arrives_later() {
    let store = store(100, 1 << 20);
    store.apply(&tagged("here", &["a", "b"], 10), at(0));
    store.apply(&tagged("other", &["b"], 10), at(0));
    store.apply(&put("untagged", "v", version(10, 1), 9_000_000), at(0));
    assert_eq!(store.apply(&hard("a", 20), at(20)), ApplyOutcome::Applied);
    assert!(!is_hit(&store, "here", 21));
    assert!(is_hit(&store, "other", 21) && is_hit(&store, "untagged", 21));
    // Replication, and a copy of another node.
    assert_eq!(store.apply(&tagged("late", &["a"], 19), at(22)), ApplyOutcome::Purged);
    assert_eq!(store.import(&tagged("copied", &["a"], 19), at(22)), ApplyOutcome::Purged);
    assert!(!is_hit(&store, "late", 23) && !is_hit(&store, "copied", 23));
    assert_eq!(store.version(key("late").hash()), Some(version(19, 1)));
    // A newer value lives.
    assert_eq!(store.apply(&tagged("here", &["a"], 21), at(24)), ApplyOutcome::Applied);
    assert!(is_hit(&store, "here", 25));
    store.check();
}

#[test]
fn order_of_purge_and_puts_does_not_matter() {
    let records = [
        tagged("k", &["a"], 10),
        hard("a", 20),
        tagged("k", &["a"], 15),
        purge(&tag("a"), PurgeMode::Soft, 30, 0),
        tagged("l", &["a"], 25),
        hard("a", 12),
    ];
    let mut orders = Vec::new();
    for first in 0..records.len() {
        for second in 0..records.len() {
            let mut order: Vec<_> = (0..records.len()).collect();
            order.swap(0, first);
            order.swap(1, second);
            orders.push(order);
        }
    }
    let mut outcomes = Vec::new();
    for order in orders {
        let store = store(100, 1 << 20);
        for index in order {
            store.apply(&records[index], at(40));
        }
        sweep(&store, 41);
        store.check();
        let known = ["k", "l"].map(|name| store.version(key(name).hash()));
        let hits = ["k", "l"].map(|name| is_hit(&store, name, 42));
        let second = version(0, 0).wall_ms() / 1_000;
        outcomes.push((known, hits, store.digests_by_second(second, second)));
    }
    assert!(outcomes.iter().all(|outcome| *outcome == outcomes[0]));
    assert_eq!(outcomes[0].0, [Some(version(15, 1)), Some(version(25, 1))]);
    assert_eq!(outcomes[0].1, [false; 2]);
}

#[test]
fn everything_namespaces_and_functions_are_purged_without_tags() {
    let memoized = |namespace: &str, function: u8| {
        let length = u8::try_from(namespace.len()).unwrap();
        let id = [function; 16];
        Bytes::from([&[2, length], namespace.as_bytes(), &id, b"args"].concat())
    };
    let names = [("", 1), ("shop", 1), ("shop", 2)];
    let namespace = "shop".to_string();
    let function = PurgeTarget::Function { namespace: namespace.clone(), id: [2; 16] };
    for (target, left) in [
        (PurgeTarget::Everything, [false, false, false, false]),
        (PurgeTarget::Namespace(namespace), [true, false, false, true]),
        (PurgeTarget::Namespace(alloc::string::String::new()), [false, true, true, true]),
        (function, [true, true, false, true]),
    ] {
        let store = store(100, 1 << 20);
        let keys = names.map(|(namespace, function)| {
            let mut record = put("x", "v", version(10, 1), 9_000_000);
            record.key = Key::within(memoized(namespace, function), 1024).unwrap();
            store.apply(&record, at(0));
            record.key
        });
        store.apply(&put("raw", "v", version(10, 1), 9_000_000), at(0));
        store.apply(&purge(&target, PurgeMode::Hard, 20, 0), at(20));
        let hits = [&keys[0], &keys[1], &keys[2], &key("raw")];
        assert_eq!(hits.map(|key| store.get(key, at(21)).is_hit()), left, "{target:?}");
    }
}

#[test]
fn soft_purge_ends_the_fresh_time_alone() {
    let store = store(100, 1 << 20);
    store.apply(&with_stale("stale", &["a"], 10, 5_000), at(10));
    store.apply(&tagged("none", &["a"], 10), at(10));
    store.apply(&purge(&tag("a"), PurgeMode::Soft, 1_000, 0), at(1_000));
    assert!(!is_hit(&store, "none", 1_001));
    let entry = store.peek(&key("stale"), at(1_001)).hit().unwrap();
    assert_eq!(entry.expires, Instant::from_millis(6_000));
    let entry = store.get(&key("stale"), at(1_001)).hit().unwrap();
    assert_eq!(entry.expires, Instant::from_millis(6_000));
    assert!(is_hit(&store, "stale", 5_999) && !is_hit(&store, "stale", 6_000));
    // A hard purge ends it whatever soft ones came later.
    store.apply(&with_stale("stale", &["a"], 6_500, 5_000), at(6_500));
    store.apply(&hard("a", 7_000), at(7_000));
    store.apply(&purge(&tag("a"), PurgeMode::Soft, 8_000, 0), at(8_000));
    assert!(!is_hit(&store, "stale", 8_001));
}

#[test]
fn hold_ends_writes_of_a_while_after_the_purge_too() {
    let store = store(100, 1 << 20);
    store.apply(&purge(&tag("a"), PurgeMode::Hard, 1_000, 500), at(1_000));
    assert_eq!(store.apply(&tagged("k", &["a"], 1_500), at(1_501)), ApplyOutcome::Purged);
    assert_eq!(store.apply(&tagged("k", &["a"], 1_501), at(1_502)), ApplyOutcome::Applied);
    assert!(is_hit(&store, "k", 1_503));
}

#[test]
fn sweep_returns_memory_and_changes_no_version() {
    let store = store(10_000, 1 << 24);
    for n in 0..1_000_u64 {
        let tags: &[&str] = if n % 4 == 0 { &["a"] } else { &["b"] };
        store.apply(&tagged(&format!("k{n}"), tags, 10), at(0));
    }
    store.apply(&with_stale("stale", &["a"], 10, 5_000), at(0));
    store.apply(&hard("a", 20), at(20));
    let second = version(0, 0).wall_ms() / 1_000;
    let before = (store.stats().bytes, store.digests_by_second(second, second));
    let steps = sweep(&store, 21);
    assert!(steps >= 64, "{steps}");
    assert_eq!(store.stats().counts.purged, 251);
    assert!(store.stats().bytes < before.0);
    assert_eq!(store.digests_by_second(second, second), before.1);
    assert_eq!((0..1_000).filter(|n| is_hit(&store, &format!("k{n}"), 22)).count(), 750);
    assert_eq!(sweep(&store, 23), 0, "one sweep for each purge");
    store.check();
}

#[test]
fn repeated_purge_sweeps_nothing_and_a_longer_hold_does() {
    let store = store(100, 1 << 20);
    store.apply(&tagged("k", &["a"], 10), at(0));
    store.apply(&hard("a", 20), at(20));
    store.apply(&purge(&tag("a"), PurgeMode::Soft, 30, 0), at(30));
    assert!(sweep(&store, 31) > 0);
    for repeated in [hard("a", 20), hard("a", 15), purge(&tag("a"), PurgeMode::Soft, 30, 0)] {
        store.apply(&repeated, at(40));
        assert_eq!(sweep(&store, 41), 0, "{repeated:?}");
    }
    store.apply(&purge(&tag("a"), PurgeMode::Hard, 20, 500), at(42));
    assert!(sweep(&store, 43) > 0);
    store.check();
}

#[test]
fn purges_are_neither_read_nor_evicted_and_go_after_the_retention() {
    let store = store(3, 1 << 20);
    store.apply(&hard("a", 20), at(20));
    let purge_key = tag("a").key(PurgeMode::Hard);
    for n in 0..50 {
        store.apply(&tagged(&format!("k{n}"), &["b"], 30), at(30));
    }
    assert!(!store.get(&purge_key, at(31)).is_hit() && !store.peek(&purge_key, at(31)).is_hit());
    assert_eq!(store.apply(&tagged("old", &["a"], 19), at(31)), ApplyOutcome::Purged);
    assert!(matches!(store.item(purge_key.hash(), at(31)), Some(StoredItem::Value(_))));
    sweep(&store, 32);
    assert_eq!((store.stats().purges, store.stats().entries), (1, 3), "it is none of the entries");
    let end = 21 + LIFE_MS;
    store.sweep(at(end), usize::MAX);
    sweep(&store, end);
    assert_eq!(store.stats().purges, 0);
    // What it would end is too old to be judged.
    assert_eq!(store.apply(&tagged("late", &["a"], 19), at(end)), ApplyOutcome::TooOld);
    store.check();
}

#[test]
fn purge_of_everything_ends_no_purge() {
    let store = store(100, 1 << 20);
    let everything = PurgeTarget::Everything;
    store.apply(&hard("a", 10), at(10));
    store.apply(&purge(&everything, PurgeMode::Soft, 20, 0), at(20));
    store.apply(&purge(&everything, PurgeMode::Hard, 30, 5_000), at(30));
    assert_eq!(store.apply(&hard("b", 15), at(40)), ApplyOutcome::Applied);
    sweep(&store, 50);
    let copied = |target: &PurgeTarget, mode| {
        let key = target.key(mode);
        matches!(store.item(key.hash(), at(60)), Some(StoredItem::Value(_)))
    };
    assert!(copied(&tag("a"), PurgeMode::Hard) && copied(&tag("b"), PurgeMode::Hard));
    assert!(copied(&everything, PurgeMode::Soft) && copied(&everything, PurgeMode::Hard));
    store.check();
}

#[test]
fn copies_and_repair_carry_purges_and_nothing_that_they_ended() {
    let source = store(100, 1 << 20);
    source.apply(&tagged("dead", &["a"], 10), at(0));
    source.apply(&tagged("alive", &["b"], 10), at(0));
    source.apply(&hard("a", 20), at(20));
    let dead = key("dead").hash();
    assert_eq!(source.item(dead, at(21)), Some(StoredItem::Tombstone(dead, version(10, 1))));
    let copy = store(100, 1 << 20);
    for index in 0..SHARDS {
        let page = source.copy_page(index, CopyRange::default(), usize::MAX, at(21));
        for record in page.records {
            copy.import(&record, at(22));
        }
        for item in source.export(index, at(21)) {
            assert!(!matches!(item, StoredItem::Value(record) if record.key == key("dead")));
        }
    }
    assert!(is_hit(&copy, "alive", 23) && !is_hit(&copy, "dead", 23));
    assert_eq!(copy.apply(&tagged("dead", &["a"], 10), at(24)), ApplyOutcome::Purged);
}

#[test]
fn oldest_purges_give_way_and_raise_the_retention_floor() {
    let bytes_max = 1 << 20;
    let store = store(100_000, bytes_max);
    let mut n = 0;
    while !store.has_no_room_for_purges() {
        n += 1;
        store.apply(&hard(&format!("tag {n}"), 10_000 + n), at(20_000));
    }
    assert!((50..200).contains(&n), "{n}");
    // Peers with larger budgets accept more.
    for more in n..4 * n {
        let purge = hard(&format!("tag {more}"), 10_000 + more);
        assert_ne!(store.apply(&purge, at(20_000)), ApplyOutcome::TooOld);
    }
    store.check();
    sweep(&store, 20_001);
    sweep(&store, 20_002);
    assert!(store.stats().purges < 2 * n + 2, "{}", store.stats().purges);
    let late = tagged("late", &["tag 1"], 10_000);
    assert_eq!(store.apply(&late, at(20_003)), ApplyOutcome::TooOld);
}

#[test]
fn correction_of_a_clock_moves_purges_with_entries() {
    let store = store(100, 1 << 20);
    store.apply(&tagged("before", &["a"], 10), at(0));
    store.apply(&hard("a", 20), at(20));
    store.apply(&tagged("after", &["a"], 30), at(30));
    store.restamp(|_| true, -60_000);
    assert!(!is_hit(&store, "before", 31) && is_hit(&store, "after", 31));
    store.check();
}

/// The clock was ahead, and what a purge of another node holds reaches beyond the present: nobody stamped that.
#[test]
fn correction_of_a_clock_moves_no_purge_of_another_node() {
    for mode in [PurgeMode::Hard, PurgeMode::Soft] {
        let store = store(100, 1 << 20);
        store.apply(&purge(&tag("a"), mode, 20, 11_000), at(20));
        store.restamp(|stamped| stamped >= version(1_000, 0), -60_000);
        store.apply(&tagged("held", &["a"], 500), at(1_001));
        assert!(!is_hit(&store, "held", 1_001));
        store.apply(&tagged("after", &["a"], 11_021), at(11_021));
        assert!(is_hit(&store, "after", 11_021));
        store.check();
    }
}
