//! A deployment: a database, and cache nodes and services in every region.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::api::Counters;
use crate::database::Database;
use crate::processes::{Process, loopback_address};
use crate::stock::{self, Stock};

/// The regions of nodes and services.
pub const REGIONS: [&str; 2] = ["london", "sydney"];

/// The longest time until every service can use every node.
const JOINED_MAX: Duration = Duration::from_secs(30);

/// The size of a deployment.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Size {
    /// Cache nodes in each region.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=16))]
    pub nodes: u8,
    /// Processes of the service in each region.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=16))]
    pub services: u8,
    /// The rows.
    #[command(flatten)]
    pub stock: Stock,
}

/// A running deployment. Dropping it ends every process and then removes the database.
#[derive(Debug)]
pub struct Deployment {
    /// The cache nodes that have not been killed.
    pub nodes: Vec<Process>,
    /// The services.
    pub services: Vec<Process>,
    http: reqwest::Client,
    _directory: TempDir,
}

impl Deployment {
    /// Starts everything, with `program` as the program of every process, and waits until all know
    /// each other.
    ///
    /// # Errors
    /// If a process does not start, or does not find the others in time.
    pub async fn start(program: &Path, size: Size) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("zerocache-shop-").tempdir()?;
        let path = directory.path().join("shop.sqlite");
        stock::fill(&Database::open(&path).await?, size.stock).await.context("the database")?;
        let mut deployment = Self {
            nodes: Vec::new(),
            services: Vec::new(),
            http: reqwest::Client::builder().timeout(JOINED_MAX).build()?,
            _directory: directory,
        };
        // Nodes with the same cluster name form a cluster: a unique name keeps this one apart.
        let cluster = format!("shop-{}", std::process::id());
        deployment.start_nodes(program, &cluster, size.nodes).await?;
        deployment.start_services(program, &cluster, &path, size.services).await?;
        let joined = tokio::time::timeout(JOINED_MAX, deployment.wait_until_joined());
        joined.await.context("not every service found every node")??;
        Ok(deployment)
    }

    async fn start_nodes(&mut self, program: &Path, cluster: &str, count: u8) -> Result<()> {
        for region in REGIONS {
            for _ in 0..count {
                let address = loopback_address(self.nodes.len() as u8 + 2);
                let mut args = vec!["node".to_owned(), format!("--address={address}")];
                args.extend([format!("--region={region}"), format!("--cluster={cluster}")]);
                args.extend(self.nodes.first().map(|node| format!("--seed={}", node.address)));
                let node = Process::start(program, region, args).await;
                self.nodes.push(node.with_context(|| format!("a node in {region}"))?);
            }
        }
        Ok(())
    }

    async fn start_services(
        &mut self,
        program: &Path,
        cluster: &str,
        database: &Path,
        count: u8,
    ) -> Result<()> {
        for region in REGIONS {
            let local = self.nodes.iter().filter(|node| node.region == region);
            let seeds: Vec<_> = local.map(|node| format!("--seed={}", node.address)).collect();
            for _ in 0..count {
                let mut args = vec!["service".to_owned(), format!("--region={region}")];
                args.extend([format!("--cluster={cluster}"), "--database".to_owned()]);
                args.push(database.to_str().context("a path that is no text")?.to_owned());
                args.extend(seeds.iter().cloned());
                let service = Process::start(program, region, args).await;
                self.services.push(service.with_context(|| format!("a service in {region}"))?);
            }
        }
        Ok(())
    }

    async fn wait_until_joined(&self) -> Result<()> {
        for service in &self.services {
            while self.counters_of(service.address).await?.nodes < self.nodes.len() as u64 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        Ok(())
    }

    /// Returns the first remaining node of a region, to be killed.
    ///
    /// # Errors
    /// If no node is left.
    pub fn take_node(&mut self, region: &str) -> Result<Process> {
        let at = self.nodes.iter().position(|node| node.region == region);
        Ok(self.nodes.remove(at.with_context(|| format!("no node is left in {region}"))?))
    }

    /// Returns the addresses of the services, by region.
    #[must_use]
    pub fn services_by_region(&self) -> Vec<Vec<SocketAddr>> {
        let of = |region| self.services.iter().filter(move |service| service.region == region);
        REGIONS.map(|region| of(region).map(|service| service.address).collect()).to_vec()
    }

    /// Returns the sum of the counters of all services.
    ///
    /// # Errors
    /// If a service does not answer.
    pub async fn counters(&self) -> Result<Counters> {
        let mut sum = Counters::default();
        for service in &self.services {
            sum = sum.plus(self.counters_of(service.address).await?);
        }
        Ok(sum)
    }

    async fn counters_of(&self, service: SocketAddr) -> Result<Counters> {
        let answer = self.http.get(format!("http://{service}/counters")).send().await?;
        Ok(serde_json::from_slice(&answer.bytes().await?)?)
    }
}
