//! Invalidations that race with computations.

use tokio::runtime::Builder;
use tokio::sync::oneshot;
use zerocache_client::{
    Status, ZerocacheClient,
    report::{CallOutcome, CallWrite},
};
use zerocache_tests::cluster::Cluster;
use zerocache_tests::poll::until_true;

#[test]
fn invalidation_wins_over_a_put_that_its_node_reads_later() {
    let mut cluster = Cluster::start(&["london", "sydney"]);
    let client = cluster.client("london");
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let (computing, began) = oneshot::channel();
    let (go, gone) = oneshot::channel();
    let cache: ZerocacheClient = client.clone();
    let storing = runtime.spawn(async move {
        let compute = async move || {
            computing.send(()).expect("the test waits for it");
            gone.await.expect("the test sends it");
            Ok::<_, ()>(7)
        };
        cache.get_or_compute("key", 60, compute).explain().await.1
    });
    runtime.block_on(began).expect("it computes");
    let other = || client.get_or_compute("key", 60, async || Ok::<_, ()>(8));
    let waiting = runtime.spawn(other().explain());
    cluster[0].freeze();
    go.send(()).expect("it computes");
    // On one thread: whoever has its value comes after it has begun to store that.
    let (value, report) = runtime.block_on(waiting).expect("no panic");
    assert_eq!((value, report.outcome), (Ok(7), CallOutcome::Coalesced));
    let removed = other().invalidate().wait().expect("the other region takes it");
    assert_eq!(removed.status, Status::Stored);
    let report = runtime.block_on(storing).expect("no panic");
    let Some(CallWrite::Written(written)) = &report.write else { panic!("{report}") };
    assert_eq!(written.status, Status::Unknown, "its node stands still");
    // The put is in the node's buffers.
    cluster[0].resume();
    until_true("the node takes writes again", || {
        let written = client.put("another", "x", 60).wait();
        let stored = written.is_ok_and(|written| written.status == Status::Stored);
        stored && cluster[0].get(b"another").status == 200
    });
    cluster.everywhere(b"key", |answer| answer.status == 404);
    assert_eq!(other().peek().wait().expect("reads"), None);
}

/// Ends the value of the key while a client computes it, and returns what became of that value.
fn end_while_computing(end: impl FnOnce(&Cluster)) -> (Cluster, CallWrite) {
    let cluster = Cluster::start(&["london", "london", "sydney"]);
    let one = cluster.client("london");
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    let compute = async || {
        end(&cluster);
        Ok::<_, ()>(7)
    };
    let call = one.get_or_compute("key", 60, compute).tags(["t"]).explain();
    let (_, report) = runtime.block_on(call);
    (cluster, report.write.expect("a write"))
}

#[test]
fn value_that_was_read_before_it_was_ended_elsewhere_is_not_stored() {
    let check = |(cluster, write): (Cluster, CallWrite)| {
        let CallWrite::Written(written) = &write else { panic!("{write:?}") };
        // Its node may not know yet.
        assert!(matches!(written.status, Status::Superseded | Status::Stored), "{written:?}");
        cluster.everywhere(b"key", |answer| answer.status == 404);
        // What is read after it has arrived is stored.
        let client = cluster.client("london");
        let call = || client.get_or_compute("key", 60, async || Ok::<_, ()>(8));
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        until_true("a value is stored", || {
            assert_eq!(runtime.block_on(call().tags(["t"])), Ok(8));
            call().peek().wait().expect("reads") == Some(Ok(8))
        });
        cluster.everywhere(b"key", |answer| answer.status == 200);
    };
    check(end_while_computing(|cluster| {
        assert_eq!(cluster[2].delete(b"key", "")["status"], "stored")
    }));
    // As from another process: one that finds its nodes in another way.
    check(end_while_computing(|cluster| {
        let other = cluster.client_with("sydney", |builder| builder.seed("127.0.0.1:1"));
        let call = other.get_or_compute("key", 60, async || Ok::<_, ()>(0));
        assert_eq!(call.invalidate().wait().expect("deletes").status, Status::Stored);
    }));
    for path in ["/v1/tags/t/purge", "/v1/purge?everything=yes"] {
        check(end_while_computing(|cluster| {
            assert_eq!(cluster[2].http("POST", path, b"").status, 200);
        }));
    }
}
