//! Fills a store from the log that an earlier process left, and puts values back that reads ask for.

use std::collections::HashMap;

use bytes::Bytes;
use zerocache_core::{
    clock::LEAD_MS_MAX,
    entry::{Change, Record},
    key::{Key, KeyHash},
    purge::is_reserved,
    store::{ApplyOutcome, Backend, DiskCopy, EntryOnDisk, Store, StoredItem},
    time::{Instant, Now},
    version::Version,
};

use crate::{
    directory::Directory,
    error::{OpenError, ReadError},
    format::{Address, Head},
    log::Log,
    marker::clear_directory,
    open::Recovered,
    options::LogOptions,
    reader::{ReadRecord, Reader},
    store_writer::StoreWriter,
};

/// A log whose contents are in the store.
pub struct RecoveredLog<D: Directory> {
    /// Writes to it.
    pub writer: StoreWriter<D>,
    /// Reads from it.
    pub reader: Reader<D>,
    /// Records that have to be in memory: purges.
    pub kept: Vec<StoredItem>,
    /// The number of entries that were found.
    pub entries: u64,
    /// Whether everything that the earlier process left is there. If not, the log is empty.
    pub is_whole: bool,
}

/// Opens a log and takes in what is in it, if the caller `wants` that; otherwise empties it.
///
/// It is also emptied if a version is further in the future than any that a node accepts, or if erases may be lost.
///
/// # Errors
/// Those of [`Log::open`]. Nothing of the log is in the store then, and its disk is not in use.
pub fn recover<D: Directory, B: Backend>(
    directory: D,
    (cluster, options): (&str, LogOptions),
    store: &Store<B>,
    now: Now,
    wants: bool,
) -> Result<RecoveredLog<D>, OpenError> {
    if !wants {
        clear_directory(&directory)?;
    }
    store.open_disk();
    let recovered = fill(directory, (cluster, options), store, now);
    if recovered.is_err() {
        store.close_disk();
    }
    recovered.map(|recovered| RecoveredLog { is_whole: recovered.is_whole && wants, ..recovered })
}

fn fill<D: Directory, B: Backend>(
    directory: D,
    (cluster, options): (&str, LogOptions),
    store: &Store<B>,
    now: Now,
) -> Result<RecoveredLog<D>, OpenError> {
    let mut recovery = Recovery::new(store, now);
    let mut log = Log::open(directory, cluster, options, &mut |record| recovery.take(record))?;
    let Recovery { mut entries, dead, kept, obsolete, mut is_whole, .. } = recovery;
    is_whole &= log.stats().gaps == 0;
    if is_whole {
        dead.into_iter().for_each(|address| log.mark_dead(address));
    } else {
        store.give_up_disk();
        entries = 0;
        let directory = log.into_directory();
        clear_directory(&*directory)?;
        log = Log::open_shared(directory, cluster, options, &mut |_| {})?;
    }
    let reader = log.reader();
    let kept = kept.into_iter().filter(|_| is_whole).filter_map(|(key, version, address)| {
        let record = reader.read(address, key, version).ok()?;
        Some(StoredItem::Value(record_of(&record, version, now)?))
    });
    let kept = kept.collect();
    let obsolete = obsolete.into_iter().filter(|_| is_whole).collect();
    Ok(RecoveredLog { writer: StoreWriter::new(log, obsolete), reader, kept, entries, is_whole })
}

/// What a recovery has found.
struct Recovery<'a, B: Backend> {
    store: &'a Store<B>,
    now: Now,
    entries: u64,
    /// Records that are of no use.
    dead: Vec<Address>,
    /// Records that have to be in memory.
    kept: Vec<(KeyHash, Version, Address)>,
    /// Values of the log that this process had replaced before the log was open: their erases are not in it.
    obsolete: HashMap<KeyHash, Version>,
    /// Whether no version was too far in the future.
    is_whole: bool,
}

impl<'a, B: Backend> Recovery<'a, B> {
    fn new(store: &'a Store<B>, now: Now) -> Self {
        Self {
            store,
            now,
            entries: 0,
            dead: Vec::new(),
            kept: Vec::new(),
            obsolete: HashMap::new(),
            is_whole: true,
        }
    }

    fn take(&mut self, record: Recovered<'_>) {
        match record {
            Recovered::Value { head, address } => self.take_value(&head, address),
            Recovered::Erase { hash, version, is_tombstone } => {
                if self.is_plausible(version) {
                    self.store.recover_erase((hash, version), is_tombstone, self.now);
                }
            }
            Recovered::Note { .. } => {}
        }
    }

    fn take_value(&mut self, head: &Head<'_>, address: Address) {
        if !self.is_plausible(head.version) {
            return;
        }
        if is_reserved(head.key) {
            self.kept.push((head.hash, head.version, address));
            return;
        }
        let Ok(key) = Key::within(Bytes::copy_from_slice(head.key), usize::MAX) else { return };
        let change = Change::Put {
            value: Bytes::new(),
            metadata: Bytes::copy_from_slice(head.metadata),
            expires: expiry_of(head.expires_ms, self.now),
        };
        let record = Record { key, version: head.version, change };
        let (place, value_bytes) = (address.encode(), head.value_bytes);
        let copy = DiskCopy { place, value_bytes, is_used: false };
        match self.store.recover(&record, copy, self.now) {
            ApplyOutcome::Applied => {
                self.entries += 1;
                self.obsolete.remove(&head.hash);
            }
            // What replaced it came before the log was open, or is a later record of the log.
            ApplyOutcome::Superseded(_) => {
                self.dead.push(address);
                let last = self.obsolete.entry(head.hash).or_insert(head.version);
                *last = head.version.max(*last);
            }
            // It was written again when its segment was given up, or came before the log was open.
            ApplyOutcome::Duplicate => {}
            ApplyOutcome::Purged | ApplyOutcome::TooOld => self.dead.push(address),
        }
    }

    /// Whether a version is not further in the future than any that a node accepts.
    fn is_plausible(&mut self, version: Version) -> bool {
        let is_plausible = version.wall_ms() <= self.now.wall_ms.saturating_add(LEAD_MS_MAX);
        self.is_whole &= is_plausible;
        is_plausible
    }
}

/// Puts the value of an entry back into memory. One that cannot be read is dropped: repair fetches it.
///
/// # Errors
/// It was dropped, and why. No error if it is gone for another reason.
pub fn restore<D: Directory, B: Backend>(
    reader: &Reader<D>,
    store: &Store<B>,
    entry: EntryOnDisk,
    now: Now,
) -> Result<(), ReadError> {
    let read_at =
        |entry: EntryOnDisk| reader.read(Address::decode(entry.place), entry.key, entry.version);
    let mut entry = entry;
    let mut read = read_at(entry);
    // Its segment may have been given up meanwhile, and its record copied.
    if matches!(read, Err(ReadError::Gone))
        && let Some(moved) = store.find_on_disk(entry.key, now)
        && moved.place != entry.place
    {
        entry = moved;
        read = read_at(entry);
    }
    match read {
        Ok(record) => {
            store.restore(entry, (&record.metadata, &record.value), now);
            Ok(())
        }
        Err(error) if store.lost_on_disk(entry) => Err(error),
        Err(_) => Ok(()),
    }
}

/// Returns the record that was read, to be in memory.
fn record_of(read: &ReadRecord, version: Version, now: Now) -> Option<Record> {
    let key = Key::within(read.key.clone(), usize::MAX).ok()?;
    let (value, metadata) = (read.value.clone(), read.metadata.clone());
    let expires = expiry_of(read.expires_ms, now);
    Some(Record { key, version, change: Change::Put { value, metadata, expires } })
}

/// Returns when a record of this expiry is no longer served.
fn expiry_of(expires_ms: u64, now: Now) -> Instant {
    now.mono.plus_ms(expires_ms.saturating_sub(now.wall_ms))
}
