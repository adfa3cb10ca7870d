//! An entry of the near cache.

use bytes::Bytes;
use zerocache_core::{
    metadata::{EntryKind, Metadata},
    route::Tier,
    time::Instant,
    version::{Incarnation, Version},
};

/// What the storage takes for an entry beside what [`Held`] itself and its bytes take: the counts of
/// the `Arc`, a slot and its place in the table, half of one of a key that was let go, and what the
/// allocator adds to two allocations.
const SLOT_BYTES: u64 = 128;

/// What is to be kept of a read or a write.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fill<'a> {
    /// The value, unpacked.
    pub(crate) value: &'a [u8],
    /// The version.
    pub(crate) version: Version,
    /// What was left of the entry's life when the read or write began, in milliseconds.
    pub(crate) remaining_ms: u64,
    /// What its writer says of it.
    pub(crate) metadata: &'a Metadata,
    /// The node that gave or took it.
    pub(crate) node: Incarnation,
    /// Where that stands.
    pub(crate) tier: Tier,
}

/// An entry with what decides whether it may be served, which comes first: one line of memory with what
/// counts its users.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Held {
    pub(super) epoch: u64,
    /// When the read or write that brought it began.
    since: Instant,
    /// The end of its fresh time, or of what of it lies before the refresh-ahead part.
    near_until: Instant,
    /// Key and value, in one allocation.
    bytes: Box<[u8]>,
    key_len: usize,
    pub(crate) version: Version,
    ends: Instant,
    metadata: Bytes,
    pub(crate) node: Incarnation,
    pub(crate) tier: Tier,
}

impl Held {
    /// None for what is not served near: an error, and what is past its fresh time or in the part of it
    /// in which some callers compute anew, which is decided by those who look further.
    pub(super) fn new(epoch: u64, since: Instant, key: &[u8], fill: &Fill<'_>) -> Option<Self> {
        let Fill { value, version, remaining_ms, metadata, node, tier } = *fill;
        let fresh_ms = metadata.fresh_ms(remaining_ms);
        let near_ms = fresh_ms.saturating_sub(metadata.refresh_ahead_ms);
        if near_ms == 0 || metadata.kind != EntryKind::Value {
            return None;
        }
        let bytes = [key, value].concat().into_boxed_slice();
        let near_until = since.plus_ms(near_ms);
        let ends = since.plus_ms(remaining_ms);
        let (key_len, metadata) = (key.len(), metadata.encode());
        Some(Self { bytes, key_len, epoch, version, since, near_until, ends, metadata, node, tier })
    }

    #[inline]
    pub(crate) fn key(&self) -> &[u8] {
        &self.bytes[..self.key_len]
    }

    #[inline]
    pub(crate) fn value(&self) -> &[u8] {
        &self.bytes[self.key_len..]
    }

    /// What its writer says of it, as it is stored.
    pub(crate) fn metadata(&self) -> &Bytes {
        &self.metadata
    }

    /// What is left of its life, in milliseconds.
    pub(crate) fn remaining_ms(&self, now: Instant) -> u64 {
        self.ends.since_ms(now)
    }

    /// Whether it may be served at `now` to somebody who takes nothing that is `age_max_ms` old.
    #[inline]
    pub(super) fn is_near(&self, now: Instant, age_max_ms: u64) -> bool {
        now < self.near_until && now.since_ms(self.since) < age_max_ms
    }

    /// The bytes that it takes with all that belongs to it.
    pub(super) fn weight(&self) -> u64 {
        // Lengths in memory fit into 64 bits.
        (size_of::<Self>() + self.bytes.len() + self.metadata.len()) as u64 + SLOT_BYTES
    }
}
