//! `zerocache doctor` finds each misfortune that is built here, and nothing else.

use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value as Json;
use zerocache_tests::{
    cluster::Cluster,
    namespace::skip,
    node::Node,
    operator::Operator,
    poll::{pass, until_true},
    proxy::{Proxy, UpgradePolicy},
    security::Keys,
    setup::{Access, Setup, unique_address},
};

/// Enough for what does not happen over time.
const SHORT: [&str; 2] = ["--watch", "50ms"];

/// Nodes in these regions, with a network between them that is as fast as this machine.
fn start(regions: &[&str], change: impl Fn(Setup) -> Setup) -> Cluster {
    let cluster = Cluster::start_with(regions, change);
    cluster.wait_until_near();
    cluster
}

fn framed(setup: Setup) -> Setup {
    setup.flag("--connections", "framed")
}

/// The ids of what is found, and the exit code.
fn found(operator: &Operator, args: &[&str]) -> (Vec<String>, i32) {
    let (findings, exit) = operator.findings(args);
    let id = |finding: &Json| finding["id"].as_str().unwrap_or_default().to_owned();
    (findings.iter().map(id).collect(), exit)
}

#[test]
fn healthy_cluster_has_no_finding() {
    let cluster = start(&["london", "london", "sydney"], framed);
    let operator = Operator::new(cluster[0].address());
    assert_eq!(found(&operator, &["--watch", "1s", "--region", "sydney"]), (vec![], 0));
    let printed = operator.run(&["doctor", "--watch", "50ms"]);
    assert_eq!((printed.exit, printed.text().as_str()), (0, ""), "{printed:?}");
    assert!(printed.err.contains("checks at 3 nodes, 0 findings"), "{printed:?}");
}

#[test]
fn silent_seed_region_without_nodes_and_foreign_cluster_are_found() {
    let cluster = start(&["london"], framed);
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
    let cluster = start(&["london"], framed);
    let proxy = Proxy::start(cluster[0].address(), UpgradePolicy::Forward);
    let operator = Operator::new(cluster[0].address())
        .set("ZEROCACHE_DISCOVERY", "seeds,dns")
        .set("ZEROCACHE_DNS", proxy.address());
    assert_eq!(found(&operator, &SHORT), (vec!["dns-virtual-ip".to_owned()], 7));
}

#[test]
fn nodes_with_different_memory_limits_or_connections_are_found() {
    let cluster = start(&["london", "sydney"], |setup| {
        let max_bytes = if setup.region == "sydney" { "64MiB" } else { "128MiB" };
        framed(Setup { max_bytes, ..setup })
    });
    let operator = Operator::new(cluster[0].address());
    assert_eq!(found(&operator, &SHORT), (vec!["budgets-differ".to_owned()], 7));
    let cluster = start(&["london", "sydney"], |setup| {
        let max_key_bytes = if setup.region == "sydney" { "512" } else { "1KiB" };
        framed(setup.flag("--max-key-bytes", max_key_bytes))
    });
    let operator = Operator::new(cluster[0].address());
    let evidence = operator.only_finding(&SHORT, ("limits-differ", 7));
    assert!(evidence.contains("max_key_bytes 512 at sydney"), "{evidence}");
    let cluster = start(&["london", "sydney"], |setup| {
        let connections = if setup.region == "sydney" { "framed" } else { "http" };
        setup.flag("--connections", connections)
    });
    let operator = Operator::new(cluster[0].address());
    let evidence = operator.only_finding(&SHORT, ("limits-differ", 7));
    assert!(evidence.contains("connections http at london"), "{evidence}");
}

#[test]
fn proxy_that_removes_the_upgrade_is_found() {
    if Keys::of_this_run().is_some() {
        // Nobody can remove what is encrypted.
        return;
    }
    let cluster = start(&["london"], framed);
    let proxy = Proxy::start(cluster[0].address(), UpgradePolicy::Strip);
    let operator = Operator::new(proxy.address());
    let evidence = operator.only_finding(&SHORT, ("framed-refused", 7));
    assert!(evidence.contains(&format!("at {}", proxy.address())), "{evidence}");
}

#[test]
fn seed_of_a_node_at_which_nobody_answers_is_found() {
    let nobody = SocketAddr::new(unique_address(), 1);
    let node = framed(Setup::new("london").flag("--seed", nobody)).start();
    until_true("a source of addresses that is silent", || {
        let view = node.http("GET", "/v1/cluster", b"").json();
        view["discovery"][0]["state"] == "silent"
    });
    let evidence = Operator::new(node.address()).only_finding(&SHORT, ("node-source-silent", 7));
    assert!(evidence.contains(&nobody.to_string()), "{evidence}");
}

#[test]
fn nodes_that_have_not_met_are_found() {
    let nodes = [framed(Setup::new("london")).start(), framed(Setup::new("sydney")).start()];
    let [one, other] = nodes.each_ref().map(Node::address);
    let operator = Operator::new(one).set("ZEROCACHE_SEED", format!("{one},{other}"));
    let evidence = operator.only_finding(&SHORT, ("reach-lost", 6));
    assert!(evidence.ends_with("do not reach each other"), "{evidence}");
}

#[test]
fn nodes_of_different_tls_modes_are_found() {
    let keys = Keys::of_this_run().unwrap_or_default();
    let cluster = start(&["london", "sydney"], |setup| {
        let mode = if setup.region == "sydney" { "optional" } else { "required" };
        framed(setup.access(Access::Secret(keys.clone())).flag("--tls", mode))
    });
    let operator = Operator::with_keys(cluster[0].address(), &keys);
    let evidence = operator.only_finding(&SHORT, ("tls-mixed", 7));
    assert!(evidence.contains("TLS optional at sydney"), "{evidence}");
}

#[test]
fn node_whose_udp_port_is_in_use_is_found() {
    let taken = UdpSocket::bind((unique_address(), 0)).expect("a free port");
    let listen = taken.local_addr().expect("an address");
    let first = framed(Setup { listen, ..Setup::new("london") }).start();
    let second = framed(Setup::new("london").flag("--seed", listen)).start();
    let cluster = Cluster { nodes: vec![first, second] };
    cluster.wait_until_joined();
    cluster.wait_until_near();
    let evidence = Operator::new(listen).only_finding(&SHORT, ("features-mixed", 7));
    assert!(evidence.contains(&format!("{listen} without datagrams")), "{evidence}");
}

#[test]
fn node_whose_clock_is_wrong_is_found() {
    let Some(library) = libfaketime() else {
        return skip("node_whose_clock_is_wrong_is_found", "libfaketime is not installed");
    };
    let cluster = start(&["london", "london", "sydney"], |setup| {
        let is_wrong = setup.region == "sydney";
        let setup = if is_wrong { with_clock(setup, &library, "-3") } else { setup };
        framed(setup)
    });
    let operator = Operator::new(cluster[0].address());
    let evidence = operator.only_finding(&SHORT, ("clock", 7));
    // The node corrects a clock that was wrong when it joined, which is said too.
    let is_near = ["3.0", "2.9", "3.1"].iter().any(|seconds| {
        let begin = format!(
            "the clock of sydney {} is {seconds} s behind the others",
            cluster[2].address()
        );
        evidence.starts_with(&begin)
    });
    assert!(is_near, "{evidence}");
}

/// The library that gives a process another wall clock, of Debian's package `faketime`.
fn libfaketime() -> Option<PathBuf> {
    let folders = std::fs::read_dir("/usr/lib").ok()?;
    let mut files =
        folders.filter_map(|folder| Some(folder.ok()?.path().join("faketime/libfaketimeMT.so.1")));
    files.find(|file| file.is_file())
}

/// A node whose wall clock is off by so many seconds; its other clocks are right.
fn with_clock(setup: Setup, library: &Path, seconds: &str) -> Setup {
    setup
        .variable("LD_PRELOAD", library.display())
        .variable("FAKETIME", seconds)
        .variable("FAKETIME_DONT_FAKE_MONOTONIC", "1")
}

#[test]
fn node_that_was_suspended_is_found() {
    let mut cluster = start(&["london"], framed);
    let operator = Operator::new(cluster[0].address());
    let mut before = cluster[0].stat("requests");
    let evidence = std::thread::scope(|scope| {
        let evidence = scope.spawn(|| operator.only_finding(&["--watch", "15s"], ("paused", 7)));
        // It asks for the view and for the statistics, and then watches; each look here is a request too.
        until_true("the first survey of the tool", || {
            before += 1;
            cluster[0].stat("requests") >= before + 2
        });
        // With the answers it closes its connections; one is that of the question.
        until_true("the end of the first survey", || cluster[0].stat("connections_open") <= 1);
        cluster[0].freeze();
        pass(Duration::from_secs(4));
        cluster[0].resume();
        evidence.join().expect("an end")
    });
    assert!(evidence.contains("was suspended"), "{evidence}");
}

#[test]
fn node_that_does_not_answer_is_found() {
    let mut cluster = start(&["london", "london", "sydney"], framed);
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
    let cluster = start(&["london"], |setup| framed(setup.flag("--max-entries", "100")));
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
