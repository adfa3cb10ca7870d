//! Where the copies of a key are: the same answer from every node, and writes that wait for each of them.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener},
    time::Duration,
};

use serde_json::Value as Json;
use zerocache_client::Ack;
use zerocache_client::ops::{CopyState, Verdict};
use zerocache_tests::cluster::Cluster;
use zerocache_tests::node::Node;
use zerocache_tests::operator::Operator;
use zerocache_tests::poll::{timed, until, until_true};
use zerocache_tests::setup::unique_address;

const REGIONS: [&str; 9] = ["lima", "lima", "lima", "oslo", "oslo", "oslo", "rome", "rome", "rome"];

/// How long an answer may take while a node is frozen, ten times over: 1.4 s.
const FROZEN_MAX: Duration = Duration::from_secs(15);

fn located(node: &Node, query: &str) -> Json {
    let answer = node.http("GET", &format!("/v1/locate?{query}"), b"");
    assert_eq!(answer.status, 200, "{}", answer.json());
    answer.json()
}

fn nodes(document: &Json) -> &Vec<Json> {
    document["nodes"].as_array().expect("nodes")
}

/// The document without what differs from node to node.
fn comparable(mut document: Json) -> Json {
    for node in document["nodes"].as_array_mut().expect("nodes") {
        let node = node.as_object_mut().expect("a node");
        for name in ["ttl_ms", "fresh_ms", "rank", "latency_ms"] {
            assert!(node.remove(name).is_some(), "no {name}");
        }
    }
    document
}

/// The values of a field, node by node.
fn all(document: &Json, name: &str) -> Vec<String> {
    let text = |node: &Json| node[name].as_str().unwrap_or("-").to_owned();
    nodes(document).iter().map(text).collect()
}

#[test]
fn every_node_gives_the_same_answer() {
    let cluster = Cluster::start(&REGIONS);
    let origin = "https://a.example/1?x=y";
    let parameters = "ttl=600&ack=all&origin=https://a.example/1%3Fx%3Dy";
    cluster[4].put("a b/ü".as_bytes(), b"value", parameters);
    let query = "key=a%20b/%C3%BC&digest=true";
    let first = until("nine copies", || {
        let document = located(&cluster[0], query);
        (all(&document, "state").iter().all(|state| state == "value")).then_some(document)
    });
    assert_eq!((nodes(&first).len(), &first["agrees"]), (9, &Json::Bool(true)), "{first}");
    assert_eq!(all(&first, "region"), REGIONS);
    assert!(all(&first, "verdict").iter().all(|verdict| verdict == "same"), "{first}");
    assert_eq!((&first["key"], &first["origins"][0]), (&"a b/ü".into(), &origin.into()));
    for node in &cluster.nodes {
        let document = located(node, query);
        let own = nodes(&document).iter().find(|one| one["rank"] == 1).expect("a nearest node");
        assert_eq!(own["latency_ms"], 0.0, "{document}");
        assert_eq!(own["address"], node.address().to_string());
        assert_eq!(comparable(document), comparable(first.clone()));
    }
    // Each entry of the list says where to read it.
    let url = nodes(&first)[8]["url"].as_str().expect("a URL");
    let path = url.split_once("://").and_then(|(_, rest)| Some(rest.split_at(rest.find('/')?).1));
    let read = cluster[8].http("GET", path.expect("a path"), b"");
    assert_eq!((read.status, &read.body[..]), (200, &b"value"[..]));
    // A key of which nobody knows.
    let nothing = located(&cluster[2], "key_hex=00ff");
    assert_eq!(nothing["key"], Json::Null);
    assert!(all(&nothing, "state").iter().all(|state| state == "nothing"), "{nothing}");
    assert_eq!((&nothing["agrees"], &nothing["found"]), (&true.into(), &false.into()));
}

#[test]
fn frozen_node_is_listed_as_unreachable() {
    let mut cluster = Cluster::start(&REGIONS);
    cluster[0].put(b"k", b"v", "ttl=600&ack=all");
    until_true("nine copies", || {
        all(&located(&cluster[0], "key=k"), "state").iter().all(|state| state == "value")
    });
    cluster[4].freeze();
    let frozen = cluster[4].address().to_string();
    for asked in [0, 3, 8] {
        let (document, took) = timed(|| located(&cluster[asked], "key=k"));
        println!("asked node {asked}: {} ms", took.as_millis());
        assert!(took < FROZEN_MAX, "{took:?}");
        for node in nodes(&document) {
            let is_frozen = node["address"] == frozen;
            let expected = if is_frozen { "unreachable" } else { "same" };
            assert_eq!(node["verdict"], expected, "{document}");
        }
        assert_eq!(document["agrees"], true);
    }
    // A write says who did not get it.
    let (written, took) = timed(|| cluster[0].delete(b"k", "ack=nodes"));
    println!("delete: {} ms", took.as_millis());
    assert!(took < FROZEN_MAX, "{took:?}");
    assert_eq!((&written["replicas"], &written["replicas_wanted"]), (&8.into(), &9.into()));
    for node in nodes(&written) {
        assert_eq!(node["acknowledged"], node["address"] != frozen, "{written}");
    }
    cluster[4].resume();
    let written = until("all nodes", || {
        let written = cluster[0].delete(b"k", "ack=nodes");
        (written["replicas"] == 9).then_some(written)
    });
    assert!(all(&written, "state").iter().all(|state| state == "tombstone"), "{written}");
}

#[test]
fn each_node_acknowledges_purges_and_says_which_it_has() {
    let cluster = Cluster::start(&["lima", "lima", "oslo", "oslo"]);
    let purge = |path: &str| {
        let answer = cluster[1].http("POST", path, b"t\nu\n");
        assert_eq!(answer.status, 200, "{}", answer.json());
        answer.json()
    };
    let written = until("all nodes", || {
        let written = purge("/v1/tags/t/purge?ack=nodes&soft=true");
        (written["replicas"] == 4).then_some(written)
    });
    assert!(nodes(&written).iter().all(|node| node["acknowledged"] == true), "{written}");
    for node in &cluster.nodes {
        let tag = node.http("GET", "/v1/tags/t", b"").json();
        assert_eq!(tag["soft"]["version"], written["version"], "{tag}");
        let versions = all(&tag["soft"], "version");
        assert!(versions.iter().all(|version| *version == written["version"]), "{tag}");
        assert_eq!(tag["hard"]["version"], Json::Null);
    }
    let several = until("all nodes", || {
        let several = purge("/v1/tags/purge?ack=nodes");
        let all = several.as_array().expect("two tags");
        all.iter().all(|one| one["replicas"] == 4).then_some(several)
    });
    assert_eq!((&several[0]["tag"], &several[1]["tag"]), (&"t".into(), &"u".into()));
    assert_eq!(nodes(&several[1]).len(), 4);
    let everything = until("all nodes", || {
        let written = purge("/v1/purge?everything=yes&ack=nodes");
        (written["replicas"] == 4).then_some(written)
    });
    assert_eq!(everything["replicas_wanted"], 4);
}

#[test]
fn parameters_and_methods_are_checked() {
    let cluster = Cluster::start(&["lima"]);
    let node = &cluster[0];
    for (method, path, status) in [
        ("GET", "/v1/locate", 400),
        ("GET", "/v1/locate?key=", 400),
        ("GET", "/v1/locate?key=a&key_hex=61", 400),
        ("GET", "/v1/locate?key_hex=6", 400),
        ("GET", "/v1/locate?key_hex=007a65726f636163686500", 400),
        ("GET", "/v1/locate?key=a&digest=1", 400),
        ("POST", "/v1/locate?key=a", 405),
        ("GET", "/v1/verify?key=a", 405),
        ("POST", "/v1/verify?key=a&digest=true", 400),
        ("GET", "/v1/repair?key=a", 405),
        ("POST", "/v1/repair?key=a&from=10.0.0.1:1", 400),
        ("POST", "/v1/repair?key=a", 200),
        ("PUT", "/v1/entries/a?ack=nodes", 400),
        ("GET", "/v1/tags/t?soft=true", 400),
    ] {
        let answer = node.http(method, path, b"");
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.json());
    }
}

/// Starts another server, which has something of five bytes at `/5`. It ends with the test.
fn start_origin() -> SocketAddr {
    let listener = TcpListener::bind((unique_address(), 0)).expect("binds");
    let address = listener.local_addr().expect("is bound");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let mut request = [0; 1024];
            let read = stream.read(&mut request).unwrap_or_default();
            let is_there = request[..read].starts_with(b"HEAD /5");
            let answer = if is_there { "200 OK\r\ncontent-length: 5" } else { "404 Not Found" };
            // Who asked may be gone.
            let _ = write!(stream, "HTTP/1.1 {answer}\r\nconnection: close\r\n\r\n");
        }
    });
    address
}

#[test]
fn tool_prints_where_copies_are() {
    let mut cluster = Cluster::start(&["lima", "lima", "oslo"]);
    let operator = Operator::new(cluster[1].address());
    cluster[0].put(b"k", b"value", "ttl=600&ack=all");
    let printed = until("three copies", || {
        let printed = operator.run(&["where", "k", "--digest"]);
        (printed.exit == 0 && printed.text().matches("  value  ").count() == 3).then_some(printed)
    });
    let text = printed.text();
    let lines: Vec<_> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    let lines: &[Vec<_>] = &lines;
    assert_eq!((lines.len(), lines[0][0], lines[1][0]), (4, "REGION", "lima"), "{text}");
    assert!(lines[1..].iter().all(|line| line[5] == "same"), "{text}");
    assert!(printed.err.contains("k: the copies on 3 nodes agree"), "{}", printed.err);

    let verified = operator.run(&["verify", "k", "other", "--json"]).json();
    assert_eq!((&verified["exit"], &verified["keys"][0]["agrees"]), (&0.into(), &true.into()));
    assert_eq!(
        (nodes(&verified["keys"][0]).len(), &verified["keys"][1]["found"]),
        (3, &false.into())
    );
    let origin = start_origin();
    let put = |origins: &[&str]| {
        let origins: Vec<_> = origins.iter().flat_map(|url| ["--origin", url]).collect();
        let put = [&["put", "k", "value", "--ack", "all"][..], &origins].concat();
        assert_eq!(operator.run(&put).exit, 0);
        operator.run(&["verify", "k", "--origins"])
    };
    let there = put(&[&format!("http://{origin}/5"), &format!("http://{origin}/5?a=b")]);
    assert_eq!((there.exit, there.err.matches("of the same length").count()), (0, 2), "{there:?}");
    let gone = put(&[&format!("http://{origin}/5"), &format!("http://{origin}/gone")]);
    let line = format!("origin http://{origin}/gone: gone");
    assert!(gone.exit == 7 && gone.err.contains(&line), "{gone:?}");
    for n in 0..5 {
        cluster[0].put(format!("t/{n}").as_bytes(), b"v", "ttl=600&ack=all&tags=t");
    }
    until_true("the copies of all keys with a tag", || {
        let verified = operator.run(&["verify", "--tag", "t"]);
        verified.exit == 0 && verified.out.is_empty() && verified.err.contains("5 of 5 keys")
    });
    let some = operator.run(&["verify", "--tag", "t", "--sample", "2", "--json"]).json();
    assert_eq!(some["keys"].as_array().map(Vec::len), Some(2), "{some}");
    assert_eq!(operator.run(&["verify", "--tag", "none"]).exit, 1);
    let missing = operator.run(&["where", "other", "--quiet"]);
    assert_eq!((missing.exit, missing.err.as_str()), (1, ""), "{missing:?}");
    let repaired = operator.run(&["repair", "k", "--json"]).json();
    assert_eq!(repaired["keys"][0]["repaired"], serde_json::json!([]), "{repaired}");
    for args in [&["where"][..], &["repair", "k", "--dry-run", "--from", "x"]] {
        assert_eq!(operator.run(args).exit, 2, "{args:?}");
    }
    // Nodes that do not answer are a warning.
    cluster[2].freeze();
    let verified = operator.run(&["verify", "k"]);
    assert_eq!(verified.exit, 7, "{verified:?}");
    assert!(verified.err.contains("no answer from 1"), "{}", verified.err);
    cluster[2].resume();
}

#[test]
fn client_reads_at_the_nearest_place_and_purges_each_node() {
    let mut cluster = Cluster::start(&["lima", "lima", "oslo", "oslo"]);
    let client = cluster.client("oslo");
    client.put("k", "value", 600).tags(["t"]).ack(Ack::All).wait().expect("a write");
    let locations = until("four copies", || {
        let locations = client.locate("k").digests().wait().expect("locations");
        let is_value = |copy: zerocache_client::ops::KeyCopy| copy.state == CopyState::Value;
        let all = locations.iter().all(|place| place.copy.is_some_and(is_value));
        // The client measures what it knows.
        let is_measured = locations.iter().all(|place| place.latency.is_some());
        (all && is_measured).then_some(locations)
    });
    assert!(locations.agrees && locations.iter().count() == 4, "{locations:#?}");
    let latencies: Vec<_> = locations.iter().map(|place| place.latency).collect();
    assert!(latencies.is_sorted(), "{latencies:?}");
    let nearest = locations.nearest().expect("a copy");
    assert_eq!(Some(nearest.latency), latencies.first().copied());
    for place in &locations {
        assert_eq!(place.verdict, Verdict::Same);
        let entry = client.get("k").from(place).wait().expect("an answer").expect("a value");
        assert_eq!((entry.node, &entry.value[..]), (place.node, &b"value"[..]));
        assert!(client.get("other").from(place).wait().expect("an answer").is_none());
    }
    assert!(client.locate("").wait().is_err());

    let purged = until("all nodes", || {
        let purged = client.invalidate_tag("t").each_node().wait().expect("a purge");
        (purged.lacking().count() == 0).then_some(purged)
    });
    let version = purged.written.version.expect("a version");
    assert!(purged.nodes.iter().all(|node| node.has(version)) && purged.nodes.iter().count() == 4);
    assert!(client.locate("k").wait().expect("locations").nearest().is_none());
    // Who does not have a purge is named.
    cluster[0].freeze();
    let purged = client.invalidate_tag("t").each_node().wait().expect("a purge");
    let lacking: Vec<_> = purged.lacking().map(|node| node.address).collect();
    assert_eq!(lacking, [Some(cluster[0].address())]);
    cluster[0].resume();
}
