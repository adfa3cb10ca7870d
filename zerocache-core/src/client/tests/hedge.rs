//! Hedged reads.

use super::*;

/// A client that hedges every read that is late, and knows that both local nodes take 2 ms as a rule.
fn hedging() -> ClientState {
    let mut state = state_with(HedgeShare::new(1.0));
    for _ in 0..200 {
        let mut read = read();
        let request = read.on(at(0), Event::Start, &mut state).sent();
        let event = Event::Answer { id: request.id, result: found(1), elapsed_us: 2_000 };
        read.on(at(0), event, &mut state).done();
    }
    state
}

/// A read whose first node is late: the first request and the hedge.
fn hedged(state: &mut ClientState) -> (Operation<ReadRules>, Outgoing, Outgoing) {
    let mut read = read();
    let reaction = read.on(at(0), Event::Start, state);
    let Action::Send { timer_us: Some(late_us), .. } = reaction.action else {
        panic!("{reaction:?}")
    };
    assert!((2_000..3_000).contains(&late_us), "{late_us}");
    let first = reaction.sent();
    let second = read.on(at(3), Event::Timer, state).sent();
    assert_ne!(first.step.node, second.step.node);
    (read, first, second)
}

#[test]
fn the_first_answer_that_completes_the_read_wins() {
    let mut state = hedging();
    let (mut read, first, second) = hedged(&mut state);
    let reaction = read.on(at(4), answer(second.id, found(7)), &mut state);
    assert!(reaction.ended.as_ref().unwrap().is_hedge_win);
    assert!(matches!(reaction.done(), ReadResult::Found(step, _) if step == second.step));
    assert!(in_rotation(&state, first.step.node.0, 400), "nobody waits for the first one");
    let late = read.on(at(450), answer(first.id, Err(CallFailure::Refused)), &mut state);
    assert!(late.waits() && late.ended.is_none());
    assert!(!in_rotation(&state, first.step.node.0, 451), "what it says is noted");

    let mut state = hedging();
    let (mut read, first, second) = hedged(&mut state);
    let reaction = read.on(at(4), answer(first.id, found(7)), &mut state);
    assert!(!reaction.ended.as_ref().unwrap().is_hedge_win);
    assert!(matches!(reaction.done(), ReadResult::Found(step, _) if step == first.step));
    assert!(in_rotation(&state, second.step.node.0, 400));
}

#[test]
fn an_answer_that_does_not_complete_leaves_the_other_one_pending() {
    for hedge_first in [true, false] {
        let mut state = hedging();
        let (mut read, first, second) = hedged(&mut state);
        let (one, other) = if hedge_first { (second, first) } else { (first, second) };
        let failed = read.on(at(4), answer(one.id, Err(CallFailure::Refused)), &mut state);
        assert!(failed.waits() && failed.ended.as_ref().unwrap().is_error);
        let warming = Ok(Response::NotFound { warming: true, known: 0 });
        let third = read.on(at(5), answer(other.id, warming), &mut state).sent();
        assert_eq!(third.step.node.0, 3, "then the walk continues");
        assert!(read.on(at(6), Event::Timer, &mut state).waits(), "and is not hedged again");
        let reaction = read.on(at(6), answer(third.id, found(7)), &mut state);
        assert!(!reaction.ended.as_ref().unwrap().is_hedge_win);
        assert!(matches!(reaction.done(), ReadResult::Found(..)));
    }
}

#[test]
fn a_hedged_read_may_be_cancelled() {
    let mut state = hedging();
    let (mut read, first, second) = hedged(&mut state);
    assert!(read.on(at(4), Event::Cancelled, &mut state).waits());
    for request in [first, second] {
        assert!(in_rotation(&state, request.step.node.0, 400));
        let late = read.on(at(401), answer(request.id, found(7)), &mut state);
        assert!(late.waits() && late.ended.is_none());
    }
}

#[test]
fn a_read_is_not_hedged_without_a_token_and_a_write_never() {
    let mut state = state_with(HedgeShare::new(0.000_001));
    for _ in 0..200 {
        let time = core::time::Duration::from_millis(2);
        state.record_latency::<ReadRules>(Incarnation(1), 1, time);
    }
    assert!(state.may_hedge(1), "the one that it begins with");
    let mut late = read();
    late.on(at(0), Event::Start, &mut state).sent();
    assert!(late.on(at(3), Event::Timer, &mut state).waits());

    let mut state = hedging();
    let mut put = put(10);
    let reaction = put.on(at(0), Event::Start, &mut state);
    assert!(matches!(reaction.action, Action::Send { timer_us: None, .. }));
    assert!(put.on(at(100), Event::Timer, &mut state).waits());
}
