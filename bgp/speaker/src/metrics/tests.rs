//! Metrics of a speaker of which everything is to be said.

use std::collections::{BTreeMap, BTreeSet};

use caracal_bgp_core::types::{Asn, Family, RouterId};

use super::*;
use crate::snapshot::{BfdSnapshot, FibCountSnapshot, RangeSnapshot};
use crate::status::{CounterSnapshot, FlapReason, NotificationCount};

const DOCUMENT: &str = include_str!("../../../../docs/metrics.md");

fn everything() -> SpeakerSnapshot {
    let peer = PeerSnapshot {
        name: "tor\"1".to_owned(),
        description: String::new(),
        endpoint: "10.0.0.1:179".to_owned(),
        range: None,
        remote: None,
        local_address: None,
        interface: None,
        asn: Some(Asn(65_001)),
        local_asn: Asn(65_000),
        internal: false,
        router_id: None,
        authentication: "none".to_owned(),
        admin_enabled: true,
        draining: false,
        state: SessionState::Established,
        since_ms: 1_700_000_000_999,
        why: String::new(),
        last_sent_error: None,
        last_received_error: None,
        established_count: 2,
        terms: None,
        bfd: Some(BfdSnapshot {
            state: "Down".to_owned(),
            ..BfdSnapshot::default()
        }),
        counters: CounterSnapshot {
            received: MessageCounts {
                update: 7,
                octets: 1234,
                ..MessageCounts::default()
            },
            notifications: vec![NotificationCount {
                direction: Direction::Sent,
                code: 6,
                subcode: 4,
                count: 3,
            }],
            flaps: BTreeMap::from([(FlapReason::Timer, 1)]),
            treated_as_withdraw: 5,
            ..CounterSnapshot::default()
        },
        families: vec![FamilySnapshot {
            family: Family::Ipv4Unicast,
            received: 10,
            accepted: 8,
            stale: 1,
            advertised: 4,
            end_of_rib_received: true,
            end_of_rib_sent: false,
        }],
    };
    SpeakerSnapshot {
        asn: Asn(65_000),
        router_id: RouterId(1),
        deferring: false,
        prefixes: 9,
        fib: vec![FibCountSnapshot {
            family: Family::Ipv6Unicast,
            pending: 1,
            installed: 2,
            failed: 3,
            best_path_changes: 40,
        }],
        peers: vec![peer],
        ranges: vec![RangeSnapshot {
            name: "pods".to_owned(),
            prefixes: Vec::new(),
            limit: 100,
            used: 3,
        }],
        stations: Vec::new(),
    }
}

#[test]
fn each_metric_is_scraped_with_its_labels() {
    let text = encode(everything()).unwrap();
    for line in [
        r#"caracal_bgp_session_state{peer="tor\"1",state="established"} 1"#,
        r#"caracal_bgp_session_state{peer="tor\"1",state="idle"} 0"#,
        r#"caracal_bgp_session_up{peer="tor\"1",peer_asn="65001"} 1"#,
        r#"caracal_bgp_session_established_timestamp_seconds{peer="tor\"1"} 1700000000"#,
        r#"caracal_bgp_session_flaps_total{peer="tor\"1",reason="timer"} 1"#,
        r#"caracal_bgp_notifications_total{peer="tor\"1",direction="sent",code="6",subcode="4"} 3"#,
        r#"caracal_bgp_messages_total{peer="tor\"1",direction="received",type="update"} 7"#,
        r#"caracal_bgp_message_bytes_total{peer="tor\"1",direction="received"} 1234"#,
        r#"caracal_bgp_malformed_updates_total{peer="tor\"1",outcome="treat-as-withdraw"} 5"#,
        r#"caracal_bgp_prefixes{peer="tor\"1",family="ipv4-unicast",stage="rejected"} 2"#,
        r#"caracal_bgp_end_of_rib{peer="tor\"1",family="ipv4-unicast",direction="sent"} 0"#,
        r#"caracal_bgp_range_peers{range="pods"} 3"#,
        "caracal_bgp_rib_prefixes 9",
        r#"caracal_bgp_best_path_changes_total{family="ipv6-unicast"} 40"#,
        r#"caracal_fib_routes{family="ipv6-unicast",state="failed"} 3"#,
        r#"caracal_bfd_session_up{peer="tor\"1"} 0"#,
        "# TYPE caracal_bgp_messages counter",
        "# EOF",
    ] {
        assert!(
            text.lines().any(|seen| seen == line),
            "no {line} in\n{text}"
        );
    }
    let sampled: BTreeSet<&str> = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split(['{', ' ']).next())
        .collect();
    let known: BTreeSet<&str> = METRICS.iter().map(|metric| metric.name).collect();
    assert_eq!(sampled, known);
    assert_eq!(known.len(), METRICS.len(), "a name twice");
}

#[test]
fn names_and_labels_follow_the_rules() {
    for metric in METRICS {
        let (name, counter) = (metric.name, metric.kind == Kind::Counter);
        assert!(name.starts_with("caracal_"), "{name}");
        assert_eq!(name.ends_with("_total"), counter, "{name}");
        for sample in (metric.read)(&everything()) {
            assert_eq!(sample.0.len(), metric.labels.len(), "{name}");
        }
    }
}

#[test]
fn what_is_not_known_is_absent_and_not_zero() {
    let mut speaker = everything();
    speaker.fib.clear();
    let peer = &mut speaker.peers[0];
    (peer.bfd, peer.state, peer.asn) = (None, SessionState::Active, None);
    let text = encode(speaker).unwrap();
    for name in [
        "caracal_bgp_rib_prefixes",
        "caracal_fib_routes",
        "caracal_bfd_session_up",
        "caracal_bgp_session_established_timestamp_seconds",
    ] {
        assert!(!text.contains(name), "{name} in\n{text}");
    }
    assert!(text.contains(r#"caracal_bgp_session_up{peer="tor\"1",peer_asn=""} 0"#));
}

#[test]
fn the_document_has_the_table_of_the_code() {
    let table = documentation();
    assert!(
        DOCUMENT.contains(&table),
        "docs/metrics.md has drifted; its table shall be\n{table}"
    );
}
