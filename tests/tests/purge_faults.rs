//! A purge among nine nodes of three regions while much fails at once: packets are lost, a node is frozen, a
//! region is cut off, the node that accepted the purge dies, and another one starts with a snapshot from before it.

use std::time::Duration;

use bytes::Bytes;
use serde_json::Value as Json;
use zerocache_client::ZerocacheClient;
use zerocache_net::clock;
use zerocache_tests::namespace::run_with_network;
use zerocache_tests::net::{Net, REGIONS};
use zerocache_tests::node::Node;
use zerocache_tests::poll::{pass, time_until, until, until_true};
use zerocache_tests::probes::{Probes, keys};

/// Entries of each of the two tags.
const ENTRIES: usize = 2_000;

/// The share of packets between nodes that are lost.
const LOST_PERCENT: u8 = 30;

/// The node that accepts the purge, and is killed after its answer.
const ACCEPTING: usize = 0;

/// A node of the same region, frozen meanwhile.
const FROZEN: usize = 1;

/// The region that is cut off.
const CUT_OFF: usize = 1;

/// A node of the third region, down at the time of the purge, which starts alone with its snapshot.
const RESTORED: usize = 8;

/// How long faults last after the purge, at least.
const FAULTS: Duration = Duration::from_secs(3);

/// Nodes follow within 2 s of the end of faults in the region, and within 10 s in all: ten times as much.
const REGION_MAX: Duration = Duration::from_secs(20);
const ALL_MAX: Duration = Duration::from_secs(100);

/// How long counters stay the same when nothing happens any more.
const QUIET: Duration = Duration::from_secs(1);

#[test]
fn purge_outlives_lost_packets_a_frozen_node_a_cut_region_a_crash_and_a_snapshot() {
    let name = "purge_outlives_lost_packets_a_frozen_node_a_cut_region_a_crash_and_a_snapshot";
    run_with_network(name, || {
        let files = tempfile::tempdir().expect("a folder");
        let path = files.path().to_owned();
        let mut net = Net::start_with(&[3, 3, 3], move |setup| {
            let file = path.join(setup.listen.ip().to_string());
            setup.flag("--drain", "100ms").flag("--snapshot", file.display())
        });
        let probes = Probes::new();
        let [old, other] = ["old", "other"].map(|tag| keys(tag, ENTRIES));
        fill(&net, &[("old", &old), ("other", &other)]);

        net.cluster[RESTORED].shut_down();
        assert!(net.cluster[RESTORED].ended().success());
        let version = purge_among_faults(&mut net, &probes, &old);
        let healed = clock::elapsed();
        heal(&mut net);
        wait_until_purged(&net, &probes, &old, healed);
        net.cluster.wait_until_joined();
        for n in 0..net.len() {
            let at = net.address(n);
            until_true(&format!("all others at node {n}"), || probes.lacks(at, &other) == 0);
        }
        replay(&net, &version);
        // What was ended has not come back, and nothing else has gone.
        for n in 0..net.len() {
            let at = net.address(n);
            let lacked = (probes.lacks(at, &old), probes.lacks(at, &other));
            assert_eq!(lacked, (ENTRIES, 0), "node {n}");
        }
    });
}

/// Writes entries with tags, and waits until every node has all.
fn fill(net: &Net, tags: &[(&str, &[Bytes])]) {
    let client = net.cluster.client(REGIONS[0]);
    let write = |client: &ZerocacheClient, tag: &str, keys: &[Bytes]| {
        for key in keys {
            client.put(key, key, 600).tags([tag]).wait().expect("a write");
        }
    };
    std::thread::scope(|threads| {
        for (tag, keys) in tags {
            threads.spawn(|| write(&client, tag, keys));
        }
    });
    let all: usize = tags.iter().map(|(_, keys)| keys.len()).sum();
    for node in &net.cluster.nodes {
        until_true("all entries", || node.stat("entries") == all as u64);
    }
}

/// Purges while the network and nodes fail; leaves the faults. Returns the version of the purge.
fn purge_among_faults(net: &mut Net, probes: &Probes, old: &[Bytes]) -> String {
    net.lose_percent(LOST_PERCENT);
    net.cut_region(CUT_OFF);
    net.cut_node(RESTORED);
    net.cluster[FROZEN].freeze();
    let version = purge(&net.cluster[ACCEPTING]);
    net.cluster[ACCEPTING].kill();
    let killed = clock::elapsed();

    // Alone it serves what its snapshot has: nobody can know better.
    net.restart(RESTORED);
    let at = net.address(RESTORED);
    until_true("the entries of the snapshot", || probes.lacks(at, old) == 0);
    let cut_off = net.nodes_of(CUT_OFF)[0];
    assert_eq!(probes.lacks(net.address(cut_off), old), 0, "nothing arrives there");
    pass(FAULTS.saturating_sub(clock::elapsed().saturating_sub(killed)));
    version
}

/// Purges until another node has acknowledged it too. Returns the version.
fn purge(node: &Node) -> String {
    let mut version: Option<String> = None;
    until("a purge that a second node has", || {
        let replayed = version.iter().fold(String::new(), |_, known| format!("&version={known}"));
        let path = format!("/v1/tags/old/purge?ack=region{replayed}");
        let written = node.http("POST", &path, b"").json();
        assert_eq!(written["status"], "stored", "{written}");
        version = written["version"].as_str().map(str::to_owned);
        (written["replicas"].as_u64() >= Some(2)).then(|| version.take())?
    })
}

/// Ends all faults. The node that was killed starts with nothing.
fn heal(net: &mut Net) {
    net.repair_all_links();
    net.cluster[FROZEN].resume();
    net.restart(ACCEPTING);
}

/// Waits until no node serves an entry that was purged.
fn wait_until_purged(net: &Net, probes: &Probes, old: &[Bytes], healed: Duration) {
    let region = net.nodes_of(net.region_of(ACCEPTING));
    let others = (0..net.len()).filter(|n| !region.contains(n)).collect();
    for (nodes, max) in [(region, REGION_MAX), (others, ALL_MAX)] {
        for n in nodes {
            let left = max.saturating_sub(clock::elapsed().saturating_sub(healed));
            let took = time_until(left, || probes.lacks(net.address(n), old) == old.len());
            assert!(took.is_some(), "node {n} serves what was purged, {max:?} after the faults");
        }
    }
    println!("no old value at any node after {:?}", clock::elapsed().saturating_sub(healed));
}

/// Repeats the purge with its version: what was written since stays, and nothing else ends.
fn replay(net: &Net, version: &str) {
    net.cluster[2].put(b"new", b"v", "ttl=600&tags=old&ack=all");
    net.cluster[2].put(b"mark", b"v", "ttl=600&tags=mark&ack=all");
    let until_new = || net.cluster.everywhere(b"new", |answer| answer.body == b"v");
    until_new();
    net.cluster.everywhere(b"mark", |answer| answer.body == b"v");
    let held = ENTRIES as u64 + 2;
    for node in &net.cluster.nodes {
        until_true("only what was not purged", || node.stat("entries") == held);
    }
    let before = until_quiet(net);
    let purge = |tag: &str, query: &str| -> Json {
        let path = format!("/v1/tags/{tag}/purge?ack=all{query}");
        let written = net.cluster[4].http("POST", &path, b"").json();
        assert_eq!(written["replicas"], written["replicas_wanted"], "{written}");
        written
    };
    assert_eq!(purge("old", &format!("&version={version}"))["version"], version);
    // The sweep that ends this one began after the replay: it would end what that purged.
    purge("mark", "");
    for (node, before) in net.cluster.nodes.iter().zip(before) {
        until_true("the end of the mark", || node.stat("entries") == held - 1);
        assert_eq!(node.stat("purged"), before + 1, "the replay ended something");
    }
    until_new();
}

/// The counters of purged entries, when they do not change any more.
fn until_quiet(net: &Net) -> Vec<u64> {
    let counters = || net.cluster.nodes.iter().map(|node| node.stat("purged")).collect();
    let mut last: Vec<u64> = Vec::new();
    until("counters that stay", || {
        let before = std::mem::replace(&mut last, counters());
        let is_quiet = before == last;
        if !is_quiet {
            pass(QUIET);
        }
        is_quiet.then_some(before)
    })
}
