//! Computations that move to a task or thread of their own, and the wait of their caller.
//!
//! A caller whose previous value may be served computes in another task, if its function can be moved there: it gets
//! the previous value at once (`background`), or when it has waited for the soft timeout.

use std::time::Duration;

use tokio::sync::oneshot;

use super::background::Caller;
use super::flight::Leader;
use super::report::{CallOutcome, CallReport, LeaseOutcome};
use super::run::Steps;
use super::stage::{Computation, DetachPlan, Detached, DetachedResult};
use crate::counters::count;

impl<T> Steps<'_, T> {
    /// Returns how the computation moves to another task, if it has not begun and its caller need not wait for it.
    pub(super) fn plan_detach(&mut self, computation: &Computation) -> Option<DetachPlan<T>> {
        if computation.function_run.is_some() {
            return None;
        }
        let is_at_once = self.options.background && computation.is_refresh();
        // The wait for other leaders counts.
        let waited = computation.leader.as_ref().map_or(Duration::ZERO, Leader::waited);
        let left = self.options.soft_wait().map(|wait| wait.saturating_sub(waited));
        let wait = if is_at_once { None } else { Some(left?) };
        let previous = self.previous_value(computation)?;
        Some(DetachPlan { previous, is_fresh: computation.fresh().is_some(), wait })
    }

    /// Begins the wait for a computation that moves to another task. Without a wait the caller is served.
    pub(super) fn wait_or_serve(
        &mut self,
        plan: &DetachPlan<T>,
    ) -> Option<(Caller<T>, Detached<T>)> {
        let Some((wait, run)) = plan.wait.zip(self.run) else {
            self.serve_previous(plan.is_fresh);
            return None;
        };
        let (sender, result) = oneshot::channel();
        let report = self.report.as_deref().cloned().unwrap_or_else(CallReport::new);
        let timer = Box::pin(run.client.sleep(wait));
        Some(((sender, Box::new(report)), Detached { result, timer }))
    }

    /// Returns the value of a caller that has waited for a computation in another task.
    pub(super) fn after_wait(
        &mut self,
        result: Option<DetachedResult<T>>,
        plan: DetachPlan<T>,
    ) -> T {
        let counters = self.run.map(|run| run.client.memo_counters());
        let Some((value, report)) = result else {
            if let Some(counters) = counters {
                count(&counters.soft_timeouts);
            }
            self.serve_previous(plan.is_fresh);
            return plan.previous;
        };
        // The other task counts what it does, and this caller what it is served.
        let served = counters.and_then(|counters| match report.outcome {
            CallOutcome::Hit => Some(&counters.hits),
            CallOutcome::Outage => Some(&counters.outage_served),
            CallOutcome::Stale => Some(&counters.stale_served),
            CallOutcome::Coalesced if report.lease == Some(LeaseOutcome::Found) => {
                Some(&counters.lease_found)
            }
            CallOutcome::Coalesced => Some(&counters.coalesced),
            _ => None,
        });
        if let Some(served) = served {
            count(served);
        }
        self.note(|own| *own = *report);
        value
    }
}
