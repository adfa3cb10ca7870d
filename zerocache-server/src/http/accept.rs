//! The accept loop and the life of a connection.

use std::future::{Future, pending};
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use zerocache_net::security::Security;
use zerocache_net::transport::Stream;

use super::guard::{Guard, Service};
use super::io::{ConnectionPermit, ConnectionState, GuardedIo};
use super::limits::HttpLimits;
use super::opening::{Opened, Opener};
use super::refusal;
use super::suspension::{self, CHECK_EVERY_MS};
use crate::access::{AccessControl, ConnectionCaller};
use crate::telemetry::ServerCounters;

/// The pause after an accept that failed because descriptors or memory ran out: connections wait in
/// the kernel meanwhile, and the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// The most refused connections that get a response at once; more are dropped.
const REFUSALS_MAX: usize = 64;
/// The time that a refused client has to read its response.
const REFUSAL_TIME: Duration = Duration::from_millis(250);
/// The stream of an accepted connection.
pub(super) type Accepted = Stream;

/// The outcome of closing a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShutdownSummary {
    /// Connections closed by force because they did not finish in time.
    pub connections_cut: usize,
}

/// Who is let in.
#[derive(Clone, Debug)]
pub struct Entrance {
    /// Judges callers.
    pub access: Arc<AccessControl>,
    /// Decides whether callers may or must speak TLS, and has the credentials for it.
    pub security: Security,
}

impl From<Arc<AccessControl>> for Entrance {
    /// Callers speak plain HTTP.
    fn from(access: Arc<AccessControl>) -> Self {
        Self { access, security: Security::plain() }
    }
}

/// Serves `service` on every connection of `listener` until `stop` completes, then closes: the
/// listener and idle connections at once, the others after their response, and the rest by force
/// after `limits.close_timeout`.
///
/// `entrance` says whether callers speak TLS, and who calls: handlers find the `Arc<Caller>` among the
/// extensions of a request. Callers that it denies are answered here; only `/ping`, `/healthz` and `/readyz`
/// are open to them, without a caller.
///
/// Draining is the caller's task: the node accepts and answers until `stop` completes. Handlers may upgrade
/// a connection; an upgraded one keeps its permit under the cap but does not delay the shutdown.
///
/// # Cancellation
/// Dropping the future closes the listener and every connection.
pub async fn serve(
    listener: TcpListener,
    service: impl Into<Service>,
    entrance: impl Into<Entrance>,
    limits: HttpLimits,
    counters: Arc<ServerCounters>,
    stop: impl Future<Output = ()>,
) -> ShutdownSummary {
    let (closing, _) = watch::channel(());
    let mut acceptor = Acceptor {
        shared: Arc::new(Shared::new(service.into(), entrance.into(), limits, counters)),
        permits_taken: Arc::default(),
        refusals: Arc::new(Semaphore::new(REFUSALS_MAX)),
        closing,
        tasks: JoinSet::new(),
    };
    let mut stop = pin!(stop);
    let mut checks = interval(Duration::from_millis(CHECK_EVERY_MS));
    checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = &mut stop => break,
            _ = checks.tick() => {
                suspension::may_have_been_queued();
            }
            Some(ended) = acceptor.tasks.join_next() => acceptor.connection_ended(ended),
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => acceptor.serve(stream, peer),
                Err(error) if is_connection_error(&error) => {}
                Err(error) => {
                    acceptor.shared.counters.accept_errors.add();
                    tracing::debug!(%error, "cannot accept a connection");
                    // Connections that end meanwhile free descriptors.
                    tokio::select! {
                        () = &mut stop => break,
                        () = sleep(ACCEPT_PAUSE) => {}
                    }
                }
            },
        }
    }
    drop(listener);
    acceptor.close().await
}

fn builder(limits: &HttpLimits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        // The stream below enforces the deadlines of heads and of idleness, at less cost per request.
        .header_read_timeout(None)
        .max_headers(limits.headers_max)
        .max_header_size(limits.head_bytes_max)
        .max_buf_size(limits.buffer_bytes());
    builder
}

/// Returns whether an accept failed because of that one connection, such as one reset in the backlog.
fn is_connection_error(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// State that all connections of a listener share.
struct Shared {
    opener: Opener,
    service: Service,
    access: Arc<AccessControl>,
    builder: http1::Builder,
    limits: Arc<HttpLimits>,
    counters: Arc<ServerCounters>,
}

/// Accepts connections, and owns their tasks.
struct Acceptor {
    shared: Arc<Shared>,
    /// Permits under the cap that are taken.
    permits_taken: Arc<AtomicUsize>,
    refusals: Arc<Semaphore>,
    closing: watch::Sender<()>,
    /// Owns every connection, so that none outlives [`serve`].
    tasks: JoinSet<()>,
}

impl Acceptor {
    fn serve(&mut self, tcp: TcpStream, peer: SocketAddr) {
        self.shared.counters.connections_accepted.add();
        let max = self.shared.limits.connections_max;
        let Some(permit) =
            ConnectionPermit::acquire(&self.permits_taken, max, &self.shared.counters)
        else {
            self.refuse(tcp);
            return;
        };
        let (shared, closing) = (Arc::clone(&self.shared), self.closing.subscribe());
        self.tasks.spawn(connection(shared, (tcp, peer), permit, closing));
    }

    fn refuse(&mut self, mut stream: TcpStream) {
        self.shared.counters.connections_refused.add();
        let Ok(slot) = Arc::clone(&self.refusals).try_acquire_owned() else {
            return;
        };
        let shared = Arc::clone(&self.shared);
        self.tasks.spawn(async move {
            let _slot = slot;
            let farewell = async {
                // A caller that speaks TLS would not understand it.
                if !shared.opener.is_plain(&stream).await {
                    return Ok(());
                }
                stream.write_all(refusal::OVERLOADED).await?;
                stream.shutdown().await?;
                // Closing with unread input would reset the connection and lose the response.
                let mut room = [0; 1024];
                while stream.read(&mut room).await? > 0 {}
                io::Result::Ok(())
            };
            // A client that is gone or slow is refused all the same.
            let _ = timeout(REFUSAL_TIME, farewell).await;
        });
    }

    fn connection_ended(&self, ended: Result<(), JoinError>) {
        if ended.is_err_and(|error| error.is_panic()) {
            self.shared.counters.panics.add();
            tracing::error!("request handler panicked; connection closed");
        }
    }

    async fn close(mut self) -> ShutdownSummary {
        self.closing.send_replace(());
        let limit = self.shared.limits.close_timeout;
        let all = async {
            while let Some(ended) = self.tasks.join_next().await {
                self.connection_ended(ended);
            }
        };
        let _ = timeout(limit, all).await;
        let cut = self.tasks.len();
        for _ in 0..cut {
            self.shared.counters.cut_at_shutdown.add();
        }
        self.tasks.shutdown().await;
        ShutdownSummary { connections_cut: cut }
    }
}

/// Serves one connection to its end.
async fn connection(
    shared: Arc<Shared>,
    (tcp, peer): (TcpStream, SocketAddr),
    permit: ConnectionPermit,
    mut closing: watch::Receiver<()>,
) {
    let opened = tokio::select! {
        opened = shared.opener.open(tcp, peer) => opened,
        _ = closing.changed() => None,
    };
    if let Some(opened) = opened {
        shared.serve_http(opened, permit, closing).await;
    }
}

impl Shared {
    fn new(
        service: Service,
        Entrance { access, security }: Entrance,
        limits: HttpLimits,
        counters: Arc<ServerCounters>,
    ) -> Self {
        let builder = builder(&limits);
        let limits = Arc::new(limits);
        let opener = Opener::new(&security, Arc::clone(&limits), Arc::clone(&counters));
        Self { opener, service, access, builder, limits, counters }
    }

    async fn serve_http<S>(
        &self,
        opened: Opened<S>,
        permit: ConnectionPermit,
        mut closing: watch::Receiver<()>,
    ) where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let Opened { stream, connection, needs_tls, head_deadline } = opened;
        let state = Arc::new(ConnectionState::default());
        let (limits, counters) = (Arc::clone(&self.limits), Arc::clone(&self.counters));
        let io = GuardedIo::new(stream, limits, counters, Arc::clone(&state), permit)
            .with_head_deadline(head_deadline);
        let guard = Arc::new(Guard {
            service: self.service.clone(),
            limits: Arc::clone(&self.limits),
            counters: Arc::clone(&self.counters),
            state,
            caller: ConnectionCaller::new(Arc::clone(&self.access), connection),
            needs_tls,
        });
        let mut certificate = guard.end_of_certificate().map(Box::pin);
        let ended = async {
            match &mut certificate {
                Some(end) => end.await,
                None => pending().await,
            }
        };
        let peer = guard.caller.connection().peer;
        let service = service_fn(move |request| Arc::clone(&guard).handle(request));
        let served = self.builder.serve_connection(TokioIo::new(io), service).with_upgrades();
        let mut served = pin!(served);
        let result = tokio::select! {
            result = served.as_mut() => result,
            // Changes once, at shutdown; an error means that the sender is gone, which is the end as well.
            _ = closing.changed() => {
                served.as_mut().graceful_shutdown();
                served.await
            }
            denial = ended => {
                tracing::debug!(%peer, %denial, "connection closed: its certificate no longer holds");
                served.as_mut().graceful_shutdown();
                served.await
            }
        };
        let Err(error) = result else { return };
        if error.is_parse() {
            self.counters.bad_requests.add();
        }
        tracing::debug!(%error, "connection ended");
    }
}

#[cfg(test)]
mod tests;
