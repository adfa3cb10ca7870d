//! A zerocache node, as a library to embed and as the binary `zerocache-server`.
//!
//! - [`config`]: flags, variables, defaults, and their validation.
//! - [`node`]: puts a node together and runs it; [`embedded`]: the same beside other code.
//! - [`http`]: accepting connections, and the limits of slow and broken clients.
//! - [`api`]: what is served over HTTP.
//! - [`datagrams`]: the node's heartbeats as they come and go.
//! - [`frames`]: the node's side of framed connections.
//! - [`driver`]: drives the state machine of `zerocache-core`.
//! - [`storage`]: the locks and the memory of the store.
//! - [`telemetry`]: counters and the table of metrics; [`logging`]: the binary's logs.

pub mod api;
pub mod config;
pub mod datagrams;
pub mod driver;
pub mod embedded;
pub mod frames;
pub mod http;
pub mod logging;
pub mod node;
mod snapshot;
pub mod storage;
pub mod telemetry;

use std::io::{self, Write};
use std::net::SocketAddr;

use tokio::signal::unix::{Signal, SignalKind, signal};

use config::ServerConfig;
pub use embedded::EmbeddedNode;
pub use node::{RunError, RunningNode};

/// Runs one node until SIGINT, SIGTERM or SIGQUIT, and then for the drain. Prints where it listens
/// on standard output: `zerocache-server listening on IP:PORT`.
///
/// # Errors
/// [`RunError`] when the node cannot start.
pub async fn run(config: ServerConfig) -> Result<(), RunError> {
    let mut signals = Signals::new()?;
    let node = RunningNode::start(config).await?;
    print_listening(node.listen_address())?;
    signals.next().await;
    node.shutdown().await;
    Ok(())
}

/// Prints the one line that scripts and tests wait for.
fn print_listening(address: SocketAddr) -> io::Result<()> {
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
