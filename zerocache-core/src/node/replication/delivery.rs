//! The outcome of a batch: acknowledged, or sent again, elsewhere, smaller, later or not at all.

use alloc::{vec, vec::Vec};

use super::{
    Replication,
    outbox::{Outbox, OutboxItem},
};
use crate::{
    call::CallResult,
    cluster::{Member, View},
    entry::Change,
    node::{Effect, RequestId, judges_purges, local::Context},
    purge::is_reserved,
    store::{Backend, Broken},
    version::Incarnation,
    wire::{Receipt, RefusalCode, Response},
};

/// The most sends of one record to one local peer.
const ATTEMPTS_MAX: u32 = 3;

/// The most sends of one record to relays of one region: with a single relay, these last until the
/// failure detector takes it out.
const RELAY_ATTEMPTS_MAX: u32 = 6;

/// The pause after a failed send, in milliseconds, doubled with each attempt.
const RETRY_MS: u64 = 50;

/// How a peer responded to a batch.
#[derive(Debug)]
pub(in crate::node) enum BatchOutcome {
    /// With a receipt for each record.
    Received(Vec<Receipt>),
    /// The message was larger than the peer accepts.
    TooLarge,
    /// The peer has too much to do.
    Overloaded,
    /// With anything else, or not at all.
    Failed,
}

impl BatchOutcome {
    /// The outcome of a call with `count` records.
    pub(in crate::node) fn of(result: CallResult, count: usize) -> Self {
        match result {
            Ok(Response::Replicated(receipts)) if receipts.len() == count => {
                Self::Received(receipts)
            }
            Ok(Response::Refused(refusal)) if refusal.code == RefusalCode::TooLarge => {
                Self::TooLarge
            }
            Ok(Response::Refused(refusal)) if refusal.code == RefusalCode::Overloaded => {
                Self::Overloaded
            }
            _ => Self::Failed,
        }
    }
}

impl Replication {
    /// Handles the outcome of a batch, and sends what waits for the peer.
    pub(in crate::node) fn batch_completed<B: Backend>(
        &mut self,
        cx: &mut Context<'_, B>,
        view: &View,
        peer: Incarnation,
        (batch, outcome): (Vec<OutboxItem>, BatchOutcome),
    ) {
        match outcome {
            BatchOutcome::Received(receipts) => {
                for (item, receipt) in batch.iter().zip(receipts) {
                    self.record_received(cx, view, peer, (item, receipt));
                }
            }
            BatchOutcome::TooLarge => self.send_smaller(cx, view, peer, batch),
            BatchOutcome::Overloaded => self.send_later(cx, view, peer, batch),
            BatchOutcome::Failed => self.retry(cx, view, peer, batch),
        }
        self.flush(cx, view, peer);
    }

    fn record_received<B: Backend>(
        &mut self,
        cx: &mut Context<'_, B>,
        view: &View,
        peer: Incarnation,
        (item, receipt): (&OutboxItem, Receipt),
    ) {
        let has_write = match receipt {
            Receipt::Holds(version) => {
                // Later writes here must win over the version that the peer holds.
                let _too_far_ahead = cx.replica.clock.observe(version, cx.now.wall_ms);
                // A member of an earlier release has the purge and does not obey it.
                let is_obeyed = !is_reserved(item.replicated.record.key.as_bytes())
                    || view.member(peer).is_some_and(judges_purges);
                is_obeyed && version >= item.replicated.record.version
            }
            Receipt::Refused => {
                self.missed.note_refused(peer, cx.now.mono);
                // The version may be too far ahead of the peer's clock.
                cx.local.clocks.check_soon(cx.now);
                false
            }
        };
        // Replicas are counted, and a witness is none.
        let is_replica = has_write && !item.replicated.witness;
        self.complete(cx, &item.waiters, is_replica);
    }

    /// Sends what was too large for a peer in smaller batches, and a record that is too large even alone to
    /// another relay. Where there is none the record becomes a delete of its version: the peer cannot keep
    /// the value, but it must not keep an older one (contract section 2).
    fn send_smaller<B: Backend>(
        &mut self,
        cx: &mut Context<'_, B>,
        view: &View,
        peer: Incarnation,
        mut batch: Vec<OutboxItem>,
    ) {
        let is_single = batch.len() == 1;
        batch.iter_mut().for_each(|item| item.alone = true);
        let Some(mut item) = batch.pop_if(|_| is_single) else {
            return self.requeue(cx, peer, batch, 0);
        };
        if item.replicated.record.change == Change::Delete {
            // Nothing could be smaller: the peer, or something before it, refuses every message.
            return self.retry(cx, view, peer, vec![item]);
        }
        if let Some(route) = &mut item.relay {
            route.too_large.push(peer);
            route.tried.clone_from(&route.too_large);
            if has_untried_relay(view, &item) {
                return self.send_to_relay(cx, view, item);
            }
        }
        item.replicated.record.change = Change::Delete;
        self.requeue(cx, peer, vec![item], 0);
    }

    /// Sends a batch that an overloaded peer refused: to other relays, or to the same peer a little
    /// later. The bound of the outbox limits how much waits.
    fn send_later<B: Backend>(
        &mut self,
        cx: &mut Context<'_, B>,
        view: &View,
        peer: Incarnation,
        batch: Vec<OutboxItem>,
    ) {
        let mut again = Vec::with_capacity(batch.len());
        for mut item in batch {
            if let Some(route) = &mut item.relay {
                route.tried.push(peer);
                if has_untried_relay(view, &item) {
                    self.send_to_relay(cx, view, item);
                    continue;
                }
            }
            if let Some(route) = &mut item.relay {
                route.tried.clone_from(&route.too_large);
            }
            again.push(item);
        }
        self.requeue(cx, peer, again, RETRY_MS);
    }

    /// Queues a batch for the same peer again, which gets nothing for `pause_ms`.
    fn requeue<B: Backend>(
        &mut self,
        cx: &mut Context<'_, B>,
        peer: Incarnation,
        batch: Vec<OutboxItem>,
        pause_ms: u64,
    ) {
        let bytes_max = cx.local.config.outbox_bytes_max;
        let outbox = self.outboxes.entry(peer).or_default();
        let rejected = batch.into_iter().filter_map(|mut item| {
            item.detach();
            outbox.push(item, bytes_max)
        });
        let rejected: Vec<_> = rejected.collect();
        if pause_ms > 0 {
            outbox.pause(cx.now.mono.plus_ms(pause_ms));
        }
        let resumes = outbox.resumes();
        self.flush_by(resumes);
        self.abandon(cx, Some(peer), rejected);
    }

    /// Sends a failed batch again: to the same local peer, or to another relay.
    fn retry<B: Backend>(
        &mut self,
        cx: &mut Context<'_, B>,
        view: &View,
        peer: Incarnation,
        batch: Vec<OutboxItem>,
    ) {
        if cx.replica.store.is_broken(Broken::RetriesDropped) {
            return;
        }
        let mut hopeless = Vec::new();
        let attempts = batch.iter().map(|item| item.attempts).max().unwrap_or(0) + 1;
        if let Some(outbox) = self.outboxes.get_mut(&peer) {
            outbox.pause(cx.now.mono.plus_ms(RETRY_MS << attempts));
        }
        for mut item in batch {
            item.attempts += 1;
            item.detach();
            let attempts_max = if item.relay.is_some() { RELAY_ATTEMPTS_MAX } else { ATTEMPTS_MAX };
            if item.attempts >= attempts_max {
                hopeless.push(item);
            } else if let Some(route) = &mut item.relay {
                route.tried.push(peer);
                self.send_to_relay(cx, view, item);
            } else if let Some(outbox) = self.outboxes.get_mut(&peer) {
                hopeless.extend(outbox.push(item, cx.local.config.outbox_bytes_max));
            }
        }
        self.reroute_queued(cx, view, peer);
        self.abandon(cx, Some(peer), hopeless);
        let resumes = self.outboxes.get(&peer).and_then(Outbox::resumes);
        self.flush_by(resumes);
    }

    /// Sends what waits behind a failed batch to other relays: it need not wait for its own failure.
    fn reroute_queued<B: Backend>(
        &mut self,
        cx: &mut Context<'_, B>,
        view: &View,
        peer: Incarnation,
    ) {
        let is_remote = |member: &&Member| member.info.region != cx.local.region();
        let Some(member) = view.member(peer).filter(is_remote) else { return };
        if view.writable_in(&member.info.region).any(|other| !other.suspect) {
            let queued = self.outboxes.get_mut(&peer).map(Outbox::take_queued);
            for item in queued.into_iter().flatten() {
                self.send_to_relay(cx, view, item);
            }
        }
    }

    /// Abandons records for a peer: completes the writes that wait for them, and counts them as missed.
    pub(super) fn abandon<B: Backend>(
        &mut self,
        cx: &mut Context<'_, B>,
        peer: Option<Incarnation>,
        items: impl AsRef<[OutboxItem]>,
    ) {
        let items = items.as_ref();
        if items.is_empty() {
            return;
        }
        for item in items {
            self.complete(cx, &item.waiters, false);
        }
        if let Some(peer) = peer {
            self.missed.note_abandoned(peer, items.len(), cx.now.mono);
        }
        self.missed.report(cx.now.mono, cx.out);
    }

    /// Completes one replica of each of these writes.
    fn complete<B: Backend>(
        &mut self,
        cx: &mut Context<'_, B>,
        waiters: &[RequestId],
        has_write: bool,
    ) {
        let store = &cx.replica.store;
        for waiter in waiters {
            let held = |key| store.version(key);
            if let Some(response) = self.pending.complete_one(*waiter, has_write, held) {
                cx.out.push(Effect::Respond { id: *waiter, response });
            }
        }
    }
}

/// Whether the item's region has a relay that has not been tried.
fn has_untried_relay(view: &View, item: &OutboxItem) -> bool {
    item.relay.as_ref().is_some_and(|route| {
        let mut relays = view.writable_in(&route.region);
        relays.any(|member| !route.tried.contains(&member.info.incarnation))
    })
}
