//! Messages as bodies of HTTP/1.1 requests: `POST /v1/messages`.

use std::{error::Error as _, io, net::SocketAddr, time::Duration};

use bytes::{Bytes, BytesMut};
use reqwest::{StatusCode, header};
use zerocache_core::{
    call::CallFailure,
    limits::VALUE_BYTES_WIRE_MAX,
    wire::{MESSAGE_OVERHEAD_BYTES, RefusalCode, RequestMessage, Response},
};

use super::{Call, MESSAGES_PATH, MESSAGES_TYPE, Transport};
use crate::clock;

/// Idle connections kept for one node: enough for the concurrency of a busy client.
const IDLE_PER_NODE_MAX: usize = 64;

/// How long an idle connection is kept; below the time after which a node closes it.
const IDLE_MAX: Duration = Duration::from_secs(20);

/// The HTTP client cannot be made.
#[derive(Debug, thiserror::Error)]
#[error("the HTTP client cannot be made")]
pub struct TransportError(#[from] reqwest::Error);

/// Carries messages over HTTP/1.1 with kept connections. Cheap to clone.
#[derive(Clone, Debug)]
pub struct HttpTransport {
    client: reqwest::Client,
}

impl HttpTransport {
    /// A transport whose connections come about within `connect_timeout` or not at all.
    ///
    /// # Errors
    /// When the system does not permit an HTTP client.
    pub fn new(connect_timeout: Duration) -> Result<Self, TransportError> {
        let client = reqwest::Client::builder()
            .http1_only()
            .no_proxy()
            .tcp_nodelay(true)
            .connect_timeout(connect_timeout)
            .pool_max_idle_per_host(IDLE_PER_NODE_MAX)
            .pool_idle_timeout(IDLE_MAX)
            .redirect(reqwest::redirect::Policy::none())
            .build()?;
        Ok(Self { client })
    }
}

impl Transport for HttpTransport {
    fn call(&self, to: SocketAddr, mut message: RequestMessage, timeout: Duration) -> Call {
        let request = self
            .client
            .post(format!("http://{to}{MESSAGES_PATH}"))
            .header(header::CONTENT_TYPE, MESSAGES_TYPE)
            .timeout(timeout);
        Call::boxed(async move {
            let now = clock::mono();
            message.envelope.sent_ms = now.as_millis();
            let body = message.encode(now);
            drop(message);
            let response = request.body(body).send().await.map_err(|error| failure(&error))?;
            let status = response.status();
            if status != StatusCode::OK {
                return refused(status);
            }
            let body = read(response).await?;
            Response::decode(body).map_err(|error| {
                tracing::debug!(%to, %error, "undecodable response");
                CallFailure::NoAnswer
            })
        })
    }
}

/// The meaning of a status other than 200: the message never reached the node's logic.
fn refused(status: StatusCode) -> Result<Response, CallFailure> {
    match status {
        StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::TOO_MANY_REQUESTS
        | StatusCode::REQUEST_TIMEOUT => {
            Ok(Response::refused(RefusalCode::Overloaded, "the node is overloaded"))
        }
        StatusCode::PAYLOAD_TOO_LARGE => Ok(Response::refused(
            RefusalCode::TooLarge,
            "the message is larger than the node allows",
        )),
        status if status.is_client_error() => {
            Ok(Response::refused(RefusalCode::BadMessage, format!("the node answered {status}")))
        }
        // Somebody in between gave up; the message may have arrived.
        _ => Err(CallFailure::NoAnswer),
    }
}

async fn read(mut response: reqwest::Response) -> Result<Bytes, CallFailure> {
    let most = VALUE_BYTES_WIRE_MAX + MESSAGE_OVERHEAD_BYTES;
    if response.content_length().is_some_and(|length| length > most as u64) {
        return Err(CallFailure::NoAnswer);
    }
    let mut body = BytesMut::new();
    while let Some(chunk) = response.chunk().await.map_err(|_| CallFailure::NoAnswer)? {
        if body.len() + chunk.len() > most {
            return Err(CallFailure::NoAnswer);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

fn failure(error: &reqwest::Error) -> CallFailure {
    if error.is_builder() {
        return CallFailure::NotSent;
    }
    if !error.is_connect() {
        return CallFailure::NoAnswer;
    }
    let mut source = error.source();
    while let Some(cause) = source {
        let refused = |io: &io::Error| io.kind() == io::ErrorKind::ConnectionRefused;
        if cause.downcast_ref::<io::Error>().is_some_and(refused) {
            return CallFailure::Refused;
        }
        source = cause.source();
    }
    CallFailure::NotSent
}
