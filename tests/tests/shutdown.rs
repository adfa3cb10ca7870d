//! Graceful shutdown of a node: its callers do not notice, and its writes are not lost.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use zerocache_client::{Status, ZerocacheClient};
use zerocache_tests::cluster::Cluster;
use zerocache_tests::node::Node;
use zerocache_tests::poll::{PATIENCE, StopFlag, timed, until_true};
use zerocache_tests::setup::{Setup, unique_address};

/// The drain time that the nodes are started with, in seconds, and the rest of a shutdown.
const DRAIN_S: u64 = 1;
const REST_S: u64 = 3;

/// Room for a busy machine, in seconds.
const TOLERANCE_S: u64 = 4;

fn cluster(regions: &[&str]) -> Cluster {
    Cluster::start_with(regions, |setup| setup.flag("--drain", format!("{DRAIN_S}s")))
}

/// Reads and writes until the flag is set; every operation must succeed.
fn work(client: &ZerocacheClient, name: usize, stop: &StopFlag, done: &AtomicUsize) -> usize {
    let mut n = 0;
    while !stop.is_set() {
        let shared = client.get("shared").wait().expect("no read fails");
        assert_eq!(shared.as_deref(), Some(&b"x"[..]));
        let key = format!("{name}/{n}");
        let written = client.put(&key, key.as_str(), 300).wait().expect("no write fails");
        assert_eq!(written.status, Status::Stored);
        n += 1;
        done.fetch_add(1, Ordering::Relaxed);
    }
    n
}

#[test]
fn shutdown_under_load_fails_no_operation() {
    let mut cluster = cluster(&["london", "london", "sydney"]);
    let client = cluster.client("london");
    client.put("shared", "x", 300).wait().expect("stored");
    cluster.everywhere(b"shared", |answer| answer.status == 200);
    let mut leaving = cluster.nodes.remove(0);
    let (stop, done) = (StopFlag::default(), AtomicUsize::new(0));
    let counts: Vec<usize> = std::thread::scope(|threads| {
        let end = stop.set_on_drop();
        let (client, stop, done) = (&client, &stop, &done);
        let workers = [0, 1].map(|name| threads.spawn(move || work(client, name, stop, done)));
        until_true("a client under load", || done.load(Ordering::Relaxed) > 50);
        let (code, took) = timed(|| {
            leaving.shut_down();
            leaving.ended().code()
        });
        assert_eq!(code, Some(0), "{}", leaving.log());
        assert!(took.as_secs() <= DRAIN_S + REST_S + TOLERANCE_S, "{took:?}");
        let then = done.load(Ordering::Relaxed);
        until_true("work after it", || done.load(Ordering::Relaxed) > then + 50);
        drop(end);
        workers.map(|worker| worker.join().expect("no operation failed")).into()
    });
    assert_eq!(client.stats().unreachable + client.stats().unknown, 0);
    // The others have all writes of the node that shut down.
    for (name, count) in counts.into_iter().enumerate() {
        for n in 0..count {
            let key = format!("{name}/{n}");
            cluster.everywhere(key.as_bytes(), |answer| answer.body == key.as_bytes());
        }
    }
    cluster.wait_until_joined();
}

#[test]
fn draining_node_is_not_ready_and_still_answers() {
    let mut cluster = Cluster::start_with(&["london", "sydney"], |s| s.flag("--drain", "3s"));
    cluster[0].put(b"key", b"x", "ttl=60&ack=all");
    cluster[0].shut_down();
    until_true("it is not ready", || !cluster[0].is_ready());
    assert_eq!(cluster[0].http("GET", "/healthz", b"").status, 200);
    assert_eq!(cluster[0].value(b"key"), Some(b"x".to_vec()));
    until_true("the other node knows", || {
        cluster[1].cluster().iter().any(|(_, state)| state == "leaving")
    });
    assert_eq!(cluster[0].ended().code(), Some(0));
    until_true("it is forgotten", || cluster[1].cluster().len() == 1);
}

#[test]
fn shutdown_does_not_wait_for_frozen_peers_or_open_connections() {
    let mut cluster = cluster(&["london", "london", "sydney"]);
    let idle = zerocache_tests::http::connect(cluster[0].address()).expect("connected");
    for node in [1, 2] {
        cluster[node].freeze();
    }
    for n in 0..20 {
        cluster[0].put(format!("key {n}").as_bytes(), &[0; 10_000], "ttl=60");
    }
    let (code, took) = timed(|| {
        cluster[0].shut_down();
        cluster[0].ended().code()
    });
    assert_eq!(code, Some(0));
    assert!(took.as_secs() <= DRAIN_S + REST_S + TOLERANCE_S, "{took:?}");
    assert!(took < PATIENCE);
    drop(idle);
}

#[test]
fn used_snapshot_is_not_loaded_again_after_a_crash() {
    let files = tempfile::tempdir().expect("a folder");
    let file = files.path().join("snapshot");
    let start = || {
        let setup = Setup::new("london").flag("--drain", "100ms");
        let node = setup.flag("--snapshot", file.display()).start();
        until_true("a node that is ready", || node.is_ready());
        node
    };
    let mut first = start();
    first.put(b"deleted", b"old", "ttl=600");
    first.put(b"replaced", b"old", "ttl=600");
    first.shut_down();
    assert!(first.ended().success());
    let mut second = start();
    assert_eq!(second.value(b"deleted").as_deref(), Some(&b"old"[..]), "the snapshot is used");
    second.delete(b"deleted", "");
    second.put(b"replaced", b"new", "ttl=600");
    second.kill();
    let third = start();
    assert_eq!(third.value(b"deleted"), None);
    assert_ne!(third.value(b"replaced").as_deref(), Some(&b"old"[..]));
}

#[test]
fn snapshots_are_merged_when_the_older_one_starts_first() {
    let files = tempfile::tempdir().expect("a folder");
    let start = |name: &str, listen, seed| {
        let setup = Setup { listen, ..Setup::new("london").flag("--seed", seed) };
        let file = files.path().join(name);
        let node = setup.flag("--drain", "100ms").flag("--snapshot", file.display()).start();
        until_true("a node that is ready", || node.is_ready());
        node
    };
    let stop = |mut node: Node| {
        node.shut_down();
        assert!(node.ended().success());
    };
    let [at_a, at_b] = [(); 2].map(|()| SocketAddr::from((unique_address(), 7_070)));
    let (a, b) = (start("a", at_a, at_b), start("b", at_b, at_a));
    a.put(b"deleted", b"old", "ttl=600&ack=region");
    a.put(b"kept", b"old", "ttl=600&ack=region");
    until_true("both values", || b.value(b"kept").is_some());
    stop(a);
    // What b alone knows.
    b.delete(b"deleted", "");
    b.put(b"kept", b"new", "ttl=600");
    b.put(b"alone", b"new", "ttl=600");
    stop(b);
    let a = start("a", at_a, at_b);
    assert_eq!(a.value(b"deleted").as_deref(), Some(&b"old"[..]), "nobody else is there");
    let b = start("b", at_b, at_a);
    for (node, name) in [(&b, "b"), (&a, "a")] {
        until_true("the delete", || node.value(b"deleted").is_none());
        for key in [&b"kept"[..], b"alone"] {
            until_true("what b had", || node.value(key).as_deref() == Some(&b"new"[..]));
        }
        assert!(node.log().contains("snapshot loaded"), "{name}: {}", node.log());
    }
}
