//! One metric: what it is called, and where its series come from.

use std::fmt;
use std::time::Duration;

use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::histogram::HistogramSnapshot;

/// One metric, read from an `S`.
#[derive(Debug)]
pub struct Metric<S: 'static> {
    /// As it is scraped. Begins with `caracal_`.
    pub name: &'static str,
    /// Names of its labels, in the order of the values of a sample.
    pub labels: &'static [&'static str],
    /// What it says, in a sentence without its full stop.
    pub help: &'static str,
    /// What it is, and where its series come from.
    pub read: Read<S>,
}

/// What a metric is, and where its series come from. What is not known has no series.
#[derive(Debug)]
pub enum Read<S: 'static> {
    /// Goes up and down.
    Gauge(fn(&S) -> Vec<Sample>),
    /// Goes up and down, in fractions of a second. Its name ends in `_seconds`.
    Seconds(fn(&S) -> Vec<Sample<Duration>>),
    /// Only grows, from zero at the start of the process. Its name ends in `_total`.
    Counter(fn(&S) -> Vec<Sample>),
    /// Durations since the start of the process, by how long they were. Its name ends in `_seconds`.
    Histogram(fn(&S) -> Vec<Sample<HistogramSnapshot>>),
}

/// One series: the values of its labels, and what it is at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample<T = u64>(pub Vec<String>, pub T);

impl<S> Metric<S> {
    /// Writes every series; nothing at all where there is none.
    pub(crate) fn encode(
        &self,
        source: &S,
        encoder: &mut DescriptorEncoder<'_>,
    ) -> Result<(), fmt::Error> {
        match self.read {
            Read::Gauge(read) => self.write(read(source), encoder, |value, series| {
                ConstGauge::new(*value).encode(series)
            }),
            Read::Seconds(read) => self.write(read(source), encoder, |value, series| {
                ConstGauge::new(value.as_secs_f64()).encode(series)
            }),
            Read::Counter(read) => self.write(read(source), encoder, |value, series| {
                ConstCounter::new(*value).encode(series)
            }),
            Read::Histogram(read) => self.write(read(source), encoder, histogram),
        }
    }

    /// What OpenMetrics calls it.
    pub(crate) fn kind(&self) -> MetricType {
        match self.read {
            Read::Gauge(_) | Read::Seconds(_) => MetricType::Gauge,
            Read::Counter(_) => MetricType::Counter,
            Read::Histogram(_) => MetricType::Histogram,
        }
    }

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
