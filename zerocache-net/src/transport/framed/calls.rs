//! The calls of one connection that wait for their responses.
//!
//! Invariants: each call completes exactly once; a slot is not reused before the response to its call came,
//! or nothing of its request was sent; the table is bounded. An id names a slot and a use of it, so that a
//! late response to an earlier call of the slot changes nothing.

#[cfg(test)]
mod tests;

use std::task::Waker;

use zerocache_core::{call::CallFailure, time::Instant};

use super::{CallResult, Completion};

/// The most calls in flight on one connection, with abandoned ones.
const CALLS_MAX: usize = 16_384;

/// The position of a request that is not known yet: anything that the stream accepted may be part of it.
pub(super) const UNKNOWN: u64 = 0;

/// The position of a request that may be sent again although it was sent.
pub(super) const REPEATABLE: u64 = u64::MAX;

/// Who waits for the result of a call.
pub(super) enum Waiter {
    /// Nobody yet.
    None,
    /// A task that fetches the result.
    Task(Waker),
    /// A function that takes the result.
    Function(Completion),
}

/// What remains to be done for a call that is complete, once no lock is held.
pub(super) enum Notification {
    Wake(Waker),
    Call(Completion, CallResult),
}

impl Notification {
    pub(super) fn deliver(self) {
        match self {
            Self::Wake(waker) => waker.wake(),
            Self::Call(completion, result) => completion(result),
        }
    }
}

/// The table of calls.
#[derive(Default)]
pub(super) struct Calls {
    slots: Vec<Slot>,
    /// Indices of free slots.
    free: Vec<u32>,
    /// The number of calls whose callers wait.
    waiting: usize,
    /// The number of calls that are complete or abandoned and whose response can still come.
    overdue: usize,
    /// Calls whose requests are sent in chunks, which a response can overtake.
    large: Vec<u32>,
    /// Not later than the first deadline of those that wait.
    sweep_at: Option<Instant>,
    is_closed: bool,
}

struct Slot {
    /// The id of its call, or of the next one while the slot is free.
    id: u32,
    state: SlotState,
}

enum SlotState {
    Free,
    Waiting(WaitingCall),
    /// The caller has not fetched the result yet.
    Complete {
        result: CallResult,
        /// When the request was sent, if its response can still come.
        response_due: Option<Instant>,
    },
    /// Nobody waits any more; the response can still come.
    Abandoned {
        sent: Instant,
    },
}

struct WaitingCall {
    sent: Instant,
    deadline: Instant,
    /// How many bytes had been appended to the stream before its request.
    position: u64,
    waiter: Waiter,
}

impl WaitingCall {
    /// Completes the call. Returns whom to notify, and the next state of its slot. `is_response_due` says
    /// whether the response can still come.
    fn complete(
        &mut self,
        result: CallResult,
        is_response_due: bool,
    ) -> (Option<Notification>, SlotState) {
        let response_due = is_response_due.then_some(self.sent);
        let notification = match std::mem::replace(&mut self.waiter, Waiter::None) {
            Waiter::None => None,
            Waiter::Task(waker) => Some(Notification::Wake(waker)),
            Waiter::Function(completion) => {
                let next =
                    response_due.map_or(SlotState::Free, |sent| SlotState::Abandoned { sent });
                return (Some(Notification::Call(completion, result)), next);
            }
        };
        (notification, SlotState::Complete { result, response_due })
    }
}

/// A call that was just registered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Registration {
    pub(super) id: u32,
    /// No other call waits.
    pub(super) is_alone: bool,
    /// Its deadline is the next one.
    pub(super) is_next_deadline: bool,
}

/// The number of bits of an id that name its slot.
const INDEX_BITS: u32 = CALLS_MAX.ilog2();

/// The first id of a slot, above that of the handshake.
const fn first_id(index: usize) -> u32 {
    1 << INDEX_BITS | index as u32
}

/// The id that follows `id` in the same slot.
const fn next_id(id: u32) -> u32 {
    let next = id.wrapping_add(1 << INDEX_BITS);
    if next >> INDEX_BITS == 0 { first_id(next as usize) } else { next }
}

/// The slot that `id` names.
const fn index_of(id: u32) -> usize {
    (id & ((1 << INDEX_BITS) - 1)) as usize
}

impl Calls {
    /// Registers a call. `waiter` is notified of its result, unless a later fetch names another task.
    /// `position` is [`UNKNOWN`] or [`REPEATABLE`].
    ///
    /// # Errors
    /// The waiter, when too many calls are in flight or the connection is closed.
    pub(super) fn register(
        &mut self,
        now: Instant,
        deadline: Instant,
        waiter: Waiter,
        position: u64,
    ) -> Result<Registration, Waiter> {
        if self.is_closed {
            return Err(waiter);
        }
        let index = match self.free.pop() {
            Some(index) => index as usize,
            None if self.slots.len() < CALLS_MAX => {
                let index = self.slots.len();
                self.slots.push(Slot { id: first_id(index), state: SlotState::Free });
                index
            }
            None => return Err(waiter),
        };
        let slot = &mut self.slots[index];
        slot.state = SlotState::Waiting(WaitingCall { sent: now, deadline, position, waiter });
        let id = slot.id;
        self.waiting += 1;
        let is_next_deadline = self.sweep_at.is_none_or(|at| deadline < at);
        if is_next_deadline {
            self.sweep_at = Some(deadline);
        }
        Ok(Registration { id, is_alone: self.waiting == 1, is_next_deadline })
    }

    /// Takes back a call of which nothing was sent. Returns its waiter, unless that was notified already.
    pub(super) fn take_back(&mut self, id: u32) -> Option<Waiter> {
        self.take_large(id);
        let waiter = match self.state(id)? {
            SlotState::Waiting(waiting) => {
                let waiter = std::mem::replace(&mut waiting.waiter, Waiter::None);
                self.waiting -= 1;
                waiter
            }
            // The connection was closed meanwhile.
            SlotState::Complete { response_due: None, .. } => Waiter::None,
            SlotState::Complete { .. } | SlotState::Abandoned { .. } | SlotState::Free => {
                return None;
            }
        };
        self.release(id);
        Some(waiter)
    }

    /// Notes where in the stream the request of a call begins.
    pub(super) fn note_position(&mut self, id: u32, position: u64) {
        if let Some(SlotState::Waiting(waiting)) = self.state(id) {
            waiting.position = position;
        }
    }

    /// Notes that the request of a call is sent in chunks.
    pub(super) fn note_large(&mut self, id: u32) {
        self.large.push(id);
    }

    /// Forgets that the request of a call is sent in chunks. Returns whether it was.
    pub(super) fn take_large(&mut self, id: u32) -> bool {
        if self.large.is_empty() {
            return false;
        }
        let at = self.large.iter().position(|large| *large == id);
        at.map(|at| self.large.swap_remove(at)).is_some()
    }

    /// Returns the result of a call, or registers `waker` for it.
    pub(super) fn fetch(&mut self, id: u32, waker: &Waker) -> Option<CallResult> {
        // None when the result was fetched already.
        let Some(state) = self.state(id) else { return Some(Err(CallFailure::NoAnswer)) };
        match state {
            SlotState::Waiting(waiting) => {
                let is_known =
                    matches!(&waiting.waiter, Waiter::Task(known) if known.will_wake(waker));
                if !is_known {
                    waiting.waiter = Waiter::Task(waker.clone());
                }
                None
            }
            state @ SlotState::Complete { .. } => {
                let SlotState::Complete { result, response_due } =
                    std::mem::replace(state, SlotState::Free)
                else {
                    return None;
                };
                match response_due {
                    Some(sent) => *state = SlotState::Abandoned { sent },
                    None => self.release(id),
                }
                Some(result)
            }
            SlotState::Free | SlotState::Abandoned { .. } => Some(Err(CallFailure::NoAnswer)),
        }
    }

    /// Abandons a call whose caller is gone. Returns whether the call was still waiting.
    pub(super) fn abandon(&mut self, id: u32) -> bool {
        let Some(state) = self.state(id) else { return false };
        match state {
            SlotState::Waiting(waiting) => {
                *state = SlotState::Abandoned { sent: waiting.sent };
                self.waiting -= 1;
                self.overdue += 1;
                true
            }
            SlotState::Complete { response_due: Some(sent), .. } => {
                *state = SlotState::Abandoned { sent: *sent };
                false
            }
            SlotState::Complete { response_due: None, .. } => {
                self.release(id);
                false
            }
            SlotState::Free | SlotState::Abandoned { .. } => false,
        }
    }

    /// Forgets a call that is over and of whose request nothing was sent: no response will come.
    pub(super) fn forget(&mut self, id: u32) {
        self.take_large(id);
        match self.state(id) {
            Some(SlotState::Abandoned { .. }) => {
                self.overdue -= 1;
                self.release(id);
            }
            Some(SlotState::Complete { result, response_due: due @ Some(_) }) => {
                *due = None;
                *result = Err(CallFailure::NotSent);
                self.overdue -= 1;
            }
            _ => {}
        }
    }

    /// Completes a call with its response. Returns whom to notify.
    pub(super) fn complete(&mut self, id: u32, result: CallResult) -> Option<Notification> {
        let state = self.state(id)?;
        match state {
            SlotState::Waiting(waiting) => {
                let (notification, next) = waiting.complete(result, false);
                let is_free = matches!(next, SlotState::Free);
                *state = next;
                self.waiting -= 1;
                if is_free {
                    self.release(id);
                }
                notification
            }
            SlotState::Complete { response_due, .. } => {
                if response_due.take().is_some() {
                    self.overdue -= 1;
                }
                None
            }
            SlotState::Abandoned { .. } => {
                self.overdue -= 1;
                self.release(id);
                None
            }
            SlotState::Free => None,
        }
    }

    /// When the table must be swept.
    pub(super) fn sweep_at(&self) -> Option<Instant> {
        self.sweep_at
    }

    /// Ends the calls whose deadlines have passed. Adds whom to notify to `due`, and their ids to
    /// `timed_out`.
    pub(super) fn sweep(
        &mut self,
        now: Instant,
        due: &mut Vec<Notification>,
        timed_out: &mut Vec<u32>,
    ) {
        let mut next: Option<Instant> = None;
        for Slot { id, state } in &mut self.slots {
            let SlotState::Waiting(waiting) = state else { continue };
            if waiting.deadline > now {
                next = Some(next.map_or(waiting.deadline, |at| at.min(waiting.deadline)));
                continue;
            }
            let (notification, left) = waiting.complete(Err(CallFailure::NoAnswer), true);
            due.extend(notification);
            timed_out.push(*id);
            *state = left;
            self.waiting -= 1;
            self.overdue += 1;
        }
        self.sweep_at = next;
    }

    /// When the oldest request was sent whose caller no longer waits and whose response can still come.
    pub(super) fn oldest_overdue(&self) -> Option<Instant> {
        if self.overdue == 0 {
            return None;
        }
        let sent = self.slots.iter().filter_map(|slot| match &slot.state {
            SlotState::Abandoned { sent } => Some(*sent),
            SlotState::Complete { response_due, .. } => *response_due,
            SlotState::Free | SlotState::Waiting(_) => None,
        });
        sent.min()
    }

    /// Closes the table if no caller waits. Returns whether it is closed.
    pub(super) fn close_if_idle(&mut self) -> bool {
        self.is_closed |= self.waiting == 0;
        self.is_closed
    }

    /// Ends every call and takes no more. `accepted` is the number of bytes that the stream accepted; a
    /// request that begins behind them was not sent. `is_unsent` says so of a large one.
    pub(super) fn close(
        &mut self,
        accepted: u64,
        is_unsent: impl Fn(u32) -> bool,
        due: &mut Vec<Notification>,
    ) {
        self.is_closed = true;
        for Slot { id, state } in &mut self.slots {
            let SlotState::Waiting(waiting) = state else { continue };
            let failure = if waiting.position >= accepted || is_unsent(*id) {
                CallFailure::NotSent
            } else {
                CallFailure::NoAnswer
            };
            let (notification, next) = waiting.complete(Err(failure), false);
            due.extend(notification);
            *state = next;
        }
        self.waiting = 0;
        self.sweep_at = None;
    }

    /// How many calls wait, are complete, and are abandoned. All other slots are free.
    #[cfg(test)]
    pub(super) fn census(&self) -> [usize; 3] {
        let count =
            |of: fn(&SlotState) -> bool| self.slots.iter().filter(|slot| of(&slot.state)).count();
        let waiting = count(|state| matches!(state, SlotState::Waiting(_)));
        let complete = count(|state| matches!(state, SlotState::Complete { .. }));
        let abandoned = count(|state| matches!(state, SlotState::Abandoned { .. }));
        let due = count(|state| matches!(state, SlotState::Complete { response_due: Some(_), .. }));
        assert_eq!((self.waiting, self.overdue), (waiting, abandoned + due));
        let free = count(|state| matches!(state, SlotState::Free));
        assert_eq!(self.slots.len(), free + waiting + complete + abandoned);
        assert!(self.is_closed || free == self.free.len());
        [waiting, complete, abandoned]
    }

    fn state(&mut self, id: u32) -> Option<&mut SlotState> {
        let slot = self.slots.get_mut(index_of(id))?;
        (slot.id == id).then_some(&mut slot.state)
    }

    /// Frees the slot of `id`.
    fn release(&mut self, id: u32) {
        let index = index_of(id);
        self.slots[index] = Slot { id: next_id(id), state: SlotState::Free };
        self.free.push(index as u32);
    }
}
