//! Leases.

use super::*;
use crate::{key::KeyHash, route::LeaseRange};

fn lease(wait_ms: u64) -> LeaseRequest {
    LeaseRequest::new(KeyHash::of(b"key"), LeaseRange::Region, wait_ms, u64::MAX, at(0))
}

#[track_caller]
fn asked(action: LeaseAction) -> (Outgoing, u64) {
    match action {
        LeaseAction::Send { request, wait_ms } => (request, wait_ms),
        other => panic!("{other:?}"),
    }
}

fn granted() -> CallResult {
    Ok(Response::LeaseGranted { token: version(9, 1) })
}

#[test]
fn the_answer_of_the_node_is_the_outcome() {
    for (result, outcome) in [
        (granted(), 0),
        (found(3), 1),
        (Ok(Response::LeaseHeld), 2),
        (refused(RefusalCode::Overloaded), 3),
    ] {
        let mut state = state();
        let mut lease = lease(1_000);
        let (request, wait_ms) = asked(lease.on(at(0), Event::Start, &mut state));
        assert_eq!((wait_ms, request.timeout_ms), (1_000, 1_500));
        let action = lease.on(at(1), answer(request.id, result), &mut state);
        let LeaseAction::Done(done) = action else { panic!("{action:?}") };
        let step = request.step;
        assert_eq!(
            outcome,
            match done {
                LeaseOutcome::Granted(by, token) if by == step && token == version(9, 1) => 0,
                LeaseOutcome::Found(by, _) if by == step => 1,
                LeaseOutcome::Busy(by) if by == step => 2,
                LeaseOutcome::Refused(by) if by == step => 3,
                other => panic!("{other:?}"),
            }
        );
    }
}

#[test]
fn when_the_node_is_gone_the_next_one_is_asked_within_the_same_wait() {
    let mut state = state();
    let mut lease = lease(1_000);
    let (first, _) = asked(lease.on(at(0), Event::Start, &mut state));
    assert!(in_rotation(&state, first.step.node.0, 900), "a node that lets wait is not silent");
    assert!(matches!(lease.on(at(100), Event::Timer, &mut state), LeaseAction::Wait));
    state.directory_mut().request_failed(first.step.node, at(150));
    let (second, wait_ms) = asked(lease.on(at(200), Event::Timer, &mut state));
    assert_ne!(first.step.node, second.step.node);
    assert_eq!(wait_ms, 800);
    // The first one was not gone: what it granted is released.
    let late = lease.on(at(210), answer(first.id, granted()), &mut state);
    assert!(matches!(late, LeaseAction::Release(step, _) if step == first.step));
    assert!(matches!(
        lease.on(at(211), answer(first.id, granted()), &mut state),
        LeaseAction::Wait
    ));
    let done = lease.on(at(300), answer(second.id, Ok(Response::LeaseHeld)), &mut state);
    assert!(matches!(done, LeaseAction::Done(LeaseOutcome::Busy(_))));
}

#[test]
fn without_a_node_that_answers_there_is_no_lease() {
    let mut state = state();
    let mut one = lease(0);
    let (first, _) = asked(one.on(at(0), Event::Start, &mut state));
    let failed = || Err(CallFailure::Refused);
    let (second, _) = asked(one.on(at(1), answer(first.id, failed()), &mut state));
    let last = one.on(at(2), answer(second.id, failed()), &mut state);
    assert!(matches!(last, LeaseAction::Done(LeaseOutcome::Unavailable)));

    // One that does not answer, but is still the node for the key, is not asked twice.
    let mut state = super::state();
    let mut lease = LeaseRequest::new(KeyHash::of(b"key"), LeaseRange::Region, 0, 10, at(0));
    let (first, _) = asked(lease.on(at(0), Event::Start, &mut state));
    assert_eq!(first.timeout_ms, 10);
    let last = lease.on(at(10), answer(first.id, Err(CallFailure::NoAnswer)), &mut state);
    assert!(matches!(last, LeaseAction::Done(LeaseOutcome::Unavailable)));
}

#[test]
fn a_grant_for_a_caller_that_has_gone_is_released() {
    let mut state = state();
    let mut lease = lease(0);
    let (first, _) = asked(lease.on(at(0), Event::Start, &mut state));
    assert!(!in_rotation(&state, first.step.node.0, 200));
    assert!(matches!(lease.on(at(201), Event::Cancelled, &mut state), LeaseAction::Wait));
    assert!(in_rotation(&state, first.step.node.0, 202));
    state.directory_mut().request_failed(first.step.node, at(203));
    assert!(matches!(lease.on(at(204), Event::Timer, &mut state), LeaseAction::Wait));
    let late = lease.on(at(300), answer(first.id, granted()), &mut state);
    let LeaseAction::Release(step, token) = late else { panic!("{late:?}") };
    let (release, request) = Release::begin(step, at(300), &mut state);
    assert_eq!((token, request.timeout_ms), (version(9, 1), 500));
    release.end(at(301), Ok(Response::Done), 100, &mut state);
    assert!(in_rotation(&state, first.step.node.0, 700));
}
