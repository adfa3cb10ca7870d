//! Who gets the key for datagrams in the name of a node, and when.

use super::{
    network::{Network, address, nowhere},
    prelude::*,
};
use crate::wire::{Datagram, DatagramKind, Hello, NodeInfo, Session, SessionKey, features};

/// The handshake of a caller with node 1, in a name of its choice, and whether it gets a key.
fn hello(network: &mut Network, caller: Caller, name: u64) -> Response {
    let info = NodeInfo {
        incarnation: Incarnation(name),
        region: "a".into(),
        zone: None,
        addresses: [address(name)].into(),
        state: NodeState::InSync,
        bytes_max: 1,
        name: None,
        replicas: crate::cluster::Replicas::All,
    };
    let (id, input) = network.request(Request::Hello(Box::new(Hello {
        features: features::ALL,
        node: Some(info.clone()),
        ..Hello::of_client("test", &info.region, 1)
    })));
    let Input::Request { message, .. } = input else { panic!("no request") };
    let connection = ConnectionId(77);
    network.input(address(1), Input::Request { id, connection, caller, message });
    network.answers[&id].clone()
}

fn key_of(response: Response) -> Option<Session> {
    match response {
        Response::Hello(hello) => hello.session,
        other => panic!("{other:?}"),
    }
}

fn is_echoing(network: &Network, at: u64, id: u64) -> bool {
    let member = network.nodes[&address(at)].membership.view.member(Incarnation(id));
    member.is_some_and(|member| member.detector.is_echoing(network.now().mono, 300))
}

#[test]
fn only_the_node_itself_gets_a_key() {
    let mut network = Network::six();
    let stranger = Caller::unauthenticated(Some(nowhere(9).ip()));
    let own_host = Caller::unauthenticated(Some(address(2).ip()));
    let unknown = Caller::unauthenticated(None);
    assert_eq!(key_of(hello(&mut network, stranger, 2)), None);
    assert_eq!(key_of(hello(&mut network, unknown, 2)), None);
    assert_eq!(key_of(hello(&mut network, own_host, 77)), None, "no member");
    assert!(key_of(hello(&mut network, own_host, 2)).is_some());
    // Who has proven to be the node gets it from anywhere, and no other name helps.
    let proven = Caller { identity: Some(Incarnation(2)), ..stranger };
    assert!(key_of(hello(&mut network, proven, 2)).is_some());
    let other = Caller { identity: Some(Incarnation(3)), ..own_host };
    assert!(matches!(hello(&mut network, other, 2), Response::Refused(_)));
    let client = Caller::client(Some(address(2).ip()));
    assert!(matches!(hello(&mut network, client, 2), Response::Refused(_)));
}

#[test]
fn heartbeats_begin_soon_after_nodes_meet() {
    for regions in [["a", "a"], ["a", "b"]] {
        let mut network = Network::default();
        network.start(1, regions[0], &[]);
        network.run(3_000);
        network.start(2, regions[1], &[1]);
        let both = |network: &Network| is_echoing(network, 1, 2) && is_echoing(network, 2, 1);
        let ms = network.run_until(1_000, both);
        assert!(ms <= 400, "{ms} ms");
    }
}

#[test]
fn node_behind_a_gateway_is_monitored_on_its_connections() {
    let mut network = Network::default();
    network.translated.insert(address(2));
    for n in 1..=3 {
        network.start(n, "a", &[1]);
    }
    network.run(60_000);
    assert!(is_echoing(&network, 1, 2) && is_echoing(&network, 3, 1));
    assert!(!is_echoing(&network, 2, 1) && !is_echoing(&network, 2, 3));
    // It asks for a key again and again, but seldom.
    network.dials.clear();
    network.run(120_000);
    let asked = network.dials.iter().filter(|(from, _)| *from == address(2)).count();
    assert!((8..=30).contains(&asked), "{asked} handshakes in two minutes");
    network.frozen.insert(address(1));
    network.run_until(3_000, |network| !network.members(2).contains(&1));
    network.frozen.clear();
    network.run_until(3_000, |network| network.members(2).contains(&1));
    // Once its calls come from its own host, it gets keys.
    network.translated.clear();
    network.run(15_000);
    assert!(is_echoing(&network, 2, 1) && is_echoing(&network, 2, 3));
}

#[test]
fn answer_in_a_members_name_elsewhere_changes_nothing() {
    let mut network = Network::six();
    network.start_in("test", 9, 2, "c", &[]);
    network.input(
        address(1),
        Input::AddressesProposed { addresses: [address(9)].into(), are_configured: false },
    );
    network.run(5_000);
    assert!(network.dials.contains(&(address(1), address(9))));
    let member = network.nodes[&address(1)].membership.view.member(Incarnation(2)).unwrap();
    assert_eq!((&*member.info.region, &*member.info.addresses), ("a", &[address(2)][..]));
    assert!(is_echoing(&network, 1, 2) && is_echoing(&network, 2, 1));
    assert_eq!(network.changes(1, 2), (0, 1));
}

#[test]
fn key_that_gets_no_echo_is_renewed() {
    let mut network = Network::six();
    let node = network.nodes.get_mut(&address(1)).unwrap();
    let member = node.membership.view.member_mut(Incarnation(2)).unwrap();
    member.detector.session =
        Some(Session { key: SessionKey::from_bytes([0; 32]), generation: None });
    network.run(30_000);
    assert!(!is_echoing(&network, 1, 2));
    network.run(45_000);
    assert!(is_echoing(&network, 1, 2));
    assert_eq!(network.changes(1, 2), (0, 1));
}

#[test]
fn datagrams_are_encrypted_where_both_nodes_require_tls() {
    let mut network = Network::default();
    network.requires_tls = true;
    network.start(1, "a", &[]);
    network.start(2, "a", &[1]);
    network.requires_tls = false;
    network.start(3, "b", &[1]);
    network.run(3_000);
    let generation = |network: &Network, at: u64, id: u64| {
        let member = network.nodes[&address(at)].membership.view.member(Incarnation(id)).unwrap();
        member.detector.session.and_then(|session| session.generation)
    };
    for (at, id) in [(1, 2), (2, 1), (1, 3), (3, 1), (2, 3), (3, 2)] {
        assert!(is_echoing(&network, at, id), "node {at} of node {id}");
        assert_eq!(generation(&network, at, id).is_some(), at + id == 3, "node {at} of node {id}");
    }
    // Another handshake gives another generation, and what uses up all numbers is forgotten with the old one.
    let first = generation(&network, 2, 1);
    let node = network.nodes.get_mut(&address(2)).unwrap();
    let session = node.membership.view.member(Incarnation(1)).unwrap().detector.session.unwrap();
    let beat = Datagram {
        from: Incarnation(2),
        to: Incarnation(1),
        kind: DatagramKind::Heartbeat,
        generation: session.generation,
        sequence: 1_000_000,
        time_ms: 1,
        content: Bytes::new(),
    };
    let bytes = beat.seal(&session.key);
    network.input(address(1), Input::Datagram { from: address(2), bytes });
    network.run(1_000);
    assert!(!is_echoing(&network, 2, 1));
    network.run(80_000);
    assert!(is_echoing(&network, 2, 1));
    assert!(generation(&network, 2, 1) > first);
    assert_eq!((network.changes(1, 2), network.changes(2, 1)), ((0, 1), (0, 1)));
}
