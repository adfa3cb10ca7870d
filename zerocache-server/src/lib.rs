//! A zerocache node: a library to embed and the binary `zerocache-server`.
//!
//! - [`access`]: who calls, and what a caller may do.
//! - [`config`]: settings, flags, variables, defaults, validation.
//! - [`node`]: assembles and runs a node; [`embedded`]: the same on a thread of its own.
//! - [`http`]: accepts connections, and bounds slow and broken clients.
//! - [`api`]: the HTTP API.
//! - [`framed`]: the node's side of framed connections.
//! - [`datagrams`]: the UDP socket for heartbeats.
//! - [`reads`]: the read path that all protocols share.
//! - [`driver`]: drives the state machine of `zerocache-core`.
//! - [`storage`]: the locks and the memory of the store.
//! - [`telemetry`]: counters and the table of metrics; [`logging`]: the binary's logs.

pub mod access;
pub mod api;
pub mod config;
pub mod datagrams;
pub mod driver;
pub mod embedded;
pub mod framed;
pub mod http;
pub mod logging;
pub mod node;
pub mod reads;
mod snapshot;
pub mod storage;
pub mod telemetry;

use std::io::{self, Write};
use std::net::SocketAddr;

use tokio::signal::unix::{Signal, SignalKind, signal};

use config::ServerConfig;
pub use embedded::EmbeddedNode;
pub use node::{RunError, RunningNode};

/// Runs one node until SIGINT, SIGTERM or SIGQUIT, then shuts it down. Prints the listen address to
/// standard output: `zerocache-server listening on IP:PORT`.
///
/// # Errors
/// [`RunError`] when the node cannot start.
pub async fn run(config: ServerConfig) -> Result<(), RunError> {
    let mut signals = ShutdownSignals::new()?;
    let node = RunningNode::start(config).await?;
    print_listening(node.listen_address())?;
    signals.next().await;
    node.shutdown().await;
    Ok(())
}

/// Prints the line that scripts and tests wait for.
fn print_listening(address: SocketAddr) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "zerocache-server listening on {address}")?;
    out.flush()
}

/// The signals that shut the process down.
struct ShutdownSignals {
    interrupt: Signal,
    terminate: Signal,
    quit: Signal,
}

impl ShutdownSignals {
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
