//! The stream below one HTTP connection: deadlines that the HTTP parser does not have.
//!
//! Reading watches heads ([`HeadValidator`]) and gives each a deadline; writing demands that the client
//! reads; closing reads on for a moment so that the last response arrives. The stream also carries
//! the connection's place under the cap, so that an upgraded connection keeps it.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};

use super::guard;
use super::head_validator::{Flaw, HeadValidator};
use super::limits::HttpLimits;
use crate::telemetry::ServerCounters;

/// The most input that is thrown away after the last response; a client that sends more meanwhile
/// gets a reset.
const LINGER_BYTES_MAX: usize = 4 << 20;

/// What the stream and the guard of one connection tell each other.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// The number of the head that must be refused, from 1; 0 is none.
    bad_head: AtomicU64,
    /// What is wrong with it is its target, and not where its body ends.
    bad_target: AtomicBool,
    /// Requests that reached the guard.
    requests: AtomicU64,
    /// A request is being answered.
    is_answering: AtomicBool,
    /// A request was answered since everything was written.
    has_answered: AtomicBool,
    /// The connection speaks another protocol now.
    upgraded: AtomicBool,
}

impl Shared {
    /// Counts a request; why its head must be refused, if it must.
    pub(super) fn next_flaw(&self) -> Option<Flaw> {
        let number = self.requests.fetch_add(1, Ordering::Relaxed) + 1;
        let target = self.bad_target.load(Ordering::Relaxed);
        let flaw = if target { Flaw::Fragment } else { Flaw::Length };
        (self.bad_head.load(Ordering::Relaxed) == number).then_some(flaw)
    }

    /// A request is being answered: the connection is not idle, whatever is read or written.
    pub(super) fn begin_answer(&self) {
        self.is_answering.store(true, Ordering::Relaxed);
    }

    /// The answer has been found.
    pub(super) fn end_answer(&self) {
        self.has_answered.store(true, Ordering::Relaxed);
        self.is_answering.store(false, Ordering::Relaxed);
    }

    /// Whether what is written now comes from the parser and not from an answer.
    fn is_of_parser(&self) -> bool {
        let flags = [&self.is_answering, &self.has_answered, &self.upgraded];
        flags.iter().all(|flag| !flag.load(Ordering::Relaxed))
    }

    /// From now on the input has no heads.
    pub(super) fn upgrade(&self) {
        self.upgraded.store(true, Ordering::Relaxed);
    }
}

/// A place under the cap on connections; dropping it frees the place.
#[derive(Debug)]
pub(super) struct Place(Arc<AtomicUsize>);

impl Place {
    /// Takes a place unless `most` are taken.
    pub(super) fn take(taken: &Arc<AtomicUsize>, most: usize) -> Option<Self> {
        let below = |count: usize| (count < most).then_some(count + 1);
        taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, below).ok()?;
        Some(Self(Arc::clone(taken)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The stream of one connection.
#[derive(Debug)]
pub struct GuardedIo {
    tcp: TcpStream,
    limits: Arc<HttpLimits>,
    counters: Arc<ServerCounters>,
    shared: Arc<Shared>,
    heads: HeadValidator,
    /// Runs while a head is awaited.
    head_deadline: Option<Pin<Box<Sleep>>>,
    /// Runs while nothing is asked, and whether something was read or written since it began.
    idle: Option<Pin<Box<Sleep>>>,
    is_active: bool,
    /// Runs while the kernel takes no more, with the bytes that it took since.
    write_window: Option<(Pin<Box<Sleep>>, u64)>,
    /// Runs after the last response, with the bytes thrown away.
    linger: Option<(Pin<Box<Sleep>>, usize)>,
    /// What is written instead of a refusal of the parser's own, and how much of it was.
    refusal: Option<(Vec<u8>, usize)>,
    _place: Place,
}

impl GuardedIo {
    pub(super) fn new(
        tcp: TcpStream,
        limits: Arc<HttpLimits>,
        counters: Arc<ServerCounters>,
        shared: Arc<Shared>,
        place: Place,
    ) -> Self {
        Self {
            tcp,
            limits,
            counters,
            shared,
            heads: HeadValidator::default(),
            head_deadline: None,
            idle: None,
            is_active: false,
            write_window: None,
            linger: None,
            refusal: None,
            _place: place,
        }
    }

    /// Follows the heads in what was just read.
    fn watch(&mut self, read: &[u8]) {
        if self.shared.upgraded.load(Ordering::Relaxed) {
            return;
        }
        self.heads.feed(read);
        if let Some((number, flaw)) = self.heads.bad() {
            self.shared.bad_target.store(flaw == Flaw::Fragment, Ordering::Relaxed);
            self.shared.bad_head.store(number, Ordering::Relaxed);
        }
        if !self.heads.awaits_head() {
            self.head_deadline = None;
        }
    }

    /// Fails when the head that is awaited is late.
    fn check_head(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.heads.awaits_head() || self.shared.upgraded.load(Ordering::Relaxed) {
            return Poll::Pending;
        }
        let timeout = self.limits.header_timeout;
        let deadline = self.head_deadline.get_or_insert_with(|| Box::pin(sleep(timeout)));
        ready!(deadline.as_mut().poll(cx));
        self.counters.header_timeouts.add();
        Poll::Ready(Err(timed_out("the request head did not arrive in time")))
    }

    /// Fails when nothing was asked for too long: for `idle_timeout` at least, and less than twice that,
    /// so that a busy connection does not set a timer for each request.
    fn check_idle(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.heads.awaits_head() || self.shared.upgraded.load(Ordering::Relaxed) {
            return Poll::Pending;
        }
        let timeout = self.limits.idle_timeout;
        loop {
            let idle = self.idle.get_or_insert_with(|| Box::pin(sleep(timeout)));
            ready!(idle.as_mut().poll(cx));
            self.idle = None;
            let answering = self.shared.is_answering.load(Ordering::Relaxed);
            if !std::mem::take(&mut self.is_active) && !answering {
                self.counters.idle_timeouts.add();
                return Poll::Ready(Err(timed_out("nothing was asked for too long")));
            }
        }
    }

    /// Takes note of a write and fails when the client reads too slowly.
    fn check_write(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(result) = written {
            self.is_active = true;
            if let (Ok(bytes), Some((_, taken))) = (&result, &mut self.write_window) {
                *taken += *bytes as u64;
            }
            return Poll::Ready(result);
        }
        let window = self.limits.write_window;
        let least = self.limits.write_rate_min.saturating_mul(window.as_millis() as u64) / 1000;
        loop {
            let (end, taken) =
                self.write_window.get_or_insert_with(|| (Box::pin(sleep(window)), 0));
            ready!(end.as_mut().poll(cx));
            if *taken < least.max(1) {
                self.counters.write_timeouts.add();
                return Poll::Ready(Err(timed_out("the client does not read its response")));
            }
            self.write_window = None;
        }
    }

    /// Writes the rest of the refusal; the connection ends after it.
    fn poll_refusal(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some((refusal, written)) = &mut self.refusal {
            if *written == refusal.len() {
                self.refusal = None;
                break;
            }
            let count = ready!(Pin::new(&mut self.tcp).poll_write(cx, &refusal[*written..]))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            *written += count;
        }
        Poll::Ready(Ok(()))
    }

    /// Reads and throws away until the client closes or the time or the bytes are used up.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let patience: Duration = self.limits.linger;
        let (end, bytes) = self.linger.get_or_insert_with(|| (Box::pin(sleep(patience)), 0));
        if end.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let mut room = [0; 4096];
        loop {
            let mut buf = ReadBuf::new(&mut room);
            let read = ready!(Pin::new(&mut self.tcp).poll_read(cx, &mut buf));
            *bytes += buf.filled().len();
            if read.is_err() || buf.filled().is_empty() || *bytes > LINGER_BYTES_MAX {
                return Poll::Ready(());
            }
        }
    }
}

/// The parser refuses what is no HTTP with a bare head; the same refusal in the form that all others have.
/// None for anything else.
fn refusal_instead_of(written: &[u8]) -> Option<Vec<u8>> {
    let head = std::str::from_utf8(written).ok()?.strip_suffix("\r\n\r\n")?;
    let status = head.lines().next()?.strip_prefix("HTTP/1.1 ")?;
    let is_bare = head.lines().any(|line| line.eq_ignore_ascii_case("content-length: 0"));
    let reason = match status.get(..3)? {
        "400" => "this is no HTTP/1.1 request",
        "414" => "the request target is too long",
        "431" => "the head of the request is too large",
        "505" => "this version of HTTP is not supported",
        _ => return None,
    };
    let body = guard::bad_request_body(reason);
    let length = body.len();
    is_bare.then(|| {
        format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\
             connection: close\r\n\r\n{body}"
        )
        .into_bytes()
    })
}

fn timed_out(reason: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, reason)
}

impl AsyncRead for GuardedIo {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        match Pin::new(&mut this.tcp).poll_read(cx, buf) {
            Poll::Pending => match this.check_head(cx) {
                Poll::Pending => this.check_idle(cx),
                late => late,
            },
            Poll::Ready(result) => {
                this.is_active = true;
                this.watch(&buf.filled()[before..]);
                Poll::Ready(result)
            }
        }
    }
}

impl AsyncWrite for GuardedIo {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.refusal.is_none() && this.shared.is_of_parser() {
            this.refusal = refusal_instead_of(buf).map(|refusal| (refusal, 0));
        }
        let written = if this.refusal.is_some() {
            this.poll_refusal(cx).map_ok(|()| buf.len())
        } else {
            Pin::new(&mut this.tcp).poll_write(cx, buf)
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
        let written = Pin::new(&mut this.tcp).poll_write_vectored(cx, bufs);
        this.check_write(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The caller has handed over all it had: the next response begins a new window.
        let this = self.get_mut();
        this.write_window = None;
        this.shared.has_answered.store(false, Ordering::Relaxed);
        Pin::new(&mut this.tcp).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.linger.is_none() {
            ready!(Pin::new(&mut this.tcp).poll_shutdown(cx))?;
        }
        this.poll_linger(cx).map(Ok)
    }
}
