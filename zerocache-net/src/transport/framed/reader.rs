//! The receiving side of a framed connection: from bytes to whole messages.
//!
//! Invariants: at most one frame that is incomplete is buffered, beside the messages that come in
//! several frames; those are bounded in number and size, and what they hold is charged.

use std::{collections::BTreeMap, sync::Arc};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::AsyncRead;
use zerocache_core::{
    time::Instant,
    wire::{
        DelayEstimator, RefusalCode,
        frame::{Frame, FrameError, Header, Opcode},
    },
};

/// A stream to read from.
pub type BoxedRead = Box<dyn AsyncRead + Send + Unpin>;

/// The room for reading while little comes: what an idle connection costs.
const ROOM_BYTES_MIN: usize = 2 << 10;

/// The most room for one read.
const ROOM_BYTES_MAX: usize = 128 << 10;

/// Most messages that come in several frames at once; more are refused.
pub(super) const PARTIAL_MAX: usize = 64;

/// Most messages whose remaining frames are taken or skipped; more end the connection.
const UNENDED_MAX: usize = 1_024;

/// The first allocation for a message in several frames.
const PARTIAL_BYTES_FIRST: usize = 128 << 10;

/// Memory that is reserved; dropping it releases the memory.
pub type MemoryReservation = Box<dyn Send + Sync>;

/// The memory from which large messages are reserved.
pub trait MemoryBudget: Send + Sync {
    /// Reserves `bytes`, unless too little is left.
    fn try_reserve(&self, bytes: usize) -> Option<MemoryReservation>;
}

/// A budget without a common bound; each message still has one.
#[derive(Debug)]
pub struct UnlimitedMemory;

impl MemoryBudget for UnlimitedMemory {
    fn try_reserve(&self, _bytes: usize) -> Option<MemoryReservation> {
        Some(Box::new(()))
    }
}

/// One frame of input, made as whole as it can be.
#[derive(Debug)]
pub enum Incoming<'a> {
    /// A message in one frame, still in the read buffer; [`FrameReader::take`] takes it out.
    Small(&'a [u8]),
    /// The last frame of a message, with all of it.
    Large(Bytes),
    /// A message that is not taken; said once, at the first frame that shows it.
    Refused(RefusalCode),
    /// A part of a message, the last frame of one that was refused, or something of a later release.
    Nothing,
}

/// The bytes received on one connection, and the messages among them that are incomplete.
pub struct FrameReader {
    buffer: BytesMut,
    room: usize,
    current: Option<Frame>,
    partial: BTreeMap<(Opcode, u32), Partial>,
    delays: DelayEstimator,
    message_bytes_max: usize,
    memory: Arc<dyn MemoryBudget>,
}

/// A message of which not all frames are there.
enum Partial {
    Growing(Held),
    /// Too large, or no memory for it: its remaining frames are skipped.
    Skipped,
}

/// The bytes of a large message with what they are charged.
struct Held {
    /// When its first frame was read.
    begun: Instant,
    data: Vec<u8>,
    charges: Vec<MemoryReservation>,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

impl FrameReader {
    /// An inbox that takes messages of at most `message_bytes_max`; those in several frames are
    /// charged to `memory`.
    #[must_use]
    pub fn new(message_bytes_max: usize, memory: Arc<dyn MemoryBudget>) -> Self {
        Self {
            buffer: BytesMut::new(),
            room: ROOM_BYTES_MIN,
            current: None,
            partial: BTreeMap::new(),
            delays: DelayEstimator::default(),
            message_bytes_max,
            memory,
        }
    }

    /// Notes when the other side sent something that is no frame, such as its part of the upgrade.
    pub fn note_sent(&mut self, sent_ms: u32, now: Instant) {
        self.delays.record(sent_ms, now);
    }

    /// Adds bytes that were read elsewhere.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The buffer to read into, with room for as much as lately came at once.
    pub fn buffer(&mut self) -> &mut BytesMut {
        self.finish_frame();
        let free = self.buffer.capacity() - self.buffer.len();
        if free == 0 && !self.buffer.is_empty() {
            self.room = (self.room * 4).min(ROOM_BYTES_MAX);
        }
        if free < self.room / 4 {
            self.buffer.reserve(self.room);
        }
        &mut self.buffer
    }

    /// Gives back what a connection without traffic does not need.
    pub fn shrink(&mut self) {
        self.finish_frame();
        self.room = ROOM_BYTES_MIN;
        if self.buffer.is_empty() {
            self.buffer = BytesMut::new();
        }
    }

    /// Whether a message or a frame has begun and not ended.
    #[must_use]
    pub fn is_incomplete(&self) -> bool {
        !self.buffer.is_empty() || !self.partial.is_empty()
    }

    /// When the message began that has been incomplete for longest, of those in several frames that
    /// hold memory.
    #[must_use]
    pub fn oldest_partial(&self) -> Option<Instant> {
        let begun = self.partial.values().filter_map(|partial| match partial {
            Partial::Growing(held) => Some(held.begun),
            Partial::Skipped => None,
        });
        begun.min()
    }

    /// The next frame, read at `now`: its header, how late it is in milliseconds, and what came of it.
    /// None when the next one is not all there.
    ///
    /// # Errors
    /// [`FrameError`] when no frame can come of the bytes: the connection cannot go on.
    pub fn next(
        &mut self,
        now: Instant,
    ) -> Result<Option<(Header, u64, Incoming<'_>)>, FrameError> {
        self.finish_frame();
        let Some(frame) = Frame::parse(&self.buffer)? else { return Ok(None) };
        self.current = Some(frame);
        let header = frame.header;
        let delay_ms = self.delays.record(header.sent_ms, now);
        let whole = !header.more && self.partial.is_empty();
        let incoming = match header.opcode {
            Opcode::Request | Opcode::Response if whole => Incoming::Small(self.payload()),
            Opcode::Request | Opcode::Response => {
                let incoming = self.part(header, now)?;
                return Ok(Some((header, delay_ms, incoming)));
            }
            Opcode::Cancel => match self.partial.remove(&(Opcode::Request, header.id)) {
                // Every request of which a frame has come is answered once.
                Some(Partial::Growing(_)) => Incoming::Refused(RefusalCode::Expired),
                Some(Partial::Skipped) | None => Incoming::Nothing,
            },
            Opcode::Other(_) => Incoming::Nothing,
        };
        Ok(Some((header, delay_ms, incoming)))
    }

    /// Takes the message out that [`next`](Self::next) has just shown in the buffer, without a copy.
    pub fn take(&mut self) -> Bytes {
        let Some(frame) = self.current.take() else { return Bytes::new() };
        let mut message = self.buffer.split_to(frame.end);
        message.advance(frame.payload_from);
        message.freeze()
    }

    fn payload(&self) -> &[u8] {
        self.current.map_or(&[], |frame| &self.buffer[frame.payload_from..frame.end])
    }

    fn finish_frame(&mut self) {
        if let Some(frame) = self.current.take() {
            self.buffer.advance(frame.end);
        }
    }

    fn part(&mut self, header: Header, now: Instant) -> Result<Incoming<'_>, FrameError> {
        let key = (header.opcode, header.id);
        let partial = match self.partial.remove(&key) {
            None if !header.more => return Ok(Incoming::Small(self.payload())),
            None if self.partial.len() >= UNENDED_MAX => {
                return Err(FrameError::Unended { messages: UNENDED_MAX });
            }
            None if self.partial.len() >= PARTIAL_MAX => Err(RefusalCode::Overloaded),
            None => Ok(Held { begun: now, data: Vec::new(), charges: Vec::new() }),
            Some(Partial::Growing(held)) => Ok(held),
            Some(Partial::Skipped) => {
                if header.more {
                    self.partial.insert(key, Partial::Skipped);
                }
                return Ok(Incoming::Nothing);
            }
        };
        let grown = partial.and_then(|held| self.grow(held));
        let incoming = match grown {
            Ok(held) if header.more => {
                self.partial.insert(key, Partial::Growing(held));
                Incoming::Nothing
            }
            Ok(held) => Incoming::Large(Bytes::from_owner(held)),
            Err(code) => {
                if header.more {
                    self.partial.insert(key, Partial::Skipped);
                }
                Incoming::Refused(code)
            }
        };
        Ok(incoming)
    }

    fn grow(&self, mut held: Held) -> Result<Held, RefusalCode> {
        let payload = self.payload();
        let needed = held.data.len() + payload.len();
        if needed > self.message_bytes_max {
            return Err(RefusalCode::TooLarge);
        }
        if needed > held.data.capacity() {
            let wanted = (2 * held.data.capacity()).max(PARTIAL_BYTES_FIRST);
            let wanted = needed.max(wanted.min(self.message_bytes_max));
            let more = wanted - held.data.capacity();
            held.charges.push(self.memory.try_reserve(more).ok_or(RefusalCode::Overloaded)?);
            held.data.reserve_exact(wanted - held.data.len());
        }
        held.data.extend_from_slice(payload);
        Ok(held)
    }
}
