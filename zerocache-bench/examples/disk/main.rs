//! What the disk tier of a node costs and yields: filling, reads from disk, memory reads beside them, how often a byte
//! is written, and opening.
//!
//! `cargo run --release -p zerocache-bench --example disk -- [--entries N] [--values SIZE] [--memory SIZE] [--disk SIZE]`
//!
//! `cargo run --release -p zerocache-bench --example disk -- --open N`
//!
//! A node and its clients share this process. The files are in a temporary directory, and reads find them in the page
//! cache. What is compared takes turns in one run. Exits with 1 if a bar is missed.

#[path = "../../benches/common/mod.rs"]
mod common;
mod latency;
mod open;
mod report;
mod setup;
mod written;

use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use zerocache_client::ZerocacheClient;
use zerocache_net::clock;
use zerocache_server::EmbeddedNode;

use report::{Report, median};
use setup::{Load, Place, Values};

/// The least rate of values that go to disk, in MB/s.
const FILL_MB_MIN: f64 = 300.0;

/// The numbers of the keys that fill memory begin there.
const FIRST_FROM: u64 = 1 << 42;

/// Writes that are under way at once.
const WRITES: usize = 16;

#[derive(Clone, Debug, Parser)]
struct Args {
    /// Entries that are written
    #[arg(long, default_value_t = 10_000)]
    entries: u64,

    /// Size of their values
    #[arg(long, default_value = "100KiB", value_parser = size)]
    values: u64,

    /// Memory of the node
    #[arg(long, default_value = "256MiB", value_parser = size)]
    memory: u64,

    /// Size of its disk; the part with a full disk uses half of what is written
    #[arg(long, default_value = "4GiB", value_parser = size)]
    disk: u64,

    /// Rounds of those measurements that take turns; the median counts
    #[arg(long, default_value_t = 3)]
    rounds: usize,

    /// Large values that are read each second beside small ones
    #[arg(long, default_value_t = 500)]
    beside: u64,

    /// Measures opening alone, with so many entries of 64 bytes on disk [default: 1000000]
    #[arg(long, num_args = 0..=1, default_missing_value = "1000000")]
    open: Option<u64>,
}

/// Parses a size in bytes: digits, and KiB, MiB or GiB.
fn size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|unit: char| !unit.is_ascii_digit());
    let shift = match &text[digits.len()..] {
        "" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        unit => return Err(format!("unknown unit {unit}; use KiB, MiB or GiB")),
    };
    let number: u64 = digits.parse().map_err(|_| format!("\"{text}\" is not a size"))?;
    number.checked_mul(1 << shift).ok_or_else(|| format!("{text} is too large"))
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    let mut report = Report::new();
    if let Some(count) = args.open {
        open::measure(count, &mut report)?;
    } else {
        let bytes = args.entries * args.values;
        ensure!(bytes >= 3 * args.memory, "too few entries: use 3 times as much as memory has");
        ensure!(args.disk >= (bytes + args.memory) / 8 * 9, "too little disk for all entries");
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(1).enable_all().build()?;
        runtime.block_on(fill_and_read(&args, &mut report))?;
        runtime.block_on(written::measure(&args, &mut report))?;
    }
    Ok(report.finish())
}

/// A filled node, and how it was filled.
struct Filled {
    node: EmbeddedNode,
    /// Kept until the node has ended.
    _place: Place,
    acknowledged_s: f64,
    settled_s: f64,
    skipped: f64,
}

/// Fills a node beyond its memory, several times, and reads what is on disk.
async fn fill_and_read(args: &Args, report: &mut Report) -> Result<()> {
    let values = Values::new(args.values);
    let megabytes = |entries: f64| entries * args.values as f64 / 1e6;
    let (mut rates, mut to_disk, mut skipped) = (vec![], vec![], vec![]);
    let mut last = None;
    for _ in 0..args.rounds.max(1) {
        // Two nodes at a time would share the disk.
        drop(last.take());
        let filled = fill(args, &values).await?;
        let entries = args.entries as f64;
        rates.push(megabytes(entries) / filled.acknowledged_s);
        to_disk.push(megabytes(entries - filled.skipped) / filled.settled_s);
        skipped.push(100.0 * filled.skipped / entries);
        last = Some(filled);
    }
    report.least("fill, MB/s of payload", FILL_MB_MIN, median(rates));
    report.least("  the same to disk", FILL_MB_MIN, median(to_disk));
    report.note("  disk_skipped, %", median(skipped));
    let filled = last.context("one round")?;
    let node = filled.node.address();
    let client = setup::client(node)?;
    report.note("  hit ratio after it", hit_ratio(args, &client, &values).await?);
    let before = setup::settled(node).await?.get("disk_skipped")?;
    let begin = clock::elapsed();
    setup::write_at_rate(&client, &values, args.entries, FILL_MB_MIN * 1e6).await?;
    let took = (clock::elapsed() - begin).as_secs_f64();
    let skipped = setup::settled(node).await?.get("disk_skipped")? - before;
    println!("the same at {FILL_MB_MIN} MB/s:");
    report.note("  MB/s", megabytes(args.entries as f64) / took);
    report.most("  disk_skipped, %", 0.0, 100.0 * skipped as f64 / args.entries as f64);
    let mut load = Load::new(&client, &values);
    latency::of_disk(args, node, &mut load, report).await?;
    report.least("hit ratio at that rate", 1.0, hit_ratio(args, &client, &values).await?);
    latency::beside_disk(args, node, &values, report).await
}

/// Reads all entries. Returns the part of them that is found.
async fn hit_ratio(args: &Args, client: &ZerocacheClient, values: &Values) -> Result<f64> {
    let mut load = Load::new(client, values);
    for n in 0..args.entries {
        load.read(n).await?;
    }
    Ok(1.0 - load.misses as f64 / args.entries as f64)
}

/// Fills memory first, so that each write sends one value to disk from then on.
async fn fill(args: &Args, values: &Values) -> Result<Filled> {
    let place = Place::new()?;
    let node = place.start(args.memory, args.disk, 2 << 10)?;
    let client = setup::client(node.address())?;
    let first = FIRST_FROM..FIRST_FROM + args.memory / args.values;
    setup::write(&client, values, first, WRITES).await?;
    let before = setup::settled(node.address()).await?.get("disk_skipped")?;
    let begin = clock::elapsed();
    setup::write(&client, values, 0..args.entries, WRITES).await?;
    let acknowledged_s = (clock::elapsed() - begin).as_secs_f64();
    let stats = setup::settled(node.address()).await?;
    let settled_s = (clock::elapsed() - begin).as_secs_f64();
    let skipped = (stats.get("disk_skipped")? - before) as f64;
    Ok(Filled { node, _place: place, acknowledged_s, settled_s, skipped })
}
