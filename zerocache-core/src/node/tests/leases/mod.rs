//! The rules of leases.

mod tokens;

use alloc::{format, string::String, vec, vec::Vec};

use bytes::Bytes;

use super::{
    network::{DELAY_MS, Network, WALL_MS, address, key},
    prelude::*,
};
use crate::{
    entry::{Change, Record},
    metadata::Metadata,
    store::SingleThread,
    ttl::Ttl,
    wire::{Ack, ReplicatedRecord, Status, cluster_id},
};

const LIFE_MS: u64 = 10_000;

impl Network {
    /// One region of two nodes, and one of one.
    fn three() -> Self {
        let mut network = Self::default();
        for (n, region) in [(1, "a"), (2, "a"), (3, "b")] {
            network.start(n, region, &[1]);
        }
        network.run(3_000);
        network
    }

    fn lease(&mut self, n: u64, name: &str, wait_ms: u64) -> RequestId {
        self.ask(n, Request::Lease { key: key(name), lease_ms: LIFE_MS, wait_ms, newer_than: None })
    }

    /// Asks on a connection of its own.
    fn lease_on(&mut self, connection: u64, name: &str, wait_ms: u64) -> RequestId {
        let request =
            Request::Lease { key: key(name), lease_ms: LIFE_MS, wait_ms, newer_than: None };
        let (id, input) = self.request(request);
        let Input::Request { message, .. } = input else { panic!("no request") };
        let connection = ConnectionId(connection);
        self.input(
            address(1),
            Input::Request { id, connection, caller: Caller::unauthenticated(None), message },
        );
        id
    }

    fn close(&mut self, connection: u64) {
        self.input(address(1), Input::ConnectionClosed(ConnectionId(connection)));
    }

    /// Asks for more than what the caller has at a version.
    fn lease_over(&mut self, over: Version, wait_ms: u64) -> RequestId {
        let over = Some(over);
        self.ask(1, Request::Lease { key: key("k"), lease_ms: LIFE_MS, wait_ms, newer_than: over })
    }

    /// What a caller was answered.
    fn lease_reply(&self, id: RequestId) -> LeaseReply {
        match self.answers.get(&id) {
            None => LeaseReply::Nothing,
            Some(Response::LeaseGranted { token }) => LeaseReply::Token(*token),
            Some(Response::Found { value, .. }) => {
                LeaseReply::Value(String::from_utf8(value.to_vec()).unwrap())
            }
            Some(Response::LeaseHeld) => LeaseReply::Busy,
            Some(other) => panic!("{other:?}"),
        }
    }

    fn token(&self, id: RequestId) -> Version {
        match self.lease_reply(id) {
            LeaseReply::Token(token) => token,
            other => panic!("{other:?}"),
        }
    }

    fn fill(&mut self, n: u64, name: &str, value: &str, token: Version) -> RequestId {
        self.fill_with(n, name, value, token, Ack::Local)
    }

    fn fill_with(
        &mut self,
        n: u64,
        name: &str,
        value: &str,
        token: Version,
        ack: Ack,
    ) -> RequestId {
        self.ask(n, put(name, value, token, ack))
    }

    fn status(&self, id: RequestId) -> Status {
        self.written(id).unwrap().status
    }

    fn release(&mut self, n: u64, name: &str, token: Version, failed: bool) {
        let id = self.ask(n, Request::Release { key: key(name), token, failed });
        assert_eq!(self.answers[&id], Response::Done);
    }

    fn node(&self, n: u64) -> &Node<SingleThread> {
        &self.nodes[&address(n)]
    }
}

fn put(name: &str, value: &str, token: Version, ack: Ack) -> Request {
    Request::Put {
        key: key(name),
        value: Bytes::copy_from_slice(value.as_bytes()),
        metadata: Bytes::new(),
        ttl: Ttl::from_secs(60).unwrap(),
        ack,
        version: VersionSource::Given(token),
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum LeaseReply {
    Nothing,
    Token(Version),
    Value(String),
    Busy,
}

#[test]
fn one_caller_computes_and_the_others_get_the_value() {
    let mut network = Network::three();
    // Through the leasing node, by replication from a local peer, and from another region.
    for (name, filler) in [("own", 1), ("peer", 2), ("far", 3)] {
        let first = network.lease(1, name, 3_000);
        let token = network.token(first);
        let waiting: Vec<_> = (0..5).map(|_| network.lease(1, name, 3_000)).collect();
        network.run(100);
        assert!(waiting.iter().all(|id| network.lease_reply(*id) == LeaseReply::Nothing));
        let filled = network.fill(filler, name, "v", token);
        assert_eq!(network.status(filled), Status::Stored);
        assert_eq!(network.written(filled).unwrap().version, Some(token));
        network.run(2 * DELAY_MS + 2);
        assert!(
            waiting.iter().all(|id| network.lease_reply(*id) == LeaseReply::Value("v".into())),
            "{name}"
        );
        let late = network.lease(1, name, 3_000);
        assert_eq!(network.lease_reply(late), LeaseReply::Value("v".into()));
        network.run(200);
        assert_eq!(network.values(name), vec![Some(String::from("v")); 3]);
    }
    let counts = network.node(1).lease_counts();
    assert_eq!((counts.held, counts.waiting, counts.granted, counts.served), (0, 0, 3, 18));
}

#[test]
fn value_from_repair_serves_waiters() {
    let mut network = Network::three();
    network.set_link(1, 2, false);
    network.set_link(1, 3, false);
    network.run(4_000);
    network.put(2, "k", "v", Ack::Local);
    network.run(3_000);
    let _holder = network.lease(1, "k", 0);
    let waits = network.lease(1, "k", 60_000);
    network.set_link(1, 2, true);
    network.set_link(1, 3, true);
    let healed =
        network.run_until(9_000, |network| network.lease_reply(waits) != LeaseReply::Nothing);
    assert!(healed > 0);
    assert_eq!(network.lease_reply(waits), LeaseReply::Value("v".into()));
}

#[test]
fn waiter_is_answered_by_its_deadline() {
    let mut network = Network::three();
    network.lease(1, "k", 0);
    let none = network.lease(1, "k", 0);
    assert_eq!(network.lease_reply(none), LeaseReply::Busy);
    let short = network.lease(1, "k", 500);
    network.run(499);
    assert_eq!(network.lease_reply(short), LeaseReply::Nothing);
    network.run(2);
    assert_eq!(network.lease_reply(short), LeaseReply::Busy);
    // A caller with an earlier timeout is answered before it.
    let envelope = Envelope { cluster: cluster_id("test"), timeout_ms: 300, ..Envelope::default() };
    let request = Request::Lease { key: key("k"), lease_ms: 0, wait_ms: 3_000, newer_than: None };
    let id = RequestId(9_999);
    let message = RequestMessage { envelope, request };
    network.input(
        address(1),
        Input::Request {
            id,
            connection: ConnectionId(0),
            caller: Caller::unauthenticated(None),
            message,
        },
    );
    network.run(251);
    assert_eq!(network.lease_reply(id), LeaseReply::Busy);
    assert_eq!(network.node(1).lease_counts().waiting, 0);
}

#[test]
fn lease_of_a_dead_caller_is_handed_over() {
    let mut network = Network::three();
    let dead = network.lease(1, "k", 0);
    let first = network.lease(1, "k", 30_000);
    let second = network.lease(1, "k", 30_000);
    network.run(LIFE_MS - 1);
    assert_eq!(network.lease_reply(first), LeaseReply::Nothing);
    network.run(2);
    let (old, new) = (network.token(dead), network.token(first));
    assert!(new > old);
    assert_eq!(network.lease_reply(second), LeaseReply::Nothing);
    // It was not dead, and comes late: what it has is fresh, and loses against the next one's.
    network.fill(2, "k", "late", old);
    network.run(10);
    assert_eq!(network.lease_reply(second), LeaseReply::Value("late".into()));
    network.fill(3, "k", "new", new);
    let filled = network.fill(1, "k", "later still", old);
    network.run(100);
    assert_eq!(network.values("k"), vec![Some(String::from("new")); 3]);
    // Another value with the same token: the first one counts.
    assert_eq!(network.status(filled), Status::Superseded);
    let lost = network.fill(1, "k", "too late", old);
    assert_eq!(network.status(lost), Status::Superseded);
    assert_eq!(network.written(lost).unwrap().version, Some(old));
    let counts = network.node(1).lease_counts();
    assert_eq!((counts.expired, counts.handed_over, counts.held), (1, 1, 0));
}

#[test]
fn leases_and_waits_end_with_their_connection() {
    let mut network = Network::three();
    let holder = network.lease_on(1, "k", 0);
    let other = network.lease_on(1, "other", 0);
    let waiting: Vec<_> = (2..6).map(|n| network.lease_on(n, "k", 30_000)).collect();
    network.close(2);
    assert_eq!(network.node(1).lease_counts().waiting, 3);
    assert_eq!(network.lease_reply(waiting[1]), LeaseReply::Nothing);
    network.close(1);
    let next = network.token(waiting[1]);
    assert!(next > network.token(holder));
    assert_eq!(
        (network.lease_reply(waiting[2]), network.lease_reply(waiting[3])),
        (LeaseReply::Nothing, LeaseReply::Nothing)
    );
    // Who has lost only the connection may still write what it has computed.
    let filled = network.fill(2, "other", "v", network.token(other));
    assert_eq!(network.status(filled), Status::Stored);
    // No caller waits: the lease has ended.
    network.close(4);
    network.close(5);
    network.close(3);
    let counts = network.node(1).lease_counts();
    assert_eq!((counts.held, counts.waiting, counts.disconnected), (0, 0, 3));
    assert_eq!((counts.handed_over, counts.expired), (1, 0));
}

#[test]
fn value_that_arrives_with_the_end_of_the_connection_serves_waiters() {
    let mut network = Network::three();
    let holder = network.lease_on(1, "k", 0);
    let waits = network.lease_on(2, "k", 30_000);
    let token = network.token(holder);
    let (_, filled) = network.request(put("k", "v", token, Ack::Local));
    network.inputs(address(1), [filled, Input::ConnectionClosed(ConnectionId(1))]);
    assert_eq!(network.lease_reply(waits), LeaseReply::Value("v".into()));
    assert_eq!(network.node(1).lease_counts().disconnected, 0);
}

#[test]
fn lease_without_waiters_expires() {
    let mut network = Network::three();
    let first = network.lease(1, "k", 0);
    network.run(LIFE_MS + 1);
    assert_eq!(network.node(1).lease_counts().held, 0);
    let second = network.lease(1, "k", 0);
    assert!(network.token(second) > network.token(first));
}

#[test]
fn released_lease_goes_to_the_next_and_a_failure_to_all_waiters() {
    let mut network = Network::three();
    let first = network.lease(1, "k", 0);
    let waiting: Vec<_> = (0..100).map(|_| network.lease(1, "k", 3_000)).collect();
    network.release(1, "k", network.token(first), false);
    let second = network.token(waiting[0]);
    assert_eq!(network.lease_reply(waiting[1]), LeaseReply::Nothing);
    // A token that is not the last one releases nothing.
    network.release(1, "k", network.token(first), true);
    assert_eq!(network.lease_reply(waiting[1]), LeaseReply::Nothing);
    network.release(1, "k", second, true);
    assert!(waiting[1..].iter().all(|id| network.lease_reply(*id) == LeaseReply::Busy));
    assert_eq!(network.node(1).lease_counts().held, 0);
    let next = network.lease(1, "k", 0);
    assert!(network.token(next) > second);
}

#[test]
fn stale_entry_is_no_answer_to_a_lease_request() {
    let mut network = Network::three();
    let mut stale = Metadata::default();
    stale.stale_while_ms = 5_000;
    let op = WriteOp::Put {
        value: Bytes::from_static(b"v"),
        metadata: stale.encode(),
        ttl: Ttl::from_secs(6).unwrap(),
    };
    network.write(1, "k", op, Ack::Local);
    let id = network.lease(1, "k", 0);
    assert_eq!(network.lease_reply(id), LeaseReply::Value("v".into()));
    network.run(1_001);
    let id = network.lease(1, "k", 0);
    let token = network.token(id);
    assert_eq!(network.values("k")[0], Some("v".into()));
    let filled = network.fill(1, "k", "new", token);
    assert_eq!(network.status(filled), Status::Stored);
    network.run(20);
    assert_eq!(network.values("k"), vec![Some(String::from("new")); 3]);
}

#[test]
fn value_not_newer_than_requested_is_no_answer() {
    let mut network = Network::three();
    let written = network.put(1, "k", "foreign", Ack::Local);
    let version = network.written(written).unwrap().version.unwrap();
    let first = network.lease_over(version, 0);
    let token = network.token(first);
    assert!(token > version);
    // One computes for all who cannot use it; the others have a value.
    let second = network.lease_over(version, 3_000);
    let other = network.lease(1, "k", 3_000);
    assert_eq!(network.lease_reply(second), LeaseReply::Nothing);
    assert_eq!(network.lease_reply(other), LeaseReply::Value("foreign".into()));
    // That it comes once more, from a peer, is nothing new.
    network.run(100);
    assert_eq!(network.lease_reply(second), LeaseReply::Nothing);
    // It has seen more than the one who computes.
    let third = network.lease_over(Version::new(token.stamp() + 1, Incarnation(9)), 3_000);
    network.fill(2, "k", "own", token);
    network.run(20);
    assert_eq!(network.lease_reply(second), LeaseReply::Value("own".into()));
    let next = network.token(third);
    let filled = network.fill(3, "k", "newest", next);
    assert_eq!(network.status(filled), Status::Stored);
    network.run(20);
    assert_eq!(network.values("k"), vec![Some(String::from("newest")); 3]);
    assert_eq!(network.node(1).lease_counts().held, 0);
}

#[test]
fn leaving_node_grants_no_leases() {
    let mut network = Network::three();
    network.lease(1, "k", 0);
    let waits = network.lease(1, "k", 3_000);
    network.input(address(1), Input::Shutdown);
    assert_eq!(network.lease_reply(waits), LeaseReply::Busy);
    let other = network.lease(1, "other", 3_000);
    assert_eq!(network.lease_reply(other), LeaseReply::Busy);
    assert_eq!(network.node(1).lease_counts().held, 0);
}

#[test]
fn node_without_a_set_clock_grants_no_leases() {
    let mut network = Network::default();
    network.start_unsettled(1, "a", &[], 60_000);
    let id = network.lease(1, "k", 0);
    assert!(matches!(network.answers[&id], Response::Refused(_)));
}

#[test]
fn leases_and_waiters_are_bounded() {
    let mut network = Network::default();
    network.start(1, "a", &[]);
    network.run(3_000);
    // One connection has a sixteenth, whatever it asks for; those that carry one request each, a half.
    let of_one = |n: u64| 1 + n / 4_096;
    for n in 0..4_096 {
        let id = network.lease_on(of_one(n), &format!("{n}"), 0);
        assert!(matches!(network.answers[&id], Response::LeaseGranted { .. }), "{n}");
    }
    let more = network.lease_on(1, "one more", 3_000);
    assert_eq!(network.lease_reply(more), LeaseReply::Busy);
    for n in 4_096..65_536 {
        let id = network.lease_on(of_one(n), &format!("{n}"), 0);
        assert!(matches!(network.answers[&id], Response::LeaseGranted { .. }), "{n}");
    }
    let more = network.lease_on(17, "one more", 3_000);
    assert_eq!(network.lease_reply(more), LeaseReply::Busy);
    for n in 0..4_096 {
        network.lease_on(of_one(n), "0", 5_000);
    }
    let more = network.lease_on(1, "0", 5_000);
    assert_eq!(network.lease_reply(more), LeaseReply::Busy);
    for n in 4_096..65_536 {
        network.lease_on(of_one(n), "0", 5_000);
    }
    let more = network.lease_on(17, "0", 5_000);
    assert_eq!(network.lease_reply(more), LeaseReply::Busy);
    assert_eq!(network.node(1).refusal_counts().over_quota, 4);
    let counts = network.node(1).lease_counts();
    assert_eq!((counts.held, counts.waiting), (65_536, 65_536));
    network.put(1, "0", "v", Ack::Local);
    network.run(LIFE_MS + 1);
    let counts = network.node(1).lease_counts();
    assert_eq!((counts.held, counts.waiting, counts.served), (0, 0, 65_536));
}
