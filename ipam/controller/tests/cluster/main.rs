//! The controller against the embedded API server.

mod harness;
mod metrics;

use std::collections::BTreeSet;

use caracal_apiserver::{Fault, Target};
use caracal_crds::{BlockPhase, IpBlock, IpPool};
use harness::{Cluster, until};
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;

const V4: &str = "10.64.0.0/24";
const V6: &str = "fd00:64::/120";

fn assert_disjoint(blocks: &[IpBlock]) {
    let ipv4: BTreeSet<_> = blocks.iter().filter_map(|b| b.spec.ipv4).collect();
    let ipv6: BTreeSet<_> = blocks.iter().filter_map(|b| b.spec.ipv6).collect();
    assert_eq!(
        (ipv4.len(), ipv6.len()),
        (blocks.len(), blocks.len()),
        "addresses granted twice"
    );
}

#[tokio::test]
async fn nodes_get_first_blocks_of_both_families_unasked() {
    let cluster = Cluster::start().await;
    let _controller = cluster.controller("a");
    cluster.pool("p", V4, V6, json!({})).await;
    let n1 = cluster.node("n1").await;
    cluster.node("n2").await;
    let blocks = cluster.held(&[("n1", 1), ("n2", 1)]).await;
    assert_disjoint(&blocks);
    let block = blocks
        .iter()
        .find(|b| b.spec.node_name == "n1")
        .expect("n1 holds one");
    assert_eq!(block.name_any(), format!("p-{}", block.spec.index));
    assert_eq!(Some(&block.spec.node_uid), n1.uid().as_ref());
    assert_eq!(
        (
            block.spec.ipv4.map(|n| n.prefix()),
            block.spec.ipv6.map(|n| n.prefix())
        ),
        (Some(26), Some(122))
    );
    assert_eq!(block.labels()["caracal.dev/node"], "n1");
    assert_eq!(block.labels()["caracal.dev/pool"], "p");
    let pools: Api<IpPool> = Api::all(cluster.client.clone());
    until("the pool counts its blocks", || async {
        let blocks = pools.get("p").await.ok()?.status?.blocks?;
        ((blocks.total, blocks.used) == (4, 2)).then_some(())
    })
    .await;
    assert_eq!(cluster.pool_condition("p", "Ready", "True").await.0, "Ok");
}

#[tokio::test]
async fn pools_select_nodes_and_say_why_they_cannot() {
    let cluster = Cluster::start().await;
    let _controller = cluster.controller("a");
    cluster
        .pool("p", V4, V6, json!({"nodeSelector": "rack == 'a'"}))
        .await;
    cluster
        .pool(
            "q",
            "10.65.0.0/24",
            "fd00:65::/120",
            json!({"nodeSelector": "rack = a"}),
        )
        .await;
    cluster.node("a1").await;
    let b1 = cluster.node("b1").await;
    let blocks = cluster.held(&[("a1", 1)]).await;
    assert_eq!(blocks.len(), 1);
    let (reason, message) = cluster.pool_condition("q", "Ready", "False").await;
    assert_eq!(reason, "InvalidSelector");
    assert!(
        message.contains("spec.nodeSelector") && message.contains("column 8"),
        "{message}"
    );
    cluster.ask(&b1, "p", 1).await;
    assert_eq!(
        cluster.request_condition("b1.p", "False").await.0,
        "PoolNotForNode"
    );
}

#[tokio::test]
async fn an_overlapping_pool_is_refused_until_the_older_one_is_gone() {
    let cluster = Cluster::start().await;
    let _controller = cluster.controller("a");
    cluster
        .pool("p", V4, V6, json!({"nodeSelector": "rack == 'a'"}))
        .await;
    cluster
        .pool(
            "q",
            "10.65.0.0/24",
            "fd00:65::/120",
            json!({"nodeSelector": "rack == 'a'"}),
        )
        .await;
    cluster
        .pool(
            "r",
            "10.64.0.128/25",
            "fd00:66::/121",
            json!({"nodeSelector": "rack == 'b'"}),
        )
        .await;
    cluster.node("b1").await;
    let (reason, message) = cluster.pool_condition("r", "Overlap", "True").await;
    assert_eq!(
        (reason.as_str(), message.as_str()),
        ("OverlapsPool", "with p")
    );
    cluster.pool_condition("r", "Ready", "False").await;
    cluster.pool_condition("p", "Overlap", "False").await;
    cluster.pool_condition("q", "Ready", "True").await;
    assert!(cluster.blocks().await.is_empty());
    let pools: Api<IpPool> = Api::all(cluster.client.clone());
    pools
        .delete("p", &Default::default())
        .await
        .expect("the pool exists");
    cluster.held(&[("b1", 1)]).await;
    cluster.pool_condition("r", "Ready", "True").await;
}

#[tokio::test]
async fn a_request_is_granted_once_with_the_other_half_of_the_first_block() {
    let cluster = Cluster::start().await;
    let _controller = cluster.controller("a");
    cluster
        .pool("p", V4, V6, json!({"maxBlocksPerNode": 2}))
        .await;
    let node = cluster.node("n1").await;
    cluster.held(&[("n1", 1)]).await;
    cluster.ask(&node, "p", 1).await;
    let (reason, granted) = cluster.request_condition("n1.p", "True").await;
    assert_eq!(reason, "BlocksGranted");
    let blocks = cluster.held(&[("n1", 2)]).await;
    assert_eq!(
        blocks
            .iter()
            .map(|b| b.spec.index ^ 1)
            .collect::<BTreeSet<_>>()
            .len(),
        2
    );
    assert_eq!(
        blocks[0].spec.index / 2,
        blocks[1].spec.index / 2,
        "buddies"
    );
    assert!(
        blocks
            .iter()
            .any(|b| granted == [b.name_any()] && b.spec.request_generation == 1)
    );
    let requests: Api<caracal_crds::IpBlockRequest> = Api::all(cluster.client.clone());
    let more = Patch::Merge(json!({"spec": {"generation": 2}}));
    requests
        .patch("n1.p", &PatchParams::default(), &more)
        .await
        .expect("the request exists");
    assert_eq!(
        cluster.request_condition("n1.p", "False").await.0,
        "NodeLimitReached"
    );
}

#[tokio::test]
async fn a_deleted_nodes_block_is_quarantined_then_free_again() {
    let cluster = Cluster::start().await;
    let _controller = cluster.controller("a");
    cluster
        .pool("p", "10.64.0.0/26", "fd00:64::/122", json!({}))
        .await;
    cluster.node("n1").await;
    cluster.held(&[("n1", 1)]).await;
    cluster.node("n2").await;
    cluster.pool_condition("p", "Exhausted", "True").await;
    cluster.delete_node("n1").await;
    let quarantined = until("the block is quarantined", || async {
        cluster
            .blocks()
            .await
            .into_iter()
            .find(|b| b.phase() == BlockPhase::Quarantined)
    })
    .await;
    assert_eq!(quarantined.spec.node_name, "n1");
    let blocks = cluster.held(&[("n1", 0), ("n2", 1)]).await;
    assert_ne!(blocks[0].uid(), quarantined.uid());
}

#[tokio::test]
async fn a_block_released_by_its_agent_is_deleted_and_one_of_an_old_uid_drained() {
    let cluster = Cluster::start().await;
    let _controller = cluster.controller("a");
    cluster.pool("p", V4, V6, json!({})).await;
    cluster.node("n1").await;
    let old = cluster.held(&[("n1", 1)]).await.remove(0);
    cluster.delete_node("n1").await;
    cluster.node("n1").await;
    let blocks = cluster.held(&[("n1", 2)]).await;
    assert!(
        blocks.iter().any(|b| b.uid() == old.uid()),
        "the old one stays until its agent speaks"
    );
    let api: Api<IpBlock> = Api::all(cluster.client.clone());
    let released = Patch::Merge(json!({"status": {"phase": "Released"}}));
    api.patch_status(&old.name_any(), &PatchParams::default(), &released)
        .await
        .expect("the block exists");
    let left = cluster.held(&[("n1", 1)]).await;
    assert_ne!(left[0].uid(), old.uid());
}

#[tokio::test]
async fn a_partitioned_leader_is_replaced_and_grants_nothing_twice() {
    let cluster = Cluster::start().await;
    let _a = cluster.controller("a");
    let first = cluster.leader("a").await;
    let _b = cluster.controller("b");
    cluster.pool("p", V4, V6, json!({})).await;
    cluster.node("n1").await;
    cluster.held(&[("n1", 1)]).await;
    let fault = cluster
        .server
        .faults()
        .inject(Target::client("a"), Fault::Partition);
    let second = cluster.leader("b").await;
    assert!(second > first, "epochs {first} and {second}");
    cluster.node("n2").await;
    let blocks = cluster.held(&[("n1", 1), ("n2", 1)]).await;
    let granted = blocks
        .iter()
        .find(|b| b.spec.node_name == "n2")
        .expect("n2 holds one");
    assert_eq!(granted.spec.epoch, i64::from(second));
    cluster.server.faults().lift(fault);
    let writes = cluster.writes("a");
    cluster.node("n3").await;
    let blocks = cluster.held(&[("n1", 1), ("n2", 1), ("n3", 1)]).await;
    assert_disjoint(&blocks);
    assert_eq!(cluster.writes("a"), writes, "a follower writes nothing");
}

#[tokio::test]
async fn a_leader_that_shuts_down_hands_over_at_once() {
    let cluster = Cluster::start().await;
    let a = cluster.controller("a");
    let first = cluster.leader("a").await;
    a.shut_down().await;
    assert_eq!(cluster.leader("").await, first);
    let _b = cluster.controller("b");
    assert_eq!(cluster.leader("b").await, first + 1);
}

#[tokio::test]
async fn epochs_stay_above_those_of_blocks_though_the_lease_was_deleted() {
    let cluster = Cluster::start().await;
    cluster.pool("p", V4, V6, json!({})).await;
    cluster
        .create::<IpBlock>(json!({
            "apiVersion": "caracal.dev/v1alpha1", "kind": "IPBlock", "metadata": {"name": "p-0"},
            "spec": {"pool": "p", "index": 0, "ipv4": "10.64.0.0/26", "ipv6": "fd00:64::/122",
                "nodeName": "n1", "nodeUID": "u", "epoch": 41}}))
        .await;
    let _a = cluster.controller("a");
    cluster.node("n2").await;
    let blocks = cluster.held(&[("n2", 1)]).await;
    let granted = blocks
        .iter()
        .find(|b| b.spec.node_name == "n2")
        .expect("n2 holds one");
    assert!(granted.spec.epoch > 41, "epoch {}", granted.spec.epoch);
}

#[tokio::test]
async fn a_steady_cluster_writes_nothing() {
    let cluster = Cluster::start().await;
    let _controller = cluster.controller("a");
    cluster.pool("p", V4, V6, json!({})).await;
    cluster.pool("q", V4, "fd00:65::/120", json!({})).await;
    let n1 = cluster.node("n1").await;
    cluster.node("n2").await;
    cluster.ask(&n1, "p", 1).await;
    cluster.ask(&n1, "nowhere", 1).await;
    cluster.held(&[("n1", 2), ("n2", 1)]).await;
    cluster.request_condition("n1.p", "True").await;
    cluster.request_condition("n1.nowhere", "False").await;
    cluster.pool_condition("q", "Overlap", "True").await;
    // Ten rounds of the election give every late write its chance.
    cluster.renewals("a", 10).await;
    let before = cluster.writes("a");
    // A heartbeat is no news, nor is a list told again.
    let nodes: Api<k8s_openapi::api::core::v1::Node> = Api::all(cluster.client.clone());
    let beat = Patch::Merge(json!({"metadata": {"annotations": {"beat": "1"}}}));
    nodes
        .patch("n1", &PatchParams::default(), &beat)
        .await
        .expect("the node exists");
    cluster.server.compact();
    cluster.renewals("a", 20).await;
    let recent = cluster.server.requests().recent();
    let writes: Vec<_> = recent
        .iter()
        .filter(|r| r.kind.is_write() && r.kind.resource != "leases")
        .rev()
        .take(3)
        .collect();
    assert_eq!(cluster.writes("a"), before, "{writes:?}");
}

#[tokio::test]
async fn watches_survive_every_kind_of_expiry() {
    let cluster = Cluster::start().await;
    let _controller = cluster.controller("a");
    cluster.pool("p", V4, V6, json!({})).await;
    cluster.node("n1").await;
    cluster.held(&[("n1", 1)]).await;
    let target = || Target::client("a").verb("watch");
    let faults = cluster.server.faults();
    for (fault, node) in [(Fault::GoneInBand, "n2"), (Fault::Gone, "n3")] {
        let fault = faults.inject(target(), fault);
        let partition = faults.inject_times(Target::client("a").verb("watch"), Fault::Gone, 4);
        cluster.server.compact();
        cluster.renewals("a", 5).await;
        faults.lift(fault);
        faults.lift(partition);
        cluster.node(node).await;
        cluster.held(&[(node, 1)]).await;
    }
    assert_disjoint(&cluster.blocks().await);
}

#[tokio::test]
async fn a_creation_answered_too_late_is_recognised_as_ours() {
    let cluster = Cluster::start().await;
    let fault = Target::resource("ipblocks").verb("create");
    cluster
        .server
        .faults()
        .inject_times(fault, Fault::TimeoutAfterWrite, 1);
    let _controller = cluster.controller("a");
    cluster.pool("p", V4, V6, json!({})).await;
    let node = cluster.node("n1").await;
    cluster.held(&[("n1", 1)]).await;
    // The next grant shows that the first is accounted for.
    cluster.ask(&node, "p", 1).await;
    cluster.request_condition("n1.p", "True").await;
    let blocks = cluster.held(&[("n1", 2)]).await;
    assert_disjoint(&blocks);
}
