//! Helpers of the examples: a cluster inside the example's own process.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::time::Duration;

use zerocache_client::{ClientBuilder, ZerocacheClient};
use zerocache_server::config::{DiscoverySet, Interface, ServerConfig};
use zerocache_server::{EmbeddedNode, RunError};

/// The longest time until a node is in sync.
const READY_MAX: Duration = Duration::from_secs(10);

/// The byte budget of each node: modest, since all of them share one process.
const NODE_BYTES_MAX: u64 = 16 << 20;

/// Connections that each node takes at once.
const NODE_CONNECTIONS_MAX: usize = 256;

/// Nodes in this process, on loopback, with free ports.
///
/// Every node has a loopback address of its own where the system has more than 127.0.0.1. They find
/// each other through the first one, or by mDNS on the loopback interface.
pub struct EmbeddedCluster {
    name: String,
    mdns: bool,
    seed: Option<SocketAddr>,
    started: u8,
}

impl EmbeddedCluster {
    /// A cluster without nodes, named so that it meets no other one on this machine.
    #[must_use]
    pub fn new(example: &str, mdns: bool) -> Self {
        let name = format!("{example}-{}", std::process::id());
        Self { name, mdns, seed: None, started: 0 }
    }

    /// Starts a node in `region` and waits until it is in sync.
    ///
    /// # Errors
    /// If the node cannot start.
    pub fn start_node(&mut self, region: &str) -> Result<EmbeddedNode, RunError> {
        self.started += 1;
        let mut config = ServerConfig::new(region);
        config.cluster.clone_from(&self.name);
        config.addresses = vec![loopback_address(self.started + 1)];
        config.port = 0;
        config.max_bytes = NODE_BYTES_MAX;
        config.max_connections = NODE_CONNECTIONS_MAX;
        config.discovery = DiscoverySet { mdns: self.mdns, dns: false, seeds: !self.mdns };
        config.mdns_interface = Some(Interface::Name("lo".to_owned()));
        if let Some(seed) = self.seed.and_then(|seed| seed.try_into().ok()) {
            config.seeds = vec![seed];
        }
        let node = EmbeddedNode::start(config, READY_MAX)?;
        self.seed.get_or_insert(node.address());
        Ok(node)
    }

    /// A builder of a client in `region` that finds this cluster as its nodes find each other.
    pub fn client(&self, region: &str) -> ClientBuilder {
        let builder = ZerocacheClient::builder(region).cluster(&self.name).mdns(self.mdns);
        match self.seed {
            Some(seed) if !self.mdns => builder.seed(seed.to_string()),
            _ => builder.mdns_interface("lo"),
        }
    }
}

/// 127.0.0.`n` where that can be used, else 127.0.0.1: nodes then differ by their ports alone.
fn loopback_address(n: u8) -> IpAddr {
    let own = IpAddr::V4(Ipv4Addr::new(127, 0, 0, n));
    let usable = TcpListener::bind((own, 0)).is_ok();
    if usable { own } else { IpAddr::V4(Ipv4Addr::LOCALHOST) }
}
