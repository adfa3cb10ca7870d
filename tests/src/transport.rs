//! The two ways in which a message reaches a node, for tests that send their own; and which of them
//! the nodes and clients of a test run use among themselves.

use std::io;
use std::net::SocketAddr;

use bytes::Bytes;
use zerocache_client::ops::Connections;
use zerocache_core::wire::{RefusalCode, Response};
use zerocache_net::transport::{MESSAGES_PATH, MESSAGES_TYPE};

use crate::frames::Framed;
use crate::http::{self, Answer};
use crate::security::Keys;
use crate::stream::Stream;

/// Returns the kind of connections that `ZEROCACHE_CONNECTIONS` selects for the nodes and clients
/// of this test run, unless a test chooses another.
///
/// # Panics
///
/// If the variable has another value.
#[must_use]
pub fn connections() -> Connections {
    let wanted = std::env::var("ZEROCACHE_CONNECTIONS").unwrap_or_default();
    if wanted.is_empty() {
        return Connections::default();
    }
    wanted.parse().unwrap_or_else(|error| panic!("ZEROCACHE_CONNECTIONS: {error}"))
}

/// The flag of a node for a kind of connections.
pub(crate) fn flag(connections: Connections) -> &'static str {
    if connections == Connections::Http { "http" } else { "framed" }
}

/// A transport that carries a test's messages to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransportKind {
    /// As the body of `POST /v1/messages`.
    Http,
    /// On a framed connection.
    Frames,
}

/// The faces that a node has in this test run.
#[must_use]
pub fn transport_kinds() -> &'static [TransportKind] {
    if connections() == Connections::Http {
        &[TransportKind::Http]
    } else {
        &[TransportKind::Http, TransportKind::Frames]
    }
}

/// A sender of messages to one node.
#[derive(Debug)]
pub struct Caller {
    to: SocketAddr,
    framed: Option<Framed>,
    keys: Option<Keys>,
}

/// A message that was sent and not answered yet.
#[derive(Debug)]
pub struct PendingResponse(ResponseSource);

#[derive(Debug)]
enum ResponseSource {
    Http(Stream),
    Framed(u32),
}

impl TransportKind {
    /// Creates a sender of messages to the node at `to` over this transport.
    ///
    /// # Panics
    ///
    /// If no connection can be made.
    #[must_use]
    pub fn caller(self, to: SocketAddr) -> Caller {
        self.caller_with(to, Keys::of_this_run())
    }

    /// Creates a sender of messages to a node that has `keys`, with all rights of a token.
    ///
    /// # Panics
    ///
    /// If no connection can be made.
    #[must_use]
    pub fn caller_with(self, to: SocketAddr, keys: Option<Keys>) -> Caller {
        let framed = (self == Self::Frames).then(|| Framed::open_with(to, keys.as_ref()));
        Caller { to, framed, keys }
    }
}

impl Caller {
    /// Sends a message without waiting for the response. `timeout_ms` is in the header of the
    /// frame; over HTTP it is in the message itself.
    ///
    /// # Panics
    ///
    /// If it cannot be sent.
    #[must_use]
    pub fn send(&mut self, message: &[u8], timeout_ms: u32) -> PendingResponse {
        if let Some(framed) = &mut self.framed {
            return PendingResponse(ResponseSource::Framed(framed.request(message, timeout_ms)));
        }
        let mut stream = http::connect_with(self.to, self.keys.as_ref()).expect("a connection");
        let bearer = self.keys.as_ref().map(|keys| Keys::bearer(keys.admin()));
        let mut head = vec![("Content-Type", MESSAGES_TYPE)];
        head.extend(bearer.as_deref().map(|bearer| ("Authorization", bearer)));
        let request = http::request(self.to, "POST", MESSAGES_PATH, &head, message);
        // A node may answer and close before it has read everything.
        let _early = io::Write::write_all(&mut stream, &request);
        PendingResponse(ResponseSource::Http(stream))
    }

    /// Returns the response to a message. HTTP status codes become refusals of the protocol.
    ///
    /// # Panics
    ///
    /// If there is none.
    #[must_use]
    pub fn response(&mut self, sent: PendingResponse) -> Response {
        match (sent.0, &mut self.framed) {
            (ResponseSource::Http(tcp), _) => of_http(http::finish(tcp).expect("an answer")),
            (ResponseSource::Framed(id), Some(framed)) => framed.response(id),
            (ResponseSource::Framed(_), None) => panic!("sent by somebody else"),
        }
    }

    /// Sends a message and waits for the response.
    ///
    /// # Panics
    ///
    /// If there is none.
    #[must_use]
    pub fn ask(&mut self, message: &[u8]) -> Response {
        let sent = self.send(message, 0);
        self.response(sent)
    }
}

fn of_http(answer: Answer) -> Response {
    let code = match (answer.status, answer.code().as_str()) {
        (200, _) => return Response::decode(Bytes::from(answer.body)).expect("a response"),
        (400, "bad_message") => RefusalCode::BadMessage,
        (413, "too_large") => RefusalCode::TooLarge,
        (401, "unauthenticated") => RefusalCode::Unauthenticated,
        (401, "bad_credentials") => RefusalCode::BadCredentials,
        (403, "forbidden") => RefusalCode::Forbidden,
        (503, "suspended" | "overloaded") => RefusalCode::Overloaded,
        (status, code) => panic!("status {status} {code:?} says nothing in the protocol"),
    };
    Response::refused(code, answer.code())
}

/// The code of a refusal; none when it is none.
#[must_use]
pub fn refusal(response: &Response) -> Option<RefusalCode> {
    match response {
        Response::Refused(refusal) => Some(refusal.code),
        _ => None,
    }
}
