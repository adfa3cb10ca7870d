//! Starts with what an earlier process saved, on a virtual network.

use alloc::{collections::BTreeMap, vec, vec::Vec};

use super::{
    network::{Network, address, key},
    prelude::*,
    repair::{disagreements, keys, set_links, state, version},
};
use crate::{store::StoredItem, wire::Ack};

/// What a process leaves to the next one of its node.
type Saved = (Vec<StoredItem>, PersistedState);

/// Ends a process.
fn stop(network: &mut Network, n: u64) -> Saved {
    let node = network.nodes.remove(&address(n)).unwrap();
    let now = network.now();
    let known = (0..crate::key::SHARDS).flat_map(|shard| node.replica.store.export(shard, now));
    (known.collect(), node.persisted_state(now))
}

/// Starts the next process of a node `away_ms` later, up to the moment at which it asks for its snapshot.
fn start_with_snapshot(network: &mut Network, n: u64, seeds: &[u64]) {
    let before = network.restores;
    network.has_snapshot = true;
    network.start_in("test", n, n + 10, "a", seeds);
    network.has_snapshot = false;
    for _ in 0..100 {
        if network.restores > before {
            return;
        }
        network.run(100);
    }
    panic!("it does not ask for its snapshot");
}

fn restore(network: &mut Network, n: u64, (known, state): Saved, away_ms: u64) {
    network.input(address(n), Input::RestoredItems(known));
    let state = PersistedState { away_ms, ..state };
    network.input(address(n), Input::RestoreComplete(Some(state)));
}

#[test]
fn snapshot_is_restored_when_no_node_has_entries() {
    let mut network = Network::default();
    network.start(1, "a", &[]);
    network.run(1_000);
    for name in keys(50) {
        network.put(1, &name, "v", Ack::Local);
    }
    network.write(1, "k7", WriteOp::Delete, Ack::Local);
    network.run(1_000);
    assert!(network.nodes[&address(1)].has_all_data());
    let saved = stop(&mut network, 1);
    network.run(3_000);
    start_with_snapshot(&mut network, 1, &[]);
    assert_eq!(state(&network, 1), NodeState::Warming);
    assert!(!network.nodes[&address(1)].has_all_data());
    restore(&mut network, 1, saved, 3_000);
    assert_eq!(state(&network, 1), NodeState::InSync);
    assert_eq!(network.nodes[&address(1)].replica.store.entry_count(), 49);
    assert!(version(&network, 1, "k7").is_some(), "its tombstone is kept");
}

#[test]
fn snapshots_are_merged_whichever_node_starts_first() {
    for order in [[1, 2], [2, 1]] {
        let mut network = Network::default();
        network.start(1, "a", &[2]);
        network.start(2, "a", &[1]);
        network.run(3_000);
        for name in keys(50) {
            network.put(1, &name, "old", Ack::Region);
        }
        network.run(1_000);
        let mut saved: BTreeMap<u64, Saved> = [(1, stop(&mut network, 1))].into();
        network.run(5_000);
        // What node 2 alone knows.
        network.write(2, "k7", WriteOp::Delete, Ack::Local);
        network.put(2, "k8", "new", Ack::Local);
        network.put(2, "alone", "new", Ack::Local);
        network.run(1_000);
        saved.insert(2, stop(&mut network, 2));
        network.run(2_000);
        for n in order {
            start_with_snapshot(&mut network, n, &[1, 2]);
            assert!(!network.nodes[&address(n)].read_policy().values_are_current, "it reads");
            let is_second = n == order[1];
            restore(&mut network, n, saved.remove(&n).unwrap(), if n == 1 { 8_000 } else { 2_000 });
            if is_second {
                // It may lack what was written meanwhile.
                assert_eq!(state(&network, n), NodeState::Warming, "{order:?}");
                assert!(!network.nodes[&address(n)].read_policy().values_are_current);
            }
            network.run(10_000);
            assert_eq!(state(&network, n), NodeState::InSync, "{order:?}");
        }
        for n in order {
            let store = &network.nodes[&address(n)].replica.store;
            let value = |name: &str| store.peek(&key(name), network.now()).hit().map(|e| e.value);
            assert_eq!(value("k7"), None, "{order:?}: node {n} has what was deleted");
            assert_eq!(value("k8").as_deref(), Some(&b"new"[..]), "{order:?} {n}");
            assert_eq!(value("alone").as_deref(), Some(&b"new"[..]), "{order:?} {n}");
            assert_eq!(store.entry_count(), 50, "{order:?} {n}");
        }
    }
}

#[test]
fn node_that_reads_its_snapshot_for_longer_than_it_may_warm_serves_afterwards() {
    let mut network = Network::default();
    network.start(1, "a", &[]);
    network.run(1_000);
    network.put(1, "k", "v", Ack::Local);
    network.run(1_000);
    let (known, memory) = stop(&mut network, 1);
    start_with_snapshot(&mut network, 1, &[]);
    network.input(address(1), Input::RestoredItems(known));
    network.run(120_000);
    assert_eq!(state(&network, 1), NodeState::InSync);
    assert!(!network.nodes[&address(1)].read_policy().values_are_current, "it still reads");
    let memory = PersistedState { away_ms: 120_000, ..memory };
    network.input(address(1), Input::RestoreComplete(Some(memory)));
    network.run(1_000);
    assert!(network.nodes[&address(1)].read_policy().values_are_current);
}

#[test]
fn values_of_a_snapshot_that_others_lack_are_offered_to_them() {
    let mut network = Network::default();
    network.replicas = 1;
    (1..=3).for_each(|n| network.start(n, "a", &[1]));
    network.run(8_000);
    for name in keys(50) {
        network.put_long(1, &name, "v", Ack::Region);
        network.run(5);
    }
    network.run(3_000);
    let saved = stop(&mut network, 2);
    // All are to keep everything from now on.
    network.run(3_000);
    network.replicas = 0;
    for n in [1, 3] {
        network.kill(n);
        network.start(n, "a", &[1, 3]);
    }
    start_with_snapshot(&mut network, 2, &[1, 3]);
    restore(&mut network, 2, saved, 3_000);
    network.run(60_000);
    let held: Vec<_> = network.nodes.values().map(|n| n.replica.store.entry_count()).collect();
    assert!(held.iter().all(|count| *count == held[0]) && held[0] > 5, "{held:?}");
    assert!(network.nodes.values().all(Node::misses_are_authoritative));
}

#[test]
fn value_of_a_snapshot_counts_where_its_version_came_first() {
    let mut network = Network::default();
    network.start(1, "a", &[]);
    network.run(1_000);
    network.put_long(1, "k1", "v", Ack::Local);
    network.run(1_000);
    let saved = stop(&mut network, 1);
    start_with_snapshot(&mut network, 1, &[]);
    let (hash, now) = (key("k1").hash(), network.now());
    let version =
        saved.0.iter().map(StoredItem::key_version).find(|(key, _)| *key == hash).unwrap().1;
    let store = network.nodes[&address(1)].replica.store.clone();
    store.apply_version(hash, version, now);
    restore(&mut network, 1, saved, 1_000);
    network.run(1_000);
    assert_eq!(network.get(1, "k1").as_deref(), Some("v"));
}

#[test]
fn versions_of_a_snapshot_move_with_the_clock_that_stamped_them() {
    for others in [&[2][..], &[]] {
        let own = [&[1], others].concat();
        let mut network = Network::default();
        network.retention_ms = Some(60_000);
        set_links(&mut network, &own, &[3, 4], false);
        for n in &own {
            network.start(*n, "a", &[1, 2, 3, 4]);
        }
        network.run(3_000);
        for name in keys(50) {
            network.put_long(1, &name, "v", Ack::Region);
        }
        network.run(1_000);
        let saved = stop(&mut network, 1);
        network.run(3_000);
        start_with_snapshot(&mut network, 1, &[2, 3, 4]);
        restore(&mut network, 1, saved, 3_000);
        network.run(30_000);
        for n in [3, 4] {
            network.ahead_ms.insert(address(n), 3_600_000);
            network.start(n, "a", &[1, 2, 3, 4]);
        }
        network.run(5_000);
        set_links(&mut network, &own, &[3, 4], true);
        network.run(30_000);
        assert!(network.nodes[&address(1)].local.clocks.offset_ms() > 3_590_000);
        assert_eq!(disagreements(&network, &keys(50)), 0);
        assert!(network.nodes.values().all(|node| node.replica.store.entry_count() == 50));
    }
}

#[test]
fn values_of_a_snapshot_stay_as_old_as_they_are_if_another_clock_stamped_them() {
    let mut network = Network::default();
    network.retention_ms = Some(60_000);
    for n in [2, 3] {
        network.ahead_ms.insert(address(n), 20_000);
    }
    for n in [2, 3, 1] {
        network.start(n, "a", &[1, 2, 3]);
        network.run(2_000);
    }
    assert!(network.nodes[&address(1)].local.clocks.offset_ms() > 19_000);
    for name in keys(50) {
        network.put_long(2, &name, "v", Ack::Region);
    }
    network.run(1_000);
    let saved = stop(&mut network, 1);
    set_links(&mut network, &[1], &[2, 3], false);
    for name in keys(50) {
        network.write(2, &name, WriteOp::Delete, Ack::Region);
    }
    // Alone, the next process does not know that the clock of its machine is behind.
    start_with_snapshot(&mut network, 1, &[2, 3]);
    restore(&mut network, 1, saved, 0);
    network.run(25_000);
    assert_eq!(network.nodes[&address(1)].local.clocks.offset_ms(), 0);
    network.put_long(1, "own", "v", Ack::Local);
    network.run(1_000);
    let own = version(&network, 1, "own");
    set_links(&mut network, &[1], &[2, 3], true);
    network.run(10_000);
    assert!(network.nodes[&address(1)].local.clocks.offset_ms() > 19_000);
    for name in keys(50) {
        assert_eq!(network.values(&name), vec![None; 3], "{name}");
    }
    assert!(version(&network, 1, "own") > own);
}

#[test]
fn delete_of_a_snapshot_stays_as_new_as_it_is_if_another_clock_stamped_it() {
    let mut network = Network::default();
    network.retention_ms = Some(60_000);
    network.ahead_ms.insert(address(1), 20_000);
    for n in [2, 3, 1] {
        network.start(n, "a", &[1, 2, 3]);
        network.run(2_000);
    }
    network.run(34_000);
    assert!(network.nodes[&address(1)].local.clocks.offset_ms() < -19_000);
    for name in keys(50) {
        network.put_long(2, &name, "v", Ack::Region);
    }
    network.run(1_000);
    set_links(&mut network, &[1], &[2, 3], false);
    for name in keys(50) {
        network.write(1, &name, WriteOp::Delete, Ack::Local);
    }
    network.run(1_000);
    let saved = stop(&mut network, 1);
    // Alone, the next process does not know that the clock of its machine is ahead.
    start_with_snapshot(&mut network, 1, &[2, 3]);
    restore(&mut network, 1, saved, 0);
    network.run(5_000);
    assert_eq!(network.nodes[&address(1)].local.clocks.offset_ms(), 0);
    set_links(&mut network, &[1], &[2, 3], true);
    network.run(10_000);
    assert!(network.nodes[&address(1)].local.clocks.offset_ms() < -19_000);
    for name in keys(50) {
        assert_eq!(network.values(&name), vec![None; 3], "{name}");
    }
}
