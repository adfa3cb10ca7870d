//! Checks of the ways to the nodes: names, seeds, what stands in between.

use std::{collections::BTreeSet, net::SocketAddr};

use super::{Evidence, Finding};
use crate::survey::{Name, Way, member_address};

/// The addresses that nodes announce, as all nodes know them.
fn announced(evidence: &Evidence) -> BTreeSet<SocketAddr> {
    let nodes = evidence.survey.nodes.iter();
    nodes.flat_map(|node| node.members().filter_map(member_address)).collect()
}

/// Whether a node of the cluster answers at an address.
fn answers(evidence: &Evidence, address: SocketAddr) -> bool {
    let is_silent = evidence.survey.silent.iter().any(|silent| silent.address == address);
    !is_silent && evidence.survey.ways.contains_key(&address)
}

fn dns_names(evidence: &Evidence) -> impl Iterator<Item = (&Name, &Vec<SocketAddr>)> {
    let names = evidence.survey.names.iter();
    names.filter_map(|name| match (&name.way, &name.addresses) {
        (Way::Dns(_), Ok(addresses)) => Some((name, addresses)),
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

/// A name of many addresses, at some of which nobody answers.
pub(super) fn dns_partial(evidence: &Evidence) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (name, addresses) in dns_names(evidence) {
        let silent = addresses.iter().filter(|address| !answers(evidence, **address));
        let silent: Vec<_> = silent.map(ToString::to_string).collect();
        if !silent.is_empty() && silent.len() < addresses.len() {
            let evidence = format!("{}: nobody answers at {}", name.name, silent.join(", "));
            let action = "Remove the addresses from the name, or wait until its cache has expired.";
            findings.push(Finding::warning("dns-partial", evidence, action));
        }
    }
    findings
}

/// A seed or name at which no node answers.
pub(super) fn name_silent(evidence: &Evidence) -> Vec<Finding> {
    let mut findings = Vec::new();
    for name in &evidence.survey.names {
        let what = match &name.way {
            Way::Seed(_) => "seed",
            Way::Dns(_) => "name",
            _ => continue,
        };
        let why = match &name.addresses {
            Err(why) => why.clone(),
            Ok(addresses) if addresses.iter().any(|address| answers(evidence, *address)) => {
                continue;
            }
            // Another check has this to say.
            Ok(addresses) if is_of_another_cluster(evidence, addresses) => continue,
            Ok(_) => "no node of this cluster answers there".to_owned(),
        };
        let evidence = format!("{what} {}: {why}", name.name);
        let action = "Correct the address in ZEROCACHE_SEED or ZEROCACHE_DNS, or start the node.";
        findings.push(Finding::warning("name-silent", evidence, action));
    }
    findings
}

fn is_of_another_cluster(evidence: &Evidence, addresses: &[SocketAddr]) -> bool {
    let mut others = evidence.survey.silent.iter().filter(|silent| silent.cluster.is_some());
    others.any(|silent| addresses.contains(&silent.address))
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
    let others = evidence.survey.silent.iter().filter(|silent| silent.cluster.is_some());
    let finding = |why: String| {
        let action =
            "Remove its address from the seeds and names, or correct the name of the cluster.";
        Finding::error("clusters-mixed", why, action)
    };
    others.map(|silent| finding(silent.why.clone())).collect()
}

/// A node that is reached over HTTP only.
pub(super) fn framed_refused(evidence: &Evidence) -> Vec<Finding> {
    let finding = |label: &String| {
        let action = "Let the proxy in between pass on the header Upgrade, or dial the node itself; the node may have --connections http.";
        Finding::warning("framed-refused", format!("{label} refuses framed connections"), action)
    };
    evidence.http_only.iter().map(finding).collect()
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
