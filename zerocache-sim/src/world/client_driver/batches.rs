//! Reads and writes of many keys.

use std::collections::BTreeMap;

use zerocache_core::{
    client::{
        AttemptId, Batch, BatchAction, BatchReaction, BatchRequest, Event as Input, ReadRules,
        WriteRules,
    },
    version::Incarnation,
    wire::Request,
};

use super::{
    super::{Event, World},
    Purpose,
    operations::{RunningRead, RunningWrite, written},
};
use crate::{checker::Rule, workload::Operation};

/// An operation on many keys, until all its answers have come.
pub(super) struct RunningBatch {
    keys: BatchKeys,
    /// The attempts whose answers have not come, each with the index of its key and its node.
    pending: BTreeMap<AttemptId, (usize, Incarnation)>,
    is_over: bool,
}

enum BatchKeys {
    Read(Vec<RunningRead>, Batch<ReadRules>),
    /// Each with the node that answered it, and when.
    Write(Vec<(RunningWrite, Option<(Incarnation, u64)>)>, Batch<WriteRules>),
}

impl World {
    pub(super) fn begin_read_many(&mut self, client: usize, keys: Vec<usize>) {
        let mut reads: Vec<_> = keys.iter().map(|key| self.new_read(client, *key)).collect();
        reads = reads.into_iter().filter_map(|read| self.read_near(client, read)).collect();
        let Some(first) = reads.first() else { return };
        let serial = self.checker.planned(first.key, &Operation::Get);
        let rules = reads.iter().map(|read| self.read_rules(read.key)).enumerate().collect();
        let (now, total_ms) = self.start_of(client);
        let keys = BatchKeys::Read(reads, Batch::new(rules, now, total_ms));
        self.begin_batch(client, serial, keys);
    }

    pub(super) fn begin_write_many(&mut self, client: usize, writes: Vec<(usize, Operation)>) {
        let write = |(key, operation): (usize, Operation)| {
            let id = self.checker.planned(key, &operation);
            self.new_write(client, (key, operation), id, None)
        };
        let writes: Vec<_> = writes.into_iter().map(write).collect();
        let Some(serial) = writes.first().map(|write| write.id) else { return };
        let rules = writes.iter().map(|write| write.rules(self)).enumerate().collect();
        let (now, total_ms) = self.start_of(client);
        let writes = writes.into_iter().map(|write| (write, None)).collect();
        let keys = BatchKeys::Write(writes, Batch::new(rules, now, total_ms));
        self.begin_batch(client, serial, keys);
    }

    fn begin_batch(&mut self, client: usize, serial: u64, keys: BatchKeys) {
        let running = RunningBatch { keys, pending: BTreeMap::new(), is_over: false };
        self.clients[client].batches.insert(serial, running);
        self.counts.batches += 1;
        self.drive_batch(client, serial, Input::Start);
    }

    /// Passes an event to the machine of a batch, and carries out its action.
    pub(super) fn drive_batch(&mut self, client: usize, serial: u64, input: Input) {
        let now = self.client_now(client);
        let at = &mut self.clients[client];
        let Some(mut running) = at.batches.remove(&serial) else { return };
        if let Input::Answer { id, .. } = &input
            && let Some((index, node)) = running.pending.remove(id)
            && let BatchKeys::Write(writes, _) = &mut running.keys
        {
            writes[index].1 = Some((node, self.now_us));
            self.write_answered(client, writes[index].0.key, written(&input));
        }
        let at = &mut self.clients[client];
        match &mut running.keys {
            BatchKeys::Read(reads, batch) => {
                let BatchReaction { action, .. } = batch.on(now, input, &mut at.state);
                let reads = reads.clone();
                if let Some(results) = self.act_batch(client, serial, &mut running, action) {
                    self.check_answered_once(client, reads.len(), &results);
                    for (index, result) in results {
                        self.read_completed(client, reads[index], result);
                    }
                }
            }
            BatchKeys::Write(writes, batch) => {
                let BatchReaction { action, .. } = batch.on(now, input, &mut at.state);
                let count = writes.len();
                if let Some(results) = self.act_batch(client, serial, &mut running, action) {
                    self.check_answered_once(client, count, &results);
                    let BatchKeys::Write(writes, _) = &running.keys else { return };
                    for (index, result) in results {
                        let (write, answered) = &writes[index];
                        self.write_completed(client, write, *answered, result);
                    }
                }
            }
        }
        if !running.is_over || !running.pending.is_empty() {
            self.clients[client].batches.insert(serial, running);
        }
    }

    /// Carries out the action of a batch. Returns its results when it is over.
    fn act_batch<T>(
        &mut self,
        client: usize,
        serial: u64,
        running: &mut RunningBatch,
        action: BatchAction<T>,
    ) -> Option<Vec<(usize, T)>> {
        match action {
            BatchAction::Wait => None,
            BatchAction::AwaitNodes { until } => {
                self.await_nodes(client, serial, until);
                None
            }
            BatchAction::Send { requests, timer_us } => {
                if let Some(timer_us) = timer_us {
                    let client = client as u32;
                    self.schedule_in(timer_us, Event::ClientTimer { client, serial });
                }
                for BatchRequest { request, keys } in requests {
                    self.counts.hedged += u64::from(request.is_hedge);
                    for (id, index) in (request.id.0..).map(AttemptId).zip(keys) {
                        running.pending.insert(id, (index, request.step.node));
                        let message = match &mut running.keys {
                            BatchKeys::Read(reads, _) => {
                                Request::Get { key: self.keys[reads[index].key].clone() }
                            }
                            BatchKeys::Write(..) if request.is_hedge => {
                                let text = format!("client {client} hedges the write of many keys");
                                self.checker.violate(Rule::Hedged, text);
                                continue;
                            }
                            BatchKeys::Write(writes, _) => {
                                writes[index].0.seen = request.seen;
                                writes[index].0.request(self)
                            }
                        };
                        let purpose = Purpose::Attempt { operation: serial, id };
                        self.send_planned(client, purpose, &request, message);
                    }
                }
                None
            }
            BatchAction::Done(results) => {
                running.is_over = true;
                Some(results)
            }
        }
    }

    /// A batch has one outcome for each of its keys.
    fn check_answered_once<T>(&mut self, client: usize, count: usize, results: &[(usize, T)]) {
        let mut indexes: Vec<_> = results.iter().map(|(index, _)| *index).collect();
        indexes.sort_unstable();
        if !indexes.iter().copied().eq(0..count) {
            let text =
                format!("client {client} asks for {count} keys, and gets those at {indexes:?}");
            self.checker.violate(Rule::Batch, text);
        }
    }
}
