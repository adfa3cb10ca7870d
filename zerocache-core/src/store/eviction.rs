//! Eviction: the choice of the entry that gives way, and the receiver of evicted entries.

use super::{
    Store,
    backend::Backend,
    shard::EvictionStep,
    slot::{Class, EntryRef},
};
use crate::time::Instant;

/// The unread entries keep at least this fraction of the budget (1/8).
const UNREAD_FRACTION: u64 = 8;

/// The most entries that one write spares because they were used. The next one is evicted in any case, so
/// that no write pays for all entries read since the last one.
pub const SPARED_MAX: u32 = 128;

/// Receives the entries that a store evicts for space.
///
/// Every eviction passes here, and nothing else: entries that expire, are deleted or are replaced do not.
/// The tombstone of the entry is the store's concern.
pub trait EvictionListener {
    /// Receives an entry before its memory is reused.
    ///
    /// The call runs under the lock of a shard, within a write, and must not use the store.
    fn on_eviction(&self, evicted: EvictedEntry<'_>);
}

/// An entry that is being evicted, in place.
#[derive(Clone, Copy, Debug)]
pub struct EvictedEntry<'a> {
    /// The key.
    pub key: &'a [u8],
    /// The value, metadata and version.
    pub entry: EntryRef<'a>,
    /// The remaining lifetime, in milliseconds.
    pub remaining_ms: u64,
}

/// Drops evicted entries.
#[derive(Clone, Copy, Debug, Default)]
pub struct Discard;

impl EvictionListener for Discard {
    #[inline]
    fn on_eviction(&self, _evicted: EvictedEntry<'_>) {}
}

impl<B: Backend> Store<B> {
    /// Drops entries until the bounds hold: expired entries first, then by [class](Class) and age.
    pub(super) fn make_room(&self, now: Instant) {
        let (mut may_have_expired, mut spared) = (true, 0);
        while let Some(bound) = self.exceeded_bound() {
            may_have_expired = may_have_expired && self.expire_any(now);
            if may_have_expired {
                continue;
            }
            match self.evict_any(bound, spared < SPARED_MAX, now) {
                EvictionStep::Evicted => {}
                EvictionStep::Spared => spared += 1,
                // A concurrent call made room.
                EvictionStep::Empty => return,
            }
        }
    }

    /// Drops one expired entry of a shard. Returns false if there is none.
    pub(super) fn expire_in(&self, index: usize, now: Instant) -> bool {
        self.change(index, |shard| shard.expire_one(now))
    }

    fn exceeded_bound(&self) -> Option<Bound> {
        let entries = self.totals.entry_count();
        if entries > self.capacity.entries_max {
            return Some(Bound::Entries);
        }
        // Evicting entries does not shrink tombstones; these have a bound of their own.
        (self.totals.bytes() > self.capacity.bytes_max && entries > 0).then_some(Bound::Bytes)
    }

    fn expire_any(&self, now: Instant) -> bool {
        self.totals.shards_expired_by(now).any(|index| self.expire_in(index, now))
    }

    fn evict_any(&self, bound: Bound, may_spare: bool, now: Instant) -> EvictionStep {
        let first = self.class_to_evict(bound);
        let second = match first {
            Class::Read => Class::Unread,
            _ => Class::Read,
        };
        match self.evict_from(first, may_spare, now) {
            EvictionStep::Empty => self.evict_from(second, may_spare, now),
            step => step,
        }
    }

    fn class_to_evict(&self, bound: Bound) -> Class {
        let unread_entries = self.totals.entries_of(Class::Unread);
        let (unread, budget) = match bound {
            Bound::Entries => (unread_entries, self.capacity.entries_max),
            Bound::Bytes => (self.totals.bytes_of(Class::Unread), self.capacity.bytes_max),
        };
        // An only unread entry was just stored, and is not the victim.
        if unread_entries > 1 && unread > budget / UNREAD_FRACTION {
            Class::Unread
        } else {
            Class::Read
        }
    }

    /// Evicts or spares the oldest entry of a class in all shards.
    fn evict_from(&self, class: Class, may_spare: bool, now: Instant) -> EvictionStep {
        let Some(index) = self.totals.oldest(class) else { return EvictionStep::Empty };
        self.change(index, |shard| {
            if may_spare && shard.spare_oldest(class, || self.totals.next_tick()) {
                return EvictionStep::Spared;
            }
            shard.evict_oldest(class, now, &self.evictions)
        })
    }

    /// Panics unless all structures agree, in each shard and across shards.
    #[cfg(test)]
    pub(super) fn check(&self) {
        use super::{backend::Lock, stats::Usage};
        let mut all = Usage::default();
        for index in 0..crate::key::SHARDS {
            self.shard(index).with(|shard| {
                shard.check();
                self.totals.check_shard(index, shard, &mut all);
            });
        }
        self.totals.check(&all);
    }
}

/// A bound of the store.
#[derive(Clone, Copy, Debug)]
enum Bound {
    Entries,
    Bytes,
}

#[cfg(test)]
mod tests {
    use alloc::{
        boxed::Box,
        string::{String, ToString},
        vec,
        vec::Vec,
    };
    use core::cell::RefCell;

    use super::*;
    use crate::{
        store::{Capacity, tests},
        version::Version,
    };

    /// A single-threaded backend that records what is evicted.
    struct Recording;

    /// Key, value, version and remaining lifetime of each evicted entry.
    #[derive(Debug, Default)]
    struct Evictions(RefCell<Vec<(String, String, Version, u64)>>);

    impl Backend for Recording {
        type Lock<T> = RefCell<T>;
        type Pages = Box<[u8]>;
        type Evictions = Evictions;
    }

    impl EvictionListener for Evictions {
        fn on_eviction(&self, EvictedEntry { key, entry, remaining_ms }: EvictedEntry<'_>) {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).to_string();
            let (key, value) = (text(key), text(entry.value));
            self.0.borrow_mut().push((key, value, entry.version, remaining_ms));
        }
    }

    #[test]
    fn listener_receives_evicted_entries_only() {
        let capacity = Capacity { entries_max: 2, bytes_max: 1 << 20 };
        let store = Store::<Recording>::new(capacity).with_evictions(Evictions::default());
        let version = |n| tests::version(n, 1);
        let put = |name, n| tests::put(name, "v", version(n), 1_000 * n);
        store.apply(&put("expired", 1), tests::at(0));
        store.apply(&put("deleted", 9), tests::at(0));
        store.apply(&tests::delete("deleted", version(10)), tests::at(0));
        store.apply(&put("replaced", 8), tests::at(0));
        store.apply(&put("replaced", 9), tests::at(0));
        store.apply(&put("kept", 7), tests::at(1_500));
        assert_eq!(*store.evictions.0.borrow(), []);
        store.apply(&put("new", 6), tests::at(2_000));
        let evicted = ("replaced".to_string(), "v".to_string(), version(9), 7_000);
        assert_eq!(*store.evictions.0.borrow(), vec![evicted]);
    }
}
