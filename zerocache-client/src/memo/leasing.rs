//! The steps of a call that requests a lease before it computes.

use std::time::Duration;

use zerocache_core::version::Incarnation;
use zerocache_net::clock;

use super::flight::Progress;
use super::lease::{self, LeaseResponse};
use super::options::LeaseRule;
use super::report::{CallOutcome, LeaseOutcome};
use super::run::{Run, Steps};
use super::stage::{Computation, LeaseRequest, Stage, Step};
use super::stored::{Payload, StoredEntry};
use crate::client::LeaseTerms;
use crate::counters::count;

/// Lease requests of one call. The request is repeated when the response is an entry that the call cannot
/// use: one of another shape under the call's key, and then a shape entry of an earlier version of that.
const LEASE_ATTEMPTS_MAX: u8 = 3;

impl<T> Steps<'_, T> {
    /// Requests a lease. A call whose previous value may be served waits for no other process, and neither does a
    /// call that has a place among the runs of its function: others may need it.
    pub(super) fn request_lease(
        &self,
        run: &Run,
        rule: LeaseRule,
        mut computation: Box<Computation>,
    ) -> Stage<T> {
        let now = clock::elapsed();
        let wait_max =
            if computation.is_refresh() { Duration::ZERO } else { self.options.lease_wait() };
        let wait_until = now.saturating_add(wait_max);
        let first = LeaseRequest { attempts: 1, started: now, wait_until };
        let request = *computation.lease_request.get_or_insert(first);
        let wait = request.wait_until.saturating_sub(now);
        let wait = if computation.has_place() { Duration::ZERO } else { wait };
        let (scope, life, over) = (rule.scope, rule.life(), computation.replaces);
        let terms = LeaseTerms { scope, life, wait, over, deadline: self.options.deadline };
        let key = computation.key(&run.key).clone();
        let request = Box::pin(lease::request(run.client.clone(), key, terms));
        Stage::Leasing { request, computation: Some(computation) }
    }

    pub(super) fn after_lease(
        &mut self,
        (response, node): (LeaseResponse, Option<Incarnation>),
        mut computation: Box<Computation>,
    ) -> Step<T> {
        let Some(run) = self.run else {
            return Step::Next(self.run_function(computation));
        };
        let request = computation.lease_request;
        self.note(|report| {
            let time = |request: LeaseRequest| clock::elapsed().saturating_sub(request.started);
            report.lease_time = request.map(time);
            report.lease_node = node.and_then(|node| run.client.reported(node));
        });
        let counters = run.client.memo_counters();
        let outcome = match response {
            LeaseResponse::Granted(grant) if self.take_place(&mut computation.permit) => {
                count(&counters.leases_granted);
                computation.grant = Some(grant);
                LeaseOutcome::Granted
            }
            // It would run out in the queue: the next process that waits gets it.
            LeaseResponse::Granted(_) => return Step::Next(self.enter_queue(computation, true)),
            LeaseResponse::Found(entry) => match self.after_lease_found(run, entry, computation) {
                Ok(step) => return step,
                Err(unused) => {
                    computation = unused;
                    LeaseOutcome::Found
                }
            },
            LeaseResponse::Busy => {
                if let Some(rule) = self.options.lease.filter(|_| computation.may_wait_for_lease())
                {
                    computation.permit = None;
                    return Step::Next(self.request_lease(run, rule, computation));
                }
                count(&counters.lease_busy);
                self.note(|report| report.lease = Some(LeaseOutcome::Busy));
                let previous = computation.previous.as_ref();
                let servable = previous.filter(|entry| entry.is_servable(clock::mono()));
                if let Some(Ok(value)) = servable.map(|entry| entry.payload.decode(self.policy)) {
                    self.serve_previous(computation.fresh().is_some());
                    return Step::Value(value);
                }
                LeaseOutcome::Busy
            }
            LeaseResponse::Unavailable => {
                count(&counters.lease_unavailable);
                LeaseOutcome::Unavailable
            }
        };
        self.note(|report| report.lease = Some(outcome));
        Step::Next(if self.take_place(&mut computation.permit) {
            self.run_function(computation)
        } else {
            self.enter_queue(computation, true)
        })
    }

    /// Continues after a node returned an entry instead of a lease. Gives `computation` back if the entry is
    /// of no use and no further lease is requested.
    fn after_lease_found(
        &mut self,
        run: &Run,
        entry: StoredEntry,
        mut computation: Box<Computation>,
    ) -> Result<Step<T>, Box<Computation>> {
        computation.note_known(entry.version);
        // A node of an earlier release returns the entry that is to be replaced.
        if computation.replaces >= Some(entry.version) {
            return Err(computation);
        }
        if let Some((payload, value)) = self.use_lease_value(run, entry, &mut computation) {
            if !self.is_background {
                count(&run.client.memo_counters().lease_found);
            }
            self.note(|report| report.lease = Some(LeaseOutcome::Found));
            self.set_outcome(CallOutcome::Coalesced);
            if let Some(mut leader) = computation.leader {
                leader.publish(Progress::Value(payload));
            }
            return Ok(Step::Value(value));
        }
        let may_retry = computation.lease_request.as_mut().is_none_or(|request| {
            request.attempts += 1;
            request.attempts <= LEASE_ATTEMPTS_MAX
        });
        match self.options.lease.filter(|_| may_retry) {
            Some(rule) => Ok(Step::Next(self.request_lease(run, rule, computation))),
            None => Err(computation),
        }
    }

    /// Returns the value of an entry that a node returned instead of a lease. If the call cannot use the
    /// entry, notes in `computation` where the call's own value is to be stored.
    fn use_lease_value(
        &mut self,
        run: &Run,
        entry: StoredEntry,
        computation: &mut Computation,
    ) -> Option<(Payload, T)> {
        let error = match (&computation.base, entry.payload.decode(self.policy)) {
            (Some(base), Ok(_)) if !base.owns(&entry) => None,
            (_, Ok(value)) => return Some((entry.payload, value)),
            (_, Err(error)) => Some(error),
        };
        match (&computation.base, error) {
            (None, Some(error)) => {
                (computation.base, computation.replaces) =
                    (Some(self.shape_mismatch(run, entry, error)), None);
            }
            _ => computation.replaces = Some(entry.version),
        }
        None
    }
}
