//! Planned restarts lose no entry that is read.

use std::time::Duration;

use zerocache_tests::namespace::run_with_network;
use zerocache_tests::net::Net;
use zerocache_tests::probes::Probes;
use zerocache_tests::reliability::{copying, restarts};

/// Entries, so many that copying them takes a moment.
const ENTRIES: usize = 3_000;

#[test]
fn rolling_restart_turns_no_hit_into_a_miss() {
    run_with_network("rolling_restart_turns_no_hit_into_a_miss", || {
        let mut net = Net::start_with(&[3], |setup| setup.flag("--drain", "1s"));
        let pause = Duration::from_millis(500);
        let found = restarts::rolling(&mut net, &Probes::new(), ENTRIES, pause);
        assert_eq!(found.others, 0, "{found:?}");
        assert!(found.hits > 1_000, "{found:?}");
        assert!(found.ready.iter().all(Option::is_some), "{found:?}");
    });
}

#[test]
fn new_node_is_complete_when_it_is_ready() {
    run_with_network("new_node_is_complete_when_it_is_ready", || {
        let mut net = Net::without_nodes(&[2, 1], |setup| setup);
        for n in [0, 1] {
            let node = net.setup(n).start();
            net.cluster.nodes.push(node);
        }
        // The last place of the network is the one that is started later.
        let time = Duration::from_secs(1);
        let found = copying::measure(&mut net, &Probes::new(), ENTRIES, time);
        assert_eq!(found.lacked, 0, "{found:?}");
        assert!(found.ready.is_some(), "{found:?}");
    });
}

#[test]
fn full_cluster_restart_keeps_entries() {
    run_with_network("full_cluster_restart_keeps_entries", || {
        let files = tempfile::tempdir().expect("a folder");
        let path = files.path().to_owned();
        let mut net = Net::start_with(&[2, 1], move |setup| {
            let file = path.join(setup.listen.ip().to_string());
            setup.flag("--drain", "500ms").flag("--snapshot", file.display())
        });
        let found = restarts::whole(&mut net, &Probes::new(), ENTRIES);
        assert_eq!(found.lacked, [0, 0, 0], "{found:?}");
        assert!(found.ready.is_some(), "{found:?}");
    });
}
