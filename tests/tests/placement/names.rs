//! Any node answers for any key; two nodes of one name own nothing.

use zerocache_tests::http::{self, Answer};
use zerocache_tests::node::{Node, entry};
use zerocache_tests::poll::{until, until_true};

use super::{region, setup_beside, view};

const KEYS: usize = 20;

fn send(node: &Node, method: &str, key: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let target = entry(key.as_bytes());
    http::send(node.address(), method, &target, headers, body.as_bytes()).expect("an answer")
}

/// Sends a write on a condition, again while the owners of the key judge none: nodes that have just met do not know
/// yet whether others have values for them.
fn send_until_judged(
    node: &Node,
    method: &str,
    key: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Answer {
    until("an owner that judges conditions", || {
        let answer = send(node, method, key, headers, body);
        Some(answer).filter(|answer| answer.status != 503)
    })
}

fn key(n: usize) -> String {
    format!("key-{n}")
}

#[test]
fn every_node_answers_for_every_key_over_http() {
    let cluster = region(5, 2);
    for n in 0..KEYS {
        let (key, value) = (key(n), format!("value {n}"));
        let written = cluster[n % 5].put(key.as_bytes(), value.as_bytes(), "ttl=600&ack=region");
        let tag = format!("\"{}\"", written["version"].as_str().expect("a version"));
        for node in &cluster.nodes {
            let answer = send(node, "GET", &key, &[], "");
            assert_eq!((answer.status, &*answer.body), (200, value.as_bytes()), "{}", answer.head);
            assert_eq!(answer.header("etag"), Some(&*tag));
            let head = send(node, "HEAD", &key, &[], "");
            assert_eq!((head.status, head.body.len()), (200, 0));
            assert_eq!(head.header("content-length"), Some(&*value.len().to_string()));
            let part = send(node, "GET", &key, &[("Range", "bytes=6-")], "");
            assert_eq!((part.status, &*part.body), (206, n.to_string().as_bytes()));
            let known = send(node, "GET", &key, &[("If-None-Match", &tag)], "");
            assert_eq!(known.status, 304);
        }
    }
    assert!(cluster.nodes.iter().any(|node| node.stat("forwarded") > 0));
    let absent = cluster.nodes.iter().map(|node| send(node, "GET", "absent", &[], "").status);
    assert!(absent.into_iter().all(|status| status == 404));
}

#[test]
fn conditions_and_deletes_hold_at_every_node() {
    let cluster = region(5, 2);
    for n in 0..KEYS {
        let (key, node) = (key(n), &cluster[n % 5]);
        let is_absent = [("If-None-Match", "*")];
        let first = send_until_judged(node, "PUT", &key, &is_absent, "first");
        assert_eq!(first.status, 200, "{n}: {}", first.json());
        let mut tag = String::new();
        for other in &cluster.nodes {
            until_true("the first value", || other.value(key.as_bytes()).is_some());
            let refused = send_until_judged(other, "PUT", &key, &is_absent, "second");
            assert_eq!(refused.status, 412, "{n}: {}", refused.json());
            tag = refused.header("etag").expect("the tag of the value").to_owned();
        }
        let other = &cluster[(n + 2) % 5];
        let answer = send_until_judged(other, "PUT", &key, &[("If-Match", &tag)], "second");
        assert_eq!(answer.status, 200, "{n}: {}", answer.json());
        for node in &cluster.nodes {
            until_true("the second value", || {
                node.value(key.as_bytes()).as_deref() == Some(b"second")
            });
            let answer = send_until_judged(node, "DELETE", &key, &[("If-Match", &tag)], "");
            assert_eq!(answer.status, 412, "{n}: {}", answer.json());
        }
        cluster[(n + 3) % 5].delete(key.as_bytes(), "ack=region");
        for node in &cluster.nodes {
            assert_eq!(node.value(key.as_bytes()), None, "{n}");
        }
    }
}

#[test]
fn two_nodes_of_one_name_own_nothing_and_say_so() {
    let mut cluster = region(3, 2);
    for n in 0..KEYS {
        cluster[0].put(key(n).as_bytes(), b"v", "ttl=600");
    }
    let first = setup_beside(&cluster, 2).flag("--node-name", "twin").start();
    cluster.nodes.push(first);
    until_true("it owns keys", || cluster[3].stat("entries") > 0);
    let second = setup_beside(&cluster, 2).flag("--node-name", "twin").start();
    cluster.nodes.push(second);
    for node in &cluster.nodes {
        until_true("the conflict is known", || {
            let conflicts = view(node).map(|view| view["placement"]["conflicts"].clone());
            conflicts.is_some_and(|conflicts| conflicts == serde_json::json!(["twin"]))
        });
        until_true("the conflict is logged", || {
            let log = node.log();
            log.lines().any(|line| line.contains("ERROR") && line.contains("same name"))
        });
    }
    until_true("neither holds values", || {
        cluster[3].stat("entries") == 0 && cluster[4].stat("entries") == 0
    });
    for node in &cluster.nodes {
        assert!((0..KEYS).all(|n| node.value(key(n).as_bytes()).is_some()));
    }
    cluster[4].kill();
    until_true("the name is that of one node", || {
        view(&cluster[3])
            .is_some_and(|view| view["placement"]["conflicts"] == serde_json::json!([]))
    });
    until_true("it owns keys again", || cluster[3].stat("entries") > 0);
}
