//! What a node says of what it knows: rows that another one lacks, its own question, and news.

use alloc::vec::Vec;

use bytes::Bytes;

use super::{Gossip, PART_ROWS, PASS_ON_MS, hash, short_hash};
use crate::{
    cluster::rows::{Content, Row, Want},
    time::Instant,
    version::Incarnation,
};

impl Gossip {
    pub(super) fn row(&self, id: Incarnation, short: bool, now: Instant) -> Option<Row> {
        let known = self.rows.get(&id)?;
        let age_ms = if id == self.own { 0 } else { now.since_ms(known.renewed) };
        let info = (!short).then(|| known.info.clone());
        let row = Row { id, info, renewal: known.renewal, age_ms, gone: known.gone };
        (age_ms < PASS_ON_MS).then_some(row)
    }

    /// A part of the rows for which nobody was asked lately.
    pub(super) fn next_want(&mut self) -> Want {
        let parts = self.rows.len().div_ceil(PART_ROWS).next_power_of_two();
        let bits = parts.trailing_zeros() as u8;
        self.asked = self.asked.wrapping_add(1);
        let part = (self.asked % parts as u64) as u16;
        let mut want = Want { bits, part, have: Vec::new() };
        let mine = self.rows.iter().filter(|(id, row)| !row.gone && want.covers(hash(**id)));
        want.have = mine.map(|(id, _)| short_hash(hash(*id))).collect();
        want
    }

    /// The rows that the asking node lacks, and those that it does not know to be gone.
    pub(super) fn wanted(&mut self, want: &Want, now: Instant) -> Vec<Row> {
        let mut have = want.have.clone();
        have.sort_unstable();
        let missing = self.rows.iter().filter(|(id, row)| {
            let hash = hash(**id);
            want.covers(hash) && have.binary_search(&short_hash(hash)).is_ok() == row.gone
        });
        let mut missing: Vec<_> = missing.map(|(id, row)| (*id, row.gone)).collect();
        // What does not fit this time comes first another time.
        self.answered = self.answered.wrapping_add(1);
        let start = (self.answered.wrapping_mul(7) % missing.len().max(1) as u64) as usize;
        missing.rotate_left(start);
        missing.into_iter().filter_map(|(id, gone)| self.row(id, gone, now)).collect()
    }

    /// A content with as much of `rows`, and then of the news, as fits.
    pub(super) fn content(
        &mut self,
        now: Instant,
        want: Option<Want>,
        rows: Vec<Row>,
        bytes_max: usize,
    ) -> Bytes {
        let mut content = Content { digest: self.digest, want, rows: Vec::new() };
        let Some(mut bytes) = content.fill(rows, bytes_max) else { return content.encode() };
        for _ in 0..self.news.len() {
            let Some(mut news) = self.news.pop_front() else { break };
            let Some(row) = self.row(news.id, news.short, now) else { continue };
            bytes += row.bytes();
            if bytes > bytes_max {
                self.news.push_front(news);
                break;
            }
            content.rows.push(row);
            news.left -= 1;
            if news.left > 0 {
                self.news.push_back(news);
            }
        }
        content.encode()
    }
}
