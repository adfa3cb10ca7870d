//! Which node a client asks, in which order, and for how long.

mod budget;
mod directory;
#[cfg(test)]
mod tests;
mod tiers;
mod turns;

pub use self::{
    budget::Budget,
    directory::{Directory, Known},
    tiers::{Attempt, Plan, Step, Tier, TierBounds, Walk},
    turns::Turn,
};
