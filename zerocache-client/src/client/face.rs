//! What a memoized call needs of its client before any I/O.

use std::{sync::Arc, time::Duration};

use zerocache_net::clock;

use super::config::Config;
use crate::{
    memo::MemoCounters,
    near::{Held, Near, Striped},
};

/// The part of a client that a call may hold on to without keeping the client alive.
pub(crate) struct Face {
    pub(crate) namespace: String,
    pub(crate) memo: MemoCounters,
    /// None where the near cache is switched off.
    pub(crate) near: Option<NearUse>,
}

/// The near cache as one client uses it.
pub(crate) struct NearUse {
    pub(crate) near: Arc<Near>,
    age_max_ms: u64,
    /// Reads of this client that found something, without those of memoized calls.
    pub(crate) hits: Striped,
}

impl Face {
    pub(super) fn of(config: &Config) -> Self {
        let age_max_ms = millis(config.near.age_max);
        let near_use = |near| NearUse { near, age_max_ms, hits: Striped::default() };
        Self {
            namespace: config.namespace.clone(),
            memo: MemoCounters::new(config.flight_group()),
            near: config.near().map(near_use),
        }
    }

    /// That of a client that cannot work.
    pub(super) fn broken() -> Self {
        Self { namespace: String::new(), memo: MemoCounters::new(0), near: None }
    }
}

impl NearUse {
    /// The entry of `key`, whose hash this is, if it may be served near: to somebody who wants nothing
    /// that is `age` old, or as old as the client allows. The caller counts it.
    #[inline]
    pub(crate) fn look(&self, hash: u64, key: &[u8], age: Option<Duration>) -> Option<Arc<Held>> {
        let age_max_ms = age.map_or(self.age_max_ms, |age| millis(age).min(self.age_max_ms));
        self.near.look(hash, key, age_max_ms, clock::coarse())
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
