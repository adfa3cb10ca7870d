//! A framed connection written by hand: the bytes of `docs/protocol.md`, and none of the code that
//! nodes and clients use for them.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::SocketAddr;

use bytes::Bytes;
use zerocache_core::wire::{Envelope, Hello, Request, RequestMessage, Response, cluster_id};
use zerocache_net::clock;
use zerocache_net::transport::{MESSAGES_PATH, MESSAGES_TYPE};

use crate::http;
use crate::security::Keys;
use crate::stream::Stream;

/// The default cluster of a node.
pub const CLUSTER: &str = "zerocache";

/// Opcodes.
pub const REQUEST: u8 = 1;
/// A response.
pub const RESPONSE: u8 = 2;
/// Gives a request up.
pub const CANCEL: u8 = 3;

/// The flag of a frame that is not the last one of its message.
pub const MORE: u8 = 1;

/// The bytes of a header.
pub const HEADER_BYTES: usize = 20;

/// The most payload of one frame.
pub const CHUNK_BYTES_MAX: usize = 64 << 10;

/// One frame.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// The opcode of its message.
    pub opcode: u8,
    /// Its flags.
    pub flags: u8,
    /// The bytes between header and payload.
    pub extension: Vec<u8>,
    /// Its request.
    pub id: u32,
    /// The time at which its message was sent, in milliseconds of the sender's clock.
    pub sent_ms: u32,
    /// The time that its caller waits, in milliseconds; 0 for unlimited.
    pub timeout_ms: u32,
    /// The rest.
    pub payload: Vec<u8>,
}

impl Frame {
    /// A whole request in one frame, sent now.
    #[must_use]
    pub fn request(id: u32, message: &[u8]) -> Self {
        let payload = message.to_vec();
        Self { opcode: REQUEST, id, sent_ms: now_ms(), payload, ..Self::default() }
    }

    /// The frame as bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let length = HEADER_BYTES - 4 + self.extension.len() + self.payload.len();
        let mut bytes = (length as u32).to_le_bytes().to_vec();
        bytes.extend([self.opcode, self.flags]);
        bytes.extend((self.extension.len() as u16).to_le_bytes());
        for number in [self.id, self.sent_ms, self.timeout_ms] {
            bytes.extend(number.to_le_bytes());
        }
        bytes.extend(&self.extension);
        bytes.extend(&self.payload);
        bytes
    }

    /// The frame at the start of `bytes`, and how many bytes it takes; none when it is not whole.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<(Self, usize)> {
        let number = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        let end = number(0)? as usize + 4;
        let extension = usize::from(u16::from_le_bytes(bytes.get(6..8)?.try_into().ok()?));
        let rest = bytes.get(HEADER_BYTES..end)?;
        let frame = Self {
            opcode: bytes[4],
            flags: bytes[5],
            extension: rest[..extension].to_vec(),
            id: number(8)?,
            sent_ms: number(12)?,
            timeout_ms: number(16)?,
            payload: rest[extension..].to_vec(),
        };
        Some((frame, end))
    }
}

/// Returns the current time as a header carries it.
#[must_use]
pub fn now_ms() -> u32 {
    clock::mono().as_millis() as u32
}

/// A framed connection to a node.
#[derive(Debug)]
pub struct Framed {
    stream: Stream,
    read: Vec<u8>,
    last_id: u32,
    /// Responses that came while another one was awaited.
    waiting: VecDeque<(u32, Response)>,
    /// The head of the answer to the upgrade.
    pub head: String,
    /// The node's first frame.
    pub first: Frame,
}

impl Framed {
    /// Connects to a node of [`CLUSTER`] as a client does.
    ///
    /// # Panics
    ///
    /// If the node does not grant the upgrade.
    #[must_use]
    pub fn open(to: SocketAddr) -> Self {
        Self::open_with(to, Keys::of_this_run().as_ref())
    }

    /// Connects to a node of [`CLUSTER`] that has `keys` as a client does, with all rights of a token.
    ///
    /// # Panics
    ///
    /// If the node does not grant the upgrade.
    #[must_use]
    pub fn open_with(to: SocketAddr, keys: Option<&Keys>) -> Self {
        let mut stream = http::connect_with(to, keys).expect("connected");
        let request = upgrade_with(to, "zerocache/1", &hello_message(CLUSTER), keys);
        stream.write_all(&request).expect("sent");
        let mut read = Vec::new();
        let head = loop {
            if let Some((head, rest)) = http::split(&read) {
                let rest = rest.to_vec();
                read = rest;
                break head;
            }
            assert!(fill(&mut stream, &mut read).expect("an answer") > 0, "closed instead");
        };
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        let (last_id, waiting, first) = (0, VecDeque::new(), Frame::default());
        let mut framed = Self { stream, read, last_id, waiting, head, first };
        framed.first = framed.frame().expect("the node's hello_message");
        framed
    }

    /// The stream, to do with it what no client should.
    pub fn stream(&mut self) -> &mut Stream {
        &mut self.stream
    }

    /// An id that was not used yet.
    pub fn fresh_id(&mut self) -> u32 {
        self.last_id += 1;
        self.last_id
    }

    /// Sends one frame.
    ///
    /// # Panics
    ///
    /// If it cannot be sent.
    pub fn send(&mut self, frame: &Frame) {
        self.stream.write_all(&frame.to_bytes()).expect("sent");
    }

    /// Sends a request in as many frames as it takes. Returns its id.
    ///
    /// # Panics
    ///
    /// If it cannot be sent.
    pub fn request(&mut self, message: &[u8], timeout_ms: u32) -> u32 {
        let (id, sent_ms) = (self.fresh_id(), now_ms());
        let mut rest = message;
        loop {
            let (payload, after) = rest.split_at(rest.len().min(CHUNK_BYTES_MAX));
            let flags = if after.is_empty() { 0 } else { MORE };
            let (opcode, payload) = (REQUEST, payload.to_vec());
            let extension = Vec::new();
            self.send(&Frame { opcode, flags, extension, id, sent_ms, timeout_ms, payload });
            rest = after;
            if rest.is_empty() {
                return id;
            }
        }
    }

    /// The next frame.
    ///
    /// # Errors
    /// Those of the socket; `UnexpectedEof` when the node closed the connection.
    pub fn frame(&mut self) -> io::Result<Frame> {
        loop {
            if let Some((frame, end)) = Frame::parse(&self.read) {
                self.read.drain(..end);
                return Ok(frame);
            }
            if fill(&mut self.stream, &mut self.read)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// The next whole response, with its id.
    ///
    /// # Errors
    /// As [`frame`](Self::frame).
    ///
    /// # Panics
    ///
    /// If a frame is not part of a response.
    pub fn next_response(&mut self) -> io::Result<(u32, Response)> {
        if let Some(waited) = self.waiting.pop_front() {
            return Ok(waited);
        }
        let mut parts: Vec<(u32, Vec<u8>)> = Vec::new();
        loop {
            let frame = self.frame()?;
            assert_eq!(frame.opcode, RESPONSE, "{frame:?}");
            let at = parts.iter().position(|(id, _)| *id == frame.id);
            let at = at.unwrap_or_else(|| {
                parts.push((frame.id, Vec::new()));
                parts.len() - 1
            });
            parts[at].1.extend(frame.payload);
            if frame.flags & MORE == 0 {
                let (id, message) = parts.swap_remove(at);
                let whole = Response::decode(Bytes::from(message)).expect("a response");
                self.waiting.push_back((id, whole));
                if parts.is_empty() {
                    return Ok(self.waiting.pop_front().expect("just put there"));
                }
            }
        }
    }

    /// The response to request `id`; others are kept.
    ///
    /// # Panics
    ///
    /// If it does not arrive.
    #[must_use]
    pub fn response(&mut self, id: u32) -> Response {
        if let Some(at) = self.waiting.iter().position(|(other, _)| *other == id) {
            return self.waiting.remove(at).expect("it is there").1;
        }
        let mut others = VecDeque::new();
        loop {
            let (other, response) = self.next_response().expect("a response");
            if other == id {
                others.append(&mut self.waiting);
                self.waiting = others;
                return response;
            }
            others.push_back((other, response));
        }
    }

    /// Sends a request and waits for its response.
    ///
    /// # Panics
    ///
    /// If it does not arrive.
    #[must_use]
    pub fn ask(&mut self, message: &[u8]) -> Response {
        let id = self.request(message, 0);
        self.response(id)
    }

    /// Returns whether the node closes the connection without sending another byte, within
    /// [`PATIENCE`](crate::poll::PATIENCE).
    #[must_use]
    pub fn is_closed_by_node(&mut self) -> bool {
        match self.frame() {
            Ok(_) => false,
            Err(error) => {
                !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
            }
        }
    }
}

fn fill(stream: &mut Stream, read: &mut Vec<u8>) -> io::Result<usize> {
    let mut room = [0; 64 << 10];
    let count = stream.read(&mut room)?;
    read.extend_from_slice(&room[..count]);
    Ok(count)
}

/// Returns the encoded Hello of a client of `cluster`.
#[must_use]
pub fn hello_message(cluster: &str) -> Bytes {
    client_hello(cluster).encode(clock::mono())
}

/// Returns the Hello of a client of `cluster`.
#[must_use]
pub fn client_hello(cluster: &str) -> RequestMessage {
    let hello = Hello::of_client(cluster, "london", 0);
    let envelope = Envelope { cluster: cluster_id(cluster), ..Envelope::default() };
    RequestMessage { envelope, request: Request::Hello(Box::new(hello)) }
}

/// The request that asks for the protocol `token`, with a message as its body.
#[must_use]
pub fn upgrade(to: SocketAddr, token: &str, message: &[u8]) -> Vec<u8> {
    upgrade_with(to, token, message, Keys::of_this_run().as_ref())
}

/// The same, with the token of `keys`.
#[must_use]
pub fn upgrade_with(to: SocketAddr, token: &str, message: &[u8], keys: Option<&Keys>) -> Vec<u8> {
    let length = message.len();
    let authorization =
        keys.map(|keys| format!("Authorization: {}\r\n", Keys::bearer(keys.admin())));
    let authorization = authorization.unwrap_or_default();
    let head = format!(
        "POST {MESSAGES_PATH} HTTP/1.1\r\nHost: {to}\r\n{authorization}Content-Type: {MESSAGES_TYPE}\r\n\
         Connection: upgrade\r\nUpgrade: {token}\r\nZerocache-Sent-Ms: {}\r\n\
         Content-Length: {length}\r\n\r\n",
        now_ms()
    );
    [head.as_bytes(), message].concat()
}

/// Encodes a message without the fields that the handshake and the frame header carry.
#[must_use]
pub fn compact_message(request: Request) -> Bytes {
    let known = Envelope { cluster: 1, ..Envelope::default() };
    let message = RequestMessage { envelope: known, request };
    let mut bytes = bytes::BytesMut::new();
    message.encode_to(&mut zerocache_core::wire::Writer::new(&mut bytes), &known, clock::mono());
    bytes.freeze()
}
