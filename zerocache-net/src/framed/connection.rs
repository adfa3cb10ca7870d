//! The calling side of a framed connection: many calls share its writes and its reads.
//!
//! [`Connection`] is shared by its callers; [`drive`] reads responses, keeps deadlines and writes what
//! callers left behind. It runs on the runtime on which the callers are, so that a response wakes its
//! caller without going through another thread.

mod driver;

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use parking_lot::Mutex;
use zerocache_core::{
    time::Instant,
    version::Incarnation,
    wire::{
        Envelope, Request, RequestMessage, Writer,
        frame::{Header, Opcode},
    },
};

pub(super) use self::driver::drive;
use super::{
    calls::{Caller, Calls, Due, Ended, Entered, REPEATABLE, UNKNOWN},
    line::{BoxedWrite, Encode, Flush, Line, SMALL_BYTES_MAX, Withdrawn},
};
use crate::{
    clock,
    transport::{NotTaken, Short, Then, What},
};

/// Values up to this size are copied to the line at once, in bytes.
const SHORT_BYTES_MAX: usize = 32 << 10;

/// What a read or write takes at most beyond key and value, in bytes.
const SHORT_OVERHEAD_BYTES: usize = 32;

/// While fewer requests wait to be sent than this part of those under way (1/4), they are gathering.
const GATHERED_SHARE: usize = 4;

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
        let id = self.send(message, timeout, Caller::Nobody, None).ok()?;
        Some(FramedCall { connection: Arc::clone(self), id, done: false })
    }

    /// Sends requests with one write, as far as nobody else is writing and they are small. Those that
    /// cannot be sent now come back.
    pub(super) fn call_many(
        self: &Arc<Self>,
        messages: Vec<RequestMessage>,
        timeout: Duration,
    ) -> Vec<Result<FramedCall, Box<RequestMessage>>> {
        let send = |message| {
            if self.is_full() {
                return Err(Box::new(message));
            }
            match self.send(message, timeout, Caller::Nobody, Some(Flush::Later)) {
                Ok(id) => Ok(FramedCall { connection: Arc::clone(self), id, done: false }),
                Err(refused) => Err(Box::new(refused.0)),
            }
        };
        let calls = messages.into_iter().map(send).collect();
        self.line.flush();
        calls
    }

    /// Sends a request, whose end `then` is given. Both come back when too many calls are under way or
    /// the connection is closed; nothing was sent then.
    pub(super) fn call_then(
        &self,
        message: RequestMessage,
        timeout: Duration,
        then: Then,
    ) -> Result<(), NotTaken> {
        let Err(refused) = self.send(message, timeout, Caller::Function(then), None) else {
            return Ok(());
        };
        match *refused {
            (message, Caller::Function(then)) => Err(Box::new((message, then))),
            (_, Caller::Nobody | Caller::Task(_)) => Ok(()),
        }
    }

    /// Sends a request, with this flush or with the one that suits what else is under way.
    fn send(
        &self,
        mut message: RequestMessage,
        timeout: Duration,
        caller: Caller,
        flush: Option<Flush>,
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
        let Some(position) = self.line.send(header, &outgoing, flush.unwrap_or(entered.flush()))
        else {
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
            What::Put(value, metadata, ..) => key.len() + value.len() + metadata.len(),
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
                What::Put(value, metadata, ttl, ack) => {
                    let parts = (key, value, metadata);
                    RequestMessage::encode_put(out, short.seen, parts, ttl, ack);
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

    /// Ends the calls whose deadlines were over at `before`, if its driver has not.
    pub(super) fn end_overdue(&self, before: Instant) {
        let sweep_at = self.calls.lock().sweep_at();
        if sweep_at.is_some_and(|at| at <= before) {
            self.sweep(before);
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

    /// Ends all calls, and the connection.
    pub(super) fn close(&self) {
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
