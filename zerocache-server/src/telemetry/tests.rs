use std::{collections::BTreeSet, fs, path::Path};

use super::*;

/// The rows of the table below a heading of `docs/operation.md`: the names in the first column, and
/// the second column.
fn documented(heading: &str) -> Vec<(Vec<String>, String)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/operation.md");
    let text = fs::read_to_string(path).expect("docs/operation.md");
    let section = text.split_once(&format!("\n{heading}\n")).expect("the section").1;
    let section = section.split("\n## ").next().unwrap_or_default();
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    let row = |line: &str| {
        let mut columns = line.split('|').skip(1);
        let names = columns.next().unwrap_or_default();
        let names = names.split('`').skip(1).step_by(2).map(str::to_owned).collect();
        (names, columns.next().unwrap_or_default().trim().to_owned())
    };
    rows.map(row).collect()
}

#[test]
fn every_metric_is_documented_and_no_other() {
    let documented = documented("## /v1/stats");
    let names: Vec<_> = documented.iter().flat_map(|(names, _)| names.clone()).collect();
    let unique: BTreeSet<_> = names.iter().cloned().collect();
    assert_eq!(unique.len(), names.len(), "a metric is documented twice: {names:?}");
    let exported: BTreeSet<_> = metrics().map(|metric| metric.name.to_owned()).collect();
    assert_eq!(exported.len(), metrics().count(), "a metric is in the table twice");
    assert_eq!(unique, exported);
}

#[test]
fn gauges_are_documented_as_gauges() {
    for (names, meaning) in documented("## /v1/stats") {
        for metric in metrics().filter(|metric| names.contains(&metric.name.to_owned())) {
            let is_gauge = metric.kind == Kind::Gauge;
            assert_eq!(meaning.starts_with("gauge"), is_gauge, "{}: {meaning}", metric.name);
        }
    }
}

#[test]
fn names_show_the_unit_and_help_is_one_sentence() {
    for Metric { name, unit, help, .. } in metrics() {
        let has = |word: &str| name.split('_').any(|part| part == word);
        assert_eq!(name.ends_with("_ms"), *unit == Unit::Milliseconds, "{name}");
        assert!(*unit != Unit::Bytes || has("bytes"), "{name}");
        let is_name = |c: char| c.is_ascii_lowercase() || c == '_';
        assert!(name.chars().all(is_name), "{name}");
        assert!(help.ends_with('.') && help.matches(". ").count() == 0, "{name}: {help}");
    }
}
