//! Drives lease requests: one process at a time computes the value of a key, and the others wait for it.
//!
//! A lease ends with the connection on which it was requested. Requests therefore run on the client's
//! runtime, where that connection is in use as long as the client is. Whatever goes wrong, the caller
//! computes as if there were no leases.

#[cfg(test)]
mod tests;

use std::{future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use parking_lot::Mutex;
use zerocache_core::{
    client::{Event, LEASE_CHECK_MS, LeaseAction, LeaseOutcome, LeaseRequest, Outgoing, Release},
    key::Key,
    metadata::Freshness,
    route::{LeaseRange, Step},
    version::{Incarnation, Version},
    wire::Request,
};
use zerocache_net::{clock, process::Process};

use super::{ZerocacheClient, engine::Engine, entry::Entry, millis, valid};
use crate::lease::LeaseScope;

/// The reply to a request for a lease.
#[derive(Debug)]
pub(crate) enum LeaseReply {
    /// The caller computes, and nobody else does meanwhile.
    Token(LeaseToken),
    /// There is a fresh value.
    Found(Box<Entry>),
    /// Another process computes, and was not done in time or failed.
    Busy,
    /// There is no node to ask, or it did not answer.
    Unavailable,
}

/// The terms of a request for a lease.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LeaseTerms {
    /// The processes among which one has the lease.
    pub(crate) scope: LeaseScope,
    /// How long the lease lasts, at most 5 min.
    pub(crate) life: Duration,
    /// How long the caller waits when another process has it, at most 1 min.
    pub(crate) wait: Duration,
    /// Values of up to this version are of no use to the caller.
    pub(crate) over: Option<Version>,
    /// How long all of it may take; none for the wait and the time of the nodes besides.
    pub(crate) deadline: Option<Duration>,
}

/// The lease of a key. Dropped, it is released, and the next process that waits gets it.
#[must_use = "a token that is dropped is released"]
pub(crate) struct LeaseToken {
    client: ZerocacheClient,
    key: Key,
    step: Step,
    version: Version,
    is_held: bool,
    /// A forked child has no share in its parent's lease.
    process: Process,
}

impl LeaseToken {
    /// The version with which the value is written, at most once: as [`Write::token`](super::Write::token).
    /// None in a process that was forked off meanwhile.
    pub(crate) fn version(&self) -> Option<Version> {
        self.process.is_current().then_some(self.version)
    }

    /// A value was written with it, or may have been: nothing is released.
    pub(crate) fn spent(mut self) {
        self.is_held = false;
    }

    /// The computation failed: waiting processes learn it at once.
    pub(crate) fn fail(mut self) {
        self.release(true);
    }

    fn release(&mut self, failed: bool) {
        if !std::mem::take(&mut self.is_held) || !self.process.is_current() {
            return;
        }
        let Ok(live) = self.client.live() else { return };
        let (client, step) = (self.client.clone(), self.step);
        let request = Request::Release { key: self.key.clone(), token: self.version, failed };
        live.background.spawn(async move {
            if let Ok(live) = client.live() {
                live.engine.release(step, request).await;
            }
        });
    }
}

impl Drop for LeaseToken {
    fn drop(&mut self) {
        self.release(false);
    }
}

impl std::fmt::Debug for LeaseToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LeaseToken").field("version", &self.version).finish_non_exhaustive()
    }
}

impl ZerocacheClient {
    /// Requests the lease of `key`, and also returns the node that answered.
    ///
    /// # Cancellation
    /// A lease that is granted when nobody waits any more is released.
    pub(crate) fn lease(
        &self,
        key: Bytes,
        terms: LeaseTerms,
    ) -> impl Future<Output = (LeaseReply, Option<Incarnation>)> + Send + 'static + use<> {
        let client = self.clone();
        let reply = self.run(move |engine| async move {
            let key = valid(key)?;
            let range = match terms.scope {
                LeaseScope::Region => LeaseRange::Region,
                LeaseScope::All => LeaseRange::All,
            };
            let deadline_ms = terms.deadline.map_or(u64::MAX, millis);
            let (wait_ms, now) = (millis(terms.wait), clock::mono());
            let request = LeaseRequest::new(key.hash(), range, wait_ms, deadline_ms, now);
            let request = Arc::new(Mutex::new(request));
            let asking = Asking {
                client,
                request: Arc::clone(&request),
                key,
                life_ms: millis(terms.life).max(1),
                over: terms.over,
            };
            Ok(Driven { engine, request }.run(asking).await)
        });
        // A client that cannot work has no lease, nor has a forked child that continues its parent's request.
        async move { reply.await.unwrap_or((LeaseReply::Unavailable, None)) }
    }
}

/// The caller's side of a lease request. Dropped, it is cancelled.
struct Driven {
    engine: Arc<Engine>,
    request: Arc<Mutex<LeaseRequest>>,
}

impl Driven {
    async fn run(self, asking: Asking) -> (LeaseReply, Option<Incarnation>) {
        let mut checks = {
            let _runtime = self.engine.runtime.enter();
            tokio::time::interval(Duration::from_millis(LEASE_CHECK_MS))
        };
        let (mut action, mut task) = (self.on(Event::Start), None);
        loop {
            if let LeaseAction::Send { request, wait_ms } = action {
                let asked = asking.clone().ask(request, wait_ms);
                task = Some(self.engine.runtime.spawn(asked));
            }
            // Without a request there is no node.
            let Some(answer) = &mut task else { return (LeaseReply::Unavailable, None) };
            action = tokio::select! {
                answer = answer => match answer {
                    Ok(Answer::Over(reply, node)) => return (reply, node),
                    Ok(Answer::Next(next)) => {
                        task = None;
                        next
                    }
                    Err(_) => return (LeaseReply::Unavailable, None),
                },
                _ = checks.tick() => self.on(Event::Timer),
            };
            if matches!(action, LeaseAction::Done(_)) {
                return (LeaseReply::Unavailable, None);
            }
        }
    }

    fn on(&self, event: Event) -> LeaseAction {
        self.request.lock().on(clock::mono(), event, &mut self.engine.state.lock())
    }
}

impl Drop for Driven {
    fn drop(&mut self) {
        self.on(Event::Cancelled);
    }
}

/// A request to one node, which outlives its caller.
#[derive(Clone)]
struct Asking {
    client: ZerocacheClient,
    request: Arc<Mutex<LeaseRequest>>,
    key: Key,
    life_ms: u64,
    over: Option<Version>,
}

/// The answer to a request to one node.
enum Answer {
    /// The lease request is over. A token that nobody takes is released.
    Over(LeaseReply, Option<Incarnation>),
    /// The next action of the lease request.
    Next(LeaseAction),
}

impl Asking {
    async fn ask(self, outgoing: Outgoing, wait_ms: u64) -> Answer {
        let Self { client, request, key, life_ms, over } = self;
        let Ok(live) = client.live() else { return Answer::Over(LeaseReply::Unavailable, None) };
        let engine = &live.engine;
        let message =
            Request::Lease { key: key.clone(), lease_ms: life_ms, wait_ms, newer_than: over };
        let (result, elapsed_us) = engine.ask(&outgoing, message).await;
        let event = Event::Answer { id: outgoing.id, result, elapsed_us };
        let action = request.lock().on(clock::mono(), event, &mut engine.state.lock());
        let outcome = match action {
            LeaseAction::Done(outcome) => outcome,
            LeaseAction::Release(step, token) => {
                engine.release(step, Request::Release { key, token, failed: false }).await;
                return Answer::Next(LeaseAction::Wait);
            }
            next => return Answer::Next(next),
        };
        match outcome {
            LeaseOutcome::Granted(step, version) => {
                let (client, process) = (client.clone(), Process::current());
                let token = LeaseToken { client, key, step, version, is_held: true, process };
                Answer::Over(LeaseReply::Token(token), Some(step.node))
            }
            LeaseOutcome::Found(step, item) => {
                let entry = Entry::unpack(&step, item);
                let fresh = entry.filter(|entry| entry.freshness == Freshness::Fresh);
                let found = fresh.map(|entry| LeaseReply::Found(Box::new(entry)));
                Answer::Over(found.unwrap_or(LeaseReply::Unavailable), Some(step.node))
            }
            LeaseOutcome::Busy(step) => Answer::Over(LeaseReply::Busy, Some(step.node)),
            LeaseOutcome::Refused(step) => Answer::Over(LeaseReply::Unavailable, Some(step.node)),
            LeaseOutcome::Unavailable => Answer::Over(LeaseReply::Unavailable, None),
        }
    }
}

impl Engine {
    /// Releases a lease. One that cannot be released ends with its time.
    async fn release(&self, step: Step, request: Request) {
        let (release, outgoing) = Release::begin(step, clock::mono(), &mut self.state.lock());
        let (result, elapsed_us) = self.ask(&outgoing, request).await;
        release.end(clock::mono(), result, elapsed_us, &mut self.state.lock());
    }
}
