//! Room: removing segments.
//!
//! The order of steps: copies of what is kept are written, then the file is removed, then the caller is told, then
//! readers lose it. A crash before the removal leaves copies twice, which is harmless. After an error before the
//! removal the copies are taken back, so that no copy is in the log of which the caller does not know.

use std::io;

use crate::{
    active::{Active, BUFFER_BYTES, Mark},
    directory::{Directory, SegmentFile},
    error::WriteError,
    format::{Address, Entries, Record, check_body, push_entry},
    judge::{Judge, Verdict},
    log::{Log, Purpose},
    scan,
    segments::{Handle, Segment, name, publish},
};

/// The part of a segment, one in so many bytes, that is copied at most: it bounds what is written twice.
const COPIED_PART: u64 = 4;
/// The file system is asked for its room again after so many bytes.
const SPACE_CHECK_BYTES: u64 = 1 << 20;

/// A segment on its way out.
struct Departure<'a, F> {
    number: u32,
    segment: Segment,
    handle: &'a Handle<F>,
    list: &'a [u8],
    is_oldest: bool,
}

impl<D: Directory> Log<D> {
    /// Removes segments until values that [`cost`](Self::cost) `bytes` have room, in the budget and on the file
    /// system. Segments without live values are removed in any case.
    ///
    /// The oldest segment goes first, unless more than 60 % of another one is dead. At most a quarter of a segment is
    /// copied; beyond that [`Keep`](Verdict::Keep) is treated as [`Drop`](Verdict::Drop).
    ///
    /// # Errors
    /// [`Full`](WriteError::Full) if nothing is left to be removed; otherwise as [`flush`](Self::flush).
    pub fn make_room(&mut self, bytes: u64, judge: &mut dyn Judge) -> Result<(), WriteError> {
        for number in self.table.spent() {
            let removed = self.retire(number, judge);
            self.void_unless(removed)?;
        }
        // Each segment is removed or postponed once, the one that is written too.
        for _ in 0..2 * self.table.len() + 2 {
            if self.fits(bytes) {
                return Ok(());
            }
            let removed = match self.table.victim() {
                Some(number) => self.retire(number, judge),
                None if self.active.as_ref().is_some_and(|active| active.end() > 0) => self.roll(),
                None => break,
            };
            self.void_unless(removed)?;
        }
        if self.fits(bytes) { Ok(()) } else { Err(WriteError::Full { bytes }) }
    }

    /// Removes a segment at once, because an erase of one of its values cannot be written.
    ///
    /// If what it has of erases and notes cannot be written elsewhere, all older segments go too: what it erased is
    /// in them. Values are reported as by [`make_room`](Self::make_room).
    ///
    /// # Errors
    /// The file system refused to remove a file: what it has may come back with the next start.
    pub fn remove_segment(
        &mut self,
        segment: u32,
        judge: &mut dyn Judge,
    ) -> Result<(), WriteError> {
        if self.active.as_ref().is_some_and(|active| active.number == segment)
            && self.roll().is_err()
        {
            self.abandon(judge);
        }
        if self.retire(segment, judge).is_ok() && self.table.get(segment).is_none() {
            return Ok(());
        }
        while let Some(oldest) = self.table.oldest().filter(|oldest| *oldest <= segment) {
            let removed = self.retire(oldest, judge);
            self.void_unless(removed)?;
        }
        Ok(())
    }

    /// Ends the segment that is written, as far as it is.
    fn abandon(&mut self, judge: &mut dyn Judge) {
        let Some(mut active) = self.active.take() else { return };
        let unwritten = active.take_pending();
        for (offset, record) in Entries(&unwritten) {
            self.keep_pending(offset, record);
            if let Record::Value { head, .. } = &record {
                let (segment, bytes) = (active.number, record.bytes() as u32);
                judge.moved(head, Address { segment, offset, bytes }, None);
            }
        }
        self.totals.bytes_written += active.bytes_written;
        let segment = Segment { bytes: active.end(), counts: active.counts, complete: true };
        self.table.insert(active.number, segment);
        self.with_unsynced(|unsynced| unsynced.push((active.number, active.handle)));
    }

    fn keep_pending(&mut self, offset: u32, record: Record<'_>) {
        let Some(record) = record.without_value() else { return };
        if self.pending.len() + record.prefix_bytes() > BUFFER_BYTES {
            self.totals.changes_lost += 1;
            return;
        }
        let mut bytes = Vec::with_capacity(record.prefix_bytes());
        record.encode(0, &mut bytes);
        push_entry(&mut self.pending, offset, &bytes);
    }

    /// Whether values of this cost have room.
    fn fits(&mut self, cost: u64) -> bool {
        if !self.has_room(cost, Purpose::Value) {
            return false;
        }
        let active = self.active.as_ref();
        let written = self.totals.bytes_written + active.map_or(0, |active| active.end());
        if written + cost <= self.has_space_until {
            return true;
        }
        let Ok(Some(space)) = self.directory.free() else { return true };
        let reserve = space.total / 100 * u64::from(self.options.reserve_percent);
        let pending = active.map_or(0, Active::pending_bytes);
        let room = space.free.saturating_sub(reserve).saturating_sub(pending);
        self.has_space_until = written + (room / 2).min(SPACE_CHECK_BYTES);
        cost <= room
    }

    /// Removes a segment, or postpones it if it is not the oldest and cannot be removed now.
    fn retire(&mut self, number: u32, judge: &mut dyn Judge) -> io::Result<()> {
        let (Some(segment), Some(handle)) = (self.table.get(number), self.handle(number)) else {
            self.table.remove(number);
            return Ok(());
        };
        let is_oldest = self.table.oldest() == Some(number);
        let listing = scan::list(&handle.file, handle.file.len()?, handle.salt);
        if !is_oldest && (listing.unreadable || listing.gap) {
            self.table.postpone(number);
            return Ok(());
        }
        let list = listing.list.as_slice();
        let departure = Departure { number, segment, handle: &handle, list, is_oldest };
        let mut copies = Vec::new();
        let reinserted = self.totals.bytes_reinserted;
        let prepared = self.prepare_copies(&segment);
        let removed = match &prepared {
            Ok(mark) => {
                let copied = self.copy(&departure, judge, &mut copies);
                copied.and_then(|()| self.unlink(number)).map_err(|error| (error, self.undo(*mark)))
            }
            Err(error) => Err((io::Error::from(error.kind()), true)),
        };
        if removed.is_err() {
            self.totals.bytes_reinserted = reinserted;
        }
        match removed {
            Ok(()) => {}
            Err((error, true)) if is_oldest => {
                // No copies, then: nothing else depends on them.
                self.unlink(number).map_err(|_| error)?;
                self.keep_changes(&departure, judge);
                copies.clear();
            }
            Err((error, true)) if error.kind() == io::ErrorKind::StorageFull => {
                self.table.postpone(number);
                return Ok(());
            }
            Err((error, _)) => return Err(error),
        }
        report(&departure, &copies, judge);
        publish(&self.handles, number, None);
        self.table.remove(number);
        // Its file takes space as long as it is open.
        self.with_unsynced(|unsynced| unsynced.retain(|(other, _)| *other != number));
        self.totals.segments_removed += 1;
        self.has_space_until = 0;
        Ok(())
    }

    /// Makes sure that copies go into one segment, and that all before them is written.
    fn prepare_copies(&mut self, segment: &Segment) -> io::Result<Mark> {
        let copied = segment.counts.live_bytes.min(segment.bytes / COPIED_PART);
        self.segment_for(2 * segment.counts.carried_bytes() + copied)?;
        self.write_out()?;
        self.active.as_ref().map(Active::mark).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn undo(&mut self, mark: Mark) -> bool {
        self.active.as_mut().is_some_and(|active| active.restore(mark))
    }

    fn unlink(&mut self, number: u32) -> io::Result<()> {
        match self.directory.remove(&name(number)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Appends what is kept of a segment, and writes it.
    fn copy(
        &mut self,
        departure: &Departure<'_, D::File>,
        judge: &mut dyn Judge,
        copies: &mut Vec<Option<Address>>,
    ) -> io::Result<()> {
        let mut left = departure.segment.bytes / COPIED_PART;
        let (mut changes, mut is_durable) = (false, false);
        for (offset, record) in Entries(departure.list) {
            let kept = match record {
                Record::Value { head, .. } => {
                    let (number, bytes) = (departure.number, record.bytes());
                    let address = Address { segment: number, offset, bytes: bytes as u32 };
                    let verdict = judge.judge(&head, address);
                    let keep = match verdict {
                        Verdict::Keep => bytes <= left,
                        Verdict::KeepDurably => true,
                        Verdict::Drop | Verdict::Duplicate => false,
                    };
                    let copy =
                        if keep { self.copy_value(departure, offset, &record)? } else { None };
                    copies.push(copy);
                    if copy.is_some() {
                        is_durable |= verdict == Verdict::KeepDurably;
                        left = left.saturating_sub(bytes);
                        self.totals.bytes_reinserted += bytes;
                    }
                    if copy.is_some() || departure.is_oldest {
                        continue;
                    }
                    // What the value replaced may be in an older segment, and so may a copy of it.
                    match verdict {
                        Verdict::Duplicate => record.without_value(),
                        _ => {
                            let (hash, version) = (head.hash, head.version);
                            Some(Record::Erase { hash, version, is_tombstone: false })
                        }
                    }
                }
                _ => is_kept(&record, departure.is_oldest, judge).then_some(record),
            };
            if let Some(record) = kept {
                self.carry(&record, &[])?;
                changes = true;
            }
        }
        let Some(active) = &mut self.active else { return Ok(()) };
        active.write_out()?;
        if is_durable || changes && !departure.is_oldest {
            // After a power failure the older segments are there: so must be what erases their values, and what is to last.
            active.handle.sync()?;
        }
        Ok(())
    }

    fn carry(&mut self, record: &Record<'_>, value: &[u8]) -> io::Result<Address> {
        let has_room = self.has_room(record.cost(), Purpose::Carry);
        match &mut self.active {
            Some(active) if has_room => active.append(record, value),
            _ => Err(io::ErrorKind::StorageFull.into()),
        }
    }

    /// Copies a value, unless it is damaged or there is no room.
    fn copy_value(
        &mut self,
        departure: &Departure<'_, D::File>,
        offset: u32,
        record: &Record<'_>,
    ) -> io::Result<Option<Address>> {
        if !self.has_room(record.cost(), Purpose::Carry) {
            return Ok(None);
        }
        let mut whole = vec![0; record.bytes() as usize];
        let read = departure.handle.file.read_at(&mut whole, u64::from(offset));
        // The list of a footer is what counts, so the head may be damaged.
        whole[..record.prefix_bytes()].fill(0);
        let mut prefix = Vec::with_capacity(record.prefix_bytes());
        record.encode(0, &mut prefix);
        whole[..prefix.len()].copy_from_slice(&prefix);
        if read.is_err() || !check_body(&whole) {
            self.totals.damaged += 1;
            return Ok(None);
        }
        self.carry(record, &whole[prefix.len()..]).map(Some)
    }

    /// Keeps what is wanted of the oldest segment's notes and erases for later, after it was removed.
    fn keep_changes(&mut self, departure: &Departure<'_, D::File>, judge: &mut dyn Judge) {
        for (offset, record) in Entries(departure.list) {
            if !matches!(record, Record::Value { .. }) && is_kept(&record, true, judge) {
                self.keep_pending(offset, record);
            }
        }
    }
}

fn is_kept(record: &Record<'_>, is_oldest: bool, judge: &mut dyn Judge) -> bool {
    let verdict = match record {
        _ if !is_oldest => return true,
        Record::Value { .. } => return false,
        Record::Erase { hash, version, .. } => judge.judge_erase(*hash, *version),
        Record::Note { content } => judge.judge_note(content),
    };
    matches!(verdict, Verdict::Keep | Verdict::KeepDurably)
}

/// Reports the values of a segment that was removed: the n-th has the n-th copy.
fn report<F>(departure: &Departure<'_, F>, copies: &[Option<Address>], judge: &mut dyn Judge) {
    let mut copies = copies.iter();
    for (offset, record) in Entries(departure.list) {
        if let Record::Value { head, .. } = &record {
            let bytes = record.bytes() as u32;
            let old = Address { segment: departure.number, offset, bytes };
            judge.moved(head, old, copies.next().copied().flatten());
        }
    }
}
