//! Opening: how long a node takes to find what is on its disk, and what memory keeps of it.

use anyhow::{Context, Result};
use rustix::time::{ClockId, clock_gettime};
use zerocache_core::{
    key::KeyHash,
    version::{Incarnation, Version},
};
use zerocache_disk::{Head, Log, LogOptions, SystemDirectory};
use zerocache_net::clock;

use crate::{
    common::resident_bytes,
    report::Report,
    setup::{CLUSTER, KEY_BYTES, Place, Stats, key},
};

/// The least entries that are found in a second: ten million in 15 s.
const RATE_MIN: f64 = 10e6 / 15.0;

/// The most memory for an entry on disk, in bytes.
const ENTRY_BYTES_MAX: f64 = 120.0;

/// The bytes of a value.
const VALUE_BYTES: usize = 64;

/// The memory and the disk of the node, for each entry.
const MEMORY_EACH: u64 = 320;
const DISK_EACH: u64 = 320;

/// What the node and its disk have at least.
const MEMORY_MIN: u64 = 256 << 20;
const DISK_MIN: u64 = 512 << 20;

/// The lifetime of entries, in milliseconds.
const LIFE_MS: u64 = 3_600_000;

/// Values that are flushed at once.
const FLUSH_EVERY: u64 = 10_000;

/// Lets a node create its directory and its state, appends `count` entries, and starts a node there again.
pub fn measure(count: u64, report: &mut Report) -> Result<()> {
    let place = Place::new()?;
    let (memory, disk) = ((count * MEMORY_EACH).max(MEMORY_MIN), (count * DISK_EACH).max(DISK_MIN));
    place.start(memory, disk, 1)?.shutdown();
    append(count, &place, disk)?;
    let begin = clock::elapsed();
    let directory = SystemDirectory::open(place.path())?;
    let mut found = 0;
    drop(Log::open(directory, CLUSTER, LogOptions::new(disk), &mut |_| found += 1)?);
    let footers = (clock::elapsed() - begin).as_secs_f64();
    let before = resident_bytes()?;
    let (begin, cpu) = (clock::elapsed(), process_cpu_s());
    let node = place.start(memory, disk, 1)?;
    let (took, cpu) = ((clock::elapsed() - begin).as_secs_f64(), process_cpu_s() - cpu);
    let resident = resident_bytes()? - before;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let stats = runtime.block_on(Stats::of(node.address())).context("its figures")?;
    let entries = stats.get("disk_entries")?;
    println!("{count} entries of {VALUE_BYTES} bytes on disk, {found} records:");
    report.least("  entries found", count as f64, entries as f64);
    report.note("  footers alone, s", footers);
    report.note("  start of the node, s", took);
    report.note("  CPU of that, s", cpu);
    report.least("  entries/s", RATE_MIN, entries as f64 / took);
    let charged = stats.get("bytes")? as f64 / entries as f64;
    report.most("  charged per entry, bytes", ENTRY_BYTES_MAX, charged);
    // With what the node needs in any case, and free places of its tables.
    report.note("  resident per entry, bytes", resident as f64 / entries as f64);
    node.kill();
    Ok(())
}

/// The CPU time of this process, in seconds: others on the machine count for less in it.
fn process_cpu_s() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Appends entries to the log of a directory as the writer of a node does.
fn append(count: u64, place: &Place, disk: u64) -> Result<()> {
    let directory = SystemDirectory::open(place.path())?;
    let mut log = Log::open(directory, CLUSTER, LogOptions::new(disk), &mut |_| {})?;
    let wall_ms = clock::now().wall_ms;
    let stamp = wall_ms << Version::COUNTER_BITS;
    let begin = clock::elapsed();
    for n in 0..count {
        let key: [u8; KEY_BYTES] = key(n);
        let head = Head {
            hash: KeyHash::of(&key),
            version: Version::new(stamp, Incarnation(1)),
            expires_ms: wall_ms + LIFE_MS,
            key: &key,
            metadata: b"",
            value_bytes: 0,
        };
        let _address = log.append_value(head, &[7; VALUE_BYTES])?;
        if n % FLUSH_EVERY == 0 {
            log.flush()?;
        }
    }
    log.close()?;
    let took = (clock::elapsed() - begin).as_secs_f64();
    println!("{count} entries appended in {took:.2} s");
    Ok(())
}
