//! A server with a small router, and clients that see every byte.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Response, StatusCode};
use axum::routing::{get, post, put};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use zerocache_server::access::AccessControl;
use zerocache_server::http::{
    BodyBudget, Entrance, HttpLimits, ShutdownSummary, bind, read_body, serve,
};
use zerocache_server::telemetry::ServerCounters;

/// Longer than anything here should take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// The longest body that the test router takes.
const BODY_BYTES_MAX: u64 = 1000;
/// The size of the response to `/large`: more than the kernel buffers for one connection.
pub(crate) const LARGE_BYTES: usize = 64 << 20;

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) counters: Arc<ServerCounters>,
    pub(crate) budget: BodyBudget,
    stop: Option<oneshot::Sender<()>>,
    serving: JoinHandle<ShutdownSummary>,
}

impl Server {
    pub(crate) fn start(limits: HttpLimits) -> Self {
        Self::start_with(limits, AccessControl::insecure())
    }

    pub(crate) fn start_with(limits: HttpLimits, entrance: impl Into<Entrance>) -> Self {
        let entrance = entrance.into();
        let listener = bind(&[SocketAddr::from(([127, 0, 0, 1], 0))]).expect("a listener");
        let address = listener.local_addr().expect("an address");
        let counters = Arc::new(ServerCounters::default());
        let budget = BodyBudget::new(limits.bodies.clone(), Arc::clone(&counters));
        let (stop, stopped) = oneshot::channel();
        let stopped = async move { drop(stopped.await) };
        let serving = tokio::spawn(serve(
            listener,
            router(budget.clone()),
            entrance,
            limits,
            Arc::clone(&counters),
            stopped,
        ));
        Self { address, counters, budget, stop: Some(stop), serving }
    }

    pub(crate) async fn connect(&self) -> TcpStream {
        timeout(PATIENCE, TcpStream::connect(self.address))
            .await
            .expect("in time")
            .expect("connected")
    }

    /// Sends bytes on a new connection and returns all that comes back until it is closed.
    pub(crate) async fn exchange(&self, request: &str) -> String {
        let mut tcp = self.connect().await;
        tcp.write_all(request.as_bytes()).await.expect("sent");
        read_all(&mut tcp).await
    }

    pub(crate) async fn assert_serves(&self) {
        let answer =
            self.exchange("GET /ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("pong"), "{answer}");
    }

    /// Ends serving and waits for it.
    pub(crate) async fn end(mut self) -> ShutdownSummary {
        drop(self.stop.take());
        timeout(PATIENCE, self.serving).await.expect("in time").expect("no panic")
    }
}

fn router(budget: BodyBudget) -> Router {
    Router::new()
        .route("/ping", get(|| async { "pong" }))
        .route("/large", get(|| async { vec![b'x'; LARGE_BYTES] }))
        .route("/panic", get(|| async { panic!("asked for") as &'static str }))
        .route("/forever", get(std::future::pending::<&'static str>))
        .route("/body", put(length))
        .route("/ignore", put(|| async { "ignored" }))
        .route("/upgrade", post(upgrade))
        .with_state(budget)
}

async fn length(State(budget): State<BodyBudget>, body: Body) -> (StatusCode, HeaderMap, String) {
    let mut headers = HeaderMap::new();
    match read_body(body, BODY_BYTES_MAX, &budget).await {
        Ok(bytes) => (StatusCode::OK, headers, format!("{} bytes", bytes.len())),
        Err(error) => {
            if let Some(seconds) = error.retry_after_s() {
                headers.insert("retry-after", seconds.into());
            }
            (error.status(), headers, error.to_string())
        }
    }
}

/// Switches to a protocol that sends back what it gets.
async fn upgrade(request: axum::extract::Request) -> Response<Body> {
    tokio::spawn(async move {
        let upgraded = hyper::upgrade::on(request).await.expect("upgraded");
        let (mut read, mut write) = tokio::io::split(hyper_util::rt::TokioIo::new(upgraded));
        tokio::io::copy(&mut read, &mut write).await.expect("copied");
    });
    let builder = Response::builder().status(StatusCode::SWITCHING_PROTOCOLS);
    let builder = builder.header("connection", "upgrade").header("upgrade", "echo");
    builder.body(Body::empty()).expect("a response")
}

/// Reads until the other side closes; a reset counts as that.
pub(crate) async fn read_all(tcp: &mut (impl AsyncRead + Unpin)) -> String {
    let mut bytes = Vec::new();
    let _ = timeout(PATIENCE, tcp.read_to_end(&mut bytes)).await.expect("closed in time");
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Reads one response whose body is `tail`, on a connection that stays open.
pub(crate) async fn read_until(tcp: &mut (impl AsyncRead + Unpin), tail: &str) -> String {
    let mut bytes = Vec::new();
    while !bytes.ends_with(tail.as_bytes()) {
        let read = timeout(PATIENCE, tcp.read_buf(&mut bytes)).await.expect("in time");
        assert_ne!(read.expect("readable"), 0, "closed after {bytes:?}");
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Waits for a count that another task raises.
pub(crate) async fn reaches(what: &str, least: u64, value: impl Fn() -> u64) {
    let reached = timeout(PATIENCE, async {
        while value() < least {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(reached.await.is_ok(), "{what} is {} and not {least}", value());
}
