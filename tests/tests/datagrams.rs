//! Heartbeats as datagrams on the port number of the listener, and nodes without them.

use std::net::{SocketAddr, UdpSocket};

use std::{fs, thread, time::Duration};

use zerocache_tests::cluster::Cluster;
use zerocache_tests::namespace;
use zerocache_tests::node::Node;
use zerocache_tests::poll::until_true;
use zerocache_tests::setup::{Setup, unique_address};

fn is_out(observer: &Node, other: SocketAddr) -> bool {
    let of = |(address, state): &(SocketAddr, String)| *address == other && state == "unreachable";
    observer.cluster().iter().any(of)
}

/// Waits until all of `observers` have `other` out. How soon is tested on a virtual network.
fn wait_until_out(observers: &[&Node], other: SocketAddr) {
    until_true("a silent node to be out everywhere", || {
        observers.iter().all(|node| is_out(node, other))
    });
}

#[test]
fn heartbeats_are_echoed_and_a_frozen_node_leaves_the_rotation() {
    let mut cluster = Cluster::start(&["oslo", "oslo", "rome"]);
    for node in &cluster.nodes {
        until_true("echoes from both others", || node.stat("heartbeats_acknowledged") > 20);
        assert_eq!(node.stat("datagrams_unauthenticated") + node.stat("datagrams_malformed"), 0);
        assert!(!node.log().contains("cannot bind the UDP port"));
    }
    cluster[1].freeze();
    let frozen = cluster[1].address();
    wait_until_out(&[&cluster[0], &cluster[2]], frozen);
    cluster[1].resume();
    cluster.wait_until_joined();
}

#[test]
fn unauthenticated_datagrams_are_dropped_and_counted() {
    let cluster = Cluster::start(&["oslo", "oslo"]);
    let node = &cluster[0];
    let (own, peer) = (node.incarnations()[0].clone(), cluster[1].incarnations()[0].clone());
    let number = |life: &str| u64::from_str_radix(life, 16).unwrap().to_be_bytes();
    let socket = UdpSocket::bind((unique_address(), 0)).unwrap();
    // Version, from, to, kind, sequence, time, and a MAC of zeroes.
    let mut forged = vec![1];
    forged.extend(number(&peer));
    forged.extend(number(&own));
    forged.push(1);
    forged.extend([0xff; 8]);
    forged.extend([0; 8 + 16]);
    let mut foreign = forged.clone();
    foreign[9..17].copy_from_slice(&number(&peer));
    until_true("the counters of dropped datagrams", || {
        for bytes in [&forged[..], &foreign, b"x", &[1; 1_400]] {
            socket.send_to(bytes, node.address()).unwrap();
        }
        let names = ["datagrams_unauthenticated", "datagrams_misdirected", "datagrams_malformed"];
        names.iter().all(|name| node.stat(name) > 0)
    });
    let mut room = [0; 64];
    socket.set_nonblocking(true).unwrap();
    assert!(socket.recv_from(&mut room).is_err(), "a stranger was answered");
    cluster.wait_until_joined();
}

#[test]
fn node_without_a_udp_port_pings_over_its_connections() {
    // The port number is taken for datagrams before the node starts, and free for its listener.
    let address = SocketAddr::new(unique_address(), 0);
    let taken = UdpSocket::bind(address).unwrap();
    let first = Setup { listen: taken.local_addr().unwrap(), ..Setup::new("oslo") }.start();
    until_true("the warning", || first.log().contains("cannot bind the UDP port"));
    let seed = first.address();
    let second = Setup::new("oslo").flag("--seed", seed).start();
    let third = Setup::new("rome").flag("--seed", seed).start();
    let mut cluster = Cluster { nodes: vec![first, second, third] };
    cluster.wait_until_joined();
    until_true("echoes between the others", || cluster[1].stat("heartbeats_acknowledged") > 20);
    assert_eq!(cluster[0].stat("heartbeats_sent") + cluster[0].stat("heartbeats_acknowledged"), 0);
    cluster[0].freeze();
    wait_until_out(&[&cluster[1], &cluster[2]], seed);
    cluster[0].resume();
    cluster.wait_until_joined();
}

/// What nodes that have nothing to do send is bounded, however many they are (measured on the interface of a
/// network of their own; how soon they notice a silent one is tested on a virtual network).
#[test]
fn idle_traffic_of_many_nodes_is_bounded() {
    namespace::run("idle_traffic_of_many_nodes_is_bounded", || {
        let sent = || -> u64 {
            let count = fs::read_to_string("/sys/class/net/lo/statistics/tx_bytes");
            count.unwrap().trim().parse().unwrap()
        };
        let per_node = |nodes: u64| {
            let cluster = Cluster::start(&vec!["oslo"; nodes as usize]);
            // Until the rumours about the newcomers are over.
            thread::sleep(Duration::from_secs(5));
            let before = sent();
            thread::sleep(Duration::from_secs(5));
            let per_node = (sent() - before) / 5 / nodes;
            println!("{nodes} nodes: {per_node} bytes a second from each");
            let up = |node: &Node| {
                node.cluster().iter().filter(|(_, state)| state != "unreachable").count()
            };
            assert!(cluster.nodes.iter().all(|node| up(node) as u64 == nodes), "a node is out");
            per_node
        };
        let (few, many) = (per_node(8), per_node(32));
        // Heartbeats of four times as many nodes would be four times as much.
        assert!(many < 64 << 10, "{few} bytes a second with 8 nodes, {many} with 32");
    });
}
