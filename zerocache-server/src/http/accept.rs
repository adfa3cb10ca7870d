//! The accept loop and the life of a connection.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::guard::{Guard, Service};
use super::io::{GuardedIo, Place, Shared};
use super::limits::HttpLimits;
use super::suspension::{self, CHECK_EVERY_MS};
use crate::telemetry::ServerCounters;

/// The pause after an accept that failed for want of descriptors or memory: connections wait in the
/// kernel meanwhile, and the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// The most refused connections that are closed politely at once; more are dropped.
const REFUSALS_MAX: usize = 64;
/// How long a refused client is given to read its answer.
const REFUSAL_TIME: Duration = Duration::from_millis(250);
/// The answer to a connection above the cap; its request has not been read.
const REFUSAL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\n\
    retry-after: 1\r\nconnection: close\r\ncontent-type: application/json\r\n\
    content-length: 64\r\n\r\n\
    {\"code\":\"overloaded\",\"message\":\"too many connections are open\"}\n";

/// How serving ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Served {
    /// Connections that were cut because they did not finish in time.
    pub cut: usize,
}

/// Serves `service` on every connection of `listener` until `stop` completes, then closes: the
/// listener and idle connections at once, the others when their request is answered, and what is
/// left after `limits.close_timeout` by force.
///
/// Draining is the caller's: let `stop` complete only when it is over, and the node keeps answering
/// and accepting until then. Handlers find the client's address as `ConnectInfo<SocketAddr>`, and
/// may upgrade a connection; an upgraded one keeps its place under the cap but does not hold up the
/// end.
///
/// # Cancellation
/// Dropping the future closes the listener and cuts every connection.
pub async fn serve(
    listener: TcpListener,
    service: impl Into<Service>,
    limits: HttpLimits,
    counters: Arc<ServerCounters>,
    stop: impl Future<Output = ()>,
) -> Served {
    let (closing, _) = watch::channel(());
    let mut listening = Listening {
        service: service.into(),
        builder: builder(&limits),
        limits: Arc::new(limits),
        counters,
        taken: Arc::default(),
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
            Some(ended) = listening.tasks.join_next() => listening.note(ended),
            accepted = listener.accept() => match accepted {
                Ok((tcp, peer)) => listening.begin(tcp, peer),
                Err(error) if is_of_connection(&error) => {}
                Err(error) => {
                    listening.counters.accept_errors.add();
                    tracing::debug!(%error, "cannot accept a connection");
                    // Ended connections give descriptors back while this waits.
                    tokio::select! {
                        () = &mut stop => break,
                        () = sleep(ACCEPT_PAUSE) => {}
                    }
                }
            },
        }
    }
    drop(listener);
    listening.close().await
}

fn builder(limits: &HttpLimits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        // The stream keeps the time of heads and of idleness, which costs less for each request.
        .header_read_timeout(None)
        .max_headers(limits.headers_max)
        .max_header_size(limits.head_bytes_max)
        .max_buf_size(limits.buffer_bytes());
    builder
}

/// Whether an accept failed because of that one connection, such as one reset while it waited.
fn is_of_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

struct Listening {
    service: Service,
    builder: http1::Builder,
    limits: Arc<HttpLimits>,
    counters: Arc<ServerCounters>,
    /// Places under the cap that are taken.
    taken: Arc<AtomicUsize>,
    refusals: Arc<Semaphore>,
    closing: watch::Sender<()>,
    /// Owns every connection, so that none outlives [`serve`].
    tasks: JoinSet<()>,
}

impl Listening {
    fn begin(&mut self, tcp: TcpStream, peer: SocketAddr) {
        self.counters.connections_accepted.add();
        let Some(place) = Place::take(&self.taken, self.limits.connections_max) else {
            self.refuse(tcp);
            return;
        };
        // Responses are written whole: waiting for more only delays them.
        let _ = tcp.set_nodelay(true);
        let shared = Arc::new(Shared::default());
        let (limits, counters) = (Arc::clone(&self.limits), Arc::clone(&self.counters));
        let io = GuardedIo::new(tcp, limits, counters, Arc::clone(&shared), place);
        let counters = Arc::clone(&self.counters);
        let guard = Guard { service: self.service.clone(), counters, shared, peer };
        self.tasks.spawn(connection(self.builder.clone(), io, guard, self.closing.subscribe()));
    }

    fn refuse(&mut self, mut tcp: TcpStream) {
        self.counters.connections_refused.add();
        let Ok(slot) = Arc::clone(&self.refusals).try_acquire_owned() else {
            return;
        };
        self.tasks.spawn(async move {
            let _slot = slot;
            let farewell = async {
                tcp.write_all(REFUSAL).await?;
                tcp.shutdown().await?;
                // Closing with unread input would reset the connection and lose the answer.
                let mut room = [0; 1024];
                while tcp.read(&mut room).await? > 0 {}
                io::Result::Ok(())
            };
            // A client that is gone or slow was refused all the same.
            let _ = timeout(REFUSAL_TIME, farewell).await;
        });
    }

    fn note(&self, ended: Result<(), JoinError>) {
        if ended.is_err_and(|error| error.is_panic()) {
            self.counters.panics.add();
            tracing::error!("request handler panicked; connection closed");
        }
    }

    async fn close(mut self) -> Served {
        self.closing.send_replace(());
        let limit = self.limits.close_timeout;
        let all = async {
            while let Some(ended) = self.tasks.join_next().await {
                self.note(ended);
            }
        };
        let _ = timeout(limit, all).await;
        let cut = self.tasks.len();
        for _ in 0..cut {
            self.counters.cut_at_shutdown.add();
        }
        self.tasks.shutdown().await;
        Served { cut }
    }
}

/// Serves one connection to its end.
async fn connection(
    builder: http1::Builder,
    io: GuardedIo,
    guard: Guard,
    mut closing: watch::Receiver<()>,
) {
    let counters = Arc::clone(&guard.counters);
    let service = service_fn(move |request| guard.clone().answer(request));
    let connection = builder.serve_connection(TokioIo::new(io), service).with_upgrades();
    let mut connection = pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        // Changes once, at the end; an error means that the sender is gone, the end as well.
        _ = closing.changed() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    let Err(error) = result else { return };
    if error.is_parse() {
        counters.bad_requests.add();
    }
    tracing::debug!(%error, "connection ended");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_refusal_states_its_length() {
        let text = std::str::from_utf8(REFUSAL).expect("text");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        assert!(head.ends_with(&format!("content-length: {}", body.len())), "{}", body.len());
    }
}
