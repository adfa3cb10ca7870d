//! Counters of one client's memoized calls.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::striped::Striped;

/// How long a call waits for another one's computation before one more computes. Longer than most
/// functions worth caching take, shorter than a caller's patience with a leader that stands still.
const FLIGHT_WAIT_DEFAULT: Duration = Duration::from_secs(10);

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident,)*) => {
        /// Counters and settings of memoized calls, one set per client.
        #[derive(Debug)]
        pub(crate) struct MemoCounters {
            flight_group: u64,
            flight_wait_ms: AtomicU64,
            pub(crate) near_hits: Striped,
            $(pub(crate) $name: AtomicU64,)*
        }

        /// Counts of memoized calls since the client was made.
        ///
        /// A call that went through the cache to its end is counted in one of `hits`, `stale_served`,
        /// `joined`, `lease_found` and `computed`; in the last one also each run behind its caller's
        /// back. The others say more of these, or of what was stored.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct MemoStats {
            /// Calls answered from the near cache; they are among the hits.
            pub near_hits: u64,
            $($(#[doc = $doc])+ pub $name: u64,)*
        }

        impl MemoStats {
            /// Each count with its name, in the order of the fields.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
                let near_hits = ("near_hits", self.near_hits);
                [near_hits, $((stringify!($name), self.$name),)*].into_iter()
            }
        }

        impl MemoCounters {
            /// Clients of one cluster pass the same group: they compute a key once between them.
            pub(crate) fn new(flight_group: u64) -> Self {
                let wait = u64::try_from(FLIGHT_WAIT_DEFAULT.as_millis()).unwrap_or(u64::MAX);
                MemoCounters {
                    flight_group,
                    flight_wait_ms: AtomicU64::new(wait),
                    near_hits: Striped::default(),
                    $($name: AtomicU64::new(0),)*
                }
            }

            /// The counts now. Each is exact; together they are no single moment's.
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
    /// Calls for which the cache had no value that could be used.
    misses,
    /// Calls answered with what another call of this process computed or read meanwhile.
    joined,
    /// Calls answered with a value past its lifetime while another call computes it anew.
    stale_served,
    /// Values computed anew after their lifetime, while they could still be served.
    refreshed,
    /// Values computed anew ahead of the end of their lifetime.
    refreshed_ahead,
    /// Calls whose function failed and that were answered with an older value.
    served_on_error,
    /// Calls answered with an error that was kept; they are among the hits.
    negative_hits,
    /// Runs of memoized functions.
    computed,
    /// Values written to the cache.
    stored,
    /// Errors, and values that are `None`, written with a lifetime of their own.
    negative_stored,
    /// Values not written because of their lifetime (zero, or under a second) or `cache_if`.
    not_stored,
    /// Tags left out of an entry because they are not allowed.
    tags_refused,
    /// Leases with which this client computed.
    leases,
    /// Calls answered with what another process computed under a lease meanwhile.
    lease_found,
    /// Leases that another process held for longer than a call waits.
    lease_busy,
    /// Leases for which no node could be asked.
    lease_unavailable,
    /// Lifetimes above the maximum, which were lowered to it.
    ttl_clamped,
    /// Values found under the key of a call that its function cannot read: they have another shape, as
    /// those of another release have. The call looks for its own value beside it.
    mismatched,
    /// Calls answered with what is stored beside a value of another shape; they are among the hits.
    hits_beside,
    /// Values written beside one of another shape; they are among the stored ones.
    stored_beside,
    /// Reads that failed.
    read_errors,
    /// Writes that failed, or values that could not be encoded.
    write_errors,
    /// Calls without a key: an argument could not be encoded, or two functions have one identity.
    unkeyed,
    /// Calls that waited for another one's computation until their bound, and then computed too.
    wait_timeouts,
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

/// Adds one.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
