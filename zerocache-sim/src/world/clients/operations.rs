//! Operations of clients: the first request, then the ladder, and what an answer settles.

use zerocache_core::{
    call::CallFailure,
    route::{Attempt, Budget, TierBounds, Walk},
    time::Instant,
    version::Version,
    wire::{RefusalCode, Request, Response},
};

use super::{
    super::{Event, World, trace},
    OwnWrite, PendingRequest, Purpose, REMEMBERED_MS, Running,
};
use crate::{
    checker::AcknowledgedWrite,
    workload::{Operation, WriteId, value},
};

impl World {
    /// Begins the next operation of a client, and plans the one after it.
    pub(in crate::world) fn operate(&mut self, client: u32) {
        if self.now_us >= self.plan.heal_us {
            return;
        }
        let wait_us = self.random.around(self.plan.workload.interval_us).max(1);
        self.schedule_in(wait_us, Event::ClientOperation(client));
        let client = client as usize;
        let (key, operation) = Operation::draw(&mut self.random, &self.plan.workload);
        let id = self.checker.planned(key, &operation);
        self.counts.operations += 1;
        match operation {
            Operation::Compute(computation) => self.begin_computing(client, key, id, computation),
            operation => self.begin_operation(client, (key, operation), id, None),
        }
    }

    /// Begins to read or write; with the leave under which a value was computed.
    pub(super) fn begin_operation(
        &mut self,
        client: usize,
        (key, operation): (usize, Operation),
        id: WriteId,
        token: Option<Version>,
    ) {
        let now = self.client_now(client);
        let bounds = TierBounds::default();
        let budget = Budget::new(now, bounds.total_ms);
        let mut running = Running {
            key,
            operation,
            token,
            id,
            budget,
            turn: None,
            walk: None,
            asked: None,
            missed: false,
            refused: false,
            own: None,
            written: None,
        };
        if running.is_read() {
            running.own = self.checker.own(client, key);
        }
        let host = self.host_of(client as u32);
        let remembers = running.is_read() && !self.variant.forgets_own_writes();
        running.written = if remembers { self.own_write(client, key, now) } else { None };
        let first = running.written.map(|own| own.node);
        let directory = &mut self.clients[client].directory;
        let begun = if token.is_some() {
            // The shortest way has no place for a token.
            None
        } else if running.is_read() {
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
        let plan = if running.is_read() {
            directory.plan_read(now, first)
        } else {
            directory.plan_write(now)
        };
        let mut walk = Walk::new(plan, bounds, budget);
        if !running.expect_soon() {
            walk = walk.with_whole_budget();
        }
        running.walk = Some(walk);
        self.clients[client].operations.insert(serial, running);
        self.step_on(client, serial);
    }

    fn own_write(&self, client: usize, key: usize, now: Instant) -> Option<OwnWrite> {
        let (write, at) = self.clients[client].own_writes.get(&self.keys[key].hash())?;
        (now.since_ms(*at) < REMEMBERED_MS).then_some(*write)
    }

    fn ask(&mut self, client: usize, serial: u64, attempt: Attempt) {
        let now = self.client_now(client);
        let at = &mut self.clients[client];
        let Some(running) = at.operations.get_mut(&serial) else { return };
        let Attempt { step, timeout_ms } = attempt;
        let expect_soon = running.expect_soon();
        if expect_soon && running.walk.is_some() {
            at.directory.request_sent(step.node, now);
        }
        running.asked = Some(PendingRequest { step, timeout_ms, expect_soon, seen: at.seen });
        let key = self.keys[running.key].clone();
        let token = running.token.filter(|_| !self.variant.forgets_tokens());
        let request = match running.operation.clone() {
            Operation::Get | Operation::Compute(_) => Request::Get { key },
            Operation::Put { bytes, ttl, ack } => {
                let value = value(running.id, bytes);
                Request::Put { key, value, metadata: bytes::Bytes::new(), ttl, ack, token }
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
            if running.is_read() {
                self.check_own(client, &running, None);
            }
        }
    }

    /// A try of an operation has ended.
    pub(super) fn tried(
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
            Ok(response) => {
                let elapsed_us = asked.expect_soon.then_some(elapsed_us);
                let node = asked.step.node;
                let is_its = at.directory.record_response(node, &response, now, elapsed_us);
                if is_its { Ok(response) } else { Err(CallFailure::NotSent) }
            }
            Err(failure) => {
                let patient = asked.timeout_ms >= TierBounds::default().of(asked.step.tier);
                match failure {
                    CallFailure::NoAnswer if patient => {
                        at.directory.request_timed_out(asked.step.node, now);
                    }
                    CallFailure::NoAnswer => {}
                    _ => at.directory.request_failed(asked.step.node, now),
                }
                Err(failure)
            }
        };
        let is_read = at.operations.get(&serial).is_some_and(Running::is_read);
        let found = match &result {
            Ok(Response::Found { version, .. }) => Some(*version),
            _ => None,
        };
        let is_over = if is_read {
            self.judge_read(client, serial, asked, result)
        } else {
            self.judge_write(client, serial, asked, result)
        };
        if is_over {
            if let Some(running) = self.clients[client].operations.remove(&serial)
                && is_read
            {
                self.check_own(client, &running, found);
            }
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
        asked: PendingRequest,
        result: Result<Response, CallFailure>,
    ) -> bool {
        let now = self.client_now(client);
        let at = &mut self.clients[client];
        let Some(running) = at.operations.get_mut(&serial) else { return true };
        match result {
            Ok(Response::Found { version, .. })
                if running.written.is_some_and(|own| own.version > Some(version)) =>
            {
                at.seen = at.seen.max(version.stamp());
                running.missed = true;
                false
            }
            Ok(Response::Found { value, version, .. }) => {
                at.directory.record_hit(asked.step.node);
                at.seen = at.seen.max(version.stamp());
                let key = running.key;
                at.found.insert(key, version);
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
                let believed = |own: OwnWrite| own.is_delete || own.node == asked.step.node;
                let is_final = walk.is_none_or(|walk| walk.missed(&asked.step, warming))
                    && running.written.is_none_or(believed);
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
        asked: PendingRequest,
        result: Result<Response, CallFailure>,
    ) -> bool {
        let now = self.client_now(client);
        let at = &mut self.clients[client];
        let Some(running) = at.operations.get_mut(&serial) else { return true };
        match result {
            Ok(Response::Written(written)) => {
                let hash = self.keys[running.key].hash();
                let (key, id) = (running.key, running.id);
                let is_delete = matches!(running.operation, Operation::Delete { .. });
                let (node, version) = (asked.step.node, written.version);
                let last = at.own_writes.entry(hash);
                let (last, at_last) = last.or_insert((OwnWrite { node, version, is_delete }, now));
                if version >= last.version {
                    *last = OwnWrite { node, version, is_delete };
                }
                *at_last = now;
                if let Some(version) = written.version {
                    at.seen = at.seen.max(version.stamp());
                    // A token is not above what was seen since.
                    let seen = if running.token.is_some() { 0 } else { asked.seen };
                    self.checker.written(key, id, version, seen);
                    let at_us = self.now_us;
                    let own = AcknowledgedWrite { node, version, is_delete, at_us };
                    self.checker.accepted_from(client, key, own);
                    if is_delete {
                        self.checker.deleted(key, id);
                    }
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

pub(super) fn is_invalid(code: RefusalCode) -> bool {
    matches!(code, RefusalCode::BadKey | RefusalCode::TooLarge | RefusalCode::BadMessage)
}
