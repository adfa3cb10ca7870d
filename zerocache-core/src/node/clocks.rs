//! The time of day as the cluster reckons it: this node's clock and an offset.
//!
//! A node stamps from its monotonic clock and this offset, so that steps of the wall clock change
//! nothing. The offset is set by the clocks of others before the node is in sync, and looked at every
//! minute (contract section 3).

use alloc::{collections::BTreeMap, vec::Vec};

use super::{Effect, Event, Node};
use crate::{
    clock::AHEAD_MS_MAX,
    cluster::Reach,
    store::LockFamily,
    time::{Instant, Now},
    version::{Incarnation, Version},
    wire::NodeState,
};

/// A clock that is off by more than this is put right, in milliseconds.
const OFF_MS_MAX: i64 = 1_000;

/// How often a node compares its clock with those of others, in milliseconds.
const CHECK_EVERY_MS: u64 = 60_000;

/// When another node is met, clocks are compared this soon, in milliseconds.
const CHECK_SOON_MS: u64 = 1_000;

/// A node that starts stamps by its own clock after this long, whoever has not answered yet, in
/// milliseconds.
const SET_MS_MAX: u64 = 3_000;

/// Refusals of this age no longer count, in milliseconds.
const REFUSAL_MS_MAX: u64 = 10_000;

/// What a node knows of clocks.
#[derive(Debug, Default)]
pub(super) struct Clocks {
    /// What is added to the node's own wall clock, in milliseconds.
    offset_ms: i64,
    /// Whether it has been compared with those of others, or there are none.
    is_set: bool,
    next_check: Instant,
    /// Peers that found this node's stamps too far ahead, and when.
    refusals: BTreeMap<Incarnation, Instant>,
}

impl Clocks {
    /// The moment as the cluster reckons it.
    pub(super) fn adjust(&self, now: Now) -> Now {
        Now { wall_ms: now.wall_ms.saturating_add_signed(self.offset_ms), ..now }
    }

    /// Whether the node may stamp and judge by it.
    pub(super) fn is_set(&self) -> bool {
        self.is_set
    }

    /// What is added to the node's own wall clock, in milliseconds.
    pub(super) fn offset_ms(&self) -> i64 {
        self.offset_ms
    }
}

impl<L: LockFamily> Node<L> {
    /// A member told its time: `wall_ms` when half of `elapsed_us` had passed.
    pub(super) fn note_clock(&mut self, now: Now, id: Incarnation, wall_ms: u64, elapsed_us: u64) {
        if wall_ms == 0 {
            return;
        }
        let told = wall_ms.saturating_add(elapsed_us / 2_000);
        let raw = now.wall_ms.saturating_add_signed(-self.clocks.offset_ms);
        if let Some(member) = self.view.member_mut(id) {
            let ahead = i128::from(told) - i128::from(raw);
            member.ahead_ms = i64::try_from(ahead).ok();
        }
    }

    /// How far the clocks of others are ahead of this node's own: of those in sync, or of all.
    fn others_ahead(&self, in_sync: bool) -> Vec<i64> {
        let members = self.view.members().filter(|m| m.reach == Reach::Reachable);
        let members = members.filter(|m| !in_sync || m.info.state == NodeState::InSync);
        members.filter_map(|member| member.ahead_ms).collect()
    }

    /// Sets the clock of a node that starts, by those of nodes in sync. Without them all that start
    /// together agree on the lower of the two middle ones of theirs, or the one in the middle.
    pub(super) fn set_clock(&mut self, now: Now, out: &mut Vec<Effect>) {
        let mut ahead = self.others_ahead(true);
        if ahead.is_empty() {
            ahead = self.others_ahead(false);
            ahead.push(0);
        }
        let middle = (ahead.len() - 1) / 2;
        ahead.sort_unstable();
        self.clocks.is_set = true;
        self.clocks.next_check = now.mono.plus_ms(CHECK_EVERY_MS);
        self.move_clock(now, ahead[middle], out);
    }

    /// Sets the clock of a node that starts as soon as everybody who was found has been asked, and in
    /// any case soon: until then it takes no writes.
    pub(super) fn set_clock_early(&mut self, now: Now, out: &mut Vec<Effect>) {
        let asked = self.settled && !self.view.candidates().has_fresh();
        if !self.clocks.is_set && (asked || now.mono.since_ms(self.started) >= SET_MS_MAX) {
            self.set_clock(now, out);
        }
    }

    /// Compares the clocks soon: there is another one.
    pub(super) fn check_clock_soon(&mut self, now: Now) {
        let soon = now.mono.plus_ms(CHECK_SOON_MS);
        self.clocks.next_check = self.clocks.next_check.min(soon);
    }

    /// Compares the clock of a running node with those of others, itself included: the one in the
    /// middle counts, or the lower of two, so that all that know each other come to the same.
    pub(super) fn check_clock(&mut self, now: Now, out: &mut Vec<Effect>) {
        if now.mono < self.clocks.next_check || self.state == NodeState::Warming {
            return;
        }
        self.clocks.next_check = now.mono.plus_ms(CHECK_EVERY_MS);
        let mut ahead = self.others_ahead(true);
        ahead.push(self.clocks.offset_ms);
        ahead.sort_unstable();
        self.move_clock(now, ahead[(ahead.len() - 1) / 2], out);
    }

    /// A peer refused a version: perhaps because it is stamped too far ahead. When most do, the clock
    /// of this node is wrong.
    pub(super) fn stamp_refused(
        &mut self,
        now: Now,
        peer: Incarnation,
        version: Version,
        out: &mut Vec<Effect>,
    ) {
        let Some(ahead) = self.view.member(peer).and_then(|member| member.ahead_ms) else { return };
        let raw = now.wall_ms.saturating_add_signed(-self.clocks.offset_ms);
        let theirs = raw.saturating_add_signed(ahead);
        // A second less: what is known of the other's clock is not exact.
        if version.wall_ms() < theirs.saturating_add(AHEAD_MS_MAX - 1_000) {
            return;
        }
        let refusals = &mut self.clocks.refusals;
        refusals.retain(|_, at| now.mono.since_ms(*at) < REFUSAL_MS_MAX);
        refusals.insert(peer, now.mono);
        let refused = refusals.len();
        let mut ahead = self.others_ahead(false);
        if refused * 2 > ahead.len() && !ahead.is_empty() {
            ahead.sort_unstable();
            self.move_clock(now, ahead[(ahead.len() - 1) / 2], out);
        }
    }

    /// Changes the offset, if it is far enough off; drops what is stamped too far ahead then.
    fn move_clock(&mut self, now: Now, offset_ms: i64, out: &mut Vec<Effect>) {
        let by_ms = offset_ms.saturating_sub(self.clocks.offset_ms);
        if by_ms.abs() <= OFF_MS_MAX {
            return;
        }
        self.clocks.offset_ms = offset_ms;
        self.clocks.refusals.clear();
        let now = Now { wall_ms: now.wall_ms.saturating_add_signed(by_ms), ..now };
        let most_ms = now.wall_ms.saturating_add(AHEAD_MS_MAX);
        let mut dropped = None;
        // Traces that were forgotten by a clock in the future are missing too.
        let floor_ms = self.store.first_second(now).saturating_mul(1_000);
        if self.clock.last().wall_ms() > most_ms || floor_ms > now.wall_ms {
            dropped = Some(self.store.rewind(now, most_ms << Version::COUNTER_BITS));
            self.clock.restart_at(self.store.highest_stamp());
            self.start_again(now, out);
        }
        out.push(Effect::Event(Event::ClockMoved { by_ms, dropped }));
    }
}
