//! What every session shows of itself, kept where it can be read without asking the session.
//!
//! Owns the latest status per peer. Does not own routes.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{SystemTime, UNIX_EPOCH};

use caracal_bgp_core::fsm::Negotiated;
use caracal_bgp_core::types::Asn;
use tokio::sync::watch;

use crate::config::{PeerConfig, PeerName};
use crate::net::Interface;
use crate::snapshot::{ErrorSnapshot, FamilySnapshot, PeerSnapshot, SessionState};

/// The status of every peer; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Board {
    peers: Arc<Mutex<BTreeMap<PeerName, Status>>>,
    changes: Arc<watch::Sender<u64>>,
}

/// The status of one peer.
#[derive(Clone, Debug)]
pub(crate) struct Status {
    pub(crate) state: SessionState,
    pub(crate) since_ms: u64,
    pub(crate) why: String,
    pub(crate) last_sent_error: Option<ErrorSnapshot>,
    pub(crate) last_received_error: Option<ErrorSnapshot>,
    pub(crate) established_count: u64,
    pub(crate) local_address: Option<IpAddr>,
    /// The interface of the present session, or of the last one.
    pub(crate) interface: Option<Interface>,
    pub(crate) negotiated: Option<Negotiated>,
}

impl Default for Status {
    fn default() -> Self {
        Self {
            state: SessionState::Idle,
            since_ms: now_ms(),
            why: String::new(),
            last_sent_error: None,
            last_received_error: None,
            established_count: 0,
            local_address: None,
            interface: None,
            negotiated: None,
        }
    }
}

impl Board {
    pub(crate) fn new(changes: Arc<watch::Sender<u64>>) -> Self {
        Self {
            peers: Arc::default(),
            changes,
        }
    }

    /// Changes the status of `peer` and tells watchers.
    pub(crate) fn update(&self, peer: &PeerName, change: impl FnOnce(&mut Status)) {
        change(self.lock().entry(peer.clone()).or_default());
        self.changes.send_modify(|revision| *revision += 1);
    }

    /// Forgets `peer`.
    pub(crate) fn remove(&self, peer: &PeerName) {
        self.lock().remove(peer);
        self.changes.send_modify(|revision| *revision += 1);
    }

    /// The status of `peer`.
    pub(crate) fn status(&self, peer: &PeerName) -> Status {
        self.lock().get(peer).cloned().unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<PeerName, Status>> {
        // A status is plain data: what a task that died left is still worth showing.
        self.peers
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Status {
    /// The status for people.
    pub(crate) fn snapshot(
        self,
        name: &PeerName,
        config: &PeerConfig,
        local: Asn,
        families: Vec<FamilySnapshot>,
    ) -> PeerSnapshot {
        let negotiated = self.negotiated.as_ref();
        PeerSnapshot {
            name: name.0.clone(),
            remote: config.remote.address().unwrap_or(NO_ADDRESS),
            local_address: self.local_address.or(config.local_address),
            interface: self.interface.map(|interface| interface.name),
            asn: negotiated.map_or_else(
                || config.peer_as.number(local).unwrap_or(Asn::ZERO),
                |terms| terms.peer_asn,
            ),
            router_id: negotiated.map(|terms| terms.peer_router_id.to_string()),
            state: self.state,
            since_ms: self.since_ms,
            why: self.why,
            last_sent_error: self.last_sent_error,
            last_received_error: self.last_received_error,
            established_count: self.established_count,
            hold_time_secs: negotiated.map(|terms| terms.hold_time.as_secs()),
            graceful_restart: negotiated.is_some_and(|terms| terms.graceful_restart.is_some()),
            families,
        }
    }
}

/// Shown for a peer that is known by its interface or its range.
const NO_ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// Milliseconds since the Unix epoch; zero on a clock that stands before it.
pub(crate) fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|elapsed| u64::try_from(elapsed.as_millis()).ok())
        .unwrap_or(0)
}
