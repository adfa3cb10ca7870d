//! Requests that a node finds in its sockets when it resumes.

use std::io::Write;
use std::time::Duration;

use bytes::Bytes;
use zerocache_core::wire::{
    Ack, Envelope, RefusalCode, Request, RequestMessage, Response, cluster_id,
};
use zerocache_net::clock;
use zerocache_tests::cluster::Cluster;
use zerocache_tests::frames::CLUSTER;
use zerocache_tests::http;
use zerocache_tests::messages::{key, put};
use zerocache_tests::node::entry;
use zerocache_tests::poll::until_true;
use zerocache_tests::transport::{TransportKind, refusal, transport_kinds};

/// Longer than a suspension that a node ignores, and shorter than its peers wait.
const FREEZE: Duration = Duration::from_millis(2_250);

/// Lets time pass: it is what these tests are about.
fn wait_until(end: Duration) {
    until_true("the end of the freeze", || clock::elapsed() >= end);
}

#[test]
fn write_queued_in_a_frozen_node_is_refused_unread() {
    let mut cluster = Cluster::start(&["london", "london"]);
    cluster.nodes[0].put(b"k", b"first", "ttl=60&ack=region");
    cluster.nodes[1].freeze();
    let end = clock::elapsed() + FREEZE;
    let mut waiting = http::connect(cluster.nodes[1].address()).expect("the kernel accepts");
    let request = format!(
        "PUT {}?ttl=60 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nConnection: close\r\n\r\nstale",
        entry(b"k")
    );
    waiting.write_all(request.as_bytes()).expect("the kernel buffers");
    cluster.nodes[0].put(b"k", b"second", "ttl=60");
    wait_until(end);
    cluster.nodes[1].resume();
    let answer = http::finish(waiting).expect("an answer");
    assert_eq!((answer.status, answer.code().as_str()), (503, "suspended"));
    assert!(cluster.nodes[1].stat("requests_refused_after_suspend") > 0);
    assert_eq!(cluster.nodes[0].value(b"k").as_deref(), Some(&b"second"[..]));
}

/// A write of `key` that waits for its answer for `timeout_ms`.
fn message(request: Request, timeout_ms: u64) -> Bytes {
    let envelope = Envelope { cluster: cluster_id(CLUSTER), timeout_ms, ..Envelope::default() };
    RequestMessage { envelope, request }.encode(clock::mono())
}

#[test]
fn messages_queued_past_their_deadline_are_refused() {
    for transport in transport_kinds() {
        let mut cluster = Cluster::start(&["london", "london"]);
        cluster[0].put(b"put", b"first", "ttl=60&ack=region");
        cluster[0].put(b"deleted", b"first", "ttl=60&ack=region");
        let mut caller = transport.caller(cluster[1].address());
        // The connection has shown how long a message takes.
        assert!(matches!(caller.ask(&message(Request::Ping, 0)), Response::Pong { .. }));
        cluster[1].freeze();
        let end = clock::elapsed() + FREEZE;
        let delete = Request::Delete { key: key("deleted"), ack: Ack::Local };
        let waiting: Vec<_> = [put("put", "stale"), delete, put("new", "stale")]
            .map(|request| caller.send(&message(request, 1_000), 1_000))
            .into();
        cluster[0].put(b"put", b"second", "ttl=60");
        wait_until(end);
        cluster[1].resume();
        let expected = match transport {
            // Over HTTP the age of a request is unknown, so that all of them are refused.
            TransportKind::Http => RefusalCode::Overloaded,
            TransportKind::Frames => RefusalCode::Expired,
        };
        for sent in waiting {
            assert_eq!(refusal(&caller.response(sent)), Some(expected), "{transport:?}");
        }
        assert_eq!(cluster[0].value(b"put").as_deref(), Some(&b"second"[..]));
        for node in &cluster.nodes {
            assert_eq!(node.value(b"deleted").as_deref(), Some(&b"first"[..]), "{transport:?}");
            assert_eq!(node.value(b"new"), None, "{transport:?}");
        }
    }
}

#[test]
fn body_that_spans_a_freeze_is_refused() {
    let mut cluster = Cluster::start(&["london"]);
    let mut waiting = http::connect(cluster.nodes[0].address()).expect("a connection");
    let head = format!(
        "PUT {}?ttl=60 HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\nConnection: close\r\n\r\nhalf",
        entry(b"k")
    );
    let requests = cluster.nodes[0].stat("requests");
    waiting.write_all(head.as_bytes()).expect("sent");
    // The request counts once its head is read.
    let mut own = 0;
    until_true("the head is read", || {
        own += 1;
        cluster.nodes[0].stat("requests") > requests + own
    });
    cluster.nodes[0].freeze();
    let end = clock::elapsed() + FREEZE;
    waiting.write_all(b"half").expect("the kernel buffers");
    wait_until(end);
    cluster.nodes[0].resume();
    let answer = http::finish(waiting).expect("an answer");
    assert_eq!((answer.status, answer.code().as_str()), (503, "suspended"));
    assert_eq!(cluster.nodes[0].value(b"k"), None);
}

#[test]
fn ttl_is_not_extended_by_a_frozen_receiver() {
    let mut cluster = Cluster::start(&["london", "london"]);
    cluster.nodes[1].freeze();
    let end = clock::elapsed() + FREEZE;
    // Waits in the socket of the frozen node, and carries a remaining lifetime of 60 s.
    cluster.nodes[0].put(b"k", b"v", "ttl=60");
    wait_until(end);
    cluster.nodes[1].resume();
    let remaining = |answer: &http::Answer| {
        answer.header("zerocache-ttl-ms").map(|ms| ms.parse::<i64>().expect("milliseconds"))
    };
    let of_principal = remaining(&cluster.nodes[0].get(b"k")).expect("the principal has it");
    // Whether or not the value arrived: its lifetime is not longer there.
    if let Some(of_replica) = remaining(&cluster.nodes[1].get(b"k")) {
        assert!(of_replica <= of_principal + 250, "{of_replica} ms against {of_principal} ms");
    }
}
