//! Dumps in MRT format (RFC 6396), as streams of whole records.
//!
//! Owns the reading of the table for a dump. Does not own where it goes.
//!
//! The RIB is asked for names first, a stretch at a time, and then for the paths of a few hundred
//! prefixes at a time, in their order: nothing waits for a dump. Each prefix stands in it once, with
//! the paths that it had at one moment between the dump's beginning and its end. Peers are those of
//! the beginning; a path of one that came later is left out.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use caracal_bgp_core::mrt::{PeerEntry, PeerTable, Record, RibEntries, RibPath};
use caracal_bgp_core::rib::{Cursor, Listed, PeerIndex, ToldPath};
use caracal_bgp_core::types::{NextHop, PathId, Prefix};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::error::Error;
use crate::export::Own;
use crate::export::trace::{TraceReader, since_epoch};
use crate::rib_thread::RibHandle;

/// Prefixes that the RIB is asked for in one go: well under a millisecond.
const PAGE: usize = 512;
/// Pages that may wait for the reader.
const DEPTH: usize = 4;

/// What can be dumped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dump {
    /// Every path of the table as its peer told it: TABLE_DUMP_V2.
    Table,
    /// Messages and changes of state from now on: BGP4MP_ET.
    Updates,
}

/// The next part of a dump.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DumpPart {
    /// Whole records.
    Records(Bytes),
    /// As many messages were left out here, as the reader was too slow.
    Lost(usize),
    /// That was all.
    End,
}

/// A dump that goes on as it is read.
#[derive(Debug)]
pub struct DumpStream(Source);

#[derive(Debug)]
enum Source {
    Table(mpsc::Receiver<Result<DumpPart, Error>>),
    Updates(TraceReader),
}

impl DumpStream {
    /// The stream, and the work that fills it: until it ends it keeps the RIB from ending.
    pub(crate) fn table(
        own: Own,
        rib: RibHandle,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (parts, incoming) = mpsc::channel(DEPTH);
        let work = async move {
            let last = match table(own, &rib, &parts).await {
                Ok(()) => Ok(DumpPart::End),
                Err(Ended::Reader) => return,
                Err(Ended::Rib) => Err(Error::Stopped),
                Err(Ended::Peers(count)) => Err(Error::TooManyPeers { count }),
            };
            // The reader may have gone right at the end.
            let _ = parts.send(last).await;
        };
        (Self(Source::Table(incoming)), work)
    }

    pub(super) fn updates(reader: TraceReader) -> Self {
        Self(Source::Updates(reader))
    }

    /// What comes next.
    ///
    /// # Errors
    /// [`Error::Stopped`] when the speaker ended before the dump did, [`Error::TooManyPeers`].
    pub async fn next(&mut self) -> Result<DumpPart, Error> {
        match &mut self.0 {
            Source::Table(parts) => parts.recv().await.unwrap_or(Err(Error::Stopped)),
            Source::Updates(reader) => {
                let lost = reader.lost();
                if lost > 0 {
                    return Ok(DumpPart::Lost(lost));
                }
                let record = reader.next().await.ok_or(Error::Stopped)?;
                Ok(DumpPart::Records(record))
            }
        }
    }
}

/// Why a dump cannot go on.
enum Ended {
    Reader,
    Rib,
    Peers(usize),
}

type Parts = mpsc::Sender<Result<DumpPart, Error>>;

async fn table(own: Own, rib: &RibHandle, parts: &Parts) -> Result<(), Ended> {
    let time = Duration::from_secs(since_epoch().as_secs());
    let since: BTreeMap<PeerIndex, Duration> = rib
        .sessions()
        .await
        .ok_or(Ended::Rib)?
        .iter()
        .map(|facts| (facts.id.index, facts.since))
        .collect();
    let known = rib.query(|rib| rib.path_peers()).await.ok_or(Ended::Rib)?;
    // RFC 6396 §4.3.1: routes of our own need a peer, too. It has no address, and is the first.
    let mut peers = vec![PeerEntry {
        router_id: own.router_id,
        address: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        asn: own.asn,
    }];
    let mut numbers = BTreeMap::from([(None, (0, time))]);
    for peer in known {
        let number = u16::try_from(peers.len()).map_err(|_| Ended::Peers(peers.len()))?;
        // When each path came is not kept: not before its session, and that much is told.
        let since = since.get(&peer.index).copied().unwrap_or(time);
        numbers.insert(Some(peer.index), (number, since));
        peers.push(PeerEntry {
            router_id: peer.router_id,
            address: peer.address,
            asn: peer.asn,
        });
    }
    let mut writer = Writer {
        own,
        time,
        numbers,
        sequence: 0,
        octets: BytesMut::new(),
        left_out: 0,
    };
    writer.put(&Record::Peers {
        time,
        peers: PeerTable {
            collector: own.router_id,
            view: String::new(),
            peers,
        },
    });
    let prefixes = prefixes(rib).await?;
    for page in 0..prefixes.len().div_ceil(PAGE) {
        let prefixes = Arc::clone(&prefixes);
        let paths = rib.query(move |rib| {
            let page = prefixes.iter().skip(page * PAGE).take(PAGE);
            let paths = page.map(|prefix| (*prefix, rib.told_paths(prefix)));
            paths.collect::<Vec<_>>()
        });
        for (prefix, paths) in paths.await.ok_or(Ended::Rib)? {
            writer.prefix(prefix, paths);
        }
        let part = DumpPart::Records(writer.octets.split().freeze());
        parts.send(Ok(part)).await.map_err(|_| Ended::Reader)?;
    }
    if prefixes.is_empty() {
        let part = DumpPart::Records(writer.octets.split().freeze());
        parts.send(Ok(part)).await.map_err(|_| Ended::Reader)?;
    }
    if writer.left_out > 0 {
        let paths = writer.left_out;
        tracing::info!(paths, "paths that came during a dump are not in it");
    }
    Ok(())
}

/// Every prefix of the table in order, each once.
async fn prefixes(rib: &RibHandle) -> Result<Arc<[Prefix]>, Ended> {
    let mut prefixes = Vec::new();
    let mut next = Some(Cursor::default());
    while let Some(from) = next {
        let listed = rib.query(move |rib| rib.listed(Listed::Table, None, from));
        let (found, after) = listed.await.ok_or(Ended::Rib)?;
        prefixes.extend(found);
        next = after;
    }
    let sorted = tokio::task::spawn_blocking(move || {
        prefixes.sort_unstable();
        // One that moved in the table meanwhile was named twice.
        prefixes.dedup();
        prefixes.into()
    });
    sorted.await.map_err(|_| Ended::Rib)
}

struct Writer {
    own: Own,
    time: Duration,
    /// Number of each peer in the dump and when its session came up; ours is `None`.
    numbers: BTreeMap<Option<PeerIndex>, (u16, Duration)>,
    sequence: u32,
    octets: BytesMut,
    left_out: usize,
}

impl Writer {
    fn prefix(&mut self, prefix: Prefix, told: Vec<ToldPath>) {
        let mut paths = Vec::with_capacity(told.len());
        for ToldPath { id, path } in told {
            let Some((peer, time)) = self.numbers.get(&path.source.index()).copied() else {
                self.left_out += 1;
                continue;
            };
            let ourselves = || NextHop::ourselves(self.own.router_id, prefix.family());
            paths.push(RibPath {
                peer,
                time: Duration::from_secs(time.as_secs()),
                id,
                next_hop: path.next_hop.unwrap_or_else(ourselves),
                attributes: path.attributes,
            });
        }
        if paths.is_empty() {
            return;
        }
        let sequence = self.sequence;
        self.sequence = self.sequence.wrapping_add(1);
        self.put(&Record::Rib {
            time: self.time,
            rib: RibEntries {
                sequence,
                prefix,
                // RFC 8050 §4: the form with identifiers is for prefixes that need them.
                with_ids: paths.iter().any(|path| path.id != PathId::default()),
                paths,
            },
        });
    }

    fn put(&mut self, record: &Record) {
        if let Err(error) = record.encode(&mut self.octets) {
            tracing::warn!(%error, "a route is not in the dump");
        }
    }
}
