//! Reads: the first request of most goes out without more ado; what it does not settle, and reads
//! that cannot begin so, walk down the ladder.

use std::{
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use zerocache_core::{
    call::CallFailure,
    key::Key,
    metadata::Freshness,
    route::{Attempt, Budget, Step, Walk},
    time::Instant,
    version::{Incarnation, Version},
    wire::{Request, Response},
};
use zerocache_net::{clock, process::ProcessOwned};

use super::{
    engine::{Asked, Engine, is_invalid},
    entry::{Entry, Found},
    fast::FastOp,
    first::{Ended, Sent},
    own_writes::OwnWrite,
    report::{AttemptOutcome, ExplainedGet, ReadAttempt, ReadOutcome, ReadReport},
    timings::{End, Operation},
};
use crate::Error;

/// Which answers a caller takes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wants {
    /// Values past their fresh time too.
    pub(super) stale: bool,
    /// None that is older than this.
    pub(super) at_least: Option<Version>,
    /// None that is older than what this client wrote a moment ago.
    pub(super) own: Option<OwnWrite>,
}

impl Wants {
    fn takes(&self, version: Version) -> bool {
        let written = self.own.and_then(|own| own.version);
        self.at_least.max(written).is_none_or(|least| version >= least)
    }

    /// Whether the node's having nothing says that there is nothing: one that is to have a version
    /// may not have got it yet, unless it gave the version itself or the client deleted the key.
    fn believes(&self, node: Incarnation) -> bool {
        self.at_least.is_none_or(|least| least.incarnation() == node)
            && self.own.is_none_or(|own| own.is_delete || own.node == node)
    }
}

/// What came of the first request of a read.
pub(super) enum First {
    /// What the read gives.
    Settled(Result<Option<Entry>, Error>),
    /// Anything else: the read goes on.
    GoOn(Ended),
}

/// A read under way.
pub(super) struct Reading {
    pub(super) key: Key,
    pub(super) wants: Wants,
    missed: bool,
    timed_out: bool,
    /// What each node said, if the caller wants to know.
    trail: Option<Vec<ReadAttempt>>,
}

impl Reading {
    pub(super) fn new(key: Key, wants: Wants) -> Self {
        Self { key, wants, missed: false, timed_out: false, trail: None }
    }
}

/// What a node's answer settles: the outcome of the read, if it does.
pub(super) type Settled = Option<Result<Option<Entry>, Error>>;

impl Engine {
    /// Sends the first request of a read of `key`, if there is a node and a connection for it.
    pub(super) fn begin_read(
        &self,
        key: &[u8],
        wants: &mut Wants,
        total_ms: u64,
        waker: &Waker,
    ) -> Option<Sent> {
        let started = clock::elapsed();
        let now = clock::instant(started);
        let first = self.asked_first(key, wants, now);
        let (step, turn) = self.directory.lock().begin_read(now, first)?;
        let budget = Budget::new(now, total_ms);
        let timeout_ms = budget.clip(now, self.config.bounds.of(step.tier))?;
        let op = FastOp::Get { key };
        let Some(call) = self.send_now(&step, &op, (now, timeout_ms), waker) else {
            self.directory.lock().not_sent(step.node, turn, now);
            return None;
        };
        let asked = Asked { step, timeout_ms, started, expect_soon: true };
        Some(Sent { call: ProcessOwned::new(call), asked, turn, budget })
    }

    /// The node to ask before all others: the one that gave the version which is asked for, or the
    /// one that accepted this client's last write of the key, which the read is to see.
    pub(super) fn asked_first(
        &self,
        key: &[u8],
        wants: &mut Wants,
        now: Instant,
    ) -> Option<Incarnation> {
        wants.own = self.own_write(key, now);
        let given = wants.at_least.map(|version| version.incarnation());
        given.or_else(|| wants.own.map(|own| own.node))
    }

    /// Nobody waits any more for a read whose first request is under way: that its answer is not
    /// awaited says nothing of the node.
    pub(super) fn give_up_read(&self, reading: &Sent) {
        let Asked { step, started, .. } = reading.asked;
        self.directory.lock().given_up(step.node, reading.turn, clock::instant(started));
    }

    /// What has come of the first request of a read.
    pub(super) fn poll_read(
        &self,
        reading: &mut Sent,
        wants: &Wants,
        context: &mut Context<'_>,
    ) -> Poll<First> {
        let Ended { asked, result, turn, budget } = ready!(reading.poll(context));
        let found = match result {
            Ok(Response::Found { value, metadata, version, remaining_ms })
                if wants.takes(version) =>
            {
                Found { value, metadata, version, remaining_ms }
            }
            result => return Poll::Ready(First::GoOn(Ended { asked, result, turn, budget })),
        };
        let ended = clock::elapsed();
        let elapsed_us = ended.saturating_sub(asked.started).as_micros() as u64;
        let (step, now) = (&asked.step, clock::instant(ended));
        {
            let mut directory = self.directory.lock();
            directory.record_answer(step.node, now, Some(elapsed_us));
            directory.record_hit(step.node);
        }
        let read = Ok(self.taken(wants, step, found).0);
        self.timings.took(Operation::Get, End::of_read(&read), ended.saturating_sub(asked.started));
        Poll::Ready(First::Settled(read))
    }

    /// Goes on with a read after its first request.
    pub(super) async fn go_on(
        &self,
        mut reading: Reading,
        begun: Ended,
    ) -> Result<Option<Entry>, Error> {
        let Ended { asked, result, turn, budget } = begun;
        let result = self.note(&asked, result);
        let plan = self.directory.lock().go_on(turn, clock::mono());
        let mut walk = Walk::new(plan, self.config.bounds, budget);
        walk.skip(&asked.step);
        let read = match self.judge(&mut walk, &asked.step, result, &mut reading).0 {
            Some(settled) => settled,
            None => self.walk(walk, &mut reading).await,
        };
        self.timings.ended(Operation::Get, End::of_read(&read), asked.started);
        read
    }

    /// Reads a key within `total_ms`.
    pub(super) async fn get(
        &self,
        mut reading: Reading,
        total_ms: u64,
    ) -> Result<Option<Entry>, Error> {
        let started = clock::elapsed();
        let budget = Budget::new(clock::instant(started), total_ms);
        self.some_node(budget).await;
        let now = clock::mono();
        let first = self.asked_first(reading.key.as_bytes(), &mut reading.wants, now);
        let plan = self.directory.lock().plan_read(now, first);
        let mut walk = Walk::new(plan, self.config.bounds, budget);
        let settled = match &self.hedge {
            Some(hedge) => self.ask_hedged(hedge, &mut walk, &mut reading).await,
            None => None,
        };
        let read = match settled {
            Some(settled) => settled,
            None => self.walk(walk, &mut reading).await,
        };
        self.timings.ended(Operation::Get, End::of_read(&read), started);
        read
    }

    /// Reads a key within `total_ms`, and tells how.
    pub(super) async fn explain(&self, key: Key, mut wants: Wants, total_ms: u64) -> ExplainedGet {
        let started = clock::elapsed();
        let budget = Budget::new(clock::mono(), total_ms);
        self.some_node(budget).await;
        let now = clock::mono();
        let first = self.asked_first(key.as_bytes(), &mut wants, now);
        let plan = self.directory.lock().plan_read(now, first);
        let walk = Walk::new(plan, self.config.bounds, budget);
        let mut reading = Reading { trail: Some(Vec::new()), ..Reading::new(key, wants) };
        let result = self.walk(walk, &mut reading).await;
        let outcome = match &result {
            Ok(Some(entry)) if entry.freshness == Freshness::Fresh => ReadOutcome::Hit,
            Ok(Some(_)) => ReadOutcome::Stale,
            Ok(None) => ReadOutcome::Miss,
            Err(_) => ReadOutcome::Failed,
        };
        let attempts = reading.trail.unwrap_or_default();
        let total = clock::elapsed().saturating_sub(started);
        ExplainedGet { result, report: ReadReport { outcome, attempts, total } }
    }

    async fn walk(&self, mut walk: Walk, reading: &mut Reading) -> Result<Option<Entry>, Error> {
        while let Some(attempt) = walk.next_attempt(clock::mono()) {
            let started = clock::elapsed();
            let request = Request::Get { key: reading.key.clone() };
            let result = self.ask(&attempt, request, true).await;
            let (settled, said) = self.judge(&mut walk, &attempt.step, result, reading);
            tracing::debug!(tier = attempt.step.tier.as_str(), node = %attempt.step.node, %said, "asked");
            self.trace(reading, &attempt, started, said);
            if let Some(settled) = settled {
                return settled;
            }
        }
        self.end_read(reading)
    }

    /// What a read comes to when there is nobody left to ask.
    pub(super) fn end_read(&self, reading: &Reading) -> Result<Option<Entry>, Error> {
        if reading.missed {
            self.counters.miss();
            return Ok(None);
        }
        self.counters.unreachable();
        Err(Error::Unreachable { timed_out: reading.timed_out })
    }

    fn trace(
        &self,
        reading: &mut Reading,
        attempt: &Attempt,
        started: Duration,
        said: AttemptOutcome,
    ) {
        let Some(trail) = &mut reading.trail else { return };
        let Step { tier, node, address, .. } = attempt.step;
        let known = self.directory.lock().node(node).map(|known| known.info.region.clone());
        let (region, elapsed) = (known.unwrap_or_default(), clock::elapsed());
        let elapsed = elapsed.saturating_sub(started);
        trail.push(ReadAttempt { tier, region, node, address, elapsed, outcome: said });
    }

    /// What a node's answer means for a read, and what it said.
    pub(super) fn judge(
        &self,
        walk: &mut Walk,
        step: &Step,
        result: Result<Response, CallFailure>,
        reading: &mut Reading,
    ) -> (Settled, AttemptOutcome) {
        match result {
            Ok(Response::Found { value, metadata, version, remaining_ms }) => {
                if !reading.wants.takes(version) {
                    self.note_seen(version);
                    reading.missed = true;
                    return (None, AttemptOutcome::OlderVersion);
                }
                self.directory.lock().record_hit(step.node);
                let found = Found { value, metadata, version, remaining_ms };
                let (entry, said) = self.taken(&reading.wants, step, found);
                (Some(Ok(entry)), said)
            }
            Ok(Response::NotFound { warming }) => {
                reading.missed = true;
                let is_final = walk.missed(step, warming) && reading.wants.believes(step.node);
                if is_final {
                    self.counters.miss();
                }
                (
                    is_final.then_some(Ok(None)),
                    AttemptOutcome::NotFound { is_authoritative: is_final },
                )
            }
            Ok(Response::Refused(refusal)) if is_invalid(refusal.code) => (
                Some(Err(Error::Refused(refusal.text.clone()))),
                AttemptOutcome::Refused(refusal.text),
            ),
            Ok(response) => {
                self.counters.error(step.tier);
                let Response::Refused(refusal) = response else {
                    return (None, AttemptOutcome::Unreachable);
                };
                (None, AttemptOutcome::Refused(refusal.text))
            }
            Err(CallFailure::NoAnswer) => {
                reading.timed_out = true;
                (None, AttemptOutcome::NoAnswer)
            }
            Err(CallFailure::Refused | CallFailure::NotSent) => (None, AttemptOutcome::Unreachable),
        }
    }

    /// The entry that a node found, if it may be used as it is, and what to call that. Counted.
    pub(super) fn taken(
        &self,
        wants: &Wants,
        step: &Step,
        found: Found,
    ) -> (Option<Entry>, AttemptOutcome) {
        self.note_seen(found.version);
        let Some(entry) = Entry::read(step, found) else {
            self.counters.unreadable();
            return (None, AttemptOutcome::Unreadable);
        };
        if entry.freshness == Freshness::Fresh {
            self.counters.hit(step.tier);
            return (Some(entry), AttemptOutcome::Found);
        }
        self.counters.stale(step.tier, wants.stale);
        (wants.stale.then_some(entry), AttemptOutcome::Stale { accepted: wants.stale })
    }
}
