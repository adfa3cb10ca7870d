//! Purges among nodes.

use alloc::{string::String, vec};

use bytes::Bytes;

use super::{
    network::{Network, address, key},
    prelude::*,
};
use crate::{
    metadata::Metadata,
    purge::{PurgeMode, PurgeTarget, TargetId},
    store::RETENTION_MS,
    ttl::Ttl,
    wire::{Ack, Status, features},
};

fn tag(name: &str) -> PurgeTarget {
    PurgeTarget::tag(name).unwrap()
}

impl Network {
    fn put_tagged(&mut self, n: u64, name: &str, tag: &str, token: Option<Version>) -> RequestId {
        let mut metadata = Metadata::default();
        metadata.add_tag(tag).unwrap();
        self.ask(
            n,
            Request::Put {
                key: key(name),
                value: Bytes::from_static(b"v"),
                metadata: metadata.encode(),
                ttl: Ttl::from_secs(3_600).unwrap(),
                ack: Ack::Local,
                version: token.into(),
            },
        )
    }

    fn purge(&mut self, n: u64, target: PurgeTarget, replayed: Option<Version>) -> RequestId {
        self.held_purge(n, target, 0, replayed)
    }

    fn held_purge(
        &mut self,
        n: u64,
        target: PurgeTarget,
        hold_ms: u64,
        replayed: Option<Version>,
    ) -> RequestId {
        let (mode, ack) = (PurgeMode::Hard, Ack::All);
        self.ask(n, Request::Purge { target, mode, hold_ms, ack, replayed })
    }

    fn status_of(&self, id: RequestId) -> Status {
        self.written(id).unwrap().status
    }
}

#[test]
fn purge_reaches_every_node_and_ends_what_a_cut_node_holds() {
    let mut network = Network::six();
    for n in 1..=6 {
        network.put_tagged(n, &alloc::format!("k{n}"), "a", None);
    }
    network.run(50);
    network.frozen.insert(address(6));
    let id = network.purge(3, tag("a"), None);
    network.run(2_100);
    let written = network.written(id).unwrap();
    assert_eq!(written.status, Status::Stored);
    assert!(written.replicas >= 3, "{written:?}");
    network.frozen.clear();
    network.run(6_000);
    for n in 1..=6 {
        assert_eq!(network.values(&alloc::format!("k{n}")), vec![None::<String>; 6]);
    }
    // The same purge again ends nothing newer.
    network.put_tagged(1, "new", "a", None);
    network.run(50);
    let again = network.purge(2, tag("a"), written.version);
    network.run(200);
    assert_eq!(network.status_of(again), Status::Stored);
    assert_eq!(network.values("new"), vec![Some("v".into()); 6]);
}

#[test]
fn purge_is_repeated_with_a_version_of_the_past_alone() {
    let mut network = Network::six();
    let id = network.purge(1, tag("a"), None);
    network.run(200);
    let version = network.written(id).unwrap().version.unwrap();
    let future = Version::new(version.stamp() + (3_000 << Version::COUNTER_BITS), Incarnation(9));
    let old =
        Version::new(version.stamp() - (RETENTION_MS << Version::COUNTER_BITS), Incarnation(9));
    let [future, old] = [future, old].map(|version| network.purge(2, tag("b"), Some(version)));
    network.run(200);
    for id in [future, old] {
        let response = network.answers.get(&id);
        assert!(
            matches!(response, Some(Response::Refused(one)) if one.code == RefusalCode::BadMessage)
        );
    }
    let value = network.put_tagged(3, "k", "b", None);
    network.run(50);
    assert_eq!(network.status_of(value), Status::Stored);
}

#[test]
fn value_computed_before_a_purge_loses_and_the_lease_passes_on() {
    let mut network = Network::six();
    let lease = |key| Request::Lease { key, lease_ms: 5_000, wait_ms: 5_000, newer_than: None };
    let first = network.ask(1, lease(key("k")));
    let waiting = network.ask(1, lease(key("k")));
    network.run(20);
    let Some(Response::LeaseGranted { token }) = network.answers.get(&first).cloned() else {
        panic!("a lease");
    };
    network.purge(4, tag("a"), None);
    network.run(50);
    let late = network.put_tagged(1, "k", "a", Some(token));
    network.run(50);
    assert_eq!(network.status_of(late), Status::Superseded);
    let Some(Response::LeaseGranted { token: next }) = network.answers.get(&waiting).cloned()
    else {
        panic!("the lease");
    };
    assert!(next > token);
    let fresh = network.put_tagged(1, "k", "a", Some(next));
    network.run(50);
    assert_eq!(network.status_of(fresh), Status::Stored);
    assert_eq!(network.values("k"), vec![Some("v".into()); 6]);
}

#[test]
fn hold_refuses_values_of_the_next_moments() {
    let mut network = Network::six();
    network.held_purge(1, tag("a"), 1_000, None);
    network.run(500);
    let early = network.put_tagged(5, "k", "a", None);
    let other = network.put_tagged(5, "k", "b", None);
    network.run(50);
    assert_eq!(network.status_of(early), Status::Superseded);
    assert_eq!(network.written(early).unwrap().version, None, "no node has such a version");
    assert_eq!(network.status_of(other), Status::Stored);
    network.run(600);
    let later = network.put_tagged(5, "l", "a", None);
    network.run(50);
    assert_eq!(network.status_of(later), Status::Stored);
    assert_eq!(network.values("l"), vec![Some("v".into()); 6]);
}

#[test]
fn starting_node_learns_purges_and_followers_hear_of_them() {
    let mut network = Network::default();
    network.start(1, "a", &[]);
    network.run(3_000);
    let start = network.ask(1, Request::Follow { since: 0, with_purges: true });
    network.run(1_100);
    let Some(Response::Changes { next, .. }) = network.answers.get(&start).cloned() else {
        panic!("the feed");
    };
    let follow = network.ask(1, Request::Follow { since: next, with_purges: true });
    let unaware = network.ask(1, Request::Follow { since: next, with_purges: false });
    let purge = network.purge(1, tag("a"), None);
    network.run(100);
    let version = network.written(purge).unwrap().version.unwrap();
    let row = (TargetId::of_tag(b"a").0, version.stamp());
    assert!(matches!(
        network.answers.get(&follow),
        Some(Response::Changes { lost: false, purges, .. }) if *purges == [row]
    ));
    let to_unaware = network.answers.get(&unaware);
    assert!(matches!(to_unaware, Some(Response::Changes { lost: true, .. })));
    network.start(2, "a", &[1]);
    network.run(5_000);
    let before = Version::new(version.stamp() - 1, Incarnation(1));
    let late = network.put_tagged(2, "late", "a", Some(before));
    network.run(50);
    assert_eq!(network.status_of(late), Status::Superseded);
}

#[test]
fn reserved_keys_are_for_purges_alone() {
    let mut network = Network::six();
    let reserved = tag("a").key(PurgeMode::Hard);
    let delete = network.ask(1, Request::Delete { key: reserved.clone(), ack: Ack::Local });
    network.run(5);
    let refused = |network: &Network, id| match network.answers.get(&id) {
        Some(Response::Refused(refusal)) => refusal.code,
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(&network, delete), RefusalCode::BadKey);
    network.purge(1, tag("a"), None);
    network.run(50);
    let get = network.ask(1, Request::Get { key: reserved });
    network.run(5);
    assert!(!matches!(network.answers.get(&get), Some(Response::Found { .. })));
}

#[test]
fn node_of_an_earlier_release_passes_purges_on_and_is_named_once() {
    let mut network = Network::default();
    network.start(1, "a", &[]);
    network.without = features::PURGES;
    network.start(2, "a", &[1]);
    network.run(3_000);
    let warnings = network.events.iter().filter(|(at, event)| {
        *at == address(1) && matches!(event, Event::PurgesIgnored(info) if info.incarnation.0 == 2)
    });
    assert_eq!(warnings.count(), 1);
    let id = network.purge(1, tag("a"), None);
    network.run(100);
    let written = network.written(id).unwrap();
    assert_eq!((written.replicas, written.replicas_wanted), (1, 2));
}

#[test]
fn a_purge_that_is_repeated_with_a_longer_hold_ends_more_everywhere() {
    let mut network = Network::six();
    let id = network.purge(1, tag("a"), None);
    network.run(200);
    let version = network.written(id).unwrap().version;
    network.put_tagged(2, "k", "a", None);
    network.run(50);
    assert_eq!(network.values("k"), vec![Some("v".into()); 6]);
    let again = network.held_purge(5, tag("a"), 5_000, version);
    network.run(200);
    assert_eq!(network.status_of(again), Status::Stored);
    assert_eq!(network.values("k"), vec![None::<String>; 6]);
}
