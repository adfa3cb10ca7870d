//! Responses: the answer of a node to a [`Request`](super::Request).

mod body;
mod tags;

use alloc::{boxed::Box, string::String, vec::Vec};

use bytes::{Bytes, BytesMut};

use self::{
    body::Body,
    tags::{kind, tag},
};
use super::{
    changes::{CHANGE_ROW_BYTES, ChangeRow, KeyChange, write_changes, write_rows},
    field::{DecodeError, Reader, Writer},
    hello::{Hello, NodeState},
    locate::{COPY_BYTES, NODES_MAX},
    outcome::{Receipt, Refusal, RefusalCode, Written},
    repair::{
        Digests, FetchedItem, KEY_VERSION_BYTES, cursor_number, write_lineage, write_numbers,
        write_sync_ages, write_versions,
    },
};
use crate::{
    condition::TakenItem,
    limits::{METADATA_BYTES_MAX, VALUE_BYTES_WIRE_MAX},
    locate::NodeCopies,
    store::{CopyCursor, KeyVersion},
    ttl::Ttl,
    version::{Incarnation, Version},
};

/// The longest text of a refusal, in bytes.
const TEXT_BYTES_MAX: usize = 1024;

/// A response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Response {
    /// The handshake of the node at this address.
    Hello(Box<Hello>),
    /// The node is alive.
    Pong {
        /// The incarnation of the node.
        incarnation: Incarnation,
        /// The readiness of the node.
        state: NodeState,
        /// A number that changes with the set of nodes that this node reaches.
        view: u64,
        /// The node's wall clock in milliseconds since the Unix epoch; 0 if not stated.
        wall_ms: u64,
    },
    /// The request was received and needs no other answer.
    Done,
    /// The value of the key.
    Found {
        /// The value.
        value: Bytes,
        /// Tagged fields stored with the value.
        metadata: Bytes,
        /// The version of the value.
        version: Version,
        /// The remaining lifetime of the entry, in milliseconds.
        remaining_ms: u64,
    },
    /// The node has no value for the key.
    NotFound {
        /// The miss is not authoritative: the node is warming or leaving, and others may have a value.
        warming: bool,
        /// The stamp of the newest version of the key that the node knows, if that is recent; 0 otherwise.
        known: u64,
    },
    /// The outcome of a write.
    Written(Written),
    /// The condition of a write did not hold: nothing was written.
    NotMet {
        /// The version of the value that the node holds, if it holds one.
        current: Option<Version>,
    },
    /// A write may have been made: the node to which it was passed on has not answered.
    Unconfirmed,
    /// The value that the node deleted.
    Taken(Box<TakenItem>),
    /// One receipt per record of a batch, in the order of the batch.
    Replicated(Vec<Receipt>),
    /// The caller holds the lease: no other caller is granted it for the requested duration.
    LeaseGranted {
        /// The version to write the computed value with.
        token: Version,
    },
    /// Another caller holds the lease, and no value was written in time.
    LeaseHeld,
    /// The changes since the position in the request.
    Changes {
        /// The position for the next request.
        next: u64,
        /// Changes were lost: the node no longer has all of those since the requested position.
        lost: bool,
        /// The changes, oldest first.
        changes: Vec<KeyChange>,
        /// The purges: identities of targets, and the stamps up to which their entries ended.
        purges: Vec<KeyChange>,
    },
    /// The changes since the position in the request, for those who listen.
    ChangeRows {
        /// The position for the next request.
        next: u64,
        /// Changes were lost, as in [`Changes`](Self::Changes).
        lost: bool,
        /// The changes, oldest first.
        rows: Vec<ChangeRow>,
    },
    /// What nodes hold of the keys, sorted by region and address.
    Located(Vec<NodeCopies>),
    /// Gossip about members.
    Gossip(Bytes),
    /// The requested digests, in order.
    Digests(Digests),
    /// Versions by key.
    Versions {
        /// Key hashes and versions.
        versions: Vec<KeyVersion>,
        /// How many of the requested buckets or keys, from the first on, are answered completely.
        covered: u64,
    },
    /// Values and tombstones.
    Items {
        /// The requested items.
        items: Vec<FetchedItem>,
        /// How many of the requested keys or shards, from the first on, are answered completely.
        covered: u64,
        /// For a copy: the cursor of the last item, if there are more.
        more: Option<CopyCursor>,
        /// For a copy: the current tick of the store.
        tick: u32,
        /// For a copy: the first second of versions about which the node knows everything.
        from_second: u64,
    },
    /// The node refused the request and did nothing.
    Refused(Refusal),
}

impl Response {
    /// Creates a refusal without a wall clock reading.
    #[must_use]
    pub fn refused(code: RefusalCode, text: impl Into<String>) -> Self {
        Self::Refused(Refusal { code, text: text.into(), wall_ms: 0, value_bytes_max: 0 })
    }

    /// Creates the refusal of a value of `bytes` by a node that accepts at most `value_bytes_max`.
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
            Self::NotMet { .. } => kind::NOT_MET,
            Self::Taken(_) => kind::TAKEN,
            Self::Replicated(_) => kind::REPLICATED,
            Self::Refused(_) => kind::REFUSED,
            Self::Gossip(_) => kind::GOSSIP,
            Self::LeaseGranted { .. } => kind::LEASE_GRANTED,
            Self::LeaseHeld => kind::LEASE_HELD,
            Self::Unconfirmed => kind::UNCONFIRMED,
            Self::Changes { .. } => kind::CHANGES,
            Self::ChangeRows { .. } => kind::CHANGE_ROWS,
            Self::Located(_) => kind::LOCATED,
            Self::Digests(_) => kind::DIGESTS,
            Self::Versions { .. } => kind::VERSIONS,
            Self::Items { .. } => kind::ITEMS,
        }
    }

    /// Encodes the message.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(self.size_hint());
        self.encode_to(&mut Writer::new(&mut out));
        out.freeze()
    }

    /// Appends the encoded message to `out`.
    pub fn encode_to(&self, out: &mut Writer<'_>) {
        out.varint(self.kind());
        self.write(out);
    }

    /// Estimates the encoded size in bytes. The estimate is never much too small.
    #[must_use]
    pub fn size_hint(&self) -> usize {
        let payload = match self {
            Self::Found { value, metadata, .. } => value.len() + metadata.len(),
            Self::Taken(item) => item.value.len() + item.metadata.len(),
            Self::Replicated(receipts) => receipts.len() * 18,
            Self::Hello(hello) => hello.size_hint(),
            Self::Gossip(content) => content.len(),
            Self::Changes { changes, purges, .. } => 16 * (changes.len() + purges.len()),
            Self::ChangeRows { rows, .. } => CHANGE_ROW_BYTES * rows.len(),
            Self::Digests(digests) => 8 * digests.digests.len() + 24 * digests.sync_ages.len(),
            Self::Versions { versions, .. } => KEY_VERSION_BYTES * versions.len(),
            Self::Items { items, .. } => items.iter().map(|item| item.payload_bytes() + 48).sum(),
            Self::Located(nodes) => {
                nodes.iter().map(|node| 128 + COPY_BYTES * node.copies.len()).sum()
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
            Self::Done | Self::LeaseHeld | Self::Unconfirmed => {}
            Self::LeaseGranted { token } => out.bytes(tag::VERSION, &token.to_bytes()),
            Self::Changes { next, lost, changes, purges } => {
                out.number(tag::NEXT, *next);
                out.number(tag::LOST, u64::from(*lost));
                write_changes(out, tag::CHANGES, changes);
                write_purges(out, purges);
            }
            Self::ChangeRows { next, lost, rows } => write_change_rows(out, (*next, *lost), rows),
            Self::Located(nodes) => write_located(out, nodes),
            Self::Gossip(content) => out.bytes(tag::GOSSIP, content),
            Self::Found { value, metadata, version, remaining_ms } => {
                out.shared(tag::VALUE, value);
                if !metadata.is_empty() {
                    out.bytes(tag::METADATA, metadata);
                }
                out.bytes(tag::VERSION, &version.to_bytes());
                out.number(tag::REMAINING_MS, *remaining_ms);
            }
            Self::NotFound { warming, known } => {
                out.number(tag::WARMING, u64::from(*warming));
                if *known > 0 {
                    out.number(tag::KNOWN, *known);
                }
            }
            Self::Written(written) => {
                out.number(tag::STATUS, written.status.to_number());
                out.number(tag::REPLICAS, u64::from(written.replicas));
                out.number(tag::REPLICAS_WANTED, u64::from(written.replicas_wanted));
                write_version(out, written.version);
            }
            Self::NotMet { current } => write_version(out, *current),
            Self::Taken(item) => write_taken(out, item),
            Self::Replicated(receipts) => write_receipts(out, receipts),
            Self::Refused(refusal) => {
                out.number(tag::CODE, refusal.code.to_number());
                out.bytes(tag::TEXT, truncated(&refusal.text).as_bytes());
                out.number(tag::WALL_MS, refusal.wall_ms);
                if refusal.value_bytes_max > 0 {
                    out.number(tag::VALUE_BYTES_MAX, refusal.value_bytes_max);
                }
            }
            Self::Digests(digests) => write_digests(out, digests),
            Self::Versions { versions, covered } => {
                write_versions(out, tag::VERSIONS, versions);
                out.number(tag::COVERED, *covered);
            }
            Self::Items { items, covered, more, tick, from_second } => {
                items.iter().for_each(|item| out.nested(tag::ITEM, |out| item.write(out)));
                out.number(tag::COVERED, *covered);
                if let Some(place) = more {
                    out.number(tag::MORE, cursor_number(*place));
                }
                out.number(tag::TICK, u64::from(*tick));
                if *from_second > 0 {
                    out.number(tag::FROM_SECOND, *from_second);
                }
            }
        }
    }

    /// Appends a [`Found`](Self::Found) made of borrowed values.
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

    /// Subtracts the delay of the message from the lifetimes in it. A value whose lifetime is over
    /// becomes [`NotFound`](Self::NotFound).
    #[must_use]
    pub fn delayed_by(mut self, delay_ms: u64) -> Self {
        if let Self::Found { remaining_ms, version, .. } = &mut self {
            *remaining_ms = remaining_ms.saturating_sub(delay_ms);
            if *remaining_ms == 0 && delay_ms > 0 {
                return Self::NotFound { warming: false, known: version.stamp() };
            }
        }
        if let Self::Taken(item) = &mut self {
            item.remaining_ms = item.remaining_ms.saturating_sub(delay_ms);
        }
        if let Self::Items { items, .. } = &mut self {
            items.iter_mut().for_each(|item| item.shorten_by(delay_ms));
        }
        self
    }

    /// Decodes a response.
    ///
    /// # Errors
    /// [`DecodeError`] if `message` is not a response or exceeds a limit.
    pub fn decode(message: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(&message);
        let kind = reader.varint()?;
        if kind == kind::FOUND {
            return Self::decode_found(reader);
        }
        let mut body = Body::default();
        reader.each(|field| body.set(&field))?;
        body.into_response(kind)
    }

    /// Decodes the most frequent response without space for the fields of the others.
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

fn write_version(out: &mut Writer<'_>, version: Option<Version>) {
    if let Some(version) = version {
        out.bytes(tag::VERSION, &version.to_bytes());
    }
}

fn write_taken(out: &mut Writer<'_>, item: &TakenItem) {
    let TakenItem { value, metadata, version, remaining_ms, deleted } = item;
    out.shared(tag::VALUE, value);
    if !metadata.is_empty() {
        out.bytes(tag::METADATA, metadata);
    }
    out.bytes(tag::VERSION, &version.to_bytes());
    out.number(tag::REMAINING_MS, *remaining_ms);
    out.bytes(tag::DELETED, &deleted.to_bytes());
}

fn write_digests(out: &mut Writer<'_>, digests: &Digests) {
    out.number(tag::FROM_SECOND, digests.from_second);
    write_numbers(out, tag::DIGESTS, &digests.digests);
    if !digests.sync_ages.is_empty() {
        write_sync_ages(out, tag::SYNC_AGES, &digests.sync_ages);
    }
    out.number(tag::LIVED_MS, digests.lived_ms);
    if let Some(lineage) = digests.lineage {
        write_lineage(out, tag::LINEAGE, lineage);
    }
    if digests.placed != 0 {
        out.number(tag::PLACED, digests.placed);
    }
}

/// The text of the refusal of a value that is too large, for nodes and for clients that know the limit.
#[must_use]
pub fn value_too_large(bytes: u64, value_bytes_max: u64) -> String {
    alloc::format!("the value has {bytes} bytes; at most {value_bytes_max} are allowed")
}

/// The longest prefix of `text` within [`TEXT_BYTES_MAX`], cut between characters.
fn truncated(text: &str) -> &str {
    let cut = text
        .char_indices()
        .map(|(at, c)| at + c.len_utf8())
        .take_while(|end| *end <= TEXT_BYTES_MAX);
    &text[..cut.last().unwrap_or(0)]
}

fn write_receipts(out: &mut Writer<'_>, receipts: &[Receipt]) {
    for receipt in receipts {
        match receipt {
            Receipt::Holds(version) => out.bytes(tag::RECEIPT, &version.to_bytes()),
            Receipt::Refused => out.bytes(tag::RECEIPT, &[]),
        }
    }
}

fn write_located(out: &mut Writer<'_>, nodes: &[NodeCopies]) {
    for node in nodes.iter().take(NODES_MAX) {
        out.nested(tag::NODE_COPIES, |out| node.write(out));
    }
}

fn write_change_rows(out: &mut Writer<'_>, (next, lost): (u64, bool), rows: &[ChangeRow]) {
    out.number(tag::NEXT, next);
    out.number(tag::LOST, u64::from(lost));
    write_rows(out, tag::CHANGE_ROWS, rows);
}

fn write_purges(out: &mut Writer<'_>, purges: &[KeyChange]) {
    if !purges.is_empty() {
        write_changes(out, tag::PURGES, purges);
    }
}
