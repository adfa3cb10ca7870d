//! Capacity grows with the nodes.

use zerocache_tests::cluster::Cluster;
use zerocache_tests::poll::{time_until, timed};

use super::{HANDOVER, are_placed, load::Entries, name, region, setup_beside};

const KEYS: usize = 6_144;

/// 40 KiB on average.
const SIZES: (usize, usize) = (16 << 10, 64 << 10);

/// What all of them hold at most: the budgets of eight nodes, by two.
const BYTES_MIN: usize = 239 << 20;

fn stats(cluster: &Cluster, name: &str) -> Vec<u64> {
    cluster.nodes.iter().map(|node| node.stat(name)).collect()
}

#[test]
fn eight_nodes_hold_nearly_four_times_what_one_holds_and_a_ninth_takes_its_share() {
    let mut cluster = region(8, 2);
    let client = cluster.client("oslo");
    let entries = Entries::new(KEYS, SIZES);
    assert!(entries.all_bytes() >= BYTES_MIN, "{}", entries.all_bytes());
    let ((), took) = timed(|| entries.fill(&client));
    println!("{} bytes in {took:?}: {:?}", entries.all_bytes(), stats(&cluster, "bytes"));
    let (present, took) = timed(|| entries.count_present(&client));
    println!("{present} of {KEYS} there; read in {took:?}");
    assert!(present * 100 >= KEYS * 98, "{present} of {KEYS}");

    let new = setup_beside(&cluster, 2).flag("--node-name", name(8)).start();
    cluster.nodes.push(new);
    let took = time_until(HANDOVER, || {
        are_placed(&cluster.nodes) && cluster[8].is_ready() && cluster[8].stat("entries") > 0
    });
    let took = took.expect("a handover");
    let held = stats(&cluster, "entries");
    let (all, share) = (held.iter().sum::<u64>(), held[8]);
    println!("a ninth node has its share after {took:?}: {held:?}");
    assert!((91 * all..=131 * all).contains(&(share * 1_000)), "{share} of {all}");
    let present = entries.count_present(&client);
    assert!(present * 100 >= KEYS * 98, "{present} of {KEYS}");
}
