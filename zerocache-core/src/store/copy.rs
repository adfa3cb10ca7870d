//! Pages of a copy: the entries of a shard, from hot to cold, gathered a slice at a time.
//!
//! A page is gathered in two steps. The first looks at all slots of the shard and remembers the hottest of the
//! wanted entries, the second copies these. Each step takes the lock of the shard for a bounded time, and whatever
//! changes between two slices is found by the next pass of the copy, which asks for what was read or written
//! since the one before began.

use alloc::vec::Vec;

use super::{
    Broken, Store,
    backend::{Backend, Lock},
    slot::{Class, Slot, SlotRef},
    sync::{advance, record},
};
use crate::{entry::Record, time::Now};

/// The most entries of one page. Selecting so few takes little time compared with sending them.
const PAGE_RECORDS_MAX: usize = 4_096;

/// Copying an entry takes as long as looking at so many, and at one more for each [`BYTES_PER_LOOK`].
const LOOKS_PER_COPY: usize = 32;
const BYTES_PER_LOOK: usize = 128;

/// A position in the eviction order of a shard, read from the end: the hottest entry is first.
///
/// A cursor is valid for one store in one of its lifetimes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyCursor {
    /// The entry was read since it was stored.
    pub is_read: bool,
    /// The lower bits of the tick at which the entry was put at the end of its queue: messages have no more. After
    /// two thousand million ticks, an entry may come earlier or later than its turn, and repair copies what that
    /// omits.
    pub tick: u32,
}

impl CopyCursor {
    fn of(slot: &Slot) -> Self {
        Self { is_read: slot.class != Class::Unread, tick: slot.tick() as u32 }
    }

    /// Returns a key that orders cursors from hot to cold at `tick`, or later: what was used since is the hottest.
    fn coldness(self, tick: u32) -> (bool, u32) {
        let age = tick.wrapping_sub(self.tick);
        (!self.is_read, if age > u32::MAX / 2 { 0 } else { age })
    }
}

/// The entries of a shard that a copy requests. The default is all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CopyRange {
    /// Only entries colder than this cursor.
    pub colder_than: Option<CopyCursor>,
    /// Only entries that were put at the end of a queue at this tick or later.
    pub since: Option<u32>,
}

/// One page of a copy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CopyPage {
    /// Entries, hottest first.
    pub records: Vec<Record>,
    /// The cursor of the last entry, if there are more.
    pub more: Option<CopyCursor>,
    /// The lower bits of the tick of the store when the page was begun.
    pub tick: u32,
}

/// An entry that belongs on a page, as the store finds it again. Its index may change meanwhile.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    cursor: CopyCursor,
    table_bits: u32,
}

/// A page that is being gathered. It holds up to `bytes_max` of keys, metadata and values, but at least one entry
/// if there is one.
#[derive(Debug)]
pub struct PageScan {
    range: CopyRange,
    bytes_max: usize,
    /// The number of slots that were not looked at: the scan runs from the last to the first.
    left: usize,
    looked_at: usize,
    /// The hottest entries of those looked at; in their order once all were.
    wanted: Vec<Wanted>,
    /// Colder ones were left out.
    is_cut: bool,
    /// The number of wanted entries that were copied, or are gone; none before all slots were looked at.
    visited: Option<usize>,
    bytes: usize,
    page: CopyPage,
}

impl PageScan {
    /// Whether the page is complete.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.visited == Some(self.wanted.len())
    }

    /// Returns the page, which must be complete.
    #[must_use]
    pub fn into_page(self) -> CopyPage {
        debug_assert!(self.is_complete());
        let more = self.page.more.filter(|_| self.is_cut);
        CopyPage { more, ..self.page }
    }

    /// Returns the lower bits of the tick of the store when the page was begun.
    #[must_use]
    pub const fn tick(&self) -> u32 {
        self.page.tick
    }

    /// Returns the bytes of keys, metadata and values on the page so far.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns the number of slots that were looked at.
    #[must_use]
    pub const fn looked_at(&self) -> usize {
        self.looked_at
    }

    /// Keeps the hottest entries.
    fn cut(&mut self) {
        let tick = self.page.tick;
        let coldness = |wanted: &Wanted| wanted.cursor.coldness(tick);
        if self.wanted.len() > PAGE_RECORDS_MAX {
            self.wanted.select_nth_unstable_by_key(PAGE_RECORDS_MAX, coldness);
            self.wanted.truncate(PAGE_RECORDS_MAX);
            self.is_cut = true;
        }
    }

    /// Orders the wanted entries, all of which are known.
    fn order(&mut self) {
        self.cut();
        let tick = self.page.tick;
        self.wanted.sort_unstable_by_key(|wanted| wanted.cursor.coldness(tick));
        self.visited = Some(0);
    }

    fn takes(&self, record: &Record) -> bool {
        self.page.records.is_empty() || self.bytes + record.payload_bytes() <= self.bytes_max
    }
}

impl<B: Backend> Store<B> {
    /// Begins a page of the unexpired entries of a shard.
    #[must_use]
    pub fn begin_page(&self, range: CopyRange, bytes_max: usize) -> PageScan {
        PageScan {
            range,
            bytes_max,
            left: usize::MAX,
            looked_at: 0,
            wanted: Vec::new(),
            is_cut: false,
            visited: None,
            bytes: 0,
            page: CopyPage { tick: self.totals.tick() as u32, ..CopyPage::default() },
        }
    }

    /// Continues a page of a shard. Looks at up to `most` slots, or copies as many entries as take as long, but
    /// at least one. Returns how many looks that took.
    pub fn continue_page(&self, index: usize, scan: &mut PageScan, most: usize, now: Now) -> usize {
        match scan.visited {
            None => self.look(index, scan, most, now),
            Some(visited) => self.copy(index, scan, visited, (most, now)),
        }
    }

    fn look(&self, index: usize, scan: &mut PageScan, most: usize, now: Now) -> usize {
        let (range, tick) = (scan.range, scan.page.tick);
        let is_wanted = |slot: &SlotRef<'_, B::Pages>| {
            let cursor = CopyCursor::of(slot);
            let is_colder = |than: CopyCursor| cursor.coldness(tick) > than.coldness(tick);
            let is_since = |since| cursor.coldness(tick).1 <= tick.wrapping_sub(since);
            range.colder_than.is_none_or(is_colder)
                && range.since.is_none_or(is_since)
                && !slot.is_on_disk()
                && self.is_given(*slot, now, Broken::PurgedCopied)
        };
        let seen =
            self.shard(index).with(|shard| {
                let (count, first) = advance(&mut scan.left, shard.entry_count(), most);
                let slots = (first..first + count).map(|index| shard.slot(index as u32));
                let wanted = slots.filter(is_wanted);
                scan.wanted.extend(wanted.map(|slot| Wanted {
                    cursor: CopyCursor::of(&slot),
                    table_bits: slot.table_bits,
                }));
                count
            });
        scan.looked_at += seen;
        if scan.left == 0 {
            scan.order();
        } else if scan.wanted.len() >= 2 * PAGE_RECORDS_MAX {
            scan.cut();
        }
        seen
    }

    fn copy(
        &self,
        index: usize,
        scan: &mut PageScan,
        mut visited: usize,
        (most, now): (usize, Now),
    ) -> usize {
        let mut looks = 0;
        self.shard(index).with(|shard| {
            while looks < most
                && let Some(wanted) = scan.wanted.get(visited)
            {
                looks += LOOKS_PER_COPY;
                // It may have been used meanwhile.
                let slot = shard.slot_at(wanted.table_bits, wanted.cursor.tick);
                let slot = slot.filter(|slot| self.is_given(*slot, now, Broken::PurgedCopied));
                if let Some(record) = slot.and_then(record) {
                    if !scan.takes(&record) {
                        (scan.is_cut, visited) = (true, scan.wanted.len());
                        break;
                    }
                    let bytes = record.payload_bytes();
                    looks += bytes / BYTES_PER_LOOK;
                    scan.bytes += bytes;
                    scan.page.records.push(record);
                }
                scan.page.more = Some(wanted.cursor);
                visited += 1;
            }
        });
        scan.visited = Some(visited);
        looks
    }

    /// Returns a page of the unexpired entries of a shard, gathered at once.
    #[cfg(test)]
    pub fn copy_page(
        &self,
        index: usize,
        range: CopyRange,
        bytes_max: usize,
        now: Now,
    ) -> CopyPage {
        let mut scan = self.begin_page(range, bytes_max);
        while !scan.is_complete() {
            self.continue_page(index, &mut scan, 7, now);
        }
        scan.into_page()
    }
}
