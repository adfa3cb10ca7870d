//! The connections of a process: one for each node and runtime that calls it.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::{
        Arc, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    runtime::{Handle, Id},
    sync::watch,
};
use zerocache_core::{
    call::CallFailure,
    time::Instant,
    wire::{Envelope, Response},
};

use super::{
    connection::{Connection, drive},
    dial::{Dialled, Framed, dial},
    transport::Introduce,
};
use crate::{clock, process::Own};

/// The pause after a failed try to connect, in milliseconds; doubled with each failure.
const BACKOFF_MS_MIN: u64 = 20;
const BACKOFF_MS_MAX: u64 = 500;

/// A connection that ends within this time of its beginning counts as a failure, in milliseconds.
const SHORT_MS: u64 = 1_000;

/// An address whose node is reached over HTTP only is asked for a framed connection again after this
/// long, in milliseconds.
const PLAIN_MS: u64 = 60_000;

/// Most connections from one runtime to one node. With two, one carries requests while the other
/// brings responses, and the threads of the caller do not wait for each other; more only make the
/// batches smaller.
const LANES: usize = 2;

/// Most connections and tries of a process.
const LINKS_MAX: usize = 16_384;

/// How long a try to connect may wait until its runtime runs it. One that does not run by then is blocked, or has
/// lost its threads to a fork; whoever waits goes on elsewhere.
pub(super) const BEGIN_MAX: Duration = Duration::from_millis(100);

/// How long a runtime is left alone that did not run, in milliseconds, unless it shows before that it does.
const IDLE_RUNTIME_MS: u64 = 10_000;

/// How often calls are looked for whose drivers do not end them. Drivers that run look for the responses
/// first, and have all of one such time for it.
const OVERDUE_EVERY: Duration = Duration::from_secs(1);

/// Most runtimes of which it is remembered that they cannot do I/O; of others it is found out again.
const UNABLE_MAX: usize = 1_024;

/// Most addresses of which it is remembered that something was said about them.
const SAID_MAX: usize = 1_024;

/// What a caller finds at an address.
#[derive(Clone)]
pub(super) enum Link {
    /// A connection.
    Framed(Arc<Connection>),
    /// The node answers over HTTP only.
    Plain,
    /// The node refused the handshake with this.
    Refused(Box<Response>),
    /// The runtime cannot do I/O; another one has to.
    Elsewhere,
    /// No connection comes about.
    Failed(CallFailure),
}

/// The place of a link: the runtime on which it is used, the address to which it leads, and which of
/// the [`LANES`].
type Place = (Id, SocketAddr, usize);

thread_local! {
    /// The lane of this thread: threads of one runtime share the lanes evenly.
    static LANE: usize = {
        static THREADS: AtomicUsize = AtomicUsize::new(0);
        THREADS.fetch_add(1, Ordering::Relaxed) % LANES
    };
}

/// How far a try to connect has come.
#[derive(Clone)]
pub(super) enum Tried {
    /// Its runtime has not run it yet.
    Waiting,
    /// It is under way.
    Begun,
    /// It has ended.
    Ended(Link),
}

impl Tried {
    pub(super) fn is_waiting(&self) -> bool {
        matches!(self, Self::Waiting)
    }

    pub(super) fn link(&self) -> Option<&Link> {
        match self {
            Self::Waiting | Self::Begun => None,
            Self::Ended(link) => Some(link),
        }
    }
}

/// A try to connect.
pub(super) type Try = watch::Receiver<Tried>;

enum Entry {
    Open(Arc<Connection>),
    Opening(Try),
    /// What is the case until then.
    Settled {
        link: Link,
        until: Instant,
    },
}

/// The connections of a process.
pub(super) struct Pool {
    introduce: Introduce,
    connect_timeout: Duration,
    links: Mutex<HashMap<Place, Entry>>,
    failures: Mutex<BTreeMap<SocketAddr, u32>>,
    said: Mutex<Vec<SocketAddr>>,
    /// Runtimes that showed that they cannot do I/O or keep time.
    unable: Mutex<Vec<Id>>,
    /// Closed when the pool is dropped.
    lives: watch::Sender<()>,
    this: Weak<Self>,
}

impl Drop for Pool {
    fn drop(&mut self) {
        for entry in self.links.get_mut().values() {
            if let Entry::Open(connection) = entry {
                connection.close();
            }
        }
    }
}

/// What there is at once.
pub(super) enum Found {
    /// A link.
    Now(Link),
    /// A try under way.
    Soon(Try),
}

impl Pool {
    pub(super) fn new(introduce: Introduce, connect_timeout: Duration) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            introduce,
            connect_timeout,
            links: Mutex::default(),
            failures: Mutex::default(),
            said: Mutex::default(),
            unable: Mutex::default(),
            lives: watch::Sender::new(()),
            this: this.clone(),
        })
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.links.lock().len()
    }

    /// The open connection from `runtime` to `to`, if there is one.
    pub(super) fn open(&self, runtime: &Handle, to: SocketAddr) -> Option<Arc<Connection>> {
        open(&self.links.lock(), place(runtime, to))
    }

    /// The link from `runtime` to `to`; a try is begun when there is none. Until it has succeeded the
    /// connection of another lane is used, if there is one: it shows that the node can be reached.
    pub(super) fn find(&self, runtime: &Handle, to: SocketAddr) -> Found {
        let place = place(runtime, to);
        let mut links = self.links.lock();
        if let Some(connection) = open(&links, place) {
            return Found::Now(Link::Framed(connection));
        }
        let other = (0..LANES).find_map(|lane| open(&links, (place.0, to, lane)));
        let other = other.map(|connection| Found::Now(Link::Framed(connection)));
        match links.get(&place) {
            Some(Entry::Opening(result)) => {
                return other.unwrap_or_else(|| Found::Soon(result.clone()));
            }
            Some(Entry::Settled { link, until }) if clock::mono() < *until => {
                return other.unwrap_or_else(|| Found::Now(link.clone()));
            }
            _ => {}
        }
        if self.unable.lock().contains(&place.0) {
            return Found::Now(Link::Elsewhere);
        }
        if links.len() >= LINKS_MAX {
            links.retain(|_, entry| match entry {
                Entry::Open(connection) => !connection.is_closed(),
                Entry::Opening(_) => true,
                Entry::Settled { .. } => false,
            });
            if links.len() >= LINKS_MAX {
                return Found::Now(Link::Failed(CallFailure::NotSent));
            }
        }
        let (sender, result) = watch::channel(Tried::Waiting);
        links.insert(place, Entry::Opening(result.clone()));
        drop(links);
        // Also when the runtime drops the task before or while it runs.
        let opening = Opening { pool: self.this.clone(), place, sender, done: false };
        runtime.spawn(opening.run());
        other.unwrap_or(Found::Soon(result))
    }

    /// The runtime has not begun the try to connect from it to `to`: for a while others do not wait for it.
    pub(super) fn does_not_begin(&self, runtime: Id, to: SocketAddr) {
        let until = clock::mono().plus_ms(IDLE_RUNTIME_MS);
        let mut links = self.links.lock();
        for lane in 0..LANES {
            if let Some(entry) = links.get_mut(&(runtime, to, lane))
                && let Entry::Opening(tried) = entry
                && tried.borrow().is_waiting()
            {
                *entry = Entry::Settled { link: Link::Elsewhere, until };
            }
        }
    }

    /// Ends calls whose deadlines are over for long, until the pool is dropped: a runtime that drives no
    /// connections, because it is blocked or nobody runs it, keeps no deadlines either.
    pub(super) async fn end_overdue(this: Weak<Self>) {
        let Some(mut lives) = this.upgrade().map(|pool| pool.lives.subscribe()) else { return };
        let mut before = Instant::default();
        // Ready when the pool is dropped, which is all that happens to it.
        while tokio::time::timeout(OVERDUE_EVERY, lives.changed()).await.is_err() {
            let Some(pool) = this.upgrade() else { return };
            let connections = pool.connections();
            drop(pool);
            // Where the process has stood still, not before the drivers had their time after it.
            connections.iter().for_each(|connection| connection.end_overdue(before));
            before = clock::mono();
        }
    }

    fn connections(&self) -> Vec<Arc<Connection>> {
        let links = self.links.lock();
        let open = links.values().filter_map(|entry| match entry {
            Entry::Open(connection) => Some(Arc::clone(connection)),
            Entry::Opening(_) | Entry::Settled { .. } => None,
        });
        open.collect()
    }

    /// Says once for an address that its node is reached over HTTP only.
    fn note_plain(&self, to: SocketAddr) {
        let mut said = self.said.lock();
        if said.contains(&to) || said.len() >= SAID_MAX {
            return;
        }
        said.push(to);
        tracing::warn!(
            address = %to,
            "no framed connection to this address: something refuses the upgrade; going on over HTTP"
        );
    }

    fn failed(&self, to: SocketAddr) -> u64 {
        let mut failures = self.failures.lock();
        if failures.len() >= LINKS_MAX {
            failures.clear();
        }
        let count = failures.entry(to).or_default();
        *count = count.saturating_add(1);
        let pause = (BACKOFF_MS_MIN << (*count - 1).min(8)).min(BACKOFF_MS_MAX);
        // Between half and all of it, so that many callers do not come back at once.
        let noise = u64::from(clock::elapsed().subsec_nanos()) % (pause / 2).max(1);
        pause - noise
    }
}

/// A try to connect.
struct Opening {
    pool: Weak<Pool>,
    place: Place,
    sender: watch::Sender<Tried>,
    done: bool,
}

impl Opening {
    async fn run(mut self) {
        let Some(pool) = self.pool.upgrade() else { return };
        let hello = (pool.introduce)();
        let known = hello.envelope;
        let (timeout, mut lives) = (pool.connect_timeout, pool.lives.subscribe());
        drop(pool);
        self.sender.send_replace(Tried::Begun);
        let dialled = tokio::select! {
            dialled = dial(self.place.1, hello, timeout) => dialled,
            // The pool is dropped, which is all that happens to it.
            _ = lives.changed() => return,
        };
        let (link, driver) = match dialled {
            Ok(Dialled::Framed(framed)) => {
                let (connection, driver) = opened(*framed, known);
                (Link::Framed(connection), Some(driver))
            }
            Ok(Dialled::Plain(response @ Response::Refused(_))) => {
                (Link::Refused(Box::new(response)), None)
            }
            Ok(Dialled::Plain(_) | Dialled::Hidden) => (Link::Plain, None),
            Err(failure) => (Link::Failed(failure), None),
        };
        let begun = clock::mono();
        let is_wanted = self.settle(link);
        let (pool, place) = (self.pool.clone(), self.place);
        drop(self);
        let Some(driver) = driver.filter(|_| is_wanted) else { return };
        // Also when the runtime drops the driver: nobody comes back to its place.
        let _leaving = Leaving { pool: pool.clone(), place };
        driver.await;
        if let Some(pool) = pool.upgrade() {
            pool.ended(place, begun);
        }
    }

    /// Tells what came of it; whether there is still somebody to be told.
    fn settle(&mut self, link: Link) -> bool {
        self.done = true;
        let Some(pool) = self.pool.upgrade() else { return false };
        let entry = pool.entry(self.place.1, &link);
        pool.links.lock().insert(self.place, entry);
        self.sender.send_replace(Tried::Ended(link));
        true
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        // A runtime without I/O or timers says so by a panic.
        if std::thread::panicking() {
            if let Some(pool) = self.pool.upgrade() {
                let mut unable = pool.unable.lock();
                if unable.len() >= UNABLE_MAX {
                    unable.clear();
                }
                unable.push(self.place.0);
            }
            self.settle(Link::Elsewhere);
            return;
        }
        self.settle(Link::Failed(CallFailure::NotSent));
    }
}

/// Forgets a connection that has ended.
struct Leaving {
    pool: Weak<Pool>,
    place: Place,
}

impl Drop for Leaving {
    fn drop(&mut self) {
        let Some(pool) = self.pool.upgrade() else { return };
        let mut links = pool.links.lock();
        let over = matches!(links.get(&self.place), Some(Entry::Open(open)) if open.is_closed());
        let entry = over.then(|| links.remove(&self.place));
        drop(links);
        drop(entry);
    }
}

impl Pool {
    fn entry(&self, to: SocketAddr, link: &Link) -> Entry {
        let now = clock::mono();
        let wait_ms = match link {
            Link::Framed(connection) => {
                self.failures.lock().remove(&to);
                return Entry::Open(Arc::clone(connection));
            }
            Link::Plain => {
                self.note_plain(to);
                PLAIN_MS
            }
            Link::Elsewhere => PLAIN_MS,
            Link::Refused(_) | Link::Failed(_) => self.failed(to),
        };
        // What a try showed is not yet true for those that come during the pause.
        let link = match link {
            Link::Failed(_) => Link::Failed(CallFailure::NotSent),
            other => other.clone(),
        };
        Entry::Settled { link, until: now.plus_ms(wait_ms) }
    }

    fn ended(&self, place: Place, begun: Instant) {
        let now = clock::mono();
        let mut links = self.links.lock();
        let Some(Entry::Open(connection)) = links.get(&place) else { return };
        if !connection.is_closed() {
            return;
        }
        if now.since_ms(begun) < SHORT_MS {
            let until = now.plus_ms(self.failed(place.1));
            let link = Link::Failed(CallFailure::NotSent);
            links.insert(place, Entry::Settled { link, until });
        } else {
            links.remove(&place);
        }
    }
}

/// The connection at a place, if it is open.
fn open(links: &HashMap<Place, Entry>, place: Place) -> Option<Arc<Connection>> {
    match links.get(&place)? {
        Entry::Open(connection) if !connection.is_closed() => Some(Arc::clone(connection)),
        _ => None,
    }
}

fn place(runtime: &Handle, to: SocketAddr) -> Place {
    (runtime.id(), to, LANE.with(|lane| *lane))
}

fn opened(framed: Framed, known: Envelope) -> (Arc<Connection>, impl Future<Output = ()>) {
    let Framed { stream, inbox, peer } = framed;
    let to = peer.node.map(|node| node.incarnation);
    let (read, write) = stream.into_split();
    let known = Envelope { cluster: known.cluster, from: known.from, to, ..Envelope::default() };
    // Dropped in a forked child they would be shut down for the parent too, and leave its reactor.
    let (read, write) = (Own::new(read), Own::new(write));
    let connection = Arc::new(Connection::new(Box::new(write), known));
    (Arc::clone(&connection), drive(connection, Box::new(read), inbox))
}
