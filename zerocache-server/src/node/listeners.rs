//! The listeners of a node: that of nodes and clients, and those of Python clients and of operators where they are
//! others.

use std::{
    io,
    net::{IpAddr, SocketAddr, SocketAddrV4},
    sync::Arc,
};

use tokio::{
    net::TcpListener,
    sync::oneshot,
    task::{JoinError, JoinHandle},
};
use zerocache_net::{discovery::PythonRecord, transport::Connections};

use crate::{
    access::AccessControl,
    api::{self, Api, ConfigBody, Page},
    config::ServerConfig,
    driver::NodeDriver,
    framed::{FrameLimits, FramedConnections},
    http::{self, BindError, BodyBudget, Entrance, HttpLimits, Service, ShutdownSummary},
    telemetry::ServerCounters,
};

/// Most connections of Python clients, which are all on this host.
const PYTHON_CONNECTIONS_MAX: usize = 1_024;

/// Most connections of operators: probes, scrapes, and the viewers of the page.
const ADMIN_CONNECTIONS_MAX: usize = 256;

/// The bound sockets of a node.
pub(super) struct Sockets {
    pub(super) nodes: TcpListener,
    python: Option<TcpListener>,
    admin: Option<TcpListener>,
}

impl Sockets {
    pub(super) fn bind(config: &ServerConfig) -> Result<Self, BindError> {
        let nodes = http::bind(&config.listen_addresses())?;
        let further = |listen: Option<SocketAddr>| listen.map(|at| http::bind(&[at])).transpose();
        let (python, admin) = (further(config.compat_listen)?, further(config.admin_listen)?);
        if let Some(address) = admin.as_ref().and_then(|admin| admin.local_addr().ok()) {
            tracing::info!(%address, "operators are served on an address of their own too");
        }
        Ok(Self { nodes, python, admin })
    }

    /// Returns how Python clients find the node.
    pub(super) fn python_record(&self, config: &ServerConfig) -> io::Result<PythonRecord> {
        let Some(python) = &self.python else {
            let is_served = config.compat.is_some();
            return Ok(if is_served { PythonRecord::OfNode } else { PythonRecord::None });
        };
        let address = python.local_addr()?;
        tracing::info!(%address, "Python clients of this host are served on an address of their own");
        Ok(match address.ip() {
            IpAddr::V4(ip) => PythonRecord::Loopback(SocketAddrV4::new(ip, address.port())),
            IpAddr::V6(_) => PythonRecord::None,
        })
    }
}

/// The running listeners of a node.
pub(super) struct Listeners {
    nodes: Listener,
    python: Option<Listener>,
    admin: Option<Listener>,
    framed: Arc<FramedConnections>,
    page: Option<RunningPage>,
}

/// The page, and the task that makes what it shows.
struct RunningPage {
    page: Arc<Page>,
    task: JoinHandle<()>,
}

struct Listener {
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<ShutdownSummary>,
}

impl Listener {
    fn start(
        socket: TcpListener,
        service: Service,
        access: Arc<AccessControl>,
        limits: HttpLimits,
        counters: Arc<ServerCounters>,
    ) -> Self {
        let entrance = Entrance { security: access.security().clone(), access };
        let (stop, stopped) = oneshot::channel();
        let stopped = async move {
            // A dropped sender means the same: the node is gone.
            let _stopped_or_dropped = stopped.await;
        };
        let task = tokio::spawn(http::serve(socket, service, entrance, limits, counters, stopped));
        Self { stop: Some(stop), task }
    }

    async fn close(&mut self) -> Result<ShutdownSummary, JoinError> {
        if let Some(stop) = self.stop.take() {
            let _already_stopped = stop.send(());
        }
        (&mut self.task).await
    }
}

impl Listeners {
    pub(super) fn start(
        config: &ServerConfig,
        sockets: Sockets,
        driver: &Arc<NodeDriver>,
        access: &Arc<AccessControl>,
    ) -> io::Result<Self> {
        let mut limits = HttpLimits::for_config(config);
        limits.connections_max = http::fit_connections(limits.connections_max);
        let (tls, listen) = (access.security().mode().as_str(), sockets.nodes.local_addr()?);
        let offered = (limits.connections_max, driver.features());
        let settings = Arc::new(ConfigBody::new(config, tls, listen, offered));
        let counters = Arc::new(ServerCounters::default());
        let message_bytes_max = api::message_bytes_max(config.value_bytes_max());
        let mut message_limits = limits.bodies.clone();
        message_limits.memory_bytes = message_limits.memory_bytes.max(2 * message_bytes_max);
        let messages = BodyBudget::new(message_limits, Arc::clone(&counters))
            .exempting(api::SMALL_MESSAGE_BYTES);
        let framed = FramedConnections::new(
            Arc::clone(driver),
            Arc::clone(access),
            Arc::clone(&counters),
            Arc::new(messages.clone()),
            FrameLimits {
                message_bytes_max: usize::try_from(message_bytes_max).unwrap_or(usize::MAX),
                value_bytes_max: config.value_bytes_max(),
                pending_bytes_max: limits.pending_response_bytes_max(),
            },
        );
        let api = Api {
            driver: Arc::clone(driver),
            access: Arc::clone(access),
            messages,
            framed: (config.connections == Connections::Framed).then(|| Arc::clone(&framed)),
            bodies: BodyBudget::new(limits.bodies.clone(), Arc::clone(&counters)),
            counters: Arc::clone(&counters),
            value_bytes_max: config.value_bytes_max(),
            key_bytes_max: config.max_key_bytes,
            config: settings,
            scrape: Arc::default(),
            entries: true,
            compat: config.compat.is_some() && sockets.python.is_none(),
        };
        let python = sockets.python.map(|socket| {
            // The listener has a loopback address: only callers of this host get there.
            let access = AccessControl::protected();
            let api = Api { access: Arc::clone(&access), ..api.clone() };
            let connections_max = limits.connections_max.min(PYTHON_CONNECTIONS_MAX);
            let limits = HttpLimits { connections_max, ..limits.clone() };
            let service = Service::from(api::compat_router(api));
            Listener::start(socket, service, access, limits, Arc::clone(&counters))
        });
        let page = config.page.then(|| Page::new(api.clone()));
        let admin = sockets.admin.map(|socket| {
            let service = Service::from(api::admin_router(api.clone(), page.clone()));
            let connections_max = limits.connections_max.min(ADMIN_CONNECTIONS_MAX);
            let limits = HttpLimits { connections_max, ..limits.clone() };
            Listener::start(socket, service, Arc::clone(access), limits, Arc::clone(&counters))
        });
        let router = api::router(api.clone(), page.clone());
        let service = Service::from(router).with_fast_path(api::sync_handler(api));
        let nodes = Listener::start(sockets.nodes, service, Arc::clone(access), limits, counters);
        let page = page.map(|page| {
            let running = Arc::clone(&page);
            RunningPage { page, task: tokio::spawn(async move { running.run().await }) }
        });
        Ok(Self { nodes, python, admin, framed, page })
    }

    /// Closes the listeners, and their connections after the last responses.
    pub(super) async fn close(&mut self) -> Result<ShutdownSummary, JoinError> {
        // Otherwise the streams of viewers would delay the end.
        if let Some(running) = &self.page {
            running.page.close();
        }
        let (nodes, python, admin, ()) = tokio::join!(
            self.nodes.close(),
            close(&mut self.python),
            close(&mut self.admin),
            self.framed.close()
        );
        Ok(ShutdownSummary { connections_cut: nodes?.connections_cut + python? + admin? })
    }

    /// Cuts everything.
    pub(super) fn abort(&self) {
        self.framed.abort();
        if let Some(running) = &self.page {
            running.task.abort();
        }
        let others = [self.python.as_ref(), self.admin.as_ref()];
        for listener in others.into_iter().flatten().chain([&self.nodes]) {
            listener.task.abort();
        }
    }
}

/// Closes a listener, if there is one. Returns how many connections were cut.
async fn close(listener: &mut Option<Listener>) -> Result<usize, JoinError> {
    match listener {
        Some(listener) => Ok(listener.close().await?.connections_cut),
        None => Ok(0),
    }
}
