//! Datagrams between nodes: small, authenticated, unordered and unreliable.
//!
//! Version 1: `version ‖ from ‖ to ‖ kind ‖ sequence ‖ time ‖ content ‖ MAC`, numbers big-endian.
//! Version 2: `version ‖ from ‖ to ‖ kind ‖ generation ‖ sequence ‖ time ‖ encrypted content ‖ tag`.
//! The receiver of a heartbeat gave the sender the key in a handshake. The echo is sealed with the same key;
//! everything before the content is authenticated too. The nonce of version 2 is `kind ‖ 0 0 0 ‖ sequence`:
//! a sender uses each number once, and a receiver echoes each number of a generation once.

use bytes::{BufMut, Bytes, BytesMut};

use super::session::{SessionKey, TAG_BYTES};
use crate::version::Incarnation;

/// The largest datagram in bytes: with its headers it fits every path that carries IPv6.
pub const DATAGRAM_BYTES_MAX: usize = 1_200;

/// The largest content of a datagram in bytes, in either version of the format.
pub const CONTENT_BYTES_MAX: usize = DATAGRAM_BYTES_MAX - SEALED_HEAD_BYTES - TAG_BYTES;

/// The versions of the datagram format: authenticated, and encrypted as well.
const VERSION: u8 = 1;
const SEALED_VERSION: u8 = 2;

const HEAD_BYTES: usize = 1 + 8 + 8 + 1 + 8 + 8;
const SEALED_HEAD_BYTES: usize = HEAD_BYTES + 4;

/// The kind of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DatagramKind {
    /// Checks that the receiver is alive.
    Heartbeat,
    /// Answers a heartbeat, with its sequence number and time.
    Echo,
}

impl DatagramKind {
    const fn to_byte(self) -> u8 {
        match self {
            Self::Heartbeat => 1,
            Self::Echo => 2,
        }
    }

    const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Heartbeat),
            2 => Some(Self::Echo),
            _ => None,
        }
    }
}

/// A datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// The sender.
    pub from: Incarnation,
    /// The receiver.
    pub to: Incarnation,
    /// The kind.
    pub kind: DatagramKind,
    /// The generation of the key, in version 2; `None` in version 1.
    pub generation: Option<u32>,
    /// The number of the heartbeat from this sender to this receiver; an echo repeats it.
    pub sequence: u64,
    /// The time of sending of the heartbeat, on its sender's monotonic clock in milliseconds.
    pub time_ms: u64,
    /// Gossip; may be empty.
    pub content: Bytes,
}

impl Datagram {
    /// Encodes the datagram and seals it. Content above [`CONTENT_BYTES_MAX`] is left out.
    #[must_use]
    pub fn seal(&self, key: &SessionKey) -> Bytes {
        let fits = self.content.len() <= CONTENT_BYTES_MAX;
        let content = if fits { &self.content[..] } else { &[] };
        let mut out = BytesMut::with_capacity(SEALED_HEAD_BYTES + content.len() + TAG_BYTES);
        out.put_u8(if self.generation.is_some() { SEALED_VERSION } else { VERSION });
        out.put_u64(self.from.0);
        out.put_u64(self.to.0);
        out.put_u8(self.kind.to_byte());
        if let Some(generation) = self.generation {
            out.put_u32(generation);
        }
        out.put_u64(self.sequence);
        out.put_u64(self.time_ms);
        let head_bytes = out.len();
        out.put_slice(content);
        if self.generation.is_some() {
            let (head, content) = out.split_at_mut(head_bytes);
            // A cipher refuses only what is far longer than a datagram.
            let tag = key.encrypt(self.nonce(), head, content).unwrap_or_default();
            out.put_slice(&tag);
        } else {
            let mac = key.mac(&out);
            out.put_slice(&mac);
        }
        out.freeze()
    }

    /// Decodes a datagram without authenticating it; the content stays as it was sent. See
    /// [`open`](Self::open). Returns `None` if `bytes` are not a datagram of a known version.
    #[must_use]
    pub fn parse(bytes: &Bytes) -> Option<Self> {
        let is_sealed = match *bytes.first()? {
            VERSION => false,
            SEALED_VERSION => true,
            _ => return None,
        };
        let head_bytes = if is_sealed { SEALED_HEAD_BYTES } else { HEAD_BYTES };
        let body_bytes = bytes.len().checked_sub(TAG_BYTES).filter(|most| *most >= head_bytes)?;
        if bytes.len() > DATAGRAM_BYTES_MAX {
            return None;
        }
        let number = |at: usize| bytes[at..].first_chunk().map(|eight| u64::from_be_bytes(*eight));
        let generation = bytes[18..].first_chunk().map(|four| u32::from_be_bytes(*four));
        Some(Self {
            from: Incarnation(number(1)?),
            to: Incarnation(number(9)?),
            kind: DatagramKind::from_byte(bytes[17])?,
            generation: generation.filter(|_| is_sealed),
            sequence: number(head_bytes - 16)?,
            time_ms: number(head_bytes - 8)?,
            content: bytes.slice(head_bytes..body_bytes),
        })
    }

    /// Authenticates what was [parsed](Self::parse) from `bytes`, and decrypts its content. Returns `None`
    /// if it was not sealed with `key`.
    #[must_use]
    pub fn open(self, bytes: &Bytes, key: &SessionKey) -> Option<Self> {
        let (body, tag) = bytes.split_last_chunk::<TAG_BYTES>()?;
        if self.generation.is_none() {
            // Compares every byte, so that the time reveals nothing.
            let right = key.mac(body);
            let differing = right.iter().zip(tag).fold(0, |all, (a, b)| all | (a ^ b));
            return (differing == 0).then_some(self);
        }
        let head = body.get(..SEALED_HEAD_BYTES)?;
        let mut content = BytesMut::from(&*self.content);
        let is_authentic = key.decrypt(self.nonce(), head, &mut content, *tag);
        is_authentic.then(|| Self { content: content.freeze(), ..self })
    }

    fn nonce(&self) -> [u8; 12] {
        let mut nonce = [0; 12];
        nonce[0] = self.kind.to_byte();
        nonce[4..].copy_from_slice(&self.sequence.to_be_bytes());
        nonce
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::{super::session::Session, *};

    fn datagram(generation: Option<u32>) -> Datagram {
        Datagram {
            from: Incarnation(0x0102),
            to: Incarnation(3),
            kind: DatagramKind::Heartbeat,
            generation,
            sequence: 7,
            time_ms: 1_000,
            content: Bytes::from_static(b"gossip"),
        }
    }

    fn key(generation: Option<u32>) -> SessionKey {
        Session::derive(&[9; 32], Incarnation(0x0102), generation).key
    }

    fn open(bytes: &Bytes, key: &SessionKey) -> Option<Datagram> {
        Datagram::parse(bytes)?.open(bytes, key)
    }

    #[test]
    fn bytes_are_pinned() {
        let bytes = datagram(None).seal(&key(None));
        let head: Vec<u8> = [1]
            .into_iter()
            .chain([0, 0, 0, 0, 0, 0, 1, 2])
            .chain([0, 0, 0, 0, 0, 0, 0, 3])
            .chain([1])
            .chain([0, 0, 0, 0, 0, 0, 0, 7])
            .chain([0, 0, 0, 0, 0, 0, 3, 0xe8])
            .chain(*b"gossip")
            .collect();
        assert_eq!(&bytes[..head.len()], head);
        let mac = 0x071b6c59c110115d6c44a8394535a1af_u128.to_be_bytes();
        assert_eq!(bytes[head.len()..], mac);
        assert_eq!(Datagram::parse(&bytes), Some(datagram(None)));
        assert_eq!(open(&bytes, &key(None)), Some(datagram(None)));
    }

    #[test]
    fn encrypted_bytes_are_pinned() {
        let bytes = datagram(Some(5)).seal(&key(Some(5)));
        let head: Vec<u8> = [2]
            .into_iter()
            .chain([0, 0, 0, 0, 0, 0, 1, 2])
            .chain([0, 0, 0, 0, 0, 0, 0, 3])
            .chain([1])
            .chain([0, 0, 0, 5])
            .chain([0, 0, 0, 0, 0, 0, 0, 7])
            .chain([0, 0, 0, 0, 0, 0, 3, 0xe8])
            .collect();
        assert_eq!(&bytes[..head.len()], head);
        // As another implementation of RFC 8439 has them.
        assert_eq!(bytes[head.len()..head.len() + 6], [0xd9, 0x4d, 0x0f, 0xe4, 0xf1, 0x5e]);
        let tag = 0x0f42_b745_2678_8b6d_0aff_f336_cd3a_b548_u128.to_be_bytes();
        assert_eq!(bytes[head.len() + 6..], tag);
        assert_eq!(open(&bytes, &key(Some(5))), Some(datagram(Some(5))));
        // The echo of a heartbeat is sealed with the same key, and another nonce.
        let echo = Datagram { kind: DatagramKind::Echo, ..datagram(Some(5)) };
        assert_ne!(echo.seal(&key(Some(5)))[head.len()..], bytes[head.len()..]);
    }

    #[test]
    fn changed_bytes_and_other_keys_are_detected() {
        for generation in [None, Some(5)] {
            let bytes = datagram(generation).seal(&key(generation));
            for at in 0..bytes.len() {
                let mut changed = bytes.to_vec();
                changed[at] ^= 1;
                assert_eq!(open(&changed.into(), &key(generation)), None, "byte {at}");
            }
            for other in [
                Session::derive(&[8; 32], Incarnation(0x0102), generation),
                Session::derive(&[9; 32], Incarnation(0x0103), generation),
                Session::derive(&[9; 32], Incarnation(0x0102), Some(6)),
            ] {
                assert_eq!(open(&bytes, &other.key), None);
            }
        }
    }

    #[test]
    fn wrong_lengths_are_rejected() {
        for (generation, head_bytes) in [(None, HEAD_BYTES), (Some(5), SEALED_HEAD_BYTES)] {
            let bytes = datagram(generation).seal(&key(generation));
            for length in 0..head_bytes + TAG_BYTES {
                assert_eq!(Datagram::parse(&bytes.slice(..length)), None, "{length} bytes");
            }
            let mut long = bytes.to_vec();
            long.resize(DATAGRAM_BYTES_MAX + 1, 0);
            assert_eq!(Datagram::parse(&long.into()), None);
            let content = Bytes::from(alloc::vec![7; CONTENT_BYTES_MAX]);
            let longest = Datagram { content, ..datagram(generation) };
            let bytes = longest.seal(&key(generation));
            assert!(bytes.len() <= DATAGRAM_BYTES_MAX);
            assert_eq!(open(&bytes, &key(generation)), Some(longest));
        }
    }
}
