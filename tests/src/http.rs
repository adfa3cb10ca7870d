//! HTTP by hand: exact bytes out, a parsed answer back, every wait bounded.

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::SocketAddr;

use serde_json::Value as Json;

use crate::security::Keys;
use crate::stream::Stream;

/// More than any answer here has.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// The answer of a node.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The header lines.
    pub head: String,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The value of a header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.head, name)
    }

    /// The body as JSON; null when it is none.
    #[must_use]
    pub fn json(&self) -> Json {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The stable code of a refusal; empty when the answer is none with a code and a message.
    #[must_use]
    pub fn code(&self) -> String {
        let json = self.json();
        let text = |name: &str| json[name].as_str().unwrap_or_default().to_owned();
        if text("message").is_empty() { String::new() } else { text("code") }
    }

    fn parse(bytes: &[u8]) -> io::Result<Self> {
        let bad = || {
            let shown = bytes[..bytes.len().min(200)].escape_ascii();
            io::Error::new(io::ErrorKind::InvalidData, format!("no answer: \"{shown}\""))
        };
        let (head, body) = split(bytes).ok_or_else(bad)?;
        // To HTTP/1.0 a server answers in that version.
        let rest = head.strip_prefix("HTTP/1.1 ").or_else(|| head.strip_prefix("HTTP/1.0 "));
        let status = rest.and_then(|rest| rest.get(..3)?.parse().ok());
        Ok(Self { status: status.ok_or_else(bad)?, body: body.to_vec(), head })
    }
}

/// The head of a request or response and what has come of its body, once the head is whole.
#[must_use]
pub fn split(bytes: &[u8]) -> Option<(String, &[u8])> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    Some((String::from_utf8_lossy(&bytes[..end]).into_owned(), &bytes[end + 4..]))
}

/// The value of a header in a head.
#[must_use]
pub fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = head.lines().filter_map(|line| line.split_once(':'));
    let (_, value) = lines.find(|(given, _)| given.eq_ignore_ascii_case(name))?;
    Some(value.trim())
}

/// Opens a connection whose reads and writes are bounded: encrypted, if the nodes of this test run have a
/// secret.
///
/// # Errors
/// Those of the socket and of the handshake.
pub fn connect(to: SocketAddr) -> io::Result<Stream> {
    connect_with(to, Keys::of_this_run().as_ref())
}

/// Opens a connection whose reads and writes are bounded: encrypted, if the node has `keys`.
///
/// # Errors
/// Those of the socket and of the handshake.
pub fn connect_with(to: SocketAddr, keys: Option<&Keys>) -> io::Result<Stream> {
    match keys {
        Some(keys) => Stream::tls(to, keys.tls()),
        None => Stream::plain(to),
    }
}

/// Sends exact bytes and reads until the other side closes: either the answer, or an error when
/// there is none.
///
/// # Errors
/// Those of the socket, and `InvalidData` when what came is no answer.
pub fn raw(to: SocketAddr, request: &[u8]) -> io::Result<Answer> {
    raw_on(connect(to)?, request)
}

/// Does what [`raw`] does, on a connection that is open.
///
/// # Errors
/// As [`raw`].
pub fn raw_on(mut stream: Stream, request: &[u8]) -> io::Result<Answer> {
    // A node may answer and close before it has read everything.
    let _early = stream.write_all(request);
    finish(stream)
}

/// Reads an answer until the other side closes.
///
/// # Errors
/// As [`raw`].
pub fn finish(mut stream: impl Read) -> io::Result<Answer> {
    let mut bytes = Vec::new();
    let mut room = vec![0; 64 << 10];
    loop {
        match stream.read(&mut room) {
            Ok(0) => break,
            Ok(count) => bytes.extend_from_slice(&room[..count]),
            // Bytes that arrived before a reset are an answer too.
            Err(_) if !bytes.is_empty() => break,
            Err(error) => return Err(error),
        }
        if bytes.len() > ANSWER_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "an endless answer"));
        }
    }
    Answer::parse(&bytes)
}

/// Sends one request on a connection of its own.
///
/// # Errors
/// As [`raw`].
pub fn send(
    to: SocketAddr,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> io::Result<Answer> {
    send_with(to, Keys::of_this_run().as_ref(), method, target, headers, body)
}

/// Sends one request to a node that has `keys`, on a connection of its own, with all rights.
///
/// # Errors
/// As [`raw`].
pub fn send_with(
    to: SocketAddr,
    keys: Option<&Keys>,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> io::Result<Answer> {
    let bearer = keys.map(|keys| Keys::bearer(keys.admin()));
    let mut headers = headers.to_vec();
    headers.extend(bearer.as_deref().map(|bearer| ("Authorization", bearer)));
    let request = request(to, method, target, &headers, body);
    raw_on(connect_with(to, keys)?, &request)
}

/// The bytes of one request, after which the connection is closed.
#[must_use]
pub fn request(
    to: SocketAddr,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Vec<u8> {
    let length = body.len();
    let mut head = format!(
        "{method} {target} HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\n\
         Content-Length: {length}\r\n"
    );
    for (name, value) in headers {
        let _infallible = write!(head, "{name}: {value}\r\n");
    }
    head.push_str("\r\n");
    let mut request = head.into_bytes();
    request.extend_from_slice(body);
    request
}

/// Bytes as they stand in a path: everything but unreserved characters escaped.
#[must_use]
pub fn escaped(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(byte) {
            text.push(char::from(*byte));
        } else {
            let _infallible = write!(text, "%{byte:02X}");
        }
    }
    text
}
