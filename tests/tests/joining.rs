//! Real servers and clients that find each other: by one seed, by mDNS, by DNS; clusters that stay
//! apart; announcements that make no sense.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};

use mdns_sd::{IfKind, ServiceDaemon, ServiceInfo};
use zerocache_client::{ErrorKind, ZerocacheClient};
use zerocache_tests::cluster::{self, Cluster};
use zerocache_tests::namespace;
use zerocache_tests::node::Node;
use zerocache_tests::poll::{PATIENCE, timed, until_true};
use zerocache_tests::security::Keys;
use zerocache_tests::setup::{Access, Setup};

const NATIVE: &str = "_zerocache._tcp.local.";

/// Three regions with two nodes each.
const SIX: [&str; 6] = ["london", "london", "sydney", "sydney", "oslo", "oslo"];

fn by_mdns(region: &str, cluster: &str) -> Node {
    let setup = Setup::new(region).flag("--cluster", cluster);
    setup.flag("--discovery", "mdns").flag("--mdns-interface", "lo").start_with_discovery()
}

fn client_by_mdns(region: &str, cluster: &str) -> ZerocacheClient {
    let builder = cluster::builder_of(region, cluster).mdns_interface("lo");
    builder.build().expect("a client")
}

fn knows(client: &ZerocacheClient, nodes: &[Node]) {
    client.wait_ready(PATIENCE).expect("a node in sync");
    let mut wanted: Vec<SocketAddr> = nodes.iter().map(Node::address).collect();
    wanted.sort_unstable();
    until_true("a client that knows these nodes", || {
        let mut known: Vec<SocketAddr> = client.nodes().iter().map(|node| node.address).collect();
        known.sort_unstable();
        known == wanted
    });
}

/// A write through the client is on all nodes, so that the views are of use.
fn is_whole(cluster: &Cluster, client: &ZerocacheClient) {
    knows(client, &cluster.nodes);
    client.put("whole", "yes", 60).wait().expect("stored");
    cluster.everywhere(b"whole", |answer| answer.body == b"yes");
}

#[test]
fn one_seed_is_enough_for_three_regions() {
    let cluster = Cluster::start(&SIX);
    is_whole(&cluster, &cluster.client("oslo"));
}

#[test]
fn nodes_and_a_client_find_each_other_by_mdns() {
    namespace::run("nodes_and_a_client_find_each_other_by_mdns", || {
        let nodes = SIX.map(|region| by_mdns(region, "zerocache")).into();
        let cluster = Cluster { nodes };
        cluster.wait_until_joined();
        is_whole(&cluster, &client_by_mdns("sydney", "zerocache"));
    });
}

/// The number of keys that are stored before a node comes back.
const STORED: u64 = 300;

#[test]
fn late_starter_waits_until_mdns_can_answer() {
    namespace::run("late_starter_waits_until_mdns_can_answer", || {
        let start = |n: usize| {
            let mut setup = Setup::new("london");
            setup.listen = format!("127.0.0.{}:6789", n + 2).parse().expect("an address");
            let setup = setup.flag("--discovery", "mdns").flag("--mdns-interface", "lo");
            setup.start_with_discovery()
        };
        let mut cluster = Cluster { nodes: (0..4).map(start).collect() };
        cluster.wait_until_joined();
        let client = client_by_mdns("london", "zerocache");
        knows(&client, &cluster.nodes);
        let entries = (0..STORED).map(|n| (n.to_string(), "value"));
        client.put_many(entries, 3_600).wait().expect("stored");
        for node in &cluster.nodes {
            until_true("all entries", || node.stat("entries") >= STORED);
        }
        for round in 0..4 {
            // Its query is answered; for a second no responder repeats the answer.
            let asks = client_by_mdns("london", "zerocache");
            until_true("an answer", || !asks.nodes().is_empty());
            cluster[3].kill();
            cluster[3] = start(3);
            let new = client_by_mdns("london", "zerocache");
            let written = new.put("written", format!("{round}"), 60).wait();
            written.expect("there are healthy nodes");
            // When it reports that it is ready, it has all entries of the others.
            until_true("a node that is ready", || cluster[3].is_ready());
            let held = cluster[3].stat("entries");
            assert!(held >= STORED, "ready with {held} entries");
            cluster.wait_until_joined();
        }
    });
}

#[test]
fn nodes_and_a_client_find_each_other_by_dns() {
    let hosts: String = (2..=5).map(|n| format!("127.0.0.{n} cache.test\n")).collect();
    namespace::run_with_hosts("nodes_and_a_client_find_each_other_by_dns", &hosts, || {
        let places = ["london 127.0.0.2", "london 127.0.0.3", "sydney 127.0.0.4"];
        let nodes = places.iter().map(|place| {
            let (region, ip) = place.split_once(' ').expect("a place");
            let mut setup = Setup::new(region);
            // The namespace is ours alone, so the port is free in it; there is no node at
            // 127.0.0.5.
            setup.listen = format!("{ip}:6789").parse().expect("an address");
            setup.flag("--discovery", "dns").flag("--dns", "cache.test:6789").start_with_discovery()
        });
        let cluster = Cluster { nodes: nodes.collect() };
        cluster.wait_until_joined();
        let builder = cluster::builder("london").mdns(false).dns("cache.test:6789");
        is_whole(&cluster, &builder.build().expect("a client"));
    });
}

#[test]
fn late_node_joins_and_a_departed_one_is_forgotten() {
    let mut cluster = Cluster::start(&["london", "sydney"]);
    let client = cluster.client("london");
    // Its seed is not the first node.
    let late = Setup::new("london").flag("--seed", cluster[1].address()).start();
    cluster.nodes.push(late);
    cluster.wait_until_joined();
    knows(&client, &cluster.nodes);
    let mut leaving = cluster.nodes.remove(0);
    leaving.shut_down();
    assert_eq!(leaving.ended().code(), Some(0));
    cluster.wait_until_joined();
    is_whole(&cluster, &client);
}

#[test]
fn two_clusters_do_not_mix_by_mdns() {
    namespace::run("two_clusters_do_not_mix_by_mdns", || {
        let start = |name| {
            let nodes = ["london", "london", "sydney"].map(|region| by_mdns(region, name));
            Cluster { nodes: nodes.into() }
        };
        let (staging, production) = (start("staging"), start("production"));
        stay_apart(&staging, &production);
        let (a, b) = (client_by_mdns("london", "staging"), client_by_mdns("sydney", "production"));
        knows(&a, &staging.nodes);
        knows(&b, &production.nodes);
        a.delete("same").wait().expect("deleted");
        staging.everywhere(b"same", |answer| answer.status == 404);
        production.everywhere(b"same", |answer| answer.body == b"production");
    });
}

#[test]
fn two_clusters_do_not_mix_by_a_wrong_seed() {
    let staging = Cluster::start_with(&["london", "sydney"], |s| s.flag("--cluster", "staging"));
    // Each node of this cluster dials a node of the other one too, as its only first contact.
    let wrong = staging[0].address();
    let production = Cluster::start_with(&["london", "sydney"], |setup| {
        setup.flag("--cluster", "production").flag("--seed", wrong)
    });
    for node in &production.nodes {
        until_true("a refusal in the log", || node.log().contains("belongs to another cluster"));
    }
    stay_apart(&staging, &production);

    let client = cluster::builder_of("london", "production").mdns(false).seed(wrong.to_string());
    let client = client.build().expect("a client");
    let (result, took) = timed(|| client.get("same").wait());
    let error = result.expect_err("the other cluster's node refuses");
    // With a secret the token is judged first, and a token is of one cluster.
    let secret = Keys::of_this_run().is_some();
    assert_eq!(error.kind(), if secret { ErrorKind::Denied } else { ErrorKind::Unreachable });
    assert!(took < PATIENCE / 3, "{took:?}");
}

#[test]
fn python_paths_warn_at_start_that_they_ignore_the_cluster() {
    let warning = "carry no cluster name";
    // With a secret Python clients need a listener of their own.
    let open = || Setup::new("london").access(Access::Protected);
    let node = open().flag("--compat", "zerocache-py").start();
    until_true("the warning", || node.log().contains(warning));
    let other = open().start();
    until_true("a log", || other.log().contains("protected: callers"));
    assert!(!other.log().contains(warning));
}

/// Both clusters are complete, know no other node, and keep their own value of one key.
fn stay_apart(staging: &Cluster, production: &Cluster) {
    let both = [(staging, "staging"), (production, "production")];
    for (cluster, name) in both {
        cluster.wait_until_joined();
        cluster[0].put(b"same", name.as_bytes(), "ttl=60&ack=all");
        cluster[0].put(name.as_bytes(), b"own", "ttl=60&ack=all");
    }
    for ((cluster, name), (_, other)) in [(both[0], both[1]), (both[1], both[0])] {
        cluster.everywhere(b"same", |answer| answer.body == name.as_bytes());
        cluster.everywhere(name.as_bytes(), |answer| answer.body == b"own");
        cluster.wait_until_joined();
        for node in &cluster.nodes {
            assert_eq!(node.value(other.as_bytes()), None);
        }
    }
}

#[test]
fn malformed_announcements_do_not_disturb_a_node() {
    namespace::run("malformed_announcements_do_not_disturb_a_node", || {
        let first = by_mdns("london", "zerocache");
        let forger = forge(strange_service());
        // One that starts among all that finds the real one, and nothing else becomes a member.
        let second = by_mdns("sydney", "zerocache");
        let cluster = Cluster { nodes: vec![first, second] };
        cluster.wait_until_joined();
        // Ready it is only when everything proposed was tried.
        is_whole(&cluster, &client_by_mdns("london", "zerocache"));
        cluster.wait_until_joined();
        let stopped = forger.shutdown().expect("stopping");
        let _ = stopped.recv_timeout(PATIENCE);
    });
}

/// Announces what no node would, and what points to no node.
fn forge(strange: SocketAddr) -> ServiceDaemon {
    let forger = ServiceDaemon::new().expect("a daemon");
    forger.disable_interface(IfKind::All).expect("configured");
    forger.enable_interface("lo").expect("configured");
    let register = |ty: &str, name: &str, port: u16, fields: &[(&str, &str)]| {
        let host = format!("{name}.local.");
        let ip = strange.ip().to_string();
        let mut service =
            ServiceInfo::new(ty, name, &host, ip.as_str(), port, fields).expect("a record");
        service.set_requires_probe(false);
        forger.register(service).expect("registered");
    };
    let (cluster, region) = (("cluster", "zerocache"), ("region", "london"));
    register(NATIVE, "no-region", strange.port(), &[cluster]);
    register(NATIVE, "port-0", 0, &[cluster, region]);
    register(NATIVE, "no-fields", strange.port(), &[]);
    register(NATIVE, "bad-region", strange.port(), &[cluster, ("region", "v1")]);
    register("_printer._tcp.local.", "a-printer", strange.port(), &[cluster, region]);
    let unknown = [cluster, region, ("colour", "blue"), ("incarnation", "x"), ("version", "999")];
    // Well formed, and yet no node answers there.
    register(NATIVE, "another-protocol", strange.port(), &unknown);
    register(NATIVE, "nobody", 9, &unknown);
    forger
}

/// Answers every request with something that is no message, as a foreign service does.
fn strange_service() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.77:0").expect("bound");
    let address = listener.local_addr().expect("an address");
    // Ends with the process: the namespace's test is alone in it.
    std::thread::spawn(move || {
        for tcp in listener.incoming() {
            let Ok(mut tcp) = tcp else { return };
            let mut room = [0; 4096];
            let _ = tcp.read(&mut room);
            let _ = tcp.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n\xff\xff\xffpaper");
        }
    });
    address
}
