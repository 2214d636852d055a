//! What is asked of every table of metrics.

use std::collections::BTreeSet;

use crate::metric::{Metric, Read, Sample};

/// Names and labels follow the rules, and `everything` has a series of each metric.
///
/// # Panics
/// Where not.
pub fn check<S>(metrics: &[Metric<S>], everything: &S) {
    let names: BTreeSet<&str> = metrics.iter().map(|metric| metric.name).collect();
    assert_eq!(names.len(), metrics.len(), "a name twice");
    for metric in metrics {
        let name = metric.name;
        let counter = matches!(metric.read, Read::Counter(_));
        let fractions = matches!(metric.read, Read::Seconds(_) | Read::Histogram(_));
        assert!(name.starts_with("caracal_"), "{name}");
        assert_eq!(name.ends_with("_total"), counter, "{name}");
        assert!(!fractions || name.ends_with("_seconds"), "{name}");
        let series = match metric.read {
            Read::Gauge(read) | Read::Counter(read) => labels(read(everything)),
            Read::Seconds(read) => labels(read(everything)),
            Read::Histogram(read) => labels(read(everything)),
        };
        assert!(!series.is_empty(), "{name} has no series");
        let distinct: BTreeSet<&Vec<String>> = series.iter().collect();
        assert_eq!(distinct.len(), series.len(), "{name}: a series twice");
        for values in &series {
            assert_eq!(values.len(), metric.labels.len(), "{name}: {values:?}");
        }
    }
}

/// The document has the metrics as one table, word by word. A file that `CARACAL_METRICS_TABLE` names
/// gets what it should have.
///
/// # Panics
/// Where not, with the table.
pub fn check_documented<S>(metrics: &[Metric<S>], document: &str) {
    let mut table = "| metric | kind | labels | meaning |\n|---|---|---|---|\n".to_owned();
    for metric in metrics {
        let labels: Vec<String> = metric.labels.iter().map(|it| format!("`{it}`")).collect();
        let (name, kind, help) = (metric.name, metric.kind(), metric.help);
        let (kind, labels) = (kind.as_str(), labels.join(", "));
        table.push_str(&format!("| `{name}` | {kind} | {labels} | {help} |\n"));
    }
    table.push('\n');
    if let Ok(file) = std::env::var("CARACAL_METRICS_TABLE") {
        std::fs::write(file, &table).expect("the file can be written");
    }
    assert!(
        document.contains(&table),
        "docs/metrics.md has drifted; its table shall be\n{table}"
    );
}

fn labels<T>(samples: Vec<Sample<T>>) -> Vec<Vec<String>> {
    let samples = samples.into_iter();
    samples.map(|Sample(values, _)| values).collect()
}
