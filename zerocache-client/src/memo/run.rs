//! The steps of a running call: from its first poll to what it looked up.
//!
//! Look, or wait for who looks; ask for leave; compute; publish to those who wait; store. What a step
//! needs of the function is in its [`Policy`]; none of it is bound to the future that computes.

use std::time::Duration;

use bytes::Bytes;
use zerocache_core::metadata::Freshness;
use zerocache_core::version::Incarnation;
use zerocache_net::clock;

use super::args::Args;
use super::compute;
use super::flight::{self, Lead, Progress};
use super::freshness;
use super::key::CallKey;
use super::leading;
use super::lease::{self, Leased};
use super::look::{Found, How, Looked, look, look_alone, look_beside};
use super::options::{LeaseRule, Options};
use super::report::{Beside, CallOutcome, CallReport, LeaseOutcome, Mismatch};
use super::rule::Policy;
use super::site::Site;
use super::stage::{Asked, Computation, Stage, Step};
use super::stored::{Base, Form, Stored};
use super::target::Target;
use super::ttl::TtlRule;
use crate::ZerocacheClient;
use crate::client::LeaseTerms;
use crate::client::{ReadOutcome, ReadReport};
use crate::codec::CodecError;
use crate::counters::count;

/// How often one call asks for leave: again when it is given a value that it cannot use. That is one of
/// another shape under the call's key, and then one beside it that belongs to an earlier version of it.
const ASKS_MAX: u8 = 3;

/// Where a call's value is.
#[derive(Clone)]
pub(super) struct Entry {
    pub(super) site: &'static Site,
    pub(super) target: Target,
    /// None for a call that cannot have a key, or whose key was given.
    pub(super) identity: Option<CallKey>,
    /// A key that was given as it is, and the client to use.
    pub(super) given: Option<Box<Given>>,
}

/// A key, and the client to use whatever the scope.
#[derive(Clone)]
pub(super) struct Given {
    pub(super) client: ZerocacheClient,
    pub(super) key: Bytes,
}

impl Entry {
    /// Of a call of the function at `site`.
    #[inline]
    pub(super) fn new(site: &'static Site, target: Target, args: Args) -> Self {
        Entry { site, target, identity: args.into_key(), given: None }
    }

    pub(super) fn client(&self) -> ZerocacheClient {
        match &self.given {
            Some(given) => given.client.clone(),
            None => self.target.resolve(),
        }
    }

    pub(super) fn key(&self, client: &ZerocacheClient) -> Option<Bytes> {
        if let Some(given) = &self.given {
            return Some(given.key.clone());
        }
        Some(self.identity.as_ref()?.to_bytes(client.namespace()))
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Cached,
    Refresh,
    Uncached,
    /// Begun by a caller who has its value, and counted there.
    Behind,
}

/// The client and key that a running call uses.
pub(super) struct Run {
    /// None for a key that was given, which stands for no one type.
    pub(super) site: Option<&'static Site>,
    pub(super) client: ZerocacheClient,
    pub(super) key: Bytes,
}

impl Run {
    /// Says that functions of two shapes use the cache side by side; not too often.
    fn warn_of_shape(&self, error: &CodecError) {
        self.site.unwrap_or(&compute::SITE).warn_of_shape(error);
    }

    pub(super) fn enter(&self) -> leading::Entered {
        leading::enter(self.client.memo_counters().flight_group(), &self.key)
    }
}

/// The client and key, unless the call goes without the cache.
pub(super) fn start(entry: &Entry, mode: Mode) -> Option<Run> {
    if mode == Mode::Uncached {
        return None;
    }
    let client = entry.client();
    match entry.key(&client) {
        Some(key) => {
            let site = entry.given.is_none().then_some(entry.site);
            Some(Run { site, client, key })
        }
        None => {
            count(&client.memo_counters().unkeyed);
            None
        }
    }
}

/// What the steps of a call work with.
pub(super) struct Steps<'a, T> {
    /// None for a call without the cache.
    pub(super) run: Option<&'a Run>,
    pub(super) policy: &'a Policy<T>,
    pub(super) ttl: &'a TtlRule<T>,
    pub(super) options: &'a Options<T>,
    /// The caller has its value already.
    pub(super) behind: bool,
    /// None unless the call is to be explained.
    pub(super) report: Option<&'a mut CallReport>,
}

impl<T> Steps<'_, T> {
    pub(super) fn note(&mut self, note: impl FnOnce(&mut CallReport)) {
        if let Some(report) = &mut self.report {
            note(report);
        }
    }

    fn came_to(&mut self, outcome: CallOutcome) {
        self.note(|report| report.outcome = outcome);
    }

    /// How to look.
    fn how(&self, blocking: bool) -> How {
        How {
            blocking,
            near: self.options.near,
            lease_wait: self.options.lease_wait(),
            deadline: self.options.deadline,
            explain: self.report.is_some(),
        }
    }

    /// What a call does first; whether its caller sleeps on its thread.
    pub(super) fn first(&mut self, mode: Mode, blocking: bool) -> Stage<T> {
        let Some(run @ Run { client, key, .. }) = self.run else {
            return Stage::Computing(Box::default());
        };
        let group = client.memo_counters().flight_group();
        if mode == Mode::Refresh {
            // What is on its way into the cache ends before this call's value is written.
            flight::void(group, key);
            self.came_to(CallOutcome::Refreshed);
            return begin(run, Box::default());
        }
        if leading::contains(group, key) {
            // Our own caller computes this key: waiting for it would be waiting for ourselves.
            self.came_to(CallOutcome::Miss);
            return begin(run, Box::default());
        }
        Stage::Looking(Box::pin(look(client.clone(), key.clone(), self.how(blocking))))
    }

    /// After looking.
    pub(super) fn found(&mut self, looked: Looked) -> Step<T> {
        let Some(run) = self.run else {
            return Step::Next(Stage::Computing(Box::default()));
        };
        let counters = run.client.memo_counters();
        let Looked { found, lead, read, base } = looked;
        let near = read.as_ref().is_some_and(|read| read.outcome == ReadOutcome::Near);
        self.note_read(read, &found, base.as_deref());
        match found {
            Found::Entry(stored) => self.judge(run, stored, base, lead, near),
            Found::Joined { form, old } => match form.decode(self.policy) {
                Ok(value) => {
                    count(if old { &counters.stale_served } else { &counters.joined });
                    self.came_to(if old { CallOutcome::Stale } else { CallOutcome::Coalesced });
                    Step::Value(value)
                }
                // Of a call with another type for the same key, which may store it under that.
                Err(_) => {
                    let (client, key) = (run.client.clone(), run.key.clone());
                    let looking = look_alone(client, key, self.how(false));
                    Step::Next(Stage::Looking(Box::pin(looking)))
                }
            },
            Found::Failed(error) => match (self.policy.sharing.unshare)(&error) {
                Some(value) => {
                    count(&counters.joined);
                    self.came_to(CallOutcome::Coalesced);
                    Step::Value(value)
                }
                None => self.missed(run, None, None, None),
            },
            Found::Nothing(old) => {
                count(&counters.misses);
                self.missed(run, lead, old, base)
            }
        }
    }

    fn note_read(&mut self, read: Option<ReadReport>, found: &Found, base: Option<&Base>) {
        self.note(|report| match (base, &mut report.mismatch) {
            (Some(base), Some(mismatch)) => {
                mismatch.beside = match (found, base.over, &read) {
                    (Found::Entry(_), ..) => Beside::Found,
                    (_, Some(_), _) => Beside::Outdated,
                    (.., Some(read)) if read.outcome == ReadOutcome::Failed => Beside::NotReached,
                    _ => Beside::Nothing,
                };
                mismatch.read = read;
            }
            _ => report.read = read,
        });
    }

    /// What an entry may be used for, by its age. `base` is the one beside which it was looked for.
    fn judge(
        &mut self,
        run: &Run,
        stored: Stored,
        base: Option<Box<Base>>,
        lead: Option<Lead>,
        near: bool,
    ) -> Step<T> {
        let counters = run.client.memo_counters();
        let value = match stored.form.decode(self.policy) {
            Ok(value) => value,
            Err(error) => return self.unreadable(run, (stored, error), base, lead),
        };
        let now = clock::mono();
        match (stored.freshness(now), lead) {
            (Freshness::Fresh, lead) => {
                let (fresh_ms, ahead_ms) = stored.ahead_ms(now);
                if let Some(mut lead) = lead {
                    if ahead_ms > 0 && freshness::is_due(fresh_ms, ahead_ms, freshness::chance()) {
                        return self.refresh(run, lead, stored, base);
                    }
                    lead.publish(Progress::Value(stored.form.clone()));
                }
                count(&counters.hits);
                if base.is_some() {
                    count(&counters.hits_beside);
                }
                if stored.form.is_error() {
                    count(&counters.negative_hits);
                }
                self.came_to(if near { CallOutcome::Near } else { CallOutcome::Hit });
                Step::Value(value)
            }
            (Freshness::Stale, Some(lead)) => self.refresh(run, lead, stored, base),
            // Who leads computes it anew.
            (Freshness::Stale, None) => {
                count(&counters.stale_served);
                self.came_to(CallOutcome::Stale);
                Step::Value(value)
            }
            // `OnlyOnError`, or what a later release adds.
            (_, lead) => {
                count(&counters.misses);
                self.missed(run, lead, Some(stored), base)
            }
        }
    }

    /// An entry that the function cannot read: the base entry, or what was looked for beside that.
    fn unreadable(
        &mut self,
        run: &Run,
        (stored, error): (Stored, CodecError),
        base: Option<Box<Base>>,
        lead: Option<Lead>,
    ) -> Step<T> {
        let Some(mut base) = base else {
            let base = self.mismatched(run, stored, error);
            let looking = look_beside(run.client.clone(), base, self.how(false), lead);
            return Step::Next(Stage::Looking(Box::pin(looking)));
        };
        // Damaged: what is written beside the base entry is of this shape. It is replaced.
        tracing::debug!(%error, "a stored value is damaged");
        count(&run.client.memo_counters().misses);
        base.over = Some(stored.version);
        self.missed(run, lead, None, Some(base))
    }

    /// The base entry holds what this function cannot read: it stays for those who can.
    fn mismatched(&mut self, run: &Run, stored: Stored, error: CodecError) -> Box<Base> {
        count(&run.client.memo_counters().mismatched);
        run.warn_of_shape(&error);
        let version = stored.version;
        let beside = Beside::NotLookedFor;
        self.note(|report| {
            report.mismatch = Some(Mismatch { error, version, beside, read: None });
        });
        Base::new(&run.key, self.policy.shape(), stored)
    }

    /// Computes anew what may still be served; the others see it from now on.
    fn refresh(
        &mut self,
        run: &Run,
        mut lead: Lead,
        old: Stored,
        base: Option<Box<Base>>,
    ) -> Step<T> {
        lead.publish(Progress::Computing(old.clone()));
        self.came_to(CallOutcome::Refreshed);
        Step::Next(self.compute(run, Computation::new(Some(lead), Some(old)).beside(base)))
    }

    fn missed(
        &mut self,
        run: &Run,
        mut lead: Option<Lead>,
        old: Option<Stored>,
        base: Option<Box<Base>>,
    ) -> Step<T> {
        if let (Some(lead), Some(old)) = (&mut lead, &old) {
            // For those who wait longer than they may.
            lead.publish(Progress::Computing(old.clone()));
        }
        self.came_to(CallOutcome::Miss);
        Step::Next(self.compute(run, Computation::new(lead, old).beside(base)))
    }

    fn compute(&mut self, run: &Run, mut computation: Box<Computation>) -> Stage<T> {
        let leads = computation.lead.is_some();
        let Some(rule) = self.options.lease.filter(|_| leads) else {
            return begin(run, computation);
        };
        if let Some(old) = computation.fresh() {
            // It is to be replaced although it is fresh.
            computation.over = Some(old.version);
        }
        self.ask(run, rule, computation)
    }

    /// Asks for leave to compute; where something may be served nobody is waited for.
    fn ask(&self, run: &Run, rule: LeaseRule, mut computation: Box<Computation>) -> Stage<T> {
        let at = clock::elapsed();
        let most =
            if computation.is_refresh() { Duration::ZERO } else { self.options.lease_wait() };
        let first = Asked { times: 0, at, until: at.saturating_add(most) };
        let asked = computation.asked.get_or_insert(first);
        asked.times += 1;
        let wait = asked.until.saturating_sub(at);
        let (scope, life, over) = (rule.scope, rule.life(), computation.over);
        let terms = LeaseTerms { scope, life, wait, over, deadline: self.options.deadline };
        let key = computation.key(&run.key).clone();
        let asking = Box::pin(lease::ask(run.client.clone(), key, terms));
        Stage::Leasing { asking, computation: Some(computation) }
    }

    /// The caller has the old value; what computes goes on without it.
    pub(super) fn left_behind(&mut self, computation: &Computation) {
        let Some(run) = self.run else { return };
        let counters = run.client.memo_counters();
        if computation.fresh().is_some() {
            count(&counters.hits);
            self.came_to(CallOutcome::Hit);
        } else {
            count(&counters.stale_served);
            self.came_to(CallOutcome::Stale);
        }
    }

    /// After asking for leave.
    pub(super) fn leased(
        &mut self,
        (leased, node): (Leased, Option<Incarnation>),
        mut computation: Box<Computation>,
    ) -> Step<T> {
        let Some(run) = self.run else {
            return Step::Next(Stage::Computing(computation));
        };
        let asked = computation.asked;
        self.note(|report| {
            report.leasing = asked.map(|asked| clock::elapsed().saturating_sub(asked.at));
            report.lease_node = node.and_then(|node| run.client.reported(node));
        });
        let counters = run.client.memo_counters();
        let outcome = match leased {
            Leased::Token(token) => {
                count(&counters.leases);
                computation.token = Some(token);
                LeaseOutcome::Granted
            }
            // A node of an earlier release gives what is to be replaced.
            Leased::Found(stored) if computation.over >= Some(stored.version) => {
                LeaseOutcome::Found
            }
            Leased::Found(stored) => match self.given(run, stored, &mut computation) {
                Some((form, value)) => {
                    if !self.behind {
                        count(&counters.lease_found);
                    }
                    self.note(|report| report.lease = Some(LeaseOutcome::Found));
                    self.came_to(CallOutcome::Coalesced);
                    if let Some(mut lead) = computation.lead {
                        lead.publish(Progress::Value(form));
                    }
                    return Step::Value(value);
                }
                None => {
                    let again = asked.is_none_or(|asked| asked.times < ASKS_MAX);
                    if let Some(rule) = self.options.lease.filter(|_| again) {
                        return Step::Next(self.ask(run, rule, computation));
                    }
                    LeaseOutcome::Found
                }
            },
            Leased::Busy => {
                count(&counters.lease_busy);
                self.note(|report| report.lease = Some(LeaseOutcome::Busy));
                let old = computation.old.as_ref().filter(|old| old.serves(clock::mono()));
                if let Some(Ok(value)) = old.map(|old| old.form.decode(self.policy)) {
                    if !self.behind {
                        self.left_behind(&computation);
                    }
                    return Step::Value(value);
                }
                LeaseOutcome::Busy
            }
            Leased::Unavailable => {
                count(&counters.lease_unavailable);
                LeaseOutcome::Unavailable
            }
        };
        self.note(|report| report.lease = Some(outcome));
        Step::Next(begin(run, computation))
    }

    /// The value that a node gave instead of leave; none if it is of no use, and where the call's value is
    /// to be stored then.
    fn given(
        &mut self,
        run: &Run,
        stored: Stored,
        computation: &mut Computation,
    ) -> Option<(Form, T)> {
        let error = match (&computation.base, stored.form.decode(self.policy)) {
            (Some(base), Ok(_)) if !base.owns(&stored) => None,
            (_, Ok(value)) => return Some((stored.form, value)),
            (_, Err(error)) => Some(error),
        };
        match (&computation.base, error) {
            (None, Some(error)) => {
                (computation.base, computation.over) =
                    (Some(self.mismatched(run, stored, error)), None);
            }
            _ => computation.over = Some(stored.version),
        }
        None
    }
}

/// Has the function run.
fn begin<T>(run: &Run, mut computation: Box<Computation>) -> Stage<T> {
    let counters = run.client.memo_counters();
    if computation.lead.is_none() {
        computation.aside = Some(flight::aside(counters.flight_group(), &run.key));
    }
    if let (Some(lead), None) = (&mut computation.lead, &computation.old) {
        lead.computes();
    }
    if computation.is_refresh() {
        let ahead = computation.fresh().is_some();
        count(if ahead { &counters.refreshed_ahead } else { &counters.refreshed });
    }
    Stage::Computing(computation)
}
