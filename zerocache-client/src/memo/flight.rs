//! Single flight: one computation per key at a time.
//!
//! The first caller of a key is its leader: it computes inside its own future, so that nothing has to be
//! `'static`. Further callers are followers: they wait for what the leader publishes. A leader that is
//! cancelled or panics drops its [`Leader`], and one of the followers leads next. A leader that has
//! published stays in the table until its value is stored, so that nobody computes in between; a caller that
//! arrives after the value's fresh time leads all the same. A leader that refreshes a value that may still be
//! served publishes that value, and followers do not wait.
//!
//! A follower whose wait has expired leads beside the other leaders, one follower after the other; all
//! followers get the first value that is published.
//!
//! Unshared computations have no followers: they run where nobody may be waited for, or by request. They are
//! in the table too, so that a delete reaches them. So are pending writes.

use std::collections::HashMap;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;
use xxhash_rust::xxh3::xxh3_64;
use zerocache_core::time::Instant;
use zerocache_net::{clock, process::PerProcess};

use super::rule::SharedError;
use super::stored::{Payload, StoredEntry};
use super::writing::SharedWrite;

mod leader;
mod purge;
#[cfg(test)]
mod tests;

pub(crate) use purge::{close_all_after_purge, invalidate_all};

/// Shards of the table, so that calls of different keys do not contend for one lock.
const SHARDS: usize = 16;

/// The number of a cluster and namespace, and a key.
type FlightKey = (u64, Bytes);

type Shard = HashMap<FlightKey, KeyState>;

/// Leaders and followers are threads and tasks of one process.
static TABLE: PerProcess<[Mutex<Shard>; SHARDS]> = PerProcess::new();
static NEXT_NUMBER: AtomicU64 = AtomicU64::new(0);

/// The computations and writes of a key.
#[derive(Default)]
struct KeyState {
    /// The flag of all computations that began since the key was last deleted or replaced.
    invalidation: Invalidation,
    /// The number of these computations.
    computations: usize,
    /// The computations that followers wait for.
    flight: Option<Flight>,
    pending_writes: Vec<PendingWrite>,
}

/// Computations that followers wait for.
struct Flight {
    number: u64,
    leaders: usize,
    /// When the last leader began, since the start of the process.
    led_since: Duration,
    state: watch::Sender<FlightState>,
}

/// A value that is being written to the cache.
struct PendingWrite {
    number: u64,
    invalidation: Invalidation,
    write: SharedWrite,
}

/// The progress of a key's leaders, as followers see it.
#[derive(Clone)]
pub(crate) enum Progress {
    /// The leaders read the cache.
    LookingUp,
    /// A leader computes. Until it is done, followers may serve this entry as far as its age permits.
    Computing(StoredEntry),
    /// A leader has a value.
    Value(Payload),
    /// Computing failed; a leader has a value past its fresh time.
    Stale(Payload),
    /// No node answers; a leader has a value of the near cache.
    Outage(Payload),
    /// Computing failed with an error that can be cloned.
    Failed(SharedError),
    /// A leader is done and has nothing to share; every follower computes at once.
    Nothing,
}

impl Progress {
    /// Returns true if a leader is done.
    fn is_final(&self) -> bool {
        !matches!(self, Self::LookingUp | Self::Computing(_))
    }

    /// Returns true if followers need not wait any longer. A follower whose soft timeout is over takes what may be
    /// served if computing fails.
    fn releases_followers(&self, is_overdue: bool) -> bool {
        let now = clock::mono();
        match self {
            Self::Computing(stale) => {
                stale.is_servable(now) || (is_overdue && stale.is_servable_on_error(now))
            }
            _ => self.is_final(),
        }
    }
}

/// The state of a flight, which followers watch.
struct FlightState {
    progress: Progress,
    /// The end of the time in which new callers may use `progress`; `None` for no end.
    until: Option<Instant>,
    /// Leaders that block their threads, and so need no other caller's thread.
    blocking: usize,
    /// Leaders that may still publish, or fall back to, an entry that they read from the cache.
    looking_up: usize,
    /// Leaders that wait for their turn to run the function.
    queued: usize,
}

/// Where a caller waits for leaders.
#[derive(Clone, Copy, Default)]
pub(crate) struct Waiting {
    /// The caller blocks its thread.
    pub(crate) blocking: bool,
    /// The caller is inside of a run of the function, which has only so many at a time.
    pub(crate) inside_run: bool,
}

/// A flag: the key was deleted or replaced since a computation of it began.
#[derive(Clone, Debug, Default)]
pub(crate) struct Invalidation(Arc<AtomicBool>);

impl Invalidation {
    fn set(&self) {
        self.0.store(true, Ordering::Release);
    }

    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// The role of a caller of a key.
pub(crate) enum Role {
    Leader(Leader),
    Follower(Follower),
    /// The caller computes without waiting: the leaders may need the thread that it blocks, or the place of
    /// the run that it is inside of, to make progress.
    Unshared,
}

/// The next step of a follower whose wait has expired.
pub(crate) enum WaitExpired {
    /// The follower leads beside the other leaders.
    Lead(Leader),
    /// Another leader began less than the wait ago: the follower waits for it for this long.
    WaitFor(Duration),
    /// The leaders are gone, or done.
    Ended,
}

/// A caller that waits for the leaders of a key.
pub(crate) struct Follower {
    flight_key: FlightKey,
    number: u64,
    waiting: Waiting,
    state: watch::Receiver<FlightState>,
}

/// The right and duty to publish a key's value.
pub(crate) struct Leader {
    computation: UnsharedComputation,
    number: u64,
    blocking: bool,
    /// The leader may still publish, or fall back to, an entry that it read from the cache.
    looking_up: bool,
    /// The leader waits for its turn to run the function.
    queued: bool,
    /// Followers have what this leader published.
    has_published: bool,
    /// How long the caller waited for other leaders before.
    waited: Duration,
    state: watch::Sender<FlightState>,
}

/// A computation in the table, until it is dropped.
pub(crate) struct UnsharedComputation {
    flight_key: FlightKey,
    invalidation: Invalidation,
}

/// A pending write in the table, until it is dropped.
pub(crate) struct PendingWriteGuard {
    flight_key: FlightKey,
    number: u64,
    invalidation: Invalidation,
}

fn shard(flight_key: &FlightKey) -> &'static Mutex<Shard> {
    // The modulus keeps the index below SHARDS.
    &TABLE.get_or_init(|_| Default::default())[(xxh3_64(&flight_key.1) % SHARDS as u64) as usize]
}

impl FlightState {
    /// Returns true if a new caller may use `progress`.
    fn is_open(&self) -> bool {
        self.until.is_none_or(|until| clock::mono() < until)
    }

    /// Returns true if the leaders may need the caller to go on before they can.
    fn needs(&self, caller: Waiting) -> bool {
        (caller.blocking && self.blocking == 0) || (caller.inside_run && self.queued > 0)
    }
}

impl Flight {
    /// Returns true if a new caller may use what its leaders publish.
    fn is_open(&self) -> bool {
        self.state.borrow().is_open()
    }
}

impl KeyState {
    /// Adds a computation.
    fn begin(&mut self, flight_key: FlightKey) -> UnsharedComputation {
        self.computations += 1;
        UnsharedComputation { flight_key, invalidation: self.invalidation.clone() }
    }

    /// Takes the flight out if its leaders may have read the key before it was deleted or written: no
    /// further caller follows them.
    fn close_lookups(&mut self) -> Option<Flight> {
        self.flight.take_if(|flight| flight.state.borrow().looking_up > 0)
    }

    fn is_idle(&self) -> bool {
        self.computations == 0 && self.pending_writes.is_empty()
    }
}

/// Joins the flight of a key, or starts one. `group` is the number of the cluster and namespace.
pub(crate) fn join(group: u64, key: &Bytes, blocking: bool) -> Role {
    join_from(group, key, Waiting { blocking, inside_run: false })
}

/// As [`join`], for a caller that may be inside of a run of the function.
pub(crate) fn join_from(group: u64, key: &Bytes, waiting: Waiting) -> Role {
    let flight_key = (group, key.clone());
    // Dropped after the lock is released: dropping it wakes other callers.
    let _past;
    let mut shard = shard(&flight_key).lock();
    let key_state = shard.entry(flight_key.clone()).or_default();
    if let Some(Flight { number, state, .. }) =
        key_state.flight.as_ref().filter(|flight| flight.is_open())
    {
        let is_needed =
            |state: &FlightState| state.needs(waiting) && !state.progress.releases_followers(false);
        if is_needed(&state.borrow()) {
            return Role::Unshared;
        }
        let (number, state) = (*number, state.subscribe());
        return Role::Follower(Follower { flight_key, number, waiting, state });
    }
    let blocking = waiting.blocking;
    let state = FlightState {
        progress: Progress::LookingUp,
        until: None,
        blocking: usize::from(blocking),
        looking_up: 1,
        queued: 0,
    };
    let (state, number) = (watch::Sender::new(state), NEXT_NUMBER.fetch_add(1, Ordering::Relaxed));
    let flight = Flight { number, leaders: 1, led_since: clock::elapsed(), state: state.clone() };
    _past = key_state.flight.replace(flight);
    let computation = key_state.begin(flight_key);
    Role::Leader(Leader::new(computation, number, blocking, state))
}

/// Begins a computation that nobody follows.
pub(crate) fn compute_unshared(group: u64, key: &Bytes) -> UnsharedComputation {
    let flight_key = (group, key.clone());
    let mut shard = shard(&flight_key).lock();
    shard.entry(flight_key.clone()).or_default().begin(flight_key)
}

/// Begins to write a computed value, unless the key was invalidated since the computation began. `make` gets
/// the writes that were invalidated after they had been sent: these have to complete first.
pub(crate) fn begin_write(
    group: u64,
    key: &Bytes,
    invalidation: &Invalidation,
    make: impl FnOnce(PendingWriteGuard, Vec<SharedWrite>) -> SharedWrite,
) -> Option<SharedWrite> {
    let flight_key = (group, key.clone());
    let mut shard = shard(&flight_key).lock();
    if invalidation.is_set() {
        return None;
    }
    let number = NEXT_NUMBER.fetch_add(1, Ordering::Relaxed);
    let pending_writes = &mut shard.entry(flight_key.clone()).or_default().pending_writes;
    let sent = pending_writes.iter().filter(|pending| pending.invalidation.is_set());
    let sent = sent.map(|pending| pending.write.clone()).collect();
    let guard = PendingWriteGuard { flight_key, number, invalidation: invalidation.clone() };
    let write = make(guard, sent);
    let invalidation = invalidation.clone();
    pending_writes.push(PendingWrite { number, invalidation, write: write.clone() });
    Some(write)
}

/// Invalidates the running computations of a key that is being deleted or replaced: their values are not
/// stored, and no further caller follows them. Returns the writes that are pending already.
pub(crate) fn invalidate(group: u64, key: &Bytes) -> Vec<SharedWrite> {
    let flight_key = (group, key.clone());
    let mut shard = shard(&flight_key).lock();
    let Some(state) = shard.get_mut(&flight_key) else { return Vec::new() };
    mem::take(&mut state.invalidation).set();
    state.computations = 0;
    let flight = state.flight.take();
    let writes = state.pending_writes.iter().map(|pending| pending.write.clone()).collect();
    if state.is_idle() {
        shard.remove(&flight_key);
    }
    drop(shard);
    drop(flight);
    writes
}

/// Closes the flight of a key that has been deleted: callers that join from now on get nothing that was read
/// before the delete.
pub(crate) fn close_after_delete(group: u64, key: &Bytes) {
    let flight_key = (group, key.clone());
    let mut shard = shard(&flight_key).lock();
    let removed = shard.get_mut(&flight_key).and_then(KeyState::close_lookups);
    drop(shard);
    drop(removed);
}

impl Follower {
    /// Waits until a leader publishes something usable; for a follower whose soft timeout is over (`is_overdue`) that
    /// includes an entry that may be served if computing fails. Returns `None` when there is no leader left for
    /// which this caller may wait.
    pub(crate) async fn wait(&mut self, is_overdue: bool) -> Option<Progress> {
        let is_over = |state: &FlightState| {
            state.progress.releases_followers(is_overdue) || state.needs(self.waiting)
        };
        let state = self.state.wait_for(is_over).await.ok()?;
        state.progress.releases_followers(is_overdue).then(|| state.progress.clone())
    }

    /// Returns the entry that may be served if computing fails.
    pub(crate) fn fallback(&self) -> Option<StoredEntry> {
        match &self.state.borrow().progress {
            Progress::Computing(stale) => Some(stale.clone()),
            _ => None,
        }
    }

    /// Makes this follower a leader beside the others, unless one of them began less than `wait` ago.
    pub(crate) fn wait_expired(&self, wait: Duration) -> WaitExpired {
        let mut shard = shard(&self.flight_key).lock();
        let Some(key_state) = shard.get_mut(&self.flight_key) else { return WaitExpired::Ended };
        let flight = key_state.flight.as_mut().filter(|flight| flight.number == self.number);
        let Some(flight) = flight.filter(|flight| !flight.state.borrow().progress.is_final())
        else {
            return WaitExpired::Ended;
        };
        let now = clock::elapsed();
        let left = wait.saturating_sub(now.saturating_sub(flight.led_since));
        if !left.is_zero() {
            return WaitExpired::WaitFor(left);
        }
        flight.led_since = now;
        flight.leaders += 1;
        let (blocking, state) = (self.waiting.blocking, flight.state.clone());
        state.send_if_modified(|state| {
            state.blocking += usize::from(blocking);
            state.looking_up += 1;
            // Nobody waits for further leaders.
            false
        });
        let computation = key_state.begin(self.flight_key.clone());
        WaitExpired::Lead(Leader::new(computation, self.number, blocking, state))
    }
}

impl UnsharedComputation {
    pub(crate) fn invalidation(&self) -> &Invalidation {
        &self.invalidation
    }
}

impl Drop for UnsharedComputation {
    fn drop(&mut self) {
        let mut shard = shard(&self.flight_key).lock();
        // An invalidated computation is not counted any more.
        if let Some(state) = shard.get_mut(&self.flight_key)
            && state.invalidation.is_same(&self.invalidation)
        {
            state.computations -= 1;
            if state.is_idle() {
                shard.remove(&self.flight_key);
            }
        }
    }
}

impl PendingWriteGuard {
    pub(crate) fn invalidation(&self) -> &Invalidation {
        &self.invalidation
    }
}

impl Drop for PendingWriteGuard {
    fn drop(&mut self) {
        let mut shard = shard(&self.flight_key).lock();
        let mut removed = None;
        if let Some(state) = shard.get_mut(&self.flight_key) {
            state.pending_writes.retain(|pending| pending.number != self.number);
            removed = state.close_lookups();
            if state.is_idle() {
                shard.remove(&self.flight_key);
            }
        }
        drop(shard);
        drop(removed);
    }
}
