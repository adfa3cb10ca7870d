//! When rounds begin, and with whom.

use alloc::{string::String, vec::Vec};

use super::{Base, Effect, Node, Peer};
use crate::{
    cluster::{Member, PLACEMENT, Placement},
    store::Backend,
    time::{Instant, Now},
    version::Incarnation,
    wire::NodeState,
};

/// How often a round with each local peer begins, in milliseconds.
const LOCAL_EVERY_MS: u64 = 1_000;

/// How long a turn of the rounds between regions is, in milliseconds.
const TURN_MS: u64 = 2_500;

/// Rounds begin this long after a full second of the cluster's clock, in milliseconds: then the second
/// before it is old enough to be compared.
const AFTER_SECOND_MS: u64 = 550;

/// Rounds with the source of the copy begin at most this often, in milliseconds.
const BASE_EVERY_MS: u64 = 250;

/// Rounds with different partners are spread over this time, in milliseconds.
const SPREAD_MS: u64 = 100;

/// Most nodes of a region that are tried in one turn.
const TRIED_MAX: usize = 3;

/// A round with a local peer that is in sync must not be older than this for misses to be final, in
/// milliseconds (contract section 5).
const FRESH_MS_MAX: u64 = 3_000;

/// The round with a region in one turn.
#[derive(Debug)]
pub(super) struct Turn {
    number: u64,
    tried: Vec<Incarnation>,
    is_done: bool,
}

impl<B: Backend> Node<B> {
    pub(super) fn begin_due_rounds(&mut self, now: Now, out: &mut Vec<Effect>) {
        let own = &self.config.info.region;
        let partners = self.view.members().filter(|member| self.is_partner(member));
        let (local, far): (Vec<_>, Vec<_>) = partners.partition(|m| m.info.region == *own);
        let local: Vec<_> = local.iter().map(|member| member.info.incarnation).collect();
        let mut regions: Vec<_> = far.iter().map(|member| member.info.region.clone()).collect();
        regions.sort_unstable();
        regions.dedup();
        for partner in local {
            self.begin_local(now, partner, out);
        }
        // A node that starts copies first; its peers take the turns.
        if self.repair.start.is_done() {
            self.begin_with_base(now, out);
            self.repair.turns.retain(|region, _| regions.contains(region));
            for region in regions {
                self.take_turn(now, region, out);
            }
            self.repair_by(next_after(now, TURN_MS, AFTER_SECOND_MS));
        }
    }

    /// Begins the round with the source of the copy. If that fails at once, because nothing listens at the
    /// source's address any more, the next attempt waits.
    fn begin_with_base(&mut self, now: Now, out: &mut Vec<Effect>) {
        let Some(base) = self.base() else { return };
        let source = base.source;
        if self.repair.rounds.contains_key(&source) {
            return;
        }
        if base.next <= now.mono {
            self.repair.base = Some(Base { source, next: now.mono.plus_ms(BASE_EVERY_MS) });
            let own = &self.config.info.region;
            let far = self.view.member(source).is_some_and(|member| member.info.region != *own);
            self.begin_round(now, source, far, out);
        }
        let next = self.repair.base.map_or(now.mono, |base| base.next);
        self.repair_by(next.max(now.mono));
    }

    fn begin_local(&mut self, now: Now, partner: Incarnation, out: &mut Vec<Effect>) {
        let spread = xxhash_rust::xxh3::xxh3_64(&partner.0.to_le_bytes()) % SPREAD_MS;
        let next = next_after(now, LOCAL_EVERY_MS, AFTER_SECOND_MS + spread);
        let peer = Peer { next: now.mono, completed: None };
        let peer = self.repair.peers.entry(partner).or_insert(peer);
        let due = peer.next <= now.mono;
        if due {
            peer.next = next;
        }
        let at = peer.next;
        if due && !self.repair.rounds.contains_key(&partner) {
            self.begin_round(now, partner, false, out);
        }
        self.repair_by(at);
    }

    fn take_turn(&mut self, now: Now, region: String, out: &mut Vec<Effect>) {
        let number = now.wall_ms.saturating_sub(AFTER_SECOND_MS) / TURN_MS;
        let turn = Turn { number, tried: Vec::new(), is_done: false };
        let turn = self.repair.turns.entry(region.clone()).or_insert(turn);
        if turn.number != number {
            *turn = Turn { number, tried: Vec::new(), is_done: false };
        }
        if turn.is_done || turn.tried.len() >= TRIED_MAX {
            return;
        }
        let Some(turn) = self.repair.turns.get(&region) else { return };
        let mine = rank(number, &region, &self.config.info.region, self.config.info.incarnation);
        let own = &self.config.info.region;
        let colleague = |member: &&Member| {
            self.is_partner(member)
                && member.info.region == *own
                && member.info.state == NodeState::InSync
                && !member.suspect
        };
        let theirs = self.view.members().filter(colleague);
        let ranked = theirs.map(|member| rank(number, &region, own, member.info.incarnation)).max();
        if ranked.is_some_and(|best| best > mine) {
            return;
        }
        let own_id = self.config.info.incarnation;
        let there = |member: &&Member| {
            self.is_partner(member)
                && PLACEMENT.covers(member.info.incarnation, own_id)
                && member.info.region == region
                && !turn.tried.contains(&member.info.incarnation)
                && !self.repair.rounds.contains_key(&member.info.incarnation)
        };
        let best = self.view.members().filter(there).max_by_key(|member| {
            let ready = member.info.state == NodeState::InSync && !member.suspect;
            (ready, rank(number, own, &region, member.info.incarnation))
        });
        let Some(partner) = best.map(|member| member.info.incarnation) else { return };
        if let Some(turn) = self.repair.turns.get_mut(&region) {
            turn.tried.push(partner);
            turn.is_done = true;
        }
        self.begin_round(now, partner, true, out);
    }

    /// A round with a node of another region came to nothing: another one is tried.
    pub(super) fn turn_failed(&mut self, now: Now, partner: Incarnation) {
        let region = self.view.member(partner).map(|member| &member.info.region);
        if let Some(turn) = region.and_then(|region| self.repair.turns.get_mut(region)) {
            turn.is_done = false;
        }
        self.repair_by(now.mono);
    }

    /// Whether a round with every local peer that is in sync has brought everything since `since`; if
    /// there is none, with one of another region, if there is one.
    pub(super) fn has_caught_up(&self, since: Instant) -> bool {
        let own = &self.config.info.region;
        let caught_up = |member: &Member| {
            let peer = self.repair.peers.get(&member.info.incarnation);
            peer.and_then(|peer| peer.completed).is_some_and(|at| at >= since)
        };
        // Those of another time can be asked only when one of the two has moved: that comes after the start.
        let agrees = |member: &&Member| self.is_colleague(member) && self.clocks.agrees(member);
        let members = || self.view.members().filter(agrees);
        let mut local = members().filter(|member| member.info.region == *own).peekable();
        if local.peek().is_some() {
            return local.all(caught_up);
        }
        let own_id = self.config.info.incarnation;
        let is_whole = |member: &&Member| PLACEMENT.covers(member.info.incarnation, own_id);
        let far = members().filter(|member| member.info.region != *own);
        let mut far = far.filter(is_whole).peekable();
        far.peek().is_none() || far.any(caught_up)
    }

    /// Whether this node's misses are final: it is in sync, and was so a moment ago with every local
    /// peer; nobody is known who has more, or could have; and there is one time of day.
    pub(in crate::node) fn judge_misses(&mut self, now: Now) {
        let own = &self.config.info.region;
        let fresh = |member: &Member| {
            let peer = self.repair.peers.get(&member.info.incarnation);
            let completed = peer.and_then(|peer| peer.completed);
            completed.is_some_and(|at| now.mono.since_ms(at) <= FRESH_MS_MAX)
        };
        // Who has had nothing of anybody has started alone.
        let is_alone = self.repair.ages.is_empty();
        let agreed = |member: &Member| {
            let is_local = member.info.region == *own;
            !self.clocks.is_apart(member) && !is_alone && (!is_local || fresh(member))
        };
        let mut colleagues = self.view.members().filter(|member| self.is_colleague(member));
        let in_sync = self.state == NodeState::InSync && self.repair.start.is_done();
        self.misses_are_authoritative = in_sync && !self.is_owed() && colleagues.all(agreed);
    }
}

/// The next moment that is `after_ms` after a multiple of `every_ms` of the cluster's clock.
fn next_after(now: Now, every_ms: u64, after_ms: u64) -> Instant {
    let since = now.wall_ms.saturating_add(every_ms).saturating_sub(after_ms) % every_ms;
    now.mono.plus_ms(every_ms - since)
}

/// Rendezvous hashing: in each turn and for each pair of regions another node is the highest.
fn rank(turn: u64, to: &str, from: &str, node: Incarnation) -> u64 {
    let pair = xxhash_rust::xxh3::xxh3_64_with_seed(to.as_bytes(), turn);
    let pair = xxhash_rust::xxh3::xxh3_64_with_seed(from.as_bytes(), pair);
    xxhash_rust::xxh3::xxh3_64_with_seed(&node.0.to_le_bytes(), pair)
}
