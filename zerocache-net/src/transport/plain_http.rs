//! One HTTP request to a node, for tools: its HTTP API, without the protocol of messages.

use std::{
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{HeaderMap, Method, StatusCode, client::conn::http1};
use hyper_util::rt::TokioIo;
use zerocache_core::{
    call::CallFailure,
    wire::{RequestMessage, Response},
};

#[cfg(feature = "tls")]
use super::stream::failure;
use super::{
    RESPONSE_BYTES_MAX,
    call::AbortOnDrop,
    dial::{Dialled, authorization, dial, request_to},
    stream::Stream,
};
#[cfg(feature = "tls")]
use crate::security::ConnectError;
use crate::security::Security;

/// The response of a node to an HTTP request.
#[derive(Clone, Debug)]
pub struct HttpResponse {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
    /// When the certificate of the node ceases to be valid; none without encryption.
    pub certificate_end: Option<SystemTime>,
}

/// Sends one request of the HTTP API to a node on a connection of its own, and returns the whole response.
/// The request is a method, a path with its query, and a body; `headers` are added. The node is verified before anything is sent, as `security` demands.
///
/// # Errors
/// [`CallFailure::Refused`] when nobody listens there, [`CallFailure::OtherHost`] when it is on another host and
/// may not be, [`CallFailure::Unverified`] when the node cannot be verified or does not accept the certificate of
/// this process, [`CallFailure::NotSent`] when nothing was sent, [`CallFailure::NoAnswer`] when no response came
/// within `timeout`, or one that is too large.
pub async fn http_request(
    to: SocketAddr,
    request: (Method, &str, Bytes),
    headers: HeaderMap,
    timeout: Duration,
    security: &Security,
) -> Result<HttpResponse, CallFailure> {
    let mut is_sent = false;
    let exchange = exchange(to, (request, headers), (timeout, security), &mut is_sent);
    match tokio::time::timeout(timeout, exchange).await {
        Ok(result) => result,
        Err(_) if is_sent => Err(CallFailure::NoAnswer),
        Err(_) => Err(CallFailure::NotSent),
    }
}

/// Connects, sends the request and reads the response. `is_sent` becomes true when the request can have reached
/// the node.
async fn exchange(
    to: SocketAddr,
    ((method, target, body), headers): ((Method, &str, Bytes), HeaderMap),
    (timeout, security): (Duration, &Security),
    is_sent: &mut bool,
) -> Result<HttpResponse, CallFailure> {
    let stream = Stream::connect(to, timeout, security).await?;
    let request = request_to(to, (method, target), authorization(&stream, security));
    let mut request = request.body(Full::new(body)).map_err(|_| CallFailure::NotSent)?;
    request.headers_mut().extend(headers);
    let certificate_end = stream.certificate_end();
    let handshake = http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|_| CallFailure::NotSent)?;
    let _abort = AbortOnDrop(tokio::spawn(connection));
    *is_sent = true;
    let response = sender.try_send_request(request).await.map_err(|mut error| {
        // A node that does not accept a certificate says so only now.
        #[cfg(feature = "tls")]
        if let Some(refused) = ConnectError::of(error.error()) {
            return failure(to, refused);
        }
        error.take_message().map_or(CallFailure::NoAnswer, |_| CallFailure::NotSent)
    })?;
    let (head, body) = response.into_parts();
    let body = Limited::new(body, RESPONSE_BYTES_MAX).collect().await;
    let body = body.map_err(|_| CallFailure::NoAnswer)?.to_bytes();
    Ok(HttpResponse { status: head.status, headers: head.headers, body, certificate_end })
}

/// Dials a node as clients do, with `hello`, and returns whether it, or a proxy in between, refuses framed
/// connections. A node that refuses the caller has not refused the connection.
///
/// # Errors
/// As [`http_request`]; [`CallFailure::NotSent`] also when nobody there answers as a node.
pub async fn refuses_frames(
    to: SocketAddr,
    hello: RequestMessage,
    timeout: Duration,
    security: &Security,
) -> Result<bool, CallFailure> {
    Ok(match dial(to, hello, timeout, security).await? {
        Dialled::Framed(_) => false,
        Dialled::Http(response) => matches!(response, Response::Hello(_)),
        Dialled::Blocked => true,
    })
}
