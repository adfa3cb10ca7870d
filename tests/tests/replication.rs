//! Replication: a write at one node reaches all nodes of all regions, with its value, lifetime and
//! size; deletions and concurrent writes too.

use std::time::Duration;

use zerocache_client::{Ack, Status};
use zerocache_tests::cluster::Cluster;
use zerocache_tests::http::Answer;
use zerocache_tests::node::Node;
use zerocache_tests::poll::{PATIENCE, timed};

/// Three regions, one of them with several nodes behind its relay.
const REGIONS: [&str; 5] = ["london", "london", "sydney", "sydney", "oslo"];

/// Room for the time that a message between two processes takes on a busy machine.
const TOLERANCE_MS: u64 = 1_500;

/// The greatest age of the time by which a reader judges lifetimes.
const TICK_MS: u64 = 10;

fn is_value(value: &[u8]) -> impl Fn(&Answer) -> bool + '_ {
    move |answer| answer.status == 200 && answer.body == value
}

fn is_missing(answer: &Answer) -> bool {
    answer.status == 404
}

fn ttl_ms(answer: &Answer) -> u64 {
    let text = answer.header("zerocache-ttl-ms").expect("the remaining life");
    text.parse().expect("a number")
}

#[test]
fn value_ttl_and_delete_reach_every_node() {
    let cluster = Cluster::start(&REGIONS);
    for (number, writer) in cluster.nodes.iter().enumerate() {
        let key = format!("from {number}").into_bytes();
        let ttl_s = 30 + number as u64;
        let written = writer.put(&key, b"hello", &format!("ttl={ttl_s}"));
        assert_eq!(written["status"], "stored");
        cluster.everywhere(&key, is_value(b"hello"));
        // One after the other, so that what the readings took bounds how far they may differ.
        let read = || cluster.nodes.iter().map(|node| ttl_ms(&node.get(&key))).collect();
        let (incarnations, took): (Vec<u64>, _) = timed(read);
        let (least, most) = (
            incarnations.iter().min().expect("incarnations"),
            incarnations.iter().max().expect("incarnations"),
        );
        assert!(*most <= ttl_s * 1_000 + TICK_MS, "{incarnations:?}");
        assert!(most - least <= TOLERANCE_MS + took.as_millis() as u64, "{incarnations:?}");
        assert!(*least > (ttl_s - 20) * 1_000, "{incarnations:?}");
        let versions: Vec<_> = cluster.nodes.iter().map(|node| version(node, &key)).collect();
        assert!(versions.windows(2).all(|pair| pair[0] == pair[1]), "{versions:?}");
    }
    for (number, writer) in cluster.nodes.iter().enumerate() {
        let key = format!("from {}", (number + 1) % REGIONS.len()).into_bytes();
        assert_eq!(writer.delete(&key, "")["status"], "stored");
        cluster.everywhere(&key, is_missing);
    }
}

fn version(node: &Node, key: &[u8]) -> Option<String> {
    node.get(key).header("zerocache-version").map(str::to_owned)
}

#[test]
fn short_ttl_ends_at_the_same_time_on_every_node() {
    let cluster = Cluster::start(&["london", "sydney", "sydney"]);
    let (_, writing) = timed(|| cluster[0].put(b"brief", b"x", "ttl=3&ack=all"));
    cluster.everywhere(b"brief", is_value(b"x"));
    // Each is asked until its value is gone, which must be after the same 3 s for a node behind a
    // relay too.
    let ((), took) = timed(|| cluster.everywhere(b"brief", is_missing));
    assert!(took + writing <= Duration::from_secs(3) + Duration::from_millis(TOLERANCE_MS));
    let expired = cluster.nodes.iter().all(|node| node.stat("expired") == 1);
    assert!(expired, "it expired on every node and was not lost");
}

#[test]
fn acknowledgements_count_replicas() {
    let mut cluster = Cluster::start(&REGIONS);
    let counts = |node: &Node, query: &str| {
        let written = node.put(b"counted", b"x", query);
        assert_eq!(written["status"], "stored");
        (written["replicas"].as_u64(), written["replicas_wanted"].as_u64())
    };
    assert_eq!(counts(&cluster[0], "ttl=60"), (Some(1), Some(1)));
    assert_eq!(counts(&cluster[0], "ttl=60&ack=local"), (Some(1), Some(1)));
    assert_eq!(counts(&cluster[0], "ttl=60&ack=region"), (Some(2), Some(2)));
    assert_eq!(cluster[1].value(b"counted"), Some(b"x".to_vec()));
    // One local peer and one node of each of the two other regions.
    assert_eq!(counts(&cluster[0], "ttl=60&ack=all"), (Some(4), Some(4)));
    assert!(cluster[4].value(b"counted").is_some(), "oslo has one node, and it acknowledged");
    assert_eq!(counts(&cluster[4], "ttl=60&ack=region"), (Some(1), Some(1)));

    // A peer that is silent makes the answer short and late, and neither a failure nor endless.
    cluster[1].freeze();
    let ((have, wanted), took) = timed(|| counts(&cluster[0], "ttl=60&ack=all"));
    assert_eq!((have, wanted), (Some(3), Some(4)));
    assert!(took < PATIENCE / 3, "{took:?}");
    cluster[1].resume();

    let client = cluster.client("sydney");
    let put = client.put("by a client", "x", 60).ack(Ack::All).deadline(PATIENCE).wait();
    let written = put.expect("an answer");
    assert_eq!((written.status, written.replicas), (Status::Stored, written.replicas_wanted));
    assert_eq!(written.replicas, 4);
}

#[test]
fn empty_and_large_values_reach_every_node() {
    let cluster = Cluster::start(&["london", "sydney", "sydney"]);
    let large: Vec<u8> = (0..5 << 20).map(|n: u32| (n ^ (n >> 9)) as u8).collect();
    assert_eq!(cluster[0].put(b"large", &large, "ttl=60")["status"], "stored");
    assert_eq!(cluster[0].put(b"empty", b"", "ttl=60")["status"], "stored");
    cluster.everywhere(b"large", is_value(&large));
    cluster.everywhere(b"empty", is_value(b""));
    for region in ["london", "sydney"] {
        let client = cluster.client(region);
        let empty = client.get("empty").wait().expect("an answer").expect("a hit of length 0");
        assert!(empty.is_empty());
        let found = client.get("large").wait().expect("an answer").expect("a hit");
        assert!(found == large, "{} of {} bytes", found.len(), large.len());
    }
    let client = cluster.client("sydney");
    client.put("typed empty", Vec::new(), 60).wait().expect("an answer");
    client.put("typed large", large.as_slice(), 60).wait().expect("an answer");
    cluster.everywhere(b"typed empty", is_value(b""));
    cluster.everywhere(b"typed large", is_value(&large));
}

#[test]
fn concurrent_writes_converge_everywhere() {
    const KEYS: usize = 150;
    let cluster = Cluster::start(&["london", "london", "sydney", "sydney"]);
    let key = |n: usize| format!("contended {n}").into_bytes();
    let (a, b) = (&cluster[1], &cluster[2]);
    std::thread::scope(|threads| {
        threads.spawn(|| {
            for n in 0..KEYS {
                a.put(&key(n), format!("london {n}").as_bytes(), "ttl=60");
            }
        });
        threads.spawn(|| {
            for n in 0..KEYS {
                match n % 2 {
                    0 => b.put(&key(n), format!("sydney {n}").as_bytes(), "ttl=60"),
                    _ => b.delete(&key(n), ""),
                };
            }
        });
    });
    let (mut from_a, mut from_b) = (0, 0);
    for n in 0..KEYS {
        let agreed = agreed(&cluster, &key(n));
        match agreed {
            Some(value) if value == format!("london {n}").into_bytes() => from_a += 1,
            Some(value) => {
                assert_eq!(value, format!("sydney {n}").into_bytes());
                assert_eq!(n % 2, 0);
                from_b += 1;
            }
            None => {
                assert_eq!(n % 2, 1, "nobody deleted {n}");
                from_b += 1;
            }
        }
    }
    assert_eq!(from_a + from_b, KEYS);
}

/// Returns the answer of all nodes to a read of a key, once they agree.
fn agreed(cluster: &Cluster, key: &[u8]) -> Option<Vec<u8>> {
    zerocache_tests::poll::until("all nodes agree", || {
        let mut seen = cluster.nodes.iter().map(|node| {
            let answer = node.get(key);
            (answer.header("zerocache-version").map(str::to_owned), node.value(key))
        });
        let first = seen.next()?;
        seen.all(|other| other == first).then_some(first.1)
    })
}
