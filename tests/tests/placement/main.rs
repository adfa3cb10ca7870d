//! Regions in which not every node keeps every value: capacity, the loss of a node, changes under load.

mod capacity;
mod changes;
mod hot;
mod load;
mod loss;
mod names;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::Value as Json;
use zerocache_tests::cluster::Cluster;
use zerocache_tests::node::Node;
use zerocache_tests::poll::time_until;
use zerocache_tests::setup::Setup;

const REGION: &str = "oslo";

/// Longer than a handover takes on a busy machine: 30 s until a node counts as gone, and the transfer.
const HANDOVER: Duration = Duration::from_secs(120);

/// Starts a region of nodes of 64 MiB each, of which so many keep a value. Their names, and so who owns which keys,
/// are the same each time.
fn region(nodes: usize, replicas: impl ToString) -> Cluster {
    let (replicas, started) = (replicas.to_string(), AtomicUsize::new(0));
    Cluster::start_with(&vec![REGION; nodes], |setup| {
        let name = name(started.fetch_add(1, Ordering::Relaxed));
        sized(setup).flag("--replicas", &replicas).flag("--node-name", name)
    })
}

fn name(node: usize) -> String {
    format!("node-{node}")
}

fn sized(setup: Setup) -> Setup {
    Setup { max_bytes: "64MiB", ..setup }
}

/// A node that knows the others.
fn setup_beside(cluster: &Cluster, replicas: impl ToString) -> Setup {
    let setup = sized(Setup::new(REGION)).flag("--replicas", replicas);
    cluster.nodes.iter().fold(setup, |setup, node| setup.flag("--seed", node.address()))
}

/// A node with the address and the name of one that has ended.
fn restart(cluster: &mut Cluster, at: usize, replicas: impl ToString) {
    let mut setup = setup_beside(cluster, replicas).flag("--node-name", name(at));
    setup.listen = cluster[at].address();
    cluster[at] = setup.start();
}

fn view(node: &Node) -> Option<Json> {
    let answer = node.try_http("GET", "/v1/cluster", b"").ok()?;
    Some(answer.json()).filter(|view| view["placement"].is_object())
}

/// Whether these nodes choose owners alike, and have handed over all that others own.
fn are_placed<'a>(nodes: impl IntoIterator<Item = &'a Node>) -> bool {
    let mut ids = Vec::new();
    for node in nodes {
        let Some(view) = view(node) else { return false };
        if view["placement"]["complete"] != true || node.stat("guests") > 0 {
            return false;
        }
        ids.push(view["placement"]["id"].clone());
    }
    ids.windows(2).all(|two| two[0] == two[1])
}

/// Waits until the nodes have handed over all that others own, and hold so many copies together. Returns how long
/// that took.
fn wait_until_placed(nodes: &[&Node], copies: u64) -> Duration {
    let held = || nodes.iter().map(|node| node.stat("entries")).collect::<Vec<_>>();
    let is_placed = || are_placed(nodes.iter().copied()) && held().iter().sum::<u64>() == copies;
    time_until(HANDOVER, is_placed).unwrap_or_else(|| {
        let placements: Vec<_> = nodes.iter().filter_map(|node| view(node)).collect();
        let placements: Vec<_> = placements.iter().map(|view| &view["placement"]).collect();
        panic!("{copies} copies awaited in vain: {:?} held, {placements:#?}", held())
    })
}
