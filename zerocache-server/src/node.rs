//! Puts a node together: configuration, store, core, transport, discovery, listener.

#[cfg(test)]
mod tests;

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, OnceLock, Weak},
    time::Duration,
};

use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};
use zerocache_core::{
    limits::Limits,
    node::{Input, NodeConfig},
    store::Capacity,
    version::Incarnation,
    wire::{Envelope, NodeInfo, NodeState, Request, RequestMessage, cluster_id, features},
};
use zerocache_net::{
    discovery::{self, Announcement, Discovery, DiscoveryConfig, DiscoveryError, MdnsConfig},
    transport::{Connections, FramedTransport},
};

use crate::{
    api::{self, Api},
    config::{ConfigError, ServerConfig},
    datagrams::Datagrams,
    driver::NodeDriver,
    frames::{FrameLimits, Frames},
    http::{self, BindError, BodyGate, HttpLimits, Served, Service},
    snapshot::SnapshotFile,
    storage::Storage,
    telemetry::ServerCounters,
};

/// How long a connection to another node may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Events of discovery that may wait.
const DISCOVERY_EVENTS_MAX: usize = 512;

/// How often it is looked whether the machine's address has changed, where none is configured.
const ADDRESSES_EVERY: Duration = Duration::from_secs(2);

/// How long a leaving node waits until its last writes are with its peers.
const FLUSH_MAX: Duration = Duration::from_millis(500);

/// How long it waits for what came after that.
const LAST_FLUSH_MAX: Duration = Duration::from_millis(100);

/// What may wait for one peer: this part of the byte budget, within the bounds below.
const OUTBOX_SHARE: u64 = 16;
const OUTBOX_BYTES_LEAST: u64 = 16 << 20;
const OUTBOX_BYTES_MOST: u64 = 64 << 20;

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The configuration is not allowed.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The listener could not be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// Discovery does not accept its configuration.
    #[error(transparent)]
    Discovery(#[from] DiscoveryError),
    /// The system has no randomness to give.
    #[error("cannot draw an incarnation: {0}")]
    Entropy(#[from] getrandom::Error),
    /// The system refused something else.
    #[error("cannot start: {0}")]
    Io(#[from] io::Error),
}

/// A node that serves. Dropping it ends it without a goodbye, as a crash would.
pub struct RunningNode {
    driver: Arc<NodeDriver>,
    discovery: Arc<Discovery>,
    listen: SocketAddr,
    incarnation: Incarnation,
    drain: Duration,
    stop: Option<oneshot::Sender<()>>,
    server: JoinHandle<Served>,
    frames: Arc<Frames>,
    tasks: Vec<JoinHandle<()>>,
}

impl RunningNode {
    /// Starts a node. It serves when this returns, and finds its peers from then on.
    ///
    /// # Errors
    /// [`RunError`] when the configuration is not allowed or the system refuses something.
    pub async fn start(config: ServerConfig) -> Result<Self, RunError> {
        config.validate()?;
        warn_of_openness(&config);
        let listener = http::bind(&config.listen_addresses())?;
        let listen = listener.local_addr()?;
        let port = if config.port == 0 { listen.port() } else { config.port };
        let ips = config.announced_addresses();
        let addresses: Vec<_> = ips.iter().map(|ip| SocketAddr::new(*ip, port)).collect();
        let incarnation = Incarnation(getrandom::u64()?);
        let capacity = Capacity {
            entries_max: config.max_entries.map_or(u64::MAX, |most| most as u64),
            bytes_max: config.max_bytes,
        };
        let datagrams = bind_datagrams(listen);
        let mut node_config = node_config(&config, incarnation, addresses);
        let itself = Arc::new(OnceLock::new());
        let transport = transport(&config, Arc::clone(&itself));
        let (discovery, events) = start_discovery(&config)?;
        let discovery = Arc::new(discovery);
        // From here on hardly anything fails: a node that does not start does not take it.
        let snapshot = config.snapshot.clone().map(SnapshotFile::take);
        node_config.has_snapshot = snapshot.as_ref().is_some_and(SnapshotFile::is_taken);
        getrandom::fill(&mut node_config.secret)?;
        if datagrams.is_none() {
            node_config.features &= !features::DATAGRAMS;
        }
        let storage = Storage::keyed(capacity, [getrandom::u64()?, getrandom::u64()?]);
        let driver = NodeDriver::new(node_config, storage, Arc::new(transport));
        let _first = itself.set(Arc::downgrade(&driver));
        if let Some(file) = snapshot {
            driver.use_snapshot(file);
        }
        let (stop, stopped) = oneshot::channel();
        let (server, frames) = spawn_server(&config, listener, Arc::clone(&driver), stopped);
        let announcement = Announcement {
            region: config.region.clone(),
            incarnation: incarnation.0,
            addresses: ips,
            port,
            python: config.compat.is_some(),
        };
        discovery.announce(&announcement)?;
        driver.use_discovery(Arc::clone(&discovery));
        let mut tasks = vec![
            spawn_timer(Arc::clone(&driver)),
            tokio::spawn(pass_on(events, Arc::clone(&driver))),
        ];
        let drain = config.drain;
        if config.told_addresses().is_none() {
            let (driver, discovery) = (Arc::clone(&driver), Arc::clone(&discovery));
            tasks.push(tokio::spawn(follow_addresses(config, announcement, driver, discovery)));
        }
        if let Some(datagrams) = datagrams {
            driver.use_datagrams(Arc::clone(&datagrams));
            let driver = Arc::clone(&driver);
            tasks.push(tokio::spawn(async move { datagrams.receive(&driver).await }));
        }
        let stop = Some(stop);
        Ok(Self { driver, discovery, listen, incarnation, drain, stop, server, frames, tasks })
    }

    /// Where the node listens.
    #[must_use]
    pub fn listen_address(&self) -> SocketAddr {
        self.listen
    }

    /// Where the node can be reached: the first of its [`addresses`](Self::addresses), or where it
    /// listens if it has none. What a seed is made of:
    ///
    /// ```
    /// use zerocache_server::{
    ///     RunningNode,
    ///     config::{DiscoverySet, HostPort, ServerConfig},
    /// };
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let mut config = ServerConfig::new("oslo");
    /// config.addresses = vec![[127, 0, 0, 1].into()];
    /// config.port = 0;
    /// config.discovery = DiscoverySet::SEEDS;
    /// let first = RunningNode::start(config.clone()).await?;
    /// config.seeds = vec![HostPort::try_from(first.address())?];
    /// let second = RunningNode::start(config).await?;
    /// # assert_ne!(first.address(), second.address());
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.addresses().first().copied().unwrap_or(self.listen)
    }

    /// Where the node says that it can be reached. The addresses of the machine may change, where none
    /// are configured.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.driver.addresses()
    }

    /// The node's life.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// Waits until the node is in sync, at most `most`; whether it is.
    pub async fn ready(&self, most: Duration) -> bool {
        let mut state = self.driver.watch_state();
        let ready = state.wait_for(|state| *state == NodeState::InSync);
        tokio::time::timeout(most, ready).await.is_ok_and(|ready| ready.is_ok())
    }

    /// Leaves the cluster: is not ready from now on, says goodbye, goes on answering for the drain,
    /// hands over its last writes, closes. Takes at most the drain and three seconds, and as long as it
    /// takes to write the snapshot, if there is to be one.
    pub async fn shutdown(mut self) {
        tracing::info!(drain_ms = self.drain.as_millis() as u64, "shutting down");
        self.driver.input(Input::Shutdown);
        let drained = tokio::time::sleep(self.drain);
        tokio::join!(self.discovery.withdraw(), drained);
        if !self.driver.flush(FLUSH_MAX).await {
            tracing::warn!("shut down before all writes were replicated");
        }
        if let Some(stop) = self.stop.take() {
            let _ended_already = stop.send(());
        }
        let frames = self.frames.close();
        let (served, (), ()) = tokio::join!(&mut self.server, frames, self.discovery.shutdown());
        // What was accepted until the listener closed.
        let _out_of_time = self.driver.flush(LAST_FLUSH_MAX).await;
        self.driver.write_snapshot().await;
        match served {
            Ok(Served { cut: 0 }) => tracing::info!("shut down"),
            Ok(Served { cut }) => tracing::warn!(cut, "shut down; connections were cut"),
            Err(error) => tracing::error!(%error, "listener failed"),
        }
    }
}

impl Drop for RunningNode {
    fn drop(&mut self) {
        self.server.abort();
        self.frames.abort();
        for task in &self.tasks {
            task.abort();
        }
    }
}

fn node_config(config: &ServerConfig, id: Incarnation, addresses: Vec<SocketAddr>) -> NodeConfig {
    let outbox = config.max_bytes / OUTBOX_SHARE;
    let value_bytes_max = usize::try_from(config.value_bytes_max()).unwrap_or(usize::MAX);
    NodeConfig {
        cluster: config.cluster.clone(),
        info: NodeInfo {
            incarnation: id,
            region: config.region.clone(),
            zone: config.zone.clone(),
            addresses,
            state: NodeState::Warming,
            bytes_max: config.max_bytes,
        },
        limits: Limits {
            key_bytes_max: config.max_key_bytes,
            value_bytes_max: Limits::value_bytes_within(value_bytes_max, config.max_bytes),
        },
        warm_max_ms: config.warm_max.as_millis() as u64,
        outbox_bytes_max: outbox.clamp(OUTBOX_BYTES_LEAST, OUTBOX_BYTES_MOST) as usize,
        features: features::ALL,
        has_snapshot: false,
        secret: [0; 32],
    }
}

/// The socket for datagrams beside the listener; a node goes on without one.
fn bind_datagrams(listen: SocketAddr) -> Option<Arc<Datagrams>> {
    match Datagrams::bind(listen) {
        Ok(datagrams) => Some(Arc::new(datagrams)),
        Err(error) => {
            tracing::warn!(
                %listen, %error,
                "cannot bind the UDP port: heartbeats use connections only"
            );
            None
        }
    }
}

fn spawn_server(
    config: &ServerConfig,
    listener: tokio::net::TcpListener,
    driver: Arc<NodeDriver>,
    stopped: oneshot::Receiver<()>,
) -> (JoinHandle<Served>, Arc<Frames>) {
    let mut limits = HttpLimits::for_config(config);
    limits.connections_max = http::fit_connections(limits.connections_max);
    let counters = Arc::new(ServerCounters::default());
    let mut messages = limits.bodies.clone();
    messages.memory_bytes =
        messages.memory_bytes.max(2 * api::message_bytes_max(config.value_bytes_max()));
    let messages =
        BodyGate::new(messages, Arc::clone(&counters)).letting_through(api::SMALL_MESSAGE_BYTES);
    let message_bytes_max = api::message_bytes_max(config.value_bytes_max());
    let frames = Frames::new(
        Arc::clone(&driver),
        Arc::clone(&counters),
        Arc::new(messages.clone()),
        FrameLimits {
            message_bytes_max: usize::try_from(message_bytes_max).unwrap_or(usize::MAX),
            waiting_bytes_max: limits.responses_bytes(),
        },
    );
    let api = Api {
        driver,
        messages,
        frames: (config.connections == Connections::Framed).then(|| Arc::clone(&frames)),
        bodies: BodyGate::new(limits.bodies.clone(), Arc::clone(&counters)),
        counters: Arc::clone(&counters),
        value_bytes_max: config.value_bytes_max(),
        key_bytes_max: config.max_key_bytes,
        compat: config.compat.is_some(),
    };
    let service = Service::from(api::router(api.clone())).with_fast_path(api::sync_handler(api));
    let stop = async move {
        // A dropped sender means the same: the node is gone.
        let _told = stopped.await;
    };
    (tokio::spawn(http::serve(listener, service, limits, counters, stop)), frames)
}

/// The way to other nodes; the node introduces itself on each connection.
fn transport(config: &ServerConfig, itself: Arc<OnceLock<Weak<NodeDriver>>>) -> FramedTransport {
    let cluster = cluster_id(&config.cluster);
    let make_hello = move || {
        let driver = itself.get().and_then(Weak::upgrade);
        driver.map_or_else(
            // Only while the node ends.
            || RequestMessage {
                envelope: Envelope { cluster, ..Envelope::default() },
                request: Request::Ping,
            },
            |driver| driver.introduction(),
        )
    };
    let home = tokio::runtime::Handle::current();
    let transport = FramedTransport::new(Arc::new(make_hello), CONNECT_TIMEOUT, home);
    transport.with_connections(config.connections)
}

fn start_discovery(
    config: &ServerConfig,
) -> Result<(Discovery, mpsc::Receiver<discovery::Event>), DiscoveryError> {
    let (sender, events) = mpsc::channel(DISCOVERY_EVENTS_MAX);
    let mut wanted = DiscoveryConfig::new(config.cluster.clone());
    if config.discovery.mdns {
        wanted.mdns = Some(MdnsConfig { interface: config.mdns_interface.clone() });
    }
    if config.discovery.dns {
        wanted.dns = config.dns.clone();
    }
    if config.discovery.seeds {
        wanted.seeds = config.seeds.clone();
    }
    Ok((Discovery::start(wanted, sender)?, events))
}

fn spawn_timer(driver: Arc<NodeDriver>) -> JoinHandle<()> {
    tokio::spawn(async move { driver.keep_time().await })
}

/// Hands what discovery finds to the node.
async fn pass_on(mut events: mpsc::Receiver<discovery::Event>, driver: Arc<NodeDriver>) {
    while let Some(event) = events.recv().await {
        driver.input(match event {
            discovery::Event::Proposed(proposal) => Input::AddressesProposed(proposal.addresses),
            discovery::Event::Withdrawn(proposal) => match proposal.incarnation {
                Some(id) => Input::NodeWithdrawn(Incarnation(id)),
                None => continue,
            },
            discovery::Event::Complete => Input::DiscoveryComplete,
        });
    }
}

/// Announces the machine's address again when it changes; ends only when dropped.
async fn follow_addresses(
    config: ServerConfig,
    mut announcement: Announcement,
    driver: Arc<NodeDriver>,
    discovery: Arc<Discovery>,
) {
    loop {
        tokio::time::sleep(ADDRESSES_EVERY).await;
        let changed = announcement.addresses.first().and_then(|ip| config.addresses_after(*ip));
        let Some(ips) = changed.filter(|_| driver.state() != NodeState::Leaving) else { continue };
        let addresses: Vec<_> =
            ips.iter().map(|ip| SocketAddr::new(*ip, announcement.port)).collect();
        tracing::info!(before = ?announcement.addresses, now = ?ips, "machine address changed");
        announcement.addresses = ips;
        driver.input(Input::AddressesChanged(addresses));
        if let Err(error) = discovery.announce(&announcement) {
            tracing::warn!(%error, "cannot announce the changed address");
        }
    }
}

/// Says plainly what is not protected.
fn warn_of_openness(config: &ServerConfig) {
    tracing::warn!(
        "no authentication: whoever reaches the port of this node can read and delete everything"
    );
    if config.compat.is_some() {
        tracing::warn!(
            "Python-compatible paths carry no cluster name: Python clients on this network use this \
             node, whatever their cluster"
        );
    }
}
