//! Frames of a framed connection. `docs/protocol.md` has the layout.
//!
//! A frame is a header of 20 bytes, an extension that this release does not use, and a payload. A message is
//! the payloads of one or more frames with the same opcode and id; all but the last have the flag `MORE`.
//! Frames of different messages may interleave, so that a large message does not delay small ones.

use bytes::BufMut;

/// The length of a frame header in bytes.
pub const HEADER_BYTES: usize = 20;

/// The bytes of the header that the length field counts: all but the field itself.
const COUNTED_BYTES: usize = HEADER_BYTES - 4;

/// The largest payload of one frame, in bytes. A small message waits for at most one such payload of each
/// large message in flight.
pub const CHUNK_BYTES_MAX: usize = 64 << 10;

/// The longest header extension that is skipped, in bytes.
pub const EXTENSION_BYTES_MAX: usize = 1 << 10;

/// The largest frame in bytes.
pub const FRAME_BYTES_MAX: usize = HEADER_BYTES + EXTENSION_BYTES_MAX + CHUNK_BYTES_MAX;

/// The flag of a frame whose message continues in a later frame.
const MORE: u8 = 1;

/// The kind of the message that a frame belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Opcode {
    /// A request. Its id identifies it until its response.
    Request,
    /// The response to the request of the same id.
    Response,
    /// The caller no longer needs the response, which may arrive nevertheless. Has no payload.
    Cancel,
    /// An opcode of a later release. The frame is skipped.
    Other(u8),
}

impl Opcode {
    const fn to_byte(self) -> u8 {
        match self {
            Self::Request => 1,
            Self::Response => 2,
            Self::Cancel => 3,
            Self::Other(byte) => byte,
        }
    }

    const fn from_byte(byte: u8) -> Self {
        match byte {
            1 => Self::Request,
            2 => Self::Response,
            3 => Self::Cancel,
            other => Self::Other(other),
        }
    }
}

/// The header of a frame, without lengths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The kind of the message.
    pub opcode: Opcode,
    /// The message continues in a later frame.
    pub more: bool,
    /// The id of the request. The caller chooses it, and does not reuse it before the response.
    pub id: u32,
    /// The time of encoding on the sender's monotonic clock, in milliseconds modulo 2³².
    pub sent_ms: u32,
    /// How long the caller waits, in milliseconds; 0 if not stated, and in responses.
    pub timeout_ms: u32,
}

/// A parsed frame: its header, and the range of its payload in the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The header.
    pub header: Header,
    /// The offset of the payload.
    pub payload_from: usize,
    /// The offset of the end of the frame.
    pub end: usize,
}

/// Bytes that are not a frame. The connection must be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The length is shorter than a header or longer than a frame may be.
    #[error("a frame of {bytes} bytes; {HEADER_BYTES} to {FRAME_BYTES_MAX} are allowed")]
    Length {
        /// The length that the frame claims.
        bytes: u64,
    },
    /// The header extension is longer than the frame, or longer than [`EXTENSION_BYTES_MAX`].
    #[error("a header extension of {bytes} bytes in a frame")]
    Extension {
        /// The length that the extension claims.
        bytes: usize,
    },
    /// Too many messages are incomplete.
    #[error("more than {messages} incomplete messages")]
    Unended {
        /// The allowed number.
        messages: usize,
    },
}

impl Header {
    /// Appends the header of a frame with a payload of `payload_bytes`, at most [`CHUNK_BYTES_MAX`].
    pub fn write(&self, out: &mut impl BufMut, payload_bytes: usize) {
        debug_assert!(payload_bytes <= CHUNK_BYTES_MAX, "{payload_bytes}");
        out.put_u32_le(length_of(payload_bytes));
        out.put_u8(self.opcode.to_byte());
        out.put_u8(if self.more { MORE } else { 0 });
        out.put_u16_le(0);
        out.put_u32_le(self.id);
        out.put_u32_le(self.sent_ms);
        out.put_u32_le(self.timeout_ms);
    }

    /// Sets the length of the frame that begins at `from` and ends with `out`.
    pub fn set_length(out: &mut [u8], from: usize) {
        let payload_bytes = out.len() - from - HEADER_BYTES;
        out[from..from + 4].copy_from_slice(&length_of(payload_bytes).to_le_bytes());
    }
}

const fn length_of(payload_bytes: usize) -> u32 {
    (COUNTED_BYTES + payload_bytes) as u32
}

impl Frame {
    /// Parses the frame at the start of `bytes`. Returns `None` if the frame is incomplete.
    ///
    /// # Errors
    /// [`FrameError`] as soon as the bytes cannot become a frame.
    pub fn parse(bytes: &[u8]) -> Result<Option<Self>, FrameError> {
        let Some((length, rest)) = bytes.split_first_chunk() else { return Ok(None) };
        let length = u32::from_le_bytes(*length) as usize;
        if !(COUNTED_BYTES..=FRAME_BYTES_MAX - 4).contains(&length) {
            return Err(FrameError::Length { bytes: length as u64 + 4 });
        }
        let Some(fixed) = rest.first_chunk::<COUNTED_BYTES>() else { return Ok(None) };
        let number = |at: usize| {
            u32::from_le_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]])
        };
        let extension = usize::from(u16::from_le_bytes([fixed[2], fixed[3]]));
        let payload_bytes = (length - COUNTED_BYTES).checked_sub(extension);
        let fits = payload_bytes.is_some_and(|bytes| bytes <= CHUNK_BYTES_MAX);
        if extension > EXTENSION_BYTES_MAX || !fits {
            return Err(FrameError::Extension { bytes: extension });
        }
        if bytes.len() < length + 4 {
            return Ok(None);
        }
        let header = Header {
            opcode: Opcode::from_byte(fixed[0]),
            more: fixed[1] & MORE != 0,
            id: number(4),
            sent_ms: number(8),
            timeout_ms: number(12),
        };
        Ok(Some(Self { header, payload_from: HEADER_BYTES + extension, end: length + 4 }))
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    fn header() -> Header {
        Header { opcode: Opcode::Request, more: true, id: 7, sent_ms: 9, timeout_ms: 500 }
    }

    #[test]
    fn frame_bytes_are_pinned() {
        let mut out = Vec::new();
        header().write(&mut out, 2);
        out.extend_from_slice(b"hi");
        let bytes = [18, 0, 0, 0, 1, 1, 0, 0, 7, 0, 0, 0, 9, 0, 0, 0, 0xf4, 1, 0, 0, b'h', b'i'];
        assert_eq!(out, bytes);
        let frame = Frame { header: header(), payload_from: 20, end: 22 };
        assert_eq!(Frame::parse(&out), Ok(Some(frame)));
        for end in 0..out.len() {
            assert_eq!(Frame::parse(&out[..end]), Ok(None), "{end}");
        }
    }

    #[test]
    fn extensions_and_unknown_flags_and_opcodes_are_tolerated() {
        let bytes = [19, 0, 0, 0, 99, 0xfe, 2, 0, 7, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 1, 2, b'x'];
        let frame = Frame::parse(&bytes).unwrap().unwrap();
        assert_eq!((frame.header.opcode, frame.header.more), (Opcode::Other(99), false));
        assert_eq!(&bytes[frame.payload_from..frame.end], b"x");
    }

    #[test]
    fn impossible_lengths_are_rejected_early() {
        assert_eq!(Frame::parse(&15u32.to_le_bytes()), Err(FrameError::Length { bytes: 19 }));
        let long = (FRAME_BYTES_MAX as u32 - 3).to_le_bytes();
        assert!(matches!(Frame::parse(&long), Err(FrameError::Length { .. })));
        let mut bytes = [0; 20];
        bytes[0] = 16;
        bytes[6] = 1;
        assert_eq!(Frame::parse(&bytes), Err(FrameError::Extension { bytes: 1 }));
        let mut out = Vec::new();
        header().write(&mut out, CHUNK_BYTES_MAX);
        out[0..4]
            .copy_from_slice(&(COUNTED_BYTES as u32 + CHUNK_BYTES_MAX as u32 + 1).to_le_bytes());
        assert_eq!(Frame::parse(&out), Err(FrameError::Extension { bytes: 0 }));
    }

    #[test]
    fn length_is_set_in_place() {
        let mut out = alloc::vec![1, 2, 3];
        header().write(&mut out, 0);
        out.extend_from_slice(&[5; 300]);
        Header::set_length(&mut out, 3);
        let frame = Frame::parse(&out[3..]).unwrap().unwrap();
        assert_eq!((frame.payload_from, frame.end), (20, 320));
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(Some(frame)) = Frame::parse(&bytes) {
                prop_assert!(frame.payload_from <= frame.end && frame.end <= bytes.len());
            }
        }
    }
}
