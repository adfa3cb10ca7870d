//! The orderly end of a node: it drains, sends what it has to, and writes what its disk lacks.

use zerocache_core::node::Input;

use super::{Event, World, trace};

/// The drain time of a node after its goodbye, in microseconds.
const DRAIN_US: u64 = 2_000_000;

/// The longest time after the drain for replicating the last writes of a node, in microseconds.
const FLUSH_US_MAX: u64 = 500_000;

/// The interval at which the flush is checked, in microseconds.
const FLUSH_CHECK_US: u64 = 5_000;

impl World {
    /// Begins the shutdown of a node.
    pub(super) fn shut_down(&mut self, host: u32) {
        let now_us = self.now_us;
        let Some(process) = self.nodes[host as usize].as_mut() else { return };
        process.shutdown_us = Some(now_us);
        trace!(self, "{host} shuts down");
        self.node_input(host, vec![Input::Shutdown]);
        let life = self.hosts[host as usize].life;
        self.schedule_in(DRAIN_US, Event::Exit { host, life });
    }

    /// Stops a node that shuts down, once its queues are flushed or the time for that is up.
    pub(super) fn exit(&mut self, host: u32, life: u32) {
        if !self.lives(host, life) {
            return;
        }
        let Some(process) = self.nodes[host as usize].as_ref() else { return };
        let last_us = process.shutdown_us.unwrap_or(0) + DRAIN_US + FLUSH_US_MAX;
        if !process.node.is_flushed() && self.now_us < last_us {
            return self.schedule_in(FLUSH_CHECK_US, Event::Exit { host, life });
        }
        self.check_pending(host);
        self.close_disk(host);
        self.stop(host, false);
    }
}
