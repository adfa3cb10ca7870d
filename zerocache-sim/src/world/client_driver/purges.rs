//! Purges by clients.

use zerocache_core::{
    client::{Operation as Machine, WriteResult, WriteRules},
    purge::TargetId,
    version::Version,
    wire::{Request, Status},
};

use super::{
    super::{World, trace},
    operations::KeyMachine,
};
use crate::{
    purges::PlannedPurge,
    workload::{Operation, WriteId},
};

/// A purge that a client has begun.
#[derive(Clone, Copy)]
pub(super) struct RunningPurge {
    index: usize,
    id: WriteId,
    replayed: Option<Version>,
    /// The highest stamp that the client had seen when it sent the last request.
    pub(super) seen: u64,
}

impl World {
    /// A client begins a purge of the plan, unless it repeats one without a known version.
    pub(in crate::world) fn purge(&mut self, index: usize) {
        let PlannedPurge { client, register, ack, replays, .. } = self.plan.purges[index];
        let number = self.plan.workload.keys + register;
        let repeated = match replays.map(|at| self.purge_versions.get(&at).copied()) {
            Some(None) => return,
            repeated => repeated.flatten(),
        };
        let serial = self.checker.planned(number, &Operation::Purge(ack));
        let (id, replayed) = repeated.map_or((serial, None), |(id, version)| (id, Some(version)));
        let of = self.plan.registers[register];
        trace!(
            self,
            "client {client} purges {of}, {ack:?}, as purge {index}, replays {replayed:?}"
        );
        self.counts.purges += 1;
        if let Some(rules) = self.near_rules(client) {
            rules.begin_purge(of.target().id());
        }
        let purge = RunningPurge { index, id, replayed, seen: 0 };
        let (now, total_ms) = self.start_of(client);
        let rules = WriteRules::new(self.keys[number].as_bytes(), None, ack);
        let machine = KeyMachine::Purge(purge, Machine::new(rules, now, total_ms));
        self.begin_operation(client, serial, machine);
    }

    pub(super) fn purge_request(&self, purge: RunningPurge) -> Request {
        let PlannedPurge { register, ack, .. } = self.plan.purges[purge.index];
        let register = &self.plan.registers[register];
        let (target, mode, hold_ms) = (register.target(), register.mode, register.hold_ms);
        Request::Purge { target, mode, hold_ms, ack, replayed: purge.replayed }
    }

    /// A purge of a client is over.
    pub(super) fn purge_completed(
        &mut self,
        client: usize,
        purge: RunningPurge,
        result: &WriteResult,
    ) {
        let RunningPurge { index, id, replayed, seen } = purge;
        let PlannedPurge { register, .. } = self.plan.purges[index];
        let number = self.plan.workload.keys + register;
        let register = self.plan.registers[register];
        trace!(self, "purge {index} of client {client}: {result:?}");
        let written = match result {
            WriteResult::Written(written) => written,
            _ => {
                self.counts.unknown += u64::from(*result == WriteResult::Unknown);
                return self.end_near_purge(client, register.target().id(), None);
            }
        };
        self.counts.written += 1;
        let Some(version) = written.version else { return };
        let stamp = register.judges_below(version).stamp();
        self.end_near_purge(client, register.target().id(), Some(stamp));
        self.checker.written(number, id, version, if replayed.is_some() { 0 } else { seen });
        if written.status == Status::Stored {
            self.purge_versions.insert(index, (id, version));
        }
    }

    fn end_near_purge(&mut self, client: usize, target: TargetId, stamp: Option<u64>) {
        let now = self.client_now(client);
        let Some(rules) = self.near_rules(client) else { return };
        rules.end_purge(target, stamp, now);
        if let Some(stamp) = stamp {
            self.checker.purged_by(client, target, stamp);
        }
    }
}
