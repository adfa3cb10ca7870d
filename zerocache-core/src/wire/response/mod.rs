//! What comes back.

mod body;
mod tags;

use alloc::{boxed::Box, string::String, vec::Vec};

use bytes::{Bytes, BytesMut};

use self::{
    body::Body,
    tags::{kind, tag},
};
use super::{
    changes::{ChangeRow, write_changes},
    field::{DecodeError, Reader, Writer},
    hello::{Hello, NodeState},
    outcome::{Receipt, Refusal, RefusalCode, Sums, Written},
    repair::{Parcel, place_number, write_ages, write_line, write_numbers, write_rows},
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
    /// The caller may compute the value; nobody else is told so for the life that it asked for.
    Leased {
        /// What to write the value with.
        token: Version,
    },
    /// Another one has the leave to compute, and no value came in time.
    Busy,
    /// Which entries changed.
    Changes {
        /// What to ask with the next time.
        next: u64,
        /// Whether there were changes of which the node cannot tell.
        lost: bool,
        /// The changes, the first one first.
        rows: Vec<ChangeRow>,
    },
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

impl Response {
    /// A refusal without a time.
    #[must_use]
    pub fn refused(code: RefusalCode, text: impl Into<String>) -> Self {
        Self::Refused(Refusal { code, text: text.into(), wall_ms: 0, value_bytes_max: 0 })
    }

    /// The refusal of a value of `bytes`, of which at most `value_bytes_max` are taken.
    #[must_use]
    pub fn value_too_large(bytes: u64, value_bytes_max: u64) -> Self {
        let (code, text) = (RefusalCode::TooLarge, value_too_large(bytes, value_bytes_max));
        Self::Refused(Refusal { code, text, wall_ms: 0, value_bytes_max })
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
            Self::Leased { .. } => kind::LEASED,
            Self::Busy => kind::BUSY,
            Self::Changes { .. } => kind::CHANGES,
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
            Self::Changes { rows, .. } => 16 * rows.len(),
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
            Self::Done | Self::Busy => {}
            Self::Leased { token } => out.bytes(tag::VERSION, &token.to_bytes()),
            Self::Changes { next, lost, rows } => {
                out.number(tag::NEXT, *next);
                out.number(tag::LOST, u64::from(*lost));
                write_changes(out, tag::CHANGES, rows);
            }
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
                if refusal.value_bytes_max > 0 {
                    out.number(tag::VALUE_BYTES_MAX, refusal.value_bytes_max);
                }
            }
            Self::Sums(sums) => {
                out.number(tag::FROM_SECOND, sums.from);
                write_numbers(out, tag::SUMS, &sums.sums);
                if !sums.ages.is_empty() {
                    write_ages(out, tag::AGES, &sums.ages);
                }
                out.number(tag::LIVED_MS, sums.lived_ms);
                if let Some(line) = sums.line {
                    write_line(out, tag::LINE, line);
                }
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

/// Why a value is refused, in the words of the node that does, or of a client that knows what it takes.
#[must_use]
pub fn value_too_large(bytes: u64, value_bytes_max: u64) -> String {
    alloc::format!("the value has {bytes} bytes; at most {value_bytes_max} are allowed")
}

/// The start of `text` that fits, cut between characters.
fn truncated(text: &str) -> &str {
    let cut = text
        .char_indices()
        .map(|(at, c)| at + c.len_utf8())
        .take_while(|end| *end <= TEXT_BYTES_MAX);
    &text[..cut.last().unwrap_or(0)]
}
