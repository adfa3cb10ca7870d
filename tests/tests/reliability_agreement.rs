//! Convergence: all nodes agree at the end, whatever faults there were.

use std::time::Duration;

use zerocache_tests::namespace::run_with_network;
use zerocache_tests::net::Net;
use zerocache_tests::probes::Probes;
use zerocache_tests::reliability::agreement::{self, Fault, Plan};
use zerocache_tests::reliability::heal::{self, Part};

fn agree(sizes: &[usize], faults: &[Fault], pairs: usize, time: Duration) {
    let mut net = Net::start(sizes);
    let plan = Plan { pairs, time, faults: faults.to_vec(), seed: 1 };
    let found = agreement::measure(&mut net, &Probes::new(), &plan);
    assert_eq!(found.disagreements, 0, "{found:?}");
    assert!(found.took.is_some(), "{found:?}");
    assert!(found.acknowledged > pairs / 2, "{found:?}");
    // Something is left to agree on.
    assert!(found.values > 0, "{found:?}");
}

#[test]
fn conflicting_writes_converge_through_short_pauses() {
    run_with_network("conflicting_writes_converge_through_short_pauses", || {
        agree(&[2, 2], &[Fault::Pause], 300, Duration::from_secs(5));
    });
}

#[test]
fn conflicting_writes_converge_through_all_faults() {
    run_with_network("conflicting_writes_converge_through_all_faults", || {
        agree(&[2, 2, 1], &Fault::ALL, 300, Duration::from_secs(12));
    });
}

/// Cuts a part off, writes on both sides, joins, and expects agreement.
fn heals(part: Part) {
    let mut net = Net::start(&[2, 2]);
    let probes = Probes::new();
    let found = heal::measure(&mut net, &probes, part, 0, 1_000, Duration::from_secs(1));
    if let Part::Node(_) = part {
        assert!(found.in_region.is_some(), "{found:?}");
    }
    assert!(found.took.is_some(), "{found:?}");
    assert!(found.reached.is_some(), "{found:?}");
}

#[test]
fn partitioned_region_converges_after_healing() {
    run_with_network("partitioned_region_converges_after_healing", || heals(Part::Region(1)));
}

#[test]
fn partitioned_node_converges_after_healing() {
    run_with_network("partitioned_node_converges_after_healing", || heals(Part::Node(1)));
}
