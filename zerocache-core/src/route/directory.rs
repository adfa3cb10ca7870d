//! The nodes that a client knows, and which of them take turns.
//!
//! A node that fails leaves the rotation until it answers a probe. A node with a request that has
//! been unanswered for a while, and nothing heard since, is passed over even before that request
//! times out, so that a frozen node costs only what was already sent to it. Who takes turns when most
//! or all are out is said in `turns.rs`.

use alloc::{collections::BTreeMap, string::String, vec::Vec};
use core::net::SocketAddr;

use super::{
    tiers::{Step, Tier},
    turns::Turn,
};
use crate::{
    cluster::{AddressSource, Candidates, Latency, PLACEMENT, Placement, Ranking},
    time::Instant,
    version::Incarnation,
    wire::{NodeInfo, NodeState, features},
};

/// Most nodes that a client knows.
const NODES_MAX: usize = 4096;

/// A request unanswered for this long, with nothing heard since, takes its node out of turn, in
/// milliseconds; or three round-trip times, if that is more.
const SILENCE_MS: u64 = 100;

/// How often a local node is probed, in milliseconds.
const PROBE_LOCAL_MS: u64 = 500;

/// How often a node of another region is probed, in milliseconds.
const PROBE_REMOTE_MS: u64 = 1_000;

/// How often a node that is out is probed, in milliseconds.
const PROBE_OUT_MS: u64 = 250;

/// A node that has not answered for this long is forgotten, in milliseconds.
const FORGET_MS: u64 = 600_000;

/// What a client knows of a node.
#[derive(Clone, Debug)]
pub struct Known {
    /// What it said of itself last.
    pub info: NodeInfo,
    /// The address at which it answered.
    pub address: SocketAddr,
    /// Its smoothed round-trip time.
    pub latency: Latency,
    /// Whether it failed and has not answered since.
    pub out: bool,
    /// Reads that it answered with a value.
    pub hits: u64,
    /// Its optional abilities.
    pub(super) features: u64,
    /// Whether it stands in the client's own region.
    pub(super) is_local: bool,
    /// Whether it is out because it did not answer in time, and nothing has confirmed that since: the
    /// fault may as well be the client's.
    is_doubtful: bool,
    /// The number of its view when its members were last learned.
    view: Option<u64>,
    pub(super) heard: Instant,
    pub(super) silent_since: Option<Instant>,
    next_probe: Instant,
    /// Until when it is passed over, because it had too much to do.
    pub(super) relieved_until: Instant,
    /// How large a value it takes, and until when that is believed.
    pub(super) value_bytes_max: Option<(u64, Instant)>,
}

impl Known {
    /// Whether it takes turns at `now`: it can be reached, and did not say lately that it has too much to
    /// do.
    #[must_use]
    pub fn in_rotation(&self, now: Instant) -> bool {
        self.is_reachable(now) && now >= self.relieved_until
    }

    /// Whether it answered last time, is not silent, and does not leave.
    #[must_use]
    pub fn is_reachable(&self, now: Instant) -> bool {
        !self.out && !self.is_silent(now) && self.serves()
    }

    /// Whether it stands in the client's own region.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.is_local
    }

    /// Whether it takes turns at `now` although it is out or passed over, because most local nodes are.
    pub(super) fn in_doubt(&self, now: Instant) -> bool {
        (!self.out || self.is_doubtful) && !self.is_silent(now) && self.serves()
    }

    fn is_silent(&self, now: Instant) -> bool {
        let patience_ms = SILENCE_MS.max(self.latency.micros().unwrap_or(0) * 3 / 1_000);
        self.silent_since.is_some_and(|since| now.since_ms(since) >= patience_ms)
    }

    fn is_ready(&self, now: Instant) -> bool {
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
    pub(super) nodes: BTreeMap<Incarnation, Known>,
    candidates: Candidates,
    ranking: Ranking,
    pub(super) read_turn: usize,
    pub(super) write_turn: usize,
    watch_turn: usize,
}

impl Directory {
    /// The empty directory of a client in `region`.
    #[must_use]
    pub fn new(region: impl Into<String>) -> Self {
        Self {
            region: region.into(),
            nodes: BTreeMap::new(),
            candidates: Candidates::default(),
            ranking: Ranking::default(),
            read_turn: 0,
            write_turn: 0,
            watch_turn: 0,
        }
    }

    /// Every known node.
    pub fn nodes(&self) -> impl Iterator<Item = &Known> {
        self.nodes.values()
    }

    /// The known nodes that may be asked for a key.
    pub(super) fn readers(&self) -> impl Iterator<Item = &Known> {
        PLACEMENT.readers(self.nodes())
    }

    /// What is known of a node.
    #[must_use]
    pub fn node(&self, node: Incarnation) -> Option<&Known> {
        self.nodes.get(&node)
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

    /// Notes that a node may stand at `address`, as `teller` says, unless one is known to answer there.
    pub fn propose(&mut self, address: SocketAddr, teller: AddressSource, now: Instant) {
        if !self.answers_at(address) {
            self.candidates.add(address, teller, now);
        }
    }

    /// Whether a node in the rotation is in sync.
    #[must_use]
    pub fn is_ready(&self, now: Instant) -> bool {
        self.nodes().any(|node| node.is_ready(now))
    }

    /// Whether a node in the rotation of the client's own region is in sync.
    #[must_use]
    pub fn is_ready_locally(&self, now: Instant) -> bool {
        self.nodes().any(|node| node.is_local && node.is_ready(now))
    }

    /// The other regions, nearest first.
    #[must_use]
    pub fn regions(&self) -> &[String] {
        self.ranking.regions()
    }

    /// A handshake at `address` succeeded. A node that stood there before is gone.
    pub fn shook_hands(
        &mut self,
        info: NodeInfo,
        address: SocketAddr,
        now: Instant,
        elapsed_us: u64,
    ) {
        let id = info.incarnation;
        self.candidates.answered(address);
        self.nodes.retain(|other, node| *other == id || node.address != address);
        if let Some(known) = self.nodes.get_mut(&id) {
            if known.out {
                known.address = address;
            }
            known.is_local = info.region == self.region;
            known.info = info;
        } else if self.nodes.len() < NODES_MAX {
            let known = Known {
                is_local: info.region == self.region,
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
            self.nodes.insert(id, known);
        }
        self.answered(id, now, Some(elapsed_us));
    }

    /// A node said that it has these optional abilities.
    pub fn has_features(&mut self, node: Incarnation, features: u64) {
        if let Some(known) = self.nodes.get_mut(&node) {
            known.features = features;
        }
    }

    /// A node to ask for changes of the membership: one of the client's own region that is in sync and
    /// can tell; another one each time. With the number of its view when its members were learned.
    pub fn next_watched(&mut self, now: Instant) -> Option<(Incarnation, SocketAddr, u64)> {
        let can = |node: &&Known| {
            node.is_local && node.is_ready(now) && node.features & features::WATCH != 0
        };
        let count = self.nodes().filter(can).count();
        self.watch_turn = self.watch_turn.wrapping_add(1);
        let node = self.nodes().filter(can).nth(self.watch_turn.checked_rem(count)?)?;
        Some((node.info.incarnation, node.address, node.view.unwrap_or(0)))
    }

    /// A node whose changes can be followed: one in sync, of the client's own region if one of them can
    /// tell; another one each time.
    pub fn next_followed(&mut self, now: Instant) -> Option<(Incarnation, SocketAddr)> {
        let can = |node: &&Known| node.is_ready(now) && node.features & features::FEED != 0;
        let local = self.nodes().any(|node| node.is_local && can(&node));
        let fits = |node: &&Known| can(node) && (node.is_local || !local);
        let count = self.nodes().filter(fits).count();
        self.watch_turn = self.watch_turn.wrapping_add(1);
        let node = self.nodes().filter(fits).nth(self.watch_turn.checked_rem(count)?)?;
        Some((node.info.incarnation, node.address))
    }

    /// Whether the changes of a node may be followed further: it is in sync, and did not fail. One that
    /// says nothing for a moment may, because its word has a bound of its own.
    #[must_use]
    pub fn can_be_followed(&self, node: Incarnation) -> bool {
        let can = |known: &Known| !known.out && known.info.state == NodeState::InSync;
        self.nodes.get(&node).is_some_and(can)
    }

    /// Whether a node takes its turn at `now`.
    #[must_use]
    pub fn takes_turns(&self, node: Incarnation, now: Instant) -> bool {
        self.nodes.get(&node).is_some_and(|known| known.in_rotation(now))
    }

    /// A node that was asked for changes answered with this state and view, after a time that says
    /// nothing of its distance. Returns whether it reaches other nodes than when its members were last
    /// learned.
    pub fn watched(
        &mut self,
        node: Incarnation,
        state: NodeState,
        view: u64,
        now: Instant,
    ) -> bool {
        let Some(known) = self.nodes.get_mut(&node) else { return false };
        known.info.state = state;
        let changed = known.view != Some(view);
        self.answered(node, now, None);
        changed
    }

    /// A request went to a node, which owes an answer now; whether it owed none before.
    pub fn sent(&mut self, node: Incarnation, now: Instant) -> bool {
        self.mark(node, now)
    }

    /// Nobody waits any more for the answer to a request that went out at `sent` and was the only one
    /// to which the node owed an answer.
    pub fn not_awaited(&mut self, node: Incarnation, sent: Instant) {
        if let Some(known) = self.nodes.get_mut(&node) {
            known.silent_since = known.silent_since.filter(|since| *since != sent);
        }
    }

    pub(super) fn mark(&mut self, node: Incarnation, now: Instant) -> bool {
        let Some(known) = self.nodes.get_mut(&node) else { return false };
        let is_first = known.silent_since.is_none();
        known.silent_since.get_or_insert(now);
        is_first
    }

    /// The request with which a read or write began at `now` did not go out: its turn is given back,
    /// and the node owes no answer to it.
    pub fn not_sent(&mut self, node: Incarnation, began: Turn, now: Instant) {
        let turn = if began.is_write { &mut self.write_turn } else { &mut self.read_turn };
        if *turn == began.turn.wrapping_add(1) {
            *turn = began.turn;
        }
        self.given_up(node, began, now);
    }

    /// Nobody waits any more for the answer to the request with which a read began at `now`.
    pub fn given_up(&mut self, node: Incarnation, began: Turn, now: Instant) {
        if began.is_marked {
            self.not_awaited(node, now);
        }
    }

    /// A node answered, with its round-trip time if that is known.
    pub fn answered(&mut self, node: Incarnation, now: Instant, elapsed_us: Option<u64>) {
        let Some(known) = self.nodes.get_mut(&node) else {
            return;
        };
        known.heard = now;
        known.silent_since = None;
        let first = known.latency.micros().is_none();
        if let Some(micros) = elapsed_us {
            known.latency.sample(micros);
        }
        if known.out || first {
            known.out = false;
            self.rank();
        }
    }

    /// A probe was answered with this state. Returns whether the node reaches other nodes than when
    /// its members were last learned: `view` is a number that says so.
    pub fn probed(
        &mut self,
        node: Incarnation,
        state: NodeState,
        view: u64,
        now: Instant,
        elapsed_us: u64,
    ) -> bool {
        let Some(known) = self.nodes.get_mut(&node) else { return false };
        known.info.state = state;
        let changed = known.view != Some(view);
        self.answered(node, now, Some(elapsed_us));
        self.rank();
        changed
    }

    /// The members that a node reaches were learned when its view had this number.
    pub fn learned(&mut self, node: Incarnation, view: u64) {
        if let Some(known) = self.nodes.get_mut(&node) {
            known.view = Some(view);
        }
    }

    /// A node answered a read with a value.
    pub fn hit(&mut self, node: Incarnation) {
        if let Some(known) = self.nodes.get_mut(&node) {
            known.hits += 1;
        }
    }

    /// [`answered`](Self::answered) and [`hit`](Self::hit) in one.
    pub fn answered_with_hit(&mut self, node: Incarnation, now: Instant, elapsed_us: u64) {
        self.answered(node, now, Some(elapsed_us));
        self.hit(node);
    }

    /// A node gave no answer in time: it leaves the rotation as one that [failed](Self::failed), but when
    /// most local nodes are out it gets another chance.
    pub fn gave_no_answer(&mut self, node: Incarnation, now: Instant) {
        // Out already: this request may have been on its way then, and confirms nothing.
        if self.nodes.get(&node).is_none_or(|known| known.out) {
            return;
        }
        self.failed(node, now);
        if let Some(known) = self.nodes.get_mut(&node) {
            known.is_doubtful = true;
            // It owes nothing to those who have stopped waiting.
            known.silent_since = None;
        }
    }

    /// A request to a node failed: it leaves the rotation until it answers, at this address or at
    /// another one of those that it announced.
    pub fn failed(&mut self, node: Incarnation, now: Instant) {
        let Some(known) = self.nodes.get_mut(&node) else { return };
        known.is_doubtful = false;
        if !known.out {
            known.out = true;
            known.next_probe = now.plus_ms(PROBE_OUT_MS);
            for other in known.info.addresses.iter().filter(|other| **other != known.address) {
                self.candidates.add(*other, AddressSource::Node(node), now);
            }
        }
        if known.info.state == NodeState::Leaving {
            self.nodes.remove(&node);
        }
        self.rank();
    }

    /// Another node answers at its address: it is gone, and the address is dialled again.
    pub fn replaced(&mut self, node: Incarnation, now: Instant) {
        if let Some(known) = self.nodes.remove(&node) {
            self.candidates.retry_soon(known.address, AddressSource::Node(node), now);
            self.rank();
        }
    }

    /// The nodes to probe at `now`; they count as probed from here on.
    pub fn take_probes(&mut self, now: Instant) -> Vec<(Incarnation, SocketAddr)> {
        self.nodes.retain(|_, node| now.since_ms(node.heard) < FORGET_MS);
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
            node.silent_since.get_or_insert(now);
            due.push((*id, node.address));
        }
        due
    }

    /// Whether `address` belongs to a node that answers.
    #[must_use]
    pub fn answers_at(&self, address: SocketAddr) -> bool {
        let at = |node: &Known| node.address == address || node.info.addresses.contains(&address);
        self.nodes().any(|node| !node.out && at(node))
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
