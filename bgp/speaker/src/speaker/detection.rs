//! Dead paths by BFD (RFC 5882): what is asked of the BFD process, and what its word does to sessions.
//!
//! Owns the way between peers and BFD sessions. Does not own these: they are another process's, so
//! that they outlive this one. Its silence says nothing about any path.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use caracal_bfdd::client::{Client, ClientEvent, ClientOptions};
use caracal_bfdd::proto::{
    AuthConfig, AuthMethod, KeyConfig, Reason, SecretConfig, SessionConfig, SessionKey, Standing,
};
use caracal_bgp_core::bfd::State;
use caracal_bgp_core::fsm::PathWhy;
use tokio::sync::mpsc;

use crate::config::{Activation, BfdConfig, Endpoint, OnBfdFailure, PeerConfig, PeerName};
use crate::handle::BfdOptions;
use crate::session::Command;
use crate::snapshot::{BfdSnapshot, SessionState};
use crate::speaker::Supervisor;
use crate::speaker::peers::Peer;
use crate::status::EventNote;

/// ID of the key of a session with one; both ends must name the same, and one key needs no choice.
const KEY_ID: u8 = 1;

/// The BFD process, as far as it is asked.
pub(super) struct Detection {
    client: Client,
    events: mpsc::Receiver<ClientEvent>,
    /// Whose path each session watches.
    peers: BTreeMap<SessionKey, Vec<PeerName>>,
    /// What each has last said of its path, as long as the process answers: of what happens while it is away
    /// nothing is known.
    standings: BTreeMap<SessionKey, Standing>,
}

impl Detection {
    pub(super) fn start(options: BfdOptions) -> Self {
        let BfdOptions { socket, owner } = options;
        let (client, events) = Client::start(ClientOptions::new(socket, owner));
        Self {
            client,
            events,
            peers: BTreeMap::new(),
            standings: BTreeMap::new(),
        }
    }

    /// The next word of the process, of whom there need be none.
    pub(super) async fn next(detection: &mut Option<Self>) -> ClientEvent {
        if let Some(detection) = detection
            && let Some(event) = detection.events.recv().await
        {
            return event;
        }
        std::future::pending().await
    }

    /// Ends all sessions, so that peers hear that it was on purpose. Does not wait for a process that
    /// does not answer.
    pub(super) async fn end(self, patience: std::time::Duration) {
        self.client.apply([]);
        // Then they end by the process's own patience.
        let _ = tokio::time::timeout(patience, self.client.settled()).await;
    }

    /// Which session watches the path of each peer.
    fn keys(&self) -> BTreeMap<PeerName, SessionKey> {
        let peers = self.peers.iter();
        peers
            .flat_map(|(key, names)| names.iter().map(|name| (name.clone(), key.clone())))
            .collect()
    }

    fn names(&self, key: &SessionKey) -> Vec<PeerName> {
        self.peers.get(key).cloned().unwrap_or_default()
    }
}

/// BFD says that a path is dead.
#[derive(Clone, Copy, Debug)]
struct Failure {
    /// How long nothing had been heard, where that told it.
    silence_us: Option<u64>,
}

impl Supervisor {
    /// Asks for the BFD sessions of all peers as they are now, and no others.
    pub(super) async fn watch_paths(&mut self) {
        let mut wanted = BTreeMap::new();
        let mut peers: BTreeMap<SessionKey, Vec<PeerName>> = BTreeMap::new();
        let mut unwatched = BTreeSet::new();
        for (name, peer) in self.peers.iter() {
            let Some(session) = self.wish_of(name, peer) else {
                continue;
            };
            if self.bfd.is_none() {
                unwatched.insert(name.clone());
                if self.unwatched.contains(name) {
                    continue;
                }
                tracing::error!(peer = %name, "BFD is configured, but there is no BFD process to ask");
                let text = "BFD is configured, but there is no BFD process to ask".to_owned();
                self.board.open(name).event(EventNote::Other(text));
                continue;
            }
            peers
                .entry(session.key.clone())
                .or_default()
                .push(name.clone());
            wanted.insert(session.key.clone(), session);
        }
        self.unwatched = unwatched;
        if !wanted.is_empty() && self.detection.is_none() {
            self.detection = self.bfd.clone().map(Detection::start);
        }
        let Some(detection) = &mut self.detection else {
            return;
        };
        let before = detection.keys();
        detection.standings.retain(|key, _| peers.contains_key(key));
        detection.peers = peers;
        detection.client.apply(wanted.into_values());
        let now = detection.keys();
        // What was said of another path proves nothing of this one, and of one that others watch something
        // may have been said already: to these sessions, or to ones that there were before.
        let changed = |name: &&PeerName| {
            before.get(*name) != now.get(*name) || !self.board.open(name).knows_path()
        };
        let watched = before.keys().chain(now.keys());
        let changed: BTreeSet<PeerName> = watched.filter(changed).cloned().collect();
        self.tell_paths(changed).await;
    }

    /// Watches the paths to where peers were found while their sessions elsewhere lived, once these are over:
    /// a session ends without a word to whoever watches its path.
    pub(super) async fn follow_moved_peers(&mut self) {
        let Some(detection) = &self.detection else {
            return;
        };
        let is_watched = |name: &PeerName, key: &SessionKey| {
            let watchers = detection.peers.get(key);
            watchers.is_some_and(|names| names.contains(name))
        };
        let moved = self.peers.iter().any(|(name, peer)| {
            // Others do not move.
            peer.config.remote.interface().is_some()
                && self
                    .wish_of(name, peer)
                    .is_some_and(|wish| !is_watched(name, &wish.key))
        });
        if moved {
            self.watch_paths().await;
        }
    }

    /// Tells sessions what BFD says of their paths, and shows it.
    async fn tell_paths(&self, names: BTreeSet<PeerName>) {
        for name in names {
            let Some(peer) = self.peers.get(&name) else {
                continue;
            };
            let standing = self.standing(&name, peer);
            match standing {
                Some(standing) => self.show_path(&name, standing, None),
                None => self.board.open(&name).forget_path(),
            }
            let proved = standing.is_some_and(is_up);
            self.order(&name, Command::PathProved(proved)).await;
        }
    }

    /// Takes in what the BFD process says.
    pub(super) async fn detected(&mut self, event: ClientEvent) {
        let Some(detection) = &mut self.detection else {
            return;
        };
        match event {
            ClientEvent::Connected => {
                tracing::info!("the BFD process answers");
            }
            ClientEvent::Disconnected { why } => {
                tracing::error!(reason = %why, "the BFD process does not answer; nothing is known of paths");
                detection.standings.clear();
                let peers = detection.keys().into_keys().collect();
                self.tell_paths(peers).await;
            }
            ClientEvent::Adopted { session, .. } => {
                let mut failures = session.missed.iter().filter(|missed| missed.failure);
                let failure = failures.next_back().map(|missed| Failure {
                    silence_us: missed.silence_us,
                });
                self.path_is(&session.key, &session.standing, failure).await;
            }
            ClientEvent::Changed { event, .. } => {
                let silence_us = event.silence_us;
                let failure = event.failure.then_some(Failure { silence_us });
                self.path_is(&event.key, &event.standing, failure).await;
            }
            ClientEvent::Refused(refused) => {
                for name in detection.names(&refused.key) {
                    tracing::error!(peer = %name, reason = %refused.why, "no BFD session");
                    let text = format!("there can be no BFD session: {}", refused.why);
                    self.board.open(&name).event(EventNote::Other(text));
                }
            }
        }
    }

    async fn path_is(&mut self, key: &SessionKey, standing: &Standing, failure: Option<Failure>) {
        let Some(detection) = &mut self.detection else {
            return;
        };
        let before = detection.standings.insert(key.clone(), *standing);
        let failed =
            failure.is_some() || before.is_some_and(|before| has_failed(&before, standing));
        let was_up = before.as_ref().is_some_and(is_up);
        let came_up = is_up(standing) && (failed || !was_up);
        for name in detection.names(key) {
            self.show_path(&name, standing, failure);
            if failed {
                let why = self.verdict(&name, standing);
                tracing::warn!(peer = %name, reason = %standing.reason, "path down by BFD");
                // First, as it may be up again by now: what waits for that is not to begin before it ends.
                self.order(&name, Command::PathProved(false)).await;
                self.order(&name, Command::PathDown(why)).await;
            }
            let proved = Command::PathProved(is_up(standing));
            self.order(&name, proved).await;
            if came_up {
                tracing::info!(peer = %name, "path up by BFD");
                self.order(&name, Command::PathUp).await;
            }
        }
    }

    fn show_path(&self, name: &PeerName, standing: &Standing, failure: Option<Failure>) {
        let detected_us = failure.and_then(|failure| failure.silence_us);
        let mut snapshot = BfdSnapshot {
            state: format!("{:?}", standing.state),
            since_ms: standing.since_unix_ms,
            reason: standing.reason.to_string(),
            remote_state: format!("{:?}", standing.remote_state),
            diagnostic: format!("{:?}", standing.diag),
            independent: standing.local_c && standing.remote_c,
            transitions: standing.transitions,
            detected_us,
        };
        let board = self.board.open(name);
        board.event(EventNote::Other(format!(
            "BFD {}: {}",
            snapshot.state, snapshot.reason
        )));
        board.update(|status| {
            let before = status.bfd.as_ref().and_then(|bfd| bfd.detected_us);
            snapshot.detected_us = detected_us.or(before);
            status.bfd = Some(snapshot);
        });
    }

    /// What a failure says of the path.
    fn verdict(&self, name: &PeerName, standing: &Standing) -> PathWhy {
        let peer = self.peers.get(name);
        let bfd = peer.and_then(|peer| peer.config.bfd.as_ref());
        let prefers = bfd.map_or_else(OnBfdFailure::default, |bfd| bfd.on_failure);
        // RFC 5882 §4.3: only where both ends' BFD outlives their BGP does its failure prove that the
        // path is dead, and not that a speaker restarts.
        match (standing.local_c && standing.remote_c, prefers) {
            (true, _) | (false, OnBfdFailure::PreferFailover) => PathWhy::BfdDown,
            (false, OnBfdFailure::PreferRestart) => PathWhy::BfdSilent,
        }
    }

    /// Whether BFD says that the path to the peer is up.
    pub(super) fn is_path_proved(&self, name: &PeerName, peer: &Peer) -> bool {
        self.standing(name, peer).is_some_and(is_up)
    }

    /// What BFD has said of the path to the peer.
    fn standing(&self, name: &PeerName, peer: &Peer) -> Option<&Standing> {
        let key = self.path_of(name, peer)?.key;
        self.detection.as_ref()?.standings.get(&key)
    }

    /// The session that is asked for the peer.
    fn wish_of(&self, name: &PeerName, peer: &Peer) -> Option<SessionConfig> {
        let runs = peer.config.activation == Activation::Run;
        runs.then(|| self.path_of(name, peer))?
    }

    /// The session that watches, or would watch, the path to the peer.
    fn path_of(&self, name: &PeerName, peer: &Peer) -> Option<SessionConfig> {
        let bfd = peer.config.bfd.as_ref()?;
        let far_end = self.far_end(name, peer)?;
        Some(session_config(&peer.config, bfd, far_end))
    }

    /// Where the path to the peer leads, if that is known.
    fn far_end(&self, name: &PeerName, peer: &Peer) -> Option<IpAddr> {
        let Endpoint::Interface {
            name: interface,
            port,
        } = &peer.config.remote
        else {
            return peer.config.remote.address().as_ref().map(SocketAddr::ip);
        };
        let found = self.links.neighbor(interface, *port);
        let found = found.map(|remote| remote.ip());
        if peer.session.is_none() {
            return found;
        }
        // Advertisements may get lost, and others may come, where a session lives: it is the path of the
        // session that counts.
        let status = self.board.status(name);
        let lives = status.state == SessionState::Established;
        let living = status.remote.filter(|_| lives).map(|remote| remote.ip());
        living.or(found).or_else(|| self.watched(name))
    }

    /// The other end of the path that is watched for the peer.
    fn watched(&self, name: &PeerName) -> Option<IpAddr> {
        let mut peers = self.detection.as_ref()?.peers.iter();
        let watched = peers.find(|(_, names)| names.contains(name));
        watched.map(|(key, _)| key.peer)
    }
}

fn is_up(standing: &Standing) -> bool {
    standing.state == State::Up
}

/// Whether the path died between these two. Who is told of changes too slowly is not told of each, but then
/// of how things stand.
fn has_failed(before: &Standing, now: &Standing) -> bool {
    let died = matches!(
        now.reason,
        Reason::DetectionTimeExpired | Reason::NeighborSignaledDown
    );
    is_up(before) && !is_up(now) && died
}

fn session_config(config: &PeerConfig, bfd: &BfdConfig, peer: IpAddr) -> SessionConfig {
    let micros = |time: std::time::Duration| u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
    let key = match bfd.multi_hop {
        Some(_) => SessionKey::multihop(config.local_address, peer),
        None => SessionKey::single_hop(config.local_address, peer, config.remote.interface()),
    };
    SessionConfig {
        desired_min_tx_us: micros(bfd.transmit),
        required_min_rx_us: micros(bfd.receive),
        detect_mult: bfd.detect_multiplier,
        min_ttl: bfd.multi_hop.unwrap_or(1),
        auth: bfd.password.as_ref().map(|password| AuthConfig {
            method: AuthMethod::MeticulousKeyedSha1,
            send_key: KEY_ID,
            keys: vec![KeyConfig {
                id: KEY_ID,
                secret: SecretConfig::Hex(hex(password.expose())),
            }],
        }),
        ..SessionConfig::new(key)
    }
}

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}
