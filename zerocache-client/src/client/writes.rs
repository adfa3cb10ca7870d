//! Writes: as reads, the first request goes out at once where it can; what it does not settle goes on
//! along the ladder.

use std::{
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use bytes::Bytes;
use zerocache_core::{
    call::CallFailure,
    key::Key,
    route::{Budget, Step, Walk},
    ttl::Ttl,
    version::Version,
    wire::{Ack, RefusalCode, Request, Response, Status, Written, value_too_large},
};
use zerocache_net::{clock, process::ProcessOwned};

use super::{
    engine::{Asked, Engine, is_invalid},
    fast::FastOp,
    first::{Ended, Sent},
    own_writes::OwnWrite,
    timings::{End, Operation},
};
use crate::Error;

/// A write to be sent, possibly to several nodes in turn.
#[derive(Clone, Debug)]
pub(super) struct WriteRequest {
    pub(super) key: Key,
    /// None for a delete.
    pub(super) value: Option<Stored>,
    pub(super) ack: Ack,
}

/// A value as nodes take it.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub(super) value: Bytes,
    pub(super) metadata: Bytes,
    /// All of its life, in which the times are contained for which it may be served stale.
    pub(super) life: Ttl,
    /// The version with which it is written, from a lease; the node gives one where there is none.
    pub(super) token: Option<Version>,
}

/// What came of the first request of a write.
pub(super) enum First {
    /// The write is settled.
    Written(Written),
    /// It goes on.
    GoOn(Ended),
}

impl WriteRequest {
    pub(super) fn message(&self) -> Request {
        let Self { key, value, ack } = self.clone();
        match value {
            Some(Stored { value, metadata, life, token }) => {
                Request::Put { key, value, metadata, ttl: life, ack, token }
            }
            None => Request::Delete { key, ack },
        }
    }

    /// The refusal that a node would answer with, as far as it has said what it takes.
    pub(super) fn refused_by(&self, step: &Step) -> Option<Error> {
        let bytes = self.value_bytes();
        let is_too_large = bytes > step.value_bytes_max;
        is_too_large.then(|| Error::Refused(value_too_large(bytes, step.value_bytes_max)))
    }

    fn value_bytes(&self) -> u64 {
        self.value.as_ref().map_or(0, |value| value.value.len() as u64)
    }

    /// The fast path has no place for a token.
    fn has_token(&self) -> bool {
        self.value.as_ref().is_some_and(|value| value.token.is_some())
    }

    /// What it counts as among those that are timed.
    fn operation(&self) -> Operation {
        if self.value.is_some() { Operation::Put } else { Operation::Delete }
    }

    /// Waiting for replicas is no sign of a silent node, and may take all the time that there is.
    pub(super) fn is_local(&self) -> bool {
        self.ack == Ack::Local
    }
}

impl Engine {
    /// Sends the first request of a write, if there is a node and a connection for it.
    pub(super) fn begin_write(
        &self,
        request: &WriteRequest,
        total_ms: u64,
        waker: &Waker,
    ) -> Option<Sent> {
        self.near_writing(&request.key);
        let started = clock::elapsed();
        let now = clock::instant(started);
        if request.has_token() {
            return None;
        }
        let expect_soon = request.is_local();
        let (step, turn) = self.directory.lock().begin_write(now, expect_soon)?;
        if request.refused_by(&step).is_some() {
            // It is said on the other way, which has the same turn.
            self.directory.lock().not_sent(step.node, turn, now);
            return None;
        }
        let budget = Budget::new(now, total_ms);
        let bound_ms = if expect_soon { self.config.bounds.of(step.tier) } else { u64::MAX };
        let timeout_ms = budget.clip(now, bound_ms)?;
        let (seen, key, ack) = (self.seen(), &request.key.as_bytes()[..], request.ack);
        let op = match &request.value {
            Some(Stored { value, metadata, life, .. }) => {
                FastOp::Put { seen, key, value, metadata, ttl: *life, ack }
            }
            None => FastOp::Delete { seen, key, ack },
        };
        let Some(call) = self.send_now(&step, &op, (now, timeout_ms), waker) else {
            self.directory.lock().not_sent(step.node, turn, now);
            return None;
        };
        let asked = Asked { step, timeout_ms, started, expect_soon };
        Some(Sent { call: ProcessOwned::new(call), asked, turn, budget })
    }

    /// What has come of the first request of a write.
    pub(super) fn poll_write(
        &self,
        request: &WriteRequest,
        writing: &mut Sent,
        context: &mut Context<'_>,
    ) -> Poll<First> {
        let Ended { asked, result, turn, budget } = ready!(writing.poll(context));
        Poll::Ready(match self.note(&asked, result) {
            Ok(Response::Written(written)) => {
                let written = self.accepted(request, &asked.step, written);
                self.timed_write(request.operation(), &Ok(written), asked.started);
                First::Written(written)
            }
            result => First::GoOn(Ended { asked, result, turn, budget }),
        })
    }

    /// Goes on with a write whose first request is under way.
    pub(super) async fn finish_write(
        &self,
        request: WriteRequest,
        mut writing: Sent,
    ) -> Result<Written, Error> {
        let first =
            std::future::poll_fn(|context| self.poll_write(&request, &mut writing, context));
        match first.await {
            First::Written(written) => Ok(written),
            First::GoOn(begun) => self.go_on_write(request, begun).await,
        }
    }

    /// Goes on with a write after its first request.
    pub(super) async fn go_on_write(
        &self,
        request: WriteRequest,
        begun: Ended,
    ) -> Result<Written, Error> {
        let Ended { asked, result, turn, budget } = begun;
        let plan = self.directory.lock().go_on(turn, clock::mono());
        let mut walk = Walk::new(plan, self.config.bounds, budget);
        walk.skip(&asked.step);
        let (operation, mut refused) = (request.operation(), false);
        let written = match self.judge_write(&request, &asked.step, result, &mut refused) {
            Some(settled) => settled,
            None => self.walk_write(walk, request, refused).await,
        };
        self.timed_write(operation, &written, asked.started);
        written
    }

    /// Writes through the first node that takes it, within `total_ms`.
    pub(super) async fn write(
        &self,
        request: WriteRequest,
        total_ms: u64,
    ) -> Result<Written, Error> {
        self.near_writing(&request.key);
        let (operation, started) = (request.operation(), clock::elapsed());
        let budget = Budget::new(clock::instant(started), total_ms);
        self.some_node(budget).await;
        let plan = self.directory.lock().plan_write(clock::mono());
        let walk = Walk::new(plan, self.config.bounds, budget);
        let written = self.walk_write(walk, request, false).await;
        self.timed_write(operation, &written, started);
        written
    }

    fn timed_write(
        &self,
        operation: Operation,
        written: &Result<Written, Error>,
        started: Duration,
    ) {
        self.timings.ended(operation, End::of_write(written), started);
    }

    async fn walk_write(
        &self,
        mut walk: Walk,
        request: WriteRequest,
        mut refused: bool,
    ) -> Result<Written, Error> {
        if !request.is_local() {
            walk = walk.with_whole_budget();
        }
        while let Some(attempt) = walk.next_attempt(clock::mono()) {
            let step = &attempt.step;
            if let Some(refusal) = self.refused_unsent(&request, step) {
                return Err(refusal);
            }
            let result = self.ask(&attempt, request.message(), request.is_local()).await;
            if let Some(settled) = self.judge_write(&request, step, result, &mut refused) {
                return settled;
            }
        }
        self.end_write(refused)
    }

    /// What a write comes to that no node took.
    pub(super) fn end_write(&self, refused: bool) -> Result<Written, Error> {
        if refused {
            return Ok(self.not_stored(Status::Refused));
        }
        self.counters.unreachable();
        Err(Error::Unreachable { timed_out: false })
    }

    /// The refusal of a write that need not be sent, because the node has said that it takes no value so
    /// large.
    pub(super) fn refused_unsent(&self, request: &WriteRequest, step: &Step) -> Option<Error> {
        let refusal = request.refused_by(step)?;
        self.counters.too_large(false);
        Some(refusal)
    }

    /// The outcome of a write, if what a node said settles it.
    pub(super) fn judge_write(
        &self,
        request: &WriteRequest,
        step: &Step,
        result: Result<Response, CallFailure>,
        refused: &mut bool,
    ) -> Option<Result<Written, Error>> {
        let key = &request.key;
        match result {
            Ok(Response::Written(written)) => Some(Ok(self.accepted(request, step, written))),
            Ok(Response::Refused(refusal)) if is_invalid(refusal.code) => {
                if refusal.code == RefusalCode::TooLarge {
                    self.counters.too_large(true);
                    let (bytes, told) = (request.value_bytes(), refusal.value_bytes_max);
                    self.directory.lock().record_value_limit(step.node, bytes, told, clock::mono());
                }
                Some(Err(Error::Refused(refusal.text)))
            }
            Ok(_) => {
                *refused = true;
                self.counters.error(step.tier);
                None
            }
            Err(CallFailure::Refused | CallFailure::NotSent) => None,
            // It may have arrived: another node would make two writes of one.
            Err(CallFailure::NoAnswer) => {
                self.near_written(key, None);
                Some(Ok(self.not_stored(Status::Unknown)))
            }
        }
    }

    /// A node answered a write: for a while it is asked first for that key, and nothing older is read.
    fn accepted(&self, request: &WriteRequest, step: &Step, written: Written) -> Written {
        let WriteRequest { key, value, .. } = request;
        let (node, version, is_delete) = (step.node, written.version, value.is_none());
        self.note_own_write(key, OwnWrite { node, version, is_delete }, clock::mono());
        if let Some(version) = written.version {
            self.note_seen(version);
        }
        self.near_written(key, written.version);
        self.counters.written(written.status);
        written
    }

    fn not_stored(&self, status: Status) -> Written {
        self.counters.written(status);
        Written { status, replicas: 0, replicas_wanted: 0, version: None }
    }
}
