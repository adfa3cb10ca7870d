//! The disk tier of a node: the values that memory evicts, in a log of segments, and what a later process of the
//! node needs of them.
//!
//! The store decides what goes to disk and keeps the index (`zerocache_core::store`); this module does the I/O:
//!
//! - `writer.rs`: one thread that writes the store's jobs in their order, makes room, and saves the node's state.
//! - `readers.rs`: threads that put values back into memory for requests that wait for them.
//! - `acknowledgements.rs`: responses to changes that must not come back wait until their erases are written.
//! - `recovery.rs`: what an earlier process wrote, when the node asks for it.
//!
//! Nothing fails for a caller because of a disk: what cannot be written is evicted as without one, and what cannot be
//! read is a miss, which repair heals from a peer.

mod acknowledgements;
mod readers;
mod recovery;
mod stats;
mod writer;

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    thread::Thread,
    time::Duration,
};

use parking_lot::Mutex;
use zerocache_core::{
    node::{Input, RequestId},
    store::{DiskTerms, EntryOnDisk},
    wire::NodeState,
};
use zerocache_disk::{LogOptions, OpenError, SystemDirectory};

pub use self::stats::DiskStats;
use self::{acknowledgements::Acknowledgements, readers::Readers, stats::DiskCounters};
use crate::{
    config::{DiskAdmission, DiskConfig},
    driver::{HeldReply, NodeDriver},
};

/// The interval at which responses are looked at that wait for the disk.
const HELD_CHECK: Duration = Duration::from_millis(100);

/// The disk tier of a node.
pub struct DiskTier {
    config: DiskConfig,
    options: LogOptions,
    /// The directory, until the log in it is opened.
    directory: Mutex<Option<SystemDirectory>>,
    acknowledgements: Acknowledgements,
    readers: OnceLock<Readers>,
    writer: OnceLock<Thread>,
    is_stopping: AtomicBool,
    /// The writer, until the node shuts down.
    threads: Mutex<Option<std::thread::JoinHandle<()>>>,
    counters: DiskCounters,
}

impl DiskTier {
    /// Prepares the directory, of which no other process may be the user.
    ///
    /// # Errors
    /// The reason why the directory cannot be used: it is not one, cannot be written, is in use, belongs to another
    /// cluster, or was written by a later release.
    pub fn prepare(config: &DiskConfig, cluster: &str, salt: u64) -> Result<Self, OpenError> {
        let directory = SystemDirectory::open(&config.path)?;
        zerocache_disk::check_directory(&directory, cluster)?;
        Ok(Self {
            options: LogOptions { salt, ..LogOptions::new(config.bytes_max) },
            config: config.clone(),
            directory: Mutex::new(Some(directory)),
            acknowledgements: Acknowledgements::default(),
            readers: OnceLock::new(),
            writer: OnceLock::new(),
            is_stopping: AtomicBool::new(false),
            threads: Mutex::new(None),
            counters: DiskCounters::default(),
        })
    }

    /// Returns which values go to disk.
    #[must_use]
    pub fn terms(&self) -> DiskTerms {
        DiskTerms {
            value_bytes_min: usize::try_from(self.config.value_bytes_min).unwrap_or(usize::MAX),
            admits_unread: self.config.admission == DiskAdmission::All,
        }
    }

    /// Opens the log when the node asks for what an earlier process wrote, and looks after it. Ends only when dropped.
    pub async fn run(self: Arc<Self>, driver: Arc<NodeDriver>) {
        let mut state = driver.watch_state();
        let is_asked = tokio::select! {
            () = driver.restore_requested() => true,
            Ok(_) = state.wait_for(|state| *state == NodeState::InSync) => false,
        };
        let (tier, at) = (Arc::clone(&self), Arc::clone(&driver));
        let opened = tokio::task::spawn_blocking(move || tier.open(&at, is_asked));
        if let Err(error) = opened.await {
            tracing::error!(%error, "disk not opened");
        }
        if is_asked && self.readers.get().is_none() {
            driver.input(Input::RestoreComplete(None));
        }
        loop {
            tokio::time::sleep(HELD_CHECK).await;
            let released = self.acknowledgements.release_overdue();
            self.counters.unwritten.add_many(released.len() as u64);
            driver.send_held(released);
        }
    }

    /// Has values put back for a request. Returns false if that is not possible now.
    pub(crate) fn load(&self, id: RequestId, entries: Vec<EntryOnDisk>) -> bool {
        self.readers.get().is_some_and(|readers| readers.load(id, entries))
    }

    /// Returns whether changes of the store up to `mark` may be acknowledged.
    #[inline]
    pub(crate) fn has_written(&self, mark: u64) -> bool {
        self.acknowledgements.has_written(mark)
    }

    /// Holds a reply back until the jobs up to `mark` are written, at most half a second. Returns it if they are.
    pub(crate) fn hold(&self, mark: u64, reply: HeldReply) -> Option<HeldReply> {
        let reply = self.acknowledgements.hold(mark, reply);
        self.wake_writer();
        reply
    }

    /// Has jobs written at once.
    pub(crate) fn wake_writer(&self) {
        if let Some(writer) = self.writer.get() {
            writer.unpark();
        }
    }

    /// Writes what memory alone has, and closes the log. The node must accept no writes any more.
    pub async fn shut_down(self: Arc<Self>) {
        self.is_stopping.store(true, Ordering::Release);
        self.wake_writer();
        let thread = self.threads.lock().take();
        let ended = tokio::task::spawn_blocking(move || thread.map(std::thread::JoinHandle::join));
        if !matches!(ended.await, Ok(None | Some(Ok(())))) {
            tracing::error!("the writer of the disk has failed");
        }
    }

    fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::Acquire)
    }
}
