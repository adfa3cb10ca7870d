//! Metrics, and the readings from which their values are taken.

use serde::Serialize;
use zerocache_core::{
    node::{ClusterStatus, DatagramCounts, DelayCounts},
    store::{Capacity, DiskCounts, Stats},
};

use super::{RequestMetrics, ServerCounters, WriteCounts};
use crate::{access::DenialCounts, disk::DiskStats, storage::Storage};

/// The kind of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Grows from the start of the node.
    Counter,
    /// A current level.
    Gauge,
    /// Counts of values between bounds, from the start of the node.
    Histogram,
}

/// The unit of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// A number of things.
    Count,
    /// Bytes.
    Bytes,
    /// Microseconds.
    Microseconds,
    /// Milliseconds.
    Milliseconds,
}

/// The value of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Value {
    /// A count or a size.
    Unsigned(u64),
    /// A difference.
    Signed(i64),
    /// A limit that is not set.
    Unlimited,
}

/// A metric of a node.
#[derive(Debug)]
pub struct Metric {
    /// The field of `/v1/stats`.
    pub name: &'static str,
    /// Counter or gauge.
    pub kind: Kind,
    /// The unit of the value.
    pub unit: Unit,
    /// The meaning, in one sentence.
    pub help: &'static str,
    /// The family of its series in `/metrics`, without prefix and suffix; none if the name gives it.
    pub(super) family: Option<&'static str>,
    /// The label of its series, where the family has several.
    pub(super) label: Option<(&'static str, &'static str)>,
    pub(super) value: fn(&Sample<'_>) -> Value,
}

impl Metric {
    /// The value of the metric in `sample`.
    #[must_use]
    pub fn value(&self, sample: &Sample<'_>) -> Value {
        (self.value)(sample)
    }

    /// The family of its series in `/metrics`, such as `zerocache_node_evicted_total`.
    #[must_use]
    pub fn family(&self) -> String {
        let suffix = if self.kind == Kind::Counter { "_total" } else { "" };
        format!("{PREFIX}{}{suffix}", self.base_name())
    }

    /// The label of its series in `/metrics`, name and value, if the family has several series.
    #[must_use]
    pub fn label(&self) -> Option<(&'static str, &'static str)> {
        self.label
    }

    /// The family without the prefix and the suffix of counters.
    pub(super) fn base_name(&self) -> String {
        match (self.family, self.name.strip_suffix("_ms")) {
            (Some(family), _) => family.to_owned(),
            (None, Some(stem)) => format!("{stem}_seconds"),
            (None, None) => self.name.to_owned(),
        }
    }
}

/// The prefix of the metrics of nodes. Clients publish metrics of their own, and a process may be both.
pub const PREFIX: &str = "zerocache_node_";

/// The readings from which the values of all metrics are taken.
#[derive(Debug)]
pub struct Sample<'a> {
    /// Counters of the listener.
    pub server: &'a ServerCounters,
    /// Requests refused for want of permission.
    pub denials: DenialCounts,
    /// Encryption of connections: 0 off, 1 optional, 2 required.
    pub tls_mode: u64,
    /// Changes of credentials and access files that could not be used.
    pub failed_reloads: u64,
    /// Times that the process was suspended.
    pub suspensions: u64,
    /// Outcomes of reads.
    pub reads: ReadCounts,
    /// Contents of the store.
    pub store: Stats,
    /// Limits of the store.
    pub capacity: Capacity,
    /// The disk tier as the store sees it.
    pub disk_entries: DiskCounts,
    /// The files of the disk tier.
    pub disk: DiskStats,
    /// The state machine's view of the cluster and its counters.
    pub node: ClusterStatus,
    /// Records, and their bytes, that wait for all peers.
    pub queued: (u64, u64),
    /// Datagrams received and sent.
    pub datagrams: DatagramCounts,
    /// Datagrams that the kernel did not accept.
    pub datagram_send_errors: u64,
    /// Clients that wait for membership changes.
    pub watchers: u64,
    /// Durations of requests, and sizes of values.
    pub requests: &'a RequestMetrics,
    /// Outcomes of writes.
    pub writes: WriteCounts,
    /// Memory of values in transit over HTTP.
    pub bodies: MemoryShare,
    /// Memory of messages in transit.
    pub messages: MemoryShare,
    /// How long writes of other nodes took to this one, by the region of the write; none stands for all other
    /// regions.
    pub replication_delays: Vec<(Option<String>, DelayCounts)>,
    /// Bytes of responses on framed connections that their callers have not read.
    pub response_bytes_pending: u64,
}

/// A share of the memory, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct MemoryShare {
    /// What is in use.
    pub used: u64,
    /// What may be.
    pub max: u64,
}

/// Outcomes of reads on a node, over HTTP and in frames.
#[derive(Clone, Copy, Debug)]
pub struct ReadCounts {
    /// Reads that returned a value; over HTTP, a fresh one.
    pub hits: u64,
    /// Reads over HTTP that returned a stale value.
    pub stale_hits: u64,
    /// Reads that returned nothing.
    pub misses: u64,
    /// Reads over HTTP, among the misses, for which only a stale value existed.
    pub stale_misses: u64,
}

impl ReadCounts {
    /// The current counts. The store counts each read that finds an entry as a hit; reads over HTTP
    /// whose entry was not returned are subtracted.
    #[must_use]
    pub fn of(server: &ServerCounters, storage: &Storage) -> Self {
        // Before those of the store, so that the difference is never negative for long.
        let (stale_hits, stale_misses) = (server.stale_hits.get(), server.stale_misses.get());
        let not_returned = stale_misses + server.values_unreadable.get();
        let found = storage.stats().counts;
        let hits = found.hits.saturating_sub(stale_hits + not_returned);
        Self { hits, stale_hits, misses: found.misses + not_returned, stale_misses }
    }
}
