//! Clients: the core's directory and ladder, and around them what the client package does.

use std::{collections::BTreeMap, net::SocketAddr};

use zerocache_core::{
    key::KeyHash,
    node::CallFailure,
    route::{Attempt, Budget, Directory, Step, TierBounds, Turn, Walk},
    time::Instant,
    version::Incarnation,
    wire::{
        Ack, Envelope, Hello, PROTOCOL, RefusalCode, Request, RequestMessage, Response, cluster_id,
    },
};

use super::{
    Event, Token, World,
    dial::{CLUSTER, region_name},
    trace,
};
use crate::workload::{Operation, WriteId, value};

/// How often a client looks what is due, in microseconds.
const TURN_US: u64 = 50_000;

/// How long a handshake or probe may take, in milliseconds.
const PROBE_TIMEOUT_MS: u64 = 1_000;

/// For this long after a write its node is asked first for the key, in milliseconds.
const REMEMBERED_MS: u64 = 2_000;

/// A client.
pub(super) struct Client {
    region: usize,
    directory: Directory,
    calls: BTreeMap<Token, Purpose>,
    next_token: Token,
    operations: BTreeMap<u64, Running>,
    own_writes: BTreeMap<KeyHash, (Incarnation, Instant)>,
    /// The highest stamp that nodes told.
    seen: u64,
}

/// What a call is for.
#[derive(Clone, Copy, Debug)]
enum Purpose {
    Dial {
        address: SocketAddr,
    },
    Probe {
        node: Incarnation,
        address: SocketAddr,
    },
    /// The members of a node whose view has changed.
    Learn {
        node: Incarnation,
        address: SocketAddr,
        view: u64,
    },
    Try {
        operation: u64,
    },
}

/// An operation under way.
struct Running {
    key: usize,
    operation: Operation,
    id: WriteId,
    budget: Budget,
    /// The turn of its first request.
    turn: Option<Turn>,
    walk: Option<Walk>,
    asked: Option<Asked>,
    missed: bool,
    refused: bool,
}

/// The request under way.
#[derive(Clone, Copy)]
struct Asked {
    step: Step,
    timeout_ms: u64,
    expect_soon: bool,
    seen: u64,
}

impl Running {
    fn is_read(&self) -> bool {
        self.operation == Operation::Get
    }

    /// Whether a node that says nothing for a while is silent, and not waiting for others.
    fn expect_soon(&self) -> bool {
        match self.operation {
            Operation::Get => true,
            Operation::Put { ack, .. } | Operation::Delete { ack } => ack == Ack::Local,
        }
    }
}

impl Client {
    pub(super) fn new(region: usize) -> Self {
        Self {
            region,
            directory: Directory::new(region_name(region)),
            calls: BTreeMap::new(),
            next_token: 0,
            operations: BTreeMap::new(),
            own_writes: BTreeMap::new(),
            seen: 0,
        }
    }

    /// Nodes that take turns at `now`.
    pub(super) fn rotation(&self, now: Instant) -> Vec<Incarnation> {
        let nodes = self.directory.nodes().filter(|node| node.in_rotation(now));
        nodes.map(|node| node.info.incarnation).collect()
    }
}

impl World {
    fn client_call(
        &mut self,
        client: usize,
        purpose: Purpose,
        (to, node): (SocketAddr, Option<Incarnation>),
        request: Request,
        timeout_ms: u64,
    ) {
        let at = &mut self.clients[client];
        let token = at.next_token;
        at.next_token += 1;
        at.calls.insert(token, purpose);
        let envelope = Envelope {
            cluster: cluster_id(CLUSTER),
            to: node,
            timeout_ms,
            seen: if self.variant.forgets_seen() { 0 } else { at.seen },
            ..Envelope::default()
        };
        let host = self.host_of(client as u32);
        self.call(host, token, to, RequestMessage { envelope, request }, timeout_ms);
    }

    fn client_now(&self, client: usize) -> Instant {
        self.now_at(self.host_of(client as u32)).mono
    }

    pub(super) fn client_discovers(&mut self, client: usize, addresses: Vec<SocketAddr>) {
        let now = self.client_now(client);
        for address in addresses {
            self.clients[client].directory.propose(address, now);
        }
    }

    /// Dials and probes what is due.
    pub(super) fn turn(&mut self, client: u32) {
        self.schedule_in(TURN_US, Event::Turn(client));
        let client = client as usize;
        let now = self.client_now(client);
        let directory = &mut self.clients[client].directory;
        let dials = directory.candidates_mut().take_due(now);
        let probes = directory.take_probes(now);
        for address in dials {
            self.shake_hands(client, Purpose::Dial { address }, address);
        }
        for (node, address) in probes {
            let purpose = Purpose::Probe { node, address };
            self.client_call(
                client,
                purpose,
                (address, Some(node)),
                Request::Ping,
                PROBE_TIMEOUT_MS,
            );
        }
    }

    fn shake_hands(&mut self, client: usize, purpose: Purpose, address: SocketAddr) {
        let hello = Hello {
            cluster: CLUSTER.to_owned(),
            protocol: PROTOCOL,
            features: 0,
            auth: bytes::Bytes::new(),
            wall_ms: self.now_at(self.host_of(client as u32)).wall_ms,
            node: None,
            region: region_name(self.clients[client].region),
            members: Vec::new(),
            entries: 0,
            session: None,
        };
        let request = Request::Hello(Box::new(hello));
        self.client_call(client, purpose, (address, None), request, PROBE_TIMEOUT_MS);
    }

    /// A call of a client has ended.
    pub(super) fn client_answered(
        &mut self,
        client: usize,
        token: Token,
        result: Result<Response, CallFailure>,
        elapsed_us: u64,
    ) {
        match self.clients[client].calls.remove(&token) {
            Some(Purpose::Dial { address }) => {
                self.introduced(client, address, result, elapsed_us);
            }
            Some(Purpose::Learn { node, address, view }) => {
                if self.introduced(client, address, result, elapsed_us) {
                    self.clients[client].directory.learned(node, view);
                }
            }
            Some(Purpose::Probe { node, address }) => {
                self.probed(client, (node, address), result, elapsed_us);
            }
            Some(Purpose::Try { operation }) => {
                self.tried(client, operation, result, elapsed_us);
            }
            None => {}
        }
    }

    fn introduced(
        &mut self,
        client: usize,
        address: SocketAddr,
        result: Result<Response, CallFailure>,
        elapsed_us: u64,
    ) -> bool {
        let now = self.client_now(client);
        let directory = &mut self.clients[client].directory;
        let Ok(Response::Hello(hello)) = result else {
            directory.candidates_mut().failed(address, now);
            return false;
        };
        for member in &hello.members {
            for address in &member.addresses {
                directory.propose(*address, now);
            }
        }
        match hello.node {
            Some(info) => directory.shook_hands(info, address, now, elapsed_us),
            None => directory.candidates_mut().failed(address, now),
        }
        true
    }

    fn probed(
        &mut self,
        client: usize,
        (node, address): (Incarnation, SocketAddr),
        result: Result<Response, CallFailure>,
        elapsed_us: u64,
    ) {
        let now = self.client_now(client);
        let directory = &mut self.clients[client].directory;
        match result {
            Ok(Response::Pong { incarnation, state, view, .. }) if incarnation == node => {
                if directory.probed(node, state, view, now, elapsed_us) {
                    self.shake_hands(client, Purpose::Learn { node, address, view }, address);
                }
            }
            Ok(Response::Pong { .. }) => directory.replaced(node, now),
            Ok(Response::Refused(refusal)) if is_elsewhere(refusal.code) => {
                directory.replaced(node, now);
            }
            Ok(_) | Err(_) => directory.failed(node, now),
        }
    }

    /// Begins the next operation of a client, and plans the one after it.
    pub(super) fn operate(&mut self, client: u32) {
        if self.now_us >= self.plan.heal_us {
            return;
        }
        let wait_us = self.random.around(self.plan.workload.interval_us).max(1);
        self.schedule_in(wait_us, Event::Operate(client));
        let client = client as usize;
        let (key, operation) = Operation::draw(&mut self.random, &self.plan.workload);
        let id = self.checker.planned(key, &operation);
        let now = self.client_now(client);
        let bounds = TierBounds::default();
        let budget = Budget::new(now, bounds.total_ms);
        let mut running = Running {
            key,
            operation,
            id,
            budget,
            turn: None,
            walk: None,
            asked: None,
            missed: false,
            refused: false,
        };
        self.counts.operations += 1;
        let host = self.host_of(client as u32);
        let first = if running.is_read() { self.own_write(client, key, now) } else { None };
        let directory = &mut self.clients[client].directory;
        let begun = if running.is_read() {
            directory.begin_read(now, first)
        } else {
            directory.begin_write(now, running.expect_soon())
        };
        let serial = id;
        if let Some((step, turn)) = begun {
            if self.open_to(host, step.address, step.node) {
                let bound_ms = if running.expect_soon() { bounds.of(step.tier) } else { u64::MAX };
                if let Some(timeout_ms) = budget.clip(now, bound_ms) {
                    running.turn = Some(turn);
                    self.clients[client].operations.insert(serial, running);
                    return self.ask(client, serial, Attempt { step, timeout_ms });
                }
            }
            self.clients[client].directory.not_sent(step.node, turn, now);
        }
        let directory = &mut self.clients[client].directory;
        let plan =
            if running.is_read() { directory.plan(now, first) } else { directory.plan_write(now) };
        let mut walk = Walk::new(plan, bounds, budget);
        if !running.expect_soon() {
            walk = walk.with_whole_budget();
        }
        running.walk = Some(walk);
        self.clients[client].operations.insert(serial, running);
        self.step_on(client, serial);
    }

    fn own_write(&self, client: usize, key: usize, now: Instant) -> Option<Incarnation> {
        let (node, at) = self.clients[client].own_writes.get(&self.keys[key].hash())?;
        (now.since_ms(*at) < REMEMBERED_MS).then_some(*node)
    }

    fn ask(&mut self, client: usize, serial: u64, attempt: Attempt) {
        let now = self.client_now(client);
        let at = &mut self.clients[client];
        let Some(running) = at.operations.get_mut(&serial) else { return };
        let Attempt { step, timeout_ms } = attempt;
        let expect_soon = running.expect_soon();
        if expect_soon && running.walk.is_some() {
            at.directory.sent(step.node, now);
        }
        running.asked = Some(Asked { step, timeout_ms, expect_soon, seen: at.seen });
        let key = self.keys[running.key].clone();
        let request = match running.operation.clone() {
            Operation::Get => Request::Get { key },
            Operation::Put { bytes, ttl, ack } => {
                let value = value(running.id, bytes);
                Request::Put { key, value, metadata: bytes::Bytes::new(), ttl, ack }
            }
            Operation::Delete { ack } => Request::Delete { key, ack },
        };
        let purpose = Purpose::Try { operation: serial };
        self.client_call(client, purpose, (step.address, Some(step.node)), request, timeout_ms);
    }

    /// Goes on with the next try, or ends.
    fn step_on(&mut self, client: usize, serial: u64) {
        let now = self.client_now(client);
        let at = &mut self.clients[client];
        let Some(running) = at.operations.get_mut(&serial) else { return };
        if running.walk.is_none()
            && let (Some(turn), Some(asked)) = (running.turn, running.asked)
        {
            let plan = at.directory.go_on(turn, now);
            let mut walk = Walk::new(plan, TierBounds::default(), running.budget);
            walk.skip(&asked.step);
            let whole = !running.expect_soon();
            running.walk = Some(if whole { walk.with_whole_budget() } else { walk });
        }
        match running.walk.as_mut().and_then(|walk| walk.next_attempt(now)) {
            Some(attempt) => self.ask(client, serial, attempt),
            None => self.give_up(client, serial),
        }
    }

    fn give_up(&mut self, client: usize, serial: u64) {
        if let Some(running) = self.clients[client].operations.remove(&serial) {
            if running.missed {
                self.counts.misses += 1;
            } else {
                self.counts.unreachable += 1;
            }
        }
    }

    /// A try of an operation has ended.
    fn tried(
        &mut self,
        client: usize,
        serial: u64,
        result: Result<Response, CallFailure>,
        elapsed_us: u64,
    ) {
        let now = self.client_now(client);
        let at = &mut self.clients[client];
        let Some(asked) = at.operations.get(&serial).and_then(|running| running.asked) else {
            return;
        };
        let result = match result {
            Ok(Response::Refused(refusal)) if is_elsewhere(refusal.code) => {
                at.directory.replaced(asked.step.node, now);
                Err(CallFailure::NotSent)
            }
            Ok(response) => {
                let elapsed_us = asked.expect_soon.then_some(elapsed_us);
                at.directory.answered(asked.step.node, now, elapsed_us);
                Ok(response)
            }
            Err(failure) => {
                let patient = asked.timeout_ms >= TierBounds::default().of(asked.step.tier);
                if failure != CallFailure::NoAnswer || patient {
                    at.directory.failed(asked.step.node, now);
                }
                Err(failure)
            }
        };
        let is_read = at.operations.get(&serial).is_some_and(Running::is_read);
        let is_over = if is_read {
            self.judge_read(client, serial, asked, result)
        } else {
            self.judge_write(client, serial, asked, result)
        };
        if is_over {
            self.clients[client].operations.remove(&serial);
        } else {
            // The walk of a first request begins now.
            self.step_on(client, serial);
        }
    }

    /// Whether what a node said settles a read.
    fn judge_read(
        &mut self,
        client: usize,
        serial: u64,
        asked: Asked,
        result: Result<Response, CallFailure>,
    ) -> bool {
        let now = self.client_now(client);
        let at = &mut self.clients[client];
        let Some(running) = at.operations.get_mut(&serial) else { return true };
        match result {
            Ok(Response::Found { value, version, .. }) => {
                at.directory.hit(asked.step.node);
                at.seen = at.seen.max(version.stamp());
                let key = running.key;
                self.checker.received(key, version, &value);
                true
            }
            Ok(Response::NotFound { warming }) => {
                running.missed = true;
                if running.walk.is_none()
                    && let Some(turn) = running.turn
                {
                    let plan = at.directory.go_on(turn, now);
                    let mut walk = Walk::new(plan, TierBounds::default(), running.budget);
                    walk.skip(&asked.step);
                    running.walk = Some(walk);
                }
                let walk = running.walk.as_mut();
                let is_final = walk.is_none_or(|walk| walk.missed(&asked.step, warming));
                self.counts.misses += u64::from(is_final);
                is_final
            }
            Ok(Response::Refused(refusal)) if is_invalid(refusal.code) => true,
            Ok(_) | Err(_) => false,
        }
    }

    /// Whether what a node said settles a write.
    fn judge_write(
        &mut self,
        client: usize,
        serial: u64,
        asked: Asked,
        result: Result<Response, CallFailure>,
    ) -> bool {
        let now = self.client_now(client);
        let at = &mut self.clients[client];
        let Some(running) = at.operations.get_mut(&serial) else { return true };
        match result {
            Ok(Response::Written(written)) => {
                let hash = self.keys[running.key].hash();
                at.own_writes.insert(hash, (asked.step.node, now));
                let (key, id) = (running.key, running.id);
                if let Some(version) = written.version {
                    at.seen = at.seen.max(version.stamp());
                    self.checker.written(key, id, version, asked.seen);
                }
                self.counts.written += 1;
                true
            }
            Ok(Response::Refused(refusal)) if is_invalid(refusal.code) => {
                self.counts.invalid += 1;
                true
            }
            Ok(_) => {
                running.refused = true;
                false
            }
            Err(CallFailure::Refused | CallFailure::NotSent) => false,
            // It may have arrived: another node would make two writes of one.
            Err(CallFailure::NoAnswer) => {
                self.counts.unknown += 1;
                trace!(self, "a write of client {client} has no answer");
                true
            }
        }
    }
}

fn is_elsewhere(code: RefusalCode) -> bool {
    matches!(code, RefusalCode::WrongNode | RefusalCode::WrongCluster)
}

fn is_invalid(code: RefusalCode) -> bool {
    matches!(code, RefusalCode::BadKey | RefusalCode::TooLarge | RefusalCode::BadMessage)
}
