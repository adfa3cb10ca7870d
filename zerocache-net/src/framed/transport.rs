//! Carries messages over framed connections, and over HTTP where there are none.

use std::{future::poll_fn, net::SocketAddr, str::FromStr, sync::Arc, time::Duration};

use tokio::{
    runtime::{Handle, Id},
    sync::Semaphore,
};
use zerocache_core::{
    call::CallFailure,
    version::Incarnation,
    wire::{RefusalCode, RequestMessage, Response},
};

use super::{
    connection::Connection,
    pool::{BEGIN_MAX, Found, Link, Pool, Tried, Try},
};
use crate::transport::{Call, HttpTransport, NotTaken, Short, Then, Transport, TransportError};

/// Most requests of one call of many that are under way to one node over HTTP: each takes a connection of
/// its own.
const PLAIN_MAX: usize = 32;

/// Says who calls: a Hello in its envelope.
pub type Introduce = Arc<dyn Fn() -> RequestMessage + Send + Sync>;

/// How clients and nodes talk to nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Connections {
    /// Over framed connections, and over HTTP to a node for which the upgrade is refused.
    #[default]
    Framed,
    /// Over HTTP only: for networks in which every upgrade is refused or broken.
    Http,
}

impl FromStr for Connections {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "framed" => Ok(Self::Framed),
            "http" => Ok(Self::Http),
            _ => Err(format!("\"{text}\" is no kind of connections; use framed or http")),
        }
    }
}

/// Carries messages over framed connections. Cheap to clone.
///
/// The I/O of a call is done on the runtime in whose context it is made: a caller that blocks that
/// runtime waits for ever, so one that may has to enter another runtime first.
#[derive(Clone)]
pub struct FramedTransport {
    pool: Arc<Pool>,
    http: HttpTransport,
    /// Where calls over HTTP are made, whose connections are shared by all runtimes, and whatever
    /// needs a timer.
    home: Handle,
    connections: Connections,
}

impl FramedTransport {
    /// A transport whose connections come about within `connect_timeout` or not at all. `introduce`
    /// gives what is said at the beginning of each.
    ///
    /// # Errors
    /// When the system does not permit an HTTP client.
    pub fn new(
        introduce: Introduce,
        connect_timeout: Duration,
        home: Handle,
    ) -> Result<Self, TransportError> {
        let http = HttpTransport::new(connect_timeout)?;
        let pool = Pool::new(introduce, connect_timeout);
        home.spawn(Pool::end_overdue(Arc::downgrade(&pool)));
        Ok(Self { pool, http, home, connections: Connections::default() })
    }

    /// The same with another kind of connections.
    #[must_use]
    pub fn using(mut self, connections: Connections) -> Self {
        self.connections = connections;
        self
    }

    fn over(&self, link: Link, to: SocketAddr, message: RequestMessage, timeout: Duration) -> Call {
        match link {
            Link::Framed(connection) => self.send(&connection, message, timeout),
            Link::Elsewhere => match self.pool.find(&self.home, to) {
                // Not even there.
                Found::Now(Link::Elsewhere) => Call::ready(Err(CallFailure::NotSent)),
                found => self.found(found, to, message, timeout),
            },
            Link::Plain => self.plain(to, message, timeout),
            Link::Refused(response) => Call::ready(Ok(*response)),
            Link::Failed(failure) => Call::ready(Err(failure)),
        }
    }

    fn found(
        &self,
        found: Found,
        to: SocketAddr,
        message: RequestMessage,
        timeout: Duration,
    ) -> Call {
        match found {
            Found::Now(link) => self.over(link, to, message, timeout),
            Found::Soon(opening) => {
                let runtime = Handle::try_current().as_ref().unwrap_or(&self.home).id();
                let after = self.clone().after((runtime, opening), to, message, timeout);
                Call::task(self.home.spawn(after))
            }
        }
    }

    /// How many connections and tries there are.
    #[cfg(test)]
    pub(super) fn links(&self) -> usize {
        self.pool.len()
    }

    fn plain(&self, to: SocketAddr, message: RequestMessage, timeout: Duration) -> Call {
        let call = self.http.call(to, message, timeout);
        Call::task(self.home.spawn(call))
    }

    /// Waits until the try to connect has ended, then sends.
    async fn after(
        self,
        (runtime, mut opening): (Id, Try),
        to: SocketAddr,
        message: RequestMessage,
        timeout: Duration,
    ) -> Result<Response, CallFailure> {
        let started = crate::clock::elapsed();
        // This runs at home, which so runs.
        let runs = runtime == self.home.id() || {
            let begun = opening.wait_for(|tried| !tried.is_waiting());
            tokio::time::timeout(timeout.min(BEGIN_MAX), begun).await.is_ok()
        };
        let link = if runs {
            let opened = async { opening.wait_for(|tried| tried.link().is_some()).await.ok() };
            // None: out of time, or the runtime of the try is gone.
            let opened = tokio::time::timeout(timeout, opened).await.ok().flatten();
            opened.as_deref().and_then(Tried::link).cloned()
        } else {
            self.pool.does_not_begin(runtime, to);
            Some(Link::Elsewhere)
        };
        let left = timeout.saturating_sub(crate::clock::elapsed().saturating_sub(started));
        match link {
            Some(link) if !left.is_zero() => self.over(link, to, message, left).await,
            _ => Err(CallFailure::NotSent),
        }
    }
}

impl Transport for FramedTransport {
    fn call(&self, to: SocketAddr, message: RequestMessage, timeout: Duration) -> Call {
        if self.connections == Connections::Http {
            return self.plain(to, message, timeout);
        }
        let runtime = Handle::try_current();
        let found = self.pool.find(runtime.as_ref().unwrap_or(&self.home), to);
        self.found(found, to, message, timeout)
    }

    fn call_many(
        &self,
        to: SocketAddr,
        messages: Vec<RequestMessage>,
        timeout: Duration,
    ) -> Vec<Call> {
        let node = messages.first().and_then(|message| message.envelope.to);
        if let Some(connection) = self.open(node, to) {
            let sent = connection.call_many(messages, timeout).into_iter();
            let call = |sent: Result<_, Box<RequestMessage>>| match sent {
                Ok(call) => Call::framed(call),
                Err(message) => self.call(to, *message, timeout),
            };
            return sent.map(call).collect();
        }
        if self.is_plain(to) {
            let gate = Arc::new(Semaphore::new(PLAIN_MAX));
            let call = |message| self.gated(&gate, to, message, timeout);
            return messages.into_iter().map(call).collect();
        }
        messages.into_iter().map(|message| self.call(to, message, timeout)).collect()
    }

    fn try_call_then(
        &self,
        to: SocketAddr,
        message: RequestMessage,
        timeout: Duration,
        then: Then,
    ) -> Result<(), NotTaken> {
        match self.open(message.envelope.to, to) {
            Some(connection) => connection.call_then(message, timeout, then),
            None => Err(Box::new((message, then))),
        }
    }

    fn try_short(&self, short: &Short<'_>) -> Option<Call> {
        let (node, address) = short.node;
        self.open(Some(node), address)?.call_short(short).map(Call::framed)
    }
}

impl FramedTransport {
    /// An open connection to `node` with room for more.
    fn open(&self, node: Option<Incarnation>, to: SocketAddr) -> Option<Arc<Connection>> {
        let connection = self.pool.open(&Handle::try_current().ok()?, to)?;
        (connection.peer() == node && !connection.is_full()).then_some(connection)
    }

    /// Whether a node is reached over HTTP only, as far as is known.
    fn is_plain(&self, to: SocketAddr) -> bool {
        let runtime = Handle::try_current();
        self.connections == Connections::Http
            || matches!(
                self.pool.find(runtime.as_ref().unwrap_or(&self.home), to),
                Found::Now(Link::Plain)
            )
    }

    /// Sends over HTTP once the gate lets it pass.
    fn gated(
        &self,
        gate: &Arc<Semaphore>,
        to: SocketAddr,
        message: RequestMessage,
        timeout: Duration,
    ) -> Call {
        let (http, gate) = (self.http.clone(), Arc::clone(gate));
        let started = crate::clock::elapsed();
        Call::task(self.home.spawn(async move {
            let passed = tokio::time::timeout(timeout, gate.acquire()).await;
            let left = timeout.saturating_sub(crate::clock::elapsed().saturating_sub(started));
            match passed {
                Ok(Ok(_permit)) if !left.is_zero() => http.call(to, message, left).await,
                _ => Err(CallFailure::NotSent),
            }
        }))
    }

    /// Sends over a connection, after waiting for room if it is full.
    fn send(
        &self,
        connection: &Arc<Connection>,
        message: RequestMessage,
        timeout: Duration,
    ) -> Call {
        let wanted = message.envelope.to;
        if wanted.is_some() && wanted != connection.peer() {
            let text = "another node stands here now";
            return Call::ready(Ok(Response::refused(RefusalCode::WrongNode, text)));
        }
        if connection.is_full() {
            let connection = Arc::clone(connection);
            return Call::task(self.home.spawn(async move {
                let room = poll_fn(|context| connection.poll_room(context));
                let started = crate::clock::elapsed();
                if tokio::time::timeout(timeout, room).await.is_err() {
                    return Err(CallFailure::NotSent);
                }
                let left = timeout.saturating_sub(crate::clock::elapsed().saturating_sub(started));
                match connection.call(message, left) {
                    Some(call) => call.await,
                    None => Err(CallFailure::NotSent),
                }
            }));
        }
        match connection.call(message, timeout) {
            Some(call) => Call::framed(call),
            None => Call::ready(Err(CallFailure::NotSent)),
        }
    }
}
