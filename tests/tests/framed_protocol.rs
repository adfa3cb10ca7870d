//! Frames that a connection accepts, tolerates and refuses.

use bytes::Bytes;
use zerocache_core::wire::{RefusalCode, Request, Response, Status};
use zerocache_net::clock;
use zerocache_tests::frames::{
    CANCEL, CHUNK_BYTES_MAX, Frame, Framed, MORE, RESPONSE, compact_message, now_ms,
};
use zerocache_tests::messages::{self, key};
use zerocache_tests::node::Node;
use zerocache_tests::poll::until_true;
use zerocache_tests::random::Random;
use zerocache_tests::setup::Setup;
use zerocache_tests::transport::refusal;

fn start() -> Node {
    Setup::new("london").flag("--connections", "framed").start()
}

fn put(name: &str, value: &[u8]) -> Bytes {
    compact_message(messages::put(name, value.to_vec()))
}

fn get(name: &str) -> Bytes {
    compact_message(Request::Get { key: key(name) })
}

fn is_stored(response: &Response) -> bool {
    matches!(response, Response::Written(written) if written.status == Status::Stored)
}

fn is_pong(framed: &mut Framed) -> bool {
    matches!(framed.ask(&compact_message(Request::Ping)), Response::Pong { .. })
}

#[test]
fn frames_of_a_later_release_are_tolerated() {
    let node = start();
    let mut framed = Framed::open(node.address());
    // Unknown opcodes, also in several frames; unsolicited responses.
    for opcode in [0, 4, 77, 255, RESPONSE] {
        let strange = Frame { opcode, ..Frame::request(9, b"\xff\xff\xff") };
        framed.send(&strange);
        framed.send(&Frame { flags: MORE, ..strange });
    }
    framed.send(&Frame { opcode: CANCEL, ..Frame::request(12_345, b"with a payload") });
    // Every flag but the first one, and an extension.
    let id = framed.fresh_id();
    let extension = vec![7; 1 << 10];
    framed.send(&Frame { flags: !MORE, extension, ..Frame::request(id, &put("k", b"v")) });
    assert!(is_stored(&framed.response(id)));
    // Unknown fields, in a read too.
    let id = framed.request(&[&get("k")[..], &[99, 3, 1, 2, 3]].concat(), 0);
    assert!(matches!(framed.response(id), Response::Found { value, .. } if value == "v"[..]));
    // Ids are the caller's: the largest, and the handshake's.
    for id in [u32::MAX, 0] {
        framed.send(&Frame::request(id, &get("k")));
        assert!(matches!(framed.response(id), Response::Found { .. }));
    }
    assert_eq!(node.stat("bad_messages"), 0);
}

#[test]
fn invalid_frame_lengths_close_the_connection_and_are_counted() {
    let node = start();
    let header = |length: u32, extension: u16| {
        let mut bytes = Frame::request(1, b"").to_bytes();
        bytes[..4].copy_from_slice(&length.to_le_bytes());
        bytes[6..8].copy_from_slice(&extension.to_le_bytes());
        bytes
    };
    let most = (16 + (1 << 10) + CHUNK_BYTES_MAX) as u32;
    let cases = [
        header(0, 0),
        header(15, 0),
        header(most + 1, 1 << 10),
        header(u32::MAX, 0),
        // An extension longer than the frame, one longer than is skipped, and a payload longer than
        // a frame may have.
        header(16, 1),
        header(16 + 2_000, 2_000),
        header(16 + CHUNK_BYTES_MAX as u32 + 1, 0),
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
    ];
    let mut others = Framed::open(node.address());
    for (count, bytes) in cases.iter().enumerate() {
        let mut framed = Framed::open(node.address());
        let id = framed.request(&get("k"), 0);
        assert!(matches!(framed.response(id), Response::NotFound { .. }));
        std::io::Write::write_all(framed.stream(), bytes).expect("sent");
        assert!(framed.is_closed_by_node(), "{bytes:?}");
        assert_eq!(node.stat("bad_messages"), count as u64 + 1);
    }
    // The longest possible frame is one.
    let id = others.fresh_id();
    let value = vec![5; CHUNK_BYTES_MAX - 100];
    let extension = vec![0; 1 << 10];
    others.send(&Frame { extension, ..Frame::request(id, &put("long", &value)) });
    assert!(is_stored(&others.response(id)));
}

#[test]
fn undecodable_message_is_refused_and_the_connection_survives() {
    let node = start();
    let mut framed = Framed::open(node.address());
    let ids = [&b""[..], b"\xff", b"\x63", &put("k", b"v")[..5]].map(|m| framed.request(m, 0));
    for id in ids {
        assert_eq!(refusal(&framed.response(id)), Some(RefusalCode::BadMessage));
    }
    assert_eq!(node.stat("bad_messages"), 4);
    assert!(is_pong(&mut framed));
}

#[test]
fn request_past_its_deadline_is_refused_and_a_late_one_is_aged() {
    let node = start();
    let mut framed = Framed::open(node.address());
    // Shows how long a message takes at best.
    assert!(is_pong(&mut framed));
    let sent_ms = now_ms();
    let end = clock::mono().plus_ms(1_500);
    until_true("time has passed", || clock::mono() >= end);
    let late = |id, message: &[u8], timeout_ms| Frame {
        sent_ms,
        timeout_ms,
        ..Frame::request(id, message)
    };
    for (message, at) in [(put("late", b"v"), 100), (get("late"), 101)] {
        framed.send(&late(at, &message, 500));
        assert_eq!(refusal(&framed.response(at)), Some(RefusalCode::Expired));
    }
    assert_eq!(node.value(b"late"), None);
    framed.send(&late(102, &put("in time", b"v"), 60_000));
    assert!(is_stored(&framed.response(102)));
    framed.send(&late(103, &put("no deadline", b"v"), 0));
    assert!(is_stored(&framed.response(103)));
    // Their lifetimes began when they were sent.
    for name in ["in time", "no deadline"] {
        match framed.ask(&get(name)) {
            Response::Found { remaining_ms, .. } => {
                assert!(remaining_ms <= 59_000, "{remaining_ms}")
            }
            other => panic!("{other:?}"),
        }
    }
}

/// A large put in its frames.
fn frames_of(id: u32, message: &[u8]) -> Vec<Frame> {
    let mut frames: Vec<Frame> =
        message.chunks(CHUNK_BYTES_MAX).map(|chunk| Frame::request(id, chunk)).collect();
    let last = frames.len() - 1;
    frames[..last].iter_mut().for_each(|frame| frame.flags = MORE);
    frames
}

#[test]
fn large_messages_interleave_and_small_ones_overtake_them() {
    let node = start();
    let mut framed = Framed::open(node.address());
    let values: Vec<Vec<u8>> = (1..=3).map(|n| vec![n; 300_000]).collect();
    let parts: Vec<Vec<Frame>> = (1..=3u32)
        .map(|n| frames_of(n, &put(&format!("large {n}"), &values[n as usize - 1])))
        .collect();
    for turn in 0..parts[0].len() {
        for frames in &parts {
            framed.send(&frames[turn]);
        }
        framed.send(&Frame::request(50, &get("large 1")));
        let all_sent = turn + 1 == parts[0].len();
        let found = matches!(framed.response(50), Response::Found { .. });
        // Nothing is stored before its last frame.
        assert_eq!(found, all_sent, "{turn}");
    }
    for id in 1..=3 {
        assert!(is_stored(&framed.response(id)));
        assert_eq!(
            node.value(format!("large {id}").as_bytes()),
            Some(values[id as usize - 1].clone())
        );
    }
}

#[test]
fn every_started_request_is_answered_exactly_once() {
    let node = start();
    let mut framed = Framed::open(node.address());
    // Given up in the middle: refused once, and its id may be used again.
    let frames = frames_of(1, &put("k", &[1; 200_000]));
    framed.send(&frames[0]);
    framed.send(&Frame { opcode: CANCEL, ..Frame::request(1, b"") });
    // Given up after it was answered.
    framed.send(&Frame::request(2, &put("small", b"v")));
    framed.send(&Frame { opcode: CANCEL, ..Frame::request(2, b"") });
    framed.send(&Frame::request(3, &compact_message(Request::Ping)));
    let answers: Vec<(u32, Response)> =
        (0..3).map(|_| framed.next_response().expect("a response")).collect();
    let of = |id| {
        let mut of: Vec<_> = answers.iter().filter(|(other, _)| *other == id).collect();
        assert_eq!(of.len(), 1, "{answers:?}");
        of.remove(0).1.clone()
    };
    assert_eq!(refusal(&of(1)), Some(RefusalCode::Expired));
    assert!(is_stored(&of(2)));
    framed.send(&Frame::request(1, &get("k")));
    assert!(matches!(framed.response(1), Response::NotFound { .. }));
}

#[test]
fn messages_beyond_a_bound_are_refused_once_and_the_rest_is_skipped() {
    let node = start();
    let mut framed = Framed::open(node.address());
    // Larger than any message that this node takes.
    let chunk = vec![0; CHUNK_BYTES_MAX];
    for _ in 0..300 {
        framed.send(&Frame { flags: MORE, ..Frame::request(1, &chunk) });
    }
    framed.send(&Frame::request(1, &chunk));
    assert_eq!(refusal(&framed.response(1)), Some(RefusalCode::TooLarge));
    // More messages at once than it puts together: the last one is too many.
    for id in 2..=66 {
        framed.send(&Frame { flags: MORE, ..Frame::request(id, &put("never whole", b"v")[..5]) });
    }
    let (id, refused) = framed.next_response().expect("a response");
    assert_eq!((id, refusal(&refused)), (66, Some(RefusalCode::Overloaded)));
    assert!(is_pong(&mut framed));
    for id in 2..=66 {
        framed.send(&Frame { opcode: CANCEL, ..Frame::request(id, b"") });
    }
    for _ in 2..=65 {
        let (_, refused) = framed.next_response().expect("a response");
        assert_eq!(refusal(&refused), Some(RefusalCode::Expired));
    }
    assert!(is_pong(&mut framed));
    assert_eq!(node.stat("entries"), 0);
}

#[test]
fn unfinished_messages_are_forgotten() {
    let node = start();
    let mut framed = Framed::open(node.address());
    for id in 1..=1_100 {
        // The node may have closed already.
        let frame = Frame { flags: MORE, ..Frame::request(id, b"") };
        let _closed = std::io::Write::write_all(framed.stream(), &frame.to_bytes());
    }
    let closed = (0..2_000).find_map(|_| framed.frame().err());
    assert!(closed.is_some(), "the connection stays open");
    assert_eq!(node.stat("bad_messages"), 1);
}

#[test]
fn half_a_message_is_never_stored() {
    let node = start();
    let frames = frames_of(1, &put("half", &[1; 200_000]));
    let last = frames[frames.len() - 1].to_bytes();
    for end in [0, 1, 19, 20, last.len() / 2, last.len() - 1] {
        let mut framed = Framed::open(node.address());
        for frame in &frames[..frames.len() - 1] {
            framed.send(frame);
        }
        std::io::Write::write_all(framed.stream(), &last[..end]).expect("sent");
        framed.stream().shutdown(std::net::Shutdown::Write).expect("shut down");
        assert!(framed.is_closed_by_node(), "{end}");
    }
    assert_eq!(node.value(b"half"), None);
    until_true("its memory is given back", || {
        let mut framed = Framed::open(node.address());
        let id = framed.request(&put("whole", &vec![1; 8 << 20]), 0);
        is_stored(&framed.response(id))
    });
}

#[test]
fn garbage_on_a_connection_is_survived() {
    let node = start();
    node.put(b"kept", b"v", "ttl=300");
    let mut random = Random::new(0xf4a3);
    let whole: Vec<u8> = frames_of(1, &put("new", &[1; 70_000]))
        .into_iter()
        .chain([
            Frame::request(2, &get("kept")),
            Frame::request(3, &compact_message(Request::Ping)),
        ])
        .flat_map(|frame| frame.to_bytes())
        .collect();
    for round in 0..200 {
        let mut bytes = whole.clone();
        match round % 3 {
            0 => bytes = (0..random.below(400)).map(|_| random.below(256) as u8).collect(),
            1 => bytes[random.below(40)] ^= 1 << random.below(8),
            _ => {
                // In the headers after the large frame, and cut off anywhere.
                let at = bytes.len() - 1 - random.below(80);
                bytes[at] ^= 1 << random.below(8);
                bytes.truncate(bytes.len() - random.below(60));
            }
        }
        let mut framed = Framed::open(node.address());
        let _cut_already = std::io::Write::write_all(framed.stream(), &bytes);
        let _closed_already = framed.stream().shutdown(std::net::Shutdown::Write);
        // Whatever is answered, it is frames, and then the end.
        while framed.frame().is_ok() {}
    }
    assert_eq!(node.stat("panics"), 0);
    assert_eq!(node.value(b"kept").as_deref(), Some(&b"v"[..]));
    assert!(is_pong(&mut Framed::open(node.address())));
}
