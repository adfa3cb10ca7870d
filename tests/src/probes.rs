//! Reads and writes at chosen nodes over framed connections with many concurrent requests: a
//! hundred thousand keys of nine nodes are compared in seconds.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream;
use tokio::runtime::Runtime;
use zerocache_core::call::CallFailure;
use zerocache_core::ttl::Ttl;
use zerocache_core::version::{Version, VersionSource};
use zerocache_core::wire::{
    Ack, Envelope, Request, RequestMessage, Response, Status, Written, cluster_id,
};
use zerocache_net::clock;
use zerocache_net::security::{Security, SecurityConfig, Source};
use zerocache_net::transport::{FramedTransport, Transport};

use crate::frames::{CLUSTER, client_hello};
use crate::messages;
use crate::poll::PATIENCE;
use crate::security::Keys;

/// Concurrent requests to one node.
const CONCURRENCY: usize = 128;

/// Keys that are compared before the next ones are read.
const COMPARE_BATCH: usize = 4_000;

/// The time limit for a connection attempt.
const CONNECT: Duration = Duration::from_secs(1);

/// The time limit for one request.
const CALL: Duration = Duration::from_secs(2);

/// The pause before a request is sent again.
const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// The TTL of written values: longer than any measurement.
const TTL_S: u64 = 3_600;

/// The version and value that a node holds for a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredVersion {
    /// The version.
    pub version: Version,
    /// A hash of the value.
    pub value: u64,
}

/// A client of the test that talks to every node directly.
pub struct Probes {
    runtime: Runtime,
    transport: FramedTransport,
}

impl Default for Probes {
    fn default() -> Self {
        Self::new()
    }
}

impl Probes {
    /// Creates probes with connections of their own.
    ///
    /// # Panics
    ///
    /// If the system has no threads left.
    #[must_use]
    pub fn new() -> Self {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(2).enable_all().build().expect("a runtime");
        let make_hello = Arc::new(|| client_hello(CLUSTER));
        let transport = FramedTransport::new(make_hello, CONNECT, runtime.handle().clone());
        let transport = match Keys::of_this_run() {
            Some(keys) => {
                let token = Some(Source::Value(keys.admin().to_owned()));
                let config = SecurityConfig { token, ..SecurityConfig::default() };
                transport.with_security(Security::load(config).expect("a token"))
            }
            None => transport,
        };
        Self { runtime, transport }
    }

    /// Runs something that uses these probes.
    pub fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    async fn call(
        &self,
        at: SocketAddr,
        request: Request,
        timeout: Duration,
    ) -> Result<Response, CallFailure> {
        let timeout_ms = timeout.as_millis() as u64;
        let envelope = Envelope { cluster: cluster_id(CLUSTER), timeout_ms, ..Envelope::default() };
        self.transport.call(at, RequestMessage { envelope, request }, timeout).await
    }

    /// Returns the version and value that a node holds for a key; retries until the node answers.
    ///
    /// # Panics
    ///
    /// If it does not answer for [`PATIENCE`].
    pub async fn read(&self, at: SocketAddr, key: &[u8]) -> Option<StoredVersion> {
        let end = clock::elapsed() + PATIENCE;
        loop {
            let request = Request::Get { key: messages::key(key) };
            let answer = self.call(at, request, CALL).await;
            match answer {
                Ok(Response::Found { value, version, .. }) => {
                    let mut hasher = DefaultHasher::new();
                    value.hash(&mut hasher);
                    return Some(StoredVersion { version, value: hasher.finish() });
                }
                Ok(Response::NotFound { .. }) => return None,
                other => assert!(clock::elapsed() < end, "{at} does not answer: {other:?}"),
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    /// The keys for which these nodes do not hold the same, all of them absence included.
    ///
    /// # Panics
    ///
    /// If one does not answer for [`PATIENCE`].
    #[must_use]
    pub fn disagreements(&self, nodes: &[SocketAddr], keys: &[Bytes]) -> Vec<Bytes> {
        let mut differing = Vec::new();
        for keys in keys.chunks(COMPARE_BATCH) {
            let read_all = |at: SocketAddr| {
                let reads = stream::iter(keys.to_vec());
                let reads = reads.map(move |key| async move { self.read(at, &key).await });
                reads.buffered(CONCURRENCY).collect::<Vec<_>>()
            };
            let held = self.block_on(join_all(nodes.iter().map(|at| read_all(*at))));
            for (n, key) in keys.iter().enumerate() {
                if held.iter().any(|of_node| of_node[n] != held[0][n]) {
                    differing.push(key.clone());
                }
            }
        }
        differing
    }

    /// Returns for each of these keys whether the node has no value.
    ///
    /// # Panics
    ///
    /// As [`disagreements`](Self::disagreements).
    #[must_use]
    pub fn absent(&self, at: SocketAddr, keys: &[Bytes]) -> Vec<bool> {
        let reads = stream::iter(keys.to_vec());
        let reads = reads.map(|key| async move { self.read(at, &key).await.is_none() });
        self.block_on(reads.buffered(CONCURRENCY).collect())
    }

    /// Returns for how many of these keys a node has no value.
    ///
    /// # Panics
    ///
    /// As [`disagreements`](Self::disagreements).
    #[must_use]
    pub fn lacks(&self, at: SocketAddr, keys: &[Bytes]) -> usize {
        self.absent(at, keys).into_iter().filter(|absent| *absent).count()
    }

    /// Writes a value, or deletes the key when there is none, acknowledged by the node itself.
    ///
    /// # Errors
    /// If there is no answer within `timeout`.
    pub async fn write(
        &self,
        at: SocketAddr,
        key: &[u8],
        value: Option<Bytes>,
        timeout: Duration,
    ) -> Result<Option<Written>, CallFailure> {
        let (key, ack) = (messages::key(key), Ack::Local);
        let request = match value {
            Some(value) => {
                let ttl = Ttl::from_secs(TTL_S).expect("a lifetime");
                Request::Put {
                    key,
                    value,
                    metadata: Bytes::new(),
                    ttl,
                    ack,
                    version: VersionSource::Accepted,
                }
            }
            None => Request::Delete { key, ack },
        };
        Ok(match self.call(at, request, timeout).await? {
            Response::Written(written) => Some(written),
            _refused => None,
        })
    }

    /// Writes all these keys at one node, each with a value of `bytes` bytes, evenly over `time`.
    ///
    /// # Panics
    ///
    /// If one is not stored within [`PATIENCE`].
    pub fn fill(&self, at: SocketAddr, keys: &[Bytes], bytes: usize, time: Duration) {
        let started = clock::elapsed();
        let each = time / u32::try_from(keys.len()).unwrap_or(u32::MAX).max(1);
        let writes = stream::iter(keys.iter().cloned().enumerate());
        let writes = writes.map(|(n, key)| async move {
            let due = started + each * u32::try_from(n).unwrap_or(u32::MAX);
            let early = due.saturating_sub(clock::elapsed());
            if early > Duration::from_millis(1) {
                tokio::time::sleep(early).await;
            }
            self.store(at, &key, bytes).await;
        });
        self.block_on(writes.buffer_unordered(CONCURRENCY).collect::<Vec<()>>());
    }

    async fn store(&self, at: SocketAddr, key: &[u8], bytes: usize) {
        let end = clock::elapsed() + PATIENCE;
        loop {
            let answer = self.write(at, key, Some(value_of(key, bytes)), CALL).await;
            match answer {
                Ok(Some(Written { status: Status::Stored | Status::Superseded, .. })) => return,
                other => assert!(clock::elapsed() < end, "{at} does not store: {other:?}"),
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }
}

/// Keys with a common beginning.
#[must_use]
pub fn keys(beginning: &str, count: usize) -> Vec<Bytes> {
    (0..count).map(|n| Bytes::from(format!("{beginning} {n}"))).collect()
}

/// A value of this many bytes that tells its key.
#[must_use]
pub fn value_of(key: &[u8], bytes: usize) -> Bytes {
    key.iter().copied().cycle().take(bytes).collect::<Vec<_>>().into()
}
