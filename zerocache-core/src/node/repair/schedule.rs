//! When rounds begin, and with which partners; and what completed rounds mean for misses.

use alloc::{string::String, vec::Vec};

use super::{CopySource, Peer, Repair, is_colleague, is_partner};
use crate::{
    cluster::{Member, View},
    node::local::{Context, Local},
    store::Backend,
    time::{Instant, Now},
    version::Incarnation,
    wire::{NodeState, features},
};

/// How often a round with each local peer begins, in milliseconds.
const LOCAL_EVERY_MS: u64 = 1_000;

/// The length of a region round, in milliseconds.
const REGION_ROUND_MS: u64 = 2_500;

/// Rounds begin this long after a full second of the cluster's clock, in milliseconds: by then the second
/// before it is old enough to be compared.
const AFTER_SECOND_MS: u64 = 550;

/// Rounds with the source of the copy begin at most this often, in milliseconds.
const COPY_SOURCE_EVERY_MS: u64 = 250;

/// The beginnings of rounds with different partners are spread over this time, in milliseconds.
const SPREAD_MS: u64 = 100;

/// The most nodes of a region that are tried in one region round.
const TRIED_MAX: usize = 3;

/// For misses to be authoritative, the last round with each local peer in sync must not be older than
/// this, in milliseconds (contract section 5).
const FRESH_MS_MAX: u64 = 3_000;

/// The present round with another region.
#[derive(Debug)]
pub(super) struct RegionRound {
    number: u64,
    tried: Vec<Incarnation>,
    is_done: bool,
}

impl Repair {
    pub(super) fn begin_due_rounds<B: Backend>(&mut self, cx: &mut Context<'_, B>, view: &View) {
        let partners = view.members().filter(|member| is_partner(cx.local, member));
        let (local, remote): (Vec<_>, Vec<_>) =
            partners.partition(|member| member.info.region == cx.local.region());
        let mut regions: Vec<_> = remote.iter().map(|member| member.info.region.clone()).collect();
        regions.sort_unstable();
        regions.dedup();
        for partner in local {
            self.begin_local_round(cx, view, partner.info.incarnation);
        }
        // A node that starts copies first; its peers run the region rounds.
        if self.start.is_done() {
            self.begin_copy_source_round(cx, view);
            self.region_rounds.retain(|region, _| regions.contains(region));
            for region in regions {
                self.begin_region_round(cx, view, region);
            }
            let next = next_after(cx.now, REGION_ROUND_MS, AFTER_SECOND_MS);
            self.wake_by(cx.local, next);
        }
    }

    /// Begins the round with the source of the copy. If that fails at once, because nothing listens at the
    /// source's address any more, the next attempt waits.
    fn begin_copy_source_round<B: Backend>(&mut self, cx: &mut Context<'_, B>, view: &View) {
        let Some(source) = self.copy_source(cx.local, view) else { return };
        let CopySource { id, next, .. } = source;
        if self.rounds.contains_key(&id) {
            return;
        }
        let now = cx.now.mono;
        if next <= now {
            self.copy_source =
                Some(CopySource { next: now.plus_ms(COPY_SOURCE_EVERY_MS), ..source });
            let member = view.member(id);
            let is_remote = member.is_some_and(|m| m.info.region != cx.local.region());
            self.begin_round(cx, view, id, is_remote);
        }
        let next = self.copy_source.map_or(now, |source| source.next);
        self.wake_by(cx.local, next.max(now));
    }

    fn begin_local_round<B: Backend>(
        &mut self,
        cx: &mut Context<'_, B>,
        view: &View,
        partner: Incarnation,
    ) {
        let spread = xxhash_rust::xxh3::xxh3_64(&partner.0.to_le_bytes()) % SPREAD_MS;
        let next = next_after(cx.now, LOCAL_EVERY_MS, AFTER_SECOND_MS + spread);
        let peer = self.peers.entry(partner).or_insert_with(|| Peer::new(cx.now.mono));
        let is_due = peer.next <= cx.now.mono;
        if is_due {
            peer.next = next;
        }
        let at = peer.next;
        if is_due && !self.rounds.contains_key(&partner) {
            self.begin_round(cx, view, partner, false);
        }
        self.wake_by(cx.local, at);
    }

    /// Begins the round with another region, if this node is the one of its own region to do so.
    fn begin_region_round<B: Backend>(
        &mut self,
        cx: &mut Context<'_, B>,
        view: &View,
        region: String,
    ) {
        let number = cx.now.wall_ms.saturating_sub(AFTER_SECOND_MS) / REGION_ROUND_MS;
        let new = || RegionRound { number, tried: Vec::new(), is_done: false };
        let round = self.region_rounds.entry(region.clone()).or_insert_with(new);
        if round.number != number {
            *round = new();
        }
        if round.is_done || round.tried.len() >= TRIED_MAX {
            return;
        }
        let (own_region, own) = (cx.local.region(), cx.local.id());
        let is_colleague = |member: &&Member| {
            is_partner(cx.local, member)
                && member.info.region == own_region
                && member.info.state == NodeState::InSync
                && !member.suspect
        };
        let colleagues = view.members().filter(is_colleague);
        let ranks = colleagues.map(|m| rank(number, &region, own_region, m.info.incarnation));
        if ranks.max().is_some_and(|best| best > rank(number, &region, own_region, own)) {
            return;
        }
        let is_candidate = |member: &&Member| {
            let id = member.info.incarnation;
            is_partner(cx.local, member)
                && member.info.region == region
                && !round.tried.contains(&id)
                && !self.rounds.contains_key(&id)
        };
        let best = view.members().filter(is_candidate).max_by_key(|member| {
            let is_ready = member.info.state == NodeState::InSync && !member.suspect;
            (is_ready, rank(number, own_region, &region, member.info.incarnation))
        });
        let Some(partner) = best.map(|member| member.info.incarnation) else { return };
        round.tried.push(partner);
        round.is_done = true;
        self.begin_round(cx, view, partner, true);
    }

    /// Has another node of a region tried: the round with `partner` failed.
    pub(super) fn region_round_failed(
        &mut self,
        local: &mut Local,
        view: &View,
        now: Now,
        partner: Incarnation,
    ) {
        let region = view.member(partner).map(|member| &member.info.region);
        if let Some(round) = region.and_then(|region| self.region_rounds.get_mut(region)) {
            round.is_done = false;
        }
        self.wake_by(local, now.mono);
    }

    /// Whether a round with every local peer in sync, begun after `since`, left nothing out. Without local
    /// peers one with any node of another region is enough, if there is one.
    pub(in crate::node) fn has_caught_up(
        &self,
        local: &Local,
        view: &View,
        since: Instant,
    ) -> bool {
        let has_caught_up = |member: &Member| {
            let peer = self.peers.get(&member.info.incarnation);
            peer.and_then(|peer| peer.completed).is_some_and(|at| at >= since)
        };
        // Nodes with another time can be compared with only after a clock has moved, after the start.
        let agrees = |member: &&Member| is_colleague(local, member) && local.clocks.agrees(member);
        let members = || view.members().filter(agrees);
        let mut peers = members().filter(|member| member.info.region == local.region()).peekable();
        if peers.peek().is_some() {
            return peers.all(has_caught_up);
        }
        let mut remote = members().filter(|member| member.info.region != local.region()).peekable();
        remote.peek().is_none() || remote.any(has_caught_up)
    }

    /// Judges whether this node's misses are authoritative: it agrees with its peers, and so do all on who owns
    /// which key, and each of them has offered to the owners what it holds.
    pub(in crate::node) fn judge_misses(&self, local: &mut Local, view: &View, now: Now) {
        let has_owned = self.has_owned(local, view, now.mono);
        let is_placed = self.placed() == view.placement().id() && has_owned;
        let agrees = self.agrees(local, view, now);
        local.readiness.misses_are_authoritative = agrees && is_placed;
    }

    /// Whether this node has got the values that it owns, as far as it knows: each local peer in sync has offered what
    /// it holds, for the present owners.
    pub(in crate::node) fn has_owned(&self, local: &Local, view: &View, now: Instant) -> bool {
        let placement = view.placement().id();
        let has_placed = |member: &Member| {
            let peer = self.peers.get(&member.info.incarnation);
            // An earlier release offers nothing, as it gives nothing away.
            let offers = member.features & features::PLACEMENT != 0;
            let is_asked = offers && member.info.region == local.region();
            !is_asked || peer.is_some_and(|peer| peer.placed == placement)
        };
        let mut colleagues = view.members().filter(|member| is_colleague(local, member));
        self.lacks_nothing(now) && colleagues.all(has_placed)
    }

    /// Whether this node knows the versions of its peers: it is in sync, and agreed with every local peer a moment
    /// ago; no node is known that has more, or could have; and all agree on the time.
    pub(super) fn agrees(&self, local: &Local, view: &View, now: Now) -> bool {
        let is_fresh = |member: &Member| {
            let peer = self.peers.get(&member.info.incarnation);
            let completed = peer.and_then(|peer| peer.completed);
            completed.is_some_and(|at| now.mono.since_ms(at) <= FRESH_MS_MAX)
        };
        // A node that has synced with none started without data.
        let has_synced = !self.ages.is_empty();
        let agrees = |member: &Member| {
            let is_local = member.info.region == local.region();
            !local.clocks.is_apart(member) && has_synced && (!is_local || is_fresh(member))
        };
        let mut colleagues = view.members().filter(|member| is_colleague(local, member));
        let is_in_sync = local.readiness.state() == NodeState::InSync && self.start.is_done();
        let is_local = |member: &Member| member.info.region == local.region();
        let lacks_values = self.lacks_values && view.members().any(is_local);
        is_in_sync && !lacks_values && !self.misses_source(view) && colleagues.all(agrees)
    }
}

/// The next moment that is `after_ms` after a multiple of `every_ms` of the cluster's clock.
fn next_after(now: Now, every_ms: u64, after_ms: u64) -> Instant {
    let since = now.wall_ms.saturating_add(every_ms).saturating_sub(after_ms) % every_ms;
    now.mono.plus_ms(every_ms - since)
}

/// Rendezvous hashing: in each region round and for each pair of regions another node ranks highest.
fn rank(round: u64, to: &str, from: &str, node: Incarnation) -> u64 {
    let pair = xxhash_rust::xxh3::xxh3_64_with_seed(to.as_bytes(), round);
    let pair = xxhash_rust::xxh3::xxh3_64_with_seed(from.as_bytes(), pair);
    xxhash_rust::xxh3::xxh3_64_with_seed(&node.0.to_le_bytes(), pair)
}
