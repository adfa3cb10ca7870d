//! What an earlier process wrote, taken in when the node asks for it.

use std::sync::Arc;

use zerocache_core::{
    node::{Input, PersistedState},
    time::Now,
};
use zerocache_disk::{OpenError, RecoveredLog, SystemDirectory};

use super::{DiskTier, Readers, writer};
use crate::{
    driver::NodeDriver,
    snapshot::{self, SnapshotError},
};

impl DiskTier {
    /// Opens the log and takes in what is in it, if the node `asked` for that; otherwise empties it. Blocks.
    pub(super) fn open(self: &Arc<Self>, driver: &Arc<NodeDriver>, asked: bool) {
        let Some(directory) = self.directory.lock().take() else { return };
        match self.recover(directory, driver, asked) {
            Ok(()) => {}
            Err(error) => {
                let path = self.config.path.display();
                tracing::error!(%error, %path, "disk not used: cannot open it");
            }
        }
    }

    fn recover(
        self: &Arc<Self>,
        directory: SystemDirectory,
        driver: &Arc<NodeDriver>,
        asked: bool,
    ) -> Result<(), OpenError> {
        let now = driver.cluster_time();
        let cluster = driver.cluster().to_owned();
        let state = read_state(&directory, &cluster, now).filter(|_| asked);
        let log = (cluster.as_str(), self.options);
        let recovered =
            zerocache_disk::recover(directory, log, driver.storage(), now, state.is_some())?;
        let RecoveredLog { writer, reader, kept, entries, is_whole } = recovered;
        if state.is_some() && !is_whole {
            tracing::warn!("disk emptied: a part of it that says what was deleted is damaged");
        } else if entries > 0 {
            tracing::info!(entries, "entries on disk found");
        }
        self.counters.publish(writer.stats(), false);
        let readers = Readers::start(reader, driver, &self.counters)?;
        let thread = writer::Writer::start(writer, self, driver)?;
        let _first = self.writer.set(thread.thread().clone());
        *self.threads.lock() = Some(thread);
        let _first = self.readers.set(readers);
        driver.input(Input::RestoredItems(kept));
        driver.input(Input::RestoreComplete(state.filter(|_| is_whole)));
        Ok(())
    }
}

/// Returns the state of the earlier process, if there is one that can be used.
fn read_state(directory: &SystemDirectory, cluster: &str, now: Now) -> Option<PersistedState> {
    let state = match zerocache_disk::read_state(directory) {
        Ok(state) => snapshot::decode_state(&state?, cluster, now),
        Err(error) => Err(SnapshotError::Io(error)),
    };
    state.inspect_err(|error| tracing::warn!(%error, "disk emptied: its state cannot be used")).ok()
}
