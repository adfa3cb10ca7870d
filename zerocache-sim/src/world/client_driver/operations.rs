//! Reads and writes of one key.

use bytes::Bytes;
use zerocache_core::{
    call::CallResult,
    client::{
        Action, AttemptId, ConditionalOperation, Event as Input, FoundItem, Operation as Machine,
        Outgoing, Reaction, ReadOptions, ReadResult, ReadRules, WriteResult, WriteRules,
    },
    time::Instant,
    ttl::Ttl,
    version::{Incarnation, Version},
    wire::{Ack, Request, Response, Status, Written},
};

use super::{
    super::{Event, World, trace},
    Purpose,
    conditions::RunningConditional,
    near::{NearFill, NearValue},
    purges::RunningPurge,
};
use crate::{
    checker::{AcknowledgedWrite, Rule},
    workload::{Operation, WriteId, value},
};

/// An operation on one key, until all its answers have come.
pub(super) struct RunningOperation {
    machine: KeyMachine,
    /// The attempts whose answers have not come.
    pending: usize,
    is_over: bool,
}

pub(super) enum KeyMachine {
    Read(RunningRead, Machine<ReadRules>),
    Write(RunningWrite, Machine<WriteRules>),
    Purge(RunningPurge, Machine<WriteRules>),
    Conditional(RunningConditional, ConditionalOperation),
}

/// A read of a key, as the checker sees it.
#[derive(Clone, Copy)]
pub(in crate::world) struct RunningRead {
    pub(in crate::world) key: usize,
    /// The write of its client that it has to see.
    pub(in crate::world) own: Option<AcknowledgedWrite>,
    /// What it finds may be kept near.
    pub(super) near: Option<NearFill>,
}

/// A write of a key.
#[derive(Clone)]
pub(super) struct RunningWrite {
    pub(super) key: usize,
    pub(super) id: WriteId,
    pub(super) operation: Operation,
    /// The lease under which the value was computed.
    pub(super) token: Option<Version>,
    /// The highest stamp that the client had seen when it sent the last request.
    pub(super) seen: u64,
    /// What it writes may be kept near.
    near: Option<NearFill>,
}

impl RunningWrite {
    pub(super) fn ack(&self) -> Ack {
        match self.operation {
            Operation::Put { ack, .. } | Operation::Delete { ack } => ack,
            _ => Ack::Local,
        }
    }

    /// The bytes of its value; none for a delete.
    pub(super) fn value_bytes(&self) -> Option<u64> {
        match self.operation {
            Operation::Put { bytes, .. } => Some(bytes as u64),
            _ => None,
        }
    }

    pub(super) fn rules(&self, world: &World) -> WriteRules {
        WriteRules::new(world.keys[self.key].as_bytes(), self.value_bytes(), self.ack())
    }

    pub(super) fn request(&self, world: &World) -> Request {
        let key = world.keys[self.key].clone();
        let token = self.token.filter(|_| !world.variant.forgets_tokens());
        match self.operation {
            Operation::Put { bytes, ttl, ack } => {
                let value = value(self.id, bytes);
                let metadata = world.metadata_of(self.id, ttl);
                let version = token.into();
                Request::Put { key, value, metadata, ttl, ack, version }
            }
            _ => Request::Delete { key, ack: self.ack() },
        }
    }
}

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
        self.counts.operations += 1;
        match operation {
            Operation::GetMany(keys) => self.begin_read_many(client, keys),
            Operation::WriteMany(writes) => self.begin_write_many(client, writes),
            operation => {
                let id = self.checker.planned(key, &operation);
                match operation {
                    Operation::Compute(computation) => {
                        self.begin_computing(client, key, id, computation);
                    }
                    Operation::Get => self.begin_read(client, key, id),
                    Operation::WriteIf(plan) => self.begin_write_if(client, (key, plan), id),
                    operation => self.begin_write(client, (key, operation), id, None),
                }
            }
        }
    }

    fn begin_read(&mut self, client: usize, key: usize, serial: u64) {
        let read = self.new_read(client, key);
        let Some(read) = self.read_near(client, read) else { return };
        let rules = self.read_rules(key);
        let (now, total_ms) = self.start_of(client);
        let machine = KeyMachine::Read(read, Machine::new(rules, now, total_ms));
        self.begin_operation(client, serial, machine);
    }

    /// Begins to write, with the lease under which the value was computed.
    pub(super) fn begin_write(
        &mut self,
        client: usize,
        (key, operation): (usize, Operation),
        id: WriteId,
        token: Option<Version>,
    ) {
        let write = self.new_write(client, (key, operation), id, token);
        let (now, total_ms) = self.start_of(client);
        let machine = Machine::new(write.rules(self), now, total_ms);
        self.begin_operation(client, id, KeyMachine::Write(write, machine));
    }

    pub(super) fn begin_operation(&mut self, client: usize, serial: u64, machine: KeyMachine) {
        let running = RunningOperation { machine, pending: 0, is_over: false };
        self.clients[client].operations.insert(serial, running);
        self.drive(client, serial, Input::Start);
    }

    /// The present time of a client, and how long an operation may take.
    pub(super) fn start_of(&self, client: usize) -> (Instant, u64) {
        (self.client_now(client), self.clients[client].state.bounds().total_ms)
    }

    pub(super) fn read_rules(&self, key: usize) -> ReadRules {
        ReadRules::new(self.keys[key].as_bytes(), &ReadOptions::default())
    }

    /// The metadata of the value of a write: tags and stale times, if there are purges.
    pub(super) fn metadata_of(&self, id: WriteId, ttl: Ttl) -> Bytes {
        match self.plan.registers.is_empty() {
            true => Bytes::new(),
            false => crate::purges::metadata(id, ttl.as_millis()),
        }
    }

    /// A read that begins now.
    pub(super) fn new_read(&self, client: usize, key: usize) -> RunningRead {
        RunningRead { key, own: self.checker.own(client, key), near: None }
    }

    /// A write that begins now.
    pub(super) fn new_write(
        &mut self,
        client: usize,
        (key, operation): (usize, Operation),
        id: WriteId,
        token: Option<Version>,
    ) -> RunningWrite {
        let near = self.begin_near_write(client, key);
        // Every other one is kept.
        let near = near.filter(|_| id.is_multiple_of(2));
        RunningWrite { key, id, operation, token, seen: 0, near }
    }

    /// An attempt of an operation or batch has ended.
    pub(super) fn attempt_answered(
        &mut self,
        client: usize,
        serial: u64,
        id: AttemptId,
        result: CallResult,
        elapsed_us: u64,
    ) {
        let at = &mut self.clients[client];
        if let Some(running) = at.operations.get_mut(&serial) {
            running.pending -= 1;
        }
        self.drive(client, serial, Input::Answer { id, result, elapsed_us });
        let at = &mut self.clients[client];
        let is_done = |running: &mut RunningOperation| running.is_over && running.pending == 0;
        if at.operations.get_mut(&serial).is_some_and(is_done) {
            at.operations.remove(&serial);
        }
    }

    /// Passes an event to the machine of an operation or batch, and carries out its action.
    pub(super) fn drive(&mut self, client: usize, serial: u64, input: Input) {
        let now = self.client_now(client);
        let at = &mut self.clients[client];
        let Some(running) = at.operations.get_mut(&serial) else {
            return self.drive_batch(client, serial, input);
        };
        match &mut running.machine {
            KeyMachine::Read(read, machine) => {
                let read = *read;
                let Reaction { action, .. } = machine.on(now, input, &mut at.state);
                if let Some(result) = self.act(client, serial, action) {
                    self.read_completed(client, read, result);
                }
            }
            KeyMachine::Write(write, machine) => {
                let written = written(&input);
                let Reaction { ended, action } = machine.on(now, input, &mut at.state);
                let write = write.clone();
                let answered = ended.map(|ended| (ended.step.node, self.now_us));
                self.write_answered(client, write.key, written);
                if let Some(result) = self.act(client, serial, action) {
                    self.write_completed(client, &write, answered, result);
                }
            }
            KeyMachine::Conditional(write, machine) => {
                let written = written(&input);
                let Reaction { ended, action } = machine.on(now, input, &mut at.state);
                let write = write.clone();
                let answered = ended.map(|ended| (ended.step.node, self.now_us));
                self.write_answered(client, write.key, written);
                if let Some(result) = self.act(client, serial, action) {
                    self.write_if_completed(client, &write, answered, result);
                }
            }
            KeyMachine::Purge(purge, machine) => {
                let purge = *purge;
                let Reaction { action, .. } = machine.on(now, input, &mut at.state);
                if let Some(result) = self.act(client, serial, action) {
                    self.purge_completed(client, purge, &result);
                }
            }
        }
    }

    /// Carries out the action of a machine. Returns its outcome when it is over.
    fn act<T>(&mut self, client: usize, serial: u64, action: Action<T>) -> Option<T> {
        match action {
            Action::Wait => None,
            Action::Send { request, timer_us } => {
                if let Some(timer_us) = timer_us {
                    let client = client as u32;
                    self.schedule_in(timer_us, Event::ClientTimer { client, serial });
                }
                self.send_attempt(client, serial, &request);
                None
            }
            Action::AwaitNodes { until } => {
                self.await_nodes(client, serial, until);
                None
            }
            Action::Done(outcome) => {
                let at = &mut self.clients[client];
                if let Some(running) = at.operations.get_mut(&serial) {
                    running.is_over = true;
                    if running.pending == 0 {
                        at.operations.remove(&serial);
                    }
                }
                Some(outcome)
            }
        }
    }

    pub(super) fn await_nodes(&mut self, client: usize, serial: u64, until: Instant) {
        let wait_ms = until.since_ms(self.client_now(client));
        self.clients[client].awaiting.insert(serial);
        let client = client as u32;
        self.schedule_in(wait_ms.max(1) * 1_000, Event::ClientTimer { client, serial });
    }

    fn send_attempt(&mut self, client: usize, serial: u64, outgoing: &Outgoing) {
        let stable_us = self.stable_since(client);
        let Some(running) = self.clients[client].operations.get_mut(&serial) else { return };
        running.pending += 1;
        let request = match &mut running.machine {
            KeyMachine::Read(read, _) => {
                self.counts.hedged += u64::from(outgoing.is_hedge);
                Request::Get { key: self.keys[read.key].clone() }
            }
            KeyMachine::Write(write, _) => {
                write.seen = outgoing.seen;
                let write = write.clone();
                if outgoing.is_hedge {
                    let text = format!("client {client} hedges write {}", write.id);
                    self.checker.violate(Rule::Hedged, text);
                }
                write.request(self)
            }
            KeyMachine::Conditional(write, _) => {
                (write.seen, write.stable_us) = (outgoing.seen, stable_us);
                let write = write.clone();
                write.request(self)
            }
            KeyMachine::Purge(purge, _) => {
                purge.seen = outgoing.seen;
                let purge = *purge;
                if outgoing.is_hedge {
                    self.checker.violate(Rule::Hedged, format!("client {client} hedges a purge"));
                }
                self.purge_request(purge)
            }
        };
        let purpose = Purpose::Attempt { operation: serial, id: outgoing.id };
        self.send_planned(client, purpose, outgoing, request);
    }

    /// A read of a client is over.
    pub(super) fn read_completed(&mut self, client: usize, read: RunningRead, result: ReadResult) {
        let mut found = None;
        match result {
            ReadResult::Found(step, item) => {
                found = Some(item.version);
                self.clients[client].found.insert(read.key, item.version);
                self.checker.received(read.key, item.version, &item.value);
                let FoundItem { value, metadata, version, remaining_ms } = item;
                let node = step.node;
                let kept = NearValue { value, metadata, version, remaining_ms, node };
                self.keep_near(client, (read.key, read.near), kept);
            }
            ReadResult::Miss { .. } => self.counts.misses += 1,
            ReadResult::Refused(_) | ReadResult::Denied(..) => return self.counts.invalid += 1,
            ReadResult::Unreachable { .. } => self.counts.unreachable += 1,
        }
        self.check_own(client, &read, found);
    }

    /// A node has answered a write of a client, if it did. One of many may be answered long before all are.
    pub(super) fn write_answered(&mut self, client: usize, key: usize, written: Option<Written>) {
        if let Some(version) = written.and_then(|written| written.version) {
            self.checker.answered(client, key, version);
        }
    }

    /// A write of a client is over; a node answered it at a time.
    pub(super) fn write_completed(
        &mut self,
        client: usize,
        write: &RunningWrite,
        answered: Option<(Incarnation, u64)>,
        result: WriteResult,
    ) {
        match result {
            WriteResult::Written(written) => {
                self.counts.written += 1;
                self.end_near_write(client, write.key, written.version);
                self.keep_written(client, write, written);
                let is_delete = matches!(write.operation, Operation::Delete { .. });
                let (Some(version), Some((node, at_us))) = (written.version, answered) else {
                    return;
                };
                // A token is not above the versions that were seen since.
                let seen = if write.token.is_some() { 0 } else { write.seen };
                self.checker.written(write.key, write.id, version, seen);
                let own = AcknowledgedWrite { node, version, is_delete, at_us };
                self.checker.accepted_from(client, write.key, own);
                if is_delete {
                    self.checker.deleted(write.key, write.id);
                }
            }
            WriteResult::Unknown => {
                self.counts.unknown += 1;
                self.end_near_write(client, write.key, None);
                trace!(self, "write of client {client}: outcome unknown");
            }
            WriteResult::TooLarge { .. } | WriteResult::Invalid(_) | WriteResult::Denied(..) => {
                self.counts.invalid += 1
            }
            WriteResult::Refused | WriteResult::Unreachable => self.counts.unreachable += 1,
        }
    }

    /// Keeps a value near that was stored.
    fn keep_written(&self, client: usize, write: &RunningWrite, written: Written) {
        let (Status::Stored, Some(version)) = (written.status, written.version) else { return };
        let Operation::Put { bytes, ttl, .. } = write.operation else { return };
        let (value, remaining_ms) = (value(write.id, bytes), ttl.as_millis());
        let (metadata, node) = (self.metadata_of(write.id, ttl), version.incarnation());
        let kept = NearValue { value, metadata, version, remaining_ms, node };
        self.keep_near(client, (write.key, write.near), kept);
    }
}

/// What a node answered to a write, if the input says so.
pub(super) const fn written(input: &Input) -> Option<Written> {
    match input {
        Input::Answer { result: Ok(Response::Written(written)), .. } => Some(*written),
        _ => None,
    }
}
