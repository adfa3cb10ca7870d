//! Where the response to a request goes.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

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

/// A response of at most this size, in bytes, goes onto a connection whose other side does not read: there
/// are as many as requests may be outstanding. A larger one that comes later is replaced by a refusal.
const LATE_BYTES_FREE: usize = 256;

/// Where the response to one request goes.
pub enum Responder {
    /// To a task that waits for it.
    Waiting(oneshot::Sender<Response>),
    /// Onto a framed connection.
    Framed(FramedResponder),
}

/// The place of a request on a framed connection.
pub struct FramedResponder {
    line: Arc<FrameWriter>,
    id: u32,
    /// Requests of the connection that are not answered yet.
    outstanding: Arc<AtomicUsize>,
}

impl FramedResponder {
    /// The place of request `id`, which counts as outstanding from now on.
    #[must_use]
    pub fn new(line: Arc<FrameWriter>, id: u32, outstanding: Arc<AtomicUsize>) -> Self {
        outstanding.fetch_add(1, Ordering::Relaxed);
        Self { line, id, outstanding }
    }
}

impl Drop for FramedResponder {
    fn drop(&mut self) {
        self.outstanding.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The header of the response to request `id`, encoded at `now`.
pub(crate) fn response_header(id: u32, now: Instant) -> Header {
    let sent_ms = now.as_millis() as u32;
    Header { opcode: Opcode::Response, more: false, id, sent_ms, timeout_ms: 0 }
}

/// A response as it is encoded on a framed connection.
pub(crate) struct Answer<'a>(pub(crate) &'a Response);

impl Encode for Answer<'_> {
    fn encode(&self, out: &mut Writer<'_>) {
        self.0.encode_to(out);
    }

    fn size_hint(&self) -> usize {
        self.0.size_hint()
    }
}

/// Responds, and flushes each connection once when it is dropped.
#[derive(Default)]
pub(super) struct Flushes {
    lines: Vec<Arc<FrameWriter>>,
}

impl Flushes {
    /// Responds to a request that came another way or earlier.
    pub(super) fn respond(&mut self, responder: Responder, mut response: Response) {
        if let Responder::Framed(place) = &responder
            && response.size_hint() > LATE_BYTES_FREE
            && place.line.is_full()
        {
            let text = "the responses before this one are not read";
            response = Response::refused(RefusalCode::Overloaded, text);
        }
        if let Some(line) = send(responder, response)
            && !self.lines.iter().any(|known| Arc::ptr_eq(known, &line))
        {
            self.lines.push(line);
        }
    }

    /// Responds to a request whose reader flushes.
    pub(super) fn respond_own(&mut self, responder: Responder, response: Response) {
        send(responder, response);
    }
}

impl Drop for Flushes {
    fn drop(&mut self) {
        for line in &self.lines {
            line.flush();
        }
    }
}

fn send(responder: Responder, response: Response) -> Option<Arc<FrameWriter>> {
    match responder {
        Responder::Waiting(sender) => {
            // Whoever asked may have gone.
            let _gone = sender.send(response);
            None
        }
        Responder::Framed(place) => {
            let line = Arc::clone(&place.line);
            line.send(response_header(place.id, clock::mono()), &Answer(&response), Flush::Later)?;
            Some(line)
        }
    }
}
