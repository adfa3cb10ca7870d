//! What `/metrics` says: the table of metrics, the cluster as the node sees it, and the process, in a text
//! format of Prometheus.
//!
//! No label depends on a key, on an address, or on the incarnation of another node, and the regions that are
//! labels are bounded: the number of series does not grow with the cluster or its load.

mod cluster;
mod process;

use std::{borrow::Cow, fmt};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, prometheus_text, text},
    metrics::MetricType,
    registry::Registry,
};
use zerocache_net::discovery::SourceStatus;

use super::{
    Distribution, HISTOGRAMS, HistogramMetric, PREFIX,
    families::FAMILIES,
    metrics,
    metrics::{Kind, Metric, Sample, Unit, Value},
};

/// A text format that Prometheus reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// The text format 0.0.4.
    Text,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Format {
    /// The format for a request with the header `accept`: OpenMetrics where that is named.
    #[must_use]
    pub fn accepted_by(accept: Option<&str>) -> Self {
        let names =
            |accept: &str| accept.to_ascii_lowercase().contains("application/openmetrics-text");
        if accept.is_some_and(names) { Self::OpenMetrics } else { Self::Text }
    }

    /// The value of the header `content-type`.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Text => prometheus_text::CONTENT_TYPE,
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// The readings that `/metrics` has and `/v1/stats` has not.
#[derive(Debug)]
pub struct Surroundings {
    /// The sources of addresses.
    pub sources: Vec<SourceStatus>,
    /// When the node's own certificate ends, in seconds since the Unix epoch; none without one.
    pub certificate_expires_s: Option<u64>,
}

/// Returns the metrics of a node as text.
#[must_use]
pub fn render(sample: &Sample<'_>, surroundings: &Surroundings, format: Format) -> String {
    let mut families = of_table(sample);
    families.extend(histograms(sample));
    families.extend(cluster::families(&sample.node, surroundings));
    families.extend(process::families());
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Families(families)));
    let mut out = String::new();
    let _infallible = match format {
        Format::Text => prometheus_text::encode(&mut out, &registry),
        Format::OpenMetrics => text::encode(&mut out, &registry),
    };
    out
}

/// A value of a series.
#[derive(Clone, Debug)]
enum Number {
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    /// A histogram, and how many of its values make up one in the unit of the family.
    Distribution(Distribution, f64),
}

/// Labels, and the value at the moment of the scrape.
#[derive(Debug)]
struct Series {
    labels: Vec<(&'static str, Cow<'static, str>)>,
    value: Number,
}

/// The series of one name.
#[derive(Debug)]
struct Family {
    /// With the prefix, without the suffix of counters.
    name: String,
    help: &'static str,
    kind: Kind,
    series: Vec<Series>,
}

impl Family {
    fn new(name: &str, help: &'static str, kind: Kind) -> Self {
        Self { name: format!("{PREFIX}{name}"), help, kind, series: Vec::new() }
    }

    /// A gauge of one series without labels.
    fn gauge(name: &str, help: &'static str, value: Number) -> Self {
        Self::new(name, help, Kind::Gauge).with(Vec::new(), value)
    }

    fn with(mut self, labels: Vec<(&'static str, Cow<'static, str>)>, value: Number) -> Self {
        self.series.push(Series { labels, value });
        self
    }
}

/// The families of the table. A limit that is not set has no series.
fn of_table(sample: &Sample<'_>) -> Vec<Family> {
    let mut families: Vec<Family> = Vec::new();
    for metric in metrics() {
        let Some(value) = number(metric, metric.value(sample)) else { continue };
        let base = metric.base_name();
        let labels: Vec<_> =
            metric.label.map(|(name, value)| (name, Cow::Borrowed(value))).into_iter().collect();
        let name = format!("{PREFIX}{base}");
        match families.iter_mut().find(|family| family.name == name) {
            Some(family) => family.series.push(Series { labels, value }),
            None => {
                let help = FAMILIES.iter().find(|(family, _)| *family == base);
                let help = help.map_or(metric.help, |(_, help)| help);
                families.push(Family::new(&base, help, metric.kind).with(labels, value));
            }
        }
    }
    families
}

/// The families of the histograms.
fn histograms(sample: &Sample<'_>) -> Vec<Family> {
    let family = |metric: &HistogramMetric| {
        let family = Family::new(metric.family, metric.help, Kind::Histogram);
        metric.series(sample).into_iter().fold(family, |family, (label, values)| {
            let labels = vec![(metric.label, Cow::Owned(label.into_owned()))];
            family.with(labels, Number::Distribution(values, metric.per_base_unit()))
        })
    };
    HISTOGRAMS.iter().map(family).collect()
}

fn number(metric: &Metric, value: Value) -> Option<Number> {
    let is_seconds = metric.unit == Unit::Milliseconds;
    Some(match value {
        Value::Unsigned(ms) if is_seconds => Number::Float(ms as f64 / 1_000.0),
        Value::Signed(ms) if is_seconds => Number::Float(ms as f64 / 1_000.0),
        Value::Unsigned(value) => Number::Unsigned(value),
        Value::Signed(value) => Number::Signed(value),
        Value::Unlimited => return None,
    })
}

/// All families of one scrape.
#[derive(Debug)]
struct Families(Vec<Family>);

impl Collector for Families {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        for family in self.0.iter().filter(|family| !family.series.is_empty()) {
            let kind = match family.kind {
                Kind::Counter => MetricType::Counter,
                Kind::Gauge => MetricType::Gauge,
                Kind::Histogram => MetricType::Histogram,
            };
            let mut metric = encoder.encode_descriptor(&family.name, family.help, None, kind)?;
            for series in &family.series {
                if series.labels.is_empty() {
                    encode(&mut metric, family.kind, &series.value)?;
                } else {
                    let labels = series.labels.as_slice();
                    encode(&mut metric.encode_family(&labels)?, family.kind, &series.value)?;
                }
            }
        }
        Ok(())
    }
}

fn encode(metric: &mut MetricEncoder<'_>, kind: Kind, value: &Number) -> fmt::Result {
    let is_counter = kind == Kind::Counter;
    match value {
        Number::Unsigned(value) if is_counter => {
            metric.encode_counter::<NoLabelSet, _, f64>(value, None)
        }
        Number::Float(value) if is_counter => {
            metric.encode_counter::<NoLabelSet, _, f64>(value, None)
        }
        // A counter is never negative.
        Number::Signed(value) if is_counter => {
            metric.encode_counter::<NoLabelSet, _, f64>(&value.unsigned_abs(), None)
        }
        Number::Unsigned(value) => metric.encode_gauge(value),
        Number::Signed(value) => metric.encode_gauge(value),
        Number::Float(value) => metric.encode_gauge(value),
        Number::Distribution(values, divisor) => {
            let bounds = values.bounds.iter().map(|bound| *bound as f64 / divisor);
            let bounds = bounds.chain([f64::INFINITY]);
            let buckets: Vec<_> = bounds.zip(values.counts.iter().copied()).collect();
            let sum = values.sum as f64 / divisor;
            metric.encode_histogram::<NoLabelSet>(sum, values.count(), &buckets, None)
        }
    }
}

#[cfg(test)]
mod tests;
