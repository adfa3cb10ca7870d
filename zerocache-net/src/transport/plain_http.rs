//! One HTTP request to a node, for tools: its HTTP API, without the protocol of messages.

use std::{
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    HeaderMap, Method, Request, StatusCode,
    client::conn::http1,
    header::{AUTHORIZATION, HOST},
};
use hyper_util::rt::TokioIo;
use zerocache_core::{call::CallFailure, wire::RequestMessage};

use super::{
    call::AbortOnDrop,
    dial::{Dialled, authorization, dial},
    stream::Stream,
};
use crate::security::Security;

/// The largest response that is read: more than the largest value of a node.
const RESPONSE_BYTES_MAX: usize = 256 << 20;

/// The response of a node to an HTTP request.
#[derive(Clone, Debug)]
pub struct HttpResponse {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
    /// Whether nobody on the way could read it.
    pub is_encrypted: bool,
    /// When the certificate of the node ceases to be valid; none without encryption.
    pub certificate_end: Option<SystemTime>,
}

/// How a node can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reachability {
    /// By framed connections.
    Framed,
    /// By HTTP requests only: the node or a proxy in between refuses the upgrade.
    HttpOnly,
}

/// Sends one request of the HTTP API to a node on a connection of its own, and returns the whole response.
/// `target` is a path with its query. The node is verified before anything is sent, as `security` demands.
///
/// # Errors
/// [`CallFailure::Refused`] when nobody listens there, [`CallFailure::Unverified`] when the node cannot be
/// verified, [`CallFailure::NotSent`] when nothing was sent, [`CallFailure::NoAnswer`] when no response came
/// within `timeout`, or one that is too large.
pub async fn http_request(
    to: SocketAddr,
    (method, target, body): (Method, &str, Bytes),
    timeout: Duration,
    security: &Security,
) -> Result<HttpResponse, CallFailure> {
    let stream = Stream::connect(to, timeout, security).await?;
    let authorization = authorization(&stream, security);
    let (is_encrypted, certificate_end) = (stream.is_encrypted(), stream.certificate_end());
    let mut request = Request::builder().method(method).uri(target).header(HOST, to.to_string());
    if let (Some(value), Some(headers)) = (authorization, request.headers_mut()) {
        headers.insert(AUTHORIZATION, value);
    }
    let request = request.body(Full::new(body)).map_err(|_| CallFailure::NotSent)?;
    let exchange = async move {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let _abort = AbortOnDrop(tokio::spawn(connection));
        let (head, body) = sender.send_request(request).await?.into_parts();
        let body = Limited::new(body, RESPONSE_BYTES_MAX).collect().await?.to_bytes();
        let (status, headers) = (head.status, head.headers);
        Ok(HttpResponse { status, headers, body, is_encrypted, certificate_end })
    };
    let answer: Result<Result<_, Box<dyn std::error::Error + Send + Sync>>, _> =
        tokio::time::timeout(timeout, exchange).await;
    answer.ok().and_then(Result::ok).ok_or(CallFailure::NoAnswer)
}

/// Dials a node as clients do, with `hello`, and returns how it can be reached.
///
/// # Errors
/// As [`http_request`]; [`CallFailure::NotSent`] also when nobody there answers as a node.
pub async fn probe(
    to: SocketAddr,
    hello: RequestMessage,
    timeout: Duration,
    security: &Security,
) -> Result<Reachability, CallFailure> {
    Ok(match dial(to, hello, timeout, security).await? {
        Dialled::Framed(_) => Reachability::Framed,
        Dialled::Http(_) | Dialled::Blocked => Reachability::HttpOnly,
    })
}
