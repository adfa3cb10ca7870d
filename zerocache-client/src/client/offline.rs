//! Clients without a network: what they ask for is answered by nodes of the core in this process.
//!
//! Usually that is one node for one client, without anybody beside it. Tests have several, in several regions,
//! for several clients (`crate::testing`). They are what servers drive, so that lifetimes, versions, leases,
//! tags and replication are what they are elsewhere. No socket is opened and no name is looked up.

mod nodes;

use std::{
    fmt,
    net::SocketAddr,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{runtime::Handle, sync::oneshot, time::sleep};
use zerocache_core::{
    call::CallFailure,
    node::{ConnectionId, RequestId},
    wire::{Request, RequestMessage},
};
use zerocache_net::{
    clock,
    transport::{Call, Transport},
};

use self::nodes::Nodes;
use super::config::Config;

/// How late what is due may be, at most and at least: a caller who waits for a lease waits so much longer.
const TICK_MAX: Duration = Duration::from_millis(100);
const TICK_MIN: Duration = Duration::from_millis(1);

/// A number that no other client or node of this process has.
pub(super) fn number() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    LAST.fetch_add(1, Relaxed) + 1
}

/// Nodes in this process, and who waits for their answers.
#[derive(Clone)]
pub(crate) struct InProcess(Arc<Mutex<Nodes>>);

/// Brings requests of one client to nodes in this process.
pub(super) struct Offline {
    nodes: InProcess,
    home: Handle,
    /// All of a client's calls come on one connection, which ends with it.
    connection: ConnectionId,
}

impl InProcess {
    /// One node, for a client with this configuration.
    pub(super) fn of_one(config: &Config) -> Self {
        Self(Arc::new(Mutex::new(Nodes::of_one(&config.cluster, &config.region, clock::now()))))
    }

    /// Nodes in these regions that know each other, and what their clock is ahead of the process's own for that.
    #[cfg(feature = "testing")]
    pub(crate) fn of_regions(cluster: &str, regions: &[String]) -> (Self, Duration) {
        let (nodes, ahead) = Nodes::of_regions(cluster, regions, clock::now());
        (Self(Arc::new(Mutex::new(nodes))), ahead)
    }

    /// Ends a node at once, as a crash does. Returns false if there is no node of this number.
    #[cfg(feature = "testing")]
    pub(crate) fn kill(&self, number: usize) -> bool {
        self.0.lock().kill(number, clock::now())
    }

    /// Starts a node again, without anything that it had. Returns false if it is there.
    #[cfg(feature = "testing")]
    pub(crate) fn revive(&self, cluster: &str, (number, region): (usize, &str)) -> bool {
        self.0.lock().revive(cluster, (number, region), clock::now())
    }

    /// Has the nodes do what is due.
    #[cfg(feature = "testing")]
    pub(crate) fn catch_up(&self) {
        self.0.lock().tick(clock::now());
    }

    /// Where the nodes are.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        self.0.lock().addresses()
    }

    /// Keeps the time of the nodes on `home`, until nothing uses them any more.
    pub(crate) fn keep_time(&self, home: &Handle) {
        home.spawn(keep_time(Arc::downgrade(&self.0)));
    }
}

impl PartialEq for InProcess {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for InProcess {}

impl fmt::Debug for InProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("InProcess").field(&Arc::as_ptr(&self.0)).finish()
    }
}

impl Offline {
    /// Brings requests to `nodes`, whose time somebody keeps. Waits end on `home`.
    pub(super) fn new(nodes: InProcess, home: Handle) -> Self {
        Self { nodes, home, connection: ConnectionId(number()) }
    }
}

/// Does what is due, until all clients of the nodes have ended.
async fn keep_time(nodes: Weak<Mutex<Nodes>>) {
    while let Some(this) = nodes.upgrade() {
        let due = this.lock().next_deadline();
        drop(this);
        sleep(due.since(clock::mono()).clamp(TICK_MIN, TICK_MAX)).await;
        if let Some(this) = nodes.upgrade() {
            this.lock().tick(clock::now());
        }
    }
}

/// A response that somebody waits for.
struct Awaited {
    nodes: InProcess,
    id: RequestId,
}

impl Drop for Awaited {
    fn drop(&mut self) {
        self.nodes.0.lock().forget(self.id);
    }
}

impl Transport for Offline {
    fn call(&self, to: SocketAddr, mut message: RequestMessage, timeout: Duration) -> Call {
        let (sender, mut receiver) = oneshot::channel();
        let now = clock::now();
        message.envelope.sent_ms = now.mono.as_millis();
        // The node ends these waits by its own clock, which may stand still.
        let waits_for_changes = matches!(
            message.request,
            Request::Follow { .. } | Request::Listen { .. } | Request::Watch { .. }
        );
        let asked = self.nodes.0.lock().ask(to, (self.connection, message, sender), now);
        let Some(id) = asked else { return Call::ready(Err(CallFailure::Refused)) };
        let awaited = Awaited { nodes: self.nodes.clone(), id };
        if let Ok(response) = receiver.try_recv() {
            return Call::ready(Ok(response));
        }
        if waits_for_changes {
            return Call::boxed(async move {
                let _awaited = awaited;
                receiver.await.map_err(|_| CallFailure::NoAnswer)
            });
        }
        let response = {
            // The caller's runtime, if it has one, need not keep time.
            let _home = self.home.enter();
            tokio::time::timeout(timeout, receiver)
        };
        Call::boxed(async move {
            let _awaited = awaited;
            match response.await {
                Ok(Ok(response)) => Ok(response),
                Ok(Err(_)) | Err(_) => Err(CallFailure::NoAnswer),
            }
        })
    }
}
