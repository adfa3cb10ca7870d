//! Addresses at which nodes may stand, and when each is to be dialled.

use alloc::{collections::BTreeMap, vec::Vec};
use core::net::SocketAddr;

use crate::time::Instant;

/// Most addresses waiting for a handshake.
pub const CANDIDATES_MAX: usize = 4096;

/// Most handshakes under way at once: each takes a connection.
pub const DIALLING_MAX: usize = 64;

/// How long after a failure somebody who speaks from an address has it dialled again, in
/// milliseconds: soon at first, for a node that has just started, and later not so soon, for one that
/// can be heard but not reached.
const GREETED_MS: u64 = 250;
const GREETED_OFTEN_MS: u64 = 1_000;
const GREETED_SOON_MAX: u32 = 4;

/// Longest wait between two tries of an address that does not answer, in milliseconds: nodes that start
/// while they are cut off from each other are to meet soon after.
const BACKOFF_MS_MAX: u64 = 1_000;

/// The same after [`OFTEN_MAX`] failures, two minutes: most likely nobody is there.
const BACKOFF_MS_LATER: u64 = 5_000;
const OFTEN_MAX: u32 = 120;

/// How long an address that belongs to this process, or to another cluster, is left alone.
const REST_MS: u64 = 30_000;

/// An address that failed so often in a row is not counted upon.
const FAILING_MIN: u32 = 2;

/// An address that failed so often is dropped; whoever proposed it can do so again.
const FAILURES_MAX: u32 = 240;

/// An address at which a node may stand.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    next_dial: Instant,
    dialling: bool,
    failures: u32,
    last_failure: Instant,
    /// No try has ended yet.
    fresh: bool,
}

/// Addresses to be tried. Bounded: beyond [`CANDIDATES_MAX`] new ones are not taken.
#[derive(Debug, Default)]
pub struct Candidates {
    waiting: BTreeMap<SocketAddr, Candidate>,
    resting: BTreeMap<SocketAddr, Instant>,
}

impl Candidates {
    /// Notes that a node may stand at `address`; one that is known or rests is left alone.
    pub fn propose(&mut self, address: SocketAddr, now: Instant) {
        let resting = self.resting.get(&address).is_some_and(|until| *until > now);
        let full = self.waiting.len() >= CANDIDATES_MAX;
        if !resting && !full && !self.waiting.contains_key(&address) {
            let candidate = Candidate {
                next_dial: now,
                dialling: false,
                failures: 0,
                last_failure: now,
                fresh: true,
            };
            self.waiting.insert(address, candidate);
        }
    }

    /// Dials `address` soon, even if it rests: somebody just spoke from there.
    pub fn propose_again(&mut self, address: SocketAddr, now: Instant) {
        self.resting.remove(&address);
        self.propose(address, now);
        if let Some(candidate) = self.waiting.get_mut(&address).filter(|c| c.failures > 0) {
            let soon = candidate.failures < GREETED_SOON_MAX;
            let wait_ms = if soon { GREETED_MS } else { GREETED_OFTEN_MS };
            let at = candidate.last_failure.plus_ms(wait_ms);
            candidate.next_dial = candidate.next_dial.min(at);
        }
    }

    /// The addresses to dial at `now`; they count as being dialled from here on, at most
    /// [`DIALLING_MAX`] at once.
    pub fn take_due(&mut self, now: Instant) -> Vec<SocketAddr> {
        let most = DIALLING_MAX.saturating_sub(self.dialling());
        let due = |c: &Candidate| !c.dialling && c.next_dial <= now;
        let waiting = self.waiting.iter().filter(|(_, candidate)| due(candidate));
        let mut taken: Vec<_> = waiting.map(|(address, c)| (c.next_dial, *address)).collect();
        // Whoever waits longest is first: many dead addresses do not keep a live one waiting.
        taken.sort_unstable();
        taken.truncate(most);
        for (_, address) in &taken {
            if let Some(candidate) = self.waiting.get_mut(address) {
                candidate.dialling = true;
            }
        }
        taken.into_iter().map(|(_, address)| address).collect()
    }

    fn dialling(&self) -> usize {
        self.waiting.values().filter(|candidate| candidate.dialling).count()
    }

    /// When the next address is to be dialled; none while as many are as may be.
    #[must_use]
    pub fn next_dial(&self) -> Option<Instant> {
        if self.dialling() >= DIALLING_MAX {
            return None;
        }
        self.waiting.values().filter(|c| !c.dialling).map(|c| c.next_dial).min()
    }

    /// Whether an address is known of which no try has ended yet.
    #[must_use]
    pub fn has_fresh(&self) -> bool {
        self.waiting.values().any(|candidate| candidate.fresh)
    }

    /// A try of `address` failed: later again, less and less often, and in the end not at all.
    pub fn failed(&mut self, address: SocketAddr, now: Instant) {
        let Some(candidate) = self.waiting.get_mut(&address) else { return };
        candidate.failures += 1;
        candidate.last_failure = now;
        candidate.fresh = false;
        candidate.dialling = false;
        let often = candidate.failures < OFTEN_MAX;
        let most_ms = if often { BACKOFF_MS_MAX } else { BACKOFF_MS_LATER };
        let backoff_ms = (250u64 << candidate.failures.min(8)).min(most_ms);
        candidate.next_dial = now.plus_ms(backoff_ms);
        if candidate.failures >= FAILURES_MAX {
            self.waiting.remove(&address);
        }
    }

    /// Whether tries of `address` have failed, and none has succeeded.
    #[must_use]
    pub fn is_failing(&self, address: SocketAddr) -> bool {
        self.waiting.get(&address).is_some_and(|candidate| candidate.failures >= FAILING_MIN)
    }

    /// A node answered at `address`.
    pub fn answered(&mut self, address: SocketAddr) {
        self.waiting.remove(&address);
    }

    /// Leaves `address` alone for a while: this process itself, or another cluster, stands there.
    pub fn rest(&mut self, address: SocketAddr, now: Instant) {
        self.waiting.remove(&address);
        self.resting.retain(|_, until| *until > now);
        if self.resting.len() < CANDIDATES_MAX {
            self.resting.insert(address, now.plus_ms(REST_MS));
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::format;

    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_millis(ms)
    }

    fn address(n: u32) -> SocketAddr {
        format!("127.0.{}.{}:1", n / 250, n % 250 + 1).parse().unwrap()
    }

    #[test]
    fn handshakes_under_way_are_bounded() {
        let mut candidates = Candidates::default();
        for n in 0..1_000 {
            candidates.propose(address(n), at(0));
        }
        assert_eq!(candidates.take_due(at(0)).len(), DIALLING_MAX);
        assert_eq!((candidates.take_due(at(1)).len(), candidates.next_dial()), (0, None));
        candidates.answered(address(0));
        assert_eq!(candidates.take_due(at(2)).len(), 1);
    }

    #[test]
    fn dead_addresses_do_not_starve_a_live_one() {
        let mut candidates = Candidates::default();
        for n in 0..500 {
            candidates.propose(address(n), at(0));
        }
        // Every dead address takes a second to fail; the last one in order is the live one.
        for second in 0..10 {
            let taken = candidates.take_due(at(second * 1_000));
            if taken.contains(&address(499)) {
                return;
            }
            for dead in taken {
                candidates.failed(dead, at(second * 1_000 + 999));
            }
        }
        panic!("not dialled within ten seconds");
    }

    #[test]
    fn greetings_do_not_defeat_the_backoff() {
        let mut candidates = Candidates::default();
        candidates.propose(address(1), at(0));
        let mut dials = 0;
        for ms in 0..60_000 {
            candidates.propose_again(address(1), at(ms));
            for address in candidates.take_due(at(ms)) {
                dials += 1;
                candidates.failed(address, at(ms));
            }
        }
        assert!((50..70).contains(&dials), "{dials} dials in a minute");
    }
}
