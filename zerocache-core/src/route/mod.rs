//! Which node a client asks, in which order, and for how long.

mod budget;
mod directory;
mod leasing;
#[cfg(test)]
mod tests;
mod tiers;

pub use self::{
    budget::Budget,
    directory::{Directory, Known, Turn},
    leasing::LeaseRange,
    tiers::{Attempt, Plan, Step, Tier, TierBounds, Walk},
};
