//! Hosts: what a process has beside its rules, be it of a node or of a client.

use std::{collections::BTreeMap, net::SocketAddr};

use zerocache_core::time::Now;

use super::{
    CallToken, Event, World,
    transport::{Call, Link},
};
use crate::{clock::Clock, plan::Plan, random::Random};

/// Every so many processes begins with a monotonic clock that soon passes 2³² milliseconds.
const WRAPPING_PERMILLE: u64 = 60;

/// A machine with at most one process.
#[derive(Debug)]
pub(super) struct Host {
    /// Its address.
    pub(super) address: SocketAddr,
    /// The number of its current process, from 0.
    pub(super) life: u32,
    /// Whether a process runs.
    pub(super) is_up: bool,
    /// Whether the machine itself has failed, so that there is no answer at all.
    pub(super) is_quiet: bool,
    /// The clocks of the process.
    pub(super) clock: Clock,
    /// The lead of the machine's wall clock, in milliseconds.
    pub(super) skew_ms: i64,
    /// The gain of its monotonic clock, in millionths.
    drift_ppm: i64,
    /// The time since which the process is suspended.
    pub(super) frozen_since_us: Option<u64>,
    /// Events that arrived in the meantime.
    pub(super) backlog: Vec<Event>,
    /// Until then requests over HTTP are refused: they may have waited through a pause.
    pub(super) pause_until_us: u64,
    /// Whatever comes is handled up to this much later, in microseconds.
    pub(super) slow_us: u64,
    /// Its connections to others, by host and lane.
    pub(super) links: BTreeMap<(u32, u64), Link>,
    /// Failed tries to connect since the last success.
    pub(super) failures: BTreeMap<u32, u32>,
    /// Its calls.
    pub(super) calls: BTreeMap<CallToken, Call>,
}

/// The hosts of a plan, and in which regions they stand.
pub(super) fn all(plan: &Plan, random: &mut Random) -> (Vec<Host>, Vec<usize>) {
    let mut hosts = Vec::new();
    let mut regions = Vec::new();
    let nodes = plan.nodes.iter().map(|node| (node.region, node.skew_ms, node.drift_ppm, false));
    let clients = plan.clients.iter().map(|client| (client.region, 0, client.drift_ppm, true));
    for (index, (region, skew_ms, drift_ppm, is_up)) in nodes.chain(clients).enumerate() {
        let [high, low] = (index as u16 + 1).to_be_bytes();
        hosts.push(Host {
            address: SocketAddr::from(([10, region as u8, high, low], 6_789)),
            life: 0,
            is_up,
            is_quiet: false,
            clock: Clock::new(0, origin_ms(random), drift_ppm, skew_ms),
            skew_ms,
            drift_ppm,
            frozen_since_us: None,
            backlog: Vec::new(),
            pause_until_us: 0,
            slow_us: 0,
            links: BTreeMap::new(),
            failures: BTreeMap::new(),
            calls: BTreeMap::new(),
        });
        regions.push(region);
    }
    (hosts, regions)
}

/// The number of the host at an address.
pub(super) fn at(address: SocketAddr) -> Option<u32> {
    match address.ip() {
        std::net::IpAddr::V4(ip) => {
            let [_, _, high, low] = ip.octets();
            u32::from(u16::from_be_bytes([high, low])).checked_sub(1)
        }
        std::net::IpAddr::V6(_) => None,
    }
}

fn origin_ms(random: &mut Random) -> u64 {
    if random.chance(WRAPPING_PERMILLE) {
        (1 << 32) - random.between(1_000, 20_000)
    } else {
        random.between(1_000_000, 10_000_000_000)
    }
}

impl Host {
    /// Begins another process: nothing of the one before is left.
    pub(super) fn begin(&mut self, now_us: u64, random: &mut Random) {
        self.life += 1;
        self.is_up = true;
        self.is_quiet = false;
        self.clock = Clock::new(now_us, origin_ms(random), self.drift_ppm, self.skew_ms);
        self.end_process();
    }

    /// Ends the process, with its calls and connections.
    pub(super) fn end_process(&mut self) {
        self.frozen_since_us = None;
        self.backlog.clear();
        self.pause_until_us = 0;
        self.links.clear();
        self.failures.clear();
        self.calls.clear();
    }
}

impl World {
    /// Returns the reading of a host's clocks.
    pub(super) fn now_at(&self, host: u32) -> Now {
        let host = &self.hosts[host as usize];
        let mut now = host.clock.now(self.now_us);
        if self.variant.follows_wall_clock() {
            now.wall_ms = self.true_ms().saturating_add_signed(host.skew_ms);
        }
        now
    }

    /// Returns whether this process of a host still runs.
    pub(super) fn lives(&self, host: u32, life: u32) -> bool {
        let host = &self.hosts[host as usize];
        host.is_up && host.life == life
    }
}
