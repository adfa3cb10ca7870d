//! Entries whose values tell their keys and how often they were written, and threads that read and write them.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use zerocache_client::{Ack, Status, ZerocacheClient};
use zerocache_net::clock;
use zerocache_tests::poll::StopFlag;
use zerocache_tests::random::Random;

/// The most writes of a client whose outcome is unknown, because the node that had them was killed.
const UNKNOWN_MAX: u64 = 2;

/// The lifetime of entries, in seconds: longer than a test.
const TTL_S: u64 = 3_600;

/// Keys that are written, or read, by one request.
const BATCH: usize = 32;

/// The bytes of a value before those by chance.
const HEAD_BYTES: usize = 16;

/// One operation in so many is a write.
const WRITE_EVERY: usize = 5;

/// A node that leaves gets no writes any more, and answers for its drain of 2 s.
const EVERYWHERE_MS: u64 = 4_000;

/// The pause between two operations of a thread: the machine has other things to do.
const PAUSE: Duration = Duration::from_millis(2);

/// The entries of a test.
pub(super) struct Entries {
    pub(super) count: usize,
    sizes: (usize, usize),
    /// How often each was written, with an acknowledgement of its owners, and when last, in milliseconds.
    written: Vec<(AtomicU64, AtomicU64)>,
}

/// What threads saw.
#[derive(Default)]
pub(super) struct Observations {
    pub(super) reads: AtomicUsize,
    pub(super) writes: AtomicUsize,
    pub(super) misses: AtomicUsize,
    /// The keys that were missed.
    pub(super) missed: Mutex<BTreeSet<usize>>,
}

impl Entries {
    /// Entries with values of these sizes, from and below, in bytes.
    pub(super) fn new(count: usize, sizes: (usize, usize)) -> Self {
        let never = |_| (AtomicU64::new(0), AtomicU64::new(0));
        Self { count, sizes, written: (0..count).map(never).collect() }
    }

    /// How often a key was written, as every reader is to see it, or only the one that wrote it.
    fn written(&self, n: usize, is_writer: bool) -> u64 {
        let (written, at_ms) = &self.written[n];
        let (written, at_ms) = (written.load(Relaxed), at_ms.load(Relaxed));
        let is_everywhere = is_writer || at_ms + EVERYWHERE_MS < clock::mono().as_millis();
        if is_everywhere { written } else { 0 }
    }

    pub(super) fn key(n: usize) -> String {
        format!("picture {n}")
    }

    fn bytes(&self, n: usize) -> usize {
        self.sizes.0 + Random::new(n as u64).below(self.sizes.1 - self.sizes.0)
    }

    /// The bytes of all keys and values.
    pub(super) fn all_bytes(&self) -> usize {
        (0..self.count).map(|n| self.bytes(n) + Self::key(n).len()).sum()
    }

    /// The value of a key when it is written for this time. It does not compress.
    fn value(&self, n: usize, generation: u64) -> Bytes {
        let mut random = Random::new(n as u64 ^ (generation << 32));
        let mut value = Vec::with_capacity(self.bytes(n) + 8);
        value.extend((n as u64).to_le_bytes());
        value.extend(generation.to_le_bytes());
        while value.len() < self.bytes(n) {
            value.extend(random.bits().to_le_bytes());
        }
        value.truncate(self.bytes(n));
        value.into()
    }

    /// Checks that a value is that of the key, and not older than `written`.
    fn check(&self, n: usize, written: u64, value: &[u8]) {
        assert!(value.len() >= HEAD_BYTES, "{n}: {} bytes", value.len());
        let number = |at: usize| u64::from_le_bytes(value[at..at + 8].try_into().expect("8 bytes"));
        let (key, generation) = (number(0), number(8));
        assert_eq!(key, n as u64, "the value of another key");
        assert!(generation >= written, "{n}: written {generation} times, and {written} before");
        assert_eq!(value, self.value(n, generation), "{n}: damaged");
    }

    /// Writes all of them for the first time.
    pub(super) fn fill(&self, client: &ZerocacheClient) {
        for first in (0..self.count).step_by(BATCH) {
            let batch = first..(first + BATCH).min(self.count);
            let entries = batch.map(|n| (Self::key(n), self.value(n, 0)));
            let written = client.put_many(entries, TTL_S).ack(Ack::Region).wait();
            for written in written.expect("nodes that answer") {
                assert_eq!(written.status, Status::Stored);
            }
        }
    }

    /// Reads all of them. Returns how many there are.
    pub(super) fn count_present(&self, client: &ZerocacheClient) -> usize {
        let mut present = 0;
        for n in 0..self.count {
            if let Some(value) = client.get(Self::key(n)).wait().expect("a read") {
                self.check(n, self.written(n, false), &value);
                present += 1;
            }
        }
        present
    }

    /// Reads and writes until the flag is set. No operation fails. A thread, one of `threads`, writes its part of the
    /// keys, and reads nothing older than its writes; nor do the others, a while later.
    pub(super) fn work(
        &self,
        client: &ZerocacheClient,
        (thread, threads): (usize, usize),
        stop: &StopFlag,
        seen: &Observations,
    ) {
        let mut random = Random::new(thread as u64);
        while !stop.is_set() {
            if random.below(WRITE_EVERY) == 0 {
                let n = random.below(self.count / threads) * threads + thread;
                let generation = self.written(n, true) + 1;
                let write = || {
                    let write = client.put(Self::key(n), self.value(n, generation), TTL_S);
                    write.ack(Ack::Region).wait().expect("no write fails").status
                };
                // Of a write that a node had when it was killed nobody knows: it is made again.
                let mut statuses = std::iter::repeat_with(write).take(1 + UNKNOWN_MAX as usize);
                assert!(statuses.any(|status| status == Status::Stored), "key {n}");
                self.written[n].1.store(clock::mono().as_millis(), Relaxed);
                self.written[n].0.store(generation, Relaxed);
                seen.writes.fetch_add(1, Relaxed);
            } else {
                let n = random.below(self.count);
                let written = self.written(n, n % threads == thread);
                let value = client.get(Self::key(n)).wait().expect("no read fails");
                seen.reads.fetch_add(1, Relaxed);
                match value {
                    Some(value) => self.check(n, written, &value),
                    None => {
                        seen.misses.fetch_add(1, Relaxed);
                        seen.missed.lock().expect("no panic").insert(n);
                    }
                }
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Runs `change` while a thread of each client reads and writes.
    pub(super) fn under_load<T>(
        &self,
        clients: &[ZerocacheClient],
        change: impl FnOnce(&Observations) -> T,
    ) -> (T, Observations) {
        let (stop, seen) = (StopFlag::default(), Observations::default());
        let result = std::thread::scope(|threads| {
            let end = stop.set_on_drop();
            let (stop, seen) = (&stop, &seen);
            let work = |(thread, client)| {
                threads.spawn(move || self.work(client, (thread, clients.len()), stop, seen))
            };
            let workers: Vec<_> = clients.iter().enumerate().map(work).collect();
            let result = change(seen);
            drop(end);
            for worker in workers {
                worker.join().expect("no operation fails");
            }
            result
        });
        for client in clients {
            let stats = client.stats();
            assert!(stats.unreachable == 0 && stats.unknown <= UNKNOWN_MAX, "{stats:?}");
        }
        (result, seen)
    }
}
