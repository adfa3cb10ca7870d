//! Connections that end: nodes that restart, shut down or freeze; cut connections; dropped
//! runtimes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use zerocache_client::{Status, ZerocacheClient, ops::Connections};
use zerocache_tests::cluster::{Cluster, builder};
use zerocache_tests::node::Node;
use zerocache_tests::poll::{PATIENCE, StopFlag, timed, until_true};
use zerocache_tests::proxy::{Proxy, UpgradePolicy};
use zerocache_tests::setup::Setup;

fn framed(setup: Setup) -> Setup {
    setup.flag("--connections", "framed")
}

fn cluster(regions: &[&str]) -> Cluster {
    Cluster::start_with(regions, framed)
}

fn client(cluster: &Cluster) -> ZerocacheClient {
    cluster.client_with("london", |builder| builder.connections(Connections::Framed))
}

fn multi_thread() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(2).enable_all().build().expect("a runtime")
}

#[test]
fn restarted_node_is_used_under_its_new_incarnation() {
    let mut cluster = cluster(&["london", "sydney"]);
    let client = client(&cluster);
    for round in 0..3 {
        client.put("key", "x", 60).wait().expect("an answer");
        let old = client.nodes().iter().find(|n| n.region == "london").expect("it is known").id;
        cluster[0].kill();
        let mut setup = framed(Setup::new("london")).flag("--seed", cluster[1].address());
        setup.listen = cluster[0].address();
        cluster[0] = setup.start();
        // No operation fails in the meantime: the other region answers.
        until_true("the new life answers", || {
            let key = format!("round {round}");
            let written = client.put(&key, "x", 60).wait().expect("no write fails");
            assert!(matches!(written.status, Status::Stored | Status::Unknown));
            let entry = client.get(&key).entry().wait().expect("no read fails");
            entry.is_some_and(|entry| {
                let local = client.nodes().into_iter().find(|node| node.id == entry.node);
                entry.node != old && local.is_some_and(|node| node.region == "london")
            })
        });
        // The peers too: a write at either is on the other.
        cluster.wait_until_joined();
        cluster[1].put(b"to london", format!("{round}").as_bytes(), "ttl=60&ack=all");
        cluster.everywhere(b"to london", |answer| answer.body == format!("{round}").as_bytes());
        cluster[0].put(b"to sydney", format!("{round}").as_bytes(), "ttl=60&ack=all");
        cluster.everywhere(b"to sydney", |answer| answer.body == format!("{round}").as_bytes());
    }
}

#[test]
fn all_threads_share_the_open_connection() {
    let mut cluster = cluster(&["london"]);
    let client = client(&cluster);
    cluster[0].freeze();
    // No new connection can be made now. A write that waits in the frozen node is unknown,
    // whichever thread sent it.
    std::thread::scope(|threads| {
        let writers: Vec<_> = (0..4)
            .map(|n| {
                let client = &client;
                threads.spawn(move || client.put(format!("{n}"), "x", 60).wait())
            })
            .collect();
        for writer in writers {
            let written = writer.join().expect("no panic").expect("no failure");
            assert_eq!(written.status, Status::Unknown);
        }
    });
    cluster[0].resume();
    // Past their deadlines: nothing of them is carried out.
    until_true("the node is used again", || {
        client.put("again", "y", 60).wait().is_ok_and(|written| written.status == Status::Stored)
    });
    for n in 0..4 {
        assert_eq!(cluster[0].value(format!("{n}").as_bytes()), None);
    }
}

/// A node behind a proxy and one that is not, both local, and a client of both.
fn behind_a_proxy() -> (Node, Node, Proxy, ZerocacheClient) {
    // They do not know each other, so that the client knows the first by the proxy alone.
    let [hidden, open] = [0, 1].map(|_| framed(Setup::new("london")).start());
    let proxy = Proxy::start(hidden.address(), UpgradePolicy::Forward);
    let client = builder("london").connections(Connections::Framed).mdns(false);
    let client = client
        .seed(proxy.address().to_string())
        .seed(open.address().to_string())
        .build()
        .expect("a client");
    until_true("a client that knows both", || client.nodes().len() == 2);
    for node in [&hidden, &open] {
        node.put(b"shared", b"x", "ttl=300");
    }
    (hidden, open, proxy, client)
}

#[test]
fn cut_connection_moves_reads_on_and_leaves_writes_unknown() {
    let (mut hidden, open, proxy, client) = behind_a_proxy();
    let runtime = multi_thread();
    runtime.block_on(async {
        // Connections of this runtime to both.
        for _ in 0..8 {
            assert!(client.get("shared").await.expect("an answer").is_some());
            client.put("warm", "x", 60).await.expect("an answer");
        }
        // Requests to the hidden node stay in its sockets until the proxy cuts them.
        hidden.freeze();
        let deadline = Duration::from_secs(20);
        let patient = |client: &ZerocacheClient| {
            let client = client.clone();
            async move {
                let reads: Vec<_> =
                    (0..8).map(|_| tokio::spawn(client.get("shared").deadline(deadline))).collect();
                let writes: Vec<_> = (0..8)
                    .map(|n| client.put(format!("cut {n}"), "x", 60).deadline(deadline))
                    .map(tokio::spawn)
                    .collect();
                (reads, writes)
            }
        };
        let before = proxy.forwarded();
        let (reads, writes) = patient(&client).await;
        until_true("requests under way to the frozen node", || proxy.forwarded() > before);
        proxy.cut();
        for read in reads {
            let found = read.await.expect("no panic").expect("the next node answers");
            assert_eq!(found.as_deref(), Some(&b"x"[..]));
        }
        let mut unknown = Vec::new();
        for (n, write) in writes.into_iter().enumerate() {
            match write.await.expect("no panic").expect("no failure").status {
                Status::Unknown => unknown.push(n),
                status => assert_eq!(status, Status::Stored),
            }
        }
        // Whatever may have arrived at the hidden node was not written at the other one.
        for n in unknown {
            assert_eq!(open.value(format!("cut {n}").as_bytes()), None);
        }
    });
    hidden.resume();
    // The connection is made again, and used.
    let before = hidden.stat("hits");
    until_true("the hidden node is used again", || {
        assert!(client.get("shared").wait().expect("an answer").is_some());
        hidden.stat("hits") > before + 3
    });
}

#[test]
fn connection_cut_during_the_handshake_is_retried_elsewhere() {
    let [hidden, open] = [0, 1].map(|_| framed(Setup::new("london")).start());
    let proxy = Proxy::start(hidden.address(), UpgradePolicy::Cut);
    let client = builder("london").connections(Connections::Framed).mdns(false);
    let client = client
        .seed(proxy.address().to_string())
        .seed(open.address().to_string())
        .build()
        .expect("a client");
    client.wait_ready(PATIENCE).expect("a node in sync");
    for n in 0..50 {
        let written = client.put(format!("{n}"), "x", 60).wait().expect("an answer");
        assert_eq!(written.status, Status::Stored);
        assert!(client.get(format!("{n}")).wait().expect("an answer").is_some());
    }
    // It pauses between tries.
    assert!(proxy.accepted() < 200, "{}", proxy.accepted());
}

#[test]
fn framed_callers_move_on_when_a_node_shuts_down() {
    let mut cluster = cluster(&["london", "london", "sydney"]);
    let client = client(&cluster);
    client.put("shared", "x", 300).wait().expect("stored");
    cluster.everywhere(b"shared", |answer| answer.status == 200);
    // An idle connection.
    let _idle = zerocache_tests::frames::Framed::open(cluster[0].address());
    let mut leaving = cluster.nodes.remove(0);
    let (stop, done) = (StopFlag::default(), AtomicUsize::new(0));
    let runtime = multi_thread();
    std::thread::scope(|threads| {
        let end = stop.set_on_drop();
        let workers: Vec<_> = (0..4)
            .map(|name| {
                let (client, stop, done, runtime) = (&client, &stop, &done, &runtime);
                threads.spawn(move || {
                    runtime.block_on(async {
                        let mut n = 0;
                        while !stop.is_set() {
                            let found = client.get("shared").await.expect("no read fails");
                            assert!(found.is_some());
                            let written = client.put(format!("{name}/{n}"), "x", 300).await;
                            let written = written.expect("no write fails");
                            assert_eq!(written.status, Status::Stored);
                            n += 1;
                            done.fetch_add(1, Ordering::Relaxed);
                        }
                    });
                })
            })
            .collect();
        until_true("a client under load", || done.load(Ordering::Relaxed) > 100);
        let (code, took) = timed(|| {
            leaving.shut_down();
            leaving.ended().code()
        });
        assert_eq!(code, Some(0), "{}", leaving.log());
        // The default drain of 2 s, 3 s for the rest, and room for a busy machine.
        assert!(took < Duration::from_secs(2 + 3 + 4), "{took:?}");
        let then = done.load(Ordering::Relaxed);
        until_true("work after it", || done.load(Ordering::Relaxed) > then + 100);
        drop(end);
        for worker in workers {
            worker.join().expect("no operation failed");
        }
    });
    assert_eq!(client.stats().unknown + client.stats().unreachable, 0);
    assert!(!leaving.log().contains("cut"), "{}", leaving.log());
}

#[test]
fn dropped_runtime_ends_only_its_own_calls() {
    let mut cluster = cluster(&["london"]);
    let client = client(&cluster);
    client.put("shared", "x", 300).wait().expect("stored");
    let other = multi_thread();
    for round in 0..5 {
        let runtime = multi_thread();
        let calls = Arc::new(AtomicUsize::new(0));
        let spawn = |n: usize| {
            let (client, calls) = (client.clone(), Arc::clone(&calls));
            runtime.spawn(async move {
                for at in 0.. {
                    calls.fetch_add(1, Ordering::SeqCst);
                    let _read = client.get("shared").await;
                    let _written = client.put(format!("{n}/{at}"), vec![0; 100_000], 60).await;
                    calls.fetch_sub(1, Ordering::SeqCst);
                }
            })
        };
        let tasks: Vec<_> = (0..8).map(spawn).collect();
        other.block_on(async {
            assert!(client.get("shared").await.expect("an answer").is_some());
        });
        until_true("it is under way", || cluster[0].value(b"0/0").is_some());
        if round % 2 == 0 {
            // With calls that wait for an answer.
            cluster[0].freeze();
            until_true("all tasks wait", || calls.load(Ordering::SeqCst) == tasks.len());
        }
        runtime.shutdown_background();
        drop(tasks);
        if round % 2 == 0 {
            cluster[0].resume();
        }
        // Other callers continue: on another runtime, and without one.
        other.block_on(async {
            until_answered(&client).await;
        });
        until_true("blocking calls go on", || client.get("shared").wait().is_ok());
        assert!(client.put("after", "x", 60).wait().is_ok());
    }
}

/// Reads until that succeeds.
async fn until_answered(client: &ZerocacheClient) {
    let answered = async {
        while client.get("shared").await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, answered).await.expect("an answer");
}

#[test]
fn blocking_and_async_calls_do_not_block_each_other() {
    let cluster = cluster(&["london"]);
    let client = client(&cluster);
    client.put("shared", "x", 300).wait().expect("stored");
    let (stop, done) = (StopFlag::default(), [const { AtomicUsize::new(0) }; 4]);
    let current = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().build().expect("a runtime")
    };
    let multi = multi_thread();
    std::thread::scope(|threads| {
        let end = stop.set_on_drop();
        let (client, stop, done, multi) = (&client, &stop, &done, &multi);
        let work = |n: usize| {
            assert!(client.get("shared").wait().expect("an answer").is_some());
            client.put(format!("blocking {n}"), "x", 60).wait().expect("an answer");
            done[n].fetch_add(1, Ordering::Relaxed);
        };
        // Blocking without a runtime, and inside of one that it blocks.
        threads.spawn(move || {
            while !stop.is_set() {
                work(0);
            }
        });
        threads.spawn(move || {
            current().block_on(async {
                while !stop.is_set() {
                    work(1);
                    // Async on the same runtime, alternately.
                    assert!(client.get("shared").await.expect("an answer").is_some());
                }
            });
        });
        // Blocking on workers of a runtime that others use.
        threads.spawn(move || {
            multi.block_on(async {
                while !stop.is_set() {
                    let client = client.clone();
                    let blocking = tokio::spawn(async move {
                        client.get("shared").wait().expect("an answer").is_some()
                    });
                    assert!(blocking.await.expect("no panic"));
                    done[2].fetch_add(1, Ordering::Relaxed);
                }
            });
        });
        threads.spawn(move || {
            multi.block_on(async {
                while !stop.is_set() {
                    assert!(client.get("shared").await.expect("an answer").is_some());
                    done[3].fetch_add(1, Ordering::Relaxed);
                }
            });
        });
        until_true("all of them get on", || {
            done.iter().all(|done| done.load(Ordering::Relaxed) >= 200)
        });
        drop(end);
    });
    assert_eq!(client.stats().errors.total(), 0);
}
