//! Model tests: the store compared with a naive oracle on arbitrary sequences of operations.

use alloc::{collections::BTreeMap, format, vec, vec::Vec};

use proptest::prelude::*;

use super::{
    eviction::{FEW_UNREAD, FEW_UNREAD_FRACTION, SPARED_MAX, UNREAD_FRACTION},
    ghosts::{AGE_MAX, GENERATIONS},
    slot::USES_MAX,
    tests::{TestStore, at, delete, key, put, store, version},
    *,
};

/// An operation on a store.
#[derive(Clone, Debug)]
enum Op {
    Put { key: u16, stamp: u64, writer: u64, ttl_ms: u64, size: usize },
    Delete { key: u16, stamp: u64, writer: u64 },
    Get { key: u16 },
    Sweep,
    Wait { ms: u64 },
}

/// Generates operations on few keys, so that they conflict.
fn op(keys: u16) -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (0..keys, 0..40u64, 0..3u64, 1..4_000u64, 0..600usize).prop_map(
            |(key, stamp, writer, ttl_ms, size)| Op::Put { key, stamp, writer, ttl_ms, size }
        ),
        1 => (0..keys, 0..40u64, 0..3u64)
            .prop_map(|(key, stamp, writer)| Op::Delete { key, stamp, writer }),
        4 => (0..keys).prop_map(|key| Op::Get { key }),
        1 => Just(Op::Sweep),
        2 => (1..900u64).prop_map(|ms| Op::Wait { ms }),
    ]
}

fn policy() -> impl Strategy<Value = EvictionPolicy> {
    prop_oneof![Just(EvictionPolicy::ScanResistant), Just(EvictionPolicy::Lru)]
}

/// The rules in their simplest form: one list, searched from end to end.
struct Oracle {
    capacity: Capacity,
    policy: EvictionPolicy,
    slots: Vec<OracleSlot>,
    versions: BTreeMap<u16, Version>,
    tick: u64,
    /// The generations of keys that were evicted unread.
    ghosts: BTreeMap<u16, u32>,
    generation: u32,
    progress: u64,
}

#[derive(Clone)]
struct OracleSlot {
    key: u16,
    version: Version,
    expires: u64,
    weight: u64,
    read: bool,
    uses: u8,
    tick: u64,
}

impl Oracle {
    fn write(&mut self, key: u16, version: Version, slot: Option<OracleSlot>, now: u64) {
        self.tick += 1;
        if let Some(known) = self.versions.get(&key).copied() {
            if known == version {
                // Equal versions: the earlier expiry wins.
                let expires = slot.map_or(u64::MAX, |slot| slot.expires);
                let held = self.slots.iter_mut().find(|held| held.key == key);
                if let Some(held) = held {
                    held.expires = held.expires.min(expires);
                }
                return;
            }
            if known > version {
                return;
            }
        }
        self.versions.insert(key, version);
        self.slots.retain(|held| held.key != key);
        let ghost = self.ghosts.remove(&key);
        if let Some(slot) = slot.filter(|slot| slot.expires > now) {
            let read = ghost.is_some_and(|since| self.generation - since <= AGE_MAX);
            self.slots.push(OracleSlot { tick: self.tick, read, ..slot });
        }
        self.make_room(now);
    }

    fn tombstones(&self) -> u64 {
        (self.versions.len() - self.slots.len()) as u64
    }

    fn over(&self) -> Option<bool> {
        if self.slots.len() as u64 > self.capacity.entries_max {
            return Some(false);
        }
        let bytes: u64 = self.slots.iter().map(|slot| slot.weight).sum();
        let bytes = bytes + self.tombstones() * TOMBSTONE_BYTES;
        (bytes > self.capacity.bytes_max && !self.slots.is_empty()).then_some(true)
    }

    fn make_room(&mut self, now: u64) {
        let mut spared = 0;
        while let Some(by_bytes) = self.over() {
            if let Some(index) = self.slots.iter().position(|slot| slot.expires <= now) {
                self.slots.remove(index);
                continue;
            }
            let unread: Vec<_> = self.slots.iter().filter(|slot| !slot.read).collect();
            let fraction = match unread.len() as u64 <= FEW_UNREAD {
                true => FEW_UNREAD_FRACTION,
                false => UNREAD_FRACTION,
            };
            let share_exceeded = if by_bytes {
                unread.iter().map(|slot| slot.weight).sum::<u64>()
                    > self.capacity.bytes_max / fraction
            } else {
                unread.len() as u64 > self.capacity.entries_max / fraction
            };
            let read_class = !(unread.len() > 1 && share_exceeded);
            let first = |slots: &[OracleSlot], read: bool| {
                let class = slots.iter().enumerate().filter(|(_, slot)| slot.read == read);
                class.min_by_key(|(_, slot)| slot.tick).map(|(index, _)| index)
            };
            let victim = first(&self.slots, read_class);
            let victim = victim.or_else(|| first(&self.slots, !read_class)).unwrap();
            let count = self.slots.len() as u64;
            let slot = &mut self.slots[victim];
            if slot.uses > 0 && spared < SPARED_MAX {
                // Used since it was queued: another chance.
                self.tick += 1;
                spared += 1;
                (slot.uses, slot.tick) = (slot.uses - 1, self.tick);
                continue;
            }
            let OracleSlot { key, read, .. } = self.slots.remove(victim);
            if !read && self.policy == EvictionPolicy::ScanResistant {
                self.progress += GENERATIONS;
                if let Some(begun) = self.progress.checked_sub(count.max(GENERATIONS)) {
                    (self.generation, self.progress) = (self.generation + 1, begun);
                }
                self.ghosts.insert(key, self.generation);
            }
        }
    }

    fn get(&mut self, key: u16, now: u64) -> Option<Version> {
        self.tick += 1;
        self.slots.retain(|slot| slot.key != key || slot.expires > now);
        let slot = self.slots.iter_mut().find(|slot| slot.key == key)?;
        match self.policy {
            EvictionPolicy::ScanResistant if slot.read => slot.uses = USES_MAX.min(slot.uses + 1),
            EvictionPolicy::ScanResistant => (slot.read, slot.tick) = (true, self.tick),
            EvictionPolicy::Lru => slot.tick = self.tick,
        }
        Some(slot.version)
    }
}

/// Runs `ops` on a store and on the oracle, and compares them after each operation.
fn compare(ops: Vec<Op>, capacity: Capacity, policy: EvictionPolicy) -> Result<(), TestCaseError> {
    // Tombstones are bounded by 1/16 of the budget; here all of them fit.
    let store = TestStore::with_tombstones(capacity, 1_024, TableHasher::default());
    let store = store.with_policy(policy);
    let mut oracle = Oracle {
        capacity,
        policy,
        slots: vec![],
        versions: BTreeMap::new(),
        tick: 0,
        ghosts: BTreeMap::new(),
        generation: 0,
        progress: 0,
    };
    let mut now = 0;
    for op in ops {
        match op {
            Op::Put { key, stamp, writer, ttl_ms, size } => {
                let (name, value) = (format!("{key}"), "x".repeat(size));
                let version = version(stamp, writer);
                let record = put(&name, &value, version, now + ttl_ms);
                let weight = (name.len() + size) as u64 + ENTRY_OVERHEAD_BYTES;
                let expires = now + ttl_ms;
                let slot =
                    OracleSlot { key, version, expires, weight, read: false, uses: 0, tick: 0 };
                store.apply(&record, at(now));
                oracle.write(key, version, Some(slot), now);
            }
            Op::Delete { key, stamp, writer } => {
                store.apply(&delete(&format!("{key}"), version(stamp, writer)), at(now));
                oracle.write(key, version(stamp, writer), None, now);
            }
            Op::Get { key: name } => {
                let found = match store.get(&key(&format!("{name}")), at(now)) {
                    Lookup::Hit(entry) => Some(entry.version),
                    Lookup::Miss { .. } | Lookup::OnDisk => None,
                };
                prop_assert_eq!(found, oracle.get(name, now));
            }
            Op::Sweep => {
                store.sweep(at(now), usize::MAX);
                oracle.slots.retain(|slot| slot.expires > now);
            }
            Op::Wait { ms } => now += ms,
        }
        let stats = store.stats();
        prop_assert!(stats.entries <= capacity.entries_max);
        prop_assert!(stats.bytes <= capacity.bytes_max || stats.entries == 0);
        store.check();
        for (name, version) in &oracle.versions {
            let key = key(&format!("{name}"));
            prop_assert_eq!(store.version(key.hash()), Some(*version));
            // The order among expired entries is unspecified, that of live ones is not.
            let live = oracle.slots.iter().any(|s| s.key == *name && s.expires > now);
            prop_assert_eq!(store.peek(&key, at(now)).is_hit(), live);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Any sequence of operations gives what the plain list gives, and keeps to the bounds.
    #[test]
    fn behaves_like_the_oracle(
        ops in prop::collection::vec(op(12), 1..120),
        entries_max in 1..10u64,
        bytes_max in 1_000..4_000u64,
        policy in policy(),
    ) {
        compare(ops, Capacity { entries_max, bytes_max }, policy)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    /// The same with many entries in each part.
    #[test]
    fn behaves_like_the_oracle_with_many_entries(
        ops in prop::collection::vec(op(400), 1_000..2_000),
        entries_max in 100..400u64,
        bytes_max in 50_000..150_000u64,
        policy in policy(),
    ) {
        compare(ops, Capacity { entries_max, bytes_max }, policy)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// The same records in any order, with repeats, leave the same versions everywhere.
    #[test]
    fn merging_is_commutative_and_idempotent(
        writes in prop::collection::vec((0..4u8, 0..6u64, 0..3u64, any::<bool>()), 1..30),
        seed in any::<u64>(),
    ) {
        let record = |&(key, stamp, writer, is_put): &(u8, u64, u64, bool)| {
            let (name, version) = (format!("{key}"), version(stamp, writer * 2 + u64::from(is_put)));
            // One version names one write: its value and lifetime follow from it.
            if is_put { put(&name, &format!("{stamp}/{writer}"), version, 60_000) } else { delete(&name, version) }
        };
        let (a, b) = (store(100, 1 << 20), store(100, 1 << 20));
        for write in &writes {
            a.apply(&record(write), at(0));
        }
        let mut shuffled = writes.clone();
        shuffled.extend(writes.iter().take(5).copied());
        shuffled.sort_by_key(|write| xxhash_rust::xxh3::xxh3_64_with_seed(format!("{write:?}").as_bytes(), seed));
        for write in &shuffled {
            b.apply(&record(write), at(0));
        }
        for name in 0..4u8 {
            let key = key(&format!("{name}"));
            prop_assert_eq!(a.version(key.hash()), b.version(key.hash()));
            prop_assert_eq!(a.peek(&key, at(1)), b.peek(&key, at(1)));
        }
    }
}
