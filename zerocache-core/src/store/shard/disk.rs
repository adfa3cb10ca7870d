//! Entries of a shard that leave for the disk, are there, and come back.

use super::Shard;
use crate::{
    key::KeyHash,
    store::{
        backend::Pages,
        disk::{DISK_HEAD_BYTES_MAX, DiskCopy, DiskJob, DiskPlace, DiskTerms, DiskVerdict},
        outcome::ApplyOutcome,
        slot::{Class, NewEntry, SlotRef},
        sync::record,
        variant::StoreVariant,
    },
    time::Instant,
    version::Version,
};

/// Values that live no longer than this do not go to disk, in milliseconds.
const LIFE_MS_MIN: u64 = 60_000;

/// Where a record of an entry is, by version and place.
type DiskRecord = (KeyHash, Version, DiskPlace);

/// Why an entry is no longer there, whose value may be on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Departure {
    /// It was deleted or evicted, has expired, or a purge ended it: its version stays.
    Ended,
    /// A later value took its place, or the node does not know it any more: others may give it back to a later process.
    Forgotten,
}

impl<P: Pages> Shard<P> {
    /// Begins to queue jobs for the disk.
    pub const fn open_disk(&mut self) {
        self.has_disk = true;
    }

    /// Returns whether there may be entries on disk.
    #[inline]
    #[must_use]
    pub const fn has_disk(&self) -> bool {
        self.has_disk
    }

    /// Returns whether jobs for the disk wait to be queued.
    #[inline]
    #[must_use]
    pub fn has_jobs(&self) -> bool {
        !self.jobs.is_empty()
    }

    /// Takes the jobs for the disk.
    pub fn take_jobs(&mut self) -> impl Iterator<Item = DiskJob> {
        self.jobs.drain(..)
    }

    /// Queues that a key's values up to `version` are not to come back, if one is on disk or on its way there.
    #[inline]
    pub(super) fn depart(&mut self, index: u32, version: Version, departure: Departure) {
        if self.has_disk && !self.breakage.is(StoreVariant::DiskErasesDropped) {
            self.depart_from_disk(index, version, departure);
        }
    }

    #[cold]
    fn depart_from_disk(&mut self, index: u32, version: Version, departure: Departure) {
        let slot = self.entries.slot(index);
        let copy = slot.disk_copy();
        let is_leaving = slot.class == Class::Disk && !slot.is_on_disk();
        if copy.is_some() || is_leaving {
            let (hash, place) = (slot.hash(), copy.map(|copy| copy.place));
            self.jobs.push(match departure {
                Departure::Ended => DiskJob::Erase(hash, version, place),
                Departure::Forgotten => DiskJob::Forget(hash, version, place),
            });
        }
    }

    /// Queues the erase of a key that was deleted, of which nothing is on disk as far as is known.
    pub(super) fn note_delete(&mut self, hash: KeyHash, version: Version) {
        let is_noted = self.has_disk && !self.breakage.is(StoreVariant::DiskErasesDropped);
        if is_noted && !self.jobs.iter().any(|job| is_erase_of(job, hash)) {
            self.jobs.push(DiskJob::Erase(hash, version, None));
        }
    }

    /// Evicts an entry to disk, if it is there or is to go there. Returns whether it does.
    pub fn demote(
        &mut self,
        index: u32,
        (terms, now): (DiskTerms, Instant),
        tick: u64,
        may_leave: impl FnOnce(u64) -> bool,
    ) -> bool {
        let slot = self.entries.slot(index);
        let (class, weight) = (slot.class, slot.weight());
        let copy = slot.disk_copy();
        let hash = slot.hash();
        if copy.is_none() {
            let is_worth_it = (class == Class::Read || terms.admits_unread)
                && slot.value_bytes() >= terms.value_bytes_min
                && slot.key().len() + slot.metadata().len() <= DISK_HEAD_BYTES_MAX
                && slot.expires.since_ms(now) >= LIFE_MS_MIN;
            if !is_worth_it || !may_leave(weight) {
                return false;
            }
            self.jobs.push(DiskJob::Write(hash, slot.version));
            self.usage.leaving += weight;
        }
        self.usage.remove(class, weight);
        if let Some(copy) = copy {
            self.entries.keep_on_disk(index, copy);
        }
        self.entries.requeue(index, Class::Disk, tick);
        self.usage.add(Class::Disk, self.entries.slot(index).weight());
        true
    }

    /// Returns an entry that leaves for the disk.
    #[must_use]
    pub fn leaving(&self, hash: KeyHash, version: Version) -> Option<SlotRef<'_, P>> {
        self.leaving_index(hash, version).map(|index| self.entries.slot(index))
    }

    fn leaving_index(&self, hash: KeyHash, version: Version) -> Option<u32> {
        let index = self.entries.find_hash(hash, b"")?;
        let slot = self.entries.slot(index);
        let is_leaving = slot.class == Class::Disk && !slot.is_on_disk() && slot.version == version;
        is_leaving.then_some(index)
    }

    /// Notes where an entry is that left for the disk, or that it could not be written.
    pub fn written(&mut self, hash: KeyHash, version: Version, place: Option<DiskPlace>) -> bool {
        let Some(index) = self.leaving_index(hash, version) else { return false };
        let Some(place) = place else {
            self.counts.evicted += 1;
            self.remove(index, None);
            self.add_tombstone(hash, version);
            return false;
        };
        let slot = self.entries.slot(index);
        let (weight, value_bytes) = (slot.weight(), slot.value_bytes() as u32);
        self.usage.remove(Class::Disk, weight);
        self.usage.leaving -= weight;
        self.entries.keep_on_disk(index, DiskCopy { place, value_bytes, is_used: false });
        self.usage.add(Class::Disk, self.entries.slot(index).weight());
        true
    }

    /// Returns the index and the place of an entry with this record on disk.
    fn find_record(&self, (hash, version, place): DiskRecord) -> Option<(u32, DiskCopy)> {
        let index = self.entries.find_hash(hash, b"")?;
        let slot = self.entries.slot(index);
        let copy = slot.disk_copy().filter(|copy| copy.place == place)?;
        (slot.version == version).then_some((index, copy))
    }

    /// Puts a value that was read from disk back, into the class of used ones if it was read from there before.
    /// Returns whether it is there.
    pub fn restore(
        &mut self,
        record: DiskRecord,
        (metadata, value): (&[u8], &[u8]),
        (of_used, tick): (Class, u64),
    ) -> bool {
        let Some((index, copy)) = self.find_record(record) else { return false };
        let slot = self.entries.slot(index);
        if !slot.is_on_disk() {
            return true;
        }
        let (weight, payload) = (slot.weight(), slot.key().len() + metadata.len() + value.len());
        if self.sizes.weight_of(payload) > self.weight_max || metadata != slot.metadata() {
            return false;
        }
        // As a value that was written: a scan of the disk displaces what is read often no more than writes do.
        let class = if copy.is_used { of_used } else { Class::Unread };
        self.usage.remove(Class::Disk, weight);
        let copy = DiskCopy { is_used: true, ..copy };
        self.entries.restore(index, (metadata, value), copy, (class, tick));
        self.usage.add(class, self.entries.slot(index).weight());
        true
    }

    /// Returns what a record is worth when its segment is given up.
    #[must_use]
    pub fn disk_verdict(&self, hash: KeyHash, version: Version, place: DiskPlace) -> DiskVerdict {
        let held = self.entry(hash).filter(|slot| slot.version == version);
        let Some(slot) = held else { return DiskVerdict::Drop };
        match slot.disk_copy() {
            _ if slot.class == Class::Reserved => DiskVerdict::KeepDurably,
            Some(copy) if copy.place != place => DiskVerdict::Duplicate,
            Some(copy) if copy.is_used && slot.is_on_disk() => DiskVerdict::Keep,
            _ => DiskVerdict::Drop,
        }
    }

    /// Notes that a record is at another place, or gone.
    pub fn moved_on_disk(
        &mut self,
        (hash, version): (KeyHash, Version),
        from: DiskPlace,
        to: Option<DiskPlace>,
    ) {
        let Some((index, copy)) = self.find_record((hash, version, from)) else {
            return if to.is_none() {
                self.keep_again(hash, version)
            };
        };
        match to {
            Some(_) if self.breakage.is(StoreVariant::DiskMovesIgnored) => {}
            Some(place) => {
                self.entries.set_copy(index, Some(DiskCopy { place, is_used: false, ..copy }));
            }
            None if self.entries.slot(index).is_on_disk() => {
                self.counts.evicted += 1;
                self.remove(index, None);
                self.add_tombstone(hash, version);
            }
            None => self.entries.set_copy(index, None),
        }
    }

    /// Queues a purge again whose record on disk is gone.
    fn keep_again(&mut self, hash: KeyHash, version: Version) {
        let kept = self
            .entry(hash)
            .filter(|slot| slot.class == Class::Reserved && slot.version == version);
        if let Some(record) = kept.and_then(record) {
            self.jobs.push(DiskJob::Keep(record));
        }
    }

    /// Drops an entry whose record cannot be read. Leaves no tombstone.
    pub fn lost_on_disk(&mut self, record: DiskRecord) -> bool {
        let Some((index, _)) = self.find_record(record) else { return false };
        let (hash, version, _) = record;
        if !self.entries.slot(index).is_on_disk() {
            return false;
        }
        self.digests.subtract(hash, version);
        self.remove(index, Some((version, Departure::Forgotten)));
        true
    }

    /// Takes in the record of a value on disk that an earlier process wrote. An entry counts as used if this process was
    /// told its version, too: an erase of the record is none of that.
    pub fn recover(
        &mut self,
        hash: KeyHash,
        entry: &NewEntry<'_>,
        copy: DiskCopy,
        (tick, is_ended): (u64, bool),
    ) -> ApplyOutcome {
        let version = entry.version;
        let index = self.entries.find_hash(hash, entry.key);
        let known = self.version_at(index, hash);
        match (known, index) {
            (Some(known), _) if known > version => return ApplyOutcome::Superseded(known),
            // It was written again, when its segment was given up.
            (Some(known), Some(index)) if known == version => {
                let is_told = !self.entries.slot(index).is_on_disk();
                self.move_to_disk(index, copy, tick);
                if is_told {
                    self.entries.mark_used(index);
                }
                return ApplyOutcome::Duplicate;
            }
            (known, _) => self.update_digests(hash, known, version),
        }
        if let Some(index) = index {
            self.remove(index, None);
        }
        if is_ended {
            self.add_tombstone(hash, version);
            return ApplyOutcome::Purged;
        }
        self.remove_tombstone(hash);
        let index = self.entries.insert_on_disk(hash, entry, copy, tick);
        self.usage.add(Class::Disk, self.entries.slot(index).weight());
        if known == Some(version) {
            self.entries.mark_used(index);
        }
        ApplyOutcome::Applied
    }

    /// Notes that the value of an entry is on disk, unless it is on its way there, to another place.
    fn move_to_disk(&mut self, index: u32, copy: DiskCopy, tick: u64) {
        let slot = self.entries.slot(index);
        let (class, weight) = (slot.class, slot.weight());
        if slot.is_on_disk() {
            self.entries.set_copy(index, Some(copy));
        } else if class != Class::Disk {
            self.usage.remove(class, weight);
            self.entries.keep_on_disk(index, copy);
            self.entries.requeue(index, Class::Disk, tick);
            self.usage.add(Class::Disk, self.entries.slot(index).weight());
        }
    }

    /// Takes in an erase that an earlier process wrote: an earlier value of the key is dead.
    pub fn recover_erase(&mut self, (hash, version): (KeyHash, Version), is_tombstone: bool) {
        if self.breakage.is(StoreVariant::DiskErasesIgnored) {
            return;
        }
        let index = self.entries.find_hash(hash, b"");
        let known = self.version_at(index, hash);
        if known.is_some_and(|known| known > version) {
            return;
        }
        // Without an entry there is nothing of the key, or a tombstone that stays.
        if !is_tombstone && index.is_none_or(|index| !self.entries.slot(index).is_on_disk()) {
            return;
        }
        // This process has been told the version, apart from the record on disk.
        let is_told = index.is_some_and(|index| self.entries.slot(index).uses > 0);
        if let Some(index) = index {
            self.remove(index, None);
        }
        if (is_tombstone || is_told) && version.stamp() > self.tombstones.floor() {
            self.update_digests(hash, known, version);
            self.add_tombstone(hash, version);
        } else if let Some(known) = known {
            self.digests.subtract(hash, known);
        }
    }

    /// Gives up the records on disk of entries with such versions, because those change and the records do not. What is on
    /// disk alone is dropped.
    pub fn give_up_records(&mut self, of: impl Fn(Version) -> bool) {
        for index in (0..self.entries.len() as u32).rev() {
            let slot = self.entries.slot(index);
            let version = slot.version;
            let is_on_disk = slot.is_on_disk();
            if !of(version) || slot.class != Class::Disk && slot.disk_copy().is_none() {
                continue;
            }
            if is_on_disk {
                self.digests.subtract(slot.hash(), version);
                self.remove(index, Some((version, Departure::Forgotten)));
            } else {
                self.depart(index, version, Departure::Forgotten);
                self.entries.set_copy(index, None);
            }
        }
    }
}

fn is_erase_of(job: &DiskJob, hash: KeyHash) -> bool {
    matches!(job, DiskJob::Erase(of, ..) if *of == hash)
}
