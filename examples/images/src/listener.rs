//! Accepts connections, with bounds on what they may cost.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{sleep, timeout};

/// The pause after a failed accept: there are no file descriptors, most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The longest head, in bytes: a query of the longest URL, all of it escaped, and the other headers.
const HEAD_BYTES_MAX: usize = 32 << 10;

/// What connections may take.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Connections at once; more wait in the backlog of the system.
    pub connections: usize,
    /// The time for the head of a request, and for a connection without one.
    pub head: Duration,
    /// The time after which a connection gets no more requests. Browsers open another one.
    pub life: Duration,
    /// The time after that for the answer that is due: who does not read it holds an image in memory.
    pub last_answer: Duration,
}

impl Bounds {
    /// The usual bounds, for a number of connections at once.
    #[must_use]
    pub fn new(connections: usize) -> Self {
        let seconds = Duration::from_secs;
        Self { connections, head: seconds(15), life: seconds(300), last_answer: seconds(45) }
    }
}

/// Serves until `end` changes; then the answers that are due are sent.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    bounds: Bounds,
    mut end: watch::Receiver<bool>,
) {
    let permits = Arc::new(Semaphore::new(bounds.connections));
    loop {
        let accepted = tokio::select! {
            () = ended(&mut end) => break,
            accepted = accept(&listener, &permits) => accepted,
        };
        let Some((stream, permit)) = accepted else {
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let (router, end) = (router.clone(), end.clone());
        tokio::spawn(async move {
            connection(stream, router, bounds, end).await;
            drop(permit);
        });
    }
    // All permits are back when all connections have ended.
    let _all = permits.acquire_many(u32::try_from(bounds.connections).unwrap_or(u32::MAX)).await;
}

async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
) -> Option<(TcpStream, OwnedSemaphorePermit)> {
    let permit = Arc::clone(permits).acquire_owned().await.ok()?;
    let (stream, _) = listener.accept().await.ok()?;
    Some((stream, permit))
}

async fn connection(
    stream: TcpStream,
    router: Router,
    bounds: Bounds,
    mut end: watch::Receiver<bool>,
) {
    let _not_needed = stream.set_nodelay(true);
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(bounds.head).max_buf_size(HEAD_BYTES_MAX);
    let connection =
        builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    tokio::pin!(connection);
    tokio::select! {
        // What ends a connection is its client's concern.
        _ended = connection.as_mut() => return,
        () = ended(&mut end) => {}
        () = sleep(bounds.life) => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ended = timeout(bounds.last_answer, connection).await;
}

async fn ended(end: &mut watch::Receiver<bool>) {
    let _or_its_sender_is_gone = end.wait_for(|ended| *ended).await.is_ok();
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const BOUNDS: Bounds = Bounds {
        connections: 1,
        head: Duration::from_millis(100),
        life: Duration::from_millis(300),
        last_answer: Duration::from_millis(100),
    };

    async fn start() -> (std::net::SocketAddr, watch::Sender<bool>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = listener.local_addr().expect("an address");
        let (end, ended) = watch::channel(false);
        let large = async || vec![0_u8; 64 << 20];
        let router = Router::new().route("/", get(async || "here")).route("/large", get(large));
        tokio::spawn(serve(listener, router, BOUNDS, ended));
        (address, end)
    }

    async fn is_served(address: std::net::SocketAddr) -> bool {
        let exchange = async {
            let mut stream = TcpStream::connect(address).await?;
            stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.map(|_| answer.ends_with("here"))
        };
        timeout(Duration::from_secs(5), exchange).await.is_ok_and(|answer| answer.unwrap_or(false))
    }

    #[tokio::test]
    async fn connection_without_a_request_makes_room() {
        let (address, _end) = start().await;
        let mut slow = TcpStream::connect(address).await.expect("connected");
        slow.write_all(b"GET / HT").await.expect("written");
        assert!(is_served(address).await);
    }

    #[tokio::test]
    async fn reader_that_does_not_read_makes_room() {
        let (address, _end) = start().await;
        let mut slow = TcpStream::connect(address).await.expect("connected");
        slow.write_all(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("written");
        assert!(is_served(address).await);
    }
}
