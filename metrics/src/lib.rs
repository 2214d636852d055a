//! What a process tells Prometheus.
//!
//! Owns how metrics are described, written and served, durations counted by how long they were, how
//! watches stand, and the loop that serves clients of a local service. Does not own what else is
//! counted, nor its names: those are in a table of [`Metric`]s where the counts are.
//!
//! Names never change once released. Numbers are gathered when somebody asks, and nothing is kept for
//! them. Labels are names from the configuration and words from closed lists, so there are as many
//! series as the configuration asks for.

pub mod accept;
mod histogram;
mod metric;
mod page;
mod serve;
#[cfg(any(test, feature = "test-support"))]
pub mod testing;
mod watch;

pub use histogram::{BOUNDS_US, Bucket, Histogram, HistogramSnapshot};
pub use metric::{Metric, Read, Sample};
pub use page::{PROCESS, Page};
pub use serve::serve;
pub use watch::{WATCHES, Watch, WatchSnapshot, Watches};
