//! The controller's metrics move for what happens in the cluster.

use caracal_apiserver::{Fault, Target};
use caracal_crds::IpBlock;
use serde_json::json;

use crate::harness::Cluster;
use crate::{V4, V6};

const CLAIMS: &str = r#"caracal_ipam_claim_seconds_count{pool="p"}"#;
const CONFLICTS: &str = r#"caracal_ipam_claim_conflicts_total{pool="p"}"#;

fn blocks(state: &str) -> String {
    format!(r#"caracal_ipam_blocks{{pool="p",state="{state}"}}"#)
}

fn of_nodes(metric: &str) -> String {
    format!(r#"caracal_k8s_{metric}{{kind="Node"}}"#)
}

#[tokio::test]
async fn a_claim_takes_a_free_block_and_one_that_somebody_has_is_a_conflict() {
    let cluster = Cluster::start().await;
    let controller = cluster.controller("a");
    cluster.pool("p", V4, V6, json!({})).await;
    controller
        .until_metric(&blocks("free"), |free| free == 4.0)
        .await;
    cluster.node("n1").await;
    cluster.held(&[("n1", 1)]).await;
    controller
        .until_metric(&blocks("used"), |used| used == 1.0)
        .await;
    let metrics = controller.metrics().await;
    assert_eq!(metrics[&blocks("free")], 3.0);
    assert_eq!((metrics[CLAIMS], metrics[CONFLICTS]), (1.0, 0.0));

    // A block that the controller cannot see: the one that it grants next.
    let silence = Target {
        resource: Some("ipblocks".into()),
        ..Target::client("a").verb("watch")
    };
    let silence = cluster.server.faults().inject(silence, Fault::Stall);
    let spec = json!({
        "pool": "p", "index": 2, "ipv4": "10.64.0.128/26", "ipv6": "fd00:64::80/122",
        "nodeName": "x", "nodeUID": "x", "epoch": 1,
    });
    cluster
        .create::<IpBlock>(json!({
            "apiVersion": "caracal.dev/v1alpha1", "kind": "IPBlock",
            "metadata": {"name": "p-2"}, "spec": spec,
        }))
        .await;
    cluster.node("n2").await;
    controller
        .until_metric(CONFLICTS, |conflicts| conflicts == 1.0)
        .await;
    controller
        .until_metric(CLAIMS, |claims| claims == 2.0)
        .await;
    cluster.held(&[("n1", 1), ("n2", 1)]).await;
    cluster.server.faults().lift(silence);

    // Nobody is called x, and n1 goes, too.
    cluster.delete_node("n1").await;
    let quarantined = |count| count == 2.0;
    controller
        .until_metric(&blocks("quarantined"), quarantined)
        .await;
}

#[tokio::test]
async fn who_leads_tells_of_pools_and_nobody_else_does() {
    let cluster = Cluster::start().await;
    let a = cluster.controller("a");
    cluster.leader("a").await;
    let b = cluster.controller("b");
    cluster.pool("p", V4, V6, json!({})).await;
    cluster.node("n1").await;
    a.until_metric(&blocks("used"), |used| used == 1.0).await;
    let followers = b.metrics().await;
    assert!(followers.contains_key(r#"caracal_build_info{version="0.1.0"}"#));
    assert_eq!(followers.len(), 1, "{followers:?}");

    let partition = Target::client("a");
    cluster.server.faults().inject(partition, Fault::Partition);
    cluster.leader("b").await;
    b.until_metric(&blocks("used"), |used| used == 1.0).await;
    let deposed = a.metrics().await;
    assert!(!deposed.contains_key(&blocks("used")), "{deposed:?}");
    assert_eq!(deposed[CLAIMS], 1.0, "it made the claim");
    assert_eq!(b.metrics().await[CLAIMS], 0.0);
}

#[tokio::test]
async fn a_watch_that_breaks_lags_until_the_server_takes_it_up() {
    let cluster = Cluster::start().await;
    let controller = cluster.controller("a");
    controller
        .until_metric(&of_nodes("watch_lag_seconds"), |lag| lag == 0.0)
        .await;
    let nodes = Target {
        resource: Some("nodes".into()),
        ..Target::client("a")
    };
    let broken = cluster.server.faults().inject(nodes, Fault::Partition);
    controller
        .until_metric(&of_nodes("watch_lag_seconds"), |lag| lag > 0.0)
        .await;
    let pools = r#"caracal_k8s_watch_lag_seconds{kind="IPPool"}"#;
    assert_eq!(controller.metrics().await[pools], 0.0, "the others stand");
    // No node has come or gone, so the server has nothing to tell.
    cluster.server.faults().lift(broken);
    controller
        .until_metric(&of_nodes("watch_lag_seconds"), |lag| lag == 0.0)
        .await;
    controller
        .until_metric(&of_nodes("reconnects_total"), |count| count == 1.0)
        .await;
}
