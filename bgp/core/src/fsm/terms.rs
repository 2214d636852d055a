//! What two speakers agree on.
//!
//! Owns the values that pass from the session to the RIB. Does not own the negotiation itself.

use std::time::Duration;

use crate::fsm::config::{AddPath, Identity};
use crate::types::{Asn, BgpRole, Family, FamilySet, PeerKind, RouterId};
use crate::wire::{DecodeContext, EncodeContext, MAX_MESSAGE_LEN};

/// The terms of an established session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Negotiated {
    /// Our AS towards the peer.
    pub local_asn: Asn,
    /// The peer's AS.
    pub peer_asn: Asn,
    /// The peer's identifier.
    pub peer_router_id: RouterId,
    /// Silence after which the session ends; zero means never.
    pub hold_time: Duration,
    /// Time between our keepalives, before jitter; zero means none.
    pub keepalive: Duration,
    /// How long the peer may refuse to read; zero means for ever.
    pub send_hold_time: Duration,
    /// Families that both sides listed, ascending.
    pub families: Vec<Family>,
    /// Whether AS numbers take four octets in UPDATEs (RFC 6793).
    pub four_octet_as: bool,
    /// Whether the peer answers ROUTE-REFRESH (RFC 2918).
    pub route_refresh: bool,
    /// Whether both sides bracket refreshes (RFC 7313).
    pub enhanced_route_refresh: bool,
    /// What the peer said of its restarts; `None` also when we do not take part.
    pub graceful_restart: Option<PeerGracefulRestart>,
    /// What the peer said of long retention; `None` unless both sides take part. A peer with
    /// `None` is not told routes that are kept long (RFC 9494 §4.3).
    pub long_lived: Option<Vec<PeerLongLived>>,
    /// Families whose paths carry identifiers (RFC 7911), each direction by itself.
    pub add_path: AddPath,
    /// Whether the peer takes IPv6 next hops for IPv4 prefixes (RFC 8950 §4).
    pub extended_next_hop: bool,
    /// Whether we have offered to take them: the peer needs no offer of its own to send them.
    pub accept_extended_next_hop: bool,
    /// Whether both sides said what they do with a next hop that is a link-local address alone. Without it the
    /// same is sent and taken, but what the peer makes of it is its own affair.
    pub link_local_next_hop: bool,
    /// The longest message that the peer takes (RFC 8654).
    pub max_send_len: usize,
    /// Whether both sides wait with the session until BFD is up.
    pub bfd_strict: bool,
    /// Our role, where one is configured: [`crate::role`] says what follows. That of the peer is
    /// its counterpart, whether it said so or not (RFC 9234 §4.2).
    pub role: Option<BgpRole>,
    /// What the peer told of itself, safe to show.
    pub peer_identity: Identity,
}

impl Negotiated {
    /// The terms with a peer that offers both families, four-octet AS numbers and route refresh,
    /// and nothing else.
    pub fn plain(local_asn: Asn, peer_asn: Asn, peer_router_id: RouterId) -> Self {
        Self {
            local_asn,
            peer_asn,
            peer_router_id,
            hold_time: Duration::from_secs(90),
            keepalive: Duration::from_secs(30),
            send_hold_time: Duration::from_secs(480),
            families: Family::ALL.to_vec(),
            four_octet_as: true,
            route_refresh: true,
            enhanced_route_refresh: false,
            graceful_restart: None,
            long_lived: None,
            add_path: AddPath::default(),
            extended_next_hop: false,
            accept_extended_next_hop: false,
            link_local_next_hop: false,
            max_send_len: MAX_MESSAGE_LEN,
            bfd_strict: false,
            role: None,
            peer_identity: Identity::default(),
        }
    }

    /// Whether the peer is in our AS.
    pub fn peer_kind(&self) -> PeerKind {
        if self.peer_asn == self.local_asn {
            PeerKind::Internal
        } else {
            PeerKind::External
        }
    }

    /// The families as a set.
    pub fn family_set(&self) -> FamilySet {
        self.families.iter().copied().collect()
    }

    /// Whether the peer can be asked to send its routes of `family` again.
    pub fn can_refresh(&self, family: Family) -> bool {
        self.route_refresh && self.families.contains(&family)
    }

    /// How to read the peer's UPDATEs. Which AS must come first in its paths is left open.
    pub fn decode_context(&self) -> DecodeContext {
        DecodeContext {
            four_octet_as: self.four_octet_as,
            families: self.family_set(),
            add_path: self.add_path.receive,
            extended_next_hop: self.accept_extended_next_hop,
            ..DecodeContext::new(self.peer_kind())
        }
    }

    /// How to write UPDATEs for the peer.
    pub fn encode_context(&self) -> EncodeContext {
        EncodeContext {
            four_octet_as: self.four_octet_as,
            add_path: self.add_path.send,
            max_len: self.max_send_len,
        }
    }
}

/// The peer's side of graceful restart (RFC 4724 §3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerGracefulRestart {
    /// R bit: the peer has restarted and waits for our End-of-RIB.
    pub restarting: bool,
    /// N bit of both sides: retention survives NOTIFICATIONs (RFC 8538 §2).
    pub notification: bool,
    /// How long to keep its routes while it is away.
    pub restart_time: Duration,
    /// Negotiated families that it keeps, with its F bit; empty for a peer that only helps others.
    pub families: Vec<(Family, bool)>,
}

/// The peer's side of long-lived graceful restart, for one negotiated family (RFC 9494 §3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerLongLived {
    /// The family.
    pub family: Family,
    /// F bit: its state survived the peer's last restart.
    pub forwarding: bool,
    /// How long to keep its stale routes once the restart time is over, as the last resort.
    pub stale_time: Duration,
}

/// A family whose routes outlive a session, marked stale, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// The family.
    pub family: Family,
    /// First for this long with their preference unchanged (RFC 4724 §4.2); may be zero.
    pub restart_time: Duration,
    /// Then for this long as the least preferred (RFC 9494 §4.2); may be zero, but not both.
    pub long_lived_time: Duration,
}
