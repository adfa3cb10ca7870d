//! Repair (anti-entropy): a node finds out what it lacks of what others hold, and copies that.
//!
//! Each node pulls for itself; no node pushes. A *round* with one partner compares digests over the versions
//! of both (`round.rs`, `compare.rs`), requests the versions where these differ, and fetches what is newer there
//! (`fetch.rs`). Rounds run with each local peer every second. With each other region one round runs in
//! every *region round* of 2.5 seconds, between one node of each side (`schedule.rs`). What a round brings
//! into a region spreads by the rounds inside it.
//!
//! Invariants:
//!
//! - Nothing outside the window of the digests counts as missing, except for a node that is outdated
//!   (`sync_ages.rs`), which copies what is outside (`copy.rs`).
//! - There is at most one round with each partner, and in it one comparison and a few fetches in flight.
//! - The bytes fetched per second are bounded.
//! - While all nodes are idle and equal, digests are all that is sent.

mod adoption;
mod compare;
mod copy;
mod fetch;
mod handover;
mod hot;
mod judge;
mod page;
mod persisted;
mod round;
mod scan;
mod schedule;
mod serve;
mod sync_ages;

use alloc::{collections::BTreeMap, string::String, vec::Vec};

use self::{
    compare::Round,
    handover::Handover,
    persisted::Restored,
    scan::Scans,
    schedule::RegionRound,
    sync_ages::{AGE_MS_MAX, Partner, SyncAges},
};
pub(in crate::node) use self::{
    copy::Start,
    scan::VERSIONS_PER_RESPONSE,
    serve::{ITEMS_BYTES_MAX, serve_fetch, serve_versions},
};
pub use self::{handover::HandoverCounts, persisted::PersistedState};
use super::{
    CallId,
    local::{Context, Local, TICK_EVERY_MS},
};
use crate::{
    call::CallResult,
    cluster::{Member, View},
    key::KeyHash,
    store::Backend,
    time::{Instant, Now},
    version::{Incarnation, Version},
    wire::{Lineage, NodeState, features},
};

/// The most bytes of values that a node fetches per millisecond from its region, and from others: what
/// links of 1 Gbit/s and 200 Mbit/s carry.
const LOCAL_BYTES_PER_MS: u64 = 125_000;
const REMOTE_BYTES_PER_MS: u64 = 25_000;

/// The counters of repair.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RepairCounts {
    /// Rounds after which this node lacked nothing that the partner knew.
    pub rounds_completed: u64,
    /// Rounds that ended early: the partner did not respond, or another round was fetching the same.
    pub rounds_aborted: u64,
    /// Values fetched.
    pub values_fetched: u64,
    /// Bytes of their keys, values and metadata.
    pub bytes_fetched: u64,
    /// Tombstones fetched.
    pub tombstones_fetched: u64,
    /// Entries copied at the start, or because this node was outdated.
    pub entries_copied: u64,
    /// Values dropped because this node was outdated and its partner did not have them.
    pub entries_dropped: u64,
    /// Times that this node was outdated, and compared everything with a peer.
    pub full_resyncs: u64,
}

/// The kind of a call for repair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RepairCall {
    /// The next comparison of a round.
    Compare,
    /// Values.
    Fetch,
    /// A page of a copy.
    Copy,
    /// Values that are offered to an owner.
    Offer,
    /// Values that were offered to this node.
    Adopt,
}

/// The rounds with one partner.
#[derive(Clone, Copy, Debug)]
struct Peer {
    /// Since when its writes may arrive: it became reachable, or this node was resumed. What it wrote before
    /// comes by rounds only.
    since: Instant,
    /// When the next round begins.
    next: Instant,
    /// When the last round began that left nothing out.
    completed: Option<Instant>,
    /// The placement for which it had offered everything then.
    placed: u64,
}

impl Peer {
    fn new(now: Instant) -> Self {
        Self { since: now, next: now, completed: None, placed: 0 }
    }
}

/// The source of the copy with which a node started.
#[derive(Clone, Copy, Debug)]
struct CopySource {
    id: Incarnation,
    /// When the copy began.
    began: Instant,
    /// When a round with it may begin.
    next: Instant,
}

/// The state of repair.
#[derive(Debug)]
pub(super) struct Repair {
    rounds: BTreeMap<Incarnation, Round>,
    peers: BTreeMap<Incarnation, Peer>,
    region_rounds: BTreeMap<String, RegionRound>,
    ages: SyncAges,
    /// What is being fetched, so that two rounds do not fetch the same.
    fetching: BTreeMap<KeyHash, Version>,
    /// Until when the bandwidth inside the region, and beyond it, is used up.
    bandwidth_used_until: [Instant; 2],
    start: Start,
    scans: Scans,
    /// The nodes that copy from this one, and when each last asked.
    copiers: BTreeMap<Incarnation, Instant>,
    counts: RepairCounts,
    /// Since when the node has known versions that no other node knows; none while it copies what is as old as it can be.
    unshared_since: Option<Instant>,
    /// The node from which this one's data descends, and since when that one was in sync.
    lineage: (Incarnation, Instant),
    /// Nodes that have what this one lacks: still to be copied from, or gone in the middle of the copy.
    missing_sources: Vec<Incarnation>,
    /// The node that everything older than the rounds' window was copied from, until a round with it tells
    /// what it had of others.
    copy_source: Option<CopySource>,
    restored: Restored,
    /// Whether the earlier process of the node had values that this one has to copy from a local peer.
    lacks_values: bool,
    handover: Handover,
    wake: Instant,
}

impl Repair {
    pub(super) fn new(own: Incarnation, now: Instant) -> Self {
        Self {
            rounds: BTreeMap::new(),
            peers: BTreeMap::new(),
            region_rounds: BTreeMap::new(),
            ages: SyncAges::default(),
            fetching: BTreeMap::new(),
            bandwidth_used_until: [now; 2],
            start: Start::default(),
            scans: Scans::default(),
            copiers: BTreeMap::new(),
            counts: RepairCounts::default(),
            unshared_since: Some(now),
            lineage: (own, now),
            missing_sources: Vec::new(),
            copy_source: None,
            restored: Restored::default(),
            lacks_values: false,
            handover: Handover::default(),
            wake: now,
        }
    }

    /// The counters.
    pub(super) fn counts(&self) -> RepairCounts {
        self.counts
    }

    /// How far the start of the node has come.
    pub(super) fn start(&self) -> &Start {
        &self.start
    }

    /// Whether other nodes wait for versions or pages that are searched for.
    pub(super) fn is_scanning(&self) -> bool {
        !self.scans.is_empty()
    }

    /// The node that everything was copied from and that has not told yet what it had of others.
    fn copy_source(&self, local: &Local, view: &View) -> Option<CopySource> {
        let repairs = |id| view.member(id).is_some_and(|member| is_partner(local, member));
        self.copy_source.filter(|source| repairs(source.id))
    }

    /// For how long this node has known versions that no other node knows, in milliseconds.
    fn lived_ms(&self, now: Instant) -> u64 {
        self.unshared_since.map_or(AGE_MS_MAX, |since| now.since_ms(since))
    }

    /// This node, as it describes itself in a round.
    fn describe(&self, local: &Local, now: Now) -> Partner {
        let (origin, since) = self.lineage;
        Partner {
            id: local.id(),
            lived_ms: self.lived_ms(now.mono),
            lineage: Lineage { origin, age_ms: now.mono.since_ms(since) },
            ages: self.ages.report(now.mono),
        }
    }

    /// Restarts all rounds: versions changed, and what was found out of differences is void. What this node had of
    /// others has other versions at them now, unless their clocks have moved in the same way.
    pub(super) fn versions_changed(&mut self, local: &mut Local, view: &View, now: Now) {
        self.ages = SyncAges::default();
        self.abort_rounds(local, view, now);
        self.restart_rounds(local, view, now);
        local.readiness.misses_are_authoritative = false;
    }

    /// Aborts all rounds.
    pub(super) fn abort_rounds(&mut self, local: &mut Local, view: &View, now: Now) {
        for (_, round) in core::mem::take(&mut self.rounds) {
            self.abort(local, view, now, round);
        }
    }

    /// Begins a round with each partner at once.
    pub(super) fn restart_rounds(&mut self, local: &mut Local, view: &View, now: Now) {
        let partners: Vec<_> = self.peers.keys().copied().collect();
        for partner in partners {
            self.peer_up(local, view, now, partner);
        }
    }

    /// Begins and continues what is due.
    pub(super) fn tick<B: Backend>(&mut self, cx: &mut Context<'_, B>, view: &View) {
        if cx.local.config.features & features::REPAIR == 0 || cx.local.is_leaving() {
            return;
        }
        if self.wake <= cx.now.mono {
            self.wake = cx.now.mono.plus_ms(TICK_EVERY_MS);
            self.begin_due_rounds(cx, view);
            let partners: Vec<_> = self.rounds.keys().copied().collect();
            for partner in partners {
                self.continue_round(cx, view, partner);
            }
            self.continue_copy(cx, view);
            self.continue_handover(cx, view);
        }
        cx.local.wake_by(Some(self.wake));
    }

    /// Has repair act no later than `at`.
    fn wake_by(&mut self, local: &mut Local, at: Instant) {
        self.wake = self.wake.min(at);
        local.wake_by(Some(at));
    }

    /// Begins a round with a member at once: it is reachable, for the first time or again.
    pub(super) fn peer_up(&mut self, local: &mut Local, view: &View, now: Now, id: Incarnation) {
        self.peers.insert(id, Peer::new(now.mono));
        let remote = view.member(id).filter(|member| member.info.region != local.region());
        match remote {
            Some(member) => drop(self.region_rounds.remove(&member.info.region)),
            None => self.owner_up(now.mono, id),
        }
        self.wake_by(local, now.mono);
    }

    /// Aborts the round with a member that is unreachable, or removed.
    pub(super) fn peer_down(&mut self, local: &mut Local, view: &View, now: Now, id: Incarnation) {
        self.peers.remove(&id);
        if let Some(round) = self.rounds.remove(&id) {
            self.abort(local, view, now, round);
        }
    }

    /// Handles the end of a call.
    pub(super) fn call_completed<B: Backend>(
        &mut self,
        cx: &mut Context<'_, B>,
        view: &View,
        (id, call, kind): (Incarnation, CallId, RepairCall),
        result: CallResult,
    ) {
        match kind {
            RepairCall::Compare => self.compare_completed(cx, view, call, id, result),
            RepairCall::Fetch => self.fetch_completed(cx, view, call, id, result),
            RepairCall::Copy => return self.page_received(cx, view, call, id, result),
            RepairCall::Offer => return self.offer_completed(cx, call, result),
            RepairCall::Adopt => return self.adopted(cx, view, (call, id), result),
        }
        self.continue_round(cx, view, id);
    }

    /// Takes the round with a partner out, together with what `take` takes of it; `None` where that finds
    /// nothing, because the response is to an earlier round with this partner.
    fn take_if<T>(
        &mut self,
        id: Incarnation,
        take: impl FnOnce(&mut Round) -> Option<T>,
    ) -> Option<(Round, T)> {
        let taken = take(self.rounds.get_mut(&id)?)?;
        Some((self.rounds.remove(&id)?, taken))
    }

    /// Charges fetched bytes to the bandwidth.
    fn charge_bandwidth(&mut self, now: Instant, is_remote: bool, bytes: u64) {
        let per_ms = if is_remote { REMOTE_BYTES_PER_MS } else { LOCAL_BYTES_PER_MS };
        let until = &mut self.bandwidth_used_until[usize::from(is_remote)];
        *until = (*until).max(now).plus_ms(bytes / per_ms);
    }

    fn fetch_ended(&mut self, keys: impl Iterator<Item = KeyHash>) {
        for key in keys {
            self.fetching.remove(&key);
        }
    }
}

/// Whether this node and a member repair each other.
fn repairs(local: &Local, member: &Member) -> bool {
    let (own, other) = (local.id(), member.info.incarnation);
    local.shares_features(member.features, features::REPAIR) && other != own
}

/// Whether a member is in sync and responds: this node is to agree with it, as soon as their clocks do.
fn is_colleague(local: &Local, member: &Member) -> bool {
    repairs(local, member) && member.may_be_asked() && member.info.state == NodeState::InSync
}

/// Whether this node can repair with a member now: versions mean the same to both.
fn is_partner(local: &Local, member: &Member) -> bool {
    repairs(local, member) && member.may_be_asked() && local.clocks.agrees(member)
}
