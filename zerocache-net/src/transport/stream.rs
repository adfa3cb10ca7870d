//! The byte stream below HTTP and framed connections.

#[cfg(feature = "tls")]
use std::sync::atomic::{AtomicU64, Ordering};
use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    task::JoinSet,
};
use zerocache_core::call::CallFailure;
#[cfg(feature = "tls")]
use zerocache_core::version::Incarnation;

use super::framed::{BoxedRead, BoxedWrite};
#[cfg(feature = "tls")]
use crate::{
    clock,
    security::{ConnectError, Tls},
};
use crate::{
    process::ProcessOwned,
    security::{Security, TlsMode},
};

/// Another attempt to connect begins after this time without an answer: longer than any round trip, shorter
/// than the second after which the system sends the first packet again.
const CONNECT_AGAIN: Duration = Duration::from_millis(300);

/// A handshake of TLS must end within this time: several round trips to the far side of the world.
#[cfg(feature = "tls")]
const TLS_TIMEOUT: Duration = Duration::from_secs(1);

/// Nodes that cannot be verified are warned of once in this time, in milliseconds.
#[cfg(feature = "tls")]
const WARN_EVERY_MS: u64 = 30_000;

/// A connected byte stream. Whoever reads, writes, splits or upgrades a connection names this type, so that
/// another kind of stream is one more variant here.
#[derive(Debug)]
#[non_exhaustive]
pub enum Stream {
    /// TCP without encryption.
    Plain(TcpStream),
    /// TLS over TCP, on either side.
    #[cfg(feature = "tls")]
    Tls(Box<tokio_rustls::TlsStream<TcpStream>>),
}

impl Stream {
    /// Connects to `to` within `timeout`, and verifies the node there as `security` demands.
    ///
    /// # Errors
    /// [`CallFailure::Refused`] when nobody listens there, [`CallFailure::Unverified`] when the node cannot be
    /// verified, [`CallFailure::OtherHost`] when it is on another host and may not be,
    /// [`CallFailure::NotSent`] otherwise.
    pub(super) async fn connect(
        to: SocketAddr,
        timeout: Duration,
        security: &Security,
    ) -> Result<Self, CallFailure> {
        let tcp = tcp(to, timeout).await?;
        let local = tcp.local_addr().map_err(|_| CallFailure::NotSent)?;
        if !security.may_use(to, local) {
            return Err(CallFailure::OtherHost);
        }
        match security.mode() {
            TlsMode::Off => Ok(Self::from(tcp)),
            #[cfg(feature = "tls")]
            mode => match shake_hands(tcp, security).await {
                Ok(stream) => Ok(stream),
                // Only an answer without TLS counts: silence, or an unknown CA, does not.
                Err(ConnectError::NotTls) if mode == TlsMode::Optional => {
                    Ok(Self::from(self::tcp(to, timeout).await?))
                }
                Err(error) => Err(failure(to, error)),
            },
            #[cfg(not(feature = "tls"))]
            TlsMode::Optional | TlsMode::Required => Err(CallFailure::NotSent),
        }
    }

    /// Whether nobody on the way can read what is sent, and the other side was verified.
    pub(super) const fn is_encrypted(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            #[cfg(feature = "tls")]
            Self::Tls(_) => true,
        }
    }

    /// Returns when the certificate of the other side ceases to be valid; none without encryption.
    pub(super) fn certificate_end(&self) -> Option<SystemTime> {
        match self {
            Self::Plain(_) => None,
            #[cfg(feature = "tls")]
            Self::Tls(tls) => {
                let chain = tls.get_ref().1.peer_certificates()?;
                chain.first().and_then(crate::security::certificate_end)
            }
        }
    }

    /// Returns whether the other side proved to be the node with this incarnation, as far as nodes can prove it:
    /// with a secret the incarnation is a hash of the public key.
    #[cfg(feature = "tls")]
    pub(super) fn is_of(&self, incarnation: Incarnation, security: &Security) -> bool {
        let Self::Tls(tls) = self else { return true };
        let is_key = security.state().tls().is_some_and(Tls::makes_incarnations_of_keys);
        let chain = tls.get_ref().1.peer_certificates().unwrap_or_default();
        !is_key || chain.first().and_then(Tls::identity_of) == Some(incarnation.0)
    }

    /// Splits the stream into its two directions. Both belong to this process: in a forked child they
    /// fail, and dropping them there does not shut down the parent's connection.
    pub(super) fn into_halves(self) -> (BoxedRead, BoxedWrite) {
        match self {
            Self::Plain(tcp) => {
                let (read, write) = tcp.into_split();
                (Box::new(ProcessOwned::new(read)), Box::new(ProcessOwned::new(write)))
            }
            // A child neither locks nor drops what both directions share.
            #[cfg(feature = "tls")]
            Self::Tls(tls) => {
                let (read, write) = tokio::io::split(tls);
                (Box::new(ProcessOwned::new(read)), Box::new(ProcessOwned::new(write)))
            }
        }
    }
}

async fn tcp(to: SocketAddr, timeout: Duration) -> Result<TcpStream, CallFailure> {
    match tokio::time::timeout(timeout, connect(to)).await {
        Ok(Ok(tcp)) => Ok(tcp),
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
            Err(CallFailure::Refused)
        }
        _ => Err(CallFailure::NotSent),
    }
}

#[cfg(feature = "tls")]
async fn shake_hands(tcp: TcpStream, security: &Security) -> Result<Stream, ConnectError> {
    let state = security.state();
    let Some(tls) = state.tls() else {
        return Err(ConnectError::Unverified("this process has no credentials".to_owned()));
    };
    // A stream that refuses the option works, if more slowly.
    let _ = tcp.set_nodelay(true);
    let connected = tokio::time::timeout(TLS_TIMEOUT, crate::security::connect(tcp, tls)).await;
    let connected = connected.unwrap_or_else(|_| {
        Err(ConnectError::Broken(io::Error::new(io::ErrorKind::TimedOut, "no answer")))
    });
    Ok(Stream::Tls(Box::new(connected?)))
}

/// Logs the reason why a node was not reached by TLS, and returns what it means for a call.
#[cfg(feature = "tls")]
pub(super) fn failure(to: SocketAddr, error: ConnectError) -> CallFailure {
    let reason = match error {
        ConnectError::Broken(error) => {
            tracing::debug!(%to, %error, "TLS handshake failed");
            return CallFailure::NotSent;
        }
        ConnectError::NotTls => "it does not speak TLS".to_owned(),
        ConnectError::Unverified(reason) => reason,
    };
    if may_warn(clock::mono().as_millis()) {
        tracing::warn!(%to, reason, "node cannot be verified, or does not accept this process; not using it");
    } else {
        tracing::debug!(%to, reason, "node cannot be verified");
    }
    CallFailure::Unverified
}

/// Whether the last warning is long enough ago.
#[cfg(feature = "tls")]
fn may_warn(now_ms: u64) -> bool {
    /// When the next one is permitted, in milliseconds of the process.
    static NEXT_MS: AtomicU64 = AtomicU64::new(0);
    let next = NEXT_MS.load(Ordering::Relaxed);
    now_ms >= next && {
        let after = now_ms + WARN_EVERY_MS;
        NEXT_MS.compare_exchange(next, after, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

/// Connects, with another attempt beside the first for each [`CONNECT_AGAIN`] without an answer: after a lost
/// first packet the system would wait for a second.
async fn connect(to: SocketAddr) -> io::Result<TcpStream> {
    let mut attempts = JoinSet::new();
    loop {
        attempts.spawn(TcpStream::connect(to));
        tokio::select! {
            // Dropping the set ends the other attempts.
            Some(attempt) = attempts.join_next() => return attempt.map_err(io::Error::other)?,
            () = tokio::time::sleep(CONNECT_AGAIN) => {}
        }
    }
}

impl From<TcpStream> for Stream {
    /// Takes a TCP connection. Small writes are sent at once (`TCP_NODELAY`).
    fn from(tcp: TcpStream) -> Self {
        // A stream that refuses the option works, if more slowly.
        let _ = tcp.set_nodelay(true);
        Self::Plain(tcp)
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_read(context, buffer),
            #[cfg(feature = "tls")]
            Self::Tls(tls) => Pin::new(tls).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write(context, bytes),
            #[cfg(feature = "tls")]
            Self::Tls(tls) => Pin::new(tls).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write_vectored(context, slices),
            #[cfg(feature = "tls")]
            Self::Tls(tls) => Pin::new(tls).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(tcp) => tcp.is_write_vectored(),
            #[cfg(feature = "tls")]
            Self::Tls(tls) => tls.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_flush(context),
            #[cfg(feature = "tls")]
            Self::Tls(tls) => Pin::new(tls).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_shutdown(context),
            #[cfg(feature = "tls")]
            Self::Tls(tls) => Pin::new(tls).poll_shutdown(context),
        }
    }
}
