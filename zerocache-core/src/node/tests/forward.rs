//! Requests at a node that does not own their keys.

use alloc::{boxed::Box, format, string::String, vec::Vec};

use bytes::Bytes;

use super::{
    network::{Network, address, key},
    placement::{KEYS, region},
    prelude::*,
};
use crate::{
    condition::{Condition, ConditionalOp, ConditionalWrite},
    key::Key,
    ttl::Ttl,
    version::Version,
    wire::Ack,
};

/// A key that one node alone owns.
fn key_of(network: &Network, owner: u64) -> String {
    let mut names = (0..KEYS).map(|k| format!("k{k}"));
    names.find(|name| network.owners(1, name) == [owner]).unwrap()
}

fn conditional(name: &str, condition: Condition, op: ConditionalOp) -> Request {
    let (key, ack) = (key(name), Ack::Local);
    Request::Conditional(Box::new(ConditionalWrite { key, condition, op, ack }))
}

fn lease(name: &str, wait_ms: u64) -> Request {
    Request::Lease { key: key(name), lease_ms: 60_000, wait_ms, newer_than: None }
}

impl Network {
    /// Sends a request of a client on a connection of its own, with what the client has seen.
    fn ask_on(&mut self, n: u64, connection: u64, request: Request, seen: u64) -> RequestId {
        let (id, mut input) = self.request(request);
        if let Input::Request { connection: of, message, .. } = &mut input {
            (*of, message.envelope.seen) = (ConnectionId(connection), seen);
        }
        self.input(address(n), input);
        id
    }

    fn is_granted(&self, id: RequestId) -> bool {
        matches!(self.answers.get(&id), Some(Response::LeaseGranted { .. }))
    }
}

#[test]
fn every_node_answers_for_every_key() {
    let mut network = region(5, 2);
    network.fill_keys(&[3], "v");
    for n in 1..=5 {
        for k in [0, 7, 50, 199] {
            assert_eq!(network.get(n, &format!("k{k}")).as_deref(), Some("v"));
        }
        let id = network.ask(n, Request::Get { key: key("absent") });
        network.run(50);
        let answer = network.answers.get(&id);
        assert_eq!(answer, Some(&Response::NotFound { warming: false, known: 0 }));
    }
}

#[test]
fn conditions_are_judged_by_an_owner() {
    let mut network = region(5, 2);
    network.fill_keys(&[1], "v");
    let write = |key: Key, condition| {
        let op = ConditionalOp::Put {
            value: Bytes::from_static(b"w"),
            metadata: Bytes::new(),
            ttl: Ttl::from_secs(60).unwrap(),
        };
        let ack = Ack::Local;
        Request::Conditional(Box::new(ConditionalWrite { key, condition, op, ack }))
    };
    for n in 1..=5 {
        let present = network.ask(n, write(key("k3"), Condition::Absent));
        let absent = network.ask(n, write(key(&format!("new{n}")), Condition::Absent));
        network.run(50);
        assert!(matches!(network.answers[&present], Response::NotMet { current: Some(_) }));
        assert!(matches!(network.answers[&absent], Response::Written(_)));
    }
}

#[test]
fn callers_at_different_nodes_meet_at_an_owner() {
    let mut network = region(5, 2);
    for k in 0..10 {
        let key = key(&format!("k{k}"));
        let lease = |wait_ms| {
            let (lease_ms, newer_than) = (5_000, None);
            Request::Lease { key: key.clone(), lease_ms, wait_ms, newer_than }
        };
        let ids: Vec<_> = (1..=5).map(|n| network.ask(n, lease(2_000))).collect();
        network.run(50);
        let granted = ids.iter().find_map(|id| match network.answers.get(id) {
            Some(Response::LeaseGranted { token }) => Some(*token),
            _ => None,
        });
        let answers =
            |network: &Network| ids.iter().filter(|id| network.answers.contains_key(id)).count();
        // The second owner grants one of its own, as nodes that see others as the first one do.
        assert!(granted.is_some() && answers(&network) <= 2, "{}", answers(&network));
        network.put_long(3, &format!("k{k}"), "v", Ack::Local);
        network.run(100);
        assert_eq!(answers(&network), 5);
    }
}

#[test]
fn node_gives_no_value_that_it_knows_to_be_deleted() {
    let mut network = region(5, 1);
    network.fill_keys(&[1, 2, 3, 4, 5], "v");
    network.run(3_000);
    let name = key_of(&network, 2);
    // The delete is lost on its way to the owner.
    network.cut.insert((address(1), address(2)));
    network.write(1, &name, WriteOp::Delete, Ack::Local);
    network.run(1);
    network.cut.clear();
    let known = network.nodes[&address(1)].replica.store.version(key(&name).hash()).unwrap();
    assert_eq!(network.holders(&name).len(), 1);
    let read = network.ask(1, Request::Get { key: key(&name) });
    let touch = ConditionalOp::Touch { ttl: Ttl::from_secs(60).unwrap() };
    let write = network.ask(1, conditional(&name, Condition::Absent, touch));
    network.run(8);
    let miss = Response::NotFound { warming: true, known: known.stamp() };
    assert_eq!(network.answers.get(&read), Some(&miss));
    let Some(Response::Refused(refusal)) = network.answers.get(&write) else {
        panic!("{:?}", network.answers.get(&write));
    };
    assert_eq!(refusal.code, RefusalCode::Behind);
    network.run(5_000);
    assert_eq!(network.get(1, &name), None);
}

#[test]
fn write_whose_owner_does_not_answer_may_have_been_made() {
    let mut network = region(5, 1);
    network.fill_keys(&[4], "v");
    network.run(1_000);
    let name = key_of(&network, 2);
    network.cut.insert((address(2), address(1)));
    let id = network.ask(1, conditional(&name, Condition::Present, ConditionalOp::Take));
    network.run(3_000);
    assert_eq!(network.answers.get(&id), Some(&Response::Unconfirmed));
    assert!(network.holders(&name).is_empty());
}

#[test]
fn write_that_is_passed_on_is_later_than_what_its_caller_has_seen() {
    let mut network = region(5, 1);
    network.fill_keys(&[4], "v");
    let name = key_of(&network, 2);
    let ahead = network.nodes[&address(2)].replica.clock.last().wall_ms() + 900;
    let seen = Version::new(ahead << Version::COUNTER_BITS, Incarnation(9));
    let op = ConditionalOp::Delete;
    let request = conditional(&name, Condition::Present, op);
    let id = network.ask_on(1, 70, request, seen.stamp());
    network.run(20);
    let Some(Response::Written(written)) = network.answers.get(&id) else { panic!() };
    assert!(written.version > Some(seen), "{written:?}");
}

#[test]
fn lease_ends_with_the_connection_on_which_it_was_asked_for() {
    let mut network = region(5, 1);
    let name = key_of(&network, 2);
    // One holds it, one waits for it; both by a node that owns nothing of it, and both go away.
    let held = network.ask_on(1, 70, lease(&name, 30_000), 0);
    network.run(20);
    assert!(network.is_granted(held));
    let waits = network.ask_on(3, 71, lease(&name, 30_000), 0);
    network.run(20);
    let next = network.ask_on(4, 72, lease(&name, 30_000), 0);
    network.run(20);
    network.input(address(3), Input::ConnectionClosed(ConnectionId(71)));
    network.input(address(1), Input::ConnectionClosed(ConnectionId(70)));
    network.run(100);
    assert!(!network.answers.contains_key(&waits));
    assert!(network.is_granted(next));
}

#[test]
fn one_connection_takes_a_part_of_what_may_be_passed_on() {
    let mut network = region(5, 1);
    let name = key_of(&network, 2);
    network.ask_on(3, 70, lease(&name, 60_000), 0);
    network.run(20);
    let ids: Vec<_> = (0..2_000).map(|_| network.ask_on(1, 71, lease(&name, 60_000), 0)).collect();
    network.run(20);
    let refused = ids.iter().filter(|id| network.answers.contains_key(id)).count();
    assert!((900..1_990).contains(&refused), "{refused}");
    let other = network.ask_on(1, 72, Request::Get { key: key(&name) }, 0);
    network.run(20);
    assert!(network.answers.contains_key(&other));
}
