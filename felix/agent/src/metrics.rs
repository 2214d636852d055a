//! What the agent tells Prometheus.
//!
//! Owns the names of its own metrics, which never change once released, what is counted for them, and
//! the page. Does not own the figures that the loop has, for which the page asks it, nor the server
//! (see [`caracal_metrics`]).

mod table;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use caracal_bgp_speaker::SpeakerHandle;
use caracal_metrics::{Histogram, HistogramSnapshot, Page, WATCHES, WatchSnapshot, Watches};
use caracal_policy::plan::Direction;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::debug;

pub(crate) use crate::addresses::PoolAddresses;
pub(crate) use crate::policy::Reason;

/// Questions for the figures that wait for the loop: one of each Prometheus server.
const INQUIRIES_DEPTH: usize = 16;

/// What the loop may take over an answer. Less than the ten seconds after which Prometheus takes the
/// whole page for missing.
const ANSWER_PATIENCE: Duration = Duration::from_secs(5);

/// What is counted where it happens and read at a scrape.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// The watches of everything but Secrets.
    pub(crate) watches: Watches,
    /// Changes of policy that the kernel took.
    pub(crate) acknowledged: Histogram,
    /// Those that it did not take.
    pub(crate) failed: Histogram,
    /// Something that the API server should hold could not be written there.
    pub(crate) unwritten: AtomicBool,
    /// The speaker, once it runs.
    pub(crate) speaker: OnceLock<SpeakerHandle>,
}

/// What only the loop knows.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    /// Allowances in the kernel, by direction and what they name.
    pub(crate) rules: BTreeMap<(Direction, &'static str), usize>,
    /// Packets dropped since the start; nothing where the kernel does not say.
    pub(crate) dropped: BTreeMap<Reason, u64>,
    /// By pool.
    pub(crate) addresses: BTreeMap<String, PoolAddresses>,
}

/// Asks for [`Figures`]. Dropped without an answer by a loop that has none yet.
pub(crate) type Inquiry = oneshot::Sender<Figures>;

/// The agent at one moment.
#[derive(Debug)]
struct AgentSnapshot {
    /// None where the loop has none, or no time.
    figures: Option<Figures>,
    acknowledged: HistogramSnapshot,
    failed: HistogramSnapshot,
    config_stale: bool,
    status_stale: bool,
}

/// Serves the page on `address` until `tasks` is dropped. The loop answers what comes out of the
/// receiver.
pub(crate) fn serve(
    address: SocketAddr,
    counts: Arc<Counts>,
    tasks: &mut JoinSet<()>,
) -> mpsc::Receiver<Inquiry> {
    let (inquiries, receiver) = mpsc::channel(INQUIRIES_DEPTH);
    let page = move || {
        let (counts, inquiries) = (Arc::clone(&counts), inquiries.clone());
        async move { Ok(page(&counts, &inquiries).await) }
    };
    tasks.spawn(caracal_metrics::serve(address, page));
    receiver
}

async fn page(counts: &Counts, inquiries: &mpsc::Sender<Inquiry>) -> Page {
    let figures = timeout(ANSWER_PATIENCE, ask(inquiries)).await;
    let watches = counts.watches.snapshot();
    let mut page = Page::default();
    page.add(
        table::METRICS,
        AgentSnapshot {
            figures: figures.unwrap_or_default(),
            acknowledged: counts.acknowledged.snapshot(),
            failed: counts.failed.snapshot(),
            config_stale: watches.iter().any(WatchSnapshot::lags),
            status_stale: counts.unwritten.load(Ordering::Relaxed),
        },
    );
    page.add(WATCHES, watches);
    if let Some(speaker) = counts.speaker.get() {
        match speaker.snapshot().await {
            Ok(snapshot) => caracal_bgp_speaker::metrics::add(&mut page, snapshot),
            Err(error) => debug!(%error, "nothing is known of the speaker"),
        }
    }
    page
}

async fn ask(inquiries: &mpsc::Sender<Inquiry>) -> Option<Figures> {
    let (inquiry, answer) = oneshot::channel();
    inquiries.send(inquiry).await.ok()?;
    answer.await.ok()
}
