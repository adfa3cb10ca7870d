//! What comes back.

use alloc::{borrow::ToOwned, boxed::Box, string::String, vec::Vec};

use bytes::{Bytes, BytesMut};

use super::{
    datagram::CONTENT_BYTES_MAX,
    field::{DecodeError, Field, Reader, Writer},
    hello::{Hello, NodeState},
    outcome::{Receipt, Refusal, RefusalCode, Status, Sums, Written},
    repair::{
        PLACES_MAX, Parcel, RECORDS_MAX, place_from, place_number, read_ages, read_numbers,
        read_rows, write_ages, write_numbers, write_rows,
    },
    request::SHIPMENTS_MAX,
};
use crate::{
    limits::{METADATA_BYTES_MAX, VALUE_BYTES_WIRE_MAX},
    store::{Place, Row},
    ttl::Ttl,
    version::{Incarnation, Version},
};

/// Longest sentence of a refusal, in bytes.
const TEXT_BYTES_MAX: usize = 1024;

/// A response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Response {
    /// Who stands here.
    Hello(Box<Hello>),
    /// The node lives.
    Pong {
        /// Which life.
        incarnation: Incarnation,
        /// How ready it is.
        state: NodeState,
        /// A number that changes with the set of nodes that it reaches.
        view: u64,
        /// Its wall clock in milliseconds since the Unix epoch; 0 if not told.
        wall_ms: u64,
    },
    /// Heard.
    Done,
    /// The value of the key.
    Found {
        /// The value.
        value: Bytes,
        /// Tagged fields stored with it.
        metadata: Bytes,
        /// Its version.
        version: Version,
        /// What remains of its life, in milliseconds.
        remaining_ms: u64,
    },
    /// The node has no value for the key.
    NotFound {
        /// Whether the node is warming or leaving, so that others may have it.
        warming: bool,
    },
    /// What became of a write.
    Written(Written),
    /// A receipt for each record of a batch, in its order.
    Replicated(Vec<Receipt>),
    /// Who exists.
    Gossip(Bytes),
    /// The sums that were asked for, in order.
    Sums(Sums),
    /// Versions by key.
    Rows {
        /// Key hashes and versions.
        rows: Vec<Row>,
        /// How many of the cells or keys that were asked for these are all of.
        covered: u64,
    },
    /// Values and traces.
    Records {
        /// What was asked for.
        parcels: Vec<Parcel>,
        /// How many of the keys that were asked for these are all of.
        covered: u64,
        /// For a copy: the place of the last one, if there are more.
        more: Option<Place>,
        /// For a copy: where the counter of the store stands.
        tick: u32,
        /// For a copy: the first second of version of which the node knows everything.
        from_second: u64,
    },
    /// Nothing was done.
    Refused(Refusal),
}

mod kind {
    pub(super) const HELLO: u64 = 1;
    pub(super) const PONG: u64 = 2;
    pub(super) const DONE: u64 = 3;
    pub(super) const FOUND: u64 = 4;
    pub(super) const NOT_FOUND: u64 = 5;
    pub(super) const WRITTEN: u64 = 6;
    pub(super) const REPLICATED: u64 = 7;
    pub(super) const REFUSED: u64 = 8;
    pub(super) const GOSSIP: u64 = 21;
    pub(super) const SUMS: u64 = 9;
    pub(super) const ROWS: u64 = 10;
    pub(super) const RECORDS: u64 = 11;
}

mod tag {
    pub(super) const HELLO: u32 = 1;
    pub(super) const INCARNATION: u32 = 2;
    pub(super) const STATE: u32 = 3;
    pub(super) const VIEW: u32 = 4;
    pub(super) const VALUE: u32 = 5;
    pub(super) const METADATA: u32 = 6;
    pub(super) const VERSION: u32 = 7;
    pub(super) const REMAINING_MS: u32 = 8;
    pub(super) const WARMING: u32 = 9;
    pub(super) const STATUS: u32 = 10;
    pub(super) const REPLICAS: u32 = 11;
    pub(super) const REPLICAS_WANTED: u32 = 12;
    pub(super) const RECEIPT: u32 = 13;
    pub(super) const CODE: u32 = 14;
    pub(super) const TEXT: u32 = 15;
    pub(super) const WALL_MS: u32 = 16;
    pub(super) const GOSSIP: u32 = 40;
    pub(super) const FROM_SECOND: u32 = 17;
    pub(super) const SUMS: u32 = 18;
    pub(super) const AGES: u32 = 19;
    pub(super) const LIVED_MS: u32 = 20;
    pub(super) const ROWS: u32 = 21;
    pub(super) const COVERED: u32 = 22;
    pub(super) const PARCEL: u32 = 23;
    pub(super) const MORE: u32 = 24;
    pub(super) const TICK: u32 = 25;
}

impl Response {
    /// A refusal without a time.
    #[must_use]
    pub fn refused(code: RefusalCode, text: impl Into<String>) -> Self {
        Self::Refused(Refusal { code, text: text.into(), wall_ms: 0 })
    }

    const fn kind(&self) -> u64 {
        match self {
            Self::Hello(_) => kind::HELLO,
            Self::Pong { .. } => kind::PONG,
            Self::Done => kind::DONE,
            Self::Found { .. } => kind::FOUND,
            Self::NotFound { .. } => kind::NOT_FOUND,
            Self::Written(_) => kind::WRITTEN,
            Self::Replicated(_) => kind::REPLICATED,
            Self::Refused(_) => kind::REFUSED,
            Self::Gossip(_) => kind::GOSSIP,
            Self::Sums(_) => kind::SUMS,
            Self::Rows { .. } => kind::ROWS,
            Self::Records { .. } => kind::RECORDS,
        }
    }

    /// The message as bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(self.size_hint());
        self.encode_to(&mut Writer::new(&mut out));
        out.freeze()
    }

    /// Appends the message.
    pub fn encode_to(&self, out: &mut Writer<'_>) {
        out.varint(self.kind());
        self.write(out);
    }

    /// About how many bytes the message takes; not much less than it does.
    #[must_use]
    pub fn size_hint(&self) -> usize {
        let payload = match self {
            Self::Found { value, metadata, .. } => value.len() + metadata.len(),
            Self::Replicated(receipts) => receipts.len() * 18,
            Self::Hello(hello) => hello.size_hint(),
            Self::Gossip(content) => content.len(),
            Self::Sums(sums) => 8 * sums.sums.len() + 24 * sums.ages.len(),
            Self::Rows { rows, .. } => 32 * rows.len(),
            Self::Records { parcels, .. } => {
                parcels.iter().map(|parcel| parcel.payload_bytes() + 48).sum()
            }
            Self::Refused(refusal) => refusal.text.len().min(TEXT_BYTES_MAX),
            _ => 0,
        };
        payload + 64
    }

    fn write(&self, out: &mut Writer<'_>) {
        match self {
            Self::Hello(hello) => out.nested(tag::HELLO, |out| hello.write(out)),
            Self::Pong { incarnation, state, view, wall_ms } => {
                out.number(tag::INCARNATION, incarnation.0);
                out.number(tag::STATE, state.to_number());
                out.number(tag::VIEW, *view);
                out.number(tag::WALL_MS, *wall_ms);
            }
            Self::Done => {}
            Self::Gossip(content) => out.bytes(tag::GOSSIP, content),
            Self::Found { value, metadata, version, remaining_ms } => {
                out.shared(tag::VALUE, value);
                if !metadata.is_empty() {
                    out.bytes(tag::METADATA, metadata);
                }
                out.bytes(tag::VERSION, &version.to_bytes());
                out.number(tag::REMAINING_MS, *remaining_ms);
            }
            Self::NotFound { warming } => out.number(tag::WARMING, u64::from(*warming)),
            Self::Written(written) => {
                out.number(tag::STATUS, written.status.to_number());
                out.number(tag::REPLICAS, u64::from(written.replicas));
                out.number(tag::REPLICAS_WANTED, u64::from(written.replicas_wanted));
                if let Some(version) = written.version {
                    out.bytes(tag::VERSION, &version.to_bytes());
                }
            }
            Self::Replicated(receipts) => {
                for receipt in receipts {
                    match receipt {
                        Receipt::Holds(version) => out.bytes(tag::RECEIPT, &version.to_bytes()),
                        Receipt::Refused => out.bytes(tag::RECEIPT, &[]),
                    }
                }
            }
            Self::Refused(refusal) => {
                out.number(tag::CODE, refusal.code.to_number());
                out.bytes(tag::TEXT, truncated(&refusal.text).as_bytes());
                out.number(tag::WALL_MS, refusal.wall_ms);
            }
            Self::Sums(sums) => {
                out.number(tag::FROM_SECOND, sums.from);
                write_numbers(out, tag::SUMS, &sums.sums);
                if !sums.ages.is_empty() {
                    write_ages(out, tag::AGES, &sums.ages);
                }
                out.number(tag::LIVED_MS, sums.lived_ms);
            }
            Self::Rows { rows, covered } => {
                write_rows(out, tag::ROWS, rows);
                out.number(tag::COVERED, *covered);
            }
            Self::Records { parcels, covered, more, tick, from_second } => {
                for parcel in parcels {
                    out.nested(tag::PARCEL, |out| parcel.write(out));
                }
                out.number(tag::COVERED, *covered);
                if let Some(place) = more {
                    out.number(tag::MORE, place_number(*place));
                }
                out.number(tag::TICK, u64::from(*tick));
                if *from_second > 0 {
                    out.number(tag::FROM_SECOND, *from_second);
                }
            }
        }
    }

    /// Appends a [`Found`](Self::Found) made of borrowed parts.
    pub fn encode_found(
        out: &mut Writer<'_>,
        value: &[u8],
        metadata: &[u8],
        version: Version,
        remaining_ms: u64,
    ) {
        out.varint(kind::FOUND);
        out.bytes(tag::VALUE, value);
        if !metadata.is_empty() {
            out.bytes(tag::METADATA, metadata);
        }
        out.bytes(tag::VERSION, &version.to_bytes());
        out.number(tag::REMAINING_MS, remaining_ms);
    }

    /// The same response for a receiver to whom it came `late_ms` milliseconds late: what remains of a
    /// life is less by that much, and a value whose life is over is none.
    #[must_use]
    pub fn aged(mut self, late_ms: u64) -> Self {
        if let Self::Found { remaining_ms, .. } = &mut self {
            *remaining_ms = remaining_ms.saturating_sub(late_ms);
            if *remaining_ms == 0 && late_ms > 0 {
                return Self::NotFound { warming: false };
            }
        }
        if let Self::Records { parcels, .. } = &mut self {
            parcels.iter_mut().for_each(|parcel| parcel.age(late_ms));
        }
        self
    }

    /// The response in `message`.
    ///
    /// # Errors
    /// [`DecodeError`] when it is none, or exceeds a limit.
    pub fn decode(message: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(&message);
        let kind = reader.varint()?;
        if kind == kind::FOUND {
            return Self::decode_found(reader);
        }
        let mut body = Body::default();
        reader.each(|field| body.take(&field))?;
        body.into_response(kind)
    }

    /// The most frequent response, without room for the fields of the others.
    fn decode_found(reader: Reader<'_>) -> Result<Self, DecodeError> {
        let (mut value, mut version) = (None, None);
        let (mut metadata, mut remaining_ms) = (Bytes::new(), 0);
        reader.each(|field| {
            match field.tag {
                tag::VALUE => value = Some(field.bounded(VALUE_BYTES_WIRE_MAX)?),
                tag::METADATA => metadata = field.bounded(METADATA_BYTES_MAX)?,
                tag::VERSION => version = Some(Version::from_bytes(field.array()?)),
                tag::REMAINING_MS => remaining_ms = field.number()?.min(Ttl::MAX.as_millis()),
                _ => {}
            }
            Ok(())
        })?;
        Ok(Self::Found {
            value: value.ok_or(DecodeError::Missing(tag::VALUE))?,
            metadata,
            version: version.ok_or(DecodeError::Missing(tag::VERSION))?,
            remaining_ms,
        })
    }
}

/// The start of `text` that fits, cut between characters.
fn truncated(text: &str) -> &str {
    let cut = text
        .char_indices()
        .map(|(at, c)| at + c.len_utf8())
        .take_while(|end| *end <= TEXT_BYTES_MAX);
    &text[..cut.last().unwrap_or(0)]
}

/// The fields of any response, before its kind says which of them matter.
#[derive(Default)]
struct Body {
    hello: Option<Hello>,
    incarnation: Option<Incarnation>,
    state: u64,
    view: u64,
    version: Option<Version>,
    warming: bool,
    status: Option<Status>,
    replicas: [u32; 2],
    receipts: Vec<Receipt>,
    code: u64,
    text: String,
    wall_ms: u64,
    gossip: Bytes,
    sums: Sums,
    rows: Vec<Row>,
    covered: u64,
    parcels: Vec<Parcel>,
    more: Option<Place>,
    tick: u32,
}

impl Body {
    fn take(&mut self, field: &Field<'_>) -> Result<(), DecodeError> {
        let count = |field: &Field| u32::try_from(field.number()?).map_err(|_| field.invalid());
        match field.tag {
            tag::HELLO => self.hello = Some(Hello::read(field.reader())?),
            tag::INCARNATION => self.incarnation = Some(Incarnation(field.number()?)),
            tag::STATE => self.state = field.number()?,
            tag::VIEW => self.view = field.number()?,
            tag::VERSION => self.version = Some(Version::from_bytes(field.array()?)),
            tag::WARMING => self.warming = field.number()? != 0,
            tag::STATUS => self.status = Some(Status::from_field(field)?),
            tag::REPLICAS => self.replicas[0] = count(field)?,
            tag::REPLICAS_WANTED => self.replicas[1] = count(field)?,
            tag::RECEIPT if self.receipts.len() >= SHIPMENTS_MAX => {
                return Err(DecodeError::TooMany(field.tag));
            }
            tag::RECEIPT if field.content.is_empty() => self.receipts.push(Receipt::Refused),
            tag::RECEIPT => {
                self.receipts.push(Receipt::Holds(Version::from_bytes(field.array()?)));
            }
            tag::CODE => self.code = field.number()?,
            tag::TEXT => self.text = field.text(TEXT_BYTES_MAX)?.to_owned(),
            tag::GOSSIP => self.gossip = field.bounded(CONTENT_BYTES_MAX)?,
            tag::WALL_MS => self.wall_ms = field.number()?,
            tag::FROM_SECOND => self.sums.from = field.number()?,
            tag::SUMS => self.sums.sums = read_numbers(field, 64 * PLACES_MAX)?,
            tag::AGES => self.sums.ages = read_ages(field)?,
            tag::LIVED_MS => self.sums.lived_ms = field.number()?,
            tag::ROWS => self.rows = read_rows(field)?,
            tag::COVERED => self.covered = field.number()?,
            tag::PARCEL if self.parcels.len() < RECORDS_MAX => {
                self.parcels.push(Parcel::read(field.reader())?);
            }
            tag::PARCEL => return Err(DecodeError::TooMany(field.tag)),
            tag::MORE => self.more = Some(place_from(field.number()?)),
            tag::TICK => {
                self.tick = u32::try_from(field.number()?).map_err(|_| field.invalid())?;
            }
            _ => {}
        }
        Ok(())
    }

    fn into_response(self, kind: u64) -> Result<Response, DecodeError> {
        Ok(match kind {
            kind::HELLO => {
                Response::Hello(Box::new(self.hello.ok_or(DecodeError::Missing(tag::HELLO))?))
            }
            kind::PONG => Response::Pong {
                incarnation: self.incarnation.ok_or(DecodeError::Missing(tag::INCARNATION))?,
                state: NodeState::from_number(self.state),
                view: self.view,
                wall_ms: self.wall_ms,
            },
            kind::DONE => Response::Done,
            kind::NOT_FOUND => Response::NotFound { warming: self.warming },
            kind::WRITTEN => Response::Written(Written {
                status: self.status.ok_or(DecodeError::Missing(tag::STATUS))?,
                replicas: self.replicas[0],
                replicas_wanted: self.replicas[1],
                version: self.version,
            }),
            kind::REPLICATED => Response::Replicated(self.receipts),
            kind::GOSSIP => Response::Gossip(self.gossip),
            kind::REFUSED => Response::Refused(Refusal {
                code: RefusalCode::from_number(self.code),
                text: self.text,
                wall_ms: self.wall_ms,
            }),
            kind::SUMS => Response::Sums(self.sums),
            kind::ROWS => Response::Rows { rows: self.rows, covered: self.covered },
            kind::RECORDS => Response::Records {
                parcels: self.parcels,
                covered: self.covered,
                more: self.more,
                tick: self.tick,
                from_second: self.sums.from,
            },
            unknown => return Err(DecodeError::UnknownKind(unknown)),
        })
    }
}
