//! Making room: which part gives way, and the figures by which that is decided without locks.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use super::{
    Store,
    held::Held,
    lock::{LockFamily, Pages},
    part::{Part, Visit},
    slot::Class,
    traces::TRACE_BYTES,
};
use crate::{key::PARTS, time::Instant};

/// The unread entries keep at least this fraction of the budget (1/8).
const UNREAD_FRACTION: u64 = 8;

/// Entries that one write spares because they were used; the next one goes in any case, so that no
/// write pays for all that were read since the last one.
pub const SPARED_MAX: u32 = 128;

/// Marks a class without entries in the table of victims.
const NONE: u64 = u64::MAX;

/// What all parts hold together, and of each part what the choice of a victim needs.
///
/// On cache lines of its own: a read touches none of it.
#[derive(Debug)]
#[repr(align(128))]
pub struct Totals {
    entries: [AtomicU64; 2],
    bytes: [AtomicU64; 2],
    traces: AtomicU64,
    tick: AtomicU32,
    cold_tick: AtomicU32,
    oldest: [[AtomicU64; PARTS]; 2],
    first_due: [AtomicU64; PARTS],
}

impl Default for Totals {
    fn default() -> Self {
        let none = || core::array::from_fn(|_| AtomicU64::new(NONE));
        Self {
            entries: Default::default(),
            bytes: Default::default(),
            traces: AtomicU64::new(0),
            tick: AtomicU32::new(0),
            cold_tick: AtomicU32::new(u32::MAX),
            oldest: [none(), none()],
            first_due: none(),
        }
    }
}

impl Totals {
    /// A number above all before it, but for wrapping around.
    pub fn next_tick(&self) -> u32 {
        self.tick.fetch_add(1, Relaxed)
    }

    /// A number below all before it, for an entry that goes before all others.
    pub fn next_cold_tick(&self) -> u32 {
        self.cold_tick.fetch_sub(1, Relaxed)
    }

    /// Where the counter stands.
    pub fn tick(&self) -> u32 {
        self.tick.load(Relaxed)
    }

    /// Takes over what changed in a part since `before`.
    pub fn settle<P: Pages>(&self, index: usize, before: Held, part: &Part<P>) {
        let after = part.held();
        for class in Class::ALL {
            let at = class as usize;
            shift(&self.entries[at], before.entries[at], after.entries[at]);
            shift(&self.bytes[at], before.bytes[at], after.bytes[at]);
            set(&self.oldest[at][index], part.oldest_tick(class).map_or(NONE, u64::from));
        }
        shift(&self.traces, before.traces, after.traces);
        set(&self.first_due[index], part.first_due());
    }

    /// The part whose first entry of a class stands in its queue for the longest time.
    fn oldest(&self, class: Class) -> Option<usize> {
        let now = self.tick.load(Relaxed);
        let mut best = (0, None);
        for (index, oldest) in self.oldest[class as usize].iter().enumerate() {
            let tick = oldest.load(Relaxed);
            // Ticks wrap around, ages do not (or so late that only the choice suffers).
            let age = now.wrapping_sub(tick as u32);
            if tick != NONE && (best.1.is_none() || age > best.0) {
                best = (age, Some(index));
            }
        }
        best.1
    }

    /// The entries of all parts.
    pub fn count(&self) -> u64 {
        sum(&self.entries)
    }

    fn bytes(&self) -> u64 {
        sum(&self.bytes) + self.traces.load(Relaxed) * TRACE_BYTES
    }
}

impl<L: LockFamily> Store<L> {
    /// Drops entries until the bounds are kept.
    pub(super) fn make_room(&self, now: Instant) {
        let (mut may_be_due, mut spared) = (true, 0);
        while let Some(over) = self.over() {
            may_be_due = may_be_due && self.expire_any(now);
            if may_be_due {
                continue;
            }
            match self.evict_any(over, spared < SPARED_MAX) {
                Visit::Evicted => {}
                Visit::Spared => spared += 1,
                // Somebody else made room.
                Visit::Empty => return,
            }
        }
    }

    /// Panics unless all structures agree, in each part and across them.
    #[cfg(test)]
    pub(super) fn check(&self) {
        use super::lock::Lock;
        let (mut entries, mut bytes, mut traces) = ([0; 2], [0; 2], 0);
        for index in 0..PARTS {
            self.part(index).with(|part| {
                part.check();
                let held = part.held();
                for at in 0..2 {
                    entries[at] += held.entries[at];
                    bytes[at] += held.bytes[at];
                }
                traces += held.traces;
                for class in Class::ALL {
                    let oldest = self.totals.oldest[class as usize][index].load(Relaxed);
                    assert_eq!(oldest, part.oldest_tick(class).map_or(NONE, u64::from));
                }
                assert_eq!(self.totals.first_due[index].load(Relaxed), part.first_due());
            });
        }
        let total = |both: &[AtomicU64; 2]| [both[0].load(Relaxed), both[1].load(Relaxed)];
        assert_eq!((total(&self.totals.entries), total(&self.totals.bytes)), (entries, bytes));
        assert_eq!(self.totals.traces.load(Relaxed), traces);
    }

    /// Drops one expired entry of a part; false when there is none.
    pub(super) fn expire_in(&self, index: usize, now: Instant) -> bool {
        self.change(index, |part| part.expire_one(now))
    }

    /// Which bound is exceeded, if any.
    fn over(&self) -> Option<Over> {
        let entries = self.totals.count();
        if entries > self.capacity.entries_max {
            return Some(Over::Entries);
        }
        // Traces alone cannot be evicted for entries' sake; they have a bound of their own.
        (self.totals.bytes() > self.capacity.bytes_max && entries > 0).then_some(Over::Bytes)
    }

    fn expire_any(&self, now: Instant) -> bool {
        let first_due = &self.totals.first_due;
        let due = |index: &usize| first_due[*index].load(Relaxed) <= now.as_millis();
        (0..PARTS).filter(due).any(|index| self.expire_in(index, now))
    }

    fn evict_any(&self, over: Over, spare: bool) -> Visit {
        let first = self.class_to_evict(over);
        let second = match first {
            Class::Unread => Class::Read,
            Class::Read => Class::Unread,
        };
        match self.evict_from(first, spare) {
            Visit::Empty => self.evict_from(second, spare),
            visit => visit,
        }
    }

    fn class_to_evict(&self, over: Over) -> Class {
        let at = Class::Unread as usize;
        let unread_entries = self.totals.entries[at].load(Relaxed);
        let (unread, budget) = match over {
            Over::Entries => (unread_entries, self.capacity.entries_max),
            Over::Bytes => (self.totals.bytes[at].load(Relaxed), self.capacity.bytes_max),
        };
        // The one entry that was just stored is not the victim.
        if unread_entries > 1 && unread > budget / UNREAD_FRACTION {
            Class::Unread
        } else {
            Class::Read
        }
    }

    /// Visits the first entry of a class over all parts.
    fn evict_from(&self, class: Class, spare: bool) -> Visit {
        let Some(index) = self.totals.oldest(class) else { return Visit::Empty };
        self.change(index, |part| part.evict(class, spare, || self.totals.next_tick()))
    }
}

/// The bound that is exceeded.
#[derive(Clone, Copy, Debug)]
enum Over {
    Entries,
    Bytes,
}

fn sum(both: &[AtomicU64; 2]) -> u64 {
    both[0].load(Relaxed) + both[1].load(Relaxed)
}

fn shift(total: &AtomicU64, before: u64, after: u64) {
    match after.cmp(&before) {
        core::cmp::Ordering::Greater => drop(total.fetch_add(after - before, Relaxed)),
        core::cmp::Ordering::Less => drop(total.fetch_sub(before - after, Relaxed)),
        core::cmp::Ordering::Equal => {}
    }
}

/// Writes only what changes, so that a line that nobody changes stays shared. Whoever calls holds
/// the lock of the part that the figure is of.
fn set(figure: &AtomicU64, value: u64) {
    if figure.load(Relaxed) != value {
        figure.store(value, Relaxed);
    }
}
