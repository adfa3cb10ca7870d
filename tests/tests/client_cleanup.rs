//! Resources of dropped clients. Alone in this binary, because it counts those of the whole
//! process.

use std::path::Path;
use std::time::Duration;

use zerocache_client::{ClientBuilder, ZerocacheClient, ops::Connections};
use zerocache_tests::cluster::{Cluster, builder};
use zerocache_tests::namespace;
use zerocache_tests::poll::{PATIENCE, time_until};

/// Concurrent clients.
const CLIENTS: usize = 60;

/// With mDNS each has a thread and sockets of its own.
const CLIENTS_WITH_MDNS: usize = 20;

/// In this time everything of them goes: long before the 30 s after which a connection without
/// calls is closed, and the 20 s after which one over HTTP is.
const SOON: Duration = Duration::from_secs(10);

/// Connections that the first client may open after it was counted: one to each node. Clients that left anything
/// would leave more, since each of them would.
const LATER: usize = 3;

/// Files and threads of this process.
fn held() -> (usize, usize) {
    let count = |of: &str| {
        let path = Path::new("/proc/self").join(of);
        std::fs::read_dir(path).expect("Linux tells").count()
    };
    (count("fd"), count("task"))
}

/// Makes clients that work, ends them, and waits until nothing is left.
fn come_and_go(what: &str, count: usize, build: impl Fn() -> ClientBuilder) {
    let client = || {
        let client = build().build().expect("the configuration is allowed");
        client.wait_ready(PATIENCE).expect("a node");
        client.put("key", "value", 60).wait().expect("a node");
        client
    };
    let first = client();
    let before = held();
    let others: Vec<ZerocacheClient> = (0..count).map(|_| client()).collect();
    let during = held();
    assert!(during.0 >= before.0 + count, "{what}: {during:?} with all, {before:?} with one");
    drop(others);
    let mut now = held();
    let gone = time_until(SOON, || {
        now = held();
        now.0 <= before.0 + LATER && now.1 <= before.1
    });
    assert!(gone.is_some(), "{what}: {now:?} are left of {during:?}, with one client {before:?}");
    drop(first);
}

#[test]
fn dropped_clients_release_all_resources() {
    let cluster = Cluster::start(&["london", "london", "paris"]);
    let seeds = || cluster.nodes.iter().map(|node| node.address().to_string());
    for connections in [Connections::Framed, Connections::Http] {
        come_and_go(&format!("{connections:?}"), CLIENTS, || {
            let builder = builder("london").mdns(false).seeds(seeds());
            builder.connections(connections)
        });
    }
    drop(cluster);
    namespace::run("dropped_clients_release_all_resources", || {
        let cluster = Cluster::start(&["london"]);
        let seed = cluster[0].address().to_string();
        come_and_go("mDNS", CLIENTS_WITH_MDNS, || builder("london").seed(&seed));
    });
}
