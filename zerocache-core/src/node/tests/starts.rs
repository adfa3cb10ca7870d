//! Starts without other nodes, interrupted ones, and ones with a wrong clock: the node with more entries is
//! copied from, once it is met.

use alloc::{format, string::String, vec, vec::Vec};

use super::{
    network::{Network, address, key},
    prelude::*,
    repair::{counts, disagreements, keys, set_links, state},
};
use crate::{cluster::Member, store::Capacity, ttl::Ttl, wire::Ack};

const HOUR_MS: u64 = 3_600_000;

/// Writes values that outlive every test, of so many bytes.
pub(super) fn put_all(network: &mut Network, n: u64, names: &[String], bytes: usize) {
    let ttl = Ttl::from_secs(86_400).unwrap();
    for name in names {
        let value = Bytes::from("v".repeat(bytes));
        network.write(n, name, WriteOp::Put { value, metadata: Bytes::new(), ttl }, Ack::Local);
    }
}

pub(super) fn named(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|n| format!("{prefix}{n}")).collect()
}

/// How many of the keys have a value on a node.
pub(super) fn held(network: &Network, n: u64, names: &[String]) -> usize {
    let node = &network.nodes[&address(n)];
    names.iter().filter(|name| node.replica.store.peek(&key(name), network.now()).is_hit()).count()
}

fn is_final(network: &Network, n: u64) -> bool {
    network.nodes[&address(n)].misses_are_authoritative()
}

/// Whether all nodes have all keys, and every node says so.
pub(super) fn all_have(network: &Network, names: &[String]) -> bool {
    (network.nodes.values()).all(|node| node.state() == NodeState::InSync)
        && network.nodes.values().all(Node::misses_are_authoritative)
        && disagreements(network, names) == 0
        && network.nodes.keys().all(|at| {
            let node = &network.nodes[at];
            names.iter().all(|name| node.replica.store.peek(&key(name), network.now()).is_hit())
        })
}

/// A node with entries, and one that has begun to copy them.
fn in_mid_copy(network: &mut Network, names: &[String]) {
    network.capacity = Some(Capacity { entries_max: 100_000, bytes_max: 64 << 20 });
    network.start(1, "a", &[]);
    network.run(1_000);
    put_all(network, 1, names, 4_000);
    network.run(5_000);
    network.start(2, "a", &[1]);
    network.run_until(2_000, |network| network.nodes[&address(2)].replica.store.entry_count() > 0);
    assert!(held(network, 2, names) < names.len());
}

#[test]
fn copy_waits_for_a_suspended_source() {
    let names = keys(3_000);
    for frozen_ms in [2_000, 6_000, 30_000] {
        let mut network = Network::default();
        in_mid_copy(&mut network, &names);
        network.frozen.insert(address(1));
        let end_ms = network.now_ms + frozen_ms;
        while network.now_ms < end_ms {
            network.run(100);
            assert_eq!(state(&network, 2), NodeState::Warming);
            assert!(!is_final(&network, 2));
        }
        assert!(held(&network, 2, &names) < names.len());
        network.frozen.clear();
        network.run(6_000);
        assert!(all_have(&network, &names), "after {frozen_ms} ms");
        // It continued where it was.
        assert!(counts(&network, 2).entries_copied < 4_500, "{:?}", counts(&network, 2));
    }
}

#[test]
fn node_is_ready_by_timeout_and_still_waits_for_its_source() {
    let names = keys(3_000);
    let mut network = Network::default();
    in_mid_copy(&mut network, &names);
    network.frozen.insert(address(1));
    network.run(61_000);
    assert_eq!(state(&network, 2), NodeState::InSync);
    assert!(!is_final(&network, 2));
    network.frozen.clear();
    network.run(6_000);
    assert!(all_have(&network, &names));
}

#[test]
fn copy_continues_from_another_source_where_it_was() {
    let names = keys(3_000);
    let mut network = Network::default();
    network.capacity = Some(Capacity { entries_max: 100_000, bytes_max: 64 << 20 });
    network.start(1, "a", &[]);
    network.start(2, "a", &[1]);
    network.run(1_000);
    put_all(&mut network, 1, &names, 4_000);
    network.run(5_000);
    network.start(3, "a", &[1]);
    network
        .run_until(2_000, |network| network.nodes[&address(3)].replica.store.entry_count() > 1_000);
    let source = match network.nodes[&address(3)].repair.start() {
        repair::Start::Copying(copying) => copying.source(),
        other => panic!("{other:?}"),
    };
    network.frozen.insert(address(source.0));
    network.run(10_000);
    assert_eq!(held(&network, 3, &names), 3_000);
    assert_eq!(state(&network, 3), NodeState::InSync);
    assert!(counts(&network, 3).entries_copied < 4_500, "{:?}", counts(&network, 3));
}

#[test]
fn copy_does_not_wait_for_a_source_that_exited() {
    let names = keys(3_000);
    let mut network = Network::default();
    in_mid_copy(&mut network, &names);
    network.nodes.remove(&address(1));
    network.run(10_000);
    assert_eq!(state(&network, 2), NodeState::InSync);
    assert!(is_final(&network, 2));
}

#[test]
fn start_waits_for_a_silent_node_that_was_in_sync() {
    let names = keys(100);
    let mut network = Network::default();
    network.start(1, "a", &[]);
    network.run(1_000);
    put_all(&mut network, 1, &names, 10);
    network.start_unsettled(2, "a", &[1], 60_000);
    network.run(30);
    network.frozen.insert(address(1));
    network.run(3_000);
    network.input(address(2), Input::DiscoveryComplete);
    network.run(6_000);
    assert_eq!(state(&network, 2), NodeState::Warming);
    network.frozen.clear();
    network.run(6_000);
    assert!(all_have(&network, &names));
}

#[test]
fn node_started_alone_copies_older_entries_from_a_node_it_meets() {
    for region in ["a", "b"] {
        let mut network = Network::default();
        network.retention_ms = Some(60_000);
        network.start(1, "a", &[]);
        network.run(1_000);
        let (old, own) = (named("old", 200), named("own", 50));
        put_all(&mut network, 1, &old, 10);
        network.write(1, "old7", WriteOp::Delete, Ack::Local);
        network.run(200_000);
        network.start(2, region, &[1]);
        network.set_link(1, 2, false);
        network.run(10_000);
        assert!(is_final(&network, 2), "nobody else is there");
        put_all(&mut network, 2, &own, 10);
        network.run(5_000);
        network.set_link(1, 2, true);
        // Once it has met another node, its misses are authoritative only after it has everything.
        network.run_until(20_000, |network| {
            let lacks = held(network, 2, &old) < 199;
            let met =
                network.nodes[&address(2)].membership.view.members().any(Member::takes_writes);
            assert!(!(lacks && met && is_final(network, 2)));
            !lacks
        });
        network.run(10_000);
        let all: Vec<_> = old.into_iter().filter(|name| name != "old7").chain(own).collect();
        assert!(all_have(&network, &all), "in {region}");
        assert_eq!(network.values("old7"), vec![None; 2]);
    }
}

#[test]
fn older_of_two_halves_is_the_source() {
    // Which half is older, and how much.
    for (older, younger) in [([1, 2], [3, 4]), ([3, 4], [1, 2])] {
        let mut network = Network::default();
        network.retention_ms = Some(60_000);
        for half in [older, younger] {
            for n in half {
                network.start(n, if n % 2 == 0 { "a" } else { "b" }, &[1, 2, 3, 4]);
                set_links(&mut network, &older, &younger, false);
            }
            network.run(20_000);
        }
        let (right, wrong) = (named("right", 100), named("wrong", 100));
        put_all(&mut network, older[0], &right, 10);
        put_all(&mut network, younger[0], &wrong, 10);
        network.run(100_000);
        let late = named("late", 20);
        put_all(&mut network, younger[1], &late, 10);
        network.run(5_000);
        assert_eq!(held(&network, younger[1], &wrong), 100);
        set_links(&mut network, &older, &younger, true);
        network.run(30_000);
        for n in [1, 2, 3, 4] {
            assert_eq!(held(&network, n, &right), 100, "node {n}");
            assert_eq!(held(&network, n, &wrong), 0, "node {n}");
            assert_eq!(held(&network, n, &late), 20, "node {n}");
        }
        assert!(all_have(&network, &right));
    }
}

#[test]
fn halves_separated_for_less_than_the_retention_keep_all_entries() {
    let mut network = Network::default();
    network.retention_ms = Some(60_000);
    for n in [1, 2, 3, 4] {
        network.start(n, "a", &[1, 2, 3, 4]);
        set_links(&mut network, &[1, 2], &[3, 4], false);
    }
    network.run(2_000);
    let (first, second) = (named("first", 100), named("second", 100));
    put_all(&mut network, 1, &first, 10);
    put_all(&mut network, 3, &second, 10);
    network.run(100);
    network.write(2, "first5", WriteOp::Delete, Ack::Local);
    network.run(20_000);
    set_links(&mut network, &[1, 2], &[3, 4], true);
    network.run(10_000);
    let all: Vec<_> = first.into_iter().filter(|name| name != "first5").chain(second).collect();
    assert!(all_have(&network, &all));
    assert_eq!(network.values("first5"), vec![None; 4]);
}

#[test]
fn node_away_too_long_gets_writes_older_than_its_window() {
    let mut network = Network::default();
    network.retention_ms = Some(60_000);
    for n in [1, 2, 3] {
        network.start(n, "a", &[1]);
    }
    network.run(3_000);
    set_links(&mut network, &[3], &[1, 2], false);
    network.run(5_000);
    let names = named("meanwhile", 100);
    put_all(&mut network, 1, &names, 10);
    network.run(200_000);
    set_links(&mut network, &[3], &[1, 2], true);
    network.run(10_000);
    assert!(all_have(&network, &names));
}

/// A cluster in which some nodes are an hour slow: these boot while they are cut off, and all write.
fn slow_by(replication_lag_ms: u64, right: &[u64], slow: &[u64]) -> (Network, Vec<String>) {
    let mut network = Network::default();
    for n in right {
        network.ahead_ms.insert(address(*n), replication_lag_ms);
        network.start(*n, "a", right);
    }
    network.run(5_000);
    for n in slow {
        network.start(*n, "a", &[right, slow].concat());
        set_links(&mut network, right, slow, false);
    }
    network.run(5_000);
    let (acknowledged, alone) = (named("acknowledged", 1_000), named("alone", 100));
    put_all(&mut network, right[0], &acknowledged, 10);
    put_all(&mut network, slow[0], &alone, 10);
    network.run(5_000);
    set_links(&mut network, right, slow, true);
    (network, acknowledged.into_iter().chain(alone).collect())
}

#[test]
fn slow_clock_is_corrected_without_losing_entries() {
    for (right, slow) in [(&[1][..], &[2][..]), (&[1, 2], &[3, 4]), (&[1, 2, 3], &[4])] {
        let (mut network, names) = slow_by(HOUR_MS, right, slow);
        network.run(15_000);
        assert!(all_have(&network, &names), "{right:?} {slow:?}");
        for n in right {
            assert_eq!(network.nodes[&address(*n)].local.clocks.offset_ms(), 0);
        }
        for n in slow {
            let offset_ms = network.nodes[&address(*n)].local.clocks.offset_ms();
            assert!(offset_ms.abs_diff(HOUR_MS as i64) < 1_000);
        }
        network.put(slow[0], "alone3", "after", Ack::Local);
        network.put(right[0], "acknowledged3", "after", Ack::Local);
        network.run(3_000);
        let all = vec![Some("after".into()); right.len() + slow.len()];
        assert_eq!(network.values("alone3"), all);
        assert_eq!(network.values("acknowledged3"), all);
    }
}

#[test]
fn minority_of_fast_clocks_is_corrected_without_losing_entries() {
    for ahead_ms in [90_000, HOUR_MS, 20 * HOUR_MS] {
        // Those that are called right here are the fast ones.
        let (mut network, names) = slow_by(ahead_ms, &[1], &[2, 3]);
        network.run(15_000);
        assert!(all_have(&network, &names), "{ahead_ms}");
        assert!(
            network.nodes[&address(1)].local.clocks.offset_ms().abs_diff(-(ahead_ms as i64))
                < 1_000
        );
        network.write(1, "acknowledged4", WriteOp::Delete, Ack::Local);
        network.run(3_000);
        assert_eq!(network.values("acknowledged4"), vec![None; 3]);
    }
}

#[test]
fn delete_by_a_wrong_clock_survives_the_correction() {
    for (ahead, others) in [(1, &[2, 3][..]), (2, &[1])] {
        let mut network = Network::default();
        network.ahead_ms.insert(address(ahead), HOUR_MS);
        for n in [&[ahead], others].concat() {
            network.start(n, "a", &[1, 2, 3]);
            set_links(&mut network, &[ahead], others, false);
        }
        network.run(5_000);
        network.put(ahead, "k", "v", Ack::Local);
        network.put(others[0], "k", "v", Ack::Local);
        network.run(2_000);
        network.write(ahead, "k", WriteOp::Delete, Ack::Local);
        network.run(2_000);
        set_links(&mut network, &[ahead], others, true);
        network.run(15_000);
        assert!(network.values("k").iter().all(Option::is_none), "{:?}", network.values("k"));
        assert_eq!(disagreements(&network, &keys(0)), 0);
    }
}

#[test]
fn clocks_that_differ_by_much_of_the_retention_are_corrected_without_losing_entries() {
    let mut network = Network::default();
    network.retention_ms = Some(40_000);
    network.ahead_ms.insert(address(2), 28_000);
    network.set_link(1, 2, false);
    network.start(1, "a", &[]);
    network.run(1_000);
    let names = named("behind", 50);
    put_all(&mut network, 1, &names, 10);
    network.run(8_000);
    network.start(2, "a", &[1]);
    network.run(5_000);
    network.set_link(1, 2, true);
    network.run(10_000);
    assert!(all_have(&network, &names));
}

#[test]
fn versions_of_a_clock_ahead_are_compared_at_once() {
    let mut network = Network::default();
    network.ahead_ms.insert(address(1), 40_000);
    for n in [1, 2, 3] {
        network.start(n, "a", &[1, 2, 3]);
        set_links(&mut network, &[1], &[2, 3], false);
    }
    network.run(5_000);
    let names = named("ahead", 100);
    put_all(&mut network, 1, &names, 10);
    network.run(2_000);
    set_links(&mut network, &[1], &[2, 3], true);
    network.run(5_000);
    assert!(network.nodes[&address(1)].local.clocks.offset_ms().abs_diff(-40_000) < 1_000);
    assert!(all_have(&network, &names));
}

#[test]
fn completeness_of_a_copy_moves_with_the_clock() {
    let names = keys(3_000);
    let mut network = Network::default();
    network.retention_ms = Some(60_000);
    network.ahead_ms.insert(address(1), 2_000_000);
    for n in [3, 4] {
        network.start(n, "a", &[3, 4]);
    }
    set_links(&mut network, &[1, 2], &[3, 4], false);
    in_mid_copy(&mut network, &names);
    network.nodes.remove(&address(1));
    network.input(
        address(2),
        Input::AddressesProposed { addresses: vec![address(3), address(4)], are_configured: true },
    );
    set_links(&mut network, &[2], &[3, 4], true);
    network.run(15_000);
    assert_eq!(state(&network, 2), NodeState::InSync);
    assert_eq!(network.nodes[&address(2)].local.clocks.offset_ms(), 0);
    network.put(2, "k", "v", Ack::Local);
    network.run(1_000);
    assert_eq!(network.values("k"), vec![Some("v".into()); 3]);
}

#[test]
fn write_wins_over_a_version_that_may_have_been_forgotten() {
    let mut network = Network::default();
    network.start(1, "a", &[]);
    network.run(1_000);
    let second = network.now().wall_ms / 1_000 + 10;
    network.nodes[&address(1)].replica.store.forget_before(second);
    let id = network.put(1, "k", "v", Ack::Local);
    network.run(100);
    let version = network.written(id).and_then(|written| written.version).unwrap();
    assert!(version.wall_ms() >= second * 1_000 - 1, "{version}");
    assert_eq!(network.values("k"), vec![Some("v".into())]);
}

#[test]
fn clocks_more_than_a_day_apart_do_not_move() {
    let (mut network, names) = slow_by(25 * HOUR_MS, &[1], &[2]);
    network.run(15_000);
    for n in [1, 2] {
        assert_eq!(network.nodes[&address(n)].local.clocks.offset_ms(), 0);
        assert!(!is_final(&network, n));
        let said = network
            .events
            .iter()
            .any(|(at, event)| *at == address(n) && matches!(event, Event::ClockApart { .. }));
        assert!(said, "node {n}");
    }
    // The wrong one restarts without data, and takes the time of the other one.
    network.nodes.remove(&address(1));
    network.run(1_000);
    network.start_in("test", 1, 11, "a", &[2]);
    network.run(6_000);
    assert!(network.nodes.values().all(Node::misses_are_authoritative));
    assert_eq!(disagreements(&network, &names), 0);
    assert!(
        network.nodes[&address(1)].local.clocks.offset_ms().abs_diff(-(25 * HOUR_MS as i64))
            < 1_000
    );
}

#[test]
fn clocks_out_of_bounds_are_not_trusted() {
    let mut network = Network::default();
    network.ahead_ms.insert(address(1), 1 << 60);
    network.start(1, "a", &[]);
    network.start(2, "a", &[1]);
    network.run(5_000);
    network.put(1, "k", "v", Ack::Local);
    network.put(2, "k", "v", Ack::Local);
    network.run(5_000);
    for node in network.nodes.values() {
        let version = node.replica.store.version(key("k").hash()).unwrap();
        assert!(version.wall_ms() <= crate::version::WALL_MS_MAX + 1_000);
    }
}
