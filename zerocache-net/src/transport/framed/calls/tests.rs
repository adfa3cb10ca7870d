use zerocache_core::wire::Response;

use super::*;

fn at(ms: u64) -> Instant {
    Instant::from_millis(ms)
}

fn fetch(calls: &mut Calls, id: u32) -> Option<CallResult> {
    calls.fetch(id, Waker::noop())
}

#[test]
fn response_completes_its_call_and_frees_the_slot() {
    let mut calls = Calls::default();
    let first = calls.register(at(0), at(500), Waiter::None, UNKNOWN).ok().unwrap();
    let second = calls.register(at(0), at(400), Waiter::None, UNKNOWN).ok().unwrap();
    assert!(first.is_alone && !second.is_alone && second.is_next_deadline);
    assert_eq!(fetch(&mut calls, first.id), None);
    calls.complete(first.id, Ok(Response::Done));
    assert_eq!(fetch(&mut calls, first.id), Some(Ok(Response::Done)));
    let third = calls.register(at(1), at(500), Waiter::None, UNKNOWN).ok().unwrap();
    assert_eq!(index_of(third.id), index_of(first.id));
    // A late response to the first call does not complete the call that has its slot now.
    calls.complete(first.id, Ok(Response::Done));
    assert!(!calls.abandon(first.id));
    assert_eq!(fetch(&mut calls, first.id), Some(Err(CallFailure::NoAnswer)));
    assert_eq!(fetch(&mut calls, third.id), None);
    assert_eq!(fetch(&mut calls, second.id), None);
}

#[test]
fn slot_of_an_abandoned_or_timed_out_call_is_reused_only_after_its_response() {
    let mut calls = Calls::default();
    let gone = calls.register(at(0), at(500), Waiter::None, UNKNOWN).ok().unwrap();
    let late = calls.register(at(0), at(500), Waiter::None, UNKNOWN).ok().unwrap();
    assert!(calls.abandon(gone.id));
    let (mut wake, mut ended) = (Vec::new(), Vec::new());
    calls.sweep(at(499), &mut wake, &mut ended);
    assert_eq!((ended.len(), calls.sweep_at()), (0, Some(at(500))));
    calls.sweep(at(500), &mut wake, &mut ended);
    assert_eq!((ended.as_slice(), calls.sweep_at()), (&[late.id][..], None));
    assert_eq!(fetch(&mut calls, late.id), Some(Err(CallFailure::NoAnswer)));
    assert_eq!(calls.oldest_overdue(), Some(at(0)));
    let other = calls.register(at(600), at(900), Waiter::None, UNKNOWN).ok().unwrap();
    assert_eq!(index_of(other.id), 2);
    calls.complete(gone.id, Ok(Response::Done));
    calls.complete(late.id, Ok(Response::Done));
    assert_eq!(calls.oldest_overdue(), None);
    assert_eq!(fetch(&mut calls, other.id), None);
    let again = [(); 2].map(|()| calls.register(at(600), at(900), Waiter::None, UNKNOWN).ok());
    assert!(again.iter().flatten().all(|call| index_of(call.id) < 2));
    assert_eq!(calls.slots.len(), 3);
}

#[test]
fn closing_a_connection_tells_which_requests_were_sent() {
    let mut calls = Calls::default();
    let positions = [UNKNOWN, UNKNOWN, UNKNOWN, REPEATABLE, UNKNOWN];
    let register =
        |position| calls.register(at(0), at(500), Waiter::None, position).ok().unwrap().id;
    let ids = positions.map(register);
    for (id, position) in ids.iter().zip([0, 100, 200]) {
        calls.note_position(*id, position);
    }
    calls.close(101, |id| id == ids[0], &mut Vec::new());
    let failures = ids.iter().map(|id| fetch(&mut calls, *id).unwrap().unwrap_err());
    let failures: Vec<_> = failures.collect();
    use CallFailure::{NoAnswer, NotSent};
    // The position of the last one was not noted yet: it may have been sent.
    assert_eq!(failures, [NotSent, NoAnswer, NotSent, NotSent, NoAnswer]);
    assert!(calls.register(at(1), at(2), Waiter::None, UNKNOWN).is_err());
}

#[test]
fn unsolicited_responses_are_ignored() {
    let mut calls = Calls::default();
    for id in [0, 1, u32::MAX] {
        assert!(calls.complete(id, Ok(Response::Done)).is_none());
        assert!(!calls.abandon(id));
    }
    let call = calls.register(at(0), at(500), Waiter::None, UNKNOWN).ok().unwrap();
    calls.complete(call.id, Ok(Response::Done));
    assert!(calls.complete(call.id, Ok(Response::NotFound { warming: false, known: 0 })).is_none());
    assert_eq!(fetch(&mut calls, call.id), Some(Ok(Response::Done)));
}

#[test]
fn timed_out_call_that_was_not_sent_leaves_nothing_behind() {
    let mut calls = Calls::default();
    let call = calls.register(at(0), at(500), Waiter::None, UNKNOWN).ok().unwrap();
    calls.note_large(call.id);
    let (mut wake, mut ended) = (Vec::new(), Vec::new());
    calls.sweep(at(500), &mut wake, &mut ended);
    assert_eq!(calls.oldest_overdue(), Some(at(0)));
    // Before the caller fetches the result.
    calls.forget(call.id);
    assert_eq!(calls.oldest_overdue(), None);
    assert_eq!(fetch(&mut calls, call.id), Some(Err(CallFailure::NotSent)));
    assert_eq!((calls.free.len(), calls.overdue, calls.large.len()), (1, 0, 0));
}

#[test]
fn ids_differ_from_the_handshakes_and_repeat_late() {
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
