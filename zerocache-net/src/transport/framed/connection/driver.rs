//! The driver of a connection: reads responses, enforces deadlines, and writes what callers left to it.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::{Arc, atomic::Ordering},
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    io::AsyncReadExt,
    time::{Sleep, sleep},
};
use zerocache_core::{
    call::CallFailure,
    time::Instant,
    wire::{
        Response,
        frame::{FrameError, Opcode},
    },
};

use super::{Connection, notify_all};
use crate::{
    clock,
    transport::framed::{
        CallResult,
        reader::{BoxedRead, FrameReader, Incoming},
    },
};

/// A connection without calls is closed after this time, in milliseconds: before the node closes it, so
/// that no call is lost to that.
const IDLE_MS_MAX: u64 = 30_000;

/// A connection with overdue calls is closed when nothing was received or accepted for this time, in
/// milliseconds: a new connection may get through where this one does not.
const SILENT_MS_MAX: u64 = 3_000;

/// Buffers are released after this time without traffic, in milliseconds.
const QUIET_MS: u64 = 1_000;

/// After this many reads the writer is polled even if more can be read. It is less than a task may do in
/// one poll, after which the stream would accept nothing.
const READS_UNPOLLED_MAX: usize = 32;

/// Drives a connection until the other side or an error ends it, or nobody uses it.
pub(in crate::transport) async fn drive(
    connection: Arc<Connection>,
    read: BoxedRead,
    reader: FrameReader,
) {
    // Closes the connection also when the runtime drops this future.
    let _close = CloseOnDrop(&connection);
    run(&connection, read, reader).await;
}

/// Closes its connection when dropped.
struct CloseOnDrop<'a>(&'a Connection);

impl Drop for CloseOnDrop<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}

async fn run(connection: &Connection, mut read: BoxedRead, mut reader: FrameReader) {
    let mut traffic = Traffic::new(clock::mono());
    let mut batch = Vec::new();
    let mut due = Vec::new();
    let mut timer = pin!(sleep(Duration::ZERO));
    let mut armed = Instant::default();
    // Reads since the writer was polled.
    let mut unpolled = 0;
    loop {
        let now = clock::mono();
        if let Err(error) = take_responses(&mut reader, now, &mut batch) {
            return tracing::debug!(%error, "invalid frame from node");
        }
        if !batch.is_empty() {
            connection.complete(&mut batch, &mut due);
            let is_gathering = connection.writer.expect(due.len(), clock::elapsed());
            notify_all(&mut due);
            if is_gathering {
                run_others().await;
                connection.writer.end_gathering(clock::elapsed());
            }
        }
        if traffic.must_close(connection, now, &mut reader) {
            return;
        }
        // The timer is not polled while there is always something to read.
        if armed != Instant::default() && armed <= now {
            armed = Instant::default();
            connection.sweep(now);
        }
        let check_at = traffic.next_check(connection, now);
        if check_at != armed {
            armed = check_at;
            timer.set(sleep(check_at.since(now)));
        }
        let may_read = unpolled < READS_UNPOLLED_MAX;
        match next_event(connection, &mut read, &mut reader, timer.as_mut(), may_read).await {
            Event::Read(0) => return,
            Event::Read(_) => {
                traffic.last_read = clock::mono();
                unpolled = if may_read { unpolled + 1 } else { 0 };
            }
            Event::Timer => {
                armed = Instant::default();
                connection.sweep(clock::mono());
            }
            Event::Flush => {
                if connection.writer.expect_others(clock::elapsed()) {
                    run_others().await;
                    connection.writer.end_gathering(clock::elapsed());
                } else {
                    connection.writer.flush();
                }
            }
            Event::Rearm => {}
            Event::Closed => return,
        }
    }
}

/// Lets the tasks run that are ready now: goes to the end of the runtime's queue. Unlike
/// [`yield_now`](tokio::task::yield_now) it does not wait until the queue is empty, nor does a wake-up from one
/// of these tasks bring it forward.
async fn run_others() {
    let mut has_waited = false;
    poll_fn(|context| {
        if std::mem::replace(&mut has_waited, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

enum Event {
    Read(usize),
    Flush,
    Timer,
    Rearm,
    Closed,
}

/// Waits for the next event, input first: a deadline that passed while the process was suspended does not
/// end a call whose response is there. Writing waits until nothing is left to read, so that the callers whose
/// responses came send together.
async fn next_event(
    connection: &Connection,
    read: &mut BoxedRead,
    reader: &mut FrameReader,
    mut timer: Pin<&mut Sleep>,
    may_read: bool,
) -> Event {
    let mut reading = pin!(read.read_buf(reader.buffer()));
    poll_fn(|context| {
        if may_read && let Poll::Ready(read) = reading.as_mut().poll(context) {
            return Poll::Ready(Event::Read(read.unwrap_or(0)));
        }
        match connection.writer.poll_flush(context) {
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

/// Takes all complete responses out of the reader.
fn take_responses(
    reader: &mut FrameReader,
    now: Instant,
    batch: &mut Vec<(u32, CallResult)>,
) -> Result<(), FrameError> {
    while let Some((header, delay_ms, incoming)) = reader.next(now)? {
        if header.opcode != Opcode::Response {
            continue;
        }
        let message = match incoming {
            Incoming::Small(_) => reader.take(),
            Incoming::Large(message) => message,
            // Its slot can be reused only after its last frame.
            Incoming::Refused(_) | Incoming::Nothing if !header.more => {
                batch.push((header.id, Err(CallFailure::NoAnswer)));
                continue;
            }
            Incoming::Refused(_) | Incoming::Nothing => continue,
        };
        batch.push((header.id, decode(message, delay_ms)));
    }
    Ok(())
}

fn decode(message: Bytes, delay_ms: u64) -> CallResult {
    let response = Response::decode(message).map_err(|error| {
        tracing::debug!(%error, "cannot decode response");
        CallFailure::NoAnswer
    });
    response.map(|response| response.delayed_by(delay_ms))
}

/// The traffic on a connection, as its driver sees it.
struct Traffic {
    last_read: Instant,
    /// Bytes that the stream has accepted.
    accepted: u64,
    /// Bytes that it will have accepted once everything queued at the last check is written.
    expected: u64,
    /// When the stream was last seen to accept a part of what was queued: then something beyond it has taken
    /// what came before. Accepting everything shows nothing, because the system buffers also for a link that
    /// is cut.
    last_progress: Instant,
    is_shrunk: bool,
}

impl Traffic {
    fn new(now: Instant) -> Self {
        Self { last_read: now, accepted: 0, expected: 0, last_progress: now, is_shrunk: false }
    }

    /// Whether the connection must be closed. Releases buffers when it is quiet.
    fn must_close(
        &mut self,
        connection: &Connection,
        now: Instant,
        reader: &mut FrameReader,
    ) -> bool {
        let (accepted, queued) = connection.writer.accepted_and_queued();
        if (self.accepted + 1..self.expected).contains(&accepted) {
            self.last_progress = now;
        }
        (self.accepted, self.expected) = (accepted, accepted + queued as u64);
        let quiet_ms = now.since_ms(self.last_read.max(self.last_progress));
        if quiet_ms < QUIET_MS {
            self.is_shrunk = false;
        } else if !self.is_shrunk {
            reader.shrink();
            connection.writer.shrink();
            self.is_shrunk = true;
        }
        if connection.is_retired.load(Ordering::Acquire) && connection.calls.lock().close_if_idle()
        {
            return true;
        }
        if quiet_ms < SILENT_MS_MAX {
            return false;
        }
        let mut calls = connection.calls.lock();
        let overdue = calls.oldest_overdue();
        let is_silent = overdue.is_some_and(|sent| now.since_ms(sent) >= SILENT_MS_MAX);
        is_silent || (quiet_ms >= IDLE_MS_MAX && calls.close_if_idle())
    }

    /// When to check again.
    fn next_check(&self, connection: &Connection, now: Instant) -> Instant {
        let (sweep, overdue) = {
            let calls = connection.calls.lock();
            (calls.sweep_at(), calls.oldest_overdue().is_some())
        };
        let last = self.last_read.max(self.last_progress);
        let check = if overdue {
            now.plus_ms(SILENT_MS_MAX / 4)
        } else if self.is_shrunk {
            last.plus_ms(IDLE_MS_MAX)
        } else {
            last.plus_ms(QUIET_MS)
        };
        sweep.map_or(check, |at| at.min(check)).max(now.plus_ms(1))
    }
}
