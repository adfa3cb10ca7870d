//! The read path: every read of an entry, whichever protocol asks, goes through [`EntryReader`].
//!
//! Reads take one lock of the store and never the lock of the node.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::RwLock;
use zerocache_core::{
    cluster::Placement,
    key::{Key, KeyHash},
    node::{PAUSE_MS_MAX, ReadPolicy},
    store::{EntryRef, Lookup},
    time::{Instant, Now},
    version::Incarnation,
    wire::Response,
};
use zerocache_net::clock;

use crate::{
    hot_keys::HotKeyTracker,
    sampling::{self, ReadSample},
    storage::Storage,
    telemetry::{RequestMetrics, TimedOperation},
};

/// Reads entries on behalf of all protocols.
pub struct EntryReader {
    storage: Arc<Storage>,
    misses_are_authoritative: AtomicBool,
    values_are_current: AtomicBool,
    /// The time of the node's last input, on the monotonic clock in milliseconds.
    handled_ms: AtomicU64,
    /// The number of the placement in force; 0 where every node keeps everything.
    placement_id: AtomicU64,
    placement: RwLock<(Incarnation, Placement)>,
    request_metrics: Arc<RequestMetrics>,
    hot_keys: Arc<HotKeyTracker>,
}

/// The moment of one or several reads, and what the node may answer at that moment.
#[derive(Clone, Copy, Debug)]
pub struct ReadContext {
    /// The moment of the reads.
    pub now: Now,
    policy: ReadPolicy,
    /// The same moment, for measurements.
    begun: Duration,
}

impl ReadContext {
    /// Returns whether a miss means that no node of the region has the key.
    #[must_use]
    pub fn misses_are_authoritative(&self) -> bool {
        self.policy.is_miss_authoritative()
    }

    /// Returns the result of a read as a message of the protocol.
    #[must_use]
    pub fn response(&self, lookup: Lookup) -> Response {
        self.policy.response(lookup, self.now)
    }
}

impl EntryReader {
    /// Creates a reader of `storage`. It serves values; its misses are authoritative only after
    /// [`set_policy`](Self::set_policy).
    pub(crate) fn new(
        own: Incarnation,
        storage: Arc<Storage>,
        (request_metrics, hot_keys): (Arc<RequestMetrics>, Arc<HotKeyTracker>),
    ) -> Self {
        Self {
            storage,
            misses_are_authoritative: AtomicBool::new(false),
            values_are_current: AtomicBool::new(true),
            handled_ms: AtomicU64::new(clock::mono().as_millis()),
            placement_id: AtomicU64::new(0),
            placement: RwLock::new((own, Placement::everyone())),
            request_metrics,
            hot_keys,
        }
    }

    /// Stores what reads may answer from now on. Called under the lock of the node, so that no older
    /// policy replaces a newer one.
    pub(crate) fn set_policy(&self, policy: ReadPolicy) {
        self.handled_ms.store(clock::mono().as_millis(), Ordering::Relaxed);
        self.misses_are_authoritative.store(policy.misses_are_authoritative, Ordering::Relaxed);
        self.values_are_current.store(policy.values_are_current, Ordering::Relaxed);
    }

    /// Stores who keeps which values from now on. Called under the lock of the node, as [`set_policy`](Self::set_policy).
    pub(crate) fn set_placement(&self, placement: &Placement) {
        let id = if placement.is_everyone() { 0 } else { placement.id() };
        if self.placement_id.load(Ordering::Relaxed) != id {
            self.placement.write().1 = placement.clone();
            self.placement_id.store(id, Ordering::Relaxed);
        }
    }

    /// Returns whether there are keys that other nodes own.
    #[must_use]
    pub fn has_witnesses(&self) -> bool {
        self.placement_id.load(Ordering::Relaxed) != 0
    }

    /// Returns whether other nodes own this key, so that a miss here says nothing.
    #[inline]
    #[must_use]
    pub fn is_witness(&self, key: &[u8]) -> bool {
        self.has_witnesses() && !self.keeps(key)
    }

    #[cold]
    fn keeps(&self, key: &[u8]) -> bool {
        let placement = self.placement.read();
        placement.1.keeps(placement.0, KeyHash::of(key))
    }

    /// Returns the context of reads at this moment.
    #[must_use]
    pub fn context(&self) -> ReadContext {
        // Not the coarse clock: its delay would be added to the remaining lifetime.
        let (now, begun) = (clock::now(), clock::elapsed());
        ReadContext { now, policy: self.policy(clock::instant(begun)), begun }
    }

    fn policy(&self, now: Instant) -> ReadPolicy {
        let handled = Instant::from_millis(self.handled_ms.load(Ordering::Relaxed));
        if now.since_ms(handled) > PAUSE_MS_MAX {
            // The process was suspended, and the node does not know yet that it missed changes.
            return ReadPolicy::default();
        }
        ReadPolicy {
            misses_are_authoritative: self.misses_are_authoritative.load(Ordering::Relaxed),
            values_are_current: self.values_are_current.load(Ordering::Relaxed),
        }
    }

    /// Runs `lookup` on the store if the context allows values: no read reaches the store otherwise.
    fn lookup<R>(
        &self,
        context: ReadContext,
        lookup: impl FnOnce(&Storage, Now) -> Lookup<R>,
    ) -> Lookup<R> {
        if context.policy.values_are_current {
            lookup(&self.storage, context.now)
        } else {
            Lookup::Miss { known: 0 }
        }
    }

    /// Prepares a read of the key with this hash that comes after some others.
    #[inline]
    pub fn prefetch_slot(&self, hash: KeyHash) {
        self.storage.prefetch_slot(hash);
    }

    /// Prepares it further, when it is one of the next.
    #[inline]
    pub fn prefetch_block(&self, hash: KeyHash) {
        self.storage.prefetch_block(hash);
    }

    /// Reads a key in place. A hit counts as a use of the entry. `on_hit` runs under a lock of the store
    /// and must not use the store.
    pub fn read<R>(
        &self,
        key: &[u8],
        context: ReadContext,
        on_hit: impl FnOnce(EntryRef<'_>) -> R,
    ) -> Lookup<R> {
        match sampling::count_read() {
            None => self.lookup(context, |storage, now| storage.read(key, now, on_hit)),
            Some(sample) => self.measured_read(sample, key, context, on_hit),
        }
    }

    /// Reads a key as [`read`](Self::read) does, and measures that.
    #[cold]
    #[inline(never)]
    fn measured_read<R>(
        &self,
        sample: ReadSample,
        key: &[u8],
        context: ReadContext,
        on_hit: impl FnOnce(EntryRef<'_>) -> R,
    ) -> Lookup<R> {
        let mut bytes = None;
        let lookup = self.lookup(context, |storage, now| {
            storage.read(key, now, |entry| {
                bytes = Some(entry.value.len());
                on_hit(entry)
            })
        });
        if sample.is_rare() {
            let micros = clock::elapsed().saturating_sub(context.begun).as_micros() as u64;
            let durations = self.request_metrics.duration(TimedOperation::Get);
            durations.record(micros, ReadSample::RARE_WEIGHT);
            if let Some(bytes) = bytes {
                self.request_metrics.record_out(bytes, ReadSample::RARE_WEIGHT);
            }
        }
        self.hot_keys.record(key, context.now.mono);
        lookup
    }

    /// Reads a key. A hit counts as a use of the entry.
    #[must_use]
    pub fn get(&self, key: &Key, context: ReadContext) -> Lookup {
        self.read(key.as_bytes(), context, |entry| entry.to_entry())
    }

    /// Reads a key without counting a read or a use.
    #[must_use]
    pub fn peek(&self, key: &Key, context: ReadContext) -> Lookup {
        self.lookup(context, |storage, now| storage.peek(key, now))
    }
}
