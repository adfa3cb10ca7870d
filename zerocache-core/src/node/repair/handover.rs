//! The handover of values to the owners of their keys, where not every node keeps everything.
//!
//! Whoever has a value that others own offers it to them, and they fetch what they lack. A node offers all that it
//! holds when the owners change, and from time to time; and what it keeps as a *guest*, because it took in a write
//! whose key it does not own, a moment later. When all owners have a guest, the node drops its value. So a value is
//! nowhere dropped before it is where it belongs, whatever nodes think of each other in the meantime.
//!
//! Invariants: a node offers only while it knows the versions of its peers, so that it offers nothing that was deleted;
//! one page of offers is under way at a time; what an owner is still to fetch is bounded, and so are its bytes
//! per second.

use alloc::{
    collections::{BTreeSet, VecDeque},
    vec::Vec,
};

use super::{
    Repair, RepairCall, adoption::Adoption, fetch::KEYS_PER_REQUEST, hot::HotGuests, page::Page,
};
use crate::{
    call::CallResult,
    cluster::{MEMBERS_MAX, Placement, View},
    entry::{Change, Record},
    key::{KeyHash, SHARDS},
    node::{CallId, Effect, Event, local::Context},
    store::Backend,
    time::Instant,
    version::Incarnation,
    wire::{ReplicatedRecord, Request, Response},
};

/// The owners are the same for so long before everything is offered to them, in milliseconds: a node that starts
/// meets its peers one after the other.
const STABLE_MS: u64 = 1_000;

/// Everything is offered again after this time, in milliseconds.
pub(super) const OFFER_AGAIN_MS: u64 = 600_000;

/// The pause after a page whose owners lack something still, or before guests are offered, in milliseconds.
const PAUSE_MS: u64 = 100;

/// Guests are offered this long after they came, in milliseconds: their owners have most by then.
pub(super) const GUEST_MS: u64 = 500;

/// The number of no placement.
const UNPLACED: u64 = u64::MAX;

/// A page that brings its owners nothing for so many offers is given up.
const ATTEMPTS_MAX: u32 = 50;

/// A page ends when so many entries were looked at, which takes a fraction of a millisecond and fits into one request
/// for each owner, or with so many bytes: little enough that an owner that is full has had each value before it evicts
/// it.
const PAGE_ENTRIES_MAX: usize = KEYS_PER_REQUEST;
const PAGE_BYTES_MAX: u64 = 4 << 20;

/// The most entries that are looked at while one shard is locked.
const STEP_ENTRIES_MAX: usize = 256;

/// The most guests that are remembered; with more, everything is offered.
const GUESTS_MAX: usize = 65_536;

/// How long an offer may take, in milliseconds.
const OFFER_TIMEOUT_MS: u64 = 2_000;

/// The counters of the handover.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HandoverCounts {
    /// Values that were dropped because all owners of their keys have them.
    pub displaced: u64,
    /// Values that were fetched because this node owns their keys.
    pub adopted: u64,
}

/// The state of the handover.
#[derive(Debug, Default)]
pub(super) struct Handover {
    /// The placement for which everything was offered.
    placed: u64,
    /// The owners that were not there then. They get their offers when they are back. While they stay away, others own
    /// their keys; but where everybody owns everything they have to get it, whenever they come.
    skipped: BTreeSet<Incarnation>,
    /// When everything is offered next; none while every node keeps everything.
    next_walk: Option<Instant>,
    walk: Option<Walk>,
    /// The keys of guests, and when they came, in their order.
    guests: VecDeque<(KeyHash, Instant)>,
    page: Page,
    hot: HotGuests,
    pub(super) adoption: Adoption,
    pub(super) counts: HandoverCounts,
}

/// The progress of offering everything.
#[derive(Clone, Debug)]
struct Walk {
    placement: u64,
    shard: usize,
    /// The entries of the shard that are left.
    left: usize,
    /// Whether every page was taken.
    is_complete: bool,
    /// The owners that were not there, to which nothing was offered.
    skipped: BTreeSet<Incarnation>,
}

impl Handover {
    /// Notes that this node has fetched a value that it owns. Other owners may have learned its version before it was
    /// anywhere to be fetched: it is offered to them once, unless so much is that whoever holds it offers it all.
    pub(super) fn note_adopted(&mut self, key: KeyHash, now: Instant) {
        if self.guests.len() < GUESTS_MAX / 2 {
            self.guests.push_back((key, now));
        }
    }

    fn note_guest(&mut self, key: KeyHash, now: Instant) {
        if self.guests.len() >= GUESTS_MAX {
            self.guests.clear();
            self.next_walk = Some(now);
        } else {
            self.guests.push_back((key, now));
        }
    }
}

impl Repair {
    /// The placement for which this node has offered everything.
    pub(in crate::node) fn placed(&self) -> u64 {
        self.handover.placed
    }

    /// The same, as far as a node is concerned that this one does not reach: nothing is offered to it.
    pub(in crate::node) fn placed_for_unreached(&self, node: Option<Incarnation>) -> u64 {
        let Handover { placed, skipped, .. } = &self.handover;
        // Where nothing had to be offered, nobody lacks anything.
        let is_skipped = node.is_none_or(|node| skipped.contains(&node));
        if *placed == 0 && !is_skipped { 0 } else { UNPLACED }
    }

    /// Notes that this node has values of an earlier process that kept some keys only: if every node keeps everything
    /// now, the others may lack them.
    pub(super) fn restored_placed(&mut self, now: Instant) {
        self.handover.placed = UNPLACED;
        self.handover.next_walk = Some(now);
    }

    /// The guests that wait for their owners.
    pub(in crate::node) fn guests(&self) -> u64 {
        self.handover.guests.len() as u64
    }

    /// The counters of the handover.
    pub(in crate::node) fn handover_counts(&self) -> HandoverCounts {
        self.handover.counts
    }

    /// Notes that a value was taken in whose key other nodes own.
    pub(in crate::node) fn note_guest(&mut self, key: KeyHash, now: Instant) {
        self.handover.note_guest(key, now);
    }

    /// The values of keys of others that are kept because they are read much.
    pub(in crate::node) fn hot_guests(&self) -> u64 {
        self.handover.hot.len() as u64
    }

    /// Notes what an owner gave to a read that was passed on.
    pub(in crate::node) fn note_read<B: Backend>(
        &mut self,
        cx: &mut Context<'_, B>,
        record: Record,
    ) {
        let (key, now) = (record.key.hash(), cx.now.mono);
        if self.handover.hot.keep(cx, record) {
            self.handover.note_guest(key, now);
            self.wake_by(cx.local, now);
        }
    }

    /// Notes the values that come from a peer for keys that others own.
    pub(in crate::node) fn note_guests<B: Backend>(
        &mut self,
        cx: &Context<'_, B>,
        view: &View,
        batch: &[ReplicatedRecord],
    ) {
        let own = cx.local.id();
        for ReplicatedRecord { record, witness, .. } in batch {
            if record.change == Change::Delete {
                continue;
            }
            match (*witness, view.keeps(own, &record.key)) {
                (false, false) => self.note_guest(record.key.hash(), cx.now.mono),
                // Its sender takes others for the owners.
                (true, true) => self.note_lacking(cx, view, (record.key.hash(), record.version)),
                _ => {}
            }
        }
    }

    /// Notes that a local peer is there, again or for the first time: what it owns is offered to it.
    pub(super) fn owner_up(&mut self, now: Instant, id: Incarnation) {
        let handover = &mut self.handover;
        if handover.skipped.contains(&id) || handover.walk.is_some() {
            handover.walk = None;
            handover.placed = UNPLACED;
            handover.next_walk = Some(now);
        }
    }

    /// Notes that keys have other owners.
    pub(in crate::node) fn placement_changed<B: Backend>(&mut self, cx: &mut Context<'_, B>) {
        let handover = &mut self.handover;
        handover.walk = None;
        handover.page = Page::default();
        handover.adoption.owners_changed();
        handover.next_walk = Some(cx.now.mono.plus_ms(STABLE_MS));
        cx.local.readiness.misses_are_authoritative = false;
        self.wake_by(cx.local, cx.now.mono);
    }

    /// Offers and fetches what is due.
    pub(super) fn continue_handover<B: Backend>(&mut self, cx: &mut Context<'_, B>, view: &View) {
        self.retry_lacking(cx, view);
        self.fetch_adopted(cx, view);
        while let Some(key) = self.handover.hot.take_over(cx.now.mono) {
            self.handover.note_guest(key, cx.now.mono);
        }
        if let Some(at) = self.handover.hot.next_over() {
            self.wake_by(cx.local, at);
        }
        if !self.page_is_due(cx) || !self.agrees(cx.local, view, cx.now) {
            return;
        }
        if self.handover.page.is_empty() {
            self.begin_page(cx, view);
        }
        self.offer_page(cx, view);
    }

    /// Whether a page may be begun or offered again.
    fn page_is_due<B: Backend>(&mut self, cx: &mut Context<'_, B>) -> bool {
        let Handover { page, guests, walk, next_walk, .. } = &mut self.handover;
        let is_idle = page.is_empty() && guests.is_empty() && walk.is_none() && next_walk.is_none();
        if is_idle || !page.calls.is_empty() {
            return false;
        }
        let waits_until = page.waits_until.filter(|at| *at > cx.now.mono);
        page.waits_until = waits_until;
        if let Some(at) = waits_until {
            self.wake_by(cx.local, at);
        }
        waits_until.is_none()
    }

    /// Gathers the next page: of guests that came a moment ago and of everything, if that is due, in turns.
    fn begin_page<B: Backend>(&mut self, cx: &mut Context<'_, B>, view: &View) {
        let now = cx.now.mono;
        let mut page = Page::default();
        if self.handover.page.is_of_walk {
            self.begin_guest_page(cx, view, &mut page);
        }
        if page.is_empty() {
            self.begin_walk_page(cx, view, &mut page);
        }
        if page.is_empty() {
            self.begin_guest_page(cx, view, &mut page);
        }
        self.handover.page = page;
        let handover = &self.handover;
        let next_guest = handover.guests.front().map(|(_, at)| at.plus_ms(GUEST_MS));
        let next_walk = handover.next_walk.filter(|_| handover.walk.is_none());
        for at in next_guest.into_iter().chain(next_walk) {
            self.wake_by(cx.local, at.max(now));
        }
    }

    /// Gathers guests that came a moment ago.
    fn begin_guest_page<B: Backend>(&mut self, cx: &Context<'_, B>, view: &View, page: &mut Page) {
        let (now, handover) = (cx.now.mono, &mut self.handover);
        let (mut looked_at, mut bytes) = (0, 0);
        let is_due = |at: Instant| now.since_ms(at) >= GUEST_MS;
        page.is_of_walk = false;
        while looked_at < PAGE_ENTRIES_MAX
            && bytes < PAGE_BYTES_MAX
            && handover.guests.front().is_some_and(|(_, at)| is_due(*at))
        {
            let Some((key, _)) = handover.guests.pop_front() else { break };
            looked_at += 1;
            let Some(value) = cx.replica.store.held_value(key, cx.now) else { continue };
            if !page.add(cx, view, value, &mut BTreeSet::new()) {
                // Until its owners are there, or others.
                handover.guests.push_back((key, now));
            }
            bytes += value.bytes;
        }
    }

    /// Gathers the next page of everything.
    fn begin_walk_page<B: Backend>(
        &mut self,
        cx: &mut Context<'_, B>,
        view: &View,
        page: &mut Page,
    ) {
        let (now, id) = (cx.now.mono, view.placement().id());
        let handover = &mut self.handover;
        let is_due = handover.next_walk.is_some_and(|at| at <= now);
        let start = Walk {
            placement: id,
            shard: 0,
            left: usize::MAX,
            is_complete: true,
            skipped: BTreeSet::new(),
        };
        let walk = match &mut handover.walk {
            Some(walk) => walk,
            walk if is_due => walk.insert(start),
            _ => return,
        };
        if view.placement().is_everyone() {
            let locals = view.members().filter(|m| m.info.region == cx.local.region());
            let gone = locals.filter(|member| !member.takes_writes());
            walk.skipped.extend(gone.map(|member| member.info.incarnation));
        }
        let (mut looked_at, mut bytes, mut values) = (0, 0, Vec::new());
        while walk.shard < SHARDS && looked_at < PAGE_ENTRIES_MAX && bytes < PAGE_BYTES_MAX {
            let most = (PAGE_ENTRIES_MAX - looked_at).min(STEP_ENTRIES_MAX);
            let store = &cx.replica.store;
            store.held_values(walk.shard, &mut walk.left, most, cx.now, &mut values);
            looked_at += most;
            for value in values.drain(..) {
                bytes += value.bytes;
                page.add(cx, view, value, &mut walk.skipped);
            }
            if walk.left == 0 {
                (walk.shard, walk.left) = (walk.shard + 1, usize::MAX);
            }
        }
        page.is_of_walk = true;
        if walk.shard == SHARDS && page.is_empty() {
            return self.walk_complete(cx, view.placement());
        }
        self.wake_by(cx.local, now);
    }

    /// Ends an offer of everything.
    fn walk_complete<B: Backend>(&mut self, cx: &mut Context<'_, B>, placement: &Placement) {
        let handover = &mut self.handover;
        let Some(walk) = handover.walk.take() else { return };
        let now = cx.now.mono;
        if walk.is_complete && walk.placement == placement.id() {
            if handover.placed != walk.placement {
                let event = Event::Placed { placement: walk.placement };
                cx.out.push(Effect::Event(event));
            }
            handover.placed = walk.placement;
            if !placement.is_everyone() || handover.skipped.len() >= MEMBERS_MAX {
                handover.skipped.clear();
            }
            handover.skipped.extend(walk.skipped);
            let again = (!placement.is_everyone()).then(|| now.plus_ms(OFFER_AGAIN_MS));
            handover.next_walk = again;
        } else {
            handover.next_walk = Some(now.plus_ms(STABLE_MS));
        }
    }

    /// Offers what is not confirmed to its owners, or ends the page.
    fn offer_page<B: Backend>(&mut self, cx: &mut Context<'_, B>, view: &View) {
        if self.handover.page.is_empty() {
            return;
        }
        let handover = &mut self.handover;
        let (gone, guests) = handover.page.take_gone(view);
        let is_given_up = handover.page.attempts >= ATTEMPTS_MAX;
        if !handover.page.is_of_walk {
            guests.into_iter().for_each(|key| handover.note_guest(key, cx.now.mono));
        } else if let Some(walk) = &mut handover.walk {
            walk.skipped.extend(gone);
            walk.is_complete &= !is_given_up;
        }
        let page = &mut handover.page;
        if page.unconfirmed.is_empty() || is_given_up {
            return self.end_page(cx);
        }
        page.attempts += 1;
        for (owner, versions) in &page.unconfirmed {
            let offered = versions.iter().map(|(key, version)| (*key, *version)).collect();
            let to = (*owner, RepairCall::Offer);
            let call = Self::ask(cx, view, to, Request::Offer(offered), OFFER_TIMEOUT_MS);
            page.calls.extend(call.map(|call| (call, *owner)));
        }
        if page.calls.is_empty() {
            self.pause_page(cx);
        }
    }

    fn pause_page<B: Backend>(&mut self, cx: &mut Context<'_, B>) {
        let at = cx.now.mono.plus_ms(PAUSE_MS);
        self.handover.page.waits_until = Some(at);
        self.wake_by(cx.local, at);
    }

    /// Drops the guests of a page that all owners have.
    fn end_page<B: Backend>(&mut self, cx: &mut Context<'_, B>) {
        let handover = &mut self.handover;
        let next = Page { is_of_walk: handover.page.is_of_walk, ..Page::default() };
        let page = core::mem::replace(&mut handover.page, next);
        let is_missing = |key: &KeyHash| page.unconfirmed.values().any(|of| of.contains_key(key));
        for (key, version) in page.guests {
            if is_missing(&key) {
                // It stays a guest, and is offered again.
                if !page.is_of_walk && handover.guests.len() < GUESTS_MAX {
                    handover.guests.push_back((key, cx.now.mono));
                }
            } else if !handover.hot.keeps(key) && cx.replica.store.displace(key, version) {
                handover.adoption.dropped(key);
                handover.counts.displaced += 1;
            }
        }
        self.wake_by(cx.local, cx.now.mono);
    }

    /// Handles the response to an offer.
    pub(super) fn offer_completed<B: Backend>(
        &mut self,
        cx: &mut Context<'_, B>,
        call: CallId,
        result: CallResult,
    ) {
        let page = &mut self.handover.page;
        let Some(owner) = page.calls.remove(&call) else { return };
        if let Ok(Response::Versions { versions, .. }) = result {
            page.confirmed(owner, &versions);
        }
        if !page.calls.is_empty() {
            return;
        }
        match page.unconfirmed.is_empty() {
            true => self.end_page(cx),
            false => self.pause_page(cx),
        }
    }
}
