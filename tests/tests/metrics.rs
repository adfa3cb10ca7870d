//! `/metrics` of real nodes: accepted by Prometheus' linter, complete, and of bounded size.
//!
//! The linter is `promtool` of Debian's package `prometheus`; `.ci/run` unpacks it. Without it a test reports
//! itself as skipped, unless `CI=true`.

use std::collections::BTreeSet;

use serde_json::Value as Json;
use zerocache_server::telemetry::{HISTOGRAMS, Kind, Metric, Unit, metrics};
use zerocache_tests::{
    cluster::Cluster,
    http,
    metrics::{Samples, name, parse, promtool, run_promtool, text},
    namespace::skip,
    node::Node,
    poll::{PATIENCE, until_true},
    setup::Setup,
};

/// Keys written in the test of the number of series.
const KEYS: usize = 10_000;

/// Keys in one call: so few that each is written in time over HTTP too.
const KEYS_AT_ONCE: usize = 100;

#[test]
fn linter_of_prometheus_accepts_the_metrics() {
    const TEST: &str = "linter_of_prometheus_accepts_the_metrics";
    let promtool = match promtool() {
        Ok(promtool) => promtool,
        Err(why) => return skip(TEST, &why),
    };
    let cluster = Cluster::start(&["london", "london", "sydney"]);
    use_node(&cluster[0]);
    for node in &cluster.nodes {
        let output = run_promtool(&promtool, &["check", "metrics"], &text(node));
        let said =
            [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
        assert!(output.status.success() && said == ["", ""], "{said:?}");
    }
    // It does find mistakes.
    let wrong = run_promtool(&promtool, &["check", "metrics"], "# TYPE a_total gauge\na_total 1\n");
    assert!(!wrong.status.success());
}

/// The count, the sum, and the values up to each bound, of a histogram of `/metrics`.
fn histogram(samples: &Samples, name: &str, label: &str) -> (f64, f64, Vec<(f64, f64)>) {
    let part = |part: &str| *samples.get(&format!("{name}_{part}{{{label}}}")).expect(part);
    let begin = format!("{name}_bucket{{{label},le=\"");
    let buckets = samples.iter().filter_map(|(series, count)| {
        let bound = series.strip_prefix(&begin)?.strip_suffix("\"}")?;
        Some((bound.parse().expect("a bound"), *count))
    });
    let mut buckets: Vec<(f64, f64)> = buckets.collect();
    buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
    (part("count"), part("sum"), buckets)
}

#[test]
fn histograms_have_durations_sizes_and_delays() {
    const WRITES: u32 = 50;
    const READS: u32 = 8_000;
    let cluster = Cluster::start(&["oslo", "oslo", "rome"]);
    let client = cluster.client("oslo");
    for n in 0..WRITES {
        client.put(format!("{n}"), [7_u8; 300], 600).deadline(PATIENCE).wait().expect("stored");
    }
    let keys: Vec<_> = (0..WRITES).map(|n| format!("{n}")).collect();
    for _ in 0..READS / WRITES {
        let read = client.get_many(&keys).deadline(PATIENCE).wait().expect("read");
        assert_eq!(read.len(), WRITES as usize);
    }
    let of_all = || cluster.nodes.iter().map(|node| parse(&text(node))).collect::<Vec<_>>();
    let sum = |all: &[Samples], name: &str, label: &str| {
        all.iter().map(|samples| histogram(samples, name, label).0).sum::<f64>()
    };
    let durations = "zerocache_node_request_duration_seconds";
    let sizes = "zerocache_node_value_bytes";
    let delays = "zerocache_node_replication_delay_seconds";
    let delayed = |all: &[Samples]| -> f64 {
        let of_oslo = format!("{delays}_count{{region=\"oslo\"}}");
        all.iter().filter_map(|samples| samples.get(&of_oslo)).sum()
    };
    // Each write goes to both other nodes.
    until_true("all writes are replicated", || delayed(&of_all()) >= f64::from(2 * WRITES));
    let all = of_all();
    assert_eq!(sum(&all, durations, "operation=\"put\""), f64::from(WRITES));
    assert_eq!(sum(&all, durations, "operation=\"delete\""), 0.0);
    assert!(sum(&all, durations, "operation=\"replicate\"") > 0.0);
    assert_eq!(sum(&all, sizes, "direction=\"in\""), f64::from(WRITES));
    // One read in 64 at random, and some 125 of them: the estimate is off by a half less than once in a
    // million runs.
    let (least, most) = (f64::from(READS) * 0.5, f64::from(READS) * 1.5);
    for (name, label) in [(durations, "operation=\"get\""), (sizes, "direction=\"out\"")] {
        let estimate = sum(&all, name, label);
        assert!((least..most).contains(&estimate), "{name} counts {estimate} reads");
    }
    for samples in &all {
        for (name, label, bounds) in [
            (durations, "operation=\"put\"", [50e-6, 1.6384]),
            (sizes, "direction=\"out\"", [64.0, f64::from(16 << 20)]),
        ] {
            let (count, sum, buckets) = histogram(samples, name, label);
            assert_eq!([buckets[0].0, buckets[buckets.len() - 2].0], bounds, "{name}");
            assert_eq!(buckets.last(), Some(&(f64::INFINITY, count)), "{name}");
            assert!(buckets.windows(2).all(|pair| pair[0].1 <= pair[1].1), "{name}: {buckets:?}");
            assert!((count > 0.0) == (sum > 0.0), "{name}: {count} values make {sum}");
        }
    }
    // What is in the statistics is the same.
    let stats: Vec<_> = cluster.nodes.iter().map(stats).collect();
    let puts: u64 = stats
        .iter()
        .filter_map(|stats| stats["request_duration_us"]["put"]["count"].as_u64())
        .sum();
    assert_eq!(puts, u64::from(WRITES));
    let p99 = stats.iter().filter_map(|stats| stats["value_bytes"]["out"]["p99"].as_u64()).max();
    assert!(p99.is_some_and(|p99| (256..=1_024).contains(&p99)), "{p99:?}");
}

/// Makes some numbers differ from 0.
fn use_node(node: &Node) {
    node.put(b"a", b"value", "ttl=60");
    node.put(b"b", b"value", "ttl=60");
    node.delete(b"b", "");
    for key in [b"a", b"b"] {
        let _hit_or_miss = node.get(key);
    }
    assert_eq!(node.http("GET", "/v1/entries/%zz", b"").status, 400);
}

/// The series of a metric of `/v1/stats`.
fn series(metric: &Metric) -> String {
    match metric.label() {
        Some((label, value)) => format!("{}{{{label}=\"{value}\"}}", metric.family()),
        None => metric.family(),
    }
}

fn stats(node: &Node) -> Json {
    node.http("GET", "/v1/stats", b"").json()
}

#[test]
fn every_number_of_the_statistics_is_a_series_with_its_value() {
    let cluster = Cluster::start(&["oslo"]);
    let node = &cluster[0];
    use_node(node);
    let (before, samples, after) = (stats(node), parse(&text(node)), stats(node));
    let names = metrics().map(|metric| metric.name);
    let names: BTreeSet<_> = names.chain(HISTOGRAMS.iter().map(|metric| metric.name)).collect();
    let fields = before.as_object().expect("an object");
    assert_eq!(fields.keys().map(String::as_str).collect::<BTreeSet<_>>(), names);
    for metric in metrics() {
        let series = series(metric);
        let number = |stats: &Json| stats[metric.name].as_f64();
        let (Some(before), Some(after)) = (number(&before), number(&after)) else {
            assert!(!samples.contains_key(&series), "{series}: a limit that is not set");
            continue;
        };
        let value = *samples.get(&series).unwrap_or_else(|| panic!("no {series}"));
        let factor = if metric.unit == Unit::Milliseconds { 1_000.0 } else { 1.0 };
        // Nothing but these requests happens meanwhile; the connections of two may be open at a time.
        let more = f64::from(u8::from(metric.name == "connections_open"));
        let range = before.min(after) - more..=before.max(after) + more;
        assert!(range.contains(&(value * factor)), "{series} is {value}, beside {range:?}");
        assert!(metric.kind == Kind::Gauge || after >= before, "{series}");
    }
    for (series, wanted) in [
        ("zerocache_node_reads_total{outcome=\"hit\"}", 1.0),
        ("zerocache_node_reads_total{outcome=\"miss\"}", 1.0),
        ("zerocache_node_records_applied_total{operation=\"put\"}", 2.0),
        ("zerocache_node_requests_rejected_total{reason=\"bad_request\"}", 1.0),
        ("zerocache_node_store_limit_bytes", f64::from(128 << 20)),
        ("zerocache_node_ready", 1.0),
        ("zerocache_node_state{state=\"in-sync\"}", 1.0),
    ] {
        assert_eq!(samples.get(series), Some(&wanted), "{series}");
    }
}

#[test]
fn open_connections_are_counted_until_they_end() {
    let node = Setup::new("oslo").start();
    // The request itself comes on one.
    until_true("no other connection", || node.stat("connections_open") == 1);
    let open: Vec<_> = (0..5).map(|_| http::connect(node.address()).expect("open")).collect();
    until_true("five connections", || node.stat("connections_open") == 6);
    drop(open);
    until_true("their end", || node.stat("connections_open") == 1);
}

fn names_of(samples: &Samples) -> BTreeSet<&str> {
    samples.keys().map(|series| name(series)).collect()
}

#[test]
fn metrics_name_the_node_its_peers_and_the_process() {
    let cluster =
        Cluster::start_with(&["oslo", "oslo", "rome"], |setup| setup.flag("--zone", "z1"));
    let samples = parse(&text(&cluster[0]));
    let incarnation = &cluster[0].incarnations()[0];
    let info = format!(
        "zerocache_node_info{{version=\"{}\",cluster=\"zerocache\",region=\"oslo\",zone=\"z1\",\
         incarnation=\"{incarnation}\"}}",
        env!("CARGO_PKG_VERSION")
    );
    assert_eq!(samples.get(&info), Some(&1.0), "{samples:?}");
    for (region, count) in [("oslo", 1.0), ("rome", 1.0)] {
        let peers = format!("zerocache_node_peers{{region=\"{region}\",state=\"reachable\"}}");
        assert_eq!(samples.get(&peers), Some(&count), "{region}");
        let round_trip = format!("zerocache_node_peer_round_trip_seconds{{region=\"{region}\"}}");
        assert!(samples.get(&round_trip).is_some_and(|s| (0.0..10.0).contains(s)), "{region}");
    }
    let names = names_of(&samples);
    for name in ["cpu_seconds_total", "resident_memory_bytes", "open_fds", "start_time_seconds"] {
        assert!(names.contains(format!("process_{name}").as_str()), "{name}");
    }
    let start = samples["process_start_time_seconds"];
    let now = zerocache_net::clock::now().wall_ms as f64 / 1_000.0;
    assert!((now - 600.0..=now + 2.0).contains(&start), "started at {start}, now is {now}");
}

#[test]
fn keys_add_no_series() {
    let cluster = Cluster::start(&["oslo"]);
    let before = parse(&text(&cluster[0]));
    let client = cluster.client("oslo");
    let keys: Vec<String> = (0..KEYS).map(|n| format!("key \"{n}\"\\\n{{}}")).collect();
    for some in keys.chunks(KEYS_AT_ONCE) {
        let entries = some.iter().map(|key| (key.as_str(), "value"));
        client.put_many(entries, 600).deadline(PATIENCE).wait().expect("stored");
        client.get_many(some).deadline(PATIENCE).wait().expect("read");
    }
    let after = parse(&text(&cluster[0]));
    assert_eq!(after["zerocache_node_entries"], KEYS as f64);
    assert!(before.keys().eq(after.keys()), "{after:?}");
    assert!(after.keys().all(|series| !series.contains("key")), "a key is a label");
}

#[test]
fn openmetrics_is_given_to_those_that_ask_for_it() {
    let node = Setup::new("oslo").start();
    let ask = |accept: &str| {
        http::send(node.address(), "GET", "/metrics", &[("Accept", accept)], b"")
            .expect("an answer")
    };
    let plain = ask("*/*");
    assert_eq!(plain.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let open = ask("application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5");
    let kind = open.header("content-type").expect("a type");
    assert!(kind.starts_with("application/openmetrics-text; version=1.0.0"), "{kind}");
    let open = String::from_utf8(open.body).expect("text");
    assert!(open.ends_with("# EOF\n"), "{open}");
    let plain = String::from_utf8(plain.body).expect("text");
    // The names of all series are the same.
    assert!(series_of(&plain) == series_of(&open));
    assert_eq!(parse(&plain).len(), parse(&open).len());
}

/// The series of a text; those of histograms without their buckets, whose labels the formats write in
/// different ways.
fn series_of(text: &str) -> BTreeSet<String> {
    let series = parse(text).into_keys();
    series
        .map(|one| one.split_once("_bucket{").map_or(one.clone(), |(name, _)| name.into()))
        .collect()
}
