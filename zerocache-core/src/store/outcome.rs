//! Results of reads and writes.

use crate::{entry::Entry, version::Version};

/// The result of a read. A miss is an expected result, not an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup<T = Entry> {
    /// An unexpired value.
    Hit(T),
    /// No value that may be served.
    Miss {
        /// The highest stamp of a version that the store has of the key, or of a purge; 0 if there is none. What
        /// is read from an origin after this miss is later.
        known: u64,
    },
    /// A value that is on disk, and may be served once it has been [put back](super::Store::restore).
    OnDisk,
}

impl<T> Lookup<T> {
    /// Returns the value of a hit.
    pub fn hit(self) -> Option<T> {
        match self {
            Self::Hit(value) => Some(value),
            Self::Miss { .. } | Self::OnDisk => None,
        }
    }

    /// Returns whether there is no value that may be served.
    #[must_use]
    pub const fn is_miss(&self) -> bool {
        matches!(self, Self::Miss { .. })
    }

    /// Returns whether this is a hit.
    #[must_use]
    pub const fn is_hit(&self) -> bool {
        matches!(self, Self::Hit(_))
    }
}

/// The result of applying a record to a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApplyOutcome {
    /// The record was newer than what the store knew, and is now in force.
    Applied,
    /// The store already held this version.
    Duplicate,
    /// The store holds this newer version and keeps it.
    Superseded(Version),
    /// The record was newer than what the store knew, but a purge ended it: its version is known now, and there
    /// is no value.
    Purged,
    /// The key is unknown and the record older than the retention, so that it cannot be told from a deleted
    /// one. The store did not change.
    TooOld,
}
