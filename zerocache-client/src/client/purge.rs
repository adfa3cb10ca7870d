//! Purges: what is sent, and what the near cache learns of it.

use std::{sync::Arc, time::Duration};

use zerocache_core::{
    client::{WriteResult, WriteRules},
    purge::{PurgeMode, PurgeTarget, TargetId},
    version::Version,
    wire::{Ack, Request, Written},
};
use zerocache_net::clock;

use super::{ZerocacheClient, engine::Engine};
use crate::Error;

/// A purge as it is sent.
#[derive(Clone, Debug)]
pub(crate) struct PurgeRequest {
    pub(crate) target: PurgeTarget,
    pub(crate) mode: PurgeMode,
    pub(crate) hold_ms: u64,
    pub(crate) ack: Ack,
    pub(crate) replayed: Option<Version>,
}

impl ZerocacheClient {
    /// Purges at the nodes and in the near cache.
    pub(crate) async fn raw_purge(
        &self,
        request: PurgeRequest,
        deadline: Option<Duration>,
    ) -> Result<Written, Error> {
        let total_ms = self.total_ms(deadline);
        self.run(move |engine| engine.purge(request, total_ms)).await
    }
}

impl Engine {
    async fn purge(self: Arc<Self>, purge: PurgeRequest, total_ms: u64) -> Result<Written, Error> {
        let PurgeRequest { target, mode, hold_ms, ack, replayed } = purge;
        let (id, key) = (target.id(), target.key(mode));
        self.near_purging(id);
        let write = self.begin(WriteRules::new(key.as_bytes(), None, ack), total_ms);
        let request = || Request::Purge { target: target.clone(), mode, hold_ms, ack, replayed };
        let outcome = self.drive(write, request, None).await;
        let version = match &outcome {
            WriteResult::Written(written) => written.version,
            _ => None,
        };
        let below = version.map(|version| version.stamp() + (hold_ms << Version::COUNTER_BITS));
        self.near_purged(id, below);
        self.write_outcome(&key, outcome)
    }

    fn near_purging(&self, target: TargetId) {
        if let Some(near) = &self.local.near {
            near.near.begin_purge(target);
        }
    }

    fn near_purged(&self, target: TargetId, stamp: Option<u64>) {
        if let Some(near) = &self.local.near {
            near.near.end_purge(target, stamp, clock::mono());
        }
    }
}
