//! Feeds the checker during a run: contents of stores, and messages.

use std::net::SocketAddr;

use zerocache_core::{
    condition::ConditionalOp,
    entry::{Change, Record},
    store::Lookup,
    version::{Incarnation, Version},
    wire::{FetchedItem, Request, RequestMessage, Response},
};

use super::{Event, World, connection::Latency, hosts, replication::Cause};
use crate::{checker::StoredValue, workload::write_of};

/// The interval between two inspections of every store, in microseconds.
pub(super) const INTERVAL_US: u64 = 100_000;

/// The number of nodes that one inspection covers at most.
const NODES_MAX: usize = 16;

/// And at so many keys of each.
const KEYS_MAX: usize = 48;

impl World {
    /// Shows the checker what the stores hold.
    pub(super) fn inspect(&mut self) {
        self.schedule_in(INTERVAL_US, Event::Inspect);
        let count = self.nodes.len();
        let from = self.random.index(count);
        for offset in 0..count.min(NODES_MAX) {
            let host = (from + offset) % count;
            self.inspect_node(host as u32);
        }
        self.check_replication();
        self.watch_healing();
    }

    fn inspect_node(&mut self, host: u32) {
        let now = self.now_at(host);
        let frozen = self.hosts[host as usize].frozen_since_us.is_some();
        if !frozen {
            self.check_waits(host);
        }
        let Some(process) = self.nodes[host as usize].as_ref().filter(|_| !frozen) else { return };
        let plan = &self.plan.nodes[host as usize];
        self.checker.store(host, plan, process.store.stats());
        for queued in process.node.queued() {
            self.checker.queue(host, plan, queued);
        }
        self.observe_registers(host);
        let count = self.keys.len();
        let from = if count > KEYS_MAX { self.random.index(count) } else { 0 };
        for offset in 0..count.min(KEYS_MAX) {
            let Some(process) = self.nodes[host as usize].as_ref() else { return };
            let number = (from + offset) % count;
            let key = &self.keys[number];
            let known = process.store.version(key.hash());
            let mut held = None;
            let found = process.store.peek(key, now);
            if let (Lookup::OnDisk, Some(version)) = (&found, known) {
                held = known;
                self.check_promised(host, number, version);
            }
            let entry = found.hit();
            if self.checker.is_register(number) {
                held = entry.map(|entry| entry.version);
            } else if let Some(entry) = entry {
                held = Some(entry.version);
                self.check_promised(host, number, entry.version);
                let shown = StoredValue {
                    key: number,
                    version: entry.version,
                    value: &entry.value,
                    remaining_ms: entry.expires.since_ms(now.mono),
                };
                self.checker.check_purged(host, "holds", &shown);
                self.checker.held(host, &shown);
                if let Some(id) = write_of(&entry.value) {
                    self.checker.check_delete_wins(&self.plan, host, number, id);
                }
            }
            self.checker.holds(host, number, held);
            self.observe_version(host, number, known);
            if let Some(version) = known.filter(|known| held != Some(*known)) {
                self.check_gone(host, number, version);
            }
        }
    }

    /// Shows the checker which purges a node has.
    pub(super) fn observe_registers(&mut self, host: u32) {
        for number in self.plan.workload.keys..self.keys.len() {
            let Some(process) = self.nodes[host as usize].as_ref() else { return };
            let known = process.store.version(self.keys[number].hash());
            self.checker.has(host, number, known);
        }
    }

    /// Shows the checker a request before the node gets it.
    pub(super) fn record_request(
        &mut self,
        from: u32,
        host: u32,
        message: &RequestMessage,
        latency: Latency,
        touched: &mut Vec<(usize, Cause)>,
    ) {
        // The node refuses requests past their deadlines.
        if message.envelope.remaining_ms().is_none() {
            return;
        }
        let late_us = message.envelope.delay_ms * 1_000;
        match &message.request {
            Request::Put { key, value, .. } => {
                if let (Some(key), Some(id)) = (self.number_of(key), write_of(value)) {
                    touched.push((key, Cause::Write));
                    self.checker.taken(host, id, self.now_us - late_us.min(self.now_us));
                }
            }
            Request::Conditional(write) => {
                let Some(key) = self.number_of(&write.key) else { return };
                touched.push((key, Cause::Write));
                if let ConditionalOp::Put { value, .. } = &write.op
                    && let Some(id) = write_of(value)
                {
                    self.checker.taken(host, id, self.now_us - late_us.min(self.now_us));
                }
            }
            Request::Delete { key, .. } => {
                touched.extend(self.number_of(key).map(|key| (key, Cause::Write)));
            }
            Request::Purge { target, mode, replayed, .. } => {
                touched.extend(self.number_of(&target.key(*mode)).map(|key| (key, Cause::Write)));
                if let Some(process) = self.nodes[host as usize].as_mut() {
                    process.filled.extend(replayed);
                }
            }
            Request::Replicate(batch) => {
                for replicated in batch {
                    let version = replicated.record.version;
                    let cause = match replicated.relay {
                        true => Cause::Relayed(version),
                        false => Cause::Received(version),
                    };
                    touched.extend(self.number_of(&replicated.record.key).map(|key| (key, cause)));
                    self.record_hop((from, host), &replicated.record, latency);
                }
            }
            _ => {}
        }
    }

    /// A node answers a request for items: it gives none that a purge has ended.
    pub(super) fn check_given(&mut self, host: u32, response: &Response) {
        let Response::Items { items, .. } = response else { return };
        for item in items {
            if let FetchedItem::Value { record } = item
                && let Some(key) = self.number_of(&record.key)
                && let Change::Put { value, .. } = &record.change
                && !self.checker.is_register(key)
            {
                // Of the end of stale times the receiver decides.
                let given = StoredValue { key, version: record.version, value, remaining_ms: 0 };
                self.checker.check_purged(host, "gives", &given);
            }
        }
    }

    /// A record goes from one node to another.
    pub(super) fn record_hop(&mut self, (from, to): (u32, u32), record: &Record, latency: Latency) {
        if let Change::Put { value, .. } = &record.change {
            self.record_journey((from, to), value, latency);
        }
    }

    /// A value goes from a node to another, or to a client.
    pub(super) fn record_journey(&mut self, ends: (u32, u32), value: &[u8], latency: Latency) {
        if let Some(id) = write_of(value) {
            self.checker.replicated(ends, id, latency.fastest_us);
        }
    }

    /// Records items that a node fetched, before they reach its store.
    pub(super) fn record_fetched(
        &mut self,
        ends: (u32, u32),
        items: &[FetchedItem],
        latency: Latency,
    ) {
        self.check_fetched(ends.1, items);
        for item in items {
            if let FetchedItem::Value { record } = item {
                self.counts.fetched += 1;
                self.record_hop(ends, record, latency);
            }
        }
    }

    /// Shows the checker a call before it is sent: who sends writes to whom.
    pub(super) fn check_sent(&mut self, host: u32, to: SocketAddr, request: &Request) {
        let (Request::Replicate(batch), Some(to)) = (request, hosts::at(to)) else { return };
        let region = |host: u32| self.plan.nodes.get(host as usize).map(|node| node.region);
        let Some(process) = self.nodes[host as usize].as_ref() else { return };
        self.counts.replicated += batch.len() as u64;
        let crosses = region(host) != region(to);
        for replicated in batch {
            let writer = replicated.record.version.incarnation();
            let is_principal = process.writers.contains(&writer)
                || process.filled.contains(&replicated.record.version);
            self.checker.hop(host, to, (is_principal, crosses, replicated.relay));
        }
    }

    /// Changes a message of a node as the variant under test does.
    pub(super) fn tamper(&mut self, host: u32, message: &mut RequestMessage) {
        let now = self.now_at(host).mono;
        if let Request::Hello(hello) = &mut message.request {
            self.tamper_weight(hello);
        }
        let Request::Replicate(batch) = &mut message.request else { return };
        for replicated in batch {
            if self.variant.marks_relays() {
                replicated.relay = true;
            }
            if let Change::Put { value, expires, .. } = &mut replicated.record.change {
                if self.variant.restarts_lifetimes()
                    && let Some(ttl_ms) = write_of(value).and_then(|id| self.checker.ttl_ms(id))
                {
                    *expires = now.plus_ms(ttl_ms);
                }
                if self.variant.truncates_values() && value.len() > 64 {
                    value.truncate(64);
                }
            }
        }
    }

    /// The same, of what the checker has seen as the node sent it.
    pub(super) fn tamper_unseen(&mut self, message: &mut RequestMessage) {
        let Request::Replicate(batch) = &mut message.request else { return };
        for replicated in batch.iter_mut().filter(|_| self.variant.forgets_incarnations()) {
            let stamp = replicated.record.version.stamp();
            replicated.record.version = Version::new(stamp, Incarnation(1));
        }
    }
}
