//! Nodes for unit tests, in the process of the test: no sockets, and a clock that the test moves.
//!
//! ```
//! use std::time::Duration;
//! use zerocache_client::{testing::Cluster, zerocache};
//!
//! #[zerocache(ttl = 60)]
//! async fn price(product: u64) -> u64 {
//!     product * 100
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), zerocache_client::Error> {
//! // In a test: #[tokio::test]
//! let cluster = Cluster::new(["london", "sydney"]);
//! let (london, sydney) = (cluster.client("london")?, cluster.client("sydney")?);
//!
//! london.scope(price(7)).await;
//! sydney.scope(price(7)).await;
//! assert_eq!((london.memo_stats().computed, sydney.memo_stats().hits), (1, 1));
//!
//! cluster.advance(Duration::from_secs(61));
//! london.scope(price(7)).await;
//! assert_eq!(london.memo_stats().computed, 2);
//! # Ok(())
//! # }
//! ```
//!
//! The nodes are those that servers run, so that lifetimes, versions, replication, leases, tags and purges are
//! what they are in production. What has no part here are networks: no call is slow, and none is lost unless its
//! node was [killed](Cluster::kill). One node alone, `Cluster::new(["london"])`, is a cache in memory.
//!
//! # Time
//!
//! A cluster has a clock of its own, which its clients use too. It goes with the clock of the runtime in which the
//! cluster was created, also if that is paused (`#[tokio::test(start_paused = true)]`, `tokio::time::advance`), and
//! outside of any with real time; [`Cluster::advance`] moves it forward. Lifetimes, stale times, leases and the near
//! cache follow it. Timeouts of single operations do not: they take real time.
//!
//! The thread that creates a cluster reads its clock until the cluster is dropped, wherever a client looks at the
//! time. Other threads that use its clients have to [enter](Clock::enter) its clock first; the tasks of a runtime with
//! one thread, which `#[tokio::test]` has, need not. Two clusters in one thread have one clock each; what is created
//! last counts. Drop them in the reverse order.

use std::{cell::RefCell, fmt, sync::Arc, time::Duration};

use tokio::runtime::{Builder, Handle, Runtime};
use zerocache_net::clock::testing::{EnteredClock, TestClock};

use crate::{ClientBuilder, Error, ZerocacheClient, client::offline::InProcess};

/// The name of all clusters.
const NAME: &str = "testing";

/// The most nodes of a cluster.
pub const NODES_MAX: usize = 64;

/// How long a client may take to get to know nodes of its own process, in real time.
const READY_TIMEOUT: Duration = Duration::from_secs(10);

/// Threads on which clients keep their time, and compute what nobody waits for.
const THREADS: usize = 2;

thread_local! {
    static CURRENT: RefCell<Option<Arc<Environment>>> = const { RefCell::new(None) };
}

/// Nodes in this process, with a clock of their own. See the [module](self).
///
/// It ends when it is dropped. Clients that are kept for longer find no current time any more.
pub struct Cluster {
    nodes: InProcess,
    regions: Vec<String>,
    environment: Arc<Environment>,
    // Dropped after the rest: this thread reads the system's clock again.
    _entered: Entered,
}

/// The clock of a cluster, for other threads than the one that created it; from [`Cluster::clock`].
#[derive(Clone)]
pub struct Clock(Arc<Environment>);

/// Makes a thread read the clock of a cluster; from [`Clock::enter`].
#[must_use = "the thread reads the clock until this is dropped"]
pub struct Entered {
    before: Option<Arc<Environment>>,
    _clock: EnteredClock,
}

/// What the clients of a cluster run in.
struct Environment {
    clock: Arc<TestClock>,
    /// Its threads read the clock.
    runtime: Option<Runtime>,
}

/// Returns the runtime of the clients that this thread makes, if it has entered a cluster.
pub(crate) fn runtime() -> Option<Handle> {
    CURRENT.with_borrow(|current| Some(current.as_ref()?.runtime.as_ref()?.handle().clone()))
}

impl Cluster {
    /// Starts one node in each of these regions, which may name one several times, and waits until they know each
    /// other. Their clock is then a few seconds ahead of the system's.
    ///
    /// # Panics
    /// If there are none or more than [`NODES_MAX`], or if the system refuses threads.
    #[must_use]
    pub fn new<R: Into<String>>(regions: impl IntoIterator<Item = R>) -> Self {
        let regions: Vec<String> = regions.into_iter().map(Into::into).collect();
        assert!(
            (1..=NODES_MAX).contains(&regions.len()),
            "a cluster of a test has 1 to {NODES_MAX} nodes"
        );
        let environment = Arc::new(Environment::new());
        let entered = environment.enter();
        let (nodes, ahead) = InProcess::of_regions(NAME, &regions);
        environment.clock.advance(ahead);
        if let Some(runtime) = &environment.runtime {
            nodes.keep_time(runtime.handle());
        }
        Self { nodes, regions, environment, _entered: entered }
    }

    /// Creates a client in `region`, which knows all nodes. Each one has computations and a near cache of its own, as
    /// if it were another process.
    ///
    /// # Errors
    /// The name of the region is not allowed, or no node is left.
    pub fn client(&self, region: impl AsRef<str>) -> Result<ZerocacheClient, Error> {
        let _inside = self.enter();
        let client = self.builder(region).build()?;
        client.wait_ready(READY_TIMEOUT)?;
        Ok(client)
    }

    /// Creates a client with settings, such as a namespace or a codec. Those that say how nodes are found have no
    /// effect.
    pub fn builder(&self, region: impl AsRef<str>) -> ClientBuilder {
        ZerocacheClient::builder(region).cluster(NAME).nodes(self.nodes.clone())
    }

    /// Moves the clock forward. The nodes do what was due meanwhile.
    pub fn advance(&self, by: Duration) {
        self.environment.clock.advance(by);
        let _inside = self.enter();
        self.nodes.catch_up();
    }

    /// Ends a node at once, as a crash does: `0` is the first one of [`new`](Self::new). The others notice when they
    /// call it.
    ///
    /// # Panics
    /// If there is no such node, or none any more.
    pub fn kill(&self, node: usize) {
        let _inside = self.enter();
        assert!(self.nodes.kill(node), "there is no node {node}");
    }

    /// Starts a node again that was [killed](Self::kill), with nothing of what it had. It copies what the others have
    /// as time passes; clients find it within a second.
    ///
    /// # Panics
    /// If there is no such node, or it was not killed.
    pub fn revive(&self, node: usize) {
        let _inside = self.enter();
        let region = self.regions.get(node).map_or("", String::as_str);
        let is_revived = !region.is_empty() && self.nodes.revive(NAME, (node, region));
        assert!(is_revived, "there is no node {node} that was killed");
    }

    /// Returns the clock, for other threads.
    #[must_use]
    pub fn clock(&self) -> Clock {
        Clock(Arc::clone(&self.environment))
    }

    fn enter(&self) -> Entered {
        self.environment.enter()
    }
}

impl Clock {
    /// Makes this thread read the clock of the cluster, until the result is dropped.
    pub fn enter(&self) -> Entered {
        self.0.enter()
    }
}

impl Environment {
    fn new() -> Self {
        let clock = TestClock::start();
        let of_threads = Arc::clone(&clock);
        let runtime = Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("zerocache-testing")
            .on_thread_start(move || of_threads.enter_for_good())
            .enable_all()
            .build();
        let runtime = runtime.expect("the system has threads for a test");
        Self { clock, runtime: Some(runtime) }
    }

    fn enter(self: &Arc<Self>) -> Entered {
        let clock = self.clock.enter();
        Entered { before: CURRENT.replace(Some(Arc::clone(self))), _clock: clock }
    }
}

impl Drop for Environment {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Tests drop it inside of a runtime, where waiting is not allowed.
            runtime.shutdown_background();
        }
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        CURRENT.set(self.before.take());
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { nodes, regions, environment, .. } = self;
        f.debug_struct("Cluster")
            .field("nodes", nodes)
            .field("regions", regions)
            .field("clock", &environment.clock)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Clock").field(&self.0.clock).finish()
    }
}

impl fmt::Debug for Entered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entered").finish_non_exhaustive()
    }
}
