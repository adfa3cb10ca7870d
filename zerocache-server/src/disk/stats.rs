//! Counters of the disk tier.

use std::{fmt::Display, sync::Arc, time::Duration};

use parking_lot::Mutex;
use zerocache_disk::LogStats;
use zerocache_net::clock;

use crate::telemetry::Counter;

/// The interval of log lines about errors of the disk.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// Counters that all threads share.
#[derive(Clone, Default)]
pub(super) struct DiskCounters(Arc<Counters>);

#[derive(Default)]
pub(super) struct Counters {
    errors: Counter,
    /// Changes that were acknowledged before they were written.
    pub(super) unwritten: Counter,
    log: Mutex<LogStats>,
    is_read_only: std::sync::atomic::AtomicBool,
    is_open: std::sync::atomic::AtomicBool,
    logged_at: Mutex<Option<Duration>>,
}

impl std::ops::Deref for DiskCounters {
    type Target = Counters;

    fn deref(&self) -> &Counters {
        &self.0
    }
}

/// The readings of the disk tier at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct DiskStats {
    /// The configured size, in bytes; 0 without a disk.
    pub bytes_max: u64,
    /// Whether values are written: 1, or 0 without a disk, before it is opened, and while it is full or fails.
    pub is_writable: bool,
    /// Bytes of the segments.
    pub bytes: u64,
    /// The number of segments.
    pub segments: u64,
    /// Bytes of dead values in them.
    pub dead_bytes: u64,
    /// Bytes written since the start.
    pub bytes_written: u64,
    /// Bytes of values that were written again because their segments were given up.
    pub bytes_rewritten: u64,
    /// Reads and writes that failed, and damaged records.
    pub errors: u64,
    /// Changes that were acknowledged before the disk had them, because it was too slow.
    pub unwritten: u64,
}

impl DiskCounters {
    /// Counts an error, and logs it unless another one was logged shortly before.
    pub(super) fn count_error(&self, action: &str, error: &dyn Display) {
        self.errors.add();
        let now = clock::elapsed();
        let mut logged_at = self.logged_at.lock();
        if logged_at.is_none_or(|at| now.saturating_sub(at) >= LOG_EVERY) {
            *logged_at = Some(now);
            tracing::warn!(%error, errors = self.errors.get(), "disk: cannot {action}");
        }
    }

    /// Publishes the figures of the log, and whether values are written.
    pub(super) fn publish(&self, log: LogStats, is_read_only: bool) {
        use std::sync::atomic::Ordering::Relaxed;
        *self.log.lock() = log;
        self.is_read_only.store(is_read_only, Relaxed);
        self.is_open.store(true, Relaxed);
    }
}

impl super::DiskTier {
    /// Returns the readings at this moment.
    #[must_use]
    pub fn stats(&self) -> DiskStats {
        use std::sync::atomic::Ordering::Relaxed;
        let log = *self.counters.log.lock();
        let is_open = self.counters.is_open.load(Relaxed);
        DiskStats {
            bytes_max: self.config.bytes_max,
            is_writable: is_open && !self.counters.is_read_only.load(Relaxed),
            bytes: log.bytes,
            segments: log.segments,
            dead_bytes: log.dead_bytes,
            bytes_written: log.bytes_written,
            bytes_rewritten: log.bytes_reinserted,
            errors: self.counters.errors.get() + log.damaged,
            unwritten: self.counters.unwritten.get(),
        }
    }
}
