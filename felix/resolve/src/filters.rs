//! BGPFilters as rules of the policy engine.
//!
//! Owns the translation. What cannot be translated rejects everything in its place: nothing passes
//! by mistake. Does not own which filters a peer has, nor what comes after them.

use std::collections::BTreeMap;

use caracal_bgp_core::policy::{
    Action, AnyCommunity, AsPathPattern, CommunityPattern, Condition, InterfaceGlob, NextHopTarget,
    NumberRange, Operation, PrefixMatch, PrefixSet, Rule, SourceMatch, priority_as_local_pref,
};
use caracal_bgp_core::types::{Asn, Family, PeerKind, Prefix};
use caracal_bgp_core::wire::Origin;
use caracal_crds::{
    BgpFilter, BgpFilterRule, EntryOperator, FilterAction, FilterOperation, MatchOperator,
    PrefixLengthRange, RouteOrigin, RouteSource, SessionType, SetCommunities, reasons,
};

use crate::finding::{Findings, ObjectRef};
use crate::origin::prefix_of;

/// The way of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Direction {
    Import,
    Export,
}

impl Direction {
    pub(crate) const BOTH: [Self; 2] = [Self::Import, Self::Export];
}

/// The rules of one filter, by direction and family.
#[derive(Clone, Debug, Default)]
pub(crate) struct FilterRules(BTreeMap<(Direction, Family), Vec<Rule>>);

impl FilterRules {
    pub(crate) fn of(&self, direction: Direction, family: Family) -> &[Rule] {
        self.0
            .get(&(direction, family))
            .map_or(&[], |rules| rules.as_slice())
    }
}

/// Every filter, by name.
pub(crate) fn translated(
    filters: &BTreeMap<String, BgpFilter>,
    findings: &mut Findings,
) -> BTreeMap<String, FilterRules> {
    let translated = filters.iter().map(|(name, filter)| {
        let rules = filter_rules(name, filter, findings);
        (name.clone(), rules)
    });
    translated.collect()
}

fn filter_rules(name: &str, filter: &BgpFilter, findings: &mut Findings) -> FilterRules {
    let object = ObjectRef::new("BGPFilter", name);
    let spec = &filter.spec;
    let lists = [
        (
            Direction::Export,
            Family::Ipv4Unicast,
            "exportV4",
            &spec.export_v4,
        ),
        (
            Direction::Import,
            Family::Ipv4Unicast,
            "importV4",
            &spec.import_v4,
        ),
        (
            Direction::Export,
            Family::Ipv6Unicast,
            "exportV6",
            &spec.export_v6,
        ),
        (
            Direction::Import,
            Family::Ipv6Unicast,
            "importV6",
            &spec.import_v6,
        ),
    ];
    let mut rules = FilterRules::default();
    for (direction, family, field, list) in lists {
        let translated = list.iter().enumerate().map(|(index, rule)| {
            let place = format!("{field}[{index}]");
            let called = match &rule.name {
                Some(own) => format!("{name}: {own}"),
                None => format!("{name}: {place}"),
            };
            translate(called, family, rule).unwrap_or_else(|wrong| {
                let message = format!("{}: everything that comes here is rejected", wrong.why);
                let field = format!("spec.{place}.{}", wrong.field);
                findings.add(&object, &field, reasons::INVALID_SPEC, message);
                let family = vec![Condition::Family(family)];
                Rule::new(
                    format!("{name}: {place} cannot be used"),
                    family,
                    Action::Reject,
                )
            })
        });
        rules.0.insert((direction, family), translated.collect());
    }
    rules
}

/// A field that neither the schema nor its rules could judge.
#[derive(Debug)]
struct Wrong {
    field: String,
    why: String,
}

impl Wrong {
    fn new(field: impl Into<String>, why: impl ToString) -> Self {
        Self {
            field: field.into(),
            why: why.to_string(),
        }
    }
}

fn translate(name: String, family: Family, rule: &BgpFilterRule) -> Result<Rule, Wrong> {
    // Exhaustive: a field that is added must not be ignored.
    let BgpFilterRule {
        name: _,
        cidr,
        match_operator,
        prefix_length,
        prefixes,
        source,
        interface,
        peer_type,
        communities,
        as_path_prefix,
        as_path_regex,
        as_path_length,
        origin,
        med,
        local_pref,
        priority,
        next_hop_cidrs,
        action,
        operations,
    } = rule;
    let mut conditions = vec![Condition::Family(family)];
    if let Some(cidr) = cidr {
        let operator = match_operator.unwrap_or(MatchOperator::In);
        let exact = matches!(operator, MatchOperator::Equal | MatchOperator::NotEqual);
        let prefix = prefix_of(*cidr).ok_or_else(|| Wrong::new("cidr", "is no prefix"))?;
        let set = PrefixSet::new([prefix_match(prefix, exact, *prefix_length)]);
        conditions.push(match operator {
            MatchOperator::Equal | MatchOperator::In => Condition::Prefix(set),
            MatchOperator::NotEqual | MatchOperator::NotIn => Condition::NotPrefix(set),
        });
    }
    if !prefixes.is_empty() {
        let set = prefixes.iter().filter_map(|entry| {
            let exact = entry.match_operator == Some(EntryOperator::Equal);
            Some(prefix_match(
                prefix_of(entry.cidr)?,
                exact,
                entry.prefix_length,
            ))
        });
        conditions.push(Condition::Prefix(set.collect()));
    }
    conditions.extend(source.map(|source| {
        Condition::Source(match source {
            RouteSource::RemotePeers => SourceMatch::Learnt,
            RouteSource::ExternalPeers => SourceMatch::LearntFrom(PeerKind::External),
            RouteSource::InternalPeers => SourceMatch::LearntFrom(PeerKind::Internal),
            RouteSource::Local => SourceMatch::Own,
        })
    }));
    let glob = interface.as_ref().map(InterfaceGlob::new);
    conditions.extend(glob.map(Condition::Interface));
    conditions.extend(peer_type.map(|kind| {
        Condition::Peer(match kind {
            SessionType::External => PeerKind::External,
            SessionType::Internal => PeerKind::Internal,
        })
    }));
    if let Some(communities) = communities {
        let values = patterns("communities.values", &communities.values)?;
        let any_of = patterns("communities.anyOf", &communities.any_of)?;
        let all_of = patterns("communities.allOf", &communities.all_of)?;
        let all = [values, all_of].concat();
        if !all.is_empty() {
            conditions.push(Condition::AllCommunities(all));
        }
        if !any_of.is_empty() {
            conditions.push(Condition::AnyCommunity(any_of));
        }
    }
    if !as_path_prefix.is_empty() {
        let asns = as_path_prefix.iter().copied().map(Asn).collect();
        conditions.push(Condition::AsPathPrefix(asns));
    }
    if let Some(text) = as_path_regex {
        let pattern = AsPathPattern::new(text).map_err(|error| Wrong::new("asPathRegex", error))?;
        conditions.push(Condition::AsPath(pattern));
    }
    conditions.extend(as_path_length.map(range).map(Condition::AsPathLength));
    conditions.extend(origin.map(route_origin).map(Condition::Origin));
    conditions.extend(med.map(range).map(Condition::Med));
    conditions.extend(local_pref.map(range).map(Condition::LocalPref));
    conditions.extend(priority.map(|priority| {
        Condition::LocalPref(NumberRange::exactly(priority_as_local_pref(priority)))
    }));
    if !next_hop_cidrs.is_empty() {
        let prefixes = next_hop_cidrs.iter().filter_map(|cidr| prefix_of(*cidr));
        let set = prefixes.map(PrefixMatch::orlonger).collect();
        conditions.push(Condition::NextHop(set));
    }
    let mut changes = Vec::new();
    for (index, operation) in operations.iter().enumerate() {
        translate_operation(&format!("operations[{index}]"), operation, &mut changes)?;
    }
    let action = match action {
        FilterAction::Accept => Action::Accept(changes),
        FilterAction::Continue => Action::Continue(changes),
        FilterAction::Reject => Action::Reject,
    };
    Ok(Rule::new(name, conditions, action))
}

fn prefix_match(prefix: Prefix, exact: bool, lengths: Option<PrefixLengthRange>) -> PrefixMatch {
    let bits = prefix.family().address_bits();
    let (shortest, longest) = if exact {
        (prefix.len(), prefix.len())
    } else {
        (prefix.len(), bits)
    };
    let (min, max) = lengths.map_or((None, None), |lengths| (lengths.min, lengths.max));
    PrefixMatch::lengths(
        prefix,
        min.unwrap_or(0).max(shortest),
        max.unwrap_or(bits).min(longest),
    )
}

fn range(range: caracal_crds::NumberRange) -> NumberRange {
    NumberRange {
        least: range.min.unwrap_or(0),
        most: range.max.unwrap_or(u32::MAX),
    }
}

fn route_origin(origin: RouteOrigin) -> Origin {
    match origin {
        RouteOrigin::Igp => Origin::Igp,
        RouteOrigin::Egp => Origin::Egp,
        RouteOrigin::Incomplete => Origin::Incomplete,
    }
}

fn patterns(field: &str, texts: &[String]) -> Result<Vec<CommunityPattern>, Wrong> {
    let parse = |text: &String| text.parse().map_err(|error| Wrong::new(field, error));
    texts.iter().map(parse).collect()
}

fn translate_operation(
    place: &str,
    operation: &FilterOperation,
    changes: &mut Vec<Operation>,
) -> Result<(), Wrong> {
    let FilterOperation {
        add_community,
        remove_community,
        set_communities,
        prepend_as_path,
        set_priority,
        set_local_pref,
        set_med,
        add_med,
        remove_med,
        set_origin,
        set_next_hop,
        blackhole,
    } = operation;
    let wrong = |field: &str, why: &dyn ToString| {
        Err(Wrong::new(format!("{place}.{field}"), why.to_string()))
    };
    if let Some(add) = add_community {
        match add.value.parse() {
            Ok(community) => changes.push(Operation::AddCommunity(community)),
            Err(error) => return wrong("addCommunity", &error),
        }
    }
    if let Some(remove) = remove_community {
        match remove.value.parse() {
            Ok(pattern) => changes.push(Operation::RemoveCommunity(pattern)),
            Err(error) => return wrong("removeCommunity", &error),
        }
    }
    if let Some(set) = set_communities {
        replace_communities(place, set, changes)?;
    }
    if let Some(prepend) = prepend_as_path {
        let asns = prepend.prefix.iter().copied().map(Asn).collect();
        changes.push(Operation::Prepend(asns));
    }
    changes.extend(
        set_priority
            .as_ref()
            .map(|set| Operation::SetLocalPref(priority_as_local_pref(set.value))),
    );
    changes.extend(
        set_local_pref
            .as_ref()
            .map(|set| Operation::SetLocalPref(set.value)),
    );
    changes.extend(set_med.as_ref().map(|set| Operation::SetMed(set.value)));
    changes.extend(add_med.as_ref().map(|add| Operation::AddMed(add.value)));
    changes.extend(remove_med.map(|_| Operation::RemoveMed));
    changes.extend(
        set_origin
            .as_ref()
            .map(|set| Operation::SetOrigin(route_origin(set.value))),
    );
    if let Some(set) = set_next_hop {
        let target = match (set.address, set.mode) {
            (Some(address), None) => NextHopTarget::Address(address),
            (None, Some(caracal_crds::NextHopTarget::Own)) => NextHopTarget::Own,
            (None, Some(caracal_crds::NextHopTarget::PeerAddress)) => NextHopTarget::Peer,
            (None, Some(caracal_crds::NextHopTarget::Unchanged)) => NextHopTarget::Unchanged,
            _ => return wrong("setNextHop", &"has not exactly one of address and mode"),
        };
        changes.push(Operation::SetNextHop(target));
    }
    changes.extend(blackhole.map(|_| Operation::Blackhole));
    Ok(())
}

fn replace_communities(
    place: &str,
    set: &SetCommunities,
    changes: &mut Vec<Operation>,
) -> Result<(), Wrong> {
    let SetCommunities {
        standard,
        extended,
        large,
    } = set;
    let field = |kind: &str| format!("{place}.setCommunities.{kind}");
    if let Some(texts) = standard {
        let list = communities(&field("standard"), texts, |community| match community {
            AnyCommunity::Standard(community) => Some(community),
            _ => None,
        })?;
        changes.push(Operation::SetCommunities(list));
    }
    if let Some(texts) = extended {
        let list = communities(&field("extended"), texts, |community| match community {
            AnyCommunity::Extended(community) => Some(community),
            _ => None,
        })?;
        changes.push(Operation::SetExtendedCommunities(list));
    }
    if let Some(texts) = large {
        let list = communities(&field("large"), texts, |community| match community {
            AnyCommunity::Large(community) => Some(community),
            _ => None,
        })?;
        changes.push(Operation::SetLargeCommunities(list));
    }
    Ok(())
}

fn communities<T>(
    field: &str,
    texts: &[String],
    of_kind: fn(AnyCommunity) -> Option<T>,
) -> Result<Vec<T>, Wrong> {
    let parse = |text: &String| {
        let community = text.parse().map_err(|error| Wrong::new(field, error))?;
        of_kind(community)
            .ok_or_else(|| Wrong::new(field, format!("'{text}' is a community of another kind")))
    };
    texts.iter().map(parse).collect()
}
