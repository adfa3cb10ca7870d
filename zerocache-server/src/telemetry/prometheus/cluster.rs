//! The cluster as the node sees it: numbers by region and state, never one for each node.

use std::{borrow::Cow, collections::BTreeMap};

use zerocache_core::{
    node::{ClusterStatus, NodeStatus},
    wire::NodeState,
};
use zerocache_net::discovery::{SourceState, SourceStatus};

use super::{Family, Number, Surroundings};
use crate::{
    logging::VERSION,
    telemetry::{histogram_table::REGION_OTHER, metrics::Kind},
};

/// Most regions that are labels; nodes of further ones are counted under [`REGION_OTHER`].
pub(super) const REGIONS_MAX: usize = 64;

/// The states of `zerocache_node_state`.
const STATES: [NodeState; 3] = [NodeState::Warming, NodeState::InSync, NodeState::Leaving];

/// The states of `zerocache_node_peers`.
const PEER_STATES: [&str; 4] = ["reachable", "leaving", "unreachable", "unmonitored"];

/// The states of `zerocache_node_discovery_sources`; those of `/v1/cluster` that are faults are one here.
const SOURCE_STATES: [&str; 3] = ["works", "waiting", "fails"];

/// What a node knows about the nodes of one region, without itself.
#[derive(Default)]
struct Region {
    /// Nodes in each of [`PEER_STATES`].
    peers: [u64; PEER_STATES.len()],
    /// The least round trip, in microseconds.
    round_trip_us: Option<u64>,
    /// The time since the first write that a node still lacks, in milliseconds; the longest of all nodes.
    behind_ms: u64,
}

impl Region {
    fn add(&mut self, node: &NodeStatus) {
        let state = match node.state {
            Some(NodeState::Leaving) => 1,
            Some(_) => 0,
            None if node.is_monitored => 2,
            None => 3,
        };
        self.peers[state] += 1;
        if state == 0 {
            let least = self.round_trip_us.into_iter().chain(node.latency_us).min();
            self.round_trip_us = least;
        }
        self.behind_ms = self.behind_ms.max(node.replication_lag_ms.unwrap_or(0));
    }
}

/// Returns the peers by region. The own region is always among them.
fn by_region<'a>(own: &'a NodeStatus, peers: &'a [NodeStatus]) -> BTreeMap<&'a str, Region> {
    let mut regions = BTreeMap::from([(own.region.as_str(), Region::default())]);
    for peer in peers {
        let is_new = !regions.contains_key(peer.region.as_str());
        let is_over = is_new && regions.len() >= REGIONS_MAX;
        let name = if is_over { REGION_OTHER } else { peer.region.as_str() };
        regions.entry(name).or_default().add(peer);
    }
    regions
}

pub(super) fn families(status: &ClusterStatus, surroundings: &Surroundings) -> Vec<Family> {
    let Some((own, peers)) = status.nodes.split_first() else { return Vec::new() };
    let mut families = vec![identity(status, own)];
    families.extend(own_state(own));
    families.extend(regions(&by_region(own, peers)));
    families.push(Family::gauge(
        "peers_refusing",
        "Addresses whose nodes refuse this one.",
        Number::Unsigned(status.refused_by.len() as u64),
    ));
    let help = "Times that two live nodes claimed one address.";
    let conflicts = Number::Unsigned(status.address_conflicts);
    families
        .push(Family::new("address_conflicts", help, Kind::Counter).with(Vec::new(), conflicts));
    families.push(discovery(&surroundings.sources));
    families.extend(surroundings.certificate_expires_s.map(|seconds| {
        Family::gauge(
            "tls_certificate_expiry_timestamp_seconds",
            "End of the certificate of this node, in seconds since the Unix epoch.",
            Number::Unsigned(seconds),
        )
    }));
    families
}

/// The `info` of a node: its labels say what it is.
fn identity(status: &ClusterStatus, own: &NodeStatus) -> Family {
    let labels = vec![
        ("version", VERSION.into()),
        ("cluster", status.cluster.clone().into()),
        ("region", own.region.clone().into()),
        ("zone", own.zone.clone().unwrap_or_default().into()),
        ("incarnation", own.id.to_string().into()),
    ];
    let help = "The node: its software, and where it stands; always 1.";
    Family::new("info", help, Kind::Gauge).with(labels, Number::Unsigned(1))
}

fn own_state(own: &NodeStatus) -> [Family; 3] {
    let is = |state| Number::Unsigned(u64::from(own.state == Some(state)));
    let help = "Whether the node is in this state: 1 for one of them, 0 for the others.";
    let mut state = Family::new("state", help, Kind::Gauge);
    for one in STATES {
        state = state.with(vec![("state", one.as_str().into())], is(one));
    }
    let help = "Whether the node is in sync, as /readyz says it.";
    [
        Family::gauge("ready", help, is(NodeState::InSync)),
        state,
        Family::gauge(
            "uptime_seconds",
            "Time since the start of the node.",
            Number::Float(own.since_ms as f64 / 1_000.0),
        ),
    ]
}

fn regions(regions: &BTreeMap<&str, Region>) -> [Family; 3] {
    let help = "Other nodes that this one knows, by region and state.";
    let mut peers = Family::new("peers", help, Kind::Gauge);
    let help = "Least smoothed round trip to a node of the region.";
    let mut round_trip = Family::new("peer_round_trip_seconds", help, Kind::Gauge);
    let help =
        "Time since the first write of this node that a node of the region still lacks; 0 if none.";
    let mut behind = Family::new("replication_behind_seconds", help, Kind::Gauge);
    for (&name, region) in regions {
        let label = || ("region", Cow::Owned(name.to_owned()));
        for (state, count) in PEER_STATES.iter().zip(region.peers) {
            peers = peers.with(vec![label(), ("state", (*state).into())], Number::Unsigned(count));
        }
        if let Some(us) = region.round_trip_us {
            round_trip = round_trip.with(vec![label()], Number::Float(us as f64 / 1e6));
        }
        behind = behind.with(vec![label()], Number::Float(region.behind_ms as f64 / 1_000.0));
    }
    [peers, round_trip, behind]
}

/// The sources by method and state, whatever their names.
fn discovery(sources: &[SourceStatus]) -> Family {
    let mut counts: BTreeMap<&'static str, [u64; SOURCE_STATES.len()]> = BTreeMap::new();
    for source in sources {
        let state = match source.state {
            SourceState::Working => 0,
            SourceState::Waiting => 1,
            _ => 2,
        };
        counts.entry(source.source.as_str()).or_default()[state] += 1;
    }
    let help = "Configured sources of addresses, by method and state.";
    let mut family = Family::new("discovery_sources", help, Kind::Gauge);
    for (method, counts) in counts {
        for (state, count) in SOURCE_STATES.iter().zip(counts) {
            let labels = vec![("method", method.into()), ("state", (*state).into())];
            family = family.with(labels, Number::Unsigned(count));
        }
    }
    family
}
