//! What happened on a listener, counted.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn add_many(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// The number now.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The counters of one listener.
#[derive(Debug, Default)]
pub struct HttpCounters {
    /// Connections accepted, those over the cap included.
    pub accepted: Counter,
    /// Connections refused because too many were open.
    pub refused_over_cap: Counter,
    /// Failures to accept, for want of descriptors or memory.
    pub accept_errors: Counter,
    /// Requests that reached the guard, refused ones included.
    pub requests: Counter,
    /// Connections closed because a head did not arrive in time.
    pub header_timeouts: Counter,
    /// Connections closed because nothing was asked for too long.
    pub idle_timeouts: Counter,
    /// Requests refused because they may have waited while the process stood still.
    pub refused_after_pause: Counter,
    /// Requests that were refused as malformed or ambiguous.
    pub bad_requests: Counter,
    /// Messages of the protocol that could not be decoded.
    pub bad_messages: Counter,
    /// Bodies refused because they are too large.
    pub bodies_too_large: Counter,
    /// Bodies given up because they came too slowly.
    pub body_timeouts: Counter,
    /// Bodies that ended early or were malformed.
    pub bodies_incomplete: Counter,
    /// Bodies refused because all bodies together held too much memory.
    pub bodies_over_memory: Counter,
    /// Values that a reader over HTTP did not get: damaged, or too large when they are unpacked.
    pub values_unreadable: Counter,
    /// Reads over HTTP that got a value past its fresh time, because they allow it.
    pub reads_stale: Counter,
    /// Reads over HTTP that got none, because there was only one past its fresh time.
    pub reads_too_stale: Counter,
    /// Connections cut because the client did not read its response.
    pub write_timeouts: Counter,
    /// Connections whose handler panicked.
    pub panics: Counter,
    /// Connections cut at the end because they did not finish in time.
    pub cut_at_close: Counter,
}
