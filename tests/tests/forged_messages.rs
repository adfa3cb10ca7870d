//! Garbage and forged messages to a real cluster, over each transport: each is refused, nothing of
//! it is stored or believed, and the cluster keeps working.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use zerocache_core::cluster::Replicas;
use zerocache_core::entry::{Change, Record};
use zerocache_core::version::{Incarnation, Version};
use zerocache_core::wire::{
    Ack, Envelope, Hello, NodeInfo, NodeState, REPLICATED_RECORDS_MAX, Receipt, RefusalCode,
    ReplicatedRecord, Request, RequestMessage, Response, Status, cluster_id,
};
use zerocache_net::clock;
use zerocache_net::transport::{MESSAGES_PATH, MESSAGES_TYPE};
use zerocache_tests::cluster::Cluster;
use zerocache_tests::frames::{CLUSTER, Frame, Framed, MORE};
use zerocache_tests::http;
use zerocache_tests::messages::{self, key};
use zerocache_tests::node::Node;
use zerocache_tests::poll::until_true;
use zerocache_tests::random::Random;
use zerocache_tests::setup::Setup;
use zerocache_tests::transport::{Caller, TransportKind, refusal, transport_kinds};

fn envelope(cluster: &str) -> Envelope {
    Envelope { cluster: cluster_id(cluster), timeout_ms: 500, ..Envelope::default() }
}

fn encoded(envelope: Envelope, request: Request) -> Bytes {
    RequestMessage { envelope, request }.encode(clock::mono())
}

fn in_cluster(request: Request) -> Bytes {
    encoded(envelope(CLUSTER), request)
}

fn asked(transport: TransportKind, node: &Node, message: &[u8]) -> Response {
    transport.caller(node.address()).ask(message)
}

fn put(name: &str) -> Request {
    messages::put(name, "forged value")
}

fn replicated(name: &str, wall_ms: u64) -> ReplicatedRecord {
    let (value, expires) = (Bytes::from_static(b"forged"), clock::mono().plus_ms(60_000));
    let change = Change::Put { value, metadata: Bytes::new(), expires };
    let version = Version::new(wall_ms << 16, Incarnation(u64::MAX));
    ReplicatedRecord {
        record: Record { key: key(name), version, change },
        relay: true,
        witness: false,
    }
}

fn hello(cluster: &str, node: Option<NodeInfo>) -> Request {
    Request::Hello(Box::new(Hello {
        features: u64::MAX,
        node,
        ..Hello::of_client(cluster, "london", 0)
    }))
}

fn forged_node(region: &str, address: SocketAddr) -> NodeInfo {
    NodeInfo {
        incarnation: Incarnation(0xbad),
        region: region.to_owned(),
        zone: None,
        addresses: vec![address],
        state: NodeState::InSync,
        bytes_max: u64::MAX,
        name: None,
        replicas: Replicas::All,
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

#[test]
fn garbage_and_truncated_messages_are_refused_and_counted() {
    let cluster = Cluster::start(&["london", "london", "sydney"]);
    goes_on(&cluster, 1);
    for transport in transport_kinds() {
        garbage_and_truncated_messages(*transport, &cluster[0]);
        goes_on(&cluster, 1);
    }
}

fn is_undecodable(message: &Bytes) -> bool {
    RequestMessage::decode(message.clone(), clock::mono()).is_err()
}

fn garbage_and_truncated_messages(transport: TransportKind, node: &Node) {
    let to = node.address();
    let before = node.stat("bad_messages");
    let mut caller = transport.caller(to);
    let mut refused = |message: &Bytes| {
        let response = caller.ask(message);
        assert_eq!(refusal(&response), Some(RefusalCode::BadMessage), "{transport:?}: {message:?}");
        1
    };
    let (mut random, mut sent) = (Random::new(0x5eed), 0);
    for _ in 0..300 {
        let length = random.below(200);
        let garbage: Bytes = (0..length).map(|_| random.below(256) as u8).collect();
        // A few are whole messages by chance.
        if is_undecodable(&garbage) {
            sent += refused(&garbage);
        }
    }
    let whole = [
        in_cluster(put("truncated")),
        in_cluster(Request::Replicate(vec![replicated("truncated", clock::now().wall_ms)])),
        in_cluster(hello(CLUSTER, Some(forged_node("london", to)))),
    ];
    for message in &whole {
        for end in 0..message.len() {
            let part = message.slice(..end);
            // Some parts are whole messages: what is missing is optional.
            if is_undecodable(&part) {
                sent += refused(&part);
            }
        }
    }
    assert_eq!(node.stat("bad_messages") - before, sent, "each is counted");
}

#[test]
fn messages_with_oversized_fields_are_refused() {
    let cluster = Cluster::start(&["london", "sydney"]);
    let to = cluster[0].address();
    let huge = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
    let mut claims: Vec<Vec<u8>> = Vec::new();
    for tag in 0..40 {
        for start in [&in_cluster(Request::Ping)[..], &in_cluster(put("claims"))[..]] {
            // A field with the largest possible length, and one of a gigabyte.
            claims.push([start, &[tag], &huge].concat());
            claims.push([start, &[tag, 0x80, 0x80, 0x80, 0x80, 0x04], b"x"].concat());
        }
    }
    claims.push(huge.to_vec());
    claims.push(vec![0xff; 1 << 16]);
    let one = replicated("claims", clock::now().wall_ms);
    claims.push(in_cluster(Request::Replicate(vec![one; REPLICATED_RECORDS_MAX + 1])).to_vec());
    let addresses = (0..100).map(|port| SocketAddr::new([127, 0, 0, 1].into(), port));
    let many = NodeInfo { addresses: addresses.collect(), ..forged_node("london", to) };
    claims.push(in_cluster(hello(CLUSTER, Some(many))).to_vec());
    for transport in transport_kinds() {
        let mut caller = transport.caller(to);
        for claim in &claims {
            let response = caller.ask(claim);
            let shown = &claim[..claim.len().min(80)];
            assert!(refusal(&response).is_some(), "{transport:?}: {response:?} for {shown:?}");
        }
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
        let replicate = Request::Replicate(vec![replicated("foreign", wall_ms)]);
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
    for transport in transport_kinds() {
        let mut caller = transport.caller(cluster[0].address());
        for (envelope, code) in refusals {
            for request in requests() {
                let response = caller.ask(&encoded(envelope, request.clone()));
                assert_eq!(refusal(&response), Some(code), "{transport:?}: {request:?}");
            }
        }
        // The right number of the cluster, and the wrong name.
        let node = forged_node("london", cluster[1].address());
        let response = caller.ask(&in_cluster(hello("other", Some(node))));
        assert_eq!(refusal(&response), Some(RefusalCode::WrongCluster));
    }
    goes_on(&cluster, 1);
}

#[test]
fn forged_members_goodbyes_and_clocks_have_no_effect() {
    for transport in transport_kinds() {
        forged_members_goodbyes_and_clocks(*transport, &Cluster::start(&["london", "sydney"]));
    }
}

fn forged_members_goodbyes_and_clocks(transport: TransportKind, cluster: &Cluster) {
    let asked = |node, message: &Bytes| asked(transport, node, message);
    let (node, closed) = (&cluster[0], SocketAddr::from(([127, 0, 0, 78], 9)));
    let bad = asked(node, &in_cluster(hello(CLUSTER, Some(forged_node("v1", closed)))));
    assert_eq!(refusal(&bad), Some(RefusalCode::BadHello));
    // Whoever introduces itself is dialled before it is believed.
    let hello = asked(node, &in_cluster(hello(CLUSTER, Some(forged_node("london", closed)))));
    let Response::Hello(hello) = hello else { panic!("{hello:?}") };
    // A goodbye in another's name: that one still answers.
    let peer = hello.members.first().expect("the peer").incarnation;
    let forged = Envelope { from: Some(peer), ..envelope(CLUSTER) };
    assert_eq!(asked(node, &encoded(forged, Request::Goodbye)), Response::Done);
    goes_on(cluster, 1);

    // A write stamped in 2100 is refused and poisons nothing: what comes later wins.
    let future = clock::now().wall_ms + 75 * 365 * 86_400_000;
    for at in &cluster.nodes {
        let message = in_cluster(Request::Replicate(vec![replicated("future", future)]));
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
    goes_on(cluster, 2);
}

#[test]
fn flood_of_handshakes_keeps_no_node_out() {
    let framed = |node: Setup| node.flag("--connections", "framed");
    let mut cluster = Cluster::start_with(&["london"], framed);
    let to = cluster[0].address();
    let mut named = 0u32;
    let mut nonsense = move || {
        // Sixteen addresses without a listener, never the same ones.
        let addresses = (0..16).map(|_| {
            named += 1;
            let [_, high, middle, low] = named.to_be_bytes();
            SocketAddr::from(([127, 100 + high, middle, low], 9))
        });
        let node = NodeInfo { addresses: addresses.collect(), ..forged_node("london", to) };
        in_cluster(hello(CLUSTER, Some(node)))
    };
    let mut caller = TransportKind::Frames.caller(to);
    let mut flood = move |most: usize, over: &AtomicBool| {
        for _ in 0..most {
            if over.load(Ordering::Relaxed) {
                return;
            }
            assert!(matches!(caller.ask(&nonsense()), Response::Hello(_)));
        }
    };
    let over = AtomicBool::new(false);
    flood(500, &over);
    assert!(cluster[0].stat("addresses_refused") > 5_000);
    std::thread::scope(|scope| {
        scope.spawn(|| flood(100_000, &over));
        cluster.nodes.push(framed(Setup::new("london")).flag("--seed", to).start());
        cluster.wait_until_joined();
        over.store(true, Ordering::Relaxed);
    });
    goes_on(&cluster, 1);
}

#[test]
fn flipped_bits_are_survived() {
    let cluster = Cluster::start(&["london", "sydney"]);
    let to = cluster[0].address();
    let mut callers: Vec<Caller> =
        transport_kinds().iter().map(|transport| transport.caller(to)).collect();
    let mut random = Random::new(0xf11b);
    let whole = [
        in_cluster(put("kept")),
        in_cluster(Request::Replicate(vec![replicated("kept", clock::now().wall_ms)])),
        in_cluster(hello(CLUSTER, Some(forged_node("london", to)))),
    ];
    for message in &whole {
        for _ in 0..150 {
            let mut flipped = message.to_vec();
            let at = random.below(flipped.len());
            flipped[at] ^= 1 << random.below(8);
            for caller in &mut callers {
                // Whatever it is now, it is answered.
                let _any = caller.ask(&flipped);
            }
        }
    }
    // Some were whole messages, for another key or with another value; that is all.
    assert_eq!(cluster[0].stat("panics"), 0);
    cluster.wait_until_joined();
    cluster[1].put(b"after", b"value", "ttl=60");
    cluster.everywhere(b"after", |answer| answer.body == b"value");
}

#[test]
fn message_completed_after_its_deadline_has_no_effect() {
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

#[test]
fn message_whose_last_frame_is_late_has_no_effect() {
    let cluster = Cluster::start_with(&["london"], |node| node.flag("--connections", "framed"));
    let mut framed = Framed::open(cluster[0].address());
    let message = encoded(Envelope { timeout_ms: 100, ..envelope(CLUSTER) }, put("late"));
    let (first, second) = message.split_at(message.len() / 2);
    let whole = Frame { timeout_ms: 100, ..Frame::request(framed.fresh_id(), first) };
    framed.send(&Frame { flags: MORE, ..whole.clone() });
    let end = clock::mono().plus_ms(250);
    until_true("the deadline has passed", || clock::mono() >= end);
    framed.send(&Frame { payload: second.to_vec(), ..whole.clone() });
    assert_eq!(refusal(&framed.response(whole.id)), Some(RefusalCode::Expired));
    assert_eq!(cluster[0].value(b"late"), None);
}
