//! After the last fault: when nodes agree again, and that nothing is copied any more.

use zerocache_core::{time::Now, version::Version, wire::features};

use super::{World, nodes::Process, trace};
use crate::{
    checker::{Rule, StoredValue},
    clock::SECOND_US,
    profile::Profile,
};

/// Nodes of one region have what one of them had within this time, in microseconds: two seconds as
/// promised, and one more because clocks that differ by less are left alone.
const REGION_US_MAX: u64 = 3 * SECOND_US;

/// All nodes have what any of them had within this time: ten seconds, and one for the clocks.
const ALL_US_MAX: u64 = 11 * SECOND_US;

/// Nodes that were kept from meeting each other from their start on do so within this time.
const MEET_US_MAX: u64 = 13 * SECOND_US;

/// So long before the end nothing is copied any more, in microseconds.
const QUIET_US: u64 = 3 * SECOND_US;

/// How much longer agreement may take where there are disks: nodes with little memory put few values back at a time
/// for those that lack them.
const DISKS_US: u64 = 15 * SECOND_US;

/// A value with less than this of its lifetime left may have expired elsewhere, in milliseconds.
const LIFE_MS: u64 = 5_000;

/// Versions this close to the end of the retention may be known or not, in milliseconds.
const RETENTION_MARGIN_MS: u64 = 5_000;

/// The state at the end of all faults, and its convergence.
pub(super) struct Healing {
    /// The time at which the last fault was over, and all nodes had met each other once.
    began_us: u64,
    /// Whether there are running nodes that have never met.
    has_unmet_nodes: bool,
    /// The highest version of each key, by region.
    had: Vec<Vec<Option<Version>>>,
    agreed_in_regions: bool,
    agreed: bool,
    /// The number of copied records at the time when copying had to be over.
    copied: Option<u64>,
}

impl Healing {
    /// Notes that a node has lost a version, as it may.
    pub(super) fn lose(&mut self, key: usize, version: Version) {
        let had = self.had.iter_mut().map(|keys| &mut keys[key]);
        had.filter(|had| **had == Some(version)).for_each(|had| *had = None);
    }
}

impl World {
    /// Looks whether nodes agree again.
    pub(super) fn watch_healing(&mut self) {
        if self.now_us < self.plan.heal_us || self.nodes.len() > AGREEING_MAX {
            return;
        }
        let now_us = self.now_us;
        let mut healing = match self.healing.take() {
            Some(healing) => healing,
            None => self.begin_healing(),
        };
        if healing.has_unmet_nodes {
            let after_us = now_us - self.plan.heal_us;
            healing.has_unmet_nodes = self.has_unmet_nodes();
            healing.began_us = now_us;
            self.counts.first_contact_us_max = self.counts.first_contact_us_max.max(after_us);
            if after_us > MEET_US_MAX {
                self.checker.violate(Rule::View, "nodes that never met still do not");
            }
        }
        let more_us = if self.disks.is_empty() { 0 } else { DISKS_US };
        let since_us = (now_us - healing.began_us).saturating_sub(more_us);
        if !healing.agreed_in_regions {
            match self.first_lacking(|region, key| healing.had[region][key]) {
                None => {
                    healing.agreed_in_regions = true;
                    self.counts.agreed_in_regions_us_max =
                        self.counts.agreed_in_regions_us_max.max(since_us);
                    trace!(self, "regions agree");
                }
                Some(text) if since_us > REGION_US_MAX => self.disagrees("its region", text),
                Some(_) => {}
            }
        }
        if !healing.agreed {
            let had = |key: usize| healing.had.iter().filter_map(|keys| keys[key]).max();
            match self.first_lacking(|_, key| had(key)) {
                None => {
                    healing.agreed = true;
                    self.counts.agreed_us_max = self.counts.agreed_us_max.max(since_us);
                    trace!(self, "all agree");
                }
                Some(text) if since_us > ALL_US_MAX => self.disagrees("all", text),
                Some(_) => {}
            }
        }
        if now_us + QUIET_US >= self.plan.end_us && healing.copied.is_none() {
            healing.copied = Some(self.counts.replicated + self.counts.fetched);
        }
        self.healing = Some(healing);
    }

    fn disagrees(&mut self, whom: &str, text: String) {
        self.checker.violate(Rule::Agreement, format!("not as {whom}: {text}"));
    }

    fn begin_healing(&self) -> Healing {
        let regions = self.plan.distance_us.len();
        let mut had = vec![vec![None; self.keys.len()]; regions];
        for host in self.agreeing() {
            let Some(process) = self.nodes[host].as_ref() else { continue };
            for (known, key) in had[self.plan.nodes[host].region].iter_mut().zip(&self.keys) {
                *known = (*known).max(process.store.version(key.hash()));
            }
        }
        let (agreed_in_regions, agreed) = (false, false);
        let has_unmet_nodes = self.has_unmet_nodes();
        let began_us = self.now_us;
        Healing { began_us, had, has_unmet_nodes, agreed_in_regions, agreed, copied: None }
    }

    /// Returns whether a node does not know another one.
    fn has_unmet_nodes(&self) -> bool {
        let living = self.nodes.iter().flatten().count();
        let hosts = (0..self.nodes.len()).filter(|host| self.nodes[*host].is_some());
        let mut known = hosts.filter_map(|host| {
            let process = self.nodes[host].as_ref()?;
            let snapshot = process.node.status(self.now_at(host as u32));
            let lives = |id| self.nodes.iter().flatten().any(|other| other.incarnation == id);
            Some(snapshot.nodes.iter().filter(|node| lives(node.id)).count())
        });
        known.any(|known| known < living)
    }

    /// Nodes that take part in repair.
    pub(super) fn agreeing(&self) -> impl Iterator<Item = usize> {
        let repairs = |host: &usize| self.plan.nodes[*host].features & features::REPAIR != 0;
        (0..self.nodes.len()).filter(|host| self.nodes[*host].is_some()).filter(repairs)
    }

    /// A node that lacks what it should have by now: the version of each region and key.
    fn first_lacking(&self, wanted: impl Fn(usize, usize) -> Option<Version>) -> Option<String> {
        for host in self.agreeing() {
            // A node that starts, or is outdated, reports that until it has copied.
            if self.nodes[host].as_ref().is_some_and(|process| !process.node.has_all_data()) {
                continue;
            }
            let region = self.plan.nodes[host].region;
            for (number, key) in self.keys.iter().enumerate() {
                let Some(wanted) = wanted(region, number) else { continue };
                let known = self.nodes[host].as_ref()?.store.version(key.hash());
                let is_forgotten =
                    self.is_forgotten(host, wanted) || self.may_lack_from_disk(wanted);
                if known < Some(wanted) && !(known.is_none() && is_forgotten) {
                    return Some(format!("{host} has {known:?} of key {number}, not {wanted}"));
                }
            }
        }
        None
    }

    /// Returns whether a version is older than the retention of a node.
    pub(super) fn is_forgotten(&self, host: usize, version: Version) -> bool {
        let Some(process) = self.nodes[host].as_ref() else { return true };
        let now = self.now_at(host as u32);
        let snapshot = process.node.status(now);
        let wall_ms = now.wall_ms.saturating_add_signed(snapshot.clock_offset_ms);
        is_forgotten_at(process, Now { wall_ms, ..now }, version)
    }

    /// Returns the same of a node that may have moved its clock since: while that was ahead, its retention began
    /// later.
    pub(super) fn may_have_forgotten(&self, host: usize, version: Version) -> bool {
        let Some(process) = self.nodes[host].as_ref() else { return true };
        let now = self.now_at(host as u32);
        self.is_forgotten(host, version) || is_forgotten_at(process, now, version)
    }

    /// At the end: no two nodes hold different versions, and none lacks a value for no reason.
    pub(super) fn check_final_agreement(&mut self) {
        if self.nodes.len() > AGREEING_MAX {
            return;
        }
        let copied = self.counts.replicated + self.counts.fetched;
        let healing = self.healing.as_ref();
        if healing.is_some_and(|healing| healing.copied != Some(copied)) {
            self.checker.violate(Rule::Quiet, "records are still copied");
        }
        let starting = self.agreeing().find(|host| {
            self.nodes[*host].as_ref().is_some_and(|process| !process.node.has_all_data())
        });
        if let Some(host) = starting {
            self.checker.violate(Rule::Agreement, format!("{host} has not completed its copy"));
        }
        for number in 0..self.keys.len() {
            if let Some(text) = self.difference(number) {
                return self.checker.violate(Rule::Agreement, format!("key {number}: {text}"));
            }
        }
        self.check_saved();
        self.check_final_purges();
    }

    /// What any node had saved all know: whichever of them started first.
    fn check_saved(&mut self) {
        let agreeing: Vec<_> = self.agreeing().collect();
        for (key, saved) in &self.saved {
            let version = |host: &usize| Some(self.nodes[*host].as_ref()?.store.version(*key));
            let behind =
                agreeing.iter().find(|host| version(host).is_some_and(|v| v < Some(*saved)));
            if let Some(host) = behind {
                let text = format!("{host} does not know {saved} of {key:?}, which was saved");
                return self.checker.violate(Rule::Saved, text);
            }
        }
    }

    /// No node and no near cache has what a purge had ended that any node knows.
    fn check_final_purges(&mut self) {
        let latest: Vec<Option<Version>> = self
            .keys
            .iter()
            .map(|key| {
                let stores = self.agreeing().filter_map(|host| self.nodes[host].as_ref());
                stores.filter_map(|process| process.store.version(key.hash())).max()
            })
            .collect();
        let agreeing: Vec<_> = self.agreeing().collect();
        for host in agreeing {
            for key in 0..self.plan.workload.keys.min(self.keys.len()) {
                let now = self.now_at(host as u32);
                let Some(process) = self.nodes[host].as_ref() else { continue };
                let Some(entry) = process.store.peek(&self.keys[key], now).hit() else { continue };
                let (value, version) = (&entry.value[..], entry.version);
                let remaining_ms = entry.expires.since_ms(now.mono);
                let held = StoredValue { key, version, value, remaining_ms };
                self.checker.check_purged_at_last(&host.to_string(), &held, |it| latest[it]);
            }
        }
        self.check_near_purged(&latest);
    }

    fn difference(&self, number: usize) -> Option<String> {
        let key = &self.keys[number];
        let mut holders: Vec<(usize, Version, u64)> = Vec::new();
        for host in self.agreeing() {
            let stored = self.stored(host, key);
            holders.extend(stored.map(|(version, left_ms)| (host, version, left_ms)));
        }
        let (first, version, _) = *holders.first()?;
        if let Some((other, theirs, _)) = holders.iter().find(|(_, theirs, _)| *theirs != version) {
            return Some(format!("{first} holds {version}, {other} holds {theirs}"));
        }
        for host in self.agreeing() {
            let known = self.nodes[host].as_ref()?.store.version(key.hash());
            if known > Some(version) {
                return Some(format!("{first} holds {version}, {host} knows {known:?}"));
            }
        }
        let evicts = self.plan.nodes.iter().any(|node| node.entries_max < u64::MAX)
            || self.plan.workload.value_bytes_max > 4_000;
        let least_ms = holders.iter().map(|(_, _, remaining_ms)| *remaining_ms).min()?;
        // Beyond the window of repair absence means nothing, except on a node whose misses are
        // authoritative.
        let is_final = |host: usize| {
            self.nodes[host].as_ref().is_some_and(|process| process.node.misses_are_authoritative())
        };
        // What all owners of a region have lost, other regions have still.
        let is_lost = |host: usize| {
            let region = |host: usize| self.plan.nodes[host].region;
            let mut here = holders.iter().filter(|(holder, ..)| region(*holder) == region(host));
            let ends = self.plan.faults.iter().any(|planned| planned.fault.ends_a_process());
            self.plan.profile == Profile::Placement && ends && here.next().is_none()
        };
        let lacks = |host: &usize| {
            let may_lack = (self.is_forgotten(*host, version) && !is_final(*host))
                || !self.keeps(*host, number)
                || is_lost(*host);
            holders.iter().all(|(holder, ..)| holder != host) && !may_lack
        };
        let lacking = self.agreeing().find(lacks);
        // A node that ended a value by a purge gave its tombstone to others, and may have been lost with it.
        let is_purged = self.checker.may_be_ended(number, version, LIFE_MS * 1_000);
        let lacking = lacking.filter(|_| !evicts && !is_purged && least_ms > LIFE_MS);
        lacking.map(|host| format!("{first} holds {version} for {least_ms} ms, {host} does not"))
    }
}

/// With more nodes than this convergence is not checked.
const AGREEING_MAX: usize = 200;

/// Returns whether a version is past the retention of a node whose clock shows `now`.
fn is_forgotten_at(process: &Process, now: Now, version: Version) -> bool {
    let retention_ms = process.store.retention_ms(now);
    version.wall_ms() + retention_ms <= now.wall_ms + RETENTION_MARGIN_MS
}
