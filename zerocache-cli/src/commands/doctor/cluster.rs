//! Checks of the nodes together: who sees whom.

use std::collections::{BTreeMap, BTreeSet};

use super::{Evidence, Finding};
use crate::survey::{Silence, Way, member_address};

/// The longest time that a node may lack writes, in milliseconds.
const LAG_MS_MAX: u64 = 60_000;

/// A member that does not answer.
pub(super) fn node_silent(evidence: &Evidence) -> Vec<Finding> {
    let survey = &evidence.survey;
    let is_member =
        |address| survey.ways.get(address).is_some_and(|ways| ways.contains(&Way::View));
    let silent = survey.silent.iter().filter(|silent| silent.silence == Silence::NoAnswer);
    let action =
        "Start the node, or wait until the others have forgotten it, if it is not to come back.";
    silent
        .filter(|silent| is_member(&silent.address))
        .map(|silent| Finding::error("node-silent", silent.why.clone(), action))
        .collect()
}

/// Nodes that answer and do not reach another one that answers: the labels of both. With `is_mutual`, each pair
/// once that do not reach each other; else those of which the other one reaches the first.
fn lost(evidence: &Evidence, is_mutual: bool) -> Vec<(String, String)> {
    let nodes: BTreeMap<_, _> =
        evidence.survey.nodes.iter().map(|node| (node.id(), node)).collect();
    let mut lost = BTreeSet::new();
    for node in nodes.values() {
        let rows = node.members().filter(|row| row["state"] == "unreachable");
        lost.extend(rows.filter_map(|row| Some((node.id(), row["id"].as_str()?))));
    }
    let wanted = lost.iter().filter(|(one, other)| {
        let loses_back = lost.contains(&(*other, *one));
        loses_back == is_mutual && (!is_mutual || one < other)
    });
    let label = |id: &str| nodes.get(id).map(|node| node.label());
    wanted.filter_map(|(one, other)| Some((label(one)?, label(other)?))).collect()
}

/// One node reaches another one, and not the other way round.
pub(super) fn reach_asymmetric(evidence: &Evidence) -> Vec<Finding> {
    let action = "Look for a firewall or a route that works in one direction only, and at --address of the node that is not reached.";
    let finding = |(one, other)| {
        let text = format!("{one} does not reach {other}, which reaches it");
        Finding::error("reach-asymmetric", text, action)
    };
    lost(evidence, false).into_iter().map(finding).collect()
}

/// Two nodes answer, and do not reach each other.
pub(super) fn reach_lost(evidence: &Evidence) -> Vec<Finding> {
    let action =
        "Look at the network between the two: writes of one come to the other by repair only.";
    let finding = |(one, other)| {
        Finding::error("reach-lost", format!("{one} and {other} do not reach each other"), action)
    };
    lost(evidence, true).into_iter().map(finding).collect()
}

/// Two nodes at one address, or an address that others cannot dial.
pub(super) fn address_conflict(evidence: &Evidence) -> Vec<Finding> {
    let action =
        "Give each node an address of its own with --address, one that the others can dial.";
    let nodes = &evidence.survey.nodes;
    let mut findings = Vec::new();
    for node in nodes {
        let count = node.cluster["address_conflicts"].as_u64().unwrap_or_default();
        if count > 0 {
            let text = format!("{} saw two nodes at one address {count} times", node.label());
            findings.push(Finding::warning("address-conflict", text, action));
        }
    }
    let mut owners = BTreeMap::<_, BTreeSet<&str>>::new();
    for node in nodes {
        if let Some(address) = member_address(node.own()) {
            owners.entry(address).or_default().insert(node.id());
        }
    }
    for (address, _) in owners.iter().filter(|(_, owners)| owners.len() > 1) {
        let text = format!("more than one node announces {address}");
        findings.push(Finding::error("address-conflict", text, action));
    }
    if owners.keys().any(|address| !address.ip().is_loopback()) {
        for address in owners.keys().filter(|address| address.ip().is_loopback()) {
            let text = format!("a node announces {address}, which others dial on their own host");
            findings.push(Finding::error("address-conflict", text, action));
        }
    }
    findings
}

/// A node that lacks writes for long.
pub(super) fn behind(evidence: &Evidence) -> Vec<Finding> {
    let action = "Look at the network to that node, and at its memory: repair has not completed.";
    let mut findings = Vec::new();
    for node in &evidence.survey.nodes {
        for row in node.members() {
            let lag_ms = row["replication_lag_ms"].as_u64().unwrap_or_default();
            if lag_ms > LAG_MS_MAX {
                let other = member_address(row).map(|address| address.to_string());
                let text = format!(
                    "{} has lacked writes of {} for {} s",
                    other.unwrap_or_default(),
                    node.label(),
                    lag_ms / 1_000
                );
                findings.push(Finding::warning("behind", text, action));
            }
        }
    }
    findings
}
