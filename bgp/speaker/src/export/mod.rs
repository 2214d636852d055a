//! What others are told of sessions and routes who are no peers: monitoring stations and files.
//!
//! Owns the tasks that tell stations ([`station`]) and write files ([`files`]), and the ways from the
//! RIB thread and from sessions to them. Does not own the formats, nor what a station is still to be
//! told, which are [`caracal_bgp_core`]'s.
//!
//! Whoever is told is never waited for. A station pulls, and what waits for it has a bound; a table is
//! read a few hundred prefixes at a time; messages that nobody takes are counted and left out.
//!
//! ```text
//!  RIB thread: Stations, one Feed each ──pulled──► station task ──► TCP, BMP
//!       ▲ questions, a stretch each                                  (RFC 7854, 8671, 9069)
//!       └────────────────────────── table dump ──► file or API, MRT (RFC 6396)
//!  session tasks ──► Trace, bounded ──► message trace ──► file or API, MRT
//! ```

mod dump;
mod files;
mod station;
mod stations;
mod trace;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use caracal_bgp_core::types::{Asn, RouterId};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::config::{BmpStation, MrtDump, SpeakerConfig};
use crate::rib_thread::RibHandle;
use crate::snapshot::StationSnapshot;

pub use dump::{Dump, DumpPart, DumpStream};
pub(crate) use station::StationBoard;
pub(crate) use stations::{Call, Stations};
pub(crate) use trace::{MessageFacts, Trace};

/// As whom we appear to stations and in files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Own {
    pub(crate) asn: Asn,
    pub(crate) router_id: RouterId,
}

impl Own {
    pub(crate) fn of(config: &SpeakerConfig) -> Self {
        Self {
            asn: config.asn,
            router_id: config.router_id,
        }
    }
}

/// A task that ends when it is told to.
#[derive(Debug)]
struct Running {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Running {
    async fn stop(self) {
        self.stop.send_replace(true);
        // One that panicked has stopped, too.
        let _ = self.task.await;
    }
}

/// Every station and the dumps to files.
#[derive(Debug, Default)]
pub(crate) struct Exports {
    trace: Trace,
    own: Option<Own>,
    stations: BTreeMap<SocketAddr, (BmpStation, std::sync::Arc<StationBoard>, Running)>,
    files: Option<(MrtDump, Running)>,
}

impl Exports {
    /// Where sessions say what passes.
    pub(crate) fn trace(&self) -> &Trace {
        &self.trace
    }

    /// Begins and ends what the configuration says; what it says as before goes on.
    pub(crate) async fn apply(&mut self, config: &SpeakerConfig, rib: &RibHandle) {
        let own = Own::of(config);
        let same_self = self.own.replace(own) == Some(own);
        let kept = |address: &SocketAddr, station: &BmpStation| {
            let mut wanted = config.bmp.iter();
            same_self && wanted.any(|wanted| wanted.address == *address && wanted == station)
        };
        let (mut ended, mut going) = (Vec::new(), BTreeMap::new());
        for (address, (station, board, running)) in std::mem::take(&mut self.stations) {
            if kept(&address, &station) {
                going.insert(address, (station, board, running));
            } else {
                ended.push(running);
            }
        }
        self.stations = going;
        let old_files = self
            .files
            .take_if(|(dump, _)| !same_self || config.mrt.as_ref() != Some(&*dump));
        // All at once: each may take a moment to say its last word.
        ended.iter().for_each(|running| {
            running.stop.send_replace(true);
        });
        ended.extend(old_files.map(|(_, running)| running));
        for running in ended {
            running.stop().await;
        }
        for station in &config.bmp {
            self.stations.entry(station.address).or_insert_with(|| {
                let (stop, stopped) = watch::channel(false);
                let (board, task) = station::spawn(station.clone(), own, rib.clone(), stopped);
                (station.clone(), board, Running { stop, task })
            });
        }
        if self.files.is_none()
            && let Some(dump) = &config.mrt
        {
            let (stop, stopped) = watch::channel(false);
            let source = files::Source {
                own,
                rib: rib.clone(),
                trace: self.trace.clone(),
            };
            let task = tokio::spawn(files::run(dump.clone(), source, stopped));
            self.files = Some((dump.clone(), Running { stop, task }));
        }
    }

    /// Ends everything; stations read that it was on purpose.
    pub(crate) async fn close(self) {
        let stations = self.stations.into_values().map(|(_, _, running)| running);
        let files = self.files.map(|(_, running)| running);
        let all: Vec<Running> = stations.chain(files).collect();
        for running in &all {
            running.stop.send_replace(true);
        }
        for running in all {
            running.stop().await;
        }
    }

    /// How each station is doing.
    pub(crate) fn snapshot(&self) -> Vec<StationSnapshot> {
        let stations = self.stations.values();
        stations.map(|(_, board, _)| board.snapshot()).collect()
    }

    /// Messages and states of peers from now on.
    pub(crate) fn updates(&self) -> DumpStream {
        DumpStream::updates(self.trace.read())
    }
}
