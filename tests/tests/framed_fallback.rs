//! A middlebox that does not support the upgrade: callers fall back to HTTP, and log that once for
//! each address.

use std::time::Duration;

use zerocache_client::{Ack, Status, ZerocacheClient, ops::Connections};
use zerocache_tests::cluster::{Cluster, builder};
use zerocache_tests::node::Node;
use zerocache_tests::poll::{PATIENCE, until_true};
use zerocache_tests::proxy::{Proxy, UpgradePolicy};
use zerocache_tests::setup::Setup;

/// The effect of a middlebox on a request to upgrade.
const HINDRANCES: [UpgradePolicy; 5] = [
    UpgradePolicy::Strip,
    UpgradePolicy::Answer(400),
    UpgradePolicy::Answer(501),
    UpgradePolicy::Answer(502),
    UpgradePolicy::Answer(404),
];

/// The log line for an address that is reached over HTTP only.
const WARNING: &str = "framed connection refused on the way";

fn framed(setup: Setup) -> Setup {
    setup.flag("--connections", "framed")
}

fn client(seed: std::net::SocketAddr) -> ZerocacheClient {
    let client =
        builder("london").connections(Connections::Framed).mdns(false).seed(seed.to_string());
    let client = client.build().expect("a client");
    client.wait_ready(PATIENCE).expect("a node in sync");
    client
}

fn works(client: &ZerocacheClient) {
    for n in 0..20 {
        let (key, value) = (format!("key {n}"), vec![n; usize::from(n) * 10_000]);
        let written = client.put(&key, value.as_slice(), 60).wait().expect("an answer");
        assert_eq!(written.status, Status::Stored);
        let found = client.get(&key).wait().expect("an answer").expect("a hit");
        assert!(found == value);
        client.delete(&key).wait().expect("an answer");
        assert_eq!(client.get(&key).wait().expect("an answer"), None);
    }
    assert_eq!(client.stats().errors.total(), 0);
}

#[test]
fn client_falls_back_to_http_behind_a_proxy_without_upgrades() {
    for upgrades in HINDRANCES {
        let node = framed(Setup::new("london")).start();
        let proxy = Proxy::start(node.address(), upgrades);
        let client = client(proxy.address());
        works(&client);
        // On the background runtime and from other threads and runtimes too.
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        runtime.expect("a runtime").block_on(async {
            for n in 0..50 {
                let key = format!("async {n}");
                client.put(&key, "x", 60).await.expect("an answer");
                assert!(client.get(&key).await.expect("an answer").is_some());
            }
        });
        // It asks for frames once for each runtime and lane, not for each request.
        assert!(
            (1..=4).contains(&proxy.upgrade_requests()),
            "{upgrades:?}: {}",
            proxy.upgrade_requests()
        );
        assert_eq!(client.nodes()[0].address, proxy.address());
        assert_eq!(node.stat("bad_messages") + node.stat("bad_requests"), 0);
    }
}

#[test]
fn proxy_that_forwards_upgrades_is_transparent() {
    let node = framed(Setup::new("london")).start();
    let proxy = Proxy::start(node.address(), UpgradePolicy::Forward);
    let client = client(proxy.address());
    works(&client);
    assert_eq!(proxy.upgrade_requests(), proxy.accepted(), "nothing goes over HTTP");
}

#[test]
fn nodes_log_the_http_fallback_once_per_address() {
    for upgrades in HINDRANCES {
        let london = framed(Setup::new("london")).start();
        let proxy = Proxy::start(london.address(), upgrades);
        let sydney = framed(Setup::new("sydney")).flag("--seed", proxy.address()).start();
        until_true("they know each other", || london.reaches() == 2 && sydney.reaches() == 2);
        for n in 0..30 {
            let key = format!("key {n}");
            let written = sydney.put(key.as_bytes(), &vec![1; n * 5_000], "ttl=60&ack=all");
            assert_eq!(written["replicas"], 2, "{upgrades:?}");
            assert_eq!(london.value(key.as_bytes()), Some(vec![1; n * 5_000]));
        }
        let said = |node: &Node| node.log().matches(WARNING).count();
        assert_eq!(said(&sydney), 1, "{}", sydney.log());
        let place = format!("address={}", proxy.address());
        let log = sydney.log();
        let line = log.lines().find(|line| line.contains(WARNING)).expect("it was said");
        assert!(line.contains("WARN") && line.contains(&place), "{line}");
        // In the other direction there is no middlebox.
        assert_eq!(said(&london), 0, "{}", london.log());
    }
}

#[test]
fn nodes_and_clients_of_either_kind_work_together() {
    let kinds = ["framed", "http", "framed"];
    let mut cluster = Cluster { nodes: Vec::new() };
    for (region, kind) in ["london", "london", "sydney"].iter().zip(kinds) {
        let setup = Setup::new(region).flag("--connections", kind);
        let seed = cluster.nodes.first().map(Node::address);
        let setup = seed.into_iter().fold(setup, |setup, seed| setup.flag("--seed", seed));
        cluster.nodes.push(setup.start());
    }
    cluster.wait_until_joined();
    for connections in [Connections::Framed, Connections::Http] {
        for region in ["london", "sydney"] {
            let client = cluster.client_with(region, |b| b.connections(connections));
            for n in 0..20 {
                let key = format!("{connections:?} {region} {n}");
                let put = client.put(&key, "x", 60).ack(Ack::All).deadline(PATIENCE);
                let written = put.wait().expect("an answer");
                assert_eq!(written.status, Status::Stored);
                assert_eq!(written.replicas, written.replicas_wanted);
                cluster.everywhere(key.as_bytes(), |answer| answer.status == 200);
                assert!(client.get(&key).wait().expect("an answer").is_some());
            }
        }
    }
    // Each caller that requests an upgrade of the second node logs it once; that node requests
    // none.
    for (node, said) in cluster.nodes.iter().zip([1, 0, 1]) {
        assert_eq!(node.log().matches(WARNING).count(), said, "{}", node.log());
    }
}

#[test]
fn slow_handshake_is_awaited() {
    let node = framed(Setup::new("london")).start();
    // Connecting takes a moment, because the proxy is near; the handshake does not.
    let proxy =
        Proxy::start(node.address(), UpgradePolicy::ForwardAfter(Duration::from_millis(600)));
    works(&client(proxy.address()));
}
