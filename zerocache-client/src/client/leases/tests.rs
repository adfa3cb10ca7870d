//! Leases from real nodes in this process.

use std::io::{Read, Write as _};
use std::net::SocketAddr;

use crate::client::ComputedPut;
use tokio::time::{sleep, timeout};
use zerocache_core::{metadata::Metadata, route::Tier, wire::Status};
use zerocache_server::{
    EmbeddedNode,
    config::{DiscoverySet, HostPort, ServerConfig},
};

use super::*;

const LIFE: Duration = Duration::from_secs(10);
const WAIT: Duration = Duration::from_secs(5);
const TTL: Duration = Duration::from_secs(60);

/// After this long a test hangs.
const MOST: Duration = Duration::from_secs(20);

fn node(region: &str, seeds: &[SocketAddr]) -> EmbeddedNode {
    let mut config = ServerConfig::new(region);
    config.cluster = "lease-tests".to_owned();
    config.addresses = vec![[127, 0, 0, 1].into()];
    config.port = 0;
    config.max_bytes = 64 << 20;
    config.discovery = DiscoverySet { seeds: true, ..DiscoverySet::NONE };
    let seed = |at: &SocketAddr| at.to_string().parse::<HostPort>().expect("an address");
    config.seeds = seeds.iter().map(seed).collect();
    EmbeddedNode::start(config, Duration::from_secs(10)).expect("a node on a free port")
}

/// A client that knows all of `nodes`.
async fn client(region: &str, nodes: &[&EmbeddedNode]) -> ZerocacheClient {
    // A node that is slow on a busy machine is none that is gone: another one would grant a second lease.
    let builder = [Tier::Local, Tier::NextLocal]
        .into_iter()
        .fold(ZerocacheClient::builder(region), |builder, tier| builder.tier_timeout(tier, MOST));
    let builder = builder.total_timeout(MOST).cluster("lease-tests").mdns(false);
    let client =
        nodes.iter().fold(builder, |builder, node| builder.seed(node.address().to_string()));
    let client = client.build().expect("the configuration is allowed");
    until(|| client.nodes().iter().filter(|node| node.in_rotation).count() == nodes.len()).await;
    client
}

async fn until(mut done: impl FnMut() -> bool) {
    let begun = clock::elapsed();
    while !done() {
        assert!(clock::elapsed() - begun < MOST, "it takes too long");
        sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until `count` callers in all wait for a lease at these nodes.
async fn until_waiting(nodes: &[&EmbeddedNode], count: u64) {
    until(|| nodes.iter().map(|node| waiters(node)).sum::<u64>() == count).await;
}

/// The node's figure `lease_waiters`.
fn waiters(node: &EmbeddedNode) -> u64 {
    let mut tcp = std::net::TcpStream::connect(node.address()).expect("connected");
    let request = "GET /v1/stats HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    tcp.write_all(request.as_bytes()).expect("sent");
    let mut answer = String::new();
    tcp.read_to_string(&mut answer).expect("an answer");
    let (_, rest) = answer.split_once("\"lease_waiters\":").expect("the figure");
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().expect("a number")
}

fn key(name: &str) -> Bytes {
    Bytes::copy_from_slice(name.as_bytes())
}

fn terms(scope: LeaseScope, wait: Duration) -> LeaseTerms {
    LeaseTerms { scope, life: LIFE, wait, over: None, deadline: None }
}

fn ask(
    client: &ZerocacheClient,
    name: &str,
    wait: Duration,
) -> impl Future<Output = LeaseReply> + Send + 'static + use<> {
    let asked = client.lease(key(name), terms(LeaseScope::Region, wait));
    async move { asked.await.0 }
}

async fn token(client: &ZerocacheClient, name: &str) -> LeaseToken {
    match ask(client, name, Duration::ZERO).await {
        LeaseReply::Token(token) => token,
        other => panic!("{other:?}"),
    }
}

async fn fill(client: &ZerocacheClient, name: &str, token: LeaseToken) -> Status {
    let (key, bytes, metadata) = (key(name), Bytes::from_static(b"v"), Metadata::default());
    let put = ComputedPut { key, bytes, fresh: TTL, metadata, from: None, unstored: None };
    let write = client.computed_put(put);
    let written =
        write.token(token.version().expect("of this process")).await.expect("the node answers");
    token.spent();
    written.status
}

async fn in_time<T>(test: impl Future<Output = T>) -> T {
    timeout(MOST, test).await.expect("the test hangs")
}

#[tokio::test]
async fn one_of_many_clients_computes_and_the_others_get_its_value() {
    in_time(async {
        let first = node("oslo", &[]);
        let second = node("oslo", &[first.address()]);
        let mut asked = tokio::task::JoinSet::new();
        for _ in 0..20 {
            let client = client("oslo", &[&first, &second]).await;
            asked.spawn(async move {
                match ask(&client, "k", WAIT).await {
                    LeaseReply::Token(token) => {
                        // Long enough for all others to ask.
                        sleep(Duration::from_millis(300)).await;
                        assert_eq!(fill(&client, "k", token).await, Status::Stored);
                        true
                    }
                    LeaseReply::Found(entry) => {
                        assert_eq!(entry.value, "v");
                        false
                    }
                    other => panic!("{other:?}"),
                }
            });
        }
        let computed = asked.join_all().await.into_iter().filter(|computed| *computed).count();
        assert_eq!(computed, 1);
    })
    .await;
}

#[tokio::test]
async fn a_token_that_is_dropped_goes_to_the_next_and_a_failed_one_to_nobody() {
    in_time(async {
        let node = node("oslo", &[]);
        let client = client("oslo", &[&node]).await;
        let first = token(&client, "k").await;
        let waiting = tokio::spawn(ask(&client, "k", WAIT));
        let busy = ask(&client, "k", Duration::from_millis(100)).await;
        assert!(matches!(busy, LeaseReply::Busy));
        let version = first.version();
        drop(first);
        let LeaseReply::Token(second) = waiting.await.expect("the task ends") else {
            panic!("a token")
        };
        assert!(second.version() > version);
        let begun = clock::elapsed();
        let waiting: Vec<_> = (0..10).map(|_| tokio::spawn(ask(&client, "k", WAIT))).collect();
        until_waiting(&[&node], 10).await;
        second.fail();
        for waits in waiting {
            assert!(matches!(waits.await.expect("the task ends"), LeaseReply::Busy));
        }
        assert!(clock::elapsed() - begun < WAIT, "nobody waited for the next failure");
    })
    .await;
}

#[tokio::test]
async fn a_caller_that_goes_away_gives_back_what_comes_later() {
    in_time(async {
        let node = node("oslo", &[]);
        let client = client("oslo", &[&node]).await;
        let first = token(&client, "k").await;
        let gone = tokio::time::timeout(Duration::from_millis(100), ask(&client, "k", WAIT)).await;
        assert!(gone.is_err());
        let waits = tokio::spawn(ask(&client, "k", WAIT));
        sleep(Duration::from_millis(100)).await;
        drop(first);
        // Not after the life of the one that nobody took.
        assert!(matches!(waits.await.expect("the task ends"), LeaseReply::Token(_)));
    })
    .await;
}

#[test]
fn a_leave_outlives_the_runtime_on_which_it_was_asked_for() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build();
    let (first, second) = (runtime().expect("permitted"), runtime().expect("permitted"));
    let node = node("oslo", &[]);
    let client = first.block_on(in_time(client("oslo", &[&node])));
    let held = first.block_on(in_time(token(&client, "k")));
    // Its connections go with it.
    first.shutdown_timeout(MOST);
    second.block_on(in_time(async {
        let busy = ask(&client, "k", Duration::from_millis(300)).await;
        assert!(matches!(busy, LeaseReply::Busy));
        drop(held);
        assert!(matches!(ask(&client, "k", WAIT).await, LeaseReply::Token(_)));
    }));
}

#[tokio::test]
async fn a_delete_after_the_grant_wins_over_the_fill() {
    in_time(async {
        let node = node("oslo", &[]);
        let client = client("oslo", &[&node]).await;
        let token = token(&client, "k").await;
        client.delete("k").await.expect("the node answers");
        assert_eq!(fill(&client, "k", token).await, Status::Superseded);
        assert_eq!(client.get("k").await.expect("the node answers"), None);
        // A put, too.
        let token = self::token(&client, "k").await;
        client.put("k", "newer", 60).await.expect("the node answers");
        assert_eq!(fill(&client, "k", token).await, Status::Superseded);
        assert_eq!(client.get("k").await.expect("the node answers").unwrap(), "newer");
        assert!(
            matches!(ask(&client, "k", WAIT).await, LeaseReply::Found(entry) if entry.value == "newer")
        );
    })
    .await;
}

#[tokio::test]
async fn after_a_panic_the_next_one_has_the_leave() {
    in_time(async {
        let node = node("oslo", &[]);
        let client = client("oslo", &[&node]).await;
        let mut held = token(&client, "k").await;
        let mut waiting = tokio::task::JoinSet::new();
        for _ in 0..5 {
            waiting.spawn(ask(&client, "k", WAIT));
        }
        until_waiting(&[&node], 5).await;
        while !waiting.is_empty() {
            let computes = tokio::spawn(async move {
                let _held = held;
                panic!("on purpose");
            });
            assert!(computes.await.is_err());
            match waiting.join_next().await {
                Some(Ok(LeaseReply::Token(token))) => held = token,
                other => panic!("{other:?}"),
            }
        }
    })
    .await;
}

#[tokio::test]
async fn one_node_gives_the_leases_of_a_key_for_a_region_or_for_all() {
    in_time(async {
        let oslo = node("oslo", &[]);
        let rome = node("rome", &[oslo.address()]);
        let there = client("rome", &[&oslo, &rome]).await;
        let here = client("oslo", &[&oslo, &rome]).await;
        for n in 0..8 {
            let name = format!("region {n}");
            let first = token(&here, &name).await;
            assert_eq!(first.step.node, oslo.incarnation());
            let second = token(&there, &name).await;
            assert_eq!(second.step.node, rome.incarnation());
        }
        let mut chosen = std::collections::BTreeSet::new();
        for n in 0..16 {
            let all = |client: &ZerocacheClient| {
                client.lease(key(&format!("all {n}")), terms(LeaseScope::All, Duration::ZERO))
            };
            let (LeaseReply::Token(token), by) = all(&here).await else { panic!("a token") };
            assert_eq!(by, Some(token.step.node));
            assert!(
                matches!(all(&there).await, (LeaseReply::Busy, by) if by == Some(token.step.node))
            );
            chosen.insert(token.step.node);
        }
        assert_eq!(chosen.len(), 2, "keys are spread over the nodes");
    })
    .await;
}

#[tokio::test]
async fn when_the_node_of_a_lease_dies_those_who_wait_ask_the_next_one() {
    in_time(async {
        let (first, second) = (node("oslo", &[]), node("oslo", &[]));
        let client = client("oslo", &[&first, &second]).await;
        let held = token(&client, "k").await;
        let mut waiting = tokio::task::JoinSet::new();
        for _ in 0..10 {
            let client = client.clone();
            waiting.spawn(async move {
                match ask(&client, "k", MOST).await {
                    LeaseReply::Token(token) => {
                        let node = token.step.node;
                        assert_eq!(fill(&client, "k", token).await, Status::Stored);
                        Some(node)
                    }
                    LeaseReply::Found(_) => None,
                    other => panic!("{other:?}"),
                }
            });
        }
        until_waiting(&[&first, &second], waiting.len() as u64).await;
        let (dies, stays) = match held.step.node == first.incarnation() {
            true => (first, second),
            false => (second, first),
        };
        dies.kill();
        let computed: Vec<_> = waiting.join_all().await.into_iter().flatten().collect();
        assert_eq!(computed, [stays.incarnation()]);
    })
    .await;
}

#[tokio::test]
async fn without_a_node_that_answers_everybody_computes() {
    in_time(async {
        let nobody = ZerocacheClient::builder("oslo").cluster("lease-tests").mdns(false);
        let nobody = nobody.seed("127.0.0.1:1").build().expect("allowed");
        assert!(matches!(ask(&nobody, "k", WAIT).await, LeaseReply::Unavailable));

        let node = node("oslo", &[]);
        let client = client("oslo", &[&node]).await;
        let token = token(&client, "k").await;
        let begun = clock::elapsed();
        let waits = tokio::spawn(ask(&client, "k", Duration::from_secs(19)));
        until_waiting(&[&node], 1).await;
        node.kill();
        assert!(matches!(waits.await.expect("the task ends"), LeaseReply::Unavailable));
        assert!(clock::elapsed() - begun < Duration::from_secs(10), "not before the wait was over");
        drop(token);
    })
    .await;
}
