//! `images serve`: a process of the service, with its client of the cache and perhaps a node.

use std::io::Write;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};
use zerocache_client::ZerocacheClient;
use zerocache_server::EmbeddedNode;
use zerocache_server::config::{EarlyExit, Invocation};

use crate::service::Service;
use crate::settings::{Secrets, ServeArgs};

/// The region if nobody names one.
const REGION_DEFAULT: &str = "local";

/// The longest wait for a node at the start. The service begins without one, too.
const READY_MAX: Duration = Duration::from_secs(5);

/// The text before the address on standard output.
pub const LISTENING: &str = "images listening on ";

/// Runs a process of the service until a signal ends it.
///
/// # Errors
/// If it cannot start.
pub async fn serve(args: ServeArgs) -> Result<()> {
    let secrets = Secrets::read(&args, variable)?;
    let region = args.region.clone().or_else(|| variable("ZEROCACHE_REGION"));
    let region = region.unwrap_or_else(|| REGION_DEFAULT.to_owned());
    let node = match args.embedded_node {
        true => Some(embedded_node(&region).await?),
        false => None,
    };
    let own = node.as_ref().map(|node| node.address().to_string());
    let builder = ZerocacheClient::builder_from_variables(&region, |name| match (name, &own) {
        // The node in this process is the way to all others, however it finds them.
        ("ZEROCACHE_DISCOVERY", Some(_)) => Some("seeds".to_owned()),
        ("ZEROCACHE_SEED", Some(own)) => Some(own.clone()),
        ("ZEROCACHE_DNS", Some(_)) => None,
        (name, _) => variable(name),
    });
    let builder = builder?.near_bytes(args.near_bytes);
    let cache = builder.build()?;
    if let Err(error) = cache.ready(READY_MAX).await {
        tracing::warn!(%error, "no node of the cache is known; images are made until there is one");
    }
    let service = Service::start(args, secrets, cache).await?;
    say_listening(&service)?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    tracing::info!("shutting down");
    service.shutdown().await;
    if let Some(node) = node {
        tokio::task::spawn_blocking(|| node.shutdown()).await?;
    }
    Ok(())
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

async fn embedded_node(region: &str) -> Result<EmbeddedNode> {
    let argv = vec!["zerocache-server".into(), format!("--region={region}").into()];
    let invocation = Invocation::with_environment(argv).map_err(|exit| match exit {
        EarlyExit::Info(text) | EarlyExit::UsageError(text) => anyhow::anyhow!(text),
    })?;
    let start = || EmbeddedNode::start(invocation.server, READY_MAX);
    let node = tokio::task::spawn_blocking(start).await?.context("the embedded node")?;
    tracing::info!(address = %node.address(), region, "embedded node serves");
    Ok(node)
}

fn say_listening(service: &Service) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{LISTENING}{}", service.address())?;
    Ok(out.flush()?)
}
