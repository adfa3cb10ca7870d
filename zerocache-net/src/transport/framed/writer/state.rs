//! What waits to be sent on a line, and the writing of it.

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

use super::{BoxedWrite, Chunked, Out, QUEUED_BYTES_MAX, Withdrawal};
use crate::transport::framed::reader::PARTIAL_MAX;

/// Most large messages that take turns; the others wait until one of them is sent. Fewer than the
/// other side takes at once.
const TURNS_MAX: usize = PARTIAL_MAX / 2;

/// Buffers larger than this are given back when they are empty.
const BUFFER_BYTES_KEPT: usize = 256 << 10;

impl Out {
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
        // Larger than was said.
        let message = self.next.split_off(from).freeze().slice(HEADER_BYTES..);
        self.chunked_bytes += bytes;
        self.chunked.push_back(Chunked { header, parts: [message].into(), bytes, begun: false });
    }

    pub(super) fn queued(&self) -> usize {
        self.writing.len() - self.written + self.next.len() + self.chunked_bytes
    }

    /// Tells the meter what waits now. Nearly always that is nothing, and the shared number is left alone.
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

    /// Takes the stream and what to write, if both are there.
    pub(super) fn begin(&mut self) -> Option<Work> {
        self.flush_wanted = false;
        let idle = self.queued() == 0 && !self.blocked;
        if self.stream.is_none() || idle {
            return None;
        }
        let (buffer, written) = if self.blocked {
            (std::mem::take(&mut self.writing), std::mem::take(&mut self.written))
        } else {
            self.add_chunk();
            self.unsent = 0;
            let empty = std::mem::take(&mut self.spare);
            (std::mem::replace(&mut self.next, empty), 0)
        };
        self.blocked = false;
        let waker = self.flusher.clone().unwrap_or_else(|| Waker::noop().clone());
        Some(Work { stream: self.stream.take()?, buffer, written, waker })
    }

    /// Keeps a buffer that was written for the next time.
    pub(super) fn reuse(&mut self, mut buffer: BytesMut) {
        if buffer.capacity() <= BUFFER_BYTES_KEPT {
            buffer.clear();
            self.spare = buffer;
        }
    }

    /// Moves one chunk of the message whose turn it is to what goes next.
    pub(super) fn add_chunk(&mut self) {
        let Some(mut chunked) = self.chunked.pop_front() else { return };
        let bytes = chunked.bytes.min(CHUNK_BYTES_MAX);
        chunked.bytes -= bytes;
        chunked.begun = true;
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
            let last_turn = self.chunked.len().min(TURNS_MAX - 1);
            self.chunked.insert(last_turn, chunked);
        }
    }

    /// Removes the first message for which `wanted` holds.
    pub(super) fn withdraw(&mut self, wanted: impl Fn(&Chunked) -> bool) -> Withdrawal {
        let at = self.chunked.iter().position(wanted);
        let Some(chunked) = at.and_then(|at| self.chunked.remove(at)) else {
            return Withdrawal::Nothing;
        };
        self.chunked_bytes -= chunked.bytes;
        if chunked.begun { Withdrawal::Rest } else { Withdrawal::Whole }
    }

    pub(super) fn take_waiting(&mut self) -> Vec<Waker> {
        if self.is_full() { Vec::new() } else { std::mem::take(&mut self.waiting_for_room) }
    }

    /// Returns the stream, if nobody is writing, and those who are to be woken.
    pub(super) fn close(&mut self) -> (Option<BoxedWrite>, Vec<Waker>) {
        self.closed = true;
        self.blocked = false;
        (self.writing, self.written) = (BytesMut::new(), 0);
        (self.next, self.spare) = (BytesMut::new(), BytesMut::new());
        for chunked in &mut self.chunked {
            // Which ones had begun is still asked.
            (chunked.parts, chunked.bytes) = (VecDeque::new(), 0);
        }
        self.chunked_bytes = 0;
        self.measure();
        let mut waiting = std::mem::take(&mut self.waiting_for_room);
        waiting.extend(self.flusher.take());
        (self.stream.take(), waiting)
    }
}

impl Drop for Out {
    fn drop(&mut self) {
        self.meter.fetch_sub(self.metered, Ordering::Relaxed);
    }
}

/// What a writer holds while it writes.
pub(super) struct Work {
    pub(super) stream: BoxedWrite,
    pub(super) buffer: BytesMut,
    pub(super) written: usize,
    pub(super) waker: Waker,
}

/// How far a write came.
pub(super) enum End {
    Done,
    Blocked,
    Failed,
}

/// Writes the rest of `buffer`, and then what the stream itself may hold back.
pub(super) fn write_all(
    stream: &mut BoxedWrite,
    buffer: &[u8],
    written: &mut usize,
    waker: &Waker,
) -> End {
    let mut context = Context::from_waker(waker);
    loop {
        let rest = &buffer[*written..];
        let step = if rest.is_empty() {
            Pin::new(&mut *stream).poll_flush(&mut context).map_ok(|()| 0)
        } else {
            Pin::new(&mut *stream).poll_write(&mut context, rest)
        };
        match step {
            Poll::Ready(Ok(0)) if rest.is_empty() => return End::Done,
            Poll::Ready(Ok(0)) => return End::Failed,
            Poll::Ready(Ok(count)) => *written += count,
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
            Poll::Ready(Err(_)) => return End::Failed,
            Poll::Pending => return End::Blocked,
        }
    }
}
