use super::*;
use crate::policy::{Action, NextHopTarget, Operation, Rule, Verdict};
use crate::rib::path::PeerIndex;
use crate::wire::{AsPath, ExtendedCommunity};

const US: Asn = Asn(65_000);

fn config(peer: PeerKind) -> EgressConfig {
    EgressConfig {
        local_asn: US,
        cluster_id: RouterId(100),
        peer,
        client: false,
        transit: true,
        families: FamilySet::ALL,
        next_hop_mode: NextHopMode::Auto,
        self_v4: Some([10, 0, 0, 0].into()),
        self_v6: Some((
            "2001:db8::".parse().unwrap(),
            Some("fe80::1".parse().unwrap()),
        )),
        subnets: vec!["10.0.0.0/31".parse().unwrap()],
        policy: Arc::default(),
        replaced_asn: None,

        role: None,
        private_as: PrivateAs::Keep,
        told_paths: [None; 2],
        long_lived: false,
        extended_next_hop: false,
        encode: EncodeContext::default(),
    }
}

fn learnt(internal: bool, client: bool) -> Path {
    Path {
        source: Source::Peer(Arc::new(PathPeer {
            index: PeerIndex(1),
            asn: if internal { US } else { Asn(65_001) },
            router_id: RouterId(7),
            address: [192, 0, 2, 1].into(),
            internal,
            client,

            role: None,
            interface: None,

            interface_name: None,
            own_v4: None,
            own_v6: None,
        })),
        attributes: Arc::new(PathAttributes {
            as_path: AsPath::new([Asn(65_001)]),
            med: Some(5),
            local_pref: internal.then_some(300),
            ..PathAttributes::default()
        }),
        blackhole: false,
        next_hop: Some(NextHop::V4([192, 0, 2, 1].into())),
        long_lived: false,
    }
}

fn own() -> Path {
    Path {
        source: Source::Local,
        attributes: Arc::default(),
        next_hop: None,
        ..learnt(false, false)
    }
}

fn prefix() -> Prefix {
    "10.244.0.0/26".parse().unwrap()
}

/// Tells every route with this next hop.
fn renaming(target: NextHopTarget) -> ExportPolicy {
    let name = Operation::SetNextHop(target);
    let rule = Rule::new("next hop", Vec::new(), Action::Accept(vec![name]));
    ExportPolicy::new(vec![rule], Verdict::Reject)
}

#[test]
fn external_peers_get_our_as_in_front_and_nothing_internal() {
    let mut path = learnt(true, true);
    let attributes = Arc::make_mut(&mut path.attributes);
    attributes.originator_id = Some(RouterId(3));
    attributes.cluster_list = [RouterId(4)].into();
    let told = export(&prefix(), &path, &config(PeerKind::External)).unwrap();
    assert_eq!(told.attributes.as_path.to_string(), "65000 65001");
    assert_eq!(told.attributes.local_pref, None);
    assert_eq!(told.attributes.med, None, "a neighbour's MED stays here");
    assert_eq!(told.attributes.originator_id, None);
    assert!(told.attributes.cluster_list.is_empty());
    assert_eq!(told.next_hop.addr().to_string(), "10.0.0.0");
}

#[test]
fn internal_peers_get_the_route_unchanged_with_a_local_preference() {
    let told = export(
        &prefix(),
        &learnt(false, false),
        &config(PeerKind::Internal),
    )
    .unwrap();
    assert_eq!(told.attributes.as_path.to_string(), "65001");
    assert_eq!(told.attributes.local_pref, Some(100));
    assert_eq!(told.attributes.med, Some(5));
    assert_eq!(told.next_hop.addr().to_string(), "192.0.2.1");
}

#[test]
fn reflection_names_the_originator_once_and_every_cluster() {
    let client = EgressConfig {
        client: true,
        ..config(PeerKind::Internal)
    };
    let told = export(&prefix(), &learnt(true, false), &client).unwrap();
    assert_eq!(told.attributes.originator_id, Some(RouterId(7)));
    assert_eq!(told.attributes.cluster_list[..], [RouterId(100)]);
    assert_eq!(told.attributes.local_pref, Some(300));
    let again = Path {
        attributes: Arc::new(told.attributes),
        ..learnt(true, true)
    };
    let told = export(&prefix(), &again, &config(PeerKind::Internal)).unwrap();
    assert_eq!(told.attributes.originator_id, Some(RouterId(7)));
    assert_eq!(told.attributes.cluster_list[..], [RouterId(100); 2]);
    assert_eq!(
        export(&prefix(), &learnt(true, false), &config(PeerKind::Internal)),
        Err(Withheld::NotReflected)
    );
}

#[test]
fn next_hops_follow_the_mode() {
    let internal = config(PeerKind::Internal);
    let external = config(PeerKind::External);
    let client = EgressConfig {
        client: true,
        ..config(PeerKind::Internal)
    };
    let on_link = Path {
        next_hop: Some(NextHop::V4([10, 0, 0, 1].into())),
        ..learnt(false, false)
    };
    let cases = [
        (
            "own, internal",
            own(),
            &internal,
            NextHopMode::Auto,
            "10.0.0.0",
        ),
        ("own, keep", own(), &internal, NextHopMode::Keep, "10.0.0.0"),
        (
            "learnt, internal",
            learnt(false, false),
            &internal,
            NextHopMode::Auto,
            "192.0.2.1",
        ),
        (
            "learnt, internal, self",
            learnt(false, false),
            &internal,
            NextHopMode::Self_,
            "10.0.0.0",
        ),
        (
            "reflected",
            learnt(true, false),
            &client,
            NextHopMode::Auto,
            "192.0.2.1",
        ),
        (
            "reflected, self",
            learnt(true, false),
            &client,
            NextHopMode::Self_,
            "10.0.0.0",
        ),
        (
            "external",
            learnt(false, false),
            &external,
            NextHopMode::Auto,
            "10.0.0.0",
        ),
        (
            "external, keep",
            learnt(false, false),
            &external,
            NextHopMode::Keep,
            "192.0.2.1",
        ),
        (
            "external, third party",
            on_link,
            &external,
            NextHopMode::Auto,
            "10.0.0.1",
        ),
    ];
    for (name, path, config, next_hop_mode, expected) in cases {
        let config = EgressConfig {
            next_hop_mode,
            ..config.clone()
        };
        let told = export(&prefix(), &path, &config).unwrap();
        assert_eq!(told.next_hop.addr().to_string(), expected, "{name}");
    }
}

#[test]
fn a_filter_names_no_next_hop_that_the_session_cannot_carry() {
    let v6 = |text: &str| NextHop::from(std::net::IpAddr::V6(text.parse().unwrap()));
    let v4: Prefix = prefix();
    let six: Prefix = "2001:db8:f::/64".parse().unwrap();
    let address = |text: &str| NextHopTarget::Address(text.parse().unwrap());
    let unreadable = Err(Withheld::UnreadableNextHop);
    let ipv4_hop = NextHop::V4([192, 0, 2, 1].into());
    let cases = [
        // RFC 8950 §4: only after both sides have said so.
        (
            v4,
            ipv4_hop,
            address("2001:db8::9"),
            true,
            Ok("2001:db8::9"),
        ),
        (
            v4,
            ipv4_hop,
            address("2001:db8::9"),
            false,
            unreadable.clone(),
        ),
        (v4, ipv4_hop, address("192.0.2.9"), false, Ok("192.0.2.9")),
        (
            six,
            v6("2001:db8::7"),
            address("192.0.2.9"),
            true,
            unreadable,
        ),
        // What cannot be left unchanged is replaced by ourselves, as where `Keep` says so.
        (
            v4,
            v6("2001:db8::7"),
            NextHopTarget::Unchanged,
            true,
            Ok("2001:db8::7"),
        ),
        (
            v4,
            v6("2001:db8::7"),
            NextHopTarget::Unchanged,
            false,
            Ok("10.0.0.0"),
        ),
        (
            v4,
            ipv4_hop,
            NextHopTarget::Unchanged,
            false,
            Ok("192.0.2.1"),
        ),
        (
            six,
            v6("2001:db8::7"),
            NextHopTarget::Unchanged,
            false,
            Ok("2001:db8::7"),
        ),
        (
            six,
            ipv4_hop,
            NextHopTarget::Unchanged,
            false,
            Ok("2001:db8::"),
        ),
        // RFC 2545 §3: a link-local address means something on its own link only.
        (
            six,
            v6("fe80::7"),
            NextHopTarget::Unchanged,
            false,
            Ok("2001:db8::"),
        ),
        (
            v4,
            v6("fe80::7"),
            NextHopTarget::Unchanged,
            true,
            Ok("10.0.0.0"),
        ),
    ];
    for (prefix, learnt_hop, target, extended_next_hop, expected) in cases {
        let path = Path {
            next_hop: Some(learnt_hop),
            ..learnt(false, false)
        };
        let config = EgressConfig {
            extended_next_hop,
            policy: Arc::new(renaming(target)),
            ..config(PeerKind::External)
        };
        let told = export(&prefix, &path, &config);
        let told = told.map(|told| told.next_hop.addr().to_string());
        assert_eq!(
            told,
            expected.map(str::to_owned),
            "{prefix} from {learnt_hop}, {target:?}, extended next hops: {extended_next_hop}"
        );
    }
}

#[test]
fn the_link_local_companion_of_a_learnt_next_hop_stays_on_its_link() {
    let told_with = NextHop::V6 {
        global: "2001:db8::7".parse().unwrap(),
        link_local: Some("fe80::7".parse().unwrap()),
    };
    let path = Path {
        next_hop: Some(told_with),
        ..learnt(false, false)
    };
    let config = EgressConfig {
        policy: Arc::new(renaming(NextHopTarget::Unchanged)),
        ..config(PeerKind::External)
    };
    let told = export(&"2001:db8:f::/64".parse().unwrap(), &path, &config).unwrap();
    assert_eq!(
        told.next_hop,
        NextHop::V6 {
            global: "2001:db8::7".parse().unwrap(),
            link_local: None,
        }
    );
}

#[test]
fn ipv6_routes_carry_the_global_and_the_link_local_address_of_the_link() {
    let prefix: Prefix = "2001:db8:f::/64".parse().unwrap();
    let told = export(&prefix, &own(), &config(PeerKind::External)).unwrap();
    assert_eq!(
        told.next_hop,
        NextHop::V6 {
            global: "2001:db8::".parse().unwrap(),
            link_local: Some("fe80::1".parse().unwrap()),
        }
    );
    let none = EgressConfig {
        self_v6: None,
        ..config(PeerKind::External)
    };
    assert_eq!(export(&prefix, &own(), &none), Err(Withheld::NoNextHop));
}

// RFC 4360 §6.
#[test]
fn extended_communities_that_are_not_transitive_stay_in_the_as() {
    let crosses = ExtendedCommunity([0x00, 2, 0xfd, 0xe8, 0, 0, 0, 1]);
    let stays = ExtendedCommunity([0x40, 4, 0xfd, 0xe8, 0, 0, 0, 1]);
    let mut path = learnt(false, false);
    let mut attributes = PathAttributes::clone(&path.attributes);
    attributes.edit_ext_communities(|communities| *communities = [crosses, stays].into());
    path.attributes = Arc::new(attributes);
    for (kind, told) in [
        (PeerKind::External, vec![crosses]),
        (PeerKind::Internal, vec![crosses, stays]),
    ] {
        let exported = export(&prefix(), &path, &config(kind)).unwrap();
        let seen = exported.attributes.ext_communities().to_vec();
        assert_eq!(seen, told, "{kind:?}");
    }
}

#[test]
fn well_known_communities_and_policies_are_honoured() {
    let with = |path: Path, community| Path {
        attributes: Arc::new(PathAttributes {
            communities: [community].into(),
            ..PathAttributes::clone(&path.attributes)
        }),
        ..path
    };
    let external = config(PeerKind::External);
    let internal = config(PeerKind::Internal);
    let learnt = learnt(false, false);
    let cases = [
        (with(learnt.clone(), Community::NO_EXPORT), &external, false),
        (with(learnt.clone(), Community::NO_EXPORT), &internal, true),
        (
            with(learnt.clone(), Community::NO_ADVERTISE),
            &internal,
            false,
        ),
        (
            with(learnt.clone(), Community::NO_ADVERTISE),
            &external,
            false,
        ),
        (
            with(learnt.clone(), Community::NO_EXPORT_SUBCONFED),
            &external,
            false,
        ),
        (
            with(learnt.clone(), Community::NO_EXPORT_SUBCONFED),
            &internal,
            true,
        ),
        (with(own(), Community::NO_EXPORT), &external, true),
    ];
    for (path, config, told) in cases {
        for prefix in [prefix(), "2001:db8:f::/64".parse().unwrap()] {
            let exported = export(&prefix, &path, config);
            assert_eq!(exported.is_ok(), told, "{prefix}, {path:?}");
        }
    }
    let no_transit = EgressConfig {
        transit: false,
        ..external.clone()
    };
    assert_eq!(
        export(&prefix(), &learnt, &no_transit),
        Err(Withheld::NoTransit)
    );
    assert!(export(&prefix(), &own(), &no_transit).is_ok());
    let closed = EgressConfig {
        policy: Arc::new(ExportPolicy::reject_all()),
        ..external
    };
    assert_eq!(
        export(&prefix(), &own(), &closed),
        Err(Withheld::Policy { rule: None })
    );
}
