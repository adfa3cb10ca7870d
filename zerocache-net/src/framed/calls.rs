//! The calls of one connection that wait for their responses.
//!
//! Invariants: each call ends exactly once; an id is not given again before the response to it came,
//! or nothing of its request was sent; the table is bounded.

use std::task::Waker;

use zerocache_core::{node::CallFailure, time::Instant, wire::Response};

use crate::transport::Then;

/// Most calls under way on one connection, given up ones included.
const CALLS_MAX: usize = 16_384;

/// The end of a call.
pub(super) type Ended = Result<Response, CallFailure>;

/// Who learns of the end of a call.
pub(super) enum Caller {
    /// Nobody has asked yet.
    Nobody,
    /// A task that fetches the result.
    Task(Waker),
    /// A function that is given it.
    Function(Then),
}

/// What is to be done about a call that has ended, once no lock is held.
pub(super) enum Due {
    Wake(Waker),
    Call(Then, Ended),
}

impl Due {
    pub(super) fn perform(self) {
        match self {
            Self::Wake(waker) => waker.wake(),
            Self::Call(then, ended) => then(ended),
        }
    }
}

/// The table of calls.
#[derive(Default)]
pub(super) struct Calls {
    slots: Vec<Slot>,
    free: Vec<u32>,
    waiting: usize,
    /// Not later than the first deadline among those that wait.
    sweep_at: Option<Instant>,
    closed: bool,
}

enum Slot {
    Free,
    Waiting(Waiting),
    /// Ended, and not fetched by its caller yet; whether the response can still come.
    Ended {
        result: Ended,
        response_due: Option<Instant>,
    },
    /// Nobody waits any more; the response can still come.
    GivenUp {
        sent: Instant,
    },
}

struct Waiting {
    sent: Instant,
    deadline: Instant,
    /// How many bytes the line had been given before it; none until it was sent.
    position: Option<u64>,
    caller: Caller,
}

impl Waiting {
    /// Ends the call: what is to be done about it, and what is left in its slot until its response
    /// came, if that is still due.
    fn end(&mut self, result: Ended, response_due: bool) -> (Option<Due>, Slot) {
        let response_due = response_due.then_some(self.sent);
        let due = match std::mem::replace(&mut self.caller, Caller::Nobody) {
            Caller::Nobody => None,
            Caller::Task(waker) => Some(Due::Wake(waker)),
            Caller::Function(then) => {
                let slot = response_due.map_or(Slot::Free, |sent| Slot::GivenUp { sent });
                return (Some(Due::Call(then, result)), slot);
            }
        };
        (due, Slot::Ended { result, response_due })
    }
}

/// A call that was just entered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entered {
    pub(super) id: u32,
    /// No other call waits.
    pub(super) alone: bool,
    /// The table has to be swept earlier than was known before.
    pub(super) sweep_earlier: bool,
}

/// The ids start above the handshake's.
const fn id_of(index: usize) -> u32 {
    index as u32 + 1
}

impl Calls {
    /// Enters a call. The caller comes back when too many are under way or the connection is closed.
    ///
    /// `caller` learns of its end, unless a later fetch names another task.
    pub(super) fn enter(
        &mut self,
        now: Instant,
        deadline: Instant,
        caller: Caller,
    ) -> Result<Entered, Caller> {
        if self.closed {
            return Err(caller);
        }
        let index = match self.free.pop() {
            Some(index) => index as usize,
            None if self.slots.len() < CALLS_MAX => {
                self.slots.push(Slot::Free);
                self.slots.len() - 1
            }
            None => return Err(caller),
        };
        let waiting = Waiting { sent: now, deadline, position: None, caller };
        self.slots[index] = Slot::Waiting(waiting);
        self.waiting += 1;
        let sweep_earlier = self.sweep_at.is_none_or(|at| deadline < at);
        if sweep_earlier {
            self.sweep_at = Some(deadline);
        }
        Ok(Entered { id: id_of(index), alone: self.waiting == 1, sweep_earlier })
    }

    /// Notes where on the line a call's request begins.
    pub(super) fn sent(&mut self, id: u32, position: u64) {
        match self.slot(id) {
            Some(Slot::Waiting(waiting)) => waiting.position = Some(position),
            // The connection ended between the sending and this: the request may have arrived.
            Some(Slot::Ended { result: result @ Err(CallFailure::NotSent), .. }) => {
                *result = Err(CallFailure::NoAnswer);
            }
            _ => {}
        }
    }

    /// The result of a call that has ended; otherwise `waker` is woken when it does.
    pub(super) fn fetch(&mut self, id: u32, waker: &Waker) -> Option<Ended> {
        match self.slot(id)? {
            Slot::Waiting(waiting) => {
                let known =
                    matches!(&waiting.caller, Caller::Task(known) if known.will_wake(waker));
                if !known {
                    waiting.caller = Caller::Task(waker.clone());
                }
                None
            }
            slot @ Slot::Ended { .. } => {
                let Slot::Ended { result, response_due } = std::mem::replace(slot, Slot::Free)
                else {
                    return None;
                };
                match response_due {
                    Some(sent) => *slot = Slot::GivenUp { sent },
                    None => self.free.push(id - 1),
                }
                Some(result)
            }
            // Fetched already.
            Slot::Free | Slot::GivenUp { .. } => Some(Err(CallFailure::NoAnswer)),
        }
    }

    /// The caller has gone. Returns whether the response was still awaited.
    pub(super) fn give_up(&mut self, id: u32) -> bool {
        let Some(slot) = self.slot(id) else { return false };
        match slot {
            Slot::Waiting(waiting) => {
                *slot = Slot::GivenUp { sent: waiting.sent };
                self.waiting -= 1;
                true
            }
            Slot::Ended { response_due: Some(sent), .. } => {
                *slot = Slot::GivenUp { sent: *sent };
                false
            }
            Slot::Ended { response_due: None, .. } => {
                *slot = Slot::Free;
                self.free.push(id - 1);
                false
            }
            Slot::Free | Slot::GivenUp { .. } => false,
        }
    }

    /// Nothing of a given-up request was sent: no response will come.
    pub(super) fn forget(&mut self, id: u32) {
        if let Some(slot @ Slot::GivenUp { .. }) = self.slot(id) {
            *slot = Slot::Free;
            self.free.push(id - 1);
        }
    }

    /// A response came. Returns what is to be done about it.
    pub(super) fn answered(&mut self, id: u32, result: Ended) -> Option<Due> {
        let slot = self.slot(id)?;
        match slot {
            Slot::Waiting(waiting) => {
                let (due, left) = waiting.end(result, false);
                if matches!(left, Slot::Free) {
                    self.free.push(id - 1);
                }
                self.slots[id as usize - 1] = left;
                self.waiting -= 1;
                due
            }
            Slot::Ended { response_due, .. } => {
                *response_due = None;
                None
            }
            Slot::GivenUp { .. } => {
                *slot = Slot::Free;
                self.free.push(id - 1);
                None
            }
            Slot::Free => None,
        }
    }

    /// When the table is to be swept.
    pub(super) fn sweep_at(&self) -> Option<Instant> {
        self.sweep_at
    }

    /// Ends the calls whose deadline has passed. What is to be done about them is added to `due`, their
    /// ids to `ended`.
    pub(super) fn sweep(&mut self, now: Instant, due: &mut Vec<Due>, ended: &mut Vec<u32>) {
        let mut next: Option<Instant> = None;
        for (index, slot) in self.slots.iter_mut().enumerate() {
            let Slot::Waiting(waiting) = slot else { continue };
            if waiting.deadline > now {
                next = Some(next.map_or(waiting.deadline, |at| at.min(waiting.deadline)));
                continue;
            }
            let (what, left) = waiting.end(Err(CallFailure::NoAnswer), true);
            due.extend(what);
            ended.push(id_of(index));
            *slot = left;
            self.waiting -= 1;
        }
        self.sweep_at = next;
    }

    /// When the oldest call whose caller has given it up was sent.
    pub(super) fn oldest_overdue(&self) -> Option<Instant> {
        let sent = self.slots.iter().filter_map(|slot| match slot {
            Slot::GivenUp { sent } => Some(*sent),
            Slot::Ended { response_due, .. } => *response_due,
            Slot::Free | Slot::Waiting(_) => None,
        });
        sent.min()
    }

    /// How many callers wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    /// Whether no caller waits.
    pub(super) fn is_idle(&self) -> bool {
        self.waiting == 0
    }

    /// Ends every call and takes no more. A request of which the stream took nothing was not sent:
    /// `accepted` is how many bytes it took, and `unsent` says it of large ones.
    pub(super) fn close(
        &mut self,
        accepted: u64,
        unsent: impl Fn(u32) -> bool,
        due: &mut Vec<Due>,
    ) {
        self.closed = true;
        for (index, slot) in self.slots.iter_mut().enumerate() {
            let Slot::Waiting(waiting) = slot else { continue };
            let begun = waiting.position.is_some_and(|position| position < accepted);
            let failure = if !begun || unsent(id_of(index)) {
                CallFailure::NotSent
            } else {
                CallFailure::NoAnswer
            };
            let (what, left) = waiting.end(Err(failure), false);
            due.extend(what);
            *slot = left;
        }
        self.waiting = 0;
        self.sweep_at = None;
    }

    fn slot(&mut self, id: u32) -> Option<&mut Slot> {
        self.slots.get_mut((id as usize).checked_sub(1)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_millis(ms)
    }

    fn fetch(calls: &mut Calls, id: u32) -> Option<Ended> {
        calls.fetch(id, Waker::noop())
    }

    #[test]
    fn a_response_ends_its_call_and_frees_the_id() {
        let mut calls = Calls::default();
        let first = calls.enter(at(0), at(500), Caller::Nobody).ok().unwrap();
        let second = calls.enter(at(0), at(400), Caller::Nobody).ok().unwrap();
        assert!(first.alone && !second.alone && second.sweep_earlier);
        assert_eq!(fetch(&mut calls, first.id), None);
        calls.answered(first.id, Ok(Response::Done));
        assert_eq!(fetch(&mut calls, first.id), Some(Ok(Response::Done)));
        assert_eq!(calls.enter(at(1), at(500), Caller::Nobody).ok().unwrap().id, first.id);
        assert_eq!(fetch(&mut calls, second.id), None);
    }

    #[test]
    fn an_id_waits_for_the_response_of_a_call_that_was_given_up_or_timed_out() {
        let mut calls = Calls::default();
        let gone = calls.enter(at(0), at(500), Caller::Nobody).ok().unwrap();
        let late = calls.enter(at(0), at(500), Caller::Nobody).ok().unwrap();
        assert!(calls.give_up(gone.id));
        let (mut due, mut ended) = (Vec::new(), Vec::new());
        calls.sweep(at(499), &mut due, &mut ended);
        assert_eq!((ended.len(), calls.sweep_at()), (0, Some(at(500))));
        calls.sweep(at(500), &mut due, &mut ended);
        assert_eq!((ended.as_slice(), calls.sweep_at()), (&[late.id][..], None));
        assert_eq!(fetch(&mut calls, late.id), Some(Err(CallFailure::NoAnswer)));
        assert_eq!(calls.oldest_overdue(), Some(at(0)));
        let other = calls.enter(at(600), at(900), Caller::Nobody).ok().unwrap();
        assert!(other.id != gone.id && other.id != late.id);
        calls.answered(gone.id, Ok(Response::Done));
        calls.answered(late.id, Ok(Response::Done));
        assert_eq!(calls.oldest_overdue(), None);
        assert_eq!(fetch(&mut calls, other.id), None);
        let again = [(); 2].map(|()| calls.enter(at(600), at(900), Caller::Nobody).ok());
        assert!(again.iter().flatten().all(|call| [gone.id, late.id].contains(&call.id)));
    }

    #[test]
    fn the_end_of_a_connection_tells_what_was_sent() {
        let mut calls = Calls::default();
        let ids: Vec<_> =
            (0..4).map(|_| calls.enter(at(0), at(500), Caller::Nobody).ok().unwrap().id).collect();
        for (id, position) in ids.iter().zip([0, 100, 200]) {
            calls.sent(*id, position);
        }
        calls.close(101, |id| id == ids[0], &mut Vec::new());
        let failures = ids.iter().map(|id| fetch(&mut calls, *id).unwrap().unwrap_err());
        let failures: Vec<_> = failures.collect();
        use CallFailure::{NoAnswer, NotSent};
        assert_eq!(failures, [NotSent, NoAnswer, NotSent, NotSent]);
        assert!(calls.enter(at(1), at(2), Caller::Nobody).is_err());
    }

    #[test]
    fn a_request_that_was_sent_while_its_connection_ended_may_have_arrived() {
        let mut calls = Calls::default();
        let call = calls.enter(at(0), at(500), Caller::Nobody).ok().unwrap();
        calls.close(100, |_| false, &mut Vec::new());
        calls.sent(call.id, 50);
        assert_eq!(fetch(&mut calls, call.id), Some(Err(CallFailure::NoAnswer)));
    }

    #[test]
    fn responses_nobody_asked_for_are_ignored() {
        let mut calls = Calls::default();
        for id in [0, 1, u32::MAX] {
            assert!(calls.answered(id, Ok(Response::Done)).is_none());
            assert!(!calls.give_up(id));
        }
        let call = calls.enter(at(0), at(500), Caller::Nobody).ok().unwrap();
        calls.answered(call.id, Ok(Response::Done));
        assert!(calls.answered(call.id, Ok(Response::NotFound { warming: false })).is_none());
        assert_eq!(fetch(&mut calls, call.id), Some(Ok(Response::Done)));
    }
}
