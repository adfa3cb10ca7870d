//! What the simulator itself knows of the leases of each node: who asked, who has leave, until when.

use std::collections::BTreeMap;

use zerocache_core::{
    key::KeyHash,
    node::{ConnectionId, Input, RequestId},
    time::Instant,
    version::Version,
    wire::{Request, RequestMessage, Response},
};

use super::World;
use crate::{checker::Rule, workload::number_of};

/// An answer may come so much later than its time, in milliseconds: timers are late by a little.
const LATE_MS_MAX: u64 = 250;

/// A question for leave that is not answered.
#[derive(Clone, Copy, Debug)]
struct Ask {
    key: usize,
    connection: ConnectionId,
    life_ms: u64,
    /// When it is to be answered.
    due: Instant,
}

/// A leave.
#[derive(Clone, Copy, Debug)]
struct Leave {
    token: Version,
    connection: ConnectionId,
    until: Instant,
    /// What the node knew of the key when it gave it.
    known: Option<Version>,
}

/// The leases of a node.
#[derive(Debug, Default)]
pub(super) struct Leasing {
    /// The question that has just come, and has no name yet.
    came: Option<Ask>,
    asked: BTreeMap<RequestId, Ask>,
    given: BTreeMap<KeyHash, Leave>,
}

impl Leasing {
    /// The request that has just come has this name.
    pub(super) fn name(&mut self, id: RequestId) {
        if let Some(ask) = self.came.take() {
            self.asked.insert(id, ask);
        }
    }

    /// All leaves end.
    pub(super) fn end_all(&mut self) {
        self.given.clear();
    }
}

impl World {
    /// Notes a request before the node gets it; with the key whose value may be its answer.
    pub(super) fn note_lease_request(
        &mut self,
        (host, connection): (u32, ConnectionId),
        mut message: RequestMessage,
        key: Option<usize>,
    ) -> (RequestMessage, Option<usize>) {
        let now = self.now_at(host).mono;
        let Some(process) = self.nodes[host as usize].as_mut() else { return (message, key) };
        match &mut message.request {
            Request::Lease { key: asked, lease_ms: life_ms, wait_ms, .. } => {
                let (life_ms, due) = (*life_ms, now.plus_ms(*wait_ms));
                let Some(key) = number_of(asked) else { return (message, None) };
                process.leasing.came = Some(Ask { key, connection, life_ms, due });
                if self.variant.prolongs_waits() {
                    // Also beyond what its caller waits.
                    *wait_ms *= 4;
                    message.envelope.timeout_ms = 0;
                }
                (message, Some(key))
            }
            Request::Release { key: of, token, .. } => {
                let hash = of.hash();
                if process.leasing.given.get(&hash).is_some_and(|leave| leave.token == *token) {
                    process.leasing.given.remove(&hash);
                }
                (message, key)
            }
            Request::Put { token: Some(token), .. } => {
                process.filled.insert(*token);
                (message, key)
            }
            _ => (message, key),
        }
    }

    /// A node is about to give this answer.
    pub(super) fn check_leased(&mut self, host: u32, id: RequestId, response: &Response) {
        let now = self.now_at(host).mono;
        let Some(process) = self.nodes[host as usize].as_mut() else { return };
        let Some(ask) = process.leasing.asked.remove(&id) else { return };
        let Response::LeaseGranted { token } = response else { return };
        let Ask { key, connection, life_ms, .. } = ask;
        let hash = self.keys[key].hash();
        let known = process.store.version(hash);
        let leave = Leave { token: *token, connection, until: now.plus_ms(life_ms), known };
        let before = process.leasing.given.insert(hash, leave);
        if known > Some(*token) {
            // What ended it came together with the question.
            process.leasing.given.remove(&hash);
        }
        let Some(before) = before else { return };
        // It ends with a value or a delete, and with its time.
        let over = known != before.known || now >= before.until;
        if !over || *token <= before.token {
            let text = format!("{host} gives leave for key {key} twice: {before:?}, {leave:?}");
            self.checker.violate(Rule::Exclusive, text);
        }
    }

    /// A node learns of the end of a connection.
    pub(super) fn connection_closed(&mut self, host: u32, connection: ConnectionId) {
        if let Some(process) = self.nodes[host as usize].as_mut() {
            process.leasing.given.retain(|_, leave| leave.connection != connection);
        }
        let confused = self.variant.confuses_connections();
        let told = if confused { ConnectionId(connection.0.wrapping_add(1)) } else { connection };
        self.node_input(host, vec![Input::ConnectionClosed(told)]);
    }

    /// Looks whether somebody waits at a node for longer than it wanted to.
    pub(super) fn look_at_waits(&mut self, host: u32) {
        let now = self.now_at(host).mono;
        let Some(process) = self.nodes[host as usize].as_ref() else { return };
        let overdue =
            process.leasing.asked.iter().find(|(_, ask)| now.since_ms(ask.due) > LATE_MS_MAX);
        if let Some((id, ask)) = overdue {
            let text = format!("{host} lets {id:?} wait: {ask:?}, and it is {now:?}");
            self.checker.violate(Rule::Waits, text);
        }
    }
}
