//! Ends without warning while writers are at work.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use zerocache_tests::node::{Node, entry};
use zerocache_tests::setup::Setup;

use super::{directory, key, restart, round_of, setup, start, value};

const WRITERS: usize = 5;
const KEYS_EACH: usize = 400;
const CRASHES: usize = 20;

/// How long the writers write before each crash.
const WORK: Duration = Duration::from_millis(700);

/// What a writer knows of a key. Rounds begin with 1; a value of a lower round than `least` must not be read.
#[derive(Default)]
struct Known {
    /// The last round that was written, acknowledged or not.
    last: AtomicUsize,
    /// The lowest round that may be read.
    least: AtomicUsize,
}

struct Work {
    keys: Vec<Known>,
    acknowledged: AtomicU64,
    is_over: AtomicBool,
}

impl Work {
    fn new() -> Self {
        let keys = (0..WRITERS * KEYS_EACH).map(|_| Known::default()).collect();
        Self { keys, acknowledged: AtomicU64::new(0), is_over: AtomicBool::new(false) }
    }

    /// Puts, deletes and purges until the node is gone.
    fn write(&self, node: &Node, writer: usize, seed: usize) {
        let mut state = (seed * WRITERS + writer) as u64 | 1;
        let mut random = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize
        };
        while !self.is_over.load(Relaxed) {
            let n = writer * KEYS_EACH + random() % KEYS_EACH;
            let known = &self.keys[n];
            let (method, target, round) = match random() % 40 {
                0 => ("POST", format!("/v1/tags/writer-{writer}/purge?ack=region"), 0),
                1..6 => ("DELETE", format!("{}?ack=region", entry(&key(n))), 0),
                _ => (
                    "PUT",
                    format!("{}?ttl=3600&ack=region&tags=writer-{writer}", entry(&key(n))),
                    known.last.fetch_add(1, Relaxed) + 1,
                ),
            };
            let body = if round > 0 { value(n, round) } else { Vec::new() };
            let Ok(answer) = node.try_http(method, &target, &body) else { return };
            if answer.status != 200 {
                continue;
            }
            self.acknowledged.fetch_add(1, Relaxed);
            match method {
                "PUT" => known.least.store(round, Relaxed),
                "DELETE" => known.least.store(known.last.load(Relaxed) + 1, Relaxed),
                _ => {
                    for known in &self.keys[writer * KEYS_EACH..][..KEYS_EACH] {
                        known.least.store(known.last.load(Relaxed) + 1, Relaxed);
                    }
                }
            }
        }
    }

    /// Reads every key. Returns how many there are.
    fn check(&self, node: &Node) -> usize {
        let mut hits = 0;
        for (n, known) in self.keys.iter().enumerate() {
            let Some(bytes) = node.value(&key(n)) else { continue };
            let (round, least) = (round_of(n, &bytes), known.least.load(Relaxed));
            assert!(round >= least, "key {n}: round {round} is back, {least} is the lowest");
            hits += 1;
        }
        hits
    }

    /// Lets the writers write to a node, and ends it in the midst of that.
    fn run_until_crash(&self, node: &mut Node, seed: usize) {
        self.is_over.store(false, Relaxed);
        thread::scope(|scope| {
            for writer in 0..WRITERS {
                let at: &Node = node;
                scope.spawn(move || self.write(at, writer, seed));
            }
            thread::sleep(WORK);
            node.abort();
            self.is_over.store(true, Relaxed);
        });
        node.kill();
    }
}

/// Crashes a node again and again, and returns the hits after the last restart beside what the disk had before it.
fn crash(setup: &Setup, beside: Option<&Node>) -> (usize, usize) {
    let mut node = start(setup);
    let work = Work::new();
    let mut last = (0, 0);
    for seed in 0..CRASHES {
        work.run_until_crash(&mut node, seed);
        node = restart(setup, &node);
        let on_disk = node.stat("disk_entries") as usize;
        let hits = work.check(&node);
        if let Some(other) = beside {
            work.check(other);
        }
        assert_eq!(node.stat("disk_errors"), 0, "after crash {seed}");
        last = (hits, on_disk);
    }
    assert!(work.acknowledged.load(Relaxed) > 1_000, "the writers wrote too little");
    last
}

#[test]
fn nothing_that_was_replaced_deleted_or_purged_comes_back_after_crashes_of_a_lone_node() {
    let directory = directory();
    let (hits, on_disk) = crash(&setup(directory.path()), None);
    assert!(hits * 100 >= on_disk * 95, "{hits} hits of {on_disk} on disk");
}

#[test]
fn nothing_comes_back_after_crashes_beside_a_peer() {
    let (directory, other) = (directory(), super::directory());
    let peer = start(&setup(other.path()));
    let setup = setup(directory.path()).flag("--seed", peer.address());
    crash(&setup, Some(&peer));
}
