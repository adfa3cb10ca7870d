//! Operations that begin before all addresses have been tried.

use super::*;
use crate::access::Denial;

fn starting() -> ClientState {
    ClientState::new("oslo", TierBounds::default(), None, at(0))
}

#[track_caller]
fn awaits(reaction: Reaction<ReadResult>) -> u64 {
    match reaction.action {
        Action::AwaitNodes { until } => until.as_millis(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_local_node_in_sync_is_asked_as_soon_as_it_is_found() {
    let mut state = starting();
    let mut read = read();
    assert_eq!(awaits(read.on(at(10), Event::Start, &mut state)), 300);
    state.directory_mut().handshake_completed(info(3, "rome"), address(3), at(20), 100);
    assert_eq!(awaits(read.on(at(20), Event::ViewChanged, &mut state)), 300);
    state.directory_mut().handshake_completed(info(1, "oslo"), address(1), at(30), 100);
    assert_eq!(read.on(at(30), Event::ViewChanged, &mut state).sent().step.node.0, 1);
}

#[test]
fn a_node_of_another_region_is_enough_after_a_moment() {
    let mut state = starting();
    let mut read = read();
    state.directory_mut().handshake_completed(info(3, "rome"), address(3), at(5), 100);
    assert_eq!(awaits(read.on(at(10), Event::Start, &mut state)), 300);
    assert_eq!(read.on(at(300), Event::Timer, &mut state).sent().step.node.0, 3);
}

#[test]
fn while_nobody_is_found_an_operation_waits_until_its_deadline_or_all_are_tried() {
    let mut state = starting();
    let mut waiting = read();
    assert_eq!(awaits(waiting.on(at(0), Event::Start, &mut state)), 300);
    assert_eq!(awaits(waiting.on(at(300), Event::Timer, &mut state)), 2_750);
    let late = waiting.on(at(2_750), Event::Timer, &mut state).done();
    assert_eq!(late, ReadResult::Unreachable { timed_out: false });
    let mut read = read();
    assert_eq!(awaits(read.on(at(0), Event::Start, &mut state)), 300);
    state.discovery_completed();
    assert!(state.update_tried() && !state.update_tried());
    let none = read.on(at(50), Event::ViewChanged, &mut state).done();
    assert_eq!(none, ReadResult::Unreachable { timed_out: false });
}

#[test]
fn an_operation_cancelled_before_it_asks_anybody_never_does() {
    let mut state = starting();
    let mut read = read();
    awaits(read.on(at(0), Event::Start, &mut state));
    assert!(read.on(at(1), Event::Cancelled, &mut state).waits());
    state.directory_mut().handshake_completed(info(1, "oslo"), address(1), at(2), 100);
    assert!(read.on(at(2), Event::ViewChanged, &mut state).waits());
    assert!(in_rotation(&state, 1, 2_000));
}

#[test]
fn a_client_that_is_denied_knows_why_until_a_node_says_something_else() {
    let mut state = starting();
    let shake = |state: &mut ClientState, n, result| {
        state.handshake_answered("test", address(n), result, at(1), 100)
    };
    let denied = shake(&mut state, 1, refused(RefusalCode::ExpiredCredentials));
    assert_eq!(denied, HandshakeOutcome::Denied(Denial::Expired, "no".into()));
    assert_eq!(state.obstacle(at(2)), Some(&Obstacle::Denied(Denial::Expired, "no".into())));
    // Another node that is gone says nothing about it.
    assert_eq!(shake(&mut state, 2, Err(CallFailure::Refused)), HandshakeOutcome::Failed);
    assert!(state.obstacle(at(2)).is_some());
    shake(&mut state, 1, Err(CallFailure::Refused));
    assert_eq!(state.obstacle(at(2)), None);

    shake(&mut state, 1, refused(RefusalCode::Unauthenticated));
    state.directory_mut().handshake_completed(info(3, "rome"), address(3), at(5), 100);
    assert_eq!(state.obstacle(at(6)), None, "a node is there");
    let mut state = starting();
    let unverified = shake(&mut state, 1, Err(CallFailure::Unverified));
    assert_eq!(unverified, HandshakeOutcome::Unverified);
    assert_eq!(state.obstacle(at(2)), Some(&Obstacle::Unverified(address(1))));
    state.credentials_changed(at(2));
    assert!(state.obstacle(at(2)).is_some(), "it is not known yet");
    shake(&mut state, 1, Err(CallFailure::NoAnswer));
    assert_eq!(state.obstacle(at(2)), None);
}
