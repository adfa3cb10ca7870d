//! An entry of the near cache.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use bytes::Bytes;
use zerocache_core::{
    client::{NearItem, NearTimes},
    metadata::Metadata,
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
    pub(super) times: NearTimes,
    /// Key and value, in one allocation.
    bytes: Box<[u8]>,
    key_len: usize,
    pub(crate) version: Version,
    expiry: Instant,
    metadata: Bytes,
    pub(crate) node: Incarnation,
    pub(crate) tier: Tier,
    /// It was asked for while no node answered.
    is_wanted: AtomicBool,
}

impl NearEntry {
    pub(super) fn new(times: NearTimes, key: &[u8], fill: &Fill<'_>) -> Self {
        let Fill { value, version, remaining_ms, metadata, node, tier } = *fill;
        let (bytes, key_len) = ([key, value].concat().into_boxed_slice(), key.len());
        let (expiry, metadata) = (times.started().plus_ms(remaining_ms), metadata.encode());
        let is_wanted = AtomicBool::new(false);
        Self { times, bytes, key_len, version, expiry, metadata, node, tier, is_wanted }
    }

    /// Notes that it is asked for while no node answers.
    pub(super) fn want(&self) {
        if !self.is_wanted() {
            self.is_wanted.store(true, Relaxed);
        }
    }

    pub(super) fn is_wanted(&self) -> bool {
        self.is_wanted.load(Relaxed)
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

    /// Returns the weight in bytes, including all overhead.
    pub(super) fn weight(&self) -> u64 {
        // Lengths in memory fit into 64 bits.
        (size_of::<Self>() + self.bytes.len() + self.metadata.len()) as u64 + SLOT_BYTES
    }
}

impl NearItem for NearEntry {
    fn key(&self) -> &[u8] {
        NearEntry::key(self)
    }

    fn version(&self) -> Version {
        self.version
    }

    fn metadata(&self) -> &[u8] {
        &self.metadata
    }

    fn times(&self) -> &NearTimes {
        &self.times
    }

    fn is_fresh(&self, at: Instant) -> bool {
        at < self.times.until()
            || Metadata::decode(&self.metadata)
                .is_ok_and(|metadata| metadata.fresh_ms(self.remaining_ms(at)) > 0)
    }
}
