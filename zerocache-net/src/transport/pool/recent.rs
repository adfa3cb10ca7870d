//! The connections that a thread used last: found without a lock that the threads share.

use std::{
    cell::RefCell,
    net::SocketAddr,
    sync::{Arc, Weak},
};

use tokio::runtime::Id;

use crate::transport::framed::Connection;

/// The connections remembered by a thread: more than a client has nodes in its region, usually. A client asks its
/// nodes in rotation, so with one too few none would be found.
const RECENT_MAX: usize = 16;

/// What a connection is found by: the pool, the runtime that drives it, and its address.
pub(super) type RecentKey = (u64, Id, SocketAddr);

// Weak: a connection that its pool has dropped is not kept, nor is one of a parent process.
thread_local! {
    static RECENT: RefCell<Recent> = const { RefCell::new(Recent { slots: Vec::new(), next: 0 }) };
}

struct Recent {
    slots: Vec<(RecentKey, Weak<Connection>)>,
    /// The slot that is replaced next.
    next: usize,
}

/// Returns the connection that this thread used last for `key`, if its pool still has it. It may be closed.
pub(super) fn recent(key: &RecentKey) -> Option<Arc<Connection>> {
    let find = |recent: &RefCell<Recent>| {
        let recent = recent.try_borrow().ok()?;
        let (_, connection) = recent.slots.iter().find(|(known, _)| known == key)?;
        connection.upgrade()
    };
    // None while the thread ends.
    RECENT.try_with(find).ok().flatten()
}

/// Remembers the connection for `key`, and forgets the one remembered longest if there are too many.
pub(super) fn remember(key: RecentKey, connection: &Arc<Connection>) {
    let connection = Arc::downgrade(connection);
    let replace = |recent: &RefCell<Recent>| {
        let Ok(mut recent) = recent.try_borrow_mut() else { return };
        let known = recent.slots.iter().position(|(known, _)| *known == key);
        if known.is_none() && recent.slots.len() < RECENT_MAX {
            return recent.slots.push((key, connection));
        }
        let at = known.unwrap_or(recent.next);
        recent.slots[at] = (key, connection);
        if known.is_none() {
            recent.next = (at + 1) % RECENT_MAX;
        }
    };
    // Nothing is remembered while the thread ends.
    let _ended = RECENT.try_with(replace);
}
