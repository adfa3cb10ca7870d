//! A part of the network is cut off while both sides are written to, and joined again.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use zerocache_net::clock;

use super::time_to_agreement;
use crate::net::Net;
use crate::poll::{PATIENCE, time_until};
use crate::probes::{Probes, keys};

/// The bytes of a value.
const VALUE_BYTES: usize = 1_024;

/// Keys that are there before, and are written and deleted on both sides of the cut.
const SHARED: usize = 300;

/// The most that agreement may take: far more than is promised, so that the figure is known.
const AGREEMENT_MAX: Duration = Duration::from_secs(120);

/// The time limit for nodes to notice that a link is gone, or back.
const NOTICED_MAX: Duration = Duration::from_secs(20);

/// The partitioned part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// A whole region.
    Region(usize),
    /// One node, from all others.
    Node(usize),
}

/// The result of the measurement.
#[derive(Clone, Copy, Debug)]
pub struct Healing {
    /// Keys that each cut-off node lacked.
    pub keys: usize,
    /// From the mending until a node that was cut off agreed with its region; none when it did not,
    /// and for a whole region.
    pub in_region: Option<Duration>,
    /// From the mending until all nodes agreed; none when they did not.
    pub took: Option<Duration>,
    /// From the mending until a node outside reached one inside again.
    pub reached: Option<Duration>,
}

/// Cuts `part` off, writes `count` keys outside and a tenth as many inside over `time`, and others
/// are overwritten and deleted on both sides; joins, and waits for agreement of all nodes. Each
/// `round` has keys of its own.
///
/// # Panics
///
/// If the network cannot be changed.
pub fn measure(
    net: &mut Net,
    probes: &Probes,
    part: Part,
    round: usize,
    count: usize,
    time: Duration,
) -> Healing {
    let inside = match part {
        Part::Region(region) => net.nodes_of(region),
        Part::Node(n) => vec![n],
    };
    let all: Vec<usize> = (0..net.len()).collect();
    let outside: Vec<usize> = all.iter().copied().filter(|n| !inside.contains(n)).collect();
    let (here, there) = (net.address(outside[0]), net.address(inside[0]));
    let shared = keys("shared", SHARED);
    probes.fill(here, &shared, VALUE_BYTES, Duration::from_millis(500));
    let before = time_to_agreement(net, &all, probes, &shared, AGREEMENT_MAX);
    assert!(before.is_some(), "no agreement before the cut");

    match part {
        Part::Region(region) => net.cut_region(region),
        Part::Node(n) => net.cut_node(n),
    }
    // Both sides must know before the writes, or what is counted is the end of queues.
    let apart = time_until(NOTICED_MAX, || !reaches(net, outside[0], inside[0]));
    assert!(apart.is_some(), "the cut is not noticed");
    let (outer, inner) =
        (keys(&format!("outside {round}"), count), keys(&format!("inside {round}"), count / 10));
    std::thread::scope(|threads| {
        threads.spawn(|| probes.fill(here, &outer, VALUE_BYTES, time));
        threads.spawn(|| probes.fill(there, &inner, VALUE_BYTES, time));
        threads.spawn(|| contend(probes, &shared, [here, there], time));
    });
    // Messages to the outside have arrived there.
    let agreed = time_to_agreement(net, &outside, probes, &outer, AGREEMENT_MAX);
    assert!(agreed.is_some(), "no agreement outside of the cut");

    match part {
        Part::Region(_) => net.join_regions(),
        Part::Node(n) => net.repair_link(n),
    }
    let every: Vec<Bytes> = [outer, inner, shared].concat();
    let net = &*net;
    let region = net.nodes_of(net.region_of(inside[0]));
    let mended = clock::elapsed();
    let since = |_: Duration| clock::elapsed().saturating_sub(mended);
    let (in_region, took, reached) = std::thread::scope(|threads| {
        let reached =
            threads.spawn(|| time_until(NOTICED_MAX, || reaches(net, outside[0], inside[0])));
        // A region never disagreed with itself, so comparing its nodes would only cost CPU.
        let in_region = match part {
            Part::Node(_) => time_to_agreement(net, &region, probes, &every, AGREEMENT_MAX),
            Part::Region(_) => None,
        };
        let took = time_to_agreement(net, &all, probes, &every, AGREEMENT_MAX).map(since);
        (in_region, took, reached.join().expect("the watcher ends"))
    });
    Healing { keys: count, in_region, took, reached }
}

/// Returns whether one node has another in its rotation.
fn reaches(net: &Net, from: usize, to: usize) -> bool {
    let out = net.cluster[from].unreachable();
    out.is_some_and(|out| !out.contains(&net.address(to)))
}

/// Overwrites the keys on both sides, and deletes a third of them on either.
fn contend(probes: &Probes, shared: &[Bytes], sides: [SocketAddr; 2], time: Duration) {
    let each = time / u32::try_from(shared.len()).unwrap_or(1).max(1);
    probes.block_on(async {
        for (n, key) in shared.iter().enumerate() {
            for (side, at) in sides.into_iter().enumerate() {
                let value = (n % 3 != side).then(|| Bytes::from(format!("{n} {side}")));
                let written = probes.write(at, key, value, PATIENCE).await;
                assert!(written.is_ok(), "{at} does not write: {written:?}");
            }
            tokio::time::sleep(each).await;
        }
    });
}
