//! Entries as they are read, and records as they are written and replicated.

use bytes::Bytes;

use crate::{key::Key, time::Instant, version::Version};

/// What a read finds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The value, possibly empty.
    pub value: Bytes,
    /// Tagged fields that nodes forward unchanged, at most
    /// [`METADATA_BYTES_MAX`](crate::limits::METADATA_BYTES_MAX) bytes.
    pub metadata: Bytes,
    /// The write that it comes from.
    pub version: Version,
    /// The moment from which it is no longer served.
    pub expires: Instant,
}

/// One write, as it is applied and passed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// What was written.
    pub key: Key,
    /// Its place in the order of writes.
    pub version: Version,
    /// What the write did.
    pub change: Change,
}

/// What a write does to its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Stores a value until it expires.
    Put {
        /// The value, possibly empty.
        value: Bytes,
        /// Tagged fields forwarded unchanged.
        metadata: Bytes,
        /// The moment from which the value is no longer served, on the holder's clock.
        expires: Instant,
    },
    /// Removes the key.
    Delete,
}

impl Record {
    /// Copies key, value and metadata into allocations of their own.
    pub fn detach(&mut self) {
        self.key = self.key.detached();
        if let Change::Put { value, metadata, .. } = &mut self.change {
            *value = Bytes::copy_from_slice(value);
            *metadata = Bytes::copy_from_slice(metadata);
        }
    }

    /// The bytes that the record carries: key, value and metadata.
    #[must_use]
    pub fn payload_bytes(&self) -> usize {
        let change = match &self.change {
            Change::Put { value, metadata, .. } => value.len() + metadata.len(),
            Change::Delete => 0,
        };
        self.key.as_bytes().len() + change
    }
}
