//! Checks of replication: nodes send their writes at once, to all peers that they do not report as
//! behind.

use std::collections::VecDeque;

use zerocache_core::{
    node::NodeStatus,
    time::Instant,
    version::Version,
    wire::{FetchedItem, NodeState},
};

use super::{World, acks::STABLE_US};
use crate::{checker::Rule, clock::SECOND_US, profile::Profile};

/// The interval between two checks of stability and of pending replication, in microseconds:
/// shorter than repair needs to bring missed writes.
const CHECK_US: u64 = SECOND_US / 2;

/// While nothing goes wrong a write is everywhere within this time, in microseconds.
const PROMPT_US: u64 = SECOND_US;

/// The longest travel of a write, through a relay too. An answer that fetches a key in an older
/// version may bring a newer one that is in flight.
const JOURNEYS_US: u64 = SECOND_US / 2;

/// With more nodes than this replication is not checked.
const NODES_MAX: usize = 40;

/// Why a node touches a key.
#[derive(Clone, Copy, Debug)]
pub(super) enum Cause {
    /// A client's write.
    Write,
    /// A record that is to be passed on.
    Relayed(Version),
    /// Another record, or the answer to a question.
    Received(Version),
}

impl Cause {
    /// Returns the version that the node receives.
    fn version(self) -> Option<Version> {
        match self {
            Self::Write => None,
            Self::Relayed(version) | Self::Received(version) => Some(version),
        }
    }
}

/// A write that a node has to send to others.
#[derive(Clone, Copy, Debug)]
pub(super) struct PendingReplication {
    key: usize,
    version: Version,
    /// The time at which the node accepted it, by its own clock.
    at: Instant,
    /// Whether it also sends it to other regions.
    is_own: bool,
}

/// A write that is to be everywhere by a certain time.
#[derive(Clone, Copy, Debug)]
struct PromptDeadline {
    at_us: u64,
    host: u32,
    key: usize,
    version: Version,
}

/// The state of the checks of replication.
#[derive(Debug, Default)]
pub(super) struct ReplicationChecks {
    due: VecDeque<PromptDeadline>,
    checked_us: u64,
}

impl World {
    /// A node has handled what touches these keys, and has not answered yet. `refuses` says that it refused a
    /// message, and with it all that came at this moment.
    pub(super) fn record_touched(&mut self, host: u32, touched: &[(usize, Cause)], refuses: bool) {
        let at = self.now_at(host).mono;
        let was_received = |key: usize, version: Version| {
            touched.iter().any(|(other, cause)| *other == key && cause.version() == Some(version))
        };
        for (key, cause) in touched {
            let Some(process) = self.nodes[host as usize].as_mut() else { return };
            let after = process.store.version(self.keys[*key].hash());
            let before = process.before.get(key).copied().flatten();
            self.checker.has(host, *key, after);
            if after.is_none() && before.is_some() && before < cause.version() {
                // A delete that is older than the retention here ends the value, and leaves no trace.
                self.checker.has(host, *key, cause.version());
            }
            if let Some(version) = cause.version().filter(|_| !refuses) {
                self.checker.offered(host, *key, version, after);
            }
            let Some(version) = after else { continue };
            let gave = || process.writers.contains(&version.incarnation());
            let is_own = Some(version) > before
                && !was_received(*key, version)
                && (gave() || process.filled.contains(&version));
            let is_relayed = matches!(cause, Cause::Relayed(relayed) if *relayed == version);
            if is_own || (is_relayed && !refuses) {
                process.pending.push(PendingReplication { key: *key, version, at, is_own });
            }
            if is_own {
                let at_us = self.now_us;
                self.checker.accepted(version);
                if self.is_stable(at_us) {
                    self.replication.due.push_back(PromptDeadline {
                        at_us,
                        host,
                        key: *key,
                        version,
                    });
                }
            }
        }
    }

    /// Returns whether there are no faults, and nodes were stable at this time.
    fn is_stable(&self, at_us: u64) -> bool {
        let stable_since_us = self.stable_since_us.map(|since_us| since_us + STABLE_US);
        self.plan.profile == Profile::Calm
            && stable_since_us.is_some_and(|since_us| since_us <= at_us)
    }

    /// Looks whether what nodes took is where it is to be.
    pub(super) fn check_replication(&mut self) {
        let now_us = self.now_us;
        while let Some(due) = self.replication.due.front().copied()
            && due.at_us + PROMPT_US <= now_us
        {
            self.replication.due.pop_front();
            self.check_prompt(due);
        }
        if self.nodes.len() > NODES_MAX || now_us < self.replication.checked_us + CHECK_US {
            return;
        }
        self.replication.checked_us = now_us;
        let settled = self.plan.is_quiet(now_us, now_us) && self.have_all_met();
        self.stable_since_us = self.stable_since_us.or(Some(now_us)).filter(|_| settled);
        for host in 0..self.nodes.len() as u32 {
            if self.hosts[host as usize].frozen_since_us.is_none() {
                self.check_pending(host);
            }
        }
    }

    /// Returns whether all nodes are in sync and reach each other.
    fn have_all_met(&self) -> bool {
        let living: Vec<_> = self.nodes.iter().flatten().map(|node| node.incarnation).collect();
        (0..self.nodes.len() as u32).all(|host| {
            let Some(process) = self.nodes[host as usize].as_ref() else { return true };
            let nodes = process.node.status(self.now_at(host)).nodes;
            let in_sync = |id| {
                nodes.iter().any(|node| node.id == id && node.state == Some(NodeState::InSync))
            };
            living.iter().all(|id| in_sync(*id))
        })
    }

    fn check_prompt(&mut self, due: PromptDeadline) {
        let PromptDeadline { at_us, host, key, version } = due;
        let lacks = |process: &super::nodes::Process| {
            process.store.version(self.keys[key].hash()) < Some(version)
                && !self.checker.ever_knew(process.incarnation, key, version)
        };
        if let Some(process) = self.nodes.iter().flatten().find(|process| lacks(process)) {
            let other = self.checker.host_of(process.incarnation);
            let text = format!("{host} took {version} of key {key} at {at_us}; {other:?} lacks it");
            self.checker.violate(Rule::Prompt, text);
        }
    }

    /// A node fetched something: while nothing goes wrong, it has had that for a while.
    pub(super) fn check_fetched(&mut self, host: u32, items: &[FetchedItem]) {
        let Some(process) = self.nodes[host as usize].as_ref() else { return };
        for item in items {
            let (key, version) = match item {
                FetchedItem::Value { record } => (record.key.hash(), record.version),
                FetchedItem::Tombstone(key, version) => (*key, *version),
            };
            let Some(at_us) = self.checker.accepted_at(version) else { continue };
            let is_new = process.store.version(key) < Some(version);
            if is_new && at_us + JOURNEYS_US <= self.now_us && self.is_stable(at_us) {
                let text = format!("{host} fetches {version}, which was not sent to it");
                return self.checker.violate(Rule::Prompt, text);
            }
        }
    }

    /// Checks a node with empty queues: it has sent its peers all writes that it accepted since it
    /// reached them, or reports them as behind.
    pub(super) fn check_pending(&mut self, host: u32) {
        let now = self.now_at(host);
        let Some(process) = self.nodes[host as usize].as_mut() else { return };
        if process.pending.is_empty() || !process.node.is_flushed() {
            return;
        }
        let pending = std::mem::take(&mut process.pending);
        let nodes = process.node.status(now).nodes;
        let Some((own, others)) = nodes.split_first() else { return };
        let reached = |node: &&NodeStatus, at: Instant| {
            let takes_writes = node.state.is_some_and(|state| state != NodeState::Leaving);
            takes_writes && now.mono.since_ms(at) < node.since_ms
        };
        for pending in pending {
            let PendingReplication { key, version, at, is_own } = pending;
            let knows =
                |node: &NodeStatus| self.checker.ever_knew_or_refused(node.id, key, version);
            let lacking = others.iter().find(|node| {
                if node.replication_lag_ms.is_some() || !reached(node, at) {
                    return false;
                }
                if node.region == own.region {
                    return !knows(node);
                }
                // One node of its region must have it, unless one of them is reported as behind.
                let there = || others.iter().filter(|other| other.region == node.region);
                let is_whole =
                    there().all(|other| other.is_monitored && other.replication_lag_ms.is_none());
                is_own && is_whole && !self.was_relayed(&node.region, key, version)
            });
            if let Some(node) = lacking {
                let text = format!(
                    "{host} took {version} of key {key}, has sent everything, and says nothing of \
                     {:?} in {}, which lacks it",
                    self.checker.host_of(node.id),
                    node.region
                );
                return self.checker.violate(Rule::Sent, text);
            }
        }
    }

    /// Returns whether a process of a region, which may have ended, ever had a write, or refused it: as older
    /// than its retention, or as ahead of its clock.
    fn was_relayed(&self, region: &str, key: usize, version: Version) -> bool {
        let in_region = |host: u32| {
            let number = self.plan.nodes[host as usize].region;
            super::dial::region_name(number) == region
        };
        self.checker.judges_of(key, version).any(in_region)
    }

    /// The keys of what a node fetched or copied, and their versions.
    pub(super) fn touched_by(&self, items: &[FetchedItem]) -> Vec<(usize, Cause)> {
        let one = |item: &FetchedItem| match item {
            FetchedItem::Value { record } => {
                Some((self.number_of(&record.key)?, Cause::Received(record.version)))
            }
            FetchedItem::Tombstone(key, version) => {
                Some((*self.numbers.get(key)?, Cause::Received(*version)))
            }
        };
        items.iter().filter_map(one).collect()
    }
}
