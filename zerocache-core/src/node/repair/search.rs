//! Questions for rows, which take a search through parts of the store: a slice at a time.
//!
//! Invariants: one input never makes the node look at more than [`SLICE_MAX`] entries and traces for all
//! questions together; while there are questions the node wants to go on at once, and whatever else waits
//! for it comes between; whoever asks much waits behind the others.

use alloc::{collections::VecDeque, vec::Vec};

use super::{Effect, Node, serve::overloaded};
use crate::{
    key::PARTS,
    node::{ConnectionId, RequestId},
    store::{LockFamily, Row, RowsLeft},
    wire::{Cell, PLACES_MAX, Response},
};

/// Most entries and traces that are looked at for one input: some 50 microseconds.
const SLICE_MAX: usize = 4_096;

/// An answer is closed once so many rows are in it; all rows of one cell are in one answer.
pub(in crate::node) const ROWS_MAX: usize = 16_384;

/// An answer is closed with the part in which so many were looked at: within moments, so that whoever asks
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
    /// By part, in the order in which they were asked for; from the present part on.
    cells: Vec<Cell>,
    /// The seconds asked for of the present part, in ascending order, and what is left to look at.
    seconds: Vec<u64>,
    left: RowsLeft,
    rows: Vec<Row>,
    covered: u64,
    looked_at: usize,
}

impl Search {
    /// Turns to the part of the first cell.
    fn begin_part(&mut self) {
        let part = self.cells.first().map(|cell| cell.part);
        let here = self.cells.iter().take_while(|cell| Some(cell.part) == part);
        self.seconds = here.map(|cell| cell.second).collect();
        self.seconds.sort_unstable();
        self.left = RowsLeft::ALL;
    }

    /// The present part is done; whether the answer is.
    fn end_part(&mut self) -> bool {
        self.cells.drain(..self.seconds.len());
        self.covered += self.seconds.len() as u64;
        self.cells.is_empty() || self.rows.len() >= ROWS_MAX || self.looked_at >= SEARCHED_MAX
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

impl<L: LockFamily> Node<L> {
    /// Somebody asks for the versions known in some cells.
    pub(in crate::node) fn rows_wanted(
        &mut self,
        (id, connection): (RequestId, ConnectionId),
        cells: Vec<Cell>,
        out: &mut Vec<Effect>,
    ) {
        debug_assert!(cells.len() <= PLACES_MAX);
        let waiting = &mut self.repair.searches.waiting;
        let same = waiting.iter().filter(|search| search.connection == connection).count();
        let response = if cells.is_empty() {
            Response::Rows { rows: Vec::new(), covered: 0 }
        } else if waiting.len() >= SEARCHES_MAX || same >= SEARCHES_EACH_MAX {
            overloaded("others are looking for rows here")
        } else {
            let mut search = Search {
                id,
                connection,
                cells,
                seconds: Vec::new(),
                left: RowsLeft::ALL,
                rows: Vec::new(),
                covered: 0,
                looked_at: 0,
            };
            search.begin_part();
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
            let part = usize::from(search.cells[0].part) % PARTS;
            let seconds = &search.seconds;
            let seen = self.store.rows(part, seconds, &mut search.left, budget, &mut search.rows);
            search.looked_at += seen;
            // An empty part is work, too.
            budget = budget.saturating_sub(seen.max(1));
            if search.left == RowsLeft::NONE {
                if search.end_part() {
                    let Search { id, rows, covered, .. } = search;
                    out.push(Effect::Respond { id, response: Response::Rows { rows, covered } });
                    continue;
                }
                search.begin_part();
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
