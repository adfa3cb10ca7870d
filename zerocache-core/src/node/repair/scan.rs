//! Requests that take a scan of shards of the store, for the versions in buckets and for pages of a copy: a slice at
//! a time.
//!
//! Invariants: one input never makes the node look at more than [`SLICE_MAX`] entries and tombstones for
//! all scans together, or do what takes as long; while there are scans the node wants to continue at once, and
//! other inputs come between; a large request waits behind the others.

use alloc::{collections::VecDeque, vec::Vec};

use super::{Repair, serve::overloaded};
use crate::{
    cluster::{Placement, View},
    entry::Record,
    key::SHARDS,
    node::{ConnectionId, Effect, RequestId, local::Context},
    purge::is_reserved,
    store::{Backend, CopyCursor, CopyRange, KeyVersion, PageScan, ScanCursor, Store, StoredItem},
    time::Now,
    version::Incarnation,
    wire::{Bucket, FetchedItem, Response, SELECTORS_MAX},
};

/// The most entries and tombstones that are looked at for one input: about 50 microseconds.
const SLICE_MAX: usize = 4_096;

/// A response is closed once it has this many versions; all versions of one bucket are in one response.
pub(in crate::node) const VERSIONS_PER_RESPONSE: usize = 16_384;

/// A response is closed with the shard in which this many were looked at: soon enough for the caller's
/// timeout.
const SCANNED_MAX: usize = 1 << 20;

/// A page of a copy is closed once it carries this many bytes, and a larger value is sent alone: whoever copies
/// takes in a page at once.
const PAGE_BYTES_MAX: usize = 256 << 10;

/// A page of a copy is closed once it has this many entries.
const PAGE_ENTRIES_MAX: usize = 4_096;

/// A page of a copy is closed with the shard in which this many entries were looked at, wanted or not.
const PAGE_SCANNED_MAX: usize = 1 << 16;

/// The most searches for versions, and those of one connection: a partner has one request in flight.
const SEARCHES_MAX: usize = 64;
const SEARCHES_EACH_MAX: usize = 2;

/// The most pages that are gathered at once, and those of one connection: three nodes may copy, and each has four
/// requests in flight.
const PAGES_MAX: usize = 12;
const PAGES_EACH_MAX: usize = 4;

/// A request that is being worked on.
#[derive(Debug)]
struct Scan {
    id: RequestId,
    connection: ConnectionId,
    work: Work,
}

#[derive(Debug)]
enum Work {
    Versions(VersionScan),
    Copy(CopyScan),
}

impl Work {
    /// Continues with what takes at most `budget` looks. Returns how many it took, and the response if it is
    /// complete.
    fn advance<B: Backend>(
        &mut self,
        store: &Store<B>,
        budget: usize,
        now: Now,
    ) -> (usize, Option<Response>) {
        match self {
            Self::Versions(scan) => scan.advance(store, budget),
            Self::Copy(scan) => scan.advance(store, budget, now),
        }
    }
}

/// A search for the versions in buckets.
#[derive(Debug)]
struct VersionScan {
    /// By shard, in the order of the request, from the present shard on.
    buckets: Vec<Bucket>,
    /// The requested seconds of the present shard, in ascending order, and what is left to look at.
    seconds: Vec<u64>,
    cursor: ScanCursor,
    versions: Vec<KeyVersion>,
    covered: u64,
    scanned: usize,
}

impl VersionScan {
    fn new(buckets: Vec<Bucket>) -> Self {
        let mut scan = Self {
            buckets,
            seconds: Vec::new(),
            cursor: ScanCursor::START,
            versions: Vec::new(),
            covered: 0,
            scanned: 0,
        };
        scan.begin_shard();
        scan
    }

    fn advance<B: Backend>(
        &mut self,
        store: &Store<B>,
        budget: usize,
    ) -> (usize, Option<Response>) {
        let shard = usize::from(self.buckets[0].shard) % SHARDS;
        let Self { seconds, cursor, versions, .. } = self;
        let seen = store.scan_versions(shard, seconds, cursor, budget, versions);
        self.scanned += seen;
        if self.cursor != ScanCursor::END {
            return (seen, None);
        }
        if self.end_shard() {
            let versions = core::mem::take(&mut self.versions);
            return (seen, Some(Response::Versions { versions, covered: self.covered }));
        }
        self.begin_shard();
        (seen, None)
    }

    /// Turns to the shard of the first bucket.
    fn begin_shard(&mut self) {
        let shard = self.buckets.first().map(|bucket| bucket.shard);
        let here = self.buckets.iter().take_while(|bucket| Some(bucket.shard) == shard);
        self.seconds = here.map(|bucket| bucket.second).collect();
        self.seconds.sort_unstable();
        self.cursor = ScanCursor::START;
    }

    /// Ends the present shard. Returns whether the response is complete.
    fn end_shard(&mut self) -> bool {
        self.buckets.drain(..self.seconds.len());
        self.covered += self.seconds.len() as u64;
        self.buckets.is_empty()
            || self.versions.len() >= VERSIONS_PER_RESPONSE
            || self.scanned >= SCANNED_MAX
    }
}

/// A page of the entries of some shards.
#[derive(Debug)]
struct CopyScan {
    /// The present shard, and the last one.
    shard: usize,
    last: usize,
    range: CopyRange,
    /// The caller, if it wants only values that it owns.
    owner: Option<(Placement, Incarnation)>,
    page: PageScan,
    items: Vec<FetchedItem>,
    bytes: usize,
    covered: u64,
    scanned: usize,
    /// The tick of the store when the first shard was begun.
    tick: u32,
}

impl CopyScan {
    fn new<B: Backend>(
        store: &Store<B>,
        (first, last, range): (u8, u8, CopyRange),
        owner: Option<(Placement, Incarnation)>,
    ) -> Self {
        let page = store.begin_page(range, PAGE_BYTES_MAX);
        Self {
            shard: usize::from(first),
            last: usize::from(last).min(SHARDS - 1),
            // The cursor belongs to the first shard.
            range: CopyRange { colder_than: None, ..range },
            owner,
            tick: page.tick(),
            page,
            items: Vec::new(),
            bytes: 0,
            covered: 0,
            scanned: 0,
        }
    }

    fn advance<B: Backend>(
        &mut self,
        store: &Store<B>,
        budget: usize,
        now: Now,
    ) -> (usize, Option<Response>) {
        if self.shard > self.last {
            return (0, Some(self.response(store, None, now)));
        }
        let seen = store.continue_page(self.shard, &mut self.page, budget, now);
        if !self.page.is_complete() {
            return (seen, None);
        }
        self.scanned += self.page.looked_at();
        self.bytes += self.page.bytes();
        let next = store.begin_page(self.range, PAGE_BYTES_MAX.saturating_sub(self.bytes));
        let page = core::mem::replace(&mut self.page, next).into_page();
        let item = |record| FetchedItem::of(self.item(record), now.mono);
        let items: Vec<_> = page.records.into_iter().map(item).collect();
        self.items.extend(items);
        if page.more.is_some() {
            return (seen, Some(self.response(store, page.more, now)));
        }
        self.covered += 1;
        self.shard += 1;
        let is_full = self.bytes >= PAGE_BYTES_MAX || self.items.len() >= PAGE_ENTRIES_MAX;
        if is_full || self.scanned >= PAGE_SCANNED_MAX || self.shard > self.last {
            return (seen, Some(self.response(store, None, now)));
        }
        (seen, None)
    }

    /// A value, or its version alone if that is all that the caller wants.
    fn item(&self, record: Record) -> StoredItem {
        let hash = record.key.hash();
        let is_wanted = |(placement, caller): &(Placement, Incarnation)| {
            placement.keeps(*caller, hash) || is_reserved(record.key.as_bytes())
        };
        match self.owner.as_ref().is_none_or(is_wanted) {
            true => StoredItem::Value(record),
            false => StoredItem::Tombstone(hash, record.version),
        }
    }

    fn response<B: Backend>(
        &mut self,
        store: &Store<B>,
        more: Option<CopyCursor>,
        now: Now,
    ) -> Response {
        let items = core::mem::take(&mut self.items);
        let from_second = store.first_complete_second(now);
        Response::Items { items, covered: self.covered, more, tick: self.tick, from_second }
    }
}

/// All requests that are being worked on.
#[derive(Debug, Default)]
pub(super) struct Scans {
    waiting: VecDeque<Scan>,
}

impl Scans {
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Returns the refusal of one more scan of a kind if there are `most` of them, or `each` of this connection.
    fn refusal(
        &self,
        connection: ConnectionId,
        is_kind: impl Fn(&Work) -> bool,
        (most, each): (usize, usize),
    ) -> Option<Response> {
        let (mut all, mut own) = (0, 0);
        for scan in self.waiting.iter().filter(|scan| is_kind(&scan.work)) {
            all += 1;
            own += usize::from(scan.connection == connection);
        }
        let is_full = all >= most || own >= each;
        is_full.then(|| overloaded("too many requests for versions or pages wait already"))
    }
}

impl Repair {
    /// Begins to look for the versions in some buckets.
    pub(in crate::node) fn serve_bucket_versions(
        &mut self,
        (id, connection): (RequestId, ConnectionId),
        buckets: Vec<Bucket>,
        out: &mut Vec<Effect>,
    ) {
        debug_assert!(buckets.len() <= SELECTORS_MAX);
        let response = if buckets.is_empty() {
            Some(Response::Versions { versions: Vec::new(), covered: 0 })
        } else {
            let is_search = |work: &Work| matches!(work, Work::Versions(_));
            self.scans.refusal(connection, is_search, (SEARCHES_MAX, SEARCHES_EACH_MAX))
        };
        match response {
            Some(response) => out.push(Effect::Respond { id, response }),
            None => {
                let work = Work::Versions(VersionScan::new(buckets));
                self.scans.waiting.push_back(Scan { id, connection, work });
            }
        }
    }

    /// Begins to gather a page of a copy for a node that starts.
    pub(in crate::node) fn serve_copy<B: Backend>(
        &mut self,
        cx: &mut Context<'_, B>,
        view: &View,
        (id, connection, caller): (RequestId, ConnectionId, Option<Incarnation>),
        (first, last, range, owned): (u8, u8, CopyRange, bool),
    ) {
        let is_page = |work: &Work| matches!(work, Work::Copy(_));
        let full = self.scans.refusal(connection, is_page, (PAGES_MAX, PAGES_EACH_MAX));
        let refusal = full.or_else(|| self.copy_refusal(cx, view, caller));
        if let Some(response) = refusal {
            return cx.out.push(Effect::Respond { id, response });
        }
        let is_local = |id| view.member(id).is_some_and(|m| m.info.region == cx.local.region());
        let owner = caller.filter(|caller| owned && is_local(*caller));
        let owner = owner.map(|caller| (view.placement().clone(), caller));
        let section = (first, last, range);
        let work = Work::Copy(CopyScan::new(&cx.replica.store, section, owner));
        self.scans.waiting.push_back(Scan { id, connection, work });
    }

    /// Works on the next slice.
    pub(in crate::node) fn scan<B: Backend>(
        &mut self,
        store: &Store<B>,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        let mut budget = SLICE_MAX;
        while budget > 0
            && let Some(mut scan) = self.scans.waiting.pop_front()
        {
            let (seen, response) = scan.work.advance(store, budget, now);
            // An empty shard is work, too.
            budget = budget.saturating_sub(seen.max(1));
            match response {
                Some(response) => out.push(Effect::Respond { id: scan.id, response }),
                // The others follow once this scan has had its slice.
                None if budget == 0 => self.scans.waiting.push_back(scan),
                None => self.scans.waiting.push_front(scan),
            }
        }
    }

    /// Ends the scans for a connection that ended.
    pub(in crate::node) fn connection_closed(
        &mut self,
        connection: ConnectionId,
        out: &mut Vec<Effect>,
    ) {
        self.scans.waiting.retain(|scan| {
            let stays = scan.connection != connection;
            if !stays {
                let response = overloaded("the connection has ended");
                out.push(Effect::Respond { id: scan.id, response });
            }
            stays
        });
    }
}
