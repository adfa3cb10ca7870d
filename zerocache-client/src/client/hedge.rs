//! Hedged reads: when a node takes longer than it does as a rule, a second one is asked, and the first
//! answer wins.

use std::{collections::HashMap, pin::pin, time::Duration};

use parking_lot::Mutex;
use zerocache_core::{route::Walk, version::Incarnation, wire::Request};
use zerocache_net::clock;

use super::{
    config::HedgeShare,
    engine::Engine,
    quantile::Quantile,
    reads::{Reading, Settled},
};

/// So many second requests may go out at once after a while without any; beyond that only as many as
/// their share of the reads permits.
const AT_ONCE_MAX: f64 = 10.0;

/// The least time before a second request: timers count milliseconds.
const DELAY_MIN: Duration = Duration::from_millis(1);

/// Most nodes whose times are known; beyond it all are learned anew.
const NODES_MAX: usize = 256;

/// What a client knows for its hedged reads.
#[derive(Debug)]
pub(super) struct Hedge {
    share: f64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// How many second requests may go out now.
    tokens: f64,
    times: HashMap<Incarnation, Quantile>,
}

impl Hedge {
    pub(super) fn new(HedgeShare(millionths): HedgeShare) -> Self {
        let state = State { tokens: 1.0, times: HashMap::new() };
        Self { share: f64::from(millionths) / 1e6, state: Mutex::new(state) }
    }

    /// A read begins at a node: when it would be late, if that is known.
    fn begin(&self, node: Incarnation) -> Option<Duration> {
        let mut state = self.state.lock();
        state.tokens = (state.tokens + self.share).min(AT_ONCE_MAX);
        let p95 = state.times.get(&node)?.p95()?;
        Some(p95.max(DELAY_MIN))
    }

    /// Whether a second request may go out, which counts as one that does.
    fn take(&self) -> bool {
        let mut state = self.state.lock();
        let may = state.tokens >= 1.0;
        if may {
            state.tokens -= 1.0;
        }
        may
    }

    /// A node took this long, or longer.
    fn note(&self, node: Incarnation, time: Duration) {
        let times = &mut self.state.lock().times;
        if times.len() >= NODES_MAX && !times.contains_key(&node) {
            times.clear();
        }
        times.entry(node).or_default().note(time);
    }
}

/// Who answered first.
enum Winner {
    First,
    Second,
}

impl Engine {
    /// Asks the first node for a key, and the next one too if the first is late and the share permits
    /// it. What that settles; none when the read goes on.
    pub(super) async fn ask_hedged(
        &self,
        hedge: &Hedge,
        walk: &mut Walk,
        reading: &mut Reading,
    ) -> Settled {
        let attempt = walk.next_attempt(clock::mono())?;
        let (step, started) = (attempt.step, clock::elapsed());
        let request = || Request::Get { key: reading.key.clone() };
        let since = |started: Duration| clock::elapsed().saturating_sub(started);
        let mut first = pin!(self.ask(&attempt, request(), true));
        let late = self.timer(hedge.begin(step.node));
        let in_time = tokio::select! {
            biased;
            answer = &mut first => Some(answer),
            () = late => None,
        };
        if let Some(answer) = in_time {
            hedge.note(step.node, since(started));
            return self.judge(walk, &step, answer, reading).0;
        }
        // A share that is used up, or nobody else to be asked.
        let next = if hedge.take() { walk.next_attempt(clock::mono()) } else { None };
        let Some(next) = next else {
            let answer = first.await;
            hedge.note(step.node, since(started));
            return self.judge(walk, &step, answer, reading).0;
        };
        self.counters.hedged();
        let second_started = clock::elapsed();
        let mut second = pin!(self.ask(&next, request(), true));
        let (winner, answer) = tokio::select! {
            biased;
            answer = &mut first => (Winner::First, answer),
            answer = &mut second => (Winner::Second, answer),
        };
        // Of the one that has not answered it is known that it takes longer than this.
        hedge.note(step.node, since(started));
        match winner {
            Winner::First => {
                if let Some(settled) = self.judge(walk, &step, answer, reading).0 {
                    return Some(settled);
                }
                let answer = second.await;
                self.judge(walk, &next.step, answer, reading).0
            }
            Winner::Second => {
                hedge.note(next.step.node, since(second_started));
                if let Some(settled) = self.judge(walk, &next.step, answer, reading).0 {
                    self.counters.hedge_won();
                    return Some(settled);
                }
                let answer = first.await;
                self.judge(walk, &step, answer, reading).0
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_a_part() {
        assert_eq!(HedgeShare::new(0.05), Some(HedgeShare(50_000)));
        assert_eq!(HedgeShare::new(1.0), Some(HedgeShare(1_000_000)));
        for none in [0.0, -0.1, 1.1, f64::NAN, f64::INFINITY] {
            assert_eq!(HedgeShare::new(none), None);
        }
    }

    #[test]
    fn second_requests_are_a_share_of_the_reads_and_a_few() {
        let hedge = Hedge::new(HedgeShare(100_000));
        let node = Incarnation(1);
        let sent = (0..1_000).filter(|_| {
            assert_eq!(hedge.begin(node), None);
            hedge.take()
        });
        assert!((99..=101).contains(&sent.count()));
        (0..10_000).for_each(|_| assert_eq!(hedge.begin(node), None));
        assert_eq!((0..100).filter(|_| hedge.take()).count(), 10);
    }

    #[test]
    fn a_bounded_number_of_nodes_is_known() {
        let hedge = Hedge::new(HedgeShare(100_000));
        for n in 0..10_000 {
            hedge.note(Incarnation(n), Duration::from_millis(1));
        }
        assert!(hedge.state.lock().times.len() <= NODES_MAX);
    }
}
