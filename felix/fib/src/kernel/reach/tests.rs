//! Two links that work and one that does not, with routes of ours and of others around them.

use std::sync::Arc;

use super::*;
use crate::kernel::plan::Route;
use crate::kernel::resolve::tests::{address, link};

fn topology() -> Topology {
    let addresses = ["10.0.1.1/24", "10.0.2.1/24", "10.0.3.1/24"];
    let addresses = (1..).zip(addresses).map(|(link, text)| address(link, text));
    let links = vec![link(1, true), link(2, true), link(3, false)];
    Topology::new(links, addresses.collect())
}

fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

fn next_hop(address: &str) -> FibNextHop {
    FibNextHop {
        address: address.parse().unwrap(),
        link_local: None,
        interface: None,
    }
}

/// A route of another program: to a gateway, or none where its packets stay on the link.
fn others(to: &str, metric: u32, ways: &[(Option<&str>, u32)]) -> KernelRoute {
    let ways = ways.iter().map(|(gateway, interface)| RouteWay {
        gateway: gateway.map(|gateway| gateway.parse().unwrap()),
        interface: *interface,
    });
    KernelRoute {
        prefix: prefix(to),
        protocol: 4,
        metric,
        object: None,
        blackhole: false,
        interface: None,
        source: None,
        ways: ways.collect(),
    }
}

/// Everything around a next hop.
#[derive(Default)]
struct World {
    desired: Desired,
    underlay: Underlay,
    lost: BTreeSet<Way>,
}

impl World {
    /// A route of ours, over next hops of which these can be used.
    fn ours(mut self, to: &str, over: &[&str], usable: &[(&str, u32)]) -> Self {
        let key: GroupKey = over.iter().map(|address| next_hop(address)).collect();
        let target = match over {
            [] => Target::Blackhole,
            _ => Target::Group(Arc::clone(&key)),
        };
        let source = None;
        self.desired.set(prefix(to), Some(Route { target, source }));
        let members = usable.iter().map(|(gateway, interface)| Hop {
            gateway: gateway.parse().unwrap(),
            interface: *interface,
        });
        self.desired.set_members(&key, members.collect());
        self
    }

    fn others(mut self, to: &str, metric: u32, ways: &[(Option<&str>, u32)]) -> Self {
        self.underlay.add(&others(to, metric, ways), false);
        self
    }

    /// Where packets to a next hop go, or why nowhere.
    fn reach(&self, address: &str) -> String {
        let topology = topology();
        let reach = Reach {
            topology: &topology,
            underlay: &self.underlay,
            desired: &self.desired,
            lost: &self.lost,
        };
        match reach.resolve(&next_hop(address)) {
            Ok(hops) => {
                let hops = hops.iter();
                let hops = hops.map(|hop| format!("{} on {}", hop.gateway, hop.interface));
                hops.collect::<Vec<_>>().join(", ")
            }
            Err(why) => why.to_string(),
        }
    }
}

#[test]
fn a_next_hop_that_is_on_no_link_is_where_the_longest_route_to_it_leads() {
    let world = World::default()
        .ours(
            "10.250.0.7/32",
            &["10.0.1.2", "10.0.2.2"],
            &[("10.0.1.2", 1), ("10.0.2.2", 2)],
        )
        .ours("10.251.0.0/16", &["10.0.1.2"], &[("10.0.1.2", 1)])
        .others("10.251.7.0/24", 0, &[(Some("10.0.2.9"), 2)])
        .others("10.252.0.0/16", 0, &[(None, 2)])
        .others(
            "10.253.0.0/16",
            0,
            &[(Some("10.0.1.8"), 1), (Some("10.0.3.8"), 3)],
        )
        .others("0.0.0.0/0", 100, &[(Some("10.0.1.1"), 1)])
        .others("0.0.0.0/0", 50, &[(Some("10.0.1.254"), 1)]);
    for (address, expected) in [
        ("10.0.1.2", "10.0.1.2 on 1"),
        ("10.250.0.7", "10.0.1.2 on 1, 10.0.2.2 on 2"),
        ("10.251.1.1", "10.0.1.2 on 1"),
        ("10.251.7.1", "10.0.2.9 on 2"),
        ("10.252.0.1", "10.252.0.1 on 2"),
        // Of two ways that whose link works.
        ("10.253.0.1", "10.0.1.8 on 1"),
        ("192.0.2.1", "10.0.1.254 on 1"),
        ("10.0.3.2", "10.0.3.2 is on up3, which is down"),
        ("2001:db8::1", "no route leads there"),
    ] {
        let got = world.reach(address);
        assert!(got.contains(expected), "{address}: {got}");
    }
}

#[test]
fn of_routes_to_the_same_prefix_the_one_with_the_lower_metric_leads() {
    for (metric, expected) in [(511, "10.0.2.9 on 2"), (512, "10.0.1.2 on 1")] {
        let world = World::default()
            .ours("10.250.0.0/16", &["10.0.1.2"], &[("10.0.1.2", 1)])
            .others("10.250.0.0/16", metric, &[(Some("10.0.2.9"), 2)]);
        assert_eq!(world.reach("10.250.0.1"), expected);
    }
}

#[test]
fn routes_that_lead_nowhere_now_or_to_next_hops_further_away_carry_none() {
    let default = |world: World| world.others("0.0.0.0/0", 0, &[(Some("10.0.2.9"), 2)]);
    let far = World::default().ours("10.250.0.0/16", &["10.250.0.1"], &[("10.0.1.2", 1)]);
    assert!(far.reach("10.250.0.1").contains("no route leads there"));
    assert_eq!(default(far).reach("10.250.0.1"), "10.0.2.9 on 2");
    let unusable = World::default().ours("10.250.0.0/16", &["10.0.1.2"], &[]);
    assert_eq!(default(unusable).reach("10.250.0.1"), "10.0.2.9 on 2");
    let down = World::default().others("10.250.0.0/16", 0, &[(Some("10.0.3.2"), 3)]);
    assert_eq!(default(down).reach("10.250.0.1"), "10.0.2.9 on 2");
}

#[test]
fn where_the_longest_route_drops_packets_a_next_hop_cannot_be_used() {
    let default = |world: World| world.others("0.0.0.0/0", 0, &[(Some("10.0.2.9"), 2)]);
    for world in [
        World::default().ours("10.250.0.0/16", &[], &[]),
        World::default().others("10.250.0.0/16", 0, &[]),
    ] {
        let got = default(world).reach("10.250.0.1");
        assert!(
            got.contains("dropped by the route to 10.250.0.0/16"),
            "{got}"
        );
    }
}

#[test]
fn a_next_hop_that_the_speaker_calls_lost_is_lost_whatever_leads_there() {
    let mut world = World::default().others("0.0.0.0/0", 0, &[(Some("10.0.2.9"), 2)]);
    world.lost.insert(Way::of(&next_hop("10.250.0.1")));
    assert!(world.reach("10.250.0.1").contains("are lost"));
    assert_eq!(world.reach("10.250.0.2"), "10.0.2.9 on 2");
}

#[test]
fn routes_of_others_are_joined_replaced_and_taken_away_way_by_way() {
    let (a, b) = ((Some("10.0.1.2"), 1), (Some("10.0.2.2"), 2));
    let to = "10.250.0.0/16";
    let mut world = World::default().others(to, 0, &[a]).others(to, 0, &[b]);
    assert_eq!(world.reach("10.250.0.1"), "10.0.1.2 on 1, 10.0.2.2 on 2");
    world.underlay.add(&others(to, 0, &[b]), true);
    assert_eq!(world.reach("10.250.0.1"), "10.0.2.2 on 2");
    world.underlay.add(&others(to, 0, &[a, b]), false);
    world.underlay.remove(&others(to, 0, &[b]));
    assert_eq!(world.reach("10.250.0.1"), "10.0.1.2 on 1");
    world.underlay.remove(&others(to, 7, &[a]));
    world.underlay.remove(&others(to, 0, &[a]));
    assert!(world.underlay.routes.is_empty());
    world.underlay.add(&others(to, 0, &[]), false);
    world.underlay.remove(&others(to, 0, &[]));
    assert!(world.underlay.routes.is_empty(), "one without ways as well");
}
