//! The effects of false claims by callers on what a node believes, holds and sends: nearly none.

use alloc::{format, string::String, vec, vec::Vec};
use core::net::SocketAddr;

use bytes::Bytes;

use super::{
    network::{Network, WALL_MS, address, key, nowhere},
    prelude::*,
};
use crate::{
    cluster::Gossip,
    entry::{Change, Record},
    store::CopyRange,
    ttl::Ttl,
    wire::{
        Ack, Datagram, DatagramKind, Hello, NodeInfo, Receipt, ReplicatedRecord, Session, Status,
        cluster_id, features,
    },
};

impl Network {
    /// A caller calls node 1, on a connection and in a name of its choice.
    pub(super) fn call(
        &mut self,
        connection: u64,
        from: Option<u64>,
        request: Request,
    ) -> Option<Response> {
        self.call_seen(connection, from, 0, request)
    }

    fn call_seen(
        &mut self,
        connection: u64,
        from: Option<u64>,
        seen: u64,
        request: Request,
    ) -> Option<Response> {
        let (id, input) = self.request(request);
        let Input::Request { mut message, .. } = input else { panic!("no request") };
        message.envelope = Envelope {
            cluster: cluster_id("test"),
            from: from.map(Incarnation),
            seen,
            ..message.envelope
        };
        let (connection, caller) = (ConnectionId(connection), Caller::unauthenticated(None));
        self.input(address(1), Input::Request { id, connection, caller, message });
        self.answers.get(&id).cloned()
    }

    /// A caller that has proven who it is calls node 1, in a name of its choice.
    pub(super) fn call_as(
        &mut self,
        caller: Caller,
        from: Option<u64>,
        request: Request,
    ) -> Option<Response> {
        let (id, input) = self.request(request);
        let Input::Request { mut message, .. } = input else { panic!("no request") };
        message.envelope.from = from.map(Incarnation);
        let connection = ConnectionId(77);
        self.input(address(1), Input::Request { id, connection, caller, message });
        self.answers.get(&id).cloned()
    }

    fn refused(&self) -> RefusalCounts {
        self.nodes[&address(1)].refusal_counts()
    }
}

pub(super) fn info(id: u64, region: &str, addresses: Vec<SocketAddr>) -> NodeInfo {
    let state = NodeState::InSync;
    NodeInfo {
        incarnation: Incarnation(id),
        region: region.into(),
        zone: None,
        addresses,
        state,
        bytes_max: 1,
        name: None,
        replicas: crate::cluster::Replicas::All,
    }
}

pub(super) fn hello(features: u64, node: NodeInfo) -> Request {
    Request::Hello(Box::new(Hello {
        features,
        entries: 1 << 60,
        node: Some(node.clone()),
        ..Hello::of_client("test", &node.region, 1)
    }))
}

fn get() -> Request {
    Request::Get { key: key("any") }
}

#[test]
fn flood_of_introductions_causes_few_dials_and_blocks_no_node() {
    let mut network = Network::six();
    network.dials.clear();
    let (mut named, mut joined) = (0, None);
    for ms in 0..10_000 {
        for (connection, life) in [(1, 1_000_000), (2, 2_000_000)] {
            let addresses = (0..16).map(|n| nowhere(named + n)).collect();
            let node = info(life + named, "a", addresses);
            let answer = network.call(connection, Some(life + named), hello(features::ALL, node));
            assert!(matches!(answer, Some(Response::Hello(_))));
            named += 16;
        }
        if ms == 5_000 {
            // An honest one, known only by its own call.
            network.start(7, "a", &[1]);
        }
        network.run(1);
        if joined.is_none() && network.members(1).contains(&7) {
            joined = Some(ms);
        }
    }
    assert!(joined.is_some_and(|ms| ms < 5_500), "{joined:?}");
    let vain = network.dials.iter().filter(|(from, to)| {
        assert!(*from == address(1) || to.ip().is_loopback(), "{from} dials {to}");
        !to.ip().is_loopback()
    });
    let vain = vain.count();
    assert!((100..128 + 32 * 11).contains(&vain), "{vain} dials in ten seconds");
    assert!(network.refused().addresses > 100_000);
    assert_eq!(network.members(1), [2, 3, 4, 5, 6, 7]);
}

#[test]
fn claims_in_a_members_name_change_nothing() {
    let mut network = Network::six();
    let before = network.members(1);
    let leaving = NodeInfo { state: NodeState::Leaving, ..info(2, "c", vec![nowhere(1)]) };
    for _ in 0..20 {
        network.call(9, Some(2), hello(0, leaving.clone()));
        network.call(9, Some(2), Request::Goodbye);
        let there = |network: &Network| {
            let member =
                network.nodes[&address(1)].membership.view.member(Incarnation(2)).cloned().unwrap();
            (member.info.region, member.info.state, member.features, member.entries)
        };
        assert_eq!(there(&network), (String::from("a"), NodeState::InSync, features::ALL, 0));
        assert_eq!(network.members(1), before);
        network.run(100);
        assert_eq!(there(&network), (String::from("a"), NodeState::InSync, features::ALL, 0));
    }
    assert!(!network.dials.iter().any(|(_, to)| *to == nowhere(1)), "the member is there");
    let id = network.put(1, "k", "v", Ack::Region);
    network.run(50);
    assert_eq!(network.written(id).map(|written| written.replicas), Some(2));
}

#[test]
fn goodbyes_in_other_names_cause_few_pings() {
    let mut network = Network::six();
    let before = network.bytes;
    for _ in 0..1_000 {
        for _ in 0..20 {
            network.call(9, Some(2), Request::Goodbye);
        }
        network.run(1);
    }
    // Twenty thousand of them: at most a ping each 25 ms beside what is sent anyway.
    assert!(network.bytes - before < 100_000, "{} bytes", network.bytes - before);
    assert!(network.members(1).contains(&2));
}

/// What a node with many others would say.
fn rumours(id: u64, count: u64) -> Gossip {
    let mut gossip = Gossip::new(info(id, "a", vec![nowhere(0)]), Instant::default());
    for n in 0..count {
        let node = info(10_000 + n, "a", vec![nowhere(10_000 + n)]);
        gossip.met(&node, Instant::default());
    }
    gossip
}

#[test]
fn gossip_is_taken_only_from_the_address_of_its_source() {
    let mut network = Network::six();
    network.dials.clear();
    for name in [2, 77] {
        let mut told = rumours(name, 600);
        let key = Session::derive(&[1; 32], Incarnation(name), None).key;
        let elsewhere: SocketAddr = "127.0.0.99:5555".parse().unwrap();
        for n in 1..200 {
            let content = told.speak(Incarnation(1), Instant::default(), CONTENT_BYTES_MAX);
            network.call(9, Some(name), Request::Gossip(content.clone()));
            let (from, to) = (Incarnation(name), Incarnation(1));
            let beat = Datagram {
                from,
                to,
                kind: DatagramKind::Heartbeat,
                generation: None,
                sequence: n,
                time_ms: 1,
                content,
            };
            network.input(address(1), Input::Datagram { from: elsewhere, bytes: beat.seal(&key) });
            network.run(5);
        }
    }
    network.run(3_000);
    for n in 1..=6 {
        let nodes = network.nodes[&address(n)].status(network.now()).nodes.len();
        assert_eq!(nodes, 6, "node {n}");
    }
    assert!(network.dials.iter().all(|(_, to)| to.ip().is_loopback()));
    assert!(network.refused().gossip > 400, "{:?}", network.refused());
}

#[test]
fn member_that_names_wrong_addresses_causes_few_dials() {
    let mut network = Network::six();
    network.dials.clear();
    let mut told = rumours(2, 3_000);
    let key = Session::derive(&[1; 32], Incarnation(2), None).key;
    for n in 1..500 {
        let content = told.speak(Incarnation(1), Instant::default(), CONTENT_BYTES_MAX);
        let (from, to) = (Incarnation(2), Incarnation(1));
        let sequence = 100_000 + n;
        let beat = Datagram {
            from,
            to,
            kind: DatagramKind::Heartbeat,
            generation: None,
            sequence,
            time_ms: 1,
            content,
        };
        network.input(address(1), Input::Datagram { from: address(2), bytes: beat.seal(&key) });
        network.run(10);
    }
    for n in 1..=6 {
        let vain =
            network.dials.iter().filter(|(at, to)| *at == address(n) && !to.ip().is_loopback());
        let vain = vain.count();
        assert!(vain < 256 + 64 * 6, "node {n}: {vain} dials");
    }
    // Seeds and callers have bounds of their own.
    network.start(7, "a", &[1]);
    network.run(600);
    assert!(network.members(1).contains(&7));
}

#[test]
fn echo_to_a_stranger_is_no_longer_than_its_heartbeat() {
    let mut network = Network::six();
    let mut told = rumours(77, 3);
    let key = Session::derive(&[1; 32], Incarnation(77), None).key;
    // It asks for everything that the node knows.
    told.hear(
        Incarnation(1),
        &rumours(1, 9).speak(Incarnation(77), Instant::default(), 64),
        Instant::default(),
        0,
    );
    for sequence in 1..50 {
        let content = told.ask(Incarnation(1));
        let (from, to) = (Incarnation(77), Incarnation(1));
        let beat = Datagram {
            from,
            to,
            kind: DatagramKind::Heartbeat,
            generation: None,
            sequence,
            time_ms: 1,
            content,
        };
        let bytes = beat.seal(&key);
        let asked = bytes.len();
        let now = network.now();
        let mut out = Vec::new();
        let node = network.nodes.get_mut(&address(1)).unwrap();
        node.handle(now, Input::Datagram { from: nowhere(9), bytes }, &mut out);
        let sent: Vec<_> = out
            .iter()
            .filter_map(|effect| match effect {
                Effect::Datagram { to, bytes } if *to == nowhere(9) => Some(bytes.len()),
                _ => None,
            })
            .collect();
        assert!(matches!(sent[..], [echo] if echo <= asked), "{sent:?} for {asked}");
    }
}

#[test]
fn heartbeat_numbers_are_kept_by_sender_address() {
    let mut network = Network::six();
    let key = Session::derive(&[1; 32], Incarnation(2), None).key;
    let (from, to) = (Incarnation(2), Incarnation(1));
    let beat = Datagram {
        from,
        to,
        kind: DatagramKind::Heartbeat,
        generation: None,
        sequence: 1_000_000,
        time_ms: 1,
        content: Bytes::new(),
    };
    let bytes = beat.seal(&key);
    network.input(address(1), Input::Datagram { from: nowhere(1), bytes: bytes.clone() });
    let echoes = |network: &Network| {
        let member =
            network.nodes[&address(2)].membership.view.member(Incarnation(1)).cloned().unwrap();
        member.detector.is_echoing(network.now().mono, 300)
    };
    network.run(2_000);
    assert!(echoes(&network));
    // A number that no sender can have come to changes nothing.
    let far = Datagram { sequence: u64::MAX, ..beat };
    network.input(address(1), Input::Datagram { from: address(2), bytes: far.seal(&key) });
    network.run(1_000);
    assert!(echoes(&network));
    // Even from the member's own address they are used up only until the next handshake with it.
    network.input(address(1), Input::Datagram { from: address(2), bytes });
    network.run(1_000);
    assert!(!echoes(&network));
    network.call(9, Some(2), hello(0, info(2, "a", vec![address(2)])));
    network.run(1_500);
    assert!(echoes(&network));
}

#[test]
fn versions_that_callers_claim_move_no_clock_far() {
    let mut network = Network::six();
    let ahead = |network: &Network, ms: u64| (WALL_MS + network.now_ms + ms) << 16;
    let seen = ahead(&network, 59_990);
    network.call_seen(9, None, seen, get());
    // Nor do a token, a lease for a key that is stamped ahead, and a forged record.
    let version = Version::new(seen, Incarnation(5));
    let (value, metadata) = (Bytes::from_static(b"v"), Bytes::new());
    let change = Change::Put {
        value: value.clone(),
        metadata: metadata.clone(),
        expires: Instant::from_millis(90_000),
    };
    let record = Record { key: key("forged"), version, change };
    let batch = vec![ReplicatedRecord { record, relay: true, witness: false }];
    let answer = network.call(9, None, Request::Replicate(batch));
    assert_eq!(answer, Some(Response::Replicated(vec![Receipt::Holds(version)])));
    let ttl = Ttl::from_secs(60).unwrap();
    let put = |token| Request::Put {
        key: key("token"),
        value: value.clone(),
        metadata: metadata.clone(),
        ttl,
        ack: Ack::Local,
        version: VersionSource::Given(token),
    };
    let Some(Response::Written(written)) = network.call(9, None, put(version)) else {
        panic!("no answer")
    };
    assert_eq!(written.status, Status::Refused);
    let id = network.put(1, "k", "v", Ack::All);
    network.run(20);
    let written = network.written(id).unwrap();
    assert_eq!((written.replicas, written.replicas_wanted), (4, 4));
    assert!(written.version.unwrap().stamp() < ahead(&network, 5_001));
    assert_eq!(network.refused().future_versions, 2);
    // The forged key itself can be written over, by every node.
    for n in [1, 4] {
        let id = network.put(n, "forged", &format!("by {n}"), Ack::Local);
        assert_eq!(network.written(id).map(|written| written.status), Some(Status::Stored));
        network.run(20);
        assert_eq!(network.values("forged"), vec![Some(format!("by {n}")); 6]);
        let id = network.put(n, "other", "v", Ack::Local);
        assert!(network.written(id).unwrap().version.unwrap().stamp() < ahead(&network, 5_001));
        network.run(20);
    }
}

#[test]
fn copies_by_strangers_do_not_delay_a_starting_node() {
    let mut network = Network::default();
    network.start(1, "a", &[]);
    for n in 0..500 {
        network.put(1, &format!("{n}"), "v", Ack::Local);
    }
    let copy = || Request::Copy {
        first_shard: 0,
        last_shard: 0,
        range: CopyRange::default(),
        owned: false,
    };
    network.start(2, "a", &[1]);
    network.run(2_000);
    network.start(3, "a", &[1]);
    let mut ready = None;
    for ms in 0..5_000 {
        // Two unknown nodes, and one in the name of a member that needs nothing.
        for name in [77, 78, 2] {
            network.call(9, Some(name), copy());
        }
        network.run(1);
        if ready.is_none() && network.nodes[&address(3)].state() == NodeState::InSync {
            ready = Some(ms);
        }
    }
    assert!(ready.is_some_and(|ms| ms < 4_000), "{ready:?}");
    assert_eq!(network.values("499").len(), 3);
    assert!(network.values("499").iter().all(Option::is_some));
    assert!(network.refused().over_quota > 1_000);
}

#[test]
fn one_connection_leaves_room_for_other_watchers_and_followers() {
    let mut network = Network::default();
    network.start(1, "a", &[]);
    network.run(10);
    let Some(Response::Pong { view, .. }) = network.call(1, None, Request::Ping) else {
        panic!("silent")
    };
    let first = network.call(1, None, Request::Follow { since: 0, with_purges: false });
    let Some(Response::Changes { next: since, .. }) = first else { panic!("{first:?}") };
    for kind in [Request::Watch { view }, Request::Follow { since, with_purges: false }] {
        let refused = (0..16_384).filter(|_| network.call(1, None, kind.clone()).is_some()).count();
        assert!(refused >= 15_360, "{refused}");
        assert_eq!(network.call(2, None, kind.clone()), None, "another one waits");
    }
    // With the connection everything that waited on it is gone.
    let node = network.nodes.get_mut(&address(1)).unwrap();
    let (now, mut out) = (Now::new(network.now_ms, WALL_MS + network.now_ms), Vec::new());
    node.handle(now, Input::ConnectionClosed(ConnectionId(1)), &mut out);
    let node = &network.nodes[&address(1)];
    assert_eq!((node.watcher_count(), node.feed_counts().followers), (1, 1));
}

#[test]
fn request_in_another_name_than_the_proven_one_is_refused() {
    let mut network = Network::six();
    let refused = |response: Option<Response>| {
        matches!(
            response, Some(Response::Refused(refusal)) if refusal.code == RefusalCode::Forbidden
        )
    };
    let named = |id| hello(features::ALL, info(id, "a", vec![address(id)]));
    let proven =
        Caller { identity: Some(Incarnation(2)), ..Caller::unauthenticated(Some(address(2).ip())) };
    for (from, request) in [
        (Some(3), Request::Goodbye),
        (Some(3), Request::Gossip(Bytes::new())),
        (Some(3), get()),
        (Some(3), named(2)),
        (Some(2), named(3)),
        (None, named(3)),
    ] {
        assert!(refused(network.call_as(proven, from, request)), "{from:?}");
    }
    assert_eq!(network.refused().identities, 6);
    for (from, request) in [(Some(2), named(2)), (None, named(2)), (Some(2), Request::Goodbye)] {
        assert!(!refused(network.call_as(proven, from, request)), "{from:?}");
    }
    let client = Caller::client(None);
    for (from, request) in [
        (None, named(2)),
        (None, Request::Goodbye),
        (None, Request::Replicate(Vec::new())),
        (None, Request::Gossip(Bytes::new())),
        (None, Request::Fetch(Vec::new())),
        (None, Request::Adopt(Vec::new())),
        (Some(2), get()),
        (Some(2), Request::Ping),
    ] {
        assert!(refused(network.call_as(client, from, request)), "{from:?}");
    }
    assert_eq!(network.refused().identities, 14);
    assert!(!refused(network.call_as(client, None, get())));
    assert!(!refused(network.call_as(client, None, Request::Ping)));
    assert_eq!(network.refused().identities, 14);
}
