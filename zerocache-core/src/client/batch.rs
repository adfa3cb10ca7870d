//! An operation on many keys, in rounds: in each round the keys for one node are sent together. Keys that
//! their answers do not complete walk on with the next round. Reads whose first node is late are hedged: the same
//! keys are asked of the next one beside it.

use alloc::{collections::BTreeMap, vec::Vec};
use core::time::Duration;

use super::{
    AttemptId, AttemptReport, ClientState, ClientVariant, Event, KeyRules, Outgoing, PendingAttempt,
};
use crate::{
    call::CallResult,
    route::{Attempt, Budget, Walk},
    time::Instant,
    version::Incarnation,
};

/// Most keys of one call that are pending at once: few enough to leave a node's connection room for others,
/// many enough that a round trip counts for little.
const KEYS_PENDING_MAX: usize = 512;

/// An operation on many keys.
#[derive(Debug)]
pub struct Batch<K: KeyRules> {
    budget: Budget,
    /// The keys that have not begun, last first, each with its index.
    waiting: Vec<(usize, K)>,
    /// The keys of the next round.
    unsettled: Vec<KeyWalk<K>>,
    /// The keys of this round, and how many of them are not complete yet.
    asked: Vec<Option<RoundKey<K>>>,
    incomplete: usize,
    groups: Vec<Group>,
    outcomes: Vec<(usize, K::Output)>,
    next_id: u32,
    is_begun: bool,
    is_over: bool,
}

/// The requests for one node, which leave together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchRequest {
    /// The request for the first key. The attempt of each further key has the next id.
    pub request: Outgoing,
    /// The indexes of the keys.
    pub keys: Vec<usize>,
}

/// The result of an event.
#[derive(Debug)]
pub struct BatchReaction<T> {
    /// The attempt that the event ended, for counters.
    pub ended: Option<AttemptReport>,
    /// What to do next.
    pub action: BatchAction<T>,
}

/// What the driver of a [`Batch`] does next.
#[derive(Debug)]
pub enum BatchAction<T> {
    /// Wait for the answers that are pending.
    Wait,
    /// Send these requests before waiting for an answer to any of them.
    Send {
        /// The requests.
        requests: Vec<BatchRequest>,
        /// Deliver [`Event::Timer`] after this long, in microseconds, unless all answers have come.
        timer_us: Option<u64>,
    },
    /// No node is known yet: deliver [`Event::ViewChanged`] when the directory may have changed, and
    /// [`Event::Timer`] at `until`.
    AwaitNodes {
        /// The end of the wait.
        until: Instant,
    },
    /// The operation is over, with one outcome for each index.
    Done(Vec<(usize, T)>),
}

/// A key, and how far it has come.
#[derive(Debug)]
struct KeyWalk<K> {
    index: usize,
    rules: K,
    walk: Walk,
}

/// A key of the present round.
#[derive(Debug)]
struct RoundKey<K> {
    key: KeyWalk<K>,
    /// The attempts whose answers have not come: two if it is hedged.
    attempts: u8,
}

/// The pending attempts at one node.
#[derive(Clone, Debug)]
struct Group {
    /// The attempt of the first key, which stands for all in the directory.
    attempt: PendingAttempt,
    /// The places of the keys in the round whose answers are pending, in the order of their ids.
    keys: Vec<Option<usize>>,
    sent: Instant,
    role: Role,
    is_heard: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// The first node for its keys, which may be hedged when the timer ends.
    First {
        may_be_late: bool,
    },
    Hedge,
    Later,
    /// Its round is over: its answers feed the directory alone.
    Abandoned,
}

impl Group {
    fn is_pending(&self) -> bool {
        self.keys.iter().any(Option::is_some)
    }

    fn place(&self, id: AttemptId) -> Option<usize> {
        let place = id.0.checked_sub(self.attempt.id.0)? as usize;
        (place < self.keys.len()).then_some(place)
    }
}

impl<K: KeyRules> Batch<K> {
    /// An operation on `keys`, each with its index, that begins at `now` and takes at most `total_ms`.
    #[must_use]
    pub fn new(keys: Vec<(usize, K)>, now: Instant, total_ms: u64) -> Self {
        let (count, mut waiting) = (keys.len(), keys);
        waiting.reverse();
        Self {
            budget: Budget::new(now, total_ms),
            waiting,
            unsettled: Vec::new(),
            asked: Vec::new(),
            incomplete: 0,
            groups: Vec::new(),
            outcomes: Vec::with_capacity(count),
            next_id: 0,
            is_begun: false,
            is_over: false,
        }
    }

    /// Handles an event at `now`.
    pub fn on(
        &mut self,
        now: Instant,
        event: Event,
        state: &mut ClientState,
    ) -> BatchReaction<K::Output> {
        let (ended, action) = match event {
            Event::Answer { id, result, elapsed_us } => {
                self.answered(now, id, result, elapsed_us, state)
            }
            Event::Cancelled => {
                self.is_over = true;
                self.groups.iter_mut().for_each(|group| state.abandon(&mut group.attempt));
                (None, BatchAction::Wait)
            }
            Event::Timer if self.is_begun && !self.is_over => (None, self.hedge(now, state)),
            Event::Start | Event::Timer | Event::ViewChanged if self.is_begun || self.is_over => {
                (None, BatchAction::Wait)
            }
            Event::Start | Event::Timer | Event::ViewChanged => (None, self.begin(now, state)),
        };
        BatchReaction { ended, action }
    }

    fn begin(&mut self, now: Instant, state: &mut ClientState) -> BatchAction<K::Output> {
        if let Some(until) = state.await_nodes(now, self.budget) {
            return BatchAction::AwaitNodes { until };
        }
        self.is_begun = true;
        self.next_round(now, state)
    }

    fn answered(
        &mut self,
        now: Instant,
        id: AttemptId,
        result: CallResult,
        elapsed_us: u64,
        state: &mut ClientState,
    ) -> (Option<AttemptReport>, BatchAction<K::Output>) {
        let mut groups = self.groups.iter().enumerate();
        let found = groups.find_map(|(at, group)| Some((at, group.place(id)?)));
        let Some((at, place)) = found else { return (None, BatchAction::Wait) };
        let group = &mut self.groups[at];
        let Some(slot) = group.keys[place].take() else { return (None, BatchAction::Wait) };
        // The time of later answers is that of waiting for the ones before them.
        let heard_us = (!group.is_heard).then_some(elapsed_us);
        group.is_heard = true;
        let (attempt, role, is_pending) = (group.attempt, group.role, group.is_pending());
        let count = group.keys.len();
        let result = state.end_attempt(&attempt, result, now, heard_us);
        if !is_pending {
            self.groups.swap_remove(at);
            if matches!(role, Role::First { .. } | Role::Hedge) {
                let time = Duration::from_micros(elapsed_us);
                state.record_latency::<K>(attempt.step.node, count, time);
            }
        }
        if self.is_over || role == Role::Abandoned {
            return (None, BatchAction::Wait);
        }
        // It may be complete by the other answer.
        let Some(RoundKey { mut key, attempts }) = self.asked[slot].take() else {
            return (None, BatchAction::Wait);
        };
        let step = attempt.step;
        let (verdict, result) = key.rules.judge(state, &step, result, now);
        let (output, mut report) = verdict.conclude(&key.rules, Some(&mut key.walk), step, result);
        report.is_hedge_win = role == Role::Hedge && output.is_some() && attempts > 1;
        match output {
            Some(output) => self.outcomes.push((key.index, output)),
            None if attempts > 1 => {
                self.asked[slot] = Some(RoundKey { key, attempts: attempts - 1 });
                return (Some(report), BatchAction::Wait);
            }
            None if state.is_broken(ClientVariant::BatchKeysDropped) => {}
            None => self.unsettled.push(key),
        }
        self.incomplete -= 1;
        let action = match self.incomplete {
            0 => self.next_round(now, state),
            _ => BatchAction::Wait,
        };
        (Some(report), action)
    }

    /// Asks further nodes for the keys of those that are late, if the share permits it.
    fn hedge(&mut self, now: Instant, state: &mut ClientState) -> BatchAction<K::Output> {
        let mut by_node = ByNode::new();
        for group in &mut self.groups {
            if group.role != (Role::First { may_be_late: true }) || group.is_heard {
                continue;
            }
            group.role = Role::First { may_be_late: false };
            if !state.may_hedge(group.keys.len()) {
                continue;
            }
            for slot in group.keys.iter().flatten() {
                let Some(asked) = &mut self.asked[*slot] else { continue };
                if let Some(attempt) = asked.key.walk.next_attempt(now) {
                    asked.attempts += 1;
                    by_node.add(attempt, *slot);
                }
            }
        }
        let mut requests = Vec::new();
        for (attempt, slots) in by_node.into_groups() {
            let mut request = self.ask((attempt, slots), Role::Hedge, now, state);
            request.request.is_hedge = true;
            requests.push(request);
        }
        match requests.is_empty() {
            true => BatchAction::Wait,
            false => BatchAction::Send { requests, timer_us: None },
        }
    }

    /// Ends a round. Answers that come later feed the directory.
    fn end_round(&mut self, now: Instant, state: &mut ClientState) {
        for group in self.groups.iter_mut().filter(|group| group.role != Role::Abandoned) {
            if matches!(group.role, Role::First { .. }) {
                // It takes longer than this.
                let passed = Duration::from_millis(now.since_ms(group.sent));
                state.record_latency::<K>(group.attempt.step.node, group.keys.len(), passed);
            }
            group.role = Role::Abandoned;
            state.abandon(&mut group.attempt);
        }
        self.asked.clear();
    }

    /// Asks the next node for each key that is not complete.
    fn next_round(&mut self, now: Instant, state: &mut ClientState) -> BatchAction<K::Output> {
        self.end_round(now, state);
        loop {
            let is_first = self.unsettled.is_empty();
            if is_first {
                self.plan_next_keys(now, state);
            }
            if self.unsettled.is_empty() {
                self.is_over = true;
                return BatchAction::Done(core::mem::take(&mut self.outcomes));
            }
            let (requests, timer_us) = self.send_round(is_first, now, state);
            if !requests.is_empty() {
                return BatchAction::Send { requests, timer_us };
            }
        }
    }

    /// One place in the rotation for all: keys that prefer no node go to the same one.
    fn plan_next_keys(&mut self, now: Instant, state: &mut ClientState) {
        let first = self.waiting.len().saturating_sub(KEYS_PENDING_MAX);
        if self.waiting.is_empty() {
            return;
        }
        let ticket = state.directory_mut().take_ticket(K::IS_WRITE);
        for (index, mut rules) in self.waiting.drain(first..).rev() {
            let preferred = rules.preferred(state, now);
            let plan = state.directory().plan((ticket, rules.key()), preferred, now);
            let walk = state.walk(&rules, plan, self.budget);
            self.unsettled.push(KeyWalk { index, rules, walk });
        }
    }

    /// Returns the requests, and after how many microseconds their nodes are late.
    fn send_round(
        &mut self,
        is_first: bool,
        now: Instant,
        state: &mut ClientState,
    ) -> (Vec<BatchRequest>, Option<u64>) {
        let mut by_node = ByNode::new();
        for mut key in core::mem::take(&mut self.unsettled) {
            let Some(attempt) = key.walk.next_attempt(now) else {
                self.outcomes.push((key.index, key.rules.exhausted()));
                continue;
            };
            if let Some(output) = key.rules.refused_unsent(&attempt.step) {
                self.outcomes.push((key.index, output));
                continue;
            }
            by_node.add(attempt, self.asked.len());
            self.asked.push(Some(RoundKey { key, attempts: 1 }));
        }
        self.incomplete = self.asked.len();
        let (mut requests, mut timer_us) = (Vec::new(), None);
        for (attempt, slots) in by_node.into_groups() {
            let mut role = Role::Later;
            if is_first {
                let late_us = state.late_us::<K>(attempt.step.node, slots.len());
                timer_us = timer_us.max(late_us);
                role = Role::First { may_be_late: late_us.is_some() };
            }
            requests.push(self.ask((attempt, slots), role, now, state));
        }
        (requests, timer_us)
    }

    /// Asks a node for the keys at these places of the round.
    fn ask(
        &mut self,
        (attempt, slots): (Attempt, Vec<usize>),
        role: Role,
        now: Instant,
        state: &mut ClientState,
    ) -> BatchRequest {
        let id = AttemptId(self.next_id);
        self.next_id += slots.len() as u32;
        let asked = || slots.iter().filter_map(|slot| self.asked[*slot].as_ref());
        let expects_soon = asked().all(|asked| asked.key.rules.expects_soon());
        let indexes = asked().map(|asked| asked.key.index).collect();
        let pending = state.begin_attempt(id, attempt, expects_soon, now);
        let keys = slots.into_iter().map(Some).collect();
        self.groups.push(Group { attempt: pending, keys, sent: now, role, is_heard: false });
        let Attempt { step, timeout_ms } = attempt;
        let request = Outgoing { id, step, timeout_ms, seen: state.seen(), is_hedge: false };
        BatchRequest { request, keys: indexes }
    }
}

/// The keys for each node, with the longest of their timeouts.
struct ByNode(BTreeMap<Incarnation, (Attempt, Vec<usize>)>);

impl ByNode {
    const fn new() -> Self {
        Self(BTreeMap::new())
    }

    fn add(&mut self, attempt: Attempt, slot: usize) {
        let (group, slots) =
            self.0.entry(attempt.step.node).or_insert_with(|| (attempt, Vec::new()));
        group.timeout_ms = group.timeout_ms.max(attempt.timeout_ms);
        slots.push(slot);
    }

    fn into_groups(self) -> impl Iterator<Item = (Attempt, Vec<usize>)> {
        self.0.into_values()
    }
}
