//! Faults that remove a node from the rotation of others, and faults that do not; on a network with
//! links that can be cut.

use std::time::Duration;

use zerocache_tests::namespace::run_with_network;
use zerocache_tests::net::Net;
use zerocache_tests::reliability::detection::{self, Death};
use zerocache_tests::reliability::steadiness::{self, Changes};

/// Two nodes of one region and one of another.
const SIZES: [usize; 2] = [2, 1];

fn dies_and_comes_back(death: Death) {
    let mut net = Net::start(&SIZES);
    let found = detection::measure(&mut net, 1, death);
    assert!(found.out_of_nodes.is_some(), "it stays in the rotation of nodes: {found:?}");
    assert!(found.out_of_client.is_some(), "it stays in the rotation of the client: {found:?}");
    assert!(found.back_in_nodes.is_some(), "it does not come back to the nodes: {found:?}");
    assert!(found.back_in_client.is_some(), "it does not come back to the client: {found:?}");
}

#[test]
fn killed_node_leaves_every_rotation_and_returns() {
    run_with_network("killed_node_leaves_every_rotation_and_returns", || {
        dies_and_comes_back(Death::Killed);
    });
}

#[test]
fn stopped_node_leaves_every_rotation_and_returns() {
    run_with_network("stopped_node_leaves_every_rotation_and_returns", || {
        dies_and_comes_back(Death::Stopped);
    });
}

#[test]
fn black_holed_node_leaves_every_rotation_and_returns() {
    run_with_network("black_holed_node_leaves_every_rotation_and_returns", || {
        dies_and_comes_back(Death::BlackHoled);
    });
}

#[test]
fn short_pauses_remove_no_node() {
    run_with_network("short_pauses_remove_no_node", || {
        let mut net = Net::start(&SIZES);
        let changes = steadiness::pausing(&mut net, Duration::from_millis(1_000), 4);
        assert_eq!(changes, Changes::default());
    });
}

#[test]
fn light_loss_removes_no_node_where_only_tcp_passes() {
    run_with_network("light_loss_removes_no_node_where_only_tcp_passes", || {
        let mut net = Net::start(&SIZES);
        let changes = steadiness::lossy(&mut net, 5, true, Duration::from_secs(10));
        assert_eq!(changes, Changes::default());
    });
}

#[test]
fn one_way_link_affects_only_its_ends_and_does_not_flap() {
    run_with_network("one_way_link_affects_only_its_ends_and_does_not_flap", || {
        let mut net = Net::start(&SIZES);
        let found = steadiness::one_way(&mut net, 0, 2, Duration::from_secs(8));
        assert_eq!(found.others, Changes::default());
        assert_eq!(found.apart, [true, true]);
        assert_eq!(found.ends, Changes { out: 2, back: 0 });
    });
}

#[test]
fn heavy_loss_removes_no_node_where_datagrams_pass() {
    run_with_network("heavy_loss_removes_no_node_where_datagrams_pass", || {
        let mut net = Net::start(&SIZES);
        let changes = steadiness::lossy(&mut net, 30, false, Duration::from_secs(10));
        assert_eq!(changes, Changes::default());
    });
}
