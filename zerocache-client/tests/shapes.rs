//! Two releases of a program whose values have two shapes: both use the cache side by side.

#![cfg(feature = "macros")]

mod support;

use std::future::Future;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::{join_all, poll_immediate};
use serde::{Deserialize, Serialize};
use support::{bounded, builder, in_time};
use tokio::sync::Semaphore;
use zerocache_client::{
    Value, ZerocacheClient,
    memo::{Call, LeaseScope},
    report::{CallOutcome, ShapeEntryOutcome},
    zerocache,
};

/// What the program stores before it is deployed again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Old {
    run: usize,
}

/// What it stores afterwards.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct New {
    run: usize,
    note: Option<String>,
}

/// A value of either release, made by so many runs.
trait Release: Clone + Serialize + for<'de> Deserialize<'de> {
    fn of(run: usize) -> Self;
    fn run(&self) -> usize;
}

impl Release for Old {
    fn of(run: usize) -> Self {
        Old { run }
    }

    fn run(&self) -> usize {
        self.run
    }
}

impl Release for New {
    fn of(run: usize) -> Self {
        New { run, note: None }
    }

    fn run(&self) -> usize {
        self.run
    }
}

/// The source of all values, which counts.
static RUNS: AtomicUsize = AtomicUsize::new(0);

/// A client that knows nothing of what others compute, as if it were a process of its own.
fn process(name: &str) -> ZerocacheClient {
    builder("london").namespace(name).build().expect("allowed")
}

fn call<R: Release>(
    cache: &ZerocacheClient,
    key: &str,
    ttl: Duration,
) -> Call<impl Future<Output = io::Result<R>>> {
    let compute = async || Ok(R::of(RUNS.fetch_add(1, Ordering::SeqCst) + 1));
    cache.get_or_compute(key, ttl, compute)
}

const MINUTE: Duration = Duration::from_secs(60);

/// Short enough to wait for its end, and longer than a busy machine stands still.
const SHORT: Duration = Duration::from_secs(2);

/// The run that the value of a call comes from, and what the call came to.
async fn told<R: Release>(call: Call<impl Future<Output = io::Result<R>>>) -> (usize, CallOutcome) {
    let (value, report) = call.explain().await;
    (value.expect("works").run(), report.outcome)
}

/// A process of each release, and their key.
struct Pair {
    old: ZerocacheClient,
    new: ZerocacheClient,
    key: String,
}

impl Pair {
    fn new(test: &str) -> Self {
        let name = |release| format!("{test}-{release}");
        Pair { old: process(&name("old")), new: process(&name("new")), key: test.to_owned() }
    }

    fn of_old(&self) -> Call<impl Future<Output = io::Result<Old>>> {
        call(&self.old, &self.key, MINUTE)
    }

    fn of_new(&self) -> Call<impl Future<Output = io::Result<New>>> {
        call(&self.new, &self.key, MINUTE)
    }

    /// Each computes, the old release first, and then each has its own value.
    async fn both(&self) -> [usize; 2] {
        let (old, outcome) = told(self.of_old()).await;
        assert_eq!(outcome, CallOutcome::Miss);
        let (new, outcome) = told(self.of_new()).await;
        assert_eq!(outcome, CallOutcome::Miss);
        self.keep([old, new]).await;
        [old, new]
    }

    /// Each has the value of this run.
    async fn keep(&self, [old, new]: [usize; 2]) {
        for _ in 0..3 {
            assert_eq!(told(self.of_old()).await, (old, CallOutcome::Hit));
            assert_eq!(told(self.of_new()).await, (new, CallOutcome::Hit));
        }
        let peeked = self.of_old().peek().await.expect("reads").expect("is there");
        assert_eq!(peeked.expect("a value").run(), old);
        let peeked = self.of_new().peek().await.expect("reads").expect("is there");
        assert_eq!(peeked.expect("a value").run(), new);
    }

    /// Neither has any value.
    async fn none(&self) {
        assert!(self.of_old().peek().await.expect("reads").is_none());
        assert!(self.of_new().peek().await.expect("reads").is_none());
    }

    /// Whether the base entry is one of the new release.
    async fn base_is_new(&self) -> bool {
        let read = self.new.get(&self.key).value::<New>().await;
        read.is_ok_and(|value| value.is_some())
    }
}

#[tokio::test]
async fn eight_processes_of_two_shapes_compute_each_key_twice() {
    bounded(async {
        let olds: Vec<_> = (0..4).map(|n| process(&format!("eight-old-{n}"))).collect();
        let news: Vec<_> = (0..4).map(|n| process(&format!("eight-new-{n}"))).collect();
        for round in 0..60 {
            for key in 0..5 {
                let key = format!("eight-{key}");
                for process in 0..4 {
                    // Now the one release is first, now the other.
                    if round % 2 == 0 {
                        call::<Old>(&olds[process], &key, MINUTE).await.expect("works");
                        call::<New>(&news[process], &key, MINUTE).await.expect("works");
                    } else {
                        call::<New>(&news[process], &key, MINUTE).await.expect("works");
                        call::<Old>(&olds[process], &key, MINUTE).await.expect("works");
                    }
                }
            }
        }
        let stats: Vec<_> = olds.iter().chain(&news).map(ZerocacheClient::memo_stats).collect();
        let sum =
            |of: fn(&zerocache_client::stats::MemoStats) -> u64| stats.iter().map(of).sum::<u64>();
        assert_eq!((sum(|s| s.computed), sum(|s| s.hits)), (10, 2_390));
        assert_eq!((sum(|s| s.stored), sum(|s| s.shape_entries_stored)), (10, 5));
        assert_eq!((sum(|s| s.shape_entry_hits), sum(|s| s.mismatched)), (1_195, 1_200));
    })
    .await;
}

#[tokio::test]
async fn processes_with_a_lease_compute_a_key_once_for_each_shape() {
    bounded(async {
        let olds: Vec<_> = (0..4).map(|n| process(&format!("leased-old-{n}"))).collect();
        let news: Vec<_> = (0..4).map(|n| process(&format!("leased-new-{n}"))).collect();
        let runs = AtomicUsize::new(0);
        for key in 0..5 {
            let key = format!("leased-{key}");
            let slow = async || {
                tokio::time::sleep(Duration::from_millis(50)).await;
                runs.fetch_add(1, Ordering::SeqCst) + 1
            };
            let of_old = |cache: &ZerocacheClient| {
                let call =
                    cache.get_or_compute(&key, 60, async || io::Result::Ok(Old::of(slow().await)));
                call.lease(LeaseScope::Region)
            };
            let of_new = |cache: &ZerocacheClient| {
                let call =
                    cache.get_or_compute(&key, 60, async || io::Result::Ok(New::of(slow().await)));
                call.lease(LeaseScope::Region)
            };
            let (old, new) =
                tokio::join!(join_all(olds.iter().map(of_old)), join_all(news.iter().map(of_new)));
            let old: Vec<_> = old.into_iter().map(|value| value.expect("works").run()).collect();
            let new: Vec<_> = new.into_iter().map(|value| value.expect("works").run()).collect();
            assert_eq!((&old, &new), (&vec![old[0]; 4], &vec![new[0]; 4]));
            assert_ne!(old[0], new[0]);
        }
        assert_eq!(runs.load(Ordering::SeqCst), 10);
        let leases = |process: &ZerocacheClient| process.memo_stats().leases_granted;
        let leases: u64 = olds.iter().chain(&news).map(leases).sum();
        assert!((10..=20).contains(&leases), "{leases}");
    })
    .await;
}

#[tokio::test]
async fn invalidation_by_either_release_reaches_both() {
    bounded(async {
        let pair = Pair::new("invalidated");
        let first = pair.both().await;
        pair.of_old().invalidate().await.expect("deletes");
        pair.none().await;
        let second = pair.both().await;
        pair.of_new().invalidate().await.expect("deletes");
        pair.none().await;
        // As somebody does who knows nothing of shapes.
        let third = pair.both().await;
        process("invalidated-other").delete(&pair.key).await.expect("deletes");
        pair.none().await;
        let fourth = pair.both().await;
        let mut runs = [first, second, third, fourth].concat();
        runs.dedup();
        assert_eq!(runs.len(), 8, "nobody gets an earlier value: {runs:?}");
    })
    .await;
}

#[tokio::test]
async fn put_by_another_client_ends_shape_entries() {
    bounded(async {
        let pair = Pair::new("overwritten");
        let [old, new] = pair.both().await;
        pair.old.put(&pair.key, "of another program", 60).await.expect("stores");
        pair.none().await;
        let [older, newer] = pair.both().await;
        assert!(older > old && newer > new);
        let kept = pair.old.get(&pair.key).await.expect("reads");
        assert_eq!(kept.as_deref(), Some(&b"of another program"[..]));
    })
    .await;
}

#[tokio::test]
async fn value_computed_before_a_delete_is_never_served_after_it() {
    bounded(async {
        let pair = Pair::new("late");
        pair.of_old().await.expect("works");
        let gate = Semaphore::new(0);
        let mut late = Box::pin(pair.new.get_or_compute(&pair.key, 60, async || {
            gate.acquire().await.expect("never closed").forget();
            io::Result::Ok(New::of(0))
        }));
        while pair.new.memo_stats().misses == 0 {
            assert!(poll_immediate(&mut late).await.is_none());
            tokio::task::yield_now().await;
        }
        // By another process, which does not know of the computation.
        pair.old.delete(&pair.key).await.expect("deletes");
        gate.add_permits(1);
        assert_eq!(late.await.expect("works").run(), 0);
        assert_eq!(pair.new.memo_stats().shape_entries_stored, 1);
        pair.none().await;
        let [_, new] = pair.both().await;
        assert_ne!(new, 0);
    })
    .await;
}

#[tokio::test]
async fn refresh_replaces_the_base_entry_for_every_release() {
    bounded(async {
        let pair = Pair::new("refreshed");
        let [old, new] = pair.both().await;
        assert!(!pair.base_is_new().await);
        let (refreshed, outcome) = told(pair.of_new().refresh()).await;
        assert!(refreshed > new && outcome == CallOutcome::Refreshed);
        assert!(pair.base_is_new().await);
        let (again, outcome) = told(pair.of_old()).await;
        assert!(again > old && outcome == CallOutcome::Miss, "its value was of before the refresh");
        pair.keep([again, refreshed]).await;
        let last = told(pair.of_old().refresh()).await.0;
        assert!(!pair.base_is_new().await);
        let (again, outcome) = told(pair.of_new()).await;
        assert_eq!(outcome, CallOutcome::Miss);
        pair.keep([last, again]).await;
    })
    .await;
}

#[tokio::test]
async fn first_caller_after_the_fresh_time_of_the_base_replaces_it() {
    bounded(async {
        let pair = Pair::new("expired");
        call::<Old>(&pair.old, &pair.key, SHORT).await.expect("works");
        let (new, outcome) = told(pair.of_new()).await;
        assert_eq!(outcome, CallOutcome::Miss);
        assert!(!pair.base_is_new().await);
        // Its own lifetime is a minute, and it ends with the entry beside which it stands.
        while told(pair.of_new()).await == (new, CallOutcome::Hit) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(pair.base_is_new().await);
        let (old, outcome) = told(pair.of_old()).await;
        assert_eq!(outcome, CallOutcome::Miss);
        let new = told(pair.of_new()).await.0;
        pair.keep([old, new]).await;
    })
    .await;
}

#[tokio::test]
async fn previous_value_is_served_while_its_own_release_computes() {
    bounded(async {
        let pair = Pair::new("stale");
        let first = call::<Old>(&pair.old, &pair.key, SHORT).stale_while(60);
        first.await.expect("works");
        let new = told(pair.of_new().stale_while(60)).await.0;
        while pair.of_old().peek().await.expect("reads").is_some() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let gate = Semaphore::new(0);
        let refresh = || {
            Box::pin(pair.new.get_or_compute(&pair.key, 60, async || {
                gate.acquire().await.expect("never closed").forget();
                io::Result::Ok(New::of(usize::MAX))
            }))
        };
        let mut refresher = refresh();
        while pair.new.memo_stats().refreshed == 0 {
            // Its own value is fresh for a moment longer: then once more.
            if poll_immediate(&mut refresher).await.is_some() {
                refresher = refresh();
            }
            tokio::task::yield_now().await;
        }
        assert_eq!(told(pair.of_new()).await, (new, CallOutcome::Stale));
        assert!(!pair.base_is_new().await);
        gate.add_permits(1);
        assert_eq!(refresher.await.expect("works").run(), usize::MAX);
        // The base entry was past its time, so that it was replaced.
        assert!(pair.base_is_new().await);
        assert_eq!(told(pair.of_new()).await, (usize::MAX, CallOutcome::Hit));
    })
    .await;
}

#[tokio::test]
async fn near_shape_entries_follow_the_base_entry() {
    bounded(async {
        let pair = Pair::new("near");
        let of_old = || pair.of_old().near();
        let of_new = || pair.of_new().near();
        let (old, new) = (told(of_old()).await.0, told(of_new()).await.0);
        // Near values are kept once a node tells what changes.
        loop {
            let (near_old, near_new) = (told(of_old()).await, told(of_new()).await);
            assert_eq!((near_old.0, near_new.0), (old, new));
            if [near_old.1, near_new.1] == [CallOutcome::Near; 2] {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        pair.of_old().invalidate().await.expect("deletes");
        // A node tells the other process of it.
        while told(of_new()).await.0 == new {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_ne!(told(of_old()).await.0, old);
    })
    .await;
}

#[tokio::test]
async fn shape_entry_limited_by_its_base_is_not_refreshed_early() {
    bounded(async {
        let pair = Pair::new("ahead");
        call::<Old>(&pair.old, &pair.key, SHORT).await.expect("works");
        let ahead = || pair.of_new().refresh_ahead(60);
        let new = told(ahead()).await.0;
        // At the end of a lifetime almost every call would win.
        loop {
            let (run, outcome) = told(ahead()).await;
            if run != new {
                assert_eq!(outcome, CallOutcome::Miss);
                break;
            }
        }
        // The base entry may outlive this one by some microseconds; it is replaced by the next miss then.
        while !pair.base_is_new().await {
            told(ahead()).await;
        }
        assert_eq!(pair.new.memo_stats().refreshed_ahead, 0);
    })
    .await;
}

#[tokio::test]
async fn report_says_why_a_value_was_not_used() {
    bounded(async {
        let pair = Pair::new("explained");
        let (_, report) = pair.of_old().explain().await;
        assert!(report.mismatch.is_none());
        let version =
            pair.old.get(&pair.key).entry().await.expect("reads").expect("is there").version;
        let told = async || {
            let (_, report) = pair.of_new().explain().await;
            let text = report.to_string();
            (report.mismatch.expect("it found the other release's"), text)
        };
        let (mismatch, text) = told().await;
        assert_eq!(
            (mismatch.version, mismatch.shape_entry),
            (version, ShapeEntryOutcome::NotFound)
        );
        let why = format!("not used: version {version}: the stored value has another shape than");
        assert!(text.contains(&why) && text.contains("shape entry: not found: miss, "), "{text}");
        let (mismatch, text) = told().await;
        assert_eq!(mismatch.shape_entry, ShapeEntryOutcome::Found);
        assert!(text.starts_with("hit, ") && text.contains("shape entry: found: hit, "), "{text}");
        pair.of_old().refresh().await.expect("works");
        let (mismatch, text) = told().await;
        assert_eq!(mismatch.shape_entry, ShapeEntryOutcome::Outdated);
        assert!(text.contains("shape entry: of an earlier version: hit, "), "{text}");
    })
    .await;
}

#[tokio::test]
async fn three_shapes_have_an_entry_each() {
    bounded(async {
        let pair = Pair::new("three");
        let third = process("three-third");
        let of_third = || {
            let compute = async || io::Result::Ok(RUNS.fetch_add(1, Ordering::SeqCst) + 1);
            third.get_or_compute(&pair.key, 60, compute)
        };
        let both = pair.both().await;
        let own = of_third().await.expect("works");
        for _ in 0..3 {
            pair.keep(both).await;
            assert_eq!(of_third().await.expect("works"), own);
        }
        of_third().invalidate().await.expect("deletes");
        pair.none().await;
        assert!(of_third().await.expect("works") > own);
    })
    .await;
}

#[zerocache(process("sync"), 60, call = blocking_call)]
fn blocking(n: u64) -> (u64, usize) {
    (n, RUNS.fetch_add(1, Ordering::SeqCst))
}

#[test]
fn blocking_call_stores_a_shape_entry() {
    in_time(|| {
        let cache = process("sync");
        let key = blocking_call(1).key().expect("has a key");
        cache.put(&key, Value(&"of another release".to_owned()), 60).wait().expect("stores");
        let first = blocking(1);
        assert_eq!(blocking(1), first);
        assert_eq!(blocking_call(1).peek().wait().expect("reads"), Some(first));
        cache.delete(&key).wait().expect("deletes");
        assert_ne!(blocking(1), first);
    });
}
