//! `zerocache doctor` finds the misfortunes that take a network, each in a namespace of its own, and nothing else.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};

use rustix::process::{Resource, Rlimit, setrlimit};
use zerocache_tests::{
    cluster::Cluster,
    namespace::{self, SECOND_HOST},
    net::Net,
    node::Node,
    operator::Operator,
    poll::until_true,
    security::Keys,
    setup::{Access, Setup},
};

/// Enough for what does not happen over time.
const SHORT: [&str; 2] = ["--watch", "50ms"];

/// Enough heartbeats to judge a link, on a busy machine too.
const LONG: [&str; 2] = ["--watch", "5s"];

/// Keys for nodes that other hosts reach: without a secret that would be a finding.
fn keys() -> Keys {
    Keys::of_this_run().unwrap_or_default()
}

/// A network whose nodes have a secret.
fn network(sizes: &[usize], keys: &Keys) -> Net {
    let access = Access::Secret(keys.clone());
    Net::without_nodes(sizes, move |setup| {
        setup.access(access.clone()).flag("--connections", "framed")
    })
}

fn start_all(net: &mut Net) {
    for n in 0..net.len() {
        let node = net.setup(n).start();
        net.cluster.nodes.push(node);
    }
    net.cluster.wait_until_joined();
    net.cluster.wait_until_near();
}

#[test]
fn link_on_which_one_node_cannot_call_is_found() {
    namespace::run_with_network("link_on_which_one_node_cannot_call_is_found", || {
        let keys = keys();
        let mut net = network(&[2], &keys);
        start_all(&mut net);
        let operator = Operator::with_keys(net.address(0), &keys);
        assert_eq!(operator.findings(&SHORT), (vec![], 0));
        // Datagrams alone would keep it in the rotation for half a minute.
        net.cut_calls(1, 0);
        net.cut_datagrams(1, 0);
        until_true("a node that one does not reach, and that reaches it", || {
            let unreachable = |n: usize| net.cluster[n].unreachable();
            unreachable(1) == Some(vec![net.address(0)]) && unreachable(0) == Some(vec![])
        });
        let evidence = operator.only_finding(&LONG, ("reach-asymmetric", 6));
        let expected = "london 10.0.0.2:6789 does not reach london 10.0.0.1:6789, which reaches it";
        assert_eq!(evidence, expected);
    });
}

#[test]
fn link_without_datagrams_is_found_with_its_direction() {
    namespace::run_with_network("link_without_datagrams_is_found_with_its_direction", || {
        let keys = keys();
        let mut net = network(&[2], &keys);
        net.cut_datagrams(0, 1);
        start_all(&mut net);
        let operator = Operator::with_keys(net.address(0), &keys);
        let evidence = operator.only_finding(&LONG, ("udp-blocked", 7));
        let expected = "from london 10.0.0.1:6789 to london 10.0.0.2:6789 are lost";
        assert!(evidence.contains(expected), "{evidence}");
        net.repair_all_links();
        until_true("heartbeats that are acknowledged", || {
            net.cluster.nodes.iter().all(|node| acknowledged(node) > 0)
        });
        assert_eq!(operator.findings(&LONG), (vec![], 0));
    });
}

/// The heartbeats of a node to its only peer that were acknowledged.
fn acknowledged(node: &Node) -> u64 {
    let view = node.http("GET", "/v1/cluster", b"").json();
    view["nodes"][1]["heartbeats"]["acknowledged"].as_u64().unwrap_or_default()
}

#[test]
fn network_without_multicast_is_found() {
    namespace::run_with_links("network_without_multicast_is_found", || {
        namespace::script(SECOND_HOST);
        let keys = keys();
        let setup = Setup::new("london").in_namespace("/run/netns/far".into());
        let listen = "10.1.0.2:6789".parse().expect("an address");
        let setup = Setup { listen, ..setup }.access(Access::Secret(keys.clone()));
        let setup = setup.flag("--listen", listen).flag("--connections", "framed");
        let node = setup.flag("--discovery", "mdns");
        let node = node.start_with_discovery();
        until_true("a node that is ready", || node.is_ready());
        let operator = Operator::with_keys(listen, &keys).set("ZEROCACHE_DISCOVERY", "seeds,mdns");
        assert_eq!(operator.findings(&SHORT), (vec![], 0));
        namespace::script(
            "nft 'add table inet faults'
            nft 'add chain inet faults input { type filter hook input priority 0; }'
            nft 'add rule inet faults input udp dport 5353 drop'",
        );
        let evidence = operator.only_finding(&SHORT, ("mdns-silent", 7));
        assert!(evidence.starts_with("london 10.1.0.2:6789 "), "{evidence}");
    });
}

#[test]
fn name_with_other_addresses_than_the_nodes_is_found() {
    let test = "name_with_other_addresses_than_the_nodes_is_found";
    let both = "127.0.0.2 nodes.test\n127.0.0.3 nodes.test\n";
    namespace::run_with_hosts(test, both, || {
        let at = |last: u8| SocketAddr::new(IpAddr::from([127, 0, 0, last]), 6789);
        let setup = |last| {
            let setup = Setup { listen: at(last), ..Setup::new("london") };
            setup.flag("--connections", "framed")
        };
        let nodes = vec![setup(2).start(), setup(3).flag("--seed", at(2)).start()];
        let cluster = Cluster { nodes };
        cluster.wait_until_joined();
        cluster.wait_until_near();
        let operator = Operator::new(at(2))
            .set("ZEROCACHE_DISCOVERY", "dns")
            .set("ZEROCACHE_DNS", "nodes.test:6789");
        assert_eq!(operator.findings(&SHORT), (vec![], 0));
        namespace::set_hosts(&format!("{both}127.0.0.9 nodes.test\n"));
        let evidence = operator.only_finding(&SHORT, ("dns-partial", 7));
        assert!(evidence.ends_with("nobody answers at 127.0.0.9:6789"), "{evidence}");
        namespace::set_hosts("127.0.0.3 nodes.test\n");
        let evidence = operator.only_finding(&SHORT, ("dns-partial", 7));
        assert!(evidence.ends_with("without the address of london 127.0.0.2:6789"), "{evidence}");
    });
}

#[test]
fn node_that_serves_everybody_is_found() {
    namespace::run_with_network("node_that_serves_everybody_is_found", || {
        let net = Net::start_with(&[2], |setup| {
            setup.access(Access::Insecure).flag("--connections", "framed")
        });
        net.cluster.wait_until_near();
        let operator = Operator::anonymous(net.address(0));
        let evidence = operator.only_finding(&SHORT, ("open", 7));
        assert!(evidence.contains("10.0.0.1:6789, 10.0.0.2:6789"), "{evidence}");
    });
}

#[test]
fn node_without_room_for_connections_is_found() {
    namespace::run("node_without_room_for_connections_is_found", || {
        // Half of them is left for connections.
        let most = Some(256);
        setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most }).expect("a limit");
        let setup = Setup::new("london").access(Access::Protected);
        let node = setup.flag("--connections", "framed").start();
        let operator = Operator::anonymous(node.address());
        assert_eq!(operator.findings(&SHORT), (vec![], 0));
        let open = |_| {
            let mut stream = TcpStream::connect(node.address()).expect("a connection");
            // Without a request it would be closed soon.
            stream.write_all(b"GET /ping HTTP/1.1\r\nHost: node\r\n\r\n").expect("sent");
            let _answered = stream.read(&mut [0; 512]).expect("an answer");
            stream
        };
        let streams: Vec<_> = (0..120).map(open).collect();
        let evidence = operator.only_finding(&SHORT, ("files-limit", 7));
        assert!(
            evidence.contains(" of 128 connections, which the limit of open files"),
            "{evidence}"
        );
        drop(streams);
    });
}
