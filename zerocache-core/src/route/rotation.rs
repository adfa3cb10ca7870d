//! Rotation: the nodes to ask for an operation, in their order. Those of the client's own zone take turns before
//! the others of its region, if the client states a zone. Where not every node keeps everything, the owners of the key
//! take turns, and others are asked after them. All local nodes take turns for a key that this client reads much: those
//! that do not own it keep its value for a while then.
//!
//! When more than half of the local nodes are out, the client doubts its own judgement: nodes that gave
//! no answer in time rejoin the rotation, until a probe or one more request confirms that they are gone.
//! Nodes that refuse connections stay out. Overloaded nodes rejoin when most are overloaded. When no node
//! at all is in the rotation, in any region, all are tried: the fault is then probably the client's.

use alloc::vec::Vec;

use super::{
    directory::{Directory, NodeEntry},
    tiers::{Plan, Step, Tier},
};
use crate::{hot_keys::HotKeys, key::KeyHash, time::Instant, version::Incarnation};

/// A client that finds a key so often per second, over once or twice the time below, asks all nodes of its region for it
/// in turns.
const HOT_HITS_PER_S: u32 = 50;
const HOT_HALVED_MS: u64 = 4_000;

/// The golden ratio as a fraction of 2^64: the upper bits of its multiples are spread evenly, whichever of them are taken.
const SCATTER: u64 = 0x9e37_79b9_7f4a_7c15;

/// The place of an operation in the rotation. Every plan made from a ticket begins at the same place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RotationTicket {
    at: usize,
    is_write: bool,
}

/// Whose turn it is.
#[derive(Debug)]
pub(super) struct Turns {
    next_read: usize,
    next_write: usize,
    /// The keys that were found, where some nodes keep a value and not all.
    hits: HotKeys,
    hot_hits_per_s: u32,
}

impl Default for Turns {
    fn default() -> Self {
        let hits = HotKeys::new(Instant::from_millis(0), false).halved_every(HOT_HALVED_MS);
        Self { next_read: 0, next_write: 0, hits, hot_hits_per_s: HOT_HITS_PER_S }
    }
}

/// The nodes in their order, beginning with that of a ticket.
fn from<'e, 'n: 'e>(
    nodes: &'e [&'n NodeEntry],
    ticket: usize,
) -> impl Iterator<Item = &'n NodeEntry> + use<'e, 'n> {
    let first = ticket.checked_rem(nodes.len()).unwrap_or(0);
    nodes[first..].iter().chain(&nodes[..first]).copied()
}

/// Whether most of the local nodes that serve are out of the rotation.
const fn fails_open(serving: usize, rotating: usize) -> bool {
    2 * rotating < serving
}

impl Directory {
    /// The ticket of the next operation. Writes have a rotation of their own: in a loop of a read and a
    /// write, one rotation for both would send all reads to one node and all writes to the other.
    pub fn take_ticket(&mut self, is_write: bool) -> RotationTicket {
        let turns = &mut self.turns;
        let next = if is_write { &mut turns.next_write } else { &mut turns.next_read };
        let ticket = RotationTicket { at: *next, is_write };
        *next = next.wrapping_add(1);
        ticket
    }

    /// Records that a node answered a read of a key with a value.
    pub fn record_hit(&mut self, node: Incarnation, key: KeyHash, now: Instant) {
        if let Some(entry) = self.nodes.get_mut(&node) {
            entry.hits += 1;
        }
        if !self.placement.is_everyone() {
            self.turns.hits.record(key, &[], now);
        }
    }

    /// Sets how often a key is found per second for which all nodes of the region take turns: 50 by default, and with 0
    /// they do for every key.
    pub fn set_hot_hits(&mut self, per_s: u32) {
        self.turns.hot_hits_per_s = per_s;
    }

    /// Whose turn it is by a ticket. Where keys have owners, a loop that reads them one after the other would read each
    /// at the same owner each time, if their number fits: there the turns have no order.
    fn turn(&self, ticket: RotationTicket) -> usize {
        match self.placement.is_everyone() {
            true => ticket.at,
            false => ((ticket.at as u64).wrapping_mul(SCATTER) >> 33) as usize,
        }
    }

    /// Whether all local nodes take turns for a key, although some keep its value and not all.
    fn is_hot(&self, ticket: RotationTicket, key: KeyHash, now: Instant) -> bool {
        let Turns { hits, hot_hits_per_s, .. } = &self.turns;
        !self.placement.is_everyone()
            && !ticket.is_write
            && hits.reads_per_s(key, now) >= f64::from(*hot_hits_per_s)
    }

    /// The first node to ask, without the rest of the plan: `preferred` if it is reachable, or else a local
    /// node. None when no local node is in the rotation; [`plan`](Self::plan) may still have steps then.
    #[must_use]
    pub fn first_step(
        &self,
        (ticket, key): (RotationTicket, KeyHash),
        preferred: Option<Incarnation>,
        now: Instant,
    ) -> Option<Step> {
        let preferred = preferred.and_then(|id| self.nodes.get(&id));
        if let Some(node) = preferred.filter(|node| node.is_reachable(now)) {
            return Some(node.step(if node.is_local { Tier::Local } else { Tier::Nearest }));
        }
        let is_hot = self.is_hot(ticket, key, now);
        let ticket = self.turn(ticket);
        if !self.placement.is_everyone() && !is_hot {
            let owners = self.owners(key, ticket, |node| node.in_rotation(now));
            return Some(owners.first()?.step(Tier::Local));
        }
        let locals = || self.nodes().filter(|node| node.is_local);
        let (mut serving, mut rotating, mut in_zone) = (0, 0, 0);
        for node in locals() {
            let in_rotation = node.in_rotation(now);
            serving += usize::from(node.serves());
            rotating += usize::from(in_rotation);
            in_zone += usize::from(in_rotation && node.is_in_zone);
        }
        if fails_open(serving, rotating) {
            let usable = || locals().filter(|node| node.in_rotation(now) || node.in_doubt(now));
            let has_zone = usable().any(|node| node.is_in_zone);
            let usable = || usable().filter(|node| node.is_in_zone || !has_zone);
            let node = usable().nth(ticket.checked_rem(usable().count())?)?;
            return Some(node.step(Tier::Local));
        }
        let turns = |node: &&NodeEntry| node.in_rotation(now) && (node.is_in_zone || in_zone == 0);
        let at = ticket.checked_rem(if in_zone > 0 { in_zone } else { rotating })?;
        Some(locals().filter(turns).nth(at)?.step(Tier::Local))
    }

    /// The nodes to ask: `preferred` if it can be used, local nodes in rotation, then the nearest regions.
    #[must_use]
    pub fn plan(
        &self,
        (ticket, key): (RotationTicket, KeyHash),
        preferred: Option<Incarnation>,
        now: Instant,
    ) -> Plan {
        let locals = || self.nodes().filter(|node| node.is_local);
        let serving = locals().filter(|node| node.serves()).count();
        let rotating = locals().filter(|node| node.in_rotation(now)).count();
        let is_open = fails_open(serving, rotating);
        let usable = |node: &NodeEntry| {
            node.in_rotation(now) || (is_open && node.is_local && node.in_doubt(now))
        };
        // The preferred node has what others may not have received yet, however busy it is.
        let preferred = preferred.and_then(|id| self.nodes.get(&id));
        let first = preferred.filter(|node| usable(node) || node.is_reachable(now));
        let turn = (self.turn(ticket), self.is_hot(ticket, key, now));
        let plan = self.plan_of(turn, key, first, usable);
        if !plan.steps.is_empty() {
            return plan;
        }
        self.plan_of(turn, key, preferred.filter(|node| node.serves()), NodeEntry::serves)
    }

    /// The usable nodes for a key where not every node keeps everything: its owners in turns, those of the client's
    /// zone first, then those that would be the next owners.
    fn owners(
        &self,
        key: KeyHash,
        ticket: usize,
        usable: impl Fn(&NodeEntry) -> bool,
    ) -> Vec<&NodeEntry> {
        let Some(replicas) = self.placement.replicas() else { return Vec::new() };
        let ranked = self.placement.owners_and_next(key);
        let (owners, next) = ranked.split_at(replicas.min(ranked.len()));
        let usable = |ids: &[Incarnation]| -> Vec<&NodeEntry> {
            ids.iter().filter_map(|id| self.nodes.get(id)).filter(|node| usable(node)).collect()
        };
        let (in_zone, others): (Vec<&NodeEntry>, Vec<_>) =
            usable(owners).into_iter().partition(|node| node.is_in_zone);
        let owners = from(&in_zone, ticket).chain(from(&others, ticket));
        owners.chain(usable(next)).collect()
    }

    fn plan_of(
        &self,
        (ticket, is_hot): (usize, bool),
        key: KeyHash,
        preferred: Option<&NodeEntry>,
        usable: impl Fn(&NodeEntry) -> bool,
    ) -> Plan {
        let locals: Vec<_> = self.nodes().filter(|node| node.is_local && usable(node)).collect();
        let mut steps: Vec<Step> = Vec::with_capacity(Tier::ALL.len() + 1);
        steps.extend(
            preferred
                .map(|node| node.step(if node.is_local { Tier::Local } else { Tier::Nearest })),
        );
        let (in_zone, others): (Vec<&NodeEntry>, Vec<_>) =
            locals.iter().copied().partition(|node| node.is_in_zone);
        let others = || from(&in_zone, ticket).chain(from(&others, ticket));
        // What the first one does not have, owners have.
        let first = others().next().filter(|_| is_hot);
        let owners = self.owners(key, ticket, &usable);
        for node in first.into_iter().chain(owners).chain(others()) {
            let tier = match steps.iter().filter(|step| step.tier <= Tier::NextLocal).count() {
                0 => Tier::Local,
                1 => Tier::NextLocal,
                _ => break,
            };
            if steps.iter().all(|step| step.node != node.info.incarnation) {
                steps.push(node.step(tier));
            }
        }
        // The owners of a key have budgets that match their shares.
        let largest = locals.iter().filter(|_| self.placement.is_everyone());
        let largest = largest.max_by_key(|node| node.info.bytes_max);
        let largest_local = largest.map(|node| node.step(Tier::NextLocal));
        let mut tiers = [Tier::Nearest, Tier::SecondNearest].into_iter();
        for region in self.regions() {
            let in_region = |node: &&NodeEntry| {
                node.info.region == *region
                    && usable(node)
                    && steps.iter().all(|step| step.node != node.info.incarnation)
            };
            let nodes: Vec<_> = self.nodes().filter(in_region).collect();
            if nodes.is_empty() {
                continue;
            }
            let Some(tier) = tiers.next() else { break };
            steps.push(nodes[ticket % nodes.len()].step(tier));
        }
        Plan { steps, largest_local }
    }
}

#[cfg(test)]
mod tests {
    use alloc::{collections::BTreeMap, format};

    use super::*;
    use crate::{
        cluster::Replicas,
        route::tests::{address, at, info},
        wire::{NodeInfo, features},
    };

    /// Eight nodes, of which two keep a value.
    fn directory() -> Directory {
        let mut directory = Directory::new("oslo");
        for n in 1..=8 {
            let (name, replicas) = (Some(format!("n{n}")), Replicas::from_number(2));
            let info = NodeInfo { name, replicas, ..info(n, "oslo") };
            directory.handshake_completed(info, address(n), at(0), 100);
            directory.set_features(Incarnation(n), features::ALL, at(0));
        }
        assert!(!directory.placement.is_everyone());
        directory
    }

    /// Who is asked first for `key` in a loop that reads it and another one, and how often.
    fn asked(
        directory: &mut Directory,
        key: KeyHash,
        from_ms: u64,
        is_hit: bool,
    ) -> BTreeMap<u64, u64> {
        let mut asked = BTreeMap::new();
        for ms in from_ms..from_ms + 400 {
            let ticket = directory.take_ticket(false);
            let node = directory.first_step((ticket, key), None, at(ms)).unwrap().node;
            assert_eq!(directory.plan((ticket, key), None, at(ms)).steps[0].node, node);
            *asked.entry(node.0).or_default() += 1;
            if is_hit {
                directory.record_hit(node, key, at(ms));
            }
            directory.take_ticket(false);
        }
        asked
    }

    #[test]
    fn all_local_nodes_take_turns_for_a_key_that_is_found_much() {
        let (mut directory, key) = (directory(), KeyHash::of(b"key"));
        let missed = asked(&mut directory, key, 1_000, false);
        assert_eq!(missed.len(), 2, "its owners: {missed:?}");
        assert!(missed.values().all(|count| *count > 150), "{missed:?}");
        asked(&mut directory, key, 2_000, true);
        let found = asked(&mut directory, key, 3_000, true);
        assert_eq!(found.len(), 8, "{found:?}");
        assert!(found.values().all(|count| (40..60).contains(count)), "{found:?}");
        let ticket = directory.take_ticket(false);
        let plan = directory.plan((ticket, key), None, at(3_500));
        let owners = directory.placement.owners(key);
        assert!(plan.steps.len() == 2 && owners.contains(&plan.steps[1].node));
        let write = directory.take_ticket(true);
        let first = directory.first_step((write, key), None, at(3_500)).unwrap();
        assert!(owners.contains(&first.node));
        assert_eq!(asked(&mut directory, key, 60_000, false).len(), 2);
    }
}
