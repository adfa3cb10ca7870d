//! Drives the machines of `zerocache_core::client`: sends their requests, waits for answers and timers, and
//! counts what comes back. The rules are in the machines.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use tokio::{sync::watch, time::Sleep};
use zerocache_core::{
    call::{CallFailure, CallResult},
    client::{
        Action, AttemptId, AttemptReport, AttemptResult, Event, KeyRules, Operation, Outgoing,
        Reaction,
    },
    time::Instant,
    wire::Request,
};
use zerocache_net::{clock, process::ProcessOwned, transport::Call};

use super::{
    engine::{Engine, micros_since},
    fast::FastOp,
    report::{AttemptOutcome, ReadAttempt},
};

/// A request whose answer is pending.
struct PendingCall {
    id: AttemptId,
    started: Duration,
    call: Call,
}

/// An operation that has been sent on the fast path.
pub(super) struct FirstAttempt<K> {
    pub(super) operation: Operation<K>,
    id: AttemptId,
    pub(super) started: Duration,
    call: ProcessOwned<Call>,
}

/// An operation whose first request must be sent by its driver.
pub(super) struct Unsent<K: KeyRules> {
    pub(super) operation: Operation<K>,
    pub(super) started: Duration,
    pub(super) action: Action<K::Output>,
}

/// The beginning of an operation on the fast path.
pub(super) enum Beginning<K: KeyRules> {
    /// Its first request was sent.
    Sent(FirstAttempt<K>),
    /// Its driver sends the first request, or waits for a node.
    Unsent(Unsent<K>),
}

impl<K: KeyRules> FirstAttempt<K> {
    /// Polls for the answer, with the time at which it came.
    pub(super) fn poll(
        &mut self,
        engine: &Engine,
        context: &mut Context<'_>,
    ) -> Poll<(Action<K::Output>, Duration)> {
        let result = match self.call.value_mut() {
            Some(call) => ready!(Pin::new(call).poll(context)),
            // It was sent before this process was forked off: the parent gets the answer.
            None => Err(CallFailure::NoAnswer),
        };
        let ended = clock::elapsed();
        let elapsed_us = ended.saturating_sub(self.started).as_micros() as u64;
        let event = Event::Answer { id: self.id, result, elapsed_us };
        let now = clock::instant(ended);
        let reaction = self.operation.on(now, event, &mut engine.state.lock());
        if let Some(report) = &reaction.ended {
            engine.count_attempt(report);
        }
        Poll::Ready((reaction.action, ended))
    }

    /// Gives the answer up.
    pub(super) fn cancel(&mut self, engine: &Engine) {
        cancel(&mut self.operation, engine);
    }
}

fn cancel<K: KeyRules>(operation: &mut Operation<K>, engine: &Engine) {
    // It does nothing more.
    let _reaction = operation.on(clock::mono(), Event::Cancelled, &mut engine.state.lock());
}

/// An operation in the hands of a driver. Dropped before its end, its answers are given up.
struct Driven<'a, K: KeyRules> {
    engine: &'a Engine,
    operation: Operation<K>,
    is_over: bool,
}

impl<K: KeyRules> Driven<'_, K> {
    fn on(&mut self, now: Instant, event: Event) -> Reaction<K::Output> {
        self.operation.on(now, event, &mut self.engine.state.lock())
    }
}

impl<K: KeyRules> Drop for Driven<'_, K> {
    fn drop(&mut self) {
        if !self.is_over {
            cancel(&mut self.operation, self.engine);
        }
    }
}

impl Engine {
    /// Begins an operation that takes at most `total_ms`, and sends its first request on the fast path if an
    /// open connection to the node has room for it.
    pub(super) fn begin_fast<'a, K: KeyRules>(
        &self,
        rules: K,
        total_ms: u64,
        op: impl FnOnce(u64) -> FastOp<'a>,
        waker: &Waker,
    ) -> Beginning<K> {
        let unsent = self.begin(rules, total_ms);
        if let Action::Send { request, timer_us: None } = &unsent.action
            && let Some(call) = self.send_now(request, &op(request.seen), unsent.started, waker)
        {
            let (id, call) = (request.id, ProcessOwned::new(call));
            let Unsent { operation, started, .. } = unsent;
            return Beginning::Sent(FirstAttempt { operation, id, started, call });
        }
        Beginning::Unsent(unsent)
    }

    /// Begins an operation for [`drive`](Self::drive).
    pub(super) fn begin<K: KeyRules>(&self, rules: K, total_ms: u64) -> Unsent<K> {
        let started = clock::elapsed();
        let now = clock::instant(started);
        let mut operation = Operation::new(rules, now, total_ms);
        let action = operation.on(now, Event::Start, &mut self.state.lock()).action;
        Unsent { operation, started, action }
    }

    /// Drives an operation that was sent on the fast path to its end.
    pub(super) async fn drive_sent<K: KeyRules>(
        &self,
        mut first: FirstAttempt<K>,
        request: impl Fn() -> Request,
    ) -> K::Output {
        let (action, _) = poll_fn(|context| first.poll(self, context)).await;
        let FirstAttempt { operation, started, .. } = first;
        self.drive(Unsent { operation, started, action }, request, None).await
    }

    /// Drives an operation to its end. Each attempt sends `request`, and is added to the `trail`.
    pub(super) async fn drive<K: KeyRules>(
        &self,
        Unsent { operation, action, .. }: Unsent<K>,
        request: impl Fn() -> Request,
        mut trail: Option<&mut Vec<ReadAttempt>>,
    ) -> K::Output {
        let mut driven = Driven { engine: self, operation, is_over: false };
        let mut calls: [Option<PendingCall>; 2] = [None, None];
        let mut timer = pin!(None::<Sleep>);
        let mut changes = None;
        let mut action = action;
        loop {
            let event = match action {
                Action::Done(output) => {
                    driven.is_over = true;
                    return output;
                }
                Action::AwaitNodes { until } => self.await_change(&mut changes, until).await,
                Action::Send { request: outgoing, timer_us } => {
                    if outgoing.is_hedge {
                        self.counters.hedged();
                    }
                    let call = self.send(&outgoing, request());
                    let free = calls.iter_mut().find(|call| call.is_none());
                    // Two attempts at most are pending.
                    if let Some(free) = free {
                        *free = Some(call);
                    }
                    if let Some(us) = timer_us {
                        timer.set(Some(self.sleep(Duration::from_micros(us))));
                    }
                    next_event(&mut calls, timer.as_mut()).await
                }
                Action::Wait => next_event(&mut calls, timer.as_mut()).await,
            };
            let elapsed_us = match &event {
                Event::Answer { elapsed_us, .. } => *elapsed_us,
                _ => 0,
            };
            let reaction = driven.on(clock::mono(), event);
            if let Some(report) = reaction.ended {
                self.count_attempt(&report);
                if let Some(trail) = &mut trail {
                    trail.push(self.attempt_entry(report, Duration::from_micros(elapsed_us)));
                }
            }
            action = reaction.action;
        }
    }

    /// Sends a request.
    fn send(&self, outgoing: &Outgoing, request: Request) -> PendingCall {
        let Outgoing { id, step, timeout_ms, seen, .. } = *outgoing;
        let message = self.message(request, Some(step.node), timeout_ms, seen);
        let started = clock::elapsed();
        let call = self.transport.call(step.address, message, Duration::from_millis(timeout_ms));
        PendingCall { id, started, call }
    }

    /// Sends a request and waits for its answer, with the time that it took in microseconds.
    pub(super) async fn ask(&self, outgoing: &Outgoing, request: Request) -> (CallResult, u64) {
        let PendingCall { started, call, .. } = self.send(outgoing, request);
        let result = call.await;
        (result, micros_since(started))
    }

    /// Waits until the directory may have changed, or the time is up. The first call returns at once, because
    /// the directory may have changed before anybody waited.
    pub(super) async fn await_change(
        &self,
        changes: &mut Option<watch::Receiver<u64>>,
        until: Instant,
    ) -> Event {
        let Some(changes) = changes else {
            *changes = Some(self.changes.subscribe());
            return Event::ViewChanged;
        };
        let left = Duration::from_millis(until.since_ms(clock::mono()));
        let timer = self.sleep(left);
        tokio::select! {
            _ = changes.changed() => Event::ViewChanged,
            () = timer => Event::Timer,
        }
    }

    /// A timer that needs no runtime of the caller.
    pub(super) fn sleep(&self, time: Duration) -> Sleep {
        let _runtime = self.runtime.enter();
        tokio::time::sleep(time)
    }

    pub(super) fn count_attempt(&self, report: &AttemptReport) {
        if report.is_hedge_win {
            self.counters.hedge_won();
        }
        if report.is_error {
            let AttemptReport { step, result, .. } = report;
            self.counters.error(step.tier);
            tracing::debug!(
                tier = step.tier.as_str(), node = %step.node, address = %step.address, ?result,
                "request failed"
            );
        }
    }

    fn attempt_entry(&self, report: AttemptReport, elapsed: Duration) -> ReadAttempt {
        let AttemptReport { step, result, .. } = report;
        let state = self.state.lock();
        let region = state.directory().node(step.node).map(|node| node.info.region.clone());
        let outcome = match result {
            // What the value is worth is known when it has been decoded.
            AttemptResult::Answered => AttemptOutcome::Found,
            AttemptResult::Older => AttemptOutcome::OlderVersion,
            AttemptResult::NotFound { is_authoritative } => {
                AttemptOutcome::NotFound { is_authoritative }
            }
            AttemptResult::Refused(text) => AttemptOutcome::Refused(text),
            AttemptResult::NoAnswer => AttemptOutcome::NoAnswer,
            AttemptResult::NotReached => AttemptOutcome::Unreachable,
        };
        ReadAttempt {
            tier: step.tier,
            region: region.unwrap_or_default(),
            node: step.node,
            address: step.address,
            elapsed,
            outcome,
        }
    }
}

/// The next answer, or the end of the timer.
async fn next_event(
    calls: &mut [Option<PendingCall>; 2],
    mut timer: Pin<&mut Option<Sleep>>,
) -> Event {
    poll_fn(|context| {
        for slot in calls.iter_mut() {
            if let Some(PendingCall { id, started, call }) = slot
                && let Poll::Ready(result) = Pin::new(call).poll(context)
            {
                let (id, elapsed_us) = (*id, micros_since(*started));
                *slot = None;
                return Poll::Ready(Event::Answer { id, result, elapsed_us });
            }
        }
        if let Some(sleep) = timer.as_mut().as_pin_mut() {
            ready!(sleep.poll(context));
            timer.set(None);
            return Poll::Ready(Event::Timer);
        }
        Poll::Pending
    })
    .await
}
