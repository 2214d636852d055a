//! One example for each thing that people rely on.

use std::sync::Arc;

use crate::policy::{
    Action, Amendment, ApplyContext, AsPathPattern, Condition, NextHopChange, NextHopTarget,
    Operation, Policy, PrefixMatch, PrefixSet, RouteFacts, RouteSource, Rule, SourceMatch, Verdict,
    priority_as_local_pref,
};
use crate::types::{Asn, Family, NextHop, PeerKind, Prefix};
use crate::wire::{AsPath, Community, PathAttributes};

fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

fn within(text: &str) -> Condition {
    Condition::Prefix(PrefixSet::new([PrefixMatch::orlonger(prefix(text))]))
}

fn all_of(patterns: &[&str]) -> Condition {
    let patterns = patterns.iter().map(|text| text.parse().unwrap());
    Condition::AllCommunities(patterns.collect())
}

fn add(community: &str) -> Operation {
    Operation::AddCommunity(community.parse().unwrap())
}

fn carrying(communities: &[&str]) -> PathAttributes {
    let mut attributes = PathAttributes::default();
    for community in communities {
        add(community).rewrite(&mut attributes);
    }
    attributes
}

fn learnt(attributes: &PathAttributes) -> RouteFacts<'_> {
    RouteFacts {
        source: RouteSource::Peer(PeerKind::External),
        ..RouteFacts::own(attributes, PeerKind::External)
    }
}

/// The attributes after the policy; `None` where it rejects.
fn through(policy: &Policy, to: &str, attributes: &PathAttributes) -> Option<PathAttributes> {
    let decision = policy.evaluate(&prefix(to), &learnt(attributes));
    decision.accepts().then(|| {
        policy
            .apply(&decision, attributes.clone(), &ApplyContext::default())
            .attributes
    })
}

#[test]
fn the_first_matching_rule_decides_and_is_named() {
    let policy = Policy::new(
        vec![
            Rule::new("no-mgmt", vec![within("10.9.0.0/16")], Action::Reject),
            Rule::new("pods", vec![within("10.0.0.0/8")], Action::Accept(vec![])),
        ],
        Verdict::Reject,
    );
    let none = PathAttributes::default();
    let found = |text| {
        let decision = policy.evaluate(&prefix(text), &learnt(&none));
        let name = decision.rule.and_then(|rule| policy.name_of(rule));
        (decision.verdict, name)
    };
    assert_eq!(found("10.9.1.0/24"), (Verdict::Reject, Some("no-mgmt")));
    assert_eq!(found("10.8.1.0/24"), (Verdict::Accept, Some("pods")));
    assert_eq!(found("192.0.2.0/24"), (Verdict::Reject, None));
}

#[test]
fn a_rule_that_continues_changes_what_later_rules_see() {
    let policy = Policy::new(
        vec![
            Rule::new(
                "mark",
                vec![within("10.0.0.0/8")],
                Action::Continue(vec![add("65000:1")]),
            ),
            Rule::new("marked", vec![all_of(&["65000:1"])], Action::Accept(vec![])),
        ],
        Verdict::Reject,
    );
    let plain = PathAttributes::default();
    assert_eq!(
        through(&policy, "10.1.0.0/16", &plain),
        Some(carrying(&["65000:1"]))
    );
    assert_eq!(through(&policy, "11.1.0.0/16", &plain), None);
    assert!(through(&policy, "11.1.0.0/16", &carrying(&["65000:1"])).is_some());
}

#[test]
fn what_continues_counts_also_when_no_rule_decides() {
    let mark = Rule::new("mark", vec![], Action::Continue(vec![add("65000:1")]));
    let policy = |otherwise| Policy::new(vec![mark.clone()], otherwise);
    let plain = PathAttributes::default();
    assert_eq!(
        through(&policy(Verdict::Accept), "10.0.0.0/8", &plain),
        Some(carrying(&["65000:1"]))
    );
    assert_eq!(
        through(&policy(Verdict::Reject), "10.0.0.0/8", &plain),
        None
    );
}

#[test]
fn a_prepended_path_reads_in_the_order_given() {
    let accept = Action::Accept(vec![Operation::Prepend(vec![Asn(65001), Asn(65002)])]);
    let policy = Policy::new(vec![Rule::new("p", vec![], accept)], Verdict::Reject);
    let told = PathAttributes {
        as_path: AsPath::new([Asn(65003)]),
        ..PathAttributes::default()
    };
    let path = through(&policy, "10.0.0.0/8", &told).unwrap().as_path;
    assert_eq!(path.to_string(), "65001 65002 65003");
}

#[test]
fn a_lower_priority_is_a_higher_local_preference() {
    assert_eq!(priority_as_local_pref(1024), 2_147_482_623);
    assert_eq!(priority_as_local_pref(1), 2_147_483_646);
    assert_eq!(priority_as_local_pref(u32::MAX), 0);
}

#[test]
fn the_last_word_about_the_next_hop_counts() {
    let operations = |targets: &[NextHopTarget]| {
        let operations = targets.iter().copied().map(Operation::SetNextHop);
        let accept = Action::Accept(operations.collect());
        Policy::new(vec![Rule::new("nh", vec![], accept)], Verdict::Reject)
    };
    let next_hop = |text: &str| NextHop::from(text.parse::<std::net::IpAddr>().unwrap());
    let context = ApplyContext {
        own: Some(next_hop("192.0.2.1")),
        peer: None,
    };
    let address = NextHopTarget::Address("192.0.2.9".parse().unwrap());
    for (targets, expected) in [
        (&[][..], NextHopChange::None),
        (&[address], NextHopChange::To(next_hop("192.0.2.9"))),
        (
            &[address, NextHopTarget::Own],
            NextHopChange::To(next_hop("192.0.2.1")),
        ),
        (&[NextHopTarget::Unchanged], NextHopChange::Unchanged),
        (&[NextHopTarget::Peer], NextHopChange::Unavailable),
    ] {
        let policy = operations(targets);
        let none = PathAttributes::default();
        let decision = policy.evaluate(&prefix("10.0.0.0/8"), &learnt(&none));
        let applied = policy.apply(&decision, none.clone(), &context);
        assert_eq!(applied.next_hop, expected, "{targets:?}");
    }
}

#[test]
fn a_blackholed_route_is_marked_and_stays_inside() {
    let accept = Action::Accept(vec![Operation::Blackhole]);
    let rule = Rule::new("rtbh", vec![all_of(&["blackhole"])], accept);
    let policy = Policy::new(vec![rule], Verdict::Reject);
    let told = carrying(&["blackhole"]);
    let decision = policy.evaluate(&prefix("10.0.0.1/32"), &learnt(&told));
    let applied = policy.apply(&decision, told, &ApplyContext::default());
    assert!(applied.blackhole);
    assert!(
        applied
            .attributes
            .communities
            .contains(&Community::NO_EXPORT)
    );
}

#[test]
fn graceful_shutdown_is_honoured_whatever_filters_do() {
    let strip = Operation::RemoveCommunity("*:*".parse().unwrap());
    let accept = Action::Accept(vec![strip, Operation::SetLocalPref(200)]);
    let policy = Policy::new(vec![Rule::new("strip", vec![], accept)], Verdict::Reject)
        .amended(Amendment::honour_graceful_shutdown());
    let pref = |told: &PathAttributes| through(&policy, "10.0.0.0/8", told).unwrap().local_pref;
    assert_eq!(pref(&carrying(&["graceful-shutdown"])), Some(0));
    assert_eq!(pref(&carrying(&["no-export"])), Some(200));
}

#[test]
fn draining_marks_everything_that_is_told() {
    let policy = |peer| Policy::accept_all().amended(Amendment::drain_export(peer));
    let plain = PathAttributes::default();
    let external = through(&policy(PeerKind::External), "10.0.0.0/8", &plain).unwrap();
    assert_eq!(external, carrying(&["graceful-shutdown"]));
    let internal = through(&policy(PeerKind::Internal), "10.0.0.0/8", &plain).unwrap();
    assert_eq!(internal.local_pref, Some(0));
}

#[test]
fn an_absent_policy_rejects_everything_and_says_so() {
    let policy = Policy::not_configured();
    let of_one = Rule::not_configured(Family::Ipv6Unicast);
    let of_one = Policy::new(vec![of_one], Verdict::Accept);
    for (policy, absent) in [
        (&policy, [true, true]),
        (&of_one, [false, true]),
        (&Policy::reject_all(), [false, false]),
    ] {
        let found = Family::ALL.map(|family| policy.is_not_configured(family));
        assert_eq!(found, absent, "{policy:?}");
    }
    let none = PathAttributes::default();
    let explained = policy.explain(&prefix("10.0.0.0/8"), &learnt(&none));
    assert_eq!(
        explained.to_string(),
        "'no policy is configured (RFC 8212)' matches everything: reject\n\
         rejected by 'no policy is configured (RFC 8212)'"
    );
}

#[test]
fn the_account_names_conditions_and_changes() {
    let policy = Policy::new(
        vec![
            Rule::new(
                "tag own",
                vec![Condition::Source(SourceMatch::Own)],
                Action::Continue(vec![add("65000:1")]),
            ),
            Rule::new(
                "mark",
                vec![within("10.0.0.0/8")],
                Action::Continue(vec![Operation::SetMed(50)]),
            ),
            Rule::new(
                "customers",
                vec![
                    Condition::AsPath(AsPathPattern::new("_65001_").unwrap()),
                    within("10.0.0.0/8"),
                ],
                Action::Accept(vec![add("65000:2"), Operation::SetLocalPref(200)]),
            ),
        ],
        Verdict::Reject,
    );
    let told = PathAttributes {
        as_path: AsPath::new([Asn(65001)]),
        ..PathAttributes::default()
    };
    let explained = policy.explain(&prefix("10.1.0.0/16"), &learnt(&told));
    assert_eq!(
        explained.to_string(),
        "'tag own' does not match: not own route\n\
         'mark' matches (prefix in 10.0.0.0/8{8,32}): continue: set MED 50\n\
         'customers' matches (prefix in 10.0.0.0/8{8,32}; AS path matches \"_65001_\"): \
         accept: add community 65000:2, set local preference 200\n\
         accepted by 'customers'"
    );
    let other = policy.explain(&prefix("11.0.0.0/16"), &learnt(&told));
    assert!(other.to_string().ends_with("rejected: no rule decides"));
}

#[test]
fn policies_compare_by_value_and_share_by_handle() {
    let policy = || {
        Arc::new(Policy::only(
            "pods",
            vec![PrefixMatch::orlonger(prefix("10.0.0.0/8"))],
        ))
    };
    assert_eq!(policy(), policy());
    assert_ne!(*policy(), Policy::accept_all());
}

#[test]
fn a_prefix_matters_only_to_the_families_that_rules_name() {
    let policy = Policy::only("pods", vec![PrefixMatch::orlonger(prefix("10.0.0.0/8"))]);
    assert!(policy.depends_on_prefix(Family::Ipv4Unicast));
    assert!(!policy.depends_on_prefix(Family::Ipv6Unicast));
    assert!(!policy.depends_on_route() && !policy.changes_routes());
}
