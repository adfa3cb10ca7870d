//! Conditional writes and their answers.

use super::*;
use crate::condition::{ConditionalWrite, TakenItem};

pub(super) fn conditional(condition: Condition, op: ConditionalOp) -> Request {
    let (key, ack) = (key("k"), Ack::Local);
    Request::Conditional(Box::new(ConditionalWrite { key, condition, op, ack }))
}

pub(super) fn put() -> ConditionalOp {
    let (value, metadata) = (Bytes::from_static(b"hi"), Bytes::new());
    ConditionalOp::Put { value, metadata, ttl: Ttl::from_secs(60).unwrap() }
}

pub(super) fn taken() -> TakenItem {
    TakenItem {
        value: Bytes::from_static(b"hi"),
        metadata: Bytes::new(),
        version: Version::new(0x01a1_faf0_70c2_0000, Incarnation(9)),
        remaining_ms: 1_000,
        deleted: Version::new(0x01a1_faf0_70c2_0010, Incarnation(9)),
    }
}

#[test]
fn bytes_of_conditional_writes_are_pinned() {
    let hex = |bytes: Bytes| bytes.iter().map(|b| alloc::format!("{b:02x}")).collect::<String>();
    let short = |request| {
        let message = message(request);
        hex(written(|out| message.encode_to(out, &Envelope { seen: 0, ..message.envelope }, NOW)))
    };
    let version = Version::new(0x01a1_faf0_70c2_0000, Incarnation(9));
    let (touch, take) =
        (ConditionalOp::Touch { ttl: Ttl::from_secs(60).unwrap() }, ConditionalOp::Take);
    for (condition, op, pinned) in [
        (Condition::Absent, put(), "1b06012a11016b120268691403e0d4031501003401013500"),
        (
            Condition::Version(version),
            ConditionalOp::Delete,
            "1b06012a11016b150100340102351001a1faf070c200000000000000000009",
        ),
        (Condition::Present, touch, "1b06012a11016b1403e0d403150100340103"),
        (Condition::Present, take, "1b06012a11016b150100340104"),
        (
            Condition::Version(version),
            ConditionalOp::Use,
            "1b06012a11016b150100340105351001a1faf070c200000000000000000009",
        ),
    ] {
        assert_eq!(short(conditional(condition, op)), pinned);
    }
    let not_met = Response::NotMet { current: Some(version) };
    assert_eq!(hex(not_met.encode()), "1b071001a1faf070c200000000000000000009");
    assert_eq!(hex(Response::NotMet { current: None }.encode()), "1b");
    assert_eq!(
        hex(Response::Taken(Box::new(taken())).encode()),
        "1c05026869071001a1faf070c2000000000000000000090802e8071c1001a1faf070c200100000000000000009"
    );
}

#[test]
fn conditional_write_of_an_unknown_operation_is_no_message() {
    let mut later =
        message(conditional(Condition::Present, ConditionalOp::Take)).encode(NOW).to_vec();
    // The number of the operation is the last byte.
    *later.last_mut().unwrap() = 9;
    assert!(RequestMessage::decode(later.into(), NOW).is_err());
}
