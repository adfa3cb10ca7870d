//! The faults of a run and their times, drawn from the seed before the run begins.

mod starts;
mod stops;

use crate::{clock::SECOND_US, disks::DiskFault, profile::Profile, random::Random};

/// The senders and receivers that a fault affects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Area {
    /// One side: hosts.
    pub from: Vec<u32>,
    /// The other side.
    pub to: Vec<u32>,
    /// Whether the opposite direction is unaffected.
    pub one_way: bool,
}

/// A fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Messages are lost, and take longer.
    Impairment {
        /// Whose.
        area: Area,
        /// Lost packets of a thousand.
        loss_permille: u64,
        /// Added to each latency, in microseconds.
        delay_us: u64,
        /// Added at random up to this, in microseconds.
        jitter_us: u64,
    },
    /// Nothing passes.
    Partition(Area),
    /// A process ends at once, and starts again at the end of the fault.
    Crash {
        /// The node.
        node: u32,
        /// Whether its machine fails with it, so that connections are not reset.
        quiet: bool,
        /// Whether its next process loads its snapshot.
        memory: bool,
    },
    /// A process is suspended; messages to it wait in its buffers.
    Freeze(u32),
    /// The wall clock of a machine moves; but for one profile, it moves back at the end of the
    /// fault.
    ClockJump {
        /// The node on that machine.
        node: u32,
        /// By how much, in milliseconds.
        ms: i64,
    },
    /// A node takes its time for everything.
    Slow {
        /// The node.
        node: u32,
        /// At most this long, in microseconds.
        us: u64,
    },
    /// A node shuts down, and another process joins in its place at the end of the fault.
    Shutdown(u32),
    /// A node is drained, and undrained at the end of the fault.
    Drain(u32),
    /// A node that was not there joins.
    Join(u32),
    /// The disk of a node fails, while its processes go on. Beside it, with a crash a disk loses what was not synced if
    /// the machine fails, and the end of a write if the process alone does.
    Disk {
        /// The node.
        node: u32,
        /// How.
        fault: DiskFault,
    },
}

impl Fault {
    /// Returns whether a process ends, and its data with it.
    pub(crate) const fn ends_a_process(&self) -> bool {
        matches!(self, Self::Crash { .. } | Self::Shutdown(_))
    }

    /// The kind of the fault, for counting.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Impairment { loss_permille, .. } if *loss_permille > 0 => "loss",
            Self::Impairment { .. } => "delay",
            Self::Partition(area) if area.one_way => "one-way partition",
            Self::Partition(_) => "partition",
            Self::Crash { memory: true, .. } => "crash, snapshot kept",
            Self::Crash { quiet: true, .. } => "host lost",
            Self::Crash { .. } => "crash",
            Self::Freeze(_) => "freeze",
            Self::ClockJump { .. } => "clock jump",
            Self::Slow { .. } => "slow node",
            Self::Shutdown(_) => "shutdown",
            Self::Drain(_) => "drain",
            Self::Join(_) => "join",
            Self::Disk { fault, .. } => fault.kind(),
        }
    }
}

/// A fault and its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedFault {
    /// Its start, in microseconds.
    pub at_us: u64,
    /// Its end.
    pub until_us: u64,
    /// Its kind.
    pub fault: Fault,
}

/// The possible targets of a plan's faults.
#[derive(Clone, Debug)]
pub struct Targets {
    /// The regions of all nodes that there are from the beginning.
    pub nodes: Vec<usize>,
    /// Nodes that join later.
    pub later: Vec<u32>,
    /// The regions of the clients, whose hosts come after all nodes.
    pub clients: Vec<usize>,
    /// The number of regions.
    pub regions: usize,
}

impl Targets {
    fn hosts_of(&self, region: usize) -> Vec<u32> {
        let first_client = (self.nodes.len() + self.later.len()) as u32;
        let at = |hosts: &[usize], first: u32| -> Vec<u32> {
            let there = hosts.iter().enumerate().filter(|(_, other)| **other == region);
            there.map(|(index, _)| first + index as u32).collect()
        };
        let mut all = at(&self.nodes, 0);
        all.extend(at(&self.clients, first_client));
        all
    }

    fn everybody(&self) -> Vec<u32> {
        (0..(self.nodes.len() + self.later.len() + self.clients.len()) as u32).collect()
    }

    /// Draws two sides: two nodes, a node and all others, two regions, a region and all others, or
    /// all hosts.
    fn area(&self, random: &mut Random, one_way: bool, may_be_all: bool) -> Area {
        let nodes = self.nodes.len() as u64;
        let mut hosts = self.everybody();
        let from = match random.below(if may_be_all { 6 } else { 5 }) {
            0 | 1 => vec![random.below(nodes) as u32],
            2 | 3 => self.hosts_of(random.index(self.regions)),
            4 => {
                random.shuffle(&mut hosts);
                let half = random.index(hosts.len() / 2) + 1;
                hosts.iter().copied().take(half).collect()
            }
            _ => return Area { from: hosts.clone(), to: hosts, one_way: false },
        };
        let others = |host: &u32| !from.contains(host);
        let mut to: Vec<u32> = self.everybody().into_iter().filter(others).collect();
        if to.len() > 1 && random.chance(400) {
            to = vec![*random.pick(&to)];
        }
        let (from, to) = if random.chance(500) { (to, from) } else { (from, to) };
        Area { from, to, one_way }
    }
}

/// The time for a process to find the others, and to shut down, in microseconds.
const START_US: u64 = 3 * SECOND_US;
const SHUTDOWN_US: u64 = 3 * SECOND_US;

/// Of a thousand faults of [`Profile::Drains`] so many are drains.
const DRAINS_PERMILLE: u64 = 400;

/// Of a thousand faults of [`Profile::Disk`] so many are of disks, or ends of processes.
const DISK_PERMILLE: u64 = 700;

/// Draws the faults between `from_us` and `until_us`; all have ended then.
pub fn draw(
    random: &mut Random,
    profile: Profile,
    targets: &Targets,
    (from_us, until_us): (u64, u64),
) -> Vec<PlannedFault> {
    if profile == Profile::Starts {
        return starts::draw(random, targets, until_us);
    }
    if profile == Profile::Stops {
        return stops::draw(random, targets, (from_us, until_us));
    }
    let count = profile.faults(random);
    let mut planned: Vec<PlannedFault> = Vec::new();
    for _ in 0..count {
        let at_us = random.between(from_us, until_us);
        let (fault, fault_us_max) = one(random, profile, targets);
        // Short ones are where races are, long ones where bounds are.
        let length_us = match random.below(4) {
            0 => random.between(20_000, SECOND_US),
            1 | 2 => random.between(SECOND_US, 6 * SECOND_US),
            _ => random.between(3 * SECOND_US, fault_us_max),
        };
        let ends_us = (at_us + length_us.min(fault_us_max)).min(until_us - starting_us(&fault));
        if ends_us <= at_us {
            continue;
        }
        if !planned.iter().any(|other| collides(other, &fault, at_us, ends_us)) {
            planned.push(PlannedFault { at_us, until_us: ends_us, fault });
        }
    }
    for node in &targets.later {
        let at_us = random.between(from_us, until_us - START_US);
        planned.push(PlannedFault { at_us, until_us: at_us, fault: Fault::Join(*node) });
    }
    planned.sort_by_key(|fault| (fault.at_us, fault.until_us));
    planned
}

/// Returns how long before the end of all faults a process has to start, so that it runs then.
fn starting_us(fault: &Fault) -> u64 {
    match fault {
        Fault::Crash { .. } => START_US,
        Fault::Shutdown(_) => SHUTDOWN_US + START_US,
        _ => 0,
    }
}

/// Returns whether two faults exclude each other. A process cannot crash while it shuts down, nor
/// may it start while its clock is wrong, since it would trust it.
fn collides(other: &PlannedFault, fault: &Fault, at_us: u64, until_us: u64) -> bool {
    let process = |fault: &Fault| match fault {
        Fault::Crash { node, .. }
        | Fault::Freeze(node)
        | Fault::Shutdown(node)
        | Fault::Drain(node)
        | Fault::ClockJump { node, .. } => Some(*node),
        _ => None,
    };
    // A shutdown takes time, and a starting process is left alone for a moment.
    let margin_us = 4 * SECOND_US;
    let apart = until_us + margin_us < other.at_us || other.until_us + margin_us < at_us;
    !apart && process(fault).is_some() && process(fault) == process(&other.fault)
}

fn one(random: &mut Random, profile: Profile, targets: &Targets) -> (Fault, u64) {
    let node = random.below(targets.nodes.len() as u64) as u32;
    let long_us = profile.fault_us_max();
    if profile == Profile::Drains && random.chance(DRAINS_PERMILLE) {
        return (Fault::Drain(node), long_us);
    }
    if profile == Profile::Disk && random.chance(DISK_PERMILLE) {
        return match random.below(10) {
            0..5 => (Fault::Disk { node, fault: DiskFault::draw(random) }, 15 * SECOND_US),
            5 => (Fault::Shutdown(node), long_us),
            _ => (Fault::Crash { node, quiet: random.chance(400), memory: false }, long_us),
        };
    }
    match random.below(100) {
        0..15 => {
            let area = targets.area(random, false, true);
            let loss_permille = *random.pick(&[10, 50, 50, 150, 300]);
            let (delay_us, jitter_us) = (0, random.below(5_000));
            (Fault::Impairment { area, loss_permille, delay_us, jitter_us }, long_us)
        }
        15..23 => {
            let one_way = random.chance(500);
            let area = targets.area(random, one_way, true);
            let delay_us = random.below(150_000);
            let jitter_us = random.below(200_000);
            (Fault::Impairment { area, loss_permille: 0, delay_us, jitter_us }, long_us)
        }
        23..38 => (Fault::Partition(targets.area(random, false, false)), long_us),
        38..48 => (Fault::Partition(targets.area(random, true, false)), long_us),
        48..63 => {
            let (quiet, memory) = (random.chance(400), random.chance(300));
            (Fault::Crash { node, quiet, memory }, long_us)
        }
        63..83 => {
            let clients = targets.clients.len() as u64;
            let first_client = (targets.nodes.len() + targets.later.len()) as u64;
            let client = (first_client + random.below(clients)) as u32;
            let host = if clients > 0 && random.chance(100) { client } else { node };
            (Fault::Freeze(host), long_us)
        }
        83..88 => {
            let ms = random.between(0, 7_200_000) as i64 - 3_600_000;
            (Fault::ClockJump { node, ms }, SECOND_US)
        }
        88..94 => (Fault::Slow { node, us: random.between(1_000, 300_000) }, long_us),
        _ => (Fault::Shutdown(node), long_us),
    }
}
