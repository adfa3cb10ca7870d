//! Values that are stored with a version from the begin of their computation.

use alloc::vec;

use bytes::Bytes;

use super::{
    network::{Network, address, key},
    prelude::*,
};
use crate::{
    metadata::Metadata,
    purge::{PurgeMode, PurgeTarget},
    store::RETENTION_MS,
    ttl::Ttl,
    version::Basis,
    wire::{Ack, Status},
};

const TAG: &str = "t";

impl Network {
    /// Reads a key at a node. Returns when that began, and what was known of the key.
    fn begin(&mut self, n: u64, name: &str) -> (u64, u64) {
        let began_ms = self.now_ms;
        let id = self.ask(n, Request::Get { key: key(name) });
        self.run(10);
        match self.answers.get(&id) {
            Some(Response::NotFound { known, .. }) => (began_ms, *known),
            other => panic!("{other:?}"),
        }
    }

    /// Stores what was computed since then.
    fn store(&mut self, n: u64, name: &str, (began_ms, known): (u64, u64)) -> Status {
        self.store_computed(n, name, Basis { age_ms: self.now_ms - began_ms, known })
    }

    fn store_computed(&mut self, n: u64, name: &str, basis: Basis) -> Status {
        let mut metadata = Metadata::default();
        metadata.add_tag(TAG).unwrap();
        let id = self.ask(
            n,
            Request::Put {
                key: key(name),
                value: Bytes::from_static(b"v"),
                metadata: metadata.encode(),
                ttl: Ttl::from_secs(3_600).unwrap(),
                ack: Ack::Local,
                version: VersionSource::Computed(basis),
            },
        );
        self.run(50);
        self.written(id).unwrap().status
    }

    fn end(&mut self, n: u64, request: Request) {
        let id = self.ask(n, request);
        self.run(50);
        assert_eq!(self.written(id).unwrap().status, Status::Stored);
    }

    fn is_stored(&self, name: &str) -> bool {
        let values = self.values(name);
        assert!(values.iter().all(|value| *value == values[0]), "{values:?}");
        values[0].is_some()
    }
}

fn delete(name: &str) -> Request {
    Request::Delete { key: key(name), ack: Ack::Local }
}

fn purge(mode: PurgeMode, hold_ms: u64) -> Request {
    let target = PurgeTarget::tag(TAG).unwrap();
    Request::Purge { target, mode, hold_ms, ack: Ack::Local, replayed: None }
}

/// The clocks of these nodes differ by a second.
fn network() -> Network {
    let mut network = Network::six();
    network.ahead_ms.insert(address(1), 900);
    network.ahead_ms.insert(address(5), 500);
    network.run(2_000);
    network
}

#[test]
fn what_was_read_before_a_delete_is_not_stored_after_it() {
    for (reader, deleter, writer) in [(1, 2, 1), (1, 4, 3), (2, 1, 4), (6, 3, 1), (5, 5, 5)] {
        let mut network = network();
        let read = network.begin(reader, "k");
        network.run(1_500);
        network.end(deleter, delete("k"));
        assert_eq!(network.store(writer, "k", read), Status::Superseded);
        assert!(!network.is_stored("k"));
        // The other way round: the value arrives first.
        let read = network.begin(reader, "l");
        network.run(1_500);
        assert_eq!(network.store(writer, "l", read), Status::Stored);
        network.end(deleter, delete("l"));
        assert!(!network.is_stored("l"));
    }
}

#[test]
fn what_is_read_after_a_delete_is_stored_at_once() {
    for (reader, deleter, writer) in [(1, 2, 1), (2, 1, 2), (3, 1, 4), (6, 5, 1)] {
        let mut network = network();
        network.put(deleter, "k", "old", Ack::Local);
        network.run(50);
        network.end(deleter, delete("k"));
        let read = network.begin(reader, "k");
        assert!(read.1 > 0, "the delete is known");
        assert_eq!(network.store(writer, "k", read), Status::Stored);
        assert!(network.is_stored("k"));
    }
}

#[test]
fn what_was_read_before_a_purge_is_not_stored_after_it() {
    for mode in [PurgeMode::Hard, PurgeMode::Soft] {
        for (reader, purger, writer) in [(1, 2, 1), (2, 1, 4), (6, 3, 1), (5, 5, 5)] {
            let mut network = network();
            let read = network.begin(reader, "k");
            network.end(purger, purge(mode, 0));
            assert_eq!(network.store(writer, "k", read), Status::Superseded);
            assert!(!network.is_stored("k"));
            // What is read now was purged before, whichever clock stamped the purge.
            let read = network.begin(reader, "k");
            assert_eq!(network.store(writer, "k", read), Status::Stored);
            assert!(network.is_stored("k"));
        }
    }
}

#[test]
fn a_held_purge_ends_what_is_computed_within_its_time() {
    let mut network = network();
    network.end(2, purge(PurgeMode::Hard, 2_000));
    let read = network.begin(3, "k");
    assert_eq!(network.store(3, "k", read), Status::Superseded);
    // And for the time by which clocks differ.
    network.run(3_500);
    let read = network.begin(3, "k");
    assert_eq!(network.store(3, "k", read), Status::Stored);
}

#[test]
fn of_two_values_that_are_computed_at_once_all_nodes_have_the_same() {
    let mut network = network();
    let reads = [1, 1, 2, 4].map(|n| (n, network.begin(n, "k")));
    let mut stored = vec![];
    for (n, read) in reads {
        stored.push(network.store(n, "k", read));
    }
    assert!(stored.contains(&Status::Stored), "{stored:?}");
    assert!(network.is_stored("k"));
}

#[test]
fn a_value_older_than_the_retention_is_not_stored() {
    let mut network = network();
    let old = Basis { age_ms: RETENTION_MS, known: 0 };
    assert_eq!(network.store_computed(1, "k", old), Status::Superseded);
    assert!(!network.is_stored("k"));
}

#[test]
fn a_caller_cannot_stamp_the_future() {
    let mut network = network();
    let basis = Basis { age_ms: 0, known: u64::MAX };
    assert_eq!(network.store_computed(1, "k", basis), Status::Stored);
    network.end(1, delete("k"));
    assert!(!network.is_stored("k"));
}

#[test]
fn a_delete_by_a_clock_behind_wins_over_what_was_read_before_it() {
    for (reader, deleter) in [(2, 3), (3, 2), (2, 2), (4, 6), (6, 4)] {
        let mut network = network();
        // The clocks of all others follow this purge of something else, which is 900 ms ahead.
        let target = PurgeTarget::tag("other").unwrap();
        let mode = PurgeMode::Hard;
        let other = Request::Purge { target, mode, hold_ms: 0, ack: Ack::All, replayed: None };
        network.end(1, other);
        let read = network.begin(reader, "k");
        assert!(read.1 > 0, "the purge is known");
        network.end(deleter, delete("k"));
        assert_eq!(network.store(reader, "k", read), Status::Superseded, "{reader} {deleter}");
        assert!(!network.is_stored("k"));
    }
}

#[test]
fn a_value_after_a_held_purge_loses_against_later_writes() {
    for deleter in [2, 3] {
        let mut network = network();
        network.end(1, purge(PurgeMode::Hard, 2_000));
        network.run(2_200);
        let read = network.begin(2, "k");
        network.end(deleter, purge(PurgeMode::Hard, 0));
        let status = network.store(2, "k", read);
        assert_eq!(status, Status::Superseded);
        assert!(!network.is_stored("k"));
        let read = network.begin(2, "l");
        network.end(deleter, delete("l"));
        assert_eq!(network.store(2, "l", read), Status::Superseded);
        assert!(!network.is_stored("l"));
    }
}
