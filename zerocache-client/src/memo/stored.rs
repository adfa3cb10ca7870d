//! What a call finds in the cache, with its age.
//!
//! The entry under a call's own key is its base entry. Where a function of another release has written it,
//! this one cannot read it, and leaves it as it is: its own value is stored beside it, under a key of its
//! shape, and says to which version of the base entry it belongs. It is of use as long as the base entry
//! has that version, so that whoever deletes or replaces the base entry ends all that stands beside it.

use std::time::Duration;

use bytes::Bytes;
use zerocache_core::metadata::{EntryKind, Freshness, Metadata};
use zerocache_core::time::Instant;
use zerocache_core::version::Version;

use super::key;
use super::rule::{Policy, SHAPE_LEN};
use super::ttl::TTL_MIN;
use crate::Entry;
use crate::codec::CodecError;

/// The stored form of a value, or of an error that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Form {
    pub(crate) bytes: Bytes,
    pub(crate) kind: EntryKind,
}

impl Form {
    pub(crate) fn value(bytes: Bytes) -> Self {
        Form { bytes, kind: EntryKind::Value }
    }

    pub(crate) fn is_error(&self) -> bool {
        self.kind != EntryKind::Value
    }

    pub(crate) fn decode<T>(&self, policy: &Policy<T>) -> Result<T, CodecError> {
        match self.kind {
            EntryKind::Value => (policy.decode)(&self.bytes),
            EntryKind::Error => (policy.errors.decode)(&self.bytes),
            // Kinds of later releases.
            _ => Err(CodecError::Decode("an entry of a kind that is not known".to_owned())),
        }
    }
}

/// An entry, and the moment at which its life ends. What it may be used for is what its writer said,
/// whatever the reader's own function says.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(crate) form: Form,
    /// Without the tags, which readers do not ask for.
    times: Metadata,
    ends: Instant,
    pub(crate) version: Version,
}

impl Stored {
    /// An entry that was read at `now`.
    pub(crate) fn read(entry: Entry, now: Instant) -> Self {
        let form = Form { bytes: entry.value, kind: entry.metadata.kind };
        Self::new(form, &entry.metadata, (entry.ttl, entry.version), now)
    }

    fn new(
        form: Form,
        metadata: &Metadata,
        (life, version): (Duration, Version),
        now: Instant,
    ) -> Self {
        let mut times = Metadata::default();
        times.stale_while_ms = metadata.stale_while_ms;
        times.stale_if_error_ms = metadata.stale_if_error_ms;
        times.refresh_ahead_ms = metadata.refresh_ahead_ms;
        times.base = metadata.base;
        let life_ms = u64::try_from(life.as_millis()).unwrap_or(u64::MAX);
        Stored { form, times, ends: now.plus_ms(life_ms), version }
    }

    fn remaining_ms(&self, now: Instant) -> u64 {
        self.ends.since_ms(now)
    }

    /// How it may be used now; as fresh, where it just was when it was read.
    pub(crate) fn freshness(&self, now: Instant) -> Freshness {
        self.times.freshness(self.remaining_ms(now))
    }

    /// Whether it may be served while it is computed anew.
    pub(crate) fn serves(&self, now: Instant) -> bool {
        self.remaining_ms(now) > 0 && self.freshness(now) != Freshness::OnlyOnError
    }

    /// Whether it may be served where computing it failed.
    pub(crate) fn serves_on_error(&self, now: Instant) -> bool {
        let remaining_ms = self.remaining_ms(now);
        if self.times.fresh_ms(remaining_ms) > 0 {
            return true;
        }
        remaining_ms > 0 && self.times.stale_ms() - remaining_ms < self.times.stale_if_error_ms
    }

    /// What is left of its fresh time, and the part of that in which it may be computed anew.
    pub(crate) fn ahead_ms(&self, now: Instant) -> (u64, u64) {
        (self.times.fresh_ms(self.remaining_ms(now)), self.times.refresh_ahead_ms)
    }
}

/// A base entry that the caller's function cannot read, and what stands beside it.
#[derive(Clone, Debug)]
pub(crate) struct Base {
    /// Under which key the function has its own value.
    pub(crate) key: Bytes,
    /// The base entry, without its value.
    entry: Stored,
    /// The version of what was found there and is of no use.
    pub(crate) over: Option<Version>,
}

impl Base {
    /// The entry of `key`, which a function of this shape cannot read.
    pub(crate) fn new(key: &[u8], shape: [u8; SHAPE_LEN], mut entry: Stored) -> Box<Self> {
        entry.form.bytes = Bytes::new();
        Box::new(Base { key: key::beside(key, shape), entry, over: None })
    }

    /// Whether what was found beside it belongs to it.
    pub(crate) fn owns(&self, found: &Stored) -> bool {
        found.times.base == Some(self.entry.version)
    }

    /// Whether it is to be left as it is: past its fresh time it is replaced by whoever computes first.
    pub(crate) fn stays(&self, now: Instant) -> bool {
        self.entry.freshness(now) == Freshness::Fresh
    }

    /// For how long a value is fresh, and what is said of it, when it is stored beside this entry instead
    /// of under a key of its own: nothing of it is of use when this entry is gone.
    pub(crate) fn bound(&self, fresh: Duration, said: &mut Metadata, now: Instant) -> Duration {
        let remaining_ms = self.entry.remaining_ms(now);
        let base_fresh = Duration::from_millis(self.entry.times.fresh_ms(remaining_ms));
        said.base = Some(self.entry.version);
        if base_fresh < fresh {
            // It ends with the base entry, and not by itself: to compute it early would not lengthen it.
            said.refresh_ahead_ms = 0;
        }
        let bound = fresh.min(base_fresh).max(TTL_MIN);
        let bound_ms = u64::try_from(bound.as_millis()).unwrap_or(u64::MAX);
        let rest_ms = remaining_ms.saturating_sub(bound_ms);
        said.stale_while_ms = said.stale_while_ms.min(rest_ms);
        said.stale_if_error_ms = said.stale_if_error_ms.min(rest_ms);
        bound
    }
}

#[cfg(test)]
mod tests {
    use zerocache_core::version::Incarnation;

    use super::*;

    const READ: Instant = Instant::from_millis(50_000);

    fn stored(stale_while_ms: u64, stale_if_error_ms: u64, life_ms: u64) -> Stored {
        let mut metadata = Metadata::default();
        (metadata.stale_while_ms, metadata.stale_if_error_ms) = (stale_while_ms, stale_if_error_ms);
        metadata.refresh_ahead_ms = 300;
        let form = Form::value(Bytes::from_static(b"x"));
        let life = Duration::from_millis(life_ms);
        Stored::new(form, &metadata, (life, Version::new(1, Incarnation(1))), READ)
    }

    /// What it serves at so many milliseconds after it was read: others, and after an error.
    fn at(stored: &Stored, ms: u64) -> (bool, bool) {
        let now = READ.plus_ms(ms);
        (stored.serves(now), stored.serves_on_error(now))
    }

    #[test]
    fn grows_old_while_it_is_held() {
        // Fresh for 1,000 ms, stale for 2,000, on errors for 5,000.
        let stored = stored(2_000, 5_000, 6_000);
        assert_eq!(stored.ahead_ms(READ), (1_000, 300));
        assert_eq!(at(&stored, 999), (true, true));
        assert_eq!(stored.freshness(READ.plus_ms(999)), Freshness::Fresh);
        assert_eq!(stored.freshness(READ.plus_ms(1_000)), Freshness::Stale);
        assert_eq!(at(&stored, 2_999), (true, true));
        assert_eq!(at(&stored, 3_000), (false, true));
        assert_eq!(at(&stored, 5_999), (false, true));
        assert_eq!(at(&stored, 6_000), (false, false));
    }

    #[test]
    fn the_two_stale_times_are_two() {
        // Fresh for 1,000 ms, stale for 4,000, on errors for 1,000.
        let stored = stored(4_000, 1_000, 5_000);
        assert_eq!(at(&stored, 1_999), (true, true));
        assert_eq!(at(&stored, 2_000), (true, false));
        assert_eq!(at(&stored, 4_999), (true, false));
        assert_eq!(at(&stored, 5_000), (false, false));
    }

    fn beside(stored: &Stored, of: Version) -> Stored {
        let mut own = stored.clone();
        own.times.base = Some(of);
        own
    }

    #[test]
    fn what_stands_beside_an_entry_belongs_to_one_version_of_it() {
        let entry = stored(0, 0, 1_000);
        let base = Base::new(b"key", [7; SHAPE_LEN], entry.clone());
        assert!(base.owns(&beside(&entry, entry.version)));
        assert!(!base.owns(&entry), "it was not written to stand beside another one");
        for (stamp, incarnation) in [(0, 1), (2, 1), (1, 2)] {
            let other = Version::new(stamp, Incarnation(incarnation));
            assert!(!base.owns(&beside(&entry, other)), "{other:?}");
        }
        let other = Base::new(b"key", [8; SHAPE_LEN], entry);
        assert_ne!(base.key, other.key, "each shape has its own");
    }

    /// What a value of `fresh_ms` and these stale and ahead times becomes beside an entry at `ms`.
    fn bounded(base: &Base, fresh_ms: u64, ms: u64) -> [u64; 4] {
        let mut said = Metadata::default();
        (said.stale_while_ms, said.stale_if_error_ms) = (3_000, 60_000);
        said.refresh_ahead_ms = 500;
        let fresh = base.bound(Duration::from_millis(fresh_ms), &mut said, READ.plus_ms(ms));
        assert_eq!(said.base, Some(base.entry.version));
        let fresh_ms = fresh.as_millis() as u64;
        [fresh_ms, said.stale_while_ms, said.stale_if_error_ms, said.refresh_ahead_ms]
    }

    #[test]
    fn what_stands_beside_an_entry_ends_with_it() {
        // Fresh for 10 s, stale for 2 s, on errors for 5 s.
        let base = Base::new(b"key", [0; SHAPE_LEN], stored(2_000, 5_000, 15_000));
        assert!(base.stays(READ.plus_ms(9_999)) && !base.stays(READ.plus_ms(10_000)));
        // Shorter than what is left of the entry: its own, and its stale times end with the entry.
        assert_eq!(bounded(&base, 2_000, 0), [2_000, 3_000, 13_000, 500]);
        // Longer: what is left, and it is not computed early.
        assert_eq!(bounded(&base, 60_000, 0), [10_000, 3_000, 5_000, 0]);
        assert_eq!(bounded(&base, 60_000, 8_000), [2_000, 3_000, 5_000, 0]);
        // Nodes take nothing shorter than a second.
        assert_eq!(bounded(&base, 60_000, 9_900), [1_000, 3_000, 4_100, 0]);
        assert_eq!(bounded(&base, 60_000, 14_500), [1_000, 0, 0, 0]);
    }

    #[test]
    fn without_stale_times_it_serves_its_life() {
        let stored = stored(0, 0, 1_000);
        assert_eq!(at(&stored, 999), (true, true));
        assert_eq!(at(&stored, 1_000), (false, false));
    }
}
