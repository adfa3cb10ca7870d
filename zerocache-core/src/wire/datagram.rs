//! Datagrams between nodes: small, authenticated, without order or certainty.
//!
//! `version ‖ from ‖ to ‖ kind ‖ sequence ‖ time ‖ content ‖ MAC`, numbers big-endian. The key is the
//! one that the receiver of a heartbeat gave its sender in a handshake; the echo goes back under the
//! same key, and the kind is part of what is authenticated.

use core::fmt;

use bytes::{BufMut, Bytes, BytesMut};

use crate::version::Incarnation;

/// Most bytes of a datagram: with its headers it fits every path that carries IPv6.
pub const DATAGRAM_BYTES_MAX: usize = 1_200;

/// Most bytes of content in a datagram.
pub const CONTENT_BYTES_MAX: usize = DATAGRAM_BYTES_MAX - HEAD_BYTES - MAC_BYTES;

/// The form of datagrams that this release speaks.
const VERSION: u8 = 1;

const HEAD_BYTES: usize = 1 + 8 + 8 + 1 + 8 + 8;
const MAC_BYTES: usize = 16;

/// What a datagram is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DatagramKind {
    /// Asks whether the receiver lives.
    Beat,
    /// Answers a beat, with its sequence number and its time.
    Echo,
}

impl DatagramKind {
    const fn to_byte(self) -> u8 {
        match self {
            Self::Beat => 1,
            Self::Echo => 2,
        }
    }

    const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Beat),
            2 => Some(Self::Echo),
            _ => None,
        }
    }
}

/// A key for the datagrams between a node and one caller.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SessionKey([u8; 32]);

impl SessionKey {
    /// The key that a node with this secret gives to a caller. It need not be remembered.
    #[must_use]
    pub fn derive(secret: &[u8; 32], caller: Incarnation) -> Self {
        Self(*blake3::keyed_hash(secret, &caller.0.to_be_bytes()).as_bytes())
    }

    /// The key that was told in a handshake.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The key as it is told in a handshake.
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
    /// Who sends it.
    pub from: Incarnation,
    /// Who is meant.
    pub to: Incarnation,
    /// What it is.
    pub kind: DatagramKind,
    /// Its number among the beats of its sender to this receiver; in an echo, the beat's.
    pub sequence: u64,
    /// When the beat was sent, on the monotonic clock of the beat's sender in milliseconds.
    pub time_ms: u64,
    /// Gossip, or nothing.
    pub content: Bytes,
}

impl Datagram {
    /// The datagram as bytes; content beyond [`CONTENT_BYTES_MAX`] is left out.
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

    /// What `bytes` say, of which nothing is certain before [`is_sealed`](Self::is_sealed) holds; none
    /// when they are no datagram of a form that this release speaks.
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

    /// Whether `bytes` were sealed with this key.
    #[must_use]
    pub fn is_sealed(bytes: &Bytes, key: &SessionKey) -> bool {
        let Some((body, mac)) = bytes.split_last_chunk::<MAC_BYTES>() else { return false };
        let right = key.mac(body);
        // Every byte is looked at, so that the time tells nothing.
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
            kind: DatagramKind::Beat,
            sequence: 7,
            time_ms: 1_000,
            content: Bytes::from_static(b"gossip"),
        }
    }

    #[test]
    fn the_bytes_are_those_of_the_protocol() {
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
    fn any_changed_byte_and_any_other_key_is_noticed() {
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
    fn what_is_too_short_or_too_long_is_no_datagram() {
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
