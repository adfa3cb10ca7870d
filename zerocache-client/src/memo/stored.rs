//! What a call finds in the cache, with its age.

use std::time::Duration;

use bytes::Bytes;
use zerocache_core::metadata::{Freshness, Kind, Metadata};
use zerocache_core::time::Instant;
use zerocache_core::version::Version;

use super::rule::Policy;
use crate::Entry;
use crate::codec::CodecError;

/// The stored form of a value, or of an error that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Form {
    pub(crate) bytes: Bytes,
    pub(crate) kind: Kind,
}

impl Form {
    pub(crate) fn value(bytes: Bytes) -> Self {
        Form { bytes, kind: Kind::Value }
    }

    pub(crate) fn is_error(&self) -> bool {
        self.kind != Kind::Value
    }

    pub(crate) fn decode<T>(&self, policy: &Policy<T>) -> Result<T, CodecError> {
        match self.kind {
            Kind::Value => (policy.decode)(&self.bytes),
            Kind::Error => (policy.errors.decode)(&self.bytes),
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

    #[test]
    fn without_stale_times_it_serves_its_life() {
        let stored = stored(0, 0, 1_000);
        assert_eq!(at(&stored, 999), (true, true));
        assert_eq!(at(&stored, 1_000), (false, false));
    }
}
