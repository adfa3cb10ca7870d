//! The values that a node takes over because it owns their keys: those that others offer, and those of which it has
//! learned the version alone.

use alloc::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    vec::Vec,
};
use core::ops::Bound;

use super::{
    Repair, RepairCall,
    fetch::KEYS_PER_REQUEST,
    handover::{GUEST_MS, OFFER_AGAIN_MS},
};
use crate::{
    call::CallResult,
    cluster::View,
    key::KeyHash,
    node::{
        CallId,
        local::{Context, Local},
    },
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

/// If more is lacking than is remembered, it is not known for so long what is lacking, in milliseconds: meanwhile each
/// holder has offered everything again.
const OVERFLOW_MS: u64 = 2 * OFFER_AGAIN_MS;

/// The most fetches in flight.
const FETCHES_MAX: usize = 4;

/// How long a fetch may take, in milliseconds.
const FETCH_TIMEOUT_MS: u64 = 10_000;

/// What this node is to fetch because it owns it.
#[derive(Debug, Default)]
pub(super) struct Adoption {
    due: BTreeMap<Incarnation, VecDeque<KeyVersion>>,
    /// The owner that was asked last: the next one follows.
    asked: Option<Incarnation>,
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
    /// Until when more may be lacking than is remembered.
    overflows_until: Option<Instant>,
}

/// A value that this node owns and lacks.
#[derive(Clone, Debug)]
struct Lack {
    version: Version,
    since: Instant,
    /// The owners that have no value either.
    without: Vec<Incarnation>,
    /// How often owners were asked: each time another one.
    asked: usize,
    /// Whether an owner that is there may have it. One that is gone is asked when it is back, and counts for nothing
    /// until then, as any node that is gone.
    is_open: bool,
}

impl Repair {
    /// Notes that this node has learned the version of a key without the value. If it owns the key, it asks the other
    /// owners for it, and then other regions: they may have it, too, if it was written where they are cut off.
    pub(super) fn note_lacking<B: Backend>(
        &mut self,
        cx: &Context<'_, B>,
        view: &View,
        (key, version): KeyVersion,
    ) {
        let adoption = &mut self.handover.adoption;
        let is_known = adoption.lacking.get(&key).is_some_and(|lack| lack.version >= version);
        if is_known || !view.placement().keeps(cx.local.id(), key) {
            return;
        }
        if adoption.lacking.len() >= LACKING_MAX {
            adoption.overflows_until = Some(cx.now.mono.plus_ms(OVERFLOW_MS));
            return;
        }
        let since = cx.now.mono;
        let lack = Lack { version, since, without: Vec::new(), asked: 0, is_open: true };
        adoption.open += 1;
        match adoption.lacking.insert(key, lack) {
            Some(before) => adoption.open -= usize::from(before.is_open),
            // The other owners have it in a moment, if they do not have it now.
            None => adoption.retries.push_back((cx.now.mono.plus_ms(GUEST_MS), key)),
        }
    }

    /// Whether this node lacks no value of its own keys that an owner which is there may have, as far as it knows.
    pub(super) fn lacks_nothing(&self, now: Instant) -> bool {
        let Adoption { open, overflows_until, .. } = &self.handover.adoption;
        *open == 0 && overflows_until.is_none_or(|until| until <= now)
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
            if known.is_some_and(|known| known > *version) {
                versions.push((*key, known.unwrap_or(*version)));
                continue;
            }
            // What a node has as a guest it gives away itself: it does not count as kept here.
            if !placement.keeps(own, *key) {
                continue;
            }
            let is_held = known == Some(*version) && store.has_value(*key);
            if is_held || adoption.done.get(key) >= Some(version) {
                versions.push((*key, *version));
            } else if let Some(from) = from {
                adoption.want(from, (*key, *version));
            }
        }
        self.wake_by(cx.local, cx.now.mono);
        Response::Versions { versions, covered: offered.len() as u64 }
    }

    /// Asks owners for what is lacking, and then one node of each other region, which gathers it from its owners.
    pub(super) fn retry_lacking<B: Backend>(&mut self, cx: &mut Context<'_, B>, view: &View) {
        let (now, own) = (cx.now.mono, cx.local.id());
        let adoption = &mut self.handover.adoption;
        let mut regions = None;
        for _ in 0..KEYS_PER_REQUEST {
            let due = adoption.retries.front().copied().filter(|(at, _)| *at <= now);
            let Some((_, key)) = due else { break };
            adoption.retries.pop_front();
            let Some(lack) = adoption.lacking.get_mut(&key) else { continue };
            let store = &cx.replica.store;
            // What came and was evicted is not lacking: it would come and go again and again.
            let has_come = adoption.done.get(&key) >= Some(&lack.version) || store.has_value(key);
            let is_gone = store.version(key) != Some(lack.version) || has_come;
            let keeps = view.placement().keeps(own, key);
            let owners = others_who_keep(view, cx.local, key);
            // Whoever comes back is asked again.
            lack.without.retain(|owner| view.takes_writes(*owner));
            let is_there = |owner: &&Incarnation| view.takes_writes(**owner);
            let may_have = |owner: &&Incarnation| is_there(owner) && !lack.without.contains(owner);
            let fit: Vec<_> = owners.iter().filter(may_have).copied().collect();
            let next = lack.asked.checked_rem(fit.len()).map(|at| fit[at]);
            let passed_ms = now.since_ms(lack.since);
            let is_open = next.is_some() || passed_ms < NOWHERE_MS;
            adoption.open -= usize::from(lack.is_open && !is_open);
            adoption.open += usize::from(!lack.is_open && is_open);
            lack.is_open = is_open;
            // Misses say nothing of other regions.
            let elsewhere = regions.get_or_insert_with(|| remote_nodes(view));
            let next = next.or_else(|| lack.next_remote(key, elsewhere));
            // Owners that are gone may have it.
            let are_there = owners.iter().all(|owner| view.takes_writes(*owner));
            let is_over = are_there && next.is_none() && !is_open;
            if is_gone || is_over || passed_ms >= LACKING_MS || !keeps {
                adoption.open -= usize::from(is_open);
                adoption.lacking.remove(&key);
                continue;
            }
            if next.is_none() && is_open {
                // It may be on its way to them.
                lack.without.clear();
            }
            let version = (key, lack.version);
            if let Some(owner) = next {
                lack.asked += 1;
                adoption.want(owner, version);
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
            && let Some(from) = self.handover.adoption.next_asked()
        {
            let is_remote = is_remote(cx.local, view, from);
            let free = self.bandwidth_used_until[usize::from(is_remote)];
            if free > cx.now.mono {
                return self.wake_by(cx.local, free);
            }
            let versions = self.handover.adoption.take_due(from);
            let request = Request::Adopt(versions.iter().map(|version| version.0).collect());
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
        view: &View,
        (call, from): (CallId, Incarnation),
        result: CallResult,
    ) {
        let Some(versions) = self.handover.adoption.calls.remove(&call) else { return };
        let Ok(Response::Items { items, covered, .. }) = result else {
            // They are offered again.
            return self.handover.adoption.forget(&versions);
        };
        let covered = usize::try_from(covered).unwrap_or(usize::MAX).min(versions.len());
        let (mut bytes, mut given, mut absent) = (0, BTreeSet::new(), BTreeSet::new());
        for item in items {
            bytes += item.payload_bytes() as u64;
            match item.into_stored(cx.now.mono) {
                StoredItem::Value(record) => {
                    self.handover.counts.adopted += 1;
                    self.counts.bytes_fetched += record.payload_bytes() as u64;
                    let (key, version) = (record.key.hash(), record.version);
                    given.insert(key);
                    if cx.replica.import(cx.now, StoredItem::Value(record)) {
                        self.handover.adoption.note_done(key, version);
                        self.handover.note_adopted(key, cx.now.mono);
                    }
                }
                StoredItem::Tombstone(key, version) => {
                    let is_newer = cx.replica.store.version(key) < Some(version);
                    cx.replica.receive_tombstone(cx.now, key, version);
                    absent.insert(key);
                    // It may be of a later value, which that node does not own either.
                    if is_newer {
                        self.note_lacking(cx, view, (key, version));
                    }
                }
            }
        }
        let is_remote = is_remote(cx.local, view, from);
        self.charge_bandwidth(cx.now.mono, is_remote, bytes);
        let adoption = &mut self.handover.adoption;
        // Another region that says nothing may have it in a moment.
        let is_without =
            |key: &KeyHash| absent.contains(key) || (!is_remote && !given.contains(key));
        for (key, _) in versions[..covered].iter().filter(|(key, _)| is_without(key)) {
            adoption.note_without(*key, from);
        }
        adoption.forget(&versions[..covered]);
        let left = &versions[covered..];
        if covered == 0 {
            adoption.forget(left);
        } else if !left.is_empty() {
            let due = adoption.due.entry(from).or_default();
            left.iter().rev().for_each(|version| due.push_front(*version));
        }
        self.wake_by(cx.local, cx.now.mono);
    }
}

/// Whether a node is in another region.
fn is_remote(local: &Local, view: &View, id: Incarnation) -> bool {
    view.member(id).is_some_and(|member| member.info.region != local.region())
}

/// The other nodes of the region that keep the value of a key.
fn others_who_keep(view: &View, local: &Local, key: KeyHash) -> Vec<Incarnation> {
    let placement = view.placement();
    let mut keepers: Vec<_> = match placement.is_everyone() {
        true => view.writable_in(local.region()).map(|member| member.info.incarnation).collect(),
        false => placement.owners(key).iter().copied().collect(),
    };
    keepers.retain(|id| *id != local.id());
    keepers
}

/// The nodes of each other region that can be asked.
fn remote_nodes(view: &View) -> Vec<Vec<Incarnation>> {
    let nodes = |region| view.writable_in(region).map(|member| member.info.incarnation);
    view.other_regions().iter().map(|region| nodes(region).collect()).collect()
}

impl Lack {
    /// The node of another region to be asked next: of one of which none has said yet that it has no value.
    fn next_remote(&self, key: KeyHash, regions: &[Vec<Incarnation>]) -> Option<Incarnation> {
        let may_have =
            |nodes: &&Vec<Incarnation>| !self.without.iter().any(|without| nodes.contains(without));
        let fit: Vec<_> = regions.iter().filter(may_have).collect();
        let nodes = fit.get(self.asked.checked_rem(fit.len())?)?;
        nodes.get((key.0 as usize).checked_rem(nodes.len())?).copied()
    }
}

impl Adoption {
    /// Notes that keys have other owners: what was fetched may have been given to them since, and others may have what is
    /// lacking.
    pub(super) fn owners_changed(&mut self) {
        self.done.clear();
        self.lacking.values_mut().for_each(|lack| lack.without.clear());
    }

    /// Notes that the value of a key was dropped here, other than by an eviction.
    pub(super) fn dropped(&mut self, key: KeyHash) {
        self.done.remove(&key);
    }

    /// Has a version of a key fetched, unless that is under way or too much is.
    fn want(&mut self, from: Incarnation, (key, version): KeyVersion) {
        let is_pending = self.pending.get(&key) >= Some(&version);
        if !is_pending && self.pending.len() < ADOPTING_MAX {
            self.pending.insert(key, version);
            self.due.entry(from).or_default().push_back((key, version));
        }
    }

    /// The node that is asked next: they take turns.
    fn next_asked(&self) -> Option<Incarnation> {
        let after = self.asked.map_or(Bound::Unbounded, Bound::Excluded);
        let next = self.due.range((after, Bound::Unbounded)).next();
        let next = next.or_else(|| self.due.first_key_value());
        next.map(|(node, _)| *node)
    }

    /// Takes what is asked of a node in one request.
    fn take_due(&mut self, node: Incarnation) -> Vec<KeyVersion> {
        self.asked = Some(node);
        let Some(mut due) = self.due.remove(&node) else { return Vec::new() };
        let rest = due.split_off(due.len().min(KEYS_PER_REQUEST));
        if !rest.is_empty() {
            self.due.insert(node, rest);
        }
        due.into()
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
