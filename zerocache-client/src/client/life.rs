//! The life of a client in one process: its engine, and the task that finds nodes for it.
//!
//! A process that was forked off has neither the threads nor the locks nor the sockets of its parent's
//! clients; each begins another life there when it is next used, with the same configuration.

use std::{
    fmt,
    panic::{RefUnwindSafe, UnwindSafe},
    sync::Arc,
    time::Duration,
};

use tokio::{runtime::Handle, sync::mpsc, task::AbortHandle};
use zerocache_core::wire::{Envelope, Request, RequestMessage, cluster_id};
use zerocache_net::{
    discovery::{Discovery, Event, Proposal, Source},
    process::PerProcess,
    security::{Security, SecurityConfig},
    transport::{FramedTransport, Transport},
};

use super::{
    background,
    config::Config,
    credentials,
    engine::{Engine, hello},
    finder,
    local_state::LocalState,
    offline::{InProcess, Offline},
};
use crate::Error;

/// How long a connection to a node may take to come about. Below the bound of a tier: a host that is
/// gone is then known not to have got the request, and the next node is tried.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(400);

/// Events of discovery that may wait.
const DISCOVERY_EVENTS_MAX: usize = 512;

/// What all handles of a client share.
pub(super) struct Inner {
    pub(super) region: String,
    lives: PerProcess<Life>,
}

/// A client in one process.
pub(super) struct Life {
    pub(super) local: Arc<LocalState>,
    pub(super) live: Result<Live, Error>,
}

/// What a client that works consists of. Ends its background task when dropped.
pub(super) struct Live {
    pub(super) engine: Arc<Engine>,
    pub(super) background: Handle,
    finder: AbortHandle,
    /// Reads credentials again; none where there are none.
    keeper: Option<AbortHandle>,
}

// Its locks do not poison, and what they guard is consistent whenever they are free.
impl UnwindSafe for Inner {}
impl RefUnwindSafe for Inner {}

impl Drop for Live {
    fn drop(&mut self) {
        self.finder.abort();
        if let Some(keeper) = &self.keeper {
            keeper.abort();
        }
        // What was counted since the finder did it last.
        self.engine.publish();
    }
}

impl Inner {
    pub(super) fn new(region: String, life: Life) -> Self {
        Self { region, lives: PerProcess::with_value(life) }
    }

    /// The client in this process.
    #[inline]
    pub(super) fn life(&self) -> &Life {
        self.lives.get_or_init(|before| {
            let unmade = || Life::broken(Error::Config("the client was never made".to_owned()));
            before.map_or_else(unmade, Life::after_a_fork)
        })
    }

    /// The client in this process, if it has been used here.
    pub(super) fn present_life(&self) -> Option<&Life> {
        self.lives.get()
    }
}

impl Life {
    pub(super) fn start(config: Config) -> Result<Self, Error> {
        let failed = |error: &dyn fmt::Display| Error::Config(error.to_string());
        let background = background::handle().map_err(|error| failed(&error))?;
        let security = credentials::load(&config.security, config.offline)?;
        let nodes = config.offline.then(|| nodes_of(&config, &background));
        let transport = transport(&config, nodes.as_ref(), &background, security.clone());
        let local = LocalState::of(&config, credentials::number(&config.security, &security));
        let (sender, events) = mpsc::channel(DISCOVERY_EVENTS_MAX);
        if let Some(nodes) = &nodes {
            let (addresses, source) = (nodes.addresses(), Source::Seed);
            let proposal = Proposal { addresses, source, region: None, incarnation: None };
            // There is room: it is the first.
            let _ = sender.try_send(Event::Proposed(proposal));
        }
        let discovery = {
            let _inside = background.enter();
            Discovery::start(config.discovery(), sender).map_err(|error| failed(&error))?
        };
        let engine =
            Arc::new(Engine::new(config, Arc::clone(&local), transport, background.clone()));
        let task = finder::run(Arc::downgrade(&engine), discovery, events);
        let finder = background.spawn(task).abort_handle();
        let has_credentials = engine.config.security != SecurityConfig::default();
        let keeper = has_credentials.then(|| {
            background.spawn(credentials::keep(Arc::downgrade(&engine), security)).abort_handle()
        });
        Ok(Self { local, live: Ok(Live { engine, background, finder, keeper }) })
    }

    /// That of a client that cannot work: every operation says why.
    pub(super) fn broken(error: Error) -> Self {
        Self { local: Arc::new(LocalState::broken()), live: Err(error) }
    }

    /// In a process that was forked off one with this life. Of that only what never changes is looked at, and
    /// numbers: locks may be held by threads that are not here.
    fn after_a_fork(before: &Self) -> Self {
        let config = match &before.live {
            Ok(live) => live.engine.config.clone(),
            Err(error) => return Self::broken(error.clone()),
        };
        let region = config.region.clone();
        match Self::start(config) {
            Ok(life) => {
                life.local.memo.set_flight_wait(before.local.memo.flight_wait());
                tracing::info!(region, "process was forked: the client starts again in the child");
                life
            }
            Err(error) => {
                tracing::error!(region, %error, "the client cannot work in this forked process");
                Self::broken(error)
            }
        }
    }
}

/// The nodes in this process that a client without a network uses.
fn nodes_of(config: &Config, background: &Handle) -> InProcess {
    config.nodes.clone().unwrap_or_else(|| {
        let nodes = InProcess::of_one(config);
        nodes.keep_time(background);
        nodes
    })
}

/// The client's transport. It sends a hello on each connection.
fn transport(
    config: &Config,
    nodes: Option<&InProcess>,
    background: &Handle,
    security: Security,
) -> Arc<dyn Transport> {
    if let Some(nodes) = nodes {
        return Arc::new(Offline::new(nodes.clone(), background.clone()));
    }
    let (cluster, region) = (config.cluster.clone(), config.region.clone());
    let id = cluster_id(&cluster);
    let make_hello = move || {
        let hello = hello(&cluster, &region);
        let envelope = Envelope { cluster: id, ..Envelope::default() };
        RequestMessage { envelope, request: Request::Hello(Box::new(hello)) }
    };
    let transport = FramedTransport::new(Arc::new(make_hello), CONNECT_TIMEOUT, background.clone());
    Arc::new(transport.with_security(security).with_connections(config.connections))
}
