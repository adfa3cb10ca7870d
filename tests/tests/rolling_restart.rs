//! A rolling restart as a Deployment of Kubernetes does it, under load: each node is replaced in turn, and the new
//! one is ready before the old one is asked to shut down.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use zerocache_client::{Status, ZerocacheClient};
use zerocache_net::clock;
use zerocache_tests::cluster::Cluster;
use zerocache_tests::poll::{StopFlag, timed, until_true};
use zerocache_tests::random::Random;
use zerocache_tests::setup::Setup;

const CLIENTS: usize = 4;
const KEYS: usize = 5_000;
const VALUE: [u8; 500] = [b'x'; 500];

/// One operation in so many is a write.
const WRITE_EVERY: usize = 10;

/// The reads of this time are judged together.
const WINDOW: Duration = Duration::from_millis(500);

/// More windows than a restart takes.
const WINDOWS: usize = 1_000;

/// The least hit ratio in a window, as a share of the ratio before: 99 of 100.
const SHARE: f64 = 0.99;

/// A window with fewer reads, such as the last one, says nothing.
const READS_LEAST: usize = 100;

/// A read that takes longer is slow; at most one in 1,000 is.
const SLOW: Duration = Duration::from_millis(100);

/// What clients counted in a window.
#[derive(Default)]
struct Window {
    reads: AtomicUsize,
    hits: AtomicUsize,
}

/// What clients counted.
struct Counts {
    began: Duration,
    windows: Vec<Window>,
    operations: AtomicUsize,
    slow: AtomicUsize,
}

impl Counts {
    fn new() -> Self {
        let windows = (0..WINDOWS).map(|_| Window::default()).collect();
        let (operations, slow) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Self { began: clock::elapsed(), windows, operations, slow }
    }

    fn now(&self) -> usize {
        let passed = clock::elapsed().saturating_sub(self.began);
        let window = passed.as_millis() / WINDOW.as_millis();
        usize::try_from(window).unwrap_or(WINDOWS).min(WINDOWS - 1)
    }

    fn count_read(&self, is_hit: bool, took: Duration) {
        let window = &self.windows[self.now()];
        window.reads.fetch_add(1, Ordering::Relaxed);
        window.hits.fetch_add(usize::from(is_hit), Ordering::Relaxed);
        self.slow.fetch_add(usize::from(took > SLOW), Ordering::Relaxed);
    }

    /// The reads and the hit ratio of some windows.
    fn ratio(&self, windows: impl Iterator<Item = usize>) -> (usize, f64) {
        let count = |(reads, hits), window: usize| {
            let window = &self.windows[window];
            let load = |counter: &AtomicUsize| counter.load(Ordering::Relaxed);
            (reads + load(&window.reads), hits + load(&window.hits))
        };
        let (reads, hits) = windows.fold((0, 0), count);
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
        (reads, hits as f64 / reads.max(1) as f64)
    }

    /// Waits for so many further operations.
    fn wait_for(&self, operations: usize) {
        let then = self.operations.load(Ordering::Relaxed);
        until_true("work", || self.operations.load(Ordering::Relaxed) >= then + operations);
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
        counts.operations.fetch_add(1, Ordering::Relaxed);
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
        counts.wait_for(100);
    }
}

#[test]
fn rolling_restart_under_load_fails_no_operation_and_keeps_the_hit_ratio() {
    let mut cluster = Cluster::start(&["london"; 3]);
    let clients: Vec<_> = (0..CLIENTS).map(|_| cluster.client("london")).collect();
    for n in 0..KEYS {
        clients[0].put(key(n), VALUE, 600).wait().expect("stored");
    }
    let (counts, stop) = (Counts::new(), StopFlag::default());
    let (before, after) = std::thread::scope(|threads| {
        let end = stop.set_on_drop();
        let (counts, stop) = (&counts, &stop);
        let workers: Vec<_> = clients
            .iter()
            .zip(1..)
            .map(|(client, seed)| threads.spawn(move || work(client, seed, stop, counts)))
            .collect();
        until_true("two seconds of load", || counts.now() >= 4);
        let before = counts.now();
        replace_each(&mut cluster, counts);
        let after = counts.now();
        until_true("a second of load", || counts.now() >= after + 2);
        drop(end);
        for worker in workers {
            worker.join().expect("no operation failed");
        }
        (before, after)
    });
    let (reads, usual) = counts.ratio(0..before);
    assert!(reads > READS_LEAST && usual > 0.0, "{reads} reads before, hit ratio {usual}");
    let mut least = usual;
    for window in before..=after + 2 {
        let (reads, ratio) = counts.ratio(std::iter::once(window));
        if reads >= READS_LEAST {
            least = least.min(ratio);
        }
    }
    let (reads, _) = counts.ratio(0..WINDOWS);
    let slow = counts.slow.load(Ordering::Relaxed);
    let operations = counts.operations.load(Ordering::Relaxed);
    println!(
        "{operations} operations, {slow} slow reads; hit ratio {usual} before, at least {least}"
    );
    assert!(least >= SHARE * usual, "hit ratio {least}, before {usual}");
    assert!(slow <= 4 + reads / 1_000, "{slow} of {reads} reads took more than {SLOW:?}");
    for client in &clients {
        assert_eq!(client.stats().unreachable + client.stats().unknown, 0);
    }
    cluster.wait_until_joined();
}
