//! Drives the state machine of the core: passes inputs to it, performs its effects, keeps its time.
//!
//! Invariants: no lock is held while an effect is performed or awaited; the lock of the node is taken
//! before that of the pending replies, never after.

mod calls;
mod copies;
mod events;
mod held;
mod recent;
mod reply;
mod requests;

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Notify, watch};
use zerocache_core::{
    node::{
        CallId, ClusterStatus, ConnectionId, DatagramCounts, DelayCounts, Effect, Identity, Input,
        Node, NodeConfig, PersistedState, RequestId,
    },
    time::Now,
    version::Incarnation,
    wire::{NodeState, Request, RequestMessage, Response, cluster_id},
};
use zerocache_net::{
    clock,
    discovery::{Discovery, SourceStatus},
    transport::Transport,
};

pub use self::reply::{FramedReply, ReplyTo};
use self::{
    calls::OutboundCalls,
    reply::{Reply, ReplyBatch},
};
pub(crate) use self::{
    held::HeldReply,
    recent::{RecentEvents, Severity},
    reply::{EncodedResponse, response_header},
    requests::{Admission, NodeRequest},
};
use crate::{
    datagrams::DatagramSocket,
    disk::DiskTier,
    hot_keys::{HotKeyMode, HotKeyTracker},
    reads::EntryReader,
    storage::{Mutexes, Storage},
    telemetry::RequestMetrics,
};

/// The interval at which [`NodeDriver::flush`] checks the queues.
const FLUSH_CHECK: Duration = Duration::from_millis(5);

/// The state machine of a node, behind its lock.
#[derive(Clone)]
pub struct SharedNode(Arc<Mutex<Node<Mutexes>>>);

impl SharedNode {
    /// Creates the state machine of a node that keeps its entries in `storage`.
    #[must_use]
    pub fn new(config: NodeConfig, storage: Arc<Storage>) -> Self {
        Self(Arc::new(Mutex::new(Node::new(config, storage, clock::now()))))
    }

    /// Returns the handshake with which the node opens a connection to another one.
    #[must_use]
    pub fn introduction(&self) -> RequestMessage {
        self.0.lock().introduction(clock::now())
    }
}

/// The parts of a node that its driver connects.
pub struct DriverParts {
    /// The state machine.
    pub node: SharedNode,
    /// The entries, which the state machine shares.
    pub storage: Arc<Storage>,
    /// Carries calls to other nodes.
    pub transport: Arc<dyn Transport>,
    /// Sends datagrams; without a socket they are dropped.
    pub datagrams: Option<Arc<DatagramSocket>>,
    /// Learns which addresses answer.
    pub discovery: Option<Arc<Discovery>>,
    /// What is kept of the keys that are read most.
    pub hot_keys: HotKeyMode,
    /// Where evicted values go.
    pub disk: Option<Arc<DiskTier>>,
}

/// The readings of a node at one moment.
#[derive(Debug)]
pub struct NodeReadings {
    /// Its view of the cluster, and its counters.
    pub status: ClusterStatus,
    /// Callers that wait for a membership change.
    pub watchers: u64,
    /// Records, and their bytes, that wait for all peers.
    pub queued: (u64, u64),
    /// Datagrams received and sent.
    pub datagrams: DatagramCounts,
    /// Datagrams that the kernel did not accept.
    pub datagram_send_errors: u64,
    /// How long writes of other nodes took to this one, by the region of the write; none stands for all other
    /// regions.
    pub replication_delays: Vec<(Option<String>, DelayCounts)>,
}

/// Drives a running node. Shared by reference.
pub struct NodeDriver {
    node: Arc<Mutex<Node<Mutexes>>>,
    storage: Arc<Storage>,
    reader: EntryReader,
    request_metrics: Arc<RequestMetrics>,
    hot_keys: Arc<HotKeyTracker>,
    identity: Identity,
    cluster: u64,
    id: Incarnation,
    calls: OutboundCalls,
    datagrams: Option<Arc<DatagramSocket>>,
    discovery: Option<Arc<Discovery>>,
    disk: Option<Arc<DiskTier>>,
    /// Destinations of responses that come later.
    pending: Mutex<HashMap<RequestId, Reply>>,
    next_request: AtomicU64,
    next_connection: AtomicU64,
    /// Closed connections that the node does not know of yet.
    closed: Mutex<Vec<ConnectionId>>,
    state: watch::Sender<NodeState>,
    /// Notified when the node wants to read its snapshot.
    restore: Notify,
    timer: Notify,
    timer_at: AtomicU64,
    recent: RecentEvents,
    this: Weak<Self>,
}

impl NodeDriver {
    /// Creates the driver of a node. Time does not pass for it until [`NodeDriver::keep_time`] runs.
    #[must_use]
    pub fn new(parts: DriverParts) -> Arc<Self> {
        let DriverParts {
            node: SharedNode(node),
            storage,
            transport,
            datagrams,
            discovery,
            hot_keys,
            disk,
        } = parts;
        let hot_keys = Arc::new(HotKeyTracker::new(hot_keys));
        let (identity, state, cluster, id) = {
            let node = node.lock();
            let config = node.config();
            let (cluster, id) = (cluster_id(&config.cluster), config.info.incarnation);
            (node.identity().clone(), node.state(), cluster, id)
        };
        let request_metrics = Arc::<RequestMetrics>::default();
        Arc::new_cyclic(|this| Self {
            node,
            reader: EntryReader::new(
                id,
                Arc::clone(&storage),
                (Arc::clone(&request_metrics), Arc::clone(&hot_keys)),
            ),
            hot_keys,
            request_metrics,
            storage,
            identity,
            cluster,
            id,
            calls: OutboundCalls::new(transport),
            datagrams,
            discovery,
            disk,
            pending: Mutex::default(),
            next_request: AtomicU64::new(0),
            next_connection: AtomicU64::new(0),
            closed: Mutex::default(),
            state: watch::Sender::new(state),
            restore: Notify::new(),
            timer: Notify::new(),
            timer_at: AtomicU64::new(0),
            recent: RecentEvents::default(),
            this: this.clone(),
        })
    }

    /// Returns the sources of discovery and their state.
    #[must_use]
    pub fn sources(&self) -> Vec<SourceStatus> {
        self.discovery.as_ref().map(|discovery| discovery.sources()).unwrap_or_default()
    }

    /// Returns the addresses that the node announces.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.node.lock().config().info.addresses.clone()
    }

    /// Returns the [features](zerocache_core::wire::features) that the node offers.
    #[must_use]
    pub fn features(&self) -> u64 {
        self.node.lock().config().features
    }

    /// Returns the reader of entries.
    #[must_use]
    pub fn reader(&self) -> &EntryReader {
        &self.reader
    }

    /// Returns the durations of requests, and the sizes of values.
    #[must_use]
    pub fn request_metrics(&self) -> &RequestMetrics {
        &self.request_metrics
    }

    /// Returns the keys that are read most.
    #[must_use]
    pub fn hot_keys(&self) -> &HotKeyTracker {
        &self.hot_keys
    }

    /// Returns the store.
    #[must_use]
    pub fn storage(&self) -> &Storage {
        &self.storage
    }

    /// Returns the disk tier.
    #[must_use]
    pub fn disk(&self) -> Option<&DiskTier> {
        self.disk.as_deref()
    }

    /// Returns the name of the cluster.
    #[must_use]
    pub fn cluster(&self) -> String {
        self.node.lock().config().cluster.clone()
    }

    /// Returns this moment by the time that the nodes of the cluster agree on.
    #[must_use]
    pub fn cluster_time(&self) -> Now {
        self.node.lock().cluster_time(clock::now())
    }

    /// Returns the node's view of the cluster, and its counters.
    #[must_use]
    pub fn status(&self) -> ClusterStatus {
        self.node.lock().status(clock::now())
    }

    /// Returns the events of the last ten minutes.
    #[must_use]
    pub(crate) fn recent_events(&self) -> &RecentEvents {
        &self.recent
    }

    /// Returns what the metrics of the node are taken from. Locks the node once.
    #[must_use]
    pub fn readings(&self) -> NodeReadings {
        let datagram_send_errors = self.datagrams.as_ref().map_or(0, |socket| socket.send_errors());
        let node = self.node.lock();
        let queued = node
            .queued()
            .fold((0, 0), |sum, (records, bytes)| (sum.0 + records as u64, sum.1 + bytes as u64));
        let delays = node.replication_delays();
        let replication_delays =
            delays.map(|(region, counts)| (region.map(str::to_owned), counts.clone())).collect();
        NodeReadings {
            status: node.status(clock::now()),
            watchers: node.watcher_count() as u64,
            queued,
            datagrams: node.datagram_counts(),
            datagram_send_errors,
            replication_delays,
        }
    }

    /// Returns the node's readiness.
    #[must_use]
    pub fn state(&self) -> NodeState {
        *self.state.borrow()
    }

    /// Returns the node's readiness as a channel of its changes.
    #[must_use]
    pub fn watch_state(&self) -> watch::Receiver<NodeState> {
        self.state.subscribe()
    }

    /// Returns the state that outlives the process, and the status at the same moment; none before the
    /// node may persist it.
    #[must_use]
    pub fn persisted_state(&self, now: Now) -> Option<(PersistedState, ClusterStatus)> {
        let node = self.node.lock();
        node.may_persist().then(|| (node.persisted_state(now), node.status(now)))
    }

    /// Waits until the node wants to read its snapshot.
    pub async fn restore_requested(&self) {
        self.restore.notified().await;
    }

    /// Waits until no write waits for a reachable peer, at most `timeout`. Returns whether none does.
    pub async fn flush(&self, timeout: Duration) -> bool {
        let flushed = async {
            while !self.node.lock().is_flushed() {
                tokio::time::sleep(FLUSH_CHECK).await;
            }
        };
        tokio::time::timeout(timeout, flushed).await.is_ok()
    }

    /// Passes an input to the node.
    pub fn input(&self, input: Input) {
        self.inputs([input]);
    }

    /// Passes inputs to the node, which locks it once.
    pub fn inputs(&self, inputs: impl IntoIterator<Item = Input>) {
        let mut effects = Vec::new();
        {
            let mut node = self.node.lock();
            node.handle_all(clock::now(), inputs, &mut effects);
            self.publish(&node);
        }
        self.perform(effects);
    }

    /// Ticks the node at its deadlines. Ends only when dropped.
    pub async fn keep_time(&self) {
        loop {
            let closed = std::mem::take(&mut *self.closed.lock());
            if !closed.is_empty() {
                self.inputs(closed.into_iter().map(Input::ConnectionClosed));
            }
            let deadline = {
                // Both under the lock, so that an input with an earlier deadline sees this one.
                let node = self.node.lock();
                self.timer_at.store(node.next_deadline().as_millis(), Ordering::Relaxed);
                node.next_deadline()
            };
            let wait = deadline.since(clock::mono());
            if wait.is_zero() {
                self.tick();
                tokio::task::yield_now().await;
            } else {
                let _early = tokio::time::timeout(wait, self.timer.notified()).await;
            }
        }
    }

    /// Passes a tick to the node. The lock goes to a caller that waits for it: ticks follow each other closely while
    /// many entries have expired, and would take it again first.
    fn tick(&self) {
        let mut effects = Vec::new();
        let mut node = self.node.lock();
        node.handle_all(clock::now(), [Input::Tick], &mut effects);
        self.publish(&node);
        MutexGuard::unlock_fair(node);
        self.perform(effects);
    }

    /// Publishes the node's deadline, readiness and read policy. Called under its lock, so that none of
    /// them goes back.
    fn publish(&self, node: &Node<Mutexes>) {
        if node.next_deadline().as_millis() < self.timer_at.load(Ordering::Relaxed) {
            self.timer.notify_one();
        }
        self.reader.set_policy(node.read_policy());
        self.reader.set_placement(node.placement());
        self.state.send_if_modified(|state| {
            let before = std::mem::replace(state, node.state());
            before != *state
        });
    }

    fn perform(&self, effects: Vec<Effect>) {
        let mut replies = ReplyBatch::new(&self.request_metrics);
        for effect in effects {
            match effect {
                Effect::Respond { id, response } => {
                    let to = self.pending.lock().remove(&id);
                    if let Some((to, response)) = to.and_then(|to| self.hold(to, response)) {
                        replies.send(to, response);
                    }
                }
                Effect::Load { id, entries } => {
                    let is_loading = self.disk.as_ref().is_some_and(|disk| disk.load(id, entries));
                    if !is_loading {
                        self.input(Input::Loaded(id));
                    }
                }
                Effect::Call { call, to, message, timeout_ms } => {
                    self.call(call, to, message, Duration::from_millis(timeout_ms));
                }
                Effect::Datagram { to, bytes } => {
                    if let Some(datagrams) = &self.datagrams {
                        datagrams.send(to, &bytes);
                    }
                }
                Effect::State(state) => {
                    tracing::info!(state = state.as_str(), "node is {}", state.as_str());
                    let text = format!("this node is {}", state.as_str());
                    self.recent.record(Severity::Info, &text);
                }
                Effect::Restore => self.restore.notify_one(),
                Effect::Event(event) => {
                    events::log(&event);
                    let (severity, text) = events::describe(&event);
                    self.recent.record(severity, &text);
                    // Discovery does not dial the addresses of reachable members.
                    for (address, is_reachable) in events::reachability(&event) {
                        self.record_answer(address, is_reachable);
                    }
                }
            }
        }
    }

    fn record_answer(&self, address: SocketAddr, is_reachable: bool) {
        if let Some(discovery) = &self.discovery {
            discovery.record_answer(address, is_reachable);
        }
    }

    fn call(&self, call: CallId, to: SocketAddr, message: RequestMessage, timeout: Duration) {
        let this = self.this.clone();
        let is_handshake = matches!(message.request, Request::Hello(_));
        self.calls.start(to, message, timeout, move |result, elapsed_us| {
            let Some(driver) = this.upgrade() else { return };
            if is_handshake {
                driver.record_answer(to, matches!(result, Ok(Response::Hello(_))));
            }
            driver.input(Input::CallCompleted { call, result, elapsed_us });
        });
    }
}
