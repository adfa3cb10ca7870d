//! Conditional writes: a node makes them only if what it holds of the key at that moment allows it.
//!
//! The condition is judged by one node, under its lock and by its own store. Two nodes can both find it met; then
//! the higher version wins, as between any two writes (contract, section 3).

use bytes::Bytes;

use crate::{
    entry::Entry,
    key::Key,
    metadata::{Freshness, Metadata},
    time::Now,
    ttl::Ttl,
    version::Version,
    wire::Ack,
};

/// What must hold of a key so that a write is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Condition {
    /// There is no fresh value: a plain read is a miss.
    Absent,
    /// There is a fresh value: a plain read finds it.
    Present,
    /// There is a value of this version. It may be past its fresh time, but not past its lifetime.
    Version(Version),
}

/// The change that a conditional write makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConditionalOp {
    /// Stores a value.
    Put {
        /// The value.
        value: Bytes,
        /// Tagged fields, forwarded unchanged.
        metadata: Bytes,
        /// How long the entry lives.
        ttl: Ttl,
    },
    /// Deletes the value.
    Delete,
    /// Stores the held value again: a new version, and a new fresh time. Its stale times and all that its
    /// metadata says stay.
    Touch {
        /// The new fresh time.
        ttl: Ttl,
    },
    /// Deletes the value, and returns it.
    Take,
    /// Stores the held value again with a new idle time, directly above its version, so that no other change loses
    /// against it. Only a fresh value with an idle time, and with the condition of its version.
    Use,
}

/// A write that a node makes if a condition holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConditionalWrite {
    /// The key.
    pub key: Key,
    /// The condition.
    pub condition: Condition,
    /// The change.
    pub op: ConditionalOp,
    /// The replicas that must have the write before its response. [`Take`](ConditionalOp::Take) waits for none.
    pub ack: Ack,
}

/// The value that a [`Take`](ConditionalOp::Take) deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TakenItem {
    /// The value.
    pub value: Bytes,
    /// Tagged fields stored with the value.
    pub metadata: Bytes,
    /// The version of the value.
    pub version: Version,
    /// The lifetime that the entry still had, in milliseconds.
    pub remaining_ms: u64,
    /// The version of the delete.
    pub deleted: Version,
}

impl Condition {
    /// Returns whether the condition holds for the entry that a node holds at `now`.
    pub(crate) fn is_met(self, held: Option<&Entry>, now: Now) -> bool {
        match self {
            Self::Absent => !held.is_some_and(|entry| is_fresh(entry, now)),
            Self::Present => held.is_some_and(|entry| is_fresh(entry, now)),
            Self::Version(version) => held.is_some_and(|entry| entry.version == version),
        }
    }
}

/// Whether a plain read finds the entry. Readers cannot use one whose metadata cannot be read.
fn is_fresh(entry: &Entry, now: Now) -> bool {
    let remaining_ms = entry.expires.since_ms(now.mono);
    entry.metadata.is_empty()
        || Metadata::decode(&entry.metadata)
            .is_ok_and(|metadata| metadata.freshness(remaining_ms) == Freshness::Fresh)
}
