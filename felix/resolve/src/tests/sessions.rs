//! What the fields of a BGPPeer mean for its session.

use super::*;
use caracal_bgp_core::types::RouterId;
use caracal_bgp_speaker::config::{
    Activation, AddPath, AddPathSend, BfdConfig, BgpRole, BmpRoutes, BmpStation, Change, Endpoint,
    MrtDump, OnBfdFailure, PrivateAs, Ttl,
};

/// A router in AS 65000 that passes routes on.
const ROUTER: &str = "
apiVersion: caracal.dev/v1alpha1
kind: BGPConfiguration
metadata: {name: default}
spec: {asNumber: 65000, routerID: 10.0.0.1, nodeToNodeMeshEnabled: false, transit: true}
";

fn with_peer(configuration: &str, spec: &str) -> Resolved {
    let peer = format!(
        "{configuration}\n---\napiVersion: caracal.dev/v1alpha1\nkind: BGPPeer\nmetadata: {{name: p}}\nspec: {{{spec}}}\n"
    );
    resolved(&peer, "r1", &[], &[])
}

/// The session of a BGPPeer with that specification, about which there is nothing to find.
fn session(spec: &str) -> PeerConfig {
    let resolved = with_peer(ROUTER, spec);
    assert_eq!(resolved.findings, [], "{spec}");
    peer(&resolved, "p").clone()
}

/// An eBGP peer with more fields.
fn external(fields: &str) -> PeerConfig {
    session(&format!("peerIP: 10.0.1.1, asNumber: 65001, {fields}"))
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_peer_is_an_address_an_interface_or_a_range() {
    let address = session("peerIP: 10.0.1.1, asNumber: 65001");
    assert_eq!(
        address.remote,
        Endpoint::Address("10.0.1.1:179".parse().unwrap())
    );
    assert!(!address.passive && !address.extended_next_hop);
    let unnumbered = session("interface: eth1, peerAS: External");
    let expected = Endpoint::Interface {
        name: "eth1".into(),
        port: 179,
    };
    assert_eq!(unnumbered.remote, expected);
    assert_eq!(unnumbered.peer_as, PeerAs::External);
    assert!(
        unnumbered.extended_next_hop,
        "there is no IPv4 address on the link"
    );
    let range = session("listenRange: [10.0.0.0/8], peerAS: Internal, listenLimit: 7");
    let expected = Endpoint::Range {
        prefixes: vec![prefix("10.0.0.0/8")],
        limit: 7,
    };
    assert_eq!(range.remote, expected);
    assert!(range.passive);
    assert_eq!(
        session("listenRange: [10.0.0.0/8], peerAS: Internal").remote,
        Endpoint::Range {
            prefixes: vec![prefix("10.0.0.0/8")],
            limit: 100,
        }
    );
}

#[test]
fn every_field_reaches_the_session() {
    type Check = fn(&PeerConfig) -> bool;
    let rows: [(&str, Check); 27] = [
        ("description: to the spine", |p| {
            p.description == "to the spine"
        }),
        ("localAddress: 10.0.1.0", |p| {
            p.local_address == Some("10.0.1.0".parse().unwrap())
        }),
        ("localASNumber: 65009", |p| p.local_asn == Some(Asn(65009))),
        ("localASNumber: 65000", |p| p.local_asn.is_none()),
        ("holdTime: 9s, keepaliveTime: 2s", |p| {
            (p.hold_time, p.keepalive_time) == (9 * SECOND, Some(2 * SECOND))
        }),
        ("connectRetryTime: 5s", |p| p.connect_retry == 5 * SECOND),
        ("sendHoldTime: 900s", |p| p.send_hold_time == 900 * SECOND),
        ("sendHoldTime: 0s", |p| p.send_hold_time.is_zero()),
        ("holdTime: 300s", |p| p.send_hold_time == 600 * SECOND),
        ("holdTime: 9s", |p| p.send_hold_time == 480 * SECOND),
        ("families: [ipv6-unicast]", |p| {
            p.families == [Family::Ipv6Unicast]
        }),
        ("extendedMessages: false", |p| !p.extended_messages),
        ("extendedNextHop: true", |p| p.extended_next_hop),
        ("ttlSecurity: 2", |p| p.ttl == Ttl::Security { hops: 2 }),
        ("ebgpMultiHop: 5", |p| p.ttl == Ttl::Send(5)),
        ("reachableBy: 10.0.1.254", |p| {
            p.reachable_by == Some("10.0.1.254".parse().unwrap())
        }),
        ("gracefulRestart: {enabled: false}", |p| !p.graceful_restart),
        (
            "gracefulRestart: {restartTime: 30s, longLivedStaleTime: 1h}",
            |p| {
                p.restart_time == Some(30 * SECOND)
                    && p.long_lived_stale_time == Some(3600 * SECOND)
            },
        ),
        ("maxRestartTime: 31s", |p| {
            p.restart_time == Some(31 * SECOND)
        }),
        ("numAllowedLocalASNumbers: 2", |p| p.allowed_local_as == 2),
        ("asOverride: true", |p| p.as_override),
        ("removePrivateAS: Replace", |p| {
            p.private_as == PrivateAs::Replace
        }),
        ("role: Provider, roleStrict: true", |p| {
            p.role == Some(BgpRole::Customer) && p.role_strict
        }),
        ("role: RouteServerClient", |p| {
            p.role == Some(BgpRole::RouteServer)
        }),
        ("adminDown: {message: moving}", |p| {
            p.activation
                == Activation::Down {
                    message: "moving".into(),
                }
        }),
        ("drain: true", |p| p.draining.is_some()),
        ("nextHopMode: Keep", |p| {
            p.next_hop_mode == NextHopMode::Keep
        }),
    ];
    for (fields, holds) in rows {
        let session = external(fields);
        assert!(holds(&session), "{fields}: {session:?}");
    }
}

#[test]
fn settings_by_family_are_kept_by_family() {
    let session = external(
        "addPath: [{family: ipv4-unicast, send: Best, sendCount: 2, receive: true}, {family: ipv6-unicast}], \
         maxPrefixes: [{family: ipv4-unicast, limit: 100, restartAfter: 60s}, {family: ipv6-unicast, limit: 5, warningPercent: 50, action: Warn}]",
    );
    let add_path = AddPath {
        send: AddPathSend::Best(2),
        receive: true,
    };
    assert_eq!(session.add_path, [(Family::Ipv4Unicast, add_path)].into());
    let v4 = MaxPrefixes {
        limit: 100,
        warning_percent: 75,
        action: MaxPrefixAction::Terminate {
            restart_after: Some(60 * SECOND),
        },
    };
    let v6 = MaxPrefixes {
        limit: 5,
        warning_percent: 50,
        action: MaxPrefixAction::Warn,
    };
    let expected = [(Family::Ipv4Unicast, v4), (Family::Ipv6Unicast, v6)];
    assert_eq!(session.max_prefixes, expected.into());
}

#[test]
fn a_peer_without_limits_is_warned_about_before_it_is_a_danger_and_never_cut_off() {
    let warns = |limit, warning_percent| MaxPrefixes {
        limit,
        warning_percent,
        action: MaxPrefixAction::Warn,
    };
    let ends = |limit| MaxPrefixes {
        action: MaxPrefixAction::Terminate {
            restart_after: None,
        },
        ..warns(limit, 75)
    };
    let default = warns(2_000_000, 75);
    // (IPv4, IPv6) by the entries of a peer.
    let rows = [
        ("", Some(default), Some(default)),
        (
            "{family: ipv4-unicast, limit: 9}",
            Some(ends(9)),
            Some(default),
        ),
        (
            "{family: ipv6-unicast, limit: 9, action: Warn, warningPercent: 50}",
            Some(default),
            Some(warns(9, 50)),
        ),
        ("{family: ipv4-unicast, action: None}", None, Some(default)),
        (
            "{family: ipv4-unicast, action: None}, {family: ipv6-unicast, action: None}",
            None,
            None,
        ),
    ];
    for (entries, v4, v6) in rows {
        // Of every kind of peer that a BGPPeer has.
        for peer in [
            "peerIP: 10.0.1.1, asNumber: 65001",
            "peerIP: 10.0.1.1, asNumber: 65000",
            "listenRange: [10.0.0.0/8], peerAS: External",
        ] {
            let session = session(&format!("{peer}, maxPrefixes: [{entries}]"));
            let found = Family::ALL.map(|family| session.max_prefixes.get(&family).copied());
            assert_eq!(found, [v4, v6], "{peer}: {entries}");
        }
    }
    // What changes of it costs no session.
    let change = external("").change(&external(
        "maxPrefixes: [{family: ipv4-unicast, action: None}]",
    ));
    assert_eq!(change, Change::LIVE);
}

#[test]
fn bfd_is_multi_hop_where_routers_may_stand_between() {
    let bfd = |fields: &str| {
        external(&format!("{fields}, bfd: {{}}"))
            .bfd
            .unwrap()
            .multi_hop
    };
    assert_eq!(bfd("passive: false"), None);
    assert_eq!(bfd("ebgpMultiHop: 3"), Some(1));
    assert_eq!(bfd("ttlSecurity: 1"), None);
    let internal = session("peerIP: 10.0.1.1, asNumber: 65000, bfd: {}")
        .bfd
        .unwrap();
    assert_eq!(internal.multi_hop, Some(1));
    let given = external(
        "bfd: {minimumTransmitInterval: 50ms, minimumReceiveInterval: 60ms, detectMultiplier: 5, multiHop: true, minimumTTL: 250, strict: true, onFailure: PreferRestart}",
    );
    let expected = BfdConfig {
        transmit: Duration::from_millis(50),
        receive: Duration::from_millis(60),
        detect_multiplier: 5,
        multi_hop: Some(250),
        strict: true,
        on_failure: OnBfdFailure::PreferRestart,
        password: None,
    };
    assert_eq!(given.bfd, Some(expected));
    assert_eq!(external("bfd: {enabled: false}").bfd, None);
}

#[test]
fn a_failure_of_bfd_is_one_of_the_path_unless_a_restart_is_preferred() {
    for (field, expected) in [
        ("", OnBfdFailure::PreferFailover),
        ("onFailure: PreferFailover", OnBfdFailure::PreferFailover),
        ("onFailure: PreferRestart", OnBfdFailure::PreferRestart),
    ] {
        let bfd = external(&format!("bfd: {{{field}}}")).bfd.unwrap();
        assert_eq!(bfd.on_failure, expected, "{field}");
    }
}

#[test]
fn the_configuration_gives_what_a_peer_leaves_out() {
    let configuration = ROUTER.replace(
        "transit: true",
        "transit: true, holdTime: 30s, keepaliveTime: 5s, sendHoldTime: 70s, connectRetryTime: 3s, \
         gracefulRestart: {enabled: false, longLivedStaleTime: 60s}, gracefulShutdown: {drain: true}, \
         ignoredInterfaces: [docker*], listenAddresses: [10.0.0.1], \
         bmp: [{address: 10.0.0.9, port: 11019, routes: [LocRib, PrePolicy], statisticsInterval: 30s}], \
         mrt: {directory: /var/lib/mrt, updates: true, tableInterval: 2h}",
    );
    let resolved = with_peer(&configuration, "peerIP: 10.0.1.1, asNumber: 65001");
    assert_eq!(resolved.findings, []);
    let session = peer(&resolved, "p");
    assert_eq!(session.hold_time, 30 * SECOND);
    assert_eq!(session.keepalive_time, Some(5 * SECOND));
    assert_eq!(session.send_hold_time, 70 * SECOND);
    assert_eq!(session.connect_retry, 3 * SECOND);
    assert!(!session.graceful_restart && session.draining.is_some());
    let config = &resolved.config;
    assert_eq!(config.graceful_restart.long_lived_stale_time, 60 * SECOND);
    assert_eq!(config.ignored_interfaces[0].to_string(), "docker*");
    let listen = config.listen.as_ref().unwrap();
    assert_eq!(listen.addrs, ["10.0.0.1".parse::<IpAddr>().unwrap()]);
    let station = BmpStation {
        address: "10.0.0.9:11019".parse().unwrap(),
        routes: vec![BmpRoutes::PrePolicy, BmpRoutes::LocRib],
        report_interval: 30 * SECOND,
    };
    assert_eq!(config.bmp, [station]);
    let dump = MrtDump {
        directory: "/var/lib/mrt".into(),
        updates: Some(900 * SECOND),
        tables: Some(7200 * SECOND),
    };
    assert_eq!(config.mrt, Some(dump));
}

#[test]
fn a_peer_may_be_offered_graceful_restart_alone_or_be_left_out() {
    let offered = |all: bool, one: &str| {
        let configuration = ROUTER.replace(
            "transit: true",
            &format!("transit: true, gracefulRestart: {{enabled: {all}}}"),
        );
        with_peer(
            &configuration,
            &format!("peerIP: 10.0.1.1, asNumber: 65001, gracefulRestart: {{{one}}}"),
        )
    };
    let rows = [
        (true, "", true),
        (true, "enabled: true", true),
        (true, "enabled: false", false),
        (false, "", false),
        (false, "enabled: true", true),
        (false, "enabled: false", false),
    ];
    for (all, one, expected) in rows {
        let resolved = offered(all, one);
        let session = peer(&resolved, "p");
        assert_eq!(session.graceful_restart, expected, "{all} {one:?}");
        // Only a session that follows the configuration is made anew with it.
        let other = offered(!all, one);
        let follows = session.needs_new_session(peer(&other, "p"));
        assert_eq!(follows, one.is_empty(), "{all} {one:?}");
        let speaker = resolved.config.change(&other.config);
        assert_eq!(speaker, Change::NONE, "{all} {one:?}");
    }
}

#[test]
fn what_makes_no_sense_together_is_found_and_not_done() {
    let rows = [
        ("peerIP: 10.0.1.1, asNumber: 65000, role: Peer", "spec.role"),
        (
            "peerIP: 10.0.1.1, asNumber: 65000, ebgpMultiHop: 2",
            "spec.ebgpMultiHop",
        ),
        (
            "peerIP: 10.0.1.1, asNumber: 65000, asOverride: true",
            "spec.asOverride",
        ),
        (
            "peerIP: 10.0.1.1, asNumber: 65000, removePrivateAS: Remove",
            "spec.removePrivateAS",
        ),
        (
            "peerIP: 10.0.1.1, asNumber: 65000, localASNumber: 5",
            "spec.localASNumber",
        ),
        (
            "peerIP: 10.0.1.1, asNumber: 65001, keepaliveTime: 300s",
            "spec.keepaliveTime",
        ),
        (
            "peerIP: 10.0.1.1, asNumber: 65001, sendHoldTime: 100s",
            "spec.sendHoldTime",
        ),
        (
            "peerIP: 10.0.1.1, asNumber: 65001, reachableBy: 'fd00::1'",
            "spec.reachableBy",
        ),
        (
            "interface: eth0, asNumber: 65001, reachableBy: 10.0.0.9",
            "spec.reachableBy",
        ),
        (
            "peerIP: 10.0.1.1, asNumber: 65001, sourceAddress: UseNodeIP",
            "spec.sourceAddress",
        ),
    ];
    for (spec, field) in rows {
        let resolved = with_peer(ROUTER, spec);
        let expected = ("BGPPeer p".to_owned(), field, reasons::INVALID_SPEC);
        assert_eq!(reasons_of(&resolved), [expected], "{spec}");
        let session = peer(&resolved, "p");
        assert_eq!(session.activation, Activation::Run, "{spec}");
        assert_eq!(session.role, None);
        assert_eq!(session.ttl, Ttl::Automatic);
        assert!(!session.as_override && session.private_as == PrivateAs::Keep);
        assert_eq!((session.local_asn, session.keepalive_time), (None, None));
        assert_eq!(session.send_hold_time, 480 * SECOND);
        assert_eq!((session.reachable_by, session.local_address), (None, None));
    }
}

#[test]
fn a_message_that_is_too_long_for_the_wire_keeps_its_beginning() {
    let long = "ü".repeat(200);
    let session = external(&format!("adminDown: {{message: {long}}}"));
    let Activation::Down { message } = session.activation else {
        panic!("{:?}", session.activation);
    };
    assert_eq!(message, "ü".repeat(127));
}

#[test]
fn the_node_ip_is_the_source_where_it_is_asked_for() {
    let text = CLUSTER.replace(
        "peerIP: 10.1.0.0, asNumber: 65001",
        "peerIP: 10.1.0.0, asNumber: 65001, sourceAddress: UseNodeIP",
    );
    let resolved = resolved(&text, "n1", &[], &[]);
    let expected: IpAddr = "10.0.0.1".parse().unwrap();
    assert_eq!(peer(&resolved, "tor-a1").local_address, Some(expected));
}

#[test]
fn peers_that_claim_the_same_are_found() {
    let second = |spec: &str| {
        let text = format!(
            "{ROUTER}
---
apiVersion: caracal.dev/v1alpha1
kind: BGPPeer
metadata: {{name: a}}
spec: {{{spec}}}
---
apiVersion: caracal.dev/v1alpha1
kind: BGPPeer
metadata: {{name: b}}
spec: {{{spec}}}
"
        );
        let resolved = resolved(&text, "r1", &[], &[]);
        let reasons: Vec<_> = reasons_of(&resolved)
            .into_iter()
            .map(|(object, field, reason)| format!("{object} {field} {reason}"))
            .collect();
        (
            names(&resolved)
                .into_iter()
                .map(str::to_owned)
                .collect::<Vec<_>>(),
            reasons,
        )
    };
    let (names, found) = second("interface: eth0, asNumber: 65001");
    assert_eq!(names, ["a"]);
    assert_eq!(found, ["BGPPeer b spec.interface ConflictingPeer"]);
    let (names, found) = second("listenRange: [10.0.0.0/8], peerAS: External");
    assert_eq!(names, ["a"]);
    assert_eq!(found, ["BGPPeer b spec.listenRange ConflictingPeer"]);
    let (names, found) = second("peerIP: 10.0.1.1, asNumber: 65001");
    assert_eq!(names, ["a"]);
    assert_eq!(found, ["BGPPeer b spec.peerIP DuplicatePeer"]);
}

#[test]
fn two_ports_of_one_address_are_two_peers_that_share_their_callers() {
    let text = format!(
        "{ROUTER}
---
apiVersion: caracal.dev/v1alpha1
kind: BGPPeer
metadata: {{name: a}}
spec: {{peerIP: '10.0.1.1:1790', asNumber: 65001}}
---
apiVersion: caracal.dev/v1alpha1
kind: BGPPeer
metadata: {{name: b}}
spec: {{peerIP: '10.0.1.1:1791', asNumber: 65001}}
"
    );
    let resolved = resolved(&text, "r1", &[], &[]);
    assert_eq!(names(&resolved), ["a", "b"]);
    let expected = (
        "BGPPeer b".to_owned(),
        "spec.peerIP",
        reasons::CONFLICTING_PEER,
    );
    assert_eq!(reasons_of(&resolved), [expected]);
}

#[test]
fn fields_that_nobody_acts_on_are_told() {
    let configuration = ROUTER.replace(
        "transit: true",
        "transit: true, serviceClusterIPs: [{cidr: 10.96.0.0/12}], serviceLoadBalancerAggregation: Enabled",
    );
    let resolved = with_peer(&configuration, "peerIP: 10.0.1.1, asNumber: 65001");
    let object = || "BGPConfiguration default".to_owned();
    let expected = [
        (object(), "spec.serviceClusterIPs", reasons::NOT_IMPLEMENTED),
        (
            object(),
            "spec.serviceLoadBalancerAggregation",
            reasons::NOT_IMPLEMENTED,
        ),
    ];
    assert_eq!(reasons_of(&resolved), expected);
}

#[test]
fn a_router_id_may_be_drawn_from_the_name() {
    let text = CLUSTER.replace("holdTime: 9s", "holdTime: 9s, routerID: hash");
    let (n1, n2) = (
        resolved(&text, "n1", &[], &[]),
        resolved(&text, "n2", &[], &[]),
    );
    assert_ne!(n1.config.router_id, n2.config.router_id);
    assert_ne!(n1.config.router_id, RouterId(0x0a00_0001));
    assert_eq!(n1.findings, []);
    let shared = CLUSTER.replace("holdTime: 9s", "holdTime: 9s, routerID: 10.0.0.9");
    let found = resolved_findings(&shared);
    assert_eq!(found, ["spec.routerID InvalidSpec"]);
}

fn resolved_findings(text: &str) -> Vec<String> {
    let resolved = resolved(text, "n1", &[], &[]);
    let found = resolved.findings.iter();
    found
        .map(|finding| format!("{} {}", finding.field, finding.reason))
        .collect()
}

#[test]
fn a_node_listens_on_its_own_addresses_where_asked_to() {
    let text = CLUSTER.replace("holdTime: 9s", "holdTime: 9s, bindMode: NodeIP");
    let listen = resolved(&text, "n1", &[], &[]).config.listen.unwrap();
    let expected: [IpAddr; 2] = ["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()];
    assert_eq!(listen.addrs, expected);
}
