//! A rolling restart as a Deployment of Kubernetes does it, under load: each node is replaced in turn, and the new
//! one is ready before the old one is asked to shut down.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use zerocache_client::{Status, ZerocacheClient};
use zerocache_tests::cluster::Cluster;
use zerocache_tests::node::Node;
use zerocache_tests::poll::{StopFlag, timed, until_true};
use zerocache_tests::random::Random;
use zerocache_tests::setup::Setup;

const CLIENTS: usize = 4;
const KEYS: usize = 5_000;
const VALUE: [u8; 500] = [b'x'; 500];

/// One operation in so many is a write.
const WRITE_EVERY: usize = 10;

/// So many reads, one after the other, are judged together.
const WINDOW: usize = 200;

/// More windows than a restart has; the last one takes all others.
const WINDOWS: usize = 100_000;

/// The load before the restart, and after each of its steps, in windows.
const BEFORE: usize = 5;
const BETWEEN: usize = 2;

/// The least hit ratio in a window, as a share of the ratio before: 99 of 100.
const SHARE: f64 = 0.99;

/// A read that takes longer is slow; at most one in 100 is.
const SLOW: Duration = Duration::from_millis(100);

/// What clients counted.
struct Counts {
    reads: AtomicUsize,
    /// The reads that found nothing, by window.
    misses: Vec<AtomicUsize>,
    slow: AtomicUsize,
}

impl Counts {
    fn new() -> Self {
        let misses = (0..WINDOWS).map(|_| AtomicUsize::new(0)).collect();
        Self { reads: AtomicUsize::new(0), misses, slow: AtomicUsize::new(0) }
    }

    /// The window of the last read.
    fn now(&self) -> usize {
        (self.reads.load(Ordering::Relaxed) / WINDOW).min(WINDOWS - 1)
    }

    fn count_read(&self, is_hit: bool, took: Duration) {
        let window = (self.reads.fetch_add(1, Ordering::Relaxed) / WINDOW).min(WINDOWS - 1);
        self.misses[window].fetch_add(usize::from(!is_hit), Ordering::Relaxed);
        self.slow.fetch_add(usize::from(took > SLOW), Ordering::Relaxed);
    }

    /// The least hit ratio of these windows.
    fn least_ratio(&self, windows: Range<usize>) -> f64 {
        let most = self.misses[windows].iter().map(|misses| misses.load(Ordering::Relaxed)).max();
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
        let share = most.unwrap_or(WINDOW) as f64 / WINDOW as f64;
        1.0 - share
    }

    /// Waits for so many further windows.
    fn wait_for(&self, windows: usize) {
        let then = self.now();
        until_true("reads", || self.now() > then + windows);
    }
}

fn key(n: usize) -> String {
    format!("key {n}")
}

/// Reads and writes until the flag is set; no operation may fail.
fn work(client: &ZerocacheClient, seed: u64, stop: &StopFlag, counts: &Counts) {
    let mut random = Random::new(seed);
    while !stop.is_set() {
        let key = key(random.below(KEYS));
        if random.below(WRITE_EVERY) == 0 {
            let written = client.put(&key, VALUE, 600).wait().expect("no write fails");
            assert_eq!(written.status, Status::Stored, "{key}");
        } else {
            let (value, took) = timed(|| client.get(&key).wait().expect("no read fails"));
            counts.count_read(value.is_some(), took);
        }
    }
}

/// Replaces each node: the new one knows the running ones, as a DNS name would tell it.
fn replace_each(cluster: &mut Cluster, counts: &Counts) {
    for replaced in 0..cluster.nodes.len() {
        let setup = cluster
            .nodes
            .iter()
            .fold(Setup::new("london"), |setup, node| setup.flag("--seed", node.address()));
        let new = setup.start();
        until_true("the new node is ready", || new.is_ready());
        let mut old = cluster.nodes.remove(0);
        cluster.nodes.push(new);
        old.shut_down();
        assert_eq!(old.ended().code(), Some(0), "node {replaced}: {}", old.log());
        counts.wait_for(BETWEEN);
    }
}

#[test]
fn rolling_restart_under_load_fails_no_operation_and_keeps_the_hit_ratio() {
    let mut cluster = Cluster::start(&["london"; 3]);
    let clients: Vec<_> = (0..CLIENTS).map(|_| cluster.client("london")).collect();
    // By a client of its own: on a busy machine some of so many at once may have no answer in time.
    let filler = cluster.client("london");
    until_true("all entries on all nodes", || {
        let entries = (0..KEYS).map(|n| (key(n), VALUE));
        let is_full = |node: &Node| node.stat("entries") >= KEYS as u64;
        filler.put_many(entries, 600).wait().is_ok() && cluster.nodes.iter().all(is_full)
    });
    let (counts, stop) = (Counts::new(), StopFlag::default());
    let (before, after) = std::thread::scope(|threads| {
        let end = stop.set_on_drop();
        let (counts, stop) = (&counts, &stop);
        let workers: Vec<_> = clients
            .iter()
            .zip(1..)
            .map(|(client, seed)| threads.spawn(move || work(client, seed, stop, counts)))
            .collect();
        counts.wait_for(BEFORE);
        let before = counts.now();
        replace_each(&mut cluster, counts);
        let after = counts.now();
        drop(end);
        for worker in workers {
            worker.join().expect("no operation failed");
        }
        (before, after)
    });
    let (usual, least) = (counts.least_ratio(0..before), counts.least_ratio(before..after));
    let (reads, slow) = (counts.reads.into_inner(), counts.slow.into_inner());
    println!("{reads} reads, {slow} slow ones; hit ratio {usual} before, at least {least}");
    assert!(usual > 0.0 && least >= SHARE * usual, "hit ratio {least}, before {usual}");
    assert!(slow <= CLIENTS + reads / 100, "{slow} of {reads} reads took more than {SLOW:?}");
    for client in &clients {
        assert_eq!(client.stats().unreachable + client.stats().unknown, 0);
    }
    cluster.wait_until_joined();
}
