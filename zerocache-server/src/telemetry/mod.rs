//! Counters of the server, and the table of metrics that `/v1/stats` and `/metrics` export.

mod counters;
mod metrics;
pub(crate) mod prometheus;
mod table;
#[cfg(test)]
mod tests;

pub use self::{
    counters::{Counter, Level, ServerCounters},
    metrics::{Kind, Metric, PREFIX, ReadCounts, Sample, Unit, Value},
    table::METRICS,
};
