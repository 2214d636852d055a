//! What is configured of one session.

use std::time::Duration;

use crate::types::{Asn, BgpRole, Family, FamilySet, PeerAs, PeerKind, RouterId};
use crate::wire::{MAX_EXTENDED_LEN, MAX_MESSAGE_LEN};

/// Configuration of one session, as the machine needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Our AS towards this peer; another than the speaker's where the peer knows us by an old one.
    pub local_asn: Asn,
    /// Our identifier; not zero.
    pub router_id: RouterId,
    /// The AS that the peer must show.
    pub peer_asn: PeerAs,
    /// Families to offer, ascending; not empty.
    pub families: Vec<Family>,
    /// Hold time to propose: zero, or at least three seconds (RFC 4271 §4.2).
    pub hold_time: Duration,
    /// The longest time between our keepalives; `None`, and anything above it, is a third of the
    /// hold time (RFC 4271 §10). Less than a second counts as one (§4.4).
    pub keepalive: Option<Duration>,
    /// How long a peer may refuse to read (RFC 9687): `None` is eight minutes, or twice the hold
    /// time where that is longer; zero is for ever; anything else is at least longer than the hold
    /// time.
    pub send_hold_time: Option<Duration>,
    /// The longest wait between two dials; waits grow up to it from half a second.
    pub connect_retry: Duration,
    /// Whether to leave dialling to the peer.
    pub passive: bool,
    /// By family: how many prefixes end the session; `None` where none do.
    pub prefix_limits: [Option<PrefixLimit>; Family::ALL.len()],
    /// Our part in graceful restart; `None` takes none, not even as a helper.
    pub graceful_restart: Option<LocalGracefulRestart>,
    /// Our part in long-lived graceful restart; of no effect without graceful restart
    /// (RFC 9494 §4.1).
    pub long_lived: Option<LocalLongLived>,
    /// Families whose paths may carry identifiers (RFC 7911).
    pub add_path: AddPath,
    /// Whether IPv4 prefixes may have IPv6 next hops, both ways (RFC 8950).
    pub extended_next_hop: bool,
    /// Whether to say that a link-local address alone will do as a next hop: of use where the session is on
    /// a link (draft-ietf-idr-linklocal-capability §2).
    pub link_local_next_hop: bool,
    /// Whether messages may be longer than 4,096 octets, both ways (RFC 8654).
    pub extended_messages: bool,
    /// Whether a session waits until BFD says that the path is up: the peer is told so, and our first KEEPALIVE
    /// waits (draft-ietf-idr-bgp-bfd-strict-mode §4). We wait for a peer that does not say the same too, as who
    /// configures this trusts no path that is not proved.
    pub bfd_strict: bool,
    /// What we are to the peer; of no effect on internal peers (RFC 9234 §4).
    pub role: Option<LocalRole>,
    /// What to tell the peer of ourselves.
    pub identity: Identity,
    /// Where the machine's jitter begins; different for every peer, so that timers spread.
    pub jitter_seed: u64,
}

impl Config {
    /// A session for both families with hold time 90 s, dialled at most every 5 s, without any
    /// extension that needs to be agreed on.
    pub fn new(local_asn: Asn, router_id: RouterId, peer_asn: impl Into<PeerAs>) -> Self {
        Self {
            local_asn,
            router_id,
            peer_asn: peer_asn.into(),
            families: Family::ALL.to_vec(),
            hold_time: Duration::from_secs(90),
            keepalive: None,
            send_hold_time: None,
            connect_retry: Duration::from_secs(5),
            passive: false,
            prefix_limits: Default::default(),
            graceful_restart: None,
            long_lived: None,
            add_path: AddPath::default(),
            extended_next_hop: false,
            link_local_next_hop: false,
            extended_messages: false,
            bfd_strict: false,
            role: None,
            identity: Identity::default(),
            jitter_seed: 0,
        }
    }

    /// Whether the peer is in our AS.
    pub fn peer_kind(&self) -> PeerKind {
        self.peer_asn.kind(self.local_asn)
    }

    /// The longest message to take from the peer, from its first octet on: an offer to take
    /// extended messages binds us as soon as it is made (RFC 8654 §3), and without it they are not
    /// to be taken (§5).
    pub fn max_receive_len(&self) -> usize {
        if self.extended_messages {
            MAX_EXTENDED_LEN
        } else {
            MAX_MESSAGE_LEN
        }
    }
}

/// How many prefixes of a family end the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PrefixLimit {
    /// The most that the peer may send.
    pub limit: u32,
    /// How long the peer stays down after it has sent more; `None` is until somebody clears it or
    /// configures another limit.
    pub restart_after: Option<Duration>,
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

/// Our part in long-lived graceful restart (RFC 9494). Whether a family's state survived is said
/// by its F bit in [`LocalGracefulRestart`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalLongLived {
    /// How long peers are asked to keep our routes once the restart time is over, by family.
    /// Empty for one who only helps others.
    pub stale_times: Vec<(Family, Duration)>,
    /// The longest that the peer's stale routes are kept, whatever it asks (RFC 9494 §4.2).
    pub longest: Option<Duration>,
}

/// Families whose paths carry identifiers, so that there can be several per prefix (RFC 7911).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct AddPath {
    /// On what we send.
    pub send: FamilySet,
    /// On what we receive.
    pub receive: FamilySet,
}

/// Our role in an external session (RFC 9234).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalRole {
    /// What we are to the peer.
    pub role: BgpRole,
    /// Whether a peer that says nothing of its role is refused (RFC 9234 §4.2).
    pub strict: bool,
}

/// What a speaker tells of itself for people to read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// Host name and domain; the domain may be empty.
    pub host: Option<(String, String)>,
    /// Program and version.
    pub software: Option<String>,
}
