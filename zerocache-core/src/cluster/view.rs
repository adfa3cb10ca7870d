//! The members of the cluster and the addresses still to be tried, as one node sees them.
//!
//! Reachability is the observer's own: nobody else's word takes a member out of the rotation or
//! puts it back. Identity is the incarnation; an address belongs to whoever answers there last.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    string::String,
    sync::Arc,
    vec::Vec,
};
use core::net::SocketAddr;

use super::{
    candidates::{AddressSource, Candidates},
    latency::Latency,
    pulse::Pulse,
};
use crate::{
    time::Instant,
    version::Incarnation,
    wire::{NodeInfo, NodeState},
};

/// Most members of a view.
pub const MEMBERS_MAX: usize = 4096;

/// Whether a member answers, for this observer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// It answered lately.
    Reachable,
    /// It has been silent for too long.
    Unreachable,
}

/// How often it is said that a member missed writes, in milliseconds.
const REPORT_EVERY_MS: u64 = 5_000;

/// The writes that a member missed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Missed {
    /// When the first one was.
    pub since: Option<Instant>,
    /// When the last one was.
    last: Option<Instant>,
    /// Writes given up since the last report.
    pub dropped: usize,
    /// Writes that it refused since the last report.
    pub refused: usize,
    reported: Option<Instant>,
}

impl Missed {
    /// Notes that the member misses a write.
    pub fn note(&mut self, now: Instant) {
        self.since.get_or_insert(now);
        self.last = Some(now);
    }

    /// The member has had all writes that were made before `at`.
    pub fn had_all_before(&mut self, at: Instant) {
        if self.last.is_some_and(|last| last < at) {
            (self.since, self.last) = (None, None);
        }
    }

    /// What is to be reported at `now`: writes dropped and refused, not more often than every few
    /// seconds.
    pub fn to_report(&mut self, now: Instant) -> Option<(usize, usize)> {
        let recent = self.reported.is_some_and(|at| now.since_ms(at) < REPORT_EVERY_MS);
        if recent || self.dropped + self.refused == 0 {
            return None;
        }
        self.reported = Some(now);
        Some((core::mem::take(&mut self.dropped), core::mem::take(&mut self.refused)))
    }
}

/// A node that shook hands with this one.
#[derive(Clone, Debug)]
pub struct Member {
    /// What it said of itself last.
    pub info: NodeInfo,
    /// The address at which it answered.
    pub address: SocketAddr,
    /// Whether it answers.
    pub reach: Reach,
    /// Since when that is so.
    pub since: Instant,
    /// When it gave the last sign of life.
    pub heard: Instant,
    /// When it last answered what it was asked.
    pub answered: Instant,
    /// Whether a call to it timed out and nothing has been heard since.
    pub suspect: bool,
    /// Whether nothing listens at its address any more: its process has ended, and what it knew with it.
    pub has_ended: bool,
    /// Whether it has introduced itself here, so that it sends its writes here too.
    pub greeted: bool,
    /// Whether somebody introduced itself in its name otherwise than it is known here: it is asked.
    pub is_doubted: bool,
    /// Where it is, by the last one who called in its name while it answered: anybody. Dialled when it falls
    /// silent.
    pub claimed: Vec<SocketAddr>,
    /// Its smoothed round-trip time.
    pub latency: Latency,
    /// Whether gossip is under way to it on the connection.
    pub is_told: bool,
    /// The heartbeats to it.
    pub pulse: Pulse,
    /// When it is asked next whether it lives.
    pub next_ping: Instant,
    /// When it was asked last.
    pub last_ping: Instant,
    /// When the whole handshake was last done, to learn of the members that it knows.
    pub last_hello: Instant,
    /// Whole handshakes done since the set of reachable nodes last changed here.
    pub greetings: u32,
    /// The writes that it missed.
    pub missed: Missed,
    /// How far its clock is ahead of this node's own, in milliseconds.
    pub ahead_ms: Option<i64>,
    /// The optional abilities that it said it has.
    pub features: u64,
    /// How many entries it said it holds.
    pub entries: u64,
}

impl Member {
    /// Whether it can be asked: it answers, even if it has to prove itself before it is back in the
    /// rotation.
    #[must_use]
    pub fn may_be_asked(&self) -> bool {
        self.info.state != NodeState::Leaving
            && (self.reach == Reach::Reachable || self.pulse.is_answering())
    }

    /// Whether writes go to it.
    #[must_use]
    pub fn takes_writes(&self) -> bool {
        self.reach == Reach::Reachable && self.info.state != NodeState::Leaving
    }
}

/// The members and candidates of one observer.
#[derive(Debug, Default)]
pub struct View {
    members: BTreeMap<Incarnation, Member>,
    candidates: Candidates,
    /// What [`other_regions`](Self::other_regions) says, since the last change.
    regions: Arc<[Arc<str>]>,
    /// The sum of the hashes of the members to which writes go, since then.
    reached: u64,
}

impl View {
    /// All members by incarnation.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.values()
    }

    /// All members, to change them.
    pub fn members_mut(&mut self) -> impl Iterator<Item = &mut Member> {
        self.members.values_mut()
    }

    /// One member.
    #[must_use]
    pub fn member(&self, id: Incarnation) -> Option<&Member> {
        self.members.get(&id)
    }

    /// One member, to change it.
    pub fn member_mut(&mut self, id: Incarnation) -> Option<&mut Member> {
        self.members.get_mut(&id)
    }

    /// The members in `region` to which writes go.
    pub fn writable_in<'a>(&'a self, region: &'a str) -> impl Iterator<Item = &'a Member> {
        self.members().filter(move |m| m.takes_writes() && m.info.region == region)
    }

    /// Every other region with a member to which writes go, as of the last
    /// [`writable_changed`](Self::writable_changed): writes ask for it, and it seldom changes.
    #[must_use]
    pub fn other_regions(&self) -> Arc<[Arc<str>]> {
        Arc::clone(&self.regions)
    }

    /// To which members writes go, or where they stand, may have changed. `own` is the observer's
    /// region.
    pub fn writable_changed(&mut self, own: &str) {
        let reached = self.members().filter(|m| m.takes_writes()).map(|m| m.info.incarnation);
        self.reached = reached.fold(0, |sum, id| sum.wrapping_add(hash(id)));
        let writable = self.members().filter(|m| m.takes_writes() && m.info.region != own);
        let regions: BTreeSet<&str> = writable.map(|m| m.info.region.as_str()).collect();
        if !regions.iter().copied().eq(self.regions.iter().map(|region| &**region)) {
            self.regions = regions.into_iter().map(Arc::from).collect();
        }
    }

    /// The least latency measured in each region other than `own`.
    #[must_use]
    pub fn region_latencies(&self, own: &str) -> BTreeMap<String, Option<u64>> {
        let mut regions = BTreeMap::new();
        for member in self.members().filter(|m| m.takes_writes() && m.info.region != own) {
            let nearest: &mut Option<u64> = regions.entry(member.info.region.clone()).or_default();
            *nearest = nearest.iter().copied().chain(member.latency.micros()).min();
        }
        regions
    }

    /// A number that is the same for two nodes that reach the same nodes, themselves included; as of the
    /// last [`writable_changed`](Self::writable_changed).
    #[must_use]
    pub fn fingerprint(&self, own: Incarnation) -> u64 {
        self.reached.wrapping_add(hash(own))
    }

    /// Notes that a node may stand at `address`, as `teller` says, unless a member is known to answer there.
    pub fn propose(&mut self, address: SocketAddr, teller: AddressSource, now: Instant) {
        let known = self.members().any(|m| {
            m.address == address
                || (m.reach == Reach::Reachable && m.info.addresses.contains(&address))
        });
        if !known {
            self.candidates.add(address, teller, now);
        }
    }

    /// The addresses to be tried.
    #[must_use]
    pub fn candidates(&self) -> &Candidates {
        &self.candidates
    }

    /// The addresses to be tried, to change them.
    pub fn candidates_mut(&mut self) -> &mut Candidates {
        &mut self.candidates
    }

    /// The members other than `id` that were known to stand at `address`: they yield.
    #[must_use]
    pub fn yielding(&self, id: Incarnation, address: SocketAddr) -> Vec<Incarnation> {
        let there = self.members().filter(|m| m.address == address && m.info.incarnation != id);
        there.map(|m| m.info.incarnation).collect()
    }

    /// A handshake at `address` succeeded: the node becomes a member, if it is none. A known,
    /// reachable member keeps the address that works, and what was known of it.
    pub fn shook_hands(&mut self, info: NodeInfo, address: SocketAddr, now: Instant) {
        self.candidates.answered(address);
        let id = info.incarnation;
        if let Some(member) = self.members.get_mut(&id) {
            if member.reach == Reach::Unreachable {
                member.address = address;
                member.next_ping = now;
            }
            member.last_hello = now;
        } else if self.members.len() < MEMBERS_MAX {
            let member = Member {
                info,
                address,
                reach: Reach::Unreachable,
                since: now,
                heard: now,
                answered: now,
                suspect: false,
                has_ended: false,
                greeted: false,
                is_doubted: false,
                claimed: Vec::new(),
                latency: Latency::default(),
                is_told: false,
                pulse: Pulse::default(),
                next_ping: now,
                last_ping: now,
                last_hello: now,
                greetings: 0,
                missed: Missed::default(),
                ahead_ms: None,
                features: 0,
                entries: 0,
            };
            self.members.insert(id, member);
        }
    }

    /// Whether what comes from `source` comes from a member: it stands there, by its own handshake.
    #[must_use]
    pub fn speaks_from(&self, id: Incarnation, source: SocketAddr) -> bool {
        let is_at = |m: &Member| m.address == source || m.info.addresses.contains(&source);
        self.member(id).is_some_and(is_at)
    }

    /// Forgets a member.
    pub fn remove(&mut self, id: Incarnation) -> Option<Member> {
        self.members.remove(&id)
    }
}

fn hash(id: Incarnation) -> u64 {
    xxhash_rust::xxh3::xxh3_64(&id.0.to_le_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_misses_writes_until_it_has_had_the_last_of_them() {
        let at = Instant::from_millis;
        let mut missed = Missed::default();
        missed.note(at(1_000));
        missed.note(at(3_000));
        missed.had_all_before(at(3_000));
        assert_eq!(missed.since, Some(at(1_000)));
        missed.had_all_before(at(3_001));
        assert_eq!(missed.since, None);
        missed.note(at(5_000));
        assert_eq!(missed.since, Some(at(5_000)));
    }
}
