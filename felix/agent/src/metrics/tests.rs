//! An agent of which everything is to be said, and one of which little is known.

use caracal_metrics::testing;

use super::table::METRICS;
use super::*;

const DOCUMENT: &str = include_str!("../../../../docs/metrics.md");

fn everything() -> AgentSnapshot {
    let took = Histogram::default();
    took.observe(Duration::from_micros(700));
    let addresses = PoolAddresses {
        used: 3,
        free: 50,
        reserved: 2,
        cooling: 8,
        leaked: 1,
    };
    AgentSnapshot {
        figures: Some(Figures {
            rules: [((Direction::Egress, "cell"), 12)].into(),
            dropped: [(Reason::EgressPolicy, 9)].into(),
            addresses: [("default".to_owned(), addresses)].into(),
        }),
        acknowledged: took.snapshot(),
        failed: Histogram::default().snapshot(),
        config_stale: true,
        status_stale: false,
    }
}

fn text(agent: AgentSnapshot) -> String {
    let mut page = Page::default();
    page.add(METRICS, agent);
    page.text().unwrap()
}

#[test]
fn each_metric_is_scraped_with_its_labels() {
    let text = text(everything());
    for line in [
        r#"caracal_policy_rules{direction="egress",kind="cell"} 12"#,
        r#"caracal_policy_apply_seconds_bucket{le="0.001",outcome="acknowledged"} 1"#,
        r#"caracal_policy_apply_seconds_count{outcome="failed"} 0"#,
        r#"caracal_policy_dropped_packets_total{reason="egress-policy"} 9"#,
        r#"caracal_ipam_addresses{pool="default",state="used"} 3"#,
        r#"caracal_ipam_addresses{pool="default",state="free"} 50"#,
        r#"caracal_ipam_addresses{pool="default",state="reserved"} 2"#,
        r#"caracal_ipam_addresses{pool="default",state="cooling"} 8"#,
        r#"caracal_ipam_addresses{pool="default",state="leaked"} 1"#,
        "caracal_config_stale 1",
        "caracal_status_stale 0",
    ] {
        assert!(
            text.lines().any(|seen| seen == line),
            "no {line} in\n{text}"
        );
    }
}

#[test]
fn names_and_labels_follow_the_rules_and_the_document_has_them() {
    testing::check(METRICS, &everything());
    testing::check_documented(METRICS, DOCUMENT);
}

#[test]
fn what_the_loop_has_not_said_is_absent_and_not_zero() {
    let silent = AgentSnapshot {
        figures: None,
        ..everything()
    };
    let text = text(silent);
    for name in [
        "caracal_policy_rules",
        "caracal_policy_dropped_packets",
        "caracal_ipam_addresses",
    ] {
        assert!(!text.contains(name), "{name} in\n{text}");
    }
    assert!(text.contains("caracal_config_stale 1"));
}

/// A loop that knows nothing yet drops the question; the page does not wait for it.
#[tokio::test]
async fn before_the_loop_begins_the_page_says_what_is_known_without_it() {
    let (inquiries, mut asked) = mpsc::channel::<Inquiry>(INQUIRIES_DEPTH);
    let counts = Counts::default();
    counts.watches.begin("Node");
    let answer = async {
        drop(asked.recv().await);
    };
    let (page, ()) = tokio::join!(page(&counts, &inquiries), answer);
    let text = page.text().unwrap();
    assert!(text.contains("caracal_config_stale 1"), "{text}");
    assert!(!text.contains("caracal_ipam_addresses"), "{text}");
}
