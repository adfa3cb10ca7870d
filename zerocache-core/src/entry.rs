//! Entries, which are read, and records, which are written and replicated.

use bytes::Bytes;

use crate::{key::Key, time::Instant, version::Version};

/// An entry as a read returns it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The value, possibly empty.
    pub value: Bytes,
    /// Tagged fields that nodes forward unchanged, at most
    /// [`METADATA_BYTES_MAX`](crate::limits::METADATA_BYTES_MAX) bytes.
    pub metadata: Bytes,
    /// The version of the write.
    pub version: Version,
    /// The time from which the entry is no longer served.
    pub expires: Instant,
}

/// One write, as it is applied and replicated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The key.
    pub key: Key,
    /// The position in the order of writes.
    pub version: Version,
    /// The effect of the write.
    pub change: Change,
}

/// The effect of a write on its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Stores a value until it expires.
    Put {
        /// The value, possibly empty.
        value: Bytes,
        /// Tagged fields that nodes forward unchanged.
        metadata: Bytes,
        /// The time from which the value is no longer served, on the clock of the holding node.
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

    /// Returns the payload in bytes: key, value and metadata.
    #[must_use]
    pub fn payload_bytes(&self) -> usize {
        let change = match &self.change {
            Change::Put { value, metadata, .. } => value.len() + metadata.len(),
            Change::Delete => 0,
        };
        self.key.as_bytes().len() + change
    }
}
