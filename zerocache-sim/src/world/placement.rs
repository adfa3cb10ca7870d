//! Who keeps which values, as the nodes see it.

use std::collections::BTreeMap;

use zerocache_core::wire::{Request, Response, features};

use super::World;
use crate::checker::Rule;

impl World {
    /// The key of a plain read, and whether the node passes it on. What an owner gives is checked there, too.
    pub(super) fn key_read(&self, host: u32, request: &Request) -> Option<(usize, bool)> {
        let Request::Get { key } = request else { return None };
        self.number_of(key).map(|key| (key, self.is_forwarded(host, key)))
    }

    /// Checks the answer to a read that the node has passed on: it is no older than what the node knows by now.
    pub(super) fn check_passed_on(&mut self, host: u32, key: usize, response: &Response) {
        let Response::Found { version, .. } = response else { return };
        let known = self.nodes[host as usize].as_ref().map(|process| &process.store);
        let known = known.and_then(|store| store.version(self.keys[key].hash()));
        if known > Some(*version) {
            let text = format!("{host} gives {version} of key {key}, and knows {known:?}");
            self.checker.violate(Rule::Order, text);
        }
    }

    /// Checks at the end that all know who owns what, and have offered what they hold.
    pub(super) fn check_placed(&mut self) {
        let takes_offers =
            |host: &usize| self.plan.nodes[*host].features & features::PLACEMENT != 0;
        let nodes: Vec<_> = self.agreeing().filter(takes_offers).collect();
        let mut ids = BTreeMap::new();
        for host in nodes {
            let now = self.now_at(host as u32);
            let Some(process) = self.nodes[host].as_ref() else { continue };
            let placement = process.node.status(now).placement;
            if !placement.is_complete {
                let text = format!("{host} has not offered everything: {placement:?}");
                self.checker.violate(Rule::Placed, text);
            }
            let (first, id) =
                *ids.entry(self.plan.nodes[host].region).or_insert((host, placement.id));
            if id != placement.id {
                let text = format!("{first} and {host} do not agree on who owns what");
                self.checker.violate(Rule::Placed, text);
            }
        }
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
}
