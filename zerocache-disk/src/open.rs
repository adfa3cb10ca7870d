//! Opening a log: what its segments have, in order.

use std::{io, sync::Arc};

use zerocache_core::{key::KeyHash, version::Version};

use crate::{
    active::Active,
    directory::{Directory, SegmentFile},
    error::OpenError,
    format::{Address, Entries, Head, Record, TRAILER, trailer},
    log::Log,
    marker,
    options::{LogOptions, LogStats},
    scan::{self, Listing},
    segments::{Counts, Handle, Segment, Shared, Table, Unsynced, name, number, publish, salt},
};

/// A record of a log that is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recovered<'a> {
    /// A value. Of several with one hash the highest version counts, of equal ones the last.
    Value {
        /// The description of the value.
        head: Head<'a>,
        /// Where it is. It counts as alive until [`mark_dead`](crate::Log::mark_dead).
        address: Address,
    },
    /// Values of this hash with this version or an older one are dead, wherever in the log they are.
    Erase {
        /// The hash of the key.
        hash: KeyHash,
        /// The version.
        version: Version,
        /// Whether it says what became of the key, not only of its values in this log.
        is_tombstone: bool,
    },
    /// What [`append_note`](crate::Log::append_note) was called with.
    Note {
        /// The content.
        content: &'a [u8],
    },
}

impl<D: Directory> Log<D> {
    /// Opens the log of `cluster` in a directory, or creates one. Calls `recovered` for every record, in the order of
    /// the log.
    ///
    /// A tail that was torn by a crash is cut. Damaged records and footers are skipped and counted.
    ///
    /// # Errors
    /// [`OtherCluster`](OpenError::OtherCluster), [`LaterFormat`](OpenError::LaterFormat),
    /// [`Unmarked`](OpenError::Unmarked), [`Budget`](OpenError::Budget), or that of the file system.
    pub fn open(
        directory: D,
        cluster: &str,
        options: LogOptions,
        recovered: &mut dyn FnMut(Recovered<'_>),
    ) -> Result<Self, OpenError> {
        Self::open_shared(Arc::new(directory), cluster, options, recovered)
    }

    /// The same with a directory that an earlier log has left.
    pub(crate) fn open_shared(
        directory: Arc<D>,
        cluster: &str,
        options: LogOptions,
        recovered: &mut dyn FnMut(Recovered<'_>),
    ) -> Result<Self, OpenError> {
        let (bytes_max, bytes_min) = (options.bytes_max, options.bytes_min());
        if bytes_max < bytes_min {
            return Err(OpenError::Budget { bytes_max, bytes_min });
        }
        let mut numbers: Vec<u32> =
            directory.list()?.iter().filter_map(|file| number(file)).collect();
        numbers.sort_unstable();
        let salt = marker::check(&*directory, cluster, options.salt, !numbers.is_empty())?;
        let mut log = Self {
            directory,
            options,
            salt,
            table: Table::default(),
            handles: Shared::default(),
            active: None,
            next: numbers.last().map_or(1, |last| last.saturating_add(1)),
            pending: Vec::new(),
            unsynced: Unsynced::default(),
            totals: LogStats::default(),
            has_space_until: 0,
        };
        let last = numbers.last().copied();
        for number in numbers {
            log.recover(number, Some(number) == last, recovered)?;
        }
        Ok(log)
    }

    fn recover(
        &mut self,
        number: u32,
        is_last: bool,
        recovered: &mut dyn FnMut(Recovered<'_>),
    ) -> io::Result<()> {
        let file = self.directory.open(&name(number))?;
        let len = file.len()?;
        let handle = Arc::new(Handle::new(file, salt(self.salt, number)));
        let listing = scan::list(&handle.file, len, handle.salt);
        self.totals.damaged += listing.damaged;
        self.totals.gaps += u64::from(listing.gap);
        let mut counts = Counts::default();
        for (offset, record) in Entries(&listing.list) {
            counts.add(&record);
            recovered(match record {
                Record::Value { head, .. } => {
                    let bytes = record.bytes() as u32;
                    Recovered::Value { head, address: Address { segment: number, offset, bytes } }
                }
                Record::Erase { hash, version, is_tombstone } => {
                    Recovered::Erase { hash, version, is_tombstone }
                }
                Record::Note { content } => Recovered::Note { content },
            });
        }
        publish(&self.handles, number, Some(Arc::clone(&handle)));
        let continues = is_last
            && !listing.gap
            && listing.end < u64::from(self.options.segment_bytes) / 2
            && (listing.end == len || handle.file.truncate(listing.end).is_ok());
        if continues {
            self.active = Some(Active::new(number, handle, listing.list, listing.end));
            return Ok(());
        }
        // With a footer nobody would see the gap again.
        let is_left = listing.sealed || listing.gap;
        let bytes = if is_left { len } else { seal(&handle, &listing, len) };
        self.table.insert(number, Segment { bytes, counts, complete: !listing.gap });
        // Sealed or not, an earlier process may have ended before it was synced.
        self.with_unsynced(|unsynced| unsynced.push((number, handle)));
        Ok(())
    }
}

/// Cuts the torn tail of a segment and writes its footer, if possible. Returns the bytes of the file.
fn seal<F: SegmentFile>(handle: &Handle<F>, listing: &Listing, len: u64) -> u64 {
    if listing.unreadable || (listing.end < len && handle.file.truncate(listing.end).is_err()) {
        return len;
    }
    let mut footer = listing.list.clone();
    footer.extend_from_slice(&trailer(handle.salt, listing.end as u32, &listing.list));
    match handle.file.write_at(&footer, listing.end) {
        Ok(()) => listing.end + (listing.list.len() + TRAILER) as u64,
        Err(_) => handle.file.truncate(listing.end).map_or(len, |()| listing.end),
    }
}
