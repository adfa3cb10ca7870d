//! Checks of what passes between nodes, and between them and this host.

use serde_json::Value as Json;

use super::{Evidence, Finding};
use crate::survey::{NodeView, Survey, Way, member_address};

/// The longest round trip inside one region, in milliseconds.
const LOCAL_LATENCY_MS_MAX: f64 = 100.0;

/// A link is judged after so many heartbeats: those of a second.
const HEARTBEATS_MIN: f64 = 10.0;

/// Returns the least round trip between two nodes, of what both say and have said, in milliseconds: a link has one,
/// and what is longer is the work of a busy node.
fn latency_ms(evidence: &Evidence, one: &NodeView, other: &NodeView) -> Option<f64> {
    let surveys = [&evidence.survey, &evidence.before];
    let views = surveys.into_iter().flat_map(|survey| {
        let (one, other) = (one.id(), other.id());
        [(survey.node(one), other), (survey.node(other), one)]
    });
    let latencies = views.filter_map(|(node, other)| node?.row(other)?["latency_ms"].as_f64());
    latencies.min_by(f64::total_cmp)
}

/// Nodes of one region that are far from each other.
pub(super) fn time_to_peer(evidence: &Evidence) -> Vec<Finding> {
    let action =
        "Make two regions of it: nodes of one region are asked in turn, however far they are.";
    let nodes = &evidence.survey.nodes;
    let mut findings = Vec::new();
    for (n, one) in nodes.iter().enumerate() {
        for other in nodes[n + 1..].iter().filter(|other| other.region() == one.region()) {
            let far = latency_ms(evidence, one, other).filter(|ms| *ms > LOCAL_LATENCY_MS_MAX);
            if let Some(ms) = far {
                let text = format!("{} and {} are {ms:.0} ms apart", one.label(), other.label());
                findings.push(Finding::warning("time-to-peer", text, action));
            }
        }
    }
    findings
}

/// The heartbeats that one node sent to another one while they were watched.
struct Heartbeats {
    is_reached: bool,
    sent: f64,
    acknowledged: f64,
    answered: f64,
}

impl Heartbeats {
    /// Those from `node` to another one; none if it does not send it any, or was not there before.
    fn between(evidence: &Evidence, node: &NodeView, other: &str) -> Option<Self> {
        let (now, before) = (node.row(other)?, evidence.before.node(node.id())?.row(other)?);
        let count = |row: &Json, name: &str| row["heartbeats"][name].as_f64();
        let grown = |name: &str| Some(count(now, name)? - count(before, name)?);
        let is_reached = !matches!(now["state"].as_str(), None | Some("unreachable"));
        let (sent, acknowledged) = (grown("sent")?, grown("acknowledged")?);
        Some(Self { is_reached, sent, acknowledged, answered: grown("answered")? })
    }

    /// Whether none of them came back.
    fn is_blocked(&self) -> bool {
        // Counters that fell are those of a member that returned.
        self.sent >= HEARTBEATS_MIN && self.acknowledged == 0.0
    }
}

/// Nodes that reach each other, and whose datagrams do not pass.
pub(super) fn udp_blocked(evidence: &Evidence) -> Vec<Finding> {
    let action = "Let the firewall pass UDP on the port of the nodes in both directions, or not at all: without it a link that loses packets looks like a node that is down.";
    let nodes = &evidence.survey.nodes;
    let mut findings = Vec::new();
    for (n, one) in nodes.iter().enumerate() {
        for other in &nodes[n + 1..] {
            let (to, from) = (
                Heartbeats::between(evidence, one, other.id()),
                Heartbeats::between(evidence, other, one.id()),
            );
            let both = [&to, &from];
            // That a node is not reached at all is found by another check.
            let are_reached = both.into_iter().flatten().all(|heartbeats| heartbeats.is_reached);
            let is_blocked = both.into_iter().flatten().any(Heartbeats::is_blocked);
            if !are_reached || !is_blocked {
                continue;
            }
            // What one node answered has arrived there.
            let arrive = |side: &Option<Heartbeats>| {
                side.as_ref().is_some_and(|heartbeats| heartbeats.answered > 0.0)
            };
            let (one, other) = (one.label(), other.label());
            let text = match (arrive(&to), arrive(&from)) {
                (true, false) => {
                    format!("datagrams from {one} to {other} are lost, those back arrive")
                }
                (false, true) => {
                    format!("datagrams from {other} to {one} are lost, those back arrive")
                }
                _ => format!("no datagrams pass between {one} and {other}"),
            };
            findings.push(Finding::warning("udp-blocked", text, action));
        }
    }
    findings
}

/// Nodes of this host's networks that announce themselves by mDNS, and were not heard.
pub(super) fn mdns_silent(evidence: &Evidence) -> Vec<Finding> {
    let heard = |survey: &Survey| survey.ways.values().any(|ways| ways.contains(&Way::Mdns));
    if heard(&evidence.survey) || heard(&evidence.before) {
        return Vec::new();
    }
    let announces = |node: &&NodeView| {
        let sources = evidence.setting(node, "discovery").and_then(Json::as_array);
        let has_mdns = sources.is_some_and(|sources| sources.iter().any(|name| name == "mdns"));
        has_mdns && member_address(node.own()).is_some_and(|address| evidence.is_near(address))
    };
    let silent: Vec<_> =
        evidence.survey.nodes.iter().filter(announces).map(NodeView::label).collect();
    if silent.is_empty() {
        return Vec::new();
    }
    let text =
        format!("{} on a network of this host: nothing was heard by mDNS", silent.join(", "));
    let action = "Let multicast to 224.0.0.251 and ff02::fb, UDP 5353, pass on that network, or use seeds or DNS names, and --discovery without mdns.";
    vec![Finding::warning("mdns-silent", text, action)]
}
