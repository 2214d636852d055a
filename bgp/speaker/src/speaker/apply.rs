//! From one configuration to another, and no further than asked: sessions that can go on, do.

use std::sync::Arc;

use caracal_bgp_core::fsm::Admin;
use caracal_bgp_core::policy::InterfaceGlob;
use caracal_bgp_core::rib::Event as RibEvent;

use crate::config::{
    Activation, Change, Endpoint, ListenConfig, PeerConfig, PeerName, SpeakerConfig, Ttl,
};
use crate::error::Error;
use crate::net::{Floors, Hops, Keychain, Link, Listeners, Remote};
use crate::session::{self, Command, Reconfiguration, Setup};
use crate::speaker::Supervisor;
use crate::speaker::peers::Peer;
use crate::status::{DownReason, Why};
use crate::translate::{machine_config, rib_config};

use caracal_bgp_core::types::Prefix;

impl Supervisor {
    pub(super) async fn apply(&mut self, new: SpeakerConfig) -> Result<(), Error> {
        let old = std::mem::replace(&mut self.config, new);
        let everyone = (old.asn, old.router_id) != (self.config.asn, self.config.router_id);
        let mut gone = self.peers.set_ranges(&self.config);
        gone.extend(self.superseded());
        let mut kept = Vec::new();
        for name in self.peers.names() {
            if gone.contains(&name) {
                continue;
            }
            let peer = self.peers.get(&name);
            let wanted = self.peers.wanted(&name, &self.config);
            match peer.zip(wanted) {
                Some((peer, wanted)) if !everyone && is_same(&peer.config, &wanted) => {
                    kept.push((name, wanted));
                }
                _ => gone.push(name),
            }
        }
        self.remove_peers(&gone).await;
        let mut changed = Vec::new();
        for (name, wanted) in kept {
            if let Some(peer) = self.peers.get_mut(&name) {
                let before = std::mem::replace(&mut peer.config, Arc::new(wanted));
                changed.push((name, before));
            }
        }
        let added = self.add_configured();
        self.configure_rib().await;
        let of_all = old.change(&self.config);
        for (name, before) in &changed {
            self.adjust(name, before, of_all).await;
        }
        // Listening sockets need the keys of whoever is found.
        self.watch_unnumbered();
        let listening = self.listen().await;
        for name in &added {
            self.start_peer(name);
        }
        self.watch_paths().await;
        self.exports.apply(&self.config, &self.rib).await;
        listening
    }

    /// Peers that ranges have let in and that are now configured themselves.
    fn superseded(&self) -> Vec<PeerName> {
        let table = self.links.interfaces.current();
        let local = |name: &PeerName| self.board.status(name).local_address;
        let index = |name: &str| table.by_name(name).map(Link::index);
        self.peers.superseded(&self.config, local, index)
    }

    /// Takes in every peer that is configured and not there yet; who that is.
    pub(super) fn add_configured(&mut self) -> Vec<PeerName> {
        let mut added = Vec::new();
        for (name, config) in &self.config.peers {
            let is_range = matches!(config.remote, Endpoint::Range { .. });
            if !is_range && self.peers.get(name).is_none() {
                self.peers.add(name, config);
                added.push(name.clone());
            }
        }
        self.peers.index_addresses();
        added
    }

    /// Tells the RIB which peers there are and what is configured for them.
    pub(super) async fn configure_rib(&mut self) {
        let config = rib_config(&self.config, &self.peers.configs());
        self.rib.event(RibEvent::Configure(config)).await;
    }

    /// Ends the sessions of peers, all at once, and forgets them.
    pub(super) async fn remove_peers(&mut self, names: &[PeerName]) {
        let mut ending = Vec::new();
        for name in names {
            let removed = self.peers.remove(name);
            if let Some((commands, task)) = removed.and_then(|peer| peer.session) {
                // A task that is gone has stopped.
                let _ = commands.send(Command::Stop(Admin::Deconfigure)).await;
                ending.push(task);
            }
        }
        for task in ending {
            let _ = task.await;
        }
        for name in names {
            self.board.remove(name);
        }
        self.peers.index_addresses();
    }

    /// Takes the session of a peer that stays from `before` to what is configured now.
    async fn adjust(&mut self, name: &PeerName, before: &PeerConfig, of_all: Change) {
        let Some(peer) = self.peers.get(name) else {
            return;
        };
        let now = Arc::clone(&peer.config);
        if peer.session.is_none() {
            return self.start_peer(name);
        }
        if let Activation::Held { lack, why } = &now.activation {
            return self.hold(name, Why::lacks(*lack, why)).await;
        }
        // Being down is not agreed on in OPEN: it is said below.
        let as_active_now = PeerConfig {
            activation: now.activation.clone(),
            ..before.clone()
        };
        let change = as_active_now.change(&now).and(of_all);
        if !change.only(Change::REFRESH_IN.and(Change::REEXPORT)) {
            let machine = machine_config(&self.config, &now, peer.index, self.is_restarting());
            let new_session = change.includes(Change::NEW_SESSION);
            let order = Command::Configure(Box::new(Reconfiguration {
                config: Arc::clone(&now),
                machine,
                ignored_interfaces: self.ignored_interfaces(),
                new_session,
            }));
            self.order(name, order).await;
        }
        if before.activation != now.activation {
            self.order(name, Command::Admin(wish(&now.activation)))
                .await;
        }
    }

    /// Ends the session of a peer that lacks something, and says what.
    async fn hold(&mut self, name: &PeerName, why: Why) {
        let session = self
            .peers
            .get_mut(name)
            .and_then(|peer| peer.session.take());
        if let Some((commands, task)) = session {
            let _ = commands.send(Command::Stop(Admin::Deconfigure)).await;
            let _ = task.await;
        }
        self.board.open(name).stays_down(why);
    }

    /// Starts the session of a peer, if everything that it needs is there; else says what is not.
    pub(super) fn start_peer(&mut self, name: &PeerName) {
        let restarting = self.is_restarting();
        let Some(peer) = self.peers.get(name) else {
            return;
        };
        if peer.session.is_some() {
            return;
        }
        let board = self.board.open(name);
        let remote = match self.endpoint(peer) {
            Ok(remote) => remote,
            Err(why) => {
                tracing::info!(peer = %name, reason = %why, "session not started");
                return board.stays_down(why);
            }
        };
        let setup = Setup {
            name: name.clone(),
            index: peer.index,
            config: Arc::clone(&peer.config),
            remote,
            machine: machine_config(&self.config, &peer.config, peer.index, restarting),
            wish: wish(&peer.config.activation),
            path_proved: self.is_path_proved(name, peer),
            rib: self.rib.clone(),
            board,
            barred: Arc::clone(&peer.barred),
            interfaces: self.links.interfaces.clone(),
            ignored_interfaces: self.ignored_interfaces(),
            restarting: self.restarting.clone(),
            trace: self.exports.trace().clone(),
        };
        if let Some(peer) = self.peers.get_mut(name) {
            peer.session = Some(session::spawn(setup));
        }
    }

    fn ignored_interfaces(&self) -> Arc<[InterfaceGlob]> {
        self.config.ignored_interfaces.as_slice().into()
    }

    /// Where the peer is.
    ///
    /// # Errors
    /// Why there can be no session.
    fn endpoint(&self, peer: &Peer) -> Result<std::net::SocketAddr, Why> {
        if let Activation::Held { lack, why } = &peer.config.activation {
            return Err(Why::lacks(*lack, why));
        }
        match &peer.config.remote {
            Endpoint::Address(address) => Ok(*address),
            Endpoint::Interface { name, port } => {
                let found = self.links.neighbor(name, *port);
                found.ok_or_else(|| self.links.describe(name))
            }
            Endpoint::Range { .. } => Err(Why {
                reason: DownReason::PeerNotFound,
                text: "a range has no session itself".to_owned(),
            }),
        }
    }

    /// Brings the listening sockets to what is configured. What is bound counts, not what was configured
    /// before: a change that has failed is tried again by the next call.
    ///
    /// # Errors
    /// Those of [`Listeners::bind`]. The speaker goes on listening where it did, if that can still be had.
    pub(super) async fn listen(&mut self) -> Result<(), Error> {
        let wanted = self.config.listen.clone();
        let former = self.listeners.as_ref().map(|it| it.config().clone());
        if wanted == former {
            self.guard_listeners();
            return Ok(());
        }
        let Some(wanted) = wanted else {
            self.close_listeners().await;
            return Ok(());
        };
        // On one port new sockets may be in the way of old ones, as all addresses are of any.
        if former.as_ref().is_some_and(|it| it.port == wanted.port) {
            self.close_listeners().await;
        }
        let bound = self.bind(&wanted);
        let failed = match bound {
            Ok(listeners) => {
                self.close_listeners().await;
                self.listeners = Some(listeners);
                return Ok(());
            }
            Err(error) => error,
        };
        match former.filter(|_| self.listeners.is_none()) {
            Some(former) => self.listeners = self.bind(&former).ok(),
            None => self.guard_listeners(),
        }
        Err(failed)
    }

    fn bind(&self, listen: &ListenConfig) -> Result<Listeners, Error> {
        let (mut listeners, faults) = Listeners::bind(listen, &self.keychain(), &self.floors())?;
        report(&faults);
        listeners.serve(&self.incoming);
        Ok(listeners)
    }

    pub(super) async fn close_listeners(&mut self) {
        if let Some(listeners) = self.listeners.take() {
            listeners.close().await;
        }
    }

    /// Gives listening sockets the keys that peers sign with, and has them look at the TTL of those
    /// with GTSM.
    pub(super) fn guard_listeners(&mut self) {
        let (keys, floors) = (self.keychain(), self.floors());
        if let Some(listeners) = &mut self.listeners {
            report(&listeners.apply(&keys, &floors));
        }
    }

    fn keychain(&self) -> Keychain {
        let (keys, conflicts) = Keychain::new(self.remotes(|config| config.authentication.clone()));
        report(&conflicts);
        keys
    }

    fn floors(&self) -> Floors {
        Floors::new(self.remotes(|config| match config.ttl {
            Ttl::Security { hops } => Hops::security(hops),
            Ttl::Automatic | Ttl::Send(_) => Hops::System,
        }))
    }

    /// Whose connections may come, each with what `of` says about the peer.
    fn remotes<T: Clone>(
        &self,
        of: impl Fn(&PeerConfig) -> T,
    ) -> impl Iterator<Item = (Remote, T)> {
        let remotes = |config: &PeerConfig| match &config.remote {
            Endpoint::Address(address) => vec![Remote::Prefix(Prefix::host(address.ip()))],
            Endpoint::Interface { name, port } => {
                let found = self.links.neighbor(name, *port);
                let address = found.and_then(|found| match found.ip() {
                    std::net::IpAddr::V6(address) => Some(address),
                    std::net::IpAddr::V4(_) => None,
                });
                vec![Remote::Interface { address }]
            }
            Endpoint::Range { prefixes, .. } => {
                prefixes.iter().copied().map(Remote::Prefix).collect()
            }
        };
        self.config.peers.values().flat_map(move |config| {
            let said = of(config);
            let remotes = remotes(config).into_iter();
            remotes.map(move |remote| (remote, said.clone()))
        })
    }
}

/// What the session of a peer is to do.
fn wish(activation: &Activation) -> Admin {
    match activation {
        Activation::Run => Admin::Up,
        Activation::Down { message } => Admin::Down {
            text: message.clone(),
        },
        Activation::Held { .. } => Admin::Deconfigure,
    }
}

fn report(faults: &[Error]) {
    for fault in faults {
        let cause = std::error::Error::source(fault).map(ToString::to_string);
        if fault.is_late_security() {
            tracing::warn!(error = %fault, cause, "GTSM begins once a connection is accepted");
        } else {
            tracing::error!(error = %fault, cause, "peers cannot connect");
        }
    }
}

/// Whether both are the same peer, so that what is known of it stays true.
fn is_same(before: &PeerConfig, now: &PeerConfig) -> bool {
    before.remote == now.remote && before.peer_as == now.peer_as
}
