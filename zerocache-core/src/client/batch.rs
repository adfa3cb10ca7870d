//! An operation on many keys, in rounds: in each round the keys for one node are sent together. Keys that
//! their answers do not complete walk on with the next round.

use alloc::{collections::BTreeMap, vec::Vec};

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
    groups: Vec<Group<K>>,
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
    Send(Vec<BatchRequest>),
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

/// The pending attempts at one node.
#[derive(Debug)]
struct Group<K> {
    /// The attempt of the first key, which stands for all in the directory.
    attempt: PendingAttempt,
    /// The keys whose answers are pending, in the order of their ids.
    keys: Vec<Option<KeyWalk<K>>>,
    is_heard: bool,
}

impl<K> Group<K> {
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
        let Some(mut key) = group.keys[place].take() else { return (None, BatchAction::Wait) };
        // The time of later answers is that of waiting for the ones before them.
        let elapsed_us = (!group.is_heard).then_some(elapsed_us);
        group.is_heard = true;
        let (attempt, is_pending) = (group.attempt, group.is_pending());
        let result = state.end_attempt(&attempt, result, now, elapsed_us);
        if !is_pending {
            self.groups.swap_remove(at);
        }
        if self.is_over {
            return (None, BatchAction::Wait);
        }
        let step = attempt.step;
        let (verdict, result) = key.rules.judge(state, &step, result, now);
        let (output, report) = verdict.conclude(&key.rules, Some(&mut key.walk), step, result);
        match output {
            Some(output) => self.outcomes.push((key.index, output)),
            None if state.is_broken(ClientVariant::BatchKeysDropped) => {}
            None => self.unsettled.push(key),
        }
        let action = match self.groups.is_empty() {
            true => self.next_round(now, state),
            false => BatchAction::Wait,
        };
        (Some(report), action)
    }

    /// Asks the next node for each key that is not complete.
    fn next_round(&mut self, now: Instant, state: &mut ClientState) -> BatchAction<K::Output> {
        loop {
            if self.unsettled.is_empty() {
                self.plan_next_keys(now, state);
            }
            if self.unsettled.is_empty() {
                self.is_over = true;
                return BatchAction::Done(core::mem::take(&mut self.outcomes));
            }
            let requests = self.send_round(now, state);
            if !requests.is_empty() {
                return BatchAction::Send(requests);
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
            let plan = state.directory().plan(ticket, preferred, now);
            let walk = state.walk(&rules, plan, self.budget);
            self.unsettled.push(KeyWalk { index, rules, walk });
        }
    }

    fn send_round(&mut self, now: Instant, state: &mut ClientState) -> Vec<BatchRequest> {
        let mut by_node: BTreeMap<Incarnation, (Attempt, Vec<KeyWalk<K>>)> = BTreeMap::new();
        for mut key in core::mem::take(&mut self.unsettled) {
            let Some(attempt) = key.walk.next_attempt(now) else {
                self.outcomes.push((key.index, key.rules.exhausted()));
                continue;
            };
            if let Some(output) = key.rules.refused_unsent(&attempt.step) {
                self.outcomes.push((key.index, output));
                continue;
            }
            let (group, keys) =
                by_node.entry(attempt.step.node).or_insert_with(|| (attempt, Vec::new()));
            group.timeout_ms = group.timeout_ms.max(attempt.timeout_ms);
            keys.push(key);
        }
        let send = |(attempt, keys): (Attempt, Vec<KeyWalk<K>>)| {
            let id = AttemptId(self.next_id);
            self.next_id += keys.len() as u32;
            let expects_soon = keys.iter().all(|key| key.rules.expects_soon());
            let indexes = keys.iter().map(|key| key.index).collect();
            let pending = state.begin_attempt(id, attempt, expects_soon, now);
            let keys = keys.into_iter().map(Some).collect();
            self.groups.push(Group { attempt: pending, keys, is_heard: false });
            let Attempt { step, timeout_ms } = attempt;
            let request = Outgoing { id, step, timeout_ms, seen: state.seen(), is_hedge: false };
            BatchRequest { request, keys: indexes }
        };
        by_node.into_values().map(send).collect()
    }
}
