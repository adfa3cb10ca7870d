//! What one process computes, stores, replaces and invalidates at once: whoever asks after an invalidation
//! never gets what was computed from an origin before it.

#![cfg(feature = "macros")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use support::{bounded, other};
use zerocache_client::{ZerocacheClient, zerocache};

/// How often the origin changes.
const CHANGES: u64 = 150;

/// What functions read, and what of it has been invalidated.
struct Origin {
    cache: ZerocacheClient,
    value: AtomicU64,
    invalidated: AtomicU64,
    turns: AtomicU64,
    over: AtomicBool,
}

impl Origin {
    fn new(name: &str) -> Arc<Self> {
        let cache = other(name);
        // Short enough that some lead beside others.
        cache.set_memo_wait(Duration::from_millis(2));
        let number = || AtomicU64::new(0);
        let (value, invalidated, turns) = (number(), number(), number());
        Arc::new(Origin { cache, value, invalidated, turns, over: AtomicBool::new(false) })
    }

    /// A number below `bound`, each time another one.
    fn turn(&self, bound: u64) -> u64 {
        let turn = self.turns.fetch_add(1, Ordering::SeqCst);
        turn.wrapping_mul(6_364_136_223_846_793_005).rotate_left(17) % bound
    }

    async fn read(&self) -> (u64, Vec<u8>) {
        let value = self.value.load(Ordering::SeqCst);
        match self.turn(5) {
            0 => {}
            ms => tokio::time::sleep(Duration::from_millis(ms)).await,
        }
        // Some are small, and some so large that others overtake them.
        let bytes = if self.turn(4) == 0 { 300_000 } else { 10 };
        (value, vec![7; bytes])
    }
}

#[zerocache(&origin.cache, 60, key = "plain")]
async fn plain(origin: Arc<Origin>) -> (u64, Vec<u8>) {
    origin.read().await
}

#[zerocache(&origin.cache, 60, key = "near", near)]
async fn near(origin: Arc<Origin>) -> (u64, Vec<u8>) {
    origin.read().await
}

#[zerocache(&origin.cache, 60, key = "leased", lease(region, wait = "1ms"))]
async fn leased(origin: Arc<Origin>) -> (u64, Vec<u8>) {
    origin.read().await
}

macro_rules! nobody_gets_what_was_invalidated {
    ($function:ident) => {
        #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
        async fn $function() {
            let origin = Origin::new(concat!("origin-", stringify!($function)));
            let call = {
                let origin = origin.clone();
                move || super::$function(origin.clone())
            };
            let reader = |n: u64| {
                let (origin, call) = (origin.clone(), call.clone());
                tokio::spawn(async move {
                    while !origin.over.load(Ordering::SeqCst) {
                        // What is near is there at once.
                        tokio::task::yield_now().await;
                        let least = origin.invalidated.load(Ordering::SeqCst);
                        let call =
                            if n == 0 && origin.turn(4) == 0 { call().refresh() } else { call() };
                        // Some are cancelled, wherever they are.
                        let patience = Duration::from_millis(1 + origin.turn(30));
                        if let Ok((value, _)) = tokio::time::timeout(patience, call).await {
                            assert!(value >= least, "{value} after {least} was invalidated");
                        }
                    }
                })
            };
            let readers: Vec<_> = (0..6).map(reader).collect();
            bounded(async {
                for _ in 0..CHANGES {
                    let value = origin.value.fetch_add(1, Ordering::SeqCst) + 1;
                    call().invalidate().await.expect("deletes");
                    origin.invalidated.fetch_max(value, Ordering::SeqCst);
                    tokio::time::sleep(Duration::from_millis(origin.turn(8))).await;
                }
            })
            .await;
            origin.over.store(true, Ordering::SeqCst);
            for reader in join_all(readers).await {
                reader.expect("no old value");
            }
            let stats = origin.cache.memo_stats();
            assert!(stats.hits > 0 && stats.coalesced > 0 && stats.computed > 0, "{stats:?}");
        }
    };
}

mod nobody_gets_what_was_invalidated {
    use super::*;

    nobody_gets_what_was_invalidated!(plain);
    nobody_gets_what_was_invalidated!(near);
    nobody_gets_what_was_invalidated!(leased);
}
