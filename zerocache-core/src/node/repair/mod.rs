//! Repair: a node finds out what it lacks of what others know, and copies that.
//!
//! Each node pulls for itself; nobody pushes. A *round* with one partner compares sums over the versions
//! of both (`round.rs`), asks for the rows where these differ, and fetches what is newer there (`fetch.rs`). Rounds
//! run with each local peer every second, and with one node of each other region in turns of 2.5
//! seconds, by one node of this region (`schedule.rs`). What a round brings into a region spreads by
//! the rounds inside it.
//!
//! Invariants: nothing outside the window of the sums is taken for missing, except by a node that is
//! outdated (`ages.rs`), and that copies what is outside; at most one round with each partner, one question and a few fetches in each;
//! what is fetched per second is bounded; with everybody idle and equal, sums are all that travels.

mod ages;
mod fetch;
mod memory;
mod round;
mod schedule;
mod search;
mod serve;
mod start;

use alloc::{collections::BTreeMap, string::String, vec::Vec};

pub use self::memory::PersistedState;
pub(in crate::node) use self::start::Start;
use self::{
    ages::{Ages, Partner},
    round::Round,
    schedule::Turn,
    search::Searches,
};
pub(in crate::node) use self::{search::ROWS_MAX, serve::RECORDS_BYTES_MAX};
use super::{CallId, Effect, Node};
use crate::{
    call::CallResult,
    cluster::{Member, PLACEMENT, Placement},
    key::KeyHash,
    store::Backend,
    time::{Instant, Now},
    version::{Incarnation, Version},
    wire::{Lineage, NodeState, Response, features},
};

/// Most bytes of values that a node fetches from its region in a second, and from others: what links
/// of 1 Gbit/s and 200 Mbit/s carry.
const LOCAL_BYTES_PER_MS: u64 = 125_000;
const FAR_BYTES_PER_MS: u64 = 25_000;

/// What repair did, for people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RepairCounts {
    /// Rounds that ended with nothing left that the partner knew better.
    pub rounds_completed: u64,
    /// Rounds that ended early: the partner did not answer, or another round was fetching the same.
    pub rounds_aborted: u64,
    /// Values fetched.
    pub values_fetched: u64,
    /// Bytes of their keys, values and metadata.
    pub bytes_fetched: u64,
    /// Traces fetched.
    pub tombstones_fetched: u64,
    /// Entries copied at the start.
    pub entries_copied: u64,
    /// Values given up because this node was outdated and its partner did not have them.
    pub entries_dropped: u64,
    /// Times that this node was outdated.
    pub full_resyncs: u64,
}

/// What a node asked of another one for repair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// The next question of a round.
    Question,
    /// Values.
    Fetch,
    /// Part of a copy.
    Copy,
}

/// What is known of a partner.
#[derive(Clone, Copy, Debug)]
struct Peer {
    /// When the next round begins.
    next: Instant,
    /// When the last round began that brought everything.
    completed: Option<Instant>,
}

/// The source of the copy with which a node started.
#[derive(Clone, Copy, Debug)]
struct Base {
    source: Incarnation,
    /// When a round with it may begin.
    next: Instant,
}

/// The state of repair.
#[derive(Debug)]
pub(super) struct Repair {
    rounds: BTreeMap<Incarnation, Round>,
    peers: BTreeMap<Incarnation, Peer>,
    turns: BTreeMap<String, Turn>,
    ages: Ages,
    /// What is being fetched, so that two rounds do not fetch the same.
    fetching: BTreeMap<KeyHash, Version>,
    /// Until when the bandwidth is used up, in the region and beyond.
    busy_until: [Instant; 2],
    pub(super) start: Start,
    /// Questions of others that are being looked into.
    pub(super) searches: Searches,
    /// Who copies from this node, and when it last asked.
    copiers: BTreeMap<Incarnation, Instant>,
    counts: RepairCounts,
    /// Since when the node has known what nobody else does.
    alone_since: Instant,
    /// From whom the node has what it knows, and since when that one was in sync.
    line: (Incarnation, Instant),
    /// Who has what this node does not, and is still to be copied from, or was and went.
    owed: Vec<Incarnation>,
    /// From whom it took everything that was older than its rounds reach, until a round with that one has told
    /// what it had of others.
    base: Option<Base>,
    /// Whether something of an earlier life was refused.
    pub(super) is_restored_in_part: bool,
    wake: Instant,
}

impl Repair {
    pub(super) fn new(own: Incarnation, now: Instant) -> Self {
        Self {
            rounds: BTreeMap::new(),
            peers: BTreeMap::new(),
            turns: BTreeMap::new(),
            ages: Ages::default(),
            fetching: BTreeMap::new(),
            busy_until: [now; 2],
            start: Start::default(),
            searches: Searches::default(),
            copiers: BTreeMap::new(),
            counts: RepairCounts::default(),
            alone_since: now,
            line: (own, now),
            owed: Vec::new(),
            base: None,
            is_restored_in_part: false,
            wake: now,
        }
    }

    /// Takes the round with a partner out, and what `part` takes of it; none where that finds nothing: an
    /// answer to an earlier round with this partner.
    fn take_if<T>(
        &mut self,
        id: Incarnation,
        part: impl FnOnce(&mut Round) -> Option<T>,
    ) -> Option<(Round, T)> {
        let part = part(self.rounds.get_mut(&id)?)?;
        Some((self.rounds.remove(&id)?, part))
    }

    /// What it did.
    pub(super) fn counts(&self) -> RepairCounts {
        self.counts
    }

    /// Notes that so many bytes were fetched.
    fn spend(&mut self, now: Instant, far: bool, bytes: u64) {
        let per_ms = if far { FAR_BYTES_PER_MS } else { LOCAL_BYTES_PER_MS };
        let until = &mut self.busy_until[usize::from(far)];
        *until = (*until).max(now).plus_ms(bytes / per_ms);
    }
}

impl<B: Backend> Node<B> {
    /// Whether this node and a member repair each other.
    fn repairs(&self, member: &Member) -> bool {
        let (own, other) = (self.config.info.incarnation, member.info.incarnation);
        self.config.features & member.features & features::REPAIR != 0
            && other != own
            && PLACEMENT.overlaps(own, other)
    }

    /// Whether a member is in sync and answers: it is to be agreed with, as soon as clocks do.
    fn is_colleague(&self, member: &Member) -> bool {
        self.repairs(member) && member.may_be_asked() && member.info.state == NodeState::InSync
    }

    /// Whether repair works between this node and a member at this moment: versions mean the same to
    /// both.
    fn is_partner(&self, member: &Member) -> bool {
        self.repairs(member) && member.may_be_asked() && self.clocks.agrees(member)
    }

    /// From whom this node took everything and has not heard yet what that one had of others.
    fn base(&self) -> Option<Base> {
        let is_partner = |id| self.view.member(id).is_some_and(|member| self.is_partner(member));
        self.repair.base.filter(|base| is_partner(base.source))
    }

    /// This node as it describes itself in a round.
    fn itself(&self, now: Now) -> Partner {
        let Repair { ages, alone_since, line: (of, since), .. } = &self.repair;
        Partner {
            id: self.config.info.incarnation,
            lived_ms: now.mono.since_ms(*alone_since),
            line: Lineage { origin: *of, age_ms: now.mono.since_ms(*since) },
            ages: ages.told(now.mono),
        }
    }

    /// Versions have changed: what was found out of differences means nothing any more.
    pub(super) fn repair_anew(&mut self, now: Now) {
        for (_, round) in core::mem::take(&mut self.repair.rounds) {
            self.cut(now, round);
        }
        let partners: Vec<_> = self.repair.peers.keys().copied().collect();
        for partner in partners {
            self.partner_up(now, partner);
        }
        self.misses_are_authoritative = false;
    }

    pub(super) fn tick_repair(&mut self, now: Now, out: &mut Vec<Effect>) {
        if self.config.features & features::REPAIR == 0 || self.state == NodeState::Leaving {
            return;
        }
        if self.repair.wake <= now.mono {
            self.repair.wake = now.mono.plus_ms(super::SWEEP_EVERY_MS);
            self.begin_due_rounds(now, out);
            let waiting: Vec<_> = self.repair.rounds.keys().copied().collect();
            for partner in waiting {
                self.go_on(now, partner, out);
            }
            self.go_on_copying(now, out);
        }
        let wake = self.repair.wake;
        self.wake_by(Some(wake));
    }

    /// Looks at repair no later than `at`.
    fn repair_by(&mut self, at: Instant) {
        self.repair.wake = self.repair.wake.min(at);
        self.wake_by(Some(at));
    }

    /// A member can be reached, for the first time or again: the round with it begins at once.
    pub(super) fn partner_up(&mut self, now: Now, id: Incarnation) {
        let peer = Peer { next: now.mono, completed: None };
        let peer = self.repair.peers.entry(id).or_insert(peer);
        (peer.next, peer.completed) = (now.mono, None);
        let far = self.view.member(id).filter(|m| m.info.region != self.config.info.region);
        if let Some(region) = far.map(|member| member.info.region.clone()) {
            self.repair.turns.remove(&region);
        }
        self.repair_by(now.mono);
    }

    /// A member is out of reach, or forgotten.
    pub(super) fn partner_gone(&mut self, now: Now, id: Incarnation) {
        self.repair.peers.remove(&id);
        if let Some(round) = self.repair.rounds.remove(&id) {
            self.cut(now, round);
        }
    }

    fn no_longer_fetching(&mut self, keys: impl Iterator<Item = KeyHash>) {
        for key in keys {
            self.repair.fetching.remove(&key);
        }
    }

    /// The end of a call for repair.
    pub(super) fn repair_answered(
        &mut self,
        now: Now,
        call: CallId,
        (member, asked): (Incarnation, Asked),
        result: CallResult,
        out: &mut Vec<Effect>,
    ) {
        match &result {
            Ok(Response::Refused(_)) => {}
            Ok(_) => self.heard(now, member, out),
            Err(_) => self.suspect(member),
        }
        match asked {
            Asked::Question => self.question_answered(now, call, member, result),
            Asked::Fetch => self.fetch_answered(now, call, member, result),
            Asked::Copy => return self.copy_answered(now, call, member, result, out),
        }
        self.go_on(now, member, out);
    }
}
