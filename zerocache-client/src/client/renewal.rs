//! What was kept near through an outage is read again, once a node reports changes again.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::task::JoinHandle;
use zerocache_core::client::ReadOptions;
use zerocache_net::clock;

use super::{engine::Engine, near_read::NearRead, valid};

/// Keys of one batch.
const BATCH_KEYS: usize = 64;

/// How long all of it may take. What has not been read by then is dropped.
const RENEWAL_MAX: Duration = Duration::from_secs(10);

/// The pause before nodes are asked again that did not answer.
const PAUSE: Duration = Duration::from_millis(250);

/// A task that reads entries again, and ends with this.
#[derive(Default)]
pub(super) struct Renewal(Option<JoinHandle<()>>);

impl Renewal {
    /// Begins to read again what is set aside, unless that is under way.
    pub(super) fn begin(&mut self, engine: &Arc<Engine>) {
        let is_needed = engine.local.near.as_ref().is_some_and(|near| near.near.has_stranded());
        if is_needed && self.0.as_ref().is_none_or(JoinHandle::is_finished) {
            self.0 = Some(tokio::spawn(renew(Arc::downgrade(engine))));
        }
    }
}

impl Drop for Renewal {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

/// Reads until nodes have answered for each key. Ordinary reads go to nodes meanwhile, and those that no node answers
/// are served what is still set aside.
async fn renew(engine: Weak<Engine>) {
    let until = clock::elapsed() + RENEWAL_MAX;
    let near = |engine: &Engine| engine.local.near.as_ref().map(|near| Arc::clone(&near.near));
    let Some(near) = engine.upgrade().as_deref().and_then(near) else { return };
    let stranded = near.stranded();
    loop {
        let keys = near.stranded_keys();
        let mut is_complete = true;
        for batch in keys.chunks(BATCH_KEYS) {
            let Some(engine) = engine.upgrade() else { return };
            let keys = batch.iter().filter_map(|key| valid(key.clone()).ok());
            let options = ReadOptions { stale: true, at_least: None };
            let total_ms = engine.config.bounds.total_ms;
            // An entry that is read is kept near, and replaces the one that is set aside. Without an answer that stays.
            let answers =
                engine.get_many(keys.collect(), options, NearRead::renewal(), total_ms).await;
            is_complete &= answers.iter().all(Result::is_ok);
            if clock::elapsed() >= until {
                break;
            }
        }
        if is_complete || clock::elapsed() >= until {
            break;
        }
        tokio::time::sleep(PAUSE).await;
    }
    near.drop_stranded(&stranded);
}
