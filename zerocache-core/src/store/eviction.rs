//! Eviction: the order in which entries give way.

use core::str::FromStr;

use super::{Store, backend::Backend, slot::Class};
use crate::time::{Instant, Now};

/// The unread entries keep at least this fraction of the budget (1/20): enough that what is read soon is read in
/// time, and little, because most of them are never read.
pub const UNREAD_FRACTION: u64 = 20;

/// As long as they are few, they keep a larger fraction (1/12): a twentieth of a small store is replaced too soon.
pub const FEW_UNREAD: u64 = 36;
pub const FEW_UNREAD_FRACTION: u64 = 12;

/// The most entries that one write spares because they were used. The next one is evicted in any case, so
/// that no write pays for all entries read since the last one.
pub const SPARED_MAX: u32 = 128;

/// The most steps of the sweep of purged entries that a write takes before it evicts, and the entries that each
/// looks at: some microseconds, and as many shards, of which small ones have few entries.
const PURGE_STEPS_MAX: u32 = 64;
const PURGE_STEP_ENTRIES: usize = 4;

/// The order in which entries are evicted when none has expired.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EvictionPolicy {
    /// Entries that were never read go first, then those that were used least since they were read first. Scans and
    /// loops over many keys do not displace what is read often.
    #[default]
    ScanResistant,
    /// The entry whose last use, a hit or a write, is longest ago. Exact: each hit moves its entry to the end of
    /// the one queue, at a number that all shards draw from.
    Lru,
}

impl EvictionPolicy {
    const ALL: [Self; 2] = [Self::ScanResistant, Self::Lru];

    /// Returns the name of the order, as the configuration has it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ScanResistant => "scan-resistant",
            Self::Lru => "lru",
        }
    }

    /// Returns the class of an entry that was used.
    pub(super) const fn class_of_used(self) -> Class {
        match self {
            Self::ScanResistant => Class::Read,
            Self::Lru => Class::Unread,
        }
    }
}

impl FromStr for EvictionPolicy {
    type Err = UnknownPolicy;

    fn from_str(text: &str) -> Result<Self, UnknownPolicy> {
        Self::ALL.into_iter().find(|policy| policy.as_str() == text).ok_or(UnknownPolicy)
    }
}

/// A text that is not the name of an [`EvictionPolicy`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown order of eviction; use scan-resistant or lru")]
pub struct UnknownPolicy;

/// The position in time of a change of the queues.
#[derive(Clone, Copy, Debug)]
pub struct QueueTime {
    /// The tick of an entry that is put at the end of a queue.
    pub tick: u64,
    /// The generation of ghosts.
    pub generation: u32,
}

/// The result of one step of eviction in a class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EvictionStep {
    /// The oldest entry was dropped.
    Dropped,
    /// The oldest entry was used since it was queued, and moved to the end of the queue.
    Spared,
    /// The class is empty.
    Empty,
}

impl<B: Backend> Store<B> {
    /// Drops entries until the bounds hold: expired ones first, then ones that a purge ended as far as a few looks
    /// find them, then by [class](Class) and age.
    pub(super) fn make_room(&self, now: Now) {
        let (mut may_have_expired, mut purge_steps, mut spared) = (true, PURGE_STEPS_MAX, 0);
        while let Some(bound) = self.exceeded_bound() {
            may_have_expired = may_have_expired && self.expire_any(now.mono);
            if may_have_expired {
                continue;
            }
            // The sweep would drop them a little later.
            if purge_steps > 0 && self.sweep_purged(now, PURGE_STEP_ENTRIES) {
                purge_steps -= 1;
                continue;
            }
            purge_steps = 0;
            match self.evict_any(bound, spared < SPARED_MAX, now.mono) {
                EvictionStep::Dropped => {}
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
        if self.totals.entry_count() > self.capacity.entries_max {
            return Some(Bound::Entries);
        }
        // Evicting entries does not shrink tombstones; these have a bound of their own.
        (self.exceeds_bytes() && self.entry_count() > 0).then_some(Bound::Bytes)
    }

    fn expire_any(&self, now: Instant) -> bool {
        self.totals.shards_expired_by(now).any(|index| self.expire_in(index, now))
    }

    fn evict_any(&self, bound: Bound, may_spare: bool, now: Instant) -> EvictionStep {
        let classes = match self.class_to_evict(bound) {
            Class::Read => [Class::Read, Class::Unread, Class::Disk],
            _ => [Class::Unread, Class::Read, Class::Disk],
        };
        if self.has_disk() && matches!(bound, Bound::Bytes) && self.has_too_many_heads() {
            return self.evict_from(Class::Disk, may_spare, now);
        }
        let steps = classes.into_iter().map(|class| self.evict_from(class, may_spare, now));
        steps.into_iter().find(|step| *step != EvictionStep::Empty).unwrap_or(EvictionStep::Empty)
    }

    fn class_to_evict(&self, bound: Bound) -> Class {
        let unread_entries = self.totals.entries_of(Class::Unread);
        let (unread, budget) = match bound {
            Bound::Entries => (unread_entries, self.capacity.entries_max),
            Bound::Bytes => (self.totals.bytes_of(Class::Unread), self.capacity.bytes_max),
        };
        let fraction =
            if unread_entries <= FEW_UNREAD { FEW_UNREAD_FRACTION } else { UNREAD_FRACTION };
        // An only unread entry was just stored, and is not the victim.
        if unread_entries > 1 && unread > budget / fraction { Class::Unread } else { Class::Read }
    }

    /// Drops or spares the oldest entry of a class in all shards.
    fn evict_from(&self, class: Class, may_spare: bool, now: Instant) -> EvictionStep {
        let Some(index) = self.totals.oldest(class) else { return EvictionStep::Empty };
        self.change(index, |shard| {
            let Some((oldest, slot)) = shard.oldest(class) else { return EvictionStep::Empty };
            if self.purged_from(slot).is_some_and(|end| end <= now) {
                shard.purge(oldest);
                return EvictionStep::Dropped;
            }
            if class == Class::Read && may_spare && shard.spare_oldest(|| self.totals.next_tick()) {
                return EvictionStep::Spared;
            }
            if class != Class::Disk
                && let Some(disk) = self.open()
                && shard.demote(
                    oldest,
                    (self.disk_terms(disk), now),
                    self.totals.next_tick(),
                    |weight| self.may_leave(disk, weight),
                )
            {
                return EvictionStep::Dropped;
            }
            let has_ghost = class == Class::Unread && self.policy == EvictionPolicy::ScanResistant;
            let generation = has_ghost.then(|| self.totals.count_ghost());
            shard.evict(oldest, generation);
            EvictionStep::Dropped
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
