//! What a policy costs per route.
//!
//! `cargo bench -p caracal-bgp-core --bench policy`

use std::hint::black_box;

use caracal_bgp_core::policy::{
    Action, AnyCommunity, AsPathPattern, Condition, Operation, Policy, PrefixMatch, PrefixSet,
    RouteFacts, Rule, Verdict,
};
use caracal_bgp_core::types::{Asn, Family, PeerKind, Prefix};
use caracal_bgp_core::wire::{AsPath, Community, PathAttributes};
use criterion::{Criterion, criterion_group, criterion_main};

fn prefix(text: &str) -> Prefix {
    text.parse().expect("a prefix")
}

fn attributes() -> PathAttributes {
    PathAttributes {
        as_path: AsPath::new([65001, 65010, 65020, 4_200_000_000].map(Asn)),
        communities: (1..=8).map(|n| Community(65000 << 16 | n)).collect(),
        ..PathAttributes::default()
    }
}

fn prefix_rule(number: u32) -> Rule {
    let within = prefix(&format!("10.{number}.0.0/16"));
    Rule::new(
        format!("rule {number}"),
        vec![Condition::Prefix(PrefixSet::new([PrefixMatch::orlonger(
            within,
        )]))],
        Action::Reject,
    )
}

fn set_rule(size: u32) -> Rule {
    let set: PrefixSet = (0..size)
        .map(|n| PrefixMatch::orlonger(prefix(&format!("10.{}.{}.0/24", n / 256, n % 256))))
        .collect();
    Rule::new("set", vec![Condition::Prefix(set)], Action::Reject)
}

fn policies() -> Vec<(&'static str, Policy)> {
    let community = "65000:8".parse().expect("a pattern");
    let expression = |text| AsPathPattern::new(text).expect("an expression");
    let one = |rule| Policy::new(vec![rule], Verdict::Accept);
    let tag = Operation::AddCommunity(AnyCommunity::Standard(Community(65000 << 16 | 99)));
    vec![
        ("empty", Policy::accept_all()),
        (
            "5 prefix rules, none matches",
            Policy::new((1..=5).map(prefix_rule).collect(), Verdict::Accept),
        ),
        ("set of 16", one(set_rule(16))),
        ("set of 1000", one(set_rule(1000))),
        ("set of 50000", one(set_rule(50_000))),
        (
            "community",
            one(Rule::new(
                "c",
                vec![Condition::AnyCommunity(vec![community])],
                Action::Reject,
            )),
        ),
        (
            "AS path, one number",
            one(Rule::new(
                "a",
                vec![Condition::AsPath(expression("_65020_"))],
                Action::Reject,
            )),
        ),
        (
            "AS path, any expression",
            one(Rule::new(
                "a",
                vec![Condition::AsPath(expression("^6500[0-9]_(65010|65011)_"))],
                Action::Reject,
            )),
        ),
        (
            "tag, then look for the tag",
            Policy::new(
                vec![
                    Rule::new("tag", Vec::new(), Action::Continue(vec![tag])),
                    Rule::new(
                        "look",
                        vec![Condition::AnyCommunity(vec![
                            "65000:99".parse().expect("a pattern"),
                        ])],
                        Action::Reject,
                    ),
                ],
                Verdict::Accept,
            ),
        ),
    ]
}

fn evaluate(criterion: &mut Criterion) {
    let attributes = attributes();
    let route = RouteFacts::own(&attributes, PeerKind::External);
    let target = prefix("10.200.1.0/24");
    let mut group = criterion.benchmark_group("evaluate");
    for (name, policy) in policies() {
        group.bench_function(name, |bencher| {
            bencher.iter(|| policy.evaluate(black_box(&target), black_box(&route)));
        });
    }
    group.finish();
    let mut group = criterion.benchmark_group("decide");
    for (name, policy) in policies() {
        let narrowed = policy.narrow(Family::Ipv4Unicast, &route);
        group.bench_function(name, |bencher| {
            bencher.iter(|| policy.decide(&narrowed, black_box(&target), black_box(&route)));
        });
    }
    group.finish();
}

criterion_group!(benches, evaluate);
criterion_main!(benches);
