//! The settings of the state machine, derived from the configuration.

use std::net::SocketAddr;

use zerocache_core::{
    limits::Limits,
    node::NodeConfig,
    version::Incarnation,
    wire::{NodeInfo, NodeState, features},
};
use zerocache_net::discovery::Announcement;

use super::RunError;
use crate::{
    config::{ConfigError, ServerConfig},
    disk::DiskTier,
    snapshot,
};

/// The queue of one peer may take 1/16 of the byte budget, within the bounds below.
const OUTBOX_SHARE: u64 = 16;
const OUTBOX_BYTES_MIN: u64 = 16 << 20;
const OUTBOX_BYTES_MAX: u64 = 64 << 20;

/// Checks that a snapshot can be written at the end of the node: later nobody could correct the path.
pub(super) fn check_snapshot(config: &ServerConfig) -> Result<(), ConfigError> {
    let Some(path) = &config.snapshot else { return Ok(()) };
    snapshot::check_writable(path).map_err(|error| {
        let path = path.display();
        let reason = format!(
            "cannot write to {path}: {error}; use a file in a directory that exists and is writable"
        );
        ConfigError::new("snapshot", reason)
    })
}

/// Returns the disk tier of a node that has one, with its directory taken.
pub(super) fn disk_tier(config: &ServerConfig) -> Result<Option<DiskTier>, RunError> {
    let Some(disk) = &config.disk else { return Ok(None) };
    Ok(Some(DiskTier::prepare(disk, &config.cluster, getrandom::u64()?)?))
}

/// Returns the settings of a node that announces itself as `announcement`, with a new secret.
pub(super) fn node_config(
    config: &ServerConfig,
    announcement: &Announcement,
) -> Result<NodeConfig, getrandom::Error> {
    let ips = announcement.addresses.iter();
    let addresses = ips.map(|ip| SocketAddr::new(*ip, announcement.port)).collect();
    let outbox = (config.max_bytes / OUTBOX_SHARE).clamp(OUTBOX_BYTES_MIN, OUTBOX_BYTES_MAX);
    let value_bytes_max = usize::try_from(config.value_bytes_max()).unwrap_or(usize::MAX);
    let mut secret = [0; 32];
    getrandom::fill(&mut secret)?;
    Ok(NodeConfig {
        cluster: config.cluster.clone(),
        info: NodeInfo {
            incarnation: Incarnation(announcement.incarnation),
            region: config.region.clone(),
            zone: config.zone.clone(),
            addresses,
            state: NodeState::Warming,
            bytes_max: config.max_bytes + config.disk.as_ref().map_or(0, |disk| disk.bytes_max),
            name: config.node_name.clone(),
            replicas: config.replicas,
        },
        limits: Limits {
            key_bytes_max: config.max_key_bytes,
            value_bytes_max: Limits::value_bytes_within(value_bytes_max, config.max_bytes),
        },
        warm_max_ms: config.warm_max.as_millis() as u64,
        outbox_bytes_max: outbox as usize,
        changes_every_ms: NodeConfig::CHANGES_EVERY_MS,
        hot_forwards_per_s: NodeConfig::HOT_FORWARDS_PER_S,
        features: features::ALL,
        requires_tls: false,
        has_snapshot: false,
        secret,
    })
}
