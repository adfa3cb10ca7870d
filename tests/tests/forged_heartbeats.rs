//! A stranger neither silences a node's heartbeats nor invents members: it gets no key for datagrams in
//! another's name.

use std::net::UdpSocket;

use bytes::Bytes;
use zerocache_core::version::Incarnation;
use zerocache_core::wire::{
    Datagram, DatagramKind, NodeInfo, NodeState, Request, RequestMessage, Response, SessionKey,
    features,
};
use zerocache_net::clock;
use zerocache_tests::cluster::Cluster;
use zerocache_tests::frames::{CLUSTER, client_hello};
use zerocache_tests::namespace;
use zerocache_tests::net::Net;
use zerocache_tests::node::Node;
use zerocache_tests::poll::until_true;
use zerocache_tests::security::Keys;
use zerocache_tests::setup::Access;
use zerocache_tests::transport::transport_kinds;

/// A Hello in the name of a node.
fn hello_of(node: NodeInfo) -> Bytes {
    let RequestMessage { envelope, request } = client_hello(CLUSTER);
    let Request::Hello(mut hello) = request else { unreachable!("a Hello") };
    (hello.node, hello.features) = (Some(node), features::ALL);
    RequestMessage { envelope, request: Request::Hello(hello) }.encode(clock::mono())
}

fn incarnation_of(node: &Node) -> Incarnation {
    let own = &node.incarnations()[0];
    Incarnation(u64::from_str_radix(own, 16).expect("hexadecimal digits"))
}

fn heartbeats_go_on(cluster: &Cluster) {
    for node in &cluster.nodes {
        let before = node.stat("heartbeats_acknowledged");
        until_true("acknowledged heartbeats", || node.stat("heartbeats_acknowledged") > before + 5);
        assert_eq!(node.cluster().len(), cluster.nodes.len(), "{:?}", node.cluster());
    }
}

fn forge(cluster: &Cluster, keys: Option<&Keys>) {
    heartbeats_go_on(cluster);
    let victim = incarnation_of(&cluster[0]);
    let to = cluster[1].address();
    let node = NodeInfo {
        incarnation: victim,
        region: "london".into(),
        zone: None,
        addresses: vec![cluster[0].address()],
        state: NodeState::InSync,
        bytes_max: 1,
        name: None,
        replicas: zerocache_core::cluster::Replicas::All,
    };
    let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
    for transport in transport_kinds() {
        let response = transport.caller_with(to, keys.cloned()).ask(&hello_of(node.clone()));
        let key = match response {
            Response::Hello(hello) => hello.session,
            Response::Refused(_) => None,
            other => panic!("{other:?}"),
        };
        assert!(key.is_none(), "{transport:?}: a stranger has the key of another node");
        // Without it, all that is left is to guess.
        let guess = SessionKey::from_bytes([0; 32]);
        for sequence in [1, 1 << 63, u64::MAX] {
            let (from, kind) = (victim, DatagramKind::Heartbeat);
            let (receiver, content) = (incarnation_of(&cluster[1]), Bytes::new());
            let forged = Datagram {
                from,
                to: receiver,
                kind,
                generation: None,
                sequence,
                time_ms: 1,
                content,
            };
            socket.send_to(&forged.seal(&guess), to).expect("sent");
        }
    }
    heartbeats_go_on(cluster);
}

#[test]
fn stranger_gets_no_key_in_the_name_of_a_node() {
    namespace::run_with_network("stranger_gets_no_key_in_the_name_of_a_node", || {
        // Nodes that serve everybody, and a caller that stands elsewhere.
        let net = Net::start(&[2]);
        forge(&net.cluster, Keys::of_this_run().as_ref());
    });
}

#[test]
fn holder_of_a_token_gets_no_key_in_the_name_of_a_node() {
    let keys = Keys::new();
    let access = Access::Secret(keys.clone());
    let cluster = Cluster::start_with(&["london", "london"], |setup| setup.access(access.clone()));
    forge(&cluster, Some(&keys));
}
