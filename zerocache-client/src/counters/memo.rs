//! Counters of one client's memoized calls.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::striped::Striped;
use crate::Error;

/// The default wait for another call's computation, after which one more call computes. It is longer than
/// most functions worth caching take, and shorter than callers wait for a leader that makes no progress.
pub(crate) const FLIGHT_WAIT_DEFAULT: Duration = Duration::from_secs(10);

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident,)*) => {
        /// Counters and settings of one client's memoized calls.
        #[derive(Debug)]
        pub(crate) struct MemoCounters {
            flight_group: u64,
            flight_wait_ms: AtomicU64,
            pub(crate) near_hits: Striped,
            $(pub(crate) $name: AtomicU64,)*
        }

        /// Memoized calls of a client since it was created; from
        /// [`ZerocacheClient::memo_stats`](crate::ZerocacheClient::memo_stats).
        ///
        /// A call that completes is counted in one of `hits`, `stale_served`, `outage_served`, `coalesced`,
        /// `lease_found` and `computed`. `computed` also counts refreshes in the background. The other counters detail these,
        /// or count stored values.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct MemoStats {
            /// Hits of the near cache; included in `hits`.
            pub near_hits: u64,
            $($(#[doc = $doc])+ pub $name: u64,)*
        }

        impl MemoStats {
            /// Returns the counters with their names, in the order of the fields.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
                let near_hits = ("near_hits", self.near_hits);
                [near_hits, $((stringify!($name), self.$name),)*].into_iter()
            }
        }

        impl MemoCounters {
            /// Clients of one cluster and namespace pass the same group: they compute a key once between them.
            pub(crate) fn new(flight_group: u64) -> Self {
                let wait = u64::try_from(FLIGHT_WAIT_DEFAULT.as_millis()).unwrap_or(u64::MAX);
                MemoCounters {
                    flight_group,
                    flight_wait_ms: AtomicU64::new(wait),
                    near_hits: Striped::default(),
                    $($name: AtomicU64::new(0),)*
                }
            }

            /// Returns the current counts. Each is exact; they are not taken at one moment.
            pub(crate) fn snapshot(&self) -> MemoStats {
                let near_hits = self.near_hits.sum();
                let mut stats =
                    MemoStats { near_hits, $($name: self.$name.load(Ordering::Relaxed),)* };
                stats.hits += near_hits;
                stats
            }
        }
    };
}

counters! {
    /// Calls answered from the cache.
    hits,
    /// Calls for which the cache had no usable value.
    misses,
    /// Calls answered with the value that a concurrent call in this process computed or read.
    coalesced,
    /// Calls answered with a value past its lifetime while it is refreshed.
    stale_served,
    /// Calls answered from the near cache because no node could be reached.
    outage_served,
    /// Refreshes of values past their lifetime that could still be served.
    refreshed,
    /// Refreshes of values before the end of their lifetime.
    refreshed_ahead,
    /// Calls whose function failed, answered with the previous value.
    stale_on_error,
    /// Calls answered with a stored error; included in `hits`.
    negative_hits,
    /// Runs of memoized functions.
    computed,
    /// Values written to the cache.
    stored,
    /// Errors and `None` values written with a lifetime of their own.
    negative_stored,
    /// Values not written because of their lifetime (zero, or under a second) or `cache_if`.
    not_stored,
    /// Values that were not stored because one of their tags is not allowed.
    tags_rejected,
    /// Leases that this client got.
    leases_granted,
    /// Calls answered with the value that another process computed under a lease.
    lease_found,
    /// Lease requests that waited in vain for another process.
    lease_busy,
    /// Lease requests that reached no node.
    lease_unavailable,
    /// Lifetimes above the maximum, which were lowered to it.
    ttl_clamped,
    /// Values of another shape under the key of a call, usually written by another release. The call reads
    /// its shape entry instead.
    mismatched,
    /// Calls answered from a shape entry; included in `hits`.
    shape_entry_hits,
    /// Shape entries written; included in `stored`.
    shape_entries_stored,
    /// Reads that failed.
    read_errors,
    /// Writes that failed, or values that could not be encoded.
    write_errors,
    /// Reads and writes that nodes denied; included in `read_errors` and `write_errors`.
    denied,
    /// Calls without a key: an argument could not be encoded, or two functions have the same identity.
    unkeyed,
    /// Calls that computed because their wait for another call expired.
    wait_timeouts,
    /// Calls answered with the previous value because computing took longer than their soft timeout; included in
    /// `stale_served`, or in `hits` for values that were still fresh.
    soft_timeouts,
    /// Calls that waited because as many runs of their function were in progress as `max_concurrent` allows.
    limit_waits,
    /// Calls that computed beside these because that wait expired.
    limit_exceeded,
}

impl MemoCounters {
    pub(crate) fn flight_group(&self) -> u64 {
        self.flight_group
    }

    pub(crate) fn flight_wait(&self) -> Duration {
        Duration::from_millis(self.flight_wait_ms.load(Ordering::Relaxed))
    }

    pub(crate) fn set_flight_wait(&self, wait: Duration) {
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        self.flight_wait_ms.store(wait_ms, Ordering::Relaxed);
    }
}

impl MemoCounters {
    /// Counts a read or write that failed, in `errors`.
    pub(crate) fn count_error(&self, errors: &AtomicU64, error: &Error) {
        count(errors);
        if matches!(error, Error::Denied { .. }) {
            count(&self.denied);
        }
    }
}

/// Increments a counter.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
