//! Fetches an original from a stranger's URL, within bounds that do not depend on what the stranger does.
//!
//! - Each URL is checked, that of every redirect too, and so is each address that its name resolves to. What was
//!   checked is what is connected to: a name is resolved once.
//! - There is no proxy, no cookie, no password and no `Referer`.
//! - The bytes are counted as they arrive, and they must keep arriving. The type is found by the bytes.

mod body;
mod connect;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper::header::{CONTENT_ENCODING, HOST, HeaderValue, LOCATION};
use hyper::{Request, Response, StatusCode, body::Incoming};
use hyper_util::rt::TokioIo;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use url::Url;

use crate::convert::Kind;
use crate::failure::Failure;
use crate::source::{Source, SourceRules};
use connect::Stream;

/// Redirects that are followed.
const HOPS_MAX: usize = 3;

/// The longest head of an answer, in bytes.
const HEAD_BYTES_MAX: usize = 32 << 10;

/// What a fetch may take.
#[derive(Clone, Copy, Debug)]
pub struct FetchLimits {
    /// The time to resolve a name and to connect.
    pub connect: Duration,
    /// The time from there to the head of the answer, TLS included.
    pub first_byte: Duration,
    /// The time of all, redirects included.
    pub total: Duration,
    /// The most bytes of an original.
    pub bytes: usize,
    /// The least bytes per second, once they arrive.
    pub rate: usize,
    /// The interval in which the rate is measured.
    pub rate_interval: Duration,
}

impl Default for FetchLimits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(2),
            first_byte: Duration::from_secs(5),
            total: Duration::from_secs(15),
            bytes: 25 << 20,
            rate: 16 << 10,
            rate_interval: Duration::from_secs(2),
        }
    }
}

/// Fetches originals.
#[derive(Clone)]
pub struct Fetcher {
    rules: Arc<SourceRules>,
    limits: FetchLimits,
    /// Names with addresses of their own, before the system is asked; the rules hold for them too.
    names: Arc<HashMap<String, Vec<IpAddr>>>,
    tls: TlsConnector,
}

impl Fetcher {
    /// Creates a fetcher, with the certificate authorities of the system and others, in PEM.
    ///
    /// # Errors
    /// If an authority cannot be read, or the TLS library does not work.
    pub fn new(
        rules: SourceRules,
        limits: FetchLimits,
        authorities: &[u8],
    ) -> anyhow::Result<Self> {
        let tls = connect::tls(authorities)?;
        Ok(Self { rules: Arc::new(rules), limits, names: Arc::default(), tls })
    }

    /// Gives names addresses, as a hosts file does.
    #[must_use]
    pub fn with_names(mut self, names: HashMap<String, Vec<IpAddr>>) -> Self {
        self.names = Arc::new(names);
        self
    }

    /// The rules.
    #[must_use]
    pub fn rules(&self) -> &SourceRules {
        &self.rules
    }

    /// Fetches an original, and finds its type by its bytes.
    ///
    /// # Errors
    /// A [`Failure`] that fits; what exactly went wrong is in the log, at DEBUG, and not in the failure.
    pub async fn fetch(&self, source: &Source) -> Result<(Kind, Vec<u8>), Failure> {
        let fetched = timeout(self.limits.total, self.follow(source.url().clone())).await;
        let bytes = fetched.unwrap_or(Err(Failure::OriginTimeout))?;
        let kind = Kind::of(&bytes).ok_or(Failure::NotAnImage)?;
        Ok((kind, bytes))
    }

    async fn follow(&self, mut url: Url) -> Result<Vec<u8>, Failure> {
        for _ in 0..=HOPS_MAX {
            self.rules.check(&url)?;
            let (answer, _connection) = self.request(&url).await?;
            match answer.status() {
                StatusCode::OK => return self.read(answer).await,
                StatusCode::NOT_FOUND | StatusCode::GONE => return Err(Failure::OriginNotFound),
                StatusCode::MOVED_PERMANENTLY
                | StatusCode::FOUND
                | StatusCode::SEE_OTHER
                | StatusCode::TEMPORARY_REDIRECT
                | StatusCode::PERMANENT_REDIRECT => {
                    let target = answer.headers().get(LOCATION).and_then(|to| to.to_str().ok());
                    let target = target.and_then(|to| url.join(to).ok());
                    // A redirect to what is no HTTP is the origin's fault, not the caller's.
                    url = target
                        .filter(|url| matches!(url.scheme(), "http" | "https"))
                        .ok_or(Failure::OriginFailed)?;
                }
                status => {
                    tracing::debug!(%status, host = url.host_str(), "origin refused");
                    return Err(Failure::OriginFailed);
                }
            }
        }
        Err(Failure::OriginFailed)
    }

    /// Sends a request, and returns the answer without its body, and the connection, which ends when it is
    /// dropped.
    async fn request(&self, url: &Url) -> Result<(Response<Incoming>, Connection), Failure> {
        let stream = self.connect(url).await?;
        let exchange = async {
            let stream = connect::secure(stream, url, &self.tls).await?;
            match stream {
                Stream::Plain(stream) => exchange(TokioIo::new(stream), url).await,
                Stream::Tls(stream) => exchange(TokioIo::new(stream), url).await,
            }
        };
        timeout(self.limits.first_byte, exchange).await.unwrap_or(Err(Failure::OriginTimeout))
    }

    async fn connect(&self, url: &Url) -> Result<tokio::net::TcpStream, Failure> {
        let connected = async {
            let addresses = connect::resolve(url, &self.names).await?;
            connect::connect(&addresses, &self.rules).await
        };
        timeout(self.limits.connect, connected).await.unwrap_or(Err(Failure::OriginTimeout))
    }

    async fn read(&self, answer: Response<Incoming>) -> Result<Vec<u8>, Failure> {
        // Nothing else was asked for, and what is inside could be of any size.
        let coded =
            answer.headers().get(CONTENT_ENCODING).is_some_and(|coding| coding != "identity");
        if coded {
            return Err(Failure::OriginFailed);
        }
        body::read(answer.into_body(), &self.limits).await
    }
}

/// The task of a connection; it ends with this.
struct Connection(tokio::task::JoinHandle<()>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn exchange<I>(io: I, url: &Url) -> Result<(Response<Incoming>, Connection), Failure>
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let mut builder = http1::Builder::new();
    builder.max_buf_size(HEAD_BYTES_MAX);
    let (mut sender, connection) = builder.handshake(io).await.map_err(|error| failed(&error))?;
    let connection = Connection(tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "connection to an origin ended");
        }
    }));
    let request = request_for(url).ok_or(Failure::OriginFailed)?;
    let answer = sender.send_request(request).await.map_err(|error| failed(&error))?;
    Ok((answer, connection))
}

fn request_for(url: &Url) -> Option<Request<Empty<Bytes>>> {
    let target = match url.query() {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_owned(),
    };
    let host = match url.port() {
        Some(port) => format!("{}:{port}", url.host_str()?),
        None => url.host_str()?.to_owned(),
    };
    let request = Request::get(target)
        .header(HOST, HeaderValue::try_from(host).ok()?)
        .header("user-agent", concat!("zerocache-images/", env!("CARGO_PKG_VERSION")))
        .header("accept", "image/png,image/jpeg,image/gif,image/webp")
        .header("accept-encoding", "identity")
        .header("connection", "close");
    request.body(Empty::new()).ok()
}

fn failed(error: &(dyn std::error::Error + 'static)) -> Failure {
    tracing::debug!(error, "origin failed");
    Failure::OriginFailed
}
