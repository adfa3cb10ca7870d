//! The destinations of responses.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};
use std::time::Duration;

use tokio::sync::oneshot;
use zerocache_core::{
    time::Instant,
    wire::{
        RefusalCode, Response, Writer,
        frame::{Header, Opcode},
    },
};
use zerocache_net::{
    clock,
    transport::framed::{Encode, Flush, FrameWriter},
};

use crate::telemetry::{Completion, RequestMetrics, TimedOperation};

/// A response of at most this size, in bytes, is queued on a connection whose caller does not read: the
/// number of outstanding requests bounds these. A larger late response is replaced by a refusal.
const LATE_BYTES_FREE: usize = 256;

/// The destination of the response to one request.
pub enum ReplyTo {
    /// A task that waits for the response.
    Task(oneshot::Sender<Response>),
    /// A framed connection.
    Connection(FramedReply),
}

/// An outstanding request on a framed connection.
pub struct FramedReply {
    writer: Arc<FrameWriter>,
    id: u32,
    /// Requests of the connection without a response.
    outstanding: Arc<AtomicUsize>,
}

impl FramedReply {
    /// Counts request `id` as outstanding until the reply is sent or dropped.
    #[must_use]
    pub fn new(writer: Arc<FrameWriter>, id: u32, outstanding: Arc<AtomicUsize>) -> Self {
        outstanding.fetch_add(1, Ordering::Relaxed);
        Self { writer, id, outstanding }
    }
}

impl Drop for FramedReply {
    fn drop(&mut self) {
        self.outstanding.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Returns the header of the response to request `id`, encoded at `now`.
pub(crate) fn response_header(id: u32, now: Instant) -> Header {
    let sent_ms = now.as_millis() as u32;
    Header { opcode: Opcode::Response, more: false, id, sent_ms, timeout_ms: 0 }
}

/// A response in the encoding of a framed connection.
pub(crate) struct EncodedResponse<'a>(pub(crate) &'a Response);

impl Encode for EncodedResponse<'_> {
    fn encode(&self, out: &mut Writer<'_>) {
        self.0.encode_to(out);
    }

    fn size_hint(&self) -> usize {
        self.0.size_hint()
    }
}

/// The destination of a response, and when its request was taken up, if its duration is counted.
pub(super) struct Reply {
    pub(super) to: ReplyTo,
    pub(super) timer: Option<(TimedOperation, Duration)>,
}

/// Sends responses, and flushes each connection once when it is dropped.
pub(super) struct ReplyBatch<'a> {
    writers: Vec<Arc<FrameWriter>>,
    request_metrics: &'a RequestMetrics,
    /// The time of the first response that is counted: all of them are sent at once.
    now: Option<Duration>,
    /// A completion that is not counted yet, and how many of the last responses ended so. Most requests of a
    /// batch end alike.
    uncounted: Option<(Completion, u64)>,
}

impl<'a> ReplyBatch<'a> {
    /// Creates a batch whose durations are counted in `request_metrics`.
    pub(super) fn new(request_metrics: &'a RequestMetrics) -> Self {
        Self { writers: Vec::new(), request_metrics, now: None, uncounted: None }
    }

    /// Counts the duration of a request, and how a write ended, before its response can arrive. Returns its
    /// destination.
    fn complete(&mut self, Reply { to, timer }: Reply, response: &Response) -> ReplyTo {
        let Some((operation, started)) = timer else { return to };
        let now = *self.now.get_or_insert_with(clock::elapsed);
        let micros = now.saturating_sub(started).as_micros() as u64;
        let completion = Completion::new(operation, micros, response);
        match &mut self.uncounted {
            Some((last, count)) if *last == completion => *count += 1,
            uncounted => {
                let before = uncounted.replace((completion, 1));
                self.count(before);
            }
        }
        // A task has its response at once; connections are flushed when all is counted.
        if matches!(to, ReplyTo::Task(_)) {
            let all = self.uncounted.take();
            self.count(all);
        }
        to
    }

    fn count(&self, completions: Option<(Completion, u64)>) {
        if let Some((completion, count)) = completions {
            self.request_metrics.record(completion, count);
        }
    }

    /// Sends the response to a request of another connection, or of an earlier batch.
    pub(super) fn send(&mut self, reply: Reply, mut response: Response) {
        let to = self.complete(reply, &response);
        if let ReplyTo::Connection(reply) = &to
            && response.size_hint() > LATE_BYTES_FREE
            && reply.writer.is_full()
        {
            let text = "earlier responses have not been read";
            response = Response::refused(RefusalCode::Overloaded, text);
        }
        if let Some(writer) = send(to, response)
            && !self.writers.iter().any(|known| Arc::ptr_eq(known, &writer))
        {
            self.writers.push(writer);
        }
    }

    /// Sends the response to a request of this batch, whose reader flushes the connection.
    pub(super) fn send_unflushed(&mut self, reply: Reply, response: Response) {
        send(self.complete(reply, &response), response);
    }
}

impl Drop for ReplyBatch<'_> {
    fn drop(&mut self) {
        self.count(self.uncounted);
        for writer in &self.writers {
            writer.flush();
        }
    }
}

fn send(to: ReplyTo, response: Response) -> Option<Arc<FrameWriter>> {
    match to {
        ReplyTo::Task(sender) => {
            let _caller_gone = sender.send(response);
            None
        }
        ReplyTo::Connection(reply) => {
            let header = response_header(reply.id, clock::mono());
            let writer = Arc::clone(&reply.writer);
            writer.send(header, &EncodedResponse(&response), Flush::Later)?;
            Some(writer)
        }
    }
}
