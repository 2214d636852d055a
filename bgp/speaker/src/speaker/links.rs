//! What interfaces tell: which have carrier, and who is at the other end of those without numbers.
//!
//! Owns the last state of each link, and the way from a link to the sessions on it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use caracal_bgp_core::fsm::PathWhy;
use caracal_bgp_core::rib::Event as RibEvent;

use crate::config::{Endpoint, PeerConfig, PeerName};
use crate::net::{
    Discovery, Interface, InterfaceTable, Interfaces, Link, LinkReport, LinkState, Source,
};
use crate::session::Command;
use crate::snapshot::SessionState;
use crate::speaker::Supervisor;
use crate::speaker::peers::Peer;
use crate::status::{DownReason, Why};

/// The links of this machine.
pub(super) struct Links {
    pub(super) interfaces: Interfaces,
    pub(super) discovery: Discovery,
    /// Which interfaces had carrier when last heard of, by index.
    running: BTreeMap<u32, (String, bool)>,
    /// What was last found at the other ends of interfaces, by name.
    found: BTreeMap<String, LinkReport>,
}

impl Links {
    pub(super) fn new(interfaces: Interfaces, discovery: Discovery) -> Self {
        let running = states(&interfaces.current());
        Self {
            interfaces,
            discovery,
            running,
            found: BTreeMap::new(),
        }
    }

    /// Looks for peers on these interfaces, and on no others.
    fn look_on(&mut self, wanted: BTreeSet<String>) {
        self.found.retain(|name, _| wanted.contains(name));
        let known = self.discovery.reports().into_iter();
        // Where one was not wanted for a moment only, discovery need not have noticed, and has no news.
        for report in known.filter(|report| wanted.contains(&report.interface)) {
            let name = report.interface.clone();
            self.found.entry(name).or_insert(report);
        }
        self.discovery.set(wanted);
    }

    /// Whether the interface has carrier, as far as is known.
    fn is_dead(&self, ifindex: u32) -> bool {
        self.running
            .get(&ifindex)
            .is_some_and(|(_, running)| !running)
    }

    /// What is wrong with a link, for people; nothing where it has carrier.
    fn trouble(&self, link: &Interface) -> Option<String> {
        let name = &link.name;
        // One that was made anew has another number.
        let mut all = self.running.values();
        let known = self.running.get(&link.index);
        match known.or_else(|| all.find(|(other, _)| other == name)) {
            Some((_, true)) => None,
            Some((_, false)) => Some(format!("link {name} has no carrier")),
            None => Some(format!("link {name} is gone")),
        }
    }

    /// Where the peer of an interface was found.
    pub(super) fn neighbor(&self, interface: &str, port: u16) -> Option<SocketAddr> {
        let report = self.found.get(interface)?;
        match report.state {
            LinkState::Neighbor { address, .. } => {
                let source = Source {
                    address: address.into(),
                    ifindex: report.ifindex,
                };
                Some(source.at(port))
            }
            _ => None,
        }
    }

    /// Why the peer of an interface has not been found.
    pub(super) fn describe(&self, interface: &str) -> Why {
        let Some(report) = self.found.get(interface) else {
            return Why {
                reason: DownReason::PeerNotFound,
                text: format!("nothing is known of interface {interface} yet"),
            };
        };
        let reason = match report.state {
            LinkState::Down(_) if report.ifindex.is_some_and(|it| self.is_dead(it)) => {
                DownReason::LinkDown
            }
            LinkState::Absent | LinkState::Down(_) | LinkState::Failed(_) => {
                DownReason::InterfaceNotReady
            }
            // Who has been found is not asked about.
            LinkState::Silent | LinkState::Neighbor { .. } => DownReason::PeerNotFound,
            LinkState::Several(_) => DownReason::SeveralPeers,
        };
        let text = match &report.trouble {
            Some(trouble) => format!("{interface}: {}; {trouble}", report.state),
            None => format!("{interface}: {}", report.state),
        };
        Why { reason, text }
    }
}

fn states(table: &InterfaceTable) -> BTreeMap<u32, (String, bool)> {
    let links = table.links();
    links
        .map(|link| (link.index(), (link.name().to_owned(), link.is_running())))
        .collect()
}

impl Supervisor {
    /// Compares all interfaces with what they were.
    pub(super) async fn interfaces_changed(&mut self) {
        let now = states(&self.links.interfaces.current());
        let before = std::mem::replace(&mut self.links.running, now.clone());
        for (ifindex, (name, was_running)) in &before {
            if *was_running && !now.get(ifindex).is_some_and(|(_, running)| *running) {
                self.link_down(*ifindex, name).await;
            }
        }
        for (ifindex, (name, running)) in &now {
            let was_running = before.get(ifindex).is_some_and(|(_, running)| *running);
            if *running && !was_running {
                self.link_up(*ifindex, name).await;
            }
        }
        self.relocate().await;
    }

    /// Has sessions look whether our ends of them have got other addresses.
    async fn relocate(&self) {
        for name in self.peers.names() {
            self.order(&name, Command::Relocate).await;
        }
    }

    /// Somebody who watches links more closely has seen one change.
    pub(super) async fn link_seen(&mut self, ifindex: u32, name: String, up: bool) {
        self.links.running.insert(ifindex, (name.clone(), up));
        if up {
            self.link_up(ifindex, &name).await;
        } else {
            self.link_down(ifindex, &name).await;
        }
    }

    async fn link_down(&mut self, ifindex: u32, name: &str) {
        tracing::info!(interface = %name, "link down");
        self.lose_paths(ifindex, name).await;
        self.tell_of_link(ifindex);
    }

    async fn link_up(&mut self, ifindex: u32, name: &str) {
        tracing::info!(interface = %name, "link up");
        for peer in self.peers_on(ifindex, name) {
            self.order(&peer, Command::PathUp).await;
        }
        self.tell_of_link(ifindex);
    }

    /// Has watchers look again where a link that leads to a peer has changed: sessions that are not up
    /// do not tell themselves.
    fn tell_of_link(&self, ifindex: u32) {
        let mut peers = self.peers.iter();
        let leads_there = |(name, peer): (&PeerName, &Peer)| {
            let link = self.link_tried(name, peer);
            link.is_some_and(|link| link.index == ifindex)
        };
        if peers.any(leads_there) {
            self.board.tell_watchers();
        }
    }

    /// What is wrong with the link that leads to a peer that is tried, for people. One that is not tried
    /// says itself what it lacks.
    pub(super) fn link_trouble(&self, name: &PeerName, peer: &Peer) -> Option<String> {
        self.links.trouble(&self.link_tried(name, peer)?)
    }

    /// The link that leads to a peer that is tried and has no session.
    fn link_tried(&self, name: &PeerName, peer: &Peer) -> Option<Interface> {
        peer.session.as_ref()?;
        let up = self.board.status(name).state == SessionState::Established;
        (!up).then(|| self.link_towards(name, &peer.config))?
    }

    /// The link that leads to a peer, as far as is known: that of its subnet, or else that of its last
    /// session, or of our address.
    fn link_towards(&self, name: &PeerName, config: &PeerConfig) -> Option<Interface> {
        let table = self.links.interfaces.current();
        let last = || self.board.status(name).interface;
        let direct = match &config.remote {
            Endpoint::Address(address) => {
                let source = Source::of(*address);
                table.towards(source.address, source.ifindex)
            }
            Endpoint::Interface { name, .. } => table.by_name(name).map(Link::summary),
            Endpoint::Range { .. } => None,
        };
        let own = || table.interface_of(config.local_address?, None);
        direct.or_else(last).or_else(own)
    }

    /// Peers whose session runs, or ran last, over the interface, or would run over it.
    fn peers_on(&self, ifindex: u32, name: &str) -> Vec<PeerName> {
        let table = self.links.interfaces.current();
        let on_interface = |peer: &PeerName, config: &PeerConfig| {
            if let Endpoint::Interface { name: wanted, .. } = &config.remote {
                return wanted == name;
            }
            let known = self.board.status(peer).interface;
            let configured = || table.interface_of(config.local_address?, None);
            let interface = known.or_else(configured);
            interface.is_some_and(|found| found.index == ifindex || found.name == name)
        };
        let peers = self.peers.iter();
        peers
            .filter(|(peer, state)| on_interface(peer, &state.config))
            .map(|(peer, _)| peer.clone())
            .collect()
    }

    /// After a restart, selection does not wait for peers behind links that died meanwhile.
    pub(super) async fn release_peers_behind_dead_links(&mut self) {
        if !self.config.restarting {
            return;
        }
        let dead = self.links.running.iter();
        let dead: Vec<(u32, String)> = dead
            .filter(|(ifindex, _)| self.links.is_dead(**ifindex))
            .map(|(ifindex, (name, _))| (*ifindex, name.clone()))
            .collect();
        for (ifindex, name) in dead {
            self.lose_paths(ifindex, &name).await;
        }
    }

    /// Nobody behind the interface can be reached.
    async fn lose_paths(&self, ifindex: u32, name: &str) {
        for name in self.peers_on(ifindex, name) {
            let Some(peer) = self.peers.get(&name) else {
                continue;
            };
            let index = peer.index;
            if peer.session.is_some() {
                let order = Command::PathDown(PathWhy::LinkDown);
                self.order(&name, order).await;
            } else {
                // For one that has not been found yet the RIB may wait all the same.
                self.rib.event(RibEvent::PathDown { index }).await;
            }
        }
    }

    /// Looks for peers at the other ends of the interfaces that the configuration names.
    pub(super) fn watch_unnumbered(&mut self) {
        let interfaces = self
            .config
            .peers
            .values()
            .filter_map(|peer| match &peer.remote {
                Endpoint::Interface { name, .. } => Some(name.clone()),
                _ => None,
            });
        let wanted: BTreeSet<String> = interfaces.collect();
        self.links.look_on(wanted);
    }

    /// Takes in what was found on links.
    pub(super) async fn found(&mut self, reports: Vec<LinkReport>) {
        let mut changed = Vec::new();
        for report in reports {
            changed.push(report.interface.clone());
            self.links.found.insert(report.interface.clone(), report);
        }
        // The address may have a key and a floor of its own.
        self.guard_listeners();
        let on_changed = |config: &PeerConfig| match &config.remote {
            Endpoint::Interface { name, .. } => changed.contains(name),
            _ => false,
        };
        let peers = self.peers.iter();
        let concerned: Vec<PeerName> = peers
            .filter(|(_, peer)| on_changed(&peer.config))
            .map(|(name, _)| name.clone())
            .collect();
        // First, as what is known of the path to another address is not known of this one.
        self.watch_paths().await;
        for name in concerned {
            self.start_or_move(&name).await;
        }
    }

    /// Starts the session of an unnumbered peer where it was found, or tells it what is known now.
    async fn start_or_move(&mut self, name: &PeerName) {
        let Some(peer) = self.peers.get(name) else {
            return;
        };
        let Endpoint::Interface {
            name: interface,
            port,
        } = &peer.config.remote
        else {
            return;
        };
        if peer.session.is_none() {
            return self.start_peer(name);
        }
        let known = match self.links.neighbor(interface, *port) {
            Some(remote) => Command::Remote(remote),
            None => Command::NotFound(self.links.describe(interface)),
        };
        self.order(name, known).await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    // One thread: discovery does nothing while the test does not wait.
    #[tokio::test]
    async fn what_is_on_a_link_is_still_known_where_it_was_not_wanted_for_a_moment() {
        let interfaces = Interfaces::start().unwrap();
        let discovery = Discovery::start(interfaces.clone(), 0);
        let mut links = Links::new(interfaces, discovery);
        let wanted = BTreeSet::from(["lo".to_owned(), "not there".to_owned()]);
        links.look_on(wanted.clone());
        while links.found.len() < wanted.len() {
            let news = links.discovery.next();
            let news = tokio::time::timeout(Duration::from_secs(10), news).await;
            for report in news.expect("no report") {
                links.found.insert(report.interface.clone(), report);
            }
        }
        let before = links.found.clone();
        links.look_on(BTreeSet::new());
        assert_eq!(links.found, BTreeMap::new());
        links.look_on(wanted);
        assert_eq!(links.found, before);
    }
}
