//! Requests for the versions in buckets, which take a scan of shards of the store: a slice at a time.
//!
//! Invariants: one input never makes the node look at more than [`SLICE_MAX`] entries and tombstones for
//! all scans together; while there are scans the node wants to continue at once, and other inputs come
//! between; a large request waits behind the others.

use alloc::{collections::VecDeque, vec::Vec};

use super::{Repair, serve::overloaded};
use crate::{
    key::SHARDS,
    node::{ConnectionId, Effect, RequestId},
    store::{Backend, KeyVersion, ScanCursor, Store},
    wire::{Bucket, Response, SELECTORS_MAX},
};

/// The most entries and tombstones that are looked at for one input: about 50 microseconds.
const SLICE_MAX: usize = 4_096;

/// A response is closed once it has this many versions; all versions of one bucket are in one response.
pub(in crate::node) const VERSIONS_PER_RESPONSE: usize = 16_384;

/// A response is closed with the shard in which this many were looked at: soon enough for the caller's
/// timeout.
const SCANNED_MAX: usize = 1 << 20;

/// The most scans, and those of one connection: a partner has one request in flight.
const SCANS_MAX: usize = 64;
const SCANS_EACH_MAX: usize = 2;

/// A request that is being worked on.
#[derive(Debug)]
struct VersionScan {
    id: RequestId,
    connection: ConnectionId,
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
    fn new(id: RequestId, connection: ConnectionId, buckets: Vec<Bucket>) -> Self {
        let mut scan = Self {
            id,
            connection,
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

/// All requests that are being worked on.
#[derive(Debug, Default)]
pub(super) struct VersionScans {
    waiting: VecDeque<VersionScan>,
}

impl VersionScans {
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
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
        let waiting = &mut self.scans.waiting;
        let own = waiting.iter().filter(|scan| scan.connection == connection).count();
        let response = if buckets.is_empty() {
            Response::Versions { versions: Vec::new(), covered: 0 }
        } else if waiting.len() >= SCANS_MAX || own >= SCANS_EACH_MAX {
            overloaded("too many requests for versions wait already")
        } else {
            return waiting.push_back(VersionScan::new(id, connection, buckets));
        };
        out.push(Effect::Respond { id, response });
    }

    /// Looks at the next slice.
    pub(in crate::node) fn scan<B: Backend>(&mut self, store: &Store<B>, out: &mut Vec<Effect>) {
        let mut budget = SLICE_MAX;
        while budget > 0
            && let Some(mut scan) = self.scans.waiting.pop_front()
        {
            let shard = usize::from(scan.buckets[0].shard) % SHARDS;
            let VersionScan { seconds, cursor, versions, .. } = &mut scan;
            let seen = store.scan_versions(shard, seconds, cursor, budget, versions);
            scan.scanned += seen;
            // An empty shard is work, too.
            budget = budget.saturating_sub(seen.max(1));
            if scan.cursor == ScanCursor::END {
                if scan.end_shard() {
                    let VersionScan { id, versions, covered, .. } = scan;
                    let response = Response::Versions { versions, covered };
                    out.push(Effect::Respond { id, response });
                    continue;
                }
                scan.begin_shard();
            }
            // The others follow once this scan has had its slice.
            match budget {
                0 => self.scans.waiting.push_back(scan),
                _ => self.scans.waiting.push_front(scan),
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
