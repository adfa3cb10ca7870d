//! Hedged reads: when the first node exceeds its recent p95 latency, a second one is asked, and the first
//! answer that completes the read wins.

use alloc::collections::BTreeMap;
use core::time::Duration;

use super::quantile::Quantile;
use crate::version::Incarnation;

/// One hedge, in the unit of [`HedgeShare`].
const HEDGE: u64 = 1_000_000;

/// Most hedges that may be sent in a row after a while without any; beyond that only as many as their share
/// of the reads permits.
const BURST_MAX: u64 = 10 * HEDGE;

/// The least time before a hedge: timers count milliseconds.
const DELAY_MIN: Duration = Duration::from_millis(1);

/// Most nodes whose latencies are known; beyond it all are learned again.
const NODES_MAX: usize = 256;

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
    /// What may be spent on hedges now, in millionths of one.
    tokens: u64,
    latencies: BTreeMap<Incarnation, Quantile>,
}

impl Hedging {
    pub(super) fn new(share: HedgeShare) -> Self {
        Self { share, tokens: HEDGE, latencies: BTreeMap::new() }
    }

    /// A read begins at a node. Returns the time after which the node is late, if that is known.
    pub(super) fn begin(&mut self, node: Incarnation) -> Option<Duration> {
        self.tokens = (self.tokens + u64::from(self.share.0)).min(BURST_MAX);
        let p95 = self.latencies.get(&node)?.p95()?;
        Some(p95.max(DELAY_MIN))
    }

    /// Takes a token for a hedge; false when none is left.
    pub(super) fn take_token(&mut self) -> bool {
        let Some(left) = self.tokens.checked_sub(HEDGE) else { return false };
        self.tokens = left;
        true
    }

    /// Records that a node took this long, or longer.
    pub(super) fn record(&mut self, node: Incarnation, time: Duration) {
        if self.latencies.len() >= NODES_MAX && !self.latencies.contains_key(&node) {
            self.latencies.clear();
        }
        self.latencies.entry(node).or_default().record(time);
    }
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
            assert_eq!(hedging.begin(node), None);
            hedging.take_token()
        });
        assert!((99..=101).contains(&sent.count()));
        (0..10_000).for_each(|_| assert_eq!(hedging.begin(node), None));
        assert_eq!((0..100).filter(|_| hedging.take_token()).count(), 10);
    }

    #[test]
    fn the_number_of_known_nodes_is_bounded() {
        let mut hedging = Hedging::new(HedgeShare(100_000));
        for n in 0..10_000 {
            hedging.record(Incarnation(n), Duration::from_millis(1));
        }
        assert!(hedging.latencies.len() <= NODES_MAX);
    }
}
