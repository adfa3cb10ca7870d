//! The nodes that a client knows, and which of them are in the rotation.
//!
//! A node that fails leaves the rotation until it answers a probe. A node that leaves a request unanswered
//! for a while, and from which nothing is heard meanwhile, is passed over before that request times out.
//! A frozen node therefore costs only the requests already sent to it. `rotation.rs` defines what happens
//! when most or all nodes are out.

use alloc::{collections::BTreeMap, string::String, vec::Vec};
use core::net::SocketAddr;

use super::{
    rotation::Turns,
    tiers::{Step, Tier},
};
use crate::{
    cluster::{AddressSource, Candidates, Latency, Placement, Ranking, Residents},
    time::Instant,
    version::Incarnation,
    wire::{NodeInfo, NodeState, features},
};

/// Most nodes that a client knows.
const NODES_MAX: usize = 4096;

/// A node leaves the rotation when a request is unanswered for this long, in milliseconds, and nothing else
/// is heard from it; or for three round-trip times, if that is more.
const SILENCE_MS: u64 = 100;

/// The interval between probes of a local node, in milliseconds.
const PROBE_LOCAL_MS: u64 = 500;

/// The interval between probes of a node in another region, in milliseconds.
const PROBE_REMOTE_MS: u64 = 1_000;

/// The interval between probes of a node that is out, in milliseconds.
const PROBE_OUT_MS: u64 = 250;

/// A node that has not answered for this long is removed, in milliseconds.
const FORGET_MS: u64 = 600_000;

/// Most nodes that are asked, one after the other, what any node can answer.
const ASKED_MAX: usize = 3;

/// A node in the directory of a client.
#[derive(Clone, Debug)]
pub struct NodeEntry {
    /// The description that the node gave of itself last.
    pub info: NodeInfo,
    /// The address at which it answered.
    pub address: SocketAddr,
    /// Its smoothed round-trip time.
    pub latency: Latency,
    /// Whether it failed and has not answered since.
    pub out: bool,
    /// Reads that it answered with a value.
    pub hits: u64,
    /// Its optional features.
    pub(super) features: u64,
    /// Whether it stands in the client's own region.
    pub(super) is_local: bool,
    /// Whether it stands in the client's own zone, too, if the client states one.
    pub(super) is_in_zone: bool,
    /// Whether it is out because of a time-out that nothing has confirmed since: the fault may as well be
    /// the client's.
    is_doubtful: bool,
    /// The number of its view when its members were last learned.
    view: Option<u64>,
    pub(super) heard: Instant,
    pub(super) silent_since: Option<Instant>,
    next_probe: Instant,
    /// It is passed over until this time, because it was overloaded.
    pub(super) relieved_until: Instant,
    /// The largest value that it accepts, and until when that limit is used.
    pub(super) value_bytes_max: Option<(u64, Instant)>,
}

impl NodeEntry {
    /// Whether it is in the rotation at `now`: it is reachable, and did not report an overload lately.
    #[must_use]
    pub fn in_rotation(&self, now: Instant) -> bool {
        self.is_reachable(now) && now >= self.relieved_until
    }

    /// Whether it answered last time, is not silent, and is not shutting down.
    #[must_use]
    pub fn is_reachable(&self, now: Instant) -> bool {
        !self.out && !self.is_silent(now) && self.serves()
    }

    /// Whether it stands in the client's own region.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.is_local
    }

    /// Nodes of the client's zone are nearest, then those of its region.
    pub(super) fn nearness(&self) -> (bool, bool) {
        (self.is_local, self.is_in_zone)
    }

    /// Whether it may be asked at `now` although it is out or passed over, because most local nodes are.
    pub(super) fn in_doubt(&self, now: Instant) -> bool {
        (!self.out || self.is_doubtful) && !self.is_silent(now) && self.serves()
    }

    fn is_silent(&self, now: Instant) -> bool {
        let patience_ms = SILENCE_MS.max(self.latency.micros().unwrap_or(0) * 3 / 1_000);
        self.silent_since.is_some_and(|since| now.since_ms(since) >= patience_ms)
    }

    pub(super) fn is_ready(&self, now: Instant) -> bool {
        self.is_reachable(now) && self.info.state == NodeState::InSync
    }

    pub(super) fn serves(&self) -> bool {
        self.info.state != NodeState::Leaving
    }

    pub(super) fn step(&self, tier: Tier) -> Step {
        let (node, bytes_max) = (self.info.incarnation, self.info.bytes_max);
        let value_bytes_max = self.value_bytes_max.map_or(u64::MAX, |(bytes_max, _)| bytes_max);
        Step { tier, node, address: self.address, bytes_max, value_bytes_max }
    }
}

/// The nodes that a client knows.
#[derive(Debug)]
pub struct Directory {
    region: String,
    /// The client's own zone in its region: nodes there are asked before others.
    zone: Option<String>,
    pub(super) nodes: BTreeMap<Incarnation, NodeEntry>,
    candidates: Candidates,
    ranking: Ranking,
    /// Who owns which key in the client's region, and the nodes from which that follows.
    pub(super) placement: Placement,
    residents: Residents,
    /// The nodes are in the client's process: they answer at once, or are gone.
    are_in_process: bool,
    pub(super) turns: Turns,
    pub(super) next_watch: usize,
}

impl Directory {
    /// The empty directory of a client in `region`.
    #[must_use]
    pub fn new(region: impl Into<String>) -> Self {
        Self {
            region: region.into(),
            zone: None,
            nodes: BTreeMap::new(),
            candidates: Candidates::default(),
            ranking: Ranking::default(),
            placement: Placement::everyone(),
            residents: Residents::default(),
            are_in_process: false,
            turns: Turns::default(),
            next_watch: 0,
        }
    }

    /// States the client's zone: nodes of its region that stand in it are asked before the others there. Called
    /// before the first node is known.
    pub fn set_zone(&mut self, zone: Option<String>) {
        self.zone = zone;
    }

    /// States that the nodes are in the client's process. Silence says nothing about them: the clock may be moved.
    pub fn set_in_process(&mut self) {
        self.are_in_process = true;
    }

    /// Whether a node stands in the region and in the zone of this client.
    fn place_of(&self, info: &NodeInfo) -> (bool, bool) {
        let is_local = info.region == self.region;
        (is_local, is_local && self.zone.is_some() && info.zone == self.zone)
    }

    /// Returns a few nodes to ask what any node can answer: reachable ones, of the own region first, then by latency.
    #[must_use]
    pub fn steps_by_distance(&self, now: Instant) -> Vec<Step> {
        let mut nodes: Vec<_> = self.nodes().filter(|node| node.in_rotation(now)).collect();
        nodes.sort_by_key(|node| (!node.is_local, node.latency.micros().unwrap_or(u64::MAX)));
        let tier = |node: &NodeEntry| if node.is_local { Tier::Local } else { Tier::Nearest };
        nodes.into_iter().take(ASKED_MAX).map(|node| node.step(tier(node))).collect()
    }

    /// All known nodes.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeEntry> {
        self.nodes.values()
    }

    /// The entry of a node, if it is known.
    #[must_use]
    pub fn node(&self, node: Incarnation) -> Option<&NodeEntry> {
        self.nodes.get(&node)
    }

    /// The addresses to dial.
    #[must_use]
    pub fn candidates(&self) -> &Candidates {
        &self.candidates
    }

    /// The addresses to dial, for changes.
    pub fn candidates_mut(&mut self) -> &mut Candidates {
        &mut self.candidates
    }

    /// Adds an address at which a node may stand, as `source` says, unless a known node answers there.
    pub fn propose(&mut self, address: SocketAddr, source: AddressSource, now: Instant) {
        if !self.answers_at(address) {
            self.candidates.add(address, source, now);
        }
    }

    /// Whether a reachable node is in sync.
    #[must_use]
    pub fn is_ready(&self, now: Instant) -> bool {
        self.nodes().any(|node| node.is_ready(now))
    }

    /// Whether any node is known and did not fail.
    #[must_use]
    pub fn is_reachable(&self, now: Instant) -> bool {
        self.nodes().any(|node| node.is_reachable(now))
    }

    /// Whether every known node failed or is shutting down. One that is silent for a moment did not fail.
    #[must_use]
    pub fn is_cut_off(&self) -> bool {
        !self.nodes().any(|node| !node.out && node.serves())
    }

    /// Whether a reachable node of the client's own region is in sync.
    #[must_use]
    pub fn is_ready_locally(&self, now: Instant) -> bool {
        self.nodes().any(|node| node.is_local && node.is_ready(now))
    }

    /// The other regions, nearest first.
    #[must_use]
    pub fn regions(&self) -> &[String] {
        self.ranking.regions()
    }

    /// Records a handshake at `address` with the node of `info`. A node that stood there before is removed.
    pub fn handshake_completed(
        &mut self,
        info: NodeInfo,
        address: SocketAddr,
        now: Instant,
        elapsed_us: u64,
    ) {
        let id = info.incarnation;
        let (is_local, is_in_zone) = self.place_of(&info);
        self.candidates.answered(address);
        self.nodes.retain(|other, node| *other == id || node.address != address);
        if let Some(entry) = self.nodes.get_mut(&id) {
            if entry.out {
                entry.address = address;
            }
            (entry.is_local, entry.is_in_zone) = (is_local, is_in_zone);
            entry.info = info;
        } else if self.nodes.len() < NODES_MAX {
            let entry = NodeEntry {
                is_local,
                is_in_zone,
                is_doubtful: false,
                info,
                address,
                latency: Latency::default(),
                out: false,
                hits: 0,
                features: 0,
                view: None,
                heard: now,
                silent_since: None,
                next_probe: now.plus_ms(PROBE_LOCAL_MS),
                relieved_until: now,
                value_bytes_max: None,
            };
            self.nodes.insert(id, entry);
        }
        self.record_answer(id, now, Some(elapsed_us));
    }

    /// Records the optional features that a node supports.
    pub fn set_features(&mut self, node: Incarnation, features: u64, now: Instant) {
        if let Some(entry) = self.nodes.get_mut(&node) {
            entry.features = features;
        }
        self.place(now);
    }

    /// Chooses the owners of keys among the local nodes that are there.
    fn place(&mut self, now: Instant) {
        let present = |node: &&NodeEntry| node.is_local && !node.out && node.serves();
        let present = self.nodes.values().filter(present);
        let present = present.map(|node| (&node.info, node.features));
        self.placement = self.residents.update(now, present);
    }

    /// Who owns which key in the client's region.
    #[must_use]
    pub fn placement(&self) -> &Placement {
        &self.placement
    }

    /// The next node to watch for changes of the membership: a node of the client's own region that is in
    /// sync and supports it, another one each time. The last item is the number of its view when its members
    /// were learned, or 0.
    pub fn next_watch_node(&mut self, now: Instant) -> Option<(Incarnation, SocketAddr, u64)> {
        let fits = |node: &&NodeEntry| {
            node.is_local && node.is_ready(now) && node.features & features::WATCH != 0
        };
        let count = self.nodes().filter(fits).count();
        self.next_watch = self.next_watch.wrapping_add(1);
        let node = self.nodes().filter(fits).nth(self.next_watch.checked_rem(count)?)?;
        Some((node.info.incarnation, node.address, node.view.unwrap_or(0)))
    }

    /// Whether a node is known and gave an answer after `then`.
    #[must_use]
    pub(crate) fn heard_since(&self, node: Incarnation, then: Instant) -> bool {
        self.nodes.get(&node).is_some_and(|entry| entry.heard > then)
    }

    /// Whether a node is known and in the rotation at `now`.
    #[must_use]
    pub fn in_rotation(&self, node: Incarnation, now: Instant) -> bool {
        self.nodes.get(&node).is_some_and(|entry| entry.in_rotation(now))
    }

    /// Records the state and view with which a watched node answered, after a time that does not measure
    /// its distance. Returns whether the node reaches other nodes than when its members were last learned.
    pub fn watch_answered(
        &mut self,
        node: Incarnation,
        state: NodeState,
        view: u64,
        now: Instant,
    ) -> bool {
        let Some(entry) = self.nodes.get_mut(&node) else { return false };
        entry.info.state = state;
        let changed = entry.view != Some(view);
        self.record_answer(node, now, None);
        changed
    }

    /// Records a request sent to a node at `now`. Returns whether it is the oldest unanswered one.
    pub fn request_sent(&mut self, node: Incarnation, now: Instant) -> bool {
        let is_judged = !self.are_in_process;
        let Some(entry) = self.nodes.get_mut(&node).filter(|_| is_judged) else { return false };
        let is_oldest = entry.silent_since.is_none();
        entry.silent_since.get_or_insert(now);
        is_oldest
    }

    /// Records that nobody waits any more for the oldest unanswered request, which was sent at `sent`: the
    /// missing answer then says nothing about the node.
    pub fn answer_abandoned(&mut self, node: Incarnation, sent: Instant) {
        if let Some(entry) = self.nodes.get_mut(&node) {
            entry.silent_since = entry.silent_since.filter(|since| *since != sent);
        }
    }

    /// Records an answer of a node, with its round-trip time if that is known.
    pub fn record_answer(&mut self, node: Incarnation, now: Instant, elapsed_us: Option<u64>) {
        let Some(entry) = self.nodes.get_mut(&node) else {
            return;
        };
        entry.heard = now;
        entry.silent_since = None;
        let is_first = entry.latency.micros().is_none();
        if let Some(micros) = elapsed_us {
            entry.latency.sample(micros);
        }
        if entry.out || is_first {
            entry.out = false;
            self.rank();
        }
    }

    /// Records the state and view with which a node answered a probe. Returns whether the node reaches
    /// other nodes than when its members were last learned.
    pub fn probe_answered(
        &mut self,
        node: Incarnation,
        state: NodeState,
        view: u64,
        now: Instant,
        elapsed_us: u64,
    ) -> bool {
        let Some(entry) = self.nodes.get_mut(&node) else { return false };
        entry.info.state = state;
        let changed = entry.view != Some(view);
        self.record_answer(node, now, Some(elapsed_us));
        self.rank();
        changed
    }

    /// Records that the members that a node reaches were learned at this number of its view.
    pub fn members_learned(&mut self, node: Incarnation, view: u64) {
        if let Some(entry) = self.nodes.get_mut(&node) {
            entry.view = Some(view);
        }
    }

    /// Records a time-out: the node leaves the rotation as one whose [request
    /// failed](Self::request_failed), but gets another chance when most local nodes are out.
    pub fn request_timed_out(&mut self, node: Incarnation, now: Instant) {
        // A node that is out already: this request may have been sent before, and confirms nothing.
        if self.nodes.get(&node).is_none_or(|entry| entry.out) {
            return;
        }
        self.request_failed(node, now);
        if let Some(entry) = self.nodes.get_mut(&node) {
            entry.is_doubtful = true;
            // Nobody waits for its answers any more.
            entry.silent_since = None;
        }
    }

    /// Records a failed request: the node leaves the rotation until it answers, at this address or at
    /// another one that it announced.
    pub fn request_failed(&mut self, node: Incarnation, now: Instant) {
        let Some(entry) = self.nodes.get_mut(&node) else { return };
        entry.is_doubtful = false;
        if !entry.out {
            entry.out = true;
            entry.next_probe = now.plus_ms(PROBE_OUT_MS);
            for other in entry.info.addresses.iter().filter(|other| **other != entry.address) {
                self.candidates.add(*other, AddressSource::Node(node), now);
            }
        }
        if entry.info.state == NodeState::Leaving {
            self.nodes.remove(&node);
        }
        self.rank();
    }

    /// Removes a node at whose address another node answers. The address is dialled again.
    pub fn node_replaced(&mut self, node: Incarnation, now: Instant) {
        if let Some(entry) = self.nodes.remove(&node) {
            self.candidates.retry_soon(entry.address, AddressSource::Node(node), now);
            self.rank();
        }
    }

    /// The nodes to probe at `now`. They count as probed from here on.
    pub fn take_due_probes(&mut self, now: Instant) -> Vec<(Incarnation, SocketAddr)> {
        if !self.are_in_process {
            self.nodes.retain(|_, node| now.since_ms(node.heard) < FORGET_MS);
        }
        self.place(now);
        for node in self.nodes.values_mut() {
            node.value_bytes_max.take_if(|(_, until)| *until <= now);
        }
        let mut due = Vec::new();
        for (id, node) in self.nodes.iter_mut().filter(|(_, node)| node.next_probe <= now) {
            let wait_ms = match (node.out, node.is_local) {
                (true, _) => PROBE_OUT_MS,
                (false, true) => PROBE_LOCAL_MS,
                (false, false) => PROBE_REMOTE_MS,
            };
            node.next_probe = now.plus_ms(wait_ms);
            if !self.are_in_process {
                node.silent_since.get_or_insert(now);
            }
            due.push((*id, node.address));
        }
        due
    }

    /// Whether a node that is not out has `address`.
    #[must_use]
    pub fn answers_at(&self, address: SocketAddr) -> bool {
        let has =
            |node: &NodeEntry| node.address == address || node.info.addresses.contains(&address);
        self.nodes().any(|node| !node.out && has(node))
    }

    fn rank(&mut self) {
        let mut measured: BTreeMap<String, Option<u64>> = BTreeMap::new();
        for node in self.nodes.values().filter(|node| !node.is_local) {
            let nearest = measured.entry(node.info.region.clone()).or_default();
            if !node.out {
                *nearest = nearest.iter().copied().chain(node.latency.micros()).min();
            }
        }
        self.ranking.update(&measured);
    }
}
