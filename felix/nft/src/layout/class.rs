//! One class as a chain, its sets and its counter.
//!
//! A class chain is entered by `goto` from the dispatch map and says `return` for "allowed in this
//! direction": the packet then comes back to the `judge` chain, where the other direction's class may
//! still refuse it. Its sets hold no verdicts, so the kernel never walks them when it validates a rule.

use std::collections::{BTreeMap, BTreeSet};

use caracal_policy::plan::{
    Cell, ChainRule, Class, ClassDelta, ClassId, Direction, IdentityId, PeerMatch, PolicyName,
    PortMatch, Protocol,
};

use super::names;
use super::rules::{
    Field, IpFamily, address, count_and_drop, destination_port, family, identity_mark, is_in,
    l4proto, lookup, meta, port_between, port_key, rule, value, verdict,
};
use crate::error::Error;
use crate::expr::{Expr, LookupResult, MetaKey, Register, Rule, Verdict};
use crate::model::{ChainState, Patch, SetState};
use crate::object::{Chain, Counter, MAX_COMMENT_LEN};
use crate::set::{DataType, Elements, Key, Set};

const R0: Register = Register::FIRST;

/// The objects of one class.
pub(super) struct ClassObjects {
    pub(super) sets: BTreeMap<String, SetState>,
    pub(super) chain: ChainState,
    pub(super) counter: Counter,
}

/// Which parts of a class there are: what its rules depend on, besides the chain.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Shape {
    cells: bool,
    any_port: bool,
    any_peer: bool,
    open: bool,
}

impl Shape {
    fn of(class: &Class) -> Self {
        Self {
            cells: !class.cells.is_empty(),
            any_port: !class.any_port.is_empty(),
            any_peer: !class.any_peer.is_empty(),
            open: class.open,
        }
    }
}

/// Checks that each rule of a chain has names of its own for its sets. Two rules with the same kind of
/// peer and the same ports, which a plan never has, would share one set and allow each other's peers.
pub(super) fn check_chain(
    id: ClassId,
    direction: Direction,
    chain: &[ChainRule],
) -> Result<(), Error> {
    let name = names::class(id, direction);
    let mut seen = BTreeSet::new();
    for chain_rule in chain {
        if !seen.insert(names::rule(&name, chain_rule)) {
            return Err(Error::Plan {
                why: format!("class {id} has two rules with the same kind of peer and ports"),
            });
        }
    }
    Ok(())
}

/// Renders a class whole.
pub(super) fn render(id: ClassId, class: &Class) -> ClassObjects {
    let name = names::class(id, class.direction);
    let mut sets = BTreeMap::new();
    let mut add = |set: Option<SetState>| {
        if let Some(state) = set {
            sets.insert(state.set.name.clone(), state);
        }
    };
    add(cell_set(&name, class.cells.iter().map(cell_key)));
    add(any_port_set(&name, class.any_port.iter().map(identity_key)));
    add(any_peer_set(&name, class.any_peer.iter().map(any_peer_key)));
    sets.extend(chain_sets(&name, &class.chain));
    ClassObjects {
        sets,
        chain: chain(
            &name,
            Shape::of(class),
            class.direction,
            &class.chain,
            &class.policies,
        ),
        counter: Counter {
            name: names::drop_counter(&name),
            comment: None,
        },
    }
}

/// Adds to `patch` what `delta` changes in `old`; the effort is that of the change, not of the class.
pub(super) fn patch(id: ClassId, old: &Class, delta: &ClassDelta, patch: &mut Patch) {
    let name = names::class(id, old.direction);
    let before = Shape::of(old);
    let remains = |had: usize, removed: usize, added: usize| added > 0 || had > removed;
    let after = Shape {
        cells: remains(
            old.cells.len(),
            delta.removed_cells.intersection(&old.cells).count(),
            delta.added_cells.len(),
        ),
        any_port: remains(
            old.any_port.len(),
            delta.removed_any_port.intersection(&old.any_port).count(),
            delta.added_any_port.len(),
        ),
        any_peer: remains(
            old.any_peer.len(),
            delta.removed_any_peer.intersection(&old.any_peer).count(),
            delta.added_any_peer.len(),
        ),
        open: delta.open.unwrap_or(old.open),
    };
    let cells = Members {
        set: names::cells(&name),
        existed: before.cells,
        exists: after.cells,
        removed: delta.removed_cells.iter().map(cell_key).collect(),
        added: delta.added_cells.iter().map(cell_key).collect(),
        make: &|keys| cell_set(&name, keys.into_iter()),
    };
    cells.patch(patch);
    let any_port = Members {
        set: names::any_port(&name),
        existed: before.any_port,
        exists: after.any_port,
        removed: delta.removed_any_port.iter().map(identity_key).collect(),
        added: delta.added_any_port.iter().map(identity_key).collect(),
        make: &|keys| any_port_set(&name, keys.into_iter()),
    };
    any_port.patch(patch);
    let any_peer = Members {
        set: names::any_peer(&name),
        existed: before.any_peer,
        exists: after.any_peer,
        removed: delta.removed_any_peer.iter().map(any_peer_key).collect(),
        added: delta.added_any_peer.iter().map(any_peer_key).collect(),
        make: &|keys| any_peer_set(&name, keys.into_iter()),
    };
    any_peer.patch(patch);

    let rules = delta.chain.as_ref().unwrap_or(&old.chain);
    if delta.chain.is_some() {
        for set in chain_sets(&name, &old.chain).into_keys() {
            patch.sets.insert(set, None);
        }
        for (set, state) in chain_sets(&name, rules) {
            patch.sets.insert(set, Some(state));
        }
    }
    if delta.chain.is_some() || before != after {
        let state = chain(&name, after, old.direction, rules, &old.policies);
        patch.chains.insert(name, Some(state));
    }
}

/// Adds to `patch` the removal of a class.
pub(super) fn remove(id: ClassId, class: &Class, patch: &mut Patch) {
    let objects = render(id, class);
    for set in objects.sets.into_keys() {
        patch.sets.insert(set, None);
    }
    patch.chains.insert(objects.chain.chain.name, None);
    patch.counters.insert(objects.counter.name, None);
}

/// Adds to `patch` a class that is new, or that takes the place of another of the same number.
pub(super) fn add(id: ClassId, class: &Class, patch: &mut Patch) {
    let objects = render(id, class);
    for (name, state) in objects.sets {
        patch.sets.insert(name, Some(state));
    }
    let name = objects.chain.chain.name.clone();
    patch.chains.insert(name, Some(objects.chain));
    let name = objects.counter.name.clone();
    patch.counters.insert(name, Some(objects.counter));
}

/// The change of one of a class's hash sets, which exists only while it has members.
struct Members<'a> {
    set: String,
    existed: bool,
    exists: bool,
    removed: Vec<Key>,
    added: Vec<Key>,
    make: &'a dyn Fn(Vec<Key>) -> Option<SetState>,
}

impl Members<'_> {
    fn patch(self, patch: &mut Patch) {
        match (self.existed, self.exists) {
            (true, true) => {
                let removed = self.removed.into_iter().map(|key| (key, None));
                let added = self.added.into_iter().map(|key| (key, Some(None)));
                let changes: BTreeMap<_, _> = removed.chain(added).collect();
                if !changes.is_empty() {
                    patch.elements.insert(self.set, changes);
                }
            }
            (false, true) => {
                let state = (self.make)(self.added);
                patch.sets.insert(self.set, state);
            }
            (true, false) => {
                patch.sets.insert(self.set, None);
            }
            (false, false) => {}
        }
    }
}

fn chain(
    name: &str,
    shape: Shape,
    direction: Direction,
    chain: &[ChainRule],
    policies: &[PolicyName],
) -> ChainState {
    let mut rules = Vec::new();
    if shape.open {
        rules.push(rule([verdict(Verdict::Return)]));
    } else {
        let by_identity = shape.cells
            || shape.any_port
            || chain
                .iter()
                .any(|r| matches!(r.peer, PeerMatch::Identities(_)));
        if by_identity {
            for (ip, map) in [(IpFamily::V4, names::ID4), (IpFamily::V6, names::ID6)] {
                rules.push(identify(ip, direction, map));
            }
        }
        if shape.cells {
            rules.push(rule([
                with_ports(),
                vec![
                    meta(MetaKey::Mark, R0),
                    meta(MetaKey::L4Proto, R0.plus(1)),
                    destination_port(R0.plus(2)),
                    is_in(&names::cells(name)),
                ],
                verdict(Verdict::Return),
            ]));
        }
        if shape.any_port {
            rules.push(rule([
                vec![meta(MetaKey::Mark, R0), is_in(&names::any_port(name))],
                verdict(Verdict::Return),
            ]));
        }
        if shape.any_peer {
            rules.push(rule([
                with_ports(),
                vec![
                    meta(MetaKey::L4Proto, R0),
                    destination_port(R0.plus(1)),
                    is_in(&names::any_peer(name)),
                ],
                verdict(Verdict::Return),
            ]));
        }
        for chain_rule in chain {
            rules.extend(chain_rules(name, direction, chain_rule));
        }
        let mut refuse = rule([count_and_drop(&names::drop_counter(name))]);
        refuse.comment = Some(attribution(policies));
        rules.push(refuse);
    }
    ChainState {
        chain: Chain {
            name: name.to_owned(),
            base: None,
        },
        rules,
    }
}

/// Sets the mark to the peer's identity. Overwrites all of it: inside the judgement nobody else reads
/// it, and the bits that others need afterwards are put back by the chain that called `judge`.
fn identify(ip: IpFamily, direction: Direction, map: &str) -> Rule {
    rule([
        family(ip),
        vec![
            address(ip, Field::peer(direction), R0),
            lookup(map, LookupResult::Value(R0)),
            Expr::SetMeta {
                key: MetaKey::Mark,
                from: R0,
            },
        ],
    ])
}

/// Guards the load of a port: in a protocol without ports it would read garbage.
fn with_ports() -> Vec<Expr> {
    vec![meta(MetaKey::L4Proto, R0), is_in(names::PORTED)]
}

fn chain_rules(class: &str, direction: Direction, chain_rule: &ChainRule) -> Vec<Rule> {
    let stem = names::rule(class, chain_rule);
    let peer = match &chain_rule.peer {
        PeerMatch::Any => Vec::new(),
        PeerMatch::Identities(_) => vec![meta(MetaKey::Mark, R0), is_in(&stem)],
        PeerMatch::Nets4(_) => nets(IpFamily::V4, direction, &stem),
        PeerMatch::Nets6(_) => nets(IpFamily::V6, direction, &stem),
    };
    if chain_rule.ports.is_empty() {
        return vec![rule([peer, verdict(Verdict::Return)])];
    }
    Protocol::ALL
        .into_iter()
        .filter_map(|protocol| {
            let mut ranges = chain_rule.ports.iter().filter(|p| p.protocol == protocol);
            let port = match (ranges.next(), ranges.next()) {
                (None, _) => return None,
                (
                    Some(PortMatch {
                        first: 0,
                        last: u16::MAX,
                        ..
                    }),
                    None,
                ) => Vec::new(),
                (Some(only), None) => port_between(only.first, only.last),
                (Some(_), Some(_)) => {
                    vec![destination_port(R0), is_in(&port_set_name(&stem, protocol))]
                }
            };
            Some(rule([
                l4proto(protocol.number()),
                port,
                peer.clone(),
                verdict(Verdict::Return),
            ]))
        })
        .collect()
}

fn nets(ip: IpFamily, direction: Direction, set: &str) -> Vec<Expr> {
    let mut expressions = family(ip);
    expressions.extend([address(ip, Field::peer(direction), R0), is_in(set)]);
    expressions
}

fn chain_sets(class: &str, chain: &[ChainRule]) -> BTreeMap<String, SetState> {
    let mut sets = BTreeMap::new();
    let mut add = |state: SetState| sets.insert(state.set.name.clone(), state);
    for chain_rule in chain {
        let stem = names::rule(class, chain_rule);
        match &chain_rule.peer {
            PeerMatch::Any => {}
            PeerMatch::Identities(identities) => {
                let keys = identities.iter().map(identity_key);
                add(set_of(stem.clone(), vec![DataType::Mark], false, keys));
            }
            PeerMatch::Nets4(ranges) => {
                let keys = ranges.iter().map(|range| Key::Range {
                    first: range.first.octets().to_vec(),
                    last: range.last.octets().to_vec(),
                });
                add(set_of(stem.clone(), vec![DataType::Ipv4Addr], true, keys));
            }
            PeerMatch::Nets6(ranges) => {
                let keys = ranges.iter().map(|range| Key::Range {
                    first: range.first.octets().to_vec(),
                    last: range.last.octets().to_vec(),
                });
                add(set_of(stem.clone(), vec![DataType::Ipv6Addr], true, keys));
            }
        }
        for protocol in Protocol::ALL {
            let ranges = chain_rule.ports.iter().filter(|p| p.protocol == protocol);
            if ranges.clone().count() > 1 {
                let keys = ranges.map(|range| Key::Range {
                    first: range.first.to_be_bytes().to_vec(),
                    last: range.last.to_be_bytes().to_vec(),
                });
                let name = port_set_name(&stem, protocol);
                add(set_of(name, vec![DataType::InetService], true, keys));
            }
        }
    }
    sets
}

fn port_set_name(stem: &str, protocol: Protocol) -> String {
    format!("{stem}_{}", protocol.to_string().to_lowercase())
}

fn cell_set(class: &str, keys: impl Iterator<Item = Key>) -> Option<SetState> {
    let key = vec![DataType::Mark, DataType::InetProto, DataType::InetService];
    non_empty(set_of(names::cells(class), key, false, keys))
}

fn any_port_set(class: &str, keys: impl Iterator<Item = Key>) -> Option<SetState> {
    non_empty(set_of(
        names::any_port(class),
        vec![DataType::Mark],
        false,
        keys,
    ))
}

fn any_peer_set(class: &str, keys: impl Iterator<Item = Key>) -> Option<SetState> {
    let key = vec![DataType::InetProto, DataType::InetService];
    non_empty(set_of(names::any_peer(class), key, false, keys))
}

fn non_empty(state: SetState) -> Option<SetState> {
    (!state.elements.is_empty()).then_some(state)
}

fn set_of(
    name: String,
    key: Vec<DataType>,
    interval: bool,
    keys: impl Iterator<Item = Key>,
) -> SetState {
    SetState {
        set: Set {
            name,
            key,
            data: None,
            interval,
        },
        elements: keys.map(|key| (key, None)).collect::<Elements>(),
    }
}

fn cell_key(cell: &Cell) -> Key {
    let mut key = identity_mark(cell.identity).to_vec();
    key.extend(port_key(cell.protocol, cell.port));
    value(key)
}

fn identity_key(identity: &IdentityId) -> Key {
    value(identity_mark(*identity))
}

fn any_peer_key(&(protocol, port): &(Protocol, u16)) -> Key {
    value(port_key(protocol, port))
}

/// The policies as a comment, as many as fit.
fn attribution(policies: &[PolicyName]) -> String {
    const ROOM: usize = MAX_COMMENT_LEN - 1;
    const MORE: &str = ", …";
    let mut text = String::new();
    for policy in policies {
        let separator = if text.is_empty() { "" } else { ", " };
        let next = format!("{separator}{policy}");
        if text.len() + next.len() + MORE.len() > ROOM {
            let end = text.floor_char_boundary(ROOM - MORE.len());
            text.truncate(end);
            text.push_str(MORE);
            break;
        }
        text.push_str(&next);
    }
    text
}
