//! Drives the core: takes inputs to the node, performs its effects, keeps its time.
//!
//! Invariants: no lock is held while an effect is performed or awaited; the node lock is taken
//! before the waiters' lock, never after.

mod events;
mod persistence;
mod responder;

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, oneshot, watch},
    task::JoinSet,
};
use zerocache_core::{
    call::CallFailure,
    key::Key,
    node::{
        CallId, ClusterStatus, ConnectionId, DatagramCounts, Effect, Identity, Input, Node,
        NodeConfig, PAUSE_MS_MAX, ReadPolicy, RequestId, miss_response,
    },
    store::Lookup,
    time::{Instant, Now},
    wire::{NodeState, RefusalCode, Request, RequestMessage, Response},
};
use zerocache_net::{
    clock,
    discovery::{Discovery, SourceStatus},
    transport::{
        Transport,
        framed::{Flush, FrameWriter},
    },
};

use self::responder::Flushes;
pub(crate) use self::responder::{Answer, response_header};
pub use self::responder::{FramedResponder, Responder};
use crate::{
    datagrams::Datagrams,
    snapshot::SnapshotFile,
    storage::{Mutexes, Storage},
};

/// Values and metadata up to this size are copied from the store to a connection under the lock of their
/// part, in bytes, if the store does not share them: it takes a few microseconds at the most.
const COPIED_BYTES_MAX: usize = 47 << 10;

/// What the response to a read takes at most beyond value and metadata, in bytes.
const FOUND_OVERHEAD_BYTES: usize = 64;

/// A running node: its state machine, its store and its calls. Shared by reference.
pub struct NodeDriver {
    node: Mutex<Node<Mutexes>>,
    storage: Arc<Storage>,
    identity: Identity,
    transport: Arc<dyn Transport>,
    datagrams: OnceLock<Arc<Datagrams>>,
    snapshot: OnceLock<Arc<SnapshotFile>>,
    discovery: OnceLock<Arc<Discovery>>,
    waiters: Mutex<HashMap<RequestId, Responder>>,
    next_request: AtomicU64,
    next_connection: AtomicU64,
    /// Connections that have ended, and of which the node is yet to hear.
    ended: Mutex<Vec<ConnectionId>>,
    state: watch::Sender<NodeState>,
    misses_are_authoritative: AtomicBool,
    values_are_current: AtomicBool,
    /// When the node last handled something, on the monotonic clock in milliseconds.
    handled_ms: AtomicU64,
    calls: Mutex<JoinSet<()>>,
    timer: Notify,
    timer_at: AtomicU64,
    this: Weak<Self>,
}

impl NodeDriver {
    /// A driver for a node with `config` that keeps its entries in `storage`.
    ///
    /// Time does not pass for it until [`NodeDriver::keep_time`] runs.
    #[must_use]
    pub fn new(config: NodeConfig, storage: Storage, transport: Arc<dyn Transport>) -> Arc<Self> {
        let storage = Arc::new(storage);
        let node = Node::new(config, Arc::clone(&storage), clock::now());
        Arc::new_cyclic(|this| Self {
            identity: node.identity().clone(),
            state: watch::Sender::new(node.state()),
            misses_are_authoritative: AtomicBool::new(false),
            values_are_current: AtomicBool::new(true),
            handled_ms: AtomicU64::new(clock::mono().as_millis()),
            node: Mutex::new(node),
            storage,
            transport,
            datagrams: OnceLock::new(),
            snapshot: OnceLock::new(),
            discovery: OnceLock::new(),
            waiters: Mutex::default(),
            next_request: AtomicU64::new(0),
            next_connection: AtomicU64::new(0),
            ended: Mutex::default(),
            calls: Mutex::default(),
            timer: Notify::new(),
            timer_at: AtomicU64::new(0),
            this: this.clone(),
        })
    }

    /// Sends datagrams through this socket from now on; without one they are dropped.
    pub fn use_datagrams(&self, datagrams: Arc<Datagrams>) {
        let _only_the_first_counts = self.datagrams.set(datagrams);
    }

    /// Tells discovery from now on where nodes answer.
    pub fn use_discovery(&self, discovery: Arc<Discovery>) {
        let _only_the_first_counts = self.discovery.set(discovery);
    }

    /// The ways in which nodes are looked for, and what became of each.
    pub fn sources(&self) -> Vec<SourceStatus> {
        self.discovery.get().map(|discovery| discovery.sources()).unwrap_or_default()
    }

    /// Where the node says that it can be reached.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.node.lock().config().info.addresses.clone()
    }

    /// Keeps what the node knows in this file while it is stopped.
    pub fn use_snapshot(&self, file: SnapshotFile) {
        let _only_the_first_counts = self.snapshot.set(Arc::new(file));
    }

    /// Reads a key.
    pub fn read(&self, key: &Key) -> Response {
        // Not the coarse clock: what it is behind would be added to the life that remains.
        zerocache_core::node::read(&self.storage, key, clock::now(), self.answers())
    }

    /// Reads a key at `now` and appends the response to request `id` to a framed connection. Returns
    /// how many bytes of the entry are in it.
    pub fn read_to(
        &self,
        key: &[u8],
        (now, answers): (Now, ReadPolicy),
        to: (&FrameWriter, u32),
    ) -> usize {
        let (line, id) = to;
        let header = response_header(id, now.mono);
        if !answers.values_are_current {
            line.send(header, &Answer(&miss_response(false)), Flush::Later);
            return 0;
        }
        let mut bytes = 0;
        let larger = self.storage.read(key, now, |entry| {
            let remaining_ms = entry.expires.since_ms(now.mono);
            bytes = entry.value.len() + entry.metadata.len();
            if bytes > COPIED_BYTES_MAX || !entry.is_copied() {
                return Some(Response::Found {
                    value: entry.to_value(),
                    metadata: Bytes::copy_from_slice(entry.metadata),
                    version: entry.version,
                    remaining_ms,
                });
            }
            line.append(header, bytes + FOUND_OVERHEAD_BYTES, |out| {
                let (value, metadata) = (entry.value, entry.metadata);
                Response::encode_found(out, value, metadata, entry.version, remaining_ms);
            });
            None
        });
        let response = match larger {
            Lookup::Hit(None) => return bytes,
            Lookup::Hit(Some(response)) => response,
            Lookup::Miss => miss_response(answers.misses_are_authoritative),
        };
        line.send(header, &Answer(&response), Flush::Later);
        bytes
    }

    /// Answers a message from a client or another node.
    pub async fn request(&self, message: RequestMessage) -> Response {
        if let Request::Get { key } = &message.request {
            let refusal = self.identity.refusal(&message.envelope, &message.request);
            return refusal.unwrap_or_else(|| self.read(key));
        }
        let connection = self.next_connection().single_use();
        self.answer(connection, |id| Input::Request { id, connection, message }).await
    }

    /// Names a connection that begins.
    pub fn next_connection(&self) -> ConnectionId {
        ConnectionId(self.next_connection.fetch_add(1, Ordering::Relaxed))
    }

    /// Hands `input(id)` to the node and waits for the response to `id`, for which there is this
    /// connection.
    ///
    /// # Cancellation
    /// Dropping the future gives the response up and ends the connection; what was written stays.
    pub async fn answer(
        &self,
        connection: ConnectionId,
        input: impl FnOnce(RequestId) -> Input,
    ) -> Response {
        let (sender, receiver) = oneshot::channel();
        let mut input = Some(input);
        let first =
            self.submit([Responder::Waiting(sender)], |id| input.take().map(|input| input(id)));
        let mut waiter = Waiter { driver: self, id: first, connection, hears: false };
        let response = receiver.await;
        waiter.hears = true;
        response
            .unwrap_or_else(|_| Response::refused(RefusalCode::Overloaded, "the node is stopping"))
    }

    /// Hands requests that came together on a connection to the node; each is answered through its
    /// responder, now or later.
    pub fn answer_all(&self, connection: ConnectionId, requests: Vec<(RequestMessage, Responder)>) {
        let (messages, responders): (Vec<_>, Vec<_>) = requests.into_iter().unzip();
        let mut messages = messages.into_iter();
        self.submit(responders, |id| {
            messages.next().map(|message| Input::Request { id, connection, message })
        });
    }

    /// Hands one input for each responder to the node. Returns the id of the first.
    fn submit(
        &self,
        responders: impl IntoIterator<Item = Responder, IntoIter: ExactSizeIterator>,
        mut input: impl FnMut(RequestId) -> Option<Input>,
    ) -> RequestId {
        let responders = responders.into_iter();
        let count = responders.len() as u64;
        let first = self.next_request.fetch_add(count, Ordering::Relaxed);
        let ids = || (first..first + count).map(RequestId);
        let mut mine: Vec<_> = responders.map(Some).collect();
        let mut effects = Vec::new();
        let mut flushes = Flushes::default();
        {
            let mut node = self.node.lock();
            node.handle_all(clock::now(), ids().filter_map(&mut input), &mut effects);
            self.note(&node);
            effects.retain_mut(|effect| {
                let Effect::Respond { id, response } = effect else { return true };
                let place = id.0.checked_sub(first).and_then(|at| mine.get_mut(at as usize));
                let Some(responder) = place.and_then(Option::take) else { return true };
                flushes.respond_own(responder, std::mem::replace(response, Response::Done));
                false
            });
            // Under the node lock, so that no response can come before its waiter.
            let later = ids().zip(mine).filter_map(|(id, responder)| Some((id, responder?)));
            self.waiters.lock().extend(later);
        }
        self.perform(effects);
        RequestId(first)
    }

    /// Hands an input to the node.
    pub fn input(&self, input: Input) {
        self.inputs([input]);
    }

    /// Hands inputs that came together to the node.
    pub fn inputs(&self, inputs: impl IntoIterator<Item = Input>) {
        let mut effects = Vec::new();
        {
            let mut node = self.node.lock();
            node.handle_all(clock::now(), inputs, &mut effects);
            self.note(&node);
        }
        self.perform(effects);
    }

    /// Ticks the node when it wants to be; ends only when dropped.
    pub async fn keep_time(&self) {
        loop {
            let ended = std::mem::take(&mut *self.ended.lock());
            if !ended.is_empty() {
                self.inputs(ended.into_iter().map(Input::ConnectionClosed));
            }
            let deadline = {
                // Both under the lock, so that whoever brings the deadline forward sees this one.
                let node = self.node.lock();
                self.timer_at.store(node.next_deadline().as_millis(), Ordering::Relaxed);
                node.next_deadline()
            };
            let wait = deadline.since(clock::mono());
            if wait.is_zero() {
                self.input(Input::Tick);
                tokio::task::yield_now().await;
            } else {
                let _early = tokio::time::timeout(wait, self.timer.notified()).await;
            }
        }
    }

    /// What the node says at the beginning of a connection to another one.
    pub fn introduction(&self) -> RequestMessage {
        self.node.lock().introduction(clock::now())
    }

    /// What the node knows of the cluster.
    pub fn snapshot(&self) -> ClusterStatus {
        self.node.lock().status(clock::now())
    }

    /// How many wait for a change of the membership.
    pub fn watchers(&self) -> usize {
        self.node.lock().watcher_count()
    }

    /// What became of datagrams, and how many could not be sent.
    pub fn datagram_counts(&self) -> (DatagramCounts, u64) {
        let unsent = self.datagrams.get().map_or(0, |datagrams| datagrams.unsent());
        (self.node.lock().datagram_counts(), unsent)
    }

    /// The node's readiness.
    pub fn state(&self) -> NodeState {
        *self.state.borrow()
    }

    /// What reads may be answered with now.
    pub fn answers(&self) -> ReadPolicy {
        let handled = Instant::from_millis(self.handled_ms.load(Ordering::Relaxed));
        if clock::mono().since_ms(handled) > PAUSE_MS_MAX {
            // The process was suspended, and the node has not noticed yet that it missed something.
            return ReadPolicy::default();
        }
        ReadPolicy {
            misses_are_authoritative: self.misses_are_authoritative.load(Ordering::Relaxed),
            values_are_current: self.values_are_current.load(Ordering::Relaxed),
        }
    }

    /// The node's readiness, to wait for a change.
    pub fn watch_state(&self) -> watch::Receiver<NodeState> {
        self.state.subscribe()
    }

    /// The entries of the node.
    pub fn storage(&self) -> &Storage {
        &self.storage
    }

    /// Waits until no write waits for a peer that answers, at most `most`; whether that came about.
    pub async fn flush(&self, most: Duration) -> bool {
        let flushed = async {
            while !self.node.lock().is_flushed() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(most, flushed).await.is_ok()
    }

    /// Takes over the node's deadline and state, under its lock, so that neither goes back.
    fn note(&self, node: &Node<Mutexes>) {
        if node.next_deadline().as_millis() < self.timer_at.load(Ordering::Relaxed) {
            self.timer.notify_one();
        }
        self.handled_ms.store(clock::mono().as_millis(), Ordering::Relaxed);
        let answers = node.read_policy();
        self.misses_are_authoritative.store(answers.misses_are_authoritative, Ordering::Relaxed);
        self.values_are_current.store(answers.values_are_current, Ordering::Relaxed);
        self.state.send_if_modified(|state| {
            let before = std::mem::replace(state, node.state());
            before != *state
        });
    }

    fn perform(&self, effects: Vec<Effect>) {
        let mut flushes = Flushes::default();
        for effect in effects {
            match effect {
                Effect::Respond { id, response } => {
                    let responder = self.waiters.lock().remove(&id);
                    if let Some(responder) = responder {
                        flushes.respond(responder, response);
                    }
                }
                Effect::Call { call, to, message, timeout_ms } => {
                    self.run_call(call, to, message, Duration::from_millis(timeout_ms));
                }
                Effect::Datagram { to, bytes } => {
                    if let Some(datagrams) = self.datagrams.get() {
                        datagrams.send(to, &bytes);
                    }
                }
                Effect::State(state) => {
                    tracing::info!(state = state.as_str(), "node is {}", state.as_str());
                }
                Effect::Restore => self.read_snapshot(),
                Effect::Event(event) => {
                    events::log(&event);
                    // Where a member answers, or no longer does, it is not dialled.
                    for (address, answered) in events::reach(&event) {
                        self.note_answer(address, answered);
                    }
                }
            }
        }
    }

    fn note_answer(&self, address: SocketAddr, answered: bool) {
        if let Some(discovery) = self.discovery.get() {
            discovery.record_answer(address, answered);
        }
    }

    fn run_call(&self, call: CallId, to: SocketAddr, message: RequestMessage, timeout: Duration) {
        let (this, started) = (self.this.clone(), clock::elapsed());
        let is_handshake = matches!(message.request, Request::Hello(_));
        let then = Box::new(move |result: Result<Response, CallFailure>| {
            let elapsed_us = clock::elapsed().saturating_sub(started).as_micros();
            if let Some(driver) = this.upgrade() {
                if is_handshake {
                    driver.note_answer(to, matches!(result, Ok(Response::Hello(_))));
                }
                let elapsed_us = u64::try_from(elapsed_us).unwrap_or(u64::MAX);
                driver.input(Input::CallCompleted { call, result, elapsed_us });
            }
        });
        let Err(later) = self.transport.try_call_then(to, message, timeout, then) else { return };
        let (message, then) = *later;
        let call = self.transport.call(to, message, timeout);
        let mut calls = self.calls.lock();
        while calls.try_join_next().is_some() {}
        calls.spawn(async move { then(call.await) });
    }
}

/// Removes a waiter whose caller has gone.
struct Waiter<'a> {
    driver: &'a NodeDriver,
    id: RequestId,
    connection: ConnectionId,
    /// The caller has the response: it had not gone when that came.
    hears: bool,
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        if !self.hears {
            self.driver.waiters.lock().remove(&self.id);
            // Not here: this may be the end of the Tokio runtime, which takes no more calls.
            self.driver.ended.lock().push(self.connection);
            self.driver.timer.notify_one();
        }
    }
}
