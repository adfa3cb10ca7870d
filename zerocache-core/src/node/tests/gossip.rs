//! Gossip and contacts, on the virtual network.

use alloc::{collections::BTreeSet, format, vec::Vec};

use super::{
    network::{Network, address},
    prelude::*,
};
use crate::wire::Ack;
use crate::wire::features;

/// Starts `count` nodes in this many regions at the same moment, all with node 1 as the seed.
fn crowd(mut network: Network, count: u64, regions: u64) -> Network {
    for n in 1..=count {
        network.start(n, &format!("r{}", n % regions), &[1]);
    }
    network
}

/// The nodes that exist, as one node sees it.
fn existing(network: &Network, n: u64) -> BTreeSet<u64> {
    let node = &network.nodes[&address(n)];
    node.status(network.now()).nodes.iter().map(|node| node.id.0).collect()
}

fn all_know(network: &Network, count: u64) -> bool {
    let all: BTreeSet<u64> = (1..=count).collect();
    (1..=count).all(|n| existing(network, n) == all)
}

#[test]
fn nodes_that_start_at_once_form_one_cluster() {
    for without in [0, features::DATAGRAMS, features::GOSSIP] {
        let mut network = Network::default();
        network.without = without;
        let mut network = crowd(network, 24, 6);
        network.run_until(5_000, |network| all_know(network, 24));
    }
}

#[test]
fn contacts_are_the_own_region_and_a_few_of_each_other() {
    let mut network = crowd(Network::default(), 40, 2);
    network.run_until(8_000, |network| all_know(network, 40));
    network.run(10_000);
    for n in 1..=40 {
        let watched = network.members(n);
        let local = watched.iter().filter(|other| *other % 2 == n % 2).count();
        assert_eq!((local, watched.len() - local), (19, 4), "node {n}: {watched:?}");
    }
    // A write goes through a relay to every node all the same.
    network.put(1, "k", "v", Ack::Local);
    network.run(100);
    assert!(network.values("k").iter().all(Option::is_some));
    // A contact that goes is replaced, and asked for in the meantime.
    let lost = network.members(1).into_iter().find(|other| other % 2 == 0).unwrap();
    network.frozen.insert(address(lost));
    network.run_until(8_000, |network| {
        let members = network.members(1);
        members.iter().filter(|n| *n % 2 == 0).count() == 4 && !members.contains(&lost)
    });
    assert!(existing(&network, 1).contains(&lost));
    network.frozen.clear();
    network.run(10_000);
    let back = network.members(1);
    assert!(back.contains(&lost) && back.iter().filter(|n| *n % 2 == 0).count() == 4, "{back:?}");
    assert!(all_know(&network, 40));
}

#[test]
fn node_that_starts_while_another_leaves_does_not_hear_of_it() {
    let mut network = Network::default();
    network.start(1, "a", &[]);
    network.start(2, "a", &[1]);
    network.run(3_000);
    network.input(address(2), Input::Shutdown);
    network.run(20);
    network.nodes.remove(&address(2));
    network.start(3, "a", &[1]);
    network.run_until(300, |network| network.members(3).contains(&1));
    network.run(100);
    // Nobody is left who could say later that node 2 has gone.
    network.nodes.remove(&address(1));
    network.run(2_000);
    assert!(!existing(&network, 3).contains(&2), "{:?}", existing(&network, 3));
    network.start(4, "a", &[3]);
    network.run_until(3_000, |network| network.members(4) == [3]);
    assert!(!existing(&network, 4).contains(&2), "{:?}", existing(&network, 4));
}

#[test]
fn node_that_left_is_gone_also_for_nodes_that_never_met_it() {
    let mut network = crowd(Network::default(), 24, 2);
    network.run_until(8_000, |network| all_know(network, 24));
    network.run(10_000);
    network.input(address(24), Input::Shutdown);
    network.run(2_000);
    network.nodes.remove(&address(24));
    network.run_until(5_000, |network| all_know(network, 23));
}

#[test]
fn node_that_one_other_reaches_is_not_forgotten() {
    let mut network = Network::default();
    network.without = features::REPAIR | features::DATAGRAMS;
    let mut network = network.with_six();
    for other in [2, 3, 4, 5] {
        network.cut.insert((address(6), address(other)));
    }
    network.run(700_000);
    let all = BTreeSet::from([1, 2, 3, 4, 5, 6]);
    assert!((1..=6).all(|n| existing(&network, n) == all));
    assert_eq!(network.members(6), [1]);
    // When that one does not reach it either it is forgotten, by all.
    network.cut.insert((address(6), address(1)));
    network.run(500_000);
    assert_eq!(existing(&network, 3), all);
    network.run(110_000);
    for n in 1..=5 {
        assert_eq!(existing(&network, n), BTreeSet::from([1, 2, 3, 4, 5]), "node {n}");
    }
}

#[test]
fn separated_halves_find_each_other_again() {
    let mut network = Network::six();
    let halves = [[1, 2, 3], [4, 5, 6]];
    for (one, other) in halves[0].iter().flat_map(|a| halves[1].iter().map(move |b| (*a, *b))) {
        network.cut.insert((address(one), address(other)));
        network.cut.insert((address(other), address(one)));
    }
    network.run(60_000);
    assert_eq!((network.members(1), network.members(5)), ([2, 3].into(), [4, 6].into()));
    network.cut.clear();
    network.run_until(3_000, |network| (1..=6).all(|n| network.members(n).len() == 5));
}

#[test]
fn two_live_nodes_at_one_address_are_reported() {
    let mut network = Network::six();
    // Whoever asks at the address of node 2 gets now the one, now the other.
    let one = network.nodes.remove(&address(2));
    network.start_in("test", 2, 22, "a", &[1]);
    let other = network.nodes.remove(&address(2));
    let mut lives = [one.unwrap(), other.unwrap()];
    for _ in 0..20 {
        lives.rotate_left(1);
        let [first, rest] = lives;
        network.nodes.insert(address(2), first);
        network.run(1_500);
        lives = [network.nodes.remove(&address(2)).unwrap(), rest];
    }
    let reports: Vec<_> = network
        .events
        .iter()
        .filter(|(at, event)| {
            let here =
                matches!(event, Event::AddressConflict { address: at, .. } if *at == address(2));
            here && *at == address(1)
        })
        .collect();
    assert!((1..=6).contains(&reports.len()), "{reports:?}");
    let snapshot = network.nodes[&address(1)].status(network.now());
    assert!(snapshot.address_conflicts >= reports.len() as u64);
}

#[test]
fn introduction_with_the_address_of_a_live_node_is_reported() {
    let mut network = Network::six();
    let greet = |network: &mut Network, n: u64, claims: u64| {
        let mut request = network.nodes[&address(n)].introduction(network.now()).request;
        let Request::Hello(hello) = &mut request else { panic!("an introduction") };
        let info = hello.node.as_mut().unwrap();
        info.addresses = [address(claims)].into();
        info.incarnation = Incarnation(info.incarnation.0 + 100);
        let (_, input) = network.request(request);
        network.input(address(1), input);
        network.nodes[&address(1)].status(network.now()).address_conflicts
    };
    // The one that is asked stands there itself.
    assert_eq!(greet(&mut network, 2, 1), 1);
    // Two others claim an address in turn: one alone may have been started again.
    assert_eq!(greet(&mut network, 2, 77), 1);
    assert_eq!(greet(&mut network, 3, 77), 1);
    assert_eq!(greet(&mut network, 3, 77), 1);
    assert_eq!(greet(&mut network, 2, 77), 2);
}

#[test]
fn node_that_moves_is_reached_at_its_new_address() {
    let mut network = Network::six();
    let moves = network.nodes.remove(&address(2)).unwrap();
    network.nodes.insert(address(22), moves);
    network.input(address(22), Input::AddressesChanged([address(22)].into()));
    let place = |network: &Network, n: u64| {
        let snapshot = network.nodes[&address(n)].status(network.now());
        let moved = snapshot.nodes.into_iter().find(|node| node.id == Incarnation(2));
        moved.filter(|node| node.state.is_some()).and_then(|node| node.address)
    };
    let others = [1, 3, 4, 5, 6];
    network
        .run_until(5_000, |network| others.iter().all(|n| place(network, *n) == Some(address(22))));
    assert_eq!(network.nodes[&address(1)].status(network.now()).address_conflicts, 0);
}

#[test]
fn restart_is_no_address_conflict() {
    let mut network = Network::six();
    for life in 1..5 {
        network.start_in("test", 2, 20 + life, "a", &[1]);
        network.run(3_000);
    }
    let conflict = |(_, event): &(_, Event)| matches!(event, Event::AddressConflict { .. });
    assert!(!network.events.iter().any(conflict));
    assert_eq!(network.members(1), [3, 4, 5, 6, 24]);
    assert_eq!(existing(&network, 1).len(), 6);
}
