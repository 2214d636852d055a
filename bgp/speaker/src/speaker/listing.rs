//! Long answers: routes, page by page.
//!
//! Owns the pace. The RIB is asked for a stretch of its table or a page of routes at a time, with
//! other work in between, and for the next only when the last has been taken; what is held is one
//! list of prefixes and two pages. Does not own what is said of a route.

use std::cmp::Reverse;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use caracal_bgp_core::rib::{Cursor, Listed, PeerIndex, Rejections, Rib};
use caracal_bgp_core::types::Prefix;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;

use crate::config::PeerName;
use crate::explain::{self, Names};
use crate::handle::{Listing, Pages, RouteQuery};
use crate::rib_thread::RibHandle;
use crate::snapshot::{PeerDetail, RejectedSnapshot, RouteSnapshot};
use crate::speaker::Supervisor;

/// Routes of one page: a millisecond of the RIB's time.
const PAGE: usize = 256;
/// Pages that may wait for whoever asked.
const PAGES_DEPTH: usize = 1;
/// Listings under way at a time; each holds the prefixes of a table. Others wait.
const LISTINGS_AT_ONCE: usize = 4;

/// The listings under way. They end with their owner, however slowly their pages are taken.
pub(super) struct Listings {
    tasks: JoinSet<()>,
    permits: Arc<Semaphore>,
}

impl Default for Listings {
    fn default() -> Self {
        Self {
            tasks: JoinSet::new(),
            permits: Arc::new(Semaphore::new(LISTINGS_AT_ONCE)),
        }
    }
}

impl Listings {
    pub(super) fn start(&mut self, work: impl Future<Output = ()> + Send + 'static) {
        // Nobody waits for those that have ended.
        while self.tasks.try_join_next().is_some() {}
        let permits = Arc::clone(&self.permits);
        self.tasks.spawn(async move {
            // Never closed.
            let _permit = permits.acquire().await;
            work.await;
        });
    }

    /// Ends all of them.
    pub(super) async fn end(&mut self) {
        self.tasks.shutdown().await;
    }
}

impl Supervisor {
    /// Answers with the pages, or with nothing when there is no peer of the name.
    pub(super) fn list(&mut self, query: RouteQuery, answer: oneshot::Sender<Option<Pages>>) {
        let number = |name: &PeerName| self.peers.get(name).map(|peer| peer.index);
        let listed = match &query.listing {
            Listing::Table => Some(Listed::Table),
            Listing::Rejected(None) => Some(Listed::Rejected),
            Listing::Rejected(Some(peer)) => number(peer).map(Listed::RejectedFrom),
            Listing::Received(peer) => number(peer).map(Listed::ReceivedFrom),
            Listing::Advertised(peer) => number(peer).map(Listed::AdvertisedTo),
            Listing::Withheld(_) => Some(Listed::Announced),
        };
        let withheld_from = match &query.listing {
            Listing::Withheld(peer) => Some(number(peer)),
            _ => None,
        };
        let Some(listed) = listed.filter(|_| withheld_from != Some(None)) else {
            // Whoever asked may have given up, here and below.
            let _ = answer.send(None);
            return;
        };
        let (pages, taken) = mpsc::channel(PAGES_DEPTH);
        let _ = answer.send(Some(Pages(taken)));
        let question = Question {
            listed,
            withheld_from: withheld_from.flatten(),
            within: query.within,
            names: Arc::new(self.peers.by_index()),
        };
        let rib = self.rib.clone();
        self.listings.start(async move {
            // Nothing when the RIB has ended: the pages end too.
            let _ = question.answer(&rib, &pages).await;
        });
    }

    /// Answers with one peer and what becomes of its routes.
    pub(super) fn peer_detail(&self, name: &PeerName, answer: oneshot::Sender<Option<PeerDetail>>) {
        let Some(peer) = self.peers.get(name) else {
            let _ = answer.send(None);
            return;
        };
        let index = peer.index;
        let (shown, snapshot) = oneshot::channel();
        self.snapshot(shown);
        let rib = self.rib.clone();
        let name = name.0.clone();
        // Not one of the listings: it waits for no reader, and so not for theirs either.
        tokio::spawn(async move {
            let Ok(snapshot) = snapshot.await else {
                return;
            };
            let mut peers = snapshot.peers.into_iter();
            let peer = peers.find(|peer| peer.name == name);
            let rejected = rejections(&rib, Some(index)).await;
            let detail = peer.zip(rejected).map(|(peer, rejected)| {
                let rejected = by_frequency(rejected).into_iter();
                let rejected = rejected.map(|(_, rejected)| rejected).collect();
                PeerDetail { peer, rejected }
            });
            let _ = answer.send(detail);
        });
    }

    /// Answers with what is rejected of all peers.
    pub(super) fn rejected(&self, answer: oneshot::Sender<Vec<(PeerName, RejectedSnapshot)>>) {
        let rib = self.rib.clone();
        let names = self.peers.by_index();
        // No listing either.
        tokio::spawn(async move {
            // No answer when the RIB has ended.
            let Some(rejections) = rejections(&rib, None).await else {
                return;
            };
            let named = by_frequency(rejections).into_iter();
            // A peer that was removed may show until the RIB has taken that in.
            let named =
                named.filter_map(|(peer, rejected)| Some((names.get(&peer)?.clone(), rejected)));
            let _ = answer.send(named.collect());
        });
    }
}

/// Routes that are rejected, by peer and reason: of one peer, or of all. Nothing when the RIB has ended.
async fn rejections(rib: &RibHandle, of: Option<PeerIndex>) -> Option<Rejections> {
    let mut rejections = Rejections::new();
    let mut cursor = Some(Cursor::default());
    while let Some(from) = cursor {
        let stretch = rib.query(move |rib| rib.rejections(of, from));
        let (found, next) = stretch.await?;
        for (why, more) in found {
            match rejections.entry(why) {
                Entry::Vacant(first) => drop(first.insert(more)),
                Entry::Occupied(known) => known.into_mut().join(more),
            }
        }
        cursor = next;
    }
    Some(rejections)
}

/// Rejections for people, the most frequent first.
fn by_frequency(rejections: Rejections) -> Vec<(PeerIndex, RejectedSnapshot)> {
    let rejected = rejections.into_iter().map(|((peer, reason), rejected)| {
        let rejected = RejectedSnapshot {
            reason: reason.word.to_owned(),
            rule: reason.rule,
            count: rejected.count,
            examples: rejected.examples,
            why: rejected.why,
        };
        (peer, rejected)
    });
    let mut rejected: Vec<_> = rejected.collect();
    rejected.sort_by_key(|(_, rejected)| Reverse(rejected.count));
    rejected
}

struct Question {
    listed: Listed,
    /// The peer that is not told.
    withheld_from: Option<PeerIndex>,
    within: Option<Prefix>,
    names: Arc<Names>,
}

impl Question {
    async fn answer(self, rib: &RibHandle, pages: &mpsc::Sender<Vec<RouteSnapshot>>) -> Option<()> {
        let mut prefixes = Vec::new();
        let mut cursor = Some(Cursor::default());
        while let Some(from) = cursor {
            if pages.is_closed() {
                return None;
            }
            let (listed, within) = (self.listed, self.within);
            let stretch = rib.query(move |rib| rib.listed(listed, within.as_ref(), from));
            let (found, next) = stretch.await?;
            prefixes.extend(found);
            cursor = next;
        }
        // Stretches are of different moments: a prefix that went and came may be in two.
        prefixes.sort_unstable();
        prefixes.dedup();
        let (listed, withheld_from) = (self.listed, self.withheld_from);
        for page in prefixes.chunks(PAGE) {
            let (page, names) = (page.to_vec(), Arc::clone(&self.names));
            let routes = rib.query(move |rib| -> Vec<RouteSnapshot> {
                let shown = page
                    .iter()
                    .filter_map(|prefix| show(rib, prefix, listed, withheld_from, &names));
                shown.collect()
            });
            let routes = routes.await?;
            if !routes.is_empty() {
                pages.send(routes).await.ok()?;
            }
        }
        Some(())
    }
}

/// What a listing says of a prefix; nothing when it does not belong there any more.
fn show(
    rib: &Rib,
    prefix: &Prefix,
    listed: Listed,
    withheld_from: Option<PeerIndex>,
    names: &Names,
) -> Option<RouteSnapshot> {
    let view = rib.route(prefix)?;
    let mut route = match listed {
        Listed::Table | Listed::Rejected => explain::route(&view, names),
        Listed::ReceivedFrom(peer) | Listed::RejectedFrom(peer) => {
            explain::received(&view, &rib.received(peer, prefix), names)
        }
        Listed::AdvertisedTo(peer) => {
            explain::advertised(&view, &rib.advertised(peer, prefix), names)
        }
        Listed::Announced => {
            let why = rib.withheld(withheld_from?, prefix)?;
            explain::withheld(&view, &why, names)
        }
    };
    if matches!(listed, Listed::Rejected | Listed::RejectedFrom(_)) {
        route.paths.retain(|path| path.rejected.is_some());
    }
    (!route.paths.is_empty()).then_some(route)
}
