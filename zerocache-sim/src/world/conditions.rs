//! Compares each node's judgement of a condition with what its store holds at that moment.

use zerocache_core::{
    condition::{Condition, ConditionalOp},
    metadata::{Freshness, Metadata},
    node::{Input, PAUSE_MS_MAX, RequestId},
    version::{Version, VersionSource},
    wire::{Ack, Request, RequestMessage, Response},
};

use super::{World, replication::Cause};
use crate::checker::Rule;

/// A conditional write that is not answered, and what its node held right before it.
#[derive(Clone, Copy, Debug)]
pub(super) struct PendingCondition {
    key: usize,
    condition: Condition,
    /// The version of the value that the node held.
    held: Option<Version>,
    is_fresh: bool,
    /// The version that it knew, also of a tombstone.
    known: Option<Version>,
    /// Its misses were authoritative.
    may_judge: bool,
}

impl PendingCondition {
    fn is_met(&self) -> bool {
        match self.condition {
            Condition::Absent => !self.is_fresh,
            Condition::Present => self.is_fresh,
            Condition::Version(version) => self.held == Some(version),
        }
    }
}

impl World {
    /// Hands requests to a node, together.
    pub(super) fn hand_over(
        &mut self,
        host: u32,
        inputs: &mut Vec<Input>,
        touched: &mut Vec<(usize, Cause)>,
    ) {
        if !inputs.is_empty() {
            self.begin_touching(host, std::mem::take(touched));
            self.node_input(host, std::mem::take(inputs));
        }
    }

    /// A node is about to judge a condition. All that came before has been handled.
    pub(super) fn record_condition(
        &mut self,
        host: u32,
        id: RequestId,
        message: &mut RequestMessage,
    ) {
        let Request::Conditional(write) = &message.request else { return };
        let now = self.now_at(host);
        let Some(key) = self.number_of(&write.key) else { return };
        let Some(process) = self.nodes[host as usize].as_mut() else { return };
        let entry = process.store.peek(&write.key, now).hit();
        let is_fresh = entry.as_ref().is_some_and(|entry| {
            let remaining_ms = entry.expires.since_ms(now.mono);
            Metadata::decode(&entry.metadata)
                .is_ok_and(|metadata| metadata.freshness(remaining_ms) == Freshness::Fresh)
        });
        // A process that was suspended has not noticed yet that it may have missed something.
        let is_current = now.mono.since_ms(process.handled_at) <= PAUSE_MS_MAX;
        let may_judge = is_current && process.node.read_policy().is_miss_authoritative();
        let pending = PendingCondition {
            key,
            condition: write.condition,
            held: entry.map(|entry| entry.version),
            is_fresh,
            known: process.store.version(write.key.hash()),
            may_judge,
        };
        process.conditions.insert(id, pending);
        if may_judge && pending.held.is_none() {
            // It answers as an authoritative miss does.
            self.check_miss(host, key);
        }
        self.drop_condition(message);
    }

    /// Makes a write without its condition, in a cluster that is broken so.
    fn drop_condition(&self, message: &mut RequestMessage) {
        if !self.variant.ignores_conditions() {
            return;
        }
        if let Request::Conditional(write) = &message.request
            && let ConditionalOp::Put { value, metadata, ttl } = &write.op
        {
            let (key, ack, version) = (write.key.clone(), Ack::Local, VersionSource::Accepted);
            let (value, metadata, ttl) = (value.clone(), metadata.clone(), *ttl);
            message.request = Request::Put { key, value, metadata, ttl, ack, version };
        }
    }

    /// Checks the answer of a node to a conditional write.
    pub(super) fn check_judged(&mut self, host: u32, id: RequestId, response: &Response) {
        let Some(process) = self.nodes[host as usize].as_mut() else { return };
        let Some(pending) = process.conditions.remove(&id) else { return };
        let after = process.store.version(self.keys[pending.key].hash());
        let fault = match response {
            Response::Written(_) | Response::Taken(_) if !pending.may_judge => {
                Some("makes the write, and its misses are not authoritative")
            }
            Response::Written(_) | Response::Taken(_) if !pending.is_met() => {
                Some("makes the write, and the condition does not hold")
            }
            Response::Taken(item) if Some(item.version) != pending.held => {
                Some("gives another value than it held")
            }
            Response::NotMet { .. } if pending.is_met() => {
                Some("does not make the write, and the condition holds")
            }
            Response::NotMet { current } if *current != pending.held => {
                Some("names another version than it held")
            }
            // A value that has expired since leaves its version.
            Response::NotMet { .. } | Response::Refused(_) if after > pending.known => {
                Some("does not make the write, and has a newer version")
            }
            _ => None,
        };
        if let Some(fault) = fault {
            let text = format!("{host} {fault}: {pending:?}, {response:?}");
            self.checker.violate(Rule::Atomic, text);
        }
    }
}
