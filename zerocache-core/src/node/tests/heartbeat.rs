//! Heartbeats, echoes and the failure detector.

use alloc::vec::Vec;

use bytes::Bytes;

use super::{
    network::{Network, address},
    prelude::*,
};
use crate::wire::{Datagram, DatagramKind, Session, SessionKey, features};

fn counts(network: &Network, n: u64) -> DatagramCounts {
    network.nodes[&address(n)].datagram_counts()
}

fn downs(network: &Network) -> usize {
    let downs = network.events.iter().filter(|(_, event)| matches!(event, Event::MemberDown(..)));
    downs.count()
}

#[test]
fn silent_crash_is_detected_by_all_nodes_in_time() {
    for without in [0, features::DATAGRAMS] {
        let mut network = Network::default();
        network.without = without;
        let mut network = network.with_six();
        assert_eq!(counts(&network, 1).heartbeats_sent > 0, without == 0);
        network.frozen.insert(address(3));
        let others = [1, 2, 4, 5, 6];
        let noticed = |network: &Network| others.iter().all(|n| !network.members(*n).contains(&3));
        network.run_until(2_700, noticed);
        assert_eq!(downs(&network), 5);
        network.frozen.clear();
        let back = |network: &Network| others.iter().all(|n| network.members(*n).contains(&3));
        network.run_until(2_000, back);
    }
}

#[test]
fn pause_of_one_second_removes_no_member() {
    let mut network = Network::six();
    for _ in 0..10 {
        network.frozen.insert(address(2));
        network.run(1_000);
        network.frozen.clear();
        network.run(1_000);
    }
    assert_eq!(downs(&network), 0);
}

#[test]
fn heavy_loss_removes_no_member() {
    let mut network = Network::six();
    (network.loss_percent, network.call_loss_percent) = (30, 60);
    network.run(120_000);
    assert_eq!(downs(&network), 0);
    assert_eq!(network.members(1), [2, 3, 4, 5, 6]);
}

#[test]
fn very_lossy_link_does_not_flap() {
    let mut network = Network::six();
    (network.loss_percent, network.call_loss_percent) = (75, 80);
    network.run(300_000);
    for from in 1..=6 {
        for to in (1..=6).filter(|to| *to != from) {
            let (downs, _) = network.changes(from, to);
            assert!(downs <= 8, "node {from} lost node {to} {downs} times in five minutes");
        }
    }
}

#[test]
fn one_way_link_is_down_only_for_its_two_ends() {
    let mut network = Network::six();
    network.cut.insert((address(1), address(3)));
    let cut =
        |network: &Network| !network.members(1).contains(&3) && !network.members(3).contains(&1);
    network.run_until(2_700, cut);
    network.run(60_000);
    for from in 1..=6 {
        for to in (1..=6).filter(|to| *to != from) {
            let expected = usize::from([(1, 3), (3, 1)].contains(&(from, to)));
            assert_eq!(network.changes(from, to), (expected, 1), "node {from} of node {to}");
        }
    }
    network.cut.clear();
    network.run_until(2_000, |network| !cut(network) && network.members(3).contains(&1));
}

#[test]
fn connection_is_enough_where_datagrams_are_dropped() {
    let mut network = Network::six();
    network.loss_percent = 100;
    network.run(30_000);
    assert_eq!(downs(&network), 0);
    network.frozen.insert(address(3));
    network.run_until(3_000, |network| !network.members(1).contains(&3));
    network.frozen.clear();
    // Datagrams passed before: the return waits some seconds for them to pass again.
    network.run_until(7_000, |network| network.members(1).contains(&3));
    network.frozen.insert(address(3));
    network.run_until(3_000, |network| !network.members(1).contains(&3));
    network.frozen.clear();
    network.run_until(2_000, |network| network.members(1).contains(&3));
}

#[test]
fn member_that_only_echoes_is_finally_out() {
    let mut network = Network::six();
    network.refusing.insert(address(3), RefusalCode::BadMessage);
    network.run(20_000);
    assert!(network.members(1).contains(&3));
    network.run(13_000);
    assert!(!network.members(1).contains(&3));
    network.run(30_000);
    assert_eq!(network.changes(1, 3), (1, 1));
}

#[test]
fn invalid_datagrams_are_dropped_and_counted() {
    let mut network = Network::six();
    let mut feed = |bytes: Bytes| {
        let before = counts(&network, 1);
        let sent = network.datagrams;
        network.input(address(1), Input::Datagram { from: address(2), bytes });
        (before, counts(&network, 1), network.datagrams - sent)
    };
    let key = Session::derive(&[1; 32], Incarnation(2), None).key;
    let beat = Datagram {
        from: Incarnation(2),
        to: Incarnation(1),
        kind: DatagramKind::Heartbeat,
        generation: None,
        sequence: 1_000_000,
        time_ms: 5,
        content: Bytes::new(),
    };
    let (before, after, sent) = feed(beat.seal(&key));
    assert_eq!((after.heartbeats_answered, sent), (before.heartbeats_answered + 1, 1));
    let (before, after, sent) = feed(beat.seal(&key));
    assert_eq!(
        (after.replayed, after.heartbeats_answered, sent),
        (before.replayed + 1, before.heartbeats_answered, 0)
    );
    let later = Datagram { sequence: 1_000_001, ..beat.clone() };
    let (before, after, sent) = feed(later.seal(&SessionKey::from_bytes([0; 32])));
    assert_eq!(
        (after.unauthenticated, after.heartbeats_answered, sent),
        (before.unauthenticated + 1, before.heartbeats_answered, 0)
    );
    let other = Datagram { to: Incarnation(9), ..later.clone() };
    let (before, after, sent) = feed(other.seal(&key));
    assert_eq!((after.misdirected, sent), (before.misdirected + 1, 0));
    let (before, after, sent) = feed(Bytes::from_static(b"anything"));
    assert_eq!((after.malformed, sent), (before.malformed + 1, 0));
    // Datagrams to node 2 are sealed with the key that node 2 gave.
    let own = Session::derive(&[2; 32], Incarnation(1), None).key;
    let echo = Datagram { kind: DatagramKind::Echo, time_ms: 100, ..later };
    let (before, after, _) = feed(Datagram { sequence: 3, ..echo.clone() }.seal(&own));
    assert_eq!(
        (after.replayed, after.heartbeats_acknowledged),
        (before.replayed + 1, before.heartbeats_acknowledged),
        "sent long ago"
    );
    let (before, after, _) = feed(Datagram { time_ms: 3_000, ..echo.clone() }.seal(&own));
    assert_eq!(
        (after.replayed, after.heartbeats_acknowledged),
        (before.replayed + 1, before.heartbeats_acknowledged),
        "never sent"
    );
    let (before, after, _) = feed(Datagram { from: Incarnation(77), ..echo }.seal(&own));
    assert_eq!(
        (after.misdirected, after.heartbeats_acknowledged),
        (before.misdirected + 1, before.heartbeats_acknowledged)
    );
}

#[test]
fn heartbeat_numbers_do_not_repeat_after_a_member_returns() {
    let mut network = Network::six();
    let lives: Vec<_> = network.members(1);
    // Only removal and a new handshake make a new failure detector; the other side still knows the old one.
    let id = Incarnation(2);
    network.nodes.get_mut(&address(1)).unwrap().membership.view.remove(id);
    network.run(10_000);
    assert_eq!(network.members(1), lives);
    let echoes = |network: &Network| {
        let node = &network.nodes[&address(1)];
        node.membership
            .view
            .member(id)
            .is_some_and(|m| m.detector.is_echoing(network.now().mono, 500))
    };
    assert!(echoes(&network));
}

/// A region of so many nodes that members take turns.
fn large_region() -> Network {
    let mut network = Network::default();
    for n in 1..=64 {
        network.start(n, "a", &[1]);
    }
    network.run_until(10_000, |network| (1..=64).all(|n| network.members(n).len() == 63));
    network.run(3_000);
    network
}

#[test]
fn members_of_a_large_region_take_turns() {
    let mut network = large_region();
    let before: Vec<_> = (1..=64).map(|n| counts(&network, n)).collect();
    let datagrams = network.datagrams;
    network.run(10_000);
    for (n, before) in (1..=64).zip(before) {
        let after = counts(&network, n);
        let sent = after.heartbeats_sent - before.heartbeats_sent;
        // Sixteen every 100 ms, and a partner of gossip now and then.
        assert!((1_590..=1_650).contains(&sent), "node {n}: {sent}");
        assert!(after.heartbeats_acknowledged - before.heartbeats_acknowledged >= sent - 20);
        assert_eq!(after.replayed, before.replayed);
    }
    // And an echo of each.
    assert!(network.datagrams - datagrams < 64 * 2 * 1_650);
    assert_eq!(downs(&network), 0);
}

#[test]
fn silent_member_of_a_large_region_is_out_after_eight_heartbeats() {
    let mut network = large_region();
    network.loss_percent = 10;
    network.run(10_000);
    assert_eq!(downs(&network), 0, "a tenth of the datagrams is lost");
    network.loss_percent = 0;
    network.frozen.insert(address(7));
    let notices =
        |network: &Network| (1..=64).filter(|n| *n != 7).all(|n| !network.members(n).contains(&7));
    let ms = network.run_until(4_000, notices);
    assert!(ms > 2_900, "out after {ms} ms");
    assert_eq!(downs(&network), 63);
    network.frozen.clear();
    let back =
        |network: &Network| (1..=64).filter(|n| *n != 7).all(|n| network.members(n).contains(&7));
    network.run_until(4_000, back);
    assert_eq!(downs(&network), 63);
}
