//! The writes that each peer missed, for reports and for the replication lag.

use alloc::{collections::BTreeMap, vec::Vec};

use super::super::{Effect, Event};
use crate::{time::Instant, version::Incarnation};

/// The shortest time between two reports about one peer, in milliseconds.
const REPORT_EVERY_MS: u64 = 5_000;

/// The writes that one peer missed.
#[derive(Clone, Copy, Debug, Default)]
struct MissedWrites {
    /// When the peer missed the first one.
    first: Option<Instant>,
    /// When the peer missed the last one.
    last: Option<Instant>,
    /// Writes abandoned since the last report.
    abandoned: usize,
    /// Writes that the peer refused since the last report.
    refused: usize,
    reported: Option<Instant>,
}

impl MissedWrites {
    fn note(&mut self, now: Instant) {
        self.first.get_or_insert(now);
        self.last = Some(now);
    }

    fn synced(&mut self, at: Instant) {
        if self.last.is_some_and(|last| last < at) {
            (self.first, self.last) = (None, None);
        }
    }

    /// Takes the numbers of writes abandoned and refused, if a report is due.
    fn take_report(&mut self, now: Instant) -> Option<(usize, usize)> {
        let is_recent = self.reported.is_some_and(|at| now.since_ms(at) < REPORT_EVERY_MS);
        if is_recent || self.abandoned + self.refused == 0 {
            return None;
        }
        self.reported = Some(now);
        Some((core::mem::take(&mut self.abandoned), core::mem::take(&mut self.refused)))
    }
}

/// The writes that all peers missed.
#[derive(Debug, Default)]
pub(super) struct Missed {
    peers: BTreeMap<Incarnation, MissedWrites>,
}

impl Missed {
    /// Notes that a peer missed a write.
    pub(super) fn note(&mut self, peer: Incarnation, now: Instant) {
        self.peers.entry(peer).or_default().note(now);
    }

    /// Notes writes for a peer that were abandoned.
    pub(super) fn note_abandoned(&mut self, peer: Incarnation, count: usize, now: Instant) {
        let missed = self.peers.entry(peer).or_default();
        missed.note(now);
        missed.abandoned += count;
    }

    /// Notes a write that a peer refused.
    pub(super) fn note_refused(&mut self, peer: Incarnation, now: Instant) {
        let missed = self.peers.entry(peer).or_default();
        missed.note(now);
        missed.refused += 1;
    }

    /// Notes that a peer has all writes made before `at`.
    pub(super) fn synced(&mut self, peer: Incarnation, at: Instant) {
        if let Some(missed) = self.peers.get_mut(&peer) {
            missed.synced(at);
        }
    }

    /// Forgets a peer.
    pub(super) fn forget(&mut self, peer: Incarnation) {
        self.peers.remove(&peer);
    }

    /// When a peer missed the first write that it still lacks, as far as is known.
    pub(super) fn since(&self, peer: Incarnation) -> Option<Instant> {
        self.peers.get(&peer)?.first
    }

    /// Reports which peers missed writes, each at most once in [`REPORT_EVERY_MS`].
    pub(super) fn report(&mut self, now: Instant, out: &mut Vec<Effect>) {
        for (&peer, missed) in &mut self.peers {
            let Some((abandoned, refused)) = missed.take_report(now) else { continue };
            if abandoned > 0 {
                out.push(Effect::Event(Event::WritesAbandoned { peer, count: abandoned }));
            }
            if refused > 0 {
                out.push(Effect::Event(Event::WritesRefused { peer, count: refused }));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peer_lags_until_it_has_the_last_write_that_it_missed() {
        let at = Instant::from_millis;
        let mut missed = MissedWrites::default();
        missed.note(at(1_000));
        missed.note(at(3_000));
        missed.synced(at(3_000));
        assert_eq!(missed.first, Some(at(1_000)));
        missed.synced(at(3_001));
        assert_eq!(missed.first, None);
        missed.note(at(5_000));
        assert_eq!(missed.first, Some(at(5_000)));
    }
}
