//! Several server processes that know each other.

use std::collections::BTreeSet;
use std::ops::{Index, IndexMut};

use zerocache_client::{ClientBuilder, ZerocacheClient};

use crate::http::Answer;
use crate::node::Node;
use crate::poll::{PATIENCE, until_true};
use crate::security::Keys;
use crate::setup::Setup;
use crate::transport;

/// A round trip on this machine is shorter, in milliseconds.
const NEAR_MS: f64 = 50.0;

/// Nodes that know each other. Indexed in the order in which they were asked for.
#[derive(Debug)]
pub struct Cluster {
    /// All of them, the ended ones too.
    pub nodes: Vec<Node>,
}

impl Cluster {
    /// Starts nodes in these regions, as many as are named, all with one seed, and waits until each
    /// knows all.
    ///
    /// # Panics
    ///
    /// If that does not happen within [`PATIENCE`].
    #[must_use]
    pub fn start(regions: &[&str]) -> Self {
        Self::start_with(regions, |setup| setup)
    }

    /// Does what [`start`](Self::start) does, with nodes that `change` has changed.
    ///
    /// # Panics
    ///
    /// As [`start`](Self::start) does.
    #[must_use]
    pub fn start_with(regions: &[&str], change: impl Fn(Setup) -> Setup) -> Self {
        let mut nodes: Vec<Node> = Vec::new();
        for region in regions {
            let setup = change(Setup::new(region));
            let seed = nodes.first().map(Node::address);
            let setup = seed.into_iter().fold(setup, |setup, seed| setup.flag("--seed", seed));
            nodes.push(setup.start());
        }
        let cluster = Self { nodes };
        cluster.wait_until_joined();
        cluster
    }

    /// Waits until all nodes measure short round trips to each other: the first ones include the work of a start.
    ///
    /// # Panics
    ///
    /// If that does not happen within [`PATIENCE`].
    pub fn wait_until_near(&self) {
        until_true("short round trips", || {
            self.nodes.iter().all(|node| {
                let view = node.http("GET", "/v1/cluster", b"").json();
                let nodes = view["nodes"].as_array().cloned().unwrap_or_default();
                let latencies = nodes.iter().filter_map(|node| node["latency_ms"].as_f64());
                latencies.fold(0.0, f64::max) < NEAR_MS
            })
        });
    }

    /// Waits until each running node is ready and knows exactly the running nodes.
    ///
    /// # Panics
    ///
    /// If that does not happen within [`PATIENCE`].
    pub fn wait_until_joined(&self) {
        let all: BTreeSet<_> = self.nodes.iter().map(|node| node.address()).collect();
        let own = |node: &Node| node.incarnations().into_iter().next();
        let incarnations: BTreeSet<_> = self.nodes.iter().filter_map(own).collect();
        for node in &self.nodes {
            until_true(&format!("the view of the node at {}", node.address()), || {
                let view = node.cluster();
                view.iter().map(|(address, _)| *address).collect::<BTreeSet<_>>() == all
                    && view.iter().all(|(_, state)| state == "in-sync")
                    && node.incarnations().into_iter().collect::<BTreeSet<_>>() == incarnations
                    && node.is_ready()
            });
        }
    }

    /// A client of `region` that knows every node and is ready.
    ///
    /// # Panics
    ///
    /// If that does not happen within [`PATIENCE`].
    #[must_use]
    pub fn client(&self, region: &str) -> ZerocacheClient {
        self.client_with(region, |builder| builder)
    }

    /// Does what [`client`](Self::client) does, with settings that `change` has changed.
    ///
    /// # Panics
    ///
    /// As [`client`](Self::client) does.
    #[must_use]
    pub fn client_with(
        &self,
        region: &str,
        change: impl FnOnce(ClientBuilder) -> ClientBuilder,
    ) -> ZerocacheClient {
        let builder = builder(region).mdns(false).seed(self.nodes[0].address().to_string());
        let client = change(builder).build().expect("a client");
        client.wait_ready(PATIENCE).expect("a node in sync");
        until_true("a client that knows all nodes", || {
            let known = client.nodes();
            known.len() == self.nodes.len() && known.iter().all(|node| node.in_rotation)
        });
        client
    }

    /// Waits until `good` accepts the answer of every running node to a read of `key`.
    ///
    /// # Panics
    ///
    /// If that does not happen within [`PATIENCE`].
    pub fn everywhere(&self, key: &[u8], good: impl Fn(&Answer) -> bool) {
        for node in self.nodes.iter().filter(|node| !node.is_frozen()) {
            let what = format!("{} at {} ({})", key.escape_ascii(), node.address(), node.region());
            until_true(&what, || good(&node.get(key)));
        }
    }
}

/// The builder of a client of `region` that talks to nodes as this test run wants it.
pub fn builder(region: &str) -> ClientBuilder {
    authorized(region, Keys::of_this_run())
}

/// Does what [`builder`] does, for a client of another cluster than the default one.
pub fn builder_of(region: &str, cluster: &str) -> ClientBuilder {
    let keys = Keys::of_this_run().map(|keys| keys.of_cluster(cluster));
    authorized(region, keys).cluster(cluster)
}

fn authorized(region: &str, keys: Option<Keys>) -> ClientBuilder {
    let builder = ZerocacheClient::builder(region).connections(transport::connections());
    match keys {
        Some(keys) => builder.token(keys.admin()),
        None => builder,
    }
}

impl Index<usize> for Cluster {
    type Output = Node;

    fn index(&self, at: usize) -> &Node {
        &self.nodes[at]
    }
}

impl IndexMut<usize> for Cluster {
    fn index_mut(&mut self, at: usize) -> &mut Node {
        &mut self.nodes[at]
    }
}
