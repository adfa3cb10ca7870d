//! The steps of a running call up to its computation.
//!
//! Lookup, or wait for the leader's value; wait for a place (`limit`); request a lease (`leasing`); compute; publish to
//! the followers; store. A step knows the function by its [`Policy`] alone, and is not bound to the future that
//! computes.

use bytes::Bytes;
use zerocache_core::metadata::Freshness;
use zerocache_net::clock;

use super::call_target::CallTarget;
use super::chance;
use super::compute;
use super::flight::{self, Leader, Progress, Waiting};
use super::limit::RunPermit;
use super::lookup::{
    Lookup, LookupOptions, LookupOutcome, lookup, lookup_shape_entry, lookup_unshared,
};
use super::options::Options;
use super::outage;
use super::recursion;
use super::report::{CallOutcome, CallReport, Mismatch, ShapeEntryOutcome};
use super::rule::Policy;
use super::site::Site;
use super::stage::{Computation, Stage, Step};
use super::stored::{BaseEntry, StoredEntry};
use super::ttl::TtlRule;
use crate::ZerocacheClient;
use crate::client::{ReadOutcome, ReadReport};
use crate::codec::CodecError;
use crate::counters::count;

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
    /// The value of the previous entry, if this poll has decoded it.
    pub(super) decoded: Option<&'a mut Option<T>>,
}

impl<T> Steps<'_, T> {
    pub(super) fn note(&mut self, note: impl FnOnce(&mut CallReport)) {
        if let Some(report) = &mut self.report {
            note(report);
        }
    }

    pub(super) fn set_outcome(&mut self, outcome: CallOutcome) {
        self.note(|report| report.outcome = outcome);
    }

    fn lookup_options(&self, waiting: Waiting) -> LookupOptions {
        LookupOptions {
            waiting,
            near: self.options.near,
            outage_ms: self.outage_ms(),
            lease_wait: self.options.lease_wait(),
            deadline: self.options.deadline,
            soft_wait: self.options.soft_wait(),
            explain: self.report.is_some(),
        }
    }

    /// Returns the first stage of a call, or its value during an outage. A `blocking` caller blocks its thread.
    pub(super) fn first_stage(&mut self, mode: Mode, blocking: bool) -> Step<T> {
        let Some(run) = self.run else {
            return Step::Next(self.compute(Box::default()));
        };
        let Run { client, key, .. } = run;
        let group = client.memo_counters().flight_group();
        if mode == Mode::Refresh {
            // Pending writes complete before this call's value is written.
            flight::invalidate(group, key);
            self.set_outcome(CallOutcome::Refreshed);
            return Step::Next(self.compute(Box::default()));
        }
        if let Some(value) = self.serve_outage(run) {
            return Step::Value(value);
        }
        if recursion::is_computing(group, key) {
            // This call's own caller computes the key: waiting for it would be a deadlock.
            self.set_outcome(CallOutcome::Miss);
            return Step::Next(self.compute(Computation::new(None, None, 0)));
        }
        let waiting = Waiting { blocking, inside_run: self.is_inside_run() };
        let options = self.lookup_options(waiting);
        Step::Next(Stage::LookingUp(Box::pin(lookup(client.clone(), key.clone(), options))))
    }

    pub(super) fn after_lookup(&mut self, lookup: Lookup) -> Step<T> {
        let Some(run) = self.run else {
            return Step::Next(self.compute(Box::default()));
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
                    let lookup =
                        lookup_unshared(client, key, self.lookup_options(Waiting::default()));
                    Step::Next(Stage::LookingUp(Box::pin(lookup)))
                }
            },
            LookupOutcome::Outage(payload) => self.after_outage(run, payload, leader),
            LookupOutcome::Failed(error) => match (self.policy.sharing.unshare)(&error) {
                Some(value) => {
                    count(&counters.coalesced);
                    self.set_outcome(CallOutcome::Coalesced);
                    Step::Value(value)
                }
                None => self.after_miss(None, (None, known), None),
            },
            LookupOutcome::Miss(fallback) => {
                count(&counters.misses);
                self.after_miss(leader, (fallback, known), base)
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
                if let Some(mut leader) = leader {
                    let (fresh_ms, ahead_ms) = entry.refresh_ahead_ms(now);
                    if ahead_ms > 0
                        && chance::is_refresh_due(fresh_ms, ahead_ms, chance::unit_interval())
                        && let Some(place) = self.place_to_refresh()
                    {
                        return self.refresh((leader, place), (entry, known), value, base);
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
            (Freshness::Stale, leader) => {
                if let Some(mut leader) = leader {
                    if let Some(place) = self.place_to_refresh() {
                        return self.refresh((leader, place), (entry, known), value, base);
                    }
                    leader.publish(Progress::Stale(entry.payload));
                }
                count(&counters.stale_served);
                self.set_outcome(CallOutcome::Stale);
                Step::Value(value)
            }
            // `OnlyOnError`, or what a later release adds.
            (_, leader) => {
                count(&counters.misses);
                self.keep_decoded(value);
                self.after_miss(leader, (Some(entry), known), base)
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
            let options = self.lookup_options(Waiting::default());
            let lookup = lookup_shape_entry(run.client.clone(), base, options, leader);
            return Step::Next(Stage::LookingUp(Box::pin(lookup)));
        };
        // A shape entry is of this function's shape: it is damaged, and is replaced.
        tracing::debug!(%error, "a stored value is damaged");
        count(&run.client.memo_counters().misses);
        base.replaces = Some(entry.version);
        self.after_miss(leader, (None, known), Some(base))
    }

    /// Notes a base entry that this function cannot decode. It is kept for functions that can.
    pub(super) fn shape_mismatch(
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

    /// Keeps a decoded previous value for this poll.
    pub(super) fn keep_decoded(&mut self, value: T) {
        if let Some(decoded) = &mut self.decoded {
            **decoded = Some(value);
        }
    }

    /// Returns the value that may be served while or instead of computing, as its own age permits.
    pub(super) fn previous_value(&mut self, computation: &Computation) -> Option<T> {
        let previous = computation.usable_previous()?;
        let decoded = self.decoded.as_mut().and_then(|decoded| decoded.take());
        decoded.or_else(|| previous.payload.decode(self.policy).ok())
    }

    /// Refreshes an entry that may still be served; followers see the entry from now on.
    fn refresh(
        &mut self,
        (mut leader, permit): (Leader, Option<RunPermit>),
        (previous, known): (StoredEntry, u64),
        value: T,
        base: Option<Box<BaseEntry>>,
    ) -> Step<T> {
        leader.publish(Progress::Computing(previous.clone()));
        self.set_outcome(CallOutcome::Refreshed);
        self.keep_decoded(value);
        let mut computation = Computation::new(Some(leader), Some(previous), known).with_base(base);
        computation.permit = permit;
        Step::Next(self.compute(computation))
    }

    pub(super) fn after_miss(
        &mut self,
        mut leader: Option<Leader>,
        (fallback, known): (Option<StoredEntry>, u64),
        base: Option<Box<BaseEntry>>,
    ) -> Step<T> {
        if let (Some(leader), Some(fallback)) = (&mut leader, &fallback) {
            // The fallback of followers whose whole wait expires.
            leader.publish(Progress::Computing(fallback.clone()));
        }
        self.set_outcome(CallOutcome::Miss);
        Step::Next(self.compute(Computation::new(leader, fallback, known).with_base(base)))
    }

    /// Takes a place for the computation, or waits for one. A lease is requested with the place: it would run out
    /// in the queue.
    fn compute(&mut self, mut computation: Box<Computation>) -> Stage<T> {
        if let Some(previous) = computation.fresh() {
            // It is refreshed although it is fresh.
            computation.replaces = Some(previous.version);
        }
        if self.take_place(&mut computation.permit) {
            self.compute_in_place(computation)
        } else {
            self.enter_queue(computation, true)
        }
    }

    /// Requests a lease, if the function wants one, and computes.
    pub(super) fn compute_in_place(&mut self, computation: Box<Computation>) -> Stage<T> {
        let rule = self.options.lease.filter(|_| computation.leader.is_some());
        match self.run.zip(rule) {
            Some((run, _)) if self.goes_without_lease(run) => self.run_function(computation),
            Some((run, rule)) => self.request_lease(run, rule, computation),
            None => self.run_function(computation),
        }
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

    /// Enters the stage in which the function runs.
    pub(super) fn run_function(&self, mut computation: Box<Computation>) -> Stage<T> {
        if let Some(run) = self.run {
            begin(run, &mut computation);
            // Nobody could say whether a shape entry belongs to the base entry.
            let outage_ms = if computation.base.is_none() { self.outage_ms() } else { 0 };
            computation.unstored = outage::begin_unstored(&run.client, &run.key, outage_ms);
        }
        Stage::Computing(computation)
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
