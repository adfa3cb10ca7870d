//! The listener with TLS against callers that are slow, broken or many, over real sockets.

mod certificates;
mod client;
#[path = "../http_limits/server.rs"]
mod server;

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use zerocache_net::security::TlsMode;
use zerocache_server::access::AccessControl;
use zerocache_server::http::{Entrance, HttpLimits, ShutdownSummary};

use client::{client_hello, connect, security};
use server::{LARGE_BYTES, PATIENCE, Server, reaches, read_all, read_until};

const PING: &str = "GET /ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

fn short() -> HttpLimits {
    HttpLimits {
        header_timeout: Duration::from_millis(300),
        handshake_timeout: Duration::from_millis(500),
        write_window: Duration::from_millis(300),
        linger: Duration::from_millis(100),
        close_timeout: Duration::from_millis(500),
        ..HttpLimits::default()
    }
}

fn start(mode: TlsMode, limits: HttpLimits) -> Server {
    Server::start_with(
        limits,
        Entrance { access: AccessControl::insecure(), security: security(mode) },
    )
}

/// Sends a request over TLS and returns all that comes back. The node must say that it ends.
async fn exchange(server: &Server, request: &str) -> String {
    let mut tls = connect(server.connect().await).await.expect("a handshake");
    tls.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = Vec::new();
    timeout(PATIENCE, tls.read_to_end(&mut answer))
        .await
        .expect("in time")
        .expect("an orderly end");
    String::from_utf8(answer).expect("text")
}

async fn assert_serves(server: &Server) {
    let answer = exchange(server, PING).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("pong"), "{answer}");
}

#[tokio::test]
async fn requests_bodies_and_upgrades_work_over_tls() {
    let server = start(TlsMode::Required, HttpLimits::default());
    assert_serves(&server).await;
    let head = "PUT /body HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc";
    assert!(exchange(&server, head).await.ends_with("3 bytes"));
    let large =
        exchange(&server, "GET /large HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    assert!(large.len() > LARGE_BYTES, "{}", large.len());
    // The bytes of heads are validated above TLS.
    let twice = head.replace("Connection: close", "Content-Length: 3");
    assert!(exchange(&server, &twice).await.contains("the length of the body is ambiguous"));
    let mut tls = connect(server.connect().await).await.expect("a handshake");
    let request =
        "POST /upgrade HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n";
    tls.write_all(request.as_bytes()).await.expect("sent");
    read_until(&mut tls, "\r\n\r\n").await;
    tls.write_all(b"frames").await.expect("sent");
    read_until(&mut tls, "frames").await;
    assert_eq!(server.counters.handshakes.get(), 5);
    assert_eq!(server.budget.free_bytes(), HttpLimits::default().bodies.memory_bytes);
    drop(tls);
    assert_eq!(server.end().await, ShutdownSummary { connections_cut: 0 });
}

#[tokio::test]
async fn client_that_never_reads_is_disconnected() {
    let server = start(TlsMode::Required, short());
    let mut tls = connect(server.connect().await).await.expect("a handshake");
    tls.write_all(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("sent");
    reaches("write_timeouts", 1, || server.counters.write_timeouts.get()).await;
    let mut received = Vec::new();
    let ended = timeout(PATIENCE, tls.read_to_end(&mut received)).await.expect("closed");
    assert!(ended.is_err() && received.len() < LARGE_BYTES, "{}", received.len());
    assert_serves(&server).await;
}

#[tokio::test]
async fn handshake_that_stops_half_way_ends() {
    let server = start(TlsMode::Required, short());
    let hello = client_hello();
    // After one byte, within the first message, and after it.
    for (number, length) in (1..).zip([1, hello.len() / 2, hello.len()]) {
        let mut tcp = server.connect().await;
        tcp.write_all(&hello[..length]).await.expect("sent");
        read_all(&mut tcp).await;
        assert_eq!(server.counters.handshake_timeouts.get(), number, "{length} bytes");
    }
    assert_eq!(server.counters.handshakes.get(), 0);
    assert_serves(&server).await;
}

#[tokio::test]
async fn silent_callers_have_the_time_of_a_head() {
    let server = start(TlsMode::Optional, short());
    for sent in [&b""[..], b"G", b"GET /ping"] {
        let mut tcp = server.connect().await;
        tcp.write_all(sent).await.expect("sent");
        assert_eq!(read_all(&mut tcp).await, "", "{sent:?}");
    }
    assert_eq!(server.counters.header_timeouts.get(), 3);
    let mut silent = connect(server.connect().await).await.expect("a handshake");
    let mut nothing = Vec::new();
    let ended = timeout(PATIENCE, silent.read_to_end(&mut nothing)).await.expect("closed");
    assert!(nothing.is_empty(), "{ended:?}");
    assert_eq!(server.counters.header_timeouts.get(), 4);
}

#[tokio::test]
async fn garbage_is_refused_and_others_are_served() {
    let server = start(TlsMode::Required, HttpLimits::default());
    let hello = client_hello();
    let mut old_version = hello.clone();
    // No version in `supported_versions` but TLS 1.2.
    let version = old_version.windows(2).rposition(|pair| pair == [3, 4]).expect("TLS 1.3");
    old_version[version + 1] = 3;
    let mut cases = vec![
        b"\x16garbage garbage garbage".to_vec(),
        b"\x16\x03\x01\xff\xff".iter().chain(&[0; 70_000]).copied().collect(),
        // A record of the right form with another message in it.
        b"\x16\x03\x01\x00\x04\x02\x00\x00\x00".to_vec(),
        old_version,
    ];
    // A first message that claims to be 16 MiB long, in records that never end it.
    let record = [&b"\x16\x03\x01\x40\x00"[..], &[1; 16 << 10]].concat();
    cases.push(record.repeat(20));
    for (number, case) in (1..).zip(&cases) {
        let mut tcp = server.connect().await;
        // The node may close in the middle.
        let _cut = tcp.write_all(case).await;
        let answer = read_all(&mut tcp).await;
        assert!(!answer.contains("HTTP"), "case {number}: {answer}");
        reaches("handshakes_failed", number, || server.counters.handshakes_failed.get()).await;
    }
    assert_eq!(server.counters.bad_requests.get(), 0);
    assert_serves(&server).await;
}

#[tokio::test]
async fn plain_callers_are_told_that_tls_is_required() {
    let server = start(TlsMode::Required, HttpLimits::default());
    for request in [PING, "PUT /body HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"] {
        let answer = server.exchange(request).await;
        assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("tls_required"), "{answer}");
    }
    assert_eq!(server.counters.plain_refused.get(), 2);
    let server = start(TlsMode::Optional, HttpLimits::default());
    server.assert_serves().await;
    assert_serves(&server).await;
    assert_eq!(server.counters.plain_refused.get(), 0);
}

#[tokio::test]
async fn caller_with_tls_gets_an_answer_without_it_where_it_is_off() {
    let server = Server::start(HttpLimits::default());
    let mut tcp = server.connect().await;
    tcp.write_all(&client_hello()).await.expect("sent");
    let answer = read_all(&mut tcp).await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    let error = connect(server.connect().await).await.expect_err("no TLS there");
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidData, "{error}");
}

#[tokio::test]
async fn nothing_is_said_to_a_tls_caller_above_the_cap() {
    let server =
        start(TlsMode::Optional, HttpLimits { connections_max: 1, ..HttpLimits::default() });
    let mut first = connect(server.connect().await).await.expect("a handshake");
    first.write_all(b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("sent");
    read_until(&mut first, "pong").await;
    let mut second = server.connect().await;
    second.write_all(&client_hello()).await.expect("sent");
    assert_eq!(read_all(&mut second).await, "");
    assert!(server.exchange(PING).await.starts_with("HTTP/1.1 503"));
    assert_eq!(server.counters.connections_refused.get(), 2);
}

#[tokio::test]
async fn shutdown_does_not_wait_for_handshakes() {
    let limits = HttpLimits { close_timeout: PATIENCE, ..HttpLimits::default() };
    let server = start(TlsMode::Required, limits);
    let hello = client_hello();
    let mut half = Vec::new();
    for length in [0, 1, hello.len()] {
        let mut tcp = server.connect().await;
        tcp.write_all(&hello[..length]).await.expect("sent");
        half.push(tcp);
    }
    // The last of them has got its part of the handshake.
    assert_ne!(half[2].read(&mut [0; 8]).await.expect("readable"), 0);
    assert_eq!(server.end().await, ShutdownSummary { connections_cut: 0 });
}

/// Connects from another source than all others here.
async fn connect_from_elsewhere(to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(SocketAddr::from(([127, 0, 0, 2], 0))).expect("bound");
    socket.connect(to).await.expect("connected")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_half_handshakes_leave_others_served() {
    const ALL: usize = 10_000;
    /// Open at a time: both ends are files of this process.
    const PORTION: usize = 400;
    let server = start(TlsMode::Required, HttpLimits::default());
    let hello = client_hello();
    for portion in 0..ALL / PORTION {
        let mut half = Vec::with_capacity(PORTION);
        for number in 0..PORTION {
            let mut tcp = connect_from_elsewhere(server.address).await;
            // One in ten costs the node its part of the handshake.
            let length =
                if number % 10 == 0 { hello.len() } else { 1 + number % (hello.len() - 1) };
            tcp.write_all(&hello[..length]).await.expect("sent");
            half.push(tcp);
        }
        let served = timeout(Duration::from_secs(5), assert_serves(&server)).await;
        assert!(served.is_ok(), "portion {portion}");
    }
    let counters = &server.counters;
    assert_eq!(counters.handshakes.get(), (ALL / PORTION) as u64);
    assert_eq!(counters.handshakes_refused.get(), 0);
    // Those that were cut by their callers failed, and the slow ones had no more than their time.
    let ended = || counters.handshakes_failed.get() + counters.handshake_timeouts.get();
    reaches("ended", ALL as u64, ended).await;
}
