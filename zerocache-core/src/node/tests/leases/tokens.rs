//! Writes with a lease token, and what invalidates it.

use super::*;

#[test]
fn delete_invalidates_the_token_on_every_node() {
    let mut network = Network::three();
    let first = network.lease(1, "k", 0);
    let token = network.token(first);
    let second = network.lease(1, "k", 3_000);
    let third = network.lease(1, "k", 3_000);
    network.run(20);
    network.write(2, "k", WriteOp::Delete, Ack::Local);
    network.run(20);
    let next = network.token(second);
    assert!(next > token);
    assert_eq!(network.lease_reply(third), LeaseReply::Nothing);
    for n in 1..=3 {
        let lost = network.fill(n, "k", "old", token);
        assert_eq!(network.status(lost), Status::Superseded, "{n}");
    }
    network.run(100);
    assert_eq!(network.values("k"), vec![None; 3]);
    let filled = network.fill_with(3, "k", "new", next, Ack::All);
    network.run(20);
    assert_eq!(network.status(filled), Status::Stored);
    assert_eq!(network.lease_reply(third), LeaseReply::Value("new".into()));
    assert_eq!(network.values("k"), vec![Some(String::from("new")); 3]);
    assert_eq!(network.node(1).lease_counts().invalidated, 1);
}

#[test]
fn fill_that_overtakes_the_delete_loses() {
    let mut network = Network::three();
    let id = network.lease(1, "k", 0);
    let token = network.token(id);
    network.run(20);
    network.set_link(2, 3, false);
    network.write(2, "k", WriteOp::Delete, Ack::Local);
    // Node 3 does not know of the delete, and accepts the value.
    let filled = network.fill(3, "k", "old", token);
    assert_eq!(network.status(filled), Status::Stored);
    network.set_link(2, 3, true);
    network.run(3_000);
    assert_eq!(network.values("k"), vec![None; 3]);
}

#[test]
fn delete_by_a_slow_clock_invalidates_the_token() {
    let mut network = Network::default();
    network.start(1, "a", &[]);
    network.start(2, "a", &[1]);
    network.run(3_000);
    // Within what is not put right.
    network.ahead_ms.insert(address(1), 500);
    network.run(100);
    let first = network.lease(1, "k", 0);
    let token = network.token(first);
    let second = network.lease(1, "k", 3_000);
    let deleted = network.write(2, "k", WriteOp::Delete, Ack::Local);
    assert!(network.written(deleted).unwrap().version.unwrap() < token);
    network.run(20);
    assert!(network.token(second) > token);
    for n in [1, 2] {
        let lost = network.fill(n, "k", "old", token);
        assert_eq!(network.status(lost), Status::Superseded, "{n}");
    }
    // A delete that is older than clocks can differ was made before the lease was granted.
    let stamp = (WALL_MS + network.now_ms - 8_000) << 16;
    let record = Record {
        key: key("other"),
        version: Version::new(stamp, Incarnation(9)),
        change: Change::Delete,
    };
    let other = network.lease(1, "other", 0);
    let other = network.token(other);
    network.ask(
        1,
        Request::Replicate(vec![ReplicatedRecord { record, relay: false, witness: false }]),
    );
    network.run(20);
    let filled = network.fill(2, "other", "new", other);
    assert_eq!(network.status(filled), Status::Stored);
}

#[test]
fn superseded_delete_invalidates_the_token() {
    let mut network = Network::default();
    network.start(1, "a", &[]);
    network.start(2, "a", &[1]);
    network.run(3_000);
    let earlier = network.write(1, "k", WriteOp::Delete, Ack::Local);
    let earlier = network.written(earlier).unwrap().version.unwrap();
    let first = network.lease(1, "k", 0);
    let token = network.token(first);
    let second = network.lease(1, "k", 3_000);
    // By a clock that is a little behind, from a node that has not heard of the other delete.
    let version = Version::new(earlier.stamp() - (100 << 16), Incarnation(9));
    let record = Record { key: key("k"), version, change: Change::Delete };
    network.ask(
        1,
        Request::Replicate(vec![ReplicatedRecord { record, relay: false, witness: false }]),
    );
    network.run(20);
    assert!(network.token(second) > token);
    for n in [1, 2] {
        let lost = network.fill(n, "k", "old", token);
        assert_eq!(network.status(lost), Status::Superseded, "{n}");
    }
}

#[test]
fn delete_superseded_by_a_value_deletes_nothing() {
    let mut network = Network::three();
    let put = network.put(1, "k", "new", Ack::All);
    network.run(20);
    let version = network.written(put).unwrap().version.unwrap();
    // The value is to be recomputed although it is fresh.
    let leased = network.lease_over(version, 0);
    let token = network.token(leased);
    // It was made before the value was put, and comes late.
    let version = Version::new(version.stamp() - (100 << 16), Incarnation(9));
    let record = Record { key: key("k"), version, change: Change::Delete };
    network.ask(
        1,
        Request::Replicate(vec![ReplicatedRecord { record, relay: false, witness: false }]),
    );
    network.run(100);
    assert_eq!(network.values("k"), vec![Some(String::from("new")); 3]);
    let filled = network.fill(1, "k", "newer", token);
    assert_eq!(network.status(filled), Status::Stored);
}

#[test]
fn delete_with_the_release_invalidates_only_that_lease() {
    let mut network = Network::three();
    let first = network.lease(1, "k", 0);
    let (second, third) = (network.lease(1, "k", 3_000), network.lease(1, "k", 3_000));
    let token = network.token(first);
    // Below the token, because clocks differ.
    let stamp = token.stamp() - (1_000 << 16);
    let version = Version::new(stamp, Incarnation(9));
    let record = Record { key: key("k"), version, change: Change::Delete };
    let batch = vec![ReplicatedRecord { record, relay: false, witness: false }];
    let (_, deleted) = network.request(Request::Replicate(batch));
    let release = Request::Release { key: key("k"), token, failed: false };
    let (_, released) = network.request(release);
    network.inputs(address(1), [deleted, released]);
    let next = network.token(second);
    assert_eq!(network.lease_reply(third), LeaseReply::Nothing, "the second one computes");
    let filled = network.fill(1, "k", "new", next);
    assert_eq!(network.status(filled), Status::Stored);
    assert_eq!(network.lease_reply(third), LeaseReply::Value("new".into()));
}

#[test]
fn newer_write_ends_the_lease_and_a_stale_value_serves_no_waiter() {
    let mut network = Network::three();
    let first = network.lease(1, "k", 0);
    let second = network.lease(1, "k", 3_000);
    let token = network.token(first);
    // Stale from the beginning: its life is not longer than its stale time.
    let mut stale = Metadata::default();
    stale.stale_while_ms = 60_000;
    let op = WriteOp::Put {
        value: Bytes::from_static(b"stale"),
        metadata: stale.encode(),
        ttl: Ttl::from_secs(60).unwrap(),
    };
    network.run(5);
    network.write(2, "k", op, Ack::Local);
    network.run(20);
    let next = network.token(second);
    assert!(next > token);
    let third = network.lease(1, "k", 3_000);
    assert_eq!(network.lease_reply(third), LeaseReply::Nothing);
    network.put(3, "k", "fresh", Ack::Local);
    network.run(20);
    assert_eq!(network.lease_reply(third), LeaseReply::Value("fresh".into()));
    let lost = network.fill(1, "k", "computed", next);
    assert_eq!(network.status(lost), Status::Superseded);
}

#[test]
fn tokens_of_another_time_are_refused() {
    let mut network = Network::three();
    network.run(400_000);
    let version = |at_ms: u64| Version::new((WALL_MS + at_ms) << 16, Incarnation(1));
    let now_ms = network.now_ms;
    for (at_ms, status) in [
        (now_ms - 361_000, Status::Refused),
        (now_ms + 6_000, Status::Refused),
        (now_ms - 359_000, Status::Stored),
        (now_ms + 4_000, Status::Stored),
    ] {
        let id = network.fill(2, &format!("{at_ms}"), "v", version(at_ms));
        assert_eq!(network.status(id), status, "{at_ms}");
        assert_eq!(network.written(id).unwrap().version.is_some(), status == Status::Stored);
        network.run(20);
        let held = network.values(&format!("{at_ms}")).iter().flatten().count();
        assert_eq!(held, if status == Status::Stored { 3 } else { 0 }, "{at_ms}");
    }
    // A refused token changes no clock.
    let written = network.put(2, "k", "v", Ack::Local);
    let stamped = network.written(written).unwrap().version.unwrap().wall_ms();
    assert!(stamped <= WALL_MS + network.now_ms + 4_000, "{stamped}");
}

#[test]
fn fill_passes_the_usual_checks() {
    let mut network = Network::three();
    let id = network.lease(1, "k", 0);
    let token = network.token(id);
    let waits = network.lease(1, "k", 3_000);
    let id = network.fill(1, "k", &"x".repeat(9 << 20), token);
    assert!(matches!(&network.answers[&id], Response::Refused(refusal)
        if refusal.code == RefusalCode::TooLarge));
    assert_eq!(network.lease_reply(waits), LeaseReply::Nothing);
    let long = network.ask(
        1,
        Request::Lease { key: key(&"k".repeat(1024)), lease_ms: 1, wait_ms: 0, newer_than: None },
    );
    assert!(matches!(network.answers[&long], Response::LeaseGranted { .. }));
    let bytes = Bytes::from(vec![b'k'; 2_000]);
    let longer = Request::Lease {
        key: crate::key::Key::within(bytes, 4_096).unwrap(),
        lease_ms: 1,
        wait_ms: 0,
        newer_than: None,
    };
    let longer = network.ask(1, longer);
    assert!(matches!(&network.answers[&longer], Response::Refused(refusal)
        if refusal.code == RefusalCode::BadKey));
}
