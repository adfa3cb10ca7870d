//! The completion of a computation: storing and publishing its value.

use std::time::Duration;

use bytes::Bytes;
use zerocache_core::metadata::{EntryKind, Metadata};
use zerocache_core::ttl::Ttl;
use zerocache_net::clock;

use super::chance;
use super::flight::{Leader, Progress};
use super::report::{CallOutcome, CallWrite};
use super::run::{Run, Steps};
use super::stage::{Computation, Stage, Step, Storing};
use super::stored::Payload;
use super::ttl;
use super::writing::{self, ReadyWrite, WriteContext, WriteOutcome};
use crate::client::{ComputedPut, ReadPoint};
use crate::codec::CodecError;
use crate::counters::count;
use crate::{Error, ZerocacheClient};

/// A value as it is going to be stored.
struct Storable {
    payload: Payload,
    fresh: Duration,
    metadata: Metadata,
}

impl<T> Steps<'_, T> {
    /// Continues after the function has returned `value`.
    pub(super) fn after_compute(&mut self, value: T, mut computation: Computation) -> Step<T> {
        let begun = computation.function_run.take().map(|run| run.started);
        // Storing the value takes no place.
        computation.permit = None;
        let compute_time = begun.map(|begun| clock::elapsed().saturating_sub(begun));
        self.note(|report| report.compute_time = compute_time);
        let Some(run) = self.run else {
            return Step::Value(value);
        };
        let counters = run.client.memo_counters();
        count(&counters.computed);
        match self.storable(&run.client, &value) {
            Some(Ok(storable)) => self.store(run, value, storable, (computation, begun)),
            Some(Err(error)) => {
                self.encoding_failed(run, error);
                complete_unstored(computation, Progress::Nothing);
                Step::Value(value)
            }
            None => self.skip_store(run, value, computation),
        }
    }

    /// Completes the computation of one of many values. Returns the write that is left to do, if any.
    pub(super) fn prepare_write(
        &mut self,
        value: &T,
        mut computation: Computation,
    ) -> Option<ReadyWrite> {
        let run = self.run?;
        let begun = computation.function_run.take().map(|run| run.started);
        count(&run.client.memo_counters().computed);
        match self.storable(&run.client, value) {
            Some(Ok(storable)) => {
                return Some(self.ready_write(run, storable, (computation, begun)));
            }
            Some(Err(error)) => self.encoding_failed(run, error),
            None => {}
        }
        complete_unstored(computation, Progress::Nothing);
        None
    }

    fn encoding_failed(&mut self, run: &Run, error: CodecError) {
        count(&run.client.memo_counters().write_errors);
        tracing::debug!(%error, "cannot encode a memoized value");
        run.warned_site().warn(&error);
        self.note(|report| report.write = Some(CallWrite::Failed(error.into())));
    }

    /// Returns what is to be stored of a value, if anything.
    fn storable(
        &self,
        client: &ZerocacheClient,
        value: &T,
    ) -> Option<Result<Storable, CodecError>> {
        let counters = client.memo_counters();
        let destination = client.destination(self.options.codec);
        if (self.policy.is_error)(value) {
            let more = self.options.more.as_deref();
            let rule = more?.error.as_ref().filter(|rule| rule.is_kept.holds(value))?;
            let fresh = self.with_jitter(ttl::checked(rule.lifetime, counters)?);
            return Some((rule.encode)(value, destination)?.and_then(|bytes| {
                let metadata = self.negative_metadata()?;
                count(&counters.negative_stored);
                let payload = Payload { bytes, kind: EntryKind::Error };
                Ok(Storable { payload, fresh, metadata })
            }));
        }
        if self.options.cache_if.as_ref().is_some_and(|predicate| !predicate.holds(value)) {
            count(&counters.not_stored);
            return None;
        }
        let none = self.options.none.as_ref().filter(|none| (none.is_none)(value));
        let fresh = self.with_jitter(match none {
            Some(none) => ttl::checked(none.lifetime, counters)?,
            None => self.ttl.apply(value, counters)?,
        });
        let encoded = (self.policy.encode)(value, destination)?;
        Some(encoded.and_then(|bytes| {
            let mut fresh = fresh;
            let metadata = match none {
                Some(_) => self.negative_metadata()?,
                None => self.value_metadata(&mut fresh)?,
            };
            if none.is_some() {
                count(&counters.negative_stored);
            }
            Ok(Storable { payload: Payload::value(bytes), fresh, metadata })
        }))
    }

    fn with_jitter(&self, fresh: Duration) -> Duration {
        match self.options.jitter {
            0 => fresh,
            percent => chance::with_jitter(fresh, percent, chance::unit_interval()),
        }
    }

    /// Returns the metadata of an entry that is not served past its fresh time: its tags. A value that lacks one
    /// of its tags is not stored: a purge of that tag would miss it.
    fn negative_metadata(&self) -> Result<Metadata, CodecError> {
        let mut metadata = Metadata::default();
        let Some(run) = self.run else { return Ok(metadata) };
        for tag in self.options.all_tags() {
            metadata.add_tag(tag).map_err(|error| {
                count(&run.client.memo_counters().tags_rejected);
                CodecError::Encode(format!("its tag {tag:.40?} is not allowed: {error}"))
            })?;
        }
        Ok(metadata)
    }

    /// Returns the metadata of a value: its tags, stale times, refresh-ahead time and time to idle, which may shorten
    /// its fresh time.
    fn value_metadata(&self, fresh: &mut Duration) -> Result<Metadata, CodecError> {
        let mut metadata = self.negative_metadata()?;
        if let (Some(idle), Ok(most)) = (self.options.time_to_idle(), Ttl::try_from(*fresh)) {
            *fresh = Duration::from_millis(metadata.set_idle(idle, most).as_millis());
        }
        let fresh_ms = u64::try_from(fresh.as_millis()).unwrap_or(u64::MAX);
        metadata.stale_while_ms = self.options.stale_while_ms;
        metadata.stale_if_error_ms = self.options.stale_if_error_ms;
        metadata.refresh_ahead_ms = self.options.refresh_ahead_ms.min(fresh_ms);
        if let Ok(fresh) = Ttl::try_from(*fresh) {
            metadata.shorten_stale(fresh);
        }
        Ok(metadata)
    }

    fn store(
        &mut self,
        run: &Run,
        value: T,
        storable: Storable,
        computation: (Computation, Option<Duration>),
    ) -> Step<T> {
        let ReadyWrite { put, context, unshared, is_superseded } =
            self.ready_write(run, storable, computation);
        let key = put.key.clone();
        let ack = self.options.ack.unwrap_or_default();
        let mut put = run.client.computed_put(put).ack(ack).near(self.options.near.is_some());
        if let Some(deadline) = self.options.deadline {
            put = put.deadline(deadline);
        }
        let write =
            if is_superseded { None } else { writing::store(&run.client, &run.key, put, context) };
        // The table holds the pending write instead of the computation.
        drop(unshared);
        match write {
            Some(write) => {
                let (value, started) = (Some(value), clock::elapsed());
                Step::Next(Stage::Storing(Box::new(Storing { write, value, key, started })))
            }
            None => {
                self.note(|report| report.write = Some(CallWrite::NotStored));
                Step::Value(value)
            }
        }
    }

    /// Publishes a value, and returns what is left: to write it.
    fn ready_write(
        &self,
        run: &Run,
        storable: Storable,
        (mut computation, begun): (Computation, Option<Duration>),
    ) -> ReadyWrite {
        let Storable { payload, mut fresh, mut metadata } = storable;
        metadata.kind = payload.kind;
        let key = computation.key(&run.key).clone();
        if let Some(base) = &computation.base {
            fresh = base.limit(fresh, &mut metadata, clock::mono());
        }
        if let Some(leader) = &mut computation.leader {
            leader.publish_fresh(payload.clone(), fresh);
        }
        let invalidation = computation.invalidation();
        // A leader that began later and was done earlier has the newer value.
        let is_superseded = computation.leader.as_ref().is_some_and(Leader::is_superseded);
        let is_shape_entry = computation.base.is_some();
        let Computation { leader, unshared, grant, known, unstored, .. } = computation;
        let from = begun.zip(known).map(|(at, known)| ReadPoint { at, known });
        let put = ComputedPut { key, bytes: payload.bytes, fresh, metadata, from, unstored };
        let context = WriteContext { invalidation, leader, grant, is_shape_entry };
        ReadyWrite { put, context, unshared, is_superseded }
    }

    /// Completes a call whose value is not stored. If the function failed, the previous value may be served.
    fn skip_store(&mut self, run: &Run, value: T, computation: Computation) -> Step<T> {
        self.note(|report| report.write = Some(CallWrite::NotStored));
        if !(self.policy.is_error)(&value) {
            complete_unstored(computation, Progress::Nothing);
            return Step::Value(value);
        }
        match self.serve_on_error(run, computation) {
            Ok(previous) => Step::Value(previous),
            Err(computation) => {
                let shared = (self.policy.sharing.share)(&value);
                complete_unstored(*computation, shared.map_or(Progress::Nothing, Progress::Failed));
                Step::Value(value)
            }
        }
    }

    /// Completes a computation that failed with its previous value, if that may be served.
    pub(super) fn serve_on_error(
        &mut self,
        run: &Run,
        computation: Computation,
    ) -> Result<T, Box<Computation>> {
        let previous = computation.previous.as_ref();
        let servable = previous.filter(|entry| entry.is_servable_on_error(clock::mono()));
        if let Some(entry) = servable
            && let Ok(previous) = entry.payload.decode(self.policy)
        {
            count(&run.client.memo_counters().stale_on_error);
            self.note(|report| report.outcome = CallOutcome::StaleOnError);
            let progress = Progress::Stale(entry.payload.clone());
            complete_unstored(computation, progress);
            return Ok(previous);
        }
        Err(Box::new(computation))
    }

    /// Continues after a write of `key` that began at `started`.
    pub(super) fn after_write(&mut self, outcome: WriteOutcome, key: &Bytes, started: Duration) {
        let Some(run) = self.run else { return };
        if let Some(Err(error @ Error::Refused(_))) = &outcome {
            run.warned_site().warn(error);
        }
        self.note(|report| {
            let time = || clock::elapsed().saturating_sub(started);
            report.write_time = outcome.is_some().then(time);
            // If no node answered, the node is unknown.
            if matches!(&outcome, Some(Ok(written)) if written.replicas_wanted > 0) {
                report.write_node = run.client.reported_writer(key);
            }
            report.write = Some(match outcome {
                Some(Ok(written)) => CallWrite::Written(written),
                Some(Err(error)) => CallWrite::Failed(error),
                None => CallWrite::NotStored,
            });
        });
    }
}

/// Completes a computation whose value is not stored.
pub(super) fn complete_unstored(computation: Computation, progress: Progress) {
    if let Some(grant) = computation.grant {
        grant.fail();
    }
    if let Some(mut leader) = computation.leader {
        leader.publish(progress);
    }
}
