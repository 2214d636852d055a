//! How each screen reads. What it shall look like stands in `snapshots/`.

use std::collections::BTreeMap;

use caracal_bfdd::proto::Reason;
use caracal_bgp_core::types::{Asn, Family, RouterId};
use caracal_bgp_speaker::api::RoutesView;
use caracal_bgp_speaker::snapshot::{
    BfdSnapshot, ErrorSnapshot, Explanation, FamilySnapshot, FibCountSnapshot, FibSnapshot,
    KernelNextHop, KernelRoute, KernelSnapshot, PathSnapshot, PeerDetail, PeerRoutesSnapshot,
    PeerSnapshot, PolicyTrace, RangeSnapshot, RejectedSnapshot, RibSnapshot, RouteSnapshot,
    SessionState, SpeakerSnapshot, StationSnapshot, TermsSnapshot, ToldSnapshot,
};
use caracal_bgp_speaker::status::{
    CounterSnapshot, Direction, DownReason, EventRecord, FlapReason, HistorySnapshot,
    MessageCounts, MessageRecord, Why,
};
use insta::assert_snapshot;

use super::routes::Screen;
use super::{explain, history, peers};

/// 2026-11-25 12:00:00 UTC.
const NOW: u64 = 1_795_608_000_000;
const MINUTE: u64 = 60_000;

fn peer(name: &str, asn: u32) -> PeerSnapshot {
    PeerSnapshot {
        name: name.to_owned(),
        description: String::new(),
        endpoint: "10.0.1.1:179".to_owned(),
        range: None,
        remote: Some("10.0.1.1:179".parse().unwrap()),
        local_address: Some("10.0.1.0".parse().unwrap()),
        interface: Some("eth1".to_owned()),
        asn: Some(Asn(asn)),
        local_asn: Asn(65_000),
        internal: asn == 65_000,
        router_id: None,
        authentication: "none".to_owned(),
        admin_enabled: true,
        draining: None,
        state: SessionState::Active,
        since_ms: NOW - 42_000,
        why: None,
        why_ms: NOW - 42_000,
        attempts: 0,
        last_sent_error: None,
        last_received_error: None,
        established_count: 0,
        terms: None,
        bfd: None,
        link_trouble: None,
        no_import_policy: Vec::new(),
        no_export_policy: Vec::new(),
        counters: CounterSnapshot::default(),
        routes: Some(PeerRoutesSnapshot::default()),
    }
}

fn why(reason: DownReason, text: &str) -> Option<Why> {
    let text = text.to_owned();
    Some(Why { reason, text })
}

fn family(family: Family, received: usize, accepted: usize) -> FamilySnapshot {
    FamilySnapshot {
        family,
        received,
        accepted,
        stale: 0,
        advertised: 4,
        end_of_rib_received: true,
        end_of_rib_sent: true,
    }
}

fn up(name: &str) -> PeerSnapshot {
    PeerSnapshot {
        state: SessionState::Established,
        since_ms: NOW - 76 * 60 * MINUTE,
        established_count: 2,
        why: None,
        routes: Some(PeerRoutesSnapshot {
            untold: 0,
            families: vec![
                family(Family::Ipv4Unicast, 14, 12),
                family(Family::Ipv6Unicast, 3, 3),
            ],
        }),
        ..peer(name, 65_001)
    }
}

fn station(address: &str) -> StationSnapshot {
    StationSnapshot {
        address: address.parse().unwrap(),
        connected: false,
        synchronised: false,
        since_ms: NOW - 90_000,
        why: String::new(),
        connections: 1,
        octets_sent: 4096,
    }
}

#[test]
fn sessions_stand_in_lines_with_the_reason_where_one_is_down() {
    let mut stale = up("tor3");
    stale.routes.as_mut().unwrap().families[0].stale = 5;
    stale.draining = Some("the node is cordoned".to_owned());
    let mut dead_path = up("tor4");
    dead_path.bfd = Some(BfdSnapshot {
        state: "Down".to_owned(),
        reason: Reason::DetectionTimeExpired.to_string(),
        ..BfdSnapshot::default()
    });
    let mut unknown = peer("unnumbered", 65_009);
    (unknown.remote, unknown.asn) = (None, None);
    unknown.state = SessionState::Idle;
    unknown.why = why(
        DownReason::PeerNotFound,
        "eth2: no router has been heard on the link",
    );
    let mut speaker = SpeakerSnapshot {
        asn: Asn(65_000),
        router_id: RouterId(1),
        rib: Some(RibSnapshot {
            deferring: true,
            prefixes: 20,
            fib: vec![FibCountSnapshot {
                family: Family::Ipv4Unicast,
                pending: 0,
                installed: 12,
                failed: 1,
                best_path_changes: 14,
            }],
        }),
        forwarding: None,
        channels: Vec::new(),
        peers: vec![
            up("tor1"),
            PeerSnapshot {
                why: why(DownReason::ConnectTimeout, "connection timed out"),
                attempts: 6,
                link_trouble: Some("link eth2 has no carrier".to_owned()),
                ..peer("tor2", 65_002)
            },
            PeerSnapshot {
                why: why(DownReason::ConnectionRefused, "connection refused"),
                attempts: 1,
                last_received_error: Some(ErrorSnapshot {
                    at_ms: NOW - MINUTE,
                    text: "cease: administrative shutdown (\"moving house\")".to_owned(),
                }),
                ..peer("tor5", 65_005)
            },
            PeerSnapshot {
                why: why(
                    DownReason::HoldTimerExpired,
                    "hold timer expired: nothing was received",
                ),
                last_sent_error: Some(ErrorSnapshot {
                    at_ms: NOW - 42_000,
                    text: "hold timer expired".to_owned(),
                }),
                ..peer("tor6", 65_006)
            },
            PeerSnapshot {
                no_import_policy: vec![Family::Ipv4Unicast],
                no_export_policy: vec![Family::Ipv4Unicast],
                ..up("tor7")
            },
            stale,
            dead_path,
            unknown,
        ],
        ranges: vec![RangeSnapshot {
            name: "pods".to_owned(),
            prefixes: vec!["10.9.0.0/16".to_owned()],
            limit: 100,
            used: 3,
        }],
        stations: vec![
            StationSnapshot {
                connected: true,
                synchronised: true,
                ..station("192.0.2.9:5000")
            },
            StationSnapshot {
                why: "connection refused".to_owned(),
                ..station("192.0.2.10:5000")
            },
        ],
    };
    assert_snapshot!("peers", peers::all(&speaker, NOW));
    // What was not counted is not shown as zero.
    speaker.rib = None;
    speaker.peers.truncate(1);
    speaker.peers[0].routes = None;
    let text = peers::all(&speaker, NOW);
    let row = text.lines().find(|line| line.contains("tor1"));
    let cells: Vec<&str> = row.unwrap().split_whitespace().collect();
    assert!(cells.ends_with(&["-", "-", "-"]), "{text}");
    assert!(text.contains("too busy to be counted"), "{text}");
}

#[test]
fn one_session_is_told_in_full() {
    let mut peer = up("tor1");
    peer.description = "rack a, left".to_owned();
    peer.router_id = Some("10.0.0.1".to_owned());
    peer.authentication = "tcp-ao".to_owned();
    peer.last_received_error = Some(ErrorSnapshot {
        at_ms: NOW - 77 * 60 * MINUTE,
        text: "cease: administrative shutdown (\"moving house\")".to_owned(),
    });
    peer.terms = Some(TermsSnapshot {
        hold_time_secs: 90,
        keepalive_secs: 30,
        route_refresh: true,
        enhanced_route_refresh: true,
        four_octet_as: true,
        longest_message: 65_535,
        add_path_receive: vec!["ipv4-unicast".to_owned()],
        graceful_restart: true,
        restart_time_secs: 120,
        keeps_over_notification: true,
        long_lived_secs: Some(3600),
        role: Some("customer".to_owned()),
        host: Some("tor1.dc".to_owned()),
        software: Some("FRR 8.4.4".to_owned()),
        ..TermsSnapshot::default()
    });
    peer.bfd = Some(BfdSnapshot {
        state: "Up".to_owned(),
        since_ms: NOW - 5 * MINUTE,
        reason: Reason::Heard.to_string(),
        remote_state: "Up".to_owned(),
        detected_us: Some(931_400),
        ..BfdSnapshot::default()
    });
    peer.routes.as_mut().unwrap().untold = 120;
    let counts = |update| MessageCounts {
        open: 2,
        update,
        notification: 1,
        keepalive: 9132,
        route_refresh: 0,
        octets: 204_411,
    };
    peer.counters = CounterSnapshot {
        received: counts(18),
        sent: counts(6),
        flaps: BTreeMap::from([(FlapReason::NotificationReceived, 1)]),
        treated_as_withdraw: 1,
        ..CounterSnapshot::default()
    };
    let rejected = |reason: &str, rule: Option<&str>, count, why: &str| RejectedSnapshot {
        reason: reason.to_owned(),
        rule: rule.map(str::to_owned),
        count,
        examples: vec!["10.99.0.0/16".parse().unwrap()],
        why: why.to_owned(),
    };
    let detail = PeerDetail {
        peer,
        rejected: vec![
            rejected(
                "policy",
                Some("no-lab: lab"),
                12,
                "the import policy rejects it: rule 'no-lab: lab'",
            ),
            rejected("as-loop", None, 1, "our AS is in its path"),
        ],
    };
    assert_snapshot!("peer", peers::one(&detail, NOW));
}

#[test]
fn figures_of_a_session_that_are_not_known_are_not_shown_as_none() {
    let detail = PeerDetail {
        peer: PeerSnapshot {
            routes: None,
            ..up("tor1")
        },
        rejected: Vec::new(),
    };
    let text = peers::one(&detail, NOW);
    let fact = text.lines().find(|line| line.starts_with("routes "));
    assert!(fact.unwrap().ends_with("  not known"), "{text}");
    assert!(!text.contains("FAMILY"), "{text}");
    let hint = "hint: the routing table was too busy to be counted; ask again\n";
    assert!(text.ends_with(hint), "{text}");
}

#[test]
fn a_session_that_never_was_says_so() {
    let detail = PeerDetail {
        peer: PeerSnapshot {
            why: why(DownReason::ConnectionRefused, "connection refused"),
            attempts: 14,
            link_trouble: Some("link eth1 has no carrier".to_owned()),
            no_export_policy: Family::ALL.to_vec(),
            interface: None,
            ..peer("tor2", 65_002)
        },
        rejected: Vec::new(),
    };
    assert_snapshot!("peer_down", peers::one(&detail, NOW));
}

fn path(from: &str, as_path: &str) -> PathSnapshot {
    PathSnapshot {
        from: from.to_owned(),
        next_hop: Some("10.0.1.1".parse().unwrap()),
        as_path: as_path.to_owned(),
        origin: "IGP".to_owned(),
        local_pref: Some(100),
        ..PathSnapshot::default()
    }
}

fn route(prefix: &str, fib: FibSnapshot, paths: Vec<PathSnapshot>) -> RouteSnapshot {
    RouteSnapshot {
        prefix: prefix.parse().unwrap(),
        fib,
        announced: true,
        paths,
    }
}

/// A route with a path of each fate.
fn contested() -> RouteSnapshot {
    let best = PathSnapshot {
        best: true,
        multipath: true,
        communities: vec!["65000:1".to_owned(), "65000:2".to_owned()],
        ..path("tor1", "65001 65013")
    };
    let shares = PathSnapshot {
        multipath: true,
        stale: true,
        ..path("tor2", "65002 65013")
    };
    let lost = PathSnapshot {
        lost_at: Some("the shortest AS path".to_owned()),
        path_id: 7,
        med: Some(5),
        ..path("tor1", "65001 65007 65013")
    };
    let rejected = PathSnapshot {
        rejected: Some("our AS is in its path".to_owned()),
        ..path("mesh-n3", "65000")
    };
    let paths = vec![best, shares, lost, rejected];
    route("10.244.3.0/26", FibSnapshot::Installed, paths)
}

fn page(view: RoutesView, limit: Option<usize>, pages: Vec<Vec<RouteSnapshot>>) -> String {
    let mut screen = Screen::new(view, limit);
    let mut text = String::new();
    for routes in pages {
        if screen.full() {
            break;
        }
        text.push_str(&screen.page(routes));
    }
    text + &screen.end()
}

#[test]
fn routes_stand_in_lines_with_marks_and_reasons() {
    let own = PathSnapshot {
        next_hop: None,
        best: true,
        multipath: true,
        ..path("local", "")
    };
    let pages = vec![
        vec![
            route("10.0.0.1/32", FibSnapshot::None, vec![own]),
            contested(),
        ],
        vec![route(
            "2001:db8:0:244::/64",
            FibSnapshot::Failed("no route to the next hop".to_owned()),
            vec![PathSnapshot {
                best: true,
                multipath: true,
                ..path("tor1", "65001")
            }],
        )],
    ];
    assert_snapshot!("routes", page(RoutesView::Table, None, pages));
}

#[test]
fn what_a_peer_was_told_has_no_marks_and_what_it_was_not_has_reasons() {
    let told = PathSnapshot {
        local_pref: None,
        ..path("", "65000 65001")
    };
    let told = vec![route("10.1.0.0/16", FibSnapshot::Installed, vec![told])];
    assert_snapshot!("advertised", page(RoutesView::Advertised, None, vec![told]));
    let withheld = PathSnapshot {
        rejected: Some("the peer told us".to_owned()),
        ..path("tor1", "65001")
    };
    let withheld = vec![route("10.2.0.0/16", FibSnapshot::Installed, vec![withheld])];
    assert_snapshot!("withheld", page(RoutesView::Withheld, None, vec![withheld]));
}

#[test]
fn a_listing_that_is_cut_says_so_and_one_without_routes_too() {
    let one = |prefix: &str| route(prefix, FibSnapshot::Installed, vec![path("tor1", "65001")]);
    let pages = || {
        vec![
            vec![one("10.1.0.0/16"), one("10.2.0.0/16")],
            vec![one("10.3.0.0/16")],
        ]
    };
    let last = |limit| {
        let text = page(RoutesView::Table, limit, pages());
        (
            text.lines().count(),
            text.lines().last().unwrap().to_owned(),
        )
    };
    assert_eq!(last(Some(1)), (3, "1 prefix, and more".to_owned()));
    assert_eq!(last(Some(2)), (4, "2 prefixes, and more".to_owned()));
    assert_eq!(last(Some(3)), (5, "3 prefixes".to_owned()));
    assert_eq!(last(None), (5, "3 prefixes".to_owned()));
    assert_eq!(page(RoutesView::Table, None, vec![vec![]]), "0 prefixes\n");
}

fn forwarding(ways: &[(&str, &str)]) -> KernelRoute {
    let next_hops = ways.iter().map(|(address, interface)| KernelNextHop {
        address: address.parse().unwrap(),
        interface: (*interface).to_owned(),
    });
    KernelRoute::Forwarding {
        protocol: 214,
        next_hops: next_hops.collect(),
    }
}

#[test]
fn what_the_kernel_holds_stands_in_a_line() {
    let line = |fib, route, in_sync| {
        let mut shown = contested();
        shown.fib = fib;
        let explanation = Explanation {
            asked: shown.prefix,
            route: Some(shown),
            kernel: Some(KernelSnapshot {
                route,
                in_sync,
                checked_ms: NOW - MINUTE,
            }),
            sentences: Vec::new(),
            import: Vec::new(),
            told: Vec::new(),
        };
        let text = explain::screen(&explanation, NOW);
        let line = text.lines().find_map(|line| line.strip_prefix("kernel: "));
        line.map(str::to_owned)
    };
    let dropping = KernelRoute::Dropping { protocol: 214 };
    let foreign = KernelRoute::Foreign { protocol: 16 };
    let refused = FibSnapshot::Failed("no route to the next hop".to_owned());
    for (fib, route, in_sync, expected) in [
        (
            FibSnapshot::Pending,
            forwarding(&[("fe80::1", "eth1")]),
            false,
            Some("proto 214 next hops fe80::1 eth1   not as it should be"),
        ),
        (
            FibSnapshot::None,
            dropping,
            true,
            Some("proto 214 packets are dropped   in sync"),
        ),
        (
            refused,
            foreign,
            false,
            Some("proto 16 of another program   not as it should be"),
        ),
        (
            FibSnapshot::Pending,
            KernelRoute::Absent,
            false,
            Some("no route   not as it should be"),
        ),
        (FibSnapshot::None, KernelRoute::Absent, true, None),
    ] {
        let expected = expected.map(|text| format!("10.244.3.0/26 {text} (checked 1m00s ago)"));
        assert_eq!(line(fib, route, in_sync), expected);
    }
}

#[test]
fn an_explanation_goes_from_the_candidates_to_those_who_are_told() {
    let trace = |from: &str, path_id, steps: [&str; 2]| PolicyTrace {
        from: from.to_owned(),
        path_id,
        steps: steps.map(str::to_owned).to_vec(),
    };
    let explanation = Explanation {
        asked: "10.244.3.7/32".parse().unwrap(),
        route: Some(contested()),
        kernel: Some(KernelSnapshot {
            route: forwarding(&[("10.0.1.1", "eth1"), ("10.0.2.1", "eth2")]),
            in_sync: true,
            checked_ms: NOW - 3000,
        }),
        sentences: vec![
            "10.244.3.0/26 is the longest prefix that covers 10.244.3.7/32.".to_owned(),
            "The decision fell by the shortest AS path.".to_owned(),
        ],
        import: vec![
            trace(
                "tor1",
                0,
                [
                    "'pods' matches (prefix in 10.244.0.0/16 ge 26): accept",
                    "accepted by 'pods'",
                ],
            ),
            trace(
                "tor1",
                7,
                [
                    "'pods' matches (prefix in 10.244.0.0/16 ge 26): accept",
                    "accepted by 'pods'",
                ],
            ),
        ],
        told: vec![
            ToldSnapshot {
                peer: "mesh-n2".to_owned(),
                next_hop: Some("10.0.1.0".parse().unwrap()),
                withheld: None,
            },
            ToldSnapshot {
                peer: "tor1".to_owned(),
                next_hop: None,
                withheld: Some("the peer told us".to_owned()),
            },
        ],
    };
    assert_snapshot!("explain", explain::screen(&explanation, NOW));
    let unknown = Explanation {
        asked: "10.9.9.9/32".parse().unwrap(),
        route: None,
        kernel: None,
        sentences: vec!["No peer has told a route that covers 10.9.9.9/32.".to_owned()],
        import: Vec::new(),
        told: Vec::new(),
    };
    assert_eq!(
        explain::screen(&unknown, NOW),
        "No peer has told a route that covers 10.9.9.9/32.\n"
    );
}

#[test]
fn history_puts_events_and_messages_in_the_order_of_time() {
    let message = |at_ms, direction, kind: &str, octets, text: &str| MessageRecord {
        at_ms,
        direction,
        octets,
        kind: kind.to_owned(),
        text: text.to_owned(),
    };
    let event = |at_ms, text: &str| EventRecord {
        at_ms,
        text: text.to_owned(),
    };
    let history = HistorySnapshot {
        events: vec![
            event(NOW, "Active -> OpenSent"),
            event(NOW + 31, "OpenSent -> OpenConfirm"),
            event(NOW + 40, "OpenConfirm -> Established"),
        ],
        messages: vec![
            message(
                NOW + 1,
                Direction::Sent,
                "OPEN",
                59,
                "AS 65000, identifier 10.0.0.2",
            ),
            message(
                NOW + 31,
                Direction::Received,
                "OPEN",
                61,
                "AS 65001, identifier 10.0.0.1",
            ),
            message(
                NOW + 90_000,
                Direction::Received,
                "KEEPALIVE",
                19,
                "3 times",
            ),
        ],
    };
    assert_snapshot!("history", history::screen(&history));
    assert_eq!(
        history::screen(&HistorySnapshot::default()),
        "nothing has happened\n"
    );
}
