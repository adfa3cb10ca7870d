//! Who has the leave for which key, who waits for it, and whose time is over next.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};

use super::{KEY_BYTES_MAX, LEASES_MAX, LeaseCounts, WAITING_MAX};
use crate::{
    key::{Key, KeyHash},
    node::{ConnectionId, RequestId, shares::Shares},
    time::Instant,
    version::Version,
};

#[derive(Clone, Copy, Debug)]
pub(super) struct Waiter {
    pub(super) connection: ConnectionId,
    pub(super) life_ms: u64,
    pub(super) until: Instant,
    /// Values of up to this version are of no use to it.
    pub(super) over: Option<Version>,
}

/// To whom a leave is given, and for how long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Leave {
    pub(super) token: Version,
    /// The connection on which its holder asked.
    pub(super) holder: ConnectionId,
    pub(super) until: Instant,
    /// Values of up to this version are of no use to it.
    pub(super) over: Option<Version>,
}

#[derive(Debug)]
pub(super) struct Lease {
    pub(super) key: Key,
    pub(super) leave: Leave,
    /// In the order in which they came.
    waiting: BTreeMap<RequestId, Waiter>,
}

/// One who has a part in a lease; those who wait come before the holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Who {
    Waiter(RequestId),
    Holder,
}

/// All leases.
#[derive(Debug)]
pub(in crate::node) struct Leases {
    held: BTreeMap<KeyHash, Lease>,
    /// When whose time is over.
    agenda: BTreeSet<(Instant, KeyHash, Who)>,
    /// Who asked on which connection.
    callers: BTreeSet<(ConnectionId, KeyHash, Who)>,
    /// Keys with a lease that changed since they were looked at, and the version of a delete.
    changed: BTreeMap<KeyHash, Option<Version>>,
    /// Leaves, and the bytes of their keys, by holder; places of those who wait.
    leaves: Shares,
    key_bytes: Shares,
    waiting: Shares,
    pub(super) counts: LeaseCounts,
}

impl Default for Leases {
    fn default() -> Self {
        Self {
            held: BTreeMap::new(),
            agenda: BTreeSet::new(),
            callers: BTreeSet::new(),
            changed: BTreeMap::new(),
            leaves: Shares::of(LEASES_MAX),
            key_bytes: Shares::of(KEY_BYTES_MAX),
            waiting: Shares::of(WAITING_MAX),
            counts: LeaseCounts::default(),
        }
    }
}

impl Leases {
    pub(in crate::node) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    pub(super) fn counts(&self) -> LeaseCounts {
        let (held, waiting) = (self.held.len() as u64, self.waiting.used() as u64);
        LeaseCounts { held, waiting, ..self.counts }
    }

    /// The lease of a key.
    pub(super) fn get(&self, hash: KeyHash) -> Option<&Lease> {
        self.held.get(&hash)
    }

    /// Some key of which somebody has the leave.
    pub(super) fn any(&self) -> Option<KeyHash> {
        self.held.first_key_value().map(|(hash, _)| *hash)
    }

    /// Whether one more may wait on a connection, for whatever key.
    pub(super) fn may_wait(&self, connection: ConnectionId) -> bool {
        self.waiting.has_room(connection, 1)
    }

    /// The node learned of this version of a key.
    pub(in crate::node) fn note(&mut self, key: KeyHash, version: Version, is_delete: bool) {
        if self.held.contains_key(&key) {
            self.changed.insert(key, is_delete.then_some(version));
        }
    }

    /// What has changed of a key since it was looked at, if anything: the version of a delete.
    pub(super) fn take_change(&mut self, hash: KeyHash) -> Option<Option<Version>> {
        self.changed.remove(&hash)
    }

    /// A key that has changed since it was looked at.
    pub(super) fn first_changed(&self) -> Option<KeyHash> {
        self.changed.first_key_value().map(|(hash, _)| *hash)
    }

    /// Whether the leave to compute a key may be given on a connection.
    pub(super) fn may_hold(&self, connection: ConnectionId, key: &Key) -> bool {
        self.leaves.has_room(connection, 1)
            && self.key_bytes.has_room(connection, key.as_bytes().len())
    }

    pub(super) fn grant(&mut self, hash: KeyHash, key: &Key, leave: Leave) {
        self.add_holder(hash, key, &leave);
        let lease = Lease { key: key.detached(), leave, waiting: BTreeMap::new() };
        self.held.insert(hash, lease);
    }

    pub(super) fn wait(&mut self, hash: KeyHash, id: RequestId, waiter: Waiter) {
        let Some(lease) = self.held.get_mut(&hash) else { return };
        lease.waiting.insert(id, waiter);
        self.agenda.insert((waiter.until, hash, Who::Waiter(id)));
        self.callers.insert((waiter.connection, hash, Who::Waiter(id)));
        self.waiting.take(waiter.connection, 1);
    }

    /// One stops waiting.
    pub(super) fn take(&mut self, hash: KeyHash, id: RequestId) -> Option<Waiter> {
        let waiter = self.held.get_mut(&hash)?.waiting.remove(&id)?;
        self.remove_waiter(hash, id, &waiter);
        Some(waiter)
    }

    /// The one who has waited longest stops waiting.
    pub(super) fn take_first(&mut self, hash: KeyHash) -> Option<(RequestId, Waiter)> {
        let (id, waiter) = self.held.get_mut(&hash)?.waiting.pop_first()?;
        self.remove_waiter(hash, id, &waiter);
        Some((id, waiter))
    }

    /// Those to whom a value of this version is of use stop waiting.
    pub(super) fn take_served(&mut self, hash: KeyHash, version: Version) -> Vec<RequestId> {
        let waiting = self.held.get(&hash).into_iter().flat_map(|lease| &lease.waiting);
        let served = waiting.filter(|(_, waiter)| Some(version) > waiter.over);
        let served: Vec<_> = served.map(|(id, _)| *id).collect();
        for id in &served {
            self.take(hash, *id);
        }
        served
    }

    /// Gives the leave to another one.
    pub(super) fn hand_over(&mut self, hash: KeyHash, leave: Leave) {
        let Some(lease) = self.held.get_mut(&hash) else { return };
        let before = core::mem::replace(&mut lease.leave, leave);
        let key = lease.key.clone();
        self.remove_holder(hash, &key, &before);
        self.add_holder(hash, &key, &leave);
    }

    /// Ends a lease; returns who waited.
    pub(super) fn end(&mut self, hash: KeyHash) -> Vec<RequestId> {
        let Some(lease) = self.held.remove(&hash) else { return Vec::new() };
        self.remove_holder(hash, &lease.key, &lease.leave);
        for (id, waiter) in &lease.waiting {
            self.remove_waiter(hash, *id, waiter);
        }
        self.changed.remove(&hash);
        lease.waiting.into_keys().collect()
    }

    /// Whose time is over next, and when.
    pub(super) fn first_due(&self) -> Option<(Instant, KeyHash, Who)> {
        self.agenda.first().copied()
    }

    /// When the next one's time is over.
    pub(in crate::node) fn next_due(&self) -> Option<Instant> {
        self.agenda.first().map(|(at, _, _)| *at)
    }

    /// One who asked on a connection.
    pub(super) fn first_of(&self, connection: ConnectionId) -> Option<(KeyHash, Who)> {
        let lowest = (connection, KeyHash(0), Who::Waiter(RequestId(0)));
        let (of, hash, who) = self.callers.range(lowest..).next()?;
        (*of == connection).then_some((*hash, *who))
    }

    fn add_holder(&mut self, hash: KeyHash, key: &Key, leave: &Leave) {
        self.leaves.take(leave.holder, 1);
        self.key_bytes.take(leave.holder, key.as_bytes().len());
        self.agenda.insert((leave.until, hash, Who::Holder));
        self.callers.insert((leave.holder, hash, Who::Holder));
    }

    fn remove_holder(&mut self, hash: KeyHash, key: &Key, leave: &Leave) {
        self.leaves.give_back(leave.holder, 1);
        self.key_bytes.give_back(leave.holder, key.as_bytes().len());
        self.agenda.remove(&(leave.until, hash, Who::Holder));
        self.callers.remove(&(leave.holder, hash, Who::Holder));
    }

    fn remove_waiter(&mut self, hash: KeyHash, id: RequestId, waiter: &Waiter) {
        self.agenda.remove(&(waiter.until, hash, Who::Waiter(id)));
        self.callers.remove(&(waiter.connection, hash, Who::Waiter(id)));
        self.waiting.give_back(waiter.connection, 1);
    }
}
