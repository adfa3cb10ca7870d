//! Questions for rows, which take a search through shards of the store: a slice at a time.
//!
//! Invariants: one input never makes the node look at more than [`SLICE_MAX`] entries and traces for all
//! questions together; while there are questions the node wants to go on at once, and whatever else waits
//! for it comes between; whoever asks much waits behind the others.

use alloc::{collections::VecDeque, vec::Vec};

use super::{Effect, Node, serve::overloaded};
use crate::{
    key::SHARDS,
    node::{ConnectionId, RequestId},
    store::{Backend, KeyVersion, ScanCursor},
    wire::{Bucket, Response, SELECTORS_MAX},
};

/// Most entries and traces that are looked at for one input: some 50 microseconds.
const SLICE_MAX: usize = 4_096;

/// An answer is closed once so many rows are in it; all rows of one bucket are in one answer.
pub(in crate::node) const ROWS_MAX: usize = 16_384;

/// An answer is closed with the shard in which so many were looked at: within moments, so that whoever asks
/// does not give up.
const SEARCHED_MAX: usize = 1 << 20;

/// Most questions that wait, and of one connection: a partner asks one at a time.
const SEARCHES_MAX: usize = 64;
const SEARCHES_EACH_MAX: usize = 2;

/// A question under way.
#[derive(Debug)]
struct Search {
    id: RequestId,
    connection: ConnectionId,
    /// By shard, in the order in which they were asked for; from the present shard on.
    buckets: Vec<Bucket>,
    /// The seconds asked for of the present shard, in ascending order, and what is left to look at.
    seconds: Vec<u64>,
    left: ScanCursor,
    rows: Vec<KeyVersion>,
    covered: u64,
    looked_at: usize,
}

impl Search {
    /// Turns to the shard of the first bucket.
    fn begin_shard(&mut self) {
        let shard = self.buckets.first().map(|bucket| bucket.shard);
        let here = self.buckets.iter().take_while(|bucket| Some(bucket.shard) == shard);
        self.seconds = here.map(|bucket| bucket.second).collect();
        self.seconds.sort_unstable();
        self.left = ScanCursor::START;
    }

    /// The present shard is done; whether the answer is.
    fn end_shard(&mut self) -> bool {
        self.buckets.drain(..self.seconds.len());
        self.covered += self.seconds.len() as u64;
        self.buckets.is_empty() || self.rows.len() >= ROWS_MAX || self.looked_at >= SEARCHED_MAX
    }
}

/// All questions under way.
#[derive(Debug, Default)]
pub(in crate::node) struct Searches {
    waiting: VecDeque<Search>,
}

impl Searches {
    /// Whether nothing is to be looked for.
    pub(in crate::node) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

impl<B: Backend> Node<B> {
    /// Somebody asks for the versions known in some buckets.
    pub(in crate::node) fn rows_wanted(
        &mut self,
        (id, connection): (RequestId, ConnectionId),
        buckets: Vec<Bucket>,
        out: &mut Vec<Effect>,
    ) {
        debug_assert!(buckets.len() <= SELECTORS_MAX);
        let waiting = &mut self.repair.searches.waiting;
        let same = waiting.iter().filter(|search| search.connection == connection).count();
        let response = if buckets.is_empty() {
            Response::Versions { versions: Vec::new(), covered: 0 }
        } else if waiting.len() >= SEARCHES_MAX || same >= SEARCHES_EACH_MAX {
            overloaded("others are looking for rows here")
        } else {
            let mut search = Search {
                id,
                connection,
                buckets,
                seconds: Vec::new(),
                left: ScanCursor::START,
                rows: Vec::new(),
                covered: 0,
                looked_at: 0,
            };
            search.begin_shard();
            return waiting.push_back(search);
        };
        out.push(Effect::Respond { id, response });
    }

    /// Looks a little further.
    pub(in crate::node) fn search(&mut self, out: &mut Vec<Effect>) {
        let mut budget = SLICE_MAX;
        while budget > 0
            && let Some(mut search) = self.repair.searches.waiting.pop_front()
        {
            let shard = usize::from(search.buckets[0].shard) % SHARDS;
            let seconds = &search.seconds;
            let seen = self.store.scan_versions(
                shard,
                seconds,
                &mut search.left,
                budget,
                &mut search.rows,
            );
            search.looked_at += seen;
            // An empty shard is work, too.
            budget = budget.saturating_sub(seen.max(1));
            if search.left == ScanCursor::END {
                if search.end_shard() {
                    let Search { id, rows, covered, .. } = search;
                    out.push(Effect::Respond {
                        id,
                        response: Response::Versions { versions: rows, covered },
                    });
                    continue;
                }
                search.begin_shard();
            }
            // The others' turn, once this one has had its slice.
            match budget {
                0 => self.repair.searches.waiting.push_back(search),
                _ => self.repair.searches.waiting.push_front(search),
            }
        }
    }

    /// A connection has ended: nobody waits for what was asked on it.
    pub(in crate::node) fn end_searches(
        &mut self,
        connection: ConnectionId,
        out: &mut Vec<Effect>,
    ) {
        self.repair.searches.waiting.retain(|search| {
            let stays = search.connection != connection;
            if !stays {
                let response = overloaded("the connection has ended");
                out.push(Effect::Respond { id: search.id, response });
            }
            stays
        });
    }
}
