//! Messages as bodies of HTTP/1.1 requests, `POST /v1/messages`: the fallback where something refuses
//! framed connections.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Weak},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Request as HttpRequest, StatusCode,
    body::{Body, Incoming as HttpBody},
    client::conn::http1::{self, SendRequest},
    header::HeaderValue,
};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use zerocache_core::{
    call::CallFailure,
    time::Instant,
    wire::{RefusalCode, RequestMessage, Response},
};

#[cfg(feature = "tls")]
use super::stream::failure;
use super::{
    Call, RESPONSE_BYTES_MAX, Transport,
    dial::{authorization, message_request, refusal},
    framed::CallResult,
    stream::Stream,
};
#[cfg(feature = "tls")]
use crate::security::ConnectError;
use crate::{clock, security::Security};

/// Idle connections kept for one node: enough for the concurrency of a busy client.
const IDLE_PER_NODE_MAX: usize = 64;

/// An idle connection is kept this long: less than the time after which a node closes it.
const IDLE_MAX: Duration = Duration::from_secs(20);

/// Sends messages over HTTP/1.1 and keeps connections for the next ones. Cheap to clone.
///
/// Its calls need a tokio runtime with I/O and time; the connections belong to the runtime of the call that
/// opened them.
#[derive(Clone, Debug)]
pub(super) struct HttpTransport {
    pool: Arc<IdlePool>,
    connect_timeout: Duration,
    security: Security,
}

impl HttpTransport {
    /// Creates a transport that gives up connecting after `connect_timeout`.
    pub(super) fn new(connect_timeout: Duration, security: Security) -> Self {
        Self { pool: Arc::default(), connect_timeout, security }
    }

    /// Sends `message` over an idle or a new connection and reads the response. `is_sent` becomes true
    /// when the request can have reached the node.
    async fn exchange(
        &self,
        to: SocketAddr,
        mut message: RequestMessage,
        is_sent: &mut bool,
    ) -> CallResult {
        loop {
            let idle = self.pool.take(to, self.security.generation()).await;
            let is_reused = idle.is_some();
            let mut connection = match idle {
                Some(connection) => connection,
                None => self.connect(to).await?,
            };
            let request = encode(to, &mut message, connection.authorization.clone())?;
            *is_sent = true;
            match connection.sender.try_send_request(request).await {
                Ok(response) => {
                    let result = read(to, response).await;
                    // A connection that is no longer usable is found out by the next call.
                    self.pool.put(to, connection);
                    return result;
                }
                Err(mut error) => {
                    // A node that does not accept a certificate says so only now.
                    #[cfg(feature = "tls")]
                    if !is_reused && let Some(refused) = ConnectError::of(error.error()) {
                        return Err(failure(to, refused));
                    }
                    match error.take_message() {
                        // The node closed an idle connection; the request was not written.
                        Some(_) if is_reused => *is_sent = false,
                        Some(_) => return Err(CallFailure::NotSent),
                        None => return Err(CallFailure::NoAnswer),
                    }
                }
            }
        }
    }

    async fn connect(&self, to: SocketAddr) -> Result<HttpConnection, CallFailure> {
        let generation = self.security.generation();
        let stream = Stream::connect(to, self.connect_timeout, &self.security).await?;
        let authorization = authorization(&stream, &self.security);
        let handshake = http1::handshake(TokioIo::new(stream)).await;
        let (sender, connection) = handshake.map_err(|_| CallFailure::NotSent)?;
        // Ends with the stream, or when the sender is dropped.
        tokio::spawn(connection);
        Ok(HttpConnection { sender, authorization, generation })
    }
}

impl Transport for HttpTransport {
    fn call(&self, to: SocketAddr, message: RequestMessage, timeout: Duration) -> Call {
        let this = self.clone();
        Call::boxed(async move {
            let mut is_sent = false;
            let exchange = this.exchange(to, message, &mut is_sent);
            match tokio::time::timeout(timeout, exchange).await {
                Ok(result) => result,
                Err(_) if is_sent => Err(CallFailure::NoAnswer),
                Err(_) => Err(CallFailure::NotSent),
            }
        })
    }
}

/// A connection, and what it was opened with.
#[derive(Debug)]
struct HttpConnection {
    sender: SendRequest<Full<Bytes>>,
    /// The header that presents the token.
    authorization: Option<HeaderValue>,
    /// The generation of the credentials.
    generation: u64,
}

fn encode(
    to: SocketAddr,
    message: &mut RequestMessage,
    authorization: Option<HeaderValue>,
) -> Result<HttpRequest<Full<Bytes>>, CallFailure> {
    let now = clock::mono();
    message.envelope.sent_ms = now.as_millis();
    message_request(to, authorization)
        .body(Full::new(message.encode(now)))
        .map_err(|_| CallFailure::NotSent)
}

/// Returns the response that `response` carries, or what its status means.
async fn read(to: SocketAddr, response: hyper::Response<HttpBody>) -> CallResult {
    let status = response.status();
    if status != StatusCode::OK {
        return match refusal(response).await {
            Some(refusal) => Ok(refusal),
            None => result_of_status(status),
        };
    }
    let body = response.into_body();
    if body.size_hint().lower() > RESPONSE_BYTES_MAX as u64 {
        return Err(CallFailure::NoAnswer);
    }
    let body = Limited::new(body, RESPONSE_BYTES_MAX).collect().await;
    let body = body.map_err(|_| CallFailure::NoAnswer)?.to_bytes();
    Response::decode(body).map_err(|error| {
        tracing::debug!(%to, %error, "cannot decode response");
        CallFailure::NoAnswer
    })
}

/// Returns the result for a status other than 200: the message never reached the node's logic.
fn result_of_status(status: StatusCode) -> CallResult {
    match status {
        StatusCode::PAYLOAD_TOO_LARGE => Ok(Response::refused(
            RefusalCode::TooLarge,
            "the message is larger than the node allows",
        )),
        status if status.is_client_error() => {
            Ok(Response::refused(RefusalCode::BadMessage, format!("the node answered {status}")))
        }
        // A proxy gave up; the message may have arrived.
        _ => Err(CallFailure::NoAnswer),
    }
}

/// The connections that wait for their next request, by node.
#[derive(Debug, Default)]
struct IdlePool {
    connections: Mutex<HashMap<SocketAddr, Vec<Idle>>>,
}

#[derive(Debug)]
struct Idle {
    connection: HttpConnection,
    since: Instant,
}

impl Idle {
    fn is_usable(&self, now: Instant) -> bool {
        now.since(self.since) < IDLE_MAX && !self.connection.sender.is_closed()
    }
}

impl IdlePool {
    /// Takes the connection to `to` that was used last, is ready for a request, and was opened with these
    /// credentials.
    async fn take(&self, to: SocketAddr, generation: u64) -> Option<HttpConnection> {
        loop {
            let idle = self.connections.lock().get_mut(&to)?.pop()?;
            if !idle.is_usable(clock::mono()) || idle.connection.generation != generation {
                continue;
            }
            let mut connection = idle.connection;
            if connection.sender.ready().await.is_ok() {
                return Some(connection);
            }
        }
    }

    /// Keeps a connection for the next request to `to`.
    fn put(self: &Arc<Self>, to: SocketAddr, connection: HttpConnection) {
        let since = clock::mono();
        let mut connections = self.connections.lock();
        let is_first = connections.is_empty();
        let idle = connections.entry(to).or_default();
        if idle.len() < IDLE_PER_NODE_MAX {
            idle.push(Idle { connection, since });
        }
        drop(connections);
        if is_first {
            tokio::spawn(Self::expire(Arc::downgrade(self)));
        }
    }

    /// Drops connections that were idle for too long, until none is left.
    async fn expire(this: Weak<Self>) {
        loop {
            tokio::time::sleep(IDLE_MAX).await;
            let Some(this) = this.upgrade() else { return };
            let now = clock::mono();
            let mut connections = this.connections.lock();
            connections.retain(|_, idle| {
                idle.retain(|idle| idle.is_usable(now));
                !idle.is_empty()
            });
            // The next connection that is put starts another task.
            if connections.is_empty() {
                return;
            }
        }
    }
}
