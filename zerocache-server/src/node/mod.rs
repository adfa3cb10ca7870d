//! Assembles a node: configuration, store, state machine, transport, discovery, listener.

mod listeners;
mod settings;
mod tasks;
#[cfg(test)]
mod tests;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};
use zerocache_core::{
    node::Input,
    store::Capacity,
    version::Incarnation,
    wire::{NodeState, features},
};
use zerocache_disk::OpenError;
use zerocache_net::{
    discovery::{self, Announcement, Discovery, DiscoveryConfig, DiscoveryError, MdnsConfig},
    security::{Security, SecurityError, TlsMode},
    transport::FramedTransport,
};

use self::listeners::{Listeners, Sockets};
use crate::{
    access::{AccessControl, AccessFileError},
    config::{ConfigError, ServerConfig},
    datagrams::DatagramSocket,
    disk::DiskTier,
    driver::{DriverParts, NodeDriver, Severity, SharedNode},
    http::{BindError, ShutdownSummary},
    snapshot::{self, SnapshotFile},
    storage::Storage,
};

/// The timeout of connecting to another node.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Most pending events of discovery.
const DISCOVERY_EVENTS_MAX: usize = 512;

/// The longest wait of a shutdown until the last writes are replicated.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(500);

/// The longest wait of a shutdown for writes that were accepted after that.
const LAST_FLUSH_TIMEOUT: Duration = Duration::from_millis(100);

/// The reason why a node did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The configuration is invalid.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A secret, or a certificate, cannot be used.
    #[error(transparent)]
    Security(#[from] SecurityError),
    /// The access file cannot be used.
    #[error(transparent)]
    AccessFile(#[from] AccessFileError),
    /// The listener could not be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// Discovery does not accept its configuration.
    #[error(transparent)]
    Discovery(#[from] DiscoveryError),
    /// The directory of the disk tier cannot be used.
    #[error("disk: {0}")]
    Disk(#[from] OpenError),
    /// The system provides no random numbers.
    #[error("cannot draw an incarnation: {0}")]
    Entropy(#[from] getrandom::Error),
    /// The system refused something else.
    #[error("cannot start: {0}")]
    Io(#[from] io::Error),
    /// A second signal ended the node before it was shut down.
    #[error("ended by a second signal before the node was shut down")]
    Interrupted,
}

impl RunError {
    /// Returns whether the configuration, or a file that it names, must be changed.
    #[must_use]
    pub fn is_usage_error(&self) -> bool {
        matches!(self, Self::Config(_) | Self::Security(_) | Self::AccessFile(_) | Self::Disk(_))
    }
}

/// A node that serves. Dropping it stops it without a goodbye, as a crash would.
pub struct RunningNode {
    driver: Arc<NodeDriver>,
    access: Arc<AccessControl>,
    discovery: Arc<Discovery>,
    snapshot: Option<Arc<SnapshotFile>>,
    disk: Option<Arc<DiskTier>>,
    listen: SocketAddr,
    incarnation: Incarnation,
    drain: Duration,
    listeners: Listeners,
    tasks: Vec<JoinHandle<()>>,
}

impl RunningNode {
    /// Starts a node. It serves when this returns, and finds its peers from then on.
    ///
    /// # Errors
    /// [`RunError`] when the configuration is invalid or the system refuses something.
    pub async fn start(config: ServerConfig) -> Result<Self, RunError> {
        Self::start_identified(config, |_| {}).await
    }

    /// [`start`](Self::start) for a caller that must know the incarnation as soon as it is drawn.
    pub(crate) async fn start_identified(
        config: ServerConfig,
        on_identity: impl FnOnce(Incarnation),
    ) -> Result<Self, RunError> {
        config.validate()?;
        settings::check_snapshot(&config)?;
        let addresses = config.announced_addresses();
        let security = Security::load(config.security_config(&addresses))?;
        let incarnation = Incarnation(security.identity().map_or_else(getrandom::u64, Ok)?);
        on_identity(incarnation);
        let access = tasks::access_control(&config, security.clone())?;
        let sockets = Sockets::bind(&config)?;
        let listen = sockets.nodes.local_addr()?;
        let port = if config.port == 0 { listen.port() } else { config.port };
        let announcement = Announcement {
            region: config.region.clone(),
            incarnation: incarnation.0,
            addresses,
            port,
            python: sockets.python_record(&config)?,
        };
        let disk = settings::disk_tier(&config)?.map(Arc::new);
        let (discovery, events) = start_discovery(&config)?;
        let discovery = Arc::new(discovery);
        let datagrams = bind_datagrams(listen);
        // The start rarely fails from here on: a node that does not start must not take the snapshot.
        let snapshot = config.snapshot.clone().map(SnapshotFile::take).map(Arc::new);
        let mut node_config = settings::node_config(&config, &announcement)?;
        node_config.requires_tls = security.mode() == TlsMode::Required;
        node_config.has_snapshot =
            disk.is_some() || snapshot.as_ref().is_some_and(|file| file.is_taken());
        if datagrams.is_none() {
            node_config.features &= !features::DATAGRAMS;
        }
        let capacity = Capacity {
            entries_max: config.max_entries.map_or(u64::MAX, |most| most as u64),
            bytes_max: config.max_bytes,
        };
        let hash_seed = [getrandom::u64()?, getrandom::u64()?];
        let mut storage = Storage::keyed(capacity, hash_seed).with_policy(config.eviction);
        if let Some(disk) = &disk {
            storage = storage.with_disk(disk.terms());
        }
        let storage = Arc::new(storage);
        let node = SharedNode::new(node_config, Arc::clone(&storage));
        let driver = NodeDriver::new(DriverParts {
            transport: Arc::new(transport(&config, node.clone(), security)),
            node,
            storage,
            datagrams: datagrams.clone(),
            discovery: Some(Arc::clone(&discovery)),
            hot_keys: config.hot_keys,
            disk: disk.clone(),
        });
        let listeners = Listeners::start(&config, sockets, &driver, &access)?;
        let drain = config.drain;
        let mut node = Self {
            driver,
            access,
            discovery,
            snapshot,
            disk,
            listen,
            incarnation,
            drain,
            listeners,
            tasks: Vec::new(),
        };
        node.discovery.announce(&announcement)?;
        node.spawn_tasks(config, announcement, datagrams, events);
        Ok(node)
    }

    /// Spawns the tasks that run as long as the node.
    fn spawn_tasks(
        &mut self,
        config: ServerConfig,
        announcement: Announcement,
        datagrams: Option<Arc<DatagramSocket>>,
        events: mpsc::Receiver<discovery::Event>,
    ) {
        let driver = || Arc::clone(&self.driver);
        let timer = driver();
        self.tasks.push(tokio::spawn(async move { timer.keep_time().await }));
        self.tasks.push(tokio::spawn(tasks::forward_discovery(events, driver())));
        let access = Arc::clone(&self.access);
        let changes = tasks::record_changes(access.changes(), driver());
        self.tasks.push(tokio::spawn(changes));
        self.tasks.push(tokio::spawn(async move { access.watch().await }));
        if self.access.security().mode() == TlsMode::Optional {
            self.tasks.push(tokio::spawn(tasks::warn_of_optional_tls()));
        }
        if config.configured_addresses().is_none() {
            let discovery = Arc::clone(&self.discovery);
            let security = self.access.security().clone();
            let follow =
                tasks::follow_machine_address(config, announcement, driver(), discovery, security);
            self.tasks.push(tokio::spawn(follow));
        }
        if let Some(datagrams) = datagrams {
            let driver = driver();
            self.tasks.push(tokio::spawn(async move {
                datagrams.receive(|batch| driver.inputs(batch)).await;
            }));
        }
        if let Some(file) = &self.snapshot {
            self.tasks.push(tokio::spawn(snapshot::load_on_request(Arc::clone(file), driver())));
        }
        if let Some(disk) = &self.disk {
            self.tasks.push(tokio::spawn(Arc::clone(disk).run(driver())));
        }
    }

    /// Returns the address on which the node listens.
    #[must_use]
    pub fn listen_address(&self) -> SocketAddr {
        self.listen
    }

    /// Returns the address at which others reach the node: the first of its
    /// [`addresses`](Self::addresses), or the listen address if it has none. Use it as a seed:
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

    /// Returns the announced addresses. Where none are configured they change with the machine's.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.driver.addresses()
    }

    /// Returns the node's incarnation.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// Reads the secret, the certificates and the access file again, and uses what is in them now. Connections
    /// that are no longer entitled to the same end. What cannot be used is logged, and changes nothing.
    pub fn reload(&self) {
        tracing::info!("reloading credentials and access file");
        self.driver.recent_events().record(Severity::Info, "reload of credentials requested");
        self.access.reload();
    }

    /// Waits until the node is in sync, at most `timeout`. Returns whether it is.
    pub async fn ready(&self, timeout: Duration) -> bool {
        let mut state = self.driver.watch_state();
        let ready = state.wait_for(|state| *state == NodeState::InSync);
        tokio::time::timeout(timeout, ready).await.is_ok_and(|ready| ready.is_ok())
    }

    /// Returns the node's state as a channel of its changes.
    pub(crate) fn watch_state(&self) -> watch::Receiver<NodeState> {
        self.driver.watch_state()
    }

    /// Shuts the node down: it is no longer ready, says goodbye, serves for the drain, replicates its last
    /// writes, closes. Takes at most the drain and three seconds, and the time to write a snapshot or what is not on
    /// disk yet.
    pub async fn shutdown(mut self) {
        tracing::info!(drain_ms = self.drain.as_millis() as u64, "shutting down");
        self.driver.input(Input::Shutdown);
        let drained = tokio::time::sleep(self.drain);
        tokio::join!(self.discovery.withdraw(), drained);
        if !self.driver.flush(FLUSH_TIMEOUT).await {
            tracing::warn!("shut down before all writes were replicated");
        }
        let (served, ()) = tokio::join!(self.listeners.close(), self.discovery.shutdown());
        // Writes that were accepted until the listener closed.
        let _out_of_time = self.driver.flush(LAST_FLUSH_TIMEOUT).await;
        if let Some(file) = self.snapshot.take() {
            snapshot::save(file, Arc::clone(&self.driver)).await;
        }
        if let Some(disk) = self.disk.take() {
            disk.shut_down().await;
        }
        match served {
            Ok(ShutdownSummary { connections_cut: 0 }) => tracing::info!("shut down"),
            Ok(ShutdownSummary { connections_cut }) => {
                tracing::warn!(connections_cut, "shut down; connections were cut");
            }
            Err(error) => tracing::error!(%error, "listener failed"),
        }
    }
}

impl Drop for RunningNode {
    fn drop(&mut self) {
        self.listeners.abort();
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// Binds the UDP socket beside the listener; a node can do without it.
fn bind_datagrams(listen: SocketAddr) -> Option<Arc<DatagramSocket>> {
    match DatagramSocket::bind(listen) {
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

/// Creates the transport to other nodes. It opens each connection with the handshake of `node`.
fn transport(config: &ServerConfig, node: SharedNode, security: Security) -> FramedTransport {
    let make_hello = Arc::new(move || node.introduction());
    let runtime = tokio::runtime::Handle::current();
    FramedTransport::new(make_hello, CONNECT_TIMEOUT, runtime)
        .with_security(security)
        .with_connections(config.connections)
}

fn start_discovery(
    config: &ServerConfig,
) -> Result<(Discovery, mpsc::Receiver<discovery::Event>), DiscoveryError> {
    let (sender, events) = mpsc::channel(DISCOVERY_EVENTS_MAX);
    let settings = DiscoveryConfig {
        mdns: Some(MdnsConfig { interface: config.mdns_interface.clone() }),
        dns: config.dns.clone(),
        seeds: config.seeds.clone(),
        ..DiscoveryConfig::new(config.cluster.clone())
    };
    Ok((Discovery::start(settings.restricted_to(config.discovery), sender)?, events))
}
