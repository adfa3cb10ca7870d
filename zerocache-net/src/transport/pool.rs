//! The connections of a process: a few for each node and runtime that calls it.

mod attempt;
mod recent;

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    runtime::{Handle, Id},
    sync::watch,
};
use zerocache_core::{call::CallFailure, time::Instant, wire::Response};

use self::{
    attempt::ConnectTask,
    recent::{recent, remember},
};
use super::{dial::MakeHello, framed::Connection};
use crate::{clock, security::Security};

/// The pause after a failed attempt to connect, in milliseconds; doubled with each further failure.
const BACKOFF_MS_MIN: u64 = 20;
const BACKOFF_MS_MAX: u64 = 500;

/// A connection that ends within this time of its beginning counts as a failure, in milliseconds.
const SHORT_LIVED_MS: u64 = 1_000;

/// An address that takes messages over HTTP only is asked for a framed connection again after this time, in
/// milliseconds.
const HTTP_ONLY_MS: u64 = 60_000;

/// The most connections from one runtime to one node. With two, one carries requests while the other
/// brings responses, and the threads of the caller do not wait for each other; more of them only make the
/// batches smaller.
const LANES: usize = 2;

/// The most entries of the pool, and of its table of failures.
const ENTRIES_MAX: usize = 16_384;

/// The task of an attempt must start within this time. Otherwise its runtime is blocked, or lost its
/// threads in a fork, and the caller uses another runtime.
pub(super) const START_MAX: Duration = Duration::from_millis(100);

/// A runtime that did not start a task is not used for this time, in milliseconds, unless it is seen running
/// earlier.
const STALLED_RUNTIME_MS: u64 = 10_000;

/// How often overdue calls are ended whose drivers do not run. A driver that runs reads the responses first,
/// and has this time to do so.
const OVERDUE_EVERY: Duration = Duration::from_secs(1);

/// The most runtimes remembered as unable to do I/O. Of one that is forgotten it is found out again.
const RUNTIMES_WITHOUT_IO_MAX: usize = 1_024;

/// The most addresses for which the refusal of framed connections is logged.
const LOGGED_ADDRESSES_MAX: usize = 1_024;

/// The way to a node, as an attempt to connect found it.
#[derive(Clone)]
pub(super) enum Route {
    /// Over a framed connection.
    Framed(Arc<Connection>),
    /// Over HTTP: something refuses framed connections.
    HttpOnly,
    /// The node refused the handshake with this response.
    Refused(Box<Response>),
    /// Over the home runtime: the caller's cannot do I/O or does not run.
    Home,
    /// None: no connection can be made.
    Failed(CallFailure),
}

/// The key of an entry: the runtime that uses the connection, the address to which it leads, and one of the
/// [`LANES`].
type PoolKey = (Id, SocketAddr, usize);

thread_local! {
    /// The lane of this thread. The threads of a runtime are spread evenly over the lanes.
    static LANE: usize = {
        static THREADS: AtomicUsize = AtomicUsize::new(0);
        THREADS.fetch_add(1, Ordering::Relaxed) % LANES
    };
}

/// The progress of an attempt to connect.
#[derive(Clone)]
pub(super) enum Progress {
    /// Its runtime has not run it yet.
    Queued,
    /// It has started.
    Started,
    /// It has found this.
    Done(Route),
}

impl Progress {
    pub(super) fn is_queued(&self) -> bool {
        matches!(self, Self::Queued)
    }

    pub(super) fn route(&self) -> Option<&Route> {
        match self {
            Self::Queued | Self::Started => None,
            Self::Done(route) => Some(route),
        }
    }
}

/// An attempt to connect, as its callers see it.
pub(super) type Attempt = watch::Receiver<Progress>;

enum Entry {
    Open(Arc<Connection>),
    Connecting(Attempt),
    /// The result of an attempt, valid until then.
    Cached {
        route: Route,
        until: Instant,
    },
}

/// The connections of a process.
pub(super) struct Pool {
    /// Its number in this process.
    number: u64,
    make_hello: MakeHello,
    connect_timeout: Duration,
    security: Security,
    entries: Mutex<HashMap<PoolKey, Entry>>,
    /// Failed attempts in a row, by address.
    failures: Mutex<BTreeMap<SocketAddr, u32>>,
    /// Addresses for which the refusal of framed connections was logged.
    logged: Mutex<Vec<SocketAddr>>,
    /// Runtimes that cannot do I/O or have no timers.
    without_io: Mutex<Vec<Id>>,
    /// Closed when the pool is dropped.
    dropped: watch::Sender<()>,
    this: Weak<Self>,
}

impl Drop for Pool {
    fn drop(&mut self) {
        for entry in self.entries.get_mut().values() {
            if let Entry::Open(connection) = entry {
                connection.close();
            }
        }
    }
}

/// The state of an entry when it is looked up.
pub(super) enum Lookup {
    /// The way is known.
    Ready(Route),
    /// An attempt is in progress.
    Pending(Attempt),
}

impl Pool {
    pub(super) fn new(
        make_hello: MakeHello,
        connect_timeout: Duration,
        security: Security,
    ) -> Arc<Self> {
        static POOLS: AtomicU64 = AtomicU64::new(0);
        Arc::new_cyclic(|this| Self {
            number: POOLS.fetch_add(1, Ordering::Relaxed),
            make_hello,
            connect_timeout,
            security,
            entries: Mutex::default(),
            failures: Mutex::default(),
            logged: Mutex::default(),
            without_io: Mutex::default(),
            dropped: watch::Sender::new(()),
            this: this.clone(),
        })
    }

    /// Returns an empty pool that is like this one, with other credentials.
    pub(super) fn with_security(&self, security: Security) -> Arc<Self> {
        Self::new(Arc::clone(&self.make_hello), self.connect_timeout, security)
    }

    #[cfg(feature = "http-fallback")]
    pub(super) const fn connect_timeout(&self) -> Duration {
        self.connect_timeout
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.entries.lock().len()
    }

    /// Returns the open connection from `runtime` to `to` on this thread's lane, if there is one.
    pub(super) fn open(&self, runtime: &Handle, to: SocketAddr) -> Option<Arc<Connection>> {
        let recent_key = (self.number, runtime.id(), to);
        if let Some(connection) = recent(&recent_key).filter(|recent| recent.takes_calls()) {
            return Some(connection);
        }
        let connection = open(&self.entries.lock(), key(runtime, to))?;
        remember(recent_key, &connection);
        Some(connection)
    }

    /// Returns the way from `runtime` to `to`, and starts an attempt to connect when none is known. Until
    /// the attempt succeeds, an open connection of another lane is used.
    pub(super) fn find(&self, runtime: &Handle, to: SocketAddr) -> Lookup {
        let key = key(runtime, to);
        let mut entries = self.entries.lock();
        if let Some(connection) = open(&entries, key) {
            return Lookup::Ready(Route::Framed(connection));
        }
        let other = (0..LANES).find_map(|lane| open(&entries, (key.0, to, lane)));
        let other = other.map(|connection| Lookup::Ready(Route::Framed(connection)));
        match entries.get(&key) {
            Some(Entry::Connecting(attempt)) => {
                return other.unwrap_or_else(|| Lookup::Pending(attempt.clone()));
            }
            Some(Entry::Cached { route, until }) if clock::mono() < *until => {
                return other.unwrap_or_else(|| Lookup::Ready(route.clone()));
            }
            _ => {}
        }
        if self.without_io.lock().contains(&key.0) {
            return Lookup::Ready(Route::Home);
        }
        if entries.len() >= ENTRIES_MAX {
            entries.retain(|_, entry| match entry {
                Entry::Open(connection) => !connection.is_closed(),
                Entry::Connecting(_) => true,
                Entry::Cached { .. } => false,
            });
            if entries.len() >= ENTRIES_MAX {
                return Lookup::Ready(Route::Failed(CallFailure::NotSent));
            }
        }
        let (sender, attempt) = watch::channel(Progress::Queued);
        entries.insert(key, Entry::Connecting(attempt.clone()));
        drop(entries);
        // Reports a result also when the runtime drops it before it runs.
        let task = ConnectTask::new(self.this.clone(), key, sender);
        runtime.spawn(task.run());
        other.unwrap_or(Lookup::Pending(attempt))
    }

    /// Notes that `runtime` did not start its attempt to connect to `to`: for a while callers use the home
    /// runtime.
    pub(super) fn note_stalled(&self, runtime: Id, to: SocketAddr) {
        let until = clock::mono().plus_ms(STALLED_RUNTIME_MS);
        let mut entries = self.entries.lock();
        for lane in 0..LANES {
            if let Some(entry) = entries.get_mut(&(runtime, to, lane))
                && let Entry::Connecting(attempt) = entry
                && attempt.borrow().is_queued()
            {
                *entry = Entry::Cached { route: Route::Home, until };
            }
        }
    }

    /// Ends calls that are long overdue, until the pool is dropped. A runtime that does not drive its
    /// connections, because it is blocked or nobody runs it, does not end them either.
    pub(super) async fn end_overdue(this: Weak<Self>) {
        let Some(mut dropped) = this.upgrade().map(|pool| pool.dropped.subscribe()) else { return };
        let mut before = Instant::default();
        // The channel never changes; it closes when the pool is dropped.
        while tokio::time::timeout(OVERDUE_EVERY, dropped.changed()).await.is_err() {
            let Some(pool) = this.upgrade() else { return };
            let connections = pool.connections();
            drop(pool);
            // After a suspension of the process the drivers have one period to read the responses.
            connections.iter().for_each(|connection| connection.end_overdue(before));
            before = clock::mono();
        }
    }

    /// Forgets connections and failures each time the credentials change, until the pool is dropped. Calls in
    /// flight end on the old connections; new ones connect with the new credentials.
    pub(super) async fn follow_credentials(this: Weak<Self>) {
        let subscribe = |pool: Arc<Self>| (pool.security.changes(), pool.dropped.subscribe());
        let Some((mut changes, mut dropped)) = this.upgrade().map(subscribe) else { return };
        loop {
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return },
                // The channel never changes; it closes when the pool is dropped.
                _ = dropped.changed() => return,
            }
            let Some(pool) = this.upgrade() else { return };
            pool.retire_connections();
        }
    }

    fn retire_connections(&self) {
        let mut retired = Vec::new();
        self.entries.lock().retain(|_, entry| match entry {
            Entry::Open(connection) => {
                retired.push(Arc::clone(connection));
                false
            }
            // It finds out itself that the credentials have changed.
            Entry::Connecting(_) => true,
            Entry::Cached { .. } => false,
        });
        self.failures.lock().clear();
        retired.iter().for_each(|connection| connection.retire());
    }

    fn connections(&self) -> Vec<Arc<Connection>> {
        let entries = self.entries.lock();
        let open = entries.values().filter_map(|entry| match entry {
            Entry::Open(connection) => Some(Arc::clone(connection)),
            Entry::Connecting(_) | Entry::Cached { .. } => None,
        });
        open.collect()
    }

    /// Logs, once for each address, that framed connections are refused there.
    fn log_http_only(&self, to: SocketAddr) {
        let mut logged = self.logged.lock();
        if logged.contains(&to) || logged.len() >= LOGGED_ADDRESSES_MAX {
            return;
        }
        logged.push(to);
        if cfg!(feature = "http-fallback") {
            tracing::warn!(address = %to, "framed connection refused on the way; using HTTP instead");
        } else {
            tracing::error!(
                address = %to,
                "framed connection refused on the way, and this build has no HTTP fallback \
                 (feature http-fallback): the node cannot be reached"
            );
        }
    }

    /// Counts a failed attempt. Returns how long to wait before the next one, in milliseconds.
    fn backoff_ms(&self, to: SocketAddr) -> u64 {
        let mut failures = self.failures.lock();
        if failures.len() >= ENTRIES_MAX {
            failures.clear();
        }
        let count = failures.entry(to).or_default();
        *count = count.saturating_add(1);
        let pause = (BACKOFF_MS_MIN << (*count - 1).min(8)).min(BACKOFF_MS_MAX);
        // Between half and all of it, so that many callers do not return at once.
        let jitter = u64::from(clock::elapsed().subsec_nanos()) % (pause / 2).max(1);
        pause - jitter
    }

    /// Stores the route that an attempt found.
    fn store(&self, key: PoolKey, route: &Route) {
        let entry = self.entry(key.1, route);
        self.entries.lock().insert(key, entry);
    }

    fn entry(&self, to: SocketAddr, route: &Route) -> Entry {
        let now = clock::mono();
        let valid_ms = match route {
            Route::Framed(connection) => {
                self.failures.lock().remove(&to);
                return Entry::Open(Arc::clone(connection));
            }
            Route::HttpOnly => {
                self.log_http_only(to);
                HTTP_ONLY_MS
            }
            Route::Home => HTTP_ONLY_MS,
            Route::Refused(_) | Route::Failed(_) => self.backoff_ms(to),
        };
        // The failure itself was seen by this attempt only; during the pause nothing is sent.
        let route = match route {
            Route::Failed(CallFailure::Refused | CallFailure::NoAnswer) => {
                Route::Failed(CallFailure::NotSent)
            }
            other => other.clone(),
        };
        Entry::Cached { route, until: now.plus_ms(valid_ms) }
    }

    /// Remembers that a runtime cannot do I/O or has no timers.
    fn note_without_io(&self, runtime: Id) {
        let mut without_io = self.without_io.lock();
        if without_io.len() >= RUNTIMES_WITHOUT_IO_MAX {
            without_io.clear();
        }
        without_io.push(runtime);
    }

    /// Replaces a closed connection, which began at `begun`, by a pause if it was short-lived.
    fn note_end(&self, key: PoolKey, begun: Instant) {
        let now = clock::mono();
        let mut entries = self.entries.lock();
        let Some(Entry::Open(connection)) = entries.get(&key) else { return };
        if !connection.is_closed() {
            return;
        }
        if now.since_ms(begun) < SHORT_LIVED_MS {
            let until = now.plus_ms(self.backoff_ms(key.1));
            let route = Route::Failed(CallFailure::NotSent);
            entries.insert(key, Entry::Cached { route, until });
        } else {
            entries.remove(&key);
        }
    }

    /// Removes a connection if it is closed.
    fn remove_closed(&self, key: PoolKey) {
        let mut entries = self.entries.lock();
        let is_closed = matches!(entries.get(&key), Some(Entry::Open(open)) if open.is_closed());
        let entry = is_closed.then(|| entries.remove(&key));
        drop(entries);
        drop(entry);
    }
}

/// Returns the connection of `key`, if it is open.
fn open(entries: &HashMap<PoolKey, Entry>, key: PoolKey) -> Option<Arc<Connection>> {
    match entries.get(&key)? {
        Entry::Open(connection) if !connection.is_closed() => Some(Arc::clone(connection)),
        _ => None,
    }
}

fn key(runtime: &Handle, to: SocketAddr) -> PoolKey {
    (runtime.id(), to, LANE.with(|lane| *lane))
}
