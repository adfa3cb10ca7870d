//! The sources of addresses, and the bounds of each.

use core::ops::RangeInclusive;

use crate::{time::Instant, version::Incarnation};

/// An address that failed this often is dropped; its source can name it again.
const FAILURES_MAX: u32 = 240;

/// The source of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AddressSource {
    /// A caller, which may be anybody, by the number of its connection.
    Caller(u64),
    /// A node that responded where this one dialled it.
    Node(Incarnation),
    /// Discovery: seeds, DNS, mDNS.
    Discovery,
}

impl AddressSource {
    /// All callers whose connection carries one request only: they cannot be told apart.
    pub const ANONYMOUS: Self = Self::Caller(u64::MAX);

    /// Returns how far it is trusted.
    pub(super) const fn rank(self) -> usize {
        match self {
            Self::Caller(_) => 0,
            Self::Node(_) => 1,
            Self::Discovery => 2,
        }
    }

    /// Returns all sources that are trusted as far.
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

    /// Returns how many addresses it may name that wait for a handshake.
    pub(super) const fn addresses_max(self) -> usize {
        match self {
            Self::ANONYMOUS => ANONYMOUS_PLACES,
            _ => self.bounds().of_one,
        }
    }
}

/// The bounds of all sources of one rank together, and of each.
#[derive(Debug)]
pub(super) struct Bounds {
    /// Addresses waiting for a handshake.
    pub(super) addresses_max: usize,
    /// Of these, named by one source.
    of_one: usize,
    /// Handshakes in flight.
    pub(super) in_flight_max: usize,
    /// Failed dials per second in the long run. Successful ones are free, so that a thousand nodes that start
    /// at once are met at once.
    failures_per_s: u64,
    /// The most failed dials at once.
    failures_max: u64,
    /// The failures after which an address is dropped.
    pub(super) failures_max_each: u32,
}

/// The bounds of callers: a node names 16 addresses at most. What they name may be anybody's: at most 32
/// unwanted connections per second.
pub(super) const CALLER_BOUNDS: Bounds = Bounds {
    addresses_max: 512,
    of_one: 16,
    in_flight_max: 32,
    failures_per_s: 32,
    failures_max: 128,
    failures_max_each: 60,
};

/// The bound of [`AddressSource::ANONYMOUS`]: half of all, for clusters whose nodes use HTTP.
const ANONYMOUS_PLACES: usize = 256;

/// The bounds of nodes: a handshake may name hundreds of others; the rest follows when some have responded.
const NODE_BOUNDS: Bounds = Bounds {
    addresses_max: 2_048,
    of_one: 512,
    in_flight_max: 32,
    failures_per_s: 64,
    failures_max: 256,
    failures_max_each: FAILURES_MAX,
};

/// The bounds of discovery: addresses of the operator, or of the own network.
pub(super) const DISCOVERY_BOUNDS: Bounds = Bounds {
    addresses_max: 2_048,
    of_one: 2_048,
    in_flight_max: 64,
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

/// The use of the bounds of one rank.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SourceUse {
    pub(super) addresses: usize,
    pub(super) in_flight: usize,
    /// Failures spent lately, in thousandths.
    spent: u64,
    at: Instant,
}

impl SourceUse {
    /// Returns what is left of the failures spent before.
    fn spent(&self, bounds: &Bounds, now: Instant) -> u64 {
        self.spent.saturating_sub(now.since_ms(self.at).saturating_mul(bounds.failures_per_s))
    }

    /// Returns how many dials may begin.
    pub(super) fn free(&self, bounds: &Bounds, now: Instant) -> usize {
        let left = (bounds.failures_max * DIAL).saturating_sub(self.spent(bounds, now)) / DIAL;
        let left = usize::try_from(left).unwrap_or(usize::MAX);
        left.min(bounds.in_flight_max.saturating_sub(self.in_flight))
    }

    /// Notes that a dial begins: it counts as failed until it succeeds.
    pub(super) fn begin(&mut self, bounds: &Bounds, now: Instant) {
        self.spent = self.spent(bounds, now) + DIAL;
        self.at = now;
        self.in_flight += 1;
    }

    /// Notes that a dial succeeded.
    pub(super) fn answered(&mut self) {
        self.spent = self.spent.saturating_sub(DIAL);
    }

    /// Returns when the next dial may begin; `None` while the bound on dials in flight is reached.
    pub(super) fn next(&self, bounds: &Bounds) -> Option<Instant> {
        let over = (self.spent + DIAL).saturating_sub(bounds.failures_max * DIAL);
        let at = self.at.plus_ms(over.div_ceil(bounds.failures_per_s));
        (self.in_flight < bounds.in_flight_max).then_some(at)
    }
}
