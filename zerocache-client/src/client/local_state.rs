//! What a memoized call needs of its client before any I/O.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use zerocache_core::client::FillPermit;
use zerocache_net::clock;

use super::{
    ZerocacheClient,
    config::{Apart, Config},
    millis, offline,
    sharing::Sharing,
};
use crate::{
    codec::Codec,
    counters::{MemoCounters, MemoStats, Striped},
    near::{Near, NearEntry, NearStats},
};

/// The part of a client that a call may hold on to without keeping the client alive.
pub(crate) struct LocalState {
    pub(crate) namespace: String,
    /// The codec in which typed values are written.
    pub(super) codec: Codec,
    pub(crate) memo: MemoCounters,
    /// None where the near cache is switched off.
    pub(crate) near: Option<NearUse>,
}

/// The near cache as one client uses it.
pub(crate) struct NearUse {
    pub(crate) near: Arc<Near>,
    /// With whom.
    pub(super) sharing: Arc<Sharing>,
    age_max_ms: u64,
    /// How long memoized calls serve entries while no node answers, unless they say another time.
    outage_ms: u64,
    /// Reads of this client that found something, without those of memoized calls.
    pub(crate) hits: Striped,
    /// Looks of this client that found nothing.
    misses: Striped,
    /// This client has looked while nothing was followed.
    wanted: AtomicBool,
    /// Nodes do not tell this client of changes.
    forbidden: AtomicBool,
}

impl LocalState {
    /// `credentials` is the number of the client's credentials.
    pub(super) fn of(config: &Config, credentials: u64) -> Arc<Self> {
        let age_max_ms = millis(config.near.age_max);
        // What one client without a network has, no other one has.
        let number = if config.offline { offline::number() } else { 0 };
        let apart = Apart { number, credentials };
        let near_use = |near| NearUse {
            sharing: Sharing::of(&near, &config.cluster),
            near,
            age_max_ms,
            outage_ms: millis(config.near.outage),
            hits: Striped::default(),
            misses: Striped::default(),
            wanted: AtomicBool::new(false),
            forbidden: AtomicBool::new(false),
        };
        let local = Arc::new(Self {
            namespace: config.namespace.clone(),
            codec: config.codec,
            memo: MemoCounters::new(config.flight_group(apart)),
            near: config.near(apart).map(near_use),
        });
        if let Some(near) = &local.near {
            near.sharing.join(&local);
        }
        local
    }

    /// Looks into the near cache.
    pub(super) fn near_uses(&self) -> u64 {
        let near = |near: &NearUse| near.hits.sum().wrapping_add(near.misses.sum());
        self.near.as_ref().map_or(0, near).wrapping_add(self.memo.near_hits.sum())
    }

    /// That of a client that cannot work.
    pub(super) fn broken() -> Self {
        let (namespace, codec) = (String::new(), Codec::default());
        Self { namespace, codec, memo: MemoCounters::new(0), near: None }
    }
}

impl ZerocacheClient {
    /// Counts of this client's memoized calls.
    pub fn memo_stats(&self) -> MemoStats {
        self.memo_counters().snapshot()
    }

    /// Sets how long a memoized call of this client waits for another call's computation of the
    /// same key; 10 seconds unless set, to the millisecond. With a lease it waits longer by the time
    /// for which that other call may wait for another process.
    ///
    /// Then one of those who have waited for so long computes too, and one more each time that it has
    /// passed again; all get what is done first. After 30 times as long a call computes in any case.
    pub fn set_memo_wait(&self, wait: Duration) {
        self.memo_counters().set_flight_wait(wait);
    }

    /// What has become of the near cache; nothing where it is switched off.
    #[must_use]
    pub fn near_stats(&self) -> NearStats {
        let local = self.local_state();
        local.near.as_ref().map(|near| near.stats(&local.memo)).unwrap_or_default()
    }
}

impl NearUse {
    /// What has become of it, with the hits of memoized calls.
    pub(super) fn stats(&self, memo: &MemoCounters) -> NearStats {
        let hits = self.hits.sum() + memo.near_hits.sum();
        NearStats { hits, misses: self.misses.sum(), ..self.near.stats() }
    }

    /// What `use_it` makes of the entry of `key`, whose hash this is, if it may be served near: to
    /// somebody who wants nothing that is `age` old, or as old as the client allows. The caller counts
    /// it.
    #[inline]
    pub(crate) fn with<R>(
        &self,
        (hash, key): (u64, &[u8]),
        age: Option<Duration>,
        use_it: impl Fn(&NearEntry) -> R,
    ) -> Option<R> {
        let age_max_ms = age.map_or(self.age_max_ms, |age| millis(age).min(self.age_max_ms));
        self.near.with((hash, key), age_max_ms, clock::coarse(), use_it)
    }

    /// Returns how long entries are served while no node answers, to a call that says `own_ms`, or 0 for nothing; 0 for
    /// not at all.
    pub(crate) fn outage_ms(&self, own_ms: u64) -> u64 {
        let outage_ms = if own_ms > 0 { own_ms } else { self.outage_ms };
        self.near.want_outage(outage_ms);
        outage_ms
    }

    /// Runs `use_it` with the entry of `key`, if it may be served to a call that allows such an outage. No node answers.
    pub(crate) fn in_outage<R>(
        &self,
        key: &[u8],
        outage_ms: u64,
        use_it: impl Fn(&NearEntry) -> R,
    ) -> Option<R> {
        self.near.in_outage(key, outage_ms, clock::mono(), use_it)
    }

    /// A read or write begins, because nothing that may be served is near:
    /// what it brings may be kept.
    pub(super) fn begin(&self) -> Option<FillPermit> {
        self.misses.count();
        let begun = self.near.begin_fill(clock::mono());
        if begun.is_none() {
            self.wanted.store(true, Relaxed);
        }
        begun
    }

    /// Whether changes should be followed for this client.
    pub(super) fn is_wanted(&self) -> bool {
        self.wanted.load(Relaxed) && !self.forbidden.load(Relaxed)
    }

    /// Changes are not followed for this client.
    pub(super) fn forbid(&self) {
        self.forbidden.store(true, Relaxed);
    }

    /// Changes may be followed again, as far as this client knows: it has other credentials.
    pub(super) fn permit(&self) {
        self.forbidden.store(false, Relaxed);
    }

    /// Changes need not be followed before the next look.
    pub(super) fn rest(&self) {
        self.wanted.store(false, Relaxed);
    }
}
