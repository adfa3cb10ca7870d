//! The transport of clients and nodes: framed connections, and HTTP where something refuses them.

use std::{future::poll_fn, net::SocketAddr, str::FromStr, sync::Arc, time::Duration};

use tokio::runtime::{Handle, Id};
#[cfg(feature = "http-fallback")]
use tokio::sync::Semaphore;
use zerocache_core::{
    call::CallFailure,
    version::Incarnation,
    wire::{RefusalCode, RequestMessage, Response},
};

#[cfg(feature = "http-fallback")]
use super::http::HttpTransport;
use super::{
    Call, Transport,
    dial::MakeHello,
    framed::{CallResult, Completion, Connection, FastRequest, Unsent},
    pool::{Attempt, Lookup, Pool, Progress, Route, START_MAX},
};
use crate::{clock, security::Security};

/// The most requests of one [`call_many`](Transport::call_many) in flight over HTTP: each takes a connection.
#[cfg(feature = "http-fallback")]
const HTTP_CONCURRENCY_MAX: usize = 32;

/// The kind of connections to nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Connections {
    /// Framed connections, and HTTP to nodes for which something refuses the upgrade.
    #[default]
    Framed,
    /// HTTP only: for networks in which every upgrade is refused or broken.
    #[cfg(feature = "http-fallback")]
    Http,
}

impl Connections {
    /// The name of the kind in configuration and JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Framed => "framed",
            #[cfg(feature = "http-fallback")]
            Self::Http => "http",
        }
    }

    /// Whether no framed connection is attempted.
    const fn is_http_only(self) -> bool {
        match self {
            Self::Framed => false,
            #[cfg(feature = "http-fallback")]
            Self::Http => true,
        }
    }
}

impl FromStr for Connections {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "framed" => Ok(Self::Framed),
            #[cfg(feature = "http-fallback")]
            "http" => Ok(Self::Http),
            #[cfg(not(feature = "http-fallback"))]
            "http" => Err("this build has no HTTP connections (feature http-fallback)".to_owned()),
            _ => Err(format!("\"{text}\" is no kind of connections; use framed or http")),
        }
    }
}

/// Sends messages over framed connections. Cheap to clone.
///
/// The I/O of a call is done on the runtime in whose context the call is made. A caller that blocks that
/// runtime waits for ever, so a caller that may block has to enter another runtime first.
#[derive(Clone)]
pub struct FramedTransport {
    pool: Arc<Pool>,
    #[cfg(feature = "http-fallback")]
    http: HttpTransport,
    /// Runs calls over HTTP, whose connections all runtimes share, and everything that needs a timer.
    home: Handle,
    connections: Connections,
}

impl FramedTransport {
    /// Creates a transport that gives up connecting after `connect_timeout`. `make_hello` creates the
    /// Hello that begins each connection.
    #[must_use]
    pub fn new(make_hello: MakeHello, connect_timeout: Duration, home: Handle) -> Self {
        let pool = Pool::new(make_hello, connect_timeout, Security::plain());
        home.spawn(Pool::end_overdue(Arc::downgrade(&pool)));
        Self {
            pool,
            #[cfg(feature = "http-fallback")]
            http: HttpTransport::new(connect_timeout, Security::plain()),
            home,
            connections: Connections::default(),
        }
    }

    /// Secures connections: nodes are verified before anything is sent, and are shown the credentials of this
    /// process. When these change, connections end once their calls have ended.
    #[must_use]
    pub fn with_security(self, security: Security) -> Self {
        let pool = self.pool.with_security(security.clone());
        self.home.spawn(Pool::end_overdue(Arc::downgrade(&pool)));
        self.home.spawn(Pool::follow_credentials(Arc::downgrade(&pool)));
        Self {
            #[cfg(feature = "http-fallback")]
            http: HttpTransport::new(pool.connect_timeout(), security),
            pool,
            ..self
        }
    }

    /// Sets the kind of connections.
    #[must_use]
    pub fn with_connections(mut self, connections: Connections) -> Self {
        self.connections = connections;
        self
    }

    /// The number of entries of the pool.
    #[cfg(test)]
    pub(super) fn entries(&self) -> usize {
        self.pool.len()
    }

    fn send(
        &self,
        route: Route,
        to: SocketAddr,
        message: RequestMessage,
        timeout: Duration,
    ) -> Call {
        match route {
            Route::Framed(connection) => self.send_framed(&connection, message, timeout),
            Route::Home => match self.pool.find(&self.home, to) {
                // The home runtime cannot do I/O either.
                Lookup::Ready(Route::Home) => Call::ready(Err(CallFailure::NotSent)),
                lookup => self.send_after(lookup, to, message, timeout),
            },
            Route::HttpOnly => self.send_http(to, message, timeout),
            Route::Refused(response) => Call::ready(Ok(*response)),
            Route::Failed(failure) => Call::ready(Err(failure)),
        }
    }

    fn send_after(
        &self,
        lookup: Lookup,
        to: SocketAddr,
        message: RequestMessage,
        timeout: Duration,
    ) -> Call {
        match lookup {
            Lookup::Ready(route) => self.send(route, to, message, timeout),
            Lookup::Pending(attempt) => {
                let runtime = Handle::try_current().as_ref().unwrap_or(&self.home).id();
                let call = self.clone().wait_and_send((runtime, attempt), to, message, timeout);
                Call::task(self.home.spawn(call))
            }
        }
    }

    /// Waits until the attempt to connect has a result, then sends.
    async fn wait_and_send(
        self,
        (runtime, mut attempt): (Id, Attempt),
        to: SocketAddr,
        message: RequestMessage,
        timeout: Duration,
    ) -> CallResult {
        let started = clock::elapsed();
        // This task runs on the home runtime, so that one is not stalled.
        let runs = runtime == self.home.id() || {
            let started = attempt.wait_for(|progress| !progress.is_queued());
            tokio::time::timeout(timeout.min(START_MAX), started).await.is_ok()
        };
        let route = if runs {
            let done = async { attempt.wait_for(|progress| progress.route().is_some()).await.ok() };
            // None when the time is up, or the runtime of the attempt is gone.
            let done = tokio::time::timeout(timeout, done).await.ok().flatten();
            done.as_deref().and_then(Progress::route).cloned()
        } else {
            self.pool.note_stalled(runtime, to);
            Some(Route::Home)
        };
        let left = left(timeout, started);
        match route {
            Some(route) if !left.is_zero() => self.send(route, to, message, left).await,
            _ => Err(CallFailure::NotSent),
        }
    }

    /// Returns an open connection to `node` with room for more.
    fn open(&self, node: Option<Incarnation>, to: SocketAddr) -> Option<Arc<Connection>> {
        let connection = self.pool.open(&Handle::try_current().ok()?, to)?;
        (connection.peer() == node && !connection.is_full()).then_some(connection)
    }

    /// Sends over a connection, after waiting for room if it is full.
    fn send_framed(
        &self,
        connection: &Arc<Connection>,
        message: RequestMessage,
        timeout: Duration,
    ) -> Call {
        let wanted = message.envelope.to;
        if wanted.is_some() && wanted != connection.peer() {
            let text = "another node uses this address now";
            return Call::ready(Ok(Response::refused(RefusalCode::WrongNode, text)));
        }
        if connection.is_full() {
            let connection = Arc::clone(connection);
            return Call::task(self.home.spawn(async move {
                let room = poll_fn(|context| connection.poll_room(context));
                let started = clock::elapsed();
                if tokio::time::timeout(timeout, room).await.is_err() {
                    return Err(CallFailure::NotSent);
                }
                match connection.call(message, left(timeout, started)) {
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

/// What is left of `timeout`, which began at `started`.
fn left(timeout: Duration, started: Duration) -> Duration {
    timeout.saturating_sub(clock::elapsed().saturating_sub(started))
}

#[cfg(feature = "http-fallback")]
impl FramedTransport {
    fn send_http(&self, to: SocketAddr, message: RequestMessage, timeout: Duration) -> Call {
        Call::task(self.home.spawn(self.http.call(to, message, timeout)))
    }

    /// Sends many messages over HTTP, [`HTTP_CONCURRENCY_MAX`] at a time, when that is the way to `to`.
    ///
    /// # Errors
    /// The messages, when it is not known to be.
    fn try_send_many_http(
        &self,
        to: SocketAddr,
        messages: Vec<RequestMessage>,
        timeout: Duration,
    ) -> Result<Vec<Call>, Vec<RequestMessage>> {
        if !self.is_http_only(to) {
            return Err(messages);
        }
        let permits = Arc::new(Semaphore::new(HTTP_CONCURRENCY_MAX));
        let call = |message| self.send_http_limited(&permits, to, message, timeout);
        Ok(messages.into_iter().map(call).collect())
    }

    /// Whether a node is reached over HTTP only, as far as is known.
    fn is_http_only(&self, to: SocketAddr) -> bool {
        let runtime = Handle::try_current();
        self.connections.is_http_only()
            || matches!(
                self.pool.find(runtime.as_ref().unwrap_or(&self.home), to),
                Lookup::Ready(Route::HttpOnly)
            )
    }

    /// Sends over HTTP once a permit is free.
    fn send_http_limited(
        &self,
        permits: &Arc<Semaphore>,
        to: SocketAddr,
        message: RequestMessage,
        timeout: Duration,
    ) -> Call {
        let (http, permits) = (self.http.clone(), Arc::clone(permits));
        let started = clock::elapsed();
        Call::task(self.home.spawn(async move {
            let permit = tokio::time::timeout(timeout, permits.acquire()).await;
            let left = left(timeout, started);
            match permit {
                Ok(Ok(_permit)) if !left.is_zero() => http.call(to, message, left).await,
                _ => Err(CallFailure::NotSent),
            }
        }))
    }
}

#[cfg(not(feature = "http-fallback"))]
impl FramedTransport {
    /// Fails: this build has no HTTP fallback. The pool has logged it.
    fn send_http(&self, _to: SocketAddr, _message: RequestMessage, _timeout: Duration) -> Call {
        Call::ready(Err(CallFailure::NotSent))
    }
}

impl Transport for FramedTransport {
    fn call(&self, to: SocketAddr, message: RequestMessage, timeout: Duration) -> Call {
        if self.connections.is_http_only() {
            return self.send_http(to, message, timeout);
        }
        let runtime = Handle::try_current();
        let lookup = self.pool.find(runtime.as_ref().unwrap_or(&self.home), to);
        self.send_after(lookup, to, message, timeout)
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
        #[cfg(feature = "http-fallback")]
        let messages = match self.try_send_many_http(to, messages, timeout) {
            Ok(calls) => return calls,
            Err(messages) => messages,
        };
        messages.into_iter().map(|message| self.call(to, message, timeout)).collect()
    }

    fn try_call_then(
        &self,
        to: SocketAddr,
        message: RequestMessage,
        timeout: Duration,
        completion: Completion,
    ) -> Result<(), Unsent> {
        match self.open(message.envelope.to, to) {
            Some(connection) => connection.call_then(message, timeout, completion),
            None => Err(Box::new((message, completion))),
        }
    }

    fn try_send_now(&self, request: &FastRequest<'_>) -> Option<Call> {
        let connection = self.open(Some(request.node), request.address)?;
        connection.send_now(request).map(Call::framed)
    }
}
