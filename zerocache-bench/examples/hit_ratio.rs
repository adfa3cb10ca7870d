//! Hit ratios of the store, in both orders of eviction, beside `quick_cache` and an exact LRU, in one run.
//!
//! `cargo run --release -p zerocache-bench --example hit_ratio -- [--reads N] [FILE …]`
//!
//! Every cache has room for the same number of entries, is read in the same order, and stores what it misses.
//! Files are traces: 32-bit little-endian numbers if the name ends in `.u32`, else one key per line. Of a trace all
//! reads count, with room for 1 % of its distinct keys (at least 64) and for 10 %. Of the generated orders the
//! second half counts.

use std::{collections::HashMap, num::NonZeroUsize, path::PathBuf};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use clap::Parser;
use zerocache_core::{
    entry::{Change, Record},
    key::Key,
    store::{Capacity, EvictionPolicy, SingleThread, Store},
    time::Now,
    version::{Incarnation, Version},
};
use zerocache_tests::random::{Random, Zipf};

/// The fewest entries of a cache.
const ENTRIES_MIN: usize = 64;

/// Entries of a cache for generated orders.
const ENTRIES: usize = 50_000;

/// Keys of the generated orders.
const KEYS: usize = 10 * ENTRIES;

/// Popular reads between two scans, and the keys of a scan, each of which is read once and never again.
const BETWEEN_SCANS: usize = 20_000;
const SCAN: usize = 10_000;

/// Reads after which other keys are popular, and how many keys lose their place.
const SHIFT_AFTER: usize = 200_000;
const SHIFT_BY: usize = KEYS / 50;

/// A constant wall clock.
const WALL_MS: u64 = 1_800_000_000_000;

/// The lifetime of entries: none ends.
const TTL_MS: u64 = 3_600_000;

#[derive(Debug, Parser)]
struct Args {
    /// Reads of each generated order
    #[arg(long, default_value_t = 4_000_000)]
    reads: usize,

    /// Traces
    files: Vec<PathBuf>,
}

/// Reads in order, and the caches that they are read from.
struct Case {
    name: String,
    keys: Vec<u32>,
    entries: usize,
    /// The reads before this one fill the caches.
    counted_from: usize,
}

const CACHES: [&str; 4] = ["lru", "quick_cache", "store", "store lru"];

fn main() -> Result<()> {
    let Args { reads, files } = Args::parse();
    let mut traces = Vec::new();
    for file in &files {
        traces.extend(read_trace(file)?);
    }
    header();
    let mut sums = [0.0; CACHES.len()];
    for case in &traces {
        let ratios = row(case);
        sums.iter_mut().zip(ratios).for_each(|(sum, ratio)| *sum += ratio);
    }
    if !traces.is_empty() {
        print_row("mean of the traces", "", sums.map(|sum| sum / traces.len() as f64));
    }
    for case in generated(reads) {
        row(&case);
    }
    Ok(())
}

fn header() {
    print!("{:<24} {:>8}", "hit ratio", "entries");
    CACHES.iter().for_each(|name| print!(" {name:>11}"));
    println!();
}

fn print_row(name: &str, entries: &str, ratios: [f64; CACHES.len()]) {
    print!("{name:<24} {entries:>8}");
    ratios.iter().for_each(|ratio| print!(" {ratio:>11.4}"));
    println!();
}

/// Runs all caches on a case, and prints their hit ratios.
fn row(case: &Case) -> [f64; CACHES.len()] {
    let Case { name, entries, .. } = case;
    let mut lru = lru::LruCache::new(NonZeroUsize::new(*entries).expect("not zero"));
    let quick = quick_cache::sync::Cache::new(*entries);
    let ratios = [
        ratio(case, |key| lru.put(key, ()).is_some()),
        ratio(case, |key| {
            let is_hit = quick.get(&key).is_some();
            if !is_hit {
                quick.insert(key, ());
            }
            is_hit
        }),
        store_ratio(case, EvictionPolicy::ScanResistant),
        store_ratio(case, EvictionPolicy::Lru),
    ];
    print_row(name, &entries.to_string(), ratios);
    ratios
}

fn store_ratio(case: &Case, policy: EvictionPolicy) -> f64 {
    let capacity = Capacity { entries_max: case.entries as u64, bytes_max: 1 << 40 };
    let store = Store::<SingleThread>::new(capacity).with_policy(policy);
    let now = Now::new(0, WALL_MS);
    let mut stamp = WALL_MS << Version::COUNTER_BITS;
    ratio(case, |key| {
        let name = key.to_le_bytes();
        let is_hit = store.read(&name, now, |_| ()).is_hit();
        if !is_hit {
            stamp += 1;
            let change = Change::Put {
                value: Bytes::from_static(b"value"),
                metadata: Bytes::new(),
                expires: now.mono.plus_ms(TTL_MS),
            };
            let key = Key::within(Bytes::copy_from_slice(&name), name.len()).expect("a valid key");
            store.apply(&Record { key, version: Version::new(stamp, Incarnation(1)), change }, now);
        }
        is_hit
    })
}

/// The share of the counted reads that hit. `read` stores what it misses.
fn ratio(case: &Case, mut read: impl FnMut(u32) -> bool) -> f64 {
    let (filling, counted) = case.keys.split_at(case.counted_from);
    for &key in filling {
        read(key);
    }
    let hits = counted.iter().filter(|&&key| read(key)).count();
    hits as f64 / counted.len() as f64
}

/// The cases of a trace.
fn read_trace(file: &PathBuf) -> Result<[Case; 2]> {
    let name = file.file_stem().context("not a file")?.to_string_lossy().into_owned();
    let content = std::fs::read(file).with_context(|| file.display().to_string())?;
    let mut numbers = HashMap::new();
    let mut number = |key: Vec<u8>| {
        let next = numbers.len() as u32;
        *numbers.entry(key).or_insert(next)
    };
    let keys: Vec<u32> = match file.extension().is_some_and(|extension| extension == "u32") {
        true => content.chunks_exact(4).map(|key| number(key.to_vec())).collect(),
        false => content
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| number(line.to_vec()))
            .collect(),
    };
    ensure!(!keys.is_empty(), "{} has no reads", file.display());
    let distinct = numbers.len();
    let case = |entries: usize| Case {
        name: name.clone(),
        keys: keys.clone(),
        entries: entries.max(ENTRIES_MIN),
        counted_from: 0,
    };
    Ok([case(distinct / 100), case(distinct / 10)])
}

/// The generated orders.
fn generated(reads: usize) -> impl Iterator<Item = Case> {
    let case = move |name: &str, entries: usize, keys: Vec<u32>| Case {
        name: name.into(),
        entries,
        counted_from: keys.len() / 2,
        keys,
    };
    let cases: [Box<dyn Fn() -> Case>; 8] = [
        Box::new(move || case("zipf 0.99, 10 %", ENTRIES, zipf(0.99, reads))),
        Box::new(move || case("zipf 0.99, 1 %", ENTRIES / 10, zipf(0.99, reads))),
        Box::new(move || case("zipf 0.8, 10 %", ENTRIES, zipf(0.8, reads))),
        Box::new(move || case("zipf 0.99 with scans", ENTRIES, with_scans(&zipf(0.99, reads)))),
        Box::new(move || case("zipf 0.99, shifting", ENTRIES, shifting(zipf(0.99, reads)))),
        Box::new(move || case("one scan of all keys", ENTRIES, (0..reads as u32).collect())),
        Box::new(move || {
            case("loop over 1.25 x entries", ENTRIES, looping(ENTRIES * 5 / 4, reads))
        }),
        Box::new(move || case("loop over 2 x entries", ENTRIES, looping(ENTRIES * 2, reads))),
    ];
    cases.into_iter().map(|make| make())
}

fn zipf(skew: f64, reads: usize) -> Vec<u32> {
    let (popularity, mut random) = (Zipf::new(KEYS, skew), Random::new(42));
    (0..reads).map(|_| popularity.draw(&mut random) as u32).collect()
}

/// Scans of keys that nobody reads a second time, in between.
fn with_scans(reads: &[u32]) -> Vec<u32> {
    let mut scanned = KEYS as u32..;
    let with_scan = |reads: &[u32]| {
        reads.iter().copied().chain(scanned.by_ref().take(SCAN)).collect::<Vec<_>>()
    };
    reads.chunks(BETWEEN_SCANS).flat_map(with_scan).collect()
}

/// Now and then, other keys are the popular ones.
fn shifting(mut reads: Vec<u32>) -> Vec<u32> {
    for (at, key) in reads.iter_mut().enumerate() {
        *key = ((*key as usize + at / SHIFT_AFTER * SHIFT_BY) % KEYS) as u32;
    }
    reads
}

fn looping(keys: usize, reads: usize) -> Vec<u32> {
    (0..reads).map(|at| (at % keys) as u32).collect()
}
