//! A node inside another process, on a thread and Tokio runtime of its own: for tests and examples.

use std::{net::SocketAddr, sync::mpsc, thread, time::Duration};

use tokio::sync::oneshot;
use zerocache_core::version::Incarnation;

use crate::{
    config::ServerConfig,
    node::{RunError, RunningNode},
};

/// The longest wait for blocking threads at the end of a node.
const SHUTDOWN_MAX: Duration = Duration::from_millis(500);

/// A node that runs beside the caller's code. Dropping it kills the node.
///
/// Several form a cluster: give each the address of the first as a seed. With port 0 each gets a free port;
/// without discovery none of them meets a node of the network.
///
/// ```
/// use std::time::Duration;
/// use zerocache_server::EmbeddedNode;
/// use zerocache_server::config::{DiscoverySet, ServerConfig};
///
/// let mut config = ServerConfig::new("london");
/// config.addresses = vec![[127, 0, 0, 1].into()];
/// config.port = 0;
/// config.discovery = DiscoverySet::NONE;
/// config.max_bytes = 64 << 20;
/// let node = EmbeddedNode::start(config, Duration::from_secs(10))?;
/// assert!(node.address().ip().is_loopback());
/// node.kill();
/// # Ok::<_, zerocache_server::RunError>(())
/// ```
pub struct EmbeddedNode {
    address: SocketAddr,
    incarnation: Incarnation,
    end: Option<oneshot::Sender<End>>,
    thread: Option<thread::JoinHandle<()>>,
}

/// The way a node ends.
enum End {
    /// Gracefully, with a goodbye.
    Shutdown,
    /// At once.
    Kill,
}

impl EmbeddedNode {
    /// Starts a node. Waits until it serves and, at most `ready_within`, until it is in sync.
    ///
    /// # Errors
    /// [`RunError`] when it cannot start.
    pub fn start(config: ServerConfig, ready_within: Duration) -> Result<Self, RunError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name(format!("zerocache-{}", config.region))
            .enable_all()
            .build()?;
        let (end, ended) = oneshot::channel();
        let (started, start) = mpsc::sync_channel(1);
        let thread = thread::Builder::new().name("zerocache-node".into()).spawn(move || {
            runtime.block_on(async {
                let node = match RunningNode::start(config).await {
                    Ok(node) => node,
                    Err(error) => return drop(started.send(Err(error))),
                };
                let ready = node.ready(ready_within).await;
                tracing::debug!(ready, "embedded node serves");
                let _starter_gone = started.send(Ok((node.address(), node.incarnation())));
                if let Ok(End::Shutdown) = ended.await {
                    node.shutdown().await;
                }
            });
            // Cuts every connection and task, as the end of a process would. Does not wait for a lookup
            // that hangs in the system's resolver.
            runtime.shutdown_timeout(SHUTDOWN_MAX);
        })?;
        let stopped = || std::io::Error::other("the node's thread ended early");
        let (address, incarnation) = start.recv().map_err(|_| stopped())??;
        Ok(Self { address, incarnation, end: Some(end), thread: Some(thread) })
    }

    /// Returns the address of the node.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the node's incarnation.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// Shuts the node down and waits for it: the drain and at most three seconds.
    pub fn shutdown(mut self) {
        self.finish(End::Shutdown);
    }

    /// Ends the node at once, without a goodbye; its port is closed when this returns.
    pub fn kill(mut self) {
        self.finish(End::Kill);
    }

    fn finish(&mut self, how: End) {
        if let Some(end) = self.end.take() {
            let _ended_already = end.send(how);
        }
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

impl Drop for EmbeddedNode {
    fn drop(&mut self) {
        self.finish(End::Kill);
    }
}
