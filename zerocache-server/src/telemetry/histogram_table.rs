//! The table of histograms, as [`metrics`](super::metrics()) is that of numbers.

use std::borrow::Cow;

use super::{
    histogram::Distribution,
    metrics::{Sample, Unit},
    requests::TimedOperation,
};

/// The label of the regions beyond those that are labels. No region has this name.
pub(super) const REGION_OTHER: &str = "_other";

/// The value of a label, and the histogram with it.
pub type Series<'a> = (Cow<'a, str>, Distribution);

/// A family of histograms of a node, one for each value of a label.
#[derive(Debug)]
pub struct HistogramMetric {
    /// The field of `/v1/stats`.
    pub name: &'static str,
    /// The unit of the values.
    pub unit: Unit,
    /// The meaning, in one sentence.
    pub help: &'static str,
    /// The family in `/metrics`, without prefix.
    pub(super) family: &'static str,
    /// The label.
    pub(super) label: &'static str,
    pub(super) series: for<'a> fn(&'a Sample<'_>) -> Vec<Series<'a>>,
}

impl HistogramMetric {
    /// Returns the histograms in `sample`, each with the value of its label.
    #[must_use]
    pub fn series<'a>(&self, sample: &'a Sample<'_>) -> Vec<Series<'a>> {
        (self.series)(sample)
    }

    /// The values of the histogram's unit that make up one of that of `/metrics`.
    pub(super) const fn per_base_unit(&self) -> f64 {
        match self.unit {
            Unit::Microseconds => 1e6,
            Unit::Milliseconds => 1e3,
            Unit::Bytes | Unit::Count => 1.0,
        }
    }
}

/// All histograms, in the order of `/v1/stats`.
pub const HISTOGRAMS: &[HistogramMetric] = &[
    HistogramMetric {
        name: "request_duration_us",
        unit: Unit::Microseconds,
        help: "Time from taking up a request to its response; one read in 64 is measured, and counts as 64.",
        family: "request_duration_seconds",
        label: "operation",
        series: |sample| {
            let durations =
                |one: TimedOperation| (one.as_str().into(), sample.requests.duration(one).get());
            TimedOperation::ALL.map(durations).into()
        },
    },
    HistogramMetric {
        name: "value_bytes",
        unit: Unit::Bytes,
        help: "Sizes of values as they are stored: in, written by clients; out, returned by reads, of which one in 64 is measured and counts as 64.",
        family: "value_bytes",
        label: "direction",
        series: |sample| {
            let requests = sample.requests;
            [("in", &requests.bytes_in), ("out", &requests.bytes_out)]
                .map(|(direction, sizes)| (direction.into(), sizes.get()))
                .into()
        },
    },
    HistogramMetric {
        name: "replication_delay_ms",
        unit: Unit::Milliseconds,
        help: "Time from a write on another node, by that node's clock, to its arrival here, by the region of the write.",
        family: "replication_delay_seconds",
        label: "region",
        series: |sample| {
            let delays = sample.replication_delays.iter();
            delays
                .map(|(region, counts)| {
                    let region = region.as_deref().unwrap_or(REGION_OTHER);
                    (region.into(), counts.into())
                })
                .collect()
        },
    },
];
