//! A process of the service: assembles its roles, and runs them until its end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use zerocache_client::ZerocacheClient;

use crate::api::{App, router};
use crate::capacity::Capacity;
use crate::directory;
use crate::gateway::Gateway;
use crate::listener::{self, Bounds};
use crate::metrics::Metrics;
use crate::parts::{self, Parts};
use crate::placement::{WorkerAddress, Workers};
use crate::settings::{Role, Secrets, ServeArgs};

/// The longest time for answers that are due at the end.
const DRAIN_MAX: Duration = Duration::from_secs(10);

/// A running process of the service. Dropping it ends it at once.
pub struct Service {
    address: SocketAddr,
    cache: ZerocacheClient,
    /// The name of the service and of this worker, if it is announced.
    announced: Option<(String, String)>,
    end: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Service {
    /// Starts a process with a client of the cache.
    ///
    /// # Errors
    /// If a setting is wrong, or the address cannot be listened on.
    pub async fn start(args: ServeArgs, secrets: Secrets, cache: ZerocacheClient) -> Result<Self> {
        let parts = Parts::new(&args, &secrets)?;
        let listener = Self::listen(&args).await?;
        Self::start_with(args, parts, listener, cache)
    }

    pub(crate) async fn listen(args: &ServeArgs) -> Result<TcpListener> {
        let listener = TcpListener::bind(args.listen).await;
        listener.with_context(|| format!("cannot listen on {}", args.listen))
    }

    /// Starts a process whose settings are checked. Workers that are not said where gateways reach them need a node
    /// of the cache that is known by now.
    pub(crate) fn start_with(
        args: ServeArgs,
        parts: Parts,
        listener: TcpListener,
        cache: ZerocacheClient,
    ) -> Result<Self> {
        let address = listener.local_addr()?;
        let name = args.name.clone().unwrap_or_else(|| parts::default_name(address));
        let is_alone = parts.is_alone();
        let workers = Arc::new(Mutex::new(Workers::default()));
        let app = app(&args, parts, &cache, &workers, &name)?;
        let mut tasks = Vec::new();
        let mut announced = None;
        if !is_alone && app.gateway.is_some() {
            tasks.push(tokio::spawn(parts::directory(&args, &cache).follow(workers)));
        }
        let is_listed_elsewhere = !args.workers.is_empty() || args.worker_dns.is_some();
        if !is_alone && app.worker.is_some() && !is_listed_elsewhere {
            let reached_at = parts::advertised(&args, address, &cache)?;
            let me = WorkerAddress { name: name.clone(), address: reached_at };
            tracing::info!(name = me.name, address = me.address, "worker is announced");
            tasks.push(tokio::spawn(directory::announce(cache.clone(), args.service.clone(), me)));
            announced = Some((args.service.clone(), name));
        }
        let (end, ended) = watch::channel(false);
        let serve = listener::serve(listener, router(app), Bounds::new(args.connections), ended);
        tasks.push(tokio::spawn(serve));
        tracing::info!(role = ?args.role, %address, "serving");
        Ok(Self { address, cache, announced, end, tasks })
    }

    /// The address on which the process listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends the process in order: takes its entry back, so that gateways ask others, and sends answers that are due.
    pub async fn shutdown(mut self) {
        let _ = self.end.send(true);
        if let Some(serve) = self.tasks.pop() {
            // Nothing renews the entry while it is withdrawn.
            self.tasks.drain(..).for_each(|task| task.abort());
            if let Some((service, name)) = &self.announced {
                directory::withdraw(&self.cache, service, name).await;
            }
            let _late = timeout(DRAIN_MAX, serve).await;
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

fn app(
    args: &ServeArgs,
    parts: Parts,
    cache: &ZerocacheClient,
    workers: &Arc<Mutex<Workers>>,
    name: &str,
) -> Result<Arc<App>> {
    let metrics = Arc::new(Metrics::default());
    let worker =
        parts.fetcher.map(|fetcher| Arc::new(parts::worker(args, fetcher, cache, &metrics)));
    let gateway = match args.role {
        Role::Worker => None,
        Role::Gateway | Role::Both => {
            let local = worker.clone().map(|worker| (name.to_owned(), worker));
            let key = parts.worker_key_text.unwrap_or_default();
            let (sources, workers) = (parts::sources(args), Arc::clone(workers));
            let gateway =
                Gateway::new(cache.clone(), sources, workers, local, key, Arc::clone(&metrics))?;
            Some(gateway.naive(args.naive).original_bytes(parts::in_memory(args.source_bytes)))
        }
    };
    Ok(Arc::new(App {
        gateway,
        worker,
        cache: cache.clone(),
        signing: parts.signing,
        rules: parts.rules,
        purge_key: parts.purge_key,
        worker_key: parts.worker_key,
        style: parts.style,
        requests: Capacity::new(args.requests, 0),
        time: args.request_time,
        gallery: args.gallery,
        metrics,
    }))
}
