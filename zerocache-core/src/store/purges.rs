//! The purges that a store knows, and the judgement of entries by them.
//!
//! There is no index from targets to entries. Entries are judged where they are read, copied and stored, and
//! a sweep drops the dead ones, so that a purge costs the same however many entries it ends. Almost all
//! judgements end at one comparison, of the entry's version with the latest purge of its kind.

use alloc::{boxed::Box, collections::BTreeMap};
use core::sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Release},
};

use super::{
    Broken, Store,
    backend::{Backend, Lock},
    slot::{Class, SlotRef},
    variant::Breakage,
};
use crate::{
    entry::{Change, Record},
    key::SHARDS,
    metadata::{each_tag_id, stale_ms_of},
    purge::{PurgeMode, PurgeTarget, PurgeValue, TargetId, is_reserved},
    time::{Instant, Now},
    version::Version,
};

/// How much longer than the retention a purge is kept, in milliseconds.
const PURGE_MARGIN_MS: u64 = 60_000;

/// Purges may take this fraction of the byte budget (1/64).
const PURGE_BUDGET_FRACTION: u64 = 64;

/// The number of floors. Targets that share one cost lookups, nothing else.
const FLOORS: usize = 1_024;

/// The purges of one target.
#[derive(Clone, Copy, Debug, Default)]
struct Register {
    hard: Option<Bound>,
    /// With the time of the purge.
    soft: Option<(Bound, Instant)>,
    /// The time from which records that the purges end are refused as too old.
    expires: Instant,
    /// The number of the first sweep that began after the last of the purges.
    swept_by: u64,
}

/// What a purge ends.
#[derive(Clone, Copy, Debug)]
struct Bound {
    /// The version of the purge.
    version: Version,
    purge: PurgeValue,
    /// Writes that begin here at this time or later come after the purge.
    until: Instant,
}

impl Bound {
    /// It ends entries with a lower version than this.
    const fn below(self) -> Version {
        self.purge.judges_below(self.version)
    }
}

impl Register {
    /// Takes in a purge that came at `at`, and is refused as too old from `expires` on. Returns whether it says
    /// something new.
    fn merge(&mut self, mode: PurgeMode, bound: Bound, at: Instant, expires: Instant) -> bool {
        let is_later =
            |known: Option<Bound>| known.is_none_or(|known| known.below() < bound.below());
        let is_new = match mode {
            PurgeMode::Hard => is_later(self.hard),
            PurgeMode::Soft => is_later(self.soft.map(|(soft, _)| soft)),
        };
        match mode {
            PurgeMode::Hard if is_new => self.hard = Some(bound),
            PurgeMode::Soft if is_new => self.soft = Some((bound, at)),
            _ => {}
        }
        self.expires = self.expires.max(expires);
        is_new
    }
}

/// Registers by identity, and the state of the sweep.
#[derive(Debug, Default)]
struct Registers {
    by_id: BTreeMap<TargetId, Register>,
    sweep: Sweep,
    /// A time before which no register expires.
    first_expiry: Option<Instant>,
}

/// The progress of the sweep over all shards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sweep {
    /// The number of the last sweep that began.
    number: u64,
    position: Option<SweepPosition>,
    /// A purge came after the last sweep began.
    is_wanted: bool,
}

/// Where a sweep is: a shard, and the number of its slots left. Shards and slots are taken from the last one
/// on.
pub type SweepPosition = (usize, usize);

/// The latest stamp that the purges of one kind judge.
///
/// Read by every reader and written by purges alone.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Latest {
    any: AtomicU64,
    scopes: AtomicU64,
    everything: AtomicU64,
    /// The highest stamp of a purge itself, whatever it judges.
    purge: AtomicU64,
}

/// The purges of a store.
pub struct Purges<B: Backend> {
    latest: Latest,
    floors: Box<[AtomicU64]>,
    registers: B::Lock<Registers>,
    breakage: Breakage,
}

impl<B: Backend> Default for Purges<B> {
    fn default() -> Self {
        Self {
            latest: Latest::default(),
            floors: (0..FLOORS).map(|_| AtomicU64::new(0)).collect(),
            registers: B::Lock::new(Registers::default()),
            breakage: Breakage::default(),
        }
    }
}

impl<B: Backend> Purges<B> {
    /// Injects a bug, to test that the simulator detects it.
    #[cfg(feature = "variants")]
    pub const fn set_breakage(&mut self, breakage: Breakage) {
        self.breakage = breakage;
    }

    /// Takes in the record of a purge. Records of other keys have no effect.
    pub fn merge(&self, record: &Record, now: Now) {
        let Change::Put { value, expires, .. } = &record.change else { return };
        let Some((target, mode)) = PurgeTarget::of_key(record.key.as_bytes()) else { return };
        let Ok(purge) = PurgeValue::decode(value) else { return };
        let mode = match mode {
            _ if self.breakage.is(Broken::SoftPurgesHard) => PurgeMode::Hard,
            _ if self.breakage.is(Broken::HardPurgesSoft) => PurgeMode::Soft,
            mode => mode,
        };
        let (version, until) = (record.version, now.mono.plus_ms(purge.hold_ms));
        let bound = Bound { version, purge, until };
        let at = expires.minus_ms(purge.life_ms);
        let id = target.id();
        self.registers.with(|Registers { by_id, sweep, first_expiry }| {
            let register = by_id.entry(id).or_default();
            let is_new = register.merge(mode, bound, at, *expires);
            *first_expiry = Some(first_expiry.map_or(*expires, |first| first.min(*expires)));
            if !is_new {
                // Repeated: what it ends was judged.
                return;
            }
            register.swept_by = sweep.number + 1;
            sweep.is_wanted = true;
            self.latest.purge.fetch_max(record.version.stamp(), Release);
            self.raise(&target, id, bound.below().stamp());
        });
    }

    fn raise(&self, target: &PurgeTarget, id: TargetId, stamp: u64) {
        // The floor first: a reader that sees `latest` looks at it.
        self.floor(id).fetch_max(stamp, Release);
        let of_kind = match target {
            PurgeTarget::Everything => Some(&self.latest.everything),
            PurgeTarget::Namespace(_) | PurgeTarget::Function { .. } => Some(&self.latest.scopes),
            PurgeTarget::Tag(_) => None,
        };
        if let Some(latest) = of_kind {
            latest.fetch_max(stamp, Release);
        }
        self.latest.any.fetch_max(stamp, Release);
    }

    fn floor(&self, id: TargetId) -> &AtomicU64 {
        &self.floors[(id.0 >> 32) as usize % FLOORS]
    }

    /// Returns whether an entry of `version` need not be judged further: no purge is as late.
    #[inline]
    pub fn spares(&self, version: Version) -> bool {
        version.stamp() > self.latest.any.load(Acquire)
    }

    /// Returns whether an entry without tags need not be judged further: no purge that names no tag is as late.
    #[inline]
    fn spares_without_tags(&self, version: Version) -> bool {
        let scopes = self.latest.scopes.load(Acquire);
        version.stamp() > self.latest.everything.load(Acquire).max(scopes)
    }

    /// Returns the time from which an entry is not served, if purges say so: the default for one that has ended.
    #[cold]
    fn end_of(&self, version: Version, key: &[u8], metadata: &[u8]) -> Option<Instant> {
        let stamp = version.stamp();
        let mut end: Option<Instant> = None;
        let mut judge = |id: TargetId| {
            if stamp <= self.floor(id).load(Acquire) {
                let by_this = self.end_by(id, version, metadata);
                end = end.into_iter().chain(by_this).min();
            }
        };
        if stamp <= self.latest.everything.load(Acquire) {
            judge(TargetId::EVERYTHING);
        }
        if stamp <= self.latest.scopes.load(Acquire) {
            TargetId::of_key(key).into_iter().flatten().for_each(&mut judge);
        }
        each_tag_id(metadata, judge);
        end
    }

    /// Returns the highest stamp of a purge; 0 if none is known.
    pub fn last_stamp(&self) -> u64 {
        self.latest.purge.load(Acquire)
    }

    fn register(&self, id: TargetId) -> Option<Register> {
        self.registers.with(|registers| registers.by_id.get(&id).copied())
    }

    /// Returns what the purges of one target say.
    fn end_by(&self, id: TargetId, version: Version, metadata: &[u8]) -> Option<Instant> {
        let register = self.register(id)?;
        if register.hard.is_some_and(|hard| version < hard.below()) {
            return Some(Instant::default());
        }
        let (_, at) = register.soft.filter(|(soft, _)| version < soft.below())?;
        Some(at.plus_ms(stale_ms_of(metadata)))
    }

    /// Raises the version of a write that begins at `begun` above the purges that were applied before, and hold no
    /// longer.
    pub fn raise_above(&self, record: &mut Record, begun: Instant) {
        let Change::Put { metadata, .. } = &record.change else { return };
        if self.spares(record.version) {
            return;
        }
        let mut stamp = record.version.stamp();
        TargetId::each(record.key.as_bytes(), metadata, |id| {
            if stamp > self.floor(id).load(Acquire) {
                return;
            }
            let Some(Register { hard, soft, .. }) = self.register(id) else { return };
            let bounds = hard.into_iter().chain(soft.map(|(bound, _)| bound));
            let before = bounds.filter(|bound| bound.until <= begun);
            stamp = before.fold(stamp, |stamp, bound| stamp.max(bound.below().stamp() + 1));
        });
        record.version = Version::new(stamp, record.version.incarnation());
    }

    /// Returns whether purges end a record that is about to be stored at `now`.
    pub fn ends(&self, record: &Record, now: Now) -> bool {
        let Change::Put { metadata, .. } = &record.change else { return false };
        let (key, version) = (record.key.as_bytes(), record.version);
        let is_spared = self.spares(version) || is_reserved(key);
        !is_spared && self.end_of(version, key, metadata).is_some_and(|end| end <= now.mono)
    }

    /// Returns where the sweep is. Begins one if there are new purges, or some whose time is over, which are
    /// forgotten after it.
    pub fn sweep_position(&self, now: Now) -> Option<SweepPosition> {
        if self.latest.any.load(Acquire) == 0 {
            return None;
        }
        self.registers.with(|Registers { sweep, first_expiry, .. }| {
            let is_due = sweep.is_wanted || first_expiry.is_some_and(|first| first <= now.mono);
            if sweep.position.is_none() && is_due {
                sweep.is_wanted = false;
                sweep.number += 1;
                sweep.position = Some((SHARDS - 1, usize::MAX));
            }
            sweep.position
        })
    }

    /// Notes where the sweep continues. After its end, purges that can end nothing any more are forgotten: their
    /// time is over, and what was here when they came was judged.
    pub fn note_swept(&self, position: Option<SweepPosition>, now: Now) {
        self.registers.with(|Registers { by_id, sweep, first_expiry }| {
            sweep.position = position;
            // Readers of older entries wait for this lock.
            let is_early = self.breakage.is(Broken::PurgesForgotten);
            let is_due = is_early || first_expiry.is_some_and(|first| first <= now.mono);
            if position.is_some() || !is_due {
                return;
            }
            by_id.retain(|_, register| {
                let is_swept = register.swept_by <= sweep.number;
                !is_swept || register.expires > now.mono && !is_early
            });
            *first_expiry = by_id.values().map(|register| register.expires).min();
            if by_id.is_empty() {
                self.floors.iter().for_each(|floor| floor.store(0, Release));
                let Latest { any, scopes, everything, purge } = &self.latest;
                for latest in [any, scopes, everything, purge] {
                    latest.store(0, Release);
                }
            }
        });
    }

    /// Ends the time of the purges with this key: they are forgotten after the next sweep.
    pub fn shed(&self, key: &[u8], now: Now) {
        let Some((target, _)) = PurgeTarget::of_key(key) else { return };
        self.registers.with(|Registers { by_id, first_expiry, .. }| {
            if let Some(register) = by_id.get_mut(&target.id()) {
                register.expires = register.expires.min(now.mono);
                *first_expiry = Some(now.mono);
            }
        });
    }

    /// Moves the versions that are `wrong`, as those of entries.
    pub fn restamp(&self, wrong: impl Fn(Version) -> bool, by_ms: i64) {
        let restamped = |bound: Bound| match wrong(bound.version) {
            true => Bound { version: bound.version.restamped(by_ms), ..bound },
            false => bound,
        };
        // What a wrong clock stamped says nothing of later computations.
        self.latest.purge.store(0, Release);
        self.registers.with(|Registers { by_id, .. }| {
            for (id, register) in by_id {
                register.hard = register.hard.map(restamped);
                register.soft = register.soft.map(|(bound, at)| (restamped(bound), at));
                let hard = register.hard.map_or(0, |bound| bound.below().stamp());
                let stamp = register.soft.map_or(0, |(bound, _)| bound.below().stamp()).max(hard);
                self.floor(*id).fetch_max(stamp, Release);
                self.latest.everything.fetch_max(stamp, Release);
                self.latest.scopes.fetch_max(stamp, Release);
                self.latest.any.fetch_max(stamp, Release);
            }
        });
    }

    /// Returns the number of targets with purges.
    pub fn len(&self) -> usize {
        self.registers.with(|registers| registers.by_id.len())
    }
}

impl<B: Backend> Store<B> {
    /// Returns the time from which an entry is not served, if purges say so: the default for one that has ended.
    #[inline]
    pub(super) fn purged_from(&self, slot: SlotRef<'_, B::Pages>) -> Option<Instant> {
        // A purge of everything would end other purges, which say something else.
        let (version, purges) = (slot.version, &self.purges);
        if purges.spares(version) || slot.class == Class::Reserved {
            return None;
        }
        let metadata = slot.metadata();
        if metadata.is_empty() && purges.spares_without_tags(version) {
            return None;
        }
        purges.end_of(version, slot.key(), metadata)
    }

    /// Returns whether an entry has not expired, and no purge ended it.
    pub(super) fn is_served(&self, slot: SlotRef<'_, B::Pages>, now: Now) -> bool {
        !slot.is_expired(now.mono) && self.purged_from(slot).is_none_or(|end| end > now.mono)
    }

    /// The same, of an entry that another node asks for; all that has not expired with this bug.
    pub(super) fn is_given(&self, slot: SlotRef<'_, B::Pages>, now: Now, without: Broken) -> bool {
        self.is_served(slot, now) || self.is_broken(without) && !slot.is_expired(now.mono)
    }

    /// Raises the version of a write that begins at `begun` above the purges that were applied before, and hold no
    /// longer.
    pub(crate) fn raise_above_purges(&self, record: &mut Record, begun: Instant) {
        self.purges.raise_above(record, begun);
    }

    /// Returns whether a purge ends this record.
    pub(crate) fn is_purged(&self, record: &Record, now: Now) -> bool {
        self.purges.ends(record, now)
    }

    /// Takes in a record that may be a purge, and drops the oldest purges above the bound.
    pub(super) fn note_purge(&self, record: &Record, now: Now) {
        if !is_reserved(record.key.as_bytes()) {
            return;
        }
        self.purges.merge(record, now);
        self.keep_on_disk(record);
        while self.totals.bytes_of(Class::Reserved) > 2 * self.purge_bytes_max()
            && self.shed_purge(now)
        {}
    }

    /// Drops the oldest purge. What it would end cannot arrive any more: records that old are refused for keys
    /// of which nothing is known.
    fn shed_purge(&self, now: Now) -> bool {
        let Some(index) = self.totals.oldest(Class::Reserved) else { return false };
        let stamp = self.change(index, |shard| {
            if let Some(key) = shard.oldest_key(Class::Reserved) {
                self.purges.shed(key, now);
            }
            shard.drop_oldest(Class::Reserved).map(Version::wall_ms)
        });
        if let Some(wall_ms) = stamp {
            self.raise_retention_floor(wall_ms);
        }
        stamp.is_some()
    }

    /// Returns the most bytes of purges that the node accepts from clients.
    fn purge_bytes_max(&self) -> u64 {
        self.capacity().bytes_max / PURGE_BUDGET_FRACTION
    }

    /// Returns whether the purges fill their share of the budget, so that the node accepts no further one.
    #[must_use]
    pub fn has_no_room_for_purges(&self) -> bool {
        self.totals.bytes_of(Class::Reserved) >= self.purge_bytes_max()
    }

    /// Returns how long a purge is kept, in milliseconds: the retention, and what clocks and holds may differ
    /// by.
    #[must_use]
    pub fn purge_life_ms(&self) -> u64 {
        self.retention_ms + PURGE_MARGIN_MS
    }

    /// Continues the sweep of purged entries: looks at up to `most` entries of one shard. Returns whether
    /// there is more to do.
    pub fn sweep_purged(&self, now: Now, most: usize) -> bool {
        let Some((index, left)) = self.purges.sweep_position(now) else { return false };
        let left = self.change(index, |shard| {
            let end = left.min(shard.entry_count());
            let from = end.saturating_sub(most);
            let purged_from = |slot: SlotRef<'_, B::Pages>| self.purged_from(slot);
            shard.sweep_purged(from as u32..end as u32, now.mono, purged_from);
            from
        });
        let position = match (left, index.checked_sub(1)) {
            (0, None) => None,
            (0, Some(next)) => Some((next, usize::MAX)),
            (left, _) => Some((index, left)),
        };
        self.purges.note_swept(position, now);
        true
    }
}
