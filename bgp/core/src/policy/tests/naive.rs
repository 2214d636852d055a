//! What policies mean, written down as plainly as possible: walk the rules, change the route as
//! you go, and look at it again for the next one. No sets, no shortcuts, no split of the work.

use std::net::IpAddr;

use crate::policy::{
    Action, AnyCommunity, ApplyContext, CommunityPattern, Condition, NextHopChange, NextHopTarget,
    Operation, Policy, PrefixMatch, RouteFacts, RouteSource, SourceMatch, Verdict,
};
use crate::types::{NextHop, Prefix};
use crate::wire::{AsPath, Community, PathAttributes};

/// A route that passed.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Route {
    pub(super) attributes: PathAttributes,
    pub(super) next_hop: NextHopChange,
    pub(super) blackhole: bool,
}

/// What becomes of a route; `None` for one that is rejected.
pub(super) fn fate(
    policy: &Policy,
    prefix: &Prefix,
    told: &RouteFacts<'_>,
    context: &ApplyContext,
) -> Option<Route> {
    let mut route = Route {
        attributes: told.attributes.clone(),
        next_hop: NextHopChange::None,
        blackhole: false,
    };
    let mut verdict = policy.otherwise();
    for rule in policy.rules() {
        let matched = rule
            .conditions()
            .iter()
            .all(|condition| holds(condition, prefix, told, &route.attributes));
        if !matched {
            continue;
        }
        for operation in rule.action().operations() {
            route.change(operation, context);
        }
        match rule.action() {
            Action::Continue(_) => continue,
            Action::Accept(_) => verdict = Verdict::Accept,
            Action::Reject => verdict = Verdict::Reject,
        }
        break;
    }
    if verdict == Verdict::Reject {
        return None;
    }
    for amendment in policy.amendments() {
        let matched = amendment
            .conditions
            .iter()
            .all(|condition| holds(condition, prefix, told, told.attributes));
        if matched {
            for operation in &amendment.operations {
                route.change(operation, context);
            }
        }
    }
    Some(route)
}

fn holds(
    condition: &Condition,
    prefix: &Prefix,
    told: &RouteFacts<'_>,
    now: &PathAttributes,
) -> bool {
    let in_set = |set: &[PrefixMatch]| set.iter().any(|entry| entry.matches(prefix));
    match condition {
        Condition::Family(family) => prefix.family() == *family,
        Condition::Peer(kind) => told.peer == *kind,
        Condition::Source(SourceMatch::Own) => told.source == RouteSource::Own,
        Condition::Source(SourceMatch::Learnt) => told.source != RouteSource::Own,
        Condition::Source(SourceMatch::LearntFrom(kind)) => told.source == RouteSource::Peer(*kind),
        Condition::Origin(origin) => now.origin == *origin,
        Condition::AsPathLength(range) => {
            let length = now.as_path.len() as u32;
            range.least <= length && length <= range.most
        }
        Condition::Med(range) => match now.med {
            Some(med) => range.least <= med && med <= range.most,
            None => false,
        },
        Condition::LocalPref(range) => {
            let value = now.local_pref.unwrap_or(100);
            range.least <= value && value <= range.most
        }
        Condition::Prefix(set) => in_set(set.matches()),
        Condition::NotPrefix(set) => !in_set(set.matches()),
        Condition::NextHop(set) => match told.next_hop {
            Some(next_hop) => set
                .matches()
                .iter()
                .any(|entry| bits_agree(entry.within(), next_hop.addr())),
            None => false,
        },
        Condition::Interface(glob) => match told.interface {
            Some(name) => glob_matches(glob.to_string().as_bytes(), name.as_bytes()),
            None => false,
        },
        Condition::AsPathPrefix(asns) => asns
            .iter()
            .enumerate()
            .all(|(at, asn)| now.as_path.asns().get(at) == Some(asn)),
        Condition::AnyCommunity(patterns) => {
            texts(now).any(|text| patterns.iter().any(|pattern| looks_like(pattern, &text)))
        }
        Condition::AllCommunities(patterns) => patterns
            .iter()
            .all(|pattern| texts(now).any(|text| looks_like(pattern, &text))),
        // Judged by tests of its own.
        Condition::AsPath(pattern) => pattern.is_match(&now.as_path),
    }
}

fn bits_agree(prefix: Prefix, address: IpAddr) -> bool {
    let bits = |address: IpAddr| match address {
        IpAddr::V4(v4) => format!("{:032b}", v4.to_bits()),
        IpAddr::V6(v6) => format!("{:0128b}", v6.to_bits()),
    };
    let (wanted, found) = (bits(prefix.addr()), bits(address));
    wanted.len() == found.len() && found.starts_with(&wanted[..usize::from(prefix.len())])
}

fn glob_matches(glob: &[u8], name: &[u8]) -> bool {
    match glob.split_first() {
        None => name.is_empty(),
        Some((b'*', rest)) => (0..=name.len()).any(|taken| glob_matches(rest, &name[taken..])),
        Some((wanted, rest)) => name.split_first().is_some_and(|(found, tail)| {
            (*wanted == b'?' || wanted == found) && glob_matches(rest, tail)
        }),
    }
}

/// All communities as text, with well-known ones in numbers.
fn texts(attributes: &PathAttributes) -> impl Iterator<Item = String> {
    let standard = attributes
        .communities
        .iter()
        .map(|Community(value)| format!("{}:{}", value >> 16, value & 0xffff));
    let extended = attributes
        .ext_communities()
        .iter()
        .map(|community| AnyCommunity::Extended(*community).to_string());
    let large = attributes.large_communities.iter().map(ToString::to_string);
    standard.chain(extended).chain(large)
}

/// Whether part for part the text is the pattern's, a star being anything.
fn looks_like(pattern: &CommunityPattern, text: &str) -> bool {
    let pattern = match pattern {
        CommunityPattern::Standard {
            mask: u32::MAX,
            value,
        } => {
            format!("{}:{}", value >> 16, value & 0xffff)
        }
        other => other.to_string(),
    };
    let (wanted, found): (Vec<&str>, Vec<&str>) =
        (pattern.split(':').collect(), text.split(':').collect());
    // A standard community has two parts, a large one three numbers, the rest begin with a word.
    let word = |parts: &[&str]| matches!(parts[0], "rt" | "soo");
    wanted.len() == found.len()
        && word(&wanted) == word(&found)
        && wanted
            .iter()
            .zip(&found)
            .all(|(wanted, found)| *wanted == "*" || wanted == found)
}

impl Route {
    fn change(&mut self, operation: &Operation, context: &ApplyContext) {
        let mut communities = self.attributes.communities.to_vec();
        let mut ext_communities = self.attributes.ext_communities().to_vec();
        let mut large_communities = self.attributes.large_communities.to_vec();
        match operation {
            Operation::AddCommunity(AnyCommunity::Standard(value)) => communities.push(*value),
            Operation::AddCommunity(AnyCommunity::Extended(value)) => ext_communities.push(*value),
            Operation::AddCommunity(AnyCommunity::Large(value)) => large_communities.push(*value),
            Operation::RemoveCommunity(pattern) => {
                communities.retain(|Community(value)| {
                    !looks_like(pattern, &format!("{}:{}", value >> 16, value & 0xffff))
                });
                ext_communities.retain(|value| {
                    !looks_like(pattern, &AnyCommunity::Extended(*value).to_string())
                });
                large_communities.retain(|value| !looks_like(pattern, &value.to_string()));
            }
            Operation::SetCommunities(list) => communities.clone_from(list),
            Operation::SetExtendedCommunities(list) => ext_communities.clone_from(list),
            Operation::SetLargeCommunities(list) => large_communities.clone_from(list),
            Operation::Prepend(asns) => {
                let mut path = asns.clone();
                path.extend(self.attributes.as_path.asns());
                self.attributes.as_path = AsPath::new(path);
            }
            Operation::SetLocalPref(value) => self.attributes.local_pref = Some(*value),
            Operation::SetMed(value) => self.attributes.med = Some(*value),
            Operation::AddMed(change) => {
                let sum = i128::from(self.attributes.med.unwrap_or(0)) + i128::from(*change);
                self.attributes.med = Some(sum.clamp(0, i128::from(u32::MAX)) as u32);
            }
            Operation::RemoveMed => self.attributes.med = None,
            Operation::SetOrigin(origin) => self.attributes.origin = *origin,
            Operation::SetNextHop(target) => {
                let or_none = |next_hop: Option<NextHop>| match next_hop {
                    Some(next_hop) => NextHopChange::To(next_hop),
                    None => NextHopChange::Unavailable,
                };
                self.next_hop = match target {
                    NextHopTarget::Address(address) => NextHopChange::To(NextHop::from(*address)),
                    NextHopTarget::Own => or_none(context.own),
                    NextHopTarget::Peer => or_none(context.peer),
                    NextHopTarget::Unchanged => NextHopChange::Unchanged,
                };
            }
            Operation::Blackhole => {
                self.blackhole = true;
                communities.push(Community::NO_EXPORT);
            }
        }
        self.attributes.communities = communities.into_iter().collect();
        self.attributes.large_communities = large_communities.into_iter().collect();
        self.attributes
            .edit_ext_communities(|list| *list = ext_communities.into_iter().collect());
    }
}
