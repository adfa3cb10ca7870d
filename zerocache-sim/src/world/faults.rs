//! Faults begin and end.

use std::{collections::BTreeMap, net::SocketAddr};

use bytes::Bytes;
use zerocache_core::{
    entry::Change,
    key::SHARDS,
    node::{Input, PersistedState},
    store::StoredItem,
};

use super::{Event, World, hosts, trace};
use crate::{clock::Clock, faults::Fault, profile::Profile};

/// A process that was suspended for longer than this, in microseconds, refuses requests over HTTP.
const PAUSE_US: u64 = 2_000_000;

/// The time after a suspension during which the process refuses them, in microseconds.
const AFTER_PAUSE_US: u64 = 250_000;

/// The state that a process persists for the next one in its place.
#[derive(Debug)]
pub(super) struct PersistedProcess {
    clock: Clock,
    at_us: u64,
    known: Vec<Vec<StoredItem>>,
    memory: PersistedState,
}

impl World {
    pub(super) fn begin_fault(&mut self, index: usize) {
        let fault = self.plan.faults[index].fault.clone();
        trace!(self, "begins: {fault:?}");
        *self.counts.faults.entry(fault.kind()).or_default() += 1;
        let id = index as u64;
        match fault {
            Fault::Impairment { area, loss_permille, delay_us, jitter_us } => {
                self.network.impair(id, &area, loss_permille, (delay_us, jitter_us));
            }
            Fault::Partition(area) => self.network.partition(id, &area),
            Fault::Crash { node, quiet, memory } => {
                if memory {
                    self.persist_process(node);
                }
                self.tear_disk(node, quiet);
                self.stop(node, quiet);
                self.crash_disk(node, quiet);
            }
            Fault::Freeze(host) => {
                let now_us = self.now_us;
                let host = &mut self.hosts[host as usize];
                if host.is_up {
                    host.frozen_since_us.get_or_insert(now_us);
                }
            }
            Fault::ClockJump { node, ms } => self.hosts[node as usize].skew_ms += ms,
            Fault::Slow { node, us } => self.hosts[node as usize].slow_us = us,
            Fault::Shutdown(node) => self.shut_down(node),
            Fault::Drain(node) => self.node_input(node, vec![Input::Drain]),
            Fault::Join(node) => self.start(node),
            Fault::Disk { node, fault } => self.begin_disk_fault(index, node, fault),
        }
    }

    pub(super) fn end_fault(&mut self, index: usize) {
        let fault = self.plan.faults[index].fault.clone();
        trace!(self, "ends: {fault:?}");
        match fault {
            Fault::Impairment { .. } => self.network.restore(index as u64),
            Fault::Partition(_) => {
                self.network.restore(index as u64);
                self.release_blocked();
            }
            Fault::Crash { node, .. } => self.start(node),
            Fault::Freeze(host) => self.resume_process(host),
            Fault::Drain(node) => self.node_input(node, vec![Input::Undrain]),
            Fault::Slow { node, .. } => self.hosts[node as usize].slow_us = 0,
            // Its process may still be draining: the next one starts once it is gone.
            Fault::Shutdown(node) if self.nodes[node as usize].is_some() => {
                self.schedule_in(100_000, Event::Fault { index, begins: false });
            }
            Fault::Shutdown(node) => self.start(node),
            Fault::ClockJump { node, ms } if self.plan.profile != Profile::Clocks => {
                self.hosts[node as usize].skew_ms -= ms;
            }
            Fault::Disk { node, .. } => self.end_disk_fault(index, node),
            Fault::ClockJump { .. } | Fault::Join(_) => {}
        }
    }

    /// Ends the process of a node; its machine resets the connections unless it has failed too.
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
                        self.notify_closed(connection, 1 - end);
                    }
                }
            }
        }
    }

    /// Resumes a process, which finds the messages that arrived in the meantime, in random order.
    fn resume_process(&mut self, host: u32) {
        let now_us = self.now_us;
        let at = &mut self.hosts[host as usize];
        let Some(since_us) = at.frozen_since_us.take() else { return };
        if now_us - since_us > PAUSE_US {
            at.pause_until_us = now_us + AFTER_PAUSE_US;
        }
        let backlog = std::mem::take(&mut at.backlog);
        if self.variant.hides_pauses() {
            self.pretend_to_tick(host, since_us);
        }
        let mut arrived: BTreeMap<(usize, usize), usize> = BTreeMap::new();
        let (mut first, mut last) = (Vec::new(), Vec::new());
        for event in backlog {
            match event {
                Event::Arrive { connection, direction } => {
                    *arrived.entry((connection, direction)).or_default() += 1;
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
                Some(((connection, direction), count)) => {
                    if let Some(latency) = self.take_in(connection, direction, count) {
                        self.read(connection, direction, latency);
                    }
                }
                None => {
                    if let Some(Some(event)) = others.next() {
                        self.happen(event);
                    }
                }
            }
        }
        // A deadline that passed in the meantime does not void an answer that has arrived.
        for event in last {
            self.happen(event);
        }
    }

    /// Keeps what a node knows for its next process.
    fn persist_process(&mut self, host: u32) {
        let now = self.now_at(host);
        let Some(process) = self.nodes[host as usize].as_ref() else { return };
        let known: Vec<_> = (0..SHARDS).map(|part| process.store.export(part, now)).collect();
        if self.plan.profile == Profile::Stops {
            for item in known.iter().flatten() {
                let (key, version) = match item {
                    StoredItem::Value(record) => (record.key.hash(), record.version),
                    StoredItem::Tombstone(key, version) => (*key, *version),
                };
                let saved = self.saved.entry(key).or_insert(version);
                *saved = version.max(*saved);
            }
        }
        let memory = process.node.persisted_state(now);
        let clock = self.hosts[host as usize].clock;
        self.persisted.insert(host, PersistedProcess { clock, at_us: self.now_us, known, memory });
    }

    /// Gives a new process what the one before it saved.
    pub(super) fn restore_process(&mut self, host: u32, life: u32) {
        if !self.lives(host, life) {
            return;
        }
        if self.disks.contains_key(&host) {
            return self.open_disk(host, true);
        }
        let mut inputs = Vec::new();
        let is_aside = self.variant.sets_snapshots_aside()
            && (0..self.nodes.len() as u32).any(|other| self.is_in_sync(other));
        let saved = self.persisted.remove(&host).filter(|_| !is_aside);
        let (before, now) = match &saved {
            Some(saved) => (saved.clock.mono(self.now_us), self.now_at(host).mono),
            None => return self.node_input(host, vec![Input::RestoreComplete(None)]),
        };
        for mut part in saved.iter().flat_map(|saved| saved.known.clone()) {
            for known in &mut part {
                let StoredItem::Value(record) = known else { continue };
                if let Change::Put { expires, .. } = &mut record.change {
                    // The machine knows how long the process was gone.
                    *expires = now.plus_ms(expires.since_ms(before));
                }
                self.checker.restored(host, record);
            }
            inputs.push(Input::RestoredItems(part));
        }
        let memory = saved.map(|saved| PersistedState {
            away_ms: (self.now_us - saved.at_us) / 1_000,
            ..saved.memory
        });
        trace!(self, "{host} finds what it knew");
        self.counts.restored += 1;
        inputs.push(Input::RestoreComplete(memory));
        self.node_input(host, inputs);
        self.observe_registers(host);
    }

    pub(super) fn send_datagram(&mut self, host: u32, to: SocketAddr, bytes: Bytes) {
        let Some(to) = hosts::at(to).filter(|to| (*to as usize) < self.nodes.len()) else { return };
        self.counts.datagrams_sent += 1;
        for latency_us in self.network.datagram_latencies_us(&mut self.random, host, to) {
            let slow_us = self.hosts[to as usize].slow_us;
            let after_us = latency_us + self.random.below(slow_us + 1);
            let bytes = bytes.clone();
            self.schedule_in(after_us, Event::Datagram { from: host, to, bytes });
        }
    }

    /// A datagram arrives.
    pub(super) fn datagram(&mut self, from: u32, to: u32, bytes: Bytes) {
        if self.nodes[to as usize].is_some() {
            self.counts.datagrams += 1;
            let from = self.hosts[from as usize].address;
            self.node_input(to, vec![Input::Datagram { from, bytes }]);
        }
    }
}
