//! The keys that are read most: found under load, and named to nobody unless the node keeps names and the
//! caller may administer it.

use serde_json::Value as Json;
use zerocache_core::key::KeyHash;
use zerocache_tests::{
    cluster::Cluster,
    http,
    node::Node,
    operator::Operator,
    security::Keys,
    setup::{Access, Setup},
};

/// Two keys that are read often, the first one more often.
const HOT: [&str; 2] = ["the hottest key", "<img src=x onerror=alert(1)>"];

/// Reads of both keys until the node knows them: of each some 100, and of the first one 200, are measured.
const READS: usize = 3_200;

fn hash(key: &str) -> String {
    format!("{:032x}", { KeyHash::of(key.as_bytes()).0 })
}

fn hot_keys(node: &Node, query: &str) -> Json {
    let answer = node.http("GET", &format!("/v1/hot-keys{query}"), b"");
    assert_eq!(answer.status, 200, "{}", answer.head);
    answer.json()
}

/// Reads the hot keys of a cluster through a client: many keys in one call, each as often as in `HOT`.
fn read_often(cluster: &Cluster) {
    let client = cluster.client("oslo");
    let keys = [HOT[0], HOT[0], HOT[1]];
    let many: Vec<&str> = keys.iter().copied().cycle().take(96).collect();
    for _ in 0..READS.div_ceil(32) {
        client.get_many(&many).wait().expect("read");
        // Others, which are each read once or twice.
        client.get_many(["a", "b", "c"]).wait().expect("read");
    }
}

#[test]
fn hot_keys_are_found_and_their_names_are_hidden() {
    // Everybody on this host may administer the node, and still sees no names: it keeps none.
    let cluster = Cluster::start(&["oslo"]);
    read_often(&cluster);
    let answer = http_text(&cluster[0], "?count=5");
    let found: Json = serde_json::from_str(&answer).expect("JSON");
    assert_eq!(found["mode"], "hash");
    let keys = found["keys"].as_array().expect("keys");
    for (place, key) in HOT.iter().enumerate() {
        assert_eq!(keys[place]["hash"], hash(key).as_str(), "{answer}");
        assert_eq!(keys[place]["key_bytes"], key.len());
        assert!(keys[place]["reads_per_s"].as_f64().is_some_and(|rate| rate > 0.0), "{answer}");
    }
    assert!(keys.len() <= 5 && keys.iter().all(|key| key.get("key").is_none()), "{answer}");
    assert!(!answer.contains("hottest") && !answer.contains("key_hex"), "{answer}");
    for wrong in ["?count=0", "?count=257", "?count=x", "?names=true"] {
        let answer = cluster[0].http("GET", &format!("/v1/hot-keys{wrong}"), b"");
        assert_eq!(answer.status, 400, "{wrong}");
    }
    let operator = Operator::new(cluster[0].address());
    let text = operator.run(&["top", "--hot", "--once"]);
    assert!(text.exit == 0 && text.text().contains(&hash(HOT[0])), "{text:?}");
    assert!(!text.text().contains("hottest"), "{text:?}");
    let hottest = operator.run(&["keys", "--hot", "1"]);
    assert!(hottest.exit == 0 && hottest.text().contains(&hash(HOT[0])), "{hottest:?}");
    assert!(!hottest.text().contains(&hash(HOT[1])), "only as many as wanted: {hottest:?}");
    let hottest = operator.run(&["keys", "--hot", "2", "--json"]).json();
    assert_eq!(hottest["keys"][1]["hash"], hash(HOT[1]).as_str());
    let json = operator.run(&["top", "--hot", "--once", "--json"]).json();
    assert_eq!(json["hot_keys"][0]["hash"], hash(HOT[0]).as_str(), "{json}");
    assert!(json["nodes"][0].get("get_p99_us").is_some(), "{json}");
}

fn http_text(node: &Node, query: &str) -> String {
    let answer = node.http("GET", &format!("/v1/hot-keys{query}"), b"");
    assert_eq!(answer.status, 200, "{}", answer.head);
    String::from_utf8(answer.body).expect("text")
}

#[test]
fn names_are_for_administrators_of_nodes_that_keep_them() {
    let keys = Keys::new();
    let setup = Setup::new("oslo").access(Access::Secret(keys.clone()));
    let node = setup.flag("--hot-keys", "plain").start();
    for _ in 0..READS / 8 {
        let _miss = node.get(HOT[1].as_bytes());
    }
    let with_role = |role: &str| {
        let keys = keys.with_token(keys.token(&["--name", role, "--role", role]));
        http::send_with(node.address(), Some(&keys), "GET", "/v1/hot-keys", &[], b"")
            .expect("an answer")
    };
    let named = with_role("admin").json();
    assert_eq!(named["mode"], "plain");
    assert_eq!(named["keys"][0]["key"], HOT[1], "{named}");
    assert_eq!(named["keys"][0]["key_hex"].as_str().map(str::len), Some(2 * HOT[1].len()));
    let hidden = with_role("monitor").json();
    assert_eq!(hidden["keys"][0]["hash"], hash(HOT[1]).as_str());
    let fields = hidden["keys"][0].as_object().expect("an object");
    assert_eq!(fields.keys().collect::<Vec<_>>(), ["hash", "key_bytes", "reads_per_s"]);
    assert_eq!(with_role("write").status, 403);
}

#[test]
fn node_that_keeps_no_hot_keys_has_none() {
    let node = Setup::new("oslo").flag("--hot-keys", "off").start();
    for _ in 0..200 {
        let _miss = node.get(HOT[0].as_bytes());
    }
    assert_eq!(hot_keys(&node, ""), serde_json::json!({"mode": "off", "keys": []}));
}
