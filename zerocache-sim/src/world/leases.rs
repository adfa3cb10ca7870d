//! The simulator's own record of each node's leases: pending requests, holders and expiries.

use std::collections::BTreeMap;

use zerocache_core::{
    key::KeyHash,
    node::{ConnectionId, Input, RequestId},
    time::Instant,
    version::{Version, VersionSource},
    wire::{Request, RequestMessage, Response},
};

use super::World;
use crate::{
    checker::Rule,
    workload::{WriteId, write_of},
};

/// An answer may come so much later than its time, in milliseconds: timers are late by a little.
const LATE_MS_MAX: u64 = 250;

/// A lease request that is not answered.
#[derive(Clone, Copy, Debug)]
struct PendingLease {
    key: usize,
    connection: ConnectionId,
    lease_ms: u64,
    /// The time by which it must be answered.
    due: Instant,
}

/// A granted lease.
#[derive(Clone, Copy, Debug)]
struct Grant {
    token: Version,
    connection: ConnectionId,
    until: Instant,
    /// The node's version of the key when it granted the lease.
    known: Option<Version>,
    /// The write whose value came for it.
    filled_by: Option<WriteId>,
}

/// The leases of a node.
#[derive(Debug, Default)]
pub(super) struct LeaseTable {
    /// The question that has just come, and has no name yet.
    unnamed: Option<PendingLease>,
    pending: BTreeMap<RequestId, PendingLease>,
    granted: BTreeMap<KeyHash, Grant>,
}

impl LeaseTable {
    /// The request that has just come has this name.
    pub(super) fn name(&mut self, id: RequestId) {
        if let Some(request) = self.unnamed.take() {
            self.pending.insert(id, request);
        }
    }

    /// Ends all leases.
    pub(super) fn expire_all(&mut self) {
        self.granted.clear();
    }
}

impl World {
    /// Notes a request before the node gets it; with the key whose value may be its answer.
    pub(super) fn record_lease_request(
        &mut self,
        (host, connection): (u32, ConnectionId),
        mut message: RequestMessage,
        key: Option<usize>,
    ) -> (RequestMessage, Option<usize>) {
        let now = self.now_at(host).mono;
        let Some(process) = self.nodes[host as usize].as_mut() else { return (message, key) };
        match &mut message.request {
            Request::Lease { key: asked, lease_ms, wait_ms, .. } => {
                let (lease_ms, due) = (*lease_ms, now.plus_ms(*wait_ms));
                let Some(key) = self.numbers.get(&asked.hash()).copied() else {
                    return (message, None);
                };
                process.leasing.unnamed = Some(PendingLease { key, connection, lease_ms, due });
                if self.variant.prolongs_waits() {
                    // Also beyond what its caller waits.
                    *wait_ms *= 4;
                    message.envelope.timeout_ms = 0;
                }
                (message, Some(key))
            }
            Request::Release { key: of, token, .. } => {
                let hash = of.hash();
                if process.leasing.granted.get(&hash).is_some_and(|grant| grant.token == *token) {
                    process.leasing.granted.remove(&hash);
                }
                (message, key)
            }
            Request::Put { key: of, value, version: VersionSource::Given(token), .. } => {
                process.filled.insert(*token);
                let grant = process.leasing.granted.get_mut(&of.hash());
                if let Some(grant) = grant.filter(|grant| grant.token == *token) {
                    grant.filled_by = write_of(value);
                }
                (message, key)
            }
            _ => (message, key),
        }
    }

    /// A node is about to give this answer.
    pub(super) fn check_leased(&mut self, host: u32, id: RequestId, response: &Response) {
        let now = self.now_at(host).mono;
        let Some(process) = self.nodes[host as usize].as_mut() else { return };
        let Some(request) = process.leasing.pending.remove(&id) else { return };
        let Response::LeaseGranted { token } = response else { return };
        let PendingLease { key, connection, lease_ms, .. } = request;
        let hash = self.keys[key].hash();
        let known = process.store.version(hash);
        let until = now.plus_ms(lease_ms);
        let grant = Grant { token: *token, connection, until, known, filled_by: None };
        let before = process.leasing.granted.insert(hash, grant);
        if known > Some(*token) {
            // The write that ended it arrived together with the request.
            process.leasing.granted.remove(&hash);
        }
        let Some(before) = before else { return };
        // It ends with a value or a delete, and with its time; and with a value that a purge had ended.
        let was_purged = before
            .filled_by
            .is_some_and(|id| self.checker.is_purged_at(host, (key, id), before.token));
        let over = known != before.known || now >= before.until || was_purged;
        if !over || *token <= before.token {
            let text = format!("{host} grants the lease of key {key} twice: {before:?}, {grant:?}");
            self.checker.violate(Rule::Exclusive, text);
        }
    }

    /// A node learns of the end of a connection.
    pub(super) fn connection_closed(&mut self, host: u32, connection: ConnectionId) {
        if let Some(process) = self.nodes[host as usize].as_mut() {
            process.leasing.granted.retain(|_, grant| grant.connection != connection);
        }
        let confused = self.variant.confuses_connections();
        let told = if confused { ConnectionId(connection.0.wrapping_add(1)) } else { connection };
        self.node_input(host, vec![Input::ConnectionClosed(told)]);
    }

    /// Checks that no caller waits at a node for longer than it wanted to.
    pub(super) fn check_waits(&mut self, host: u32) {
        let now = self.now_at(host).mono;
        let Some(process) = self.nodes[host as usize].as_ref() else { return };
        let overdue = process
            .leasing
            .pending
            .iter()
            .find(|(_, request)| now.since_ms(request.due) > LATE_MS_MAX);
        if let Some((id, request)) = overdue {
            let text = format!("{host} lets {id:?} wait: {request:?}, and it is {now:?}");
            self.checker.violate(Rule::Waits, text);
        }
    }
}
