//! Uses of entries with an idle time: nodes are told of them, so that what is used lives on.
//!
//! Nobody waits for that. One that fails is told with the next use, as long as the entry is fresh.

use std::{collections::HashSet, sync::Arc};

use parking_lot::Mutex;
use zerocache_core::{
    condition::{Condition, ConditionalOp, ConditionalWrite},
    key::Key,
    version::Version,
    wire::Ack,
};

use super::{ZerocacheClient, engine::Engine, entry::Entry, millis, valid};

/// The most uses that are told at a time. Others are told later.
const TOLD_MAX: usize = 1_024;

/// The keys, by their hashes, of which uses are being told.
#[derive(Debug, Default)]
pub(super) struct Uses(Mutex<HashSet<u64>>);

/// A use that is being told.
struct Telling {
    engine: Arc<Engine>,
    hash: u64,
}

impl Drop for Telling {
    fn drop(&mut self) {
        self.engine.uses.0.lock().remove(&self.hash);
    }
}

impl ZerocacheClient {
    /// Notes that an entry was used, which was read a moment ago.
    #[inline]
    pub(crate) fn note_use(&self, key: &[u8], entry: &Entry) {
        if entry.metadata.use_due_ms(millis(entry.ttl)) == Some(0) {
            self.tell_use(key, entry.version);
        }
    }

    #[cold]
    fn tell_use(&self, key: &[u8], version: Version) {
        let Ok(live) = self.live() else { return };
        let Ok(key) = valid(bytes::Bytes::copy_from_slice(key)) else { return };
        let Some(telling) = Telling::begin(&live.engine, &key) else { return };
        let total_ms = self.total_ms(None);
        live.background.spawn(async move {
            let (condition, op) = (Condition::Version(version), ConditionalOp::Use);
            let write = ConditionalWrite { key, condition, op, ack: Ack::Local };
            // The value stays as it is, whatever becomes of it: neither the near cache nor later reads depend on it.
            let outcome = telling.engine.drive_conditional(&write, total_ms).await;
            tracing::trace!(?outcome, "a node was told of a use");
        });
    }
}

impl Telling {
    /// None if the same is told already, or too much is.
    fn begin(engine: &Arc<Engine>, key: &Key) -> Option<Self> {
        let hash = key.hash().short();
        let mut told = engine.uses.0.lock();
        let is_new = told.len() < TOLD_MAX && told.insert(hash);
        is_new.then(|| Self { engine: Arc::clone(engine), hash })
    }
}
