//! Computations that a test holds open.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::poll_immediate;
use tokio::sync::{Notify, Semaphore};
use zerocache_client::ZerocacheClient;

use super::client;

/// A computation that a test holds open: each run takes one permit.
pub struct Gate {
    pub cache: ZerocacheClient,
    runs: AtomicUsize,
    pub started: Notify,
    pub permits: Semaphore,
}

impl Gate {
    pub fn new() -> Arc<Self> {
        Self::of(client())
    }

    pub fn of(cache: ZerocacheClient) -> Arc<Self> {
        let (started, permits) = (Notify::new(), Semaphore::new(0));
        Arc::new(Gate { cache, runs: AtomicUsize::new(0), started, permits })
    }

    pub fn runs(&self) -> usize {
        self.runs.load(Ordering::SeqCst)
    }

    pub async fn pass(&self) -> usize {
        let run = self.runs.fetch_add(1, Ordering::SeqCst);
        self.started.notify_one();
        self.permits.acquire().await.expect("never closed").forget();
        run
    }
}

/// Starts calls that are sure to wait: the leader holds the gate, and each has been polled until
/// it can go no further.
pub async fn waiters<F: Future>(
    count: usize,
    call: impl Fn() -> F,
    gate: &Gate,
) -> (Pin<Box<F>>, Vec<Pin<Box<F>>>) {
    let mut leader = Box::pin(call());
    while gate.runs() == 0 {
        assert!(poll_immediate(&mut leader).await.is_none());
        tokio::task::yield_now().await;
    }
    let mut waiters: Vec<_> = (0..count).map(|_| Box::pin(call())).collect();
    for waiter in &mut waiters {
        assert!(poll_immediate(waiter).await.is_none());
    }
    (leader, waiters)
}
