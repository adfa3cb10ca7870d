//! What a segment has: by its footer, or without one by its records.
//!
//! A footer is read in one piece. Without one, or with a damaged one, records are read from the start, values
//! included. Where one is damaged, the next that is whole is looked for, so that an erase behind the damage still
//! counts. If there is none, the rest is the tail that a crash tore.

use std::io;

use crate::{
    directory::SegmentFile,
    format::{
        ERASE_BYTES, Record, TRAILER, VALUE_HEAD, check_body, check_head, push_entry, trailer,
        trailer_lengths,
    },
};

/// What is read at once.
const BLOCK: usize = 1 << 20;
/// What is read of the end of a segment: most footers.
const LAST_BLOCK: usize = 64 << 10;

/// The records of a segment.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    /// The list of the footer, or what it would be.
    pub(crate) list: Vec<u8>,
    /// Where records end.
    pub(crate) end: u64,
    /// Whether there is a footer.
    pub(crate) sealed: bool,
    /// The records and footers that are damaged.
    pub(crate) damaged: u64,
    /// Whether there are records of which nothing is known.
    pub(crate) gap: bool,
    /// Whether the file system refused to read a part.
    pub(crate) unreadable: bool,
}

/// Lists the records of `file`, which has `len` bytes.
pub(crate) fn list<F: SegmentFile>(file: &F, len: u64, salt: u32) -> Listing {
    let mut listing = Listing::default();
    let claimed_end = match footer(file, len, salt) {
        Ok(Footer::Whole { list, end }) => return Listing { list, end, sealed: true, ..listing },
        Ok(Footer::Damaged { end }) => Some(end),
        Ok(Footer::Missing) => None,
        Err(_) => Some(len),
    };
    listing.damaged = u64::from(claimed_end.is_some());
    let mut window = Window { file, len, start: 0, block: Vec::new() };
    listing.unreadable = scan(&mut window, salt, &mut listing).is_err();
    listing.gap |= listing.unreadable || claimed_end.is_some_and(|end| listing.end < end);
    listing
}

enum Footer {
    Whole {
        list: Vec<u8>,
        end: u64,
    },
    /// Records end there, if that is true.
    Damaged {
        end: u64,
    },
    Missing,
}

fn footer<F: SegmentFile>(file: &F, len: u64, salt: u32) -> io::Result<Footer> {
    let mut block = vec![0; LAST_BLOCK.min(usize::try_from(len).unwrap_or(LAST_BLOCK))];
    let start = len - block.len() as u64;
    file.read_at(&mut block, start)?;
    let Some(last) = block.last_chunk::<TRAILER>().copied() else { return Ok(Footer::Missing) };
    let Some((end, bytes)) = trailer_lengths(&last, len) else { return Ok(Footer::Missing) };
    let list = if bytes + TRAILER <= block.len() {
        block.truncate(block.len() - TRAILER);
        block.split_off(block.len() - bytes)
    } else {
        block.resize(bytes, 0);
        file.read_at(&mut block, end)?;
        block
    };
    let is_whole = trailer(salt, end as u32, &list) == last;
    Ok(if is_whole { Footer::Whole { list, end } } else { Footer::Damaged { end } })
}

/// Adds the records of a segment from `listing.end` on.
fn scan<F: SegmentFile>(
    window: &mut Window<'_, F>,
    salt: u32,
    listing: &mut Listing,
) -> io::Result<()> {
    let mut at = 0;
    loop {
        if let Some(bytes) = record_at(window, at, salt, listing)? {
            at += bytes as u64;
            listing.end = at;
        } else if let Some(next) = next_record(window, at + 1, salt)? {
            listing.damaged += 1;
            listing.gap = true;
            at = next;
        } else {
            return Ok(());
        }
    }
}

/// Adds the record at `at`, if a whole one is there, and returns its bytes.
fn record_at<F: SegmentFile>(
    window: &mut Window<'_, F>,
    at: u64,
    salt: u32,
    listing: &mut Listing,
) -> io::Result<Option<usize>> {
    let Some(bytes) = check_head(window.head(at)?, salt) else { return Ok(None) };
    let Some(whole) = window.get(at, bytes)? else { return Ok(None) };
    let record = Record::parse(whole);
    if check_body(whole) {
        let prefix = record.map_or(0, |record| record.prefix_bytes());
        push_entry(&mut listing.list, at as u32, &whole[..prefix]);
        return Ok(Some(bytes));
    }
    listing.damaged += 1;
    match record.and_then(Record::without_value) {
        Some(erase @ Record::Erase { .. }) => {
            let mut bytes = Vec::with_capacity(ERASE_BYTES);
            erase.encode(salt, &mut bytes);
            push_entry(&mut listing.list, at as u32, &bytes);
        }
        _ => listing.gap = true,
    }
    Ok(Some(bytes))
}

/// The offset of the first head from `at` on whose record the file has.
fn next_record<F: SegmentFile>(
    window: &mut Window<'_, F>,
    mut at: u64,
    salt: u32,
) -> io::Result<Option<u64>> {
    while at < window.len {
        let record = check_head(window.head(at)?, salt);
        if record.is_some_and(|bytes| at + bytes as u64 <= window.len) {
            return Ok(Some(at));
        }
        at += 1;
    }
    Ok(None)
}

/// A part of a file that is read in blocks.
struct Window<'a, F> {
    file: &'a F,
    len: u64,
    start: u64,
    block: Vec<u8>,
}

impl<F: SegmentFile> Window<'_, F> {
    /// The bytes from `at` on that suffice for the lengths of a record; fewer at the end.
    fn head(&mut self, at: u64) -> io::Result<&[u8]> {
        let left = usize::try_from(self.len.saturating_sub(at)).unwrap_or(usize::MAX);
        Ok(self.get(at, left.min(VALUE_HEAD))?.unwrap_or_default())
    }

    /// `bytes` bytes from `at` on, if the file has them.
    fn get(&mut self, at: u64, bytes: usize) -> io::Result<Option<&[u8]>> {
        if at.checked_add(bytes as u64).is_none_or(|end| end > self.len) {
            return Ok(None);
        }
        if at < self.start || at + bytes as u64 > self.start + self.block.len() as u64 {
            let left = usize::try_from(self.len - at).unwrap_or(usize::MAX);
            self.block.resize(left.min(bytes.max(BLOCK)), 0);
            self.start = at;
            if let Err(error) = self.file.read_at(&mut self.block, at) {
                self.block.clear();
                return Err(error);
            }
        }
        let from = (at - self.start) as usize;
        Ok(Some(&self.block[from..from + bytes]))
    }
}
