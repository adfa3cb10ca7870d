//! The following of a node's changes, so that a near cache may keep some entries, and for those who listen.
//!
//! A node that is asked answers as soon as there is a change, and after a second in any case. While it does,
//! nothing near is older than what it knows. Whatever breaks the sequence of answers ends the following: the
//! near cache is emptied, and another node is asked.

use super::near::{NearRules, NearStorage};
use crate::{
    call::CallResult,
    time::Instant,
    version::Incarnation,
    wire::{RefusalCode, Request, Response, keys_and_purges},
};

/// The time-out of a request for changes, in milliseconds: a node answers within a second, and the near cache
/// serves for three after the request.
pub const FOLLOW_TIMEOUT_MS: u64 = 2_500;

/// After this long without a lookup following ends, in milliseconds.
const IDLE_MS: u64 = 60_000;

/// The pause between two nodes, in milliseconds.
const PAUSE_MS: u64 = 250;

/// The one node that a client stays in touch with, one after the other.
#[derive(Debug, Default)]
pub struct Attachment {
    node: Option<Incarnation>,
    rests_until: Instant,
}

impl Attachment {
    /// The present node.
    #[must_use]
    pub const fn node(&self) -> Option<Incarnation> {
        self.node
    }

    /// Whether another node may be attached. The present one stays while it `suits` and is not `over`; after
    /// its end, at which there is no present node any more, there is a pause.
    pub fn is_due(
        &mut self,
        now: Instant,
        is_over: bool,
        suits: impl FnOnce(Incarnation) -> bool,
    ) -> bool {
        if let Some(node) = self.node {
            if !is_over && suits(node) {
                return false;
            }
            self.node = None;
            self.rests_until = now.plus_ms(PAUSE_MS);
        }
        now >= self.rests_until
    }

    /// Attaches to a node.
    pub fn begin(&mut self, node: Incarnation) {
        self.node = Some(node);
    }
}

/// Why the following of a node ended. The driver then calls [`NearRules::lose_node`] if it failed, and otherwise
/// [`NearRules::end_following`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FeedEnd {
    /// The node did not answer, or refused.
    Failed,
    /// The caller may not follow changes at any node.
    Forbidden,
    /// Nobody has looked into the near cache for a while.
    Idle,
}

/// The following of one node, until it fails, or nobody has looked into the near cache for a while.
#[derive(Debug)]
pub struct FeedFollower {
    /// The number of the next change.
    since: u64,
    asked: Instant,
    /// The lookups at the last change of their number, and when that was.
    lookups: u64,
    looked: Instant,
    /// The near cache has had all changes so far.
    feeds_near: bool,
}

impl FeedFollower {
    /// Begins to follow a node.
    #[must_use]
    pub const fn new(now: Instant) -> Self {
        Self { since: 0, asked: now, lookups: 0, looked: now, feeds_near: false }
    }

    /// The next request, to be sent at `now` with [`FOLLOW_TIMEOUT_MS`].
    pub fn ask(&mut self, now: Instant) -> Request {
        self.asked = now;
        Request::Follow { since: self.since, with_purges: true }
    }

    /// The next request, as [`ask`](Self::ask), of a client that listens. The response comes `at_once` where
    /// somebody waits to know from when on changes are reported.
    pub fn listen(&mut self, at_once: bool, now: Instant) -> Request {
        self.asked = now;
        Request::Listen { since: self.since, at_once }
    }

    /// Applies the response to the last request to the near cache, if it is used, into which there have been so many
    /// `lookups`. For one that was not used before, earlier changes are missing.
    ///
    /// # Errors
    /// When the following has ended. Otherwise the driver asks again. It may also ask again after [`FeedEnd::Idle`],
    /// if there are others than a near cache for which it follows.
    pub fn answered<'a, S: NearStorage + 'a>(
        &mut self,
        result: &CallResult,
        lookups: impl FnOnce() -> u64,
        near: impl Into<Option<&'a NearRules<S>>>,
        now: Instant,
    ) -> Result<(), FeedEnd> {
        let split;
        let (next, lost, changes, purges) = match result {
            Ok(Response::Changes { next, lost, changes, purges }) => {
                (*next, *lost, changes, purges)
            }
            Ok(Response::ChangeRows { next, lost, rows }) => {
                split = keys_and_purges(rows);
                (*next, *lost, &split.0, &split.1)
            }
            Ok(Response::Refused(refusal)) if refusal.code == RefusalCode::Forbidden => {
                return Err(FeedEnd::Forbidden);
            }
            _ => return Err(FeedEnd::Failed),
        };
        let near = near.into();
        if let Some(near) = near {
            near.apply_changes(self.asked, lost || !self.feeds_near, (changes, purges), now);
        }
        (self.feeds_near, self.since) = (near.is_some(), next);
        let lookups = lookups();
        if lookups != self.lookups {
            (self.lookups, self.looked) = (lookups, now);
        }
        if now.since_ms(self.looked) >= IDLE_MS { Err(FeedEnd::Idle) } else { Ok(()) }
    }
}
