//! The calling side of a framed connection: many calls share its writes and its reads.
//!
//! [`Connection`] is shared by its callers; [`drive`] reads responses, keeps deadlines and writes what
//! callers left behind. It runs on the runtime on which the callers are, so that a response wakes its
//! caller without going through another thread.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    time::{Sleep, sleep},
};
use zerocache_core::{
    node::CallFailure,
    time::Instant,
    version::Incarnation,
    wire::{
        Envelope, Request, RequestMessage, Response, Writer,
        frame::{FrameError, Header, Opcode},
    },
};

use super::{
    calls::{Caller, Calls, Due, Ended, Entered, REPEATABLE, UNKNOWN},
    inbox::{Inbox, Incoming},
    line::{BoxedWrite, Encode, Flush, Line, SMALL_BYTES_MAX, Withdrawn},
};
use crate::{
    clock,
    transport::{NotTaken, Short, Then, What},
};

/// A stream to read from.
pub(super) type BoxedRead = Box<dyn AsyncRead + Send + Unpin>;

/// A connection without calls is closed after this long, in milliseconds: before the node does it, so
/// that no call is lost to that.
const IDLE_MS_MAX: u64 = 30_000;

/// When calls are overdue and nothing was received or taken for this long, in milliseconds, the
/// connection is given up: a new one may get through where this one does not.
const SILENT_MS_MAX: u64 = 3_000;

/// After this long without traffic buffers are given back, in milliseconds.
const QUIET_MS: u64 = 1_000;

/// After this many reads what callers sent goes out, whatever else can be read.
const READS_MAX: usize = 8;

/// After this many reads it is looked whether something is to be written, although more can be read:
/// fewer than a task may make in its turn, after which the stream would take nothing.
const READS_UNASKED_MAX: usize = 32;

/// Values up to this size are copied to the line at once, in bytes.
const SHORT_BYTES_MAX: usize = 32 << 10;

/// What a read or write takes at most beyond key and value, in bytes.
const SHORT_OVERHEAD_BYTES: usize = 32;

/// While fewer requests wait to be sent than this part of those under way (1/4), writing is put off,
/// at most so many times: the responses to the others let more callers send. Without it batches stay
/// as small as they happen to be.
const GATHERED_SHARE: usize = 4;
const PATIENCE: usize = 2;

/// A connection to a node.
pub(super) struct Connection {
    line: Line,
    calls: Mutex<Calls>,
    /// What the handshake settled and requests need not repeat.
    known: Envelope,
    rearm: AtomicBool,
}

impl Connection {
    /// A connection to the node `peer`, over which `from` calls.
    pub(super) fn new(write: BoxedWrite, known: Envelope) -> Self {
        Self {
            line: Line::new(write),
            calls: Mutex::default(),
            known,
            rearm: AtomicBool::new(false),
        }
    }

    /// Which node answers here.
    pub(super) fn peer(&self) -> Option<Incarnation> {
        self.known.to
    }

    /// Whether it takes no more calls.
    pub(super) fn is_closed(&self) -> bool {
        self.line.is_closed()
    }

    /// Whether so much waits to be sent that a caller should wait.
    pub(super) fn is_full(&self) -> bool {
        self.line.is_full()
    }

    /// Ready when there is room to send, or the connection is closed.
    pub(super) fn poll_room(&self, context: &Context<'_>) -> Poll<()> {
        self.line.poll_room(context)
    }

    /// Sends a request. None when too many calls are under way or the connection is closed; nothing
    /// was sent then.
    pub(super) fn call(
        self: &Arc<Self>,
        message: RequestMessage,
        timeout: Duration,
    ) -> Option<FramedCall> {
        let id = self.send(message, timeout, Caller::Nobody).ok()?;
        Some(FramedCall { connection: Arc::clone(self), id, done: false })
    }

    /// Sends a request, whose end `then` is given. Both come back when too many calls are under way or
    /// the connection is closed; nothing was sent then.
    pub(super) fn call_then(
        &self,
        message: RequestMessage,
        timeout: Duration,
        then: Then,
    ) -> Result<(), NotTaken> {
        let Err(refused) = self.send(message, timeout, Caller::Function(then)) else {
            return Ok(());
        };
        match *refused {
            (message, Caller::Function(then)) => Err(Box::new((message, then))),
            (_, Caller::Nobody | Caller::Task(_)) => Ok(()),
        }
    }

    fn send(
        &self,
        mut message: RequestMessage,
        timeout: Duration,
        caller: Caller,
    ) -> Result<u32, Box<(RequestMessage, Caller)>> {
        let now = clock::mono();
        let timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX).max(1);
        let deadline = now.plus_ms(timeout_ms);
        // A read may be repeated whether it was sent or not.
        let repeatable = matches!(message.request, Request::Get { .. });
        let position = if repeatable { REPEATABLE } else { UNKNOWN };
        let entered = {
            let mut calls = self.calls.lock();
            let entered = match calls.enter(now, deadline, caller, position) {
                Ok(entered) => entered,
                Err(caller) => return Err(Box::new((message, caller))),
            };
            if message.size_hint() > SMALL_BYTES_MAX {
                calls.note_large(entered.id);
            }
            entered
        };
        message.envelope.sent_ms = now.as_millis();
        message.envelope.timeout_ms = timeout_ms;
        let header = request_header(entered.id, now, timeout_ms);
        let outgoing = Outgoing { message: &message, known: &self.known, now };
        let Some(position) = self.line.send(header, &outgoing, entered.flush()) else {
            let caller = self.calls.lock().take_back(entered.id);
            return caller.map_or(Ok(entered.id), |caller| Err(Box::new((message, caller))));
        };
        if !repeatable {
            self.calls.lock().sent(entered.id, position);
        }
        self.note_deadline(&entered);
        Ok(entered.id)
    }

    /// Sends a read or a small write. None when it is not small, too many calls are under way or the
    /// connection is closed; nothing was sent then.
    pub(super) fn call_short(self: &Arc<Self>, short: &Short<'_>) -> Option<FramedCall> {
        let Short { key, now, timeout_ms, .. } = *short;
        let bytes = match short.what {
            What::Put(value, ..) if value.len() > SHORT_BYTES_MAX => return None,
            What::Put(value, ..) => key.len() + value.len(),
            What::Get | What::Delete(_) => key.len(),
        };
        let caller = Caller::Task(short.waker.clone());
        // A read may be repeated whether it was sent or not.
        let repeatable = matches!(short.what, What::Get);
        let position = if repeatable { REPEATABLE } else { UNKNOWN };
        let deadline = now.plus_ms(timeout_ms);
        let entered = self.calls.lock().enter(now, deadline, caller, position).ok()?;
        let header = request_header(entered.id, now, timeout_ms);
        let call = FramedCall { connection: Arc::clone(self), id: entered.id, done: false };
        let position =
            self.line.append(header, bytes + SHORT_OVERHEAD_BYTES, |out| match short.what {
                What::Get => RequestMessage::encode_get(out, key),
                What::Put(value, ttl, ack) => {
                    RequestMessage::encode_put(out, short.seen, (key, value), ttl, ack);
                }
                What::Delete(ack) => RequestMessage::encode_delete(out, short.seen, key, ack),
            })?;
        if !repeatable {
            self.calls.lock().sent(entered.id, position);
        }
        match entered.flush() {
            Flush::Now => self.line.flush(),
            Flush::Soon | Flush::Later => self.line.flush_soon(),
        }
        self.note_deadline(&entered);
        Some(call)
    }

    /// Whether few of the requests under way wait to be sent.
    fn is_gathering(&self) -> bool {
        self.line.unsent() * GATHERED_SHARE < self.calls.lock().waiting()
    }

    /// How many calls wait, have ended, and are given up, and how many bytes wait.
    #[cfg(test)]
    pub(super) fn holds(&self) -> ([usize; 3], usize) {
        (self.calls.lock().census(), self.line.queued())
    }

    fn note_deadline(&self, entered: &Entered) {
        if entered.sweep_earlier {
            self.rearm.store(true, Ordering::Release);
            self.line.wake_flusher();
        }
    }

    /// The caller has gone.
    fn give_up(&self, id: u32) {
        let mut calls = self.calls.lock();
        if !calls.give_up(id) {
            return;
        }
        self.withdraw(&mut calls, id);
        drop(calls);
        self.withdrawn();
    }

    /// Nobody wants the response to a request: what is left of it need not be sent. Under the lock of
    /// the calls, so that the response cannot come meanwhile and the place be given again. To be
    /// followed by [`withdrawn`](Self::withdrawn) without that lock.
    fn withdraw(&self, calls: &mut Calls, id: u32) {
        if self.line.withdraw(id) == Withdrawn::Whole {
            calls.forget(id);
        } else {
            self.cancel(id);
        }
    }

    /// A response came. What is left of its request, if it came early, need not be sent.
    fn stop_sending(&self, calls: &mut Calls, id: u32) -> bool {
        let stopped = calls.was_large(id) && self.line.withdraw(id) != Withdrawn::Nothing;
        if stopped {
            // The node skips what it refused until the end of it.
            self.cancel(id);
        }
        stopped
    }

    fn cancel(&self, id: u32) {
        let sent_ms = clock::mono().as_millis() as u32;
        let header = Header { opcode: Opcode::Cancel, more: false, id, sent_ms, timeout_ms: 0 };
        self.line.append(header, 0, |_| {});
    }

    fn withdrawn(&self) {
        self.line.flush_soon();
        self.line.wake_waiting();
    }

    /// Notes responses that came. What is to be done about them is added to `due`.
    fn answered(&self, batch: &mut Vec<(u32, Ended)>, due: &mut Vec<Due>) {
        let mut stopped = false;
        let mut calls = self.calls.lock();
        for (id, ended) in batch.drain(..) {
            stopped |= self.stop_sending(&mut calls, id);
            due.extend(calls.answered(id, ended));
        }
        drop(calls);
        if stopped {
            self.withdrawn();
        }
    }

    fn sweep(&self, now: Instant) {
        let (mut due, mut ended) = (Vec::new(), Vec::new());
        let mut calls = self.calls.lock();
        calls.sweep(now, &mut due, &mut ended);
        for id in &ended {
            self.withdraw(&mut calls, *id);
        }
        drop(calls);
        if !ended.is_empty() {
            self.withdrawn();
        }
        perform_all(&mut due);
    }

    fn close(&self) {
        let taken = self.line.close();
        let mut due = Vec::new();
        self.calls.lock().close(taken, |id| self.line.is_unsent(id), &mut due);
        perform_all(&mut due);
    }
}

impl Entered {
    /// When its request goes out: alone on the line, waiting for others would only take time.
    fn flush(&self) -> Flush {
        if self.alone { Flush::Now } else { Flush::Soon }
    }
}

fn request_header(id: u32, now: Instant, timeout_ms: u64) -> Header {
    Header {
        opcode: Opcode::Request,
        more: false,
        id,
        sent_ms: now.as_millis() as u32,
        timeout_ms: u32::try_from(timeout_ms).unwrap_or(u32::MAX),
    }
}

/// Keeps a connection until it ends: by the other side, by a fault, or because nobody uses it.
pub(super) async fn drive(connection: Arc<Connection>, read: BoxedRead, inbox: Inbox) {
    // Also when the runtime drops this.
    let _closing = Closing(&connection);
    work(&connection, read, inbox).await;
}

/// Closes a connection when its driver ends.
struct Closing<'a>(&'a Connection);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}

async fn work(connection: &Connection, mut read: BoxedRead, mut inbox: Inbox) {
    let mut watch = Watch::new(clock::mono());
    let mut batch = Vec::new();
    let mut due = Vec::new();
    let mut timer = pin!(sleep(Duration::ZERO));
    let mut armed = Instant::default();
    // Reads since the last write that may have led callers to send again.
    let mut reads = 0;
    let mut patience = PATIENCE;
    let mut unasked = 0;
    loop {
        let now = clock::mono();
        if let Err(error) = take_responses(&mut inbox, now, &mut batch) {
            return tracing::debug!(%error, "a node sends no frames");
        }
        let answered = batch.len();
        if answered > 0 {
            connection.answered(&mut batch, &mut due);
            perform_all(&mut due);
        }
        if answered > 1 {
            reads += 1;
            tokio::task::yield_now().await;
        }
        if watch.is_over(connection, now, &mut inbox) {
            return;
        }
        // The timer is not asked while there is always something to read.
        if armed != Instant::default() && armed <= now {
            armed = Instant::default();
            connection.sweep(now);
        }
        let look_at = watch.look_at(connection, now);
        if look_at != armed {
            armed = look_at;
            timer.set(sleep(look_at.since(now)));
        }
        let may_read = reads < READS_MAX && unasked < READS_UNASKED_MAX;
        match next_event(connection, &mut read, &mut inbox, timer.as_mut(), may_read).await {
            Event::Read(0) => return,
            Event::Read(_) => {
                watch.heard = clock::mono();
                unasked = if may_read { unasked + 1 } else { 0 };
            }
            Event::Timer => {
                armed = Instant::default();
                connection.sweep(clock::mono());
            }
            Event::Flush => {
                if patience > 0 && connection.is_gathering() {
                    patience -= 1;
                    tokio::task::yield_now().await;
                    connection.line.flush_soon();
                    continue;
                }
                // Those who are about to send get their turn first.
                if reads == 0 {
                    tokio::task::yield_now().await;
                }
                (reads, patience) = (0, PATIENCE);
                connection.line.flush();
            }
            Event::Rearm => {}
            Event::Closed => return,
        }
    }
}

enum Event {
    Read(usize),
    Flush,
    Timer,
    Rearm,
    Closed,
}

/// Waits for input first: a deadline that passed while the process stood still does not count against
/// a response that is there. Writing waits until nothing is left to read, so that the callers whose
/// responses have come send together.
async fn next_event(
    connection: &Connection,
    read: &mut BoxedRead,
    inbox: &mut Inbox,
    mut timer: Pin<&mut Sleep>,
    may_read: bool,
) -> Event {
    let mut reading = pin!(read.read_buf(inbox.buffer()));
    poll_fn(|context| {
        if may_read && let Poll::Ready(read) = reading.as_mut().poll(context) {
            return Poll::Ready(Event::Read(read.unwrap_or(0)));
        }
        match connection.line.poll_work(context) {
            Poll::Ready(true) => return Poll::Ready(Event::Flush),
            Poll::Ready(false) => return Poll::Ready(Event::Closed),
            Poll::Pending => {}
        }
        if !may_read && let Poll::Ready(read) = reading.as_mut().poll(context) {
            return Poll::Ready(Event::Read(read.unwrap_or(0)));
        }
        if connection.rearm.swap(false, Ordering::AcqRel) {
            return Poll::Ready(Event::Rearm);
        }
        timer.as_mut().poll(context).map(|()| Event::Timer)
    })
    .await
}

/// Takes all whole responses out of the inbox.
fn take_responses(
    inbox: &mut Inbox,
    now: Instant,
    batch: &mut Vec<(u32, Ended)>,
) -> Result<(), FrameError> {
    while let Some((header, late_ms, incoming)) = inbox.next(now)? {
        if header.opcode != Opcode::Response {
            continue;
        }
        let message = match incoming {
            Incoming::Small(_) => inbox.take(),
            Incoming::Large(message) => message,
            // Only with its last frame is it over, and can its place be given again.
            Incoming::Refused(_) | Incoming::Nothing if !header.more => {
                batch.push((header.id, Err(CallFailure::NoAnswer)));
                continue;
            }
            Incoming::Refused(_) | Incoming::Nothing => continue,
        };
        batch.push((header.id, decode(message, late_ms)));
    }
    Ok(())
}

fn decode(message: Bytes, late_ms: u64) -> Ended {
    let response = Response::decode(message).map_err(|error| {
        tracing::debug!(%error, "undecodable response");
        CallFailure::NoAnswer
    });
    response.map(|response| response.aged(late_ms))
}

/// What a driver knows of the traffic on its connection.
struct Watch {
    heard: Instant,
    accepted: u64,
    /// When the stream was last seen to take something.
    progress: Instant,
    shrunk: bool,
}

impl Watch {
    fn new(now: Instant) -> Self {
        Self { heard: now, accepted: 0, progress: now, shrunk: false }
    }

    /// Whether the connection is to be closed. Gives buffers back when it is quiet.
    fn is_over(&mut self, connection: &Connection, now: Instant, inbox: &mut Inbox) -> bool {
        let accepted = connection.line.accepted();
        if accepted != self.accepted {
            (self.accepted, self.progress) = (accepted, now);
        }
        let quiet_ms = now.since_ms(self.heard.max(self.progress));
        if quiet_ms < QUIET_MS {
            self.shrunk = false;
        } else if !self.shrunk {
            inbox.shrink();
            connection.line.shrink();
            self.shrunk = true;
        }
        if quiet_ms < SILENT_MS_MAX {
            return false;
        }
        let calls = connection.calls.lock();
        let overdue = calls.oldest_overdue();
        let silent = overdue.is_some_and(|sent| now.since_ms(sent) >= SILENT_MS_MAX);
        silent || (calls.is_idle() && quiet_ms >= IDLE_MS_MAX)
    }

    /// When to look again.
    fn look_at(&self, connection: &Connection, now: Instant) -> Instant {
        let (sweep, overdue) = {
            let calls = connection.calls.lock();
            (calls.sweep_at(), calls.oldest_overdue().is_some())
        };
        let last = self.heard.max(self.progress);
        let look = if overdue {
            now.plus_ms(SILENT_MS_MAX / 4)
        } else if self.shrunk {
            last.plus_ms(IDLE_MS_MAX)
        } else {
            last.plus_ms(QUIET_MS)
        };
        sweep.map_or(look, |at| at.min(look)).max(now.plus_ms(1))
    }
}

/// A call that was sent.
pub(crate) struct FramedCall {
    connection: Arc<Connection>,
    id: u32,
    done: bool,
}

impl Future for FramedCall {
    type Output = Ended;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Ended> {
        let ended = self.connection.calls.lock().fetch(self.id, context.waker());
        match ended {
            Some(ended) => {
                self.done = true;
                Poll::Ready(ended)
            }
            None => Poll::Pending,
        }
    }
}

impl Drop for FramedCall {
    fn drop(&mut self) {
        if !self.done {
            self.connection.give_up(self.id);
        }
    }
}

/// A request as it is encoded on a connection whose handshake said the rest.
struct Outgoing<'a> {
    message: &'a RequestMessage,
    known: &'a Envelope,
    now: Instant,
}

impl Encode for Outgoing<'_> {
    fn encode(&self, out: &mut Writer<'_>) {
        let Envelope { sent_ms, timeout_ms, .. } = self.message.envelope;
        // The frame's header says these.
        let known = Envelope { sent_ms, timeout_ms, ..*self.known };
        self.message.encode_to(out, &known, self.now);
    }

    fn size_hint(&self) -> usize {
        self.message.size_hint()
    }
}

fn perform_all(due: &mut Vec<Due>) {
    due.drain(..).for_each(Due::perform);
}
