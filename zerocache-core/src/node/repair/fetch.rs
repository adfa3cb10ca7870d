//! Fetching the items that a round found to be newer at its partner.

use alloc::vec::Vec;

use super::{Repair, RepairCall, compare::Round};
use crate::{
    call::CallResult,
    cluster::{Replicas, View},
    node::{CallId, local::Context},
    store::{Backend, KeyVersion, Store, StoredItem},
    version::Incarnation,
    wire::{FetchedItem, Receipt, Request, Response},
};

/// How long a fetch may take, in milliseconds.
const FETCH_TIMEOUT_MS: u64 = 10_000;

/// The most keys of one fetch, or of one request for their versions.
pub(super) const KEYS_PER_REQUEST: usize = 1_024;

/// The most fetches of a round in flight.
const FETCHES_MAX: usize = 4;

/// How far ahead bandwidth may be used up before fetching pauses, in milliseconds.
const BANDWIDTH_AHEAD_MS_MAX: u64 = 50;

impl Repair {
    /// Has a round fetch a version that its partner knows, if it is newer than the one known here.
    pub(super) fn want<B: Backend>(
        &mut self,
        store: &Store<B>,
        round: &mut Round,
        (key, version): KeyVersion,
    ) {
        if store.version(key).is_some_and(|known| known >= version) {
            return;
        }
        match self.fetching.get(&key) {
            Some(fetching) if *fetching >= version => round.is_complete = false,
            _ => {
                self.fetching.insert(key, version);
                round.wanted.push_back((key, version));
            }
        }
    }

    pub(super) fn fetch<B: Backend>(
        &mut self,
        cx: &mut Context<'_, B>,
        view: &View,
        round: &mut Round,
    ) {
        while round.fetches.len() < FETCHES_MAX && !round.wanted.is_empty() {
            let free = self.bandwidth_used_until[usize::from(round.is_remote)];
            if free.since_ms(cx.now.mono) > BANDWIDTH_AHEAD_MS_MAX {
                return self.wake_by(cx.local, free.minus_ms(BANDWIDTH_AHEAD_MS_MAX));
            }
            let most = round.wanted.len().min(KEYS_PER_REQUEST);
            let versions: Vec<_> = round.wanted.drain(..most).collect();
            let request = Request::Fetch(versions.iter().map(|version| version.0).collect());
            let kind = RepairCall::Fetch;
            match Self::ask(cx, view, (round.partner.id, kind), request, FETCH_TIMEOUT_MS) {
                Some(call) => drop(round.fetches.insert(call, versions)),
                None => return round.wanted.extend(versions),
            }
        }
    }

    /// Handles the response to a fetch of a round.
    pub(super) fn fetch_completed<B: Backend>(
        &mut self,
        cx: &mut Context<'_, B>,
        view: &View,
        call: CallId,
        id: Incarnation,
        result: CallResult,
    ) {
        let fetch = self.take_if(id, |round| round.fetches.remove(&call));
        let Some((mut round, versions)) = fetch else { return };
        let Ok(Response::Items { items, covered, .. }) = result else {
            round.fetches.insert(call, versions);
            return self.abort(cx.local, view, cx.now, round);
        };
        let covered = usize::try_from(covered).unwrap_or(usize::MAX).min(versions.len());
        let (bytes, are_all_taken) = self.take_items(cx, view, (id, items));
        round.is_complete &= are_all_taken;
        self.charge_bandwidth(cx.now.mono, round.is_remote, bytes);
        self.fetch_ended(versions[..covered].iter().map(|version| version.0));
        if covered == 0 {
            round.wanted.extend(versions);
            return self.abort(cx.local, view, cx.now, round);
        }
        for version in versions[covered..].iter().rev() {
            round.wanted.push_front(*version);
        }
        self.rounds.insert(id, round);
    }

    /// Merges fetched items. Returns their bytes, and whether none was refused. The value of a key that others own is
    /// a guest; that of an own key, of which the partner knows the version alone, others may have, if nodes here or
    /// there keep some values only.
    fn take_items<B: Backend>(
        &mut self,
        cx: &mut Context<'_, B>,
        view: &View,
        (from, items): (Incarnation, Vec<FetchedItem>),
    ) -> (u64, bool) {
        let (mut bytes, mut are_all_taken) = (0, true);
        let keeps_some = !view.placement().is_everyone()
            || view.member(from).is_some_and(|node| node.info.replicas != Replicas::All);
        for item in items {
            bytes += item.payload_bytes() as u64;
            match item.into_stored(cx.now.mono) {
                StoredItem::Value(record) => {
                    self.counts.values_fetched += 1;
                    self.counts.bytes_fetched += record.payload_bytes() as u64;
                    are_all_taken &= cx.replica.receive(cx.now, &record) != Receipt::Refused;
                    if !view.keeps(cx.local.id(), &record.key) {
                        self.note_guest(record.key.hash(), cx.now.mono);
                    }
                }
                StoredItem::Tombstone(key, version) => {
                    self.counts.tombstones_fetched += 1;
                    are_all_taken &= cx.replica.receive_tombstone(cx.now, key, version);
                    if keeps_some {
                        self.note_lacking(cx, view, (key, version));
                    }
                }
            }
        }
        (bytes, are_all_taken)
    }
}
