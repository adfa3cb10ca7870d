//! What one side asks of the other.

mod body;
mod content;
mod tags;

use alloc::{boxed::Box, vec::Vec};

use bytes::{Bytes, BytesMut};

use self::{
    body::Body,
    tags::{kind, tag},
};
use super::{
    field::{DecodeError, Field, Reader, Writer, varint},
    hello::Hello,
    record::{Shipment, is_key},
    repair::{Cell, Grain, Window},
};
use crate::{
    key::{Key, KeyHash},
    store::Stretch,
    time::Instant,
    ttl::Ttl,
    version::{Incarnation, Version},
};

/// Most records in one message.
pub const SHIPMENTS_MAX: usize = 4096;

/// Who must have stored a write before it is acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ack {
    /// The node that accepted it.
    #[default]
    Local,
    /// Also every local peer that it reaches at that moment.
    Region,
    /// Also one node of each other region that it reaches.
    All,
}

impl Ack {
    const fn to_number(self) -> u64 {
        match self {
            Self::Local => 0,
            Self::Region => 1,
            Self::All => 2,
        }
    }

    fn from_field(field: &Field<'_>) -> Result<Self, DecodeError> {
        match field.number()? {
            0 => Ok(Self::Local),
            1 => Ok(Self::Region),
            2 => Ok(Self::All),
            _ => Err(field.invalid()),
        }
    }
}

/// What every request states before its content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Envelope {
    /// The caller's cluster, as [`cluster_id`](super::cluster_id); another cluster's is refused.
    pub cluster: u64,
    /// The caller, if it is a node.
    pub from: Option<Incarnation>,
    /// The node that is meant; another one that answers at its address refuses.
    pub to: Option<Incarnation>,
    /// When it was sent, on the caller's monotonic clock in milliseconds.
    pub sent_ms: u64,
    /// How long the caller waits, in milliseconds; 0 when it does not say.
    pub timeout_ms: u64,
    /// The highest stamp of a version that the caller has seen; 0 when it does not say. What the
    /// receiver stamps for it is above.
    pub seen: u64,
    /// How much longer it was on its way than the fastest message of its connection, in milliseconds;
    /// found out by the receiver, never sent.
    pub late_ms: u64,
}

impl Envelope {
    /// What the caller still waits, in milliseconds: 0 when it did not say how long it does, none when
    /// it has given up.
    #[must_use]
    pub const fn remaining_ms(&self) -> Option<u64> {
        match self.timeout_ms {
            0 => Some(0),
            most if most > self.late_ms => Some(most - self.late_ms),
            _ => None,
        }
    }
}

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Introduces the caller and asks who stands here.
    Hello(Box<Hello>),
    /// Asks whether the node lives, and what it holds of the cluster.
    Ping,
    /// Says that the caller is about to stop. The receiver verifies it.
    Goodbye,
    /// Reads a key.
    Get {
        /// What to read.
        key: Key,
    },
    /// Writes a value.
    Put {
        /// What to write.
        key: Key,
        /// The value.
        value: Bytes,
        /// Tagged fields forwarded unchanged.
        metadata: Bytes,
        /// How long it lives.
        ttl: Ttl,
        /// Who must have it before the answer.
        ack: Ack,
        /// The version that it is written with, from [`Response::Leased`](super::Response::Leased);
        /// none when the node gives one.
        token: Option<Version>,
    },
    /// Deletes a key.
    Delete {
        /// What to delete.
        key: Key,
        /// Who must know before the answer.
        ack: Ack,
    },
    /// Passes writes on, between nodes.
    Replicate(Vec<Shipment>),
    /// Waits until the node reaches other nodes than those for which `view` stands.
    Watch {
        /// The number of a view, as the last Pong told it.
        view: u64,
    },
    /// Asks for the leave to compute the value of a key, or for the value when another one computes it.
    Lease {
        /// Of what.
        key: Key,
        /// How long others are kept from computing it, in milliseconds; 0 when it does not say.
        life_ms: u64,
        /// How long it waits when another one has the leave, in milliseconds.
        wait_ms: u64,
        /// Values of up to this version are of no use to it, however fresh they are.
        over: Option<Version>,
    },
    /// Gives back the leave to compute.
    Release {
        /// Of what.
        key: Key,
        /// The leave.
        token: Version,
        /// Whether the computation failed, so that those who wait need not wait for the next one.
        failed: bool,
    },
    /// Waits for changes of entries.
    Follow {
        /// Which ones are known: `next` of the last answer, 0 at the beginning.
        since: u64,
    },
    /// Says who exists, where datagrams do not pass.
    Gossip(Bytes),
    /// Sums over what the node knows, to find out where two nodes differ.
    Sums {
        /// Which seconds.
        window: Window,
        /// How fine.
        grain: Grain,
        /// How long ago the caller last had everything that this node knew, in milliseconds; none
        /// when it never had.
        had_ms: Option<u64>,
    },
    /// The versions that the node knows in these cells.
    RowsOf(Vec<Cell>),
    /// The versions that the node knows of these keys.
    VersionsOf(Vec<KeyHash>),
    /// The values that the node has of these keys, or their traces.
    Fetch(Vec<KeyHash>),
    /// Entries of some parts, in each the hottest first, for a node that starts.
    Copy {
        /// The first part.
        part: u8,
        /// The last part.
        last: u8,
        /// Which of its entries.
        stretch: Stretch,
    },
}

/// A request in its envelope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestMessage {
    /// Who asks whom, and how long it waits.
    pub envelope: Envelope,
    /// What is asked.
    pub request: Request,
}

impl RequestMessage {
    /// The message as bytes, sent at `now`: lifetimes are what remains of them then.
    #[must_use]
    pub fn encode(&self, now: Instant) -> Bytes {
        let mut out = BytesMut::with_capacity(self.size_hint());
        self.encode_to(&mut Writer::new(&mut out), &Envelope::default(), now);
        out.freeze()
    }

    /// Appends the message, sent at `now`, without what the receiver knows from `known`.
    pub fn encode_to(&self, out: &mut Writer<'_>, known: &Envelope, now: Instant) {
        out.varint(self.request.kind());
        let Envelope { cluster, from, to, sent_ms, timeout_ms, seen, late_ms: _ } = self.envelope;
        if cluster != known.cluster || cluster == 0 {
            out.number(tag::CLUSTER, cluster);
        }
        for (tag, given, known) in [(tag::FROM, from, known.from), (tag::TO, to, known.to)] {
            if let Some(incarnation) = given.filter(|_| given != known) {
                out.number(tag, incarnation.0);
            }
        }
        if sent_ms != known.sent_ms || known.cluster == 0 {
            out.number(tag::SENT_MS, sent_ms);
        }
        if timeout_ms != known.timeout_ms {
            out.number(tag::TIMEOUT_MS, timeout_ms);
        }
        write_seen(out, seen);
        self.request.write(out, now);
    }

    /// About how many bytes the message takes; not much less than it does.
    #[must_use]
    pub fn size_hint(&self) -> usize {
        self.request.payload_bytes() + 64
    }

    /// The request in `message`, received at `now`.
    ///
    /// # Errors
    /// [`DecodeError`] when it is none, or exceeds a limit.
    pub fn decode(message: Bytes, now: Instant) -> Result<Self, DecodeError> {
        Self::decode_known(message, Envelope::default(), now)
    }

    /// The request in `message`, received at `now`; `known` holds what it need not say.
    ///
    /// # Errors
    /// [`DecodeError`] when it is none, or exceeds a limit.
    pub fn decode_known(
        message: Bytes,
        known: Envelope,
        now: Instant,
    ) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(&message);
        let kind = reader.varint()?;
        let mut envelope = known;
        let mut body = Body::default();
        // What came late was sent that much earlier: lifetimes count from then.
        let sent = now.minus_ms(known.late_ms);
        reader.each(|field| {
            match field.tag {
                tag::CLUSTER => envelope.cluster = field.number()?,
                tag::FROM => envelope.from = Some(Incarnation(field.number()?)),
                tag::TO => envelope.to = Some(Incarnation(field.number()?)),
                tag::SENT_MS => envelope.sent_ms = field.number()?,
                tag::TIMEOUT_MS => envelope.timeout_ms = field.number()?,
                tag::SEEN => envelope.seen = field.number()?,
                _ => body.take(&field, sent)?,
            }
            Ok(())
        })?;
        Ok(Self { envelope, request: body.into_request(kind)? })
    }

    /// Appends a Get of `key` to a receiver that knows the rest.
    pub fn encode_get(out: &mut Writer<'_>, key: &[u8]) {
        out.varint(kind::GET);
        out.bytes(tag::KEY, key);
    }

    /// Appends a Put without metadata to a receiver that knows the rest, but not what was `seen`.
    pub fn encode_put(
        out: &mut Writer<'_>,
        seen: u64,
        (key, value, metadata): (&[u8], &[u8], &[u8]),
        ttl: Ttl,
        ack: Ack,
    ) {
        out.varint(kind::PUT);
        write_seen(out, seen);
        out.bytes(tag::KEY, key);
        out.bytes(tag::VALUE, value);
        if !metadata.is_empty() {
            out.bytes(tag::METADATA, metadata);
        }
        out.number(tag::TTL_MS, ttl.as_millis());
        out.number(tag::ACK, ack.to_number());
    }

    /// Appends a Delete to a receiver that knows the rest, but not what was `seen`.
    pub fn encode_delete(out: &mut Writer<'_>, seen: u64, key: &[u8], ack: Ack) {
        out.varint(kind::DELETE);
        write_seen(out, seen);
        out.bytes(tag::KEY, key);
        out.number(tag::ACK, ack.to_number());
    }

    /// The key, if `message` is a Get that says nothing else: the most frequent request, decoded
    /// without taking anything out of the buffer in which it stands.
    #[must_use]
    pub fn peek_get(message: &[u8]) -> Option<&[u8]> {
        let rest = message.strip_prefix(&[kind::GET as u8, tag::KEY as u8])?;
        let (length, used) = varint(rest).ok()?;
        let key = &rest[used..];
        (key.len() as u64 == length && is_key(key)).then_some(key)
    }
}

fn write_seen(out: &mut Writer<'_>, seen: u64) {
    if seen > 0 {
        out.number(tag::SEEN, seen);
    }
}
