//! The byte stream below HTTP and framed connections.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    task::JoinSet,
};
use zerocache_core::call::CallFailure;

use super::framed::{BoxedRead, BoxedWrite};
use crate::process::ProcessOwned;

/// Another attempt to connect begins after this time without an answer: longer than any round trip, shorter
/// than the second after which the system sends the first packet again.
const CONNECT_AGAIN: Duration = Duration::from_millis(300);

/// A connected byte stream. Whoever reads, writes, splits or upgrades a connection names this type, so that
/// another kind of stream is one more variant here.
#[derive(Debug)]
#[non_exhaustive]
pub enum Stream {
    /// TCP without encryption.
    Plain(TcpStream),
}

impl Stream {
    /// Connects to `to` within `timeout`.
    ///
    /// # Errors
    /// [`CallFailure::Refused`] when nobody listens there, [`CallFailure::NotSent`] otherwise.
    pub(super) async fn connect(to: SocketAddr, timeout: Duration) -> Result<Self, CallFailure> {
        match tokio::time::timeout(timeout, connect(to)).await {
            Ok(Ok(tcp)) => Ok(Self::from(tcp)),
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
                Err(CallFailure::Refused)
            }
            _ => Err(CallFailure::NotSent),
        }
    }

    /// Splits the stream into its two directions. Both belong to this process: in a forked child they
    /// fail, and dropping them there does not shut down the parent's connection.
    pub(super) fn into_halves(self) -> (BoxedRead, BoxedWrite) {
        match self {
            Self::Plain(tcp) => {
                let (read, write) = tcp.into_split();
                (Box::new(ProcessOwned::new(read)), Box::new(ProcessOwned::new(write)))
            }
        }
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
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(tcp) => tcp.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_shutdown(context),
        }
    }
}
