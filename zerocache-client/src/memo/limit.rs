//! The bound on how many runs of a function are in progress in this process (`max_concurrent`).
//!
//! A function and its sibling have one limit: it is found by the function's place in the source. Callers above the
//! limit wait in order. No wait is without an end: a caller whose wait is over runs the function beside the others.

use std::cell::RefCell;
use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{self, Either};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use zerocache_net::process::PerProcess;

use super::BoxFuture;
use super::flight::{Leader, Progress};
use super::lookup;
use super::report::CallOutcome;
use super::run::Steps;
use super::site::SourcePlace;
use super::stage::{Computation, Stage, Step};
use crate::client::function_runtime;
use crate::counters::{FLIGHT_WAIT_DEFAULT, count};

/// A place among the runs of a function, until it is dropped.
pub(crate) struct RunPermit(OwnedSemaphorePermit);

/// The wait for a place; without one when it is over.
pub(super) type Turn = BoxFuture<Option<RunPermit>>;

/// The limits of this process. There are as many as functions with a limit.
static LIMITS: PerProcess<Mutex<HashMap<SourcePlace, Arc<Semaphore>>>> = PerProcess::new();

thread_local! {
    /// The limits of the runs further up on this thread's stack.
    static RUNNING: RefCell<Vec<Arc<Semaphore>>> = const { RefCell::new(Vec::new()) };
}

/// Marks a function as running on this thread until the guard is dropped.
pub(super) struct RunningGuard(());

impl RunPermit {
    pub(super) fn enter(&self) -> RunningGuard {
        RUNNING.with_borrow_mut(|running| running.push(Arc::clone(self.0.semaphore())));
        RunningGuard(())
    }
}

impl Drop for RunningGuard {
    fn drop(&mut self) {
        // Guards are locals of `poll`, so the last one is this one's.
        let _ = RUNNING.try_with(|running| running.borrow_mut().pop());
    }
}

/// Returns the limit of the function at `place`. The first call sets it.
pub(super) fn of(place: SourcePlace, runs_max: u32) -> Arc<Semaphore> {
    let limits = LIMITS.get_or_init(|_| Mutex::default());
    let runs_max = usize::try_from(runs_max).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
    let mut limits = limits.lock();
    let limit = limits.entry(place).or_insert_with(|| Arc::new(Semaphore::new(runs_max)));
    Arc::clone(limit)
}

/// Returns true if a run of the function is further up on this thread's stack: waiting for its end would be a deadlock.
fn is_running(limit: &Arc<Semaphore>) -> bool {
    let is_limit = |running: &Arc<Semaphore>| Arc::ptr_eq(running, limit);
    RUNNING.try_with(|running| running.borrow().iter().any(is_limit)).unwrap_or(false)
}

/// Waits for a place, at most `wait`.
async fn turn(limit: Arc<Semaphore>, wait: Duration) -> Option<RunPermit> {
    // A call without a client that works waits too, so the timer is none of a client's.
    let timer = function_runtime().ok().map(|runtime| {
        let _entered = runtime.enter();
        tokio::time::sleep(wait)
    });
    let permit = pin!(limit.acquire_owned());
    match timer {
        Some(timer) => match future::select(permit, pin!(timer)).await {
            Either::Left((permit, _)) => permit.ok().map(RunPermit),
            Either::Right(_) => None,
        },
        // The system refuses a thread: there is nothing that could end the wait.
        None => None,
    }
}

impl<T> Steps<'_, T> {
    /// Returns true if this call is inside of a run of its function, if that has a limit.
    pub(super) fn is_inside_run(&self) -> bool {
        self.options.runs_max().is_some_and(|runs_max| is_running(&self.call.site.limit(runs_max)))
    }

    /// Takes a place for a run of the function if there is one, or returns the wait for it.
    pub(super) fn take_place(&self, computation: &mut Computation) -> Option<Turn> {
        let limit = self.call.site.limit(self.options.runs_max()?);
        if is_running(&limit) {
            return None;
        }
        if let Ok(permit) = Arc::clone(&limit).try_acquire_owned() {
            computation.permit = Some(RunPermit(permit));
            return None;
        }
        let counters = self.run.map(|run| run.client.memo_counters());
        if let Some(counters) = counters {
            count(&counters.limit_waits);
        }
        let wait = counters.map_or(FLIGHT_WAIT_DEFAULT, |counters| counters.flight_wait());
        let mut wait_max = lookup::wait_in_all(wait);
        if let Some(deadline) = self.options.deadline
            && computation.previous_value(self.policy).is_some()
        {
            wait_max = wait_max.min(deadline);
        }
        Some(Box::pin(turn(limit, wait_max)))
    }

    /// Continues after the wait for a place.
    pub(super) fn after_turn(
        &mut self,
        permit: Option<RunPermit>,
        mut computation: Box<Computation>,
    ) -> Step<T> {
        let counters = self.run.map(|run| run.client.memo_counters());
        if let Some(leader) = &mut computation.leader {
            leader.leave_queue();
        }
        // Another leader of the key was first.
        let published = computation.leader.as_ref().and_then(Leader::superseding_value);
        if let Some(Ok(value)) = published.map(|payload| payload.decode(self.policy)) {
            if let Some(counters) = counters.filter(|_| !self.is_background) {
                count(&counters.coalesced);
            }
            self.note(|report| report.outcome = CallOutcome::Coalesced);
            return Step::Value(value);
        }
        if permit.is_none() {
            if let Some(previous) = computation.previous_value(self.policy) {
                self.serve_previous(computation.fresh().is_some());
                if let (Some(leader), Some(entry)) =
                    (&mut computation.leader, &computation.previous)
                {
                    leader.publish(Progress::Stale(entry.payload.clone()));
                }
                return Step::Value(previous);
            }
            if let Some(counters) = counters {
                count(&counters.limit_exceeded);
            }
        }
        computation.permit = permit;
        Step::Next(Stage::Computing(computation))
    }
}
