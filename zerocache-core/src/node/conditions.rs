//! Judges the conditions of writes: by what the node holds of the key at the moment of the write.
//!
//! A write is judged, stamped and stored under the node's lock, so that nothing comes between. Only a node whose
//! misses are authoritative judges: another one could take for absent, or for current, what its peers have replaced.

use alloc::{boxed::Box, vec::Vec};

use super::{Effect, Node, RequestId, Write, WriteOp};
use crate::{
    clock::AHEAD_MS_MAX,
    condition::{Condition, TakenItem},
    entry::Entry,
    key::Key,
    metadata::Metadata,
    store::{Backend, Lookup},
    time::Now,
    ttl::Ttl,
    version::{Version, VersionSource},
    wire::{Ack, RefusalCode, Response, Status, Written},
};

/// A version that is younger than this may be on its way to this node, in milliseconds. Nodes agree within 10 s
/// (contract, section 3), and their clocks differ by a second; the rest is a reserve.
const ON_ITS_WAY_MS: u64 = 15_000;

impl<B: Backend> Node<B> {
    /// Carries out a write if its condition holds. Apart from other writes, which are more frequent.
    #[cold]
    #[inline(never)]
    pub(super) fn write_if(
        &mut self,
        now: Now,
        id: RequestId,
        mut write: Write,
        out: &mut Vec<Effect>,
    ) {
        let condition = write.condition.as_deref().copied().unwrap_or(Condition::Present);
        let judged = self.check(&write).and_then(|()| self.judge(now, condition, &mut write));
        let taken = match judged {
            Ok(taken) => taken,
            Err(response) => return out.push(Effect::Respond { id, response }),
        };
        let first = out.len();
        self.write_plain(now, id, write, out);
        let Some(taken) = taken else { return };
        // It waits for no replica: it is answered.
        for effect in &mut out[first..] {
            if let Effect::Respond { id: of, response } = effect
                && *of == id
                && let Response::Written(Written { status: Status::Stored, version, .. }) = response
                && let Some(deleted) = *version
            {
                *response = taken_response(now, taken, deleted);
                return;
            }
        }
    }

    /// Judges the condition of a write. Returns the entry that the write takes, if it takes one, or the response if
    /// the write is not made. What is made has become a plain put or delete.
    fn judge(
        &self,
        now: Now,
        condition: Condition,
        write: &mut Write,
    ) -> Result<Option<Entry>, Response> {
        if !self.read_policy().is_miss_authoritative() {
            let text = "this node does not know yet what its peers have: it judges no conditions";
            return Err(Response::refused(RefusalCode::Warming, text));
        }
        let held = match self.replica.store.peek(&write.key, now) {
            Lookup::Hit(entry) => Some(entry),
            Lookup::Miss { .. } => None,
            Lookup::OnDisk => {
                let text = "the value of the key cannot be read from disk now";
                return Err(Response::refused(RefusalCode::Overloaded, text));
            }
        };
        if !condition.is_met(held.as_ref(), now) {
            if let Condition::Version(version) = condition
                && self.may_lack(now, &write.key, version)
            {
                let text = "this node may not have received this version of the key yet";
                return Err(Response::refused(RefusalCode::Behind, text));
            }
            return Err(Response::NotMet { current: held.map(|entry| entry.version) });
        }
        match (&write.op, held) {
            (WriteOp::Touch { ttl }, Some(entry)) => {
                // Above the longest lifetime the fresh time is what is left beside the stale times.
                let metadata = Metadata::decode(&entry.metadata);
                let ttl = metadata.map_or(*ttl, |all| all.life(*ttl).unwrap_or(Ttl::MAX));
                let Entry { value, metadata, .. } = entry;
                write.op = WriteOp::Put { value, metadata, ttl };
                Ok(None)
            }
            (WriteOp::Take, Some(entry)) => {
                (write.op, write.ack) = (WriteOp::Delete, Ack::Local);
                Ok(Some(entry))
            }
            (WriteOp::Use, Some(entry)) => {
                let Entry { value, metadata, version, expires, .. } = entry;
                let used = Metadata::decode(&metadata)
                    .ok()
                    .and_then(|metadata| metadata.used(expires.since_ms(now.mono)));
                let Some((metadata, fresh)) = used else {
                    return Err(Response::NotMet { current: Some(version) });
                };
                let ttl = metadata.life(fresh).unwrap_or(Ttl::MAX);
                write.op = WriteOp::Put { value, metadata: metadata.encode(), ttl };
                // What changed the key since then, on whichever node, and a purge of it, count for more.
                (write.version, write.delay_ms) = (VersionSource::Above(version), 0);
                Ok(None)
            }
            (WriteOp::Touch { .. } | WriteOp::Take | WriteOp::Use, None) => {
                Err(Response::NotMet { current: None })
            }
            _ => Ok(None),
        }
    }

    /// Whether another node may have accepted this version of the key a moment ago: it is newer than all that this
    /// one knows of the key, and too young to have arrived everywhere.
    fn may_lack(&self, now: Now, key: &Key, version: Version) -> bool {
        let is_newer = self.replica.store.version(key.hash()).is_none_or(|known| known < version);
        let oldest_ms = now.wall_ms.saturating_sub(ON_ITS_WAY_MS);
        let newest_ms = now.wall_ms.saturating_add(AHEAD_MS_MAX);
        is_newer && (oldest_ms..=newest_ms).contains(&version.wall_ms())
    }
}

/// The response to a write that took an entry.
fn taken_response(now: Now, taken: Entry, deleted: Version) -> Response {
    let remaining_ms = taken.expires.since_ms(now.mono);
    let Entry { value, metadata, version, .. } = taken;
    Response::Taken(Box::new(TakenItem { value, metadata, version, remaining_ms, deleted }))
}
