//! Who there is to speak with: the peers that the configuration names, and those that its ranges
//! have let in.
//!
//! Owns their names, their indices in the RIB and the way from a connection to the peer that made
//! it. Does not own sessions.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use caracal_bgp_core::rib::PeerIndex;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::config::{Endpoint, PeerConfig, PeerName, SpeakerConfig};
use crate::net::{Admission, Range, Ranges, Source};
use crate::session::Command;

/// Stands between the name of a range and the address that it let in.
const RANGE_SEPARATOR: char = '/';

/// A peer with one session.
#[derive(Debug)]
pub(super) struct Peer {
    /// Never given to another peer.
    pub(super) index: PeerIndex,
    pub(super) config: Arc<PeerConfig>,
    /// The range that let it in, and from where it came; `None` for one that is configured itself.
    pub(super) admitted: Option<(PeerName, Source)>,
    /// Whether its session may not come back yet; the session's task says.
    pub(super) barred: Arc<AtomicBool>,
    /// Its task, while it has one.
    pub(super) session: Option<(mpsc::Sender<Command>, JoinHandle<()>)>,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Peers {
    next_index: u32,
    all: BTreeMap<PeerName, Peer>,
    by_address: HashMap<IpAddr, Vec<PeerName>>,
    range_configs: BTreeMap<PeerName, Arc<PeerConfig>>,
    ranges: Ranges<PeerName>,
}

/// Whose connection it is that came.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Caller {
    /// A peer's that there was.
    Known(PeerName),
    /// A peer's that a range has just let in.
    New(PeerName),
    /// Nobody's: the range has as many as it may have.
    Full(PeerName),
    /// Nobody's.
    Stranger,
}

impl Peers {
    pub(super) fn get(&self, name: &PeerName) -> Option<&Peer> {
        self.all.get(name)
    }

    pub(super) fn get_mut(&mut self, name: &PeerName) -> Option<&mut Peer> {
        self.all.get_mut(name)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&PeerName, &Peer)> {
        self.all.iter()
    }

    /// The names of all.
    pub(super) fn names(&self) -> Vec<PeerName> {
        self.all.keys().cloned().collect()
    }

    /// Names by index.
    pub(super) fn by_index(&self) -> BTreeMap<PeerIndex, PeerName> {
        let peers = self.all.iter();
        peers
            .map(|(name, peer)| (peer.index, name.clone()))
            .collect()
    }

    /// Configurations by index.
    pub(super) fn configs(&self) -> BTreeMap<PeerIndex, Arc<PeerConfig>> {
        let peers = self.all.values();
        peers
            .map(|peer| (peer.index, Arc::clone(&peer.config)))
            .collect()
    }

    /// Each range with its configuration, and how many peers it has let in.
    pub(super) fn ranges(&self) -> Vec<(PeerName, Arc<PeerConfig>, usize)> {
        let mut used: BTreeMap<&PeerName, usize> = BTreeMap::new();
        for (range, _) in self.all.values().filter_map(|peer| peer.admitted.as_ref()) {
            *used.entry(range).or_default() += 1;
        }
        let ranges = self.range_configs.iter();
        ranges
            .map(|(name, config)| {
                let used = used.get(name).copied().unwrap_or_default();
                (name.clone(), Arc::clone(config), used)
            })
            .collect()
    }

    /// Adds a peer that the configuration names.
    pub(super) fn add(&mut self, name: &PeerName, config: &PeerConfig) {
        self.insert(name.clone(), Arc::new(config.clone()), None);
    }

    fn insert(
        &mut self,
        name: PeerName,
        config: Arc<PeerConfig>,
        admitted: Option<(PeerName, Source)>,
    ) {
        let peer = Peer {
            index: PeerIndex(self.next_index),
            config,
            admitted,
            barred: Arc::default(),
            session: None,
        };
        self.next_index += 1;
        self.all.insert(name, peer);
    }

    /// Takes a peer out; its session is the caller's to end.
    pub(super) fn remove(&mut self, name: &PeerName) -> Option<Peer> {
        let peer = self.all.remove(name)?;
        if let Some((_, source)) = &peer.admitted {
            self.ranges.release(*source);
        }
        Some(peer)
    }

    /// Takes over the ranges of a configuration: who has lost its place is returned, and is still in
    /// the list. Those who stay follow their range.
    pub(super) fn set_ranges(&mut self, config: &SpeakerConfig) -> Vec<PeerName> {
        let is_range = |peer: &PeerConfig| matches!(peer.remote, Endpoint::Range { .. });
        let ranges = config.peers.iter().filter(|(_, peer)| is_range(peer));
        self.range_configs = ranges
            .map(|(name, peer)| (name.clone(), Arc::new(peer.clone())))
            .collect();
        let mut wanted = Vec::new();
        for (name, peer) in &self.range_configs {
            if let Endpoint::Range { prefixes, limit } = &peer.remote {
                wanted.extend(prefixes.iter().map(|prefix| Range {
                    name: name.clone(),
                    prefix: *prefix,
                    limit: *limit,
                }));
            }
        }
        let displaced = self.ranges.configure(wanted);
        let lost = |peer: &Peer| match &peer.admitted {
            Some((range, source)) => {
                displaced.contains(source) || !self.range_configs.contains_key(range)
            }
            None => false,
        };
        let lost = self.all.iter().filter(|(_, peer)| lost(peer));
        lost.map(|(name, _)| name.clone()).collect()
    }

    /// Who of those that ranges have let in makes way for a peer that `config` names: their connections
    /// are that peer's. `local` tells our end of a session, and `index` the number of an interface.
    pub(super) fn superseded(
        &self,
        config: &SpeakerConfig,
        local: impl Fn(&PeerName) -> Option<IpAddr>,
        index: impl Fn(&str) -> Option<u32>,
    ) -> Vec<PeerName> {
        let named = config.peers.values();
        let on_links = named.clone().filter_map(|it| it.remote.interface());
        let links: BTreeSet<u32> = on_links.filter_map(index).collect();
        let mut at_addresses: HashMap<Source, Vec<&PeerConfig>> = HashMap::new();
        for peer in named {
            if let Some(address) = peer.remote.address() {
                let peers = at_addresses.entry(Source::of(address)).or_default();
                peers.push(peer);
            }
        }
        let claimed = self.all.iter().filter(|(name, peer)| {
            let Some((_, source)) = &peer.admitted else {
                return false;
            };
            let mut here = at_addresses.get(source).into_iter().flatten();
            source.ifindex.is_some_and(|link| links.contains(&link))
                || here.any(|peer| is_from(peer, *source, local(name)))
        });
        claimed.map(|(name, _)| name.clone()).collect()
    }

    /// What is now configured for a peer; `None` for one that is no longer.
    pub(super) fn wanted(&self, name: &PeerName, config: &SpeakerConfig) -> Option<PeerConfig> {
        match &self.all.get(name)?.admitted {
            None => config.peers.get(name).cloned(),
            Some((range, source)) => Some(of_range(self.range_configs.get(range)?, *source)),
        }
    }

    /// Finds peers by address from now on as they are now.
    pub(super) fn index_addresses(&mut self) {
        self.by_address.clear();
        for (name, peer) in &self.all {
            if let Some(address) = peer.config.remote.address() {
                let address = Source::of(address).address;
                let names = self.by_address.entry(address).or_default();
                names.push(name.clone());
            }
        }
    }

    /// Whose connection it is that came from `source` to our address `local`. `unnumbered` is the peer
    /// at the other end of the interface, for a connection between link-local addresses.
    pub(super) fn caller(
        &mut self,
        source: Source,
        local: IpAddr,
        unnumbered: Option<&PeerName>,
    ) -> Caller {
        if let Some(name) = unnumbered {
            return Caller::Known(name.clone());
        }
        let at_address = self.by_address.get(&source.address).into_iter().flatten();
        let found = at_address
            .filter_map(|name| Some((name, self.all.get(name)?)))
            .filter(|(_, peer)| is_from(&peer.config, source, Some(local)))
            // An address that a peer names is that peer's, whomever a range has let in from it. One that
            // asks for this very address of ours knows more than one that takes any.
            .max_by_key(|(_, peer)| (peer.admitted.is_none(), peer.config.local_address));
        if let Some((name, _)) = found {
            return Caller::Known(name.clone());
        }
        match self.ranges.admit(source) {
            Admission::Known(range) => Caller::Known(name_in(range, source)),
            Admission::Full(range) => Caller::Full(range.clone()),
            Admission::Stranger => Caller::Stranger,
            Admission::New(range) => {
                let range = range.clone();
                let name = name_in(&range, source);
                let Some(config) = self.range_configs.get(&range) else {
                    return Caller::Stranger;
                };
                let config = Arc::new(of_range(config, source));
                self.insert(name.clone(), config, Some((range, source)));
                Caller::New(name)
            }
        }
    }

    /// Peers that ranges have let in.
    pub(super) fn admitted(&self) -> impl Iterator<Item = (&PeerName, &Peer)> {
        self.all.iter().filter(|(_, peer)| peer.admitted.is_some())
    }
}

fn name_in(range: &PeerName, source: Source) -> PeerName {
    PeerName(format!("{range}{RANGE_SEPARATOR}{source}"))
}

/// The configuration of a peer that a range lets in: it is never dialled, and where it is is known.
fn of_range(range: &PeerConfig, source: Source) -> PeerConfig {
    PeerConfig {
        remote: Endpoint::Address(source.at(0)),
        passive: true,
        ..range.clone()
    }
}

/// Whether a connection from `source` is the peer's; `local` is our end, if that is known.
fn is_from(config: &PeerConfig, source: Source, local: Option<IpAddr>) -> bool {
    let mut ends = config.local_address.into_iter().zip(local);
    config.remote.address().map(Source::of) == Some(source)
        && ends.all(|(wanted, local)| wanted == local)
}
