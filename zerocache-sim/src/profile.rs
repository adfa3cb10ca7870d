//! The families of plans.

use std::str::FromStr;

use crate::{clock::SECOND_US, random::Random};

/// A family of plans.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Profile {
    /// No faults at all: everything must be exact.
    Calm,
    /// Two or three regions of one to three nodes, all kinds of faults.
    Small,
    /// Eight regions of up to 16 nodes.
    Wide,
    /// Several hundred nodes, for a short time.
    Crowd,
    /// Short retention, long partitions: nodes become outdated.
    Retention,
    /// Budgets that are small and differ.
    Evict,
    /// Wall clocks that are wrong, by up to hours.
    Clocks,
    /// A thousand nodes without data.
    Membership,
    /// No datagrams pass, and connections lose 5 % of their packets all the time.
    Connections,
    /// As small, with clients that compute values under leases; half of the runs have no faults.
    Leases,
    /// Halves that begin alone, and starts with a fault at every moment; some clocks are wrong.
    Starts,
    /// As small, with clients that hedge reads, and read and write many keys at once.
    Clients,
    /// As small, with a stranger who poses as nodes; in half of the runs datagrams are encrypted.
    Strangers,
    /// As small, with clients that keep values near and follow a node's changes.
    Near,
    /// As small, where nodes are taken out of service, and put back without an end of their process.
    Drains,
    /// As small, where all nodes stop, and start again one after the other with their snapshots.
    Stops,
    /// As small, with clients that write on conditions; half of the runs have no faults.
    Conditions,
    /// Regions of three to six nodes, of which some keep a value: owners come and go, some for longer than they are
    /// waited for.
    Placement,
    /// Nodes with little memory and a disk, which also fails; some are off for longer than the retention.
    Disk,
}

impl Profile {
    /// All profiles.
    pub const ALL: [Self; 19] = [
        Self::Calm,
        Self::Small,
        Self::Wide,
        Self::Crowd,
        Self::Retention,
        Self::Evict,
        Self::Clocks,
        Self::Membership,
        Self::Connections,
        Self::Leases,
        Self::Starts,
        Self::Clients,
        Self::Strangers,
        Self::Near,
        Self::Drains,
        Self::Stops,
        Self::Conditions,
        Self::Placement,
        Self::Disk,
    ];

    /// The name of the profile on the command line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Calm => "calm",
            Self::Small => "small",
            Self::Wide => "wide",
            Self::Crowd => "crowd",
            Self::Retention => "retention",
            Self::Evict => "evict",
            Self::Clocks => "clocks",
            Self::Membership => "membership",
            Self::Connections => "connections",
            Self::Leases => "leases",
            Self::Starts => "starts",
            Self::Clients => "clients",
            Self::Strangers => "strangers",
            Self::Near => "near",
            Self::Drains => "drains",
            Self::Stops => "stops",
            Self::Conditions => "conditions",
            Self::Placement => "placement",
            Self::Disk => "disk",
        }
    }

    /// Returns whether wall clocks may be wrong by more than nodes accept of each other.
    pub(crate) const fn has_wild_clocks(self) -> bool {
        matches!(self, Self::Clocks | Self::Starts)
    }

    /// Draws the number of faults of a run.
    pub(crate) fn faults(self, random: &mut Random) -> u64 {
        match self {
            // Faults of starts and stops are drawn separately.
            Self::Calm | Self::Connections | Self::Starts | Self::Stops => 0,
            Self::Leases | Self::Conditions if random.chance(500) => 0,
            Self::Leases | Self::Conditions => random.between(1, 6),
            Self::Small
            | Self::Retention
            | Self::Evict
            | Self::Clocks
            | Self::Clients
            | Self::Strangers
            | Self::Drains
            | Self::Placement
            | Self::Near => random.between(1, 10),
            Self::Disk => random.between(3, 12),
            Self::Wide => random.between(4, 20),
            Self::Crowd | Self::Membership => random.between(2, 8),
        }
    }

    /// The longest fault, in microseconds.
    pub(crate) const fn fault_us_max(self) -> u64 {
        match self {
            Self::Retention | Self::Disk => 120 * SECOND_US,
            Self::Placement => 60 * SECOND_US,
            Self::Crowd | Self::Membership => 6 * SECOND_US,
            _ => 15 * SECOND_US,
        }
    }
}

impl FromStr for Profile {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|profile| profile.as_str() == text);
        found.ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|profile| profile.as_str()).collect();
            format!("\"{text}\" is no profile; use one of {}", names.join(", "))
        })
    }
}
