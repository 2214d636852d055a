//! Metrics of a speaker of which everything is to be said.

use std::collections::{BTreeMap, BTreeSet};

use std::time::Duration;

use caracal_bgp_core::types::{Asn, Family, RouterId};
use caracal_metrics::{PROCESS, Page, Read, testing};

use super::table::METRICS;
use crate::fib::{Drift, FibWork, WriteOutcome};
use crate::snapshot::{
    BfdSnapshot, ChannelSnapshot, FamilySnapshot, FibCountSnapshot, ForwardingSnapshot,
    PeerRoutesSnapshot, PeerSnapshot, RangeSnapshot, RibSnapshot, SessionState, SpeakerSnapshot,
    UpdateToFibSnapshot,
};
use crate::status::{
    CounterSnapshot, Direction, FlapReason, Histogram, MessageCounts, NotificationCount,
};

const DOCUMENT: &str = include_str!("../../../../docs/metrics.md");

fn forwarding() -> ForwardingSnapshot {
    let took = Histogram::default();
    for ms in [1, 30, 40, 90_000] {
        took.observe(Duration::from_millis(ms));
    }
    let work = FibWork::default();
    work.wrote(WriteOutcome::Refused, Duration::from_micros(300));
    work.repaired(Drift::Stray);
    ForwardingSnapshot {
        update_to_fib: vec![UpdateToFibSnapshot {
            family: Family::Ipv4Unicast,
            took: took.snapshot(),
        }],
        writes: work.writes(),
        repairs: work.all_repairs(),
    }
}

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
        draining: None,
        state: SessionState::Established,
        since_ms: 1_700_000_000_999,
        why: None,
        why_ms: 0,
        attempts: 0,
        last_sent_error: None,
        last_received_error: None,
        established_count: 2,
        terms: None,
        link_trouble: None,
        no_import_policy: Vec::new(),
        no_export_policy: Vec::new(),
        bfd: Some(BfdSnapshot {
            state: "Down".to_owned(),
            detected_us: Some(150_250),
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
        routes: Some(PeerRoutesSnapshot {
            untold: 11,
            families: vec![FamilySnapshot {
                family: Family::Ipv4Unicast,
                received: 10,
                accepted: 8,
                stale: 1,
                advertised: 4,
                end_of_rib_received: true,
                end_of_rib_sent: false,
            }],
        }),
    };
    SpeakerSnapshot {
        asn: Asn(65_000),
        router_id: RouterId(1),
        rib: Some(RibSnapshot {
            deferring: false,
            prefixes: 9,
            fib: vec![FibCountSnapshot {
                family: Family::Ipv6Unicast,
                pending: 1,
                installed: 2,
                failed: 3,
                best_path_changes: 40,
            }],
        }),
        forwarding: Some(forwarding()),
        channels: vec![ChannelSnapshot {
            name: "records".to_owned(),
            depth: 5,
            dropped: Some(6),
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

fn page(speaker: SpeakerSnapshot) -> String {
    let mut page = Page::default();
    super::add(&mut page, speaker);
    page.text().unwrap()
}

#[test]
fn each_metric_is_scraped_with_its_labels() {
    let text = page(everything());
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
        r#"caracal_bfd_detect_seconds{peer="tor\"1"} 0.15025"#,
        r#"caracal_bgp_untold_changes{peer="tor\"1"} 11"#,
        r#"caracal_bgp_update_to_fib_seconds_bucket{le="0.001",family="ipv4-unicast"} 1"#,
        r#"caracal_bgp_update_to_fib_seconds_bucket{le="0.025",family="ipv4-unicast"} 1"#,
        r#"caracal_bgp_update_to_fib_seconds_bucket{le="0.05",family="ipv4-unicast"} 3"#,
        r#"caracal_bgp_update_to_fib_seconds_bucket{le="60.0",family="ipv4-unicast"} 3"#,
        r#"caracal_bgp_update_to_fib_seconds_bucket{le="+Inf",family="ipv4-unicast"} 4"#,
        r#"caracal_bgp_update_to_fib_seconds_count{family="ipv4-unicast"} 4"#,
        r#"caracal_bgp_update_to_fib_seconds_sum{family="ipv4-unicast"} 90.071"#,
        r#"caracal_fib_apply_seconds_count{outcome="refused"} 1"#,
        r#"caracal_fib_apply_seconds_count{outcome="acknowledged"} 0"#,
        r#"caracal_fib_drift_total{kind="stray"} 1"#,
        r#"caracal_fib_drift_total{kind="missing"} 0"#,
        r#"caracal_channel_depth{channel="records"} 5"#,
        r#"caracal_channel_drops_total{channel="records"} 6"#,
        "# TYPE caracal_bgp_update_to_fib_seconds histogram",
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
        .map(metric_of)
        .collect();
    let ours = METRICS.iter().map(|metric| metric.name);
    let known: BTreeSet<&str> = ours.chain(PROCESS.iter().map(|it| it.name)).collect();
    assert_eq!(sampled, known);
}

/// Of which metric a sample is.
fn metric_of(sample: &str) -> &str {
    let endings = ["_bucket", "_sum", "_count"];
    let parts = endings.iter().filter_map(|end| sample.strip_suffix(end));
    let mut histograms = parts.filter(|name| {
        let known = METRICS.iter().find(|metric| metric.name == *name);
        known.is_some_and(|metric| matches!(metric.read, Read::Histogram(_)))
    });
    histograms.next().unwrap_or(sample)
}

#[test]
fn names_and_labels_follow_the_rules() {
    testing::check(METRICS, &everything());
}

#[test]
fn what_is_not_known_is_absent_and_not_zero() {
    let mut speaker = everything();
    speaker.rib = None;
    speaker.forwarding = None;
    let peer = &mut speaker.peers[0];
    (peer.bfd, peer.state, peer.asn) = (None, SessionState::Active, None);
    let text = page(speaker);
    for name in [
        "caracal_bgp_rib_prefixes",
        "caracal_bgp_selection_deferred",
        "caracal_bgp_best_path_changes",
        "caracal_fib_routes",
        "caracal_bfd_session_up",
        "caracal_bfd_detect_seconds",
        "caracal_bgp_untold_changes",
        "caracal_bgp_update_to_fib_seconds",
        "caracal_fib_apply_seconds",
        "caracal_fib_drift",
        "caracal_bgp_session_established_timestamp_seconds",
    ] {
        assert!(!text.contains(name), "{name} in\n{text}");
    }
    assert!(text.contains(r#"caracal_bgp_session_up{peer="tor\"1",peer_asn=""} 0"#));
}

#[test]
fn a_session_that_the_configuration_keeps_down_is_no_trouble() {
    let enabled = |enabled| {
        let mut speaker = everything();
        speaker.peers[0].admin_enabled = enabled;
        page(speaker)
    };
    let sample = r#"caracal_bgp_session_admin_enabled{peer="tor\"1",peer_asn="65001"}"#;
    assert!(enabled(true).contains(&format!("{sample} 1\n")));
    assert!(enabled(false).contains(&format!("{sample} 0\n")));
}

#[test]
fn the_document_has_the_table_of_the_code() {
    testing::check_documented(METRICS, DOCUMENT);
}
