//! `deploy/prometheus` and `deploy/grafana`: the rules do what they say, and both name only metrics that nodes
//! have and headings that `docs/operation.md` has.
//!
//! The tests of the rules need `promtool`, see `metrics.rs`.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value as Json;
use zerocache_tests::{
    cluster::Cluster,
    metrics::{name, parse, promtool, run_promtool, text},
    namespace::skip,
    security::tool,
    setup::{Access, Setup},
};

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name)
}

fn read(name: &str) -> String {
    fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn dashboard() -> Json {
    serde_json::from_str(&read("deploy/grafana/zerocache.json")).expect("JSON")
}

/// The queries of all panels, with values for the variables of Grafana.
fn queries(dashboard: &Json) -> Vec<String> {
    let panels = dashboard["panels"].as_array().expect("panels");
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    let queries = targets.map(|target| target["expr"].as_str().expect("a query").to_owned());
    let filled = queries.map(|query| query.replace("$__rate_interval", "5m"));
    filled.map(|query| query.replace("$node", ".*").replace("$cluster", "zerocache")).collect()
}

/// The names of metrics in a text: those of nodes and those of every process.
fn named(text: &str) -> BTreeSet<&str> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = text.split(|c| !is_name(c));
    words
        .filter(|word| word.starts_with("zerocache_node_") || word.starts_with("process_"))
        .collect()
}

/// The names of all metrics that nodes have: with peers that get a write, with a seed, with certificates from files.
fn of_nodes() -> BTreeSet<String> {
    let cluster = Cluster::start(&["oslo", "rome"]);
    // Its delay to the other region is measured.
    cluster[0].put(b"a", b"value", "ttl=60&ack=all");
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str| folder.path().join(name).to_str().expect("text").to_owned();
    let [ca, ca_key, cert, key] = ["ca", "ca-key", "cert", "key"].map(file);
    let _made = tool(&["cert", "create-ca", "--ca", &ca, "--ca-key", &ca_key], None);
    let setup = Setup::new("oslo").access(Access::Flags);
    let ip = setup.listen.ip().to_string();
    let issue = ["cert", "node", "--region", "oslo", "--name", &ip, "--cert", &cert, "--key", &key];
    let _issued = tool(&[&issue[..], &["--ca", &ca, "--ca-key", &ca_key]].concat(), None);
    let flags = [("--tls-cert", &cert), ("--tls-key", &key), ("--tls-ca", &ca)];
    let setup = flags.iter().fold(setup, |setup, (flag, file)| setup.flag(flag, file));
    let certified = setup.flag("--tls", "optional").start();
    let mut names = BTreeSet::new();
    for text in cluster.nodes.iter().map(text).chain([text(&certified)]) {
        names.extend(parse(&text).keys().map(|series| name(series).to_owned()));
    }
    names
}

#[test]
fn rules_and_dashboard_name_only_metrics_that_nodes_have() {
    let there = of_nodes();
    let (rules, tests) =
        (read("deploy/prometheus/alerts.yml"), read("deploy/prometheus/alerts_test.yml"));
    let queries = queries(&dashboard()).join("\n");
    for (file, text) in
        [("alerts.yml", &rules), ("alerts_test.yml", &tests), ("zerocache.json", &queries)]
    {
        let named = named(text);
        assert!(named.len() > 10, "{file}: {named:?}");
        let unknown: Vec<_> = named.iter().filter(|name| !there.contains(**name)).collect();
        assert!(unknown.is_empty(), "{file} names metrics that no node has: {unknown:?}");
    }
}

/// The values of a field in YAML whose every value is on the line of its name.
fn fields<'a>(yaml: &'a str, field: &str) -> Vec<&'a str> {
    let lines = yaml.lines().map(|line| line.trim_start().trim_start_matches("- "));
    lines.filter_map(|line| line.strip_prefix(field)?.strip_prefix(": ")).collect()
}

#[test]
fn every_alert_has_a_test_and_a_heading_in_the_runbook() {
    let (rules, tests) =
        (read("deploy/prometheus/alerts.yml"), read("deploy/prometheus/alerts_test.yml"));
    let operation = read("docs/operation.md");
    let headings: BTreeSet<_> =
        operation.lines().filter_map(|line| line.strip_prefix("### ")).collect();
    let (alerts, runbooks) = (fields(&rules, "alert"), fields(&rules, "runbook"));
    assert!(alerts.len() > 10 && alerts.len() == runbooks.len(), "{alerts:?} {runbooks:?}");
    let tested: BTreeSet<_> = fields(&tests, "name").into_iter().collect();
    for (alert, runbook) in alerts.iter().zip(runbooks) {
        assert!(headings.contains(alert), "docs/operation.md has no heading {alert}");
        assert_eq!(runbook, format!("docs/operation.md#{}", alert.to_lowercase()), "{alert}");
        assert!(tested.contains(alert), "alerts_test.yml does not test {alert}");
    }
    let alerts: BTreeSet<_> = alerts.into_iter().collect();
    let stale = headings.iter().filter(|heading| heading.starts_with("Zerocache"));
    let stale: Vec<_> = stale.filter(|heading| !alerts.contains(**heading)).collect();
    assert!(stale.is_empty(), "headings without an alert: {stale:?}");
}

#[test]
fn promtool_accepts_rules_their_tests_and_the_queries_of_the_dashboard() {
    const TEST: &str = "promtool_accepts_rules_their_tests_and_the_queries_of_the_dashboard";
    let promtool = match promtool() {
        Ok(promtool) => promtool,
        Err(why) => return skip(TEST, &why),
    };
    let check = |args: &[&str]| {
        let output = run_promtool(&promtool, args, "");
        let said =
            [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
        assert!(output.status.success(), "{args:?}: {said:?}");
    };
    let (rules, tests) =
        (path("deploy/prometheus/alerts.yml"), path("deploy/prometheus/alerts_test.yml"));
    check(&["check", "rules", rules.to_str().expect("text")]);
    check(&["test", "rules", tests.to_str().expect("text")]);
    // It checks no queries, but rules: each query is one.
    let mut recorded = "groups:\n- name: dashboard\n  rules:\n".to_owned();
    for (number, query) in queries(&dashboard()).iter().enumerate() {
        let query = Json::from(query.as_str());
        recorded.push_str(&format!("  - {{record: query_{number}, expr: {query}}}\n"));
    }
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("dashboard.yml");
    fs::write(&file, &recorded).expect("written");
    check(&["check", "rules", file.to_str().expect("text")]);
}

#[test]
fn dashboard_takes_its_data_source_from_whoever_imports_it() {
    let dashboard = dashboard();
    assert_eq!(dashboard["__inputs"][0]["name"], "DS_PROMETHEUS");
    assert!(dashboard["schemaVersion"].as_u64().is_some_and(|version| version >= 30));
    let panels = dashboard["panels"].as_array().expect("panels");
    let mut ids = BTreeSet::new();
    for panel in panels {
        assert!(ids.insert(panel["id"].as_u64()), "an id is there twice: {panel}");
        if panel["type"] != "row" {
            assert_eq!(panel["datasource"]["uid"], "${DS_PROMETHEUS}", "{panel}");
            assert!(
                panel["targets"].as_array().is_some_and(|targets| !targets.is_empty()),
                "{panel}"
            );
        }
    }
}
