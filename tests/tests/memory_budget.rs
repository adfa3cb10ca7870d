//! The memory of a node stays near its budget, whatever sizes its values have and however these
//! change.

use std::sync::Arc;

use futures_util::{StreamExt, stream};
use tokio::runtime::Runtime;
use zerocache_client::{Status, ZerocacheClient};
use zerocache_tests::cluster::builder;
use zerocache_tests::node::Node;
use zerocache_tests::poll::PATIENCE;
use zerocache_tests::random::Random;
use zerocache_tests::setup::Setup;

const MIB: u64 = 1 << 20;
const BUDGET: u64 = 64 * MIB;

/// The largest value that a node of this budget takes.
const LARGEST: usize = (BUDGET / 16) as usize;

/// The bound of docs/operation.md: 1.35 times the budget, 32 MiB, and the shares of bodies and
/// messages: two of the largest values and of the largest messages.
const MEMORY_MAX: u64 =
    BUDGET * 135 / 100 + 32 * MIB + 2 * LARGEST as u64 + 2 * (16 * MIB + MIB / 4);

/// Concurrent batches, and the size of one.
const AT_ONCE: usize = 4;
const BATCH_BYTES: u64 = 256 << 10;
const BATCH_MAX: usize = 256;

/// A node, and who fills it.
struct Filled {
    node: Node,
    client: ZerocacheClient,
    runtime: Runtime,
    keys: u64,
}

type Sizes = fn(&mut Random) -> usize;

const SMALL: (&str, Sizes) = ("small", |random| 16 + random.below(240));
const MEGABYTE: (&str, Sizes) = ("a megabyte", |_| 1_000_000);
const LARGE: (&str, Sizes) = ("the largest", |random| LARGEST - random.below(1_000));
const MEDIUM: (&str, Sizes) = ("medium", |random| 4_000 + random.below(60_000));
/// As many of each power of two from 16 bytes to the largest.
const ALL: (&str, Sizes) = ("all", |random| {
    let bits = 4 + random.below(18);
    (1 << bits) + random.below(1 << bits)
});

impl Filled {
    fn start() -> Self {
        let node = Setup { max_bytes: "64MiB", ..Setup::new("oslo") }.start();
        let client =
            builder("oslo").mdns(false).seed(node.address().to_string()).build().expect("a client");
        client.wait_ready(PATIENCE).expect("a node in sync");
        let runtime = Runtime::new().expect("a runtime");
        Self { node, client, runtime, keys: 0 }
    }

    /// Writes `budgets` times the budget in values of these sizes, and reads a third of them once.
    fn fill(&mut self, (what, size): (&str, Sizes), budgets: f64) {
        let mut random = Random::new(self.keys);
        // Incompressible bytes.
        let noise: Vec<u8> = (0..LARGEST / 4).flat_map(|_| random.bits().to_le_bytes()).collect();
        let noise = Arc::new(noise);
        let (mut left, mut batches) = ((BUDGET as f64 * budgets) as u64, Vec::new());
        while left > 0 {
            let (mut batch, mut bytes) = (Vec::new(), 0);
            while bytes < BATCH_BYTES && batch.len() < BATCH_MAX {
                let length = size(&mut random);
                batch.push((self.keys, random.below(LARGEST), length));
                self.keys += 1;
                bytes += length as u64 + 130;
            }
            left = left.saturating_sub(bytes);
            batches.push(batch);
        }
        let client = &self.client;
        let written = stream::iter(batches).map(|batch| {
            let (client, noise) = (client.clone(), Arc::clone(&noise));
            async move { write(&client, &noise, batch).await }
        });
        let mut peak = 0;
        self.runtime.block_on(async {
            let mut written = written.buffer_unordered(AT_ONCE);
            while written.next().await.is_some() {
                peak = peak.max(self.node.memory_bytes().unwrap_or(0));
            }
        });
        let held = self.node.stat("bytes");
        eprintln!("{what}: {} MiB held, {} MiB at most", held / MIB, peak / MIB);
        // Also while it changes; it is promised 20 s after.
        assert!(peak <= MEMORY_MAX, "{what}: {} MiB", peak / MIB);
        assert!(held >= BUDGET * 3 / 4, "{what}: only {} MiB are held", held / MIB);
    }
}

async fn write(client: &ZerocacheClient, noise: &[u8], batch: Vec<(u64, usize, usize)>) {
    let key = |n: u64| format!("a key of an entry {n:014}");
    let entries = batch.iter().map(|(n, from, length)| (key(*n), &noise[*from..from + length]));
    let mut entries: Vec<_> = entries.collect();
    // The share of messages may be in use.
    while !entries.is_empty() {
        let written = client.put_many(entries.clone(), 3_600).deadline(PATIENCE).await;
        let written = written.expect("a node that answers");
        let mut stored = written.iter().map(|written| written.status == Status::Stored);
        entries.retain(|_| !stored.next().unwrap_or(false));
    }
    for (n, ..) in batch.iter().step_by(3) {
        // The results of the reads do not matter: a busy machine answers some of them too late.
        let _read_or_late = client.get(key(*n)).await;
    }
}

#[test]
fn small_values_then_large_ones_then_small_ones() {
    let mut filled = Filled::start();
    filled.fill(SMALL, 1.5);
    filled.fill(LARGE, 4.0);
    filled.fill(SMALL, 1.5);
}

#[test]
fn values_of_a_megabyte() {
    Filled::start().fill(MEGABYTE, 6.0);
}

#[test]
fn medium_values_then_a_megabyte() {
    let mut filled = Filled::start();
    filled.fill(MEDIUM, 4.0);
    filled.fill(MEGABYTE, 4.0);
}

#[test]
fn values_of_all_sizes() {
    let mut filled = Filled::start();
    filled.fill(ALL, 6.0);
    filled.fill(MEDIUM, 3.0);
}

#[test]
fn small_values_then_a_megabyte() {
    let mut filled = Filled::start();
    filled.fill(SMALL, 1.5);
    filled.fill(MEGABYTE, 4.0);
}
