//! Stations on the side of the RIB thread.
//!
//! Owns one [`Feed`] for each station that is connected, and which sessions there are to tell of.
//! Does not own connections: a station's task takes what is here when it has room for it.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use caracal_bgp_core::bmp::{Feed, PeerDownReason, SessionFacts, Wanted};
use caracal_bgp_core::rib::{Changed, PeerId, PeerIndex, Rib};
use tokio::sync::{mpsc, oneshot};

use crate::export::trace::since_epoch;
use crate::export::{Own, StationBoard};
use crate::status::PeerBoard;

/// Names one connection of a station.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct StationId(pub(super) u64);

/// What the RIB thread is asked for the sake of stations and files.
#[derive(Debug)]
pub(crate) enum Call {
    /// A station has connected. What it is told comes by `outlet`, of which an end means that too
    /// much was waiting.
    Join {
        id: StationId,
        wanted: Wanted,
        own: Own,
        outlet: mpsc::Sender<Bytes>,
        board: Arc<StationBoard>,
    },
    /// It has taken what it was given.
    Take(StationId),
    /// It wants counts.
    Report(StationId),
    /// It is gone.
    Leave(StationId),
    /// Who is up, by peer.
    Sessions(oneshot::Sender<Vec<Arc<SessionFacts>>>),
}

#[derive(Debug)]
struct Station {
    feed: Feed,
    outlet: mpsc::Sender<Bytes>,
    board: Arc<StationBoard>,
    /// There was nothing when it last asked.
    waiting: bool,
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Stations {
    sessions: BTreeMap<PeerIndex, (Arc<SessionFacts>, Arc<PeerBoard>)>,
    all: HashMap<StationId, Station>,
    /// Those who have asked.
    ready: VecDeque<StationId>,
}

impl Stations {
    /// Whether nobody is connected.
    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Whether somebody has asked for more.
    pub(crate) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Whether somebody wants to know what changes in the table.
    pub(crate) fn follow_table(&self) -> bool {
        self.all
            .values()
            .any(|station| station.feed.follows_table())
    }

    pub(crate) fn call(&mut self, call: Call, rib: &Rib) {
        match call {
            Call::Join {
                id,
                wanted,
                own,
                outlet,
                board,
            } => {
                let up = self.sessions.values().map(|(facts, _)| Arc::clone(facts));
                let station = Station {
                    feed: Feed::new(wanted, own.asn, own.router_id, up),
                    outlet,
                    board,
                    waiting: false,
                };
                self.all.insert(id, station);
                self.ready.push_back(id);
            }
            Call::Take(id) => self.ready.push_back(id),
            Call::Report(id) => {
                let sessions = &self.sessions;
                let treated = |index: PeerIndex| {
                    let session = sessions.get(&index);
                    session.map_or(0, |(_, board)| board.counters.treated_as_withdraw_count())
                };
                if let Some(station) = self.all.get_mut(&id) {
                    station.feed.report(rib, since_epoch(), treated);
                }
            }
            Call::Leave(id) => {
                self.all.remove(&id);
            }
            Call::Sessions(answer) => {
                let up = self.sessions.values().map(|(facts, _)| Arc::clone(facts));
                // Whoever asked may have given up.
                let _ = answer.send(up.collect());
            }
        }
    }

    pub(crate) fn session_up(&mut self, facts: Arc<SessionFacts>, board: Arc<PeerBoard>) {
        for station in self.all.values_mut() {
            station.feed.session_up(Arc::clone(&facts));
        }
        self.sessions.insert(facts.id.index, (facts, board));
    }

    pub(crate) fn session_down(&mut self, id: PeerId, reason: &PeerDownReason) {
        for station in self.all.values_mut() {
            station.feed.session_down(id, reason.clone());
        }
        let up = self.sessions.get(&id.index);
        if up.is_some_and(|(facts, _)| facts.id == id) {
            self.sessions.remove(&id.index);
        }
    }

    pub(crate) fn changed(&mut self, changed: &Changed) {
        for station in self.all.values_mut() {
            station.feed.changed(changed);
        }
    }

    /// A peer was given these messages.
    pub(crate) fn sent(&mut self, peer: PeerId, octets: &Bytes) {
        for station in self.all.values_mut() {
            station.feed.sent(peer, octets);
        }
    }

    /// Wakes who waits and has something to take now, and gives up those for whom too much waits.
    pub(crate) fn settle(&mut self, rib: &Rib) {
        self.all.retain(|id, station| {
            if station.feed.is_overrun(rib) {
                return false;
            }
            if station.waiting && !station.feed.is_idle() {
                station.waiting = false;
                self.ready.push_back(*id);
            }
            true
        });
    }

    /// Gives those who asked what there is for them, a while long.
    pub(crate) fn serve(&mut self, rib: &Rib, patience: Duration) {
        let began = Instant::now();
        while let Some(id) = self.ready.pop_front() {
            let Some(station) = self.all.get_mut(&id) else {
                continue;
            };
            // One that is not ready asks again when it has taken what is under way.
            let Ok(permit) = station.outlet.try_reserve() else {
                continue;
            };
            let mut octets = BytesMut::new();
            station.feed.next(rib, since_epoch(), &mut octets);
            station.board.synchronised(station.feed.is_synchronised());
            if !octets.is_empty() {
                permit.send(octets.freeze());
            } else if station.feed.is_idle() {
                station.waiting = true;
            } else {
                self.ready.push_back(id);
            }
            if began.elapsed() > patience {
                return;
            }
        }
    }
}
