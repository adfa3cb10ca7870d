//! Quotas: how much of a bounded resource one connection may use.
//!
//! A caller that opens one connection can use up that connection's quota only; the others are unaffected.

use alloc::collections::BTreeMap;

use super::ConnectionId;

/// One connection may use this fraction of the resource, as a divisor.
const CONNECTION_DIVISOR: usize = 16;

/// Connections that carry one request each, as over HTTP, cannot be told apart: together they may use
/// this fraction, as a divisor.
const SINGLE_USE_DIVISOR: usize = 2;

/// The use of a bounded resource, in total and by connection.
#[derive(Debug)]
pub(super) struct Quota {
    limit: usize,
    used: usize,
    by: BTreeMap<ConnectionId, usize>,
}

impl Quota {
    /// A quota on `limit` units.
    pub(super) const fn of(limit: usize) -> Self {
        Self { limit, used: 0, by: BTreeMap::new() }
    }

    /// The units in use.
    pub(super) const fn used(&self) -> usize {
        self.used
    }

    /// Whether a connection may use `amount` more units.
    pub(super) fn has_room(&self, connection: ConnectionId, amount: usize) -> bool {
        let is_single_use = connection.is_single_use();
        let divisor = if is_single_use { SINGLE_USE_DIVISOR } else { CONNECTION_DIVISOR };
        let own = self.used_by(connection) + amount;
        own <= self.limit / divisor && self.used + amount <= self.limit
    }

    /// The units that a connection uses.
    pub(super) fn used_by(&self, connection: ConnectionId) -> usize {
        self.by.get(&account(connection)).copied().unwrap_or(0)
    }

    /// Charges `amount` units to a connection.
    pub(super) fn charge(&mut self, connection: ConnectionId, amount: usize) {
        self.used += amount;
        *self.by.entry(account(connection)).or_default() += amount;
    }

    /// Returns `amount` units that a connection used.
    pub(super) fn release(&mut self, connection: ConnectionId, amount: usize) {
        self.used = self.used.saturating_sub(amount);
        if let Some(own) = self.by.get_mut(&account(connection)) {
            *own = own.saturating_sub(amount);
            if *own == 0 {
                self.by.remove(&account(connection));
            }
        }
    }
}

/// The account that a connection is charged to.
fn account(connection: ConnectionId) -> ConnectionId {
    if connection.is_single_use() { ConnectionId(0).single_use() } else { connection }
}

/// What was refused because callers claimed or wanted too much.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RefusalCounts {
    /// Addresses that could not be dialled, or exceeded what their source may name.
    pub addresses: u64,
    /// Gossip in the name of a node from an address that is not the node's.
    pub gossip: u64,
    /// Requests in the name of a node that the caller is not.
    pub identities: u64,
    /// Versions and lease tokens further ahead of this node's clock than a caller can have seen.
    pub future_versions: u64,
    /// Requests over the quota of their connection, or of all: leases, waits, copies.
    pub over_quota: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_connection_leaves_room_for_others() {
        let mut quota = Quota::of(160);
        let (one, other) = (ConnectionId(1), ConnectionId(2));
        let mut granted = 0;
        while quota.has_room(one, 1) {
            quota.charge(one, 1);
            granted += 1;
        }
        assert_eq!((granted, quota.used(), quota.has_room(other, 10)), (10, 10, true));
        quota.release(one, 1);
        assert!(quota.has_room(one, 1) && !quota.has_room(one, 2));
        // Connections that carry one request each share an account.
        let single_use = (0..1_000).map(|n| ConnectionId(n).single_use());
        let charged = single_use.filter(|connection| {
            let has_room = quota.has_room(*connection, 1);
            if has_room {
                quota.charge(*connection, 1);
            }
            has_room
        });
        assert_eq!(charged.count(), 80);
        for n in 2..9 {
            assert!(quota.has_room(ConnectionId(n), 10));
            quota.charge(ConnectionId(n), 10);
        }
        assert!(quota.has_room(ConnectionId(9), 1) && !quota.has_room(ConnectionId(9), 2));
        assert_eq!((quota.used(), quota.used_by(one)), (159, 9));
    }
}
