//! What a node receives from its peers: it takes the records, and passes on those of which it is the relay.

use alloc::vec::Vec;

use super::{Effect, Node};
use crate::{
    entry::{Applied, Record},
    store::LockFamily,
    time::Now,
    wire::{Receipt, Response, Shipment},
};

impl<L: LockFamily> Node<L> {
    /// Takes a batch from a peer, and passes on what it is the relay of.
    pub(super) fn receive(
        &mut self,
        now: Now,
        shipments: Vec<Shipment>,
        out: &mut Vec<Effect>,
    ) -> Response {
        let mut receipts = Vec::with_capacity(shipments.len());
        for Shipment { record, relay } in shipments {
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
            Applied::Newer | Applied::Same => Receipt::Holds(record.version),
            Applied::Older(version) => Receipt::Holds(version),
            Applied::TooOld => Receipt::Refused,
        }
    }
}
