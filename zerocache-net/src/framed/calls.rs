//! The calls of one connection that wait for their responses.
//!
//! Invariants: each call ends exactly once; a place in the table is not given again before the response
//! to its call came, or nothing of its request was sent; the table is bounded. An id names a place and
//! how often that was given, so that whatever belongs to an earlier call of a place changes nothing.

#[cfg(test)]
mod tests;

use std::task::Waker;

use zerocache_core::{call::CallFailure, time::Instant, wire::Response};

use crate::transport::Then;

/// Most calls under way on one connection, given up ones included.
const CALLS_MAX: usize = 16_384;

/// Where the request of a call begins, before that is known: whatever the stream took may be part of it.
pub(super) const UNKNOWN: u64 = 0;

/// Where a request begins that may be repeated whether it was sent or not.
pub(super) const REPEATABLE: u64 = u64::MAX;

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
    places: Vec<Place>,
    /// Indices of free places.
    free: Vec<u32>,
    waiting: usize,
    /// Calls that have ended without the response that can still come.
    overdue: usize,
    /// Calls whose requests go out in pieces, which a response can overtake.
    large: Vec<u32>,
    /// Not later than the first deadline among those that wait.
    sweep_at: Option<Instant>,
    closed: bool,
}

struct Place {
    /// The id of its call; of the next one when it is free.
    id: u32,
    slot: Slot,
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
    /// How many bytes the line had been given before it.
    position: u64,
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

/// The bits of an id that say which place it has.
const INDEX_BITS: u32 = CALLS_MAX.ilog2();

/// The first id of a place, above the handshake's.
const fn first_id(index: usize) -> u32 {
    1 << INDEX_BITS | index as u32
}

/// The id that follows `id` at the same place.
const fn next_id(id: u32) -> u32 {
    let next = id.wrapping_add(1 << INDEX_BITS);
    if next >> INDEX_BITS == 0 { first_id(next as usize) } else { next }
}

/// The place that `id` names.
const fn index_of(id: u32) -> usize {
    (id & ((1 << INDEX_BITS) - 1)) as usize
}

impl Calls {
    /// Enters a call. The caller comes back when too many are under way or the connection is closed.
    ///
    /// `caller` learns of its end, unless a later fetch names another task. `position` is [`UNKNOWN`]
    /// or [`REPEATABLE`].
    pub(super) fn enter(
        &mut self,
        now: Instant,
        deadline: Instant,
        caller: Caller,
        position: u64,
    ) -> Result<Entered, Caller> {
        if self.closed {
            return Err(caller);
        }
        let index = match self.free.pop() {
            Some(index) => index as usize,
            None if self.places.len() < CALLS_MAX => {
                let index = self.places.len();
                self.places.push(Place { id: first_id(index), slot: Slot::Free });
                index
            }
            None => return Err(caller),
        };
        let place = &mut self.places[index];
        place.slot = Slot::Waiting(Waiting { sent: now, deadline, position, caller });
        let id = place.id;
        self.waiting += 1;
        let sweep_earlier = self.sweep_at.is_none_or(|at| deadline < at);
        if sweep_earlier {
            self.sweep_at = Some(deadline);
        }
        Ok(Entered { id, alone: self.waiting == 1, sweep_earlier })
    }

    /// Takes a call back of which nothing was sent: its caller, unless it learnt of its end already.
    pub(super) fn take_back(&mut self, id: u32) -> Option<Caller> {
        self.was_large(id);
        let caller = match self.slot(id)? {
            Slot::Waiting(waiting) => {
                let caller = std::mem::replace(&mut waiting.caller, Caller::Nobody);
                self.waiting -= 1;
                caller
            }
            // The end of the connection came between.
            Slot::Ended { response_due: None, .. } => Caller::Nobody,
            Slot::Ended { .. } | Slot::GivenUp { .. } | Slot::Free => return None,
        };
        self.release(id);
        Some(caller)
    }

    /// Notes where on the line a call's request begins.
    pub(super) fn sent(&mut self, id: u32, position: u64) {
        if let Some(Slot::Waiting(waiting)) = self.slot(id) {
            waiting.position = position;
        }
    }

    /// Notes that a call's request goes out in pieces.
    pub(super) fn note_large(&mut self, id: u32) {
        self.large.push(id);
    }

    /// Whether a call's request went out in pieces, some of which may be left; says so once.
    pub(super) fn was_large(&mut self, id: u32) -> bool {
        if self.large.is_empty() {
            return false;
        }
        let at = self.large.iter().position(|large| *large == id);
        at.map(|at| self.large.swap_remove(at)).is_some()
    }

    /// The result of a call that has ended; otherwise `waker` is woken when it does.
    pub(super) fn fetch(&mut self, id: u32, waker: &Waker) -> Option<Ended> {
        // None: fetched already.
        let Some(slot) = self.slot(id) else { return Some(Err(CallFailure::NoAnswer)) };
        match slot {
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
                    None => self.release(id),
                }
                Some(result)
            }
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
                self.overdue += 1;
                true
            }
            Slot::Ended { response_due: Some(sent), .. } => {
                *slot = Slot::GivenUp { sent: *sent };
                false
            }
            Slot::Ended { response_due: None, .. } => {
                self.release(id);
                false
            }
            Slot::Free | Slot::GivenUp { .. } => false,
        }
    }

    /// Nothing of the request of a call that has ended was sent: no response will come.
    pub(super) fn forget(&mut self, id: u32) {
        self.was_large(id);
        match self.slot(id) {
            Some(Slot::GivenUp { .. }) => {
                self.overdue -= 1;
                self.release(id);
            }
            Some(Slot::Ended { result, response_due: due @ Some(_) }) => {
                *due = None;
                *result = Err(CallFailure::NotSent);
                self.overdue -= 1;
            }
            _ => {}
        }
    }

    /// A response came. Returns what is to be done about it.
    pub(super) fn answered(&mut self, id: u32, result: Ended) -> Option<Due> {
        let slot = self.slot(id)?;
        match slot {
            Slot::Waiting(waiting) => {
                let (due, left) = waiting.end(result, false);
                let free = matches!(left, Slot::Free);
                *slot = left;
                self.waiting -= 1;
                if free {
                    self.release(id);
                }
                due
            }
            Slot::Ended { response_due, .. } => {
                if response_due.take().is_some() {
                    self.overdue -= 1;
                }
                None
            }
            Slot::GivenUp { .. } => {
                self.overdue -= 1;
                self.release(id);
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
        for Place { id, slot } in &mut self.places {
            let Slot::Waiting(waiting) = slot else { continue };
            if waiting.deadline > now {
                next = Some(next.map_or(waiting.deadline, |at| at.min(waiting.deadline)));
                continue;
            }
            let (what, left) = waiting.end(Err(CallFailure::NoAnswer), true);
            due.extend(what);
            ended.push(*id);
            *slot = left;
            self.waiting -= 1;
            self.overdue += 1;
        }
        self.sweep_at = next;
    }

    /// When the oldest call whose caller has given it up was sent.
    pub(super) fn oldest_overdue(&self) -> Option<Instant> {
        if self.overdue == 0 {
            return None;
        }
        let sent = self.places.iter().filter_map(|place| match &place.slot {
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

    /// Takes no more calls if no caller waits; whether that is so.
    pub(super) fn close_if_idle(&mut self) -> bool {
        self.closed |= self.waiting == 0;
        self.closed
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
        for Place { id, slot } in &mut self.places {
            let Slot::Waiting(waiting) = slot else { continue };
            let failure = if waiting.position >= accepted || unsent(*id) {
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

    /// How many calls wait, have ended, and are given up; all else is free.
    #[cfg(test)]
    pub(super) fn census(&self) -> [usize; 3] {
        let count = |of: fn(&Slot) -> bool| self.places.iter().filter(|p| of(&p.slot)).count();
        let waiting = count(|slot| matches!(slot, Slot::Waiting(_)));
        let ended = count(|slot| matches!(slot, Slot::Ended { .. }));
        let given_up = count(|slot| matches!(slot, Slot::GivenUp { .. }));
        let due = count(|slot| matches!(slot, Slot::Ended { response_due: Some(_), .. }));
        assert_eq!((self.waiting, self.overdue), (waiting, given_up + due));
        let free = count(|slot| matches!(slot, Slot::Free));
        assert_eq!(self.places.len(), free + waiting + ended + given_up);
        assert!(self.closed || free == self.free.len());
        [waiting, ended, given_up]
    }

    fn slot(&mut self, id: u32) -> Option<&mut Slot> {
        let place = self.places.get_mut(index_of(id))?;
        (place.id == id).then_some(&mut place.slot)
    }

    /// Makes the place of `id` free.
    fn release(&mut self, id: u32) {
        let index = index_of(id);
        self.places[index] = Place { id: next_id(id), slot: Slot::Free };
        self.free.push(index as u32);
    }
}
