//! Requests of clients and nodes.

mod body;
mod content;
mod tags;

use alloc::{boxed::Box, vec::Vec};

use bytes::{Bytes, BytesMut};

use self::{
    body::Body,
    content::write_version,
    tags::{kind, tag},
};
use super::{
    field::{DecodeError, Field, Reader, Writer, varint},
    hello::Hello,
    repair::{Bucket, Resolution, Window},
    replication::{ReplicatedRecord, is_key},
};
use crate::{
    condition::ConditionalWrite,
    key::{Key, KeyHash},
    locate::Spread,
    purge::{PurgeMode, PurgeTarget},
    store::{CopyRange, KeyVersion},
    time::Instant,
    ttl::Ttl,
    version::{Incarnation, Version, VersionSource},
};

/// The most records in one [`Request::Replicate`].
pub const REPLICATED_RECORDS_MAX: usize = 4096;

/// The replicas that must store a write before it is acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ack {
    /// The accepting node.
    #[default]
    Local,
    /// The accepting node and every local peer that it reaches at that moment.
    Region,
    /// As [`Region`](Self::Region), and one node of each other region that the accepting node reaches.
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

/// The fields that precede the content of every request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Envelope {
    /// The caller's cluster, as [`cluster_id`](super::cluster_id). A node of another cluster refuses.
    pub cluster: u64,
    /// The caller, if it is a node.
    pub from: Option<Incarnation>,
    /// The addressed node. Another node at the same address refuses.
    pub to: Option<Incarnation>,
    /// The time of sending, on the caller's monotonic clock in milliseconds.
    pub sent_ms: u64,
    /// How long the caller waits, in milliseconds; 0 if not stated.
    pub timeout_ms: u64,
    /// The highest version stamp that the caller has seen; 0 if not stated. The receiver stamps writes of
    /// this request above it.
    pub seen: u64,
    /// The queueing delay of the message in milliseconds, as in
    /// [`DelayEstimator`](super::DelayEstimator). Set by the receiver, never sent.
    pub delay_ms: u64,
}

impl Envelope {
    /// Returns how long the caller still waits, in milliseconds: 0 if the caller did not state a timeout,
    /// `None` if the timeout has passed.
    #[must_use]
    pub const fn remaining_ms(&self) -> Option<u64> {
        match self.timeout_ms {
            0 => Some(0),
            most if most > self.delay_ms => Some(most - self.delay_ms),
            _ => None,
        }
    }
}

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Introduces the caller and asks for the node at this address.
    Hello(Box<Hello>),
    /// Checks that the node is alive and asks for its state.
    Ping,
    /// Announces that the caller is about to stop. The receiver verifies it.
    Goodbye,
    /// Reads a key.
    Get {
        /// The key.
        key: Key,
    },
    /// Writes a value.
    Put {
        /// The key.
        key: Key,
        /// The value.
        value: Bytes,
        /// Tagged fields that nodes forward unchanged.
        metadata: Bytes,
        /// The lifetime of the entry.
        ttl: Ttl,
        /// The replicas that must store the value before the response.
        ack: Ack,
        /// Where the version comes from; a given one is from
        /// [`Response::LeaseGranted`](super::Response::LeaseGranted).
        version: VersionSource,
    },
    /// Deletes a key.
    Delete {
        /// The key.
        key: Key,
        /// The replicas that must apply the delete before the response.
        ack: Ack,
    },
    /// Writes a key if a condition holds.
    Conditional(Box<ConditionalWrite>),
    /// Replicates writes from node to node.
    Replicate(Vec<ReplicatedRecord>),
    /// Waits until the node's view of the cluster differs from `view`.
    Watch {
        /// The number of a view, from the last [`Pong`](super::Response::Pong).
        view: u64,
    },
    /// Requests the lease to compute the value of a key, or the value if another caller computes it.
    Lease {
        /// The key.
        key: Key,
        /// How long other callers are kept from computing the value, in milliseconds; 0 if not stated.
        lease_ms: u64,
        /// How long the caller waits while another caller holds the lease, in milliseconds.
        wait_ms: u64,
        /// Values of this version or older do not satisfy the caller, however fresh they are.
        newer_than: Option<Version>,
    },
    /// Releases a lease.
    Release {
        /// The key.
        key: Key,
        /// The token of the lease.
        token: Version,
        /// The computation failed: waiting callers need not wait for the next one.
        failed: bool,
    },
    /// Ends the values of a group of keys. See [`Write::purge`](crate::node::Write::purge).
    Purge {
        /// The entries to end.
        target: PurgeTarget,
        /// How they end.
        mode: PurgeMode,
        /// How much later than the purge a value that it ends may be stamped, in milliseconds.
        hold_ms: u64,
        /// The replicas that must have the purge before the response.
        ack: Ack,
        /// The version of an earlier purge, which is repeated. The node assigns one if there is none.
        replayed: Option<Version>,
    },
    /// Waits for changes of entries.
    Follow {
        /// The position in the feed: `next` of the last response, 0 at the beginning.
        since: u64,
        /// The caller knows what purges are. To others the node says that it lost changes instead.
        with_purges: bool,
    },
    /// Waits for changes of entries, and wants all that the node knows of them.
    Listen {
        /// The position in the feed, as in [`Follow`](Self::Follow).
        since: u64,
        /// The response comes at once, also if nothing changed.
        at_once: bool,
    },
    /// Asks what nodes hold of keys.
    Locate {
        /// The keys, at most [`LOCATED_KEYS_MAX`](crate::locate::LOCATED_KEYS_MAX).
        keys: Vec<Key>,
        /// Digests of the values are wanted, too.
        digest: bool,
        /// The nodes.
        spread: Spread,
    },
    /// Exchanges gossip about members where datagrams do not pass.
    Gossip(Bytes),
    /// Requests digests of the versions that the node knows, to find where two nodes differ.
    Digests {
        /// The seconds of versions.
        window: Window,
        /// The resolution.
        resolution: Resolution,
        /// The time since the caller last had everything that this node knew, in milliseconds; `None` if
        /// it never had.
        last_sync_ms: Option<u64>,
    },
    /// Requests the versions that the node knows in these buckets.
    BucketVersions(Vec<Bucket>),
    /// Requests the versions that the node knows of these keys.
    KeyVersions(Vec<KeyHash>),
    /// Requests the values or tombstones of these keys.
    Fetch(Vec<KeyHash>),
    /// Requests the values of these keys, of which the caller, who owns them, knows the versions. Of those of which no
    /// value is to be had now there is no item.
    Adopt(Vec<KeyHash>),
    /// Requests the entries of some shards, hottest first within each shard, for a node that starts.
    Copy {
        /// The first shard.
        first_shard: u8,
        /// The last shard.
        last_shard: u8,
        /// The entries to copy of each shard.
        range: CopyRange,
        /// Only of what the caller owns the values are wanted; of the rest the versions.
        owned: bool,
    },
    /// Offers values to an owner of their keys. It fetches those that it lacks, and responds with those that it
    /// has: their keys, and the versions that it knows.
    Offer(Vec<KeyVersion>),
}

/// A request in its envelope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestMessage {
    /// Caller, addressee and deadline.
    pub envelope: Envelope,
    /// The request.
    pub request: Request,
}

impl RequestMessage {
    /// Encodes the message for sending at `now`. Lifetimes are encoded as what remains at `now`.
    #[must_use]
    pub fn encode(&self, now: Instant) -> Bytes {
        let mut out = BytesMut::with_capacity(self.size_hint());
        self.encode_to(&mut Writer::new(&mut out), &Envelope::default(), now);
        out.freeze()
    }

    /// Appends the message for sending at `now`. Fields that equal those of `defaults`, which the receiver
    /// knows, are left out.
    pub fn encode_to(&self, out: &mut Writer<'_>, defaults: &Envelope, now: Instant) {
        out.varint(self.request.kind());
        let Envelope { cluster, from, to, sent_ms, timeout_ms, seen, delay_ms: _ } = self.envelope;
        if cluster != defaults.cluster || cluster == 0 {
            out.number(tag::CLUSTER, cluster);
        }
        for (tag, given, default) in [(tag::FROM, from, defaults.from), (tag::TO, to, defaults.to)]
        {
            if let Some(incarnation) = given.filter(|_| given != default) {
                out.number(tag, incarnation.0);
            }
        }
        if sent_ms != defaults.sent_ms || defaults.cluster == 0 {
            out.number(tag::SENT_MS, sent_ms);
        }
        if timeout_ms != defaults.timeout_ms {
            out.number(tag::TIMEOUT_MS, timeout_ms);
        }
        write_seen(out, seen);
        self.request.write(out, now);
    }

    /// Estimates the encoded size in bytes. The estimate is never much too small.
    #[must_use]
    pub fn size_hint(&self) -> usize {
        self.request.payload_bytes() + 64
    }

    /// Decodes a request received at `now`.
    ///
    /// # Errors
    /// [`DecodeError`] if `message` is not a request or exceeds a limit.
    pub fn decode(message: Bytes, now: Instant) -> Result<Self, DecodeError> {
        Self::decode_with_defaults(message, Envelope::default(), now)
    }

    /// Decodes a request received at `now`. Fields that the message leaves out come from `defaults`.
    ///
    /// # Errors
    /// [`DecodeError`] if `message` is not a request or exceeds a limit.
    pub fn decode_with_defaults(
        message: Bytes,
        defaults: Envelope,
        now: Instant,
    ) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(&message);
        let kind = reader.varint()?;
        let mut envelope = defaults;
        let mut body = Body::default();
        // Lifetimes count from the sending, which was earlier by the delay.
        let sent = now.minus_ms(defaults.delay_ms);
        reader.each(|field| {
            match field.tag {
                tag::CLUSTER => envelope.cluster = field.number()?,
                tag::FROM => envelope.from = Some(Incarnation(field.number()?)),
                tag::TO => envelope.to = Some(Incarnation(field.number()?)),
                tag::SENT_MS => envelope.sent_ms = field.number()?,
                tag::TIMEOUT_MS => envelope.timeout_ms = field.number()?,
                tag::SEEN => envelope.seen = field.number()?,
                _ => body.set(&field, sent)?,
            }
            Ok(())
        })?;
        Ok(Self { envelope, request: body.into_request(kind)? })
    }

    /// Appends a Get of `key` for a receiver that knows the envelope.
    pub fn encode_get(out: &mut Writer<'_>, key: &[u8]) {
        out.varint(kind::GET);
        out.bytes(tag::KEY, key);
    }

    /// Appends a Put for a receiver that knows the envelope except for `seen`.
    pub fn encode_put(
        out: &mut Writer<'_>,
        seen: u64,
        (key, value, metadata): (&[u8], &[u8], &[u8]),
        (ttl, ack): (Ttl, Ack),
        version: VersionSource,
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
        write_version(out, version);
    }

    /// Appends a Delete for a receiver that knows the envelope except for `seen`.
    pub fn encode_delete(out: &mut Writer<'_>, seen: u64, key: &[u8], ack: Ack) {
        out.varint(kind::DELETE);
        write_seen(out, seen);
        out.bytes(tag::KEY, key);
        out.number(tag::ACK, ack.to_number());
    }

    /// Returns the key if `message` is a Get without other fields: the most frequent request, decoded
    /// in place.
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
