//! Fan-out and acknowledgements.

use alloc::{format, vec, vec::Vec};
use core::net::SocketAddr;

use bytes::Bytes;

use super::{
    network::{DELAY_MS, Network, WALL_MS, address, key},
    prelude::*,
};
use crate::{
    entry::{Change, Record},
    wire::{Receipt, ReplicatedRecord, Status, cluster_id, features},
};
use crate::{ttl::Ttl, wire::Ack};

#[test]
fn write_reaches_every_node_through_one_relay_per_region() {
    let mut network = Network::six();
    network.batches.clear();
    let id = network.put(2, "k", "v", Ack::Local);
    let answer = network.written(id).unwrap();
    assert_eq!((answer.status, answer.replicas, answer.replicas_wanted), (Status::Stored, 1, 1));
    network.run(20);
    assert_eq!(network.values("k"), vec![Some("v".into()); 6]);
    let region = |at: &SocketAddr| network.nodes[at].local.config.info.region.clone();
    let crossing =
        network.batches.iter().filter(|(from, to, _)| region(from) != region(to)).count();
    assert_eq!((network.batches.len(), crossing), (5, 2));
    // Edge case 1: the deadline is the same everywhere, but for the time on the way.
    let expiries: Vec<_> = network.held("k").into_iter().flatten().map(|(_, at)| at).collect();
    let (first, last) = (expiries.iter().min().unwrap(), expiries.iter().max().unwrap());
    assert!(last - first <= 2 * DELAY_MS, "{expiries:?}");
}

#[test]
fn acknowledgements_count_replicas() {
    let mut network = Network::six();
    let region = network.put(1, "r", "v", Ack::Region);
    let all = network.put(1, "a", "v", Ack::All);
    assert_eq!((network.written(region), network.written(all)), (None, None));
    network.run(20);
    let counts = |id| network.written(id).map(|w| (w.replicas, w.replicas_wanted));
    assert_eq!((counts(region), counts(all)), (Some((2, 2)), Some((4, 4))));
}

#[test]
fn frozen_peer_delays_no_other_and_lowers_the_replica_count() {
    let mut network = Network::six();
    network.frozen.insert(address(2));
    let id = network.put(1, "k", "v", Ack::All);
    network.run(30);
    let values = network.values("k");
    assert_eq!(values.iter().filter(|value| value.is_some()).count(), 5);
    network.run(2_100);
    let answer = network.written(id).unwrap();
    assert_eq!((answer.status, answer.replicas, answer.replicas_wanted), (Status::Stored, 3, 4));
    network.run(1_000);
    assert!(!network.members(1).contains(&2), "silent for three seconds");
    network.frozen.clear();
    network.run(1_500);
    assert!(network.members(1).contains(&2), "back once it answers");
}

#[test]
fn another_relay_is_tried_when_the_first_is_frozen() {
    for frozen in [3, 4] {
        let mut network = Network::six();
        network.frozen.insert(address(frozen));
        for n in 0..20 {
            network.put(1, &format!("k{n}"), "v", Ack::Local);
        }
        network.run(700);
        let other = if frozen == 3 { 4 } else { 3 };
        for n in 0..20 {
            let held = network.nodes[&address(other)]
                .replica
                .store
                .peek(&key(&format!("k{n}")), network.now());
            assert!(held.is_hit(), "k{n} did not reach node {other}");
        }
    }
}

#[test]
fn another_relay_is_tried_when_the_first_is_dead() {
    for dead in [3, 4] {
        let mut network = Network::six();
        network.nodes.remove(&address(dead));
        for n in 0..20 {
            network.put(1, &format!("k{n}"), "v", Ack::Local);
        }
        network.run(100);
        for n in 0..20 {
            assert_eq!(network.values(&format!("k{n}")), vec![Some("v".into()); 5]);
        }
    }
}

#[test]
fn concurrent_writes_of_one_key_end_in_agreement() {
    let mut network = Network::six();
    for n in 0..50 {
        let name = format!("k{n}");
        network.put(1, &name, "one", Ack::Local);
        if n % 2 == 0 {
            network.put(4, &name, "four", Ack::Local);
        } else {
            network.write(4, &name, WriteOp::Delete, Ack::Local);
        }
    }
    network.run(100);
    for n in 0..50 {
        let values = network.values(&format!("k{n}"));
        assert!(values.windows(2).all(|pair| pair[0] == pair[1]), "k{n}: {values:?}");
    }
}

#[test]
fn record_without_the_relay_mark_is_not_passed_on() {
    let mut network = Network::six();
    network.batches.clear();
    let change = Change::Put {
        value: Bytes::new(),
        metadata: Bytes::new(),
        expires: Instant::from_millis(60_000),
    };
    let version = Version::new((WALL_MS + network.now_ms) << 16, Incarnation(77));
    let record = Record { key: key("k"), version, change };
    for (relay, sends) in [(false, 0), (true, 1)] {
        let batch = vec![ReplicatedRecord { record: record.clone(), relay, witness: false }];
        let envelope = Envelope { cluster: cluster_id("test"), ..Envelope::default() };
        let message = RequestMessage { envelope, request: Request::Replicate(batch) };
        let id = RequestId(u64::MAX - u64::from(relay));
        network.input(
            address(1),
            Input::Request {
                id,
                connection: ConnectionId(0),
                caller: Caller::unauthenticated(None),
                message,
            },
        );
        network.run(20);
        assert_eq!(network.answers[&id], Response::Replicated(vec![Receipt::Holds(version)]));
        assert_eq!(network.batches.len(), sends);
    }
}

#[test]
fn future_version_is_refused() {
    let mut network = Network::six();
    let version = Version::new((WALL_MS + network.now_ms + 90_000) << 16, Incarnation(77));
    let record = Record { key: key("k"), version, change: Change::Delete };
    let envelope = Envelope { cluster: cluster_id("test"), ..Envelope::default() };
    let request =
        Request::Replicate(vec![ReplicatedRecord { record, relay: true, witness: false }]);
    let id = RequestId(u64::MAX);
    network.input(
        address(1),
        Input::Request {
            id,
            connection: ConnectionId(0),
            caller: Caller::unauthenticated(None),
            message: RequestMessage { envelope, request },
        },
    );
    assert_eq!(network.answers[&id], Response::Replicated(vec![Receipt::Refused]));
    network.put(1, "k", "v", Ack::Local);
    assert_eq!(
        network.nodes[&address(1)]
            .replica
            .store
            .peek(&key("k"), network.now())
            .hit()
            .unwrap()
            .value,
        "v"
    );
}

#[test]
fn writes_of_one_caller_keep_their_order_on_any_node() {
    let mut network = Network::six();
    // Deleted by a node whose clock is ahead; another one, which does not know of it, accepts the PUT.
    let stamp = |ahead_ms: u64| (WALL_MS + ahead_ms) << 16;
    let put = |network: &mut Network, id: u64, seen: u64| {
        let envelope = Envelope { cluster: cluster_id("test"), seen, ..Envelope::default() };
        let (value, metadata) = (Bytes::from_static(b"v"), Bytes::new());
        let ttl = Ttl::from_secs(60).unwrap();
        let request = Request::Put {
            key: key("k"),
            value,
            metadata,
            ttl,
            ack: Ack::Local,
            version: VersionSource::Accepted,
        };
        let message = RequestMessage { envelope, request };
        network.input(
            address(1),
            Input::Request {
                id: RequestId(id),
                connection: ConnectionId(0),
                caller: Caller::unauthenticated(None),
                message,
            },
        );
        let Response::Written(written) = &network.answers[&RequestId(id)] else {
            panic!("written")
        };
        written.version.unwrap().stamp()
    };
    let seen = stamp(network.now_ms + 4_000);
    assert!(put(&mut network, u64::MAX, seen) > seen);
    // A version that no node in sync can have assigned changes nothing.
    let wild = stamp(network.now_ms + 6_000);
    assert!(put(&mut network, u64::MAX - 1, wild) < wild);
    assert_eq!(network.nodes[&address(1)].refusal_counts().future_versions, 1);
}

#[test]
fn writes_beyond_the_limits_are_refused_and_change_nothing() {
    let mut network = Network::six();
    let big = "x".repeat(9 << 20);
    let id = network.put(1, "k", &big, Ack::All);
    let Response::Refused(refusal) = &network.answers[&id] else {
        panic!("took too large a value")
    };
    assert_eq!(refusal.code, RefusalCode::TooLarge);
    assert_eq!(refusal.value_bytes_max, 8 << 20, "it says how much it takes");
    assert_eq!(refusal.text, "the value has 9437184 bytes; at most 8388608 are allowed");
    let id = network.put(1, &"k".repeat(1024), "v", Ack::Local);
    assert_eq!(network.written(id).map(|w| w.status), Some(Status::Stored));
    network.run(20);
    assert_eq!(network.values("k"), vec![None; 6]);
}

#[test]
fn outbox_of_a_slow_peer_is_bounded() {
    let mut network = Network::six();
    network.frozen.insert(address(2));
    for n in 0..3_000 {
        network.put(1, &format!("k{n}"), &"x".repeat(1_000), Ack::Local);
    }
    let dropped =
        network.events.iter().any(|(_, event)| matches!(event, Event::WritesAbandoned { .. }));
    assert!(dropped, "three megabytes wait in a queue of one");
    assert_eq!(
        network.nodes[&address(1)].status(network.now()).nodes[1].replication_lag_ms,
        Some(0)
    );
}

#[test]
fn single_relay_that_pauses_misses_no_write() {
    let mut network = Network::default();
    network.start(1, "a", &[]);
    network.start(2, "b", &[1]);
    network.run(2_000);
    network.frozen.insert(address(2));
    for n in 0..100 {
        network.put(1, &format!("k{n}"), "v", Ack::Local);
    }
    network.run(1_500);
    network.frozen.clear();
    network.run(1_500);
    let missing = (0..100).filter(|n| network.values(&format!("k{n}"))[1].is_none());
    assert_eq!(missing.count(), 0);
}

#[test]
fn overloaded_peer_gets_its_writes_later() {
    let mut network = Network::default();
    network.without = features::REPAIR;
    let mut network = network.with_six();
    network.refusing.extend([2, 3, 4].map(|n| (address(n), RefusalCode::Overloaded)));
    let id = network.put(1, "k", "v", Ack::Local);
    assert_eq!(network.written(id).map(|w| w.status), Some(Status::Stored));
    network.run(5_000);
    assert_eq!(network.values("k").iter().flatten().count(), 3);
    network.refusing.clear();
    network.run(500);
    assert_eq!(network.values("k"), vec![Some("v".into()); 6]);
}

#[test]
fn peer_that_cannot_take_a_value_drops_its_older_one() {
    let mut network = Network::six();
    let names: Vec<_> = (0..50).map(|n| format!("k{n}")).collect();
    for name in &names {
        network.put(1, name, "old", Ack::Local);
    }
    network.run(100);
    network.small.extend([2, 3].map(|n| (address(n), 3_000)));
    for name in &names {
        network.put(1, name, &"new".repeat(300), Ack::Local);
    }
    network.put(1, "large", "old", Ack::Local);
    network.run(100);
    network.put(1, "large", &"new".repeat(3_000), Ack::Local);
    network.run(3_000);
    // Batches above the bound arrive in pieces; what is above it alone arrives as a delete.
    for name in &names {
        assert_eq!(network.values(name), vec![Some("new".repeat(300)); 6], "{name}");
    }
    let large = network.values("large");
    assert!(large[0].is_some() && large[1].is_none(), "{large:?}");
    assert!(large.iter().flatten().all(|value| value.len() == 9_000), "an older value is in force");
}

#[test]
fn value_too_large_for_a_relay_goes_to_another() {
    for small in [3, 4] {
        let mut network = Network::six();
        network.small.insert(address(small), 3_000);
        for n in 0..10 {
            network.put(1, &format!("k{n}"), &"new".repeat(3_000), Ack::Local);
        }
        network.run(2_000);
        let able = 7 - small;
        for n in 0..10 {
            let values = network.values(&format!("k{n}"));
            assert!(values[able as usize - 1].is_some(), "k{n} did not reach node {able}");
            assert!(values[small as usize - 1].is_none());
        }
    }
}

#[test]
fn overloaded_relay_is_replaced_by_a_healthy_one() {
    let mut network = Network::six();
    network.refusing.insert(address(3), RefusalCode::Overloaded);
    for n in 0..40 {
        network.put(1, &format!("k{n}"), "v", Ack::Local);
    }
    network.run(1_000);
    let missing = (0..40).filter(|n| network.values(&format!("k{n}"))[3].is_none());
    assert_eq!(missing.count(), 0);
}

#[test]
fn replication_to_a_peer_that_refuses_every_size_is_abandoned() {
    let mut network = Network::six();
    network.refusing.insert(address(2), RefusalCode::TooLarge);
    network.batches.clear();
    network.put(1, "k", "v", Ack::Local);
    network.run(2_000);
    let sent = network.batches.iter().filter(|(_, to, _)| *to == address(2)).count();
    assert!(sent < 10, "{sent} batches for one write");
}

#[test]
fn no_write_waits_for_a_replaced_relay() {
    let mut network = Network::default();
    network.start(1, "a", &[]);
    network.start(2, "b", &[1]);
    network.run(2_000);
    network.frozen.insert(address(2));
    for n in 0..20 {
        network.put(1, &format!("k{n}"), "v", Ack::Local);
    }
    network.frozen.clear();
    network.start_in("test", 2, 22, "b", &[1]);
    network.run(5_000);
    let node = &network.nodes[&address(1)];
    assert!(node.is_flushed());
    assert!(node.next_deadline().as_millis() > network.now_ms, "the node ticks without end");
    assert_eq!(network.members(1), [22]);
}

#[test]
fn peer_that_refuses_writes_is_reported() {
    let mut network = Network::six();
    let ahead = Version::new((WALL_MS + network.now_ms + 59_000) << 16, Incarnation(77));
    let record = Record { key: key("k"), version: ahead, change: Change::Delete };
    let envelope = Envelope { cluster: cluster_id("test"), ..Envelope::default() };
    let request =
        Request::Replicate(vec![ReplicatedRecord { record, relay: false, witness: false }]);
    network.input(
        address(1),
        Input::Request {
            id: RequestId(u64::MAX),
            connection: ConnectionId(0),
            caller: Caller::unauthenticated(None),
            message: RequestMessage { envelope, request },
        },
    );
    // Node 1 stamps from there on; its peers, whose clocks are two seconds behind, refuse.
    network
        .nodes
        .get_mut(&address(1))
        .unwrap()
        .replica
        .clock
        .stamp(WALL_MS + network.now_ms + 63_000);
    network.put(1, "k", "v", Ack::Local);
    network.run(100);
    let refused = |event: &Event| matches!(event, Event::WritesRefused { count: 1, .. });
    assert!(network.events.iter().any(|(at, event)| *at == address(1) && refused(event)));
    let snapshot = network.nodes[&address(1)].status(network.now());
    assert!(snapshot.nodes[1].replication_lag_ms.is_some());
}
