//! One process of the service.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use anyhow::{Context, Result};
use tokio::net::TcpListener;
use zerocache_client::ZerocacheClient;

use crate::api;
use crate::database::Database;
use crate::processes;
use crate::queries::Shop;

/// The arguments of a process of the service.
#[derive(Clone, Debug, clap::Args)]
pub struct ServiceArgs {
    /// The region of the process.
    #[arg(long)]
    pub region: String,
    /// The name of the cluster of cache nodes.
    #[arg(long)]
    pub cluster: String,
    /// A cache node to ask first; repeatable.
    #[arg(long = "seed")]
    pub seeds: Vec<SocketAddr>,
    /// The file of the database.
    #[arg(long)]
    pub database: PathBuf,
}

/// Serves the shop on a free port of loopback until standard input ends.
///
/// # Errors
/// If the service cannot start.
pub async fn run(args: ServiceArgs) -> Result<()> {
    let cache = ZerocacheClient::builder(&args.region)
        .cluster(&args.cluster)
        // Other services of the same cluster may have crates and functions of the same names.
        .namespace("shop")
        .mdns(false)
        .seeds(args.seeds.iter().map(SocketAddr::to_string));
    let database = Database::open(&args.database).await.context("the database")?;
    // Nothing waits for the cache: without it the service is slower, not down.
    let shop = Shop { database, cache: cache.build()? };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    processes::say_listening(listener.local_addr()?)?;
    axum::serve(listener, api::router(shop)).await?;
    Ok(())
}
