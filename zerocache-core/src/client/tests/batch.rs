//! Many keys.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};

use super::*;
use crate::key::KeyHash;

fn key(n: usize) -> alloc::string::String {
    format!("key/{n}")
}

fn reads(count: usize) -> Batch<ReadRules> {
    let read = |n| (n, ReadRules::new(key(n).as_bytes(), &ReadOptions::default()));
    Batch::new((0..count).map(read).collect(), at(0), 2_750)
}

#[track_caller]
fn sent<T: core::fmt::Debug>(reaction: BatchReaction<T>) -> Vec<BatchRequest> {
    match reaction.action {
        BatchAction::Send { requests, .. } => requests,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn done<T: core::fmt::Debug>(reaction: BatchReaction<T>) -> BTreeMap<usize, T> {
    match reaction.action {
        BatchAction::Done(outcomes) => {
            let indexes: BTreeSet<_> = outcomes.iter().map(|(index, _)| *index).collect();
            assert_eq!(indexes.len(), outcomes.len(), "each key is completed once");
            outcomes.into_iter().collect()
        }
        other => panic!("{other:?}"),
    }
}

/// The attempt of the key at this place of a request.
fn id(request: &BatchRequest, place: usize) -> AttemptId {
    AttemptId(request.request.id.0 + place as u32)
}

/// Answers all keys of all requests, and gives the last reaction.
fn answer_all<K: KeyRules>(
    batch: &mut Batch<K>,
    requests: &[BatchRequest],
    result: impl Fn(usize) -> CallResult,
    state: &mut ClientState,
) -> BatchReaction<K::Output> {
    let mut last = None;
    for request in requests {
        for (place, index) in request.keys.iter().enumerate() {
            let event = answer(id(request, place), result(*index));
            last = Some(batch.on(at(1), event, state));
        }
    }
    last.unwrap()
}

#[test]
fn all_keys_go_to_one_node_but_those_written_a_moment_ago() {
    let mut state = state();
    let own = OwnWrite { node: Incarnation(2), version: None, is_delete: false };
    state.record_own_write(KeyHash::of(key(3).as_bytes()), own, at(0));
    let mut batch = reads(6);
    let requests = sent(batch.on(at(0), Event::Start, &mut state));
    let groups: Vec<_> =
        requests.iter().map(|it| (it.request.step.node.0, it.keys.clone())).collect();
    assert_eq!(groups, [(1, [0, 1, 2, 4, 5].into()), (2, [3].into())]);
    let outcomes = done(answer_all(&mut batch, &requests, |_| found(1), &mut state));
    assert_eq!(outcomes.len(), 6);
}

#[test]
fn keys_that_a_node_does_not_answer_are_asked_of_the_next_one_together() {
    let mut state = state();
    let mut batch = reads(4);
    let first = sent(batch.on(at(0), Event::Start, &mut state));
    assert_eq!(first.len(), 1);
    // Half of it is answered, in another order, and one twice.
    for place in [3, 0, 0, 3] {
        let reaction = batch.on(at(1), answer(id(&first[0], place), found(1)), &mut state);
        assert!(matches!(reaction.action, BatchAction::Wait));
    }
    let none = || Err(CallFailure::NoAnswer);
    let waits = batch.on(at(500), answer(id(&first[0], 1), none()), &mut state);
    assert!(matches!(waits.action, BatchAction::Wait));
    let second = sent(batch.on(at(500), answer(id(&first[0], 2), none()), &mut state));
    assert_eq!((second.len(), second[0].request.step.node.0), (1, 2));
    assert_eq!(second[0].keys, [1, 2]);
    let outcomes = done(answer_all(&mut batch, &second, |_| missed(), &mut state));
    let found = |index: usize| matches!(outcomes[&index], ReadResult::Found(..));
    assert_eq!([0, 1, 2, 3].map(found), [true, false, false, true]);
    // What comes now changes nothing.
    let late = batch.on(at(600), answer(id(&second[0], 0), super::found(1)), &mut state);
    assert!(late.ended.is_none() && matches!(late.action, BatchAction::Wait));
}

#[test]
fn a_deadline_in_the_middle_of_a_batch_completes_every_key_once() {
    let mut state = state();
    let mut batch = Batch::new(
        (0..3).map(|n| (n, ReadRules::new(key(n).as_bytes(), &ReadOptions::default()))).collect(),
        at(0),
        600,
    );
    let first = sent(batch.on(at(0), Event::Start, &mut state));
    batch.on(at(1), answer(id(&first[0], 1), found(1)), &mut state);
    for place in [0, 2] {
        let event = answer(id(&first[0], place), Err(CallFailure::NoAnswer));
        let reaction = batch.on(at(500), event, &mut state);
        let BatchAction::Send { requests: second, .. } = reaction.action else { continue };
        assert_eq!(second[0].request.timeout_ms, 100);
        batch.on(at(600), answer(id(&second[0], 0), Err(CallFailure::NoAnswer)), &mut state);
        let event = answer(id(&second[0], 1), refused(RefusalCode::Expired));
        let outcomes = done(batch.on(at(600), event, &mut state));
        assert_eq!(outcomes.len(), 3);
        let lost = ReadResult::Unreachable { timed_out: true };
        assert_eq!((&outcomes[&0], &outcomes[&2]), (&lost, &lost));
        return;
    }
    panic!("no second round");
}

#[test]
fn many_keys_are_asked_in_parts() {
    let mut state = state();
    let mut batch = reads(1_100);
    let mut requests = sent(batch.on(at(0), Event::Start, &mut state));
    let mut sizes = Vec::new();
    let outcomes = loop {
        sizes.push(requests.iter().map(|request| request.keys.len()).sum::<usize>());
        let reaction = answer_all(&mut batch, &requests, |_| found(1), &mut state);
        match reaction.action {
            BatchAction::Send { requests: next, .. } => requests = next,
            _ => break done(reaction),
        }
    };
    assert_eq!((sizes, outcomes.len()), ([512, 512, 76].into(), 1_100));
}

#[test]
fn of_many_values_those_too_large_are_not_sent_again() {
    let mut state = state();
    let write = |n: usize, bytes| (n, WriteRules::new(key(n).as_bytes(), Some(bytes), Ack::Local));
    for _ in 0..2 {
        let keys = [write(0, 10), write(1, 2_000), write(2, 20)].into();
        let mut batch = Batch::new(keys, at(0), 2_750);
        let requests = sent(batch.on(at(0), Event::Start, &mut state));
        let told = |index| match index {
            1 => Ok(Response::value_too_large(2_000, 1_000)),
            _ => stored(1, 1),
        };
        done(answer_all(&mut batch, &requests, told, &mut state));
    }
    let mut batch = Batch::new([write(0, 10), write(1, 2_000)].into(), at(0), 2_750);
    let requests = sent(batch.on(at(0), Event::Start, &mut state));
    assert_eq!(requests[0].keys, [0]);
    let outcomes = done(answer_all(&mut batch, &requests, |_| stored(1, 1), &mut state));
    assert!(matches!(outcomes[&1], WriteResult::TooLarge { is_sent: false, .. }));
}

#[test]
fn writes_of_unknown_outcome_are_not_sent_again_and_the_others_are() {
    let mut state = state();
    let write = |n: usize| (n, WriteRules::new(key(n).as_bytes(), Some(10), Ack::Local));
    let mut batch = Batch::new((0..3).map(write).collect(), at(0), 2_750);
    let first = sent(batch.on(at(0), Event::Start, &mut state));
    let failures = [CallFailure::NoAnswer, CallFailure::NotSent, CallFailure::NoAnswer];
    let second = sent(answer_all(&mut batch, &first, |index| Err(failures[index]), &mut state));
    assert_eq!((second.len(), &second[0].keys), (1, &[1].into()));
    let outcomes = done(answer_all(&mut batch, &second, |_| stored(1, 2), &mut state));
    assert_eq!((&outcomes[&0], &outcomes[&2]), (&WriteResult::Unknown, &WriteResult::Unknown));
}

#[test]
fn a_cancelled_batch_makes_nobody_silent() {
    let mut state = state();
    let mut batch = reads(2);
    let first = sent(batch.on(at(0), Event::Start, &mut state));
    batch.on(at(1), Event::Cancelled, &mut state);
    assert!(in_rotation(&state, 1, 400));
    for place in 0..2 {
        let late = batch.on(at(2), answer(id(&first[0], place), found(1)), &mut state);
        assert!(late.ended.is_none() && matches!(late.action, BatchAction::Wait));
    }
    let mut none = reads(0);
    assert!(done(none.on(at(0), Event::Start, &mut state)).is_empty());
}

/// A client that hedges every read that is late, and knows that both local nodes take 2 ms for four keys.
fn hedging() -> ClientState {
    let mut state = state_with(HedgeShare::new(1.0));
    for _ in 0..200 {
        let mut batch = reads(4);
        let requests = sent(batch.on(at(0), Event::Start, &mut state));
        for place in 0..4 {
            let id = id(&requests[0], place);
            batch.on(at(0), Event::Answer { id, result: found(1), elapsed_us: 2_000 }, &mut state);
        }
    }
    state
}

/// Four keys whose first node is late: the first request and the hedge.
fn hedged(state: &mut ClientState) -> (Batch<ReadRules>, BatchRequest, BatchRequest) {
    let mut batch = reads(4);
    let reaction = batch.on(at(0), Event::Start, state);
    let BatchAction::Send { requests, timer_us: Some(late_us) } = reaction.action else {
        panic!("{reaction:?}")
    };
    assert!((2_000..3_000).contains(&late_us), "{late_us}");
    let hedges = sent(batch.on(at(3), Event::Timer, state));
    let [first, second] = [&requests[..], &hedges[..]].map(|it| {
        assert_eq!(it.len(), 1);
        it[0].clone()
    });
    assert_ne!(first.request.step.node, second.request.step.node);
    assert!(second.request.is_hedge && second.keys == first.keys);
    assert!(matches!(batch.on(at(4), Event::Timer, state).action, BatchAction::Wait), "once");
    (batch, first, second)
}

#[test]
fn the_node_that_answers_first_completes_all_keys() {
    for hedge_wins in [true, false] {
        let mut state = hedging();
        let (mut batch, first, second) = hedged(&mut state);
        let (winner, loser) = if hedge_wins { (second, first) } else { (first, second) };
        for place in 0..3 {
            let reaction = batch.on(at(5), answer(id(&winner, place), found(7)), &mut state);
            assert_eq!(reaction.ended.unwrap().is_hedge_win, hedge_wins);
        }
        let last = batch.on(at(5), answer(id(&winner, 3), found(7)), &mut state);
        let outcomes = done(last);
        assert_eq!(outcomes.len(), 4);
        let of_winner = |it: &ReadResult| matches!(it, ReadResult::Found(step, _) if *step == winner.request.step);
        assert!(outcomes.values().all(of_winner));
        // What the other one says is noted, and changes nothing.
        let refused = Err(CallFailure::Refused);
        let late = batch.on(at(450), answer(id(&loser, 0), refused), &mut state);
        assert!(late.ended.is_none() && matches!(late.action, BatchAction::Wait));
        assert!(!in_rotation(&state, loser.request.step.node.0, 451));
    }
}

#[test]
fn keys_are_completed_by_either_node() {
    let mut state = hedging();
    let (mut batch, first, second) = hedged(&mut state);
    let warming = || Ok(Response::NotFound { warming: true, known: 0 });
    // Two by the hedge, one by the first node, and one by neither.
    batch.on(at(4), answer(id(&second, 0), found(1)), &mut state);
    batch.on(at(4), answer(id(&second, 1), found(2)), &mut state);
    for (request, place) in [(&second, 2), (&second, 3), (&first, 3)] {
        let reaction = batch.on(at(5), answer(id(request, place), warming()), &mut state);
        assert!(matches!(reaction.action, BatchAction::Wait));
    }
    let reaction = batch.on(at(5), answer(id(&first, 0), found(9)), &mut state);
    assert!(reaction.ended.is_none(), "it is complete");
    let third = sent(batch.on(at(6), answer(id(&first, 2), found(3)), &mut state));
    assert_eq!((third.len(), &third[0].keys[..]), (1, &[3][..]));
    assert_eq!(done(answer_all(&mut batch, &third, |_| missed(), &mut state)).len(), 4);
}

#[test]
fn writes_and_heard_nodes_are_not_hedged() {
    let mut state = hedging();
    let write = |n: usize| (n, WriteRules::new(key(n).as_bytes(), Some(10), Ack::Local));
    let mut writes = Batch::new((0..4).map(write).collect(), at(0), 2_750);
    let reaction = writes.on(at(0), Event::Start, &mut state);
    assert!(matches!(reaction.action, BatchAction::Send { timer_us: None, .. }));
    let mut batch = reads(4);
    let requests = sent(batch.on(at(0), Event::Start, &mut state));
    batch.on(at(2), answer(id(&requests[0], 0), found(1)), &mut state);
    let reaction = batch.on(at(3), Event::Timer, &mut state);
    assert!(matches!(reaction.action, BatchAction::Wait));
}
