//! Entries as calls read them, with their age.
//!
//! The entry under a call's own key is its base entry. If a function of another release has written it with
//! another shape, this function cannot decode it, and keeps it: its own value is stored as a shape entry,
//! under a key that contains its shape, and names the version of the base entry to which it belongs. A shape
//! entry is valid as long as the base entry has that version, so that deleting or replacing the base entry
//! ends all its shape entries.

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

/// The bytes of a value, or of a stored error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Payload {
    pub(crate) bytes: Bytes,
    pub(crate) kind: EntryKind,
}

impl Payload {
    pub(crate) fn value(bytes: Bytes) -> Self {
        Payload { bytes, kind: EntryKind::Value }
    }

    pub(crate) fn is_error(&self) -> bool {
        self.kind != EntryKind::Value
    }

    pub(crate) fn decode<T>(&self, policy: &Policy<T>) -> Result<T, CodecError> {
        match self.kind {
            EntryKind::Value => (policy.decode)(&self.bytes),
            EntryKind::Error => (policy.errors.decode)(&self.bytes),
            // Kinds of later releases.
            _ => Err(CodecError::Decode("the entry is of an unknown kind".to_owned())),
        }
    }
}

/// An entry, and its expiry. Its writer's metadata say how it may be used, whatever the options of the reader's
/// own function are.
#[derive(Clone, Debug)]
pub(crate) struct StoredEntry {
    pub(crate) payload: Payload,
    /// The metadata without tags, which readers do not need.
    times: Metadata,
    expiry: Instant,
    pub(crate) version: Version,
}

impl StoredEntry {
    /// Returns an entry that was read at `now`.
    pub(crate) fn read(entry: Entry, now: Instant) -> Self {
        let payload = Payload { bytes: entry.value, kind: entry.metadata.kind };
        Self::new(payload, &entry.metadata, (entry.ttl, entry.version), now)
    }

    fn new(
        payload: Payload,
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
        StoredEntry { payload, times, expiry: now.plus_ms(life_ms), version }
    }

    fn remaining_ms(&self, now: Instant) -> u64 {
        self.expiry.since_ms(now)
    }

    /// Returns how the entry may be used now.
    pub(crate) fn freshness(&self, now: Instant) -> Freshness {
        self.times.freshness(self.remaining_ms(now))
    }

    /// Returns true if the entry may be served while it is refreshed.
    pub(crate) fn is_servable(&self, now: Instant) -> bool {
        self.remaining_ms(now) > 0 && self.freshness(now) != Freshness::OnlyOnError
    }

    /// Returns true if the entry may be served when computing failed.
    pub(crate) fn is_servable_on_error(&self, now: Instant) -> bool {
        let remaining_ms = self.remaining_ms(now);
        if self.times.fresh_ms(remaining_ms) > 0 {
            return true;
        }
        remaining_ms > 0 && self.times.stale_ms() - remaining_ms < self.times.stale_if_error_ms
    }

    /// Returns the remaining fresh time, and the part of it in which the entry may be refreshed early.
    pub(crate) fn refresh_ahead_ms(&self, now: Instant) -> (u64, u64) {
        (self.times.fresh_ms(self.remaining_ms(now)), self.times.refresh_ahead_ms)
    }
}

/// A base entry that the caller's function cannot decode, and the key of its shape entry.
#[derive(Clone, Debug)]
pub(crate) struct BaseEntry {
    /// The key of the function's own value.
    pub(crate) shape_key: Bytes,
    /// The base entry, without its value.
    entry: StoredEntry,
    /// The version of an unusable entry under `shape_key`.
    pub(crate) replaces: Option<Version>,
}

impl BaseEntry {
    /// Creates the base entry of `key`, which a function of this shape cannot decode.
    pub(crate) fn new(key: &[u8], shape: [u8; SHAPE_LEN], mut entry: StoredEntry) -> Box<Self> {
        entry.payload.bytes = Bytes::new();
        Box::new(BaseEntry { shape_key: key::shape_entry(key, shape), entry, replaces: None })
    }

    /// Returns the version of the base entry.
    pub(crate) fn version(&self) -> Version {
        self.entry.version
    }

    /// Returns true if `found` is a shape entry of this version of the base entry.
    pub(crate) fn owns(&self, found: &StoredEntry) -> bool {
        found.times.base == Some(self.entry.version)
    }

    /// Returns true if the base entry is kept. Past its fresh time the first computed value replaces it.
    pub(crate) fn is_kept(&self, now: Instant) -> bool {
        self.entry.freshness(now) == Freshness::Fresh
    }

    /// Limits the fresh and stale times of a shape entry to those of the base entry, without which it is of
    /// no use.
    pub(crate) fn limit(&self, fresh: Duration, metadata: &mut Metadata, now: Instant) -> Duration {
        let remaining_ms = self.entry.remaining_ms(now);
        let base_fresh = Duration::from_millis(self.entry.times.fresh_ms(remaining_ms));
        metadata.base = Some(self.entry.version);
        // A use of the base entry gives that another version.
        (metadata.idle_ms, metadata.idle_most_ms) = (0, 0);
        if base_fresh < fresh {
            // It ends with the base entry: refreshing it early would not lengthen its life.
            metadata.refresh_ahead_ms = 0;
        }
        let bound = fresh.min(base_fresh).max(TTL_MIN);
        let bound_ms = u64::try_from(bound.as_millis()).unwrap_or(u64::MAX);
        let rest_ms = remaining_ms.saturating_sub(bound_ms);
        metadata.stale_while_ms = metadata.stale_while_ms.min(rest_ms);
        metadata.stale_if_error_ms = metadata.stale_if_error_ms.min(rest_ms);
        bound
    }
}

#[cfg(test)]
mod tests {
    use zerocache_core::version::Incarnation;

    use super::*;

    const READ: Instant = Instant::from_millis(50_000);

    fn stored(stale_while_ms: u64, stale_if_error_ms: u64, life_ms: u64) -> StoredEntry {
        let mut metadata = Metadata::default();
        (metadata.stale_while_ms, metadata.stale_if_error_ms) = (stale_while_ms, stale_if_error_ms);
        metadata.refresh_ahead_ms = 300;
        let payload = Payload::value(Bytes::from_static(b"x"));
        let life = Duration::from_millis(life_ms);
        StoredEntry::new(payload, &metadata, (life, Version::new(1, Incarnation(1))), READ)
    }

    /// Returns if the entry is servable, and servable on error, `ms` after it was read.
    fn at(stored: &StoredEntry, ms: u64) -> (bool, bool) {
        let now = READ.plus_ms(ms);
        (stored.is_servable(now), stored.is_servable_on_error(now))
    }

    #[test]
    fn entry_ages_while_it_is_held() {
        // Fresh for 1,000 ms, stale for 2,000, on errors for 5,000.
        let stored = stored(2_000, 5_000, 6_000);
        assert_eq!(stored.refresh_ahead_ms(READ), (1_000, 300));
        assert_eq!(at(&stored, 999), (true, true));
        assert_eq!(stored.freshness(READ.plus_ms(999)), Freshness::Fresh);
        assert_eq!(stored.freshness(READ.plus_ms(1_000)), Freshness::Stale);
        assert_eq!(at(&stored, 2_999), (true, true));
        assert_eq!(at(&stored, 3_000), (false, true));
        assert_eq!(at(&stored, 5_999), (false, true));
        assert_eq!(at(&stored, 6_000), (false, false));
    }

    #[test]
    fn stale_times_are_independent() {
        // Fresh for 1,000 ms, stale for 4,000, on errors for 1,000.
        let stored = stored(4_000, 1_000, 5_000);
        assert_eq!(at(&stored, 1_999), (true, true));
        assert_eq!(at(&stored, 2_000), (true, false));
        assert_eq!(at(&stored, 4_999), (true, false));
        assert_eq!(at(&stored, 5_000), (false, false));
    }

    fn shape_entry_of(stored: &StoredEntry, of: Version) -> StoredEntry {
        let mut own = stored.clone();
        own.times.base = Some(of);
        own
    }

    #[test]
    fn shape_entry_belongs_to_one_version_of_its_base_entry() {
        let entry = stored(0, 0, 1_000);
        let base = BaseEntry::new(b"key", [7; SHAPE_LEN], entry.clone());
        assert!(base.owns(&shape_entry_of(&entry, entry.version)));
        assert!(!base.owns(&entry), "it is no shape entry");
        for (stamp, incarnation) in [(0, 1), (2, 1), (1, 2)] {
            let other = Version::new(stamp, Incarnation(incarnation));
            assert!(!base.owns(&shape_entry_of(&entry, other)), "{other:?}");
        }
        let other = BaseEntry::new(b"key", [8; SHAPE_LEN], entry);
        assert_ne!(base.shape_key, other.shape_key, "each shape has its own");
    }

    /// Returns the times of a shape entry of `fresh_ms` that is stored at `ms`.
    fn limited(base: &BaseEntry, fresh_ms: u64, ms: u64) -> [u64; 4] {
        let mut metadata = Metadata::default();
        (metadata.stale_while_ms, metadata.stale_if_error_ms) = (3_000, 60_000);
        metadata.refresh_ahead_ms = 500;
        let fresh = base.limit(Duration::from_millis(fresh_ms), &mut metadata, READ.plus_ms(ms));
        assert_eq!(metadata.base, Some(base.entry.version));
        let fresh_ms = fresh.as_millis() as u64;
        [fresh_ms, metadata.stale_while_ms, metadata.stale_if_error_ms, metadata.refresh_ahead_ms]
    }

    #[test]
    fn shape_entry_ends_with_its_base_entry() {
        // Fresh for 10 s, stale for 2 s, on errors for 5 s.
        let base = BaseEntry::new(b"key", [0; SHAPE_LEN], stored(2_000, 5_000, 15_000));
        assert!(base.is_kept(READ.plus_ms(9_999)) && !base.is_kept(READ.plus_ms(10_000)));
        // Shorter than the rest of the base entry: its own fresh time; its stale times end with the base.
        assert_eq!(limited(&base, 2_000, 0), [2_000, 3_000, 13_000, 500]);
        // Longer: the rest of the base entry, and it is not refreshed early.
        assert_eq!(limited(&base, 60_000, 0), [10_000, 3_000, 5_000, 0]);
        assert_eq!(limited(&base, 60_000, 8_000), [2_000, 3_000, 5_000, 0]);
        // Nodes accept no lifetime below a second.
        assert_eq!(limited(&base, 60_000, 9_900), [1_000, 3_000, 4_100, 0]);
        assert_eq!(limited(&base, 60_000, 14_500), [1_000, 0, 0, 0]);
    }

    #[test]
    fn entry_without_stale_times_is_servable_until_its_expiry() {
        let stored = stored(0, 0, 1_000);
        assert_eq!(at(&stored, 999), (true, true));
        assert_eq!(at(&stored, 1_000), (false, false));
    }
}
