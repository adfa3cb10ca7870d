//! Repair, the copy at the start, and clocks, on a virtual network.

use alloc::{format, string::String, vec, vec::Vec};

use super::{
    network::{Network, address, key},
    prelude::*,
};
use crate::{store::Capacity, ttl::Ttl, wire::Ack};

/// Cuts every link between the nodes `a` and the nodes `b`, or joins them again.
pub(super) fn set_links(network: &mut Network, a: &[u64], b: &[u64], are_up: bool) {
    for (a, b) in a.iter().flat_map(|a| b.iter().map(move |b| (*a, *b))) {
        network.set_link(a, b, are_up);
    }
}

/// Writes a value that outlives each retention.
fn put_for_an_hour(network: &mut Network, n: u64, name: &str, value: &str) {
    let (value, metadata) = (Bytes::copy_from_slice(value.as_bytes()), Bytes::new());
    let ttl = Ttl::from_secs(3_600).unwrap();
    network.write(n, name, WriteOp::Put { value, metadata, ttl }, Ack::Local);
}

/// The version of a key that a node knows.
pub(super) fn version(network: &Network, n: u64, name: &str) -> Option<Version> {
    network.nodes[&address(n)].replica.store.version(key(name).hash())
}

/// How many of the keys have different versions at some two nodes.
pub(super) fn disagreements(network: &Network, keys: &[String]) -> usize {
    let differs = |name: &&String| {
        let hash = key(name).hash();
        let mut versions = network.nodes.values().map(|node| node.replica.store.version(hash));
        let first = versions.next();
        versions.any(|version| Some(version) != first)
    };
    keys.iter().filter(differs).count()
}

pub(super) fn counts(network: &Network, n: u64) -> RepairCounts {
    network.nodes[&address(n)].repair.counts()
}

fn copied(network: &Network) -> u64 {
    let counts = network.nodes.values().map(|node| node.repair.counts());
    counts.map(|counts| counts.values_fetched + counts.tombstones_fetched).sum()
}

pub(super) fn state(network: &Network, n: u64) -> NodeState {
    network.nodes[&address(n)].state()
}

pub(super) fn keys(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("k{n}")).collect()
}

#[test]
fn separated_node_gets_missed_writes_soon_after_healing() {
    let mut network = Network::six();
    let keys = keys(200);
    for name in &keys[..100] {
        network.put(1, name, "before", Ack::Local);
    }
    network.run(100);
    set_links(&mut network, &[2], &[1, 3, 4, 5, 6], false);
    for (at, name) in keys.iter().enumerate() {
        match at % 3 {
            0 => network.put(1, name, "during", Ack::Local),
            1 => network.put(2, name, "on the other side", Ack::Local),
            _ => network.write(5, name, WriteOp::Delete, Ack::Local),
        };
    }
    network.run(10_000);
    assert!(disagreements(&network, &keys) > 100);
    set_links(&mut network, &[2], &[1, 3, 4, 5, 6], true);
    network.run(3_000);
    let local = |name: &String| version(&network, 1, name) == version(&network, 2, name);
    assert_eq!(keys.iter().filter(|name| !local(name)).count(), 0);
    network.run(8_000);
    assert_eq!(disagreements(&network, &keys), 0);
    assert_eq!(network.values("k2"), vec![None; 6]);
    let before = copied(&network);
    network.run(20_000);
    assert_eq!(copied(&network), before, "nothing is copied any more");
}

#[test]
fn region_converges_through_the_only_region_it_reaches() {
    let mut network = Network::six();
    set_links(&mut network, &[1, 2], &[5, 6], false);
    network.run(5_000);
    let keys = keys(50);
    for name in &keys {
        network.put(1, name, "v", Ack::Local);
    }
    network.run(12_000);
    assert_eq!(disagreements(&network, &keys), 0);
}

#[test]
fn idle_round_takes_about_one_kibibyte() {
    let mut network = Network::default();
    network.start(1, "a", &[]);
    network.start(2, "a", &[1]);
    network.run(2_000);
    for name in keys(5_000) {
        network.put(1, &name, "v", Ack::Local);
    }
    network.run(10_000);
    let (bytes, rounds) = (network.bytes, counts(&network, 1).rounds_completed);
    network.run(60_000);
    let rounds = counts(&network, 1).rounds_completed - rounds;
    assert!((55..=61).contains(&rounds), "{rounds} rounds in a minute");
    // Two nodes, each with a round and about three pings a second.
    let per_round = (network.bytes - bytes) / rounds / 2;
    assert!(per_round < 1_200, "{per_round} bytes for a round and pings");
}

#[test]
fn evicted_entries_are_not_copied_back() {
    let mut network = Network::default();
    network.start(1, "a", &[]);
    network.capacity = Some(Capacity { entries_max: 10_000, bytes_max: 64 << 10 });
    network.start(2, "a", &[1]);
    network.run(2_000);
    let keys = keys(1_000);
    for name in &keys {
        network.put(1, name, "v", Ack::Local);
    }
    network.run(10_000);
    let held = |network: &Network, n| network.nodes[&address(n)].replica.store.entry_count();
    assert!(held(&network, 1) == 1_000 && held(&network, 2) < 700);
    let before = copied(&network);
    network.run(60_000);
    assert_eq!(copied(&network), before);
}

#[test]
fn new_node_copies_from_its_peer() {
    let mut network = Network::default();
    network.retention_ms = Some(5_000);
    network.start(1, "a", &[]);
    network.run(1_000);
    let keys = keys(3_000);
    for name in &keys {
        network.put(1, name, "v", Ack::Local);
    }
    network.write(1, "k7", WriteOp::Delete, Ack::Local);
    // Longer than the retention: only a copy brings older entries.
    network.run(8_000);
    network.start(2, "a", &[1]);
    network.run(20);
    assert_eq!(state(&network, 2), NodeState::Warming);
    network.put(1, "k8", "newer", Ack::Local);
    network.run(2_000);
    assert_eq!(state(&network, 2), NodeState::InSync);
    let differing = keys.iter().filter(|name| {
        let values = network.values(name);
        values[0] != values[1]
    });
    assert_eq!(differing.count(), 0);
    assert_eq!(network.values("k7"), vec![None; 2]);
    assert_eq!(network.values("k8"), vec![Some("newer".into()); 2]);
    assert!(counts(&network, 2).entries_copied >= 2_999);
}

#[test]
fn copy_continues_from_another_node_after_its_source_dies() {
    let mut network = Network::default();
    network.capacity = Some(Capacity { entries_max: 10_000, bytes_max: 64 << 20 });
    network.start(1, "a", &[]);
    network.start(2, "a", &[1]);
    network.run(1_000);
    let keys = keys(3_000);
    for name in &keys {
        network.put(1, name, &"v".repeat(4_000), Ack::Local);
    }
    network.run(5_000);
    network.start(3, "a", &[1]);
    network.run(40);
    let source = match network.nodes[&address(3)].repair.start() {
        repair::Start::Copying(copying) => copying.source(),
        other => panic!("{other:?}"),
    };
    network.nodes.remove(&address(source.0));
    network.run(10_000);
    assert_eq!(state(&network, 3), NodeState::InSync);
    assert_eq!(network.nodes[&address(3)].replica.store.entry_count(), 3_000);
}

#[test]
fn node_away_too_long_drops_entries_deleted_meanwhile() {
    let mut network = Network::default();
    network.retention_ms = Some(60_000);
    for (n, region) in [(1, "a"), (2, "a"), (3, "b")] {
        network.start(n, region, &[1]);
    }
    network.run(3_000);
    put_for_an_hour(&mut network, 1, "deleted", "v");
    put_for_an_hour(&mut network, 1, "kept", "v");
    network.run(1_000);
    set_links(&mut network, &[3], &[1, 2], false);
    network.write(1, "deleted", WriteOp::Delete, Ack::Local);
    // The tombstones of the delete are gone when the node returns.
    network.run(100_000);
    assert_eq!(version(&network, 1, "deleted"), None);
    assert_eq!(network.values("deleted"), vec![None, None, Some("v".into())]);
    set_links(&mut network, &[3], &[1, 2], true);
    network.run(15_000);
    assert_eq!(network.values("deleted"), vec![None; 3]);
    assert_eq!(network.values("kept"), vec![Some("v".into()); 3]);
    assert_eq!(counts(&network, 3).entries_dropped, 1);
}

#[test]
fn node_away_too_long_gives_up_newer_versions_that_its_source_lacks() {
    let mut network = Network::default();
    network.retention_ms = Some(60_000);
    for (n, region) in [(1, "a"), (2, "a"), (3, "b")] {
        network.start(n, region, &[1]);
    }
    network.run(3_000);
    put_for_an_hour(&mut network, 1, "k", "before");
    network.run(1_000);
    set_links(&mut network, &[3], &[1, 2], false);
    network.run(5_000);
    put_for_an_hour(&mut network, 1, "k", "first");
    network.run(5_000);
    put_for_an_hour(&mut network, 3, "k", "second");
    // Both are older than rounds reach when the node returns.
    network.run(100_000);
    assert!(version(&network, 1, "k") < version(&network, 3, "k"));
    set_links(&mut network, &[3], &[1, 2], true);
    network.run(15_000);
    assert_eq!(network.values("k"), vec![Some("first".into()); 3]);
    assert_eq!(counts(&network, 3).entries_dropped, 1);
}

#[test]
fn wrong_clock_is_set_to_the_time_of_the_others() {
    for ahead_ms in [90_000, 4_102_444_800_000] {
        let mut network = Network::default();
        network.ahead_ms.insert(address(3), ahead_ms);
        for n in [1, 2] {
            network.start(n, "a", &[1]);
        }
        network.run(1_000);
        network.start(3, "a", &[1]);
        network.run(1_000);
        network.put(3, "k", "from the future", Ack::Local);
        network.run(100);
        assert_eq!(network.values("k"), vec![Some("from the future".into()); 3]);
        network.put(1, "k", "later", Ack::Local);
        network.run(100);
        assert_eq!(network.values("k"), vec![Some("later".into()); 3]);
    }
}

#[test]
fn entries_of_a_node_with_a_future_clock_are_restamped() {
    let mut network = Network::default();
    network.ahead_ms.insert(address(3), 7_200_000);
    for n in [1, 2, 3] {
        network.start(n, "a", &[1, 2, 3]);
        set_links(&mut network, &[3], &[1, 2], false);
    }
    network.run(5_000);
    network.put(3, "alone", "v", Ack::Local);
    network.put(1, "k", "v", Ack::Local);
    network.run(1_000);
    set_links(&mut network, &[3], &[1, 2], true);
    network.run(15_000);
    network.put(3, "k2", "refused at first", Ack::Local);
    network.run(15_000);
    network.put(3, "k", "after", Ack::Local);
    network.run(3_000);
    assert_eq!(network.values("k"), vec![Some("after".into()); 3]);
    assert_eq!(network.values("alone"), vec![Some("v".into()); 3]);
    assert!(network.nodes.values().all(|node| node.state() == NodeState::InSync));
    // Its versions have the right time, and another writer.
    let version = version(&network, 1, "alone").unwrap();
    assert!(version.wall_ms() < network.now().wall_ms);
    assert_eq!(version.incarnation(), Incarnation(3).successor());
    assert_eq!(network.nodes[&address(3)].writer(), Incarnation(3).successor());
}

#[test]
fn suspended_node_warms_until_it_has_caught_up() {
    let mut network = Network::six();
    network.frozen.insert(address(2));
    network.run(5_000);
    network.put(1, "k", "v", Ack::Local);
    network.run(5_000);
    network.frozen.clear();
    network.run(1);
    assert_eq!(state(&network, 2), NodeState::Warming);
    assert_eq!(network.nodes[&address(2)].read_policy(), ReadPolicy::default());
    network.run(3_000);
    assert_eq!(state(&network, 2), NodeState::InSync);
    let all = ReadPolicy { misses_are_authoritative: true, values_are_current: true };
    assert_eq!(network.nodes[&address(2)].read_policy(), all);
    assert_eq!(network.values("k"), vec![Some("v".into()); 6]);
    let downs = network
        .events
        .iter()
        .filter(|(at, event)| *at == address(2) && matches!(event, Event::MemberDown(..)));
    assert_eq!(downs.count(), 0, "the silence was its own");
}

/// Two nodes of one region that have a key "k", the clock of the first one ahead by so much.
fn pair_with_key(ahead_ms: u64) -> Network {
    let mut network = Network::default();
    network.ahead_ms.insert(address(1), ahead_ms);
    network.start(1, "a", &[]);
    network.start(2, "a", &[1]);
    network.run(3_000);
    network.put(1, "k", "before", Ack::Local);
    network.run(1_000);
    network
}

/// Writes "k" at node 1 again and again for so long.
fn overwrite(network: &mut Network, ms: u64) {
    let end_ms = network.now_ms + ms;
    while network.now_ms < end_ms {
        let value = format!("{}", network.now_ms);
        network.put(1, "k", &value, Ack::Local);
        network.run(20);
    }
}

/// The same where node 2 gets nothing of it. Returns the last version.
fn overwrite_unseen(network: &mut Network, ms: u64) -> Option<Version> {
    overwrite(network, ms);
    let latest = version(network, 1, "k");
    assert!(version(network, 2, "k") < latest);
    latest
}

/// The same while node 2 is suspended.
fn overwrite_while_suspended(network: &mut Network, ms: u64) -> Option<Version> {
    network.frozen.insert(address(2));
    let latest = overwrite_unseen(network, ms);
    network.frozen.clear();
    latest
}

#[test]
fn suspended_node_serves_no_value_that_was_overwritten_meanwhile() {
    for ahead_ms in [0, 500, 990] {
        let mut network = pair_with_key(ahead_ms);
        let latest = overwrite_while_suspended(&mut network, 6_330);
        network.run_until(3_000, |network| state(network, 2) == NodeState::Warming);
        network.run_until(3_000, |network| state(network, 2) == NodeState::InSync);
        assert!(version(&network, 2, "k") >= latest, "clock {ahead_ms} ms ahead");
    }
}

#[test]
fn node_that_is_suspended_again_catches_up_again() {
    let mut network = pair_with_key(0);
    overwrite_while_suspended(&mut network, 6_000);
    network.run(100);
    assert_eq!(state(&network, 2), NodeState::Warming, "it compares a second time");
    let latest = overwrite_while_suspended(&mut network, 6_000);
    network.run_until(3_000, |network| state(network, 2) == NodeState::InSync);
    assert!(version(&network, 2, "k") >= latest);
}

#[test]
fn separated_node_gets_keys_that_are_overwritten_all_the_time() {
    for cut_ms in [6_000, 6_250, 6_500, 6_750] {
        let mut network = pair_with_key(0);
        network.set_link(1, 2, false);
        let latest = overwrite_unseen(&mut network, cut_ms);
        let healed_ms = network.now_ms;
        network.set_link(1, 2, true);
        // Until node 1 sends its writes to node 2 again.
        while !network.members(1).contains(&2) {
            overwrite(&mut network, 20);
        }
        let left_ms = 2_000 - (network.now_ms - healed_ms);
        let took = network.run_until(9_000, |network| version(network, 2, "k") >= latest);
        assert!(took <= left_ms, "{took} ms more than {left_ms} ms, cut {cut_ms}");
    }
}

#[test]
fn nodes_without_repair_get_no_rounds() {
    let mut network = Network::default();
    network.without = crate::wire::features::REPAIR;
    network.start(1, "a", &[]);
    network.without = 0;
    network.start(2, "a", &[1]);
    network.run(3_000);
    network.put(1, "k", "v", Ack::Local);
    network.run(20_000);
    assert_eq!(network.values("k"), vec![Some("v".into()); 2]);
    assert_eq!(state(&network, 2), NodeState::InSync);
    assert!(network.nodes[&address(2)].misses_are_authoritative());
    assert_eq!((counts(&network, 2).rounds_completed, counts(&network, 2).rounds_aborted), (0, 0));
}

#[test]
fn node_ready_by_timeout_continues_its_start() {
    let mut network = Network::default();
    network.start(1, "a", &[]);
    network.run(1_000);
    for name in keys(500) {
        network.put(1, &name, "v", Ack::Local);
    }
    network.start_unsettled(2, "a", &[1], 1_000);
    network.run(2_000);
    // Discovery is not complete: the node is ready by timeout.
    assert_eq!(state(&network, 2), NodeState::InSync);
    assert!(!network.nodes[&address(2)].misses_are_authoritative());
    network.input(address(2), Input::DiscoveryComplete);
    network.run(5_000);
    assert_eq!(network.nodes[&address(2)].replica.store.entry_count(), 500);
    assert!(network.nodes[&address(2)].misses_are_authoritative());
}

#[test]
fn copy_is_no_more_complete_than_its_source() {
    let mut network = Network::default();
    network.retention_ms = Some(20_000);
    network.start(1, "a", &[]);
    network.retention_ms = None;
    network.start(2, "b", &[1]);
    network.run(3_000);
    put_for_an_hour(&mut network, 1, "k", "v");
    network.run(1_000);
    network.set_link(1, 2, false);
    network.write(1, "k", WriteOp::Delete, Ack::Local);
    network.put(1, "other", "v", Ack::Local);
    // The tombstone of the delete is gone at node 1; node 2, separated, has the value.
    network.run(40_000);
    network.start(3, "a", &[1]);
    network.run(3_000);
    assert_eq!(state(&network, 3), NodeState::InSync);
    network.set_link(1, 2, true);
    network.run(20_000);
    assert_eq!(network.values("k"), vec![None; 3]);
}

#[test]
fn no_entries_are_dropped_for_a_peer_that_still_copies() {
    let mut network = Network::default();
    network.retention_ms = Some(60_000);
    network.capacity = Some(Capacity { entries_max: 10_000, bytes_max: 64 << 20 });
    for (n, region) in [(1, "a"), (2, "b"), (3, "b")] {
        network.start(n, region, &[1]);
    }
    network.run(3_000);
    let keys = keys(2_000);
    for name in &keys {
        put_for_an_hour(&mut network, 1, name, &"v".repeat(1_000));
    }
    network.run(10_000);
    set_links(&mut network, &[2], &[1, 3], false);
    network.run(100_000);
    // Node 2 returns while a new node of its region copies.
    network.start(4, "b", &[1, 2, 3]);
    set_links(&mut network, &[2], &[1, 3], true);
    network.run(20_000);
    assert_eq!(disagreements(&network, &keys), 0);
    assert!(network.nodes.values().all(|node| node.replica.store.entry_count() == 2_000));
}
