//! One cache node as a process: a `zerocache-server` that finds others by seeds alone.

use std::future;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::Result;
use zerocache_server::RunningNode;
use zerocache_server::config::{DiscoverySet, ServerConfig};

use crate::processes;

/// The longest time until a node is in sync.
const READY_MAX: Duration = Duration::from_secs(10);

/// The byte budget of a node: far more than the shop needs.
const BYTES_MAX: u64 = 64 << 20;

/// The arguments of a node.
#[derive(Clone, Debug, clap::Args)]
pub struct NodeArgs {
    /// The region of the node.
    #[arg(long)]
    pub region: String,
    /// The name of the cluster.
    #[arg(long)]
    pub cluster: String,
    /// The address of the node; the port is a free one.
    #[arg(long)]
    pub address: IpAddr,
    /// Another node; repeatable.
    #[arg(long = "seed")]
    pub seeds: Vec<SocketAddr>,
}

/// Runs a node until standard input ends.
///
/// # Errors
/// If the node cannot start.
pub async fn run(args: NodeArgs) -> Result<()> {
    let mut config = ServerConfig::new(args.region);
    config.cluster = args.cluster;
    config.addresses = vec![args.address];
    config.port = 0;
    config.max_bytes = BYTES_MAX;
    config.discovery = DiscoverySet::SEEDS;
    for seed in args.seeds {
        config.seeds.push(seed.try_into()?);
    }
    let node = RunningNode::start(config).await?;
    anyhow::ensure!(node.ready(READY_MAX).await, "the node is not in sync");
    processes::say_listening(node.listen_address())?;
    future::pending().await
}
