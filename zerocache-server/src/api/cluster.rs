//! `/v1/cluster`: the cluster as this node sees it.

use std::sync::Arc;

use axum::{Extension, Json, extract::State};
use serde::Serialize;
use zerocache_core::{
    access::Operation,
    cluster::HeartbeatCounts,
    node::{ClusterStatus, NodeStatus, PlacementStatus, RefusedPeer, RegionStatus},
};
use zerocache_net::{clock, discovery::SourceStatus};

use super::{Api, error::ApiError};
use crate::{access::Caller, logging::VERSION};

/// The cluster as this node sees it.
#[derive(Serialize)]
pub(super) struct ClusterBody {
    cluster: String,
    /// The name and the version of this node's software.
    software: SoftwareBody,
    /// Whether this node is leaving until it is undrained.
    drained: bool,
    /// The wall clock of this node, as it counts it since its start, without its correction.
    wall_ms: u64,
    /// This node first.
    nodes: Vec<NodeBody>,
    /// Nearest first.
    regions: Vec<RegionBody>,
    /// Who keeps which values in this node's region.
    placement: PlacementBody,
    /// Addresses whose nodes refuse this one.
    refused: Vec<RefusedBody>,
    /// Times that two live nodes claimed one address.
    address_conflicts: u64,
    /// The configured sources of addresses, and their state.
    discovery: Vec<SourceBody>,
}

#[derive(Serialize)]
struct SoftwareBody {
    name: &'static str,
    version: &'static str,
}

/// This software.
const SOFTWARE: SoftwareBody = SoftwareBody { name: env!("CARGO_PKG_NAME"), version: VERSION };

#[derive(Serialize)]
struct PlacementBody {
    /// How many nodes keep a value; null for all.
    replicas: Option<usize>,
    /// The same at all nodes that choose owners alike; null where all keep everything, and none states
    /// a number.
    id: Option<String>,
    /// Whether this node has offered all that it holds to the owners.
    complete: bool,
    /// Names that two nodes have at the same time.
    conflicts: Vec<String>,
    /// Names of nodes that are gone and own keys still.
    absent: Vec<String>,
}

impl From<PlacementStatus> for PlacementBody {
    fn from(placement: PlacementStatus) -> Self {
        Self {
            replicas: placement.replicas,
            id: (placement.id != 0).then(|| format!("{:016x}", placement.id)),
            complete: placement.is_complete,
            conflicts: placement.conflicts,
            absent: placement.absent,
        }
    }
}

#[derive(Serialize)]
struct RefusedBody {
    address: String,
    code: &'static str,
}

#[derive(Serialize)]
struct SourceBody {
    method: &'static str,
    name: String,
    state: &'static str,
    reason: Option<String>,
}

#[derive(Serialize)]
struct NodeBody {
    id: String,
    /// The name under which it owns keys.
    name: String,
    region: String,
    zone: Option<String>,
    address: Option<String>,
    port: Option<u16>,
    state: &'static str,
    monitored: bool,
    since_ms: u64,
    latency_ms: Option<f64>,
    bytes_max: u64,
    replication_lag_ms: Option<u64>,
    heartbeats: Option<HeartbeatsBody>,
    /// The version of its software; known of this node alone.
    version: Option<&'static str>,
}

#[derive(Serialize)]
struct HeartbeatsBody {
    sent: u64,
    acknowledged: u64,
    answered: u64,
}

#[derive(Serialize)]
struct RegionBody {
    name: String,
    latency_ms: Option<f64>,
}

impl From<NodeStatus> for NodeBody {
    fn from(node: NodeStatus) -> Self {
        Self {
            id: node.id.to_string(),
            name: node.name,
            region: node.region,
            zone: node.zone,
            address: node.address.map(|address| address.ip().to_string()),
            port: node.address.map(|address| address.port()),
            state: match node.state {
                Some(state) => state.as_str(),
                None if node.is_monitored => "unreachable",
                None => "unmonitored",
            },
            monitored: node.is_monitored,
            since_ms: node.since_ms,
            latency_ms: millis(node.latency_us),
            bytes_max: node.bytes_max,
            replication_lag_ms: node.replication_lag_ms,
            heartbeats: node.heartbeats.map(HeartbeatsBody::from),
            version: None,
        }
    }
}

impl From<HeartbeatCounts> for HeartbeatsBody {
    fn from(HeartbeatCounts { sent, acknowledged, answered }: HeartbeatCounts) -> Self {
        Self { sent, acknowledged, answered }
    }
}

impl From<SourceStatus> for SourceBody {
    fn from(source: SourceStatus) -> Self {
        let (state, reason) = (source.state.as_str(), source.state.reason().map(str::to_owned));
        Self { method: source.source.as_str(), name: source.name, state, reason }
    }
}

impl From<RefusedPeer> for RefusedBody {
    fn from(peer: RefusedPeer) -> Self {
        Self { address: peer.address.to_string(), code: peer.code.as_str() }
    }
}

impl From<RegionStatus> for RegionBody {
    fn from(region: RegionStatus) -> Self {
        Self { name: region.name, latency_ms: millis(region.latency_us) }
    }
}

fn millis(micros: Option<u64>) -> Option<f64> {
    micros.map(|micros| micros as f64 / 1_000.0)
}

pub(super) async fn get(
    State(api): State<Api>,
    Extension(caller): Extension<Arc<Caller>>,
) -> Result<Json<ClusterBody>, ApiError> {
    api.permit(&caller, Operation::Connect)?;
    Ok(Json(ClusterBody::new(api.driver.status(), api.driver.sources())))
}

impl ClusterBody {
    pub(super) fn new(snapshot: ClusterStatus, sources: Vec<SourceStatus>) -> Self {
        let mut nodes: Vec<_> = snapshot.nodes.into_iter().map(NodeBody::from).collect();
        if let Some(own) = nodes.first_mut() {
            own.version = Some(VERSION);
        }
        Self {
            cluster: snapshot.cluster,
            software: SOFTWARE,
            drained: snapshot.is_drained,
            wall_ms: clock::now().wall_ms,
            nodes,
            regions: snapshot.regions.into_iter().map(RegionBody::from).collect(),
            placement: snapshot.placement.into(),
            refused: snapshot.refused_by.into_iter().map(RefusedBody::from).collect(),
            address_conflicts: snapshot.address_conflicts,
            discovery: sources.into_iter().map(SourceBody::from).collect(),
        }
    }
}
