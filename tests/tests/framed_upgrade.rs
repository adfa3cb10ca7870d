//! The beginning of a framed connection, byte by byte, and the requests that are none.

use std::io::{Read, Write};
use std::net::SocketAddr;

use bytes::Bytes;
use zerocache_core::wire::{Envelope, RefusalCode, Request, RequestMessage, Response, cluster_id};
use zerocache_net::clock;
use zerocache_net::transport::{MESSAGES_PATH, MESSAGES_TYPE};
use zerocache_tests::frames::{
    CLUSTER, Frame, Framed, RESPONSE, compact_message, hello_message, now_ms, upgrade,
};
use zerocache_tests::http::{self, Answer};
use zerocache_tests::node::Node;
use zerocache_tests::setup::Setup;
use zerocache_tests::transport::refusal;

fn start(connections: &str) -> Node {
    Setup::new("london").flag("--connections", connections).start()
}

/// Returns the answer to a request to upgrade that is not granted.
fn refused(to: SocketAddr, token: &str, message: &[u8]) -> Answer {
    // The connection stays in HTTP; a second request closes it.
    let last = http::request(to, "GET", "/ping", &[], b"");
    let both = [upgrade(to, token, message), last].concat();
    let mut tcp = http::connect(to).expect("connected");
    tcp.write_all(&both).expect("sent");
    let mut bytes = Vec::new();
    tcp.read_to_end(&mut bytes).expect("two answers");
    let (head, rest) = http::split(&bytes).expect("an answer");
    assert!(!head.contains("101"), "{head}");
    let length = http::header(&head, "content-length").and_then(|length| length.parse().ok());
    let (body, pong) = rest.split_at(length.expect("a length"));
    assert!(pong.starts_with(b"HTTP/1.1 200 ") && pong.ends_with(b"pong"), "{head}");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    Answer { status: status.expect("a status"), body: body.to_vec(), head }
}

#[test]
fn upgrade_is_answered_with_101_and_the_nodes_hello() {
    let node = start("framed");
    let mut framed = Framed::open(node.address());
    let header = |name| http::header(&framed.head, name).map(str::to_owned);
    assert_eq!(header("upgrade").as_deref(), Some("zerocache/1"));
    assert_eq!(header("connection").as_deref(), Some("upgrade"));
    assert_eq!(header("content-length"), None, "{}", framed.head);
    let sent_ms: u32 = header("zerocache-sent-ms").expect("it is there").parse().expect("ms");
    let first = framed.first.clone();
    assert_eq!((first.opcode, first.flags, first.id), (RESPONSE, 0, 0));
    assert!(first.sent_ms.wrapping_sub(sent_ms) < 60_000, "one clock for both");
    match Response::decode(Bytes::from(first.payload)) {
        Ok(Response::Hello(hello)) => {
            assert_eq!(hello.cluster, CLUSTER);
            let itself = hello.node.expect("the node itself");
            assert_eq!(
                (itself.region.as_str(), &itself.addresses[..]),
                ("london", &[node.address()][..])
            );
        }
        other => panic!("{other:?}"),
    }
    // Requests leave out the fields of the handshake and of their frame's header.
    assert!(matches!(framed.ask(&compact_message(Request::Ping)), Response::Pong { .. }));
}

#[test]
fn upgrade_token_may_be_one_of_several_in_any_case() {
    let node = start("framed");
    for token in ["ZeroCache/1", "h2c, zerocache/1", "zerocache/2,zerocache/1"] {
        let mut tcp = http::connect(node.address()).expect("connected");
        tcp.write_all(&upgrade(node.address(), token, &hello_message(CLUSTER))).expect("sent");
        let mut head = [0; 13];
        tcp.read_exact(&mut head).expect("an answer");
        assert_eq!(&head, b"HTTP/1.1 101 ", "{token}");
    }
}

#[test]
fn requests_without_a_handshake_are_answered_over_http() {
    let node = start("framed");
    let to = node.address();
    let decoded = |answer: &Answer| {
        assert_eq!(answer.status, 200, "{}", answer.head);
        assert_eq!(answer.header("content-type"), Some(MESSAGES_TYPE));
        Response::decode(Bytes::from(answer.body.clone())).expect("a response")
    };
    let other = decoded(&refused(to, "zerocache/1", &hello_message("other")));
    assert_eq!(refusal(&other), Some(RefusalCode::WrongCluster));
    let envelope = Envelope { cluster: cluster_id(CLUSTER), ..Envelope::default() };
    let ping = RequestMessage { envelope, request: Request::Ping }.encode(clock::mono());
    let pong = decoded(&refused(to, "zerocache/1", &ping));
    assert!(matches!(pong, Response::Pong { .. }), "{pong:?}");
    // Another protocol, or a later one.
    for token in ["websocket", "zerocache/2", "zerocache"] {
        let hello = decoded(&refused(to, token, &hello_message(CLUSTER)));
        assert!(matches!(hello, Response::Hello(_)), "{token}: {hello:?}");
    }
    for message in [&b""[..], b"garbage", &hello_message(CLUSTER)[..20]] {
        let answer = refused(to, "zerocache/1", message);
        assert_eq!((answer.status, answer.code().as_str()), (400, "bad_message"));
    }
    let hello = hello_message(CLUSTER);
    for (method, path, kind) in [
        ("POST", MESSAGES_PATH, "text/plain"),
        ("GET", MESSAGES_PATH, MESSAGES_TYPE),
        ("POST", "/v1/entries/key", MESSAGES_TYPE),
    ] {
        let head = [("Upgrade", "zerocache/1"), ("Content-Type", kind)];
        let answer = http::send(to, method, path, &head, &hello).expect("an answer");
        assert!(matches!(answer.status, 405 | 415), "{}", answer.head);
    }
}

#[test]
fn node_configured_for_http_answers_the_handshake_over_http() {
    let node = start("http");
    let answer = refused(node.address(), "zerocache/1", &hello_message(CLUSTER));
    assert_eq!((answer.status, answer.header("upgrade")), (200, None));
    let response = Response::decode(Bytes::from(answer.body)).expect("a response");
    assert!(matches!(response, Response::Hello(_)), "{response:?}");
}

#[test]
fn fragmented_handshake_is_accepted() {
    let node = start("framed");
    let request = upgrade(node.address(), "zerocache/1", &hello_message(CLUSTER));
    let mut tcp = http::connect(node.address()).expect("connected");
    for piece in request.chunks(7) {
        tcp.write_all(piece).expect("sent");
    }
    // The first request does not wait for the answer.
    let ping = Frame::request(1, &compact_message(Request::Ping));
    tcp.write_all(&ping.to_bytes()).expect("sent");
    let mut bytes = Vec::new();
    let mut room = [0; 4096];
    let mut ids = Vec::new();
    while ids.len() < 2 {
        let count = tcp.read(&mut room).expect("an answer");
        assert!(count > 0, "closed at {now}", now = now_ms());
        bytes.extend_from_slice(&room[..count]);
        let Some((_, mut rest)) = http::split(&bytes) else { continue };
        ids.clear();
        while let Some((frame, end)) = Frame::parse(rest) {
            ids.push(frame.id);
            rest = &rest[end..];
        }
    }
    assert_eq!(ids, [0, 1]);
}

/// The bytes that a page writes in hexadecimal digits.
fn bytes_of(text: &str) -> Vec<u8> {
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    let pair = |at| u8::from_str_radix(&digits[at..at + 2], 16).expect("hexadecimal");
    (0..digits.len()).step_by(2).map(pair).collect()
}

#[test]
fn protocol_page_example_is_answered() {
    let node = start("framed");
    let hello =
        "01 01 09 f9ab90cdaad1b19568 10 16 01 09 7a65726f6361636865 02 01 01 07 06 6c6f6e646f6e";
    let hello = bytes_of(hello);
    assert_eq!(hello.len(), 36);
    let mut tcp = http::connect(node.address()).expect("connected");
    let head = format!(
        "POST /v1/messages HTTP/1.1\r\nHost: {}\r\n\
         Content-Type: application/vnd.zerocache.message\r\nConnection: upgrade\r\n\
         Upgrade: zerocache/1\r\nZerocache-Sent-Ms: 5000\r\nContent-Length: 36\r\n\r\n",
        node.address()
    );
    tcp.write_all(&[head.as_bytes(), &hello].concat()).expect("sent");
    let mut read = Vec::new();
    let mut room = [0; 4096];
    while http::split(&read).is_none_or(|(_, rest)| Frame::parse(rest).is_none()) {
        let count = tcp.read(&mut room).expect("an answer");
        assert!(count > 0, "closed");
        read.extend_from_slice(&room[..count]);
    }
    let (_, rest) = http::split(&read).expect("a head");
    let (first, end) = Frame::parse(rest).expect("a frame");
    assert_eq!((first.id, &first.payload[..2]), (0, &bytes_of("01 01")[..]));
    assert_eq!(rest.len(), end);
    let put = "1d000000 01 00 0000 01000000 89130000 f4010000 05 11 01 6b 12 02 6869 14 03 e0d403";
    let get = "14000000 01 00 0000 02000000 bb130000 f4010000 04 11 01 6b";
    let miss = "17000000 01 00 0000 01000000 bb130000 f4010000 04 11 04 6e6f6e65";
    let unknown = "11000000 01 00 0000 03000000 bb130000 f4010000 63";
    let written = ("06 0a 01 01 0b 01 01 0c 01 01 07 10", "");
    let refused = "08 0e 01 03 0f 1a 756e6b6e6f776e206b696e64206f66206d657373616765203939 10 01 00";
    for (request, id, (begin, end)) in [
        (put, 1, written),
        (get, 2, ("04 05 02 6869 07 10", "08 03")),
        (miss, 1, ("05 09 01 00", "")),
        (unknown, 3, (refused, "")),
    ] {
        tcp.write_all(&bytes_of(request)).expect("sent");
        let mut read = Vec::new();
        let frame = loop {
            if let Some((frame, _)) = Frame::parse(&read) {
                break frame;
            }
            let count = tcp.read(&mut room).expect("an answer");
            assert!(count > 0, "closed");
            read.extend_from_slice(&room[..count]);
        };
        let header = (frame.opcode, frame.flags, frame.extension.len(), frame.id, frame.timeout_ms);
        assert_eq!(header, (RESPONSE, 0, 0, id, 0));
        assert!(frame.payload.starts_with(&bytes_of(begin)), "{:x?}", frame.payload);
        let end = bytes_of(end);
        let ends = frame.payload.windows(end.len().max(1)).any(|part| part == end);
        assert!(end.is_empty() || ends, "{:x?}", frame.payload);
    }
}
