//! Bounds on a caller with a framed connection: it does not read, does not finish messages, or
//! sends too many requests at once.

use std::cell::Cell;
use std::io::{ErrorKind, Read, Write};
use std::time::Duration;

use bytes::Bytes;
use zerocache_client::{Status, ops::Connections};
use zerocache_core::wire::{RefusalCode, Request, Response};
use zerocache_tests::cluster::{Cluster, builder};
use zerocache_tests::frames::{CHUNK_BYTES_MAX, Frame, Framed, MORE, compact_message};
use zerocache_tests::messages::{self, key};
use zerocache_tests::node::Node;
use zerocache_tests::poll::{PATIENCE, time_until, timed, until_true};
use zerocache_tests::setup::Setup;
use zerocache_tests::transport::refusal;

/// A value of the size up to which a node copies it into its buffer.
const SMALL_BYTES: usize = 4 << 10;

/// The largest value of the nodes here.
const LARGE_BYTES: usize = 8 << 20;

fn start() -> Node {
    Setup::new("london").flag("--connections", "framed").start()
}

fn get(name: &str) -> Bytes {
    compact_message(Request::Get { key: key(name) })
}

fn put(name: &str, value: Vec<u8>) -> Bytes {
    compact_message(messages::put(name, value))
}

/// Others are served as before.
fn goes_on(node: &Node) {
    let mut other = Framed::open(node.address());
    for n in 0..20 {
        let name = format!("other {n}");
        assert!(matches!(other.ask(&put(&name, vec![1; 100])), Response::Written(_)));
        assert!(matches!(other.ask(&get(&name)), Response::Found { .. }));
    }
    assert!(node.is_ready());
}

/// Sends reads of `name` and reads no response, until the node takes no more.
fn ask_without_reading(framed: &mut Framed, name: &str) {
    framed.stream().set_write_timeout(Some(Duration::from_millis(500))).expect("a socket");
    let batch: Vec<u8> =
        (0..1_000).flat_map(|id| Frame::request(id, &get(name)).to_bytes()).collect();
    let mut sent = 0;
    loop {
        match framed.stream().write(&batch[sent % batch.len()..]) {
            Ok(count) => sent += count,
            Err(error) => {
                let full = matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
                assert!(full, "{error}");
                return;
            }
        }
        assert!(sent < 64 << 20, "the node reads on and on");
    }
}

#[test]
fn caller_that_does_not_read_is_throttled_then_disconnected() {
    let node = start();
    node.put(b"large", &vec![1; 1 << 20], "ttl=300");
    let mut framed = Framed::open(node.address());
    ask_without_reading(&mut framed, "large");
    goes_on(&node);
    // Two windows of 30 s: the first may have begun while the kernel still took something.
    let cut = time_until(Duration::from_secs(75), || node.stat("write_timeouts") > 0);
    assert!(cut.is_some(), "it is still connected");
    let mut rest = Vec::new();
    // Whatever the kernel holds, and then the end.
    let _reset = framed.stream().read_to_end(&mut rest);
    assert!(rest.len() < 64 << 20, "{}", rest.len());
    goes_on(&node);
}

#[test]
fn callers_that_do_not_read_hold_little_memory() {
    const CALLERS: usize = 16;
    let node = start();
    node.put(b"small", &vec![1; SMALL_BYTES - 100], "ttl=300");
    goes_on(&node);
    let Some(before) = node.memory_bytes() else { return };
    let mut callers: Vec<Framed> = (0..CALLERS).map(|_| Framed::open(node.address())).collect();
    std::thread::scope(|threads| {
        for caller in &mut callers {
            threads.spawn(|| ask_without_reading(caller, "small"));
        }
    });
    let grown = node.memory_bytes().expect("a figure").saturating_sub(before);
    // 4 MiB of responses each and the room for reading; all that was asked for is 40 MiB each.
    assert!(grown < CALLERS as u64 * (10 << 20), "{} MiB", grown >> 20);
    goes_on(&node);
}

#[test]
fn half_a_large_message_holds_memory_for_a_bounded_time() {
    let node = start();
    // The node's whole budget for messages: two of 16 MiB, of which little is sent.
    let mut stalled: Vec<Framed> = (0..2).map(|_| Framed::open(node.address())).collect();
    for framed in &mut stalled {
        let chunk = vec![0; CHUNK_BYTES_MAX];
        for _ in 0..200 {
            framed.send(&Frame { flags: MORE, ..Frame::request(1, &chunk) });
        }
    }
    let large = |framed: &mut Framed| {
        let id = framed.request(&put("large", vec![1; LARGE_BYTES]), 0);
        framed.response(id)
    };
    let mut other = Framed::open(node.address());
    let refused = large(&mut other);
    assert_eq!(refusal(&refused), Some(RefusalCode::Overloaded), "{refused:?}");
    // Small ones need nothing of it.
    goes_on(&node);
    let (closed, took) = timed(|| stalled.iter_mut().all(Framed::is_closed_by_node));
    assert!(closed && took < PATIENCE, "{took:?}");
    assert_eq!(node.stat("idle_timeouts"), 2);
    until_true("the memory is free again", || matches!(large(&mut other), Response::Written(_)));
}

#[test]
fn large_value_does_not_delay_small_reads() {
    let cluster = Cluster::start_with(&["london"], |node| node.flag("--connections", "framed"));
    cluster[0].put(b"small", b"x", "ttl=300");
    cluster[0].put(b"large", &vec![7; LARGE_BYTES], "ttl=300");
    // By hand, on one connection: the response that was asked for first ends last.
    let mut framed = Framed::open(cluster[0].address());
    let large = framed.request(&get("large"), 0);
    let small: Vec<u32> = (0..10).map(|_| framed.request(&get("small"), 0)).collect();
    let mut order = Vec::new();
    while order.len() < 11 {
        let frame = framed.frame().expect("a frame");
        assert!(frame.payload.len() <= CHUNK_BYTES_MAX);
        if frame.flags & MORE == 0 {
            order.push(frame.id);
        }
    }
    assert_eq!(order[..10], small);
    assert_eq!(order[10], large);
    // Through the client, while large values go both ways on what connections it has.
    let client = builder("london").connections(Connections::Framed);
    // Packed, such values are small.
    let client = client.compress_above(None);
    let client =
        client.mdns(false).seed(cluster[0].address().to_string()).build().expect("a client");
    client.wait_ready(PATIENCE).expect("a node in sync");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let value = vec![9; LARGE_BYTES];
        let reads = Cell::new(0);
        let transfers = async {
            let mut most = 0;
            for _ in 0..5 {
                let before = reads.get();
                let put = client.put("other large", value.as_slice(), 300).deadline(PATIENCE);
                let get = client.get("large").deadline(PATIENCE);
                let (written, found) = tokio::join!(put, get);
                assert_eq!(written.expect("an answer").status, Status::Stored);
                assert_eq!(found.expect("an answer").map(|found| found.len()), Some(LARGE_BYTES));
                most = most.max(reads.get() - before);
            }
            most
        };
        let mut transfers = std::pin::pin!(transfers);
        let most = loop {
            tokio::select! {
                biased;
                most = &mut transfers => break most,
                found = client.get("small") => {
                    assert_eq!(found.expect("an answer").as_deref(), Some(&b"x"[..]));
                    reads.set(reads.get() + 1);
                }
            }
        };
        // Reads that waited for the end of each transfer would be one for each of the two.
        assert!(most > 2, "{most} small reads during two transfers");
    });
}

#[test]
fn many_concurrent_large_values_are_all_stored() {
    const VALUES: usize = 300;
    let cluster = Cluster::start_with(&["london"], |node| node.flag("--connections", "framed"));
    let client =
        cluster.client_with("london", |b| b.connections(Connections::Framed).compress_above(None));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        client.put("warm", "x", 60).await.expect("an answer");
        let put = |n: usize| {
            let put = client.put(format!("{n}"), vec![n as u8; 100_000], 60).deadline(PATIENCE);
            tokio::spawn(put.into_future())
        };
        let puts: Vec<_> = (0..VALUES).map(put).collect();
        for put in puts {
            let written = put.await.expect("no panic").expect("an answer");
            assert_eq!(written.status, Status::Stored);
        }
    });
    assert_eq!(cluster[0].stat("entries"), VALUES as u64 + 1);
    assert_eq!(client.stats().errors.total(), 0);
}
