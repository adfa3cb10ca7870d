//! What the near cache could be kept in: `quick_cache` beside `moka`, both weighted by bytes, in one run and
//! in turns. Time of a hit, and hit ratios of reads by Zipf's law with scans of keys that are read once in
//! between.
//!
//! `cargo run --release -p zerocache-bench --example near_storage -- [rounds]`

#[path = "../benches/common/mod.rs"]
mod common;

use std::{hint::black_box, sync::Arc};

use common::zipf;
use quick_cache::Weighter;
use zerocache_net::clock;

/// Bytes that each may hold: about a tenth of what the keys of the reads would take.
const BYTES_MAX: u64 = 25 << 20;
const VALUE_BYTES: usize = 128;
const ENTRY_BYTES: u32 = 256;
const KEYS: usize = 1_000_000;
const READS: usize = 4_000_000;
/// A scan comes after so many reads, of so many keys.
const SCAN_EVERY: usize = 200_000;
const SCAN_KEYS: u64 = 100_000;

type Value = Arc<[u8]>;

trait Cache {
    fn get(&self, key: u64) -> bool;
    fn put(&self, key: u64);
}

#[derive(Clone)]
struct Weigh;

impl Weighter<u64, Value> for Weigh {
    fn weight(&self, _: &u64, _: &Value) -> u64 {
        u64::from(ENTRY_BYTES)
    }
}

impl Cache for quick_cache::sync::Cache<u64, Value, Weigh> {
    fn get(&self, key: u64) -> bool {
        black_box(self.get(&key)).is_some()
    }

    fn put(&self, key: u64) {
        self.insert(key, Arc::new([7; VALUE_BYTES]));
    }
}

impl Cache for moka::sync::Cache<u64, Value> {
    fn get(&self, key: u64) -> bool {
        black_box(self.get(&key)).is_some()
    }

    fn put(&self, key: u64) {
        self.insert(key, Arc::new([7; VALUE_BYTES]));
    }
}

fn caches() -> [(&'static str, Box<dyn Cache>); 2] {
    let items = (BYTES_MAX / u64::from(ENTRY_BYTES)) as usize;
    let quick = quick_cache::sync::Cache::with_weighter(items, BYTES_MAX, Weigh);
    let weigh = |_: &u64, _: &Value| ENTRY_BYTES;
    let moka = moka::sync::Cache::builder().weigher(weigh).max_capacity(BYTES_MAX).build();
    [("quick_cache", Box::new(quick)), ("moka", Box::new(moka))]
}

fn main() {
    let rounds = std::env::args().nth(1).map_or(15, |arg| arg.parse().expect("a number"));
    let stream = zipf(READS, KEYS);
    for scans in [false, true] {
        print!("hit ratio {}:", if scans { "with scans" } else { "of Zipf 0.99" });
        for (name, cache) in caches() {
            print!("  {name} {:.4}", ratio(&*cache, &stream, scans));
        }
        println!();
    }

    let caches = caches();
    let hot: Vec<u64> = (0..10_000).collect();
    for (_, cache) in &caches {
        for _ in 0..3 {
            hot.iter().filter(|key| !cache.get(**key)).for_each(|key| cache.put(*key));
        }
    }
    let mut times = [vec![], vec![]];
    for round in 0..rounds {
        for turn in 0..2 {
            let at = (round + turn) % 2;
            times[at].push(timed(&*caches[at].1, &hot));
        }
    }
    print!("ns per hit, medians:");
    for ((name, _), times) in caches.iter().zip(&mut times) {
        times.sort_by(f64::total_cmp);
        print!("  {name} {:.1}", times[times.len() / 2]);
    }
    println!();
}

/// Reads the stream and puts what is missing; hits of the second half of the reads, without the scans.
fn ratio(cache: &dyn Cache, stream: &[u32], scans: bool) -> f64 {
    let (mut hits, mut scanned) = (0_u32, KEYS as u64);
    for (at, &key) in stream.iter().enumerate() {
        if cache.get(u64::from(key)) {
            hits += u32::from(at >= stream.len() / 2);
        } else {
            cache.put(u64::from(key));
        }
        if scans && at % SCAN_EVERY == 0 {
            for key in scanned..scanned + SCAN_KEYS {
                if !cache.get(key) {
                    cache.put(key);
                }
            }
            scanned += SCAN_KEYS;
        }
    }
    f64::from(hits) * 2.0 / stream.len() as f64
}

fn timed(cache: &dyn Cache, keys: &[u64]) -> f64 {
    let begin = clock::elapsed();
    for _ in 0..20 {
        for key in keys {
            black_box(cache.get(*key));
        }
    }
    (clock::elapsed() - begin).as_nanos() as f64 / (20 * keys.len()) as f64
}
