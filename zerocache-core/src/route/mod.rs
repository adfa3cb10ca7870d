//! Which node a client asks, in which order, and for how long.

mod budget;
mod directory;
mod leasing;
mod refusals;
#[cfg(test)]
mod tests;
mod tiers;
mod turns;

pub use self::{
    budget::Budget,
    directory::{Directory, Known},
    leasing::LeaseRange,
    tiers::{Attempt, Plan, Step, Tier, TierBounds, Walk},
    turns::Turn,
};
