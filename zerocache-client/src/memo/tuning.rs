//! Options of one call, in place of those of its function.

use std::future::Future;
use std::time::Duration;

use super::call::Call;
use super::options::MaybeNone;
use super::rule::{Cacheable, OkRule};
use crate::Ack;
use crate::lease::LeaseScope;
use crate::lifetime::Lifetime;

impl<F: Future> Call<F> {
    /// Keeps the value in this process too, and takes it from there, within the bounds of
    /// [`near_bytes`](crate::ClientBuilder::near_bytes) and
    /// [`near_age`](crate::ClientBuilder::near_age).
    pub fn near(self) -> Self {
        self.with(|options| options.near(None))
    }

    /// Computes the key once at a time in all processes of `scope`.
    ///
    /// The computation has leave for 10 seconds; then another process may begin one. The others wait
    /// for at most 3 seconds and then compute, or are served a value that is stale, where that is
    /// allowed. With no node to ask everyone computes.
    pub fn lease(self, scope: LeaseScope) -> Self {
        self.with(|options| options.lease(scope, None, None))
    }

    /// As [`lease`](Self::lease), with other times: `life` up to 5 minutes, `wait` up to one.
    pub fn lease_within(self, scope: LeaseScope, life: Duration, wait: Duration) -> Self {
        self.with(|options| options.lease(scope, Some(life), Some(wait)))
    }

    /// For so long after its lifetime the value is served to others while one caller computes it
    /// anew.
    pub fn stale_while(self, time: impl Lifetime) -> Self {
        self.with(|options| options.stale_while(time))
    }

    /// For so long after its lifetime the value is served where computing it fails.
    pub fn stale_if_error(self, time: impl Lifetime) -> Self {
        self.with(|options| options.stale_if_error(time))
    }

    /// In this last part of its lifetime chance has one of the callers compute the value anew, ever
    /// likelier towards the end.
    pub fn refresh_ahead(self, time: impl Lifetime) -> Self {
        self.with(|options| options.refresh_ahead(time))
    }

    /// Takes up to so many percent off the lifetime, by chance; at most 50.
    pub fn jitter(self, percent: u8) -> Self {
        self.with(|options| options.jitter(percent))
    }

    /// Groups to which the entry belongs, beside those of the function. One that is not allowed is
    /// left out, and counted.
    pub fn tags(self, tags: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.with(|options| options.tags(tags))
    }

    /// Who must have the value before it counts as stored.
    pub fn ack(self, ack: Ack) -> Self {
        self.with(|options| options.ack(ack))
    }

    /// How long nodes may take to answer a read or a write, instead of the client's own bound; and the
    /// node of a lease, waiting for the value included. The function itself is not bounded by it.
    pub fn deadline(self, deadline: Duration) -> Self {
        self.with(|options| options.deadline(deadline))
    }

    /// A lifetime of its own for `None`, also inside of `Ok`; zero stores none.
    pub fn negative_none(self, lifetime: impl Lifetime) -> Self
    where
        F::Output: MaybeNone,
    {
        self.with(|options| options.negative_none(lifetime))
    }
}

impl<V, E, F: Future<Output = Result<V, E>>> Call<F> {
    /// Stores only those `Ok` values for which this holds.
    pub fn cache_if(self, holds: impl Fn(&V) -> bool + Send + Sync + 'static) -> Self {
        self.with(|options| options.cache_if(OkRule::new().cache_if(holds)))
    }

    /// Keeps the errors for which this holds: for `lifetime` every caller gets them.
    pub fn negative_err(
        self,
        holds: impl Fn(&E) -> bool + Send + Sync + 'static,
        lifetime: impl Lifetime,
    ) -> Self
    where
        E: Cacheable,
    {
        self.reading_errors(OkRule::new().errors())
            .with(|options| options.negative_err(OkRule::new().negative_err(holds, lifetime)))
    }

    /// Gives those who wait for this call a clone of its error, as memoized functions do where they
    /// can; without it they all compute at once after an error.
    pub fn share_errors(self) -> Self
    where
        E: Clone + Send + Sync + 'static,
    {
        self.sharing(OkRule::new().sharing())
    }
}
