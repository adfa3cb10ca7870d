//! What nodes have acknowledged to have replaced or deleted, and what must not return from their disks.

use std::collections::BTreeMap;

use zerocache_core::version::Version;

use super::{World, trace};
use crate::checker::Rule;

/// What a node has acknowledged: by key, the version that it knew.
#[derive(Debug, Default)]
pub(super) struct Promises {
    /// What survives the end of the process.
    written: BTreeMap<usize, Version>,
    /// What survives that of the machine.
    durable: BTreeMap<usize, Version>,
    /// Acknowledged before it was written, with the number of the job that has to be.
    unwritten: Vec<(u64, usize, Version)>,
    /// What was there at an orderly end.
    closed: Option<BTreeMap<usize, Version>>,
}

impl Promises {
    fn add(&mut self, key: usize, version: Version) {
        let promised = self.written.entry(key).or_insert(version);
        *promised = version.max(*promised);
    }

    /// Jobs up to `number` are written; `is_settled` if nothing is owed besides.
    pub(super) fn written(&mut self, number: u64, is_settled: bool) {
        if !is_settled {
            return;
        }
        let (written, unwritten) =
            std::mem::take(&mut self.unwritten).into_iter().partition(|(mark, ..)| *mark <= number);
        self.unwritten = unwritten;
        let written: Vec<(u64, usize, Version)> = written;
        written.into_iter().for_each(|(_, key, version)| self.add(key, version));
    }

    /// What is written is synced.
    pub(super) fn synced(&mut self) {
        self.durable.clone_from(&self.written);
    }

    /// What was not synced may be lost.
    pub(super) fn lose_power(&mut self) {
        self.written.clone_from(&self.durable);
    }

    /// A process has taken an older version of a key from others: what its predecessor had in memory alone is lost.
    fn relearned(&mut self, key: usize, version: Version) {
        for promised in [&mut self.written, &mut self.durable] {
            promised.entry(key).and_modify(|before| *before = version.min(*before));
        }
    }

    /// Nothing is promised any more of keys of which `is_gone` holds.
    fn give_up(&mut self, is_gone: impl Fn(usize) -> bool) {
        self.written.retain(|key, _| !is_gone(*key));
        self.durable.retain(|key, _| !is_gone(*key));
    }

    /// Nothing is promised any more.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }
}

impl World {
    /// Returns what a node knows of keys.
    pub(super) fn versions_at(&self, host: u32, keys: &[usize]) -> Vec<(usize, Version)> {
        let process = self.nodes[host as usize].as_ref();
        let known = |key: usize| Some((key, process?.store.version(self.keys[key].hash())?));
        keys.iter().filter_map(|key| known(*key)).collect()
    }

    /// A node acknowledges versions of keys, of which the jobs up to `mark` are written or not.
    pub(super) fn promise(
        &mut self,
        host: u32,
        mark: u64,
        versions: &[(usize, Version)],
        is_written: bool,
    ) {
        let Some(disk) = self.disks.get_mut(&host) else { return };
        for (key, version) in versions {
            match is_written {
                true => disk.promises.add(*key, *version),
                false => disk.promises.unwritten.push((mark, *key, *version)),
            }
        }
    }

    /// A process knows this version of a key, from others or from its disk.
    pub(super) fn note_known(&mut self, host: u32, key: usize, version: Option<Version>) {
        let has_others = self.plan.nodes.len() > 1;
        if let (Some(disk), Some(version), true) = (self.disks.get_mut(&host), version, has_others)
        {
            disk.promises.relearned(key, version);
        }
    }

    /// Notes what a node has whose log was ended in order, if nothing of it may be gone.
    pub(super) fn note_closed(&mut self, host: u32, is_whole: bool) {
        let values = (0..self.plan.workload.keys).filter_map(|key| {
            let (version, _) = self.stored(host as usize, &self.keys[key])?;
            Some((key, version))
        });
        let values = values.collect();
        let Some(disk) = self.disks.get_mut(&host) else { return };
        disk.promises.closed = (is_whole && !disk.is_damaged).then_some(values);
    }

    /// A process has taken in what is on its disk, and uses it or not: nothing returns that an earlier one had
    /// acknowledged to be replaced or deleted.
    pub(super) fn check_recovered(&mut self, host: u32, is_used: bool) {
        let Some(disk) = self.disks.get_mut(&host) else { return };
        disk.promises.unwritten.clear();
        let closed = disk.promises.closed.take().filter(|_| is_used);
        for key in 0..self.keys.len() {
            self.check_recovered_key(host, key, is_used);
        }
        if !is_used && let Some(disk) = self.disks.get_mut(&host) {
            // The purges went with all that they ended.
            disk.promises.give_up(|key| self.checker.is_register(key));
        }
        for (key, version) in closed.into_iter().flatten() {
            let Some(process) = self.nodes[host as usize].as_ref() else { return };
            let known = process.store.version(self.keys[key].hash());
            let may_be_gone = !self.checker.is_to_live(key, version)
                || self.is_forgotten(host as usize, version)
                || process.store.stats().counts.evicted > 0;
            if known < Some(version) && !may_be_gone {
                let text = format!(
                    "{host} ended in order with {version} of key {key}, and knows {known:?} now"
                );
                return self.checker.violate(Rule::Disk, text);
            }
        }
    }

    fn check_recovered_key(&mut self, host: u32, key: usize, is_used: bool) {
        let Some(process) = self.nodes[host as usize].as_ref() else { return };
        let Some(disk) = self.disks.get(&host) else { return };
        let hash = self.keys[key].hash();
        let on_disk = process.store.find_on_disk(hash, self.now_at(host));
        if let Some(entry) = on_disk {
            trace!(self, "{host} has {} of key {key} on disk", entry.version);
            self.checker.recovered(host, key, entry.version);
        }
        let Some(promised) = disk.promises.written.get(&key).copied() else { return };
        let known = process.store.version(hash);
        let is_register = self.checker.is_register(key);
        let returned = on_disk.map(|entry| entry.version).filter(|version| *version < promised);
        if let Some(version) = returned {
            let text = format!(
                "{version} of key {key} is on the disk of {host}, which had acknowledged {promised}"
            );
            self.checker.violate(Rule::Disk, text);
        }
        let is_lost = is_register && is_used && !disk.was_full && known < Some(promised);
        if is_lost && !self.is_forgotten(host as usize, promised) {
            let text = format!(
                "{host} had acknowledged the purge {promised}, key {key}, and knows {known:?} now"
            );
            self.checker.violate(Rule::Disk, text);
        }
    }

    /// Checks that a node without others neither holds nor serves what it had acknowledged to be replaced or deleted.
    pub(super) fn check_promised(&mut self, host: u32, key: usize, version: Version) {
        if self.plan.nodes.len() > 1 {
            return;
        }
        let Some(disk) = self.disks.get(&host) else { return };
        let promised = disk.promises.written.get(&key);
        if let Some(promised) = promised.filter(|promised| version < **promised) {
            let text = format!("{host} has {version} of key {key}, after {promised}");
            self.checker.violate(Rule::Disk, text);
        }
    }
}
