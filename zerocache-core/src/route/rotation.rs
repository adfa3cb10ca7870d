//! Rotation: the nodes to ask for an operation, in their order. Those of the client's own zone take turns before
//! the others of its region, if the client states a zone. Where not every node keeps everything, the owners of the key
//! take turns, and others are asked after them.
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
use crate::{key::KeyHash, time::Instant, version::Incarnation};

/// The place of an operation in the rotation. Every plan made from a ticket begins at the same place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RotationTicket(usize);

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
        let next = if is_write { &mut self.next_write } else { &mut self.next_read };
        let ticket = RotationTicket(*next);
        *next = next.wrapping_add(1);
        ticket
    }

    /// The first node to ask, without the rest of the plan: `preferred` if it is reachable, or else a local
    /// node. None when no local node is in the rotation; [`plan`](Self::plan) may still have steps then.
    #[must_use]
    pub fn first_step(
        &self,
        (RotationTicket(ticket), key): (RotationTicket, KeyHash),
        preferred: Option<Incarnation>,
        now: Instant,
    ) -> Option<Step> {
        let preferred = preferred.and_then(|id| self.nodes.get(&id));
        if let Some(node) = preferred.filter(|node| node.is_reachable(now)) {
            return Some(node.step(if node.is_local { Tier::Local } else { Tier::Nearest }));
        }
        if !self.placement.is_everyone() {
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
        (RotationTicket(ticket), key): (RotationTicket, KeyHash),
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
        let plan = self.plan_of((ticket, key), first, usable);
        if !plan.steps.is_empty() {
            return plan;
        }
        self.plan_of((ticket, key), preferred.filter(|node| node.serves()), NodeEntry::serves)
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
        (ticket, key): (usize, KeyHash),
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
        let owners = self.owners(key, ticket, &usable);
        let others = from(&in_zone, ticket).chain(from(&others, ticket));
        for node in owners.into_iter().chain(others) {
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
