//! What one side asks of the other.

use alloc::{boxed::Box, vec::Vec};

use bytes::{Bytes, BytesMut};

use super::{
    datagram::CONTENT_BYTES_MAX,
    field::{DecodeError, Field, Reader, Writer, varint},
    hello::Hello,
    record::{Shipment, is_key, read_key},
    repair::{
        Cell, Grain, PLACES_MAX, Window, place_from, read_cells, read_hashes, read_numbers,
        write_cells, write_hashes, write_numbers, write_stretch,
    },
};
use crate::{
    key::{Key, KeyHash, PARTS},
    limits::{METADATA_BYTES_MAX, VALUE_BYTES_WIRE_MAX},
    store::Stretch,
    time::Instant,
    ttl::Ttl,
    version::Incarnation,
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

mod kind {
    pub(super) const HELLO: u64 = 1;
    pub(super) const PING: u64 = 2;
    pub(super) const GOODBYE: u64 = 3;
    pub(super) const GET: u64 = 4;
    pub(super) const PUT: u64 = 5;
    pub(super) const DELETE: u64 = 6;
    pub(super) const REPLICATE: u64 = 7;
    pub(super) const WATCH: u64 = 20;
    pub(super) const GOSSIP: u64 = 21;
    pub(super) const SUMS: u64 = 8;
    pub(super) const ROWS_OF: u64 = 9;
    pub(super) const VERSIONS_OF: u64 = 10;
    pub(super) const FETCH: u64 = 11;
    pub(super) const COPY: u64 = 12;
}

mod tag {
    pub(super) const CLUSTER: u32 = 1;
    pub(super) const FROM: u32 = 2;
    pub(super) const TO: u32 = 3;
    pub(super) const SENT_MS: u32 = 4;
    pub(super) const TIMEOUT_MS: u32 = 5;
    pub(super) const SEEN: u32 = 6;

    pub(super) const HELLO: u32 = 16;
    pub(super) const KEY: u32 = 17;
    pub(super) const VALUE: u32 = 18;
    pub(super) const METADATA: u32 = 19;
    pub(super) const TTL_MS: u32 = 20;
    pub(super) const ACK: u32 = 21;
    pub(super) const SHIPMENT: u32 = 22;
    pub(super) const GOSSIP: u32 = 40;
    pub(super) const VIEW: u32 = 41;
    pub(super) const FROM_SECOND: u32 = 23;
    pub(super) const TO_SECOND: u32 = 24;
    pub(super) const GRAIN: u32 = 25;
    pub(super) const PLACES: u32 = 26;
    pub(super) const HAD_MS: u32 = 27;
    pub(super) const CELLS: u32 = 28;
    pub(super) const HASHES: u32 = 29;
    pub(super) const PART: u32 = 30;
    pub(super) const COLDER_THAN: u32 = 31;
    pub(super) const SINCE_TICK: u32 = 32;
    pub(super) const LAST_PART: u32 = 33;
}

impl Request {
    const fn kind(&self) -> u64 {
        match self {
            Self::Hello(_) => kind::HELLO,
            Self::Ping => kind::PING,
            Self::Goodbye => kind::GOODBYE,
            Self::Get { .. } => kind::GET,
            Self::Put { .. } => kind::PUT,
            Self::Delete { .. } => kind::DELETE,
            Self::Replicate(_) => kind::REPLICATE,
            Self::Watch { .. } => kind::WATCH,
            Self::Gossip(_) => kind::GOSSIP,
            Self::Sums { .. } => kind::SUMS,
            Self::RowsOf(_) => kind::ROWS_OF,
            Self::VersionsOf(_) => kind::VERSIONS_OF,
            Self::Fetch(_) => kind::FETCH,
            Self::Copy { .. } => kind::COPY,
        }
    }

    fn payload_bytes(&self) -> usize {
        match self {
            Self::Put { key, value, metadata, .. } => {
                key.as_bytes().len() + value.len() + metadata.len()
            }
            Self::Replicate(shipments) => {
                shipments.iter().map(|s| s.record.payload_bytes() + 48).sum()
            }
            Self::Hello(hello) => hello.size_hint(),
            Self::Gossip(content) => content.len(),
            Self::Watch { .. } => 0,
            Self::Get { key } | Self::Delete { key, .. } => key.as_bytes().len(),
            Self::Ping | Self::Goodbye | Self::Copy { .. } => 0,
            Self::Sums { grain: Grain::Blocks, .. } => 32,
            Self::Sums { grain: Grain::Seconds(places) | Grain::Parts(places), .. } => {
                32 + 8 * places.len()
            }
            Self::RowsOf(cells) => 8 * cells.len(),
            Self::VersionsOf(keys) | Self::Fetch(keys) => 16 * keys.len(),
        }
    }

    fn write(&self, out: &mut Writer<'_>, now: Instant) {
        match self {
            Self::Hello(hello) => out.nested(tag::HELLO, |out| hello.write(out)),
            Self::Ping | Self::Goodbye => {}
            Self::Get { key } => out.bytes(tag::KEY, key.as_bytes()),
            Self::Put { key, value, metadata, ttl, ack } => {
                out.bytes(tag::KEY, key.as_bytes());
                out.shared(tag::VALUE, value);
                if !metadata.is_empty() {
                    out.bytes(tag::METADATA, metadata);
                }
                out.number(tag::TTL_MS, ttl.as_millis());
                out.number(tag::ACK, ack.to_number());
            }
            Self::Delete { key, ack } => {
                out.bytes(tag::KEY, key.as_bytes());
                out.number(tag::ACK, ack.to_number());
            }
            Self::Watch { view } => out.number(tag::VIEW, *view),
            Self::Gossip(content) => out.bytes(tag::GOSSIP, content),
            Self::Replicate(shipments) => {
                for shipment in shipments {
                    out.nested(tag::SHIPMENT, |out| shipment.write(out, now));
                }
            }
            Self::Sums { window, grain, had_ms } => {
                out.number(tag::FROM_SECOND, window.from);
                out.number(tag::TO_SECOND, window.to);
                match grain {
                    Grain::Blocks => {}
                    Grain::Seconds(blocks) => {
                        out.number(tag::GRAIN, 1);
                        write_numbers(out, tag::PLACES, blocks);
                    }
                    Grain::Parts(seconds) => {
                        out.number(tag::GRAIN, 2);
                        write_numbers(out, tag::PLACES, seconds);
                    }
                }
                if let Some(had_ms) = had_ms {
                    out.number(tag::HAD_MS, *had_ms);
                }
            }
            Self::RowsOf(cells) => write_cells(out, tag::CELLS, cells),
            Self::VersionsOf(keys) | Self::Fetch(keys) => write_hashes(out, tag::HASHES, keys),
            Self::Copy { part, last, stretch } => {
                out.number(tag::PART, u64::from(*part));
                if last != part {
                    out.number(tag::LAST_PART, u64::from(*last));
                }
                let tags = [tag::COLDER_THAN, tag::SINCE_TICK];
                write_stretch(out, tags, *stretch);
            }
        }
    }
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

fn read_part(field: &Field<'_>) -> Result<u8, DecodeError> {
    let part = u8::try_from(field.number()?).ok().filter(|part| usize::from(*part) < PARTS);
    part.ok_or(field.invalid())
}

fn write_seen(out: &mut Writer<'_>, seen: u64) {
    if seen > 0 {
        out.number(tag::SEEN, seen);
    }
}

/// The fields of any request, before its kind says which of them matter.
#[derive(Default)]
struct Body {
    hello: Option<Hello>,
    key: Option<Key>,
    value: Option<Bytes>,
    metadata: Bytes,
    ttl: Option<Ttl>,
    ack: Ack,
    shipments: Vec<Shipment>,
    gossip: Bytes,
    view: u64,
    window: Window,
    grain: u64,
    places: Vec<u64>,
    had_ms: Option<u64>,
    cells: Vec<Cell>,
    hashes: Vec<KeyHash>,
    part: Option<u8>,
    last_part: Option<u8>,
    colder_than: Option<u64>,
    since_tick: Option<u32>,
}

impl Body {
    fn take(&mut self, field: &Field<'_>, now: Instant) -> Result<(), DecodeError> {
        match field.tag {
            tag::HELLO => self.hello = Some(Hello::read(field.reader())?),
            tag::KEY => self.key = Some(read_key(field)?),
            tag::VALUE => self.value = Some(field.bounded(VALUE_BYTES_WIRE_MAX)?),
            tag::METADATA => self.metadata = field.bounded(METADATA_BYTES_MAX)?,
            tag::TTL_MS => {
                self.ttl = Some(Ttl::from_millis(field.number()?).map_err(|_| field.invalid())?);
            }
            tag::ACK => self.ack = Ack::from_field(field)?,
            tag::SHIPMENT if self.shipments.len() < SHIPMENTS_MAX => {
                self.shipments.push(Shipment::read(field.reader(), now)?);
            }
            tag::VIEW => self.view = field.number()?,
            tag::GOSSIP => self.gossip = field.bounded(CONTENT_BYTES_MAX)?,
            tag::SHIPMENT => return Err(DecodeError::TooMany(field.tag)),
            tag::FROM_SECOND => self.window.from = field.number()?,
            tag::TO_SECOND => self.window.to = field.number()?,
            tag::GRAIN => self.grain = field.number()?,
            tag::PLACES => self.places = read_numbers(field, PLACES_MAX)?,
            tag::HAD_MS => self.had_ms = Some(field.number()?),
            tag::CELLS => self.cells = read_cells(field)?,
            tag::HASHES => self.hashes = read_hashes(field)?,
            tag::PART => self.part = Some(read_part(field)?),
            tag::LAST_PART => self.last_part = Some(read_part(field)?),
            tag::COLDER_THAN => self.colder_than = Some(field.number()?),
            tag::SINCE_TICK => {
                let tick = u32::try_from(field.number()?).map_err(|_| field.invalid())?;
                self.since_tick = Some(tick);
            }
            _ => {}
        }
        Ok(())
    }

    fn into_request(self, kind: u64) -> Result<Request, DecodeError> {
        let key = self.key.ok_or(DecodeError::Missing(tag::KEY));
        Ok(match kind {
            kind::HELLO => {
                Request::Hello(Box::new(self.hello.ok_or(DecodeError::Missing(tag::HELLO))?))
            }
            kind::PING => Request::Ping,
            kind::GOODBYE => Request::Goodbye,
            kind::GET => Request::Get { key: key? },
            kind::PUT => Request::Put {
                key: key?,
                value: self.value.ok_or(DecodeError::Missing(tag::VALUE))?,
                metadata: self.metadata,
                ttl: self.ttl.ok_or(DecodeError::Missing(tag::TTL_MS))?,
                ack: self.ack,
            },
            kind::DELETE => Request::Delete { key: key?, ack: self.ack },
            kind::REPLICATE => Request::Replicate(self.shipments),
            kind::WATCH => Request::Watch { view: self.view },
            kind::GOSSIP => Request::Gossip(self.gossip),
            kind::SUMS => Request::Sums {
                window: self.window,
                grain: match self.grain {
                    0 => Grain::Blocks,
                    1 => Grain::Seconds(self.places),
                    2 => Grain::Parts(self.places),
                    _ => return Err(DecodeError::Invalid(tag::GRAIN)),
                },
                had_ms: self.had_ms,
            },
            kind::ROWS_OF => Request::RowsOf(self.cells),
            kind::VERSIONS_OF => Request::VersionsOf(self.hashes),
            kind::FETCH => Request::Fetch(self.hashes),
            kind::COPY => Request::Copy {
                part: self.part.ok_or(DecodeError::Missing(tag::PART))?,
                last: self.last_part.or(self.part).unwrap_or_default(),
                stretch: Stretch {
                    colder_than: self.colder_than.map(place_from),
                    since: self.since_tick,
                },
            },
            unknown => return Err(DecodeError::UnknownKind(unknown)),
        })
    }
}
