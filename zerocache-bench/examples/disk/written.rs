//! How often a byte is written: overwrites and reads of a node whose disk is full.

use anyhow::Result;
use zerocache_tests::random::{Random, Zipf};

use crate::{
    Args, WRITES,
    report::Report,
    setup::{self, Load, Place, Values},
};

/// The most bytes that are written to disk for each byte of values that go there.
const AMPLIFICATION_MAX: f64 = 1.4;

/// Entries are written so often, on average.
const TIMES: u64 = 3;

/// Turns of writes, each followed by reads, and the writes for each read.
const TURNS: u64 = 50;
const WRITES_PER_READ: u64 = 4;

/// Writes each entry several times to a node whose disk has room for half of them, and reads some of them between.
pub async fn measure(args: &Args, report: &mut Report) -> Result<()> {
    let place = Place::new()?;
    let payload = args.entries * args.values;
    let node = place.start(args.memory / 4, (payload / 2).max(64 << 20), 2 << 10)?;
    let values = Values::new(args.values);
    let client = setup::client(node.address())?;
    let mut load = Load::new(&client, &values);
    let each = args.entries * TIMES / TURNS;
    let (popularity, mut random) = (Zipf::new(args.entries as usize, 0.8), Random::new(1));
    for turn in 0..TURNS {
        let entries = args.entries;
        setup::write_all(&client, &values, WRITES, move |task| {
            let mut random = Random::new(turn * WRITES as u64 + task as u64);
            (0..each / WRITES as u64).map(move |_| random.below(entries as usize) as u64)
        })
        .await?;
        for _ in 0..each / WRITES_PER_READ {
            load.read(popularity.draw(&mut random) as u64).await?;
        }
    }
    let stats = setup::settled(node.address()).await?;
    // The figures of the log are published each second.
    tokio::time::sleep(setup::PUBLISHED_WITHIN).await;
    let stats_of_log = setup::Stats::of(node.address()).await?;
    let written = stats_of_log.get("disk_bytes_written")? as f64;
    let again = stats_of_log.get("disk_bytes_rewritten")? as f64;
    let skipped = stats.get("disk_skipped")?;
    let puts = each / WRITES as u64 * WRITES as u64 * TURNS;
    println!(
        "{puts} overwrites of {} entries, {} reads between, on a disk for half of them:",
        args.entries,
        load.times.len() as u64 + load.misses
    );
    let to_disk = ((puts - skipped) * args.values) as f64;
    report.most("  written / payload of all writes", AMPLIFICATION_MAX, written / to_disk);
    report.most(
        "  written / written for the first time",
        AMPLIFICATION_MAX,
        written / (written - again),
    );
    report.note("  disk_skipped", skipped as f64);
    report.note(
        "  hit ratio of the reads",
        load.times.len() as f64 / (load.times.len() as u64 + load.misses) as f64,
    );
    report.note(
        "  bytes on disk / its size",
        stats_of_log.get("disk_bytes")? as f64 / stats_of_log.get("disk_bytes_max")? as f64,
    );
    node.kill();
    Ok(())
}
