//! Datagrams between nodes: small, authenticated, unordered and unreliable.
//!
//! `version ‖ from ‖ to ‖ kind ‖ sequence ‖ time ‖ content ‖ MAC`, numbers big-endian. The receiver of a
//! heartbeat gave the sender the key in a handshake. The echo is sealed with the same key; the kind is
//! authenticated too.

use core::fmt;

use bytes::{BufMut, Bytes, BytesMut};

use crate::version::Incarnation;

/// The largest datagram in bytes: with its headers it fits every path that carries IPv6.
pub const DATAGRAM_BYTES_MAX: usize = 1_200;

/// The largest content of a datagram in bytes.
pub const CONTENT_BYTES_MAX: usize = DATAGRAM_BYTES_MAX - HEAD_BYTES - MAC_BYTES;

/// The version of the datagram format.
const VERSION: u8 = 1;

const HEAD_BYTES: usize = 1 + 8 + 8 + 1 + 8 + 8;
const MAC_BYTES: usize = 16;

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

/// The key of the datagrams between a node and one caller.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SessionKey([u8; 32]);

impl SessionKey {
    /// Derives the key of a caller from the node's secret. The node does not have to store it.
    #[must_use]
    pub fn derive(secret: &[u8; 32], caller: Incarnation) -> Self {
        Self(*blake3::keyed_hash(secret, &caller.0.to_be_bytes()).as_bytes())
    }

    /// Creates the key from its bytes in a handshake.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Returns the bytes of the key for a handshake.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    fn mac(&self, bytes: &[u8]) -> blake3::Hash {
        blake3::keyed_hash(&self.0, bytes)
    }
}

impl fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionKey(..)")
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
    /// The number of the heartbeat from this sender to this receiver; an echo repeats it.
    pub sequence: u64,
    /// The time of sending of the heartbeat, on its sender's monotonic clock in milliseconds.
    pub time_ms: u64,
    /// Gossip; may be empty.
    pub content: Bytes,
}

impl Datagram {
    /// Encodes the datagram and appends its MAC. Content above [`CONTENT_BYTES_MAX`] is left out.
    #[must_use]
    pub fn seal(&self, key: &SessionKey) -> Bytes {
        let fits = self.content.len() <= CONTENT_BYTES_MAX;
        let content = if fits { &self.content[..] } else { &[] };
        let mut out = BytesMut::with_capacity(HEAD_BYTES + content.len() + MAC_BYTES);
        out.put_u8(VERSION);
        out.put_u64(self.from.0);
        out.put_u64(self.to.0);
        out.put_u8(self.kind.to_byte());
        out.put_u64(self.sequence);
        out.put_u64(self.time_ms);
        out.put_slice(content);
        let mac = key.mac(&out);
        out.put_slice(&mac.as_bytes()[..MAC_BYTES]);
        out.freeze()
    }

    /// Decodes a datagram without checking its MAC; see [`is_sealed`](Self::is_sealed). Returns `None` if
    /// `bytes` are not a datagram of this version.
    #[must_use]
    pub fn parse(bytes: &Bytes) -> Option<Self> {
        let body_bytes = bytes.len().checked_sub(MAC_BYTES).filter(|most| *most >= HEAD_BYTES)?;
        if bytes.len() > DATAGRAM_BYTES_MAX || bytes[0] != VERSION {
            return None;
        }
        let number = |at: usize| bytes[at..].first_chunk().map(|eight| u64::from_be_bytes(*eight));
        Some(Self {
            from: Incarnation(number(1)?),
            to: Incarnation(number(9)?),
            kind: DatagramKind::from_byte(bytes[17])?,
            sequence: number(18)?,
            time_ms: number(26)?,
            content: bytes.slice(HEAD_BYTES..body_bytes),
        })
    }

    /// Returns whether `bytes` were sealed with `key`.
    #[must_use]
    pub fn is_sealed(bytes: &Bytes, key: &SessionKey) -> bool {
        let Some((body, mac)) = bytes.split_last_chunk::<MAC_BYTES>() else { return false };
        let right = key.mac(body);
        // Compares every byte, so that the time reveals nothing.
        let differing = right.as_bytes().iter().zip(mac).fold(0, |all, (a, b)| all | (a ^ b));
        differing == 0
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    fn datagram() -> Datagram {
        Datagram {
            from: Incarnation(0x0102),
            to: Incarnation(3),
            kind: DatagramKind::Heartbeat,
            sequence: 7,
            time_ms: 1_000,
            content: Bytes::from_static(b"gossip"),
        }
    }

    #[test]
    fn bytes_are_pinned() {
        let key = SessionKey::derive(&[9; 32], Incarnation(0x0102));
        let bytes = datagram().seal(&key);
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
        assert_eq!(Datagram::parse(&bytes), Some(datagram()));
        assert!(Datagram::is_sealed(&bytes, &key));
    }

    #[test]
    fn changed_bytes_and_other_keys_are_detected() {
        let key = SessionKey::derive(&[9; 32], Incarnation(0x0102));
        let bytes = datagram().seal(&key);
        for at in 0..bytes.len() {
            let mut changed = bytes.to_vec();
            changed[at] ^= 1;
            assert!(!Datagram::is_sealed(&changed.into(), &key), "byte {at}");
        }
        for other in [
            SessionKey::derive(&[8; 32], Incarnation(0x0102)),
            SessionKey::derive(&[9; 32], Incarnation(0x0103)),
        ] {
            assert!(!Datagram::is_sealed(&bytes, &other));
        }
    }

    #[test]
    fn wrong_lengths_are_rejected() {
        let bytes = datagram().seal(&SessionKey::from_bytes([0; 32]));
        for length in 0..HEAD_BYTES + MAC_BYTES {
            assert_eq!(Datagram::parse(&bytes.slice(..length)), None, "{length} bytes");
            assert!(!Datagram::is_sealed(&bytes.slice(..length), &SessionKey::from_bytes([0; 32])));
        }
        let mut long = bytes.to_vec();
        long.resize(DATAGRAM_BYTES_MAX + 1, 0);
        assert_eq!(Datagram::parse(&long.into()), None);
    }
}
