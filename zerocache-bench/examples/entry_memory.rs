//! Resident memory per entry and per tombstone: the store, and `quick_cache` beside it.
//!
//! `cargo run --release -p zerocache-bench --example entry_memory`
//!
//! Each figure comes from a process of its own, so that no memory is reused. Keys have 32 bytes,
//! values 100; lifetimes are spread over an hour, and half of the entries are read.

#[path = "../benches/common/mod.rs"]
mod common;

use std::process::Command;

use anyhow::Result;
use common::{
    KEY_BYTES, VALUE_BYTES,
    caches::{Cache, Quick},
    delete, name, put, resident_bytes,
};
use zerocache_core::{
    store::{Capacity, ENTRY_OVERHEAD_BYTES, TOMBSTONE_BYTES},
    time::{Instant, Now},
    version::Version,
};
use zerocache_server::storage::Storage;

const HOUR_MS: u64 = 3_600_000;
/// A constant wall clock.
const WALL_MS: u64 = 1_800_000_000_000;

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    if let (Some(what), Some(count)) = (args.next(), args.next()) {
        return measure(&what, count.parse()?);
    }
    println!(
        "charged: {ENTRY_OVERHEAD_BYTES} above an entry's own, {TOMBSTONE_BYTES} for a tombstone"
    );
    println!("{:<12} {:>9} {:>9} {:>9}", "bytes each", "count", "in all", "overhead");
    for what in ["store", "tombstone", "quick_cache"] {
        for count in [100_000, 300_000, 1_000_000] {
            let status =
                Command::new(std::env::current_exe()?).args([what, &count.to_string()]).status()?;
            anyhow::ensure!(status.success(), "measuring {what} failed");
        }
    }
    Ok(())
}

/// Fills one cache with `count` entries, or tombstones, and prints what each takes.
fn measure(what: &str, count: u64) -> Result<()> {
    let now = Now::new(0, WALL_MS);
    let capacity = Capacity { entries_max: u64::MAX, bytes_max: 1 << 40 };
    let before = resident_bytes()?;
    if what == "quick_cache" {
        // Room for twice as much, because its parts are not equally full.
        let cache = Quick::new(count as usize * 2);
        (0..count).for_each(|n| cache.put(&name(n)));
        (0..count).step_by(2).for_each(|n| drop(cache.get(&name(n))));
        return report(what, count, KEY_BYTES + VALUE_BYTES, before);
    }
    let (store, are_entries) = (Storage::new(capacity), what == "store");
    for n in 0..count {
        let stamp = (WALL_MS << Version::COUNTER_BITS) + n;
        let expires = Instant::from_millis(1 + n * 7_919 % HOUR_MS);
        let record = match are_entries {
            true => put(&name(n), stamp, expires),
            false => delete(&name(n), stamp),
        };
        store.apply(&record, now);
    }
    (0..count).step_by(2).for_each(|n| drop(store.read(&name(n), now, |entry| entry.to_value())));
    report(what, count, if are_entries { KEY_BYTES + VALUE_BYTES } else { 0 }, before)
}

fn report(what: &str, count: u64, payload: usize, before: u64) -> Result<()> {
    let each = (resident_bytes()? - before) as f64 / count as f64;
    println!("{what:<12} {count:>9} {each:>9.1} {:>9.1}", each - payload as f64);
    Ok(())
}
