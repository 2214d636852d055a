//! NetworkPolicy in the shape of `networking.k8s.io/v1`.
//!
//! Where a field is optional in the API it is optional here: `None` and "empty" differ in meaning in
//! some places and not in others, and that is the compiler's and the oracle's business. Values of
//! later API versions that cannot be understood are kept as such, so that they can fail closed.

use serde::{Deserialize, Serialize};

use super::{Cidr, CidrError, LabelSelector};
use crate::plan::{PolicyName, Protocol};

/// A NetworkPolicy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkPolicy {
    /// Namespace and name.
    pub name: PolicyName,
    /// `spec.podSelector`: which pods of the namespace it isolates. Missing means all of them.
    pub pod_selector: LabelSelector,
    /// `spec.policyTypes`; empty if not given.
    pub policy_types: Vec<PolicyType>,
    /// `spec.ingress`; a missing list and an empty one mean the same.
    pub ingress: Vec<PolicyRule>,
    /// `spec.egress`; a missing list and an empty one mean the same.
    pub egress: Vec<PolicyRule>,
}

/// An entry of `policyTypes`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PolicyType {
    /// The policy isolates its pods for ingress.
    Ingress,
    /// The policy isolates its pods for egress.
    Egress,
    /// A direction that this version does not know. It has no effect, but it counts as an entry.
    Unknown(String),
}

/// One rule: what it allows is (any of `peers`) and (any of `ports`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyRule {
    /// `from` or `to`. Empty or missing means every peer.
    pub peers: Vec<Peer>,
    /// `ports`. Empty or missing means every port of every protocol.
    pub ports: Vec<PolicyPort>,
}

/// An entry of `from` or `to`. Set either `ip_block` alone, or one or both selectors; anything else
/// (nothing set, or a block beside a selector) matches no peer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Pods, in the policy's namespace or in those that `namespace_selector` selects.
    pub pod_selector: Option<LabelSelector>,
    /// Namespaces; all of their pods unless `pod_selector` narrows them.
    pub namespace_selector: Option<LabelSelector>,
    /// Addresses.
    pub ip_block: Option<IpBlock>,
}

impl Peer {
    /// Pods of the policy's own namespace.
    #[must_use]
    pub fn pods(selector: LabelSelector) -> Self {
        Self {
            pod_selector: Some(selector),
            ..Self::default()
        }
    }

    /// All pods of the selected namespaces.
    #[must_use]
    pub fn namespaces(selector: LabelSelector) -> Self {
        Self {
            namespace_selector: Some(selector),
            ..Self::default()
        }
    }

    /// The selected pods of the selected namespaces.
    #[must_use]
    pub fn pods_in(namespaces: LabelSelector, pods: LabelSelector) -> Self {
        Self {
            pod_selector: Some(pods),
            namespace_selector: Some(namespaces),
            ip_block: None,
        }
    }

    /// Addresses.
    #[must_use]
    pub fn addresses(block: IpBlock) -> Self {
        Self {
            ip_block: Some(block),
            ..Self::default()
        }
    }

    /// A peer that cannot be understood (an unreadable address block, a field of a later version): it
    /// matches nothing, and keeps its rule from becoming "every peer", which a rule without peers is.
    #[must_use]
    pub fn nobody() -> Self {
        Self::default()
    }
}

/// `ipBlock`: the addresses of `cidr` except those in `except`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpBlock {
    /// The block.
    pub cidr: Cidr,
    /// Parts of it that this entry does not match. Another entry may still match them.
    pub except: Vec<Cidr>,
}

impl IpBlock {
    /// Reads the block as the API writes it.
    ///
    /// # Errors
    ///
    /// [`CidrError`] for the first part that is no address block. Use [`Peer::nobody`] then: leaving an
    /// unreadable exception out would allow what was to be excepted.
    pub fn parse<'a>(
        cidr: &str,
        except: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, CidrError> {
        Ok(Self {
            cidr: cidr.parse()?,
            except: except
                .into_iter()
                .map(str::parse)
                .collect::<Result<_, _>>()?,
        })
    }
}

/// An entry of `ports`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyPort {
    /// `protocol`.
    pub protocol: PortProtocol,
    /// `port`. Missing means every port of the protocol.
    pub port: Option<PortRef>,
    /// `endPort`: makes a range of `port` (which must be a number, not above it) to this, inclusive.
    pub end_port: Option<u16>,
}

impl PolicyPort {
    /// Every port of `protocol`.
    #[must_use]
    pub fn all(protocol: Protocol) -> Self {
        Self {
            protocol: PortProtocol::Known(protocol),
            port: None,
            end_port: None,
        }
    }

    /// One port.
    #[must_use]
    pub fn number(protocol: Protocol, number: u16) -> Self {
        Self {
            port: Some(PortRef::Number(number)),
            ..Self::all(protocol)
        }
    }

    /// The ports `first` to `last`.
    #[must_use]
    pub fn range(protocol: Protocol, first: u16, last: u16) -> Self {
        Self {
            end_port: Some(last),
            ..Self::number(protocol, first)
        }
    }

    /// Reads the API's fields. An `endPort` that no port can have makes the entry match nothing, as
    /// leaving it out would match a port that the policy does not name alone.
    #[must_use]
    pub fn from_api(protocol: Option<&str>, port: Option<PortRef>, end_port: Option<i64>) -> Self {
        let protocol = PortProtocol::from_api(protocol);
        match end_port.map(u16::try_from).transpose() {
            Ok(end_port) => Self {
                protocol,
                port,
                end_port,
            },
            Err(_) => {
                let port = end_port.map(PortRef::Invalid);
                Self {
                    protocol,
                    port,
                    end_port: None,
                }
            }
        }
    }

    /// A port by the name it has in the destination pod.
    #[must_use]
    pub fn named(protocol: Protocol, name: impl Into<String>) -> Self {
        Self {
            port: Some(PortRef::Name(name.into())),
            ..Self::all(protocol)
        }
    }
}

/// A protocol as policies write it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PortProtocol {
    /// One of the three.
    Known(Protocol),
    /// Another one; its entry matches nothing.
    Unknown(String),
}

impl PortProtocol {
    /// Reads the API's field, in which a missing protocol means TCP.
    #[must_use]
    pub fn from_api(protocol: Option<&str>) -> Self {
        match protocol {
            None | Some("TCP") => Self::Known(Protocol::Tcp),
            Some("UDP") => Self::Known(Protocol::Udp),
            Some("SCTP") => Self::Known(Protocol::Sctp),
            Some(other) => Self::Unknown(other.to_owned()),
        }
    }
}

/// A port as policies write it (`IntOrString`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PortRef {
    /// By number.
    Number(u16),
    /// By the name of a container port.
    Name(String),
    /// A number outside 0 to 65535; its entry matches nothing.
    Invalid(i64),
}

impl PortRef {
    /// Reads the API's integer.
    #[must_use]
    pub fn from_api_number(number: i64) -> Self {
        u16::try_from(number).map_or(Self::Invalid(number), Self::Number)
    }
}
