//! The size of a log, and its counts.

/// The largest segment, so that offsets have room for a record behind it.
const SEGMENT_BYTES_MAX: u64 = 1 << 30;
/// The size of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogOptions {
    /// The most bytes of all segments.
    pub bytes_max: u64,
    /// The bytes of a segment, with its footer, unless one record is larger. One file is open for each.
    pub segment_bytes: u32,
    /// The part of the file system that stays free, in percent: segments are removed for it too.
    pub reserve_percent: u8,
    /// A random number, for a directory that is used for the first time: without it, a caller could store a value
    /// which passes for records after damage.
    pub salt: u64,
}

impl LogOptions {
    /// Options for a log of `bytes_max` bytes: segments of 64 MiB, or less so that there are 16 (at least 1 MiB),
    /// or more so that there are about 4,096 (at most 1 GiB); 5 % in reserve.
    #[must_use]
    pub fn new(bytes_max: u64) -> Self {
        let few = (bytes_max / 16).clamp(1 << 20, 64 << 20);
        let segment_bytes = few.max((bytes_max / 4096).min(SEGMENT_BYTES_MAX)) as u32;
        Self { bytes_max, segment_bytes, reserve_percent: 5, salt: 0 }
    }

    /// Two segments: one that is written and one that is removed need room besides those that are kept.
    pub(crate) fn bytes_min(&self) -> u64 {
        4 * u64::from(self.segment_bytes)
    }

    /// The most bytes of a record.
    #[must_use]
    pub fn record_bytes_max(&self) -> u64 {
        ((self.bytes_max - u64::from(self.segment_bytes)) / 4).min(SEGMENT_BYTES_MAX)
    }
}

/// Counts of a log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogStats {
    /// Segments, with the one that is written.
    pub segments: u64,
    /// Bytes of all segments on the disk, with what is to be written.
    pub bytes: u64,
    /// Live values.
    pub values: u64,
    /// Bytes of live values, with heads, keys and metadata.
    pub live_bytes: u64,
    /// Bytes of dead values, likewise.
    pub dead_bytes: u64,
    /// Bytes written to segments since the log was opened.
    pub bytes_written: u64,
    /// Bytes of values that were copied from segments which were removed, since the log was opened.
    pub bytes_reinserted: u64,
    /// Segments removed since the log was opened.
    pub segments_removed: u64,
    /// Damaged records and footers that were found since the log was opened, by opening or copying.
    pub damaged: u64,
    /// Places where records are lost among which erases or notes may have been.
    pub gaps: u64,
    /// Erases and notes that were to be kept of segments without need, or were not written, and had no room.
    pub changes_lost: u64,
}
