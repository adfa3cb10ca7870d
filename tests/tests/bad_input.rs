//! Malformed and abusive input on plain sockets to a real node: each is refused clearly or cut off,
//! nothing of it is stored, it is counted, and other clients are served.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};

use zerocache_tests::cluster::Cluster;
use zerocache_tests::http;
use zerocache_tests::node::Node;
use zerocache_tests::poll::{timed, until_true};
use zerocache_tests::setup::Setup;

/// The largest value of the nodes here.
const VALUE_BYTES_MAX: usize = 8 << 20;

/// More than the kernel buffers for a connection that is not read.
const KERNEL_BYTES_MAX: usize = 16 << 20;

/// An entry that exists before each bad input and must still exist after it.
const KEPT: &[u8] = b"kept";

fn start() -> Node {
    let node = Setup::new("london").start();
    node.put(KEPT, b"value", "ttl=300");
    node
}

/// The node serves others as before and has stored nothing more.
fn goes_on(node: &Node, entries: u64) {
    assert_eq!(node.value(KEPT).as_deref(), Some(&b"value"[..]));
    node.put(KEPT, b"value", "ttl=300");
    assert_eq!(node.stat("entries"), entries);
    assert!(node.is_ready());
}

/// The status of the answer; none when the node closed the connection without one.
fn status(to: SocketAddr, request: &[u8]) -> Option<u16> {
    match http::raw(to, request) {
        Ok(answer) => Some(answer.status),
        Err(error) if error.kind() == ErrorKind::WouldBlock => panic!("the node says nothing"),
        Err(_) => None,
    }
}

fn is_refused(status: Option<u16>) -> bool {
    status.is_none_or(|status| (400..500).contains(&status))
}

#[test]
fn requests_with_ambiguous_or_broken_heads_are_refused() {
    let node = start();
    let put = "PUT /v1/entries/new HTTP/1.1\r\nHost: x\r\n";
    let many = "X-Filler: x\r\n".repeat(500);
    let long = format!("X-Filler: {}\r\n", "x".repeat(100_000));
    let heads = [
        format!("{put}Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd"),
        format!("{put}Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc"),
        format!(
            "{put}Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
        ),
        format!(
            "{put}Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
        ),
        format!("{put}Transfer-Encoding: gzip, chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
        format!("{put}Content-Length: -3\r\n\r\nabc"),
        format!("{put}Content-Length: +3\r\n\r\nabc"),
        format!("{put}Content-Length: 3, 3\r\n\r\nabc"),
        format!("{put}Content-Length: three\r\n\r\nabc"),
        format!("{put}Content-Length: 18446744073709551616\r\n\r\nabc"),
        format!("{put}Content-Length: 18446744073709551614\r\n\r\nabc"),
        format!("{put}Host: y\r\nContent-Length: 3\r\n\r\nabc"),
        format!("{put}{many}Content-Length: 3\r\n\r\nabc"),
        format!("{put}{long}Content-Length: 3\r\n\r\nabc"),
        format!("{put}No colon\r\nContent-Length: 3\r\n\r\nabc"),
        "PUT /v1/entries/new HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc".to_owned(),
        "PUT /v1/entries/n ew HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc".to_owned(),
        "PUT /v1/entries/new HTTP/7.0\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc".to_owned(),
        "PUT /v1/entries/new HTTP/1.0\r\nConnection: close\r\n\r\nabc".to_owned(),
        "POST /v1/messages HTTP/1.0\r\n\r\nabc".to_owned(),
        "PUT\r\n\r\n".to_owned(),
        "\0\x01\x02 garbage\r\n\r\n".to_owned(),
        "\x16\x03\x01\x02\0\x01\0\x01\u{fc}\x03\r\n\r\n".to_owned(),
        format!("PUT /v1/entries/{} HTTP/1.1\r\nHost: x\r\n\r\n", "k".repeat(70_000)),
    ];
    let before = node.stat("bad_requests");
    let mut answered = 0;
    for head in &heads {
        let shown: String = head.chars().take(120).collect();
        // A closed connection is a refusal too; an answer has one form, whoever found the fault.
        let Ok(answer) = http::raw(node.address(), head.as_bytes()) else { continue };
        assert!(is_refused(Some(answer.status)), "{} for {shown:?}", answer.status);
        assert_eq!(answer.code(), "bad_request", "{} for {shown:?}", answer.head);
        assert_eq!(answer.header("content-type"), Some("application/json"), "{shown:?}");
        answered += 1;
    }
    assert!(answered > heads.len() / 2, "{answered} of {} were answered", heads.len());
    goes_on(&node, 1);
    let counted = node.stat("bad_requests") - before;
    assert_eq!(counted, heads.len() as u64, "each is counted");
}

#[test]
fn half_a_body_is_never_stored() {
    let cluster = Cluster::start(&["london", "london"]);
    let node = &cluster[0];
    node.put(KEPT, b"value", "ttl=300&ack=all");
    let before = node.stat("bodies_incomplete");
    let target = "PUT /v1/entries/kept HTTP/1.1\r\nHost: x\r\n";
    let bodies = [
        format!("{target}Content-Length: 100\r\n\r\nonly the beginning"),
        format!("{target}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"),
        format!("{target}Transfer-Encoding: chunked\r\n\r\n5\r\nhel"),
        format!("{target}Transfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n0\r\n\r\n"),
        format!("{target}Transfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n0\r\n\r\n"),
        format!("{target}Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\nhello\r\n"),
    ];
    for body in &bodies {
        for end in [Shutdown::Write, Shutdown::Both] {
            let mut tcp = http::connect(node.address()).expect("connected");
            tcp.write_all(body.as_bytes()).expect("sent");
            let _closed_already = tcp.shutdown(end);
            let status = http::finish(tcp).ok().map(|answer| answer.status);
            assert!(is_refused(status), "{status:?} for {body:?}");
        }
    }
    // Those that cut the connection may be noticed a little later.
    let all = 2 * bodies.len() as u64;
    until_true("each is counted", || node.stat("bodies_incomplete") - before == all);
    for node in &cluster.nodes {
        goes_on(node, 1);
    }
}

#[test]
fn oversized_body_is_refused_before_it_arrives() {
    let node = start();
    let before = node.stat("bodies_too_large");
    let target = "PUT /v1/entries/new HTTP/1.1\r\nHost: x\r\nConnection: close\r\n";
    for length in [VALUE_BYTES_MAX as u64 + 1, 1 << 40, 1 << 63] {
        // Not one byte of the body is sent, with and without asking.
        for expect in ["", "Expect: 100-continue\r\n"] {
            let head = format!("{target}{expect}Content-Length: {length}\r\n\r\n");
            let answer = http::raw(node.address(), head.as_bytes()).expect("an answer");
            assert_eq!((answer.status, answer.code().as_str()), (413, "too_large"), "{length}");
        }
    }
    let mut tcp = http::connect(node.address()).expect("connected");
    let head = format!("{target}Transfer-Encoding: chunked\r\n\r\n");
    tcp.write_all(head.as_bytes()).expect("sent");
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x1_0000)).into_bytes();
    let mut sent = 0;
    // A body without an end: the node stops reading, whatever is still sent.
    while sent <= VALUE_BYTES_MAX + KERNEL_BYTES_MAX && tcp.write_all(&chunk).is_ok() {
        sent += chunk.len();
    }
    let status = http::finish(tcp).ok().map(|answer| answer.status);
    assert!(is_refused(status), "{status:?}");
    let largest = vec![7; VALUE_BYTES_MAX];
    node.put(b"largest", &largest, "ttl=300");
    goes_on(&node, 2);
    assert_eq!(node.stat("bodies_too_large") - before, 7, "each is counted");
}

#[test]
fn invalid_parameters_paths_and_methods_are_refused() {
    let node = start();
    let cases = [
        ("PUT", "/v1/entries/new?ttl=0", 400, "bad_ttl"),
        ("PUT", "/v1/entries/new?ttl=-1", 400, "bad_ttl"),
        ("PUT", "/v1/entries/new?ttl=1.5", 400, "bad_ttl"),
        ("PUT", "/v1/entries/new?ttl=", 400, "bad_ttl"),
        ("PUT", "/v1/entries/new?ttl=1e3", 400, "bad_ttl"),
        ("PUT", "/v1/entries/new?ttl=%2B5", 400, "bad_ttl"),
        ("PUT", "/v1/entries/new?ttl=100000000", 400, "bad_ttl"),
        ("PUT", "/v1/entries/new?ttl=99999999999999999999", 400, "bad_ttl"),
        ("PUT", "/v1/entries/new?ttl=99999999&stale-while=1", 400, "bad_ttl"),
        ("PUT", "/v1/entries/new?ttl=5&ttl=6", 400, "bad_query"),
        ("PUT", "/v1/entries/new?tll=5", 400, "bad_query"),
        ("PUT", "/v1/entries/new?ack=some", 400, "bad_query"),
        ("PUT", "/v1/entries/new?ttl=%", 400, "bad_query"),
        ("PUT", "/v1/entries/new?ttl=%FF", 400, "bad_query"),
        ("GET", "/v1/entries/kept?ttl=5", 400, "bad_query"),
        ("DELETE", "/v1/entries/kept?force", 400, "bad_query"),
        ("PUT", "/v1/entries/%", 400, "bad_key"),
        ("PUT", "/v1/entries/a%2", 400, "bad_key"),
        ("PUT", "/v1/entries/%zz", 400, "bad_key"),
        ("PUT", "/v1/entries/%+1", 400, "bad_key"),
        ("DELETE", "/v1/entries/kept%", 400, "bad_key"),
        ("PUT", "/v1/entries/", 400, "bad_key"),
        ("PUT", "/v1/entries", 404, "no_such_path"),
        ("GET", "/", 404, "no_such_path"),
        ("PUT", "/london/new?expiry=5", 404, "no_such_path"),
        ("POST", "/v1/entries/kept", 405, "method_not_allowed"),
        ("PATCH", "/v1/entries/kept", 405, "method_not_allowed"),
        ("BREW", "/v1/entries/kept", 405, "method_not_allowed"),
        ("PUT", "/v1/cluster", 405, "method_not_allowed"),
        ("DELETE", "/readyz", 405, "method_not_allowed"),
        ("GET", "/v1/messages", 405, "method_not_allowed"),
        ("POST", "/v1/messages", 415, "bad_content_type"),
    ];
    for (method, target, status, code) in cases {
        let answer = node.http(method, target, b"body");
        let got = (answer.status, answer.code());
        assert_eq!(got, (status, code.to_owned()), "{method} {target}: {}", answer.json());
        assert_eq!(answer.header("content-type"), Some("application/json"), "{method} {target}");
    }
    goes_on(&node, 1);
}

#[test]
fn headers_that_change_what_a_write_means_are_refused() {
    let node = start();
    let cases = [
        ("PUT", "Content-Range: bytes 4-9/10", 400, "unsupported_header"),
        ("PUT", "If-Match: \"x\", \"y\"", 400, "unsupported_header"),
        ("PUT", "If-None-Match: \"x\"", 400, "unsupported_header"),
        ("PUT", "If-Match: *\r\nIf-None-Match: *", 400, "unsupported_header"),
        ("PUT", "If-Unmodified-Since: Sat, 29 Oct 2022 19:43:31 GMT", 400, "unsupported_header"),
        ("DELETE", "If-Modified-Since: Sat, 29 Oct 2022 19:43:31 GMT", 400, "unsupported_header"),
        ("PUT", "Content-Encoding: gzip br", 415, "unsupported_encoding"),
        ("PUT", "Content-Type: png", 415, "bad_content_type"),
    ];
    for (method, line, status, code) in cases {
        let request = format!(
            "{method} /v1/entries/kept HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{line}\r\n\
             Content-Length: 4\r\n\r\nbody"
        );
        let answer = http::raw(node.address(), request.as_bytes()).expect("an answer");
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{line}");
    }
    let identity = "PUT /v1/entries/kept HTTP/1.0\r\nContent-Encoding: identity\r\n\
        Content-Length: 5\r\n\r\nvalue";
    assert_eq!(status(node.address(), identity.as_bytes()), Some(200));
    goes_on(&node, 1);
}

#[test]
fn parser_errors_follow_pending_answers() {
    let node = start();
    let mut tcp = http::connect(node.address()).expect("connected");
    tcp.write_all(b"GET /v1/entries/kept HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
    let mut first = [0; 1_024];
    let count = tcp.read(&mut first).expect("an answer");
    assert!(first[..count].starts_with(b"HTTP/1.1 200 "), "{}", first[..count].escape_ascii());
    tcp.write_all(b"\x01\r\n\r\n").expect("sent");
    let second = http::finish(tcp).expect("an answer");
    assert_eq!((second.status, second.code().as_str()), (400, "bad_request"));
    goes_on(&node, 1);
}

#[test]
fn slow_and_silent_clients_delay_nobody() {
    let node = start();
    let mut clients: Vec<_> =
        (0..100).map(|_| http::connect(node.address()).expect("connected")).collect();
    let head = b"PUT /v1/entries/new HTTP/1.1\r\nContent-Length: 3\r\nHost: x\r\n\r\nabc";
    // Most of them send all but the last byte, one at a time; some send nothing.
    let (_, took) = timed(|| {
        for byte in &head[..head.len() - 1] {
            for client in &mut clients[..80] {
                client.write_all(&[*byte]).expect("sent");
            }
        }
        goes_on(&node, 1);
    });
    // They are open still: a whole request may come yet.
    let cut = took.as_secs() >= 4;
    for client in &mut clients[..80] {
        let mut room = [0; 16];
        client.set_nonblocking(true).expect("not blocking");
        let quiet = client.read(&mut room).is_err_and(|e| e.kind() == ErrorKind::WouldBlock);
        assert!(quiet || cut, "answered before the request was complete");
    }
    drop(clients);
    goes_on(&node, 1);
}
