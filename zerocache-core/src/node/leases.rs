//! Leases: who may compute a value, and who waits for it.
//!
//! One caller at a time has the leave to compute the value of a key. Its token is a version, stamped
//! when the leave was given: what it writes with it loses against everything that came after. The
//! others wait for the value, whichever way it comes, or for the end of the leave.
//!
//! A leave, and a place among those who wait, last no longer than the connection on which they were
//! asked for: whoever died keeps nobody waiting.
//!
//! Invariants: everybody who waits is answered within its time; nobody waits for a key of which nobody
//! has the leave; the token of a key that is given later is higher.

mod table;

use alloc::vec::Vec;

pub(super) use self::table::Leases;
use self::table::{Leave, Waiter, Who};
use super::{ConnectionId, Effect, Node, RequestId, fanout::Waiting};
use crate::{
    clock::AHEAD_MS_MAX,
    entry::{Change, Entry, Record},
    key::{Key, KeyHash},
    metadata::{Freshness, Metadata},
    store::Backend,
    time::Now,
    version::{Incarnation, Version},
    wire::{NodeState, RefusalCode, Response},
};

/// Most keys of which somebody has the leave; for others whoever asks computes.
const LEASES_MAX: usize = 65_536;

/// Bytes that these keys take at most.
const KEY_BYTES_MAX: usize = 16 << 20;

/// Most who wait, for all keys together; others compute.
const WAITING_MAX: usize = 65_536;

/// How long a leave lasts when the caller does not say, in milliseconds.
const LIFE_MS: u64 = 10_000;

/// The longest leave, in milliseconds.
const LIFE_MS_MAX: u64 = 300_000;

/// The longest wait, in milliseconds.
const WAIT_MS_MAX: u64 = 60_000;

/// An answer leaves this long before its caller gives up, in milliseconds.
const MARGIN_MS: u64 = 50;

/// A token is taken for this long after it was stamped, in milliseconds: the longest leave, and what
/// clocks may differ by. Traces are kept for much longer.
const TOKEN_AGE_MS_MAX: u64 = LIFE_MS_MAX + AHEAD_MS_MAX;

/// A delete with a stamp this far below the token was made before the leave was given, whatever clocks
/// differ by, in milliseconds.
const DELETE_BEFORE_MS_MAX: u64 = 5_000;

/// What became of leases so far, and how many there are now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeaseCounts {
    /// Keys of which somebody has the leave now.
    pub held: u64,
    /// Callers that wait now.
    pub waiting: u64,
    /// Leaves given to callers that found nobody computing.
    pub granted: u64,
    /// Leaves given to callers that had waited, after the leave before ended without a value.
    pub handed_over: u64,
    /// Leaves that ended by a delete, or by a newer write that left no fresh value.
    pub invalidated: u64,
    /// Leaves that nobody gave back in time.
    pub expired: u64,
    /// Leaves that ended because the connection of their holder did.
    pub disconnected: u64,
    /// Callers that got a fresh value.
    pub served: u64,
    /// Callers that got nothing in time.
    pub busy: u64,
}

/// A call for a lease.
pub(super) struct Ask {
    pub(super) id: RequestId,
    pub(super) connection: ConnectionId,
    pub(super) key: Key,
    pub(super) life_ms: u64,
    pub(super) wait_ms: u64,
    /// What the caller still waits, in milliseconds; 0 when it does not say.
    pub(super) timeout_ms: u64,
    /// Values of up to this version are of no use to it.
    pub(super) over: Option<Version>,
}

impl<B: Backend> Node<B> {
    /// What became of leases so far.
    #[must_use]
    pub fn lease_counts(&self) -> LeaseCounts {
        self.leases.counts()
    }

    /// Gives a fresh value, or the leave to compute it; lets the caller wait when another one has it.
    pub(super) fn lease(&mut self, now: Now, ask: Ask, out: &mut Vec<Effect>) {
        let Ask { id, connection, key, life_ms, wait_ms, timeout_ms, over } = ask;
        if let Err(error) = Key::new(key.as_bytes().clone(), &self.config.limits) {
            let response = Response::refused(RefusalCode::BadKey, alloc::format!("{error}"));
            return out.push(Effect::Respond { id, response });
        }
        if !self.clocks.is_set() {
            return out.push(Effect::Respond { id, response: super::unset() });
        }
        if self.resumes {
            // Its value may be gone, and others may have given leases meanwhile.
            let text = "the node was suspended, and fetches what it missed";
            let response = Response::refused(RefusalCode::Overloaded, text);
            return out.push(Effect::Respond { id, response });
        }
        let fresh = self.fresh(&key, now).filter(|(version, _)| Some(*version) > over);
        if let Some((_, response)) = fresh {
            self.leases.counts.served += 1;
            return out.push(Effect::Respond { id, response });
        }
        let hash = key.hash();
        let life_ms = if life_ms == 0 { LIFE_MS } else { life_ms.min(LIFE_MS_MAX) };
        let most_ms = if timeout_ms == 0 { u64::MAX } else { timeout_ms.saturating_sub(MARGIN_MS) };
        let wait_ms = wait_ms.min(WAIT_MS_MAX).min(most_ms);
        let leaves = self.state == NodeState::Leaving;
        match self.leases.get(hash) {
            None if !leaves && self.leases.may_hold(connection, &key) => {
                let token = self.stamp_for(now, hash);
                let until = now.mono.plus_ms(life_ms);
                self.leases.grant(hash, &key, Leave { token, holder: connection, until, over });
                self.leases.counts.granted += 1;
                out.push(Effect::Respond { id, response: Response::LeaseGranted { token } });
            }
            Some(lease) if lease.key == key && wait_ms > 0 && self.leases.may_wait(connection) => {
                let until = now.mono.plus_ms(wait_ms);
                self.leases.wait(hash, id, Waiter { connection, life_ms, until, over });
            }
            other => {
                let waits = other.is_some_and(|lease| lease.key == key && wait_ms > 0);
                self.refused.over_quota += u64::from(!leaves && (waits || other.is_none()));
                self.busy(id, out);
            }
        }
        self.wake_by(self.leases.next_due());
    }

    /// A version for a key, above what is known of it: others may have stamped that with clocks ahead of
    /// this node's.
    fn stamp_for(&mut self, now: Now, hash: KeyHash) -> Version {
        let known = self.store.version(hash).unwrap_or(Version::new(0, Incarnation(0)));
        self.clock.stamp_above(known, now.wall_ms)
    }

    /// A leave is given back: the next one gets it, or everybody hears that it failed.
    pub(super) fn release(
        &mut self,
        now: Now,
        (key, token): (&Key, Version),
        failed: bool,
        out: &mut Vec<Effect>,
    ) -> Response {
        let hash = key.hash();
        self.look_at_changes(now, hash, out);
        if self.leases.get(hash).is_some_and(|lease| lease.leave.token == token) {
            if failed {
                self.end_busy(hash, out);
            } else {
                self.pass_on(now, hash, out);
            }
        }
        Response::Done
    }

    /// A connection has ended: nobody waits on it any more, and whoever has leave from it is gone, or
    /// does not know that it still is the only one.
    pub(super) fn closed(&mut self, now: Now, connection: ConnectionId, out: &mut Vec<Effect>) {
        while let Some((hash, who)) = self.leases.first_of(connection) {
            match who {
                Who::Waiter(id) => {
                    self.leases.take(hash, id);
                    out.push(Effect::Respond { id, response: Response::LeaseHeld });
                }
                Who::Holder => {
                    self.look_at_changes(now, hash, out);
                    if self.leases.first_of(connection) == Some((hash, who)) {
                        self.leases.counts.disconnected += 1;
                        self.pass_on(now, hash, out);
                    }
                }
            }
        }
        if !connection.is_single_use() {
            self.view.candidates_mut().forget(connection.teller());
        }
        self.watch_ended(now, connection, out);
        self.follow_ended(connection, out);
    }

    /// Whether a value may be written with a token: it was given not too long ago, by a clock that is
    /// not too wrong. Later stamps are above it.
    pub(super) fn accepts(&mut self, now: Now, token: Version) -> bool {
        token.wall_ms().saturating_add(TOKEN_AGE_MS_MAX) >= now.wall_ms
            && self.note_seen(now, token)
    }

    /// All leases end: the clock that stamped them was wrong.
    pub(super) fn end_leases(&mut self, out: &mut Vec<Effect>) {
        while let Some(hash) = self.leases.any() {
            self.end_busy(hash, out);
        }
    }

    /// Looks at what has changed, and at whose time is over.
    pub(super) fn settle_leases(&mut self, now: Now, out: &mut Vec<Effect>) {
        if self.leases.is_empty() {
            return;
        }
        while let Some(hash) = self.leases.first_changed() {
            self.look_at_changes(now, hash, out);
        }
        if self.state == NodeState::Leaving {
            self.end_leases(out);
        }
        while let Some((at, hash, who)) = self.leases.first_due() {
            if at > now.mono {
                return self.wake_by(Some(at));
            }
            match who {
                Who::Waiter(id) => {
                    self.leases.take(hash, id);
                    self.busy(id, out);
                }
                Who::Holder => {
                    self.leases.counts.expired += 1;
                    self.pass_on(now, hash, out);
                }
            }
        }
    }

    /// Looks at a key, if it has changed: its value may have come together with what ends the leave, or a
    /// delete, which may be made again.
    fn look_at_changes(&mut self, now: Now, hash: KeyHash, out: &mut Vec<Effect>) {
        while let Some(deleted) = self.leases.take_change(hash) {
            self.look_at(now, hash, deleted, out);
        }
    }

    /// A key with a lease has changed; `deleted` is the version of a delete that was the last change.
    fn look_at(
        &mut self,
        now: Now,
        hash: KeyHash,
        deleted: Option<Version>,
        out: &mut Vec<Effect>,
    ) {
        let Some(lease) = self.leases.get(hash) else { return };
        let (Leave { token, over, .. }, key) = (lease.leave, lease.key.clone());
        if let Some((version, response)) = self.fresh(&key, now) {
            for id in self.leases.take_served(hash, version) {
                self.leases.counts.served += 1;
                out.push(Effect::Respond { id, response: response.clone() });
            }
            if Some(version) > over {
                // For those to whom it is of no use.
                return self.pass_on(now, hash, out);
            }
        }
        let known = self.store.version(hash);
        if known.is_some_and(|known| known >= token) {
            self.leases.counts.invalidated += 1;
            return self.pass_on(now, hash, out);
        }
        // It came after the leave was given, and is stamped before it only because clocks differ: what
        // is computed now may be what was deleted. A value that is held is newer than the delete, and stays.
        let Some(deleted) = deleted.filter(|_| !self.store.peek(&key, now).is_hit()) else {
            return;
        };
        if token.wall_ms().saturating_sub(deleted.wall_ms()) > DELETE_BEFORE_MS_MAX {
            return;
        }
        let version = self.clock.stamp_above(token, now.wall_ms);
        let record = Record { key, version, change: Change::Delete };
        self.apply(now, &record);
        self.fan_out(now, &record, Waiting::default(), out);
    }

    /// The one who has waited longest gets the leave.
    fn pass_on(&mut self, now: Now, hash: KeyHash, out: &mut Vec<Effect>) {
        while let Some((id, waiter)) = self.leases.take_first(hash) {
            let key = self.leases.get(hash).map(|lease| &lease.key);
            if waiter.until <= now.mono
                || !key.is_some_and(|key| self.leases.may_hold(waiter.connection, key))
            {
                self.busy(id, out);
                continue;
            }
            let token = self.stamp_for(now, hash);
            let until = now.mono.plus_ms(waiter.life_ms);
            let Waiter { connection: holder, over, .. } = waiter;
            self.leases.hand_over(hash, Leave { token, holder, until, over });
            self.leases.counts.handed_over += 1;
            out.push(Effect::Respond { id, response: Response::LeaseGranted { token } });
            return self.wake_by(self.leases.next_due());
        }
        self.leases.end(hash);
    }

    /// A lease ends without anything for those who wait.
    fn end_busy(&mut self, hash: KeyHash, out: &mut Vec<Effect>) {
        for id in self.leases.end(hash) {
            self.busy(id, out);
        }
    }

    fn busy(&mut self, id: RequestId, out: &mut Vec<Effect>) {
        self.leases.counts.busy += 1;
        out.push(Effect::Respond { id, response: Response::LeaseHeld });
    }

    /// The value of a key with its version, if it is fresh by its metadata; not counted as a read.
    fn fresh(&self, key: &Key, now: Now) -> Option<(Version, Response)> {
        let entry = self.store.peek(key, now).hit()?;
        let remaining_ms = entry.expires.since_ms(now.mono);
        let metadata = Metadata::decode(&entry.metadata).ok()?;
        let Entry { value, metadata: said, version, .. } = entry;
        let response = Response::Found { value, metadata: said, version, remaining_ms };
        (metadata.freshness(remaining_ms) == Freshness::Fresh).then_some((version, response))
    }
}
