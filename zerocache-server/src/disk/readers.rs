//! The threads that read values from disk.

use std::{
    io,
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
};

use parking_lot::Mutex;
use zerocache_core::{
    node::{Input, RequestId},
    store::EntryOnDisk,
};
use zerocache_disk::{Reader, SystemDirectory};
use zerocache_net::clock;

use super::stats::DiskCounters;
use crate::{driver::NodeDriver, telemetry::TimedOperation};

/// The number of threads: as many reads are in progress at a time.
const THREADS: usize = 16;

/// The most requests that wait for a thread. The node has no more that wait for values.
const QUEUE_MAX: usize = 4_096;

/// A request, and what it waits for.
type Load = (RequestId, Vec<EntryOnDisk>);

/// The threads, while the log is open.
pub(super) struct Readers {
    queue: SyncSender<Load>,
}

impl Readers {
    /// Starts the threads. They end when this is dropped, or with the node.
    pub(super) fn start(
        reader: Reader<SystemDirectory>,
        driver: &Arc<NodeDriver>,
        counters: &DiskCounters,
    ) -> io::Result<Self> {
        let (queue, loads) = sync_channel(QUEUE_MAX);
        let loads = Arc::new(Mutex::new(loads));
        for number in 0..THREADS {
            let loads = Arc::clone(&loads);
            let reading = Reading { reader: reader.clone(), counters: counters.clone() };
            let driver = Arc::downgrade(driver);
            thread::Builder::new().name(format!("disk-read-{number}")).spawn(move || {
                while let Some((id, entries)) = next(&loads) {
                    let Some(driver) = driver.upgrade() else { return };
                    for entry in entries {
                        reading.restore(&driver, entry);
                    }
                    driver.input(Input::Loaded(id));
                }
            })?;
        }
        Ok(Self { queue })
    }

    /// Has values put back for a request. Returns false if too many requests wait.
    pub(super) fn load(&self, id: RequestId, entries: Vec<EntryOnDisk>) -> bool {
        self.queue.try_send((id, entries)).is_ok()
    }
}

/// Takes the next load; none when there will be none.
fn next(loads: &Mutex<Receiver<Load>>) -> Option<Load> {
    loads.lock().recv().ok()
}

/// What a thread reads with.
struct Reading {
    reader: Reader<SystemDirectory>,
    counters: DiskCounters,
}

impl Reading {
    /// Puts the value of an entry back into memory. One that cannot be read is dropped: repair fetches it.
    fn restore(&self, driver: &NodeDriver, entry: EntryOnDisk) {
        let started = clock::elapsed();
        match zerocache_disk::restore(&self.reader, driver.storage(), entry, clock::now()) {
            Ok(()) => {
                let micros = clock::elapsed().saturating_sub(started).as_micros() as u64;
                driver.request_metrics().duration(TimedOperation::Disk).record(micros, 1);
            }
            Err(error) => self.counters.count_error("read", &error),
        }
    }
}
