//! Reads: the first request of most goes out without more ado; what it does not settle, and reads
//! that cannot begin so, walk down the ladder.

use std::{
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use zerocache_core::{
    key::Key,
    node::CallFailure,
    route::{Budget, Step, Walk},
    wire::{Request, Response},
};
use zerocache_net::{
    clock,
    transport::{Short, What},
};

use super::{
    engine::{Asked, Engine, Entry, is_invalid},
    first::{Ended, Sent},
};
use crate::Error;

/// What came of the first request of a read.
pub(super) enum First {
    /// A value.
    Found(Entry),
    /// Anything else: the read goes on.
    GoOn(Ended),
}

/// What the nodes asked so far said of a key.
#[derive(Default)]
struct Tried {
    missed: bool,
    timed_out: bool,
}

impl Engine {
    /// Sends the first request of a read of `key`, if there is a node and a connection for it.
    pub(super) fn begin_read(&self, key: &[u8], total_ms: u64, waker: &Waker) -> Option<Sent> {
        let started = clock::elapsed();
        let now = clock::instant(started);
        let first = self.own_write(key, now);
        let (step, turn) = self.directory.lock().begin_read(now, first)?;
        let budget = Budget::new(now, total_ms);
        let timeout_ms = budget.clip(now, self.config.bounds.of(step.tier))?;
        let node = (step.node, step.address);
        let short = Short { node, what: What::Get, seen: 0, key, now, timeout_ms, waker };
        let Some(call) = self.transport.try_short(&short) else {
            self.directory.lock().not_sent(step.node, turn, now);
            return None;
        };
        let asked = Asked { step, timeout_ms, started, expect_soon: true };
        Some(Sent { call, asked, turn, budget })
    }

    /// Nobody waits any more for a read whose first request is under way: that its answer is not
    /// awaited says nothing of the node.
    pub(super) fn give_up_read(&self, reading: &Sent) {
        let Asked { step, started, .. } = reading.asked;
        self.directory.lock().given_up(step.node, reading.turn, clock::instant(started));
    }

    /// What has come of the first request of a read.
    pub(super) fn poll_read(&self, reading: &mut Sent, context: &mut Context<'_>) -> Poll<First> {
        let first = ready!(reading.poll(context));
        let asked = first.asked;
        let Ended { result: Ok(Response::Found { value, version, remaining_ms, .. }), .. } = first
        else {
            return Poll::Ready(First::GoOn(first));
        };
        let ended = clock::elapsed();
        let elapsed_us = ended.saturating_sub(asked.started).as_micros() as u64;
        let Step { node, tier, .. } = asked.step;
        self.directory.lock().answered_with_hit(node, clock::instant(ended), elapsed_us);
        self.counters.hit(tier);
        self.note_seen(version);
        let ttl = Duration::from_millis(remaining_ms);
        Poll::Ready(First::Found(Entry { value, version, ttl, node, tier }))
    }

    /// Goes on with a read after its first request.
    pub(super) async fn go_on(&self, key: Key, begun: Ended) -> Result<Option<Entry>, Error> {
        let Ended { asked, result, turn, budget } = begun;
        let result = self.note(&asked, result);
        let plan = self.directory.lock().go_on(turn, clock::mono());
        let mut walk = Walk::new(plan, self.config.bounds, budget);
        walk.skip(&asked.step);
        let mut tried = Tried::default();
        match self.judge(&mut walk, &asked.step, result, &mut tried) {
            Some(settled) => settled,
            None => self.walk(walk, key, tried).await,
        }
    }

    /// Reads a key within `total_ms`.
    pub(super) async fn get(&self, key: Key, total_ms: u64) -> Result<Option<Entry>, Error> {
        let budget = Budget::new(clock::mono(), total_ms);
        self.some_node(budget).await;
        let now = clock::mono();
        let first = self.own_write(key.as_bytes(), now);
        let plan = self.directory.lock().plan(now, first);
        let walk = Walk::new(plan, self.config.bounds, budget);
        self.walk(walk, key, Tried::default()).await
    }

    async fn walk(
        &self,
        mut walk: Walk,
        key: Key,
        mut tried: Tried,
    ) -> Result<Option<Entry>, Error> {
        while let Some(attempt) = walk.next_attempt(clock::mono()) {
            let result = self.ask(&attempt, Request::Get { key: key.clone() }, true).await;
            if let Some(settled) = self.judge(&mut walk, &attempt.step, result, &mut tried) {
                return settled;
            }
        }
        if tried.missed {
            self.counters.miss();
            return Ok(None);
        }
        self.counters.unreachable();
        Err(Error::Unreachable { timed_out: tried.timed_out })
    }

    /// The outcome of a read, if what a node said settles it.
    fn judge(
        &self,
        walk: &mut Walk,
        step: &Step,
        result: Result<Response, CallFailure>,
        tried: &mut Tried,
    ) -> Option<Result<Option<Entry>, Error>> {
        match result {
            Ok(Response::Found { value, version, remaining_ms, .. }) => {
                let Step { node, tier, .. } = *step;
                self.counters.hit(tier);
                self.directory.lock().hit(node);
                self.note_seen(version);
                let ttl = Duration::from_millis(remaining_ms);
                return Some(Ok(Some(Entry { value, version, ttl, node, tier })));
            }
            Ok(Response::NotFound { warming }) => {
                tried.missed = true;
                if walk.missed(step, warming) {
                    self.counters.miss();
                    return Some(Ok(None));
                }
            }
            Ok(Response::Refused(refusal)) if is_invalid(refusal.code) => {
                return Some(Err(Error::Refused(refusal.text)));
            }
            Ok(_) => self.counters.error(step.tier),
            Err(failure) => tried.timed_out |= failure == CallFailure::NoAnswer,
        }
        None
    }
}
