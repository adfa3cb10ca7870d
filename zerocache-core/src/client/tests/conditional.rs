//! Writes on a condition.

use alloc::boxed::Box;

use super::*;
use crate::{
    access::Denial,
    condition::{ConditionalOp, TakenItem},
    key::KeyHash,
    rendezvous,
    ttl::Ttl,
};

fn operation(op: &ConditionalOp) -> ConditionalOperation {
    ConditionalOperation::new(KeyHash::of(b"key"), op, Ack::Local, at(0), 2_750)
}

fn put_if() -> ConditionalOperation {
    let (value, metadata) = (Bytes::from_static(b"v"), Bytes::new());
    operation(&ConditionalOp::Put { value, metadata, ttl: Ttl::MAX })
}

const fn not_met(current: Option<Version>) -> CallResult {
    Ok(Response::NotMet { current })
}

/// The nodes of oslo, that of the highest weight first.
fn by_weight() -> [u64; 2] {
    let weight = |n| rendezvous::weight(KeyHash::of(b"key"), Incarnation(n));
    if weight(1) > weight(2) { [1, 2] } else { [2, 1] }
}

#[test]
fn all_clients_of_a_region_ask_the_same_node() {
    let mut state = state();
    for _ in 0..5 {
        let mut put = put_if();
        let request = put.on(at(0), Event::Start, &mut state).sent();
        assert_eq!(request.step.node.0, by_weight()[0]);
        let done = put.on(at(1), answer(request.id, not_met(Some(version(7, 2)))), &mut state);
        assert_eq!(done.done(), ConditionalResult::NotMet { current: Some(version(7, 2)) });
        // What the client writes from now on is newer.
        assert_eq!(state.seen(), version(7, 2).stamp());
        // It wrote nothing.
        assert_eq!(state.own_write(KeyHash::of(b"key"), at(2)), None);
    }
}

#[test]
fn what_is_written_is_remembered() {
    let mut state = state();
    let mut put = put_if();
    let request = put.on(at(0), Event::Start, &mut state).sent();
    let done = put.on(at(1), answer(request.id, stored(4, 1)), &mut state).done();
    assert!(matches!(done, ConditionalResult::Written(_)));
    let own = state.own_write(KeyHash::of(b"key"), at(2)).unwrap();
    assert_eq!(
        (own.node, own.version, own.is_delete),
        (request.step.node, Some(version(4, 1)), false)
    );
    let mut take = operation(&ConditionalOp::Take);
    let request = take.on(at(2), Event::Start, &mut state).sent();
    let item = TakenItem {
        value: Bytes::from_static(b"v"),
        metadata: Bytes::new(),
        version: version(4, 1),
        remaining_ms: 9,
        deleted: version(5, 1),
    };
    let taken = answer(request.id, Ok(Response::Taken(Box::new(item))));
    let done = take.on(at(3), taken, &mut state).done();
    assert!(matches!(done, ConditionalResult::Taken(_, _, deleted) if deleted == version(5, 1)));
    let own = state.own_write(KeyHash::of(b"key"), at(4)).unwrap();
    assert_eq!((own.version, own.is_delete), (Some(version(5, 1)), true));
}

#[test]
fn next_node_is_asked_only_where_nothing_can_have_been_written() {
    for result in
        [refused(RefusalCode::Warming), refused(RefusalCode::Overloaded), Err(CallFailure::Refused)]
    {
        let mut state = state();
        let mut put = put_if();
        let first = put.on(at(0), Event::Start, &mut state).sent();
        let second = put.on(at(1), answer(first.id, result.clone()), &mut state).sent();
        assert_eq!([first.step.node.0, second.step.node.0], by_weight());
        let unknown = answer(second.id, Err(CallFailure::NoAnswer));
        let done = put.on(at(600), unknown, &mut state).done();
        assert_eq!(done, ConditionalResult::Unknown);
        // A second answer to it changes nothing.
        assert!(put.on(at(601), answer(second.id, stored(4, 3)), &mut state).waits());
    }
}

#[test]
fn another_region_is_asked_when_the_own_one_has_no_node() {
    let mut state = state();
    let mut put = put_if();
    let mut request = put.on(at(0), Event::Start, &mut state).sent();
    for _ in 0..2 {
        let failed = answer(request.id, Err(CallFailure::Refused));
        request = put.on(at(1), failed, &mut state).sent();
    }
    assert_eq!(request.step.node.0, 3);
    let last = answer(request.id, refused(RefusalCode::Warming));
    assert_eq!(put.on(at(2), last, &mut state).done(), ConditionalResult::Refused);
}

#[test]
fn version_on_its_way_is_awaited_at_the_same_node() {
    let mut state = state();
    let mut put = put_if();
    let mut request = put.on(at(0), Event::Start, &mut state).sent();
    let (node, mut now_ms, mut asked) = (request.step.node, 0, 1);
    let done = loop {
        let behind = answer(request.id, refused(RefusalCode::Behind));
        let until = match put.on(at(now_ms), behind, &mut state).action {
            Action::AwaitNodes { until } => until,
            Action::Done(outcome) => break outcome,
            other => panic!("{other:?}"),
        };
        // A change of the directory is no reason to ask earlier.
        let early = put.on(at(now_ms), Event::ViewChanged, &mut state).action;
        assert!(matches!(early, Action::AwaitNodes { until: again } if again == until));
        now_ms += until.since_ms(at(now_ms));
        request = put.on(at(now_ms), Event::Timer, &mut state).sent();
        assert_eq!(request.step.node, node);
        asked += 1;
    };
    assert_eq!(done, ConditionalResult::Refused);
    assert!((2_600..=2_750).contains(&now_ms), "{now_ms}");
    assert!((25..=35).contains(&asked), "{asked}");
}

#[test]
fn node_without_conditions_is_never_asked() {
    let mut state = state();
    let old = Incarnation(by_weight()[0]);
    state.directory_mut().set_features(old, features::ALL & !features::CONDITIONS, at(0));
    let mut put = put_if();
    assert_eq!(put.on(at(0), Event::Start, &mut state).sent().step.node.0, by_weight()[1]);
    for n in 1..=3 {
        state.directory_mut().set_features(Incarnation(n), 0, at(0));
    }
    let mut put = put_if();
    let done = put.on(at(0), Event::Start, &mut state).done();
    assert_eq!(done, ConditionalResult::Unsupported);
    for n in 1..=3 {
        state.directory_mut().request_failed(Incarnation(n), at(0));
    }
    let mut put = put_if();
    assert_eq!(put.on(at(0), Event::Start, &mut state).done(), ConditionalResult::Unreachable);
}

#[test]
fn refusal_of_the_request_itself_is_final() {
    for (code, is_denied) in [(RefusalCode::BadKey, false), (RefusalCode::Forbidden, true)] {
        let mut state = state();
        let mut put = put_if();
        let request = put.on(at(0), Event::Start, &mut state).sent();
        let done = put.on(at(1), answer(request.id, refused(code)), &mut state).done();
        assert_eq!(matches!(done, ConditionalResult::Denied(Denial::Forbidden, _)), is_denied);
        assert_eq!(matches!(done, ConditionalResult::Invalid(_)), !is_denied);
    }
}
