//! Outdated nodes, and what a node claims to have while it, or its source, is one.

use alloc::string::String;

use super::{
    network::{Network, address},
    prelude::*,
    repair::{counts, set_links, state},
    starts::{all_have, held, named, put_all},
};
use crate::wire::Ack;

/// Runs until a node has copied so often because it was outdated.
fn run_until_resynced(network: &mut Network, n: u64, most_ms: u64) {
    let is_resynced = |network: &Network| {
        counts(network, n).full_resyncs > 0 && network.nodes[&address(n)].has_all_data()
    };
    network.run_until(most_ms, is_resynced);
}

/// Lets node 3, which was cut off, reach node 1 and then node 2.
fn join_third(network: &mut Network, ms: u64) {
    network.set_link(1, 3, true);
    network.run(1_000);
    network.set_link(2, 3, true);
    network.run(ms);
}

/// Whether three nodes hold as many of these keys.
fn hold_alike(network: &Network, names: &[String]) -> bool {
    let held = [1, 2, 3].map(|n| held(network, n, names));
    held[1..] == [held[0]; 2]
}

#[test]
fn outdated_node_keeps_what_it_copied_while_another_round_drops() {
    // One of the moments at which the node meets the second one has both rounds under way at once.
    for after_ms in (0..1_200).step_by(100) {
        let mut network = Network::default();
        network.retention_ms = Some(60_000);
        let (right, wrong) = (named("right", 300), named("wrong", 300));
        set_links(&mut network, &[1, 2, 3], &[1, 2, 3], false);
        for n in [1, 2, 3] {
            network.start(n, "a", &[1, 2, 3]);
            network.run(5_000);
        }
        put_all(&mut network, 1, &right, 10);
        put_all(&mut network, 3, &wrong, 10);
        network.run(100_000);
        network.set_link(2, 3, true);
        network.run(after_ms);
        network.set_link(1, 3, true);
        network.run_until(20_000, |network| counts(network, 3).entries_dropped > 0);
        network.frozen.insert(address(2));
        network.run(600);
        network.frozen.clear();
        network.run(5_000);
        network.set_link(1, 2, true);
        network.run(20_000);
        for n in [1, 2, 3] {
            assert_eq!(held(&network, n, &right), 300, "node {n}, {after_ms} ms");
            assert_eq!(held(&network, n, &wrong), 0, "node {n}, {after_ms} ms");
        }
        assert!(all_have(&network, &right));
    }
}

#[test]
fn copy_counts_for_what_its_source_had_then() {
    let mut network = Network::default();
    network.retention_ms = Some(60_000);
    let (old, few) = (named("old", 200), named("few", 5));
    set_links(&mut network, &[1], &[2, 3], false);
    network.start(1, "a", &[2, 3]);
    network.run(5_000);
    put_all(&mut network, 1, &old, 10);
    network.run(100_000);
    network.start(2, "a", &[1]);
    network.run(35_000);
    put_all(&mut network, 2, &few, 10);
    network.run(1_000);
    network.start(3, "a", &[2]);
    let has_copied =
        |(at, event): &(_, Event)| *at == address(3) && matches!(event, Event::CopyComplete { .. });
    network.run_until(5_000, |network| network.events.iter().any(has_copied));
    // The source gets what it lacks before it has told what it had.
    network.set_link(2, 3, false);
    network.set_link(1, 2, true);
    run_until_resynced(&mut network, 2, 30_000);
    network.run(2_000);
    network.set_link(2, 3, true);
    network.run(30_000);
    assert_eq!(held(&network, 3, &old), 200);
    network.set_link(1, 3, true);
    network.run(15_000);
    assert!(all_have(&network, &old) && all_have(&network, &few));
}

#[test]
fn round_with_a_node_that_was_suspended_brings_only_what_is_recent() {
    let mut network = Network::default();
    network.retention_ms = Some(60_000);
    network.start(1, "a", &[2]);
    network.start(2, "a", &[1]);
    network.run(3_000);
    let names = named("old", 200);
    put_all(&mut network, 1, &names, 10);
    network.run(100_000);
    network.frozen.insert(address(1));
    network.nodes.remove(&address(2));
    network.start_in("test", 2, 12, "a", &[1]);
    network.run(10_000);
    assert_eq!(state(&network, 2), NodeState::InSync);
    // It warms until it has noticed that the earlier process is gone.
    network.frozen.clear();
    network.run(15_000);
    assert!(all_have(&network, &names));
}

#[test]
fn value_that_is_about_to_be_too_old_for_rounds_reaches_all_or_none() {
    for cut_ms in (50_000..61_000).step_by(250) {
        let mut network = Network::default();
        network.retention_ms = Some(60_000);
        set_links(&mut network, &[1, 2], &[3], false);
        for n in [1, 2] {
            network.start(n, "a", &[1, 2, 3]);
        }
        network.run(5_000);
        network.start(3, "a", &[1, 2]);
        network.run(2_000);
        let (edge, late) = (named("edge", 20), named("late", 20));
        put_all(&mut network, 3, &edge, 10);
        network.run(cut_ms);
        put_all(&mut network, 3, &late, 10);
        network.run(1_000);
        join_third(&mut network, 20_000);
        assert!(hold_alike(&network, &edge), "{cut_ms} ms");
        assert!(all_have(&network, &late), "{cut_ms} ms");
    }
}

#[test]
fn delete_that_its_source_lacks_does_not_hide_what_an_outdated_node_copies() {
    // Some of the deletes reach the source, some are about to be too old for that, and some are too old.
    for cut_ms in (40_000..62_000).step_by(500) {
        let mut network = Network::default();
        network.retention_ms = Some(60_000);
        let names = named("k", 20);
        for n in [1, 2, 3] {
            network.start(n, "a", &[1, 2, 3]);
        }
        network.run(3_000);
        put_all(&mut network, 1, &names, 10);
        network.run(1_000);
        set_links(&mut network, &[1, 2], &[3], false);
        for name in &names {
            network.write(3, name, WriteOp::Delete, Ack::Local);
        }
        network.run(cut_ms);
        join_third(&mut network, 80_000);
        assert!(hold_alike(&network, &names), "{cut_ms} ms");
    }
}

#[test]
fn nodes_of_which_none_is_outdated_compare_the_edge_of_their_window() {
    let mut network = Network::default();
    network.retention_ms = Some(18_000);
    for n in [1, 2] {
        network.start(n, "a", &[1, 2]);
    }
    network.run(30_000);
    network.set_link(1, 2, false);
    let names = named("edge", 20);
    put_all(&mut network, 1, &names, 10);
    network.run(13_000);
    network.set_link(1, 2, true);
    network.run(5_000);
    assert!(all_have(&network, &names));
}

#[test]
fn edge_of_a_short_window_is_a_quarter_of_it() {
    let mut network = Network::default();
    network.retention_ms = Some(30_000);
    for n in [1, 2, 3] {
        network.start(n, "a", &[1, 2, 3]);
    }
    network.run(30_000);
    set_links(&mut network, &[1, 2], &[3], false);
    network.run(24_000);
    let names = named("late", 20);
    put_all(&mut network, 3, &names, 10);
    network.run(16_000);
    set_links(&mut network, &[1, 2], &[3], true);
    network.run(10_000);
    assert!(counts(&network, 3).full_resyncs > 0);
    assert!(all_have(&network, &names));
}
