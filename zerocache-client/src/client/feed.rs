//! Follows the changes of entries at one node, so that the near cache may keep some. The rules are those of
//! [`FeedFollower`].

use std::{
    net::SocketAddr,
    sync::{Arc, Weak},
    time::Duration,
};

use zerocache_core::{
    client::{FOLLOW_TIMEOUT_MS, FeedEnd, FeedFollower},
    version::Incarnation,
};
use zerocache_net::clock;

use super::{attached::Attached, engine::Engine};
use crate::near::FeedClaim;

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

/// Follows one node to the end. Nothing of the engine is held while it waits, so that the client can end.
async fn follow(engine: Weak<Engine>, claim: FeedClaim, node: Incarnation, address: SocketAddr) {
    let timeout = Duration::from_millis(FOLLOW_TIMEOUT_MS);
    let mut follower = FeedFollower::new(clock::mono());
    loop {
        let Some((transport, message)) = engine.upgrade().map(|engine| {
            let request = follower.ask(clock::mono());
            let message = engine.message(request, Some(node), FOLLOW_TIMEOUT_MS, engine.seen());
            (Arc::clone(&engine.transport), message)
        }) else {
            return;
        };
        let result = transport.call(address, message, timeout).await;
        drop(transport);
        let Some(engine) = engine.upgrade() else { return };
        let Some(near) = &engine.local.near else { return };
        // By whichever client: what one of them follows serves all.
        let lookups = || near.sharing.uses();
        match follower.answered(&result, lookups, claim.rules(), clock::mono()) {
            Ok(()) => {}
            Err(FeedEnd::Forbidden) => return forbidden(&engine),
            Err(FeedEnd::Idle) => return near.sharing.rest(),
            Err(FeedEnd::Failed) => {
                tracing::debug!(%node, "a node does not tell of changes: the near cache is emptied");
                return;
            }
        }
    }
}

/// The near cache stays off for the clients that share it: rows of changes are of all keys, and a client with a
/// token for some keys does not get them.
fn forbidden(engine: &Engine) {
    let Some(near) = &engine.local.near else { return };
    near.sharing.forbid();
    let (region, cluster) = (&engine.config.region, &engine.config.cluster);
    tracing::info!(
        region,
        cluster,
        "this client may not follow the changes of all keys: nothing is kept near, and nodes are asked instead"
    );
}
