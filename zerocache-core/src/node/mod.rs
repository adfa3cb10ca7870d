//! A node as a state machine: `handle(now, input) -> effects` and `next_deadline()`.
//!
//! It owns membership, the stamping of writes, fan-out and acknowledgement. Reads need none of that
//! and go to the shared [`Store`] directly; [`read`] is what both do.
//!
//! Invariants: an input is handled without waiting; every call made is answered by exactly one
//! `Input::CallCompleted`; every request gets exactly one `Effect::Respond`; all queues are bounded.

mod changes;
mod clocks;
mod cost;
mod fanout;
mod feed;
mod heartbeat;
mod io;
mod leases;
mod membership;
mod outbox;
mod reads;
mod receive;
mod repair;
mod shares;
mod snapshot;
#[cfg(test)]
mod tests;
mod watchers;
mod writes;

use alloc::{boxed::Box, collections::BTreeMap, sync::Arc, vec::Vec};
use core::net::SocketAddr;

use bytes::Bytes;

pub use self::io::{CallId, ConnectionId, Effect, Event, Input, NodeConfig, RequestId};
use self::{
    clocks::Clocks,
    feed::Feed,
    heartbeat::Heartbeats,
    leases::Leases,
    membership::{Acquaintances, Greeters},
    outbox::Outbox,
    repair::{Asked, Repair},
    watchers::Watchers,
    writes::Writes,
};
pub use self::{
    cost::Cost,
    feed::FeedCounts,
    heartbeat::DatagramCounts,
    leases::LeaseCounts,
    reads::{Identity, ReadPolicy, miss_response, read},
    repair::{PersistedState, RepairCounts},
    shares::RefusalCounts,
    snapshot::{ClusterStatus, NodeStatus, RegionStatus},
    writes::{Write, WriteOp, WriteScope},
};
use crate::{
    call::CallResult,
    clock::{HybridClock, LEAD_MS_MAX},
    cluster::{AddressSource, Ranking, View},
    store::{Backend, Store},
    time::{Instant, Now},
    version::{Incarnation, Version},
    wire::{
        CONTENT_BYTES_MAX, Envelope, NodeState, RefusalCode, Request, RequestMessage, Response,
    },
};

/// Most expired entries and old traces that one tick drops: half a millisecond at the worst. While there
/// are more, the next tick is due at once, and what waits for the node comes between.
const SWEEP_MAX: usize = 128;

/// A node that did nothing for longer, in milliseconds, was stopped: it ticks much more often.
pub const PAUSE_MS_MAX: u64 = 2_000;

/// How often expired entries are swept, in milliseconds.
const SWEEP_EVERY_MS: u64 = 250;

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
pub struct Node<B: Backend> {
    config: NodeConfig,
    identity: Identity,
    state: NodeState,
    started: Instant,
    settled: bool,
    /// When it began to warm, for the last time.
    warm_since: Instant,
    /// When it last did anything.
    awake: Instant,
    misses_are_authoritative: bool,
    /// It was suspended, and lacks what it missed since: values that it has may have been deleted.
    resumes: bool,
    clock: HybridClock,
    clocks: Clocks,
    repair: Repair,
    store: Arc<Store<B>>,
    view: View,
    ranking: Ranking,
    greeters: Greeters,
    refused: RefusalCounts,
    heartbeats: Heartbeats,
    known: Acquaintances,
    watchers: Watchers,
    leases: Leases,
    feed: Feed,
    outboxes: BTreeMap<Incarnation, Outbox>,
    /// Peers for whom something was queued since the last flush.
    filled: Vec<Incarnation>,
    writes: Writes,
    calls: BTreeMap<CallId, Call>,
    next_call: u64,
    next_sweep: Instant,
    /// When something is due beside sweep and queues, and when something in these is.
    wake: Instant,
    flush_at: Option<Instant>,
}

impl<B: Backend> Node<B> {
    /// A node that starts at `now` and keeps its entries in `store`.
    pub fn new(config: NodeConfig, store: Arc<Store<B>>, now: Now) -> Self {
        Self {
            identity: Identity::new(&config.cluster, config.info.incarnation),
            state: NodeState::Warming,
            started: now.mono,
            settled: false,
            warm_since: now.mono,
            awake: now.mono,
            misses_are_authoritative: false,
            resumes: false,
            clocks: Clocks::new(now.mono),
            repair: Repair::new(config.info.incarnation, now.mono),
            clock: HybridClock::new(config.info.incarnation),
            store,
            view: View::default(),
            ranking: Ranking::default(),
            greeters: Greeters::default(),
            refused: RefusalCounts::default(),
            heartbeats: Heartbeats::new(now.mono),
            known: Acquaintances::new(config.info.clone(), now.mono),
            watchers: Watchers::default(),
            leases: Leases::default(),
            feed: Feed::new(now),
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
        let read = now;
        let now = self.clocks.adjust(read);
        let gap_ms = now.mono.since_ms(core::mem::replace(&mut self.awake, now.mono));
        if gap_ms > PAUSE_MS_MAX {
            self.thawed(now, gap_ms, out);
        }
        for input in inputs {
            // An input may move the clock.
            self.take_in(self.clocks.adjust(read), input, out);
        }
        self.search(out);
        let now = self.clocks.adjust(read);
        self.settle_leases(now, out);
        self.flush_filled(now, out);
        let now = self.update_state(now, out);
        self.answer_watchers(now, out);
        self.answer_followers(now, out);
    }

    fn take_in(&mut self, now: Now, input: Input, out: &mut Vec<Effect>) {
        match input {
            Input::Write { id, write } => self.write(now, id, write, out),
            Input::Request { id, connection, message } => {
                self.request(now, (id, connection), message, out);
            }
            Input::ConnectionClosed(connection) => {
                self.end_searches(connection, out);
                self.closed(now, connection, out);
            }
            Input::CallCompleted { call, result, elapsed_us } => {
                self.answer(now, call, result, elapsed_us, out);
            }
            Input::Datagram { from, bytes } => self.datagram(now, from, &bytes, out),
            Input::AddressesProposed(addresses) => {
                for address in addresses {
                    // Known nodes that are no contacts are not dialled each time a name resolves.
                    if !self.known.is_no_contact(&self.config.info, address) {
                        self.view.propose(address, AddressSource::Discovery, now.mono);
                    }
                }
                self.wake = now.mono;
            }
            Input::AddressesChanged(addresses) => self.readdressed(now, addresses, out),
            Input::NodeWithdrawn(id) => self.verify(now, Some(id)),
            Input::DiscoveryComplete => {
                self.settled = true;
                self.wake = now.mono;
            }
            Input::RestoredItems(known) => {
                for known in known {
                    let is_taken = self.adopt(now, known);
                    self.repair.is_restored_in_part |= !is_taken;
                }
            }
            Input::RestoreComplete(memory) => self.restored(now, memory),
            Input::Tick => self.tick(now, out),
            Input::Shutdown => self.leave(now, out),
        }
    }

    /// When [`Input::Tick`] is due next.
    #[must_use]
    pub fn next_deadline(&self) -> Instant {
        if !self.repair.searches.is_empty() {
            return self.awake;
        }
        let wake = self.wake.min(self.next_sweep);
        self.flush_at.map_or(wake, |at| at.min(wake))
    }

    /// The node's own readiness.
    #[must_use]
    pub fn state(&self) -> NodeState {
        self.state
    }

    /// Whether a miss here means that no local peer has the key either.
    #[must_use]
    pub fn misses_are_authoritative(&self) -> bool {
        self.misses_are_authoritative
    }

    /// What reads of the store may be answered with; for readers that do not go through the node.
    #[must_use]
    pub fn read_policy(&self) -> ReadPolicy {
        ReadPolicy {
            misses_are_authoritative: self.misses_are_authoritative,
            values_are_current: !self.resumes,
        }
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
        if self.next_sweep <= now.mono {
            let is_all = self.store.sweep(now, SWEEP_MAX) < SWEEP_MAX;
            self.next_sweep = if is_all { now.mono.plus_ms(SWEEP_EVERY_MS) } else { now.mono };
        }
        if self.wake > now.mono {
            return;
        }
        self.wake = now.mono.plus_ms(SWEEP_EVERY_MS);
        self.tick_membership(now, out);
        let now = self.check_clock(now, out);
        self.tick_repair(now, out);
        self.judge_misses(now);
        let store = &self.store;
        for (id, response) in self.writes.take_overdue(now.mono, |key| store.version(key)) {
            out.push(Effect::Respond { id, response });
        }
        self.wake_by(self.writes.next_deadline());
        self.wake_by(self.watchers_due());
        self.wake_by(self.leases.next_due());
        self.wake_by(self.feed_due());
        self.wake_by(self.view.candidates().next_dial());
    }

    fn wake_by(&mut self, at: Option<Instant>) {
        if let Some(at) = at {
            self.wake = self.wake.min(at);
        }
    }

    fn request(
        &mut self,
        now: Now,
        (id, connection): (RequestId, ConnectionId),
        message: RequestMessage,
        out: &mut Vec<Effect>,
    ) {
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
        let message = RequestMessage { envelope, request };
        self.serve(now, (id, connection), message, timeout_ms, out);
    }

    /// Carries out a request that is meant for this node and whose deadline has not passed.
    fn serve(
        &mut self,
        now: Now,
        (id, connection): (RequestId, ConnectionId),
        message: RequestMessage,
        timeout_ms: u64,
        out: &mut Vec<Effect>,
    ) {
        let RequestMessage { envelope, request } = message;
        let Envelope { from, seen, delay_ms, .. } = envelope;
        if !matches!(request, Request::Put { .. } | Request::Delete { .. }) {
            self.note_seen(now, Version::new(seen, Incarnation(0)));
        }
        let response = match request {
            Request::Put { key, value, metadata, ttl, ack, token } => {
                let op = WriteOp::Put { value, metadata, ttl };
                let write = Write { ack, seen, timeout_ms, delay_ms, token, ..Write::new(key, op) };
                return self.write(now, id, write, out);
            }
            Request::Delete { key, ack } => {
                let write = Write::new(key, WriteOp::Delete);
                let write = Write { ack, seen, timeout_ms, delay_ms, ..write };
                return self.write(now, id, write, out);
            }
            Request::Get { key } => read(&self.store, &key, now, self.read_policy()),
            Request::Hello(hello) => self.greeted(now, *hello, connection, out),
            Request::Ping => self.pong(now),
            Request::Watch { view } => {
                return self.watch(now, (id, connection), view, timeout_ms, out);
            }
            Request::Lease { key, lease_ms: life_ms, wait_ms, newer_than: over } => {
                let wait_ms = wait_ms.saturating_sub(delay_ms);
                let ask = leases::Ask { id, connection, key, life_ms, wait_ms, timeout_ms, over };
                return self.lease(now, ask, out);
            }
            Request::Release { key, token, failed } => {
                self.release(now, (&key, token), failed, out)
            }
            Request::Follow { since } => {
                return self.follow(now, (id, connection), since, timeout_ms, out);
            }
            Request::Goodbye => {
                self.verify(now, from);
                Response::Done
            }
            Request::Gossip(said) => Response::Gossip(match from {
                Some(from) => self.asked_by_gossip(now, from, &said, CONTENT_BYTES_MAX),
                None => Bytes::new(),
            }),
            Request::Replicate(_) if !self.clocks.is_set() => unset(),
            Request::Replicate(batch) => self.receive(now, batch, out),
            Request::Digests { window, resolution, last_sync_ms: had_ms } => {
                self.serve_digests(now, (window, resolution), (from, had_ms))
            }
            Request::BucketVersions(cells) => {
                return self.rows_wanted((id, connection), cells, out);
            }
            Request::KeyVersions(keys) => self.serve_versions(&keys),
            Request::Fetch(keys) => self.serve_fetch(now, &keys),
            Request::Copy { first_shard, last_shard, range } => {
                self.serve_copy(now, from, (first_shard, last_shard), range)
            }
        };
        out.push(Effect::Respond { id, response });
    }

    /// Raises the node's clock above a version that a caller has seen. Returns false, and counts it, if no
    /// node with a correct clock can have assigned the version yet.
    fn note_seen(&mut self, now: Now, version: Version) -> bool {
        let limit_ms = now.wall_ms.saturating_add(LEAD_MS_MAX);
        let is_likely = version.wall_ms() <= limit_ms || version <= self.clock.last();
        let is_noted = is_likely && self.clock.observe(version, now.wall_ms).is_ok();
        self.refused.future_versions += u64::from(!is_noted);
        is_noted
    }

    fn answer(
        &mut self,
        now: Now,
        call: CallId,
        result: CallResult,
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
            delay_ms: 0,
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
