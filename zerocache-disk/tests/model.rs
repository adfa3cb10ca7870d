//! The log against a naive model, through crashes and faults.
//!
//! The model holds, for each key, the lowest stamp that may be found after a restart (`floor`): one that was replaced,
//! deleted or purged must not come back. And it holds the values that must be found: those that are alive and flushed.
//! Between flushes a key may be in either state.

#![expect(clippy::unwrap_used, reason = "what helps a test may fail as it does")]

mod common;

use std::collections::{HashMap, HashSet};

use common::{append, hash, is_whole, open, options, version};
use proptest::prelude::*;
use zerocache_disk::{
    Address, Crash, Head, Judge, Log, LogOptions, MemoryDirectory, Verdict, WriteError,
};

const KEYS: u64 = 24;
/// A purge is of the keys that have one remainder.
const TAGS: u64 = 4;

#[derive(Clone, Debug)]
enum Op {
    Put {
        key: u64,
        bytes: usize,
    },
    /// The same version again, as after a repair.
    PutAgain {
        key: u64,
        bytes: usize,
    },
    Delete {
        key: u64,
    },
    Evict {
        key: u64,
    },
    Purge {
        tag: u64,
    },
    MakeRoom {
        bytes: u64,
        chance: u64,
    },
    RemoveSegment {
        key: u64,
    },
    Flush,
    Sync,
    Full(bool),
    Failing(bool),
    DieAfter(u64),
    Close,
    Crash,
}

fn ops(large: bool) -> impl Strategy<Value = Vec<Op>> {
    let bytes = if large {
        prop_oneof![0..2000usize, 30_000..90_000usize].boxed()
    } else {
        (0..1500usize).boxed()
    };
    let room = if large { 0..100_000u64 } else { 0..4000u64 };
    let key = 0..KEYS;
    let op = prop_oneof![
        30 => (key.clone(), bytes.clone()).prop_map(|(key, bytes)| Op::Put { key, bytes }),
        3 => (key.clone(), bytes).prop_map(|(key, bytes)| Op::PutAgain { key, bytes }),
        6 => key.clone().prop_map(|key| Op::Delete { key }),
        2 => key.clone().prop_map(|key| Op::Evict { key }),
        1 => (0..TAGS).prop_map(|tag| Op::Purge { tag }),
        10 => (room, any::<u64>()).prop_map(|(bytes, chance)| Op::MakeRoom { bytes, chance }),
        1 => key.prop_map(|key| Op::RemoveSegment { key }),
        8 => Just(Op::Flush),
        2 => Just(Op::Sync),
        1 => any::<bool>().prop_map(Op::Full),
        1 => any::<bool>().prop_map(Op::Failing),
        1 => (0..40_000u64).prop_map(Op::DieAfter),
        1 => Just(Op::Close),
        2 => Just(Op::Crash),
    ];
    prop::collection::vec(op, 1..400)
}

/// The caller of a log: its index, and what it may find after a restart.
struct World {
    directory: MemoryDirectory,
    options: LogOptions,
    log: Option<Log<MemoryDirectory>>,
    loses_power: bool,
    /// Whether each restart finds a flipped byte.
    has_flips: bool,
    dying: bool,
    restarts: u64,
    stamp: u64,
    caller: Caller,
    /// The values whose records are not flushed, for `has`.
    pending: Vec<(u64, u64, Address)>,
    /// The floors when everything was durable last.
    durable: HashMap<u64, u64>,
}

#[derive(Default)]
struct Caller {
    index: HashMap<u64, (u64, Address)>,
    floor: HashMap<u64, u64>,
    /// The keys that changed since everything was durable.
    touched: HashSet<u64>,
    chance: u64,
}

impl Judge for Caller {
    fn judge(&mut self, head: &Head<'_>, address: Address) -> Verdict {
        let key = (head.hash.0 >> 64) as u64;
        self.chance = self.chance.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        let Some((stamp, current)) = self.index.get(&key) else { return Verdict::Drop };
        if *current == address {
            // If the process ends meanwhile, the value may be there, moved, or dropped.
            self.touched.insert(key);
            if self.chance >> 62 == 0 { Verdict::Drop } else { Verdict::Keep }
        } else if *stamp == head.version.stamp() {
            Verdict::Duplicate
        } else {
            Verdict::Drop
        }
    }

    fn moved(&mut self, head: &Head<'_>, old: Address, new: Option<Address>) {
        let key = (head.hash.0 >> 64) as u64;
        if let Some((stamp, current)) = self.index.get_mut(&key)
            && *current == old
        {
            assert_eq!(*stamp, head.version.stamp());
            self.touched.insert(key);
            match new {
                Some(new) => *current = new,
                None => drop(self.index.remove(&key)),
            }
        }
    }

    fn judge_note(&mut self, _content: &[u8]) -> Verdict {
        self.chance = self.chance.rotate_left(7);
        if self.chance.is_multiple_of(4) { Verdict::Keep } else { Verdict::Drop }
    }
}

impl World {
    fn new(large: bool, loses_power: bool) -> Self {
        let options = if large { options(64 << 10, 16) } else { options(4096, 16) };
        let directory = MemoryDirectory::new();
        let (log, _) = open(directory.clone(), options).unwrap();
        Self {
            directory,
            options,
            log: Some(log),
            loses_power,
            has_flips: false,
            dying: false,
            restarts: 0,
            stamp: 0,
            caller: Caller::default(),
            pending: Vec::new(),
            durable: HashMap::new(),
        }
    }

    fn log(&mut self) -> &mut Log<MemoryDirectory> {
        self.log.as_mut().unwrap()
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Put { key, bytes } => self.put(key, bytes, false),
            Op::PutAgain { key, bytes } => self.put(key, bytes, true),
            Op::Delete { key } => {
                self.stamp += 1;
                self.erase(key, self.stamp);
            }
            Op::Evict { key } => {
                if let Some((stamp, _)) = self.caller.index.get(&key).copied() {
                    self.erase(key, stamp);
                }
            }
            Op::Purge { tag } => self.purge(tag),
            Op::MakeRoom { bytes, chance } => {
                self.caller.chance = chance;
                let Self { log, caller, .. } = self;
                let made = log.as_mut().unwrap().make_room(bytes, caller);
                self.outcome(made);
            }
            Op::RemoveSegment { key } => {
                if let Some((_, address)) = self.caller.index.get(&key).copied() {
                    self.remove_segment(address.segment);
                }
            }
            Op::Flush | Op::Sync => {
                let result =
                    if matches!(op, Op::Flush) { self.log().flush() } else { self.log().sync() };
                let durable = result.is_ok() && (matches!(op, Op::Sync) || !self.loses_power);
                if self.outcome(result).is_some() {
                    self.pending.clear();
                }
                if durable {
                    self.durable = self.caller.floor.clone();
                    self.caller.touched.clear();
                }
            }
            Op::Full(full) => self.directory.set_full(full),
            Op::Failing(failing) if !self.dying => self.directory.set_failing(failing),
            Op::Failing(_) => {}
            Op::DieAfter(bytes) => {
                self.dying = true;
                self.directory.die_after(bytes);
            }
            Op::Close => self.close(),
            Op::Crash if self.has_flips => self.close(),
            Op::Crash => self.restart(),
        }
        let most = self.options.bytes_max + 200;
        assert!(self.directory.bytes() <= most, "{} of {most} bytes", self.directory.bytes());
    }

    fn put(&mut self, key: u64, bytes: usize, again: bool) {
        let known = self.caller.index.get(&key).copied();
        let stamp = match known {
            Some((stamp, _)) if again => stamp,
            _ => {
                self.stamp += 1;
                self.stamp
            }
        };
        self.caller.touched.insert(key);
        let appended = append(self.log(), key, stamp, bytes);
        let Some(address) = self.outcome(appended) else { return };
        if let Some((_, old)) = self.caller.index.insert(key, (stamp, address)) {
            self.log().mark_dead(old);
        }
        self.caller.floor.insert(key, stamp);
        self.pending.push((key, stamp, address));
    }

    /// Erases `key` up to `stamp`, at any price.
    fn erase(&mut self, key: u64, stamp: u64) {
        self.caller.touched.insert(key);
        let restarts = self.restarts;
        let old = self.caller.index.get(&key).copied();
        let appended = self.log().append_erase((hash(key), version(stamp)), true);
        if self.outcome(appended).is_some() {
            self.caller.floor.insert(key, stamp + 1);
            if let Some((_, address)) = old
                && self.caller.index.remove(&key).is_some()
            {
                self.log().mark_dead(address);
            }
        } else if let Some((old, address)) = old
            && self.restarts == restarts
            && self.remove_segment(address.segment)
        {
            assert!(!self.caller.index.contains_key(&key));
            self.caller.floor.insert(key, old + 1);
        }
    }

    fn remove_segment(&mut self, segment: u32) -> bool {
        let Self { log, caller, .. } = self;
        let removed = log.as_mut().unwrap().remove_segment(segment, caller);
        self.outcome(removed).is_some()
    }

    fn purge(&mut self, tag: u64) {
        self.stamp += 1;
        let content = [tag.to_le_bytes(), self.stamp.to_le_bytes()].concat();
        let keys = (0..KEYS).filter(|key| key % TAGS == tag);
        self.caller.touched.extend(keys.clone());
        let appended = self.log().append_note(&content);
        if self.outcome(appended).is_none() {
            return;
        }
        for key in keys {
            self.caller.floor.insert(key, self.stamp + 1);
            if let Some((_, address)) = self.caller.index.remove(&key) {
                self.log().mark_dead(address);
            }
        }
    }

    /// Handles an error as a caller must: values that are not written are not on the disk.
    fn outcome<T>(&mut self, result: Result<T, WriteError>) -> Option<T> {
        match result {
            Ok(value) => return Some(value),
            Err(_) if self.dying => self.restart(),
            Err(WriteError::Io(_)) => {
                let pending = std::mem::take(&mut self.pending);
                let (written, lost): (Vec<_>, Vec<_>) =
                    pending.into_iter().partition(|(_, _, address)| self.log().has(*address));
                self.pending = written;
                let lost = lost.into_iter().filter(|(key, stamp, address)| {
                    let is_current = self.caller.index.get(key) == Some(&(*stamp, *address));
                    is_current && self.caller.index.remove(key).is_some()
                });
                // An older copy of the same version may be there.
                for (key, stamp, _) in lost.collect::<Vec<_>>() {
                    self.erase(key, stamp);
                }
            }
            Err(_) => {}
        }
        None
    }

    fn close(&mut self) {
        let closed = self.log.take().unwrap().close();
        if closed.is_ok() {
            self.durable = self.caller.floor.clone();
            self.caller.touched.clear();
        }
        self.restart();
    }

    fn restart(&mut self) {
        self.log = None;
        self.dying = false;
        self.restarts += 1;
        let torn = self.stamp * 37 % 3000;
        self.directory.crash(if self.loses_power {
            Crash::PowerLoss { torn }
        } else {
            Crash::Killed
        });
        if self.has_flips {
            let segment = format!("{:08}.seg", 1 + self.stamp % 37);
            self.directory.flip(&segment, self.stamp * 1009 % 4000);
        }
        let (mut log, contents) = open(self.directory.clone(), self.options).unwrap();
        let has_gap = log.stats().gaps > 0;
        assert!(self.has_flips || !has_gap);
        self.pending.clear();
        let mut found = contents.values;
        for note in contents.notes {
            let (tag, stamp) = note.split_at(8);
            let [tag, stamp] =
                [tag, stamp].map(|bytes| u64::from_le_bytes(bytes.try_into().unwrap()));
            found.retain(|key, (newer, address)| {
                let stays = key % TAGS != tag || *newer > stamp;
                if !stays {
                    log.mark_dead(*address);
                }
                stays
            });
        }
        let reader = log.reader();
        for key in 0..KEYS {
            let floor = self.durable.get(&key).copied().unwrap_or(0);
            if let Some((stamp, address)) = found.get(&key) {
                assert!(*stamp >= floor || has_gap, "key {key} is back: {stamp} below {floor}");
                let is_whole = is_whole(&reader, key, *stamp, *address);
                assert!(is_whole || self.has_flips, "key {key} is damaged");
            }
            if !self.caller.touched.contains(&key) && !self.has_flips {
                let expected = self.caller.index.get(&key);
                assert_eq!(found.get(&key), expected, "key {key} with floor {floor}");
            }
        }
        assert_eq!(log.stats().values, found.len() as u64);
        // What was not durable is decided now.
        self.durable.extend(found.iter().map(|(key, (stamp, _))| (*key, *stamp)));
        self.caller.floor = self.durable.clone();
        self.caller.touched.clear();
        self.caller.index = found;
        self.log = Some(log);
    }
}

/// Only operations that leave sealed segments, so that one flipped byte loses no erase.
fn run_with_flips(ops: Vec<Op>) {
    let mut world = World::new(false, false);
    world.has_flips = true;
    let calm = |op: &Op| !matches!(op, Op::Full(_) | Op::Failing(_) | Op::DieAfter(_));
    ops.into_iter().filter(calm).for_each(|op| world.apply(op));
    world.close();
}

fn run(ops: Vec<Op>, large: bool, loses_power: bool) {
    let mut world = World::new(large, loses_power);
    ops.into_iter().for_each(|op| world.apply(op));
    world.restart();
    world.close();
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn killed_process_finds_what_it_flushed(ops in ops(false)) {
        run(ops, false, false);
    }

    #[test]
    fn flipped_bytes_bring_nothing_back(ops in ops(false)) {
        run_with_flips(ops);
    }

    #[test]
    fn large_values_survive_too(ops in ops(true)) {
        run(ops, true, false);
    }

    #[test]
    fn power_failure_loses_only_what_was_not_synced(ops in ops(false)) {
        run(ops, false, true);
    }
}
