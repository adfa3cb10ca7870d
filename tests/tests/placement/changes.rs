//! Changes of the number of replicas, node by node.

use std::sync::atomic::Ordering::Relaxed;

use zerocache_tests::cluster::Cluster;
use zerocache_tests::poll::until_true;

use super::{
    load::{Entries, Observations},
    region, restart, wait_until_placed,
};

const KEYS: usize = 1_000;

const SIZES: (usize, usize) = (1 << 10, 8 << 10);

/// The operations between two restarts.
const BETWEEN: usize = 300;

fn wait_for_reads(seen: &Observations) {
    let then = seen.reads.load(Relaxed);
    until_true("reads", || seen.reads.load(Relaxed) > then + BETWEEN);
}

/// Restarts each node with other replicas: the next one when it is ready.
fn change(cluster: &mut Cluster, replicas: &str, seen: &Observations) {
    for at in 0..cluster.nodes.len() {
        cluster[at].shut_down();
        assert_eq!(cluster[at].ended().code(), Some(0), "{}", cluster[at].log());
        restart(cluster, at, replicas);
        until_true("a node that is ready", || cluster[at].is_ready());
        wait_for_reads(seen);
        println!("{at} with {replicas}: {} misses", seen.misses.load(Relaxed));
    }
}

#[test]
fn rolling_change_of_replicas_under_load_fails_nothing() {
    let mut cluster = region(4, "all");
    let clients: Vec<_> = (0..3).map(|_| cluster.client("oslo")).collect();
    let entries = Entries::new(KEYS, SIZES);
    entries.fill(&clients[0]);
    wait_until_placed(&cluster.nodes.iter().collect::<Vec<_>>(), 4 * KEYS as u64);
    let ((), seen) = entries.under_load(&clients, |seen| {
        wait_for_reads(seen);
        change(&mut cluster, "2", seen);
        wait_until_placed(&cluster.nodes.iter().collect::<Vec<_>>(), 2 * KEYS as u64);
        println!("two copies: {} misses", seen.misses.load(Relaxed));
        change(&mut cluster, "all", seen);
        wait_until_placed(&cluster.nodes.iter().collect::<Vec<_>>(), 4 * KEYS as u64);
    });
    let (reads, misses) = (seen.reads.load(Relaxed), seen.misses.load(Relaxed));
    println!("{reads} reads, {misses} misses, {:?} writes", seen.writes);
    assert!(misses * 100 <= reads, "{misses} of {reads}");
    assert_eq!(entries.count_present(&clients[0]), KEYS);
}
