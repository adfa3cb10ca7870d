//! The HTTP server against clients that are slow, broken or greedy, over real sockets.

mod server;

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use zerocache_server::http::{HttpLimits, ShutdownSummary};

use server::{LARGE_BYTES, PATIENCE, Server, reaches, read_all, read_until};

fn short() -> HttpLimits {
    let mut limits = HttpLimits {
        header_timeout: Duration::from_millis(300),
        idle_timeout: Duration::from_millis(300),
        linger: Duration::from_millis(100),
        close_timeout: Duration::from_millis(500),
        ..HttpLimits::default()
    };
    limits.bodies.total_time = Duration::from_secs(5);
    limits.bodies.window = Duration::from_millis(300);
    limits
}

#[tokio::test]
async fn keep_alive_http_1_0_and_chunked_bodies_work() {
    let server = Server::start(HttpLimits::default());
    let mut tcp = server.connect().await;
    for _ in 0..3 {
        tcp.write_all(b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("sent");
        read_until(&mut tcp, "pong").await;
        let put = b"PUT /body HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc";
        tcp.write_all(put).await.expect("sent");
        read_until(&mut tcp, "3 bytes").await;
    }
    assert_eq!(server.counters.connections_accepted.get(), 1);
    let old = server.exchange("GET /ping HTTP/1.0\r\n\r\n").await;
    assert!(old.starts_with("HTTP/1.0 200") && old.ends_with("pong"), "{old}");
    let head = "PUT /body HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
    let chunked = server.exchange(&format!("{head}3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")).await;
    assert!(chunked.ends_with("5 bytes") && chunked.contains("connection: close"), "{chunked}");
    assert_eq!(server.end().await, ShutdownSummary { connections_cut: 0 });
}

#[tokio::test]
async fn malformed_and_ambiguous_requests_are_refused() {
    let server = Server::start(short());
    let put = "PUT /body HTTP/1.1\r\nHost: x\r\n";
    let many = "a: b\r\n".repeat(200);
    let long = format!("a: {}\r\n", "b".repeat(20_000));
    let cases = [
        format!("{put}Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd"),
        format!("{put}Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc"),
        format!("{put}Content-Length: 3, 3\r\n\r\nabc"),
        format!("{put}Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        format!("{put}Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n"),
        format!("{put}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
        format!("{put}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        format!("{put}Transfer-Encoding: identity\r\n\r\nabc"),
        format!("{put}Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n"),
        "PUT /body HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(),
        format!("{put}Content-Length: -1\r\n\r\n"),
        format!("{put}Content-Length: +3\r\n\r\nabc"),
        format!("{put}Content-Length: 0x3\r\n\r\nabc"),
        format!("{put}Content-Length: 99999999999999999999\r\n\r\n"),
        format!("{put} folded: x\r\nContent-Length: 3\r\n\r\nabc"),
        format!("{put}Host: y\r\nContent-Length: 3\r\n\r\nabc"),
        "GET /ping HTTP/1.1\r\n\r\n".to_owned(),
        format!("{put}{many}\r\n"),
        format!("{put}{long}\r\n"),
        "GET /ping HTTP/9.9\r\nHost: x\r\n\r\n".to_owned(),
        "GET /pi ng HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
        "\u{1}\u{2}garbage\u{0}\r\n\r\n".to_owned(),
        "\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}\u{0}\u{1}\u{fc}\u{3}".to_owned(),
    ];
    for (number, case) in (1..).zip(&cases) {
        // The rest must not be read as a request of its own.
        let answer = server.exchange(&format!("{case}GET /ping HTTP/1.1\r\nHost: x\r\n\r\n")).await;
        let refused = answer.starts_with("HTTP/1.1 4") || answer.starts_with("HTTP/1.0 4");
        assert!(refused, "{case:?} is answered with {answer:?}");
        assert!(!answer.contains("pong") && !answer.contains(" bytes"), "{case:?}: {answer:?}");
        let counted = || server.counters.bad_requests.get();
        reaches("bad_requests", number, counted).await;
        assert_eq!(counted(), number, "{case:?}");
    }
    server.assert_serves().await;
}

#[tokio::test]
async fn refusals_have_one_form_and_name_the_flaw() {
    let server = Server::start(HttpLimits::default());
    let put = "PUT /body HTTP/1.1\r\nHost: x\r\n";
    let length = "the length of the body is ambiguous";
    for (case, reason) in [
        (format!("{put}Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd"), length),
        (format!("{put}Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc"), length),
        (format!("{put}Content-Length: -1\r\n\r\n"), length),
        ("GET /ping HTTP/1.1\r\n\r\n".to_owned(), "the Host header is missing"),
        ("\u{1}garbage\r\n\r\n".to_owned(), "this is not an HTTP/1.1 request"),
    ] {
        let answer = server.exchange(&case).await;
        let body = format!("{{\"code\":\"bad_request\",\"message\":\"{reason}\"}}");
        assert!(answer.ends_with(&body), "{case:?}: {answer}");
        assert!(answer.contains("\r\ncache-control: no-store\r\n"), "{case:?}: {answer}");
    }
}

#[tokio::test]
async fn web_pages_reach_the_node_under_names_of_its_own_only() {
    let allowed_hosts = [Box::from("cache.shop.example")].into();
    let server = Server::start(HttpLimits { allowed_hosts, ..HttpLimits::default() });
    let ask = async |host: &str, more: &str| {
        let head = format!("GET /ping HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{more}\r\n");
        server.exchange(&head).await
    };
    for more in ["Origin: http://evil.example\r\n", "Sec-Fetch-Site: same-origin\r\n"] {
        let refused = ask("evil.example:6789", more).await;
        assert!(refused.starts_with("HTTP/1.1 403") && refused.contains("bad_host"), "{refused}");
        for host in ["127.0.0.1:6789", "localhost", "zerocache", "Cache.shop.example:1"] {
            assert!(ask(host, more).await.ends_with("pong"), "{host}");
        }
    }
    // curl and the clients are served under any name.
    assert!(ask("evil.example:6789", "").await.ends_with("pong"));
    assert_eq!(server.counters.browsers_refused.get(), 2);
    assert_eq!(server.counters.bad_requests.get(), 0);
}

#[tokio::test]
async fn pipelined_bad_request_is_refused_alone() {
    let server = Server::start(HttpLimits::default());
    let good = "PUT /body HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc";
    let bad = "PUT /body HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc";
    let answer = server.exchange(&format!("{good}{bad}{good}")).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("HTTP/1.1 400"), "{answer}");
    assert_eq!(answer.matches("3 bytes").count(), 1, "{answer}");
}

#[tokio::test]
async fn body_over_the_limit_is_refused_unread() {
    let server = Server::start(HttpLimits::default());
    let mut tcp = server.connect().await;
    let head =
        "PUT /body HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 1001\r\n\r\n";
    tcp.write_all(head.as_bytes()).await.expect("sent");
    // Not one byte of the body is sent, and it is not asked for either.
    let answer = read_all(&mut tcp).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    let head = "PUT /body HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
    let chunk = format!("1f4\r\n{}\r\n", "a".repeat(500));
    let answer = server.exchange(&format!("{head}{chunk}{chunk}{chunk}")).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    assert_eq!(server.counters.bodies_too_large.get(), 2);
    // A client that sends a long body regardless still gets the answer.
    for path in ["/body", "/ignore"] {
        let body = "a".repeat(2 << 20);
        let length = body.len();
        let put =
            format!("PUT {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{body}");
        let mut tcp = server.connect().await;
        let (mut read, mut write) = tcp.split();
        let mut answer = Vec::new();
        let send = async { drop(write.write_all(put.as_bytes()).await) };
        let receive = async { drop(read.read_to_end(&mut answer).await) };
        timeout(PATIENCE, async { tokio::join!(send, receive) }).await.expect("in time");
        let expected = if path == "/body" { "HTTP/1.1 413" } else { "HTTP/1.1 200" };
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with(expected), "{answer}");
    }
}

#[tokio::test]
async fn truncated_and_malformed_bodies_are_refused() {
    let server = Server::start(HttpLimits::default());
    let mut tcp = server.connect().await;
    let put = "PUT /body HTTP/1.1\r\nHost: x\r\n";
    tcp.write_all(format!("{put}Content-Length: 10\r\n\r\nabc").as_bytes()).await.expect("sent");
    tcp.shutdown().await.expect("half closed");
    let answer = read_all(&mut tcp).await;
    assert!(!answer.contains("200 OK"), "{answer}");
    let counters = &server.counters;
    reaches("bodies_incomplete", 1, || counters.bodies_incomplete.get()).await;
    for chunk in ["zz\r\nabc\r\n0\r\n\r\n", "-1\r\n", "3\r\nabcdef\r\n", "ffffffffffffffffff\r\n"] {
        let answer =
            server.exchange(&format!("{put}Transfer-Encoding: chunked\r\n\r\n{chunk}")).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{chunk}: {answer}");
    }
    reaches("bodies_incomplete", 5, || counters.bodies_incomplete.get()).await;
}

#[tokio::test]
async fn slow_heads_and_silent_connections_are_closed() {
    let server = Server::start(short());
    let mut silent = server.connect().await;
    assert_eq!(read_all(&mut silent).await, "");
    let mut dripping = server.connect().await;
    let closed = timeout(PATIENCE, async {
        for byte in b"GET /ping HTTP/1.1\r\nHost: x\r\n".iter().cycle() {
            if dripping.write_all(&[*byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    closed.await.expect("cut in time");
    assert_eq!(server.counters.header_timeouts.get(), 2);
    let mut idle = server.connect().await;
    idle.write_all(b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("sent");
    assert!(read_all(&mut idle).await.ends_with("pong"));
    reaches("idle_timeouts", 1, || server.counters.idle_timeouts.get()).await;
    server.assert_serves().await;
}

#[tokio::test]
async fn dripping_body_is_refused() {
    let server = Server::start(short());
    let mut tcp = server.connect().await;
    let head = "PUT /body HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n";
    tcp.write_all(head.as_bytes()).await.expect("sent");
    let (mut read, mut write) = tcp.split();
    let mut answer = Vec::new();
    let drip = async {
        while write.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, async {
        tokio::select! {
            () = drip => {}
            _ = read.read_to_end(&mut answer) => {}
        }
    })
    .await
    .expect("answered in time");
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert_eq!(server.counters.body_timeouts.get(), 1);
}

#[tokio::test]
async fn bodies_beyond_the_memory_budget_get_503() {
    let mut limits = HttpLimits::default();
    limits.bodies.memory_bytes = 1 << 10;
    let server = Server::start(limits);
    let put = "PUT /body HTTP/1.1\r\nHost: x\r\nContent-Length: 900\r\n\r\n";
    let mut first = server.connect().await;
    first.write_all(put.as_bytes()).await.expect("sent");
    first.write_all(&[b'a'; 500]).await.expect("sent");
    // The first body holds the only KiB as soon as the node has read of it.
    reaches("charged", 1, || u64::from(server.budget.free_bytes() == 0)).await;
    let last = put.replace("Host: x", "Host: x\r\nConnection: close");
    let answer = server.exchange(&format!("{last}{}", "a".repeat(900))).await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("retry-after: 1"), "{answer}");
    assert_eq!(server.counters.bodies_over_memory.get(), 1);
    first.write_all(&[b'a'; 400]).await.expect("sent");
    assert!(read_until(&mut first, "900 bytes").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn connections_above_the_cap_are_refused_and_counted() {
    let limits = HttpLimits { connections_max: 2, ..HttpLimits::default() };
    let server = Server::start(limits);
    let mut open = Vec::new();
    for _ in 0..2 {
        let mut tcp = server.connect().await;
        tcp.write_all(b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("sent");
        read_until(&mut tcp, "pong").await;
        open.push(tcp);
    }
    for _ in 0..3 {
        let answer = server.exchange("GET /ping HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("retry-after"), "{answer}");
    }
    assert_eq!(server.counters.connections_refused.get(), 3);
    drop(open);
    // The places are free as soon as the node has seen the ends.
    let served = timeout(PATIENCE, async {
        let ping = "GET /ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        while !server.exchange(ping).await.ends_with("pong") {}
    });
    served.await.expect("served again");
}

#[tokio::test]
async fn client_that_never_reads_is_disconnected() {
    let mut limits = short();
    limits.write_window = Duration::from_millis(300);
    let server = Server::start(limits);
    let mut tcp = server.connect().await;
    tcp.write_all(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("sent");
    reaches("write_timeouts", 1, || server.counters.write_timeouts.get()).await;
    let received = read_all(&mut tcp).await.len();
    assert!(received < LARGE_BYTES, "{received}");
    // One that reads gets everything.
    let answer = server.exchange("GET /large HTTP/1.0\r\n\r\n").await;
    assert!(answer.len() > LARGE_BYTES, "{}", answer.len());
    assert_eq!(server.counters.write_timeouts.get(), 1);
}

#[tokio::test]
async fn panic_closes_its_own_connection_only() {
    let server = Server::start(HttpLimits::default());
    assert_eq!(server.exchange("GET /panic HTTP/1.1\r\nHost: x\r\n\r\n").await, "");
    reaches("panics", 1, || server.counters.panics.get()).await;
    server.assert_serves().await;
}

#[tokio::test]
async fn upgraded_connection_has_no_http_deadlines() {
    let server = Server::start(short());
    let mut tcp = server.connect().await;
    let request =
        "POST /upgrade HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n";
    tcp.write_all(request.as_bytes()).await.expect("sent");
    let head = read_until(&mut tcp, "\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    // Bytes that would be a late or an ambiguous head of HTTP are only bytes now.
    let head = "GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n";
    tcp.write_all(head.as_bytes()).await.expect("sent");
    read_until(&mut tcp, head).await;
    tokio::time::sleep(short().header_timeout * 2).await;
    tcp.write_all(b"still here").await.expect("sent");
    read_until(&mut tcp, "still here").await;
    assert_eq!(server.counters.header_timeouts.get(), 0);
}

#[tokio::test]
async fn shutdown_closes_idle_connections_and_waits_for_the_others() {
    let limits = HttpLimits { close_timeout: PATIENCE, ..HttpLimits::default() };
    let server = Server::start(limits);
    let mut idle = server.connect().await;
    idle.write_all(b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("sent");
    read_until(&mut idle, "pong").await;
    let mut busy = server.connect().await;
    let head = "PUT /body HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n";
    busy.write_all(head.as_bytes()).await.expect("sent");
    // 100 Continue: the handler is reading.
    read_until(&mut busy, "\r\n\r\n").await;
    let address = server.address;
    let ended = tokio::spawn(server.end());
    assert_eq!(read_all(&mut idle).await, "");
    drop(idle);
    assert!(TcpStream::connect(address).await.is_err(), "still accepts");
    busy.write_all(b"abc").await.expect("sent");
    let answer = read_all(&mut busy).await;
    assert!(answer.ends_with("3 bytes"), "{answer}");
    drop(busy);
    assert_eq!(ended.await.expect("no panic"), ShutdownSummary { connections_cut: 0 });
}

#[tokio::test]
async fn shutdown_cuts_connections_that_do_not_finish() {
    let server = Server::start(short());
    let mut tcp = server.connect().await;
    tcp.write_all(b"GET /forever HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("sent");
    reaches("requests", 1, || server.counters.requests.get()).await;
    assert_eq!(server.end().await, ShutdownSummary { connections_cut: 1 });
    assert_eq!(read_all(&mut tcp).await, "");
}
