//! What clients see while nodes freeze.

use std::time::Duration;

use zerocache_tests::namespace::run_net;
use zerocache_tests::net::Net;
use zerocache_tests::reliability::frozen;

#[test]
fn a_frozen_node_of_two_costs_the_reads_that_met_it_and_no_others() {
    run_net("a_frozen_node_of_two_costs_the_reads_that_met_it_and_no_others", || {
        let mut net = Net::start(&[2, 1]);
        let found = frozen::measure(&mut net, Duration::from_secs(3));
        assert_eq!(found.missed, 0);
        // Twice as many as callers: a busy machine may hold up another read meanwhile.
        assert!(found.met.count <= 2 * frozen::CALLERS, "{found:?}");
        assert!(found.after.count > 100, "{found:?}");
        assert!(found.after.p99 < frozen::MET, "{found:?}");
    });
}
