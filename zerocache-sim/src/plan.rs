//! The plan of a seed: the cluster, its network, its workload and its faults.

use zerocache_core::{client::HedgeShare, cluster::Replicas, store::RETENTION_MS, wire::features};

use crate::{
    clock::SECOND_US,
    disks::DiskPlan,
    faults::{Area, Fault, PlannedFault, Targets, draw},
    profile::Profile,
    purges::{self, PlannedPurge, Register},
    random::Random,
};

/// A node of a plan.
#[derive(Clone, Debug)]
pub struct NodePlan {
    /// In which region.
    pub region: usize,
    /// The gain of its monotonic clock, in millionths.
    pub drift_ppm: i64,
    /// The initial lead of its machine's wall clock, in milliseconds.
    pub skew_ms: i64,
    /// Its budget in bytes.
    pub bytes_max: u64,
    /// Its budget in entries.
    pub entries_max: u64,
    /// Bytes that may wait for one peer.
    pub outbox_bytes_max: usize,
    /// The optional abilities of its release.
    pub features: u64,
    /// How many nodes of its region are to keep a value, as it is configured.
    pub replicas: Replicas,
    /// Its zone.
    pub zone: Option<&'static str>,
    /// Its disk.
    pub disk: Option<DiskPlan>,
    /// Its start; none if a fault starts it.
    pub starts_us: Option<u64>,
}

/// A client of a plan.
#[derive(Clone, Debug)]
pub struct ClientPlan {
    /// Its region.
    pub region: usize,
    /// The gain of its monotonic clock, in millionths.
    pub drift_ppm: i64,
    /// The share of its reads that it may hedge; none if it hedges no reads.
    pub hedge: Option<HedgeShare>,
    /// Whether it keeps values near.
    pub near: bool,
}

/// The operations of clients.
#[derive(Clone, Debug)]
pub struct Workload {
    /// The mean time between two operations of one client, in microseconds.
    pub interval_us: u64,
    /// The number of keys.
    pub keys: usize,
    /// Of a thousand operations so many are puts.
    pub put_permille: u64,
    /// And so many deletes; the others are gets.
    pub delete_permille: u64,
    /// Of a thousand puts so many have a lifetime of a few seconds.
    pub short_permille: u64,
    /// The largest value, in bytes, at least 8.
    pub value_bytes_max: u64,
    /// And so many computations under a lease.
    pub compute_permille: u64,
    /// Writes on conditions.
    pub condition_permille: u64,
    /// Of a thousand operations so many are on many keys at once.
    pub many_permille: u64,
    /// Whether one client in all regions computes at a time, or one in each region.
    pub leases_in_all_regions: bool,
}

/// The plan of a seed.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The seed.
    pub seed: u64,
    /// The family.
    pub profile: Profile,
    /// One-way latencies between regions in microseconds, by region and region.
    pub distance_us: Vec<Vec<u64>>,
    /// The nodes; their hosts are numbered from 0.
    pub nodes: Vec<NodePlan>,
    /// The clients; their hosts come after the nodes.
    pub clients: Vec<ClientPlan>,
    /// The operations of the clients.
    pub workload: Workload,
    /// The faults.
    pub faults: Vec<PlannedFault>,
    /// What purges may be of; nothing without purges.
    pub registers: Vec<Register>,
    /// The purges.
    pub purges: Vec<PlannedPurge>,
    /// The number of seed nodes.
    pub seeds: usize,
    /// Connections that a process may have to one node.
    pub lanes: u64,
    /// The retention of tombstones, in milliseconds.
    pub retention_ms: u64,
    /// Datagrams of a thousand that arrive twice.
    pub duplicate_permille: u64,
    /// The start of the workload, in microseconds.
    pub begin_us: u64,
    /// The end of all faults and of the workload.
    pub heal_us: u64,
    /// The end of the run.
    pub end_us: u64,
}

/// The longest latency from region to region, in microseconds: half around the world.
const DISTANCE_US_MAX: u64 = 150_000;

/// The loss of packets, per thousand, that removes no node from a rotation.
const CONNECTION_LOSS_PERMILLE: u64 = 50;

/// Of a thousand clusters so many are of two releases.
const MIXED_PERMILLE: u64 = 100;

/// The effects of a fault end this long after it, plus its duration: connections have sent again by
/// then.
const AFTER_FAULT_US: u64 = 6 * SECOND_US;

/// The length of a run after the last fault: the time in which regions converge, and some in which
/// no record may be copied any more.
pub const AFTER_US: u64 = 18 * SECOND_US;

impl Plan {
    /// Whether every key counts as read much: in half of the clusters. Then clients ask all nodes of their region, and
    /// nodes keep what they pass on.
    pub fn is_hot(&self) -> bool {
        self.seed % 2 == 1
    }

    /// The plan of a seed.
    #[must_use]
    pub fn of(seed: u64, profile: Profile) -> Self {
        let mut random = Random::new(seed ^ (profile as u64) << 56);
        let random = &mut random;
        let sizes = sizes(random, profile);
        let regions = sizes.len();
        let begin_us = 2 * SECOND_US;
        let faulty_us = match profile {
            Profile::Retention => random.between(60, 240) * SECOND_US,
            Profile::Starts => random.between(15, 150) * SECOND_US,
            Profile::Stops => random.between(30, 80) * SECOND_US,
            Profile::Placement => random.between(15, 120) * SECOND_US,
            Profile::Disk => *random.pick(&[10, 20, 40, 90, 180]) * SECOND_US,
            Profile::Crowd | Profile::Membership => random.between(6, 12) * SECOND_US,
            _ => random.between(8, 30) * SECOND_US,
        };
        let heal_us = begin_us + SECOND_US + faulty_us;
        let later = match profile {
            Profile::Calm | Profile::Stops => 0,
            // One node alone has nothing but its disk.
            Profile::Disk if sizes == [1] => 0,
            _ => random.below(3) as usize,
        };
        // Nodes without repair neither fetch nor give what others alone saved.
        let may_be_mixed = !matches!(profile, Profile::Calm | Profile::Stops | Profile::Disk);
        let mixed = may_be_mixed && random.chance(MIXED_PERMILLE);
        let mut nodes = Vec::new();
        for (region, size) in sizes.iter().enumerate() {
            nodes.extend((0..*size).map(|_| node(random, profile, region, mixed)));
        }
        let here = nodes.iter().map(|node: &NodePlan| node.region).collect::<Vec<_>>();
        for _ in 0..later {
            let region = random.index(regions);
            let mut node = node(random, profile, region, mixed);
            node.starts_us = None;
            nodes.push(node);
        }
        match profile {
            Profile::Placement => place(random, &mut nodes),
            Profile::Disk => equip(random, &mut nodes, sizes == [1]),
            _ => {}
        }
        let clients = clients(random, profile, regions);
        let targets = Targets {
            later: (here.len()..nodes.len()).map(|at| at as u32).collect(),
            nodes: here,
            clients: clients.iter().map(|client| client.region).collect(),
            regions,
        };
        let mut faults = draw(random, profile, &targets, (begin_us + SECOND_US, heal_us));
        if profile == Profile::Connections {
            faults.push(loss_for_all(nodes.len() + clients.len(), (begin_us, heal_us)));
        }
        Self {
            seed,
            profile,
            distance_us: distances(random, regions),
            clients,
            workload: workload(random, profile),
            faults,
            registers: Vec::new(),
            purges: Vec::new(),
            seeds: random.between(1, 3) as usize,
            lanes: random.between(1, 2),
            retention_ms: retention_ms(random, profile),
            duplicate_permille: *random.pick(&[0, 0, 20, 200]),
            begin_us,
            heal_us,
            end_us: heal_us + after_us(profile),
            nodes,
        }
    }
}

impl Plan {
    /// Lets clients issue purges.
    pub(crate) fn add_purges(&mut self) {
        let random = &mut Random::new(self.seed ^ (self.profile as u64) << 56 ^ 0x7075_7267_6573);
        self.registers = Register::draw_all(random);
        let of = (self.clients.len(), &self.registers[..]);
        let within_us = (self.begin_us, self.heal_us);
        self.purges = purges::draw(random, self.profile, of, &self.faults, within_us);
    }

    /// Returns whether nodes encrypt their datagrams.
    pub(crate) fn seals_datagrams(&self) -> bool {
        self.profile == Profile::Strangers && self.seed.is_multiple_of(2)
    }

    /// Returns whether there is no fault in this interval, nor shortly before it.
    pub(crate) fn is_quiet(&self, from_us: u64, until_us: u64) -> bool {
        let apart = |fault: &PlannedFault| {
            let after_us = AFTER_FAULT_US + (fault.until_us - fault.at_us);
            fault.at_us > until_us || fault.until_us + after_us < from_us
        };
        self.faults.iter().all(apart)
    }

    /// Returns whether a fault disturbs one of two hosts or the path between them, or did shortly
    /// before. A freeze of the host `spared` does not count.
    pub(crate) fn is_disturbed(
        &self,
        pair: (u32, u32),
        within_us: (u64, u64),
        spared: Option<u32>,
    ) -> bool {
        crate::checker::is_disturbed(self, pair, within_us, spared)
    }

    /// Prints the plan, one line for each thing.
    pub(crate) fn print(&self) {
        for (host, node) in self.nodes.iter().enumerate() {
            println!("{host}: {node:?}");
        }
        for (index, client) in self.clients.iter().enumerate() {
            println!("client {index}, {}: {client:?}", self.nodes.len() + index);
        }
        for fault in &self.faults {
            println!("{fault:?}");
        }
        purges::print(&self.purges, &self.registers);
        let Self { distance_us, workload, seeds, lanes, retention_ms, .. } = self;
        println!("{distance_us:?} {workload:?}");
        println!("{seeds} seeds, {lanes} lanes, retention {retention_ms} ms");
        println!("faults end at {} us, the run at {} us", self.heal_us, self.end_us);
    }
}

/// Loss of as many packets as connections must bear, everywhere.
fn loss_for_all(hosts: usize, (at_us, until_us): (u64, u64)) -> PlannedFault {
    let all: Vec<u32> = (0..hosts as u32).collect();
    let area = Area { from: all.clone(), to: all, one_way: false };
    let loss_permille = CONNECTION_LOSS_PERMILLE;
    let fault = Fault::Impairment { area, loss_permille, delay_us: 0, jitter_us: 0 };
    PlannedFault { at_us, until_us, fault }
}

/// Returns the length of a run after its faults, in microseconds. Other nodes own the keys of a lost one 30 s later.
const fn after_us(profile: Profile) -> u64 {
    match profile {
        Profile::Placement => AFTER_US + 55 * SECOND_US,
        // Little memory holds few values that slow disks give for others.
        Profile::Disk => AFTER_US + 20 * SECOND_US,
        _ => AFTER_US,
    }
}

/// Draws the initial number of nodes of each region.
fn sizes(random: &mut Random, profile: Profile) -> Vec<u64> {
    let (regions, most) = match profile {
        Profile::Wide => (8, random.between(1, 16)),
        Profile::Crowd => (random.between(2, 8), 40),
        Profile::Membership => return vec![125; 8],
        Profile::Placement => (random.between(1, 2), 6),
        Profile::Disk if random.chance(300) => return vec![1],
        Profile::Disk => (random.between(1, 2), 3),
        _ => (random.between(1, 3).max(random.between(1, 3)), 3),
    };
    let least = match profile {
        Profile::Crowd => 20,
        Profile::Placement => 3,
        _ => 1,
    };
    (0..regions).map(|_| random.between(least, most)).collect()
}

/// Draws how many nodes keep a value. In some plans nodes disagree, as while they are reconfigured one by one.
fn place(random: &mut Random, nodes: &mut [NodePlan]) {
    let replicas = Replicas::from_number(random.between(1, 3));
    let has_zones = random.chance(300);
    let disagree = random.chance(150);
    for node in nodes {
        node.replicas = replicas;
        if disagree && random.chance(300) {
            node.replicas = *random.pick(&[Replicas::All, Replicas::from_number(2)]);
        }
        if has_zones {
            node.zone = *random.pick(&[Some("x"), Some("y"), Some("z"), None]);
        }
    }
}

fn retention_ms(random: &mut Random, profile: Profile) -> u64 {
    match profile {
        Profile::Retention => random.between(60_000, 120_000),
        Profile::Starts => *random.pick(&[40_000, 80_000, RETENTION_MS]),
        Profile::Disk => *random.pick(&[30_000, 60_000, 100_000, RETENTION_MS]),
        _ => RETENTION_MS,
    }
}

/// Gives nodes disks: all but a few, and one that is alone in any case.
fn equip(random: &mut Random, nodes: &mut [NodePlan], is_alone: bool) {
    let without_permille = if is_alone { 0 } else { 150 };
    for node in nodes {
        node.disk = (!random.chance(without_permille)).then(|| DiskPlan::draw(random));
    }
}

fn node(random: &mut Random, profile: Profile, region: usize, mixed: bool) -> NodePlan {
    let old = mixed && random.chance(400);
    let bytes_max = match profile {
        Profile::Evict => random.between(600 << 10, 1_500 << 10),
        Profile::Disk => random.between(600 << 10, 900 << 10),
        _ => 8 << 20,
    };
    let entries_max = match profile {
        Profile::Small | Profile::Evict if random.chance(300) => random.between(4, 30),
        _ => u64::MAX,
    };
    let skew_ms = match profile {
        Profile::Calm => random.between(0, 200) as i64 - 100,
        Profile::Clocks | Profile::Starts => {
            let ranges: &[u64] = match profile {
                Profile::Clocks => &[1_000, 20_000, 55_000, 90_000, 3_600_000],
                _ => &[800, 800, 800, 800, 90_000, 3_600_000],
            };
            let range = *random.pick(ranges);
            random.between(0, 2 * range) as i64 - range as i64
        }
        _ => random.between(0, 1_600) as i64 - 800,
    };
    let starts_within_us = *random.pick(&[1, 300_000, 1_500_000]);
    NodePlan {
        region,
        drift_ppm: random.between(0, 400) as i64 - 200,
        skew_ms,
        bytes_max,
        entries_max,
        outbox_bytes_max: match *random.pick(&[4 << 10, 32 << 10, 1 << 20]) {
            // Repair brings later what a full queue drops.
            _ if profile == Profile::Calm => 1 << 20,
            planned => planned,
        },
        features: match profile {
            _ if old => 0,
            Profile::Connections => features::ALL & !features::DATAGRAMS,
            _ => features::ALL,
        },
        replicas: Replicas::All,
        zone: None,
        disk: None,
        starts_us: Some(random.below(starts_within_us)),
    }
}

fn clients(random: &mut Random, profile: Profile, regions: usize) -> Vec<ClientPlan> {
    let count = match profile {
        Profile::Membership => 0,
        Profile::Wide | Profile::Crowd => random.between(4, 8),
        _ => random.between(2, 4),
    };
    let one = |random: &mut Random| ClientPlan {
        region: random.index(regions),
        drift_ppm: random.between(0, 400) as i64 - 200,
        hedge: match profile {
            Profile::Clients => HedgeShare::new(*random.pick(&[0.05, 0.5, 1.0])),
            _ => None,
        },
        near: profile == Profile::Near,
    };
    (0..count).map(|_| one(random)).collect()
}

fn distances(random: &mut Random, regions: usize) -> Vec<Vec<u64>> {
    let mut all = vec![vec![0; regions]; regions];
    let pairs = (0..regions).flat_map(|a| (0..=a).map(move |b| (a, b)));
    for (a, b) in pairs {
        let far = random.between(2_000, DISTANCE_US_MAX);
        let us = if a == b { random.between(50, 400) } else { far };
        (all[a][b], all[b][a]) = (us, us);
    }
    all
}

fn workload(random: &mut Random, profile: Profile) -> Workload {
    let busy = *random.pick(&[20_000, 60_000, 150_000]);
    let leases = profile == Profile::Leases;
    let conditions = profile == Profile::Conditions;
    Workload {
        interval_us: match profile {
            Profile::Retention => 10 * busy,
            Profile::Starts | Profile::Placement => 4 * busy,
            Profile::Disk => busy / 2 + 10_000,
            Profile::Crowd => 5 * busy,
            _ => busy,
        },
        keys: match profile {
            Profile::Evict => random.between(150, 400) as usize,
            Profile::Disk => random.between(200, 400) as usize,
            Profile::Retention | Profile::Starts => random.between(30, 200) as usize,
            Profile::Placement => random.between(10, 120) as usize,
            Profile::Leases | Profile::Conditions => *random.pick(&[1, 2, 4, 8]),
            _ => *random.pick(&[1, 4, 16, 48]),
        },
        put_permille: if leases || conditions {
            random.between(20, 300)
        } else {
            random.between(150, 600)
        },
        delete_permille: *random.pick(&[0, 50, 150, 300]),
        short_permille: match profile {
            Profile::Starts | Profile::Placement | Profile::Disk => *random.pick(&[0, 200]),
            _ => *random.pick(&[0, 200, 500, 900]),
        },
        value_bytes_max: match profile {
            Profile::Evict => 8_000,
            Profile::Disk => 12_000,
            _ => *random.pick(&[16, 200, 2_000]),
        },
        compute_permille: if leases { 400 } else { 0 },
        condition_permille: if conditions { 400 } else { 0 },
        many_permille: match profile {
            Profile::Clients => random.between(100, 500),
            Profile::Near => random.between(0, 300),
            _ => 0,
        },
        leases_in_all_regions: leases && random.chance(500),
    }
}
