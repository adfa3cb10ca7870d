//! Callers that wait until the set of reachable nodes changes.

use alloc::{collections::BTreeMap, vec::Vec};

use super::{
    ConnectionId, Effect, RequestId,
    local::{Context, Local},
    quota::Quota,
};
use crate::{
    cluster::View,
    store::Backend,
    time::{Instant, Now},
    wire::{NodeState, RefusalCode, Response},
};

/// The most watchers; more are refused.
const WATCHERS_MAX: usize = 16_384;

/// The longest wait, in milliseconds, after which the response says that nothing changed.
const WAIT_MS_MAX: u64 = 10_000;

/// A response leaves this long before its caller's timeout, in milliseconds.
const MARGIN_MS: u64 = 50;

/// A caller that waits.
#[derive(Debug)]
struct Watcher {
    /// The fingerprint of the view that it knows.
    view: u64,
    until: Instant,
    connection: ConnectionId,
}

/// All callers that wait.
#[derive(Debug)]
pub(super) struct Watchers {
    waiting: BTreeMap<RequestId, Watcher>,
    quota: Quota,
    next: Option<Instant>,
    /// The fingerprint of the view when the watchers were last answered.
    view: u64,
    state: Option<NodeState>,
}

impl Default for Watchers {
    fn default() -> Self {
        let quota = Quota::of(WATCHERS_MAX);
        Self { waiting: BTreeMap::new(), quota, next: None, view: 0, state: None }
    }
}

/// The response to a caller that asks whether the node is alive.
pub(super) fn pong(now: Now, local: &Local, view: &View) -> Response {
    Response::Pong {
        incarnation: local.id(),
        state: local.readiness.state(),
        view: view.fingerprint(local.id()),
        wall_ms: now.wall_ms,
    }
}

impl Watchers {
    /// The number of watchers.
    pub(super) fn count(&self) -> usize {
        self.waiting.len()
    }

    /// When a watcher has waited long enough.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.next
    }

    /// Responds once the view differs from the one that the caller knows, or after a while.
    pub(super) fn watch<B: Backend>(
        &mut self,
        cx: &mut Context<'_, B>,
        view: &View,
        (id, connection): (RequestId, ConnectionId),
        (known, timeout_ms): (u64, u64),
    ) {
        let is_news = known != view.fingerprint(cx.local.id());
        let response = if is_news || cx.local.is_leaving() {
            pong(cx.now, cx.local, view)
        } else if !self.quota.has_room(connection, 1) {
            cx.local.refused.over_quota += 1;
            Response::refused(RefusalCode::Overloaded, "too many wait for changes of the view")
        } else {
            let most_ms = if timeout_ms == 0 { WAIT_MS_MAX } else { timeout_ms };
            let until = cx.now.mono.plus_ms(most_ms.min(WAIT_MS_MAX).saturating_sub(MARGIN_MS));
            self.quota.charge(connection, 1);
            self.waiting.insert(id, Watcher { view: known, until, connection });
            self.next = Some(self.next.map_or(until, |next| next.min(until)));
            return cx.local.wake_by(self.next);
        };
        cx.out.push(Effect::Respond { id, response });
    }

    /// Responds to watchers whose wait is over, and to all whose view is out of date.
    pub(super) fn answer<B: Backend>(&mut self, cx: &mut Context<'_, B>, view: &View) {
        let (current, now) = (view.fingerprint(cx.local.id()), cx.now.mono);
        let state = cx.local.readiness.state();
        let is_due = self.next.is_some_and(|at| at <= now);
        let has_changed = self.view != current || self.state != Some(state);
        (self.view, self.state) = (current, Some(state));
        if !is_due && !has_changed {
            return;
        }
        let leaves = state == NodeState::Leaving;
        self.answer_those(cx, view, |w| leaves || w.view != current || w.until <= now);
        self.next = self.waiting.values().map(|watcher| watcher.until).min();
    }

    /// Ends the waits on a connection that ended.
    pub(super) fn connection_closed<B: Backend>(
        &mut self,
        cx: &mut Context<'_, B>,
        view: &View,
        connection: ConnectionId,
    ) {
        if self.quota.used_by(connection) > 0 {
            self.answer_those(cx, view, |watcher| watcher.connection == connection);
        }
    }

    fn answer_those<B: Backend>(
        &mut self,
        cx: &mut Context<'_, B>,
        view: &View,
        is_over: impl Fn(&Watcher) -> bool,
    ) {
        let over = self.waiting.iter().filter(|(_, watcher)| is_over(watcher));
        let over: Vec<_> = over.map(|(id, _)| *id).collect();
        for id in over {
            if let Some(watcher) = self.waiting.remove(&id) {
                self.quota.release(watcher.connection, 1);
            }
            let response = pong(cx.now, cx.local, view);
            cx.out.push(Effect::Respond { id, response });
        }
    }
}
