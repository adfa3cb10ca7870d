//! What the freeze of one local node costs the reads of a client.

use std::time::Duration;

use zerocache_client::ZerocacheClient;
use zerocache_net::clock;

use crate::net::{Net, REGIONS};
use crate::poll::{Stop, pass};

/// Callers that read one after the other.
const CALLERS: usize = 4;

/// Keys that are read.
const KEYS: usize = 200;

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Frozen {
    /// Before the freeze.
    pub before: Spread,
    /// Of reads that began after it.
    pub after: Spread,
    /// The reads that were under way at the moment of the freeze.
    pub under_way: Spread,
    /// Reads that ended without a value.
    pub missed: usize,
}

/// Latencies.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spread {
    /// How many.
    pub count: usize,
    /// That of 99 of a hundred.
    pub p99: Duration,
    /// The longest.
    pub most: Duration,
}

impl Spread {
    fn of(mut latencies: Vec<Duration>) -> Self {
        latencies.sort_unstable();
        let count = latencies.len();
        let at = (count * 99).div_ceil(100).saturating_sub(1);
        let p99 = latencies.get(at).copied().unwrap_or_default();
        Self { count, p99, most: latencies.last().copied().unwrap_or_default() }
    }
}

/// One read.
struct Read {
    began: Duration,
    ended: Duration,
    found: bool,
}

/// Reads for `time`, freezes the second node of the first region, and reads for `time` again.
///
/// # Panics
///
/// When the network does not do as it is told.
pub fn measure(net: &mut Net, time: Duration) -> Frozen {
    let keys: Vec<String> = (0..KEYS).map(|n| format!("read {n}")).collect();
    for key in &keys {
        net.cluster[0].put(key.as_bytes(), &[7; 100], "ttl=600");
    }
    for key in &keys {
        net.cluster.everywhere(key.as_bytes(), |answer| answer.status == 200);
    }
    let client = net.cluster.client(REGIONS[0]);
    let stop = Stop::default();
    let (reads, frozen) = std::thread::scope(|threads| {
        let end = stop.at_the_end();
        let (client, keys, stop) = (&client, &keys, &stop);
        let read = |n: usize| threads.spawn(move || reads(client, keys, stop, n));
        let callers: Vec<_> = (0..CALLERS).map(read).collect();
        pass(time);
        let frozen_at = clock::elapsed();
        net.cluster[1].freeze();
        // From here on no thread of it runs.
        let frozen = (frozen_at, clock::elapsed());
        pass(time);
        drop(end);
        let reads = callers.into_iter().flat_map(|caller| caller.join().expect("a reader ends"));
        (reads.collect::<Vec<_>>(), frozen)
    });
    net.cluster[1].thaw();
    let latencies = |chosen: &dyn Fn(&Read) -> bool| {
        let chosen = reads.iter().filter(|read| chosen(read));
        Spread::of(chosen.map(|read| read.ended.saturating_sub(read.began)).collect())
    };
    // The first reads meet connections and caches that are new.
    let warm = reads.iter().map(|read| read.began).min().unwrap_or_default() + time / 4;
    Frozen {
        before: latencies(&|read| read.began >= warm && read.ended < frozen.0),
        after: latencies(&|read| read.began > frozen.1),
        under_way: latencies(&|read| read.began <= frozen.1 && read.ended >= frozen.0),
        missed: reads.iter().filter(|read| !read.found).count(),
    }
}

fn reads(client: &ZerocacheClient, keys: &[String], stop: &Stop, first: usize) -> Vec<Read> {
    let mut reads = Vec::new();
    for key in keys.iter().cycle().skip(first * 17) {
        if stop.is_told() {
            break;
        }
        let began = clock::elapsed();
        let found = client.get(key).wait().is_ok_and(|value| value.is_some());
        reads.push(Read { began, ended: clock::elapsed(), found });
        // A caller that does something between: the machine is not only busy with reads.
        pass(Duration::from_micros(500));
    }
    reads
}
