//! Callers that watch the membership receive its changes.

use zerocache_core::wire::{Request, Response};
use zerocache_tests::cluster::{Cluster, builder};
use zerocache_tests::frames::{Framed, compact_message};
use zerocache_tests::node::Node;
use zerocache_tests::poll::until_true;
use zerocache_tests::setup::Setup;

fn view(response: &Response) -> u64 {
    match response {
        Response::Pong { view, .. } => *view,
        other => panic!("{other:?}"),
    }
}

fn watchers(nodes: &[&Node]) -> u64 {
    nodes.iter().map(|node| node.stat("watchers")).sum()
}

#[test]
fn watch_is_answered_when_a_node_joins() {
    let first = Setup::new("oslo").flag("--connections", "framed").start();
    let mut framed = Framed::open(first.address());
    let alone = view(&framed.ask(&compact_message(Request::Watch { view: 0 })));
    let waiting = framed.request(&compact_message(Request::Watch { view: alone }), 0);
    until_true("somebody who waits", || watchers(&[&first]) == 1);
    let second =
        Setup::new("oslo").flag("--connections", "framed").flag("--seed", first.address()).start();
    assert_ne!(view(&framed.response(waiting)), alone);
    drop(second);
}

#[test]
fn client_watches_another_local_node_when_one_is_gone() {
    let mut cluster = Cluster::start(&["oslo", "oslo", "rome"]);
    let client = cluster.client("oslo");
    until_true("a watch at a local node", || watchers(&[&cluster[0], &cluster[1]]) == 1);
    assert_eq!(watchers(&[&cluster[2]]), 0);
    let watched = usize::from(cluster[1].stat("watchers") == 1);
    cluster[watched].kill();
    let other = 1 - watched;
    until_true("a watch at the other one", || watchers(&[&cluster[other]]) == 1);
    // A node that joins now is learned from it.
    let seed = cluster[other].address();
    let new = Setup::new("rome").flag("--connections", "framed").flag("--seed", seed).start();
    until_true("the new node in the rotation", || {
        let known = client.nodes();
        known.iter().any(|node| node.address == new.address() && node.in_rotation)
    });
    drop(client);
    until_true("the end of the watch", || watchers(&[&cluster[other]]) == 0);
}

#[test]
fn client_of_an_empty_region_learns_of_new_nodes() {
    let cluster = Cluster::start(&["oslo"]);
    let client = builder("rome")
        .mdns(false)
        .seed(cluster[0].address().to_string())
        .build()
        .expect("a client");
    until_true("a first node", || client.nodes().len() == 1);
    let new = Setup::new("oslo")
        .flag("--connections", "framed")
        .flag("--seed", cluster[0].address())
        .start();
    until_true("a second one", || client.nodes().iter().any(|node| node.address == new.address()));
}
