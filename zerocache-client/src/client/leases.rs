//! Leases: one process at a time computes the value of a key, and the others wait for it.
//!
//! The node that gives them is chosen by the key alone, so that all processes ask the same one; when it
//! is gone, all ask the next one. One call says everything; whatever else goes wrong with it, the caller
//! computes as if there were no leases.

#[cfg(test)]
mod tests;

use std::{future::Future, time::Duration};

use bytes::Bytes;
use zerocache_core::{
    key::Key,
    metadata::Freshness,
    route::{Attempt, LeaseRange, Step},
    version::{Incarnation, Version},
    wire::{Request, Response},
};
use zerocache_net::{clock, process::Process};

use super::{
    ZerocacheClient,
    engine::Engine,
    entry::{Entry, Found},
    millis, valid,
};
use crate::lease::LeaseScope;

/// How often a caller that waits looks whether the node that it waits for still answers.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// So many nodes are asked for a lease, one after the other, when those before turn out to be gone.
const NODES_ASKED_MAX: usize = 3;

/// The longest wait for another one's value, in milliseconds; a node allows no more.
const WAIT_MS_MAX: u64 = 60_000;

/// What came of asking for a lease.
#[derive(Debug)]
pub(crate) enum Leased {
    /// The caller computes, and nobody else does meanwhile.
    Token(LeaseToken),
    /// There is a fresh value.
    Found(Box<Entry>),
    /// Another one computes, and was not done in time or failed.
    Busy,
    /// There is no node to ask, or it did not answer.
    Unavailable,
}

/// What a caller asks for with a lease.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LeaseTerms {
    /// Whose leases it is one of.
    pub(crate) scope: LeaseScope,
    /// How long the leave lasts, at most 5 min.
    pub(crate) life: Duration,
    /// How long it waits when another one has it, at most 1 min.
    pub(crate) wait: Duration,
    /// Values of up to this version are of no use to it.
    pub(crate) over: Option<Version>,
    /// How long all of it may take; none for the wait and what nodes may take beside.
    pub(crate) deadline: Option<Duration>,
}

/// The leave to compute the value of a key. Dropped, it is given back: whoever waits gets it next.
#[must_use = "a token that is dropped is given back"]
pub(crate) struct LeaseToken {
    client: ZerocacheClient,
    key: Key,
    step: Step,
    version: Version,
    is_held: bool,
    /// A forked child has no share in its parent's leave.
    process: Process,
}

impl LeaseToken {
    /// What the value is written with, at most once: as [`Write::token`](super::Write::token). None in a
    /// process that was forked off meanwhile.
    pub(crate) fn version(&self) -> Option<Version> {
        self.process.is_current().then_some(self.version)
    }

    /// A value was written with it, or may have been: nothing is given back.
    pub(crate) fn spent(mut self) {
        self.is_held = false;
    }

    /// The computation failed: those who wait are told at once.
    pub(crate) fn fail(mut self) {
        self.give_back(true);
    }

    fn give_back(&mut self, failed: bool) {
        if !std::mem::take(&mut self.is_held) || !self.process.is_current() {
            return;
        }
        let (client, step) = (self.client.clone(), self.step);
        let Ok(live) = self.client.live() else { return };
        let request = Request::Release { key: self.key.clone(), token: self.version, failed };
        live.background.spawn(async move {
            if let Ok(live) = client.live() {
                let timeout_ms = live.engine.config.bounds.of(step.tier);
                // A lease that is not given back ends with its time.
                let _done = live.engine.ask(&Attempt { step, timeout_ms }, request, true).await;
            }
        });
    }
}

impl Drop for LeaseToken {
    fn drop(&mut self) {
        self.give_back(false);
    }
}

impl std::fmt::Debug for LeaseToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LeaseToken").field("version", &self.version).finish_non_exhaustive()
    }
}

impl ZerocacheClient {
    /// Asks for the leave to compute the value of `key`; also says which node has answered.
    ///
    /// # Cancellation
    /// A leave that comes when nobody waits any more is given back.
    pub(crate) fn lease(
        &self,
        key: Bytes,
        terms: LeaseTerms,
    ) -> impl Future<Output = (Leased, Option<Incarnation>)> + Send + 'static + use<> {
        let range = match terms.scope {
            LeaseScope::Region => LeaseRange::Region,
            LeaseScope::All => LeaseRange::All,
        };
        let (client, wait_ms) = (self.clone(), millis(terms.wait).min(WAIT_MS_MAX));
        let (life_ms, over) = (millis(terms.life).max(1), terms.over);
        let deadline_ms = terms.deadline.map_or(u64::MAX, millis);
        async move {
            let (Ok(live), Ok(key)) = (client.live(), valid(key)) else {
                return (Leased::Unavailable, None);
            };
            let (started, mut asked) = (clock::mono(), None);
            for _ in 0..NODES_ASKED_MAX {
                let chosen = live.engine.directory.lock().lease_node(key.hash(), range);
                let Some(step) = chosen.filter(|step| asked != Some(step.node)) else { break };
                asked = Some(step.node);
                let elapsed_ms = clock::mono().since_ms(started);
                let wait_ms = wait_ms.saturating_sub(elapsed_ms);
                let most_ms = wait_ms.saturating_add(live.engine.config.bounds.of(step.tier));
                let timeout_ms = most_ms.min(deadline_ms.saturating_sub(elapsed_ms));
                if timeout_ms == 0 {
                    break;
                }
                let (client, key, attempt) =
                    (client.clone(), key.clone(), Attempt { step, timeout_ms });
                let asking = Asking { client, key, attempt, life_ms, wait_ms, over };
                // A leave ends with the connection on which it was asked for. At home that one is in use
                // as long as the client is, and what comes when nobody waits any more is given back.
                let asking = live.background.spawn(asking.ask());
                let answer = tokio::select! {
                    answer = asking => answer.ok().flatten(),
                    () = live.engine.gone(&step) => None,
                };
                if let Some(leased) = answer {
                    return (leased, asked);
                }
            }
            (Leased::Unavailable, None)
        }
    }
}

/// A question for the leave to compute.
struct Asking {
    client: ZerocacheClient,
    key: Key,
    attempt: Attempt,
    life_ms: u64,
    wait_ms: u64,
    over: Option<Version>,
}

impl Asking {
    /// None when the node does not answer.
    async fn ask(self) -> Option<Leased> {
        let Self { client, key, attempt, life_ms, wait_ms, over } = self;
        let live = client.live().ok()?;
        let engine = &live.engine;
        let step = attempt.step;
        let request =
            Request::Lease { key: key.clone(), lease_ms: life_ms, wait_ms, newer_than: over };
        let response = engine.ask(&attempt, request, wait_ms == 0).await.ok()?;
        Some(match response {
            Response::LeaseGranted { token: version } => {
                engine.note_seen(version);
                let process = Process::current();
                Leased::Token(LeaseToken { client, key, step, version, is_held: true, process })
            }
            Response::Found { value, metadata, version, remaining_ms } => {
                engine.note_seen(version);
                let found = Found { value, metadata, version, remaining_ms };
                match Entry::read(&step, found) {
                    Some(entry) if entry.freshness == Freshness::Fresh => {
                        Leased::Found(Box::new(entry))
                    }
                    _ => Leased::Unavailable,
                }
            }
            Response::LeaseHeld => Leased::Busy,
            _ => Leased::Unavailable,
        })
    }
}

impl Engine {
    /// Waits until a node is no longer there, as far as is known.
    async fn gone(&self, step: &Step) {
        let mut looks = {
            // The caller's runtime, if it has one, need not keep time.
            let _home = self.home.enter();
            tokio::time::interval(LOOK_EVERY)
        };
        loop {
            looks.tick().await;
            if !self.directory.lock().is_available(step) {
                return;
            }
        }
    }
}
