//! The values that a node takes over because it owns their keys: those that others offer, and those of which it has
//! learned the version alone.

use alloc::{
    collections::{BTreeMap, VecDeque},
    vec::Vec,
};

use super::{Repair, RepairCall, fetch::KEYS_PER_REQUEST, handover::GUEST_MS};
use crate::{
    call::CallResult,
    cluster::View,
    key::KeyHash,
    node::{CallId, local::Context},
    store::{Backend, KeyVersion, StoredItem},
    time::Instant,
    version::{Incarnation, Version},
    wire::{Request, Response},
};

/// The most values that are still to be fetched, that are remembered as fetched, and that are known to be lacking.
const ADOPTING_MAX: usize = 16_384;
const ADOPTED_MAX: usize = 16_384;
const LACKING_MAX: usize = 65_536;

/// An owner that does not answer is asked again after this time, in milliseconds.
const RETRY_MS: u64 = 1_000;

/// For so long a lacking value is asked for, in milliseconds, if owners do not answer: after that the owners are others,
/// who offer it. And if all of them say that they have none: one may have been on its way to them.
const LACKING_MS: u64 = 60_000;
const NOWHERE_MS: u64 = 4_000;

/// The most fetches in flight.
const FETCHES_MAX: usize = 4;

/// How long a fetch may take, in milliseconds.
const FETCH_TIMEOUT_MS: u64 = 10_000;

/// What this node is to fetch because it owns it.
#[derive(Debug, Default)]
pub(super) struct Adoption {
    due: VecDeque<(Incarnation, KeyVersion)>,
    calls: BTreeMap<CallId, Vec<KeyVersion>>,
    /// What is due or in flight.
    pending: BTreeMap<KeyHash, Version>,
    /// What was fetched, also if it was evicted since.
    done: BTreeMap<KeyHash, Version>,
    /// Own keys of which this node has learned a version without the value.
    lacking: BTreeMap<KeyHash, Lack>,
    /// How many of them are open.
    open: usize,
    /// When to ask for each of them, once, in this order.
    retries: VecDeque<(Instant, KeyHash)>,
}

/// A value that this node owns and lacks.
#[derive(Clone, Debug)]
struct Lack {
    version: Version,
    since: Instant,
    /// The owners that have no value either.
    without: Vec<Incarnation>,
    /// Whether an owner that is there may have it. One that is gone is asked when it is back, and counts for nothing
    /// until then, as any node that is gone.
    is_open: bool,
}

impl Repair {
    /// Notes that this node has learned the version of a key without the value. If it owns the key, it asks the other
    /// owners for it.
    pub(super) fn note_lacking<B: Backend>(
        &mut self,
        cx: &Context<'_, B>,
        view: &View,
        (key, version): KeyVersion,
    ) {
        let adoption = &mut self.handover.adoption;
        let owners = view.placement().owners(key);
        let is_known = adoption.lacking.get(&key).is_some_and(|lack| lack.version >= version);
        if is_known || !owners.contains(&cx.local.id()) || adoption.lacking.len() >= LACKING_MAX {
            return;
        }
        let lack = Lack { version, since: cx.now.mono, without: Vec::new(), is_open: true };
        adoption.open += 1;
        match adoption.lacking.insert(key, lack) {
            Some(before) => adoption.open -= usize::from(before.is_open),
            // The other owners have it in a moment, if they do not have it now.
            None => adoption.retries.push_back((cx.now.mono.plus_ms(GUEST_MS), key)),
        }
    }

    /// Whether this node lacks no value of its own keys that an owner which is there may have, as far as it knows.
    pub(super) fn lacks_nothing(&self) -> bool {
        self.handover.adoption.open == 0
    }

    /// Responds to an offer: with what this node has of it. It fetches what it lacks.
    pub(in crate::node) fn serve_offer<B: Backend>(
        &mut self,
        cx: &mut Context<'_, B>,
        view: &View,
        from: Option<Incarnation>,
        offered: &[KeyVersion],
    ) -> Response {
        let (own, placement) = (cx.local.id(), view.placement());
        let store = &cx.replica.store;
        let adoption = &mut self.handover.adoption;
        let mut versions = Vec::new();
        for (key, version) in offered {
            let known = store.version(*key);
            let is_newer = known.is_some_and(|known| known > *version);
            let is_held = known == Some(*version) && store.has_value(*key);
            if is_newer || is_held || adoption.done.get(key) >= Some(version) {
                versions.push((*key, known.unwrap_or(*version)));
                continue;
            }
            let Some(from) = from else { continue };
            let is_pending = adoption.pending.get(key) >= Some(version);
            let has_room = adoption.pending.len() < ADOPTING_MAX;
            if !is_pending && has_room && placement.keeps(own, *key) {
                adoption.pending.insert(*key, *version);
                adoption.due.push_back((from, (*key, *version)));
            }
        }
        self.wake_by(cx.local, cx.now.mono);
        Response::Versions { versions, covered: offered.len() as u64 }
    }

    /// Asks owners for what is lacking.
    pub(super) fn retry_lacking<B: Backend>(&mut self, cx: &mut Context<'_, B>, view: &View) {
        let (now, own) = (cx.now.mono, cx.local.id());
        let adoption = &mut self.handover.adoption;
        for _ in 0..KEYS_PER_REQUEST {
            let due = adoption.retries.front().copied().filter(|(at, _)| *at <= now);
            let Some((_, key)) = due else { break };
            adoption.retries.pop_front();
            let Some(lack) = adoption.lacking.get_mut(&key) else { continue };
            let store = &cx.replica.store;
            let is_gone = store.version(key) != Some(lack.version) || store.has_value(key);
            let owners = view.placement().owners(key);
            let others = || owners.iter().filter(|owner| **owner != own);
            // Whoever comes back is asked again.
            lack.without.retain(|owner| view.takes_writes(*owner));
            let mut there = others().filter(|owner| view.takes_writes(**owner));
            let next = there.find(|owner| !lack.without.contains(owner));
            let passed_ms = now.since_ms(lack.since);
            let is_open = next.is_some() || passed_ms < NOWHERE_MS;
            adoption.open -= usize::from(lack.is_open && !is_open);
            adoption.open += usize::from(!lack.is_open && is_open);
            lack.is_open = is_open;
            // Owners that are gone may have it.
            let is_over = others().all(|owner| view.takes_writes(*owner)) && !is_open;
            if is_gone || is_over || passed_ms >= LACKING_MS || !owners.contains(&own) {
                adoption.open -= usize::from(is_open);
                adoption.lacking.remove(&key);
                continue;
            }
            if next.is_none() && is_open {
                // It may be on its way to them.
                lack.without.clear();
            }
            let version = (key, lack.version);
            let is_pending = adoption.pending.get(&key) >= Some(&version.1);
            if let Some(owner) = next
                && adoption.pending.len() < ADOPTING_MAX
                && !is_pending
            {
                adoption.pending.insert(key, version.1);
                adoption.due.push_back((*owner, version));
            }
            adoption.retries.push_back((now.plus_ms(RETRY_MS), key));
        }
        if let Some((at, _)) = adoption.retries.front() {
            let at = (*at).max(now);
            self.wake_by(cx.local, at);
        }
    }

    /// Fetches what was offered.
    pub(super) fn fetch_adopted<B: Backend>(&mut self, cx: &mut Context<'_, B>, view: &View) {
        while self.handover.adoption.calls.len() < FETCHES_MAX
            && let Some((from, _)) = self.handover.adoption.due.front()
        {
            let free = self.bandwidth_used_until[0];
            if free > cx.now.mono {
                return self.wake_by(cx.local, free);
            }
            let (from, adoption) = (*from, &mut self.handover.adoption);
            let mut versions = Vec::new();
            while versions.len() < KEYS_PER_REQUEST
                && adoption.due.front().is_some_and(|(of, _)| *of == from)
            {
                versions.extend(adoption.due.pop_front().map(|(_, version)| version));
            }
            let request = Request::Fetch(versions.iter().map(|version| version.0).collect());
            let to = (from, RepairCall::Adopt);
            match Self::ask(cx, view, to, request, FETCH_TIMEOUT_MS) {
                Some(call) => drop(self.handover.adoption.calls.insert(call, versions)),
                None => self.handover.adoption.forget(&versions),
            }
        }
    }

    /// Takes in what was fetched.
    pub(super) fn adopted<B: Backend>(
        &mut self,
        cx: &mut Context<'_, B>,
        call: CallId,
        from: Incarnation,
        result: CallResult,
    ) {
        let Some(versions) = self.handover.adoption.calls.remove(&call) else { return };
        let Ok(Response::Items { items, covered, .. }) = result else {
            // They are offered again.
            return self.handover.adoption.forget(&versions);
        };
        let covered = usize::try_from(covered).unwrap_or(usize::MAX).min(versions.len());
        let mut bytes = 0;
        for item in items {
            bytes += item.payload_bytes() as u64;
            match item.into_stored(cx.now.mono) {
                StoredItem::Value(record) => {
                    self.handover.counts.adopted += 1;
                    self.counts.bytes_fetched += record.payload_bytes() as u64;
                    cx.replica.adopt(cx.now, &record);
                    self.handover.adoption.note_done(record.key.hash(), record.version);
                    self.handover.note_adopted(record.key.hash(), cx.now.mono);
                }
                StoredItem::Tombstone(key, version) => {
                    cx.replica.receive_tombstone(cx.now, key, version);
                    self.handover.adoption.note_without(key, from);
                }
            }
        }
        self.charge_bandwidth(cx.now.mono, false, bytes);
        let adoption = &mut self.handover.adoption;
        adoption.forget(&versions[..covered]);
        match covered {
            0 => adoption.forget(&versions),
            _ => versions[covered..].iter().rev().for_each(|version| {
                adoption.due.push_front((from, *version));
            }),
        }
        self.wake_by(cx.local, cx.now.mono);
    }
}

impl Adoption {
    /// Notes that keys have other owners: what was fetched may have gone on to them since, and others may have what is
    /// lacking.
    pub(super) fn owners_changed(&mut self) {
        self.done.clear();
        self.lacking.values_mut().for_each(|lack| lack.without.clear());
    }

    /// Notes that the value of a key was dropped here.
    pub(super) fn displaced(&mut self, key: KeyHash) {
        self.done.remove(&key);
    }

    /// Forgets what is not fetched any more.
    fn forget(&mut self, versions: &[KeyVersion]) {
        for (key, _) in versions {
            self.pending.remove(key);
        }
    }

    /// Notes that an owner has no value of a key.
    fn note_without(&mut self, key: KeyHash, owner: Incarnation) {
        if let Some(lack) = self.lacking.get_mut(&key).filter(|lack| !lack.without.contains(&owner))
        {
            lack.without.push(owner);
        }
    }

    /// Notes that a value was fetched. If it was lacking, the next look at it finds it here.
    fn note_done(&mut self, key: KeyHash, version: Version) {
        if self.done.len() >= ADOPTED_MAX {
            self.done.clear();
        }
        self.done.insert(key, version);
    }
}
