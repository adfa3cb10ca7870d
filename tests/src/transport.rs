//! The two ways in which a message reaches a node, for tests that send their own; and which of them
//! the nodes and clients of a test run use among themselves.

use std::io;
use std::net::{SocketAddr, TcpStream};

use bytes::Bytes;
use zerocache_client::ops::Connections;
use zerocache_core::wire::{RefusalCode, Response};
use zerocache_net::transport::{MESSAGES_PATH, MESSAGES_TYPE};

use crate::frames::Framed;
use crate::http::{self, Answer};

/// What `ZEROCACHE_CONNECTIONS` says of this test run: how its nodes and clients talk, unless a test
/// says otherwise.
///
/// # Panics
///
/// When it names no kind of connections.
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

/// A way in which a message reaches a node.
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

/// Somebody who sends messages to one node.
#[derive(Debug)]
pub struct Caller {
    to: SocketAddr,
    framed: Option<Framed>,
}

/// A message that was sent and not answered yet.
#[derive(Debug)]
pub struct PendingResponse(ResponseSource);

#[derive(Debug)]
enum ResponseSource {
    Http(TcpStream),
    Framed(u32),
}

impl TransportKind {
    /// Somebody who sends messages to the node at `to` over this face.
    ///
    /// # Panics
    ///
    /// When no connection comes about.
    #[must_use]
    pub fn caller(self, to: SocketAddr) -> Caller {
        let framed = (self == Self::Frames).then(|| Framed::open(to));
        Caller { to, framed }
    }
}

impl Caller {
    /// Sends a message without waiting for the response. The header of a frame says `timeout_ms`; over
    /// HTTP the message itself does.
    ///
    /// # Panics
    ///
    /// When it cannot be sent.
    #[must_use]
    pub fn send(&mut self, message: &[u8], timeout_ms: u32) -> PendingResponse {
        if let Some(framed) = &mut self.framed {
            return PendingResponse(ResponseSource::Framed(framed.request(message, timeout_ms)));
        }
        let tcp = http::connect(self.to).expect("a connection");
        let head = [("Content-Type", MESSAGES_TYPE)];
        let request = http::request(self.to, "POST", MESSAGES_PATH, &head, message);
        // A node may answer and close before it has read everything.
        let _early = io::Write::write_all(&mut &tcp, &request);
        PendingResponse(ResponseSource::Http(tcp))
    }

    /// The response to a message. What HTTP says by a status is said in the protocol's own terms.
    ///
    /// # Panics
    ///
    /// When there is none.
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
    /// When there is none.
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
