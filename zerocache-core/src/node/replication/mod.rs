//! Replication: a write goes to every local peer, and to one relay in each other region.
//!
//! A relay passes records that carry the relay mark to its own local peers, without the mark. Records
//! without it are not passed on, so every write ends after two hops.

mod delays;
mod delivery;
mod missed;
mod outbox;
mod pending;

use alloc::{collections::BTreeMap, vec::Vec};

pub use self::delays::{DELAY_REGIONS_MAX, DELAYS_MS, DelayCounts};
use self::{
    delays::Delays,
    missed::Missed,
    outbox::{Outbox, OutboxItem, RelayRoute},
    pending::PendingWrites,
};
pub(super) use self::{
    delivery::BatchOutcome,
    pending::{PENDING_MAX, PendingWrite},
};
use super::{
    CallId, Effect, RequestId,
    local::{CallPurpose, Context},
};
use crate::{
    cluster::{Member, View},
    entry::{Change, Record},
    key::KeyHash,
    rendezvous,
    store::{Backend, Broken},
    time::{Instant, Now},
    version::{Incarnation, Version},
    wire::{Ack, NodeState, Receipt, ReplicatedRecord, Request, Response},
};

/// How long a local peer may take for a batch, in milliseconds: as long as the failure detector's silence.
/// Three round trips, and the transfer at [`BYTES_PER_MS_MIN`], are added to this and to the next.
const BATCH_TIMEOUT_LOCAL_MS: u64 = 2_500;

/// How long a relay may take before another one is tried, in milliseconds.
const BATCH_TIMEOUT_RELAY_MS: u64 = 500;

/// A batch that travels more slowly than this, 1 MB/s, counts as failed; several share the link.
const BYTES_PER_MS_MIN: u64 = 1_000;

/// The longest time for any batch, in milliseconds.
const BATCH_TIMEOUT_MS_MAX: u64 = 30_000;

/// The write that waits for local peers, and the one that waits for relays.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Waiters {
    pub(super) peers: Option<RequestId>,
    pub(super) relays: Option<RequestId>,
}

/// Whom a write waits for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct AwaitedReplicas {
    /// Local peers.
    pub(super) peers: u32,
    /// Those of them that take the version and no value: they are no replicas.
    pub(super) witnesses: u32,
    /// Relays of other regions.
    pub(super) relays: u32,
}

/// The state of replication.
#[derive(Debug, Default)]
pub(super) struct Replication {
    outboxes: BTreeMap<Incarnation, Outbox>,
    /// Peers for which records were queued since the last flush.
    filled: Vec<Incarnation>,
    /// When an outbox that pauses or gathers is due.
    flush_at: Option<Instant>,
    pending: PendingWrites,
    missed: Missed,
    delays: Delays,
}

impl Replication {
    /// Whether no write waits for a peer that responds.
    pub(super) fn is_flushed(&self) -> bool {
        self.outboxes.values().all(Outbox::is_empty)
    }

    /// The records, and their bytes, that wait for each peer; batches in flight are not counted.
    pub(super) fn queued(&self) -> impl Iterator<Item = (usize, usize)> {
        self.outboxes.values().map(Outbox::queued)
    }

    /// How long writes of other nodes took to this one.
    pub(super) fn delays(&self) -> &Delays {
        &self.delays
    }

    /// When an outbox that pauses or gathers is due.
    pub(super) fn flush_at(&self) -> Option<Instant> {
        self.flush_at
    }

    /// When a peer missed the first write that it still lacks, as far as is known.
    pub(super) fn missed_since(&self, peer: Incarnation) -> Option<Instant> {
        self.missed.since(peer)
    }

    /// Notes that a peer has all writes made before `at`.
    pub(super) fn synced(&mut self, peer: Incarnation, at: Instant) {
        self.missed.synced(peer, at);
    }

    /// Whether no further write may wait for its replicas.
    pub(super) fn is_full(&self) -> bool {
        self.pending.is_full()
    }

    /// Adds a write that waits for its replicas.
    pub(super) fn await_replicas(&mut self, id: RequestId, write: PendingWrite) {
        self.pending.insert(id, write);
    }

    /// Gives the writes that wait the versions that their entries have got.
    pub(super) fn restamp(&mut self, is_wrong: impl Fn(Version) -> bool, by_ms: i64) {
        self.pending.restamp(is_wrong, by_ms);
    }

    /// Opens the outbox of a peer.
    pub(super) fn open(&mut self, peer: Incarnation) {
        self.outboxes.entry(peer).or_default();
    }

    /// Forgets a peer whose outbox was closed.
    pub(super) fn forget(&mut self, peer: Incarnation) {
        self.missed.forget(peer);
    }

    /// Returns whom a write waits for.
    pub(super) fn replicas_awaited<B: Backend>(
        cx: &Context<'_, B>,
        view: &View,
        record: &Record,
        ack: Ack,
    ) -> AwaitedReplicas {
        if ack == Ack::Local {
            return AwaitedReplicas::default();
        }
        let peers = || view.writable_in(cx.local.region());
        let owners = view.owners(&record.key).filter(|_| record.change != Change::Delete);
        let is_witness = |member: &&Member| {
            owners.is_some_and(|owners| !owners.contains(&member.info.incarnation))
        };
        let relays = if ack == Ack::All { view.other_regions().len() } else { 0 };
        AwaitedReplicas {
            peers: peers().count() as u32,
            witnesses: peers().filter(is_witness).count() as u32,
            relays: relays as u32,
        }
    }

    /// Sends a write to all local peers and to a relay of each other region.
    pub(super) fn fan_out<B: Backend>(
        &mut self,
        cx: &mut Context<'_, B>,
        view: &View,
        record: &Record,
        waiters: Waiters,
    ) {
        let regions = view.other_regions();
        // Local nodes, and all nodes of a region of which none responds.
        self.note_missing(cx.now, view, |member| {
            member.info.region == cx.local.config.info.region
                || !regions.iter().any(|region| **region == *member.info.region)
        });
        let is_silenced = cx.replica.store.is_broken(Broken::NothingSent);
        if is_silenced || !view.members().any(Member::takes_writes) {
            return;
        }
        let record = self.to_queue(record, cx.now);
        self.send_to_peers(cx, view, &record, waiters.peers);
        for region in regions.iter().cloned() {
            let route = RelayRoute { region, ..RelayRoute::default() };
            let item = OutboxItem::new(&record, waiters.relays, Some(route));
            self.send_to_relay(cx, view, item);
        }
    }

    /// Takes in a batch from a peer, and passes on the records for which this node is the relay.
    /// `region_of` returns the region of a writer, if it is known.
    pub(super) fn receive<'r, B: Backend>(
        &mut self,
        cx: &mut Context<'_, B>,
        view: &View,
        batch: Vec<ReplicatedRecord>,
        region_of: impl Fn(Incarnation) -> Option<&'r str>,
    ) -> Response {
        let mut delays = self.delays.batch(cx.now, region_of);
        let receive = |ReplicatedRecord { record, witness, .. }: &ReplicatedRecord| {
            let receipt = match witness {
                true => cx.replica.receive_version(cx.now, record),
                false => cx.replica.receive(cx.now, record),
            };
            if receipt == Receipt::Holds(record.version) {
                delays.record(record.version);
            }
            receipt
        };
        let receipts: Vec<_> = batch.iter().map(receive).collect();
        for (ReplicatedRecord { record, relay, .. }, receipt) in batch.iter().zip(&receipts) {
            // A record that the relay held already may not have reached its peers: the relay before
            // may have died halfway.
            if *relay && *receipt == Receipt::Holds(record.version) {
                let region = cx.local.region();
                let is_local = |member: &Member| member.info.region == region;
                self.note_missing(cx.now, view, is_local);
                let record = self.to_queue(record, cx.now);
                self.send_to_peers(cx, view, &record, None);
            }
        }
        Response::Replicated(receipts)
    }

    /// Notes that those members miss a write that are unreachable or leaving and for which `is_missing`
    /// holds. One that is leaving may return: it was drained.
    fn note_missing(&mut self, now: Now, view: &View, is_missing: impl Fn(&Member) -> bool) {
        for member in view.members().filter(|member| !member.takes_writes()) {
            if is_missing(member) {
                self.missed.note(member.info.incarnation, now.mono);
            }
        }
    }

    fn send_to_peers<B: Backend>(
        &mut self,
        cx: &mut Context<'_, B>,
        view: &View,
        record: &Record,
        waiter: Option<RequestId>,
    ) {
        let peers = view.writable_in(cx.local.region());
        let peers: Vec<_> = peers.map(|member| member.info.incarnation).collect();
        let owners = view.owners(&record.key);
        for peer in peers {
            let item = match owners.is_none_or(|owners| owners.contains(&peer)) {
                true => OutboxItem::new(record, waiter, None),
                false => OutboxItem::for_witness(record, waiter),
            };
            self.send(cx, peer, item);
        }
    }

    /// The record as outboxes may hold it. While a peer is slow it is a copy, so that an outbox does not
    /// keep the buffers alive from which values were read; otherwise the outboxes are empty in a moment.
    fn to_queue(&self, record: &Record, now: Now) -> Record {
        let mut record = record.clone();
        if self.outboxes.values().any(|outbox| outbox.is_slow(now.mono)) {
            record.detach();
        }
        record
    }

    /// Sends to the best relay of the item's region that has not failed to take it; when all have, to the
    /// best of all; when none is reachable, abandons the item.
    fn send_to_relay<B: Backend>(
        &mut self,
        cx: &mut Context<'_, B>,
        view: &View,
        mut item: OutboxItem,
    ) {
        let Some(route) = &mut item.relay else { return };
        let key = &item.replicated.record.key;
        let hash = key.hash();
        let best = |is_candidate: &dyn Fn(&Member) -> bool| {
            let relays = view.writable_in(&route.region);
            let relays = relays.filter(|member| is_candidate(member));
            relays.max_by_key(|member| relay_rank(member, hash)).map(|m| m.info.incarnation)
        };
        let untried = best(&|member| !route.tried.contains(&member.info.incarnation));
        match untried.or_else(|| best(&|_| true)) {
            Some(relay) => {
                if untried.is_none() {
                    route.tried.clone_from(&route.too_large);
                }
                self.send(cx, relay, item);
            }
            None => {
                let last = route.tried.last().copied();
                self.abandon(cx, last, [item]);
            }
        }
    }

    fn send<B: Backend>(&mut self, cx: &mut Context<'_, B>, peer: Incarnation, item: OutboxItem) {
        let bytes_max = cx.local.config.outbox_bytes_max;
        match self.outboxes.entry(peer).or_default().push(item, bytes_max) {
            None if self.filled.contains(&peer) => {}
            None => self.filled.push(peer),
            Some(item) => self.abandon(cx, Some(peer), [item]),
        }
    }

    /// Sends what was queued since the last flush.
    pub(super) fn flush_filled<B: Backend>(&mut self, cx: &mut Context<'_, B>, view: &View) {
        // Records that cannot be sent to one peer may be queued for others.
        while let Some(peer) = self.filled.pop() {
            self.flush(cx, view, peer);
        }
    }

    /// Sends what waits for a peer, as far as its outbox allows.
    pub(super) fn flush<B: Backend>(
        &mut self,
        cx: &mut Context<'_, B>,
        view: &View,
        peer: Incarnation,
    ) {
        let is_leaving = cx.local.readiness.state() == NodeState::Leaving;
        if is_leaving && cx.replica.store.is_broken(Broken::QueuesDropped) {
            return drop(self.outboxes.remove(&peer));
        }
        let Some(member) = view.member(peer) else {
            // The outbox ends with the member.
            self.close(cx, view, peer);
            return self.forget(peer);
        };
        let is_local = member.info.region == cx.local.region();
        let to = (member.address, Some(peer));
        let base_ms = if is_local { BATCH_TIMEOUT_LOCAL_MS } else { BATCH_TIMEOUT_RELAY_MS };
        let latency_us = member.latency.micros();
        let travel_ms = 3 * latency_us.unwrap_or(0) / 1_000;
        let Some(outbox) = self.outboxes.get_mut(&peer) else { return };
        while let Some(batch) = outbox.next_batch(cx.now.mono, latency_us) {
            let bytes: usize = batch.iter().map(OutboxItem::bytes).sum();
            let transfer_ms = bytes as u64 / BYTES_PER_MS_MIN;
            let timeout_ms = (base_ms + travel_ms + transfer_ms).min(BATCH_TIMEOUT_MS_MAX);
            let records = batch.iter().map(|item| item.replicated.clone()).collect();
            let (purpose, request) =
                (CallPurpose::Replicate { member: peer }, Request::Replicate(records));
            outbox.sent(cx.local.call(purpose, to, request, timeout_ms, cx.out), batch);
        }
        let resumes = outbox.resumes();
        self.flush_by(resumes);
    }

    /// Looks at the outboxes no later than `at`.
    fn flush_by(&mut self, at: Option<Instant>) {
        if let Some(at) = at {
            self.flush_at = Some(self.flush_at.map_or(at, |known| known.min(at)));
        }
    }

    /// Flushes the outboxes that are due.
    pub(super) fn tick_outboxes<B: Backend>(&mut self, cx: &mut Context<'_, B>, view: &View) {
        if self.flush_at.is_none_or(|at| at > cx.now.mono) {
            return;
        }
        let is_due = |outbox: &Outbox| outbox.resumes().is_some_and(|at| at <= cx.now.mono);
        let due = self.outboxes.iter().filter(|(_, outbox)| is_due(outbox));
        let due: Vec<_> = due.map(|(peer, _)| *peer).collect();
        for peer in due {
            self.flush(cx, view, peer);
        }
        self.flush_at = self.outboxes.values().filter_map(Outbox::resumes).min();
    }

    /// Responds to writes whose deadline has passed, and schedules the next look.
    pub(super) fn tick<B: Backend>(&mut self, cx: &mut Context<'_, B>) {
        let store = &cx.replica.store;
        for (id, response) in self.pending.take_overdue(cx.now.mono, |key| store.version(key)) {
            cx.out.push(Effect::Respond { id, response });
        }
        cx.local.wake_by(self.pending.next_deadline());
    }

    /// Reports which peers missed writes.
    pub(super) fn report_missed(&mut self, now: Now, out: &mut Vec<Effect>) {
        self.missed.report(now.mono, out);
    }

    /// Takes back the batch of a call that ended; `None` if its outbox was closed meanwhile.
    pub(super) fn take_batch(
        &mut self,
        peer: Incarnation,
        call: CallId,
    ) -> Option<Vec<OutboxItem>> {
        self.outboxes.get_mut(&peer)?.ended(call)
    }

    /// Closes the outbox of a peer: relayed records go to another relay, the others are abandoned.
    pub(super) fn close<B: Backend>(
        &mut self,
        cx: &mut Context<'_, B>,
        view: &View,
        peer: Incarnation,
    ) {
        let Some(mut outbox) = self.outboxes.remove(&peer) else { return };
        let mut lost = Vec::new();
        for mut item in outbox.drain() {
            match &mut item.relay {
                Some(route) => {
                    route.tried.push(peer);
                    self.send_to_relay(cx, view, item);
                }
                None => lost.push(item),
            }
        }
        self.abandon(cx, Some(peer), lost);
    }
}

/// Ranks the members of a region as relays of a key: one that responds before a suspect, in sync before
/// warming, then by rendezvous hashing, which spreads the keys over the nodes of the region.
fn relay_rank(member: &Member, key: KeyHash) -> (bool, bool, u64) {
    let is_in_sync = member.info.state == NodeState::InSync;
    (!member.suspect, is_in_sync, rendezvous::weight(key, member.info.incarnation))
}
