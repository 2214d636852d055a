//! The agent's metrics move for what happens on its node, and for nothing else.

use std::process::Command;
use std::time::Duration;

use crate::common::{Rig, addresses, can_run, pings, until};
use serde_json::json;

const POLICY: &str = "networking.k8s.io/v1";

const CELLS: &str = r#"caracal_policy_rules{direction="ingress",kind="cell"}"#;
const APPLIED: &str = r#"caracal_policy_apply_seconds_count{outcome="acknowledged"}"#;
const DROPPED: &str = r#"caracal_policy_dropped_packets_total{reason="ingress-policy"}"#;
const STALE: &str = "caracal_config_stale";
const UNSAID: &str = "caracal_status_stale";

fn of_pool(state: &str) -> String {
    format!(r#"caracal_ipam_addresses{{pool="default",state="{state}"}}"#)
}

fn of_pods(metric: &str) -> String {
    format!(r#"caracal_k8s_{metric}{{kind="Pod"}}"#)
}

/// Whether the node has what the tests need; says SKIP where not.
fn runs() -> bool {
    let curl = Command::new("curl").arg("--version").output().is_ok();
    if !curl {
        caracal_skip::missing!("curl is not installed");
    }
    curl && can_run()
}

#[test]
fn a_policy_is_seen_in_its_rules_its_transaction_and_what_it_drops() {
    if !runs() {
        return;
    }
    let mut rig = Rig::new();
    rig.start_agent();
    rig.ready();
    for name in ["client", "server"] {
        rig.api.pod(name, &json!({"app": name}));
    }
    let (client, server) = (rig.sandbox(), rig.sandbox());
    let c_has = addresses(&rig.add("client", "cc", &client));
    rig.api.pod_has("client", &c_has);
    let s_has = addresses(&rig.add("server", "cs", &server));
    rig.until_metric(CELLS, |cells| cells == 0.0);
    let applied = rig.until_metric(APPLIED, |count| count >= 1.0);

    rig.api.create(&json!({
        "apiVersion": POLICY, "kind": "NetworkPolicy",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "podSelector": {"matchLabels": {"app": "server"}},
            "ingress": [{
                "from": [{"podSelector": {"matchLabels": {"app": "client"}}}],
                "ports": [{"port": 80}],
            }],
        },
    }));
    rig.until_metric(CELLS, |cells| cells == 1.0);
    rig.until_metric(APPLIED, |count| count > applied);
    rig.until_metric(DROPPED, |count| count == 0.0);
    assert!(!pings(&client, &s_has[0]), "{}", rig.log());
    rig.until_metric(DROPPED, |count| count == 1.0);

    // The next agent finds the counter as it is, and counts from there.
    rig.kill_agent();
    rig.start_agent();
    rig.ready();
    rig.until_metric(DROPPED, |count| count == 0.0);
    assert!(!pings(&client, &s_has[0]), "{}", rig.log());
    rig.until_metric(DROPPED, |count| count == 1.0);

    // The class goes, and its counter with it; what it dropped stays.
    rig.api.delete(POLICY, "NetworkPolicy", "default", "web");
    rig.until_metric(CELLS, |cells| cells == 0.0);
    assert!(pings(&client, &s_has[0]), "{}", rig.log());
    rig.until_metric(DROPPED, |count| count == 1.0);
    rig.stop_agent();
}

#[test]
fn addresses_are_counted_from_their_pod_to_their_rest_and_where_nobody_explains_them() {
    if !runs() {
        return;
    }
    let mut rig = Rig::new();
    rig.start_agent();
    rig.ready();
    for name in ["a", "b"] {
        rig.api.pod(name, &json!({}));
    }
    let (a, b) = (rig.sandbox(), rig.sandbox());
    let free = rig.until_metric(&of_pool("free"), |free| free > 0.0);
    let reserved = rig.until_metric(&of_pool("reserved"), |_| true);
    assert_eq!(free + reserved, 64.0, "a block");
    rig.add("a", "ca", &a);
    let kept = addresses(&rig.add("b", "cb", &b));
    rig.until_metric(&of_pool("used"), |used| used == 2.0);
    rig.del("a", "ca", a.path().to_str().expect("UTF-8"));
    rig.until_metric(&of_pool("used"), |used| used == 1.0);
    rig.until_metric(&of_pool("cooling"), |cooling| cooling == 1.0);
    rig.until_metric(&of_pool("free"), |now| now == free - 2.0);
    rig.until_metric(&of_pool("leaked"), |leaked| leaked == 0.0);

    // A link goes some time after its DEL.
    let link = until("b alone has a link", Duration::from_secs(20), || {
        let links = rig.on_node(&["ip", "-br", "link", "show", "type", "veth"]);
        let links = links.lines().filter_map(|line| line.split('@').next());
        let links: Vec<&str> = links.filter(|link| link.starts_with("cara")).collect();
        match links[..] {
            [link] => Ok(link.to_owned()),
            _ => Err(format!("{links:?}")),
        }
    });

    // The next agent finds a link that claims what the log gives to nobody.
    rig.kill_agent();
    let others = ["10.64.0.5", "10.64.0.6", "10.64.0.7"];
    let other = others
        .iter()
        .find(|other| !kept.contains(&other.to_string()));
    let alias = format!(
        "cb/eth0 {} default/b",
        other.expect("two at most are taken")
    );
    rig.on_node(&["ip", "link", "set", &link, "alias", &alias]);
    rig.start_agent();
    rig.ready();
    rig.until_metric(&of_pool("leaked"), |leaked| leaked == 1.0);
    rig.stop_agent();
}

#[test]
fn an_api_server_that_is_away_makes_the_view_stale_until_it_is_back() {
    if !runs() {
        return;
    }
    let mut rig = Rig::new();
    rig.start_agent();
    rig.ready();
    rig.until_metric(STALE, |stale| stale == 0.0);
    rig.until_metric(&of_pods("watch_lag_seconds"), |lag| lag == 0.0);
    rig.until_metric(&of_pods("reconnects_total"), |count| count == 0.0);

    rig.api.partition();
    rig.until_metric(STALE, |stale| stale == 1.0);
    rig.until_metric(&of_pods("watch_lag_seconds"), |lag| lag > 0.0);
    // Nothing has changed meanwhile, so the server has nothing to tell.
    rig.api.heal();
    rig.until_metric(STALE, |stale| stale == 0.0);
    rig.until_metric(&of_pods("watch_lag_seconds"), |lag| lag == 0.0);
    rig.until_metric(&of_pods("reconnects_total"), |count| count == 1.0);

    // An agent that starts without the server serves pods from its snapshot, and says so.
    rig.kill_agent();
    rig.api.partition();
    rig.start_agent();
    rig.ready();
    rig.until_metric(STALE, |stale| stale == 1.0);
    let lag = rig.until_metric(&of_pods("watch_lag_seconds"), |lag| lag > 0.0);
    rig.until_metric(&of_pods("watch_lag_seconds"), |later| later > lag);
    rig.api.heal();
    rig.until_metric(STALE, |stale| stale == 0.0);
    rig.until_metric(&of_pods("reconnects_total"), |count| count == 0.0);
    rig.stop_agent();
}

#[test]
fn a_write_that_is_refused_is_seen_until_it_is_made() {
    if !runs() {
        return;
    }
    let mut rig = Rig::new();
    rig.start_agent();
    rig.ready();
    rig.settled();
    rig.until_metric(UNSAID, |unsaid| unsaid == 0.0);
    rig.api.refuse_block_writes();
    rig.api.grant_block(1);
    rig.until_metric(UNSAID, |unsaid| unsaid == 1.0);
    assert_eq!(rig.metrics().expect("metrics")[STALE], 0.0, "it follows");
    rig.api.heal();
    rig.until_metric(UNSAID, |unsaid| unsaid == 0.0);
    rig.stop_agent();
}
