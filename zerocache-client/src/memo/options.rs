//! What the attribute says of a function's entries beside their lifetime.
//!
//! All that a reader has to know of it goes into the entry; the rest is the writer's own business.

use std::time::Duration;

use bytes::Bytes;

use super::ttl::TTL_MAX;
use crate::Ack;
use crate::codec::CodecError;
use crate::lease::LeaseScope;
use crate::lifetime::Lifetime;

/// How long a computation holds its lease where the function does not say.
pub(crate) const LEASE_LIFE_DEFAULT: Duration = Duration::from_secs(10);

/// How long others wait for a computation under lease where the function does not say. Shorter than
/// the wait inside a process, so that a process's own callers hear what its leader has found.
pub(crate) const LEASE_WAIT_DEFAULT: Duration = Duration::from_secs(3);

/// That a key is computed once at a time by all processes of a scope.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LeaseRule {
    pub(crate) scope: LeaseScope,
    // In milliseconds, which are fewer bytes than a duration: a call is moved about.
    life_ms: u32,
    wait_ms: u32,
}

impl LeaseRule {
    pub(crate) fn life(self) -> Duration {
        Duration::from_millis(self.life_ms.into())
    }

    /// How long others are waited for, within the deadline of a call.
    pub(crate) fn wait(self, deadline: Option<Duration>) -> Duration {
        Duration::from_millis(self.wait_ms.into()).min(deadline.unwrap_or(Duration::MAX))
    }
}

/// What a call does beside looking, computing and storing for a lifetime. The default is nothing.
pub struct Options<T> {
    /// Whether values are kept in this process too, and for what time, where that is not the client's.
    pub(crate) near: Option<Option<Duration>>,
    pub(crate) lease: Option<LeaseRule>,
    pub(crate) stale_while_ms: u64,
    pub(crate) stale_if_error_ms: u64,
    pub(crate) refresh_ahead_ms: u64,
    /// Percent of the lifetime that chance may take off, at most [`JITTER_MAX`].
    pub(crate) jitter: u8,
    pub(crate) ack: Option<Ack>,
    /// How long nodes may take to answer, instead of the client's own bound.
    pub(crate) deadline: Option<Duration>,
    /// Tags that the attribute has as literals, which cost a call nothing.
    pub(crate) fixed_tags: &'static [&'static str],
    pub(crate) cache_if: Option<Predicate<T>>,
    pub(crate) none: Option<NegativeNone<T>>,
    /// What few functions say; apart, so that a call stays small.
    pub(crate) more: Option<Box<More<T>>>,
}

/// The most that chance takes off a lifetime, in percent.
pub(crate) const JITTER_MAX: u8 = 50;

/// The options that own something for each call.
pub(crate) struct More<T> {
    pub(crate) tags: Vec<String>,
    pub(crate) error: Option<NegativeErr<T>>,
}

/// A question to a returned value; from a function's rule.
pub struct Predicate<T>(Box<dyn Fn(&T) -> bool + Send + Sync>);

impl<T> Predicate<T> {
    /// A closure without captures costs no allocation.
    pub(crate) fn new(ask: impl Fn(&T) -> bool + Send + Sync + 'static) -> Self {
        Predicate(Box::new(ask))
    }

    pub(crate) fn holds(&self, value: &T) -> bool {
        (self.0)(value)
    }
}

/// A lifetime of its own for `None`.
pub(crate) struct NegativeNone<T> {
    pub(crate) is_none: fn(&T) -> bool,
    pub(crate) lifetime: Duration,
}

/// Which errors are kept, and for how long; from a function's rule.
pub struct NegativeErr<T> {
    pub(crate) keeps: Predicate<T>,
    pub(crate) lifetime: Duration,
    pub(crate) encode: fn(&T) -> Option<Result<Bytes, CodecError>>,
}

/// A returned type that may be `None`: `Option`, or a `Result` of one.
#[diagnostic::on_unimplemented(
    message = "`negative(none = …)` is for functions that return an `Option`",
    label = "`{Self}` is neither an `Option` nor a `Result` with an `Option` in it"
)]
pub trait MaybeNone: sealed::Sealed {
    /// Whether it is `None`.
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
    /// None.
    #[allow(clippy::new_without_default)]
    #[must_use]
    pub const fn new() -> Self {
        Options {
            near: None,
            lease: None,
            stale_while_ms: 0,
            stale_if_error_ms: 0,
            refresh_ahead_ms: 0,
            jitter: 0,
            ack: None,
            deadline: None,
            fixed_tags: &[],
            cache_if: None,
            none: None,
            more: None,
        }
    }

    /// Keeps values in this process too, for at most the client's `max_age`, or one of its own.
    #[must_use]
    pub fn near(mut self, max_age: Option<Duration>) -> Self {
        self.near = Some(max_age);
        self
    }

    /// Computes a key once at a time in all processes of a scope: for at most `life`, while the
    /// others wait at most `wait`.
    #[must_use]
    pub fn lease(
        mut self,
        scope: LeaseScope,
        life: Option<Duration>,
        wait: Option<Duration>,
    ) -> Self {
        let (life, wait) = (life.unwrap_or(LEASE_LIFE_DEFAULT), wait.unwrap_or(LEASE_WAIT_DEFAULT));
        // Nodes allow less than a number of milliseconds can say.
        let ms = |time: Duration| u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
        self.lease = Some(LeaseRule { scope, life_ms: ms(life), wait_ms: ms(wait) });
        self
    }

    /// After its lifetime a value may be served for so long while it is computed anew.
    #[must_use]
    pub fn stale_while(mut self, time: impl Lifetime) -> Self {
        self.stale_while_ms = bounded_ms(time);
        self
    }

    /// After its lifetime a value may be served for so long where computing it fails.
    #[must_use]
    pub fn stale_if_error(mut self, time: impl Lifetime) -> Self {
        self.stale_if_error_ms = bounded_ms(time);
        self
    }

    /// In this last part of its lifetime chance has some caller compute a value anew.
    #[must_use]
    pub fn refresh_ahead(mut self, time: impl Lifetime) -> Self {
        self.refresh_ahead_ms = bounded_ms(time);
        self
    }

    /// Takes up to so many percent off the lifetime, by chance; at most 50.
    #[must_use]
    pub fn jitter(mut self, percent: u8) -> Self {
        self.jitter = percent.min(JITTER_MAX);
        self
    }

    /// Who must have a value before it counts as stored.
    #[must_use]
    pub fn ack(mut self, ack: Ack) -> Self {
        self.ack = Some(ack);
        self
    }

    /// How long nodes may take to answer.
    #[must_use]
    pub(crate) fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Groups to which all entries of the function belong, checked already.
    #[must_use]
    pub fn fixed_tags(mut self, tags: &'static [&'static str]) -> Self {
        self.fixed_tags = tags;
        self
    }

    /// Groups to which the entries belong. One that is not allowed is left out, and counted.
    #[must_use]
    pub fn tags(mut self, tags: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.more().tags.extend(tags.into_iter().map(Into::into));
        self
    }

    /// Stores only what the predicate holds for.
    #[must_use]
    pub fn cache_if(mut self, predicate: Predicate<T>) -> Self {
        self.cache_if = Some(predicate);
        self
    }

    /// `None`, also inside of `Ok`, is kept for so long; zero for not at all.
    #[must_use]
    pub fn negative_none(mut self, lifetime: impl Lifetime) -> Self
    where
        T: MaybeNone,
    {
        let lifetime = lifetime.into_duration();
        self.none = Some(NegativeNone { is_none: T::is_none, lifetime });
        self
    }

    /// Keeps the errors that the rule chooses.
    #[must_use]
    pub fn negative_err(mut self, rule: NegativeErr<T>) -> Self {
        self.more().error = Some(rule);
        self
    }

    /// How long a computation by another process is waited for.
    pub(crate) fn lease_wait(&self) -> Duration {
        self.lease.map(|rule| rule.wait(self.deadline)).unwrap_or_default()
    }

    /// All tags, those of the function first.
    pub(crate) fn all_tags(&self) -> impl Iterator<Item = &str> {
        let own = self.more.iter().flat_map(|more| &more.tags);
        self.fixed_tags.iter().copied().chain(own.map(String::as_str))
    }

    fn more(&mut self) -> &mut More<T> {
        self.more.get_or_insert_with(|| Box::new(More { tags: Vec::new(), error: None }))
    }
}

/// A stale or ahead time; above the longest lifetime it means nothing more.
fn bounded_ms(time: impl Lifetime) -> u64 {
    // The longest lifetime in milliseconds fits.
    time.into_duration().min(TTL_MAX).as_millis() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn say_nothing_by_default_and_allocate_nothing() {
        const NONE: Options<String> = Options::new();
        let options = NONE;
        assert!(options.near.is_none() && options.lease.is_none() && options.more.is_none());
        assert_eq!((options.stale_while_ms, options.stale_if_error_ms), (0, 0));
        assert!(options.refresh_ahead_ms == 0 && options.jitter == 0 && options.ack.is_none());
    }

    #[test]
    fn keep_what_they_are_told_within_bounds() {
        let options = Options::<Option<u8>>::new()
            .near(Some(Duration::from_secs(2)))
            .lease(LeaseScope::All, None, Some(Duration::from_millis(5)))
            .stale_while(Duration::from_millis(500))
            .stale_if_error(i64::MAX)
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
        assert_eq!((options.stale_if_error_ms, options.jitter), (99_999_999_000, JITTER_MAX));
        assert_eq!(options.all_tags().collect::<Vec<_>>(), ["a", "b", "c"]);
        let none = options.none.expect("was set");
        assert!((none.is_none)(&None) && !(none.is_none)(&Some(1)));
    }

    #[test]
    fn find_none_inside_of_ok() {
        assert!(MaybeNone::is_none(&Ok::<Option<u8>, ()>(None)));
        assert!(!MaybeNone::is_none(&Ok::<_, ()>(Some(1))));
        assert!(!MaybeNone::is_none(&Err::<Option<u8>, ()>(())));
    }
}
