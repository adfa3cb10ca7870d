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
    wire::{CHANGES_MAX, ChangeRow, RefusalCode, Response, keys_and_purges},
};

/// The most rows that are kept: 2 MiB.
const KEPT_MAX: usize = 65_536;

/// The most rows that are kept while there are rows of targets among them: 8 MiB. Followers of a node whose entries have
/// up to three targets have no more gaps than without them.
const DETAILED_KEPT_MAX: usize = 4 * KEPT_MAX;

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

/// What a follower wants to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Interest {
    /// Changes of keys. A purge is a gap.
    Keys,
    /// Purges, too.
    Purges,
    /// All that is known of each change.
    Details,
}

/// What a follower asks for.
#[derive(Clone, Copy, Debug)]
pub(super) struct FollowTerms {
    pub(super) since: u64,
    pub(super) interest: Interest,
    /// The response does not wait for a change.
    pub(super) at_once: bool,
    pub(super) timeout_ms: u64,
}

/// A caller that follows.
#[derive(Clone, Copy, Debug)]
struct Follower {
    since: u64,
    interest: Interest,
    until: Instant,
    connection: ConnectionId,
}

/// The recorded changes, and the followers.
#[derive(Debug)]
pub(super) struct Feed {
    changes: VecDeque<ChangeRow>,
    /// The number of the first row.
    first: u64,
    followers: BTreeMap<RequestId, Follower>,
    quota: Quota,
    is_on: bool,
    /// Followers get changes at most this often, in milliseconds.
    every_ms: u64,
    /// From this number on there are rows of targets; none while nobody wants them.
    detailed_from: Option<u64>,
    /// When these were last requested.
    last_detailed: Instant,
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
            detailed_from: None,
            last_detailed: now.mono,
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

    /// Whether it is recorded which targets changed entries belong to.
    pub(super) const fn is_detailed(&self) -> bool {
        self.detailed_from.is_some()
    }

    pub(super) fn counts(&self) -> FeedCounts {
        FeedCounts { followers: self.followers.len() as u64, ..self.counts }
    }

    /// Records the change of a key, which has a value now or not.
    pub(super) fn note(&mut self, key: KeyHash, version: Version, has_value: bool) {
        let key = key.short();
        self.record(match has_value {
            true => ChangeRow::Written { key, version },
            false => ChangeRow::Deleted { key, version },
        });
    }

    /// Records a purge: entries of the target below `version` ended.
    pub(super) fn note_purge(&mut self, target: TargetId, version: Version) {
        self.record(ChangeRow::Purged { target, stamp: version.stamp() });
    }

    /// Records a target to which the entry of the last change belongs or belonged.
    pub(super) fn note_target(&mut self, target: TargetId) {
        self.record(ChangeRow::Target(target));
    }

    fn record(&mut self, row: ChangeRow) {
        if !self.is_on {
            return;
        }
        let most = if self.is_detailed() { DETAILED_KEPT_MAX } else { KEPT_MAX };
        // Two, so that there are fewer again once nobody listens.
        for _ in 0..2 {
            if self.changes.len() >= most && self.changes.pop_front().is_some() {
                self.first += 1;
            }
        }
        self.changes.push_back(row);
        self.counts.changes += u64::from(!matches!(row, ChangeRow::Target(_)));
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

    /// The number of the next row.
    fn end(&self) -> u64 {
        self.first + self.changes.len() as u64
    }

    /// The changes from number `since` on; `None` if there are none. To a follower that does not know purges, one
    /// is a gap.
    fn news(&mut self, since: u64, interest: Interest) -> Option<Response> {
        let end = self.end();
        if since == end {
            return None;
        }
        if since < self.first || since > end {
            self.counts.gaps += 1;
            return Some(response((end, true), &[], interest));
        }
        let skipped = usize::try_from(since - self.first).unwrap_or(usize::MAX);
        // Rows from before it was known what belongs where are no details.
        let details_after = self.detailed_from.map_or(u64::MAX, |from| from.saturating_sub(since));
        let (most, interest) = match interest {
            Interest::Details if details_after > 0 => {
                (details_after.min(CHANGES_MAX as u64), Interest::Purges)
            }
            interest => (CHANGES_MAX as u64, interest),
        };
        let rows: Vec<_> = self.changes.iter().skip(skipped).take(most as usize).copied().collect();
        let is_purge = |row: &ChangeRow| matches!(row, ChangeRow::Purged { .. });
        if interest == Interest::Keys && rows.iter().any(is_purge) {
            self.counts.gaps += 1;
            return Some(response((end, true), &[], interest));
        }
        Some(response((since + rows.len() as u64, false), &rows, interest))
    }

    /// Stops recording if no one has asked for a while.
    fn stop_if_idle(&mut self, now: Instant) {
        if now.since_ms(self.last_detailed) > IDLE_MS_MAX {
            self.detailed_from = None;
        }
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
        FollowTerms { since, interest, at_once, timeout_ms }: FollowTerms,
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
        if interest == Interest::Details {
            self.detailed_from = self.detailed_from.or_else(|| Some(self.end()));
            self.last_detailed = now.mono;
        }
        let most_ms = if timeout_ms == 0 { WAIT_MS_MAX } else { timeout_ms };
        let wait_ms = most_ms.min(WAIT_MS_MAX).saturating_sub(MARGIN_MS);
        let until = now.mono.plus_ms(if at_once { 0 } else { wait_ms });
        self.has_news |= since != self.end();
        self.quota.charge(connection, 1);
        self.followers.insert(id, Follower { since, interest, until, connection });
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
            let Follower { since, interest, until, connection } = follower;
            let news = if is_batch { self.news(since, interest) } else { None };
            let is_over = until <= now.plus_ms(TOGETHER_MS) && is_due;
            match news.or_else(|| is_over.then(|| response((since, false), &[], interest))) {
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
                let Follower { since, interest, .. } = *follower;
                let response = response((since, false), &[], interest);
                out.push(Effect::Respond { id: *id, response });
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

/// The response with these rows; none and `lost` for a follower that has to start over.
fn response((next, lost): (u64, bool), rows: &[ChangeRow], interest: Interest) -> Response {
    if interest == Interest::Details {
        return Response::ChangeRows { next, lost, rows: rows.to_vec() };
    }
    let (changes, purges) = keys_and_purges(rows);
    Response::Changes { next, lost, changes, purges }
}
