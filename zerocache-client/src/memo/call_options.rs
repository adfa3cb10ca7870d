//! Options of a call, which replace those of its function.

use std::future::Future;
use std::time::Duration;

use super::background::detach;
use super::call::Call;
use super::equality::{WithEquality, WithoutEquality};
use super::options::MaybeNone;
use super::origin::Boxed;
use super::rule::{Cacheable, OkRule, encode_ok};
use crate::lease::LeaseScope;
use crate::lifetime::Lifetime;

/// The options that calls for one key and for many have in common. They are those of `Options`.
macro_rules! common_options {
    () => {
        /// Uses the near cache of this process, within the bounds of
        /// [`near_bytes`](crate::ClientBuilder::near_bytes) and
        /// [`near_age`](crate::ClientBuilder::near_age).
        pub fn near(self) -> Self {
            self.with(|options| options.near(None))
        }

        /// Uses the near cache as [`near`](Self::near), and is served values from there for `time`, 1 ms to 24 h, while
        /// no node can be reached: also values whose lifetime ends meanwhile. After that, and for keys that are not
        /// near, the value is computed, and served for that time.
        pub fn near_outage(self, time: impl $crate::lifetime::Lifetime) -> Self {
            self.with(|options| options.near_outage(time))
        }

        /// The time after its lifetime for which a value is served to other callers while one caller refreshes
        /// it.
        pub fn stale_while(self, time: impl $crate::lifetime::Lifetime) -> Self {
            self.with(|options| options.stale_while(time))
        }

        /// The time after its lifetime for which a value is served if computing it fails.
        pub fn stale_if_error(self, time: impl $crate::lifetime::Lifetime) -> Self {
            self.with(|options| options.stale_if_error(time))
        }

        /// The time without a use after which a value ends, at least 4 s; its lifetime is the most that uses give it.
        ///
        /// A use is a call for the key in any process. It is reported to a node a quarter of the time after the last
        /// reported one, in the background; other options of the call, such as
        /// [`near`](Self::near), count as uses all the same.
        pub fn tti(self, time: impl $crate::lifetime::Lifetime) -> Self {
            self.with(|options| options.tti(time))
        }

        /// Shortens the lifetime of each value by a random part of up to `percent`; at most 50.
        pub fn jitter(self, percent: u8) -> Self {
            self.with(|options| options.jitter(percent))
        }

        /// Tags of each entry, in addition to those of a function. A value with a tag that is not allowed is not
        /// stored, which is counted.
        pub fn tags(self, tags: impl IntoIterator<Item = impl Into<String>>) -> Self {
            self.with(|options| options.tags(tags))
        }

        /// The nodes that must have a value before it counts as stored.
        pub fn ack(self, ack: $crate::Ack) -> Self {
            self.with(|options| options.ack(ack))
        }

        /// The codec in which values are stored, instead of the client's. A value of any codec is read.
        pub fn codec(self, codec: $crate::codec::Codec) -> Self {
            self.with(|options| options.codec(codec))
        }

        /// The time that nodes may take to answer a read or a write, instead of the client's own bound; for the
        /// node of a lease it includes the wait for the value. It does not bound what computes.
        pub fn deadline(self, deadline: ::std::time::Duration) -> Self {
            self.with(|options| options.deadline(deadline))
        }
    };
}
pub(super) use common_options;

impl<F: Future> Call<F> {
    common_options!();

    /// Lets one process of `scope` at a time compute the key.
    ///
    /// The lease lasts for 10 seconds; then another process may begin to compute. Other processes wait for at
    /// most 3 seconds and then compute, or are served a stale value where that is allowed. Without a
    /// reachable node every process computes.
    pub fn lease(self, scope: LeaseScope) -> Self {
        self.with(|options| options.lease(scope, None, None))
    }

    /// As [`lease`](Self::lease), with other times: `life` up to 5 minutes, `wait` up to one minute.
    pub fn lease_within(self, scope: LeaseScope, life: Duration, wait: Duration) -> Self {
        self.with(|options| options.lease(scope, Some(life), Some(wait)))
    }

    /// The time before the end of its lifetime in which each call refreshes the value early, with a
    /// probability that rises towards the end.
    pub fn refresh_ahead(self, time: impl Lifetime) -> Self {
        self.with(|options| options.refresh_ahead(time))
    }

    /// The lifetime of `None`, also inside of `Ok`; zero does not store it.
    pub fn negative_none(self, lifetime: impl Lifetime) -> Self
    where
        F::Output: MaybeNone,
    {
        self.with(|options| options.negative_none(lifetime))
    }
}

impl<C, F> Call<Boxed<C, F>>
where
    C: FnOnce() -> F + Send + 'static,
    F: Future<Output: Send + 'static> + Send + 'static,
{
    /// Serves the previous value to the caller that refreshes it, too, for the time of
    /// [`stale_while`](Self::stale_while).
    ///
    /// The computation runs in a task of its own from its begin, and continues without its caller.
    pub fn background(self) -> Self {
        self.detached_by(detach).with(super::options::Options::background)
    }

    /// Serves the previous value when computing takes longer than `time`, at least 1 ms.
    ///
    /// This needs a previous value that may still be served: fresh, or within the times of
    /// [`stale_while`](Self::stale_while) or [`stale_if_error`](Self::stale_if_error) of the call that stored it.
    /// Then the computation runs in a task of its own from its begin, and continues without its caller. Callers that
    /// wait for another caller's computation wait no longer than their own `time` either. Without such a value the
    /// caller computes, however long that takes.
    pub fn soft_timeout(self, time: impl Lifetime) -> Self {
        self.detached_by(detach).with(|options| options.soft_timeout(time))
    }
}

impl<V, E, F: Future<Output = Result<V, E>>> Call<F> {
    /// Stores only `Ok` values for which `holds` returns true.
    pub fn cache_if(self, holds: impl Fn(&V) -> bool + Send + Sync + 'static) -> Self {
        self.with(|options| options.cache_if(OkRule::new().cache_if(holds)))
    }

    /// Stores errors for which `holds` returns true: for `lifetime` every caller gets them.
    pub fn negative_err(
        self,
        holds: impl Fn(&E) -> bool + Send + Sync + 'static,
        lifetime: impl Lifetime,
    ) -> Self
    where
        E: Cacheable,
    {
        self.reading_errors(OkRule::new().errors()).with(|options| {
            options.negative_err(OkRule::new().negative_err(holds, lifetime, WithoutEquality))
        })
    }

    /// Compares an `Ok` value with what is read back before it is stored, as memoized functions do if its type
    /// implements `PartialEq`. Without it a value that serde reads from a copy of its input (`flatten`,
    /// `untagged`, `tag`) is stored only in a codec that is named.
    pub fn compared(self) -> Self
    where
        V: Cacheable + PartialEq,
    {
        self.encoding(encode_ok::<V, E, WithEquality>)
    }

    /// Gives waiting callers a clone of this call's error, as memoized functions do if the error is `Clone`.
    /// Without it all waiting callers compute at once after an error.
    pub fn share_errors(self) -> Self
    where
        E: Clone + Send + Sync + 'static,
    {
        self.sharing(OkRule::new().sharing())
    }
}
