//! Compares ways to share who exists: our own gossip on heartbeats, and foca (SWIM), by simulation.
//!
//! One thread, virtual time, a fixed seed: `cargo run --release -p zerocache-core --example membership`
//! prints the table of `docs/decisions/0012-membership.md`. Regions have 16 nodes; a packet takes 5 ms.
//! All nodes start within 100 ms and know one seed.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    num::{NonZeroU32, NonZeroUsize},
    time::Duration,
};

use bytes::Bytes;
use foca::{Config, Foca, OwnedNotification, PeriodicParams, PostcardCodec, Timer};
use rand::{SeedableRng, rngs::SmallRng};
use serde::{Deserialize, Serialize};
use zerocache_core::{
    cluster::{ContactState, Gossip, choose_contacts},
    time::Instant,
    version::Incarnation,
    wire::{CONTENT_BYTES_MAX, NodeInfo, NodeState},
};

/// How long a packet takes, in microseconds.
const DELAY_US: u64 = 5_000;

/// From hearing of a node to talking to it: to connect, and for the handshake; in microseconds.
const MEET_US: u64 = 3 * 2 * DELAY_US;

/// All start within this time, in microseconds.
const START_US: u64 = 100_000;

const BEAT_US: u64 = 100_000;
const PER_REGION: usize = 16;

/// What a datagram of ours takes beyond its content: head and MAC. Our gossip travels on beats that are
/// sent anyway; packets of foca need datagrams of their own.
const DATAGRAM_BYTES: u64 = 50;

/// Nothing is waited for longer than this, in microseconds.
const END_US: u64 = 180_000_000;

/// How long nothing happens while the idle traffic is measured, and before that, in microseconds.
const IDLE_US: u64 = 60_000_000;

fn main() {
    println!(
        "| way | nodes | all know all | received for it, mean, most | idle | one joins | one leaves | one dies |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for nodes in [10, 100, 1_000] {
        report("own gossip", nodes, &mut Own::default());
        report("foca, LAN", nodes, &mut Swim::new(lan(nodes)));
        let mut eager = lan(nodes);
        eager.periodic_announce = Some(PeriodicParams {
            frequency: Duration::from_secs(1),
            num_members: NonZeroUsize::MIN,
        });
        report("foca, eager", nodes, &mut Swim::new(eager));
    }
}

fn lan(nodes: usize) -> Config {
    let nodes = u32::try_from(nodes).ok().and_then(NonZeroU32::new);
    Config { max_packet_size: size(CONTENT_BYTES_MAX), ..Config::new_lan(nodes.expect("some")) }
}

fn size(bytes: usize) -> NonZeroUsize {
    NonZeroUsize::new(bytes).expect("more than nothing")
}

/// A way to share who exists.
trait Way {
    fn start(&mut self, n: usize, at: u64);
    fn leave(&mut self, n: usize);
    /// Whether a dead node is forgotten by this way, and not only by those who talk to it.
    fn kill(&mut self, n: usize) -> bool;
    /// Does what is due next; the time of it.
    fn step(&mut self) -> u64;
    /// How many others a node knows.
    fn known(&self, n: usize) -> usize;
    /// Bytes that each node received.
    fn received(&self) -> &[u64];
}

/// Runs until `done`, looked at every 10 ms; the time that passed in milliseconds.
fn until(way: &mut dyn Way, now: &mut u64, done: impl Fn(&dyn Way) -> bool) -> Option<u64> {
    let (start, mut look) = (*now, *now);
    while *now < start + END_US {
        *now = way.step();
        if *now >= look {
            look = *now + 10_000;
            if done(way) {
                return Some((*now - start) / 1_000);
            }
        }
    }
    None
}

fn pass(way: &mut dyn Way, now: &mut u64, us: u64) {
    let end = *now + us;
    while *now < end {
        *now = way.step();
    }
}

fn report(name: &str, nodes: usize, way: &mut dyn Way) {
    let mut now = 0;
    for n in 0..nodes {
        way.start(n, n as u64 * START_US / nodes as u64);
    }
    // The nodes up to `count` know as many others; the last ones may have gone.
    let know = |count: usize, others: usize| {
        move |way: &dyn Way| (0..count).all(|n| way.known(n) == others)
    };
    let all = until(way, &mut now, know(nodes, nodes - 1));
    let (mean, most) = traffic(way, nodes, &vec![0; nodes]);
    pass(way, &mut now, IDLE_US);
    let before = way.received().to_vec();
    pass(way, &mut now, IDLE_US);
    let (idle, _) = traffic(way, nodes, &before);
    way.start(nodes, now);
    let joins = until(way, &mut now, know(nodes + 1, nodes));
    pass(way, &mut now, IDLE_US / 6);
    way.leave(nodes);
    let leaves = until(way, &mut now, know(nodes, nodes - 1));
    pass(way, &mut now, IDLE_US / 6);
    let dies = if way.kill(nodes - 1) {
        shown(until(way, &mut now, know(nodes - 1, nodes - 2)))
    } else {
        "each observer's own".into()
    };
    let (all, joins, leaves) = (shown(all), shown(joins), shown(leaves));
    let idle = idle * 1_000_000 / IDLE_US;
    let (mean, most) = (mean as f64 / 1024.0, most as f64 / 1024.0);
    println!(
        "| {name} | {nodes} | {all} | {mean:.0} KiB, {most:.0} KiB | {idle} B/s | {joins} | {leaves} | {dies} |"
    );
}

fn shown(ms: Option<u64>) -> String {
    let longer = || format!("not in {} s", END_US / 1_000_000);
    ms.map_or_else(longer, |ms| format!("{:.1} s", ms as f64 / 1_000.0))
}

/// What the first nodes received beyond `before`: in the mean, and at most.
fn traffic(way: &dyn Way, nodes: usize, before: &[u64]) -> (u64, u64) {
    let received = way.received().iter().zip(before).map(|(now, before)| now - before);
    let all: Vec<_> = received.take(nodes).collect();
    (all.iter().sum::<u64>() / nodes as u64, all.into_iter().max().unwrap_or(0))
}

/// Events by time.
struct Agenda<E> {
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    events: BTreeMap<u64, E>,
    serial: u64,
}

impl<E> Default for Agenda<E> {
    fn default() -> Self {
        Self { queue: BinaryHeap::new(), events: BTreeMap::new(), serial: 0 }
    }
}

impl<E> Agenda<E> {
    fn add(&mut self, at: u64, event: E) {
        self.serial += 1;
        self.queue.push(Reverse((at, self.serial)));
        self.events.insert(self.serial, event);
    }

    fn next(&mut self) -> (u64, E) {
        let Reverse((at, serial)) = self.queue.pop().expect("nodes always have something to do");
        (at, self.events.remove(&serial).expect("an event"))
    }
}

fn info(n: usize) -> NodeInfo {
    NodeInfo {
        incarnation: incarnation(n),
        region: format!("region-{}", n / PER_REGION),
        zone: None,
        addresses: vec![format!("10.0.{}.{}:6789", n >> 8, n & 255).parse().expect("an address")],
        state: NodeState::InSync,
        bytes_max: 1 << 30,
        name: None,
        replicas: zerocache_core::cluster::Replicas::All,
    }
}

fn incarnation(n: usize) -> Incarnation {
    Incarnation((n as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

// ---- our own gossip

enum OwnEvent {
    Beat(usize),
    Meet(usize, usize),
    Beaten { from: usize, to: usize, content: Bytes },
    Echoed { from: usize, to: usize, content: Bytes },
}

struct OwnNode {
    gossip: Gossip,
    alive: bool,
    /// Those to which it talks, and those with which it is about to.
    watched: Vec<Incarnation>,
    meeting: Vec<Incarnation>,
    chosen_for: Option<u64>,
}

#[derive(Default)]
struct Own {
    now: u64,
    agenda: Agenda<OwnEvent>,
    nodes: Vec<OwnNode>,
    numbers: BTreeMap<Incarnation, usize>,
    received: Vec<u64>,
}

impl Own {
    fn instant(&self) -> Instant {
        Instant::from_millis(self.now / 1_000)
    }

    fn beat(&mut self, n: usize) {
        if !self.nodes[n].alive {
            return;
        }
        self.agenda.add(self.now + BEAT_US, OwnEvent::Beat(n));
        let now = self.instant();
        self.nodes[n].gossip.tick(now);
        self.choose_contacts(n);
        let watched = self.nodes[n].watched.clone();
        for partner in self.nodes[n].gossip.partners(&watched) {
            let content = self.nodes[n].gossip.speak(partner, now, CONTENT_BYTES_MAX);
            let to = self.numbers[&partner];
            self.agenda.add(self.now + DELAY_US, OwnEvent::Beaten { from: n, to, content });
        }
    }

    /// Chooses contacts again when the nodes that are known have changed.
    fn choose_contacts(&mut self, n: usize) {
        let node = &mut self.nodes[n];
        if node.chosen_for == Some(node.gossip.digest()) {
            return;
        }
        node.chosen_for = Some(node.gossip.digest());
        let chosen = choose_contacts(&info(n), node.gossip.others(), |_| ContactState::Usable);
        node.watched.retain(|id| chosen.contains(id));
        for id in chosen {
            if !node.watched.contains(&id) && !node.meeting.contains(&id) {
                node.meeting.push(id);
                self.agenda.add(self.now + MEET_US, OwnEvent::Meet(n, self.numbers[&id]));
            }
        }
    }

    fn meet(&mut self, n: usize, other: usize) {
        let now = self.instant();
        let both = self.nodes[n].alive && self.nodes[other].alive;
        for (one, two) in [(n, other), (other, n)].into_iter().filter(|_| both) {
            let node = &mut self.nodes[one];
            node.meeting.retain(|id| *id != incarnation(two));
            node.gossip.met(&info(two), now);
            if !node.watched.contains(&incarnation(two)) {
                node.watched.push(incarnation(two));
                node.chosen_for = None;
            }
        }
    }
}

impl Way for Own {
    fn start(&mut self, n: usize, at: u64) {
        self.numbers.insert(incarnation(n), n);
        self.received.push(0);
        let gossip = Gossip::new(info(n), Instant::from_millis(at / 1_000));
        let (watched, meeting) = (Vec::new(), Vec::new());
        self.nodes.push(OwnNode { gossip, alive: true, watched, meeting, chosen_for: None });
        self.agenda.add(at, OwnEvent::Beat(n));
        if n > 0 {
            self.agenda.add(at + MEET_US, OwnEvent::Meet(n, 0));
        }
    }

    fn leave(&mut self, n: usize) {
        self.nodes[n].alive = false;
        let now = self.instant();
        // Whoever talks to it sees that it left, and its port closed.
        let id = incarnation(n);
        for node in self.nodes.iter_mut().filter(|node| node.watched.contains(&id)) {
            node.gossip.mark_gone(id, now);
        }
    }

    fn kill(&mut self, n: usize) -> bool {
        self.nodes[n].alive = false;
        false
    }

    fn step(&mut self) -> u64 {
        let (at, event) = self.agenda.next();
        self.now = at;
        let now = self.instant();
        match event {
            OwnEvent::Beat(n) => self.beat(n),
            OwnEvent::Meet(n, other) => self.meet(n, other),
            OwnEvent::Beaten { from, to, content } if self.nodes[to].alive => {
                self.received[to] += content.len() as u64;
                let node = &mut self.nodes[to].gossip;
                let (_, content) = node.hear(incarnation(from), &content, now, CONTENT_BYTES_MAX);
                let echo = OwnEvent::Echoed { from: to, to: from, content };
                self.agenda.add(self.now + DELAY_US, echo);
            }
            OwnEvent::Echoed { from, to, content } if self.nodes[to].alive => {
                self.received[to] += content.len() as u64;
                self.nodes[to].gossip.hear(incarnation(from), &content, now, 0);
            }
            OwnEvent::Beaten { .. } | OwnEvent::Echoed { .. } => {}
        }
        at
    }

    fn known(&self, n: usize) -> usize {
        self.nodes[n].gossip.others().count()
    }

    fn received(&self) -> &[u64] {
        &self.received
    }
}

// ---- foca

/// As much as a row of ours says, in fewer bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Identity {
    incarnation: u64,
    region: String,
    ip: u32,
    port: u16,
    bytes_max: u64,
}

impl foca::Identity for Identity {
    type Addr = u64;

    fn renew(&self) -> Option<Self> {
        None
    }

    fn addr(&self) -> u64 {
        self.incarnation
    }

    fn win_addr_conflict(&self, _: &Self) -> bool {
        false
    }
}

fn identity(n: usize) -> Identity {
    Identity {
        incarnation: incarnation(n).0,
        region: format!("region-{}", n / PER_REGION),
        ip: 10 << 24 | n as u32,
        port: 6789,
        bytes_max: 1 << 30,
    }
}

enum SwimEvent {
    Start(usize),
    Packet { to: usize, bytes: Bytes },
    Timer { node: usize, timer: Timer<Identity> },
}

struct Swim {
    now: u64,
    config: Config,
    agenda: Agenda<SwimEvent>,
    nodes: Vec<(Foca<Identity, PostcardCodec, SmallRng, foca::NoCustomBroadcast>, bool)>,
    received: Vec<u64>,
}

impl Swim {
    fn new(config: Config) -> Self {
        let (nodes, received) = (Vec::new(), Vec::new());
        Self { now: 0, config, agenda: Agenda::default(), nodes, received }
    }

    fn perform(&mut self, node: usize, effects: Effects) {
        for (to, bytes) in effects.packets {
            let to = (to.ip & 0xff_ffff) as usize;
            self.agenda.add(self.now + DELAY_US, SwimEvent::Packet { to, bytes });
        }
        for (timer, after) in effects.timers {
            let at = self.now + after.as_micros() as u64;
            self.agenda.add(at, SwimEvent::Timer { node, timer });
        }
    }
}

#[derive(Default)]
struct Effects {
    packets: Vec<(Identity, Bytes)>,
    timers: Vec<(Timer<Identity>, Duration)>,
}

impl foca::Runtime<Identity> for Effects {
    fn notify(&mut self, notification: foca::Notification<'_, Identity>) {
        let _nobody_asks: OwnedNotification<Identity> = notification.to_owned();
    }

    fn send_to(&mut self, to: Identity, data: &[u8]) {
        self.packets.push((to, Bytes::copy_from_slice(data)));
    }

    fn submit_after(&mut self, event: Timer<Identity>, after: Duration) {
        self.timers.push((event, after));
    }
}

impl Way for Swim {
    fn start(&mut self, n: usize, at: u64) {
        let rng = SmallRng::seed_from_u64(n as u64);
        let foca = Foca::new(identity(n), self.config.clone(), rng, PostcardCodec);
        self.nodes.push((foca, true));
        self.received.push(0);
        self.agenda.add(at, SwimEvent::Start(n));
    }

    fn leave(&mut self, n: usize) {
        let mut effects = Effects::default();
        let (foca, alive) = &mut self.nodes[n];
        *alive = false;
        let _result = foca.leave_cluster(&mut effects);
        self.perform(n, effects);
    }

    fn kill(&mut self, n: usize) -> bool {
        self.nodes[n].1 = false;
        true
    }

    fn step(&mut self) -> u64 {
        let (at, event) = self.agenda.next();
        self.now = at;
        let mut effects = Effects::default();
        let node = match event {
            SwimEvent::Start(n) => {
                if n > 0 {
                    let _result = self.nodes[n].0.announce(identity(0), &mut effects);
                }
                n
            }
            SwimEvent::Packet { to, bytes } => {
                let (foca, alive) = &mut self.nodes[to];
                if *alive {
                    self.received[to] += bytes.len() as u64 + DATAGRAM_BYTES;
                    let _bad_packet = foca.handle_data(&bytes, &mut effects);
                }
                to
            }
            SwimEvent::Timer { node, timer } => {
                let (foca, alive) = &mut self.nodes[node];
                if *alive {
                    let _stale = foca.handle_timer(timer, &mut effects);
                }
                node
            }
        };
        self.perform(node, effects);
        at
    }

    fn known(&self, n: usize) -> usize {
        self.nodes[n].0.num_members()
    }

    fn received(&self) -> &[u64] {
        &self.received
    }
}
