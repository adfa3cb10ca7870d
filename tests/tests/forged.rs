//! Garbage and forged messages to `POST /v1/messages` of a real cluster: each is refused, nothing of
//! it is stored or believed, and the cluster goes on.

use std::io::Write;
use std::net::SocketAddr;

use bytes::Bytes;
use zerocache_core::entry::{Change, Record};
use zerocache_core::key::Key;
use zerocache_core::ttl::Ttl;
use zerocache_core::version::{Incarnation, Version};
use zerocache_core::wire::{
    Ack, Envelope, Hello, NodeInfo, NodeState, PROTOCOL, Receipt, RefusalCode, Request,
    RequestMessage, Response, SHIPMENTS_MAX, Shipment, Status, cluster_id,
};
use zerocache_net::clock;
use zerocache_net::transport::{MESSAGES_PATH, MESSAGES_TYPE};
use zerocache_tests::cluster::Cluster;
use zerocache_tests::http::{self, Answer};
use zerocache_tests::node::Node;
use zerocache_tests::poll::until_true;

/// The name of the cluster that the nodes belong to unless told otherwise.
const CLUSTER: &str = "zerocache";

fn send(to: SocketAddr, message: &[u8]) -> Answer {
    let content_type = ("Content-Type", MESSAGES_TYPE);
    http::send(to, "POST", MESSAGES_PATH, &[content_type], message).expect("an answer")
}

fn key(text: &str) -> Key {
    Key::within(Bytes::copy_from_slice(text.as_bytes()), 1024).expect("a key")
}

fn envelope(cluster: &str) -> Envelope {
    Envelope { cluster: cluster_id(cluster), timeout_ms: 500, ..Envelope::default() }
}

fn encoded(envelope: Envelope, request: Request) -> Bytes {
    RequestMessage { envelope, request }.encode(clock::mono())
}

fn in_cluster(request: Request) -> Bytes {
    encoded(envelope(CLUSTER), request)
}

fn asked(node: &Node, message: &[u8]) -> Response {
    let answer = send(node.address(), message);
    assert_eq!(answer.status, 200, "{}", answer.json());
    Response::decode(Bytes::from(answer.body)).expect("a response")
}

fn put(name: &str) -> Request {
    let value = Bytes::from_static(b"forged value");
    let ttl = Ttl::from_secs(60).expect("a lifetime");
    Request::Put { key: key(name), value, metadata: Bytes::new(), ttl, ack: Ack::Local }
}

fn shipment(name: &str, wall_ms: u64) -> Shipment {
    let (value, expires) = (Bytes::from_static(b"forged"), clock::mono().plus_ms(60_000));
    let change = Change::Put { value, metadata: Bytes::new(), expires };
    let version = Version::new(wall_ms << 16, Incarnation(u64::MAX));
    Shipment { record: Record { key: key(name), version, change }, relay: true }
}

fn hello(cluster: &str, node: Option<NodeInfo>) -> Request {
    Request::Hello(Hello {
        cluster: cluster.to_owned(),
        protocol: PROTOCOL,
        features: u64::MAX,
        auth: Bytes::new(),
        wall_ms: 0,
        node,
        region: "london".to_owned(),
        members: Vec::new(),
    })
}

fn forged_node(region: &str, address: SocketAddr) -> NodeInfo {
    NodeInfo {
        incarnation: Incarnation(0xbad),
        region: region.to_owned(),
        zone: None,
        addresses: vec![address],
        state: NodeState::InSync,
        bytes_max: u64::MAX,
    }
}

/// Every node serves, knows exactly the others, and replicates; `entries` are stored on each.
fn goes_on(cluster: &Cluster, entries: u64) {
    cluster.wait_until_joined();
    for (number, node) in cluster.nodes.iter().enumerate() {
        let value = format!("from {number}").into_bytes();
        node.put(b"kept", &value, "ttl=300&ack=all");
        cluster.everywhere(b"kept", |answer| answer.body == value);
        assert_eq!(node.stat("panics"), 0);
    }
    for node in &cluster.nodes {
        assert_eq!(node.stat("entries"), entries);
    }
}

/// Pseudo-random numbers with a fixed seed (xorshift64).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % end
    }
}

/// Is it a refusal, over HTTP or in the protocol's own terms?
fn is_refused(answer: &Answer) -> bool {
    match answer.status {
        200 => matches!(Response::decode(answer.body.clone().into()), Ok(Response::Refused(_))),
        400..500 => !answer.code().is_empty(),
        _ => false,
    }
}

#[test]
fn garbage_and_truncated_messages_are_refused_and_counted() {
    let cluster = Cluster::start(&["london", "london", "sydney"]);
    let to = cluster[0].address();
    goes_on(&cluster, 1);
    let before = cluster[0].stat("bad_messages");
    let (mut numbers, mut sent) = (Numbers(0x5eed), 0);
    for _ in 0..300 {
        let length = numbers.below(200);
        let garbage: Bytes = (0..length).map(|_| numbers.below(256) as u8).collect();
        sent += u64::from(RequestMessage::decode(garbage.clone(), clock::mono()).is_err());
        let answer = send(to, &garbage);
        assert!(is_refused(&answer), "{} for {garbage:?}", answer.status);
    }
    let whole = [
        in_cluster(put("truncated")),
        in_cluster(Request::Replicate(vec![shipment("truncated", clock::now().wall_ms)])),
        in_cluster(hello(CLUSTER, Some(forged_node("london", to)))),
    ];
    for message in &whole {
        for end in 0..message.len() {
            let part = message.slice(..end);
            // Some parts are whole messages: what is missing is optional.
            if RequestMessage::decode(part.clone(), clock::mono()).is_err() {
                sent += 1;
                let answer = send(to, &part);
                let got = (answer.status, answer.code());
                assert_eq!(got, (400, "bad_message".to_owned()), "{end} of {message:?}");
            }
        }
    }
    assert_eq!(cluster[0].stat("bad_messages") - before, sent, "each is counted");
    goes_on(&cluster, 1);
}

#[test]
fn messages_that_claim_too_much_are_refused() {
    let cluster = Cluster::start(&["london", "sydney"]);
    let to = cluster[0].address();
    let huge = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
    let mut claims: Vec<Vec<u8>> = Vec::new();
    for tag in 0..40 {
        for start in [&in_cluster(Request::Ping)[..], &in_cluster(put("claims"))[..]] {
            // A field that says it is as long as can be, and one that is a gigabyte.
            claims.push([start, &[tag], &huge].concat());
            claims.push([start, &[tag, 0x80, 0x80, 0x80, 0x80, 0x04], b"x"].concat());
        }
    }
    claims.push(huge.to_vec());
    claims.push(vec![0xff; 1 << 16]);
    let one = shipment("claims", clock::now().wall_ms);
    claims.push(in_cluster(Request::Replicate(vec![one; SHIPMENTS_MAX + 1])).to_vec());
    let addresses = (0..100).map(|port| SocketAddr::new([127, 0, 0, 1].into(), port));
    let many = NodeInfo { addresses: addresses.collect(), ..forged_node("london", to) };
    claims.push(in_cluster(hello(CLUSTER, Some(many))).to_vec());
    for claim in &claims {
        let answer = send(to, claim);
        assert!(is_refused(&answer), "{} for {:?}", answer.status, &claim[..claim.len().min(80)]);
    }
    // The largest message that a node takes is bounded before it is there.
    let head = format!(
        "POST {MESSAGES_PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: {MESSAGES_TYPE}\r\n\
         Content-Length: {}\r\n\r\n",
        1u64 << 30
    );
    let answer = http::raw(to, head.as_bytes()).expect("an answer");
    assert_eq!((answer.status, answer.code().as_str()), (413, "too_large"));
    goes_on(&cluster, 1);
}

#[test]
fn messages_of_another_cluster_or_for_another_node_are_refused() {
    let cluster = Cluster::start(&["london", "sydney"]);
    let to_nobody = Envelope { to: Some(Incarnation(0xbad)), ..envelope(CLUSTER) };
    let wall_ms = clock::now().wall_ms;
    let requests = || {
        let replicate = Request::Replicate(vec![shipment("foreign", wall_ms)]);
        let delete = Request::Delete { key: key("kept"), ack: Ack::Local };
        let get = Request::Get { key: key("kept") };
        [put("foreign"), replicate, delete, get, Request::Ping, Request::Goodbye]
    };
    goes_on(&cluster, 1);
    let refusals = [
        (envelope("other"), RefusalCode::WrongCluster),
        (Envelope::default(), RefusalCode::WrongCluster),
        (to_nobody, RefusalCode::WrongNode),
    ];
    for (envelope, code) in refusals {
        for request in requests() {
            match asked(&cluster[0], &encoded(envelope, request.clone())) {
                Response::Refused(refusal) => assert_eq!(refusal.code, code, "{request:?}"),
                other => panic!("{request:?} is answered with {other:?}"),
            }
        }
    }
    // The right number of the cluster, and the wrong name.
    let node = forged_node("london", cluster[1].address());
    match asked(&cluster[0], &in_cluster(hello("other", Some(node)))) {
        Response::Refused(refusal) => assert_eq!(refusal.code, RefusalCode::WrongCluster),
        other => panic!("{other:?}"),
    }
    goes_on(&cluster, 1);
}

#[test]
fn forged_members_goodbyes_and_clocks_change_nothing() {
    let cluster = Cluster::start(&["london", "sydney"]);
    let (node, closed) = (&cluster[0], SocketAddr::from(([127, 0, 0, 78], 9)));
    match asked(node, &in_cluster(hello(CLUSTER, Some(forged_node("v1", closed))))) {
        Response::Refused(refusal) => assert_eq!(refusal.code, RefusalCode::BadHello),
        other => panic!("{other:?}"),
    }
    // Whoever introduces itself is dialled before it is believed.
    let hello = asked(node, &in_cluster(hello(CLUSTER, Some(forged_node("london", closed)))));
    let Response::Hello(hello) = hello else { panic!("{hello:?}") };
    // A goodbye in another's name: that one still answers.
    let peer = hello.members.first().expect("the peer").incarnation;
    let forged = Envelope { from: Some(peer), ..envelope(CLUSTER) };
    assert_eq!(asked(node, &encoded(forged, Request::Goodbye)), Response::Done);
    goes_on(&cluster, 1);

    // A write stamped in 2100 is refused and poisons nothing: what comes later wins.
    let future = clock::now().wall_ms + 75 * 365 * 86_400_000;
    for at in &cluster.nodes {
        let message = in_cluster(Request::Replicate(vec![shipment("future", future)]));
        assert_eq!(asked(at, &message), Response::Replicated(vec![Receipt::Refused]));
        assert_eq!(at.value(b"future"), None);
    }
    match asked(node, &in_cluster(put("future"))) {
        Response::Written(written) => assert_eq!(written.status, Status::Stored),
        other => panic!("{other:?}"),
    }
    cluster.everywhere(b"future", |answer| answer.body == b"forged value");
    cluster[1].put(b"future", b"later", "ttl=60");
    cluster.everywhere(b"future", |answer| answer.body == b"later");
    goes_on(&cluster, 2);
}

#[test]
fn flipped_bits_are_survived() {
    let cluster = Cluster::start(&["london", "sydney"]);
    let to = cluster[0].address();
    let mut numbers = Numbers(0xf11b);
    let whole = [
        in_cluster(put("kept")),
        in_cluster(Request::Replicate(vec![shipment("kept", clock::now().wall_ms)])),
        in_cluster(hello(CLUSTER, Some(forged_node("london", to)))),
    ];
    for message in &whole {
        for _ in 0..150 {
            let mut flipped = message.to_vec();
            let at = numbers.below(flipped.len());
            flipped[at] ^= 1 << numbers.below(8);
            let answer = send(to, &flipped);
            assert!(matches!(answer.status, 200 | 400), "{}", answer.status);
        }
    }
    // Some were whole messages, for another key or with another value; that is all.
    assert_eq!(cluster[0].stat("panics"), 0);
    cluster.wait_until_joined();
    cluster[1].put(b"after", b"value", "ttl=60");
    cluster.everywhere(b"after", |answer| answer.body == b"value");
}

#[test]
fn a_message_that_is_whole_only_after_its_deadline_changes_nothing() {
    let cluster = Cluster::start(&["london"]);
    let node = &cluster.nodes[0];
    let message = encoded(Envelope { timeout_ms: 100, ..envelope(CLUSTER) }, put("late"));
    let (first, second) = message.split_at(message.len() / 2);
    let mut tcp = http::connect(node.address()).expect("a connection");
    let head = format!(
        "POST {MESSAGES_PATH} HTTP/1.1\r\nHost: a\r\nContent-Type: {MESSAGES_TYPE}\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n",
        message.len()
    );
    let requests = node.stat("requests");
    tcp.write_all(&[head.as_bytes(), first].concat()).expect("sent");
    let mut own = 0;
    until_true("the head is read", || {
        own += 1;
        node.stat("requests") > requests + own
    });
    let end = clock::mono().plus_ms(200);
    until_true("the deadline has passed", || clock::mono() >= end);
    tcp.write_all(second).expect("sent");
    let answer = http::finish(tcp).expect("an answer");
    let response = Response::decode(Bytes::from(answer.body)).expect("a response");
    assert!(
        matches!(&response, Response::Refused(refusal) if refusal.code == RefusalCode::Expired),
        "{response:?}"
    );
    assert_eq!(node.value(b"late"), None);
}
