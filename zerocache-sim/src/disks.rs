//! The disks of nodes: their sizes and their faults.

use crate::{clock::SECOND_US, random::Random};

/// The disk of a node of a plan.
#[derive(Clone, Debug)]
pub struct DiskPlan {
    /// The most bytes of its log.
    pub bytes_max: u64,
    /// The bytes of a segment.
    pub segment_bytes: u32,
    /// The smallest value that goes there, in bytes.
    pub value_bytes_min: usize,
    /// Whether values go there that were never read.
    pub admits_unread: bool,
    /// What the log salts its checksums with.
    pub salt: u64,
    /// A read or a write takes up to this long, in microseconds.
    pub latency_us: u64,
}

impl DiskPlan {
    /// Draws a disk, which may be smaller than the memory of its node.
    pub(crate) fn draw(random: &mut Random) -> Self {
        let segment_bytes = *random.pick(&[32 << 10, 64 << 10, 128 << 10]);
        let segments = *random.pick(&[4, 6, 10, 20, 60, 200]);
        Self {
            bytes_max: segments * u64::from(segment_bytes),
            segment_bytes,
            value_bytes_min: *random.pick(&[0, 64, 512]),
            admits_unread: random.chance(700),
            salt: random.number(),
            latency_us: *random.pick(&[200, 20_000, 200_000]),
        }
    }
}

/// A fault of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskFault {
    /// No file can grow.
    Full,
    /// Every operation fails.
    Failing,
    /// Reads and writes take up to this much longer, in microseconds.
    Slow(u64),
    /// Bits of so many bytes are flipped.
    Flip(u64),
}

impl DiskFault {
    /// Draws a fault.
    pub(crate) fn draw(random: &mut Random) -> Self {
        match random.below(100) {
            0..15 => Self::Full,
            15..35 => Self::Failing,
            35..75 => Self::Slow(*random.pick(&[50_000, 400_000, SECOND_US, 4 * SECOND_US])),
            _ => Self::Flip(random.between(1, 3)),
        }
    }

    /// The kind of the fault, for counting.
    pub(crate) const fn kind(self) -> &'static str {
        match self {
            Self::Full => "disk full",
            Self::Failing => "disk failing",
            Self::Slow(_) => "disk slow",
            Self::Flip(_) => "disk, bits flipped",
        }
    }
}
