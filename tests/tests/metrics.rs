//! `/metrics` of real nodes: accepted by Prometheus' linter, complete, and of bounded size.
//!
//! The linter is `promtool` of Debian's package `prometheus`; `.ci/run` unpacks it. Without it a test reports
//! itself as skipped, unless `CI=true`.

use std::collections::BTreeSet;

use serde_json::Value as Json;
use zerocache_server::telemetry::{Kind, METRICS, Metric, Unit};
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
    let names: BTreeSet<_> = METRICS.iter().map(|metric| metric.name).collect();
    let fields = before.as_object().expect("an object");
    assert_eq!(fields.keys().map(String::as_str).collect::<BTreeSet<_>>(), names);
    for metric in METRICS {
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
    assert!(parse(&plain).keys().eq(parse(&open).keys()));
}
