//! The rules of the feed of changes.

use alloc::{format, vec, vec::Vec};

use bytes::Bytes;

use super::{
    network::{Network, address, key},
    prelude::*,
};
use crate::{
    metadata::Metadata,
    purge::{PurgeMode, PurgeTarget, TargetId},
    ttl::Ttl,
    wire::{Ack, ChangeRow, KeyChange},
};

impl Network {
    fn follow(&mut self, n: u64, since: u64) -> RequestId {
        self.ask(n, Request::Follow { since, with_purges: false })
    }

    /// The response to a follower: the next number, whether there is a gap, and the changes.
    fn told(&self, id: RequestId) -> Option<(u64, bool, Vec<KeyChange>)> {
        match self.answers.get(&id)? {
            Response::Changes { next, lost, changes: rows, .. } => {
                Some((*next, *lost, rows.clone()))
            }
            other => panic!("{other:?}"),
        }
    }

    /// Follows once and waits for the answer.
    fn next_changes(&mut self, n: u64, since: u64) -> (u64, bool, Vec<KeyChange>) {
        let id = self.follow(n, since);
        self.run_until(1_100, |network| network.told(id).is_some());
        self.told(id).unwrap()
    }

    fn row(&self, id: RequestId, name: &str) -> KeyChange {
        (key(name).hash().short(), self.written(id).unwrap().version.unwrap().stamp())
    }
}

fn one() -> Network {
    let mut network = Network::default();
    network.start(1, "a", &[]);
    network.run(3_000);
    network
}

#[test]
fn changes_arrive_in_order_from_every_path() {
    let mut network = Network::default();
    for (n, region) in [(1, "a"), (2, "a"), (3, "b")] {
        network.start(n, region, &[1]);
    }
    network.run(3_000);
    let (start, lost, rows) = network.next_changes(1, 0);
    assert!(lost && rows.is_empty());
    let id = network.follow(1, start);
    network.run(200);
    assert_eq!(network.told(id), None);
    let own = network.put(1, "own", "v", Ack::Local);
    let (next, lost, rows) = network.told(id).unwrap();
    assert_eq!((next, lost, rows), (start + 1, false, vec![network.row(own, "own")]));
    // By replication; what comes closely together comes in one answer.
    let id = network.follow(1, next);
    let peer = network.put(2, "peer", "v", Ack::Local);
    let deleted = network.write(2, "own", WriteOp::Delete, Ack::Local);
    network.run(20);
    let rows = vec![network.row(peer, "peer"), network.row(deleted, "own")];
    assert_eq!(network.told(id), Some((start + 3, false, rows)));
    // Changes between two requests.
    let far = network.put(3, "far", "v", Ack::Local);
    network.run(500);
    let row = network.row(far, "far");
    assert_eq!(network.next_changes(1, start + 3), (start + 4, false, vec![row]));
    // A write that is older than what the node has is no change.
    let (next, lost, rows) = network.next_changes(1, start + 4);
    assert_eq!((next, lost, rows.len()), (start + 4, false, 0));
    assert_eq!(network.nodes[&address(1)].feed_counts().changes, 4);
}

#[test]
fn changes_are_not_recorded_without_followers() {
    let mut network = one();
    network.put(1, "a", "v", Ack::Local);
    assert_eq!(network.nodes[&address(1)].feed_counts().changes, 0);
    let (start, lost, _) = network.next_changes(1, 0);
    assert!(lost);
    // For a while after the last request.
    network.run(9_000);
    let b = network.put(1, "b", "v", Ack::Local);
    let row = network.row(b, "b");
    assert_eq!(network.next_changes(1, start), (start + 1, false, vec![row]));
    network.run(11_500);
    network.put(1, "c", "v", Ack::Local);
    assert_eq!(network.nodes[&address(1)].feed_counts().changes, 1);
    let (next, lost, rows) = network.next_changes(1, start + 1);
    assert!(lost && rows.is_empty() && next > start + 1);
}

#[test]
fn follower_too_far_behind_gets_a_gap() {
    let mut network = one();
    let (start, _, _) = network.next_changes(1, 0);
    for n in 0..65_536 {
        network.put(1, &format!("{n}"), "v", Ack::Local);
    }
    let (next, lost, rows) = network.next_changes(1, start);
    assert_eq!((next, lost, rows.len()), (start + 8_192, false, 8_192));
    network.put(1, "one more", "v", Ack::Local);
    let (next, lost, rows) = network.next_changes(1, start);
    assert_eq!((next, lost, rows.len()), (start + 65_537, true, 0));
    // From the future: of another process.
    let (again, lost, _) = network.next_changes(1, next + 9);
    assert_eq!((again, lost), (next, true));
}

#[test]
fn changes_are_batched() {
    let mut network = one();
    let (mut next, _, _) = network.next_changes(1, 0);
    network.run(10);
    let before = network.now_ms;
    let mut answers = 0;
    let mut id = network.follow(1, next);
    for n in 0..100 {
        network.put(1, &format!("{n}"), "v", Ack::Local);
        network.run(1);
        if let Some((after, false, _)) = network.told(id) {
            (next, answers) = (after, answers + 1);
            id = network.follow(1, next);
        }
    }
    let most = (network.now_ms - before) / 5 + 1;
    assert!((most / 2..=most).contains(&answers), "{answers} of {most}");
}

#[test]
fn change_numbers_are_not_valid_after_a_restart() {
    let mut network = one();
    let (start, _, _) = network.next_changes(1, 0);
    network.put(1, "a", "v", Ack::Local);
    network.nodes.clear();
    network.start_in("test", 1, 2, "a", &[]);
    network.run(3_000);
    let (next, lost, _) = network.next_changes(1, start);
    assert!(lost && next > start + 1);
}

#[test]
fn suspended_node_reports_a_gap() {
    let mut network = one();
    let (start, _, _) = network.next_changes(1, 0);
    let id = network.follow(1, start);
    network.run(10);
    // It was suspended.
    network.frozen.insert(address(1));
    network.run(5_000);
    network.frozen.clear();
    network.run(5);
    let (next, lost, _) = network.told(id).unwrap();
    assert!(lost && next > start);
}

#[test]
fn values_dropped_without_a_version_leave_a_gap() {
    let mut network = Network::default();
    network.retention_ms = Some(60_000);
    for (n, region) in [(1, "a"), (2, "a"), (3, "b")] {
        network.start(n, region, &[1]);
    }
    network.run(3_000);
    let (value, metadata) = (Bytes::from_static(b"v"), Bytes::new());
    let put = WriteOp::Put { value, metadata, ttl: Ttl::from_secs(3_600).unwrap() };
    network.write(1, "k", put, Ack::Local);
    network.run(1_000);
    [1, 2].iter().for_each(|n| network.set_link(*n, 3, false));
    network.write(1, "k", WriteOp::Delete, Ack::Local);
    // The tombstone of the delete is gone when the node returns.
    network.run(100_000);
    assert_eq!(network.values("k"), vec![None, None, Some("v".into())]);
    let (mut next, _, _) = network.next_changes(3, 0);
    [1, 2].iter().for_each(|n| network.set_link(*n, 3, true));
    let mut losses = 0;
    while network.values("k")[2].is_some() {
        assert!(network.now_ms < 200_000, "it is given up");
        let (after, lost, rows) = network.next_changes(3, next);
        assert!(rows.iter().all(|(name, _)| *name != key("k").hash().short()));
        (next, losses) = (after, losses + usize::from(lost));
    }
    losses += usize::from(network.next_changes(3, next).1);
    assert!(losses > 0);
    assert_eq!(network.nodes[&address(3)].status(network.now()).repair.entries_dropped, 1);
}

#[test]
fn followers_are_bounded_and_refused_during_shutdown() {
    let mut network = one();
    let (start, _, _) = network.next_changes(1, 0);
    let following: Vec<_> = (0..4_096).map(|_| network.follow(1, start)).collect();
    let more = network.follow(1, start);
    assert!(matches!(&network.answers[&more], Response::Refused(refusal)
        if refusal.code == RefusalCode::Overloaded));
    network.input(address(1), Input::Shutdown);
    for id in following {
        assert!(matches!(&network.answers[&id], Response::Refused(_)));
    }
    let late = network.follow(1, start);
    assert!(matches!(&network.answers[&late], Response::Refused(_)));
    assert_eq!(network.nodes[&address(1)].feed_counts().followers, 0);
}

impl Network {
    fn listen(&mut self, n: u64, since: u64, at_once: bool) -> Response {
        let id = self.ask(n, Request::Listen { since, at_once });
        self.run_until(1_100, |network| network.answers.contains_key(&id));
        self.answers[&id].clone()
    }

    /// The rows of the next response to somebody who listens, and the next number.
    fn heard(&mut self, n: u64, since: u64) -> (u64, Vec<ChangeRow>) {
        match self.listen(n, since, false) {
            Response::ChangeRows { next, lost: false, rows } => (next, rows),
            other => panic!("{other:?}"),
        }
    }

    fn tagged(&mut self, n: u64, name: &str, tags: &[&str]) -> RequestId {
        let mut metadata = Metadata::default();
        tags.iter().for_each(|tag| metadata.add_tag(*tag).unwrap());
        let metadata = metadata.encode();
        let value = Bytes::from_static(b"v");
        let ttl = Ttl::from_secs(3_600).unwrap();
        self.write(n, name, WriteOp::Put { value, metadata, ttl }, Ack::Local)
    }

    fn version_of(&self, id: RequestId) -> crate::version::Version {
        self.written(id).unwrap().version.unwrap()
    }
}

fn short(name: &str) -> u64 {
    key(name).hash().short()
}

#[test]
fn who_listens_hears_versions_deletes_and_tags_before_and_after() {
    let mut network = one();
    let target = |tag: &str| ChangeRow::Target(TargetId::of_tag(tag.as_bytes()));
    let sorted = |mut rows: Vec<ChangeRow>| {
        rows[1..].sort_by_key(|row| match row {
            ChangeRow::Target(target) => target.0,
            other => panic!("{other:?}"),
        });
        rows
    };
    let Response::ChangeRows { next, lost: true, rows } = network.listen(1, 0, false) else {
        panic!("a gap at the beginning")
    };
    assert!(rows.is_empty());
    let put = network.tagged(1, "k", &["a", "b"]);
    let written = ChangeRow::Written { key: short("k"), version: network.version_of(put) };
    let (next, rows) = network.heard(1, next);
    assert_eq!(sorted(rows), sorted(vec![written, target("a"), target("b")]));
    // It loses a tag, and gets another one.
    let put = network.tagged(1, "k", &["b", "c"]);
    let written = ChangeRow::Written { key: short("k"), version: network.version_of(put) };
    let (next, rows) = network.heard(1, next);
    assert_eq!(sorted(rows), sorted(vec![written, target("a"), target("b"), target("c")]));
    let delete = network.write(1, "k", WriteOp::Delete, Ack::Local);
    let deleted = ChangeRow::Deleted { key: short("k"), version: network.version_of(delete) };
    let (next, rows) = network.heard(1, next);
    assert_eq!(sorted(rows), sorted(vec![deleted, target("b"), target("c")]));
    // A purge of a function is one of its namespace, too.
    let function = PurgeTarget::Function { namespace: "shop".into(), id: [7; 16] };
    let namespace = PurgeTarget::namespace("shop").unwrap().id();
    let (mode, ack) = (PurgeMode::Hard, Ack::Local);
    let purge = Request::Purge { target: function.clone(), mode, hold_ms: 0, ack, replayed: None };
    let id = network.ask(1, purge);
    let purged = ChangeRow::Purged { target: function.id(), stamp: network.version_of(id).stamp() };
    assert_eq!(network.heard(1, next).1, [purged, ChangeRow::Target(namespace)]);
}

#[test]
fn tags_are_recorded_only_while_somebody_listens() {
    let mut network = one();
    let (start, _, _) = network.next_changes(1, 0);
    let first = network.tagged(1, "k", &["a"]);
    // What was recorded before comes as it is, and without a gap.
    match network.listen(1, start, false) {
        Response::Changes { next, lost: false, changes, purges } => {
            assert_eq!((next, purges.len()), (start + 1, 0));
            assert_eq!(changes, [network.row(first, "k")]);
        }
        other => panic!("{other:?}"),
    }
    // There is nothing more: at once it is said that details come from here on.
    let before = network.now_ms;
    let nothing = Response::ChangeRows { next: start + 1, lost: false, rows: Vec::new() };
    assert_eq!(network.listen(1, start + 1, true), nothing);
    assert!(network.now_ms - before <= 10);
    let second = network.tagged(1, "k", &["a"]);
    assert_eq!(network.heard(1, start + 1).1.len(), 2);
    // To other followers the same changes are told as ever.
    let row = network.row(second, "k");
    assert_eq!(network.next_changes(1, start + 1), (start + 3, false, vec![row]));
    // After a while without anybody who listens, tags are not recorded any more.
    for _ in 0..12 {
        network.next_changes(1, start + 3);
    }
    network.tagged(1, "k", &["a"]);
    assert_eq!(network.next_changes(1, start + 3).0, start + 4);
}
