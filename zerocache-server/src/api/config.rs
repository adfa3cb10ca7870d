//! `/v1/config`: the settings of this node in which nodes of one cluster should agree, and what they led to. No
//! paths of files, no names of tokens.

use std::{net::SocketAddr, sync::Arc};

use axum::{Extension, Json, extract::State};
use serde::Serialize;
use zerocache_core::{access::Operation, wire::features};

use super::{Api, error::ApiError};
use crate::{access::Caller, config::ServerConfig};

/// The settings of this node.
#[derive(Clone, Debug, Serialize)]
pub struct ConfigBody {
    /// `protected`, `insecure`, `secret` or `certificates`.
    access: &'static str,
    tls: &'static str,
    /// The address on which it listens, the port that was chosen included.
    listen: SocketAddr,
    connections: &'static str,
    /// The foreign protocol that it serves.
    compat: Option<&'static str>,
    /// The sources of addresses in use.
    discovery: Vec<&'static str>,
    max_bytes: u64,
    max_entries: Option<usize>,
    eviction: &'static str,
    /// The name that was stated.
    node_name: Option<String>,
    /// How many nodes are to keep a value; null for all.
    replicas: Option<u64>,
    /// The size of the disk tier; null without one.
    disk_bytes: Option<u64>,
    disk_min_value: Option<u64>,
    disk_admit: Option<&'static str>,
    max_key_bytes: usize,
    /// None where the limit follows from the byte budget.
    max_value_bytes: Option<u64>,
    /// What was asked for.
    max_connections: usize,
    /// What the limit of open files permits of it.
    connections_max: usize,
    /// What it offers to other nodes.
    features: Vec<&'static str>,
}

impl ConfigBody {
    /// The settings of a node that listens at `listen`, takes `connections_max` connections, and offers these
    /// [features].
    #[must_use]
    pub fn new(
        config: &ServerConfig,
        tls: &'static str,
        listen: SocketAddr,
        (connections_max, offered): (usize, u64),
    ) -> Self {
        let set = config.discovery;
        let sources = [
            ("mdns", set.mdns),
            ("dns", set.dns && !config.dns.is_empty()),
            ("seeds", set.seeds && !config.seeds.is_empty()),
        ];
        let used = |sources: &[(&'static str, bool)]| {
            sources.iter().filter(|(_, is_used)| *is_used).map(|(name, _)| *name).collect()
        };
        let features = features::NAMES.map(|(bit, name)| (name, offered & bit != 0));
        Self {
            access: config.level().as_str(),
            tls,
            listen,
            connections: config.connections.as_str(),
            compat: config.compat.map(|compat| compat.as_str()),
            discovery: used(&sources),
            max_bytes: config.max_bytes,
            max_entries: config.max_entries,
            eviction: config.eviction.as_str(),
            node_name: config.node_name.clone(),
            replicas: Some(config.replicas.to_number()).filter(|replicas| *replicas > 0),
            disk_bytes: config.disk.as_ref().map(|disk| disk.bytes_max),
            disk_min_value: config.disk.as_ref().map(|disk| disk.value_bytes_min),
            disk_admit: config.disk.as_ref().map(|disk| disk.admission.as_str()),
            max_key_bytes: config.max_key_bytes,
            max_value_bytes: config.max_value_bytes,
            max_connections: config.max_connections,
            connections_max,
            features: used(&features),
        }
    }
}

pub(super) async fn get(
    State(api): State<Api>,
    Extension(caller): Extension<Arc<Caller>>,
) -> Result<Json<ConfigBody>, ApiError> {
    api.permit(&caller, Operation::Monitor)?;
    Ok(Json(ConfigBody::clone(&api.config)))
}
