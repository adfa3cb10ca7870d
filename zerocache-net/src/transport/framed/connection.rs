//! The calling side of a framed connection: many calls share its writes and its reads.
//!
//! [`Connection`] is shared by its callers. [`drive`] reads responses, enforces deadlines and writes what
//! callers left to it. It runs on the runtime of the callers, so that a response wakes its caller without
//! going through another thread.

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
        Envelope, RequestMessage, Writer,
        frame::{Header, Opcode},
    },
};

pub(in crate::transport) use self::driver::drive;
use super::{
    CallResult, Completion, Encode, FastRequest, Flush, FrameWriter, Unsent,
    calls::{Calls, Notification, REPEATABLE, Registration, UNKNOWN, Waiter},
    writer::{BoxedWrite, SMALL_BYTES_MAX, Withdrawal},
};
use crate::clock;

/// A connection to a node.
pub(in crate::transport) struct Connection {
    writer: FrameWriter,
    calls: Mutex<Calls>,
    /// The envelope that the handshake fixed; requests carry only what differs from it.
    known: Envelope,
    /// Set when the driver must set its timer earlier.
    rearm: AtomicBool,
    /// Set when it is to end once it has no calls.
    is_retired: AtomicBool,
}

impl Connection {
    /// Creates a connection that writes to `write`. `known` is the envelope that the handshake fixed.
    pub(in crate::transport) fn new(write: BoxedWrite, known: Envelope) -> Self {
        Self {
            writer: FrameWriter::new(write),
            calls: Mutex::default(),
            known,
            rearm: AtomicBool::new(false),
            is_retired: AtomicBool::new(false),
        }
    }

    /// The node at the other end.
    pub(in crate::transport) fn peer(&self) -> Option<Incarnation> {
        self.known.to
    }

    /// Whether it takes no more calls.
    pub(in crate::transport) fn is_closed(&self) -> bool {
        self.writer.is_closed()
    }

    /// Whether it takes calls and is to be used for new ones.
    pub(in crate::transport) fn takes_calls(&self) -> bool {
        !self.is_retired.load(Ordering::Acquire) && !self.is_closed()
    }

    /// Whether so much is queued that a caller should wait.
    pub(in crate::transport) fn is_full(&self) -> bool {
        self.writer.is_full()
    }

    /// Ready when there is room to send, or the connection is closed.
    pub(in crate::transport) fn poll_room(&self, context: &Context<'_>) -> Poll<()> {
        self.writer.poll_room(context)
    }

    /// Sends a request. Returns none when too many calls are in flight or the connection is closed; nothing
    /// was sent then.
    pub(in crate::transport) fn call(
        self: &Arc<Self>,
        message: RequestMessage,
        timeout: Duration,
    ) -> Option<FramedCall> {
        let id = self.send(message, timeout, Waiter::None, None).ok()?;
        Some(FramedCall { connection: Arc::clone(self), id, is_done: false })
    }

    /// Sends requests with one write, if nobody else is writing and the requests are small. Returns those
    /// that cannot be sent now.
    pub(in crate::transport) fn call_many(
        self: &Arc<Self>,
        messages: Vec<RequestMessage>,
        timeout: Duration,
    ) -> Vec<Result<FramedCall, Box<RequestMessage>>> {
        let send = |message| {
            if self.is_full() {
                return Err(Box::new(message));
            }
            match self.send(message, timeout, Waiter::None, Some(Flush::Later)) {
                Ok(id) => Ok(FramedCall { connection: Arc::clone(self), id, is_done: false }),
                Err(unsent) => Err(Box::new(unsent.0)),
            }
        };
        let calls = messages.into_iter().map(send).collect();
        self.writer.flush();
        calls
    }

    /// Sends a request whose result `completion` receives.
    ///
    /// # Errors
    /// Both arguments, when too many calls are in flight or the connection is closed; nothing was sent.
    pub(in crate::transport) fn call_then(
        &self,
        message: RequestMessage,
        timeout: Duration,
        completion: Completion,
    ) -> Result<(), Unsent> {
        let Err(unsent) = self.send(message, timeout, Waiter::Function(completion), None) else {
            return Ok(());
        };
        match *unsent {
            (message, Waiter::Function(completion)) => Err(Box::new((message, completion))),
            (_, Waiter::None | Waiter::Task(_)) => Ok(()),
        }
    }

    /// Sends a request, flushed as `flush` says or with those of other callers.
    fn send(
        &self,
        mut message: RequestMessage,
        timeout: Duration,
        waiter: Waiter,
        flush: Option<Flush>,
    ) -> Result<u32, Box<(RequestMessage, Waiter)>> {
        let begun = clock::elapsed();
        let now = clock::instant(begun);
        let timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX).max(1);
        let deadline = now.plus_ms(timeout_ms);
        let is_repeatable = message.request.is_repeatable();
        let registration = {
            let mut calls = self.calls.lock();
            let registration =
                match calls.register(now, deadline, waiter, first_position(is_repeatable)) {
                    Ok(registration) => registration,
                    Err(waiter) => return Err(Box::new((message, waiter))),
                };
            if message.size_hint() > SMALL_BYTES_MAX {
                calls.note_large(registration.id);
            }
            registration
        };
        let id = registration.id;
        message.envelope.sent_ms = now.as_millis();
        message.envelope.timeout_ms = timeout_ms;
        let header = request_header(id, now, timeout_ms);
        let outgoing = Outgoing { message: &message, known: &self.known, now };
        let position = match flush {
            Some(flush) => self.writer.send(header, &outgoing, flush),
            None => {
                let sender = (registration.is_alone, begun);
                self.writer.send_gathered(header, &outgoing, sender)
            }
        };
        let Some(position) = position else {
            let waiter = self.calls.lock().take_back(id);
            return waiter.map_or(Ok(id), |waiter| Err(Box::new((message, waiter))));
        };
        if !is_repeatable {
            self.calls.lock().note_position(id, position);
        }
        self.note_deadline(&registration);
        Ok(id)
    }

    /// Sends a request on the fast path. Returns none when it is not small, too many calls are in flight or
    /// the connection is closed; nothing was sent then.
    pub(in crate::transport) fn send_now(
        self: &Arc<Self>,
        request: &FastRequest<'_>,
    ) -> Option<FramedCall> {
        let FastRequest { message, repeatable, begun, timeout_ms, waker, .. } = *request;
        let size_hint = message.size_hint();
        if size_hint > SMALL_BYTES_MAX {
            return None;
        }
        let now = clock::instant(begun);
        let (deadline, waiter) = (now.plus_ms(timeout_ms), Waiter::Task(waker.clone()));
        let position = first_position(repeatable);
        let registration = self.calls.lock().register(now, deadline, waiter, position).ok()?;
        let id = registration.id;
        let header = request_header(id, now, timeout_ms);
        let sender = (registration.is_alone, begun);
        let encode = |out: &mut Writer<'_>| message.encode(out);
        let Some(position) = self.writer.append_gathered(header, size_hint, encode, sender) else {
            self.calls.lock().take_back(id);
            return None;
        };
        if !repeatable {
            self.calls.lock().note_position(id, position);
        }
        self.note_deadline(&registration);
        Some(FramedCall { connection: Arc::clone(self), id, is_done: false })
    }

    /// How many calls wait, are complete, and are abandoned, and how many bytes are queued.
    #[cfg(test)]
    pub(in crate::transport) fn census(&self) -> ([usize; 3], usize) {
        (self.calls.lock().census(), self.writer.queued())
    }

    fn note_deadline(&self, registration: &Registration) {
        if registration.is_next_deadline {
            self.rearm.store(true, Ordering::Release);
            self.writer.wake_flusher();
        }
    }

    /// Abandons a call whose caller is gone.
    fn abandon(&self, id: u32) {
        let mut calls = self.calls.lock();
        if !calls.abandon(id) {
            return;
        }
        self.withdraw(&mut calls, id);
        drop(calls);
        self.after_withdrawal();
    }

    /// Stops sending a request whose response nobody wants. This happens under the lock of the calls, so
    /// that the response cannot arrive meanwhile and its slot be given to another call. Call
    /// [`after_withdrawal`](Self::after_withdrawal) once that lock is released.
    fn withdraw(&self, calls: &mut Calls, id: u32) {
        if self.writer.withdraw(id) == Withdrawal::Whole {
            calls.forget(id);
        } else {
            self.cancel(id);
        }
    }

    /// Stops sending a request whose response arrived early. Returns whether something was left of it.
    fn stop_sending(&self, calls: &mut Calls, id: u32) -> bool {
        let is_stopped = calls.take_large(id) && self.writer.withdraw(id) != Withdrawal::Nothing;
        if is_stopped {
            // The node skips the frames of what it refused until the request ends.
            self.cancel(id);
        }
        is_stopped
    }

    fn cancel(&self, id: u32) {
        let sent_ms = clock::mono().as_millis() as u32;
        let header = Header { opcode: Opcode::Cancel, more: false, id, sent_ms, timeout_ms: 0 };
        self.writer.append(header, 0, |_| {});
    }

    fn after_withdrawal(&self) {
        self.writer.flush_soon();
        self.writer.wake_waiting();
    }

    /// Completes the calls of responses that arrived. Adds to `due` who is to be notified.
    fn complete(&self, batch: &mut Vec<(u32, CallResult)>, due: &mut Vec<Notification>) {
        let mut is_stopped = false;
        let mut calls = self.calls.lock();
        for (id, result) in batch.drain(..) {
            is_stopped |= self.stop_sending(&mut calls, id);
            due.extend(calls.complete(id, result));
        }
        drop(calls);
        if is_stopped {
            self.after_withdrawal();
        }
    }

    /// Ends the calls whose deadlines had passed at `before` and that the driver has not ended.
    pub(in crate::transport) fn end_overdue(&self, before: Instant) {
        let sweep_at = self.calls.lock().sweep_at();
        if sweep_at.is_some_and(|at| at <= before) {
            self.sweep(before);
        }
    }

    /// Ends the calls whose deadlines have passed at `now`.
    fn sweep(&self, now: Instant) {
        let (mut due, mut timed_out) = (Vec::new(), Vec::new());
        let mut calls = self.calls.lock();
        calls.sweep(now, &mut due, &mut timed_out);
        for id in &timed_out {
            self.withdraw(&mut calls, *id);
        }
        drop(calls);
        if !timed_out.is_empty() {
            self.after_withdrawal();
        }
        notify_all(&mut due);
    }

    /// Lets the driver end the connection as soon as no call is in flight.
    pub(in crate::transport) fn retire(&self) {
        self.is_retired.store(true, Ordering::Release);
        self.rearm.store(true, Ordering::Release);
        self.writer.wake_flusher();
    }

    /// Ends all calls, and the connection.
    pub(in crate::transport) fn close(&self) {
        let accepted = self.writer.close();
        let mut due = Vec::new();
        self.calls.lock().close(accepted, |id| self.writer.is_unsent(id), &mut due);
        notify_all(&mut due);
    }
}

/// The position of a request before its place in the stream is known.
const fn first_position(is_repeatable: bool) -> u64 {
    if is_repeatable { REPEATABLE } else { UNKNOWN }
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

/// A call in flight on a framed connection.
pub(in crate::transport) struct FramedCall {
    connection: Arc<Connection>,
    id: u32,
    is_done: bool,
}

impl Future for FramedCall {
    type Output = CallResult;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<CallResult> {
        let result = self.connection.calls.lock().fetch(self.id, context.waker());
        match result {
            Some(result) => {
                self.is_done = true;
                Poll::Ready(result)
            }
            None => Poll::Pending,
        }
    }
}

impl Drop for FramedCall {
    fn drop(&mut self) {
        if !self.is_done {
            self.connection.abandon(self.id);
        }
    }
}

/// A request as it is encoded on a connection whose handshake fixed the envelope.
struct Outgoing<'a> {
    message: &'a RequestMessage,
    known: &'a Envelope,
    now: Instant,
}

impl Encode for Outgoing<'_> {
    fn encode(&self, out: &mut Writer<'_>) {
        let Envelope { sent_ms, timeout_ms, .. } = self.message.envelope;
        // The header of the frame carries these.
        let known = Envelope { sent_ms, timeout_ms, ..*self.known };
        self.message.encode_to(out, &known, self.now);
    }

    fn size_hint(&self) -> usize {
        self.message.size_hint()
    }
}

fn notify_all(due: &mut Vec<Notification>) {
    due.drain(..).for_each(Notification::deliver);
}
