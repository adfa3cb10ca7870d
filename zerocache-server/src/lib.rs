//! A zerocache node: a library to embed and the binary `zerocache-server`.
//!
//! - [`access`]: who calls, and what a caller may do.
//! - [`config`]: settings, flags, variables, defaults, validation.
//! - [`program`]: the binary, as a function.
//! - [`node`]: assembles and runs a node; [`embedded`]: the same on a thread of its own.
//! - [`http`]: accepts connections, and bounds slow and broken clients.
//! - [`api`]: the HTTP API.
//! - [`framed`]: the node's side of framed connections.
//! - [`datagrams`]: the UDP socket for heartbeats.
//! - [`reads`]: the read path that all protocols share.
//! - [`driver`]: drives the state machine of `zerocache-core`.
//! - [`storage`]: the locks and the memory of the store; [`disk`]: the values that memory evicts.
//! - [`telemetry`]: counters and the table of metrics; [`logging`]: the binary's logs.

pub mod access;
pub mod api;
pub mod config;
pub mod datagrams;
pub mod disk;
pub mod driver;
pub mod embedded;
pub mod framed;
mod hex;
pub mod hot_keys;
pub mod http;
pub mod logging;
pub mod node;
pub mod program;
pub mod reads;
mod sampling;
mod service_manager;
mod snapshot;
pub mod storage;
pub mod telemetry;

use std::io::{self, Write};
use std::net::SocketAddr;

use tokio::signal::unix::{Signal, SignalKind, signal};

use config::ServerConfig;
pub use embedded::EmbeddedNode;
pub use node::{RunError, RunningNode};
use service_manager::ServiceManager;

/// Runs one node until SIGINT, SIGTERM or SIGQUIT, then shuts it down; a second one ends it at once. SIGHUP
/// reloads the credentials and the access file. Prints the listen address to standard output:
/// `zerocache-server listening on IP:PORT`. Tells a service manager that set `NOTIFY_SOCKET` when the node is in
/// sync, reloads, and shuts down.
///
/// # Errors
/// [`RunError`] when the node cannot start, or was not shut down.
pub async fn run(config: ServerConfig) -> Result<(), RunError> {
    let mut signals = Signals::new()?;
    let node = RunningNode::start_identified(config, logging::identify).await?;
    print_listening(node.listen_address())?;
    let mut manager = ServiceManager::from_env();
    let mut state = node.watch_state();
    manager.report(*state.borrow_and_update());
    loop {
        tokio::select! {
            wanted = signals.next() => match wanted {
                Wanted::Reload => {
                    node.reload();
                    manager.reloaded();
                }
                Wanted::End => break,
            },
            Ok(()) = state.changed() => manager.report(*state.borrow_and_update()),
        }
    }
    manager.stopping();
    tokio::select! {
        () = node.shutdown() => Ok(()),
        () = signals.end() => {
            tracing::warn!("second signal: ended before the shutdown was complete");
            Err(RunError::Interrupted)
        }
    }
}

/// Prints the line that scripts and tests wait for.
fn print_listening(address: SocketAddr) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "zerocache-server listening on {address}")?;
    out.flush()
}

/// The signals that the process obeys.
struct Signals {
    hangup: Signal,
    interrupt: Signal,
    terminate: Signal,
    quit: Signal,
}

/// What a signal asks for.
enum Wanted {
    Reload,
    End,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            quit: signal(SignalKind::quit())?,
        })
    }

    async fn next(&mut self) -> Wanted {
        tokio::select! {
            _ = self.hangup.recv() => Wanted::Reload,
            _ = self.interrupt.recv() => Wanted::End,
            _ = self.terminate.recv() => Wanted::End,
            _ = self.quit.recv() => Wanted::End,
        }
    }

    /// Waits for a signal to end.
    async fn end(&mut self) {
        while let Wanted::Reload = self.next().await {}
    }
}
