use super::*;

fn at(ms: u64) -> Instant {
    Instant::from_millis(ms)
}

fn fetch(calls: &mut Calls, id: u32) -> Option<Ended> {
    calls.fetch(id, Waker::noop())
}

#[test]
fn a_response_ends_its_call_and_frees_its_place() {
    let mut calls = Calls::default();
    let first = calls.enter(at(0), at(500), Caller::Nobody, UNKNOWN).ok().unwrap();
    let second = calls.enter(at(0), at(400), Caller::Nobody, UNKNOWN).ok().unwrap();
    assert!(first.alone && !second.alone && second.sweep_earlier);
    assert_eq!(fetch(&mut calls, first.id), None);
    calls.answered(first.id, Ok(Response::Done));
    assert_eq!(fetch(&mut calls, first.id), Some(Ok(Response::Done)));
    let third = calls.enter(at(1), at(500), Caller::Nobody, UNKNOWN).ok().unwrap();
    assert_eq!(index_of(third.id), index_of(first.id));
    // What belongs to the first call does not end the one that has its place.
    calls.answered(first.id, Ok(Response::Done));
    assert!(!calls.give_up(first.id));
    assert_eq!(fetch(&mut calls, first.id), Some(Err(CallFailure::NoAnswer)));
    assert_eq!(fetch(&mut calls, third.id), None);
    assert_eq!(fetch(&mut calls, second.id), None);
}

#[test]
fn a_place_waits_for_the_response_of_a_call_that_was_given_up_or_timed_out() {
    let mut calls = Calls::default();
    let gone = calls.enter(at(0), at(500), Caller::Nobody, UNKNOWN).ok().unwrap();
    let late = calls.enter(at(0), at(500), Caller::Nobody, UNKNOWN).ok().unwrap();
    assert!(calls.give_up(gone.id));
    let (mut wake, mut ended) = (Vec::new(), Vec::new());
    calls.sweep(at(499), &mut wake, &mut ended);
    assert_eq!((ended.len(), calls.sweep_at()), (0, Some(at(500))));
    calls.sweep(at(500), &mut wake, &mut ended);
    assert_eq!((ended.as_slice(), calls.sweep_at()), (&[late.id][..], None));
    assert_eq!(fetch(&mut calls, late.id), Some(Err(CallFailure::NoAnswer)));
    assert_eq!(calls.oldest_overdue(), Some(at(0)));
    let other = calls.enter(at(600), at(900), Caller::Nobody, UNKNOWN).ok().unwrap();
    assert_eq!(index_of(other.id), 2);
    calls.answered(gone.id, Ok(Response::Done));
    calls.answered(late.id, Ok(Response::Done));
    assert_eq!(calls.oldest_overdue(), None);
    assert_eq!(fetch(&mut calls, other.id), None);
    let again = [(); 2].map(|()| calls.enter(at(600), at(900), Caller::Nobody, UNKNOWN).ok());
    assert!(again.iter().flatten().all(|call| index_of(call.id) < 2));
    assert_eq!(calls.places.len(), 3);
}

#[test]
fn the_end_of_a_connection_tells_what_was_sent() {
    let mut calls = Calls::default();
    let positions = [UNKNOWN, UNKNOWN, UNKNOWN, REPEATABLE, UNKNOWN];
    let enter = |position| calls.enter(at(0), at(500), Caller::Nobody, position).ok().unwrap().id;
    let ids = positions.map(enter);
    for (id, position) in ids.iter().zip([0, 100, 200]) {
        calls.sent(*id, position);
    }
    calls.close(101, |id| id == ids[0], &mut Vec::new());
    let failures = ids.iter().map(|id| fetch(&mut calls, *id).unwrap().unwrap_err());
    let failures: Vec<_> = failures.collect();
    use CallFailure::{NoAnswer, NotSent};
    // The last one was entered, and where it stands was not noted yet: it may have been sent.
    assert_eq!(failures, [NotSent, NoAnswer, NotSent, NotSent, NoAnswer]);
    assert!(calls.enter(at(1), at(2), Caller::Nobody, UNKNOWN).is_err());
}

#[test]
fn responses_nobody_asked_for_are_ignored() {
    let mut calls = Calls::default();
    for id in [0, 1, u32::MAX] {
        assert!(calls.answered(id, Ok(Response::Done)).is_none());
        assert!(!calls.give_up(id));
    }
    let call = calls.enter(at(0), at(500), Caller::Nobody, UNKNOWN).ok().unwrap();
    calls.answered(call.id, Ok(Response::Done));
    assert!(calls.answered(call.id, Ok(Response::NotFound { warming: false })).is_none());
    assert_eq!(fetch(&mut calls, call.id), Some(Ok(Response::Done)));
}

#[test]
fn a_timed_out_call_of_which_nothing_was_sent_leaves_nothing_behind() {
    let mut calls = Calls::default();
    let call = calls.enter(at(0), at(500), Caller::Nobody, UNKNOWN).ok().unwrap();
    calls.note_large(call.id);
    let (mut wake, mut ended) = (Vec::new(), Vec::new());
    calls.sweep(at(500), &mut wake, &mut ended);
    assert_eq!(calls.oldest_overdue(), Some(at(0)));
    // Before the caller fetches the end.
    calls.forget(call.id);
    assert_eq!(calls.oldest_overdue(), None);
    assert_eq!(fetch(&mut calls, call.id), Some(Err(CallFailure::NotSent)));
    assert_eq!((calls.free.len(), calls.overdue, calls.large.len()), (1, 0, 0));
}

#[test]
fn ids_are_never_the_handshakes_and_come_again_late() {
    let first = first_id(0);
    let mut id = next_id(first);
    let mut count = 1u32;
    while id != first {
        assert!(id > 0 && index_of(id) == 0);
        id = next_id(id);
        count += 1;
    }
    assert_eq!(count, (1 << (32 - INDEX_BITS)) - 1);
    assert_eq!(index_of(next_id(first_id(CALLS_MAX - 1))), CALLS_MAX - 1);
}
