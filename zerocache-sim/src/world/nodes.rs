//! Nodes: what the server does around the core. Reads are answered straight from the store, all
//! else goes through the state machine; its effects become messages and timers.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use zerocache_core::{
    call::CallFailure,
    cluster::Replicas,
    limits::Limits,
    node::{
        CallId, Caller, ConnectionId, Effect, Input, Node, NodeConfig, PAUSE_MS_MAX, ReadPolicy,
        RequestId,
    },
    store::{Capacity, SingleThread, Store},
    time::Instant,
    version::{Incarnation, Version},
    wire::{Envelope, NodeInfo, NodeState, RefusalCode, Request, RequestMessage, Response},
};
use zerocache_net::transport::framed::Incoming;

use super::{
    CallToken, Event, World,
    acks::PendingWrite,
    conditions::PendingCondition,
    connection::Latency,
    dial::{CLUSTER, region_name},
    disk::{HostDisk, Tier},
    events::{repair_request, restamps},
    leases::LeaseTable,
    replication::{Cause, PendingReplication},
    tampering::TamperedCalls,
    trace,
};
use crate::{checker::StoredValue, workload};

/// The interval at which discovery proposes the same addresses again, in microseconds.
const DISCOVER_EVERY_US: u64 = 5_000_000;

/// The longest time until discovery first completes, in microseconds.
const DISCOVERY_US_MAX: u64 = 1_000_000;

/// After this long a node counts as in sync in any case, in milliseconds.
const WARM_MAX_MS: u64 = 60_000;

/// The time until persisted state is read, in microseconds.
const RESTORE_US: u64 = 20_000;

/// The least time between two ticks, in microseconds.
const TICK_US_MIN: u64 = 50;

/// The process of a node.
pub(super) struct Process {
    pub(super) node: Node<SingleThread>,
    pub(super) store: Arc<Store<SingleThread>>,
    pub(super) incarnation: Incarnation,
    /// Under which names it gave versions.
    pub(super) writers: Vec<Incarnation>,
    /// The time of its next tick.
    tick_us: u64,
    /// The destinations of responses.
    pub(super) replies: BTreeMap<RequestId, Reply>,
    pub(super) leasing: LeaseTable,
    /// Versions of writes that it took with the token of another node.
    pub(super) filled: BTreeSet<Version>,
    next_request: u64,
    /// The time at which its shutdown began.
    pub(super) shutdown_us: Option<u64>,
    /// The time at which it last handled an input.
    pub(super) handled_at: Instant,
    /// Since when it has been in sync.
    pub(super) in_sync_us: Option<u64>,
    /// Conditional writes that are not answered.
    pub(super) conditions: BTreeMap<RequestId, PendingCondition>,
    /// Writes that are not answered.
    pub(super) writes: BTreeMap<RequestId, PendingWrite>,
    /// The keys of the inputs that it is about to handle, and its versions of them before.
    pub(super) touched: Vec<(usize, Cause)>,
    pub(super) before: BTreeMap<usize, Option<Version>>,
    /// Accepted writes that it has to send to others.
    pub(super) pending: Vec<PendingReplication>,
    /// The calls whose answers a variant changes.
    pub(super) tampered: TamperedCalls,
    /// What it has of a disk.
    pub(super) disk: Option<Tier>,
    /// How many entries it had dropped as an outdated node when that was last looked at, and when that had changed.
    pub(super) dropped: (u64, u64),
}

/// The destination of a response.
#[derive(Debug)]
pub(super) enum Reply {
    /// Onto a connection; of a read, with its key.
    Framed { connection: usize, id: u32, key: Option<usize>, is_passed_on: bool },
    /// To whoever asked from within the process.
    Internal(Option<Response>),
}

impl World {
    /// Starts the process of a node.
    pub(super) fn start(&mut self, host: u32) {
        let index = host as usize;
        if self.nodes[index].is_some() {
            return;
        }
        let plan = self.plan.nodes[index].clone();
        let now_us = self.now_us;
        self.hosts[index].begin(now_us, &mut self.random);
        let incarnation = Incarnation(self.random.number());
        let config = self.node_config(host, incarnation);
        let capacity = self
            .variant
            .capacity(Capacity { entries_max: plan.entries_max, bytes_max: plan.bytes_max });
        let mut store = Store::new(capacity).with_retention(self.plan.retention_ms);
        let terms = self.disks.get(&host).map(HostDisk::terms);
        if let Some(terms) = terms {
            store = store.with_disk(terms);
        }
        #[expect(clippy::arc_with_non_send_sync, reason = "one thread; the server shares it")]
        let store = Arc::new(store.broken(self.variant.of_store()));
        let node = Node::new(config, Arc::clone(&store), self.now_at(host));
        self.nodes[index] = Some(Process {
            node,
            store,
            incarnation,
            writers: vec![incarnation],
            tick_us: u64::MAX,
            replies: BTreeMap::new(),
            leasing: LeaseTable::default(),
            filled: BTreeSet::new(),
            next_request: 0,
            shutdown_us: None,
            handled_at: self.now_at(host).mono,
            in_sync_us: None,
            writes: BTreeMap::new(),
            conditions: BTreeMap::new(),
            touched: Vec::new(),
            before: BTreeMap::new(),
            pending: Vec::new(),
            tampered: TamperedCalls::default(),
            disk: terms.map(|_| Tier::default()),
            dropped: (0, 0),
        });
        trace!(self, "{host} starts as {incarnation} in {}", region_name(plan.region));
        self.counts.processes += 1;
        self.checker.started(host, incarnation, self.keys.len());
        let life = self.hosts[index].life;
        let discovers_us = self.random.below(DISCOVERY_US_MAX);
        self.node_input(
            host,
            vec![Input::AddressesProposed {
                addresses: self.seed_addresses(host),
                are_configured: true,
            }],
        );
        self.schedule_in(discovers_us, Event::Discover { host, life });
    }

    /// The configuration of the node of a host.
    fn node_config(&mut self, host: u32, incarnation: Incarnation) -> NodeConfig {
        let plan = self.plan.nodes[host as usize].clone();
        let info = NodeInfo {
            incarnation,
            region: region_name(plan.region),
            zone: plan.zone.map(str::to_owned),
            addresses: vec![self.hosts[host as usize].address],
            state: NodeState::Warming,
            bytes_max: plan.bytes_max,
            name: (plan.replicas != Replicas::All).then(|| format!("n{host}")),
            replicas: plan.replicas,
        };
        let value_bytes_max =
            Limits::value_bytes_within(Limits::VALUE_BYTES_DEFAULT, plan.bytes_max);
        NodeConfig {
            cluster: CLUSTER.to_owned(),
            info,
            limits: Limits { value_bytes_max, ..Limits::default() },
            features: plan.features,
            requires_tls: self.plan.seals_datagrams() && plan.features != 0,
            has_snapshot: self.persisted.contains_key(&host) || self.disks.contains_key(&host),
            secret: self.secret(),
            warm_max_ms: WARM_MAX_MS,
            outbox_bytes_max: self.variant.outbox_bytes_max(plan.outbox_bytes_max),
            changes_every_ms: NodeConfig::CHANGES_EVERY_MS,
            hot_forwards_per_s: if self.plan.is_hot() { 0 } else { NodeConfig::HOT_FORWARDS_PER_S },
        }
    }

    fn secret(&mut self) -> [u8; 32] {
        let mut secret = [0; 32];
        for part in secret.chunks_mut(8) {
            part.copy_from_slice(&self.random.number().to_le_bytes());
        }
        secret
    }

    fn seed_addresses(&self, own: u32) -> Vec<std::net::SocketAddr> {
        let seeds = self.hosts.iter().take(self.plan.seeds.min(self.nodes.len()));
        let own = self.hosts[own as usize].address;
        seeds.map(|host| host.address).filter(|address| *address != own).collect()
    }

    /// Discovery proposes addresses.
    pub(super) fn discover(&mut self, host: u32, life: u32) {
        if !self.lives(host, life) {
            return;
        }
        let addresses = self.seed_addresses(host);
        match self.client_at(host) {
            Some(client) => self.client_discovers(client, addresses),
            None => self.node_input(
                host,
                vec![
                    Input::AddressesProposed { addresses, are_configured: true },
                    Input::DiscoveryComplete,
                ],
            ),
        }
        self.schedule_in(DISCOVER_EVERY_US, Event::Discover { host, life });
    }

    /// Hands inputs that came together to a node, and does what it wants done.
    pub(super) fn node_input(&mut self, host: u32, inputs: Vec<Input>) {
        let now = self.now_at(host);
        let idle_ms = self.idle_ms(host, now);
        let Some(process) = self.nodes[host as usize].as_mut() else { return };
        let mut effects = Vec::new();
        process.node.handle_all(now, inputs, &mut effects);
        process.handled_at = now.mono;
        if effects.iter().any(restamps) {
            process.writes.values_mut().for_each(|write| write.is_restamped = true);
        }
        let touched = std::mem::take(&mut process.touched);
        self.record_touched(host, &touched, effects.iter().any(refuses));
        for effect in effects {
            self.perform(host, effect);
        }
        for (key, _) in touched {
            let Some(process) = self.nodes[host as usize].as_mut() else { return };
            process.before.remove(&key);
            let known = process.store.version(self.keys[key].hash());
            self.observe_version(host, key, known);
        }
        self.check_resumed(host, idle_ms);
        self.wake_disk(host);
        self.arm(host);
    }

    /// A node is about to handle what touches these keys.
    pub(super) fn begin_touching(&mut self, host: u32, touched: Vec<(usize, Cause)>) {
        let Some(process) = self.nodes[host as usize].as_mut() else { return };
        for (key, _) in &touched {
            let version = process.store.version(self.keys[*key].hash());
            process.before.insert(*key, version);
        }
        process.touched = touched;
    }

    pub(super) fn perform(&mut self, host: u32, effect: Effect) {
        match effect {
            Effect::Respond { id, mut response } => {
                self.check_leased(host, id, &response);
                self.check_judged(host, id, &response);
                self.check_written(host, id, &mut response);
                self.tamper_response(host, &mut response);
                self.check_given(host, &response);
                let Some(process) = self.nodes[host as usize].as_mut() else { return };
                let request = id;
                match process.replies.remove(&id) {
                    Some(Reply::Framed { connection, id, key, is_passed_on }) => {
                        match key.filter(|_| is_passed_on) {
                            Some(key) => self.check_passed_on(host, key, &response),
                            None => self.check_served(host, key, &response),
                        }
                        self.hold_or_respond(host, (connection, id), request, response);
                    }
                    Some(Reply::Internal(None)) => {
                        process.replies.insert(id, Reply::Internal(Some(response)));
                    }
                    Some(Reply::Internal(Some(_))) | None => {
                        self.checker
                            .protocol_error(&format!("{host} answers {id:?} twice or unasked"));
                    }
                }
            }
            Effect::Call { call, to, mut message, timeout_ms } => {
                self.tamper(host, &mut message);
                self.check_sent(host, to, &message.request);
                self.tamper_unseen(&mut message);
                self.record_call(host, call.0, &message.request);
                if let Some(what) = repair_request(&message.request) {
                    trace!(self, "{host} asks {to} {what}");
                }
                self.call(host, call.0, to, message, timeout_ms);
            }
            Effect::Load { id, entries } => self.load(host, id, entries),
            Effect::Datagram { to, bytes } => self.send_datagram(host, to, bytes),
            Effect::Restore => {
                let life = self.hosts[host as usize].life;
                let after_us = self.disk_opens_us(host).unwrap_or(RESTORE_US);
                self.schedule_in(after_us, Event::Restore { host, life });
            }
            Effect::State(state) => {
                let now_us = self.now_us;
                if let Some(process) = self.nodes[host as usize].as_mut() {
                    process.in_sync_us = (state == NodeState::InSync).then_some(now_us);
                }
                trace!(self, "{host} is {}", state.as_str());
                self.open_unasked_disk(host, state);
            }
            Effect::Event(event) => self.record_event(host, &event),
        }
    }

    /// Brings the next tick of a node forward if it wants to be ticked earlier.
    fn arm(&mut self, host: u32) {
        let Some(process) = self.nodes[host as usize].as_mut() else { return };
        let clock = &self.hosts[host as usize].clock;
        let wanted_us = clock.true_us(process.node.next_deadline());
        let wanted_us = if self.variant.ticks_always() { 0 } else { wanted_us };
        let due_us = wanted_us.max(self.now_us + TICK_US_MIN);
        if due_us < process.tick_us {
            process.tick_us = due_us;
            let life = self.hosts[host as usize].life;
            self.schedule(due_us, Event::Tick { host, life });
        }
    }

    pub(super) fn tick(&mut self, host: u32, life: u32) {
        if !self.lives(host, life) {
            return;
        }
        let now_us = self.now_us;
        let Some(process) = self.nodes[host as usize].as_mut() else { return };
        if process.tick_us > now_us {
            return;
        }
        process.tick_us = u64::MAX;
        self.counts.ticks += 1;
        self.node_input(host, vec![Input::Tick]);
    }

    /// A call that a node made has ended.
    pub(super) fn node_answered(
        &mut self,
        host: u32,
        token: CallToken,
        mut result: Result<Response, CallFailure>,
        elapsed_us: u64,
    ) {
        self.tamper_answer(host, token, &mut result);
        if let Ok(Response::Items { items, .. }) = &result {
            let touched = self.touched_by(items);
            self.begin_touching(host, touched);
        }
        self.node_input(
            host,
            vec![Input::CallCompleted { call: CallId(token), result, elapsed_us }],
        );
    }

    /// Reads the requests that have come on a connection, and answers them as the server does.
    #[expect(
        clippy::too_many_lines,
        reason = "what the checker sees stands beside what a server does"
    )]
    pub(super) fn read_requests(&mut self, index: usize, latency: Latency) {
        let Some(connection) = self.connection(index) else { return };
        let (from, host) = (connection.ends[0].host, connection.ends[1].host);
        let known = connection.known;
        let now = self.now_at(host);
        let mut requests = Vec::new();
        let Some(connection) = self.connection(index) else { return };
        loop {
            let reader = &mut connection.directions[0].reader;
            match reader.next(now.mono) {
                Ok(None) => break,
                Ok(Some((header, delay_ms, Incoming::Small(_)))) => {
                    requests.push((header, delay_ms, reader.take()));
                }
                Ok(Some((header, delay_ms, Incoming::Large(message)))) => {
                    requests.push((header, delay_ms, message));
                }
                Ok(Some(_)) => {}
                Err(error) => {
                    return self
                        .checker
                        .protocol_error(&format!("a caller sends no frames: {error}"));
                }
            }
        }
        let mut inputs = Vec::new();
        let mut touched = Vec::new();
        for (header, delay_ms, bytes) in requests {
            let delay_ms = if self.variant.ignores_lateness() { 0 } else { delay_ms };
            let (sent_ms, timeout_ms) = (u64::from(header.sent_ms), u64::from(header.timeout_ms));
            let envelope = Envelope { sent_ms, timeout_ms, delay_ms, ..known };
            let short = RequestMessage::peek_get(&bytes).is_some();
            let message = match RequestMessage::decode_with_defaults(bytes, envelope, now.mono) {
                Ok(message) => message,
                Err(error) => {
                    self.checker.protocol_error(&format!("a request does not decode: {error}"));
                    continue;
                }
            };
            self.counts.late_us_max = self.counts.late_us_max.max(delay_ms * 1_000);
            let read = self.key_read(host, &message.request);
            let is_passed_on = read.is_some_and(|(_, is_passed_on)| is_passed_on);
            let key = read.map(|(key, _)| key);
            if let (true, false, Some(key)) = (short, is_passed_on, key)
                && !self.is_on_disk(host, key)
            {
                self.fast_read(host, index, header.id, key, &envelope);
                continue;
            }
            let is_conditional = matches!(message.request, Request::Conditional(_));
            if is_conditional {
                // It is compared with what the node holds right before it.
                self.hand_over(host, &mut inputs, &mut touched);
            }
            let known = touched.len();
            self.record_request(from, host, &message, latency, &mut touched);
            let changes = touched[known..].iter().map(|(key, _)| *key).collect();
            let write = self.pending_write(&message.request);
            let connection = ConnectionId(index as u64);
            let caller = Caller::unauthenticated(Some(self.hosts[from as usize].address.ip()));
            let (mut message, key) = self.record_lease_request((host, connection), message, key);
            let Some(process) = self.nodes[host as usize].as_mut() else { return };
            process.next_request += 1;
            let id = RequestId(process.next_request);
            process.leasing.name(id);
            if let Some(tier) = process.disk.as_mut() {
                tier.changes.insert(id, changes);
            }
            process.writes.extend(write.map(|write| (id, write)));
            let reply = Reply::Framed { connection: index, id: header.id, key, is_passed_on };
            process.replies.insert(id, reply);
            self.record_condition(host, id, &mut message);
            inputs.push(Input::Request { id, connection, caller, message });
            if is_conditional {
                self.hand_over(host, &mut inputs, &mut touched);
            }
        }
        self.hand_over(host, &mut inputs, &mut touched);
    }

    /// Answers a plain read without the state machine.
    fn fast_read(
        &mut self,
        host: u32,
        connection: usize,
        id: u32,
        key: usize,
        envelope: &Envelope,
    ) {
        let now = self.now_at(host);
        let Some(process) = self.nodes[host as usize].as_ref() else { return };
        let response = if envelope.remaining_ms().is_none() {
            Response::refused(RefusalCode::Expired, "the deadline had passed")
        } else {
            // A process that was suspended has not noticed yet that it may have missed something.
            let is_current = now.mono.since_ms(process.handled_at) <= PAUSE_MS_MAX;
            let answers =
                if is_current { process.node.read_policy() } else { ReadPolicy::default() };
            zerocache_core::node::read(&process.store, &self.keys[key], now, answers)
        };
        let mut response = response;
        self.tamper_response(host, &mut response);
        self.check_served(host, Some(key), &response);
        self.respond(connection, id, &response);
    }

    fn check_served(&mut self, host: u32, key: Option<usize>, response: &Response) {
        if let (Some(key), Response::NotFound { warming: false, .. }) = (key, response) {
            self.check_miss(host, key);
        }
        if let (Some(key), Response::Found { value, version, remaining_ms, .. }) = (key, response) {
            let held = StoredValue { key, version: *version, value, remaining_ms: *remaining_ms };
            self.counts.hits += 1;
            self.check_promised(host, key, *version);
            self.checker.served(host, &held);
            if let Some(id) = workload::write_of(value) {
                self.checker.check_delete_wins(&self.plan, host, key, id);
            }
        }
    }
}

/// Whether a node refuses a message because it has too much to do, or has just started.
fn refuses(effect: &Effect) -> bool {
    let Effect::Respond { response: Response::Refused(refusal), .. } = effect else { return false };
    refusal.code == RefusalCode::Overloaded
}
