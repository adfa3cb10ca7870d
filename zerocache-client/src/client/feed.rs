//! Follows the changes of entries at one node, so that the near cache may keep some.
//!
//! A node that is asked answers as soon as there is a change, and after a second in any case. While it
//! does, nothing near is older than its word. Whatever breaks the row of answers ends the following:
//! the near cache is emptied, and another node is asked.

use std::{
    net::SocketAddr,
    sync::{Arc, Weak},
    time::Duration,
};

use zerocache_core::{
    time::Instant,
    version::Incarnation,
    wire::{RefusalCode, Request, Response},
};
use zerocache_net::clock;

use super::{attached::Attached, engine::Engine};
use crate::near::FeedClaim;

/// How long an answer may take, in milliseconds: a node answers within a second, and the near cache
/// counts on its word for three.
const FOLLOW_TIMEOUT_MS: u64 = 2_500;

/// When nobody has looked for so long, following ends, in milliseconds.
const IDLE_MS: u64 = 60_000;

/// The following of one node after the other.
#[derive(Default)]
pub(super) struct Feed {
    task: Attached,
}

impl Feed {
    /// Sees to it that a node is followed while this client uses the near cache, unless another client
    /// of the process does that for the same cache.
    pub(super) fn keep(&mut self, engine: &Arc<Engine>) {
        let Some(near) = &engine.local.near else { return };
        let now = clock::mono();
        let mut directory = engine.directory();
        if !self.task.is_due(now, |node| directory.can_follow(node)) || !near.is_wanted() {
            return;
        }
        if let Some((node, address)) = directory.next_feed_node(now)
            && let Some(claim) = near.near.claim()
        {
            self.task.begin(node, follow(Arc::downgrade(engine), claim, node, address));
        }
    }
}

/// For how long nobody has looked.
struct Idle {
    uses: u64,
    since: Instant,
}

impl Idle {
    /// Whether nobody has looked for a while, when there have been so many looks.
    fn is_long(&mut self, uses: u64, now: Instant) -> bool {
        if uses != self.uses {
            *self = Self { uses, since: now };
        }
        now.since_ms(self.since) >= IDLE_MS
    }
}

/// Follows one node until it fails, or nobody has looked for a while. Nothing of the engine is held
/// while it waits, so that the client can end.
async fn follow(engine: Weak<Engine>, claim: FeedClaim, node: Incarnation, address: SocketAddr) {
    let timeout = Duration::from_millis(FOLLOW_TIMEOUT_MS);
    let mut since = 0;
    let mut idle = Idle { uses: 0, since: clock::mono() };
    loop {
        let Some((transport, message)) = engine.upgrade().map(|engine| {
            let request = Request::Follow { since };
            let message = engine.message(request, Some(node), FOLLOW_TIMEOUT_MS, engine.seen());
            (Arc::clone(&engine.transport), message)
        }) else {
            return;
        };
        let asked = clock::mono();
        let response = transport.call(address, message, timeout).await;
        drop(transport);
        let (next, lost, rows) = match response {
            Ok(Response::Changes { next, lost, changes }) => (next, lost, changes),
            Ok(Response::Refused(refusal)) if refusal.code == RefusalCode::Forbidden => {
                return forbidden(&engine);
            }
            _ => {
                tracing::debug!(%node, "a node does not tell of changes: the near cache is emptied");
                return;
            }
        };
        let now = clock::mono();
        claim.apply_changes(asked, lost, &rows, now);
        since = next;
        let Some(engine) = engine.upgrade() else { return };
        let Some(near) = &engine.local.near else { return };
        // By whichever client: what one of them follows serves all.
        if idle.is_long(near.sharing.uses(), now) {
            near.sharing.rest();
            return;
        }
    }
}

/// The near cache stays off for the clients that share it: rows of changes are of all keys, and a client with a
/// token for some keys does not get them.
fn forbidden(engine: &Weak<Engine>) {
    let Some(engine) = engine.upgrade() else { return };
    let Some(near) = &engine.local.near else { return };
    near.sharing.forbid();
    let (region, cluster) = (&engine.config.region, &engine.config.cluster);
    tracing::info!(
        region,
        cluster,
        "this client may not follow the changes of all keys: nothing is kept near, and nodes are asked instead"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_looked_at_is_not_idle() {
        let at = Instant::from_millis;
        let mut idle = Idle { uses: 0, since: at(0) };
        assert!(!idle.is_long(0, at(IDLE_MS - 1)));
        assert!(!idle.is_long(1, at(IDLE_MS)));
        assert!(!idle.is_long(1, at(2 * IDLE_MS - 1)));
        assert!(idle.is_long(1, at(2 * IDLE_MS)));
    }
}
