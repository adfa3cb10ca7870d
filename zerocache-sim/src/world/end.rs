//! What must be true once all faults are over.

use std::collections::BTreeSet;

use zerocache_core::version::Incarnation;

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
        self.look_at_agreement();
    }
}
