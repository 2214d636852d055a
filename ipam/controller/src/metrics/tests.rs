//! Pools of which everything is to be said.

use caracal_metrics::testing;

use super::table::METRICS;
use super::*;

const DOCUMENT: &str = include_str!("../../../../docs/metrics.md");

fn report() -> PoolReport {
    PoolReport {
        total: 16,
        used: 5,
        draining: 2,
        quarantined: 1,
        ..PoolReport::default()
    }
}

fn everything() -> Counts {
    let (counts, pool) = (Counts::default(), PoolName("p".to_owned()));
    counts.reported(&pool, report());
    counts.claim(&pool).won();
    counts.claim(&pool).lost();
    counts.watches.begin("Node").stands();
    counts
}

fn text(counts: &Counts) -> String {
    counts.page().text().unwrap()
}

#[test]
fn each_metric_is_scraped_with_its_labels() {
    let text = text(&everything());
    for line in [
        r#"caracal_ipam_blocks{pool="p",state="used"} 3"#,
        r#"caracal_ipam_blocks{pool="p",state="draining"} 2"#,
        r#"caracal_ipam_blocks{pool="p",state="quarantined"} 1"#,
        r#"caracal_ipam_blocks{pool="p",state="free"} 10"#,
        r#"caracal_ipam_claim_seconds_count{pool="p"} 1"#,
        r#"caracal_ipam_claim_conflicts_total{pool="p"} 1"#,
        r#"caracal_k8s_watch_lag_seconds{kind="Node"} 0.0"#,
    ] {
        assert!(
            text.lines().any(|seen| seen == line),
            "no {line} in\n{text}"
        );
    }
}

#[test]
fn nothing_is_free_in_a_pool_that_grants_nothing_more() {
    let (counts, pool) = (Counts::default(), PoolName("p".to_owned()));
    let exhausted = PoolReport {
        exhausted: true,
        ..report()
    };
    counts.reported(&pool, exhausted);
    let text = text(&counts);
    assert!(text.contains(r#"{pool="p",state="free"} 0"#), "{text}");
}

#[test]
fn who_leads_no_more_tells_what_it_did_and_not_how_things_stand() {
    let counts = everything();
    counts.end_term();
    let text = text(&counts);
    for gone in ["caracal_ipam_blocks", "caracal_k8s_watch_lag_seconds"] {
        assert!(!text.contains(gone), "{gone} in\n{text}");
    }
    assert!(text.contains(r#"caracal_ipam_claim_conflicts_total{pool="p"} 1"#));
}

#[test]
fn a_pool_that_is_gone_is_told_of_no_more() {
    let counts = everything();
    let claim = counts.claim(&PoolName("p".to_owned()));
    counts.forget(&PoolName("p".to_owned()));
    claim.won();
    let text = text(&counts);
    assert!(!text.contains(r#"pool="p""#), "{text}");
}

#[test]
fn names_and_labels_follow_the_rules_and_the_document_has_them() {
    let counts = everything();
    let pool = PoolSnapshot {
        name: "p".to_owned(),
        report: Some(report()),
        claims: counts.pools()[&PoolName("p".to_owned())].claims.snapshot(),
        conflicts: 1,
    };
    testing::check(METRICS, &vec![pool]);
    testing::check_documented(METRICS, DOCUMENT);
}
