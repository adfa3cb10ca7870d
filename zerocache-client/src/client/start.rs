//! How operations begin: on the fast path where that can be done, and as work of their own otherwise.

use std::{future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use tracing::{Instrument, Span, debug_span, field::Empty};
use zerocache_core::{
    client::{ReadOptions, ReadRules, WriteRules},
    wire::Written,
};
use zerocache_net::clock;

use super::{
    Life, Live, Running, ZerocacheClient,
    drive::{FirstAttempt, Unsent},
    engine::Engine,
    entry::ReadAnswer,
    millis,
    near_read::NearRead,
    report::ExplainedGet,
    timings::End,
    valid,
    writes::WriteRequest,
};
use crate::{Error, wait};

/// Whether spans of operations are recorded.
fn is_traced() -> bool {
    tracing::enabled!(tracing::Level::DEBUG)
}

/// Records the outcome of a read in its span.
fn record_read(span: &Span, read: &Result<ReadAnswer, Error>) {
    if let Ok(ReadAnswer { entry: Some(entry), .. }) = read {
        span.record("tier", entry.tier.as_str());
    }
    span.record("outcome", End::of_read(read).as_str());
}

impl ZerocacheClient {
    /// Makes an operation of `work`, which begins when it is first polled.
    pub(super) fn run<T, F>(&self, work: impl FnOnce(Arc<Engine>) -> F) -> Running<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        match self.live() {
            Ok(live) => {
                // The client lives as long as what runs for it.
                let (work, keep) = (work(Arc::clone(&live.engine)), Arc::clone(&self.inner));
                Running::new(live.background.clone(), async move {
                    let _keep = keep;
                    work.await
                })
            }
            Err(error) => Running::failed(error.clone()),
        }
    }

    /// The client, if an operation may begin on the fast path: that has no place for a span, and needs a
    /// caller whose task is woken.
    pub(super) fn fast_path(&self) -> Option<&Live> {
        let live = self.live().ok()?;
        (!wait::is_blocking() && !is_traced()).then_some(live)
    }

    /// The engine of an operation that has begun in this process. One that was begun before a fork is the
    /// parent's.
    pub(super) fn present_engine(&self) -> Option<&Arc<Engine>> {
        match self.inner.present_life() {
            Some(Life { live: Ok(live), .. }) => Some(&live.engine),
            _ => None,
        }
    }

    /// Drives a read that has begun.
    pub(super) fn drive_get(
        &self,
        key: Bytes,
        options: ReadOptions,
        read: Unsent<ReadRules>,
    ) -> Running<ReadAnswer> {
        self.run(move |engine| async move { engine.finish_get(&valid(key)?, options, read).await })
    }

    pub(super) fn start_get(
        &self,
        key: Bytes,
        options: ReadOptions,
        deadline: Option<Duration>,
    ) -> Running<ReadAnswer> {
        let total_ms = self.total_ms(deadline);
        let span =
            debug_span!("zerocache_get", region = self.region(), outcome = Empty, tier = Empty);
        let recorded = span.clone();
        self.run(move |engine| {
            let read = async move {
                let read = engine.get(&valid(key)?, options, total_ms).await;
                record_read(&recorded, &read);
                read
            };
            read.instrument(span)
        })
    }

    pub(super) fn start_explain(
        &self,
        key: Bytes,
        options: ReadOptions,
        mut near: NearRead,
        deadline: Option<Duration>,
    ) -> Running<ExplainedGet> {
        let total_ms = self.total_ms(deadline);
        self.run(move |engine| async move {
            let (key, started) = (valid(key)?, clock::elapsed());
            if let Some(entry) = near.find(&engine.local, key.as_bytes(), options.at_least) {
                return Ok(ExplainedGet::near(entry, clock::elapsed().saturating_sub(started)));
            }
            let explained = engine.explain(&key, options, total_ms).await;
            if let Ok(entry) = &explained.result {
                let answer = (entry.as_ref(), explained.is_doubtful);
                near.answered(&engine.local, key.as_bytes(), answer);
            }
            Ok(explained)
        })
    }

    /// The size in bytes above which values are compressed; none for never.
    pub(super) fn compress_above(&self) -> Option<usize> {
        self.live().ok()?.engine.config.compress_above
    }

    /// Drives a write that has begun, to its end.
    pub(super) fn drive_write(
        &self,
        request: WriteRequest,
        write: Unsent<WriteRules>,
    ) -> Running<Written> {
        let run = self.run(move |engine| async move { engine.finish_write(request, write).await });
        run.continue_in_background()
    }

    /// Drives a write that has been sent to its end without its caller.
    pub(super) fn finish_write(&self, request: WriteRequest, write: FirstAttempt<WriteRules>) {
        let Some(engine) = self.present_engine().cloned() else { return };
        let keep = Arc::clone(&self.inner);
        engine.runtime.clone().spawn(async move {
            let _keep = keep;
            // The caller that wanted to know has gone.
            let _written = engine.finish_sent_write(request, write).await;
        });
    }

    pub(super) fn start_write(
        &self,
        request: WriteRequest,
        deadline: Option<Duration>,
    ) -> Running<Written> {
        let total_ms = self.total_ms(deadline);
        let span = debug_span!("zerocache_write", region = self.region(), outcome = Empty);
        let recorded = span.clone();
        let running = self.run(move |engine| {
            let write = async move {
                let written = engine.write(request, total_ms).await;
                recorded.record("outcome", End::of_write(&written).as_str());
                written
            };
            write.instrument(span)
        });
        running.continue_in_background()
    }

    pub(super) fn total_ms(&self, deadline: Option<Duration>) -> u64 {
        let configured = || match self.live() {
            Ok(live) => live.engine.config.bounds.total_ms,
            Err(_) => 0,
        };
        deadline.map_or_else(configured, |deadline| millis(deadline).max(1))
    }
}
