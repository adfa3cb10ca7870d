//! Leases and feeds of real nodes that freeze, die or shut down: one caller at a time computes a
//! value.

use std::convert::Infallible;
use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use zerocache_client::memo::LeaseScope;
use zerocache_core::ttl::Ttl;
use zerocache_core::version::{Version, VersionSource};
use zerocache_core::wire::{Ack, Envelope, Request, RequestMessage, Response, Status, cluster_id};
use zerocache_net::clock;
use zerocache_net::transport::{MESSAGES_PATH, MESSAGES_TYPE};
use zerocache_tests::cluster::Cluster;
use zerocache_tests::frames::{CLUSTER, Framed, compact_message};
use zerocache_tests::http;
use zerocache_tests::messages::key;
use zerocache_tests::node::Node;
use zerocache_tests::poll::{until, until_true};
use zerocache_tests::probes::Probes;
use zerocache_tests::security::Keys;

const LIFE_MS: u64 = 10_000;
const WAIT_MS: u64 = 20_000;

/// Two nodes in one region, and one in another.
fn three() -> Cluster {
    Cluster::start_with(&["london", "london", "sydney"], |setup| {
        setup.flag("--connections", "framed")
    })
}

fn lease(name: &str, life_ms: u64, wait_ms: u64) -> Bytes {
    compact_message(Request::Lease { key: key(name), lease_ms: life_ms, wait_ms, newer_than: None })
}

/// The same over HTTP.
fn posted(to: SocketAddr, name: &str, life_ms: u64, wait_ms: u64) -> Vec<u8> {
    let request = Request::Lease { key: key(name), lease_ms: life_ms, wait_ms, newer_than: None };
    let envelope = Envelope { cluster: cluster_id(CLUSTER), ..Envelope::default() };
    let message = RequestMessage { envelope, request }.encode(clock::mono());
    let bearer = Keys::of_this_run().map(|keys| Keys::bearer(keys.admin()));
    let mut head = vec![("content-type", MESSAGES_TYPE)];
    head.extend(bearer.as_deref().map(|bearer| ("authorization", bearer)));
    http::request(to, "POST", MESSAGES_PATH, &head, &message)
}

fn granted(response: &Response) -> Version {
    match response {
        Response::LeaseGranted { token } => *token,
        other => panic!("{other:?}"),
    }
}

/// Acquires the lease of `name`, which must be free.
fn token(caller: &mut Framed, name: &str) -> Version {
    granted(&caller.ask(&lease(name, LIFE_MS, 0)))
}

/// Writes what was computed under a lease.
fn fill(node: &Node, name: &str, value: &'static str, token: Version) -> Status {
    let request = Request::Put {
        key: key(name),
        value: Bytes::from_static(value.as_bytes()),
        metadata: Bytes::new(),
        ttl: Ttl::from_secs(60).expect("a lifetime"),
        ack: Ack::Local,
        version: VersionSource::Given(token),
    };
    match Framed::open(node.address()).ask(&compact_message(request)) {
        Response::Written(written) => written.status,
        other => panic!("{other:?}"),
    }
}

fn value(response: &Response) -> Option<(&[u8], Version)> {
    match response {
        Response::Found { value, version, .. } => Some((value, *version)),
        _ => None,
    }
}

#[test]
fn fifty_concurrent_misses_get_one_grant_wherever_the_value_is_written() {
    let cluster = three();
    for (name, writer) in [("here", 0), ("neighbour", 1), ("far", 2)] {
        let mut callers: Vec<_> = (0..50).map(|_| Framed::open(cluster[0].address())).collect();
        let asked: Vec<_> = callers
            .iter_mut()
            .map(|caller| caller.request(&lease(name, LIFE_MS, WAIT_MS), 0))
            .collect();
        until_true("all of them asked", || cluster[0].stat("lease_waiters") == 49);
        // Connections are read in any order: whoever was first has it.
        for caller in &mut callers {
            caller.stream().set_read_timeout(Some(Duration::from_millis(5))).expect("set");
        }
        let (first, leader) = until("one who computes", || {
            let mut answers = callers.iter_mut().enumerate();
            answers.find_map(|(n, caller)| Some((n, granted(&caller.next_response().ok()?.1))))
        });
        let mut waiting: Vec<_> = callers.into_iter().zip(asked).collect();
        let _leading = waiting.swap_remove(first);
        assert_eq!(fill(&cluster[writer], name, "computed", leader), Status::Stored);
        for (mut caller, id) in waiting {
            caller.stream().set_read_timeout(Some(Duration::from_secs(20))).expect("set");
            let response = caller.response(id);
            assert_eq!(value(&response), Some((&b"computed"[..], leader)));
        }
        let version = leader.to_string();
        cluster.everywhere(name.as_bytes(), |answer| {
            answer.header("zerocache-version") == Some(version.as_str())
        });
    }
    assert_eq!(cluster[0].stat("leases_granted"), 3);
    assert_eq!(cluster[0].stat("lease_hits"), 3 * 49);
    assert_eq!(cluster[0].stat("leases_handed_over"), 0);
    assert_eq!(cluster[0].stat("leases_held"), 0);
}

#[test]
fn delete_in_another_region_voids_the_token_on_every_node() {
    let cluster = three();
    let mut first = Framed::open(cluster[0].address());
    let mut second = Framed::open(cluster[0].address());
    let old = token(&mut first, "k");
    let waits = second.request(&lease("k", LIFE_MS, WAIT_MS), 0);
    until_true("the second one waits", || cluster[0].stat("lease_waiters") == 1);
    cluster[2].delete(b"k", "ack=all");
    let new = granted(&second.response(waits));
    assert!(new > old);
    // The delete has reached the relay before it was acknowledged, and the others soon after; it
    // may have been repeated on the way.
    until_true("a value that lost everywhere", || {
        let fills = cluster.nodes.iter().map(|node| fill(node, "k", "old", old));
        fills.fold(true, |all, status| all & (status == Status::Superseded))
    });
    cluster.everywhere(b"k", |answer| answer.status == 404);
    assert_eq!(cluster[0].stat("leases_invalidated"), 1);
    assert_eq!(fill(&cluster[1], "k", "new", new), Status::Stored);
    cluster.everywhere(b"k", |answer| answer.body == b"new");
}

#[test]
fn waiters_of_a_dead_node_fail_at_once_and_another_node_grants_the_lease() {
    let mut cluster = three();
    let mut holder = Framed::open(cluster[0].address());
    let mut waiter = Framed::open(cluster[0].address());
    let old = token(&mut holder, "k");
    let _waits = waiter.request(&lease("k", LIFE_MS, WAIT_MS), 0);
    until_true("the second one waits", || cluster[0].stat("lease_waiters") == 1);
    let begun = clock::elapsed();
    cluster[0].kill();
    assert!(waiter.next_response().is_err());
    assert!(clock::elapsed() - begun < Duration::from_millis(WAIT_MS / 2), "it waited");
    let mut other = Framed::open(cluster[1].address());
    let new = token(&mut other, "k");
    // The holder of the first lease is alive and is not notified: the later token wins, in any
    // order.
    assert_eq!(fill(&cluster[1], "k", "new", new), Status::Stored);
    assert_eq!(fill(&cluster[1], "k", "old", old.min(new)), Status::Superseded);
    for node in &cluster.nodes[1..] {
        until_true("the new value", || node.value(b"k").as_deref() == Some(b"new"));
    }
}

#[test]
fn resumed_node_answers_its_waiters() {
    let mut cluster = three();
    let mut holder = Framed::open(cluster[0].address());
    let mut waiter = Framed::open(cluster[0].address());
    let old = granted(&holder.ask(&lease("k", 1_000, 0)));
    let waits = waiter.request(&lease("k", LIFE_MS, 500), 0);
    until_true("the second one waits", || cluster[0].stat("lease_waiters") == 1);
    cluster[0].freeze();
    let end = clock::elapsed() + Duration::from_millis(1_200);
    // The value that was computed in the meantime waits in its sockets.
    assert_eq!(fill(&cluster[1], "k", "v", old), Status::Stored);
    until_true("the end of the wait", || clock::elapsed() >= end);
    cluster[0].resume();
    match waiter.response(waits) {
        Response::LeaseHeld => {}
        response => assert_eq!(value(&response), Some((&b"v"[..], old))),
    }
    cluster.everywhere(b"k", |answer| answer.body == b"v");
    until_true("the end of the lease", || cluster[0].stat("leases_held") == 0);
}

#[test]
fn frozen_lease_node_delays_callers_by_at_most_their_wait() {
    let mut cluster = three();
    let client = cluster.client("london");
    let probes = Probes::new();
    let compute = |n: usize| {
        let call = client.get_or_compute(format!("k{n}"), 60, async move || Ok::<_, Infallible>(n));
        call.lease(LeaseScope::Region)
    };
    cluster[1].freeze();
    // Half of the keys are the frozen node's.
    let begun = clock::elapsed();
    let all = probes.block_on(join_all((0..32).map(compute)));
    let took = clock::elapsed() - begun;
    assert!(all.into_iter().enumerate().all(|(n, computed)| computed == Ok(n)));
    assert!(took < Duration::from_secs(10), "{took:?}");
    // Once it is known to be gone, the other one gives all leases.
    until_true("a rotation without it", || {
        let known = client.nodes();
        known.iter().any(|node| node.address == cluster[1].address() && !node.in_rotation)
    });
    let before = cluster[0].stat("leases_granted");
    let all = probes.block_on(join_all((100..132).map(compute)));
    assert!(all.into_iter().enumerate().all(|(n, computed)| computed == Ok(100 + n)));
    assert_eq!(cluster[0].stat("leases_granted"), before + 32);
    cluster[1].resume();
}

#[test]
fn node_that_shuts_down_answers_all_waiters() {
    let mut cluster = three();
    let mut holder = Framed::open(cluster[0].address());
    let mut waiter = Framed::open(cluster[0].address());
    let _token = token(&mut holder, "k");
    let waits = waiter.request(&lease("k", LIFE_MS, WAIT_MS), 0);
    until_true("the second one waits", || cluster[0].stat("lease_waiters") == 1);
    cluster[0].shut_down();
    assert_eq!(waiter.response(waits), Response::LeaseHeld);
    assert!(cluster[0].ended().success());
}

#[test]
fn lease_of_a_suspended_caller_is_handed_over_when_it_expires() {
    let cluster = three();
    let mut still = Framed::open(cluster[0].address());
    let old = granted(&still.ask(&lease("k", 1_500, 0)));
    let mut next = Framed::open(cluster[0].address());
    let begun = clock::elapsed();
    let new = granted(&next.ask(&lease("k", LIFE_MS, WAIT_MS)));
    assert!(new > old);
    assert!(clock::elapsed() - begun < Duration::from_millis(WAIT_MS / 2), "it waited for longer");
    assert_eq!((cluster[0].stat("leases_expired"), cluster[0].stat("leases_handed_over")), (1, 1));
    // It gives its own back, and the next one has it at once.
    let mut third = Framed::open(cluster[0].address());
    let waits = third.request(&lease("k", LIFE_MS, WAIT_MS), 0);
    until_true("the third one waits", || cluster[0].stat("lease_waiters") == 1);
    let release = Request::Release { key: key("k"), token: new, failed: false };
    assert_eq!(next.ask(&compact_message(release)), Response::Done);
    let last = granted(&third.response(waits));
    // A failure is for all.
    let mut fourth = Framed::open(cluster[0].address());
    let waits = fourth.request(&lease("k", LIFE_MS, WAIT_MS), 0);
    until_true("the fourth one waits", || cluster[0].stat("lease_waiters") == 1);
    let release = Request::Release { key: key("k"), token: last, failed: true };
    assert_eq!(third.ask(&compact_message(release)), Response::Done);
    assert_eq!(fourth.response(waits), Response::LeaseHeld);
}

#[test]
fn lease_of_a_dead_caller_is_handed_over_at_once_to_a_live_one() {
    let cluster = three();
    let mut holder = Framed::open(cluster[0].address());
    let old = granted(&holder.ask(&lease("k", 300_000, 0)));
    let mut dead = Framed::open(cluster[0].address());
    let _waits = dead.request(&lease("k", 300_000, 60_000), 0);
    until_true("one waits", || cluster[0].stat("lease_waiters") == 1);
    let mut over_http = http::connect(cluster[0].address()).expect("connected");
    over_http.write_all(&posted(cluster[0].address(), "k", 300_000, 60_000)).expect("sent");
    until_true("two wait", || cluster[0].stat("lease_waiters") == 2);
    let mut next = Framed::open(cluster[0].address());
    let waits = next.request(&lease("k", LIFE_MS, 60_000), 0);
    until_true("three wait", || cluster[0].stat("lease_waiters") == 3);
    drop((dead, over_http));
    until_true("one waits", || cluster[0].stat("lease_waiters") == 1);
    drop(holder);
    let new = granted(&next.response(waits));
    assert!(new > old);
    assert_eq!(
        (cluster[0].stat("leases_disconnected"), cluster[0].stat("leases_handed_over")),
        (1, 1)
    );
    // It had lost nothing but the connection: what it writes now is older than what comes.
    assert_eq!(fill(&cluster[1], "k", "late", old), Status::Stored);
    assert_eq!(fill(&cluster[0], "k", "new", new), Status::Stored);
    cluster.everywhere(b"k", |answer| answer.body == b"new");
}

#[test]
fn feed_reports_changes_of_every_region() {
    let cluster = three();
    let mut follower = Framed::open(cluster[0].address());
    let mut follow = |since: u64| match follower
        .ask(&compact_message(Request::Follow { since, with_purges: true }))
    {
        Response::Changes { next, lost, changes: rows, .. } => (next, lost, rows),
        other => panic!("{other:?}"),
    };
    let (mut since, lost, _) = follow(0);
    assert!(lost);
    let mut seen = Vec::new();
    for (n, node) in cluster.nodes.iter().enumerate() {
        let name = format!("k{n}");
        let written = node.put(name.as_bytes(), b"v", "ttl=60");
        let version: Version =
            written["version"].as_str().expect("a version").parse().expect("one");
        let row = (key(&name).hash().short(), version.stamp());
        until("the change", || {
            let (next, lost, rows) = follow(since);
            assert!(!lost);
            since = next;
            seen.extend(rows);
            seen.contains(&row).then_some(())
        });
    }
    assert_eq!(seen.len(), 3);
    assert_eq!(cluster[0].stat("feed_changes"), 3);
    assert_eq!(cluster[1].stat("feed_changes"), 0, "nobody follows it");
}
