//! Writes on conditions at real nodes: one winner at a node; at two nodes both may win, and the higher version does.

use std::collections::BTreeSet;
use std::sync::Barrier;
use std::time::Duration;

use zerocache_client::ops::{ConditionalOutcome, Taken};
use zerocache_client::{Ack, Version, ZerocacheClient};
use zerocache_tests::cluster::Cluster;
use zerocache_tests::http::{self, Answer};
use zerocache_tests::node::{Node, entry};
use zerocache_tests::poll::until;
use zerocache_tests::setup::Setup;

/// Callers that race for one key.
const CALLERS: usize = 8;

/// Races, each for a key of its own.
const RACES: usize = 40;

fn write(node: &Node, method: &str, key: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let target = entry(key.as_bytes());
    http::send(node.address(), method, &target, headers, body.as_bytes()).expect("an answer")
}

fn version_of(answer: &Answer) -> String {
    answer.json()["version"].as_str().expect("a version").to_owned()
}

fn parsed(answer: &Answer) -> Version {
    version_of(answer).parse().expect("a version")
}

/// Runs a write of each caller at the same moment.
fn race<T: Send>(callers: usize, write: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let barrier = Barrier::new(callers);
    let call = |n| {
        barrier.wait();
        write(n)
    };
    let call = &call;
    std::thread::scope(|threads| {
        let threads: Vec<_> = (0..callers).map(|n| threads.spawn(move || call(n))).collect();
        threads.into_iter().map(|thread| thread.join().expect("it ends")).collect()
    })
}

/// The value and version on which all nodes agree.
fn agreed(cluster: &Cluster, key: &str) -> (Vec<u8>, Version) {
    until("all nodes agree", || {
        let mut seen = cluster.nodes.iter().map(|node| {
            let answer = node.get(key.as_bytes());
            let version = answer.header("zerocache-version")?.parse().ok()?;
            Some((answer.body, version))
        });
        let first = seen.next()??;
        seen.all(|other| other.as_ref() == Some(&first)).then_some(first)
    })
}

#[test]
fn entity_tags_guard_writes_over_http() {
    let node = Setup::new("london").start();
    let absent = [("If-None-Match", "*")];
    let first = write(&node, "PUT", "k", &absent, "a");
    assert_eq!(first.status, 200);
    let tag = format!("\"{}\"", version_of(&first));
    let again = write(&node, "PUT", "k", &absent, "b");
    assert_eq!((again.status, again.code().as_str()), (412, "precondition_failed"));
    assert_eq!(again.header("etag"), Some(&*tag));
    let second = write(&node, "PUT", "k", &[("If-Match", &tag)], "b");
    assert_eq!(second.status, 200);
    let second_tag = format!("\"{}\"", version_of(&second));
    for (method, condition) in
        [("PUT", &*tag), ("DELETE", &tag), ("PUT", "\"x\""), ("PUT", &format!("W/{second_tag}"))]
    {
        let answer = write(&node, method, "k", &[("If-Match", condition)], "c");
        assert_eq!(
            (answer.status, answer.header("etag")),
            (412, Some(&*second_tag)),
            "{condition}"
        );
    }
    assert_eq!(node.value(b"k").as_deref(), Some(&b"b"[..]));
    assert_eq!(write(&node, "DELETE", "k", &[("If-Match", &second_tag)], "").status, 200);
    for condition in ["*", &second_tag] {
        let answer = write(&node, "PUT", "k", &[("If-Match", condition)], "c");
        assert_eq!((answer.status, answer.header("etag")), (412, None), "{condition}");
    }
    // A value past its fresh time is absent; its entity tag still counts.
    let target = format!("{}?ttl=1&stale-while=60", entry(b"stale"));
    let put = http::send(node.address(), "PUT", &target, &[], b"a").expect("an answer");
    until("the end of the fresh time", || (node.get(b"stale").status == 404).then_some(()));
    let tag = format!("\"{}\"", version_of(&put));
    assert_eq!(write(&node, "PUT", "stale", &[("If-Match", "*")], "b").status, 412);
    assert_eq!(write(&node, "PUT", "stale", &[("If-Match", &tag)], "b").status, 200);
    assert_eq!(node.stat("writes_not_met"), 8);
}

#[test]
fn one_of_many_racing_writes_is_met_at_one_node() {
    let cluster = Cluster::start(&["london", "london"]);
    let node = &cluster[0];
    for n in 0..RACES {
        let key = format!("absent {n}");
        let absent = [("If-None-Match", "*")];
        let answers = race(CALLERS, |n| write(node, "PUT", &key, &absent, &format!("{n}")));
        let met: Vec<_> = (0..CALLERS).filter(|n| answers[*n].status == 200).collect();
        assert_eq!(met.len(), 1, "{key}: {met:?}");
        assert_eq!(answers.iter().filter(|answer| answer.status == 412).count(), CALLERS - 1);
        let first = version_of(&answers[met[0]]);
        let (tag, winner) = (format!("\"{first}\""), format!("{}", met[0]));
        assert_eq!(agreed(&cluster, &key), (winner.into_bytes(), first.parse().unwrap()));

        let same = [("If-Match", &*tag)];
        let answers = race(CALLERS, |n| write(node, "PUT", &key, &same, &format!("again {n}")));
        let met: Vec<_> = (0..CALLERS).filter(|n| answers[*n].status == 200).collect();
        assert_eq!(met.len(), 1, "{key}: {met:?}");
        let value = format!("again {}", met[0]).into_bytes();
        assert_eq!(agreed(&cluster, &key), (value, parsed(&answers[met[0]])));
    }
}

#[test]
fn two_nodes_both_say_yes_and_the_higher_version_wins() {
    let cluster = Cluster::start(&["london", "london", "sydney"]);
    let mut twice = 0;
    for n in 0..RACES {
        let key = format!("contended {n}");
        let absent = [("If-None-Match", "*")];
        let answers =
            race(CALLERS, |n| write(&cluster[n % 2], "PUT", &key, &absent, &format!("caller {n}")));
        for node in 0..2 {
            let met = answers.iter().skip(node).step_by(2).filter(|answer| answer.status == 200);
            assert!(met.count() <= 1, "at one node");
        }
        let met = (0..CALLERS).filter(|n| answers[*n].status == 200);
        let mut met: Vec<_> = met.map(|n| (parsed(&answers[n]), n)).collect();
        met.sort();
        let (version, winner) = *met.last().expect("one is met");
        twice += usize::from(met.len() == 2);
        assert_eq!(agreed(&cluster, &key), (format!("caller {winner}").into_bytes(), version));
        // Who lost learns it when it compares again, at whichever node.
        if let [(lost, _), _] = met[..] {
            let tag = format!("\"{lost}\"");
            for node in &cluster.nodes {
                let answer = write(node, "PUT", &key, &[("If-Match", &tag)], "again");
                assert_eq!(answer.status, 412);
            }
        }
    }
    println!("{twice} of {RACES} races had a winner at each node");
}

/// Two processes would have two clients.
fn clients(cluster: &Cluster) -> [ZerocacheClient; 2] {
    [cluster.client("london"), cluster.client("london")]
}

#[test]
fn clients_of_a_region_meet_at_one_node() {
    let cluster = Cluster::start(&["london", "london", "london"]);
    let clients = clients(&cluster);
    for n in 0..RACES {
        let key = format!("met {n}");
        let outcomes = race(CALLERS, |n| {
            clients[n % 2].put(&key, format!("{n}"), 60).if_absent().wait().expect("a node")
        });
        let stored: Vec<_> = outcomes.iter().filter_map(ConditionalOutcome::version).collect();
        let [first] = stored[..] else { panic!("{key}: {outcomes:?}") };
        let current = ConditionalOutcome::NotMet { current: Some(first) };
        assert_eq!(outcomes.iter().filter(|one| **one == current).count(), CALLERS - 1);
    }
    // A counter loses nothing, although reads take turns among the nodes.
    clients[0].put("count", "0", 60).ack(Ack::Region).wait().expect("a node");
    race(4, |n| {
        let client = &clients[n % 2];
        for _ in 0..25 {
            let mut least = None;
            loop {
                let read = client.get("count");
                let read = least.into_iter().fold(read, |read, least| read.at_least(least)).entry();
                let Some(entry) = read.wait().expect("a node") else { continue };
                let count: u64 = str::from_utf8(&entry.value).unwrap().parse().unwrap();
                let put = client.put("count", (count + 1).to_string(), 60);
                match put.if_version(entry.version).wait().expect("a node") {
                    ConditionalOutcome::Stored(_) => break,
                    ConditionalOutcome::NotMet { current } => least = current,
                    other => panic!("{other:?}"),
                }
            }
        }
    });
    assert_eq!(agreed(&cluster, "count").0, b"100");
    // Each job is taken once.
    let jobs: Vec<_> = (0..RACES).map(|n| format!("job {n}")).collect();
    for job in &jobs {
        clients[0].put(job, job.as_bytes(), 60).ack(Ack::Region).wait().expect("a node");
    }
    let taken = race(4, |n| {
        let taken = jobs.iter().map(|job| clients[n % 2].get_and_delete(job).wait());
        taken.filter_map(|taken| taken.expect("a node").entry()).collect::<Vec<_>>()
    });
    let taken: Vec<_> = taken.into_iter().flatten().map(|entry| entry.value).collect();
    assert_eq!(taken.len(), RACES);
    assert_eq!(taken.iter().collect::<BTreeSet<_>>().len(), RACES);
}

#[test]
fn version_that_another_node_gave_a_moment_ago_counts() {
    let cluster = Cluster::start(&["london", "london", "london"]);
    let client = cluster.client("london");
    for n in 0..RACES {
        let key = format!("fresh {n}");
        // Plain writes take turns among the nodes; conditions of a key are judged by one.
        let written = client.put(&key, "a", 60).wait().expect("a node").version.expect("stored");
        let outcome = client.put(&key, "b", 60).if_version(written).wait().expect("a node");
        assert!(outcome.is_stored(), "{outcome:?}");
        let outcome = client.touch(&key, 90).wait().expect("a node");
        assert!(outcome.is_stored(), "{outcome:?}");
    }
}

#[test]
fn write_whose_answer_is_lost_is_unknown_and_not_made_twice() {
    let mut cluster = Cluster::start(&["london", "london"]);
    let client = cluster.client("london");
    let deadline = Duration::from_millis(300);
    cluster[0].freeze();
    cluster[1].freeze();
    let outcome = client.put("k", "a", 60).if_absent().deadline(deadline).wait();
    assert_eq!(outcome.expect("it was sent"), ConditionalOutcome::Unknown);
    let taken = client.get_and_delete("other").deadline(deadline).wait();
    assert!(matches!(taken, Ok(Taken::Unknown) | Err(_)), "{taken:?}");
    cluster[0].resume();
    cluster[1].resume();
    cluster.wait_until_joined();
    let stored = |node: &Node| node.stat("writes_stored");
    assert!(cluster.nodes.iter().map(stored).sum::<u64>() <= 1);
}
