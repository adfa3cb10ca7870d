//! The node of a client without a network: one of the core, in this process, for this client alone.
//!
//! It is what a server drives, without anybody beside it, so that lifetimes, versions, leases and tags are what
//! they are elsewhere. No socket is opened and no name is looked up.

use std::{
    collections::HashMap,
    net::{Ipv4Addr, SocketAddr},
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
    limits::Limits,
    node::{Caller, ConnectionId, Effect, Input, Node, NodeConfig, RequestId},
    store::{Backend, Capacity, Discard, Lock, Store},
    version::Incarnation,
    wire::{NodeInfo, NodeState, RequestMessage, Response, features},
};
use zerocache_net::{
    clock,
    transport::{Call, Transport},
};

use super::config::Config;

/// Where it is said to stand: an address for documentation (RFC 5737), at which nobody is.
pub(super) const ADDRESS: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 6789);

/// How many bytes it keeps at most: so many that values may be as large as nodes take them.
const BYTES_MAX: u64 = 128 << 20;

/// How late what is due may be, at most and at least: a caller who waits for a lease waits so much longer.
const TICK_MAX: Duration = Duration::from_millis(100);
const TICK_MIN: Duration = Duration::from_millis(1);

/// All of a client's calls come on one connection, which ends with it.
const CONNECTION: ConnectionId = ConnectionId(0);

/// Locks for many threads.
struct Mutexes;

struct ShardLock<T>(Mutex<T>);

impl Backend for Mutexes {
    type Lock<T> = ShardLock<T>;
    type Pages = Box<[u8]>;
    type Evictions = Discard;
}

impl<T> Lock<T> for ShardLock<T> {
    fn new(value: T) -> Self {
        Self(Mutex::new(value))
    }

    fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        f(&mut self.0.lock())
    }
}

/// A number that no other client of this process has.
pub(super) fn number() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    LAST.fetch_add(1, Relaxed) + 1
}

/// Brings requests to a node in this process.
pub(super) struct Offline {
    shared: Arc<Shared>,
    home: Handle,
}

struct Shared {
    node: Mutex<Node<Mutexes>>,
    /// Who waits for a response.
    waiting: Mutex<HashMap<RequestId, oneshot::Sender<Response>>>,
    next: AtomicU64,
}

impl Offline {
    /// A node for a client with this configuration; its time is kept on `home`.
    pub(super) fn new(config: &Config, home: Handle) -> Self {
        let store = Store::new(Capacity { entries_max: u64::MAX, bytes_max: BYTES_MAX });
        let node = Node::new(node_config(config), Arc::new(store), clock::now());
        let shared = Arc::new(Shared {
            node: Mutex::new(node),
            waiting: Mutex::default(),
            next: AtomicU64::new(0),
        });
        // There is nobody to be found.
        shared.handle(Input::DiscoveryComplete);
        shared.handle(Input::Tick);
        home.spawn(keep_time(Arc::downgrade(&shared)));
        Self { shared, home }
    }
}

fn node_config(config: &Config) -> NodeConfig {
    NodeConfig {
        cluster: config.cluster.clone(),
        info: NodeInfo {
            incarnation: Incarnation(number()),
            region: config.region.clone(),
            zone: None,
            addresses: vec![ADDRESS],
            state: NodeState::Warming,
            bytes_max: BYTES_MAX,
        },
        limits: Limits::default(),
        warm_max_ms: 0,
        outbox_bytes_max: 0,
        features: features::ALL,
        requires_tls: false,
        has_snapshot: false,
        secret: [0; 32],
    }
}

/// Ticks the node until its client has ended.
async fn keep_time(shared: Weak<Shared>) {
    while let Some(this) = shared.upgrade() {
        let due = this.node.lock().next_deadline();
        drop(this);
        sleep(due.since(clock::mono()).clamp(TICK_MIN, TICK_MAX)).await;
        if let Some(this) = shared.upgrade() {
            this.handle(Input::Tick);
        }
    }
}

impl Shared {
    fn handle(&self, input: Input) {
        let (mut inputs, mut effects) = (vec![input], Vec::new());
        while !inputs.is_empty() {
            self.node.lock().handle_all(clock::now(), inputs.drain(..), &mut effects);
            for effect in effects.drain(..) {
                match effect {
                    Effect::Respond { id, response } => {
                        if let Some(waiting) = self.waiting.lock().remove(&id) {
                            // It may have gone.
                            let _ = waiting.send(response);
                        }
                    }
                    Effect::Call { call, .. } => {
                        let result = Err(CallFailure::Refused);
                        inputs.push(Input::CallCompleted { call, result, elapsed_us: 0 });
                    }
                    Effect::Datagram { .. }
                    | Effect::State(_)
                    | Effect::Restore
                    | Effect::Event(_) => {}
                }
            }
        }
    }

    /// Forgets who waited for a response.
    fn forget(&self, id: RequestId) {
        self.waiting.lock().remove(&id);
    }
}

/// A response that somebody waits for.
struct Awaited {
    shared: Arc<Shared>,
    id: RequestId,
}

impl Drop for Awaited {
    fn drop(&mut self) {
        self.shared.forget(self.id);
    }
}

impl Transport for Offline {
    fn call(&self, _: SocketAddr, mut message: RequestMessage, timeout: Duration) -> Call {
        let id = RequestId(self.shared.next.fetch_add(1, Relaxed));
        let (sender, mut receiver) = oneshot::channel();
        self.shared.waiting.lock().insert(id, sender);
        let awaited = Awaited { shared: Arc::clone(&self.shared), id };
        message.envelope.sent_ms = clock::mono().as_millis();
        self.shared.handle(Input::Request {
            id,
            connection: CONNECTION,
            caller: Caller::unauthenticated(None),
            message,
        });
        if let Ok(response) = receiver.try_recv() {
            return Call::ready(Ok(response));
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
