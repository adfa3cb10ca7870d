//! Nodes and processes of the service.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use tokio::task::JoinSet;
use tokio::time::timeout;
use zerocache_client::ZerocacheClient;
use zerocache_server::RunningNode;
use zerocache_server::config::{DiscoverySet, EvictionPolicy, ServerConfig};

use super::load;
use super::origin::Origin;
use super::processes::Process;
use super::report::progress;
use crate::run::LISTENING;

/// The longest wait until all know each other.
const JOINED_MAX: Duration = Duration::from_secs(20);

/// The longest time until a node is in sync.
const READY_MAX: Duration = Duration::from_secs(10);

/// The key of gateways and workers, and of purges.
pub(super) const KEY: &str = "the key of a demonstration";

/// The arguments of a node of a demonstration.
#[derive(Clone, Debug, Args)]
pub struct NodeArgs {
    /// The region.
    #[arg(long)]
    region: String,
    /// The cluster.
    #[arg(long)]
    cluster: String,
    /// The address; the port is a free one.
    #[arg(long)]
    address: IpAddr,
    /// Another node.
    #[arg(long)]
    seed: Option<SocketAddr>,
    /// The most entries.
    #[arg(long)]
    max_entries: Option<usize>,
    /// The most bytes.
    #[arg(long, default_value = "268435456")]
    max_bytes: u64,
    /// Evicts exactly by access.
    #[arg(long)]
    lru: bool,
}

/// Runs a node until its parent ends.
///
/// # Errors
/// If it cannot start.
pub async fn node(args: NodeArgs) -> Result<()> {
    let mut config = ServerConfig::new(args.region);
    config.cluster = args.cluster;
    config.addresses = vec![args.address];
    config.port = 0;
    config.discovery = DiscoverySet::SEEDS;
    config.max_entries = args.max_entries;
    config.max_bytes = args.max_bytes;
    if args.lru {
        config.eviction = EvictionPolicy::Lru;
    }
    if let Some(seed) = args.seed {
        config.seeds.push(seed.try_into()?);
    }
    let node = RunningNode::start(config).await?;
    anyhow::ensure!(node.ready(READY_MAX).await, "the node is not in sync");
    println!("{LISTENING}{}", node.listen_address());
    std::future::pending().await
}

/// A cluster, and processes of the service that use it.
pub(super) struct Deployment {
    program: PathBuf,
    cluster: String,
    /// The nodes, with their regions.
    pub(super) nodes: Vec<(&'static str, Process)>,
    pub(super) http: reqwest::Client,
}

impl Deployment {
    /// Starts nodes: one for each region named, with further flags.
    pub(super) async fn start(
        program: &std::path::Path,
        regions: &[&'static str],
        flags: &[&str],
    ) -> Result<Self> {
        // Nodes with the same cluster name form a cluster: a name of its own keeps this one apart.
        let unique = crate::clock::now().elapsed().as_nanos() ^ u128::from(std::process::id());
        let http =
            reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(60)).build()?;
        let cluster = format!("images-{}-{unique}", std::process::id());
        let mut deployment = Self { program: program.to_owned(), cluster, nodes: Vec::new(), http };
        let mut starting = JoinSet::new();
        for (number, region) in regions.iter().enumerate() {
            if number == 0 {
                // The seed of all others, which start together.
                deployment.add_node(region, flags).await?;
            } else {
                let start = deployment.node(region, number, flags);
                starting.spawn(async move { start.await.map(|node| (number, node)) });
            }
        }
        let mut started = starting.join_all().await.into_iter().collect::<Result<Vec<_>>>()?;
        started.sort_by_key(|(number, _)| *number);
        deployment.nodes.extend(started.into_iter().map(|(_, node)| node));
        progress(&format!("{} nodes run", regions.len()));
        Ok(deployment)
    }

    pub(super) async fn add_node(&mut self, region: &'static str, flags: &[&str]) -> Result<()> {
        let node = self.node(region, self.nodes.len() + 1, flags).await?;
        self.nodes.push(node);
        Ok(())
    }

    fn node(
        &self,
        region: &'static str,
        number: usize,
        flags: &[&str],
    ) -> impl Future<Output = Result<(&'static str, Process)>> + Send + use<> {
        let address = loopback_address(number as u8 + 2);
        let mut args = vec!["node".to_owned(), format!("--address={address}")];
        args.extend([format!("--region={region}"), format!("--cluster={}", self.cluster)]);
        args.extend(self.nodes.first().map(|(_, node)| format!("--seed={}", node.address)));
        args.extend(flags.iter().map(|flag| (*flag).to_owned()));
        let program = self.program.clone();
        async move { Ok((region, Process::start(&program, &args, &[]).await.context("a node")?)) }
    }

    /// Starts a process of the service, with further flags.
    pub(super) async fn serve(&self, region: &str, flags: &[&str]) -> Result<Process> {
        let base =
            ["serve", "--end-with-parent", "--listen=127.0.0.1:0", "--allow-networks=127.0.0.0/8"];
        let mut args: Vec<_> = base.iter().chain(flags).map(|arg| (*arg).to_owned()).collect();
        args.push("--allow-ports=1-65535".to_owned());
        let seeds = self.nodes.iter().filter(|(of, _)| *of == region);
        let seeds: Vec<_> = seeds.map(|(_, node)| node.address.to_string()).collect();
        let mut variables = vec![
            ("ZEROCACHE_REGION", region.to_owned()),
            ("ZEROCACHE_CLUSTER", self.cluster.clone()),
            ("ZEROCACHE_DISCOVERY", "seeds".to_owned()),
            ("ZEROCACHE_SEED", seeds.join(",")),
            ("IMAGES_PURGE_KEY", KEY.to_owned()),
        ];
        let is_alone = !flags.iter().any(|flag| flag.starts_with("--role="));
        if !is_alone {
            variables.push(("IMAGES_WORKER_KEY", KEY.to_owned()));
        }
        let process =
            Process::start(&self.program, &args, &variables).await.context("a process")?;
        let nodes = self.nodes.len() as u64;
        self.wait_for(process.address, "images_cache_nodes", nodes).await?;
        Ok(process)
    }

    /// Waits until a process counts so many.
    pub(super) async fn wait_for(
        &self,
        process: SocketAddr,
        metric: &str,
        count: u64,
    ) -> Result<()> {
        let seen = async {
            while load::metric(&self.http, process, metric).await? != count {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            anyhow::Ok(())
        };
        timeout(JOINED_MAX, seen).await.with_context(|| format!("{metric} is not {count}"))?
    }

    /// A client of this process, with one node as its seed.
    pub(super) async fn client(&self, node: usize) -> Result<ZerocacheClient> {
        let (region, node) = self.nodes.get(node).context("no such node")?;
        let builder = ZerocacheClient::builder(region).mdns(false).cluster(&self.cluster);
        let client = builder.seed(node.address.to_string()).build()?;
        client.ready(READY_MAX).await?;
        let all_known = async {
            while client.nodes().iter().filter(|node| node.in_rotation).count() < self.nodes.len() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(JOINED_MAX, all_known).await.context("a client does not know all nodes")?;
        Ok(client)
    }

    /// The sum of a counter over processes.
    pub(super) async fn sum(&self, processes: &[Process], metric: &str) -> Result<u64> {
        let mut sum = 0;
        for process in processes {
            sum += load::metric(&self.http, process.address, metric).await?;
        }
        Ok(sum)
    }
}

/// The URL of an image of the origin, at a process.
pub(super) fn image(process: SocketAddr, origin: &Origin, number: usize, params: &str) -> String {
    let url = origin.url(number);
    let url: String = url::form_urlencoded::byte_serialize(url.as_bytes()).collect();
    format!("http://{process}/image?url={url}&{params}")
}

/// 127.0.0.`n` where that can be used, else 127.0.0.1: nodes then differ by their ports alone.
fn loopback_address(n: u8) -> IpAddr {
    let own = IpAddr::V4(Ipv4Addr::new(127, 0, 0, n));
    if TcpListener::bind((own, 0)).is_ok() { own } else { IpAddr::V4(Ipv4Addr::LOCALHOST) }
}
