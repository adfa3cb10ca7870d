//! How operations begin: on the shortest way where that can be done, and as work of their own otherwise.

use std::{
    future::Future,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use tracing::{Instrument, Span, debug_span, field::Empty};
use zerocache_core::wire::Written;
use zerocache_net::clock;

use super::{
    Life, Live, Running, ZerocacheClient,
    engine::Engine,
    entry::Entry,
    first::{Ended, Sent},
    millis,
    near_read::NearRead,
    reads::{First, Reading, Wants},
    report::ExplainedGet,
    timings::End,
    valid,
    writes::{self, WriteRequest},
};
use crate::{Error, wait};

/// Whether somebody looks at the spans of operations.
fn is_traced() -> bool {
    tracing::enabled!(tracing::Level::DEBUG)
}

/// Notes in its span what a read came to.
fn note_read(span: &Span, read: &Result<Option<Entry>, Error>) {
    if let Ok(Some(entry)) = read {
        span.record("tier", entry.tier.as_str());
    }
    span.record("outcome", End::of_read(read).as_str());
}

/// Notes in its span what a write came to.
fn note_write(span: &Span, written: &Result<Written, Error>) {
    span.record("outcome", End::of_write(written).as_str());
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

    /// What operations begin with that take the shortest way, where they can: it has no place for a span,
    /// and needs a caller whose task is woken.
    fn on_the_shortest_way(&self) -> Option<&Live> {
        let live = self.live().ok()?;
        (!wait::is_blocking() && !is_traced()).then_some(live)
    }

    /// Sends the first request of a read at once where that can be done; see [`Engine::begin_read`].
    pub(super) fn begin_get(
        &self,
        key: &[u8],
        wants: &mut Wants,
        deadline: Option<Duration>,
        context: &Context<'_>,
    ) -> Option<Sent> {
        let live = self.on_the_shortest_way()?;
        // It has no place for a second request.
        if live.engine.hedge.is_some() {
            return None;
        }
        live.engine.begin_read(key, wants, self.total_ms(deadline), context.waker())
    }

    /// What has come of the first request of a read.
    pub(super) fn poll_reading(
        &self,
        reading: &mut Sent,
        wants: &Wants,
        context: &mut Context<'_>,
    ) -> Poll<First> {
        match self.live() {
            Ok(live) => live.engine.poll_read(reading, wants, context),
            // Only a client that works begins to read.
            Err(_) => Poll::Pending,
        }
    }

    pub(super) fn give_up_read(&self, reading: &Sent) {
        // One that was begun before a fork is the parent's.
        if let Some(Life { live: Ok(live), .. }) = self.inner.present_life() {
            live.engine.give_up_read(reading);
        }
    }

    pub(super) fn go_on_get(
        &self,
        key: Bytes,
        wants: Wants,
        begun: Ended,
    ) -> Running<Option<Entry>> {
        self.run(move |engine| async move {
            engine.go_on(Reading::new(valid(key)?, wants), begun).await
        })
    }

    pub(super) fn start_get(
        &self,
        key: Bytes,
        wants: Wants,
        deadline: Option<Duration>,
    ) -> Running<Option<Entry>> {
        let total_ms = self.total_ms(deadline);
        let span =
            debug_span!("zerocache_get", region = self.region(), outcome = Empty, tier = Empty);
        let noted = span.clone();
        self.run(move |engine| {
            let read = async move {
                let read = engine.get(Reading::new(valid(key)?, wants), total_ms).await;
                note_read(&noted, &read);
                read
            };
            read.instrument(span)
        })
    }

    pub(super) fn start_explain(
        &self,
        key: Bytes,
        wants: Wants,
        mut near: NearRead,
        deadline: Option<Duration>,
    ) -> Running<ExplainedGet> {
        let total_ms = self.total_ms(deadline);
        self.run(move |engine| async move {
            let (key, started) = (valid(key)?, clock::elapsed());
            if let Some(entry) = near.find(&engine.face, key.as_bytes(), wants.at_least) {
                return Ok(ExplainedGet::near(entry, clock::elapsed().saturating_sub(started)));
            }
            let explained = engine.explain(key.clone(), wants, total_ms).await;
            if let Ok(Some(entry)) = &explained.result {
                near.keep(&engine.face, key.as_bytes(), entry);
            }
            Ok(explained)
        })
    }

    /// Above how many bytes values are packed; none for never.
    pub(super) fn pack_above(&self) -> Option<usize> {
        self.live().ok()?.engine.config.compress_above
    }

    /// Sends the first request of a write at once where that can be done.
    pub(super) fn begin_write(
        &self,
        request: &WriteRequest,
        deadline: Option<Duration>,
        context: &Context<'_>,
    ) -> Option<Sent> {
        let live = self.on_the_shortest_way()?;
        live.engine.begin_write(request, self.total_ms(deadline), context.waker())
    }

    /// What has come of the first request of a write.
    pub(super) fn poll_writing(
        &self,
        request: &WriteRequest,
        writing: &mut Sent,
        context: &mut Context<'_>,
    ) -> Poll<writes::First> {
        match self.live() {
            Ok(live) => live.engine.poll_write(request, writing, context),
            // Only a client that works begins to write.
            Err(_) => Poll::Pending,
        }
    }

    pub(super) fn go_on_write(&self, request: WriteRequest, begun: Ended) -> Running<Written> {
        self.run(move |engine| async move { engine.go_on_write(request, begun).await }).through()
    }

    /// Has a write that has begun go on without its caller.
    pub(super) fn finish_write(&self, request: WriteRequest, writing: Sent) {
        // One that was begun before a fork is the parent's.
        let Some(Life { live: Ok(live), .. }) = self.inner.present_life() else { return };
        let keep = Arc::clone(&self.inner);
        let engine = Arc::clone(&live.engine);
        live.background.spawn(async move {
            let _keep = keep;
            // Whoever wanted to know has gone.
            let _written = engine.finish_write(request, writing).await;
        });
    }

    pub(super) fn start_write(
        &self,
        request: WriteRequest,
        deadline: Option<Duration>,
    ) -> Running<Written> {
        let total_ms = self.total_ms(deadline);
        let span = debug_span!("zerocache_write", region = self.region(), outcome = Empty);
        let noted = span.clone();
        let running = self.run(move |engine| {
            let write = async move {
                let written = engine.write(request, total_ms).await;
                note_write(&noted, &written);
                written
            };
            write.instrument(span)
        });
        running.through()
    }

    pub(super) fn total_ms(&self, deadline: Option<Duration>) -> u64 {
        let configured = || match self.live() {
            Ok(live) => live.engine.config.bounds.total_ms,
            Err(_) => 0,
        };
        deadline.map_or_else(configured, |deadline| millis(deadline).max(1))
    }
}
