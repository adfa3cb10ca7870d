//! Calls over an open connection, or after one has been made.

use bytes::Bytes;
use zerocache_core::{
    call::CallFailure,
    time::Instant,
    wire::{
        Envelope, RefusalCode, Request, RequestMessage, Response,
        frame::{Header, Opcode},
    },
};
use zerocache_net::transport::framed::Incoming;

use std::net::SocketAddr;

use super::{CallToken, Event, World, connection::Latency, hosts, trace};

/// The link of a process to a node that it calls.
#[derive(Debug)]
pub(super) enum Link {
    /// A connection.
    Open(usize),
    /// A try to connect.
    Opening(u64),
    /// The last try failed, and there is no other one until then.
    Failed { until_us: u64, failure: CallFailure },
    /// The node refused the last one.
    Refused { until_us: u64, response: Box<Response> },
}

/// A call in flight.
#[derive(Debug)]
pub(super) struct Call {
    started_us: u64,
    deadline: Instant,
    state: CallState,
}

#[derive(Debug)]
enum CallState {
    /// It waits for a connection.
    Waiting(Box<RequestMessage>),
    /// It was sent.
    Sent { connection: usize, id: u32 },
    /// Its result is about to be delivered.
    Finishing,
}

/// The timeout field of a frame without a time limit.
const NO_TIMEOUT: u32 = 0;

impl World {
    /// Calls a node; the result is delivered to the caller.
    pub(super) fn call(
        &mut self,
        from: u32,
        token: CallToken,
        to: SocketAddr,
        message: RequestMessage,
        timeout_ms: u64,
    ) {
        let now = self.now_at(from).mono;
        let deadline = now.plus_ms(timeout_ms.max(1));
        let call = Call { started_us: self.now_us, deadline, state: CallState::Finishing };
        let life = self.hosts[from as usize].life;
        self.hosts[from as usize].calls.insert(token, call);
        let due_us = self.hosts[from as usize].clock.true_us(deadline);
        self.schedule(due_us, Event::CallTimeout { host: from, life, token });
        let Some(to) = hosts::at(to).filter(|to| (*to as usize) < self.nodes.len()) else {
            return self.end_soon(from, token, Err(CallFailure::NotSent));
        };
        let lane = self.random.below(self.plan.lanes);
        let now_us = self.now_us;
        let links = &self.hosts[from as usize].links;
        let other = (0..self.plan.lanes).find_map(|lane| match links.get(&(to, lane)) {
            Some(Link::Open(connection)) => Some(*connection),
            _ => None,
        });
        let mut opening = None;
        let mut result = None;
        match links.get(&(to, lane)) {
            Some(Link::Open(connection)) => {
                return self.send_call(from, token, *connection, message);
            }
            Some(Link::Opening(dial)) => opening = Some(*dial),
            Some(Link::Failed { until_us, failure }) if *until_us > now_us => {
                result = Some(Err(*failure));
            }
            Some(Link::Refused { until_us, response }) if *until_us > now_us => {
                result = Some(Ok((**response).clone()));
            }
            _ => {}
        }
        if opening.is_none() && result.is_none() {
            self.set_state(from, token, CallState::Waiting(Box::new(message.clone())));
            self.dial(from, to, lane, token);
            if other.is_none() {
                return;
            }
        }
        match (other, opening, result) {
            (Some(connection), ..) => self.send_call(from, token, connection, message),
            (None, Some(dial), _) => {
                self.set_state(from, token, CallState::Waiting(Box::new(message)));
                if let Some(dial) = self.dials.get_mut(&dial) {
                    dial.waiting.push(token);
                }
            }
            (None, None, Some(result)) => self.end_soon(from, token, result),
            (None, None, None) => {}
        }
    }

    fn set_state(&mut self, host: u32, token: CallToken, state: CallState) {
        if let Some(call) = self.hosts[host as usize].calls.get_mut(&token) {
            call.state = state;
        }
    }

    /// Sends a call that waited for a connection.
    pub(super) fn send_waiting(&mut self, host: u32, token: CallToken, connection: usize) {
        let Some(call) = self.hosts[host as usize].calls.get_mut(&token) else { return };
        match std::mem::replace(&mut call.state, CallState::Finishing) {
            CallState::Waiting(message) => self.send_call(host, token, connection, *message),
            other => call.state = other,
        }
    }

    /// Ends a call whose connection could not be made.
    pub(super) fn end_waiting(
        &mut self,
        host: u32,
        token: CallToken,
        result: Result<Response, CallFailure>,
    ) {
        // It may have been sent over another connection in the meantime.
        let call = self.hosts[host as usize].calls.get(&token);
        if call.is_some_and(|call| matches!(call.state, CallState::Waiting(_))) {
            self.end_call(host, token, result);
        }
    }

    fn send_call(
        &mut self,
        from: u32,
        token: CallToken,
        index: usize,
        mut message: RequestMessage,
    ) {
        let now = self.now_at(from).mono;
        let Some(deadline) = self.hosts[from as usize].calls.get(&token).map(|call| call.deadline)
        else {
            return;
        };
        let Some(connection) = self.connection(index) else {
            return self.end_soon(from, token, Err(CallFailure::NotSent));
        };
        let wanted = message.envelope.to;
        if wanted.is_some() && wanted != connection.peer() {
            let refusal = Response::refused(RefusalCode::WrongNode, "another node stands here now");
            return self.end_soon(from, token, Ok(refusal));
        }
        let id = connection.next_id;
        connection.next_id += 1;
        connection.calls.insert(id, token);
        let known = connection.known;
        self.set_state(from, token, CallState::Sent { connection: index, id });
        let timeout_ms = deadline.since_ms(now).max(1);
        message.envelope.sent_ms = now.as_millis();
        message.envelope.timeout_ms = timeout_ms;
        let Envelope { sent_ms, timeout_ms, .. } = message.envelope;
        let header = Header {
            opcode: Opcode::Request,
            more: false,
            id,
            sent_ms: sent_ms as u32,
            timeout_ms: u32::try_from(timeout_ms).unwrap_or(u32::MAX),
        };
        // The message leaves out the fields of the frame's header.
        let known = Envelope { sent_ms, timeout_ms, ..known };
        self.counts.calls += 1;
        self.send_frames(index, 0, header, |out| match &message.request {
            Request::Get { key } if message.envelope.seen == 0 => {
                RequestMessage::encode_get(out, key.as_bytes());
            }
            _ => message.encode_to(out, &known, now),
        });
    }

    /// Sends the response to request `id` of a connection.
    pub(super) fn respond(&mut self, index: usize, id: u32, response: &Response) {
        let Some(host) = self.connection(index).map(|connection| connection.ends[1].host) else {
            return;
        };
        let sent_ms = self.now_at(host).mono.as_millis() as u32;
        let header =
            Header { opcode: Opcode::Response, more: false, id, sent_ms, timeout_ms: NO_TIMEOUT };
        self.send_frames(index, 1, header, |out| response.encode_to(out));
    }

    /// Reads the responses that have come on a connection.
    pub(super) fn read_responses(&mut self, index: usize, latency: Latency) {
        let ignores_lateness = self.variant.ignores_lateness();
        let Some([host, from]) =
            self.connection(index).map(|connection| connection.ends.map(|end| end.host))
        else {
            return;
        };
        let (now, now_us) = (self.now_at(host).mono, self.now_us);
        let mut ended = Vec::new();
        let Some(connection) = self.connection(index) else { return };
        connection.heard_us = now_us;
        loop {
            let reader = &mut connection.directions[1].reader;
            let (header, delay_ms, message) = match reader.next(now) {
                Ok(None) => break,
                Ok(Some((header, delay_ms, Incoming::Small(_)))) => {
                    (header, delay_ms, reader.take())
                }
                Ok(Some((header, delay_ms, Incoming::Large(message)))) => {
                    (header, delay_ms, message)
                }
                Ok(Some(_)) => continue,
                Err(error) => {
                    self.checker.protocol_error(&format!("a node sends no frames: {error}"));
                    return;
                }
            };
            connection.overdue.remove(&header.id);
            let delay_ms = if ignores_lateness { 0 } else { delay_ms };
            ended.extend(
                connection.calls.remove(&header.id).map(|token| (token, delay_ms, message)),
            );
        }
        for (token, delay_ms, message) in ended {
            let result =
                self.decode_response(message).map(|response| response.delayed_by(delay_ms));
            if let Ok(Response::Items { items, .. }) = &result {
                trace!(self, "{from} sends {host} {} items", items.len());
                self.record_fetched((from, host), items, latency);
            }
            if let Ok(Response::Found { value, .. }) = &result {
                // A node may keep what an owner gives.
                self.record_journey((from, host), value, latency);
            }
            self.end_call(host, token, result);
        }
    }

    fn decode_response(&mut self, message: Bytes) -> Result<Response, CallFailure> {
        Response::decode(message).map_err(|error| {
            self.checker.protocol_error(&format!("a response does not decode: {error}"));
            CallFailure::NoAnswer
        })
    }

    /// The time of a call is up.
    pub(super) fn call_timeout(&mut self, host: u32, life: u32, token: CallToken) {
        if !self.lives(host, life) {
            return;
        }
        let now_us = self.now_us;
        let Some(call) = self.hosts[host as usize].calls.get(&token) else { return };
        let failure = match call.state {
            CallState::Sent { connection: index, id } => {
                let started_us = call.started_us;
                if let Some(connection) = self.connection(index) {
                    connection.calls.remove(&id);
                    let is_first = connection.overdue.is_empty();
                    connection.overdue.insert(id, started_us);
                    if is_first {
                        self.schedule(now_us, Event::Silence { connection: index });
                    }
                }
                CallFailure::NoAnswer
            }
            CallState::Waiting(_) | CallState::Finishing => CallFailure::NotSent,
        };
        self.end_call(host, token, Err(failure));
    }

    fn end_soon(&mut self, host: u32, token: CallToken, result: Result<Response, CallFailure>) {
        let life = self.hosts[host as usize].life;
        let result = Box::new(result);
        self.schedule(self.now_us, Event::CallEnded { host, life, token, result });
    }

    /// Passes the result of a call to its caller.
    pub(super) fn end_call(
        &mut self,
        host: u32,
        token: CallToken,
        result: Result<Response, CallFailure>,
    ) {
        let Some(call) = self.hosts[host as usize].calls.remove(&token) else { return };
        let elapsed_us = self.now_us - call.started_us;
        match self.client_at(host) {
            Some(client) => self.client_answered(client, token, result, elapsed_us),
            None => self.node_answered(host, token, result, elapsed_us),
        }
    }
}
