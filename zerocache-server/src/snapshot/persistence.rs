//! Saves the state of a node at its shutdown, and loads it when the node asks for it.

use std::sync::Arc;

use zerocache_core::{key::SHARDS, node::Input, time::Now, wire::NodeState};
use zerocache_net::clock;

use super::{Contents, SnapshotError, SnapshotFile, write};
use crate::{driver::NodeDriver, storage::Storage};

/// Saves the state of a node to its file. Changes that are made meanwhile may be missing.
pub async fn save(file: Arc<SnapshotFile>, driver: Arc<NodeDriver>) {
    match tokio::task::spawn_blocking(move || save_blocking(&file, &driver)).await {
        Ok(Ok(Some(entries))) => tracing::info!(entries, "snapshot written"),
        Ok(Ok(None)) => tracing::warn!("shut down while warming: no snapshot written"),
        Ok(Err(error)) => tracing::error!(%error, "cannot write snapshot"),
        Err(error) => tracing::error!(%error, "cannot write snapshot"),
    }
}

fn save_blocking(file: &SnapshotFile, driver: &NodeDriver) -> Result<Option<u64>, SnapshotError> {
    let now = clock::now();
    let Some((state, status)) = driver.persisted_state(now) else {
        if is_empty(driver.storage()) {
            file.put_back();
        }
        return Ok(None);
    };
    let now = corrected(now, status.clock_offset_ms);
    let shards = (0..SHARDS).map(|shard| driver.storage().export(shard, now));
    let (cluster, retention_ms) = (status.cluster.as_str(), status.tombstone_retention_ms);
    write(file.path(), Contents { cluster, now, retention_ms, state, shards }).map(Some)
}

/// Loads the snapshot when the node asks for it, or says that it did not. Otherwise ends only when dropped.
pub async fn load_on_request(file: Arc<SnapshotFile>, driver: Arc<NodeDriver>) {
    let mut state = driver.watch_state();
    loop {
        tokio::select! {
            () = driver.restore_requested() => {}
            Ok(_) = state.wait_for(|state| *state == NodeState::InSync), if file.is_taken() => {
                tracing::warn!(
                    "snapshot not used: the node was in sync before it knew its peers; see --warm-max"
                );
                return;
            }
        }
        let (file, at) = (Arc::clone(&file), Arc::clone(&driver));
        if let Err(error) = tokio::task::spawn_blocking(move || load(&file, &at)).await {
            tracing::error!(%error, "snapshot not loaded");
            driver.input(Input::RestoreComplete(None));
        }
    }
}

fn load(file: &SnapshotFile, driver: &NodeDriver) {
    let now = clock::now();
    let status = driver.status();
    let mut entries = 0;
    let state = file.read(&status.cluster, corrected(now, status.clock_offset_ms), |items| {
        entries += items.len();
        driver.input(Input::RestoredItems(items));
    });
    match &state {
        Ok(_) => tracing::info!(entries, "snapshot loaded"),
        Err(SnapshotError::Missing) => {}
        Err(error) => {
            let path = file.path().display();
            tracing::warn!(%error, %path, "snapshot not loaded");
        }
    }
    driver.input(Input::RestoreComplete(state.ok()));
}

/// Returns `now` by the time that the nodes of the cluster agree on.
pub fn corrected(now: Now, offset_ms: i64) -> Now {
    Now { wall_ms: now.wall_ms.saturating_add_signed(offset_ms), ..now }
}

/// Returns whether a node has neither values nor tombstones.
fn is_empty(storage: &Storage) -> bool {
    let stats = storage.stats();
    stats.entries == 0 && stats.tombstones == 0
}
