//! An entry of the near cache.

use bytes::Bytes;
use zerocache_core::{
    metadata::{EntryKind, Metadata},
    route::Tier,
    time::Instant,
    version::{Incarnation, Version},
};

/// The overhead of an entry in the storage, in addition to [`NearEntry`] and its bytes: the counters of the
/// `Arc`, a slot and its place in the table, half a slot of an evicted key, and the allocator's overhead of two
/// allocations.
const SLOT_BYTES: u64 = 128;

/// The result of a read or a write.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fill<'a> {
    /// The value, decompressed.
    pub(crate) value: &'a [u8],
    /// The version.
    pub(crate) version: Version,
    /// The remaining life of the entry when the read or write began, in milliseconds.
    pub(crate) remaining_ms: u64,
    /// The writer's metadata.
    pub(crate) metadata: &'a Metadata,
    /// The node that returned or accepted it.
    pub(crate) node: Incarnation,
    /// The tier of the node.
    pub(crate) tier: Tier,
}

/// An entry. The fields that decide if it may be served come first, in one cache line with the counters of the
/// `Arc`.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct NearEntry {
    pub(super) epoch: u64,
    /// The begin of the read or write.
    started: Instant,
    /// The end of the fresh time without the refresh-ahead time.
    near_until: Instant,
    /// Key and value, in one allocation.
    bytes: Box<[u8]>,
    key_len: usize,
    pub(crate) version: Version,
    expiry: Instant,
    metadata: Bytes,
    pub(crate) node: Incarnation,
    pub(crate) tier: Tier,
}

impl NearEntry {
    /// Returns `None` for a result that the near cache does not serve: an error, or a value past its fresh time
    /// or within its refresh-ahead time, in which a call decides if it refreshes.
    pub(super) fn new(epoch: u64, started: Instant, key: &[u8], fill: &Fill<'_>) -> Option<Self> {
        let Fill { value, version, remaining_ms, metadata, node, tier } = *fill;
        let fresh_ms = metadata.fresh_ms(remaining_ms);
        let near_ms = fresh_ms.saturating_sub(metadata.refresh_ahead_ms);
        if near_ms == 0 || metadata.kind != EntryKind::Value {
            return None;
        }
        let bytes = [key, value].concat().into_boxed_slice();
        let near_until = started.plus_ms(near_ms);
        let expiry = started.plus_ms(remaining_ms);
        let (key_len, metadata) = (key.len(), metadata.encode());
        Some(Self {
            bytes,
            key_len,
            epoch,
            version,
            started,
            near_until,
            expiry,
            metadata,
            node,
            tier,
        })
    }

    #[inline]
    pub(crate) fn key(&self) -> &[u8] {
        &self.bytes[..self.key_len]
    }

    #[inline]
    pub(crate) fn value(&self) -> &[u8] {
        &self.bytes[self.key_len..]
    }

    /// Returns the writer's metadata, as they are stored.
    pub(crate) fn metadata(&self) -> &Bytes {
        &self.metadata
    }

    /// Returns the remaining life, in milliseconds.
    pub(crate) fn remaining_ms(&self, now: Instant) -> u64 {
        self.expiry.since_ms(now)
    }

    /// Returns true if the entry may be served at `now` and is less than `age_max_ms` old.
    #[inline]
    pub(super) fn is_near(&self, now: Instant, age_max_ms: u64) -> bool {
        now < self.near_until && now.since_ms(self.started) < age_max_ms
    }

    /// Returns the weight in bytes, including all overhead.
    pub(super) fn weight(&self) -> u64 {
        // Lengths in memory fit into 64 bits.
        (size_of::<Self>() + self.bytes.len() + self.metadata.len()) as u64 + SLOT_BYTES
    }
}
