//! A node as a state machine: `handle(now, input) -> effects` and `next_deadline()`.
//!
//! It owns membership, the stamping of writes, fan-out and acknowledgement. Reads need none of that
//! and go to the shared [`Store`] directly; [`read`] is what both do.
//!
//! Invariants: an input is handled without waiting; every call made is answered by exactly one
//! `Input::Answer`; every request gets exactly one `Effect::Respond`; all queues are bounded.

mod clocks;
mod fanout;
mod heartbeat;
mod membership;
mod outbox;
mod reads;
mod repair;
mod snapshot;
#[cfg(test)]
mod tests;
mod watchers;
mod writes;

use alloc::{boxed::Box, collections::BTreeMap, string::String, sync::Arc, vec::Vec};
use core::net::SocketAddr;

use bytes::Bytes;

use self::{
    clocks::Clocks,
    heartbeat::Heartbeats,
    membership::Acquaintances,
    outbox::Outbox,
    repair::{Asked, Repair},
    watchers::Watchers,
    writes::Writes,
};
pub use self::{
    heartbeat::DatagramCounts,
    reads::{Identity, missed, read},
    repair::{Memory, RepairCounts},
    snapshot::{NodeSnapshot, RegionSnapshot, Snapshot},
};
use crate::{
    clock::HybridClock,
    cluster::{Ranking, View},
    key::Key,
    limits::Limits,
    store::{Known, LockFamily, Store},
    time::{Instant, Now},
    ttl::Ttl,
    version::{Incarnation, Version},
    wire::{
        Ack, CONTENT_BYTES_MAX, Envelope, NodeInfo, NodeState, RefusalCode, Request,
        RequestMessage, Response,
    },
};

/// Most expired entries that one tick drops.
const SWEEP_MAX: usize = 4096;

/// A node that did nothing for longer, in milliseconds, was stopped: it ticks much more often.
pub const PAUSE_MS_MAX: u64 = 2_000;

/// How often expired entries are swept, in milliseconds.
const SWEEP_EVERY_MS: u64 = 250;

/// What a node is told about itself.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// The cluster that it belongs to.
    pub cluster: String,
    /// Who it is and where it can be reached.
    pub info: NodeInfo,
    /// What it accepts.
    pub limits: Limits,
    /// After this long it is ready even if a local peer has not answered, in milliseconds.
    pub warm_max_ms: u64,
    /// Bytes that may wait for one peer; beyond them writes for it are given up.
    pub outbox_bytes_max: usize,
    /// The optional abilities that it offers, as [`features`](crate::wire::features) has them.
    pub features: u64,
    /// Whether what it knew in an earlier life can be read back, when no peer has anything.
    pub has_snapshot: bool,
    /// What the keys of datagrams are made from: random, and known to this process alone.
    pub secret: [u8; 32],
}

/// Names a request until its response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// Names a call to another node until its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub u64);

/// How far a write is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// To the local peers and to a relay in each other region.
    Cluster,
    /// Nowhere: whoever sent it tells the others itself.
    Here,
}

/// What a client wants written.
#[derive(Clone, Debug)]
pub enum WriteOp {
    /// A value for some time.
    Put {
        /// The value.
        value: Bytes,
        /// Tagged fields forwarded unchanged.
        metadata: Bytes,
        /// How long it lives.
        ttl: Ttl,
    },
    /// Nothing any more.
    Delete,
}

/// Why a call to another node has no response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallFailure {
    /// Nobody listens there.
    Refused,
    /// It cannot have arrived: no connection came about.
    NotSent,
    /// It may have been sent; no response came in time.
    NoAnswer,
}

/// What a node is given to handle.
#[derive(Debug)]
pub enum Input {
    /// A write by a client.
    Write {
        /// Whom to answer.
        id: RequestId,
        /// What to write.
        key: Key,
        /// What to do with it.
        op: WriteOp,
        /// Who must have it before the answer.
        ack: Ack,
        /// How far it goes.
        scope: Scope,
        /// How long the caller waits, in milliseconds; 0 when it does not say.
        timeout_ms: u64,
    },
    /// A message from a client or another node.
    Request {
        /// Whom to answer.
        id: RequestId,
        /// What was asked.
        message: RequestMessage,
    },
    /// The end of a call that this node made.
    Answer {
        /// Which call.
        call: CallId,
        /// What came back.
        result: Result<Response, CallFailure>,
        /// How long it took, in microseconds.
        elapsed_us: u64,
    },
    /// A datagram came.
    Datagram {
        /// From where.
        from: SocketAddr,
        /// What it holds.
        bytes: Bytes,
    },
    /// Addresses at which nodes may stand.
    Proposed(Vec<SocketAddr>),
    /// Discovery says that a node is gone; it is asked before that is believed.
    Withdrawn(Incarnation),
    /// Every way of discovery has given its first answer.
    Settled,
    /// The moment of [`Node::next_deadline`] has come.
    Tick,
    /// Something that this node knew in an earlier life, after [`Effect::Restore`].
    Restored(Vec<Known>),
    /// All of that has come, or there was nothing that can be used.
    RestoreEnded(Option<Memory>),
    /// The process is about to stop.
    Leave,
}

/// What a node wants done.
#[derive(Debug)]
pub enum Effect {
    /// Answers a request.
    Respond {
        /// Which one.
        id: RequestId,
        /// With what.
        response: Response,
    },
    /// Calls another node; its end comes back as [`Input::Answer`].
    Call {
        /// Which call.
        call: CallId,
        /// Where to.
        to: SocketAddr,
        /// What to ask; the sender fills in the time of sending.
        message: RequestMessage,
        /// How long to wait, in milliseconds.
        timeout_ms: u64,
    },
    /// Sends a datagram, which may be lost.
    Datagram {
        /// Where to.
        to: SocketAddr,
        /// What it holds.
        bytes: Bytes,
    },
    /// The node's own readiness changed.
    State(NodeState),
    /// Nobody has anything: what the node knew in an earlier life is to be read back.
    Restore,
    /// Something that an operator may want to know.
    Event(Event),
}

/// What happened, for logs and counters.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A member answers, for the first time or again.
    MemberUp(NodeInfo, SocketAddr),
    /// A member has been silent for too long.
    MemberDown(NodeInfo, SocketAddr),
    /// A member said that it leaves.
    MemberLeaving(NodeInfo),
    /// A member is no longer remembered.
    MemberForgotten(NodeInfo),
    /// A node of another cluster stands at this address.
    OtherCluster {
        /// Where.
        address: SocketAddr,
        /// What it said.
        text: String,
    },
    /// Two nodes that are both alive claim this address.
    AddressConflict {
        /// Which one.
        address: SocketAddr,
        /// One of the two; another one answered there shortly before.
        node: Incarnation,
    },
    /// A peer refused writes: stamped too far ahead of its clock, or too old for it to judge.
    WritesRefused {
        /// Which peer.
        peer: Incarnation,
        /// How many.
        count: usize,
    },
    /// The node put its clock right.
    ClockMoved {
        /// By how much, in milliseconds.
        by_ms: i64,
        /// How many entries it dropped because they were stamped too far ahead, its traces with them;
        /// none if it went on with what it had.
        dropped: Option<usize>,
    },
    /// The node had missed too much, and asked a peer about all that it had.
    WasOutdated {
        /// Which peer.
        peer: Incarnation,
        /// How many entries it gave up since it started.
        given_up: u64,
    },
    /// The copy at the start has come to its end.
    Copied {
        /// From whom.
        source: Incarnation,
        /// How many entries.
        entries: u64,
    },
    /// Writes for a peer were given up.
    WritesDropped {
        /// Which peer.
        peer: Incarnation,
        /// How many.
        count: usize,
    },
}

/// What a call was made for.
#[derive(Debug)]
enum Call {
    Hello { address: SocketAddr },
    Ping { member: Incarnation },
    Greet { member: Incarnation },
    Batch { member: Incarnation },
    Gossip { member: Incarnation },
    Repair { member: Incarnation, asked: Asked },
    Goodbye,
}

/// A node.
pub struct Node<L: LockFamily> {
    config: NodeConfig,
    identity: Identity,
    state: NodeState,
    started: Instant,
    settled: bool,
    /// When it began to warm, for the last time.
    warm_since: Instant,
    /// When it last did anything.
    awake: Instant,
    misses_are_final: bool,
    clock: HybridClock,
    clocks: Clocks,
    repair: Repair,
    store: Arc<Store<L>>,
    view: View,
    ranking: Ranking,
    greeters: Vec<Incarnation>,
    heartbeats: Heartbeats,
    known: Acquaintances,
    watchers: Watchers,
    outboxes: BTreeMap<Incarnation, Outbox>,
    /// Peers for whom something was queued since the last flush.
    filled: Vec<Incarnation>,
    writes: Writes,
    calls: BTreeMap<CallId, Call>,
    next_call: u64,
    next_sweep: Instant,
    /// When something is due beside the queues, and when something in them is.
    wake: Instant,
    flush_at: Option<Instant>,
}

impl<L: LockFamily> Node<L> {
    /// A node that starts at `now` and keeps its entries in `store`.
    pub fn new(config: NodeConfig, store: Arc<Store<L>>, now: Now) -> Self {
        Self {
            identity: Identity::new(&config.cluster, config.info.incarnation),
            state: NodeState::Warming,
            started: now.mono,
            settled: false,
            warm_since: now.mono,
            awake: now.mono,
            misses_are_final: false,
            clocks: Clocks::default(),
            repair: Repair::new(now.mono),
            clock: HybridClock::new(config.info.incarnation),
            store,
            view: View::default(),
            ranking: Ranking::default(),
            greeters: Vec::new(),
            heartbeats: Heartbeats::new(now.mono),
            known: Acquaintances::new(config.info.clone(), now.mono),
            watchers: Watchers::default(),
            outboxes: BTreeMap::new(),
            filled: Vec::new(),
            writes: Writes::default(),
            calls: BTreeMap::new(),
            next_call: 0,
            next_sweep: now.mono,
            wake: now.mono,
            flush_at: None,
            config,
        }
    }

    /// Handles one input; what is to be done is appended to `out`.
    pub fn handle(&mut self, now: Now, input: Input, out: &mut Vec<Effect>) {
        self.handle_all(now, [input], out);
    }

    /// Handles inputs that came together; what they send to a peer goes in as few messages as it can.
    pub fn handle_all(
        &mut self,
        now: Now,
        inputs: impl IntoIterator<Item = Input>,
        out: &mut Vec<Effect>,
    ) {
        let now = self.clocks.adjust(now);
        let gap_ms = now.mono.since_ms(core::mem::replace(&mut self.awake, now.mono));
        if gap_ms > PAUSE_MS_MAX {
            self.thawed(now, gap_ms, out);
        }
        for input in inputs {
            self.take_in(now, input, out);
        }
        self.flush_filled(now, out);
        self.update_state(now, out);
        self.answer_watchers(now, out);
    }

    fn take_in(&mut self, now: Now, input: Input, out: &mut Vec<Effect>) {
        match input {
            Input::Write { id, key, op, ack, scope, timeout_ms } => {
                let write = writes::Write { id, key, op, ack, scope, timeout_ms, late_ms: 0 };
                self.write(now, write, out);
            }
            Input::Request { id, message } => self.request(now, id, message, out),
            Input::Answer { call, result, elapsed_us } => {
                self.answer(now, call, result, elapsed_us, out);
            }
            Input::Datagram { from, bytes } => self.datagram(now, from, &bytes, out),
            Input::Proposed(addresses) => {
                for address in addresses {
                    // Known nodes that are no contacts are not dialled each time a name resolves.
                    if !self.known.is_no_contact(&self.config.info, address) {
                        self.view.propose(address, now.mono);
                    }
                }
                self.wake = now.mono;
            }
            Input::Withdrawn(id) => self.verify(now, Some(id)),
            Input::Settled => {
                self.settled = true;
                self.wake = now.mono;
            }
            Input::Restored(known) => known.into_iter().for_each(|known| self.adopt(now, known)),
            Input::RestoreEnded(memory) => self.restored(now, memory),
            Input::Tick => self.tick(now, out),
            Input::Leave => self.leave(now, out),
        }
    }

    /// When [`Input::Tick`] is due next.
    #[must_use]
    pub fn next_deadline(&self) -> Instant {
        self.flush_at.map_or(self.wake, |at| at.min(self.wake))
    }

    /// The node's own readiness.
    #[must_use]
    pub fn state(&self) -> NodeState {
        self.state
    }

    /// Whether a miss here means that no local peer has the key either.
    #[must_use]
    pub fn misses_are_final(&self) -> bool {
        self.misses_are_final
    }

    /// Whose requests the node takes; for readers that do not go through it.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Under which name the node gives versions: its incarnation, or another one since it had to go back
    /// with its clock.
    #[must_use]
    pub fn writer(&self) -> Incarnation {
        self.clock.last().incarnation()
    }

    /// What the node was told about itself.
    #[must_use]
    pub fn config(&self) -> &NodeConfig {
        &self.config
    }

    /// What the node says at the beginning of a connection to another one.
    #[must_use]
    pub fn introduction(&self, now: Now) -> RequestMessage {
        let envelope = Envelope {
            cluster: self.identity.cluster_id,
            from: Some(self.config.info.incarnation),
            ..Envelope::default()
        };
        let now = self.clocks.adjust(now);
        RequestMessage { envelope, request: Request::Hello(Box::new(self.hello(now, 0))) }
    }

    /// Whether no write waits for a peer that answers.
    #[must_use]
    pub fn is_flushed(&self) -> bool {
        self.outboxes.values().all(Outbox::is_empty)
    }

    fn tick(&mut self, now: Now, out: &mut Vec<Effect>) {
        if self.flush_at.is_some_and(|at| at <= now.mono) {
            self.tick_outboxes(now, out);
        }
        if self.wake > now.mono {
            return;
        }
        self.wake = now.mono.plus_ms(SWEEP_EVERY_MS);
        if self.next_sweep <= now.mono {
            self.next_sweep = now.mono.plus_ms(SWEEP_EVERY_MS);
            self.store.sweep(now, SWEEP_MAX);
        }
        self.tick_membership(now, out);
        self.check_clock(now, out);
        self.tick_repair(now, out);
        self.judge_misses(now);
        let store = &self.store;
        for (id, response) in self.writes.take_overdue(now.mono, |key| store.version(key)) {
            out.push(Effect::Respond { id, response });
        }
        self.wake_by(self.writes.next_deadline());
        self.wake_by(self.watchers_due());
        self.wake_by(self.view.candidates().next_dial());
    }

    fn wake_by(&mut self, at: Option<Instant>) {
        if let Some(at) = at {
            self.wake = self.wake.min(at);
        }
    }

    fn request(&mut self, now: Now, id: RequestId, message: RequestMessage, out: &mut Vec<Effect>) {
        let RequestMessage { envelope, request } = message;
        if let Some(response) = self.identity.refusal(&envelope, &request) {
            out.push(Effect::Respond { id, response });
            return;
        }
        // What its caller has given up is not carried out, and least of all stamped.
        let Some(timeout_ms) = envelope.remaining_ms() else {
            let response = Response::refused(RefusalCode::Expired, "the deadline had passed");
            return out.push(Effect::Respond { id, response });
        };
        // One caller's writes are in the order in which it made them, whichever node takes them. A
        // stamp too far ahead is none that a node of this time gave.
        let _too_far_ahead =
            self.clock.observe(Version::new(envelope.seen, Incarnation(0)), now.wall_ms);
        let (scope, late_ms) = (Scope::Cluster, envelope.late_ms);
        let response = match request {
            Request::Put { key, value, metadata, ttl, ack } => {
                let op = WriteOp::Put { value, metadata, ttl };
                let write = writes::Write { id, key, op, ack, scope, timeout_ms, late_ms };
                return self.write(now, write, out);
            }
            Request::Delete { key, ack } => {
                let op = WriteOp::Delete;
                let write = writes::Write { id, key, op, ack, scope, timeout_ms, late_ms };
                return self.write(now, write, out);
            }
            Request::Get { key } => read(&self.store, &key, now, self.misses_are_final),
            Request::Hello(hello) => self.greeted(now, *hello, out),
            Request::Ping => self.pong(now),
            Request::Watch { view } => return self.watch(now, id, view, timeout_ms, out),
            Request::Goodbye => {
                self.verify(now, envelope.from);
                Response::Done
            }
            Request::Gossip(said) => Response::Gossip(match envelope.from {
                Some(from) => self.hear_gossip(now, from, &said, CONTENT_BYTES_MAX),
                None => Bytes::new(),
            }),
            Request::Replicate(_) if !self.clocks.is_set() => unset(),
            Request::Replicate(shipments) => self.receive(now, shipments, out),
            Request::Sums { window, grain, had_ms } => {
                self.tell_sums(now, (window, grain), (envelope.from, had_ms))
            }
            Request::RowsOf(cells) => self.tell_rows(cells),
            Request::VersionsOf(keys) => self.tell_versions(&keys),
            Request::Fetch(keys) => self.hand_out(now, &keys),
            Request::Copy { part, last, stretch } => {
                self.hand_copy(now, envelope.from, (part, last), stretch)
            }
        };
        out.push(Effect::Respond { id, response });
    }

    fn answer(
        &mut self,
        now: Now,
        call: CallId,
        result: Result<Response, CallFailure>,
        elapsed_us: u64,
        out: &mut Vec<Effect>,
    ) {
        match self.calls.remove(&call) {
            Some(Call::Hello { address }) => {
                self.hello_answered(now, address, result, elapsed_us, out)
            }
            Some(Call::Greet { member }) => self.greet_answered(now, member, result, out),
            Some(Call::Ping { member }) => self.ping_answered(now, member, result, elapsed_us, out),
            Some(Call::Batch { member }) => self.batch_answered(now, call, member, result, out),
            Some(Call::Gossip { member }) => self.gossip_answered(now, member, result),
            Some(Call::Repair { member, asked }) => {
                self.repair_answered(now, call, (member, asked), result, out);
            }
            Some(Call::Goodbye) | None => {}
        }
    }

    /// Makes a call; the caller of this has noted what for.
    fn call(
        &mut self,
        purpose: Call,
        to: (SocketAddr, Option<Incarnation>),
        request: Request,
        timeout_ms: u64,
        out: &mut Vec<Effect>,
    ) -> CallId {
        let call = CallId(self.next_call);
        self.next_call += 1;
        self.calls.insert(call, purpose);
        let envelope = Envelope {
            cluster: self.identity.cluster_id,
            from: Some(self.config.info.incarnation),
            to: to.1,
            sent_ms: 0,
            timeout_ms,
            seen: 0,
            late_ms: 0,
        };
        let message = RequestMessage { envelope, request };
        out.push(Effect::Call { call, to: to.0, message, timeout_ms });
        call
    }
}

/// What a node says to writes before it has set its clock: it could not judge or stamp them.
fn unset() -> Response {
    Response::refused(RefusalCode::Overloaded, "the node has just started, and sets its clock")
}
