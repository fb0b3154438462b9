//! What the observability example asks Prometheus for.

use std::collections::BTreeSet;
use std::fs;

use pelton_tests::metrics::listed;
use pelton_tests::tools::root;

/// The files with queries, and how many metrics each names at least: a dashboard that lost its queries would pass otherwise.
const FILES: [(&str, usize); 2] = [("grafana/dashboards/pelton.json", 30), ("alerts.yml", 8)];

/// The names of our metrics in a text.
fn named(text: &str) -> BTreeSet<String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = text.split(|c: char| !is_part(c));
    words.filter(|word| word.starts_with("pelton_")).map(str::to_owned).collect()
}

#[test]
fn every_metric_that_the_example_asks_for_exists() {
    let known: BTreeSet<String> =
        listed().expect("host/METRICS.md").iter().flat_map(|metric| metric.samples()).collect();
    for (file, at_least) in FILES {
        let text = fs::read_to_string(root().join("examples/observability").join(file)).expect(file);
        let named = named(&text);
        assert!(named.len() >= at_least, "examples/observability/{file} asks for few metrics: {named:?}");
        let unknown: Vec<_> = named.difference(&known).collect();
        assert!(unknown.is_empty(), "examples/observability/{file}: host/METRICS.md has no {unknown:?}");
    }
}

#[test]
fn the_dashboard_is_json_and_every_query_is_of_ours() {
    let file = root().join("examples/observability/grafana/dashboards/pelton.json");
    let dashboard: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(file).expect("a dashboard")).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let queries: Vec<&str> = targets.filter_map(|target| target["expr"].as_str()).collect();
    assert!(queries.len() > 30, "{queries:?}");
    for query in queries {
        assert!(!named(query).is_empty(), "{query}");
    }
}
