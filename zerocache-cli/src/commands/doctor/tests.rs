//! The checks whose misfortune takes hosts, days or clocks, on what nodes would answer.

use std::time::Duration;

use serde_json::{Value as Json, json};

use super::{CHECKS, Evidence, Verdict};
use crate::survey::{Name, NodeView, Silence, Silent, Survey, Way};

/// The answers of three nodes in one region that are well.
fn healthy() -> Vec<NodeView> {
    let row = |n: u64, own: u64| {
        json!({
            "id": format!("{n:016x}"), "region": "oslo", "address": format!("10.0.0.{n}"), "port": 6789,
            "state": "in-sync", "latency_ms": (n != own).then_some(0.4), "bytes_max": 1 << 20,
            "replication_lag_ms": null, "version": (n == own).then_some("0.1.0"),
        })
    };
    let view = |own: u64| {
        let rows = [own].into_iter().chain((1..=3).filter(|n| *n != own));
        let rows: Vec<_> = rows.map(|n| row(n, own)).collect();
        let stats = json!({
            "clock_offset_ms": 0, "tombstone_retention_ms": 3_600_000, "tls_mode": 0, "evicted": 7,
        });
        NodeView {
            address: ([10, 0, 0, own as u8], 6789).into(),
            took: Duration::from_millis(1),
            cluster: json!({ "cluster": "c", "nodes": rows, "discovery": [], "address_conflicts": 0 }),
            stats: Ok(stats),
            certificate_end_s: None,
        }
    };
    (1..=3).map(view).collect()
}

/// The ids of what is found, and how bad the worst is.
fn found(nodes: Vec<NodeView>) -> (Vec<&'static str>, Option<Verdict>) {
    found_in(Survey { nodes, ..Survey::default() })
}

fn found_in(survey: Survey) -> (Vec<&'static str>, Option<Verdict>) {
    let before = Survey { nodes: healthy(), ..Survey::default() };
    let evidence =
        Evidence { survey, before, http_only: Vec::new(), region: None, days: (14.0, 2.0) };
    let findings: Vec<_> = CHECKS.iter().flat_map(|(_, check)| check(&evidence)).collect();
    let worst = findings.iter().map(|finding| finding.verdict).max();
    (findings.iter().map(|finding| finding.id).collect(), worst)
}

/// Where a node has another node in its view.
fn row(nodes: &mut [NodeView], own: usize, other: u64) -> &mut Json {
    let rows = nodes[own - 1].cluster["nodes"].as_array_mut().expect("a list");
    let id = format!("{other:016x}");
    rows.iter_mut().find(|row| row["id"] == id.as_str()).expect("a row")
}

fn stats(nodes: &mut [NodeView], own: usize) -> &mut Json {
    nodes[own - 1].stats.as_mut().expect("statistics")
}

#[test]
fn healthy_nodes_have_no_finding() {
    assert_eq!(found(healthy()), (vec![], None));
}

#[test]
fn each_misfortune_gives_its_id_alone() {
    type Change = fn(&mut Vec<NodeView>);
    let cases: [(&str, Verdict, Change); 11] = [
        ("reach-asymmetric", Verdict::Error, |nodes| {
            row(nodes, 1, 2)["state"] = "unreachable".into()
        }),
        ("reach-lost", Verdict::Error, |nodes| {
            row(nodes, 1, 2)["state"] = "unreachable".into();
            row(nodes, 2, 1)["state"] = "unreachable".into();
        }),
        ("time-to-peer", Verdict::Warning, |nodes| row(nodes, 1, 3)["latency_ms"] = 140.into()),
        ("behind", Verdict::Warning, |nodes| {
            row(nodes, 3, 1)["replication_lag_ms"] = 61_000.into()
        }),
        ("versions-mixed", Verdict::Warning, |nodes| row(nodes, 2, 2)["version"] = "0.2.0".into()),
        ("address-conflict", Verdict::Warning, |nodes| {
            nodes[0].cluster["address_conflicts"] = 1.into()
        }),
        ("address-conflict", Verdict::Error, |nodes| {
            row(nodes, 3, 3)["address"] = "127.0.0.1".into()
        }),
        ("clock", Verdict::Error, |nodes| stats(nodes, 2)["clock_offset_ms"] = (-31_000).into()),
        ("clock", Verdict::Warning, |nodes| stats(nodes, 2)["clock_offset_ms"] = 1_500.into()),
        ("retention-short", Verdict::Warning, |nodes| {
            stats(nodes, 1)["tombstone_retention_ms"] = 59_000.into();
        }),
        ("tls-expiry", Verdict::Error, |nodes| nodes[1].certificate_end_s = Some(0)),
    ];
    for (id, verdict, change) in cases {
        let mut nodes = healthy();
        change(&mut nodes);
        assert_eq!(found(nodes), (vec![id], Some(verdict)));
    }
}

#[test]
fn silence_has_the_id_of_its_reason() {
    let address = ([10, 0, 0, 9], 6789).into();
    for (silence, way, ids, verdict) in [
        (Silence::NoAnswer, Way::Seed, &["name-silent"][..], Verdict::Warning),
        (Silence::NoAnswer, Way::View, &["name-silent", "node-silent"], Verdict::Error),
        (Silence::OtherCluster, Way::View, &["clusters-mixed"], Verdict::Error),
        (Silence::Denied, Way::View, &["credentials-denied"], Verdict::Error),
    ] {
        let name = "seed.example:6789".to_owned();
        let survey = Survey {
            names: vec![Name { way: Way::Seed, name, addresses: Ok(vec![address]) }],
            nodes: healthy(),
            silent: vec![Silent { address, silence, why: "silent".to_owned() }],
            ways: [(address, [Way::Seed, way].into())].into(),
        };
        assert_eq!(found_in(survey), (ids.to_vec(), Some(verdict)), "{silence:?}");
    }
}

#[test]
fn what_cannot_be_looked_at_is_a_note() {
    let mut nodes = healthy();
    nodes[0].stats = Err("denied".to_owned());
    nodes[2].stats = Err("denied".to_owned());
    assert_eq!(found(nodes), (vec!["not-looked-at"], Some(Verdict::Note)));
}
