//! Framed connections to a node, over streams in memory.

#![expect(clippy::unwrap_used, reason = "what helps a test may fail as it does")]

mod peer;

use std::{collections::BTreeMap, future::Future, time::Duration};

use proptest::prelude::*;
use tokio::{io::AsyncWriteExt, time::timeout};
use zerocache_core::{
    time::Instant,
    wire::{
        Ack, RefusalCode, Request, Response, Status,
        frame::{Header, Opcode},
    },
};
use zerocache_net::clock;

use peer::{LONG, MESSAGE_BYTES_MAX, Peer, encoded, frame, get, header, node, put};

/// The delay of a late message in these tests, in milliseconds.
const LATE_MS: u64 = 1_100;

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async { timeout(LONG, test).await.expect("an end") });
}

fn refusal(response: &Response) -> Option<RefusalCode> {
    match response {
        Response::Refused(refusal) => Some(refusal.code),
        _ => None,
    }
}

fn is_stored(response: &Response) -> bool {
    matches!(response, Response::Written(written) if written.status == Status::Stored)
}

/// A thing that a peer sends.
#[derive(Clone, Copy, Debug)]
enum Sent {
    Get,
    Put {
        bytes: usize,
    },
    Delete,
    Ping,
    /// No message.
    Garbage,
    TooLarge,
    /// A request that is cancelled after its first chunk.
    Cancelled,
    /// A cancellation of nothing.
    Cancel,
    /// A response, whole or in pieces that are not taken, to what nobody asked.
    Response {
        large: bool,
    },
    Later,
}

fn sent() -> impl Strategy<Value = Sent> {
    let put = prop_oneof![4 => 0..100usize, 1 => 40_000..150_000usize];
    prop_oneof![
        6 => Just(Sent::Get),
        6 => put.prop_map(|bytes| Sent::Put { bytes }),
        2 => Just(Sent::Delete),
        2 => Just(Sent::Ping),
        1 => Just(Sent::Garbage),
        1 => Just(Sent::TooLarge),
        1 => Just(Sent::Cancelled),
        1 => Just(Sent::Cancel),
        1 => any::<bool>().prop_map(|large| Sent::Response { large }),
        1 => Just(Sent::Later),
    ]
}

/// The frames of one thing that is sent, and whether it is to be answered.
fn frames_of(id: u32, sent: Sent) -> (Vec<Vec<u8>>, bool) {
    let chunked = |opcode, message: &[u8]| {
        let chunks: Vec<_> = message.chunks(50_000).collect();
        let frames = chunks
            .iter()
            .enumerate()
            .map(|(number, chunk)| frame(header(opcode, id, number + 1 < chunks.len()), chunk));
        frames.collect::<Vec<_>>()
    };
    let request = |request: &Request| (chunked(Opcode::Request, &encoded(request)), true);
    match sent {
        Sent::Get => request(&get("key")),
        Sent::Put { bytes } => request(&put("key", bytes, 60_000)),
        Sent::Delete => {
            let Request::Get { key } = get("key") else { unreachable!() };
            request(&Request::Delete { key, ack: Ack::Local })
        }
        Sent::Ping => request(&Request::Ping),
        Sent::Garbage => (chunked(Opcode::Request, &[0xff; 20]), true),
        Sent::TooLarge => (chunked(Opcode::Request, &vec![1; MESSAGE_BYTES_MAX + 1]), true),
        Sent::Cancelled => {
            let begun = frame(header(Opcode::Request, id, true), b"x");
            (vec![begun, frame(header(Opcode::Cancel, id, false), b"")], true)
        }
        Sent::Cancel => (vec![frame(header(Opcode::Cancel, id, false), b"")], false),
        Sent::Response { large } => {
            let bytes = if large { MESSAGE_BYTES_MAX + 1 } else { 10 };
            (chunked(Opcode::Response, &vec![1; bytes]), false)
        }
        Sent::Later => (chunked(Opcode::Other(9), b"later"), false),
    }
}

fn is_right(sent: Sent, response: &Response) -> bool {
    match sent {
        Sent::Get => matches!(response, Response::Found { .. } | Response::NotFound { .. }),
        Sent::Put { .. } | Sent::Delete => matches!(response, Response::Written(_)),
        Sent::Ping => matches!(response, Response::Pong { .. }),
        Sent::Garbage => refusal(response) == Some(RefusalCode::BadMessage),
        Sent::TooLarge => refusal(response) == Some(RefusalCode::TooLarge),
        Sent::Cancelled => refusal(response) == Some(RefusalCode::Expired),
        Sent::Cancel | Sent::Response { .. } | Sent::Later => false,
    }
}

/// Sends all of it, the frames of different messages mixed, in pieces, and checks the responses.
async fn converse(pipe_bytes: usize, all: Vec<Sent>, mix: usize, piece: usize) {
    let frames = node();
    let peer = Peer::connect(&frames, pipe_bytes).await;
    let mut awaited = BTreeMap::new();
    let (mut under_way, mut bytes) = (Vec::new(), Vec::new());
    for (id, sent) in (1..).zip(all) {
        let (mut frames, answered) = frames_of(id, sent);
        if answered {
            awaited.insert(id, sent);
        }
        frames.reverse();
        under_way.push(frames);
        while under_way.len() > mix {
            let frame = under_way[0].pop().unwrap();
            bytes.extend(frame);
            under_way.rotate_left(1);
            under_way.retain(|frames| !frames.is_empty());
        }
    }
    for mut frames in under_way {
        frames.reverse();
        bytes.extend(frames.concat());
    }
    let last = awaited.len() as u32 + 1_000_000;
    bytes.extend(frame(header(Opcode::Request, last, false), &encoded(&Request::Ping)));
    awaited.insert(last, Sent::Ping);
    exchange(peer, &mut awaited, bytes, piece).await;
}

/// Writes while it reads, until all is answered.
async fn exchange(peer: Peer, awaited: &mut BTreeMap<u32, Sent>, bytes: Vec<u8>, piece: usize) {
    let Peer { mut write, mut responses } = peer;
    let writing = tokio::spawn(async move {
        for piece in bytes.chunks(piece) {
            write.write_all(piece).await.unwrap();
        }
    });
    while !awaited.is_empty() {
        let (id, response) = responses.next().await.expect("a response to everything");
        let sent = awaited.remove(&id);
        let right = sent.is_some_and(|sent| is_right(sent, &response));
        assert!(right, "{sent:?} {id} is answered with {response:?}");
    }
    writing.await.unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..Default::default() })]

    #[test]
    fn every_request_gets_one_response(
        pipe_bytes in 64..100_000usize,
        all in prop::collection::vec(sent(), 1..150),
        mix in 1..30usize,
        piece in 1_000..100_000usize,
    ) {
        run(converse(pipe_bytes, all, mix, piece));
    }
}

#[test]
fn messages_beyond_the_limit_are_refused_and_the_others_complete() {
    run(async {
        let mut peer = Peer::connect(&node(), 1 << 20).await;
        for id in 1..=70 {
            let begun = frame(header(Opcode::Request, id, true), &encoded(&get("k"))[..2]);
            peer.write.write_all(&begun).await.unwrap();
        }
        for id in 65..=70 {
            let (answered, response) = peer.responses.next().await.unwrap();
            assert_eq!((answered, refusal(&response)), (id, Some(RefusalCode::Overloaded)));
        }
        for id in 1..=70 {
            let rest = frame(header(Opcode::Request, id, false), &encoded(&get("k"))[2..]);
            peer.write.write_all(&rest).await.unwrap();
        }
        for id in 1..=64 {
            let (answered, response) = peer.responses.next().await.unwrap();
            assert!(answered == id && matches!(response, Response::NotFound { .. }));
        }
        let response = peer.ask(header(Opcode::Request, 65, false), &get("k")).await;
        assert!(matches!(response, Response::NotFound { .. }), "{response:?}");
    });
}

#[test]
fn peer_that_starts_messages_without_end_is_disconnected() {
    run(async {
        let mut peer = Peer::connect(&node(), 1 << 20).await;
        let begun: Vec<_> =
            (1..5_000).flat_map(|id| frame(header(Opcode::Request, id, true), b"x")).collect();
        let _cut = peer.write.write_all(&begun).await;
        let mut answers = 0;
        while peer.responses.next().await.is_some() {
            answers += 1;
        }
        assert!(answers < 2_000, "{answers}");
    });
}

#[test]
fn late_request_is_refused_or_its_ttl_is_reduced() {
    run(async {
        let mut peer = Peer::connect(&node(), 1 << 20).await;
        // Nothing can be later than the node is old.
        while clock::mono() < Instant::from_millis(LATE_MS) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let at = |id, delay_ms, timeout_ms| {
            let sent_ms = (clock::mono().as_millis() + 1_000_000 - delay_ms) as u32;
            Header { sent_ms, timeout_ms, ..header(Opcode::Request, id, false) }
        };
        peer.ask(at(1, 0, 0), &Request::Ping).await;
        for request in [put("a", 10, 60_000), get("a"), Request::Ping] {
            let response = peer.ask(at(2, LATE_MS, 100), &request).await;
            assert_eq!(refusal(&response), Some(RefusalCode::Expired), "{request:?}");
        }
        let response = peer.ask(at(3, 0, 60_000), &get("a")).await;
        assert!(matches!(response, Response::NotFound { .. }), "it was carried out: {response:?}");
        let written = peer.ask(at(4, LATE_MS, 60_000), &put("b", 10, 60_000)).await;
        assert!(is_stored(&written), "{written:?}");
        match peer.ask(at(5, 0, 60_000), &get("b")).await {
            // The clocks may drift apart a little.
            Response::Found { remaining_ms, .. } => {
                assert!(remaining_ms <= 60_000 - LATE_MS + 10, "{remaining_ms} ms");
            }
            other => panic!("{other:?}"),
        }
        // Its life was over when it came. A caller that does not say how long it waits still waits.
        peer.ask(at(6, LATE_MS, 0), &put("c", 10, 1_000)).await;
        let response = peer.ask(at(7, 0, 60_000), &get("c")).await;
        assert!(matches!(response, Response::NotFound { .. }), "{response:?}");
    });
}

#[test]
fn peer_that_does_not_read_is_not_read_from_and_others_are_served() {
    run(async {
        let frames = node();
        let mut deaf = Peer::connect(&frames, 64 << 10).await;
        assert!(is_stored(
            &deaf.ask(header(Opcode::Request, 1, false), &put("k", 60_000, 60_000)).await
        ));
        let asked: Vec<_> = (0..1_000)
            .flat_map(|id| frame(header(Opcode::Request, id, false), &encoded(&get("k"))))
            .collect();
        let mut taken = 0;
        let writing = async {
            // A hundred times what is ever read at once.
            for _ in 0..1_000 {
                deaf.write.write_all(&asked).await.unwrap();
                taken += asked.len();
            }
        };
        tokio::select! {
            () = writing => panic!("everything was taken"),
            () = tokio::time::sleep(Duration::from_millis(300)) => {}
        }
        assert!(taken < 1 << 20, "{taken} bytes were taken");
        let mut other = Peer::connect(&frames, 64 << 10).await;
        let found = other.ask(header(Opcode::Request, 1, false), &get("k")).await;
        assert!(matches!(found, Response::Found { .. }));
        // A stream that does not cut it off itself is cut with the node.
        frames.close().await;
        while deaf.responses.next().await.is_some() {}
        assert!(other.responses.next().await.is_none());
    });
}

/// Fills the node with about 1.5 MiB of small values; returns a request for all of them.
async fn filled(frames: &std::sync::Arc<zerocache_server::framed::FramedConnections>) -> Request {
    let mut peer = Peer::connect(frames, 1 << 20).await;
    let mut hashes = Vec::new();
    for n in 0..500 {
        let put = put(&format!("k{n}"), 3_000, 600_000);
        let Request::Put { key, .. } = &put else { unreachable!() };
        hashes.push(key.hash());
        assert!(is_stored(&peer.ask(header(Opcode::Request, n, false), &put).await));
    }
    Request::Fetch(hashes)
}

/// Sends `count` of these requests with one write.
async fn flood(peer: &mut Peer, request: &Request, count: u32) {
    let one = |id| frame(header(Opcode::Request, id, false), &encoded(request));
    peer.write.write_all(&(0..count).flat_map(one).collect::<Vec<_>>()).await.unwrap();
}

/// Lets the other tasks run until nothing more happens.
async fn settle() {
    for _ in 0..1_000 {
        tokio::task::yield_now().await;
    }
}

#[test]
fn requests_for_large_responses_wait_until_the_responses_are_read() {
    run(async {
        let frames = node();
        let fetch = filled(&frames).await;
        let mut deaf = Peer::connect(&frames, 4 << 20).await;
        flood(&mut deaf, &fetch, 100).await;
        let mut other = Peer::connect(&frames, 64 << 10).await;
        for id in 1..=50 {
            let written =
                other.ask(header(Opcode::Request, id, false), &put("o", 10, 60_000)).await;
            assert!(is_stored(&written), "{written:?}");
            settle().await;
            let waiting = frames.pending_bytes();
            assert!(waiting < 6 << 20, "{waiting} bytes wait");
        }
        for id in 0..100 {
            let (answered, response) = deaf.responses.next().await.unwrap();
            assert!(answered == id && matches!(response, Response::Items { .. }));
        }
        settle().await;
        assert_eq!(frames.pending_bytes(), 0);
    });
}

#[test]
fn pending_responses_of_many_connections_are_bounded() {
    run(async {
        let frames = node();
        let fetch = filled(&frames).await;
        let mut deaf = Vec::new();
        for _ in 0..20 {
            let mut peer = Peer::connect(&frames, 64 << 10).await;
            flood(&mut peer, &fetch, 5).await;
            settle().await;
            deaf.push(peer);
        }
        // The share, what one connection may have beyond it, and the last slice of each of the others.
        let waiting = frames.pending_bytes();
        assert!(waiting < (8 + 5 + 20 * 5 / 4) << 20, "{waiting} bytes wait");
        for mut peer in deaf {
            for _ in 0..5 {
                let (_, response) = peer.responses.next().await.unwrap();
                assert!(matches!(response, Response::Items { .. }));
            }
        }
        settle().await;
        assert_eq!(frames.pending_bytes(), 0);
    });
}

#[test]
fn late_responses_are_refusals_while_earlier_ones_are_unread() {
    const WAITING: u32 = 1_000;
    run(async {
        let frames = node();
        let Request::Get { key } = get("k") else { unreachable!() };
        let lease = Request::Lease { key, lease_ms: 0, wait_ms: 50_000, newer_than: None };
        let mut other = Peer::connect(&frames, 1 << 20).await;
        let leased = other.ask(header(Opcode::Request, 1, false), &lease).await;
        assert!(matches!(leased, Response::LeaseGranted { .. }), "{leased:?}");
        let mut deaf = Peer::connect(&frames, 64 << 10).await;
        flood(&mut deaf, &lease, WAITING).await;
        settle().await;
        other.ask(header(Opcode::Request, 2, false), &put("k", 40_000, 600_000)).await;
        settle().await;
        let (mut found, mut refused) = (0, 0);
        for _ in 0..WAITING {
            match deaf.responses.next().await.unwrap().1 {
                Response::Found { .. } => found += 1,
                response if refusal(&response) == Some(RefusalCode::Overloaded) => refused += 1,
                other => panic!("{other:?}"),
            }
        }
        // 4 MiB of 40 kB each, and what the pipe takes.
        assert!((50..200).contains(&found), "{found} found, {refused} refused");
    });
}
