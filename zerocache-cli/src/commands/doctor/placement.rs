//! Checks of who keeps which values, where not every node keeps everything.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value as Json;

use super::{Evidence, Finding, settings::in_words};
use crate::survey::NodeView;

/// The counters that grow while values are handed over.
const PROGRESS: [&str; 2] = ["adopted", "displaced"];

/// Two nodes of one region have one name.
pub(super) fn name_conflict(evidence: &Evidence) -> Vec<Finding> {
    let action = "Give each node of a region a --node-name of its own, or none; two nodes of one name own no keys.";
    let mut conflicts = BTreeSet::new();
    for node in &evidence.survey.nodes {
        let names = node.cluster["placement"]["conflicts"].as_array().into_iter().flatten();
        conflicts.extend(names.filter_map(|name| Some((node.region(), name.as_str()?))));
    }
    let finding = |(region, name)| {
        let text = format!("two nodes of {region} have the name {name}");
        Finding::error("name-conflict", text, action)
    };
    conflicts.into_iter().map(finding).collect()
}

/// Nodes of one region that state different numbers of replicas.
pub(super) fn replicas_differ(evidence: &Evidence) -> Vec<Finding> {
    let action = "Give all nodes of a region the same --replicas: the largest number counts, and one without it, or of an earlier release, makes all keep everything.";
    let stated = |node: &NodeView| match evidence.setting(node, "replicas")? {
        Json::Null => Some("all".to_owned()),
        number => Some(number.to_string()),
    };
    let mut regions = BTreeMap::<&str, BTreeMap<String, Vec<&NodeView>>>::new();
    for node in &evidence.survey.nodes {
        if let Some(replicas) = stated(node) {
            let of_region = regions.entry(node.region()).or_default();
            of_region.entry(format!("--replicas {replicas}")).or_default().push(node);
        }
    }
    let differing = regions.values().filter(|groups| groups.len() > 1);
    differing.map(|groups| Finding::warning("replicas-differ", in_words(groups), action)).collect()
}

/// Nodes that hold values which belong to others. While values move it is a note.
pub(super) fn incomplete(evidence: &Evidence) -> Vec<Finding> {
    let action = "Wait until the values are at the nodes that own them; if nothing moves, look for owners that are not reached, and at their memory.";
    let is_incomplete = |node: &NodeView| node.cluster["placement"]["complete"] == false;
    let is_same = |node: &&NodeView| {
        let before = evidence.before.node(node.id());
        before.is_some_and(|before| {
            is_incomplete(before)
                && before.cluster["placement"]["id"] == node.cluster["placement"]["id"]
        })
    };
    let waiting: Vec<_> =
        evidence.survey.nodes.iter().filter(|node| is_incomplete(node)).filter(is_same).collect();
    let moves = |region: &str| {
        let of_region = evidence.survey.nodes.iter().filter(|node| node.region() == region);
        let mut growths =
            of_region.flat_map(|node| PROGRESS.map(|name| node.growth(&evidence.before, name)));
        growths.any(|growth| growth.is_some_and(|growth| growth > 0.0))
    };
    let finding = |node: &NodeView| {
        let is_moving = moves(node.region());
        let how = if is_moving { "values are moving" } else { "nothing moves" };
        let text = format!("{} has not handed over what others own: {how}", node.label());
        let finding = if is_moving { Finding::note } else { Finding::warning };
        finding("placement-incomplete", text, action)
    };
    let mut findings: Vec<_> = waiting.into_iter().map(finding).collect();
    findings.extend(absent_owners(evidence));
    findings
}

/// Nodes that are gone and own keys still: what they keep has a copy less.
fn absent_owners(evidence: &Evidence) -> Vec<Finding> {
    let action = "Wait: within half a minute the node is back under its name, or others own its keys and get the values. Stop no other node of the region before.";
    let mut regions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for node in &evidence.survey.nodes {
        let names = node.cluster["placement"]["absent"].as_array().into_iter().flatten();
        let names = names.filter_map(|name| name.as_str());
        regions.entry(node.region()).or_default().extend(names);
    }
    let finding = |(region, names): (&str, BTreeSet<&str>)| {
        let names = names.into_iter().collect::<Vec<_>>().join(", ");
        let text =
            format!("{region}: {names} gone, and counted on still: one copy less of what it keeps");
        Finding::note("placement-incomplete", text, action)
    };
    regions.into_iter().filter(|(_, names)| !names.is_empty()).map(finding).collect()
}
