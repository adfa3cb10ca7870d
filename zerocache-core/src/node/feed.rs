//! The feed of changes: which keys changed, in the order in which the node learned of it.
//!
//! Changes are recorded only while there are followers. They have numbers that rise by one; a gap in the
//! numbers is a time of which nothing is known.

use alloc::{
    collections::{BTreeMap, VecDeque},
    vec::Vec,
};

use super::{ConnectionId, Effect, RequestId, local::Local, quota::Quota};
use crate::{
    key::KeyHash,
    purge::TargetId,
    time::{Instant, Now},
    version::Version,
    wire::{CHANGES_MAX, KeyChange, RefusalCode, Response},
};

/// The most changes that are kept: 1.5 MiB.
const KEPT_MAX: usize = 65_536;

/// The most followers; more are refused.
const FOLLOWERS_MAX: usize = 4_096;

/// The longest wait, in milliseconds, after which the response says that nothing changed.
const WAIT_MS_MAX: u64 = 1_000;

/// A response leaves this long before its caller's timeout, in milliseconds.
const MARGIN_MS: u64 = 50;

/// A follower whose wait ends within this time is answered with those whose wait is over, in milliseconds.
const TOGETHER_MS: u64 = 50;

/// Changes are recorded for this long after the last request for them, in milliseconds.
const IDLE_MS_MAX: u64 = 10_000;

/// The counters of the feed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FeedCounts {
    /// Followers: calls that wait for changes now.
    pub followers: u64,
    /// Changes recorded.
    pub changes: u64,
    /// Responses that reported a gap; the first one of each follower is one.
    pub gaps: u64,
}

/// A recorded change of a key, or a purge of a target.
#[derive(Clone, Copy, Debug)]
struct Change {
    row: KeyChange,
    is_purge: bool,
}

/// A caller that follows.
#[derive(Clone, Copy, Debug)]
struct Follower {
    since: u64,
    with_purges: bool,
    until: Instant,
    connection: ConnectionId,
}

/// The recorded changes, and the followers.
#[derive(Debug)]
pub(super) struct Feed {
    changes: VecDeque<Change>,
    /// The number of the first change.
    first: u64,
    followers: BTreeMap<RequestId, Follower>,
    quota: Quota,
    is_on: bool,
    /// Followers get changes at most this often, in milliseconds.
    every_ms: u64,
    /// When changes were last requested.
    last_request: Instant,
    /// When followers last got changes.
    last_batch: Instant,
    /// Whether there are changes that followers have not got.
    has_news: bool,
    next: Option<Instant>,
    counts: FeedCounts,
}

impl Feed {
    /// A feed whose numbers are above those of any earlier process of the node. Its followers get changes at most each
    /// `every_ms`.
    pub(super) fn new(now: Now, every_ms: u64) -> Self {
        Self {
            changes: VecDeque::new(),
            first: (now.wall_ms << Version::COUNTER_BITS).saturating_add(1),
            followers: BTreeMap::new(),
            quota: Quota::of(FOLLOWERS_MAX),
            is_on: false,
            every_ms,
            last_request: now.mono,
            last_batch: Instant::default(),
            has_news: false,
            next: None,
            counts: FeedCounts::default(),
        }
    }

    /// Whether changes are recorded.
    pub(super) const fn is_on(&self) -> bool {
        self.is_on
    }

    pub(super) fn counts(&self) -> FeedCounts {
        FeedCounts { followers: self.followers.len() as u64, ..self.counts }
    }

    /// Records the change of a key.
    pub(super) fn note(&mut self, key: KeyHash, version: Version) {
        self.record(Change { row: (key.short(), version.stamp()), is_purge: false });
    }

    /// Records a purge: entries of the target below `version` ended.
    pub(super) fn note_purge(&mut self, target: TargetId, version: Version) {
        self.record(Change { row: (target.0, version.stamp()), is_purge: true });
    }

    fn record(&mut self, change: Change) {
        if !self.is_on {
            return;
        }
        if self.changes.len() >= KEPT_MAX {
            self.changes.pop_front();
            self.first += 1;
        }
        self.changes.push_back(change);
        self.counts.changes += 1;
        self.has_news = true;
    }

    /// Leaves a gap: there were changes that could not be recorded, and followers start over.
    pub(super) fn lose(&mut self) {
        if self.is_on {
            self.first = self.end() + 1;
            self.changes.clear();
            self.has_news = true;
        }
    }

    /// The number of the next change.
    fn end(&self) -> u64 {
        self.first + self.changes.len() as u64
    }

    /// The changes from number `since` on; `None` if there are none. To a follower that does not know purges, one
    /// is a gap.
    fn news(&mut self, since: u64, with_purges: bool) -> Option<Response> {
        let end = self.end();
        if since == end {
            return None;
        }
        if since < self.first || since > end {
            self.counts.gaps += 1;
            return Some(gap(end));
        }
        let skipped = usize::try_from(since - self.first).unwrap_or(usize::MAX);
        let (mut changes, mut purges) = (Vec::new(), Vec::new());
        for Change { row, is_purge } in self.changes.iter().skip(skipped).take(CHANGES_MAX) {
            if *is_purge { &mut purges } else { &mut changes }.push(*row);
        }
        if !with_purges && !purges.is_empty() {
            self.counts.gaps += 1;
            return Some(gap(end));
        }
        let next = since + (changes.len() + purges.len()) as u64;
        Some(Response::Changes { next, lost: false, changes, purges })
    }

    /// Stops recording if no one has asked for a while.
    fn stop_if_idle(&mut self, now: Instant) {
        let is_idle = now.since_ms(self.last_request) > IDLE_MS_MAX;
        if self.is_on && self.followers.is_empty() && is_idle {
            self.first = self.end() + 1;
            self.changes = VecDeque::new();
            (self.is_on, self.has_news) = (false, false);
        }
    }

    /// Responds once there are changes from number `since` on, or after a while.
    pub(super) fn follow(
        &mut self,
        (now, local): (Now, &mut Local),
        (id, connection): (RequestId, ConnectionId),
        (since, with_purges, timeout_ms): (u64, bool, u64),
        out: &mut Vec<Effect>,
    ) {
        let refusal = if local.is_leaving() {
            Some("the node is about to stop")
        } else if !self.quota.has_room(connection, 1) {
            local.refused.over_quota += 1;
            Some("too many follow the node")
        } else {
            None
        };
        if let Some(text) = refusal {
            let response = Response::refused(RefusalCode::Overloaded, text);
            return out.push(Effect::Respond { id, response });
        }
        self.stop_if_idle(now.mono);
        (self.is_on, self.last_request) = (true, now.mono);
        let most_ms = if timeout_ms == 0 { WAIT_MS_MAX } else { timeout_ms };
        let until = now.mono.plus_ms(most_ms.min(WAIT_MS_MAX).saturating_sub(MARGIN_MS));
        self.has_news |= since != self.end();
        self.quota.charge(connection, 1);
        self.followers.insert(id, Follower { since, with_purges, until, connection });
        self.next = Some(self.next.map_or(until, |next| next.min(until)));
    }

    /// Sends followers their changes, and responds to those that waited long enough.
    pub(super) fn answer(&mut self, (now, local): (Now, &mut Local), out: &mut Vec<Effect>) {
        if !self.is_on {
            return;
        }
        if local.is_leaving() {
            for (id, follower) in core::mem::take(&mut self.followers) {
                self.quota.release(follower.connection, 1);
                let text = "the node is about to stop";
                let response = Response::refused(RefusalCode::Overloaded, text);
                out.push(Effect::Respond { id, response });
            }
        }
        let is_batch = self.has_news && now.mono.since_ms(self.last_batch) >= self.every_ms;
        let is_due = self.next.is_some_and(|at| at <= now.mono);
        if is_batch || is_due {
            self.answer_due(now.mono, is_batch, is_due, out);
        }
        self.stop_if_idle(now.mono);
        local.wake_by(self.next_due());
    }

    fn answer_due(&mut self, now: Instant, is_batch: bool, is_due: bool, out: &mut Vec<Effect>) {
        for (id, follower) in core::mem::take(&mut self.followers) {
            let Follower { since, with_purges, until, connection } = follower;
            let news = if is_batch { self.news(since, with_purges) } else { None };
            let is_over = until <= now.plus_ms(TOGETHER_MS) && is_due;
            match news.or_else(|| is_over.then(|| no_changes(since))) {
                Some(response) => {
                    self.quota.release(connection, 1);
                    out.push(Effect::Respond { id, response });
                }
                None => {
                    self.followers.insert(id, follower);
                }
            }
        }
        if is_batch {
            (self.last_batch, self.has_news) = (now, false);
        }
        self.next = self.followers.values().map(|follower| follower.until).min();
    }

    /// Ends the waits on a connection that ended.
    pub(super) fn connection_closed(&mut self, connection: ConnectionId, out: &mut Vec<Effect>) {
        if self.quota.used_by(connection) == 0 {
            return;
        }
        let quota = &mut self.quota;
        self.followers.retain(|id, follower| {
            let stays = follower.connection != connection;
            if !stays {
                quota.release(connection, 1);
                out.push(Effect::Respond { id: *id, response: no_changes(follower.since) });
            }
            stays
        });
    }

    /// When a follower is to be answered.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let has_batch = self.has_news && !self.followers.is_empty();
        let batch = has_batch.then(|| self.last_batch.plus_ms(self.every_ms));
        batch.into_iter().chain(self.next).min()
    }
}

fn no_changes(since: u64) -> Response {
    Response::Changes { next: since, lost: false, changes: Vec::new(), purges: Vec::new() }
}

/// The response to a follower that has to start over.
fn gap(next: u64) -> Response {
    Response::Changes { next, lost: true, changes: Vec::new(), purges: Vec::new() }
}
