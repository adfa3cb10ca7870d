//! Conditional writes of clients: put if absent, compare and set, delete by version, get and delete.

use zerocache_core::{
    client::{ConditionalOperation, ConditionalResult},
    condition::{Condition, ConditionalOp, ConditionalWrite},
    version::{Incarnation, Version},
    wire::{Ack, Request},
};

use super::{super::World, leases::STABLE_AFTER_US, operations::KeyMachine};
use crate::{
    checker::{AcknowledgedWrite, MetWrite},
    workload::{ConditionalKind, ConditionalPlan, WriteId, value},
};

/// A conditional write that runs.
#[derive(Clone)]
pub(super) struct RunningConditional {
    pub(super) key: usize,
    id: WriteId,
    condition: Condition,
    op: ConditionalOp,
    ack: Ack,
    /// The highest stamp that the client had seen when it sent the last request.
    pub(super) seen: u64,
    /// Since when the client knew all nodes and reached them, at the last request; none if it may not have.
    pub(super) stable_us: Option<u64>,
}

impl RunningConditional {
    pub(super) fn request(&self, world: &World) -> Request {
        let Self { key, condition, op, ack, .. } = self.clone();
        let key = world.keys[key].clone();
        Request::Conditional(Box::new(ConditionalWrite { key, condition, op, ack }))
    }

    const fn is_delete(&self) -> bool {
        matches!(self.op, ConditionalOp::Delete | ConditionalOp::Take)
    }
}

impl World {
    pub(super) fn begin_write_if(
        &mut self,
        client: usize,
        (key, plan): (usize, ConditionalPlan),
        id: WriteId,
    ) {
        let ConditionalPlan { kind, bytes, ttl, ack } = plan;
        let known = self.clients[client].found.get(&key).copied();
        let same = known.map_or(Condition::Absent, Condition::Version);
        let put = |world: &Self| ConditionalOp::Put {
            value: value(id, bytes),
            metadata: world.metadata_of(id, ttl),
            ttl,
        };
        let (condition, op) = match kind {
            ConditionalKind::PutAbsent => (Condition::Absent, put(self)),
            ConditionalKind::PutVersion => (same, put(self)),
            ConditionalKind::DeleteVersion => (same, ConditionalOp::Delete),
            ConditionalKind::Take => (Condition::Present, ConditionalOp::Take),
        };
        let _near = self.begin_near_write(client, key);
        let (now, total_ms) = self.start_of(client);
        let hash = self.keys[key].hash();
        let machine = ConditionalOperation::new(hash, &op, ack, now, total_ms);
        let (seen, stable_us) = (0, None);
        let write = RunningConditional { key, id, condition, op, ack, seen, stable_us };
        self.begin_operation(client, id, KeyMachine::Conditional(write, machine));
    }

    /// Since when a client knows all nodes and reaches them; none if it may not.
    pub(super) fn stable_since(&self, client: usize) -> Option<u64> {
        let stable_us = self.clients[client].cut_us.max(self.plan.begin_us) + STABLE_AFTER_US;
        let now_us = self.now_us;
        (now_us >= stable_us && self.plan.is_quiet(now_us, now_us)).then_some(now_us)
    }

    /// A conditional write of a client is over; a node answered it at a time.
    pub(super) fn write_if_completed(
        &mut self,
        client: usize,
        write: &RunningConditional,
        answered: Option<(Incarnation, u64)>,
        result: ConditionalResult,
    ) {
        let key = write.key;
        match result {
            ConditionalResult::Written(written) => {
                self.counts.conditions_met += 1;
                self.end_near_write(client, key, written.version);
                let named = match write.condition {
                    Condition::Version(version) => Some(version),
                    _ => None,
                };
                self.write_if_met(client, write, answered, (written.version, named));
            }
            ConditionalResult::Taken(_, item, deleted) => {
                self.counts.conditions_met += 1;
                self.end_near_write(client, key, Some(deleted));
                self.checker.received(key, item.version, &item.value);
                self.write_if_met(client, write, answered, (Some(deleted), Some(item.version)));
            }
            ConditionalResult::NotMet { current } => {
                self.counts.conditions_not_met += 1;
                self.end_near_write(client, key, current);
                let found = &mut self.clients[client].found;
                match current {
                    Some(version) => found.insert(key, version),
                    None => found.remove(&key),
                };
            }
            ConditionalResult::Unknown => {
                self.counts.unknown += 1;
                self.end_near_write(client, key, None);
            }
            ConditionalResult::TooLarge { .. }
            | ConditionalResult::Invalid(_)
            | ConditionalResult::Denied(..) => self.counts.invalid += 1,
            ConditionalResult::Refused => self.counts.conditions_refused += 1,
            ConditionalResult::Unsupported | ConditionalResult::Unreachable => {
                self.counts.unreachable += 1;
            }
        }
    }

    fn write_if_met(
        &mut self,
        client: usize,
        write: &RunningConditional,
        answered: Option<(Incarnation, u64)>,
        (version, replaced): (Option<Version>, Option<Version>),
    ) {
        let (Some(version), Some((node, at_us))) = (version, answered) else { return };
        let (key, is_delete) = (write.key, write.is_delete());
        self.checker.written(key, write.id, version, write.seen);
        let own = AcknowledgedWrite { node, version, is_delete, at_us };
        self.checker.accepted_from(client, key, own);
        let found = &mut self.clients[client].found;
        if is_delete {
            found.remove(&key);
            self.checker.deleted(key, write.id);
        } else {
            found.insert(key, version);
        }
        if let Some(version) = replaced {
            let (region, stable_us) = (self.clients[client].region, write.stable_us);
            let met = MetWrite { client, region, key, version, node, stable_us };
            self.checker.met(&self.plan, met);
        }
    }
}
