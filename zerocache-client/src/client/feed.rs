//! Follows the changes of entries at one node, so that the near cache may keep some, and for those who listen. The
//! rules are those of [`FeedFollower`].

use std::{
    net::SocketAddr,
    ops::ControlFlow,
    sync::{Arc, Weak},
    time::Duration,
};

use zerocache_core::{
    call::CallResult,
    client::{FOLLOW_TIMEOUT_MS, FeedEnd, FeedFollower},
    version::Incarnation,
    wire::{RequestMessage, Response},
};
use zerocache_net::clock;

use super::{
    attached::Attached,
    engine::Engine,
    listen::{FollowGuard, Mode},
    renewal::Renewal,
};
use crate::near::FeedClaim;

/// The following of one node after the other.
#[derive(Default)]
pub(super) struct Feed {
    task: Attached,
}

impl Feed {
    /// Sees to it that a node is followed while somebody listens, or this client uses the near cache and no other
    /// client of the process follows one for the same cache.
    pub(super) fn keep(&mut self, engine: &Arc<Engine>) {
        let now = clock::mono();
        if let Some(near) = &engine.local.near {
            near.near.expire_stranded(now);
        }
        let near = engine.local.near.as_ref().filter(|near| near.is_wanted());
        let is_listened = engine.listeners.are_wanted();
        let mut directory = engine.directory();
        let suits = |node| {
            // One that cannot report to listeners is left for one that can.
            let reports = !is_listened || directory.can_listen(node);
            directory.can_follow(node) && (reports || !directory.has_listen_node(now))
        };
        if !self.task.is_due(now, suits) || (near.is_none() && !is_listened) {
            return;
        }
        let mut chosen = is_listened.then(|| directory.next_listen_node(now)).flatten();
        let reports = chosen.is_some();
        if near.is_some() {
            chosen = chosen.or_else(|| directory.next_feed_node(now));
        }
        let Some((node, address)) = chosen else { return };
        let claim = near.and_then(|near| near.near.claim());
        if claim.is_none() && !reports {
            return;
        }
        let followed = FeedSession {
            node,
            address,
            can_listen: directory.can_listen(node),
            claim,
            follower: FeedFollower::new(now),
            renewal: Renewal::default(),
            _listeners: engine.listeners.followed(),
        };
        self.task.begin(node, followed.run(Arc::downgrade(engine)));
    }
}

/// The following of one node.
struct FeedSession {
    node: Incarnation,
    address: SocketAddr,
    /// It reports to those who listen.
    can_listen: bool,
    /// The near cache that changes are applied to.
    claim: Option<FeedClaim>,
    follower: FeedFollower,
    /// Reads again what was kept for an outage.
    renewal: Renewal,
    _listeners: FollowGuard,
}

impl FeedSession {
    /// Follows the node to the end. Nothing of the engine is held while it waits, so that the client can end.
    async fn run(mut self, engine: Weak<Engine>) {
        let timeout = Duration::from_millis(FOLLOW_TIMEOUT_MS);
        loop {
            let Some((transport, listeners, (mode, message))) =
                engine.upgrade().and_then(|engine| {
                    let asked = self.ask(&engine)?;
                    Some((Arc::clone(&engine.transport), Arc::clone(&engine.listeners), asked))
                })
            else {
                return;
            };
            let call = transport.call(self.address, message, timeout);
            let result = match mode {
                // Whoever begins to listen wants to know more of changes.
                Mode::Follow if self.can_listen => tokio::select! {
                    result = call => result,
                    () = listeners.joined() => continue,
                },
                _ => call.await,
            };
            drop((transport, listeners));
            let Some(engine) = engine.upgrade() else { return };
            if self.answered(&engine, mode, &result).is_break() {
                return;
            }
        }
    }

    /// The next request; none where nobody needs one.
    fn ask(&mut self, engine: &Engine) -> Option<(Mode, RequestMessage)> {
        if self.claim.is_none() {
            let near = engine.local.near.as_ref().filter(|near| near.is_wanted());
            self.claim = near.and_then(|near| near.near.claim());
        }
        let mode = if self.can_listen { engine.listeners.mode() } else { Mode::Follow };
        let request = match mode {
            Mode::Follow if self.claim.is_none() => return None,
            Mode::Follow => self.follower.ask(clock::mono()),
            Mode::Listen { at_once } => self.follower.listen(at_once, clock::mono()),
        };
        let seen = engine.seen();
        Some((mode, engine.message(request, Some(self.node), FOLLOW_TIMEOUT_MS, seen)))
    }

    fn answered(
        &mut self,
        engine: &Arc<Engine>,
        mode: Mode,
        result: &CallResult,
    ) -> ControlFlow<()> {
        let near = engine.local.near.as_ref();
        // By whichever client: what one of them follows serves all.
        let lookups = || near.map_or(0, |near| near.sharing.uses());
        let rules = self.claim.as_ref().map(FeedClaim::rules);
        let answered = self.follower.answered(result, lookups, rules, clock::mono());
        // After the near cache: who hears of a change does not read what was there before it.
        match (mode, result) {
            (_, Ok(Response::ChangeRows { rows, lost, .. })) => {
                engine.listeners.report(rows, *lost);
            }
            // The node did not record all for a while.
            (Mode::Listen { .. }, Ok(Response::Changes { .. })) => engine.listeners.interrupt(),
            _ => {}
        }
        match answered {
            Ok(()) => {
                if self.claim.is_some() {
                    self.renewal.begin(engine);
                }
                return ControlFlow::Continue(());
            }
            Err(FeedEnd::Idle) if mode != Mode::Follow => return ControlFlow::Continue(()),
            Err(FeedEnd::Idle) => {
                self.claim.iter().for_each(FeedClaim::end);
                near.into_iter().for_each(|near| near.sharing.rest());
            }
            Err(FeedEnd::Forbidden) => {
                self.claim.iter().for_each(FeedClaim::end);
                forbidden(engine, result);
            }
            Err(FeedEnd::Failed) => {
                let node = self.node;
                tracing::debug!(%node, "a node does not report changes: what is near is not served, except during an outage");
            }
        }
        ControlFlow::Break(())
    }
}

/// The near cache stays off for the clients that share it, and nothing is reported to those who listen: rows of
/// changes are of all keys, and a client with a token for some keys does not get them.
fn forbidden(engine: &Engine, result: &CallResult) {
    if let Some(near) = &engine.local.near {
        near.sharing.forbid();
    }
    if let Ok(Response::Refused(refusal)) = result {
        engine.listeners.forbid(&refusal.text);
    }
    let (region, cluster) = (&engine.config.region, &engine.config.cluster);
    tracing::info!(
        region,
        cluster,
        "this client may not follow the changes of all keys: nothing is kept near, and nodes are asked instead"
    );
}
