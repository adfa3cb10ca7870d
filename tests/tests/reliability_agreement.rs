//! That all nodes agree in the end, whatever happened meanwhile.

use std::time::Duration;

use zerocache_tests::namespace::run_net;
use zerocache_tests::net::Net;
use zerocache_tests::probes::Probes;
use zerocache_tests::reliability::agreement::{self, Fault, Plan};

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
fn nodes_agree_on_conflicting_writes_through_short_pauses() {
    run_net("nodes_agree_on_conflicting_writes_through_short_pauses", || {
        agree(&[2, 2], &[Fault::Pause], 300, Duration::from_secs(5));
    });
}
