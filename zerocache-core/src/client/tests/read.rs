//! Reads.

use super::*;
use crate::access::Denial;

#[test]
fn a_hit_completes_a_read_with_the_first_answer() {
    let mut state = state();
    let mut read = read();
    let request = read.on(at(0), Event::Start, &mut state).sent();
    assert_eq!((request.step.node.0, request.timeout_ms), (1, 500));
    let reaction = read.on(at(1), answer(request.id, found(7)), &mut state);
    let ended = reaction.ended.clone().unwrap();
    assert_eq!((ended.result, ended.is_error), (AttemptResult::Answered, false));
    let ReadResult::Found(step, item) = reaction.done() else { panic!("a value") };
    assert_eq!((step.node.0, item.version), (1, version(7, 1)));
    assert_eq!(state.seen(), version(7, 1).stamp());
    assert_eq!(state.directory().node(step.node).unwrap().hits, 1);
    assert!(read.rest.is_none(), "nothing is allocated");
}

#[test]
fn a_read_walks_until_it_knows() {
    let mut state = state();
    let mut read = read();
    let mut request = read.on(at(0), Event::Start, &mut state).sent();
    for (next, result) in [(2, Err(CallFailure::Refused)), (3, refused(RefusalCode::Overloaded))] {
        let reaction = read.on(at(1), answer(request.id, result), &mut state);
        assert!(reaction.ended.as_ref().unwrap().is_error);
        request = reaction.sent();
        assert_eq!(request.step.node.0, next);
    }
    assert_eq!(request.step.tier, Tier::Nearest);
    let reaction = read.on(at(2), answer(request.id, missed()), &mut state);
    let result = AttemptResult::NotFound { is_authoritative: true };
    assert_eq!(reaction.ended.as_ref().unwrap().result, result);
    assert_eq!(reaction.done(), ReadResult::Miss { known: 0, is_doubtful: false });
    assert!(!in_rotation(&state, 1, 3) && !in_rotation(&state, 2, 3));
}

#[test]
fn a_warming_node_does_not_decide_and_a_larger_one_is_asked() {
    let mut state = state();
    let larger = NodeInfo { bytes_max: 9_000, ..info(2, "oslo") };
    state.directory_mut().handshake_completed(larger, address(2), at(0), 100);
    let mut read = read();
    let first = read.on(at(0), Event::Start, &mut state).sent();
    assert_eq!(first.step.node.0, 1);
    let second = read.on(at(1), answer(first.id, missed()), &mut state).sent();
    assert_eq!(second.step.node.0, 2, "it may have kept what the smaller one evicted");
    let warming = Ok(Response::NotFound { warming: true, known: 0 });
    // Nobody else is asked after the larger one.
    let reaction = read.on(at(2), answer(second.id, warming), &mut state);
    let result = AttemptResult::NotFound { is_authoritative: false };
    assert_eq!(reaction.ended.as_ref().unwrap().result, result);
    assert_eq!(reaction.done(), ReadResult::Miss { known: 0, is_doubtful: true });
}

#[test]
fn an_older_value_is_not_taken_and_the_giver_of_a_version_decides() {
    for (giver, asked) in [(1, 1), (9, 3)] {
        let mut state = state();
        let options = ReadOptions { at_least: Some(version(9, giver)), stale: false };
        let mut read = Operation::new(ReadRules::new(b"key", &options), at(0), 2_750);
        let mut request = read.on(at(0), Event::Start, &mut state).sent();
        let mut count = 1;
        let outcome = loop {
            let reaction = read.on(at(1), answer(request.id, missed()), &mut state);
            match reaction.action {
                Action::Send { request: next, .. } => (request, count) = (next, count + 1),
                Action::Done(outcome) => break outcome,
                other => panic!("{other:?}"),
            }
        };
        assert!(matches!(outcome, ReadResult::Miss { known: 0, .. }) && count == asked);
    }
    let mut state = state();
    let options = ReadOptions { at_least: Some(version(9, 2)), stale: false };
    let mut read = Operation::new(ReadRules::new(b"key", &options), at(0), 2_750);
    let first = read.on(at(0), Event::Start, &mut state).sent();
    assert_eq!(first.step.node.0, 2, "it gave the version");
    let reaction = read.on(at(1), answer(first.id, found(8)), &mut state);
    assert_eq!(reaction.ended.as_ref().unwrap().result, AttemptResult::Older);
    let second = reaction.sent();
    assert_eq!(state.seen(), version(8, 1).stamp(), "also what is older was seen");
    let newer = read.on(at(2), answer(second.id, found(10)), &mut state).done();
    assert!(matches!(newer, ReadResult::Found(..)), "{newer:?}");
}

#[test]
fn a_client_reads_its_own_write_or_nothing() {
    let key = crate::key::KeyHash::of(b"key");
    for is_delete in [false, true] {
        let mut state = state();
        let own = OwnWrite { node: Incarnation(2), version: Some(version(5, 2)), is_delete };
        state.record_own_write(key, own, at(0));
        let mut read = read();
        let first = read.on(at(1), Event::Start, &mut state).sent();
        assert_eq!(first.step.node.0, 2);
        let second =
            read.on(at(2), answer(first.id, Err(CallFailure::NoAnswer)), &mut state).sent();
        let third = read.on(at(3), answer(second.id, found(4)), &mut state).sent();
        let last = read.on(at(4), answer(third.id, missed()), &mut state);
        let is_authoritative = is_delete;
        let result = AttemptResult::NotFound { is_authoritative };
        assert_eq!(last.ended.as_ref().unwrap().result, result);
        let known = version(4, 2).stamp();
        assert_eq!(last.done(), ReadResult::Miss { known, is_doubtful: !is_delete });
    }
    let mut state = state();
    let own = OwnWrite { node: Incarnation(2), version: Some(version(5, 2)), is_delete: false };
    state.record_own_write(key, own, at(0));
    let mut read = read();
    let late = read.on(at(OWN_WRITE_MS), Event::Start, &mut state).sent();
    assert_eq!(late.step.node.0, 1, "by then every node has it");
}

#[test]
fn an_answer_that_nobody_waits_for_feeds_the_directory_only() {
    let mut state = state();
    let mut read = read();
    let first = read.on(at(0), Event::Start, &mut state).sent();
    assert!(read.on(at(1), Event::Cancelled, &mut state).waits());
    assert!(in_rotation(&state, 1, 400), "the caller has gone, and the node owes nothing");
    let reaction = read.on(at(450), answer(first.id, found(7)), &mut state);
    assert!(reaction.waits() && reaction.ended.is_none());
    assert_eq!(state.directory().node(Incarnation(1)).unwrap().hits, 0);
    // The same once more says nothing at all.
    let again = read.on(at(451), answer(first.id, Err(CallFailure::Refused)), &mut state);
    assert!(again.waits() && in_rotation(&state, 1, 452));
}

#[test]
fn a_second_answer_to_an_attempt_is_ignored() {
    let mut state = state();
    let mut read = read();
    let first = read.on(at(0), Event::Start, &mut state).sent();
    let second = read.on(at(500), answer(first.id, Err(CallFailure::NoAnswer)), &mut state).sent();
    assert!(read.on(at(501), answer(first.id, found(7)), &mut state).waits());
    assert!(read.on(at(501), answer(AttemptId(99), found(7)), &mut state).waits());
    let done = read.on(at(502), answer(second.id, missed()), &mut state).done();
    assert_eq!(done, ReadResult::Miss { known: 0, is_doubtful: false });
    assert!(read.on(at(503), answer(second.id, found(7)), &mut state).waits());
}

#[test]
fn the_answer_of_another_incarnation_is_none() {
    let mut state = state();
    let mut read = read();
    let first = read.on(at(0), Event::Start, &mut state).sent();
    let other = refused(RefusalCode::WrongNode);
    let reaction = read.on(at(1), answer(first.id, other), &mut state);
    assert_eq!(reaction.ended.as_ref().unwrap().result, AttemptResult::NotReached);
    assert_eq!(reaction.sent().step.node.0, 2);
    assert!(state.directory().node(Incarnation(1)).is_none(), "its address is dialled again");
}

#[test]
fn the_directory_may_change_between_two_attempts() {
    let mut state = state();
    let mut read = read();
    let first = read.on(at(0), Event::Start, &mut state).sent();
    // A new node appears, the next one goes, and its address is another one's.
    let directory = state.directory_mut();
    directory.handshake_completed(info(8, "oslo"), address(2), at(1), 100);
    assert!(directory.node(Incarnation(2)).is_none());
    let reaction = read.on(at(2), answer(first.id, Err(CallFailure::NotSent)), &mut state);
    let second = reaction.sent();
    assert_eq!(second.step.node.0, 8);
    // It goes too, after it was asked. That nobody knows it changes nothing.
    state.directory_mut().node_replaced(Incarnation(8), at(3));
    let reaction = read.on(at(4), answer(second.id, found(7)), &mut state);
    assert!(matches!(reaction.done(), ReadResult::Found(step, _) if step.node.0 == 8));
}

#[test]
fn a_deadline_that_passes_within_a_step_ends_the_read() {
    let mut state = state();
    let mut read = Operation::new(ReadRules::new(b"key", &ReadOptions::default()), at(0), 30);
    let first = read.on(at(0), Event::Start, &mut state).sent();
    assert_eq!(first.timeout_ms, 30);
    let late = read.on(at(30), answer(first.id, Err(CallFailure::NoAnswer)), &mut state);
    assert_eq!(late.done(), ReadResult::Unreachable { timed_out: true });
    assert!(!state.directory().node(Incarnation(1)).unwrap().out, "30 ms say little of a node");
    // One that had passed before it began asks nobody.
    let mut read = Operation::new(ReadRules::new(b"key", &ReadOptions::default()), at(0), 30);
    let none = read.on(at(30), Event::Start, &mut state).done();
    assert_eq!(none, ReadResult::Unreachable { timed_out: false });
}

#[test]
fn a_key_that_is_not_allowed_is_not_asked_of_others() {
    let mut state = state();
    let mut read = read();
    let first = read.on(at(0), Event::Start, &mut state).sent();
    let reaction = read.on(at(1), answer(first.id, refused(RefusalCode::BadKey)), &mut state);
    assert!(!reaction.ended.as_ref().unwrap().is_error);
    assert_eq!(reaction.done(), ReadResult::Refused("no".into()));
}

#[test]
fn an_answer_that_does_not_fit_is_none() {
    let mut state = state();
    let mut read = read();
    let mut request = read.on(at(0), Event::Start, &mut state).sent();
    for _ in 0..2 {
        request = read.on(at(1), answer(request.id, Ok(Response::Done)), &mut state).sent();
    }
    let last = read.on(at(1), answer(request.id, Ok(Response::LeaseHeld)), &mut state);
    assert_eq!(last.done(), ReadResult::Unreachable { timed_out: false });
}

#[test]
fn a_denied_read_is_not_asked_of_others() {
    for denial in Denial::ALL {
        let mut state = state();
        let mut read = read();
        let first = read.on(at(0), Event::Start, &mut state).sent();
        let reaction = read.on(at(1), answer(first.id, refused(denial.refusal_code())), &mut state);
        assert!(!reaction.ended.as_ref().unwrap().is_error);
        assert_eq!(reaction.done(), ReadResult::Denied(denial, "no".into()));
        assert!(in_rotation(&state, first.step.node.0, 2));
    }
}
