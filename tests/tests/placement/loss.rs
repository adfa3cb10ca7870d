//! The loss of a node, and its return.

use zerocache_tests::poll::{timed, until_true};

use super::{load::Entries, region, restart, wait_until_placed};

const KEYS: usize = 2_000;

const SIZES: (usize, usize) = (16 << 10, 32 << 10);

/// The operations before the loss.
const BEFORE: usize = 500;

#[test]
fn loss_of_a_node_under_load_fails_nothing_and_both_copies_come_back() {
    let mut cluster = region(8, 2);
    let clients: Vec<_> = (0..4).map(|_| cluster.client("oslo")).collect();
    let entries = Entries::new(KEYS, SIZES);
    entries.fill(&clients[0]);
    let all: Vec<_> = cluster.nodes.iter().collect();
    wait_until_placed(&all, 2 * KEYS as u64);
    let of_lost = cluster[3].stat("entries");
    let (took, seen) = entries.under_load(&clients, |seen| {
        until_true("reads", || seen.reads.load(std::sync::atomic::Ordering::Relaxed) > BEFORE);
        cluster[3].kill();
        let left: Vec<_> = cluster
            .nodes
            .iter()
            .enumerate()
            .filter(|(n, _)| *n != 3)
            .map(|(_, node)| node)
            .collect();
        wait_until_placed(&left, 2 * KEYS as u64)
    });
    let missed = seen.missed.lock().expect("no panic").len() as u64;
    println!(
        "{:?} reads, {:?} writes; {missed} of the {of_lost} keys of the lost node missed; both copies after {took:?}",
        seen.reads, seen.writes
    );
    assert!(missed * 100 <= of_lost, "{missed} of {of_lost}");

    let ((), took) = timed(|| {
        restart(&mut cluster, 3, 2);
        let all: Vec<_> = cluster.nodes.iter().collect();
        wait_until_placed(&all, 2 * KEYS as u64);
    });
    println!("its share is back after {took:?}: {}", cluster[3].stat("entries"));
    assert_eq!(cluster[3].stat("entries"), of_lost);
    assert_eq!(entries.count_present(&clients[0]), KEYS);
}
