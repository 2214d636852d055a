//! What a class holds, made of its compiled rules and the identities there are.
//!
//! Owns the choice of form: single ports and short ranges become cells, long ranges and address ranges
//! become chain rules, and a class with too many cells becomes a chain as a whole.

use std::collections::{BTreeMap, BTreeSet};

use super::Limits;
use super::classes::ClassState;
use super::identities::{Identity, IdentityTable};
use super::ranges::{PortRanges, RangeSet, address_number, nets4, nets6};
use crate::plan::{Cell, ChainRule, Class, IdentityId, PeerMatch, PortMatch, Protocol};

/// What a class allows one identity.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) any_port: bool,
    pub(super) cells: BTreeSet<(Protocol, u16)>,
}

/// The whole content of a class, and whether it had to become a chain.
pub(super) fn build(
    state: &ClassState,
    identities: &IdentityTable,
    limits: &Limits,
) -> (Class, bool) {
    let mut class = Class::denying(state.key.direction, state.key.policies.clone());
    class.open = state.terms.open;
    class.any_peer = any_peer(state, limits);
    let peers: BTreeMap<IdentityId, &Identity> = state
        .selectors
        .keys()
        .flat_map(|slot| identities.with_selector(*slot))
        .filter_map(|identity| identity.number.map(|number| (number, identity)))
        .collect();
    let mut chained = false;
    for (number, identity) in peers {
        let row = row(state, identity, &class.any_peer, limits);
        if row.any_port {
            class.any_port.insert(number);
        }
        if !chained {
            class.cells.extend(cells(number, &row));
            chained = class.cells.len() > limits.cells_per_class;
        }
    }
    if chained {
        class.cells.clear();
    }
    class.chain = chain(state, identities, limits, chained);
    (class, chained)
}

/// What `identity` may do, less what `any_peer` allows everybody.
pub(super) fn row(
    state: &ClassState,
    identity: &Identity,
    any_peer: &BTreeSet<(Protocol, u16)>,
    limits: &Limits,
) -> Row {
    let mut row = Row::default();
    for slot in identity.key.all_selectors() {
        let Some(term) = state.selectors.get(&slot) else {
            continue;
        };
        row.any_port |= term.every_port;
        let short = term.ports.matches().filter(|range| limits.expands(range));
        row.cells.extend(short.flat_map(expand));
        let named = identity
            .key
            .named
            .iter()
            .filter(|(port, _)| term.named.contains(port));
        row.cells
            .extend(named.map(|(port, number)| (port.protocol, *number)));
    }
    if row.any_port {
        row.cells.clear();
    }
    row.cells.retain(|cell| !any_peer.contains(cell));
    row
}

/// The cells of `row` for the identity `number`.
pub(super) fn cells(number: IdentityId, row: &Row) -> impl Iterator<Item = Cell> + '_ {
    row.cells.iter().map(move |&(protocol, port)| Cell {
        identity: number,
        protocol,
        port,
    })
}

/// Whether the class's chain depends on which identities there are.
pub(super) fn chain_names_identities(state: &ClassState, limits: &Limits) -> bool {
    let long = |ports: &PortRanges| ports.matches().any(|range| !limits.expands(&range));
    state.chained || state.selectors.values().any(|term| long(&term.ports))
}

/// The chain of a class. `chained`: it must also say what cells would.
pub(super) fn chain(
    state: &ClassState,
    identities: &IdentityTable,
    limits: &Limits,
    chained: bool,
) -> Vec<ChainRule> {
    let mut rules: Vec<ChainRule> = Vec::new();
    let terms = &state.terms;
    let long_for_all: Vec<PortMatch> = terms
        .any_peer
        .matches()
        .filter(|range| !limits.expands(range))
        .collect();
    if !long_for_all.is_empty() {
        rules.push(ChainRule {
            ports: long_for_all,
            peer: PeerMatch::Any,
        });
    }

    let mut peers: BTreeMap<Vec<PortMatch>, BTreeSet<IdentityId>> = BTreeMap::new();
    let mut nets = [terms.nets4.clone(), terms.nets6.clone()];
    for (slot, term) in &state.selectors {
        let ports: Vec<PortMatch> = term
            .ports
            .matches()
            .filter(|range| chained || !limits.expands(range))
            .collect();
        for identity in identities.with_selector(*slot) {
            match identity.number {
                Some(number) => {
                    if !ports.is_empty() {
                        peers.entry(ports.clone()).or_default().insert(number);
                    }
                    if chained {
                        for port in named_ports(term, identity) {
                            peers.entry(vec![port]).or_default().insert(number);
                        }
                    }
                }
                None => spill(term, identity, &mut nets),
            }
        }
    }
    rules.extend(peers.into_iter().map(|(ports, numbers)| ChainRule {
        ports,
        peer: PeerMatch::Identities(numbers),
    }));
    let [of4, of6] = &nets;
    let some = |(_, ranges): &(&Vec<PortMatch>, &RangeSet)| !ranges.is_empty();
    rules.extend(of4.iter().filter(some).map(|(ports, ranges)| ChainRule {
        ports: ports.clone(),
        peer: PeerMatch::Nets4(nets4(ranges)),
    }));
    rules.extend(of6.iter().filter(some).map(|(ports, ranges)| ChainRule {
        ports: ports.clone(),
        peer: PeerMatch::Nets6(nets6(ranges)),
    }));
    rules.sort_unstable();
    rules
}

/// Adds rules by address for an identity that has no number.
fn spill(
    term: &super::terms::SelectorTerm,
    identity: &Identity,
    nets: &mut [BTreeMap<Vec<PortMatch>, RangeSet>; 2],
) {
    let mut ports = PortRanges::default();
    ports.union(&term.ports);
    for port in named_ports(term, identity) {
        ports.insert(port.protocol, port.first, port.last);
    }
    let ports: Vec<PortMatch> = if term.every_port {
        Vec::new()
    } else {
        ports.matches().collect()
    };
    if ports.is_empty() && !term.every_port {
        return;
    }
    for address in &identity.addresses {
        let number = address_number(*address);
        let family = usize::from(address.is_ipv6());
        nets[family]
            .entry(ports.clone())
            .or_default()
            .insert(number, number);
    }
}

fn named_ports<'a>(
    term: &'a super::terms::SelectorTerm,
    identity: &'a Identity,
) -> impl Iterator<Item = PortMatch> + 'a {
    identity
        .key
        .named
        .iter()
        .filter(|(port, _)| term.named.contains(port))
        .map(|(port, number)| PortMatch {
            protocol: port.protocol,
            first: *number,
            last: *number,
        })
}

fn any_peer(state: &ClassState, limits: &Limits) -> BTreeSet<(Protocol, u16)> {
    let short = state
        .terms
        .any_peer
        .matches()
        .filter(|range| limits.expands(range));
    short.flat_map(expand).collect()
}

fn expand(range: PortMatch) -> impl Iterator<Item = (Protocol, u16)> {
    (range.first..=range.last).map(move |port| (range.protocol, port))
}
