//! Round trips, golden bytes, tolerance of unknown fields, and garbage.

mod conditional;
mod placement;

use alloc::{boxed::Box, string::String, vec, vec::Vec};

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

use self::conditional::{conditional, put, taken};
use super::{field::Writer, *};
use crate::{
    condition::{Condition, ConditionalOp},
    entry::{Change, Record},
    key::Key,
    locate::{CopyState, KeyCopy, NodeCopies, Reply, Spread},
    purge::{PurgeMode, PurgeTarget, TargetId},
    time::Instant,
    ttl::Ttl,
    version::{Basis, Incarnation, Version, VersionSource},
};

const NOW: Instant = Instant::from_millis(5_000);

fn key(text: &str) -> Key {
    Key::within(Bytes::copy_from_slice(text.as_bytes()), 1024).unwrap()
}

fn message(request: Request) -> RequestMessage {
    let envelope = Envelope {
        cluster: cluster_id("zerocache"),
        from: Some(Incarnation(7)),
        to: None,
        sent_ms: 5_000,
        timeout_ms: 500,
        seen: 42,
        delay_ms: 0,
    };
    RequestMessage { envelope, request }
}

fn info(incarnation: u64) -> NodeInfo {
    NodeInfo {
        incarnation: Incarnation(incarnation),
        region: "london".into(),
        zone: Some("a".into()),
        addresses: vec!["127.0.0.2:6789".parse().unwrap(), "[::1]:6789".parse().unwrap()],
        state: NodeState::InSync,
        bytes_max: 1 << 30,
        name: None,
        replicas: crate::cluster::Replicas::All,
    }
}

fn hello() -> Hello {
    Hello {
        cluster: "zerocache".into(),
        protocol: PROTOCOL,
        features: 5,
        entries: 77,
        session: None,
        absent: placement::absent().into(),
        auth: Bytes::from_static(b"later"),
        wall_ms: 1_800_000_000_000,
        node: Some(info(1)),
        region: "london".into(),
        members: vec![placement::named(2), NodeInfo { zone: None, addresses: vec![], ..info(3) }],
    }
}

fn requests() -> Vec<Request> {
    let version = Version::new(42 << 16, Incarnation(9));
    let value = Change::Put {
        value: Bytes::from_static(b"value"),
        metadata: Bytes::from_static(b"meta"),
        expires: NOW.plus_ms(1_500),
    };
    let record = |change| Record { key: key("k"), version, change };
    let replicated =
        |change, relay| ReplicatedRecord { record: record(change), relay, witness: false };
    vec![
        Request::Hello(Box::new(hello())),
        Request::Ping,
        Request::Goodbye,
        Request::Get { key: key("k") },
        Request::Put {
            key: key("k"),
            value: Bytes::new(),
            metadata: Bytes::new(),
            ttl: Ttl::MAX,
            ack: Ack::All,
            version: VersionSource::Accepted,
        },
        Request::Put {
            key: key("k"),
            value: Bytes::from_static(b"v"),
            metadata: Bytes::new(),
            ttl: Ttl::MAX,
            ack: Ack::Local,
            version: VersionSource::Computed(Basis { age_ms: 250, known: 1 << 40 }),
        },
        Request::Put {
            key: key("k"),
            value: Bytes::from_static(b"v"),
            metadata: Bytes::from_static(b"m"),
            ttl: Ttl::MAX,
            ack: Ack::Local,
            version: VersionSource::Given(version),
        },
        Request::Lease { key: key("k"), lease_ms: 10_000, wait_ms: 3_000, newer_than: None },
        Request::Lease { key: key("k"), lease_ms: 0, wait_ms: 0, newer_than: Some(version) },
        Request::Release { key: key("k"), token: version, failed: true },
        Request::Release { key: key("k"), token: version, failed: false },
        Request::Follow { since: 300, with_purges: false },
        Request::Follow { since: 300, with_purges: true },
        Request::Listen { since: 300, at_once: false },
        Request::Listen { since: 300, at_once: true },
        Request::Purge {
            target: PurgeTarget::Everything,
            mode: PurgeMode::Hard,
            hold_ms: 0,
            ack: Ack::Region,
            replayed: None,
        },
        Request::Purge {
            target: PurgeTarget::tag("a").unwrap(),
            mode: PurgeMode::Soft,
            hold_ms: 1_000,
            ack: Ack::All,
            replayed: Some(Version::new(5 << 16, Incarnation(9))),
        },
        Request::Locate { keys: vec![key("k")], digest: false, spread: Spread::Region },
        Request::Locate { keys: vec![key("k"), key("l")], digest: true, spread: Spread::Cluster },
        Request::Delete { key: key("k"), ack: Ack::Region },
        conditional(Condition::Absent, put()),
        conditional(Condition::Version(version), ConditionalOp::Delete),
        conditional(Condition::Present, ConditionalOp::Touch { ttl: Ttl::MAX }),
        conditional(Condition::Present, ConditionalOp::Take),
        Request::Replicate(vec![replicated(value, true), replicated(Change::Delete, false)]),
    ]
}

fn located() -> Vec<NodeCopies> {
    let node = hello().members[0].clone();
    let version = Version::new(42 << 16, Incarnation(9));
    let value = KeyCopy {
        state: CopyState::Value,
        version: Some(version),
        remaining_ms: 1_500,
        fresh_ms: 500,
        bytes: 7,
        digest: Some(5),
        is_witness: true,
        ..KeyCopy::default()
    };
    let gone = KeyCopy::tombstone(version, true);
    let copies = vec![value, gone, KeyCopy::default()];
    vec![
        NodeCopies { node: node.clone(), reply: Reply::Answered, copies },
        NodeCopies { node: node.clone(), reply: Reply::Unreachable, copies: Vec::new() },
        NodeCopies { node, reply: Reply::Unsupported, copies: Vec::new() },
    ]
}

fn responses() -> Vec<Response> {
    let version = Version::new(42 << 16, Incarnation(9));
    vec![
        Response::Hello(Box::new(Hello {
            session: Some(Session { key: SessionKey::from_bytes([5; 32]), generation: None }),
            ..hello()
        })),
        Response::Hello(Box::new(Hello {
            session: Some(Session { key: SessionKey::from_bytes([5; 32]), generation: Some(6) }),
            ..hello()
        })),
        Response::Hello(Box::new(hello())),
        Response::Pong {
            incarnation: Incarnation(1),
            state: NodeState::Leaving,
            view: u64::MAX,
            wall_ms: 3,
        },
        Response::Done,
        Response::Located(located()),
        Response::Found {
            value: Bytes::new(),
            metadata: Bytes::from_static(b"m"),
            version,
            remaining_ms: 1_000,
        },
        Response::NotFound { warming: true, known: 0 },
        Response::NotFound { warming: false, known: 1 << 40 },
        Response::LeaseGranted { token: version },
        Response::LeaseHeld,
        Response::Unconfirmed,
        Response::Changes {
            next: 302,
            lost: false,
            changes: vec![(1, 2), (u64::MAX, 0)],
            purges: vec![(3, 4)],
        },
        Response::Changes { next: 7, lost: true, changes: vec![], purges: vec![] },
        Response::ChangeRows { next: 7, lost: true, rows: vec![] },
        Response::ChangeRows {
            next: 300,
            lost: false,
            rows: vec![
                ChangeRow::Written { key: u64::MAX, version },
                ChangeRow::Target(TargetId(5)),
                ChangeRow::Deleted { key: 1, version },
                ChangeRow::Purged { target: TargetId::EVERYTHING, stamp: 9 },
            ],
        },
        Response::Written(Written {
            status: Status::Superseded,
            replicas: 2,
            replicas_wanted: 3,
            version: Some(version),
        }),
        Response::NotMet { current: Some(version) },
        Response::NotMet { current: None },
        Response::Taken(Box::new(taken())),
        Response::Replicated(vec![Receipt::Holds(version), Receipt::Refused]),
        Response::refused(RefusalCode::TooLarge, "too large"),
        Response::value_too_large(9 << 20, 8 << 20),
    ]
}

fn written(write: impl FnOnce(&mut Writer<'_>)) -> Bytes {
    let mut out = BytesMut::new();
    write(&mut Writer::new(&mut out));
    out.freeze()
}

#[test]
fn messages_survive_the_round_trip() {
    for request in requests().into_iter().chain(placement::requests()) {
        let message = message(request);
        assert_eq!(RequestMessage::decode(message.encode(NOW), NOW), Ok(message));
    }
    for response in responses() {
        assert_eq!(Response::decode(response.encode()), Ok(response));
    }
}

#[test]
fn lifetimes_are_encoded_as_remaining_time() {
    let replicate = requests().pop().unwrap();
    let later = NOW.plus_ms(1_000);
    let receiver = Instant::from_millis(77);
    let decoded = RequestMessage::decode(message(replicate).encode(later), receiver).unwrap();
    let Request::Replicate(batch) = decoded.request else { panic!("not a batch") };
    let Change::Put { expires, .. } = batch[0].record.change else { panic!("not a put") };
    assert_eq!(expires, receiver.plus_ms(500));
}

#[test]
fn message_bytes_are_pinned() {
    let hex = |bytes: Bytes| bytes.iter().map(|b| alloc::format!("{b:02x}")).collect::<String>();
    let mut get = message(Request::Get { key: key("k") });
    get.envelope.seen = 0;
    assert_eq!(hex(get.encode(NOW)), "040109f9ab90cdaad1b19568020107040288270502f40311016b");
    let miss = Response::NotFound { warming: false, known: 0 };
    assert_eq!(hex(miss.encode()), "05090100");

    let token = Version::new(0x01a1_faf0_70c2_0000, Incarnation(9));
    let short = |request| {
        let message = message(request);
        hex(written(|out| message.encode_to(out, &Envelope { seen: 0, ..message.envelope }, NOW)))
    };
    let lease =
        Request::Lease { key: key("k"), lease_ms: 10_000, wait_ms: 3_000, newer_than: None };
    assert_eq!(short(lease), "1606012a11016b2a02904e2b02b817");
    let release = Request::Release { key: key("k"), token, failed: true };
    assert_eq!(short(release), "1706012a11016b2c1001a1faf070c2000000000000000000092d0101");
    let locate = Request::Locate { keys: vec![key("k")], digest: true, spread: Spread::Cluster };
    assert_eq!(short(locate), "1a06012a3c016b3d01013e0102");
    assert_eq!(short(Request::Follow { since: 300, with_purges: false }), "1806012a2e02ac02");
    let fill = Request::Put {
        key: key("k"),
        value: Bytes::from_static(b"hi"),
        metadata: Bytes::new(),
        ttl: Ttl::from_secs(60).unwrap(),
        ack: Ack::Local,
        version: VersionSource::Given(token),
    };
    let pinned = "0506012a11016b120268691403e0d4031501002c1001a1faf070c200000000000000000009";
    assert_eq!(short(fill.clone()), pinned);
    let mut computed = fill;
    if let Request::Put { version, .. } = &mut computed {
        *version = VersionSource::Computed(Basis { age_ms: 250, known: 300 });
    }
    let pinned = "0506012a11016b120268691403e0d4031501002302fa012402ac02";
    assert_eq!(short(computed), pinned);
    let missed = Response::NotFound { warming: false, known: 300 };
    assert_eq!(hex(missed.encode()), "050901001b02ac02");

    let leased = Response::LeaseGranted { token };
    assert_eq!(hex(leased.encode()), "16071001a1faf070c200000000000000000009");
    assert_eq!(hex(Response::LeaseHeld.encode()), "17");
    let changes =
        Response::Changes { next: 301, lost: false, changes: vec![(0x0102, 0x03)], purges: vec![] };
    assert_eq!(hex(changes.encode()), "182902ad022a01002b1002010000000000000300000000000000");
}

#[test]
fn fields_equal_to_the_defaults_are_left_out() {
    for request in requests() {
        let message = message(request);
        let known = Envelope { delay_ms: 0, ..message.envelope };
        let short = written(|out| message.encode_to(out, &known, NOW));
        assert!(short.len() < message.encode(NOW).len());
        assert_eq!(RequestMessage::decode_with_defaults(short, known, NOW), Ok(message));
    }
}

#[test]
fn borrowed_writes_encode_the_same_messages() {
    let known = Envelope { cluster: 1, ..Envelope::default() };
    let long = |request| {
        let message = RequestMessage { envelope: Envelope { seen: 9, ..known }, request };
        written(|out| message.encode_to(out, &known, NOW))
    };
    let (key, ttl, ack) = (key("k"), Ttl::MAX, Ack::Region);
    let delete = long(Request::Delete { key: key.clone(), ack });
    assert_eq!(written(|out| RequestMessage::encode_delete(out, 9, b"k", ack)), delete);
    let value = Bytes::from_static(b"value");
    for metadata in [&b""[..], b"\x01\x01\x05"] {
        let (key, value) = (key.clone(), value.clone());
        let version = VersionSource::Computed(Basis { age_ms: 7, known: 0 });
        let put = Request::Put { key, value, metadata: metadata.into(), ttl, ack, version };
        let parts = (&b"k"[..], &b"value"[..], metadata);
        let short = written(|out| RequestMessage::encode_put(out, 9, parts, (ttl, ack), version));
        assert_eq!(short, long(put));
    }
}

#[test]
fn borrowed_get_encodes_the_same_message() {
    let mut get = message(Request::Get { key: key("some key") });
    get.envelope = Envelope { cluster: 1, ..Envelope::default() };
    let known = get.envelope;
    let long = written(|out| get.encode_to(out, &known, NOW));
    let short = written(|out| RequestMessage::encode_get(out, b"some key"));
    assert_eq!(long, short);
    assert_eq!(RequestMessage::peek_get(&long), Some(&b"some key"[..]));
    for end in 0..long.len() {
        assert_eq!(RequestMessage::peek_get(&long[..end]), None, "{end}");
    }
    let addressed = message(Request::Get { key: key("k") }).encode(NOW);
    assert_eq!(RequestMessage::peek_get(&addressed), None);
    let dots = written(|out| RequestMessage::encode_get(out, b".."));
    assert_eq!(RequestMessage::peek_get(&dots), None);
}

#[test]
fn vectored_output_shares_large_contents() {
    let value = Bytes::from(vec![7; 100_000]);
    let found = Response::Found {
        value: value.clone(),
        metadata: Bytes::from_static(b"m"),
        version: Version::new(42 << 16, Incarnation(9)),
        remaining_ms: 1_000,
    };
    let (mut out, mut parts) = (BytesMut::new(), Vec::new());
    found.encode_to(&mut Writer::vectored(&mut out, &mut parts));
    assert_eq!(parts.len(), 2);
    assert_eq!(parts[1].as_ptr(), value.as_ptr());
    parts.push(out.freeze());
    assert_eq!(parts.concat(), found.encode());
}

#[test]
fn delay_is_subtracted_from_lifetimes() {
    let expires = NOW.plus_ms(1_500);
    let change = Change::Put { value: Bytes::new(), metadata: Bytes::new(), expires };
    let version = Version::new(42 << 16, Incarnation(9));
    let record = Record { key: key("k"), version, change };
    let batch = vec![ReplicatedRecord { record, relay: false, witness: false }];
    let batch = message(Request::Replicate(batch)).encode(NOW);
    let known = Envelope { delay_ms: 400, ..Envelope::default() };
    let receiver = Instant::from_millis(1_000_000);
    let decoded = RequestMessage::decode_with_defaults(batch, known, receiver).unwrap();
    let Request::Replicate(batch) = decoded.request else { panic!("a batch") };
    let Change::Put { expires, .. } = batch[0].record.change else { panic!("a value") };
    assert_eq!(expires, receiver.plus_ms(1_100));
    assert_eq!(decoded.envelope.remaining_ms(), Some(100));
    let late = Envelope { timeout_ms: 500, delay_ms: 500, ..Envelope::default() };
    assert_eq!(late.remaining_ms(), None);

    let found = |remaining_ms| Response::Found {
        value: Bytes::new(),
        metadata: Bytes::new(),
        version,
        remaining_ms,
    };
    assert_eq!(found(1_000).delayed_by(400), found(600));
    let late = Response::NotFound { warming: false, known: version.stamp() };
    assert_eq!(found(1_000).delayed_by(1_000), late);
    assert_eq!(found(0).delayed_by(0), found(0));
}

#[test]
fn unknown_fields_are_skipped() {
    let mut bytes = message(Request::Ping).encode(NOW).to_vec();
    let later = written(|out| {
        out.bytes(99, b"from the future");
        out.number(4_000_000, 1);
    });
    bytes.extend_from_slice(&later);
    assert_eq!(RequestMessage::decode(bytes.into(), NOW), Ok(message(Request::Ping)));
}

#[test]
fn truncated_messages_differ_or_fail() {
    for request in requests() {
        let whole = message(request).encode(NOW);
        for end in 0..whole.len() {
            // A cut between fields can leave a shorter valid message; it must not panic.
            if let Ok(decoded) = RequestMessage::decode(whole.slice(..end), NOW) {
                assert_ne!(decoded.encode(NOW), whole);
            }
        }
    }
}

#[test]
fn limits_are_enforced() {
    let many = written(|out| {
        out.varint(7);
        for _ in 0..=REPLICATED_RECORDS_MAX {
            out.nested(22, |out| {
                out.bytes(1, b"k");
                out.bytes(2, &[0; 16]);
            });
        }
    });
    assert_eq!(RequestMessage::decode(many, NOW), Err(DecodeError::TooMany(22)));

    let eternal = written(|out| {
        out.varint(7);
        out.nested(22, |out| {
            out.bytes(1, b"k");
            out.bytes(2, &[0; 16]);
            out.bytes(3, b"v");
            out.number(5, u64::MAX);
        });
    });
    assert_eq!(RequestMessage::decode(eternal, NOW), Err(DecodeError::Invalid(5)));

    let changes = |bytes: usize| {
        Response::decode(written(|out| {
            out.varint(24);
            out.bytes(43, &vec![0; bytes]);
        }))
    };
    assert!(changes(16 * CHANGES_MAX).is_ok());
    assert_eq!(changes(16 * CHANGES_MAX + 16), Err(DecodeError::TooMany(43)));
    for odd in [1, 8, 24] {
        assert_eq!(changes(odd), Err(DecodeError::Invalid(43)), "{odd}");
    }
}

proptest! {
    #[test]
    fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let bytes = Bytes::from(bytes);
        let _ = RequestMessage::decode(bytes.clone(), NOW);
        let _ = Response::decode(bytes);
    }

    #[test]
    fn flipped_bytes_never_panic(index in any::<prop::sample::Index>(), byte in any::<u8>()) {
        for request in requests() {
            let mut bytes = message(request).encode(NOW).to_vec();
            let at = index.index(bytes.len());
            bytes[at] = byte;
            let _ = RequestMessage::decode(bytes.into(), NOW);
        }
        for response in responses() {
            let mut bytes = response.encode().to_vec();
            let at = index.index(bytes.len());
            bytes[at] = byte;
            let _ = Response::decode(bytes.into());
        }
    }

    #[test]
    fn numbers_survive(n in any::<u64>()) {
        let out = written(|out| out.number(3, n));
        let field = field::Reader::new(&out).next_field().unwrap().unwrap();
        prop_assert_eq!(field.number(), Ok(n));
    }
}
