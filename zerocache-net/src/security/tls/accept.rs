//! The side of a node: takes TLS connections.

use std::{fmt, io, sync::Arc, time::Duration};

use rustls::{ServerConfig, server::Acceptor};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{LazyConfigAcceptor, StartHandshake};

use super::peer;
use crate::{
    security::{PeerCertificate, Security},
    transport::Stream,
};

/// A caller whose handshake failed has this time to read why: a round trip. A connection that is closed while
/// its request arrives would be reset, and the reason lost.
const LINGER_MAX: Duration = Duration::from_millis(500);

/// The most that is read meanwhile, in bytes.
const LINGER_BYTES_MAX: u64 = 64 << 10;

/// Takes TLS connections, each with the newest credentials. Cheap to clone.
#[derive(Clone, Debug)]
pub struct TlsAcceptor(pub(in crate::security) Security);

/// A connection whose caller has sent its whole first message. Nothing expensive was done for it.
pub struct ClientHello {
    start: StartHandshake<TcpStream>,
    security: Security,
}

impl TlsAcceptor {
    /// Takes a connection: reads the first message of the caller and shakes hands. Returns the certificate
    /// of the caller, if it presented one; it is verified.
    ///
    /// There is no limit of time; half a handshake lasts until the future is dropped.
    ///
    /// # Errors
    /// If the caller does not speak TLS 1.3, or its certificate is not accepted. The caller was told.
    pub async fn accept(&self, tcp: TcpStream) -> io::Result<(Stream, Option<PeerCertificate>)> {
        self.read_hello(tcp).await?.shake_hands().await
    }

    /// Reads the first message of a caller. It costs next to nothing, so that callers that stop half way take
    /// no place of those that shake hands.
    ///
    /// # Errors
    /// If the caller does not speak TLS 1.3.
    pub async fn read_hello(&self, tcp: TcpStream) -> io::Result<ClientHello> {
        // A stream that refuses the option works, if more slowly.
        let _ = tcp.set_nodelay(true);
        let start = LazyConfigAcceptor::new(Acceptor::default(), tcp).await?;
        Ok(ClientHello { start, security: self.0.clone() })
    }
}

impl ClientHello {
    /// Shakes hands: signatures of both sides are made and verified, for about half a millisecond of a
    /// processor.
    ///
    /// # Errors
    /// If both sides have nothing in common, or the certificate of the caller is not accepted. The caller was
    /// told.
    pub async fn shake_hands(self) -> io::Result<(Stream, Option<PeerCertificate>)> {
        let state = self.security.state();
        let tls = state.tls().ok_or_else(|| io::Error::other("TLS is off"))?;
        let config: &Arc<ServerConfig> =
            tls.server.as_ref().ok_or_else(|| io::Error::other("a client takes no connections"))?;
        let accepted = self.start.into_stream(config.clone()).into_fallible().await;
        let stream = match accepted {
            Ok(stream) => stream,
            Err((error, tcp)) => {
                let _ = tokio::time::timeout(LINGER_MAX, linger(tcp)).await;
                return Err(error);
            }
        };
        let chain = stream.get_ref().1.peer_certificates();
        let certificate = chain.map(|chain| peer::parse(chain, tls.is_of_secret));
        let certificate = certificate.transpose().map_err(io::Error::other)?;
        Ok((Stream::Tls(Box::new(stream.into())), certificate))
    }
}

/// Ends the sending direction, and reads until the other side ends its own.
async fn linger(mut tcp: TcpStream) -> io::Result<()> {
    tcp.shutdown().await?;
    tokio::io::copy(&mut tcp.take(LINGER_BYTES_MAX), &mut tokio::io::sink()).await?;
    Ok(())
}

impl fmt::Debug for ClientHello {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientHello(..)")
    }
}
