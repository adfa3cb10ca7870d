//! Reads of values on disk, and of small ones in memory beside them.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use anyhow::{Result, ensure};
use tokio::{task::JoinHandle, time::MissedTickBehavior};
use zerocache_net::clock;

use crate::{
    Args,
    report::{Report, median, percentile},
    setup::{self, Load, Stats, Values},
};

/// The longest times of a read from disk, in microseconds.
const DISK_P50_MAX: f64 = 200.0;
const DISK_P99_MAX: f64 = 2_000.0;

/// The largest part by which memory reads beside disk reads take longer.
const BESIDE_MAX: f64 = 1.2;

/// The least part of reads that come from disk where those are measured, in percent: below, the figures say nothing.
const FROM_DISK_MIN: f64 = 90.0;

/// Large values that stay in memory, and small ones.
const LARGE: u64 = 100;
const SMALL: u64 = 1_000;
const SMALL_BYTES: u64 = 1_024;

/// The numbers of the keys that are not on disk begin there.
const LARGE_FROM: u64 = 1 << 40;
const SMALL_FROM: u64 = 1 << 41;

/// How long each turn of reads beside others lasts.
const TURN: Duration = Duration::from_secs(1);

/// Reads each half of the entries in turn: when one begins, the other has displaced it from memory.
pub async fn of_disk(
    args: &Args,
    node: SocketAddr,
    load: &mut Load,
    report: &mut Report,
) -> Result<()> {
    let half = args.entries / 2;
    let (mut reads, mut from_disk) = (0, 0);
    let (mut disk, mut memory) = ([vec![], vec![]], [vec![], vec![]]);
    for round in 0..args.rounds.max(2) {
        let before = Stats::of(node).await?.get("disk_hits")?;
        let from = if round % 2 == 0 { 0 } else { half };
        load.times.clear();
        for n in from..from + half {
            load.read(n).await?;
        }
        from_disk += Stats::of(node).await?.get("disk_hits")? - before;
        reads += half;
        disk[0].push(percentile(&mut load.times, 0.5));
        disk[1].push(percentile(&mut load.times, 0.99));
        // The last ones are in memory.
        load.times.clear();
        for n in (from + half - LARGE..from + half).cycle().take(half as usize) {
            load.read(n).await?;
        }
        memory[0].push(percentile(&mut load.times, 0.5));
        memory[1].push(percentile(&mut load.times, 0.99));
    }
    let [p50, p99] = disk.map(median);
    report.most("GET from disk, p50, us", DISK_P50_MAX, p50);
    report.most("  p99, us", DISK_P99_MAX, p99);
    report.least("  from disk, %", FROM_DISK_MIN, 100.0 * from_disk as f64 / reads as f64);
    let [p50, p99] = memory.map(median);
    report.note("GET of such a value from memory, p50, us", p50);
    report.note("  p99, us", p99);
    Ok(())
}

/// Measures reads of small values in memory: alone, beside reads of large ones in memory, and beside as many of large
/// ones on disk. The three take turns.
pub async fn beside_disk(
    args: &Args,
    node: SocketAddr,
    values: &Values,
    report: &mut Report,
) -> Result<()> {
    let (client, other) = (setup::client(node)?, setup::client(node)?);
    let small = Values::new(SMALL_BYTES);
    let mut load = Load::new(&client, &small);
    let mut large = Load::new(&other, values);
    setup::write(&client, &small, SMALL_FROM..SMALL_FROM + SMALL, 16).await?;
    for n in (0..SMALL).cycle().take(4 * SMALL as usize) {
        load.read(SMALL_FROM + n).await?;
    }
    ensure!(load.misses == 0, "{} small values are gone before large ones come", load.misses);
    setup::write(&other, values, LARGE_FROM..LARGE_FROM + LARGE, 16).await?;
    for n in (0..LARGE).cycle().take(4 * LARGE as usize) {
        large.read(LARGE_FROM + n).await?;
    }
    let mut found = Vec::new();
    let mut at = 0;
    let mut figures = [vec![], vec![], vec![]];
    let (mut to_memory, mut to_disk) = (vec![], vec![]);
    let (mut beside, mut from_disk) = (0, 0);
    for _ in 0..args.rounds {
        let mut reads_of_small = 0;
        let alone = turn(&mut load).await?;
        reads_of_small += load.times.len() as u64;
        let reads = Reads::start(Load::new(&other, values), args.beside, (LARGE_FROM, 0), LARGE);
        let beside_memory = turn(&mut load).await?;
        reads_of_small += load.times.len() as u64;
        reads.end().await?;
        let before = Stats::of(node).await?.get("disk_hits")?;
        let load_of_disk = Load::new(&other, values);
        let reads = Reads::start(load_of_disk, args.beside, (0, at), args.entries);
        let beside_disk = turn(&mut load).await?;
        reads_of_small += load.times.len() as u64;
        let count = reads.end().await?;
        (at, beside) = (at + count, beside + count);
        from_disk += Stats::of(node).await?.get("disk_hits")? - before;
        to_memory.push(beside_memory / alone);
        to_disk.push((beside_disk / alone, beside_disk / beside_memory));
        let hits = reads_of_small as f64;
        found.push(100.0 * hits / (hits + std::mem::take(&mut load.misses) as f64));
        for (figures, p99) in figures.iter_mut().zip([alone, beside_memory, beside_disk]) {
            figures.push(p99);
        }
    }
    let [alone, beside_memory, beside_disk] = figures.map(median);
    let (to_alone, to_memory_reads): (Vec<_>, Vec<_>) = to_disk.into_iter().unzip();
    println!("GET of 1 KiB from memory beside {} reads/s of large values:", args.beside);
    report.note("  p99 alone, us", alone);
    report.note("  p99 beside reads from memory, us", beside_memory);
    report.note("  p99 beside reads from disk, us", beside_disk);
    report.least("  from disk, %", FROM_DISK_MIN, 100.0 * from_disk as f64 / beside as f64);
    report.note("  hits among the small ones, %", median(found));
    report.note("  beside memory / alone", median(to_memory));
    report.most("  beside disk / alone", BESIDE_MAX, median(to_alone));
    report.most("  beside disk / beside memory", BESIDE_MAX, median(to_memory_reads));
    Ok(())
}

/// Reads small values for a while, and writes those again that are missed, as a caller does. Returns the 99th
/// percentile of the hits.
async fn turn(load: &mut Load) -> Result<f64> {
    load.times.clear();
    let begin = clock::elapsed();
    let mut n = 0;
    while clock::elapsed() - begin < TURN {
        let (key, misses) = (SMALL_FROM + n % SMALL, load.misses);
        load.read(key).await?;
        if load.misses > misses {
            load.put(key).await?;
        }
        n += 7;
    }
    Ok(percentile(&mut load.times, 0.99))
}

/// A task that reads large values at a rate.
struct Reads {
    task: JoinHandle<Result<u64>>,
    stop: Arc<AtomicBool>,
}

impl Reads {
    /// Starts to read `count` keys from number `from` on, over and over, beginning with the `first` of them.
    fn start(mut load: Load, rate: u64, (from, first): (u64, u64), count: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let task = tokio::spawn(async move {
            let mut ticks = tokio::time::interval(Duration::from_secs(1) / rate as u32);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut reads = 0;
            while !stopped.load(Relaxed) {
                ticks.tick().await;
                load.read(from + (first + reads) % count).await?;
                reads += 1;
            }
            Ok(reads)
        });
        Self { task, stop }
    }

    /// Stops. Returns the number of reads.
    async fn end(self) -> Result<u64> {
        self.stop.store(true, Relaxed);
        self.task.await?
    }
}
