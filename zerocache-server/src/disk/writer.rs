//! The thread that writes to the log: the only one that changes it.

use std::{
    io,
    sync::{Arc, Weak},
    thread,
    time::Duration,
};

use zerocache_disk::{StoreWriter, SystemDirectory, WriteError};
use zerocache_net::clock;

use super::DiskTier;
use crate::{driver::NodeDriver, snapshot};

/// The most jobs that are taken at a time: what waits for a change waits for so many values at most.
const JOBS_MAX: usize = 32;

/// How long the thread waits for jobs that nobody waits for.
const IDLE: Duration = Duration::from_millis(5);

/// How long it waits before it tries again what could not be written.
const RETRY: Duration = Duration::from_millis(100);

/// How often the state is saved, and what is written becomes durable.
const SAVE_EVERY: Duration = Duration::from_secs(1);

/// Writes the jobs of the store until the node shuts down.
pub(super) struct Writer {
    log: StoreWriter<SystemDirectory>,
    tier: Arc<DiskTier>,
    driver: Weak<NodeDriver>,
    saved_at: Duration,
    /// The thread that makes durable what was written.
    saving: Option<thread::JoinHandle<()>>,
    tried_at: Duration,
}

impl Writer {
    /// Starts the thread.
    pub(super) fn start(
        log: StoreWriter<SystemDirectory>,
        tier: &Arc<DiskTier>,
        driver: &Arc<NodeDriver>,
    ) -> io::Result<thread::JoinHandle<()>> {
        let writer = Self {
            log,
            tier: Arc::clone(tier),
            driver: Arc::downgrade(driver),
            saved_at: Duration::ZERO,
            saving: None,
            tried_at: Duration::ZERO,
        };
        thread::Builder::new().name("disk-write".to_owned()).spawn(move || writer.run())
    }

    fn run(mut self) {
        loop {
            let Some(driver) = self.driver.upgrade() else { return };
            let is_stopping = self.tier.is_stopping();
            let is_idle = !self.work(&driver);
            self.save(&driver);
            if !is_idle {
                continue;
            }
            if is_stopping {
                return self.end(&driver);
            }
            drop(driver);
            thread::park_timeout(IDLE);
        }
    }

    /// Writes jobs that wait, and releases what waits for them. Returns whether there were any.
    fn work(&mut self, driver: &NodeDriver) -> bool {
        let storage = driver.storage();
        if storage.take_disk_loss() {
            let reason = "it took none for too long, and is emptied";
            self.tier.counters.count_error("write erases", &reason);
            self.log.empty();
        }
        let jobs = storage.take_disk_jobs(JOBS_MAX);
        let is_idle = jobs.0.is_empty();
        let is_due = clock::elapsed().saturating_sub(self.tried_at) >= RETRY;
        if is_idle && !(self.log.owes() && is_due) {
            return false;
        }
        let now = driver.cluster_time();
        let counters = self.tier.counters.clone();
        let on_error = &mut |action: &str, error: &WriteError| counters.count_error(action, error);
        self.log.append(storage, jobs, now, on_error);
        let written = self.log.flush(storage, now, on_error);
        self.tried_at = clock::elapsed();
        driver.send_held(self.tier.acknowledgements.note_written(written));
        !is_idle
    }

    /// Makes what is written durable, and saves the state of the node, each second.
    fn save(&mut self, driver: &NodeDriver) {
        let now = clock::elapsed();
        // One at a time: a slow disk delays the next one.
        let is_saving = self.saving.as_ref().is_some_and(|saving| !saving.is_finished());
        if now.saturating_sub(self.saved_at) < SAVE_EVERY || is_saving {
            return;
        }
        self.saved_at = now;
        let is_paused = self.log.is_paused(clock::now());
        self.tier.counters.publish(self.log.stats(), is_paused);
        // What is there is not worth a state before what this process has replaced is erased.
        let state = state_of(driver, false).filter(|_| !self.log.owes_at_first());
        let checkpoint = self.log.checkpoint(state);
        let counters = self.tier.counters.clone();
        let saving = thread::Builder::new().name("disk-sync".to_owned()).spawn(move || {
            if let Err(error) = checkpoint.run() {
                counters.count_error("sync", &error);
            }
        });
        match saving {
            Ok(saving) => self.saving = Some(saving),
            Err(error) => self.tier.counters.count_error("start a thread", &error),
        }
    }

    /// Writes what memory alone has, and ends the log.
    fn end(mut self, driver: &NodeDriver) {
        let counters = self.tier.counters.clone();
        let on_error = &mut |action: &str, error: &WriteError| counters.count_error(action, error);
        let now = driver.cluster_time();
        let (entries, is_complete) = self.log.append_rest(driver.storage(), now, on_error);
        if let Some(saving) = self.saving.take() {
            let _reported_there = saving.join();
        }
        if let Err(error) = self.log.checkpoint(state_of(driver, is_complete)).run() {
            self.tier.counters.count_error("save the state", &error);
        }
        match self.log.close() {
            Ok(()) => tracing::info!(entries, "entries in memory written to disk"),
            Err(error) => tracing::error!(%error, "disk not closed"),
        }
    }
}

/// Returns the state that a later process needs, encoded; none before the node may save it. `is_complete` if the log has
/// the values that are in memory, too.
fn state_of(driver: &NodeDriver, is_complete: bool) -> Option<Vec<u8>> {
    let (mut state, status) = driver.persisted_state(clock::now())?;
    state.lacks_values |= !is_complete;
    let now = snapshot::corrected(clock::now(), status.clock_offset_ms);
    Some(snapshot::encode_state(&status.cluster, now, &state))
}
