//! Counters of the server, and the table of metrics that `/v1/stats` and `/metrics` export.

mod counters;
mod disk_table;
mod families;
mod histogram;
mod histogram_table;
mod metric_builder;
mod metrics;
pub(crate) mod prometheus;
mod requests;
mod table;
#[cfg(test)]
mod tests;

pub(crate) use self::requests::Completion;
pub use self::{
    counters::{Counter, Level, ServerCounters},
    histogram::{Distribution, Histogram},
    histogram_table::{HISTOGRAMS, HistogramMetric, Series},
    metrics::{Kind, MemoryShare, Metric, PREFIX, ReadCounts, Sample, Unit, Value},
    requests::{RequestMetrics, TimedOperation, WriteCounts},
};

/// Returns all metrics, in the order of `/v1/stats`.
pub fn metrics() -> impl Iterator<Item = &'static Metric> + Clone {
    table::METRICS.iter().chain(disk_table::DISK_METRICS)
}
