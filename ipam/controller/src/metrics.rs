//! What the controller tells Prometheus.
//!
//! Owns the names of its own metrics, which never change once released, what is counted for them over
//! all terms, and the page. Does not own the server (see [`caracal_metrics`]).

mod table;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use caracal_ipam_core::PoolName;
use caracal_ipam_core::controller::PoolReport;
use caracal_metrics::{Histogram, HistogramSnapshot, Page, WATCHES, Watches};
use tokio::task::JoinSet;

/// What is counted where it happens and read at a scrape. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts {
    /// The leader's watches.
    pub(crate) watches: Watches,
    pools: Arc<Mutex<BTreeMap<PoolName, PoolCounts>>>,
}

#[derive(Debug, Default)]
struct PoolCounts {
    /// As the leader last reckoned; none where another leads.
    report: Option<PoolReport>,
    claims: Histogram,
    conflicts: u64,
}

/// The attempt to claim a block, since it was decided upon.
#[derive(Debug)]
pub(crate) struct Claim {
    counts: Counts,
    pool: PoolName,
    decided: Instant,
}

/// A pool at one moment.
#[derive(Debug)]
struct PoolSnapshot {
    name: String,
    report: Option<PoolReport>,
    claims: HistogramSnapshot,
    conflicts: u64,
}

/// Serves the page on `address` until `tasks` is dropped.
pub(crate) fn serve(address: SocketAddr, counts: Counts, tasks: &mut JoinSet<()>) {
    let page = move || {
        let page = counts.page();
        async move { Ok(page) }
    };
    tasks.spawn(caracal_metrics::serve(address, page));
}

impl Counts {
    /// What the leader reckons of a pool now.
    pub(crate) fn reported(&self, pool: &PoolName, report: PoolReport) {
        self.pools().entry(pool.clone()).or_default().report = Some(report);
    }

    /// Nothing can be reckoned of the pool.
    pub(crate) fn unreported(&self, pool: &PoolName) {
        if let Some(pool) = self.pools().get_mut(pool) {
            pool.report = None;
        }
    }

    /// The pool is gone.
    pub(crate) fn forget(&self, pool: &PoolName) {
        self.pools().remove(pool);
    }

    /// It was decided to claim a block of the pool.
    pub(crate) fn claim(&self, pool: &PoolName) -> Claim {
        Claim {
            counts: self.clone(),
            pool: pool.clone(),
            decided: Instant::now(),
        }
    }

    /// This process leads no more, and knows nothing of what another does. What it has counted stays.
    pub(crate) fn end_term(&self) {
        self.watches.end();
        for pool in self.pools().values_mut() {
            pool.report = None;
        }
    }

    fn page(&self) -> Page {
        let pools = self.pools();
        let pools = pools.iter().map(|(name, counts)| PoolSnapshot {
            name: name.0.clone(),
            report: counts.report.clone(),
            claims: counts.claims.snapshot(),
            conflicts: counts.conflicts,
        });
        let mut page = Page::default();
        page.add(table::METRICS, pools.collect());
        page.add(WATCHES, self.watches.snapshot());
        page
    }

    fn pools(&self) -> MutexGuard<'_, BTreeMap<PoolName, PoolCounts>> {
        // No step in here can panic half-way.
        self.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Claim {
    /// The block is granted.
    pub(crate) fn won(self) {
        if let Some(pool) = self.counts.pools().get_mut(&self.pool) {
            pool.claims.observe(self.decided.elapsed());
        }
    }

    /// Somebody else has it.
    pub(crate) fn lost(self) {
        if let Some(pool) = self.counts.pools().get_mut(&self.pool) {
            pool.conflicts += 1;
        }
    }
}
