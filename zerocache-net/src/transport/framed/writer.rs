//! The sending side of a framed connection.
//!
//! Whoever finds the line idle writes; what others send meanwhile gathers in the next buffer and goes
//! out with one write. Large messages wait beside it and go a chunk at a time, in turn.
//!
//! Invariants: the stream is with exactly one writer at a time, and nobody holds the lock while
//! writing; frames of one message leave in order; once closed, nothing is accepted any more.

mod state;

use std::{
    collections::VecDeque,
    future::poll_fn,
    sync::{Arc, atomic::AtomicUsize},
    task::{Context, Poll, Waker},
};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::io::AsyncWrite;
use zerocache_core::wire::{Writer, frame::Header};

use self::state::{End, Work, write_all};

/// Above this many bytes waiting, senders that can wait do.
const QUEUED_BYTES_MAX: usize = 4 << 20;

/// A message that is said to take more than this is sent in chunks.
pub(super) const SMALL_BYTES_MAX: usize = 48 << 10;

/// A stream to write to.
pub type BoxedWrite = Box<dyn AsyncWrite + Send + Unpin>;

/// When what was sent goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flush {
    /// Now, by the sender itself if nobody else is writing.
    Now,
    /// Once those who are about to send have done so.
    Soon,
    /// With the next [`FrameWriter::flush`].
    Later,
}

/// What is encoded: appends to the writer.
pub trait Encode {
    /// Appends the message.
    fn encode(&self, out: &mut Writer<'_>);
    /// About how many bytes that takes; not much less than it does.
    fn size_hint(&self) -> usize;
}

/// The sending side of a connection. Shared by reference.
pub struct FrameWriter {
    out: Mutex<Out>,
}

struct Out {
    /// Away while somebody writes.
    stream: Option<BoxedWrite>,
    /// What the stream did not take at once, and how much of it it took.
    writing: BytesMut,
    written: usize,
    /// What goes next.
    next: BytesMut,
    /// An empty buffer for what goes after that.
    spare: BytesMut,
    /// Those of which a part was sent are among the first.
    chunked: VecDeque<Chunked>,
    /// Bytes of messages in `chunked` that are not in `next` yet.
    chunked_bytes: usize,
    /// Bytes appended to `next` so far, and bytes that the stream took.
    appended: u64,
    accepted: u64,
    /// Small messages that are not with the stream.
    unsent: usize,
    flush_wanted: bool,
    blocked: bool,
    closed: bool,
    flusher: Option<Waker>,
    waiting_for_room: Vec<Waker>,
    /// What waits on all lines that share it, and how much of that is this one's, as of its last flush.
    meter: Arc<AtomicUsize>,
    metered: usize,
}

/// A large message on its way.
struct Chunked {
    header: Header,
    parts: VecDeque<Bytes>,
    bytes: usize,
    begun: bool,
}

/// What became of a message that is no longer wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Withdrawal {
    /// Nothing of it has been sent, and nothing will be.
    Whole,
    /// Some of it has been sent, the rest will not be.
    Rest,
    /// All of it has been sent, or is about to be.
    Nothing,
}

impl FrameWriter {
    /// A line that writes to `stream`.
    #[must_use]
    pub fn new(stream: BoxedWrite) -> Self {
        Self::metered(stream, Arc::default())
    }

    /// A line that writes to `stream`; the bytes that wait on it after a flush are counted in `meter`
    /// among those of others.
    #[must_use]
    pub fn metered(stream: BoxedWrite, meter: Arc<AtomicUsize>) -> Self {
        let out = Out {
            stream: Some(stream),
            writing: BytesMut::new(),
            written: 0,
            next: BytesMut::new(),
            spare: BytesMut::new(),
            chunked: VecDeque::new(),
            chunked_bytes: 0,
            appended: 0,
            accepted: 0,
            unsent: 0,
            flush_wanted: false,
            blocked: false,
            closed: false,
            flusher: None,
            waiting_for_room: Vec::new(),
            meter,
            metered: 0,
        };
        Self { out: Mutex::new(out) }
    }

    /// Sends a message. Returns how many bytes were appended to the line before it, or none when the
    /// line is closed and nothing was sent.
    pub fn send(&self, header: Header, message: &impl Encode, flush: Flush) -> Option<u64> {
        let hint = message.size_hint();
        let position = if hint <= SMALL_BYTES_MAX {
            self.append(header, hint, |out| message.encode(out))?
        } else {
            self.append_chunked(header, message)?
        };
        match flush {
            Flush::Now => self.flush(),
            Flush::Soon => self.flush_soon(),
            Flush::Later => {}
        }
        Some(position)
    }

    /// Appends a small message without flushing. Returns as [`send`](Self::send).
    pub fn append(
        &self,
        header: Header,
        hint: usize,
        encode: impl FnOnce(&mut Writer<'_>),
    ) -> Option<u64> {
        let mut out = self.out.lock();
        if out.closed {
            return None;
        }
        let position = out.appended;
        out.append(header, hint, encode);
        Some(position)
    }

    fn append_chunked(&self, header: Header, message: &impl Encode) -> Option<u64> {
        let (mut last, mut parts) = (BytesMut::new(), Vec::new());
        message.encode(&mut Writer::vectored(&mut last, &mut parts));
        parts.push(last.freeze());
        let bytes = parts.iter().map(Bytes::len).sum();
        let mut out = self.out.lock();
        if out.closed {
            return None;
        }
        out.chunked_bytes += bytes;
        let parts = parts.into_iter().filter(|part| !part.is_empty()).collect();
        out.chunked.push_back(Chunked { header, parts, bytes, begun: false });
        Some(out.appended)
    }

    /// Gives up the chunked message with this id, as far as it has not been sent. To be followed by
    /// [`wake_waiting`](Self::wake_waiting), because that may make room.
    pub(super) fn withdraw(&self, id: u32) -> Withdrawal {
        self.out.lock().withdraw(|chunked| chunked.header.id == id)
    }

    /// Gives up the chunked message with this id if nothing of it was sent; whether that is so.
    #[must_use]
    pub fn withdraw_unsent(&self, id: u32) -> bool {
        let unsent = |chunked: &Chunked| chunked.header.id == id && !chunked.begun;
        // Under one lock: whoever writes may begin it at any time.
        let withdrawn = self.out.lock().withdraw(unsent);
        self.wake_waiting();
        withdrawn == Withdrawal::Whole
    }

    /// Wakes those who wait for room, if there is some.
    pub(super) fn wake_waiting(&self) {
        let waiting = self.out.lock().take_waiting();
        wake_all(waiting);
    }

    /// Whether a chunked message with this id has not begun to be sent.
    #[must_use]
    pub fn is_unsent(&self, id: u32) -> bool {
        self.out.lock().chunked.iter().any(|chunked| chunked.header.id == id && !chunked.begun)
    }

    /// Has the flusher write soon, after those who are about to send.
    pub fn flush_soon(&self) {
        let waker = {
            let mut out = self.out.lock();
            // Whoever has the stream will find what was appended.
            if out.flush_wanted || out.blocked || out.stream.is_none() {
                return;
            }
            out.flush_wanted = true;
            out.flusher.clone()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Writes what waits, as far as the stream takes it and unless somebody else is writing. What
    /// others send meanwhile is left to the flusher, so that it gathers.
    pub fn flush(&self) {
        let Some(work) = self.out.lock().begin() else { return };
        let Work { mut stream, buffer, mut written, waker } = work;
        let before = written;
        let end = write_all(&mut stream, &buffer, &mut written, &waker);
        let mut out = self.out.lock();
        out.accepted += (written - before) as u64;
        if out.closed {
            return;
        }
        let wake = match end {
            End::Done => {
                out.stream = Some(stream);
                out.reuse(buffer);
                let mut wake = out.take_waiting();
                if out.queued() > 0 && !out.flush_wanted {
                    out.flush_wanted = true;
                    wake.extend(out.flusher.clone());
                }
                wake
            }
            End::Blocked => {
                out.blocked = true;
                (out.writing, out.written) = (buffer, written);
                out.stream = Some(stream);
                // One that came meanwhile is not the one that the stream will wake.
                let other = out.flusher.as_ref().filter(|flusher| !flusher.will_wake(&waker));
                other.cloned().into_iter().collect()
            }
            End::Failed => out.close().1,
        };
        out.measure();
        drop(out);
        wake_all(wake);
    }

    /// Writes when the stream can go on or a flush is wanted, until the line is closed. To be run by
    /// exactly one task.
    pub async fn run(&self) {
        while poll_fn(|context| self.poll_flush(context)).await {
            // Those who are about to send get their turn first.
            tokio::task::yield_now().await;
            self.flush();
        }
    }

    /// Ready with true when a flush is wanted, with false when the line is closed: the work of
    /// [`run`](Self::run) for a task that does other things too.
    pub fn poll_flush(&self, context: &Context<'_>) -> Poll<bool> {
        let mut out = self.out.lock();
        remember(&mut out.flusher, context.waker());
        if out.blocked {
            drop(out);
            // Registers the waker with the stream if it still takes no more.
            self.flush();
            out = self.out.lock();
        }
        if out.closed {
            return Poll::Ready(false);
        }
        if std::mem::take(&mut out.flush_wanted) { Poll::Ready(true) } else { Poll::Pending }
    }

    /// Whether so much waits that one who can wait should.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.out.lock().is_full()
    }

    /// Ready when the line is not full, or closed.
    pub fn poll_room(&self, context: &Context<'_>) -> Poll<()> {
        self.poll_room_within(context, usize::MAX)
    }

    /// Ready when the line is neither full nor has `bytes_max` waiting, or when it is closed.
    pub fn poll_room_within(&self, context: &Context<'_>, bytes_max: usize) -> Poll<()> {
        let mut out = self.out.lock();
        if out.closed || (!out.is_full() && out.queued() < bytes_max) {
            return Poll::Ready(());
        }
        let known = out.waiting_for_room.iter().any(|waker| waker.will_wake(context.waker()));
        if !known {
            out.waiting_for_room.push(context.waker().clone());
        }
        Poll::Pending
    }

    /// Gives back what a connection without traffic does not need.
    pub fn shrink(&self) {
        let mut out = self.out.lock();
        out.spare = BytesMut::new();
        if out.next.is_empty() {
            out.next = BytesMut::new();
        }
    }

    /// Wakes the flusher, to look at something else.
    pub fn wake_flusher(&self) {
        let waker = self.out.lock().flusher.clone();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Drops the stream and what waits. Returns how many bytes the stream can have taken.
    pub fn close(&self) -> u64 {
        let mut out = self.out.lock();
        // Whoever is writing may have written all.
        let away = out.stream.is_none() && !out.closed;
        let taken = if away { u64::MAX } else { out.accepted };
        let (stream, waiting) = out.close();
        drop(out);
        drop(stream);
        wake_all(waiting);
        taken
    }

    /// How many small messages wait for the next write.
    #[must_use]
    pub fn unsent(&self) -> usize {
        self.out.lock().unsent
    }

    /// Whether the line is closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.out.lock().closed
    }

    /// How many bytes the stream took so far, and how many wait.
    #[must_use]
    pub fn accepted_and_queued(&self) -> (u64, usize) {
        let out = self.out.lock();
        (out.accepted, out.queued())
    }

    /// How many bytes wait.
    #[cfg(test)]
    pub(super) fn queued(&self) -> usize {
        self.out.lock().queued()
    }

    /// Whether everything that was sent is with the stream.
    #[must_use]
    pub fn is_flushed(&self) -> bool {
        let out = self.out.lock();
        out.closed || (out.stream.is_some() && out.queued() == 0)
    }
}

fn remember(place: &mut Option<Waker>, waker: &Waker) {
    if !place.as_ref().is_some_and(|known| known.will_wake(waker)) {
        *place = Some(waker.clone());
    }
}

fn wake_all(wakers: Vec<Waker>) {
    for waker in wakers {
        waker.wake();
    }
}
