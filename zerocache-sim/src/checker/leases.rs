//! Values computed under leases, and the deletes that must win over them.

use zerocache_core::version::Version;

use super::{Checker, Rule};
use crate::{clock::SECOND_US, plan::Plan, workload::WriteId};

/// A delete has reached the node of a lease so long after it was acknowledged, and what that node
/// made of it all others, in microseconds.
const REACHES_US: u64 = 2 * SECOND_US;

/// The lease under which a value was computed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Grant {
    token: Version,
    /// The times of the request and of the grant, in microseconds.
    asked_us: u64,
    granted_us: u64,
    lease_ms: u64,
    /// The time at which its value was sent.
    sent_us: Option<u64>,
}

/// A delete.
#[derive(Clone, Copy, Debug)]
pub(super) struct AcknowledgedDelete {
    id: WriteId,
    /// The time at which its client began.
    began_us: u64,
    /// The time of its acknowledgement.
    acknowledged_us: u64,
}

impl Checker {
    /// Records that a client got the lease for the value of this write.
    pub(crate) fn granted(&mut self, id: WriteId, token: Version, asked_us: u64, lease_ms: u64) {
        let grant = Grant { token, asked_us, granted_us: self.now_us, lease_ms, sent_us: None };
        if let Some(write) = self.write(id) {
            write.grant = Some(grant);
        }
    }

    /// The client begins to write it.
    pub(crate) fn sends(&mut self, id: WriteId) {
        let now_us = self.now_us;
        if let Some(grant) = self.write(id).and_then(|write| write.grant.as_mut()) {
            grant.sent_us = Some(now_us);
        }
    }

    /// A delete was acknowledged.
    pub(crate) fn deleted(&mut self, key: usize, id: WriteId) {
        let Some(began_us) = self.write(id).map(|write| write.began_us) else { return };
        let deleted = AcknowledgedDelete { id, began_us, acknowledged_us: self.now_us };
        self.deletes.entry(key).or_default().push(deleted);
    }

    /// A node holds this write: if it was computed, no delete came that must win over it.
    pub(crate) fn check_delete_wins(&mut self, plan: &Plan, host: u32, key: usize, id: WriteId) {
        let Some(grant) = self.write(id).and_then(|write| write.grant) else { return };
        let Some(sent_us) = grant.sent_us else { return };
        if !plan.is_quiet(grant.asked_us, self.now_us) {
            return;
        }
        // Clocks differ: what the node of the lease hears of in time it deletes again.
        let ends_us = sent_us.min(grant.asked_us + grant.lease_ms * 1_000);
        let lost = self.deletes.get(&key).into_iter().flatten().find(|deleted| {
            deleted.began_us > grant.granted_us
                && deleted.acknowledged_us + REACHES_US < ends_us
                && !self.is_beaten(key, deleted.id, grant.token)
        });
        if let Some(deleted) = lost {
            let text = format!("{host} holds {id} of key {key} with {grant:?} after {deleted:?}");
            self.violate(Rule::DeleteWins, text);
        }
    }

    /// Returns whether a delete has a stamp below that of another write of its key, which is below
    /// the token. By the version order the delete then comes first, and nodes that know the write
    /// do not pass it on.
    fn is_beaten(&self, key: usize, id: WriteId, token: Version) -> bool {
        let version = id.checked_sub(1).and_then(|at| self.writes.get(usize::try_from(at).ok()?));
        let Some(version) = version.and_then(|write| write.version).filter(|it| *it < token) else {
            return false;
        };
        let mut later = self.versions.range((version, usize::MAX)..(token, 0));
        later.any(|((_, other), _)| *other == key)
    }
}
