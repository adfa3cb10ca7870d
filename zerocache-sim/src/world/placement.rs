//! Who keeps which values, as the nodes see it.

use zerocache_core::wire::Request;

use super::World;
use crate::profile::Profile;

impl World {
    /// The key of a plain read that a node answers itself. What an owner gives is checked there.
    pub(super) fn key_read(&self, host: u32, request: &Request) -> Option<usize> {
        let Request::Get { key } = request else { return None };
        self.number_of(key).filter(|key| !self.is_forwarded(host, *key))
    }

    /// Whether the node passes a read on, because it has no value and others own the key.
    fn is_forwarded(&self, host: u32, key: usize) -> bool {
        let Some(process) = self.nodes[host as usize].as_ref() else { return false };
        let (placement, key) = (process.node.placement(), &self.keys[key]);
        let gives = process.node.read_policy().values_are_current
            && process.store.peek(key, self.now_at(host)).is_hit();
        let keeps = placement.is_everyone() || placement.keeps(process.incarnation, key.hash());
        !keeps && !gives
    }

    /// Whether a node keeps the value of a key, as it sees it.
    pub(super) fn keeps(&self, host: usize, key: usize) -> bool {
        let Some(process) = self.nodes[host].as_ref() else { return false };
        let placement = process.node.placement();
        self.checker.is_register(key) || placement.keeps(process.incarnation, self.keys[key].hash())
    }

    /// Whether a node of this one's region has not offered yet what others own.
    pub(super) fn is_placing(&self, host: usize) -> bool {
        let region = self.plan.nodes[host].region;
        let mut peers = self.agreeing().filter(|other| self.plan.nodes[*other].region == region);
        let id =
            |host: usize| self.nodes[host].as_ref().map(|process| process.node.placement().id());
        let is_placing = |other: usize| {
            let Some(process) = self.nodes[other].as_ref() else { return false };
            let status = process.node.status(self.now_at(other as u32)).placement;
            id(other) != id(host) || !status.is_complete
        };
        self.plan.profile == Profile::Placement && peers.any(is_placing)
    }
}
