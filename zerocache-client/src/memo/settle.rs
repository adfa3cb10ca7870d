//! The last steps of a running call: what becomes of a value that was computed.

use std::time::Duration;

use bytes::Bytes;
use zerocache_core::metadata::{EntryKind, Metadata};
use zerocache_core::ttl::Ttl;
use zerocache_net::clock;

use super::flight::{Lead, Progress};
use super::freshness;
use super::report::{CallOutcome, CallWrite};
use super::run::{Run, Steps};
use super::stage::{Computation, Stage, Step, Storing};
use super::stored::Form;
use super::ttl;
use super::writing::{self, Outcome, Right};
use crate::Error;
use crate::codec::CodecError;
use crate::counters::{MemoCounters, count};

/// What is to be stored of a value.
struct Kept {
    form: Form,
    fresh: Duration,
    metadata: Metadata,
}

impl<T> Steps<'_, T> {
    /// After the function has run.
    pub(super) fn computed(&mut self, value: T, mut computation: Computation) -> Step<T> {
        let computing = computation.begun.take().map(|begun| begun.at);
        let computing = computing.map(|at| clock::elapsed().saturating_sub(at));
        self.note(|report| report.computing = computing);
        let Some(run) = self.run else {
            return Step::Value(value);
        };
        let counters = run.client.memo_counters();
        count(&counters.computed);
        match self.keep(&value, counters) {
            Some(Ok(kept)) => self.store(run, value, kept, computation),
            Some(Err(error)) => {
                count(&counters.write_errors);
                tracing::debug!(%error, "a memoized value cannot be stored");
                if let Some(site) = run.site {
                    site.warn(&error);
                }
                self.note(|report| report.write = Some(CallWrite::Failed(error.into())));
                leave(computation, Progress::Nothing);
                Step::Value(value)
            }
            None => self.leave(run, value, computation),
        }
    }

    /// What is to be stored of a value, if anything.
    fn keep(&self, value: &T, counters: &MemoCounters) -> Option<Result<Kept, CodecError>> {
        if (self.policy.failed)(value) {
            let more = self.options.more.as_deref();
            let rule = more?.error.as_ref().filter(|rule| rule.keeps.holds(value))?;
            let fresh = self.lifetime(ttl::checked(rule.lifetime, counters)?);
            return Some((rule.encode)(value)?.map(|bytes| {
                count(&counters.negative_stored);
                let form = Form { bytes, kind: EntryKind::Error };
                Kept { form, fresh, metadata: self.tagged() }
            }));
        }
        if self.options.cache_if.as_ref().is_some_and(|ask| !ask.holds(value)) {
            count(&counters.not_stored);
            return None;
        }
        let none = self.options.none.as_ref().filter(|none| (none.is_none)(value));
        let fresh = self.lifetime(match none {
            Some(none) => ttl::checked(none.lifetime, counters)?,
            None => self.ttl.apply(value, counters)?,
        });
        let bytes = match (self.policy.encode)(value)? {
            Ok(bytes) => bytes,
            Err(error) => return Some(Err(error)),
        };
        let metadata = if none.is_some() {
            count(&counters.negative_stored);
            self.tagged()
        } else {
            self.lasting(fresh)
        };
        Some(Ok(Kept { form: Form::value(bytes), fresh, metadata }))
    }

    fn lifetime(&self, fresh: Duration) -> Duration {
        match self.options.jitter {
            0 => fresh,
            percent => freshness::shortened(fresh, percent, freshness::chance()),
        }
    }

    /// What is said of every entry. What is kept because there is nothing better gets no more: it is
    /// not served past its time.
    fn tagged(&self) -> Metadata {
        let mut metadata = Metadata::default();
        if let Some(run) = self.run {
            for tag in self.options.all_tags() {
                if let Err(error) = metadata.add_tag(tag) {
                    count(&run.client.memo_counters().tags_refused);
                    tracing::debug!(%error, "a tag of a memoized value is left out");
                }
            }
        }
        metadata
    }

    /// What is said of a value.
    fn lasting(&self, fresh: Duration) -> Metadata {
        let fresh_ms = u64::try_from(fresh.as_millis()).unwrap_or(u64::MAX);
        let mut metadata = self.tagged();
        metadata.stale_while_ms = self.options.stale_while_ms;
        metadata.stale_if_error_ms = self.options.stale_if_error_ms;
        metadata.refresh_ahead_ms = self.options.refresh_ahead_ms.min(fresh_ms);
        if let Ok(fresh) = Ttl::try_from(fresh) {
            metadata.shorten_stale(fresh);
        }
        metadata
    }

    fn store(&mut self, run: &Run, value: T, kept: Kept, mut computation: Computation) -> Step<T> {
        let Kept { form, mut fresh, mut metadata } = kept;
        metadata.kind = form.kind;
        let key = computation.key(&run.key).clone();
        if let Some(base) = &computation.base {
            fresh = base.bound(fresh, &mut metadata, clock::mono());
        }
        if let Some(lead) = &mut computation.lead {
            lead.publish_fresh(form.clone(), fresh);
        }
        let void = computation.void();
        // Who began to lead later and was done sooner has the newer value.
        let is_late = computation.lead.as_ref().is_some_and(Lead::is_late);
        let is_beside = computation.base.is_some();
        let Computation { lead, aside, token, .. } = computation;
        let mut put = run.client.raw_put(key.clone(), form.bytes, fresh, metadata);
        put = put.ack(self.options.ack.unwrap_or_default()).near(self.options.near.is_some());
        if let Some(deadline) = self.options.deadline {
            put = put.deadline(deadline);
        }
        let right = Right { void, lead, token, is_beside };
        let put = if is_late { None } else { writing::store(&run.client, &run.key, put, right) };
        // What is being written is known by itself.
        drop(aside);
        match put {
            Some(put) => Step::Next(Stage::Storing(Box::new(Storing {
                put,
                value: Some(value),
                key,
                at: clock::elapsed(),
            }))),
            None => {
                self.note(|report| report.write = Some(CallWrite::Left));
                Step::Value(value)
            }
        }
    }

    /// Nothing is stored. Where the function failed, an older value may stand in.
    fn leave(&mut self, run: &Run, value: T, computation: Computation) -> Step<T> {
        self.note(|report| report.write = Some(CallWrite::Left));
        if !(self.policy.failed)(&value) {
            leave(computation, Progress::Nothing);
            return Step::Value(value);
        }
        let counters = run.client.memo_counters();
        let old = computation.old.as_ref().filter(|old| old.serves_on_error(clock::mono()));
        if let Some(old) = old
            && let Ok(older) = old.form.decode(self.policy)
        {
            count(&counters.served_on_error);
            self.note(|report| report.outcome = CallOutcome::StaleOnError);
            let progress = Progress::Old(old.form.clone());
            leave(computation, progress);
            return Step::Value(older);
        }
        let shared = (self.policy.sharing.share)(&value);
        leave(computation, shared.map_or(Progress::Nothing, Progress::Failed));
        Step::Value(value)
    }

    /// After a write of this key that began at this time; none if it was not sent.
    pub(super) fn written(&mut self, outcome: Outcome, key: &Bytes, began: Duration) {
        let Some(run) = self.run else { return };
        if let (Some(Err(error @ Error::Refused(_))), Some(site)) = (&outcome, run.site) {
            site.warn(error);
        }
        self.note(|report| {
            report.writing = outcome.is_some().then(|| clock::elapsed().saturating_sub(began));
            // Of one that no node answered nothing is known.
            if matches!(&outcome, Some(Ok(written)) if written.replicas_wanted > 0) {
                report.write_node = run.client.reported_writer(key);
            }
            report.write = Some(match outcome {
                Some(Ok(written)) => CallWrite::Written(written),
                Some(Err(error)) => CallWrite::Failed(error),
                None => CallWrite::Left,
            });
        });
    }
}

/// Ends a computation of which nothing is stored.
fn leave(computation: Computation, progress: Progress) {
    if let Some(token) = computation.token {
        token.fail();
    }
    if let Some(mut lead) = computation.lead {
        lead.publish(progress);
    }
}
