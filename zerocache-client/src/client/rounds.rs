//! Many keys at once, in rounds: in each, what goes to the same node goes together. Keys whose answer
//! does not settle them walk on by themselves, with the next round.

use std::{collections::BTreeMap, time::Duration};

use futures_util::future::join_all;
use zerocache_core::{
    call::CallFailure,
    key::Key,
    route::{Attempt, Budget, Step, Walk},
    time::Instant,
    version::Incarnation,
    wire::{Request, Response, Written},
};
use zerocache_net::{clock, transport::Call};

use super::{
    engine::{Asked, Engine, Owed},
    entry::Entry,
    near_read::{NearAge, NearRead},
    reads::{Reading, Wants},
    timings::{End, Operation},
    writes::WriteRequest,
};
use crate::Error;

/// Most keys of one call that are under way at once: few enough to leave a node's connection room for
/// others, many enough that a round trip counts for little.
const KEYS_AT_ONCE_MAX: usize = 512;

/// What is done with one of the keys.
pub(super) trait Job {
    /// What comes of it.
    type Output;
    /// Whether it writes.
    const WRITES: bool;

    /// The node to ask before all others.
    fn asked_first(&mut self, engine: &Engine, now: Instant) -> Option<Incarnation>;
    /// Whether a node that says nothing for a while is silent, and not waiting for others.
    fn expect_soon(&self) -> bool;
    /// What is sent.
    fn request(&self) -> Request;
    /// The refusal of a node that need not be asked for it.
    fn refused_unsent(&self, engine: &Engine, step: &Step) -> Option<Error>;
    /// What a node's answer settles.
    fn judge(
        &mut self,
        engine: &Engine,
        walk: &mut Walk,
        step: &Step,
        result: Result<Response, CallFailure>,
    ) -> Option<Result<Self::Output, Error>>;
    /// What it comes to when there is nobody left to ask.
    fn end(&self, engine: &Engine) -> Result<Self::Output, Error>;
}

/// A read of one of the keys, which is not near.
pub(super) struct Asking {
    reading: Reading,
    near: NearRead,
}

impl Job for Asking {
    type Output = Option<Entry>;
    const WRITES: bool = false;

    fn asked_first(&mut self, engine: &Engine, now: Instant) -> Option<Incarnation> {
        let Reading { key, wants, .. } = &mut self.reading;
        engine.asked_first(key.as_bytes(), wants, now)
    }

    fn expect_soon(&self) -> bool {
        true
    }

    fn request(&self) -> Request {
        Request::Get { key: self.reading.key.clone() }
    }

    fn refused_unsent(&self, _: &Engine, _: &Step) -> Option<Error> {
        None
    }

    fn judge(
        &mut self,
        engine: &Engine,
        walk: &mut Walk,
        step: &Step,
        result: Result<Response, CallFailure>,
    ) -> Option<Result<Option<Entry>, Error>> {
        let settled = engine.judge(walk, step, result, &mut self.reading).0;
        if let Some(Ok(Some(entry))) = &settled {
            self.near.keep(&engine.face, self.reading.key.as_bytes(), entry);
        }
        settled
    }

    fn end(&self, engine: &Engine) -> Result<Option<Entry>, Error> {
        engine.end_read(&self.reading)
    }
}

/// A write under way.
pub(super) struct Writing {
    request: WriteRequest,
    refused: bool,
}

impl Job for Writing {
    type Output = Written;
    const WRITES: bool = true;

    fn asked_first(&mut self, _: &Engine, _: Instant) -> Option<Incarnation> {
        None
    }

    fn expect_soon(&self) -> bool {
        self.request.is_local()
    }

    fn request(&self) -> Request {
        self.request.message()
    }

    fn refused_unsent(&self, engine: &Engine, step: &Step) -> Option<Error> {
        engine.refused_unsent(&self.request, step)
    }

    fn judge(
        &mut self,
        engine: &Engine,
        _: &mut Walk,
        step: &Step,
        result: Result<Response, CallFailure>,
    ) -> Option<Result<Written, Error>> {
        engine.judge_write(&self.request, step, result, &mut self.refused)
    }

    fn end(&self, engine: &Engine) -> Result<Written, Error> {
        engine.end_write(self.refused)
    }
}

/// One of the keys, and how far it has come.
struct Pending<J> {
    /// Its place in the answer.
    at: usize,
    job: J,
    walk: Walk,
}

/// A key that was sent to a node.
struct Sent<J> {
    pending: Pending<J>,
    attempt: Attempt,
}

/// The keys that go to one node in a round.
struct Group<J> {
    step: Step,
    timeout_ms: u64,
    members: Vec<Sent<J>>,
}

/// The calls to one node that are under way.
struct Waiting<'a, J> {
    started: Duration,
    owed: Owed<'a>,
    calls: Vec<(Sent<J>, Call)>,
}

/// What comes of each key, in the order of the keys.
pub(super) type Outcomes<T> = Vec<Result<T, Error>>;

/// What came of each: every place is filled by now.
fn settled<T>(outcomes: Vec<Option<Result<T, Error>>>) -> Outcomes<T> {
    let lost = || Err(Error::Unreachable { timed_out: false });
    outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(lost)).collect()
}

impl Engine {
    /// Reads keys within `total_ms`; of what is [`near`](crate::ops::Get::near), if that is wanted, no node is
    /// asked.
    pub(super) async fn get_many(
        &self,
        keys: Vec<Key>,
        wants: Wants,
        near: Option<NearAge>,
        total_ms: u64,
    ) -> Outcomes<Option<Entry>> {
        let mut outcomes = Vec::with_capacity(keys.len());
        let mut jobs = Vec::with_capacity(keys.len());
        for (at, key) in keys.into_iter().enumerate() {
            let mut near = NearRead::new(near);
            let found = near.find(&self.face, key.as_bytes(), wants.at_least);
            if found.is_none() {
                jobs.push((at, Asking { reading: Reading::new(key, wants), near }));
            }
            outcomes.push(found.map(|entry| Ok(Some(entry))));
        }
        self.many(Operation::GetMany, jobs, outcomes, total_ms).await
    }

    /// Writes or deletes keys within `total_ms`.
    pub(super) async fn write_many(
        &self,
        requests: Vec<WriteRequest>,
        total_ms: u64,
    ) -> Outcomes<Written> {
        requests.iter().for_each(|request| self.near_writing(&request.key));
        let deletes = requests.first().is_some_and(|request| request.value.is_none());
        let operation = if deletes { Operation::DeleteMany } else { Operation::PutMany };
        let outcomes = requests.iter().map(|_| None).collect();
        let jobs = requests.into_iter().map(|request| Writing { request, refused: false });
        self.many(operation, jobs.enumerate().collect(), outcomes, total_ms).await
    }

    /// Does the jobs, each of which says the place of its outcome among the others.
    async fn many<J: Job>(
        &self,
        operation: Operation,
        jobs: Vec<(usize, J)>,
        mut outcomes: Vec<Option<Result<J::Output, Error>>>,
        total_ms: u64,
    ) -> Outcomes<J::Output> {
        if jobs.is_empty() {
            return settled(outcomes);
        }
        let started = clock::elapsed();
        let budget = Budget::new(clock::instant(started), total_ms);
        self.some_node(budget).await;
        let mut jobs = jobs.into_iter();
        loop {
            let chunk: Vec<_> = jobs.by_ref().take(KEYS_AT_ONCE_MAX).collect();
            if chunk.is_empty() {
                break;
            }
            let mut pending = self.plan_many(chunk, budget);
            while !pending.is_empty() {
                pending = self.round(pending, &mut outcomes).await;
            }
        }
        let outcomes = settled(outcomes);
        let is_lost =
            |outcome: &Result<_, Error>| matches!(outcome, Err(Error::Unreachable { .. }));
        let end = if outcomes.iter().all(is_lost) { End::Failed } else { End::Answered };
        self.timings.ended(operation, end, started);
        outcomes
    }

    /// One turn for all: what is not asked for elsewhere first goes to one node.
    fn plan_many<J: Job>(&self, mut jobs: Vec<(usize, J)>, budget: Budget) -> Vec<Pending<J>> {
        let now = clock::mono();
        let firsts: Vec<_> = jobs.iter_mut().map(|(_, job)| job.asked_first(self, now)).collect();
        let mut directory = self.directory.lock();
        let turn = directory.take_turn(J::WRITES);
        let plan = |(first, (at, job)): (Option<Incarnation>, (usize, J))| {
            let plan = directory.go_on(turn.with_first(first), now);
            let mut walk = Walk::new(plan, self.config.bounds, budget);
            if !job.expect_soon() {
                walk = walk.with_whole_budget();
            }
            Pending { at, job, walk }
        };
        firsts.into_iter().zip(jobs).map(plan).collect()
    }

    /// Asks the next node for each key. Returns those that are not settled by that.
    async fn round<J: Job>(
        &self,
        pending: Vec<Pending<J>>,
        outcomes: &mut [Option<Result<J::Output, Error>>],
    ) -> Vec<Pending<J>> {
        let mut groups: BTreeMap<Incarnation, Group<J>> = BTreeMap::new();
        let now = clock::mono();
        for mut pending in pending {
            let Some(attempt) = pending.walk.next_attempt(now) else {
                outcomes[pending.at] = Some(pending.job.end(self));
                continue;
            };
            if let Some(refusal) = pending.job.refused_unsent(self, &attempt.step) {
                outcomes[pending.at] = Some(Err(refusal));
                continue;
            }
            let group = groups.entry(attempt.step.node);
            let group = group.or_insert_with(|| Group {
                step: attempt.step,
                timeout_ms: 0,
                members: Vec::new(),
            });
            group.timeout_ms = group.timeout_ms.max(attempt.timeout_ms);
            group.members.push(Sent { pending, attempt });
        }
        // All are sent before any is waited for.
        let sent: Vec<_> = groups.into_values().map(|group| self.send_group(group)).collect();
        let mut unsettled = Vec::new();
        // Each node is heard when it answers, whatever the others do.
        for (pending, settled) in
            join_all(sent.into_iter().map(|waiting| self.hear(waiting))).await.into_iter().flatten()
        {
            match settled {
                Some(settled) => outcomes[pending.at] = Some(settled),
                None => unsettled.push(pending),
            }
        }
        unsettled
    }

    /// What one node says of its keys, and which of them that settles.
    async fn hear<J: Job>(
        &self,
        Waiting { started, mut owed, calls }: Waiting<'_, J>,
    ) -> Vec<(Pending<J>, Option<Result<J::Output, Error>>)> {
        let mut heard = Vec::with_capacity(calls.len());
        for (Sent { mut pending, attempt }, call) in calls {
            let result = call.await;
            owed.settle();
            let Attempt { step, timeout_ms } = attempt;
            // The others' time would be that of waiting for the ones before them.
            let expect_soon = heard.is_empty() && pending.job.expect_soon();
            let asked = Asked { step, timeout_ms, started, expect_soon };
            let result = self.note(&asked, result);
            let settled = pending.job.judge(self, &mut pending.walk, &step, result);
            heard.push((pending, settled));
        }
        heard
    }

    fn send_group<J: Job>(&self, group: Group<J>) -> Waiting<'_, J> {
        let Group { step, timeout_ms, members } = group;
        let started = clock::elapsed();
        let expect_soon = members.iter().all(|member| member.pending.job.expect_soon());
        let owed = self.owed(step.node, expect_soon, clock::instant(started));
        let message = |member: &Sent<J>| {
            self.message(member.pending.job.request(), Some(step.node), timeout_ms)
        };
        let messages = members.iter().map(message).collect();
        let timeout = Duration::from_millis(timeout_ms);
        let calls = self.transport.call_many(step.address, messages, timeout);
        Waiting { started, owed, calls: members.into_iter().zip(calls).collect() }
    }
}
