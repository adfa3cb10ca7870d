//! Counters of the server, and the table of metrics that `/v1/stats` exports.

mod counters;
mod metrics;
mod table;
#[cfg(test)]
mod tests;

pub use self::{
    counters::{Counter, ServerCounters},
    metrics::{Kind, Metric, ReadCounts, Sample, Unit, Value},
    table::METRICS,
};
