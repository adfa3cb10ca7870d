use std::collections::{BTreeMap, BTreeSet};

use super::*;

#[test]
fn series_of_the_table_are_distinct_and_of_one_kind() {
    let mut families: BTreeMap<String, Vec<&Metric>> = BTreeMap::new();
    for metric in METRICS {
        families.entry(metric.base_name()).or_default().push(metric);
    }
    for (name, metrics) in &families {
        let first = metrics[0];
        let labels: BTreeSet<_> = metrics.iter().map(|metric| metric.label).collect();
        assert_eq!(labels.len(), metrics.len(), "{name}: two series are the same");
        for metric in metrics {
            assert_eq!(metric.kind, first.kind, "{name}");
            assert_eq!(metric.unit, first.unit, "{name}");
            let label = |metric: &Metric| metric.label.map(|(label, _)| label);
            assert_eq!(label(metric), label(first), "{name}");
        }
        let described = FAMILIES.iter().filter(|(family, _)| family == name).count();
        assert_eq!(described, usize::from(first.label.is_some()), "{name}");
    }
    for (family, help) in FAMILIES {
        assert!(families.contains_key(*family), "{family} has no series");
        assert!(help.ends_with('.') && !help.contains(". "), "{family}: {help}");
    }
}

#[test]
fn openmetrics_is_for_those_that_ask_for_it() {
    let prometheus = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5";
    assert_eq!(Format::accepted_by(Some(prometheus)), Format::OpenMetrics);
    for other in [None, Some("*/*"), Some("text/plain"), Some("application/json")] {
        assert_eq!(Format::accepted_by(other), Format::Text);
    }
}
