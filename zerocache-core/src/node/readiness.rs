//! The readiness of the node: warming, in sync or leaving, and what its reads mean in each state.

use alloc::vec::Vec;

use super::{Effect, Node, PAUSE_MS_MAX, Parts, reads::ReadPolicy, repair::Start};
use crate::{
    store::Backend,
    time::{Instant, Now},
    wire::NodeState,
};

/// A local peer that has not introduced itself after this fraction of the longest warming, as a divisor,
/// cannot reach this node: what it writes arrives by repair. A twelfth is 5 s of the usual minute.
const INTRODUCED_DIVISOR: u64 = 12;

/// For this long after it was drained a node serves its values, in milliseconds: clients have noticed by then.
/// It gets no writes any more, so that later they may be outdated.
const DRAIN_SERVES_MS: u64 = 10_000;

/// The readiness of a node.
#[derive(Debug)]
pub(super) struct Readiness {
    state: NodeState,
    pub(super) started: Instant,
    /// Whether every discovery method has given its first answer.
    pub(super) discovery_complete: bool,
    /// When the node last began to warm.
    pub(super) warm_since: Instant,
    /// When the node last handled an input.
    last_active: Instant,
    pub(super) misses_are_authoritative: bool,
    /// Whether the process was suspended and still lacks what it missed: its values may have been deleted.
    pub(super) was_suspended: bool,
    /// Whether there may be values of an earlier process, of which the others may know more.
    pub(super) is_restored: bool,
    /// When the node was drained, if it is: it is leaving, and does not stop.
    drained: Option<Instant>,
}

impl Readiness {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            state: NodeState::Warming,
            started: now,
            discovery_complete: false,
            warm_since: now,
            last_active: now,
            misses_are_authoritative: false,
            was_suspended: false,
            is_restored: false,
            drained: None,
        }
    }

    /// The state that the node announces.
    pub(super) fn state(&self) -> NodeState {
        self.state
    }

    /// When the node last handled an input.
    pub(super) fn last_active(&self) -> Instant {
        self.last_active
    }

    /// Whether the node is leaving until it is undrained.
    pub(super) fn is_drained(&self) -> bool {
        self.drained.is_some()
    }

    /// What reads of the store may be answered with.
    pub(super) fn read_policy(&self) -> ReadPolicy {
        let drained_ms = self.drained.map_or(0, |at| self.last_active.since_ms(at));
        ReadPolicy {
            misses_are_authoritative: self.misses_are_authoritative,
            values_are_current: !self.was_suspended
                && !self.is_restored
                && drained_ms < DRAIN_SERVES_MS,
        }
    }

    /// Changes the state.
    pub(super) fn set_state(&mut self, state: NodeState, out: &mut Vec<Effect>) {
        self.state = state;
        self.misses_are_authoritative &= state == NodeState::InSync;
        out.push(Effect::State(state));
    }
}

impl<B: Backend> Node<B> {
    /// Notes that an input came. After a long gap the process was suspended: what was sent meanwhile it may
    /// lack.
    pub(super) fn note_active(&mut self, now: Now, out: &mut Vec<Effect>) {
        let last = core::mem::replace(&mut self.local.readiness.last_active, now.mono);
        let gap_ms = now.mono.since_ms(last);
        if gap_ms <= PAUSE_MS_MAX {
            return;
        }
        // The silence of the members was this node's own.
        self.membership.excuse_silence(gap_ms);
        if self.local.is_leaving() {
            return;
        }
        self.local.readiness.was_suspended = true;
        if self.local.readiness.state == NodeState::InSync || self.repair.start().is_done() {
            self.warm_again(now, out);
        }
    }

    /// Has the node warm again: it catches up with what it missed.
    fn warm_again(&mut self, now: Now, out: &mut Vec<Effect>) {
        let Parts { cx, membership, repair, .. } = self.parts(now, out);
        repair.catch_up_again(cx.local, &membership.view, now);
        let readiness = &mut cx.local.readiness;
        readiness.warm_since = now.mono;
        readiness.misses_are_authoritative = false;
        if readiness.state != NodeState::Warming {
            readiness.set_state(NodeState::Warming, cx.out);
        }
        // What the node lacks, it cannot report to followers either.
        cx.replica.feed.lose();
    }

    /// Takes the node out of service, without shutting it down: it is not ready any more, and says goodbye.
    pub(super) fn drain(&mut self, now: Now, out: &mut Vec<Effect>) {
        if !self.local.is_leaving() {
            self.local.readiness.drained = Some(now.mono);
            self.leave(now, out);
        }
    }

    /// Puts a drained node into service again: it warms until it has what it missed.
    pub(super) fn undrain(&mut self, now: Now, out: &mut Vec<Effect>) {
        if self.local.readiness.drained.take().is_none() {
            return;
        }
        let Parts { mut cx, membership, repair, .. } = self.parts(now, out);
        // They were not continued, and what they found is old.
        repair.abort_rounds(cx.local, &membership.view, now);
        membership.return_from_leaving(&mut cx);
        self.warm_again(now, out);
        // It got no writes meanwhile, as a process that was suspended.
        self.local.readiness.was_suspended = true;
    }

    /// Shuts the node down: it is not ready any more, and says goodbye.
    pub(super) fn shut_down(&mut self, now: Now, out: &mut Vec<Effect>) {
        let was_drained = self.local.readiness.drained.take().is_some();
        if was_drained || !self.local.is_leaving() {
            self.leave(now, out);
        }
    }

    fn leave(&mut self, now: Now, out: &mut Vec<Effect>) {
        self.local.readiness.set_state(NodeState::Leaving, out);
        let Parts { mut cx, membership, .. } = self.parts(now, out);
        membership.say_goodbye(&mut cx);
    }

    /// Brings a node that starts closer to being in sync. Returns the moment, by the clock as it is then.
    pub(super) fn update_state(&mut self, now: Now, out: &mut Vec<Effect>) -> Now {
        let state = self.local.readiness.state;
        let is_starting = !self.repair.start().is_done();
        if state == NodeState::Leaving || (state == NodeState::InSync && !is_starting) {
            return now;
        }
        let now = self.set_clock_early(now, out);
        let readiness = &self.local.readiness;
        let ready_at = readiness.warm_since.plus_ms(self.local.config.warm_max_ms);
        // A node that is ready because it took too long continues its start.
        let (now, has_caught_up) = self.continue_start(now, out);
        let is_late = now.mono >= ready_at;
        // The copy is of one peer, which has a part of what this node owns.
        let view = &self.membership.view;
        let is_whole = has_caught_up && self.repair.has_owned(&self.local, view, now.mono);
        if (is_whole || is_late) && self.local.readiness.state == NodeState::Warming {
            self.local.readiness.set_state(NodeState::InSync, out);
        }
        // Values are current from then on. A node whose warming took too long serves what it has, but not what it is
        // still reading.
        if (has_caught_up || is_late) && !self.repair.is_restoring() {
            self.local.readiness.was_suspended = false;
            self.local.readiness.is_restored = false;
        }
        self.repair.judge_misses(&mut self.local, &self.membership.view, now);
        now
    }

    /// Takes the next step of the start. Returns the moment, by the clock as it is then, and whether the
    /// node has caught up.
    fn continue_start(&mut self, now: Now, out: &mut Vec<Effect>) -> (Now, bool) {
        let mut now = now;
        let has_caught_up = match self.repair.start() {
            Start::Joining | Start::NoSource { .. } => {
                if !self.has_joined(now) {
                    return (now, false);
                }
                if self.local.readiness.state == NodeState::Warming {
                    now = self.set_clock(now, out);
                }
                let Parts { mut cx, membership, repair, .. } = self.parts(now, out);
                repair.choose_source(&mut cx, &membership.view);
                let is_done = repair.start().is_done();
                is_done && repair.has_caught_up(cx.local, &membership.view, now.mono)
            }
            Start::Copying(_) | Start::Restoring => false,
            Start::Done { since } => {
                self.repair.has_caught_up(&self.local, &self.membership.view, *since)
            }
        };
        (now, has_caught_up)
    }

    /// Whether the node has talked to all nodes that were found.
    fn has_joined(&self, now: Now) -> bool {
        let (local, view) = (&self.local, &self.membership.view);
        let late_ms = local.config.warm_max_ms / INTRODUCED_DIVISOR;
        let warms_ms = now.mono.since_ms(local.readiness.warm_since);
        let is_late = warms_ms >= late_ms;
        // A node that is lonely by mistake in its configuration answers for a cluster that it does not know.
        let is_refused = view.candidates().is_refused() && warms_ms < local.config.warm_max_ms;
        let mut peers = view.writable_in(local.region());
        let are_introduced = is_late || peers.all(|member| member.has_introduced_itself);
        local.readiness.discovery_complete
            && !is_refused
            && are_introduced
            && !view.candidates().has_fresh()
    }
}
