//! The versions that each process knew of each key, as far as the checker observed them.

use std::collections::BTreeMap;

use zerocache_core::version::{Incarnation, Version};

use super::{Checker, Rule};

/// The versions that a process knew of a key.
#[derive(Clone, Copy, Debug, Default)]
struct Knowledge {
    /// The highest version that it knew since its clock last went back: it never goes below.
    floor: Option<Version>,
    /// The highest one that it ever knew.
    ever: Option<Version>,
    /// Since when it has known that, in microseconds.
    ever_us: u64,
    /// Whether it has forgotten the key for a valid reason.
    is_forgotten: bool,
    /// The highest version that was offered to it and that it did not take.
    refused: Option<Version>,
    /// The value that it holds, and since when at least, in microseconds.
    holds: Option<(Version, u64)>,
}

impl Knowledge {
    fn learn(&mut self, version: Option<Version>, now_us: u64) {
        if version > self.ever {
            (self.ever, self.ever_us) = (version, now_us);
        }
    }
}

/// A process of a node, which may have ended.
#[derive(Debug)]
struct Process {
    host: u32,
    keys: Vec<Knowledge>,
}

/// All processes of nodes that there were.
#[derive(Debug, Default)]
pub(super) struct Processes {
    all: BTreeMap<Incarnation, Process>,
    /// The running process of each host.
    running: BTreeMap<u32, Incarnation>,
}

impl Processes {
    fn of(&mut self, host: u32, key: usize) -> Option<&mut Knowledge> {
        self.all.get_mut(self.running.get(&host)?)?.keys.get_mut(key)
    }

    fn seen(&self, host: u32, key: usize) -> Option<&Knowledge> {
        self.all.get(self.running.get(&host)?)?.keys.get(key)
    }
}

impl Checker {
    /// A process has begun.
    pub(crate) fn started(&mut self, host: u32, incarnation: Incarnation, keys: usize) {
        let keys = vec![Knowledge::default(); keys];
        self.processes.running.insert(host, incarnation);
        self.processes.all.insert(incarnation, Process { host, keys });
    }

    /// A process has ended.
    pub(crate) fn ended(&mut self, host: u32) {
        self.processes.running.remove(&host);
    }

    /// On which host a process is or was.
    pub(crate) fn host_of(&self, incarnation: Incarnation) -> Option<u32> {
        self.processes.all.get(&incarnation).map(|process| process.host)
    }

    /// A process gave what it had other versions: what it knew before counts no more.
    pub(crate) fn reset_versions(&mut self, host: u32) {
        let id = self.processes.running.get(&host);
        if let Some(process) = id.and_then(|id| self.processes.all.get_mut(id)) {
            for known in &mut process.keys {
                (known.floor, known.is_forgotten) = (None, false);
            }
        }
    }

    /// Records the version of a key, of a value or a tombstone, that a node knows. If the node
    /// knows none any more, returns the version that it knew before: there must be a reason for
    /// that.
    pub(crate) fn observed(
        &mut self,
        host: u32,
        key: usize,
        version: Option<Version>,
    ) -> Option<Version> {
        let now_us = self.now_us;
        let known = self.processes.of(host, key)?;
        let before = known.floor;
        if version.is_none() {
            return before.filter(|_| !known.is_forgotten);
        }
        known.is_forgotten = false;
        if before > version {
            let text = format!("{host} went from {before:?} of key {key} back to {version:?}");
            self.violate(Rule::Order, text);
        } else {
            known.floor = version;
            known.learn(version, now_us);
            self.purges.note(key, version, now_us);
        }
        None
    }

    /// A node knows this version of a key, and may have answered with an older one before it did.
    pub(crate) fn has(&mut self, host: u32, key: usize, version: Option<Version>) {
        let now_us = self.now_us;
        if let Some(known) = self.processes.of(host, key) {
            known.learn(version, now_us);
            self.purges.note(key, version, now_us);
        }
    }

    /// A node has forgotten a key, and there is a reason for it.
    pub(crate) fn forgot(&mut self, host: u32, key: usize) {
        if let Some(known) = self.processes.of(host, key) {
            known.is_forgotten = true;
        }
    }

    /// Records that a node has forgotten a key, and accepts the version of another node.
    pub(crate) fn relearns(&mut self, host: u32, key: usize) {
        if let Some(known) = self.processes.of(host, key) {
            known.floor = None;
        }
    }

    /// A node holds a value of this version, or none.
    pub(crate) fn holds(&mut self, host: u32, key: usize, version: Option<Version>) {
        let now_us = self.now_us;
        if let Some(known) = self.processes.of(host, key) {
            let since = known.holds.filter(|(before, _)| Some(*before) == version);
            known.holds = since.or(version.map(|version| (version, now_us)));
        }
    }

    /// A node was offered this version; what it knows of the key now is `after`.
    pub(crate) fn offered(
        &mut self,
        host: u32,
        key: usize,
        version: Version,
        after: Option<Version>,
    ) {
        if after < Some(version)
            && let Some(known) = self.processes.of(host, key)
        {
            known.refused = known.refused.max(Some(version));
        }
    }

    /// The value that a node holds, and since when.
    pub(crate) fn held_since(&self, host: u32, key: usize) -> Option<(Version, u64)> {
        self.processes.seen(host, key)?.holds
    }

    /// Returns whether a node had this version or a newer one, or refused it.
    pub(crate) fn had_or_refused(&self, host: u32, key: usize, version: Version) -> bool {
        let known = self.processes.seen(host, key);
        known.is_none_or(|known| known.ever.max(known.refused) >= Some(version))
    }

    /// The newest version of a key that a process ever knew, and since when.
    pub(super) fn newest_of(&self, id: Incarnation, key: usize) -> Option<(Version, u64)> {
        let known = self.processes.all.get(&id)?.keys.get(key)?;
        known.ever.map(|version| (version, known.ever_us))
    }

    /// Returns whether a process, which may have ended, ever knew this version of a key or a newer
    /// one.
    pub(crate) fn ever_knew(&self, id: Incarnation, key: usize, version: Version) -> bool {
        let known = self.processes.all.get(&id).and_then(|process| process.keys.get(key));
        known.is_some_and(|known| known.ever >= Some(version))
    }

    /// The same, or was offered it and did not take it.
    pub(crate) fn ever_knew_or_refused(
        &self,
        id: Incarnation,
        key: usize,
        version: Version,
    ) -> bool {
        let known = self.processes.all.get(&id).and_then(|process| process.keys.get(key));
        known.is_some_and(|known| known.ever.max(known.refused) >= Some(version))
    }

    /// The hosts of processes that ever knew this version of a key or a newer one, or refused it.
    pub(crate) fn judges_of(&self, key: usize, version: Version) -> impl Iterator<Item = u32> {
        let known = move |process: &&Process| {
            let known = &process.keys[key];
            known.ever.max(known.refused) >= Some(version)
        };
        self.processes.all.values().filter(known).map(|process| process.host)
    }

    /// Returns how many processes ever knew this version of a key or a newer one.
    pub(super) fn holders(&self, key: usize, version: Version) -> u32 {
        let all = self.processes.all.values();
        all.filter(|process| process.keys[key].ever >= Some(version)).count() as u32
    }

    /// The version of a key below which the running process of a host never goes.
    pub(super) fn floor_of(&self, host: u32, key: usize) -> Option<Version> {
        self.processes.seen(host, key)?.floor
    }

    /// The highest version of a key that the running process of a host ever knew.
    pub(super) fn ever_at(&self, host: u32, key: usize) -> Option<Version> {
        self.processes.seen(host, key)?.ever
    }

    /// Returns whether the running process of a host ever knew this version or a newer one.
    pub(super) fn knew(&self, host: u32, key: usize, version: Version) -> bool {
        self.processes.seen(host, key).is_some_and(|known| known.ever >= Some(version))
    }
}
