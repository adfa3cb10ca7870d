//! Conflicting writes and deletes at two nodes at the same moment, while faults are injected.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, future, stream};
use zerocache_core::wire::Status;
use zerocache_net::clock;

use super::time_to_agreement;
use crate::net::Net;
use crate::poll::{StopFlag, pass, until_true};
use crate::probes::{Probes, keys};
use crate::random::Random;

/// Concurrent pairs of writes.
const CONCURRENCY: usize = 16;

/// The time that a write waits for its answer.
const PATIENCE: Duration = Duration::from_millis(500);

/// The most that agreement may take: far more than is promised, so that the figure is known.
const AGREEMENT_MAX: Duration = Duration::from_secs(60);

/// Something that is done to a network of nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// SIGSTOP, and SIGCONT later.
    Freeze,
    /// SIGSTOP for at most a second, which changes no rotation.
    Pause,
    /// SIGKILL, and a new start later.
    Kill,
    /// One node is cut off from all others.
    CutNode,
    /// A region is cut off from the others.
    CutRegion,
    /// Packets from one node to another are lost.
    CutWay,
    /// Three of ten packets are lost everywhere.
    Loss,
}

impl Fault {
    /// All of them but the short pause.
    pub const ALL: [Self; 6] =
        [Self::Freeze, Self::Kill, Self::CutNode, Self::CutRegion, Self::CutWay, Self::Loss];

    /// Does it to a network for `time`, then undoes it.
    fn inject(self, net: &mut Net, time: Duration, random: &mut Random) {
        let n = random.below(net.len());
        match self {
            Self::Freeze => {
                net.cluster[n].freeze();
                pass(time);
                net.cluster[n].resume();
            }
            Self::Pause => {
                net.cluster[n].freeze();
                pass(time.min(Duration::from_secs(1)));
                net.cluster[n].resume();
            }
            Self::Kill => {
                net.cluster[n].kill();
                pass(time);
                net.restart(n);
            }
            Self::CutNode => net.cut_node(n),
            Self::CutRegion => net.cut_region(net.region_of(n)),
            Self::CutWay => net.cut_link(n, (n + 1 + random.below(net.len() - 1)) % net.len()),
            Self::Loss => net.lose_percent(30),
        }
        if !matches!(self, Self::Freeze | Self::Pause | Self::Kill) {
            pass(time);
            net.repair_all_links();
        }
    }
}

/// The parameters of the measurement.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Pairs of writes.
    pub pairs: usize,
    /// Over how long they are spread.
    pub time: Duration,
    /// The faults to inject, one after the other.
    pub faults: Vec<Fault>,
    /// The choices.
    pub seed: u64,
}

/// The result of the measurement.
#[derive(Clone, Debug)]
pub struct Agreement {
    /// Writes that were acknowledged.
    pub acknowledged: usize,
    /// Faults that were injected.
    pub injected: usize,
    /// Keys that were not the same everywhere at the end of the last fault.
    pub differed: usize,
    /// From then on until all nodes agreed; none when they did not.
    pub took: Option<Duration>,
    /// Keys that were not the same everywhere in the end.
    pub disagreements: usize,
    /// Keys with a value in the end.
    pub values: usize,
}

/// Writes or deletes one key at two nodes concurrently, `pairs` times, rotating through a hundred
/// keys; then compares all nodes.
///
/// # Panics
///
/// If nodes do not recover after the faults.
pub fn measure(net: &mut Net, probes: &Probes, plan: &Plan) -> Agreement {
    let keys = keys("contended", 100);
    let (stop, acknowledged) = (StopFlag::default(), AtomicUsize::new(0));
    let addresses = net.addresses();
    let mut injected = 0;
    std::thread::scope(|threads| {
        let end = stop.set_on_drop();
        let writing = threads.spawn(|| {
            let _end = end;
            let mut random = Random::new(plan.seed);
            let each = plan.time / u32::try_from(plan.pairs).unwrap_or(1).max(1);
            let pairs = (0..plan.pairs).map(|n| {
                let first = random.below(addresses.len());
                let second = (first + 1 + random.below(addresses.len() - 1)) % addresses.len();
                // One of three is a delete.
                let value =
                    |salt: usize, die| (die > 0).then(|| Bytes::from(format!("{n} {salt}")));
                let values = [value(0, random.below(3)), value(1, random.below(3))];
                (n, [addresses[first], addresses[second]], values)
            });
            let pairs = stream::iter(pairs.collect::<Vec<_>>());
            let writes = pairs.map(|(n, at, [first, second])| {
                let key = &keys[n % keys.len()];
                let acknowledged = &acknowledged;
                async move {
                    let writes = future::join(
                        probes.write(at[0], key, first, PATIENCE),
                        probes.write(at[1], key, second, PATIENCE),
                    );
                    let (first, second) = writes.await;
                    let taken = [first, second].into_iter().flatten().flatten();
                    let stored = taken.filter(|written| {
                        matches!(written.status, Status::Stored | Status::Superseded)
                    });
                    acknowledged.fetch_add(stored.count(), Ordering::Relaxed);
                    tokio::time::sleep(each * CONCURRENCY as u32).await;
                }
            });
            probes.block_on(writes.buffer_unordered(CONCURRENCY).collect::<Vec<()>>());
        });
        let mut random = Random::new(!plan.seed);
        for fault in plan.faults.iter().cycle().take_while(|_| !stop.is_set()) {
            let time = Duration::from_millis(300 + random.below(3_000) as u64);
            fault.inject(net, time, &mut random);
            injected += 1;
            // The last one ends after the last write.
            if stop.is_set() {
                break;
            }
            pass(Duration::from_millis(random.below(1_000) as u64));
        }
        writing.join().expect("the writer ends");
    });
    let ended = clock::elapsed();
    let differed = probes.disagreements(&addresses, &keys).len();
    let all: Vec<usize> = (0..net.len()).collect();
    let agreed = time_to_agreement(net, &all, probes, &keys, AGREEMENT_MAX);
    let took = agreed.map(|_| clock::elapsed().saturating_sub(ended));
    until_true("nodes that answer", || net.cluster.nodes.iter().all(|node| node.is_ready()));
    let disagreements = probes.disagreements(&addresses, &keys).len();
    let values = keys.len() - probes.lacks(addresses[0], &keys);
    let acknowledged = acknowledged.into_inner();
    Agreement { acknowledged, injected, differed, took, disagreements, values }
}
