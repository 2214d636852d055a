//! One row per field: what its change costs.

use std::sync::Arc;
use std::time::Duration;

use caracal_bgp_core::policy::Policy;
use caracal_bgp_core::rib::NextHopMode;
use caracal_bgp_core::types::{Asn, Family, RouterId};

use super::Change;
use crate::config::{
    Activation, AddPath, AddPathSend, AoAlgorithm, AoKey, AoKeys, Auth, BfdConfig, BgpRole,
    BlockOwner, BmpStation, Endpoint, Lack, ListenConfig, MaxPrefixAction, MaxPrefixes, MrtDump,
    OnBfdFailure, OriginCheck, Origination, PeerAs, PeerConfig, PrivateAs, Secret, SpeakerConfig,
    Ttl,
};

fn peer() -> PeerConfig {
    PeerConfig::new("192.0.2.1:179".parse().unwrap(), Asn(65001))
}

fn cost(change: impl FnOnce(&mut PeerConfig)) -> Change {
    let mut to = peer();
    change(&mut to);
    assert_ne!(peer(), to, "the row changes nothing");
    let cost = peer().change(&to);
    assert_eq!(to.change(&peer()), cost, "both ways cost the same");
    cost
}

fn sending(send: AddPathSend) -> AddPath {
    AddPath {
        send,
        ..AddPath::default()
    }
}

// What OPEN says is the same.
#[test]
fn how_many_paths_a_peer_is_told_costs_no_session() {
    let mut all = peer();
    all.add_path = [(Family::Ipv4Unicast, sending(AddPathSend::All))].into();
    for best in [1, 4] {
        let mut some = peer();
        some.add_path = [(Family::Ipv4Unicast, sending(AddPathSend::Best(best)))].into();
        assert_eq!(all.change(&some), Change::REEXPORT);
        assert_eq!(some.change(&all), Change::REEXPORT);
    }
}

const SECOND: Duration = Duration::from_secs(1);

type Edit = fn(&mut PeerConfig);

#[test]
fn each_field_costs_what_its_meaning_asks_and_no_more() {
    let both = Change::REFRESH_IN.and(Change::REEXPORT);
    let rows: [(&str, Edit, Change); 40] = [
        ("description", |p| p.description = "x".into(), Change::LIVE),
        (
            "remote",
            |p| p.remote = Endpoint::Address("192.0.2.1:1790".parse().unwrap()),
            Change::NEW_SESSION,
        ),
        (
            "remote",
            |p| {
                p.remote = Endpoint::Interface {
                    name: "eth0".into(),
                    port: 179,
                }
            },
            Change::NEW_SESSION,
        ),
        (
            "local_address",
            |p| p.local_address = Some("192.0.2.2".parse().unwrap()),
            Change::NEW_SESSION,
        ),
        (
            "peer_as",
            |p| p.peer_as = PeerAs::External,
            Change::NEW_SESSION,
        ),
        (
            "local_asn",
            |p| p.local_asn = Some(Asn(1)),
            Change::NEW_SESSION,
        ),
        (
            "activation",
            |p| {
                p.activation = Activation::Down {
                    message: "x".into(),
                }
            },
            Change::NEW_SESSION,
        ),
        (
            "activation",
            |p| p.activation = held("x"),
            Change::NEW_SESSION,
        ),
        (
            "authentication",
            |p| p.authentication = md5("x"),
            Change::SOCKET,
        ),
        (
            "families",
            |p| p.families = vec![Family::Ipv4Unicast],
            Change::NEW_SESSION,
        ),
        (
            "add_path",
            |p| p.add_path = [(Family::Ipv4Unicast, sending(AddPathSend::All))].into(),
            Change::NEW_SESSION,
        ),
        (
            "extended_next_hop",
            |p| p.extended_next_hop = true,
            Change::NEW_SESSION,
        ),
        (
            "extended_messages",
            |p| p.extended_messages = false,
            Change::NEW_SESSION,
        ),
        (
            "hold_time",
            |p| p.hold_time = 9 * SECOND,
            Change::NEXT_SESSION,
        ),
        (
            "keepalive_time",
            |p| p.keepalive_time = Some(SECOND),
            Change::LIVE,
        ),
        (
            "connect_retry",
            |p| p.connect_retry = 5 * SECOND,
            Change::LIVE,
        ),
        (
            "send_hold_time",
            |p| p.send_hold_time = SECOND,
            Change::LIVE,
        ),
        ("passive", |p| p.passive = true, Change::LIVE),
        (
            "next_hop_mode",
            |p| p.next_hop_mode = NextHopMode::Keep,
            Change::REEXPORT,
        ),
        (
            "next_hop_v4",
            |p| p.next_hop_v4 = Some("192.0.2.2".parse().unwrap()),
            Change::REEXPORT,
        ),
        (
            "next_hop_v6",
            |p| p.next_hop_v6 = Some("fd00::1".parse().unwrap()),
            Change::REEXPORT,
        ),
        ("ttl", |p| p.ttl = Ttl::Security { hops: 1 }, Change::SOCKET),
        (
            "reachable_by",
            |p| p.reachable_by = Some("192.0.2.9".parse().unwrap()),
            Change::LIVE,
        ),
        ("bfd", |p| p.bfd = Some(bfd()), Change::LIVE),
        (
            "bfd.strict",
            |p| {
                p.bfd = Some(BfdConfig {
                    strict: true,
                    ..bfd()
                });
            },
            Change::NEXT_SESSION.and(Change::LIVE),
        ),
        (
            "graceful_restart",
            |p| p.graceful_restart = false,
            Change::NEW_SESSION,
        ),
        (
            "restart_time",
            |p| p.restart_time = Some(SECOND),
            Change::NEXT_SESSION,
        ),
        (
            "long_lived_stale_time",
            |p| p.long_lived_stale_time = Some(SECOND),
            Change::NEXT_SESSION,
        ),
        (
            "max_prefixes",
            |p| p.max_prefixes = [(Family::Ipv4Unicast, max_prefixes())].into(),
            Change::LIVE,
        ),
        (
            "allowed_local_as",
            |p| p.allowed_local_as = 1,
            Change::REFRESH_IN,
        ),
        ("as_override", |p| p.as_override = true, Change::REEXPORT),
        (
            "private_as",
            |p| p.private_as = PrivateAs::Remove,
            Change::REEXPORT,
        ),
        (
            "role",
            |p| p.role = Some(BgpRole::Customer),
            Change::NEW_SESSION,
        ),
        (
            "role_strict",
            |p| p.role_strict = true,
            Change::NEXT_SESSION,
        ),
        (
            "route_reflector_client",
            |p| p.route_reflector_client = true,
            both,
        ),
        ("cluster_id", |p| p.cluster_id = Some(RouterId(1)), both),
        (
            "import",
            |p| p.import = Arc::new(Policy::reject_all()),
            Change::REFRESH_IN,
        ),
        (
            "export",
            |p| p.export = Arc::new(Policy::reject_all()),
            Change::REEXPORT,
        ),
        (
            "validate_origin",
            |p| p.validate_origin = OriginCheck::Direct,
            Change::REFRESH_IN,
        ),
        (
            "draining",
            |p| p.draining = Some("a new switch".to_owned()),
            Change::LIVE,
        ),
    ];
    for (field, edit, expected) in rows {
        assert_eq!(cost(edit), expected, "{field}");
    }
}

fn md5(key: &str) -> Auth {
    Auth::Md5(Secret::new(key).unwrap())
}

fn bfd() -> BfdConfig {
    BfdConfig {
        transmit: SECOND,
        receive: SECOND,
        detect_multiplier: 3,
        multi_hop: None,
        strict: false,
        on_failure: OnBfdFailure::PreferFailover,
        password: None,
    }
}

fn max_prefixes() -> MaxPrefixes {
    MaxPrefixes {
        limit: 10,
        warning_percent: 75,
        action: MaxPrefixAction::Warn,
    }
}

fn keys(ids: &[(u8, &str)]) -> Auth {
    let key = |(id, secret): &(u8, &str)| {
        let secret = Secret::new(secret).unwrap();
        AoKey::new(*id, *id, AoAlgorithm::HmacSha1, secret)
    };
    Auth::Ao(AoKeys::new(ids.iter().map(key).collect()).unwrap())
}

#[test]
fn keys_rotate_under_a_living_session() {
    let one = || keys(&[(1, "a")]);
    let cases = [
        (md5("a"), md5("b"), Change::SOCKET),
        (Auth::None, md5("a"), Change::SOCKET),
        (md5("a"), Auth::None, Change::SOCKET),
        (md5("a"), one(), Change::NEW_SESSION),
        (one(), Auth::None, Change::NEW_SESSION),
        (one(), keys(&[(2, "b"), (1, "a")]), Change::SOCKET),
        // A number must not change its meaning while segments that bear it are under way.
        (one(), keys(&[(1, "b")]), Change::NEW_SESSION),
    ];
    for (from, to, expected) in cases {
        let with = |authentication: &Auth| PeerConfig {
            authentication: authentication.clone(),
            ..peer()
        };
        assert_eq!(with(&from).change(&with(&to)), expected, "{from:?} {to:?}");
    }
}

#[test]
fn a_range_that_grows_leaves_its_sessions_alone() {
    let range = |prefix: &str, limit| PeerConfig {
        remote: Endpoint::Range {
            prefixes: vec![prefix.parse().unwrap()],
            limit,
        },
        ..peer()
    };
    let change = range("10.0.0.0/9", 10).change(&range("10.0.0.0/8", 20));
    assert_eq!(change, Change::LIVE);
}

fn held(why: &str) -> Activation {
    Activation::Held {
        lack: Lack::Secret,
        why: why.into(),
    }
}

#[test]
fn what_is_down_stays_down_for_another_reason_at_no_cost() {
    let with = |activation| PeerConfig {
        activation,
        ..peer()
    };
    let held = with(held("a"));
    let down = with(Activation::Down {
        message: "b".into(),
    });
    assert_eq!(held.change(&down), Change::LIVE);
}

#[test]
fn costs_of_several_fields_add_up() {
    let cost = cost(|peer| {
        peer.import = Arc::new(Policy::reject_all());
        peer.hold_time = SECOND * 9;
    });
    assert!(cost.only(Change::REFRESH_IN.and(Change::NEXT_SESSION)));
    assert!(cost.includes(Change::REFRESH_IN) && !cost.includes(Change::NEW_SESSION));
    assert_eq!(peer().change(&peer()), Change::NONE);
}

#[test]
fn the_speakers_own_settings_reset_sessions_only_where_open_names_them() {
    let speaker = || SpeakerConfig::new(Asn(65000), RouterId(1));
    let both = Change::REFRESH_IN.and(Change::REEXPORT);
    type Edit = fn(&mut SpeakerConfig);
    let rows: [(&str, Edit, Change); 17] = [
        ("asn", |s| s.asn = Asn(1), Change::NEW_SESSION),
        (
            "router_id",
            |s| s.router_id = RouterId(2),
            Change::NEW_SESSION,
        ),
        ("cluster_id", |s| s.cluster_id = Some(RouterId(2)), both),
        (
            "listen",
            |s| {
                s.listen = Some(ListenConfig {
                    addrs: Vec::new(),
                    port: 1790,
                })
            },
            Change::LIVE,
        ),
        ("transit", |s| s.transit = true, Change::REEXPORT),
        ("maximum_paths", |s| s.maximum_paths = 1, Change::LIVE),
        (
            "multipath_relax",
            |s| s.multipath_relax = true,
            Change::LIVE,
        ),
        (
            "restart_time",
            |s| s.graceful_restart.restart_time = SECOND,
            Change::NEXT_SESSION,
        ),
        (
            "stale_time",
            |s| s.graceful_restart.stale_time = SECOND,
            Change::LIVE,
        ),
        (
            "selection_deferral",
            |s| s.graceful_restart.selection_deferral = SECOND,
            Change::LIVE,
        ),
        (
            "long_lived_stale_time",
            |s| s.graceful_restart.long_lived_stale_time = SECOND,
            Change::NEXT_SESSION,
        ),
        (
            "originate",
            |s| {
                let prefix = "10.0.0.0/8".parse().unwrap();
                s.originate.insert(prefix, Origination::default());
            },
            Change::LIVE,
        ),
        (
            "protected",
            |s| s.protected.push("10.0.0.0/8".parse().unwrap()),
            Change::REFRESH_IN,
        ),
        (
            "blocks",
            |s| {
                let owner = Arc::new(BlockOwner::default());
                s.blocks.push(("10.0.0.0/26".parse().unwrap(), owner));
            },
            Change::REFRESH_IN,
        ),
        (
            "ignored_interfaces",
            |s| {
                s.ignored_interfaces
                    .push(caracal_bgp_core::policy::InterfaceGlob::new("x"))
            },
            Change::REEXPORT.and(Change::LIVE),
        ),
        (
            "bmp",
            |s| {
                s.bmp.push(BmpStation {
                    address: "192.0.2.9:11019".parse().unwrap(),
                    routes: Vec::new(),
                    report_interval: Duration::from_secs(60),
                });
            },
            Change::LIVE,
        ),
        (
            "mrt",
            |s| {
                s.mrt = Some(MrtDump {
                    directory: "/x".into(),
                    updates: None,
                    tables: None,
                });
            },
            Change::LIVE,
        ),
    ];
    for (field, edit, expected) in rows {
        let mut to = speaker();
        edit(&mut to);
        assert_eq!(speaker().change(&to), expected, "{field}");
    }
}
