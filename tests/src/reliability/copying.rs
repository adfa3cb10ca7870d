//! The copy that a starting node makes.

use std::time::Duration;

use crate::net::Net;
use crate::poll::{PATIENCE, time_until};
use crate::probes::{Probes, keys};

/// The bytes of a value.
const VALUE_BYTES: usize = 1_024;

/// The most that is waited: far more than is promised, so that the figure is known.
const BOUND: Duration = Duration::from_secs(90);

/// The result of the measurement.
#[derive(Clone, Copy, Debug)]
pub struct Copying {
    /// From the start of the process until it was ready; none when it was not.
    pub ready: Option<Duration>,
    /// Keys that the node lacked when it reported that it was ready.
    pub lacked: usize,
}

/// Fills all nodes but the last one of `net`, which has not been started, and starts that.
///
/// # Panics
///
/// If the other nodes do not store the entries.
pub fn measure(net: &mut Net, probes: &Probes, count: usize, time: Duration) -> Copying {
    let keys = keys("copied", count);
    let last = net.len() - 1;
    probes.fill(net.address(0), &keys, VALUE_BYTES, time);
    for n in 0..last {
        let filled = time_until(PATIENCE, || net.cluster[n].stat("entries") >= count as u64);
        assert!(filled.is_some(), "node {n} is not filled");
    }
    let began = zerocache_net::clock::elapsed();
    let node = net.setup(last).start();
    net.cluster.nodes.truncate(last);
    net.cluster.nodes.push(node);
    let started = zerocache_net::clock::elapsed().saturating_sub(began);
    let ready = time_until(BOUND, || net.cluster[last].is_ready()).map(|rest| started + rest);
    let lacked = probes.lacks(net.address(last), &keys);
    Copying { ready, lacked }
}
