//! How much an entry takes, and where it is stored.

/// Bytes charged for an entry beyond its payload: slot, table, expiry index, and header in the log.
///
/// A release build on 64-bit Linux took 86 to 87 bytes with 100,000 to a million entries, depending on how
/// full the tables were (keys of 32 bytes, values of 100, lifetimes spread over an hour, half of the entries
/// read).
pub const ENTRY_OVERHEAD_BYTES: u64 = 90;

/// Bytes charged for the handle of a shared block, its reference count and the place of its copy on disk.
const SHARED_OVERHEAD_BYTES: u64 = 96;

/// The page size of memory for shared blocks, in bytes.
const PAGE_BYTES: usize = 4 * 1024;

/// The size of a segment as a fraction of the budget (1/1024): segments that are not full waste little of the
/// budget, and their number is bounded.
const SEGMENT_FRACTION: u64 = 1_024;

/// The bounds of the size of a segment.
const SEGMENT_BYTES_MIN: u64 = 64 << 10;
const SEGMENT_BYTES_MAX: u64 = 64 << 20;

/// The largest entry in a segment as a fraction of the segment (1/8), so that little is wasted at its end.
const PACKED_FRACTION: u64 = 8;

/// The largest entry in a segment in bytes, because readers copy entries in segments. It is larger if the
/// budget is so large that entries of this size would need too many memory mappings (Linux allows 65,530 by
/// default).
const COPIED_BYTES_MAX: u64 = 48 << 10;
const MAPPINGS_MAX: u64 = 32_768;

/// The sizes of segments, and of the entries stored in them. They follow from the budget.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// The size of a segment in bytes.
    pub segment_bytes: usize,
    packed_bytes_max: usize,
}

impl Sizes {
    /// Returns the sizes for a store of `bytes_max`.
    #[must_use]
    pub fn of(bytes_max: u64) -> Self {
        let segment = (bytes_max / SEGMENT_FRACTION).clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX);
        let copied = COPIED_BYTES_MAX.max(bytes_max / MAPPINGS_MAX);
        let packed = (segment / PACKED_FRACTION).min(copied);
        Self { segment_bytes: segment as usize, packed_bytes_max: packed as usize }
    }

    /// Returns whether an entry with this payload is stored in a segment with others.
    #[inline]
    #[must_use]
    pub const fn is_packed(self, payload_bytes: usize) -> bool {
        payload_bytes <= self.packed_bytes_max
    }

    /// Returns the bytes charged for an entry with this payload.
    #[must_use]
    pub const fn weight_of(self, payload_bytes: usize) -> u64 {
        if self.is_packed(payload_bytes) {
            packed_weight(payload_bytes)
        } else {
            shared_weight(payload_bytes)
        }
    }
}

/// Returns the bytes charged for an entry whose block in a segment has this length.
pub const fn packed_weight(payload_bytes: usize) -> u64 {
    payload_bytes as u64 + ENTRY_OVERHEAD_BYTES
}

/// Returns the bytes charged for an entry whose block has memory of its own.
pub const fn shared_weight(payload_bytes: usize) -> u64 {
    let pages = payload_bytes.next_multiple_of(PAGE_BYTES) as u64;
    pages + ENTRY_OVERHEAD_BYTES + SHARED_OVERHEAD_BYTES
}
