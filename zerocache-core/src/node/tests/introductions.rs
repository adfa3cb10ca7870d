//! Introductions by nodes that respond, and do not count as reachable yet.

use alloc::vec;

use super::{
    claims::{hello, info},
    network::{Network, address, nowhere},
    prelude::*,
};
use crate::wire::features;

/// Two nodes that respond to each other's calls, and wait for their datagrams to pass again.
fn two_that_are_not_back_yet() -> Network {
    let mut network = Network::default();
    network.start(1, "a", &[]);
    network.start(2, "a", &[1]);
    network.run(3_000);
    network.set_link(1, 2, false);
    network.run(6_000);
    network.loss_percent = 100;
    network.set_link(1, 2, true);
    network.run(2_000);
    for (n, other) in [(1, 2), (2, 1)] {
        assert_eq!(network.members(n), []);
        let member = network.nodes[&address(n)].membership.view.member(Incarnation(other));
        assert!(member.is_some_and(|member| member.detector.is_responding()));
    }
    network
}

#[test]
fn introductions_of_nodes_that_are_not_back_yet_come_to_an_end() {
    let mut network = two_that_are_not_back_yet();
    network.dials.clear();
    network.call(9, Some(2), hello(features::ALL, info(2, "a", vec![address(2)])));
    network.run(2_000);
    assert!(network.dials.len() <= 6, "{} handshakes", network.dials.len());
    network.run_until(4_000, |network| network.members(1) == [2] && network.members(2) == [1]);
}

#[test]
fn member_that_moves_before_it_is_back_is_dialled_once_it_falls_silent() {
    let mut network = two_that_are_not_back_yet();
    network.dials.clear();
    // It introduces itself once, before anything shows that it is no longer where it was.
    network.nodes.remove(&address(2));
    network.call(9, Some(2), hello(features::ALL, info(2, "a", vec![nowhere(1)])));
    network.run(1);
    assert!(!network.dials.iter().any(|(_, to)| *to == nowhere(1)), "it responded lately");
    network.run(2_500);
    assert!(network.dials.contains(&(address(1), nowhere(1))), "{:?}", network.dials);
}
