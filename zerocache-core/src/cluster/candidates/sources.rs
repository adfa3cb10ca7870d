//! Who names addresses, and how much of what there is each may use.

use core::ops::RangeInclusive;

use crate::{time::Instant, version::Incarnation};

/// An address that failed so often is dropped; whoever proposed it can do so again.
const FAILURES_MAX: u32 = 240;

/// Who named an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AddressSource {
    /// Somebody who called, and may be anybody: the number stands for its connection.
    Caller(u64),
    /// A node that answered this one where it was dialled.
    Node(Incarnation),
    /// Discovery: seeds, DNS, mDNS.
    Discovery,
}

impl AddressSource {
    /// All callers whose connection carries one request only: they cannot be told apart.
    pub const ANONYMOUS: Self = Self::Caller(u64::MAX);

    /// How far it is believed.
    pub(super) const fn rank(self) -> usize {
        match self {
            Self::Caller(_) => 0,
            Self::Node(_) => 1,
            Self::Discovery => 2,
        }
    }

    /// All sources that are believed as far.
    pub(super) const fn peers(self) -> RangeInclusive<Self> {
        match self {
            Self::Caller(_) => Self::Caller(0)..=Self::Caller(u64::MAX),
            Self::Node(_) => Self::Node(Incarnation(0))..=Self::Node(Incarnation(u64::MAX)),
            Self::Discovery => Self::Discovery..=Self::Discovery,
        }
    }

    pub(super) const fn bounds(self) -> &'static Bounds {
        &BOUNDS[self.rank()]
    }

    /// How many addresses it may name that wait for a handshake.
    pub(super) const fn addresses_max(self) -> usize {
        match self {
            Self::ANONYMOUS => ANONYMOUS_PLACES,
            _ => self.bounds().of_one,
        }
    }
}

/// What sources of one rank have together, and each of them.
#[derive(Debug)]
pub(super) struct Bounds {
    /// Addresses waiting for a handshake.
    pub(super) addresses_max: usize,
    /// Of these, named by one source.
    of_one: usize,
    /// Handshakes under way.
    pub(super) in_flight: usize,
    /// Dials that came to nothing, in a second in the long run; those that are answered are free, so that a
    /// thousand nodes that start at once are met at once.
    failures_per_s: u64,
    /// The same at once.
    failures_max: u64,
    /// After so many failures an address is dropped.
    pub(super) failures_max_each: u32,
}

/// Callers: a node names 16 addresses at most. What they name may be anybody's: no more than 32 connections
/// in a second that nobody wanted.
pub(super) const CALLER_BOUNDS: Bounds = Bounds {
    addresses_max: 512,
    of_one: 16,
    in_flight: 32,
    failures_per_s: 32,
    failures_max: 128,
    failures_max_each: 60,
};

/// What [`AddressSource::ANONYMOUS`] may name: half of all, for clusters whose nodes speak HTTP.
const ANONYMOUS_PLACES: usize = 256;

/// Nodes: a handshake may tell of hundreds of others; the rest follows when some of these have answered.
const NODE_BOUNDS: Bounds = Bounds {
    addresses_max: 2_048,
    of_one: 512,
    in_flight: 32,
    failures_per_s: 64,
    failures_max: 256,
    failures_max_each: FAILURES_MAX,
};

/// Discovery: what the operator named, or the own network.
pub(super) const DISCOVERY_BOUNDS: Bounds = Bounds {
    addresses_max: 2_048,
    of_one: 2_048,
    in_flight: 64,
    failures_per_s: 256,
    failures_max: 1_024,
    failures_max_each: FAILURES_MAX,
};

pub(super) const BOUNDS: [Bounds; 3] = [CALLER_BOUNDS, NODE_BOUNDS, DISCOVERY_BOUNDS];

/// One source of each rank.
pub(super) const FIRST_SOURCES: [AddressSource; 3] =
    [AddressSource::Caller(0), AddressSource::Node(Incarnation(0)), AddressSource::Discovery];

/// A dial in the units of [`SourceUse::spent`]: thousandths, so that a millisecond earns something.
const DIAL: u64 = 1_000;

/// What is in use of the bounds of one rank.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SourceUse {
    pub(super) addresses_max: usize,
    pub(super) in_flight: usize,
    /// Failures spent lately, in thousandths.
    spent: u64,
    at: Instant,
}

impl SourceUse {
    /// What is left of the failures that were spent before.
    fn spent(&self, bounds: &Bounds, now: Instant) -> u64 {
        self.spent.saturating_sub(now.since_ms(self.at).saturating_mul(bounds.failures_per_s))
    }

    /// How many dials may begin.
    pub(super) fn free(&self, bounds: &Bounds, now: Instant) -> usize {
        let left = (bounds.failures_max * DIAL).saturating_sub(self.spent(bounds, now)) / DIAL;
        let left = usize::try_from(left).unwrap_or(usize::MAX);
        left.min(bounds.in_flight.saturating_sub(self.in_flight))
    }

    /// A dial begins: it counts as failed until it is answered.
    pub(super) fn begin(&mut self, bounds: &Bounds, now: Instant) {
        self.spent = self.spent(bounds, now) + DIAL;
        self.at = now;
        self.in_flight += 1;
    }

    /// A dial was answered.
    pub(super) fn answered(&mut self) {
        self.spent = self.spent.saturating_sub(DIAL);
    }

    /// When the next dial may begin; none while as many are under way as may be.
    pub(super) fn next(&self, bounds: &Bounds) -> Option<Instant> {
        let over = (self.spent + DIAL).saturating_sub(bounds.failures_max * DIAL);
        let at = self.at.plus_ms(over.div_ceil(bounds.failures_per_s));
        (self.in_flight < bounds.in_flight).then_some(at)
    }
}
