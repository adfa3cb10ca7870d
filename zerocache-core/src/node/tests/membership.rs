//! Members: joining, leaving, overload, and watching the view.

use alloc::vec::Vec;
use core::net::SocketAddr;

use super::{
    network::{Network, address, key},
    prelude::*,
};
use crate::wire::cluster_id;

#[test]
fn one_seed_is_enough_for_a_complete_view() {
    let network = Network::six();
    for n in 1..=6 {
        let others: Vec<u64> = (1..=6).filter(|other| *other != n).collect();
        assert_eq!(network.members(n), others, "as node {n} sees it");
        assert_eq!(network.nodes[&address(n)].state(), NodeState::InSync);
    }
}

#[test]
fn single_node_is_in_sync_at_once() {
    let mut network = Network::default();
    network.start(1, "a", &[]);
    network.run(1);
    assert_eq!(network.nodes[&address(1)].state(), NodeState::InSync);
}

#[test]
fn other_cluster_is_refused_on_every_path() {
    let mut network = Network::default();
    network.start_in("production", 1, 1, "a", &[]);
    network.start_in("staging", 2, 2, "a", &[1]);
    network.run(3_000);
    assert!(network.members(1).is_empty() && network.members(2).is_empty());
    assert!(network.events.iter().any(|(_, event)| matches!(event, Event::OtherCluster { .. })));
    let envelope = Envelope { cluster: cluster_id("staging"), ..Envelope::default() };
    let id = RequestId(u64::MAX);
    let message = RequestMessage { envelope, request: Request::Get { key: key("k") } };
    network.input(
        address(1),
        Input::Request {
            id,
            connection: ConnectionId(0),
            caller: Caller::unauthenticated(None),
            message,
        },
    );
    let Response::Refused(refusal) = &network.answers[&id] else { panic!("answered a stranger") };
    assert_eq!(refusal.code, RefusalCode::WrongCluster);
}

#[test]
fn restarted_process_replaces_its_old_incarnation() {
    let mut network = Network::six();
    network.start_in("test", 2, 22, "a", &[1]);
    network.run(3_000);
    assert_eq!(network.members(1), [3, 4, 5, 6, 22]);
    assert_eq!(network.members(5), [1, 3, 4, 6, 22]);
}

#[test]
fn leaving_node_is_out_at_once_and_forgotten_after_its_exit() {
    let mut network = Network::six();
    network.input(address(2), Input::Shutdown);
    network.run(50);
    for n in [1, 3, 4, 5, 6] {
        assert!(!network.members(n).contains(&2), "as node {n} sees it");
    }
    network.nodes.remove(&address(2));
    network.run(1_500);
    let forgotten = |(_, event): &&(SocketAddr, Event)| matches!(event, Event::MemberForgotten(info) if info.incarnation.0 == 2);
    assert_eq!(network.events.iter().filter(forgotten).count(), 5);
    let down = network.events.iter().filter(|(_, event)| matches!(event, Event::MemberDown(..)));
    assert_eq!(down.count(), 0);
}

#[test]
fn stray_goodbye_changes_nothing() {
    let mut network = Network::six();
    let envelope =
        Envelope { cluster: cluster_id("test"), from: Some(Incarnation(2)), ..Envelope::default() };
    let message = RequestMessage { envelope, request: Request::Goodbye };
    network.input(
        address(1),
        Input::Request {
            id: RequestId(u64::MAX),
            connection: ConnectionId(0),
            caller: Caller::unauthenticated(None),
            message,
        },
    );
    network.run(3_000);
    assert!(network.members(1).contains(&2));
}

#[test]
fn silent_seed_does_not_delay_readiness() {
    let mut network = Network::default();
    network.start(9, "a", &[]);
    network.frozen.insert(address(9));
    network.start(1, "a", &[9, 8]);
    network.run(900);
    assert_eq!(network.nodes[&address(1)].state(), NodeState::Warming);
    network.run(200);
    assert_eq!(network.nodes[&address(1)].state(), NodeState::InSync);
}

#[test]
fn overloaded_member_stays_a_member() {
    let mut network = Network::six();
    network.refusing.insert(address(2), RefusalCode::Overloaded);
    network.run(8_000);
    for n in [1, 3, 4, 5, 6] {
        assert!(network.members(n).contains(&2), "as node {n} sees it");
    }
    // In the end it may as well be a gateway that speaks for a dead node, and a node that takes
    // nothing is of no use although it echoes.
    network.run(26_000);
    assert!(!network.members(1).contains(&2));
    network.refusing.clear();
    network.run(2_000);
    assert!(network.members(1).contains(&2));
}

#[test]
fn misses_of_a_leaving_node_are_not_authoritative() {
    let mut network = Network::six();
    network.input(address(2), Input::Shutdown);
    let node = &network.nodes[&address(2)];
    let missed = read(&node.replica.store, &key("k"), network.now(), node.read_policy());
    assert_eq!(missed, Response::NotFound { warming: true, known: 0 });
}

fn watch(network: &mut Network, n: u64, id: u64, view: u64) {
    let envelope = Envelope { cluster: cluster_id("test"), ..Envelope::default() };
    let message = RequestMessage { envelope, request: Request::Watch { view } };
    network.input(
        address(n),
        Input::Request {
            id: RequestId(id),
            connection: ConnectionId(0),
            caller: Caller::unauthenticated(None),
            message,
        },
    );
}

fn told(network: &Network, id: u64) -> Option<u64> {
    match network.answers.get(&RequestId(id))? {
        Response::Pong { view, .. } => Some(*view),
        other => panic!("{other:?}"),
    }
}

#[test]
fn watcher_is_answered_when_the_view_changes() {
    let mut network = Network::six();
    const FIRST: u64 = 1 << 50;
    watch(&mut network, 1, FIRST, 0);
    let view = told(&network, FIRST).expect("it knew nothing");
    watch(&mut network, 1, FIRST + 1, view);
    network.run(9_000);
    assert_eq!(told(&network, FIRST + 1), None);
    network.run(1_100);
    assert_eq!(told(&network, FIRST + 1), Some(view), "nothing changed for ten seconds");
    watch(&mut network, 1, FIRST + 2, view);
    network.frozen.insert(address(3));
    network.run_until(2_700, |network| told(network, FIRST + 2).is_some());
    let without = told(&network, FIRST + 2).expect("a view");
    assert!(without != view && !network.members(1).contains(&3));
    watch(&mut network, 1, FIRST + 3, without);
    network.frozen.clear();
    network.run_until(2_000, |network| told(network, FIRST + 3) == Some(view));
    // A leaving node tells its callers.
    watch(&mut network, 1, FIRST + 4, view);
    network.input(address(1), Input::Shutdown);
    assert!(told(&network, FIRST + 4).is_some());
    watch(&mut network, 1, FIRST + 5, view);
    assert!(told(&network, FIRST + 5).is_some());
}

#[test]
fn cached_view_matches_the_members() {
    let mut network = Network::six();
    network.frozen.insert(address(3));
    network.input(address(2), Input::Shutdown);
    for _ in 0..400 {
        network.run(10);
        for node in network.nodes.values_mut() {
            let own = node.local.config.info.clone();
            let kept = (
                node.membership.view.other_regions(),
                node.membership.view.fingerprint(own.incarnation),
            );
            node.membership.view.refresh(&own.region);
            assert_eq!(
                kept,
                (
                    node.membership.view.other_regions(),
                    node.membership.view.fingerprint(own.incarnation)
                ),
                "node {} at {} ms",
                own.incarnation,
                network.now_ms
            );
        }
    }
}
