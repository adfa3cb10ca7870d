//! Copies that differ: what verification says of them, and their repair. The tests speak as nodes, to give one
//! node what the others do not get.

use std::time::Duration;

use bytes::Bytes;
use serde_json::Value as Json;
use zerocache_core::entry::{Change, Record};
use zerocache_core::version::{Incarnation, Version};
use zerocache_core::wire::{
    Envelope, Receipt, ReplicatedRecord, Request, RequestMessage, Response, cluster_id,
};
use zerocache_net::clock;
use zerocache_tests::cluster::Cluster;
use zerocache_tests::frames::CLUSTER;
use zerocache_tests::messages::key;
use zerocache_tests::node::Node;
use zerocache_tests::operator::Operator;
use zerocache_tests::poll::{pass, until, until_true};
use zerocache_tests::transport::TransportKind;

const REGIONS: [&str; 9] = ["lima", "lima", "lima", "oslo", "oslo", "oslo", "rome", "rome", "rome"];

/// How long nodes have run at a repair at least, where lifetimes are compared to a second.
const RUNS: Duration = Duration::from_secs(3);

/// A copy that one node gets.
#[derive(Clone, Copy)]
struct Planted {
    version: Version,
    value: &'static str,
    life_ms: u64,
}

fn version(age_ms: u64) -> Version {
    let wall_ms = clock::now().wall_ms - age_ms;
    Version::new(wall_ms << Version::COUNTER_BITS, Incarnation(7))
}

fn plant(node: &Node, name: &str, copy: Planted) {
    let Planted { version, value, life_ms } = copy;
    let expires = clock::mono().plus_ms(life_ms);
    let change = Change::Put { value: Bytes::from(value), metadata: Bytes::new(), expires };
    let record = Record { key: key(name), version, change };
    let request =
        Request::Replicate(vec![ReplicatedRecord { record, relay: false, witness: false }]);
    let envelope = Envelope { cluster: cluster_id(CLUSTER), ..Envelope::default() };
    let message = RequestMessage { envelope, request }.encode(clock::mono());
    let response = TransportKind::Http.caller(node.address()).ask(&message);
    assert_eq!(response, Response::Replicated(vec![Receipt::Holds(version)]));
}

fn post(node: &Node, path: &str) -> Json {
    let answer = node.http("POST", path, b"");
    assert_eq!(answer.status, 200, "{}", answer.json());
    answer.json()
}

fn verdict<'a>(document: &'a Json, node: &Node) -> &'a str {
    let nodes = document["nodes"].as_array().expect("nodes");
    let node = nodes.iter().find(|one| one["address"] == node.address().to_string());
    node.and_then(|node| node["verdict"].as_str()).expect("a verdict")
}

/// Repair between nodes finds older and missing copies within seconds: tests that need them try again with
/// another key until they were faster.
fn first_in_time<T>(what: &str, mut attempt: impl FnMut(&str) -> Option<T>) -> T {
    let mut number = 0;
    until(what, || {
        number += 1;
        attempt(&format!("k{number}"))
    })
}

#[test]
fn copies_that_differ_are_named_and_repaired() {
    let cluster = Cluster::start(&REGIONS);
    let [damaged, behind, evicted] = [1, 5, 8];
    let (old, new) = (version(20_000), version(10_000));
    let good = Planted { version: new, value: "value", life_ms: 600_000 };
    let plant_all = |name: &str| {
        for (n, node) in cluster.nodes.iter().enumerate() {
            let copy = match n {
                _ if n == damaged => Planted { value: "valve", ..good },
                _ if n == behind => Planted { version: old, value: "older", ..good },
                // Expired on arrival, as good as evicted.
                _ if n == evicted => Planted { life_ms: 0, ..good },
                _ => good,
            };
            plant(node, name, copy);
        }
    };
    let name = first_in_time("a verification before the repair between nodes", |name| {
        plant_all(name);
        let document = post(&cluster[0], &format!("/v1/verify?key={name}"));
        assert_eq!(document["agrees"], false, "{document}");
        assert_eq!(verdict(&document, &cluster[damaged]), "damaged", "{document}");
        assert_eq!(verdict(&document, &cluster[evicted]), "evicted", "{document}");
        for n in [0, 2, 3, 4, 6, 7] {
            assert_eq!(verdict(&document, &cluster[n]), "same", "{document}");
        }
        (verdict(&document, &cluster[behind]) == "behind").then(|| name.to_owned())
    });

    let repaired = post(&cluster[3], &format!("/v1/repair?key={name}"));
    let rewritten = repaired["rewritten"].as_str().expect("a version");
    assert!(rewritten.parse::<Version>().expect("a version") > new);
    assert_eq!(repaired["agrees"], true, "{repaired}");
    for one in repaired["repaired"].as_array().expect("nodes") {
        assert_eq!(one["after"], "same", "{repaired}");
    }
    let named = |n: usize| {
        let address = cluster[n].address().to_string();
        let all = repaired["repaired"].as_array().expect("nodes");
        all.iter().any(|one| one["address"] == address)
    };
    assert!(named(damaged) && !named(evicted), "{repaired}");
    for n in [damaged, behind] {
        assert_eq!(cluster[n].value(name.as_bytes()).as_deref(), Some(&b"value"[..]));
    }
    let after = post(&cluster[8], &format!("/v1/verify?key={name}"));
    assert_eq!((&after["agrees"], &after["version"]), (&true.into(), &repaired["rewritten"]));
}

#[test]
fn older_and_missing_copies_get_the_newest_version_and_evicted_ones_stay() {
    let cluster = Cluster::start(&["lima", "lima", "oslo", "rome"]);
    let (old, new) = (version(20_000), version(10_000));
    let good = Planted { version: new, value: "value", life_ms: 600_000 };
    let repaired = first_in_time("a repair before the one between nodes", |name| {
        plant(&cluster[0], name, good);
        plant(&cluster[1], name, Planted { life_ms: 0, ..good });
        plant(&cluster[2], name, Planted { version: old, value: "older", ..good });
        let repaired = post(&cluster[3], &format!("/v1/repair?key={name}"));
        let before: Vec<_> = repaired["repaired"].as_array().expect("nodes").clone();
        let before: Vec<_> = before.iter().map(|one| one["before"].clone()).collect();
        (before == ["behind", "missing"]).then_some(repaired)
    });
    assert_eq!(repaired["rewritten"], Json::Null, "{repaired}");
    assert_eq!(repaired["version"], new.to_string());
    assert_eq!(repaired["agrees"], true);
    for (n, expected) in ["same", "evicted", "same", "same"].into_iter().enumerate() {
        assert_eq!(verdict(&repaired, &cluster[n]), expected, "{repaired}");
    }
}

#[test]
fn node_to_repair_from_is_chosen_where_no_content_has_a_majority() {
    let cluster = Cluster::start(&["lima", "oslo"]);
    let good = Planted { version: version(10_000), value: "value", life_ms: 600_000 };
    let planted = clock::elapsed();
    plant(&cluster[0], "k", good);
    plant(&cluster[1], "k", Planted { value: "valve", ..good });
    let document = post(&cluster[0], "/v1/verify?key=k");
    for node in &cluster.nodes {
        assert_eq!(verdict(&document, node), "damaged", "{document}");
    }
    let refused = cluster[0].http("POST", "/v1/repair?key=k", b"");
    assert_eq!((refused.status, &refused.json()["code"]), (409, &"conflict".into()));
    let from = cluster[1].address();
    // A lifetime does not depend on how long the node has run.
    pass(RUNS);
    let repaired = post(&cluster[0], &format!("/v1/repair?key=k&from={from}"));
    assert_eq!(repaired["agrees"], true, "{repaired}");
    let passed_ms = clock::elapsed().saturating_sub(planted).as_millis() as u64;
    for node in repaired["nodes"].as_array().expect("nodes") {
        let ttl_ms = node["ttl_ms"].as_u64().expect("a lifetime");
        assert!(ttl_ms + passed_ms + 1_000 >= good.life_ms, "{passed_ms} ms: {repaired}");
    }
    assert_eq!(cluster[0].value(b"k").as_deref(), Some(&b"valve"[..]));
    // What an operator did is in the log.
    until_true("a line in the log", || cluster[0].log().contains("repair requested"));
}

#[test]
fn newest_delete_is_what_a_repair_brings() {
    let cluster = Cluster::start(&["lima", "oslo"]);
    let (old, new) = (version(20_000), version(10_000));
    let gone = Planted { version: new, value: "", life_ms: 0 };
    let repaired = first_in_time("a repair before the one between nodes", |name| {
        plant(&cluster[0], name, gone);
        plant(&cluster[1], name, Planted { version: old, value: "older", life_ms: 600_000 });
        let repaired = post(&cluster[1], &format!("/v1/repair?key={name}"));
        assert_eq!(cluster[1].value(name.as_bytes()), None);
        repaired["repaired"].as_array().is_some_and(|all| all.len() == 1).then_some(repaired)
    });
    assert_eq!((&repaired["found"], &repaired["agrees"]), (&false.into(), &true.into()));
    assert_eq!(repaired["repaired"][0]["before"], "behind");
}

#[test]
fn tool_names_a_damaged_copy_and_repairs_it() {
    let cluster = Cluster::start(&["lima", "oslo", "rome"]);
    let operator = Operator::new(cluster[0].address());
    let good = Planted { version: version(10_000), value: "value", life_ms: 600_000 };
    for (n, node) in cluster.nodes.iter().enumerate() {
        plant(node, "k", Planted { value: if n == 2 { "valve" } else { "value" }, ..good });
    }
    let address = cluster[2].address().to_string();
    let verified = operator.run(&["verify", "k"]);
    let text = verified.text();
    let line = text.lines().find(|line| line.contains(&address)).expect("a line");
    assert_eq!((verified.exit, line.contains("  damaged  ")), (6, true), "{text}");
    assert!(verified.err.contains("k: 1 of 3 nodes differ"), "{}", verified.err);
    let planned = operator.run(&["repair", "k", "--dry-run"]);
    assert_eq!(planned.exit, 6);
    assert!(planned.err.contains(&format!("{address}: gets the content")), "{}", planned.err);
    assert_eq!(cluster[2].value(b"k").as_deref(), Some(&b"valve"[..]));
    let repaired = operator.run(&["repair", "k"]);
    assert_eq!(repaired.exit, 0, "{repaired:?}");
    let said = format!("{address} was damaged and is same");
    assert!(repaired.err.contains(&said), "{}", repaired.err);
    assert_eq!(cluster[2].value(b"k").as_deref(), Some(&b"value"[..]));
    assert_eq!(operator.run(&["verify", "k", "--json"]).json()["exit"], 0);
}
