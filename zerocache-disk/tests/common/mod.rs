//! What the tests of the log share: values that follow from hash and version, and judges.
#![allow(dead_code, reason = "each test uses a part")]

use std::collections::HashMap;

use zerocache_core::{
    key::KeyHash,
    version::{Incarnation, Version},
};
use zerocache_disk::{
    Address, Directory, Head, Judge, Log, LogOptions, OpenError, Reader, Recovered, Verdict,
    WriteError,
};

pub const CLUSTER: &str = "test";

pub fn options(segment_bytes: u32, segments: u64) -> LogOptions {
    let bytes_max = segments * u64::from(segment_bytes);
    LogOptions { segment_bytes, salt: 0x5eed, ..LogOptions::new(bytes_max) }
}

pub fn hash(key: u64) -> KeyHash {
    KeyHash(u128::from(key) << 64 | 0xabc)
}

pub fn version(stamp: u64) -> Version {
    Version::new(stamp, Incarnation(7))
}

/// The bytes that the value of `key` has at `stamp`.
pub fn content(key: u64, stamp: u64, bytes: usize) -> Vec<u8> {
    let seed = key.wrapping_mul(31).wrapping_add(stamp);
    (0..bytes as u64)
        .map(|at| (seed.wrapping_mul(0x9e37_79b9) >> (at % 24)) as u8 ^ at as u8)
        .collect()
}

pub fn append<D: Directory>(
    log: &mut Log<D>,
    key: u64,
    stamp: u64,
    bytes: usize,
) -> Result<Address, WriteError> {
    let (name, metadata) = (format!("key {key}"), format!("stamp {stamp}"));
    let head = Head {
        hash: hash(key),
        version: version(stamp),
        expires_ms: 1000 + stamp,
        key: name.as_bytes(),
        metadata: metadata.as_bytes(),
        value_bytes: 0,
    };
    log.append_value(head, &content(key, stamp, bytes))
}

/// Whether the value of `key` at `stamp` is read whole.
pub fn is_whole<D: Directory>(reader: &Reader<D>, key: u64, stamp: u64, address: Address) -> bool {
    let Ok(read) = reader.read(address, hash(key), version(stamp)) else { return false };
    assert_eq!(read.key, format!("key {key}"));
    assert_eq!(read.metadata, format!("stamp {stamp}"));
    assert_eq!(read.expires_ms, 1000 + stamp);
    assert_eq!(read.value, content(key, stamp, read.value.len()));
    true
}

/// What a log has by the rules of recovery: the newest live value of each key, its stamp and address.
#[derive(Debug, Default)]
pub struct Contents {
    pub values: HashMap<u64, (u64, Address)>,
    pub erased: HashMap<u64, Version>,
    pub notes: Vec<Vec<u8>>,
    /// The values that lost.
    pub dead: Vec<Address>,
}

impl Contents {
    pub fn add(&mut self, recovered: Recovered<'_>) {
        match recovered {
            Recovered::Value { head, address } => {
                let (key, stamp) = ((head.hash.0 >> 64) as u64, head.version.stamp());
                assert_eq!((head.hash, head.version), (hash(key), version(stamp)));
                assert_eq!(head.key, format!("key {key}").as_bytes());
                assert_eq!(head.metadata, format!("stamp {stamp}").as_bytes());
                match self.values.get(&key) {
                    Some((newer, _)) if *newer > stamp => self.dead.push(address),
                    _ => {
                        self.dead.extend(self.values.insert(key, (stamp, address)).map(|old| old.1))
                    }
                }
            }
            Recovered::Erase { hash, version, .. } => {
                let key = (hash.0 >> 64) as u64;
                let erased = self.erased.entry(key).or_insert(version);
                *erased = version.max(*erased);
            }
            Recovered::Note { content } => self.notes.push(content.to_vec()),
        }
    }

    fn finish(&mut self) {
        for (key, erased) in &self.erased {
            if let Some((stamp, address)) = self.values.get(key).copied()
                && version(stamp) <= *erased
            {
                self.values.remove(key);
                self.dead.push(address);
            }
        }
    }
}

pub fn open<D: Directory>(
    directory: D,
    options: LogOptions,
) -> Result<(Log<D>, Contents), OpenError> {
    let mut contents = Contents::default();
    let mut log = Log::open(directory, CLUSTER, options, &mut |recovered| contents.add(recovered))?;
    contents.finish();
    contents.dead.iter().for_each(|address| log.mark_dead(*address));
    Ok((log, contents))
}

/// Keeps or drops everything, and records what became of values.
#[derive(Default)]
pub struct All {
    pub keep: bool,
    pub moved: Vec<(u64, Address, Option<Address>)>,
}

impl Judge for All {
    fn judge(&mut self, _head: &Head<'_>, _address: Address) -> Verdict {
        if self.keep { Verdict::Keep } else { Verdict::Drop }
    }

    fn moved(&mut self, head: &Head<'_>, old: Address, new: Option<Address>) {
        self.moved.push(((head.hash.0 >> 64) as u64, old, new));
    }

    fn judge_note(&mut self, _content: &[u8]) -> Verdict {
        self.judge_all()
    }
}

impl All {
    fn judge_all(&self) -> Verdict {
        if self.keep { Verdict::Keep } else { Verdict::Drop }
    }
}
