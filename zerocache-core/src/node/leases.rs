//! Leases: who may compute a value, and who waits for it.
//!
//! One caller at a time has the leave to compute the value of a key. Its token is a version, stamped
//! when the leave was given: what it writes with it loses against everything that came after. The
//! others wait for the value, whichever way it comes, or for the end of the leave.
//!
//! Invariants: everybody who waits is answered within its time; nobody waits for a key of which nobody
//! has the leave; the token of a key that is given later is higher.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use super::{Effect, Node, RequestId, fanout::Waiting};
use crate::{
    clock::AHEAD_MS_MAX,
    entry::{Change, Record},
    key::{Key, KeyHash},
    metadata::{Freshness, Metadata},
    store::LockFamily,
    time::{Instant, Now},
    version::Version,
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
    pub passed_on: u64,
    /// Leaves that ended by a delete, or by a newer write that left no fresh value.
    pub voided: u64,
    /// Leaves that nobody gave back in time.
    pub expired: u64,
    /// Callers that got a fresh value.
    pub found: u64,
    /// Callers that got nothing in time.
    pub busy: u64,
}

/// A call for a lease.
pub(super) struct Ask {
    pub(super) id: RequestId,
    pub(super) key: Key,
    pub(super) life_ms: u64,
    pub(super) wait_ms: u64,
    /// What the caller still waits, in milliseconds; 0 when it does not say.
    pub(super) timeout_ms: u64,
}

#[derive(Clone, Copy, Debug)]
struct Waiter {
    life_ms: u64,
    until: Instant,
}

#[derive(Debug)]
struct Lease {
    key: Key,
    token: Version,
    until: Instant,
    /// In the order in which they came.
    waiting: BTreeMap<RequestId, Waiter>,
}

/// Whose time is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Who {
    Waiter(RequestId),
    Holder,
}

/// All leases.
#[derive(Debug, Default)]
pub(super) struct Leases {
    held: BTreeMap<KeyHash, Lease>,
    agenda: BTreeSet<(Instant, KeyHash, Who)>,
    /// Keys with a lease that changed since they were looked at, and the version of a delete.
    changed: BTreeMap<KeyHash, Option<Version>>,
    key_bytes: usize,
    waiting: usize,
    counts: LeaseCounts,
}

impl Leases {
    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    fn counts(&self) -> LeaseCounts {
        LeaseCounts { held: self.held.len() as u64, waiting: self.waiting as u64, ..self.counts }
    }

    /// The node learned of this version of a key.
    pub(super) fn note(&mut self, key: KeyHash, version: Version, is_delete: bool) {
        if self.held.contains_key(&key) {
            self.changed.insert(key, is_delete.then_some(version));
        }
    }

    fn has_room_for(&self, key: &Key) -> bool {
        let bytes = self.key_bytes + key.as_bytes().len();
        self.held.len() < LEASES_MAX && bytes <= KEY_BYTES_MAX
    }

    fn grant(&mut self, hash: KeyHash, key: &Key, token: Version, until: Instant) {
        self.key_bytes += key.as_bytes().len();
        self.agenda.insert((until, hash, Who::Holder));
        let lease = Lease { key: key.detached(), token, until, waiting: BTreeMap::new() };
        self.held.insert(hash, lease);
    }

    fn wait(&mut self, hash: KeyHash, id: RequestId, waiter: Waiter) {
        let Some(lease) = self.held.get_mut(&hash) else { return };
        lease.waiting.insert(id, waiter);
        self.agenda.insert((waiter.until, hash, Who::Waiter(id)));
        self.waiting += 1;
    }

    /// One stops waiting.
    fn take(&mut self, hash: KeyHash, id: RequestId) -> Option<Waiter> {
        let waiter = self.held.get_mut(&hash)?.waiting.remove(&id)?;
        self.agenda.remove(&(waiter.until, hash, Who::Waiter(id)));
        self.waiting -= 1;
        Some(waiter)
    }

    /// The one who has waited longest stops waiting.
    fn take_first(&mut self, hash: KeyHash) -> Option<(RequestId, Waiter)> {
        let (id, _) = self.held.get(&hash)?.waiting.first_key_value()?;
        let id = *id;
        self.take(hash, id).map(|waiter| (id, waiter))
    }

    /// Gives the leave to another one.
    fn hand_over(&mut self, hash: KeyHash, token: Version, until: Instant) {
        let Some(lease) = self.held.get_mut(&hash) else { return };
        self.agenda.remove(&(lease.until, hash, Who::Holder));
        self.agenda.insert((until, hash, Who::Holder));
        (lease.token, lease.until) = (token, until);
    }

    /// Ends a lease; returns who waited.
    fn end(&mut self, hash: KeyHash) -> Vec<RequestId> {
        let Some(lease) = self.held.remove(&hash) else { return Vec::new() };
        self.agenda.remove(&(lease.until, hash, Who::Holder));
        for (id, waiter) in &lease.waiting {
            self.agenda.remove(&(waiter.until, hash, Who::Waiter(*id)));
        }
        self.changed.remove(&hash);
        self.key_bytes -= lease.key.as_bytes().len();
        self.waiting -= lease.waiting.len();
        lease.waiting.into_keys().collect()
    }

    /// When the next one's time is over.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.agenda.first().map(|(at, _, _)| *at)
    }
}

impl<L: LockFamily> Node<L> {
    /// What became of leases so far.
    #[must_use]
    pub fn lease_counts(&self) -> LeaseCounts {
        self.leases.counts()
    }

    /// Gives a fresh value, or the leave to compute it; lets the caller wait when another one has it.
    pub(super) fn lease(&mut self, now: Now, ask: Ask, out: &mut Vec<Effect>) {
        let Ask { id, key, life_ms, wait_ms, timeout_ms } = ask;
        if let Err(error) = Key::new(key.as_bytes().clone(), &self.config.limits) {
            let response = Response::refused(RefusalCode::BadKey, alloc::format!("{error}"));
            return out.push(Effect::Respond { id, response });
        }
        if !self.clocks.is_set() {
            return out.push(Effect::Respond { id, response: super::unset() });
        }
        if let Some(response) = self.fresh(&key, now) {
            self.leases.counts.found += 1;
            return out.push(Effect::Respond { id, response });
        }
        let hash = key.hash();
        let life_ms = if life_ms == 0 { LIFE_MS } else { life_ms.min(LIFE_MS_MAX) };
        let most_ms = if timeout_ms == 0 { u64::MAX } else { timeout_ms.saturating_sub(MARGIN_MS) };
        let wait_ms = wait_ms.min(WAIT_MS_MAX).min(most_ms);
        let leaves = self.state == NodeState::Leaving;
        match self.leases.held.get(&hash) {
            None if !leaves && self.leases.has_room_for(&key) => {
                let token = self.clock.stamp(now.wall_ms);
                self.leases.grant(hash, &key, token, now.mono.plus_ms(life_ms));
                self.leases.counts.granted += 1;
                out.push(Effect::Respond { id, response: Response::Leased { token } });
            }
            Some(lease) if lease.key == key && wait_ms > 0 && self.leases.waiting < WAITING_MAX => {
                let until = now.mono.plus_ms(wait_ms);
                self.leases.wait(hash, id, Waiter { life_ms, until });
            }
            _ => self.busy(id, out),
        }
        self.wake_by(self.leases.next_due());
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
        // The value may have come with what gives the leave back; or a delete, which may be made again.
        while let Some(deleted) = self.leases.changed.remove(&hash) {
            self.look_at(now, hash, deleted, out);
        }
        if self.leases.held.get(&hash).is_some_and(|lease| lease.token == token) {
            if failed {
                self.end_busy(hash, out);
            } else {
                self.pass_on(now, hash, out);
            }
        }
        Response::Done
    }

    /// Whether a value may be written with a token: it was given not too long ago, by a clock that is
    /// not too wrong. Later stamps are above it.
    pub(super) fn accepts(&mut self, now: Now, token: Version) -> bool {
        token.wall_ms().saturating_add(TOKEN_AGE_MS_MAX) >= now.wall_ms
            && self.clock.observe(token, now.wall_ms).is_ok()
    }

    /// All leases end: the clock that stamped them was wrong.
    pub(super) fn end_leases(&mut self, out: &mut Vec<Effect>) {
        while let Some((hash, _)) = self.leases.held.first_key_value() {
            let hash = *hash;
            self.end_busy(hash, out);
        }
    }

    /// Looks at what has changed, and at whose time is over.
    pub(super) fn settle_leases(&mut self, now: Now, out: &mut Vec<Effect>) {
        if self.leases.is_empty() {
            return;
        }
        while let Some((hash, deleted)) = self.leases.changed.pop_first() {
            self.look_at(now, hash, deleted, out);
        }
        if self.state == NodeState::Leaving {
            self.end_leases(out);
        }
        while let Some((at, hash, who)) = self.leases.agenda.first().copied() {
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

    /// A key with a lease has changed; `deleted` is the version of a delete that was the last change.
    fn look_at(
        &mut self,
        now: Now,
        hash: KeyHash,
        deleted: Option<Version>,
        out: &mut Vec<Effect>,
    ) {
        let Some(lease) = self.leases.held.get(&hash) else { return };
        let token = lease.token;
        if let Some(response) = self.fresh(&lease.key, now) {
            for id in self.leases.end(hash) {
                self.leases.counts.found += 1;
                out.push(Effect::Respond { id, response: response.clone() });
            }
            return;
        }
        let known = self.store.version(hash);
        if known.is_some_and(|known| known >= token) {
            self.leases.counts.voided += 1;
            return self.pass_on(now, hash, out);
        }
        // It came after the leave was given, and is stamped before it only because clocks differ: what
        // is computed now may be what was deleted.
        let Some(deleted) = deleted.filter(|deleted| known == Some(*deleted)) else { return };
        if token.wall_ms().saturating_sub(deleted.wall_ms()) > DELETE_BEFORE_MS_MAX {
            return;
        }
        let version = self.clock.stamp(now.wall_ms);
        let record = Record { key: lease.key.clone(), version, change: Change::Delete };
        self.apply(now, &record);
        self.fan_out(now, &record, Waiting::default(), out);
    }

    /// The one who has waited longest gets the leave.
    fn pass_on(&mut self, now: Now, hash: KeyHash, out: &mut Vec<Effect>) {
        while let Some((id, waiter)) = self.leases.take_first(hash) {
            if waiter.until <= now.mono {
                self.busy(id, out);
                continue;
            }
            let token = self.clock.stamp(now.wall_ms);
            self.leases.hand_over(hash, token, now.mono.plus_ms(waiter.life_ms));
            self.leases.counts.passed_on += 1;
            out.push(Effect::Respond { id, response: Response::Leased { token } });
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
        out.push(Effect::Respond { id, response: Response::Busy });
    }

    /// The value of a key, if it is fresh by its metadata; not counted as a read.
    fn fresh(&self, key: &Key, now: Now) -> Option<Response> {
        let entry = self.store.peek(key, now)?;
        let remaining_ms = entry.expires.since_ms(now.mono);
        let metadata = Metadata::decode(&entry.metadata).ok()?;
        (metadata.freshness(remaining_ms) == Freshness::Fresh).then_some(Response::Found {
            value: entry.value,
            metadata: entry.metadata,
            version: entry.version,
            remaining_ms,
        })
    }
}
