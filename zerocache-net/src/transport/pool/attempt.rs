//! An attempt to connect, and the task that then drives the connection.

use std::{
    future::Future,
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::sync::watch;
use zerocache_core::{
    call::CallFailure,
    wire::{Envelope, Response},
};

use super::{Pool, PoolKey, Progress, Route};
use crate::{
    clock,
    transport::{
        dial::{Dialled, FramedStream, dial},
        framed::{Connection, drive},
    },
};

/// A connection that was opened with credentials that have changed meanwhile is used for this time.
const RETIRE_AFTER: Duration = Duration::from_secs(1);

/// The task of one entry of the pool: dials, reports the route, and drives the connection until it ends.
pub(super) struct ConnectTask {
    pool: Weak<Pool>,
    key: PoolKey,
    progress: watch::Sender<Progress>,
    is_done: bool,
}

impl ConnectTask {
    pub(super) fn new(pool: Weak<Pool>, key: PoolKey, progress: watch::Sender<Progress>) -> Self {
        Self { pool, key, progress, is_done: false }
    }

    pub(super) async fn run(mut self) {
        let Some(pool) = self.pool.upgrade() else { return };
        let hello = (pool.make_hello)();
        let known = hello.envelope;
        let (timeout, mut dropped) = (pool.connect_timeout, pool.dropped.subscribe());
        let security = pool.security.clone();
        let generation = security.generation();
        drop(pool);
        self.progress.send_replace(Progress::Started);
        let dialled = tokio::select! {
            dialled = dial(self.key.1, hello, timeout, &security) => dialled,
            // The channel never changes; it closes when the pool is dropped.
            _ = dropped.changed() => return,
        };
        let (route, driver) = match dialled {
            Ok(Dialled::Framed(stream)) => {
                let (connection, driver) = connection(*stream, known);
                (Route::Framed(connection), Some(driver))
            }
            Ok(Dialled::Http(response @ Response::Refused(_))) => {
                (Route::Refused(Box::new(response)), None)
            }
            Ok(Dialled::Http(_) | Dialled::Blocked) => (Route::HttpOnly, None),
            Err(failure) => (Route::Failed(failure), None),
        };
        let begun = clock::mono();
        let opened = match &route {
            Route::Framed(connection) => Some(Arc::clone(connection)),
            _ => None,
        };
        let is_wanted = self.report(route);
        // Changed after the credentials were taken: this connection serves those that wait for it.
        let retires = opened.filter(|_| security.generation() != generation);
        let (pool, key) = (self.pool.clone(), self.key);
        drop(self);
        let Some(driver) = driver.filter(|_| is_wanted) else { return };
        // Removes the entry also when the runtime drops the driver.
        let _remove = RemoveOnDrop { pool: pool.clone(), key };
        tokio::select! {
            () = driver => {}
            () = retire_later(retires) => {}
        }
        if let Some(pool) = pool.upgrade() {
            pool.note_end(key, begun);
        }
    }

    /// Stores the route and tells the callers that wait. Returns whether the pool still exists.
    fn report(&mut self, route: Route) -> bool {
        self.is_done = true;
        let Some(pool) = self.pool.upgrade() else { return false };
        pool.store(self.key, &route);
        self.progress.send_replace(Progress::Done(route));
        true
    }
}

impl Drop for ConnectTask {
    fn drop(&mut self) {
        if self.is_done {
            return;
        }
        // A runtime without I/O or timers panics when they are used.
        if std::thread::panicking() {
            if let Some(pool) = self.pool.upgrade() {
                pool.note_without_io(self.key.0);
            }
            self.report(Route::Home);
            return;
        }
        self.report(Route::Failed(CallFailure::NotSent));
    }
}

/// Retires a connection, if one is given, after those that waited for it have sent. Never ends.
async fn retire_later(connection: Option<Arc<Connection>>) {
    if let Some(connection) = connection {
        tokio::time::sleep(RETIRE_AFTER).await;
        connection.retire();
    }
    std::future::pending().await
}

/// Removes a connection that has ended from the pool.
struct RemoveOnDrop {
    pool: Weak<Pool>,
    key: PoolKey,
}

impl Drop for RemoveOnDrop {
    fn drop(&mut self) {
        if let Some(pool) = self.pool.upgrade() {
            pool.remove_closed(self.key);
        }
    }
}

/// Creates the connection over a stream, and its driver. `known` is the envelope of the Hello.
fn connection(
    framed: FramedStream,
    known: Envelope,
) -> (Arc<Connection>, impl Future<Output = ()>) {
    let FramedStream { stream, reader, peer } = framed;
    let to = peer.node.map(|node| node.incarnation);
    let known = Envelope { cluster: known.cluster, from: known.from, to, ..Envelope::default() };
    let (read, write) = stream.into_halves();
    let connection = Arc::new(Connection::new(write, known));
    (Arc::clone(&connection), drive(connection, read, reader))
}
