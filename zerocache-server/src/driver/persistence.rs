//! What a node knows, over a stop: writing it when the node leaves, reading it back when nobody has
//! anything.

use std::sync::Arc;

use zerocache_core::{key::SHARDS, node::Input, time::Now};
use zerocache_net::clock;

use super::NodeDriver;
use crate::{
    snapshot::{self, Contents, SnapshotError},
    storage::Storage,
};

impl NodeDriver {
    /// Writes what the node knows to its file, if it has one. What changes meanwhile may be missing.
    pub async fn write_snapshot(self: &Arc<Self>) {
        let Some(file) = self.snapshot.get().cloned() else { return };
        let this = Arc::clone(self);
        let written = tokio::task::spawn_blocking(move || {
            let now = clock::now();
            let node = this.node.lock();
            if !node.has_all_data() {
                drop(node);
                if knows_nothing(&this.storage) {
                    file.put_back();
                }
                return Ok(None);
            }
            let (memory, snapshot) = (node.persisted_state(now), node.status(now));
            drop(node);
            let reckoned = now.wall_ms.saturating_add_signed(snapshot.clock_offset_ms);
            let now = Now { wall_ms: reckoned, ..now };
            let (cluster, retention_ms) =
                (snapshot.cluster.as_str(), snapshot.tombstone_retention_ms);
            let parts = (0..SHARDS).map(|shard| this.storage.export(shard, now));
            snapshot::write(file.path(), Contents { cluster, now, retention_ms, memory, parts })
                .map(Some)
        });
        match written.await {
            Ok(Ok(Some(entries))) => tracing::info!(entries, "snapshot written"),
            Ok(Ok(None)) => tracing::warn!("shut down while warming: no snapshot written"),
            Ok(Err(error)) => tracing::error!(%error, "cannot write snapshot"),
            Err(error) => tracing::error!(%error, "cannot write snapshot"),
        }
    }

    /// Reads what the node knew in an earlier life, beside everything else.
    pub(super) fn read_snapshot(&self) {
        let (Some(this), file) = (self.this.upgrade(), self.snapshot.get().cloned()) else {
            return;
        };
        tokio::task::spawn_blocking(move || {
            let now = clock::now();
            let snapshot = this.snapshot();
            let reckoned = now.wall_ms.saturating_add_signed(snapshot.clock_offset_ms);
            let now = Now { wall_ms: reckoned, ..now };
            let mut entries = 0;
            let memory = file.ok_or(SnapshotError::Missing).and_then(|file| {
                file.read(&snapshot.cluster, now, |known| {
                    entries += known.len();
                    this.input(Input::RestoredItems(known));
                })
            });
            match &memory {
                Ok(_) => tracing::info!(entries, "snapshot loaded"),
                Err(SnapshotError::Missing) => {}
                Err(error) => tracing::warn!(%error, "snapshot not loaded"),
            }
            this.input(Input::RestoreComplete(memory.ok()));
        });
    }
}

/// Whether a node knows nothing: no value, and nothing of a delete.
fn knows_nothing(storage: &Storage) -> bool {
    let stats = storage.stats();
    stats.entries == 0 && stats.tombstones == 0
}
