//! The tiers of an operation: a local node, the next local node, the nearest other region, the second
//! nearest.

use alloc::vec::Vec;
use core::net::SocketAddr;

use super::budget::Budget;
use crate::{time::Instant, version::Incarnation};

/// How far away a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Tier {
    /// A node of the client's own region.
    Local,
    /// The next one of the same region.
    NextLocal,
    /// A node of the nearest other region.
    Nearest,
    /// A node of the second nearest other region.
    SecondNearest,
}

impl Tier {
    /// All tiers, in the order in which they are tried.
    pub const ALL: [Self; 4] = [Self::Local, Self::NextLocal, Self::Nearest, Self::SecondNearest];

    /// The tier's name in logs and counters.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::NextLocal => "next-local",
            Self::Nearest => "nearest-region",
            Self::SecondNearest => "second-nearest-region",
        }
    }
}

/// How long each tier may take, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TierBounds {
    /// A local node; default 500.
    pub local_ms: u64,
    /// The next local node; default 500.
    pub next_local_ms: u64,
    /// The nearest other region; default 750.
    pub nearest_ms: u64,
    /// The second nearest other region; default 1,000.
    pub second_nearest_ms: u64,
    /// All of them together; default 2,750.
    pub total_ms: u64,
}

impl Default for TierBounds {
    fn default() -> Self {
        Self {
            local_ms: 500,
            next_local_ms: 500,
            nearest_ms: 750,
            second_nearest_ms: 1_000,
            total_ms: 2_750,
        }
    }
}

impl TierBounds {
    /// The bound of one tier.
    #[must_use]
    pub const fn of(&self, tier: Tier) -> u64 {
        match tier {
            Tier::Local => self.local_ms,
            Tier::NextLocal => self.next_local_ms,
            Tier::Nearest => self.nearest_ms,
            Tier::SecondNearest => self.second_nearest_ms,
        }
    }

    /// Sets the bound of one tier.
    pub const fn set(&mut self, tier: Tier, bound_ms: u64) {
        *match tier {
            Tier::Local => &mut self.local_ms,
            Tier::NextLocal => &mut self.next_local_ms,
            Tier::Nearest => &mut self.nearest_ms,
            Tier::SecondNearest => &mut self.second_nearest_ms,
        } = bound_ms;
    }
}

/// A node to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Its tier.
    pub tier: Tier,
    /// The node.
    pub node: Incarnation,
    /// The address at which it answers.
    pub address: SocketAddr,
    /// Its byte budget.
    pub bytes_max: u64,
    /// The largest value that it accepts, if it reported a limit lately; otherwise the maximum.
    pub value_bytes_max: u64,
}

/// The nodes to ask for one operation, in their order, each at most once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// At most one node for each tier, and before them the preferred one, if there is one.
    pub steps: Vec<Step>,
    /// The local node with the largest byte budget, if it is none of the steps' first.
    pub largest_local: Option<Step>,
}

/// A node to ask, and how long to wait for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The node to ask.
    pub step: Step,
    /// How long to wait, in milliseconds, at least 1.
    pub timeout_ms: u64,
}

/// The walk of one operation through its tiers.
#[derive(Clone, Debug)]
pub struct Walk {
    steps: Vec<Step>,
    at: usize,
    largest_local: Option<Step>,
    bounds: TierBounds,
    budget: Budget,
    whole_budget: bool,
}

impl Walk {
    /// A walk along `plan` within `budget`.
    #[must_use]
    pub fn new(plan: Plan, bounds: TierBounds, budget: Budget) -> Self {
        let Plan { steps, largest_local } = plan;
        Self { steps, at: 0, largest_local, bounds, budget, whole_budget: false }
    }

    /// Lets each attempt take all the time left: for writes that wait for other replicas.
    #[must_use]
    pub fn with_whole_budget(mut self) -> Self {
        self.whole_budget = true;
        self
    }

    /// The next attempt; none when all were made or the deadline has passed.
    pub fn next_attempt(&mut self, now: Instant) -> Option<Attempt> {
        let step = *self.steps.get(self.at)?;
        let bound_ms = if self.whole_budget { u64::MAX } else { self.bounds.of(step.tier) };
        let timeout_ms = self.budget.clip(now, bound_ms)?;
        self.at += 1;
        Some(Attempt { step, timeout_ms })
    }

    /// Counts a node as asked that was asked before the walk began.
    pub fn skip(&mut self, asked: &Step) {
        self.steps.retain(|step| step.node != asked.node);
        self.steps.insert(0, *asked);
        self.at = 1;
    }

    /// Records a miss of the node of `by`. Returns whether the miss is authoritative.
    ///
    /// The miss of a node in sync is, unless a local node with a larger byte budget can be asked, which may
    /// have kept what this one evicted. The miss of a warming node is not.
    pub fn missed(&mut self, by: &Step, warming: bool) -> bool {
        if warming {
            return false;
        }
        match self.largest_local.take() {
            Some(larger) if larger.bytes_max > by.bytes_max && !self.asked(larger.node) => {
                self.steps.truncate(self.at);
                self.steps.push(larger);
                false
            }
            _ => true,
        }
    }

    fn asked(&self, node: Incarnation) -> bool {
        self.steps[..self.at].iter().any(|step| step.node == node)
    }
}
