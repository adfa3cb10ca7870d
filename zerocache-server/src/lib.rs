//! A zerocache node, as a library to embed and as the binary `zerocache-server`.
//!
//! - [`config`]: flags, variables, defaults, and their validation.
//! - [`http`]: accepting connections, and the limits of slow and broken clients.
//! - [`telemetry`]: the binary's logs.

pub mod config;
pub mod http;
pub mod telemetry;

use std::io::{self, Write};
use std::sync::Arc;

use axum::Router;
use axum::routing::get;
use tokio::signal::unix::{Signal, SignalKind, signal};

use config::{ConfigError, ServerConfig};
use http::{BindError, HttpCounters, HttpLimits};

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The configuration is not allowed.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The listener could not be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The system refused something else.
    #[error("cannot start: {0}")]
    Io(#[from] io::Error),
}

/// Runs one node until SIGINT, SIGTERM or SIGQUIT, and then for the drain. Prints where it listens
/// on standard output: `zerocache-server listening on IP:PORT`.
///
/// # Errors
/// [`RunError`] when the node cannot start.
pub async fn run(config: ServerConfig) -> Result<(), RunError> {
    config.validate()?;
    let mut signals = Signals::new()?;
    let listener = http::bind(&config.listen_addresses())?;
    announce_listening(&listener)?;
    let mut limits = HttpLimits::for_config(&config);
    limits.connections_max = http::fit_connections(limits.connections_max);
    let router = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/ping", get(|| async { "pong" }));
    let drain = config.drain;
    let stop = async move {
        signals.next().await;
        tracing::info!(drain_ms = drain.as_millis() as u64, "leaving");
        tokio::time::sleep(drain).await;
    };
    http::serve(
        listener,
        router,
        limits,
        Arc::new(HttpCounters::default()),
        stop,
    )
    .await;
    Ok(())
}

/// Prints the one line that scripts and tests wait for.
fn announce_listening(listener: &tokio::net::TcpListener) -> io::Result<()> {
    let address = listener.local_addr()?;
    let mut out = io::stdout().lock();
    writeln!(out, "zerocache-server listening on {address}")?;
    out.flush()
}

/// The signals that ask the process to leave.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    quit: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            quit: signal(SignalKind::quit())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.quit.recv() => {}
        }
    }
}
