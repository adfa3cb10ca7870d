//! An operation on one key: the first attempt, the walk through the tiers, and a hedge beside the first
//! attempt of a read.

use alloc::boxed::Box;
use core::time::Duration;

use super::{
    Action, AttemptId, ClientState, Event, KeyRules, Outgoing, PendingAttempt, Reaction,
    rules::Verdict,
};
use crate::{
    call::CallResult,
    route::{Attempt, Budget, RotationTicket, Step, Walk},
    time::Instant,
    version::Incarnation,
};

/// An operation on one key.
#[derive(Debug)]
pub struct Operation<K> {
    rules: K,
    budget: Budget,
    phase: Phase,
    next_id: u32,
    /// Its place in the rotation, and the node that it prefers, once it has begun.
    plan: Option<(RotationTicket, Option<Incarnation>)>,
    /// The attempt that is pending, but for a hedge.
    pending: Option<PendingAttempt>,
    /// What most operations do without: they are over with the first answer.
    pub(super) rest: Option<Box<Rest>>,
}

/// What an operation needs after the first attempt, or beside it.
#[derive(Debug)]
pub(super) struct Rest {
    walk: Walk,
    hedge: Option<PendingAttempt>,
    hedged_after_us: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    New,
    AwaitingNodes,
    /// The first attempt is pending, and is hedged when it is late.
    First {
        late_us: u64,
    },
    /// Attempts are pending that are not hedged any more.
    Walking,
    Over,
}

impl<K: KeyRules> Operation<K> {
    /// An operation that begins at `now` and takes at most `total_ms`.
    #[must_use]
    pub fn new(rules: K, now: Instant, total_ms: u64) -> Self {
        let (budget, phase) = (Budget::new(now, total_ms), Phase::New);
        Self { rules, budget, phase, next_id: 0, plan: None, pending: None, rest: None }
    }

    /// Handles an event at `now`.
    pub fn on(
        &mut self,
        now: Instant,
        event: Event,
        state: &mut ClientState,
    ) -> Reaction<K::Output> {
        match event {
            Event::Answer { id, result, elapsed_us } => {
                self.answered(now, id, result, elapsed_us, state)
            }
            Event::Cancelled => {
                self.end(state);
                Reaction::of(Action::Wait)
            }
            Event::Start | Event::Timer | Event::ViewChanged => match self.phase {
                Phase::New | Phase::AwaitingNodes => self.begin(now, state),
                Phase::First { late_us } if matches!(event, Event::Timer) => {
                    self.phase = Phase::Walking;
                    self.hedge(now, late_us, state)
                }
                Phase::First { .. } | Phase::Walking | Phase::Over => Reaction::of(Action::Wait),
            },
        }
    }

    fn begin(&mut self, now: Instant, state: &mut ClientState) -> Reaction<K::Output> {
        if let Some(until) = state.await_nodes(now, self.budget) {
            self.phase = Phase::AwaitingNodes;
            return Reaction::of(Action::AwaitNodes { until });
        }
        let preferred = self.rules.preferred(state, now);
        let ticket = state.directory_mut().take_ticket(K::IS_WRITE);
        self.plan = Some((ticket, preferred));
        self.phase = Phase::Walking;
        let Some(step) = state.directory().first_step((ticket, self.rules.key()), preferred, now)
        else {
            return Reaction::of(self.walk_on(now, state));
        };
        let is_bounded = self.rules.expects_soon();
        let bound_ms = if is_bounded { state.bounds().of(step.tier) } else { u64::MAX };
        let Some(timeout_ms) = self.budget.clip(now, bound_ms) else {
            return Reaction::of(self.exhausted(state));
        };
        let mut action = self.attempt(now, Attempt { step, timeout_ms }, state);
        if let Action::Send { timer_us, .. } = &mut action {
            let late_us = state.late_us::<K>(step.node, 1);
            *timer_us = late_us;
            if let Some(late_us) = late_us {
                self.phase = Phase::First { late_us };
            }
        }
        Reaction::of(action)
    }

    fn answered(
        &mut self,
        now: Instant,
        id: AttemptId,
        result: CallResult,
        elapsed_us: u64,
        state: &mut ClientState,
    ) -> Reaction<K::Output> {
        let Some((attempt, is_hedge)) = self.take(id) else { return Reaction::of(Action::Wait) };
        let result = state.end_attempt(&attempt, result, now, Some(elapsed_us));
        if self.phase == Phase::Over {
            return Reaction::of(Action::Wait);
        }
        if is_hedge || id == AttemptId(0) {
            let time = Duration::from_micros(elapsed_us);
            state.record_latency::<K>(attempt.step.node, 1, time);
        }
        let step = attempt.step;
        let (verdict, result) = self.rules.judge(state, &step, result, now);
        if !matches!(verdict, Verdict::Complete(_)) {
            self.rest(now, Some(&step), state);
        }
        let walk = self.rest.as_mut().map(|rest| &mut rest.walk);
        let (output, mut report) = verdict.conclude(&self.rules, walk, step, result);
        report.is_hedge_win = is_hedge && output.is_some() && self.pending.is_some();
        let action = match output {
            Some(output) => self.complete(output, (is_hedge, elapsed_us), state),
            // The other one may still complete it.
            None if self.is_pending() => Action::Wait,
            None => self.walk_on(now, state),
        };
        Reaction { ended: Some(report), action }
    }

    /// Asks a second node beside the first one, which is late, if the share permits it.
    fn hedge(
        &mut self,
        now: Instant,
        late_us: u64,
        state: &mut ClientState,
    ) -> Reaction<K::Output> {
        let may = state.may_hedge(1);
        let Some(first) = self.pending.filter(|_| may) else { return Reaction::of(Action::Wait) };
        let Some(attempt) = self.rest(now, Some(&first.step), state).walk.next_attempt(now) else {
            return Reaction::of(Action::Wait);
        };
        let mut action = self.attempt(now, attempt, state);
        if let Action::Send { request, .. } = &mut action {
            request.is_hedge = true;
        }
        // The new attempt is the hedge, and the first one stays what it is.
        let hedge = self.pending.replace(first);
        let rest = self.rest(now, Some(&first.step), state);
        (rest.hedge, rest.hedged_after_us) = (hedge, late_us);
        Reaction::of(action)
    }

    fn complete(
        &mut self,
        output: K::Output,
        (is_hedge, elapsed_us): (bool, u64),
        state: &mut ClientState,
    ) -> Action<K::Output> {
        if is_hedge && let (Some(first), Some(rest)) = (self.pending, &self.rest) {
            // It takes longer than this.
            let time = Duration::from_micros(rest.hedged_after_us + elapsed_us);
            state.record_latency::<K>(first.step.node, 1, time);
        }
        self.end(state);
        Action::Done(output)
    }

    fn exhausted(&mut self, state: &mut ClientState) -> Action<K::Output> {
        self.end(state);
        Action::Done(self.rules.exhausted())
    }

    /// Ends the operation. Answers that come later feed the directory.
    fn end(&mut self, state: &mut ClientState) {
        self.phase = Phase::Over;
        let hedge = self.rest.as_mut().and_then(|rest| rest.hedge.as_mut());
        self.pending.iter_mut().chain(hedge).for_each(|attempt| state.abandon(attempt));
    }

    /// Asks the next node of the walk.
    fn walk_on(&mut self, now: Instant, state: &mut ClientState) -> Action<K::Output> {
        self.phase = Phase::Walking;
        match self.rest(now, None, state).walk.next_attempt(now) {
            Some(attempt) => self.attempt(now, attempt, state),
            None => self.exhausted(state),
        }
    }

    fn attempt(
        &mut self,
        now: Instant,
        attempt: Attempt,
        state: &mut ClientState,
    ) -> Action<K::Output> {
        let Attempt { step, timeout_ms } = attempt;
        if let Some(output) = self.rules.refused_unsent(&step) {
            self.end(state);
            return Action::Done(output);
        }
        let id = AttemptId(self.next_id);
        self.next_id += 1;
        let pending = state.begin_attempt(id, attempt, self.rules.expects_soon(), now);
        self.pending = Some(pending);
        let request = Outgoing { id, step, timeout_ms, seen: state.seen(), is_hedge: false };
        Action::Send { request, timer_us: None }
    }

    /// The rest of the operation. Its walk begins after `first`, the node that was asked first, if one was.
    fn rest(&mut self, now: Instant, first: Option<&Step>, state: &ClientState) -> &mut Rest {
        let Self { rules, plan, budget, rest, .. } = self;
        rest.get_or_insert_with(|| {
            let key = rules.key();
            let plan = plan.map(|(ticket, node)| state.directory().plan((ticket, key), node, now));
            // An operation that has no plan asks nobody.
            let mut walk = state.walk(rules, plan.unwrap_or_default(), *budget);
            if let Some(first) = first {
                walk.skip(first);
            }
            Box::new(Rest { walk, hedge: None, hedged_after_us: 0 })
        })
    }

    fn is_pending(&self) -> bool {
        self.pending.is_some() || self.rest.as_ref().is_some_and(|rest| rest.hedge.is_some())
    }

    /// Takes the pending attempt of this name, and says whether it is a hedge.
    fn take(&mut self, id: AttemptId) -> Option<(PendingAttempt, bool)> {
        if let Some(attempt) = self.pending.take_if(|attempt| attempt.id == id) {
            return Some((attempt, false));
        }
        let hedge = self.rest.as_mut()?.hedge.take_if(|attempt| attempt.id == id)?;
        Some((hedge, true))
    }
}
