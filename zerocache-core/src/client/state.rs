//! The state that all operations of a client share.

use core::net::SocketAddr;

use super::{
    AttemptId, ClientVariant, HedgeShare, KeyRules, OwnWrite, PendingAttempt, discovery::Obstacle,
    hedge::Hedging, own_writes::OwnWrites,
};
use crate::{
    call::{CallFailure, CallResult},
    key::KeyHash,
    route::{Attempt, Budget, Directory, Plan, TierBounds, Walk},
    time::Instant,
    version::Version,
};

/// For this long after its start a client waits for a node of its own region before it asks one of another,
/// in milliseconds: mDNS finds a node in 50 to 75 ms, unless another query was sent just before.
const LOCAL_FIRST_MS: u64 = 300;

/// The state that all operations of a client share.
#[derive(Debug)]
pub struct ClientState {
    directory: Directory,
    bounds: TierBounds,
    own_writes: OwnWrites,
    pub(super) hedging: Option<Hedging>,
    /// The highest stamp of all versions that nodes sent.
    seen: u64,
    started: Instant,
    /// Whether every way of discovery has given its first answer.
    is_discovery_complete: bool,
    /// Whether all nodes known at that time have been tried.
    is_tried: bool,
    /// The last node that could not be used although it is there, and has said nothing else since.
    pub(super) obstacle: Option<(SocketAddr, Obstacle)>,
    #[cfg(feature = "variants")]
    variant: Option<ClientVariant>,
}

impl ClientState {
    /// The state of a client that starts in `region` at `now`, and knows no node yet. Reads are hedged where
    /// there is a share for that.
    #[must_use]
    pub fn new(region: &str, bounds: TierBounds, hedge: Option<HedgeShare>, now: Instant) -> Self {
        Self {
            directory: Directory::new(region),
            bounds,
            own_writes: OwnWrites::default(),
            hedging: hedge.map(Hedging::new),
            seen: 0,
            started: now,
            is_discovery_complete: false,
            is_tried: false,
            obstacle: None,
            #[cfg(feature = "variants")]
            variant: None,
        }
    }

    /// The nodes that the client knows.
    #[must_use]
    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// The nodes that the client knows, for changes.
    pub fn directory_mut(&mut self) -> &mut Directory {
        &mut self.directory
    }

    /// The time bounds of each tier.
    #[must_use]
    pub const fn bounds(&self) -> &TierBounds {
        &self.bounds
    }

    /// The highest stamp that the client has seen: its writes come after everything that it saw.
    #[must_use]
    pub const fn seen(&self) -> u64 {
        self.seen
    }

    /// Records a version that a node sent.
    pub fn note_seen(&mut self, version: Version) {
        self.note_seen_stamp(version.stamp());
    }

    /// Records the stamp of a version that a node named.
    pub fn note_seen_stamp(&mut self, stamp: u64) {
        self.seen = self.seen.max(stamp);
    }

    /// The client's last write of a key, if it was a moment before `now`.
    #[must_use]
    pub fn own_write(&self, key: KeyHash, now: Instant) -> Option<OwnWrite> {
        let is_remembered = !self.is_broken(ClientVariant::OwnWritesForgotten);
        self.own_writes.last(key, now).filter(|_| is_remembered)
    }

    /// Records a write that a node accepted.
    pub fn record_own_write(&mut self, key: KeyHash, write: OwnWrite, now: Instant) {
        self.own_writes.record(key, write, now);
    }

    /// Breaks a rule.
    #[cfg(feature = "variants")]
    pub fn break_rule(&mut self, variant: Option<ClientVariant>) {
        self.variant = variant;
    }

    /// Whether this rule is broken; none is without the feature `variants`.
    #[inline]
    pub(super) fn is_broken(&self, variant: ClientVariant) -> bool {
        #[cfg(feature = "variants")]
        return self.variant == Some(variant);
        #[cfg(not(feature = "variants"))]
        {
            let _ = variant;
            false
        }
    }

    /// Records that every way of discovery has given its first answer.
    pub fn discovery_completed(&mut self) {
        self.is_discovery_complete = true;
    }

    /// Notes whether all addresses found at the start have been tried by now. Returns whether that has
    /// changed.
    pub fn update_tried(&mut self) -> bool {
        let was_tried = self.is_tried;
        self.is_tried |= self.is_discovery_complete && !self.directory.candidates().has_fresh();
        self.is_tried != was_tried
    }

    /// Whether all addresses found at the start have been tried.
    #[must_use]
    pub const fn is_tried(&self) -> bool {
        self.is_tried
    }

    /// Whether a node in sync is known: one of the client's own region, or any once all addresses found at
    /// the start have been tried.
    #[must_use]
    pub fn is_ready(&self, now: Instant) -> bool {
        self.directory.is_ready_locally(now) || (self.is_tried && self.directory.is_ready(now))
    }

    /// Until when an operation waits for a node at the start of the client; none if it need not. For a
    /// moment only a node of the client's own region is good enough.
    pub(super) fn await_nodes(&self, now: Instant, budget: Budget) -> Option<Instant> {
        if self.is_tried || self.directory.is_ready_locally(now) || budget.remaining_ms(now) == 0 {
            return None;
        }
        let local_until = self.started.plus_ms(LOCAL_FIRST_MS);
        if now < local_until {
            return Some(local_until.min(budget.deadline()));
        }
        (!self.directory.is_ready(now)).then_some(budget.deadline())
    }

    /// The walk of a key along `plan` within `budget`.
    pub(super) fn walk(&self, rules: &impl KeyRules, plan: Plan, budget: Budget) -> Walk {
        let walk = Walk::new(plan, self.bounds, budget);
        if rules.expects_soon() { walk } else { walk.with_whole_budget() }
    }

    /// Begins an attempt: its node owes an answer from now on.
    pub(super) fn begin_attempt(
        &mut self,
        id: AttemptId,
        Attempt { step, timeout_ms }: Attempt,
        expects_soon: bool,
        now: Instant,
    ) -> PendingAttempt {
        let is_oldest = expects_soon && self.directory.request_sent(step.node, now);
        PendingAttempt { id, step, timeout_ms, sent: now, expects_soon, is_oldest }
    }

    /// Records that nobody waits for an attempt any more.
    pub(super) fn abandon(&mut self, attempt: &mut PendingAttempt) {
        if core::mem::take(&mut attempt.is_oldest) {
            self.directory.answer_abandoned(attempt.step.node, attempt.sent);
        }
    }

    /// Records in the directory how an attempt ended. The response of another node than the one asked
    /// becomes a failure.
    pub(super) fn end_attempt(
        &mut self,
        attempt: &PendingAttempt,
        result: CallResult,
        now: Instant,
        elapsed_us: Option<u64>,
    ) -> CallResult {
        let (step, elapsed_us) = (&attempt.step, elapsed_us.filter(|_| attempt.expects_soon));
        match result {
            Ok(response) => {
                let is_its = self.directory.record_response(step.node, &response, now, elapsed_us);
                if is_its { Ok(response) } else { Err(CallFailure::NotSent) }
            }
            Err(failure) => {
                // A deadline shorter than the bound of the tier says little about the node. So does the response to
                // a write that waits for other nodes, if this one responded to something else meanwhile.
                let waits_for_others =
                    !attempt.expects_soon && self.directory.heard_since(step.node, attempt.sent);
                let is_patient =
                    attempt.timeout_ms >= self.bounds.of(step.tier) && !waits_for_others;
                match failure {
                    CallFailure::NoAnswer if is_patient => {
                        self.directory.request_timed_out(step.node, now);
                    }
                    CallFailure::NoAnswer => {}
                    CallFailure::Refused
                    | CallFailure::NotSent
                    | CallFailure::Unverified
                    | CallFailure::OtherHost => {
                        self.directory.request_failed(step.node, now);
                    }
                }
                Err(failure)
            }
        }
    }
}
