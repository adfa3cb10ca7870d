//! Those who follow the node: which keys changed, in the order in which the node learned of it.
//!
//! Recorded only while somebody follows. Rows have numbers that rise by one; a gap in them is a time
//! of which nothing can be told.

use alloc::{
    collections::{BTreeMap, VecDeque},
    vec::Vec,
};

use super::{ConnectionId, Effect, Node, RequestId, shares::Shares};
use crate::{
    key::KeyHash,
    store::Backend,
    time::{Instant, Now},
    version::Version,
    wire::{CHANGES_MAX, KeyChange, NodeState, RefusalCode, Response},
};

/// Most rows that are remembered: 1 MiB.
const ROWS_MAX: usize = 65_536;

/// Most who follow at once; more are refused.
const FOLLOWERS_MAX: usize = 4_096;

/// Longest wait, in milliseconds: then the answer says that nothing changed.
const WAIT_MS_MAX: u64 = 1_000;

/// An answer leaves this long before its caller gives up, in milliseconds.
const MARGIN_MS: u64 = 50;

/// Followers are told of changes at most this often, in milliseconds: those between come together.
const EVERY_MS: u64 = 5;

/// Whoever waited nearly long enough is answered with those that did, in milliseconds.
const TOGETHER_MS: u64 = 50;

/// Changes are recorded for this long after anybody asked for them, in milliseconds.
const REMEMBERED_MS: u64 = 10_000;

/// What the feed did so far, and how many follow now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FeedCounts {
    /// Who follow: calls that wait for changes.
    pub followers: u64,
    /// Changes recorded while somebody followed.
    pub changes: u64,
    /// Answers that said that changes were lost; the first one of each follower is one.
    pub gaps: u64,
}

/// One who follows.
#[derive(Clone, Copy, Debug)]
struct Follower {
    since: u64,
    until: Instant,
    connection: ConnectionId,
}

/// The changes, and who wait for them.
#[derive(Debug)]
pub(super) struct Feed {
    rows: VecDeque<KeyChange>,
    /// The number of the first row.
    first: u64,
    followers: BTreeMap<RequestId, Follower>,
    shares: Shares,
    is_on: bool,
    /// When anybody asked for the last time.
    asked: Instant,
    /// When followers were last told of changes.
    told: Instant,
    /// Whether there is something to tell.
    has_news: bool,
    next: Option<Instant>,
    counts: FeedCounts,
}

impl Feed {
    /// A feed whose numbers are above those of any earlier life of the node.
    pub(super) fn new(now: Now) -> Self {
        Self {
            rows: VecDeque::new(),
            first: (now.wall_ms << Version::COUNTER_BITS).saturating_add(1),
            followers: BTreeMap::new(),
            shares: Shares::of(FOLLOWERS_MAX),
            is_on: false,
            asked: now.mono,
            told: Instant::default(),
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

    /// Records a change.
    pub(super) fn note(&mut self, key: KeyHash, version: Version) {
        if !self.is_on {
            return;
        }
        if self.rows.len() >= ROWS_MAX {
            self.rows.pop_front();
            self.first += 1;
        }
        self.rows.push_back((key.short(), version.stamp()));
        self.counts.changes += 1;
        self.has_news = true;
    }

    /// There was a change of which no row can tell: whoever follows has to begin again.
    pub(super) fn lose(&mut self) {
        if self.is_on {
            self.first = self.end() + 1;
            self.rows.clear();
            self.has_news = true;
        }
    }

    /// The number of the next row.
    fn end(&self) -> u64 {
        self.first + self.rows.len() as u64
    }

    /// What has changed from the row `since` on; none when nothing has.
    fn news(&mut self, since: u64) -> Option<Response> {
        let end = self.end();
        if since == end {
            return None;
        }
        if since < self.first || since > end {
            self.counts.gaps += 1;
            return Some(Response::Changes { next: end, lost: true, changes: Vec::new() });
        }
        let skipped = usize::try_from(since - self.first).unwrap_or(usize::MAX);
        let rows: Vec<_> = self.rows.iter().skip(skipped).take(CHANGES_MAX).copied().collect();
        Some(Response::Changes { next: since + rows.len() as u64, lost: false, changes: rows })
    }

    /// Stops recording when nobody has asked for a while.
    fn rest(&mut self, now: Instant) {
        if self.is_on && self.followers.is_empty() && now.since_ms(self.asked) > REMEMBERED_MS {
            self.first = self.end() + 1;
            self.rows = VecDeque::new();
            (self.is_on, self.has_news) = (false, false);
        }
    }
}

impl<B: Backend> Node<B> {
    /// What the feed did so far.
    #[must_use]
    pub fn feed_counts(&self) -> FeedCounts {
        self.feed.counts()
    }

    /// Answers once there are changes from the row `since` on, or after a while.
    pub(super) fn follow(
        &mut self,
        now: Now,
        (id, connection): (RequestId, ConnectionId),
        since: u64,
        timeout_ms: u64,
        out: &mut Vec<Effect>,
    ) {
        let refusal = if self.state == NodeState::Leaving {
            Some("the node is about to stop")
        } else if !self.feed.shares.has_room(connection, 1) {
            self.refused.over_quota += 1;
            Some("too many follow the node")
        } else {
            None
        };
        if let Some(text) = refusal {
            let response = Response::refused(RefusalCode::Overloaded, text);
            return out.push(Effect::Respond { id, response });
        }
        self.feed.rest(now.mono);
        (self.feed.is_on, self.feed.asked) = (true, now.mono);
        let most_ms = if timeout_ms == 0 { WAIT_MS_MAX } else { timeout_ms };
        let until = now.mono.plus_ms(most_ms.min(WAIT_MS_MAX).saturating_sub(MARGIN_MS));
        self.feed.has_news |= since != self.feed.end();
        self.feed.shares.take(connection, 1);
        self.feed.followers.insert(id, Follower { since, until, connection });
        self.feed.next = Some(self.feed.next.map_or(until, |next| next.min(until)));
    }

    /// Tells those who follow what changed, and answers those who waited long enough.
    pub(super) fn answer_followers(&mut self, now: Now, out: &mut Vec<Effect>) {
        if !self.feed.is_on {
            return;
        }
        if self.state == NodeState::Leaving {
            for (id, follower) in core::mem::take(&mut self.feed.followers) {
                self.feed.shares.give_back(follower.connection, 1);
                let text = "the node is about to stop";
                let response = Response::refused(RefusalCode::Overloaded, text);
                out.push(Effect::Respond { id, response });
            }
        }
        let feed = &mut self.feed;
        let tells = feed.has_news && now.mono.since_ms(feed.told) >= EVERY_MS;
        let is_due = feed.next.is_some_and(|at| at <= now.mono);
        if tells || is_due {
            let mut answered = Vec::new();
            for (id, follower) in core::mem::take(&mut feed.followers) {
                let Follower { since, until, connection } = follower;
                let news = if tells { feed.news(since) } else { None };
                let over = until <= now.mono.plus_ms(TOGETHER_MS) && is_due;
                let nothing = || {
                    over.then(|| Response::Changes {
                        next: since,
                        lost: false,
                        changes: Vec::new(),
                    })
                };
                match news.or_else(nothing) {
                    Some(response) => {
                        feed.shares.give_back(connection, 1);
                        answered.push(Effect::Respond { id, response });
                    }
                    None => {
                        feed.followers.insert(id, follower);
                    }
                }
            }
            if tells {
                (feed.told, feed.has_news) = (now.mono, false);
            }
            feed.next = feed.followers.values().map(|follower| follower.until).min();
            out.append(&mut answered);
        }
        feed.rest(now.mono);
        let due = self.feed_due();
        self.wake_by(due);
    }

    /// A connection has ended: nobody follows on it any more.
    pub(super) fn follow_ended(&mut self, connection: ConnectionId, out: &mut Vec<Effect>) {
        let feed = &mut self.feed;
        let count = feed.shares.of_connection(connection);
        if count == 0 {
            return;
        }
        feed.followers.retain(|id, follower| {
            let stays = follower.connection != connection;
            if !stays {
                feed.shares.give_back(connection, 1);
                let nothing =
                    Response::Changes { next: follower.since, lost: false, changes: Vec::new() };
                out.push(Effect::Respond { id: *id, response: nothing });
            }
            stays
        });
    }

    /// When somebody who follows is to be answered next.
    pub(super) fn feed_due(&self) -> Option<Instant> {
        let feed = &self.feed;
        let tell =
            (feed.has_news && !feed.followers.is_empty()).then(|| feed.told.plus_ms(EVERY_MS));
        tell.into_iter().chain(feed.next).min()
    }
}
