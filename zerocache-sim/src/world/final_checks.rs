//! Checks at the end of a run, after all faults.

use std::collections::{BTreeMap, BTreeSet};

use zerocache_core::version::Incarnation;

use super::World;
use crate::checker::Rule;

impl World {
    pub(super) fn inspect_end(&mut self) {
        let alive = (0..self.nodes.len() as u32).filter_map(|host| {
            let process = self.nodes[host as usize].as_ref()?;
            Some((process.incarnation, self.plan.nodes[host as usize].region))
        });
        let living: BTreeMap<Incarnation, usize> = alive.collect();
        for host in 0..self.nodes.len() as u32 {
            let now = self.now_at(host);
            let Some(process) = self.nodes[host as usize].as_ref() else { continue };
            let snapshot = process.node.status(now);
            let (mut reached, mut known) = (BTreeSet::new(), BTreeSet::new());
            for node in snapshot.nodes {
                known.insert(node.id);
                if node.state.is_some() {
                    reached.insert(node.id);
                }
            }
            let region = self.plan.nodes[host as usize].region;
            self.checker.view((host, region), &reached, &known, &living);
        }
        for client in 0..self.clients.len() {
            let now = self.now_at(self.host_of(client as u32)).mono;
            let known = self.clients[client].rotation(now);
            if !living.is_empty() && !known.iter().any(|node| living.contains_key(node)) {
                let text = format!("client {client} has no node in its rotation");
                self.checker.violate(Rule::View, text);
            }
        }
        self.check_stranger();
        self.check_final_agreement();
        self.check_placed();
        self.check_final_misses();
    }
}
