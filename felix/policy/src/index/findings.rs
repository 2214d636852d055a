//! What an operator should know about the policies in force here.

use std::collections::BTreeSet;
use std::fmt;

use super::PolicyIndex;
use super::classes::ClassState;
use super::selectors::NamedPort;
use super::terms::named_ports;
use crate::model::{NetworkPolicy, Peer, PolicyPort, PolicyType, PortProtocol, PortRef};
use crate::plan::{ClassId, Direction, PolicyName, Protocol};

/// Something that is enforced, safely, but not as its author may have meant, or not as cheaply.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Finding {
    /// More identities than numbers: the classes concerned match these identities by address.
    IdentitiesExhausted {
        /// How many identities have no number.
        without_number: usize,
    },
    /// A class has more cells than it may, so it is matched rule by rule.
    ClassTooLarge {
        /// The class.
        class: ClassId,
        /// Its direction.
        direction: Direction,
        /// Its policies.
        policies: Vec<PolicyName>,
    },
    /// The policy's pod selector cannot be understood: it isolates every pod of its namespace and allows
    /// nothing.
    UnreadablePodSelector {
        /// The policy.
        policy: PolicyName,
    },
    /// A policy type is unknown and has no effect.
    UnknownPolicyType {
        /// The policy.
        policy: PolicyName,
        /// The type.
        policy_type: String,
    },
    /// An entry of `from` or `to` cannot be understood and matches nobody.
    UnreadablePeer {
        /// The policy.
        policy: PolicyName,
        /// Ingress or egress rules.
        direction: Direction,
        /// Position of the rule, from 0.
        rule: usize,
        /// Position of the entry in the rule, from 0.
        entry: usize,
    },
    /// An entry of `ports` cannot be understood and matches nothing.
    UnreadablePort {
        /// The policy.
        policy: PolicyName,
        /// Ingress or egress rules.
        direction: Direction,
        /// Position of the rule, from 0.
        rule: usize,
        /// Position of the entry in the rule, from 0.
        entry: usize,
    },
    /// A port that a policy in force here names is missing where it is looked up: in some of the pods
    /// the policy isolates (ingress), or in all of its peers (egress). Nothing is matched there.
    PortNameUnresolved {
        /// The policy.
        policy: PolicyName,
        /// Ingress or egress rules.
        direction: Direction,
        /// The name.
        port: String,
        /// The protocol, which must be the same too.
        protocol: Protocol,
    },
}

impl Finding {
    /// A stable CamelCase reason, for conditions and events.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::IdentitiesExhausted { .. } => "IdentitiesExhausted",
            Self::ClassTooLarge { .. } => "ClassTooLarge",
            Self::UnreadablePodSelector { .. } => "UnreadablePodSelector",
            Self::UnknownPolicyType { .. } => "UnknownPolicyType",
            Self::UnreadablePeer { .. } => "UnreadablePeer",
            Self::UnreadablePort { .. } => "UnreadablePort",
            Self::PortNameUnresolved { .. } => "PortNameUnresolved",
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::IdentitiesExhausted { without_number } => {
                write!(
                    f,
                    "{without_number} identities have no number and are matched by address"
                )
            }
            Self::ClassTooLarge {
                class,
                direction,
                policies,
            } => {
                write!(
                    f,
                    "{direction} class {class} is matched rule by rule, too many cells from"
                )?;
                policies
                    .iter()
                    .try_for_each(|policy| write!(f, " {policy}"))
            }
            Self::UnreadablePodSelector { policy } => {
                write!(
                    f,
                    "pod selector of {policy} is not understood: it isolates its namespace"
                )
            }
            Self::UnknownPolicyType {
                policy,
                policy_type,
            } => {
                write!(
                    f,
                    "policy type {policy_type:?} of {policy} is not known and has no effect"
                )
            }
            Self::UnreadablePeer {
                policy,
                direction,
                rule,
                entry,
            } => {
                write!(
                    f,
                    "{direction} rule {rule} of {policy}: peer {entry} matches nobody"
                )
            }
            Self::UnreadablePort {
                policy,
                direction,
                rule,
                entry,
            } => {
                write!(
                    f,
                    "{direction} rule {rule} of {policy}: port {entry} matches nothing"
                )
            }
            Self::PortNameUnresolved {
                policy,
                direction,
                port,
                protocol,
            } => {
                write!(
                    f,
                    "{direction} rules of {policy} name a {protocol} port {port:?} that pods concerned lack"
                )
            }
        }
    }
}

impl PolicyIndex {
    /// Everything worth telling, as of the last commit. Walks all policies: for status, not for every
    /// event.
    #[must_use]
    pub fn findings(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        let without_number = self.identities.unnumbered();
        if without_number > 0 {
            findings.push(Finding::IdentitiesExhausted { without_number });
        }
        for (class, state) in self.classes.iter().filter(|(_, state)| state.chained) {
            findings.push(Finding::ClassTooLarge {
                class,
                direction: state.key.direction,
                policies: state.key.policies.clone(),
            });
        }
        for policy in self.world.policies.values() {
            of_policy(policy, &mut findings);
        }
        let unresolved: BTreeSet<Finding> = self
            .classes
            .iter()
            .flat_map(|(_, state)| self.unresolved_names(state))
            .collect();
        findings.extend(unresolved);
        findings
    }

    fn unresolved_names<'a>(&'a self, state: &'a ClassState) -> impl Iterator<Item = Finding> + 'a {
        let direction = state.key.direction;
        let policies = state.key.policies.iter();
        let policies = policies.filter_map(|name| self.world.policies.get(name));
        let names = policies.flat_map(move |policy| {
            named_ports(policy, direction).map(|port| (policy.name.clone(), port))
        });
        names
            .filter(move |(_, port)| !self.resolves(state, port))
            .map(move |(policy, port)| Finding::PortNameUnresolved {
                policy,
                direction,
                port: port.name,
                protocol: port.protocol,
            })
    }

    fn resolves(&self, state: &ClassState, port: &NamedPort) -> bool {
        // Where everything is allowed, names are not looked up at all.
        if state.terms.open {
            return true;
        }
        match state.key.direction {
            Direction::Ingress => state.key.resolution.iter().any(|(own, _)| own == port),
            Direction::Egress => {
                let looking = state
                    .selectors
                    .iter()
                    .filter(|(_, t)| t.named.contains(port));
                looking
                    .flat_map(|(slot, _)| self.identities.with_selector(*slot))
                    .any(|identity| identity.key.named.iter().any(|(own, _)| own == port))
            }
        }
    }
}

fn of_policy(policy: &NetworkPolicy, findings: &mut Vec<Finding>) {
    let name = || policy.name.clone();
    if !policy.pod_selector.is_valid() {
        findings.push(Finding::UnreadablePodSelector { policy: name() });
    }
    for policy_type in &policy.policy_types {
        if let PolicyType::Unknown(policy_type) = policy_type {
            let policy_type = policy_type.clone();
            findings.push(Finding::UnknownPolicyType {
                policy: name(),
                policy_type,
            });
        }
    }
    let lists = [
        (Direction::Ingress, &policy.ingress),
        (Direction::Egress, &policy.egress),
    ];
    for (direction, rules) in lists {
        for (rule, content) in rules.iter().enumerate() {
            for (entry, _) in content
                .peers
                .iter()
                .enumerate()
                .filter(|(_, p)| !readable_peer(p))
            {
                findings.push(Finding::UnreadablePeer {
                    policy: name(),
                    direction,
                    rule,
                    entry,
                });
            }
            for (entry, _) in content
                .ports
                .iter()
                .enumerate()
                .filter(|(_, p)| !readable_port(p))
            {
                findings.push(Finding::UnreadablePort {
                    policy: name(),
                    direction,
                    rule,
                    entry,
                });
            }
        }
    }
}

fn readable_peer(peer: &Peer) -> bool {
    let selectors = [&peer.pod_selector, &peer.namespace_selector];
    let some_selector = selectors.iter().any(|selector| selector.is_some());
    some_selector != peer.ip_block.is_some()
        && selectors
            .into_iter()
            .flatten()
            .all(|selector| selector.is_valid())
}

fn readable_port(port: &PolicyPort) -> bool {
    let known = matches!(port.protocol, PortProtocol::Known(_));
    known
        && match (&port.port, port.end_port) {
            (Some(PortRef::Invalid(_)), _) => false,
            (_, None) => true,
            (Some(PortRef::Number(first)), Some(last)) => *first <= last,
            (_, Some(_)) => false,
        }
}
