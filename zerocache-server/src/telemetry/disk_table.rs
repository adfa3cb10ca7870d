//! The metrics of the disk tier. All are 0 without one.

use super::{
    metric_builder::{counter, gauge},
    metrics::{Metric, Value},
};

/// An unsigned reading.
macro_rules! read {
    ($($path:ident).+) => {
        |sample| Value::Unsigned(sample.$($path).+)
    };
}

/// In the order of `/v1/stats`, after the others.
pub(super) const DISK_METRICS: &[Metric] = &[
    gauge(
        "disk_entries",
        "Entries, among those held, whose value is on disk alone or on its way there.",
        read!(disk_entries.entries),
    ),
    gauge("disk_bytes", "Bytes of the files on disk.", read!(disk.bytes)).bytes(),
    gauge("disk_bytes_max", "Configured size of the disk tier.", read!(disk.bytes_max))
        .bytes()
        .in_family("disk_limit_bytes"),
    gauge("disk_dead_bytes", "Bytes on disk of values that are gone.", read!(disk.dead_bytes))
        .bytes(),
    gauge("disk_segments", "Files of values on disk.", read!(disk.segments)),
    gauge("disk_leaving_bytes", "Memory of values on their way to disk.", |s| {
        Value::Unsigned(s.disk_entries.leaving_bytes)
    })
    .bytes(),
    gauge(
        "disk_writable",
        "1 if values are written to disk, else 0: there is none, or it is full or fails.",
        |s| Value::Unsigned(s.disk.is_writable.into()),
    ),
    counter("disk_hits", "Values read from disk.", read!(disk_entries.restored)),
    counter(
        "disk_skipped",
        "Values evicted although the disk would take them, because too much was on its way there.",
        read!(disk_entries.skipped),
    ),
    counter("disk_bytes_written", "Bytes written to disk.", read!(disk.bytes_written))
        .bytes()
        .in_family("disk_written_bytes"),
    counter(
        "disk_bytes_rewritten",
        "Bytes written again when the file that held them was given up.",
        read!(disk.bytes_rewritten),
    )
    .bytes()
    .in_family("disk_rewritten_bytes"),
    counter(
        "disk_errors",
        "Reads and writes of the disk that failed, and damaged records.",
        read!(disk.errors),
    ),
    counter(
        "disk_unwritten",
        "Changes acknowledged before they were written, because the disk took longer than half a second.",
        read!(disk.unwritten),
    ),
];
