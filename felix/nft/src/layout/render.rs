//! A plan as a table.
//!
//! ```text
//!  forward ─ established, related: accept          input ─ established, related: accept
//!     └ to or from a pod ─┐                            └ from a pod ─ pod_input ─ ND: return
//!                         ▼                                              │
//!                     pod_packet ─ invalid: drop ◄────────────────────────┘
//!                         └ by mark bits 14, 15 ─ mark_0000 … mark_c000 ─ put the bits back
//!                                                     │ jump
//!                                                   judge ─ pod_source (anti-spoof), TCP mid-stream
//!                                                     ├ from_pod ─ map pod_egress  ─ out_<class>
//!                                                     └ to_pod   ─ map pod_ingress ─ in_<class>
//! ```
//!
//! Owns the fixed part of the table, the maps by address and by interface. Does not own what a class
//! looks like ([`super::class`]).
//!
//! The mark: a class looks its peer up in `id4` or `id6` and keeps the identity in bits 16 to 31 of
//! the packet mark, because one rule cannot feed a map's answer into a concatenation in a way that all
//! `nft` can list. kube-proxy keeps 0x4000 (masquerade) and 0x8000 (drop) there until postrouting. No
//! listable rule of kernels before 6.13 ORs a map's answer into a register, so the two bits choose one
//! of four chains that judge alike and each put back their own constant. Bits 0 to 13 of the first
//! packet of a flow to or from a pod are cleared, bits 16 to 31 too.

use std::collections::BTreeMap;
use std::net::IpAddr;

use caracal_policy::plan::{
    Binding, Direction, EndpointPlan, IdentityId, InterfaceName, Plan, PlanDelta,
};

use super::rules::{
    Field, IPPROTO_ICMPV6, IpFamily, address, address_bytes, address_of, count, count_and_drop,
    ct_state, family, goto, identity_mark, identity_of, interface, interface_bytes, is_in,
    is_not_in, jump, l4proto, lookup, meta, rule, tcp_midstream, value, verdict,
};
use super::{class, names};
use crate::error::Error;
use crate::expr::{
    Expr, LookupResult, MetaKey, PayloadBase, Register, Reject, Rule, Verdict, ct_state as state,
};
use crate::model::{ChainState, Model, Patch, SetState};
use crate::object::{BaseChain, Chain, Counter, Hook, Policy};
use crate::set::{Data, DataType, Elements, Key, MapData, Set};

const R0: Register = Register::FIRST;

/// Mark bits of others that survive the judgement: kube-proxy's masquerade and drop marks.
const KEPT_BITS: u32 = 0xc000;

/// ICMPv6 types that a pod may send to its node whatever its policies say: multicast listener
/// discovery and neighbour discovery (RFC 2710, RFC 3810, RFC 4861). Without the latter the pod has no
/// gateway.
const DISCOVERY_TYPES: [u8; 9] = [130, 131, 132, 133, 134, 135, 136, 137, 143];

/// The whole table for `plan`.
pub(super) fn render(plan: &Plan, prefix: &str) -> Result<Model, Error> {
    let mut model = fixed(prefix);
    for (interface, endpoint) in &plan.endpoints {
        check_interface(interface, prefix)?;
        check_binding(endpoint, interface, &|id, direction| {
            plan.classes
                .get(&id)
                .is_some_and(|c| c.direction == direction)
        })?;
        for (set, key, data) in endpoint_elements(interface, endpoint) {
            insert(&mut model, set, key, data);
        }
    }
    for (address, identity) in &plan.identities {
        let data = Data::Value(identity_mark(*identity).to_vec());
        insert(
            &mut model,
            identity_map(*address),
            value(address_bytes(*address)),
            Some(data),
        );
    }
    for (id, class) in &plan.classes {
        class::check_chain(*id, class.direction, &class.chain)?;
        let objects = class::render(*id, class);
        model.sets.extend(objects.sets);
        let chain = objects.chain;
        model.chains.insert(chain.chain.name.clone(), chain);
        let counter = objects.counter;
        model.counters.insert(counter.name.clone(), counter);
    }
    Ok(model)
}

/// What `delta` changes in the table of `plan`.
pub(super) fn patch(plan: &Plan, delta: &PlanDelta, prefix: &str) -> Result<Patch, Error> {
    let mut patch = Patch::default();
    for id in &delta.removed_classes {
        if let Some(class) = plan.classes.get(id) {
            class::remove(*id, class, &mut patch);
        }
    }
    for (id, class) in &delta.added_classes {
        class::check_chain(*id, class.direction, &class.chain)?;
        class::add(*id, class, &mut patch);
    }
    for (id, change) in &delta.changed_classes {
        let class = plan.classes.get(id).ok_or_else(|| Error::Plan {
            why: format!("class {id} changes but was never added"),
        })?;
        if let Some(chain) = &change.chain {
            class::check_chain(*id, class.direction, chain)?;
        }
        class::patch(*id, class, change, &mut patch);
    }
    for (address, identity) in &delta.identities {
        let data = identity.map(|identity| Some(Data::Value(identity_mark(identity).to_vec())));
        let map = patch.elements.entry(identity_map(*address).to_owned());
        map.or_default()
            .insert(value(address_bytes(*address)), data);
    }
    for (interface, endpoint) in &delta.endpoints {
        let mut change = |set: &str, key, data| {
            let elements = patch.elements.entry(set.to_owned()).or_default();
            elements.insert(key, data);
        };
        if let Some(old) = plan.endpoints.get(interface) {
            for (set, key, _) in endpoint_elements(interface, old) {
                change(set, key, None);
            }
        }
        if let Some(new) = endpoint {
            check_interface(interface, prefix)?;
            check_binding(new, interface, &|id, direction| {
                let kept = || {
                    plan.classes
                        .get(&id)
                        .filter(|_| !delta.removed_classes.contains(&id))
                };
                let class = delta.added_classes.get(&id).or_else(kept);
                class.is_some_and(|c| c.direction == direction)
            })?;
            for (set, key, data) in endpoint_elements(interface, new) {
                change(set, key, Some(data));
            }
        }
    }
    Ok(patch)
}

/// Interfaces without the prefix are not judged at all, so an endpoint on one would be open.
fn check_interface(interface: &InterfaceName, prefix: &str) -> Result<(), Error> {
    if interface.as_str().starts_with(prefix) {
        return Ok(());
    }
    Err(Error::Plan {
        why: format!("interface {interface} of an endpoint does not begin with {prefix:?}"),
    })
}

fn check_binding(
    endpoint: &EndpointPlan,
    interface: &InterfaceName,
    has: &dyn Fn(caracal_policy::plan::ClassId, Direction) -> bool,
) -> Result<(), Error> {
    for (binding, direction) in [
        (endpoint.ingress, Direction::Ingress),
        (endpoint.egress, Direction::Egress),
    ] {
        if let Binding::Class(id) = binding
            && !has(id, direction)
        {
            return Err(Error::Plan {
                why: format!("{interface} is bound to {direction} class {id}, which is not there"),
            });
        }
    }
    Ok(())
}

fn insert(model: &mut Model, set: &str, key: Key, data: Option<Data>) {
    if let Some(state) = model.sets.get_mut(set) {
        state.elements.insert(key, data);
    }
}

/// The address and identity of an element of `id4` or `id6`; `None` for one that is not ours.
pub(super) fn identity((key, data): (&Key, &Option<Data>)) -> Option<(IpAddr, IdentityId)> {
    let (Key::Value(key), Some(Data::Value(mark))) = (key, data) else {
        return None;
    };
    Some((address_of(key)?, identity_of(mark)?))
}

fn identity_map(address: IpAddr) -> &'static str {
    match address {
        IpAddr::V4(_) => names::ID4,
        IpAddr::V6(_) => names::ID6,
    }
}

/// The elements that an endpoint has in the dispatch maps and the anti-spoof sets.
fn endpoint_elements(
    interface: &InterfaceName,
    endpoint: &EndpointPlan,
) -> Vec<(&'static str, Key, Option<Data>)> {
    let name = interface_bytes(interface);
    let dispatch = |binding, direction| {
        Some(Data::Verdict(match binding {
            Binding::Open => Verdict::Return,
            Binding::Class(id) => Verdict::Goto(names::class(id, direction)),
            Binding::Isolated => Verdict::Goto(names::ISOLATED.to_owned()),
        }))
    };
    let mut elements = vec![
        (
            names::POD_INGRESS,
            value(name.clone()),
            dispatch(endpoint.ingress, Direction::Ingress),
        ),
        (
            names::POD_EGRESS,
            value(name.clone()),
            dispatch(endpoint.egress, Direction::Egress),
        ),
    ];
    for address in &endpoint.addresses {
        let set = match address {
            IpAddr::V4(_) => names::SOURCE4,
            IpAddr::V6(_) => names::SOURCE6,
        };
        let key = [name.clone(), address_bytes(*address)].concat();
        elements.push((set, value(key), None));
    }
    elements
}

/// What every table has.
fn fixed(prefix: &str) -> Model {
    let mut model = Model::default();
    let counters = [
        names::DROP_INVALID,
        names::DROP_SPOOFED,
        names::DROP_MIDSTREAM,
        names::DROP_UNKNOWN,
        names::DROP_ISOLATED,
    ];
    for name in counters {
        let counter = Counter {
            name: name.to_owned(),
            comment: None,
        };
        model.counters.insert(name.to_owned(), counter);
    }
    for state in fixed_sets() {
        model.sets.insert(state.set.name.clone(), state);
    }
    for state in fixed_chains(prefix) {
        model.chains.insert(state.chain.name.clone(), state);
    }
    model
}

fn fixed_sets() -> Vec<SetState> {
    let set = |name: &str, key: &[DataType], data| Set {
        name: name.to_owned(),
        key: key.to_vec(),
        data,
        interval: false,
    };
    let empty = |set| SetState {
        set,
        elements: Elements::new(),
    };
    let constants = |set, keys: &[u8]| SetState {
        set,
        elements: keys.iter().map(|key| (value([*key]), None)).collect(),
    };
    // An address that no selector mentions is "world", identity 0.
    let identities = |name, kind| SetState {
        set: set(name, &[kind], Some(MapData::Value(DataType::Mark))),
        elements: BTreeMap::from([(Key::CatchAll, Some(Data::Value(vec![0; 4])))]),
    };
    let marks = kept_marks().map(|kept| {
        let chain = Data::Verdict(Verdict::Goto(names::mark_chain(kept)));
        (value(kept.to_ne_bytes()), Some(chain))
    });
    let verdict = Some(MapData::Verdict);
    vec![
        SetState {
            set: set(names::KEPT_MARK, &[DataType::Mark], verdict),
            elements: marks.collect(),
        },
        constants(
            set(names::PORTED, &[DataType::InetProto], None),
            &[6, 17, 132],
        ),
        constants(
            set(names::DISCOVERY, &[DataType::Icmpv6Type], None),
            &DISCOVERY_TYPES,
        ),
        empty(set(
            names::SOURCE4,
            &[DataType::IfName, DataType::Ipv4Addr],
            None,
        )),
        empty(set(
            names::SOURCE6,
            &[DataType::IfName, DataType::Ipv6Addr],
            None,
        )),
        identities(names::ID4, DataType::Ipv4Addr),
        identities(names::ID6, DataType::Ipv6Addr),
        empty(set(names::POD_EGRESS, &[DataType::IfName], verdict)),
        empty(set(names::POD_INGRESS, &[DataType::IfName], verdict)),
    ]
}

/// Every value that the kept bits can have.
fn kept_marks() -> impl Iterator<Item = u32> {
    (0..4).map(|n| n * (KEPT_BITS & KEPT_BITS.wrapping_neg()))
}

fn fixed_chains(prefix: &str) -> Vec<ChainState> {
    let base = |hook| {
        Some(BaseChain {
            hook,
            priority: 0,
            policy: Policy::Accept,
        })
    };
    let from_pod = || interface(MetaKey::IifName, prefix);
    let to_pod = || interface(MetaKey::OifName, prefix);
    // First, so that packets of known flows see nothing else.
    let known = || {
        rule([
            ct_state(state::ESTABLISHED | state::RELATED),
            verdict(Verdict::Accept),
        ])
    };
    let dispatch = |key, map| rule([vec![meta(key, R0), lookup(map, LookupResult::Verdict)]]);
    // An interface that no endpoint has: fail closed.
    let unknown = || rule([count_and_drop(names::DROP_UNKNOWN)]);
    let mut chains = vec![
        chain(
            names::FORWARD,
            base(Hook::Forward),
            vec![
                known(),
                rule([from_pod(), goto(names::POD_PACKET)]),
                rule([to_pod(), goto(names::POD_PACKET)]),
            ],
        ),
        // Packets from a pod to its node are judged by the pod's egress class. Packets from the node to
        // its pods leave by the output hook, where nothing is judged: kubelet's probes always arrive.
        chain(
            names::INPUT,
            base(Hook::Input),
            vec![known(), rule([from_pod(), goto(names::POD_INPUT)])],
        ),
        chain(
            names::POD_INPUT,
            None,
            vec![
                // Before the anti-spoof check: these come from link-local or no address.
                rule([
                    family(IpFamily::V6),
                    l4proto(IPPROTO_ICMPV6),
                    vec![icmp_type(), is_in(names::DISCOVERY)],
                    verdict(Verdict::Return),
                ]),
                rule([goto(names::POD_PACKET)]),
            ],
        ),
        chain(
            names::POD_PACKET,
            None,
            vec![
                rule([
                    ct_state(state::INVALID),
                    count_and_drop(names::DROP_INVALID),
                ]),
                rule([vec![
                    meta(MetaKey::Mark, R0),
                    Expr::Bitwise {
                        from: R0,
                        to: R0,
                        mask: KEPT_BITS.to_ne_bytes().to_vec(),
                        xor: vec![0; 4],
                    },
                    lookup(names::KEPT_MARK, LookupResult::Verdict),
                ]]),
            ],
        ),
        chain(
            names::JUDGE,
            None,
            vec![
                rule([from_pod(), jump(names::POD_SOURCE)]),
                // Conntrack picks a connection up in its middle by default. A connection that a new
                // policy cut would come back by a packet of the side that may still send. The reset
                // tells both ends, as the pod itself would. Behind the anti-spoof check, so that no pod
                // can make us reset its neighbour's connections.
                rule([
                    tcp_midstream(),
                    count(names::DROP_MIDSTREAM),
                    vec![Expr::Reject(Reject::TcpReset)],
                ]),
                rule([from_pod(), jump(names::FROM_POD)]),
                rule([to_pod(), jump(names::TO_POD)]),
            ],
        ),
        chain(
            names::POD_SOURCE,
            None,
            vec![
                anti_spoof(IpFamily::V4, names::SOURCE4),
                anti_spoof(IpFamily::V6, names::SOURCE6),
            ],
        ),
        chain(
            names::FROM_POD,
            None,
            vec![dispatch(MetaKey::IifName, names::POD_EGRESS), unknown()],
        ),
        chain(
            names::TO_POD,
            None,
            vec![dispatch(MetaKey::OifName, names::POD_INGRESS), unknown()],
        ),
        chain(
            names::ISOLATED,
            None,
            vec![rule([count_and_drop(names::DROP_ISOLATED)])],
        ),
    ];
    for kept in kept_marks() {
        let put_back = vec![
            Expr::Immediate {
                to: R0,
                value: kept.to_ne_bytes().to_vec(),
            },
            Expr::SetMeta {
                key: MetaKey::Mark,
                from: R0,
            },
        ];
        chains.push(chain(
            &names::mark_chain(kept),
            None,
            vec![rule([jump(names::JUDGE)]), rule([put_back])],
        ));
    }
    chains
}

fn chain(name: &str, base: Option<BaseChain>, rules: Vec<Rule>) -> ChainState {
    ChainState {
        chain: Chain {
            name: name.to_owned(),
            base,
        },
        rules,
    }
}

/// An exact match of interface and source address, which also stops a pod from using its neighbour's.
fn anti_spoof(ip: IpFamily, set: &str) -> Rule {
    rule([
        family(ip),
        vec![
            meta(MetaKey::IifName, R0),
            // The name fills the first four registers.
            address(ip, Field::Source, R0.plus(4)),
            is_not_in(set),
        ],
        count_and_drop(names::DROP_SPOOFED),
    ])
}

fn icmp_type() -> Expr {
    Expr::Payload {
        base: PayloadBase::Transport,
        offset: 0,
        len: 1,
        to: R0,
    }
}
