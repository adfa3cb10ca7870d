//! The first moments of a connection: finds out whether the caller speaks TLS, and shakes hands.

use std::future::{Future, poll_fn};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;

use tokio::net::TcpStream;
use tokio::task::yield_now;
use tokio::time::{Instant, Sleep, sleep, timeout_at};
use zerocache_net::security::{PeerCertificate, Security, TlsAcceptor, TlsMode};
use zerocache_net::transport::Stream;

use super::handshake_permits::HandshakePermits;
use super::limits::HttpLimits;
use crate::access::Connection;
use crate::telemetry::ServerCounters;

/// The first byte of a TLS connection: a handshake record. No request of HTTP begins with it.
const TLS_HANDSHAKE: u8 = 0x16;

/// Opens the connections of a listener.
pub(super) struct Opener {
    /// None: every connection is plain, and costs nothing here.
    tls: Option<Tls>,
    /// Plain callers are refused.
    needs_tls: bool,
    limits: Arc<HttpLimits>,
    counters: Arc<ServerCounters>,
}

struct Tls {
    security: Security,
    acceptor: TlsAcceptor,
    permits: HandshakePermits,
}

/// An open connection.
pub(super) struct Opened<S> {
    pub(super) stream: S,
    pub(super) connection: Connection,
    /// The requests are refused, because they came unencrypted.
    pub(super) needs_tls: bool,
    /// The deadline of the first head, if it runs already.
    pub(super) head_deadline: Option<Pin<Box<Sleep>>>,
}

impl Opener {
    pub(super) fn new(
        security: &Security,
        limits: Arc<HttpLimits>,
        counters: Arc<ServerCounters>,
    ) -> Self {
        let permits = HandshakePermits::default();
        let tls = security.acceptor().map(|acceptor| {
            let security = security.clone();
            Tls { security, acceptor, permits }
        });
        Self { tls, needs_tls: security.mode() == TlsMode::Required, limits, counters }
    }

    /// Opens a connection from `peer`. Returns none when it is to be closed without a word.
    pub(super) async fn open(&self, tcp: TcpStream, peer: SocketAddr) -> Option<Opened<Stream>> {
        // A connection without a local address has ended.
        let local = tcp.local_addr().ok()?;
        let plain = Connection::plain(peer, local);
        let opened = |tcp: TcpStream, connection, head_deadline| {
            let needs_tls = self.needs_tls;
            Some(Opened { stream: tcp.into(), connection, needs_tls, head_deadline })
        };
        let Some(tls) = &self.tls else {
            return opened(tcp, plain, None);
        };
        let mut deadline = Box::pin(sleep(self.limits.header_timeout));
        let first = tokio::select! {
            biased;
            first = first_byte(&tcp) => first?,
            () = &mut deadline => {
                self.counters.header_timeouts.add();
                return None;
            }
        };
        if first != TLS_HANDSHAKE {
            return opened(tcp, plain, Some(deadline));
        }
        // Before the handshake: what is replaced meanwhile counts as not verified.
        let generation = tls.security.generation();
        // In a box of its own: plain connections do not have the memory of a handshake.
        let shaken = Box::pin(self.shake_hands(tls, tcp, peer.ip())).await;
        let (stream, certificate) = shaken?;
        let certificate = certificate.map(Arc::new);
        let connection = Connection { is_tls: true, certificate, generation, ..plain };
        Some(Opened { stream, connection, needs_tls: false, head_deadline: None })
    }

    /// Returns whether the caller of a connection above the cap can read plain text.
    pub(super) async fn is_plain(&self, tcp: &TcpStream) -> bool {
        self.tls.is_none() || first_byte(tcp).await.is_some_and(|first| first != TLS_HANDSHAKE)
    }

    async fn shake_hands(
        &self,
        tls: &Tls,
        tcp: TcpStream,
        ip: IpAddr,
    ) -> Option<(Stream, Option<PeerCertificate>)> {
        let counters = &self.counters;
        let deadline = sleep(self.limits.handshake_timeout).deadline();
        let shaken = match shake_hands_until(deadline, tls, tcp, ip).await {
            Ok(shaken) => shaken,
            Err(Unfinished::Late) => {
                counters.handshake_timeouts.add();
                return None;
            }
            Err(Unfinished::NoPermit) => {
                counters.handshakes_refused.add();
                return None;
            }
            Err(Unfinished::Failed(error)) => {
                counters.handshakes_failed.add();
                tracing::debug!(peer = %ip.to_canonical(), %error, "TLS handshake failed");
                return None;
            }
        };
        counters.handshakes.add();
        Some(shaken)
    }
}

/// The reason why a handshake came to no end.
enum Unfinished {
    /// The caller was too slow.
    Late,
    /// Too many handshakes compute.
    NoPermit,
    /// The caller speaks no TLS, or its certificate is not accepted.
    Failed(io::Error),
}

impl From<io::Error> for Unfinished {
    fn from(error: io::Error) -> Self {
        Self::Failed(error)
    }
}

async fn shake_hands_until(
    deadline: Instant,
    tls: &Tls,
    tcp: TcpStream,
    ip: IpAddr,
) -> Result<(Stream, Option<PeerCertificate>), Unfinished> {
    let hello = tls.acceptor.read_hello(tcp);
    let hello = timeout_at(deadline, hello).await.map_err(|_| Unfinished::Late)??;
    let mut shaking = pin!(hello.shake_hands());
    // Each step makes or verifies signatures, and then waits for the caller without a permit.
    loop {
        let permit = timeout_at(deadline, tls.permits.acquire(ip)).await;
        let permit = permit.ok().flatten().ok_or(Unfinished::NoPermit)?;
        // Others run between two steps.
        yield_now().await;
        if let Poll::Ready(shaken) = poll_fn(|cx| Poll::Ready(shaking.as_mut().poll(cx))).await {
            return Ok(shaken?);
        }
        drop(permit);
        timeout_at(deadline, woken()).await.map_err(|_| Unfinished::Late)?;
    }
}

/// Waits until the task is woken by what it polled before.
async fn woken() {
    let mut is_first = true;
    poll_fn(|_| if std::mem::take(&mut is_first) { Poll::Pending } else { Poll::Ready(()) }).await;
}

/// Returns the first byte of a connection, and leaves it there. None: the connection has ended.
async fn first_byte(tcp: &TcpStream) -> Option<u8> {
    let mut first = [0];
    let count = tcp.peek(&mut first).await.ok()?;
    (count == 1).then_some(first[0])
}
