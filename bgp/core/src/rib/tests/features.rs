//! What peers may configure beyond the plain protocol, one behaviour each.

use super::*;
use crate::policy::{
    Action as PolicyAction, Amendment, Condition, Operation, PrefixSet, Rule, Verdict,
};
use crate::role::Leak;
use crate::types::BgpRole;

fn with_peer(peer: u32, change: impl FnOnce(&mut PeerPolicy)) -> RibConfig {
    let mut config = config();
    change(config.peers.get_mut(&PeerIndex(peer)).unwrap());
    config
}

fn rejection(world: &World, prefix: Prefix) -> Option<Rejection> {
    let route = world.rib.routes(Some(prefix)).remove(0);
    route.paths[0].rejected.clone()
}

#[test]
fn only_a_route_server_may_leave_its_own_as_out_of_paths() {
    for (role, path, usable) in [
        (Some(BgpRole::RouteServerClient), vec![Asn(7)], true),
        (Some(BgpRole::RouteServerClient), vec![], false),
        (Some(BgpRole::Customer), vec![Asn(7)], false),
        (None, vec![Asn(7)], false),
    ] {
        let mut world = World::new(config(), None);
        let terms = Negotiated {
            role,
            ..negotiated(0)
        };
        world.up_with(0, terms);
        let mut update = announcement(0, &[prefix(1)], &[]);
        update.attributes.as_mut().unwrap().as_path = AsPath::new(path);
        world.tell(0, update);
        assert_eq!(world.fib.contains_key(&prefix(1)), usable, "{role:?}");
    }
}

// RFC 7911: `told_paths` of several that tie, in the order of preference.
#[test]
fn a_peer_is_told_as_many_paths_as_asked_for_and_the_best_of_them() {
    for (told_paths, expected) in [
        (Some(1), vec!["65001"]),
        (Some(2), vec!["65001", "65002 7"]),
        (Some(3), vec!["65001", "65002 7", "8 8 8"]),
        (None, vec!["65001", "65002 7", "8 8 8"]),
    ] {
        let mut world = World::new(with_peer(2, |peer| peer.told_paths[0] = told_paths), None);
        for (peer, hops) in [(3, &[8, 8, 8][..]), (1, &[7]), (0, &[])] {
            world.up(peer);
            world.tell(peer, announcement(peer, &[prefix(1)], hops));
        }
        let mut terms = negotiated(2);
        terms.add_path.send = FamilySet::ALL;
        world.up_with(2, terms);
        world.answer_all();
        let context = DecodeContext {
            add_path: FamilySet::ALL,
            ..DecodeContext::new(PeerKind::Internal)
        };
        let mut told = BTreeMap::new();
        while let Some(octets) = world.rib.pull(world.now, world.sessions[&2], 100) {
            let mut stream = BytesMut::from(&octets[..]);
            while let Some(frame) = wire::frame(&mut stream, wire::MAX_MESSAGE_LEN).unwrap() {
                let UpdateOutcome::Valid(update) = wire::decode_update(&frame.body, &context)
                else {
                    panic!("we sent an invalid UPDATE");
                };
                for nlri in update.reach.iter().flat_map(|reach| &reach.nlri) {
                    let path = update.attributes.as_ref().unwrap().as_path.to_string();
                    told.insert(*nlri, path);
                }
            }
        }
        let mut paths: Vec<String> = told
            .into_iter()
            .filter(|(nlri, _)| nlri.prefix == prefix(1))
            .map(|(_, path)| path)
            .collect();
        paths.sort();
        assert_eq!(paths, expected, "{told_paths:?}");
    }
}

#[test]
fn too_many_prefixes_are_warned_of_once_and_then_end_the_session_once() {
    let limit = MaxPrefixes {
        limit: 3,
        warn_at: 2,
        terminates: true,
    };
    let mut world = World::new(
        with_peer(0, |peer| peer.max_prefixes[0] = Some(limit)),
        None,
    );
    world.up(0);
    let mut seen = Vec::new();
    for number in 0..5 {
        world.tell(0, announcement(0, &[prefix(number)], &[]));
        seen.push(world.limits.clone());
    }
    assert_eq!(
        seen,
        [
            vec![],
            vec![false],
            vec![false],
            vec![false, true],
            vec![false, true]
        ]
    );
    world.up(0);
    world.tell(0, announcement(0, &[prefix(0), prefix(1)], &[]));
    assert_eq!(
        world.limits,
        [false, true, false],
        "a new session counts anew"
    );
}

#[test]
fn changed_limits_are_held_against_what_is_there_already() {
    let low = MaxPrefixes {
        limit: 1,
        warn_at: 1,
        terminates: false,
    };
    let high = MaxPrefixes {
        limit: 9,
        warn_at: 9,
        ..low
    };
    let deadly = MaxPrefixes {
        terminates: true,
        ..low
    };
    let cases = [
        ("none", None, Some(low), vec![true]),
        ("another limit", Some(high), Some(low), vec![true]),
        ("what follows", Some(low), Some(deadly), vec![true]),
        ("nothing", Some(low), Some(low), vec![]),
        ("it is gone", Some(low), None, vec![]),
    ];
    for (case, before, after, said) in cases {
        let limited = |limit| with_peer(0, |peer| peer.max_prefixes[0] = limit);
        let mut world = World::new(limited(before), None);
        world.up(0);
        world.tell(0, announcement(0, &[prefix(0), prefix(1)], &[]));
        world.limits.clear();
        world.handle(Event::Configure(limited(after)));
        assert_eq!(world.limits, said, "changed: {case}");
    }
}

#[test]
fn the_highest_limit_that_there_is_is_never_exceeded() {
    let limit = MaxPrefixes {
        limit: u32::MAX,
        warn_at: u32::MAX,
        terminates: true,
    };
    let limited = with_peer(0, |peer| peer.max_prefixes[0] = Some(limit));
    let mut world = World::new(limited, None);
    world.up(0);
    world.tell(0, announcement(0, &[prefix(0)], &[]));
    assert_eq!(world.limits, []);
}

#[test]
fn several_paths_to_one_prefix_count_each() {
    let limit = MaxPrefixes {
        limit: 2,
        warn_at: 2,
        terminates: true,
    };
    let limited = with_peer(0, |peer| peer.max_prefixes[0] = Some(limit));
    let mut world = World::new(limited, None);
    world.up(0);
    let mut seen = Vec::new();
    for id in [1, 2, 2, 3] {
        let mut update = announcement(0, &[prefix(0)], &[]);
        update.reach[0].nlri[0].id = PathId(id);
        world.tell(0, update);
        seen.push(world.limits.clone());
    }
    assert_eq!(seen, [vec![], vec![false], vec![false], vec![false, true]]);
}

#[test]
fn a_node_cannot_announce_the_block_of_another_nor_a_part_of_it() {
    let owner = |node: &str, router, stale| BlockOwner {
        node: node.into(),
        addresses: Vec::new(),
        routers: vec![RouterId(router)],
        stale,
    };
    let blocks = [
        (prefix(1), owner("n102", 102, false)),
        (prefix(2), owner("n103", 103, false)),
        (prefix(3), owner("n103", 103, true)),
    ];
    let mut checked = with_peer(2, |peer| peer.validate_origin = OriginCheck::Direct);
    checked.blocks = Arc::new(blocks.into_iter().collect());
    let mut world = World::new(checked.clone(), None);
    world.up(2);
    let part: Prefix = "10.2.128.0/26".parse().unwrap();
    for told in [prefix(1), prefix(2), part, prefix(3), prefix(4)] {
        world.tell(2, announcement(2, &[told], &[]));
    }
    let foreign = Some(Rejection::ForeignBlock {
        block: prefix(2),
        owner: "n103".into(),
        originator: RouterId(102),
    });
    let expected = [
        (prefix(1), None, OriginValidity::Valid),
        (prefix(2), foreign.clone(), OriginValidity::Foreign),
        (part, foreign, OriginValidity::Foreign),
        (prefix(3), None, OriginValidity::Stale),
        (prefix(4), None, OriginValidity::Unknown),
    ];
    for (prefix, rejected, validity) in expected {
        let route = world.rib.covering(&prefix).unwrap();
        let path = &route.paths[0];
        assert_eq!((route.prefix, &path.rejected), (prefix, &rejected));
        assert_eq!(path.validity, validity, "{prefix}");
        assert_eq!(world.fib.contains_key(&prefix), rejected.is_none());
    }
    // It does not help to name somebody else as the originator.
    let mut reflected = announcement(2, &[prefix(2)], &[]);
    reflected.attributes.as_mut().unwrap().originator_id = Some(RouterId(103));
    world.tell(2, reflected);
    assert!(rejection(&world, prefix(2)).is_some());
    // Where the holder may still speak for itself, its word counts for more.
    let stale = prefix(3);
    checked
        .peers
        .get_mut(&PeerIndex(3))
        .unwrap()
        .validate_origin = OriginCheck::Direct;
    world.handle(Event::Configure(checked.clone()));
    world.up(3);
    world.tell(3, announcement(3, &[stale], &[]));
    let sources = |world: &World| {
        let route = world.rib.covering(&stale).unwrap();
        let selection = route.selection.unwrap();
        let source = |path: &usize| route.paths[*path].path.source.index().unwrap();
        selection.multipath.iter().map(source).collect::<Vec<_>>()
    };
    assert_eq!(sources(&world), [PeerIndex(3)]);
    // And no longer once the block is nobody's.
    let mut free = checked.clone();
    free.blocks = Arc::default();
    world.handle(Event::Configure(free));
    assert!(sources(&world).contains(&PeerIndex(2)));
    world.handle(Event::Configure(checked.clone()));
    assert_eq!(sources(&world), [PeerIndex(3)]);

    // Of a reflector it is believed.
    let peer = checked.peers.get_mut(&PeerIndex(2)).unwrap();
    peer.validate_origin = OriginCheck::Relayed;
    world.handle(Event::Configure(checked.clone()));
    assert_eq!(rejection(&world, prefix(2)), None);
    // The block changes hands: what was accepted is judged again.
    checked.blocks = Arc::new([(prefix(1), owner("n9", 9, false))].into_iter().collect());
    world.handle(Event::Configure(checked));
    assert!(!world.fib.contains_key(&prefix(1)));
}

#[test]
fn an_external_peer_without_a_policy_exchanges_nothing_and_says_so() {
    let none = || Arc::new(Policy::not_configured());
    let mut world = World::new(
        with_peer(0, |peer| (peer.import, peer.export) = (none(), none())),
        None,
    );
    world.up(0);
    world.tell(0, announcement(0, &[prefix(1)], &[]));
    world.pull_all();
    let why = rejection(&world, prefix(1)).unwrap().to_string();
    assert!(why.contains("no policy is configured (RFC 8212)"), "{why}");
    assert!(!world.believes(0, prefix(7)));
    let told = world.rib.told(&prefix(7)).remove(0).1.unwrap_err();
    assert!(told.to_string().contains("RFC 8212"), "{told}");
    world.handle(Event::Configure(config()));
    world.pull_all();
    assert!(world.fib.contains_key(&prefix(1)));
    assert!(world.believes(0, prefix(7)));
}

#[test]
fn our_own_as_may_stand_in_a_path_as_often_as_allowed() {
    let mut world = World::new(with_peer(0, |peer| peer.allowed_own_as = 1), None);
    world.up(0);
    world.tell(0, announcement(0, &[prefix(1)], &[65_000]));
    world.tell(0, announcement(0, &[prefix(2)], &[65_000, 65_000]));
    assert_eq!(rejection(&world, prefix(1)), None);
    assert_eq!(rejection(&world, prefix(2)), Some(Rejection::AsLoop));
}

#[test]
fn a_session_with_an_as_of_its_own_shows_that_one_alone_and_knows_both() {
    let local = Asn(64_999);
    let mut world = World::new(with_peer(0, |peer| peer.local_asn = Some(local)), None);
    world.up_with(
        0,
        Negotiated {
            local_asn: local,
            ..negotiated(0)
        },
    );
    world.pull_all();
    let (attributes, _) = &world.believed[&0][&prefix(7)];
    assert_eq!(attributes.as_path.to_string(), "64999");
    for (number, looped) in [(1, 64_999), (2, 65_000)] {
        world.tell(0, announcement(0, &[prefix(number)], &[looped]));
        assert_eq!(rejection(&world, prefix(number)), Some(Rejection::AsLoop));
    }
}

#[test]
fn graceful_shutdown_is_the_lowest_preference_on_the_way_in_and_a_community_on_the_way_out() {
    let honouring = |peer: &mut PeerPolicy| {
        let honour = Amendment::honour_graceful_shutdown();
        peer.import = Arc::new(Policy::accept_all().amended(honour));
    };
    let mut world = World::new(with_peer(0, honouring), None);
    world.up(0);
    world.up(1);
    let leaving = announcement(0, &[prefix(1)], &[]);
    world.tell(
        0,
        with_communities(leaving, &[Community::GRACEFUL_SHUTDOWN]),
    );
    world.tell(1, announcement(1, &[prefix(1)], &[7, 7]));
    assert_eq!(
        world.fib[&prefix(1)][0].interface,
        Some(2),
        "the longer path"
    );
    world.pull_all();
    let draining = |peer: &mut PeerPolicy| {
        let drain = Amendment::drain_export(PeerKind::External);
        peer.export = Arc::new(Policy::accept_all().amended(drain));
    };
    world.handle(Event::Configure(with_peer(0, draining)));
    world.pull_all();
    let (attributes, _) = &world.believed[&0][&prefix(7)];
    assert!(
        attributes
            .communities
            .contains(&Community::GRACEFUL_SHUTDOWN)
    );
}

#[test]
fn rules_change_routes_on_the_way_in_and_out_each_prefix_by_its_own() {
    let within =
        |number| Condition::Prefix(PrefixSet::new(vec![PrefixMatch::exact(prefix(number))]));
    let accept = |operation| PolicyAction::Accept(vec![operation]);
    let change = |peer: &mut PeerPolicy| {
        let rules = vec![
            Rule::new(
                "prefer",
                vec![within(1)],
                accept(Operation::SetLocalPref(300)),
            ),
            Rule::new("drop", vec![within(2)], accept(Operation::Blackhole)),
            Rule::new("refuse", vec![within(3)], PolicyAction::Reject),
        ];
        peer.import = Arc::new(Policy::new(rules, Verdict::Accept));
    };
    let mut config = with_peer(0, change);
    let prepend = Rule::new(
        "prepend",
        vec![within(1)],
        accept(Operation::Prepend(vec![Asn(9)])),
    );
    config.peers.get_mut(&PeerIndex(1)).unwrap().export =
        Arc::new(Policy::new(vec![prepend], Verdict::Accept));
    let mut world = World::new(config, None);
    (0..3).for_each(|peer| world.up(peer));
    let told: Vec<Prefix> = (1..5).map(prefix).collect();
    world.tell(0, announcement(0, &told, &[]));
    world.answer_all();
    world.pull_all();
    let local_pref = |number| world.believed[&2][&prefix(number)].0.local_pref;
    assert_eq!((local_pref(1), local_pref(4)), (Some(300), Some(100)));
    assert!(
        world.fib[&prefix(2)].is_empty(),
        "a route that leads nowhere"
    );
    assert!(!world.believes(1, prefix(2)), "it stays in our AS");
    assert!(!world.fib.contains_key(&prefix(3)));
    let as_path = |number| world.believed[&1][&prefix(number)].0.as_path.to_string();
    assert_eq!(
        (as_path(1), as_path(4)),
        ("65000 9 65001".into(), "65000 65001".into())
    );
}

#[test]
fn private_ases_are_left_out_and_the_peers_own_is_replaced_where_asked() {
    let change = |peer: &mut PeerPolicy| {
        peer.export = Arc::default();
        peer.as_override = true;
        peer.private_as = PrivateAs::Remove;
    };
    let mut world = World::new(with_peer(1, change), None);
    world.up(0);
    world.up(1);
    world.tell(0, announcement(0, &[prefix(1)], &[3356, 65_002, 64_900]));
    world.answer_all();
    world.pull_all();
    let (attributes, _) = &world.believed[&1][&prefix(1)];
    assert_eq!(attributes.as_path.to_string(), "65000 3356 65000");
}

#[test]
fn routes_marked_for_customers_go_to_customers_and_come_from_providers_only() {
    let as_customer = |peer| Negotiated {
        role: Some(BgpRole::Customer),
        ..negotiated(peer)
    };
    let mut world = World::new(config(), None);
    world.up_with(0, as_customer(0));
    world.up_with(1, as_customer(1));
    world.tell(0, announcement(0, &[prefix(0)], &[]));
    world.answer_all();
    world.pull_all();
    let used = world.rib.covering(&prefix(0)).unwrap();
    let marked = used.paths[0].path.attributes.otc;
    assert_eq!(
        marked,
        Some(asn(0)),
        "our provider's routes are for customers"
    );
    let told = world.rib.told(&prefix(0));
    let leak = Leak::ToOthers { otc: asn(0) };
    assert!(
        told.contains(&(PeerIndex(1), Err(Withheld::Leak(leak)))),
        "{told:?}"
    );
    assert!(!world.believes(1, prefix(0)));

    let mut world = World::new(config(), None);
    let as_provider = Negotiated {
        role: Some(BgpRole::Provider),
        ..negotiated(0)
    };
    world.up_with(0, as_provider);
    let mut leaked = announcement(0, &[prefix(1)], &[]);
    leaked.attributes.as_mut().unwrap().otc = Some(Asn(7));
    world.tell(0, leaked);
    let leak = Leak::FromBelow { otc: Asn(7) };
    assert_eq!(rejection(&world, prefix(1)), Some(Rejection::Leak(leak)));
    world.pull_all();
    let (attributes, _) = &world.believed[&0][&prefix(7)];
    assert_eq!(
        attributes.otc,
        Some(US),
        "what a customer is told stays below it"
    );
}

#[test]
fn a_route_of_ours_alone_leads_where_it_says_and_nobody_is_told() {
    let gateway = NextHop::V4([172, 16, 9, 9].into());
    let mut config = config();
    config.statics.insert(prefix(8), gateway);
    let mut world = World::new(config.clone(), None);
    (0..3).for_each(|peer| world.up(peer));
    world.tell(0, announcement(0, &[prefix(8)], &[]));
    assert_eq!(world.fib[&prefix(8)][0].next_hop, gateway);
    world.answer_all();
    world.pull_all();
    assert!(world.believes(2, prefix(7)));
    assert!((0..3).all(|peer| !world.believes(peer, prefix(8))));
    // Without it, what was learnt counts.
    config.statics.clear();
    world.handle(Event::Configure(config));
    assert_eq!(world.fib[&prefix(8)][0].interface, Some(1));
    world.answer_all();
    world.pull_all();
    assert!(world.believes(2, prefix(8)));
}

#[test]
fn other_addresses_at_our_end_change_what_is_told_and_what_points_to_ourselves() {
    let mut world = World::new(config(), None);
    (0..2).for_each(|peer| world.up(peer));
    let new_self = Ipv4Addr::new(172, 16, 5, 5);
    let mut pointing = announcement(0, &[prefix(1)], &[]);
    pointing.reach[0].next_hop = NextHop::V4(new_self);
    world.tell(0, pointing);
    world.answer_all();
    world.pull_all();
    let told = |world: &World| world.believed[&0][&prefix(7)].1;
    let ends = |peer| Ends {
        local_v4: Some(new_self),
        ..ends(peer)
    };
    assert_eq!(told(&world), NextHop::V4([172, 16, 0, 0].into()));
    assert_eq!(rejection(&world, prefix(1)), None);
    let index = PeerIndex(0);
    world.handle(Event::Relocated {
        index,
        ends: ends(0),
    });
    world.pull_all();
    assert_eq!(told(&world), NextHop::V4(new_self));
    assert_eq!(rejection(&world, prefix(1)), Some(Rejection::OwnNextHop));
    assert!(!world.fib.contains_key(&prefix(1)));
}

#[test]
fn an_ipv6_address_at_our_end_means_something_to_sessions_that_can_name_it_only() {
    let ends = Ends {
        local_v6: Some(("2001:db8:5::5".parse().unwrap(), None)),
        subnets: vec!["2001:db8:5::/64".parse().unwrap()],
        ..ends(0)
    };
    for (families, extended, concerned) in [
        (vec![Family::Ipv4Unicast], false, false),
        (vec![Family::Ipv4Unicast], true, true),
        (Family::ALL.to_vec(), false, true),
    ] {
        let mut world = World::new(config(), None);
        world.up_with(
            0,
            Negotiated {
                families,
                extended_next_hop: extended,
                ..negotiated(0)
            },
        );
        world.tell(0, announcement(0, &[prefix(1)], &[]));
        world.pull_all();
        let (index, ends) = (PeerIndex(0), ends.clone());
        let mut out = Vec::new();
        let now = world.now;
        world
            .rib
            .handle(now, Event::Relocated { index, ends }, &mut out);
        assert_eq!(!out.is_empty(), concerned, "extended {extended}: {out:?}");
    }
}

#[test]
fn another_configured_next_hop_is_ourselves_at_once() {
    let mut world = World::new(config(), None);
    (0..2).for_each(|peer| world.up(peer));
    let new_self = Ipv4Addr::new(172, 16, 5, 5);
    let mut pointing = announcement(0, &[prefix(1)], &[]);
    pointing.reach[0].next_hop = NextHop::V4(new_self);
    world.tell(0, pointing);
    assert_eq!(rejection(&world, prefix(1)), None);
    let mut config = world.rib.config.clone();
    config.peers.get_mut(&PeerIndex(0)).unwrap().next_hop_v4 = Some(new_self);
    world.handle(Event::Configure(config));
    assert_eq!(rejection(&world, prefix(1)), Some(Rejection::OwnNextHop));
}

#[test]
fn a_way_that_another_peer_leads_too_is_not_a_peers_own() {
    let mut world = World::new(config(), None);
    (0..2).for_each(|peer| world.up(peer));
    world.tell(0, announcement(0, &[prefix(1)], &[]));
    let third = NextHop::V4([172, 16, 7, 7].into());
    for peer in 0..2 {
        let mut shared = announcement(peer, &[prefix(2)], &[]);
        shared.reach[0].next_hop = third;
        world.tell(peer, shared);
    }
    let own = |world: &World, peer| -> Vec<NextHop> {
        let ways = world.rib.ways_of(PeerIndex(peer));
        ways.iter().map(|way| way.next_hop).collect()
    };
    let only = NextHop::V4([172, 16, 1, 0].into());
    assert_eq!(own(&world, 0), [only]);
    assert_eq!(own(&world, 1), []);
    // A route of our own that leads there needs it as well.
    let mut config = world.rib.config.clone();
    config.statics.insert(prefix(9), only);
    world.handle(Event::Configure(config));
    assert_eq!(own(&world, 0), []);
}
