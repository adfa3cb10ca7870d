//! A node with a small store, driven by a script of messages, answers and time.
//!
//! A script repeats `operation (1) ‖ length (2) ‖ bytes`. [`Driver::step`] documents the bytes of
//! each operation.

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc};

use bytes::Bytes;
use zerocache_core::{
    call::CallFailure,
    limits::Limits,
    node::{CallId, Caller, ConnectionId, Effect, Input, Node, NodeConfig, RequestId},
    store::{Capacity, SingleThread, Store},
    time::Now,
    ttl::Ttl,
    version::Incarnation,
    wire::{
        Ack, DATAGRAM_BYTES_MAX, Datagram, DatagramKind, NodeInfo, NodeState, Request,
        RequestMessage, Response, Session, cluster_id, features,
    },
};

use crate::wire::{check_request, check_response};

/// The cluster of the node.
const CLUSTER: &str = "fuzz";

/// The secret from which the node derives the keys of datagrams.
const SECRET: [u8; 32] = [7; 32];

/// Few and small, so that a short script reaches the bounds.
const CAPACITY: Capacity = Capacity { entries_max: 6, bytes_max: 64 * 1024 };
const OUTBOX_BYTES_MAX: usize = 2 * 1024;
const VALUE_BYTES_MAX: usize = 1024;
const KEY_BYTES_MAX: usize = 32;

/// Most operations of one script.
const STEPS_MAX: usize = 128;

/// Most ticks at one moment: what a tick finds out can give the next one something to do.
const TICKS_MAX: usize = 4;

/// The time at which the script begins.
const WALL_MS: u64 = 1_800_000_000_000;

/// After this long without any answer from outside, every write is answered: a silent peer is out
/// after 2.5 s, a batch is retried a few times with pauses below 5 s. Who wants a lease waits for
/// at most 60 s. In milliseconds.
const ANSWERED_WITHIN_MS: u64 = 70_000;

/// Runs a script. Every request is answered exactly once, the store stays within its bounds, and
/// every message of the node can be decoded.
pub fn node(data: &[u8]) {
    let mut driver = Driver::new();
    let mut rest = data;
    for _ in 0..STEPS_MAX {
        let Some(([operation, high, low], more)) = rest.split_first_chunk::<3>() else { break };
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(more.len());
        let (bytes, more) = more.split_at(length);
        driver.step(*operation, bytes);
        rest = more;
    }
    driver.finish();
}

struct Driver {
    node: Node<SingleThread>,
    store: Arc<Store<SingleThread>>,
    elapsed_ms: u64,
    requests: u64,
    connection: ConnectionId,
    /// Requests without a response.
    awaited: BTreeSet<RequestId>,
    /// Calls without an end.
    calls: BTreeSet<CallId>,
    calls_seen: BTreeSet<CallId>,
}

impl Driver {
    fn new() -> Self {
        let config = NodeConfig {
            cluster: CLUSTER.into(),
            info: NodeInfo {
                incarnation: Incarnation(1),
                region: "a".into(),
                zone: None,
                addresses: vec![SocketAddr::from(([127, 0, 0, 1], 1))],
                state: NodeState::Warming,
                bytes_max: CAPACITY.bytes_max,
                name: None,
                replicas: zerocache_core::cluster::Replicas::All,
            },
            limits: Limits { key_bytes_max: KEY_BYTES_MAX, value_bytes_max: VALUE_BYTES_MAX },
            warm_max_ms: 5_000,
            outbox_bytes_max: OUTBOX_BYTES_MAX,
            changes_every_ms: NodeConfig::CHANGES_EVERY_MS,
            hot_forwards_per_s: NodeConfig::HOT_FORWARDS_PER_S,
            features: features::ALL,
            requires_tls: false,
            has_snapshot: false,
            secret: SECRET,
        };
        #[expect(clippy::arc_with_non_send_sync, reason = "one thread; a server shares it")]
        let store = Arc::new(Store::new(CAPACITY));
        Self {
            node: Node::new(config, Arc::clone(&store), Now::new(1, WALL_MS)),
            store,
            elapsed_ms: 1,
            requests: 0,
            connection: ConnectionId(0),
            awaited: BTreeSet::new(),
            calls: BTreeSet::new(),
            calls_seen: BTreeSet::new(),
        }
    }

    fn now(&self) -> Now {
        Now::new(self.elapsed_ms, WALL_MS + self.elapsed_ms)
    }

    fn step(&mut self, operation: u8, bytes: &[u8]) {
        let first = bytes.first().copied().unwrap_or(0);
        match operation {
            // A datagram as it is.
            255 => return self.datagram(Bytes::copy_from_slice(bytes)),
            // A heartbeat of a node to which this one gave a key, with this content.
            254 => {
                let caller = Incarnation(u64::from(first));
                let beat = Datagram {
                    from: caller,
                    to: Incarnation(1),
                    kind: DatagramKind::Heartbeat,
                    generation: None,
                    sequence: self.elapsed_ms,
                    time_ms: self.elapsed_ms,
                    content: Bytes::copy_from_slice(bytes.get(1..).unwrap_or(&[])),
                };
                return self.datagram(beat.seal(&Session::derive(&SECRET, caller, None).key));
            }
            // The connection ends on which requests came so far, and another one begins.
            253 => {
                self.handle(Input::ConnectionClosed(self.connection));
                return self.connection = ConnectionId(self.connection.0 + 1);
            }
            _ => {}
        }
        match operation % 8 {
            // A request as it is.
            0 => self.request(bytes, false),
            // A request addressed to this node, whatever address its bytes contain.
            1 => self.request(bytes, true),
            // A response to the oldest call, or to the newest; what is none counts as no answer.
            2 => self.answer(self.calls.first().copied(), response(bytes)),
            3 => self.answer(self.calls.last().copied(), response(bytes)),
            // The oldest call fails.
            4 => self.answer(self.calls.first().copied(), Err(failure(first))),
            // Time passes, up to a quarter of an hour at once.
            5 => self.pass(u64::from(first) * u64::from(first) * 14),
            // Discovery finds addresses.
            6 => {
                let proposed = bytes.iter().take(32);
                let proposed = proposed.map(|n| SocketAddr::from(([127, 0, 0, *n], 1)));
                self.handle(Input::AddressesProposed {
                    addresses: proposed.collect(),
                    are_configured: first % 2 == 0,
                });
            }
            _ => self.handle(match first {
                0 => Input::DiscoveryComplete,
                1 => Input::Shutdown,
                id => Input::NodeWithdrawn(Incarnation(u64::from(id))),
            }),
        }
    }

    fn datagram(&mut self, bytes: Bytes) {
        let from = SocketAddr::from(([127, 0, 0, 2], 1));
        self.handle(Input::Datagram { from, bytes });
    }

    fn request(&mut self, bytes: &[u8], meant: bool) {
        let decoded = RequestMessage::decode(Bytes::copy_from_slice(bytes), self.now().mono);
        let Ok(mut message) = decoded else { return };
        if meant {
            message.envelope.cluster = cluster_id(CLUSTER);
            message.envelope.to = None;
        }
        let waits = matches!(
            message.request,
            Request::Put { ack: Ack::Region | Ack::All, .. }
                | Request::Delete { ack: Ack::Region | Ack::All, .. }
                | Request::Conditional(_)
                | Request::Watch { .. }
                | Request::Lease { .. }
                | Request::Follow { .. }
                | Request::Listen { .. }
        );
        let id = RequestId(self.requests);
        self.requests += 1;
        self.awaited.insert(id);
        self.handle(Input::Request {
            id,
            connection: self.connection,
            caller: Caller::unauthenticated(None),
            message,
        });
        assert!(waits || !self.awaited.contains(&id), "a request waits without a reason");
    }

    fn answer(&mut self, call: Option<CallId>, result: Result<Response, CallFailure>) {
        if let Some(call) = call {
            self.calls.remove(&call);
            self.handle(Input::CallCompleted { call, result, elapsed_us: 1_000 });
        }
    }

    fn pass(&mut self, ms: u64) {
        self.elapsed_ms += ms;
        for _ in 0..TICKS_MAX {
            if self.node.next_deadline() > self.now().mono {
                return;
            }
            self.handle(Input::Tick);
        }
        let deadline = self.node.next_deadline();
        assert!(deadline > self.now().mono, "a node that is never done at one moment");
    }

    /// Hands an input to the node and judges what comes of it.
    fn handle(&mut self, input: Input) {
        let (now, mut effects) = (self.now(), Vec::new());
        self.node.handle(now, input, &mut effects);
        for effect in effects {
            match effect {
                Effect::Respond { id, response } => {
                    assert!(self.awaited.remove(&id), "{id:?} is answered, but nobody waits");
                    check_response(&response);
                    if let Response::Found { remaining_ms, .. } = response {
                        assert!((1..=Ttl::MAX.as_millis()).contains(&remaining_ms), "a dead entry");
                    }
                }
                Effect::Call { call, message, .. } => {
                    assert!(self.calls_seen.insert(call), "{call:?} is made twice");
                    self.calls.insert(call);
                    check_request(&message, now.mono);
                }
                Effect::Datagram { bytes, .. } => {
                    assert!(bytes.len() <= DATAGRAM_BYTES_MAX, "a datagram too large");
                }
                Effect::Restore | Effect::Load { .. } | Effect::State(_) | Effect::Event(_) => {}
            }
        }
        let stats = self.store.stats();
        assert!(stats.entries <= CAPACITY.entries_max, "too many entries: {stats:?}");
        assert!(stats.bytes <= CAPACITY.bytes_max, "too many bytes: {stats:?}");
    }

    /// No peer answers from here on; every pending request must be answered in time.
    fn finish(mut self) {
        let end_ms = self.elapsed_ms + ANSWERED_WITHIN_MS;
        while !self.awaited.is_empty() {
            assert!(self.elapsed_ms < end_ms, "{:?} are never answered", self.awaited);
            while let Some(call) = self.calls.pop_first() {
                self.handle(failed(call));
            }
            let next_ms = self.node.next_deadline().since_ms(self.now().mono);
            self.pass(next_ms.clamp(1, 1_000));
        }
    }
}

fn failed(call: CallId) -> Input {
    Input::CallCompleted { call, result: Err(CallFailure::NoAnswer), elapsed_us: 0 }
}

fn response(bytes: &[u8]) -> Result<Response, CallFailure> {
    Response::decode(Bytes::copy_from_slice(bytes)).map_err(|_| CallFailure::NoAnswer)
}

fn failure(n: u8) -> CallFailure {
    match n % 3 {
        0 => CallFailure::Refused,
        1 => CallFailure::NotSent,
        _ => CallFailure::NoAnswer,
    }
}
