//! Addresses at which nodes may stand, and when each is to be dialled.
//!
//! Whoever names an address says how far it is believed. What discovery found, what nodes told that this
//! one reached, and what callers say of themselves have addresses_max, dials under way and failures of their own,
//! so that none of them displaces or delays the others; within each, all sources have the same share.

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
use crate::time::Instant;

/// Most sources of which it is remembered when they had their turn.
const SOURCES_MAX: usize = 8_192;

/// Most addresses that are left alone.
const RESTING_MAX: usize = 4096;

/// How long after a failure somebody who speaks from an address has it dialled again, in
/// milliseconds: soon at first, for a node that has just started, and later not so soon, for one that
/// can be heard but not reached.
const GREETED_MS: u64 = 250;
const GREETED_OFTEN_MS: u64 = 1_000;
const GREETED_SOON_MAX: u32 = 4;

/// Longest wait between two tries of an address that does not answer, in milliseconds: nodes that start
/// while they are cut off from each other are to meet soon after.
const BACKOFF_MS_MAX: u64 = 1_000;

/// The same after [`OFTEN_MAX`] failures, two minutes: most likely nobody is there.
const BACKOFF_MS_LATER: u64 = 5_000;
const OFTEN_MAX: u32 = 120;

/// How long an address that belongs to this process, or to another cluster, is left alone.
const REST_MS: u64 = 30_000;

/// An address that failed so often in a row is not counted upon.
const FAILING_MIN: u32 = 2;

/// For so long after the first caller a node that starts waits until those who called have been tried, in
/// milliseconds: one that calls for ever does not keep it from being ready.
const CALLERS_AWAITED_MS: u64 = 3_000;

/// An address at which a node may stand.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    next_dial: Instant,
    in_flight: bool,
    failures: u32,
    last_failure: Instant,
    /// No try has ended yet.
    fresh: bool,
    /// Whether a node that starts waits for the first try.
    awaited: bool,
}

/// What is due, so that it sorts: whether it failed before, how many of its source come before it, and when
/// that had its turn; since when; who named it, and where.
type Due = (bool, usize, u64, Instant, AddressSource, SocketAddr);

/// Addresses to be tried, bounded by who named them.
#[derive(Debug, Default)]
pub struct Candidates {
    waiting: BTreeMap<(AddressSource, SocketAddr), Candidate>,
    sources: BTreeMap<SocketAddr, AddressSource>,
    uses: [SourceUse; BOUNDS.len()],
    /// How many dials there had been when the last address of each source was dialled.
    last_dials: BTreeMap<AddressSource, u64>,
    dials: u64,
    resting: BTreeMap<SocketAddr, Instant>,
    first_caller: Option<Instant>,
    refused: u64,
}

impl Candidates {
    /// Notes that a node may stand at `address`, as `source` says; one that is known or rests is left
    /// alone.
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
        };
        self.waiting.insert((source, address), candidate);
        self.sources.insert(address, source);
        self.uses[source.rank()].addresses_max += 1;
    }

    /// Dials `address` soon, even if it rests: somebody says that it stands there.
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

    /// An address that is known is named again: the one who is believed further counts.
    fn believe(&mut self, address: SocketAddr, known: AddressSource, source: AddressSource) {
        if source.rank() <= known.rank() || !self.make_room(source) {
            return;
        }
        let Some(candidate) = self.waiting.remove(&(known, address)) else { return };
        for (share, is_new) in [(known, false), (source, true)] {
            let share = &mut self.uses[share.rank()];
            let count = |of: &mut usize| *of = if is_new { *of + 1 } else { *of - 1 };
            count(&mut share.addresses_max);
            if candidate.in_flight {
                count(&mut share.in_flight);
            }
        }
        self.waiting.insert((source, address), Candidate { awaited: true, ..candidate });
        self.sources.insert(address, source);
    }

    /// Makes room for one more address of a source, if need be by dropping one that failed: of its own, or
    /// of whoever named most. Whether there is room.
    fn make_room(&mut self, source: AddressSource) -> bool {
        let bounds = source.bounds();
        let own = self.of(source..=source).count();
        if own >= source.addresses_max() {
            return self.drop_worst(source..=source, 1);
        }
        if self.uses[source.rank()].addresses_max < bounds.addresses_max {
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

    /// Drops the address of some sources that failed most often; false if none failed `failures_min` times.
    fn drop_worst(&mut self, sources: RangeInclusive<AddressSource>, failures_min: u32) -> bool {
        let idle = self.of(sources).filter(|(_, c)| !c.in_flight && c.failures >= failures_min);
        let worst = idle.max_by_key(|(_, candidate)| (candidate.failures, candidate.next_dial));
        let Some((_, address)) = worst.map(|(place, _)| *place) else { return false };
        self.remove(address);
        true
    }

    /// Somebody has gone: what it named and nobody else did is not dialled.
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
        let share = &mut self.uses[source.rank()];
        share.addresses_max -= 1;
        share.in_flight -= usize::from(candidate.in_flight);
        Some((source, candidate))
    }

    /// The addresses to dial at `now`; they count as being dialled from here on.
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
            let share = &mut self.uses[place.0.rank()];
            share.begin(place.0.bounds(), now);
            if let Some(candidate) = self.waiting.get_mut(place) {
                candidate.in_flight = true;
            }
        }
        taken.into_iter().map(|(_, address)| address).collect()
    }

    /// What is due of some sources, to be sorted: new addresses first, those of sources in turn, and of each
    /// what waits longest. So many dead addresses, whoever named them, do not keep a live one waiting.
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

    /// When the next address is to be dialled; none while as many are as may be.
    #[must_use]
    pub fn next_dial(&self) -> Option<Instant> {
        let next = FIRST_SOURCES.into_iter().filter_map(|first| {
            let free = self.uses[first.rank()].next(first.bounds())?;
            let idle = self.of(first.peers()).filter(|(_, candidate)| !candidate.in_flight);
            Some(idle.map(|(_, candidate)| candidate.next_dial).min()?.max(free))
        });
        next.min()
    }

    /// Whether an address is known of which no try has ended yet, and for which a node that starts waits.
    #[must_use]
    pub fn has_fresh(&self) -> bool {
        self.waiting.values().any(|candidate| candidate.fresh && candidate.awaited)
    }

    /// How many addresses were not taken: more than their source may name, or none that can be dialled.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// A try of `address` failed: later again, less and less often, and in the end not at all.
    pub fn failed(&mut self, address: SocketAddr, now: Instant) {
        let Some((source, candidate)) = self.known(address) else { return };
        candidate.failures += 1;
        candidate.last_failure = now;
        candidate.fresh = false;
        let often = candidate.failures < OFTEN_MAX;
        let most_ms = if often { BACKOFF_MS_MAX } else { BACKOFF_MS_LATER };
        let backoff_ms = (250u64 << candidate.failures.min(8)).min(most_ms);
        candidate.next_dial = now.plus_ms(backoff_ms);
        let was_dialling = core::mem::take(&mut candidate.in_flight);
        let is_over = candidate.failures >= source.bounds().failures_max_each;
        self.uses[source.rank()].in_flight -= usize::from(was_dialling);
        if is_over {
            self.remove(address);
        }
    }

    /// Whether tries of `address` have failed, and none has succeeded.
    #[must_use]
    pub fn is_failing(&self, address: SocketAddr) -> bool {
        let source = self.sources.get(&address);
        let candidate = source.and_then(|source| self.waiting.get(&(*source, address)));
        candidate.is_some_and(|candidate| candidate.failures >= FAILING_MIN)
    }

    /// A node answered at `address`.
    pub fn answered(&mut self, address: SocketAddr) {
        if let Some((source, candidate)) = self.remove(address)
            && candidate.in_flight
        {
            self.uses[source.rank()].answered();
        }
    }

    /// Leaves `address` alone for a while: this process itself, or another cluster, stands there.
    pub fn set_aside(&mut self, address: SocketAddr, now: Instant) {
        self.remove(address);
        self.resting.retain(|_, until| *until > now);
        if self.resting.len() < RESTING_MAX {
            self.resting.insert(address, now.plus_ms(REST_MS));
        }
    }
}

/// Whether a node can stand there at all.
fn can_be_dialled(address: SocketAddr) -> bool {
    let nobody = match address.ip() {
        IpAddr::V4(ip) => ip.is_unspecified() || ip.is_multicast() || ip.is_broadcast(),
        IpAddr::V6(ip) => ip.is_unspecified() || ip.is_multicast(),
    };
    address.port() != 0 && !nobody
}
