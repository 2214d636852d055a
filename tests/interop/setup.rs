//! What a cell asks of both sides: the session, and what each side is to do on it.
//!
//! Owns the words that features use. How they are said to a daemon is the affair of [`crate::daemons`], how to
//! us, of [`crate::ours`].

use std::net::IpAddr;

use caracal_bgp_core::types::Family;
use serde_json::{Map, Value, json};

use crate::arena::{OURS_LINK_LOCAL, OURS_V4, OURS_V6, THEIRS_LINK_LOCAL, THEIRS_V4, THEIRS_V6};

/// Our AS.
pub(crate) const OUR_ASN: u32 = 65001;
/// The router's, where it is not ours.
pub(crate) const THEIR_ASN: u32 = 65002;
/// The router's identifier.
pub(crate) const THEIR_ID: &str = "10.0.0.8";
/// Ours.
pub(crate) const OUR_ID: &str = "10.0.0.9";
/// That of our scripted speakers, where it is not ours.
pub(crate) const SOURCE_ASN: u32 = 65009;
/// That of the router's scripted speakers, where it is not the router's.
pub(crate) const THEIR_SOURCE_ASN: u32 = 65019;

/// What runs under the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    V4,
    V6,
    /// Link-local addresses that neither side was told.
    Unnumbered,
}

/// Several paths to one prefix, as the router is to have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AddPath {
    Off,
    Sends,
    Receives,
}

/// One session.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) transport: Transport,
    pub(crate) families: Vec<Family>,
    /// Whether the router is in our AS.
    pub(crate) internal: bool,
    pub(crate) graceful_restart: bool,
    pub(crate) password: Option<String>,
    pub(crate) gtsm: bool,
    pub(crate) extended_next_hop: bool,
    pub(crate) add_path: AddPath,
    pub(crate) bfd: bool,
    /// Whether we and its scripted speakers are clients of the router.
    pub(crate) they_reflect: bool,
    /// How many scripted speakers the router peers with.
    pub(crate) their_sources: u8,
    /// How many scripted speakers we peer with.
    pub(crate) our_sources: u8,
    /// Whether those of ours are in our AS.
    pub(crate) internal_sources: bool,
    /// Whether those of the router are in its AS.
    pub(crate) internal_their_sources: bool,
    /// More fields of our BGPPeer for the router.
    pub(crate) peer: Map<String, Value>,
    /// More fields of our BGPConfiguration.
    pub(crate) configuration: Map<String, Value>,
    /// More objects of ours.
    pub(crate) objects: Vec<Value>,
}

impl Setup {
    /// An external session over IPv4 with these families, graceful restart as both sides have it by default,
    /// one scripted speaker behind us.
    pub(crate) fn new(families: impl Into<Vec<Family>>) -> Self {
        Self {
            transport: Transport::V4,
            families: families.into(),
            internal: false,
            graceful_restart: true,
            password: None,
            gtsm: false,
            extended_next_hop: false,
            add_path: AddPath::Off,
            bfd: false,
            they_reflect: false,
            their_sources: 1,
            our_sources: 1,
            internal_sources: false,
            internal_their_sources: false,
            peer: Map::new(),
            configuration: Map::new(),
            objects: Vec::new(),
        }
    }

    pub(crate) fn over(mut self, transport: Transport) -> Self {
        self.transport = transport;
        self
    }

    /// Adds a field to our BGPPeer for the router.
    pub(crate) fn with(mut self, field: &str, value: Value) -> Self {
        self.peer.insert(field.to_owned(), value);
        self
    }

    pub(crate) fn their_asn(&self) -> u32 {
        if self.internal { OUR_ASN } else { THEIR_ASN }
    }

    pub(crate) fn source_asn(&self) -> u32 {
        if self.internal_sources {
            OUR_ASN
        } else {
            SOURCE_ASN
        }
    }

    pub(crate) fn their_source_asn(&self) -> u32 {
        if self.internal_their_sources {
            self.their_asn()
        } else {
            THEIR_SOURCE_ASN
        }
    }

    /// Whether the router names itself where it would pass an external next hop on to us unchanged: the way to that
    /// is not known here.
    pub(crate) fn next_hop_self(&self) -> bool {
        self.internal && !self.internal_their_sources
    }

    /// Our address on the session.
    pub(crate) fn our_address(&self) -> IpAddr {
        match self.transport {
            Transport::V4 => OURS_V4.into(),
            Transport::V6 => OURS_V6.into(),
            Transport::Unnumbered => OURS_LINK_LOCAL.into(),
        }
    }

    /// The router's address on the session.
    pub(crate) fn their_address(&self) -> IpAddr {
        match self.transport {
            Transport::V4 => THEIRS_V4.into(),
            Transport::V6 => THEIRS_V6.into(),
            Transport::Unnumbered => THEIRS_LINK_LOCAL.into(),
        }
    }

    /// The next hop that we are to name to the router.
    pub(crate) fn our_next_hop(&self, family: Family) -> IpAddr {
        match (self.transport, family) {
            (Transport::Unnumbered, _) => OURS_LINK_LOCAL.into(),
            (_, Family::Ipv6Unicast) => OURS_V6.into(),
            (Transport::V6, Family::Ipv4Unicast) if self.extended_next_hop => OURS_V6.into(),
            (_, Family::Ipv4Unicast) => OURS_V4.into(),
        }
    }

    /// The next hop that the router is to name to us.
    pub(crate) fn their_next_hop(&self, family: Family) -> IpAddr {
        match (self.transport, family) {
            (Transport::Unnumbered, _) => THEIRS_LINK_LOCAL.into(),
            (_, Family::Ipv6Unicast) => THEIRS_V6.into(),
            (Transport::V6, Family::Ipv4Unicast) if self.extended_next_hop => THEIRS_V6.into(),
            (_, Family::Ipv4Unicast) => THEIRS_V4.into(),
        }
    }
}

/// An object of ours.
pub(crate) fn object(kind: &str, name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "caracal.dev/v1alpha1",
        "kind": kind,
        "metadata": {"name": name},
        "spec": spec,
    })
}
