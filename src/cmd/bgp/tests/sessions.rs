//! How sessions read, all of them and one.

use std::collections::BTreeMap;

use caracal_bfdd::proto::Reason;
use caracal_bgp_core::types::{Asn, Family, RouterId};
use caracal_bgp_speaker::snapshot::{
    BfdSnapshot, ErrorSnapshot, FamilySnapshot, FibCountSnapshot, PeerDetail, PeerRoutesSnapshot,
    PeerSnapshot, RangeSnapshot, RejectedSnapshot, RibSnapshot, SessionState, SpeakerSnapshot,
    StationSnapshot, TermsSnapshot,
};
use caracal_bgp_speaker::status::{CounterSnapshot, DownReason, FlapReason, MessageCounts, Why};
use insta::assert_snapshot;

use super::{MINUTE, NOW};
use crate::cmd::bgp::peers;

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
