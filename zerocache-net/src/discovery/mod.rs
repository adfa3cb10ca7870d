//! Finding addresses where nodes may be: mDNS, DNS names, seeds.
//!
//! Discovery only proposes addresses. The handshake with the node at an address decides whether it is a
//! member, and of which cluster and region. Servers and clients use this module alike; only a server calls
//! [`Discovery::announce`].
//!
//! Invariants:
//!
//! - Known addresses are proposed again every [`DiscoveryConfig::interval`], changed or not. A receiver may
//!   forget a proposal that it cannot use, and a proposal lost to a full channel is repeated. A repeated
//!   proposal must have no effect on the receiver.
//! - Nothing here waits for the receiver, except [`Event::Complete`], which is never lost.
//! - No failure is fatal: a name that does not resolve and a network without multicast are logged and
//!   retried.

#[cfg(feature = "mdns")]
mod browse;
mod counts;
mod discovery_set;
mod error;
mod event_sender;
#[cfg(feature = "mdns")]
#[doc(hidden)]
pub mod fuzzing;
mod host_port;
mod interface;
#[cfg(feature = "mdns")]
mod mdns;
#[cfg(feature = "mdns")]
mod record;
mod resolve;
mod sources;

use std::net::{IpAddr, SocketAddr, SocketAddrV4};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

pub use counts::Counts;
pub use discovery_set::DiscoverySet;
pub use error::DiscoveryError;
pub use host_port::{HostPort, HostPortError};
pub use interface::{Interface, InterfaceError};
pub use sources::{SourceState, SourceStatus};

use counts::Counters;
use error::check_name;
use event_sender::EventSender;
#[cfg(feature = "mdns")]
use mdns::Mdns;
use resolve::Name;
use sources::Sources;

use crate::clock;

/// The default time between two answers of one source: short enough that a new pod is found within
/// seconds, long enough to be no load for a resolver.
pub const INTERVAL_DEFAULT: Duration = Duration::from_secs(5);

/// The longest time from [`Discovery::start`] to [`Event::Complete`]: mDNS answers after a good second and
/// a half, and a lookup that takes longer than two seconds has failed.
pub const INITIAL_DISCOVERY_MAX: Duration = Duration::from_secs(3);

/// How often the sources are checked for faults to be logged.
const CHECK_EVERY: Duration = Duration::from_secs(1);

/// The most names, and the most seeds, that one configuration may hold.
pub const NAMES_MAX: usize = 64;

/// The most addresses taken from the answer for one name; more are counted and left out. The handshake with
/// any member tells about the nodes left out.
pub const ADDRESSES_PER_NAME_MAX: usize = 256;

/// The most mDNS records kept at a time: the thousand nodes of the largest membership that is
/// tested. Beyond it a new record replaces one that was already proposed, and is counted.
pub const RECORDS_MAX: usize = 1024;

/// The most addresses taken from one mDNS record.
pub const ADDRESSES_PER_RECORD_MAX: usize = 16;

/// The sources of addresses.
#[derive(Debug, Clone)]
pub struct DiscoveryConfig {
    /// The cluster whose mDNS records are taken; a [name](zerocache_core::name).
    pub cluster: String,
    /// Settings of mDNS; none uses no multicast at all. Needs the feature `mdns`.
    pub mdns: Option<MdnsConfig>,
    /// Names that stand for many nodes, such as a headless service; at most [`NAMES_MAX`].
    pub dns: Vec<HostPort>,
    /// Single places to ask first; at most [`NAMES_MAX`].
    pub seeds: Vec<HostPort>,
    /// Time between two answers of the same source; at least 100 ms is kept.
    pub interval: Duration,
}

impl DiscoveryConfig {
    /// Returns a configuration for `cluster` without any source.
    pub fn new(cluster: impl Into<String>) -> Self {
        Self {
            cluster: cluster.into(),
            mdns: None,
            dns: Vec::new(),
            seeds: Vec::new(),
            interval: INTERVAL_DEFAULT,
        }
    }

    /// Restricts the configuration to the sources in `set`. Names and seeds whose source is not in it are
    /// named in a warning.
    #[must_use]
    pub fn restricted_to(mut self, set: DiscoverySet) -> Self {
        if !set.mdns {
            self.mdns = None;
        }
        for (is_used, source, names) in
            [(set.dns, "dns", &mut self.dns), (set.seeds, "seeds", &mut self.seeds)]
        {
            if !is_used && !names.is_empty() {
                let unused: Vec<_> =
                    std::mem::take(names).iter().map(ToString::to_string).collect();
                tracing::warn!(source, ?unused, "not using names whose discovery source is off");
            }
        }
        self
    }
}

/// Settings of mDNS.
#[derive(Debug, Clone, Default)]
pub struct MdnsConfig {
    /// The one interface to use; `None` uses all that are up.
    pub interface: Option<Interface>,
}

/// A kind of source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    /// An mDNS record of this cluster.
    Mdns,
    /// A DNS name that stands for many nodes.
    Dns,
    /// A configured seed.
    Seed,
}

impl Source {
    /// Its name in JSON and log fields.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Mdns => "mdns",
            Self::Dns => "dns",
            Self::Seed => "seed",
        }
    }
}

/// Addresses that lead to one node, as far as the source can tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    /// Where to dial, in order of preference: IPv4, IPv6, link-local. Never empty; one address when
    /// the source is a name, because a name does not say which addresses share a node.
    pub addresses: Vec<SocketAddr>,
    /// Where this comes from.
    pub source: Source,
    /// The region that the record states; to be confirmed by the handshake.
    pub region: Option<String>,
    /// The incarnation that the record states; to be confirmed by the handshake.
    pub incarnation: Option<u64>,
}

/// An event of discovery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A node may be at an address.
    Proposed(Proposal),
    /// The mDNS record of a node is gone, by its goodbye, a forged one, or its time to live. Verify
    /// before believing. A name never withdraws anything.
    Withdrawn(Proposal),
    /// Initial discovery is complete: every source gave its first answer, or [`INITIAL_DISCOVERY_MAX`] has
    /// passed. Sent once. A name that does not resolve gave no answer, nor does mDNS before its silence means
    /// that there is no node.
    Complete,
}

/// The mDNS announcement of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announcement {
    /// The region; a [name](zerocache_core::name).
    pub region: String,
    /// The 64 random bits of this process life. They also name the record, so they must be unique.
    pub incarnation: u64,
    /// The addresses; empty means all of the chosen interfaces. An address is announced only on an
    /// interface whose subnet it is in.
    pub addresses: Vec<IpAddr>,
    /// The port of all addresses; not 0.
    pub port: u16,
    /// How clients of the Python package zerocache 0.0.2 find the node.
    pub python: PythonRecord,
}

/// The mDNS record of a node for clients of the Python package zerocache 0.0.2. They can use IPv4 addresses
/// only, and do not know clusters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PythonRecord {
    /// None.
    #[default]
    None,
    /// With the addresses and the port of the node.
    OfNode,
    /// With an address of its own, which clients of this host reach. It is announced to this host only.
    Loopback(SocketAddrV4),
}

/// Running discovery. Dropping it ends its tasks and the mDNS daemon without waiting for either;
/// [`Discovery::shutdown`] waits.
#[derive(Debug)]
pub struct Discovery {
    #[cfg(feature = "mdns")]
    mdns: Option<(Arc<Mdns>, String)>,
    tasks: Mutex<JoinSet<()>>,
    counters: Arc<Counters>,
    sources: Arc<Sources>,
}

impl Discovery {
    /// Starts all configured sources and sends what they find to `events`. A channel of a few
    /// hundred events is enough; what does not fit is counted and proposed again later.
    ///
    /// Must be called inside a tokio runtime with I/O and time. Tasks end when the receiver is
    /// dropped.
    ///
    /// # Errors
    ///
    /// Only for a configuration that cannot work: a bad cluster name or too many names. A network
    /// without mDNS is logged.
    pub fn start(
        config: DiscoveryConfig,
        events: mpsc::Sender<Event>,
    ) -> Result<Self, DiscoveryError> {
        check_name("cluster", &config.cluster)?;
        for (what, names) in [("DNS names", &config.dns), ("seeds", &config.seeds)] {
            if names.len() > NAMES_MAX {
                return Err(DiscoveryError::TooManyNames { what, given: names.len() });
            }
        }
        #[cfg(not(feature = "mdns"))]
        if config.mdns.is_some() {
            return Err(DiscoveryError::MdnsNotBuilt);
        }
        let interval = config.interval.max(Duration::from_millis(100));
        let counters = Arc::new(Counters::default());
        let event_sender = EventSender::new(events, Arc::clone(&counters));
        let mut tasks = JoinSet::new();
        // Every source holds a clone until its first answer; the channel closes after the last.
        let (first_answer, mut all_answered) = mpsc::channel::<()>(1);

        let sources = Arc::new(Sources::default());
        #[cfg(feature = "mdns")]
        let mdns = config.mdns.map(|mdns| {
            let (mdns, cluster) =
                (Arc::new(Mdns::start(mdns, Arc::clone(&sources))), config.cluster);
            let events = (event_sender.clone(), first_answer.clone());
            tasks.spawn(browse::run(Arc::clone(&mdns), cluster.clone(), interval, events));
            (mdns, cluster)
        });
        let dns = config.dns.into_iter().map(|name| (name, Source::Dns));
        let seeds = config.seeds.into_iter().map(|name| (name, Source::Seed));
        for (name, source) in dns.chain(seeds) {
            let (id, sources) = (sources.add_name(source, &name), Arc::clone(&sources));
            let name = Name { name, source, id, sources, events: event_sender.clone() };
            tasks.spawn(resolve::run(name, interval, first_answer.clone()));
        }
        tasks.spawn(check(Arc::clone(&sources), event_sender.clone()));
        drop(first_answer);
        tasks.spawn(async move {
            let _ = tokio::time::timeout(INITIAL_DISCOVERY_MAX, all_answered.recv()).await;
            event_sender.complete().await;
        });
        Ok(Self {
            #[cfg(feature = "mdns")]
            mdns,
            tasks: Mutex::new(tasks),
            counters,
            sources,
        })
    }

    /// Announces this node by mDNS until [`Discovery::withdraw`]; without mDNS it does nothing. A second call
    /// replaces the first announcement.
    ///
    /// # Errors
    ///
    /// For a bad region, or port 0. A record that the mDNS daemon does not take now is passed to it again.
    pub fn announce(&self, announcement: &Announcement) -> Result<(), DiscoveryError> {
        check_name("region", &announcement.region)?;
        if announcement.port == 0 {
            return Err(DiscoveryError::NoPort);
        }
        #[cfg(feature = "mdns")]
        if let Some((mdns, cluster)) = &self.mdns {
            mdns.announce(cluster, announcement)?;
        }
        Ok(())
    }

    /// Withdraws the announcement, and returns when the goodbye is sent; at most half a second later. Browsing
    /// continues. Without an announcement it does nothing.
    pub async fn withdraw(&self) {
        #[cfg(feature = "mdns")]
        if let Some((mdns, _)) = &self.mdns {
            mdns.withdraw().await;
        }
    }

    /// Withdraws the announcement, ends all tasks and the mDNS daemon, and returns when they have ended; at
    /// most two seconds later. Nothing is sent to the channel after that.
    pub async fn shutdown(&self) {
        self.withdraw().await;
        let mut tasks =
            std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        tasks.shutdown().await;
        #[cfg(feature = "mdns")]
        if let Some((mdns, _)) = &self.mdns {
            mdns.shutdown().await;
        }
    }

    /// Records whether a node of the cluster answered at an address, wherever the address was found. A source
    /// without such a node is logged, and shown by [`Discovery::sources`].
    pub fn record_answer(&self, address: SocketAddr, answered: bool) {
        self.sources.record_answer(address, answered);
    }

    /// Returns the status of every configured source.
    #[must_use]
    pub fn sources(&self) -> Vec<SourceStatus> {
        self.sources.status()
    }

    /// Returns the counts since the start.
    pub fn counts(&self) -> Counts {
        self.counters.snapshot()
    }
}

/// Logs faults of sources until the receiver of the events is gone.
async fn check(sources: Arc<Sources>, event_sender: EventSender) {
    let mut times = tokio::time::interval(CHECK_EVERY);
    times.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = times.tick() => sources.check(clock::mono()),
            () = event_sender.closed() => return,
        }
    }
}

#[cfg(test)]
mod tests;
