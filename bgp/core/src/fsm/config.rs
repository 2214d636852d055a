//! What is configured of one session.

use std::time::Duration;

use crate::types::{Asn, Family, PeerKind, RouterId};

/// Configuration of one session, as the machine needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Our AS towards this peer.
    pub local_asn: Asn,
    /// Our identifier; not zero.
    pub router_id: RouterId,
    /// The AS that the peer must show.
    pub peer_asn: Asn,
    /// Families to offer, ascending; not empty.
    pub families: Vec<Family>,
    /// Hold time to propose: zero, or at least three seconds (RFC 4271 §4.2).
    pub hold_time: Duration,
    /// The longest wait between two dials; waits grow up to it from half a second.
    pub connect_retry: Duration,
    /// Whether to leave dialling to the peer.
    pub passive: bool,
    /// Our part in graceful restart; `None` takes none, not even as a helper.
    pub graceful_restart: Option<LocalGracefulRestart>,
    /// Where the machine's jitter begins; different for every peer, so that timers spread.
    pub jitter_seed: u64,
}

impl Config {
    /// Whether the peer is in our AS.
    pub fn peer_kind(&self) -> PeerKind {
        if self.local_asn == self.peer_asn {
            PeerKind::Internal
        } else {
            PeerKind::External
        }
    }
}

/// Our part in graceful restart (RFC 4724).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalGracefulRestart {
    /// How long peers are asked to keep our routes, in whole seconds up to 4095.
    pub restart_time: Duration,
    /// We have just restarted: the R bit is set until [`super::Event::RestartComplete`].
    pub restarting: bool,
    /// Families that we keep across a restart, each with its F bit, which must say truly whether
    /// the kernel kept the routes. Empty for one who only helps others.
    pub families: Vec<(Family, bool)>,
}
