//! What goes between the engine and the thread that talks to clients.

use std::collections::BTreeMap;

use super::Details;
use crate::proto::SessionKey;
use crate::registry::{Order, Transition};

/// What the engine is told.
#[derive(Debug)]
pub(crate) enum Command {
    /// Sessions to run, change or end.
    Orders(Vec<Order>),
    /// Answer with [`Report::Details`].
    Describe {
        /// Comes back in the answer.
        token: u64,
    },
    /// Tell every peer AdminDown, then end.
    Stop,
}

/// What the engine tells.
#[derive(Debug)]
pub(crate) enum Report {
    /// A session has changed its state. Numbers may be left out when they were not taken in time.
    Changed {
        key: SessionKey,
        transition: Transition,
    },
    /// A session cannot send, for this reason, or can again.
    Problem {
        key: SessionKey,
        problem: Option<String>,
    },
    /// A session has ended.
    Gone { key: SessionKey },
    /// The answer to [`Command::Describe`].
    Details {
        token: u64,
        sessions: Vec<Details>,
        unmatched: BTreeMap<&'static str, u64>,
        scheduling: String,
    },
}
