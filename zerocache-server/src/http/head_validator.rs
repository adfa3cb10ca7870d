//! Validates the raw bytes of request heads that the HTTP parser accepts but misreads.
//!
//! The parser accepts a repeated `Content-Length`, and one beside `Transfer-Encoding`, and hides them
//! from the handler. A proxy in front may read the same bytes differently (request smuggling, RFC 9112
//! section 11.2), so such a request is refused. The parser also truncates a request target at a `#`,
//! which is not allowed there: a key with a `#` would become another key. The validator numbers the
//! heads and reports the first bad one.
//!
//! Invariant: it finds the same heads as the parser, up to the first bad or chunked one. After a
//! chunked request it stops, because the guard closes the connection with that request.

/// Bytes kept of a line: enough for the longest relevant name and its value.
const LINE_BYTES_KEPT: usize = 128;

/// Validates the input of one connection.
#[derive(Debug, Default)]
pub(super) struct HeadValidator {
    state: State,
    /// Heads that have ended.
    count: u64,
    /// The number of the first bad head, from 1, and its flaw.
    bad: Option<(u64, Flaw)>,
}

/// A flaw of a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flaw {
    /// The length of the body is ambiguous.
    Length,
    /// The request target contains a `#`.
    Fragment,
}

impl Flaw {
    /// Describes the flaw for the client.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Length => "the length of the body is ambiguous",
            Self::Fragment => "the request target has a '#'; in a key it is written %23",
        }
    }
}

#[derive(Debug)]
enum State {
    /// Inside a head or before one.
    Head(Head),
    /// Inside a body with this many bytes left.
    Body(u64),
    /// No further head will be handled.
    Done,
}

impl Default for State {
    fn default() -> Self {
        Self::Head(Head::default())
    }
}

#[derive(Debug, Default)]
struct Head {
    line: Vec<u8>,
    has_request_line: bool,
    has_fragment: bool,
    lengths: u32,
    length: Option<u64>,
    encodings: u32,
}

impl HeadValidator {
    /// Consumes the next bytes of the connection.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            match &mut self.state {
                State::Done => return,
                State::Body(left) => {
                    let here = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                    bytes = &bytes[here..];
                    *left -= here as u64;
                    if *left == 0 {
                        self.state = State::default();
                    }
                }
                State::Head(head) => {
                    let Some(end) = bytes.iter().position(|b| *b == b'\n') else {
                        head.keep(bytes);
                        return;
                    };
                    head.keep(&bytes[..end]);
                    bytes = &bytes[end + 1..];
                    if head.end_line() {
                        self.end_head();
                    }
                }
            }
        }
    }

    /// Returns the number of the first head that must be refused, from 1, and its flaw.
    pub(super) fn bad(&self) -> Option<(u64, Flaw)> {
        self.bad
    }

    /// Returns whether the deadline of a head is running: before the first head, and inside one.
    pub(super) fn awaits_head(&self) -> bool {
        match &self.state {
            State::Head(head) => self.count == 0 || head.has_begun(),
            State::Body(_) | State::Done => false,
        }
    }

    fn end_head(&mut self) {
        let State::Head(head) = &mut self.state else {
            return;
        };
        let mut head = std::mem::take(head);
        self.count += 1;
        let unreadable = head.lengths == 1 && head.length.is_none();
        let ambiguous = head.lengths + head.encodings > 1 || unreadable;
        if ambiguous || head.has_fragment {
            let flaw = if ambiguous { Flaw::Length } else { Flaw::Fragment };
            self.bad = Some((self.count, flaw));
            self.state = State::Done;
        } else if head.encodings > 0 {
            self.state = State::Done;
        } else if let Some(left) = head.length.filter(|length| *length > 0) {
            self.state = State::Body(left);
        } else {
            let line = std::mem::take(&mut head.line);
            self.state = State::Head(Head { line, ..Head::default() });
        }
    }
}

impl Head {
    fn keep(&mut self, bytes: &[u8]) {
        // Also in the bytes of the line that are not kept.
        self.has_fragment |= !self.has_request_line && bytes.contains(&b'#');
        let room = LINE_BYTES_KEPT.saturating_sub(self.line.len());
        self.line.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    fn has_begun(&self) -> bool {
        self.has_request_line || !self.line.is_empty()
    }

    /// Processes a complete line. Returns whether it ends the head.
    fn end_line(&mut self) -> bool {
        let line = std::mem::take(&mut self.line);
        let ends = self.inspect(&line);
        // The buffer is reused for the next line.
        self.line = line;
        self.line.clear();
        ends
    }

    fn inspect(&mut self, line: &[u8]) -> bool {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            // Empty lines before a request line are skipped (RFC 9112 section 2.2).
            return self.has_request_line;
        }
        if !self.has_request_line {
            self.has_request_line = true;
            return false;
        }
        let colon = line.iter().position(|b| *b == b':').unwrap_or(line.len());
        let (name, value) = line.split_at(colon);
        let name = name.trim_ascii();
        if name.eq_ignore_ascii_case(b"content-length") {
            self.lengths += 1;
            self.length = digits(value.get(1..).unwrap_or_default().trim_ascii());
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            self.encodings += 1;
        }
        false
    }
}

fn digits(value: &[u8]) -> Option<u64> {
    let plain = value.iter().all(u8::is_ascii_digit);
    plain.then(|| std::str::from_utf8(value).ok()?.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds the input whole and byte by byte; both results must agree.
    fn flaw(input: &str) -> Option<(u64, Flaw)> {
        let (mut whole, mut pieces) = (HeadValidator::default(), HeadValidator::default());
        whole.feed(input.as_bytes());
        for byte in input.as_bytes().chunks(1) {
            pieces.feed(byte);
        }
        assert_eq!(whole.bad(), pieces.bad(), "{input:?}");
        assert_eq!((whole.count, whole.awaits_head()), (pieces.count, pieces.awaits_head()));
        whole.bad()
    }

    fn bad(input: &str) -> Option<u64> {
        flaw(input).map(|(number, _)| number)
    }

    #[test]
    fn valid_requests_pass() {
        let get = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
        let put = "\r\nPUT / HTTP/1.1\nHost: x\r\nContent-Length: 3\r\n\r\n\r\n\n";
        assert_eq!(bad(&[get, put, get].concat()), None);
        let mut heads = HeadValidator::default();
        heads.feed([get, put, get].concat().as_bytes());
        assert_eq!(heads.count, 3);
        assert!(!heads.awaits_head());
        heads.feed(b"G");
        assert!(heads.awaits_head());
    }

    #[test]
    fn ambiguous_framing_is_reported_for_its_request() {
        let first = "PUT / HTTP/1.1\r\nContent-Length: 5\r\n\r\nab\r\n\r";
        for headers in [
            "Content-Length: 5\r\nContent-Length: 5\r\n",
            "Content-Length: 5\r\ncontent-length:6\r\n",
            "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
            "CONTENT-LENGTH: 5\r\ntransfer-encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
            "Content-Length: -1\r\n",
            "Content-Length: 99999999999999999999\r\n",
            "Content-Length : 5\r\nContent-Length: 5\r\n",
            "Content-Length\r\n",
        ] {
            let second = format!("PUT / HTTP/1.1\r\nHost: x\r\n{headers}\r\n");
            assert_eq!(bad(&second), Some(1), "{headers}");
            assert_eq!(bad(&format!("{first}{second}")), Some(2), "{headers}");
        }
    }

    #[test]
    fn fragment_is_reported_in_the_request_line_only() {
        let rest = "HTTP/1.1\r\nHost: x\r\nCookie: #\r\nContent-Length: 1\r\n\r\n#";
        let long = "a".repeat(2 * LINE_BYTES_KEPT);
        for target in ["/#", "/a#b", "/a?b=c#d", "/%23#", &format!("/{long}#")] {
            assert_eq!(
                flaw(&format!("GET {target} {rest}")),
                Some((1, Flaw::Fragment)),
                "{target}"
            );
        }
        for target in ["/", "/%23", &format!("/{long}")] {
            assert_eq!(flaw(&format!("GET {target} {rest}GET {target} {rest}")), None, "{target}");
        }
    }

    #[test]
    fn body_is_not_inspected() {
        let inner = "GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n";
        let outer = format!("PUT / HTTP/1.1\r\nContent-Length: {}\r\n\r\n{inner}", inner.len());
        assert_eq!(bad(&outer), None);
        let chunked = format!("PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{inner}");
        assert_eq!(bad(&chunked), None);
    }

    #[test]
    fn long_line_is_truncated() {
        let mut heads = HeadValidator::default();
        heads.feed(&[b'a'; 10_000]);
        let State::Head(head) = &heads.state else { panic!("a head") };
        assert_eq!(head.line.len(), LINE_BYTES_KEPT);
    }
}
