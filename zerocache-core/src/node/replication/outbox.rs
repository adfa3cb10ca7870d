//! The outbox of one peer: the newest version of each key, bounded, sent in batches.

use alloc::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    vec::Vec,
};

use bytes::Bytes;

use crate::{
    entry::{Change, Record},
    key::KeyHash,
    node::{CallId, RequestId},
    time::Instant,
    version::Incarnation,
    wire::ReplicatedRecord,
};

/// The most records that wait for one peer.
const RECORDS_MAX: usize = 65_536;

/// The most records in one batch.
const BATCH_RECORDS_MAX: usize = 1_024;

/// A batch is closed once it carries this many bytes; a larger value is sent alone.
const BATCH_BYTES_MAX: usize = 1 << 20;

/// The most batches in flight to one peer: enough to keep a long link busy, few enough to gather.
const BATCHES_IN_FLIGHT_MAX: usize = 4;

/// The next batch to a peer that responds within this time waits for the response to the one before, and
/// for the next millisecond, unless a write waits for the peer. In the meantime it gathers records: each
/// batch costs both sides as much as many records do. In microseconds.
const GATHER_US_MAX: u64 = 2_000;

/// A peer that has not responded for this long is slow, in milliseconds.
const SLOW_MS: u64 = 20;

/// A batch that has gathered this many bytes is sent all the same.
const GATHERED_BYTES_MAX: usize = 64 << 10;

/// One record on its way to a peer.
#[derive(Debug)]
pub(in crate::node) struct OutboxItem {
    /// The record, and whether the peer is to pass it on.
    pub(super) replicated: ReplicatedRecord,
    /// The writes that wait for the peer to have it.
    pub(super) waiters: Vec<RequestId>,
    /// Whether it is sent in a batch of its own, because a batch with it was too large.
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
    /// The relays for which the record is too large.
    pub(super) too_large: Vec<Incarnation>,
}

impl OutboxItem {
    /// An item for a record that a write may wait for.
    pub(super) fn new(
        record: &Record,
        waiter: Option<RequestId>,
        relay: Option<RelayRoute>,
    ) -> Self {
        let (record, relays) = (record.clone(), relay.is_some());
        let replicated = ReplicatedRecord { record, relay: relays, witness: false };
        let waiters = waiter.into_iter().collect();
        Self { replicated, waiters, alone: false, attempts: 0, relay }
    }

    /// An item for a witness of the record's key, without the value. A delete has none in any case.
    pub(super) fn for_witness(record: &Record, waiter: Option<RequestId>) -> Self {
        let mut item = Self::new(record, waiter, None);
        if let Change::Put { value, .. } = &mut item.replicated.record.change {
            (*value, item.replicated.witness) = (Bytes::new(), true);
        }
        item
    }

    /// Copies the payload out of the buffers from which it was read, which it would keep alive while it
    /// waits.
    pub(super) fn detach(&mut self) {
        self.replicated.record.detach();
    }

    /// The bytes that it takes in the outbox and in flight.
    pub(super) fn bytes(&self) -> usize {
        self.replicated.record.payload_bytes() + 128
    }
}

/// The outbox of one peer.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    order: VecDeque<KeyHash>,
    items: BTreeMap<KeyHash, OutboxItem>,
    bytes: usize,
    in_flight: BTreeMap<CallId, Vec<OutboxItem>>,
    paused_until: Option<Instant>,
    /// When the records that gather are sent.
    gathers_until: Option<Instant>,
    /// When the last batch was sent.
    last_sent: Option<Instant>,
    /// Whether a write waits for the peer to have a queued record.
    is_awaited: bool,
}

impl Outbox {
    /// Queues an item. Returns it if the outbox is full, also if it is larger than the older version of the
    /// same key that it would replace. A replaced item leaves its waiters to the new one.
    pub(super) fn push(&mut self, mut item: OutboxItem, bytes_max: usize) -> Option<OutboxItem> {
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

    /// Takes the next batch, if there is one and it may be sent now.
    ///
    /// `latency_us` is the round-trip time to the peer, if that is known.
    pub(super) fn next_batch(
        &mut self,
        now: Instant,
        latency_us: Option<u64>,
    ) -> Option<Vec<OutboxItem>> {
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

    /// Whether records queued now may wait for long: the peer failed, or has not responded for a while.
    pub(super) fn is_slow(&self, now: Instant) -> bool {
        let waits = |sent: Instant| now.since_ms(sent) >= SLOW_MS;
        let unanswered = !self.in_flight.is_empty() && self.last_sent.is_some_and(waits);
        unanswered || self.paused_until.is_some()
    }

    /// Notes that a batch is in flight.
    pub(super) fn sent(&mut self, call: CallId, batch: Vec<OutboxItem>) {
        self.in_flight.insert(call, batch);
    }

    /// Takes back the batch of a call that ended.
    pub(super) fn ended(&mut self, call: CallId) -> Option<Vec<OutboxItem>> {
        self.in_flight.remove(&call)
    }

    /// Sends nothing before `until`: the peer just failed.
    pub(super) fn pause(&mut self, until: Instant) {
        self.paused_until = self.paused_until.max(Some(until));
    }

    /// When an outbox that pauses or gathers is due.
    pub(super) fn resumes(&self) -> Option<Instant> {
        self.paused_until.or(self.gathers_until).filter(|_| !self.items.is_empty())
    }

    /// Takes out the records that are not in flight.
    pub(super) fn take_queued(&mut self) -> Vec<OutboxItem> {
        self.order.clear();
        self.bytes = 0;
        core::mem::take(&mut self.items).into_values().collect()
    }

    /// Takes out all records, also those in flight.
    pub(super) fn drain(&mut self) -> Vec<OutboxItem> {
        let mut all = self.take_queued();
        all.extend(core::mem::take(&mut self.in_flight).into_values().flatten());
        all
    }

    /// Whether no record waits or is in flight.
    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty() && self.in_flight.is_empty()
    }

    /// The number of records that wait, and their bytes.
    pub(super) fn queued(&self) -> (usize, usize) {
        (self.items.len(), self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use bytes::Bytes;

    use super::*;
    use crate::{entry::Change, key::Key, version::Version};

    fn item(key: u8, stamp: u64, bytes: usize) -> OutboxItem {
        let value = Bytes::from(vec![0; bytes]);
        let expires = Instant::from_millis(9);
        let record = Record {
            key: Key::within(Bytes::from(vec![key]), 1).unwrap(),
            version: Version::new(stamp, Incarnation(1)),
            change: Change::Put { value, metadata: Bytes::new(), expires },
        };
        OutboxItem::new(&record, None, None)
    }

    #[test]
    fn replacing_a_queued_version_keeps_the_bound() {
        let mut outbox = Outbox::default();
        for key in 0..4 {
            assert!(outbox.push(item(key, 1, 100), 1_000).is_none());
        }
        let back = outbox.push(item(2, 2, 500), 1_000).unwrap();
        assert_eq!((back.bytes(), outbox.queued()), (629, (4, 4 * 229)));
        assert!(outbox.push(item(2, 3, 150), 1_000).is_none());
        assert_eq!(outbox.queued(), (4, 4 * 229 + 50));
    }

    #[test]
    fn single_item_is_queued_whatever_its_size() {
        let mut outbox = Outbox::default();
        assert!(outbox.push(item(1, 1, 100), 1_000).is_none());
        assert!(outbox.push(item(1, 2, 5_000), 1_000).is_none());
        assert!(outbox.push(item(2, 1, 0), 1_000).is_some());
        assert_eq!(outbox.queued(), (1, 5_129));
    }
}
