//! Feeds acknowledgements of nodes, and reads after own writes of clients, to the checker.

use zerocache_core::{
    condition::ConditionalOp,
    node::RequestId,
    version::{Version, VersionSource},
    wire::{Ack, Request, Response, Status, features},
};

use super::{World, client_driver::RunningRead};
use crate::{
    checker::{AcknowledgedWrite, Rule, WriteAnswer},
    clock::SECOND_US,
    profile::Profile,
    workload::{WriteId, write_of},
};

/// Nodes count as stable when they have been in sync, and have reached each other, for this long.
pub(super) const STABLE_US: u64 = 2 * SECOND_US;

/// A write that is not answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct PendingWrite {
    key: usize,
    id: WriteId,
    ack: Ack,
    token: Option<Version>,
    /// Whether its node gave it another version: replicas have it with the one of before, and so may the answer.
    pub(super) is_restamped: bool,
}

impl World {
    /// Returns the write of a request, if it is one.
    pub(super) fn pending_write(&self, request: &Request) -> Option<PendingWrite> {
        let (key, id, ack, token) = match request {
            Request::Put { key, value, ack, version, .. } => {
                let token = match version {
                    VersionSource::Given(token) => Some(*token),
                    _ => None,
                };
                (self.number_of(key)?, write_of(value)?, ack, token)
            }
            Request::Conditional(write) => {
                let id = match &write.op {
                    ConditionalOp::Put { value, .. } => write_of(value)?,
                    _ => 0,
                };
                (self.number_of(&write.key)?, id, &write.ack, None)
            }
            Request::Delete { key, ack } => (self.number_of(key)?, 0, ack, None),
            Request::Purge { target, mode, ack, replayed, .. } => {
                (self.number_of(&target.key(*mode))?, 0, ack, *replayed)
            }
            _ => return None,
        };
        Some(PendingWrite { key, id, ack: *ack, token, is_restamped: false })
    }

    /// Checks the answer of a node to a write.
    pub(super) fn check_written(&mut self, host: u32, id: RequestId, response: &mut Response) {
        let Some(process) = self.nodes[host as usize].as_mut() else { return };
        let Some(write) = process.writes.remove(&id) else { return };
        let Response::Written(written) = response else { return };
        if self.variant.forgets_newer() && written.status == Status::Superseded {
            written.status = Status::Stored;
        }
        let PendingWrite { key, id, ack, token, is_restamped } = write;
        if is_restamped {
            return;
        }
        let after = process.store.version(self.keys[key].hash());
        let before = process.before.get(&key).copied().unwrap_or(after);
        // Witnesses are no replicas.
        let is_placed = self.plan.profile == Profile::Placement;
        let wanted = self.wanted(host, ack).filter(|_| token.is_none() && !is_placed);
        // Nodes of another release have a purge and do not obey it.
        let is_mixed = self.plan.nodes.iter().any(|node| node.features & features::PURGES == 0);
        let wanted = wanted.filter(|_| !(is_mixed && self.checker.is_register(key)));
        let written = *written;
        self.checker.acknowledged(&WriteAnswer {
            host,
            key,
            id,
            token,
            written,
            before,
            after,
            wanted,
        });
    }

    /// For how many replicas a node has to wait, and whether all have to have a write in time: when
    /// nothing goes wrong, and all have reached each other for a while.
    fn wanted(&self, host: u32, ack: Ack) -> Option<(u32, bool)> {
        let stable_since_us = self.stable_since_us? + STABLE_US;
        if self.now_us < stable_since_us || !self.plan.is_quiet(stable_since_us, self.now_us) {
            return None;
        }
        let own = self.plan.nodes[host as usize].region;
        let living = (0..self.nodes.len()).filter(|host| self.nodes[*host].is_some());
        let mut nodes = vec![0; self.plan.distance_us.len()];
        living.for_each(|host| nodes[self.plan.nodes[host].region] += 1);
        let regions = nodes.iter().filter(|count| **count > 0).count() as u32;
        let most = match ack {
            Ack::Local => 1,
            Ack::Region => nodes[own],
            Ack::All => nodes[own] + regions - 1,
            _ => return None,
        };
        Some((most, self.plan.profile == Profile::Calm))
    }

    /// Checks a read of a client that wrote the key shortly before: it returns that write, something
    /// newer, or nothing where the node that accepted the write has nothing or does not answer.
    pub(super) fn check_own(
        &mut self,
        client: usize,
        running: &RunningRead,
        found: Option<Version>,
    ) {
        let Some(own) = running.own.filter(|own| found < Some(own.version)) else { return };
        if found.is_some() {
            let text = format!("client {client} wrote {own:?}, and reads {found:?}");
            return self.checker.violate(Rule::Own, text);
        }
        let AcknowledgedWrite { node, version, is_delete, at_us, .. } = own;
        if self.checker.has_later(client, running.key, version) {
            return;
        }
        let Some(host) = self.checker.host_of(node) else { return };
        let pair = (self.host_of(client as u32), host);
        let Some(process) = self.nodes[host as usize].as_ref() else { return };
        // The node answers as long as no fault disturbs it or the path to it.
        let answers = process.incarnation == node
            && !self.clients[client].has_cut_itself_off(at_us)
            && !self.plan.is_disturbed(pair, (at_us, self.now_us), None)
            && !self.had_disk_fault(host, (at_us, self.now_us));
        let key = running.key;
        let known = process.store.version(self.keys[key].hash());
        let holds = !is_delete
            && known == Some(version)
            && process.store.has_value(self.keys[key].hash())
            && process.node.read_policy().values_are_current
            && self.checker.is_to_live(key, version)
            && process.store.stats().counts.evicted == 0;
        if answers && holds {
            let text = format!("client {client} wrote {own:?} of key {key}, and reads {found:?}");
            self.checker.violate(Rule::Own, text);
        }
    }
}
