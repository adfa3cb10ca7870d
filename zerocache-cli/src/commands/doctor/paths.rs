//! Checks of the ways to the nodes: names, seeds, what stands in between.

use std::{collections::BTreeSet, net::SocketAddr};

use super::{Evidence, Finding};
use crate::survey::{Name, NodeView, Silence, Silent, Way, member_address};

/// The addresses that nodes announce, as all nodes know them.
fn announced(evidence: &Evidence) -> BTreeSet<SocketAddr> {
    let nodes = evidence.survey.nodes.iter();
    nodes.flat_map(|node| node.members().filter_map(member_address)).collect()
}

/// An address that was asked, and at which no node of the cluster answers.
fn silent(evidence: &Evidence, address: SocketAddr) -> Option<&Silent> {
    evidence.survey.silent.iter().find(|silent| silent.address == address)
}

/// Whether a node of the cluster answers at an address.
fn answers(evidence: &Evidence, address: SocketAddr) -> bool {
    silent(evidence, address).is_none() && evidence.survey.ways.contains_key(&address)
}

/// A finding for each address at which there is silence of one kind.
fn errors(
    evidence: &Evidence,
    silence: Silence,
    (id, action): (&'static str, &'static str),
) -> Vec<Finding> {
    let silent = evidence.survey.silent.iter().filter(|silent| silent.silence == silence);
    silent.map(|silent| Finding::error(id, silent.why.clone(), action)).collect()
}

fn dns_names(evidence: &Evidence) -> impl Iterator<Item = (&Name, &Vec<SocketAddr>)> {
    let names = evidence.survey.names.iter();
    names.filter_map(|name| match (&name.way, &name.addresses) {
        (Way::Dns, Ok(addresses)) => Some((name, addresses)),
        _ => None,
    })
}

/// A name with one address that no node announces.
pub(super) fn dns_virtual_ip(evidence: &Evidence) -> Vec<Finding> {
    let announced = announced(evidence);
    let found = dns_names(evidence).filter(|(_, addresses)| {
        matches!(addresses[..], [one] if answers(evidence, one) && !announced.contains(&one))
    });
    let finding = |(name, addresses): (&Name, &Vec<SocketAddr>)| {
        let evidence = format!("{} is {} alone, which no node announces", name.name, addresses[0]);
        let action = "Name a headless service: this one is a virtual address, behind which only one node is seen.";
        Finding::warning("dns-virtual-ip", evidence, action)
    };
    found.map(finding).collect()
}

/// A name of many addresses, at some of which nobody answers, or which lacks nodes.
pub(super) fn dns_partial(evidence: &Evidence) -> Vec<Finding> {
    let mut findings: Vec<_> = nodes_without_name(evidence).into_iter().collect();
    for (name, addresses) in dns_names(evidence) {
        let silent = addresses.iter().filter(|address| {
            silent(evidence, **address).is_some_and(|silent| silent.silence == Silence::NoAnswer)
        });
        let silent: Vec<_> = silent.map(ToString::to_string).collect();
        if !silent.is_empty() && silent.len() < addresses.len() {
            let evidence = format!("{}: nobody answers at {}", name.name, silent.join(", "));
            let action = "Remove the addresses from the name, or wait until its cache has expired.";
            findings.push(Finding::warning("dns-partial", evidence, action));
        }
    }
    findings
}

/// Nodes of a region, others of which have a DNS name.
fn nodes_without_name(evidence: &Evidence) -> Option<Finding> {
    if !dns_virtual_ip(evidence).is_empty() {
        // Of those behind one address only one is seen.
        return None;
    }
    let ids = &evidence.survey.ids;
    let addresses = dns_names(evidence).flat_map(|(_, addresses)| addresses);
    let named: BTreeSet<_> = addresses.filter_map(|address| ids.get(address)).collect();
    let survey = &evidence.survey;
    let regions: BTreeSet<_> =
        named.iter().filter_map(|id| Some(survey.node(id)?.region())).collect();
    let is_unnamed = |node: &&NodeView| {
        // One that has just started is in no name yet.
        let is_known = evidence.before.node(node.id()).is_some();
        is_known && regions.contains(node.region()) && !named.contains(&node.id().to_owned())
    };
    let unnamed: Vec<_> = survey.nodes.iter().filter(is_unnamed).map(NodeView::label).collect();
    let names: Vec<_> = dns_names(evidence).map(|(name, _)| name.name.as_str()).collect();
    let text = format!("{} without the address of {}", names.join(", "), unnamed.join(", "));
    let action = "Let the name have the addresses of all nodes of its region (publishNotReadyAddresses, at most 256 records), or wait until its cache has expired.";
    (!unnamed.is_empty()).then(|| Finding::warning("dns-partial", text, action))
}

/// A seed or name at which no node answers.
pub(super) fn name_silent(evidence: &Evidence) -> Vec<Finding> {
    let mut findings = Vec::new();
    for name in &evidence.survey.names {
        let what = match name.way {
            Way::Seed => "seed",
            Way::Dns => "name",
            _ => continue,
        };
        let why = match &name.addresses {
            Err(why) => why.clone(),
            Ok(addresses) if addresses.iter().any(|address| answers(evidence, *address)) => {
                continue;
            }
            Ok(addresses) => {
                let silent = addresses.iter().filter_map(|address| silent(evidence, *address));
                match silent.max_by_key(|silent| silent.silence) {
                    None => "the name has no address".to_owned(),
                    Some(silent) if silent.silence == Silence::NoAnswer => silent.why.clone(),
                    // Another check has this to say.
                    Some(_) => continue,
                }
            }
        };
        let evidence = format!("{what} {}: {why}", name.name);
        let action = "Correct the address in ZEROCACHE_SEED or ZEROCACHE_DNS, or start the node.";
        findings.push(Finding::warning("name-silent", evidence, action));
    }
    findings
}

/// A seed or name of a node, at which that node finds nobody.
pub(super) fn node_source_silent(evidence: &Evidence) -> Vec<Finding> {
    let mut findings = Vec::new();
    for node in &evidence.survey.nodes {
        for source in node.cluster["discovery"].as_array().into_iter().flatten() {
            let text = |name: &str| source[name].as_str().unwrap_or_default();
            if matches!(text("state"), "works" | "waiting") {
                continue;
            }
            let (method, name, state) = (text("method"), text("name"), text("state"));
            let reason = source["reason"].as_str().map(|why| format!(" ({why})"));
            let evidence = format!(
                "{}: {method} {name} is {state}{}",
                node.label(),
                reason.unwrap_or_default()
            );
            let action =
                "Correct the discovery of that node: it may not find others after a restart.";
            findings.push(Finding::warning("node-source-silent", evidence, action));
        }
    }
    findings
}

/// A node of another cluster at an address of this one.
pub(super) fn clusters_mixed(evidence: &Evidence) -> Vec<Finding> {
    let action = "Remove its address from the seeds and names, or correct the name of the cluster.";
    errors(evidence, Silence::OtherCluster, ("clusters-mixed", action))
}

/// A node that denies the credentials: other secrets, another cluster, or a token that is not valid there.
pub(super) fn credentials_denied(evidence: &Evidence) -> Vec<Finding> {
    let action = "Present a token of that node's cluster, or remove its address from the seeds and names if it is of another one.";
    errors(evidence, Silence::Denied, ("credentials-denied", action))
}

/// A node that is reached over HTTP only.
pub(super) fn framed_refused(evidence: &Evidence) -> Vec<Finding> {
    let action = "Let the proxy in between pass on the headers Upgrade and Connection, or dial the node itself.";
    // Its own setting is no misfortune.
    let refuses = |node: &&NodeView| {
        let is_chosen = evidence.setting(node, "connections").is_some_and(|kind| kind == "http");
        evidence.http_only.contains(node.id()) && !is_chosen
    };
    let finding = |node: &NodeView| {
        let text = format!("{} at {} refuses framed connections", node.label(), node.address);
        Finding::warning("framed-refused", text, action)
    };
    evidence.survey.nodes.iter().filter(refuses).map(finding).collect()
}

/// The client's region, in which there is no node.
pub(super) fn region_empty(evidence: &Evidence) -> Vec<Finding> {
    let Some(region) = &evidence.region else { return Vec::new() };
    let regions: BTreeSet<_> = evidence.survey.nodes.iter().map(|node| node.region()).collect();
    if regions.contains(region.as_str()) {
        return Vec::new();
    }
    let regions: Vec<_> = regions.into_iter().collect();
    let evidence =
        format!("no node stands in {region:?}; there are nodes in {}", regions.join(", "));
    let action = "Correct the region of the client, or start a node there: each read goes to another region.";
    vec![Finding::warning("region-empty", evidence, action)]
}
