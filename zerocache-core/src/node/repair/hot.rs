//! Values of keys that are read much, at nodes that do not own them.
//!
//! A node that passes on many reads of a key keeps the value that an owner gives, and answers by itself for a while: the
//! reads of one key then spread over as many nodes as clients ask. Every node of a region learns of every version and
//! every purge, so that such a value is no older than one at an owner. It is a guest as any other, and offered to all owners,
//! one of which may lack it; but it is dropped only when its time is over.

use alloc::collections::BTreeMap;

use crate::{
    entry::Record, hot_keys::HotKeys, key::KeyHash, node::local::Context, store::Backend,
    time::Instant,
};

/// The most values that are kept at a time.
const KEPT_MAX: usize = 64;

/// The most that they take, as a fraction of the byte budget (1/16).
const KEPT_FRACTION: u64 = 16;

/// How long a value is kept, in milliseconds.
const KEPT_MS: u64 = 60_000;

/// Reads count for once or twice this time, in milliseconds.
const HALVED_MS: u64 = 4_000;

/// The reads that were passed on and found something, and the values that are kept because of them.
#[derive(Debug)]
pub(super) struct HotGuests {
    reads: HotKeys,
    kept: BTreeMap<KeyHash, Kept>,
}

/// A value that is kept.
#[derive(Clone, Copy, Debug)]
struct Kept {
    until: Instant,
    bytes: u64,
}

impl Default for HotGuests {
    fn default() -> Self {
        let reads = HotKeys::new(Instant::from_millis(0), false).halved_every(HALVED_MS);
        Self { reads, kept: BTreeMap::new() }
    }
}

impl HotGuests {
    /// The number of values that are kept.
    pub(super) fn len(&self) -> usize {
        self.kept.len()
    }

    /// Whether a value is kept now.
    pub(super) fn keeps(&self, key: KeyHash) -> bool {
        self.kept.contains_key(&key)
    }

    /// Counts a read that was passed on, and keeps what an owner gave if there are many of its key. Returns whether it does.
    pub(super) fn keep<B: Backend>(&mut self, cx: &mut Context<'_, B>, record: Record) -> bool {
        let (now, key, version) = (cx.now.mono, record.key.hash(), record.version);
        self.reads.record(key, &[], now);
        let least = f64::from(cx.local.config.hot_forwards_per_s);
        let is_current = cx.local.readiness.read_policy().values_are_current;
        let bytes = record.payload_bytes() as u64;
        if self.reads.reads_per_s(key, now) < least || !is_current || !self.has_room(cx, key, bytes)
        {
            return false;
        }
        cx.replica.keep(cx.now, record);
        let store = &cx.replica.store;
        let is_kept = store.version(key) == Some(version) && store.has_value(key);
        if is_kept {
            self.kept.insert(key, Kept { until: now.plus_ms(KEPT_MS), bytes });
        }
        is_kept
    }

    /// Whether a value of this size may be kept beside those of other keys.
    fn has_room<B: Backend>(&self, cx: &Context<'_, B>, key: KeyHash, bytes: u64) -> bool {
        let others = || self.kept.iter().filter(|(other, _)| **other != key);
        let taken: u64 = others().map(|(_, kept)| kept.bytes).sum();
        let most = cx.local.config.info.bytes_max / KEPT_FRACTION;
        others().count() < KEPT_MAX && taken + bytes <= most
    }

    /// Takes one of the keys whose values have been kept for long enough.
    pub(super) fn take_over(&mut self, now: Instant) -> Option<KeyHash> {
        let (key, _) = self.kept.iter().find(|(_, kept)| kept.until <= now)?;
        let key = *key;
        self.kept.remove(&key);
        Some(key)
    }

    /// When the first of them has been.
    pub(super) fn next_over(&self) -> Option<Instant> {
        self.kept.values().map(|kept| kept.until).min()
    }
}
