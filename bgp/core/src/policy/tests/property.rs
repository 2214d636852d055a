//! Any policy on any route against the naive evaluator, and the promises about caching.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;
use proptest::sample::select;

use super::naive::{self, Route};
use crate::policy::{
    Action, Amendment, AnyCommunity, ApplyContext, AsPathPattern, CommunityPattern, Condition,
    Decision, InterfaceGlob, NextHopTarget, NumberRange, Operation, Policy, PrefixMatch, PrefixSet,
    RouteFacts, RouteSource, Rule, SourceMatch, Verdict,
};
use crate::types::{Asn, Family, NextHop, PeerKind, Prefix};
use crate::wire::{AsPath, Origin, PathAttributes};

// Few values of everything, so that rules match, overlap and undo each other.

fn asn() -> impl Strategy<Value = Asn> {
    select(vec![1, 2, 65001, 4_200_000_000]).prop_map(Asn)
}

fn asns(most: usize) -> impl Strategy<Value = Vec<Asn>> {
    prop::collection::vec(asn(), 0..=most)
}

fn number() -> impl Strategy<Value = u32> {
    select(vec![0, 1, 99, 100, 101, u32::MAX - 1, u32::MAX])
}

fn range() -> impl Strategy<Value = NumberRange> {
    (number(), number()).prop_map(|(least, most)| NumberRange { least, most })
}

fn kind() -> impl Strategy<Value = PeerKind> {
    select(vec![PeerKind::Internal, PeerKind::External])
}

fn origin() -> impl Strategy<Value = Origin> {
    select(vec![Origin::Igp, Origin::Egp, Origin::Incomplete])
}

fn prefix() -> impl Strategy<Value = Prefix> {
    (any::<bool>(), 0_u8..=3, 0_u8..=4).prop_map(|(v6, bits, len)| {
        let top = u32::from(bits) << 30;
        match v6 {
            false => Prefix::v4(Ipv4Addr::from_bits(top), len),
            true => Prefix::v6(Ipv6Addr::from_bits(u128::from(top) << 96), len),
        }
        .expect("in range")
    })
}

fn address() -> impl Strategy<Value = IpAddr> {
    let texts = ["64.0.0.1", "128.0.0.1", "10.0.0.1", "4000::1", "fe80::1"];
    select(texts.map(|text| text.parse().expect("an address")).to_vec())
}

fn prefix_match() -> impl Strategy<Value = PrefixMatch> {
    (prefix(), 0_u8..=3, 0_u8..=5)
        .prop_map(|(within, low, high)| PrefixMatch::lengths(within, low, high))
}

fn set() -> impl Strategy<Value = PrefixSet> {
    prop_oneof![
        prop::collection::vec(prefix_match(), 0..4),
        prop::collection::vec(prefix_match(), 17..24),
    ]
    .prop_map(PrefixSet::new)
}

const COMMUNITIES: [&str; 10] = [
    "65000:1",
    "65000:2",
    "65001:1",
    "no-export",
    "65000:1:1",
    "65000:2:1",
    "rt:65000:1",
    "soo:65000:1",
    "rt:10.0.0.1:1",
    "0x4302000000000001",
];

fn community() -> impl Strategy<Value = AnyCommunity> {
    select(COMMUNITIES.to_vec()).prop_map(|text| text.parse().expect("a community"))
}

fn pattern() -> impl Strategy<Value = CommunityPattern> {
    let wild = [
        "65000:*",
        "*:1",
        "*:*",
        "65000:*:1",
        "*:*:*",
        "rt:*:1",
        "rt:65000:*",
    ];
    let all: Vec<&str> = COMMUNITIES.into_iter().chain(wild).collect();
    select(all).prop_map(|text| text.parse().expect("a pattern"))
}

fn patterns() -> impl Strategy<Value = Vec<CommunityPattern>> {
    prop::collection::vec(pattern(), 0..3)
}

fn condition() -> impl Strategy<Value = Condition> {
    let path_patterns = ["^$", "_1_", "^65001_", "_2$", "^(1|2)_.*_1$", "^1_2$"];
    prop_oneof![
        select(Family::ALL.to_vec()).prop_map(Condition::Family),
        kind().prop_map(Condition::Peer),
        prop_oneof![
            Just(SourceMatch::Own),
            Just(SourceMatch::Learnt),
            kind().prop_map(SourceMatch::LearntFrom),
        ]
        .prop_map(Condition::Source),
        origin().prop_map(Condition::Origin),
        (0_u32..4, 0_u32..4)
            .prop_map(|(least, most)| Condition::AsPathLength(NumberRange { least, most })),
        range().prop_map(Condition::Med),
        range().prop_map(Condition::LocalPref),
        set().prop_map(Condition::Prefix),
        set().prop_map(Condition::NotPrefix),
        set().prop_map(Condition::NextHop),
        select(vec!["*", "eth*", "eth0", "?th1", "lo"])
            .prop_map(|glob| Condition::Interface(InterfaceGlob::new(glob))),
        asns(2).prop_map(Condition::AsPathPrefix),
        patterns().prop_map(Condition::AnyCommunity),
        patterns().prop_map(Condition::AllCommunities),
        select(path_patterns.to_vec())
            .prop_map(|text| Condition::AsPath(AsPathPattern::new(text).expect("an expression"))),
    ]
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        community().prop_map(Operation::AddCommunity),
        pattern().prop_map(Operation::RemoveCommunity),
        list(|community| match community {
            AnyCommunity::Standard(value) => Some(value),
            _ => None,
        })
        .prop_map(Operation::SetCommunities),
        list(|community| match community {
            AnyCommunity::Extended(value) => Some(value),
            _ => None,
        })
        .prop_map(Operation::SetExtendedCommunities),
        list(|community| match community {
            AnyCommunity::Large(value) => Some(value),
            _ => None,
        })
        .prop_map(Operation::SetLargeCommunities),
        asns(2).prop_map(Operation::Prepend),
        number().prop_map(Operation::SetLocalPref),
        number().prop_map(Operation::SetMed),
        select(vec![i64::MIN, -101, -1, 0, 1, 100, i64::MAX]).prop_map(Operation::AddMed),
        Just(Operation::RemoveMed),
        origin().prop_map(Operation::SetOrigin),
        prop_oneof![
            address().prop_map(NextHopTarget::Address),
            Just(NextHopTarget::Own),
            Just(NextHopTarget::Peer),
            Just(NextHopTarget::Unchanged),
        ]
        .prop_map(Operation::SetNextHop),
        Just(Operation::Blackhole),
    ]
}

fn list<T: std::fmt::Debug>(
    of_kind: fn(AnyCommunity) -> Option<T>,
) -> impl Strategy<Value = Vec<T>> {
    prop::collection::vec(community(), 0..4)
        .prop_map(move |list| list.into_iter().filter_map(of_kind).collect())
}

fn operations() -> impl Strategy<Value = Vec<Operation>> {
    prop::collection::vec(operation(), 0..3)
}

fn rule() -> impl Strategy<Value = Rule> {
    let action = prop_oneof![
        1 => operations().prop_map(Action::Accept),
        1 => Just(Action::Reject),
        3 => operations().prop_map(Action::Continue),
    ];
    (prop::collection::vec(condition(), 0..3), action)
        .prop_map(|(conditions, action)| Rule::new("rule", conditions, action))
}

/// Rules that mostly match and look at what those before them did.
fn entangled_rule() -> impl Strategy<Value = Rule> {
    let expression = |text| Condition::AsPath(AsPathPattern::new(text).expect("an expression"));
    let pattern = |text: &str| text.parse().expect("a pattern");
    let half = |top: u32| {
        let half = Prefix::v4(Ipv4Addr::from_bits(top << 31), 1).expect("in range");
        Condition::Prefix(PrefixSet::new([PrefixMatch::orlonger(half)]))
    };
    let conditions = vec![
        half(0),
        half(1),
        Condition::AnyCommunity(vec![pattern("65000:1")]),
        Condition::AllCommunities(vec![pattern("65000:1:1")]),
        expression("^1(_1)?(_2)*$"),
        expression("^2.*"),
        Condition::AsPathLength(NumberRange { least: 0, most: 2 }),
        Condition::Med(NumberRange::exactly(1)),
        Condition::LocalPref(NumberRange::exactly(100)),
        Condition::Origin(Origin::Igp),
    ];
    let operations = vec![
        Operation::AddCommunity("65000:1".parse().expect("a community")),
        Operation::AddCommunity("65000:1:1".parse().expect("a community")),
        Operation::RemoveCommunity(pattern("65000:*")),
        Operation::Prepend(vec![Asn(1)]),
        Operation::Prepend(vec![Asn(2)]),
        Operation::SetMed(1),
        Operation::AddMed(1),
        Operation::SetLocalPref(100),
        Operation::SetLocalPref(99),
        Operation::SetOrigin(Origin::Igp),
        Operation::SetOrigin(Origin::Egp),
    ];
    let operations = prop::collection::vec(select(operations), 1..3);
    let action = (0..8, operations).prop_map(|(kind, operations)| match kind {
        0 => Action::Accept(operations),
        1 => Action::Reject,
        _ => Action::Continue(operations),
    });
    (prop::collection::vec(select(conditions), 0..2), action)
        .prop_map(|(conditions, action)| Rule::new("rule", conditions, action))
}

fn policy() -> impl Strategy<Value = Policy> {
    let amendment = (prop::collection::vec(condition(), 0..2), operations())
        .prop_map(|(conditions, operations)| Amendment::new("last", conditions, operations));
    (
        prop_oneof![
            prop::collection::vec(rule(), 0..6),
            prop::collection::vec(entangled_rule(), 2..8),
        ],
        select(vec![Verdict::Accept, Verdict::Reject]),
        prop::collection::vec(amendment, 0..2),
    )
        .prop_map(|(rules, otherwise, amendments)| {
            amendments
                .into_iter()
                .fold(Policy::new(rules, otherwise), Policy::amended)
        })
}

/// A route with all that facts borrow.
#[derive(Clone, Debug)]
struct Told {
    attributes: PathAttributes,
    next_hop: Option<NextHop>,
    source: RouteSource,
    interface: Option<&'static str>,
    peer: PeerKind,
}

impl Told {
    fn facts(&self) -> RouteFacts<'_> {
        RouteFacts {
            attributes: &self.attributes,
            next_hop: self.next_hop.as_ref(),
            source: self.source,
            interface: self.interface,
            peer: self.peer,
        }
    }
}

fn attributes() -> impl Strategy<Value = PathAttributes> {
    (
        origin(),
        asns(3),
        prop::option::of(number()),
        prop::option::of(number()),
        prop::collection::vec(community(), 0..5),
    )
        .prop_map(|(origin, path, med, local_pref, communities)| {
            let mut attributes = PathAttributes {
                origin,
                as_path: AsPath::new(path),
                med,
                local_pref,
                ..PathAttributes::default()
            };
            for community in communities {
                Operation::AddCommunity(community).rewrite(&mut attributes);
            }
            attributes
        })
}

fn told() -> impl Strategy<Value = Told> {
    (
        attributes(),
        prop::option::of(address().prop_map(NextHop::from)),
        prop_oneof![Just(RouteSource::Own), kind().prop_map(RouteSource::Peer)],
        select(vec![None, Some("eth0"), Some("eth1"), Some("lo")]),
        kind(),
    )
        .prop_map(|(attributes, next_hop, source, interface, peer)| Told {
            attributes,
            next_hop,
            source,
            interface,
            peer,
        })
}

fn context() -> impl Strategy<Value = ApplyContext> {
    let end = || prop::option::of(address().prop_map(NextHop::from));
    (end(), end()).prop_map(|(own, peer)| ApplyContext { own, peer })
}

fn fate(
    policy: &Policy,
    decision: &Decision,
    told: &Told,
    context: &ApplyContext,
) -> Option<Route> {
    decision.accepts().then(|| {
        let applied = policy.apply(decision, told.attributes.clone(), context);
        Route {
            attributes: applied.attributes,
            next_hop: applied.next_hop,
            blackhole: applied.blackhole,
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_route_fares_as_a_naive_reading_of_the_rules_says(
        policy in policy(),
        routes in prop::collection::vec((prefix(), told(), context()), 1..16),
    ) {
        for (prefix, told, context) in routes {
            let decision = policy.evaluate(&prefix, &told.facts());
            let found = fate(&policy, &decision, &told, &context);
            let expected = naive::fate(&policy, &prefix, &told.facts(), &context);
            prop_assert_eq!(found, expected, "{} {}", prefix, policy.explain(&prefix, &told.facts()));
        }
    }

    #[test]
    fn narrowing_to_a_path_first_decides_the_same(
        policy in policy(),
        told in told(),
        prefixes in prop::collection::vec(prefix(), 1..16),
    ) {
        for family in Family::ALL {
            let narrowed = policy.narrow(family, &told.facts());
            for prefix in prefixes.iter().filter(|prefix| prefix.family() == family) {
                let whole = policy.evaluate(prefix, &told.facts());
                let split = policy.decide(&narrowed, prefix, &told.facts());
                prop_assert_eq!(&split, &whole);
                if let Some(settled) = narrowed.settled() {
                    prop_assert_eq!(settled, &whole);
                }
            }
        }
    }

    #[test]
    fn what_the_dependences_deny_makes_no_difference(
        policy in policy(),
        told in prop::collection::vec(told(), 2..4),
        prefixes in prop::collection::vec(prefix(), 2..16),
    ) {
        for family in Family::ALL {
            let mut of_family = prefixes.iter().filter(|prefix| prefix.family() == family);
            let Some(first) = of_family.next() else { continue };
            if !policy.depends_on_prefix(family) {
                let facts = told[0].facts();
                prop_assert!(policy.narrow(family, &facts).settled().is_some());
                for other in of_family {
                    prop_assert_eq!(policy.evaluate(first, &facts), policy.evaluate(other, &facts));
                }
            }
            if !policy.depends_on_route() {
                let decision = policy.evaluate(first, &told[0].facts());
                for other in &told {
                    prop_assert_eq!(&policy.evaluate(first, &other.facts()), &decision);
                }
            }
            if !policy.changes_routes() {
                let decision = policy.evaluate(first, &told[0].facts());
                let applied = policy.apply(&decision, told[0].attributes.clone(), &ApplyContext::default());
                prop_assert_eq!(&applied.attributes, &told[0].attributes);
            }
        }
    }

    #[test]
    fn the_account_ends_with_the_rule_that_decides(
        policy in policy(),
        told in told(),
        prefix in prefix(),
    ) {
        let explained = policy.explain(&prefix, &told.facts());
        prop_assert_eq!(&explained.decision, &policy.evaluate(&prefix, &told.facts()));
        let mut ordinary = explained.steps.iter().filter(|step| (step.rule.0 as usize) < policy.rules().len());
        let last = ordinary.next_back().map(|step| step.rule);
        match explained.decision.rule {
            Some(rule) => prop_assert_eq!(last, Some(rule)),
            None => prop_assert_eq!(last.map_or(0, |rule| rule.0 as usize + 1), policy.rules().len()),
        }
    }
}
