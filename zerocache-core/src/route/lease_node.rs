//! The node that grants the leases of a key.

use super::{
    directory::Directory,
    tiers::{Step, Tier},
};
use crate::{key::KeyHash, rendezvous, wire::features};

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
        let candidates = self.readers().filter(|node| {
            (range == LeaseRange::All || node.is_local)
                && node.features & features::LEASES != 0
                && !node.out
                && node.serves()
        });
        let chosen =
            candidates.max_by_key(|node| rendezvous::weight(key, node.info.incarnation))?;
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
