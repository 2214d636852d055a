//! What sessions show of themselves: their present state, what happened last, and how often.
//!
//! Owns what can be read without asking a session. Does not own routes.

mod board;
mod counters;
mod history;
mod peer;
mod why;

pub use caracal_metrics::{BOUNDS_US, Bucket, Histogram, HistogramSnapshot};

pub(crate) use board::{Board, PeerBoard, Said, Status, now_ms};
pub use counters::{CounterSnapshot, MessageCounts, NotificationCount};
pub use counters::{Direction, FlapReason};
pub(crate) use history::{EventNote, MessageNote, UpdateNote};
pub use history::{EventRecord, HistorySnapshot, MessageRecord};
pub use why::{DownReason, Why};
