//! The stream below one HTTP connection: adds the deadlines that the HTTP parser does not have.
//!
//! Reading follows request heads ([`HeadValidator`]) and gives each a deadline; writing requires that
//! the client reads; closing reads on for a moment so that the last response arrives. The stream also
//! carries the connection's permit under the cap, so that an upgraded connection keeps it.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use super::head_validator::{Flaw, HeadValidator};
use super::limits::HttpLimits;
use super::refusal;
use crate::telemetry::ServerCounters;

/// The most input that is discarded after the last response; a client that sends more gets a reset.
const LINGER_BYTES_MAX: usize = 32 << 20;

/// State that the stream and the guard of one connection share.
#[derive(Debug, Default)]
pub(super) struct ConnectionState {
    /// The number of the head that must be refused, from 1; 0 is none.
    bad_head: AtomicU64,
    /// The flaw of that head is its target, and not its framing.
    bad_target: AtomicBool,
    /// Requests that reached the guard.
    requests: AtomicU64,
    /// A request is being handled.
    is_handling: AtomicBool,
    /// A response was produced since the last flush.
    has_responded: AtomicBool,
    /// The connection has switched to another protocol.
    is_upgraded: AtomicBool,
}

impl ConnectionState {
    /// Counts a request. Returns the flaw of its head, if it must be refused.
    pub(super) fn next_flaw(&self) -> Option<Flaw> {
        let number = self.requests.fetch_add(1, Ordering::Relaxed) + 1;
        let target = self.bad_target.load(Ordering::Relaxed);
        let flaw = if target { Flaw::Fragment } else { Flaw::Length };
        (self.bad_head.load(Ordering::Relaxed) == number).then_some(flaw)
    }

    /// Marks the connection as handling a request: it is not idle, whatever is read or written.
    pub(super) fn begin_request(&self) {
        self.is_handling.store(true, Ordering::Relaxed);
    }

    /// Marks the response as produced.
    pub(super) fn end_request(&self) {
        self.has_responded.store(true, Ordering::Relaxed);
        self.is_handling.store(false, Ordering::Relaxed);
    }

    /// Returns whether output comes from the parser itself and not from a handler.
    fn is_parser_output(&self) -> bool {
        let flags = [&self.is_handling, &self.has_responded, &self.is_upgraded];
        flags.iter().all(|flag| !flag.load(Ordering::Relaxed))
    }

    /// Marks the connection as upgraded: its input has no heads from now on.
    pub(super) fn upgrade(&self) {
        self.is_upgraded.store(true, Ordering::Relaxed);
    }
}

/// A permit under the cap on connections; dropping it returns the permit.
#[derive(Debug)]
pub(super) struct ConnectionPermit {
    taken: Arc<AtomicUsize>,
    counters: Arc<ServerCounters>,
}

impl ConnectionPermit {
    /// Takes a permit unless `max` are taken.
    pub(super) fn acquire(
        taken: &Arc<AtomicUsize>,
        max: usize,
        counters: &Arc<ServerCounters>,
    ) -> Option<Self> {
        let below = |count: usize| (count < max).then_some(count + 1);
        taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, below).ok()?;
        counters.connections_open.raise();
        Some(Self { taken: Arc::clone(taken), counters: Arc::clone(counters) })
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.taken.fetch_sub(1, Ordering::Relaxed);
        self.counters.connections_open.lower();
    }
}

/// The stream of one connection, over a plain or an encrypted stream `S`.
#[derive(Debug)]
pub struct GuardedIo<S> {
    stream: S,
    limits: Arc<HttpLimits>,
    counters: Arc<ServerCounters>,
    state: Arc<ConnectionState>,
    heads: HeadValidator,
    /// Runs while a head is awaited.
    head_deadline: Option<Pin<Box<Sleep>>>,
    /// Runs while no request arrives.
    idle: Option<Pin<Box<Sleep>>>,
    /// Something was read or written since `idle` was started.
    is_active: bool,
    /// Runs while output is pending, with the bytes accepted since.
    write_window: Option<(Pin<Box<Sleep>>, u64)>,
    linger: Option<Linger>,
    /// The refusal that replaces one of the parser's own, and how much of it was written.
    refusal: Option<(Vec<u8>, usize)>,
    _permit: ConnectionPermit,
}

impl<S> GuardedIo<S> {
    pub(super) fn new(
        stream: S,
        limits: Arc<HttpLimits>,
        counters: Arc<ServerCounters>,
        state: Arc<ConnectionState>,
        permit: ConnectionPermit,
    ) -> Self {
        Self {
            stream,
            limits,
            counters,
            state,
            heads: HeadValidator::default(),
            head_deadline: None,
            idle: None,
            is_active: false,
            write_window: None,
            linger: None,
            refusal: None,
            _permit: permit,
        }
    }

    /// Uses a deadline of the first head that runs already.
    pub(super) fn with_head_deadline(self, deadline: Option<Pin<Box<Sleep>>>) -> Self {
        Self { head_deadline: deadline, ..self }
    }

    /// Validates the heads in the bytes that were just read.
    fn inspect(&mut self, read: &[u8]) {
        if self.state.is_upgraded.load(Ordering::Relaxed) {
            return;
        }
        self.heads.feed(read);
        if let Some((number, flaw)) = self.heads.bad() {
            self.state.bad_target.store(flaw == Flaw::Fragment, Ordering::Relaxed);
            self.state.bad_head.store(number, Ordering::Relaxed);
        }
        if !self.heads.awaits_head() {
            self.head_deadline = None;
        }
    }

    /// Returns the flaw of the head that the parser has just refused, if the validator found it too.
    fn flaw(&self) -> Option<Flaw> {
        let refused = self.state.requests.load(Ordering::Relaxed) + 1;
        self.heads.bad().and_then(|(number, flaw)| (number == refused).then_some(flaw))
    }

    /// Fails when the awaited head is late.
    fn check_head(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.heads.awaits_head() || self.state.is_upgraded.load(Ordering::Relaxed) {
            return Poll::Pending;
        }
        let timeout = self.limits.header_timeout;
        let deadline = self.head_deadline.get_or_insert_with(|| Box::pin(sleep(timeout)));
        ready!(deadline.as_mut().poll(cx));
        self.counters.header_timeouts.add();
        Poll::Ready(Err(timed_out("the request head did not arrive in time")))
    }

    /// Fails when no request arrived for `idle_timeout` or up to twice that: a busy connection does not
    /// set a timer for each request.
    fn check_idle(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.heads.awaits_head() || self.state.is_upgraded.load(Ordering::Relaxed) {
            return Poll::Pending;
        }
        let timeout = self.limits.idle_timeout;
        loop {
            let idle = self.idle.get_or_insert_with(|| Box::pin(sleep(timeout)));
            ready!(idle.as_mut().poll(cx));
            self.idle = None;
            let is_handling = self.state.is_handling.load(Ordering::Relaxed);
            if !std::mem::take(&mut self.is_active) && !is_handling {
                self.counters.idle_timeouts.add();
                return Poll::Ready(Err(timed_out("no request arrived for too long")));
            }
        }
    }

    /// Records a write, and fails when the client reads too slowly.
    fn check_write(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        let Poll::Ready(result) = written else {
            return self.check_window(cx).map(Err);
        };
        self.is_active = true;
        if let (Ok(bytes), Some((_, accepted))) = (&result, &mut self.write_window) {
            *accepted += *bytes as u64;
        }
        Poll::Ready(result)
    }

    /// Lets the write window run while output is pending, and returns an error when the client read too
    /// little in it.
    fn check_window(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let window = self.limits.write_window;
        let least = self.limits.write_rate_min.saturating_mul(window.as_millis() as u64) / 1000;
        loop {
            let (end, accepted) =
                self.write_window.get_or_insert_with(|| (Box::pin(sleep(window)), 0));
            ready!(end.as_mut().poll(cx));
            if *accepted < least.max(1) {
                self.counters.write_timeouts.add();
                return Poll::Ready(timed_out("the client does not read its response"));
            }
            self.write_window = None;
        }
    }
}

impl<S: AsyncWrite + Unpin> GuardedIo<S> {
    /// Writes the rest of the refusal; the connection ends after it.
    fn poll_refusal(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some((refusal, written)) = &mut self.refusal {
            if *written == refusal.len() {
                self.refusal = None;
                break;
            }
            let count = ready!(Pin::new(&mut self.stream).poll_write(cx, &refusal[*written..]))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            *written += count;
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> GuardedIo<S> {
    /// Ends the output, then discards input until the client closes. Ends when the time or the bytes are
    /// used up: an encrypted stream may wait for the client already to say that it ends.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let patience: Duration = self.limits.linger;
        let linger = self.linger.get_or_insert_with(|| Linger::new(patience));
        if linger.end.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Ok(()));
        }
        if !linger.is_shut_down {
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
            linger.is_shut_down = true;
        }
        let mut room = [0; 4096];
        loop {
            let mut buf = ReadBuf::new(&mut room);
            let read = ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buf));
            linger.bytes += buf.filled().len();
            if read.is_err() || buf.filled().is_empty() || linger.bytes > LINGER_BYTES_MAX {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

/// The time after the last response.
#[derive(Debug)]
struct Linger {
    end: Pin<Box<Sleep>>,
    /// The output has ended.
    is_shut_down: bool,
    /// The bytes discarded.
    bytes: usize,
}

impl Linger {
    fn new(patience: Duration) -> Self {
        Self { end: Box::pin(sleep(patience)), is_shut_down: false, bytes: 0 }
    }
}

/// Returns the refusal that replaces `written`, if that is a bare refusal by the parser: the same status
/// with the body that all other refusals have. `flaw` is that of the refused head, if it is known.
fn refusal_instead_of(written: &[u8], flaw: Option<Flaw>) -> Option<Vec<u8>> {
    let head = std::str::from_utf8(written).ok()?.strip_suffix("\r\n\r\n")?;
    let status = head.lines().next()?.strip_prefix("HTTP/1.1 ")?;
    let is_bare = head.lines().any(|line| line.eq_ignore_ascii_case("content-length: 0"));
    let reason = match status.get(..3)? {
        "400" => flaw.map_or("this is not an HTTP/1.1 request", Flaw::as_str),
        "414" => "the request target is too long",
        "431" => "the head of the request is too large",
        "505" => "this version of HTTP is not supported",
        _ => return None,
    };
    let body = refusal::body("bad_request", reason);
    let length = body.len();
    is_bare.then(|| {
        format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncache-control: no-store\r\n\
             content-length: {length}\r\nconnection: close\r\n\r\n{body}"
        )
        .into_bytes()
    })
}

fn timed_out(reason: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, reason)
}

impl<S: AsyncRead + Unpin> AsyncRead for GuardedIo<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        match Pin::new(&mut this.stream).poll_read(cx, buf) {
            Poll::Pending => match this.check_head(cx) {
                Poll::Pending => this.check_idle(cx),
                late => late,
            },
            Poll::Ready(result) => {
                this.is_active = true;
                this.inspect(&buf.filled()[before..]);
                Poll::Ready(result)
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for GuardedIo<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.refusal.is_none() && this.state.is_parser_output() {
            this.refusal = refusal_instead_of(buf, this.flaw()).map(|refusal| (refusal, 0));
        }
        let written = if this.refusal.is_some() {
            this.poll_refusal(cx).map_ok(|()| buf.len())
        } else {
            Pin::new(&mut this.stream).poll_write(cx, buf)
        };
        this.check_write(cx, written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let [buf] = bufs {
            return self.poll_write(cx, buf);
        }
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write_vectored(cx, bufs);
        this.check_write(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.state.has_responded.store(false, Ordering::Relaxed);
        let Poll::Ready(flushed) = Pin::new(&mut this.stream).poll_flush(cx) else {
            // An encrypted stream takes a write into its own buffer, and waits for the client here.
            return this.check_window(cx).map(Err);
        };
        // The client has taken a whole response: the next one starts a new window.
        this.write_window = None;
        Poll::Ready(flushed)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_linger(cx)
    }
}

#[cfg(test)]
mod tests;
