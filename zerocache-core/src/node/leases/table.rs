//! The table of leases: holders, waiters, deadlines, and the changes of held keys.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};

use super::{KEY_BYTES_MAX, LEASES_MAX, LeaseCounts, WAITING_MAX};
use crate::{
    key::{Key, KeyHash},
    node::{ConnectionId, RequestId, quota::Quota},
    time::Instant,
    version::Version,
};

#[derive(Clone, Copy, Debug)]
pub(super) struct Waiter {
    pub(super) connection: ConnectionId,
    pub(super) lease_ms: u64,
    pub(super) until: Instant,
    /// Values of up to this version are of no use to the caller.
    pub(super) newer_than: Option<Version>,
}

/// A granted lease.
#[derive(Clone, Copy, Debug)]
pub(super) struct Grant {
    pub(super) token: Version,
    /// The connection on which the holder asked.
    pub(super) holder: ConnectionId,
    pub(super) until: Instant,
    /// Values of up to this version are of no use to the caller.
    pub(super) newer_than: Option<Version>,
}

#[derive(Debug)]
pub(super) struct Lease {
    pub(super) key: Key,
    pub(super) grant: Grant,
    /// In the order of arrival.
    waiting: BTreeMap<RequestId, Waiter>,
}

/// A party to a lease. Waiters sort before the holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Party {
    Waiter(RequestId),
    Holder,
}

/// All leases.
#[derive(Debug)]
pub(in crate::node) struct Leases {
    held: BTreeMap<KeyHash, Lease>,
    /// When whose time is newer_than.
    deadlines: BTreeSet<(Instant, KeyHash, Party)>,
    /// Party asked on which connection.
    callers: BTreeSet<(ConnectionId, KeyHash, Party)>,
    /// Held keys that changed since they were checked, with the version of a delete.
    changed: BTreeMap<KeyHash, Option<Version>>,
    /// The quotas on leases, on the bytes of their keys, and on waiters.
    holders: Quota,
    key_bytes: Quota,
    waiting: Quota,
    pub(super) counts: LeaseCounts,
}

impl Default for Leases {
    fn default() -> Self {
        Self {
            held: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            callers: BTreeSet::new(),
            changed: BTreeMap::new(),
            holders: Quota::of(LEASES_MAX),
            key_bytes: Quota::of(KEY_BYTES_MAX),
            waiting: Quota::of(WAITING_MAX),
            counts: LeaseCounts::default(),
        }
    }
}

impl Leases {
    pub(in crate::node) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    pub(in crate::node) fn counts(&self) -> LeaseCounts {
        let (held, waiting) = (self.held.len() as u64, self.waiting.used() as u64);
        LeaseCounts { held, waiting, ..self.counts }
    }

    /// Returns the lease of a key, if it is held.
    pub(super) fn get(&self, hash: KeyHash) -> Option<&Lease> {
        self.held.get(&hash)
    }

    /// Returns any held key.
    pub(super) fn any(&self) -> Option<KeyHash> {
        self.held.first_key_value().map(|(hash, _)| *hash)
    }

    /// Whether one more caller may wait on a connection.
    pub(super) fn may_wait(&self, connection: ConnectionId) -> bool {
        self.waiting.has_room(connection, 1)
    }

    /// Notes a change of a key.
    pub(in crate::node) fn note(&mut self, key: KeyHash, version: Version, is_delete: bool) {
        if self.held.contains_key(&key) {
            self.changed.insert(key, is_delete.then_some(version));
        }
    }

    /// Takes the change of a key since it was checked, if any: the version of a delete.
    pub(super) fn take_change(&mut self, hash: KeyHash) -> Option<Option<Version>> {
        self.changed.remove(&hash)
    }

    /// Returns a held key that changed since it was checked.
    pub(super) fn first_changed(&self) -> Option<KeyHash> {
        self.changed.first_key_value().map(|(hash, _)| *hash)
    }

    /// Whether the lease of a key may be granted on a connection.
    pub(super) fn may_hold(&self, connection: ConnectionId, key: &Key) -> bool {
        self.holders.has_room(connection, 1)
            && self.key_bytes.has_room(connection, key.as_bytes().len())
    }

    pub(super) fn grant(&mut self, hash: KeyHash, key: &Key, grant: Grant) {
        self.add_holder(hash, key, &grant);
        let lease = Lease { key: key.detached(), grant, waiting: BTreeMap::new() };
        self.held.insert(hash, lease);
    }

    pub(super) fn wait(&mut self, hash: KeyHash, id: RequestId, waiter: Waiter) {
        let Some(lease) = self.held.get_mut(&hash) else { return };
        lease.waiting.insert(id, waiter);
        self.deadlines.insert((waiter.until, hash, Party::Waiter(id)));
        self.callers.insert((waiter.connection, hash, Party::Waiter(id)));
        self.waiting.charge(waiter.connection, 1);
    }

    /// Removes a waiter.
    pub(super) fn take(&mut self, hash: KeyHash, id: RequestId) -> Option<Waiter> {
        let waiter = self.held.get_mut(&hash)?.waiting.remove(&id)?;
        self.remove_waiter(hash, id, &waiter);
        Some(waiter)
    }

    /// Removes the waiter that has waited longest.
    pub(super) fn take_first(&mut self, hash: KeyHash) -> Option<(RequestId, Waiter)> {
        let (id, waiter) = self.held.get_mut(&hash)?.waiting.pop_first()?;
        self.remove_waiter(hash, id, &waiter);
        Some((id, waiter))
    }

    /// Removes the waiters to whom a value of this version is of use.
    pub(super) fn take_served(&mut self, hash: KeyHash, version: Version) -> Vec<RequestId> {
        let waiting = self.held.get(&hash).into_iter().flat_map(|lease| &lease.waiting);
        let served = waiting.filter(|(_, waiter)| Some(version) > waiter.newer_than);
        let served: Vec<_> = served.map(|(id, _)| *id).collect();
        for id in &served {
            self.take(hash, *id);
        }
        served
    }

    /// Replaces the grant.
    pub(super) fn hand_over(&mut self, hash: KeyHash, grant: Grant) {
        let Some(lease) = self.held.get_mut(&hash) else { return };
        let before = core::mem::replace(&mut lease.grant, grant);
        let key = lease.key.clone();
        self.remove_holder(hash, &key, &before);
        self.add_holder(hash, &key, &grant);
    }

    /// Ends a lease; returns its waiters.
    pub(super) fn end(&mut self, hash: KeyHash) -> Vec<RequestId> {
        let Some(lease) = self.held.remove(&hash) else { return Vec::new() };
        self.remove_holder(hash, &lease.key, &lease.grant);
        for (id, waiter) in &lease.waiting {
            self.remove_waiter(hash, *id, waiter);
        }
        self.changed.remove(&hash);
        lease.waiting.into_keys().collect()
    }

    /// Whose time is newer_than next, and when.
    pub(super) fn first_deadline(&self) -> Option<(Instant, KeyHash, Party)> {
        self.deadlines.first().copied()
    }

    /// When the next one's time is newer_than.
    pub(in crate::node) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(at, _, _)| *at)
    }

    /// Returns a party on a connection.
    pub(super) fn first_of(&self, connection: ConnectionId) -> Option<(KeyHash, Party)> {
        let lowest = (connection, KeyHash(0), Party::Waiter(RequestId(0)));
        let (of, hash, who) = self.callers.range(lowest..).next()?;
        (*of == connection).then_some((*hash, *who))
    }

    fn add_holder(&mut self, hash: KeyHash, key: &Key, grant: &Grant) {
        self.holders.charge(grant.holder, 1);
        self.key_bytes.charge(grant.holder, key.as_bytes().len());
        self.deadlines.insert((grant.until, hash, Party::Holder));
        self.callers.insert((grant.holder, hash, Party::Holder));
    }

    fn remove_holder(&mut self, hash: KeyHash, key: &Key, grant: &Grant) {
        self.holders.release(grant.holder, 1);
        self.key_bytes.release(grant.holder, key.as_bytes().len());
        self.deadlines.remove(&(grant.until, hash, Party::Holder));
        self.callers.remove(&(grant.holder, hash, Party::Holder));
    }

    fn remove_waiter(&mut self, hash: KeyHash, id: RequestId, waiter: &Waiter) {
        self.deadlines.remove(&(waiter.until, hash, Party::Waiter(id)));
        self.callers.remove(&(waiter.connection, hash, Party::Waiter(id)));
        self.waiting.release(waiter.connection, 1);
    }
}
