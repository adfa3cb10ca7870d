//! Dialling: connects to an address, says hello and upgrades the connection to a framed one.

use std::{error::Error, io, net::SocketAddr, sync::Arc, time::Duration};

use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Method, Request as HttpRequest, Response as HttpResponse, StatusCode,
    body::Incoming as HttpBody,
    client::conn::http1,
    header::{AUTHORIZATION, CONNECTION, CONTENT_TYPE, HOST, HeaderValue, UPGRADE},
    http::request,
};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncReadExt;
use zerocache_core::{
    access::Denial,
    call::CallFailure,
    wire::{Hello, RefusalCode, RequestMessage, Response, frame::Opcode},
};

#[cfg(feature = "tls")]
use super::stream::failure;
use super::{
    RESPONSE_BYTES_MAX,
    call::AbortOnDrop,
    framed::{FrameReader, HANDSHAKE_ID, Incoming, SENT_HEADER, UPGRADE_TOKEN, UnlimitedMemory},
    stream::Stream,
};
#[cfg(feature = "tls")]
use crate::security::ConnectError;
use crate::{
    clock,
    security::{Security, TlsMode},
};

/// The path under which a node takes messages over HTTP.
pub const MESSAGES_PATH: &str = "/v1/messages";

/// The media type of a message in an HTTP body.
pub const MESSAGES_TYPE: &str = "application/vnd.zerocache.message";

/// Creates the Hello that begins a connection, in the envelope of the caller.
pub type MakeHello = Arc<dyn Fn() -> RequestMessage + Send + Sync>;

/// The most bytes of a response that is no upgrade: a handshake with all members, or an error.
const HTTP_HELLO_BYTES_MAX: usize = 256 << 10;

/// The largest body of an error that is read, and the longest message of one that is passed on.
const ERROR_BYTES_MAX: usize = 4 << 10;
#[cfg(feature = "tls")]
const MESSAGE_CHARS_MAX: usize = 512;

/// The code of the error of a plain request to a node that takes TLS only.
#[cfg(feature = "tls")]
const TLS_REQUIRED: &str = "tls_required";

/// The handshake must end within this time: three times the round trip to the far side of the world.
/// Callers that wait for it have deadlines of their own.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(1);

/// A node's answer to the upgrade request.
pub(super) enum Dialled {
    /// The connection is a framed one now.
    Framed(Box<FramedStream>),
    /// The node answered or refused the handshake over HTTP.
    Http(Response),
    /// Something between here and the node does not pass the upgrade on.
    Blocked,
}

/// A framed connection and the node at its other end.
pub(super) struct FramedStream {
    pub(super) stream: Stream,
    /// Holds what was read beyond the handshake.
    pub(super) reader: FrameReader,
    pub(super) peer: Hello,
}

/// Connects to `to` within `timeout`, sends `hello` and asks for a framed connection. The node is verified
/// before anything is sent, as `security` demands.
///
/// # Errors
/// [`CallFailure::Refused`], [`CallFailure::Unverified`] or [`CallFailure::NotSent`]: the handshake changes
/// nothing on the node.
pub(super) async fn dial(
    to: SocketAddr,
    hello: RequestMessage,
    timeout: Duration,
    security: &Security,
) -> Result<Dialled, CallFailure> {
    let stream = Stream::connect(to, timeout, security).await?;
    let authorization = authorization(&stream, security);
    let upgrade = upgrade(stream, to, hello, authorization);
    let upgraded = tokio::time::timeout(HANDSHAKE_TIMEOUT, upgrade).await;
    #[cfg(feature = "tls")]
    if let Ok(Ok(Dialled::Framed(framed))) = &upgraded
        && let Some(node) = &framed.peer.node
        && !framed.stream.is_of(node.incarnation, security)
    {
        let reason = "it claims to be another node than its certificate proves".to_owned();
        return Err(failure(to, ConnectError::Unverified(reason)));
    }
    upgraded.unwrap_or_else(|_| Err("no answer".into())).map_err(|error| {
        // A node that does not accept a certificate says so only now.
        #[cfg(feature = "tls")]
        if let Some(refused) = ConnectError::of(&*error) {
            return failure(to, refused);
        }
        tracing::debug!(%to, %error, "handshake failed");
        CallFailure::NotSent
    })
}

/// Returns the header with the token, if it may be sent over `stream`: in clear text only if TLS is off, which
/// somebody who has a token must have said.
pub(super) fn authorization(stream: &Stream, security: &Security) -> Option<HeaderValue> {
    let is_permitted = stream.is_encrypted() || security.mode() == TlsMode::Off;
    security.authorization().filter(|_| is_permitted)
}

async fn upgrade(
    stream: Stream,
    to: SocketAddr,
    mut hello: RequestMessage,
    authorization: Option<HeaderValue>,
) -> Result<Dialled, Box<dyn Error + Send + Sync>> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection.with_upgrades());
    // Ends the connection, unless the upgrade takes the stream out of it.
    let _abort = AbortOnDrop(connection);
    let now = clock::mono();
    hello.envelope.sent_ms = now.as_millis();
    let request = message_request(to, authorization)
        .header(CONNECTION, "upgrade")
        .header(UPGRADE, UPGRADE_TOKEN)
        .header(SENT_HEADER, now.as_millis() as u32)
        .body(Full::new(hello.encode(now)))?;
    let response = sender.send_request(request).await?;
    match response.status() {
        StatusCode::SWITCHING_PROTOCOLS => upgraded(response).await,
        StatusCode::OK if is_message(&response) => http_hello(response).await,
        _ => Ok(refusal(response).await.map_or(Dialled::Blocked, Dialled::Http)),
    }
}

/// Begins an HTTP request that carries a message to `to`.
pub(super) fn message_request(
    to: SocketAddr,
    authorization: Option<HeaderValue>,
) -> request::Builder {
    let request = request_to(to, (Method::POST, MESSAGES_PATH), authorization);
    request.header(CONTENT_TYPE, MESSAGES_TYPE)
}

/// Begins an HTTP request to `to` for a path with its query.
pub(super) fn request_to(
    to: SocketAddr,
    (method, target): (Method, &str),
    authorization: Option<HeaderValue>,
) -> request::Builder {
    let request = HttpRequest::builder().method(method).uri(target);
    let mut request = request.header(HOST, to.to_string());
    if let (Some(value), Some(headers)) = (authorization, request.headers_mut()) {
        headers.insert(AUTHORIZATION, value);
    }
    request
}

/// Returns the refusal that a response other than 200 stands for: the node does not permit the request, is
/// overloaded, or was suspended until now.
pub(super) async fn refusal(response: HttpResponse<HttpBody>) -> Option<Response> {
    match response.status() {
        StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::TOO_MANY_REQUESTS
        | StatusCode::REQUEST_TIMEOUT => {
            Some(Response::refused(RefusalCode::Overloaded, "the node is overloaded"))
        }
        status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::BAD_REQUEST) => {
            let body = Limited::new(response.into_body(), ERROR_BYTES_MAX).collect().await.ok()?;
            denial(status, &body.to_bytes())
        }
        _ => None,
    }
}

/// Returns the refusal that an error states: its status alone, because nothing that the body may tell apart can be
/// done without credentials.
#[cfg(not(feature = "tls"))]
pub(super) fn denial(status: StatusCode, _: &[u8]) -> Option<Response> {
    let (denial, message) = match status {
        StatusCode::UNAUTHORIZED => (
            Denial::Missing,
            "the node wants credentials, which a program without the feature tls has not",
        ),
        StatusCode::FORBIDDEN => (
            Denial::Protected,
            "the node serves callers of its own host, or with credentials, only",
        ),
        _ => return None,
    };
    Some(Response::refused(denial.refusal_code(), message))
}

/// Returns the refusal in the JSON body of an error. None for an error of another kind, or of a proxy.
#[cfg(feature = "tls")]
pub(super) fn denial(_: StatusCode, body: &[u8]) -> Option<Response> {
    let body: serde_json::Value = serde_json::from_slice(body).ok()?;
    let code = body.get("code")?.as_str()?;
    let message = body.get("message").and_then(serde_json::Value::as_str).unwrap_or(code);
    let message: String = message.chars().take(MESSAGE_CHARS_MAX).collect();
    let refusal = match code {
        TLS_REQUIRED => RefusalCode::Unauthenticated,
        _ => Denial::ALL.into_iter().find(|denial| denial.as_str() == code)?.refusal_code(),
    };
    Some(Response::refused(refusal, message))
}

async fn upgraded(
    response: HttpResponse<HttpBody>,
) -> Result<Dialled, Box<dyn Error + Send + Sync>> {
    let token = response.headers().get(UPGRADE).map(|token| token.as_bytes());
    if token != Some(UPGRADE_TOKEN.as_bytes()) {
        return Ok(Dialled::Blocked);
    }
    let sent = response.headers().get(SENT_HEADER).and_then(|value| value.to_str().ok());
    let sent_ms = sent.and_then(|text| text.parse().ok());
    let upgraded = hyper::upgrade::on(response).await?;
    let parts = upgraded
        .downcast::<TokioIo<Stream>>()
        .map_err(|_| "the upgraded connection has another kind of stream")?;
    let mut stream = parts.io.into_inner();
    let mut reader = FrameReader::new(RESPONSE_BYTES_MAX, Arc::new(UnlimitedMemory));
    if let Some(sent_ms) = sent_ms {
        reader.note_sent(sent_ms, clock::mono());
    }
    reader.extend(&parts.read_buf);
    let peer = read_hello(&mut stream, &mut reader).await?;
    Ok(Dialled::Framed(Box::new(FramedStream { stream, reader, peer })))
}

/// Reads the first message of a framed connection: the node's Hello.
async fn read_hello(
    stream: &mut Stream,
    reader: &mut FrameReader,
) -> Result<Hello, Box<dyn Error + Send + Sync>> {
    loop {
        while let Some((header, _, incoming)) = reader.next(clock::mono())? {
            let message = match incoming {
                Incoming::Small(_) => reader.take(),
                Incoming::Large(message) => message,
                Incoming::Refused(_) | Incoming::Nothing => continue,
            };
            if header.opcode != Opcode::Response || header.id != HANDSHAKE_ID {
                continue;
            }
            return match Response::decode(message)? {
                Response::Hello(hello) => Ok(*hello),
                _ => Err("the first message of the node is not a Hello".into()),
            };
        }
        if stream.read_buf(reader.buffer()).await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
    }
}

async fn http_hello(
    response: HttpResponse<HttpBody>,
) -> Result<Dialled, Box<dyn Error + Send + Sync>> {
    let body = Limited::new(response.into_body(), HTTP_HELLO_BYTES_MAX).collect().await?;
    Ok(Dialled::Http(Response::decode(body.to_bytes())?))
}

fn is_message(response: &HttpResponse<HttpBody>) -> bool {
    response.headers().get(CONTENT_TYPE).is_some_and(|given| given == MESSAGES_TYPE)
}
