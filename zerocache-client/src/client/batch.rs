//! Drives the batches of `zerocache_core::client`: all requests of a round are sent before any answer is
//! waited for, and each node is heard when it answers.

use std::time::Duration;

use futures_util::{StreamExt, stream::FuturesUnordered};
use zerocache_core::{
    call::CallResult,
    client::{
        AttemptId, Batch, BatchAction, BatchReaction, BatchRequest, Event, KeyRules, Outgoing,
    },
    wire::Request,
};
use zerocache_net::{clock, transport::Call};

use super::engine::{Engine, micros_since};
use crate::{Error, wait::or_forever};

/// The outcome of each key, in the order of the keys.
pub(super) type Outcomes<T> = Vec<Result<T, Error>>;

/// The answers of one node, in the order of its requests.
type Answers = Vec<(AttemptId, CallResult, u64)>;

/// A batch in the hands of a driver. Dropped before its end, its answers are given up.
struct Driven<'a, K: KeyRules> {
    engine: &'a Engine,
    batch: Batch<K>,
    is_over: bool,
}

impl<K: KeyRules> Driven<'_, K> {
    /// Handles an event that sends no second round.
    fn on(&mut self, event: Event) -> BatchReaction<K::Output> {
        let reaction = self.batch.on(clock::mono(), event, &mut self.engine.state.lock());
        if let Some(report) = &reaction.ended {
            self.engine.count_attempt(report);
        }
        reaction
    }

    /// Handles the answers of one node. One of them at most ends a round, and those after it change nothing.
    fn heard(&mut self, answers: Answers) -> BatchAction<K::Output> {
        let mut action = BatchAction::Wait;
        for (id, result, elapsed_us) in answers {
            match self.on(Event::Answer { id, result, elapsed_us }).action {
                BatchAction::Wait => {}
                next => action = next,
            }
        }
        action
    }
}

impl<K: KeyRules> Drop for Driven<'_, K> {
    fn drop(&mut self) {
        if !self.is_over {
            self.on(Event::Cancelled);
        }
    }
}

impl Engine {
    /// Drives an operation on `keys`, each with its index, to its end within `total_ms`. `request` makes the
    /// request of an index.
    pub(super) async fn drive_batch<K: KeyRules>(
        &self,
        keys: Vec<(usize, K)>,
        total_ms: u64,
        request: impl Fn(usize) -> Request,
    ) -> Vec<(usize, K::Output)> {
        let batch = Batch::new(keys, clock::mono(), total_ms);
        let mut driven = Driven { engine: self, batch, is_over: false };
        let mut action = driven.on(Event::Start).action;
        let mut hearing = FuturesUnordered::new();
        let (mut changes, mut timer) = (None, None);
        loop {
            action = match action {
                BatchAction::Done(outcomes) => {
                    driven.is_over = true;
                    return outcomes;
                }
                BatchAction::AwaitNodes { until } => {
                    driven.on(self.await_change(&mut changes, until).await).action
                }
                BatchAction::Send { requests, timer_us } => {
                    timer = timer_us.map(|us| Box::pin(self.sleep(Duration::from_micros(us))));
                    let send = |sent: BatchRequest| {
                        let started = clock::elapsed();
                        hear(sent.request.id, started, self.send_many(&sent, &request))
                    };
                    hearing.extend(requests.into_iter().map(send));
                    BatchAction::Wait
                }
                BatchAction::Wait => tokio::select! {
                    biased;
                    answers = hearing.next() => match answers {
                        Some(answers) => driven.heard(answers),
                        // Every round has requests, and every request an answer.
                        None => BatchAction::Done(Vec::new()),
                    },
                    () = or_forever(timer.as_mut()) => {
                        timer = None;
                        driven.on(Event::Timer).action
                    }
                },
            };
        }
    }

    fn send_many(
        &self,
        BatchRequest { request: outgoing, keys }: &BatchRequest,
        request: impl Fn(usize) -> Request,
    ) -> Vec<Call> {
        let Outgoing { step, timeout_ms, seen, is_hedge, .. } = *outgoing;
        if is_hedge {
            keys.iter().for_each(|_| self.counters.hedged());
        }
        let message =
            |index: &usize| self.message(request(*index), Some(step.node), timeout_ms, seen);
        let messages = keys.iter().map(message).collect();
        self.transport.call_many(step.address, messages, Duration::from_millis(timeout_ms))
    }
}

/// The answers to all requests that one node was sent.
async fn hear(first: AttemptId, started: Duration, calls: Vec<Call>) -> Answers {
    let mut answers = Vec::with_capacity(calls.len());
    for (id, call) in (first.0..).map(AttemptId).zip(calls) {
        let result = call.await;
        answers.push((id, result, micros_since(started)));
    }
    answers
}
