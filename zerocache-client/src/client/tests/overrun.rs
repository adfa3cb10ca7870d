//! A client so slow to ask for changes that the node no longer remembers all of them.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};
use zerocache_core::{
    call::CallFailure,
    key::Key,
    limits::{KEY_BYTES_WIRE_MAX, Limits},
    metadata::Metadata,
    node::{Caller, ConnectionId, Effect, Input, Node, NodeConfig, RequestId, Write, WriteOp},
    store::{Capacity, Store},
    ttl::Ttl,
    wire::{NodeState, Request, RequestMessage, Response, features},
};
use zerocache_net::{
    clock,
    transport::{Call, Transport},
};
use zerocache_server::storage::Mutexes;

use super::{Config, ReadOptions, SocketAddr, address, engine_over, info};
use crate::client::near_read::NearRead;
use crate::{
    client::{engine::Engine, feed::Feed},
    near::{NearSettings, NearStats},
};

/// As many changes as the node remembers.
const ROWS: u64 = 65_536;

/// So long that nothing goes because of its age.
const NO_AGE: Duration = Duration::from_secs(3_600);

/// How long the test waits for anything: far longer than it takes, and shorter than a client follows
/// for nobody, after which the cache is empty in any case.
const PATIENCE: Duration = Duration::from_secs(30);

/// A node of the core in this process, and those who wait for its answers.
struct Standing {
    node: Mutex<Node<Mutexes>>,
    waiting: Mutex<HashMap<RequestId, oneshot::Sender<Response>>>,
    next: AtomicU64,
    /// Whether those who ask for changes are held up on their way to it.
    holds: watch::Sender<bool>,
    /// How many of them are.
    held: AtomicU64,
}

impl Standing {
    async fn start() -> Arc<Self> {
        let config = NodeConfig {
            cluster: Config::new("oslo").cluster,
            info: info(1, "oslo"),
            limits: Limits::default(),
            warm_max_ms: 1,
            outbox_bytes_max: 1 << 20,
            changes_every_ms: NodeConfig::CHANGES_EVERY_MS,
            hot_forwards_per_s: NodeConfig::HOT_FORWARDS_PER_S,
            features: features::ALL,
            requires_tls: false,
            has_snapshot: false,
            secret: [1; 32],
        };
        let capacity = Capacity { entries_max: 2 * ROWS, bytes_max: 64 << 20 };
        let node = Node::new(config, Arc::new(Store::new(capacity)), clock::now());
        let standing = Arc::new(Self {
            node: Mutex::new(node),
            waiting: Mutex::default(),
            next: AtomicU64::new(0),
            holds: watch::Sender::default(),
            held: AtomicU64::new(0),
        });
        standing.handle([Input::DiscoveryComplete]);
        let ticking = Arc::downgrade(&standing);
        tokio::spawn(async move {
            while let Some(standing) = ticking.upgrade() {
                standing.handle([Input::Tick]);
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        let ready = async {
            while standing.node.lock().state() != NodeState::InSync {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(PATIENCE, ready).await.expect("a node in sync");
        standing
    }

    fn id(&self) -> RequestId {
        RequestId(self.next.fetch_add(1, Relaxed))
    }

    fn handle(&self, inputs: impl IntoIterator<Item = Input>) {
        let mut effects = Vec::new();
        self.node.lock().handle_all(clock::now(), inputs, &mut effects);
        for effect in effects {
            let Effect::Respond { id, response } = effect else { continue };
            match self.waiting.lock().remove(&id) {
                // Whoever asked may have gone.
                Some(waiting) => drop(waiting.send(response)),
                None => assert!(matches!(response, Response::Written(_)), "{response:?}"),
            }
        }
    }

    /// Somebody else's writes of these keys.
    fn write<'a>(&self, keys: impl IntoIterator<Item = &'a str>, value: &'static str) {
        let write = |key: &str| Input::Write {
            id: self.id(),
            write: Write::new(
                parsed(key),
                WriteOp::Put {
                    value: Bytes::from_static(value.as_bytes()),
                    metadata: Metadata::default().encode(),
                    ttl: Ttl::try_from(Duration::from_secs(600)).expect("is allowed"),
                },
            ),
        };
        self.handle(keys.into_iter().map(write));
    }
}

/// The way to it.
struct Way(Arc<Standing>);

impl Transport for Way {
    fn call(&self, _: SocketAddr, message: RequestMessage, _: Duration) -> Call {
        let standing = Arc::clone(&self.0);
        Call::boxed(async move {
            if matches!(message.request, Request::Follow { .. }) {
                let mut holds = standing.holds.subscribe();
                standing.held.fetch_add(1, Relaxed);
                let goes_on = holds.wait_for(|holds| !holds).await;
                standing.held.fetch_sub(1, Relaxed);
                goes_on.map_err(|_| CallFailure::NoAnswer)?;
            }
            let (sender, answer) = oneshot::channel();
            let id = standing.id();
            standing.waiting.lock().insert(id, sender);
            let connection = ConnectionId(0);
            standing.handle([Input::Request {
                id,
                connection,
                caller: Caller::unauthenticated(None),
                message,
            }]);
            answer.await.map_err(|_| CallFailure::NoAnswer)
        })
    }
}

fn parsed(key: &str) -> Key {
    Key::within(Bytes::copy_from_slice(key.as_bytes()), KEY_BYTES_WIRE_MAX).expect("a key")
}

async fn read(engine: &Engine, key: &str) -> Bytes {
    let mut read = engine
        .get_many(vec![parsed(key)], ReadOptions::default(), NearRead::new(Some(None)), 60_000)
        .await;
    read.remove(0).expect("an answer").entry.expect("is stored").value
}

fn stats(engine: &Engine) -> NearStats {
    let local = &engine.local;
    local.near.as_ref().expect("is on").stats(&local.memo)
}

/// Waits until `done` says so, and does meanwhile what a client does in the background.
async fn until(what: &str, engine: &Arc<Engine>, feed: &mut Feed, done: impl AsyncFn() -> bool) {
    let waits = async {
        while !done().await {
            feed.keep(engine);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waits).await.unwrap_or_else(|_| panic!("no {what}"));
}

#[tokio::test]
async fn who_asks_for_changes_too_late_serves_nothing_stale() {
    let standing = Standing::start().await;
    let mut config = Config::new("oslo");
    config.near = NearSettings { age_max: NO_AGE, ..config.near };
    let engine = engine_over(config, Arc::new(Way(Arc::clone(&standing))));
    {
        let mut directory = engine.directory();
        let node = info(1, "oslo");
        let id = node.incarnation;
        directory.handshake_completed(node, address(1), clock::mono(), 100);
        directory.set_features(id, features::ALL, clock::mono());
    }
    let mut feed = Feed::default();
    standing.write(["k", "kept"], "old");
    until("near hit", &engine, &mut feed, async || {
        let before = stats(&engine).hits;
        assert_eq!(
            (read(&engine, "k").await, read(&engine, "kept").await),
            ("old".into(), "old".into())
        );
        stats(&engine).hits == before + 2
    })
    .await;

    // The client gets to asking again only after more changes than the node remembers.
    standing.holds.send_replace(true);
    until("held question", &engine, &mut feed, async || standing.held.load(Relaxed) == 1).await;
    let before = stats(&engine);
    let lost = standing.node.lock().feed_counts().gaps;
    standing.write(["k"], "new");
    let others: Vec<_> = (0..ROWS).map(|n| format!("other-{n}")).collect();
    // In parts: a node that does nothing else for seconds takes itself for one that was stopped.
    for part in others.chunks(4_096) {
        standing.write(part.iter().map(String::as_str), "v");
    }
    assert_eq!(
        stats(&engine),
        NearStats { hits: before.hits, ..before },
        "it knows of nothing yet"
    );
    standing.holds.send_replace(false);
    until("empty cache", &engine, &mut feed, async || stats(&engine).cleared > before.cleared)
        .await;
    assert_eq!(standing.node.lock().feed_counts().gaps, lost + 1, "the node has said so");

    // From here on nothing old is served, and the same node is followed further.
    let after = stats(&engine);
    assert_eq!(after.invalidated, before.invalidated, "no row told of it");
    until("near hit", &engine, &mut feed, async || {
        let hits = stats(&engine).hits;
        assert_eq!(
            (read(&engine, "k").await, read(&engine, "kept").await),
            ("new".into(), "old".into())
        );
        stats(&engine).hits == hits + 2
    })
    .await;
    assert_eq!(stats(&engine).cleared, before.cleared + 1);
    standing.write(["k"], "newer");
    until("the newer value", &engine, &mut feed, async || read(&engine, "k").await == "newer")
        .await;
}
