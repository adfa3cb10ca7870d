//! The gossip that a node sends: rows that another one lacks, its own request, and rumours.

use alloc::vec::Vec;

use bytes::Bytes;

use super::{BUCKET_ROWS, Gossip, PASS_ON_MS, hash, short_hash};
use crate::{
    cluster::gossip::codec::{BucketRequest, GossipMessage, GossipRow},
    time::Instant,
    version::Incarnation,
};

impl Gossip {
    pub(super) fn row(&self, id: Incarnation, short: bool, now: Instant) -> Option<GossipRow> {
        let known = self.rows.get(&id)?;
        let age_ms = if id == self.own { 0 } else { now.since_ms(known.renewed) };
        let info = (!short).then(|| known.info.clone());
        let row = GossipRow { id, info, renewal: known.renewal, age_ms, gone: known.gone };
        (age_ms < PASS_ON_MS).then_some(row)
    }

    /// A request for the bucket of rows that was not requested for the longest time.
    pub(super) fn next_request(&mut self) -> BucketRequest {
        let buckets = self.rows.len().div_ceil(BUCKET_ROWS).next_power_of_two();
        let bits = buckets.trailing_zeros() as u8;
        self.asked = self.asked.wrapping_add(1);
        let bucket = (self.asked % buckets as u64) as u16;
        let mut request = BucketRequest { bits, bucket, have: Vec::new() };
        let own = self.rows.iter().filter(|(id, row)| !row.gone && request.covers(hash(**id)));
        request.have = own.map(|(id, _)| short_hash(hash(*id))).collect();
        request
    }

    /// The rows that the requesting node lacks, and those that it does not know to be gone.
    pub(super) fn requested(&mut self, request: &BucketRequest, now: Instant) -> Vec<GossipRow> {
        let mut have = request.have.clone();
        have.sort_unstable();
        let missing = self.rows.iter().filter(|(id, row)| {
            let hash = hash(**id);
            request.covers(hash) && have.binary_search(&short_hash(hash)).is_ok() == row.gone
        });
        let mut missing: Vec<_> = missing.map(|(id, row)| (*id, row.gone)).collect();
        // Rows that do not fit this time come first another time.
        self.answered = self.answered.wrapping_add(1);
        let start = (self.answered.wrapping_mul(7) % missing.len().max(1) as u64) as usize;
        missing.rotate_left(start);
        missing.into_iter().filter_map(|(id, gone)| self.row(id, gone, now)).collect()
    }

    /// A message with as many of `rows`, and then of the rumours, as fit.
    pub(super) fn content(
        &mut self,
        now: Instant,
        request: Option<BucketRequest>,
        rows: Vec<GossipRow>,
        bytes_max: usize,
    ) -> Bytes {
        let mut content = GossipMessage { digest: self.digest, request, rows: Vec::new() };
        let Some(mut bytes) = content.fill(rows, bytes_max) else { return content.encode() };
        for _ in 0..self.rumours.len() {
            let Some(mut rumour) = self.rumours.pop_front() else { break };
            let Some(row) = self.row(rumour.id, rumour.is_short, now) else { continue };
            bytes += row.bytes();
            if bytes > bytes_max {
                self.rumours.push_front(rumour);
                break;
            }
            content.rows.push(row);
            rumour.sends_left -= 1;
            if rumour.sends_left > 0 {
                self.rumours.push_back(rumour);
            }
        }
        content.encode()
    }
}
