//! Accepts connections, with bounds on what they may cost before there is a request.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::time::sleep;

/// The longest time for the head of a request, and for a connection without one.
const HEAD_MAX: Duration = Duration::from_secs(15);

/// The pause after a failed accept: there are no file descriptors, most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The longest head, in bytes: a query of the longest URL, all of it escaped, and the other headers.
const HEAD_BYTES_MAX: usize = 32 << 10;

/// Serves until `end` changes; then the answers that are due are sent. Connections beyond the limit wait in the
/// backlog of the system.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    connections_max: usize,
    mut end: watch::Receiver<bool>,
) {
    let permits = Arc::new(Semaphore::new(connections_max));
    loop {
        let accepted = tokio::select! {
            () = ended(&mut end) => break,
            accepted = accept(&listener, &permits) => accepted,
        };
        let Some((stream, permit)) = accepted else {
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let _ = stream.set_nodelay(true);
        let (router, mut end) = (router.clone(), end.clone());
        tokio::spawn(async move {
            let mut builder = http1::Builder::new();
            builder
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_MAX)
                .max_buf_size(HEAD_BYTES_MAX);
            let service = TowerToHyperService::new(router);
            let connection = builder.serve_connection(TokioIo::new(stream), service);
            tokio::pin!(connection);
            tokio::select! {
                // What ends a connection is its client's concern.
                _ended = connection.as_mut() => {}
                () = ended(&mut end) => {
                    connection.as_mut().graceful_shutdown();
                    let _ended = connection.await;
                }
            }
            drop(permit);
        });
    }
    // All permits are back when all connections have ended.
    let _all = permits.acquire_many(u32::try_from(connections_max).unwrap_or(u32::MAX)).await;
}

async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
) -> Option<(tokio::net::TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let permit = Arc::clone(permits).acquire_owned().await.ok()?;
    let (stream, _) = listener.accept().await.ok()?;
    Some((stream, permit))
}

async fn ended(end: &mut watch::Receiver<bool>) {
    let _or_its_sender_is_gone = end.wait_for(|ended| *ended).await.is_ok();
}
