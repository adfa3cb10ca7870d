//! Reads of clients while nodes freeze.

use std::time::Duration;

use zerocache_tests::namespace::run_with_network;
use zerocache_tests::net::Net;
use zerocache_tests::reliability::frozen;

#[test]
fn frozen_node_delays_only_the_reads_sent_to_it() {
    run_with_network("frozen_node_delays_only_the_reads_sent_to_it", || {
        let mut net = Net::start(&[2, 1]);
        let found = frozen::measure(&mut net, Duration::from_secs(3));
        assert_eq!(found.missed, 0);
        // Twice as many as callers: a busy machine may delay another read in the meantime.
        assert!(found.met.count <= 2 * frozen::CALLERS, "{found:?}");
        assert!(found.after.count > 100, "{found:?}");
        assert!(found.after.p99 < frozen::MET, "{found:?}");
    });
}
