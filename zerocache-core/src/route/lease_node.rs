//! The node at which callers meet for a key: it grants leases, and judges conditions.

use super::{
    directory::{Directory, NodeEntry},
    tiers::{Step, Tier},
};
use crate::{key::KeyHash, rendezvous, version::Incarnation, wire::features};

/// The nodes among which the one is chosen that grants a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LeaseRange {
    /// Those of the client's own region.
    Region,
    /// Those of all regions.
    All,
}

impl Directory {
    /// The node that grants the leases of a key: of those that support leases and have not failed, the one
    /// with the highest weight for the key. Clients that know the same nodes choose the same one, so a node
    /// that is silent for a moment stays, until a request or a probe shows that it is gone.
    #[must_use]
    pub fn lease_node(&self, key: KeyHash, range: LeaseRange) -> Option<Step> {
        self.meeting_node(key, range, features::LEASES, &[])
    }

    /// The node that judges the conditions of a key, but for those in `except`: chosen as for leases, of the
    /// client's own region if a node of it can be asked.
    #[must_use]
    pub fn judging_node(&self, key: KeyHash, except: &[Incarnation]) -> Option<Step> {
        let ranges = [LeaseRange::Region, LeaseRange::All];
        let judging = |range| self.meeting_node(key, range, features::CONDITIONS, except);
        ranges.into_iter().find_map(judging)
    }

    /// Of the nodes that support a feature and have not failed, the one with the highest weight for the key.
    fn meeting_node(
        &self,
        key: KeyHash,
        range: LeaseRange,
        feature: u64,
        except: &[Incarnation],
    ) -> Option<Step> {
        let is_able = |node: &&NodeEntry| {
            (range == LeaseRange::All || node.is_local)
                && node.features & feature != 0
                && !node.out
                && node.serves()
                && !except.contains(&node.info.incarnation)
        };
        let able = self.nodes().filter(is_able);
        let best = || able.max_by_key(|node| rendezvous::weight(key, node.info.incarnation));
        let chosen = match range {
            // An owner has the value, once it is there.
            LeaseRange::Region => {
                let ranked = self.placement.owners_and_next(key);
                let mut ranked = ranked.iter().filter_map(|id| self.nodes.get(id));
                ranked.find(is_able).or_else(best)?
            }
            LeaseRange::All => best()?,
        };
        let tier = match &chosen.info.region {
            _ if chosen.is_local => Tier::Local,
            region if self.regions().first() == Some(region) => Tier::Nearest,
            _ => Tier::SecondNearest,
        };
        Some(chosen.step(tier))
    }

    /// Whether the node of `step` has neither failed nor moved since it was chosen.
    #[must_use]
    pub fn is_available(&self, step: &Step) -> bool {
        self.node(step.node).is_some_and(|node| !node.out && node.address == step.address)
    }
}
