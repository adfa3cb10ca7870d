//! The bound on how many runs of a function are in progress in this process (`max_concurrent`).
//!
//! A function and its sibling have one limit: it is found by the function's place in the source. Callers above the
//! limit wait in order. No wait is without an end: a caller whose wait is over runs the function beside the others.

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use zerocache_net::clock;
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
use crate::wait::or_forever;

/// A run of a function with a limit, until it is dropped.
pub(crate) struct RunPermit {
    limit: Arc<Semaphore>,
    /// The place among the runs; `None` for a run beside them.
    place: Option<OwnedSemaphorePermit>,
}

/// The end of a wait for a place.
pub(super) enum TurnEnd {
    Place(RunPermit),
    /// Another leader of the key has a value.
    Superseded,
    /// The deadline of the call is over.
    Deadline,
    /// The wait is over.
    Over,
}

/// The wait for a place.
pub(super) type Turn = BoxFuture<TurnEnd>;

/// The limits of this process. There are as many as functions with a limit.
static LIMITS: PerProcess<Mutex<HashMap<SourcePlace, Arc<Semaphore>>>> = PerProcess::new();

thread_local! {
    /// The limits of the runs further up on this thread's stack.
    static RUNNING: RefCell<Vec<Arc<Semaphore>>> = const { RefCell::new(Vec::new()) };
}

/// Marks a function as running on this thread until the guard is dropped.
pub(super) struct RunningGuard(());

impl RunPermit {
    /// Returns true if others may wait for the place of this run.
    pub(super) fn has_place(&self) -> bool {
        self.place.is_some()
    }

    pub(super) fn enter(&self) -> RunningGuard {
        RUNNING.with_borrow_mut(|running| running.push(Arc::clone(&self.limit)));
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

/// Waits for a place, at most `wait`, and no longer than until another leader of the key has a value. `late` is the
/// end of a wait that takes too long.
async fn turn(
    limit: Arc<Semaphore>,
    (wait, late): (Duration, TurnEnd),
    superseded: Option<impl Future<Output = ()>>,
) -> TurnEnd {
    // A call without a client that works waits too, so the timer is none of a client's.
    let Ok(runtime) = function_runtime() else {
        // The system refuses a thread: there is nothing that could end the wait.
        return TurnEnd::Over;
    };
    let timer = {
        let _entered = runtime.enter();
        tokio::time::sleep(wait)
    };
    tokio::select! {
        biased;
        () = or_forever(superseded) => TurnEnd::Superseded,
        place = Arc::clone(&limit).acquire_owned() => match place {
            Ok(place) => TurnEnd::Place(RunPermit { limit, place: Some(place) }),
            Err(_) => TurnEnd::Over,
        },
        () = timer => late,
    }
}

impl<T> Steps<'_, T> {
    /// Returns true if this call is inside of a run of its function, if that has a limit.
    pub(super) fn is_inside_run(&self) -> bool {
        self.options.runs_max().is_some_and(|runs_max| is_running(self.call.site.limit(runs_max)))
    }

    /// Takes a place for a run of the function, if there is one, unless `permit` is for one already. A run inside of
    /// a run takes none.
    pub(super) fn take_place(&self, permit: &mut Option<RunPermit>) -> bool {
        let Some(runs_max) = self.options.runs_max() else { return true };
        if permit.is_some() {
            return true;
        }
        let limit = self.call.site.limit(runs_max);
        let place = if is_running(limit) {
            None
        } else {
            match Arc::clone(limit).try_acquire_owned() {
                Ok(place) => Some(place),
                Err(_) => return false,
            }
        };
        *permit = Some(RunPermit { limit: Arc::clone(limit), place });
        true
    }

    /// Takes a place to refresh a value that may still be served. Returns `None` if there is none: nobody waits for one
    /// then, unless the refresh waits in the background.
    pub(super) fn place_to_refresh(&self) -> Option<Option<RunPermit>> {
        let mut permit = None;
        (self.take_place(&mut permit) || self.options.background).then_some(permit)
    }

    /// Begins to wait for a place. With `watch` the wait ends when another leader of the key has a value.
    pub(super) fn enter_queue(
        &mut self,
        mut computation: Box<Computation>,
        watch: bool,
    ) -> Stage<T> {
        let Some(runs_max) = self.options.runs_max() else { return Stage::Computing(computation) };
        let counters = self.run.map(|run| run.client.memo_counters());
        let now = clock::elapsed();
        let queue_until = *computation.queue_until.get_or_insert_with(|| {
            if let Some(counters) = counters {
                count(&counters.limit_waits);
            }
            let wait = counters.map_or(FLIGHT_WAIT_DEFAULT, |counters| counters.flight_wait());
            now.saturating_add(lookup::wait_in_all(wait))
        });
        let left = queue_until.saturating_sub(now);
        let deadline = self.options.deadline.filter(|deadline| *deadline < left);
        let deadline = deadline.filter(|_| match self.previous_value(&computation) {
            Some(previous) => {
                self.keep_decoded(previous);
                true
            }
            None => false,
        });
        let wait = deadline.map_or((left, TurnEnd::Over), |time| (time, TurnEnd::Deadline));
        let mut superseded = None;
        if let Some(leader) = &mut computation.leader {
            leader.enter_queue();
            superseded = watch.then(|| leader.superseded());
        }
        let limit = Arc::clone(self.call.site.limit(runs_max));
        let turn = Box::pin(turn(limit, wait, superseded));
        Stage::Queued { turn, computation: Some(computation) }
    }

    /// Continues after the wait for a place.
    pub(super) fn after_turn(
        &mut self,
        end: TurnEnd,
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
        computation.permit = match end {
            TurnEnd::Place(permit) => Some(permit),
            // The value is of no use to this call, or is not fresh any more.
            TurnEnd::Superseded => return Step::Next(self.enter_queue(computation, false)),
            end => match (self.after_queue_wait(&mut computation), end) {
                (Some(previous), _) => return Step::Value(previous),
                // The previous value has become too old.
                (None, TurnEnd::Deadline) => {
                    return Step::Next(self.enter_queue(computation, true));
                }
                (None, _) => {
                    if let Some(counters) = counters {
                        count(&counters.limit_exceeded);
                    }
                    let limit = self.options.runs_max().map(|max| self.call.site.limit(max));
                    limit.map(|limit| RunPermit { limit: Arc::clone(limit), place: None })
                }
            },
        };
        Step::Next(self.compute_in_place(computation))
    }

    /// Returns the previous value of a call whose wait for a place is over, if that may still be served.
    fn after_queue_wait(&mut self, computation: &mut Computation) -> Option<T> {
        let previous = self.previous_value(computation)?;
        self.serve_previous(computation.fresh().is_some());
        if let (Some(leader), Some(entry)) = (&mut computation.leader, &computation.previous) {
            leader.publish(Progress::Stale(entry.payload.clone()));
        }
        Some(previous)
    }
}
