//! Finding addresses where nodes may be: mDNS, DNS names, seeds.
//!
//! Discovery proposes addresses and nothing more. Who is a member, and of which cluster and region,
//! is decided by the handshake with whoever answers there. Servers and clients use this module
//! alike; only a server calls [`Discovery::announce`].
//!
//! What always holds:
//!
//! - What is known is proposed again every [`DiscoveryConfig::interval`], changed or not, so a
//!   receiver may forget a proposal that it cannot use, and one that was lost to a full channel
//!   comes again. Receivers must take a repeated proposal without effect.
//! - Nothing here waits for the receiver, except [`Event::Complete`], which is never lost.
//! - No failure is fatal: a name that does not resolve and a network without multicast are logged
//!   and tried again.

mod browse;
mod counts;
mod discovery_set;
mod error;
mod event_sender;
#[doc(hidden)]
pub mod fuzzing;
mod host_port;
mod interface;
mod mdns;
mod record;
mod resolve;
mod sources;

use std::net::{IpAddr, SocketAddr};
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
use event_sender::EventSender;
use mdns::Mdns;
use resolve::Name;
use sources::Sources;

use crate::clock;

/// Default time between two answers of the same source: short enough that a new pod is found within
/// seconds, long enough that a resolver does not notice.
pub const INTERVAL_DEFAULT: Duration = Duration::from_secs(5);

/// The longest time from [`Discovery::start`] to [`Event::Complete`]: mDNS answers after a good second and
/// a half, and a lookup that takes longer than two seconds has failed.
pub const INITIAL_DISCOVERY_MAX: Duration = Duration::from_secs(3);

/// How often it is looked what is missing, to be warned of.
const CHECK_EVERY: Duration = Duration::from_secs(1);

/// The most names, and the most seeds, that one configuration may hold.
pub const NAMES_MAX: usize = 64;

/// The most addresses that one name is taken to have; what an answer holds beyond is counted and
/// left out. Nodes left out are still told by the members in the handshake.
pub const ADDRESSES_PER_NAME_MAX: usize = 256;

/// The most mDNS records kept at a time: the thousand nodes of the largest membership that is
/// tested. Beyond it a new record replaces one that was already proposed, and is counted.
pub const RECORDS_MAX: usize = 1024;

/// The most addresses taken from one mDNS record.
pub const ADDRESSES_PER_RECORD_MAX: usize = 16;

/// What to look at for addresses.
#[derive(Debug, Clone)]
pub struct DiscoveryConfig {
    /// The cluster whose mDNS records are taken; a [name](zerocache_core::name).
    pub cluster: String,
    /// Use mDNS; `None` starts no multicast at all.
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
}

/// How to use mDNS.
#[derive(Debug, Clone, Default)]
pub struct MdnsConfig {
    /// The one interface to use; `None` uses all that are up.
    pub interface: Option<Interface>,
}

/// A way of discovery.
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
    /// Its name, as programs are told.
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

/// What discovery has to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// There may be a node.
    Proposed(Proposal),
    /// The mDNS record of a node is gone, by its goodbye, a forged one, or its time to live. Verify
    /// before believing. A name never withdraws anything.
    Withdrawn(Proposal),
    /// Every source has given its first answer, or [`INITIAL_DISCOVERY_MAX`] has passed. Said once. A name that does
    /// not resolve has given none, nor has mDNS before its silence means something.
    Complete,
}

/// What a node says of itself over mDNS.
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
    /// Announce also under the type that the Python package zerocache 0.0.2 looks for. It can use
    /// IPv4 addresses only, and does not know clusters.
    pub python: bool,
}

/// Running discovery. Dropping it ends its tasks and the mDNS daemon without waiting for either;
/// [`Discovery::shutdown`] waits.
#[derive(Debug)]
pub struct Discovery {
    cluster: String,
    mdns: Option<Arc<Mdns>>,
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
        record::check_name("cluster", &config.cluster)?;
        for (what, names) in [("DNS names", &config.dns), ("seeds", &config.seeds)] {
            if names.len() > NAMES_MAX {
                return Err(DiscoveryError::TooManyNames { what, given: names.len() });
            }
        }
        let interval = config.interval.max(Duration::from_millis(100));
        let counters = Arc::new(Counters::default());
        let outlet = EventSender::new(events, Arc::clone(&counters));
        let mut tasks = JoinSet::new();
        // Every source holds a clone until its first answer; the channel closes after the last.
        let (first_answer, mut all_answered) = mpsc::channel::<()>(1);

        let sources = Arc::new(Sources::default());
        let mdns = config.mdns.as_ref().map(|mdns| Mdns::start(mdns, Arc::clone(&sources)));
        let mdns = mdns.map(Arc::new);
        if let Some(mdns) = &mdns {
            tasks.spawn(browse::run(
                Arc::clone(mdns),
                config.cluster.clone(),
                interval,
                outlet.clone(),
                first_answer.clone(),
            ));
        }
        let dns = config.dns.into_iter().map(|name| (name, Source::Dns));
        let seeds = config.seeds.into_iter().map(|name| (name, Source::Seed));
        for (name, source) in dns.chain(seeds) {
            let (id, sources) = (sources.add_name(source, &name), Arc::clone(&sources));
            let name = Name { name, source, id, sources, outlet: outlet.clone() };
            tasks.spawn(resolve::run(name, interval, first_answer.clone()));
        }
        tasks.spawn(check(Arc::clone(&sources), outlet.clone()));
        drop(first_answer);
        tasks.spawn(async move {
            let _ = tokio::time::timeout(INITIAL_DISCOVERY_MAX, all_answered.recv()).await;
            outlet.settled().await;
        });
        Ok(Self { cluster: config.cluster, mdns, tasks: Mutex::new(tasks), counters, sources })
    }

    /// Makes this node known by mDNS, from now on and until [`Discovery::withdraw`]; without mDNS it
    /// does nothing. A second call replaces what the first said.
    ///
    /// # Errors
    ///
    /// For a bad region, or port 0. What the mDNS daemon does not take now it is given again.
    pub fn announce(&self, announcement: &Announcement) -> Result<(), DiscoveryError> {
        record::check_name("region", &announcement.region)?;
        if announcement.port == 0 {
            return Err(DiscoveryError::NoPort);
        }
        match &self.mdns {
            Some(mdns) => mdns.announce(&self.cluster, announcement),
            None => Ok(()),
        }
    }

    /// Says goodbye for what was announced, and returns when the goodbye is sent; at most half a
    /// second later. Browsing goes on. Without an announcement it does nothing.
    pub async fn withdraw(&self) {
        if let Some(mdns) = &self.mdns {
            mdns.withdraw().await;
        }
    }

    /// Withdraws, ends all tasks and the mDNS daemon, and returns when the tasks have ended and the
    /// daemon has said that it does; at most two seconds later. Nothing is sent to the channel after
    /// that.
    pub async fn shutdown(&self) {
        self.withdraw().await;
        let mut tasks =
            std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        tasks.shutdown().await;
        if let Some(mdns) = &self.mdns {
            mdns.shutdown().await;
        }
    }

    /// Takes note of whether a node of the cluster answered at an address, wherever it was found. What
    /// is found missing by that is warned of, and told by [`Discovery::sources`].
    pub fn record_answer(&self, address: SocketAddr, answered: bool) {
        self.sources.answered(address, answered);
    }

    /// Returns every configured source, and what became of it.
    #[must_use]
    pub fn sources(&self) -> Vec<SourceStatus> {
        self.sources.status()
    }

    /// Returns what was counted since the start.
    pub fn counts(&self) -> Counts {
        self.counters.snapshot()
    }
}

/// Warns of what is missing until the receiver of the events is gone.
async fn check(sources: Arc<Sources>, outlet: EventSender) {
    let mut times = tokio::time::interval(CHECK_EVERY);
    times.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = times.tick() => sources.check(clock::mono()),
            () = outlet.closed() => return,
        }
    }
}

#[cfg(test)]
mod tests;
