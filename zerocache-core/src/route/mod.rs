//! The nodes that a client knows, and which of them it asks, in which order, and for how long.

mod budget;
mod directory;
mod feed_node;
mod lease_node;
mod refusals;
mod rotation;
#[cfg(test)]
pub(crate) mod tests;
mod tiers;

pub use self::{
    budget::Budget,
    directory::{Directory, NodeEntry},
    lease_node::LeaseRange,
    rotation::RotationTicket,
    tiers::{Attempt, Plan, Step, Tier, TierBounds, Walk},
};
