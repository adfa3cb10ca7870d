//! The members of the cluster and the addresses to be dialled, as one node sees them.
//!
//! Each observer judges reachability for itself: no other node takes a member out of the rotation or puts
//! it back. Identity is the incarnation; an address belongs to the node that responded there last.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    string::String,
    sync::Arc,
    vec::Vec,
};
use core::net::{IpAddr, SocketAddr};

use super::{
    candidates::{AddressSource, Candidates, DialRefusal},
    failure_detector::FailureDetector,
    latency::Latency,
    placement::{Owners, Placement},
    ranking::Ranking,
};
use crate::{
    key::Key,
    purge::is_reserved,
    time::Instant,
    version::Incarnation,
    wire::{NodeInfo, NodeState},
};

/// The most members of a view.
pub const MEMBERS_MAX: usize = 4096;

/// Whether a member responds, for this observer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reachability {
    /// It responded lately.
    Reachable,
    /// It has been silent for too long.
    Unreachable,
}

/// A node with which this one did a handshake.
#[derive(Clone, Debug)]
pub struct Member {
    /// What it last said of itself.
    pub info: NodeInfo,
    /// The address at which it responded.
    pub address: SocketAddr,
    /// Whether it responds.
    pub reach: Reachability,
    /// Since when that holds.
    pub since: Instant,
    /// When it last gave a sign of life.
    pub last_heard: Instant,
    /// When it last responded to a call.
    pub last_response: Instant,
    /// Whether a call to it failed and it has not responded since.
    pub suspect: bool,
    /// Whether nothing listens at its address any more: its process has exited, and its data is gone.
    pub has_exited: bool,
    /// Why it refuses this node, if it does.
    pub refusal: Option<DialRefusal>,
    /// Whether it has introduced itself here, so that it sends its writes here too.
    pub has_introduced_itself: bool,
    /// Whether a caller introduced itself in its name with other properties than are known here: it gets a
    /// handshake.
    pub needs_handshake: bool,
    /// Its addresses by the last caller that used its name while it responded, which may be anybody.
    /// Dialled when it falls silent.
    pub claimed_addresses: Vec<SocketAddr>,
    /// Its smoothed round-trip time.
    pub latency: Latency,
    /// Whether a gossip message to it is in flight on the connection.
    pub gossip_in_flight: bool,
    /// Its failure detector.
    pub detector: FailureDetector,
    /// When it is pinged next.
    pub next_ping: Instant,
    /// When it was pinged last.
    pub last_ping: Instant,
    /// When the last handshake with it was done.
    pub last_handshake: Instant,
    /// Handshakes done since the set of reachable nodes last changed here.
    pub handshakes: u32,
    /// How far its clock is ahead of this node's own, in milliseconds.
    pub clock_ahead_ms: Option<i64>,
    /// The optional features that it announced.
    pub features: u64,
    /// The number of entries that it announced.
    pub entries: u64,
}

impl Member {
    /// Returns whether it can be asked: it responds, even if it has to prove itself before it is back in the
    /// rotation.
    #[must_use]
    pub fn may_be_asked(&self) -> bool {
        self.info.state != NodeState::Leaving
            && (self.reach == Reachability::Reachable || self.detector.is_responding())
    }

    /// Returns whether writes go to it.
    #[must_use]
    pub fn takes_writes(&self) -> bool {
        self.reach == Reachability::Reachable && self.info.state != NodeState::Leaving
    }
}

/// The members and candidates of one observer.
#[derive(Debug, Default)]
pub struct View {
    members: BTreeMap<Incarnation, Member>,
    candidates: Candidates,
    /// The ranking of the other regions.
    ranking: Ranking,
    /// The result of [`other_regions`](Self::other_regions) since the last change.
    regions: Arc<[Arc<str>]>,
    /// The sum of the hashes of the members to which writes go, since the last change.
    reached: u64,
    /// Who owns which key in the observer's region.
    placement: Placement,
    /// Who has the values while not every node has what it owns.
    fallback: Placement,
}

impl View {
    /// Returns all members by incarnation.
    pub fn members(&self) -> impl Iterator<Item = &Member> + Clone {
        self.members.values()
    }

    /// Returns all members, to change them.
    pub fn members_mut(&mut self) -> impl Iterator<Item = &mut Member> {
        self.members.values_mut()
    }

    /// Returns a member.
    #[must_use]
    pub fn member(&self, id: Incarnation) -> Option<&Member> {
        self.members.get(&id)
    }

    /// Returns a member, to change it.
    pub fn member_mut(&mut self, id: Incarnation) -> Option<&mut Member> {
        self.members.get_mut(&id)
    }

    /// Returns the reachable members.
    pub fn reachable(&self) -> impl Iterator<Item = &Member> {
        self.members().filter(|member| member.reach == Reachability::Reachable)
    }

    /// Returns the members in `region` to which writes go.
    pub fn writable_in<'a>(&'a self, region: &'a str) -> impl Iterator<Item = &'a Member> + Clone {
        self.members().filter(move |m| m.takes_writes() && m.info.region == region)
    }

    /// Returns who owns which key in the observer's region.
    #[must_use]
    pub fn placement(&self) -> &Placement {
        &self.placement
    }

    /// Returns the owners of a key; none if every node of the observer's region keeps its value, as all do of what
    /// nodes alone write.
    #[must_use]
    pub fn owners(&self, key: &Key) -> Option<Owners> {
        let is_placed = !self.placement.is_everyone() && !is_reserved(key.as_bytes());
        is_placed.then(|| self.placement.owners(key.hash()))
    }

    /// Returns whether a node of the observer's region keeps the value of a key.
    #[must_use]
    pub fn keeps(&self, node: Incarnation, key: &Key) -> bool {
        self.owners(key).is_none_or(|owners| owners.contains(&node))
    }

    /// Returns whether writes go to a member, and so what its keys are about.
    #[must_use]
    pub fn takes_writes(&self, id: Incarnation) -> bool {
        self.member(id).is_some_and(Member::takes_writes)
    }

    /// Returns who has the values: the owners, or while nodes change to keeping everything, and this one may lack
    /// some (`is_complete` is false), those who owned them before.
    #[must_use]
    pub fn holders(&self, is_complete: bool) -> &Placement {
        let is_changing = self.placement.is_everyone() && !is_complete;
        if is_changing { &self.fallback } else { &self.placement }
    }

    /// Replaces the placement, and that of the time before. Returns whether the first differs from the one before.
    pub fn set_placement(&mut self, placement: Placement, fallback: &Placement) -> bool {
        let differs = self.placement != placement;
        self.placement = placement;
        if self.fallback != *fallback {
            self.fallback = fallback.clone();
        }
        differs
    }

    /// Returns every other region with a member to which writes go, as of the last
    /// [`refresh`](Self::refresh): every write asks for it, and it seldom changes.
    #[must_use]
    pub fn other_regions(&self) -> Arc<[Arc<str>]> {
        Arc::clone(&self.regions)
    }

    /// Recomputes what depends on the members to which writes go, after a change of their set or of their
    /// regions. `own` is the observer's region.
    pub fn refresh(&mut self, own: &str) {
        let reached = self.members().filter(|m| m.takes_writes()).map(|m| m.info.incarnation);
        self.reached = reached.fold(0, |sum, id| sum.wrapping_add(hash(id)));
        let writable = self.members().filter(|m| m.takes_writes() && m.info.region != own);
        let regions: BTreeSet<&str> = writable.map(|m| m.info.region.as_str()).collect();
        if !regions.iter().copied().eq(self.regions.iter().map(|region| &**region)) {
            self.regions = regions.into_iter().map(Arc::from).collect();
        }
    }

    /// Ranks the other regions by their latencies. `own` is the observer's region.
    pub fn rank_regions(&mut self, own: &str) {
        let latencies = self.region_latencies(own);
        self.ranking.update(&latencies);
    }

    /// Returns the other regions, nearest first.
    #[must_use]
    pub fn regions(&self) -> &[String] {
        self.ranking.regions()
    }

    /// Returns the lowest latency measured in each region other than `own`.
    #[must_use]
    pub fn region_latencies(&self, own: &str) -> BTreeMap<String, Option<u64>> {
        let mut regions = BTreeMap::new();
        for member in self.members().filter(|m| m.takes_writes() && m.info.region != own) {
            let nearest: &mut Option<u64> = regions.entry(member.info.region.clone()).or_default();
            *nearest = nearest.iter().copied().chain(member.latency.micros()).min();
        }
        regions
    }

    /// Returns a number that is the same for two nodes that reach the same nodes, themselves included; as of
    /// the last [`refresh`](Self::refresh).
    #[must_use]
    pub fn fingerprint(&self, own: Incarnation) -> u64 {
        self.reached.wrapping_add(hash(own))
    }

    /// Adds a candidate address named by `source`, unless a member is known to respond there.
    pub fn propose(&mut self, address: SocketAddr, source: AddressSource, now: Instant) {
        let known = self.members().any(|m| {
            m.address == address
                || (m.reach == Reachability::Reachable && m.info.addresses.contains(&address))
        });
        if !known {
            self.candidates.add(address, source, now);
        }
    }

    /// Returns the addresses to be dialled.
    #[must_use]
    pub fn candidates(&self) -> &Candidates {
        &self.candidates
    }

    /// Returns the addresses whose nodes refuse this one, and why.
    pub fn refusals(&self) -> impl Iterator<Item = (SocketAddr, DialRefusal)> {
        let members = self.members().filter_map(|m| Some((m.address, m.refusal?)));
        members.chain(self.candidates.refusals())
    }

    /// Returns the addresses to be dialled, to change them.
    pub fn candidates_mut(&mut self) -> &mut Candidates {
        &mut self.candidates
    }

    /// Returns the members other than `id` that were known to be at `address`: `id` displaces them.
    #[must_use]
    pub fn displaced_by(&self, id: Incarnation, address: SocketAddr) -> Vec<Incarnation> {
        let there = self.members().filter(|m| m.address == address && m.info.incarnation != id);
        there.map(|m| m.info.incarnation).collect()
    }

    /// Notes a handshake at `address`: the node becomes a member, if it is none. A known, reachable member
    /// keeps the address that works, and what was known of it.
    pub fn shook_hands(&mut self, info: NodeInfo, address: SocketAddr, now: Instant) {
        self.candidates.answered(address);
        let id = info.incarnation;
        if let Some(member) = self.members.get_mut(&id) {
            if member.reach == Reachability::Unreachable {
                member.address = address;
                member.next_ping = now;
            }
            member.last_handshake = now;
        } else if self.members.len() < MEMBERS_MAX {
            let member = Member {
                info,
                address,
                reach: Reachability::Unreachable,
                since: now,
                last_heard: now,
                last_response: now,
                suspect: false,
                has_exited: false,
                refusal: None,
                has_introduced_itself: false,
                needs_handshake: false,
                claimed_addresses: Vec::new(),
                latency: Latency::default(),
                gossip_in_flight: false,
                detector: FailureDetector::default(),
                next_ping: now,
                last_ping: now,
                last_handshake: now,
                handshakes: 0,
                clock_ahead_ms: None,
                features: 0,
                entries: 0,
            };
            self.members.insert(id, member);
        }
    }

    /// Returns whether `source` is an address of a member, by its own handshake.
    #[must_use]
    pub fn is_address_of(&self, id: Incarnation, source: SocketAddr) -> bool {
        let is_at = |m: &Member| m.address == source || m.info.addresses.contains(&source);
        self.member(id).is_some_and(is_at)
    }

    /// Returns whether `ip` is the host of a member: this node reached it there, or the member said so in
    /// this node's own handshake with it. From other nodes of its host a node sees the loopback address.
    #[must_use]
    pub fn is_host_of(&self, id: Incarnation, ip: IpAddr) -> bool {
        let is_same = |at: IpAddr| at == ip || (at.is_loopback() && ip.is_loopback());
        self.member(id).is_some_and(|member| {
            let announced = member.info.addresses.iter();
            announced.chain([&member.address]).any(|at| is_same(at.ip().to_canonical()))
        })
    }

    /// Returns whether a member is reachable, and `address` is none of its own: what is said there in its
    /// name may be false.
    #[must_use]
    pub fn is_elsewhere(&self, id: Incarnation, address: SocketAddr) -> bool {
        let is_reachable = |m: &Member| m.reach == Reachability::Reachable;
        self.member(id).is_some_and(is_reachable) && !self.is_address_of(id, address)
    }

    /// Removes a member.
    pub fn remove(&mut self, id: Incarnation) -> Option<Member> {
        self.members.remove(&id)
    }
}

fn hash(id: Incarnation) -> u64 {
    xxhash_rust::xxh3::xxh3_64(&id.0.to_le_bytes())
}
