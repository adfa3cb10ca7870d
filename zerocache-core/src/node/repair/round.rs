//! One round with one partner, on the side of the node that asks.
//!
//! The round compares digests of blocks, then of the seconds of those blocks that differ, then of the shards
//! in those seconds. A moment later it compares these shards again, because what was just written differs
//! until it has arrived. It then requests the versions in the buckets that still differ, and fetches the
//! items that are newer there. A node that turns out to be outdated then requests the versions of all its
//! older values.

use alloc::{collections::BTreeMap, vec::Vec};

use super::{
    Peer, Repair, RepairCall,
    compare::{CLOCKS_DIFFER_MS, IN_TRANSIT_SECONDS, Round, Step},
    is_partner,
    sync_ages::{Partner, Verdict, is_older},
};
use crate::{
    call::CallResult,
    clock::AHEAD_MS_MAX,
    cluster::View,
    node::{
        CallId, Effect, Event,
        local::{CallPurpose, Context, Local},
    },
    store::{Backend, KeyVersion},
    time::Now,
    version::Incarnation,
    wire::{Digests, Lineage, Request, Response, Window},
};

/// How long a comparison may take, in milliseconds; three round trips are added.
const COMPARE_TIMEOUT_MS: u64 = 1_500;

/// With this many items still to be fetched, no further versions are requested.
const WANTED_MAX: usize = 65_536;

/// Versions further ahead of the clock than this do not fall behind it in a moment, in milliseconds.
const AHEAD_OF_CLOCK_MS: u64 = 500;

/// The window begins this much later than what is completely known, in seconds: that bound moves while the
/// round runs.
const MARGIN_SECONDS: u64 = 2;

impl Repair {
    pub(super) fn begin_round<B: Backend>(
        &mut self,
        cx: &mut Context<'_, B>,
        view: &View,
        id: Incarnation,
        is_remote: bool,
    ) {
        let now = cx.now;
        let mut from = cx.replica.store.first_complete_second(now) + MARGIN_SECONDS;
        if !self.start.is_done() {
            // What is older is copied.
            let starting_ms = now.mono.since_ms(cx.local.readiness.warm_since);
            let began = now.wall_ms.saturating_sub(starting_ms) / 1_000;
            from = from.max(began.saturating_sub(IN_TRANSIT_SECONDS));
        }
        // To the last second that ended over half a second ago, and at least to the one from which on writes
        // arrive without rounds. While versions run ahead of the clock, because it went back, they are all of
        // one second that will not end for long.
        let stamped_ms = cx.replica.clock.last().wall_ms();
        let to = match stamped_ms > now.wall_ms + AHEAD_OF_CLOCK_MS {
            true => stamped_ms / 1_000,
            false => now.wall_ms.saturating_sub(1_499) / 1_000,
        };
        let last_second = to.max(from).max(self.first_replicated_second(now, id));
        // The seconds of a clock ahead do not end for up to a minute, and may be lacked already.
        let latest = now.wall_ms.saturating_add(AHEAD_MS_MAX) / 1_000 + 1;
        let window = Window { from, to: last_second.max(latest) };
        let round = Round::new(id, is_remote, now, (window, last_second));
        self.rounds.insert(id, round);
        self.continue_round(cx, view, id);
    }

    /// The second from which on the writes of a partner arrive without rounds, by any clock.
    ///
    /// A round must not leave an earlier one to later rounds: a key that is written again and again has its
    /// only version in the last second each time.
    fn first_replicated_second(&self, now: Now, id: Incarnation) -> u64 {
        let Some(peer) = self.peers.get(&id) else { return 0 };
        let since_ms = now.wall_ms.saturating_sub(now.mono.since_ms(peer.since));
        since_ms.saturating_add(CLOCKS_DIFFER_MS) / 1_000
    }

    /// Requests what is next in a round.
    pub(super) fn continue_round<B: Backend>(
        &mut self,
        cx: &mut Context<'_, B>,
        view: &View,
        id: Incarnation,
    ) {
        let Some(mut round) = self.rounds.remove(&id) else { return };
        if !view.member(id).is_some_and(|member| is_partner(cx.local, member)) {
            return self.abort(cx.local, view, cx.now, round);
        }
        self.fetch(cx, view, &mut round);
        while round.call.is_none() && round.waits_until <= cx.now.mono {
            if round.wanted.len() > WANTED_MAX {
                break;
            }
            let last_sync = self.ages.last_sync(round.partner.id);
            let request = round.next_request(&cx.replica.store, last_sync);
            if round.is_about_to_drop() {
                self.begin_to_drop(cx, view, &mut round);
            }
            let Some(request) = request else { break };
            let kind = RepairCall::Compare;
            round.call = Self::ask(cx, view, (id, kind), request, COMPARE_TIMEOUT_MS);
            if round.call.is_none() {
                return self.abort(cx.local, view, cx.now, round);
            }
        }
        if round.call.is_none() && round.waits_until > cx.now.mono {
            self.wake_by(cx.local, round.waits_until);
        }
        let is_done = matches!(round.step, Step::Done) && round.call.is_none();
        if is_done && round.wanted.is_empty() && round.fetches.is_empty() {
            return self.complete(cx, view, round);
        }
        self.rounds.insert(id, round);
    }

    /// Makes a call to a partner, if it is a member.
    pub(super) fn ask<B: Backend>(
        cx: &mut Context<'_, B>,
        view: &View,
        (id, kind): (Incarnation, RepairCall),
        request: Request,
        timeout_ms: u64,
    ) -> Option<CallId> {
        let member = view.member(id)?;
        let to = (member.address, Some(id));
        let timeout_ms = timeout_ms + 3 * member.latency.micros().unwrap_or(0) / 1_000;
        let purpose = CallPurpose::Repair { member: id, call: kind };
        Some(cx.local.call(purpose, to, request, timeout_ms, cx.out))
    }

    /// Handles the response to a comparison.
    pub(super) fn compare_completed<B: Backend>(
        &mut self,
        cx: &mut Context<'_, B>,
        view: &View,
        call: CallId,
        id: Incarnation,
        result: CallResult,
    ) {
        let in_flight = |round: &mut Round| round.call.take_if(|own| *own == call);
        let Some((mut round, _)) = self.take_if(id, in_flight) else { return };
        let is_usable = match result {
            Ok(Response::Digests(digests)) => {
                self.digests_received(cx, view, &mut round, digests).is_some()
            }
            Ok(Response::Versions { versions, covered }) => {
                self.versions_received(cx, &mut round, versions, covered).is_some()
            }
            Ok(_) | Err(_) => false,
        };
        match is_usable {
            true => drop(self.rounds.insert(id, round)),
            false => self.abort(cx.local, view, cx.now, round),
        }
    }

    /// Takes the next step of a round; `None` if the digests cannot be used.
    fn digests_received<B: Backend>(
        &mut self,
        cx: &mut Context<'_, B>,
        view: &View,
        round: &mut Round,
        theirs: Digests,
    ) -> Option<()> {
        // Digests of more than was requested would size what they are compared with; and those of a node
        // with another time mean nothing.
        let is_present = cx.local.clocks.is_present(cx.now, theirs.from_second);
        if theirs.from_second < round.window.from || !is_present {
            return None;
        }
        let step = core::mem::replace(&mut round.step, Step::Done);
        let store = &cx.replica.store;
        // Tombstones may have been forgotten meanwhile: older seconds are not compared, because one of the
        // two does not know everything of them.
        let first = store.first_complete_second(cx.now);
        round.window.from = round.window.from.max(theirs.from_second).max(first);
        round.step = match step {
            Step::Blocks => {
                let Digests { lived_ms, ref sync_ages, lineage, .. } = theirs;
                let (id, ages) = (round.partner.id, sync_ages.clone());
                let lineage = lineage.unwrap_or(round.partner.lineage);
                round.partner = Partner { id, lived_ms, lineage, ages };
                round.placed = theirs.placed;
                self.judge(cx, view, round);
                round.compare_blocks(&cx.replica.store, &theirs)?
            }
            Step::Seconds(blocks) => round.compare_seconds(store, &blocks, &theirs)?,
            Step::Shards { left, asked, differing, before } => {
                let at = (&**store, cx.now.mono);
                round.compare_shards(at, (left, asked), (differing, before), &theirs)?
            }
            Step::Versions(_) | Step::Verify { .. } | Step::Done => return None,
        };
        Some(())
    }

    /// Takes the versions that a partner knows; `None` if they do not belong to the present step.
    fn versions_received<B: Backend>(
        &mut self,
        cx: &mut Context<'_, B>,
        round: &mut Round,
        versions: Vec<KeyVersion>,
        covered: u64,
    ) -> Option<()> {
        let covered = usize::try_from(covered).unwrap_or(usize::MAX);
        match &mut round.step {
            Step::Versions(buckets) if covered > 0 && covered <= buckets.len() => {
                buckets.drain(..covered);
                for version in versions {
                    self.want(&cx.replica.store, round, version);
                }
            }
            Step::Verify { asked, .. } if covered == asked.len() => {
                let asked = core::mem::take(asked);
                let known: BTreeMap<_, _> = versions.into_iter().collect();
                for (key, version) in asked {
                    match known.get(&key) {
                        Some(theirs) if *theirs >= version => {
                            self.want(&cx.replica.store, round, (key, *theirs));
                        }
                        // Evicted or deleted: a value alone does not show which. Or the partner knows an
                        // older version: no round brings it this one, so the copy brings that one here.
                        _ => {
                            let is_erased = cx.replica.erase(key, version);
                            self.handover.adoption.dropped(key);
                            self.counts.entries_dropped += u64::from(is_erased);
                        }
                    }
                }
            }
            _ => return None,
        }
        Some(())
    }

    /// Ends a round early.
    pub(super) fn abort(&mut self, local: &mut Local, view: &View, now: Now, round: Round) {
        self.counts.rounds_aborted += 1;
        let (id, is_remote) = (round.partner.id, round.is_remote);
        self.fetch_ended(round.keys_in_flight());
        if is_remote {
            self.region_round_failed(local, view, now, id);
        }
    }

    /// Completes a round: unless this node is outdated, it knows what the partner knew when the round began.
    fn complete<B: Backend>(&mut self, cx: &mut Context<'_, B>, view: &View, round: Round) {
        let is_starting = !self.start.is_done();
        match &round.verdict {
            Some(Verdict::Outdated) => {
                self.counts.full_resyncs += 1;
                let (peer, entries_dropped) = (round.partner.id, self.counts.entries_dropped);
                cx.out.push(Effect::Event(Event::FullResync { peer, entries_dropped }));
                self.copy_again(cx, view, peer);
            }
            verdict if round.is_complete && (is_starting || verdict.is_some()) => {
                self.note_complete(cx, &round);
                let is_equal = round.verdict.is_some();
                if self.lacks_values && is_equal && !round.is_remote {
                    self.copy_again(cx, view, round.partner.id);
                }
            }
            _ => self.counts.rounds_aborted += 1,
        }
        if !cx.local.is_leaving() {
            self.judge_misses(cx.local, view, cx.now);
        }
    }

    /// Notes what a round that left nothing out means for the completeness of this node's data.
    fn note_complete<B: Backend>(&mut self, cx: &mut Context<'_, B>, round: &Round) {
        let (partner, began) = (&round.partner, round.began);
        self.counts.rounds_completed += 1;
        let peer = Peer { next: cx.now.mono.plus_ms(1_000), ..Peer::new(began) };
        let peer = self.peers.entry(partner.id).or_insert(peer);
        (peer.completed, peer.placed) = (Some(began), round.placed);
        let Some(verdict) = &round.verdict else { return };
        self.ages.merge(cx.local.id(), (partner, verdict), began);
        let theirs = (partner.lineage.origin, began.minus_ms(partner.lineage.age_ms));
        let (origin, since) = self.lineage;
        let own = Lineage { origin, age_ms: began.since_ms(since) };
        let is_copy_source = self.copy_source.take_if(|source| source.id == partner.id).is_some();
        if is_copy_source {
            // What it alone knows is as new as its rounds reach.
            self.unshared_since = Some(began);
        }
        // Both know the same now: they are of one lineage, and what either has was stamped by the same time.
        if is_copy_source || is_older(partner.lineage, own) {
            self.lineage = theirs;
        }
        cx.local.clocks.since = cx.local.clocks.since.min(theirs.1);
    }
}
