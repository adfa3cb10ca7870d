//! Nodes that refuse a node: what it reports, and what a start waits for.

use alloc::{vec, vec::Vec};

use super::{
    network::{Network, address},
    prelude::*,
};
use crate::{access::Denial, cluster::DialRefusal};

const PROTECTED: DialRefusal = DialRefusal::Denied(Denial::Protected);

/// What node 2 reported about node 1.
fn reported(network: &Network) -> Vec<DialRefusal> {
    let events = network.events.iter().filter(|(at, _)| *at == address(2));
    let codes = events.filter_map(|(_, event)| match event {
        Event::PeerRefused { address: of, code, .. } if *of == address(1) => Some(*code),
        _ => None,
    });
    codes.collect()
}

fn refused_by(network: &Network) -> Vec<RefusedPeer> {
    network.nodes[&address(2)].status(network.now()).refused_by
}

/// Node 2 starts beside node 1, which refuses it, and finds it in the configuration or on the network.
fn refused_start(are_configured: bool) -> Network {
    let mut network = Network::default();
    network.start(1, "a", &[]);
    network.refusing.insert(address(1), RefusalCode::Protected);
    network.start_unsettled(2, "a", &[], 20_000);
    let addresses = vec![address(1)];
    network.input(address(2), Input::AddressesProposed { addresses, are_configured });
    network.input(address(2), Input::DiscoveryComplete);
    network
}

fn is_ready(network: &Network) -> bool {
    network.nodes[&address(2)].state() == NodeState::InSync
}

#[test]
fn node_that_a_seed_refuses_waits_before_it_is_ready() {
    let mut network = refused_start(true);
    network.run(19_900);
    assert!(!is_ready(&network) && !network.nodes[&address(2)].misses_are_authoritative());
    assert_eq!(refused_by(&network), [RefusedPeer { address: address(1), code: PROTECTED }]);
    network.run(300);
    assert!(is_ready(&network));
    assert_eq!(reported(&network), [PROTECTED], "once");
    // The dials become rare, and go on.
    network.dials.clear();
    network.run(60_000);
    assert!((5..=7).contains(&network.dials.len()), "{:?}", network.dials);
}

#[test]
fn node_that_is_no_longer_refused_joins_soon() {
    let mut network = refused_start(true);
    network.run(3_000);
    network.refusing.insert(address(1), RefusalCode::BadCredentials);
    network.run(10_000);
    let wrong = DialRefusal::Denied(Denial::Wrong);
    assert_eq!(reported(&network), [PROTECTED, wrong]);
    assert_eq!(refused_by(&network), [RefusedPeer { address: address(1), code: wrong }]);
    network.refusing.clear();
    network.run_until(12_000, is_ready);
    assert_eq!((network.members(2), refused_by(&network)), (vec![1], vec![]));
}

#[test]
fn refusal_by_a_node_that_was_only_announced_delays_nothing() {
    let mut network = refused_start(false);
    network.run(1_000);
    assert!(is_ready(&network));
    assert_eq!(reported(&network), [PROTECTED]);
    assert_eq!(refused_by(&network), [RefusedPeer { address: address(1), code: PROTECTED }]);
}

#[test]
fn member_that_begins_to_refuse_is_reported_and_out() {
    let mut network = Network::default();
    network.start(1, "a", &[]);
    network.start(2, "a", &[1]);
    network.run(3_000);
    network.refusing.insert(address(1), RefusalCode::ExpiredCredentials);
    network.run(40_000);
    let expired = DialRefusal::Denied(Denial::Expired);
    assert_eq!(reported(&network), [expired]);
    assert_eq!(refused_by(&network), [RefusedPeer { address: address(1), code: expired }]);
    assert_eq!(network.members(2), []);
    network.refusing.clear();
    network.run(3_000);
    assert_eq!((network.members(2), refused_by(&network)), (vec![1], vec![]));
}

#[test]
fn reports_of_refusals_are_bounded() {
    let mut network = Network::six();
    for n in 20..40 {
        network.start(n, "a", &[]);
        network.refusing.insert(address(n), RefusalCode::Protected);
    }
    let addresses: Vec<_> = (20..40).map(address).collect();
    network.input(
        address(2),
        Input::AddressesProposed { addresses: addresses.clone(), are_configured: false },
    );
    network.run(60_000);
    let reports = network.events.iter().filter(|(_, e)| matches!(e, Event::PeerRefused { .. }));
    assert_eq!(reports.count(), 16, "no more at a time");
    assert_eq!(refused_by(&network).len(), 20);
}
