//! What a store needs whose evicted values go to disk. The store itself does no I/O.
//!
//! An entry on disk keeps its slot, with its key and metadata: versions, digests, repair, purges and lists know
//! of it as of any other one. Its way:
//!
//! 1. Eviction puts an entry that is worth it into [`Class::Disk`], where it is *leaving*: its value stays in
//!    memory and is served, and a [`DiskJob::Write`] is queued.
//! 2. The owner of the disk takes the job and the value ([`Store::leaving`]), writes it, and says where
//!    ([`Store::written`]). Memory keeps key, metadata and that place.
//! 3. A read finds [`Lookup::OnDisk`](super::Lookup::OnDisk). The owner of the disk reads the value and puts it back
//!    ([`Store::restore`]), and the read is repeated. The entry keeps its place on disk, so that its next eviction
//!    writes nothing.
//!
//! Whatever ends an entry that is on disk, or on its way there, queues a [`DiskJob::Erase`], so that it does not
//! come back with the next process. A delete does so in any case. [`Store::disk_mark`] says which jobs have to be
//! written before a change may be acknowledged.

use alloc::{collections::VecDeque, vec::Vec};
use core::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};

use super::{
    ApplyOutcome, Store,
    backend::{Backend, Lock},
    eviction::EvictionPolicy,
    shard::Shard,
    slot::{Class, NewEntry},
    sync::{StoredItem, record},
    variant::StoreVariant,
};
use crate::{
    entry::Record,
    key::KeyHash,
    time::{Instant, Now},
    version::Version,
};

/// The length of an encoded [`DiskCopy`].
pub const DISK_COPY_BYTES: usize = 16;

/// The most bytes of key and metadata of an entry that goes to disk: they stay in memory.
pub const DISK_HEAD_BYTES_MAX: usize = 4 << 10;

/// What is on its way to disk takes at most this fraction of the byte budget (1/8), and at most so many bytes.
const LEAVING_FRACTION: u64 = 8;
const LEAVING_BYTES_MAX: u64 = 64 << 20;

/// Of that, what makes the owner of the disk hurry (1/4).
const PRESSED_FRACTION: u64 = 4;

/// What memory keeps of entries on disk takes at most this fraction of the byte budget (1/2).
const HEADS_FRACTION: u64 = 2;

/// The most values that wait to be written. Beyond them no more are taken in.
const VALUES_MAX: usize = 1 << 16;

/// The most other jobs that wait. Beyond them the disk is given up: it has stopped.
const CHANGES_MAX: usize = 1 << 20;

/// The place of a record on disk, opaque to the store.
pub type DiskPlace = [u8; 12];

/// Which values go to disk when they are evicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskTerms {
    /// The smallest value that goes there, in bytes.
    pub value_bytes_min: usize,
    /// Whether values go there that were never read. With [`EvictionPolicy::Lru`] all do.
    pub admits_unread: bool,
}

/// The place of an entry on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskCopy {
    /// The place of its record.
    pub place: DiskPlace,
    /// The length of its value, in bytes; below 2 GiB.
    pub value_bytes: u32,
    /// Whether it was read from there since it was written.
    pub is_used: bool,
}

impl DiskCopy {
    const USED: u32 = 1 << 31;

    /// The encoding of no place.
    pub(super) const NONE: [u8; DISK_COPY_BYTES] = [u8::MAX; DISK_COPY_BYTES];

    pub(super) fn encode(self) -> [u8; DISK_COPY_BYTES] {
        let mut bytes = [0; DISK_COPY_BYTES];
        let used = if self.is_used { Self::USED } else { 0 };
        bytes[..12].copy_from_slice(&self.place);
        bytes[12..].copy_from_slice(&(self.value_bytes | used).to_le_bytes());
        bytes
    }

    pub(super) fn decode(bytes: [u8; DISK_COPY_BYTES]) -> Option<Self> {
        let (place, rest) = bytes.split_first_chunk::<12>()?;
        let rest = u32::from_le_bytes(rest.try_into().ok()?);
        let (value_bytes, is_used) = (rest & !Self::USED, rest & Self::USED != 0);
        (bytes != Self::NONE).then_some(Self { place: *place, value_bytes, is_used })
    }
}

/// An entry that is on disk alone, for the reader that puts it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryOnDisk {
    /// The hash of its key.
    pub key: KeyHash,
    /// Its version.
    pub version: Version,
    /// The place of its record.
    pub place: DiskPlace,
    /// The length of its value, in bytes.
    pub value_bytes: u32,
}

/// Something to be written to disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiskJob {
    /// A value that leaves memory: see [`Store::leaving`].
    Write(KeyHash, Version),
    /// Values of a key up to this version are not to come back. One of them may be at this place.
    Erase(KeyHash, Version, Option<DiskPlace>),
    /// The same, of values that are gone, but neither deleted nor evicted: other nodes may give them back.
    Forget(KeyHash, Version, Option<DiskPlace>),
    /// A record that is to come back although it is in memory: a purge.
    Keep(Record),
}

/// A value that leaves memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeavingEntry {
    /// Its record, with the value.
    pub record: Record,
    /// The time from which it is no longer served.
    pub expires: Instant,
}

/// What a record on disk is worth when its segment is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskVerdict {
    /// It was read since it was written: it is written again.
    Keep,
    /// It has to come back: it is written again, and durably so.
    KeepDurably,
    /// It is dropped.
    Drop,
    /// It is dropped, and the same version is on disk at another place.
    Duplicate,
}

/// Counters of what goes to disk and comes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskCounts {
    /// Entries whose value is on disk alone, or on its way there.
    pub entries: u64,
    /// Values that were put back into memory.
    pub restored: u64,
    /// Evicted values that were worth it, and did not go to disk because too much was on its way there.
    pub skipped: u64,
    /// Bytes on their way to disk.
    pub leaving_bytes: u64,
}

/// The queues of jobs.
#[derive(Default)]
struct Jobs {
    /// Erases and what has to come back.
    changes: VecDeque<DiskJob>,
    /// Values that leave memory.
    values: VecDeque<DiskJob>,
}

/// The queue of jobs, and the state of the tier.
pub(super) struct Disk<B: Backend> {
    is_on: AtomicBool,
    /// More had to be erased than could be remembered.
    is_lost: AtomicBool,
    terms: DiskTerms,
    jobs: B::Lock<Jobs>,
    /// The number of changes that were queued.
    mark: AtomicU64,
    restored: AtomicU64,
    skipped: AtomicU64,
}

impl<B: Backend> Disk<B> {
    pub(super) fn new(terms: DiskTerms) -> Self {
        Self {
            is_on: AtomicBool::new(false),
            is_lost: AtomicBool::new(false),
            terms,
            jobs: B::Lock::new(Jobs::default()),
            mark: AtomicU64::new(0),
            restored: AtomicU64::new(0),
            skipped: AtomicU64::new(0),
        }
    }

    fn push(&self, jobs: impl Iterator<Item = DiskJob>) {
        self.jobs.with(|Jobs { changes, values }| {
            for job in jobs {
                match job {
                    DiskJob::Write(..) => values.push_back(job),
                    _ => {
                        changes.push_back(job);
                        self.mark.fetch_add(1, Release);
                    }
                }
            }
            if changes.len() > CHANGES_MAX {
                changes.clear();
                self.is_lost.store(true, Release);
            }
        });
    }

    fn has_room(&self) -> bool {
        self.jobs.with(|jobs| jobs.values.len() < VALUES_MAX)
    }
}

impl<B: Backend> Store<B> {
    /// Lets evicted values go to disk from [`Store::open_disk`] on.
    #[must_use]
    pub fn with_disk(mut self, terms: DiskTerms) -> Self {
        self.disk = Some(Disk::new(terms));
        self
    }

    /// Begins to queue jobs for the disk, first those to keep the purges that are known already.
    pub fn open_disk(&self) {
        let Some(disk) = &self.disk else { return };
        for index in 0..self.shards.len() {
            self.shard(index).with(Shard::open_disk);
        }
        disk.is_on.store(true, Release);
        self.keep_purges();
    }

    /// Gives up the disk: what is there is dropped, and nothing goes there any more.
    pub fn close_disk(&self) {
        let Some(disk) = &self.disk else { return };
        disk.is_on.store(false, Release);
        self.give_up_disk();
        disk.jobs.with(|jobs| {
            disk.mark.store(0, Release);
            *jobs = Jobs::default();
        });
    }

    /// Returns whether there is a disk, in use or not.
    #[inline]
    #[must_use]
    pub const fn has_disk(&self) -> bool {
        self.disk.is_some()
    }

    /// The disk while it is in use.
    pub(super) fn open(&self) -> Option<&Disk<B>> {
        self.disk.as_ref().filter(|disk| disk.is_on.load(Acquire))
    }

    /// Returns the number of the last job that has to be written before changes up to now may be acknowledged: all but
    /// those of values. Whatever ended an entry on disk, the next change of its key may be acknowledged only then.
    #[must_use]
    pub fn disk_mark(&self) -> u64 {
        let disk = self.disk.as_ref().filter(|_| !self.is_broken(StoreVariant::DiskAcksEarly));
        disk.map_or(0, |disk| disk.mark.load(Acquire))
    }

    /// Returns whether so much leaves for the disk that jobs should not wait.
    #[must_use]
    pub fn is_disk_pressed(&self) -> bool {
        self.disk.is_some()
            && self.totals.leaving() > leaving_bytes_max(self.capacity.bytes_max) / PRESSED_FRACTION
    }

    /// Returns whether jobs wait.
    #[must_use]
    pub fn has_disk_jobs(&self) -> bool {
        self.disk.as_ref().is_some_and(|disk| {
            disk.jobs.with(|jobs| !jobs.changes.is_empty() || !jobs.values.is_empty())
        })
    }

    /// Takes up to `most` jobs, in their order, and those of values only when there are no others: acknowledgements
    /// wait for the others, and a value that was ended meanwhile is not written. Returns them, and the number of the
    /// last one taken so far that [`disk_mark`](Self::disk_mark) counts.
    pub fn take_disk_jobs(&self, most: usize) -> (Vec<DiskJob>, u64) {
        let Some(disk) = &self.disk else { return (Vec::new(), 0) };
        disk.jobs.with(|Jobs { changes, values }| {
            let jobs = if changes.is_empty() { values } else { &mut *changes };
            let taken: Vec<_> = jobs.drain(..most.min(jobs.len())).collect();
            (taken, disk.mark.load(Relaxed) - changes.len() as u64)
        })
    }

    /// Returns whether jobs were lost because the disk took none for too long: then nothing on it can be used, and the
    /// store has dropped its entries there. Its owner empties it.
    pub fn take_disk_loss(&self) -> bool {
        let is_lost = self.disk.as_ref().is_some_and(|disk| disk.is_lost.swap(false, Acquire));
        if is_lost {
            self.give_up_disk();
        }
        is_lost
    }

    /// Queues the jobs of a shard that is locked.
    #[cold]
    pub(super) fn queue_jobs(&self, shard: &mut Shard<B::Pages>) {
        let jobs = shard.take_jobs();
        if let Some(disk) = self.open() {
            disk.push(jobs);
        }
    }

    /// Queues a record that has to come back with the next process.
    pub(super) fn keep_on_disk(&self, record: &Record) {
        let is_kept = !self.is_broken(StoreVariant::DiskPurgesDropped);
        if let Some(disk) = self.open().filter(|_| is_kept) {
            disk.push([DiskJob::Keep(record.clone())].into_iter());
        }
    }

    /// Queues all purges, because none of them is on disk with its version.
    pub(super) fn keep_purges(&self) {
        if self.totals.entries_of(Class::Reserved) == 0 || self.open().is_none() {
            return;
        }
        for index in 0..self.shards.len() {
            let known: Vec<_> = self.shard(index).with(|shard| {
                let purges = shard.slots().filter(|slot| slot.class == Class::Reserved);
                purges.filter_map(record).collect()
            });
            known.iter().for_each(|record| self.keep_on_disk(record));
        }
    }

    /// Returns whether one more entry of `weight` may leave for the disk; counts it if not.
    pub(super) fn may_leave(&self, disk: &Disk<B>, weight: u64) -> bool {
        let most = leaving_bytes_max(self.capacity.bytes_max);
        let may = self.totals.leaving() + weight <= most && disk.has_room();
        disk.skipped.fetch_add(u64::from(!may), Relaxed);
        may
    }

    pub(super) fn disk_terms(&self, disk: &Disk<B>) -> DiskTerms {
        let admits_unread = disk.terms.admits_unread || self.policy == EvictionPolicy::Lru;
        DiskTerms { admits_unread, ..disk.terms }
    }

    /// Returns whether entries take more bytes than they may, besides those that leave for the disk.
    pub(super) fn exceeds_bytes(&self) -> bool {
        let most = self.capacity.bytes_max;
        match &self.disk {
            Some(_) => self.totals.bytes() - self.totals.leaving() > most - leaving_bytes_max(most),
            None => self.totals.bytes() > most,
        }
    }

    /// Returns whether memory keeps too much of entries on disk.
    pub(super) fn has_too_many_heads(&self) -> bool {
        let heads = self.totals.bytes_of(Class::Disk) - self.totals.leaving();
        heads > self.capacity.bytes_max / HEADS_FRACTION
    }

    /// Returns a value that leaves memory, to be written to disk; none if it has been changed or dropped meanwhile.
    #[must_use]
    pub fn leaving(&self, hash: KeyHash, version: Version) -> Option<LeavingEntry> {
        self.shard(hash.shard()).with(|shard| {
            let slot = shard.leaving(hash, version)?;
            Some(LeavingEntry { record: record(slot)?, expires: slot.expires })
        })
    }

    /// Notes that a value that leaves memory is on disk. Returns whether the entry is there; if not, what was written
    /// is dead, and an erase is due. The same without `place`, if it could not be written: the entry is evicted.
    #[must_use]
    pub fn written(&self, hash: KeyHash, version: Version, place: Option<DiskPlace>) -> bool {
        self.change(hash.shard(), |shard| shard.written(hash, version, place))
    }

    /// Returns where the entry of a key is, if it is served and its value is on disk alone. Counts no use.
    #[must_use]
    pub fn find_on_disk(&self, hash: KeyHash, now: Now) -> Option<EntryOnDisk> {
        self.shard(hash.shard()).with(|shard| {
            let slot = shard.entry(hash).filter(|slot| slot.is_on_disk())?;
            self.is_served(slot, now).then(|| slot.on_disk(hash))?
        })
    }

    /// Puts the value of an entry back that was read at `place`, with its metadata. Returns whether the entry is
    /// there.
    pub fn restore(&self, entry: EntryOnDisk, (metadata, value): (&[u8], &[u8]), now: Now) -> bool {
        let EntryOnDisk { key, version, place, .. } = entry;
        let class = self.policy.class_of_used();
        let is_there = self.change(key.shard(), |shard| {
            let tick = self.totals.next_tick();
            shard.restore((key, version, place), (metadata, value), (class, tick))
        });
        if let Some(disk) = self.disk.as_ref().filter(|_| is_there) {
            disk.restored.fetch_add(1, Relaxed);
        }
        self.make_room(now);
        is_there
    }

    /// Returns what the record at `place` is worth, when its segment is given up.
    #[must_use]
    pub fn disk_verdict(&self, hash: KeyHash, version: Version, place: DiskPlace) -> DiskVerdict {
        self.shard(hash.shard()).with(|shard| shard.disk_verdict(hash, version, place))
    }

    /// Notes that the record at `from` is at another place now, or gone: then its entry is evicted, or stays if its
    /// value is in memory.
    pub fn moved_on_disk(
        &self,
        (hash, version): (KeyHash, Version),
        from: DiskPlace,
        to: Option<DiskPlace>,
    ) {
        self.change(hash.shard(), |shard| shard.moved_on_disk((hash, version), from, to));
    }

    /// Drops an entry whose record cannot be read, and leaves no tombstone: repair fetches it from a peer. Returns
    /// whether it was there.
    pub fn lost_on_disk(&self, entry: EntryOnDisk) -> bool {
        let EntryOnDisk { key, version, place, .. } = entry;
        self.change(key.shard(), |shard| shard.lost_on_disk((key, version, place)))
    }

    /// Takes in the record of a value on disk that an earlier process wrote. Its own value must be empty.
    pub fn recover(&self, record: &Record, copy: DiskCopy, now: Now) -> ApplyOutcome {
        let crate::entry::Change::Put { metadata, expires, .. } = &record.change else {
            return ApplyOutcome::TooOld;
        };
        let (hash, tick) = (record.key.hash(), self.totals.next_tick());
        let is_ended = self.purges.ends(record, now) || *expires <= now.mono;
        let key = record.key.as_bytes();
        let (version, expires) = (record.version, *expires);
        let entry = NewEntry { key, metadata, value: b"", version, expires };
        let outcome =
            self.change(hash.shard(), |shard| shard.recover(hash, &entry, copy, (tick, is_ended)));
        self.make_room(now);
        outcome
    }

    /// Drops all entries that are on disk alone, and gives up the copies of others.
    pub fn give_up_disk(&self) {
        for index in 0..self.shards.len() {
            self.change(index, |shard| shard.give_up_records(|_| true));
        }
    }

    /// Returns what a later process would lack of a shard: the values that are in memory alone, hottest first, and the
    /// tombstones.
    #[must_use]
    pub fn export_unwritten(&self, index: usize, now: Now) -> Vec<StoredItem> {
        self.export_if(index, now, |slot| slot.disk_copy().is_none())
    }

    /// Takes in an erase that an earlier process wrote, which leaves a tombstone or not.
    pub fn recover_erase(&self, (hash, version): (KeyHash, Version), is_tombstone: bool, now: Now) {
        let floor_ms = now.wall_ms.saturating_sub(self.retention_ms);
        self.change(hash.shard(), |shard| {
            shard.raise_tombstone_floor(floor_ms, super::DROPPED_MAX);
            shard.recover_erase((hash, version), is_tombstone);
        });
    }

    /// Returns the counters of the disk.
    #[must_use]
    pub fn disk_counts(&self) -> DiskCounts {
        let Some(disk) = &self.disk else { return DiskCounts::default() };
        DiskCounts {
            entries: self.totals.entries_of(Class::Disk),
            restored: disk.restored.load(Relaxed),
            skipped: disk.skipped.load(Relaxed),
            leaving_bytes: self.totals.leaving(),
        }
    }
}

fn leaving_bytes_max(bytes_max: u64) -> u64 {
    (bytes_max / LEAVING_FRACTION).min(LEAVING_BYTES_MAX)
}
