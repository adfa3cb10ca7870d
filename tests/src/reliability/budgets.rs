//! Two full nodes of unequal budgets: what is copied between them, and how often reads hit.

use std::time::Duration;

use zerocache_net::clock;

use crate::net::{Net, REGIONS};
use crate::poll::pass;
use crate::probes::value_of;
use crate::random::{Random, Zipf};

/// Callers that read, and write what they miss.
const CALLERS: u64 = 4;

/// The bytes of a value.
const VALUE_BYTES: usize = 1_024;

/// Zipf's exponent of the popularity of keys.
const SKEW: f64 = 0.8;

/// The result of the measurement.
#[derive(Clone, Copy, Debug)]
pub struct Budgets {
    /// The share of reads that found a value.
    pub hit_ratio: f64,
    /// Reads each second.
    pub reads_each_second: f64,
    /// Writes of the callers each second.
    pub writes_each_second: f64,
    /// Records per second that reached the nodes beyond these writes: copies. Negative while writes
    /// are still in flight at the end.
    pub copies_each_second: f64,
    /// Those of them that nodes attribute to repair; none if nodes do not report it.
    pub repaired_each_second: Option<f64>,
}

/// Reads `count` keys through a client of the first region, whose nodes are too small for them, and
/// writes what is missed; for `warm` uncounted, for `time` counted.
///
/// # Panics
///
/// If nodes or client stop working.
pub fn measure(net: &Net, count: usize, warm: Duration, time: Duration) -> Budgets {
    let client = net.cluster.client(REGIONS[0]);
    let zipf = Zipf::new(count, SKEW);
    let began = clock::elapsed();
    let since = || clock::elapsed().saturating_sub(began);
    let total = |name: &str| {
        let stats = net.cluster.nodes.iter().map(|node| node.http("GET", "/v1/stats", b"").json());
        stats.map(|stats| stats[name].as_u64()).sum::<Option<u64>>()
    };
    // Two callers may write one key at the same moment; one of the writes is outdated somewhere.
    let records = || {
        let taken = total("puts").unwrap_or_default() + total("rejected_old").unwrap_or_default();
        (taken as f64, total("repair_values_fetched").map(|records| records as f64))
    };
    let work = |seed: u64| {
        let mut random = Random::new(seed);
        let (mut hits, mut misses) = (0_u64, 0_u64);
        while since() < warm + time {
            let key = format!("key {}", zipf.draw(&mut random));
            let hit = client.get(&key).wait().expect("an answer").is_some();
            if !hit {
                let value = value_of(key.as_bytes(), VALUE_BYTES);
                client.put(&key, value, 3_600).wait().expect("an answer");
            }
            if since() >= warm {
                hits += u64::from(hit);
                misses += u64::from(!hit);
            }
        }
        (hits, misses)
    };
    let (hits, misses, taken, repaired) = std::thread::scope(|threads| {
        let work = &work;
        let callers: Vec<_> = (0..CALLERS).map(|seed| threads.spawn(move || work(seed))).collect();
        pass(warm.saturating_sub(since()));
        let before = records();
        let counts = callers.into_iter().map(|caller| caller.join().expect("a caller ends"));
        let (hits, misses) = counts.fold((0, 0), |sum, each| (sum.0 + each.0, sum.1 + each.1));
        let after = records();
        let repaired = after.1.zip(before.1).map(|(after, before)| after - before);
        (hits, misses, after.0 - before.0, repaired)
    });
    let seconds = time.as_secs_f64();
    let reads = hits + misses;
    let written = misses as f64 * net.len() as f64;
    Budgets {
        hit_ratio: hits as f64 / reads.max(1) as f64,
        reads_each_second: reads as f64 / seconds,
        writes_each_second: misses as f64 / seconds,
        copies_each_second: (taken - written) / seconds,
        repaired_each_second: repaired.map(|records| records / seconds),
    }
}
