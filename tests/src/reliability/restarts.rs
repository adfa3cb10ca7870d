//! Planned restarts: of a region one node after the other, under load, and of everything at once.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use zerocache_net::clock;

use crate::net::{Net, REGIONS};
use crate::poll::{PATIENCE, StopFlag, pass, time_until};
use crate::probes::{Probes, keys};

/// Callers that read one after the other.
const CALLERS: usize = 4;

/// The bytes of a value.
const VALUE_BYTES: usize = 200;

/// Seconds that are counted at most.
const SECONDS_MAX: usize = 600;

/// The reads of one second.
#[derive(Clone, Copy, Debug, Default)]
pub struct Second {
    /// With a value.
    pub hits: u64,
    /// Without one, or without an answer.
    pub others: u64,
}

impl Second {
    /// The share of hits; 1 when nothing was read.
    #[must_use]
    pub fn ratio(self) -> f64 {
        let all = self.hits + self.others;
        if all == 0 { 1.0 } else { self.hits as f64 / all as f64 }
    }
}

/// The result of the measurement.
#[derive(Clone, Debug)]
pub struct Rolling {
    /// All seconds, in order.
    pub seconds: Vec<Second>,
    /// Reads with a value, in all.
    pub hits: u64,
    /// Reads without one, or without an answer, in all.
    pub others: u64,
    /// The longest time from a read that failed to the last one that failed after it, with no
    /// longer pause than a tenth of a second between failures.
    pub longest_gap: Duration,
    /// From the start of each new process until it was ready; none where it was not.
    pub ready: Vec<Option<Duration>>,
}

/// The result of a restart of the whole cluster.
#[derive(Clone, Debug)]
pub struct Whole {
    /// From the start of the first process until all nodes were ready; none when they were not.
    pub ready: Option<Duration>,
    /// The number of keys that each node lacked then.
    pub lacked: Vec<usize>,
}

/// Fills all nodes with `count` keys, shuts all of them down at the same moment, and starts all
/// again.
///
/// # Panics
///
/// If a node does not stop or start.
pub fn whole(net: &mut Net, probes: &Probes, count: usize) -> Whole {
    let keys = keys("kept", count);
    fill(net, probes, &keys);
    for node in &net.cluster.nodes {
        node.shut_down();
    }
    for n in 0..net.len() {
        let ended = net.cluster[n].ended();
        assert!(ended.success(), "node {n} ended with {ended}");
    }
    let began = clock::elapsed();
    for n in 0..net.len() {
        net.restart(n);
    }
    let all_ready = || net.cluster.nodes.iter().all(|node| node.is_ready());
    let ready = time_until(PATIENCE, all_ready).map(|_| clock::elapsed().saturating_sub(began));
    let lacked = (0..net.len()).map(|n| probes.lacks(net.address(n), &keys)).collect();
    Whole { ready, lacked }
}

/// Writes these keys, and waits until every node has them.
fn fill(net: &Net, probes: &Probes, keys: &[Bytes]) {
    probes.fill(net.address(0), keys, VALUE_BYTES, Duration::from_secs(2));
    for n in 0..net.len() {
        let filled = time_until(PATIENCE, || net.cluster[n].stat("entries") >= keys.len() as u64);
        assert!(filled.is_some(), "node {n} is not filled");
    }
}

/// Fills all nodes with `count` keys, then restarts each node of the first region, the next when
/// the last is ready and `pause` has passed, while callers read keys at random.
///
/// # Panics
///
/// If a node does not stop or start.
pub fn rolling(net: &mut Net, probes: &Probes, count: usize, pause: Duration) -> Rolling {
    let keys = keys("kept", count);
    fill(net, probes, &keys);
    let client = net.cluster.client(REGIONS[0]);
    let stop = StopFlag::default();
    let counts: Vec<[AtomicU64; 2]> = (0..SECONDS_MAX).map(|_| Default::default()).collect();
    let began = clock::elapsed();
    let since = || clock::elapsed().saturating_sub(began);
    let read_on = |first: usize| {
        let mut failed = Vec::new();
        let mut random = crate::random::Random::new(first as u64);
        while !stop.is_set() {
            let key = &keys[random.below(keys.len())];
            let hit = client.get(key).wait().is_ok_and(|value| value.is_some());
            let at = since();
            if !hit {
                failed.push(at);
            }
            let second = &counts[(at.as_secs() as usize).min(SECONDS_MAX - 1)];
            second[usize::from(!hit)].fetch_add(1, Ordering::Relaxed);
            pass(Duration::from_micros(500));
        }
        failed
    };
    let read_on = &read_on;
    let (ready, mut failed) = std::thread::scope(|threads| {
        let end = stop.set_on_drop();
        let callers: Vec<_> =
            (0..CALLERS).map(|first| threads.spawn(move || read_on(first))).collect();
        pass(Duration::from_secs(2));
        let mut ready = Vec::new();
        for n in net.nodes_of(0) {
            net.cluster[n].shut_down();
            let ended = net.cluster[n].ended();
            assert!(ended.success(), "node {n} ended with {ended}");
            net.restart(n);
            ready.push(time_until(PATIENCE, || net.cluster[n].is_ready()));
            pass(pause);
        }
        drop(end);
        let failed = callers.into_iter().flat_map(|caller| caller.join().expect("a reader ends"));
        (ready, failed.collect::<Vec<_>>())
    });
    let last = since().as_secs() as usize;
    let seconds = counts.iter().take(last).map(|[hits, others]| Second {
        hits: hits.load(Ordering::Relaxed),
        others: others.load(Ordering::Relaxed),
    });
    failed.sort_unstable();
    let total = |which: usize| {
        counts.iter().map(|second| second[which].load(Ordering::Relaxed)).sum::<u64>()
    };
    let (hits, others) = (total(0), total(1));
    Rolling { seconds: seconds.collect(), hits, others, longest_gap: longest_gap(&failed), ready }
}

/// The longest stretch of these moments without a pause of more than a tenth of a second.
fn longest_gap(failed: &[Duration]) -> Duration {
    let mut longest = Duration::ZERO;
    let (mut first, mut last) = (Duration::ZERO, Duration::ZERO);
    for (n, at) in failed.iter().enumerate() {
        if n == 0 || at.saturating_sub(last) > Duration::from_millis(100) {
            first = *at;
        }
        last = *at;
        longest = longest.max(last.saturating_sub(first));
    }
    longest
}
