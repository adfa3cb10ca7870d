//! Leases: which caller computes a value, and which callers wait for it.
//!
//! One caller at a time holds the lease of a key. Its token is a version, stamped when the lease was
//! granted: a value written with it loses against everything that came later. The others wait for the value,
//! whichever way it comes, or for the end of the lease.
//!
//! A lease, and a wait for it, last no longer than the connection on which they were requested: a caller that
//! died keeps no other waiting.
//!
//! Invariants: every waiter is answered within its time; no caller waits for a key that is not held; a lease of
//! a key that is granted later has a higher token.

mod table;

use alloc::vec::Vec;

pub(super) use self::table::Leases;
use self::table::{Grant, Party, Waiter};
use super::{ConnectionId, Effect, Node, RequestId, local::Context, replication::Waiters};
use crate::{
    clock::AHEAD_MS_MAX,
    entry::{Change, Entry, Record},
    key::{Key, KeyHash},
    metadata::{Freshness, Metadata},
    store::Backend,
    time::Now,
    version::{Incarnation, Version},
    wire::{RefusalCode, Response},
};

/// The most keys that are held; callers for other keys compute without a lease.
const LEASES_MAX: usize = 65_536;

/// The most bytes that these keys take.
const KEY_BYTES_MAX: usize = 16 << 20;

/// The most waiters, for all keys together; further callers compute without a lease.
const WAITING_MAX: usize = 65_536;

/// The duration of a lease if the caller does not state one, in milliseconds.
const LEASE_MS: u64 = 10_000;

/// The longest lease, in milliseconds.
const LEASE_MS_MAX: u64 = 300_000;

/// The longest wait, in milliseconds.
const WAIT_MS_MAX: u64 = 60_000;

/// A response leaves this long before its caller's timeout, in milliseconds.
const MARGIN_MS: u64 = 50;

/// A token is accepted for this long after it was stamped, in milliseconds: the longest lease, and the most
/// that clocks may differ by. Tombstones are kept for much longer.
const TOKEN_AGE_MS_MAX: u64 = LEASE_MS_MAX + AHEAD_MS_MAX;

/// A delete whose version is this far below the token was made before the lease was granted, whatever clocks
/// differ by, in milliseconds.
const DELETE_BEFORE_MS_MAX: u64 = 5_000;

/// The counters of leases.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeaseCounts {
    /// Leases held now.
    pub held: u64,
    /// Callers that wait now.
    pub waiting: u64,
    /// Leases granted to callers that found none held.
    pub granted: u64,
    /// Leases granted to a waiter, after the one before ended without a value.
    pub handed_over: u64,
    /// Leases that ended by a delete, or by a newer write that left no fresh value.
    pub invalidated: u64,
    /// Leases that were not released in time.
    pub expired: u64,
    /// Leases that ended because their holder's connection did.
    pub disconnected: u64,
    /// Callers that got a fresh value.
    pub served: u64,
    /// Callers that got nothing in time.
    pub busy: u64,
}

/// A request for a lease.
pub(super) struct LeaseRequest {
    pub(super) id: RequestId,
    pub(super) connection: ConnectionId,
    pub(super) key: Key,
    pub(super) lease_ms: u64,
    pub(super) wait_ms: u64,
    /// How long the caller still waits, in milliseconds; 0 if not stated.
    pub(super) timeout_ms: u64,
    /// Values of up to this version are of no use to the caller.
    pub(super) newer_than: Option<Version>,
}

impl<B: Backend> Context<'_, B> {
    /// Responds with a fresh value or the lease of a key, or has the caller wait while another one holds it.
    pub(super) fn lease(&mut self, request: LeaseRequest) {
        let LeaseRequest { id, connection, key, wait_ms, timeout_ms, newer_than, .. } = request;
        if let Some(response) = self.lease_refusal(&key) {
            return self.respond(id, response);
        }
        let fresh = self.fresh_value(&key).filter(|(version, _)| Some(*version) > newer_than);
        if let Some((_, response)) = fresh {
            self.replica.leases.counts.served += 1;
            return self.respond(id, response);
        }
        let hash = key.hash();
        let lease_ms = match request.lease_ms {
            0 => LEASE_MS,
            lease_ms => lease_ms.min(LEASE_MS_MAX),
        };
        let most_ms = if timeout_ms == 0 { u64::MAX } else { timeout_ms.saturating_sub(MARGIN_MS) };
        let wait_ms = wait_ms.min(WAIT_MS_MAX).min(most_ms);
        let (is_leaving, now) = (self.local.is_leaving(), self.now.mono);
        let leases = &mut self.replica.leases;
        match leases.get(hash) {
            None if !is_leaving && leases.may_hold(connection, &key) => {
                let token = self.token_for(hash);
                let until = now.plus_ms(lease_ms);
                let grant = Grant { token, holder: connection, until, newer_than };
                self.replica.leases.grant(hash, &key, grant);
                self.replica.leases.counts.granted += 1;
                self.respond(id, Response::LeaseGranted { token });
            }
            Some(lease) if lease.key == key && wait_ms > 0 && leases.may_wait(connection) => {
                let until = now.plus_ms(wait_ms);
                leases.wait(hash, id, Waiter { connection, lease_ms, until, newer_than });
            }
            other => {
                let waits = other.is_some_and(|lease| lease.key == key && wait_ms > 0);
                let is_over_quota = !is_leaving && (waits || other.is_none());
                self.local.refused.over_quota += u64::from(is_over_quota);
                self.respond_busy(id);
            }
        }
        self.local.wake_by(self.replica.leases.next_deadline());
    }

    /// The refusal of a request for a lease of `key`, if the node cannot grant any.
    fn lease_refusal(&self, key: &Key) -> Option<Response> {
        if let Err(error) = Key::new(key.as_bytes().clone(), &self.local.config.limits) {
            return Some(Response::refused(RefusalCode::BadKey, alloc::format!("{error}")));
        }
        if !self.local.clocks.is_set() {
            return Some(super::clock_unset());
        }
        // The value here may be gone, and others may have granted leases meanwhile.
        let readiness = &self.local.readiness;
        (readiness.was_suspended || readiness.is_restored).then(|| {
            let text = "the node was suspended, and fetches what it missed";
            Response::refused(RefusalCode::Overloaded, text)
        })
    }

    /// A token for a key, above the version known of it: others may have stamped that by clocks ahead of
    /// this node's.
    fn token_for(&mut self, hash: KeyHash) -> Version {
        let known = self.replica.store.version(hash).unwrap_or(Version::new(0, Incarnation(0)));
        self.replica.clock.stamp_above(known, self.now.wall_ms)
    }

    /// Responds to those that a fresh value of a key serves, and ends the lease if something newer than its
    /// token is known. Returns the record to write if a delete has to be repeated; `deleted` is the version
    /// of a delete that was the last change.
    fn check_leased_key(&mut self, hash: KeyHash, deleted: Option<Version>) -> Option<Record> {
        let lease = self.replica.leases.get(hash)?;
        let (Grant { token, newer_than, .. }, key) = (lease.grant, lease.key.clone());
        if let Some((version, response)) = self.fresh_value(&key) {
            for id in self.replica.leases.take_served(hash, version) {
                self.replica.leases.counts.served += 1;
                self.respond(id, response.clone());
            }
            if Some(version) > newer_than {
                // For the waiters to whom the value is of no use.
                self.hand_over(hash);
                return None;
            }
        }
        let known = self.replica.store.version(hash);
        if known.is_some_and(|known| known >= token) {
            self.replica.leases.counts.invalidated += 1;
            self.hand_over(hash);
            return None;
        }
        // The delete came after the lease was granted, and is stamped before it only because clocks differ:
        // what is computed now may be what was deleted. A value that is held is newer, and stays.
        let deleted = deleted.filter(|_| self.replica.store.peek(&key, self.now).is_miss())?;
        if token.wall_ms().saturating_sub(deleted.wall_ms()) > DELETE_BEFORE_MS_MAX {
            return None;
        }
        let version = self.replica.clock.stamp_above(token, self.now.wall_ms);
        Some(Record { key, version, change: Change::Delete })
    }

    /// Grants the lease to the waiter that has waited longest, or ends it.
    fn hand_over(&mut self, hash: KeyHash) {
        while let Some((id, waiter)) = self.replica.leases.take_first(hash) {
            let leases = &self.replica.leases;
            let key = leases.get(hash).map(|lease| &lease.key);
            let may_hold = key.is_some_and(|key| leases.may_hold(waiter.connection, key));
            if waiter.until <= self.now.mono || !may_hold {
                self.respond_busy(id);
                continue;
            }
            let token = self.token_for(hash);
            let until = self.now.mono.plus_ms(waiter.lease_ms);
            let Waiter { connection: holder, newer_than, .. } = waiter;
            let leases = &mut self.replica.leases;
            leases.hand_over(hash, Grant { token, holder, until, newer_than });
            leases.counts.handed_over += 1;
            self.respond(id, Response::LeaseGranted { token });
            return self.local.wake_by(self.replica.leases.next_deadline());
        }
        self.replica.leases.end(hash);
    }

    /// Ends all leases: the clock that stamped them was wrong.
    pub(super) fn end_leases(&mut self) {
        while let Some(hash) = self.replica.leases.any() {
            self.end_busy(hash);
        }
    }

    /// Ends a lease; its waiters get nothing.
    fn end_busy(&mut self, hash: KeyHash) {
        for id in self.replica.leases.end(hash) {
            self.respond_busy(id);
        }
    }

    fn respond_busy(&mut self, id: RequestId) {
        self.replica.leases.counts.busy += 1;
        self.respond(id, Response::LeaseHeld);
    }

    fn respond(&mut self, id: RequestId, response: Response) {
        self.out.push(Effect::Respond { id, response });
    }

    /// The value of a key with its version, if its metadata says that it is fresh; not counted as a read.
    fn fresh_value(&self, key: &Key) -> Option<(Version, Response)> {
        let entry = self.replica.store.peek(key, self.now).hit()?;
        let remaining_ms = entry.expires.since_ms(self.now.mono);
        let is_fresh = Metadata::decode(&entry.metadata).ok()?.freshness(remaining_ms);
        let Entry { value, metadata, version, .. } = entry;
        let response = Response::Found { value, metadata, version, remaining_ms };
        (is_fresh == Freshness::Fresh).then_some((version, response))
    }
}

impl<B: Backend> Node<B> {
    /// Releases a lease: the next waiter gets it, or all hear that the computation failed.
    pub(super) fn release(
        &mut self,
        now: Now,
        (key, token): (&Key, Version),
        failed: bool,
        out: &mut Vec<Effect>,
    ) -> Response {
        let hash = key.hash();
        self.look_at_changes(now, hash, out);
        let mut cx = self.parts(now, out).cx;
        let lease = cx.replica.leases.get(hash);
        if lease.is_some_and(|lease| lease.grant.token == token) {
            match failed {
                true => cx.end_busy(hash),
                false => cx.hand_over(hash),
            }
        }
        Response::Done
    }

    /// Ends the leases of a connection that ended, and the waits on it. Its holder is gone, or cannot know
    /// that it still is the only one.
    pub(super) fn end_leases_of(
        &mut self,
        now: Now,
        connection: ConnectionId,
        out: &mut Vec<Effect>,
    ) {
        while let Some((hash, party)) = self.replica.leases.first_of(connection) {
            match party {
                Party::Waiter(id) => {
                    self.replica.leases.take(hash, id);
                    out.push(Effect::Respond { id, response: Response::LeaseHeld });
                }
                Party::Holder => {
                    self.look_at_changes(now, hash, out);
                    if self.replica.leases.first_of(connection) == Some((hash, party)) {
                        self.replica.leases.counts.disconnected += 1;
                        self.parts(now, out).cx.hand_over(hash);
                    }
                }
            }
        }
    }

    /// Whether a value may be written with a token: it was stamped not too long ago, by a clock that is not
    /// too wrong. Later versions are above it.
    pub(super) fn accepts_token(&mut self, now: Now, token: Version) -> bool {
        token.wall_ms().saturating_add(TOKEN_AGE_MS_MAX) >= now.wall_ms
            && self.replica.note_seen(now, token, &mut self.local.refused)
    }

    /// Acts on changes of leased keys, and on deadlines.
    pub(super) fn update_leases(&mut self, now: Now, out: &mut Vec<Effect>) {
        if self.replica.leases.is_empty() {
            return;
        }
        while let Some(hash) = self.replica.leases.first_changed() {
            self.look_at_changes(now, hash, out);
        }
        let mut cx = self.parts(now, out).cx;
        if cx.local.is_leaving() {
            cx.end_leases();
        }
        while let Some((at, hash, party)) = cx.replica.leases.first_deadline() {
            if at > now.mono {
                return cx.local.wake_by(Some(at));
            }
            match party {
                Party::Waiter(id) => {
                    cx.replica.leases.take(hash, id);
                    cx.respond_busy(id);
                }
                Party::Holder => {
                    cx.replica.leases.counts.expired += 1;
                    cx.hand_over(hash);
                }
            }
        }
    }

    /// Acts on the changes of a key: its value may have come together with what ends the lease, or with a
    /// delete, which may have to be repeated.
    fn look_at_changes(&mut self, now: Now, hash: KeyHash, out: &mut Vec<Effect>) {
        while let Some(deleted) = self.replica.leases.take_change(hash) {
            let record = self.parts(now, out).cx.check_leased_key(hash, deleted);
            if let Some(record) = record {
                self.replica.apply(now, &record);
                self.fan_out(now, &record, Waiters::default(), out);
            }
        }
    }
}
