//! A client's use of the nodes of its own region: rotation, its own writes first, and misses.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;

use zerocache_client::{Status, ZerocacheClient};
use zerocache_tests::cluster::Cluster;
use zerocache_tests::node::Node;
use zerocache_tests::poll::{StopFlag, until_true};
use zerocache_tests::setup::Setup;

/// Reads of one round.
const READS: u64 = 60;

/// The hits of each node that the client knows, by address: a node that comes back keeps its.
fn hits(client: &ZerocacheClient) -> BTreeMap<SocketAddr, u64> {
    client.nodes().into_iter().map(|node| (node.address, node.hits)).collect()
}

/// Reads `READS` times, all with success; how often each node answered.
fn spread(client: &ZerocacheClient) -> BTreeMap<SocketAddr, u64> {
    let before = hits(client);
    for _ in 0..READS {
        assert!(client.get("shared").wait().expect("an answer").is_some());
    }
    let since = |(at, hits)| (at, hits - before.get(&at).copied().unwrap_or_default());
    let since: BTreeMap<_, _> = hits(client).into_iter().map(since).collect();
    assert_eq!(since.values().sum::<u64>(), READS);
    since
}

/// Each of these nodes answered about as often as the others, and no other node did.
fn is_even(spread: &BTreeMap<SocketAddr, u64>, nodes: &[&Node]) {
    let fair = READS / nodes.len() as u64;
    for node in nodes {
        let answered = spread.get(&node.address()).copied().unwrap_or_default();
        // Half of it: a busy machine may delay a node for a few rotations.
        assert!(answered >= fair / 2, "{spread:?}");
    }
    let answering = spread.values().filter(|answered| **answered > 0).count();
    assert_eq!(answering, nodes.len(), "{spread:?}");
}

#[test]
fn local_rotation_adapts_as_the_ring_shrinks_and_grows() {
    let mut cluster = Cluster::start(&["london", "london", "london", "london", "sydney"]);
    cluster[0].put(b"shared", b"x", "ttl=300");
    cluster.everywhere(b"shared", |answer| answer.status == 200);
    let client = cluster.client("london");
    is_even(&spread(&client), &[&cluster[0], &cluster[1], &cluster[2], &cluster[3]]);
    // Each in the middle of a rotation, without a goodbye.
    cluster[1].kill();
    let errors_before = errors(&client);
    spread(&client);
    is_even(&spread(&client), &[&cluster[0], &cluster[2], &cluster[3]]);
    cluster[3].kill();
    spread(&client);
    is_even(&spread(&client), &[&cluster[0], &cluster[2]]);
    cluster[0].kill();
    spread(&client);
    is_even(&spread(&client), &[&cluster[2]]);
    // Each dead node costs the read that found it dead, and not every second one from then on.
    let errors = errors(&client) - errors_before;
    assert!(errors <= 6, "{errors} of {} reads met a dead node", 6 * READS);

    let mut setup = Setup::new("london").flag("--seed", cluster[2].address());
    setup.listen = cluster[0].address();
    cluster[0] = setup.start();
    until_true("the new node has its turn", || {
        let new = |at: &zerocache_client::stats::NodeStatus| at.address == cluster[0].address();
        client.nodes().iter().filter(|node| new(node)).any(|node| node.in_rotation)
    });
    // Its peer may still take it for the one that stood there before.
    until_true("its peer knows it", || {
        cluster[2].incarnations().contains(&cluster[0].incarnations()[0])
    });
    cluster[2].put(b"shared", b"y", "ttl=300&ack=region");
    is_even(&spread(&client), &[&cluster[0], &cluster[2]]);
}

/// Requests without an answer, on all tiers.
#[test]
fn nodes_of_the_own_zone_answer_before_the_others_of_the_region() {
    let zones = RefCell::new(["a", "b", "b", "a"].into_iter());
    let mut cluster = Cluster::start_with(&["london", "london", "london", "sydney"], |setup| {
        setup.flag("--zone", zones.borrow_mut().next().expect("a zone for each"))
    });
    cluster[0].put(b"shared", b"x", "ttl=300");
    cluster.everywhere(b"shared", |answer| answer.status == 200);
    let client = cluster.client_with("london", |builder| builder.zone("b"));
    is_even(&spread(&client), &[&cluster[1], &cluster[2]]);
    is_even(&spread(&cluster.client("london")), &[&cluster[0], &cluster[1], &cluster[2]]);
    cluster[1].kill();
    spread(&client);
    is_even(&spread(&client), &[&cluster[2]]);
    cluster[2].freeze();
    spread(&client);
    is_even(&spread(&client), &[&cluster[0]]);
    cluster[2].resume();
    until_true("the zone answers again", || {
        let before = hits(&client);
        assert!(client.get("shared").wait().expect("an answer").is_some());
        let at = cluster[2].address();
        hits(&client).get(&at) > before.get(&at)
    });
    is_even(&spread(&client), &[&cluster[2]]);
}

fn errors(client: &ZerocacheClient) -> u64 {
    client.stats().errors.total()
}

#[test]
fn client_reads_its_own_writes() {
    let cluster = Cluster::start(&["london", "london", "london", "sydney"]);
    let client = cluster.client("london");
    for n in 0..100 {
        let value = format!("value {n}");
        let written = client.put("own", value.as_str(), 60).wait().expect("an answer");
        assert_eq!(written.status, Status::Stored);
        let read = client.get("own").wait().expect("an answer");
        assert_eq!(read.as_deref(), Some(value.as_bytes()), "{n}");
        if n % 3 == 0 {
            client.delete("own").wait().expect("an answer");
            assert_eq!(client.get("own").wait().expect("an answer"), None, "{n}");
        }
    }
    assert_eq!(client.stats().misses, 34);
}

#[test]
fn miss_on_a_node_in_sync_is_authoritative() {
    let cluster = Cluster::start(&["london", "london", "sydney"]);
    let client = cluster.client("london");
    let misses = |nodes: &[Node]| nodes.iter().map(|node| node.stat("misses")).sum::<u64>();
    let ask = |count: u64| {
        for n in 0..count {
            assert_eq!(client.get(format!("absent {n}")).wait().expect("an answer"), None);
        }
    };
    // Nodes that met a moment ago have to compare what they know first.
    until_true("misses of every node count", || {
        let before = misses(&cluster.nodes);
        ask(4);
        misses(&cluster.nodes) == before + 4
    });
    let (all, far) = (misses(&cluster.nodes), misses(&cluster.nodes[2..]));
    let own = client.stats().misses;
    ask(10);
    assert_eq!(misses(&cluster.nodes), all + 10, "one node was asked for each");
    assert_eq!(misses(&cluster.nodes[2..]), far, "nobody in the other region was");
    assert_eq!(client.stats().misses, own + 10);
}

#[test]
fn larger_local_node_is_asked_before_a_miss_counts() {
    let mut cluster = Cluster::start(&["london", "sydney"]);
    let mut small = Setup::new("london").flag("--seed", cluster[0].address());
    small.max_bytes = "16MiB";
    cluster.nodes.push(small.flag("--max-entries", 1).start());
    cluster.wait_until_joined();
    let key = |n: usize| format!("key {n}");
    for n in 0..4 {
        cluster[0].put(key(n).as_bytes(), b"x", "ttl=60&ack=region");
    }
    // The eviction of one node removes nothing elsewhere.
    let entries = |node: &Node| (node.stat("entries"), node.stat("evicted"));
    assert_eq!((entries(&cluster[2]), entries(&cluster[0])), ((1, 3), (4, 0)));
    let client = cluster.client("london");
    for n in (0..4).cycle().take(16) {
        let found = client.get(key(n)).entry().wait().expect("an answer").expect("a hit");
        let node = client.nodes().into_iter().find(|node| node.id == found.node);
        assert_eq!(node.expect("a known node").region, "london");
    }
}

#[test]
fn frozen_node_costs_only_the_reads_already_sent() {
    const THREADS: u64 = 4;
    let mut cluster = Cluster::start(&["london", "london", "london"]);
    cluster[0].put(b"shared", b"x", "ttl=300");
    cluster.everywhere(b"shared", |answer| answer.status == 200);
    let client = cluster.client("london");
    let stop = StopFlag::default();
    let reads = |client: &ZerocacheClient| client.stats().hits.total();
    std::thread::scope(|threads| {
        let end = stop.set_on_drop();
        for _ in 0..THREADS {
            threads.spawn(|| {
                while !stop.is_set() {
                    assert!(client.get("shared").wait().expect("an answer").is_some());
                }
            });
        }
        until_true("a client under load", || reads(&client) > 200);
        cluster[1].freeze();
        let then = reads(&client);
        until_true("many reads", || reads(&client) > then + 2_000);
        drop(end);
    });
    // One for each thread; twice that, because a busy machine may hold up another node as well.
    let errors = errors(&client);
    assert!(errors <= 2 * THREADS, "{errors} of {} reads had no answer", reads(&client));
    assert_eq!(client.stats().misses, 0);
}
