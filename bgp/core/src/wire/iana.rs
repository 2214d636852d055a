//! Numbers that IANA registers for BGP, one type per registry; unlisted values are kept.
//!
//! <https://www.iana.org/assignments/bgp-parameters/bgp-parameters.xhtml>

use std::fmt;

use crate::types::Family;

/// Any pair of address family and subsequent address family identifiers (RFC 4760 §3).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AfiSafi {
    /// Address family identifier.
    pub afi: u16,
    /// Subsequent address family identifier.
    pub safi: u8,
}

impl AfiSafi {
    /// The family, when this speaker routes it.
    pub fn family(self) -> Option<Family> {
        Family::ALL
            .into_iter()
            .find(|family| Self::from(*family) == self)
    }
}

impl From<Family> for AfiSafi {
    fn from(family: Family) -> Self {
        match family {
            Family::Ipv4Unicast => Self { afi: 1, safi: 1 },
            Family::Ipv6Unicast => Self { afi: 2, safi: 1 },
        }
    }
}

impl fmt::Display for AfiSafi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.family() {
            Some(family) => family.fmt(f),
            None => write!(f, "AFI {} SAFI {}", self.afi, self.safi),
        }
    }
}

impl fmt::Debug for AfiSafi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An enum over one registry of octets, with the text that people read; unlisted values stay.
macro_rules! registry {
    (
        $(#[$meta:meta])*
        pub enum $name:ident { $( $code:literal => $variant:ident, $text:literal; )* }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name {
            $( #[doc = concat!("Code ", stringify!($code), ": ", $text, ".")] $variant, )*
            /// A value that the registry did not list when this was written.
            Unknown(u8),
        }

        impl From<u8> for $name {
            fn from(code: u8) -> Self {
                match code {
                    $( $code => Self::$variant, )*
                    other => Self::Unknown(other),
                }
            }
        }

        impl From<$name> for u8 {
            fn from(value: $name) -> Self {
                match value {
                    $( $name::$variant => $code, )*
                    $name::Unknown(other) => other,
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $( Self::$variant => f.write_str($text), )*
                    Self::Unknown(code) => write!(f, "code {code}"),
                }
            }
        }
    };
}

registry! {
    /// Message types (RFC 4271 §4.1, RFC 2918 §3).
    pub enum MessageType {
        1 => Open, "OPEN";
        2 => Update, "UPDATE";
        3 => Notification, "NOTIFICATION";
        4 => Keepalive, "KEEPALIVE";
        5 => RouteRefresh, "ROUTE-REFRESH";
    }
}

registry! {
    /// Subcodes of Message Header Error (RFC 4271 §6.1).
    pub enum HeaderError {
        0 => Unspecific, "unspecific";
        1 => NotSynchronized, "connection not synchronized";
        2 => BadLength, "bad message length";
        3 => BadType, "bad message type";
    }
}

registry! {
    /// Subcodes of OPEN Message Error (RFC 4271 §6.2, RFC 5492 §5, RFC 9234 §4.2).
    pub enum OpenError {
        0 => Unspecific, "unspecific";
        1 => UnsupportedVersion, "unsupported version number";
        2 => BadPeerAs, "bad peer AS";
        3 => BadIdentifier, "bad BGP identifier";
        4 => UnsupportedParameter, "unsupported optional parameter";
        5 => AuthenticationFailure, "authentication failure (deprecated)";
        6 => UnacceptableHoldTime, "unacceptable hold time";
        7 => UnsupportedCapability, "unsupported capability";
        11 => RoleMismatch, "role mismatch";
    }
}

registry! {
    /// Subcodes of UPDATE Message Error (RFC 4271 §6.3).
    pub enum UpdateError {
        0 => Unspecific, "unspecific";
        1 => MalformedAttributeList, "malformed attribute list";
        2 => UnrecognizedWellKnown, "unrecognized well-known attribute";
        3 => MissingWellKnown, "missing well-known attribute";
        4 => AttributeFlags, "attribute flags error";
        5 => AttributeLength, "attribute length error";
        6 => InvalidOrigin, "invalid ORIGIN attribute";
        7 => RoutingLoop, "AS routing loop (deprecated)";
        8 => InvalidNextHop, "invalid NEXT_HOP attribute";
        9 => OptionalAttribute, "optional attribute error";
        10 => InvalidNetworkField, "invalid network field";
        11 => MalformedAsPath, "malformed AS_PATH";
    }
}

registry! {
    /// Subcodes of Finite State Machine Error (RFC 6608 §3).
    pub enum FsmError {
        0 => Unspecific, "unspecified";
        1 => UnexpectedInOpenSent, "unexpected message in OpenSent state";
        2 => UnexpectedInOpenConfirm, "unexpected message in OpenConfirm state";
        3 => UnexpectedInEstablished, "unexpected message in Established state";
    }
}

registry! {
    /// Subcodes of Cease (RFC 4486 §4, RFC 8538 §3.1, RFC 9384 §2).
    pub enum Cease {
        0 => Unspecific, "unspecific";
        1 => MaximumPrefixes, "maximum number of prefixes reached";
        2 => AdministrativeShutdown, "administrative shutdown";
        3 => PeerDeconfigured, "peer de-configured";
        4 => AdministrativeReset, "administrative reset";
        5 => ConnectionRejected, "connection rejected";
        6 => ConfigurationChange, "other configuration change";
        7 => CollisionResolution, "connection collision resolution";
        8 => OutOfResources, "out of resources";
        9 => HardReset, "hard reset";
        10 => BfdDown, "BFD down";
    }
}

registry! {
    /// Subcodes of ROUTE-REFRESH Message Error (RFC 7313 §5).
    pub enum RefreshError {
        0 => Unspecific, "unspecific";
        1 => InvalidLength, "invalid message length";
    }
}

registry! {
    /// What a ROUTE-REFRESH message is for (RFC 7313 §3.2).
    pub enum RefreshKind {
        0 => Request, "request";
        1 => Begin, "beginning of refresh";
        2 => End, "end of refresh";
    }
}

registry! {
    /// Path attribute type codes.
    pub enum AttributeCode {
        1 => Origin, "ORIGIN";
        2 => AsPath, "AS_PATH";
        3 => NextHop, "NEXT_HOP";
        4 => Med, "MULTI_EXIT_DISC";
        5 => LocalPref, "LOCAL_PREF";
        6 => AtomicAggregate, "ATOMIC_AGGREGATE";
        7 => Aggregator, "AGGREGATOR";
        8 => Communities, "COMMUNITIES";
        9 => OriginatorId, "ORIGINATOR_ID";
        10 => ClusterList, "CLUSTER_LIST";
        14 => MpReach, "MP_REACH_NLRI";
        15 => MpUnreach, "MP_UNREACH_NLRI";
        16 => ExtCommunities, "EXTENDED COMMUNITIES";
        17 => As4Path, "AS4_PATH";
        18 => As4Aggregator, "AS4_AGGREGATOR";
        22 => PmsiTunnel, "PMSI_TUNNEL";
        23 => TunnelEncapsulation, "Tunnel Encapsulation";
        25 => Ipv6ExtCommunities, "IPv6 Address Specific Extended Community";
        26 => Aigp, "AIGP";
        29 => LinkState, "BGP-LS";
        32 => LargeCommunities, "LARGE_COMMUNITY";
        35 => OnlyToCustomer, "Only to Customer";
        40 => PrefixSid, "BGP Prefix-SID";
    }
}

registry! {
    /// Capability codes (RFC 5492 §4).
    pub enum CapabilityCode {
        1 => Multiprotocol, "multiprotocol";
        2 => RouteRefresh, "route refresh";
        5 => ExtendedNextHop, "extended next hop encoding";
        6 => ExtendedMessage, "extended messages";
        9 => Role, "BGP role";
        64 => GracefulRestart, "graceful restart";
        65 => FourOctetAs, "four-octet AS numbers";
        69 => AddPath, "add-path";
        70 => EnhancedRouteRefresh, "enhanced route refresh";
        71 => LongLivedRestart, "long-lived graceful restart";
        73 => Hostname, "host name";
        74 => BfdStrict, "BFD strict mode";
        75 => SoftwareVersion, "software version";
        77 => LinkLocalNextHop, "link-local next hop";
    }
}

impl AttributeCode {
    /// Whether an attribute has no bearing on which route is best or where packets go, so that
    /// doing without it harms nobody: those for which a fault costs the attribute alone.
    pub fn is_informational(self) -> bool {
        match self {
            // RFC 7606 §§7.6, 7.7; RFC 6793 §6.
            Self::AtomicAggregate | Self::Aggregator | Self::As4Path | Self::As4Aggregator => true,
            // RFC 7311 §3.2, RFC 9552 §8.2.2, RFC 8669 §6.
            Self::Aigp | Self::LinkState | Self::PrefixSid => true,
            _ => false,
        }
    }
}

/// Bits of the attribute flags octet (RFC 4271 §4.3).
pub mod flags {
    /// Not every speaker recognises the attribute.
    pub const OPTIONAL: u8 = 0x80;
    /// Speakers that do not recognise it pass it on.
    pub const TRANSITIVE: u8 = 0x40;
    /// Some speaker on the way did not recognise it.
    pub const PARTIAL: u8 = 0x20;
    /// The length takes two octets.
    pub const EXTENDED_LENGTH: u8 = 0x10;
}
