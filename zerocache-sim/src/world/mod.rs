//! A whole cluster in one thread: hosts, their clocks, the connections between them, and one queue
//! of events in the order of the true time.
//!
//! Invariants: time and randomness come from the seed alone. Events of the same microsecond are
//! handled in the order in which they were scheduled. A suspended process handles no event until it
//! resumes.

mod acks;
mod client_driver;
mod conditions;
mod connection;
mod dial;
mod disk;
mod disk_faults;
mod disk_promises;
mod events;
mod faults;
mod final_checks;
mod healing;
mod hosts;
mod inspection;
mod leases;
mod misses;
mod nodes;
mod placement;
mod progress;
mod replication;
mod shutdown;
mod stranger;
mod tampering;
mod transport;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, VecDeque},
};

use bytes::Bytes;
use zerocache_core::{
    call::CallFailure,
    key::{Key, KeyHash},
    version::Version,
    wire::Response,
};

use self::{
    client_driver::Client,
    connection::Connection,
    dial::{Dial, DialAnswer},
    disk::{DiskWork, HostDisk},
    faults::PersistedProcess,
    healing::Healing,
    hosts::Host,
    nodes::Process,
    progress::Progress,
    replication::ReplicationChecks,
    stranger::Stranger,
};
use crate::{
    checker::Checker, clock::EPOCH_MS, network::Network, plan::Plan, purges::Register,
    random::Random, report::Counts, variants::Variant, workload::WriteId,
};

/// Names a call of a host until its end.
type CallToken = u64;

/// Something that happens at a time.
#[derive(Debug)]
enum Event {
    /// A node's process starts.
    Start(u32),
    /// Bytes reach the receiver of one direction of a connection.
    Arrive { connection: usize, direction: usize },
    /// Data that a partition held back is sent again.
    Resend { connection: usize, direction: usize },
    /// One end learns that the connection is over.
    Closed { connection: usize, end: usize },
    /// A connection is checked for a node that has been silent for too long.
    Silence { connection: usize },
    /// Another try to connect begins.
    Connect(u64),
    /// The request to upgrade reaches the node.
    Upgrade(u64),
    /// The answer to it reaches the caller.
    DialAnswered(u64, Box<DialAnswer>),
    /// No connection came about in time.
    DialTimeout(u64),
    /// The time of a call is up.
    CallTimeout { host: u32, life: u32, token: CallToken },
    /// A call ended at once.
    CallEnded { host: u32, life: u32, token: CallToken, result: Box<Result<Response, CallFailure>> },
    /// A node wants to be ticked.
    Tick { host: u32, life: u32 },
    /// Discovery tells a process of addresses.
    Discover { host: u32, life: u32 },
    /// A client handles its timers.
    ClientTick(u32),
    /// The time that an operation of a client asked for has passed.
    ClientTimer { client: u32, serial: u64 },
    /// A client begins an operation.
    ClientOperation(u32),
    /// A client begins this purge of the plan.
    Purge(usize),
    /// A client has computed a value.
    Computed { client: u32, id: WriteId },
    /// A node that shuts down stops.
    Exit { host: u32, life: u32 },
    /// A fault begins or ends.
    Fault { index: usize, begins: bool },
    /// The stranger acts.
    Stranger,
    /// The checker inspects all stores.
    Inspect,
    /// A datagram arrives.
    Datagram { from: u32, to: u32, bytes: Bytes },
    /// The persisted state of a process has been read.
    Restore { host: u32, life: u32 },
    /// The disk of a process has done something, or is to do it.
    Disk { host: u32, life: u32, work: DiskWork },
}

/// An event in the queue; the order is that of time, then of scheduling.
#[derive(Debug)]
struct Scheduled {
    at_us: u64,
    serial: u64,
    event: Event,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        (self.at_us, self.serial) == (other.at_us, other.serial)
    }
}

impl Eq for Scheduled {}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at_us, self.serial).cmp(&(other.at_us, other.serial))
    }
}

/// A cluster, its clients, and all messages in flight.
pub(crate) struct World {
    plan: Plan,
    variant: Variant,
    now_us: u64,
    serial: u64,
    queue: BinaryHeap<Reverse<Scheduled>>,
    random: Random,
    network: Network,
    hosts: Vec<Host>,
    nodes: Vec<Option<Process>>,
    clients: Vec<Client>,
    connections: Vec<Option<Box<Connection>>>,
    /// Pairs of hosts between which a segment was lost again and again, and when it arrives.
    stalls: VecDeque<((u32, u32), u64)>,
    dials: BTreeMap<u64, Dial>,
    next_dial: u64,
    /// The keys of entries, and after them those of registers.
    keys: Vec<Key>,
    numbers: BTreeMap<KeyHash, usize>,
    /// The persisted state of ended processes, by host.
    persisted: BTreeMap<u32, PersistedProcess>,
    /// The disks, by host.
    disks: BTreeMap<u32, HostDisk>,
    /// The highest version of each key that was saved in [`Profile::Stops`].
    saved: BTreeMap<KeyHash, Version>,
    healing: Option<Healing>,
    replication: ReplicationChecks,
    progress: Progress,
    stranger: Stranger,
    /// The writes and versions of acknowledged purges, by their numbers in the plan.
    purge_versions: BTreeMap<usize, (WriteId, Version)>,
    /// Since when all nodes have been in sync and have reached each other, while nothing goes
    /// wrong.
    stable_since_us: Option<u64>,
    checker: Checker,
    counts: Counts,
    prints: bool,
}

/// Writes a line of the event log, if there is to be one.
macro_rules! trace {
    ($world:expr, $($text:tt)*) => {
        if $world.prints {
            $world.print(&format!($($text)*));
        }
    };
}
use trace;

impl World {
    /// The world of a plan before anything has happened.
    pub(crate) fn new(plan: Plan, variant: Variant, checker: Checker, prints: bool) -> Self {
        let mut random = Random::new(plan.seed ^ 0x5eed);
        let (hosts, regions) = hosts::all(&plan, &mut random);
        let network = Network::new(regions, plan.distance_us.clone(), plan.duplicate_permille);
        let mut keys = crate::workload::keys(plan.workload.keys, !plan.registers.is_empty());
        keys.extend(plan.registers.iter().map(Register::key));
        let mut world = Self {
            variant,
            now_us: 0,
            serial: 0,
            queue: BinaryHeap::new(),
            random,
            network,
            nodes: plan.nodes.iter().map(|_| None).collect(),
            clients: plan
                .clients
                .iter()
                .map(|client| Client::new(client, &plan, variant))
                .collect(),
            hosts,
            connections: Vec::new(),
            stalls: VecDeque::new(),
            dials: BTreeMap::new(),
            next_dial: 0,
            numbers: keys.iter().enumerate().map(|(at, key)| (key.hash(), at)).collect(),
            keys,
            persisted: BTreeMap::new(),
            disks: HostDisk::all(&plan),
            saved: BTreeMap::new(),
            healing: None,
            replication: ReplicationChecks::default(),
            progress: Progress::default(),
            stranger: Stranger::new(plan.seed),
            purge_versions: BTreeMap::new(),
            stable_since_us: None,
            checker,
            counts: Counts::default(),
            prints,
            plan,
        };
        world.prepare();
        world
    }

    fn prepare(&mut self) {
        let plan = &self.plan;
        let mut first: Vec<(u64, Event)> = Vec::new();
        for (host, node) in plan.nodes.iter().enumerate() {
            first.extend(node.starts_us.map(|at_us| (at_us, Event::Start(host as u32))));
        }
        for client in 0..plan.clients.len() as u32 {
            first.push((plan.begin_us / 2, Event::ClientTick(client)));
            first.push((plan.begin_us, Event::ClientOperation(client)));
            let host = plan.nodes.len() as u32 + client;
            first.push((plan.begin_us / 2, Event::Discover { host, life: 0 }));
        }
        for (index, fault) in plan.faults.iter().enumerate() {
            first.push((fault.at_us, Event::Fault { index, begins: true }));
            first.push((fault.until_us, Event::Fault { index, begins: false }));
        }
        let purges = plan.purges.iter().enumerate();
        first.extend(purges.map(|(index, purge)| (purge.at_us, Event::Purge(index))));
        first.extend(self.stranger_begins_us().map(|at_us| (at_us, Event::Stranger)));
        first.push((inspection::INTERVAL_US, Event::Inspect));
        for (at_us, event) in first {
            self.schedule(at_us, event);
        }
    }

    /// Runs all events until the end of the plan, and makes the final checks.
    pub(crate) fn run(mut self) -> (Checker, Counts) {
        while let Some(Reverse(Scheduled { at_us, event, .. })) = self.queue.pop() {
            if at_us >= self.plan.end_us || self.checker.is_over() {
                break;
            }
            self.now_us = at_us;
            self.counts.events += 1;
            self.checker.advance_to(at_us);
            self.check_progress(self.whose(&event));
            self.happen(event);
        }
        if !self.checker.is_over() {
            self.now_us = self.plan.end_us;
            self.inspect_end();
        }
        self.counts.simulated_us = self.now_us;
        (self.checker, self.counts)
    }

    fn schedule(&mut self, at_us: u64, event: Event) {
        self.serial += 1;
        let at_us = at_us.max(self.now_us);
        self.queue.push(Reverse(Scheduled { at_us, serial: self.serial, event }));
    }

    fn schedule_in(&mut self, after_us: u64, event: Event) {
        self.schedule(self.now_us + after_us, event);
    }

    fn happen(&mut self, event: Event) {
        if let Some(host) = self.whose(&event)
            && self.hosts[host as usize].frozen_since_us.is_some()
        {
            self.hosts[host as usize].backlog.push(event);
            return;
        }
        match event {
            Event::Start(node) => self.start(node),
            Event::Arrive { connection, direction } => self.arrived(connection, direction),
            Event::Resend { connection, direction } => self.resend(connection, direction),
            Event::Closed { connection, end } => self.close_end(connection, end),
            Event::Silence { connection } => self.check_silence(connection),
            Event::Upgrade(dial) => self.upgrade(dial),
            Event::DialAnswered(dial, answer) => self.dialled(dial, *answer),
            Event::DialTimeout(dial) => self.dial_timeout(dial),
            Event::Connect(dial) => self.connect(dial),
            Event::CallTimeout { host, life, token } => self.call_timeout(host, life, token),
            Event::CallEnded { host, life, token, result } => {
                if self.hosts[host as usize].life == life {
                    self.end_call(host, token, *result);
                }
            }
            Event::Tick { host, life } => self.tick(host, life),
            Event::Discover { host, life } => self.discover(host, life),
            Event::ClientTick(client) => self.client_tick(client),
            Event::ClientTimer { client, serial } => self.client_timer(client, serial),
            Event::ClientOperation(client) => self.operate(client),
            Event::Purge(index) => self.purge(index),
            Event::Computed { client, id } => self.computed(client, id),
            Event::Exit { host, life } => self.exit(host, life),
            Event::Fault { index, begins: true } => self.begin_fault(index),
            Event::Fault { index, begins: false } => self.end_fault(index),
            Event::Stranger => self.strange(),
            Event::Inspect => self.inspect(),
            Event::Datagram { from, to, bytes } => self.datagram(from, to, bytes),
            Event::Restore { host, life } => self.restore_process(host, life),
            Event::Disk { host, life, work } => self.disk_works(host, life, work),
        }
    }

    /// The host whose process has to run for an event to be handled.
    fn whose(&self, event: &Event) -> Option<u32> {
        let end = |connection: usize, end: usize| {
            self.connections[connection].as_ref().map(|connection| connection.ends[end].host)
        };
        match event {
            Event::Arrive { connection, direction } => end(*connection, 1 - direction),
            Event::Closed { connection, end: at } => end(*connection, *at),
            Event::Silence { connection } => end(*connection, 0),
            Event::Upgrade(dial) => self.dials.get(dial).map(|dial| dial.to),
            Event::DialAnswered(dial, _) | Event::DialTimeout(dial) | Event::Connect(dial) => {
                self.dials.get(dial).map(|dial| dial.from)
            }
            Event::CallTimeout { host, .. }
            | Event::CallEnded { host, .. }
            | Event::Tick { host, .. }
            | Event::Discover { host, .. }
            | Event::Restore { host, .. }
            | Event::Disk { host, .. }
            | Event::Exit { host, .. } => Some(*host),
            Event::Datagram { to, .. } => Some(*to),
            Event::ClientTick(client)
            | Event::ClientOperation(client)
            | Event::ClientTimer { client, .. }
            | Event::Computed { client, .. } => Some(self.host_of(*client)),
            Event::Purge(index) => Some(self.host_of(self.plan.purges[*index].client as u32)),
            Event::Start(_)
            | Event::Resend { .. }
            | Event::Fault { .. }
            | Event::Stranger
            | Event::Inspect => None,
        }
    }

    fn host_of(&self, client: u32) -> u32 {
        self.plan.nodes.len() as u32 + client
    }

    /// The number of a key.
    fn number_of(&self, key: &Key) -> Option<usize> {
        self.numbers.get(&key.hash()).copied()
    }

    fn client_at(&self, host: u32) -> Option<usize> {
        (host as usize).checked_sub(self.plan.nodes.len())
    }

    fn print(&self, text: &str) {
        println!("{:>12.6} {text}", self.now_us as f64 / 1e6);
    }

    /// The true wall clock in milliseconds.
    fn true_ms(&self) -> u64 {
        EPOCH_MS + self.now_us / 1_000
    }
}
