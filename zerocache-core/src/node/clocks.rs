//! Cluster time: this node's clock and an offset.
//!
//! A node stamps versions from its monotonic clock and this offset, so that steps of the wall clock change
//! nothing. The offset is set by the clocks of others before the node is in sync, and checked every minute
//! (contract section 3).
//!
//! Invariants: no time is beyond [`WALL_MS_MAX`]; a node that has been in sync never moves its clock by more
//! than a day; what it stamped by a clock that was wrong by more than others accept moves with it. Whatever
//! may move the clock returns the present moment by the new one: judged by the old one, the next look at the
//! store would forget what the move has kept.

use alloc::{collections::BTreeSet, vec::Vec};

use super::{Effect, Event, Node, Parts};
use crate::{
    clock::{AHEAD_MS_MAX, LEAD_MS_MAX},
    cluster::{MEMBERS_MAX, Member, View},
    store::{Backend, Store},
    time::{Instant, Now},
    version::{Incarnation, Version, WALL_MS_MAX},
    wire::NodeState,
};

/// A clock that is off by more than this is corrected, in milliseconds.
const OFF_MS_MAX: u64 = 1_000;

/// Clocks that differ by more than this fraction of the retention (1/4) do not have the same time either: what one of
/// them stamps would be too old for the other one's rounds too soon.
const SAME_FRACTION: u64 = 4;

/// Nodes that have been in sync and whose clocks differ by more than a day do not trust each other, in
/// milliseconds: one of them is broken, and no node can tell which.
const APART_MS_MAX: u64 = 86_400_000;

/// How often a node compares its clock with those of others, in milliseconds.
const CHECK_EVERY_MS: u64 = 60_000;

/// When a node meets another one, clocks are compared this soon, and again as long as they differ, in
/// milliseconds.
const CHECK_SOON_MS: u64 = 1_000;

/// A node that starts stamps by its own clock after this long, even if nodes have not responded yet, in
/// milliseconds.
const SET_MS_MAX: u64 = 3_000;

/// Versions move by multiples of this, in milliseconds. Nodes that were wrong together, whose clocks differ
/// by less than a second, then mostly give a write that both have the same version.
const RESTAMP_UNIT_MS: i64 = 10_000;

/// What a node knows of clocks.
#[derive(Debug)]
pub(super) struct Clocks {
    /// The offset to the node's own wall clock, in milliseconds.
    offset_ms: i64,
    /// Clocks that differ by no more than this have the same time, in milliseconds.
    same_ms_max: u64,
    /// Whether the clock has been compared with those of others, or there are none.
    is_set: bool,
    next_check: Instant,
    /// Since when the data here was stamped by this clock, or by clocks with the same time.
    pub(super) since: Instant,
    /// Who stamped, by another clock, what an earlier process of this node has left.
    foreign: BTreeSet<Incarnation>,
}

impl Clocks {
    /// A clock for versions that rounds compare for `retention_ms`.
    pub(super) fn new(now: Instant, retention_ms: u64) -> Self {
        let same_ms_max = AHEAD_MS_MAX.min(retention_ms / SAME_FRACTION);
        let foreign = BTreeSet::new();
        Self { offset_ms: 0, same_ms_max, is_set: false, next_check: now, since: now, foreign }
    }

    /// A moment in cluster time.
    pub(super) fn adjust(&self, now: Now) -> Now {
        let wall_ms = now.wall_ms.saturating_add_signed(self.offset_ms).min(WALL_MS_MAX);
        Now { wall_ms, ..now }
    }

    /// Whether the node may stamp and judge by the clock.
    pub(super) fn is_set(&self) -> bool {
        self.is_set
    }

    /// The offset to the node's own wall clock, in milliseconds.
    pub(super) fn offset_ms(&self) -> i64 {
        self.offset_ms
    }

    /// The difference between this clock and that of a member, in milliseconds, as far as it is known.
    fn differs_ms(&self, member: &Member) -> u64 {
        member.clock_ahead_ms.map_or(0, |ahead_ms| ahead_ms.abs_diff(self.offset_ms))
    }

    /// Whether a member has the same time: each accepts what the other stamps.
    pub(super) fn agrees(&self, member: &Member) -> bool {
        self.differs_ms(member) <= self.same_ms_max
    }

    /// Takes in that of an earlier process, which knew versions since then: they were stamped by the same time, or stay as
    /// they are when this clock is corrected.
    pub(super) fn restore<B: Backend>(
        &mut self,
        (offset_ms, since): (i64, Instant),
        store: &Store<B>,
        (own, now): (Incarnation, Now),
    ) {
        if self.offset_ms.abs_diff(offset_ms) <= self.same_ms_max {
            self.since = self.since.min(since);
        } else {
            self.foreign = store.incarnations_from(self.since_ms(now), MEMBERS_MAX);
            self.foreign.remove(&own);
        }
    }

    /// The time of this clock since which the data here was stamped by it, in milliseconds.
    fn since_ms(&self, now: Now) -> u64 {
        now.wall_ms.saturating_sub(now.mono.since_ms(self.since))
    }

    /// Converts a second of a member's clock, if that is ahead: the member has forgotten no more than that.
    pub(super) fn second_of(&self, member: &Member, second: u64) -> u64 {
        let ahead_ms =
            member.clock_ahead_ms.map_or(0, |ahead_ms| ahead_ms.saturating_sub(self.offset_ms));
        second.saturating_sub(u64::try_from(ahead_ms).unwrap_or(0) / 1_000)
    }

    /// Whether a node that reports this second can have the same time.
    pub(super) fn is_present(&self, now: Now, second: u64) -> bool {
        second <= now.wall_ms.saturating_add(self.same_ms_max) / 1_000 + 1
    }

    /// Whether neither this clock nor that of a member will move to the other one.
    pub(super) fn is_apart(&self, member: &Member) -> bool {
        self.differs_ms(member) > APART_MS_MAX
    }

    /// The median clock; of two the one that is ahead, because no version is beyond it. Of two that are
    /// a day apart the one that is nearer to this node's.
    fn median(&self, mut ahead: Vec<i64>) -> i64 {
        ahead.sort_unstable();
        let middle = ahead.len() / 2;
        let Some(&upper) = ahead.get(middle) else { return self.offset_ms };
        let lower = ahead[(ahead.len() - 1) / 2];
        let is_tie = upper.abs_diff(lower) > APART_MS_MAX;
        let is_nearer = lower.abs_diff(self.offset_ms) < upper.abs_diff(self.offset_ms);
        if is_tie && is_nearer { lower } else { upper }
    }

    /// Notes that a member's clock read `wall_ms` when half of `elapsed_us` had passed.
    pub(super) fn note_member(
        &mut self,
        now: Now,
        member: Option<&mut Member>,
        wall_ms: u64,
        elapsed_us: u64,
    ) {
        let Some(member) = member.filter(|_| wall_ms > 0) else { return };
        let theirs = wall_ms.saturating_add(elapsed_us / 2_000).min(WALL_MS_MAX);
        let own = now.wall_ms.saturating_add_signed(-self.offset_ms);
        member.clock_ahead_ms = i64::try_from(i128::from(theirs) - i128::from(own)).ok();
        // It may have moved to where this one was.
        if !self.agrees(member) && !self.is_apart(member) {
            self.check_soon(now);
        }
    }

    /// Has the clocks compared soon: there is another one, or a peer refused a version.
    pub(super) fn check_soon(&mut self, now: Now) {
        let soon = now.mono.plus_ms(CHECK_SOON_MS);
        self.next_check = self.next_check.min(soon);
    }

    /// Chooses the offset of a node that starts, by the clocks of nodes in sync. Without them all nodes that
    /// start together agree on the median.
    fn choose_offset(&self, view: &View) -> i64 {
        let mut ahead: Vec<_> = in_sync(view).filter_map(|member| member.clock_ahead_ms).collect();
        if ahead.is_empty() {
            ahead.extend(view.reachable().filter_map(|member| member.clock_ahead_ms));
            ahead.push(self.offset_ms);
        }
        self.median(ahead)
    }
}

/// The members that respond and are in sync.
fn in_sync(view: &View) -> impl Iterator<Item = &Member> {
    view.reachable().filter(|member| member.info.state == NodeState::InSync)
}

impl<B: Backend> Node<B> {
    /// Sets the clock of a node that starts.
    pub(super) fn set_clock(&mut self, now: Now, out: &mut Vec<Effect>) -> Now {
        let clocks = &mut self.local.clocks;
        let offset_ms = clocks.choose_offset(&self.membership.view);
        clocks.is_set = true;
        clocks.check_soon(now);
        self.move_clock(now, offset_ms, out)
    }

    /// Sets the clock of a node that starts as soon as all nodes that were found have been asked, and in any
    /// case soon: until then it accepts no writes.
    pub(super) fn set_clock_early(&mut self, now: Now, out: &mut Vec<Effect>) -> Now {
        let readiness = &self.local.readiness;
        let has_fresh = self.membership.view.candidates().has_fresh();
        let has_asked_all = readiness.discovery_complete && !has_fresh;
        let is_late = now.mono.since_ms(readiness.started) >= SET_MS_MAX;
        if !self.local.clocks.is_set && (has_asked_all || is_late) {
            return self.set_clock(now, out);
        }
        now
    }

    /// Compares the clock of a running node with those of nodes in sync, itself included: the median counts,
    /// so that all that know each other come to the same. Clocks that are a day away do not count.
    pub(super) fn check_clock(&mut self, now: Now, out: &mut Vec<Effect>) -> Now {
        let clocks = &mut self.local.clocks;
        let is_warming = self.local.readiness.state() == NodeState::Warming;
        if now.mono < clocks.next_check || is_warming {
            return now;
        }
        clocks.next_check = now.mono.plus_ms(CHECK_EVERY_MS);
        let others = in_sync(&self.membership.view).filter(|member| !clocks.is_apart(member));
        let mut ahead: Vec<_> = others.filter_map(|member| member.clock_ahead_ms).collect();
        ahead.push(clocks.offset_ms);
        let offset_ms = clocks.median(ahead);
        let now = self.move_clock(now, offset_ms, out);
        let clocks = &self.local.clocks;
        for member in in_sync(&self.membership.view).filter(|member| clocks.is_apart(member)) {
            let ahead_ms = member.clock_ahead_ms.unwrap_or(0).saturating_sub(clocks.offset_ms);
            let peer = member.info.incarnation;
            out.push(Effect::Event(Event::ClockApart { peer, ahead_ms }));
        }
        now
    }

    /// Changes the offset, if it is far enough off.
    fn move_clock(&mut self, now: Now, offset_ms: i64, out: &mut Vec<Effect>) -> Now {
        let by_ms = offset_ms.saturating_sub(self.local.clocks.offset_ms);
        if by_ms.unsigned_abs() <= OFF_MS_MAX {
            return now;
        }
        self.local.clocks.offset_ms = offset_ms;
        self.repair.clock_moved(by_ms);
        let right_ms = now.wall_ms.saturating_add_signed(by_ms).min(WALL_MS_MAX);
        let is_far = by_ms.unsigned_abs() > self.local.clocks.same_ms_max;
        let last_ms = self.replica.clock.last().wall_ms();
        let restamped = (is_far || last_ms > right_ms.saturating_add(AHEAD_MS_MAX))
            .then(|| self.restamp(now, by_ms, out));
        if restamped.is_none() && by_ms < 0 {
            // What was forgotten by a clock that was ahead was younger than it seemed.
            self.replica.store.restamp(|_| false, by_ms);
        }
        out.push(Effect::Event(Event::ClockMoved { by_ms, restamped }));
        Now { wall_ms: right_ms, ..now }
    }

    /// Gives what was stamped by a clock that was wrong the versions that the right one would have given:
    /// then it is as new as it is, and others accept it. Returns the number of entries.
    fn restamp(&mut self, now: Now, by_ms: i64, out: &mut Vec<Effect>) -> usize {
        let by_ms = by_ms.div_euclid(RESTAMP_UNIT_MS).saturating_mul(RESTAMP_UNIT_MS);
        let right_ms = now.wall_ms.saturating_add_signed(by_ms);
        let from_ms = self.local.clocks.since_ms(now).min(right_ms);
        // What is ahead of a clock that was behind, others have stamped by the right one.
        let to_ms = if by_ms > 0 { now.wall_ms.saturating_add(LEAD_MS_MAX) } else { u64::MAX };
        let Parts { mut cx, membership, replication, repair, .. } = self.parts(now, out);
        let foreign = &cx.local.clocks.foreign;
        let is_wrong = |version: Version| {
            (from_ms..to_ms).contains(&version.wall_ms())
                && !foreign.contains(&version.incarnation())
        };
        let restamped = cx.replica.store.restamp(is_wrong, by_ms);
        replication.restamp(is_wrong, by_ms);
        cx.replica.clock.restamp(by_ms);
        cx.end_leases();
        // Followers know higher versions, or will not recognise these.
        cx.replica.feed.lose();
        repair.versions_changed(cx.local, &membership.view, now);
        restamped
    }
}
