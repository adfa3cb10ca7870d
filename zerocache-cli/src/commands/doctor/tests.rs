//! The checks on what nodes would answer: those whose misfortune takes hosts, days or clocks, and the rules of
//! the others.

use std::time::Duration;

use serde_json::{Value as Json, json};

use super::{CHECKS, Evidence, Verdict};
use crate::survey::{Name, NodeView, Silence, Silent, Survey, Way};

/// What three nodes in one region that are well answer, and five seconds earlier.
fn healthy() -> Evidence {
    let row = |n: u64, own: u64| {
        json!({
            "id": id(n), "region": "oslo", "address": format!("10.0.0.{n}"), "port": 6789,
            "state": "in-sync", "latency_ms": (n != own).then_some(0.4), "bytes_max": 1 << 20,
            "replication_lag_ms": null, "version": (n == own).then_some("0.1.0"),
            "since_ms": 700_000 + n,
            "heartbeats": (n != own).then(|| json!({ "sent": 50, "acknowledged": 49, "answered": 48 })),
        })
    };
    let view = |own: u64| {
        let rows = [own].into_iter().chain((1..=3).filter(|n| *n != own));
        let rows: Vec<_> = rows.map(|n| row(n, own)).collect();
        let stats = json!({
            "clock_offset_ms": 0, "tombstone_retention_ms": 3_600_000, "tls_mode": 0, "evicted": 7,
            "replication_queue_records": 12, "replication_queue_bytes": 1_200, "suspensions": 1,
            "connections_open": 20, "connections_refused": 4, "accept_errors": 0, "adopted": 30, "disk_errors": 0,
            "displaced": 0,
        });
        NodeView {
            address: ([10, 0, 0, own as u8], 6789).into(),
            took: Duration::from_millis(1),
            clock_ms: Some((own as f64, 0.5)),
            cluster: json!({
                "cluster": "c", "nodes": rows, "discovery": [], "address_conflicts": 0,
                "placement": { "replicas": null, "id": null, "complete": true, "conflicts": [] },
            }),
            stats: Ok(stats),
            certificate_end_s: None,
        }
    };
    let survey = || Survey { nodes: (1..=3).map(view).collect(), ..Survey::default() };
    let mut evidence = Evidence { days: (14.0, 2.0), ..Evidence::default() };
    (evidence.before, evidence.survey) = (survey(), survey());
    let config = |n| {
        json!({
            "access": "secret", "listen": format!("10.0.0.{n}:6789"), "connections": "framed",
            "discovery": ["mdns"], "max_key_bytes": 1_024, "max_value_bytes": null,
            "max_connections": 100, "connections_max": 80, "features": ["repair", "datagrams"],
            "replicas": null,
        })
    };
    evidence.configs = (1..=3).map(|n| (id(n), config(n))).collect();
    // Earlier, fewer heartbeats were sent.
    for node in 1..=3 {
        for other in (1..=3).filter(|other| *other != node) {
            let earlier = json!({ "sent": 0, "acknowledged": 0, "answered": 0 });
            row_in(&mut evidence.before.nodes, node, other)["heartbeats"] = earlier;
        }
    }
    evidence
}

fn id(n: u64) -> String {
    format!("{n:016x}")
}

/// The ids of what is found, and how bad the worst is.
fn found(evidence: &Evidence) -> (Vec<&'static str>, Option<Verdict>) {
    let findings: Vec<_> = CHECKS.iter().flat_map(|(_, check)| check(evidence)).collect();
    let worst = findings.iter().map(|finding| finding.verdict).max();
    (findings.iter().map(|finding| finding.id).collect(), worst)
}

/// Where a node has another node in its view.
fn row_in(nodes: &mut [NodeView], own: u64, other: u64) -> &mut Json {
    let rows = nodes[own as usize - 1].cluster["nodes"].as_array_mut().expect("a list");
    let id = id(other);
    rows.iter_mut().find(|row| row["id"] == id.as_str()).expect("a row")
}

fn row(evidence: &mut Evidence, own: u64, other: u64) -> &mut Json {
    row_in(&mut evidence.survey.nodes, own, other)
}

fn stats(evidence: &mut Evidence, own: usize) -> &mut Json {
    evidence.survey.nodes[own - 1].stats.as_mut().expect("statistics")
}

fn config(evidence: &mut Evidence, own: u64) -> &mut Json {
    evidence.configs.get_mut(&id(own)).expect("settings")
}

/// The heartbeats of a node to another one are not acknowledged; so many of the other one were answered.
fn block(evidence: &mut Evidence, own: u64, other: u64, answered: u64) {
    let counts = json!({ "sent": 50, "acknowledged": 0, "answered": answered });
    row(evidence, own, other)["heartbeats"] = counts;
}

/// A node has never known another one.
fn forget(evidence: &mut Evidence, own: u64, other: u64) {
    for survey in [&mut evidence.before, &mut evidence.survey] {
        let rows = survey.nodes[own as usize - 1].cluster["nodes"].as_array_mut();
        rows.expect("a list").retain(|row| row["id"] != id(other).as_str());
    }
}

type Change = fn(&mut Evidence);

fn check_cases(cases: &[(&str, Verdict, Change)]) {
    for (n, (id, verdict, change)) in cases.iter().enumerate() {
        let mut evidence = healthy();
        change(&mut evidence);
        assert_eq!(found(&evidence), (vec![*id], Some(*verdict)), "case {n}");
    }
}

#[test]
fn healthy_nodes_have_no_finding() {
    assert_eq!(found(&healthy()), (vec![], None));
}

#[test]
fn misfortune_between_nodes_gives_its_id_alone() {
    check_cases(&[
        ("reach-asymmetric", Verdict::Error, |all| row(all, 1, 2)["state"] = "unreachable".into()),
        ("reach-lost", Verdict::Error, |all| {
            row(all, 1, 2)["state"] = "unreachable".into();
            row(all, 2, 1)["state"] = "unreachable".into();
        }),
        // They never met.
        ("reach-lost", Verdict::Error, |all| {
            forget(all, 1, 2);
            forget(all, 2, 1);
        }),
        ("reach-asymmetric", Verdict::Error, |all| forget(all, 3, 1)),
        ("udp-blocked", Verdict::Warning, |all| {
            block(all, 1, 2, 0);
            block(all, 2, 1, 50);
        }),
        ("udp-blocked", Verdict::Warning, |all| block(all, 3, 2, 0)),
        ("time-to-peer", Verdict::Warning, |all| {
            for nodes in [&mut all.before.nodes, &mut all.survey.nodes] {
                row_in(nodes, 1, 3)["latency_ms"] = 140.into();
                row_in(nodes, 3, 1)["latency_ms"] = 150.into();
            }
        }),
        ("behind", Verdict::Warning, |all| row(all, 3, 1)["replication_lag_ms"] = 61_000.into()),
        ("address-conflict", Verdict::Warning, |all| {
            all.survey.nodes[0].cluster["address_conflicts"] = 1.into();
        }),
        ("address-conflict", Verdict::Error, |all| {
            row(all, 3, 3)["address"] = "127.0.0.1".into();
        }),
        ("mdns-silent", Verdict::Warning, |all| {
            all.browsed = Some(vec![([10, 0, 0, 200].into(), [255, 255, 255, 0].into())]);
        }),
    ]);
}

/// A placement that is not complete, at both times.
fn incomplete(evidence: &mut Evidence, own: usize) {
    for survey in [&mut evidence.before, &mut evidence.survey] {
        survey.nodes[own - 1].cluster["placement"]["complete"] = false.into();
    }
}

#[test]
fn misfortune_of_placement_gives_its_id_alone() {
    check_cases(&[
        ("name-conflict", Verdict::Error, |all| {
            for node in &mut all.survey.nodes {
                node.cluster["placement"]["conflicts"] = json!(["cache-1"]);
            }
        }),
        ("replicas-differ", Verdict::Warning, |all| config(all, 2)["replicas"] = 2.into()),
        ("disk-fails", Verdict::Warning, |all| {
            stats(all, 2)["disk_bytes_max"] = 1_000_000_000.into();
            stats(all, 2)["disk_writable"] = 0.into();
        }),
        ("disk-fails", Verdict::Warning, |all| {
            stats(all, 2)["disk_bytes_max"] = 1_000_000_000.into();
            stats(all, 2)["disk_writable"] = 1.into();
            stats(all, 2)["disk_errors"] = 7.into();
        }),
        ("placement-incomplete", Verdict::Warning, |all| incomplete(all, 3)),
        ("placement-incomplete", Verdict::Note, |all| {
            incomplete(all, 3);
            stats(all, 1)["adopted"] = 31.into();
        }),
        ("placement-incomplete", Verdict::Note, |all| {
            all.survey.nodes[0].cluster["placement"]["absent"] = json!(["cache-2"]);
        }),
    ]);
}

#[test]
fn misfortune_of_settings_gives_its_id_alone() {
    check_cases(&[
        ("versions-mixed", Verdict::Warning, |all| row(all, 2, 2)["version"] = "0.2.0".into()),
        ("versions-mixed", Verdict::Note, |all| {
            row(all, 2, 2)["version"] = "0.2.0".into();
            row(all, 2, 2)["since_ms"] = 599_000.into();
        }),
        ("features-mixed", Verdict::Warning, |all| config(all, 3)["features"] = json!(["repair"])),
        ("budgets-differ", Verdict::Warning, |all| row(all, 2, 2)["bytes_max"] = 99.into()),
        ("limits-differ", Verdict::Warning, |all| config(all, 1)["max_value_bytes"] = 99.into()),
        ("limits-differ", Verdict::Warning, |all| config(all, 1)["connections"] = "http".into()),
        ("tls-mixed", Verdict::Warning, |all| stats(all, 1)["tls_mode"] = 1.into()),
        ("open", Verdict::Warning, |all| config(all, 2)["access"] = "insecure".into()),
    ]);
}

#[test]
fn misfortune_of_a_node_gives_its_id_alone() {
    check_cases(&[
        ("clock", Verdict::Error, |all| stats(all, 2)["clock_offset_ms"] = (-31_000).into()),
        ("clock", Verdict::Warning, |all| stats(all, 2)["clock_offset_ms"] = 1_500.into()),
        ("clock", Verdict::Warning, |all| {
            all.survey.nodes[2].clock_ms = Some((-1_600.0, 500.0));
        }),
        ("clock", Verdict::Error, |all| {
            // All are ahead of this host, one more than the others.
            for (n, ahead_ms) in [90_000.0, 90_001.0, 125_000.0].into_iter().enumerate() {
                all.survey.nodes[n].clock_ms = Some((ahead_ms, 1.0));
            }
        }),
        ("retention-short", Verdict::Warning, |all| {
            stats(all, 1)["tombstone_retention_ms"] = 59_000.into();
        }),
        ("tls-expiry", Verdict::Error, |all| all.survey.nodes[1].certificate_end_s = Some(0)),
        ("evicting", Verdict::Warning, |all| stats(all, 1)["evicted"] = 8.into()),
        ("paused", Verdict::Warning, |all| stats(all, 1)["suspensions"] = 2.into()),
        ("files-limit", Verdict::Warning, |all| stats(all, 1)["connections_refused"] = 5.into()),
        ("files-limit", Verdict::Warning, |all| stats(all, 1)["connections_open"] = 72.into()),
        ("queues", Verdict::Warning, |all| {
            let nodes = [&mut all.before.nodes[1], &mut all.survey.nodes[1]];
            for (node, records) in nodes.into_iter().zip([5_000, 4_000]) {
                node.stats.as_mut().expect("statistics")["replication_queue_records"] =
                    records.into();
            }
        }),
    ]);
}

#[test]
fn what_is_well_all_the_same_is_no_finding() {
    let cases: [Change; 13] = [
        // Regions may differ in replicas.
        |all| {
            for survey in [&mut all.before, &mut all.survey] {
                survey.nodes.truncate(2);
            }
            forget(all, 1, 3);
            forget(all, 2, 3);
            row(all, 2, 2)["region"] = "lima".into();
            config(all, 2)["replicas"] = 2.into();
        },
        // Shares follow the budgets.
        |all| {
            for node in &mut all.survey.nodes {
                node.cluster["placement"]["replicas"] = 2.into();
            }
            row(all, 2, 2)["bytes_max"] = 99.into();
        },
        // Other owners since the first look.
        |all| {
            incomplete(all, 1);
            all.survey.nodes[0].cluster["placement"]["id"] = "5".into();
        },
        // One that leaves is forgotten by the others first.
        |all| {
            row(all, 3, 3)["state"] = "leaving".into();
            forget(all, 1, 3);
            forget(all, 2, 3);
        },
        // A node was busy when it measured.
        |all| {
            row(all, 1, 3)["latency_ms"] = 140.into();
            row(all, 3, 1)["latency_ms"] = 150.into();
        },
        // A limit that follows from the budget is compared with the budget.
        |all| config(all, 1)["max_bytes"] = 99.into(),
        // Serves its own host only.
        |all| {
            config(all, 2)["access"] = "insecure".into();
            config(all, 2)["listen"] = "127.0.0.1:6789".into();
        },
        // One answer took long.
        |all| all.survey.nodes[2].clock_ms = Some((1_600.0, 900.0)),
        // Few heartbeats were sent.
        |all| {
            let counts = json!({ "sent": 9, "acknowledged": 0, "answered": 0 });
            row(all, 1, 2)["heartbeats"] = counts;
        },
        // A queue that is sent, and one that comes up now.
        |all| {
            let before = all.before.nodes[1].stats.as_mut().expect("statistics");
            before["replication_queue_records"] = 9_000.into();
            stats(all, 2)["replication_queue_records"] = 2_000.into();
            stats(all, 1)["replication_queue_bytes"] = 9_000_000.into();
        },
        // Multicast does not leave a network.
        |all| all.browsed = Some(vec![([10, 0, 1, 200].into(), [255, 255, 255, 0].into())]),
        // HTTP by the node's own setting.
        |all| {
            for n in 1..=3 {
                config(all, n)["connections"] = "http".into();
                all.http_only.insert(id(n));
            }
        },
        // A release without these answers.
        |all| {
            all.configs.clear();
            all.survey.nodes.iter_mut().for_each(|node| node.clock_ms = None);
        },
    ];
    for (n, change) in cases.into_iter().enumerate() {
        let mut evidence = healthy();
        change(&mut evidence);
        assert_eq!(found(&evidence), (vec![], None), "case {n}");
    }
}

#[test]
fn wrong_clock_of_two_is_told_by_that_of_this_host() {
    let mut evidence = healthy();
    evidence.survey.nodes.truncate(2);
    evidence.survey.nodes[1].clock_ms = Some((1_900.0, 1.0));
    let findings = super::nodes::clock(&evidence);
    let [finding] = &findings[..] else { panic!("{findings:?}") };
    assert!(finding.evidence.contains("10.0.0.2:6789 is 1.9 s ahead"), "{finding:?}");
    // Alone it is compared with nothing.
    evidence.survey.nodes.remove(0);
    assert_eq!(super::nodes::clock(&evidence), vec![]);
}

#[test]
fn lost_datagrams_have_a_direction() {
    for (answered, other, words) in [
        (0, 0, "no datagrams pass between oslo 10.0.0.1:6789 and oslo 10.0.0.2:6789"),
        (50, 0, "from oslo 10.0.0.1:6789 to oslo 10.0.0.2:6789 are lost"),
        (0, 50, "from oslo 10.0.0.2:6789 to oslo 10.0.0.1:6789 are lost"),
    ] {
        let mut evidence = healthy();
        block(&mut evidence, 1, 2, answered);
        block(&mut evidence, 2, 1, other);
        let findings = super::links::udp_blocked(&evidence);
        let [finding] = &findings[..] else { panic!("{findings:?}") };
        assert!(finding.evidence.contains(words), "{finding:?}");
    }
}

#[test]
fn node_that_is_refused_is_said_to_be() {
    let mut evidence = healthy();
    forget(&mut evidence, 1, 2);
    let refused = json!([{ "address": "10.0.0.2:6789", "code": "unverified" }]);
    evidence.survey.nodes[0].cluster["refused"] = refused;
    let findings = super::cluster::reach_asymmetric(&evidence);
    let [finding] = &findings[..] else { panic!("{findings:?}") };
    let expected = "oslo 10.0.0.1:6789 does not reach oslo 10.0.0.2:6789 (refused: unverified), which \
                    reaches it";
    assert_eq!(finding.evidence, expected);
}

#[test]
fn name_that_lacks_nodes_of_its_region_is_partial() {
    let mut evidence = healthy();
    let address = evidence.survey.nodes[0].address;
    let name = "nodes.example:6789".to_owned();
    let survey = &mut evidence.survey;
    survey.names = vec![Name { way: Way::Dns, name, addresses: Ok(vec![address]) }];
    survey.ids.insert(address, id(1));
    survey.ways.insert(address, [Way::Dns].into());
    let findings = super::paths::dns_partial(&evidence);
    let [finding] = &findings[..] else { panic!("{findings:?}") };
    assert!(finding.evidence.contains("10.0.0.2:6789, oslo 10.0.0.3:6789"), "{finding:?}");
    // Another region has a name of its own.
    for n in [2, 3] {
        row(&mut evidence, n, n)["region"] = "lima".into();
    }
    assert_eq!(super::paths::dns_partial(&evidence), vec![]);
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
        let mut evidence = healthy();
        let survey = &mut evidence.survey;
        survey.names = vec![Name { way: Way::Seed, name, addresses: Ok(vec![address]) }];
        survey.silent = vec![Silent { address, silence, why: "silent".to_owned() }];
        survey.ways = [(address, [Way::Seed, way].into())].into();
        assert_eq!(found(&evidence), (ids.to_vec(), Some(verdict)), "{silence:?}");
    }
}

#[test]
fn what_cannot_be_looked_at_is_a_note() {
    let mut evidence = healthy();
    for n in [0, 2] {
        evidence.survey.nodes[n].stats = Err("denied".to_owned());
    }
    assert_eq!(found(&evidence), (vec!["not-looked-at"], Some(Verdict::Note)));
}
