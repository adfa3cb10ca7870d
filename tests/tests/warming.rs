//! A node that is not in sync yet: it reports that, and its misses are not authoritative.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use bytes::Bytes;
use zerocache_client::ops::Tier;
use zerocache_core::version::Incarnation;
use zerocache_core::wire::{Hello, NodeInfo, NodeState, Request, RequestMessage, Response};
use zerocache_net::clock;
use zerocache_tests::cluster::{self, Cluster};
use zerocache_tests::http;
use zerocache_tests::poll::{PATIENCE, until_true};
use zerocache_tests::setup::{Setup, unique_address};

/// More than any message here has.
const REQUEST_BYTES_MAX: usize = 1 << 20;

#[test]
fn miss_of_a_warming_node_moves_on_to_the_next_tier() {
    let mut cluster = Cluster::start(&["sydney"]);
    cluster[0].put(b"old", b"value", "ttl=300");
    let waiting = Setup::new("london").flag("--seed", cluster[0].address());
    let waiting = waiting.flag("--seed", half_a_peer()).flag("--warm-max", "1h").start();
    until_true("it reaches both", || waiting.reaches() == 3);
    let answer = waiting.http("GET", "/readyz", b"");
    assert_eq!((answer.status, answer.body.as_slice()), (503, &b"warming\n"[..]));
    let miss = waiting.get(b"old");
    assert_eq!((miss.status, miss.header("zerocache-warming")), (404, Some("true")));
    // It accepts and serves writes in the meantime.
    waiting.put(b"new", b"value", "ttl=300");
    assert_eq!(waiting.value(b"new").as_deref(), Some(&b"value"[..]));

    let builder = cluster::builder("london").mdns(false);
    let client = builder.seed(waiting.address().to_string()).build().expect("a client");
    client.wait_ready(PATIENCE).expect("the node of the other region is in sync");
    let entry = client.get("old").entry().wait().expect("an answer").expect("a hit");
    assert_eq!((entry.value, entry.tier), (Bytes::from_static(b"value"), Tier::Nearest));
    assert_eq!(client.get("absent").wait().expect("an answer"), None);
    cluster.nodes.push(waiting);
    assert!(cluster.nodes.iter().all(|node| node.stat("misses") > 0), "both were asked");
}

#[test]
fn node_is_ready_after_the_warming_limit() {
    let waiting = Setup::new("london").flag("--seed", half_a_peer()).flag("--warm-max", "3s");
    let waiting = waiting.start();
    until_true("it reaches the other", || waiting.reaches() == 2);
    until_true("it is ready", || waiting.is_ready());
    assert_eq!(waiting.get(b"absent").header("zerocache-warming"), None);
}

/// Something at a loopback address that answers as a node of the region does, and never introduces
/// itself in return: who is its local peer cannot be in sync. It ends with the process.
fn half_a_peer() -> SocketAddr {
    let listener = TcpListener::bind((unique_address(), 0)).expect("bound");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for tcp in listener.incoming() {
            let Ok(tcp) = tcp else { return };
            std::thread::spawn(move || answer(tcp, address));
        }
    });
    address
}

/// Answers one message and closes.
fn answer(mut tcp: TcpStream, address: SocketAddr) -> io::Result<()> {
    tcp.set_read_timeout(Some(PATIENCE))?;
    let node = NodeInfo {
        incarnation: Incarnation(1),
        region: "london".to_owned(),
        zone: None,
        addresses: vec![address],
        state: NodeState::Warming,
        bytes_max: 1 << 20,
        name: None,
        replicas: zerocache_core::cluster::Replicas::All,
    };
    let response = match read(&mut tcp)?.map(|message| message.request) {
        Some(Request::Hello(hello)) => Response::Hello(Box::new(Hello {
            node: Some(node.clone()),
            ..Hello::of_client(&hello.cluster, &node.region, clock::now().wall_ms)
        })),
        Some(Request::Ping) => Response::Pong {
            incarnation: Incarnation(1),
            state: NodeState::Warming,
            view: 0,
            wall_ms: 0,
        },
        Some(Request::Replicate(_)) => Response::Replicated(Vec::new()),
        _ => Response::NotFound { warming: true, known: 0 },
    };
    let body = response.encode();
    let length = body.len();
    let head = format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n");
    tcp.write_all(&[head.as_bytes(), &body].concat())
}

/// The message in one HTTP request.
fn read(tcp: &mut TcpStream) -> io::Result<Option<RequestMessage>> {
    let (mut bytes, mut room) = (Vec::new(), [0; 4096]);
    while bytes.len() < REQUEST_BYTES_MAX {
        let count = tcp.read(&mut room)?;
        bytes.extend_from_slice(&room[..count]);
        let Some((head, body)) = http::split(&bytes) else {
            if count == 0 {
                break;
            }
            continue;
        };
        let length = http::header(&head, "content-length").and_then(|text| text.parse().ok());
        if count == 0 || length.is_none_or(|length: usize| body.len() >= length) {
            return Ok(RequestMessage::decode(Bytes::copy_from_slice(body), clock::mono()).ok());
        }
    }
    Ok(None)
}
