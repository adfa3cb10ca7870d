//! Bounds on lifetimes, and on the contents of nodes.

use zerocache_core::{
    entry::{Change, Record},
    store::{Stats, TOMBSTONE_BYTES},
    version::Version,
};

use super::{Checker, Rule};
use crate::{
    plan::NodePlan,
    workload::{WriteId, write_of},
};

/// The extension of a lifetime by one process due to whole milliseconds, in microseconds.
const ROUNDING_US: u64 = 5_000;

/// The extension by each message for the same reason.
const HOP_US: u64 = 5_000;

/// The extension by a stay on disk: nodes disagree by this about the time, in microseconds.
const WALL_US: u64 = 2_000_000;

/// The greatest gain of a clock, in millionths, with a margin.
const DRIFT_PPM: u64 = 250;

/// Most records that wait for one peer.
const QUEUED_RECORDS_MAX: usize = 65_536;

/// The shards of a store; each keeps at least one tombstone.
const SHARDS: u64 = 64;

/// The fraction of a budget for tombstones (1/16).
const TOMBSTONE_FRACTION: u64 = 16;

impl Checker {
    /// A node is about to take a write, sent at about `at_us`.
    pub(crate) fn taken(&mut self, host: u32, id: WriteId, at_us: u64) {
        if let Some(write) = self.write(id) {
            write.taken_us = write.taken_us.max(Some(at_us));
        }
        self.extensions.entry((host, id)).or_default();
    }

    /// Records that a write went from one node to another, over a path whose fastest message took
    /// `fastest_us`.
    pub(crate) fn replicated(&mut self, (from, to): (u32, u32), id: WriteId, fastest_us: u64) {
        let before = self.extensions.get(&(from, id)).copied().unwrap_or(0);
        let after = before + fastest_us + HOP_US;
        let known = self.extensions.entry((to, id)).or_default();
        *known = (*known).max(after);
    }

    /// A process begins with this.
    pub(crate) fn restored(&mut self, host: u32, record: &Record) {
        if let Change::Put { value, .. } = &record.change
            && let Some(id) = write_of(value)
        {
            *self.extensions.entry((host, id)).or_default() += HOP_US;
        }
    }

    /// A process has found this on its disk. Its machine's wall clock says how long the one before it has been gone.
    pub(crate) fn recovered(&mut self, host: u32, key: usize, version: Version) {
        if let Some(id) = self.versions.get(&(version, key)).copied() {
            *self.extensions.entry((host, id)).or_default() += WALL_US;
        }
    }

    /// Checks that a write may have `remaining_ms` of its lifetime left on a host.
    pub(super) fn check_lifetime(&mut self, host: u32, id: WriteId, remaining_ms: u64) {
        let extension_us = self.extensions.get(&(host, id)).copied().unwrap_or(0);
        let now_us = self.now_us;
        let Some(write) = self.write(id) else { return };
        let (Some(taken_us), Some(ttl_ms)) = (write.taken_us, write.ttl_ms) else {
            let text = format!("{host} holds write {id}, which no node took");
            return self.violate(Rule::Whole, text);
        };
        let ttl_us = ttl_ms * 1_000;
        let allowed_us =
            taken_us + ttl_us + extension_us + ROUNDING_US + ttl_us / 1_000_000 * DRIFT_PPM;
        let until_us = now_us + remaining_ms * 1_000;
        if until_us > allowed_us {
            let over_us = until_us - allowed_us;
            let text = format!(
                "{host} holds write {id} for {remaining_ms} ms more, {over_us} us beyond its \
                 {ttl_ms} ms from {taken_us} us on and {extension_us} us for journeys"
            );
            self.violate(Rule::Expiry, text);
        }
    }

    /// Checks the bounds of a store.
    pub(crate) fn store(&mut self, host: u32, plan: &NodePlan, stats: Stats) {
        let Stats { entries, bytes, tombstones, counts, .. } = stats;
        self.makes_room |= counts.evicted + counts.rejected_too_large > 0;
        let tombstones_max =
            (plan.bytes_max / TOMBSTONE_FRACTION / TOMBSTONE_BYTES / SHARDS).max(1) * SHARDS;
        let bytes_max = plan.bytes_max.max(tombstones_max * TOMBSTONE_BYTES);
        if entries > plan.entries_max || bytes > bytes_max || tombstones > tombstones_max {
            let text = format!(
                "{host} holds {entries} entries of {}, {bytes} bytes of {bytes_max}, {tombstones} \
                 tombstones of {tombstones_max}",
                plan.entries_max
            );
            self.violate(Rule::Capacity, text);
        }
    }

    /// Checks the bounds of a node's queue for a peer.
    pub(crate) fn queue(&mut self, host: u32, plan: &NodePlan, (records, bytes): (usize, usize)) {
        // One record is always let in, whatever its size.
        let too_much = records > 1 && bytes > plan.outbox_bytes_max;
        if records > QUEUED_RECORDS_MAX || too_much {
            let text = format!("{records} records of {bytes} bytes wait at {host} for a peer");
            self.violate(Rule::Queue, text);
        }
    }

    /// A node sends a record: whether it gave its version, whether the receiver stands in another
    /// region, and whether that is to pass it on.
    pub(crate) fn hop(
        &mut self,
        from: u32,
        to: u32,
        (is_principal, crosses, relay): (bool, bool, bool),
    ) {
        if crosses != relay || (crosses && !is_principal) {
            let who = if is_principal { "its own" } else { "another's" };
            let where_to = if crosses { "another region" } else { "its region" };
            let text =
                format!("{from} sends {who} write to {to} in {where_to}, relay mark {relay}");
            self.violate(Rule::Hops, text);
        }
    }
}
