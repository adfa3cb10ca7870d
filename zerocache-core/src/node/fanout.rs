//! Who gets a write: every local peer, and one relay in each other region.
//!
//! A relay passes what it received with the relay mark to its own local peers, without the mark;
//! what comes without it is passed to nobody. So every write ends after two hops.

use alloc::{vec, vec::Vec};

use super::{
    Call, CallId, Effect, Event, Node, RequestId,
    outbox::{Item, Outbox, RelayRoute},
};

use crate::{
    call::CallResult,
    cluster::{Member, PLACEMENT, Placement, Reach},
    entry::{Change, Record},
    key::{Key, KeyHash},
    rendezvous,
    store::{Backend, Broken},
    time::{Instant, Now},
    version::Incarnation,
    wire::{NodeState, Receipt, RefusalCode, ReplicatedRecord, Request, Response},
};

/// How long a local peer may take for a batch, in milliseconds: the silence after which it is out.
/// To this and to the next, three round trips are added and the transfer at [`BYTES_PER_MS_MIN`].
const BATCH_TIMEOUT_LOCAL_MS: u64 = 2_500;

/// How long a relay may take before another one is tried, in milliseconds.
const BATCH_TIMEOUT_RELAY_MS: u64 = 500;

/// A batch that travels more slowly than this, 1 MB/s, counts as failed; several share the link.
const BYTES_PER_MS_MIN: u64 = 1_000;

/// The longest time for any batch, in milliseconds.
const BATCH_TIMEOUT_MS_MAX: u64 = 30_000;

/// Most sends of one record to one local peer.
const ATTEMPTS_MAX: u32 = 3;

/// Most sends of one record to relays of one region: with one relay, as long as it takes until its
/// silence puts it out.
const RELAY_ATTEMPTS_MAX: u32 = 6;

/// The pause after a failed send, in milliseconds, doubled with each attempt.
const RETRY_MS: u64 = 50;

/// Which of the receivers a write waits for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Waiting {
    pub(super) peers: Option<RequestId>,
    pub(super) relays: Option<RequestId>,
}

impl<B: Backend> Node<B> {
    /// Sends a write to all local peers and to a relay of each other region.
    pub(super) fn fan_out(
        &mut self,
        now: Now,
        record: &Record,
        waiting: Waiting,
        out: &mut Vec<Effect>,
    ) {
        let regions = PLACEMENT.regions(&record.key, &self.view);
        // Local nodes, and all nodes of a region of which none answers.
        self.note_missing(now, &record.key, |member, own| {
            member.info.region == own
                || !regions.iter().any(|region| **region == *member.info.region)
        });
        let silent = self.store.is_broken(Broken::NothingSent);
        if silent || !self.view.members().any(Member::takes_writes) {
            return;
        }
        let record = self.to_queue(record, now);
        self.send_to_peers(now, &record, waiting.peers, out);
        for region in regions.iter().cloned() {
            let item = Item {
                replicated: ReplicatedRecord { record: record.clone(), relay: true },
                waiters: waiting.relays.into_iter().collect(),
                attempts: 0,
                alone: false,
                relay: Some(RelayRoute { region, ..RelayRoute::default() }),
            };
            self.send_to_relay(now, item, out);
        }
    }

    /// Sends a record to all local peers.
    pub(super) fn send_to_peers(
        &mut self,
        now: Now,
        record: &Record,
        waiter: Option<RequestId>,
        out: &mut Vec<Effect>,
    ) {
        let peers = PLACEMENT.receivers(&record.key, &self.view, &self.config.info.region);
        let peers: Vec<_> = peers.map(|member| member.info.incarnation).collect();
        for peer in peers {
            let item = Item {
                replicated: ReplicatedRecord { record: record.clone(), relay: false },
                waiters: waiter.into_iter().collect(),
                attempts: 0,
                alone: false,
                relay: None,
            };
            self.send(now, peer, item, out);
        }
    }

    /// The record as the queues may hold it. Where a peer is slow it is a copy, so that a queue does not
    /// keep the buffers alive from which values were read; otherwise they are gone in a moment.
    pub(super) fn to_queue(&self, record: &Record, now: Now) -> Record {
        let mut record = record.clone();
        if self.outboxes.values().any(|outbox| outbox.is_slow(now.mono)) {
            record.detach();
        }
        record
    }

    /// Sends to the best relay of the item's region that has not failed to take it; when all have,
    /// to the best of all; when none answers, gives the item up.
    fn send_to_relay(&mut self, now: Now, mut item: Item, out: &mut Vec<Effect>) {
        let Some(route) = &mut item.relay else { return };
        let key = &item.replicated.record.key;
        let hash = key.hash();
        let best = |untried: &dyn Fn(&Member) -> bool| {
            let relays = PLACEMENT.receivers(key, &self.view, &route.region);
            let relays = relays.filter(|member| untried(member));
            relays.max_by_key(|member| relay_rank(member, hash)).map(|m| m.info.incarnation)
        };
        let untried = best(&|member| !route.tried.contains(&member.info.incarnation));
        match untried.or_else(|| best(&|_| true)) {
            Some(relay) => {
                if untried.is_none() {
                    route.tried.clone_from(&route.too_large);
                }
                self.send(now, relay, item, out);
            }
            None => {
                let last = route.tried.last().copied();
                self.give_up(now, last, vec![item], out);
            }
        }
    }

    fn send(&mut self, now: Now, peer: Incarnation, item: Item, out: &mut Vec<Effect>) {
        let bytes_max = self.config.outbox_bytes_max;
        match self.outboxes.entry(peer).or_default().push(item, bytes_max) {
            None if self.filled.contains(&peer) => {}
            None => self.filled.push(peer),
            Some(item) => self.give_up(now, Some(peer), vec![item], out),
        }
    }

    /// Sends what was queued since the last flush.
    pub(super) fn flush_filled(&mut self, now: Now, out: &mut Vec<Effect>) {
        // Giving up what cannot be sent may queue it for others.
        while let Some(peer) = self.filled.pop() {
            self.flush(now, peer, out);
        }
    }

    /// Sends what waits for a peer, as far as the line takes it.
    fn flush(&mut self, now: Now, peer: Incarnation, out: &mut Vec<Effect>) {
        if self.state == NodeState::Leaving && self.store.is_broken(Broken::QueuesDropped) {
            return drop(self.outboxes.remove(&peer));
        }
        let Some(member) = self.view.member(peer) else {
            // Its queue ends with it.
            return self.close_outbox(now, peer, out);
        };
        let local = member.info.region == self.config.info.region;
        let to = (member.address, Some(peer));
        let base_ms = if local { BATCH_TIMEOUT_LOCAL_MS } else { BATCH_TIMEOUT_RELAY_MS };
        let latency_us = member.latency.micros();
        let travel_ms = 3 * latency_us.unwrap_or(0) / 1_000;
        let next = |node: &mut Self| node.outboxes.get_mut(&peer)?.next_batch(now.mono, latency_us);
        while let Some(batch) = next(self) {
            let bytes: usize = batch.iter().map(Item::bytes).sum();
            let transfer_ms = bytes as u64 / BYTES_PER_MS_MIN;
            let timeout_ms = (base_ms + travel_ms + transfer_ms).min(BATCH_TIMEOUT_MS_MAX);
            let records = batch.iter().map(|item| item.replicated.clone()).collect();
            let request = Request::Replicate(records);
            let call = self.call(Call::Batch { member: peer }, to, request, timeout_ms, out);
            if let Some(outbox) = self.outboxes.get_mut(&peer) {
                outbox.sent(call, batch);
            }
        }
        let resumes = self.outboxes.get(&peer).and_then(Outbox::resumes);
        self.flush_by(resumes);
    }

    /// Looks at the queues no later than `at`.
    fn flush_by(&mut self, at: Option<Instant>) {
        if let Some(at) = at {
            self.flush_at = Some(self.flush_at.map_or(at, |known| known.min(at)));
        }
    }

    pub(super) fn tick_outboxes(&mut self, now: Now, out: &mut Vec<Effect>) {
        let due =
            self.outboxes.iter().filter(|(_, o)| o.resumes().is_some_and(|at| at <= now.mono));
        let due: Vec<_> = due.map(|(peer, _)| *peer).collect();
        for peer in due {
            self.flush(now, peer, out);
        }
        self.flush_at = self.outboxes.values().filter_map(Outbox::resumes).min();
    }

    pub(super) fn batch_answered(
        &mut self,
        now: Now,
        call: CallId,
        peer: Incarnation,
        result: CallResult,
        out: &mut Vec<Effect>,
    ) {
        // A batch that was taken back when its peer went down is nobody's business any more.
        let Some(batch) = self.outboxes.get_mut(&peer).and_then(|o| o.ended(call)) else {
            return;
        };
        match result {
            Ok(Response::Replicated(receipts)) if receipts.len() == batch.len() => {
                self.heard(now, peer, out);
                for (item, receipt) in batch.iter().zip(receipts) {
                    self.received(now, peer, item, receipt, out);
                }
            }
            Ok(Response::Refused(refusal)) if refusal.code == RefusalCode::TooLarge => {
                self.send_smaller(now, peer, batch, out);
            }
            Ok(Response::Refused(refusal)) if refusal.code == RefusalCode::Overloaded => {
                self.overloaded(now, peer);
                self.send_later(now, peer, batch, out);
            }
            _ => {
                self.suspect(peer);
                self.retry(now, peer, batch, out);
            }
        }
        self.flush(now, peer, out);
    }

    /// Sends what was too large for a peer in smaller pieces, and a record that is too large even
    /// alone to another relay. Where there is none it becomes a delete of its version: the peer cannot
    /// keep the value, but it must not keep an older one (contract section 2).
    fn send_smaller(
        &mut self,
        now: Now,
        peer: Incarnation,
        mut batch: Vec<Item>,
        out: &mut Vec<Effect>,
    ) {
        let single = batch.len() == 1;
        batch.iter_mut().for_each(|item| item.alone = true);
        let Some(mut item) = batch.pop_if(|_| single) else {
            return self.requeue(now, peer, batch, 0, out);
        };
        if item.replicated.record.change == Change::Delete {
            // Nothing could be smaller: the peer, or something before it, refuses whatever comes.
            return self.retry(now, peer, vec![item], out);
        }
        if let Some(route) = &mut item.relay {
            route.too_large.push(peer);
            route.tried.clone_from(&route.too_large);
            if self.has_untried_relay(&item) {
                return self.send_to_relay(now, item, out);
            }
        }
        item.replicated.record.change = Change::Delete;
        self.requeue(now, peer, vec![item], 0, out);
    }

    /// Sends a batch that an overloaded peer refused: to other relays, or to the same peer a little
    /// later. The bound of the queue bounds how much waits.
    fn send_later(&mut self, now: Now, peer: Incarnation, batch: Vec<Item>, out: &mut Vec<Effect>) {
        let mut again = Vec::with_capacity(batch.len());
        for mut item in batch {
            if let Some(route) = &mut item.relay {
                route.tried.push(peer);
                if self.has_untried_relay(&item) {
                    self.send_to_relay(now, item, out);
                    continue;
                }
            }
            if let Some(route) = &mut item.relay {
                route.tried.clone_from(&route.too_large);
            }
            again.push(item);
        }
        self.requeue(now, peer, again, RETRY_MS, out);
    }

    fn has_untried_relay(&self, item: &Item) -> bool {
        item.relay.as_ref().is_some_and(|route| {
            let key = &item.replicated.record.key;
            let mut relays = PLACEMENT.receivers(key, &self.view, &route.region);
            relays.any(|member| !route.tried.contains(&member.info.incarnation))
        })
    }

    /// Queues a batch for the same peer again, which sends nothing for `pause_ms`.
    fn requeue(
        &mut self,
        now: Now,
        peer: Incarnation,
        batch: Vec<Item>,
        pause_ms: u64,
        out: &mut Vec<Effect>,
    ) {
        let bytes_max = self.config.outbox_bytes_max;
        let outbox = self.outboxes.entry(peer).or_default();
        let full = batch.into_iter().filter_map(|mut item| {
            item.detach();
            outbox.push(item, bytes_max)
        });
        let full = full.collect();
        if pause_ms > 0 {
            outbox.pause(now.mono.plus_ms(pause_ms));
        }
        let resumes = outbox.resumes();
        self.flush_by(resumes);
        self.give_up(now, Some(peer), full, out);
    }

    fn received(
        &mut self,
        now: Now,
        peer: Incarnation,
        item: &Item,
        receipt: Receipt,
        out: &mut Vec<Effect>,
    ) {
        let has_it = match receipt {
            Receipt::Holds(version) => {
                // Later writes here have to win over what the peer holds.
                let _too_far_ahead = self.clock.observe(version, now.wall_ms);
                version >= item.replicated.record.version
            }
            Receipt::Refused => {
                if let Some(member) = self.view.member_mut(peer) {
                    member.missed.refused += 1;
                    member.missed.note(now.mono);
                }
                // Perhaps because it is stamped too far ahead.
                self.check_clock_soon(now);
                false
            }
        };
        self.settle(&item.waiters, has_it, out);
    }

    /// Sends a failed batch again: to the same local peer, or to another relay.
    fn retry(&mut self, now: Now, peer: Incarnation, batch: Vec<Item>, out: &mut Vec<Effect>) {
        if self.store.is_broken(Broken::RetriesDropped) {
            return;
        }
        let mut hopeless = Vec::new();
        let attempts = batch.iter().map(|item| item.attempts).max().unwrap_or(0) + 1;
        if let Some(outbox) = self.outboxes.get_mut(&peer) {
            outbox.pause(now.mono.plus_ms(RETRY_MS << attempts));
        }
        for mut item in batch {
            item.attempts += 1;
            item.detach();
            let attempts_max = if item.relay.is_some() { RELAY_ATTEMPTS_MAX } else { ATTEMPTS_MAX };
            if item.attempts >= attempts_max {
                hopeless.push(item);
            } else if let Some(route) = &mut item.relay {
                route.tried.push(peer);
                self.send_to_relay(now, item, out);
            } else if let Some(outbox) = self.outboxes.get_mut(&peer) {
                hopeless.extend(outbox.push(item, self.config.outbox_bytes_max));
            }
        }
        self.reroute_queued(now, peer, out);
        self.give_up(now, Some(peer), hopeless, out);
        let resumes = self.outboxes.get(&peer).and_then(Outbox::resumes);
        self.flush_by(resumes);
    }

    /// Sends what waits behind a failed batch to other relays: it need not wait for its own failure.
    fn reroute_queued(&mut self, now: Now, peer: Incarnation, out: &mut Vec<Effect>) {
        let remote = |m: &Member| m.info.region != self.config.info.region;
        let Some(region) = self.view.member(peer).filter(|m| remote(m)).map(|m| &m.info.region)
        else {
            return;
        };
        if self.view.writable_in(region).any(|other| !other.suspect) {
            let queued = self.outboxes.get_mut(&peer).map(Outbox::take_queued);
            for item in queued.into_iter().flatten() {
                self.send_to_relay(now, item, out);
            }
        }
    }

    /// Writes that no longer reach a peer: whoever waits is told, and the peer counts as behind.
    fn give_up(
        &mut self,
        now: Now,
        peer: Option<Incarnation>,
        items: Vec<Item>,
        out: &mut Vec<Effect>,
    ) {
        if items.is_empty() {
            return;
        }
        for item in &items {
            self.settle(&item.waiters, false, out);
        }
        if let Some(member) = peer.and_then(|peer| self.view.member_mut(peer)) {
            member.missed.note(now.mono);
            member.missed.dropped += items.len();
        }
        self.report_missed(now, out);
    }

    /// Says which peers missed writes, each at most once in a while.
    pub(super) fn report_missed(&mut self, now: Now, out: &mut Vec<Effect>) {
        for member in self.view.members_mut() {
            let peer = member.info.incarnation;
            if let Some((dropped, refused)) = member.missed.to_report(now.mono) {
                if dropped > 0 {
                    out.push(Effect::Event(Event::WritesDropped { peer, count: dropped }));
                }
                if refused > 0 {
                    out.push(Effect::Event(Event::WritesRefused { peer, count: refused }));
                }
            }
        }
    }

    /// Nodes that do not answer and of which `missing` holds miss a write.
    pub(super) fn note_missing(
        &mut self,
        now: Now,
        key: &Key,
        missing: impl Fn(&Member, &str) -> bool,
    ) {
        let own = &self.config.info.region;
        let silent = self.view.members_mut().filter(|m| m.reach == Reach::Unreachable);
        for member in PLACEMENT.owners(key, silent) {
            if missing(member, own) {
                member.missed.note(now.mono);
            }
        }
    }

    /// Takes a peer out: relayed records go to another relay, the others are given up.
    pub(super) fn close_outbox(&mut self, now: Now, peer: Incarnation, out: &mut Vec<Effect>) {
        let Some(mut outbox) = self.outboxes.remove(&peer) else {
            return;
        };
        let mut lost = Vec::new();
        for mut item in outbox.drain() {
            match &mut item.relay {
                Some(route) => {
                    route.tried.push(peer);
                    self.send_to_relay(now, item, out);
                }
                None => lost.push(item),
            }
        }
        self.give_up(now, Some(peer), lost, out);
    }

    fn settle(&mut self, waiters: &[RequestId], has_it: bool, out: &mut Vec<Effect>) {
        for waiter in waiters {
            let store = &self.store;
            if let Some(response) = self.writes.settle(*waiter, has_it, |key| store.version(key)) {
                out.push(Effect::Respond { id: *waiter, response });
            }
        }
    }
}

/// The member with the highest rank is the relay: one that answers before one that is suspect, in
/// sync before warming, then rendezvous hashing, so that keys spread over the region's nodes.
fn relay_rank(member: &Member, key: KeyHash) -> (bool, bool, u64) {
    let in_sync = member.info.state == NodeState::InSync;
    (!member.suspect, in_sync, rendezvous::weight(key, member.info.incarnation))
}
