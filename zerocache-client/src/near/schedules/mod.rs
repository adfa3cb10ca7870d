//! The near cache under many schedules of its threads, which Shuttle chooses at random from a fixed seed. The
//! shelves and the threads' own caches are the same sources, compiled with Shuttle's locks and atomic numbers. The
//! table of entries below them is as it is: it switches to no other thread.

#[expect(dead_code, clippy::duplicate_mod, reason = "the models use a part of the same source")]
#[path = "../computing.rs"]
mod computing;
#[expect(dead_code, clippy::duplicate_mod, reason = "the models use a part of the same source")]
#[path = "../entry.rs"]
mod entry;
#[expect(dead_code, clippy::duplicate_mod, reason = "the models use a part of the same source")]
#[path = "../shelves.rs"]
mod shelves;
mod sync;
#[expect(clippy::duplicate_mod, reason = "the same source")]
#[path = "../thread_cache.rs"]
mod thread_cache;

use std::{
    collections::HashMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use shuttle::{
    Config, MaxSteps, Runner,
    scheduler::RandomScheduler,
    sync::atomic::{AtomicU64, Ordering::SeqCst},
    thread::{JoinHandle, spawn},
};
use zerocache_core::{
    client::{FillPermit, NearRules, near_hash},
    metadata::Metadata,
    purge::TargetId,
    route::Tier,
    time::Instant,
    version::{Incarnation, Version},
};

use self::{
    entry::{Fill, NearEntry},
    shelves::Shelves,
    sync::Mutex,
    thread_cache::Marks,
};
use super::stats::{self, NearStats};

/// The schedules of a model.
const SCHEDULES: usize = 300;

/// The schedules within which a model finds a defect.
const SCHEDULES_BROKEN: usize = 10_000;

const KEY: &[u8] = b"k";
const LIFE_MS: u64 = 60_000;

fn run(schedules: usize, model: impl Fn() + Send + Sync + 'static) {
    let mut config = Config::new();
    config.stack_size = 1 << 18;
    config.max_steps = MaxSteps::FailAfter(100_000);
    config.failure_persistence = shuttle::FailurePersistence::None;
    Runner::new(RandomScheduler::new_from_seed(12, schedules), config).run(model);
}

/// Runs a model that is broken: some schedule panics.
fn fails(model: impl Fn() + Send + Sync + 'static) {
    let outcome = catch_unwind(AssertUnwindSafe(|| run(SCHEDULES_BROKEN, model)));
    assert!(outcome.is_err(), "no schedule shows the defect");
}

fn at(ms: u64) -> Instant {
    Instant::from_millis(ms)
}

/// An entry whose version has this stamp.
fn entry(rules: &NearRules<Shelves>, permit: FillPermit, stamp: u64) -> Arc<NearEntry> {
    let (version, metadata) = (Version::new(stamp, Incarnation(1)), Metadata::default());
    let (node, tier) = (Incarnation(1), Tier::Local);
    let fill =
        Fill { value: b"v", version, remaining_ms: LIFE_MS, metadata: &metadata, node, tier };
    let times = rules.times(permit, LIFE_MS, &metadata).expect("it is fresh");
    Arc::new(NearEntry::new(times, KEY, &fill))
}

/// The stamp of the entry that a reader is served.
fn look(rules: &NearRules<Shelves>) -> Option<u64> {
    let serves = |entry: &NearEntry| rules.is_servable(&entry.times, at(2), LIFE_MS);
    let stamp = |entry: &NearEntry| entry.version.stamp();
    rules.storage().find(near_hash(KEY), serves, stamp).filter(|_| rules.is_followed(at(2)))
}

fn join_all<const N: usize>(threads: [JoinHandle<()>; N]) {
    threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
}

/// Reads fill the cache while `change` is applied. After that nobody is served a value with a stamp below
/// `least`.
fn crosses(change: fn(&NearRules<Shelves>), least: u64) {
    let rules = Arc::new(NearRules::new(Shelves::new(1 << 20)));
    rules.apply_changes(at(1), true, (&[], &[]), at(1));
    let permits = [(); 2].map(|()| rules.begin_fill(at(1)).expect("a node is followed"));
    rules.insert(entry(&rules, permits[0], 1), at(1));
    let applied = Arc::new(AtomicU64::new(0));
    let reader = || {
        let (rules, applied) = (Arc::clone(&rules), Arc::clone(&applied));
        spawn(move || {
            for _ in 0..3 {
                let is_applied = applied.load(SeqCst) > 0;
                let served = look(&rules);
                let is_old = is_applied && served.is_some_and(|stamp| stamp < least);
                assert!(!is_old, "{served:?} after {least} was applied");
            }
        })
    };
    let readers = [reader(), reader()];
    let filling = Arc::clone(&rules);
    // An answer of a node that lags.
    let filler = spawn(move || {
        filling.insert(entry(&filling, permits[1], 1), at(2));
    });
    change(&rules);
    applied.store(1, SeqCst);
    join_all(readers);
    join_all([filler]);
    assert!(look(&rules).is_none_or(|stamp| stamp >= least));
}

#[test]
fn change_is_not_crossed_by_fills_and_readers() {
    run(SCHEDULES, || {
        crosses(|rules| rules.apply_changes(at(1), false, (&[(near_hash(KEY), 2)], &[]), at(2)), 2);
    });
}

#[test]
fn purge_is_not_crossed_by_fills_and_readers() {
    run(SCHEDULES, || {
        let purge = |rules: &NearRules<Shelves>| {
            rules.apply_changes(at(1), false, (&[], &[(TargetId::EVERYTHING.0, 1)]), at(2));
        };
        crosses(purge, 2);
    });
}

#[test]
fn gap_is_not_crossed_by_fills_and_readers() {
    run(SCHEDULES, || {
        crosses(|rules| rules.apply_changes(at(1), true, (&[], &[]), at(2)), u64::MAX)
    });
}

#[test]
fn own_write_is_not_crossed_by_fills_and_readers() {
    run(SCHEDULES, || {
        crosses(|rules| rules.end_write(KEY, Some(Version::new(2, Incarnation(1))), at(2)), 2);
    });
}

#[test]
fn write_that_keeps_no_stamp_is_found_to_be_crossed() {
    fails(|| crosses(|rules| rules.begin_write(KEY), 2));
}

/// A thread's own cache in front of a table. `is_marked_first` is whether readers read the mark before they look
/// the entry up.
fn front(is_marked_first: bool) {
    let rules = NearRules::new(Shelves::new(1 << 20));
    rules.apply_changes(at(1), true, (&[], &[]), at(1));
    let permit = rules.begin_fill(at(1)).expect("a node is followed");
    let hash = near_hash(KEY);
    let table = Arc::new(Mutex::new(HashMap::from([(hash, entry(&rules, permit, 1))])));
    let (marks, applied) = (Arc::new(Marks::default()), Arc::new(AtomicU64::new(0)));
    let reader = {
        let (table, marks, applied) =
            (Arc::clone(&table), Arc::clone(&marks), Arc::clone(&applied));
        spawn(move || {
            for _ in 0..3 {
                let is_applied = applied.load(SeqCst) > 0;
                let before = marks.of(hash);
                let own = thread_cache::with(hash, before, |entry| Some(entry.version.stamp()));
                let served = own.or_else(|| {
                    let entry = table.lock().get(&hash).cloned()?;
                    let mark = if is_marked_first { before } else { marks.of(hash) };
                    thread_cache::insert(hash, mark, &entry);
                    Some(entry.version.stamp())
                });
                assert!(!(is_applied && served.is_some()), "served after it was removed");
            }
        })
    };
    table.lock().remove(&hash);
    marks.change(hash);
    applied.store(1, SeqCst);
    join_all([reader]);
}

#[test]
fn thread_cache_serves_nothing_that_was_removed() {
    run(SCHEDULES, || front(true));
}

#[test]
fn mark_that_is_read_after_the_entry_is_found_to_serve_what_was_removed() {
    fails(|| front(false));
}
