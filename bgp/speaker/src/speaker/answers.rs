//! Answers to those who ask how things stand.
//!
//! Owns what is put together from sessions and the RIB. Does not own either: a busy RIB delays an
//! answer, not the supervisor.

use std::sync::Arc;
use std::time::Duration;

use caracal_bgp_core::rib::{PeerIndex, Rib};
use caracal_bgp_core::types::{Family, Prefix};
use tokio::sync::oneshot;

use crate::config::{Endpoint, PeerConfig, PeerName};
use crate::explain::{self, Account};
use crate::snapshot::{
    ChannelSnapshot, Explanation, FibCountSnapshot, ForwardingSnapshot, PeerRoutesSnapshot,
    RangeSnapshot, RibSnapshot, SpeakerSnapshot,
};
use crate::speaker::Supervisor;
use crate::translate::families;

/// How long a snapshot waits for a busy RIB before it shows sessions without counts.
const COUNT_PATIENCE: Duration = Duration::from_secs(2);

/// A peer, with what only the supervisor knows of it.
struct Asked {
    name: PeerName,
    index: PeerIndex,
    config: Arc<PeerConfig>,
    range: Option<String>,
    link_trouble: Option<String>,
}

impl Supervisor {
    pub(super) fn snapshot(&self, answer: oneshot::Sender<SpeakerSnapshot>) {
        let rib = self.rib.clone();
        let board = self.board.clone();
        let (asn, router_id) = (self.config.asn, self.config.router_id);
        let peers = self.peers.iter().map(|(name, peer)| Asked {
            name: name.clone(),
            index: peer.index,
            config: Arc::clone(&peer.config),
            range: peer.admitted.as_ref().map(|(range, _)| range.0.clone()),
            link_trouble: self.link_trouble(name, peer),
        });
        let peers: Vec<Asked> = peers.collect();
        let stations = self.exports.snapshot();
        let channels = self.channels();
        let forwarding = self.forwarding();
        let ranges = self
            .peers
            .ranges()
            .into_iter()
            .map(range_snapshot)
            .collect();
        tokio::spawn(async move {
            let counts = rib.query(|rib| (rib.peers(), rib.untold(), rib_snapshot(rib)));
            let counts = tokio::time::timeout(COUNT_PATIENCE, counts).await;
            let (mut views, rib) = match counts.ok().flatten() {
                Some((views, untold, rib)) => (Some((views, untold)), Some(rib)),
                None => (None, None),
            };
            let peers = peers
                .into_iter()
                .map(|peer| {
                    let Asked {
                        name,
                        index,
                        config,
                        range,
                        link_trouble,
                    } = peer;
                    let routes = views.as_mut().map(|(views, untold)| PeerRoutesSnapshot {
                        untold: untold.get(&index).copied().unwrap_or(0),
                        families: families(views.remove(&index).unwrap_or_default()),
                    });
                    board.snapshot(&name, &config, asn, range, link_trouble, routes)
                })
                .collect();
            // Whoever asked may have given up.
            let _ = answer.send(SpeakerSnapshot {
                asn,
                router_id,
                rib,
                forwarding,
                channels,
                peers,
                ranges,
                stations,
            });
        });
    }

    /// What the way to the kernel takes, where there is one.
    fn forwarding(&self) -> Option<ForwardingSnapshot> {
        let work = self.fib_work.as_ref()?;
        Some(ForwardingSnapshot {
            update_to_fib: self.update_to_fib.snapshot(),
            writes: work.writes(),
            repairs: work.all_repairs(),
        })
    }

    fn channels(&self) -> Vec<ChannelSnapshot> {
        let rib = &self.rib.0;
        let records = self.exports.trace().backlog();
        [
            ("rib", rib.max_capacity() - rib.capacity(), None),
            ("fib", self.fib_queue.len(), None),
            ("records", records.waiting, Some(records.dropped)),
        ]
        .map(|(name, depth, dropped)| ChannelSnapshot {
            name: name.to_owned(),
            depth,
            dropped,
        })
        .to_vec()
    }

    pub(super) fn explain(&self, prefix: Prefix, answer: oneshot::Sender<Explanation>) {
        let rib = self.rib.clone();
        let names = self.peers.by_index();
        let window = self.fib_window.clone();
        tokio::spawn(async move {
            let account = rib.query(move |rib| {
                let Some(view) = rib.covering(&prefix) else {
                    return Account::default();
                };
                Account {
                    kernel: None,
                    import: rib.explain_import(&view.prefix),
                    told: rib.told(&view.prefix),
                    view: Some(view),
                }
            });
            let Some(mut account) = account.await else {
                return;
            };
            if let (Some(window), Some(view)) = (window, &account.view) {
                let (shown, kernel) = oneshot::channel();
                window.look(view.prefix, shown);
                let kernel = tokio::time::timeout(COUNT_PATIENCE, kernel).await;
                account.kernel = kernel.ok().and_then(Result::ok);
            }
            let _ = answer.send(explain::explain(prefix, account, &names));
        });
    }
}

fn rib_snapshot(rib: &Rib) -> RibSnapshot {
    let counts = rib.counts();
    let fib = Family::ALL.map(|family| {
        let fib = counts.fib[family.index()];
        FibCountSnapshot {
            family,
            pending: fib.pending,
            installed: fib.installed,
            failed: fib.failed,
            best_path_changes: counts.best_changes[family.index()],
        }
    });
    RibSnapshot {
        deferring: rib.deferring(),
        prefixes: counts.prefixes,
        fib: fib.to_vec(),
    }
}

fn range_snapshot((name, config, used): (PeerName, Arc<PeerConfig>, usize)) -> RangeSnapshot {
    let (prefixes, limit) = match &config.remote {
        Endpoint::Range { prefixes, limit } => {
            (prefixes.iter().map(ToString::to_string).collect(), *limit)
        }
        Endpoint::Address(_) | Endpoint::Interface { .. } => (Vec::new(), 0),
    };
    RangeSnapshot {
        name: name.0,
        prefixes,
        limit,
        used,
    }
}
