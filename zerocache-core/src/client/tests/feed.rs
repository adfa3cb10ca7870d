//! Following a node's changes.

use alloc::{sync::Arc, vec::Vec};
use core::cell::{Cell, RefCell};

use super::super::{
    FEED_VALID_MS, FeedEnd, FeedFollower, NearItem, NearRules, NearStorage, NearTimes, RecentWrites,
};
use crate::{
    call::{CallFailure, CallResult},
    purge::TargetId,
    time::Instant,
    version::{Incarnation, Version},
    wire::{ChangeRow, RefusalCode, Request, Response},
};

/// A storage that holds nothing.
#[derive(Default)]
struct Nothing {
    epoch: Cell<u64>,
    valid_until: Cell<Instant>,
    recent_writes: RefCell<RecentWrites>,
}

struct NoItem(NearTimes, Version);

impl NearItem for NoItem {
    fn key(&self) -> &[u8] {
        b""
    }

    fn version(&self) -> Version {
        self.1
    }

    fn metadata(&self) -> &[u8] {
        b""
    }

    fn times(&self) -> &NearTimes {
        &self.0
    }
}

impl NearStorage for Nothing {
    type Item = Arc<NoItem>;

    fn epoch(&self) -> u64 {
        self.epoch.get()
    }

    fn begin_epoch(&self) {
        self.epoch.set(self.epoch.get() + 1);
    }

    fn valid_until(&self) -> Instant {
        self.valid_until.get()
    }

    fn set_valid_until(&self, until: Instant) {
        self.valid_until.set(until);
    }

    fn with_recent_writes<R>(&self, _: u64, act: impl FnOnce(&mut RecentWrites) -> R) -> R {
        act(&mut self.recent_writes.borrow_mut())
    }

    fn with_item<R>(&self, _: u64, _: impl FnOnce(&Arc<NoItem>) -> R) -> Option<R> {
        None
    }

    fn insert(&self, _: u64, _: Arc<NoItem>) {}

    fn remove_if(&self, _: u64, _: impl FnOnce(&Arc<NoItem>) -> bool) {}

    fn remove_all(&self, _: impl Fn(&Arc<NoItem>) -> bool) {}

    fn filling<R>(&self, act: impl FnOnce(u64) -> R) -> R {
        act(0)
    }

    fn purging(&self, _: u64, act: impl FnOnce()) {
        act();
    }
}

fn at(ms: u64) -> Instant {
    Instant::from_millis(ms)
}

fn changes(next: u64, lost: bool) -> CallResult {
    Ok(Response::Changes { next, lost, changes: Vec::new(), purges: Vec::new() })
}

fn since(request: &Request) -> u64 {
    let Request::Follow { since, .. } = request else { panic!("{request:?}") };
    *since
}

#[test]
fn each_request_continues_where_the_last_answer_ended_and_a_gap_begins_an_epoch() {
    let (near, mut follower) = (NearRules::new(Nothing::default()), FeedFollower::new(at(0)));
    let epoch = || near.storage().epoch();
    assert_eq!(since(&follower.ask(at(10))), 0);
    assert!(!near.is_followed(at(10)));
    assert_eq!(follower.answered(&changes(7, true), || 1, &near, at(500)), Ok(()));
    // Valid from the request on, and not from its answer.
    assert!(near.is_followed(at(9 + FEED_VALID_MS)) && !near.is_followed(at(10 + FEED_VALID_MS)));
    let first = epoch();
    assert_eq!(since(&follower.ask(at(500))), 7);
    assert_eq!(follower.answered(&changes(9, false), || 1, &near, at(600)), Ok(()));
    assert_eq!((epoch(), since(&follower.ask(at(600)))), (first, 9));
    assert_eq!(follower.answered(&changes(20, true), || 1, &near, at(700)), Ok(()));
    assert_ne!(epoch(), first);
    let second = epoch();
    near.end_following();
    assert!(!near.is_followed(at(700)) && epoch() != second);
}

#[test]
fn following_ends_when_the_node_fails_or_forbids_it_and_when_nobody_looks() {
    let near = NearRules::new(Nothing::default());
    let answer =
        |result: CallResult| FeedFollower::new(at(0)).answered(&result, || 0, &near, at(1));
    assert_eq!(answer(Err(CallFailure::NoAnswer)), Err(FeedEnd::Failed));
    let refused = |code| Ok(Response::refused(code, "no"));
    assert_eq!(answer(refused(RefusalCode::Overloaded)), Err(FeedEnd::Failed));
    assert_eq!(answer(refused(RefusalCode::Forbidden)), Err(FeedEnd::Forbidden));
    assert!(!near.is_followed(at(1)), "no answer brought changes");
    let mut follower = FeedFollower::new(at(0));
    let mut answered =
        |lookups: u64, ms: u64| follower.answered(&changes(1, false), || lookups, &near, at(ms));
    assert_eq!(answered(0, 59_999), Ok(()));
    assert_eq!(answered(1, 60_000), Ok(()), "somebody looks");
    assert_eq!(answered(1, 119_999), Ok(()));
    assert_eq!(answered(1, 120_000), Err(FeedEnd::Idle));
}

#[test]
fn who_listens_feeds_the_near_cache_once_it_is_used() {
    let (near, mut follower) = (NearRules::new(Nothing::default()), FeedFollower::new(at(0)));
    let rows = |next: u64, lost: bool| {
        let version = Version::new(next << 16, Incarnation(1));
        let rows = alloc::vec![
            ChangeRow::Written { key: 7, version },
            ChangeRow::Target(TargetId(3)),
            ChangeRow::Purged { target: TargetId(3), stamp: version.stamp() },
        ];
        Ok(Response::ChangeRows { next, lost, rows })
    };
    let unused = None::<&NearRules<Nothing>>;
    assert_eq!(follower.listen(false, at(1)), Request::Listen { since: 0, at_once: false });
    assert_eq!(follower.answered(&rows(5, true), || 1, unused, at(2)), Ok(()));
    assert!(!near.is_followed(at(2)));
    // What came before is missing.
    let epoch = near.storage().epoch();
    assert_eq!(follower.listen(true, at(3)), Request::Listen { since: 5, at_once: true });
    assert_eq!(follower.answered(&rows(9, false), || 1, &near, at(4)), Ok(()));
    assert!(near.is_followed(at(4)) && near.storage().epoch() == epoch + 1);
    for hash in [7, 3] {
        let known = near.storage().recent_writes.borrow().min_version(hash, at(4));
        assert_eq!(known.stamp(), 9 << 16);
    }
    assert_eq!(follower.answered(&rows(12, false), || 1, &near, at(5)), Ok(()));
    assert_eq!(near.storage().epoch(), epoch + 1);
}
