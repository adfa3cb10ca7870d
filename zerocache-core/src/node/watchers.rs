//! Those who wait until the nodes that this one reaches are others.

use alloc::{collections::BTreeMap, vec::Vec};

use super::{ConnectionId, Effect, Node, RequestId, shares::Shares};
use crate::{
    store::Backend,
    time::{Instant, Now},
    wire::{NodeState, RefusalCode, Response},
};

/// Most who wait; more are refused.
const WATCHERS_MAX: usize = 16_384;

/// Longest wait, in milliseconds: then the answer says that nothing changed.
const WAIT_MS_MAX: u64 = 10_000;

/// An answer leaves this long before its caller gives up, in milliseconds.
const MARGIN_MS: u64 = 50;

/// One who waits.
#[derive(Debug)]
struct Watcher {
    /// What it knows.
    view: u64,
    until: Instant,
    connection: ConnectionId,
}

/// All who wait.
#[derive(Debug)]
pub(super) struct Watchers {
    waiting: BTreeMap<RequestId, Watcher>,
    shares: Shares,
    next: Option<Instant>,
    /// What the view was when they were last looked at.
    view: u64,
    state: Option<NodeState>,
}

impl Default for Watchers {
    fn default() -> Self {
        let shares = Shares::of(WATCHERS_MAX);
        Self { waiting: BTreeMap::new(), shares, next: None, view: 0, state: None }
    }
}

impl Watchers {
    fn take(&mut self, id: RequestId) {
        if let Some(watcher) = self.waiting.remove(&id) {
            self.shares.give_back(watcher.connection, 1);
        }
    }
}

impl<B: Backend> Node<B> {
    /// How many wait for a change of the view.
    #[must_use]
    pub fn watcher_count(&self) -> usize {
        self.watchers.waiting.len()
    }

    /// What this node says of itself to whoever asks whether it lives.
    pub(super) fn pong(&self, now: Now) -> Response {
        Response::Pong {
            incarnation: self.config.info.incarnation,
            state: self.state,
            view: self.view.fingerprint(self.config.info.incarnation),
            wall_ms: now.wall_ms,
        }
    }

    /// Answers once the view is not the one that the caller knows, or after a while.
    pub(super) fn watch(
        &mut self,
        now: Now,
        (id, connection): (RequestId, ConnectionId),
        view: u64,
        timeout_ms: u64,
        out: &mut Vec<Effect>,
    ) {
        let is_news = view != self.view.fingerprint(self.config.info.incarnation);
        let response = if is_news || self.state == NodeState::Leaving {
            self.pong(now)
        } else if !self.watchers.shares.has_room(connection, 1) {
            self.refused.over_quota += 1;
            Response::refused(RefusalCode::Overloaded, "too many wait for changes of the view")
        } else {
            let most_ms = if timeout_ms == 0 { WAIT_MS_MAX } else { timeout_ms };
            let until = now.mono.plus_ms(most_ms.min(WAIT_MS_MAX).saturating_sub(MARGIN_MS));
            self.watchers.shares.take(connection, 1);
            self.watchers.waiting.insert(id, Watcher { view, until, connection });
            self.watchers.next = Some(self.watchers.next.map_or(until, |next| next.min(until)));
            return self.wake_by(self.watchers.next);
        };
        out.push(Effect::Respond { id, response });
    }

    /// Answers those whose time is over, and all whose view is no longer right.
    pub(super) fn answer_watchers(&mut self, now: Now, out: &mut Vec<Effect>) {
        let view = self.view.fingerprint(self.config.info.incarnation);
        let Watchers { waiting, next, view: before, state, .. } = &mut self.watchers;
        let is_due = next.is_some_and(|at| at <= now.mono);
        let has_changed = *before != view || *state != Some(self.state);
        (*before, *state) = (view, Some(self.state));
        if !is_due && !has_changed {
            return;
        }
        let leaves = self.state == NodeState::Leaving;
        let is_over = |w: &Watcher| leaves || w.view != view || w.until <= now.mono;
        let over: Vec<_> =
            waiting.iter().filter(|(_, watcher)| is_over(watcher)).map(|(id, _)| *id).collect();
        for id in over {
            self.watchers.take(id);
            let response = self.pong(now);
            out.push(Effect::Respond { id, response });
        }
        self.watchers.next = self.watchers.waiting.values().map(|watcher| watcher.until).min();
    }

    /// A connection has ended: nobody waits on it any more.
    pub(super) fn watch_ended(
        &mut self,
        now: Now,
        connection: ConnectionId,
        out: &mut Vec<Effect>,
    ) {
        if self.watchers.shares.of_connection(connection) == 0 {
            return;
        }
        let ended = self.watchers.waiting.iter().filter(|(_, w)| w.connection == connection);
        let ended: Vec<_> = ended.map(|(id, _)| *id).collect();
        for id in ended {
            self.watchers.take(id);
            let response = self.pong(now);
            out.push(Effect::Respond { id, response });
        }
    }

    /// When the next one has waited long enough.
    pub(super) fn watchers_due(&self) -> Option<Instant> {
        self.watchers.next
    }
}
