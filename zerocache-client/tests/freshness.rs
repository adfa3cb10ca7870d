//! Values past their lifetime: who is served what, and who computes.

mod support;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::{join_all, poll_immediate};
use support::{bounded, other};
use tokio::sync::Semaphore;
use zerocache_client::{
    ZerocacheClient,
    memo::Call,
    report::{CallOutcome, CallWrite},
};

/// Something to compute that counts its runs, fails on demand, and may be held open.
struct Source {
    cache: ZerocacheClient,
    key: &'static str,
    runs: AtomicUsize,
    fails: AtomicUsize,
    permits: Semaphore,
}

#[derive(Clone, Debug, PartialEq)]
struct Down(usize);

impl Source {
    fn new(key: &'static str) -> Self {
        let permits = Semaphore::new(Semaphore::MAX_PERMITS);
        let (runs, fails) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Source { cache: other(key), key, runs, fails, permits }
    }

    fn runs(&self) -> usize {
        self.runs.load(Ordering::SeqCst)
    }

    /// From the next run on it fails, or works again.
    fn fail(&self, fails: bool) {
        self.fails.store(usize::from(fails), Ordering::SeqCst);
    }

    async fn run(&self) -> Result<usize, Down> {
        let run = self.runs.fetch_add(1, Ordering::SeqCst) + 1;
        self.permits.acquire().await.expect("never closed").forget();
        if self.fails.load(Ordering::SeqCst) > 0 { Err(Down(run)) } else { Ok(run) }
    }

    /// A call whose value is fresh for the shortest time.
    fn call(&self) -> Call<impl Future<Output = Result<usize, Down>>> {
        self.cache.get_or_compute(self.key, 1, || self.run())
    }

    /// Waits until what was stored is no longer fresh.
    async fn past(&self) {
        while self.call().peek().await.expect("reads").is_some() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

#[tokio::test]
async fn one_caller_refreshes_while_others_get_the_previous_value() {
    bounded(async {
        let source = Source::new("stale-while");
        let call = || source.call().stale_while(60);
        assert_eq!(call().await, Ok(1));
        source.past().await;
        assert_eq!(source.call().peek().await.expect("reads"), None, "a look takes no old value");
        source.permits.forget_permits(Semaphore::MAX_PERMITS);
        let mut refresher = Box::pin(call());
        while source.runs() < 2 {
            assert!(poll_immediate(&mut refresher).await.is_none());
            tokio::task::yield_now().await;
        }
        // The computation stands still; nobody waits for it.
        assert_eq!(join_all((0..10).map(|_| call())).await, [const { Ok(1) }; 10]);
        let (value, report) = call().explain().await;
        assert_eq!((value, report.outcome), (Ok(1), CallOutcome::Stale));
        source.permits.add_permits(1);
        assert_eq!(refresher.await, Ok(2), "the refresher gets the new value");
        assert_eq!(call().await, Ok(2));
        let stats = source.cache.memo_stats();
        assert_eq!((stats.stale_served, stats.refreshed, stats.misses), (11, 1, 1));
        assert_eq!((stats.computed, stats.stored, stats.hits), (2, 2, 1));
    })
    .await;
}

#[tokio::test]
async fn failed_refresh_affects_its_caller_only() {
    bounded(async {
        let source = Source::new("stale-failing");
        let call = || source.call().stale_while(60);
        assert_eq!(call().await, Ok(1));
        source.past().await;
        source.fail(true);
        assert_eq!(call().await, Err(Down(2)), "no older value was asked for on errors");
        source.fail(false);
        assert_eq!(call().await, Ok(3));
    })
    .await;
}

#[tokio::test]
async fn previous_value_is_served_on_error() {
    bounded(async {
        let source = Source::new("stale-if-error");
        assert_eq!(source.call().stale_if_error(60).await, Ok(1));
        source.past().await;
        source.fail(true);
        // The entry says so: this call's own options say nothing of it.
        let (value, report) = source.call().explain().await;
        assert_eq!((value, report.outcome), (Ok(1), CallOutcome::StaleOnError));
        assert!(matches!(report.write, Some(CallWrite::NotStored)));
        assert!(report.compute_time.is_some());
        assert_eq!(join_all((0..5).map(|_| source.call())).await, [const { Ok(1) }; 5]);
        let runs = source.runs();
        source.fail(false);
        assert_eq!(source.call().await, Ok(runs + 1));
        let stats = source.cache.memo_stats();
        assert!(stats.stale_on_error >= 2, "{stats:?}");
        assert_eq!((stats.refreshed, stats.stored), (0, 2));
    })
    .await;
}

#[tokio::test]
async fn previous_value_is_served_on_error_within_its_time_only() {
    bounded(async {
        let source = Source::new("stale-if-error-over");
        let brief = Duration::from_millis(1);
        assert_eq!(source.call().stale_if_error(brief).await, Ok(1));
        source.past().await;
        // The entry ends a millisecond after its fresh time.
        while source.cache.get(source.key).allow_stale().await.expect("reads").is_some() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        source.fail(true);
        assert_eq!(source.call().await, Err(Down(2)));
        assert_eq!(source.cache.memo_stats().stale_on_error, 0);
    })
    .await;
}

#[tokio::test]
async fn hot_key_is_refreshed_before_its_expiry() {
    bounded(async {
        let source = Source::new("ahead");
        let call = || source.cache.get_or_compute("ahead", 4, || source.run()).refresh_ahead(4);
        assert_eq!(call().await, Ok(1));
        let mut asked = 1_u64;
        while source.runs() < 2 {
            call().await.expect("works");
            asked += 1;
        }
        assert_eq!(call().await, Ok(2));
        let stats = source.cache.memo_stats();
        assert_eq!((stats.refreshed_ahead, stats.misses, stats.refreshed), (1, 1, 0));
        assert_eq!(stats.hits, asked - 1, "all but the first and the one that refreshed");
    })
    .await;
}

#[tokio::test]
async fn fresh_value_that_is_refreshed_ahead_is_not_reported_stale() {
    bounded(async {
        let source = Source::new("ahead-held");
        let call =
            || source.cache.get_or_compute("ahead-held", 10, || source.run()).refresh_ahead(10);
        assert_eq!(call().await, Ok(1));
        source.permits.forget_permits(Semaphore::MAX_PERMITS);
        let mut refresher = Box::pin(call());
        while source.runs() < 2 {
            match poll_immediate(&mut refresher).await {
                // Another lot.
                Some(value) => {
                    assert_eq!(value, Ok(1));
                    refresher = Box::pin(call());
                }
                None => tokio::task::yield_now().await,
            }
        }
        let (value, report) = call().explain().await;
        assert_eq!((value, report.outcome), (Ok(1), CallOutcome::Coalesced));
        let stats = source.cache.memo_stats();
        assert_eq!((stats.stale_served, stats.coalesced), (0, 1));
        source.permits.add_permits(1);
        assert_eq!(refresher.await, Ok(2));
    })
    .await;
}

#[tokio::test]
async fn failed_refresh_ahead_keeps_the_value() {
    bounded(async {
        let source = Source::new("ahead-failing");
        let call =
            || source.cache.get_or_compute("ahead-failing", 4, || source.run()).refresh_ahead(4);
        assert_eq!(call().await, Ok(1));
        source.fail(true);
        while source.runs() < 2 {
            assert_eq!(call().await, Ok(1), "it is fresh, whatever comes of computing it");
        }
        assert_eq!(source.cache.memo_stats().stale_on_error, 1);
    })
    .await;
}

#[tokio::test]
async fn stale_value_that_does_not_decode_is_a_miss() {
    bounded(async {
        let source = Source::new("stale-mismatch");
        let text = || async { Ok::<_, Down>("text".to_owned()) };
        let old = source.cache.get_or_compute(source.key, 1, text).stale_while(60);
        assert_eq!(old.await.as_deref(), Ok("text"));
        source.past().await;
        let calls = (0..10).map(|_| source.call());
        assert_eq!(join_all(calls).await, [const { Ok(1) }; 10]);
        let stats = source.cache.memo_stats();
        // Whether a look before found it too is a matter of time.
        assert!(stats.mismatched >= 1, "{stats:?}");
        assert_eq!((source.runs(), stats.stale_served), (1, 0));
    })
    .await;
}

#[tokio::test]
async fn jitter_shortens_lifetimes_within_its_bound() {
    bounded(async {
        let source = Source::new("jitter");
        let mut lives = Vec::new();
        for n in 0..20 {
            let key = format!("jitter-{n}");
            let call = source.cache.get_or_compute(&key, 1_000, || source.run()).jitter(50);
            call.await.expect("works");
            let entry = source.cache.get(&key).entry().await.expect("reads").expect("is there");
            lives.push(entry.ttl);
        }
        let bounds = Duration::from_secs(480)..=Duration::from_secs(1_000);
        assert!(lives.iter().all(|life| bounds.contains(life)), "{lives:?}");
        let (least, most) = (lives.iter().min(), lives.iter().max());
        let spread = most.zip(least).map(|(most, least)| *most - *least);
        assert!(spread > Some(Duration::from_secs(30)), "{lives:?}");
    })
    .await;
}
