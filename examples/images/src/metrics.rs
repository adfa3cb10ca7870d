//! Counters, for Prometheus.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::failure::Failure;

/// Where the answer to a request came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// From the cache.
    Hit,
    /// From a worker, which made it or had it.
    Miss,
    /// The reader had it: 304.
    Known,
}

impl Outcome {
    /// The label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::Known => "not_modified",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ErrorLabel {
    error: &'static str,
}

/// What a process has counted since its start.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Family<OutcomeLabel, Counter>,
    errors: Family<ErrorLabel, Counter>,
    request_seconds: Histogram,
    conversions_started: Counter,
    conversion_errors: Family<ErrorLabel, Counter>,
    conversion_seconds: Histogram,
    fetch_errors: Family<ErrorLabel, Counter>,
    fetch_seconds: Histogram,
    worker_failures: Counter,
    lookup_failures: Counter,
    purges: Counter,
    workers: Gauge,
    conversions_running: Gauge,
    conversions_waiting: Gauge,
    fetches_running: Gauge,
    fetches_waiting: Gauge,
    cache_nodes: Gauge,
}

/// What is read when the counters are.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Gauges {
    pub(crate) workers: usize,
    pub(crate) conversions: (usize, usize),
    pub(crate) fetches: (usize, usize),
    pub(crate) cache_nodes: usize,
}

impl Default for Metrics {
    fn default() -> Self {
        // From 1 ms to 8 s.
        let seconds = || Histogram::new(exponential_buckets(0.001, 2.0, 14));
        let mut metrics = Self {
            registry: Registry::default(),
            requests: Family::default(),
            errors: Family::default(),
            request_seconds: seconds(),
            conversions_started: Counter::default(),
            conversion_errors: Family::default(),
            conversion_seconds: seconds(),
            fetch_errors: Family::default(),
            fetch_seconds: seconds(),
            worker_failures: Counter::default(),
            lookup_failures: Counter::default(),
            purges: Counter::default(),
            workers: Gauge::default(),
            conversions_running: Gauge::default(),
            conversions_waiting: Gauge::default(),
            fetches_running: Gauge::default(),
            fetches_waiting: Gauge::default(),
            cache_nodes: Gauge::default(),
        };
        metrics.register();
        metrics
    }
}

impl Metrics {
    fn register(&mut self) {
        let registry = self.registry.sub_registry_with_prefix("images");
        registry.register("requests", "Requests that got an image", self.requests.clone());
        registry.register("errors", "Requests that got an error, by its code", self.errors.clone());
        let conversion_errors = self.conversion_errors.clone();
        registry.register("conversion_errors", "Conversions that failed", conversion_errors);
        registry.register("fetch_errors", "Originals not fetched", self.fetch_errors.clone());
        let histograms = [
            ("request_seconds", "Time to answer with an image", &self.request_seconds),
            ("conversion_seconds", "Time of a conversion", &self.conversion_seconds),
            ("fetch_seconds", "Time to fetch an original", &self.fetch_seconds),
        ];
        for (name, help, histogram) in histograms {
            registry.register(name, help, histogram.clone());
        }
        let counters = [
            ("conversions_started", "Conversions", &self.conversions_started),
            ("worker_failures", "Workers that did not answer", &self.worker_failures),
            ("lookup_failures", "Look-ups that the cache did not answer", &self.lookup_failures),
            ("purges", "Purges", &self.purges),
        ];
        for (name, help, counter) in counters {
            registry.register(name, help, counter.clone());
        }
        let gauges = [
            ("workers", "Workers that this gateway knows", &self.workers),
            ("conversions_running", "Conversions now", &self.conversions_running),
            ("conversions_waiting", "Conversions that wait", &self.conversions_waiting),
            ("fetches_running", "Fetches now", &self.fetches_running),
            ("fetches_waiting", "Fetches that wait", &self.fetches_waiting),
            ("cache_nodes", "Nodes of the cache that are used", &self.cache_nodes),
        ];
        for (name, help, gauge) in gauges {
            registry.register(name, help, gauge.clone());
        }
    }

    pub(crate) fn answered(&self, outcome: Outcome, took: Duration) {
        self.requests.get_or_create(&OutcomeLabel { outcome: outcome.as_str() }).inc();
        self.request_seconds.observe(took.as_secs_f64());
    }

    pub(crate) fn refused(&self, failure: &Failure) {
        count(&self.errors, Some(failure));
    }

    pub(crate) fn conversion_started(&self) {
        self.conversions_started.inc();
    }

    pub(crate) fn converted(&self, took: Duration, failure: Option<&Failure>) {
        self.conversion_seconds.observe(took.as_secs_f64());
        count(&self.conversion_errors, failure);
    }

    pub(crate) fn fetched(&self, took: Duration, failure: Option<&Failure>) {
        self.fetch_seconds.observe(took.as_secs_f64());
        count(&self.fetch_errors, failure);
    }

    pub(crate) fn worker_failed(&self) {
        self.worker_failures.inc();
    }

    pub(crate) fn lookup_failed(&self) {
        self.lookup_failures.inc();
    }

    pub(crate) fn purged(&self) {
        self.purges.inc();
    }

    /// Sets what is read when the counters are.
    pub(crate) fn set_gauges(&self, gauges: &Gauges) {
        let values = [
            (&self.workers, gauges.workers),
            (&self.conversions_running, gauges.conversions.0),
            (&self.conversions_waiting, gauges.conversions.1),
            (&self.fetches_running, gauges.fetches.0),
            (&self.fetches_waiting, gauges.fetches.1),
            (&self.cache_nodes, gauges.cache_nodes),
        ];
        for (gauge, value) in values {
            gauge.set(value as i64);
        }
    }

    /// Returns the counters in OpenMetrics text.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _written = encode(&mut text, &self.registry);
        text
    }
}

fn count(family: &Family<ErrorLabel, Counter>, failure: Option<&Failure>) {
    if let Some(failure) = failure {
        family.get_or_create(&ErrorLabel { error: failure.code() }).inc();
    }
}
