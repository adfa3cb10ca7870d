//! The node's side of framed connections: reads requests in batches, answers reads at once, passes the
//! rest to the node, and writes the responses of a batch with one write.
//!
//! Invariants: every request of which a frame has arrived gets exactly one response, or its connection
//! ends; a connection whose peer does not read is not read from either; everything that a peer can make
//! the node hold is bounded.

mod look_ahead;
mod session;

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};
use zerocache_core::{
    node::Input,
    wire::{Envelope, Response},
};
use zerocache_net::{
    clock,
    transport::framed::{Flush, FrameReader, FrameWriter, HANDSHAKE_ID, MemoryBudget},
};

use self::session::Session;
use crate::{
    access::{AccessControl, Caller},
    driver::{EncodedResponse, NodeDriver, response_header},
    telemetry::ServerCounters,
};

/// The longest wait at the end of a connection until the last responses are written, and as long again until
/// the peer has taken them.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);

/// The framed connections of a node.
pub struct FramedConnections {
    driver: Arc<NodeDriver>,
    access: Arc<AccessControl>,
    counters: Arc<ServerCounters>,
    memory: Arc<dyn MemoryBudget>,
    limits: FrameLimits,
    /// Bytes of pending responses on all connections.
    pending_bytes: Arc<AtomicUsize>,
    tasks: Mutex<JoinSet<()>>,
    closing: watch::Sender<bool>,
}

/// The limits of the framed connections of a node.
#[derive(Clone, Copy, Debug)]
pub struct FrameLimits {
    /// The largest message, in bytes.
    pub message_bytes_max: usize,
    /// The largest value that fits into one, in bytes.
    pub value_bytes_max: u64,
    /// Pending responses of all connections together, in bytes, beyond which each connection may have
    /// only a few.
    pub pending_bytes_max: usize,
}

/// The result of the handshake with which a framed connection begins.
pub struct FramedHandshake {
    /// Bytes read beyond the handshake.
    pub read: Bytes,
    /// The time at which the caller sent its part of the upgrade, by its own clock in milliseconds.
    pub sent_ms: Option<u32>,
    /// Who calls.
    pub caller: Arc<Caller>,
    /// The envelope that both sides know from now on.
    pub known: Envelope,
    /// The node's response to the handshake.
    pub hello: Response,
}

impl FramedConnections {
    /// Creates the connections of a node within `limits`; large messages reserve `memory`.
    #[must_use]
    pub fn new(
        driver: Arc<NodeDriver>,
        access: Arc<AccessControl>,
        counters: Arc<ServerCounters>,
        memory: Arc<dyn MemoryBudget>,
        limits: FrameLimits,
    ) -> Arc<Self> {
        let (closing, _) = watch::channel(false);
        let (tasks, pending_bytes) = (Mutex::default(), Arc::default());
        Arc::new(Self { driver, access, counters, memory, limits, pending_bytes, tasks, closing })
    }

    /// Serves the connection that `stream` resolves to.
    pub fn serve<S>(
        self: &Arc<Self>,
        stream: impl Future<Output = Option<(S, FramedHandshake)>> + Send + 'static,
    ) where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let connections = Arc::clone(self);
        let mut tasks = self.tasks.lock();
        while tasks.try_join_next().is_some() {}
        tasks.spawn(async move {
            if let Some((stream, handshake)) = stream.await {
                connections.serve_stream(stream, handshake).await;
            }
        });
    }

    async fn serve_stream<S>(&self, stream: S, handshake: FramedHandshake)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        // What the handshake brought is dropped here: some connections last for days.
        let FramedHandshake { read: beyond, sent_ms, known, hello, caller } = handshake;
        let mut closing = self.closing.subscribe();
        let (read, write) = tokio::io::split(stream);
        let meter = Arc::clone(&self.pending_bytes);
        let writer = Arc::new(FrameWriter::metered(Box::new(write), meter));
        let mut reader = FrameReader::new(self.limits.message_bytes_max, Arc::clone(&self.memory));
        if let Some(sent_ms) = sent_ms {
            reader.note_sent(sent_ms, clock::mono());
        }
        reader.extend(&beyond);
        drop(beyond);
        let header = response_header(HANDSHAKE_ID, clock::mono());
        writer.send(header, &EncodedResponse(&hello), Flush::Now);
        drop(hello);
        let connection = self.driver.next_connection();
        let source = (connection, Arc::clone(&caller));
        let session = Session::new(self, source, Arc::clone(&writer), known);
        tokio::select! {
            () = writer.run() => {}
            () = session.run(read, reader) => {}
            () = async { drop(closing.wait_for(|closing| *closing).await) } => finish(&writer).await,
            denial = self.access.end_of(&caller) => {
                tracing::debug!(peer = %caller.ip(), %denial, "connection closed: credentials ended");
                finish(&writer).await;
            }
        }
        let ended = writer.shut_down();
        self.driver.input(Input::ConnectionClosed(connection));
        let _out_of_time = timeout(CLOSE_TIMEOUT, ended).await;
    }

    /// Returns the bytes of pending responses on all connections.
    #[must_use]
    pub fn pending_bytes(&self) -> usize {
        self.pending_bytes.load(Ordering::Relaxed)
    }

    /// Cuts all connections.
    pub fn abort(&self) {
        self.tasks.lock().abort_all();
    }

    /// Closes all connections, after their responses are written.
    pub async fn close(&self) {
        self.closing.send_replace(true);
        let mut tasks = std::mem::take(&mut *self.tasks.lock());
        while tasks.join_next().await.is_some() {}
    }
}

/// Writes the responses that are ready, for a short time at most.
async fn finish(writer: &FrameWriter) {
    let written = async {
        while !writer.is_flushed() {
            writer.flush();
            sleep(Duration::from_millis(1)).await;
        }
    };
    let _out_of_time = timeout(CLOSE_TIMEOUT, written).await;
}
