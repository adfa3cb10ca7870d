//! A virtual network: whole clusters in one thread, with frozen and dead nodes.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    format,
    string::String,
    sync::Arc,
    vec,
    vec::Vec,
};
use core::net::SocketAddr;

use bytes::Bytes;

use super::prelude::*;
use crate::{
    call::{CallFailure, CallResult},
    key::Key,
    limits::Limits,
    store::{Capacity, RETENTION_MS, SingleThread},
    ttl::Ttl,
    wire::{Ack, NodeInfo, ReplicatedRecord, Written, features},
};

pub(super) const WALL_MS: u64 = 1_800_000_000_000;

/// One-way delay between any two nodes, in milliseconds.
pub(super) const DELAY_MS: u64 = 3;

#[derive(Debug)]
enum Packet {
    Request { from: SocketAddr, call: CallId, message: Bytes },
    Response { call: CallId, sent_ms: u64, response: Bytes },
    Failure { call: CallId, failure: CallFailure },
    Datagram { from: SocketAddr, bytes: Bytes },
}

#[derive(Default)]
pub(super) struct Network {
    pub(super) now_ms: u64,
    pub(super) nodes: BTreeMap<SocketAddr, Node<SingleThread>>,
    pub(super) frozen: BTreeSet<SocketAddr>,
    /// Nodes that refuse every request, and how.
    pub(super) refusing: BTreeMap<SocketAddr, RefusalCode>,
    /// Nodes that refuse messages above this many bytes.
    pub(super) small: BTreeMap<SocketAddr, usize>,
    /// Features that nodes started from now on lack.
    pub(super) without: u64,
    /// Pairs `(from, to)` between which nothing passes in this direction.
    pub(super) cut: BTreeSet<(SocketAddr, SocketAddr)>,
    /// How many of a hundred datagrams are lost.
    pub(super) loss_percent: u64,
    /// How many of a hundred requests are answered too late or not at all.
    pub(super) call_loss_percent: u64,
    /// Nodes whose calls seem to come from another host, as behind a gateway that translates addresses.
    pub(super) translated: BTreeSet<SocketAddr>,
    /// Datagrams that were sent, lost ones included.
    pub(super) datagrams: u64,
    random: u64,
    queue: BTreeMap<(u64, u64), (SocketAddr, Packet)>,
    serial: u64,
    timeouts: BTreeMap<(SocketAddr, CallId), u64>,
    reply_to: BTreeMap<(SocketAddr, RequestId), (SocketAddr, CallId, u64)>,
    pub(super) answers: BTreeMap<RequestId, Response>,
    /// Handshakes, from where to where.
    pub(super) dials: Vec<(SocketAddr, SocketAddr)>,
    pub(super) batches: Vec<(SocketAddr, SocketAddr, Vec<ReplicatedRecord>)>,
    pub(super) events: Vec<(SocketAddr, Event)>,
    /// The capacity of stores of nodes started from now on, if not the usual one.
    pub(super) capacity: Option<Capacity>,
    /// The retention of nodes started from now on, if not the usual one.
    pub(super) retention_ms: Option<u64>,
    /// Whether nodes started from now on require TLS.
    pub(super) requires_tls: bool,
    /// Whether nodes started from now on have a snapshot.
    pub(super) has_snapshot: bool,
    /// How many nodes keep a value, as nodes are configured that start from now on; 0 for all.
    pub(super) replicas: u64,
    /// How often a snapshot was requested.
    pub(super) restores: usize,
    /// How far the clocks of nodes are ahead, in milliseconds.
    pub(super) ahead_ms: BTreeMap<SocketAddr, u64>,
    /// Bytes of messages sent so far.
    pub(super) bytes: u64,
    /// The bytes of the largest response so far.
    pub(super) largest_response: usize,
}

pub(super) fn address(n: u64) -> SocketAddr {
    format!("127.0.0.{n}:6789").parse().unwrap()
}

/// An address at which no node is.
pub(super) fn nowhere(n: u64) -> SocketAddr {
    format!("10.{}.{}.{}:6789", n >> 16 & 255, n >> 8 & 255, n & 255).parse().unwrap()
}

/// The connection on which the requests of a node come.
fn connection_of(from: SocketAddr) -> u64 {
    match from.ip() {
        core::net::IpAddr::V4(ip) => u64::from(ip.to_bits()) << 16 | u64::from(from.port()),
        core::net::IpAddr::V6(_) => panic!("nodes of tests have IPv4 addresses"),
    }
}

pub(super) fn key(name: &str) -> Key {
    Key::within(Bytes::copy_from_slice(name.as_bytes()), 1024).unwrap()
}

impl Network {
    pub(super) fn now(&self) -> Now {
        Now::new(self.now_ms, WALL_MS + self.now_ms)
    }

    fn now_at(&self, at: SocketAddr) -> Now {
        let ahead_ms = self.ahead_ms.get(&at).copied().unwrap_or(0);
        Now::new(self.now_ms, WALL_MS + self.now_ms + ahead_ms)
    }

    /// Cuts the link between two nodes, or joins it again.
    pub(super) fn set_link(&mut self, a: u64, b: u64, is_up: bool) {
        for link in [(address(a), address(b)), (address(b), address(a))] {
            if is_up {
                self.cut.remove(&link)
            } else {
                self.cut.insert(link)
            };
        }
    }

    pub(super) fn start_in(
        &mut self,
        cluster: &str,
        n: u64,
        incarnation: u64,
        region: &str,
        seeds: &[u64],
    ) {
        self.start_warming(cluster, n, incarnation, (region, 60_000), seeds);
        self.input(address(n), Input::DiscoveryComplete);
    }

    /// A node that is ready after `warm_max_ms`, and whose discovery has not answered yet.
    pub(super) fn start_unsettled(
        &mut self,
        n: u64,
        region: &str,
        seeds: &[u64],
        warm_max_ms: u64,
    ) {
        self.start_warming("test", n, n, (region, warm_max_ms), seeds);
    }

    fn start_warming(
        &mut self,
        cluster: &str,
        n: u64,
        incarnation: u64,
        (region, warm_max_ms): (&str, u64),
        seeds: &[u64],
    ) {
        let info = NodeInfo {
            incarnation: Incarnation(incarnation),
            region: region.into(),
            zone: None,
            addresses: vec![address(n)],
            state: NodeState::Warming,
            bytes_max: 1 << 20,
            name: (self.replicas > 0).then(|| format!("n{n}")),
            replicas: crate::cluster::Replicas::from_number(self.replicas),
        };
        let config = NodeConfig {
            cluster: cluster.into(),
            info,
            limits: Limits::default(),
            warm_max_ms,
            outbox_bytes_max: 1 << 20,
            changes_every_ms: NodeConfig::CHANGES_EVERY_MS,
            hot_forwards_per_s: NodeConfig::HOT_FORWARDS_PER_S,
            features: features::ALL & !self.without,
            requires_tls: self.requires_tls,
            has_snapshot: self.has_snapshot,
            secret: [n as u8; 32],
        };
        let usual = Capacity { entries_max: 10_000, bytes_max: 1 << 20 };
        let store = Store::new(self.capacity.unwrap_or(usual))
            .with_retention(self.retention_ms.unwrap_or(RETENTION_MS));
        #[expect(clippy::arc_with_non_send_sync, reason = "one thread; the server shares it")]
        let node = Node::new(config, Arc::new(store), self.now_at(address(n)));
        self.nodes.insert(address(n), node);
        let seeds = seeds.iter().map(|seed| address(*seed)).collect();
        self.input(address(n), Input::AddressesProposed { addresses: seeds, are_configured: true });
    }

    pub(super) fn start(&mut self, n: u64, region: &str, seeds: &[u64]) {
        self.start_in("test", n, n, region, seeds);
    }

    /// Three regions of two nodes, all found through node 1.
    pub(super) fn six() -> Self {
        Self::default().with_six()
    }

    /// The same nodes in this network.
    pub(super) fn with_six(self) -> Self {
        let mut network = self;
        for (n, region) in [(1, "a"), (2, "a"), (3, "b"), (4, "b"), (5, "c"), (6, "c")] {
            network.start(n, region, &[1]);
        }
        network.run(3_000);
        network
    }

    pub(super) fn input(&mut self, at: SocketAddr, input: Input) {
        self.inputs(at, [input]);
    }

    /// Inputs that come together.
    pub(super) fn inputs(&mut self, at: SocketAddr, inputs: impl IntoIterator<Item = Input>) {
        let now = self.now_at(at);
        let Some(node) = self.nodes.get_mut(&at) else {
            return;
        };
        let mut out = Vec::new();
        node.handle_all(now, inputs, &mut out);
        for effect in out {
            self.perform(at, effect);
        }
    }

    fn perform(&mut self, at: SocketAddr, effect: Effect) {
        match effect {
            Effect::Call { call, to, message, timeout_ms } => {
                if let Request::Replicate(batch) = &message.request {
                    self.batches.push((at, to, batch.clone()));
                }
                if let Request::Hello(_) = &message.request {
                    self.dials.push((at, to));
                }
                if let Request::Adopt(keys) = &message.request {
                    assert!(!keys.is_empty());
                }
                self.timeouts.insert((at, call), self.now_ms + timeout_ms);
                let message = message.encode(self.now().mono);
                self.bytes += message.len() as u64;
                if self.cut.contains(&(at, to)) || self.is_lost(self.call_loss_percent) {
                    return;
                }
                let packet = if self.nodes.contains_key(&to) {
                    (to, Packet::Request { from: at, call, message })
                } else {
                    (at, Packet::Failure { call, failure: CallFailure::Refused })
                };
                self.post(packet);
            }
            Effect::Respond { id, response } => match self.reply_to.remove(&(at, id)) {
                Some((to, _, _)) if self.cut.contains(&(at, to)) => {}
                Some((to, call, sent_ms)) => {
                    let response = response.encode();
                    self.bytes += response.len() as u64;
                    self.largest_response = self.largest_response.max(response.len());
                    self.post((to, Packet::Response { call, sent_ms, response }));
                }
                None => {
                    let earlier = self.answers.insert(id, response);
                    assert!(earlier.is_none(), "two answers to {id:?}");
                }
            },
            Effect::Datagram { to, bytes } => {
                self.datagrams += 1;
                let lost = self.is_lost(self.loss_percent) || self.cut.contains(&(at, to));
                if !lost && self.nodes.contains_key(&to) {
                    self.post((to, Packet::Datagram { from: at, bytes }));
                }
            }
            Effect::Event(event) => self.events.push((at, event)),
            Effect::Restore => self.restores += 1,
            Effect::Load { .. } => panic!("these nodes have no disk"),
            Effect::State(_) => {}
        }
    }

    /// Draws whether a message is lost.
    fn is_lost(&mut self, percent: u64) -> bool {
        // The multiplier of Knuth's MMIX; the high bits are random enough for a test.
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.random >> 33) % 100 < percent
    }

    fn post(&mut self, packet: (SocketAddr, Packet)) {
        self.serial += 1;
        self.queue.insert((self.now_ms + DELAY_MS, self.serial), packet);
    }

    /// Runs until `done`, and says how long that took in milliseconds.
    pub(super) fn run_until(&mut self, most_ms: u64, done: impl Fn(&Self) -> bool) -> u64 {
        let start = self.now_ms;
        while !done(self) {
            assert!(self.now_ms - start < most_ms, "not within {most_ms} ms");
            self.run(1);
        }
        self.now_ms - start
    }

    /// How often each node said that the other was silent, and that it answered.
    pub(super) fn changes(&self, from: u64, to: u64) -> (usize, usize) {
        let mine = self.events.iter().filter(|(at, _)| *at == address(from));
        mine.fold((0, 0), |(downs, ups), (_, event)| match event {
            Event::MemberDown(_, at) if *at == address(to) => (downs + 1, ups),
            Event::MemberUp(_, at) if *at == address(to) => (downs, ups + 1),
            _ => (downs, ups),
        })
    }

    pub(super) fn run(&mut self, ms: u64) {
        let end = self.now_ms + ms;
        while self.now_ms < end {
            self.now_ms += 1;
            let later = self.queue.split_off(&(self.now_ms + 1, 0));
            for ((_, serial), (to, packet)) in core::mem::replace(&mut self.queue, later) {
                if self.frozen.contains(&to) {
                    // A frozen process gets what arrived once it resumes.
                    self.queue.insert((self.now_ms + 1, serial), (to, packet));
                } else {
                    self.deliver(to, packet);
                }
            }
            let overdue: Vec<_> = self
                .timeouts
                .iter()
                .filter(|(_, at)| **at <= self.now_ms)
                .map(|(k, _)| *k)
                .collect();
            for (at, call) in overdue {
                self.end_call(at, call, Err(CallFailure::NoAnswer), 0);
            }
            let due = |(at, node): (&SocketAddr, &Node<SingleThread>)| {
                (node.next_deadline().as_millis() <= self.now_ms && !self.frozen.contains(at))
                    .then_some(*at)
            };
            for at in self.nodes.iter().filter_map(due).collect::<Vec<_>>() {
                self.input(at, Input::Tick);
            }
        }
    }

    fn deliver(&mut self, to: SocketAddr, packet: Packet) {
        match packet {
            Packet::Request { from, call, message } => {
                let too_large = self.small.get(&to).is_some_and(|most| message.len() > *most);
                let refusal = self.refusing.get(&to).copied();
                if let Some(code) = refusal.or(too_large.then_some(RefusalCode::TooLarge)) {
                    let response = Response::refused(code, "on purpose").encode();
                    let sent_ms = self.now_ms - DELAY_MS;
                    return self.post((from, Packet::Response { call, sent_ms, response }));
                }
                let Ok(message) = RequestMessage::decode(message, self.now().mono) else {
                    panic!("undecodable request");
                };
                self.serial += 1;
                let id = RequestId(1 << 40 | self.serial);
                self.reply_to.insert((to, id), (from, call, self.now_ms - DELAY_MS));
                let connection = ConnectionId(connection_of(from));
                let gateway = nowhere(0).ip();
                let ip = if self.translated.contains(&from) { gateway } else { from.ip() };
                let caller = Caller::unauthenticated(Some(ip));
                self.input(to, Input::Request { id, connection, caller, message });
            }
            Packet::Response { call, sent_ms, response } => {
                let elapsed_us = (self.now_ms - sent_ms) * 1_000;
                self.end_call(to, call, Ok(Response::decode(response).unwrap()), elapsed_us);
            }
            Packet::Datagram { from, bytes } => self.input(to, Input::Datagram { from, bytes }),
            Packet::Failure { call, failure } => self.end_call(to, call, Err(failure), 0),
        }
    }

    fn end_call(&mut self, at: SocketAddr, call: CallId, result: CallResult, elapsed_us: u64) {
        if self.timeouts.remove(&(at, call)).is_some() {
            self.input(at, Input::CallCompleted { call, result, elapsed_us });
        }
    }

    pub(super) fn write(&mut self, n: u64, name: &str, op: WriteOp, ack: Ack) -> RequestId {
        self.serial += 1;
        let id = RequestId(self.serial);
        let write = Write { ack, ..Write::new(key(name), op) };
        self.input(address(n), Input::Write { id, write });
        id
    }

    /// Sends a request to a node, as a client.
    pub(super) fn ask(&mut self, n: u64, request: Request) -> RequestId {
        let (id, input) = self.request(request);
        self.input(address(n), input);
        id
    }

    /// A client's request.
    pub(super) fn request(&mut self, request: Request) -> (RequestId, Input) {
        self.serial += 1;
        let id = RequestId(self.serial);
        let cluster = crate::wire::cluster_id("test");
        let envelope = Envelope { cluster, ..Envelope::default() };
        let message = RequestMessage { envelope, request };
        (
            id,
            Input::Request {
                id,
                connection: ConnectionId(0),
                caller: Caller::unauthenticated(None),
                message,
            },
        )
    }

    pub(super) fn put(&mut self, n: u64, name: &str, value: &str, ack: Ack) -> RequestId {
        let value = Bytes::copy_from_slice(value.as_bytes());
        let ttl = Ttl::from_secs(60).unwrap();
        self.write(n, name, WriteOp::Put { value, metadata: Bytes::new(), ttl }, ack)
    }

    pub(super) fn written(&self, id: RequestId) -> Option<Written> {
        match self.answers.get(&id) {
            Some(Response::Written(written)) => Some(*written),
            Some(other) => panic!("{other:?}"),
            None => None,
        }
    }

    /// The value and expiry that each live node holds.
    pub(super) fn held(&self, name: &str) -> Vec<Option<(String, u64)>> {
        let one = |node: &Node<SingleThread>| {
            let entry = node.replica.store.peek(&key(name), self.now()).hit()?;
            Some((String::from_utf8(entry.value.to_vec()).unwrap(), entry.expires.as_millis()))
        };
        self.nodes.values().map(one).collect()
    }

    pub(super) fn values(&self, name: &str) -> Vec<Option<String>> {
        self.held(name).into_iter().map(|held| held.map(|(value, _)| value)).collect()
    }

    pub(super) fn members(&self, n: u64) -> Vec<u64> {
        let writable =
            self.nodes[&address(n)].membership.view.members().filter(|m| m.takes_writes());
        writable.map(|m| m.info.incarnation.0).collect()
    }
}
