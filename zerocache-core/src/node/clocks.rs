//! The time of day as the cluster reckons it: this node's clock and an offset.
//!
//! A node stamps from its monotonic clock and this offset, so that steps of the wall clock change
//! nothing. The offset is set by the clocks of others before the node is in sync, and looked at every
//! minute (contract section 3).
//!
//! Invariants: no time of day is beyond [`WALL_MS_MAX`]; a node that has been in sync never moves by
//! more than a day; what it stamped by a clock that was wrong by more than others accept moves with it.
//! Whatever may move the clock returns the moment by the new one: judged by the old one, the first look at
//! the store would forget what the move has kept.

use alloc::vec::Vec;

use super::{Effect, Event, Node};
use crate::{
    clock::AHEAD_MS_MAX,
    cluster::{Member, Reach},
    store::Backend,
    time::{Instant, Now},
    version::{Incarnation, WALL_MS_MAX},
    wire::NodeState,
};

/// A clock that is off by more than this is put right, in milliseconds.
const OFF_MS_MAX: u64 = 1_000;

/// Nodes that have been in sync and whose clocks differ by more than a day do not believe each other, in
/// milliseconds: one of them is broken, and nobody here can tell which.
const APART_MS_MAX: u64 = 86_400_000;

/// How often a node compares its clock with those of others, in milliseconds.
const CHECK_EVERY_MS: u64 = 60_000;

/// When another node is met, clocks are compared this soon, and again as long as they differ, in
/// milliseconds.
const CHECK_SOON_MS: u64 = 1_000;

/// A node that starts stamps by its own clock after this long, whoever has not answered yet, in
/// milliseconds.
const SET_MS_MAX: u64 = 3_000;

/// Stamps move by multiples of this, in milliseconds: so nodes that were wrong together, whose clocks
/// differ by less than a second, mostly give a write that both have the same version.
const REDATED_MS: i64 = 10_000;

/// What a node knows of clocks.
#[derive(Debug)]
pub(super) struct Clocks {
    /// What is added to the node's own wall clock, in milliseconds.
    offset_ms: i64,
    /// Whether it has been compared with those of others, or there are none.
    is_set: bool,
    next_check: Instant,
    /// Since when what is here was stamped by this clock, or by those of nodes that had the same time.
    pub(super) since: Instant,
}

impl Clocks {
    pub(super) fn new(now: Instant) -> Self {
        Self { offset_ms: 0, is_set: false, next_check: now, since: now }
    }

    /// The moment as the cluster reckons it.
    pub(super) fn adjust(&self, now: Now) -> Now {
        let wall_ms = now.wall_ms.saturating_add_signed(self.offset_ms).min(WALL_MS_MAX);
        Now { wall_ms, ..now }
    }

    /// Whether the node may stamp and judge by it.
    pub(super) fn is_set(&self) -> bool {
        self.is_set
    }

    /// What is added to the node's own wall clock, in milliseconds.
    pub(super) fn offset_ms(&self) -> i64 {
        self.offset_ms
    }

    /// By how much this clock and that of a member differ, in milliseconds, as far as that is known.
    fn differs_ms(&self, member: &Member) -> u64 {
        member.ahead_ms.map_or(0, |ahead_ms| ahead_ms.abs_diff(self.offset_ms))
    }

    /// Whether a member reckons the same time: each takes what the other stamps.
    pub(super) fn agrees(&self, member: &Member) -> bool {
        self.differs_ms(member) <= AHEAD_MS_MAX
    }

    /// What a member calls `second`, if its clock is ahead: it has forgotten no more than that.
    pub(super) fn second_of(&self, member: &Member, second: u64) -> u64 {
        let ahead_ms =
            member.ahead_ms.map_or(0, |ahead_ms| ahead_ms.saturating_sub(self.offset_ms));
        second.saturating_sub(u64::try_from(ahead_ms).unwrap_or(0) / 1_000)
    }

    /// Whether somebody who tells of this second can reckon the same time.
    pub(super) fn is_of_now(now: Now, second: u64) -> bool {
        second <= now.wall_ms.saturating_add(AHEAD_MS_MAX) / 1_000 + 1
    }

    /// Whether neither this clock nor that of a member will move to the other one.
    pub(super) fn is_apart(&self, member: &Member) -> bool {
        self.differs_ms(member) > APART_MS_MAX
    }

    /// The clock in the middle; of two the one that is ahead, because nobody has stamped beyond it. Of two
    /// that are a day apart the one that is nearer to this node's.
    fn middle(&self, mut ahead: Vec<i64>) -> i64 {
        ahead.sort_unstable();
        let middle = ahead.len() / 2;
        let Some(&upper) = ahead.get(middle) else { return self.offset_ms };
        let lower = ahead[(ahead.len() - 1) / 2];
        let is_tie = upper.abs_diff(lower) > APART_MS_MAX;
        let nearer = lower.abs_diff(self.offset_ms) < upper.abs_diff(self.offset_ms);
        if is_tie && nearer { lower } else { upper }
    }
}

impl<B: Backend> Node<B> {
    /// A member told its time: `wall_ms` when half of `elapsed_us` had passed.
    pub(super) fn note_clock(&mut self, now: Now, id: Incarnation, wall_ms: u64, elapsed_us: u64) {
        if wall_ms == 0 {
            return;
        }
        let told = wall_ms.saturating_add(elapsed_us / 2_000).min(WALL_MS_MAX);
        let raw = now.wall_ms.saturating_add_signed(-self.clocks.offset_ms);
        if let Some(member) = self.view.member_mut(id) {
            let ahead = i128::from(told) - i128::from(raw);
            member.ahead_ms = i64::try_from(ahead).ok();
            // It may have moved to where this one was.
            if !self.clocks.agrees(member) && !self.clocks.is_apart(member) {
                self.check_clock_soon(now);
            }
        }
    }

    /// The members that answer and are in sync.
    fn in_sync(&self) -> impl Iterator<Item = &Member> {
        let members = self.view.members().filter(|m| m.reach == Reach::Reachable);
        members.filter(|m| m.info.state == NodeState::InSync)
    }

    /// Sets the clock of a node that starts, by those of nodes in sync. Without them all that start
    /// together agree on the one in the middle.
    pub(super) fn set_clock(&mut self, now: Now, out: &mut Vec<Effect>) -> Now {
        let mut ahead: Vec<_> = self.in_sync().filter_map(|member| member.ahead_ms).collect();
        if ahead.is_empty() {
            let others = self.view.members().filter(|m| m.reach == Reach::Reachable);
            ahead.extend(others.filter_map(|member| member.ahead_ms));
            ahead.push(self.clocks.offset_ms);
        }
        self.clocks.is_set = true;
        self.check_clock_soon(now);
        self.move_clock(now, self.clocks.middle(ahead), out)
    }

    /// Sets the clock of a node that starts as soon as everybody who was found has been asked, and in
    /// any case soon: until then it takes no writes.
    pub(super) fn set_clock_early(&mut self, now: Now, out: &mut Vec<Effect>) -> Now {
        let asked = self.settled && !self.view.candidates().has_fresh();
        if !self.clocks.is_set && (asked || now.mono.since_ms(self.started) >= SET_MS_MAX) {
            return self.set_clock(now, out);
        }
        now
    }

    /// Compares the clocks soon: there is another one, or a peer refused a stamp.
    pub(super) fn check_clock_soon(&mut self, now: Now) {
        let soon = now.mono.plus_ms(CHECK_SOON_MS);
        self.clocks.next_check = self.clocks.next_check.min(soon);
    }

    /// Compares the clock of a running node with those of nodes in sync, itself included: the one in the
    /// middle counts, so that all that know each other come to the same. Those a day away do not count.
    pub(super) fn check_clock(&mut self, now: Now, out: &mut Vec<Effect>) -> Now {
        if now.mono < self.clocks.next_check || self.state == NodeState::Warming {
            return now;
        }
        self.clocks.next_check = now.mono.plus_ms(CHECK_EVERY_MS);
        let others = self.in_sync().filter(|member| !self.clocks.is_apart(member));
        let mut ahead: Vec<_> = others.filter_map(|member| member.ahead_ms).collect();
        ahead.push(self.clocks.offset_ms);
        let now = self.move_clock(now, self.clocks.middle(ahead), out);
        for member in self.in_sync().filter(|member| self.clocks.is_apart(member)) {
            let ahead_ms = member.ahead_ms.unwrap_or(0).saturating_sub(self.clocks.offset_ms);
            let peer = member.info.incarnation;
            out.push(Effect::Event(Event::ClockApart { peer, ahead_ms }));
        }
        now
    }

    /// Changes the offset, if it is far enough off.
    fn move_clock(&mut self, now: Now, offset_ms: i64, out: &mut Vec<Effect>) -> Now {
        let by_ms = offset_ms.saturating_sub(self.clocks.offset_ms);
        if by_ms.unsigned_abs() <= OFF_MS_MAX {
            return now;
        }
        self.clocks.offset_ms = offset_ms;
        self.repair.start.redate(by_ms);
        let right_ms = now.wall_ms.saturating_add_signed(by_ms).min(WALL_MS_MAX);
        let far = by_ms.unsigned_abs() > AHEAD_MS_MAX;
        let redated = (far || self.clock.last().wall_ms() > right_ms.saturating_add(AHEAD_MS_MAX))
            .then(|| self.redate(now, by_ms, out));
        if redated.is_none() && by_ms < 0 {
            // What was forgotten by a clock that was ahead was younger than it seemed.
            self.store.restamp(WALL_MS_MAX + 1, by_ms);
        }
        out.push(Effect::Event(Event::ClockMoved { by_ms, redated }));
        Now { wall_ms: right_ms, ..now }
    }

    /// What was stamped by a clock that was wrong gets the versions that the right one would have given:
    /// then it is as new as it is, and others take it. Returns how many entries that were.
    fn redate(&mut self, now: Now, by_ms: i64, out: &mut Vec<Effect>) -> usize {
        let by_ms = by_ms.div_euclid(REDATED_MS).saturating_mul(REDATED_MS);
        let wrong_ms = now.mono.since_ms(self.clocks.since);
        let right_ms = now.wall_ms.saturating_add_signed(by_ms);
        let from_ms = now.wall_ms.saturating_sub(wrong_ms).min(right_ms);
        let redated = self.store.restamp(from_ms, by_ms);
        self.clock.restamp(by_ms);
        self.end_leases(out);
        // Whoever follows knows higher versions, or will not know these for those that it knows.
        self.feed.lose();
        self.repair_anew(now);
        redated
    }
}
