//! Checks of the settings of the nodes: in what they differ, and who is let in.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use serde_json::Value as Json;

use super::{Evidence, Finding};
use crate::survey::{NodeView, member_address};

/// Nodes of several versions are an upgrade for so long, in milliseconds.
const UPGRADE_MS_MAX: u64 = 600_000;

/// A feature that follows from the TLS mode, in which nodes may differ for the time of a change.
const FEATURE_OF_TLS: &str = "sealed-datagrams";

/// Returns the nodes by what they have of something.
fn groups(
    evidence: &Evidence,
    value: impl Fn(&NodeView) -> Option<String>,
) -> BTreeMap<String, Vec<&NodeView>> {
    let mut groups = BTreeMap::<_, Vec<_>>::new();
    for node in &evidence.survey.nodes {
        if let Some(value) = value(node) {
            groups.entry(value).or_default().push(node);
        }
    }
    groups
}

/// Returns the values of nodes in words.
pub(super) fn in_words(groups: &BTreeMap<String, Vec<&NodeView>>) -> String {
    let text = |(value, nodes): (&String, &Vec<&NodeView>)| {
        let labels: Vec<_> = nodes.iter().map(|node| node.label()).collect();
        format!("{value} at {}", labels.join(", "))
    };
    groups.iter().map(text).collect::<Vec<_>>().join("; ")
}

/// Returns the values of nodes, if they differ.
fn differing(evidence: &Evidence, value: impl Fn(&NodeView) -> Option<String>) -> Option<String> {
    let groups = groups(evidence, value);
    (groups.len() > 1).then(|| in_words(&groups))
}

fn version(node: &NodeView) -> Option<String> {
    node.own()["version"].as_str().map(str::to_owned)
}

/// Nodes with software of different versions.
pub(super) fn versions_mixed(evidence: &Evidence) -> Vec<Finding> {
    let groups = groups(evidence, version);
    let age_ms = |node: &&NodeView| node.own()["since_ms"].as_u64().unwrap_or_default();
    // They are mixed since the first node of the second version started.
    let mut oldest: Vec<_> =
        groups.values().filter_map(|nodes| nodes.iter().map(age_ms).max()).collect();
    oldest.sort_unstable_by(|one, other| other.cmp(one));
    let Some(mixed_ms) = oldest.get(1) else { return Vec::new() };
    let text = format!("{} (for {} min)", in_words(&groups), mixed_ms / 60_000);
    let action = "Finish the upgrade, or undo it.";
    let finding = if *mixed_ms > UPGRADE_MS_MAX { Finding::warning } else { Finding::note };
    vec![finding("versions-mixed", text, action)]
}

/// Nodes of one version that do not offer the same to others.
pub(super) fn features_mixed(evidence: &Evidence) -> Vec<Finding> {
    let action = "Look at the first lines in the log of the node that lacks it, and restart the node: without datagrams, its UDP port was in use.";
    let mut findings = Vec::new();
    for nodes in groups(evidence, version).values() {
        let offered = |node: &NodeView| -> Option<BTreeSet<&str>> {
            let names = evidence.setting(node, "features")?.as_array()?;
            Some(names.iter().filter_map(Json::as_str).collect())
        };
        let offers: Vec<_> =
            nodes.iter().filter_map(|node| Some((node.label(), offered(node)?))).collect();
        let all: BTreeSet<_> = offers.iter().flat_map(|(_, names)| names).collect();
        for name in all.into_iter().filter(|name| **name != FEATURE_OF_TLS) {
            let lacking = offers.iter().filter(|(_, names)| !names.contains(name));
            let lacking: Vec<_> = lacking.map(|(label, _)| label.as_str()).collect();
            if !lacking.is_empty() {
                let text = format!("{} without {name}, which others have", lacking.join(", "));
                findings.push(Finding::warning("features-mixed", text, action));
            }
        }
    }
    findings
}

/// Nodes with different memory.
pub(super) fn budgets_differ(evidence: &Evidence) -> Vec<Finding> {
    let action = "Give all nodes the same --max-bytes and --max-entries: each holds every entry, and the smallest evicts first.";
    let budget = |node: &NodeView| {
        // With a number of replicas the shares follow the budgets.
        if node.cluster["placement"]["replicas"].is_u64() {
            return None;
        }
        let entries = node.stats.as_ref().ok().map(|stats| stats["entries_max"].as_u64());
        let bytes = node.own()["bytes_max"].as_u64()?;
        Some(match entries.flatten() {
            Some(entries) => format!("{bytes} B and {entries} entries"),
            None => format!("{bytes} B"),
        })
    };
    let differ = differing(evidence, budget);
    differ.map(|text| Finding::warning("budgets-differ", text, action)).into_iter().collect()
}

/// Nodes that do not accept the same keys and values, or not the same connections.
pub(super) fn limits_differ(evidence: &Evidence) -> Vec<Finding> {
    let action = "Give all nodes the same flags: an entry that one node accepts is too large for another one, or a link is slower than it could be.";
    let setting = |name: &'static str, unset: &'static str| {
        let value = move |node: &NodeView| {
            Some(match evidence.setting(node, name)? {
                Json::Null => format!("{name} {unset}"),
                Json::String(text) => format!("{name} {text}"),
                other => format!("{name} {other}"),
            })
        };
        differing(evidence, value)
    };
    // Without the flag it follows from the byte budget, in which nodes differ by themselves.
    let limits = [
        setting("max_key_bytes", ""),
        setting("max_value_bytes", "of the budget"),
        setting("connections", ""),
    ];
    let finding = |text| Finding::warning("limits-differ", text, action);
    limits.into_iter().flatten().map(finding).collect()
}

/// Nodes of which some require TLS and others do not.
pub(super) fn tls_mixed(evidence: &Evidence) -> Vec<Finding> {
    let action =
        "Give all nodes the same --tls when the change from one mode to another is complete.";
    let mode = |node: &NodeView| {
        let mode = match node.stat("tls_mode")? {
            mode if mode < 0.5 => "off",
            mode if mode < 1.5 => "optional",
            _ => "required",
        };
        Some(format!("TLS {mode}"))
    };
    let differ = differing(evidence, mode);
    differ.map(|text| Finding::warning("tls-mixed", text, action)).into_iter().collect()
}

/// Nodes that serve everybody who reaches them.
pub(super) fn open(evidence: &Evidence) -> Vec<Finding> {
    let is_open = |node: &&NodeView| {
        let listen = evidence.setting(node, "listen").and_then(Json::as_str);
        let listen: Option<SocketAddr> = listen.and_then(|listen| listen.parse().ok());
        let is_insecure = evidence.setting(node, "access").is_some_and(|level| level == "insecure");
        is_insecure && listen.is_none_or(|listen| !listen.ip().is_loopback())
    };
    let nodes = evidence.survey.nodes.iter().filter(is_open);
    let addresses: Vec<_> =
        nodes.map(|node| member_address(node.own()).unwrap_or(node.address).to_string()).collect();
    if addresses.is_empty() {
        return Vec::new();
    }
    let text = format!(
        "whoever reaches {} can read and delete everything: there is no secret, and --insecure",
        addresses.join(", ")
    );
    let action = "Give all nodes a secret (`zerocache secret`), and remove --insecure.";
    vec![Finding::warning("open", text, action)]
}
