//! Connection setup: the request to upgrade carries a Hello, its answer another one.

use std::sync::Arc;

use bytes::Bytes;
use zerocache_core::{
    call::CallFailure,
    name,
    node::{Caller, ConnectionId, Input, RequestId},
    version::Incarnation,
    wire::{Envelope, Hello, RefusalCode, Request, RequestMessage, Response, cluster_id},
};
use zerocache_net::transport::framed::{FrameReader, UnlimitedMemory};

use super::{
    CallToken, Event, World,
    connection::{Connection, Direction, End, MESSAGE_BYTES_MAX},
    nodes::Reply,
    trace,
    transport::Link,
};

/// The time limit for a connection of a node, in microseconds.
const NODE_CONNECT_US: u64 = 1_000_000;

/// One of a client.
const CLIENT_CONNECT_US: u64 = 400_000;

/// After this long without an answer another try to connect begins, in microseconds.
const CONNECT_AGAIN_US: u64 = 300_000;

/// The time limit of the handshake on a connection, in microseconds.
const HANDSHAKE_US: u64 = 1_000_000;

/// The pause after a failed try to connect, doubled with each failure, in microseconds.
const BACKOFF_US_MIN: u64 = 20_000;
const BACKOFF_US_MAX: u64 = 500_000;

/// The connection of a handshake, which ends with its answer.
const HANDSHAKE: ConnectionId = ConnectionId(u64::MAX);

/// The name of the simulated cluster.
pub(super) const CLUSTER: &str = "simulated";

/// A try to connect.
#[derive(Debug)]
pub(super) struct Dial {
    pub(super) from: u32,
    from_life: u32,
    pub(super) to: u32,
    lane: u64,
    hello: Bytes,
    /// The time at which it fails.
    due_us: u64,
    is_connected: bool,
    sent_us: u64,
    sent_ms: u32,
    answered: bool,
    /// Calls that wait for it.
    pub(super) waiting: Vec<CallToken>,
}

/// The answer to a connection attempt.
#[derive(Debug)]
pub(super) enum DialAnswer {
    /// A connection, the answer to the Hello, and when the node sent it.
    Granted { connection: usize, hello: Bytes, sent_ms: u32, sent_us: u64 },
    /// The node does not take the caller.
    Refused(Response),
    /// No process listens.
    Nobody,
}

impl World {
    /// Begins to connect.
    pub(super) fn dial(&mut self, from: u32, to: u32, lane: u64, first: CallToken) {
        let id = self.next_dial;
        self.next_dial += 1;
        let now = self.now_at(from);
        let mut hello = self.hello(from);
        hello.envelope.sent_ms = now.mono.as_millis();
        let host = &mut self.hosts[from as usize];
        host.links.insert((to, lane), Link::Opening(id));
        let dial = Dial {
            from,
            from_life: host.life,
            to,
            lane,
            hello: hello.encode(now.mono),
            due_us: self.now_us,
            is_connected: false,
            sent_us: self.now_us,
            sent_ms: now.mono.as_millis() as u32,
            answered: false,
            waiting: vec![first],
        };
        self.dials.insert(id, dial);
        let is_client = self.client_at(from).is_some();
        let patience_us = if is_client { CLIENT_CONNECT_US } else { NODE_CONNECT_US };
        if let Some(dial) = self.dials.get_mut(&id) {
            dial.due_us += patience_us;
        }
        self.schedule_in(patience_us, Event::DialTimeout(id));
        self.connect(id);
    }

    /// Tries to connect; another try begins beside it after a while, as nothing may come of this
    /// one.
    pub(super) fn connect(&mut self, id: u64) {
        let waiting = self.dials.get(&id).filter(|dial| !dial.answered && !dial.is_connected);
        let Some((from, to)) = waiting.map(|dial| (dial.from, dial.to)) else { return };
        let passes = self.network.is_open(from, to) && self.network.is_open(to, from);
        let lost = self.network.loses(&mut self.random, from, to)
            || self.network.loses(&mut self.random, to, from);
        if !passes || lost {
            return self.schedule_in(CONNECT_AGAIN_US, Event::Connect(id));
        }
        let there_us = self.network.latency_us(&mut self.random, from, to);
        let back_us = self.network.latency_us(&mut self.random, to, from);
        let (latency_us, _) = self.network.segment_latency_us(&mut self.random, from, to);
        let sent_us = self.now_us + there_us + back_us;
        let is_late = self.dials.get(&id).is_some_and(|dial| sent_us >= dial.due_us);
        if is_late {
            return;
        }
        let sent_ms = self.hosts[from as usize].clock.mono(sent_us).as_millis() as u32;
        if let Some(dial) = self.dials.get_mut(&id) {
            dial.is_connected = true;
            (dial.sent_us, dial.sent_ms) = (sent_us, sent_ms);
            dial.due_us = sent_us + HANDSHAKE_US;
        }
        self.schedule(sent_us + latency_us, Event::Upgrade(id));
    }

    /// The time for a connection, or for the handshake on it, is up.
    pub(super) fn dial_timeout(&mut self, id: u64) {
        let Some(dial) = self.dials.get(&id) else { return };
        if dial.due_us > self.now_us {
            return self.schedule(dial.due_us, Event::DialTimeout(id));
        }
        self.dial_failed(id, CallFailure::NotSent);
    }

    fn hello(&self, host: u32) -> RequestMessage {
        if let Some(process) = self.nodes.get(host as usize).and_then(Option::as_ref) {
            return process.node.introduction(self.now_at(host));
        }
        let region = self.client_at(host).map_or(0, |client| self.plan.clients[client].region);
        let hello = Hello::of_client(CLUSTER, &region_name(region), self.now_at(host).wall_ms);
        let envelope = Envelope { cluster: cluster_id(CLUSTER), ..Envelope::default() };
        RequestMessage { envelope, request: Request::Hello(Box::new(hello)) }
    }

    /// The request to upgrade is read at the node.
    pub(super) fn upgrade(&mut self, id: u64) {
        let Some(dial) = self.dials.get(&id) else { return };
        let (from, to, sent_us, sent_ms) = (dial.from, dial.to, dial.sent_us, dial.sent_ms);
        let hello = dial.hello.clone();
        let machine = &self.hosts[to as usize];
        if machine.is_quiet {
            return;
        }
        if !machine.is_up || self.nodes.get(to as usize).is_none_or(Option::is_none) {
            return self.answer_dial(id, DialAnswer::Nobody);
        }
        if machine.pause_until_us > self.now_us {
            let refusal =
                Response::refused(RefusalCode::Overloaded, "the process has just resumed");
            return self.answer_dial(id, DialAnswer::Refused(refusal));
        }
        let now = self.now_at(to);
        let Ok(message) = RequestMessage::decode(hello, now.mono) else {
            self.checker.protocol_error("a Hello does not decode");
            return;
        };
        let caller = match &message.request {
            Request::Hello(hello) => hello.node.as_ref().map(|node| node.incarnation),
            _ => None,
        };
        let request = RequestId(id | 1 << 63);
        let ip = self.hosts[from as usize].address.ip();
        let sender = Caller::unauthenticated(Some(ip));
        let Some(response) = self.ask_node((sender, to), request, message) else { return };
        let Response::Hello(hello) = &response else {
            return self.answer_dial(id, DialAnswer::Refused(response));
        };
        let own = hello.node.as_ref().map(|node| node.incarnation);
        let connection = self.granted(id, (from, to), (caller, own), (sent_us, sent_ms));
        let sent_ms = now.mono.as_millis() as u32;
        let hello = response.encode();
        let sent_us = self.now_us;
        self.answer_dial(id, DialAnswer::Granted { connection, hello, sent_ms, sent_us });
    }

    /// Passes the node a request that it answers immediately.
    pub(super) fn ask_node(
        &mut self,
        (caller, host): (Caller, u32),
        id: RequestId,
        message: RequestMessage,
    ) -> Option<Response> {
        self.nodes[host as usize].as_mut()?.replies.insert(id, Reply::Internal(None));
        self.node_input(host, vec![Input::Request { id, connection: HANDSHAKE, caller, message }]);
        match self.nodes[host as usize].as_mut()?.replies.remove(&id) {
            Some(Reply::Internal(response)) => response,
            _ => None,
        }
    }

    fn granted(
        &mut self,
        id: u64,
        (from, to): (u32, u32),
        (caller, own): (Option<Incarnation>, Option<Incarnation>),
        (sent_us, sent_ms): (u64, u32),
    ) -> usize {
        let end = |host: u32, life| End { host, life, is_open: true };
        let dial = &self.dials[&id];
        let ends = [end(from, dial.from_life), end(to, self.hosts[to as usize].life)];
        let reader = || FrameReader::new(MESSAGE_BYTES_MAX, Arc::new(UnlimitedMemory));
        let latency_us = self.now_us - sent_us;
        let mut requests = Direction::new(reader(), self.now_us, latency_us);
        requests.reader.note_sent(sent_ms, self.now_at(to).mono);
        let responses = Direction::new(reader(), self.now_us, 0);
        let cluster = cluster_id(CLUSTER);
        let known = Envelope { cluster, from: caller, to: own, ..Envelope::default() };
        self.connections.push(Some(Box::new(Connection {
            ends,
            directions: [requests, responses],
            known,
            lane: dial.lane,
            next_id: 1,
            calls: Default::default(),
            overdue: Default::default(),
            heard_us: self.now_us,
        })));
        self.counts.connections += 1;
        self.connections.len() - 1
    }

    fn answer_dial(&mut self, id: u64, answer: DialAnswer) {
        let Some(dial) = self.dials.get(&id) else { return };
        let (from, to) = (dial.from, dial.to);
        if self.network.is_open(to, from) {
            let (latency_us, _) = self.network.segment_latency_us(&mut self.random, to, from);
            self.schedule_in(latency_us, Event::DialAnswered(id, Box::new(answer)));
        }
    }

    /// The answer to the request to upgrade is read.
    pub(super) fn dialled(&mut self, id: u64, answer: DialAnswer) {
        let alive = self.dials.get(&id).filter(|dial| self.lives(dial.from, dial.from_life));
        let Some((from, is_over)) = alive.map(|dial| (dial.from, dial.answered)) else { return };
        let (connection, hello, sent_ms, sent_us) = match answer {
            DialAnswer::Nobody => return self.dial_failed(id, CallFailure::Refused),
            DialAnswer::Refused(response) => return self.dial_refused(id, response),
            DialAnswer::Granted { connection, hello, sent_ms, sent_us } => {
                (connection, hello, sent_ms, sent_us)
            }
        };
        if is_over {
            return self.close(connection, 0);
        }
        let now = self.now_at(from).mono;
        let (latency_us, now_us) = (self.now_us - sent_us, self.now_us);
        let Some(at) = self.connection(connection) else {
            return self.dial_failed(id, CallFailure::NotSent);
        };
        at.directions[1].fastest_us = latency_us;
        at.directions[1].read_us = now_us;
        at.directions[1].reader.note_sent(sent_ms, now);
        at.heard_us = now_us;
        if Response::decode(hello).is_err() {
            self.checker.protocol_error("the answer to a Hello does not decode");
        }
        let Some(dial) = self.end_dial(id) else { return };
        let host = &mut self.hosts[from as usize];
        host.failures.remove(&dial.to);
        host.links.insert((dial.to, dial.lane), Link::Open(connection));
        trace!(self, "{from} is connected to {}", dial.to);
        for token in dial.waiting {
            self.send_waiting(from, token, connection);
        }
    }

    /// No connection came about.
    pub(super) fn dial_failed(&mut self, id: u64, failure: CallFailure) {
        let Some(dial) = self.end_dial(id) else { return };
        let until_us = self.back_off(dial.from, dial.to);
        let link = Link::Failed { until_us, failure };
        self.hosts[dial.from as usize].links.insert((dial.to, dial.lane), link);
        for token in dial.waiting {
            self.end_waiting(dial.from, token, Err(failure));
        }
    }

    fn dial_refused(&mut self, id: u64, response: Response) {
        let Some(dial) = self.end_dial(id) else { return };
        let until_us = self.back_off(dial.from, dial.to);
        let link = Link::Refused { until_us, response: Box::new(response.clone()) };
        self.hosts[dial.from as usize].links.insert((dial.to, dial.lane), link);
        for token in dial.waiting {
            self.end_waiting(dial.from, token, Ok(response.clone()));
        }
    }

    /// Ends a dial and returns it, if it had not ended and its process runs.
    fn end_dial(&mut self, id: u64) -> Option<Dial> {
        let dial = self.dials.get_mut(&id)?;
        if std::mem::replace(&mut dial.answered, true) {
            return None;
        }
        let waiting = std::mem::take(&mut dial.waiting);
        let (from, from_life, to, lane) = (dial.from, dial.from_life, dial.to, dial.lane);
        let (sent_us, sent_ms, hello) = (dial.sent_us, dial.sent_ms, dial.hello.clone());
        let (due_us, is_connected, answered) = (dial.due_us, dial.is_connected, true);
        let copy = Dial {
            from,
            from_life,
            to,
            lane,
            hello,
            due_us,
            is_connected,
            sent_us,
            sent_ms,
            answered,
            waiting,
        };
        self.lives(from, from_life).then_some(copy)
    }

    fn back_off(&mut self, from: u32, to: u32) -> u64 {
        let count = self.hosts[from as usize].failures.entry(to).or_default();
        *count += 1;
        let pause_us = (BACKOFF_US_MIN << (*count - 1).min(8)).min(BACKOFF_US_MAX);
        self.now_us + pause_us - self.random.below(pause_us / 2)
    }
}

/// The name of a region.
pub(super) fn region_name(region: usize) -> String {
    let name = format!("region-{region}");
    debug_assert!(name::check_region(&name).is_ok());
    name
}
