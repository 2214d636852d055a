//! A node from its first block to the end of its pods, in a namespace of its own.

use std::time::Duration;

use crate::common::traffic::{EchoServer, Probe};
use crate::common::{LOOPBACKS, Rig, addresses, can_run, inside, pings, until};
use caracal_crds::BlockPhase;
use serde_json::json;

#[test]
fn pods_are_wired_in_both_families_and_their_addresses_rest_after_del() {
    if !can_run() {
        return;
    }
    let mut rig = Rig::new();
    rig.start_agent();
    rig.ready();
    let phase = until("the block is active", Duration::from_secs(5), || {
        let block = rig.api.block(0);
        match block.phase() {
            BlockPhase::Active => Ok(block.status),
            other => Err(other),
        }
    });
    assert!(phase.is_some_and(|status| status.observed_node_uid.is_some()));

    for name in ["a", "b"] {
        rig.api.pod(name, &json!({"app": name}));
    }
    let (a, b) = (rig.sandbox(), rig.sandbox());
    let first = rig.add("a", "ca", &a);
    let second = rig.add("b", "cb", &b);
    let (a_has, b_has) = (addresses(&first), addresses(&second));
    assert_eq!((a_has.len(), b_has.len()), (2, 2));
    for target in b_has.iter().map(String::as_str).chain(LOOPBACKS) {
        assert!(pings(&a, target), "{target} from pod a\n{}", rig.log());
    }
    for target in &a_has {
        assert!(
            pings(&rig.node, target),
            "{target} from the node\n{}",
            rig.log()
        );
    }

    assert_eq!(
        rig.add("a", "ca", &a),
        first,
        "a repeated ADD gets the same answer"
    );
    let check = rig.plugin(
        "CHECK",
        "ca",
        a.path().to_str().expect("UTF-8"),
        &json!({"prevResult": first}).to_string(),
    );
    assert!(check.status.success(), "{check:?}");
    inside(
        &a,
        &[
            "ip",
            "addr",
            "del",
            &format!("{}/32", a_has[0]),
            "dev",
            "eth0",
        ],
    );
    let check = rig.plugin(
        "CHECK",
        "ca",
        a.path().to_str().expect("UTF-8"),
        &json!({"prevResult": first}).to_string(),
    );
    assert!(
        !check.status.success(),
        "CHECK sees that an address is gone"
    );

    rig.del("a", "ca", a.path().to_str().expect("UTF-8"));
    rig.del("a", "ca", "");
    assert!(!pings(&b, &a_has[0]), "a deleted pod does not answer");
    rig.api.pod("c", &json!({}));
    let c = rig.sandbox();
    let third = addresses(&rig.add("c", "cc", &c));
    assert_ne!(third, a_has, "freed addresses rest");
    rig.stop_agent();
}

#[test]
fn a_killed_agent_comes_back_to_everything_as_it_was() {
    if !can_run() {
        return;
    }
    let mut rig = Rig::new();
    rig.start_agent();
    rig.ready();
    for name in ["a", "b"] {
        rig.api.pod(name, &json!({"app": name}));
    }
    let (a, b) = (rig.sandbox(), rig.sandbox());
    let first = rig.add("a", "ca", &a);
    let b_has = addresses(&rig.add("b", "cb", &b));
    rig.api.pod_has("a", &addresses(&first));
    rig.api.pod_has("b", &b_has);
    rig.api.create(&json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": "to-b", "namespace": "default"},
        "spec": {"podSelector": {"matchLabels": {"app": "b"}},
            "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "a"}}}]}]},
    }));
    rig.settled();
    let before = rig.kernel_state();
    let writes = rig.api.writes();

    rig.kill_agent();
    assert!(pings(&a, &b_has[0]), "packets pass while no agent runs");
    rig.start_agent();
    rig.ready();
    rig.settled();
    let after = rig.kernel_state();
    for (what, state) in &before {
        assert_eq!(
            state,
            &after[what],
            "{what} after the restart\n{}",
            rig.log()
        );
    }
    assert_eq!(
        rig.api.writes(),
        writes,
        "the restart wrote to the API server\n{}",
        rig.log()
    );
    assert_eq!(rig.add("a", "ca", &a), first, "the log remembers the pod");

    // Without the API server: a restart, and a pod whose object was seen before.
    rig.api.pod("c", &json!({"app": "c"}));
    rig.settled();
    rig.api.partition();
    rig.kill_agent();
    rig.start_agent();
    rig.ready();
    let c = rig.sandbox();
    let c_has = addresses(&rig.add("c", "cc", &c));
    assert!(pings(&a, &c_has[1]), "{}", rig.log());
    assert!(
        !pings(&c, &b_has[0]),
        "policy holds for a pod wired without the API server"
    );
    // DEL while no agent runs is replayed by the next one.
    rig.kill_agent();
    rig.del("c", "cc", c.path().to_str().expect("UTF-8"));
    rig.start_agent();
    rig.ready();
    assert!(
        !pings(&a, &c_has[1]),
        "the tombstone was replayed\n{}",
        rig.log()
    );
    rig.stop_agent();
}

#[test]
fn no_packet_reaches_a_pod_before_its_policy() {
    if !can_run() {
        return;
    }
    let mut rig = Rig::new();
    rig.start_agent();
    rig.ready();
    for name in ["prober", "open", "denied"] {
        rig.api.pod(name, &json!({"app": name}));
    }
    rig.api.create(&json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": "deny", "namespace": "default"},
        "spec": {"podSelector": {"matchLabels": {"app": "denied"}}, "policyTypes": ["Ingress"]},
    }));
    let prober = rig.sandbox();
    rig.add("prober", "c0", &prober);
    // Every address that a pod could get is asked all the time, from before ADD on.
    let block: Vec<String> = (0..64).map(|host| format!("10.64.0.{host}")).collect();
    for (pod, answers) in [("denied", false), ("open", true)] {
        let sandbox = rig.sandbox();
        let echo = EchoServer::start(&sandbox);
        let probe = Probe::start(&prober, &block);
        until("probes are under way", Duration::from_secs(5), || {
            probe.sent_at_least(640)
        });
        let has = addresses(&rig.add(pod, pod, &sandbox));
        let sent = probe.sent();
        until("probes go on", Duration::from_secs(5), || {
            probe.sent_at_least(sent + 6400)
        });
        let answered = probe.stop();
        drop(echo);
        assert_eq!(
            answered > 0,
            answers,
            "{pod} at {has:?} answered {answered} probes\n{}",
            rig.log()
        );
    }
    rig.stop_agent();
}

#[test]
fn a_policy_cuts_what_it_forbids_and_a_pod_without_an_object_is_isolated() {
    if !can_run() {
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
    let s_has = addresses(&rig.add("server", "cs", &server));
    rig.api.pod_has("client", &c_has);
    rig.api.pod_has("server", &s_has);
    let echo = EchoServer::start(&server);
    // One flow, never idle: established, so the ruleset alone would let it live.
    let probe = Probe::start(&client, &s_has[..1]);
    until("the flow is answered", Duration::from_secs(5), || {
        probe.answered_at_least(20)
    });
    rig.api.create(&json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": "deny", "namespace": "default"},
        "spec": {"podSelector": {"matchLabels": {"app": "server"}}, "policyTypes": ["Ingress"]},
    }));
    until("the flow is cut", Duration::from_secs(5), || {
        let silent = probe.silent_for(200);
        silent.map_err(|silent| (silent, rig.log(), rig.on_node(&["nft", "list", "ruleset"])))
    });
    rig.api
        .delete("networking.k8s.io/v1", "NetworkPolicy", "default", "deny");
    let answered = probe.answered();
    until(
        "the flow is let through again",
        Duration::from_secs(5),
        || probe.answered_at_least(answered + 20),
    );
    probe.stop();
    drop(echo);

    // Nobody created an object for this one: ADD waits its five seconds, then isolates it.
    let stranger = rig.sandbox();
    let has = addresses(&rig.add("stranger", "cx", &stranger));
    assert!(!pings(&client, &has[0]), "{}", rig.log());
    assert!(!pings(&stranger, &c_has[0]), "{}", rig.log());
    assert!(
        pings(&rig.node, &has[0]),
        "the node reaches its pods\n{}",
        rig.log()
    );
    rig.api.pod("stranger", &json!({"app": "stranger"}));
    until(
        "the pod is let in once it is known",
        Duration::from_secs(5),
        || {
            if pings(&client, &has[0]) {
                Ok(())
            } else {
                Err(rig.log())
            }
        },
    );
    rig.stop_agent();
}

#[test]
fn what_others_take_away_comes_back() {
    if !can_run() {
        return;
    }
    let mut rig = Rig::new();
    rig.start_agent();
    rig.ready();
    rig.api.pod("a", &json!({}));
    let a = rig.sandbox();
    let result = rig.add("a", "ca", &a);
    let has = addresses(&result);
    let link = result["interfaces"][0]["name"]
        .as_str()
        .expect("name")
        .to_owned();
    let forwarding = "net.ipv4.ip_forward";
    rig.on_node(&["ip", "route", "del", &has[0]]);
    rig.on_node(&["sysctl", "-qw", &format!("{forwarding}=0")]);
    rig.on_node(&["ip", "route", "del", "blackhole", "10.64.0.0/26"]);
    until(
        "route and setting are back",
        Duration::from_secs(10),
        || {
            let route = rig.on_node(&["ip", "route", "show"]);
            let setting = rig.on_node(&["sysctl", "-n", forwarding]);
            let back = route.contains(&has[0])
                && route.contains("blackhole 10.64.0.0/26")
                && setting.trim() == "1";
            if back { Ok(()) } else { Err((route, setting)) }
        },
    );
    rig.on_node(&["ip", "link", "del", &link]);
    until(
        "the pod has its link again",
        Duration::from_secs(10),
        || {
            if pings(&rig.node, &has[1]) {
                Ok(())
            } else {
                Err(rig.log())
            }
        },
    );
    rig.stop_agent();
}
