//! The tool takes nodes out of service and puts them back, and lists and follows keys.

use std::collections::BTreeSet;
use std::process::Child;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value as Json;
use zerocache_client::ZerocacheClient;
use zerocache_tests::cluster::Cluster;
use zerocache_tests::http::send_with;
use zerocache_tests::node::Node;
use zerocache_tests::operator::Operator;
use zerocache_tests::poll::{StopFlag, until_true};
use zerocache_tests::security::Keys;
use zerocache_tests::setup::{Access, Setup};

/// Returns the state in which node `observer` sees node `at`.
fn state(cluster: &Cluster, observer: usize, at: usize) -> String {
    let seen = cluster[observer].http("GET", "/v1/cluster", b"").json();
    let address = cluster[at].address();
    let rows = seen["nodes"].as_array().expect("a list");
    let is_it =
        |row: &&Json| row["address"] == address.ip().to_string() && row["port"] == address.port();
    rows.iter().find(is_it).map_or("", |row| row["state"].as_str().expect("a state")).to_owned()
}

fn hits(client: &ZerocacheClient, cluster: &Cluster, at: usize) -> u64 {
    let nodes = client.nodes();
    nodes.iter().find(|node| node.address == cluster[at].address()).map_or(0, |node| node.hits)
}

fn is_in_rotation(client: &ZerocacheClient, cluster: &Cluster, at: usize) -> bool {
    let nodes = client.nodes();
    nodes.iter().any(|node| node.address == cluster[at].address() && node.in_rotation)
}

#[test]
fn drained_node_is_asked_no_more_and_returns_with_what_it_missed() {
    let cluster = Cluster::start(&["london", "london", "sydney"]);
    let client = cluster.client("london");
    let operator = Operator::new(cluster[0].address());
    let target = cluster[1].address().to_string();
    cluster[0].put(b"key", b"value", "ttl=600&ack=all");
    cluster[0].put(b"old", b"before", "ttl=600&ack=all");
    let stop = StopFlag::default();
    std::thread::scope(|scope| {
        let guard = stop.set_on_drop();
        let reader = scope.spawn(|| {
            let mut reads = 0_u64;
            while !stop.is_set() {
                let entry = client.get("key").entry().wait().expect("an answer");
                assert_eq!(entry.expect("a hit").value, "value");
                reads += 1;
            }
            reads
        });
        until_true("reads at both nodes", || {
            hits(&client, &cluster, 0) > 0 && hits(&client, &cluster, 1) > 0
        });
        let drained = operator.run(&["drain", &target, "--wait", "--json"]);
        let json = drained.json();
        assert_eq!((&json["state"], &json["drained"]), (&"leaving".into(), &true.into()), "{json}");
        assert_eq!((drained.exit, &json["lacking"]), (0, &Json::Null), "{json}");
        assert_eq!(
            (state(&cluster, 0, 1), state(&cluster, 2, 1)),
            ("leaving".into(), "leaving".into())
        );
        let ready = cluster[1].http("GET", "/readyz", b"");
        assert_eq!((ready.status, &ready.body[..]), (503, &b"leaving\n"[..]));
        until_true("a client that has noticed", || !is_in_rotation(&client, &cluster, 1));
        // A read that began before that has ended.
        let at_first = hits(&client, &cluster, 0);
        until_true("further reads", || hits(&client, &cluster, 0) > at_first + 2);
        let before = hits(&client, &cluster, 1);
        cluster[0].put(b"new", b"written meanwhile", "ttl=600");
        cluster[0].put(b"old", b"after", "ttl=600");
        let at_first = hits(&client, &cluster, 0);
        until_true("more reads", || hits(&client, &cluster, 0) > at_first + 200);
        assert_eq!(hits(&client, &cluster, 1), before, "the drained node is asked no more");

        let undrained = operator.run(&["undrain", &target, "--wait=60s"]);
        assert_eq!(undrained.exit, 0, "{undrained:?}");
        assert_eq!(cluster[1].value(b"new").as_deref(), Some(&b"written meanwhile"[..]));
        assert_eq!(cluster[1].value(b"old").as_deref(), Some(&b"after"[..]));
        assert!(cluster[1].is_ready());
        until_true("reads at the node that is back", || hits(&client, &cluster, 1) > before);
        until_true("a view with all nodes", || {
            state(&cluster, 0, 1) == "in-sync" && state(&cluster, 2, 1) == "in-sync"
        });
        drop(guard);
        assert!(reader.join().expect("no read fails") > 0);
    });
    // Writes reach it again.
    let written = cluster[0].put(b"late", b"value", "ttl=600&ack=all");
    assert_eq!(written["replicas"], 3, "{written}");
}

#[test]
fn node_to_drain_is_named_by_its_id_and_ends_as_any_other() {
    let mut cluster = Cluster::start(&["oslo", "oslo"]);
    let operator = Operator::new(cluster[0].address());
    let id = cluster[1].http("GET", "/v1/cluster", b"").json()["nodes"][0]["id"].clone();
    let id = id.as_str().expect("an id");
    let drained = operator.run(&["drain", &id.to_uppercase()]);
    assert_eq!(drained.text(), format!("oslo {}: drained\n", cluster[1].address()));
    assert_eq!(operator.run(&["drain", &id[..12]]).exit, 0, "once more changes nothing");
    until_true("a node that sees it leave", || state(&cluster, 0, 1) == "leaving");
    for (args, exit) in [
        (&["drain", "nobody"][..], 2),
        (&["undrain", "0123456789abcdef"], 1),
        (&["drain", "127.0.0.1:9"], 3),
        (&["drain", &cluster[0].address().to_string(), "--cluster", "other"], 3),
    ] {
        assert_eq!(operator.run(args).exit, exit, "{args:?}");
    }
    cluster[1].shut_down();
    assert!(cluster[1].ended().success());
    until_true("a node that has forgotten it", || state(&cluster, 0, 1).is_empty());
}

#[test]
fn node_that_shuts_down_is_not_put_back() {
    let node = Setup::new("oslo").flag("--drain", "60s").start();
    let operator = Operator::new(node.address());
    let target = node.address().to_string();
    node.shut_down();
    until_true("a node that is leaving", || !node.is_ready());
    let drained = operator.run(&["drain", &target]);
    assert_eq!((drained.exit, drained.text()), (0, format!("oslo {target}: shutting down\n")));
    let undrained = operator.run(&["undrain", &target]);
    assert_eq!((undrained.exit, undrained.text().as_str()), (1, ""), "{undrained:?}");
    assert!(undrained.err.contains("shutting down"), "{undrained:?}");
}

fn listed(json: &Json) -> BTreeSet<String> {
    let keys = json["keys"].as_array().expect("a list");
    keys.iter().map(|key| key["key"].as_str().expect("text").to_owned()).collect()
}

#[test]
fn all_keys_of_a_node_are_listed_once() {
    let cluster = Cluster::start(&["oslo"]);
    let operator = Operator::new(cluster[0].address());
    let client = cluster.client("oslo");
    // More than a page of them.
    let all: BTreeSet<_> = (0..2_500).map(|n| format!("{}/{n}", ["a", "b"][n % 2])).collect();
    for key in &all {
        client.put(key, &b"v"[..], std::time::Duration::from_secs(600)).wait().expect("stored");
    }
    // Clients pack large values.
    cluster[0].put(b"a/big", &[7; 100_000], "ttl=60");
    cluster[0].put(b"b/second", &[7; 10_000], "ttl=60");
    client.put("a/gone", &b"v"[..], std::time::Duration::from_secs(600)).wait().expect("stored");
    client.delete("a/gone").wait().expect("deleted");

    let json = operator.run(&["keys", "--json"]).json();
    assert_eq!(json["keys"].as_array().map(Vec::len), Some(2_502));
    let found = listed(&json);
    assert!(found.is_superset(&all) && found.contains("a/big") && !found.contains("a/gone"));
    let text = operator.run(&["keys", "--prefix", "b/"]).text();
    let lines: BTreeSet<_> = text.lines().map(str::to_owned).collect();
    let mut wanted: BTreeSet<_> = all.iter().filter(|key| key.starts_with("b/")).cloned().collect();
    wanted.insert("b/second".to_owned());
    assert_eq!(lines, wanted);
    let big = operator.run(&["keys", "--big", "2"]);
    let big_lines: Vec<_> = big.text().lines().map(str::to_owned).collect();
    assert!(big_lines[0].ends_with("a/big") && big_lines[0].contains("97.7 KiB"), "{big:?}");
    assert!(big_lines[1].ends_with("b/second") && big_lines.len() == 2, "{big:?}");
    let big = operator.run(&["keys", "--big", "1", "--json"]).json();
    let one = &big["keys"][0];
    assert_eq!((&one["key"], &one["value_bytes"]), (&"a/big".into(), &100_000.into()), "{one}");
    assert!(one["ttl_ms"].as_u64().is_some_and(|ms| (1..=60_000).contains(&ms)), "{one}");
    assert_eq!(one["key_hex"], "612f626967");
    assert_eq!(operator.run(&["keys", "--prefix", "none"]).text(), "");
}

#[test]
fn keys_are_listed_and_deleted_by_tag() {
    let cluster = Cluster::start(&["oslo", "rome"]);
    let operator = Operator::new(cluster[0].address());
    // So many tags that the last ones are kept as hashes.
    let many: Vec<_> = (0..20).map(|n| format!("{n:x>100}")).collect();
    let tags = format!("ttl=600&ack=all&tags=one,{}", many.join(","));
    for n in 0..700 {
        cluster[n % 2].put(format!("t/{n}").as_bytes(), b"v", &tags);
    }
    cluster[0].put(b"other", b"v", "ttl=600&ack=all&tags=two");
    for tag in ["one", &many[19]] {
        until_true(&format!("all keys with {tag}"), || {
            listed(&operator.run(&["keys", "--tag", tag, "--json"]).json()).len() == 700
        });
    }
    let prefixed = operator.run(&["keys", "--tag", "one", "--prefix", "t/69", "--all-nodes"]);
    assert_eq!(prefixed.text().lines().count(), 11, "each once: {prefixed:?}");
    assert_eq!(operator.run(&["keys", "--tag", "none"]).text(), "");

    assert_eq!(operator.run(&["delete", "--tag", "one"]).exit, 2, "not without --yes");
    let deleted = operator.run(&["delete", "--tag", &many[19], "--yes", "--ack", "all"]);
    assert_eq!(
        (deleted.exit, deleted.text().as_str()),
        (0, "deleted 700 of 700 keys\n"),
        "{deleted:?}"
    );
    let is_left = |node: &Node| (0..700).any(|n| node.value(format!("t/{n}").as_bytes()).is_some());
    until_true("no deleted key anywhere", || !cluster.nodes.iter().any(is_left));
    cluster.everywhere(b"other", |answer| answer.status == 200);
    let again = operator.run(&["delete", "--tag", "one", "--yes", "--json"]).json();
    assert_eq!((&again["exit"], &again["keys"]), (&1.into(), &Json::Array(vec![])));
    let node = cluster[1].address().to_string();
    let deleted =
        operator.run(&["delete", "--tag", "two", "--yes", "--node", &node, "--json"]).json();
    assert_eq!(deleted["keys"][0]["key"], "other");
    // A purged entry is not listed, whether it is swept or not.
    cluster[0].put(b"p", b"v", "ttl=600&ack=all&tags=three");
    assert_eq!(cluster[0].http("POST", "/v1/tags/three/purge?ack=all", b"").status, 200);
    let listed = || operator.run(&["keys", "--tag", "three", "--all-nodes"]).text();
    until_true("an empty list", || listed().is_empty());
}

#[test]
fn keys_of_all_nodes_are_listed_once() {
    // They do not know each other.
    let nodes = ["oslo", "rome"].map(|region| Setup::new(region).start());
    let [oslo, rome] = &nodes;
    until_true("nodes that are ready", || nodes.iter().all(|node| node.is_ready()));
    for (node, own) in [(oslo, "only oslo"), (rome, "only rome")] {
        node.put(own.as_bytes(), b"v", "ttl=600&tags=a");
        node.put(b"both", b"v", "ttl=600&tags=a");
        node.put(b"other", b"v", "ttl=600");
    }
    let seeds = format!("{},{}", oslo.address(), rome.address());
    let operator = Operator::new(oslo.address()).set("ZEROCACHE_SEED", seeds);
    let printed = operator.run(&["keys", "--tag", "a", "--all-nodes"]);
    let mut lines: Vec<_> = printed.text().lines().map(str::to_owned).collect();
    lines.sort();
    assert_eq!(lines, ["both", "only oslo", "only rome"], "{printed:?}");
    let big = operator.run(&["keys", "--all-nodes", "--big", "10", "--json"]).json();
    assert_eq!(big["keys"].as_array().map(Vec::len), Some(4), "{big}");
    let named = ["keys", "--all-nodes", "--node", &rome.address().to_string()];
    assert_eq!(operator.run(&named).exit, 2);
}

#[test]
fn token_with_prefixes_lists_its_keys_and_drains_nothing() {
    let keys = Keys::new();
    let node = Setup::new("oslo").access(Access::Secret(keys.clone())).start();
    let operator = Operator::with_keys(node.address(), &keys);
    for key in ["a/1", "a/2", "b/1"] {
        assert_eq!(operator.run(&["put", key, "value"]).exit, 0);
    }
    let scoped = keys.token(&["--name", "team", "--role", "admin", "--prefix", "a/"]);
    let reader = keys.token(&["--name", "reader", "--role", "read"]);
    let mut team = Operator::new(node.address());
    team.present(&scoped);
    let listed = |args: &[&str]| {
        let text = team.run(args).text();
        text.lines().map(str::to_owned).collect::<BTreeSet<_>>()
    };
    assert_eq!(listed(&["keys"]), BTreeSet::from(["a/1".to_owned(), "a/2".to_owned()]));
    assert_eq!(listed(&["keys", "--prefix", "b/"]), BTreeSet::new());
    let with_token = keys.with_token(scoped);
    let ask = |hex: &str| {
        let target = format!("/v1/admin/keys?key_hex={hex}");
        let answer = send_with(node.address(), Some(&with_token), "GET", &target, &[], b"");
        answer.expect("an answer").json()["keys"].as_array().map(Vec::len)
    };
    assert_eq!((ask("612f31"), ask("622f31")), (Some(1), Some(0)), "a/1, but not b/1");
    assert_eq!(team.run(&["drain", &node.address().to_string()]).exit, 4);
    // Changes are of all keys.
    assert_eq!(team.run(&["watch", "--for", "1s"]).exit, 4);
    let mut nobody = Operator::new(node.address());
    nobody.present(&reader);
    assert_eq!(nobody.run(&["keys"]).exit, 4);
    assert_eq!(nobody.run(&["watch", "--prefix", "a/", "--for", "1s"]).exit, 4);
    assert!(node.is_ready());
}

/// Waits until the feed of a node is followed by so many, each of which has had its first response: a gap.
/// Nobody learns of a change before that.
fn await_followers(cluster: &Cluster, count: u64) {
    until_true("first responses", || cluster[0].stat("feed_gaps") >= count);
    until_true("followers", || cluster[0].stat("feed_followers") >= count);
}

fn ended(child: Child) -> (i32, String) {
    let output = child.wait_with_output().expect("it ends");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    (output.status.code().unwrap_or(-1), text)
}

#[test]
fn changes_are_printed_as_they_happen() {
    let cluster = Cluster::start(&["oslo", "oslo"]);
    let operator = Operator::new(cluster[0].address());
    let node = cluster[0].address().to_string();
    cluster[0].put(b"a/known", b"1", "ttl=600&ack=all");
    let start = |args: &[&str]| {
        // Bounded, so that a change that is missed does not stop the test.
        let args = [&["watch", "--node", &node, "--for", "60s"][..], args].concat();
        operator.command(&args).spawn().expect("the tool starts")
    };
    let all = start(&["--count", "3"]);
    let json = start(&["--prefix", "a/", "--json", "--count", "2"]);
    let endless = start(&[]);
    await_followers(&cluster, 3);
    // At the other node: what is replicated is a change as well.
    let stamp = cluster[1].put(b"a/new", b"22", "ttl=600")["version"].clone();
    until_true("a replica", || cluster[0].value(b"a/new").is_some());
    cluster[0].put(b"b/other", b"333", "ttl=600");
    cluster[0].delete(b"a/known", "");
    let (exit, text) = ended(all);
    let lines: Vec<_> =
        text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).collect();
    assert_eq!((exit, lines.len()), (0, 3), "{text}");
    let stamp = stamp.as_str().expect("a version").split('.').next().expect("a stamp").to_owned();
    assert_eq!(lines[0][1..], [&stamp, "put", "2", "B", "a/new"], "{text}");
    assert_eq!(lines[1][2..], ["put", "3", "B", "b/other"], "{text}");
    assert_eq!(lines[2][2..], ["removed", "-", "a/known"], "{text}");
    let (exit, text) = ended(json);
    let changes: Vec<Json> =
        text.lines().map(|line| serde_json::from_str(line).expect("an object")).collect();
    assert_eq!(exit, 0, "{text}");
    let of = |change: &Json| (change["key"].clone(), change["what"].clone());
    assert_eq!(of(&changes[0]), ("a/new".into(), "put".into()), "{text}");
    assert_eq!(of(&changes[1]), ("a/known".into(), "removed".into()), "{text}");
    assert_eq!((changes.len(), &changes[0]["value_bytes"]), (2, &2.into()), "{text}");
    // As Ctrl-C ends it.
    kill_process(Pid::from_child(&endless), Signal::INT).expect("it runs");
    assert_eq!(ended(endless).0, 0);
}
