//! Candidates: addresses at which nodes may be, and when each is dialled.
//!
//! The source of an address decides how far it is trusted. Addresses from discovery, from nodes that this one
//! reached, and from callers have separate bounds on addresses, dials in flight and failures, so that none
//! displaces or delays the others. Within each rank, all sources have equal shares.

mod sources;
#[cfg(test)]
mod tests;

use alloc::{collections::BTreeMap, vec::Vec};
use core::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    ops::RangeInclusive,
};

pub use self::sources::AddressSource;
use self::sources::{BOUNDS, FIRST_SOURCES, SourceUse};
use crate::{access::Denial, time::Instant};

/// The most sources whose last dial is remembered.
const SOURCES_MAX: usize = 8_192;

/// The most addresses that are set aside.
const RESTING_MAX: usize = 4096;

/// How long after a failure a caller has its address dialled again, in milliseconds: soon at first, for a
/// node that has just started, and later not so soon, for one that can call but not be reached.
const GREETED_MS: u64 = 250;
const GREETED_OFTEN_MS: u64 = 1_000;
const GREETED_SOON_MAX: u32 = 4;

/// The longest wait between two dials of an address that does not respond, in milliseconds: nodes that start
/// while they are cut off from each other meet soon after.
const BACKOFF_MS_MAX: u64 = 1_000;

/// The same after [`OFTEN_MAX`] failures, which take two minutes: most likely no node is there.
const BACKOFF_MS_LATER: u64 = 5_000;
const OFTEN_MAX: u32 = 120;

/// The pause after a node refused this one, in milliseconds, doubled with each refusal: somebody has to
/// change the configuration of one of the two.
const REFUSED_MS: u64 = 1_000;
const REFUSED_MS_MAX: u64 = 10_000;

/// How long an address that belongs to this process, or to another cluster, is set aside.
const REST_MS: u64 = 30_000;

/// An address that failed this often in a row is failing.
const FAILING_MIN: u32 = 2;

/// How long after the first caller a node that starts waits until callers have been dialled, in milliseconds:
/// one that keeps calling does not keep the node from being ready.
const CALLERS_AWAITED_MS: u64 = 3_000;

/// Why the node at an address is no peer, although it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DialRefusal {
    /// It refused this node.
    Denied(Denial),
    /// It could not be verified, or does not accept this node's certificate.
    Unverified,
}

impl DialRefusal {
    /// The stable code of the reason, in JSON and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Denied(denial) => denial.as_str(),
            Self::Unverified => "unverified",
        }
    }
}

/// An address at which a node may be.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    next_dial: Instant,
    in_flight: bool,
    failures: u32,
    last_failure: Instant,
    /// Whether no dial has ended yet.
    fresh: bool,
    /// Whether a node that starts waits for the first dial.
    awaited: bool,
    /// Whether the configuration names it, by itself or by a DNS name.
    is_configured: bool,
    /// Why its last dial was refused, if that was so.
    refusal: Option<DialRefusal>,
    /// The last refusal that was reported.
    reported: Option<DialRefusal>,
}

/// A due address in sorting order: whether it failed before, how many of its source come before it, the last
/// dial of that source, since when it is due, its source, and the address.
type Due = (bool, usize, u64, Instant, AddressSource, SocketAddr);

/// Addresses to be dialled, bounded by source.
#[derive(Debug, Default)]
pub struct Candidates {
    waiting: BTreeMap<(AddressSource, SocketAddr), Candidate>,
    sources: BTreeMap<SocketAddr, AddressSource>,
    uses: [SourceUse; BOUNDS.len()],
    /// The number of the last dial of each source.
    last_dials: BTreeMap<AddressSource, u64>,
    dials: u64,
    resting: BTreeMap<SocketAddr, Instant>,
    first_caller: Option<Instant>,
    refused: u64,
}

impl Candidates {
    /// Adds an address named by `source`, unless it is known or set aside.
    pub fn add(&mut self, address: SocketAddr, source: AddressSource, now: Instant) {
        if self.resting.get(&address).is_some_and(|until| *until > now) {
            return;
        }
        if let Some(known) = self.sources.get(&address).copied() {
            return self.believe(address, known, source);
        }
        if !can_be_dialled(address) || !self.make_room(source) {
            self.refused += 1;
            return;
        }
        let mut awaited = true;
        if let AddressSource::Caller(_) = source {
            let first = *self.first_caller.get_or_insert(now);
            awaited = now.since_ms(first) < CALLERS_AWAITED_MS;
        }
        let candidate = Candidate {
            next_dial: now,
            in_flight: false,
            failures: 0,
            last_failure: now,
            fresh: true,
            awaited,
            is_configured: false,
            refusal: None,
            reported: None,
        };
        self.waiting.insert((source, address), candidate);
        self.sources.insert(address, source);
        self.uses[source.rank()].addresses += 1;
    }

    /// Notes that the configuration names `address`.
    pub fn note_configured(&mut self, address: SocketAddr) {
        if let Some((_, candidate)) = self.known(address) {
            candidate.is_configured = true;
        }
    }

    /// Has `address` dialled soon, even if it is set aside: a caller says that it is there.
    pub fn retry_soon(&mut self, address: SocketAddr, source: AddressSource, now: Instant) {
        let rested = |until: &Instant| now.since_ms(until.minus_ms(REST_MS)) >= GREETED_OFTEN_MS;
        if self.resting.get(&address).is_some_and(rested) {
            self.resting.remove(&address);
        }
        self.add(address, source, now);
        let Some((_, candidate)) = self.known(address).filter(|(_, c)| c.failures > 0) else {
            return;
        };
        let soon = candidate.failures < GREETED_SOON_MAX;
        let wait_ms = if soon { GREETED_MS } else { GREETED_OFTEN_MS };
        let at = candidate.last_failure.plus_ms(wait_ms);
        candidate.next_dial = candidate.next_dial.min(at);
    }

    /// Notes that a known address is named again: the more trusted source counts.
    fn believe(&mut self, address: SocketAddr, known: AddressSource, source: AddressSource) {
        if source.rank() <= known.rank() || !self.make_room(source) {
            return;
        }
        let Some(candidate) = self.waiting.remove(&(known, address)) else { return };
        for (used, is_new) in [(known, false), (source, true)] {
            let used = &mut self.uses[used.rank()];
            let count = |of: &mut usize| *of = if is_new { *of + 1 } else { *of - 1 };
            count(&mut used.addresses);
            if candidate.in_flight {
                count(&mut used.in_flight);
            }
        }
        self.waiting.insert((source, address), Candidate { awaited: true, ..candidate });
        self.sources.insert(address, source);
    }

    /// Makes room for one more address of a source, if need be by dropping one that failed, of its own or of
    /// the source with the most. Returns whether there is room.
    fn make_room(&mut self, source: AddressSource) -> bool {
        let bounds = source.bounds();
        let own = self.of(source..=source).count();
        if own >= source.addresses_max() {
            return self.drop_worst(source..=source, 1);
        }
        if self.uses[source.rank()].addresses < bounds.addresses_max {
            return true;
        }
        let mut counts: BTreeMap<AddressSource, usize> = BTreeMap::new();
        for ((other, _), _) in self.of(source.peers()) {
            *counts.entry(*other).or_default() += 1;
        }
        match counts.into_iter().max_by_key(|(_, count)| *count) {
            Some((most, count)) if count > own + 1 && self.drop_worst(most..=most, 0) => true,
            _ => self.drop_worst(source.peers(), 1),
        }
    }

    fn of(
        &self,
        sources: RangeInclusive<AddressSource>,
    ) -> impl Iterator<Item = (&(AddressSource, SocketAddr), &Candidate)> {
        let (from, to) = sources.into_inner();
        let lowest = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
        let from = self.waiting.range((from, lowest)..);
        from.take_while(move |((source, _), _)| *source <= to)
    }

    /// Drops the address of some sources that failed most often. Returns false if none failed `failures_min`
    /// times.
    fn drop_worst(&mut self, sources: RangeInclusive<AddressSource>, failures_min: u32) -> bool {
        let idle = self.of(sources).filter(|(_, c)| !c.in_flight && c.failures >= failures_min);
        let worst = idle.max_by_key(|(_, candidate)| (candidate.failures, candidate.next_dial));
        let Some((_, address)) = worst.map(|(place, _)| *place) else { return false };
        self.remove(address);
        true
    }

    /// Forgets the addresses of a source that has gone and that no other source named.
    pub fn forget(&mut self, source: AddressSource) {
        let idle = self.of(source..=source).filter(|(_, candidate)| !candidate.in_flight);
        let idle: Vec<_> = idle.map(|((_, address), _)| *address).collect();
        for address in idle {
            self.remove(address);
        }
    }

    fn known(&mut self, address: SocketAddr) -> Option<(AddressSource, &mut Candidate)> {
        let source = *self.sources.get(&address)?;
        Some((source, self.waiting.get_mut(&(source, address))?))
    }

    fn remove(&mut self, address: SocketAddr) -> Option<(AddressSource, Candidate)> {
        let source = self.sources.remove(&address)?;
        let candidate = self.waiting.remove(&(source, address))?;
        let used = &mut self.uses[source.rank()];
        used.addresses -= 1;
        used.in_flight -= usize::from(candidate.in_flight);
        Some((source, candidate))
    }

    /// Takes the addresses to dial at `now`; they count as in flight from here on.
    pub fn take_due(&mut self, now: Instant) -> Vec<SocketAddr> {
        let mut taken = Vec::new();
        for first in FIRST_SOURCES {
            let most = self.uses[first.rank()].free(first.bounds(), now);
            let mut due = if most > 0 { self.due(first.peers(), now) } else { Vec::new() };
            due.sort_unstable();
            taken.extend(due.into_iter().take(most).map(|(.., source, address)| (source, address)));
        }
        if self.last_dials.len() > SOURCES_MAX {
            self.last_dials.clear();
        }
        for place in &taken {
            self.dials += 1;
            self.last_dials.insert(place.0, self.dials);
            let used = &mut self.uses[place.0.rank()];
            used.begin(place.0.bounds(), now);
            if let Some(candidate) = self.waiting.get_mut(place) {
                candidate.in_flight = true;
            }
        }
        taken.into_iter().map(|(_, address)| address).collect()
    }

    /// Returns the due addresses of some sources, to be sorted: new addresses first, the sources by turns, and
    /// of each the address that waits longest. Many dead addresses do not keep a live one waiting.
    fn due(&self, sources: RangeInclusive<AddressSource>, now: Instant) -> Vec<Due> {
        let mut under_way: BTreeMap<AddressSource, usize> = BTreeMap::new();
        let mut due = Vec::new();
        for ((source, address), candidate) in self.of(sources) {
            if candidate.in_flight {
                *under_way.entry(*source).or_default() += 1;
            } else if candidate.next_dial <= now {
                let turn = self.last_dials.get(source).copied().unwrap_or(0);
                let has_failed = candidate.failures > 0;
                due.push((has_failed, 0, turn, candidate.next_dial, *source, *address));
            }
        }
        due.sort_unstable();
        for (_, before, _, _, source, _) in &mut due {
            let count = under_way.entry(*source).or_default();
            *before = *count;
            *count += 1;
        }
        due
    }

    /// Returns when the next address is due; `None` while the bounds on dials in flight are reached.
    #[must_use]
    pub fn next_dial(&self) -> Option<Instant> {
        let next = FIRST_SOURCES.into_iter().filter_map(|first| {
            let free = self.uses[first.rank()].next(first.bounds())?;
            let idle = self.of(first.peers()).filter(|(_, candidate)| !candidate.in_flight);
            Some(idle.map(|(_, candidate)| candidate.next_dial).min()?.max(free))
        });
        next.min()
    }

    /// Returns whether a node that starts still waits for the first dial of an address.
    #[must_use]
    pub fn has_fresh(&self) -> bool {
        self.waiting.values().any(|candidate| candidate.fresh && candidate.awaited)
    }

    /// Returns how many addresses were refused: over the bound of their source, or impossible to dial.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// Notes that a dial of `address` failed: it is dialled later, less and less often, and finally dropped.
    pub fn failed(&mut self, address: SocketAddr, now: Instant) {
        let Some((_, candidate)) = self.known(address) else { return };
        let often = candidate.failures + 1 < OFTEN_MAX;
        let most_ms = if often { BACKOFF_MS_MAX } else { BACKOFF_MS_LATER };
        let backoff_ms = (250u64 << (candidate.failures + 1).min(8)).min(most_ms);
        candidate.refusal = None;
        self.retry_after(address, backoff_ms, now);
    }

    /// Notes that a node is at `address` and has nothing to do with this process, a client, which will not
    /// change by itself: it is dialled as after a failure, and soon as seldom as after many.
    pub fn denied(&mut self, address: SocketAddr, now: Instant) {
        let Some((_, candidate)) = self.known(address) else { return };
        let backoff_ms = (250u64 << (candidate.failures + 1).min(8)).min(BACKOFF_MS_LATER);
        self.retry_after(address, backoff_ms, now);
    }

    /// Has all addresses dialled again at once: this process has other credentials now.
    pub fn retry_all(&mut self, now: Instant) {
        for candidate in self.waiting.values_mut() {
            candidate.next_dial = candidate.next_dial.min(now);
        }
    }

    /// Notes that the node at `address` refused this one: it is dialled later. Returns whether that is to be
    /// reported, as it is once for each address and reason. What callers name is not: it may be anybody's.
    pub fn refused_by(&mut self, address: SocketAddr, refusal: DialRefusal, now: Instant) -> bool {
        let Some((source, candidate)) = self.known(address) else { return false };
        let is_new = candidate.reported.replace(refusal) != Some(refusal);
        candidate.refusal = Some(refusal);
        let backoff_ms = (REFUSED_MS << candidate.failures.min(8)).min(REFUSED_MS_MAX);
        self.retry_after(address, backoff_ms, now);
        is_new && !matches!(source, AddressSource::Caller(_))
    }

    /// Returns the addresses whose nodes refuse this one, and why, but not those that callers name.
    pub fn refusals(&self) -> impl Iterator<Item = (SocketAddr, DialRefusal)> {
        let named = self.waiting.iter().filter(|((source, _), _)| source.rank() > 0);
        named.filter_map(|((_, address), candidate)| Some((*address, candidate.refusal?)))
    }

    /// Returns whether a node that the configuration names refuses this one.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        self.waiting
            .values()
            .any(|candidate| candidate.is_configured && candidate.refusal.is_some())
    }

    /// Ends a dial of `address`, and has it dialled again after this long, or drops it.
    fn retry_after(&mut self, address: SocketAddr, backoff_ms: u64, now: Instant) {
        let Some((source, candidate)) = self.known(address) else { return };
        candidate.failures += 1;
        candidate.last_failure = now;
        candidate.fresh = false;
        candidate.next_dial = now.plus_ms(backoff_ms);
        let was_dialling = core::mem::take(&mut candidate.in_flight);
        let is_over = candidate.failures >= source.bounds().failures_max_each;
        self.uses[source.rank()].in_flight -= usize::from(was_dialling);
        if is_over {
            self.remove(address);
        }
    }

    /// Returns whether dials of `address` have failed, and none has succeeded.
    #[must_use]
    pub fn is_failing(&self, address: SocketAddr) -> bool {
        let source = self.sources.get(&address);
        let candidate = source.and_then(|source| self.waiting.get(&(*source, address)));
        candidate.is_some_and(|candidate| candidate.failures >= FAILING_MIN)
    }

    /// Notes that a node responded at `address`.
    pub fn answered(&mut self, address: SocketAddr) {
        if let Some((source, candidate)) = self.remove(address)
            && candidate.in_flight
        {
            self.uses[source.rank()].answered();
        }
    }

    /// Sets `address` aside for a while: this process itself, or another cluster, is there.
    pub fn set_aside(&mut self, address: SocketAddr, now: Instant) {
        self.remove(address);
        self.resting.retain(|_, until| *until > now);
        if self.resting.len() < RESTING_MAX {
            self.resting.insert(address, now.plus_ms(REST_MS));
        }
    }
}

/// Whether a node can be at an address at all.
fn can_be_dialled(address: SocketAddr) -> bool {
    let is_no_host = match address.ip() {
        IpAddr::V4(ip) => ip.is_unspecified() || ip.is_multicast() || ip.is_broadcast(),
        IpAddr::V6(ip) => ip.is_unspecified() || ip.is_multicast(),
    };
    address.port() != 0 && !is_no_host
}
