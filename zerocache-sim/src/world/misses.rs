//! Checks of nodes that claim to be complete: authoritative misses, and the state after a
//! suspension.

use zerocache_core::{
    node::PAUSE_MS_MAX,
    time::Now,
    version::Version,
    wire::{NodeState, features},
};

use super::World;
use crate::{checker::Rule, clock::SECOND_US, profile::Profile};

/// A value that a local peer has held for longer than this, in microseconds, is here too, or a miss
/// is not authoritative.
const HAD_US: u64 = 3 * SECOND_US;

/// A value with less than this of its lifetime left may have expired elsewhere, in milliseconds.
const LIFE_MS: u64 = 1_000;

/// A node that has been in sync for this long is known to be by its peers, in microseconds.
const KNOWN_US: u64 = 2 * SECOND_US;

/// What is to be past the retention within this time counts as past it between an outdated node and its source, in
/// milliseconds.
const EDGE_MS: u64 = 15_000;

/// A node that is outdated drops what its source does not know within this time, in microseconds.
const DROPS_US: u64 = 2 * SECOND_US;

impl World {
    /// Checks an authoritative miss of a node.
    pub(super) fn check_miss(&mut self, host: u32, key: usize) {
        let region = self.plan.nodes[host as usize].region;
        let Some(process) = self.nodes[host as usize].as_ref() else { return };
        if process.in_sync_us.is_none() {
            let text = format!("{host} is not in sync and says that nobody has key {key}");
            return self.checker.violate(Rule::Authoritative, text);
        }
        let known = process.store.version(self.keys[key].hash());
        let has = |other: u32| {
            let (version, since_us) = self.checker.held_since(other, key)?;
            let (stored, left_ms) = self.stored(other as usize, &self.keys[key])?;
            let lasts = left_ms >= LIFE_MS || self.checker.is_to_live(key, stored);
            // A copy does not bring what its source has on disk; rounds do, as far as they reach.
            let is_given = self.disks.is_empty()
                || !(self.may_lack_from_disk(stored) || self.counts.outdated > 0);
            let had = is_given && stored == version && self.now_us - since_us > HAD_US;
            (had && lasts).then_some(version)
        };
        let has_value = process.store.has_value(self.keys[key].hash());
        // A node that owns a key has not only its version; purges may have ended the value here.
        let is_owner_without = |version: &Version| {
            let is_placed = self.plan.profile == Profile::Placement && self.plan.purges.is_empty();
            is_placed && known == Some(*version) && !has_value && self.keeps(host as usize, key)
        };
        let lacks = |version: &Version| {
            (known < Some(*version) && !self.checker.had_or_refused(host, key, *version))
                || is_owner_without(version)
        };
        let others = (0..self.nodes.len() as u32)
            .filter(|other| *other != host && self.plan.nodes[*other as usize].region == region);
        let lacking = others.filter_map(|other| Some((other, has(other).filter(lacks)?)));
        let found = lacking.into_iter().find(|(other, _)| {
            self.is_in_sync(*other)
                && self.repair_each_other(host, *other)
                && self.reach_each_other(host, *other)
        });
        if let Some((other, version)) = found {
            let text = format!(
                "{host} knows {known:?} of key {key} and says that nobody has it; {other}, which it \
                 reaches, has {version}"
            );
            self.checker.violate(Rule::Authoritative, text);
        }
    }

    /// Checks at the end that a node whose misses are authoritative has all values of its local
    /// peers.
    pub(super) fn check_final_misses(&mut self) {
        for host in 0..self.nodes.len() as u32 {
            let process = self.nodes[host as usize].as_ref();
            if !process.is_some_and(|process| process.node.misses_are_authoritative()) {
                continue;
            }
            for key in 0..self.keys.len() {
                if self.checker.held_since(host, key).is_none() {
                    self.check_miss(host, key);
                }
            }
        }
    }

    pub(super) fn is_in_sync(&self, host: u32) -> bool {
        let frozen = self.hosts[host as usize].frozen_since_us.is_some();
        let process = self.nodes[host as usize].as_ref().filter(|_| !frozen);
        process.is_some_and(|process| process.node.state() == NodeState::InSync)
    }

    fn repair_each_other(&self, host: u32, other: u32) -> bool {
        let features = |host: u32| self.plan.nodes[host as usize].features;
        features(host) & features(other) & features::REPAIR != 0
    }

    fn reach_each_other(&self, host: u32, other: u32) -> bool {
        self.reaches(host, other) && self.reaches(other, host)
    }

    fn reaches(&self, host: u32, other: u32) -> bool {
        let id = |host: u32| self.nodes[host as usize].as_ref().map(|process| process.incarnation);
        let (Some(process), Some(id)) = (self.nodes[host as usize].as_ref(), id(other)) else {
            return false;
        };
        let nodes = process.node.status(self.now_at(host)).nodes;
        let reached = |node: &zerocache_core::node::NodeStatus| {
            node.id == id && node.state.is_some_and(|state| state != NodeState::Leaving)
        };
        nodes.iter().any(reached)
    }

    /// Returns how long a process was idle, in milliseconds.
    pub(super) fn idle_ms(&self, host: u32, now: Now) -> u64 {
        let process = self.nodes[host as usize].as_ref();
        process.map_or(0, |process| now.mono.since_ms(process.handled_at))
    }

    /// Checks a process that was suspended for `idle_ms`: it is warming until it has talked to each
    /// local peer in sync that it reached before, and still does.
    pub(super) fn check_resumed(&mut self, host: u32, idle_ms: u64) {
        if idle_ms <= PAUSE_MS_MAX || !self.is_in_sync(host) {
            return;
        }
        let before_us = self.now_us - (idle_ms * 1_000).min(self.now_us);
        let known_us = before_us.saturating_sub(KNOWN_US);
        let was_in_sync = |host: u32| {
            let process = self.nodes[host as usize].as_ref();
            process.is_some_and(|process| process.in_sync_us.is_some_and(|at_us| at_us <= known_us))
        };
        let region = self.plan.nodes[host as usize].region;
        let peer = (0..self.nodes.len() as u32).find(|other| {
            *other != host
                && self.plan.nodes[*other as usize].region == region
                && self.is_in_sync(*other)
                && was_in_sync(*other)
                && self.repair_each_other(host, *other)
                && !self.plan.is_disturbed((host, *other), (known_us, self.now_us), Some(host))
        });
        if let Some(peer) = peer.filter(|_| was_in_sync(host)) {
            let text = format!(
                "{host} was suspended for {idle_ms} ms and is in sync; it has not asked {peer} since"
            );
            self.checker.violate(Rule::Authoritative, text);
        }
    }

    /// Shows the checker what a node knows of a key. One that knows nothing any more has a reason.
    pub(super) fn observe_version(&mut self, host: u32, key: usize, version: Option<Version>) {
        self.note_known(host, key, version);
        let Some(before) = self.checker.observed(host, key, version) else { return };
        if self.may_forget(host, before) {
            return self.checker.forgot(host, key);
        }
        let text = format!("{host} has forgotten {before} of key {key}");
        self.checker.violate(Rule::Order, text);
    }

    /// Records that a node is outdated and copies from its source: the copied versions of keys that
    /// it has forgotten may be older.
    pub(super) fn observe_discarded(&mut self, host: u32) {
        for key in 0..self.keys.len() {
            let Some(process) = self.nodes[host as usize].as_ref() else { return };
            if process.store.version(self.keys[key].hash()).is_none() {
                self.observe_version(host, key, None);
                self.checker.relearns(host, key);
            }
        }
    }

    /// Returns whether a node may have forgotten a version: past the retention, or discarded as
    /// outdated.
    fn may_forget(&mut self, host: u32, version: Version) -> bool {
        let (now, now_us) = (self.now_at(host), self.now_us);
        let Some(process) = self.nodes[host as usize].as_mut() else { return true };
        let dropped = process.node.status(now).repair.entries_dropped;
        if dropped != process.dropped.0 {
            process.dropped = (dropped, now_us);
        }
        let is_dropping = dropped > 0 && now_us <= process.dropped.1 + DROPS_US;
        // Discarded versions are past the retention of this node, or of the one that did not know them, or will be soon.
        let edge_ms = if is_dropping { EDGE_MS } else { 0 };
        let stamp = version.stamp().saturating_sub(edge_ms << Version::COUNTER_BITS);
        let discarded = Version::new(stamp, version.incarnation());
        let mut living = (0..self.nodes.len()).filter(|host| self.nodes[*host].is_some());
        self.is_forgotten(host as usize, version)
            || dropped > 0 && living.any(|host| self.may_have_forgotten(host, discarded))
    }

    /// Checks that a node may hold no value of a version that it knows: it was a delete, it has
    /// expired, or some node evicted.
    pub(super) fn check_gone(&mut self, host: u32, key: usize, version: Version) {
        // Others may keep the value, or give it to this node in a moment.
        let is_placed = self.plan.profile == Profile::Placement;
        if is_placed || !self.checker.is_to_live(key, version) || self.checker.makes_room() {
            return;
        }
        let dropped = |process: &super::nodes::Process| {
            let counts = process.store.stats().counts;
            counts.evicted + counts.rejected_too_large > 0
        };
        if self.nodes.iter().flatten().any(dropped) {
            return self.checker.made_room();
        }
        let text = format!("{host} has lost the value of {version} of key {key}");
        // A purge that does not end it may have ended it.
        let by_purge = self.checker.is_of_purges(key, version);
        self.checker.violate(if by_purge { Rule::Purge } else { Rule::Acked }, text);
    }
}
