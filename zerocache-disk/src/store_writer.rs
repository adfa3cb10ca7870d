//! Carries out what a store wants done to its log: the one writer of the log, without threads and clocks.
//!
//! Invariant: [`StoreWriter::written`] is the number of a job up to which everything is with the operating system. A
//! value that could not be written is evicted, and so is written in this sense. An erase, or a record that has to come
//! back, is owed until it is written, and is tried again by each flush.

use std::{collections::VecDeque, io};

use zerocache_core::{
    entry::{Change, Record},
    key::{KeyHash, SHARDS},
    store::{Backend, DiskJob, DiskPlace, Store, StoredItem},
    time::{Instant, Now},
    version::Version,
};

use crate::{
    checkpoint::Checkpoint,
    directory::Directory,
    error::WriteError,
    format::{Address, Head},
    judge::{DropAll, StoreJudge},
    log::Log,
    options::LogStats,
};

/// What was appended is flushed when it has this many bytes: what waits for a flush waits for no more.
const BATCH_BYTES: u64 = 4 << 20;

/// The room that is made for erases where there is none.
const ERASES_BYTES: u64 = 64 << 10;

/// How long values are not written after a write has failed, in milliseconds: at first, and at most, doubled each
/// time.
const PAUSE_MS_MIN: u64 = 30_000;
const PAUSE_MS_MAX: u64 = 600_000;

/// The most erases and records that are owed. Beyond it the oldest are given up.
const OWED_MAX: usize = 1 << 16;

/// Is told of what could not be done, and why.
pub type OnError<'a> = &'a mut dyn FnMut(&'static str, &WriteError);

/// The writer of the log of a store.
pub struct StoreWriter<D: Directory> {
    log: Log<D>,
    /// Values that are appended and not flushed.
    appended: VecDeque<Appended>,
    appended_bytes: u64,
    /// Erases and records that could not be appended.
    owed: VecDeque<Owed>,
    /// Whether nothing was written yet, and something is owed from the beginning.
    owes_at_first: bool,
    /// The number of the last job that was appended, and of the last one that is written.
    taken: u64,
    written: u64,
    /// Until when no values are written, after a failure.
    paused_until: Option<Instant>,
    pause_ms: u64,
}

/// A value that was appended: one that leaves memory, or a record that has to come back.
struct Appended {
    key: KeyHash,
    version: Version,
    address: Address,
    kept: Option<Record>,
}

/// An erase, and whether it says what became of the key.
#[derive(Clone, Copy)]
struct Erase {
    of: (KeyHash, Version),
    is_tombstone: bool,
}

impl Erase {
    /// Of values that are in the log, and nothing more.
    const fn in_log(of: (KeyHash, Version)) -> Self {
        Self { of, is_tombstone: false }
    }
}

enum Owed {
    Erase(Erase),
    Record(Record),
}

impl<D: Directory> StoreWriter<D> {
    /// Creates the writer of a log, which first erases values up to these versions.
    #[must_use]
    pub fn new(log: Log<D>, obsolete: Vec<(KeyHash, Version)>) -> Self {
        Self {
            log,
            appended: VecDeque::new(),
            appended_bytes: 0,
            owes_at_first: !obsolete.is_empty(),
            owed: obsolete.into_iter().map(|of| Owed::Erase(Erase::in_log(of))).collect(),
            taken: 0,
            written: 0,
            paused_until: None,
            pause_ms: PAUSE_MS_MIN,
        }
    }

    /// Appends jobs that were taken from the store; `last` is the number of the last one.
    pub fn append<B: Backend>(
        &mut self,
        store: &Store<B>,
        (jobs, last): (Vec<DiskJob>, u64),
        now: Now,
        on_error: OnError<'_>,
    ) {
        for job in jobs {
            match job {
                DiskJob::Write(key, version) => {
                    self.write_value(store, (key, version), now, on_error);
                }
                DiskJob::Erase(key, version, place) => {
                    let erase = Erase { of: (key, version), is_tombstone: true };
                    let address = self.mark_dead(place);
                    self.erase(store, erase, address, now, on_error);
                }
                DiskJob::Forget(key, version, place) => {
                    let erase = Erase::in_log((key, version));
                    let address = self.mark_dead(place);
                    self.erase(store, erase, address, now, on_error);
                }
                DiskJob::Keep(record) => self.keep(store, record, now, on_error),
            }
            if self.appended_bytes >= BATCH_BYTES {
                self.flush(store, now, on_error);
            }
        }
        self.taken = last;
    }

    /// Writes what was appended, tells the store where it is, and returns [`written`](Self::written).
    pub fn flush<B: Backend>(&mut self, store: &Store<B>, now: Now, on_error: OnError<'_>) -> u64 {
        self.append_owed(store, now, on_error);
        let mut is_flushed = self.log.flush();
        if is_flushed.as_ref().is_err_and(WriteError::is_full) {
            self.settle(store, now, on_error);
            is_flushed = self.flush_into_room(store, now);
        }
        if is_flushed.is_ok() && !self.appended.is_empty() {
            self.pause_ms = PAUSE_MS_MIN;
        }
        let has_erased = self.settle(store, now, on_error);
        if has_erased && is_flushed.is_ok() {
            is_flushed = self.log.flush();
        }
        match is_flushed {
            Ok(()) if self.owed.is_empty() => {
                self.written = self.taken;
                self.owes_at_first = false;
            }
            Ok(()) => {}
            Err(error) => {
                if error.is_full() && !self.has_values() {
                    self.written = self.taken;
                }
                self.note_failure(&error, now, on_error);
            }
        }
        self.written
    }

    /// Flushes where there is no room, of which segments are removed until there is: on a file system that others
    /// have filled all of them.
    fn flush_into_room<B: Backend>(
        &mut self,
        store: &Store<B>,
        now: Now,
    ) -> Result<(), WriteError> {
        let mut last = None;
        loop {
            let flushed = self.log.flush();
            let oldest = self.log.oldest_segment().filter(|oldest| Some(*oldest) != last);
            let Some(oldest) = oldest.filter(|_| flushed.is_err()) else { return flushed };
            self.log.remove_segment(oldest, &mut StoreJudge { store, now })?;
            last = Some(oldest);
        }
    }

    /// Returns whether the log has values, dead ones included. Without any, nothing can come back.
    fn has_values(&self) -> bool {
        let stats = self.log.stats();
        stats.live_bytes + stats.dead_bytes > 0
    }

    /// Returns the number of the job up to which all are written or given up.
    #[must_use]
    pub const fn written(&self) -> u64 {
        self.written
    }

    /// Returns whether erases or records wait for another try.
    #[must_use]
    pub fn owes(&self) -> bool {
        !self.owed.is_empty() || self.written < self.taken
    }

    /// Returns whether the erases are not written yet with which it began.
    #[must_use]
    pub const fn owes_at_first(&self) -> bool {
        self.owes_at_first
    }

    /// Returns what makes durable what is written, and then stores `state`. What was appended must be flushed.
    pub fn checkpoint(&mut self, state: Option<Vec<u8>>) -> Checkpoint<D> {
        self.log.checkpoint(state)
    }

    /// Removes everything, because the store has lost jobs: what was deleted is not known any more.
    pub fn empty(&mut self) {
        self.appended.clear();
        self.owed.clear();
        // So much has no room in the end: all segments are gone then.
        let _full = self.log.make_room(u64::MAX / 2, &mut DropAll);
    }

    /// Returns whether no values are written at the moment, after a failure.
    pub fn is_paused(&mut self, now: Now) -> bool {
        let is_paused = self.paused_until.is_some_and(|until| now.mono < until);
        if !is_paused {
            self.paused_until = None;
        }
        is_paused
    }

    /// Returns the counts of the log.
    #[must_use]
    pub fn stats(&self) -> LogStats {
        self.log.stats()
    }

    /// Writes what memory alone has, for the next process. Call it when no jobs are left. Returns the number of entries
    /// and tombstones, and whether these are all, and no other value had to go for them.
    pub fn append_rest<B: Backend>(
        &mut self,
        store: &Store<B>,
        now: Now,
        on_error: OnError<'_>,
    ) -> (u64, bool) {
        let evicted = store.stats().counts.evicted;
        let (mut count, mut is_complete) = (0, true);
        for item in (0..SHARDS).flat_map(|shard| store.export_unwritten(shard, now)) {
            let appended = match &item {
                StoredItem::Value(record) => self.append_record(store, record, now).map(drop),
                StoredItem::Tombstone(key, version) => {
                    self.log.append_erase((*key, *version), true)
                }
            };
            match appended {
                Ok(()) => count += 1,
                Err(error) => {
                    is_complete = false;
                    if !matches!(error, WriteError::TooLarge { .. }) {
                        on_error("write at the shutdown", &error);
                        break;
                    }
                }
            }
        }
        is_complete &= self.log.flush().is_ok() && store.stats().counts.evicted == evicted;
        (count, is_complete)
    }

    /// Writes everything, and ends the log.
    ///
    /// # Errors
    /// What was flushed is there.
    pub fn close(self) -> Result<(), WriteError> {
        self.log.close()
    }

    fn mark_dead(&mut self, place: Option<DiskPlace>) -> Option<Address> {
        let address = place.map(Address::decode);
        if let Some(address) = address {
            self.log.mark_dead(address);
        }
        address
    }

    /// Appends a value that leaves memory. Without success it is evicted.
    fn write_value<B: Backend>(
        &mut self,
        store: &Store<B>,
        (key, version): (KeyHash, Version),
        now: Now,
        on_error: OnError<'_>,
    ) {
        if self.is_paused(now) {
            let _evicted = store.written(key, version, None);
            return;
        }
        let Some(leaving) = store.leaving(key, version) else { return };
        match self.append_record(store, &leaving.record, now) {
            Ok(address) => self.note_appended((key, version), address, None),
            Err(error) => {
                let _evicted = store.written(key, version, None);
                self.settle_after(&error, store, now, on_error);
                self.note_failure(&error, now, on_error);
            }
        }
    }

    /// Appends a record that has to come back.
    fn keep<B: Backend>(
        &mut self,
        store: &Store<B>,
        record: Record,
        now: Now,
        on_error: OnError<'_>,
    ) {
        match self.append_record(store, &record, now) {
            Ok(address) => {
                let of = (record.key.hash(), record.version);
                self.note_appended(of, address, Some(record));
            }
            Err(error) => {
                on_error("write a purge", &error);
                self.settle_after(&error, store, now, on_error);
                if !matches!(error, WriteError::TooLarge { .. }) {
                    self.owe(Owed::Record(record));
                }
            }
        }
    }

    fn note_appended(
        &mut self,
        (key, version): (KeyHash, Version),
        address: Address,
        kept: Option<Record>,
    ) {
        self.appended_bytes += u64::from(address.bytes);
        self.appended.push_back(Appended { key, version, address, kept });
    }

    /// Appends a record with a value, and makes room for it.
    fn append_record<B: Backend>(
        &mut self,
        store: &Store<B>,
        record: &Record,
        now: Now,
    ) -> Result<Address, WriteError> {
        let Change::Put { value, metadata, expires } = &record.change else {
            return Err(WriteError::Io(io::ErrorKind::InvalidInput.into()));
        };
        let key = record.key.as_bytes();
        let head = Head {
            hash: record.key.hash(),
            version: record.version,
            expires_ms: now.wall_ms.saturating_add(expires.since_ms(now.mono)),
            key,
            metadata,
            value_bytes: 0,
        };
        let cost = Log::<D>::cost(key.len(), metadata.len(), value.len());
        self.log.make_room(cost, &mut StoreJudge { store, now })?;
        self.log.append_value(head, value)
    }

    /// Appends an erase. Where there is no room for it, the segment of the value goes.
    fn erase<B: Backend>(
        &mut self,
        store: &Store<B>,
        erase: Erase,
        address: Option<Address>,
        now: Now,
        on_error: OnError<'_>,
    ) {
        let append = |log: &mut Log<D>| log.append_erase(erase.of, erase.is_tombstone);
        let Err(error) = append(&mut self.log) else { return };
        if error.is_full() {
            self.settle_after(&error, store, now, on_error);
            let room = self.log.make_room(ERASES_BYTES, &mut StoreJudge { store, now });
            if room.is_ok() && append(&mut self.log).is_ok() || !self.has_values() {
                return;
            }
        }
        on_error("write an erase", &error);
        self.settle_after(&error, store, now, on_error);
        if let Some(address) = address.filter(|_| error.is_full()) {
            let mut judge = StoreJudge { store, now };
            match self.log.remove_segment(address.segment, &mut judge) {
                Ok(()) => return,
                Err(error) => on_error("remove a segment", &error),
            }
        }
        self.owe(Owed::Erase(erase));
    }

    fn owe(&mut self, owed: Owed) {
        if self.owed.len() >= OWED_MAX {
            self.owed.pop_front();
        }
        self.owed.push_back(owed);
    }

    fn append_owed<B: Backend>(&mut self, store: &Store<B>, now: Now, on_error: OnError<'_>) {
        for _ in 0..self.owed.len() {
            let before = self.owed.len();
            match self.owed.pop_front() {
                Some(Owed::Erase(erase)) => self.erase(store, erase, None, now, on_error),
                Some(Owed::Record(record)) => self.keep(store, record, now, on_error),
                None => return,
            }
            // Nor would the next one be written.
            if self.owed.len() == before {
                return;
            }
        }
    }

    /// After a failed write: says what is written before more is appended, since later records may take the places of
    /// those that are not.
    fn settle_after<B: Backend>(
        &mut self,
        error: &WriteError,
        store: &Store<B>,
        now: Now,
        on_error: OnError<'_>,
    ) {
        if matches!(error, WriteError::Io(_)) {
            self.settle(store, now, on_error);
        }
    }

    /// Tells the store where what was appended is. Returns whether that led to erases.
    fn settle<B: Backend>(&mut self, store: &Store<B>, now: Now, on_error: OnError<'_>) -> bool {
        let mut has_erased = false;
        self.appended_bytes = 0;
        for Appended { key, version, address, kept } in std::mem::take(&mut self.appended) {
            let is_written = self.log.has(address);
            match kept {
                Some(record) if !is_written => self.owe(Owed::Record(record)),
                Some(_) => {}
                None => {
                    let place = is_written.then(|| address.encode());
                    // Changed or dropped while it was written.
                    if !store.written(key, version, place) && is_written {
                        self.log.mark_dead(address);
                        let erase = Erase::in_log((key, version));
                        self.erase(store, erase, Some(address), now, on_error);
                        has_erased = true;
                    }
                }
            }
        }
        has_erased
    }

    /// Writes no values for a while.
    fn note_failure(&mut self, error: &WriteError, now: Now, on_error: OnError<'_>) {
        // One value is too large for the segments: others are not.
        if matches!(error, WriteError::TooLarge { .. }) {
            return;
        }
        on_error("write", error);
        if self.paused_until.is_none() {
            self.paused_until = Some(now.mono.plus_ms(self.pause_ms));
            self.pause_ms = (self.pause_ms * 2).min(PAUSE_MS_MAX);
        }
    }
}
