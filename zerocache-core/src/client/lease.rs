//! Leases: one process at a time computes the value of a key, and the others wait for it.
//!
//! The node that grants them follows from the key alone, so that all processes ask the same one. When it is
//! gone, all ask the next one. A grant that comes when nobody waits for it any more is released.

use alloc::vec::Vec;

use super::{AttemptId, ClientState, Event, FoundItem, Outgoing, PendingAttempt};
use crate::{
    call::CallResult,
    key::KeyHash,
    route::{Attempt, LeaseRange, Step},
    time::Instant,
    version::{Incarnation, Version},
    wire::Response,
};

/// How often a waiting driver delivers [`Event::Timer`], in milliseconds: the request then checks whether its
/// node is still there.
pub const LEASE_CHECK_MS: u64 = 100;

/// The longest wait for another process's value, in milliseconds; a node allows no more.
pub const LEASE_WAIT_MS_MAX: u64 = 60_000;

/// Most nodes asked for a lease, one after the other, when those before turn out to be gone.
const NODES_ASKED_MAX: u32 = 3;

/// A request for the lease of one key.
#[derive(Debug)]
pub struct LeaseRequest {
    key: KeyHash,
    range: LeaseRange,
    wait_ms: u64,
    deadline_ms: u64,
    began: Instant,
    asked: u32,
    last: Option<Incarnation>,
    pending: Option<PendingAttempt>,
    /// Attempts whose answer nobody waits for any more.
    abandoned: Vec<PendingAttempt>,
    is_over: bool,
}

/// What the driver of a [`LeaseRequest`] does next.
#[derive(Debug)]
pub enum LeaseAction {
    /// Wait for the answer that is pending, and deliver [`Event::Timer`] every [`LEASE_CHECK_MS`].
    Wait,
    /// Send this request, and wait as for [`Wait`](Self::Wait).
    Send {
        /// The request.
        request: Outgoing,
        /// How long the node may let the caller wait for another process's value, in milliseconds.
        wait_ms: u64,
    },
    /// Release a grant that came too late.
    Release(Step, Version),
    /// The request is over. Answers that come later must still be delivered.
    Done(LeaseOutcome),
}

/// The outcome of a [`LeaseRequest`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaseOutcome {
    /// The caller computes, and nobody else does meanwhile. It writes with this version as its token.
    Granted(Step, Version),
    /// There is a value.
    Found(Step, FoundItem),
    /// Another process computes, and was not done in time or failed.
    Busy(Step),
    /// The node refused or gave an answer that does not fit.
    Refused(Step),
    /// There is no node to ask, or none answered.
    Unavailable,
}

impl LeaseRequest {
    /// A request that begins at `now`: for a lease of `key` from one of the nodes in `range`, or the value of
    /// another process within `wait_ms`, all within `deadline_ms`.
    #[must_use]
    pub fn new(
        key: KeyHash,
        range: LeaseRange,
        wait_ms: u64,
        deadline_ms: u64,
        now: Instant,
    ) -> Self {
        Self {
            key,
            range,
            wait_ms: wait_ms.min(LEASE_WAIT_MS_MAX),
            deadline_ms,
            began: now,
            asked: 0,
            last: None,
            pending: None,
            abandoned: Vec::new(),
            is_over: false,
        }
    }

    /// Handles an event at `now`.
    pub fn on(&mut self, now: Instant, event: Event, state: &mut ClientState) -> LeaseAction {
        match event {
            Event::Start if self.asked == 0 && !self.is_over => self.ask(now, state),
            Event::Timer | Event::ViewChanged => match &mut self.pending {
                Some(attempt) if !state.directory().is_available(&attempt.step) => {
                    state.abandon(attempt);
                    self.abandoned.extend(self.pending.take());
                    self.ask(now, state)
                }
                _ => LeaseAction::Wait,
            },
            Event::Answer { id, result, elapsed_us } => {
                self.answered(now, id, result, elapsed_us, state)
            }
            Event::Cancelled => {
                self.is_over = true;
                if let Some(mut attempt) = self.pending.take() {
                    state.abandon(&mut attempt);
                    self.abandoned.push(attempt);
                }
                LeaseAction::Wait
            }
            Event::Start => LeaseAction::Wait,
        }
    }

    /// Asks the node for the lease, unless that is the one that was asked last.
    fn ask(&mut self, now: Instant, state: &mut ClientState) -> LeaseAction {
        let step = state.directory().lease_node(self.key, self.range);
        let step = step.filter(|step| self.last != Some(step.node));
        let elapsed_ms = now.since_ms(self.began);
        let wait_ms = self.wait_ms.saturating_sub(elapsed_ms);
        let timeout_ms = |step: &Step| {
            let most_ms = wait_ms.saturating_add(state.bounds().of(step.tier));
            most_ms.min(self.deadline_ms.saturating_sub(elapsed_ms))
        };
        let next = step.filter(|_| self.asked < NODES_ASKED_MAX);
        let next = next.map(|step| Attempt { timeout_ms: timeout_ms(&step), step });
        let Some(attempt) = next.filter(|attempt| attempt.timeout_ms > 0) else {
            self.is_over = true;
            return LeaseAction::Done(LeaseOutcome::Unavailable);
        };
        let Attempt { step, timeout_ms } = attempt;
        let id = AttemptId(self.asked);
        (self.asked, self.last) = (self.asked + 1, Some(step.node));
        // A node that lets the caller wait is not silent.
        self.pending = Some(state.begin_attempt(id, attempt, wait_ms == 0, now));
        let request = Outgoing { id, step, timeout_ms, seen: state.seen(), is_hedge: false };
        LeaseAction::Send { request, wait_ms }
    }

    fn answered(
        &mut self,
        now: Instant,
        id: AttemptId,
        result: CallResult,
        elapsed_us: u64,
        state: &mut ClientState,
    ) -> LeaseAction {
        let Some(attempt) = self.pending.take_if(|attempt| attempt.id == id) else {
            return self.answered_late(now, id, result, elapsed_us, state);
        };
        let step = attempt.step;
        let outcome = match state.end_attempt(&attempt, result, now, Some(elapsed_us)) {
            Err(_) => return self.ask(now, state),
            Ok(Response::LeaseGranted { token }) => {
                state.note_seen(token);
                LeaseOutcome::Granted(step, token)
            }
            Ok(Response::Found { value, metadata, version, remaining_ms }) => {
                state.note_seen(version);
                LeaseOutcome::Found(step, FoundItem { value, metadata, version, remaining_ms })
            }
            Ok(Response::LeaseHeld) => LeaseOutcome::Busy(step),
            Ok(_) => LeaseOutcome::Refused(step),
        };
        self.is_over = true;
        LeaseAction::Done(outcome)
    }

    fn answered_late(
        &mut self,
        now: Instant,
        id: AttemptId,
        result: CallResult,
        elapsed_us: u64,
        state: &mut ClientState,
    ) -> LeaseAction {
        let at = self.abandoned.iter().position(|attempt| attempt.id == id);
        let Some(attempt) = at.map(|at| self.abandoned.swap_remove(at)) else {
            return LeaseAction::Wait;
        };
        match state.end_attempt(&attempt, result, now, Some(elapsed_us)) {
            Ok(Response::LeaseGranted { token }) => {
                state.note_seen(token);
                LeaseAction::Release(attempt.step, token)
            }
            _ => LeaseAction::Wait,
        }
    }
}

/// The release of a lease: a request whose answer only feeds the directory. A lease that is not released
/// ends with its time.
#[derive(Debug)]
pub struct Release {
    attempt: PendingAttempt,
}

impl Release {
    /// Begins the release of a lease that the node of `step` granted, and returns the request to send.
    pub fn begin(step: Step, now: Instant, state: &mut ClientState) -> (Self, Outgoing) {
        let (id, timeout_ms) = (AttemptId(0), state.bounds().of(step.tier));
        let attempt = state.begin_attempt(id, Attempt { step, timeout_ms }, true, now);
        (Self { attempt }, Outgoing { id, step, timeout_ms, seen: state.seen(), is_hedge: false })
    }

    /// Ends it with the answer of the node.
    pub fn end(self, now: Instant, result: CallResult, elapsed_us: u64, state: &mut ClientState) {
        // Nobody waits for it.
        let _recorded = state.end_attempt(&self.attempt, result, now, Some(elapsed_us));
    }
}
