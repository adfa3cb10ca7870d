//! Tests of the near cache.

use zerocache_core::{
    client::{FEED_VALID_MS, NearStorage, RECENT_WRITE_MS, near_hash},
    metadata::{EntryKind, Metadata},
    route::Tier,
    version::Incarnation,
};

use super::*;

const AGE_MS: u64 = 5_000;
pub(super) const LIFE_MS: u64 = 60_000;

pub(super) fn at(ms: u64) -> Instant {
    Instant::from_millis(ms)
}

fn version(stamp: u64) -> Version {
    Version::new(stamp, Incarnation(1))
}

/// Returns a near cache that follows a node from time 0 on.
pub(super) fn followed(bytes_max: u64) -> (Arc<Near>, FeedClaim) {
    let near = Arc::new(Near::new(bytes_max));
    let claim = near.claim().expect("nobody else follows");
    claim.rules().apply_changes(at(0), true, (&[], &[]), at(0));
    (near, claim)
}

fn small() -> (Arc<Near>, FeedClaim) {
    followed(1 << 20)
}

pub(super) fn fill<'a>(
    value: &'a [u8],
    stamp: u64,
    remaining_ms: u64,
    metadata: &'a Metadata,
) -> Fill<'a> {
    let (node, tier) = (Incarnation(1), Tier::Local);
    Fill { value, version: version(stamp), remaining_ms, metadata, node, tier }
}

/// Inserts a value that is read at `now`.
pub(super) fn read(near: &Near, key: &[u8], value: &[u8], stamp: u64, now: Instant) {
    let permit = near.begin_fill(now).expect("a node is followed");
    near.insert(permit, key, &fill(value, stamp, LIFE_MS, &Metadata::default()), now);
}

pub(super) fn get(near: &Near, key: &[u8], now: Instant) -> Option<Vec<u8>> {
    near.with((near_hash(key), key), AGE_MS, now, |entry| entry.value().to_vec())
}

#[test]
fn nothing_is_kept_or_served_while_no_node_is_followed() {
    let near = Arc::new(Near::new(1 << 20));
    assert!(near.begin_fill(at(0)).is_none());
    let claim = near.claim().expect("nobody else follows");
    assert!(near.claim().is_none(), "one follows at a time");
    assert!(near.begin_fill(at(0)).is_none(), "no change has arrived yet");
    claim.rules().apply_changes(at(0), true, (&[], &[]), at(1));
    read(&near, b"k", b"v", 1, at(1));
    assert_eq!(get(&near, b"k", at(2)).as_deref(), Some(&b"v"[..]));
    drop(claim);
    assert_eq!(get(&near, b"k", at(3)), None);
    // The next one that follows a node begins with an empty cache.
    let claim = near.claim().expect("the other claim is dropped");
    claim.rules().apply_changes(at(4), true, (&[], &[]), at(4));
    assert_eq!(get(&near, b"k", at(5)), None);
    assert_eq!(near.stats().entries, 0);
}

#[test]
fn silent_node_ends_the_validity_of_the_feed() {
    let (near, claim) = small();
    read(&near, b"k", b"v", 1, at(1));
    assert!(get(&near, b"k", at(FEED_VALID_MS - 1)).is_some());
    assert!(get(&near, b"k", at(FEED_VALID_MS)).is_none(), "the feed is too old");
    // A slow response is valid from the time of its request on.
    claim.rules().apply_changes(
        at(FEED_VALID_MS - 500),
        false,
        (&[], &[]),
        at(FEED_VALID_MS + 1_000),
    );
    assert!(get(&near, b"k", at(FEED_VALID_MS + 1_000)).is_some());
    assert!(get(&near, b"k", at(2 * FEED_VALID_MS - 500)).is_none());
}

#[test]
fn change_removes_older_entries_of_its_key_only() {
    let (near, claim) = small();
    let keys: [&[u8]; 3] = [b"old", b"same", b"other"];
    keys.iter().for_each(|key| read(&near, key, b"v", 5, at(1)));
    claim.rules().apply_changes(
        at(1),
        false,
        (&[(near_hash(b"old"), 6), (near_hash(b"same"), 5)], &[]),
        at(2),
    );
    assert_eq!(get(&near, b"old", at(3)), None);
    assert!(get(&near, b"same", at(3)).is_some(), "it is the write itself");
    assert!(get(&near, b"other", at(3)).is_some());
    assert_eq!(near.stats().invalidated, 1);
}

#[test]
fn purge_removes_entries_of_its_target_and_keeps_older_ones_out() {
    let (near, claim) = small();
    let tagged = |tag: &str| {
        let mut metadata = Metadata::default();
        metadata.add_tag(tag).expect("a tag");
        metadata
    };
    let read_with = |key: &[u8], metadata: &Metadata, stamp: u64, now: Instant| {
        let fill = fill(b"v", stamp, LIFE_MS, metadata);
        near.insert(near.begin_fill(now).expect("a node is followed"), key, &fill, now);
    };
    read_with(b"a", &tagged("t"), 5, at(1));
    read_with(b"b", &tagged("u"), 5, at(1));
    read_with(b"c", &tagged("t"), 9, at(1));
    let purge = [(TargetId::of_tag(b"t").0, 8)];
    claim.rules().apply_changes(at(1), false, (&[], &purge), at(2));
    let hits = [b"a", b"b", b"c"].map(|key| get(&near, key, at(3)).is_some());
    assert_eq!(hits, [false, true, true]);
    assert_eq!((near.stats().invalidated, near.stats().cleared), (1, 0));
    // From a node that lags.
    read_with(b"a", &tagged("t"), 8, at(4));
    assert_eq!(get(&near, b"a", at(5)), None);
    read_with(b"a", &tagged("t"), 9, at(6));
    assert!(get(&near, b"a", at(7)).is_some());
    // This process purges.
    near.begin_purge(TargetId::EVERYTHING);
    assert!([b"a", b"b", b"c"].iter().all(|key| get(&near, *key, at(8)).is_none()));
    near.end_purge(TargetId::EVERYTHING, Some(20), at(8));
    read_with(b"b", &tagged("u"), 20, at(9));
    assert_eq!(get(&near, b"b", at(10)), None);
}

#[test]
fn older_value_that_arrives_after_a_change_is_not_kept() {
    let (near, claim) = small();
    let permit = near.begin_fill(at(1)).expect("a node is followed");
    claim.rules().apply_changes(at(1), false, (&[(near_hash(b"k"), 6)], &[]), at(2));
    near.insert(permit, b"k", &fill(b"old", 5, LIFE_MS, &Metadata::default()), at(3));
    assert_eq!(get(&near, b"k", at(3)), None);
    // A lagging node returns it repeatedly.
    read(&near, b"k", b"old", 5, at(1_000));
    assert_eq!((get(&near, b"k", at(1_001)), near.stats().rejected_old), (None, 2));
    read(&near, b"k", b"new", 6, at(1_002));
    // It answers after a node that does not lag.
    read(&near, b"k", b"old", 5, at(1_003));
    assert_eq!(get(&near, b"k", at(1_004)).as_deref(), Some(&b"new"[..]));
}

#[test]
fn result_that_took_longer_than_writes_are_remembered_is_not_kept() {
    let (near, claim) = small();
    let permit = near.begin_fill(at(1)).expect("a node is followed");
    claim.rules().apply_changes(at(1), false, (&[(near_hash(b"k"), 6)], &[]), at(2));
    let now = at(2 + RECENT_WRITE_MS + 1);
    claim.rules().apply_changes(now, false, (&[], &[]), now);
    // A client may have a timeout this long, and a maximum age above it.
    near.insert(permit, b"k", &fill(b"old", 5, LIFE_MS, &Metadata::default()), now);
    assert!(near.with((near_hash(b"k"), b"k"), LIFE_MS, now, |_| ()).is_none());
}

#[test]
fn values_are_kept_while_many_other_keys_are_written() {
    let (near, claim) = small();
    // 10,000 writes per second.
    for ms in (0..5_000_u64).step_by(5) {
        let changes = (0..50).map(|n| (near_hash(format!("{ms} {n}").as_bytes()), 1_000 + ms));
        claim.rules().apply_changes(at(ms), false, (&changes.collect::<Vec<_>>(), &[]), at(ms));
    }
    let now = at(4_999);
    let kept = (0..1_000_u32).filter(|n| {
        let key = format!("read {n}");
        read(&near, key.as_bytes(), b"v", 5, now);
        get(&near, key.as_bytes(), now).is_some()
    });
    let kept = kept.count();
    assert!(kept > 950, "{kept} of 1000");
}

#[test]
fn value_read_across_a_gap_of_the_feed_is_not_kept() {
    let (near, claim) = small();
    read(&near, b"a", b"v", 1, at(1));
    let permit = near.begin_fill(at(1)).expect("a node is followed");
    claim.rules().apply_changes(at(1), true, (&[], &[]), at(2));
    near.insert(permit, b"b", &fill(b"v", 1, LIFE_MS, &Metadata::default()), at(3));
    assert_eq!((get(&near, b"a", at(4)), get(&near, b"b", at(4))), (None, None));
    assert_eq!(near.stats().cleared, 1);
}

#[test]
fn age_and_fresh_time_limit_serving() {
    let (near, claim) = small();
    let metadata = |stale_while_ms, refresh_ahead_ms| {
        let mut metadata = Metadata::default();
        (metadata.stale_while_ms, metadata.refresh_ahead_ms) = (stale_while_ms, refresh_ahead_ms);
        metadata
    };
    let mut error = Metadata::default();
    error.kind = EntryKind::Error;
    let put = |key: &[u8], remaining_ms, metadata: &Metadata| {
        let permit = near.begin_fill(at(0)).expect("a node is followed");
        near.insert(permit, key, &fill(b"v", 1, remaining_ms, metadata), at(10));
    };
    put(b"short", 1_000, &Metadata::default());
    put(b"stale", 1_000, &metadata(1_000, 0));
    put(b"nearly stale", 1_500, &metadata(1_000, 0));
    put(b"ahead", 1_000, &metadata(0, 400));
    put(b"error", 1_000, &error);
    put(b"long", LIFE_MS, &Metadata::default());
    let served = |now: u64| {
        claim.rules().apply_changes(at(now), false, (&[], &[]), at(now));
        let keys: [&[u8]; 6] = [b"short", b"stale", b"nearly stale", b"ahead", b"error", b"long"];
        keys.map(|key| get(&near, key, at(now)).is_some())
    };
    assert_eq!(served(499), [true, false, true, true, false, true]);
    assert_eq!(served(500), [true, false, false, true, false, true]);
    assert_eq!(served(600), [true, false, false, false, false, true]);
    assert_eq!(served(1_000), [false, false, false, false, false, true]);
    // The age counts from the begin of the read.
    assert_eq!(served(AGE_MS - 1), [false, false, false, false, false, true]);
    assert_eq!(served(AGE_MS), [false; 6]);
}

#[test]
fn older_value_is_not_served_after_an_own_write() {
    let (near, _claim) = small();
    read(&near, b"k", b"old", 5, at(1));
    let reading = near.begin_fill(at(1)).expect("a node is followed");
    near.begin_write(b"k");
    assert_eq!(get(&near, b"k", at(2)), None, "not during the write");
    assert_eq!(near.stats().invalidated, 1);
    near.end_write(b"k", Some(version(9)), at(3));
    near.insert(reading, b"k", &fill(b"old", 5, LIFE_MS, &Metadata::default()), at(4));
    assert_eq!(get(&near, b"k", at(5)), None, "nor from a read that began before");
    read(&near, b"k", b"new", 9, at(6));
    assert_eq!(get(&near, b"k", at(7)).as_deref(), Some(&b"new"[..]));
    near.end_write(b"k", None, at(8));
    assert_eq!(get(&near, b"k", at(9)), None, "the outcome of the write is unknown");
}

#[test]
fn thread_cache_drops_entries_that_the_storage_drops() {
    let (near, claim) = small();
    let seen = |ms| get(&near, b"k", at(ms));
    let old = || {
        read(&near, b"k", b"old", 5, at(1));
        // The first look brings it to hand.
        assert_eq!([seen(2), seen(3)], [Some(b"old".to_vec()), Some(b"old".to_vec())]);
    };
    old();
    read(&near, b"k", b"new", 6, at(1));
    assert_eq!(seen(4).as_deref(), Some(&b"new"[..]), "replaced");
    near.begin_write(b"k");
    old();
    near.begin_write(b"k");
    assert_eq!(seen(5), None, "being written");
    old();
    near.end_write(b"k", None, at(2));
    assert_eq!(seen(6), None, "written");
    old();
    claim.rules().apply_changes(at(1), true, (&[], &[]), at(2));
    assert_eq!(seen(7), None, "emptied");
    old();
    // The storage has let it go, which no thread hears of, but a write does not miss it.
    near.rules.storage().evict(near_hash(b"k"));
    assert!(seen(8).is_some());
    claim.rules().apply_changes(at(1), false, (&[(near_hash(b"k"), 6)], &[]), at(9));
    assert_eq!(seen(9), None, "written elsewhere");
}

#[test]
fn evicted_entry_leaves_the_thread_cache_soon() {
    let (near, _claim) = small();
    read(&near, b"k", b"v", 5, at(1));
    assert!(get(&near, b"k", at(2)).is_some());
    near.rules.storage().evict(near_hash(b"k"));
    let looks = (0..1_000).take_while(|_| get(&near, b"k", at(2)).is_some()).count();
    assert!((1..100).contains(&looks), "{looks}");
}

#[test]
fn thread_cache_distinguishes_near_caches() {
    let (one, _claim) = small();
    let (other, _other_claim) = small();
    read(&one, b"k", b"one", 5, at(1));
    read(&other, b"k", b"other", 5, at(1));
    for _ in 0..3 {
        assert_eq!(get(&one, b"k", at(2)).as_deref(), Some(&b"one"[..]));
        assert_eq!(get(&other, b"k", at(2)).as_deref(), Some(&b"other"[..]));
    }
}

#[test]
fn lookup_inside_of_a_lookup_works() {
    let (near, _claim) = small();
    read(&near, b"a", b"1", 5, at(1));
    read(&near, b"b", b"2", 5, at(1));
    for _ in 0..3 {
        let inner = near.with((near_hash(b"a"), b"a"), AGE_MS, at(2), |_| get(&near, b"b", at(2)));
        assert_eq!(inner.flatten().as_deref(), Some(&b"2"[..]));
    }
}

/// After a change was applied, no thread reads an older value.
#[test]
fn no_thread_reads_a_value_older_than_an_applied_change() {
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
    const KEYS: u64 = 8;
    let (near, claim) = small();
    let (applied, over) = ([const { AtomicU64::new(0) }; KEYS as usize], AtomicBool::new(false));
    let key = |n: u64| n.to_le_bytes();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    for n in 0..KEYS {
                        let least = applied[n as usize].load(Ordering::Acquire);
                        let Some(value) = get(&near, &key(n), at(2)) else { continue };
                        let stamp = u64::from_le_bytes(value.try_into().expect("a stamp"));
                        assert!(stamp >= least, "{stamp} after {least}");
                    }
                }
            });
        }
        for stamp in 1..20_000 {
            let n = stamp % KEYS;
            read(&near, &key(n), &stamp.to_le_bytes(), stamp, at(1));
            if stamp % 3 == 0 {
                claim.rules().apply_changes(
                    at(1),
                    false,
                    (&[(near_hash(&key(n)), stamp + 1)], &[]),
                    at(1),
                );
                applied[n as usize].store(stamp + 1, Ordering::Release);
            }
        }
        over.store(true, Ordering::Relaxed);
    });
}

#[test]
fn keys_with_the_same_hash_are_distinguished() {
    let (near, _claim) = small();
    read(&near, b"k", b"v", 1, at(1));
    let other = near.with((near_hash(b"k"), b"another"), AGE_MS, at(2), |_| ());
    assert!(other.is_none(), "the whole key decides");
}

#[test]
fn scan_does_not_evict_entries_in_use() {
    let (near, claim) = followed(4 << 20);
    let value = [7; 100];
    let hot: Vec<_> = (0..1_000_u32).map(|n| format!("hot {n}")).collect();
    for round in 0..5 {
        for key in &hot {
            if get(&near, key.as_bytes(), at(round)).is_none() {
                read(&near, key.as_bytes(), &value, 1, at(round));
            }
        }
    }
    for n in 0..100_000_u32 {
        read(&near, format!("cold {n}").as_bytes(), &value, 1, at(10));
    }
    claim.rules().apply_changes(at(20), false, (&[], &[]), at(20));
    let entry = hot.iter().filter(|key| get(&near, key.as_bytes(), at(20)).is_some()).count();
    assert!(entry >= 950, "{entry} of 1000 keys survive a scan of 100000");
}

#[test]
fn size_is_bounded_during_concurrent_inserts() {
    const BYTES_MAX: u64 = 2 << 20;
    let (near, _claim) = followed(BYTES_MAX);
    std::thread::scope(|scope| {
        for thread in 0..4_u32 {
            let near = &near;
            scope.spawn(move || {
                for n in 0..5_000_u32 {
                    let value = vec![7; (n as usize * 31) % 3_000];
                    read(near, format!("{thread} {n}").as_bytes(), &value, 1, at(1));
                    assert!(near.stats().bytes <= BYTES_MAX);
                }
            });
        }
    });
    let stats = near.stats();
    assert!(stats.bytes > BYTES_MAX / 2 && stats.bytes <= BYTES_MAX, "{stats:?}");
    // A value that would evict all others is not kept.
    read(&near, b"huge", &vec![7; BYTES_MAX as usize / 2], 1, at(1));
    assert_eq!(get(&near, b"huge", at(2)), None);
}

#[test]
fn writes_of_other_keys_keep_few_keys_out() {
    // 10,000 writes per second.
    let shelves = Shelves::new(1 << 20);
    let hash = |n: u64| xxhash_rust::xxh3::xxh3_64(&n.to_le_bytes());
    let min_stamp = |hash: u64| {
        shelves.with_recent_writes(hash, |writes| writes.min_version(hash, at(5_000)).stamp())
    };
    for n in 0..50_000 {
        let hash = hash(n);
        shelves.with_recent_writes(hash, |writes| writes.record(hash, version(1_000), at(n / 10)));
    }
    let kept_out = (50_000..60_000).filter(|n| min_stamp(hash(*n)) > 0).count();
    assert!(kept_out < 200, "{kept_out} of 10000");
    // All writes of the last five seconds are remembered.
    assert!((10..50_000).all(|n| min_stamp(hash(n)) == 1_000));
}

#[test]
fn value_with_the_stamp_of_an_own_write_is_not_served_if_it_is_older() {
    let (near, claim) = small();
    let reading = || near.begin_fill(at(1)).expect("a node is followed");
    let first = reading();
    let own = Version::new(5, Incarnation(2));
    // Two nodes gave the same stamp.
    read(&near, b"k", b"old", 5, at(1));
    near.end_write(b"k", Some(own), at(2));
    assert_eq!(get(&near, b"k", at(3)), None);
    near.insert(first, b"k", &fill(b"old", 5, LIFE_MS, &Metadata::default()), at(3));
    assert_eq!(get(&near, b"k", at(3)), None, "nor from a read that began before");
    let metadata = Metadata::default();
    let written = Fill { version: own, ..fill(b"own", 5, LIFE_MS, &metadata) };
    near.insert(reading(), b"k", &written, at(3));
    // The node tells of it, and not by whom it is.
    claim.rules().apply_changes(at(3), false, (&[(near_hash(b"k"), 5)], &[]), at(4));
    assert_eq!(get(&near, b"k", at(5)).as_deref(), Some(&b"own"[..]));
}
