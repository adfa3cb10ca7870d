//! The segment that is written.
//!
//! Invariant: what the file has before `written.end` are whole records, those that `list[..written.list]` lists.
//! What a failed write left behind is cut before anything else is written.

use std::{io, sync::Arc};

use crate::{
    directory::SegmentFile,
    format::{Address, Entries, Record, TRAILER, push_entry, trailer},
    segments::{Counts, Handle},
};

/// Records are gathered until there are so many bytes of them.
pub(crate) const BUFFER_BYTES: usize = 1 << 20;
/// Values from this size on are written without being copied first.
const DIRECT_BYTES: usize = 32 << 10;

/// A state to which the segment can go back.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Mark {
    end: u64,
    list: usize,
    counts: Counts,
}

/// The segment that is written.
#[derive(Debug)]
pub(crate) struct Active<F> {
    pub(crate) number: u32,
    pub(crate) handle: Arc<Handle<F>>,
    pub(crate) counts: Counts,
    /// Whether there is something that was not synced.
    pub(crate) unsynced: bool,
    /// What was written to the file since it was opened.
    pub(crate) bytes_written: u64,
    list: Vec<u8>,
    buffer: Vec<u8>,
    written: Mark,
    /// Whether the file may have something behind `written.end`.
    has_torn_tail: bool,
}

impl<F: SegmentFile> Active<F> {
    /// Continues a segment that has the records of `list`, up to `end`.
    pub(crate) fn new(number: u32, handle: Arc<Handle<F>>, list: Vec<u8>, end: u64) -> Self {
        let counts = Counts::of(&list);
        Self {
            number,
            handle,
            counts,
            // An earlier process may not have synced what it has.
            unsynced: end > 0,
            bytes_written: 0,
            written: Mark { end, list: list.len(), counts },
            list,
            buffer: Vec::new(),
            has_torn_tail: false,
        }
    }

    /// Where the next record begins.
    pub(crate) fn end(&self) -> u64 {
        self.written.end + self.buffer.len() as u64
    }

    /// The bytes of the file when it is sealed now.
    pub(crate) fn bytes(&self) -> u64 {
        self.end() + (self.list.len() + TRAILER) as u64
    }

    /// The bytes that are not in the file yet, with its footer.
    pub(crate) fn pending_bytes(&self) -> u64 {
        self.bytes() - self.written.end
    }

    pub(crate) fn mark(&self) -> Mark {
        Mark { end: self.end(), list: self.list.len(), counts: self.counts }
    }

    pub(crate) fn has(&self, address: Address) -> bool {
        u64::from(address.offset) + u64::from(address.bytes) <= self.written.end
    }

    pub(crate) fn mark_dead(&mut self, address: Address) {
        self.counts.mark_dead(address.bytes);
        if self.has(address) {
            self.written.counts.mark_dead(address.bytes);
        }
    }

    /// Appends a record and its value. After an error it is as if there had been no call.
    pub(crate) fn append(&mut self, record: &Record<'_>, value: &[u8]) -> io::Result<Address> {
        let direct = value.len() >= DIRECT_BYTES;
        if direct || self.buffer.len() as u64 + record.bytes() > BUFFER_BYTES as u64 {
            self.write_out()?;
        }
        let before = self.mark();
        let address = Address {
            segment: self.number,
            offset: self.push(record),
            bytes: record.bytes() as u32,
        };
        if !direct {
            self.buffer.extend_from_slice(value);
            return Ok(address);
        }
        let (start, end) = (before.end, self.end());
        let written = self.handle.file.write_at(&self.buffer, start);
        if let Err(error) = written.and_then(|()| self.handle.file.write_at(value, end)) {
            self.has_torn_tail = true;
            self.restore(before);
            return Err(error);
        }
        self.buffer.clear();
        self.advance(end + value.len() as u64);
        Ok(address)
    }

    fn push(&mut self, record: &Record<'_>) -> u32 {
        let (offset, start) = (self.end() as u32, self.buffer.len());
        record.encode(self.handle.salt, &mut self.buffer);
        push_entry(&mut self.list, offset, &self.buffer[start..]);
        self.counts.add(record);
        offset
    }

    /// Writes what was appended. After an error it is still to be written.
    pub(crate) fn write_out(&mut self) -> io::Result<()> {
        self.cut_torn_tail()?;
        if self.buffer.is_empty() {
            return Ok(());
        }
        if let Err(error) = self.handle.file.write_at(&self.buffer, self.written.end) {
            self.has_torn_tail = true;
            let _ = self.cut_torn_tail();
            return Err(error);
        }
        let end = self.end();
        self.buffer.clear();
        self.advance(end);
        Ok(())
    }

    fn advance(&mut self, end: u64) {
        self.bytes_written += end - self.written.end;
        self.written = Mark { end, list: self.list.len(), counts: self.counts };
        self.unsynced = true;
    }

    fn cut_torn_tail(&mut self) -> io::Result<()> {
        if self.has_torn_tail {
            self.handle.file.truncate(self.written.end)?;
            self.has_torn_tail = false;
        }
        Ok(())
    }

    /// Goes back to `mark`. Returns whether the file has nothing behind it.
    pub(crate) fn restore(&mut self, mark: Mark) -> bool {
        self.list.truncate(mark.list);
        self.counts = mark.counts;
        if let Some(kept) = mark.end.checked_sub(self.written.end) {
            self.buffer.truncate(kept as usize);
        } else {
            self.buffer.clear();
            self.written = mark;
            self.has_torn_tail = true;
        }
        self.cut_torn_tail().is_ok()
    }

    /// Forgets the values that are not written, keeps the erases and the notes.
    pub(crate) fn void(&mut self) {
        let tail = self.take_pending();
        self.push_changes(&tail);
    }

    /// Appends the erases and notes of a list to what is to be written. A value leaves an erase of those before it.
    pub(crate) fn push_changes(&mut self, list: &[u8]) {
        for (_, record) in Entries(list) {
            if let Some(change) = record.without_value() {
                self.push(&change);
            }
        }
    }

    /// Takes what is not written, as a list.
    pub(crate) fn take_pending(&mut self) -> Vec<u8> {
        self.buffer.clear();
        self.counts = self.written.counts;
        self.list.split_off(self.written.list)
    }

    /// Ends the segment with a footer. Returns the bytes of its file.
    ///
    /// Everything must have been written. Without room for the footer there is none.
    pub(crate) fn seal(&mut self) -> u64 {
        let end = self.written.end;
        let trailer = trailer(self.handle.salt, end as u32, &self.list);
        self.list.extend_from_slice(&trailer);
        self.unsynced = true;
        match self.handle.file.write_at(&self.list, end) {
            Ok(()) => {
                self.bytes_written += self.list.len() as u64;
                end + self.list.len() as u64
            }
            Err(_) => {
                self.has_torn_tail = true;
                let _ = self.cut_torn_tail();
                end
            }
        }
    }
}
