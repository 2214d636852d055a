//! Answers to those who ask how things stand.
//!
//! Owns what is put together from sessions and the RIB. Does not own either: a busy RIB delays an
//! answer, not the supervisor.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use caracal_bgp_core::rib::PeerIndex;
use caracal_bgp_core::types::Prefix;
use tokio::sync::oneshot;

use crate::config::{Endpoint, PeerConfig, PeerName};
use crate::explain;
use crate::snapshot::{Explanation, RangeSnapshot, RouteSnapshot, SpeakerSnapshot};
use crate::speaker::Supervisor;
use crate::translate::families;

/// How long a snapshot waits for a busy RIB before it shows sessions without counts.
const COUNT_PATIENCE: Duration = Duration::from_secs(2);

impl Supervisor {
    pub(super) fn snapshot(&self, answer: oneshot::Sender<SpeakerSnapshot>) {
        let rib = self.rib.clone();
        let board = self.board.clone();
        let (asn, router_id) = (self.config.asn, self.config.router_id);
        let peers: Vec<(PeerName, PeerIndex, Arc<PeerConfig>, Option<String>)> = self
            .peers
            .iter()
            .map(|(name, peer)| {
                let range = peer.admitted.as_ref().map(|(range, _)| range.0.clone());
                (name.clone(), peer.index, Arc::clone(&peer.config), range)
            })
            .collect();
        let ranges = self
            .peers
            .ranges()
            .into_iter()
            .map(range_snapshot)
            .collect();
        tokio::spawn(async move {
            let counts = rib.query(|rib| {
                let state = (rib.deferring(), rib.len(), rib.fib_pending());
                (rib.peers(), state)
            });
            let counts = tokio::time::timeout(COUNT_PATIENCE, counts).await;
            let (mut views, (deferring, prefixes, fib_pending)) =
                counts.ok().flatten().unwrap_or_default();
            let peers = peers
                .into_iter()
                .map(|(name, index, config, range)| {
                    let families = families(views.remove(&index).unwrap_or_default());
                    board.snapshot(&name, &config, asn, range, families)
                })
                .collect();
            // Whoever asked may have given up.
            let _ = answer.send(SpeakerSnapshot {
                asn,
                router_id,
                deferring,
                prefixes,
                fib_pending,
                peers,
                ranges,
            });
        });
    }

    pub(super) fn routes(
        &self,
        within: Option<Prefix>,
        answer: oneshot::Sender<Vec<RouteSnapshot>>,
    ) {
        let rib = self.rib.clone();
        let names = self.peers.by_index();
        tokio::spawn(async move {
            if let Some(views) = rib.query(move |rib| rib.routes(within)).await {
                let routes = views.iter().map(|view| explain::route(view, &names));
                let _ = answer.send(routes.collect());
            }
        });
    }

    pub(super) fn explain(&self, prefix: Prefix, answer: oneshot::Sender<Explanation>) {
        let rib = self.rib.clone();
        let names: BTreeMap<PeerIndex, PeerName> = self.peers.by_index();
        tokio::spawn(async move {
            let found = rib.query(move |rib| {
                let view = rib.covering(&prefix);
                let told = view
                    .as_ref()
                    .map(|view| rib.told(&view.prefix))
                    .unwrap_or_default();
                (view, told)
            });
            if let Some((view, told)) = found.await {
                let explained = explain::explain(prefix, view.as_ref(), &told, &names);
                let _ = answer.send(explained);
            }
        });
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
