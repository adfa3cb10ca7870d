//! The cost that one frozen local node adds to a client's reads.

use std::time::Duration;

use zerocache_client::ZerocacheClient;
use zerocache_net::clock;

use crate::net::{Net, REGIONS};
use crate::poll::{StopFlag, pass};

/// Callers that read one after the other.
pub const CALLERS: usize = 4;

/// Keys that are read.
const KEYS: usize = 200;

/// A read that takes longer has waited for the frozen node: the client gives each node 500 ms.
pub const MET: Duration = Duration::from_millis(400);

/// After this time from the freeze no read may meet the frozen node.
const NOTICED_MAX: Duration = Duration::from_millis(500);

/// The result of the measurement.
#[derive(Clone, Debug, Default)]
pub struct Frozen {
    /// Before the freeze.
    pub before: Spread,
    /// Latencies of reads that began after the freeze and were not sent to the frozen node before
    /// it was noticed.
    pub after: Spread,
    /// The reads that met the frozen node: begun before the client could know, and slower than
    /// [`MET`].
    pub met: Spread,
    /// From the freeze until the last of these began.
    pub noticed: Duration,
    /// Reads that ended without a value.
    pub missed: usize,
}

/// Latencies.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spread {
    /// The number of reads.
    pub count: usize,
    /// The 99th percentile.
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

impl Read {
    fn took(&self) -> Duration {
        self.ended.saturating_sub(self.began)
    }
}

/// Reads for `time`, freezes the second node of the first region, and reads for `time` again.
///
/// # Panics
///
/// If the network cannot be changed.
pub fn measure(net: &mut Net, time: Duration) -> Frozen {
    let keys: Vec<String> = (0..KEYS).map(|n| format!("read {n}")).collect();
    for key in &keys {
        net.cluster[0].put(key.as_bytes(), &[7; 100], "ttl=600");
    }
    for key in &keys {
        net.cluster.everywhere(key.as_bytes(), |answer| answer.status == 200);
    }
    let client = net.cluster.client(REGIONS[0]);
    let stop = StopFlag::default();
    let (reads, frozen) = std::thread::scope(|threads| {
        let end = stop.set_on_drop();
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
    net.cluster[1].resume();
    let latencies = |chosen: &dyn Fn(&Read) -> bool| {
        Spread::of(reads.iter().filter(|read| chosen(read)).map(Read::took).collect())
    };
    // The first reads meet connections and caches that are new.
    let warm = reads.iter().map(|read| read.began).min().unwrap_or_default() + time / 4;
    let knowing = frozen.1 + NOTICED_MAX;
    let met = |read: &Read| read.took() > MET && read.ended > frozen.0 && read.began < knowing;
    let last = reads.iter().filter(|read| met(read)).map(|read| read.began).max();
    Frozen {
        before: latencies(&|read| read.began >= warm && read.ended < frozen.0),
        after: latencies(&|read| read.began > frozen.0 && !met(read)),
        met: latencies(&met),
        noticed: last.unwrap_or_default().saturating_sub(frozen.0),
        missed: reads.iter().filter(|read| !read.found).count(),
    }
}

fn reads(client: &ZerocacheClient, keys: &[String], stop: &StopFlag, first: usize) -> Vec<Read> {
    let mut reads = Vec::new();
    for key in keys.iter().cycle().skip(first * 17) {
        if stop.is_set() {
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
