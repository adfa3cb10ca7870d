//! What the measurements of the store share: keys, values, streams of reads, and the caches.

#![allow(dead_code, reason = "each measurement uses a part")]

pub mod caches;
pub mod lone_node;

use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use rustix::time::{ClockId, clock_gettime};
use zerocache_core::{
    entry::{Change, Record},
    key::Key,
    time::Instant,
    version::{Incarnation, Version},
};
use zerocache_tests::random::{Random, Zipf};

/// Bytes of a key: as a short name with a hash in it.
pub const KEY_BYTES: usize = 32;

/// Bytes of a value.
pub const VALUE_BYTES: usize = 100;

/// A key.
pub type Name = [u8; KEY_BYTES];

static VALUE: [u8; VALUE_BYTES] = [7; VALUE_BYTES];

/// The `n`th key.
pub fn name(n: u64) -> Name {
    let mut name = [b'k'; KEY_BYTES];
    name[..8].copy_from_slice(&n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    name
}

/// The first `count` keys.
pub fn names(count: u64) -> Vec<Name> {
    (0..count).map(name).collect()
}

/// A write of a value.
pub fn put(name: &Name, stamp: u64, expires: Instant) -> Record {
    let change = Change::Put { value: Bytes::from_static(&VALUE), metadata: Bytes::new(), expires };
    record(name, stamp, change)
}

/// A delete.
pub fn delete(name: &Name, stamp: u64) -> Record {
    record(name, stamp, Change::Delete)
}

fn record(name: &Name, stamp: u64, change: Change) -> Record {
    let key = Key::within(Bytes::copy_from_slice(name), KEY_BYTES).expect("a valid key");
    Record { key, version: Version::new(stamp, Incarnation(1)), change }
}

/// `reads` numbers below `keys`, zipf-distributed with exponent 0.99; the popular ones are spread.
pub fn zipf(reads: usize, keys: usize) -> Vec<u32> {
    let (popularity, mut random) = (Zipf::new(keys, 0.99), Random::new(42));
    let pick = |_| (popularity.draw(&mut random) as u64 * 7_368_787 % keys as u64) as u32;
    (0..reads).map(pick).collect()
}

/// The CPU time of this thread: others on the machine count for less than in time that passes.
pub fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

/// The resident memory of this process.
pub fn resident_bytes() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status").context("needs /proc")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")).context("no VmRSS")?;
    Ok(kib.trim().parse::<u64>()? * 1024)
}
