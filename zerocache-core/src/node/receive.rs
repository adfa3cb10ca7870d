//! What a node receives from its peers: it takes the records, and passes on those of which it is the relay.

use alloc::vec::Vec;

use super::{Effect, Node};
use crate::{
    entry::Record,
    store::{ApplyOutcome, Backend},
    time::Now,
    wire::{Receipt, ReplicatedRecord, Response},
};

impl<B: Backend> Node<B> {
    /// Takes a batch from a peer, and passes on what it is the relay of.
    pub(super) fn receive(
        &mut self,
        now: Now,
        batch: Vec<ReplicatedRecord>,
        out: &mut Vec<Effect>,
    ) -> Response {
        let mut receipts = Vec::with_capacity(batch.len());
        for ReplicatedRecord { record, relay } in batch {
            let receipt = self.take(now, &record);
            // What the relay held already may not have reached its peers: the node that passed it on
            // before may have died in the middle.
            if relay && receipt == Receipt::Holds(record.version) {
                self.note_missing(now, &record.key, |member, own| member.info.region == own);
                self.send_to_peers(now, &self.to_queue(&record, now), None, out);
            }
            receipts.push(receipt);
        }
        Response::Replicated(receipts)
    }

    pub(super) fn take(&mut self, now: Now, record: &Record) -> Receipt {
        if self.clock.observe(record.version, now.wall_ms).is_err() {
            return Receipt::Refused;
        }
        match self.apply(now, record) {
            ApplyOutcome::Applied | ApplyOutcome::Duplicate => Receipt::Holds(record.version),
            ApplyOutcome::Superseded(version) => Receipt::Holds(version),
            ApplyOutcome::TooOld => Receipt::Refused,
        }
    }
}
