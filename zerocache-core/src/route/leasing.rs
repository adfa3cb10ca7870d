//! Which node gives the leases of a key.

use super::{
    directory::Directory,
    tiers::{Step, Tier},
};
use crate::{key::KeyHash, rendezvous, wire::features};

/// Among which nodes the one is chosen that gives a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LeaseRange {
    /// Those of the client's own region.
    Region,
    /// Those of all regions.
    All,
}

impl Directory {
    /// The node that gives the leases of a key: of those that can and did not fail, the one that weighs
    /// most for it. Clients that know the same nodes choose the same; so one that is silent for a moment
    /// stays, until a request or a probe shows that it is gone.
    #[must_use]
    pub fn leasing(&self, key: KeyHash, range: LeaseRange) -> Option<Step> {
        let gives = self.readers().filter(|node| {
            (range == LeaseRange::All || node.is_local)
                && node.features & features::LEASES != 0
                && !node.out
                && node.serves()
        });
        let chosen = gives.max_by_key(|node| rendezvous::weight(key, node.info.incarnation))?;
        let tier = match &chosen.info.region {
            _ if chosen.is_local => Tier::Local,
            region if self.regions().first() == Some(region) => Tier::Nearest,
            _ => Tier::SecondNearest,
        };
        Some(chosen.step(tier))
    }

    /// Whether a node is still where it was when it was chosen, as far as is known.
    #[must_use]
    pub fn is_there(&self, step: &Step) -> bool {
        self.node(step.node).is_some_and(|node| !node.out && node.address == step.address)
    }
}
