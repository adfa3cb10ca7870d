//! The disks of nodes: what the threads of a server do with a log, in the time of the simulation.
//!
//! A writer takes jobs of the store and appends them, and flushes some time later; meanwhile the store changes. Reads
//! take their time, too. Faults apply to the directory, which outlives processes.

use std::collections::{BTreeMap, VecDeque};

use zerocache_core::{
    node::{Input, PersistedState, RequestId},
    store::{DiskTerms, EntryOnDisk},
    time::Now,
    version::Version,
    wire::{NodeState, Response},
};
use zerocache_disk::{LogOptions, MemoryDirectory, Reader, RecoveredLog, StoreWriter, WriteError};

use super::{Event, World, dial::CLUSTER, disk_promises::Promises, trace};
use crate::{checker::Rule, clock::SECOND_US, disks::DiskPlan, plan::Plan};

/// The most jobs that are taken at a time.
const JOBS_MAX: u64 = 64;

/// The interval at which the state of a node is saved, in microseconds.
const SAVE_EVERY_US: u64 = SECOND_US;

/// How long the writer waits before it tries again what could not be written, in microseconds.
const RETRY_US: u64 = 100_000;

/// An acknowledgement waits for the disk for this long at most, in microseconds.
const HELD_US_MAX: u64 = 500_000;

/// The longest time until an earlier process's log is read, in microseconds.
const OPEN_US_MAX: u64 = 300_000;

/// What a disk does next.
#[derive(Debug)]
pub(super) enum DiskWork {
    /// Jobs are taken and appended.
    Append,
    /// What was appended is written.
    Flush,
    /// The state is saved.
    Save,
    /// Values have been read for a request.
    Load { id: RequestId, entries: Vec<EntryOnDisk> },
    /// Acknowledgements may have waited for too long.
    Release,
}

/// The disk of a host.
pub(super) struct HostDisk {
    pub(super) plan: DiskPlan,
    pub(super) directory: MemoryDirectory,
    /// What the node saved, by the number that is in the directory instead of it, and when by its clock.
    states: BTreeMap<u64, (PersistedState, u64)>,
    pub(super) promises: Promises,
    /// How much longer everything takes, by fault.
    pub(super) slow_us: BTreeMap<usize, u64>,
    /// Faults that make it full, and that make it fail.
    pub(super) full: Vec<usize>,
    pub(super) failing: Vec<usize>,
    /// Whether values may be lost: bits were flipped, or reads have failed.
    pub(super) is_damaged: bool,
    /// Whether it was full: then the records of purges may be gone, with all that they ended.
    pub(super) was_full: bool,
}

/// The disk of a process.
#[derive(Default)]
pub(super) struct Tier {
    pub(super) writer: Option<StoreWriter<MemoryDirectory>>,
    reader: Option<Reader<MemoryDirectory>>,
    /// Whether the log was opened, or could not be.
    is_opened: bool,
    /// Whether the writer has something to do at the moment.
    is_working: bool,
    saved_us: u64,
    held: VecDeque<Held>,
    /// The keys of changes that are not answered.
    pub(super) changes: BTreeMap<RequestId, Vec<usize>>,
}

/// An acknowledgement that waits for the disk.
struct Held {
    mark: u64,
    since_us: u64,
    versions: Vec<(usize, Version)>,
    connection: usize,
    id: u32,
    response: Response,
}

impl HostDisk {
    /// The disks of a plan.
    pub(super) fn all(plan: &Plan) -> BTreeMap<u32, Self> {
        let disk = |plan: &DiskPlan| Self {
            plan: plan.clone(),
            directory: MemoryDirectory::new(),
            states: BTreeMap::new(),
            promises: Promises::default(),
            slow_us: BTreeMap::new(),
            full: Vec::new(),
            failing: Vec::new(),
            is_damaged: false,
            was_full: false,
        };
        let hosts = plan.nodes.iter().enumerate();
        hosts.filter_map(|(host, node)| Some((host as u32, disk(node.disk.as_ref()?)))).collect()
    }

    fn options(&self) -> LogOptions {
        let DiskPlan { bytes_max, segment_bytes, salt, .. } = self.plan;
        LogOptions { segment_bytes, salt, ..LogOptions::new(bytes_max) }
    }

    /// Which values go to it.
    pub(super) fn terms(&self) -> DiskTerms {
        let DiskPlan { value_bytes_min, admits_unread, .. } = self.plan;
        DiskTerms { value_bytes_min, admits_unread }
    }

    pub(super) fn apply_faults(&self) {
        self.directory.set_full(!self.full.is_empty());
        self.directory.set_failing(!self.failing.is_empty());
    }

    /// The state that an earlier process saved, as of `now`.
    fn state(&self, now: Now) -> Option<PersistedState> {
        let bytes = zerocache_disk::read_state(&self.directory).ok()??;
        let number = u64::from_le_bytes(bytes.try_into().ok()?);
        let (state, at_ms) = self.states.get(&number)?;
        let away_ms = now.wall_ms.saturating_sub(*at_ms);
        Some(PersistedState { away_ms, ..state.clone() })
    }
}

impl World {
    /// Returns when a read or a write of a disk is done, in microseconds from now.
    fn disk_us(&mut self, host: u32) -> u64 {
        let Some(disk) = self.disks.get(&host) else { return 0 };
        let most_us = disk.plan.latency_us + disk.slow_us.values().sum::<u64>();
        self.random.between(20, most_us)
    }

    fn schedule_disk(&mut self, host: u32, after_us: u64, work: DiskWork) {
        let life = self.hosts[host as usize].life;
        self.schedule_in(after_us, Event::Disk { host, life, work });
    }

    /// Returns when the log of an earlier process has been read, in microseconds from now; none without a disk.
    pub(super) fn disk_opens_us(&mut self, host: u32) -> Option<u64> {
        self.disks.get(&host)?;
        Some(self.random.below(OPEN_US_MAX))
    }

    /// The disk of a host does what it is to do.
    pub(super) fn disk_works(&mut self, host: u32, life: u32, work: DiskWork) {
        if !self.lives(host, life) {
            return;
        }
        match work {
            DiskWork::Append => self.append_jobs(host),
            DiskWork::Flush => self.flush_disk(host),
            DiskWork::Save => {
                self.schedule_disk(host, SAVE_EVERY_US, DiskWork::Save);
                if self.tier(host).is_some_and(|tier| !tier.is_working) {
                    self.save_disk(host, false);
                }
            }
            DiskWork::Load { id, entries } => {
                entries.into_iter().for_each(|entry| self.load_entry(host, entry));
                self.node_input(host, vec![Input::Loaded(id)]);
            }
            DiskWork::Release => self.release_overdue(host),
        }
        self.wake_disk(host);
    }

    fn tier(&mut self, host: u32) -> Option<&mut Tier> {
        self.nodes[host as usize].as_mut()?.disk.as_mut()
    }

    /// Opens the log of a host and takes in what is in it, if the node `asked` for that.
    pub(super) fn open_disk(&mut self, host: u32, asked: bool) {
        let now = self.now_at(host);
        let Some(disk) = self.disks.get(&host) else { return };
        let Some(process) = self.nodes[host as usize].as_mut() else { return };
        let Some(tier) = process.disk.as_mut().filter(|tier| !tier.is_opened) else { return };
        tier.is_opened = true;
        let now = process.node.cluster_time(now);
        let state = disk.state(now).filter(|_| asked);
        let (directory, log) = (disk.directory.clone(), (CLUSTER, disk.options()));
        let recovered =
            zerocache_disk::recover(directory, log, &process.store, now, state.is_some());
        let (kept, state) = match recovered {
            Ok(RecoveredLog { writer, reader, kept, entries, is_whole }) => {
                (tier.writer, tier.reader) = (Some(writer), Some(reader));
                let state = state.filter(|_| is_whole);
                self.counts.disk_recovered += entries;
                trace!(self, "{host} opens its disk, {entries} entries, state {state:?}");
                (kept, state)
            }
            Err(error) => {
                trace!(self, "{host} cannot open its disk: {error}");
                (Vec::new(), None)
            }
        };
        let is_used = state.is_some();
        if asked {
            let complete = Input::RestoreComplete(state);
            self.node_input(host, vec![Input::RestoredItems(kept), complete]);
        }
        self.observe_registers(host);
        self.check_recovered(host, is_used);
        self.schedule_disk(host, SAVE_EVERY_US, DiskWork::Save);
        self.wake_disk(host);
    }

    /// A node is in sync, and did not ask for what is on its disk.
    pub(super) fn open_unasked_disk(&mut self, host: u32, state: NodeState) {
        if state == NodeState::InSync {
            self.open_disk(host, false);
        }
    }

    /// Lets the writer begin, if there is something to do.
    pub(super) fn wake_disk(&mut self, host: u32) {
        let Some(process) = self.nodes[host as usize].as_mut() else { return };
        let has_jobs = process.store.has_disk_jobs();
        let Some(tier) = process.disk.as_mut().filter(|tier| !tier.is_working) else { return };
        let Some(writer) = &tier.writer else { return };
        let after_us = match () {
            () if has_jobs => self.random.below(5_000),
            () if writer.owes() => RETRY_US,
            () => return,
        };
        tier.is_working = true;
        self.schedule_disk(host, after_us, DiskWork::Append);
    }

    fn append_jobs(&mut self, host: u32) {
        let now = self.now_at(host);
        let most = self.random.between(1, JOBS_MAX) as usize;
        let Some(process) = self.nodes[host as usize].as_mut() else { return };
        let now = process.node.cluster_time(now);
        let Some(writer) = process.disk.as_mut().and_then(|tier| tier.writer.as_mut()) else {
            return;
        };
        let jobs = process.store.take_disk_jobs(most);
        let ignore = &mut |_: &'static str, _: &WriteError| {};
        writer.append(&process.store, jobs, now, ignore);
        let after_us = self.disk_us(host);
        self.schedule_disk(host, after_us, DiskWork::Flush);
    }

    fn flush_disk(&mut self, host: u32) {
        let now = self.now_at(host);
        let Some(process) = self.nodes[host as usize].as_mut() else { return };
        let now = process.node.cluster_time(now);
        let Some(tier) = process.disk.as_mut() else { return };
        tier.is_working = false;
        let Some(writer) = tier.writer.as_mut() else { return };
        let ignore = &mut |_: &'static str, _: &WriteError| {};
        let written = writer.flush(&process.store, now, ignore);
        let is_settled = !writer.owes();
        let (stats, saved_us) = (writer.stats(), tier.saved_us);
        let count = tier.held.iter().take_while(|held| held.mark <= written).count();
        let released: Vec<_> = tier.held.drain(..count).collect();
        let Some(disk) = self.disks.get_mut(&host) else { return };
        disk.promises.written(written, is_settled);
        if stats.bytes > disk.plan.bytes_max {
            let text = format!("{host} has {stats:?} on disk, of {}", disk.plan.bytes_max);
            self.checker.violate(Rule::Capacity, text);
        }
        for held in released {
            self.promise(host, held.mark, &held.versions, true);
            self.respond(held.connection, held.id, &held.response);
        }
        if self.now_us >= saved_us + SAVE_EVERY_US {
            self.save_disk(host, false);
        }
    }

    /// Makes what is written durable, and saves the state of the node; `is_complete` if the log has the values that are
    /// in memory, too.
    fn save_disk(&mut self, host: u32, is_complete: bool) {
        let (now, now_us) = (self.now_at(host), self.now_us);
        let Some(process) = self.nodes[host as usize].as_mut() else { return };
        let Some(tier) = process.disk.as_mut() else { return };
        let (Some(writer), Some(disk)) = (tier.writer.as_mut(), self.disks.get_mut(&host)) else {
            return;
        };
        tier.saved_us = now_us;
        if writer.checkpoint(None).run().is_ok() {
            disk.promises.synced();
        }
        if !process.node.may_persist() {
            return;
        }
        let mut state = process.node.persisted_state(now);
        state.lacks_values |= !is_complete;
        let number = now_us;
        if writer.checkpoint(Some(number.to_le_bytes().to_vec())).run().is_ok() {
            let at_ms = process.node.cluster_time(now).wall_ms;
            disk.states.clear();
            disk.states.insert(number, (state, at_ms));
        }
    }

    /// A node wants values to be put back for a request.
    pub(super) fn load(&mut self, host: u32, id: RequestId, entries: Vec<EntryOnDisk>) {
        self.counts.disk_loads += entries.len() as u64;
        let after_us = self.disk_us(host);
        self.schedule_disk(host, after_us, DiskWork::Load { id, entries });
    }

    fn load_entry(&mut self, host: u32, entry: EntryOnDisk) {
        let now = self.now_at(host);
        let Some(process) = self.nodes[host as usize].as_ref() else { return };
        let Some(reader) = process.disk.as_ref().and_then(|tier| tier.reader.as_ref()) else {
            return;
        };
        let Err(error) = zerocache_disk::restore(reader, &process.store, entry, now) else {
            return;
        };
        trace!(self, "{host} cannot read {entry:?}: {error}");
        let Some(disk) = self.disks.get_mut(&host) else { return };
        disk.is_damaged |= !disk.failing.is_empty();
        let Some(key) = self.numbers.get(&entry.key).copied() else { return };
        if !disk.is_damaged {
            let text = format!("{host} has lost {} of key {key} on its disk", entry.version);
            return self.checker.violate(Rule::Disk, text);
        }
        self.checker.forgot(host, key);
        self.checker.relearns(host, key);
        // Nobody else may have it.
        self.healing.iter_mut().for_each(|healing| healing.lose(key, entry.version));
    }

    /// Returns whether the value of a key is on disk alone.
    pub(super) fn is_on_disk(&self, host: u32, key: usize) -> bool {
        let now = self.now_at(host);
        let process = self.nodes[host as usize].as_ref();
        process.is_some_and(|process| {
            process.store.has_disk()
                && process.store.find_on_disk(self.keys[key].hash(), now).is_some()
        })
    }

    /// Answers a request. An acknowledgement waits until what changed before it cannot come back from disk.
    pub(super) fn hold_or_respond(
        &mut self,
        host: u32,
        (connection, id): (usize, u32),
        request: RequestId,
        response: Response,
    ) {
        let now_us = self.now_us;
        let changed = self.tier(host).map(|tier| tier.changes.remove(&request).unwrap_or_default());
        let versions = self.versions_at(host, &changed.unwrap_or_default());
        let Some(process) = self.nodes[host as usize].as_mut() else { return };
        let mark = process.store.disk_mark();
        let Some(tier) = process.disk.as_mut() else {
            return self.respond(connection, id, &response);
        };
        let is_acknowledgement =
            matches!(response, Response::Written(_) | Response::Taken(_) | Response::Replicated(_));
        let written = tier.writer.as_ref().map(StoreWriter::written);
        if is_acknowledgement && written.is_some_and(|written| written < mark) {
            let since_us = now_us;
            tier.held.push_back(Held { mark, since_us, versions, connection, id, response });
            self.counts.disk_held += 1;
            return self.schedule_disk(host, HELD_US_MAX, DiskWork::Release);
        }
        if is_acknowledgement {
            // Before the log is open, the erases of what it has are not in it.
            let is_written = tier.writer.as_ref().is_some_and(|writer| !writer.owes_at_first());
            self.promise(host, mark, &versions, is_written);
        }
        self.respond(connection, id, &response);
    }

    /// Acknowledges what has waited for too long.
    fn release_overdue(&mut self, host: u32) {
        let now_us = self.now_us;
        let Some(tier) = self.tier(host) else { return };
        let is_due = |held: &&Held| now_us >= held.since_us + HELD_US_MAX;
        let count = tier.held.iter().take_while(is_due).count();
        let released: Vec<_> = tier.held.drain(..count).collect();
        for held in released {
            self.counts.disk_unwritten += 1;
            self.promise(host, held.mark, &held.versions, false);
            self.respond(held.connection, held.id, &held.response);
        }
    }

    /// A node that shuts down writes what memory alone has, and ends its log.
    pub(super) fn close_disk(&mut self, host: u32) {
        let now = self.now_at(host);
        while self.nodes[host as usize].as_ref().is_some_and(|node| node.store.has_disk_jobs()) {
            if self.tier(host).is_none_or(|tier| tier.writer.is_none()) {
                return;
            }
            self.append_jobs(host);
            self.flush_disk(host);
        }
        self.flush_disk(host);
        let Some(process) = self.nodes[host as usize].as_mut() else { return };
        let at = process.node.cluster_time(now);
        let Some(tier) = process.disk.as_mut() else { return };
        let Some(writer) = tier.writer.as_mut() else { return };
        let ignore = &mut |_: &'static str, _: &WriteError| {};
        let (_, is_complete) = writer.append_rest(&process.store, at, ignore);
        if process.store.stats().counts.evicted > 0 {
            // The next process does not count it, and knows the versions.
            self.checker.made_room();
        }
        self.save_disk(host, is_complete);
        let Some(writer) = self.tier(host).and_then(|tier| tier.writer.take()) else { return };
        let has_removed = writer.stats().segments_removed > 0;
        let is_closed = writer.close().is_ok();
        self.note_closed(host, is_complete && is_closed && !has_removed);
    }
}
