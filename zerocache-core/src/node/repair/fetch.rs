//! The values that a round found to be newer at its partner, on their way here.

use alloc::vec::Vec;

use super::{Asked, Effect, Node, round::Round};
use crate::{
    call::CallResult,
    node::{Call, CallId},
    store::{ApplyOutcome, Backend, KeyVersion, StoredItem},
    time::Now,
    version::Incarnation,
    wire::{FetchedItem, Receipt, Request, Response},
};

/// How long values may take, in milliseconds.
const FETCH_TIMEOUT_MS: u64 = 10_000;

/// Most keys of one fetch, or of one question for their versions.
pub(super) const KEYS_ASKED_MAX: usize = 1_024;

/// Most fetches of a round under way.
const FETCHES_MAX: usize = 4;

/// How far ahead bandwidth may be used up before nothing more is fetched, in milliseconds.
const AHEAD_MS_MAX: u64 = 50;

impl<B: Backend> Node<B> {
    /// The partner knows this version; fetches it, if it is newer than what is known here.
    pub(super) fn want(&mut self, round: &mut Round, (key, version): KeyVersion) {
        if self.store.version(key).is_some_and(|known| known >= version) {
            return;
        }
        match self.repair.fetching.get(&key) {
            Some(fetching) if *fetching >= version => round.is_whole = false,
            _ => {
                self.repair.fetching.insert(key, version);
                round.wanted.push_back((key, version));
            }
        }
    }

    pub(super) fn fetch(&mut self, now: Now, round: &mut Round, out: &mut Vec<Effect>) {
        while round.fetches.len() < FETCHES_MAX && !round.wanted.is_empty() {
            let free = self.repair.busy_until[usize::from(round.far)];
            if free.since_ms(now.mono) > AHEAD_MS_MAX {
                return self.repair_by(free.minus_ms(AHEAD_MS_MAX));
            }
            let most = round.wanted.len().min(KEYS_ASKED_MAX);
            let rows: Vec<_> = round.wanted.drain(..most).collect();
            let request = Request::Fetch(rows.iter().map(|row| row.0).collect());
            let purpose = Call::Repair { member: round.partner.id, asked: Asked::Fetch };
            match self.ask(round.partner.id, purpose, request, FETCH_TIMEOUT_MS, out) {
                Some(call) => drop(round.fetches.insert(call, rows)),
                None => return round.wanted.extend(rows),
            }
        }
    }

    /// Values that a round fetched.
    pub(super) fn fetch_answered(
        &mut self,
        now: Now,
        call: CallId,
        id: Incarnation,
        result: CallResult,
    ) {
        let Some((mut round, rows)) = self.repair.take_if(id, |round| round.fetches.remove(&call))
        else {
            return;
        };
        let Ok(Response::Items { items, covered, .. }) = result else {
            round.fetches.insert(call, rows);
            return self.cut(now, round);
        };
        let covered = usize::try_from(covered).unwrap_or(usize::MAX).min(rows.len());
        let far = round.far;
        let (bytes, all_taken) = self.take_items(now, items);
        round.is_whole &= all_taken;
        self.repair.spend(now.mono, far, bytes);
        self.no_longer_fetching(rows[..covered].iter().map(|row| row.0));
        if covered == 0 {
            round.wanted.extend(rows);
            return self.cut(now, round);
        }
        for row in rows[covered..].iter().rev() {
            round.wanted.push_front(*row);
        }
        self.repair.rounds.insert(id, round);
    }

    /// Merges what was fetched; returns how many bytes it carried, and whether nothing was refused.
    fn take_items(&mut self, now: Now, items: Vec<FetchedItem>) -> (u64, bool) {
        let (mut bytes, mut all_taken) = (0, true);
        for item in items {
            bytes += item.payload_bytes() as u64;
            match item.into_stored(now.mono) {
                StoredItem::Value(record) => {
                    self.repair.counts.values_fetched += 1;
                    self.repair.counts.bytes_fetched += record.payload_bytes() as u64;
                    all_taken &= self.take(now, &record) != Receipt::Refused;
                }
                StoredItem::Tombstone(key, version) => {
                    self.repair.counts.tombstones_fetched += 1;
                    let observed = self.clock.observe(version, now.wall_ms);
                    let judged = observed.map(|()| self.apply_tombstone(now, key, version));
                    all_taken &= !matches!(judged, Err(_) | Ok(ApplyOutcome::TooOld));
                }
            }
        }
        (bytes, all_taken)
    }
}
