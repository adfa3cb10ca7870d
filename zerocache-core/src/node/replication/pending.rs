//! Writes that wait for the acknowledgements of their replicas.

use alloc::{collections::BTreeMap, vec::Vec};

use super::super::RequestId;
use crate::{
    key::KeyHash,
    time::Instant,
    version::Version,
    wire::{Response, Status, Written},
};

/// The most writes that wait for replicas at once.
pub(in crate::node) const PENDING_MAX: usize = 65_536;

/// A write that waits for replicas.
#[derive(Debug)]
pub(in crate::node) struct PendingWrite {
    pub(in crate::node) key: KeyHash,
    pub(in crate::node) version: Version,
    pub(in crate::node) deadline: Instant,
    /// Replicas that have the write, this node included.
    pub(in crate::node) replicas: u32,
    pub(in crate::node) replicas_wanted: u32,
    /// Replicas that have neither acknowledged nor failed.
    pub(in crate::node) outstanding: u32,
}

impl PendingWrite {
    /// The response; `held` is the version that this node holds now.
    pub(in crate::node) fn response(&self, held: Option<Version>) -> Response {
        let is_superseded = held.is_some_and(|held| held > self.version);
        Response::Written(Written {
            status: if is_superseded { Status::Superseded } else { Status::Stored },
            replicas: self.replicas,
            replicas_wanted: self.replicas_wanted,
            version: Some(self.version),
        })
    }
}

/// All writes that wait.
#[derive(Debug, Default)]
pub(in crate::node) struct PendingWrites {
    writes: BTreeMap<RequestId, PendingWrite>,
}

impl PendingWrites {
    /// Adds a write.
    pub(super) fn insert(&mut self, id: RequestId, write: PendingWrite) {
        self.writes.insert(id, write);
    }

    /// Whether no further write may wait.
    pub(super) fn is_full(&self) -> bool {
        self.writes.len() >= PENDING_MAX
    }

    /// Gives the writes that wait the versions that their entries have got.
    pub(super) fn restamp(&mut self, is_wrong: impl Fn(Version) -> bool, by_ms: i64) {
        for write in self.writes.values_mut().filter(|write| is_wrong(write.version)) {
            write.version = write.version.restamped(by_ms);
        }
    }

    /// Notes that one replica has the write, or never will. Returns the response once no replica is
    /// outstanding.
    pub(super) fn complete_one(
        &mut self,
        id: RequestId,
        has_write: bool,
        held: impl FnOnce(KeyHash) -> Option<Version>,
    ) -> Option<Response> {
        let write = self.writes.get_mut(&id)?;
        // Owners that became some while the write was on its way are not waited for.
        write.replicas = (write.replicas + u32::from(has_write)).min(write.replicas_wanted);
        write.outstanding -= 1;
        if write.outstanding > 0 {
            return None;
        }
        let write = self.writes.remove(&id)?;
        Some(write.response(held(write.key)))
    }

    /// Takes the writes whose deadline has passed, with their responses.
    pub(super) fn take_overdue(
        &mut self,
        now: Instant,
        held: impl Fn(KeyHash) -> Option<Version>,
    ) -> Vec<(RequestId, Response)> {
        let mut overdue = Vec::new();
        self.writes.retain(|id, write| {
            let waits = write.deadline > now;
            if !waits {
                overdue.push((*id, write.response(held(write.key))));
            }
            waits
        });
        overdue
    }

    /// The earliest deadline.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.writes.values().map(|write| write.deadline).min()
    }
}
