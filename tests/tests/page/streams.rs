//! The page over HTTP alone: paths, permissions, and the stream of events.

use std::io::{ErrorKind, Read, Write};

use zerocache_tests::http::{self, Answer};
use zerocache_tests::node::Node;
use zerocache_tests::poll::{timed, until_true};
use zerocache_tests::security::Keys;
use zerocache_tests::setup::{Access, Setup};
use zerocache_tests::stream::Stream;

const EVENTS: &str = "/v1/events";
const LOGIN: &str = "/page/login";
/// The most viewers of one node.
const VIEWERS_MAX: usize = 64;

/// The drain, the rest of a shutdown, and room for a busy machine, in seconds.
const DRAIN_S: u64 = 1;
const REST_S: u64 = 3;
const TOLERANCE_S: u64 = 4;

fn open(node: &str) -> Setup {
    Setup::new(node).access(Access::Protected)
}

fn ask(node: &Node, method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    http::send_with(node.address(), None, method, target, headers, body.as_bytes())
        .unwrap_or_else(|error| panic!("{method} {target}: {error}"))
}

/// The stream of events of one viewer.
struct Viewer {
    stream: Stream,
    seen: String,
}

impl Viewer {
    fn of(mut stream: Stream, node: &Node, headers: &[(&str, &str)]) -> Self {
        let request = http::request(node.address(), "GET", EVENTS, headers, b"");
        stream.write_all(&request).expect("asked");
        Self { stream, seen: String::new() }
    }

    fn plain(node: &Node) -> Self {
        Self::of(Stream::plain(node.address()).expect("connected"), node, &[])
    }

    /// Reads on until `wanted` was seen.
    fn wait_for(&mut self, wanted: &str) {
        let mut room = [0; 16 << 10];
        while !self.seen.contains(wanted) {
            let count = self.stream.read(&mut room).expect("more of the stream");
            assert!(count > 0, "the stream ended without {wanted}: {}", self.seen);
            self.seen.push_str(&String::from_utf8_lossy(&room[..count]));
        }
    }

    /// Reads to the end of the stream. Returns whether it ended in order.
    fn ended(mut self) -> bool {
        let mut rest = Vec::new();
        match self.stream.read_to_end(&mut rest) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => {}
            Err(error) => panic!("{error}"),
        }
        rest.ends_with(b"0\r\n\r\n")
    }
}

#[test]
fn browsers_are_led_to_the_page_and_programs_are_not() {
    let node = open("london").start();
    let html = [("Accept", "text/html,application/xhtml+xml,*/*;q=0.8")];
    let answer = ask(&node, "GET", "/", &html, "");
    assert_eq!((answer.status, answer.header("location")), (303, Some("/page/")));
    assert_eq!(ask(&node, "GET", "/", &[("Accept", "*/*")], "").code(), "no_such_path");
    let page = ask(&node, "GET", "/page/", &html, "");
    assert_eq!(page.status, 200);
    assert_eq!(page.header("cache-control"), Some("no-cache"));
    assert_eq!(page.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(page.header("referrer-policy"), Some("no-referrer"));
    let policy = page.header("content-security-policy").expect("a policy");
    for rule in ["default-src 'none'", "script-src 'self'", "frame-ancestors 'none'"] {
        assert!(policy.contains(rule), "{policy}");
    }
    let tag = page.header("etag").expect("a tag");
    assert_eq!(ask(&node, "GET", "/page/", &[("If-None-Match", tag)], "").status, 304);
    let post = ask(&node, "POST", EVENTS, &[], "");
    assert_eq!((post.status, post.code().as_str()), (405, "method_not_allowed"));
}

#[test]
fn node_without_a_page_serves_none_of_its_paths() {
    let node = open("london").flag("--page", "off").start();
    for path in ["/", "/page/", "/page/page.js", LOGIN, EVENTS] {
        let answer = ask(&node, "GET", path, &[("Accept", "text/html")], "");
        assert_eq!((answer.status, answer.code().as_str()), (404, "no_such_path"), "{path}");
    }
}

#[test]
fn stream_shows_the_state_and_the_events_of_the_node() {
    let node = open("london").start();
    let mut viewer = Viewer::plain(&node);
    viewer.wait_for("event: events");
    viewer.wait_for("this node is in-sync");
    for part in ["text/event-stream", "event: history", "event: status", "\"region\":\"london\""] {
        assert!(viewer.seen.contains(part), "{part} is missing: {}", viewer.seen);
    }
    // Counted while somebody watches.
    node.put(b"k", b"v", "ttl=60");
    viewer.wait_for("\"entries\":1");
}

#[test]
fn pages_of_other_origins_get_no_stream() {
    let node = open("london").start();
    for header in [("Sec-Fetch-Site", "cross-site"), ("Origin", "http://127.0.0.1")] {
        let answer = ask(&node, "GET", EVENTS, &[header], "");
        assert_eq!((answer.status, answer.code().as_str()), (403, "cross_site"));
    }
}

#[test]
fn viewers_are_bounded() {
    let node = open("london").start();
    let mut viewers: Vec<_> = (0..VIEWERS_MAX).map(|_| Viewer::plain(&node)).collect();
    for viewer in &mut viewers {
        viewer.wait_for("event: status");
    }
    let refused = ask(&node, "GET", EVENTS, &[], "");
    assert_eq!((refused.status, refused.code().as_str()), (503, "overloaded"));
    drop(viewers.pop());
    until_true("a seat that was left", || {
        let mut viewer = Viewer::plain(&node);
        let mut room = [0; 12];
        viewer.stream.read_exact(&mut room).expect("an answer");
        room == *b"HTTP/1.1 200"
    });
}

#[test]
fn streams_end_in_order_when_the_node_shuts_down() {
    let mut node = open("london").flag("--drain", format!("{DRAIN_S}s")).start();
    let mut viewers = [0; 3].map(|_| Viewer::plain(&node));
    for viewer in &mut viewers {
        viewer.wait_for("event: status");
    }
    let (code, took) = timed(|| {
        node.shut_down();
        viewers[0].wait_for("\"state\":\"leaving\"");
        node.ended().code()
    });
    assert_eq!(code, Some(0), "{}", node.log());
    assert!(took.as_secs() <= DRAIN_S + REST_S + TOLERANCE_S, "{took:?}");
    assert!(viewers.into_iter().all(Viewer::ended), "{}", node.log());
    assert!(!node.log().contains("connections were cut"), "{}", node.log());
}

/// A node with a secret, asked over TLS with headers of the test alone.
struct Protected {
    node: Node,
    keys: Keys,
}

impl Protected {
    fn start() -> Self {
        let keys = Keys::new();
        let node = Setup::new("london").access(Access::Secret(keys.clone())).start();
        Self { node, keys }
    }

    fn connect(&self) -> Stream {
        Stream::tls(self.node.address(), self.keys.tls()).expect("connected")
    }

    fn ask(&self, method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let to = self.node.address();
        let request = http::request(to, method, target, headers, body.as_bytes());
        http::raw_on(self.connect(), &request).unwrap_or_else(|e| panic!("{method} {target}: {e}"))
    }

    fn log_in(&self, token: &str) -> Answer {
        self.ask("POST", LOGIN, &[], &format!("token={token}"))
    }

    /// Logs in, and returns the cookie as a browser sends it back.
    fn cookie(&self) -> String {
        let answer = self.log_in(&self.keys.token(&["--name", "screen", "--role", "monitor"]));
        assert_eq!((answer.status, answer.header("location")), (303, Some("/page/")));
        let cookie = answer.header("set-cookie").expect("a cookie");
        for attribute in ["Path=/", "Secure", "HttpOnly", "SameSite=Strict", "Max-Age=28800"] {
            assert!(cookie.split("; ").any(|given| given == attribute), "{cookie}");
        }
        assert!(!cookie.contains("Domain"), "{cookie}");
        let (pair, _) = cookie.split_once(';').expect("attributes");
        assert!(pair.starts_with("__Host-zc=") && pair.len() > 70, "{pair}");
        pair.to_owned()
    }
}

#[test]
fn page_needs_the_role_monitor() {
    let it = Protected::start();
    let answer = it.ask("GET", "/page/", &[], "");
    assert_eq!((answer.status, answer.header("location")), (303, Some(LOGIN)));
    assert_eq!(it.ask("GET", EVENTS, &[], "").status, 401);
    assert_eq!(it.ask("GET", LOGIN, &[], "").status, 200);
    let reader = it.keys.token(&["--name", "reader", "--role", "write"]);
    let bearer = Keys::bearer(&reader);
    assert_eq!(it.ask("GET", EVENTS, &[("Authorization", &bearer)], "").status, 403);
    assert_eq!(it.log_in(&reader).status, 403);
    for wrong in ["", "nonsense", "zc1_AAAA", "%zz"] {
        let answer = it.log_in(wrong);
        assert_eq!((answer.status, answer.header("set-cookie")), (401, None), "{wrong}");
    }
    assert!(it.node.stat("denied_bad_credentials") >= 2);
    let monitor = Keys::bearer(&it.keys.token(&["--name", "m", "--role", "monitor"]));
    Viewer::of(it.connect(), &it.node, &[("Authorization", &monitor)]).wait_for("event: status");
}

#[test]
fn cookie_counts_for_the_page_alone() {
    let it = Protected::start();
    let cookie = it.cookie();
    let headers = [("Cookie", cookie.as_str())];
    assert_eq!(it.ask("GET", "/page/", &headers, "").status, 200);
    let mut viewer = Viewer::of(it.connect(), &it.node, &headers);
    viewer.wait_for("\"session\":true");
    viewer.wait_for("event: status");
    let others = [
        ("GET", "/v1/stats"),
        ("GET", "/v1/cluster"),
        ("GET", "/v1/entries/k"),
        ("PUT", "/v1/entries/k"),
        ("DELETE", "/v1/entries/k"),
    ];
    for (method, path) in others {
        assert_eq!(it.ask(method, path, &headers, "").status, 401, "{method} {path}");
    }
    let invented = format!("__Host-zc={}", "0".repeat(64));
    assert_eq!(it.ask("GET", EVENTS, &[("Cookie", &invented)], "").status, 401);
    // It ends with the logout.
    assert_eq!(it.ask("POST", "/page/logout", &headers, "").status, 303);
    assert_eq!(it.ask("GET", EVENTS, &headers, "").status, 401);
    // The last chunk of the stream that had begun before.
    viewer.wait_for("\r\n0\r\n\r\n");
}

#[test]
fn login_takes_small_forms_of_its_own_page_alone() {
    let it = Protected::start();
    let token = it.keys.token(&["--name", "screen", "--role", "monitor"]);
    let form = format!("token={token}");
    let foreign = [("Origin", "https://evil.example")];
    // Under an address a page of another host is refused by the path, else by the host check.
    assert_eq!(it.ask("POST", LOGIN, &foreign, &form).code(), "cross_site");
    assert_eq!(it.ask("POST", LOGIN, &[], &"x".repeat(17 << 10)).status, 413);
    let own = format!("https://{}", it.node.address());
    assert_eq!(it.ask("POST", LOGIN, &[("Origin", &own)], &form).status, 303);
}
