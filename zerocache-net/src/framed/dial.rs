//! From an address to a framed connection: connect, introduce oneself, change the protocol.

use std::{error::Error, io, net::SocketAddr, sync::Arc, time::Duration};

use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Request as HttpRequest, Response as HttpResponse, StatusCode,
    body::Incoming as HttpBody,
    client::conn::http1,
    header::{CONNECTION, CONTENT_TYPE, HOST, UPGRADE},
};
use hyper_util::rt::TokioIo;
use tokio::{io::AsyncReadExt, net::TcpStream, task::JoinSet};
use zerocache_core::{
    call::CallFailure,
    limits::VALUE_BYTES_WIRE_MAX,
    wire::{Hello, MESSAGE_OVERHEAD_BYTES, RefusalCode, RequestMessage, Response, frame::Opcode},
};

use super::{
    HANDSHAKE_ID, SENT_HEADER, UPGRADE_TOKEN,
    inbox::{Inbox, Incoming, Unmetered},
};
use crate::{
    clock,
    transport::{MESSAGES_PATH, MESSAGES_TYPE},
};

/// The most bytes of an answer that is no upgrade: a handshake with all members, or an error.
const ANSWER_BYTES_MAX: usize = 256 << 10;

/// The largest message that is taken from a node.
const MESSAGE_BYTES_MAX: usize = VALUE_BYTES_WIRE_MAX + MESSAGE_OVERHEAD_BYTES;

/// What a node said to the wish for a framed connection.
pub(super) enum Dialled {
    /// It speaks frames from here on.
    Framed(Box<Framed>),
    /// It answered the handshake, or refused it, over HTTP.
    Plain(Response),
    /// Something in between does not let the wish through.
    Hidden,
}

/// A framed connection and who is at its other end.
pub(super) struct Framed {
    pub(super) stream: TcpStream,
    /// What has been read beyond the handshake.
    pub(super) inbox: Inbox,
    pub(super) peer: Hello,
}

/// After this long without an answer another try to connect begins beside the first: longer than any
/// round trip, shorter than the second after which the system sends again.
const CONNECT_AGAIN: Duration = Duration::from_millis(300);

/// How long the handshake on a connection may take: the far side of the world answers in a third of it,
/// and whoever waits has a bound of its own.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(1);

/// Connects to `to`, within `timeout`, says `hello` and asks for a framed connection.
///
/// # Errors
/// Why nothing was done there.
pub(super) async fn dial(
    to: SocketAddr,
    hello: RequestMessage,
    timeout: Duration,
) -> Result<Dialled, CallFailure> {
    let connected = tokio::time::timeout(timeout, connect(to)).await;
    let stream = match connected {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
            return Err(CallFailure::Refused);
        }
        _ => return Err(CallFailure::NotSent),
    };
    let _ = stream.set_nodelay(true);
    let upgraded = tokio::time::timeout(HANDSHAKE_TIMEOUT, upgrade(stream, to, hello)).await;
    // The handshake changes nothing that must not happen twice.
    upgraded.unwrap_or_else(|_| Err("no answer".into())).map_err(|error| {
        tracing::debug!(%to, %error, "no handshake");
        CallFailure::NotSent
    })
}

/// Connects, and tries again beside that while nothing is heard: whoever lost the first packet of a
/// connection would wait for a second, whatever the state of the line is by then.
async fn connect(to: SocketAddr) -> io::Result<TcpStream> {
    let mut tries = JoinSet::new();
    loop {
        tries.spawn(TcpStream::connect(to));
        tokio::select! {
            // Dropping the set ends the other tries.
            Some(tried) = tries.join_next() => return tried.map_err(io::Error::other)?,
            () = tokio::time::sleep(CONNECT_AGAIN) => {}
        }
    }
}

async fn upgrade(
    stream: TcpStream,
    to: SocketAddr,
    mut hello: RequestMessage,
) -> Result<Dialled, Box<dyn Error + Send + Sync>> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection.with_upgrades());
    // Ends with the stream, unless the stream is taken out of it.
    let _owner = AbortOnDrop(connection);
    let now = clock::mono();
    hello.envelope.sent_ms = now.as_millis();
    let request = HttpRequest::post(MESSAGES_PATH)
        .header(HOST, to.to_string())
        .header(CONTENT_TYPE, MESSAGES_TYPE)
        .header(CONNECTION, "upgrade")
        .header(UPGRADE, UPGRADE_TOKEN)
        .header(SENT_HEADER, now.as_millis() as u32)
        .body(Full::new(hello.encode(now)))?;
    let response = sender.send_request(request).await?;
    match response.status() {
        StatusCode::SWITCHING_PROTOCOLS => framed(response).await,
        StatusCode::OK if is_message(&response) => plain(response).await,
        // The node is there and speaks for itself: it has too much to do, or has just stood still.
        StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::TOO_MANY_REQUESTS
        | StatusCode::REQUEST_TIMEOUT => {
            Ok(Dialled::Plain(Response::refused(RefusalCode::Overloaded, "the node is overloaded")))
        }
        _ => Ok(Dialled::Hidden),
    }
}

async fn framed(response: HttpResponse<HttpBody>) -> Result<Dialled, Box<dyn Error + Send + Sync>> {
    let token = response.headers().get(UPGRADE).map(|token| token.as_bytes());
    if token != Some(UPGRADE_TOKEN.as_bytes()) {
        return Ok(Dialled::Hidden);
    }
    let sent = response.headers().get(SENT_HEADER).and_then(|value| value.to_str().ok());
    let sent_ms = sent.and_then(|text| text.parse().ok());
    let upgraded = hyper::upgrade::on(response).await?;
    let parts = upgraded.downcast::<TokioIo<TcpStream>>().map_err(|_| "not the stream")?;
    let mut stream = parts.io.into_inner();
    let mut inbox = Inbox::new(MESSAGE_BYTES_MAX, Arc::new(Unmetered));
    if let Some(sent_ms) = sent_ms {
        inbox.note_sent(sent_ms, clock::mono());
    }
    inbox.extend(&parts.read_buf);
    let peer = introduction(&mut stream, &mut inbox).await?;
    Ok(Dialled::Framed(Box::new(Framed { stream, inbox, peer })))
}

/// Reads the first message of a framed connection: who is there.
async fn introduction(
    stream: &mut TcpStream,
    inbox: &mut Inbox,
) -> Result<Hello, Box<dyn Error + Send + Sync>> {
    loop {
        while let Some((header, _, incoming)) = inbox.next(clock::mono())? {
            let message = match incoming {
                Incoming::Small(_) => inbox.take(),
                Incoming::Large(message) => message,
                Incoming::Refused(_) | Incoming::Nothing => continue,
            };
            if header.opcode != Opcode::Response || header.id != HANDSHAKE_ID {
                continue;
            }
            return match Response::decode(message)? {
                Response::Hello(hello) => Ok(*hello),
                _ => Err("the first message is no introduction".into()),
            };
        }
        if stream.read_buf(inbox.buffer()).await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
    }
}

async fn plain(response: HttpResponse<HttpBody>) -> Result<Dialled, Box<dyn Error + Send + Sync>> {
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await?;
    Ok(Dialled::Plain(Response::decode(body.to_bytes())?))
}

fn is_message(response: &HttpResponse<HttpBody>) -> bool {
    response.headers().get(CONTENT_TYPE).is_some_and(|given| given == MESSAGES_TYPE)
}

struct AbortOnDrop(tokio::task::JoinHandle<Result<(), hyper::Error>>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
