//! Options of a function's entries, beside their lifetime.
//!
//! Options that readers need are stored in the entry; the others concern the writer alone.

use std::time::Duration;

use zerocache_core::ttl::Ttl;

use super::rule::Encode;
use super::ttl::TTL_MAX;
use crate::Ack;
use crate::codec::Codec;
use crate::lease::LeaseScope;
use crate::lifetime::Lifetime;
use crate::near::OUTAGE_MAX;

/// The default life of a lease.
pub(crate) const LEASE_LIFE_DEFAULT: Duration = Duration::from_secs(10);

/// The default wait for a process that has the lease. It is shorter than the wait inside a process, so that a
/// leader's followers get what the leader found.
pub(crate) const LEASE_WAIT_DEFAULT: Duration = Duration::from_secs(3);

/// The shortest time to idle in milliseconds: uses are reported once per quarter of it.
const TTI_MS_MIN: u64 = 4_000;

/// A lease: one process of a scope at a time computes a key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LeaseRule {
    pub(crate) scope: LeaseScope,
    // Milliseconds take fewer bytes than a duration: a call is moved about.
    life_ms: u32,
    wait_ms: u32,
}

impl LeaseRule {
    pub(crate) fn life(self) -> Duration {
        Duration::from_millis(self.life_ms.into())
    }

    /// Returns the wait for other processes, within the deadline of a call.
    pub(crate) fn wait(self, deadline: Option<Duration>) -> Duration {
        Duration::from_millis(self.wait_ms.into()).min(deadline.unwrap_or(Duration::MAX))
    }
}

/// Options of a call. The default is a plain lookup, computation and store.
pub struct Options<T> {
    /// Use of the near cache, and a maximum age of its own, if it is not the client's.
    pub(crate) near: Option<Option<Duration>>,
    /// For how long the near cache serves values while no node can be reached; 0 for the client's time.
    pub(crate) near_outage_ms: u64,
    pub(crate) lease: Option<LeaseRule>,
    pub(crate) stale_while_ms: u64,
    pub(crate) stale_if_error_ms: u64,
    pub(crate) refresh_ahead_ms: u64,
    /// The lifetime after each use; 0 if uses do not matter.
    tti_ms: u64,
    /// The wait for a computation while there is a previous value; 0 for no bound.
    soft_timeout_ms: u32,
    /// The most runs of the function that are in progress at a time in this process; 0 for no bound.
    max_concurrent: u32,
    /// A previous value that may be served while it is refreshed is served at once.
    pub(crate) background: bool,
    /// The percentage by which the lifetime is shortened at random, at most [`JITTER_MAX`].
    pub(crate) jitter: u8,
    pub(crate) ack: Option<Ack>,
    /// The codec of stored values, instead of the client's.
    pub(crate) codec: Option<Codec>,
    /// The time that nodes may take to answer, instead of the client's own bound.
    pub(crate) deadline: Option<Duration>,
    /// Literal tags of the attribute, which cost a call nothing.
    pub(crate) fixed_tags: &'static [&'static str],
    pub(crate) cache_if: Option<Predicate<T>>,
    pub(crate) none: Option<NegativeNone<T>>,
    /// Rarely used options, boxed so that a call stays small.
    pub(crate) more: Option<Box<More<T>>>,
}

/// The maximum of jitter, in percent.
pub(crate) const JITTER_MAX: u8 = 50;

/// Options that allocate for each call.
pub(crate) struct More<T> {
    pub(crate) tags: Vec<String>,
    pub(crate) error: Option<NegativeErr<T>>,
}

/// A condition on a returned value; from a function's rule.
pub struct Predicate<T>(Box<dyn Fn(&T) -> bool + Send + Sync>);

impl<T> Predicate<T> {
    /// Creates a predicate. A closure without captures costs no allocation.
    pub(crate) fn new(ask: impl Fn(&T) -> bool + Send + Sync + 'static) -> Self {
        Predicate(Box::new(ask))
    }

    pub(crate) fn holds(&self, value: &T) -> bool {
        (self.0)(value)
    }
}

/// The lifetime of `None`.
pub(crate) struct NegativeNone<T> {
    pub(crate) is_none: fn(&T) -> bool,
    pub(crate) lifetime: Duration,
}

/// The errors that are stored, and their lifetime; from a function's rule.
pub struct NegativeErr<T> {
    pub(crate) is_kept: Predicate<T>,
    pub(crate) lifetime: Duration,
    pub(crate) encode: Encode<T>,
}

/// A returned type that may be `None`: `Option`, or a `Result` of one.
#[diagnostic::on_unimplemented(
    message = "`negative(none = …)` is for functions that return an `Option`",
    label = "`{Self}` is neither an `Option` nor a `Result` with an `Option` in it"
)]
pub trait MaybeNone: sealed::Sealed {
    /// Returns true for `None`.
    #[doc(hidden)]
    fn is_none(&self) -> bool;
}

mod sealed {
    pub trait Sealed {}
}

impl<T> sealed::Sealed for Option<T> {}

impl<T> MaybeNone for Option<T> {
    fn is_none(&self) -> bool {
        self.is_none()
    }
}

impl<T, E> sealed::Sealed for Result<Option<T>, E> {}

impl<T, E> MaybeNone for Result<Option<T>, E> {
    fn is_none(&self) -> bool {
        matches!(self, Ok(None))
    }
}

impl<T> Options<T> {
    /// Returns the default options.
    #[allow(clippy::new_without_default)]
    #[must_use]
    pub const fn new() -> Self {
        Options {
            near: None,
            near_outage_ms: 0,
            lease: None,
            stale_while_ms: 0,
            stale_if_error_ms: 0,
            refresh_ahead_ms: 0,
            tti_ms: 0,
            soft_timeout_ms: 0,
            max_concurrent: 0,
            background: false,
            jitter: 0,
            ack: None,
            codec: None,
            deadline: None,
            fixed_tags: &[],
            cache_if: None,
            none: None,
            more: None,
        }
    }

    /// Uses the near cache, up to the client's maximum age or a shorter one.
    #[must_use]
    pub fn near(mut self, max_age: Option<Duration>) -> Self {
        self.near = Some(max_age);
        self
    }

    /// The time for which the near cache, which is used, serves values while no node can be reached: 1 ms to 24 h.
    #[must_use]
    pub fn near_outage(mut self, time: impl Lifetime) -> Self {
        self.near.get_or_insert_default();
        // It fits.
        self.near_outage_ms = time.into_duration().min(OUTAGE_MAX).as_millis().max(1) as u64;
        self
    }

    /// Lets one process of a scope at a time compute a key: for at most `life`, while others wait for at most
    /// `wait`.
    #[must_use]
    pub fn lease(
        mut self,
        scope: LeaseScope,
        life: Option<Duration>,
        wait: Option<Duration>,
    ) -> Self {
        let (life, wait) = (life.unwrap_or(LEASE_LIFE_DEFAULT), wait.unwrap_or(LEASE_WAIT_DEFAULT));
        // Nodes allow less than 32 bits of milliseconds.
        self.lease = Some(LeaseRule { scope, life_ms: short_ms(life), wait_ms: short_ms(wait) });
        self
    }

    /// The time after its lifetime for which a value may be served while it is refreshed.
    #[must_use]
    pub fn stale_while(mut self, time: impl Lifetime) -> Self {
        self.stale_while_ms = bounded_ms(time);
        self
    }

    /// The time after its lifetime for which a value may be served if computing it fails.
    #[must_use]
    pub fn stale_if_error(mut self, time: impl Lifetime) -> Self {
        self.stale_if_error_ms = bounded_ms(time);
        self
    }

    /// The time before the end of its lifetime in which a value may be refreshed early.
    #[must_use]
    pub fn refresh_ahead(mut self, time: impl Lifetime) -> Self {
        self.refresh_ahead_ms = bounded_ms(time);
        self
    }

    /// The time without a use after which a value ends, within its lifetime; at least 4 s.
    #[must_use]
    pub fn tti(mut self, time: impl Lifetime) -> Self {
        self.tti_ms = bounded_ms(time).max(TTI_MS_MIN);
        self
    }

    /// The wait for a computation after which a previous value is served, if there is one; at least 1 ms.
    #[must_use]
    pub fn soft_timeout(mut self, time: impl Lifetime) -> Self {
        self.soft_timeout_ms = short_ms(time.into_duration()).max(1);
        self
    }

    /// The most runs of the function that are in progress at a time in this process; at least 1.
    #[must_use]
    pub fn max_concurrent(mut self, runs: usize) -> Self {
        self.max_concurrent = u32::try_from(runs).unwrap_or(u32::MAX).max(1);
        self
    }

    /// Serves a previous value at once while it is refreshed.
    #[must_use]
    pub fn background(mut self) -> Self {
        self.background = true;
        self
    }

    /// Shortens the lifetime by a random part of up to `percent`; at most 50.
    #[must_use]
    pub fn jitter(mut self, percent: u8) -> Self {
        self.jitter = percent.min(JITTER_MAX);
        self
    }

    /// The nodes that must have a value before it counts as stored.
    #[must_use]
    pub fn ack(mut self, ack: Ack) -> Self {
        self.ack = Some(ack);
        self
    }

    /// The codec of stored values.
    #[must_use]
    pub fn codec(mut self, codec: Codec) -> Self {
        self.codec = Some(codec);
        self
    }

    /// The time that nodes may take to answer.
    #[must_use]
    pub(crate) fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Tags of all entries of the function, already validated.
    #[must_use]
    pub fn fixed_tags(mut self, tags: &'static [&'static str]) -> Self {
        self.fixed_tags = tags;
        self
    }

    /// Tags of the entries. A value with a tag that is not allowed is not stored, which is counted.
    #[must_use]
    pub fn tags(mut self, tags: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.more().tags.extend(tags.into_iter().map(Into::into));
        self
    }

    /// Stores only values for which the predicate holds.
    #[must_use]
    pub fn cache_if(mut self, predicate: Predicate<T>) -> Self {
        self.cache_if = Some(predicate);
        self
    }

    /// The lifetime of `None`, also inside of `Ok`; zero does not store it.
    #[must_use]
    pub fn negative_none(mut self, lifetime: impl Lifetime) -> Self
    where
        T: MaybeNone,
    {
        let lifetime = lifetime.into_duration();
        self.none = Some(NegativeNone { is_none: T::is_none, lifetime });
        self
    }

    /// Stores the errors that the rule selects.
    #[must_use]
    pub fn negative_err(mut self, rule: NegativeErr<T>) -> Self {
        self.more().error = Some(rule);
        self
    }

    /// Returns the wait for a computation by another process.
    pub(crate) fn lease_wait(&self) -> Duration {
        self.lease.map(|rule| rule.wait(self.deadline)).unwrap_or_default()
    }

    /// Returns the wait for a computation while there is a previous value, if it is bounded.
    pub(crate) fn soft_wait(&self) -> Option<Duration> {
        let ms = Some(self.soft_timeout_ms).filter(|ms| *ms > 0)?;
        Some(Duration::from_millis(ms.into()))
    }

    /// Returns the time to idle, if there is one.
    pub(crate) fn time_to_idle(&self) -> Option<Ttl> {
        Some(self.tti_ms).filter(|ms| *ms > 0).and_then(|ms| Ttl::from_millis(ms).ok())
    }

    /// Returns the most runs of the function at a time, if they are bounded.
    pub(crate) fn runs_max(&self) -> Option<u32> {
        Some(self.max_concurrent).filter(|runs| *runs > 0)
    }

    /// Returns all tags, those of the function first.
    pub(crate) fn all_tags(&self) -> impl Iterator<Item = &str> {
        let own = self.more.iter().flat_map(|more| &more.tags);
        self.fixed_tags.iter().copied().chain(own.map(String::as_str))
    }

    fn more(&mut self) -> &mut More<T> {
        self.more.get_or_insert_with(|| Box::new(More { tags: Vec::new(), error: None }))
    }
}

/// Returns a stale or ahead time in milliseconds, at most the longest lifetime.
fn bounded_ms(time: impl Lifetime) -> u64 {
    // The longest lifetime in milliseconds fits.
    time.into_duration().min(TTL_MAX).as_millis() as u64
}

/// Returns a wait in milliseconds, at most the 49 days that fit.
fn short_ms(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_options_are_empty_and_allocate_nothing() {
        const NONE: Options<String> = Options::new();
        let options = NONE;
        assert!(options.near.is_none() && options.lease.is_none() && options.more.is_none());
        assert_eq!((options.stale_while_ms, options.stale_if_error_ms), (0, 0));
        assert!(options.refresh_ahead_ms == 0 && options.jitter == 0 && options.ack.is_none());
    }

    #[test]
    fn options_are_kept_within_bounds() {
        let options = Options::<Option<u8>>::new()
            .near(Some(Duration::from_secs(2)))
            .lease(LeaseScope::All, None, Some(Duration::from_millis(5)))
            .stale_while(Duration::from_millis(500))
            .stale_if_error(i64::MAX)
            .soft_timeout(Duration::ZERO)
            .jitter(200)
            .ack(Ack::Region)
            .fixed_tags(&["a"])
            .tags(["b"])
            .tags([String::from("c")])
            .negative_none(5);
        assert_eq!(options.near, Some(Some(Duration::from_secs(2))));
        let lease = options.lease.expect("was set");
        assert_eq!(lease.life(), LEASE_LIFE_DEFAULT);
        assert_eq!(lease.wait(None), Duration::from_millis(5));
        assert_eq!(lease.wait(Some(Duration::from_secs(1))), Duration::from_millis(5));
        assert_eq!(lease.wait(Some(Duration::from_millis(2))), Duration::from_millis(2));
        assert_eq!(options.stale_while_ms, 500);
        assert_eq!(options.soft_wait(), Some(Duration::from_millis(1)));
        assert_eq!((options.stale_if_error_ms, options.jitter), (99_999_999_000, JITTER_MAX));
        assert_eq!(options.all_tags().collect::<Vec<_>>(), ["a", "b", "c"]);
        let none = options.none.expect("was set");
        assert!((none.is_none)(&None) && !(none.is_none)(&Some(1)));
    }

    #[test]
    fn none_is_found_inside_of_ok() {
        assert!(MaybeNone::is_none(&Ok::<Option<u8>, ()>(None)));
        assert!(!MaybeNone::is_none(&Ok::<_, ()>(Some(1))));
        assert!(!MaybeNone::is_none(&Err::<Option<u8>, ()>(())));
    }
}
