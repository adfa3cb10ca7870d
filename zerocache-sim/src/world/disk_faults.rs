//! Faults of disks, and what they excuse.

use zerocache_core::{key::Key, store::Lookup, version::Version};
use zerocache_disk::{Crash, Directory};

use super::World;
use crate::{clock::SECOND_US, disks::DiskFault, faults::Fault};

/// A client takes a node for silent after this time, and asks another one, in microseconds.
const PATIENCE_US: u64 = 100_000;

impl World {
    /// A process is about to end at once. If only it is killed, a write may be cut.
    pub(super) fn tear_disk(&mut self, host: u32, is_quiet: bool) {
        let bytes = self.random.below(8_000);
        let is_torn = !is_quiet && self.random.chance(500);
        let Some(disk) = self.disks.get(&host).filter(|_| is_torn) else { return };
        disk.directory.die_after(bytes);
        let now = self.now_at(host);
        let Some(process) = self.nodes[host as usize].as_mut() else { return };
        let Some(writer) = process.disk.as_mut().and_then(|tier| tier.writer.as_mut()) else {
            return;
        };
        let now = process.node.cluster_time(now);
        writer.flush(&process.store, now, &mut |_, _| {});
    }

    /// A process has ended at once, or with the power of its machine.
    pub(super) fn crash_disk(&mut self, host: u32, is_quiet: bool) {
        let torn = *self.random.pick(&[0, 10, 1_000, 20_000, u64::MAX]);
        let Some(disk) = self.disks.get_mut(&host) else { return };
        let crash = if is_quiet { Crash::PowerLoss { torn } } else { Crash::Killed };
        disk.directory.crash(crash);
        disk.apply_faults();
        if is_quiet {
            disk.promises.lose_power();
        }
    }

    /// A fault of a disk begins.
    pub(super) fn begin_disk_fault(&mut self, index: usize, host: u32, fault: DiskFault) {
        let Some(disk) = self.disks.get_mut(&host) else { return };
        match fault {
            DiskFault::Full => {
                disk.full.push(index);
                disk.was_full = true;
            }
            DiskFault::Failing => disk.failing.push(index),
            DiskFault::Slow(us) => {
                disk.slow_us.insert(index, us);
            }
            DiskFault::Flip(count) => (0..count).for_each(|_| self.flip(host)),
        }
        if let Some(disk) = self.disks.get(&host) {
            disk.apply_faults();
        }
    }

    /// A fault of a disk ends.
    pub(super) fn end_disk_fault(&mut self, index: usize, host: u32) {
        let Some(disk) = self.disks.get_mut(&host) else { return };
        disk.full.retain(|fault| *fault != index);
        disk.failing.retain(|fault| *fault != index);
        disk.slow_us.remove(&index);
        disk.apply_faults();
    }

    /// Flips bits of a byte of a segment.
    fn flip(&mut self, host: u32) {
        let Some(disk) = self.disks.get_mut(&host) else { return };
        let mut names = disk.directory.list().unwrap_or_default();
        names.retain(|name| name.ends_with(".seg"));
        if names.is_empty() {
            return;
        }
        let at = self.random.index(names.len());
        let bytes = disk.directory.content(&names[at]).map_or(0, |content| content.len() as u64);
        disk.directory.flip(&names[at], self.random.below(bytes));
        disk.is_damaged = true;
        if at + 1 == names.len() {
            // The last record of the segment that is written looks as if it was torn.
            disk.promises.forget();
        }
    }

    /// Returns whether reads of a node's disk may have failed, or come too late for its clients, in an interval.
    pub(super) fn had_disk_fault(&self, host: u32, (from_us, until_us): (u64, u64)) -> bool {
        let is_slow = self.disks.get(&host).is_some_and(|disk| disk.plan.latency_us >= PATIENCE_US);
        is_slow
            || self.plan.faults.iter().any(|planned| {
                let is_of_disk = matches!(planned.fault, Fault::Disk { node, .. } if node == host);
                is_of_disk
                    && planned.at_us <= until_us
                    && from_us <= planned.until_us + 5 * SECOND_US
            })
    }

    /// Returns whether nodes may lack a version that another one has on disk: rounds do not reach it at one of them.
    pub(super) fn may_lack_from_disk(&self, version: Version) -> bool {
        let living = (0..self.nodes.len()).filter(|host| self.nodes[*host].is_some());
        !self.disks.is_empty() && living.into_iter().any(|host| self.is_forgotten(host, version))
    }

    /// The version of a value that a node holds, in memory or on disk, and how long it lives at least, in
    /// milliseconds.
    pub(super) fn stored(&self, host: usize, key: &Key) -> Option<(Version, u64)> {
        let now = self.now_at(host as u32);
        let store = &self.nodes[host].as_ref()?.store;
        match store.peek(key, now) {
            Lookup::Hit(entry) => Some((entry.version, entry.expires.since_ms(now.mono))),
            // Values that live for less than a minute do not go there.
            Lookup::OnDisk => Some((store.version(key.hash())?, 0)),
            Lookup::Miss { .. } => None,
        }
    }
}
