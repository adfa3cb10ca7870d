//! The sealed segments of a log: how much of each is alive, and which go first.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::directory::SegmentFile;
use crate::format::{Address, ERASE_BYTES, Entries, Record};

/// A segment that goes before the oldest has at least so many hundredths of its bytes to give back.
const MOSTLY_DEAD_PERCENT: u64 = 60;

/// An open segment.
#[derive(Debug)]
pub(crate) struct Handle<F> {
    pub(crate) file: F,
    pub(crate) salt: u32,
    /// Whether a sync has failed. The system may have dropped then what it had not written, and take the next sync for
    /// done: Linux reports an error once.
    has_failed: AtomicBool,
}

impl<F: SegmentFile> Handle<F> {
    pub(crate) fn new(file: F, salt: u32) -> Self {
        Self { file, salt, has_failed: AtomicBool::new(false) }
    }

    /// Returns when what was written would survive a power failure.
    ///
    /// # Errors
    /// It may not, nor what was written before. All further calls fail.
    pub(crate) fn sync(&self) -> io::Result<()> {
        if self.has_failed.load(Ordering::Relaxed) {
            return Err(io::Error::other("an earlier sync of the segment failed"));
        }
        self.file.sync().inspect_err(|_| self.has_failed.store(true, Ordering::Relaxed))
    }
}

/// The segments that were written and not synced.
pub(crate) type Unsynced<F> = Arc<Mutex<Vec<(u32, Arc<Handle<F>>)>>>;

/// The segments that can be read, shared with the readers.
pub(crate) type Shared<F> = Arc<RwLock<HashMap<u32, Arc<Handle<F>>>>>;

/// What a segment has, in bytes of records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// The values, dead ones included.
    pub(crate) values: u64,
    pub(crate) value_bytes: u64,
    pub(crate) live: u64,
    pub(crate) live_bytes: u64,
    pub(crate) erases: u64,
    pub(crate) note_bytes: u64,
}

impl Counts {
    pub(crate) fn of(list: &[u8]) -> Self {
        let mut counts = Self::default();
        Entries(list).for_each(|(_, record)| counts.add(&record));
        counts
    }

    pub(crate) fn add(&mut self, record: &Record<'_>) {
        let bytes = record.bytes();
        match record {
            Record::Value { .. } => {
                self.values += 1;
                self.value_bytes += bytes;
                self.live += 1;
                self.live_bytes += bytes;
            }
            Record::Erase { .. } => self.erases += 1,
            Record::Note { .. } => self.note_bytes += bytes,
        }
    }

    pub(crate) fn mark_dead(&mut self, bytes: u32) {
        self.live = self.live.saturating_sub(1);
        self.live_bytes = self.live_bytes.saturating_sub(u64::from(bytes));
    }

    pub(crate) fn dead_bytes(&self) -> u64 {
        self.value_bytes - self.live_bytes
    }

    /// What is appended again when the segment goes before an older one, besides values: each value leaves an erase.
    pub(crate) fn carried_bytes(&self) -> u64 {
        (self.erases + self.values) * ERASE_BYTES as u64 + self.note_bytes
    }
}

/// A sealed segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment {
    /// The bytes of its file.
    pub(crate) bytes: u64,
    pub(crate) counts: Counts,
    /// Whether all its records are known, so that it can go before an older one.
    pub(crate) complete: bool,
}

impl Segment {
    fn is_mostly_dead(&self) -> bool {
        let kept = self.counts.live_bytes + self.counts.carried_bytes();
        self.complete && self.bytes.saturating_sub(kept) * 100 > self.bytes * MOSTLY_DEAD_PERCENT
    }

    /// Whether the oldest segment is not worth keeping.
    fn is_spent(&self) -> bool {
        let changes = self.counts.erases * ERASE_BYTES as u64 + self.counts.note_bytes;
        self.counts.live == 0 && changes * 2 < self.bytes
    }
}

/// The sealed segments, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Table {
    segments: BTreeMap<u32, Segment>,
    mostly_dead: BTreeSet<u32>,
    /// Those of the mostly dead without a live value.
    dead: BTreeSet<u32>,
    bytes: u64,
}

impl Table {
    pub(crate) fn insert(&mut self, number: u32, segment: Segment) {
        self.bytes += segment.bytes;
        self.segments.insert(number, segment);
        self.classify(number);
    }

    pub(crate) fn remove(&mut self, number: u32) {
        if let Some(segment) = self.segments.remove(&number) {
            self.bytes -= segment.bytes;
        }
        self.mostly_dead.remove(&number);
        self.dead.remove(&number);
    }

    pub(crate) fn mark_dead(&mut self, address: Address) {
        let Some(segment) = self.segments.get_mut(&address.segment) else { return };
        segment.counts.mark_dead(address.bytes);
        self.classify(address.segment);
    }

    fn classify(&mut self, number: u32) {
        if let Some(segment) = self.segments.get(&number).filter(|segment| segment.is_mostly_dead())
        {
            self.mostly_dead.insert(number);
            if segment.counts.live == 0 {
                self.dead.insert(number);
            }
        }
    }

    /// Keeps a segment until it is the oldest.
    pub(crate) fn postpone(&mut self, number: u32) {
        self.mostly_dead.remove(&number);
        self.dead.remove(&number);
        if let Some(segment) = self.segments.get_mut(&number) {
            segment.complete = false;
        }
    }

    pub(crate) fn get(&self, number: u32) -> Option<Segment> {
        self.segments.get(&number).copied()
    }

    pub(crate) fn oldest(&self) -> Option<u32> {
        self.segments.first_key_value().map(|(number, _)| *number)
    }

    /// The segment to remove next for room.
    pub(crate) fn victim(&self) -> Option<u32> {
        self.mostly_dead.first().copied().or_else(|| self.oldest())
    }

    /// The segments that are removed whether room is needed or not.
    pub(crate) fn spent(&self) -> Vec<u32> {
        let oldest = self.segments.first_key_value().filter(|(_, segment)| segment.is_spent());
        let oldest = oldest.map(|(number, _)| *number);
        let dead = self.dead.iter().copied().filter(|number| Some(*number) != oldest);
        oldest.into_iter().chain(dead).collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.segments.len()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn counts(&self) -> impl Iterator<Item = &Counts> {
        self.segments.values().map(|segment| &segment.counts)
    }
}

/// The name of a segment's file.
pub(crate) fn name(number: u32) -> String {
    format!("{number:08}.seg")
}

/// The number of the segment whose file has this name.
pub(crate) fn number(file: &str) -> Option<u32> {
    let number = file.strip_suffix(".seg")?.parse().ok()?;
    (name(number) == file).then_some(number)
}

/// The start of the checksums in segment `number` of a log with this salt: no two segments share it but by chance.
pub(crate) fn salt(log: u64, number: u32) -> u32 {
    let mixed = (log ^ u64::from(number)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9).wrapping_shr(32) as u32
}

pub(crate) fn publish<F>(shared: &Shared<F>, number: u32, handle: Option<Arc<Handle<F>>>) {
    let mut segments = shared.write().unwrap_or_else(PoisonError::into_inner);
    match handle {
        Some(handle) => segments.insert(number, handle),
        None => segments.remove(&number),
    };
}
