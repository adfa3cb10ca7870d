//! The receiving side of a framed connection: from bytes to complete messages.
//!
//! Invariants: at most one incomplete frame is buffered, beside the messages that arrive in several frames.
//! Those are bounded in number and size, and their memory is reserved from a budget.

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

/// The free space for a read while little arrives: the memory of an idle connection.
const SPACE_BYTES_MIN: usize = 2 << 10;

/// The most free space for a read.
const SPACE_BYTES_MAX: usize = 128 << 10;

/// The most messages that arrive in several frames at once; more are refused.
pub(super) const PARTIAL_MAX: usize = 64;

/// The most messages whose remaining frames are collected or skipped; more end the connection.
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

/// The content of one frame, joined with earlier frames of its message.
#[derive(Debug)]
pub enum Incoming<'a> {
    /// A message in one frame, still in the read buffer; [`FrameReader::take`] takes it out.
    Small(&'a [u8]),
    /// A message in several frames, with its last frame.
    Large(Bytes),
    /// A message that is refused; reported once, at the first frame that shows it.
    Refused(RefusalCode),
    /// No message: a frame of an incomplete or refused message, or an opcode of a later release.
    Nothing,
}

/// The bytes received on one connection, and the incomplete messages among them.
pub struct FrameReader {
    buffer: BytesMut,
    /// The free space for the next read.
    space: usize,
    /// The frame that [`next`](Self::next) returned last, still in the buffer.
    current: Option<Frame>,
    /// The bytes of frames in the buffer, the current one included, that [`peek`](Self::peek) has returned.
    peeked: usize,
    partial: BTreeMap<(Opcode, u32), PartialMessage>,
    delays: DelayEstimator,
    message_bytes_max: usize,
    memory: Arc<dyn MemoryBudget>,
}

/// A message whose last frame has not arrived.
enum PartialMessage {
    Growing(MessageBuffer),
    /// Too large, or without memory: its remaining frames are skipped.
    Skipped,
}

/// The bytes of a large message, with the memory reserved for them.
struct MessageBuffer {
    /// When the first frame was read.
    begun: Instant,
    data: Vec<u8>,
    reservations: Vec<MemoryReservation>,
}

impl AsRef<[u8]> for MessageBuffer {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

impl FrameReader {
    /// Creates a reader for messages of at most `message_bytes_max`. Messages in several frames are reserved
    /// from `memory`.
    #[must_use]
    pub fn new(message_bytes_max: usize, memory: Arc<dyn MemoryBudget>) -> Self {
        Self {
            buffer: BytesMut::new(),
            space: SPACE_BYTES_MIN,
            current: None,
            peeked: 0,
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

    /// Appends bytes that were read elsewhere.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Returns the buffer to read into, with free space for as much as recent reads brought.
    pub fn buffer(&mut self) -> &mut BytesMut {
        self.finish_frame();
        let free = self.buffer.capacity() - self.buffer.len();
        if free == 0 && !self.buffer.is_empty() {
            self.space = (self.space * 4).min(SPACE_BYTES_MAX);
        }
        if free < self.space / 4 {
            self.buffer.reserve(self.space);
        }
        &mut self.buffer
    }

    /// Releases the memory that a connection without traffic does not need.
    pub fn shrink(&mut self) {
        self.finish_frame();
        self.space = SPACE_BYTES_MIN;
        if self.buffer.is_empty() {
            self.buffer = BytesMut::new();
        }
    }

    /// Whether a message or a frame has begun and not ended.
    #[must_use]
    pub fn is_incomplete(&self) -> bool {
        !self.buffer.is_empty() || !self.partial.is_empty()
    }

    /// When the oldest incomplete message began, of those in several frames that hold memory.
    #[must_use]
    pub fn oldest_partial(&self) -> Option<Instant> {
        let begun = self.partial.values().filter_map(|partial| match partial {
            PartialMessage::Growing(message) => Some(message.begun),
            PartialMessage::Skipped => None,
        });
        begun.min()
    }

    /// Returns the next frame, read at `now`: its header, how late it is in milliseconds, and its content.
    /// None when the next frame is incomplete.
    ///
    /// # Errors
    /// [`FrameError`] when the bytes are no frame: the connection cannot continue.
    pub fn next(
        &mut self,
        now: Instant,
    ) -> Result<Option<(Header, u64, Incoming<'_>)>, FrameError> {
        self.finish_frame();
        let Some(frame) = Frame::parse(&self.buffer)? else { return Ok(None) };
        self.current = Some(frame);
        let header = frame.header;
        let delay_ms = self.delays.record(header.sent_ms, now);
        let is_whole = !header.more && self.partial.is_empty();
        let incoming = match header.opcode {
            Opcode::Request | Opcode::Response if is_whole => Incoming::Small(self.payload()),
            Opcode::Request | Opcode::Response => {
                let incoming = self.join(header, now)?;
                return Ok(Some((header, delay_ms, incoming)));
            }
            Opcode::Cancel => match self.partial.remove(&(Opcode::Request, header.id)) {
                // Every request of which a frame arrived is answered once.
                Some(PartialMessage::Growing(_)) => Incoming::Refused(RefusalCode::Expired),
                Some(PartialMessage::Skipped) | None => Incoming::Nothing,
            },
            Opcode::Other(_) => Incoming::Nothing,
        };
        Ok(Some((header, delay_ms, incoming)))
    }

    /// Takes the message out of the buffer that [`next`](Self::next) has just returned, without a copy.
    pub fn take(&mut self) -> Bytes {
        let Some(frame) = self.current.take() else { return Bytes::new() };
        self.peeked = self.peeked.saturating_sub(frame.end);
        let mut message = self.buffer.split_to(frame.end);
        message.advance(frame.payload_from);
        message.freeze()
    }

    /// Returns the payload of the first frame behind the current one that this has not returned yet. None when it is
    /// incomplete. Changes nothing about what [`next`](Self::next) returns.
    pub fn peek(&mut self) -> Option<&[u8]> {
        let from = self.peeked.max(self.current.map_or(0, |frame| frame.end));
        let frame = Frame::parse(self.buffer.get(from..)?).ok()??;
        self.peeked = from + frame.end;
        Some(&self.buffer[from + frame.payload_from..self.peeked])
    }

    /// Lets [`peek`](Self::peek) begin again behind the current frame.
    pub fn peek_again(&mut self) {
        self.peeked = 0;
    }

    fn payload(&self) -> &[u8] {
        self.current.map_or(&[], |frame| &self.buffer[frame.payload_from..frame.end])
    }

    fn finish_frame(&mut self) {
        if let Some(frame) = self.current.take() {
            self.buffer.advance(frame.end);
            self.peeked = self.peeked.saturating_sub(frame.end);
        }
    }

    /// Joins the current frame with the earlier frames of its message.
    fn join(&mut self, header: Header, now: Instant) -> Result<Incoming<'_>, FrameError> {
        let key = (header.opcode, header.id);
        let partial = match self.partial.remove(&key) {
            None if !header.more => return Ok(Incoming::Small(self.payload())),
            None if self.partial.len() >= UNENDED_MAX => {
                return Err(FrameError::Unended { messages: UNENDED_MAX });
            }
            None if self.partial.len() >= PARTIAL_MAX => Err(RefusalCode::Overloaded),
            None => Ok(MessageBuffer { begun: now, data: Vec::new(), reservations: Vec::new() }),
            Some(PartialMessage::Growing(message)) => Ok(message),
            Some(PartialMessage::Skipped) => {
                if header.more {
                    self.partial.insert(key, PartialMessage::Skipped);
                }
                return Ok(Incoming::Nothing);
            }
        };
        let grown = partial.and_then(|message| self.grow(message));
        let incoming = match grown {
            Ok(message) if header.more => {
                self.partial.insert(key, PartialMessage::Growing(message));
                Incoming::Nothing
            }
            Ok(message) => Incoming::Large(Bytes::from_owner(message)),
            Err(code) => {
                if header.more {
                    self.partial.insert(key, PartialMessage::Skipped);
                }
                Incoming::Refused(code)
            }
        };
        Ok(incoming)
    }

    /// Appends the current frame to a message.
    fn grow(&self, mut message: MessageBuffer) -> Result<MessageBuffer, RefusalCode> {
        let payload = self.payload();
        let needed = message.data.len() + payload.len();
        if needed > self.message_bytes_max {
            return Err(RefusalCode::TooLarge);
        }
        if needed > message.data.capacity() {
            let wanted = (2 * message.data.capacity()).max(PARTIAL_BYTES_FIRST);
            let wanted = needed.max(wanted.min(self.message_bytes_max));
            let more = wanted - message.data.capacity();
            let reservation = self.memory.try_reserve(more).ok_or(RefusalCode::Overloaded)?;
            message.reservations.push(reservation);
            message.data.reserve_exact(wanted - message.data.len());
        }
        message.data.extend_from_slice(payload);
        Ok(message)
    }
}
