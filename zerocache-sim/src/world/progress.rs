//! Detection of processes that are busy without end.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use super::World;
use crate::{checker::Rule, clock::SECOND_US};

/// Most events of one process in a second of simulated time: the busiest of thousands of runs had
/// some 8,000, one that is ticked all the time has 20,000.
const EVENTS_MAX: u32 = 15_000;

/// The recent number of events of each process.
#[derive(Debug, Default)]
pub(super) struct Progress {
    second: u64,
    events: Vec<u32>,
    /// Rises with each event, for whoever watches from outside.
    events_handled: Arc<AtomicU64>,
}

impl World {
    /// Returns the counter that rises with each event.
    pub(crate) fn events_handled(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.progress.events_handled)
    }

    /// Counts an event, of a process if it is of one.
    pub(super) fn check_progress(&mut self, host: Option<u32>) {
        let progress = &mut self.progress;
        progress.events_handled.fetch_add(1, Ordering::Relaxed);
        let Some(host) = host else { return };
        let second = self.now_us / SECOND_US;
        if second != progress.second {
            progress.second = second;
            progress.events.clear();
        }
        if progress.events.is_empty() {
            progress.events.resize(self.hosts.len(), 0);
        }
        let events = &mut progress.events[host as usize];
        *events += 1;
        let events = *events;
        self.counts.busiest_events = self.counts.busiest_events.max(u64::from(events));
        if events > EVENTS_MAX {
            let text = format!("{host} has handled {events} events in one second");
            self.checker.violate(Rule::Progress, text);
        }
    }
}
