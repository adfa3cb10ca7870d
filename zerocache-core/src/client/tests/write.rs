//! Writes.

use super::*;
use crate::access::Denial;

#[test]
fn an_accepted_write_is_remembered() {
    let mut state = state();
    let mut put = put(10);
    let first = put.on(at(0), Event::Start, &mut state).sent();
    let done = put.on(at(1), answer(first.id, stored(4, 1)), &mut state).done();
    assert!(matches!(done, WriteResult::Written(written) if written.status == Status::Stored));
    let own = state.own_write(crate::key::KeyHash::of(b"key"), at(2)).unwrap();
    assert_eq!((own.node.0, own.version, own.is_delete), (1, Some(version(4, 1)), false));
    assert_eq!(state.seen(), version(4, 1).stamp());
}

#[test]
fn a_write_that_a_purge_ended_leaves_the_earlier_one() {
    let mut state = state();
    let mut write = |at_ms: u64, response| {
        let mut put = put(10);
        let first = put.on(at(at_ms), Event::Start, &mut state).sent();
        put.on(at(at_ms + 1), answer(first.id, response), &mut state).done();
        state.own_write(crate::key::KeyHash::of(b"key"), at(at_ms + 2)).unwrap()
    };
    let first = write(0, stored(4, 1));
    let status = Status::Superseded;
    let ended = Written { status, replicas: 0, replicas_wanted: 1, version: None };
    assert_eq!(write(10, Ok(Response::Written(ended))), first);
}

#[test]
fn a_write_that_may_have_arrived_is_sent_to_nobody_else() {
    let mut state = state();
    let mut put = put(10);
    let first = put.on(at(0), Event::Start, &mut state).sent();
    let second = put.on(at(1), answer(first.id, Err(CallFailure::NotSent)), &mut state).sent();
    let third = put.on(at(2), answer(second.id, refused(RefusalCode::Overloaded)), &mut state);
    let third = third.sent();
    let unknown = put.on(at(700), answer(third.id, Err(CallFailure::NoAnswer)), &mut state);
    assert_eq!(unknown.done(), WriteResult::Unknown);
    // Its answer comes too late: nobody learns of it, and the operation stays what it was.
    assert!(put.on(at(701), answer(third.id, stored(4, 3)), &mut state).waits());
    assert_eq!(state.own_write(crate::key::KeyHash::of(b"key"), at(702)), None);
}

#[test]
fn a_write_that_nobody_takes_is_refused_or_unreachable() {
    for (result, outcome) in [
        (refused(RefusalCode::Overloaded), WriteResult::Refused),
        (Err(CallFailure::Refused), WriteResult::Unreachable),
    ] {
        let mut state = state();
        let mut put = put(10);
        let mut request = put.on(at(0), Event::Start, &mut state).sent();
        let done = loop {
            match put.on(at(1), answer(request.id, result.clone()), &mut state).action {
                Action::Send { request: next, .. } => request = next,
                Action::Done(outcome) => break outcome,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(done, outcome);
    }
}

#[test]
fn a_value_too_large_is_sent_once_to_each_node() {
    let mut state = state();
    for n in [1, 2] {
        let mut put = put(2_000);
        let request = put.on(at(0), Event::Start, &mut state).sent();
        assert_eq!(request.step.node.0, n);
        let told = Ok(Response::value_too_large(2_000, 1_000));
        let done = put.on(at(1), answer(request.id, told), &mut state).done();
        assert!(matches!(done, WriteResult::TooLarge { is_sent: true, .. }), "{done:?}");
    }
    for bytes in [2_000, 1_001] {
        let done = put(bytes).on(at(2), Event::Start, &mut state).done();
        assert!(matches!(done, WriteResult::TooLarge { is_sent: false, .. }), "{done:?}");
    }
    put(1_000).on(at(2), Event::Start, &mut state).sent();
}

#[test]
fn waiting_for_replicas_may_take_all_the_time_and_makes_nobody_silent() {
    let mut state = state();
    let mut put = Operation::new(WriteRules::new(b"key", None, Ack::All), at(0), 2_750);
    let first = put.on(at(0), Event::Start, &mut state).sent();
    assert_eq!(first.timeout_ms, 2_750);
    assert!(in_rotation(&state, 1, 2_000));
    let second = put.on(at(100), answer(first.id, Err(CallFailure::NotSent)), &mut state).sent();
    assert_eq!(second.timeout_ms, 2_650);
    let done = put.on(at(2_000), answer(second.id, stored(4, 2)), &mut state).done();
    assert!(matches!(done, WriteResult::Written(_)));
    assert!(state.own_write(crate::key::KeyHash::of(b"key"), at(2_001)).unwrap().is_delete);
}

/// The node waits for a region that is cut off, and answers everything else meanwhile.
#[test]
fn a_write_that_waited_in_vain_puts_only_a_silent_node_out() {
    for is_silent in [false, true] {
        let mut state = state();
        let mut put = Operation::new(WriteRules::new(b"key", None, Ack::All), at(0), 2_750);
        let first = put.on(at(0), Event::Start, &mut state).sent();
        if !is_silent {
            state.directory_mut().record_answer(first.step.node, at(2_700), None);
        }
        let done = put.on(at(2_750), answer(first.id, Err(CallFailure::NoAnswer)), &mut state);
        assert_eq!(done.done(), WriteResult::Unknown);
        assert_eq!(in_rotation(&state, first.step.node.0, 2_751), !is_silent);
    }
}

#[test]
fn a_cancelled_write_still_owes_nothing_to_anybody() {
    let mut state = state();
    let mut put = put(10);
    let first = put.on(at(0), Event::Start, &mut state).sent();
    assert!(!in_rotation(&state, 1, 200));
    assert!(put.on(at(201), Event::Cancelled, &mut state).waits());
    assert!(in_rotation(&state, 1, 202));
    assert!(put.on(at(203), answer(first.id, stored(4, 1)), &mut state).waits());
}

#[test]
fn a_denied_write_is_not_sent_to_others() {
    let mut state = state();
    let mut put = put(10);
    let first = put.on(at(0), Event::Start, &mut state).sent();
    let done = put.on(at(1), answer(first.id, refused(RefusalCode::Forbidden)), &mut state).done();
    assert_eq!(done, WriteResult::Denied(Denial::Forbidden, "no".into()));
}
