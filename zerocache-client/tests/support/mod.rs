//! The cache that these tests run against. They need nothing else of it, so that what stands
//! behind these two functions can be changed here alone.

#![allow(dead_code, unreachable_pub, reason = "each test uses a part")]

pub mod dam;
pub mod gate;
pub mod log;

use std::collections::HashMap;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::{LazyLock, Mutex};
use std::time::Duration;

use futures_util::future::poll_immediate;
use zerocache_client::{ClientBuilder, ZerocacheClient};
use zerocache_server::EmbeddedNode;
use zerocache_server::config::{DiscoverySet, ServerConfig};

/// The node behind all tests of one binary; it ends with the process.
static NODE: LazyLock<EmbeddedNode> = LazyLock::new(|| {
    let mut config = node_config("client-tests");
    config.max_connections = 1_024;
    EmbeddedNode::start(config, Duration::from_secs(10)).expect("a node on a free port")
});

/// The configuration of a node in london on a free port of loopback that finds nobody.
pub fn node_config(cluster: &str) -> ServerConfig {
    let mut config = ServerConfig::new("london");
    config.cluster = cluster.to_owned();
    config.addresses = vec![[127, 0, 0, 1].into()];
    config.port = 0;
    config.max_bytes = 64 << 20;
    config.discovery = DiscoverySet::NONE;
    config
}

static CLIENTS: LazyLock<Mutex<HashMap<String, ZerocacheClient>>> = LazyLock::new(Mutex::default);

/// A builder of a client in `region` that knows the node and uses no multicast.
pub fn builder(region: &str) -> ClientBuilder {
    seeded(region, NODE.address())
}

fn seeded(region: &str, seed: SocketAddr) -> ClientBuilder {
    ZerocacheClient::builder(region).cluster("client-tests").mdns(false).seed(seed.to_string())
}

fn named(name: &str, build: impl FnOnce() -> ClientBuilder) -> ZerocacheClient {
    let mut clients = CLIENTS.lock().expect("no test panics while it holds the lock");
    let make = || build().build().expect("the configuration is allowed");
    clients.entry(name.to_owned()).or_insert_with(make).clone()
}

/// The client of London, the region that attributes name: one of a cache that works.
pub fn client() -> ZerocacheClient {
    builder("london").install().expect("the configuration is always the same")
}

/// A client that reaches no node: nobody listens on its port.
pub fn dead() -> ZerocacheClient {
    named("dead", || seeded("dead", SocketAddr::from(([127, 0, 0, 1], 1))))
}

/// Another client of the same cache, with counts of its own.
pub fn other(name: &str) -> ZerocacheClient {
    named(name, || builder("london"))
}

/// Runs a test whose memoized calls all use [`client`], and ends it when it hangs.
pub async fn cached<F: Future>(test: F) -> F::Output {
    bounded(client().scope(test)).await
}

/// Ends a test that hangs.
pub async fn bounded<F: Future>(test: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(20), test).await.expect("the test hangs")
}

/// Polls a call until `done`; it must not end before.
pub async fn poll_until<F: Future + Unpin>(call: &mut F, done: impl Fn() -> bool) {
    while !done() {
        assert!(poll_immediate(&mut *call).await.is_none(), "the call ends too early");
        tokio::task::yield_now().await;
    }
}

/// Runs a test that blocks on a thread of its own, and ends it when it hangs.
pub fn in_time(test: impl FnOnce() + Send + 'static) {
    let (done, finished) = std::sync::mpsc::sync_channel(1);
    let thread = std::thread::spawn(move || {
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(test));
        let _ = done.send(());
        if let Err(panic) = result {
            std::panic::resume_unwind(panic);
        }
    });
    finished.recv_timeout(Duration::from_secs(20)).expect("the test hangs");
    thread.join().expect("the test passes");
}

/// A runtime of one thread, to block in.
pub fn current_thread(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(test);
}
