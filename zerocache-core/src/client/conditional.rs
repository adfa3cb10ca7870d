//! Writes on a condition: all clients of a region ask the same node for a key, so that they meet there.
//!
//! Another node is asked only if the first one cannot have received the write, or refused to judge it. A node that
//! may not have received the version yet that the condition names is asked again a moment later.

use alloc::{string::String, vec::Vec};

use super::{
    Action, AttemptId, AttemptReport, AttemptResult, ClientState, ClientVariant, Event, FoundItem,
    Outgoing, OwnWrite, PendingAttempt, Reaction, read::is_invalid,
};
use crate::{
    access::Denial,
    call::{CallFailure, CallResult},
    condition::{ConditionalOp, TakenItem},
    key::KeyHash,
    route::{Attempt, Budget, Step},
    time::Instant,
    version::{Incarnation, Version},
    wire::{Ack, RefusalCode, Response, Status, Written, value_too_large},
};

/// Most nodes asked for one write.
const NODES_ASKED_MAX: usize = 3;

/// The first wait for a version that is on its way to the node, in milliseconds; each is twice the one before.
const PAUSE_MS: u64 = 5;

/// The longest such wait, in milliseconds.
const PAUSE_MS_MAX: u64 = 100;

/// The outcome of a [`ConditionalOperation`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConditionalResult {
    /// The condition held. The status says what became of the write.
    Written(Written),
    /// The condition held, and the node deleted this value, with this version.
    Taken(Step, FoundItem, Version),
    /// The condition did not hold. Nothing was written.
    NotMet {
        /// The version of the value that the node holds, if it holds one.
        current: Option<Version>,
    },
    /// A node may have received the write, and did not answer.
    Unknown,
    /// No node that could be asked judged the condition. Nothing was written.
    Refused,
    /// The value is larger than the node accepts.
    TooLarge {
        /// The refusal, for people.
        text: String,
        /// Whether the value was sent to find that out.
        is_sent: bool,
    },
    /// Nodes do not accept the key or the request, for this reason.
    Invalid(String),
    /// The caller may not do this, and a node says why.
    Denied(Denial, String),
    /// The nodes that can be reached are of a release that knows no conditions.
    Unsupported,
    /// No node could be reached.
    Unreachable,
}

/// A write on a condition.
#[derive(Debug)]
pub struct ConditionalOperation {
    key: KeyHash,
    /// The bytes of the value, if it stores one.
    value_bytes: Option<u64>,
    is_delete: bool,
    /// It leaves the value as it is: the client need not read it.
    is_use: bool,
    ack: Ack,
    budget: Budget,
    /// Nodes that refused, or could not be reached.
    tried: Vec<Incarnation>,
    pending: Option<PendingAttempt>,
    next_id: u32,
    is_refused: bool,
    /// The end and the length of the present wait for a version on its way.
    pause: Option<(Instant, u64)>,
    is_over: bool,
}

impl ConditionalOperation {
    /// A write of `key` that begins at `now` and takes at most `total_ms`.
    #[must_use]
    pub fn new(key: KeyHash, op: &ConditionalOp, ack: Ack, now: Instant, total_ms: u64) -> Self {
        let value_bytes = match op {
            ConditionalOp::Put { value, .. } => Some(value.len() as u64),
            _ => None,
        };
        Self {
            key,
            value_bytes,
            is_delete: matches!(op, ConditionalOp::Delete | ConditionalOp::Take),
            is_use: matches!(op, ConditionalOp::Use),
            ack,
            budget: Budget::new(now, total_ms),
            tried: Vec::new(),
            pending: None,
            next_id: 0,
            is_refused: false,
            pause: None,
            is_over: false,
        }
    }

    /// Handles an event at `now`.
    pub fn on(
        &mut self,
        now: Instant,
        event: Event,
        state: &mut ClientState,
    ) -> Reaction<ConditionalResult> {
        match event {
            Event::Answer { id, result, elapsed_us } => {
                self.answered(now, id, result, elapsed_us, state)
            }
            Event::Cancelled => {
                self.is_over = true;
                self.pending.iter_mut().for_each(|attempt| state.abandon(attempt));
                Reaction::of(Action::Wait)
            }
            _ if self.is_over || self.pending.is_some() => Reaction::of(Action::Wait),
            Event::Start | Event::Timer | Event::ViewChanged => Reaction::of(self.ask(now, state)),
        }
    }

    fn ask(&mut self, now: Instant, state: &mut ClientState) -> Action<ConditionalResult> {
        if let Some((until, _)) = self.pause.filter(|(until, _)| now < *until) {
            return Action::AwaitNodes { until };
        }
        if self.tried.is_empty()
            && let Some(until) = state.await_nodes(now, self.budget)
        {
            return Action::AwaitNodes { until };
        }
        let directory = state.directory();
        let step = if state.is_broken(ClientVariant::ConditionsSpread) {
            let usable = directory.steps_by_distance(now);
            usable.get(now.as_millis() as usize % usable.len().max(1)).copied()
        } else {
            directory.judging_node(self.key, &self.tried)
        };
        let Some(step) = step.filter(|_| self.tried.len() < NODES_ASKED_MAX) else {
            return self.end(self.exhausted(state, now));
        };
        if let Some(bytes) = self.value_bytes.filter(|bytes| *bytes > step.value_bytes_max) {
            let text = value_too_large(bytes, step.value_bytes_max);
            return self.end(ConditionalResult::TooLarge { text, is_sent: false });
        }
        let expects_soon = self.ack == Ack::Local;
        let bound_ms = if expects_soon { state.bounds().of(step.tier) } else { u64::MAX };
        let Some(timeout_ms) = self.budget.clip(now, bound_ms) else {
            return self.end(self.exhausted(state, now));
        };
        let id = AttemptId(self.next_id);
        self.next_id += 1;
        let attempt = Attempt { step, timeout_ms };
        self.pending = Some(state.begin_attempt(id, attempt, expects_soon, now));
        let request = Outgoing { id, step, timeout_ms, seen: state.seen(), is_hedge: false };
        Action::Send { request, timer_us: None }
    }

    fn answered(
        &mut self,
        now: Instant,
        id: AttemptId,
        result: CallResult,
        elapsed_us: u64,
        state: &mut ClientState,
    ) -> Reaction<ConditionalResult> {
        let Some(attempt) = self.pending.take_if(|attempt| attempt.id == id) else {
            return Reaction::of(Action::Wait);
        };
        let step = attempt.step;
        let result = state.end_attempt(&attempt, result, now, Some(elapsed_us));
        if self.is_over {
            return Reaction::of(Action::Wait);
        }
        let (outcome, result) = self.judge(now, &step, result, state);
        let is_error = result.is_error(outcome.is_some());
        let ended = Some(AttemptReport { step, result, is_error, is_hedge_win: false });
        let action = match outcome {
            Some(outcome) => self.end(outcome),
            None => self.ask(now, state),
        };
        Reaction { ended, action }
    }

    /// The outcome that an answer means; none if a node is to be asked again.
    fn judge(
        &mut self,
        now: Instant,
        step: &Step,
        result: CallResult,
        state: &mut ClientState,
    ) -> (Option<ConditionalResult>, AttemptResult) {
        let (outcome, result) = match result {
            Ok(Response::Written(written)) => {
                // A write that a purge ended is nowhere: what the client wrote before it still counts.
                if written.version.is_some() || written.status != Status::Superseded {
                    self.record(now, step, written.version, state);
                }
                (ConditionalResult::Written(written), AttemptResult::Answered)
            }
            Ok(Response::Taken(taken)) => {
                let TakenItem { value, metadata, version, remaining_ms, deleted } = *taken;
                self.record(now, step, Some(deleted), state);
                let item = FoundItem { value, metadata, version, remaining_ms };
                (ConditionalResult::Taken(*step, item, deleted), AttemptResult::Answered)
            }
            Ok(Response::NotMet { current }) => {
                current.into_iter().for_each(|version| state.note_seen(version));
                (ConditionalResult::NotMet { current }, AttemptResult::Answered)
            }
            Ok(Response::Refused(refusal)) => {
                let text = refusal.text.clone();
                let outcome = match refusal.code {
                    RefusalCode::TooLarge => {
                        let (bytes, max) = (self.value_bytes.unwrap_or(0), refusal.value_bytes_max);
                        state.directory_mut().record_value_limit(step.node, bytes, max, now);
                        Some(ConditionalResult::TooLarge { text, is_sent: true })
                    }
                    RefusalCode::Behind => {
                        let pause_ms = self.pause.map_or(PAUSE_MS, |(_, ms)| ms * 2);
                        let pause_ms = pause_ms.min(PAUSE_MS_MAX);
                        self.pause = Some((now.plus_ms(pause_ms), pause_ms));
                        self.is_refused = true;
                        // A use can be left to the next reader.
                        let is_over = self.is_use || self.budget.remaining_ms(now) <= pause_ms;
                        is_over.then_some(ConditionalResult::Refused)
                    }
                    code if is_invalid(code) => Some(ConditionalResult::Invalid(text)),
                    code => {
                        let denial = Denial::from_refusal_code(code);
                        let denied = denial.map(|denial| ConditionalResult::Denied(denial, text));
                        if denied.is_none() {
                            self.is_refused = true;
                            self.tried.push(step.node);
                        }
                        denied
                    }
                };
                return (outcome, AttemptResult::Refused(refusal.text));
            }
            // Nor has the node to which the write was passed on answered.
            Ok(Response::Unconfirmed) => (ConditionalResult::Unknown, AttemptResult::Answered),
            Ok(_) => {
                // An answer that does not fit was not written by it.
                self.is_refused = true;
                self.tried.push(step.node);
                return (None, AttemptResult::NotReached);
            }
            // It may have arrived: made again, the condition would judge the write by itself.
            Err(CallFailure::NoAnswer) => (ConditionalResult::Unknown, AttemptResult::NoAnswer),
            Err(_) => {
                self.tried.push(step.node);
                return (None, AttemptResult::NotReached);
            }
        };
        (Some(outcome), result)
    }

    fn record(&self, now: Instant, step: &Step, version: Option<Version>, state: &mut ClientState) {
        let (node, is_delete) = (step.node, self.is_delete);
        if !self.is_use {
            state.record_own_write(self.key, OwnWrite { node, version, is_delete }, now);
        }
        version.into_iter().for_each(|version| state.note_seen(version));
    }

    fn exhausted(&self, state: &ClientState, now: Instant) -> ConditionalResult {
        match () {
            () if self.is_refused => ConditionalResult::Refused,
            () if self.tried.is_empty() && state.directory().is_reachable(now) => {
                ConditionalResult::Unsupported
            }
            () => ConditionalResult::Unreachable,
        }
    }

    fn end(&mut self, outcome: ConditionalResult) -> Action<ConditionalResult> {
        self.is_over = true;
        Action::Done(outcome)
    }
}
