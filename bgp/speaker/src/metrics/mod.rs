//! What the speaker counts, for Prometheus.
//!
//! Owns the names, which never change once released, and how they are read from a snapshot: numbers
//! are gathered when somebody asks, and nothing is kept for them. Does not own the counts.
//!
//! Labels are peers, ranges, families and words from closed lists, never prefixes: there are as many
//! series as the configuration asks for.

mod serve;
mod table;
#[cfg(test)]
mod tests;

use std::fmt;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use crate::snapshot::SpeakerSnapshot;
use crate::status::HistogramSnapshot;

pub(crate) use serve::serve;

/// One metric.
struct Metric {
    /// As it is scraped.
    name: &'static str,
    /// Names of its labels, in the order of the values of a sample.
    labels: &'static [&'static str],
    /// What it says.
    help: &'static str,
    read: Read,
}

/// What a metric is, and where its series come from.
enum Read {
    /// Goes up and down.
    Gauge(fn(&SpeakerSnapshot) -> Vec<Sample>),
    /// Goes up and down, in fractions of a second.
    Seconds(fn(&SpeakerSnapshot) -> Vec<Sample<Duration>>),
    /// Only grows, from zero at the start of the speaker. Its name ends in `_total`.
    Counter(fn(&SpeakerSnapshot) -> Vec<Sample>),
    /// Durations since the start of the speaker, by how long they were.
    Histogram(fn(&SpeakerSnapshot) -> Vec<Sample<HistogramSnapshot>>),
}

/// One series: the values of its labels, and what it is at.
struct Sample<T = u64>(Vec<String>, T);

/// The snapshot in the text form of OpenMetrics 1.0, which Prometheus reads.
///
/// # Errors
/// Never in practice: strings can be written to.
fn encode(speaker: SpeakerSnapshot) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Scrape(speaker)));
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry)?;
    Ok(text)
}

#[derive(Debug)]
struct Scrape(SpeakerSnapshot);

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let speaker = &self.0;
        for metric in table::METRICS {
            let encoder = &mut encoder;
            match metric.read {
                Read::Gauge(read) => metric.write(read(speaker), encoder, |value, series| {
                    ConstGauge::new(*value).encode(series)
                }),
                Read::Seconds(read) => metric.write(read(speaker), encoder, |value, series| {
                    ConstGauge::new(value.as_secs_f64()).encode(series)
                }),
                Read::Counter(read) => metric.write(read(speaker), encoder, |value, series| {
                    ConstCounter::new(*value).encode(series)
                }),
                Read::Histogram(read) => metric.write(read(speaker), encoder, histogram),
            }?;
        }
        Ok(())
    }
}

impl Metric {
    fn kind(&self) -> MetricType {
        match self.read {
            Read::Gauge(_) | Read::Seconds(_) => MetricType::Gauge,
            Read::Counter(_) => MetricType::Counter,
            Read::Histogram(_) => MetricType::Histogram,
        }
    }

    /// Writes every series; nothing at all where there is none.
    fn write<T>(
        &self,
        samples: Vec<Sample<T>>,
        encoder: &mut DescriptorEncoder<'_>,
        write: impl Fn(&T, MetricEncoder<'_>) -> Result<(), fmt::Error>,
    ) -> Result<(), fmt::Error> {
        if samples.is_empty() {
            return Ok(());
        }
        // The encoder writes the ending of counters.
        let name = self.name.strip_suffix("_total").unwrap_or(self.name);
        let mut family = encoder.encode_descriptor(name, self.help, None, self.kind())?;
        if self.labels.is_empty() {
            // Without braces, and there is but one.
            return match samples.first() {
                Some(Sample(_, value)) => write(value, family),
                None => Ok(()),
            };
        }
        for Sample(values, value) in samples {
            let names = self.labels.iter().copied();
            let labels: Vec<(&str, String)> = names.zip(values).collect();
            write(&value, family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

fn histogram(
    histogram: &HistogramSnapshot,
    mut series: MetricEncoder<'_>,
) -> Result<(), fmt::Error> {
    let seconds = |us: u64| Duration::from_micros(us).as_secs_f64();
    let buckets = histogram.buckets.iter();
    let buckets =
        buckets.map(|bucket| (bucket.up_to_us.map_or(f64::INFINITY, seconds), bucket.count));
    let buckets: Vec<(f64, u64)> = buckets.collect();
    let (sum, count) = (seconds(histogram.sum_us), histogram.count());
    series.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
}
