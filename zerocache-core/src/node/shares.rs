//! What all callers share, and how much of it one connection may have.
//!
//! Somebody who opens one connection can only use up that connection's share: the others do not notice.

use alloc::collections::BTreeMap;

use super::ConnectionId;

/// One connection has at most this part of what all share.
const PART_OF_ONE: usize = 16;

/// Connections that carry one request each, as over HTTP, cannot be told apart: all of them together have
/// at most this part.
const PART_OF_SINGLE: usize = 2;

/// What is in use of something of which there is a bounded amount.
#[derive(Debug)]
pub(super) struct Shares {
    most: usize,
    used: usize,
    by: BTreeMap<ConnectionId, usize>,
}

impl Shares {
    /// Of `most`.
    pub(super) const fn of(most: usize) -> Self {
        Self { most, used: 0, by: BTreeMap::new() }
    }

    /// How much is in use.
    pub(super) const fn used(&self) -> usize {
        self.used
    }

    /// Whether a connection may have so much more.
    pub(super) fn has_room(&self, connection: ConnectionId, amount: usize) -> bool {
        let part = if connection.is_single_use() { PART_OF_SINGLE } else { PART_OF_ONE };
        let mine = self.of_connection(connection) + amount;
        mine <= self.most / part && self.used + amount <= self.most
    }

    /// How much a connection has.
    pub(super) fn of_connection(&self, connection: ConnectionId) -> usize {
        self.by.get(&whose(connection)).copied().unwrap_or(0)
    }

    /// A connection has so much more.
    pub(super) fn take(&mut self, connection: ConnectionId, amount: usize) {
        self.used += amount;
        *self.by.entry(whose(connection)).or_default() += amount;
    }

    /// A connection gives so much back.
    pub(super) fn give_back(&mut self, connection: ConnectionId, amount: usize) {
        self.used = self.used.saturating_sub(amount);
        if let Some(mine) = self.by.get_mut(&whose(connection)) {
            *mine = mine.saturating_sub(amount);
            if *mine == 0 {
                self.by.remove(&whose(connection));
            }
        }
    }
}

/// Under which name a connection's share is kept.
fn whose(connection: ConnectionId) -> ConnectionId {
    if connection.is_single_use() { ConnectionId(0).single_use() } else { connection }
}

/// What was not taken from callers, because they claimed or wanted too much.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RefusalCounts {
    /// Addresses: more than who named them may name, or none that can be dialled.
    pub addresses: u64,
    /// Gossip in the name of a node from where it does not stand.
    pub gossip: u64,
    /// Stamps further ahead of this node's clock than a caller can have seen, and such tokens.
    pub future_versions: u64,
    /// Requests beyond what one connection, or all, may have: leases, places among those who wait, copies.
    pub over_quota: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_connection_leaves_room_for_others() {
        let mut shares = Shares::of(160);
        let (one, other) = (ConnectionId(1), ConnectionId(2));
        let mut given = 0;
        while shares.has_room(one, 1) {
            shares.take(one, 1);
            given += 1;
        }
        assert_eq!((given, shares.used(), shares.has_room(other, 10)), (10, 10, true));
        shares.give_back(one, 1);
        assert!(shares.has_room(one, 1) && !shares.has_room(one, 2));
        // Those that carry one request only are one.
        let singles = (0..1_000).map(|n| ConnectionId(n).single_use());
        let taken = singles.filter(|single| {
            let free = shares.has_room(*single, 1);
            if free {
                shares.take(*single, 1);
            }
            free
        });
        assert_eq!(taken.count(), 80);
        for n in 2..9 {
            assert!(shares.has_room(ConnectionId(n), 10));
            shares.take(ConnectionId(n), 10);
        }
        assert!(shares.has_room(ConnectionId(9), 1) && !shares.has_room(ConnectionId(9), 2));
        assert_eq!((shares.used(), shares.of_connection(one)), (159, 9));
    }
}
