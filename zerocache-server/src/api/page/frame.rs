//! What the page shows, as JSON.

use serde::Serialize;
use zerocache_core::{
    node::{ClusterStatus, NodeStatus},
    time::Now,
    wire::NodeState,
};
use zerocache_net::clock;

use crate::{
    api::{Api, cluster::ClusterBody, stats},
    telemetry::{Distribution, Sample, TimedOperation},
};

/// The most nodes that a message lists; of a larger cluster, those in trouble first.
pub(super) const NODES_SHOWN_MAX: usize = 256;

/// The longest time between two readings that give rates, in milliseconds. In a longer one nobody watched.
const GAP_MS: u64 = 10_000;

/// The state of the node and of the cluster as it sees it.
#[derive(Serialize)]
pub(super) struct View {
    /// How many nodes this one knows, also those that are not listed.
    nodes_known: usize,
    /// None without TLS.
    certificate: Option<Certificate>,
    point: Point,
    stats: stats::StatsBody,
    #[serde(flatten)]
    cluster: ClusterBody,
}

#[derive(Serialize)]
struct Certificate {
    days_left: f64,
    /// The node makes another one in time.
    is_renewed: bool,
}

/// Counters at one moment.
#[derive(Clone, Debug)]
pub(super) struct Reading {
    at: Now,
    hits: u64,
    misses: u64,
    writes: u64,
    evicted: u64,
    denied: u64,
    bytes: u64,
    lag_ms: u64,
    waiting: u64,
    /// Durations of reads and of puts, in microseconds.
    gets: Distribution,
    puts: Distribution,
}

/// One point of the graphs: rates since the point before it, and levels.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Point {
    pub(super) at_ms: u64,
    reads_per_s: Option<f64>,
    /// From 0 to 1; none without a read.
    hit_ratio: Option<f64>,
    writes_per_s: Option<f64>,
    evictions_per_s: Option<f64>,
    /// None if none was measured.
    get_p99_us: Option<u64>,
    put_p99_us: Option<u64>,
    denied: Option<u64>,
    bytes: u64,
    /// How long the peer that lacks a write for the longest time has lacked it.
    lag_ms: u64,
    /// Callers that wait for a lease or its value.
    waiting: u64,
}

impl View {
    /// The state at the moment of `sample`.
    pub(super) fn new(api: &Api, sample: Sample<'_>, point: Point) -> Self {
        let stats = stats::StatsBody::of(&sample);
        let mut status = sample.node;
        let nodes_known = status.nodes.len();
        shorten(&mut status);
        let certificate = api.access.security().certificate_end().map(|(end, is_renewed)| {
            let remaining = end.duration_since(clock::system_wall()).unwrap_or_default();
            Certificate { days_left: rounded(remaining.as_secs_f64() / 86_400.0), is_renewed }
        });
        let cluster = ClusterBody::new(status, api.driver.sources());
        Self { nodes_known, certificate, point, stats, cluster }
    }
}

/// Leaves out the nodes of a large cluster that are well; this node stays the first.
fn shorten(status: &mut ClusterStatus) {
    if status.nodes.len() <= NODES_SHOWN_MAX {
        return;
    }
    let trouble = |node: &NodeStatus| match node.state {
        None if node.is_monitored => 0,
        Some(NodeState::InSync) => 2,
        Some(_) => 1,
        None => 3,
    };
    status.nodes[1..].sort_by_key(trouble);
    status.nodes.truncate(NODES_SHOWN_MAX);
}

impl Reading {
    pub(super) fn of(sample: &Sample<'_>, at: Now) -> Self {
        let denials = &sample.denials;
        let lags = sample.node.nodes.iter().filter_map(|node| node.replication_lag_ms);
        Self {
            at,
            hits: sample.reads.hits + sample.reads.stale_hits,
            misses: sample.reads.misses,
            writes: sample.store.counts.puts + sample.store.counts.deletes,
            evicted: sample.store.counts.evicted,
            denied: denials.unauthenticated
                + denials.bad_credentials
                + denials.expired_credentials
                + denials.forbidden
                + denials.protected,
            bytes: sample.store.bytes,
            lag_ms: lags.max().unwrap_or(0),
            waiting: sample.node.leases.waiting,
            gets: sample.requests.duration(TimedOperation::Get).get(),
            puts: sample.requests.duration(TimedOperation::Put).get(),
        }
    }
}

impl Point {
    pub(super) fn between(before: Option<&Reading>, now: &Reading) -> Self {
        let mut point = Self {
            at_ms: now.at.wall_ms,
            reads_per_s: None,
            hit_ratio: None,
            writes_per_s: None,
            evictions_per_s: None,
            get_p99_us: None,
            put_p99_us: None,
            denied: None,
            bytes: now.bytes,
            lag_ms: now.lag_ms,
            waiting: now.waiting,
        };
        let Some(before) = before else { return point };
        let elapsed_ms = now.at.mono.since_ms(before.at.mono);
        if elapsed_ms == 0 || elapsed_ms > GAP_MS {
            return point;
        }
        let rate = |before: u64, now: u64| {
            Some(rounded(now.saturating_sub(before) as f64 * 1_000.0 / elapsed_ms as f64))
        };
        let hits = now.hits.saturating_sub(before.hits);
        let reads = hits + now.misses.saturating_sub(before.misses);
        point.reads_per_s = rate(0, reads);
        point.hit_ratio = (reads > 0).then(|| rounded(hits as f64 / reads as f64));
        point.writes_per_s = rate(before.writes, now.writes);
        point.evictions_per_s = rate(before.evicted, now.evicted);
        point.get_p99_us = now.gets.since(&before.gets).percentile(99);
        point.put_p99_us = now.puts.since(&before.puts).percentile(99);
        point.denied = Some(now.denied.saturating_sub(before.denied));
        point
    }
}

/// Rounds to four decimals: more is noise, and takes space.
fn rounded(number: f64) -> f64 {
    (number * 1e4).round() / 1e4
}

/// Returns the JSON of `value`.
pub(super) fn to_json(value: &impl Serialize) -> String {
    // Only maps with keys that are no text fail.
    serde_json::to_string(value).unwrap_or_else(|error| {
        tracing::error!(%error, "cannot write JSON");
        "null".to_owned()
    })
}

#[cfg(test)]
mod tests {
    use zerocache_core::time::Instant;

    use super::*;
    use crate::telemetry::RequestMetrics;

    /// So many durations of so many microseconds.
    fn durations(values: &[(u64, u64)]) -> Distribution {
        let histograms = RequestMetrics::default();
        let histogram = histograms.duration(TimedOperation::Get);
        values.iter().for_each(|(value, count)| histogram.record(*value, *count));
        histogram.get()
    }

    fn reading(at_ms: u64, hits: u64, misses: u64) -> Reading {
        Reading {
            at: Now { mono: Instant::from_millis(at_ms), wall_ms: at_ms },
            hits,
            misses,
            writes: hits,
            evicted: misses,
            denied: 1,
            bytes: 7,
            lag_ms: 8,
            waiting: 9,
            gets: durations(&[(80, hits)]),
            puts: durations(&[(3_000, misses)]),
        }
    }

    #[test]
    fn rates_are_those_since_the_point_before() {
        let first = Point::between(None, &reading(0, 3, 1));
        assert_eq!((first.reads_per_s, first.hit_ratio, first.bytes), (None, None, 7));
        let point = Point::between(Some(&reading(0, 10, 10)), &reading(2_000, 16, 12));
        assert_eq!(point.reads_per_s, Some(4.0));
        assert_eq!(point.hit_ratio, Some(0.75));
        assert_eq!((point.writes_per_s, point.evictions_per_s), (Some(3.0), Some(1.0)));
        assert_eq!((point.denied, point.lag_ms, point.waiting), (Some(0), 8, 9));
        assert_eq!((point.get_p99_us, point.put_p99_us), (Some(100), Some(3_200)));
        let idle = Point::between(Some(&reading(0, 1, 1)), &reading(1_000, 1, 1));
        assert_eq!((idle.reads_per_s, idle.hit_ratio), (Some(0.0), None));
        assert_eq!((idle.get_p99_us, idle.put_p99_us), (None, None));
        let after_gap = Point::between(Some(&reading(0, 1, 1)), &reading(GAP_MS + 1, 9, 9));
        assert_eq!((after_gap.reads_per_s, after_gap.denied), (None, None));
    }
}
