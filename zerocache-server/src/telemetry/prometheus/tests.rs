use std::collections::{BTreeMap, BTreeSet};

use zerocache_core::{
    node::{
        ClusterStatus, FeedCounts, LeaseCounts, NodeStatus, PlacementStatus, RefusalCounts,
        RepairCounts,
    },
    version::Incarnation,
    wire::NodeState,
};

use super::{cluster::REGIONS_MAX, *};
use crate::telemetry::histogram_table::REGION_OTHER;

#[test]
fn series_of_the_table_are_distinct_and_of_one_kind() {
    let mut families: BTreeMap<String, Vec<&Metric>> = BTreeMap::new();
    for metric in metrics() {
        families.entry(metric.base_name()).or_default().push(metric);
    }
    for (name, metrics) in &families {
        let first = metrics[0];
        let labels: BTreeSet<_> = metrics.iter().map(|metric| metric.label).collect();
        assert_eq!(labels.len(), metrics.len(), "{name}: two series are the same");
        for metric in metrics {
            assert_eq!(metric.kind, first.kind, "{name}");
            assert_eq!(metric.unit, first.unit, "{name}");
            let label = |metric: &Metric| metric.label.map(|(label, _)| label);
            assert_eq!(label(metric), label(first), "{name}");
        }
        let described = FAMILIES.iter().filter(|(family, _)| family == name).count();
        assert_eq!(described, usize::from(first.label.is_some()), "{name}");
    }
    for (family, help) in FAMILIES {
        assert!(families.contains_key(*family), "{family} has no series");
        assert!(help.ends_with('.') && !help.contains(". "), "{family}: {help}");
    }
}

#[test]
fn openmetrics_is_for_those_that_ask_for_it() {
    let prometheus = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5";
    assert_eq!(Format::accepted_by(Some(prometheus)), Format::OpenMetrics);
    for other in [None, Some("*/*"), Some("text/plain"), Some("application/json")] {
        assert_eq!(Format::accepted_by(other), Format::Text);
    }
}

/// A view of a cluster with `count` peers, in turn in each of `regions` regions beside the own one.
fn view(count: u64, regions: u64) -> ClusterStatus {
    let node = |n: u64| NodeStatus {
        id: Incarnation(n),
        name: format!("n{n}"),
        region: if n == 0 { "own".to_owned() } else { format!("r{}", n % regions) },
        zone: None,
        address: None,
        is_monitored: n % 4 != 3,
        state: (n % 4 < 2).then_some(if n.is_multiple_of(4) {
            NodeState::InSync
        } else {
            NodeState::Leaving
        }),
        since_ms: 1_500,
        latency_us: (n > 0).then_some(1_000 + n),
        bytes_max: 1,
        replication_lag_ms: (n == 2).then_some(2_500),
        heartbeats: None,
    };
    ClusterStatus {
        cluster: "c".into(),
        nodes: (0..=count).map(node).collect(),
        regions: Vec::new(),
        refused_by: Vec::new(),
        address_conflicts: 0,
        repair: RepairCounts::default(),
        placement: PlacementStatus::default(),
        leases: LeaseCounts::default(),
        feed: FeedCounts::default(),
        refused: RefusalCounts::default(),
        tombstone_retention_ms: 0,
        clock_offset_ms: 0,
        is_drained: false,
    }
}

fn text_of(view: &ClusterStatus) -> String {
    let surroundings = Surroundings { sources: Vec::new(), certificate_expires_s: Some(9) };
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Families(cluster::families(view, &surroundings))));
    let mut text = String::new();
    prometheus_text::encode(&mut text, &registry).expect("text");
    text
}

#[test]
fn number_of_series_does_not_grow_with_the_cluster() {
    let series = |text: &str| text.lines().filter(|line| !line.starts_with('#')).count();
    assert_eq!(series(&text_of(&view(12, 3))), series(&text_of(&view(1_000, 3))));
    let many = text_of(&view(4_000, 2_000));
    let regions: BTreeSet<_> =
        many.lines().filter_map(|line| line.split("region=\"").nth(1)).collect();
    let regions: BTreeSet<_> = regions.iter().filter_map(|rest| rest.split('"').next()).collect();
    // The own one, further ones up to the bound, and the rest as one.
    assert_eq!(regions.len(), REGIONS_MAX + 1);
    assert!(regions.contains(REGION_OTHER) && regions.contains("own"));
    let counted: f64 = many
        .lines()
        .filter(|line| line.starts_with("zerocache_node_peers{"))
        .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
        .sum();
    assert_eq!(counted, 4_000.0);
}

#[test]
fn peers_are_counted_by_region_and_state() {
    let text = text_of(&view(8, 1));
    for line in [
        "zerocache_node_peers{region=\"r0\",state=\"reachable\"} 2",
        "zerocache_node_peers{region=\"r0\",state=\"leaving\"} 2",
        "zerocache_node_peers{region=\"r0\",state=\"unreachable\"} 2",
        "zerocache_node_peers{region=\"r0\",state=\"unmonitored\"} 2",
        "zerocache_node_peers{region=\"own\",state=\"reachable\"} 0",
        "zerocache_node_peer_round_trip_seconds{region=\"r0\"} 0.001004",
        "zerocache_node_replication_behind_seconds{region=\"r0\"} 2.5",
        "zerocache_node_replication_behind_seconds{region=\"own\"} 0.0",
        "zerocache_node_state{state=\"in-sync\"} 1",
        "zerocache_node_ready 1",
        "zerocache_node_uptime_seconds 1.5",
        "zerocache_node_tls_certificate_expiry_timestamp_seconds 9",
    ] {
        assert!(text.lines().any(|one| one == line), "no {line} in\n{text}");
    }
}
