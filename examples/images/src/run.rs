//! `images serve`: a process of the service, with its client of the cache and perhaps a node.

use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use zerocache_client::ZerocacheClient;
use zerocache_server::access::Level;
use zerocache_server::config::{EarlyExit, Invocation, ServerConfig};
use zerocache_server::{EmbeddedNode, RunError};

use crate::parts::Parts;
use crate::service::Service;
use crate::settings::{Secrets, ServeArgs};

/// The region if nobody names one.
const REGION_DEFAULT: &str = "local";

/// The longest wait for a node at the start. The service begins without one, too.
const READY_MAX: Duration = Duration::from_secs(5);

/// The text before the address on standard output.
pub const LISTENING: &str = "images listening on ";

/// The reason for which a process does not start.
#[derive(Debug)]
pub enum ServeError {
    /// A setting is wrong.
    Config(anyhow::Error),
    /// The system refuses something.
    Failed(anyhow::Error),
}

impl From<anyhow::Error> for ServeError {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}

impl From<io::Error> for ServeError {
    fn from(error: io::Error) -> Self {
        Self::Failed(error.into())
    }
}

/// Runs a process of the service until a signal ends it. Its settings are checked before it waits for anything.
///
/// # Errors
/// If it cannot start.
pub async fn serve(args: ServeArgs) -> Result<(), ServeError> {
    let secrets = Secrets::read(&args, variable).map_err(ServeError::Config)?;
    let parts = Parts::new(&args, &secrets).map_err(ServeError::Config)?;
    let region = args.region.clone().or_else(|| variable("ZEROCACHE_REGION"));
    let region = region.unwrap_or_else(|| REGION_DEFAULT.to_owned());
    let node = if args.embedded_node { Some(node_config(&region)?) } else { None };
    let listener = Service::listen(&args).await?;
    let node = match node {
        Some(config) => Some(start_node(config).await?),
        None => None,
    };
    let cache =
        cache(&args, &region, node.as_ref()).map_err(|error| ServeError::Config(error.into()))?;
    if let Err(error) = cache.ready(READY_MAX).await {
        tracing::warn!(%error, "no node of the cache is known; images are made until there is one");
    }
    let service = Service::start_with(args, parts, listener, cache)?;
    say_listening(&service)?;
    ended().await?;
    tracing::info!("shutting down");
    service.shutdown().await;
    if let Some(node) = node {
        let ended = tokio::task::spawn_blocking(|| node.shutdown()).await;
        ended.map_err(anyhow::Error::from)?;
    }
    Ok(())
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Returns a client of the cache, with the node in this process as its way to all others, however that finds them.
fn cache(
    args: &ServeArgs,
    region: &str,
    node: Option<&EmbeddedNode>,
) -> Result<ZerocacheClient, zerocache_client::Error> {
    let own = node.map(|node| node.address().to_string());
    let builder = ZerocacheClient::builder_from_variables(region, |name| match (name, &own) {
        ("ZEROCACHE_DISCOVERY", Some(_)) => Some("seeds".to_owned()),
        ("ZEROCACHE_SEED", Some(own)) => Some(own.clone()),
        ("ZEROCACHE_DNS", Some(_)) => None,
        (name, _) => variable(name),
    });
    builder?.near_bytes(args.near_bytes).build()
}

/// Returns the settings of the node in this process. One that serves its own host alone listens on loopback alone,
/// unless variables say where.
fn node_config(region: &str) -> Result<ServerConfig, ServeError> {
    let argv = vec!["zerocache-server".into(), format!("--region={region}").into()];
    let invocation = Invocation::with_environment(argv).map_err(|exit| match exit {
        EarlyExit::Info(text) | EarlyExit::UsageError(text) => {
            ServeError::Config(anyhow::anyhow!("the embedded node: {text}"))
        }
    })?;
    let mut config = invocation.server;
    if config.level() == Level::Protected && config.addresses.is_empty() && config.listen.is_none()
    {
        config.addresses = vec![IpAddr::V4(Ipv4Addr::LOCALHOST)];
    }
    Ok(config)
}

async fn start_node(config: ServerConfig) -> Result<EmbeddedNode, ServeError> {
    let region = config.region.clone();
    let start = || EmbeddedNode::start(config, READY_MAX);
    let started = tokio::task::spawn_blocking(start).await.map_err(anyhow::Error::from)?;
    // The text of an error has its cause.
    let node = started.map_err(|error| match error {
        RunError::Bind(error) => ServeError::Failed(anyhow::anyhow!(
            "the embedded node: {error}; ZEROCACHE_PORT and ZEROCACHE_ADDRESS name another port and address, 0 a \
             free port"
        )),
        error if error.is_usage_error() => {
            ServeError::Config(anyhow::anyhow!("the embedded node: {error}"))
        }
        error => ServeError::Failed(anyhow::anyhow!("the embedded node: {error}")),
    })?;
    tracing::info!(address = %node.address(), region, "embedded node serves");
    Ok(node)
}

/// Waits for a signal that ends the process.
async fn ended() -> io::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}

fn say_listening(service: &Service) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{LISTENING}{}", service.address())?;
    out.flush()
}
