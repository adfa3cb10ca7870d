//! A node in this process, for what is measured from the client's side.

use std::time::Duration;

use zerocache_client::{ClientBuilder, ZerocacheClient};
use zerocache_server::{
    EmbeddedNode,
    config::{DiscoverySet, ServerConfig},
};

/// The node of a cluster, on a free port of the loopback device.
pub fn start(cluster: &str) -> EmbeddedNode {
    let mut config = ServerConfig::new("london");
    config.cluster = cluster.to_owned();
    config.addresses = vec![[127, 0, 0, 1].into()];
    config.port = 0;
    config.max_bytes = 64 << 20;
    config.discovery = DiscoverySet::NONE;
    EmbeddedNode::start(config, Duration::from_secs(10)).expect("a node on a free port")
}

/// A client that knows this node alone.
pub fn client(node: &EmbeddedNode, cluster: &str) -> ClientBuilder {
    ZerocacheClient::builder("london").cluster(cluster).mdns(false).seed(node.address().to_string())
}
