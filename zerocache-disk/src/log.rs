//! The log: appending, flushing, counting.

use std::{
    io,
    sync::{Arc, PoisonError},
};

use zerocache_core::{key::KeyHash, version::Version};

use crate::{
    active::{Active, BUFFER_BYTES},
    directory::Directory,
    error::WriteError,
    format::{Address, ENTRY_HEAD, Head, Record, TRAILER, VALUE_HEAD, body_checksum},
    marker,
    options::{LogOptions, LogStats},
    reader::Reader,
    segments::{Handle, Segment, Shared, Table, Unsynced, name, publish, salt},
};

/// The largest note: what is gathered before it is written has room for it.
const NOTE_BYTES_MAX: u64 = (BUFFER_BYTES / 2) as u64;

/// What an append may use of the budget.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A value leaves a segment's room for what must be written for room.
    Value,
    /// Erases and notes may use half of that.
    Change,
    /// What is copied while a segment is removed may use all.
    Carry,
}

/// The log of a node. See the [crate] for its rules.
pub struct Log<D: Directory> {
    pub(crate) directory: Arc<D>,
    pub(crate) options: LogOptions,
    pub(crate) salt: u64,
    pub(crate) table: Table,
    pub(crate) handles: Shared<D::File>,
    pub(crate) active: Option<Active<D::File>>,
    /// The number of the next segment.
    pub(crate) next: u32,
    /// Erases and notes for the next segment, as a list.
    pub(crate) pending: Vec<u8>,
    /// Sealed segments that were not synced.
    pub(crate) unsynced: Unsynced<D::File>,
    /// The counts of this life; those of segments are computed.
    pub(crate) totals: LogStats,
    /// Until so many bytes are written, the file system is taken to have room.
    pub(crate) has_space_until: u64,
}

impl<D: Directory> Log<D> {
    /// Returns the bytes that a value takes of the budget, with its head and its part of a footer: for
    /// [`make_room`](Self::make_room).
    #[must_use]
    pub fn cost(key_bytes: usize, metadata_bytes: usize, value_bytes: usize) -> u64 {
        (2 * (VALUE_HEAD + key_bytes + metadata_bytes) + ENTRY_HEAD + value_bytes) as u64
    }

    /// Returns a reader of this log.
    pub fn reader(&self) -> Reader<D> {
        Reader::new(Arc::clone(&self.handles))
    }

    /// Appends a value. It can be read after the next [`flush`](Self::flush): hand out the address after it.
    ///
    /// # Errors
    /// [`Full`](WriteError::Full) and [`TooLarge`](WriteError::TooLarge) change nothing.
    pub fn append_value(&mut self, head: Head<'_>, value: &[u8]) -> Result<Address, WriteError> {
        let bytes_max = self.options.record_bytes_max();
        let bytes = (VALUE_HEAD + head.key.len() + head.metadata.len() + value.len()) as u64;
        if bytes > bytes_max {
            return Err(WriteError::TooLarge { bytes, bytes_max });
        }
        let head = Head { value_bytes: value.len() as u32, ..head };
        let record = Record::Value { head, body_crc: body_checksum(&head, value) };
        self.append(&record, value, Purpose::Value)
    }

    /// Appends that values of `hash` with `version` or an older one are dead, whatever is appended later.
    ///
    /// `is_tombstone` says whether that is what became of the key. If not, only its values in this log are gone.
    ///
    /// # Errors
    /// If it remains impossible, [`remove_segment`](Self::remove_segment) is what makes the value go.
    pub fn append_erase(
        &mut self,
        (hash, version): (KeyHash, Version),
        is_tombstone: bool,
    ) -> Result<(), WriteError> {
        let record = Record::Erase { hash, version, is_tombstone };
        self.append(&record, &[], Purpose::Change).map(|_| ())
    }

    /// Appends something that the log keeps for its caller and does not understand. At most 512 KiB.
    ///
    /// # Errors
    /// As [`append_value`](Self::append_value).
    pub fn append_note(&mut self, content: &[u8]) -> Result<(), WriteError> {
        let bytes = content.len() as u64;
        if bytes > NOTE_BYTES_MAX {
            return Err(WriteError::TooLarge { bytes, bytes_max: NOTE_BYTES_MAX });
        }
        self.append(&Record::Note { content }, &[], Purpose::Change).map(|_| ())
    }

    /// Returns when all that was appended is with the operating system: it survives the end of the process.
    ///
    /// # Errors
    /// Erases and notes are written by the next flush. For values ask [`has`](Self::has), before the next append.
    pub fn flush(&mut self) -> Result<(), WriteError> {
        let written = self.write_out();
        self.void_unless(written)
    }

    /// Flushes, and returns when all of it would survive a power failure.
    ///
    /// # Errors
    /// As [`flush`](Self::flush), and as [`Checkpoint::run`](crate::Checkpoint::run).
    pub fn sync(&mut self) -> Result<(), WriteError> {
        self.flush()?;
        Ok(self.checkpoint(None).run()?)
    }

    /// Changes the list of segments that were not synced.
    pub(crate) fn with_unsynced<T>(
        &self,
        change: impl FnOnce(&mut Vec<(u32, Arc<Handle<D::File>>)>) -> T,
    ) -> T {
        change(&mut self.unsynced.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns the number of the oldest segment, which may be the one that is written.
    #[must_use]
    pub fn oldest_segment(&self) -> Option<u32> {
        self.table.oldest().or_else(|| self.active.as_ref().map(|active| active.number))
    }

    /// Whether the value that [`append_value`](Self::append_value) placed at `address` is written.
    #[must_use]
    pub fn has(&self, address: Address) -> bool {
        match &self.active {
            Some(active) if active.number == address.segment => active.has(address),
            _ => self.table.get(address.segment).is_some_and(|segment| {
                u64::from(address.offset) + u64::from(address.bytes) <= segment.bytes
            }),
        }
    }

    /// Counts the value at `address` as dead. Call it once for each value.
    ///
    /// The record stays. What keeps it from coming back is its expiry, or an erase or a later version in the log.
    pub fn mark_dead(&mut self, address: Address) {
        match &mut self.active {
            Some(active) if active.number == address.segment => active.mark_dead(address),
            _ => self.table.mark_dead(address),
        }
    }

    /// Returns the counts.
    #[must_use]
    pub fn stats(&self) -> LogStats {
        let mut stats = self.totals;
        stats.segments = self.table.len() as u64 + u64::from(self.active.is_some());
        stats.bytes = self.used();
        let active = self.active.as_ref();
        stats.bytes_written += active.map_or(0, |active| active.bytes_written);
        for counts in self.table.counts().chain(active.map(|active| &active.counts)) {
            stats.values += counts.live;
            stats.live_bytes += counts.live_bytes;
            stats.dead_bytes += counts.dead_bytes();
        }
        stats
    }

    /// Stores a small state of the caller, in place of the last one.
    ///
    /// # Errors
    /// The last one is still there.
    pub fn write_state(&self, content: &[u8]) -> io::Result<()> {
        marker::write_state(&*self.directory, content)
    }

    /// Reads the state, `None` if there is none or it is damaged.
    ///
    /// # Errors
    /// The file system refused.
    pub fn read_state(&self) -> io::Result<Option<Vec<u8>>> {
        marker::read_state(&*self.directory)
    }

    /// Writes everything, with the footer of the last segment, and syncs. A log that is dropped instead loses what
    /// was not flushed.
    ///
    /// # Errors
    /// What was flushed is there.
    pub fn close(mut self) -> Result<(), WriteError> {
        self.flush()?;
        self.roll()?;
        self.sync()
    }

    /// Returns the directory, and leaves the log as if the process had ended.
    pub(crate) fn into_directory(self) -> Arc<D> {
        self.directory
    }

    /// The bytes on the disk when everything is written.
    pub(crate) fn used(&self) -> u64 {
        self.table.bytes() + self.active.as_ref().map_or(0, Active::bytes)
    }

    /// Whether the budget has room for a record of this cost.
    pub(crate) fn has_room(&self, cost: u64, purpose: Purpose) -> bool {
        let kept = match purpose {
            Purpose::Value => u64::from(self.options.segment_bytes),
            Purpose::Change => u64::from(self.options.segment_bytes) / 2,
            Purpose::Carry => 0,
        };
        // A new segment for it has a trailer.
        self.used() + cost + TRAILER as u64 + kept <= self.options.bytes_max
    }

    fn append(
        &mut self,
        record: &Record<'_>,
        value: &[u8],
        purpose: Purpose,
    ) -> Result<Address, WriteError> {
        if !self.has_room(record.cost(), purpose) {
            return Err(WriteError::Full { bytes: record.cost() });
        }
        let appended = self.segment_for(record.cost()).and_then(|a| a.append(record, value));
        self.void_unless(appended)
    }

    /// The segment that is written, or a new one if it has no room for `cost` more bytes.
    pub(crate) fn segment_for(&mut self, cost: u64) -> io::Result<&mut Active<D::File>> {
        let bytes_max = u64::from(self.options.segment_bytes);
        if self.active.as_ref().is_some_and(|a| a.end() > 0 && a.bytes() + cost > bytes_max) {
            self.roll()?;
        }
        if self.active.is_none() {
            // A number is used once, even if its file may exist without our knowing.
            let number = self.next;
            self.next = number.saturating_add(1);
            let file = self.directory.create(&name(number))?;
            let handle = Arc::new(Handle::new(file, salt(self.salt, number)));
            publish(&self.handles, number, Some(Arc::clone(&handle)));
            self.active = Some(Active::new(number, handle, Vec::new(), 0));
        }
        let Some(active) = &mut self.active else { return Err(io::ErrorKind::NotFound.into()) };
        active.push_changes(&std::mem::take(&mut self.pending));
        Ok(active)
    }

    pub(crate) fn write_out(&mut self) -> io::Result<()> {
        if !self.pending.is_empty() {
            self.segment_for(0)?;
        }
        self.active.as_mut().map_or(Ok(()), Active::write_out)
    }

    /// Seals the segment that is written.
    pub(crate) fn roll(&mut self) -> io::Result<()> {
        self.active.as_mut().map_or(Ok(()), Active::write_out)?;
        if let Some(mut active) = self.active.take() {
            let bytes = active.seal();
            self.totals.bytes_written += active.bytes_written;
            let segment = Segment { bytes, counts: active.counts, complete: true };
            self.table.insert(active.number, segment);
            self.with_unsynced(|unsynced| unsynced.push((active.number, active.handle)));
        }
        Ok(())
    }

    /// Forgets the values that were not written if that has failed.
    pub(crate) fn void_unless<T>(&mut self, written: io::Result<T>) -> Result<T, WriteError> {
        written.map_err(|error| {
            if let Some(active) = &mut self.active {
                active.void();
            }
            error.into()
        })
    }

    pub(crate) fn handle(&self, number: u32) -> Option<Arc<Handle<D::File>>> {
        let handles = self.handles.read().unwrap_or_else(PoisonError::into_inner);
        handles.get(&number).map(Arc::clone)
    }
}
