//! What must be true once all faults are over.

use std::collections::BTreeSet;

use zerocache_core::version::{Incarnation, Version};

use super::World;
use crate::checker::Rule;

impl World {
    pub(super) fn look_at_the_end(&mut self) {
        let living: BTreeSet<Incarnation> =
            self.nodes.iter().flatten().map(|process| process.incarnation).collect();
        for host in 0..self.nodes.len() as u32 {
            let now = self.now_at(host);
            let Some(process) = self.nodes[host as usize].as_ref() else { continue };
            let snapshot = process.node.snapshot(now);
            let reached = snapshot.nodes.iter().filter(|node| node.state.is_some());
            let reached: BTreeSet<_> = reached.map(|node| node.id).collect();
            self.checker.view(host, &reached, &living);
        }
        for client in 0..self.clients.len() {
            let now = self.now_at(self.host_of(client as u32)).mono;
            let known: BTreeSet<_> = self.clients[client].rotation(now).into_iter().collect();
            if known.is_disjoint(&living) && !living.is_empty() {
                let text = format!("client {client} has no node in its rotation");
                self.checker.violate(Rule::View, text);
            }
        }
        if self.checker.expect().repair || self.plan.faults.is_empty() {
            self.look_at_agreement();
        }
    }

    /// No two nodes know different versions of a key.
    fn look_at_agreement(&mut self) {
        for (number, key) in self.keys.iter().enumerate() {
            let mut known: Vec<(u32, Version)> = Vec::new();
            for (host, process) in self.nodes.iter().enumerate() {
                let Some(process) = process else { continue };
                known.extend(
                    process.store.version(key.hash()).map(|version| (host as u32, version)),
                );
            }
            if let Some((first, rest)) = known.split_first()
                && let Some(other) = rest.iter().find(|other| other.1 != first.1)
            {
                let text = format!("key {number}: {first:?} and {other:?}");
                return self.checker.violate(Rule::Agreement, text);
            }
        }
    }
}
