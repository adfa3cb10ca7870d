//! Checks of the nodes together: who sees whom.

use std::collections::{BTreeMap, BTreeSet};

use super::{Evidence, Finding};
use crate::survey::{NodeView, Silence, Way, member_address};

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

/// Whether a node does not reach another one that answers: it says so, or has not known that one for as long as
/// the nodes were watched.
fn misses(evidence: &Evidence, node: &NodeView, other: &NodeView) -> bool {
    let before = |id: &str| evidence.before.node(id);
    match node.row(other.id()) {
        Some(row) => row["state"] == "unreachable",
        None => {
            let lacked = before(node.id()).is_some_and(|node| node.row(other.id()).is_none());
            lacked && before(other.id()).is_some()
        }
    }
}

/// Returns why a node is refused by another one, if it is.
fn refusal(node: &NodeView, other: &NodeView) -> String {
    let address = member_address(other.own()).map(|address| address.to_string());
    let refused = node.cluster["refused"].as_array().into_iter().flatten();
    let mut codes = refused.filter(|refused| refused["address"].as_str() == address.as_deref());
    let code = codes.find_map(|refused| refused["code"].as_str());
    code.map(|code| format!(" (refused: {code})")).unwrap_or_default()
}

/// The pairs of nodes that answer, of which the first does not reach the second: those that do not reach each
/// other, each once, or those of which the second reaches the first.
fn lost(evidence: &Evidence, is_mutual: bool) -> Vec<(&NodeView, &NodeView)> {
    // One that leaves is forgotten by the others while it still answers.
    let nodes = || evidence.survey.nodes.iter().filter(|node| node.own()["state"] != "leaving");
    let mut lost = Vec::new();
    for one in nodes() {
        for other in nodes().filter(|other| other.id() != one.id()) {
            if misses(evidence, one, other) && misses(evidence, other, one) == is_mutual {
                lost.push((one, other));
            }
        }
    }
    lost.retain(|(one, other)| !is_mutual || one.id() < other.id());
    lost
}

/// One node reaches another one, and not the other way round.
pub(super) fn reach_asymmetric(evidence: &Evidence) -> Vec<Finding> {
    let action = "Look for a firewall or a route that works in one direction only, at --address of the node that is not reached, and at the certificate of the one that does not reach it.";
    let finding = |(one, other): (&NodeView, &NodeView)| {
        let (why, one, other) = (refusal(one, other), one.label(), other.label());
        let text = format!("{one} does not reach {other}{why}, which reaches it");
        Finding::error("reach-asymmetric", text, action)
    };
    lost(evidence, false).into_iter().map(finding).collect()
}

/// Two nodes answer, and do not reach each other.
pub(super) fn reach_lost(evidence: &Evidence) -> Vec<Finding> {
    let action = "Look at the network between the two, and whether the discovery of one names the other: writes of one come to the other by repair, if at all.";
    let finding = |(one, other): (&NodeView, &NodeView)| {
        let why = refusal(one, other) + &refusal(other, one);
        let text = format!("{} and {} do not reach each other{why}", one.label(), other.label());
        Finding::error("reach-lost", text, action)
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
