//! Writes on conditions, at one node and at two.

use alloc::{collections::BTreeSet, string::String, vec};

use bytes::Bytes;

use super::{
    network::{Network, address, key},
    prelude::*,
};
use crate::{
    condition::{Condition, ConditionalOp, ConditionalWrite, TakenItem},
    metadata::Metadata,
    purge::{PurgeMode, PurgeTarget},
    ttl::Ttl,
    wire::{Ack, Status, Written},
};

const TAG: &str = "t";

fn seconds(secs: u64) -> Ttl {
    Ttl::from_secs(secs).unwrap()
}

fn put(value: &str) -> ConditionalOp {
    let value = Bytes::copy_from_slice(value.as_bytes());
    ConditionalOp::Put { value, metadata: Bytes::new(), ttl: seconds(60) }
}

/// Fresh for ten seconds, and kept for twenty more.
fn put_with_stale_time() -> ConditionalOp {
    let mut metadata = Metadata::default();
    metadata.stale_while_ms = 20_000;
    metadata.add_tag(TAG).unwrap();
    let (metadata, ttl) = (metadata.encode(), seconds(30));
    ConditionalOp::Put { value: Bytes::from_static(b"old"), metadata, ttl }
}

/// Fresh for a minute after each use, and for three in all.
fn put_with_idle_time() -> ConditionalOp {
    let mut metadata = Metadata::default();
    metadata.add_tag(TAG).unwrap();
    let ttl = metadata.set_idle(seconds(60), seconds(180));
    ConditionalOp::Put { value: Bytes::from_static(b"used"), metadata: metadata.encode(), ttl }
}

fn request(name: &str, condition: Condition, op: ConditionalOp, ack: Ack) -> Request {
    Request::Conditional(Box::new(ConditionalWrite { key: key(name), condition, op, ack }))
}

impl Network {
    fn conditional(&mut self, n: u64, condition: Condition, op: ConditionalOp) -> RequestId {
        self.ask(n, request("k", condition, op, Ack::Local))
    }

    /// Makes a write, and returns the answer, which comes at once.
    fn judged(&mut self, n: u64, condition: Condition, op: ConditionalOp) -> Response {
        let id = self.conditional(n, condition, op);
        self.answers[&id].clone()
    }

    fn met(&mut self, n: u64, condition: Condition, op: ConditionalOp) -> Version {
        match self.judged(n, condition, op) {
            Response::Written(Written {
                status: Status::Stored, version: Some(version), ..
            }) => version,
            other => panic!("{other:?}"),
        }
    }

    fn refusal_of(&mut self, n: u64, condition: Condition, op: ConditionalOp) -> RefusalCode {
        match self.judged(n, condition, op) {
            Response::Refused(refusal) => refusal.code,
            other => panic!("{other:?}"),
        }
    }
}

fn not_met(current: Version) -> Response {
    Response::NotMet { current: Some(current) }
}

const NOTHING: Response = Response::NotMet { current: None };

#[test]
fn one_of_many_that_put_if_absent_is_met() {
    let mut network = Network::six();
    let requests = (0..50).map(|n| {
        let value = alloc::format!("{n}");
        let (id, input) = network.request(request("k", Condition::Absent, put(&value), Ack::Local));
        (id, input)
    });
    let (ids, inputs): (Vec<_>, Vec<_>) = requests.collect::<Vec<_>>().into_iter().unzip();
    network.inputs(address(1), inputs);
    let met: Vec<_> =
        ids.iter().filter(|id| matches!(network.answers[id], Response::Written(_))).collect();
    assert_eq!(met, [&ids[0]]);
    let Response::Written(Written { version: Some(version), .. }) = network.answers[&ids[0]] else {
        panic!("not written");
    };
    assert!(ids[1..].iter().all(|id| network.answers[id] == not_met(version)));
    network.run(100);
    assert_eq!(network.values("k"), vec![Some("0".into()); 6]);
}

#[test]
fn version_is_replaced_once() {
    let mut network = Network::six();
    let first = network.met(1, Condition::Absent, put("a"));
    let second = network.met(1, Condition::Version(first), put("b"));
    assert!(second > first);
    assert_eq!(network.judged(1, Condition::Version(first), put("c")), not_met(second));
    assert_eq!(
        network.judged(1, Condition::Version(first), ConditionalOp::Delete),
        not_met(second)
    );
    network.run(100);
    // The others have it, too: it counts there.
    let third = network.met(2, Condition::Version(second), ConditionalOp::Delete);
    assert!(third > second);
    assert_eq!(network.judged(2, Condition::Version(second), put("d")), NOTHING);
    assert_eq!(network.judged(2, Condition::Version(third), put("d")), NOTHING);
    assert_eq!(network.judged(2, Condition::Present, put("d")), NOTHING);
    network.met(2, Condition::Absent, put("e"));
    network.met(2, Condition::Present, put("f"));
    network.run(100);
    assert_eq!(network.values("k"), vec![Some("f".into()); 6]);
}

#[test]
fn two_nodes_can_both_find_a_condition_met_and_the_higher_version_wins() {
    let mut network = Network::six();
    let one = network.met(1, Condition::Absent, put("at 1"));
    let other = network.met(2, Condition::Absent, put("at 2"));
    network.run(100);
    let winner = if one > other { "at 1" } else { "at 2" };
    assert_eq!(network.values("k"), vec![Some(winner.into()); 6]);
    let (winner, loser) = (one.max(other), one.min(other));
    assert_eq!(network.judged(1, Condition::Version(loser), put("c")), not_met(winner));
    network.met(5, Condition::Version(winner), put("c"));
}

#[test]
fn one_caller_takes_a_value() {
    let mut network = Network::six();
    let stored = network.met(1, Condition::Absent, put("job"));
    network.run(100);
    let taken = network.judged(1, Condition::Present, ConditionalOp::Take);
    let Response::Taken(item) = taken else { panic!("{taken:?}") };
    let TakenItem { value, version, remaining_ms, deleted, .. } = *item;
    assert_eq!((&value[..], version), (&b"job"[..], stored));
    assert_eq!(remaining_ms, 59_900);
    assert!(deleted > stored);
    assert_eq!(network.judged(1, Condition::Present, ConditionalOp::Take), NOTHING);
    network.run(100);
    assert_eq!(network.values("k"), vec![None; 6]);
}

#[test]
fn touch_gives_a_new_version_and_a_new_lifetime() {
    let mut network = Network::six();
    assert_eq!(
        network.judged(1, Condition::Present, ConditionalOp::Touch { ttl: seconds(9) }),
        NOTHING
    );
    let first = network.met(1, Condition::Absent, put("a"));
    network.run(59_000);
    let second = network.met(1, Condition::Present, ConditionalOp::Touch { ttl: seconds(30) });
    assert!(second > first);
    network.run(29_000);
    assert_eq!(network.values("k"), vec![Some("a".into()); 6]);
    network.run(2_000);
    assert_eq!(network.values("k"), vec![None; 6]);
}

#[test]
fn uses_keep_a_value_for_as_long_as_it_may_live() {
    let mut network = Network::six();
    assert_eq!(
        network.judged(1, Condition::Version(Version::new(1, Incarnation(1))), ConditionalOp::Use),
        NOTHING
    );
    let plain = network.met(1, Condition::Absent, put("plain"));
    network.run(30_000);
    let used = network.judged(1, Condition::Version(plain), ConditionalOp::Use);
    assert_eq!(used, not_met(plain), "it has no idle time");
    network.met(1, Condition::Present, ConditionalOp::Delete);
    let first = network.met(1, Condition::Absent, put_with_idle_time());
    let used = network.judged(1, Condition::Version(first), ConditionalOp::Use);
    assert_eq!(used, not_met(first), "its idle time has just begun");
    let (mut version, held) = (first, vec![Some(String::from("used")); 6]);
    for n in 0..4 {
        network.run(40_000);
        let next = network.met(1 + n % 2, Condition::Version(version), ConditionalOp::Use);
        assert!(next > version && next.stamp() == first.stamp(), "directly above it");
        assert_eq!(
            network.judged(1 + n % 2, Condition::Version(version), ConditionalOp::Use),
            not_met(next)
        );
        version = next;
    }
    network.run(19_000);
    assert_eq!(network.values("k"), held);
    let used = network.judged(1, Condition::Version(version), ConditionalOp::Use);
    assert_eq!(used, not_met(version), "it lives no longer");
    network.run(2_000);
    assert_eq!(network.values("k"), vec![None; 6], "after three minutes");
    // Unused it ends after one.
    network.met(1, Condition::Absent, put_with_idle_time());
    network.run(61_000);
    assert_eq!(network.values("k"), vec![None; 6]);
}

#[test]
fn use_loses_against_every_change_that_its_node_does_not_know() {
    for change in 0..3 {
        let mut network = Network::six();
        let first = network.met(1, Condition::Absent, put_with_idle_time());
        network.run(30_000);
        // Neither hears of the other for a while.
        network.set_link(1, 2, false);
        let (value, target) = match change {
            0 => (None, network.met(2, Condition::Present, ConditionalOp::Delete)),
            1 => (Some(String::from("new")), network.met(2, Condition::Present, put("new"))),
            _ => {
                let (target, mode) = (PurgeTarget::tag(TAG).unwrap(), PurgeMode::Hard);
                let purge =
                    Request::Purge { target, mode, hold_ms: 0, ack: Ack::Local, replayed: None };
                network.ask(2, purge);
                (None, first)
            }
        };
        network.run(500);
        let used = network.met(1, Condition::Version(first), ConditionalOp::Use);
        assert!(used > first && (used < target || change == 2));
        network.set_link(1, 2, true);
        network.run(10_000);
        assert_eq!(network.values("k"), vec![value; 6], "change {change}");
    }
}

#[test]
fn stale_value_is_absent_but_has_its_version() {
    let mut network = Network::six();
    let stale = network.met(1, Condition::Absent, put_with_stale_time());
    assert_eq!(network.judged(1, Condition::Absent, put("b")), not_met(stale));
    network.run(11_000);
    assert_eq!(network.judged(1, Condition::Present, ConditionalOp::Take), not_met(stale));
    // Its origin says that it is still right.
    let touch = ConditionalOp::Touch { ttl: seconds(10) };
    assert_eq!(network.judged(1, Condition::Present, touch.clone()), not_met(stale));
    let fresh = network.met(1, Condition::Version(stale), touch);
    assert_eq!(network.judged(1, Condition::Absent, put("b")), not_met(fresh));
    network.run(29_000);
    // All of its stale times are kept.
    assert_eq!(network.values("k"), vec![Some("old".into()); 6]);
    network.met(1, Condition::Absent, put("b"));
}

#[test]
fn purged_value_is_absent() {
    let mut network = Network::six();
    for (mode, at_version) in [(PurgeMode::Hard, NOTHING), (PurgeMode::Soft, Response::Done)] {
        let purged = network.met(1, Condition::Absent, put_with_stale_time());
        let target = PurgeTarget::tag(TAG).unwrap();
        let purge = Request::Purge { target, mode, hold_ms: 0, ack: Ack::Local, replayed: None };
        network.ask(1, purge);
        let touch = ConditionalOp::Touch { ttl: seconds(10) };
        if at_version == NOTHING {
            assert_eq!(network.judged(1, Condition::Version(purged), touch), NOTHING);
        } else {
            let version = network.met(1, Condition::Version(purged), touch);
            network.met(1, Condition::Version(version), ConditionalOp::Delete);
        }
        network.met(1, Condition::Absent, put("b"));
        network.met(1, Condition::Present, ConditionalOp::Delete);
    }
}

#[test]
fn version_that_may_be_on_its_way_is_not_judged() {
    let mut network = Network::six();
    let first = network.met(1, Condition::Absent, put("a"));
    network.run(100);
    network.set_link(1, 2, false);
    let second = network.met(1, Condition::Version(first), put("b"));
    assert_eq!(network.refusal_of(2, Condition::Version(second), put("c")), RefusalCode::Behind);
    assert_eq!(network.judged(2, Condition::Absent, put("c")), not_met(first));
    network.set_link(1, 2, true);
    network.run(4_000);
    network.met(2, Condition::Version(second), put("c"));
    // Nobody stores a version of long ago, or of the far future, any more.
    let wall_ms = super::network::WALL_MS + network.now_ms;
    for ms in [wall_ms - 20_000, wall_ms + 90_000] {
        let never = Condition::Version(Version::new(ms << 16, Incarnation(99)));
        let id = network.ask(2, request("other", never, put("c"), Ack::Local));
        assert_eq!(network.answers[&id], NOTHING);
    }
}

#[test]
fn node_without_authoritative_misses_judges_nothing() {
    let mut network = Network::six();
    network.put(1, "k", "v", Ack::All);
    network.run(100);
    // It was suspended: what it holds may have been deleted or replaced meanwhile.
    network.frozen.insert(address(1));
    network.run(3_000);
    for condition in [Condition::Absent, Condition::Present] {
        assert_eq!(network.refusal_of(1, condition, put("b")), RefusalCode::Warming);
    }
    network.start_unsettled(7, "a", &[1], 60_000);
    assert_eq!(network.refusal_of(7, Condition::Absent, put("b")), RefusalCode::Overloaded);
    network.frozen.clear();
    network.run(10_000);
    network.met(1, Condition::Present, put("b"));
}

#[test]
fn conditional_write_waits_for_replicas() {
    let mut network = Network::six();
    let id = network.ask(1, request("k", Condition::Absent, put("a"), Ack::All));
    assert_eq!(network.answers.get(&id), None);
    network.run(100);
    let written = network.written(id).unwrap();
    assert_eq!((written.status, written.replicas, written.replicas_wanted), (Status::Stored, 4, 4));
    // What is not written waits for nobody, and goes to nobody.
    network.batches.clear();
    let id = network.ask(1, request("k", Condition::Absent, put("a"), Ack::All));
    assert_eq!(network.answers[&id], not_met(written.version.unwrap()));
    network.run(100);
    let sent: BTreeSet<_> = network.batches.iter().map(|(from, ..)| *from).collect();
    assert_eq!(sent, BTreeSet::new());
}

#[test]
fn conditional_value_has_the_limits_of_any_value() {
    let mut network = Network::six();
    let value = Bytes::from(vec![0; 9 << 20]);
    let op = ConditionalOp::Put { value, metadata: Bytes::new(), ttl: seconds(60) };
    assert_eq!(network.refusal_of(1, Condition::Absent, op), RefusalCode::TooLarge);
    let reserved = PurgeTarget::Everything.key(PurgeMode::Hard);
    let write = ConditionalWrite {
        key: reserved,
        condition: Condition::Absent,
        op: put("v"),
        ack: Ack::Local,
    };
    let id = network.ask(1, Request::Conditional(Box::new(write)));
    let Response::Refused(refusal) = &network.answers[&id] else { panic!("not refused") };
    assert_eq!(refusal.code, RefusalCode::BadKey);
}
