//! A client: a handle to an engine that runs on the background runtime.

mod attached;
mod background;
mod batch;
mod builder;
mod conditional;
mod config;
mod credentials;
mod denials;
mod drive;
mod engine;
mod entry;
pub(crate) mod environment;
mod fast;
mod feed;
mod finder;
mod get;
mod instances;
mod leases;
mod life;
mod listen;
mod local_state;
mod locate;
mod many;
mod many_typed;
mod near_read;
pub(crate) mod offline;
mod prepared;
mod purge;
mod reads;
mod renewal;
mod report;
mod running;
mod sharing;
mod start;
mod stats;
#[cfg(feature = "metrics")]
mod telemetry;
#[cfg(not(feature = "metrics"))]
#[path = "telemetry_off.rs"]
mod telemetry;
#[cfg(test)]
mod tests;
mod timings;
mod uses;
mod watch;
mod write;
mod writes;

use std::{fmt, future::Future, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::runtime::Handle;
use zerocache_core::{
    key::Key,
    limits::KEY_BYTES_WIRE_MAX,
    version::{Incarnation, Version},
};

pub(crate) use self::{
    background::function_runtime,
    entry::ReadAnswer,
    instances::generation,
    leases::{LeaseReply, LeaseTerms, LeaseToken},
    local_state::LocalState,
    prepared::{ComputedPut, ReadPoint},
    purge::PurgeRequest,
    running::Running,
};
pub use self::{
    builder::ClientBuilder,
    conditional::{ConditionalOutcome, ConditionalWrite, GetAndDelete, Taken},
    entry::Entry,
    get::{ExplainGet, Get, GetEntry, GetValue},
    listen::{Change, Changes, Listen, Subject},
    locate::{GetFrom, Locate, Location, Locations},
    many::{GetMany, GetManyEach, WriteMany, WriteManyEach},
    many_typed::{GetManyValues, GetManyValuesEach},
    report::{AttemptOutcome, ExplainedGet, ReadAttempt, ReadOutcome, ReadReport, ReportedNode},
    stats::{ClientStats, TierCounts},
    write::Write,
};
use self::{
    config::Config,
    life::{Inner, Life, Live},
    prepared::Prepared,
};
use crate::{
    Error,
    codec::{Codec, Destination, IntoValue},
    counters::MemoCounters,
    lifetime::Lifetime,
    wait,
};

/// A handle to the cache, as seen from one region. Cheap to clone; usable from any thread, with or
/// without a runtime.
///
/// ```no_run
/// # async fn example() -> Result<(), zerocache_client::Error> {
/// use std::time::Duration;
/// use zerocache_client::ZerocacheClient;
///
/// let cache = ZerocacheClient::get_instance("sydney");
/// cache.ready(Duration::from_secs(2)).await?;
/// cache.put("greeting", "hello", 60).await?;
/// assert_eq!(cache.get("greeting").await?.as_deref(), Some(&b"hello"[..]));
/// cache.delete("greeting").await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct ZerocacheClient {
    inner: Arc<Inner>,
}

/// A node as a client sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NodeStatus {
    /// Its life.
    pub id: Incarnation,
    /// Where it stands.
    pub region: String,
    /// Where it answers.
    pub address: SocketAddr,
    /// Whether it is in the rotation: it is reachable, not overloaded, and not shutting down.
    pub in_rotation: bool,
    /// Its smoothed round-trip time.
    pub latency: Option<Duration>,
    /// Reads that it answered with a value.
    pub hits: u64,
}

impl ZerocacheClient {
    /// The client of `region` in this process; made from the `ZEROCACHE_*` variables at the first
    /// call, unless one was [installed](ClientBuilder::install).
    ///
    /// It cannot fail: a mistake in the variables is what [`ready`](Self::ready) and every operation
    /// report, and what memoized functions count.
    #[must_use]
    pub fn get_instance(region: impl AsRef<str>) -> Self {
        instances::get(region.as_ref())
    }

    /// Forgets the client of `region`; the next [`get_instance`](Self::get_instance) makes a new
    /// one. Handles that are held go on working.
    pub fn clear_instance(region: impl AsRef<str>) {
        instances::clear(region.as_ref());
    }

    /// Configures a client in code.
    pub fn builder(region: impl AsRef<str>) -> ClientBuilder {
        ClientBuilder::new(region.as_ref())
    }

    /// Configures a client by the `ZEROCACHE_*` variables, whose values `variable` returns; an empty one
    /// counts as not set. For programs with settings of their own that stand for variables.
    ///
    /// # Errors
    /// [`Error::Config`] for a value that is not allowed.
    pub fn builder_from_variables(
        region: impl AsRef<str>,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<ClientBuilder, Error> {
        ClientBuilder::from_variables(region.as_ref(), variable)
    }

    /// The region in which this client stands.
    #[must_use]
    pub fn region(&self) -> &str {
        &self.inner.region
    }

    /// What sets this client's memoized keys apart; empty by default.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.local_state().namespace
    }

    /// Waits until a node that is in sync is known: one of this region, or, when discovery has found
    /// none there, one of another. At most `timeout`.
    ///
    /// # Errors
    /// [`Error::Unreachable`] when the time is up, [`Error::Config`] for a configuration that cannot
    /// work.
    pub fn ready(
        &self,
        timeout: Duration,
    ) -> impl Future<Output = Result<(), Error>> + Send + 'static + use<> {
        let total_ms = millis(timeout);
        self.run(|engine| async move { engine.ready(total_ms).await })
    }

    /// As [`ready`](Self::ready), for code without a runtime.
    ///
    /// # Errors
    /// As [`ready`](Self::ready).
    pub fn wait_ready(&self, timeout: Duration) -> Result<(), Error> {
        wait::block_on(self.ready(timeout))
    }

    /// Reads a key: any non-empty bytes but `.` and `..`.
    ///
    /// Asks local nodes in rotation, then the nearest regions. For two seconds after a write through
    /// this client, the node that accepted it is asked first.
    pub fn get(&self, key: impl AsRef<[u8]>) -> Get {
        Get::new(self.clone(), key.as_ref())
    }

    /// Asks where the copies of a key are: every node that is known is listed, whichever is asked. They are sorted by
    /// the latencies that this client has measured.
    ///
    /// ```no_run
    /// # async fn example(cache: zerocache_client::ZerocacheClient) -> Result<(), zerocache_client::Error> {
    /// let locations = cache.locate("video/7").await?;
    /// if let Some(place) = locations.nearest() {
    ///     let entry = cache.get("video/7").from(place).await?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn locate(&self, key: impl AsRef<[u8]>) -> Locate {
        Locate::new(self.clone(), key.as_ref())
    }

    /// Stores a value for `ttl`: seconds as an integer, or a `Duration`, 1 to 99,999,999 s.
    ///
    /// Bytes and text are stored as they are; a typed value is written
    /// [`Value(&value)`](crate::Value), or [`Compared(&value)`](crate::codec::Compared).
    pub fn put(&self, key: impl AsRef<[u8]>, value: impl IntoValue, ttl: impl Lifetime) -> Write {
        Write::put(self.clone(), key.as_ref(), value, ttl)
    }

    /// Stores the value of a key again, with a new version and a new fresh time: seconds as an integer, or a
    /// `Duration`, 1 to 99,999,999 s. Its stale times, tags and descriptions stay.
    ///
    /// It is not met if the node has no fresh value. With [`if_version`](crate::ops::ConditionalWrite::if_version)
    /// it renews a stale value, too.
    pub fn touch(&self, key: impl AsRef<[u8]>, ttl: impl Lifetime) -> ConditionalWrite {
        ConditionalWrite::touch(self.clone(), key.as_ref(), ttl)
    }

    /// Deletes a key, and returns the value that it had. Of several calls at one node one gets the value
    /// ([`ConditionalWrite`] says when they meet at one); if its answer is lost, so is the value.
    pub fn get_and_delete(&self, key: impl AsRef<[u8]>) -> GetAndDelete {
        GetAndDelete::new(self.clone(), key.as_ref())
    }

    /// Deletes a key, whether anything is stored for it or not.
    pub fn delete(&self, key: impl AsRef<[u8]>) -> Write {
        Write::delete(self.clone(), key.as_ref())
    }

    /// Reads many keys in one round trip: what is asked of one node goes to it together, and all keys go
    /// to one node, but for those that this client wrote in the last two seconds.
    ///
    /// Keys that this does not complete are asked for at the next nodes, together again. More than 512
    /// keys take a round trip for each 512. A key may be given several times.
    ///
    /// ```no_run
    /// # async fn example(cache: zerocache_client::ZerocacheClient) -> Result<(), zerocache_client::Error> {
    /// let values = cache.get_many(["a", "b", "c"]).await?;
    /// assert_eq!(values.len(), 3);
    /// # Ok(())
    /// # }
    /// ```
    pub fn get_many<K: AsRef<[u8]>>(&self, keys: impl IntoIterator<Item = K>) -> GetMany {
        let keys = keys.into_iter().map(|key| Bytes::copy_from_slice(key.as_ref()));
        GetMany::new(self.clone(), keys.collect())
    }

    /// Stores many values for `ttl` in one round trip, as [`get_many`](Self::get_many) reads them. Of a
    /// key that is given several times the last value is stored.
    ///
    /// ```no_run
    /// # async fn example(cache: zerocache_client::ZerocacheClient) -> Result<(), zerocache_client::Error> {
    /// use zerocache_client::Status;
    ///
    /// let written = cache.put_many([("a", "1"), ("b", "2")], 60).await?;
    /// assert!(written.iter().all(|written| written.status == Status::Stored));
    /// # Ok(())
    /// # }
    /// ```
    pub fn put_many<K: AsRef<[u8]>, V: IntoValue>(
        &self,
        entries: impl IntoIterator<Item = (K, V)>,
        ttl: impl Lifetime,
    ) -> WriteMany {
        WriteMany::put(self.clone(), entries, ttl)
    }

    /// Deletes many keys in one round trip.
    pub fn delete_many<K: AsRef<[u8]>>(&self, keys: impl IntoIterator<Item = K>) -> WriteMany {
        WriteMany::delete(self.clone(), keys)
    }

    /// Counts of this client's operations.
    #[must_use]
    pub fn stats(&self) -> ClientStats {
        self.live().map(|live| live.engine.counters.snapshot()).unwrap_or_default()
    }

    /// The nodes that this client knows.
    #[must_use]
    pub fn nodes(&self) -> Vec<NodeStatus> {
        let Ok(live) = self.live() else { return Vec::new() };
        let directory = live.engine.directory();
        let now = zerocache_net::clock::mono();
        let status = |node: &zerocache_core::route::NodeEntry| NodeStatus {
            id: node.info.incarnation,
            region: node.info.region.clone(),
            address: node.address,
            in_rotation: node.in_rotation(now),
            latency: node.latency.micros().map(Duration::from_micros),
            hits: node.hits,
        };
        directory.nodes().map(status).collect()
    }

    fn start(config: Config) -> Result<Self, Error> {
        let region = config.region.clone();
        Ok(Self { inner: Arc::new(Inner::new(region, Life::start(config)?)) })
    }

    /// A client that cannot work: every operation says why.
    fn broken(region: &str, error: Error) -> Self {
        Self { inner: Arc::new(Inner::new(region.to_owned(), Life::broken(error))) }
    }

    /// What this client consists of in this process, or why it cannot work.
    #[inline]
    fn live(&self) -> Result<&Live, &Error> {
        self.inner.life().live.as_ref()
    }

    fn has_config(&self, config: &Config) -> bool {
        self.live().is_ok_and(|live| live.engine.config == *config)
    }

    pub(crate) fn raw_get(&self, key: Bytes) -> Get {
        Get::prepared(self.clone(), key)
    }

    /// Stores a computed value.
    pub(crate) fn computed_put(&self, put: ComputedPut) -> Write {
        Write::prepared(self.clone(), Ok(put.into()))
    }

    pub(crate) fn raw_delete(&self, key: Bytes) -> Write {
        Write::prepared(self.clone(), Ok(Prepared { key, value: None }))
    }

    pub(crate) fn memo_counters(&self) -> &MemoCounters {
        &self.local_state().memo
    }

    /// The codec in which this client writes typed values.
    pub(crate) fn codec(&self) -> Codec {
        self.local_state().codec
    }

    /// What becomes of the values of memoized calls that are given this codec, or none.
    pub(crate) fn destination(&self, codec: Option<Codec>) -> Destination {
        let codec = codec.unwrap_or_else(|| self.codec());
        Destination { codec, is_stored: self.live().is_ok() }
    }

    /// Returns true if no node can be reached, as far as this client knows: all addresses have been tried, and no node
    /// has answered since it failed. A node that is silent for a moment has not.
    pub(crate) fn is_cut_off(&self) -> bool {
        let Ok(live) = self.live() else { return false };
        let state = live.engine.state.lock();
        state.is_tried() && state.directory().is_cut_off()
    }

    /// What memoized calls need before any I/O.
    pub(crate) fn local_state(&self) -> &Arc<LocalState> {
        &self.inner.life().local
    }

    /// The client's own runtime; none for a client that cannot work.
    pub(crate) fn runtime(&self) -> Option<Handle> {
        self.live().ok().map(|live| live.background.clone())
    }

    /// Work that, once it has been polled, continues in the background when it is dropped.
    pub(crate) fn continue_in_background<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Running<T> {
        self.run(|_| work).continue_in_background()
    }

    /// What this client writes from now on is newer than this version.
    pub(crate) fn note_seen(&self, version: Version) {
        if let Ok(live) = self.live() {
            live.engine.note_seen(version);
        }
    }

    /// A timer on the client's own runtime; one that is over at once for a client that cannot work.
    pub(crate) fn sleep(
        &self,
        duration: Duration,
    ) -> impl Future<Output = ()> + Send + 'static + use<> {
        let timer = self.live().ok().map(|live| {
            let _home = live.background.enter();
            tokio::time::sleep(duration)
        });
        async move {
            if let Some(timer) = timer {
                timer.await;
            }
        }
    }
}

impl fmt::Debug for ZerocacheClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ZerocacheClient")
            .field("region", &self.inner.region)
            .field("namespace", &self.namespace())
            .finish_non_exhaustive()
    }
}

/// The nodes have limits of their own; this one keeps a message decodable.
fn valid(key: Bytes) -> Result<Key, Error> {
    Ok(Key::within(key, KEY_BYTES_WIRE_MAX)?)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
