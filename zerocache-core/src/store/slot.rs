//! One stored entry in one allocation.

use alloc::vec::Vec;

use bytes::Bytes;

use crate::{entry::Entry, time::Instant, version::Version};

/// Bytes charged for an entry beyond its own: node, table slot, order of expiry, allocator.
///
/// A release build on 64-bit Linux took 202 of them with 100,000 entries and 216 with a million (keys
/// of 32 bytes, values of 100, lifetimes spread over an hour, half of the entries read).
pub const ENTRY_OVERHEAD_BYTES: u64 = 216;

/// A stored entry: key, metadata and value stand in one exact allocation, so that nothing larger
/// (a read buffer, say) is kept alive by it.
#[derive(Debug)]
pub struct Slot {
    data: Bytes,
    key_bytes: u32,
    metadata_bytes: u32,
    /// The write that it comes from.
    pub version: Version,
    /// The moment from which it is no longer served.
    pub expires: Instant,
    /// When it was last used: the store's use counter, not a clock.
    pub used: u64,
}

impl Slot {
    /// Copies an entry into its own allocation.
    #[must_use]
    pub fn new(
        key: &[u8],
        metadata: &[u8],
        value: &[u8],
        version: Version,
        expires: Instant,
    ) -> Self {
        let mut data = Vec::with_capacity(key.len() + metadata.len() + value.len());
        data.extend_from_slice(key);
        data.extend_from_slice(metadata);
        data.extend_from_slice(value);
        Self {
            data: Bytes::from(data),
            key_bytes: key.len() as u32,
            metadata_bytes: metadata.len() as u32,
            version,
            expires,
            used: 0,
        }
    }

    /// Bytes charged for an entry with this much of its own.
    #[must_use]
    pub const fn weight_of(payload_bytes: usize) -> u64 {
        payload_bytes as u64 + ENTRY_OVERHEAD_BYTES
    }

    /// Bytes charged for this entry.
    #[must_use]
    pub fn weight(&self) -> u64 {
        Self::weight_of(self.data.len())
    }

    /// The whole key.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        &self.data[..self.key_bytes as usize]
    }

    /// What a reader gets; the value is a view, not a copy.
    #[must_use]
    pub fn entry(&self) -> Entry {
        let metadata = self.key_bytes as usize;
        let value = metadata + self.metadata_bytes as usize;
        Entry {
            value: self.data.slice(value..),
            metadata: self.data.slice(metadata..value),
            version: self.version,
            expires: self.expires,
        }
    }

    /// Whether it may no longer be served at `now`.
    #[must_use]
    pub fn is_expired(&self, now: Instant) -> bool {
        self.expires <= now
    }
}
