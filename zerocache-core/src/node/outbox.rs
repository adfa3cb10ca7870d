//! What waits for one peer: the newest version of each key, bounded, sent in batches.

use alloc::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    vec::Vec,
};

use super::{CallId, RequestId};
use crate::{key::KeyHash, time::Instant, version::Incarnation, wire::ReplicatedRecord};

/// Most records that wait for one peer.
const RECORDS_MAX: usize = 65_536;

/// Most records in one batch.
const BATCH_RECORDS_MAX: usize = 1_024;

/// A batch is closed once it carries this many bytes; a larger value travels alone.
const BATCH_BYTES_MAX: usize = 1 << 20;

/// Most batches under way to one peer: enough to keep a long line busy, few enough to gather.
const BATCHES_IN_FLIGHT_MAX: usize = 4;

/// To a peer that answers within this time, in microseconds, the next batch waits for the answer to
/// the one before, so that it gathers what comes meanwhile; and for the next millisecond, unless
/// somebody waits for the peer to have it. Each batch costs both sides as much as many records do.
const GATHER_US_MAX: u64 = 2_000;

/// A peer that has not answered for this long is slow, in milliseconds.
const SLOW_MS: u64 = 20;

/// What has gathered this many bytes goes out all the same.
const GATHERED_BYTES_MAX: usize = 64 << 10;

/// One record on its way to a peer.
#[derive(Debug)]
pub(super) struct Item {
    /// The record, and whether the peer is to pass it on.
    pub(super) replicated: ReplicatedRecord,
    /// The writes that wait for the peer to have it.
    pub(super) waiters: Vec<RequestId>,
    /// Whether it travels in a batch of its own, because a batch with it was too large.
    pub(super) alone: bool,
    /// Failed sends so far.
    pub(super) attempts: u32,
    /// For a relayed record: its region, and the relays that failed to take it.
    pub(super) relay: Option<RelayRoute>,
}

/// Where a relayed record goes, and where it has been tried.
#[derive(Clone, Debug, Default)]
pub(super) struct RelayRoute {
    pub(super) region: Arc<str>,
    pub(super) tried: Vec<Incarnation>,
    /// Relays that said that the record is too large for them.
    pub(super) too_large: Vec<Incarnation>,
}

impl Item {
    /// Copies what it carries out of the buffers from which it was read, which it would keep alive for
    /// as long as it waits.
    pub(super) fn detach(&mut self) {
        self.replicated.record.detach();
    }

    /// What it takes in a queue and on its way.
    pub(super) fn bytes(&self) -> usize {
        self.replicated.record.payload_bytes() + 128
    }
}

/// The queue for one peer.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    order: VecDeque<KeyHash>,
    items: BTreeMap<KeyHash, Item>,
    bytes: usize,
    in_flight: BTreeMap<CallId, Vec<Item>>,
    paused_until: Option<Instant>,
    /// When what gathers goes out.
    gathers_until: Option<Instant>,
    /// When the last batch was sent.
    last_sent: Option<Instant>,
    /// Whether a write waits for the peer to have something that is queued.
    is_awaited: bool,
}

impl Outbox {
    /// Queues an item; it comes back when the queue is full, also when it is larger than the older
    /// version of the same key that it would replace. One that is replaced leaves its waiters to it.
    pub(super) fn push(&mut self, mut item: Item, bytes_max: usize) -> Option<Item> {
        let hash = item.replicated.record.key.hash();
        self.is_awaited |= !item.waiters.is_empty();
        let alone = self.items.len() == 1;
        if let Some(queued) = self.items.get_mut(&hash) {
            let newer = item.replicated.record.version >= queued.replicated.record.version;
            let others = self.bytes - queued.bytes();
            let grows = newer && item.bytes() > queued.bytes();
            if grows && !alone && others + item.bytes() > bytes_max {
                return Some(item);
            }
            self.bytes = others;
            if newer {
                core::mem::swap(queued, &mut item);
            }
            queued.waiters.append(&mut item.waiters);
            self.bytes += queued.bytes();
            return None;
        }
        let full = self.items.len() >= RECORDS_MAX || self.bytes + item.bytes() > bytes_max;
        // One item is always let in, so that a value above the bound still travels.
        if full && !self.items.is_empty() {
            return Some(item);
        }
        self.bytes += item.bytes();
        self.order.push_back(hash);
        self.items.insert(hash, item);
        None
    }

    /// The next batch, when there is one and the line may take it.
    ///
    /// `latency_us` is how long the peer takes to answer, if that is known.
    pub(super) fn next_batch(
        &mut self,
        now: Instant,
        latency_us: Option<u64>,
    ) -> Option<Vec<Item>> {
        self.paused_until = self.paused_until.filter(|until| *until > now);
        self.gathers_until = None;
        let paused = self.paused_until.is_some();
        if paused || self.in_flight.len() >= BATCHES_IN_FLIGHT_MAX || self.items.is_empty() {
            return None;
        }
        let near = latency_us.is_some_and(|latency| latency <= GATHER_US_MAX);
        if near && self.bytes < GATHERED_BYTES_MAX {
            if !self.in_flight.is_empty() {
                return None;
            }
            if !self.is_awaited && self.last_sent == Some(now) {
                self.gathers_until = Some(now.plus_ms(1));
                return None;
            }
        }
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while batch.len() < BATCH_RECORDS_MAX && bytes < BATCH_BYTES_MAX {
            let Some(hash) = self.order.front().copied() else {
                break;
            };
            let Some(item) = self.items.get(&hash) else {
                break;
            };
            let fits = !item.alone && bytes + item.bytes() <= BATCH_BYTES_MAX;
            if bytes > 0 && !fits {
                break;
            }
            let last = item.alone;
            bytes += item.bytes();
            self.order.pop_front();
            batch.extend(self.items.remove(&hash));
            if last {
                break;
            }
        }
        self.bytes -= bytes;
        self.is_awaited &= !self.items.is_empty();
        self.last_sent = Some(now);
        Some(batch)
    }

    /// Whether what is queued now may wait for long: the peer failed, or has not answered for a while.
    pub(super) fn is_slow(&self, now: Instant) -> bool {
        let waits = |sent: Instant| now.since_ms(sent) >= SLOW_MS;
        let unanswered = !self.in_flight.is_empty() && self.last_sent.is_some_and(waits);
        unanswered || self.paused_until.is_some()
    }

    /// Notes that a batch is under way.
    pub(super) fn sent(&mut self, call: CallId, batch: Vec<Item>) {
        self.in_flight.insert(call, batch);
    }

    /// Takes back the batch of a call that ended.
    pub(super) fn ended(&mut self, call: CallId) -> Option<Vec<Item>> {
        self.in_flight.remove(&call)
    }

    /// Sends nothing before `until`: the peer just failed.
    pub(super) fn pause(&mut self, until: Instant) {
        self.paused_until = self.paused_until.max(Some(until));
    }

    /// When a queue goes on that is paused or gathers.
    pub(super) fn resumes(&self) -> Option<Instant> {
        self.paused_until.or(self.gathers_until).filter(|_| !self.items.is_empty())
    }

    /// Takes out what is not under way yet.
    pub(super) fn take_queued(&mut self) -> Vec<Item> {
        self.order.clear();
        self.bytes = 0;
        core::mem::take(&mut self.items).into_values().collect()
    }

    /// Takes everything out, batches under way included.
    pub(super) fn drain(&mut self) -> Vec<Item> {
        let mut all = self.take_queued();
        all.extend(core::mem::take(&mut self.in_flight).into_values().flatten());
        all
    }

    /// Whether nothing waits and nothing is under way.
    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty() && self.in_flight.is_empty()
    }

    /// How many records wait, and how many bytes they have.
    pub(super) fn held(&self) -> (usize, usize) {
        (self.items.len(), self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use bytes::Bytes;

    use super::*;
    use crate::{
        entry::{Change, Record},
        key::Key,
        version::Version,
    };

    fn item(key: u8, stamp: u64, bytes: usize) -> Item {
        let value = Bytes::from(vec![0; bytes]);
        let expires = Instant::from_millis(9);
        let record = Record {
            key: Key::within(Bytes::from(vec![key]), 1).unwrap(),
            version: Version::new(stamp, Incarnation(1)),
            change: Change::Put { value, metadata: Bytes::new(), expires },
        };
        let replicated = ReplicatedRecord { record, relay: false };
        Item { replicated, waiters: Vec::new(), alone: false, attempts: 0, relay: None }
    }

    #[test]
    fn larger_versions_of_what_is_queued_keep_the_bound() {
        let mut outbox = Outbox::default();
        for key in 0..4 {
            assert!(outbox.push(item(key, 1, 100), 1_000).is_none());
        }
        let back = outbox.push(item(2, 2, 500), 1_000).unwrap();
        assert_eq!((back.bytes(), outbox.held()), (629, (4, 4 * 229)));
        assert!(outbox.push(item(2, 3, 150), 1_000).is_none());
        assert_eq!(outbox.held(), (4, 4 * 229 + 50));
    }

    #[test]
    fn one_item_is_let_in_whatever_its_size() {
        let mut outbox = Outbox::default();
        assert!(outbox.push(item(1, 1, 100), 1_000).is_none());
        assert!(outbox.push(item(1, 2, 5_000), 1_000).is_none());
        assert!(outbox.push(item(2, 1, 0), 1_000).is_some());
        assert_eq!(outbox.held(), (1, 5_129));
    }
}
