//! What the near cache keeps, serves and forgets.

use zerocache_core::{
    metadata::{EntryKind, Metadata},
    route::Tier,
    version::Incarnation,
};

use super::*;

const AGE_MS: u64 = 5_000;
const LIFE_MS: u64 = 60_000;

fn at(ms: u64) -> Instant {
    Instant::from_millis(ms)
}

fn version(stamp: u64) -> Version {
    Version::new(stamp, Incarnation(1))
}

/// One that follows a node from moment 0 on.
fn followed(bytes_max: u64) -> (Arc<Near>, Claim) {
    let near = Arc::new(Near::new(bytes_max));
    let claim = near.claim().expect("nobody else follows");
    claim.told(at(0), true, &[], at(0));
    (near, claim)
}

fn small() -> (Arc<Near>, Claim) {
    followed(1 << 20)
}

fn fill<'a>(value: &'a [u8], stamp: u64, remaining_ms: u64, metadata: &'a Metadata) -> Fill<'a> {
    let (node, tier) = (Incarnation(1), Tier::Local);
    Fill { value, version: version(stamp), remaining_ms, metadata, node, tier }
}

/// Keeps a value that is read at `now`.
fn keep(near: &Near, key: &[u8], value: &[u8], stamp: u64, now: Instant) {
    let begun = near.begin(now).expect("a node is followed");
    near.keep(begun, key, &fill(value, stamp, LIFE_MS, &Metadata::default()), now);
}

fn look(near: &Near, key: &[u8], now: Instant) -> Option<Vec<u8>> {
    near.with((hash_of(key), key), AGE_MS, now, |held| held.value().to_vec())
}

#[test]
fn nothing_is_kept_or_served_while_nothing_is_followed() {
    let near = Arc::new(Near::new(1 << 20));
    assert!(near.begin(at(0)).is_none());
    let claim = near.claim().expect("nobody else follows");
    assert!(near.claim().is_none(), "one at a time");
    assert!(near.begin(at(0)).is_none(), "no word has come yet");
    claim.told(at(0), true, &[], at(1));
    keep(&near, b"k", b"v", 1, at(1));
    assert_eq!(look(&near, b"k", at(2)).as_deref(), Some(&b"v"[..]));
    drop(claim);
    assert_eq!(look(&near, b"k", at(3)), None);
    // Who follows next begins with nothing.
    let claim = near.claim().expect("the other one has gone");
    claim.told(at(4), true, &[], at(4));
    assert_eq!(look(&near, b"k", at(5)), None);
    assert_eq!(near.stats().entries, 0);
}

#[test]
fn a_silent_node_stops_it() {
    let (near, claim) = small();
    keep(&near, b"k", b"v", 1, at(1));
    assert!(look(&near, b"k", at(WORD_MS - 1)).is_some());
    assert!(look(&near, b"k", at(WORD_MS)).is_none(), "its word is too old");
    // An answer that took long says nothing of the time on its way.
    claim.told(at(WORD_MS - 500), false, &[], at(WORD_MS + 1_000));
    assert!(look(&near, b"k", at(WORD_MS + 1_000)).is_some());
    assert!(look(&near, b"k", at(2 * WORD_MS - 500)).is_none());
}

#[test]
fn rows_remove_what_is_older_and_nothing_else() {
    let (near, claim) = small();
    let keys: [&[u8]; 3] = [b"old", b"same", b"other"];
    keys.iter().for_each(|key| keep(&near, key, b"v", 5, at(1)));
    claim.told(at(1), false, &[(hash_of(b"old"), 6), (hash_of(b"same"), 5)], at(2));
    assert_eq!(look(&near, b"old", at(3)), None);
    assert!(look(&near, b"same", at(3)).is_some(), "it is the write itself");
    assert!(look(&near, b"other", at(3)).is_some());
    assert_eq!(near.stats().invalidated, 1);
}

#[test]
fn an_older_value_that_comes_after_the_news_is_not_kept() {
    let (near, claim) = small();
    let begun = near.begin(at(1)).expect("a node is followed");
    claim.told(at(1), false, &[(hash_of(b"k"), 6)], at(2));
    near.keep(begun, b"k", &fill(b"old", 5, LIFE_MS, &Metadata::default()), at(3));
    assert_eq!(look(&near, b"k", at(3)), None);
    // A node that lags gives it again and again.
    keep(&near, b"k", b"old", 5, at(1_000));
    assert_eq!((look(&near, b"k", at(1_001)), near.stats().outdated), (None, 2));
    keep(&near, b"k", b"new", 6, at(1_002));
    // And is heard after one that does not.
    keep(&near, b"k", b"old", 5, at(1_003));
    assert_eq!(look(&near, b"k", at(1_004)).as_deref(), Some(&b"new"[..]));
}

#[test]
fn what_took_longer_than_writes_are_remembered_is_not_kept() {
    let (near, claim) = small();
    let begun = near.begin(at(1)).expect("a node is followed");
    claim.told(at(1), false, &[(hash_of(b"k"), 6)], at(2));
    let now = at(2 + REMEMBERED_MS + 1);
    claim.told(now, false, &[], now);
    // A client may be told to be this patient, and to keep values for longer than that.
    near.keep(begun, b"k", &fill(b"old", 5, LIFE_MS, &Metadata::default()), now);
    assert!(near.with((hash_of(b"k"), b"k"), LIFE_MS, now, |_| ()).is_none());
}

#[test]
fn values_are_kept_while_much_else_is_written() {
    let (near, claim) = small();
    // 10,000 writes a second.
    for ms in (0..5_000_u64).step_by(5) {
        let rows = (0..50).map(|n| (hash_of(format!("{ms} {n}").as_bytes()), 1_000 + ms));
        claim.told(at(ms), false, &rows.collect::<Vec<_>>(), at(ms));
    }
    let now = at(4_999);
    let kept = (0..1_000_u32).filter(|n| {
        let key = format!("read {n}");
        keep(&near, key.as_bytes(), b"v", 5, now);
        look(&near, key.as_bytes(), now).is_some()
    });
    let kept = kept.count();
    assert!(kept > 950, "{kept} of 1000");
}

#[test]
fn what_was_read_over_a_gap_is_not_kept() {
    let (near, claim) = small();
    keep(&near, b"a", b"v", 1, at(1));
    let begun = near.begin(at(1)).expect("a node is followed");
    claim.told(at(1), true, &[], at(2));
    near.keep(begun, b"b", &fill(b"v", 1, LIFE_MS, &Metadata::default()), at(3));
    assert_eq!((look(&near, b"a", at(4)), look(&near, b"b", at(4))), (None, None));
    assert_eq!(near.stats().emptied, 1);
}

#[test]
fn age_and_fresh_time_bound_what_is_served() {
    let (near, claim) = small();
    let metadata = |stale_while_ms, refresh_ahead_ms| {
        let mut metadata = Metadata::default();
        (metadata.stale_while_ms, metadata.refresh_ahead_ms) = (stale_while_ms, refresh_ahead_ms);
        metadata
    };
    let mut error = Metadata::default();
    error.kind = EntryKind::Error;
    let put = |key: &[u8], remaining_ms, metadata: &Metadata| {
        let begun = near.begin(at(0)).expect("a node is followed");
        near.keep(begun, key, &fill(b"v", 1, remaining_ms, metadata), at(10));
    };
    put(b"short", 1_000, &Metadata::default());
    put(b"stale", 1_000, &metadata(1_000, 0));
    put(b"nearly stale", 1_500, &metadata(1_000, 0));
    put(b"ahead", 1_000, &metadata(0, 400));
    put(b"error", 1_000, &error);
    put(b"long", LIFE_MS, &Metadata::default());
    let served = |now: u64| {
        claim.told(at(now), false, &[], at(now));
        let keys: [&[u8]; 6] = [b"short", b"stale", b"nearly stale", b"ahead", b"error", b"long"];
        keys.map(|key| look(&near, key, at(now)).is_some())
    };
    assert_eq!(served(499), [true, false, true, true, false, true]);
    assert_eq!(served(500), [true, false, false, true, false, true]);
    assert_eq!(served(600), [true, false, false, false, false, true]);
    assert_eq!(served(1_000), [false, false, false, false, false, true]);
    // The age counts from the moment at which the read began.
    assert_eq!(served(AGE_MS - 1), [false, false, false, false, false, true]);
    assert_eq!(served(AGE_MS), [false; 6]);
}

#[test]
fn own_writes_are_read() {
    let (near, _claim) = small();
    keep(&near, b"k", b"old", 5, at(1));
    let reading = near.begin(at(1)).expect("a node is followed");
    near.writing(b"k");
    assert_eq!(look(&near, b"k", at(2)), None, "not while the write is under way");
    assert_eq!(near.stats().invalidated, 1);
    near.written(b"k", Some(version(9)), at(3));
    near.keep(reading, b"k", &fill(b"old", 5, LIFE_MS, &Metadata::default()), at(4));
    assert_eq!(look(&near, b"k", at(5)), None, "nor by a read that began before");
    keep(&near, b"k", b"new", 9, at(6));
    assert_eq!(look(&near, b"k", at(7)).as_deref(), Some(&b"new"[..]));
    near.written(b"k", None, at(8));
    assert_eq!(look(&near, b"k", at(9)), None, "nobody knows what became of the write");
}

#[test]
fn what_a_thread_has_at_hand_goes_with_the_entry() {
    let (near, claim) = small();
    let seen = |ms| look(&near, b"k", at(ms));
    let old = || {
        keep(&near, b"k", b"old", 5, at(1));
        // The first look brings it to hand.
        assert_eq!([seen(2), seen(3)], [Some(b"old".to_vec()), Some(b"old".to_vec())]);
    };
    old();
    keep(&near, b"k", b"new", 6, at(1));
    assert_eq!(seen(4).as_deref(), Some(&b"new"[..]), "replaced");
    near.remove(hash_of(b"k"));
    old();
    near.writing(b"k");
    assert_eq!(seen(5), None, "being written");
    old();
    near.written(b"k", None, at(2));
    assert_eq!(seen(6), None, "written");
    old();
    claim.told(at(1), true, &[], at(2));
    assert_eq!(seen(7), None, "emptied");
    old();
    // The storage has let it go, which no thread hears of, but a write does not miss it.
    near.storage.remove(&hash_of(b"k"));
    assert!(seen(8).is_some());
    claim.told(at(1), false, &[(hash_of(b"k"), 6)], at(9));
    assert_eq!(seen(9), None, "written elsewhere");
}

#[test]
fn what_the_storage_let_go_is_not_at_hand_for_long() {
    let (near, _claim) = small();
    keep(&near, b"k", b"v", 5, at(1));
    assert!(look(&near, b"k", at(2)).is_some());
    near.storage.remove(&hash_of(b"k"));
    let looks = (0..1_000).take_while(|_| look(&near, b"k", at(2)).is_some()).count();
    assert!((1..100).contains(&looks), "{looks}");
}

#[test]
fn what_is_at_hand_of_one_near_cache_is_not_that_of_another() {
    let (one, _claim) = small();
    let (other, _other_claim) = small();
    keep(&one, b"k", b"one", 5, at(1));
    keep(&other, b"k", b"other", 5, at(1));
    for _ in 0..3 {
        assert_eq!(look(&one, b"k", at(2)).as_deref(), Some(&b"one"[..]));
        assert_eq!(look(&other, b"k", at(2)).as_deref(), Some(&b"other"[..]));
    }
}

#[test]
fn a_look_may_look_itself() {
    let (near, _claim) = small();
    keep(&near, b"a", b"1", 5, at(1));
    keep(&near, b"b", b"2", 5, at(1));
    for _ in 0..3 {
        let inner = near.with((hash_of(b"a"), b"a"), AGE_MS, at(2), |_| look(&near, b"b", at(2)));
        assert_eq!(inner.flatten().as_deref(), Some(&b"2"[..]));
    }
}

/// Whoever was told of a write never reads what was before it, on any thread.
#[test]
fn no_thread_reads_what_is_older_than_it_was_told() {
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
    const KEYS: u64 = 8;
    let (near, claim) = small();
    let (told, over) = ([const { AtomicU64::new(0) }; KEYS as usize], AtomicBool::new(false));
    let key = |n: u64| n.to_le_bytes();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    for n in 0..KEYS {
                        let least = told[n as usize].load(Ordering::Acquire);
                        let Some(value) = look(&near, &key(n), at(2)) else { continue };
                        let stamp = u64::from_le_bytes(value.try_into().expect("a stamp"));
                        assert!(stamp >= least, "{stamp} after {least}");
                    }
                }
            });
        }
        for stamp in 1..20_000 {
            let n = stamp % KEYS;
            keep(&near, &key(n), &stamp.to_le_bytes(), stamp, at(1));
            if stamp % 3 == 0 {
                claim.told(at(1), false, &[(hash_of(&key(n)), stamp + 1)], at(1));
                told[n as usize].store(stamp + 1, Ordering::Release);
            }
        }
        over.store(true, Ordering::Relaxed);
    });
}

#[test]
fn two_keys_of_one_hash_are_never_mistaken() {
    let (near, _claim) = small();
    keep(&near, b"k", b"v", 1, at(1));
    let other = near.with((hash_of(b"k"), b"another"), AGE_MS, at(2), |_| ());
    assert!(other.is_none(), "the whole key decides");
}

#[test]
fn a_scan_does_not_turn_out_what_is_used() {
    let (near, claim) = followed(4 << 20);
    let value = [7; 100];
    let hot: Vec<_> = (0..1_000_u32).map(|n| format!("hot {n}")).collect();
    for round in 0..5 {
        for key in &hot {
            if look(&near, key.as_bytes(), at(round)).is_none() {
                keep(&near, key.as_bytes(), &value, 1, at(round));
            }
        }
    }
    for n in 0..100_000_u32 {
        keep(&near, format!("cold {n}").as_bytes(), &value, 1, at(10));
    }
    claim.told(at(20), false, &[], at(20));
    let held = hot.iter().filter(|key| look(&near, key.as_bytes(), at(20)).is_some()).count();
    assert!(held >= 950, "{held} of 1000 keys survive a scan of 100000");
}

#[test]
fn the_bound_holds_while_many_insert() {
    const BYTES_MAX: u64 = 2 << 20;
    let (near, _claim) = followed(BYTES_MAX);
    std::thread::scope(|scope| {
        for thread in 0..4_u32 {
            let near = &near;
            scope.spawn(move || {
                for n in 0..5_000_u32 {
                    let value = vec![7; (n as usize * 31) % 3_000];
                    keep(near, format!("{thread} {n}").as_bytes(), &value, 1, at(1));
                    assert!(near.stats().bytes <= BYTES_MAX);
                }
            });
        }
    });
    let stats = near.stats();
    assert!(stats.bytes > BYTES_MAX / 2 && stats.bytes <= BYTES_MAX, "{stats:?}");
    // A value that would turn out all others is not kept.
    keep(&near, b"huge", &vec![7; BYTES_MAX as usize / 2], 1, at(1));
    assert_eq!(look(&near, b"huge", at(2)), None);
}
