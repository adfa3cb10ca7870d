//! The buffers of a frame writer, and the write itself.

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    sync::atomic::Ordering,
    task::{Context, Poll, Waker},
};

use bytes::BytesMut;
use tokio::io::AsyncWrite;
use zerocache_core::wire::{
    Writer,
    frame::{CHUNK_BYTES_MAX, HEADER_BYTES, Header},
};

use super::{BoxedWrite, ChunkedMessage, QUEUED_BYTES_MAX, Withdrawal, WriteState};
use crate::transport::framed::reader::PARTIAL_MAX;

/// The most large messages that are interleaved; the others wait until one of them is sent. Fewer than the
/// other side takes at once.
const INTERLEAVED_MAX: usize = PARTIAL_MAX / 2;

/// Empty buffers larger than this are released.
const BUFFER_BYTES_KEPT: usize = 256 << 10;

impl WriteState {
    /// Appends a small message, unless the writer is closed. Returns how many bytes were appended before it.
    pub(super) fn append_open(
        &mut self,
        header: Header,
        hint: usize,
        encode: impl FnOnce(&mut Writer<'_>),
    ) -> Option<u64> {
        if self.is_closed {
            return None;
        }
        let position = self.appended;
        self.append(header, hint, encode);
        Some(position)
    }

    /// Appends a message in one frame. A message that is larger than a frame is sent in chunks.
    pub(super) fn append(
        &mut self,
        header: Header,
        hint: usize,
        encode: impl FnOnce(&mut Writer<'_>),
    ) {
        self.unsent += 1;
        let from = self.next.len();
        self.next.reserve(HEADER_BYTES + hint);
        header.write(&mut self.next, 0);
        encode(&mut Writer::new(&mut self.next));
        let bytes = self.next.len() - from - HEADER_BYTES;
        if bytes <= CHUNK_BYTES_MAX {
            Header::set_length(&mut self.next, from);
            self.appended += (self.next.len() - from) as u64;
            return;
        }
        // The hint was too small.
        let message = self.next.split_off(from).freeze().slice(HEADER_BYTES..);
        self.chunked_bytes += bytes;
        let parts = [message].into();
        self.chunked.push_back(ChunkedMessage { header, parts, bytes, is_begun: false });
    }

    pub(super) fn queued(&self) -> usize {
        self.writing.len() - self.written + self.next.len() + self.chunked_bytes
    }

    /// Updates the meter with the queued bytes. Nearly always there are none, and the shared number stays
    /// untouched.
    pub(super) fn measure(&mut self) {
        let queued = self.queued();
        let before = std::mem::replace(&mut self.metered, queued);
        if queued > before {
            self.meter.fetch_add(queued - before, Ordering::Relaxed);
        } else if queued < before {
            self.meter.fetch_sub(before - queued, Ordering::Relaxed);
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.queued() >= QUEUED_BYTES_MAX
    }

    /// Makes the flusher write. Returns its waker if it must be woken for that.
    pub(super) fn want_flush(&mut self) -> Option<Waker> {
        // A writer that holds the stream finds what was appended, and the flusher that ends a gathering.
        let is_noticed = self.flush_wanted
            || self.gathering.is_some()
            || self.is_blocked
            || self.stream.is_none();
        if is_noticed {
            return None;
        }
        self.flush_wanted = true;
        self.flusher.clone()
    }

    /// Takes the stream and what to write, if neither is missing.
    pub(super) fn begin(&mut self) -> Option<WriteJob> {
        self.flush_wanted = false;
        let is_idle = self.queued() == 0 && !self.is_blocked;
        if self.stream.is_none() || is_idle {
            return None;
        }
        let (buffer, written) = if self.is_blocked {
            (std::mem::take(&mut self.writing), std::mem::take(&mut self.written))
        } else {
            self.add_chunk();
            self.unsent = 0;
            let empty = std::mem::take(&mut self.spare);
            (std::mem::replace(&mut self.next, empty), 0)
        };
        (self.is_blocked, self.is_flusher_late) = (false, false);
        let waker = self.flusher.clone().unwrap_or_else(|| Waker::noop().clone());
        Some(WriteJob { stream: self.stream.take()?, buffer, written, waker })
    }

    /// Keeps a written buffer for reuse.
    pub(super) fn reuse(&mut self, mut buffer: BytesMut) {
        if buffer.capacity() <= BUFFER_BYTES_KEPT {
            buffer.clear();
            self.spare = buffer;
        }
    }

    /// Moves one chunk of the first large message to the next write, and the message behind the others that
    /// are interleaved with it.
    pub(super) fn add_chunk(&mut self) {
        let Some(mut chunked) = self.chunked.pop_front() else { return };
        let bytes = chunked.bytes.min(CHUNK_BYTES_MAX);
        chunked.bytes -= bytes;
        chunked.is_begun = true;
        self.chunked_bytes -= bytes;
        self.next.reserve(HEADER_BYTES + bytes);
        let header = Header { more: chunked.bytes > 0, ..chunked.header };
        header.write(&mut self.next, bytes);
        let mut left = bytes;
        while left > 0 {
            let Some(part) = chunked.parts.front_mut() else { break };
            let piece = part.split_to(left.min(part.len()));
            left -= piece.len();
            self.next.extend_from_slice(&piece);
            if part.is_empty() {
                chunked.parts.pop_front();
            }
        }
        self.appended += (HEADER_BYTES + bytes) as u64;
        if chunked.bytes > 0 {
            let last = self.chunked.len().min(INTERLEAVED_MAX - 1);
            self.chunked.insert(last, chunked);
        }
    }

    /// Removes the first large message for which `is_wanted` holds.
    pub(super) fn withdraw(&mut self, is_wanted: impl Fn(&ChunkedMessage) -> bool) -> Withdrawal {
        let at = self.chunked.iter().position(is_wanted);
        let Some(chunked) = at.and_then(|at| self.chunked.remove(at)) else {
            return Withdrawal::Nothing;
        };
        self.chunked_bytes -= chunked.bytes;
        if chunked.is_begun { Withdrawal::Rest } else { Withdrawal::Whole }
    }

    /// Takes the wakers of those that wait for room, if there is room.
    pub(super) fn take_waiting(&mut self) -> Vec<Waker> {
        if self.is_full() { Vec::new() } else { std::mem::take(&mut self.waiting_for_room) }
    }

    /// Drops the queue. Returns the stream, if nobody is writing, and the wakers of all that wait.
    pub(super) fn close(&mut self) -> (Option<BoxedWrite>, Vec<Waker>) {
        self.is_closed = true;
        self.is_blocked = false;
        (self.writing, self.written) = (BytesMut::new(), 0);
        (self.next, self.spare) = (BytesMut::new(), BytesMut::new());
        for chunked in &mut self.chunked {
            // The entry stays, because it still tells whether the message was begun.
            (chunked.parts, chunked.bytes) = (VecDeque::new(), 0);
        }
        self.chunked_bytes = 0;
        self.measure();
        let mut waiting = std::mem::take(&mut self.waiting_for_room);
        waiting.extend(self.flusher.take());
        (self.stream.take(), waiting)
    }
}

impl Drop for WriteState {
    fn drop(&mut self) {
        self.meter.fetch_sub(self.metered, Ordering::Relaxed);
    }
}

/// The stream and the buffer of one write, taken out of the lock.
pub(super) struct WriteJob {
    pub(super) stream: BoxedWrite,
    pub(super) buffer: BytesMut,
    pub(super) written: usize,
    pub(super) waker: Waker,
}

/// The outcome of a write.
pub(super) enum WriteOutcome {
    Done,
    Blocked,
    Failed,
}

/// Writes the rest of `buffer`, then flushes the stream.
pub(super) fn write_all(
    stream: &mut BoxedWrite,
    buffer: &[u8],
    written: &mut usize,
    waker: &Waker,
) -> WriteOutcome {
    let mut context = Context::from_waker(waker);
    loop {
        let rest = &buffer[*written..];
        let step = if rest.is_empty() {
            Pin::new(&mut *stream).poll_flush(&mut context).map_ok(|()| 0)
        } else {
            Pin::new(&mut *stream).poll_write(&mut context, rest)
        };
        match step {
            Poll::Ready(Ok(0)) if rest.is_empty() => return WriteOutcome::Done,
            Poll::Ready(Ok(0)) => return WriteOutcome::Failed,
            Poll::Ready(Ok(count)) => *written += count,
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
            Poll::Ready(Err(_)) => return WriteOutcome::Failed,
            Poll::Pending => return WriteOutcome::Blocked,
        }
    }
}
