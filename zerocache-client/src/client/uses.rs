//! Reports of uses: an entry with an idle time lives on while it is used, because clients report uses to nodes.
//!
//! No call waits for a report. After a failed one the next use is reported, as long as the entry is fresh.

use std::{collections::HashSet, sync::Arc};

use parking_lot::Mutex;
use zerocache_core::{
    condition::{Condition, ConditionalOp, ConditionalWrite},
    key::Key,
    metadata::Freshness,
    version::Version,
    wire::Ack,
};

use super::{ZerocacheClient, engine::Engine, entry::Entry, millis, valid};

/// The most reports at a time. Further uses are reported later.
const REPORTS_MAX: usize = 1_024;

/// The hashes of the keys whose uses are being reported.
#[derive(Debug, Default)]
pub(super) struct Uses(Mutex<HashSet<u64>>);

/// A report in progress.
struct UseReport {
    engine: Arc<Engine>,
    hash: u64,
}

impl Drop for UseReport {
    fn drop(&mut self) {
        self.engine.uses.0.lock().remove(&self.hash);
    }
}

impl ZerocacheClient {
    /// Notes that an entry was used, which was read a moment ago.
    #[inline]
    pub(crate) fn note_use(&self, key: &[u8], entry: &Entry) {
        let is_due = || entry.metadata.use_due_ms(millis(entry.ttl)) == Some(0);
        if entry.freshness == Freshness::Fresh && is_due() {
            self.report_use(key, entry.version);
        }
    }

    #[cold]
    fn report_use(&self, key: &[u8], version: Version) {
        let Ok(live) = self.live() else { return };
        let Ok(key) = valid(bytes::Bytes::copy_from_slice(key)) else { return };
        let Some(report) = UseReport::begin(&live.engine, &key) else { return };
        let total_ms = self.total_ms(None);
        live.background.spawn(async move {
            let (condition, op) = (Condition::Version(version), ConditionalOp::Use);
            let write = ConditionalWrite { key, condition, op, ack: Ack::Local };
            // The value stays as it is, whatever becomes of it: neither the near cache nor later reads depend on it.
            let outcome = report.engine.drive_conditional(&write, total_ms).await;
            tracing::trace!(?outcome, "use reported");
        });
    }
}

impl UseReport {
    /// Returns `None` if a use of the key is being reported already, or there are too many reports.
    fn begin(engine: &Arc<Engine>, key: &Key) -> Option<Self> {
        let hash = key.hash().short();
        let mut reports = engine.uses.0.lock();
        let is_new = reports.len() < REPORTS_MAX && reports.insert(hash);
        is_new.then(|| Self { engine: Arc::clone(engine), hash })
    }
}
