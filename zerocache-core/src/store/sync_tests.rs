//! Unit tests of digests, scans, copies and exports.

use alloc::{collections::BTreeSet, format, string::String, vec::Vec};

use proptest::prelude::*;

use super::{
    tests::{TestStore, at, delete, key, put, store, version},
    *,
};
use crate::{entry::Change, key::SHARDS};

/// The first second of the versions in these tests.
fn first_second() -> u64 {
    at(0).wall_ms / 1_000
}

fn name_of(record: &Record) -> String {
    String::from_utf8(record.key.as_bytes().to_vec()).unwrap()
}

/// The whole content of a store.
fn all_items(store: &TestStore, now: Now) -> Vec<StoredItem> {
    (0..SHARDS).flat_map(|shard| store.export(shard, now)).collect()
}

#[test]
fn equal_versions_have_equal_digests_for_values_and_tombstones() {
    let (a, b) = (store(100, 1 << 20), store(100, 1 << 20));
    let writes: Vec<_> = (0..60).map(|n| (format!("k{n}"), version(n * 100, 1))).collect();
    for (name, version) in &writes {
        a.apply(&put(name, "v", *version, 1_000_000), at(6_000));
        a.apply(&put(name, "v", *version, 1_000_000), at(6_000));
    }
    for (name, version) in writes.iter().rev() {
        // An older version came first; the value expired, was deleted or is only a tombstone here.
        b.apply(
            &put(name, "old", Version::new(version.stamp() - 1, version.incarnation()), 9_000),
            at(0),
        );
        match version.stamp() % 3 {
            0 => b.apply(&put(name, "v", *version, 6_001), at(6_000)),
            1 => b.apply(&delete(name, *version), at(6_000)),
            _ => b.apply_tombstone(key(name).hash(), *version, at(6_000)),
        };
    }
    b.sweep(at(7_000), 1_000);
    let (from, to) = (first_second(), first_second() + 10);
    assert_eq!(a.digests_by_second(from, to), b.digests_by_second(from, to));
    for second in from..=to {
        let digests = a.digests_by_shard(&[second]);
        assert_eq!(digests, b.digests_by_shard(&[second]));
        let sum = digests.iter().fold(0u64, |sum, shard| sum.wrapping_add(*shard));
        assert_eq!(sum, a.digests_by_second(second, second)[0]);
    }
    b.apply(&delete("k3", version(5_999, 2)), at(6_000));
    let differing = (from..=to).filter(|s| a.digests_by_shard(&[*s]) != b.digests_by_shard(&[*s]));
    assert_eq!(differing.collect::<Vec<_>>(), [from, from + 5]);
}

#[test]
fn scan_returns_all_versions_of_the_requested_seconds() {
    let store = store(100, 1 << 20);
    for n in 0..100 {
        store.apply(&put(&format!("k{n}"), "v", version(n * 50, 1), 1_000_000), at(5_000));
    }
    store.apply(&delete("k21", version(3_000, 2)), at(5_000));
    let (mut versions, seconds) = (Vec::new(), [first_second() + 1, first_second() + 3]);
    for shard in 0..SHARDS {
        let before = versions.len();
        let mut cursor = ScanCursor::START;
        while cursor != ScanCursor::END {
            assert!(store.scan_versions(shard, &seconds, &mut cursor, 2, &mut versions) <= 2);
        }
        assert!(versions[before..].iter().all(|(hash, _)| hash.shard() == shard));
    }
    let found: BTreeSet<_> = versions.iter().copied().collect();
    let expected = (20..40).chain(60..80).filter(|n| *n != 21);
    let expected = expected.map(|n| (key(&format!("k{n}")).hash(), version(n * 50, 1)));
    let expected: BTreeSet<_> = expected.chain([(key("k21").hash(), version(3_000, 2))]).collect();
    assert_eq!((found, versions.len()), (expected, 40));
}

#[test]
fn scan_leaves_nothing_out_during_concurrent_changes() {
    let store = store(10_000, 1 << 20);
    let put_all = |from: u64, to: u64, ms: u64| {
        for n in from..to {
            store.apply(&put(&format!("k{n}"), "v", version(ms, n), 1_000_000), at(9_000));
        }
    };
    // Every third is looked for, half of them as tombstones.
    for n in 0..1_500 {
        put_all(n, n + 1, if n % 3 == 0 { 1_500 } else { 3_500 });
        if n % 6 == 0 {
            store.apply(&delete(&format!("k{n}"), version(1_600, n)), at(9_000));
        }
    }
    let (mut versions, mut n) = (Vec::new(), 0);
    for shard in 0..SHARDS {
        let mut cursor = ScanCursor::START;
        while cursor != ScanCursor::END {
            store.scan_versions(shard, &[first_second() + 1], &mut cursor, 3, &mut versions);
            // Others go, and others come.
            n += 1;
            store.erase(key(&format!("k{}", n * 7 % 1_500 / 3 * 3 + 1)).hash(), version(9_000, 0));
            store.apply(&delete(&format!("x{n}"), version(5_000, n)), at(9_000));
            if n % 2 == 0 {
                put_all(n * 10_000, n * 10_000 + 1, 7_000);
            }
        }
    }
    let found: BTreeSet<_> = versions.iter().map(|(hash, _)| *hash).collect();
    let wanted: BTreeSet<_> = (0..1_500).step_by(3).map(|n| key(&format!("k{n}")).hash()).collect();
    assert_eq!(found, wanted);
    store.check();
}

#[test]
fn copy_pages_are_ordered_from_hot_to_cold() {
    let store = store(1_000, 1 << 20);
    for n in 0..400 {
        store.apply(&put(&format!("k{n}"), "0123456789", version(n, 1), 1_000_000), at(400));
    }
    for n in (0..400).step_by(5) {
        store.get(&key(&format!("k{n}")), at(400));
    }
    store.apply(&put("gone", "v", version(1, 1), 500), at(400));
    let mut seen = 0;
    for shard in 0..SHARDS {
        let (mut range, mut names) = (CopyRange::default(), Vec::new());
        loop {
            let page = store.copy_page(shard, range, 40, at(600));
            assert!((1..=4).contains(&page.records.len()) || page.more.is_none());
            names.extend(page.records.iter().map(name_of));
            let Some(cursor) = page.more else { break };
            range.colder_than = Some(cursor);
        }
        let number = |name: &String| name[1..].parse::<u64>().unwrap();
        // Those that were read first, each class from the last written to the first.
        let heat = |name: &String| (number(name) % 5 == 0, number(name));
        assert!(names.is_sorted_by_key(|name| core::cmp::Reverse(heat(name))), "{names:?}");
        seen += names.len();
    }
    assert_eq!(seen, 400);
}

#[test]
fn second_pass_of_a_copy_has_entries_read_during_the_first() {
    let store = store(1_000, 1 << 20);
    for n in 0..300 {
        store.apply(&put(&format!("k{n}"), "v", version(n, 1), 1_000_000), at(400));
    }
    let tick = store.copy_page(0, CopyRange::default(), 1, at(400)).tick;
    for n in [7, 70, 170] {
        store.get(&key(&format!("k{n}")), at(400));
    }
    store.apply(&put("new", "v", version(900, 1), 1_000_000), at(900));
    let range = CopyRange { since: Some(tick), ..CopyRange::default() };
    let pages = (0..SHARDS).flat_map(|shard| store.copy_page(shard, range, 1_000, at(900)).records);
    let names: BTreeSet<_> = pages.map(|record| name_of(&record)).collect();
    assert_eq!(names, ["k7", "k70", "k170", "new"].map(String::from).into());
}

/// Copies a shard as a node does, in passes; `meanwhile` runs between two slices. Returns the names.
fn copied(store: &TestStore, shard: usize, mut meanwhile: impl FnMut(usize)) -> BTreeSet<String> {
    let (mut names, mut since) = (BTreeSet::new(), None);
    for pass in 1..=6 {
        let mut range = CopyRange { since: since.take(), ..CopyRange::default() };
        let mut pages = 0;
        loop {
            let mut scan = store.begin_page(range, 200);
            since.get_or_insert(scan.tick());
            while !scan.is_complete() {
                store.continue_page(shard, &mut scan, 10, at(500));
                meanwhile(pass);
            }
            let page = scan.into_page();
            pages += 1;
            names.extend(page.records.iter().map(name_of));
            let Some(cursor) = page.more else { break };
            range.colder_than = Some(cursor);
        }
        if pass > 1 && pages == 1 {
            return names;
        }
    }
    panic!("no end of it");
}

#[test]
fn copy_in_slices_has_all_that_is_there_throughout() {
    for policy in [EvictionPolicy::ScanResistant, EvictionPolicy::Lru] {
        let store = store(20_000, 1 << 24).with_policy(policy);
        for n in 0..6_400 {
            store.apply(&put(&format!("k{n}"), "v", version(n, 1), 1_000_000), at(400));
        }
        let (mut names, mut deleted) = (BTreeSet::new(), BTreeSet::new());
        let mut random = 1_u64;
        for shard in 0..SHARDS {
            names.extend(copied(&store, shard, |pass| {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let name = format!("k{}", (random >> 33) % 6_400);
                // Reads move entries, and deletes move slots.
                if random >> 20 & 1 == 0 || pass > 1 || deleted.len() == 2_000 {
                    store.get(&key(&name), at(500));
                } else {
                    store.apply(&delete(&name, version(9_000, 1)), at(500));
                    deleted.insert(name);
                }
            }));
        }
        let all = (0..6_400).map(|n| format!("k{n}"));
        let lacking: Vec<_> =
            all.filter(|name| !names.contains(name) && !deleted.contains(name)).collect();
        assert!(lacking.is_empty(), "{policy:?}: {lacking:?}");
        assert!(deleted.len() > 100, "{}", deleted.len());
        store.check();
    }
}

#[test]
fn imported_entries_are_evicted_first_and_may_be_old() {
    let store = store(10, 1 << 20);
    let late = 2 * RETENTION_MS;
    for n in 0..5 {
        store.apply(&put(&format!("own{n}"), "v", version(late, n), late + 9_000), at(late));
    }
    for n in 0..8 {
        let record = put(&format!("old{n}"), "v", version(n, 1), late + 9_000);
        assert_eq!(store.import(&record, at(late)), ApplyOutcome::Applied);
        // There is no room for the coldest one, and it is too old to leave a tombstone.
        let again = if n < 5 { ApplyOutcome::Duplicate } else { ApplyOutcome::Applied };
        assert_eq!(store.import(&record, at(late)), again);
    }
    store.check();
    assert_eq!(store.entry_count(), 10);
    let live = |name: &str| store.peek(&key(name), at(late)).is_hit();
    assert!((0..5).all(|n| live(&format!("own{n}"))), "what was here stays");
    assert_eq!((0..8).filter(|n| live(&format!("old{n}"))).count(), 5);
    // A newer one here stays, and a lower one is no news.
    let newer = put("own1", "w", version(late + 1, 1), late + 9_000);
    store.apply(&newer, at(late));
    let older = put("own1", "v", version(5, 1), late + 9_000);
    assert_eq!(store.import(&older, at(late)), ApplyOutcome::Superseded(version(late + 1, 1)));
}

#[test]
fn erased_value_leaves_no_tombstone() {
    let store = store(10, 1 << 20);
    store.apply(&put("k", "v", version(5, 1), 9_000), at(10));
    let hash = key("k").hash();
    assert!(!store.erase(hash, version(4, 1)), "a newer one stays");
    assert!(store.erase(hash, version(5, 1)));
    assert_eq!((store.version(hash), store.stats().bytes), (None, 0));
    assert_eq!(store.digests_by_second(first_second(), first_second()), [0]);
    store.check();
}

#[test]
fn deletes_before_a_bound_are_found_and_erased() {
    let store = store(10, 1 << 20);
    store.apply(&put("value", "v", version(1_000, 1), 90_000), at(0));
    store.apply(&delete("before", version(2_000, 1)), at(0));
    store.apply(&delete("deleted", version(9_000, 1)), at(0));
    store.apply(&put("recent", "v", version(20_000, 1), 90_000), at(0));
    let second = |ms| at(ms).wall_ms / 1_000;
    let found = (0..SHARDS).flat_map(|n| store.versions_before(n, second(15_000), second(5_000)));
    let found: BTreeSet<_> = found.collect();
    let expected = [("value", version(1_000, 1)), ("deleted", version(9_000, 1))];
    assert_eq!(found, expected.map(|(name, version)| (key(name).hash(), version)).into());
    for (key, version) in found {
        assert!(store.erase(key, version));
        assert_eq!(store.version(key), None);
    }
    store.check();
}

#[test]
fn versions_ahead_of_a_clock_that_was_behind_stay() {
    let store = store(10, 1 << 20);
    store.apply(&put("own", "v", version(1_000, 1), 90_000), at(0));
    store.apply(&put("theirs", "v", version(30_000, 2), 90_000), at(0));
    assert_eq!(store.restamp(|stamped| stamped < version(6_000, 0), 20_000), 1);
    let known = |name: &str| store.version(key(name).hash());
    assert_eq!(known("own"), Some(version(1_000, 1).restamped(20_000)));
    assert_eq!(known("theirs"), Some(version(30_000, 2)));
    store.check();
}

#[test]
fn versions_of_a_wrong_clock_are_restamped() {
    let store = store(10, 1 << 20);
    let century = 3_000_000_000_000;
    let now = |ms: u64| Now::new(ms, at(ms).wall_ms);
    store.apply(&put("past", "v", version(0, 1), 90_000), at(0));
    // The clock jumps: a version stamped then raises the floor of all tombstones.
    store.apply(&put("future", "v", version(century, 1), 90_000), Now::new(5, at(century).wall_ms));
    store.apply(&delete("gone", version(century, 2)), Now::new(6, at(century).wall_ms));
    assert!(store.first_complete_second(now(10)) > at(10).wall_ms / 1_000);
    assert_eq!(store.restamp(|stamped| stamped >= version(60_000, 0), -(century as i64)), 1);
    store.check();
    let restamped = |version: Version| version.restamped(-(century as i64));
    for (name, version) in [
        ("past", version(0, 1)),
        ("future", restamped(version(century, 1))),
        ("gone", restamped(version(century, 2))),
    ] {
        assert_eq!(store.version(key(name).hash()), Some(version), "{name}");
    }
    // The retention floor moves with the clock, and the digests match the new versions.
    assert!(store.first_complete_second(now(10)) < first_second());
    let digests = |store: &Store<_>| store.digests_by_second(first_second(), first_second());
    let other = self::store(10, 1 << 20);
    other.apply(&put("past", "v", version(0, 1), 90_000), at(0));
    other.apply(&put("future", "v", restamped(version(century, 1)), 90_000), at(5));
    other.apply(&delete("gone", restamped(version(century, 2))), at(6));
    assert_eq!(digests(&store), digests(&other));
    assert_eq!(
        store.apply(&put("gone", "v", version(0, 1), 90_000), now(9)),
        ApplyOutcome::Superseded(restamped(version(century, 2)))
    );
    // And back, as far as a stamp has room.
    store.restamp(|_| true, i64::MIN);
    store.restamp(|_| true, i64::MAX);
    store.check();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever two stores hold, a store that takes over all that both know agrees with one that got
    /// every write, and its sums are of what it knows.
    #[test]
    fn exported_items_can_be_imported(
        writes in prop::collection::vec((0..12u8, 0..40u64, 0..3u64, 0..3u8, any::<bool>()), 1..60),
    ) {
        let (a, b, all, joined) = (store(6, 1 << 20), store(6, 1 << 20), store(50, 1 << 20), store(50, 1 << 20));
        for (name, stamp, writer, kind, left) in writes {
            let (name, version) = (format!("{name}"), version(stamp, writer * 3 + u64::from(kind)));
            let record = if kind == 0 { delete(&name, version) } else { put(&name, "v", version, 60_000) };
            (if left { &a } else { &b }).apply(&record, at(100));
            all.apply(&record, at(100));
        }
        for known in all_items(&a, at(200)).into_iter().chain(all_items(&b, at(200))) {
            match known {
                StoredItem::Value(record) => joined.import(&record, at(200)),
                StoredItem::Tombstone(hash, version) => joined.apply_tombstone(hash, version, at(200)),
            };
            joined.check();
        }
        let seconds = (first_second(), first_second() + 1);
        prop_assert_eq!(
            joined.digests_by_second(seconds.0, seconds.1),
            all.digests_by_second(seconds.0, seconds.1)
        );
        for name in 0..12u8 {
            let hash = key(&format!("{name}")).hash();
            prop_assert_eq!(joined.version(hash), all.version(hash));
            if let Some(StoredItem::Value(record)) = joined.item(hash, at(200)) {
                let is_put = matches!(record.change, Change::Put { .. });
                prop_assert!(is_put && all.peek(&record.key, at(200)).is_hit());
            }
        }
        prop_assert_eq!(joined.item(key("none").hash(), at(200)), None);
    }
}
