//! Counters that the server increments itself.

use std::sync::atomic::{AtomicU64, Ordering};

/// A monotonic counter.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn add_many(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// The current value.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number of things that are there now.
#[derive(Debug, Default)]
pub struct Level(AtomicU64);

impl Level {
    pub(crate) fn raise(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn lower(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    /// The current value.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Counters of one listener and of the connections that it accepted.
#[derive(Debug, Default)]
pub struct ServerCounters {
    /// Accepted connections, including those refused because of the cap.
    pub connections_accepted: Counter,
    /// Connections that are open, those over which frames are sent among them.
    pub connections_open: Level,
    /// Connections refused because too many were open.
    pub connections_refused: Counter,
    /// Failed accepts: no file descriptors or no memory.
    pub accept_errors: Counter,
    /// Requests over HTTP and in frames, including refused ones.
    pub requests: Counter,
    /// Connections closed because a head did not arrive in time.
    pub header_timeouts: Counter,
    /// Connections closed because no request arrived for too long.
    pub idle_timeouts: Counter,
    /// Completed TLS handshakes.
    pub handshakes: Counter,
    /// TLS handshakes that failed: another protocol or version, or a certificate that is not accepted.
    pub handshakes_failed: Counter,
    /// Connections closed because their TLS handshake was not complete in time.
    pub handshake_timeouts: Counter,
    /// Connections closed because too many TLS handshakes computed at the same time.
    pub handshakes_refused: Counter,
    /// Requests refused because they came unencrypted.
    pub plain_refused: Counter,
    /// Requests refused because they may have been queued while the process was suspended.
    pub refused_after_suspend: Counter,
    /// Requests refused as malformed or ambiguous.
    pub bad_requests: Counter,
    /// Requests of web pages refused because of the host name.
    pub browsers_refused: Counter,
    /// Protocol messages that could not be decoded.
    pub bad_messages: Counter,
    /// Bodies refused because of their size.
    pub bodies_too_large: Counter,
    /// Bodies that arrived too slowly.
    pub body_timeouts: Counter,
    /// Bodies that ended early or were malformed.
    pub bodies_incomplete: Counter,
    /// Bodies refused because all bodies together used too much memory.
    pub bodies_over_memory: Counter,
    /// Values not served over HTTP because they are damaged or too large when decompressed.
    pub values_unreadable: Counter,
    /// Reads over HTTP that returned a stale value, as the caller allowed.
    pub stale_hits: Counter,
    /// Reads over HTTP that returned nothing because the only value was stale.
    pub stale_misses: Counter,
    /// Connections closed because the client did not read its response.
    pub write_timeouts: Counter,
    /// Connections closed because their handler panicked.
    pub panics: Counter,
    /// Connections closed at shutdown because they did not finish in time.
    pub cut_at_shutdown: Counter,
}
