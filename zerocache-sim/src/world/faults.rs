//! Faults begin and end.

use std::collections::BTreeMap;

use bytes::Bytes;
use zerocache_core::{
    entry::{Change, Record},
    node::{Input, RequestId},
    wire::{Envelope, Request, RequestMessage, Shipment, cluster_id},
};

use super::{Event, World, dial::CLUSTER, nodes::Reply, trace};
use crate::{clock::Clock, faults::Fault, plan::Profile};

/// A process that stood still for longer than this, in microseconds, refuses what came over HTTP.
const PAUSE_US: u64 = 2_000_000;

/// For so long after that.
const AFTER_PAUSE_US: u64 = 250_000;

/// What a process leaves behind for the next one in its place.
#[derive(Debug)]
pub(super) struct Memory {
    clock: Clock,
    records: Vec<Record>,
}

impl World {
    pub(super) fn begin_fault(&mut self, index: usize) {
        let fault = self.plan.faults[index].fault.clone();
        trace!(self, "begins: {fault:?}");
        *self.counts.faults.entry(fault.kind()).or_default() += 1;
        let id = index as u64;
        match fault {
            Fault::Weather { area, loss_permille, delay_us, jitter_us } => {
                self.network.weather(id, &area, loss_permille, (delay_us, jitter_us));
            }
            Fault::Cut(area) => self.network.cut(id, &area),
            Fault::Crash { node, quiet, memory } => {
                if memory {
                    self.keep_memory(node);
                }
                self.stop(node, quiet);
            }
            Fault::Freeze(host) => {
                let now_us = self.now_us;
                let host = &mut self.hosts[host as usize];
                if host.is_up {
                    host.frozen_since_us.get_or_insert(now_us);
                }
            }
            Fault::WallJump { node, ms } => self.hosts[node as usize].skew_ms += ms,
            Fault::Slow { node, us } => self.hosts[node as usize].slow_us = us,
            Fault::Leave(node) => self.leave(node),
            Fault::Join(node) => self.start(node),
        }
    }

    pub(super) fn end_fault(&mut self, index: usize) {
        let fault = self.plan.faults[index].fault.clone();
        trace!(self, "ends: {fault:?}");
        match fault {
            Fault::Weather { .. } => self.network.calm(index as u64),
            Fault::Cut(_) => {
                self.network.calm(index as u64);
                self.release_held();
            }
            Fault::Crash { node, .. } => self.start(node),
            Fault::Freeze(host) => self.thaw(host),
            Fault::Slow { node, .. } => self.hosts[node as usize].slow_us = 0,
            // Its process may still be draining: the next one starts once it is gone.
            Fault::Leave(node) if self.nodes[node as usize].is_some() => {
                self.schedule_in(100_000, Event::Fault { index, begins: false });
            }
            Fault::Leave(node) => self.start(node),
            Fault::WallJump { node, ms } if self.plan.profile != Profile::Clocks => {
                self.hosts[node as usize].skew_ms -= ms;
            }
            Fault::WallJump { .. } | Fault::Join(_) => {}
        }
    }

    /// Ends the process of a node; its machine says so unless it is quiet.
    pub(super) fn stop(&mut self, host: u32, is_quiet: bool) {
        let index = host as usize;
        if self.nodes[index].take().is_none() {
            return;
        }
        trace!(self, "{host} ends");
        let life = self.hosts[index].life;
        self.hosts[index].is_up = false;
        self.hosts[index].is_quiet = is_quiet;
        self.hosts[index].end_process();
        self.checker.ended(host);
        for connection in 0..self.connections.len() {
            for end in 0..2 {
                let Some(at) = self.connection(connection).map(|c| c.ends[end]) else { continue };
                if at.host == host && at.life == life && at.is_open {
                    self.close_end(connection, end);
                    if !is_quiet {
                        self.tell_closed(connection, 1 - end);
                    }
                }
            }
        }
    }

    /// A process goes on, and finds what came meanwhile: what it reads first is not said.
    fn thaw(&mut self, host: u32) {
        let now_us = self.now_us;
        let at = &mut self.hosts[host as usize];
        let Some(since_us) = at.frozen_since_us.take() else { return };
        if now_us - since_us > PAUSE_US {
            at.pause_until_us = now_us + AFTER_PAUSE_US;
        }
        let backlog = std::mem::take(&mut at.backlog);
        let mut arrived: BTreeMap<(usize, usize), usize> = BTreeMap::new();
        let (mut first, mut last) = (Vec::new(), Vec::new());
        for event in backlog {
            match event {
                Event::Arrive { connection, way } => {
                    *arrived.entry((connection, way)).or_default() += 1;
                }
                Event::Closed { .. }
                | Event::CallTimeout { .. }
                | Event::DialTimeout(_)
                | Event::Silence { .. } => last.push(event),
                other => first.push(Some(other)),
            }
        }
        let mut order: Vec<_> = arrived.into_iter().map(Some).collect();
        order.resize_with(order.len() + first.len(), || None);
        self.random.shuffle(&mut order);
        let mut others = first.into_iter();
        for batch in order {
            match batch {
                // All that has come on a connection is read together.
                Some(((connection, way), count)) => {
                    if let Some(journey) = self.take_in(connection, way, count) {
                        self.read(connection, way, journey);
                    }
                }
                None => {
                    if let Some(Some(event)) = others.next() {
                        self.happen(event);
                    }
                }
            }
        }
        // A deadline that passed meanwhile does not count against an answer that is there.
        for event in last {
            self.happen(event);
        }
    }

    /// Keeps what a node holds for its next process.
    fn keep_memory(&mut self, host: u32) {
        let now = self.now_at(host);
        let Some(process) = self.nodes[host as usize].as_ref() else { return };
        let record = |key: &zerocache_core::key::Key| {
            let entry = process.store.peek(key, now);
            let version = process.store.version(key.hash())?;
            let change = match entry.filter(|entry| entry.version == version) {
                None => Change::Delete,
                Some(entry) => Change::Put {
                    value: Bytes::copy_from_slice(&entry.value),
                    metadata: entry.metadata,
                    expires: entry.expires,
                },
            };
            Some(Record { key: key.clone(), version, change })
        };
        let records = self.keys.iter().filter_map(record).collect();
        let clock = self.hosts[host as usize].clock;
        self.memories.insert(host, Memory { clock, records });
    }

    /// Gives a new process what the one before it kept, before it joins.
    pub(super) fn restore_memory(&mut self, host: u32) {
        let Some(memory) = self.memories.remove(&host) else { return };
        let (before, now) = (memory.clock.mono(self.now_us), self.now_at(host));
        let mut shipments = Vec::new();
        for mut record in memory.records {
            if let Change::Put { expires, .. } = &mut record.change {
                // The machine knows how long the process was gone.
                *expires = now.mono.plus_ms(expires.since_ms(before));
            }
            self.checker.restored(host, &record);
            shipments.push(Shipment { record, relay: false });
        }
        let envelope = Envelope { cluster: cluster_id(CLUSTER), ..Envelope::default() };
        let message = RequestMessage { envelope, request: Request::Replicate(shipments) };
        let id = RequestId(u64::MAX);
        if let Some(process) = self.nodes[host as usize].as_mut() {
            process.replies.insert(id, Reply::Kept(None));
        }
        self.node_input(host, vec![Input::Request { id, message }]);
        if let Some(process) = self.nodes[host as usize].as_mut() {
            process.replies.remove(&id);
        }
    }

    /// A datagram arrives.
    pub(super) fn datagram(&mut self, _from: u32, to: u32, life: u32, _bytes: Bytes) {
        if self.lives(to, life) {
            self.counts.datagrams += 1;
        }
    }
}
