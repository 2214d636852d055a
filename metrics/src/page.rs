//! What one scrape is answered with.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::registry::Registry;

use crate::metric::{Metric, Read, Sample};

/// What every process tells.
pub const PROCESS: &[Metric<()>] = &[Metric {
    name: "caracal_build_info",
    labels: &["version"],
    help: "Always 1; the label says what runs",
    read: Read::Gauge(|()| vec![Sample(vec![env!("CARGO_PKG_VERSION").to_owned()], 1)]),
}];

/// A page in the making. It begins with [`PROCESS`].
#[derive(Debug)]
pub struct Page(Registry);

impl Default for Page {
    fn default() -> Self {
        let mut page = Self(Registry::default());
        page.add(PROCESS, ());
        page
    }
}

impl Page {
    /// Adds `metrics`, as `source` has them now. No two tables of a page may have a name in common.
    pub fn add<S>(&mut self, metrics: &'static [Metric<S>], source: S)
    where
        S: fmt::Debug + Send + Sync + 'static,
    {
        let figures = Figures { metrics, source };
        self.0.register_collector(Box::new(figures));
    }

    /// The page in the text form of OpenMetrics 1.0, which Prometheus reads.
    ///
    /// # Errors
    /// Never in practice: strings can be written to.
    pub fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.0)?;
        Ok(text)
    }
}

#[derive(Debug)]
struct Figures<S: 'static> {
    metrics: &'static [Metric<S>],
    source: S,
}

impl<S: fmt::Debug + Send + Sync + 'static> Collector for Figures<S> {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut metrics = self.metrics.iter();
        metrics.try_for_each(|metric| metric.encode(&self.source, &mut encoder))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    const DOCUMENT: &str = include_str!("../../docs/metrics.md");

    const TABLE: &[Metric<u64>] = &[
        Metric {
            name: "caracal_test_total",
            labels: &["what"],
            help: "Counted",
            read: Read::Counter(|count| vec![Sample(vec!["a\"b".into()], *count)]),
        },
        Metric {
            name: "caracal_test_absent",
            labels: &[],
            help: "Not known",
            read: Read::Gauge(|_| Vec::new()),
        },
    ];

    #[test]
    fn tables_stand_one_after_the_other_and_what_is_not_known_is_absent() {
        let mut page = Page::default();
        page.add(TABLE, 3);
        let version = env!("CARGO_PKG_VERSION");
        let expected = format!(
            "# HELP caracal_build_info Always 1; the label says what runs\n\
             # TYPE caracal_build_info gauge\n\
             caracal_build_info{{version=\"{version}\"}} 1\n\
             # HELP caracal_test Counted\n\
             # TYPE caracal_test counter\n\
             caracal_test_total{{what=\"a\\\"b\"}} 3\n\
             # EOF\n"
        );
        assert_eq!(page.text().unwrap(), expected);
    }

    #[test]
    fn the_document_has_the_table_of_the_code() {
        testing::check(PROCESS, &());
        testing::check_documented(PROCESS, DOCUMENT);
    }
}
