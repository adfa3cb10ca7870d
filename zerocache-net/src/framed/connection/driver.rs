//! The task that keeps one connection: reads responses, keeps deadlines, writes what callers left.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::{Arc, atomic::Ordering},
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncReadExt},
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

use super::{Connection, perform_all};
use crate::{
    clock,
    framed::{
        calls::Ended,
        inbox::{Inbox, Incoming},
    },
};

/// A stream to read from.
pub(in crate::framed) type BoxedRead = Box<dyn AsyncRead + Send + Unpin>;

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

/// While requests are gathering, writing is put off so many times at most: the responses to the others
/// let more callers send. Without it batches stay as small as they happen to be.
const PATIENCE: usize = 2;

/// Keeps a connection until it ends: by the other side, by a fault, or because nobody uses it.
pub(in crate::framed) async fn drive(connection: Arc<Connection>, read: BoxedRead, inbox: Inbox) {
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
    while let Some((header, delay_ms, incoming)) = inbox.next(now)? {
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
        batch.push((header.id, decode(message, delay_ms)));
    }
    Ok(())
}

fn decode(message: Bytes, delay_ms: u64) -> Ended {
    let response = Response::decode(message).map_err(|error| {
        tracing::debug!(%error, "undecodable response");
        CallFailure::NoAnswer
    });
    response.map(|response| response.delayed_by(delay_ms))
}

/// What a driver knows of the traffic on its connection.
struct Watch {
    heard: Instant,
    accepted: u64,
    /// How many there will be when all is taken that waited when it was looked at last.
    expected: u64,
    /// When the stream was last seen to take a part of what waited: then the other end, or something on the
    /// way, has taken what came before. What the stream takes whole shows nothing: the system keeps it,
    /// also for a link that is cut.
    progress: Instant,
    shrunk: bool,
}

impl Watch {
    fn new(now: Instant) -> Self {
        Self { heard: now, accepted: 0, expected: 0, progress: now, shrunk: false }
    }

    /// Whether the connection is to be closed. Gives buffers back when it is quiet.
    fn is_over(&mut self, connection: &Connection, now: Instant, inbox: &mut Inbox) -> bool {
        let (accepted, waiting) = connection.line.taken_and_waiting();
        if (self.accepted + 1..self.expected).contains(&accepted) {
            self.progress = now;
        }
        (self.accepted, self.expected) = (accepted, accepted + waiting as u64);
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
        let mut calls = connection.calls.lock();
        let overdue = calls.oldest_overdue();
        let silent = overdue.is_some_and(|sent| now.since_ms(sent) >= SILENT_MS_MAX);
        silent || (quiet_ms >= IDLE_MS_MAX && calls.close_if_idle())
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
