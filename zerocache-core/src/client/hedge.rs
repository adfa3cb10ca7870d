//! Hedged reads: when the first node exceeds its recent p95 latency, a second one is asked, and the first
//! answer that completes the read wins.

use alloc::collections::BTreeMap;
use core::time::Duration;

use super::{ClientState, ClientVariant, KeyRules, quantile::Quantile};
use crate::version::Incarnation;

/// The hedge of one key, in the unit of [`HedgeShare`].
const HEDGE: u64 = 1_000_000;

/// Most hedges of as many keys that may be sent in a row after a while without any; beyond that only as many as their
/// share of the reads permits.
const BURST_MAX: u64 = 10;

/// The least time before a hedge: timers count milliseconds.
const DELAY_MIN: Duration = Duration::from_millis(1);

/// The most keys of reads of one size, which are compared with each other: a node needs longer for more keys.
const SIZES: [usize; 4] = [1, 8, 64, 512];

/// Most latencies that are known, each of a node and a size; beyond it all are learned again.
const LATENCIES_MAX: usize = 1_024;

/// The share of the reads that may be hedged, in millionths: 1 to 1,000,000.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HedgeShare(u32);

impl HedgeShare {
    /// A share above 0 and at most 1; none for any other number.
    #[must_use]
    pub fn new(share: f64) -> Option<Self> {
        let millionths = share * 1e6;
        // The cast rounds: the range is checked, and NaN is outside of it.
        (1.0..=1e6).contains(&millionths).then_some(Self((millionths + 0.5) as u32))
    }
}

/// The tokens and latencies that decide when a read is hedged.
#[derive(Debug)]
pub(super) struct Hedging {
    share: HedgeShare,
    /// What may be spent on hedges of each size now, in millionths of the hedge of one key.
    tokens: [u64; SIZES.len()],
    latencies: BTreeMap<(Incarnation, usize), Quantile>,
}

impl Hedging {
    pub(super) fn new(share: HedgeShare) -> Self {
        Self { share, tokens: SIZES.map(|most| HEDGE * most as u64), latencies: BTreeMap::new() }
    }

    /// A read of so many keys begins at a node. Returns the time after which the node is late, if that is known.
    fn begin(&mut self, node: Incarnation, keys: usize) -> Option<Duration> {
        let size = size(keys);
        let most = BURST_MAX * HEDGE * keys as u64;
        let gained = u64::from(self.share.0) * keys as u64;
        self.tokens[size] = (self.tokens[size] + gained).min(most);
        let p95 = self.latencies.get(&(node, size))?.p95()?;
        Some(p95.max(DELAY_MIN))
    }

    /// Takes the tokens for a hedge of so many keys; false when there are too few.
    fn take_tokens(&mut self, keys: usize) -> bool {
        let tokens = &mut self.tokens[size(keys)];
        let Some(left) = tokens.checked_sub(HEDGE * keys as u64) else { return false };
        *tokens = left;
        true
    }

    /// Records that a node took this long, or longer, for so many keys.
    fn record(&mut self, node: Incarnation, keys: usize, time: Duration) {
        let of = (node, size(keys));
        if self.latencies.len() >= LATENCIES_MAX && !self.latencies.contains_key(&of) {
            self.latencies.clear();
        }
        self.latencies.entry(of).or_default().record(time);
    }
}

impl ClientState {
    /// An operation on so many keys begins at a node. Returns after how many microseconds the node is late, if it may be
    /// hedged then.
    pub(super) fn late_us<K: KeyRules>(&mut self, node: Incarnation, keys: usize) -> Option<u64> {
        let may_hedge = !K::IS_WRITE || self.is_broken(ClientVariant::WritesHedged);
        let late = self.hedging.as_mut().filter(|_| may_hedge)?.begin(node, keys)?;
        Some(u64::try_from(late.as_micros()).unwrap_or(u64::MAX))
    }

    /// Takes what the hedge of so many keys costs; false if the share does not permit it now.
    pub(super) fn may_hedge(&mut self, keys: usize) -> bool {
        self.hedging.as_mut().is_some_and(|hedging| hedging.take_tokens(keys))
    }

    /// Records that a node took this long, or longer, for so many keys.
    pub(super) fn record_latency<K: KeyRules>(
        &mut self,
        node: Incarnation,
        keys: usize,
        time: Duration,
    ) {
        if !K::IS_WRITE
            && let Some(hedging) = &mut self.hedging
        {
            hedging.record(node, keys, time);
        }
    }
}

fn size(keys: usize) -> usize {
    SIZES.iter().position(|most| keys <= *most).unwrap_or(SIZES.len() - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_above_0_and_at_most_1() {
        assert_eq!(HedgeShare::new(0.05), Some(HedgeShare(50_000)));
        assert_eq!(HedgeShare::new(1.0), Some(HedgeShare(1_000_000)));
        for none in [0.0, -0.1, 1.1, f64::NAN, f64::INFINITY] {
            assert_eq!(HedgeShare::new(none), None);
        }
    }

    #[test]
    fn hedges_are_a_share_of_the_reads_and_a_short_burst() {
        let mut hedging = Hedging::new(HedgeShare(100_000));
        let node = Incarnation(1);
        let sent = (0..1_000).filter(|_| {
            assert_eq!(hedging.begin(node, 1), None);
            hedging.take_tokens(1)
        });
        assert!((99..=101).contains(&sent.count()));
        (0..10_000).for_each(|_| assert_eq!(hedging.begin(node, 1), None));
        assert_eq!((0..100).filter(|_| hedging.take_tokens(1)).count(), 10);
    }

    #[test]
    fn hedges_of_many_keys_are_as_many_as_their_share() {
        let mut hedging = Hedging::new(HedgeShare(100_000));
        let node = Incarnation(1);
        let sent = (0..1_000).filter(|_| {
            hedging.begin(node, 100);
            hedging.take_tokens(100)
        });
        // A tenth of them, and what the largest one of that size may use at first.
        assert!((100..=106).contains(&sent.count()));
        assert!(hedging.take_tokens(1), "single reads have tokens of their own");
        // A node is known to be slow for as many keys only.
        (0..200).for_each(|_| hedging.record(node, 100, Duration::from_millis(9)));
        assert!(hedging.begin(node, 400).is_some_and(|late| late >= Duration::from_millis(8)));
        assert_eq!(hedging.begin(node, 10), None);
    }

    #[test]
    fn the_number_of_known_latencies_is_bounded() {
        let mut hedging = Hedging::new(HedgeShare(100_000));
        for n in 0..10_000 {
            hedging.record(Incarnation(n), 1 + n as usize % 512, Duration::from_millis(1));
        }
        assert!(hedging.latencies.len() <= LATENCIES_MAX);
    }
}
