//! The steps of a running call up to its computation.
//!
//! Lookup, or wait for the leader's value; request a lease; compute; publish to the followers; store. A step
//! knows the function by its [`Policy`] alone, and is not bound to the future that computes.

use std::time::Duration;

use bytes::Bytes;
use zerocache_core::metadata::Freshness;
use zerocache_core::version::Incarnation;
use zerocache_net::clock;

use super::call_target::CallTarget;
use super::chance;
use super::compute;
use super::flight::{self, Leader, Progress};
use super::lease::{self, LeaseResponse};
use super::lookup::{
    Lookup, LookupOptions, LookupOutcome, lookup, lookup_shape_entry, lookup_unshared,
};
use super::options::{LeaseRule, Options};
use super::recursion;
use super::report::{CallOutcome, CallReport, LeaseOutcome, Mismatch, ShapeEntryOutcome};
use super::rule::Policy;
use super::site::Site;
use super::stage::{Computation, LeaseRequest, Stage, Step};
use super::stored::{BaseEntry, Payload, StoredEntry};
use super::ttl::TtlRule;
use crate::ZerocacheClient;
use crate::client::{LeaseTerms, ReadOutcome, ReadReport};
use crate::codec::CodecError;
use crate::counters::count;

/// Lease requests of one call. The request is repeated when the response is an entry that the call cannot
/// use: one of another shape under the call's key, and then a shape entry of an earlier version of that.
const LEASE_ATTEMPTS_MAX: u8 = 3;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Cached,
    Refresh,
    Uncached,
    /// A refresh in the background. Its caller has been served the previous value, and counted.
    Background,
}

/// The client and key that a running call uses.
#[derive(Clone)]
pub(super) struct Run {
    /// `None` for an explicit key, which is not bound to one type.
    pub(super) site: Option<&'static Site>,
    pub(super) client: ZerocacheClient,
    pub(super) key: Bytes,
}

impl Run {
    /// The function that warnings name: all calls with explicit keys are one.
    pub(super) fn warned_site(&self) -> &'static Site {
        self.site.unwrap_or(&compute::SITE)
    }

    pub(super) fn enter(&self) -> recursion::ComputingGuard {
        recursion::enter(self.client.memo_counters().flight_group(), &self.key)
    }
}

/// Returns the client and key, unless the call does not use the cache.
pub(super) fn start(call: &CallTarget, mode: Mode) -> Option<Run> {
    if mode == Mode::Uncached {
        return None;
    }
    let client = call.client();
    match call.key(&client) {
        Some(key) => {
            let site = call.explicit.is_none().then_some(call.site);
            Some(Run { site, client, key })
        }
        None => {
            count(&client.memo_counters().unkeyed);
            None
        }
    }
}

/// The parts of a call that its steps use.
pub(super) struct Steps<'a, T> {
    /// `None` for a call that does not use the cache.
    pub(super) run: Option<&'a Run>,
    pub(super) call: &'a CallTarget,
    pub(super) policy: &'a Policy<T>,
    pub(super) ttl: &'a TtlRule<T>,
    pub(super) options: &'a Options<T>,
    /// The caller has its value already.
    pub(super) is_background: bool,
    /// `None` unless the call is explained.
    pub(super) report: Option<&'a mut CallReport>,
}

impl<T> Steps<'_, T> {
    pub(super) fn note(&mut self, note: impl FnOnce(&mut CallReport)) {
        if let Some(report) = &mut self.report {
            note(report);
        }
    }

    fn set_outcome(&mut self, outcome: CallOutcome) {
        self.note(|report| report.outcome = outcome);
    }

    fn lookup_options(&self, blocking: bool) -> LookupOptions {
        LookupOptions {
            blocking,
            near: self.options.near,
            lease_wait: self.options.lease_wait(),
            deadline: self.options.deadline,
            soft_wait: self.options.soft_wait(),
            explain: self.report.is_some(),
        }
    }

    /// Returns the first stage of a call. A `blocking` caller blocks its thread.
    pub(super) fn first_stage(&mut self, mode: Mode, blocking: bool) -> Stage<T> {
        let Some(Run { client, key, .. }) = self.run else {
            return self.start_computing(Box::default());
        };
        let group = client.memo_counters().flight_group();
        if mode == Mode::Refresh {
            // Pending writes complete before this call's value is written.
            flight::invalidate(group, key);
            self.set_outcome(CallOutcome::Refreshed);
            return self.start_computing(Box::default());
        }
        if recursion::is_computing(group, key) {
            // This call's own caller computes the key: waiting for it would be a deadlock.
            self.set_outcome(CallOutcome::Miss);
            return self.start_computing(Computation::new(None, None, 0));
        }
        let options = self.lookup_options(blocking);
        Stage::LookingUp(Box::pin(lookup(client.clone(), key.clone(), options)))
    }

    pub(super) fn after_lookup(&mut self, lookup: Lookup) -> Step<T> {
        let Some(run) = self.run else {
            return Step::Next(self.start_computing(Box::default()));
        };
        let counters = run.client.memo_counters();
        let Lookup { outcome, leader, report, base, known } = lookup;
        let is_near = report.as_ref().is_some_and(|read| read.outcome == ReadOutcome::Near);
        self.note_read(report, &outcome, base.as_deref());
        match outcome {
            LookupOutcome::Entry(entry) => {
                self.use_entry(run, (entry, known), base, leader, is_near)
            }
            LookupOutcome::Coalesced { payload, is_stale } => match payload.decode(self.policy) {
                Ok(value) => {
                    count(if is_stale { &counters.stale_served } else { &counters.coalesced });
                    let outcome =
                        if is_stale { CallOutcome::Stale } else { CallOutcome::Coalesced };
                    self.set_outcome(outcome);
                    Step::Value(value)
                }
                // The value is of a call with another type, which may store it under the same key.
                Err(_) => {
                    let (client, key) = (run.client.clone(), run.key.clone());
                    let lookup = lookup_unshared(client, key, self.lookup_options(false));
                    Step::Next(Stage::LookingUp(Box::pin(lookup)))
                }
            },
            LookupOutcome::Failed(error) => match (self.policy.sharing.unshare)(&error) {
                Some(value) => {
                    count(&counters.coalesced);
                    self.set_outcome(CallOutcome::Coalesced);
                    Step::Value(value)
                }
                None => self.after_miss(run, None, (None, known), None),
            },
            LookupOutcome::Miss(fallback) => {
                count(&counters.misses);
                self.after_miss(run, leader, (fallback, known), base)
            }
        }
    }

    fn note_read(
        &mut self,
        read: Option<ReadReport>,
        outcome: &LookupOutcome,
        base: Option<&BaseEntry>,
    ) {
        self.note(|report| match (base, &mut report.mismatch) {
            (Some(base), Some(mismatch)) => {
                mismatch.shape_entry = match (outcome, base.replaces, &read) {
                    (LookupOutcome::Entry(_), ..) => ShapeEntryOutcome::Found,
                    (_, Some(_), _) => ShapeEntryOutcome::Outdated,
                    (.., Some(read)) if read.outcome == ReadOutcome::Failed => {
                        ShapeEntryOutcome::Unreachable
                    }
                    _ => ShapeEntryOutcome::NotFound,
                };
                mismatch.read = read;
            }
            _ => report.read = read,
        });
    }

    /// Uses an entry as its age permits. `base` is set if the entry is a shape entry.
    fn use_entry(
        &mut self,
        run: &Run,
        (entry, known): (StoredEntry, u64),
        base: Option<Box<BaseEntry>>,
        leader: Option<Leader>,
        is_near: bool,
    ) -> Step<T> {
        let counters = run.client.memo_counters();
        let value = match entry.payload.decode(self.policy) {
            Ok(value) => value,
            Err(error) => {
                return self.after_decode_error(run, (entry, error), base, (leader, known));
            }
        };
        let now = clock::mono();
        match (entry.freshness(now), leader) {
            (Freshness::Fresh, leader) => {
                let (fresh_ms, ahead_ms) = entry.refresh_ahead_ms(now);
                if let Some(mut leader) = leader {
                    if ahead_ms > 0
                        && chance::is_refresh_due(fresh_ms, ahead_ms, chance::unit_interval())
                    {
                        return self.refresh(run, leader, (entry, known), base);
                    }
                    leader.publish(Progress::Value(entry.payload.clone()));
                }
                count(&counters.hits);
                if base.is_some() {
                    count(&counters.shape_entry_hits);
                }
                if entry.payload.is_error() {
                    count(&counters.negative_hits);
                }
                self.set_outcome(if is_near { CallOutcome::Near } else { CallOutcome::Hit });
                Step::Value(value)
            }
            (Freshness::Stale, Some(leader)) => self.refresh(run, leader, (entry, known), base),
            // The leader refreshes it.
            (Freshness::Stale, None) => {
                count(&counters.stale_served);
                self.set_outcome(CallOutcome::Stale);
                Step::Value(value)
            }
            // `OnlyOnError`, or what a later release adds.
            (_, leader) => {
                count(&counters.misses);
                self.after_miss(run, leader, (Some(entry), known), base)
            }
        }
    }

    /// Continues after an entry that the function cannot decode: a base entry, or a shape entry.
    fn after_decode_error(
        &mut self,
        run: &Run,
        (entry, error): (StoredEntry, CodecError),
        base: Option<Box<BaseEntry>>,
        (leader, known): (Option<Leader>, u64),
    ) -> Step<T> {
        let Some(mut base) = base else {
            let base = self.shape_mismatch(run, entry, error);
            let options = self.lookup_options(false);
            let lookup = lookup_shape_entry(run.client.clone(), base, options, leader);
            return Step::Next(Stage::LookingUp(Box::pin(lookup)));
        };
        // A shape entry is of this function's shape: it is damaged, and is replaced.
        tracing::debug!(%error, "a stored value is damaged");
        count(&run.client.memo_counters().misses);
        base.replaces = Some(entry.version);
        self.after_miss(run, leader, (None, known), Some(base))
    }

    /// Notes a base entry that this function cannot decode. It is kept for functions that can.
    fn shape_mismatch(
        &mut self,
        run: &Run,
        entry: StoredEntry,
        error: CodecError,
    ) -> Box<BaseEntry> {
        count(&run.client.memo_counters().mismatched);
        run.warned_site().warn_of_shape(&error);
        let version = entry.version;
        let shape_entry = ShapeEntryOutcome::NotRead;
        self.note(|report| {
            report.mismatch = Some(Mismatch { error, version, shape_entry, read: None });
        });
        BaseEntry::new(&run.key, self.policy.shape(), entry)
    }

    /// Refreshes an entry that may still be served; followers see the entry from now on.
    fn refresh(
        &mut self,
        run: &Run,
        mut leader: Leader,
        (previous, known): (StoredEntry, u64),
        base: Option<Box<BaseEntry>>,
    ) -> Step<T> {
        leader.publish(Progress::Computing(previous.clone()));
        self.set_outcome(CallOutcome::Refreshed);
        let computation = Computation::new(Some(leader), Some(previous), known).with_base(base);
        Step::Next(self.compute(run, computation))
    }

    fn after_miss(
        &mut self,
        run: &Run,
        mut leader: Option<Leader>,
        (fallback, known): (Option<StoredEntry>, u64),
        base: Option<Box<BaseEntry>>,
    ) -> Step<T> {
        if let (Some(leader), Some(fallback)) = (&mut leader, &fallback) {
            // The fallback of followers whose whole wait expires.
            leader.publish(Progress::Computing(fallback.clone()));
        }
        self.set_outcome(CallOutcome::Miss);
        Step::Next(self.compute(run, Computation::new(leader, fallback, known).with_base(base)))
    }

    fn compute(&mut self, run: &Run, mut computation: Box<Computation>) -> Stage<T> {
        let is_leader = computation.leader.is_some();
        let Some(rule) = self.options.lease.filter(|_| is_leader) else {
            return self.start_computing(computation);
        };
        if let Some(previous) = computation.fresh() {
            // It is refreshed although it is fresh.
            computation.replaces = Some(previous.version);
        }
        self.request_lease(run, rule, computation)
    }

    /// Requests a lease. A call whose previous value may be served waits for no other process.
    fn request_lease(
        &self,
        run: &Run,
        rule: LeaseRule,
        mut computation: Box<Computation>,
    ) -> Stage<T> {
        let started = clock::elapsed();
        let wait_max =
            if computation.is_refresh() { Duration::ZERO } else { self.options.lease_wait() };
        let wait_until = started.saturating_add(wait_max);
        let first = LeaseRequest { attempts: 0, started, wait_until };
        let request = computation.lease_request.get_or_insert(first);
        request.attempts += 1;
        let wait = request.wait_until.saturating_sub(started);
        let (scope, life, over) = (rule.scope, rule.life(), computation.replaces);
        let terms = LeaseTerms { scope, life, wait, over, deadline: self.options.deadline };
        let key = computation.key(&run.key).clone();
        let request = Box::pin(lease::request(run.client.clone(), key, terms));
        Stage::Leasing { request, computation: Some(computation) }
    }

    /// Notes that the caller is served the previous value.
    pub(super) fn serve_previous(&mut self, is_fresh: bool) {
        self.set_outcome(if is_fresh { CallOutcome::Hit } else { CallOutcome::Stale });
        if self.is_background {
            return;
        }
        let Some(run) = self.run else { return };
        let counters = run.client.memo_counters();
        count(if is_fresh { &counters.hits } else { &counters.stale_served });
    }

    pub(super) fn after_lease(
        &mut self,
        (response, node): (LeaseResponse, Option<Incarnation>),
        mut computation: Box<Computation>,
    ) -> Step<T> {
        let Some(run) = self.run else {
            return Step::Next(self.start_computing(computation));
        };
        let request = computation.lease_request;
        self.note(|report| {
            let time = |request: LeaseRequest| clock::elapsed().saturating_sub(request.started);
            report.lease_time = request.map(time);
            report.lease_node = node.and_then(|node| run.client.reported(node));
        });
        let counters = run.client.memo_counters();
        let outcome = match response {
            LeaseResponse::Granted(grant) => {
                count(&counters.leases_granted);
                computation.grant = Some(grant);
                LeaseOutcome::Granted
            }
            LeaseResponse::Found(entry) => match self.after_lease_found(run, entry, computation) {
                Ok(step) => return step,
                Err(unused) => {
                    computation = unused;
                    LeaseOutcome::Found
                }
            },
            LeaseResponse::Busy => {
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
        Step::Next(self.start_computing(computation))
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
        let request = computation.lease_request;
        let may_retry = request.is_none_or(|request| request.attempts < LEASE_ATTEMPTS_MAX);
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

    /// Enters the stage in which the function runs, or waits for its turn.
    fn start_computing(&self, mut computation: Box<Computation>) -> Stage<T> {
        if let Some(run) = self.run {
            begin(run, &mut computation);
        }
        match self.take_place(&mut computation) {
            None => Stage::Computing(computation),
            Some(turn) => Stage::Queued { turn, computation: Some(computation) },
        }
    }
}

/// Adds a computation to the table of running ones.
fn begin(run: &Run, computation: &mut Computation) {
    let counters = run.client.memo_counters();
    if computation.leader.is_none() {
        let unshared = flight::compute_unshared(counters.flight_group(), &run.key);
        computation.unshared = Some(unshared);
    }
    if let (Some(leader), None) = (&mut computation.leader, &computation.previous) {
        leader.lookup_missed();
    }
    if computation.is_refresh() {
        let is_ahead = computation.fresh().is_some();
        count(if is_ahead { &counters.refreshed_ahead } else { &counters.refreshed });
    }
}
