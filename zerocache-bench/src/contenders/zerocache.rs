//! Nodes of zerocache, and callers that share one client.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use async_trait::async_trait;
use zerocache_client::{Ack, Status, ZerocacheClient};

use super::{Contender, Kind, http::HttpCaller, keys::Keys};
use crate::args::Settings;
use crate::child_roles;
use crate::data::{Data, TTL_SECONDS};
use crate::measure::{Callers, Driver, Load};
use crate::process::{Process, START_MAX, own_executable};

/// The default cluster of nodes and clients.
const CLUSTER: &str = "zerocache";

/// The region in which the nodes and their client stand.
const REGION: &str = "bench";

/// A running node.
pub struct Node {
    pub process: Process,
    pub address: SocketAddr,
}

impl Node {
    /// Starts a node that finds others by the seed alone, if there is one. With keys it is encrypted.
    pub fn start(
        settings: &Settings,
        threads: usize,
        seed: Option<SocketAddr>,
        keys: Option<&Keys>,
    ) -> Result<Self> {
        let mut args: Vec<OsString> = Vec::new();
        // Another program than ours is a `zerocache-server`, which needs no subcommand.
        let program = match &settings.server {
            Some(path) => path.clone(),
            None => {
                args.push(child_roles::SERVE.into());
                own_executable()?
            }
        };
        let budget = settings.server_bytes.to_string();
        let discovery = if seed.is_some() { "seeds" } else { "none" };
        for arg in ["--region", REGION, "--address", "127.0.0.1", "--port", "0", "--log", "warn"] {
            args.push(arg.into());
        }
        for arg in ["--max-bytes", &budget, "--discovery", discovery] {
            args.push(arg.into());
        }
        if let Some(mode) = &settings.hot_keys_mode {
            args.push("--hot-keys".into());
            args.push(mode.into());
        }
        if let Some(seed) = seed {
            args.push("--seed".into());
            args.push(seed.to_string().into());
        }
        if let Some(keys) = keys {
            args.push("--secret-file".into());
            args.push(keys.file().into());
        }
        let (process, address) = Process::start_and_read_address(
            program.as_os_str(),
            &args,
            threads,
            "zerocache-server listening on ",
        )?;
        Ok(Self { process, address })
    }
}

/// Nodes of one region, and a client that knows them all.
pub struct Cluster {
    nodes: Vec<Node>,
    client: ZerocacheClient,
    ack: Ack,
    keys: Option<Keys>,
}

impl Cluster {
    /// Starts a cluster whose callers write with `ack`.
    pub async fn start(settings: &Settings, kind: Kind, count: usize, ack: Ack) -> Result<Self> {
        let keys = (kind == Kind::ZerocacheTls).then(|| Keys::new(CLUSTER)).transpose()?;
        let mut nodes: Vec<Node> = Vec::new();
        // Several nodes share the cores, as the processes of Redis do: each has one thread, as
        // those.
        let threads = if count > 1 { 1 } else { settings.server_threads };
        for _ in 0..count {
            let seed = nodes.first().map(|node| node.address);
            nodes.push(Node::start(settings, threads, seed, keys.as_ref())?);
        }
        let seed = nodes[0].address.to_string();
        let builder = ZerocacheClient::builder(REGION).mdns(false).seed(seed);
        let client = match &keys {
            Some(keys) => builder.token(keys.token()).build()?,
            None => builder.build()?,
        };
        client.ready(START_MAX).await.context("zerocache is not ready")?;
        let cluster = Self { nodes, client, ack, keys };
        tokio::time::timeout(START_MAX, cluster.joined()).await.context("a full cluster")??;
        Ok(cluster)
    }

    /// Waits until the client knows all nodes, and every write reaches all of them.
    async fn joined(&self) -> Result<()> {
        let mut full_in_a_row = 0;
        // The client rotates through the nodes: each must have accepted a write.
        while self.client.nodes().len() < self.nodes.len() || full_in_a_row < 2 * self.nodes.len() {
            let written = self.client.put("joined", "x", 60).ack(Ack::Region).await?;
            let full = written.replicas as usize == self.nodes.len();
            full_in_a_row = if full { full_in_a_row + 1 } else { 0 };
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }
}

#[async_trait]
impl Contender for Cluster {
    fn servers(&self) -> Vec<u32> {
        self.nodes.iter().map(|node| node.process.id()).collect()
    }

    async fn fault(&self) -> Result<Option<String>> {
        // Encrypted nodes take no plain HTTP. Each write states how many replicas it has.
        let plain = self.nodes.iter().filter(|_| self.keys.is_none());
        for node in plain {
            let mut caller = HttpCaller::connect(node.address).await?;
            let view = caller.request("GET", "/v1/cluster", b"").await?;
            if is_behind(&String::from_utf8_lossy(view)) {
                return Ok(Some(format!("the node at {} gave up writes for a peer", node.address)));
            }
        }
        Ok(None)
    }

    async fn callers(&self, tasks: usize) -> Result<Box<dyn Load>> {
        let replicas = if self.ack == Ack::Local { 1 } else { self.nodes.len() as u32 };
        let caller = Caller { client: self.client.clone(), ack: self.ack, replicas };
        Ok(Box::new(Callers(vec![caller; tasks])))
    }
}

/// Returns whether `/v1/cluster` shows a member that missed a write.
fn is_behind(view: &str) -> bool {
    let mut members = view.split("\"replication_lag_ms\":").skip(1);
    members.any(|rest| !rest.trim_start().starts_with("null"))
}

#[derive(Clone)]
struct Caller {
    client: ZerocacheClient,
    ack: Ack,
    /// The number of replicas that a write must have when it is acknowledged.
    replicas: u32,
}

impl Driver for Caller {
    async fn get(&mut self, data: &Data, key: usize) -> Result<()> {
        let found = self.client.get(data.key(key)).await?.context("a miss")?;
        data.check(key, &found)
    }

    async fn put(&mut self, data: &Data, key: usize) -> Result<()> {
        let put = self.client.put(data.key(key), data.value(key), TTL_SECONDS);
        let written = put.ack(self.ack).await?;
        // Two callers may write one key at once; the one whose version lost has been served too.
        let taken = matches!(written.status, Status::Stored | Status::Superseded);
        ensure!(
            taken && written.replicas >= self.replicas,
            "a write is {} on {} replicas",
            written.status.as_str(),
            written.replicas
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn member_that_missed_a_write_is_detected() {
        assert!(!is_behind(
            r#"{"nodes":[{"replication_lag_ms":null},{"replication_lag_ms": null}]}"#
        ));
        assert!(is_behind(r#"{"nodes":[{"replication_lag_ms":null},{"replication_lag_ms":12}]}"#));
    }
}
