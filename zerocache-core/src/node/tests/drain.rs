//! Nodes that are taken out of service and put back, without an end of their process.

use alloc::vec;

use super::{
    network::{Network, address, key},
    prelude::*,
};
use crate::{store::Lookup, wire::Ack};

fn state(network: &Network, n: u64) -> NodeState {
    network.nodes[&address(n)].state()
}

fn policy(network: &Network, n: u64) -> ReadPolicy {
    network.nodes[&address(n)].read_policy()
}

/// Whether each other node of six sees node 2 in the rotation, or none does.
fn is_seen(network: &Network, is_seen: bool) -> bool {
    [1, 3, 4, 5, 6].iter().all(|n| network.members(*n).contains(&2) == is_seen)
}

/// Whether each other node of six knows that node 2 exists.
fn is_known(network: &Network) -> bool {
    [1, 3, 4, 5, 6].iter().all(|n| {
        let status = network.nodes[&address(*n)].status(network.now());
        status.nodes.iter().any(|node| node.id == Incarnation(2))
    })
}

#[test]
fn drained_node_is_out_at_once_and_stays_known_as_leaving() {
    let mut network = Network::six();
    network.input(address(2), Input::Drain);
    assert_eq!(state(&network, 2), NodeState::Leaving);
    network.run(50);
    assert!(is_seen(&network, false));
    // Longer than rows of nodes that are gone are remembered.
    network.run(700_000);
    let status = network.nodes[&address(1)].status(network.now());
    let drained = status.nodes.iter().find(|node| node.id == Incarnation(2)).expect("a member");
    assert_eq!(drained.state, Some(NodeState::Leaving));
    let own = network.nodes[&address(2)].status(network.now());
    assert!(own.is_drained && !status.is_drained);
}

#[test]
fn undrained_node_is_back_with_everything_that_was_written_meanwhile() {
    for drained_ms in [0, 20, 600, 20_000, 700_000] {
        let mut network = Network::six();
        network.put(1, "old", "before", Ack::Local);
        network.run(50);
        network.input(address(2), Input::Drain);
        network.run(drained_ms);
        network.put(1, "new", "v", Ack::Local);
        network.put(1, "old", "after", Ack::Local);
        network.run(50);
        network.input(address(2), Input::Undrain);
        assert_eq!(state(&network, 2), NodeState::Warming);
        assert_eq!(policy(&network, 2), ReadPolicy::default(), "{drained_ms} ms");
        let took = network.run_until(5_000, |network| {
            let current = policy(network, 2).values_are_current;
            if current {
                for (name, value) in [("new", "v"), ("old", "after")] {
                    let node = &network.nodes[&address(2)];
                    let Lookup::Hit(entry) = node.replica.store.peek(&key(name), network.now())
                    else {
                        panic!("{name} is missing after {drained_ms} ms");
                    };
                    assert_eq!(entry.value, value.as_bytes());
                }
            }
            policy(network, 2).is_miss_authoritative() && is_seen(network, true)
        });
        assert_eq!(state(&network, 2), NodeState::InSync, "after {took} ms");
        assert!(is_known(&network));
        // It gets writes again, and passes its own on.
        network.put(1, "k", "to it", Ack::Local);
        network.put(2, "l", "from it", Ack::Local);
        network.run(100);
        assert_eq!(network.values("k"), vec![Some("to it".into()); 6]);
        assert_eq!(network.values("l"), vec![Some("from it".into()); 6]);
        // Nobody holds the goodbye against it later.
        network.run(80_000);
        assert!(is_seen(&network, true) && is_known(&network), "{drained_ms} ms");
    }
}

#[test]
fn drained_node_serves_values_for_a_while_only() {
    let mut network = Network::six();
    network.input(address(2), Input::Drain);
    network.run(9_000);
    let while_asked = ReadPolicy { misses_are_authoritative: false, values_are_current: true };
    assert_eq!(policy(&network, 2), while_asked);
    network.run(2_000);
    assert_eq!(policy(&network, 2), ReadPolicy::default());
}

#[test]
fn node_that_was_forgotten_while_drained_is_found_again() {
    let mut network = Network::six();
    network.input(address(2), Input::Drain);
    network.run(1_000);
    network.frozen.insert(address(2));
    network.run(5_000);
    assert!(!network.nodes[&address(1)].status(network.now()).nodes.iter().any(|n| n.id.0 == 2));
    network.frozen.clear();
    network.run(1_000);
    network.input(address(2), Input::Undrain);
    network.run_until(5_000, |network| {
        is_seen(network, true) && policy(network, 2).is_miss_authoritative()
    });
}

#[test]
fn drains_and_undrains_in_a_row_end_as_the_last_one_says() {
    let mut network = Network::six();
    for _ in 0..20 {
        network.inputs(address(2), [Input::Undrain, Input::Drain, Input::Drain]);
        network.run(7);
        network.input(address(2), Input::Undrain);
        network.run(11);
    }
    network.run_until(5_000, |network| is_seen(network, true));
    network.run_until(5_000, |network| policy(network, 2).is_miss_authoritative());
}

#[test]
fn node_that_is_drained_while_it_starts_continues_its_start() {
    for drained_at_ms in [1, 20, 50, 200] {
        let mut network = Network::default();
        network.start(1, "a", &[]);
        network.run(2_000);
        for n in 0..50 {
            network.put(1, &alloc::format!("k{n}"), "v", Ack::Local);
        }
        network.start(2, "a", &[1]);
        network.run(drained_at_ms);
        network.input(address(2), Input::Drain);
        network.run(3_000);
        assert_eq!(state(&network, 2), NodeState::Leaving);
        network.put(1, "late", "v", Ack::Local);
        network.input(address(2), Input::Undrain);
        network.run_until(9_000, |network| policy(network, 2).is_miss_authoritative());
        assert_eq!(network.values("k7"), [Some("v".into()), Some("v".into())]);
        assert_eq!(network.values("late"), [Some("v".into()), Some("v".into())]);
    }
}

#[test]
fn drained_node_that_shuts_down_is_not_undrained() {
    let mut network = Network::six();
    network.input(address(2), Input::Drain);
    network.run(3_000);
    network.input(address(2), Input::Shutdown);
    network.input(address(2), Input::Undrain);
    assert_eq!(state(&network, 2), NodeState::Leaving);
    assert!(!network.nodes[&address(2)].status(network.now()).is_drained);
    // Neither is one that was never drained.
    network.input(address(3), Input::Shutdown);
    network.inputs(address(3), [Input::Drain, Input::Undrain]);
    assert_eq!(state(&network, 3), NodeState::Leaving);
    network.nodes.remove(&address(2));
    network.run(1_500);
    assert!(!network.nodes[&address(1)].status(network.now()).nodes.iter().any(|n| n.id.0 == 2));
}

#[test]
fn drained_node_that_is_suspended_serves_nothing_old() {
    let mut network = Network::six();
    network.input(address(2), Input::Drain);
    network.run(100);
    network.frozen.insert(address(2));
    network.run(5_000);
    network.frozen.clear();
    network.run(1);
    assert_eq!(state(&network, 2), NodeState::Leaving);
    network.input(address(2), Input::Undrain);
    assert_eq!(policy(&network, 2), ReadPolicy::default());
    network.run_until(5_000, |network| policy(network, 2).is_miss_authoritative());
}

#[test]
fn what_a_drained_node_misses_is_reported_only_after_its_return() {
    let mut network = Network::six();
    network.input(address(2), Input::Drain);
    network.run(50);
    network.put(1, "k", "v", Ack::Local);
    network.run(600);
    let missed = |network: &Network| {
        let node = &network.nodes[&address(1)];
        let status = node.status(network.now());
        let row = status.nodes.into_iter().find(|row| row.id == Incarnation(2)).expect("a member");
        (node.replication.missed_since(row.id).is_some(), row.replication_lag_ms)
    };
    assert_eq!(missed(&network), (true, None), "it is not behind: it is out");
    network.input(address(2), Input::Undrain);
    network.run_until(5_000, |network| is_seen(network, true));
    network.run_until(5_000, |network| missed(network) == (false, None));
}
