//! `zerocache doctor` finds each misfortune that is built here, and nothing else.

use std::sync::atomic::{AtomicBool, Ordering};

use zerocache_tests::{
    cluster::Cluster,
    operator::Operator,
    poll::until_true,
    proxy::{Proxy, UpgradePolicy},
    security::Keys,
    setup::{Setup, unique_address},
};

/// Enough for what does not happen over time.
const SHORT: [&str; 2] = ["--watch", "50ms"];

fn framed(setup: Setup) -> Setup {
    setup.flag("--connections", "framed")
}

/// The ids of what is found, and the exit code.
fn found(operator: &Operator, args: &[&str]) -> (Vec<String>, i32) {
    let printed = operator.run(&[&["doctor", "--json"], args].concat());
    let json = printed.json();
    let findings = json["findings"].as_array().unwrap_or_else(|| panic!("{json}"));
    let ids = findings.iter().map(|finding| {
        assert!(
            finding["action"].as_str().is_some_and(|action| action.ends_with('.')),
            "{finding}"
        );
        finding["id"].as_str().unwrap_or_default().to_owned()
    });
    (ids.collect(), printed.exit)
}

#[test]
fn healthy_cluster_has_no_finding() {
    let cluster = Cluster::start_with(&["london", "london", "sydney"], framed);
    let operator = Operator::new(cluster[0].address());
    assert_eq!(found(&operator, &["--watch", "1s", "--region", "sydney"]), (vec![], 0));
    let printed = operator.run(&["doctor", "--watch", "50ms"]);
    assert_eq!((printed.exit, printed.text().as_str()), (0, ""), "{printed:?}");
    assert!(printed.err.contains("checks at 3 nodes, 0 findings"), "{printed:?}");
}

#[test]
fn silent_seed_region_without_nodes_and_foreign_cluster_are_found() {
    let cluster = Cluster::start_with(&["london"], framed);
    let other = framed(Setup::new("london").flag("--cluster", "other")).start();
    let address = cluster[0].address();
    let with = |second: String| {
        Operator::new(address).set("ZEROCACHE_SEED", format!("{address},{second}"))
    };
    let nobody = with(format!("{}:1", unique_address()));
    assert_eq!(found(&nobody, &SHORT), (vec!["name-silent".to_owned()], 7));
    let foreign = with(other.address().to_string());
    // With a secret the other cluster denies the token before it says which cluster it is.
    let id = match Keys::of_this_run() {
        Some(_) => "credentials-denied",
        None => "clusters-mixed",
    };
    assert_eq!(found(&foreign, &SHORT), (vec![id.to_owned()], 6));
    let operator = Operator::new(address);
    let args = [&SHORT[..], &["--region", "paris"]].concat();
    assert_eq!(found(&operator, &args), (vec!["region-empty".to_owned()], 7));
}

#[test]
fn name_of_a_virtual_address_is_found() {
    let cluster = Cluster::start_with(&["london"], framed);
    let proxy = Proxy::start(cluster[0].address(), UpgradePolicy::Forward);
    let operator = Operator::new(cluster[0].address())
        .set("ZEROCACHE_DISCOVERY", "seeds,dns")
        .set("ZEROCACHE_DNS", proxy.address());
    assert_eq!(found(&operator, &SHORT), (vec!["dns-virtual-ip".to_owned()], 7));
}

#[test]
fn nodes_that_differ_and_that_take_http_only_are_found() {
    let cluster = Cluster::start_with(&["london", "sydney"], |setup| {
        let max_bytes = if setup.region == "sydney" { "64MiB" } else { "128MiB" };
        framed(Setup { max_bytes, ..setup })
    });
    let operator = Operator::new(cluster[0].address());
    assert_eq!(found(&operator, &SHORT), (vec!["budgets-differ".to_owned()], 7));
    let cluster = Cluster::start_with(&["london"], |setup| setup.flag("--connections", "http"));
    let operator = Operator::new(cluster[0].address());
    assert_eq!(found(&operator, &SHORT), (vec!["framed-refused".to_owned()], 7));
}

#[test]
fn node_that_does_not_answer_is_found() {
    let mut cluster = Cluster::start_with(&["london", "london", "sydney"], framed);
    cluster[2].freeze();
    until_true("views in which the frozen node is unreachable", || {
        let frozen = cluster[2].address();
        cluster.nodes[..2]
            .iter()
            .all(|node| node.unreachable().is_some_and(|unreachable| unreachable.contains(&frozen)))
    });
    let operator = Operator::new(cluster[0].address());
    let args = [&SHORT[..], &["--timeout", "500ms"]].concat();
    assert_eq!(found(&operator, &args), (vec!["node-silent".to_owned()], 6));
}

#[test]
fn node_that_evicts_now_is_found_and_one_that_did_is_not() {
    let cluster =
        Cluster::start_with(&["london"], |setup| framed(setup.flag("--max-entries", "100")));
    let operator = Operator::new(cluster[0].address());
    let is_over = AtomicBool::new(false);
    let during = std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0_u64.. {
                cluster[0].put(&n.to_be_bytes(), b"value", "ttl=600");
                if is_over.load(Ordering::Relaxed) {
                    break;
                }
            }
        });
        until_true("an eviction", || cluster[0].stat("evicted") > 0);
        let during = found(&operator, &["--watch", "1s"]);
        is_over.store(true, Ordering::Relaxed);
        during
    });
    assert_eq!(during, (vec!["evicting".to_owned()], 7));
    assert_eq!(found(&operator, &SHORT), (vec![], 0));
}
