//! The sending side of a framed connection.
//!
//! A sender that finds the stream idle writes. What others send meanwhile is queued in the next buffer and
//! written at once. Large messages are queued beside it and sent in chunks, interleaved with each other.
//!
//! Invariants: exactly one writer holds the stream at a time, and nobody holds the lock while writing; the
//! frames of one message leave in order; a closed writer accepts nothing.

// The same files also when a test includes this one.
#[path = "writer/gathering.rs"]
mod gathering;
#[path = "writer/state.rs"]
mod state;

use std::{
    collections::VecDeque,
    future::{Future, poll_fn},
    sync::{Arc, atomic::AtomicUsize},
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use zerocache_core::wire::{Writer, frame::Header};

use self::{
    gathering::Gathering,
    state::{WriteJob, WriteOutcome, write_all},
};
use super::sync::Mutex;

/// With more queued bytes than this, senders that can wait should wait.
const QUEUED_BYTES_MAX: usize = 4 << 20;

/// A message whose size hint exceeds this is sent in chunks.
pub(super) const SMALL_BYTES_MAX: usize = 48 << 10;

/// A request waits at most this time for others while senders run: a write costs a tenth of that, and in this
/// time some 50 callers send.
pub(super) const GATHERING_MAX: Duration = Duration::from_micros(100);

/// A stream to write to.
pub type BoxedWrite = Box<dyn AsyncWrite + Send + Unpin>;

/// When a message is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flush {
    /// Now, by the sender itself if nobody else is writing.
    Now,
    /// By the flusher, after the senders that are about to send.
    Soon,
    /// With the next [`FrameWriter::flush`].
    Later,
}

/// A message that can be encoded.
pub trait Encode {
    /// Appends the message.
    fn encode(&self, out: &mut Writer<'_>);
    /// Returns about how many bytes the message takes; not much less than it does.
    fn size_hint(&self) -> usize;
}

/// The sending side of a connection. Shared by reference.
pub struct FrameWriter {
    state: Mutex<WriteState>,
}

struct WriteState {
    /// None while somebody writes.
    stream: Option<BoxedWrite>,
    /// The buffer that the stream did not accept at once, and how much of it was accepted.
    writing: BytesMut,
    written: usize,
    /// The buffer of the next write.
    next: BytesMut,
    /// An empty buffer for the write after that.
    spare: BytesMut,
    /// Large messages. Those that were begun are among the first.
    chunked: VecDeque<ChunkedMessage>,
    /// Bytes of `chunked` that are not in `next` yet.
    chunked_bytes: usize,
    /// Bytes appended to `next` so far, and bytes that the stream accepted.
    appended: u64,
    accepted: u64,
    /// The number of small messages that wait for the next write.
    unsent: usize,
    flush_wanted: bool,
    /// Senders leave their requests to the flusher, which is about to write.
    gathering: Option<Gathering>,
    /// The next sender writes at once, if no gathering has begun by then.
    is_next_prompt: bool,
    /// How many of the next gatherings reckon with other tasks that compute.
    cautious: u8,
    /// The stream did not accept everything, and wakes the flusher when it does.
    is_blocked: bool,
    is_closed: bool,
    flusher: Option<Waker>,
    /// The flusher has found the stream taken since the present write began: it may have been woken by the
    /// stream.
    is_flusher_late: bool,
    waiting_for_room: Vec<Waker>,
    /// The queued bytes of all writers that share the meter, and this writer's part as of its last flush.
    meter: Arc<AtomicUsize>,
    metered: usize,
}

/// A large message of which chunks remain.
struct ChunkedMessage {
    header: Header,
    parts: VecDeque<Bytes>,
    bytes: usize,
    is_begun: bool,
}

/// What was withdrawn of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Withdrawal {
    /// The whole message: nothing of it was sent.
    Whole,
    /// The rest of it: some chunks were sent.
    Rest,
    /// Nothing: it was sent, or is being sent.
    Nothing,
}

impl FrameWriter {
    /// Creates a writer to `stream`.
    #[must_use]
    pub fn new(stream: BoxedWrite) -> Self {
        Self::metered(stream, Arc::default())
    }

    /// Creates a writer to `stream` that adds the bytes which remain queued after a flush to `meter`.
    #[must_use]
    pub fn metered(stream: BoxedWrite, meter: Arc<AtomicUsize>) -> Self {
        let state = WriteState {
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
            gathering: None,
            is_next_prompt: false,
            cautious: 0,
            is_blocked: false,
            is_closed: false,
            flusher: None,
            is_flusher_late: false,
            waiting_for_room: Vec::new(),
            meter,
            metered: 0,
        };
        Self { state: Mutex::new(state) }
    }

    /// Sends a message. Returns how many bytes were appended before it, or none when the writer is closed
    /// and nothing was sent.
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

    /// Appends a small message without a flush. Returns the same as [`send`](Self::send).
    pub fn append(
        &self,
        header: Header,
        hint: usize,
        encode: impl FnOnce(&mut Writer<'_>),
    ) -> Option<u64> {
        self.state.lock().append_open(header, hint, encode)
    }

    fn append_chunked(&self, header: Header, message: &impl Encode) -> Option<u64> {
        let (mut last, mut parts) = (BytesMut::new(), Vec::new());
        message.encode(&mut Writer::vectored(&mut last, &mut parts));
        parts.push(last.freeze());
        let bytes = parts.iter().map(Bytes::len).sum();
        let mut state = self.state.lock();
        if state.is_closed {
            return None;
        }
        state.chunked_bytes += bytes;
        let parts = parts.into_iter().filter(|part| !part.is_empty()).collect();
        state.chunked.push_back(ChunkedMessage { header, parts, bytes, is_begun: false });
        Some(state.appended)
    }

    /// Withdraws what was not sent of the large message with this id. Call
    /// [`wake_waiting`](Self::wake_waiting) after it, because it may make room.
    pub(super) fn withdraw(&self, id: u32) -> Withdrawal {
        self.state.lock().withdraw(|chunked| chunked.header.id == id)
    }

    /// Withdraws the large message with this id if nothing of it was sent. Returns whether it did.
    #[must_use]
    pub fn withdraw_unsent(&self, id: u32) -> bool {
        let is_unsent = |chunked: &ChunkedMessage| chunked.header.id == id && !chunked.is_begun;
        // Under one lock: a writer may begin the message at any time.
        let withdrawal = self.state.lock().withdraw(is_unsent);
        self.wake_waiting();
        withdrawal == Withdrawal::Whole
    }

    /// Wakes those that wait for room, if there is room.
    pub(super) fn wake_waiting(&self) {
        let waiting = self.state.lock().take_waiting();
        wake_all(waiting);
    }

    /// Whether a large message with this id is queued and nothing of it was sent.
    #[must_use]
    pub fn is_unsent(&self, id: u32) -> bool {
        let state = self.state.lock();
        state.chunked.iter().any(|chunked| chunked.header.id == id && !chunked.is_begun)
    }

    /// Asks the flusher to write, after the senders that are about to send.
    pub fn flush_soon(&self) {
        let waker = self.state.lock().want_flush();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Writes the queue as far as the stream accepts it, unless somebody else is writing. What others send
    /// meanwhile is left to the flusher, so that it gathers.
    pub fn flush(&self) {
        let job = self.state.lock().begin();
        if let Some(job) = job {
            self.write(job);
        }
    }

    fn write(&self, job: WriteJob) {
        let WriteJob { mut stream, buffer, mut written, waker } = job;
        let before = written;
        let outcome = write_all(&mut stream, &buffer, &mut written, &waker);
        let mut state = self.state.lock();
        state.accepted += (written - before) as u64;
        if state.is_closed {
            return;
        }
        let wake = match outcome {
            WriteOutcome::Done => {
                state.stream = Some(stream);
                state.reuse(buffer);
                let mut wake = state.take_waiting();
                if state.queued() > 0 {
                    wake.extend(state.want_flush());
                }
                wake
            }
            WriteOutcome::Blocked => {
                state.is_blocked = true;
                (state.writing, state.written) = (buffer, written);
                state.stream = Some(stream);
                // The stream does not know a flusher that was registered meanwhile, and may have woken one that
                // found the stream taken.
                let is_late = state.is_flusher_late;
                let is_asleep = |flusher: &&Waker| is_late || !flusher.will_wake(&waker);
                state.flusher.as_ref().filter(is_asleep).cloned().into_iter().collect()
            }
            WriteOutcome::Failed => state.close().1,
        };
        state.measure();
        drop(state);
        wake_all(wake);
    }

    /// Runs the flusher until the writer is closed. Exactly one task must run it.
    pub async fn run(&self) {
        while poll_fn(|context| self.poll_flush(context)).await {
            // Senders that are about to send run first.
            tokio::task::yield_now().await;
            self.flush();
        }
    }

    /// Ready with true when a flush is wanted, with false when the writer is closed: the flusher of
    /// [`run`](Self::run) for a task that does other things too.
    pub fn poll_flush(&self, context: &Context<'_>) -> Poll<bool> {
        let mut state = self.state.lock();
        remember(&mut state.flusher, context.waker());
        if state.is_blocked {
            drop(state);
            // Registers the waker with the stream if it still accepts nothing.
            self.flush();
            state = self.state.lock();
        }
        if state.is_closed {
            return Poll::Ready(false);
        }
        if std::mem::take(&mut state.flush_wanted) {
            return Poll::Ready(true);
        }
        state.is_flusher_late = state.stream.is_none();
        Poll::Pending
    }

    /// Whether so much is queued that a sender that can wait should wait.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.state.lock().is_full()
    }

    /// Ready when the writer is not full, or closed.
    pub fn poll_room(&self, context: &Context<'_>) -> Poll<()> {
        self.poll_room_within(context, usize::MAX)
    }

    /// Ready when the writer is not full and fewer than `bytes_max` are queued, or when it is closed.
    pub fn poll_room_within(&self, context: &Context<'_>, bytes_max: usize) -> Poll<()> {
        let mut state = self.state.lock();
        if state.is_closed || (!state.is_full() && state.queued() < bytes_max) {
            return Poll::Ready(());
        }
        let is_known = state.waiting_for_room.iter().any(|waker| waker.will_wake(context.waker()));
        if !is_known {
            state.waiting_for_room.push(context.waker().clone());
        }
        Poll::Pending
    }

    /// Releases the memory that a connection without traffic does not need.
    pub fn shrink(&self) {
        let mut state = self.state.lock();
        state.spare = BytesMut::new();
        if state.next.is_empty() {
            state.next = BytesMut::new();
        }
    }

    /// Wakes the flusher's task, to check something else.
    pub fn wake_flusher(&self) {
        let waker = self.state.lock().flusher.clone();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Drops the stream and the queue. Returns how many bytes the stream can have accepted.
    pub fn close(&self) -> u64 {
        self.take_stream().0
    }

    /// Drops the queue at once. The returned future ends the stream in order: an encrypted one says that it
    /// ends.
    pub fn shut_down(&self) -> impl Future<Output = ()> + Send + use<> {
        let (_, stream) = self.take_stream();
        async move {
            if let Some(mut stream) = stream {
                // The other side may be gone.
                let _ = stream.shutdown().await;
            }
        }
    }

    /// Closes the writer. Returns how many bytes the stream can have accepted, and the stream if nobody is
    /// writing.
    fn take_stream(&self) -> (u64, Option<BoxedWrite>) {
        let mut state = self.state.lock();
        // A writer that holds the stream may have written everything.
        let is_writing = state.stream.is_none() && !state.is_closed;
        let accepted = if is_writing { u64::MAX } else { state.accepted };
        let (stream, waiting) = state.close();
        drop(state);
        wake_all(waiting);
        (accepted, stream)
    }

    /// The number of small messages that wait for the next write.
    #[must_use]
    pub fn unsent(&self) -> usize {
        self.state.lock().unsent
    }

    /// Whether the writer is closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.state.lock().is_closed
    }

    /// How many bytes the stream has accepted, and how many are queued.
    #[must_use]
    pub fn accepted_and_queued(&self) -> (u64, usize) {
        let state = self.state.lock();
        (state.accepted, state.queued())
    }

    /// How many bytes are queued.
    #[cfg(test)]
    pub(super) fn queued(&self) -> usize {
        self.state.lock().queued()
    }

    /// Whether the stream has accepted everything that was sent.
    #[must_use]
    pub fn is_flushed(&self) -> bool {
        let state = self.state.lock();
        state.is_closed || (state.stream.is_some() && state.queued() == 0)
    }
}

fn remember(known: &mut Option<Waker>, waker: &Waker) {
    if !known.as_ref().is_some_and(|known| known.will_wake(waker)) {
        *known = Some(waker.clone());
    }
}

fn wake_all(wakers: Vec<Waker>) {
    for waker in wakers {
        waker.wake();
    }
}
