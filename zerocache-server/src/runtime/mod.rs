//! Drives the core: takes inputs to the node, performs its effects, keeps its time.
//!
//! Invariants: no lock is held while an effect is performed or awaited; the node lock is taken
//! before the waiters' lock, never after.

mod events;
mod storage;

use std::{
    collections::HashMap,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    sync::{Notify, oneshot, watch},
    task::JoinSet,
};
use zerocache_core::{
    key::Key,
    node::{CallFailure, CallId, Effect, Identity, Input, Node, NodeConfig, RequestId, Snapshot},
    wire::{NodeState, RefusalCode, Request, RequestMessage, Response},
};
use zerocache_net::{
    clock,
    transport::{CallFuture, Transport},
};

pub use self::storage::{Mutexes, Storage};

/// A running node: its state machine, its store and its calls. Shared by reference.
pub struct Runtime {
    node: Mutex<Node<Mutexes>>,
    storage: Arc<Storage>,
    identity: Identity,
    transport: Arc<dyn Transport>,
    waiters: Mutex<HashMap<RequestId, oneshot::Sender<Response>>>,
    next_request: AtomicU64,
    state: watch::Sender<NodeState>,
    calls: Mutex<JoinSet<()>>,
    timer: Notify,
    timer_at: AtomicU64,
    this: Weak<Self>,
}

impl Runtime {
    /// A runtime for a node with `config` that keeps its entries in `storage`.
    ///
    /// Time does not pass for it until [`Runtime::keep_time`] runs.
    #[must_use]
    pub fn new(config: NodeConfig, storage: Storage, transport: Arc<dyn Transport>) -> Arc<Self> {
        let storage = Arc::new(storage);
        let node = Node::new(config, Arc::clone(&storage), clock::now());
        Arc::new_cyclic(|this| Self {
            identity: node.identity().clone(),
            state: watch::Sender::new(node.state()),
            node: Mutex::new(node),
            storage,
            transport,
            waiters: Mutex::default(),
            next_request: AtomicU64::new(0),
            calls: Mutex::default(),
            timer: Notify::new(),
            timer_at: AtomicU64::new(0),
            this: this.clone(),
        })
    }

    /// Reads a key.
    pub fn read(&self, key: &Key) -> Response {
        zerocache_core::node::read(&self.storage, key, clock::coarse_now(), self.state())
    }

    /// Answers a message from a client or another node.
    pub async fn request(&self, message: RequestMessage) -> Response {
        if let Request::Get { key } = &message.request {
            let refusal = self.identity.refusal(&message.envelope, &message.request);
            return refusal.unwrap_or_else(|| self.read(key));
        }
        self.answer(|id| Input::Request { id, message }).await
    }

    /// Hands `input(id)` to the node and waits for the response to `id`.
    ///
    /// # Cancellation
    /// Dropping the future gives the response up; what was written stays.
    pub async fn answer(&self, input: impl FnOnce(RequestId) -> Input) -> Response {
        let id = RequestId(self.next_request.fetch_add(1, Ordering::Relaxed));
        let (effects, mine) = {
            let mut node = self.node.lock();
            let mut effects = Vec::new();
            node.handle(clock::now(), input(id), &mut effects);
            self.note(&node);
            let at = effects.iter().position(|effect| responds_to(effect, id));
            let mine = match at.map(|at| effects.swap_remove(at)) {
                Some(Effect::Respond { response, .. }) => Mine::Now(response),
                // Under the node lock, so that the response cannot come before its waiter.
                _ => Mine::Later(self.wait_for(id)),
            };
            (effects, mine)
        };
        self.perform(effects);
        match mine {
            Mine::Now(response) => response,
            Mine::Later((receiver, _guard)) => receiver.await.unwrap_or_else(|_| {
                Response::refused(RefusalCode::Overloaded, "the node is stopping")
            }),
        }
    }

    /// Hands an input to the node.
    pub fn input(&self, input: Input) {
        let mut effects = Vec::new();
        {
            let mut node = self.node.lock();
            node.handle(clock::now(), input, &mut effects);
            self.note(&node);
        }
        self.perform(effects);
    }

    /// Ticks the node when it wants to be; ends only when dropped.
    pub async fn keep_time(&self) {
        loop {
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

    /// What the node knows of the cluster.
    pub fn snapshot(&self) -> Snapshot {
        self.node.lock().snapshot(clock::now())
    }

    /// The node's readiness.
    pub fn state(&self) -> NodeState {
        *self.state.borrow()
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

    fn wait_for(&self, id: RequestId) -> (oneshot::Receiver<Response>, Waiter<'_>) {
        let (sender, receiver) = oneshot::channel();
        self.waiters.lock().insert(id, sender);
        (receiver, Waiter { runtime: self, id })
    }

    /// Takes over the node's deadline and state, under its lock, so that neither goes back.
    fn note(&self, node: &Node<Mutexes>) {
        if node.next_deadline().as_millis() < self.timer_at.load(Ordering::Relaxed) {
            self.timer.notify_one();
        }
        self.state.send_if_modified(|state| {
            let before = std::mem::replace(state, node.state());
            before != *state
        });
    }

    fn perform(&self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Respond { id, response } => {
                    if let Some(waiter) = self.waiters.lock().remove(&id) {
                        // Whoever asked may have gone.
                        let _gone = waiter.send(response);
                    }
                }
                Effect::Call { call, to, message, timeout_ms } => {
                    let timeout = Duration::from_millis(timeout_ms);
                    self.run_call(call, self.transport.call(to, message, timeout));
                }
                Effect::State(state) => {
                    tracing::info!(state = state.as_str(), "this node is {}", state.as_str());
                }
                Effect::Event(event) => events::log(&event),
            }
        }
    }

    fn run_call(&self, call: CallId, future: CallFuture) {
        let this = self.this.clone();
        let mut calls = self.calls.lock();
        while calls.try_join_next().is_some() {}
        calls.spawn(async move {
            let started = clock::elapsed();
            let result: Result<Response, CallFailure> = future.await;
            let elapsed_us = clock::elapsed().saturating_sub(started).as_micros();
            if let Some(runtime) = this.upgrade() {
                let elapsed_us = u64::try_from(elapsed_us).unwrap_or(u64::MAX);
                runtime.input(Input::Answer { call, result, elapsed_us });
            }
        });
    }
}

/// The response to one's own request: there already, or to come.
enum Mine<'a> {
    Now(Response),
    Later((oneshot::Receiver<Response>, Waiter<'a>)),
}

/// Removes a waiter whose caller has gone.
struct Waiter<'a> {
    runtime: &'a Runtime,
    id: RequestId,
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.runtime.waiters.lock().remove(&self.id);
    }
}

fn responds_to(effect: &Effect, wanted: RequestId) -> bool {
    matches!(effect, Effect::Respond { id, .. } if *id == wanted)
}
