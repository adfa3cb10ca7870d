//! Nodes of the core that call each other without a network.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

use parking_lot::Mutex;
use tokio::sync::oneshot;
use zerocache_core::{
    call::CallFailure,
    limits::Limits,
    node::{CallId, Caller, ConnectionId, Effect, Input, Node, NodeConfig, RequestId},
    store::{Backend, Capacity, Lock, Store},
    time::{Instant, Now},
    version::Incarnation,
    wire::{NodeInfo, NodeState, RequestMessage, Response, features},
};

use super::number;

/// How many bytes a node keeps at most: so many that values may be as large as nodes take them.
const BYTES_MAX: u64 = 128 << 20;

/// How many bytes of writes wait for another node at most.
const OUTBOX_BYTES_MAX: usize = 16 << 20;

/// How long an answer from one node to another takes, as far as they measure it, in microseconds: so long that they do
/// not wait for the next millisecond to gather writes for each other, which does not come while a clock stands still.
const LATENCY_US: u64 = 5_000;

/// Locks for many threads.
pub(super) struct Mutexes;

pub(super) struct ShardLock<T>(Mutex<T>);

impl Backend for Mutexes {
    type Lock<T> = ShardLock<T>;
    type Pages = Box<[u8]>;
}

impl<T> Lock<T> for ShardLock<T> {
    fn new(value: T) -> Self {
        Self(Mutex::new(value))
    }

    fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        f(&mut self.0.lock())
    }
}

/// Nodes in this process.
pub(super) struct Nodes {
    nodes: BTreeMap<SocketAddr, Node<Mutexes>>,
    /// Who waits for the response to a request, and from which node.
    waiting: HashMap<RequestId, (SocketAddr, Asker)>,
    last_request: u64,
    /// The time of the last input. Clocks of tests may be moved by hours: then nodes do one after another what was due.
    now: Now,
}

/// Who sent a request.
enum Asker {
    Client(oneshot::Sender<Response>),
    Node(SocketAddr, CallId),
}

/// Where a node is said to be: an address for documentation (RFC 5737), at which nobody is.
fn address(number: usize) -> SocketAddr {
    let last = u8::try_from(number + 1).unwrap_or(u8::MAX);
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, last)), 6789)
}

impl Nodes {
    /// Creates a node that knows of no other one.
    pub(super) fn of_one(cluster: &str, region: &str, now: Now) -> Self {
        let mut nodes = Self::none(now);
        nodes.start(cluster, (0, region), 0);
        nodes
    }

    fn none(now: Now) -> Self {
        Self { nodes: BTreeMap::new(), waiting: HashMap::new(), last_request: 0, now }
    }

    fn start(&mut self, cluster: &str, (number, region): (usize, &str), warm_max_ms: u64) {
        let at = address(number);
        let config = node_config(cluster, region, at, warm_max_ms);
        let store = Store::new(Capacity { entries_max: u64::MAX, bytes_max: BYTES_MAX });
        self.nodes.insert(at, Node::new(config, Arc::new(store), self.now));
        let addresses: Vec<_> = self.addresses().into_iter().filter(|other| *other != at).collect();
        if !addresses.is_empty() {
            self.handle(at, Input::AddressesProposed { addresses, are_configured: true });
        }
        self.handle(at, Input::DiscoveryComplete);
        self.handle(at, Input::Tick);
    }

    /// Where the nodes are.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        self.nodes.keys().copied().collect()
    }

    /// When a node wants to act next.
    pub(super) fn next_deadline(&self) -> Instant {
        let deadlines = self.nodes.values().map(Node::next_deadline);
        deadlines.min().unwrap_or(self.now.mono.plus_ms(1_000))
    }

    /// Has the nodes do what is due, each thing at its time. A single one has nothing to agree about: it does all
    /// at once, however long the machine slept.
    pub(super) fn tick(&mut self, now: Now) {
        // A thread may have read the clock before another one, and come later.
        let now = if now.mono < self.now.mono { self.now } else { now };
        while self.nodes.len() > 1 {
            let due = self.nodes.iter().map(|(at, node)| (node.next_deadline(), *at)).min();
            let Some((due, at)) = due.filter(|(due, _)| *due <= now.mono) else { break };
            self.now = earlier(now, due.max(self.now.mono));
            self.handle(at, Input::Tick);
        }
        self.now = now;
        if self.nodes.len() == 1 && self.next_deadline() <= now.mono {
            let all = self.addresses();
            all.into_iter().for_each(|at| self.handle(at, Input::Tick));
        }
    }

    /// Sends the request of a client to a node. Returns its number, or `None` if no node is there.
    pub(super) fn ask(
        &mut self,
        to: SocketAddr,
        (connection, message, sender): (ConnectionId, RequestMessage, oneshot::Sender<Response>),
        now: Now,
    ) -> Option<RequestId> {
        self.tick(now);
        self.nodes.get(&to)?;
        let id = self.next_request((to, Asker::Client(sender)));
        let caller = Caller::unauthenticated(None);
        self.handle(to, Input::Request { id, connection, caller, message });
        Some(id)
    }

    /// Forgets who waited for a response.
    pub(super) fn forget(&mut self, id: RequestId) {
        self.waiting.remove(&id);
    }

    fn next_request(&mut self, waiting: (SocketAddr, Asker)) -> RequestId {
        self.last_request += 1;
        let id = RequestId(self.last_request);
        self.waiting.insert(id, waiting);
        id
    }

    /// Gives a node an input, and all nodes what follows from it.
    fn handle(&mut self, at: SocketAddr, input: Input) {
        let (mut inputs, mut effects) = (VecDeque::from([(at, input)]), Vec::new());
        while let Some((at, input)) = inputs.pop_front() {
            let Some(node) = self.nodes.get_mut(&at) else { continue };
            node.handle_all(self.now, [input], &mut effects);
            for effect in effects.drain(..) {
                inputs.extend(self.perform(at, effect));
            }
        }
    }

    /// Performs an effect of the node at `at`. Returns the input that it is to another one.
    fn perform(&mut self, at: SocketAddr, effect: Effect) -> Option<(SocketAddr, Input)> {
        match effect {
            Effect::Respond { id, response } => match self.waiting.remove(&id)?.1 {
                Asker::Client(sender) => {
                    // It may have gone.
                    let _ = sender.send(response);
                    None
                }
                Asker::Node(asker, call) => {
                    let (result, elapsed_us) = (Ok(response), LATENCY_US);
                    Some((asker, Input::CallCompleted { call, result, elapsed_us }))
                }
            },
            Effect::Call { call, to, .. } if !self.nodes.contains_key(&to) => {
                let result = Err(CallFailure::Refused);
                Some((at, Input::CallCompleted { call, result, elapsed_us: 0 }))
            }
            Effect::Call { call, to, mut message, .. } => {
                message.envelope.sent_ms = self.now.mono.as_millis();
                let id = self.next_request((to, Asker::Node(at, call)));
                let connection = ConnectionId(u64::MAX - u64::from(last_byte(at)));
                let caller = Caller::unauthenticated(Some(at.ip()));
                Some((to, Input::Request { id, connection, caller, message }))
            }
            Effect::Datagram { .. }
            | Effect::State(_)
            | Effect::Restore
            | Effect::Load { .. }
            | Effect::Event(_) => None,
        }
    }
}

#[cfg(feature = "testing")]
mod testing {
    use std::time::Duration;

    use super::*;

    /// How long nodes copy from others at most before they serve, in milliseconds.
    const WARM_MAX_MS: u64 = 60_000;

    /// How long nodes may take to find each other, by their own clock, in milliseconds: they take about four seconds.
    const START_MS_MAX: u64 = 120_000;

    impl Nodes {
        /// Creates nodes in these regions. Returns how far their time is ahead of `now` when all know each other.
        ///
        /// # Panics
        /// If that does not happen.
        pub(in crate::client) fn of_regions(
            cluster: &str,
            regions: &[String],
            now: Now,
        ) -> (Self, Duration) {
            let mut nodes = Self::none(now);
            for (number, region) in regions.iter().enumerate() {
                nodes.start(cluster, (number, region), WARM_MAX_MS);
            }
            while !nodes.know_each_other() {
                let due = nodes.next_deadline().max(nodes.now.mono.plus_ms(1));
                let passed_ms = due.since_ms(now.mono);
                assert!(passed_ms < START_MS_MAX, "nodes in one process do not find each other");
                nodes.tick(Now::new(due.as_millis(), now.wall_ms + passed_ms));
            }
            let ahead = Duration::from_millis(nodes.now.mono.since_ms(now.mono));
            (nodes, ahead)
        }

        fn know_each_other(&self) -> bool {
            self.nodes.values().all(|node| {
                let known = node.status(self.now).nodes;
                node.misses_are_authoritative()
                    && known.len() == self.nodes.len()
                    && known.iter().all(|other| !other.is_monitored || other.state.is_some())
            })
        }

        /// Starts a node again, without anything that it had. Returns false if it is there.
        pub(in crate::client) fn revive(
            &mut self,
            cluster: &str,
            (number, region): (usize, &str),
            now: Now,
        ) -> bool {
            self.tick(now);
            let is_gone = !self.nodes.contains_key(&address(number));
            if is_gone {
                self.start(cluster, (number, region), WARM_MAX_MS);
            }
            is_gone
        }

        /// Ends a node at once. Returns false if it is not there.
        pub(in crate::client) fn kill(&mut self, number: usize, now: Now) -> bool {
            self.tick(now);
            let at = address(number);
            if self.nodes.remove(&at).is_none() {
                return false;
            }
            let lost: Vec<_> = self.waiting.extract_if(|_, (node, _)| *node == at).collect();
            for (_, (_, asker)) in lost {
                // A client that waits sees that its sender is gone.
                if let Asker::Node(asker, call) = asker {
                    let result = Err(CallFailure::NoAnswer);
                    self.handle(asker, Input::CallCompleted { call, result, elapsed_us: 0 });
                }
            }
            true
        }
    }
}

/// The time of `now` as of an earlier reading of the monotonic clock.
fn earlier(now: Now, mono: Instant) -> Now {
    Now::new(mono.as_millis(), now.wall_ms.saturating_sub(now.mono.since_ms(mono)))
}

fn last_byte(at: SocketAddr) -> u8 {
    match at.ip() {
        IpAddr::V4(ip) => ip.octets()[3],
        IpAddr::V6(_) => 0,
    }
}

fn node_config(cluster: &str, region: &str, at: SocketAddr, warm_max_ms: u64) -> NodeConfig {
    NodeConfig {
        cluster: cluster.to_owned(),
        info: NodeInfo {
            incarnation: Incarnation(number()),
            region: region.to_owned(),
            zone: None,
            addresses: vec![at],
            state: NodeState::Warming,
            bytes_max: BYTES_MAX,
            name: None,
            replicas: zerocache_core::cluster::Replicas::All,
        },
        limits: Limits::default(),
        warm_max_ms,
        outbox_bytes_max: OUTBOX_BYTES_MAX,
        // The clock of a test may stand still.
        changes_every_ms: 0,
        hot_forwards_per_s: NodeConfig::HOT_FORWARDS_PER_S,
        // Nothing is lost between them, so that pings are enough.
        features: features::ALL & !features::DATAGRAMS,
        requires_tls: false,
        has_snapshot: false,
        secret: [0; 32],
    }
}
